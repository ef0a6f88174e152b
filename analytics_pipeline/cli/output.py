"""The results of commands, as small tables or as JSON."""

import sys
from collections.abc import Iterator
from datetime import datetime
from functools import partial

from analytics_pipeline.cli.terminal import (
    BOLD,
    GREEN,
    RED,
    YELLOW,
    counted,
    json_line,
    say,
    short_time,
    table,
    write,
)
from analytics_pipeline.errors import by_reason
from analytics_pipeline.loading.loaded_lists import is_read_whole
from analytics_pipeline.loading.status import Status, ago
from analytics_pipeline.loading.summary import Summary, forgotten
from analytics_pipeline.loading.verification import Counts, Example, Verification


def show(summary: Summary, as_json: bool) -> None:
    """Print the result of a run: a line for each table, a total, and notes."""
    if as_json:
        json_line(summary.as_json())
        return
    rows = [["table", "new rows", "read again", "requests", "newest row (UTC)"]]
    for name, part in summary.tables.items():
        counts = [f"{n:,}" for n in (part.rows, part.reread, part.requests)]
        rows.append([name, *counts, short_time(part.newest)])
    say(table(rows))
    total = sum(part.rows for part in summary.tables.values())
    waits = f", {summary.waited:.0f} s of it waiting for rate limits"
    loads = f" and {summary.loads} loads" if summary.loads > 1 else ""
    say(
        f"{counted(total, 'new row')} with {counted(summary.requests, 'request')}{loads} in"
        f" {summary.seconds:.1f} s{waits if summary.waited else ''}",
        BOLD,
    )
    for note in _notes(summary):
        say(note, YELLOW)


def _notes(summary: Summary) -> Iterator[str]:
    for name, part in summary.tables.items():
        if part.mismatches:
            yield (
                f"{name}: {counted(part.mismatches, 'value')} did not fit the column's"
                " type and went into the column extra"
            )
        if part.replaced:
            yield (
                f"{name}: {counted(part.replaced, 'character')} that databases reject"
                " (NUL, half a surrogate pair) replaced by U+FFFD"
            )
    if summary.appended:
        yield (
            "this destination cannot replace rows, so old versions of changed rows stay."
            " Use --table-format delta or iceberg to replace them."
        )
    if summary.kept_from:
        yield forgotten(datetime.fromisoformat(summary.kept_from))
    for path in sorted(summary.unmatched):
        yield f"redact: {path!r} matched nothing"
    for reason in by_reason(summary.skipped.values()):
        yield f"skipped: {reason}"


def show_status(status: Status, as_json: bool) -> None:
    """Print rows, loaded range and last error of each list on standard output."""
    if as_json:
        json_line(status.as_json())
        return
    show = partial(write, stream=sys.stdout)
    show(
        f"{status.location}, dataset {status.dataset}, pipeline {status.pipeline}:"
        f" loaded {ago(status.loaded, status.now)}",
        BOLD,
    )
    show(table([*_status_rows(status)]))
    if any(each.rows is None for each in status.lists):
        show(
            "?: several lists share this name, so their rows cannot be counted separately"
        )
    for each in status.lists:
        if each.under_way:
            name = each.project or each.organization
            show(f"{each.table} of {name}: {each.under_way}", YELLOW)
    for line in by_reason(_no_longer_read(status)):
        show(line)
    problems: dict[str, list[str]] = {}
    for each in status.lists:
        if each.problem:
            failed = ago(each.bookmark.failed_at, status.now)
            problems.setdefault(failed, []).append(each.problem)
    for failed, errors in problems.items():
        for reason in by_reason(errors):
            show(f"{failed}: {reason}", RED)


def _status_rows(status: Status) -> Iterator[list[str]]:
    header = ["table", "project", "rows", "loaded from", "up to", "newest row"]
    yield [*header, "last complete read"]
    servers = len({each.server for each in status.lists} - {""}) > 1
    several = len({each.organization for each in status.lists} - {""}) > 1 or servers
    for each in status.lists:
        parts = each.server * servers, each.organization * several, each.project
        since, end, _ = each.span or (None, None, None)
        first = "the beginning" if each.span and not since else _to_minute(since)
        yield [
            each.table,
            "/".join(filter(None, parts)) or "–",
            "?" if each.rows is None else f"{each.rows:,}",
            "full scan" if is_read_whole(each.table) else first,
            _to_minute(end),
            ago(each.newest, status.now),
            ago(each.bookmark.completed_at, status.now),
        ]


def _no_longer_read(status: Status) -> Iterator[str]:
    """Yield a sentence about each list that recent runs did not include."""
    for each in status.lists:
        if not each.is_asked and each.organization:
            owner = f"organization {each.organization!r}"
            owner = f"project {each.project!r}" if each.project else owner
            asked = ago(each.asked, status.now)
            yield f"{each.table} of {owner}: last included in a run {asked}"


def _to_minute(time: datetime | None) -> str:
    return short_time(time.isoformat() if time else None)[:16]


def show_verification(found: Verification, as_json: bool) -> None:
    """Print the differences between warehouse and server."""
    if as_json:
        json_line(found.as_json())
        return
    rows = [["table", "project", *Counts.__annotations__]]
    for name, lists in found.tables.items():
        for project, counts in lists.items():
            rows.append([name, project, *(f"{n:,}" for n in vars(counts).values())])
    say(table(rows))
    for name, kinds in found.examples.items():
        for kind, examples in kinds.items():
            colour = "" if kind == "gone" else YELLOW
            say(f"{name}, {kind}: {'; '.join(map(_example, examples))}", colour)
    for reason in by_reason(found.failed.values()):
        say(f"not compared: {reason}", RED)
    for reason in by_reason(found.skipped.values()):
        say(f"skipped: {reason}", YELLOW)
    _conclude(found)


def _example(example: Example) -> str:
    columns = f" ({', '.join(example.columns)})" if example.columns else ""
    return f"{example.key}{columns}"


def _conclude(found: Verification) -> None:
    seconds = f"in {found.seconds:.1f} s"
    if found.before:
        total = Counts()
        for counts in found.before.values():
            total.add(counts)
        say(
            f"repaired: {total.missing:,} missing, {total.doubled:,} doubled,"
            f" {total.different:,} different rows",
            BOLD,
        )
    if found.is_equal:
        say(f"the warehouse matches the server; compared {seconds}", GREEN)
    else:
        advice = "" if found.before else ". Use --repair to reload what differs."
        say(f"the warehouse differs from the server; compared {seconds}{advice}", RED)
