"""Compare the warehouse with a second dataset, in one SQL statement per table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

import dlt
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.sql_client import SqlClientBase
from dlt.extract import DltSource

from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.loading.second_dataset import (
    StoredTable,
    connected,
    stored_table,
)
from analytics_pipeline.loading.sql import execute, literal
from analytics_pipeline.loading.verification import Counts, Example, Verification
from analytics_pipeline.reading import Extent
from analytics_pipeline.run import Run
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import (
    GONE_AT,
    LOAD_ID,
    PROJECT_SLUG,
    READ_AT,
    column_name,
)

EXAMPLES = 10
"""Rows of each kind that are listed."""
MOST_PARTS = 256
"""Into which a table is divided that is too large for DuckDB's memory."""
CONDITIONS = {
    "missing": "copies = 0",
    "doubled": "copies > 1",
    "different": "is_different = 1",
    "gone": "at_server = 0",
}


def compare(
    pipeline: dlt.Pipeline,
    second: dlt.Pipeline,
    source: DltSource,
    run: Run,
    began: datetime,
) -> Verification:
    """Compare what was loaded into the second dataset with the first.

    Args:
        pipeline: its dataset is the warehouse.
        second: from `second_pipeline`, loaded.
        source: what was loaded.
        run: how it was loaded. Rows that came to the warehouse since are ignored.
        began: rows that the server dates later are ignored.
    """
    unread = run.failures | run.refusals
    found = Verification(
        failed={title: str(error) for title, error in run.failed.items()},
        skipped={k: str(e) for k, e in unread.items() if k not in run.failed},
    )
    schema = source.schema.name
    with connected(pipeline, second, schema) as client:
        for name in (name for name in TABLES if name in run.extents):
            resource = source.resources[name]
            lists = {
                _title(key): reader
                for (table, key), reader in run.readers.items()
                if table == name and reader.title not in unread
            }
            found.tables[name], found.examples[name] = {}, {}
            if not lists:
                continue
            comparison = _Comparison(
                client,
                next(iter(lists.values())).name.endpoint,
                [*cast(Mapping[str, Any], resource.columns)],
                stored_table(pipeline, client, schema, str(resource.table_name)),
                stored_table(second, client, schema, str(resource.table_name)),
                {title: each.state.get("project_id") for title, each in lists.items()},
                run.extents[name],
                began,
                run.began_at,
            )
            found.tables[name] = comparison.counts()
            for kind in CONDITIONS:
                if any(getattr(each, kind) for each in found.tables[name].values()):
                    found.examples[name][kind] = comparison.examples(kind)
    return found


def _title(key: str) -> str:
    """Return the project of a bookmark's key, or its organization."""
    organization, _, project = key.partition(" ")[2].partition("/")
    return project or organization


