"""Rows, loaded range and last error of every list, from the warehouse alone."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from analytics_pipeline.bookmarks import Bookmark, Coverage, Span, latest
from analytics_pipeline.loading.loaded_lists import is_read_whole, loaded_lists
from analytics_pipeline.loading.sql import Queries
from analytics_pipeline.loading.warehouse import (
    check_loaded,
    location,
    nothing_loaded,
)
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.schema import PROJECT_SLUG, READ_AT
from analytics_pipeline.values import utc

UNASKED = timedelta(days=7)
"""A list that runs have left out for this long counts as removed from the settings."""


@dataclass
class ListStatus:
    """What is loaded of a table of one project, or of the organization.

    Rows that partitions or other pipelines loaded have no bookmark.
    """

    table: str
    project: str = ""
    """Slug; empty for the organization's list, and for rows of earlier versions."""
    organization: str = ""
    server: str = ""
    bookmark: Bookmark = field(default_factory=Bookmark)
    rows: int | None = 0
    """None: several lists have this slug, and their rows are counted in a further one
    without an organization."""
    newest: datetime | None = None
    """Time of the newest row that is not in the future."""
    received: datetime | None = None
    """When the last row was received."""
    is_asked: bool = True
    """Runs still read it; see `Status.asked_lists`."""

    @property
    def span(self) -> Span | None:
        """The loaded range; None for full scans."""
        spans = self.bookmark.loaded.spans
        if is_read_whole(self.table) or not spans:
            return None
        return Span(spans[-1].start, spans[0].end)

    @property
    def under_way(self) -> str:
        """Unfinished readings, as a sentence."""
        bookmark = self.bookmark
        found = []
        if bookmark.has_gaps:
            found.append(f"reading {_reached(bookmark.loaded)}")
        if bookmark.sweep_began_at:
            found.append(f"sweep {_reached(bookmark.sweep)}")
        return ", ".join(found)

    @property
    def read(self) -> datetime | None:
        """When it was last read to its end, or rows without a bookmark were received."""
        return self.bookmark.completed_at if self.organization else self.received

    @property
    def asked(self) -> datetime | None:
        """When the last run with this list began, if known."""
        bookmark = self.bookmark
        if not self.organization:
            return self.received
        return bookmark.asked_at or latest(bookmark.completed_at, bookmark.failed_at)

    @property
    def problem(self) -> str:
        """The last error, if runs still read the list."""
        return self.bookmark.problem if self.is_asked else ""

    def as_json(self, now: datetime) -> dict[str, Any]:
        """Return what `--json` prints for it."""
        age = (now - self.newest).total_seconds() if self.newest else None
        return {
            "table": self.table,
            "project": self.project,
            "organization": self.organization,
            "server": self.server,
            "rows": self.rows,
            "newest": _iso(self.newest),
            "age": None if age is None else round(age),
            "received": _iso(self.received),
            "loaded_from": _iso(self.span.start) if self.span else None,
            "loaded_to": _iso(self.span.end) if self.span else None,
            "last_complete_reading": _iso(self.bookmark.completed_at),
            "last_read_whole": _iso(self.bookmark.swept_at),
            "under_way": self.under_way,
            "asked": _iso(self.asked),
            "is_asked": self.is_asked,
            "problem": self.problem,
            "failed": _iso(self.bookmark.failed_at) if self.problem else None,
        }


