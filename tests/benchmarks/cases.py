"""The measured cases and their targets."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tests.benchmarks.measure import Contestant

EXTRACT = "seconds to extract"
LOAD = "MB until load"
TUNED = {"NORMALIZE__WORKERS": "2", "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "10000"}


Who = str | tuple[str, str]
"""A contestant, or two whose difference is taken."""


@dataclass(frozen=True)
class Figure:
    what: str
    ours: Who
    other: Who | float
    """The contestant to compare with, or a limit."""
    reach: float | None = None
    """None: only reported."""
    faster: bool = False
    """`reach` times as fast; otherwise at most `reach` times as much."""
    metric: str = "seconds"


@dataclass(frozen=True)
class Case:
    name: str
    server: Mapping[str, Any]
    contestants: Mapping[str, Contestant]
    figures: Sequence[Figure]
    grow: int = 0
    """Rows added to each list of events between the first run and the second."""
    tls: bool = False
    """The server speaks https."""
    postgres: bool = False
    """A PostgreSQL server is started."""


@dataclass(frozen=True)
class Airbyte:
    """Programs of two environments, with PyAirbyte and with Airbyte's source."""

    python: str = ""
    source: str = ""


def cases(scale: float, airbyte: Airbyte | None = None) -> list[Case]:
    """Return all cases, with the number of rows multiplied by `scale`."""
    return [
        _first_load(round(20_000 * scale), round(5_000 * scale)),
        _whole_bodies(round(20_000 * scale), round(5_000 * scale)),
        _projects(round(10_000 * scale)),
        _deep(round(20_000 * scale)),
        _nothing_new(round(20_000 * scale), round(5_000 * scale)),
        _many_projects(round(300 * scale)),
        _few_new(round(10_000 * scale), round(1_000_000 * scale)),
        _many_rows(round(50_000 * scale), round(1_000_000 * scale)),
        _airbyte(round(20_000 * scale), round(5_000 * scale), airbyte or Airbyte()),
        _imports(),
        _warehouses(round(20_000 * scale), round(5_000 * scale)),
        _looked_at_again(round(100_000 * scale)),
    ]


def _two(events: int, issues: int) -> dict[str, dict[str, int]]:
    return {slug: {"events": events, "issues": issues} for slug in ("p1", "p2")}


def _ours(
    rows: int,
    projects: Sequence[str] = ("p1", "p2"),
    tables: Sequence[str] = ("events", "issues"),
    again: bool = False,
    **settings: Any,
) -> Contestant:
    settings |= {"projects": list(projects), "tables": list(tables)}
    return Contestant("ours", {"api": "v1"} | settings, rows, again=again)


def _after_load(action: str, rows: int, project: str, table: str) -> Contestant:
    """Measure an action on what a first load left."""
    made = _ours(rows, [project], [table], again=True, action=action)
    return replace(made, first={"action": "load"})


def _floor(
    rows: int, projects: Sequence[str] = ("p1", "p2"), **settings: Any
) -> Contestant:
    tables = {"projects": list(projects), "tables": ["events", "issues"]}
    return Contestant("floor", tables | settings, rows)


def _peer(rows: int, tuned: bool) -> Contestant:
    settings = {"projects": ["p1", "p2"], "tables": ["events", "issues"]}
    return Contestant(
        "peer",
        settings | {"tuned": tuned},
        rows,
        once=not tuned,
        environment=TUNED if tuned else {},
    )


def _first_load(events: int, issues: int) -> Case:
    what = f"first load, 2 × {events:,} events + 2 × {issues:,} issues, against "
    rows = 2 * (events + issues)
    return Case(
        "first load",
        {"api": "v1", "projects": _two(events, issues)},
        {
            "ours": _ours(rows),
            "tuned": _peer(rows, tuned=True),
            "floor": _floor(rows),
            "plain": _peer(rows, tuned=False),
        },
        [
            Figure(what + "rest_api as configured", "ours", "plain", 16, True),
            Figure(what + "rest_api tuned", "ours", "tuned", 2.2, True),
            Figure(what + "fetching and parsing alone", "ours", "floor", 4.5),
        ],
    )


