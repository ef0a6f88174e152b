"""Run a command and report its errors."""

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
from analytics_pipeline.cli.process import FAILED, INTERRUPTED, KEPT, USAGE
from analytics_pipeline.cli.terminal import RED, json_line, log_lines, say
from analytics_pipeline.errors import AnalyticsError, ConfigurationError
from analytics_pipeline.loading.failures import root_error, sentence
from analytics_pipeline.secrets import mask_error

log = logging.getLogger(__name__)
TELEMETRY = "RUNTIME__DLTHUB_TELEMETRY"


def execute(options: Namespace) -> int:
    """Run the command that the options name; return the exit code."""
    with log_lines(options.verbosity):
        try:
            switch_off_telemetry()
            code: int = getattr(commands, options.command)(options)
            return code
        except KeyboardInterrupt:
            say(KEPT, RED)
            return INTERRUPTED
        except BrokenPipeError:
            return FAILED  # the reader of the pipe, such as `head`, has ended
        except Exception as error:
            mask_error(error)
            if not isinstance(error, AnalyticsError | DltException | OSError):
                raise
            log.debug("traceback:", exc_info=True)
            root, text = root_error(error), sentence(error)
            say(f"error: {text}", RED)
            if getattr(options, "json", False):
                with suppress(AnalyticsError, BrokenPipeError):  # printing has failed
                    json_line({"error": text})
            is_usage = isinstance(root, ConfigurationError | ConfigurationException)
            return USAGE if is_usage else FAILED


def switch_off_telemetry() -> None:
    """Switch off dlt's telemetry unless the user has switched it on."""
    if TELEMETRY in os.environ:
        return
    # Before dlt reads any setting, because reading the first one starts telemetry.
    os.environ[TELEMETRY] = "false"
    context = Container()[PluggableRunContext]
    del os.environ[TELEMETRY]
    if dlt.config.get("runtime.dlthub_telemetry"):
        stop_telemetry()  # dlt believes that it has started
        context.initialize_runtime()
    else:
        os.environ[TELEMETRY] = "false"
