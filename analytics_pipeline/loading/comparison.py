"""Rows of one table from two sides, compared by key and by value.

Both sides are kept as hashes in a DuckDB file, so memory does not grow with their number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple, Self

import duckdb
import pyarrow as pa

from analytics_pipeline.tables.schema import READ_AT, Table, column_name
from analytics_pipeline.tables.values import canonical_json, utc

Side = Literal["server", "warehouse"]
Kind = Literal["missing", "doubled", "different", "gone"]
KINDS: tuple[Kind, ...] = ("missing", "doubled", "different", "gone")
EXAMPLES = 10
"""Keys of each kind that are named."""
MOST_KEYS = 100_000
"""More keys than that are not held in memory."""
KEYS_AT_ONCE = 10_000
MEMORY, MOST_MEMORY = "30MB", "1GB"
"""What DuckDB may take, while it can go on with files; and if it cannot."""


@dataclass
class Counts:
    """Numbers of rows."""

    server: int = 0
    warehouse: int = 0
    missing: int = 0
    """At the server, and not in the warehouse."""
    doubled: int = 0
    """In the warehouse, beyond the first row of a key."""
    different: int = 0
    """On both sides, with other values."""
    gone: int = 0
    """In the warehouse, and not at the server any more: no fault of anybody's."""

    @property
    def is_equal(self) -> bool:
        """The warehouse holds what the server shows."""
        return not (self.missing or self.doubled or self.different)

    def add(self, other: "Counts") -> None:
        """Add the numbers of another list."""
        for each in fields(self):
            total = getattr(self, each.name) + getattr(other, each.name)
            setattr(self, each.name, total)


class Example(NamedTuple):
    """A row that differs."""

    project: str
    key: str
    columns: tuple[str, ...] = ()
    """In which it differs; or, of a doubled one, none."""


class Affected(NamedTuple):
    """What would have to be read again."""

    ids: list[str] | None
    """None: too many to name."""
    span: tuple[datetime, datetime] | None
    """Times of the earliest and the latest of them; None: not all have one."""
    gone: list[str]
    """Ids of rows that are doubled, but cannot be read again."""


