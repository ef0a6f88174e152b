"""After two loads, every warehouse has the same rows and types as DuckDB."""

import json
import re
import sys
import warnings
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pyarrow.compute as pc
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.demo import Response
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.runner import Summary
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import LOAD_ID, READ_AT
from analytics_pipeline.values import loads
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source, small_server
from tests.fake_server import FakeServer
from tests.postgres import Postgres

PROJECTS = ["frontend", "backend"]
Rows = dict[str, list[dict[str, Any]]]
Types = dict[str, dict[str, str]]


class Other:
    """A second warehouse, loaded from the same server by its own pipeline."""

    def __init__(
        self, folder: Path, destination: Any, table_format: str | None = None
    ) -> None:
        self.table_format = table_format
        self.pipeline = runner.make_pipeline(
            destination, name="other", pipelines_dir=str(folder / "others")
        )

    def load(self, server: FakeServer, *tables: str, **settings: Any) -> Summary:
        source = make_source(server, PROJECTS, **settings)
        return runner.load(self.pipeline, source, tables, self.table_format)


def load_twice(
    server: FakeServer, other: Other, warehouse: Warehouse, *tables: str
) -> Summary:
    """Load twice, with new and changed rows in between; return the second summary."""
    warehouse.load(server, tables=tables)
    other.load(server, *tables)
    server.grow(events=25, issues=3, releases=1)
    later = datetime.now(UTC) - timedelta(minutes=5)
    server.rows("issues", "frontend")[-1] |= {
        "status": "resolved",
        "lastSeen": later.strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
    }
    server.rows("projects")[0]["name"] = "Renamed"
    warehouse.load(server, tables=tables)
    return other.load(server, *tables)


def comparable(rows: Rows) -> Rows:
    """Return the rows in the order of their keys, with parsed JSON."""
    found: Rows = {}
    for name in rows:
        table = TABLES[name]
        nested = [table.names[f] for f, kind in table.types.items() if kind == "json"]
        for row in rows[name]:
            for column in [*nested, "extra"]:
                if row[column] is not None:
                    row[column] = loads(row[column].encode())[0]
        found[name] = sorted(
            rows[name], key=lambda row: [row[key] for key in table.primary_key]
        )
    return found


def queried(
    fetch: Callable[[str], list[tuple[Any, ...]]], *tables: str
) -> tuple[Rows, Types]:
    """Return all rows, and the columns in the information schema."""
    rows: Rows = {}
    types: Types = {}
    for name in tables or TABLES:
        columns = fetch(
            "select column_name, data_type, is_nullable"
            " from information_schema.columns"
            f" where table_schema = 'analytics' and table_name = '{name}'"
        )
        types[name] = {column: f"{kind} {null}" for column, kind, null in columns}
        names = ", ".join(
            f'"{column}"' + "::text" * kind.startswith("json")
            for column, kind in ((c[0], c[1].lower()) for c in columns)
        )
        rows[name] = [
            dict(zip(types[name], row, strict=True))
            for row in fetch(f"select {names} from analytics.{name}")
        ]
    return comparable(rows), types


def assert_same(found: tuple[Rows, Types], expected: tuple[Rows, Types]) -> None:
    """Compare column by column, to make differences readable."""
    assert found[1] == expected[1]
    for name, rows in expected[0].items():
        assert len(found[0][name]) == len(rows), name
        for column in rows[0].keys() - {READ_AT, LOAD_ID}:  # they are two loads
            ours, theirs = (
                [row[column] for row in t[name]] for t in (expected[0], found[0])
            )
            different = [i for i, v in enumerate(ours) if v != theirs[i]]
            assert not different, (
                name,
                column,
                [str((ours[i], theirs[i]))[:200] for i in different],
            )


def in_words(types: Types, words: dict[str, str]) -> Types:
    """Return DuckDB types by their names in another warehouse."""
    return {
        name: {
            column: words[kind.rpartition(" ")[0]] + " " + kind.rpartition(" ")[2]
            for column, kind in columns.items()
        }
        for name, columns in types.items()
    }