@dataclass
class _Comparison:
    """One table of both datasets."""

    client: SqlClientBase[Any]
    endpoint: Endpoint
    declared: Sequence[str]
    """Columns of the source's table; others in the warehouse are not compared."""
    warehouse: StoredTable
    server: StoredTable
    """The rows that were just loaded from the server."""
    lists: Mapping[str, str | None]
    """Project (or organization) of each list that was read → the project's id, if known."""
    extent: Extent
    began: datetime
    """Rows that the server dates later are ignored, unless the warehouse has them."""
    started: datetime
    """Rows that came to the warehouse later are ignored."""
    parts: int = 1
    """The keys are compared in so many queries."""

    def counts(self) -> dict[str, Counts]:
        """Return the counts of each list."""
        found = {title: Counts() for title in self.lists}
        if not self._sides:
            return found
        for title, *numbers in self._in_parts(
            "select of_list, sum(at_server), sum(copies),"
            " sum(case when copies = 0 then 1 else 0 end),"
            " sum(case when copies > 1 then copies - 1 else 0 end),"
            " sum(is_different), sum(1 - at_server)",
            "group by of_list",
        ):
            found[title].add(Counts(*map(int, numbers)))
        return found

    def examples(self, kind: str) -> list[Example]:
        """Return the first rows of a kind, ordered by key."""
        key = ", ".join(self._key)
        rows = self._in_parts(
            f"select of_list, {key}",
            f"where {CONDITIONS[kind]} order by {key} limit {EXAMPLES}",
        )
        if self.parts > 1:
            rows = sorted(rows, key=lambda row: row[1:])[:EXAMPLES]
        columns: dict[Any, tuple[str, ...]] = {}
        if kind == "different":
            columns = self._differing({tuple(row[1:]) for row in rows})
        return [
            Example(title, " ".join(values), columns.get(tuple(values), ()))
            for title, *values in rows
        ]

    def _in_parts(self, selection: str, rest: str) -> list[list[Any]]:
        """Return the rows of a query of the keys, which selects `of_list` first."""
        titles, rows = [*self.lists], list[Sequence[Any]]()
        try:
            for part in range(self.parts):
                found = f"({self._keys(part)}) as found"
                rows += self._execute(f"{selection} from {found} {rest}")
        except DatabaseException as error:
            if "Out of Memory" not in str(error) or self.parts >= MOST_PARTS:
                raise
            self.parts *= 4
            return self._in_parts(selection, rest)
        return [[titles[int(number)], *values] for number, *values in rows]

    def _differing(self, keys: set[tuple[str, ...]]) -> dict[Any, tuple[str, ...]]:
        """Return the columns in which the copies of each key differ."""
        ids = ", ".join({literal(key[-1]) for key in keys})
        copies: dict[Any, list[Any]] = {}
        for side in self._sides:
            for row in self._execute(
                f"select * from ({self._rows(side, columns=self._columns)}) as found"
                f" where {self._key[-1]} in ({ids})"
            ):
                width = len(self._key)
                copies.setdefault(tuple(row[:width]), []).append(row[width:])
        return {
            key: tuple(
                name
                for name, *values in zip(self._columns, *copies[key], strict=True)
                if len({*values}) > 1
            )
            for key in keys
        }

    def _keys(self, part: int) -> str:
        """Return the query for each key of either side, and what is different about it."""
        key = ", ".join(self._key)
        sides = " union all ".join(
            f"select {key}, {int(side == 'server')} as at_server, row_time, came_at,"
            f" of_list, content from ({self._rows(side, part)}) as {side}"
            for side in self._sides
        )
        return f"""
            select * from (
                select {key}, max(at_server) as at_server, sum(1 - at_server) as copies,
                    case when max(at_server) = 1 and max(content) <> min(content)
                        then 1 else 0 end as is_different,
                    coalesce(max(case when at_server = 1 then of_list end), max(of_list))
                        as of_list,
                    max(came_at) as came_at,
                    max(case when at_server = 1 then row_time end) as server_time,
                    max(case when at_server = 0 then row_time end) as warehouse_time
                from ({sides}) as both_sides
                group by {key}
            ) as keys_of_both
            where of_list is not null
                and (came_at is null or came_at < {literal(self.started)})
                and (at_server = 1 and (server_time is null
                        or server_time < {literal(self.began)}
                        or server_time = warehouse_time)
                    or at_server = 0 and {self._is_listed})
        """

    @property
    def _sides(self) -> list[str]:
        return [name for name in ("server", "warehouse") if getattr(self, name).columns]

    def _rows(self, side: str, part: int = 0, columns: Sequence[str] = ()) -> str:
        """Return the query for a side's rows: these columns as text, or their hash."""
        table: StoredTable = getattr(self, side)
        values = dict(zip(self._key, self._key, strict=True))
        if columns:
            values |= {f"c{n}": self._text(table, c) for n, c in enumerate(columns)}
        else:
            is_new = side == "server" or READ_AT not in table.columns
            values |= {
                "row_time": self._quoted(column_name(self.endpoint.replication_key)),
                "came_at": "cast(null as timestamptz)" if is_new else READ_AT,
                "of_list": self._list(table),
                "content": self._content(table),
            }
        names = ", ".join(values)
        if table.keeps_versions:
            key = ", ".join(self._key)
            order = f"partition by {key} order by {READ_AT} desc nulls last"
            values["copy_number"] = f"row_number() over ({order})"
        selected = ", ".join(f"{value} as {name}" for name, value in values.items())
        rows = f"select {selected} from {side}_rows"
        if self.parts > 1 and not columns:
            rows += f" where hash({self._key[-1]}) % {self.parts} = {part}"
        if table.keeps_versions:
            rows = f"select {names} from ({rows}) as copies where copy_number = 1"
        return rows

    def _text(self, table: StoredTable, column: str) -> str:
        if column not in table.columns:
            return "cast(null as text)"
        return f"cast({self._quoted(column)} as text)"

    def _content(self, table: StoredTable) -> str:
        """Return the expression for the hash of a row's columns."""
        dialect = self.client.capabilities.sqlglot_dialect
        texts = [self._text(table, column) for column in self._columns]
        if dialect == "duckdb":
            return f"hash({', '.join(texts) or 0})"
        quoted = (f"'''' || replace({text}, '''', '''''') || ''''" for text in texts)
        content = " || ".join(f"coalesce({each}, 'null')" for each in quoted) or "''"
        return content if dialect == "sqlite" else f"md5({content})"

    def _list(self, table: StoredTable) -> str:
        """Return the expression for the list's number that a row belongs to, or null.

        DuckDB would hold the longer ones of the largest texts of groups beyond its limit.
        """
        if not self.endpoint.by_project:
            return "0"
        id = self._text(table, "id" if self.endpoint.single else "project_id")
        slug = self._text(table, PROJECT_SLUG)
        cases = []
        for number, (title, project_id) in enumerate(self.lists.items()):
            condition = (
                f"{id} = {literal(project_id or title)} or {slug} = {literal(title)}"
            )
            if project_id:  # another project may have had this slug
                condition += f" and {id} is null"
            cases.append(f"when {condition} then {number}")
        return f"case {' '.join(cases)} end"

    @property
    def _is_listed(self) -> str:
        """The condition for rows of the warehouse that the server would list."""
        since, until = self.extent.since, self.extent.until
        if self.endpoint.full_scan:
            since = until = None
        elif until and (self.endpoint.is_swept or self.endpoint.refresh_window):
            return "1 = 0"  # their time may have changed
        if self.endpoint.listed_for:
            oldest = datetime.now(UTC) - self.endpoint.listed_for
            since = max(since or oldest, oldest)
        conditions = [f"warehouse_time >= {literal(since)}"] if since else []
        conditions += [f"warehouse_time < {literal(until)}"] if until else []
        return " and ".join(conditions) or "1 = 1"

    @property
    def _columns(self) -> list[str]:
        """The columns to compare."""
        table = TABLES[self.endpoint.table]
        ignored = {*table.primary_key, *map(column_name, table.volatile.split())}
        ignored |= {READ_AT, GONE_AT, LOAD_ID}
        known = self.server.columns - ignored
        return [name for name in self.declared if name in known]

    @property
    def _key(self) -> list[str]:
        return [self._quoted(name) for name in TABLES[self.endpoint.table].primary_key]

    def _quoted(self, name: str) -> str:
        return f'"{self.client.capabilities.casefold_identifier(name)}"'

    def _execute(self, sql: str) -> Sequence[Sequence[Any]]:
        tables = {f"{n}_rows": getattr(self, n).name for n in ("warehouse", "server")}
        return execute(self.client, sql, tables)
