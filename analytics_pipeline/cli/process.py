"""The command line as a process of its own: how it begins, and how Ctrl-C ends it."""

import gc
import io
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
    _open_streams()
    # Only now, as this takes most of a second, in which people press Ctrl-C, too.
    from analytics_pipeline.cli import terminal
    from analytics_pipeline.cli.main import main

    terminal.has_times = not terminal.is_terminal() and sys.argv[1:2] != ["demo"]
    code = main()
    if code in (FAILED, INTERRUPTED):
        with suppress(OSError):
            sys.stdout.flush()
        os._exit(code)  # other lists may still be waiting for their turn
    gc.freeze()  # Python need not look through what goes with the process anyway
    return code


def _open_streams() -> None:
    """Open what the shell has closed (`2>&-`), or a database's file may be in its place."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    old: Any = sys.stderr
    form = old.encoding, old.errors
    sys.stderr = _Stderr(old.detach(), *form, line_buffering=True)


class _Stderr(io.TextIOWrapper):
    """Standard error; what it cannot take is left out, so that no load ends for it."""

    def write(self, text: str) -> int:
        with suppress(OSError):  # a terminal that was closed, a full disk
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def interrupt(*signalled: Any) -> NoReturn:
    """End at once on Ctrl-C: threads that wait for a server are not waited for.

    While dlt prepares and loads it has a handler of its own, which lets it finish the
    tables that are being written; with the second Ctrl-C comes this one.
    """
    try:
        for put_in_order in at_interruption:
            put_in_order()
        sys.stderr.write(f"{KEPT}\n")
    finally:
        os._exit(INTERRUPTED)
