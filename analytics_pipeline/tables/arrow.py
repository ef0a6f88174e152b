"""A page of records as one Arrow table; values that do not fit a column go to `extra`."""

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.tables.schema import ARROW, Table
from analytics_pipeline.values import describe_type, dumps, parse_timestamp

Record = dict[str, Any]

_INTEGER = re.compile("-?[0-9]{1,19}")
_FIRST_TIME, _LAST_TIME = (
    pa.scalar(time, pa.timestamp("us")).value for time in (datetime.min, datetime.max)
)


def to_arrow(
    table: Table, records: Sequence[Record], read_at: datetime
) -> tuple[pa.Table, int]:
    """Return records as an Arrow table of `table.schema`, and how many values did not fit.

    These, and fields without a column, go to the JSON column `extra` by their API names.
    Aliases are renamed in the records.

    Raises:
        UnexpectedAnswer: a field of the key is missing, or does not fit its column.
    """
    for alias, field in table.aliases.items():
        _rename(records, alias, field)
    fields = set().union(*records)
    unknown = sorted(fields - table.types.keys() - table.excluded)
    extra: list[Record] = [
        {name: record[name] for name in unknown if name in record} for record in records
    ]
    mismatches = 0
    arrays = []
    texts = _texts(table, records)
    for field, kind in table.types.items():
        if field in texts:
            array = texts[field]
        elif field not in fields:
            array = pa.nulls(len(records), ARROW[kind])
        else:
            array, misplaced = column(kind, [record.get(field) for record in records])
            mismatches += len(misplaced)
            for row in misplaced:
                extra[row][field] = records[row][field]
        if field in table.key and array.null_count:
            row = array.is_null().index(True).as_py()
            value = describe_type(records[row].get(field))
            raise UnexpectedAnswer(
                f"{table.name}: row {row + 1} of {len(records)} has no usable"
                f" {field!r} ({value}): {describe_type(records[row])}"
            )
        arrays.append(array)
    arrays.append(column("json", [each or None for each in extra])[0])
    arrays.append(pa.repeat(pa.scalar(read_at, ARROW["timestamp"]), len(records)))
    return pa.Table.from_arrays(arrays, schema=table.schema), mismatches


def _texts(table: Table, records: Sequence[Record]) -> dict[str, pa.Array]:
    """Return all text columns at once; none if a value is not text."""
    try:
        texts = pa.array(records, table.texts)
    except pa.ArrowTypeError:
        return {}
    return {field.name: texts.field(field.name) for field in table.texts}


def _rename(records: Sequence[Record], alias: str, field: str) -> None:
    """Rename an alias in records, unless both fields differ."""
    for record in records:
        if alias not in record:
            continue
        value, first = record[alias], record.get(field)
        if value is None or first is None or dumps(value) == dumps(first):
            record[field] = value if first is None else first
            del record[alias]


def newest_copies(rows: pa.Table, key: Sequence[str]) -> pa.Table:
    """Return the last row of each key, in the original order."""
    numbered = rows.select(key).append_column("row", pa.array(range(rows.num_rows)))
    last = numbered.group_by(list(key)).aggregate([("row", "max")])["row_max"]
    return rows if len(last) == rows.num_rows else rows.take(last.sort())


def column(kind: str, values: list[Any]) -> tuple[pa.Array, list[int]]:
    """Return the array, and the indexes of values that do not fit and became null."""
    if (array := _at_once(kind, values)) is not None:
        return array, []
    fitting = [_FIT[kind](value) for value in values]
    pairs = enumerate(zip(values, fitting, strict=True))
    misplaced = [n for n, (value, fit) in pairs if fit is None and value is not None]
    return pa.array(fitting, ARROW[kind]), misplaced


def _at_once(kind: str, values: list[Any]) -> pa.Array | None:
    """Return the array; None if a value is not of the usual type."""
    if kind == "json":
        texts = [None if value is None else dumps(value) for value in values]
        return pa.array(texts, ARROW[kind])
    # pa.array() alone would take 1.5 for 1 and True for 1.0.
    if not {type(None), _USUAL[kind]}.issuperset(map(type, values)):
        return None
    try:
        if kind != "timestamp":
            return pa.array(values, ARROW[kind])
        times = pa.array(values, ARROW["text"]).cast(ARROW[kind])
    except (pa.ArrowInvalid, OverflowError):
        return None
    # Arrow accepts years that Python and databases do not have.
    bounds = pc.min_max(times)
    first, last = bounds["min"].value or 0, bounds["max"].value or 0
    return times if first >= _FIRST_TIME and last <= _LAST_TIME else None


_USUAL = {"text": str, "timestamp": str, "bigint": int, "double": float, "bool": bool}


def _as_text(value: Any) -> str | None:
    return str(value) if type(value) in (str, int) else None


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


_FIT: Mapping[str, Callable[[Any], Any]] = {
    "text": _as_text,
    "timestamp": parse_timestamp,
    "bigint": _as_bigint,
    "double": _as_double,
    "bool": _as_bool,
}
