"""JSON and times from servers, as values that every warehouse accepts.

orjson does the work. The standard library, which is slower, takes what orjson would
refuse or change silently: integers beyond 64 bits, NaN, lone surrogates, NUL characters,
values nested deeper than 254 levels.
"""

import gc
import json
import math
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, overload

import orjson

from analytics_pipeline.errors import shortened

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Replaces what no database accepts in text: NUL and lone surrogates."""

# Digits become "0", characters that may precede a number ":", all others ".", so that a
# number too long for 64 bits is a substring: many times faster than a regular expression.
_SHAPE = bytes(
    ord("0" if byte in b"0123456789" else ":" if byte in b":,[- \n\r\t" else ".")
    for byte in range(256)
)
_LONG_NUMBER = b":" + b"0" * 19
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")


class NestedTooDeeply(ValueError, RecursionError):
    """JSON that is nested deeper than Python's recursion limit."""


def loads(body: bytes) -> tuple[Any, int]:
    """Parse JSON text; return the value, and how many characters had to be replaced.

    Raises:
        ValueError: the text is not JSON.
        NestedTooDeeply: it is nested deeper than some 900 levels.
    """
    shape = body.translate(_SHAPE)
    try:
        if not (_LONG_NUMBER in shape or shape[:1] == b"0" or b"\\u0000" in body):
            return orjson.loads(body), 0
    except orjson.JSONDecodeError:
        pass
    try:
        return _storable(json.loads(body, parse_constant=str))
    except RecursionError:
        raise NestedTooDeeply("nested too deeply") from None


def nested_value(text: str) -> Any:
    """Return JSON text as the list or object that dlt expects for a JSON column.

    Other text is returned as it is, because dlt parses it itself. What orjson cannot
    write, as dlt will, becomes one JSON string.
    """
    if text[:1] not in ("{", "["):
        return text
    value, _ = loads(text.encode())
    try:
        orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, or nested deeper than 254 levels
        return orjson.dumps(text).decode()
    return value


def dumps(value: Any) -> bytes:
    """Return compact JSON text in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _storable(value: Any) -> tuple[Any, int]:
    """Replace NUL and lone surrogates; return the value, and how many there were."""
    if isinstance(value, str):
        return _UNSTORABLE.subn(REPLACEMENT, value)
    replaced = 0
    if isinstance(value, list):
        items = []
        for item in value:  # a comprehension would take another call for each level
            item, in_item = _storable(item)
            items.append(item)
            replaced += in_item
        return items, replaced
    if isinstance(value, dict):
        clean: dict[str, Any] = {}
        for name, item in value.items():
            name, in_name = _storable(name)
            while name in clean:  # two names became the same
                name += REPLACEMENT
            clean[name], in_item = _storable(item)
            replaced += in_name + in_item
        return clean, replaced
    if isinstance(value, float) and math.isinf(value):
        return str(value), 0  # 1e400, which JSON cannot express
    return value, 0


_gc_lock = threading.Lock()
_gc_thresholds: list[tuple[int, int, int]] = []


@contextmanager
def infrequent_gc() -> Iterator[None]:
    """Let the garbage collector run less often while any thread is inside.

    Otherwise it would take most of the time, although parsed JSON has no cycles.
    """
    with _gc_lock:
        _gc_thresholds.append(gc.get_threshold())
        gc.set_threshold(500_000)
    try:
        yield
    finally:
        with _gc_lock:  # the last thread restores the original threshold
            gc.set_threshold(*_gc_thresholds.pop())


def describe_type(value: Any) -> str:
    """Return the JSON type of a value; for an object, the types of its fields.

    The value itself is not shown, because it may be personal data.
    """
    if not isinstance(value, dict):
        return _type_name(value)
    fields = (f"{name}: {_type_name(item)}" for name, item in value.items())
    return shortened("{" + ", ".join(fields) + "}", 200)


def _type_name(value: Any) -> str:
    names = {dict: "object", list: "array", str: "text", bool: "boolean"}
    names |= {int: "number", float: "number"}
    return names.get(type(value), "null")


def parse_timestamp(value: Any) -> datetime | None:
    """Return the time in ISO text, in UTC; None if the value is not a time.

    Text without a zone is UTC. Fractions finer than microseconds are cut off.
    """
    if not isinstance(value, str):
        return None
    try:
        return utc(datetime.fromisoformat(value))
    except (ValueError, OverflowError):
        return None


@overload
def utc(time: datetime | str) -> datetime: ...
@overload
def utc(time: datetime | str | None) -> datetime | None: ...
def utc(time: datetime | str | None) -> datetime | None:
    """Return the time in UTC; a time without a zone is taken as UTC.

    SQLite returns times as ISO text.
    """
    if time is None:
        return None
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
