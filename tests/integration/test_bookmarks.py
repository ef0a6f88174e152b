"""Changes between two runs leave no row missing, doubled or stale, through dlt.

Gaps and how they are read are tested in `tests/unit/test_bookmarks.py` and
`tests/unit/test_reading.py`.
"""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dlt
import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.errors import AnalyticsError
from tests.conftest import Warehouse, small_server
from tests.list_server import ListServer, ago, detail, event, newest_first


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


# `since`, `until`


def test_since_can_change_between_runs(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    load(server, elsewhere, since=ago(3000))
    rows[:0] = [event(1000 + n, n - 80) for n in range(80)]
    load(server, elsewhere, since=ago(60))  # moving it forward leaves no gap
    assert ids(warehouse) == served([r for r in rows if r["dateCreated"] >= ago(3000)])
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)
    before = len(server.requests)
    summary = load(server, elsewhere, since=ago(10), lookback=0)
    assert summary.tables["events"].rows == 0
    assert len(server.requests) - before == 1


# Organizations, servers, projects


def test_each_server_and_organization_has_its_own_bookmarks(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere)
    load(server, elsewhere, organization="other")  # its list is still empty
    expected = [server.lists["acme", "web", "events"], newest_first(50, start=500)]
    server.lists["other", "web", "events"] = [
        row | {"projectID": "2"} for row in expected[1]
    ]
    load(server, elsewhere, organization="other")
    # Another port, and another path.
    for number, prefix in enumerate(["", "/errors"], start=2):
        with ListServer(prefix=prefix) as other:
            expected.append(newest_first(50, start=1000 * number))
            other.lists["acme", "web", "events"] = expected[-1]
            load(other, elsewhere)
    assert ids(warehouse) == served(*expected)


