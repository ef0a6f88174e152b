"""A command that was understood is carried out; what goes wrong becomes a sentence."""

import logging
from argparse import Namespace

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import DltException

from analytics_pipeline.cli import commands
from analytics_pipeline.cli.arguments import USAGE
from analytics_pipeline.cli.process import FAILED, INTERRUPTED, KEPT
from analytics_pipeline.cli.terminal import RED, json_line, log_lines, say
from analytics_pipeline.errors import AnalyticsError, ConfigurationError, MissingSetting
from analytics_pipeline.loading.failures import root_error, sentence
from analytics_pipeline.secrets import mask_error

log = logging.getLogger(__name__)
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
                json_line({"error": text})
            wrong = isinstance(root, ConfigurationError | ConfigurationException)
            return USAGE if wrong else FAILED


def _option(error: BaseException) -> str:
    """Return which option gives what is missing, as the end of a sentence."""
    name = error.setting if isinstance(error, MissingSetting) else ""
    return f"; or give {OPTIONS[name]}" if name in OPTIONS else ""
