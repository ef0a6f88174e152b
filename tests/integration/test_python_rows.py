"""Destinations that do not load Arrow with JSON in it get Python's values."""

import gzip
import json
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import dlt
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import runner
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.report import page
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import EXTRA, READ_AT
from analytics_pipeline.values import loads, utc
from tests.conftest import Warehouse, make_source, small_server
from tests.fake_server import FakeServer
from tests.mariadb import MariaDB

ODD = {
    "user": "***",
    "contexts": {"text": "🐘", "none": None},
    "metadata": [1, None, {"deep": True}],
    "title": "x" * 60_000,
}


@pytest.fixture(params=["sqlite", "mariadb"])
def pipeline(request: pytest.FixtureRequest) -> dlt.Pipeline:
    if request.param == "sqlite":
        where: Any = dlt.destinations.sqlalchemy("sqlite:///warehouse.db")
        return runner.make_pipeline(where, pipelines_dir="others")
    server: MariaDB = request.getfixturevalue("mariadb")
    where = dlt.destinations.sqlalchemy(server.uri, create_primary_keys=True)
    return runner.make_pipeline(where, pipelines_dir="others")


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server() as server:
        server.rows("events", "frontend")[0].update(ODD)
        yield server


def source(server: FakeServer, **settings: Any) -> Any:
    projects = ["frontend", "backend"]
    return make_source(server, projects, **settings)


def comparable(kind: str, value: Any) -> Any:
    if value is None:
        return None
    if kind == "json":
        text = value if isinstance(value, str) else json.dumps(value)
        return loads(text.encode())[0]
    if kind == "timestamp":
        return utc(datetime.fromisoformat(value) if isinstance(value, str) else value)
    return bool(value) if kind == "bool" else value


def rows(pipeline: dlt.Pipeline, name: str) -> dict[Any, Any]:
    """Return key → row, independent of the types of the database."""
    table = TABLES[name]
    kinds: dict[str, str] = {
        column: str(hints["data_type"])
        for column, hints in table.columns.items()
        if column not in (READ_AT, EXTRA)
    }
    found = pipeline.dataset()[name].select(*kinds).fetchall()
    dicts = [
        {
            column: comparable(kind, value)
            for (column, kind), value in zip(kinds.items(), row, strict=True)
        }
        for row in found
    ]
    by_key = {tuple(row[column] for column in table.primary_key): row for row in dicts}
    assert len(by_key) == len(dicts)
    return by_key


def test_two_loads_yield_the_rows_of_duckdb(
    v1: FakeServer, warehouse: Warehouse, pipeline: dlt.Pipeline
) -> None:
    for _ in range(2):
        warehouse.load(v1, history=True)
        runner.load(pipeline, source(v1, history=True))
        v1.grow(events=7, issues=3, releases=1)
    for name in TABLES:
        expected, found = rows(warehouse.pipeline(), name), rows(pipeline, name)
        assert found.keys() == expected.keys()
        for key, row in found.items():
            assert row == expected[key]
    counts = pipeline.dataset()("select count(*) from issue_history").fetchall()
    assert counts == warehouse.rows("select count(*) from analytics.issue_history")


def test_verify_finds_and_repairs_and_the_report_shows_it(
    v1: FakeServer, pipeline: dlt.Pipeline
) -> None:
    tables = ["issues", "releases"]
    runner.load(pipeline, source(v1, history=True), tables)
    with pipeline.sql_client() as client:
        table = client.make_qualified_table_name
        client.execute_sql(f"delete from {table('releases')} where commit_count >= 0")
        client.execute_sql(
            f"update {table('issues')} set status = 'x' where level = 'error'"
        )
    found = runner.verify(pipeline, source(v1), tables, repair=True)
    assert found.before
    assert found.before["releases"].missing == 12
    assert found.before["issues"].different > 0
    assert found.is_equal
    assert "Unresolved issues over time" in page(pipeline)


def test_mariadb_tables_have_primary_keys(v1: FakeServer, mariadb: MariaDB) -> None:
    where = dlt.destinations.sqlalchemy(mariadb.uri, create_primary_keys=True)
    pipeline = runner.make_pipeline(where, pipelines_dir="others")
    runner.load(pipeline, source(v1), ["events"])
    keys = mariadb.query(
        "select column_name, character_maximum_length from information_schema.columns"
        " where table_schema = 'analytics' and table_name = 'events'"
        " and column_key = 'PRI' order by column_name"
    )
    assert keys == [("id", 255), ("project_id", 255)]


def test_json_lines_hold_nested_values(v1: FakeServer, elsewhere: Path) -> None:
    where = dlt.destinations.filesystem(str(elsewhere / "lake"))
    pipeline = runner.make_pipeline(where, dataset="d", pipelines_dir="others")
    events = source(v1).with_resources("events")
    pipeline.run(events, loader_file_format="jsonl")
    (file,) = (elsewhere / "lake" / "d" / "events").glob("*.jsonl.gz")
    lines = gzip.decompress(file.read_bytes()).splitlines()
    assert len(lines) == 60
    assert all(isinstance(json.loads(line)["tags"], list) for line in lines)


@pytest.mark.parametrize(
    ("settings", "kind"), [({}, list), ({"row_format": "arrow"}, str)]
)
def test_a_destination_function_receives_nested_values_unless_arrow_is_chosen(
    settings: dict[str, Any], kind: type, v1: FakeServer
) -> None:
    taken: list[Any] = []

    @dlt.destination(batch_size=20)
    def sink(items: Any, table: Any) -> None:
        if table["name"] == "events":
            taken.extend(items if isinstance(items, list) else items.to_pylist())

    pipeline = dlt.pipeline("sink", destination=sink, pipelines_dir="others")
    pipeline.run(source(v1, **settings).with_resources("events"))
    assert len(taken) == 60
    assert {type(event["tags"]) for event in taken} == {kind}


def test_lancedb_is_refused_because_it_would_lose_rows(
    v1: FakeServer, elsewhere: Path
) -> None:
    lance = dlt.pipeline("lance", pipelines_dir="others", destination="lancedb")
    with pytest.raises(PipelineStepFailed) as error:
        lance.extract(source(v1).with_resources("projects"))
    assert isinstance(runner.root_error(error.value), ConfigurationError)
    assert "lancedb is not supported" in str(error.value)
