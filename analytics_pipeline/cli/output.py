"""What people see: messages on standard error, results as small tables."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any, TextIO

from analytics_pipeline.loading.summary import Summary, forgotten

BOLD, RED, GREEN, YELLOW = "1", "31", "32", "33"


def say(text: str, colour: str = "", stream: TextIO | None = None) -> None:
    """Print a line for people; standard output belongs to results."""
    stream = stream or sys.stderr
    if colour and stream.isatty() and "NO_COLOR" not in os.environ:
        text = f"\033[{colour}m{text}\033[0m"
    print(text, file=stream, flush=True)


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return columns side by side; the first row is the header, numbers to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if cell[:1].isdigit() else cell.ljust(width)
            for cell, width in zip(row, widths, strict=True)
        ).rstrip()
        for row in rows
    )


def short_time(iso: str | None) -> str:
    """Return ISO time to the second."""
    return iso[:19].replace("T", " ") if iso else "-"


def show(summary: Summary, as_json: bool) -> None:
    """Print what a run did, one line for each table, and a total."""
    if as_json:
        json_line(summary.as_json())
        return
    rows = [["table", "new rows", "read again", "requests", "newest row (UTC)"]]
    for name, part in summary.tables.items():
        counts = [f"{n:,}" for n in (part.rows, part.reread, part.requests)]
        rows.append([name, *counts, short_time(part.newest)])
    say(table(rows))
    total = sum(part.rows for part in summary.tables.values())
    waited = f", {summary.waited:.0f} s of them waiting" if summary.waited else ""
    loads = f" and {summary.loads} loads" if summary.loads > 1 else ""
    say(
        f"{total:,} new rows with {summary.requests:,} requests{loads} in"
        f" {summary.seconds:.1f} s{waited}",
        BOLD,
    )
    for name, part in summary.tables.items():
        if part.mismatches:
            say(
                f"{name}: {part.mismatches:,} values did not fit their columns; they are"
                " in the column extra under their names",
                YELLOW,
            )
        if part.replaced:
            say(
                f"{name}: {part.replaced:,} characters that no database takes (NUL, half"
                " a surrogate pair) were replaced by U+FFFD",
                YELLOW,
            )
    if summary.appended:
        say(
            "this destination cannot replace rows: changed ones stand beside their old"
            " versions; --table-format delta (or iceberg) replaces them",
            YELLOW,
        )
    if summary.kept_from:
        say(forgotten(datetime.fromisoformat(summary.kept_from)), YELLOW)
    for path, near_miss in summary.unmatched.items():
        hint = f"; did you mean {near_miss!r}?" if near_miss else ""
        say(f"redact: {path!r} matched nothing in this run{hint}", YELLOW)
    for reason in summary.skipped.values():
        say(f"skipped: {reason}", YELLOW)


def json_line(value: Any) -> None:
    """Print a value as JSON on standard output."""
    print(json.dumps(value), flush=True)