POSTGRES_WORDS = {
    "VARCHAR": "character varying",
    "BIGINT": "bigint",
    "DOUBLE": "double precision",
    "BOOLEAN": "boolean",
    "TIMESTAMP WITH TIME ZONE": "timestamp with time zone",
    "JSON": "jsonb",
}


@pytest.fixture
def other(postgres: Postgres, elsewhere: Path) -> Other:
    return Other(elsewhere, dlt.destinations.postgres(postgres.uri))


def in_postgres(other: Other, *tables: str) -> tuple[Rows, Types]:
    with other.pipeline.sql_client() as client:
        return queried(
            lambda sql: [tuple(row) for row in client.execute_sql(sql) or ()], *tables
        )


def test_postgres_is_loaded_incrementally(warehouse: Warehouse, other: Other) -> None:
    with small_server() as server:
        load_twice(server, other, warehouse)
    rows, types = queried(warehouse.rows)
    assert_same(in_postgres(other), (rows, in_words(types, POSTGRES_WORDS)))
    assert "resolved" in {row["status"] for row in rows["issues"]}


def test_postgres_accepts_all_values_of_servers(
    warehouse: Warehouse, other: Other
) -> None:
    deep: Any = "bottom"
    for _ in range(500):
        deep = [deep]
    odd = "'; -- \\' \\n %s {} $$ \t\r\n),\n('\"\x00\x7f\u2028\ud800🐘"
    changes: list[dict[str, Any]] = [
        {"title": odd, "context": {"deep": deep, odd: odd}, "message": ""},
        {"dateReceived": "9999-12-31T23:59:59Z", "context": [2**64, -(10**40), 0.1]},
        {"dateReceived": "1969-07-20T20:17:40.123456Z", "size": 2**63 - 1},
        {"dateReceived": "0001-01-01T00:00:00Z", "culprit": "x" * 100_000},
    ]

    def spoil(handler: Any, response: Response) -> Response:
        body = json.loads(response.body)
        for row, change in zip(body["data"], changes, strict=False):
            row |= change
        return Response(200, response.headers, json.dumps(body).encode())

    with small_server() as server:
        server.fail(spoil, on="/frontend/events/", times=1)
        warehouse.load(server, tables=["events"])
        server.fail(spoil, on="/frontend/events/", times=1)
        other.load(server, "events")
    rows, types = queried(warehouse.rows, "events")
    words = in_words(types, POSTGRES_WORDS)
    assert_same(in_postgres(other, "events"), (rows, words))
    assert [2**64, -(10**40), 0.1] in [row["context"] for row in rows["events"]]
    clean = re.sub("[\0\ud800]", "\N{REPLACEMENT CHARACTER}", odd)
    assert clean in {row["title"] for row in rows["events"]}


def test_mapped_rows_are_loaded_into_postgres_unchanged(
    postgres: Postgres, elsewhere: Path
) -> None:
    """In CSV files, empty text would become NULL."""
    whole = Other(elsewhere, dlt.destinations.postgres(postgres.uri))
    with small_server() as server:
        server.rows("events")[0] |= {"message": "", "platform": "python"}
        source = make_source(server, PROJECTS)
        source.events.add_map(
            lambda table: table.filter(pc.field("platform") == "python")
        )
        runner.load(whole.pipeline, source, ["events"])
        wanted = [r["id"] for r in server.rows("events") if r["platform"] == "python"]
    found = postgres.query("select id, message = '' from analytics.events")
    assert sorted(id for id, _ in found) == sorted(wanted)
    assert [is_empty for _, is_empty in found].count(True) == 1


def test_a_tag_whose_column_name_is_too_long_is_refused_before_a_request(
    postgres: Postgres, elsewhere: Path
) -> None:
    """dlt would shorten the name, and queries would not find the column."""
    other = Other(elsewhere, dlt.destinations.postgres(postgres.uri))
    fits = "t" * (63 - len("tag_"))
    with small_server() as server:
        longer = analytics_source(
            server.url, TOKEN, "acme", "frontend", tags=fits + "t"
        )
        with pytest.raises(ConfigurationError, match="64 characters.* allows 63"):
            runner.load(other.pipeline, longer)
        assert server.requests == []
        source = analytics_source(server.url, TOKEN, "acme", "frontend", tags=fits)
        runner.load(other.pipeline, source, ["events"])
    postgres.query(f"select tag_{fits} from analytics.events")


