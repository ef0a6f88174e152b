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
from analytics_pipeline.loading.sql import TIMES, Queries, literal
from analytics_pipeline.tables.values import utc

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
        "new_groups",
    ),
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
    """Status → a count for each age."""
    worst: list[Row] = field(default_factory=list)
    """short id, title, level, status, count, last seen, permalink"""
    releases: list[Row] = field(default_factory=list)
    """version, short version, time, commits, new issues; newest first"""


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
    for name in TIMES:
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
        _count_issues(facts, ask, now)
    if "releases" in facts.tables:
        facts.releases = ask(f"""
            select coalesce(r.version, r.id), r.short_version, r.time, r.commit_count,
                r.new_groups
            from (
                select *, coalesce(date_released, date_created) as time from releases
            ) as r
            where r.time between {literal((last or now) - SPAN)} and {literal(now)}
            order by r.time desc, r.id limit 500
        """)
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


def _count_issues(facts: Facts, ask: Ask, now: datetime) -> None:
    cases = " ".join(
        f"when first_seen > {literal(now - timedelta(days=days))} then {place}"
        for place, days in enumerate(AGES.values())
    )
    facts.ages = _grid(STATUSES, len(AGES) + 1)
    for status, age, count in ask(f"""
        select {_known("status", STATUSES)},
            case {cases} else {len(AGES)} end, count(*)
        from issues group by 1, 2
    """):
        facts.ages[status][age] += count
    facts.ages = {name: row for name, row in facts.ages.items() if any(row)}
    facts.worst = ask(f"""
        select short_id, title, level, status, count, last_seen, permalink
        from issues order by count desc nulls last, id limit {ISSUES}
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
