"""The entry point of the command line."""

import sys
from collections.abc import Sequence

from analytics_pipeline.cli.arguments import parse


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code.

    Raises:
        SystemExit: wrong usage, or help or the version was requested.
    """
    options = parse(sys.argv[1:] if argv is None else argv)
    # Imported here because dlt takes most of a second, which --help need not wait for.
    from analytics_pipeline.cli.execution import execute

    return execute(options)
