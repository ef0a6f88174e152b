"""Values as JSON has them → one Arrow column of a declared type."""

import re
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import Any, overload

import orjson
import pyarrow as pa
import pyarrow.compute as pc

from analytics_pipeline import jsontext

ARROW = {
    "text": pa.string(),
    "timestamp": pa.timestamp("us", "UTC"),
    "bigint": pa.int64(),
    "double": pa.float64(),
    "bool": pa.bool_(),
    "json": pa.string(),
}


def moment(value: Any) -> datetime | None:
    """The time that ISO text says, in UTC; None when it says none.

    Without a zone it is UTC. Finer than microseconds is cut.
    """
    if not isinstance(value, str):
        return None
    try:
        return utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        return None


@overload
def utc(time: datetime) -> datetime: ...
@overload
def utc(time: datetime | None) -> datetime | None: ...
def utc(time: datetime | None) -> datetime | None:
    """A time without zone is UTC."""
    if time is None:
        return None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)


def column(kind: str, values: list[Any]) -> tuple[pa.Array, list[int]]:
    """The column, and the places of the values that do not fit it; there it is null."""
    if (array := _fast[kind](values)) is not None:
        return array, []
    fitting = [_fit[kind](value) for value in values]
    misfits = [
        place
        for place, value in enumerate(values)
        if fitting[place] is None and value is not None
    ]
    return pa.array(fitting, ARROW[kind]), misfits


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


_text = _of("text", str)


def _timestamps(values: list[Any]) -> pa.Array | None:
    if (texts := _text(values)) is None:
        return None
    try:
        times = texts.cast(ARROW["timestamp"])
        # Overflows where Arrow took a year that Python and databases do not have.
        pc.min_max(times).as_py()
    except (pa.ArrowInvalid, OverflowError):
        return None
    return times


def _json(values: Iterable[Any]) -> pa.Array:
    try:
        texts = [None if value is None else orjson.dumps(value) for value in values]
    except TypeError:
        texts = [None if value is None else jsontext.dumps(value) for value in values]
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
    if (
        isinstance(value, str)
        and _INTEGER.fullmatch(value)
        or isinstance(value, float)
        and value.is_integer()
        and abs(value) < 2**53
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
    "timestamp": moment,
    "bigint": _as_bigint,
    "double": _as_double,
    "bool": _as_bool,
}
