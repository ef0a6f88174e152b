"""Run the command line: `python -m analytics_pipeline`."""

import gc
import os
import signal
import sys
from contextlib import suppress

from analytics_pipeline.cli.process import FAILED, INTERRUPTED, interrupt, open_streams


def program() -> int:
    """Run `main` as a process of its own."""
    signal.signal(signal.SIGINT, interrupt)
    open_streams()
    # Imported after the handler is set, because this takes most of a second.
    from analytics_pipeline.cli import terminal
    from analytics_pipeline.cli.main import main

    terminal.has_times = not terminal.is_terminal() and sys.argv[1:2] != ["demo"]
    code = main()
    if code in (FAILED, INTERRUPTED):
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # threads of other lists may still wait for the server
    gc.freeze()  # makes the end of the process faster
    return code


if __name__ == "__main__":
    raise SystemExit(program())