@pytest.mark.parametrize("kind", ["duckdb", "postgres"])
def test_upsert_accepts_a_row_that_is_sent_twice_in_a_load(
    kind: str, elsewhere: Path, request: pytest.FixtureRequest
) -> None:
    destination: Any = dlt.destinations.duckdb(str(elsewhere / "other.duckdb"))
    if kind == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        destination = dlt.destinations.postgres(postgres.uri)
    other = Other(elsewhere, destination)
    with small_server() as server:

        def move(handler: Any, response: Any) -> Any:
            server.grow(events=3)
            return response

        for _ in range(2):
            server.fail(move, on="/events/", times=2)
            source = make_source(server, PROJECTS)
            source.events.apply_hints(
                write_disposition={"disposition": "merge", "strategy": "upsert"}
            )
            runner.load(other.pipeline, source, ["events"])
        other.load(server, "events")
        expected = sorted(row["id"] for row in server.rows("events"))
    with other.pipeline.sql_client() as client:
        found = client.execute_sql("select id from events")
    assert sorted(row[0] for row in found or ()) == expected


SOME = ["events", "issues"]


def in_files(sql: str) -> tuple[Rows, Types]:
    """Return the result of a query on the files of some tables."""
    import duckdb

    rows: Rows = {}
    types: Types = {}
    for name in SOME:
        key = ", ".join(TABLES[name].primary_key)
        found = duckdb.sql(sql.format(table=name, key=key))
        types[name] = dict(zip(found.columns, map(str, found.types), strict=True))
        rows[name] = [
            dict(zip(found.columns, row, strict=True)) for row in found.fetchall()
        ]
    return comparable(rows), types


def without_nullability(types: Types) -> Types:
    return {
        name: {
            # Files have no JSON type; the text is the same.
            column: kind.rpartition(" ")[0].replace("JSON", "VARCHAR")
            for column, kind in columns.items()
        }
        for name, columns in types.items()
    }


NEWEST = """
    select *
    from 'lake/analytics/{table}/*.parquet'
    qualify row_number() over (partition by {key} order by read_at desc) = 1
"""


def test_parquet_files_hold_every_version_and_a_query_finds_the_newest(
    warehouse: Warehouse, elsewhere: Path
) -> None:
    lake = Other(elsewhere, dlt.destinations.filesystem("lake"))
    with small_server() as server:
        first = {name: len(server.rows(name)) for name in SOME}
        second = load_twice(server, lake, warehouse, *SOME)
    assert second.appended == {*SOME}
    rows, types = queried(warehouse.rows, *SOME)
    assert_same(in_files(NEWEST), (rows, without_nullability(types)))
    every = in_files("from 'lake/analytics/{table}/*.parquet'")[0]
    for name, table in second.tables.items():
        read = first[name] + table.rows + table.reread
        assert len(every[name]) == read >= len(rows[name])
    assert len(every["issues"]) > len(rows["issues"])


