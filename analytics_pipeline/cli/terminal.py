"""Lines for people on standard error, the log among them, and results on standard output."""

import io
import json
import logging
import math
import os
import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table
from rich.text import Text

from analytics_pipeline.secrets import masked

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"
has_times = False
"""Each line has the time: standard error is a file, such as a log of cron."""


_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
"""Characters that move the cursor, colour or reorder what stands around them."""


def say(text: str, colour: str = "") -> None:
    """Print lines for people on standard error; standard output belongs to results."""
    if has_times:
        now = f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        text = "\n".join(now + line for line in text.split("\n"))
    write(text, colour)


def write(text: str, colour: str = "", stream: TextIO | None = None) -> None:
    """Print lines as they are, but for characters that a terminal does not show.

    Raises:
        OSError: the stream cannot be written.
    """
    text, stream = printable(text), stream or sys.stderr
    if colour and stream.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[{colour}m{text}\033[0m"
    encoding = stream.encoding or "utf-8"
    text = text.encode(encoding, "replace").decode(encoding)
    # at once, unlike print: other threads write lines, too
    stream.write(text + "\n")
    stream.flush()


def is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr.isatty()


def printable(text: str) -> str:
    """Return the text with a sign for each character that controls a terminal."""
    return _CONTROL.sub("\ufffd", text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return columns side by side; the first row is the header, numbers to the right.

    Where the terminal is too narrow for that, each row is a paragraph.
    """
    rows = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) + 2 for column in zip(*rows, strict=True)]
    if sum(widths) - 2 > columns():
        header, *others = rows
        width = max(map(len, header[1:]), default=0)
        return "\n".join(
            "\n".join(
                [row[0]]
                + [
                    f"  {title:{width}}  {cell}"
                    for title, cell in zip(header[1:], row[1:], strict=True)
                ]
            )
            for row in others
        )
    grid = Table.grid(padding=(0, 2, 0, 0))
    for row in rows:
        cells = (
            Text(cell, justify="right" if cell[:1].isdigit() else "left")
            for cell in row
        )
        grid.add_row(*cells)
    drawn = io.StringIO()
    Console(file=drawn, width=1000, color_system=None).print(grid)
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines())


def columns() -> float:
    """Return the width of the terminal on standard error; without one there is no limit."""
    if not is_terminal():
        return math.inf
    with suppress(OSError, ValueError):
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(2).columns)
    return math.inf


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 row, 2 rows."""
    return f"{number:,} {noun}" + "s" * (number != 1)


class LogLines(logging.Handler):
    """Writes log lines as `say` does, so that they do not tear what a terminal shows."""

    def __init__(self, verbosity: int) -> None:
        super().__init__()
        self._of_dlt: set[str] = set()
        # Not set as the handler's formatter, which dlt replaces by its own.
        self._form = logging.Formatter("%(asctime)s %(levelname)-7s %(message)s")
        if not verbosity:
            form = "%(message)s" if is_terminal() else "%(asctime)s %(message)s"
            self._form = logging.Formatter(form, "%Y-%m-%d %H:%M:%S")

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, warnings in colour; the same one of dlt's only once."""
        is_warning = record.levelno >= logging.WARNING
        if record.name == "dlt":
            if record.getMessage() in self._of_dlt:
                return
            self._of_dlt.add(record.getMessage())
        write(masked(self._form.format(record)), YELLOW if is_warning else "")


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