def _whole_bodies(events: int, issues: int) -> Case:
    rows = 2 * (events + issues)
    return Case(
        "whole bodies",
        {"api": "v1", "projects": _two(events, issues), "full": True},
        {"ours": _ours(rows), "tuned": _peer(rows, tuned=True)},
        [
            Figure(
                "the same with whole event bodies, against rest_api tuned",
                "ours",
                "tuned",
                3,
                True,
            )
        ],
    )


def _deep(events: int) -> Case:
    """Servers that count through all rows before a page."""
    lists = {"long": events, "half": events // 2, "short": events // 100}
    middle, last = events // 200, events // 100
    what = (
        "paging by time, if page n takes 50 ms + n × 2 ms by its cursor: pages"
        f" {middle + 1} to {last}, against pages 3 to {middle}"
    )
    return Case(
        "deep lists",
        {
            "api": "sentry",
            "projects": {slug: {"events": count} for slug, count in lists.items()},
            "latency": 0.05,
            "depth": 0.002,
        },
        {
            slug: _ours(count, [slug], ["events"], api="sentry")
            for slug, count in lists.items()
        },
        [Figure(what, ("long", "half"), ("half", "short"), 1.1, metric="per row")],
    )


def _projects(events: int) -> Case:
    slugs = [f"p{number}" for number in range(1, 9)]

    def workers(count: int) -> Contestant:
        return _ours(8 * events, slugs, ["events"], workers=count)

    what = f"8 projects × {events:,} events, 50 ms latency, 8 workers against 1"
    server = {"api": "v1", "projects": {slug: {"events": events} for slug in slugs}}
    return Case(
        "projects",
        server | {"latency": 0.05},
        {"8 workers": workers(8), "1 worker": workers(1)},
        [
            Figure(what, "8 workers", "1 worker", 6, True),
            Figure(what + ": reading alone", "8 workers", "1 worker", 6, True, EXTRACT),
        ],
    )


def _nothing_new(events: int, issues: int) -> Case:
    return Case(
        "nothing new",
        {"api": "v1", "projects": _two(events, issues)},
        {
            "ours": _ours(0, tables=[], again=True),
            "idle": Contestant("idle", again=True),
        },
        [
            # events, issues and project_detail of each; projects, releases
            Figure("nothing new, 8 lists: requests", "ours", 8, 1, metric="requests"),
            Figure("nothing new, against an empty dlt run", "ours", "idle", 1.8),
        ],
    )


def _many_projects(count: int) -> Case:
    slugs = [f"p{number}" for number in range(1, count + 1)]
    requests = 3 * count  # events, issues and project_detail of each
    what = f"{count} projects, nothing new, 8 workers: seconds beyond the requests"
    return Case(
        "many projects",
        {
            "api": "v1",
            "projects": {slug: {"events": 20, "issues": 10} for slug in slugs},
            "latency": 0.05,
        },
        {
            "ours": _ours(0, slugs, [], again=True, workers=8),
            "floor": _floor(requests, slugs, workers=8, details=True),
        },
        [Figure(what, ("ours", "floor"), 1.3, 1)],
    )


def _few_new(few: int, many: int) -> Case:
    return Case(
        "few new",
        {
            "api": "v1",
            "projects": {"few": {"events": few}, "many": {"events": many}},
            "beforehand": False,
        },
        {
            "many": _ours(100, ["many"], ["events"], again=True),
            "few": _ours(100, ["few"], ["events"], again=True),
        },
        [Figure(f"100 new rows on {many:,}, against on {few:,}", "many", "few", 1.5)],
        grow=100,
    )


def _many_rows(few: int, many: int) -> Case:
    against = f"{many:,} events against {few:,}: "
    lists = {"few": few, "fifth": many // 5, "many": many}

    def verify(slug: str) -> Contestant:
        return replace(_after_load("verify", lists[slug], slug, "events"), once=True)

    return Case(
        "many rows",
        {
            "api": "v1",
            "projects": {slug: {"events": count} for slug, count in lists.items()},
            "beforehand": False,
        },
        {
            "many": _ours(many, ["many"], ["events"]),
            "few": _ours(few, ["few"], ["events"]),
            "floor of many": _floor(many, ["many"], tables=["events"]),
            "floor of few": _floor(few, ["few"], tables=["events"]),
            "one load": _ours(many, ["many"], ["events"], rows_per_load=2 * many),
            "verify": verify("many"),
            "verify a fifth": verify("fifth"),
        },
        [
            Figure(against + "memory of the run", "many", "few", 1.35, metric=LOAD),
            Figure(against + "time per row", "many", "few", 1.2, metric="per row"),
            Figure(
                "time of each further row, against fetching and parsing alone",
                ("many", "few"),
                ("floor of many", "floor of few"),
                4,
                metric="per row",
            ),
            Figure(
                f"{many:,} events in pieces, against one load", "many", "one load", 1.25
            ),
            Figure(
                f"verify of {many:,} events, against their first load",
                "verify",
                "many",
                1.7,
            ),
            Figure(
                f"verify of {many:,} events, against {many // 5:,}: memory",
                "verify",
                "verify a fifth",
                1.1,
                metric="MB until verify",
            ),
        ],
    )


def _airbyte(events: int, issues: int, programs: Airbyte) -> Case:
    def ours(rows: int, again: bool) -> Contestant:
        return _ours(rows, ["p1"], ["events", "issues"], again, api="sentry")

    def peer(rows: int, again: bool) -> Contestant:
        return Contestant(
            "airbyte_peer",
            {
                "executable": programs.source,
                "project": "p1",
                "streams": ["events", "issues"],
            },
            rows,
            again=again,
            environment={"AIRBYTE_OFFLINE_MODE": "1", "DO_NOT_TRACK": "1"},
            python=programs.python,
        )

    rows = events + issues
    what = f"{events:,} events, {issues:,} issues, https, against PyAirbyte: "
    return Case(
        "airbyte",
        {"api": "sentry", "projects": {"p1": {"events": events, "issues": issues}}},
        {
            "ours": ours(rows, again=False),
            "airbyte": peer(rows, again=False),
            "ours again": ours(0, again=True),
            "airbyte again": peer(0, again=True),
        },
        [
            Figure(what + "first load", "ours", "airbyte", 6, True),
            Figure(what + "nothing new", "ours again", "airbyte again", 10, True),
        ],
        tls=True,
    )


def _imports() -> Case:
    return Case(
        "imports",
        {"api": "v1", "projects": {}},
        {"help": Contestant("help"), "dlt": Contestant("imports")},
        [Figure("`--help`, against `import dlt`", "help", "dlt", 1)],
    )


def _warehouses(events: int, issues: int) -> Case:
    def into(destination: str) -> Contestant:
        return _ours(2 * (events + issues), destination=destination)

    what = "first load of as many rows, against DuckDB: into "
    return Case(
        "warehouses",
        {"api": "v1", "projects": _two(events, issues)},
        {name: into(name) for name in ("duckdb", "postgres", "delta")},
        [
            Figure(what + "PostgreSQL", "postgres", "duckdb"),
            Figure(what + "Delta tables", "delta", "duckdb"),
        ],
        postgres=True,
    )


def _looked_at_again(rows: int) -> Case:
    what = f"sweep of {rows:,} issues, against their first load"
    return Case(
        "looked at again",
        {"api": "v1", "projects": {"p1": {"issues": rows}}, "beforehand": False},
        {
            "load": _ours(rows, ["p1"], ["issues"]),
            "sweep": _after_load("sweep", rows, "p1", "issues"),
        },
        [Figure(what, "sweep", "load", metric="per row")],
    )
