"""A long first load comes in pieces: it survives anything, and reads nothing twice."""

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
from analytics_pipeline.errors import IncompleteLoad, Unreachable
from analytics_pipeline.loading import run
from tests.assertions import assert_kept
from tests.children import fork
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer
from tests.integration.test_bookmarks import ids, load, served
from tests.list_server import ListServer, ago, event, newest_first

LATER = datetime(2099, 1, 1, tzinfo=UTC)
PAGES = 60
SIZE = 5


def long_server(api: str, **changes: Any) -> FakeServer:
    """60 pages of events, in one project: six pieces, with the `rows_per_load` of most tests."""
    return small_server(
        api,
        projects=("frontend",),
        events=PAGES * SIZE,
        issues=10,
        page_size=SIZE,
        **changes,
    )


@pytest.fixture
def server(api: str) -> Iterator[FakeServer]:
    with long_server(api) as server:
        yield server


def held(server: FakeServer) -> list[str]:
    return sorted(row["id"] for row in server.rows("events"))


def load_events(server: FakeServer, warehouse: Warehouse, **settings: Any) -> Any:
    settings = {"rows_per_load": 10 * SIZE} | settings
    return warehouse.load(server, "frontend", ["events"], **settings)


def test_a_load_in_pieces_asks_little_more_than_one_in_a_piece(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    summary = load_events(server, warehouse, api=api)
    assert sorted(warehouse.ids("events")) == held(server)
    assert summary.tables["events"].rows == PAGES * SIZE
    assert 5 <= summary.loads <= 9
    assert len(server.requests) <= PAGES + 9
    loads = warehouse.rows("select count(*) from analytics._dlt_loads where status = 0")
    assert loads == [(summary.loads,)]
    before = len(server.requests)
    load_events(server, warehouse, api=api)
    assert len(server.requests) - before == 1


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
def test_a_failed_load_goes_on_from_where_it_was(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    server.fail(503, on="/events/", after=40, times=99)
    with pytest.raises(IncompleteLoad):
        load_events(server, warehouse, api=api)
    server.mend()
    assert len(warehouse.ids("events")) >= 35 * SIZE
    load_events(server, warehouse, api=api)
    assert sorted(warehouse.ids("events")) == held(server)
    assert len(server.requests) <= PAGES + 20


def disconnect(handler: Any, good: Any) -> None:
    handler.connection.close()


@pytest.mark.parametrize("workers", [1, 4])
@pytest.mark.parametrize("after", [1, 37])
def test_a_server_that_goes_away_costs_a_piece(
    server: FakeServer, api: str, warehouse: Warehouse, workers: int, after: int
) -> None:
    server.fail(disconnect, on="/events/", after=after, times=4 * workers)
    with pytest.raises((IncompleteLoad, Unreachable)):
        load_events(server, warehouse, api=api, workers=workers)
    server.mend()
    load_events(server, warehouse, api=api, workers=workers)
    assert sorted(warehouse.ids("events")) == held(server)
    assert len(server.requests) <= PAGES + 30


def test_a_killed_load_goes_on_from_its_last_piece(
    api: str, warehouse: Warehouse
) -> None:
    with long_server(api, latency=0.01) as server:
        words = ["--resource", "events", "--rows-per-load", str(10 * SIZE)]
        words += ["--api", api, "--workers", "2"]
        process = fork(server, warehouse.folder, *words, projects=["frontend"])
        while len(server.requests) < PAGES / 2:
            assert process.exitcode is None
            time.sleep(0.002)
        process.kill()
        process.join()
        load_events(server, warehouse, api=api, workers=2)
        assert sorted(warehouse.ids("events")) == held(server)
        assert len(server.requests) <= PAGES + 20


def test_rows_that_arrive_in_every_piece_do_not_keep_it_from_ending(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    rows = len(server.rows("events"))

    def grow(handler: Any, good: Any) -> Any:
        server.grow(events=2 * SIZE)
        return good

    for place in range(0, 200, 10):
        server.fail(grow, on="/events/", after=place and 9)
    load_events(server, warehouse, api=api)
    server.mend()
    assert len(server.rows("events")) > rows + 50
    assert len(server.requests) < 3 * PAGES
    load_events(server, warehouse, api=api)
    assert sorted(warehouse.ids("events")) == held(server)


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("rows_per_load", [1, 20, 45])
def test_the_smallest_pieces_come_to_an_end(
    warehouse: Warehouse, elsewhere: Path, rows_per_load: int, is_reversed: bool
) -> None:
    with ListServer() as server:
        rows = newest_first(200)
        server.lists["acme", "web", "events"] = rows[::-1] if is_reversed else rows
        load(server, elsewhere, rows_per_load=rows_per_load)
        assert ids(warehouse) == served(rows)


def test_a_list_that_has_come_to_its_end_is_not_asked_in_later_pieces(
    api: str, warehouse: Warehouse
) -> None:
    with small_server(api, events=400, page_size=20) as server:
        summary = warehouse.load(server, api=api, rows_per_load=60)
        assert summary.loads > 3
        # Each list once, and a page again for each piece.
        for part in ("/releases/", "/backend/issues/", "/projects/acme/backend/"):
            asked = [r for r in server.requests if r.path.endswith(part)]
            assert len(asked) <= 2
        if api == "v1":
            assert_kept(warehouse, server)


def stop_at(request_number: int, server: ListServer) -> Callable[[Any], None]:
    def stop(request: Any) -> None:
        if len(server.requests) >= request_number:
            server.refused = {"/events/": 500}

    return stop


def half(server: ListServer, folder: Path) -> None:
    """Load in pieces of two pages, up to a failure half way."""
    server.before = stop_at(14, server)
    with pytest.raises(IncompleteLoad):
        load(server, folder, rows_per_load=40)
    server.before = lambda request: None
    server.refused = {}


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("gone", [1, 25, 300])
def test_rows_that_are_deleted_between_two_pieces_leave_no_gap(
    warehouse: Warehouse, elsewhere: Path, gone: int, is_reversed: bool
) -> None:
    """They shift the page cursor, beyond rows that were not read yet."""
    with ListServer() as server:
        rows = newest_first(400, every=1)
        if is_reversed:
            rows.reverse()
        server.lists["acme", "web", "events"] = rows
        half(server, elsewhere)
        del rows[:gone]
        load(server, elsewhere, rows_per_load=40)
        assert {*served(rows)} <= {*ids(warehouse)}


@pytest.mark.parametrize("status", [400, 404, 410, 422, 500])
def test_a_page_cursor_that_is_not_taken_any_more_begins_the_list_anew(
    warehouse: Warehouse,
    elsewhere: Path,
    status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with ListServer() as server:
        rows = newest_first(400)
        server.lists["acme", "web", "events"] = rows
        half(server, elsewhere)

        def refuse(request: Any) -> None:
            is_old = int(request.query.get("cursor", "0")) > 60
            server.refused = {"/events/": status} if is_old else {}

        server.before = refuse
        before = len(server.requests)
        with pytest.raises(IncompleteLoad):
            load(server, elsewhere, rows_per_load=40)
        server.before, server.refused = (lambda request: None), {}
        assert "is read from its beginning" in caplog.text
        assert any(not r.query for r in server.requests[before:])
        load(server, elsewhere, rows_per_load=40)
        assert ids(warehouse) == served(rows)


def test_a_reading_that_was_left_long_ago_is_followed_by_what_is_new(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        rows = newest_first(400)
        server.lists["acme", "web", "events"] = rows
        half(server, elsewhere)
        rows[:0] = [event(1000 + n, n - 100) for n in range(90)]
        load(server, elsewhere)
        assert ids(warehouse) == served(rows)


def test_an_earlier_since_in_the_middle_of_a_first_load(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        rows = newest_first(400)
        server.lists["acme", "web", "events"] = rows
        server.before = stop_at(14, server)
        with pytest.raises(IncompleteLoad):
            load(server, elsewhere, since=ago(30_000), rows_per_load=40)
        server.before, server.refused = (lambda request: None), {}
        load(server, elsewhere, rows_per_load=40)
        assert ids(warehouse) == served(rows)


def test_plain_dlt_reads_to_the_end_in_one_load_unless_it_is_told_otherwise(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    def source(**settings: Any) -> Any:
        return analytics_source(
            server.url, TOKEN, ORGANIZATION, "frontend", api, **settings
        ).with_resources("events")

    pipeline = warehouse.pipeline()
    pipeline.run(source(rows_per_load=10 * SIZE))
    some = len(warehouse.ids("events"))
    assert 10 * SIZE <= some <= 20 * SIZE
    pipeline.run(source())
    assert len(warehouse.ids("events")) == PAGES * SIZE
    assert len(server.requests) <= PAGES + 9


def test_a_load_that_takes_long_is_ended_too(
    warehouse: Warehouse, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "SECONDS_PER_LOAD", 0.0)
    with ListServer() as server:
        server.lists["acme", "web", "events"] = rows = newest_first(200)
        summary = load(server, elsewhere)
        assert summary.loads == 9
        assert ids(warehouse) == served(rows)


def test_a_reading_with_an_end_comes_in_pieces_and_keeps_no_bookmark(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    summary = load_events(server, warehouse, api=api, until="2099-01-01")
    assert summary.loads > 4
    assert sorted(warehouse.ids("events")) == held(server)
    assert not any(warehouse.bookmarks().values())


def test_a_full_refresh_comes_in_pieces_and_begins_only_once(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_events(server, warehouse, api=api)
    before = len(server.requests)
    summary = load_events(server, warehouse, api=api, full_refresh=True)
    assert summary.loads > 4
    assert PAGES <= len(server.requests) - before <= PAGES + 9


def test_the_state_of_a_load_that_is_under_way_is_small(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    sizes = []
    run = runner.summarise

    def measured(pipeline: Any) -> Any:
        sizes.append(len(json.dumps(pipeline.state["sources"], default=str)))
        return run(pipeline)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runner, "summarise", measured)
        load_events(server, warehouse, api=api)
    assert max(sizes) < 2000
    assert sizes[-1] < 500


def test_a_refresh_of_a_load_in_pieces_empties_the_tables_only_once(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        rows = newest_first(100)
        server.lists["acme", "web", "events"] = rows
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


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_a_reading_with_an_end_is_one_load_where_nothing_goes_on_with_it(
    server: FakeServer, api: str, warehouse: Warehouse, elsewhere: Path
) -> None:
    """In plain dlt, and in a partition, a setting of small pieces loses no row."""
    small: Any = {"rows_per_load": 2 * SIZE, "until": "2099-01-01", "api": api}
    source = analytics_source(server.url, TOKEN, ORGANIZATION, "frontend", **small)
    warehouse.pipeline().run(source.with_resources("events"))
    assert sorted(warehouse.ids("events")) == held(server)
    partition = runner.Partition("frontend", datetime(2020, 1, 1, tzinfo=UTC), LATER)
    pipeline = runner.make_pipeline(
        dataset="other", name="part", pipelines_dir=str(elsewhere / "part")
    )
    settings: Any = {"base_url": server.url, "auth_token": TOKEN, "api": api}
    runner.run_partition(
        pipeline,
        partition,
        ["events"],
        organization=ORGANIZATION,
        rows_per_load=2 * SIZE,
        **settings,
    )
    with duckdb.connect("part.duckdb") as connection:
        found = connection.execute("select id from other.events").fetchall()
    assert sorted(row[0] for row in found) == held(server)


def test_page_cursors_that_are_good_only_once_do_not_keep_a_load_from_ending(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        rows = newest_first(400)
        server.lists["acme", "web", "events"] = rows
        used: set[str] = set()

        def refuse(request: Any) -> None:
            cursor = request.query.get("cursor", "")
            server.refused = {"/events/": 400} if cursor in used else {}
            used.add(cursor) if cursor else used.clear()

        server.before = refuse
        load(server, elsewhere, rows_per_load=60)
        assert ids(warehouse) == served(rows)
        assert len(server.requests) < 40


def test_a_fault_deep_in_a_list_does_not_keep_new_rows_out(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        rows = newest_first(400)
        server.lists["acme", "web", "events"] = rows
        del rows[330]["id"]
        for number in range(4):
            rows.insert(0, event(1000 + number, -number))
            with pytest.raises(IncompleteLoad, match="no usable 'id'"):
                load(server, elsewhere, rows_per_load=60)
        found = set(ids(warehouse))
        assert {"e1000", "e1001", "e1002"} <= found
        assert {f"e{n}" for n in range(300)} <= found


def test_rows_of_one_time_that_are_deleted_between_two_pieces_leave_no_gap(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    with ListServer() as server:
        rows = newest_first(60, every=1)
        rows += [event(n, 100) for n in range(60, 160)] + newest_first(
            100, every=100, start=200
        )[2:]
        server.lists["acme", "web", "events"] = rows
        half(server, elsewhere)
        del rows[:25]
        load(server, elsewhere, rows_per_load=40)
        assert {*served(rows)} <= {*ids(warehouse)}


def test_a_full_refresh_by_plain_dlt_is_one_load(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    source = analytics_source(
        *(server.url, TOKEN, ORGANIZATION, "frontend", api),
        full_refresh=True,
        rows_per_load=10 * SIZE,
    )
    warehouse.pipeline().run(source.with_resources("events"))
    assert sorted(warehouse.ids("events")) == held(server)
