"""A table and its columns, each declared in one line of text, for Arrow and dlt."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple, Self, cast

import pyarrow as pa
from dlt.common.data_types import TDataType
from dlt.common.normalizers.naming.snake_case import NamingConvention
from dlt.common.schema.typing import (
    C_DLT_LOAD_ID,
    TColumnSchema,
    TReferenceCardinality,
    TTableReference,
)

ARROW = {
    "text": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.string(),
}
"""Type of a column as dlt names it → Arrow type."""
PROJECT_SLUG = "project_slug"
EXTRA = "extra"
READ_AT = "read_at"
GONE_AT = "gone_at"
BINARY = "x-analytics-binary"
"""Hint of key columns, which are compared byte by byte (MariaDB)."""
LOAD_ID = C_DLT_LOAD_ID
_NAMING = NamingConvention()


def column_name(field: str) -> str:
    """Return the column of an API field, by dlt's naming convention."""
    return _NAMING.normalize_identifier(field)


class Column(NamedTuple):
    """A column of a table."""

    name: str
    kind: str
    """Type as dlt names it."""
    description: str
    nullable: bool = True


def parse_columns(lines: str, required: Iterable[str] = ()) -> dict[str, Column]:
    """Parse lines of API field, type and description; return API field → column."""
    columns = {}
    for line in filter(None, lines.splitlines()):
        field, kind, description = line.split(maxsplit=2)
        nullable = field not in required
        columns[field] = Column(column_name(field), kind, description, nullable)
    return columns


def arrow_schema(columns: Iterable[Column]) -> pa.Schema:
    """Return the Arrow schema of columns."""
    return pa.schema(
        [pa.field(each.name, ARROW[each.kind], each.nullable) for each in columns]
    )


def dlt_columns(columns: Iterable[Column]) -> dict[str, TColumnSchema]:
    """Return columns as dlt declares them."""
    return {
        each.name: {
            "name": each.name,
            "data_type": cast(TDataType, each.kind),
            "nullable": each.nullable,
            "description": each.description,
        }
        for each in columns
    }


_OWN = parse_columns("""
extra         json       Fields and values without a column, by the server's names.
read_at       timestamp  When the row was received; if it was read twice, the later copy wins.
""")
# dlt adds these two. Rows are loaded without `gone_at`, so reading a row again clears it.
_GONE_AT = parse_columns("""
gone_at       timestamp  When the server was first seen not to list the row; NULL while it does.
""")
LOAD_ID_COLUMN = dlt_columns(
    parse_columns("""
_dlt_load_id  text       Load that brought the row: _dlt_loads.load_id.
""").values()
)


@dataclass(frozen=True)
class Table:
    """A table, its columns and its properties."""

    name: str
    description: str
    lines: str
    """A line for each column: API field, type, description."""
    key: tuple[str, ...] = ("id",)
    """API fields of the primary key."""
    aliases: Mapping[str, str] = field(default_factory=dict)
    """API field → the field whose column it shares."""
    volatile: str = ""
    """Fields that depend on the time of the request, so `verify` ignores them."""
    references: tuple[TTableReference, ...] = ()
    has_gone_at: bool = False
    """Full scans and sweeps show which rows the server no longer lists."""
    has_credentials: bool = False
    """Rows hold credentials, which are masked."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """Column → tag, as configured by the user."""
    excluded: frozenset[str] = frozenset()
    """API fields that the user has excluded, also from `extra`."""

    def with_tags(self, tags: Mapping[str, str]) -> Self:
        """Return the table with text columns for further tags: column name → tag."""
        return replace(self, tags=tags)

    def without(self, fields: Iterable[str]) -> Self:
        """Return the table without some of its fields."""
        return replace(self, excluded=frozenset(fields))

    @cached_property
    def fields(self) -> dict[str, Column]:
        """API field → column."""
        columns = parse_columns(self.lines, self.key) | {
            name: Column(name, "text", f"Value of the tag {tag!r}.")
            for name, tag in self.tags.items()
        }
        return {f: each for f, each in columns.items() if f not in self.excluded}

    @cached_property
    def types(self) -> dict[str, str]:
        """API field → type of its column."""
        return {field: column.kind for field, column in self.fields.items()}

    @cached_property
    def names(self) -> dict[str, str]:
        """API field → name of its column."""
        return {field: column.name for field, column in self.fields.items()}

    @cached_property
    def texts(self) -> pa.StructType:
        """The text fields, by their API names."""
        return pa.struct(
            [(name, ARROW[kind]) for name, kind in self.types.items() if kind == "text"]
        )

    @cached_property
    def schema(self) -> pa.Schema:
        """The Arrow schema."""
        return arrow_schema([*self.fields.values(), *_OWN.values()])

    @cached_property
    def columns(self) -> dict[str, TColumnSchema]:
        """The columns as dlt declares them."""
        columns = dlt_columns([*self.fields.values(), *_OWN.values()])
        columns[READ_AT]["dedup_sort"] = "desc"
        return columns

    @property
    def hints(self) -> dict[str, Any]:
        """Arguments of `apply_hints`."""
        gone_at = dlt_columns(_GONE_AT.values()) if self.has_gone_at else {}
        return {
            "primary_key": self.primary_key,
            "columns": self.columns | gone_at | LOAD_ID_COLUMN,
            "references": self.references,
            "additional_table_hints": {"description": self.description},
        }

    @cached_property
    def primary_key(self) -> list[str]:
        """The columns of the key."""
        return [column_name(field) for field in self.key]


def reference(
    column: str, table: str, cardinality: TReferenceCardinality = "many_to_one"
) -> TTableReference:
    """Declare that a column contains the id of a row of another table."""
    return {
        "columns": [column],
        "referenced_table": table,
        "referenced_columns": ["id"],
        "cardinality": cardinality,
    }
