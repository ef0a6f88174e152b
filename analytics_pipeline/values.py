"""JSON and times: what servers send, as values that every warehouse takes.

orjson does the work. What it refuses, or would change in silence, goes the slow way
through the standard library: integers beyond 64 bits, NaN, lone surrogates, NUL
characters, values nested deeper than 254 levels.
"""

import gc
import json
import math
import re
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any, overload

import orjson

from analytics_pipeline.errors import shortened

REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
"""Stands for what no database takes in text: NUL and lone surrogates."""

# Digits become "0", what may stand before a number ":", all else ".": so a number too
# long for 64 bits is a substring, found many times faster than by an expression.
_SHAPE = bytes(
    ord("0" if byte in b"0123456789" else ":" if byte in b":,[- \n\r\t" else ".")
    for byte in range(256)
)
_LONG_NUMBER = b":" + b"0" * 19
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_DEEPEST = 4096
_DEEP = 200
"""Brackets of a text, below which it is nested no deeper than orjson writes."""
_MANY_VALUES = 500_000
_recursion = threading.RLock()


def loads(body: bytes) -> tuple[Any, int]:
    """Parse JSON text; return the value, and how many characters had to be replaced.

    Raises:
        ValueError: the text is not JSON, or nested deeper than some 2,000 levels.
    """
    shape = body.translate(_SHAPE)
    if _LONG_NUMBER in shape or shape.startswith(b"0") or b"\\u0000" in body:
        return _loads_slowly(body)
    try:
        return orjson.loads(body), 0
    except orjson.JSONDecodeError:
        return _loads_slowly(body)


def nested_value(text: str) -> Any:
    """Return what JSON text says, as dlt takes it for a column of JSON.

    dlt writes by orjson, so integers beyond 64 bits become text, and so does all of a
    value that is nested too deeply. What is neither list nor object stays JSON text,
    which dlt parses itself.
    """
    if text[:1] not in ("{", "["):
        return text
    body = text.encode()
    if _LONG_NUMBER in body.translate(_SHAPE):
        with deep_recursion():
            value = json.loads(text, parse_int=_short_integer)
    else:
        value = loads(body)[0]
    if text.count("[") + text.count("{") > _DEEP:
        try:
            orjson.dumps(value)
        except TypeError:
            return orjson.dumps(text).decode()
    return value


def dumps(value: Any) -> bytes:
    """Return compact JSON text in UTF-8."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, or nested deeper than 254 levels
        with deep_recursion():
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode()


def _loads_slowly(body: bytes) -> tuple[Any, int]:
    try:
        with deep_recursion():
            value = json.loads(body, parse_constant=str, parse_int=_integer)
            return _storable(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _integer(text: str) -> int | str:
    """Return the integer; as text where it is longer than Python has to read."""
    is_long = len(text) > sys.int_info.str_digits_check_threshold
    return text if is_long else int(text)


def _short_integer(text: str) -> int | str:
    """Return the integer; as text where it is longer than 64 bits."""
    is_long = len(text) > 20 or not -(2**63) <= int(text) < 2**64
    return text if is_long else int(text)


def _storable(value: Any) -> tuple[Any, int]:
    """Replace NUL and lone surrogates; return the value, and how many there were."""
    if isinstance(value, str):
        return _UNSTORABLE.subn(REPLACEMENT, value)
    if isinstance(value, list):
        pairs = [_storable(item) for item in value]
        return [item for item, _ in pairs], sum(count for _, count in pairs)
    if isinstance(value, dict):
        clean: dict[str, Any] = {}
        replaced = 0
        for name, item in value.items():
            name, in_name = _storable(name)
            while name in clean:  # two names became one; none may lose its value
                name += REPLACEMENT
            clean[name], in_item = _storable(item)
            replaced += in_name + in_item
        return clean, replaced
    if isinstance(value, float) and math.isinf(value):
        return str(value), 0  # 1e400: no JSON number can say it
    return value, 0


@contextmanager
def deep_recursion() -> Iterator[None]:
    """Let functions recurse deeper than Python's thousand calls."""
    with _recursion:
        limit = sys.getrecursionlimit()
        sys.setrecursionlimit(limit + _DEEPEST)
        try:
            yield
        finally:
            sys.setrecursionlimit(limit)


@contextmanager
def infrequent_gc() -> Iterator[None]:
    """Let the garbage collector run seldom while any thread is inside.

    It would take most of the time: parsed JSON has no cycles for it to find, but many
    values for it to look at.
    """
    with _collector.lock:
        if not _collector.users:
            _collector.thresholds = gc.get_threshold()
            gc.set_threshold(_MANY_VALUES)
        _collector.users += 1
    try:
        yield
    finally:
        with _collector.lock:
            _collector.users -= 1
            if not _collector.users:
                gc.set_threshold(*_collector.thresholds)


class _Collector:
    """How many are inside `infrequent_gc`, and the thresholds to go back to."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.users = 0
        self.thresholds = gc.get_threshold()


_collector = _Collector()


def describe_type(value: Any) -> str:
    """Return the type of a value as JSON calls it; of an object, its fields with theirs.

    Never a value: it may be personal data.
    """
    if isinstance(value, dict):
        fields = ", ".join(
            f"{name}: {_type_name(item)}" for name, item in value.items()
        )
        return shortened("{" + fields + "}", 200)
    return _type_name(value)


def _type_name(value: Any) -> str:
    if isinstance(value, int | float) and not isinstance(value, bool):
        return "number"
    names = {dict: "object", list: "array", str: "text", bool: "boolean"}
    return names.get(type(value), "null")


def parse_timestamp(value: Any) -> datetime | None:
    """Return the time that ISO text says, in UTC; None where it says none.

    Text without a zone is UTC. What is finer than microseconds is cut.
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
    """Return the time in UTC; one without a zone is UTC already.

    It may be ISO text, as SQLite has times.
    """
    if time is None:
        return None
    if isinstance(time, str):
        time = datetime.fromisoformat(time)
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time.astimezone(UTC)
