"""Unexpected values are kept, and so are their rows and tables."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest

from analytics_pipeline.cli import output
from analytics_pipeline.demo import Response
from analytics_pipeline.errors import ApiError, IncompleteLoad, UnexpectedAnswer
from tests.assertions import assert_kept, held
from tests.conftest import Warehouse, small_server
from tests.fake_server import FakeServer
from tests.integration.test_conventions import assert_no_promise_beyond_the_rows

DEEP = 500
NOON = "2026-11-01T12:00:00"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with small_server(projects=["frontend"], events=30, issues=30) as server:
        yield server


def say_raw(server: FakeServer, *texts: str) -> None:
    """Send these texts, which may not be JSON, in place of "@0@", "@1@" and so on."""

    def replace(handler: Any, good: Response) -> Response:
        for number, text in enumerate(texts):
            good.body = good.body.replace(f'"@{number}@"'.encode(), text.encode())
        return good

    server.fail(replace, times=99)


def load(warehouse: Warehouse, server: FakeServer, table: str) -> Any:
    return warehouse.load(server, "frontend", [table])


def only_row(warehouse: Warehouse, table: str, key: str) -> dict[str, Any]:
    (row,) = [row for row in held(warehouse, table) if row["id"] == key]
    row["extra"] = json.loads(row["extra"] or "{}")
    return row


BIG = 2**64 - 1
FITTING: list[tuple[str, Any, str, Any]] = [
    ("count", "12", "count", 12),
    ("metadata", {"n": BIG}, "metadata", f'{{"n":{BIG}}}'),
    ("firstSeen", f"{NOON}+02:00", "first_seen", datetime(2026, 11, 1, 10, tzinfo=UTC)),
]
MISMATCHES: list[tuple[str, Any]] = [
    ("title", {"text": "no"}),
    ("userCount", 2**63),
    ("firstSeen", "yesterday"),
    ("somethingNew", {"a": [1, "ü", None, BIG]}),
]


def test_values_are_converted_to_their_column_or_kept_in_extra(
    server: FakeServer, warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = server.rows("issues", "frontend")
    for number, (field, value) in enumerate(MISMATCHES):
        rows[number][field] = value
    fields, values, columns, expected = zip(*FITTING, strict=True)
    for number, (field, value) in enumerate(zip(fields, values, strict=True)):
        rows[-1 - number][field] = value
    summary = load(warehouse, server, "issues")
    assert_kept(warehouse, server, "issues")
    for number, (field, value) in enumerate(MISMATCHES):
        assert only_row(warehouse, "issues", rows[number]["id"])["extra"] == {
            field: value
        }
    for number, (column, value) in enumerate(zip(columns, expected, strict=True)):
        row = only_row(warehouse, "issues", rows[-1 - number]["id"])
        assert (row[column], row["extra"]) == (value, {})
    assert summary.tables["issues"].mismatches == len(MISMATCHES) - 1
    output.show(summary, as_json=False)
    assert "3 values did not fit the column" in capsys.readouterr().err


LISTS = "[" * DEEP + "1" + "]" * DEEP
OBJECTS = '{"a":' * DEEP + "1" + "}" * DEEP
RAW: dict[str, str] = {
    "NaN": '"NaN"',
    "-Infinity": '"-Infinity"',
    "1e400": '"inf"',
    str(10**40): str(10**40),
    r'"a\u0000b"': '"a\ufffdb"',
    r'"\ud800"': '"\ufffd"',
    r'{"\udfff":1,"\ufffd":2}': '{"\ufffd":1,"\ufffd\ufffd":2}',
    LISTS: LISTS,
    OBJECTS: OBJECTS,
}


def test_json_that_databases_reject_is_loaded(
    server: FakeServer, warehouse: Warehouse
) -> None:
    rows = server.rows("issues", "frontend")
    for number in range(len(RAW)):
        rows[number]["metadata"] = rows[number]["brandNew"] = f"@{number}@"
    rows[-1]["userCount"] = "@3@"  # longer than any integer column
    say_raw(server, *RAW)
    summary = load(warehouse, server, "issues")
    assert len(warehouse.ids("issues")) == len(rows)
    sql = "select id, metadata::text, extra::text from analytics.issues"
    found = {key: values for key, *values in warehouse.rows(sql)}
    for number, text in enumerate(RAW.values()):
        assert found[rows[number]["id"]] == [text, f'{{"brandNew":{text}}}']
    assert found[rows[-1]["id"]][1] == f'{{"userCount":{10**40}}}'
    issues = summary.tables["issues"]
    assert (issues.replaced, issues.mismatches) == (2 * 3, 1)


# Keys


@pytest.mark.parametrize("key", [None, "gone"])
def test_a_row_without_a_usable_key_fails_its_list_and_the_error_shows_its_fields(
    server: FakeServer, warehouse: Warehouse, key: Any
) -> None:
    row = server.rows("events", "frontend")[25]  # on the second page
    good = row["id"]
    row["id"] = key
    if key == "gone":
        del row["id"]
    with pytest.raises(
        IncompleteLoad, match="row 6 of the page has no usable 'id'"
    ) as caught:
        load(warehouse, server, "events")
    (error,) = caught.value.failures.values()
    assert isinstance(error, UnexpectedAnswer)
    assert "title: text" in str(error)
    assert row["title"] not in str(error)  # it may be personal data
    first_page = server.rows("events", "frontend")[:20]
    assert sorted(warehouse.ids("events")) == sorted(row["id"] for row in first_page)
    assert_no_promise_beyond_the_rows(warehouse, server)
    row["id"] = good
    load(warehouse, server, "events")
    assert_kept(warehouse, server, "events")


# Times


def test_rows_with_odd_times_are_loaded_once_and_hide_no_other_rows(
    server: FakeServer, warehouse: Warehouse
) -> None:
    field, rows = "dateCreated", server.rows("events", "frontend")
    times: list[Any] = [
        None,
        "",
        "yesterday",
        1_800_000_000,
        rows[4][field].replace("Z", "+00:00"),
        "0001-01-01T00:00:00Z",
        "1969-07-20T20:17:40Z",
        "9999-12-31T23:59:59Z",
        "2199-01-01T00:00:00Z",
        "2199-01-01T00:00:00+14:00",
    ]
    changed = dict(zip([row["id"] for row in rows[::3]], times, strict=False))

    def date(handler: Any, good: Response) -> Response:
        body = json.loads(good.body)
        for row in body["data"]:
            row[field] = changed.get(row["id"], row[field])
        body["data"][-2].pop(field)
        good.body = json.dumps(body).encode()
        return good

    server.fail(date, times=99)
    for _ in range(3):
        load(warehouse, server, "events")
        expected = [row["id"] for row in server.rows("events")]
        assert sorted(warehouse.ids("events")) == sorted(expected)
        server.grow(events=20)


# Sizes


def test_a_page_of_50_megabytes_is_loaded(
    server: FakeServer, warehouse: Warehouse
) -> None:
    row = server.rows("events", "frontend")[0]
    row["message"] = "0123456789abcdef" * (50 * 2**20 // 16)
    load(warehouse, server, "events")
    assert warehouse.rows("select max(length(message)) from analytics.events") == [
        (50 * 2**20,)
    ]
    assert len(warehouse.ids("events")) == 30


def test_a_row_with_only_its_key_is_loaded(
    server: FakeServer, warehouse: Warehouse
) -> None:
    for row in server.rows("events", "frontend")[5:8]:
        for field in row.keys() - {"id", "dateCreated"}:
            row[field] = None
    load(warehouse, server, "events")
    assert len(warehouse.ids("events")) == 30
    nothing = "select count(*) from analytics.events where title is null"
    assert warehouse.rows(nothing) == [(3,)]


def test_a_row_nested_too_deeply_fails_its_list(
    server: FakeServer, warehouse: Warehouse
) -> None:
    server.rows("events", "frontend")[0]["context"] = "@0@"
    say_raw(server, "[" * 100_000 + "]" * 100_000)
    with pytest.raises(IncompleteLoad, match="nested too deeply") as caught:
        load(warehouse, server, "events")
    (error,) = caught.value.failures.values()
    assert isinstance(error, ApiError)
    assert held(warehouse, "events") == []
    server.rows("events", "frontend")[0]["context"] = {}
    load(warehouse, server, "events")
    assert_kept(warehouse, server, "events")
