"""What the warehouse holds, and how far: by the rows and bookmarks that are in it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import dlt
from dlt.common.destination.exceptions import DestinationUndefinedEntity

from analytics_pipeline.bookmarks import Bookmark, Coverage, Span, latest
from analytics_pipeline.loading.loaded_lists import (
    LoadedList,
    is_read_whole,
    loaded_lists,
)
from analytics_pipeline.loading.sql import Queries, literal
from analytics_pipeline.loading.warehouse import (
    check_loaded,
    location,
    nothing_loaded,
)
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.schema import READ_AT, TABLES
from analytics_pipeline.tables.values import utc

TIMES = {
    "events": ("date_created", "date_received"),
    "issues": ("last_seen",),
    "projects": ("date_created",),
    "releases": ("date_created",),
    "project_detail": ("date_created",),
    HISTORY: ("valid_from",),
}
"""Table → columns that say when a row came to be: the first that is there and not null."""
_PROJECT = {"events": "project_id", "issues": "project_id", HISTORY: "project_id"} | {
    "project_detail": "id"
}
"""Table → the column with the project's id; the others are the organization's."""


@dataclass
class ListStatus:
    """What is loaded of a table of one project, or of the organization.

    Rows that partitions or other pipelines brought have no bookmark.
    """

    table: str
    project: str = ""
    """Slug, or the id where no slug is known; empty: the list is the organization's, or
    nobody knows whose the rows are."""
    organization: str = ""
    server: str = ""
    bookmark: Bookmark = field(default_factory=Bookmark)
    rows: int | None = None
    """None: the rows of several lists stand together, and none says whose they are."""
    newest: datetime | None = None
    """Time of the newest row, not of the future."""
    received: datetime | None = None
    """When a row came last, new or again."""

    @property
    def span(self) -> Span | None:
        """From when and up to when it is loaded; none of what is read whole."""
        spans = self.bookmark.loaded.spans
        if is_read_whole(self.table) or not spans:
            return None
        return Span(spans[-1].start, spans[0].end)

    @property
    def under_way(self) -> str:
        """Readings that have not come to their end, for people; empty: there are none."""
        bookmark = self.bookmark
        found = []
        if bookmark.has_gaps:
            found.append(f"reading {_reached(bookmark.loaded)}")
        if bookmark.sweep_began_at:
            found.append(f"sweep {_reached(bookmark.sweep)}")
        return ", ".join(found)

    @property
    def read(self) -> datetime | None:
        """When it was read to its end; of rows without a bookmark, when they came."""
        return self.bookmark.completed_at if self.organization else self.received

    def as_json(self, now: datetime) -> dict[str, Any]:
        """Return what `--json` prints of it."""
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
            "problem": self.bookmark.problem,
            "failed": _iso(self.bookmark.failed_at),
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

    def old_lists(self, longest: timedelta) -> list[ListStatus]:
        """Return the lists that runs did not read to their end for so long.

        A list that failed or was refused within that time, or all of a table. Others that
        were not read are not asked for any more, and rows of the history come along with
        the issues.
        """

        def is_recent(time: datetime | None) -> bool:
            return time is not None and self.now - time <= longest

        asked = {each.table for each in self.lists if is_recent(each.read)}
        return [
            each
            for each in self.lists
            if each.table != HISTORY
            and not is_recent(each.read)
            and (each.table not in asked or is_recent(each.bookmark.failed_at))
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


@dataclass
class _Group:
    """The rows of one project in a table."""

    rows: int
    newest: datetime | None
    received: datetime | None


def status(pipeline: dlt.Pipeline, now: datetime) -> Status:
    """Tell what is loaded, as of `now`; no server is asked, and nothing is changed.

    Raises:
        ConfigurationError: nothing was ever loaded, or the destination cannot be used.
        DltException: the destination could not be asked.
    """
    check_loaded(pipeline)
    queries = Queries(pipeline.dataset())
    groups = dict(_groups(queries, now))
    if not groups:
        raise nothing_loaded(pipeline, "none of its tables is there")
    bookmarks = loaded_lists(pipeline)
    slugs = _slugs(queries, groups)
    lists = [
        each
        for table in (*TABLES, HISTORY)
        for each in _lists(
            table,
            groups.get(table, {}),
            [each for each in bookmarks if each.table == table],
            slugs,
        )
    ]
    ((loaded,),) = queries.ask("select max(inserted_at) from _dlt_loads")
    return Status(
        pipeline.pipeline_name,
        str(pipeline.dataset_name),
        location(pipeline),
        utc(loaded),
        now,
        lists,
    )


def _groups(queries: Queries, now: datetime) -> Iterator[tuple[str, dict[str, _Group]]]:
    """Give each table that is there, and its rows by the project's id, or by ""."""
    for table in (*TABLES, HISTORY):
        columns = queries.columns(table)
        if not columns:  # by the schema; the table itself may be gone
            continue
        newest = newest_time(queries, table, now)
        received = f"max({READ_AT})" if READ_AT in columns else "null"
        project = _PROJECT.get(table)
        project = project if project in columns else None
        by = f"{project}, " if project else ""
        grouped = f" group by {project}" if project else ""
        try:
            rows = queries.ask(
                f"select {by}count(*), {newest}, {received} from {table}{grouped}"
            )
        except DestinationUndefinedEntity:
            continue
        found = [("", *row) if not project else row for row in rows]
        yield table, {p or "": _Group(n, utc(t), utc(r)) for p, n, t, r in found}


