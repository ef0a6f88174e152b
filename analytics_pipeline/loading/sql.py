"""Queries of the warehouse, written in PostgreSQL's SQL and translated by sqlglot.

The times of SQLite, MariaDB and MySQL are translated here: their columns have no zone and
hold UTC, and SQLite's are text.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, cast

import dlt
from dlt.destinations.sql_client import SqlClientBase
from sqlglot import Dialect, exp, maybe_parse, parse_one

from analytics_pipeline.client.endpoints import cursors_of
from analytics_pipeline.loading.loaded_lists import table_names
from analytics_pipeline.tables.history import HISTORY, VALIDITY
from analytics_pipeline.tables.schema import column_name
from analytics_pipeline.values import utc

_BEGINNING = {
    "sqlite": "strftime('{form}', {time})",
    "mysql": "date_format({time}, '{form}')",
}
"""The beginning of a time's day or hour, as text."""
_FORMS = {"DAY": "%Y-%m-%d 00:00:00", "HOUR": "%Y-%m-%d %H:00:00"}
_SECONDS = {
    "sqlite": "cast(strftime('%s', {time}) as integer)",
    "mysql": "timestampdiff(microsecond, '1970-01-01', {time}) / 1000000.0",
}
"""Since 1970; whole ones in SQLite."""


def translated(sql: str, dialect: str) -> str:
    """Return a query in the SQL of another dialect."""
    tree: Any = parse_one(sql, dialect="postgres")
    if Dialect.get(dialect) is None:  # one that only SQLAlchemy knows
        return sql
    if dialect in _BEGINNING:
        tree = tree.transform(_without_zones(dialect))
    return str(tree.sql(dialect))


def execute(
    client: SqlClientBase[Any], sql: str, tables: Mapping[str, str]
) -> Sequence[Sequence[Any]]:
    """Execute a statement in PostgreSQL's SQL; return its rows.

    Args:
        client: connected to the warehouse.
        sql: names tables by placeholders.
        tables: placeholder → the table's name in the warehouse's own SQL.
    """
    sql = translated(sql, str(client.capabilities.sqlglot_dialect))
    for placeholder, name in tables.items():
        sql = sql.replace(placeholder, name)
    return client.execute_sql(sql) or []


class Queries:
    """Queries of a dataset, whose tables may have other names than their resources."""

    def __init__(self, dataset: dlt.Dataset) -> None:
        self._dataset = dataset
        self._stored = {
            name: table
            for schema in dataset.schemas
            for name, table in schema.tables.items()
        }
        self._names = table_names(self._stored)

    def columns(self, table: str) -> Mapping[str, Any]:
        """Return the columns of a table; none if it never had rows."""
        name = self._names.get(table)
        return self._stored[name]["columns"] if name else {}

    def newest_time(self, table: str, now: datetime) -> str:
        """Return the SQL for the time of the newest row, not later than `now`."""
        time = self.row_time(table)
        return f"max(case when {time} <= {literal(now)} then {time} end)"

    def row_time(self, table: str) -> str:
        """Return the SQL for the time of a row: the first cursor column with a value."""
        cursors = (
            VALIDITY[:1] if table == HISTORY else map(column_name, cursors_of(table))
        )
        times = [name for name in cursors if name in self.columns(table)]
        return f"coalesce({', '.join(times)})" if len(times) > 1 else times[0]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query in PostgreSQL's SQL; in SQLite, times are text."""
        tree = parse_one(sql, dialect="postgres")
        for table in tree.find_all(exp.Table):
            name = self._names.get(table.name, table.name)
            if name != table.name:
                alias = table.alias or table.name
                table.replace(exp.to_table(name, alias=alias))
        sql, dialect = tree.sql("postgres"), str(self._dataset.destination_dialect)
        if dialect in _BEGINNING:
            sql = translated(sql, dialect)
        else:
            dialect = "postgres"  # dlt translates it
        rows = self._dataset(sql, cast(Any, dialect)).fetchall()
        return [tuple(row) for row in rows]


def literal(value: datetime | str) -> str:
    """Return a value as a literal of PostgreSQL's SQL."""
    if isinstance(value, datetime):
        return f"timestamptz '{value.isoformat(' ')}'"
    return "'" + value.replace("'", "''") + "'"


def _without_zones(dialect: str) -> Callable[[Any], Any]:
    """Return a function that rewrites an expression of times with zones."""

    def written(template: str, time: Any, form: str = "") -> Any:
        text = template.format(time="placeholder", form=form)
        tree: Any = maybe_parse(text, dialect=dialect).transform(rewrite)
        time = time.transform(rewrite)
        return tree.transform(lambda node: time if node.key == "column" else node)

    def rewrite(node: Any) -> Any:
        if isinstance(node, exp.Cast) and node.to.is_type("timestamptz"):
            if not node.this.is_string:
                return node.this.transform(rewrite)
            time = utc(datetime.fromisoformat(node.this.this)).replace(tzinfo=None)
            text = time.isoformat(" ", "microseconds")
            return rewrite(exp.Literal.string(text))
        if isinstance(node, exp.NullSafeNEQ) and dialect == "sqlite":  # until 3.39
            return exp.not_(exp.Is(**node.args)).transform(rewrite)
        if isinstance(node, exp.AtTimeZone):
            return node.this.transform(rewrite)
        if isinstance(node, exp.TimestampTrunc):
            return written(_BEGINNING[dialect], node.this, _FORMS[str(node.unit)])
        if isinstance(node, exp.Extract) and node.name == "EPOCH":
            return written(_SECONDS[dialect], node.expression)
        if node.is_string:  # SQLAlchemy would take a colon for a parameter
            return exp.Literal.string(node.name.replace(":", "\\:"))
        return node

    return rewrite
