"""The command line."""

import sys
from collections.abc import Sequence

from analytics_pipeline.cli.arguments import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    Raises:
        SystemExit: the words make no sense, or help or the version was asked for.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    # Only now: dlt takes most of a second, and help and mistakes need nothing of it.
    from analytics_pipeline.cli.execution import execute

    return execute(options)
