"""JSON text in and out: fast where possible, without loss everywhere."""

import gc
import json
import sys
import threading
from typing import Any

import pytest

from analytics_pipeline import jsontext

DEEP = 2_000


def nested(levels: int, opening: str, closing: str) -> bytes:
    return (opening * levels + "1" + closing * levels).encode()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a": [1, 1.5, true, null, "é"]}', {"a": [1, 1.5, True, None, "é"]}),
        ("9223372036854775807", 2**63 - 1),
        ("-9223372036854775808", -(2**63)),
        ("18446744073709551615", 2**64 - 1),
        ("18446744073709551616", 2**64),
        ("-9223372036854775809", -(2**63) - 1),
        (f"[1{'0' * 4000}]", [10**4000]),
        ("1e300", 1e300),
        ('"2026-11-30 12345678901234567890"', "2026-11-30 12345678901234567890"),
        (r'"\\u0000"', r"\u0000"),
        (r'"😀"', "\N{GRINNING FACE}"),
    ],
)
def test_values_keep_what_they_say(text: str, value: Any) -> None:
    loaded, replaced = jsontext.loads(text.encode())
    assert (loaded, type(loaded), replaced) == (value, type(value), 0)
    assert jsontext.loads(jsontext.dumps(loaded)) == (value, 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", "NaN"),
        ("[Infinity, -Infinity]", ["Infinity", "-Infinity"]),
        ("[1e400, -1e400]", ["inf", "-inf"]),
    ],
)
def test_numbers_that_json_cannot_say_become_text(text: str, value: Any) -> None:
    assert jsontext.loads(text.encode()) == (value, 0)


@pytest.mark.parametrize(
    ("body", "value", "replaced"),
    [
        (rb'"a\u0000b"', "a\ufffdb", 1),
        (rb'["\ud800", "\udfff\u0000"]', ["\ufffd", "\ufffd\ufffd"], 3),
        (rb'{"\u0000": {"k\udc00": null}}', {"\ufffd": {"k\ufffd": None}}, 2),
        (b'"\xed\xa0\x80"', "\ufffd", 1),
    ],
)
def test_nul_and_lone_surrogates_are_replaced_and_counted(
    body: bytes, value: Any, replaced: int
) -> None:
    assert jsontext.loads(body) == (value, replaced)


def test_names_that_become_equal_by_replacement_keep_their_values() -> None:
    value, replaced = jsontext.loads(rb'{"\u0000": 1, "\ud800": 2, "\ufffd": 3}')
    assert (sorted(value.values()), replaced) == ([1, 2, 3], 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_unicode_encoding_is_read(encoding: str) -> None:
    assert jsontext.loads('{"a": "é"}'.encode(encoding)) == ({"a": "é"}, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<!doctype html>",
        b"{} {}",
        b'"\xff"',
        b'"a\x00b"',
        b"9" * 5000,
        b"[" * 100_000,
    ],
)
def test_what_is_not_json_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        jsontext.loads(body)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_survives_the_way_in_and_out(opening: str, closing: str) -> None:
    body = nested(DEEP, opening, closing)
    value, _ = jsontext.loads(body)
    assert jsontext.dumps(value) == body


def test_too_deep_nesting_is_a_value_error_in_words() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        jsontext.loads(nested(50_000, "[", "]"))


def test_the_recursion_limit_is_as_before() -> None:
    before = sys.getrecursionlimit()
    jsontext.dumps(jsontext.loads(nested(DEEP, "[", "]"))[0])
    with pytest.raises(ValueError):
        jsontext.loads(nested(50_000, "[", "]"))
    assert sys.getrecursionlimit() == before


def test_threads_may_read_deep_values_at_the_same_time() -> None:
    body = nested(DEEP, "[", "]")
    texts: list[bytes] = []

    def read() -> None:
        for _ in range(10):
            texts.append(jsontext.dumps(jsontext.loads(body)[0]))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert texts == [body] * 40


@pytest.mark.parametrize(
    "value", [{"a": [1, "é"]}, {"a": 2**70, "b": "é"}, [2**64, None, True, 1.5]]
)
def test_text_is_compact_utf8(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert jsontext.dumps(value) == text.encode()


def test_the_garbage_collector_is_as_it_was_when_the_last_reader_is_out() -> None:
    usual = gc.get_threshold()
    with jsontext.rare_collection():
        with pytest.raises(ValueError), jsontext.rare_collection():
            seldom = gc.get_threshold()
            raise ValueError
        assert gc.get_threshold() == seldom
        assert seldom[0] > 100 * usual[0]
    assert gc.get_threshold() == usual
