"""The command line as a process of its own: how it begins, and how Ctrl-C ends it."""

import gc
import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

FAILED, INTERRUPTED = 1, 130
KEPT = (
    "interrupted; what is in the warehouse stays, and the next run goes on from there"
)
at_interruption: list[Callable[[], None]] = []
"""What puts the terminal in order."""


def program() -> int:
    """Run `main` as a process of its own, which ends at once when it has failed."""
    signal.signal(signal.SIGINT, interrupt)
    # Only now, as this takes most of a second, in which people press Ctrl-C, too.
    from analytics_pipeline.cli.main import main

    code = main()
    if code in (FAILED, INTERRUPTED):
        with suppress(BrokenPipeError):
            sys.stdout.flush()
        os._exit(code)  # other lists may still be waiting for their turn
    gc.freeze()  # Python need not look through what goes with the process anyway
    return code


def interrupt(*signalled: Any) -> NoReturn:
    """End at once on Ctrl-C: threads that wait for a server are not waited for.

    While dlt prepares and loads it has a handler of its own, which lets it finish the
    tables that are being written; with the second Ctrl-C comes this one.
    """
    try:
        for put_in_order in at_interruption:
            put_in_order()
        sys.stderr.write(f"{KEPT}\n")
        sys.stderr.flush()
    finally:
        os._exit(INTERRUPTED)
