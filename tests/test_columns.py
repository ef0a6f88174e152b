"""JSON values as a column of a declared type; what does not fit is told, not lost."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest

from analytics_pipeline.columns import ARROW, column, moment, utc

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
TINY = timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("2026-11-30T12:00:00Z", NOON),
        ("2026-11-30T12:00:00", NOON),
        ("2026-11-30 12:00:00+00:00", NOON),
        ("2026-11-30T13:30:00+01:30", NOON),
        ("2026-11-30T12:00:00.123456Z", NOON.replace(microsecond=123456)),
        ("2026-11-30T12:00:00.1234569Z", NOON.replace(microsecond=123456)),
        ("2026-11-30", NOON.replace(hour=0)),
        ("20261130T120000Z", NOON),
        ("1969-12-31T23:59:59.9999999Z", datetime(1970, 1, 1, tzinfo=UTC) - TINY),
    ],
)
def test_iso_text_is_a_moment(text: str, time: datetime) -> None:
    assert moment(text) == time
    assert column("timestamp", [text])[0].to_pylist() == [time]


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


@pytest.mark.parametrize("value", NOT_A_TIME)
def test_what_says_no_time_is_a_misfit(value: Any) -> None:
    assert moment(value) is None
    array, misfits = column("timestamp", [value, "2026-11-30T12:00:00Z"])
    assert (array.to_pylist(), misfits) == ([None, NOON], [0])


def test_times_are_read_in_the_same_way_whatever_stands_beside_them() -> None:
    good = ["2026-11-30T12:00:00Z", "2026-11-30T12:00:00.5+02:00", None]
    slow = column("timestamp", [*good, "2026-11-30"])[0].to_pylist()
    assert column("timestamp", good)[0].to_pylist() == slow[:-1]


def test_a_time_without_zone_is_utc_and_others_are_converted() -> None:
    east = timezone(timedelta(hours=2))
    assert utc(NOON.replace(tzinfo=None)) == NOON
    assert utc(NOON.astimezone(east)).tzinfo is UTC
    assert utc(None) is None


@pytest.mark.parametrize(
    ("kind", "value", "stored"),
    [
        ("text", "é", "é"),
        ("text", "", ""),
        ("text", 12, "12"),
        ("text", 10**30, str(10**30)),
        ("bigint", 12, 12),
        ("bigint", "12", 12),
        ("bigint", "-12", -12),
        ("bigint", 12.0, 12),
        ("bigint", 2**63 - 1, 2**63 - 1),
        ("bigint", str(2**63 - 1), 2**63 - 1),
        ("bigint", str(-(2**63)), -(2**63)),
        ("double", 1.5, 1.5),
        ("double", 2**53, 2.0**53),
        ("bool", False, False),
        ("json", {"b": [1], "a": None}, '{"b":[1],"a":null}'),
        ("json", "text", '"text"'),
        ("json", 2**70, str(2**70)),
        ("json", False, "false"),
    ],
)
def test_a_value_that_fits_is_stored(kind: str, value: Any, stored: Any) -> None:
    assert column(kind, [value])[0].to_pylist() == [stored]
    assert column(kind, [value])[1] == []


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("text", True),
        ("text", 1.5),
        ("text", {}),
        ("bigint", True),
        ("bigint", 1.5),
        ("bigint", 1e300),
        ("bigint", 2**63),
        ("bigint", str(2**63)),
        ("bigint", "0" * 21 + "9" * 30),
        ("bigint", "0" * 5000),
        ("bigint", "-" + "9" * 5000),
        ("bigint", "many"),
        ("bigint", "-"),
        ("bigint", "--5"),
        ("bigint", "1_000"),
        ("bigint", " 1"),
        ("bigint", "١٢"),
        ("bigint", "²"),
        ("double", "NaN"),
        ("double", 2**53 + 1),
        ("double", True),
        ("bool", 1),
        ("bool", "true"),
    ],
)
def test_a_value_that_does_not_fit_is_null_and_its_place_told(
    kind: str, value: Any
) -> None:
    array, misfits = column(kind, [None, value, None])
    assert (array.to_pylist(), misfits) == ([None] * 3, [1])


@pytest.mark.parametrize("kind", ARROW)
def test_no_values_and_nulls_are_columns_of_the_type_too(kind: str) -> None:
    for values in ([], [None, None]):
        array, misfits = column(kind, values)
        assert (array.type, array.to_pylist()) == (ARROW[kind], values)
        assert misfits == []


def test_one_misfit_leaves_the_others_as_they_are() -> None:
    array, misfits = column("bigint", [1, "2", {}, None, 5])
    assert (array.to_pylist(), misfits) == ([1, 2, None, None, 5], [2])
