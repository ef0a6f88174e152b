"""One HTML page of what the warehouse holds: self-contained, without a script.

Every value from the warehouse passes through `html.escape`, and the page's own policy
lets the browser neither run nor load anything.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from string import Template

import dlt

from analytics_pipeline.errors import shortened
from analytics_pipeline.report import charts
from analytics_pipeline.report.facts import AGES, ISSUES, OLDER, Facts, gather
from analytics_pipeline.tables.schema import TABLES
from analytics_pipeline.tables.values import utc

RELEASES = 10


def page(pipeline: dlt.Pipeline, now: datetime | None = None) -> str:
    """The page, as of `now`, of whatever tables the pipeline's dataset has.

    Raises:
        DltException: the destination could not be asked.
    """
    now = now or datetime.now(UTC)
    facts = gather(pipeline.dataset(), now)
    about = f"Written {_time(now)} UTC"
    if facts.loaded:
        about += f", loaded {_ago(facts.loaded, now)}"
    template = Template(files(__name__).joinpath("page.html").read_text("utf-8"))
    return template.substitute(
        dataset=escape(pipeline.dataset_name or ""),
        about=f"{about}. All times are UTC.",
        body="\n".join(_sections(facts, now)),
    )


def _sections(facts: Facts, now: datetime) -> Iterable[str]:
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
        yield _section(f"The {ISSUES} issues with the most events", _worst(facts, now))
        yield _section("Newest releases", _releases(facts))
    yield _section("Tables", _tables(facts, now))


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>\n{content}\n</section>"


def _tiles(facts: Facts, now: datetime) -> str:
    days = f"since {facts.starts[0]:%Y-%m-%d}" if facts.starts else "none yet"
    newest = facts.tables.get("events", (0, None))[1]
    tiles = [
        ("Events", f"{sum(map(sum, facts.events.values())):,}", days),
        ("Issues", f"{sum(map(sum, facts.ages.values())):,}", "in all"),
        ("Unresolved", f"{sum(facts.ages.get('unresolved', ())):,}", "issues"),
        ("Newest event", _ago(newest, now), _time(newest)),
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
        (utc(time), (short or version)[:20])
        for version, short, time, *_ in facts.releases
        if facts.starts[0] <= utc(time) < facts.starts[-1] + facts.step
    ]
    form = "%Y-%m-%d" if facts.step.days else "%Y-%m-%d %H:%M"
    numbers = _table(
        {"from": "plain", **dict.fromkeys(facts.events, "number")},
        (
            [f"{start:{form}}", *map(_number, counts)]
            for start, *counts in zip(facts.starts, *facts.events.values(), strict=True)
        ),
    )
    return (
        _key(facts.events)
        + charts.events(facts.starts, facts.step, facts.events, marks)
        + f"<details><summary>The numbers</summary>{numbers}</details>"
    )


def _issues(facts: Facts) -> str:
    if not facts.ages:
        return "<p>No issues are loaded.</p>"
    return (
        '<p class="quiet">Age: since an issue was first seen.</p>'
        + _key(facts.ages)
        + charts.issues([*AGES, OLDER], facts.ages)
    )


def _key(names: Iterable[str]) -> str:
    entries = (
        f'<span><i style="background: var(--{name})"></i>{name}</span>'
        for name in names
    )
    return f'<div class="key">{"".join(entries)}</div>'


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
            _ago(utc(seen), now),
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
    return _table(
        {
            "version": "",
            "released": "plain",
            "commits": "number minor",
            "new issues": "number",
        },
        (
            [escape(version), _time(utc(time)), _number(commits), _number(new)]
            for version, _, time, commits, new in facts.releases[:RELEASES]
        ),
    )


def _tables(facts: Facts, now: datetime) -> str:
    rows = []
    for name in TABLES:
        count, newest = facts.tables.get(name, (None, None))
        age = _ago(newest, now) if name in facts.tables else "not loaded"
        rows.append([name, _number(count), _time(newest), age])
    return _table(
        {"table": "", "rows": "number", "newest row": "plain minor", "age": "plain"},
        rows,
    )


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


def _ago(time: datetime | None, now: datetime) -> str:
    if time is None:
        return "–"
    minutes = max(int((now - time).total_seconds() // 60), 0)
    if minutes < 60:
        return f"{minutes} min ago"
    return f"{minutes // 60} h ago" if minutes < 2880 else f"{minutes // 1440} days ago"
