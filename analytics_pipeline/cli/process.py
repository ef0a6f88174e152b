"""Exit codes, and what Ctrl-C does."""

import io
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NoReturn

OK, FAILED, USAGE, SKIPPED, INTERRUPTED = 0, 1, 2, 3, 130
KEPT = "interrupted. Data loaded so far is kept, and the next run resumes there."
at_interruption: list[Callable[[], None]] = []
"""Functions that restore the terminal."""


class _Stderr(io.TextIOWrapper):
    """Standard error that ignores failed writes, so that they do not end a load."""

    def write(self, text: str) -> int:
        with suppress(OSError):  # a terminal that was closed, a full disk
            super().write(text)
        return len(text)

    def flush(self) -> None:
        with suppress(OSError):
            super().flush()


def open_streams() -> None:
    """Open streams that the shell closed; a DuckDB file could get their descriptors."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode))  # noqa: SIM115
    old: Any = sys.stderr
    form = old.encoding, old.errors
    sys.stderr = _Stderr(old.detach(), *form, line_buffering=True)


def interrupt(*signalled: Any) -> NoReturn:
    """Exit at once, without waiting for threads that wait for a server.

    While dlt loads, its own handler finishes the tables that are being written; only a
    second Ctrl-C calls this one.
    """
    try:
        for restore in at_interruption:
            restore()
        sys.stderr.write(f"{KEPT}\n")
    finally:
        os._exit(INTERRUPTED)
