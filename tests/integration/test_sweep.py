"""Sweeps: what changes in an issue without an event is found all the same.

When a sweep is due, how it is resumed, and what moves meanwhile is tested in
`tests/unit/test_reading.py`; this is the way through dlt and DuckDB.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import IncompleteLoad
from analytics_pipeline.runner import Summary
from tests.assertions import assert_kept
from tests.children import arguments, fork
from tests.conftest import ORGANIZATION, TOKEN, Warehouse
from tests.fake_server import FakeServer
from tests.list_server import ListServer, Row, ago

Start = Callable[..., FakeServer]
ISSUES = ["issues"]
PAGES = 5
MOST = PAGES + 3
"""Requests of a run with a sweep: a page of what is new, and of what moved."""


def load_issues(
    server: DemoServer, warehouse: Warehouse, api: str = "v1", **settings: Any
) -> Summary:
    return warehouse.load(server, "frontend", ISSUES, api=api, **settings)


def resolve(server: DemoServer, count: int = 1) -> list[str]:
    """Resolve the issues that were seen longest ago; no event tells of it."""
    rows = server.rows("issues", "frontend")[-count:]
    for row in rows:
        row["status"] = "resolved in silence"
    return sorted(row["id"] for row in rows)


def resolved(warehouse: Warehouse) -> list[str]:
    found = warehouse.rows(
        "select id from analytics.issues where status = 'resolved in silence'"
    )
    return sorted(row[0] for row in found)


def bookmark(warehouse: Warehouse, project: str = "frontend") -> dict[str, Any]:
    bookmarks = warehouse.bookmarks()["issues"]
    (found,) = (v for k, v in bookmarks.items() if k.endswith(f"/{project}"))
    return dict(found)


def grow_old(warehouse: Warehouse, hours: float = 25) -> None:
    """Let the last sweep be so long ago."""
    pipeline = warehouse.pipeline()
    with pipeline.managed_state(extract_state=True) as state:
        resources = state["sources"]["analytics"]["resources"]
        for each in resources["issues"]["bookmarks"].values():
            time = datetime.now(UTC) - timedelta(hours=hours)
            each["swept_at"] = time.isoformat().replace("+00:00", "Z")
    pipeline.normalize()
    pipeline.load()


def asked(server: Any, work: Callable[[], object]) -> int:
    """Return how many requests for issues it takes."""

    def count() -> int:
        return sum(each.path.endswith("/issues/") for each in server.requests)

    before = count()
    work()
    return count() - before


def issues_of_yesterday(start: Start, api: str = "v1") -> FakeServer:
    """Issues on five pages of one project, none of them of the last hours."""
    server = start(api, projects=["frontend"], issues=100, page_size=20, events=0)
    for row in server.rows("issues"):
        seen = datetime.fromisoformat(row["lastSeen"]) - timedelta(hours=9)
        row["lastSeen"] = seen.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return server


@pytest.fixture
def many(start: Start) -> FakeServer:
    return issues_of_yesterday(start)


def test_a_change_without_an_event_is_found_by_a_sweep_and_not_before(
    start: Start, api: str, warehouse: Warehouse
) -> None:
    server = issues_of_yesterday(start, api)
    # The first reading is of all.
    assert asked(server, lambda: load_issues(server, warehouse, api)) == PAGES
    ids = resolve(server, 3)
    assert asked(server, lambda: load_issues(server, warehouse, api)) == 1
    assert resolved(warehouse) == []
    grow_old(warehouse)
    before = len(server.requests)
    summary = load_issues(server, warehouse, api)
    assert len(server.requests) - before <= MOST
    assert summary.loads == 1
    assert summary.tables["issues"].rows == 0
    assert summary.tables["issues"].reread >= 100
    assert resolved(warehouse) == ids
    assert asked(server, lambda: load_issues(server, warehouse, api)) == 1
    assert len(warehouse.ids("issues")) == 100
    if api == "v1":
        warehouse.load(server, "frontend")
        assert_kept(warehouse, server)


def test_a_sweep_that_fails_brings_what_is_new_and_is_resumed_in_pieces(
    many: FakeServer, warehouse: Warehouse
) -> None:
    load_issues(many, warehouse)
    grow_old(warehouse)
    before = bookmark(warehouse)
    many.fail(500, on="cursor=", after=2, times=99)
    many.grow(issues=1, seconds=3600)
    with pytest.raises(IncompleteLoad, match="issues of project 'frontend'"):
        load_issues(many, warehouse)
    many.mend()
    held = sorted(row["id"] for row in many.rows("issues"))
    assert sorted(warehouse.ids("issues")) == held
    assert bookmark(warehouse)["swept_at"] == before["swept_at"]
    assert bookmark(warehouse)["sweep"]
    ids = resolve(many)
    summary = load_issues(many, warehouse, rows_per_load=20)
    assert summary.loads > 1
    assert resolved(warehouse) == ids
    after = bookmark(warehouse)
    assert not after.keys() & {"sweep", "sweep_began_at"}
    assert after["swept_at"] > before["swept_at"]


def test_plain_dlt_sweeps_too_and_goes_on_with_the_next_run(
    many: FakeServer, warehouse: Warehouse
) -> None:
    def run(**settings: Any) -> None:
        source = analytics_source(many.url, TOKEN, ORGANIZATION, "frontend", **settings)
        warehouse.pipeline().run(source.with_resources("issues"))

    run()
    ids = resolve(many)
    run(sweep="now", rows_per_load=40)  # at once
    assert resolved(warehouse) == ids
    ids = resolve(many, 2)
    grow_old(warehouse)
    requests = [asked(many, lambda: run(rows_per_load=40)) for _ in range(4)]
    assert resolved(warehouse) == ids
    assert requests[-1] == 1
    assert sum(requests) <= MOST + 6
    assert max(requests) < MOST
    assert "sweep" not in bookmark(warehouse)


def test_a_killed_sweep_goes_on_from_its_last_piece(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(
        projects=["frontend"], issues=150, page_size=5, events=0, latency=0.01
    )
    load_issues(server, warehouse, lookback=0)
    ids = resolve(server)
    grow_old(warehouse)
    before = len(server.requests)
    words = ["--resource", "issues", "--rows-per-load", "25"]
    process = fork(server, warehouse.folder, *words, projects=["frontend"])
    while len(server.requests) < before + 20:
        assert process.exitcode is None
        time.sleep(0.002)
    process.kill()
    process.join()
    assert resolved(warehouse) == []
    load_issues(server, warehouse)
    assert resolved(warehouse) == ids
    assert len(server.requests) - before <= 30 + 25


def test_the_command_line_says_which_list_was_not_swept(
    many: FakeServer,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)

    def run(*words: str) -> int:
        named = arguments(many, warehouse.folder, *words, projects=["frontend"])
        return main([*named, "--resource", "issues"])

    assert run("--sweep", "now") == 0
    many.fail(404, on="cursor=", times=10)
    assert run("--sweep", "now") == 1
    assert "issues of project 'frontend'" in capsys.readouterr().err
    assert run("--sweep", "daily") == 2
    assert "sweep 'daily' is not a span of time" in capsys.readouterr().err


def test_only_readings_of_what_is_new_sweep(
    many: FakeServer, warehouse: Warehouse
) -> None:
    """Not those with an end, nor what reads all of the list anyway."""
    load_issues(many, warehouse)
    grow_old(warehouse)
    before = warehouse.bookmarks()
    since = datetime.now(UTC) - timedelta(hours=15)
    until = since + timedelta(hours=9)
    source: dict[str, Any] = {
        "base_url": many.url,
        "auth_token": TOKEN,
        "organization": ORGANIZATION,
        "sweep": "now",
    }

    def bounded() -> None:
        load_issues(many, warehouse, sweep="now", since=since, until=until)

    def partition() -> None:
        runner.run_partition(
            runner.make_pipeline(name="part", pipelines_dir="part"),
            runner.Partition("frontend", since, until),
            ISSUES,
            **source,
        )

    def shared() -> None:
        runner.load_shared(
            runner.make_pipeline(name="shared", pipelines_dir="shared"),
            analytics_source(project="frontend", **source),
            ISSUES,
        )

    assert asked(many, bounded) <= 2
    assert asked(many, partition) <= 2
    assert warehouse.bookmarks() == before
    assert asked(many, shared) == PAGES

    def replace() -> None:
        made = analytics_source(project="frontend", **source).with_resources("issues")
        made.issues.apply_hints(write_disposition="replace")
        warehouse.pipeline().run(made)

    assert asked(many, replace) == PAGES
    assert asked(many, replace) == PAGES


# Lists that change while they are read; for tests of the history, too


def issue(number: int, minutes: float, **fields: Any) -> Row:
    """Return an issue that was last seen so many minutes ago."""
    return {
        "id": f"i{number}",
        "project": {"id": "web", "slug": "web"},
        "status": "unresolved",
        "lastSeen": ago(minutes),
    } | fields


@contextmanager
def issue_server(count: int) -> Iterator[ListServer]:
    """Serve issues of which each was last seen hours before the one above it."""
    with ListServer() as server:
        rows = [issue(n, 600 * n) for n in range(count)]
        server.lists["acme", "web", "issues"] = rows
        yield server


def at_request(server: ListServer, number: int, change: Callable[[], object]) -> None:
    """Do something before the server answers its request of this number from now on."""
    last = len(server.requests) + number

    def before(request: Any) -> None:
        if len(server.requests) == last:
            change()

    server.before = before


def move_to_top(rows: list[Row], place: int, minutes: float) -> None:
    row = rows.pop(place)
    row |= {"lastSeen": ago(minutes), "status": "regressed"}
    rows.insert(0, row)
