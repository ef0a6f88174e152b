"""The instructions in docs/erasure.md for deleting a person's data work."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

import analytics_pipeline
from analytics_pipeline import runner
from tests.conftest import Warehouse, make_source, small_server
from tests.fake_server import FakeServer
from tests.integration.test_leaks import Traces
from tests.postgres import Postgres

PAGE = (Path(analytics_pipeline.__file__).parent / "docs/erasure.md").read_text("utf-8")
STATEMENTS = re.findall("```sql\n(.*?)```", PAGE, re.DOTALL)
TABLES = ["events", "issues"]
Query = Callable[[str], list[Any]]


def user(server: FakeServer) -> dict[str, str]:
    found: dict[str, str] = server.rows("events", "frontend")[0]["user"]
    return found


def statements(server: FakeServer) -> list[str]:
    """Values of a user of the server, for the placeholders of the page."""
    person = user(server)
    return [
        sql.replace("user1211@example.test", person["email"]).replace(
            "1211", person["id"]
        )
        for sql in STATEMENTS
    ]


def load(server: FakeServer, destination: str, **settings: Any) -> None:
    pipeline = runner.make_pipeline(destination, pipelines_dir="pipelines")
    source = make_source(server, ["frontend", "backend"], **settings)
    runner.load(pipeline, source, TABLES)


def in_duckdb(sql: str) -> list[Any]:
    with duckdb.connect("analytics_pipeline.duckdb") as connection:
        return connection.execute(sql).fetchall()


@pytest.fixture(params=["duckdb", "postgres"])
def warehouse_query(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[str, Query]:
    if request.param == "duckdb":
        return "duckdb", in_duckdb
    postgres: Postgres = request.getfixturevalue("postgres")
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.uri)
    return "postgres", postgres.query


def test_the_statements_find_and_delete_a_person(
    warehouse_query: tuple[str, Query],
) -> None:
    destination, query = warehouse_query
    with small_server() as server:
        load(server, destination)
        found: dict[str, list[int]] = {}
        for sql in statements(server):
            found.setdefault(sql.split()[0], []).append(len(query(sql)))
        by_user, anywhere, _ = found["select"]
        assert 0 < by_user <= anywhere
        assert (len(found["delete"]), len(found["update"])) == (3, 2)
        for sql in statements(server):
            if sql.startswith("select"):
                assert query(sql) == []
        others = query("select count(*) from analytics.events")[0][0]
        assert 0 < others == len(server.rows("events")) - anywhere


def test_events_that_are_kept_do_not_name_the_person(
    warehouse_query: tuple[str, Query],
) -> None:
    destination, query = warehouse_query
    with small_server() as server:
        load(server, destination)
        by_user, anywhere, _, _, clear, *_ = statements(server)
        assert query(by_user)
        query(clear)
        assert query(by_user) == query(anywhere) == []
        kept = query("select count(*) from analytics.events")
        assert kept == [(len(server.rows("events")),)]


def test_only_the_tables_hold_copies_of_rows(warehouse: Warehouse) -> None:
    with small_server() as server:
        warehouse.load(server, tables=TABLES)
        email = user(server)["email"]
    places = Traces("", warehouse.folder).places(email)
    assert {Path(place).name for place in places} == {
        "analytics_pipeline.duckdb",
        "analytics_pipeline.duckdb events",
    }
    staged = "select (select count(*) from analytics_staging.events), (select count(*) from analytics_staging.issues)"
    assert warehouse.rows(staged) == [(0, 0)]


def test_copies_of_rows_are_kept_if_configured(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOAD__TRUNCATE_STAGING_DATASET", "false")
    monkeypatch.setenv("LOAD__DELETE_COMPLETED_JOBS", "false")
    with small_server() as server:
        warehouse.load(server, tables=TABLES)
        email = user(server)["email"]
        count = len(server.rows("events"))
    sql = "select count(*) from analytics_staging.events"
    assert warehouse.rows(sql) == [(count,)]
    assert len(Traces("", warehouse.folder).places(email)) > 2


def delete_rows(server: FakeServer) -> int:
    (delete,) = [sql for sql in statements(server) if "delete from analytics.e" in sql]
    before = in_duckdb("select count(*) from analytics.events")[0][0]
    in_duckdb(delete)
    return int(before - in_duckdb("select count(*) from analytics.events")[0][0])


def held(server: FakeServer) -> int:
    """Return the rows of the person."""
    return len(in_duckdb(statements(server)[1]))


def test_deleted_rows_come_back_unless_the_server_deletes_them() -> None:
    with small_server() as server:
        load(server, "duckdb")
        deleted = delete_rows(server)
        load(server, "duckdb", lookback="400d")
        assert held(server) == deleted > 0
        delete_rows(server)
        source = make_source(server, ["frontend", "backend"])
        pipeline = runner.make_pipeline(pipelines_dir="pipelines")
        runner.verify(pipeline, source, ["events"], repair=True)
        assert held(server) == deleted
        email, sqls = user(server)["email"], statements(server)
        delete_rows(server)
        for slug in ("frontend", "backend"):
            for row in server.rows("events", slug):
                if email in str(row):
                    server.remove("events", slug, row)
        load(server, "duckdb", lookback="400d")
        runner.verify(pipeline, source, ["events"], repair=True)
        assert in_duckdb(sqls[1]) == []


def test_redacted_rows_come_back_without_the_redacted_values() -> None:
    with small_server() as server:
        load(server, "duckdb")
        assert held(server)
        load(server, "duckdb", redact=["user", "tags.user"], full_refresh=True)
        assert held(server) == 0
