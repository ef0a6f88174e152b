"""JSON text and times: fast where possible, without loss everywhere."""

import gc
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from analytics_pipeline.values import (
    describe_type,
    dumps,
    infrequent_gc,
    loads,
    nested_value,
    parse_timestamp,
    utc,
)

DEEP = 500
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
TIMES = [
    ("2026-11-30T12:00:00Z", NOON),
    ("2026-11-30T12:00:00", NOON),
    ("2026-11-30 12:00:00+00:00", NOON),
    ("2026-11-30T13:30:00+01:30", NOON),
    ("2026-11-30T12:00:00.123456Z", NOON.replace(microsecond=123456)),
    ("2026-11-30T12:00:00.1234569Z", NOON.replace(microsecond=123456)),
    ("2026-11-30", NOON.replace(hour=0)),
    ("20261130T120000Z", NOON),
    (
        "1969-12-31T23:59:59.9999999Z",
        datetime(1969, 12, 31, 23, 59, 59, 999999, tzinfo=UTC),
    ),
]
NOT_A_TIME: list[Any] = [
    "",
    "soon",
    "2026-02-30T00:00:00Z",
    "0000-01-01T00:00:00Z",
    "0001-01-01T00:00:00+01:00",
    "9999-12-31T23:59:59-01:00",
    "10000-01-01T00:00:00Z",
    "２０２６-11-30",
    1_800_000_000,
    True,
    {},
    [],
]


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
        (f"[1{'0' * 639}]", [10**639]),
        ("1e300", 1e300),
        ('"2026-11-30 12345678901234567890"', "2026-11-30 12345678901234567890"),
        (r'"\\u0000"', r"\u0000"),
        (r'"😀"', "\N{GRINNING FACE}"),
    ],
)
def test_values_survive_a_round_trip(text: str, value: Any) -> None:
    loaded, replaced = loads(text.encode())
    assert (loaded, type(loaded), replaced) == (value, type(value), 0)
    assert loads(dumps(loaded)) == (value, 0)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("NaN", "NaN"),
        ("[Infinity, -Infinity]", ["Infinity", "-Infinity"]),
        ("[1e400, -1e400]", ["inf", "-inf"]),
    ],
)
def test_numbers_that_json_cannot_express_become_text(text: str, value: Any) -> None:
    assert loads(text.encode()) == (value, 0)


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
    assert loads(body) == (value, replaced)


def test_names_that_become_equal_by_replacement_keep_their_values() -> None:
    value, replaced = loads(rb'{"\u0000": 1, "\ud800": 2, "\ufffd": 3}')
    assert (sorted(value.values()), replaced) == ([1, 2, 3], 2)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_any_unicode_encoding_is_read(encoding: str) -> None:
    assert loads('{"a": "é"}'.encode(encoding)) == ({"a": "é"}, 0)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<!doctype html>",
        b"{} {}",
        b'"\xff"',
        b'"a\x00b"',
        b"0" * 5000,
        b"[" * 100_000,
    ],
)
def test_text_that_is_not_json_raises_value_error(body: bytes) -> None:
    with pytest.raises(ValueError):
        loads(body)


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_survives_a_round_trip(opening: str, closing: str) -> None:
    body = nested(DEEP, opening, closing)
    value, _ = loads(body)
    assert dumps(value) == body


def test_deep_nesting_survives_the_replacement_of_characters() -> None:
    body = nested(DEEP, "[", "]").replace(b"1", rb'"\u0000"')
    assert dumps(loads(body)[0]) == body.replace(rb"\u0000", "\ufffd".encode())


def test_json_nested_too_deeply_raises_a_value_error_that_says_so() -> None:
    with pytest.raises(ValueError, match="nested too deeply"):
        loads(nested(50_000, "[", "]"))


@pytest.mark.parametrize(
    "value", [{"a": [1, "é"]}, {"a": 2**70, "b": "é"}, [2**64, None, True, 1.5]]
)
def test_text_is_compact_utf8(value: Any) -> None:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    assert dumps(value) == text.encode()


def test_the_last_reader_restores_the_garbage_collector() -> None:
    usual = gc.get_threshold()
    with infrequent_gc():
        with pytest.raises(ValueError), infrequent_gc():
            seldom = gc.get_threshold()
            raise ValueError
        assert gc.get_threshold() == seldom
        assert seldom[0] > 100 * usual[0]
    assert gc.get_threshold() == usual


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("secret", "text"),
        ("", "text"),
        (5, "number"),
        (2**70, "number"),
        (1.5, "number"),
        (True, "boolean"),
        (None, "null"),
        (["secret"], "array"),
        ({}, "{}"),
        (
            {"a": "secret", "b": {"c": 1}, "d": [1], "e": None, "f": False},
            "{a: text, b: object, d: array, e: null, f: boolean}",
        ),
    ],
)
def test_a_value_is_described_by_its_type_and_that_of_its_fields(
    value: Any, text: str
) -> None:
    assert describe_type(value) == text


def test_a_description_of_many_fields_is_shortened() -> None:
    text = describe_type({f"field{number}": number for number in range(99)})
    assert text.startswith("{field0: number, field1: number, ")
    assert (len(text), text[-3:]) == (200, "...")


@pytest.mark.parametrize(("text", "time"), TIMES)
def test_iso_text_is_a_time_in_utc(text: str, time: datetime) -> None:
    parsed = parse_timestamp(text)
    assert parsed == time
    assert parsed.tzinfo is UTC


@pytest.mark.parametrize("value", [None, *NOT_A_TIME])
def test_a_value_that_is_not_a_time_is_none(value: Any) -> None:
    assert parse_timestamp(value) is None


def test_a_time_without_zone_is_utc_and_others_are_converted() -> None:
    east = timezone(timedelta(hours=2))
    assert utc(NOON.replace(tzinfo=None)) == NOON
    assert utc(NOON.astimezone(east)).tzinfo is UTC
    assert utc(NOON.astimezone(east)) == NOON
    assert utc(None) is None


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('{"a":[1,null]}', {"a": [1, None]}),
        ("[]", []),
        ('"***"', '"***"'),
        ("5", "5"),
        ('{"a":1180591620717411303424}', r'"{\"a\":1180591620717411303424}"'),
        ('{"a":18446744073709551615,"b":-9}', {"a": 2**64 - 1, "b": -9}),
        ("[" * 300 + "]" * 300, '"' + "[" * 300 + "]" * 300 + '"'),
    ],
)
def test_dlt_can_write_nested_values(text: str, value: Any) -> None:
    assert nested_value(text) == value
