"""Datasets of earlier versions load on: nothing is doubled, and nothing stands in the way.

They are made by dlt itself, with the hints and states that those versions wrote.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
import pyarrow as pa
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.loading.verification import Counts
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.rows import RowBuilder
from analytics_pipeline.tables.schema import READ_AT, column_name
from tests.conftest import ORGANIZATION, Warehouse, make_source, small_server
from tests.list_server import ListServer, event

PROJECTS = ["frontend", "backend"]
ISSUES = [f"issues_{slug}" for slug in PROJECTS]
OLD = datetime.now(UTC) - timedelta(days=1)


def rows(server: DemoServer, api: str, table: str, project: str) -> pa.Table:
    """Return the rows of a list, as the server sends them."""
    endpoint = APIS[api].endpoints[table]
    builder = RowBuilder(TABLES, Redactor([]))
    records = [dict(row) for row in server.rows(table, project or None)]
    return builder.build(table, endpoint.key, project, records, OLD).rows


def cursor(api: str, table: str) -> str:
    return column_name(APIS[api].endpoints[table].replication_key)


def lists(api: str) -> Iterator[tuple[str, str]]:
    for table, endpoint in APIS[api].endpoints.items():
        for project in PROJECTS if endpoint.by_project else [""]:
            yield table, project


def resource(
    api: str, table: str, data: pa.Table, name: str, state: dict[str, Any], **hints: Any
) -> Any:
    """A resource that yields rows and leaves a state."""

    def read() -> Iterator[pa.Table]:
        dlt.current.resource_state().update(state)
        yield data

    columns: dict[str, Any] = {
        name: dict(column)
        for name, column in TABLES[table].columns.items()
        if name in data.column_names
    }
    columns[cursor(api, table)] |= hints
    made: Any = dlt.resource(
        read,
        name=name,
        table_name=table,
        primary_key=TABLES[table].primary_key,
        write_disposition="merge",
        columns=columns,
    )
    incremental: Any = dlt.sources.incremental(cursor(api, table), lag=3600.0)
    return made.apply_hints(incremental=incremental)


def without(data: pa.Table, columns: Sequence[str]) -> pa.Table:
    return data.drop_columns([name for name in columns if name in data.column_names])


@dlt.source(name="analytics", section="analytics_pipeline", max_table_nesting=0)
def first_version(server: Any, api: str) -> Any:
    """A resource for each list; copies were sorted by the cursor column."""
    for table, project in lists(api):
        data = without(rows(server, api, table, project), ["project_slug", READ_AT])
        name = f"{table}_{project}" if project else table
        state = {"origin": f"127.0.0.1/{ORGANIZATION}/{project}", "known": "V3NS="}
        yield resource(api, table, data, name, state, dedup_sort="desc")


@dlt.source(name="analytics", section="analytics_pipeline", max_table_nesting=0)
def previous_version(server: Any, api: str) -> Any:
    """A resource for each table; the bookmark of a list was an interval."""
    for table, endpoint in APIS[api].endpoints.items():
        projects = PROJECTS if endpoint.by_project else [""]
        tables = [rows(server, api, table, project) for project in projects]
        bookmarks = {}
        for project, each in zip(projects, tables, strict=True):
            times = [t for t in each[cursor(api, table)].to_pylist() if t]
            prefix = APIS[api].prefix
            bookmarks[f"{server.url}{prefix} {ORGANIZATION}/{project}"] = {
                "since": None,
                "synced_to": max(times).isoformat().replace("+00:00", "Z"),
                "swept": OLD.isoformat(),
                "read": OLD.isoformat(),
                **({"has_history": True} if table == "issues" else {}),
            }
        data = without(pa.concat_tables(tables), ["project_slug"])
        yield resource(api, table, data, table, {"bookmarks": bookmarks})


@pytest.fixture
def stored(
    where: str, request: pytest.FixtureRequest, elsewhere: Any
) -> Iterator[tuple[DemoServer, str, dlt.Pipeline]]:
    api, _, destination = where.partition(" into ")
    given: Any = "duckdb"
    if destination:
        given = dlt.destinations.postgres(request.getfixturevalue("postgres").uri)
    pipeline = runner.make_pipeline(given, pipelines_dir=str(elsewhere / "pipelines"))
    with small_server(api) as server:
        yield server, api, pipeline


def source(server: DemoServer, api: str, **settings: Any) -> Any:
    return make_source(server, PROJECTS, api, **settings)


def assert_all_once(
    server: DemoServer, api: str, pipeline: dlt.Pipeline, tables: Iterable[str] = TABLES
) -> None:
    for table in tables:
        with pipeline.sql_client() as client:
            found = client.execute_sql(f"select id from analytics.{table}")
        key = APIS[api].endpoints[table].key
        expected = sorted(str(row[key]) for row in server.rows(table))
        assert sorted(row[0] for row in found or ()) == expected, table


@pytest.mark.parametrize(
    ("made_by", "where"),
    [
        (first_version, "v1"),
        (previous_version, "sentry"),
        (previous_version, "glitchtip into postgres"),
    ],
)
def test_a_dataset_of_an_earlier_version_continues_incrementally(
    made_by: Any, stored: tuple[DemoServer, str, dlt.Pipeline]
) -> None:
    server, api, pipeline = stored
    pipeline.run(made_by(server, api))
    assert_all_once(server, api, pipeline)
    server.grow(events=5, issues=1)
    before = len(server.requests)
    summary = runner.load(pipeline, source(server, api, history=True))
    spent = len(server.requests) - before
    assert_all_once(server, api, pipeline)
    if made_by is previous_version:
        assert summary.tables["events"].rows == 5
        assert summary.tables["events"].requests == 2
    before = len(server.requests)
    runner.load(pipeline, source(server, api, history=True))
    assert len(server.requests) - before == 8 <= spent
    assert_all_once(server, api, pipeline)
    with pipeline.sql_client() as client:
        states = client.execute_sql(
            "select count(*) from analytics.issue_history where valid_to is null"
        )
    assert states == [(len(server.rows("issues")),)]
    found = runner.verify(pipeline, source(server, api))
    assert sum(each.missing + each.doubled for each in found.totals().values()) == 0
    if made_by is first_version:
        assert found.is_equal
    status = runner.status(pipeline)
    assert {each.table for each in status.lists} >= {*TABLES}
    assert all(each.read for each in status.lists if each.organization)


@pytest.mark.parametrize("where", ["v1", "v1 into postgres"])
def test_issues_without_their_project_are_verified(
    stored: tuple[DemoServer, str, dlt.Pipeline], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As loaded by the first version, without `project_id` and `project_slug`."""
    server, api, pipeline = stored
    issues = TABLES["issues"].without(["project_id", "project_slug"])
    with monkeypatch.context() as patch:
        patch.setitem(TABLES, "issues", issues)
        pipeline.run(first_version(server, api).with_resources(*ISSUES))
    with pipeline.sql_client() as client:
        client.execute_sql(
            "delete from analytics.issues"
            " where id = (select max(id) from analytics.issues)"
        )
    found = runner.verify(pipeline, source(server, api), ["issues"], repair=True)
    assert found.before == {"issues": Counts(30, 29, missing=1, different=29)}
    assert found.is_equal


@pytest.mark.parametrize("refresh", ["drop_sources", "drop_resources", "drop_data"])
def test_a_dataset_of_the_first_version_can_be_refreshed(
    elsewhere: Any, refresh: Any
) -> None:
    pipeline = runner.make_pipeline(pipelines_dir=str(elsewhere / "pipelines"))
    with small_server() as server:
        events = [f"events_{slug}" for slug in PROJECTS]
        pipeline.run(first_version(server, "v1").with_resources(*events))
        server.grow(events=5)
        pipeline.run(source(server, "v1", tables=["events"]), refresh=refresh)
        assert_all_once(server, "v1", pipeline, ["events"])


@pytest.mark.parametrize("since", [None, "0001-01-01"])
def test_a_row_dated_in_year_1_does_not_break_later_runs(
    warehouse: Warehouse, since: str | None
) -> None:
    with ListServer() as server:
        rows = server.lists["acme", "web", "events"]
        for number in range(3):
            rows.insert(0, event(number, -number))
            rows[-1]["dateCreated"] = "0001-01-01T00:00:00Z"
            made = analytics_source(server.url, "token", "acme", "web", since=since)
            runner.load(warehouse.pipeline(), made, ["events"])
            assert len(warehouse.ids("events")) == number + 1
