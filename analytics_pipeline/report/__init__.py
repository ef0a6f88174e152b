"""One HTML page of what the warehouse holds: self-contained, without a script.

Every value from the warehouse passes through `html.escape`, and the page's own policy
lets the browser neither run nor load anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from html import escape
from importlib.resources import files
from string import Template

import dlt

from analytics_pipeline.errors import shortened
from analytics_pipeline.loading.loaded_lists import (
    LoadedList,
    is_read_whole,
    loaded_lists,
)
from analytics_pipeline.loading.sql import Queries
from analytics_pipeline.loading.status import ago
from analytics_pipeline.loading.warehouse import check_loaded, nothing_loaded
from analytics_pipeline.report import charts, history
from analytics_pipeline.report.facts import (
    AGES,
    ISSUES,
    OLDER,
    RELEASES,
    Facts,
    gather,
)
from analytics_pipeline.report.history import History
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.values import utc

LISTS = 200


def page(pipeline: dlt.Pipeline, now: datetime | None = None) -> str:
    """The page, as of `now`, of whatever tables the pipeline's dataset has.

    Raises:
        ConfigurationError: nothing was ever loaded, or a column that it needs is not.
        DltException: the destination could not be asked.
    """
    now = now or datetime.now(UTC)
    check_loaded(pipeline)
    queries = Queries(pipeline.dataset())
    facts = gather(queries, now)
    if not facts.tables:
        raise nothing_loaded(pipeline, "none of its tables exists")
    states = history.gather(queries, facts, now)
    lists = loaded_lists(pipeline)
    lists = [each for each in lists if each.table in facts.tables]
    about = f"Written {_time(now)} UTC"
    if facts.loaded:
        about += f", loaded {ago(facts.loaded, now)}"
    template = Template(files(__name__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        dataset=escape(pipeline.dataset_name or ""),
        about=f"{about}. All times are UTC.",
        body="\n".join(_sections(facts, states, lists, now)),
    )


def _sections(
    facts: Facts, states: History | None, lists: Sequence[LoadedList], now: datetime
) -> Iterable[str]:
    if not any(rows for rows, _ in facts.tables.values()):
        yield _section(
            "Nothing is loaded yet",
            "<p>The tables have no rows, or are not there. Load them first:</p>"
            "<p><code>python -m analytics_pipeline run</code></p>",
        )
    else:
        yield _tiles(facts, now)
        yield _section("Events by level, and releases", _events(facts))
        yield _section("Issues by age and status", _issues(facts))
        if states:
            yield _section("Unresolved issues over time", _unresolved(states))
            yield _section("Issues opened and resolved per week", _changes(states))
            if states.times:
                yield _section("Time to resolve an issue", _time_to_resolve(states))
        yield _section(f"The {ISSUES} issues with the most events", _worst(facts, now))
        yield _section("Newest releases", _releases(facts))
    yield _section("Tables", _tables(facts, now))
    if lists:
        yield _section("How far each list is loaded", _lists(lists, now))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>"


def _tiles(facts: Facts, now: datetime) -> str:
    days = f"since {facts.starts[0]:%Y-%m-%d}" if facts.starts else "none yet"
    newest = facts.tables.get("events", (0, None))[1]
    tiles = [
        ("Events", f"{sum(map(sum, facts.events.values())):,}", days),
        ("Issues", f"{sum(map(sum, facts.ages.values())):,}", "in all"),
        ("Unresolved", f"{sum(facts.ages.get('unresolved', ())):,}", "issues"),
        ("Newest event", ago(newest, now), _time(newest)),
    ]
    cards = (
        f'<div>{name}<b>{value}</b><span class="quiet">{note}</span></div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{"".join(cards)}</div>'


def _events(facts: Facts) -> str:
    if not facts.starts:
        return "<p>No events are loaded.</p>"
    marks = [
        (release.time, (release.short_version or release.version)[:20])
        for release in facts.releases
        if facts.starts[0] <= release.time < facts.starts[-1] + facts.step
    ]
    return (
        _key(facts.events)
        + charts.events(facts.starts, facts.step, facts.events, marks)
        + _numbers("from", facts.starts, facts.step, facts.events)
    )


def _numbers(
    title: str,
    starts: Sequence[datetime],
    step: timedelta,
    counts: Mapping[str, Sequence[int]],
) -> str:
    """The numbers of a chart (name → a count for each span), folded up."""
    form = "%Y-%m-%d" if step.days else "%Y-%m-%d %H:%M"
    table = _table(
        {title: "plain", **dict.fromkeys(counts, "number")},
        (
            [f"{start:{form}}", *map(_number, row)]
            for start, *row in zip(starts, *counts.values(), strict=True)
        ),
    )
    return f"<details><summary>The numbers</summary>{table}</details>"


def _issues(facts: Facts) -> str:
    if not facts.ages:
        return "<p>No issues are loaded.</p>"
    return (
        '<p class="quiet">Age: since an issue was first seen. Issues that are gone from'
        " the server are left out.</p>"
        + _key(facts.ages)
        + charts.issues([*AGES, OLDER], facts.ages)
    )


def _key(names: Iterable[str]) -> str:
    entries = (
        f'<span><i style="background: var(--{name})"></i>{name}</span>'
        for name in names
    )
    return f'<div class="key">{"".join(entries)}</div>'


def _unresolved(states: History) -> str:
    unit = "day" if states.step.days else "hour"
    about = f"At the end of each {unit}, as loads have seen it by then."
    if states.began >= states.starts[0]:
        about += f" The history begins {_time(states.began)}."
    return (
        f'<p class="quiet">{about}</p>'
        + charts.unresolved(states.starts, states.step, states.unresolved)
        + _numbers(unit, states.starts, states.step, {"unresolved": states.unresolved})
    )


def _changes(states: History) -> str:
    counts = dict(zip(charts.CHANGES, (states.opened, states.resolved), strict=True))
    if not any(map(any, counts.values())):
        return "<p>No issue was opened or resolved in this time.</p>"
    return (
        '<p class="quiet">Weeks begin on Monday; a change is of the week of the load that'
        " saw it. Opened: a new issue, or one that is unresolved again. Issues that a"
        " project had when its history began are not new; issues that are gone from the"
        " server are not resolved.</p>"
        + _key(counts)
        + charts.changes(states.weeks, counts)
        + _numbers("week from", states.weeks, history.WEEK, counts)
    )


def _time_to_resolve(states: History) -> str:
    rows = (
        [escape(project or "unknown"), _number(resolved), _duration(median)]
        for project, resolved, median in states.times
    )
    return (
        '<p class="quiet">From when an issue was first seen, or was last unresolved'
        " again, to the load that saw it resolved.</p>"
        + _table({"project": "", "resolved": "number", "median time": "number"}, rows)
    )


def _worst(facts: Facts, now: datetime) -> str:
    if not facts.worst:
        return "<p>No issues are loaded.</p>"
    columns = {
        "issue": "",
        "level": "plain",
        "status": "plain",
        "events": "number",
        "last seen": "plain",
    }
    rows = (
        [
            _issue(short_id, title, permalink),
            escape(shortened(level or "", 20)),
            escape(shortened(status or "", 20)),
            _number(count),
            ago(utc(seen), now),
        ]
        for short_id, title, level, status, count, seen, permalink in facts.worst
    )
    return f'<div class="stack">{_table(columns, rows)}</div>'


def _issue(short_id: str | None, title: str | None, permalink: str | None) -> str:
    name = escape(title or "untitled")
    link = permalink or ""
    if link.lower().startswith(("http://", "https://")):
        name = f'<a href="{escape(link)}" rel="noopener noreferrer">{name}</a>'
    return f'{name} <span class="quiet">{escape(shortened(short_id or "", 40))}</span>'


def _releases(facts: Facts) -> str:
    if not facts.releases:
        return "<p>No releases are loaded, or none of this time.</p>"
    columns = {
        "version": "",
        "projects": "",
        "released": "plain",
        "commits": "number minor",
        "new issues": "number",
    }
    rows = (
        [
            escape(release.version),
            escape(shortened(", ".join(release.projects), 80)),
            _time(release.time),
            _number(release.commits),
            _number(release.new_issues),
        ]
        for release in facts.releases[:RELEASES]
    )
    return (
        '<p class="quiet">New issues: first seen in one of its projects before the next'
        " release of that project.</p>" + _table(columns, rows)
    )


def _tables(facts: Facts, now: datetime) -> str:
    rows = []
    for name in [*TABLES, *({HISTORY} & facts.tables.keys())]:
        count, newest = facts.tables.get(name, (None, None))
        age = ago(newest, now) if name in facts.tables else "not loaded"
        rows.append([name, _number(count), _time(newest), age])
    return _table(
        {"table": "", "rows": "number", "newest row": "plain minor", "age": "plain"},
        rows,
    )


def _lists(lists: Sequence[LoadedList], now: datetime) -> str:
    columns = {
        "table": "plain",
        "project": "",
        "loaded from": "plain minor",
        "loaded up to": "plain minor",
        "last read whole": "plain",
    }
    has_servers = len({each.server for each in lists}) > 1
    rows = (_list(each, now, has_servers) for each in lists[:LISTS])
    left = len(lists) - LISTS
    return (
        '<p class="quiet">A run reads what is newer than the newest row, up to which a'
        " list is loaded. What changes in older rows is found when the list is read"
        " whole.</p>"
        + _table(columns, rows)
        + (f'<p class="quiet">And {left:,} more.</p>' if left > 0 else "")
    )


def _list(each: LoadedList, now: datetime, has_servers: bool) -> list[str]:
    loaded, swept = each.bookmark.loaded, each.bookmark.swept_at
    name = escape(each.name)
    if has_servers:
        name += f' <span class="quiet">{escape(each.server)}</span>'
    if is_read_whole(each.table):
        return [each.table, name, "–", "–", "each run"]
    since, end, whole = "–", "not to its end yet", "–"
    if loaded.spans and not each.bookmark.has_gaps:
        since = _time(loaded.start) if loaded.start else "the beginning"
        end = _time(loaded.spans[0].end)
    elif each.bookmark.completed_at:
        end = "no rows"
    if swept:
        whole = f'<span class="minor">{_time(swept)}</span> {ago(swept, now)}'
    return [each.table, name, since, end, whole]


def _table(columns: Mapping[str, str], rows: Iterable[Sequence[str]]) -> str:
    """Columns are names and CSS classes, the cells HTML.

    Classes: `number` is set to the right, `plain` on one line; a phone leaves out
    what is `minor`.
    """
    head = "".join(f'<th class="{kind}">{name}</th>' for name, kind in columns.items())
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td class="{kind}">{cell}</td>'
            for cell, kind in zip(row, columns.values(), strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>\n{body}\n</table></div>'


def _number(value: int | None) -> str:
    return "–" if value is None else f"{value:,}"


def _time(time: datetime | None) -> str:
    return f"{time:%Y-%m-%d %H:%M}" if time else "–"


def _duration(seconds: float | None) -> str:
    if seconds is None:
        return "–"
    for unit, length in (("days", 86_400), ("h", 3600)):
        if seconds >= 2 * length:
            return f"{seconds / length:,.1f} {unit}"
    return f"{seconds / 60:,.0f} min"