def test_the_projects_of_a_source_can_change_between_runs(
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


def test_refused_renamed_and_moved_projects_lose_no_rows(
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
    assert ids(warehouse) == sorted(expected)


def test_the_api_of_a_dataset_can_change(warehouse: Warehouse) -> None:
    expected = set[str]()
    for api in ("v1", "glitchtip", "v1", "sentry"):
        with small_server(api, seed=len(api)) as server:
            warehouse.load(server, tables=["events"], api=api)
            expected |= {row["id"] for row in server.rows("events")}
    assert set(warehouse.ids("events")) == expected


# The warehouse and its state


@pytest.mark.parametrize("is_pending", [False, True])
def test_a_warehouse_restored_from_a_backup_is_completed(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, is_pending: bool
) -> None:
    rows = server.lists["acme", "web", "events"]
    load(server, elsewhere)
    file = warehouse.folder / f"{runner.NAME}.duckdb"
    backup = file.read_bytes()
    rows[:0] = [event(1000 + n, -n) for n in range(30)]
    load(server, elsewhere)
    if is_pending:
        rows.insert(0, event(2000, -40))
        source = analytics_source(server.url, "token", "acme", "web")
        warehouse.pipeline().extract(source.with_resources("events"))
        rows.insert(0, event(2001, -41))
    file.write_bytes(backup)
    load(server, elsewhere)
    assert ids(warehouse) == served(rows)


def test_deleting_the_working_folder_loses_nothing(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    load(server, elsewhere)
    shutil.rmtree(elsewhere / "pipelines")
    before = len(server.requests)
    load(server, elsewhere)
    assert len(server.requests) - before == 1
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


@pytest.mark.parametrize("places", [[("a", "x"), ("a", "y")], [("a", "x"), ("b", "x")]])
def test_datasets_and_destinations_can_alternate_under_one_pipeline_name(
    places: list[tuple[str, str]], server: ListServer, elsewhere: Path
) -> None:
    rows = server.lists["acme", "web", "events"]
    for number in range(3):
        rows.insert(0, event(1000 + number, -number))
        file, dataset = places[number % 2]
        destination = dlt.destinations.duckdb(f"{file}.duckdb")
        load(server, elsewhere, destination=destination, dataset=dataset)
    for (file, dataset), missing in zip(places, ("", "e1002"), strict=True):
        with duckdb.connect(f"{file}.duckdb") as connection:
            found = connection.execute(f"select id from {dataset}.events").fetchall()
        expected = served([r for r in rows if r["id"] != missing])
        assert sorted(row[0] for row in found) == expected


def drop(warehouse: Warehouse, table: str) -> None:
    """Run the command of dlt, as a user does."""
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


def test_a_dropped_table_is_loaded_again(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    """If dropped by the command of dlt; otherwise an error names that command."""
    tables = ["events", "project_detail"]
    server.lists["acme", "app", "events"] = newest_first(60, start=500)
    load(server, elsewhere, project=["web", "app"], tables=tables)
    drop(warehouse, "events")
    assert not warehouse.rows(
        "from information_schema.tables where table_schema = 'analytics'"
        " and table_name = 'events'"
    )
    load(server, elsewhere, project="web")
    load(server, elsewhere, project=["web", "app"])
    assert ids(warehouse) == served(*server.lists.values())
    warehouse.rows("drop table analytics.events")
    before = len(server.requests)
    # dlt would create it again with the first row of another table.
    with pytest.raises(
        AnalyticsError, match="`dlt pipeline analytics_pipeline drop events`"
    ):
        load(server, elsewhere, tables=tables)
    assert len(server.requests) == before
    drop(warehouse, "events")
    load(server, elsewhere, project=["web", "app"])
    assert ids(warehouse) == served(*server.lists.values())


@pytest.mark.parametrize("refresh", ["drop_data", "drop_sources"])
def test_a_refresh_of_one_project_makes_the_next_run_reload_the_other(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, refresh: Any
) -> None:
    server.lists["acme", "app", "events"] = newest_first(60, start=500)
    load(server, elsewhere, project=["web", "app"])
    source = analytics_source(server.url, "token", "acme", "web")
    warehouse.pipeline().run(source.with_resources("events"), refresh=refresh)
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])
    load(server, elsewhere, project=["web", "app"])
    assert ids(warehouse) == served(*server.lists.values())


def test_a_bounded_replace_leaves_no_false_bookmark(
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


def test_load_shared_neither_uses_nor_stores_bookmarks(
    server: ListServer, warehouse: Warehouse
) -> None:
    for _ in range(2):
        before = len(server.requests)
        source = analytics_source(server.url, "token", "acme", "web")
        runner.load_shared(warehouse.pipeline(), source, ["events"])
        assert len(server.requests) - before == 5
    assert not any(warehouse.bookmarks().values())
    assert ids(warehouse) == served(server.lists["acme", "web", "events"])


def test_rows_deleted_by_hand_come_back(
    server: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    tables = ["projects", "project_detail", "issues"]
    server.lists["", "", "projects"] = [detail("web"), detail("app")]
    server.lists["acme", "web", "issues"] = [
        {"id": str(n), "lastSeen": ago(n * 10)} for n in range(5)
    ]
    load(server, elsewhere, tables=tables)
    for table in tables:
        warehouse.rows(f"delete from analytics.{table}")
    load(server, elsewhere, tables=tables)
    assert sorted(warehouse.ids("projects")) == ["app", "web"]
    assert warehouse.ids("project_detail") == ["web"]
    assert sorted(warehouse.ids("issues")) == ["0", "1", "2", "3", "4"]


# Copies of rows, and pages without links


def test_the_last_copy_of_a_row_in_a_load_wins(
    server: ListServer, warehouse: Warehouse, elsewhere: Path, postgres: Any
) -> None:
    """Even if it has no date."""
    rows = newest_first(60)
    rows[45] = event(5, 0, title="read last") | {"dateCreated": None}
    server.lists["acme", "web", "events"] = rows
    load(server, elsewhere)
    sql = "select title from analytics.events where id = 'e5'"
    assert warehouse.rows(sql) == [("read last",)]
    destination = dlt.destinations.postgres(postgres.uri)
    load(server, elsewhere / "other", destination=destination)
    assert postgres.query(sql) == [("read last",)]
    # All rows of a page have the same `read_at`.
    sql = "select read_at, count(*) from analytics.events group by 1 order by 1"
    times = warehouse.rows(sql)
    assert [count for _, count in times] == [19, 20, 20]
    assert ago(0) < times[0][0].isoformat() < times[2][0].isoformat()
