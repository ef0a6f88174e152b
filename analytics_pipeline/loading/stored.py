"""The rows that a table of the warehouse holds, some thousand at a time."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from datetime import datetime

import dlt
import pyarrow as pa
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.utils import resolve_merge_strategy

from analytics_pipeline.loading.destinations import destination_kind
from analytics_pipeline.loading.sql import arrow_table, ask, literal
from analytics_pipeline.tables.schema import Table

CHUNK = 5_000
"""Rows that one query asks for."""
ROWS_AT_ONCE = 2_000
MEMORY, MOST_MEMORY = "20MB", "1GB"
"""What DuckDB may keep of what it has read; the second where rows are wide."""
_UTC = "SET TimeZone = 'UTC'"


@contextmanager
def opened(pipeline: dlt.Pipeline, schema: str) -> Iterator[dlt.Dataset | None]:
    """Give the dataset with an open connection; None where nothing was ever loaded.

    A pipeline may load other sources, too, so the name of the source's schema is needed.
    """
    if schema not in pipeline.schema_names:
        yield None
        return
    kind = destination_kind(pipeline)
    with pipeline.dataset(schema) as dataset:
        if kind == "postgres":
            # In other zones the first and the last day have years that Python has not.
            dataset.sql_client.execute_sql(_UTC)
        with _frugal(dataset) if kind == "duckdb" else nullcontext():
            yield dataset


@contextmanager
def _frugal(dataset: dlt.Dataset) -> Iterator[None]:
    """Let a DuckDB take little memory: by itself it takes most of the machine's.

    The settings are those of all connections of this process, so they are put back.
    """
    wanted = {"memory_limit": MEMORY, "threads": "1", "enable_progress_bar": "false"}
    execute = dataset.sql_client.execute_sql
    execute(_UTC)
    before = {name: execute(f"SELECT current_setting('{name}')") for name in wanted}
    for name, value in wanted.items():
        execute(f"SET {name} = '{value}'")
    try:
        yield
    finally:
        for name, rows in before.items():
            execute(f"SET {name} = '{rows[0][0]}'" if rows else f"RESET {name}")


class StoredRows:
    """The rows of one table; none where there is no such table."""

    def __init__(
        self,
        pipeline: dlt.Pipeline,
        dataset: dlt.Dataset | None,
        table: Table,
        name: str,
    ) -> None:
        self.table = table
        self._name = name
        """Of the table in the warehouse, which users may have given another."""
        self._dataset = dataset
        self._is_python = destination_kind(pipeline) == "sqlalchemy"
        """Rows come as Python's values; dlt would take their types for what they seem."""
        self._columns: Sequence[str] = ()
        self._further_columns: Sequence[str] = ()
        """That others have added, with `add_map` for instance."""
        self.keeps_versions = False
        """The destination cannot replace rows, so old versions are no fault."""
        if dataset is not None and name in dataset.schema.tables:
            schema = dataset.schema.tables[name]
            self._columns = [n for n in table.schema.names if n in schema["columns"]]
            self._further_columns = [
                name
                for name, column in schema["columns"].items()
                if name not in self._columns
                and "data_type" in column
                and not name.startswith("_dlt_")
            ]
            strategy = resolve_merge_strategy(
                dataset.schema.tables, schema, pipeline.destination.capabilities()
            )
            self.keeps_versions = strategy is None

    def between(
        self, column: str, start: datetime | None, end: datetime | None
    ) -> Iterator[pa.Table]:
        """Give the rows whose time is from `start` up to `end`, and those without one."""
        span = [f"{column} is not null"]
        span += [f"{column} >= {literal(start)}"] if start else []
        span += [f"{column} < {literal(end)}"] if end else []
        yield from self._in_order_of(column, " and ".join(span))
        yield from self._in_order_of("id", f"{column} is null")

    def all(self) -> Iterator[pa.Table]:
        """Give all rows."""
        yield from self._in_order_of("id", "id is not null")

    def of_ids(self, ids: Sequence[str]) -> Iterator[pa.Table]:
        """Give all copies of the rows with these ids, with all columns."""
        for start in range(0, len(ids), 500):
            listed = ", ".join(map(literal, ids[start : start + 500]))
            yield from self._rows(f"id in ({listed})", self._further_columns)

    def _in_order_of(self, column: str, condition: str) -> Iterator[pa.Table]:
        """Give rows in chunks that begin where the one before has ended."""
        low = ""
        while self._columns:
            try:
                ((high,),) = self._ask(
                    f"select max({column}) from (select {column} from {self._name}"
                    f" where {condition}{low} order by {column} limit {CHUNK}) as chunk"
                ).fetchall()
                if high is None:
                    return
                yield from self._rows(
                    f"{condition}{low} and {column} <= {literal(high)}"
                )
            except DestinationUndefinedEntity:
                return  # dlt knows the table, but somebody has dropped it
            low = f" and {column} > {literal(high)}"

    def _rows(self, condition: str, further: Sequence[str] = ()) -> Iterator[pa.Table]:
        """Give rows with the columns, and their types, that the table should have."""
        kinds = self.table.columns
        columns = ", ".join(
            f'cast("{name}" as text) as "{name}"'
            if name in kinds and kinds[name]["data_type"] == "json"
            else f'"{name}"'
            for name in [*self._columns, *further]
        )
        query = f"select {columns} from {self._name} where {condition}"
        if self._is_python:
            batches = self._python_batches(query, [*self._columns, *further])
        else:
            batches = self._batches(query)
        for rows in batches:
            yield self._typed(rows, further)

    def _python_batches(self, query: str, names: Sequence[str]) -> Sequence[pa.Table]:
        assert self._dataset
        stored = self._dataset.schema.get_table_columns(self._name)
        kinds = {
            name: str((self.table.columns.get(name) or stored[name])["data_type"])
            for name in names
        }
        answer = self._ask(query).iter_fetch(ROWS_AT_ONCE)
        return [arrow_table(rows, kinds) for rows in answer]

    def _batches(self, query: str) -> Sequence[pa.Table]:
        """Return the answer, not in one table: DuckDB would keep the memory of that."""
        try:
            return [*self._ask(query).iter_arrow(chunk_size=ROWS_AT_ONCE)]
        except Exception as error:
            if "Out of Memory" not in str(error) or not self._dataset:
                raise
        self._dataset.sql_client.execute_sql(f"SET memory_limit = '{MOST_MEMORY}'")
        return [*self._ask(query).iter_arrow(chunk_size=ROWS_AT_ONCE)]

    def _typed(self, rows: pa.Table, further: Sequence[str]) -> pa.Table:
        return pa.table(
            [
                rows[field.name].cast(field.type)
                if field.name in self._columns
                else pa.nulls(rows.num_rows, field.type)
                for field in self.table.schema
            ]
            + [rows[name] for name in further],
            names=[*self.table.schema.names, *further],
        )

    def _ask(self, sql: str) -> dlt.Relation:
        assert self._dataset
        return ask(self._dataset, sql)
