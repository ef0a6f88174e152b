"""On each kind of server: all rows, once, in their newest version, by few requests."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.errors import IncompleteLoad
from tests.conftest import Warehouse, small_server
from tests.fake_server import FakeServer

TABLES = ["events", "issues", "projects", "releases", "project_detail"]
PROJECTS = ["frontend", "backend"]


def held(server: FakeServer, table: str, api: str) -> list[str]:
    """The keys that the server holds, as text."""
    key = APIS[api].endpoints[table].key
    return sorted(str(row[key]) for row in server.rows(table))


def test_a_first_run_loads_every_row_once(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    summary = warehouse.load(server, api=api)
    for table in TABLES:
        assert sorted(warehouse.ids(table)) == held(server, table, api)
        assert summary.tables[table].rows == len(server.rows(table))
    assert summary.requests == len(server.requests)


def test_a_second_run_asks_once_per_list_and_loads_nothing(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    before = len(server.requests)
    summary = warehouse.load(server, api=api)
    lists = 2 * len(["events", "issues", "project_detail"]) + 2
    assert len(server.requests) - before == summary.requests == lists
    assert all(table.rows == 0 for table in summary.tables.values())


def test_only_new_and_changed_rows_are_loaded(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    before = len(server.rows("events"))
    server.grow(events=25, issues=3, releases=1)
    summary = warehouse.load(server, api=api)
    assert summary.tables["events"].rows == len(server.rows("events")) - before
    for table in TABLES:
        assert sorted(warehouse.ids(table)) == held(server, table, api)


def test_a_changed_issue_replaces_its_old_row(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    issue = server.rows("issues", "frontend")[-1]
    later = datetime.now(UTC) - timedelta(minutes=5)
    issue |= {
        "status": "resolved",
        "count": "4711",
        "lastSeen": later.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    server.touch()
    warehouse.load(server, api=api)
    sql = f"select status, count, last_seen from analytics.issues where id = '{issue['id']}'"
    assert warehouse.rows(sql) == [("resolved", 4711, later)]


def test_a_renamed_project_is_up_to_date(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    server.rows("projects")[0]["name"] = "Renamed"
    warehouse.load(server, api=api)
    assert ("Renamed",) in warehouse.rows("select name from analytics.projects")


def test_a_row_that_came_late_is_found_within_lookback(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    late = dict(server.rows("events", "frontend")[0])
    field = APIS[api].endpoints["events"].replication_key
    newest = datetime.fromisoformat(late[field])
    late["id"] = "f" * 32
    late[field] = (newest - timedelta(minutes=50)).strftime("%Y-%m-%dT%H:%M:%SZ")
    server.insert("events", "frontend", late)
    warehouse.load(server, api=api)
    assert "f" * 32 in warehouse.ids("events")


def test_a_project_added_later_gets_its_whole_history(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, ["frontend"], api=api)
    assert len(warehouse.ids("events")) == len(server.rows("events", "frontend"))
    warehouse.load(server, PROJECTS, api=api)
    assert sorted(warehouse.ids("events")) == held(server, "events", api)


def test_another_project_in_place_of_the_first_is_read_whole(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, "frontend", api=api)
    warehouse.load(server, "backend", api=api)
    assert sorted(warehouse.ids("events")) == held(server, "events", api)


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server("v1") as server:
        yield server


def time_of(row: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(row["dateCreated"])


def test_since_bounds_the_first_run(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    field = APIS[api].endpoints["events"].replication_key
    times = sorted(row[field] for row in server.rows("events"))
    since = times[len(times) // 2]
    warehouse.load(server, api=api, since=since)
    expected = [row["id"] for row in server.rows("events") if row[field] >= since]
    assert sorted(warehouse.ids("events")) == sorted(expected)
    assert len(warehouse.ids("projects")) == 2


def test_since_and_until_load_a_half_open_span_and_leave_the_bookmarks(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    field = APIS[api].endpoints["events"].replication_key
    times = sorted(row[field] for row in server.rows("events"))
    since, until, later = times[10], times[30], times[50]
    warehouse.load(server, tables=["events"], api=api, since=later)
    bookmarks = warehouse.bookmarks()
    warehouse.load(server, api=api, since=since, until=until)
    expected = [
        row["id"]
        for row in server.rows("events")
        if since <= row[field] < until or row[field] >= later
    ]
    assert sorted(warehouse.ids("events")) == sorted(expected)
    assert warehouse.bookmarks() == bookmarks


def test_a_full_refresh_reads_all_again_and_keeps_what_the_server_forgot(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    first = warehouse.load(server, api=api)
    gone = server.rows("events", "frontend")[-1]
    server.remove("events", "frontend", gone)
    summary = warehouse.load(server, api=api, full_refresh=True)
    assert summary.tables["events"].rows == 0
    assert summary.tables["events"].reread == first.tables["events"].rows - 1
    assert summary.requests > 8  # more than the first page of each list
    assert gone["id"] in warehouse.ids("events")


def test_a_row_that_moves_between_pages_is_loaded_once_in_its_newer_copy(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    last_of_page = v1.rows("issues", "frontend")[19]

    def move(handler: Any, response: Any) -> Any:
        v1.grow(issues=1)
        return response

    v1.fail(move, on="/frontend/issues/", times=1)
    warehouse.load(v1)
    ids = warehouse.ids("issues")
    assert len(ids) == len(set(ids))
    assert last_of_page["id"] in ids


def test_a_list_that_fails_keeps_its_bookmark_and_the_others_are_loaded(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    before = warehouse.bookmarks()
    server.grow(events=50, issues=5)
    server.fail(503, on="/frontend/events/", times=99, after=1)
    with pytest.raises(IncompleteLoad, match="503 Service Unavailable") as caught:
        warehouse.load(server, api=api)
    server.mend()
    assert list(caught.value.failures) == ["events of project 'frontend'"]
    assert caught.value.summary.tables["issues"].rows > 0
    assert sorted(warehouse.ids("issues")) == held(server, "issues", api)
    after = warehouse.bookmarks()
    for key, bookmark in before["events"].items():
        moved = after["events"][key]["synced_to"] > bookmark["synced_to"]
        assert moved == ("backend" in key)
    warehouse.load(server, api=api)
    assert sorted(warehouse.ids("events")) == held(server, "events", api)


def test_pages_are_read_no_further_than_the_known_rows(warehouse: Warehouse) -> None:
    with small_server(events=300) as server:
        warehouse.load(server, "frontend", tables=["events"])
        first = len(server.requests)
        server.grow(events=30)  # 20 of them, one page, in frontend
        warehouse.load(server, "frontend", tables=["events"])
        assert first == 10
        assert len(server.requests) - first == 2
