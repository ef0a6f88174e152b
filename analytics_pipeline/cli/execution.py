"""A command that was understood is carried out; what goes wrong becomes a sentence."""

import logging
import os
from argparse import Namespace
from contextlib import suppress

import dlt
from dlt.common.configuration.container import Container
from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.exceptions import DltException
from dlt.common.runtime.telemetry import stop_telemetry

from analytics_pipeline.cli import commands
from analytics_pipeline.cli.arguments import USAGE
from analytics_pipeline.cli.process import FAILED, INTERRUPTED, KEPT
from analytics_pipeline.cli.terminal import RED, json_line, log_lines, say
from analytics_pipeline.errors import AnalyticsError, ConfigurationError, MissingSetting
from analytics_pipeline.loading.failures import root_error, sentence
from analytics_pipeline.secrets import mask_error

log = logging.getLogger(__name__)
TELEMETRY = "RUNTIME__DLTHUB_TELEMETRY"
OPTIONS = {
    "base_url": "--base-url",
    "organization": "--organization",
    "project": "--project or --all-projects",
}
"""Settings that are options, too."""


def execute(options: Namespace) -> int:
    """Carry out the command that the options name; return the exit code."""
    with log_lines(options.verbosity):
        try:
            switch_off_telemetry()
            code: int = getattr(commands, options.command)(options)
            return code
        except KeyboardInterrupt:
            say(KEPT, RED)
            return INTERRUPTED
        except BrokenPipeError:
            return FAILED  # who reads our output wants no more of it
        except Exception as error:
            mask_error(error)
            if not isinstance(error, AnalyticsError | DltException | OSError):
                raise
            log.debug("what led to it:", exc_info=True)
            root = root_error(error)
            text = sentence(error) + _option(root)
            say(f"error: {text}", RED)
            if getattr(options, "json", False):
                with suppress(OSError):  # it may be what has failed
                    json_line({"error": text})
            wrong = isinstance(root, ConfigurationError | ConfigurationException)
            return USAGE if wrong else FAILED


def switch_off_telemetry() -> None:
    """Keep dlt from sending what was run to its makers, unless the user's settings say so."""
    if TELEMETRY in os.environ:
        return
    # Before dlt looks for any setting, since telemetry begins with the first one.
    os.environ[TELEMETRY] = "false"
    context = Container()[PluggableRunContext]
    del os.environ[TELEMETRY]
    if dlt.config.get("runtime.dlthub_telemetry"):
        stop_telemetry()  # it counts as begun
        context.initialize_runtime()
    else:
        os.environ[TELEMETRY] = "false"


def _option(error: BaseException) -> str:
    """Return which option gives what is missing, as the end of a sentence."""
    name = error.setting if isinstance(error, MissingSetting) else ""
    return f"; or give {OPTIONS[name]}" if name in OPTIONS else ""
