"""What the report shows, asked from the warehouse.

`pipeline.dataset()` is asked in SQL that dlt translates for the destination. The
warehouse counts; only sums travel.
"""

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
"""Days since an issue was first seen, up to which it is of this age."""
OLDER = "older"
SPAN = timedelta(days=90)
"""How far back from the newest event the page looks."""
ISSUES = 10
RELEASES = 10

_NEEDED = {
    "events": ("group_id",),
    "issues": (
        "status",
        "level",
        "first_seen",
        "short_id",
        "title",
        "count",
        "permalink",
    ),
    "releases": (
        "version",
        "short_version",
        "date_released",
        "commit_count",
        "projects",
    ),
    "projects": ("slug",),
}
"""Columns that users may leave out, and the page cannot do without."""


@dataclass
class Facts:
    """What the page shows; a table that is not there is not among `tables`."""

    tables: dict[str, tuple[int, datetime | None]] = field(default_factory=dict)
    """Name → number of rows, time of the newest, rows of the future left aside."""
    loaded: datetime | None = None
    step: timedelta = timedelta(days=1)
    starts: list[datetime] = field(default_factory=list)
    """Beginnings of the days, or hours, that events are counted in."""
    events: dict[str, list[int]] = field(default_factory=dict)
    """Level → a count for each of `starts`."""
    ages: dict[str, list[int]] = field(default_factory=dict)
    """Status → a count for each age; issues that are gone are left out."""
    worst: list[Row] = field(default_factory=list)
    """short id, title, level, status, count, last seen, permalink"""
    releases: list["Release"] = field(default_factory=list)
    """Newest first."""


@dataclass
class Release:
    """A release, and the issues that were first seen until the next one."""

    version: str
    short_version: str | None
    time: datetime
    commits: int | None
    projects: list[str]
    """Slugs."""
    spans: list[tuple[str, datetime, datetime | None]]
    """Id of a project, from when on and until when it is the project's newest release."""
    new_issues: int | None = None
    """Of all its projects; only the newest `RELEASES` have it."""


def gather(queries: Queries, now: datetime) -> Facts:
    """Ask the warehouse; events and releases later than `now` are left out.

    Raises:
        ConfigurationError: a column that it needs was left out.
        DltException: the destination could not be asked.
    """
    ask = queries.ask
    facts = Facts()
    for name, columns in _NEEDED.items():
        known = queries.columns(name)
        if missing := [column for column in columns if known and column not in known]:
            raise ConfigurationError(
                f"the report needs {name}.{missing[0]}, which is not loaded: leave it out"
                " of the setting exclude"
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
        has_level = "level" in queries.columns("events")
        time = queries.row_time("events")
        _count_events(facts, ask, last, time, "level" if has_level else "null")
    if "issues" in facts.tables:
        # Datasets of earlier versions do not have all columns.
        known = queries.columns("issues")
        _count_issues(
            facts, ask, now, "gone_at is null" if "gone_at" in known else "true"
        )
    if "releases" in facts.tables:
        _add_releases(facts, ask, (last or now) - SPAN, now)
        if "issues" in facts.tables and "project_id" in known:
            _count_new_issues(ask, facts.releases[:RELEASES])
    return facts


def _count_events(
    facts: Facts, ask: Ask, last: datetime, time: str, own_level: str
) -> None:
    """Count by an event's own level, or that of its issue: GlitchTip's have none."""
    span = f"between {literal(last - SPAN)} and {literal(last)}"
    first = utc(ask(f"select min({time}) from events where {time} {span}")[0][0])
    unit, facts.step, facts.starts = units(first, last)
    level, join = _known("e.level", LEVELS), ""
    if "issues" in facts.tables:
        level = _known("coalesce(e.level, issues.level)", LEVELS)
        join = "left join issues on issues.id = e.group_id"
    rows = ask(f"""
        select date_trunc('{unit}', e.time at time zone 'UTC'), {level}, count(*)
        from (
            select group_id, cast({own_level} as varchar) as level, {time} as time
            from events
        ) as e {join}
        where e.time {span}
        group by 1, 2
    """)
    place = {start: n for n, start in enumerate(facts.starts)}
    facts.events = _grid(LEVELS, len(place))
    for start, level, count in rows:
        facts.events[level][place[utc(start)]] += count
    facts.events = {name: row for name, row in facts.events.items() if any(row)}


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
        release = Release(version, short, utc(time), commits, [], [])
        if isinstance(projects, str):
            projects, _ = loads(projects.encode())
        for project in projects if isinstance(projects, list) else []:
            # GlitchTip's have no id. A slug may be one that the project no longer has.
            slug = str(project.get("slug"))
            id = str(project.get("id") or ids.get(slug, ""))
            release.projects.append(slugs.get(id, slug))
            if id:
                release.spans.append((id, release.time, until.get(id)))
        until |= {id: start for id, start, _ in release.spans}
        facts.releases.append(release)


def _count_new_issues(ask: Ask, releases: Sequence[Release]) -> None:
    """Count by time, as the dbt models do; GlitchTip has no figure of its own."""
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


def _count_issues(facts: Facts, ask: Ask, now: datetime, is_there: str) -> None:
    cases = " ".join(
        f"when first_seen > {literal(now - timedelta(days=days))} then {place}"
        for place, days in enumerate(AGES.values())
    )
    facts.ages = _grid(STATUSES, len(AGES) + 1)
    for status, age, count in ask(f"""
        select {_known("status", STATUSES)},
            case {cases} else {len(AGES)} end, count(*)
        from issues where {is_there} group by 1, 2
    """):
        facts.ages[status][age] += count
    facts.ages = {name: row for name, row in facts.ages.items() if any(row)}
    facts.worst = ask(f"""
        select short_id, title, level, status, count, last_seen, permalink
        from issues where {is_there}
        order by count desc nulls last, id limit {ISSUES}
    """)


def units(first: datetime, last: datetime) -> tuple[str, timedelta, list[datetime]]:
    """Return the days of a span, or hours if it is short: name, length, beginnings."""
    unit = "hour" if last - first < timedelta(days=3) else "day"
    step = timedelta(**{f"{unit}s": 1})
    start = first.replace(minute=0, second=0, microsecond=0)
    if unit == "day":
        start = start.replace(hour=0)
    return unit, step, [start + n * step for n in range((last - start) // step + 1)]


def _known(column: str, names: Sequence[str]) -> str:
    """SQL: the value when it is one of these, else 'other'."""
    listed = ", ".join(f"'{name}'" for name in names)
    return f"case when {column} in ({listed}) then {column} else 'other' end"


def _grid(names: Iterable[str], width: int) -> dict[str, list[int]]:
    return {name: [0] * width for name in names}
