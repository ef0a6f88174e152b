"""On each API: all rows, once each, in their newest version, with few requests."""

from datetime import UTC, datetime, timedelta

import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.runner import Summary
from tests.conftest import Warehouse, small_server
from tests.fake_server import FakeServer

TABLES = ["events", "issues", "projects", "releases", "project_detail"]
PROJECTS = ["frontend", "backend"]


def keys(server: FakeServer, table: str, api: str = "v1") -> list[str]:
    """Return the keys of the server's rows, as text."""
    key = APIS[api].endpoints[table].key
    return sorted(str(row[key]) for row in server.rows(table))


def text(time: datetime) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def test_later_runs_load_only_new_changed_and_late_rows(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    def load() -> Summary:
        before = len(server.requests)
        summary = warehouse.load(server, api=api)
        assert summary.requests == len(server.requests) - before
        for table in TABLES:
            assert sorted(warehouse.ids(table)) == keys(server, table, api)
        return summary

    first = load()
    assert {name: first.tables[name].rows for name in TABLES} == {
        name: len(server.rows(name)) for name in TABLES
    }

    second = load()
    assert second.requests == 2 * len(["events", "issues", "project_detail"]) + 2
    assert all(table.rows == 0 for table in second.tables.values())

    field = APIS[api].endpoints["events"].replication_key
    late = dict(server.rows("events", "frontend")[0])
    created = datetime.fromisoformat(late[field]) - timedelta(minutes=50)
    server.insert(
        "events",
        "frontend",
        late | dict.fromkeys(("id", "eventID"), "f" * 32) | {field: text(created)},
    )
    server.rows("projects")[0]["name"] = "Renamed"
    server.grow(events=25, issues=3, releases=1)
    issue = server.rows("issues", "frontend")[-1]
    seen = datetime.now(UTC) - timedelta(minutes=5)
    issue |= {"status": "resolved", "count": "4711", "lastSeen": text(seen)}
    third = load()
    assert third.tables["events"].rows == 25
    assert third.tables["events"].reread >= 1  # the late row is older than the bookmark
    sql = "select status, count, last_seen from analytics.issues"
    assert warehouse.rows(f"{sql} where id = '{issue['id']}'") == [
        ("resolved", 4711, seen)
    ]
    assert ("Renamed",) in warehouse.rows("select name from analytics.projects")


@pytest.mark.parametrize("api", ["sentry"])
def test_since_bounds_the_first_run_and_until_leaves_the_bookmarks(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    field = APIS[api].endpoints["events"].replication_key
    times = sorted(row[field] for row in server.rows("events"))
    since, until, later = times[10], times[30], times[50]

    def expected(*spans: tuple[str, str]) -> list[str]:
        return sorted(
            row["id"]
            for row in server.rows("events")
            if any(low <= row[field] < high for low, high in spans)
        )

    warehouse.load(server, tables=["events", "projects"], api=api, since=later)
    assert sorted(warehouse.ids("events")) == expected((later, "9"))
    assert len(warehouse.ids("projects")) == 2
    bookmarks = warehouse.bookmarks()
    warehouse.load(server, tables=["events"], api=api, since=since, until=until)
    assert sorted(warehouse.ids("events")) == expected((since, until), (later, "9"))
    assert warehouse.bookmarks() == bookmarks


def test_a_full_refresh_reads_everything_and_keeps_rows_the_server_deleted(
    warehouse: Warehouse,
) -> None:
    with small_server() as server:
        warehouse.load(server, tables=["events"])
        gone = server.rows("events", "frontend")[-1]
        server.remove("events", "frontend", gone)
        summary = warehouse.load(server, tables=["events"], full_refresh=True)
        assert summary.tables["events"].rows == len(server.rows("events")) == 59
        assert gone["id"] in warehouse.ids("events")
