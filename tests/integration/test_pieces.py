"""A long first load is done in pieces, through dlt and DuckDB.

How a list is resumed is tested in `tests/unit/test_reading.py`.
"""

import json
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from tests.assertions import assert_kept
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source, small_server
from tests.fake_server import FakeServer
from tests.integration.test_bookmarks import ids, load, served
from tests.list_server import ListServer, newest_first

PAGES = 30
SIZE = 5
ROWS = PAGES * SIZE
LATER = datetime(2099, 1, 1, tzinfo=UTC)


def long_server(api: str = "v1", **changes: Any) -> FakeServer:
    """Serve 30 pages of events of one project: three pieces by default."""
    settings = {"projects": ["frontend"], "events": ROWS, "page_size": SIZE}
    return small_server(api, **settings, issues=10, **changes)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with long_server() as server:
        yield server


def held(server: FakeServer) -> list[str]:
    return sorted(row["id"] for row in server.rows("events"))


def load_events(server: FakeServer, warehouse: Warehouse, **settings: Any) -> Any:
    settings = {"rows_per_load": 10 * SIZE} | settings
    return warehouse.load(server, "frontend", ["events"], **settings)


def asked(server: Any, work: Callable[[], object]) -> int:
    before = len(server.requests)
    work()
    return len(server.requests) - before


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_loading_in_pieces_takes_few_more_requests(
    api: str, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []
    summarise = runner.summarise

    def measured(pipeline: Any, total: Any) -> Any:
        sizes.append(len(json.dumps(pipeline.state["sources"], default=str)))
        return summarise(pipeline, total)

    monkeypatch.setattr(runner, "summarise", measured)
    with long_server(api) as server:
        summary = load_events(server, warehouse, api=api)
        assert sorted(warehouse.ids("events")) == held(server)
        rows = summary.tables["events"].rows
        assert ROWS <= rows <= ROWS + (summary.loads if api == "sentry" else 0)
        assert 3 <= summary.loads <= 6
        # A page by time starts with the last rows of the previous page.
        pages = PAGES if api != "sentry" else ROWS / (SIZE - 2)
        assert len(server.requests) <= pages + 2 * summary.loads
        sql = "select count(*) from analytics._dlt_loads where status = 0"
        assert warehouse.rows(sql) == [(summary.loads,)]
        assert max(sizes) < 1000
        assert asked(server, lambda: load_events(server, warehouse, api=api)) == 1


def test_a_finished_list_is_not_requested_in_later_pieces(warehouse: Warehouse) -> None:
    with small_server(events=200, page_size=20) as server:
        summary = warehouse.load(server, rows_per_load=60)
        assert 2 < summary.loads < 8
        for part in ("/releases/", "/backend/issues/", "/projects/acme/backend/"):
            paths = [r for r in server.requests if r.path.endswith(part)]
            assert len(paths) <= 2
        assert_kept(warehouse, server)


def test_plain_dlt_uses_one_load_by_default(
    server: FakeServer, warehouse: Warehouse
) -> None:
    def run(**settings: Any) -> None:
        source = make_source(server, "frontend", **settings)
        warehouse.pipeline().run(source.with_resources("events"))

    run(rows_per_load=10 * SIZE)
    assert 10 * SIZE <= len(warehouse.ids("events")) <= 12 * SIZE
    run()
    assert sorted(warehouse.ids("events")) == held(server)
    assert len(server.requests) <= PAGES + 4
    # These cannot be resumed, so they ignore the limit.
    for settings in ({"full_refresh": True}, {"until": "2099-01-01"}):
        warehouse.rows("delete from analytics.events")
        run(rows_per_load=2 * SIZE, **settings)
        assert sorted(warehouse.ids("events")) == held(server)


def test_a_partition_is_one_load(server: FakeServer, elsewhere: Path) -> None:
    pipeline = runner.make_pipeline(
        dataset="other", name="part", pipelines_dir=str(elsewhere / "part")
    )
    runner.run_partition(
        pipeline,
        runner.Partition("frontend", datetime(2020, 1, 1, tzinfo=UTC), LATER),
        ["events"],
        base_url=server.url,
        auth_token=TOKEN,
        organization=ORGANIZATION,
        rows_per_load=2 * SIZE,
    )
    with duckdb.connect("part.duckdb") as connection:
        found = connection.execute("select id from other.events").fetchall()
    assert sorted(row[0] for row in found) == held(server)


def test_a_refresh_in_pieces_empties_the_tables_only_once(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        server.lists["acme", "web", "events"] = rows = newest_first(100)
        load(server, elsewhere)
        del rows[-10:]
        pipeline = dlt.pipeline(
            runner.NAME,
            pipelines_dir=str(elsewhere / "pipelines"),
            destination="duckdb",
            dataset_name=runner.DATASET,
            refresh="drop_resources",
        )
        source = analytics_source(server.url, "token", "acme", "web", rows_per_load=40)
        summary = runner.load(pipeline, source, ["events"])
        assert summary.loads > 1
        assert ids(warehouse) == served(rows)
