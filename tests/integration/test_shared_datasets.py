"""Tables of another source in the dataset are left alone, and nothing is asked."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pytest

from analytics_pipeline import runner
from analytics_pipeline.errors import ConfigurationError
from tests.conftest import Database, make_source, small_server
from tests.fake_server import FakeServer

FOREIGN = "the table in the dataset 'analytics' holds rows of another source"


@pytest.fixture
def destination(database: Database) -> Any:
    return database.destination


Make = Callable[[str], dlt.Pipeline]


@pytest.fixture
def make(destination: Any) -> Make:
    return lambda name: runner.make_pipeline(
        destination, name=name, pipelines_dir="pipelines"
    )


def load(make: Make, server: FakeServer, *tables: str, name: str = "ours") -> None:
    source = make_source(server, "frontend", history=True)
    runner.load(make(name), source, tables)


def rows(make: Make, table: str) -> int:
    with make("other").sql_client() as client:
        found = client.execute_sql(
            f"select count(*) from {client.make_qualified_table_name(table)}"
        )
    return int(found[0][0]) if found else 0


@pytest.mark.parametrize("table", ["issues", "issue_history"])
@pytest.mark.parametrize("by_dlt", [True, False])
def test_a_table_of_another_source_is_reported_and_left_unchanged(
    by_dlt: bool, table: str, make: Make
) -> None:
    if by_dlt:
        schema = dlt.Schema("shop")
        make("other").run([{"id": "1", "name": "x"}], table_name=table, schema=schema)
    else:
        make("other").run([{"x": 1}], table_name="other")
        with make("other").sql_client() as client:
            name = client.make_qualified_table_name(table)
            client.execute_sql(f"create table {name} (id varchar(9))")
            client.execute_sql(f"insert into {name} values ('1')")
    with small_server() as server:
        with pytest.raises(ConfigurationError, match=f"{table}: {FOREIGN}"):
            load(make, server, "issues")
        assert not server.requests
        load(make, server, "releases")  # the other table does not matter
    assert rows(make, table) == 1


def test_a_source_added_later_is_detected(make: Make, destination: Any) -> None:
    with small_server() as server:
        load(make, server, "releases")
        load(make, server, "releases", name="another_pipeline")
        row: Any = [{"id": "1"}]
        if destination != "sqlalchemy":
            row = pa.Table.from_pylist(row)  # like ours, without _dlt_id
        make("other").run(row, table_name="releases", schema=dlt.Schema("shop"))
        before = len(server.requests)
        with pytest.raises(ConfigurationError, match=f"releases: {FOREIGN}"):
            load(make, server, "releases")
        assert len(server.requests) == before


def test_a_table_without_rows_is_loaded(make: Make) -> None:
    """A killed run may have left it, if tables are created one by one."""
    make("other").run([{"x": 1}], table_name="other")
    with make("other").sql_client() as client:
        name = client.make_qualified_table_name("releases")
        client.execute_sql(f"create table {name} (id varchar(255) not null)")
    with small_server() as server:
        load(make, server, "releases")
    assert rows(make, "releases") == 12


def test_shared_loads_leave_other_tables_alone(elsewhere: Path) -> None:
    pipeline = runner.make_pipeline(pipelines_dir="pipelines", name="other")
    schema = dlt.Schema("shop")
    pipeline.run([{"id": "1"}], table_name="events", schema=schema)
    with small_server() as server:
        source = make_source(server, "frontend")
        shared = runner.make_pipeline(
            dlt.destinations.duckdb("other.duckdb"), pipelines_dir="pipelines"
        )
        with pytest.raises(ConfigurationError, match=f"events: {FOREIGN}"):
            runner.load_shared(shared, source, ["events"])
        assert not server.requests


def test_a_table_missing_in_the_newest_schema_still_belongs_to_the_source(
    elsewhere: Path,
) -> None:
    """A load that shares the dataset stores a schema of its own tables only."""
    destination = dlt.destinations.duckdb(str(elsewhere / "w.duckdb"))

    def make(name: str) -> dlt.Pipeline:
        return runner.make_pipeline(destination, name=name, pipelines_dir=name)

    with small_server() as server:
        load(make, server, "issues")
        source = make_source(server, "frontend")
        runner.load_shared(make("shared"), source, ["events"])
        shutil.rmtree("ours")
        load(make, server, "issues")
