"""What the report shows, queried from the warehouse, which does the counting."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from dlt.common.destination.exceptions import DestinationUndefinedEntity

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.sql import Queries, literal
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.values import loads, utc

Row = tuple[Any, ...]
Ask = Callable[[str], list[Row]]

LEVELS = ("fatal", "error", "warning", "info", "debug", "other")
STATUSES = ("unresolved", "resolved", "ignored", "other")
AGES = {"last day": 1, "2 to 7 days": 7, "8 to 30 days": 30, "31 to 90 days": 90}
"""Days since an issue was first seen, at most."""
OLDER = "older"
SPAN = timedelta(days=90)
"""How far back from the newest event the page looks."""
WEEK = timedelta(weeks=1)
ISSUES = 10
RELEASES = 10

_NEEDED = {
    "events": "group_id",
    "issues": "status level first_seen short_id title count permalink",
    "releases": "version short_version date_released commit_count projects",
    "projects": "slug",
}
"""Columns that the page needs and users can exclude."""


@dataclass
class Release:
    """A release, and the issues that were first seen before the next one."""

    version: str
    short_version: str | None
    time: datetime
    commits: int | None
    projects: list[str] = field(default_factory=list)
    """Slugs."""
    spans: list[tuple[str, datetime, datetime | None]] = field(default_factory=list)
    """Project id, and the start and end of the time in which this is its newest release."""
    new_issues: int | None = None
    """In all its projects; counted for the newest `RELEASES` only."""


@dataclass
class Facts:
    """What the page shows; `tables` are only those that exist."""

    tables: dict[str, tuple[int, datetime | None]] = field(default_factory=dict)
    """Name → number of rows, time of the newest row that is not in the future."""
    loaded: datetime | None = None
    step: timedelta = timedelta(days=1)
    starts: list[datetime] = field(default_factory=list)
    """Beginnings of the days, or hours, for which events are counted."""
    events: dict[str, list[int]] = field(default_factory=dict)
    """Level → a count for each of `starts`."""
    ages: dict[str, list[int]] = field(default_factory=dict)
    """Status → a count for each age, without issues that the server no longer has."""
    worst: list[Row] = field(default_factory=list)
    """Short id, title, level, status, count, last seen, permalink."""
    releases: list[Release] = field(default_factory=list)
    """Newest first."""


def gather(queries: Queries, now: datetime) -> Facts:
    """Query the warehouse; events and releases later than `now` are left out.

    Raises:
        ConfigurationError: a column that the page needs is not loaded.
        DltException: the query failed.
    """
    ask = queries.ask
    facts = Facts()
    for name, needed in _NEEDED.items():
        known = queries.columns(name)
        missing = [column for column in needed.split() if column not in known]
        if known and missing:
            raise ConfigurationError(
                f"the report needs {name}.{missing[0]}, which is not loaded: remove"
                " it from the setting exclude and load again"
            )
    for name in (*TABLES, HISTORY):
        try:
            if queries.columns(name):  # by the schema; the table itself may be gone
                newest = queries.newest_time(name, now)
                ((rows, last),) = ask(f"select count(*), {newest} from {name}")
                facts.tables[name] = rows, utc(last)
        except DestinationUndefinedEntity:
            continue
    if facts.tables:
        facts.loaded = utc(ask("select max(inserted_at) from _dlt_loads")[0][0])
    last = facts.tables.get("events", (0, None))[1]
    if last:
        _count_events(facts, queries, last)
    known = queries.columns("issues") if "issues" in facts.tables else {}
    if known:
        # Datasets of earlier versions lack some columns.
        _count_issues(
            facts, ask, now, "gone_at is null" if "gone_at" in known else "true"
        )
    if "releases" in facts.tables:
        _add_releases(facts, ask, (last or now) - SPAN, now)
        if "project_id" in known:
            _count_new_issues(ask, facts.releases[:RELEASES])
    return facts


def _count_events(facts: Facts, queries: Queries, last: datetime) -> None:
    """Count by an event's own level, or its issue's: GlitchTip's events have none."""
    time = queries.row_time("events")
    span = f"between {literal(last - SPAN)} and {literal(last)}"
    first = queries.ask(f"select min({time}) from events where {time} {span}")[0][0]
    unit, facts.step, facts.starts = units(utc(first), last)
    own_level = "level" if "level" in queries.columns("events") else "null"
    level, join = _known("e.level", LEVELS), ""
    if "issues" in facts.tables:
        level = _known("coalesce(e.level, issues.level)", LEVELS)
        join = "left join issues on issues.id = e.group_id"
    rows = queries.ask(f"""
        select {level}, date_trunc('{unit}', e.time at time zone 'UTC'), count(*)
        from (
            select group_id, cast({own_level} as varchar) as level, {time} as time
            from events
        ) as e {join}
        where e.time {span}
        group by 1, 2
    """)
    places = {start: place for place, start in enumerate(facts.starts)}
    cells = ((level, places[utc(start)], count) for level, start, count in rows)
    facts.events = _grid(LEVELS, len(places), cells)


