"""JSON as servers send it to JSON text that every warehouse takes.

orjson does the work. What it refuses or would change without a word goes the slow
way through the standard library: integers beyond 64 bits, NaN, lone surrogates,
NUL characters, values nested deeper than 254 levels.
"""

import gc
import json
import math
import re
import sys
import threading
from typing import Any

import orjson

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
_MANY_VALUES = 500_000
_recursion = threading.RLock()


def loads(body: bytes) -> tuple[Any, int]:
    """The value of a JSON text, and how many characters had to be replaced.

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


def dumps(value: Any) -> bytes:
    """Compact JSON text in UTF-8, the same for the same value."""
    try:
        return orjson.dumps(value)
    except TypeError:  # integers beyond 64 bits, or nested deeper than 254 levels
        with deep_recursion():
            text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
        return text.encode()


def _loads_slowly(body: bytes) -> tuple[Any, int]:
    try:
        with deep_recursion():
            value = json.loads(body, parse_constant=str)
            return _storable(value)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _storable(value: Any) -> tuple[Any, int]:
    """The value without NUL and lone surrogates, and how many there were."""
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


class deep_recursion:
    """Lets functions go deeper than Python's thousand calls."""

    def __enter__(self) -> None:
        _recursion.acquire()
        self.limit = sys.getrecursionlimit()
        sys.setrecursionlimit(self.limit + _DEEPEST)

    def __exit__(self, *exc: object) -> None:
        sys.setrecursionlimit(self.limit)
        _recursion.release()


class rare_collection:
    """Lets the garbage collector run seldom, by as many as are inside.

    It would take most of the time: JSON has no cycles for it to find, but many values
    for it to look at.
    """

    _inside = 0
    _lock = threading.Lock()
    _usual = gc.get_threshold()

    def __enter__(self) -> None:
        with self._lock:
            if not self.__class__._inside:
                self.__class__._usual = gc.get_threshold()
                gc.set_threshold(_MANY_VALUES)
            self.__class__._inside += 1

    def __exit__(self, *exc: object) -> None:
        with self._lock:
            self.__class__._inside -= 1
            if not self._inside:
                gc.set_threshold(*self._usual)
