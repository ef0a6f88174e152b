"""A page of records as one Arrow table; what does not fit a column goes into `extra`."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NamedTuple

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from analytics_pipeline.errors import MissingField
from analytics_pipeline.tables.schema import ARROW, Table
from analytics_pipeline.values import describe_type, dumps, parse_timestamp

Record = dict[str, Any]


_FIRST_TIME, _LAST_TIME = (
    pa.scalar(time, pa.timestamp("us")).value for time in (datetime.min, datetime.max)
)


class ArrowRows(NamedTuple):
    """Rows of one table."""

    table: pa.Table
    mismatches: int
    """Values that did not fit their column, and went into `extra`."""


def to_arrow(table: Table, records: Sequence[Record], read_at: datetime) -> ArrowRows:
    """Return records as one Arrow table of `table.schema`.

    A value that does not fit its column, and a field that no column is declared for,
    go into the JSON column `extra` under their API names.

    Raises:
        MissingField: a field of the key is missing, or does not fit its column.
    """
    if table.aliases:
        records = [_without_aliases(record, table.aliases) for record in records]
    fields = set().union(*records)
    unknown = sorted(fields - table.types.keys() - table.excluded)
    extra: list[Record | None] = [
        {name: record[name] for name in unknown if name in record} or None
        for record in (records if unknown else [{}] * len(records))
    ]
    mismatches = 0
    arrays = []
    texts = _texts(table, records)
    for field, kind in table.types.items():
        if field in texts:
            array = texts[field]
        elif field not in fields:
            array = _nulls(len(records), kind)
        else:
            values = [record.get(field) for record in records]
            array, misplaced = column(kind, values)
            mismatches += len(misplaced)
            for row in misplaced:
                extra[row] = {**(extra[row] or {}), field: values[row]}
        if field in table.key and array.null_count:
            row = array.is_null().index(True).as_py()
            value = describe_type(records[row].get(field))
            raise MissingField(
                f"{table.name}: row {row + 1} of {len(records)} has no usable"
                f" {field!r} ({value}): {describe_type(records[row])}"
            )
        arrays.append(array)
    arrays.append(column("json", extra)[0])
    arrays.append(pa.repeat(pa.scalar(read_at, ARROW["timestamp"]), len(records)))
    return ArrowRows(pa.Table.from_arrays(arrays, schema=table.schema), mismatches)


@lru_cache
def _nulls(rows: int, kind: str) -> pa.Array:
    """Return a column without values; most pages have as many rows."""
    return pa.nulls(rows, ARROW[kind])


def _texts(table: Table, records: Sequence[Record]) -> dict[str, pa.Array]:
    """Return the columns of text, made all at once; none if a value is no text."""
    try:
        texts = pa.array(records, table.texts)
    except pa.ArrowTypeError:
        return {}
    return {field.name: texts.field(field.name) for field in table.texts}


def _without_aliases(record: Record, aliases: Mapping[str, str]) -> Record:
    """Return a record with its fields' first names, unless both hold different values."""
    for alias, field in aliases.items():
        if alias not in record:
            continue
        value, first = record[alias], record.get(field)
        if value is None or first is None or dumps(value) == dumps(first):
            record = {**record, field: value if first is None else first}
            del record[alias]
    return record


def newest_copies(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the rows of which no later one has the same key, in their order."""
    numbered = rows.select(key).append_column("row", pa.array(range(rows.num_rows)))
    last = numbered.group_by(list(key)).aggregate([("row", "max")])["row_max"]
    return rows if len(last) == rows.num_rows else rows.take(last.sort())


def column(kind: str, values: list[Any]) -> tuple[pa.Array, list[int]]:
    """Return the array and the indexes of values that do not fit (null in the array)."""
    if (array := _fast[kind](values)) is not None:
        return array, []
    fitting = [_fit[kind](value) for value in values]
    misplaced = [
        index
        for index, value in enumerate(values)
        if fitting[index] is None and value is not None
    ]
    return pa.array(fitting, ARROW[kind]), misplaced


# A column whose values are all of the expected type is built at once; None tells
# that they are not, and that each value has to be looked at.


def _of(kind: str, expected: type) -> Callable[[list[Any]], pa.Array | None]:
    allowed = {type(None), expected}

    def build(values: list[Any]) -> pa.Array | None:
        # pa.array() alone would take 1.5 for 1 and True for 1.0.
        if not allowed.issuperset(map(type, values)):
            return None
        try:
            return pa.array(values, ARROW[kind])
        except (pa.ArrowInvalid, OverflowError):
            return None

    return build


def _text(values: list[Any]) -> pa.Array | None:
    # Of what JSON has it takes text alone.
    try:
        return pa.array(values, ARROW["text"])
    except pa.ArrowTypeError:
        return None


def _timestamps(values: list[Any]) -> pa.Array | None:
    if (texts := _text(values)) is None:
        return None
    try:
        times = texts.cast(ARROW["timestamp"])
    except pa.ArrowInvalid:
        return None
    # Arrow has years that Python and databases do not have.
    bounds = pc.min_max(times)
    first, last = bounds["min"].value or 0, bounds["max"].value or 0
    return times if first >= _FIRST_TIME and last <= _LAST_TIME else None


def _json(values: Iterable[Any]) -> pa.Array:
    try:
        texts = [None if value is None else orjson.dumps(value) for value in values]
    except TypeError:
        texts = [None if value is None else dumps(value) for value in values]
    return pa.array(texts, ARROW["json"])


_fast: Mapping[str, Callable[[list[Any]], pa.Array | None]] = {
    "text": _text,
    "timestamp": _timestamps,
    "bigint": _of("bigint", int),
    "double": _of("double", float),
    "bool": _of("bool", bool),
    "json": _json,
}


_INTEGER = re.compile("-?[0-9]{1,19}")


def _as_text(value: Any) -> str | None:
    if isinstance(value, str):
        return value
    return str(value) if type(value) is int else None


def _as_bigint(value: Any) -> int | None:
    if (isinstance(value, str) and _INTEGER.fullmatch(value)) or (
        isinstance(value, float) and value.is_integer() and abs(value) < 2**53
    ):
        value = int(value)
    return value if type(value) is int and -(2**63) <= value < 2**63 else None


def _as_double(value: Any) -> float | None:
    if type(value) is int:
        return float(value) if abs(value) <= 2**53 else None
    return value if isinstance(value, float) else None


def _as_bool(value: Any) -> bool | None:
    return value if isinstance(value, bool) else None


_fit: Mapping[str, Callable[[Any], Any]] = {
    "text": _as_text,
    "timestamp": parse_timestamp,
    "bigint": _as_bigint,
    "double": _as_double,
    "bool": _as_bool,
}
