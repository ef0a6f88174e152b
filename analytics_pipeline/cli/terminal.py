"""Lines for people on standard error, the log among them, and results on standard output."""

import json
import logging
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics_pipeline.secrets import masked

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"


def say(text: str, colour: str = "", stream: TextIO | None = None) -> None:
    """Print a line for people; standard output belongs to results."""
    stream = stream or sys.stderr
    if colour and stream.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[{colour}m{text}\033[0m"
    stream.write(text + "\n")  # at once, unlike print: other threads write lines, too
    stream.flush()


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return columns side by side; the first row is the header, numbers to the right."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        cells = (
            Text(cell, justify="right" if cell[:1].isdigit() else "left")
            for cell in row
        )
        grid.add_row(*cells)
    console = Console(width=1000, color_system=None)
    with console.capture() as captured:
        console.print(grid)
    return "\n".join(line.rstrip() for line in captured.get().splitlines())


class LogLines(logging.Handler):
    """Writes log lines as `say` does, so that they do not tear what a terminal shows."""

    def __init__(self, verbosity: int) -> None:
        super().__init__()
        self._of_dlt: set[str] = set()
        # Not set as the handler's formatter, which dlt replaces by its own.
        self._form = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
        if not verbosity:
            form = "%(message)s" if sys.stderr.isatty() else "%(asctime)s %(message)s"
            self._form = logging.Formatter(form, "%H:%M:%S")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, warnings in colour; the same one of dlt's only once."""
        is_warning = record.levelno >= logging.WARNING
        if record.name == "dlt":
            if record.getMessage() in self._of_dlt:
                return
            self._of_dlt.add(record.getMessage())
        say(masked(self._form.format(record)), YELLOW if is_warning else "")


@contextmanager
def log_lines(verbosity: int) -> Iterator[None]:
    """Show the log while a command runs: warnings; with 1 what happens; with 2 requests.

    dlt's own lines come in the same form.
    """
    root, dlts, ours = map(logging.getLogger, ("", "dlt", "analytics_pipeline"))
    handlers, level, handler = dlts.handlers, ours.level, LogLines(verbosity)
    root.addHandler(handler)
    dlts.handlers = [handler]
    dlts.propagate = False
    ours.setLevel((logging.WARNING, logging.INFO, logging.DEBUG)[min(verbosity, 2)])
    try:
        yield
    finally:
        root.removeHandler(handler)
        dlts.handlers = handlers
        ours.setLevel(level)


def short_time(iso: str | None) -> str:
    """Return ISO time to the second."""
    return iso[:19].replace("T", " ") if iso else "–"


def json_line(value: Any) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value), flush=True)