class Comparison:
    """The rows of one table on both sides.

    Args:
        folder: for the files.
        table: which one.
        time: column that dates its rows.
        keeps_versions: the warehouse cannot replace rows, so only the newest one counts.
    """

    def __init__(
        self,
        folder: Path,
        table: Table,
        time: str,
        *,
        keeps_versions: bool = False,
    ) -> None:
        self.table = table
        self.time = time
        self._keeps_versions = keeps_versions
        volatile = map(column_name, table.volatile.split())
        not_compared = {*table.primary_key, *volatile, READ_AT}
        self.columns = [name for name in table.schema.names if name not in not_compared]
        self._database = duckdb.connect(str(folder / f"{table.name}.duckdb"))
        self._database.execute(
            f"set memory_limit = '{MEMORY}'; set threads = 1;"
            " set enable_progress_bar = false; set preserve_insertion_order = false;"
            " set TimeZone = 'UTC'"
        )
        self._database.execute("set temp_directory = ?", [str(folder)])
        for side in ("server", "warehouse"):
            self._database.execute(
                f"create table {side} (project text, key text, id text, time timestamptz,"
                " read_at timestamptz, late bool, in_span bool, hashes ubigint[], hash ubigint)"
            )
        self._database.execute(
            "create table result (project text, key text, id text, time timestamptz,"
            " at_server bool, copies bigint, missing bool, doubled bool, different bool,"
            " gone bool)"
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def add(
        self,
        side: Side,
        rows: pa.Table,
        projects: Sequence[str | None],
        left_aside: tuple[datetime, datetime],
        in_span: Sequence[bool] | None = None,
    ) -> None:
        """Take rows of one side.

        Args:
            side: where they are from.
            rows: with the columns of `table.schema`.
            projects: the project of each row; those without one are left out.
            left_aside: a span; rows that the server dates so, or that another load has
                brought to the warehouse then, are not held against anybody.
            in_span: of each row, whether it was looked for on the other side; None: all
                were.
        """
        batch = pa.table(
            {
                **{name: _comparable(self.table, rows, name) for name in self.columns},
                **{f"key_{name}": rows[name] for name in self.table.primary_key},
                "time_": rows[self.time],
                "read_at_": rows[READ_AT],
                "project_": pa.array(projects, pa.string()),
                "in_span_": pa.array(in_span or [True] * rows.num_rows, pa.bool_()),
            }
        )
        key = " || ' ' || ".join(f"key_{name}" for name in self.table.primary_key)
        hashes = ", ".join(f'hash("{name}")' for name in self.columns)
        dated = "time_" if side == "server" else "read_at_"
        self._database.register("batch", batch)
        self._execute(
            f"insert into {side} select project_, {key}, key_id, time_, read_at_,"
            f" coalesce({dated} between ? and ?, false), in_span_, [{hashes}] as hashes,"
            " hash(hashes) from batch where project_ is not null",
            [*left_aside],
        )
        self._database.unregister("batch")

    def finish(self, projects: Sequence[str]) -> Mapping[str, Counts]:
        """Compare the rows of some projects; return the numbers of each."""
        (rows,) = self._one(
            "select greatest((select count(*) from server),"
            " (select count(*) from warehouse))"
        )
        parts = rows // KEYS_AT_ONCE + 1
        for part in range(parts):
            self._compare(f"hash(key) % {parts} = {part}", projects)
        found = self._database.execute("""
            select project, count(*) filter (at_server), sum(copies),
                count(*) filter (missing), sum(copies - 1) filter (doubled),
                count(*) filter (different), count(*) filter (gone)
            from result group by project order by project
        """).fetchall()
        return {
            project: Counts(*(int(number or 0) for number in numbers))
            for project, *numbers in found
        }

    def _compare(self, part: str, projects: Sequence[str]) -> None:
        """Add a part of the keys to the table of results."""
        copies = "1" if self._keeps_versions else "count(*)"
        self._execute(
            f"""
            insert into result
            with s as (
                select key, min(project) as project, min(id) as id, max(time) as time,
                    bool_or(late) as late
                from server where {part} group by key
            ), w as (
                select key, min(project) as project, min(id) as id,
                    bool_or(late) as late, bool_or(in_span) as in_span,
                    {copies} as copies,
                    coalesce(arg_max(hash, read_at), min(hash)) as hash,
                    coalesce(arg_max(time, read_at), max(time)) as time
                from warehouse where {part} group by key
            ), same as (
                select distinct key, hash from server where {part}
            )
            select coalesce(s.project, w.project) as project, coalesce(s.key, w.key) as key,
                coalesce(s.id, w.id) as id, s.time, s.key is not null as at_server,
                coalesce(w.copies, 0) as copies,
                s.key is not null and w.key is null as missing,
                coalesce(w.copies > 1, false) as doubled,
                s.key is not null and w.key is not null and same.key is null
                    as different,
                s.key is null as gone
            from s full join w using (key)
            left join same on same.key = w.key and same.hash = w.hash
            where not coalesce(s.late and s.time is distinct from w.time, false)
                and not coalesce(w.late, false)
                and (s.key is not null or w.in_span)
                and list_contains(?, coalesce(s.project, w.project))
            """,
            [[*projects]],
        )

    def _execute(self, statement: str, values: list[Any]) -> None:
        """Execute a statement, with more memory where the usual is not enough."""
        try:
            self._database.execute(statement, values)
        except duckdb.OutOfMemoryException:
            self._database.execute(f"set memory_limit = '{MOST_MEMORY}'")
            self._database.execute(statement, values)

    def examples(self, kind: Kind) -> list[Example]:
        """Return the first rows of a kind, by their keys."""
        rows = self._database.execute(
            f"select project, key from result where {kind} order by key limit ?",
            [EXAMPLES],
        ).fetchall()
        is_told = kind == "different"
        return [
            Example(project, key, self._differing(key) if is_told else ())
            for project, key in rows
        ]

    def _differing(self, key: str) -> tuple[str, ...]:
        """Return the columns in which the row of a key differs from the server's."""
        query = "select hashes from {} where key = ? order by read_at desc"
        server, warehouse = (
            [
                row[0]
                for row in self._database.execute(query.format(side), [key]).fetchall()
            ]
            for side in ("server", "warehouse")
        )
        variants = [
            tuple(
                name
                for name, a, b in zip(self.columns, each, warehouse[0], strict=True)
                if a != b
            )
            for each in server
        ]
        return min(variants, key=len)

    def affected(self) -> Affected | None:
        """Return what has to be read again to make both sides equal; None: nothing."""
        faulty = "at_server and (missing or doubled or different)"
        count, dated, since, until = self._one(
            f"select count(*), count(time), min(time), max(time) from result where {faulty}"
        )
        alone = self._ids("doubled and gone")
        if not count and not alone:
            return None
        return Affected(
            ids=self._ids(faulty) if count <= MOST_KEYS else None,
            span=(utc(since), utc(until)) if count == dated and count else None,
            gone=alone,
        )

    def _ids(self, condition: str) -> list[str]:
        query = f"select distinct id from result where {condition} limit ?"
        return [row[0] for row in self._database.execute(query, [MOST_KEYS]).fetchall()]

    def _one(self, query: str) -> tuple[Any, ...]:
        row = self._database.execute(query).fetchone()
        assert row
        return row


def _comparable(table: Table, rows: pa.Table, column: str) -> pa.Array:
    """Return a column in a form that is the same for equal values."""
    kind = table.columns[column]["data_type"]
    if column not in rows.column_names:
        return pa.nulls(rows.num_rows, table.schema.field(column).type)
    values = rows[column].cast(table.schema.field(column).type)
    if kind != "json":
        return values
    return pa.array([canonical_json(text) for text in values.to_pylist()], pa.string())
