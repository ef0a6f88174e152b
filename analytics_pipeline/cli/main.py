"""The command line: words to a command, a command to its exit code."""

import logging
import sys
from collections.abc import Sequence

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import DltException

from analytics_pipeline.cli import commands
from analytics_pipeline.cli.arguments import USAGE, parse
from analytics_pipeline.cli.output import RED, log_lines, say
from analytics_pipeline.cli.process import FAILED, INTERRUPTED, KEPT
from analytics_pipeline.errors import AnalyticsError, ConfigurationError, MissingSetting
from analytics_pipeline.loading.failures import root_error, sentence

log = logging.getLogger(__name__)


OPTIONS = {
    "base_url": "--base-url",
    "organization": "--organization",
    "project": "--project or --all-projects",
}
"""Settings that are options, too."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    options = parse(sys.argv[1:] if argv is None else argv)
    with log_lines(options.verbosity):
        try:
            code: int = getattr(commands, options.command)(options)
            return code
        except KeyboardInterrupt:
            say(KEPT, RED)
            return INTERRUPTED
        except (AnalyticsError, DltException, OSError) as error:
            log.debug("what led to it:", exc_info=True)
            say(f"error: {sentence(error)}{_option(root_error(error))}", RED)
            wrong = isinstance(
                root_error(error), ConfigurationError | ConfigurationException
            )
            return USAGE if wrong else FAILED


def _option(error: BaseException) -> str:
    """Return which option gives what is missing, as the end of a sentence."""
    name = error.setting if isinstance(error, MissingSetting) else ""
    return f"; or give {OPTIONS[name]}" if name in OPTIONS else ""
