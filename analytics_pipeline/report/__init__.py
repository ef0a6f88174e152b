"""One HTML page about the data in the warehouse, self-contained and without scripts.

All text from the warehouse passes through `html.escape`, and the page's content policy
forbids the browser to run scripts or load anything.
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
    WEEK,
    Facts,
    gather,
)
from analytics_pipeline.report.history import History
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.values import utc


def page(pipeline: dlt.Pipeline, now: datetime | None = None) -> str:
    """Return the page as of `now` (by default the current time).

    Raises:
        ConfigurationError: nothing is loaded, or a column that the page needs is missing.
        DltException: a query failed.
    """
    now = now or datetime.now(UTC)
    check_loaded(pipeline)
    queries = Queries(pipeline.dataset())
    facts = gather(queries, now)
    if not facts.tables:
        raise nothing_loaded(pipeline, "none of its tables exists")
    states = history.gather(queries, facts, now)
    lists = [each for each in loaded_lists(pipeline) if each.table in facts.tables]
    about = f"Created {_time(now)} UTC"
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
    if any(rows for rows, _ in facts.tables.values()):
        yield _tiles(facts, now)
        yield _events(facts)
        yield _issues(facts)
        if states:
            yield _unresolved(states)
            yield _changes(states)
            if states.times:
                yield _time_to_resolve(states)
        yield _worst(facts, now)
        yield _releases(facts)
    else:
        load = "<p><code>python -m analytics_pipeline run</code></p>"
        note = "The tables are empty or missing. Load data first:"
        yield _section("Nothing is loaded yet", note, load)
    yield _tables(facts, now)
    if lists:
        yield _lists(lists, now)


def _tiles(facts: Facts, now: datetime) -> str:
    days = f"since {facts.starts[0]:%Y-%m-%d}" if facts.starts else "none yet"
    newest = facts.tables.get("events", (0, None))[1]
    tiles = [
        ("Events", _number(sum(map(sum, facts.events.values()))), days),
        ("Issues", _number(sum(map(sum, facts.ages.values()))), "total"),
        ("Unresolved", _number(sum(facts.ages.get("unresolved", ()))), "issues"),
        ("Newest event", ago(newest, now), _time(newest)),
    ]
    cards = (
        f'<div>{name}<b>{value}</b><span class="quiet">{note}</span></div>'
        for name, value, note in tiles
    )
    return f'<div class="tiles">{"".join(cards)}</div>'


def _events(facts: Facts) -> str:
    title = "Events by level, and releases"
    if not facts.starts:
        return _section(title, "No events are loaded.")
    marks = [
        (release.time, (release.short_version or release.version)[:20])
        for release in facts.releases
        if facts.starts[0] <= release.time < facts.starts[-1] + facts.step
    ]
    return _section(
        title,
        "",
        _key(facts.events),
        charts.events(facts.starts, facts.step, facts.events, marks),
        _numbers("from", facts.starts, facts.step, facts.events),
    )


def _issues(facts: Facts) -> str:
    title = "Issues by age and status"
    if not facts.ages:
        return _section(title, "No issues are loaded.")
    return _section(
        title,
        "Age: time since an issue was first seen. Issues that the server no longer has are"
        " not counted.",
        _key(facts.ages),
        charts.issues([*AGES, OLDER], facts.ages),
    )


def _unresolved(states: History) -> str:
    unit = "day" if states.step.days else "hour"
    note = f"At the end of each {unit}, according to the loads up to then."
    if states.began >= states.starts[0]:
        note += f" The history begins {_time(states.began)}."
    return _section(
        "Unresolved issues over time",
        note,
        charts.unresolved(states.starts, states.step, states.unresolved),
        _numbers(unit, states.starts, states.step, {"unresolved": states.unresolved}),
    )


def _changes(states: History) -> str:
    title = "Issues opened and resolved per week"
    counts = dict(zip(charts.CHANGES, (states.opened, states.resolved), strict=True))
    if not any(map(any, counts.values())):
        return _section(title, "No issues were opened or resolved in this period.")
    return _section(
        title,
        "Weeks begin on Monday. A change counts in the week of the load that found it."
        " Opened: new and reopened issues. Issues that existed when the history of their"
        " project began do not count as new, and issues that the server no longer has do"
        " not count as resolved.",
        _key(counts),
        charts.changes(states.weeks, counts),
        _numbers("week from", states.weeks, WEEK, counts),
    )


def _time_to_resolve(states: History) -> str:
    rows = (
        [escape(project or "unknown"), _number(resolved), _duration(median)]
        for project, resolved, median in states.times
    )
    return _section(
        "Time to resolve an issue",
        "From when an issue was first seen or last reopened to the load that found it"
        " resolved.",
        _table(["project", "resolved", "median time"], ["", "number", "number"], rows),
    )


def _worst(facts: Facts, now: datetime) -> str:
    title = f"The {ISSUES} issues with the most events"
    if not facts.worst:
        return _section(title, "No issues are loaded.")
    rows = (
        [
            _issue(short_id, name, permalink),
            escape(shortened(level or "", 20)),
            escape(shortened(status or "", 20)),
            _number(count),
            ago(utc(seen), now),
        ]
        for short_id, name, level, status, count, seen, permalink in facts.worst
    )
    table = _table(
        ["issue", "level", "status", "events", "last seen"],
        ["", "plain", "plain", "number", "plain"],
        rows,
    )
    return _section(title, "", f'<div class="stack">{table}</div>')


def _issue(short_id: str | None, title: str | None, permalink: str | None) -> str:
    name = escape(title or "untitled")
    link = permalink or ""
    if link.lower().startswith(("http://", "https://")):
        name = f'<a href="{escape(link)}" rel="noopener noreferrer">{name}</a>'
    return f'{name} <span class="quiet">{escape(shortened(short_id or "", 40))}</span>'


def _releases(facts: Facts) -> str:
    title = "Newest releases"
    if not facts.releases:
        return _section(title, "No releases in this period.")
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
    return _section(
        title,
        "New issues: first seen in a project of the release, after it and before the"
        " project's next release.",
        _table(
            ["version", "projects", "released", "commits", "new issues"],
            ["", "", "plain", "number minor", "number"],
            rows,
        ),
    )


def _tables(facts: Facts, now: datetime) -> str:
    rows = []
    for name in [*TABLES, *({HISTORY} & facts.tables.keys())]:
        count, newest = facts.tables.get(name, (None, None))
        age = ago(newest, now) if name in facts.tables else "not loaded"
        rows.append([name, _number(count), _time(newest), age])
    names = ["table", "rows", "newest row", "age"]
    classes = ["", "number", "plain minor", "plain"]
    return _section("Tables", "", _table(names, classes, rows))


def _lists(lists: Sequence[LoadedList], now: datetime) -> str:
    has_servers = len({each.server for each in lists}) > 1
    return _section(
        "Loaded range of each list",
        "A run loads rows that are newer than those already loaded. Changes in older rows"
        " are found by the next full scan of a list.",
        _table(
            ["table", "project", "loaded from", "loaded up to", "last full scan"],
            ["plain", "", "plain minor", "plain minor", "plain"],
            (_list(each, now, has_servers) for each in lists),
        ),
    )


def _list(each: LoadedList, now: datetime, has_servers: bool) -> list[str]:
    loaded, swept = each.bookmark.loaded, each.bookmark.swept_at
    name = escape(each.name)
    if has_servers:
        name += f' <span class="quiet">{escape(each.server)}</span>'
    if is_read_whole(each.table):
        return [each.table, name, "–", "–", "each run"]
    since, end, scanned = "–", "incomplete", "–"
    if loaded.spans and not each.bookmark.has_gaps:
        since = _time(loaded.start) if loaded.start else "the beginning"
        end = _time(loaded.spans[0].end)
    elif each.bookmark.completed_at:
        end = "no rows"
    if swept:
        scanned = f'<span class="minor">{_time(swept)}</span> {ago(swept, now)}'
    return [each.table, name, since, end, scanned]


def _section(title: str, note: str, *content: str) -> str:
    text = f'<p class="quiet">{note}</p>' if note else ""
    return f"<section><h2>{title}</h2>\n{text}{''.join(content)}\n</section>"


def _key(names: Iterable[str]) -> str:
    entries = (
        f'<span><i style="background: var(--{name})"></i>{name}</span>'
        for name in names
    )
    return f'<div class="key">{"".join(entries)}</div>'


def _numbers(
    title: str,
    starts: Sequence[datetime],
    step: timedelta,
    counts: Mapping[str, Sequence[int]],
) -> str:
    """Return the numbers of a chart, folded (name → a count for each period)."""
    form = "%Y-%m-%d" if step.days else "%Y-%m-%d %H:%M"
    rows = (
        [f"{start:{form}}", *map(_number, row)]
        for start, *row in zip(starts, *counts.values(), strict=True)
    )
    table = _table([title, *counts], ["plain", *["number"] * len(counts)], rows)
    return f"<details><summary>Show the numbers</summary>{table}</details>"


def _table(
    names: Sequence[str], classes: Sequence[str], rows: Iterable[Sequence[str]]
) -> str:
    """Return a table whose cells are HTML.

    The CSS classes of its columns: `number` aligns to the right, `plain` does not wrap,
    `minor` is hidden on phones.
    """

    def row(tag: str, cells: Sequence[str]) -> str:
        tags = zip(classes, cells, strict=True)
        texts = (f'<{tag} class="{kind}">{cell}</{tag}>' for kind, cell in tags)
        return f"<tr>{''.join(texts)}</tr>"

    lines = [row("th", names), *(row("td", cells) for cells in rows)]
    text = "\n".join(lines)
    return f'<div class="scroll"><table>{text}</table></div>'


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