def test_files_that_keep_old_versions_are_reported_once(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    with small_server() as server:
        options = ["--base-url", server.url, "--organization", ORGANIZATION]
        options += ["--project", "frontend", "--destination", "filesystem"]
        assert main([*options, "--progress", "off", "--resource", "issues"]) == 0
    assert capfd.readouterr().err.count("replace") == 2  # in one sentence
    assert list(elsewhere.glob("lake/analytics/issues/*.parquet"))


def test_appended_rows_are_reported_once_per_run(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    def load() -> Summary:
        source = make_source(server, PROJECTS, rows_per_load=10, workers=1)
        source.issues.apply_hints(write_disposition="append")
        return runner.load(warehouse.pipeline(), source, ["issues", "releases"])

    with small_server() as server:
        assert load().loads > 1
    assert caplog.text.count("issues: rows that are read again") == 1
    assert "releases: rows" not in caplog.text


@pytest.mark.parametrize(
    ("destination", "words"),
    [
        ("duckdb", "does not work with duckdb"),
        ("filesystem", r"needs the package deltalake: pip install .*\[deltalake\]"),
    ],
)
def test_an_unsupported_table_format_is_refused_before_a_request(
    destination: str, words: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "deltalake", None)
    monkeypatch.setenv("DESTINATION__FILESYSTEM__BUCKET_URL", "lake")
    other = Other(elsewhere, destination, "delta")
    with (
        small_server("sentry") as server,
        pytest.raises(ConfigurationError, match=words),
    ):
        other.load(server, api="sentry")
    assert not server.requests


@pytest.fixture(params=["delta", "iceberg"])
def lake(request: pytest.FixtureRequest, elsewhere: Path) -> Other:
    name: str = request.param
    module, extra = {
        "delta": ("deltalake", "deltalake"),
        "iceberg": ("pyiceberg", "iceberg"),
    }[name]
    pytest.importorskip(module, reason=f"140 MB more: pip install '.[{extra}]'")
    return Other(elsewhere, dlt.destinations.filesystem("lake"), name)


def in_lake(other: Other, *names: str) -> tuple[Rows, Types]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # pyiceberg warns about itself
        if other.table_format == "delta":
            from dlt.common.libs.deltalake import get_delta_tables

            delta = get_delta_tables(other.pipeline)
            arrow = {name: delta[name].to_pyarrow_table() for name in names}
        else:
            from dlt.common.libs.pyiceberg import get_iceberg_tables

            found = get_iceberg_tables(other.pipeline)
            arrow = {name: found[name].scan().to_arrow() for name in names}
    types = {
        name: {field.name: LAKE_WORDS[str(field.type)] for field in table.schema}
        for name, table in arrow.items()
    }
    return comparable({name: t.to_pylist() for name, t in arrow.items()}), types


LAKE_WORDS = {
    "string": "VARCHAR",
    "large_string": "VARCHAR",
    "int64": "BIGINT",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "timestamp[us, tz=UTC]": "TIMESTAMP WITH TIME ZONE",
}


def test_lakes_are_loaded_incrementally(lake: Other, warehouse: Warehouse) -> None:
    with small_server() as server:
        second = load_twice(server, lake, warehouse, *SOME)
    assert not second.appended
    rows, types = queried(warehouse.rows, *SOME)
    assert_same(in_lake(lake, *SOME), (rows, without_nullability(types)))


def test_a_row_that_moves_between_pages_is_in_a_lake_once(lake: Other) -> None:
    with small_server() as server:

        def move(handler: Any, response: Any) -> Any:
            server.grow(events=3)
            return response

        for _ in range(2):
            server.fail(move, on="/frontend/", times=2)
            lake.load(server, "events", full_refresh=True)
        lake.load(server, "events")
        rows, _ = in_lake(lake, "events")
        ids = [row["id"] for row in rows["events"]]
        assert sorted(ids) == sorted(row["id"] for row in server.rows("events"))


UNTRIED = ["bigquery", "clickhouse", "databricks", "motherduck", "snowflake"]


@pytest.mark.parametrize("name", UNTRIED)
def test_destinations_without_a_test_server_get_files_with_types_of_dlt(
    name: str, elsewhere: Path
) -> None:
    """Without the load itself, which would need an account."""
    pipeline = Other(elsewhere, name).pipeline
    with small_server() as server:
        source = make_source(server, PROJECTS)
        pipeline.extract(source)
        pipeline.normalize()
    (package,) = pipeline.list_normalized_load_packages()
    jobs = pipeline.get_load_package_info(package).jobs["new_jobs"]
    formats = {job.job_file_info.table_name: job for job in jobs}
    capabilities = pipeline.destination.capabilities()
    mapper = capabilities.get_type_mapper()
    for table in TABLES:
        schema = pipeline.default_schema.tables[table]
        prepared: Any = {**schema, "x-insert-api": "copy_into"}
        file_format: Any = formats[table].job_file_info.file_format
        assert file_format == "parquet"
        for column in schema["columns"].values():
            mapper.ensure_supported_type(column, prepared, file_format)
