"""The history of issues that the report shows, queried from the warehouse."""

from dataclasses import dataclass
from datetime import datetime, timedelta

from analytics_pipeline.loading.sql import Queries, literal
from analytics_pipeline.report.facts import SPAN, WEEK, Ask, Facts, Row, units
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.values import utc

PROJECTS = 20
"""Maximum number of projects for which the page shows the time to resolve an issue."""


@dataclass
class History:
    """Changes of issues in the last 90 days, or since the history began.

    A change has the time of the load that found it. An issue is opened when it is new,
    which means first seen after the history of its project began, or when it becomes
    unresolved after another status. It is resolved when it becomes so, or if it was
    already resolved when it was new.
    """

    began: datetime
    step: timedelta
    starts: list[datetime]
    """Beginnings of days, or hours."""
    unresolved: list[int]
    """Unresolved issues at the end of each of `starts`."""
    weeks: list[datetime]
    """Mondays."""
    opened: list[int]
    resolved: list[int]
    """Issues in each week."""
    times: list[Row]
    """Project, issues resolved, median of the seconds that it took, or None."""


def gather(queries: Queries, facts: Facts, now: datetime) -> History | None:
    """Query the warehouse; None if it has no history before `now`.

    Raises:
        DltException: the query failed.
    """
    if not facts.tables.get(HISTORY, (0, None))[0]:
        return None
    ask = queries.ask
    ((began, *changed),) = ask(f"""
        select min(valid_from), max(valid_from), max(valid_to) from {HISTORY}
        where valid_from <= {literal(now)}
    """)
    if began is None:
        return None
    last = min(now, max(utc(time) for time in (*changed, facts.loaded) if time))
    began = utc(began)
    first = max(began, last - SPAN)
    unit, step, starts = units(first, last)
    monday = starts[0].replace(hour=0) - timedelta(days=starts[0].weekday())
    weeks = [monday + n * WEEK for n in range((last - monday) // WEEK + 1)]
    changes = _changes(facts, f"between {literal(first)} and {literal(last)}")
    return History(
        began,
        step,
        starts,
        _count_unresolved(ask, unit, starts, last),
        weeks,
        *_count_changes(ask, changes, weeks),
        _time_to_resolve(ask, changes, facts),
    )


def _count_unresolved(
    ask: Ask, unit: str, starts: list[datetime], last: datetime
) -> list[int]:
    rows = ask(f"""
        select date_trunc('{unit}', s.time at time zone 'UTC'), sum(s.change)
        from (
            select valid_from as time, 1 as change
            from {HISTORY} where status = 'unresolved'
            union all
            select valid_to as time, -1 as change
            from {HISTORY} where status = 'unresolved' and valid_to is not null
        ) as s
        where s.time <= {literal(last)}
        group by 1
    """)
    changes = {utc(start): int(change) for start, change in rows}
    number = sum(change for time, change in changes.items() if time < starts[0])
    unresolved = []
    for start in starts:
        number += changes.get(start, 0)
        unresolved.append(number)
    return unresolved


def _count_changes(
    ask: Ask, changes: str, weeks: list[datetime]
) -> tuple[list[int], list[int]]:
    rows = ask(f"""
        select date_trunc('day', c.valid_from at time zone 'UTC'),
            sum(c.is_opened), sum(c.is_resolved)
        from ({changes}) as c
        group by 1
    """)
    opened, resolved = [0] * len(weeks), [0] * len(weeks)
    for day, *numbers in rows:
        week = (utc(day) - weeks[0]) // WEEK
        opened[week] += int(numbers[0])
        resolved[week] += int(numbers[1])
    return opened, resolved


def _time_to_resolve(ask: Ask, changes: str, facts: Facts) -> list[Row]:
    project, join = "r.project_id", ""
    if "projects" in facts.tables:
        project = "coalesce(p.slug, r.project_id)"
        join = "left join projects as p on p.id = r.project_id"
    # The median is the middle value, or the mean of the two middle values.
    rows = ask(f"""
        select {project}, r.total, avg(r.seconds)
        from (
            select c.project_id, c.seconds,
                row_number() over (
                    partition by c.project_id order by c.seconds nulls last
                ) as place,
                count(c.seconds) over (partition by c.project_id) as known,
                count(*) over (partition by c.project_id) as total
            from ({changes}) as c where c.is_resolved = 1
        ) as r {join}
        where 2 * r.place between r.known and r.known + 2
        group by 1, 2 order by r.total desc, {project} limit {PROJECTS}
    """)
    return [
        (name, total, None if seconds is None else max(float(seconds), 0))
        for name, total, seconds in rows
    ]


def _changes(facts: Facts, span: str) -> str:
    """Return SQL for the states that began in a span, and whether they were changes."""
    first_seen, join = "cast(null as timestamptz)", ""
    if "issues" in facts.tables:
        first_seen, join = "i.first_seen", "left join issues as i on i.id = h.id"
    is_reopened = "s.status = 'unresolved' and s.before <> 'unresolved'"
    is_new = "s.place = 1 and s.first_seen >= s.began"
    states = f"""
        select h.id, h.project_id, h.status, h.valid_from, {first_seen} as first_seen,
            lag(h.status) over (partition by h.id order by h.valid_from) as before,
            row_number() over (partition by h.id order by h.valid_from) as place,
            min(h.valid_from) over (partition by h.project_id) as began
        from {HISTORY} as h {join}
    """
    changes = f"""
        select s.id, s.project_id, s.valid_from, s.first_seen,
            case when {is_reopened} or ({is_new}) then 1 else 0 end as is_opened,
            case when s.status = 'resolved' and (s.before <> 'resolved' or {is_new})
                then 1 else 0 end as is_resolved,
            max(case when {is_reopened} then s.valid_from end) over (
                partition by s.id order by s.valid_from
            ) as reopened
        from ({states}) as s
    """
    seconds = (
        "extract(epoch from d.valid_from)"
        " - extract(epoch from coalesce(d.reopened, d.first_seen))"
    )
    return f"""
        select d.project_id, d.valid_from, d.is_opened, d.is_resolved,
            {seconds} as seconds
        from ({changes}) as d where d.valid_from {span}
    """