def _count_issues(facts: Facts, ask: Ask, now: datetime, exists: str) -> None:
    cases = " ".join(
        f"when first_seen > {literal(now - timedelta(days=days))} then {place}"
        for place, days in enumerate(AGES.values())
    )
    rows = ask(f"""
        select {_known("status", STATUSES)}, case {cases} else {len(AGES)} end, count(*)
        from issues where {exists} group by 1, 2
    """)
    facts.ages = _grid(STATUSES, len(AGES) + 1, rows)
    facts.worst = ask(f"""
        select short_id, title, level, status, count, last_seen, permalink
        from issues where {exists}
        order by count desc nulls last, id limit {ISSUES}
    """)


def _add_releases(facts: Facts, ask: Ask, first: datetime, now: datetime) -> None:
    rows = ask(f"""
        select coalesce(r.version, r.id), r.short_version, r.time, r.commit_count,
            r.projects
        from (
            select *, coalesce(date_released, date_created) as time from releases
        ) as r
        where r.time between {literal(first)} and {literal(now)}
        order by r.time desc, r.id desc limit 500
    """)
    slugs: dict[str, str] = {}
    if "projects" in facts.tables:
        slugs = dict(ask("select id, slug from projects"))
    ids = {slug: id for id, slug in slugs.items()}
    until: dict[str, datetime] = {}
    for version, short, time, commits, projects in rows:
        release = Release(version, short, utc(time), commits)
        if isinstance(projects, str):
            projects, _ = loads(projects.encode())
        for project in projects if isinstance(projects, list) else []:
            # GlitchTip's have no id. The project may have another slug by now.
            slug = str(project.get("slug"))
            id = str(project.get("id") or ids.get(slug, ""))
            release.projects.append(slugs.get(id, slug))
            if id:
                release.spans.append((id, release.time, until.get(id)))
        until |= {id: start for id, start, _ in release.spans}
        facts.releases.append(release)


def _count_new_issues(ask: Ask, releases: Sequence[Release]) -> None:
    """Count by time, as the dbt models do, because GlitchTip does not count them."""
    releases = [release for release in releases if release.spans]
    counts = []
    for place, release in enumerate(releases):
        conditions = [
            f"project_id = {literal(id)} and first_seen >= {literal(start)}"
            + (f" and first_seen < {literal(end)}" if end else "")
            for id, start, end in release.spans
        ]
        counts.append(
            f"count(case when {' or '.join(conditions)} then 1 end) as c{place}"
        )
    if counts:
        (numbers,) = ask(f"select {', '.join(counts)} from issues")
        for release, number in zip(releases, numbers, strict=True):
            release.new_issues = number


def units(first: datetime, last: datetime) -> tuple[str, timedelta, list[datetime]]:
    """Return the days of a span, or its hours if short: unit, length, beginnings."""
    unit = "hour" if last - first < timedelta(days=3) else "day"
    step = timedelta(**{f"{unit}s": 1})
    start = first.replace(minute=0, second=0, microsecond=0)
    if unit == "day":
        start = start.replace(hour=0)
    return unit, step, [start + n * step for n in range((last - start) // step + 1)]


def _known(column: str, names: Sequence[str]) -> str:
    """Return SQL for the value if it is one of these, and 'other' if not."""
    listed = ", ".join(f"'{name}'" for name in names)
    return f"case when {column} in ({listed}) then {column} else 'other' end"


def _grid(
    names: Sequence[str], width: int, cells: Iterable[Row]
) -> dict[str, list[int]]:
    """Return name → counts, from cells of name, place and count."""
    counts = {name: [0] * width for name in names}
    for name, place, count in cells:
        counts[name][place] += count
    return {name: row for name, row in counts.items() if any(row)}