def newest_time(queries: Queries, table: str, now: datetime) -> str:
    """Return the SQL for the time of the newest row, those of the future left aside."""
    time = row_time(queries, table)
    return f"max(case when {time} <= {literal(now)} then {time} end)"


def row_time(queries: Queries, table: str) -> str:
    """Return the SQL for the time at which a row of a table came to be."""
    columns = queries.columns(table)
    times = [column for column in TIMES[table] if column in columns]
    return f"coalesce({', '.join(times)})" if len(times) > 1 else times[0]


def _slugs(queries: Queries, tables: Mapping[str, Any]) -> dict[str, str]:
    """Return the slugs of the projects, by their ids."""
    slugs: dict[str, str] = {}
    for table in ("projects", "project_detail"):
        if table in tables and "slug" in queries.columns(table):
            slugs |= dict(queries.ask(f"select id, slug from {table}"))
    return slugs


def _lists(
    table: str,
    groups: Mapping[str, _Group],
    bookmarks: Sequence[LoadedList],
    slugs: Mapping[str, str],
) -> Iterator[ListStatus]:
    """Give the lists of a table: those with a bookmark, and other rows."""
    left = dict(groups)
    for each in bookmarks:
        found = ListStatus(
            table, each.project, each.organization, each.server, each.bookmark
        )
        if len(groups) == 1 and [each] == [b for b in bookmarks if _has_rows(b)]:
            ids = [*groups]  # whatever the project's id is
        else:
            ids = [
                i for i in left if each.project and each.project in (i, slugs.get(i))
            ]
        mine = [left.pop(i) for i in ids]
        # Without any, others may be of this list, unless all are known to be of another.
        if mine or all(i in slugs for i in left):
            found.rows = sum(group.rows for group in mine)
            found.newest = latest(*(group.newest for group in mine))
            found.received = latest(*(group.received for group in mine))
        yield found
    for project, group in left.items():
        yield ListStatus(table, slugs.get(project, project), **vars(group))


def _has_rows(each: LoadedList) -> bool:
    """Tell whether anything of a list was read; the bookmark may tell of a refusal only."""
    return bool(each.bookmark.loaded.spans or each.bookmark.completed_at)


def _reached(coverage: Coverage) -> str:
    """Return how far down a reading has come; the newest rows are read first."""
    start = coverage.spans[0].start if coverage.spans else None
    at = f", come to {start:%Y-%m-%d %H:%M}" if start else ""
    return f"not at its end yet{at}"


def _iso(time: datetime | None) -> str | None:
    return time.isoformat() if time else None


def ago(time: datetime | None, now: datetime) -> str:
    """Return how long ago a time was, for people."""
    if time is None:
        return "–"
    minutes = max(int((now - time).total_seconds() // 60), 0)
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 2880 else f"{minutes // 1440} days ago"