@dataclass
class Status:
    """What a pipeline has loaded into its dataset."""

    pipeline: str
    dataset: str
    location: str
    """A file, or the destination's name."""
    loaded: datetime | None
    """When the last load ended."""
    now: datetime
    lists: list[ListStatus]

    def asked_lists(
        self, longest: timedelta, tables: Sequence[str] = ()
    ) -> list[ListStatus]:
        """Return the lists that runs have requested within that time, or in the last run.

        So lists that were removed from the settings are left out, but not those of the
        last run if all runs have stopped. The history is left out as well.
        """
        tables = tables or [*TABLES]
        lists = [each for each in self.lists if each.table in tables]
        with_bookmark = [each for each in lists if each.organization] or lists
        last = latest(*(each.asked for each in with_bookmark)) or self.now
        since = min(last, self.now - longest)
        return [
            each
            for each in lists
            if (each.asked >= since if each.asked else each in with_bookmark)
        ]

    def old_lists(
        self, longest: timedelta, tables: Sequence[str] = ()
    ) -> list[ListStatus]:
        """Return those of `asked_lists` not read to their end within that time."""
        return [
            each
            for each in self.asked_lists(longest, tables)
            if each.read is None or self.now - each.read > longest
        ]

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints: times as ISO text in UTC, ages in seconds."""
        return {
            "pipeline": self.pipeline,
            "dataset": self.dataset,
            "location": self.location,
            "loaded": _iso(self.loaded),
            "lists": [each.as_json(self.now) for each in self.lists],
        }


def status(pipeline: dlt.Pipeline, now: datetime) -> Status:
    """Return what is loaded, without a request; see `runner.status`."""
    check_loaded(pipeline)
    queries = Queries(pipeline.dataset())
    groups = dict(_groups(queries, now))
    if not groups:
        raise nothing_loaded(pipeline, "none of its tables exists")
    bookmarks = [ListStatus(**each._asdict()) for each in loaded_lists(pipeline)]
    lists = [
        each
        for table in (*TABLES, HISTORY)
        for each in lists_of(
            [each for each in bookmarks if each.table == table], groups.get(table, [])
        )
    ]
    ((loaded,),) = queries.ask("select max(inserted_at) from _dlt_loads")
    found = Status(
        pipeline.pipeline_name,
        str(pipeline.dataset_name),
        location(pipeline),
        utc(loaded),
        now,
        lists,
    )
    asked = found.asked_lists(UNASKED)
    for each in lists:
        each.is_asked = each in asked or each.table == HISTORY
    return found


def _groups(queries: Queries, now: datetime) -> Iterator[tuple[str, list[ListStatus]]]:
    """Yield each table that exists, and its rows by `project_slug`, if it has that."""
    for table in (*TABLES, HISTORY):
        columns = queries.columns(table)
        if not columns:
            continue
        slug = PROJECT_SLUG if PROJECT_SLUG in columns else "null"
        received = f"max({READ_AT})" if READ_AT in columns else "null"
        newest = queries.newest_time(table, now)
        try:
            rows = queries.ask(
                f"select {slug}, count(*), {newest}, {received} from {table}"
                + f" group by {slug}" * (slug in columns)
            )
        except DestinationUndefinedEntity:  # the schema still has the table
            continue
        groups = [
            ListStatus(table, p or "", rows=n, newest=utc(t), received=utc(r))
            for p, n, t, r in rows
        ]
        yield table, groups


def lists_of(
    lists: Sequence[ListStatus], groups: Sequence[ListStatus]
) -> list[ListStatus]:
    """Return a table's lists with the rows of their project, and the remaining groups."""
    others = []
    for group in groups:
        same = [each for each in lists if each.project == group.project]
        # Rows of earlier versions, without a slug, belong to the only list, if it is one.
        candidates = same if group.project else same or lists
        owners = [each for each in candidates if _has_rows(each)]
        if len(owners) == 1:
            (owner,) = owners
            owner.rows = (owner.rows or 0) + (group.rows or 0)
            owner.newest = latest(owner.newest, group.newest)
            owner.received = latest(owner.received, group.received)
        elif group.rows:
            others.append(group)
            for each in owners if same else ():
                each.rows = None
    return [*lists, *others]


def _has_rows(each: ListStatus) -> bool:
    """Return whether a list was ever read, and not only refused."""
    return bool(each.bookmark.loaded.spans or each.bookmark.completed_at)


def _reached(coverage: Coverage) -> str:
    """Return how far back a reading has come."""
    start = coverage.spans[0].start if coverage.spans else None
    at = f", read back to {start:%Y-%m-%d %H:%M}" if start else ""
    return f"unfinished{at}"


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None


def ago(time: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, as shown to users."""
    if time is None:
        return "–"
    minutes = max(int((now - time).total_seconds() // 60), 0)
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 2880 else f"{minutes // 1440} days ago"
