"""A long first load comes in pieces, each of which is loaded and stays.

How a list is resumed is tested in `tests/unit/test_reading.py`; this is the way through
dlt and DuckDB.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.errors import AnalyticsError, IncompleteLoad
from tests.assertions import assert_kept
from tests.children import fork
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer
from tests.integration.test_bookmarks import ids, load, served
from tests.list_server import ListServer, newest_first

PAGES = 30
SIZE = 5
ROWS = PAGES * SIZE
LATER = datetime(2099, 1, 1, tzinfo=UTC)


def long_server(api: str = "v1", **changes: Any) -> FakeServer:
    """30 pages of events, in one project: three pieces, unless a test says otherwise."""
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


def test_a_load_in_pieces_asks_little_more_than_one_in_a_piece(
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
        # Sentry's pages by time begin with the rows at which the one before ended.
        pages = PAGES if api != "sentry" else ROWS / (SIZE - 2)
        assert len(server.requests) <= pages + 2 * summary.loads
        sql = "select count(*) from analytics._dlt_loads where status = 0"
        assert warehouse.rows(sql) == [(summary.loads,)]
        assert max(sizes) < 1000
        assert asked(server, lambda: load_events(server, warehouse, api=api)) == 1


def disconnect(handler: Any, good: Any) -> None:
    handler.connection.close()


@pytest.mark.parametrize("fault", [503, disconnect])
def test_a_failed_load_goes_on_from_where_it_was(
    server: FakeServer, warehouse: Warehouse, fault: Any
) -> None:
    server.fail(fault, on="/events/", after=17, times=99)
    with pytest.raises(AnalyticsError):
        load_events(server, warehouse)
    server.mend()
    some = len(warehouse.ids("events"))
    assert some >= 10 * SIZE
    summary = load_events(server, warehouse)
    assert summary.tables["events"].rows == ROWS - some
    assert sorted(warehouse.ids("events")) == held(server)
    assert len(server.requests) <= PAGES + 20


def test_a_killed_load_goes_on_from_its_last_piece(warehouse: Warehouse) -> None:
    with long_server(latency=0.01) as server:
        words = ["--resource", "events", "--rows-per-load", str(5 * SIZE)]
        words += ["--workers", "2"]
        process = fork(server, warehouse.folder, *words, projects=["frontend"])
        while len(server.requests) < PAGES / 2:
            assert process.exitcode is None
            time.sleep(0.002)
        process.kill()
        process.join()
        load_events(server, warehouse)
        assert sorted(warehouse.ids("events")) == held(server)
        assert len(server.requests) <= 2 * PAGES + 10


def test_a_list_that_has_come_to_its_end_is_not_asked_in_later_pieces(
    warehouse: Warehouse,
) -> None:
    with small_server(events=200, page_size=20) as server:
        summary = warehouse.load(server, rows_per_load=60)
        assert 2 < summary.loads < 8
        # Each list once, and a page again for each piece.
        for part in ("/releases/", "/backend/issues/", "/projects/acme/backend/"):
            paths = [r for r in server.requests if r.path.endswith(part)]
            assert len(paths) <= 2
        assert_kept(warehouse, server)


def test_plain_dlt_reads_to_the_end_in_one_load_unless_it_is_told_otherwise(
    server: FakeServer, warehouse: Warehouse
) -> None:
    def run(**settings: Any) -> None:
        source = analytics_source(
            server.url, TOKEN, ORGANIZATION, "frontend", **settings
        )
        warehouse.pipeline().run(source.with_resources("events"))

    run(rows_per_load=10 * SIZE)
    assert 10 * SIZE <= len(warehouse.ids("events")) <= 12 * SIZE
    run()
    assert sorted(warehouse.ids("events")) == held(server)
    assert len(server.requests) <= PAGES + 4
    # Nothing resumes these, so they are read to their end.
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


def test_bounded_and_full_readings_come_in_pieces_and_begin_only_once(
    server: FakeServer, warehouse: Warehouse
) -> None:
    half: Any = {"rows_per_load": ROWS // 2}
    summary = load_events(server, warehouse, until=datetime.now(UTC), **half)
    assert summary.loads > 1
    assert sorted(warehouse.ids("events")) == held(server)
    assert not any(warehouse.bookmarks().values())
    load_events(server, warehouse, rows_per_load=None)
    before = len(server.requests)
    summary = load_events(server, warehouse, full_refresh=True, **half)
    assert summary.loads > 1
    assert summary.tables["events"].rows == ROWS
    assert len(server.requests) - before <= PAGES + 2 * summary.loads


def test_a_refresh_of_a_load_in_pieces_empties_the_tables_only_once(
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


def test_a_list_that_is_oldest_first_is_one_load(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        server.lists["acme", "web", "events"] = rows = newest_first(100)[::-1]
        assert load(server, elsewhere, rows_per_load=20).loads == 1
        assert ids(warehouse) == served(rows)


def test_a_fault_deep_in_a_list_does_not_keep_new_rows_out(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        server.lists["acme", "web", "events"] = rows = newest_first(100)
        del rows[70]["id"]
        for number in range(3):
            rows.insert(0, newest_first(1, start=1000 + number)[0])
            with pytest.raises(IncompleteLoad, match="no usable 'id'"):
                load(server, elsewhere, rows_per_load=40)
            assert f"e{1000 + number}" in ids(warehouse)
