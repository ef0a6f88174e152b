"""Queries of the warehouse, written once in PostgreSQL's SQL, which dlt translates.

What it does not translate is how SQLite, MariaDB and MySQL handle times: they have
columns without a zone, which hold UTC, and SQLite's are text.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import dlt
from dlt.destinations.sql_client import SqlClientBase
from sqlglot import exp, maybe_parse, parse_one

from analytics_pipeline.client.endpoints import cursors_of
from analytics_pipeline.loading.loaded_lists import table_names
from analytics_pipeline.tables.history import HISTORY, VALIDITY
from analytics_pipeline.tables.schema import column_name
from analytics_pipeline.values import utc

_BEGINNING = {
    "sqlite": "strftime('{form}', {time})",
    "mysql": "date_format({time}, '{form}')",
}
"""Of the day or hour that a time is in, as text."""
_FORMS = {"DAY": "%Y-%m-%d 00:00:00", "HOUR": "%Y-%m-%d %H:00:00"}
_SECONDS = {
    "sqlite": "cast(strftime('%s', {time}) as integer)",
    "mysql": "timestampdiff(microsecond, '1970-01-01', {time}) / 1000000.0",
}
"""Since 1970; of SQLite whole ones."""


def ask(dataset: dlt.Dataset, sql: str) -> dlt.Relation:
    """Return the answer to a query; in SQLite's, times are text."""
    dialect: Any = str(dataset.destination_dialect)
    if dialect not in _BEGINNING:
        return dataset(sql, "postgres")
    return dataset(translated(sql, dialect), dialect)


def translated(sql: str, dialect: str) -> str:
    """Return a query in the SQL of another dialect."""
    tree: Any = parse_one(sql, dialect="postgres")
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
    """Asks a dataset, in which tables may have other names than their resources."""

    def __init__(self, dataset: dlt.Dataset) -> None:
        self._dataset = dataset
        self._stored = {
            name: table
            for schema in dataset.schemas
            for name, table in schema.tables.items()
        }
        self._names = table_names(self._stored)

    def columns(self, table: str) -> Mapping[str, Any]:
        """Return the columns of a resource's table; none if it never had rows."""
        name = self._names.get(table)
        return self._stored[name]["columns"] if name else {}

    def newest_time(self, table: str, now: datetime) -> str:
        """Return the SQL for the time of the newest row, not later than `now`."""
        time = self.row_time(table)
        return f"max(case when {time} <= {literal(now)} then {time} end)"

    def row_time(self, table: str) -> str:
        """Return the SQL for the time of a row: the first cursor of an API with a value."""
        cursors = (
            VALIDITY[:1] if table == HISTORY else map(column_name, cursors_of(table))
        )
        times = [name for name in cursors if name in self.columns(table)]
        return f"coalesce({', '.join(times)})" if len(times) > 1 else times[0]

    def ask(self, sql: str) -> list[tuple[Any, ...]]:
        """Return the rows of a query in PostgreSQL's SQL, which names resources."""
        tree = parse_one(sql, dialect="postgres")
        for table in tree.find_all(exp.Table):
            name = self._names.get(table.name, table.name)
            if name != table.name:
                alias = table.alias or table.name
                table.replace(exp.to_table(name, alias=alias))
        rows = ask(self._dataset, tree.sql("postgres")).fetchall()
        return [tuple(row) for row in rows]


def literal(value: datetime | str) -> str:
    """Return a value as it stands in PostgreSQL's SQL."""
    if isinstance(value, datetime):
        return f"timestamptz '{value.isoformat(' ')}'"
    return "'" + value.replace("'", "''") + "'"


def _without_zones(dialect: str) -> Callable[[Any], Any]:
    """Return what rewrites an expression of times with zones for such a destination."""

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
        if node.is_string:  # SQLAlchemy takes a colon for the beginning of a name
            return exp.Literal.string(node.name.replace(":", "\\:"))
        return node

    return rewrite
