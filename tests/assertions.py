"""Checks that the warehouse holds each row of the server once, in its newest version."""

from collections import Counter
from datetime import UTC, datetime
from typing import Any, cast

import duckdb

from analytics_pipeline import runner
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.rows import RowBuilder
from analytics_pipeline.tables.schema import READ_AT
from tests.conftest import Warehouse

Row = dict[str, Any]


def shown(server: DemoServer, table: str) -> list[Row]:
    """Return the rows of the v1 server as the table should hold them."""
    endpoint, builder = APIS["v1"].endpoints[table], RowBuilder(TABLES, Redactor([]))
    slugs = [row["slug"] for row in server.rows("projects")]
    found: list[Row] = []
    for slug in slugs if endpoint.by_project else [None]:
        records = [dict(row) for row in server.rows(table, slug)]
        built = builder.build(
            table, endpoint.key, slug or "", records, datetime.now(UTC)
        )
        found += built.rows.drop_columns([READ_AT]).to_pylist()
    return found


def held(warehouse: Warehouse, table: str) -> list[Row]:
    """Return the rows of the table without columns of dlt; none if there is no table."""
    columns = ", ".join(f'"{name}"' for name in TABLES[table].columns)
    with duckdb.connect(str(warehouse.folder / f"{runner.NAME}.duckdb")) as connection:
        found = connection.execute(
            "from information_schema.tables where table_schema = ? and table_name = ?",
            [runner.DATASET, table],
        )
        if not found.fetchall():
            return []
        query = f"select {columns} from {runner.DATASET}.{table}"
        rows = connection.execute(query).to_arrow_table()
        rows = rows.cast(TABLES[table].schema).drop_columns([READ_AT])
        return cast(list[Row], rows.to_pylist())


def assert_kept(warehouse: Warehouse, server: DemoServer, *tables: str) -> None:
    """Check that no row is lost, doubled or old in the tables (default: all)."""
    for table in tables or TABLES:
        expected = Counter(map(_fixed, shown(server, table)))
        found = Counter(map(_fixed, held(warehouse, table)))
        assert not expected - found, f"{table}: lost, or older"
        assert not found - expected, f"{table}: doubled, or never shown"


def _fixed(row: Row) -> str:
    return repr(sorted(row.items()))
