"""Output: messages and the log on standard error, results on standard output."""

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

from analytics_pipeline.errors import AnalyticsError
from analytics_pipeline.secrets import masked

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"
has_times = False
"""Each message starts with the time, because standard error is a log file."""

_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]"
)
"""Characters that control the terminal or reorder the text around them."""
_ASCII = str.maketrans({"✓": "ok", "✗": "failed", "–": "-", "…": "..."})


def say(text: str, colour: str = "") -> None:
    """Print a message on standard error."""
    if has_times:
        now = f"{datetime.now():%Y-%m-%d %H:%M:%S} "
        text = "\n".join(now + line for line in text.split("\n"))
    write(text, colour)


def write(text: str, colour: str = "", stream: TextIO | None = None) -> None:
    """Print text, by default on standard error; `?` for what the encoding lacks.

    Raises:
        BrokenPipeError: the reader of a pipe has ended.
        AnalyticsError: printing failed for another reason, such as a full disk.
    """
    text, stream = printable(text), stream or sys.stderr
    if colour and stream.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[{colour}m{text}\033[0m"
    encoding = stream.encoding or "utf-8"
    if not encoding.lower().startswith("utf"):
        text = text.translate(_ASCII)
    text = text.encode(encoding, "replace").decode(encoding)
    try:
        stream.write(text + "\n")  # in one call, because other threads also write
        stream.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        raise AnalyticsError(
            "the command ran, but its result could not be printed:"
            f" {error.strerror or error}"
        ) from error


def is_terminal() -> bool:
    """Return whether standard error is a terminal."""
    return sys.stderr.isatty()


def printable(text: str) -> str:
    """Return the text without characters that control the terminal."""
    return _CONTROL.sub("\ufffd", text)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return aligned columns below a header, or paragraphs on a narrow terminal."""
    rows = [[printable(cell).replace("\n", " ") for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    if sum(widths) + 2 * len(widths) - 2 > columns():
        titles, *others = rows
        width = max(map(len, titles[1:]), default=0)
        return "\n".join(
            "\n  ".join([name, *(f"{title:{width}}  {cell}" for title, cell in cells)])
            for name, *values in others
            for cells in [zip(titles[1:], values, strict=True)]
        )
    return "\n".join(
        "  ".join(
            f"{cell:{'>' if cell[:1].isdigit() else '<'}{width}}"
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def columns() -> float:
    """Return the width of the terminal on standard error; without one, infinity."""
    if not is_terminal():
        return math.inf
    with suppress(OSError, ValueError):
        return int(os.environ.get("COLUMNS") or os.get_terminal_size(2).columns)
    return math.inf


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: 1 row, 2 rows."""
    return f"{number:,} {noun}" + "s" * (number != 1)


class LogLines(logging.Handler):
    """Writes log lines on standard error, those of dlt only once."""

    def __init__(self, verbosity: int) -> None:
        super().__init__()
        self._of_dlt: set[str] = set()
        form, dates = "%(asctime)s %(levelname)-7s %(message)s", None
        if not verbosity:
            form = "%(message)s" if is_terminal() else "%(asctime)s %(message)s"
            dates = "%Y-%m-%d %H:%M:%S"
        # Not the handler's own formatter, because dlt replaces that.
        self._form = logging.Formatter(form, dates)

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record, warnings in yellow."""
        if record.name == "dlt":
            if record.getMessage() in self._of_dlt:
                return
            self._of_dlt.add(record.getMessage())
        colour = YELLOW if record.levelno >= logging.WARNING else ""
        write(masked(self._form.format(record)), colour)


@contextmanager
def log_lines(verbosity: int) -> Iterator[None]:
    """Show warnings, with verbosity 1 also info lines, with 2 each request.

    dlt's lines are shown in the same form.
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
    write(json.dumps(value), stream=sys.stdout)
