"""Sweeps find changes of issues without an event, through dlt and DuckDB.

When a sweep is due and how it is resumed is tested in `tests/unit/test_reading.py`.
"""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.runner import Summary
from tests.assertions import assert_kept
from tests.children import arguments
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source
from tests.fake_server import FakeServer
from tests.list_server import ListServer, Row, ago

Start = Callable[..., FakeServer]
ISSUES = ["issues"]
PAGES = 5
MOST = PAGES + 3
"""Requests of a run with a sweep, including new and moved issues."""


def load_issues(server: DemoServer, warehouse: Warehouse, **settings: Any) -> Summary:
    return warehouse.load(server, "frontend", ISSUES, **settings)


def resolve(server: DemoServer, count: int = 1) -> list[str]:
    """Resolve the oldest issues without an event."""
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
    """Move the last sweep back by this time."""
    pipeline = warehouse.pipeline()
    with pipeline.managed_state(extract_state=True) as state:
        resources = state["sources"]["analytics"]["resources"]
        for each in resources["issues"]["bookmarks"].values():
            time = datetime.now(UTC) - timedelta(hours=hours)
            each["swept_at"] = time.isoformat().replace("+00:00", "Z")
    pipeline.normalize()
    pipeline.load()


def asked(server: Any, work: Callable[[], object]) -> int:
    """Return the number of requests for issues."""

    def count() -> int:
        return sum(each.path.endswith("/issues/") for each in server.requests)

    before = count()
    work()
    return count() - before


@pytest.fixture
def many(start: Start) -> FakeServer:
    """Serve five pages of issues of one project, all older than the lookback."""
    server = start(projects=["frontend"], issues=100, page_size=20, events=0)
    for row in server.rows("issues"):
        seen = datetime.fromisoformat(row["lastSeen"]) - timedelta(hours=9)
        row["lastSeen"] = seen.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return server


def test_a_change_without_an_event_is_found_by_the_next_sweep(
    many: FakeServer, warehouse: Warehouse
) -> None:
    assert asked(many, lambda: load_issues(many, warehouse)) == PAGES
    ids = resolve(many, 3)
    assert asked(many, lambda: load_issues(many, warehouse)) == 1
    assert resolved(warehouse) == []
    grow_old(warehouse)
    before = len(many.requests)
    summary = load_issues(many, warehouse)
    assert len(many.requests) - before <= MOST
    assert summary.loads == 1
    assert summary.tables["issues"].rows == 0
    assert summary.tables["issues"].reread >= 100
    assert resolved(warehouse) == ids
    assert asked(many, lambda: load_issues(many, warehouse)) == 1
    assert_kept(warehouse, many, "issues")


def test_plain_dlt_sweeps_and_resumes_a_sweep_in_the_next_run(
    many: FakeServer, warehouse: Warehouse
) -> None:
    def run(**settings: Any) -> None:
        source = make_source(many, "frontend", **settings)
        warehouse.pipeline().run(source.with_resources("issues"))

    run()
    ids = resolve(many)
    run(sweep="now", rows_per_load=40)
    assert resolved(warehouse) == ids
    ids = resolve(many, 2)
    grow_old(warehouse)
    requests = [asked(many, lambda: run(rows_per_load=40)) for _ in range(4)]
    assert resolved(warehouse) == ids
    assert requests[-1] == 1
    assert sum(requests) <= MOST + 6
    assert max(requests) < MOST
    assert "sweep" not in bookmark(warehouse)


def test_the_command_line_names_lists_that_were_not_swept(
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


def test_only_incremental_runs_sweep(many: FakeServer, warehouse: Warehouse) -> None:
    """Bounded runs and full reads of the list do not."""
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


# Lists that change while they are read; also used by tests of the history


def issue(number: int, minutes: float, **fields: Any) -> Row:
    """Return an issue last seen this many minutes ago."""
    return {
        "id": f"i{number}",
        "project": {"id": "web", "slug": "web"},
        "status": "unresolved",
        "lastSeen": ago(minutes),
    } | fields


def at_request(server: ListServer, number: int, change: Callable[[], object]) -> None:
    """Call `change` before the server answers the nth request from now."""
    last = len(server.requests) + number

    def before(request: Any) -> None:
        if len(server.requests) == last:
            change()

    server.before = before


def move_to_top(rows: list[Row], place: int, minutes: float) -> None:
    row = rows.pop(place)
    row |= {"lastSeen": ago(minutes), "status": "regressed"}
    rows.insert(0, row)
