"""Whatever a user changes between two runs, no row is missing, doubled or stale."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.errors import ConfigurationError, MissingTable
from tests.conftest import Warehouse
from tests.list_server import NOW, ListServer, ago, detail, event, newest_first


@pytest.fixture
def server() -> Iterator[ListServer]:
    with ListServer() as server:
        server.lists["acme", "web", "events"] = newest_first(100)
        yield server


def load(
    server: ListServer,
    folder: Path,
    *,
    organization: str = "acme",
    project: str | list[str] = "web",
    tables: list[str] | None = None,
    dataset: str = "analytics",
    destination: Any = "duckdb",
    **settings: Any,
) -> runner.Summary:
    pipeline = runner.make_pipeline(
        destination, dataset=dataset, pipelines_dir=str(folder / "pipelines")
    )
    source = analytics_source(server.url, "token", organization, project, **settings)
    return runner.load(pipeline, source, tables or ["events"])


def ids(warehouse: Warehouse) -> list[str]:
    return sorted(warehouse.ids("events"))


def served(*lists: list[dict[str, Any]]) -> list[str]:
    return sorted(row["id"] for rows in lists for row in rows)


# `since`


@pytest.mark.parametrize("later", [1000, 60, -100])
def test_a_later_since_leaves_no_gap(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, later: float
) -> None:
    rows = server.lists["acme", "web", "events"]
    load(server, elsewhere, since=ago(6000))
    rows[:0] = [event(1000 + n, n - 80) for n in range(80)]
    load(server, elsewhere, since=ago(later))
    assert ids(warehouse) == served([r for r in rows if r["dateCreated"] >= ago(6000)])


def test_an_earlier_since_loads_the_part_that_is_missing(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    load(server, elsewhere, since=ago(3000))
    assert len(ids(warehouse)) < 50
    load(server, elsewhere, since=ago(6000))
    assert ids(warehouse) == served([r for r in rows if r["dateCreated"] >= ago(6000)])
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)
    before = len(server.requests)
    assert load(server, elsewhere, since=ago(10)).tables["events"].rows == 0
    assert len(server.requests) - before == 1


def test_a_since_of_the_future_is_refused_and_nothing_is_asked(
    server: ListServer, elsewhere: Path
) -> None:
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    with pytest.raises(ConfigurationError, match="is in the future: it is 20"):
        load(server, elsewhere, since=tomorrow)
    assert not server.requests


def test_a_since_beyond_the_servers_clock_is_no_lasting_harm(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    server.date = NOW
    load(server, elsewhere, since=ago(-60))
    assert server.requests
    load(server, elsewhere, since=ago(6000))
    rows = server.lists["acme", "web", "events"]
    assert ids(warehouse) == served([r for r in rows if r["dateCreated"] >= ago(6000)])


def test_a_since_beyond_the_servers_clock_after_a_load_changes_nothing(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    server.date = NOW
    load(server, elsewhere)
    server.date += timedelta(minutes=10)
    server.lists["acme", "web", "events"].insert(0, event(1000, -5))
    load(server, elsewhere, since=ago(-60))
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


# Organizations, servers, projects


def test_another_organization_whose_list_is_empty_at_first(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere)
    load(server, elsewhere, organization="other")
    history = newest_first(50, start=500)
    server.lists["other", "web", "events"] = [
        row | {"projectID": "2"} for row in history
    ]
    load(server, elsewhere, organization="other")
    assert ids(warehouse) == served(server.lists["acme", "web", "events"], history)


def test_servers_of_one_host_with_another_port_or_path(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere)
    expected = [server.lists["acme", "web", "events"]]
    for number, prefix in enumerate(["", "/errors"], start=2):
        with ListServer(prefix=prefix) as other:
            rows = newest_first(50, start=1000 * number)
            other.lists["acme", "web", "events"] = rows
            load(other, elsewhere)
            expected.append(rows)
    assert ids(warehouse) == served(*expected)


def test_one_project_then_a_list_then_one_and_a_project_added(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    server.lists["acme", "app", "events"] = newest_first(60, start=500)
    load(server, elsewhere, project="web")
    first = len(server.requests)
    load(server, elsewhere, project=["web", "app"])
    assert server.asked("/web/") - first == 1  # nothing new
    assert server.asked("/app/") == 3  # its whole history
    load(server, elsewhere, project="web")
    load(server, elsewhere, project=["app"])
    assert len(server.requests) == first + 1 + 3 + 2
    assert ids(warehouse) == served(*server.lists.values())


def test_projects_that_are_refused_renamed_and_moved(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    slugs = ["web", "app", "api", "old"]
    for number, slug in enumerate(slugs[1:], start=1):
        rows = newest_first(30, start=1000 * number)
        server.lists["acme", slug, "events"] = [r | {"projectID": slug} for r in rows]
    server.refused = {"/app/": 403, "/api/": 404}
    summary = load(server, elsewhere, project=slugs)
    assert list(summary.skipped) == [f"events of project {s!r}" for s in ("app", "api")]
    server.refused = {}
    moved = server.lists.pop(("acme", "old", "events"))
    server.lists["acme", "new", "events"] = moved
    server.lists["other", "old", "events"] = [event(9000, 1), *moved]
    load(server, elsewhere, project=["web", "app", "api", "new"])
    load(server, elsewhere, organization="other", project="old")
    expected = {row["id"] for rows in server.lists.values() for row in rows}
    assert set(ids(warehouse)) == expected
    assert len(ids(warehouse)) == len(expected) + 0


def test_an_api_that_is_changed_in_one_dataset(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    from tests.conftest import TOKEN, small_server

    for api in ("v1", "glitchtip", "v1", "sentry"):
        with small_server(api, seed=len(api)) as server:
            before = set(warehouse.ids("events")) if api != "v1" else set[str]()
            warehouse.load(server, api=api)
            loaded = set(warehouse.ids("events"))
            assert loaded >= before | {row["id"] for row in server.rows("events")}
    assert TOKEN


# The warehouse and its state


def copy_of(warehouse: Warehouse) -> bytes:
    return (warehouse.folder / f"{runner.NAME}.duckdb").read_bytes()


@pytest.mark.parametrize("is_pending", [False, True])
def test_a_warehouse_that_is_restored_from_a_backup(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, is_pending: bool
) -> None:
    rows = server.lists["acme", "web", "events"]
    load(server, elsewhere)
    backup = copy_of(warehouse)
    rows[:0] = [event(1000 + n, -n) for n in range(30)]
    load(server, elsewhere)
    if is_pending:
        rows.insert(0, event(2000, -40))
        source = analytics_source(server.url, "token", "acme", "web")
        warehouse.pipeline().extract(source.with_resources("events"))
        rows.insert(0, event(2001, -41))
    (warehouse.folder / f"{runner.NAME}.duckdb").write_bytes(backup)
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)


def test_a_working_folder_that_is_deleted(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere)
    shutil.rmtree(elsewhere / "pipelines")
    before = len(server.requests)
    load(server, elsewhere)
    assert len(server.requests) - before == 1
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


def test_two_datasets_in_turn_under_one_pipeline_name(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    for number in range(4):
        rows.insert(0, event(1000 + number, -number))
        load(server, elsewhere, dataset=f"analytics_{number % 2}")
    expected = served(rows)
    for dataset, missing in (("analytics_0", 1), ("analytics_1", 0)):
        found = [row[0] for row in warehouse.rows(f"select id from {dataset}.events")]
        assert sorted(found) == [i for i in expected if not missing or i != "e1003"]


def test_two_destinations_in_turn_under_one_pipeline_name(
    server: ListServer, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    for number in range(4):
        rows.insert(0, event(1000 + number, -number))
        path = str(elsewhere / f"{number % 2}.duckdb")
        load(server, elsewhere, destination=dlt.destinations.duckdb(path))
    for number, expected in ((0, [r for r in rows if r["id"] != "e1003"]), (1, rows)):
        with duckdb.connect(str(elsewhere / f"{number}.duckdb")) as connection:
            found = connection.execute("select id from analytics.events").fetchall()
        assert sorted(row[0] for row in found) == served(expected)


def drop(warehouse: Warehouse, table: str) -> None:
    """Run dlt's own command, as a user does."""
    folder = ["--pipelines-dir", str(warehouse.folder / "pipelines")]
    done = subprocess.run(
        [
            *(sys.executable, "-m", "dlt", "--yes", "pipeline", *folder),
            *(runner.NAME, "drop", table),
        ],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


ALL = ["events", "issues", "projects", "releases", "project_detail"]


def test_rows_that_were_deleted_by_hand_come_back(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    server.lists["", "", "projects"] = [detail("web"), detail("app")]
    server.lists["acme", "web", "issues"] = [
        {"id": str(n), "lastSeen": ago(n * 10)} for n in range(5)
    ]
    load(server, elsewhere, tables=ALL)
    for table in ("projects", "project_detail", "issues"):
        warehouse.rows(f"delete from analytics.{table}")
    load(server, elsewhere, tables=ALL)
    assert sorted(warehouse.ids("projects")) == ["app", "web"]
    assert warehouse.ids("project_detail") == ["web"]
    assert sorted(warehouse.ids("issues")) == ["0", "1", "2", "3", "4"]


def test_dlts_command_drop_of_a_table_lets_all_of_it_be_loaded_again(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    server.lists["acme", "app", "events"] = newest_first(60, start=500)
    load(server, elsewhere, project=["web", "app"], tables=ALL)
    drop(warehouse, "events")
    assert not warehouse.rows(
        "from information_schema.tables where table_schema = 'analytics'"
        " and table_name = 'events'"
    )
    load(server, elsewhere, project="web")
    load(server, elsewhere, project=["web", "app"])
    assert ids(warehouse) == served(
        server.lists["acme", "web", "events"], server.lists["acme", "app", "events"]
    )


@pytest.mark.parametrize("refresh", ["drop_data", "drop_resources", "drop_sources"])
def test_a_refresh_of_one_project_lets_the_other_one_be_loaded_again(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, refresh: Any
) -> None:
    server.lists["acme", "app", "events"] = newest_first(60, start=500)
    load(server, elsewhere, project=["web", "app"])
    source = analytics_source(server.url, "token", "acme", "web")
    warehouse.pipeline().run(source.with_resources("events"), refresh=refresh)
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])
    load(server, elsewhere, project=["web", "app"])
    assert ids(warehouse) == served(*server.lists.values())


def test_a_table_that_was_dropped_by_hand_is_an_error_that_helps(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere, tables=ALL)
    warehouse.rows("drop table analytics.events")
    server.lists["acme", "web", "events"].insert(0, event(1000, -1))
    with pytest.raises(
        MissingTable, match="`dlt pipeline analytics_pipeline drop events`"
    ):
        load(server, elsewhere)
    drop(warehouse, "events")
    load(server, elsewhere)
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


# Rows that change


def test_a_row_that_moves_to_the_next_page_and_has_changed_meanwhile(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]

    def change(request: Any) -> None:
        if "cursor" in request.query and rows[0]["id"] != "e1000":
            rows[19]["title"] = "changed"
            rows.insert(0, event(1000, -1))

    server.before = change
    load(server, elsewhere)
    titles = dict(warehouse.rows("select id, title from analytics.events"))
    assert titles["e19"] == "changed"
    assert len(titles) == len(warehouse.ids("events"))


def test_a_bounded_run_in_between_and_then_the_old_state_again(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    load(server, elsewhere)
    bookmarks = warehouse.bookmarks()
    rows[0]["title"] = "changed"
    load(server, elsewhere, since=ago(100), until=ago(-1))
    sql = "select title from analytics.events where id = 'e0'"
    assert warehouse.rows(sql) == [("changed",)]
    assert warehouse.bookmarks() == bookmarks
    rows[0]["title"] = "event 0"
    load(server, elsewhere)
    assert warehouse.rows(sql) == [("event 0",)]


def test_a_release_that_changes_after_it_was_created(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    releases = [
        {"id": n, "version": f"v{n}", "dateCreated": ago(1440 * n), "newGroups": 0}
        for n in range(20)
    ]
    server.lists["acme", "", "releases"] = releases
    load(server, elsewhere, tables=["releases"])
    releases[12]["newGroups"] = 7
    load(server, elsewhere, tables=["releases"])
    sql = "select new_groups from analytics.releases where id = '12'"
    assert warehouse.rows(sql) == [(7,)]


# Clocks


@pytest.mark.parametrize("hours", [-5, 5])
def test_the_servers_clock_is_the_one_that_counts(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, hours: int
) -> None:
    """To the client it looks as if the server lived hours before, or after, itself."""
    shift = timedelta(hours=hours)
    server.date = datetime.now(UTC) + shift
    rows = server.lists["acme", "web", "events"]
    for row in rows:
        created = datetime.fromisoformat(row["dateCreated"]) + shift
        row["dateCreated"] = (created + timedelta(minutes=115)).isoformat()
    future = event(1000, 0)
    future["dateCreated"] = (server.date + timedelta(minutes=30)).isoformat()
    rows.insert(0, future)
    load(server, elsewhere)
    (bookmark,) = warehouse.bookmarks()["events"].values()
    assert datetime.fromisoformat(bookmark["synced_to"]) <= server.date
    late = event(1001, 0)
    late["dateCreated"] = (server.date - timedelta(minutes=50)).isoformat()
    rows.insert(1, late)
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)


# State


def test_fifty_projects_with_many_recent_rows_keep_a_small_state(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    slugs = [f"project-number-{n}" for n in range(50)]
    with ListServer(page_size=100) as server:
        for number, slug in enumerate(slugs):
            rows = newest_first(200, every=0.25, start=number * 1000)
            server.lists["acme", slug, "events"] = rows
        load(server, elsewhere, project=slugs)
        load(server, elsewhere, project=slugs)
    bookmarks = warehouse.bookmarks()["events"]
    assert len(bookmarks) == 50
    assert all(len(json.dumps({k: v})) < 200 for k, v in bookmarks.items())
    state = warehouse.pipeline().state["sources"]["analytics"]["resources"]["events"]
    assert len(json.dumps(state, default=str)) < 50 * 200
    assert len(ids(warehouse)) == 50 * 200


def test_a_bookmark_beyond_the_servers_clock_is_not_trusted(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    """The clock was days ahead once, and a row with it."""
    rows = server.lists["acme", "web", "events"]
    server.date = datetime.now(UTC) + timedelta(days=3)
    rows.insert(0, event(1000, -2 * 1440))
    load(server, elsewhere)
    server.date = None
    rows[1:1] = [event(2000 + n, n - 100) for n in range(90)]
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)
    (bookmark,) = warehouse.bookmarks()["events"].values()
    assert datetime.fromisoformat(bookmark["synced_to"]) < datetime.now(UTC)


def test_a_bounded_replace_leaves_no_bookmark_that_is_not_true(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere)
    source = analytics_source(
        server.url, "token", "acme", "web", since=ago(500), until=ago(100)
    ).with_resources("events")
    source.events.apply_hints(write_disposition={"disposition": "replace"})
    warehouse.pipeline().run(source)
    assert 0 < len(ids(warehouse)) < 10
    load(server, elsewhere)
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


def test_a_dropped_table_is_found_out_before_anything_is_asked(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    """Otherwise dlt would make it anew, with another table's first row."""
    load(server, elsewhere)
    warehouse.rows("drop table analytics.events")
    server.lists["", "", "projects"] = [detail("web")]
    before = len(server.requests)
    with pytest.raises(MissingTable):
        load(server, elsewhere, tables=ALL)
    assert len(server.requests) == before


def test_rows_without_a_time_are_in_every_reading_with_an_end(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    rows[3]["dateCreated"] = None
    load(server, elsewhere, since=ago(9000), until=ago(8000))
    assert "e3" in ids(warehouse)


def test_load_shared_begins_without_bookmarks_and_leaves_none(
    server: ListServer, warehouse: Warehouse
) -> None:
    for _ in range(2):
        before = len(server.requests)
        source = analytics_source(server.url, "token", "acme", "web")
        runner.load_shared(warehouse.pipeline(), source, ["events"])
        assert len(server.requests) - before == 5
    assert not any(warehouse.bookmarks().values())
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


def test_the_last_value_is_none_while_a_project_was_never_read(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    source = analytics_source(
        server.url, "token", "acme", ["web", "app"], rows_per_load=40
    )
    warehouse.pipeline().run(source.with_resources("events"))
    state: Any = warehouse.pipeline().state["sources"]
    incremental = state["analytics"]["resources"]["events"]["incremental"]
    assert incremental["date_created"]["last_value"] is None
