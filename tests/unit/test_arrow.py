"""Records as Arrow tables: what does not fit its column is told, and goes into `extra`."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.tables.arrow import column, newest_copies, to_arrow
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import ARROW, EXTRA, READ_AT
from tests.unit.profiles import SHORT
from tests.unit.test_values import NOON, NOT_A_TIME, TIMES

READ = datetime(2026, 12, 1, 8, 30, 0, 123456, tzinfo=UTC)


@pytest.mark.parametrize(("text", "time"), TIMES)
def test_iso_text_is_a_timestamp(text: str, time: datetime) -> None:
    assert column("timestamp", [text])[0].to_pylist() == [time]


@pytest.mark.parametrize("value", NOT_A_TIME)
def test_a_value_that_is_not_a_time_does_not_fit(value: Any) -> None:
    array, misplaced = column("timestamp", [value, "2026-11-30T12:00:00Z"])
    assert (array.to_pylist(), misplaced) == ([None, NOON], [0])


def test_a_time_is_parsed_the_same_whatever_the_other_values() -> None:
    good = ["2026-11-30T12:00:00Z", "2026-11-30T12:00:00.5+02:00", None]
    slow = column("timestamp", [*good, "2026-11-30"])[0].to_pylist()
    assert column("timestamp", good)[0].to_pylist() == slow[:-1]


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
def test_a_value_that_does_not_fit_is_null_and_its_index_is_returned(
    kind: str, value: Any
) -> None:
    array, misplaced = column(kind, [None, value, None])
    assert (array.to_pylist(), misplaced) == ([None] * 3, [1])


@pytest.mark.parametrize("kind", ARROW)
def test_columns_without_values_have_the_type_of_the_column(kind: str) -> None:
    for values in ([], [None, None]):
        array, misplaced = column(kind, values)
        assert (array.type, array.to_pylist()) == (ARROW[kind], values)
        assert misplaced == []


def test_one_misfit_leaves_the_other_values_unchanged() -> None:
    array, misplaced = column("bigint", [1, "2", {}, None, 5])
    assert (array.to_pylist(), misplaced) == ([1, 2, None, None, 5], [2])


# Tables


def row(table: str, record: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """Return the row of a record without nulls, and how many values did not fit."""
    arrow, mismatches = to_arrow(TABLES[table], [record], READ)
    assert arrow.schema == TABLES[table].schema
    cells = arrow.to_pylist()[0]
    assert cells.pop(READ_AT) == READ
    return {k: v for k, v in cells.items() if v is not None}, mismatches


def test_a_record_becomes_a_row() -> None:
    record = {
        "id": "7",
        "count": "12",
        "userCount": 3,
        "hasSeen": False,
        "lastSeen": "2026-11-30T12:00:00Z",
        "seerFixabilityScore": 0.5,
        "project": {"slug": "frontend"},
        "logger": None,
    }
    assert row("issues", record) == (
        {
            "id": "7",
            "count": 12,
            "user_count": 3,
            "has_seen": False,
            "last_seen": datetime(2026, 11, 30, 12, tzinfo=UTC),
            "seer_fixability_score": 0.5,
            "project": '{"slug":"frontend"}',
        },
        0,
    )


@pytest.mark.parametrize(
    "unknown",
    [
        {"brandNew": [1, {"a": None}]},
        {"brandNew": None},
        {"extra": "their own"},
        {"short_id": "as the column, not as the field"},
        {"": 1, "a.b": 2, "é": 2**70},
    ],
)
def test_an_unknown_field_goes_to_extra_with_its_value(unknown: dict[str, Any]) -> None:
    stored, mismatches = row("issues", {"id": "7", **unknown})
    assert (json.loads(stored["extra"]), mismatches) == (unknown, 0)
    assert stored.keys() == {"id", "extra"}


@pytest.mark.parametrize(
    "mismatch",
    [
        {"title": {"text": "no"}},
        {"count": "many"},
        {"hasSeen": "yes"},
        {"lastSeen": "yesterday"},
        {"seerFixabilityScore": "NaN"},
        {"userCount": 2**63},
    ],
)
def test_a_value_that_does_not_fit_is_null_and_goes_to_extra_and_is_counted(
    mismatch: dict[str, Any],
) -> None:
    stored, mismatches = row("issues", {"id": "7", **mismatch})
    assert (json.loads(stored["extra"]), mismatches) == (mismatch, 1)
    assert stored.keys() == {"id", "extra"}


def test_unknown_fields_and_values_that_do_not_fit_share_extra() -> None:
    stored, mismatches = row("issues", {"id": "7", "count": [], "new": 1, "title": 1.5})
    assert json.loads(stored["extra"]) == {"count": [], "new": 1, "title": 1.5}
    assert mismatches == 2


def test_every_row_has_its_own_extra() -> None:
    records: list[Any] = [{"id": "1"}, {"id": "2", "new": 1}, {"id": "3", "count": {}}]
    table, mismatches = to_arrow(TABLES["issues"], records, READ)
    assert table[EXTRA].to_pylist() == [None, '{"new":1}', '{"count":{}}']
    assert mismatches == 1


def test_records_are_not_modified() -> None:
    record = {"id": 7, "count": {}, "new": [1]}
    to_arrow(TABLES["issues"], [record], READ)
    assert record == {"id": 7, "count": {}, "new": [1]}


def test_an_id_that_is_a_number_is_stored_as_text() -> None:
    assert row("releases", {"id": 12, "version": "1.0"})[0]["id"] == "12"
    assert row("events", {"id": "1", "projectID": 3})[0]["project_id"] == "3"


def test_no_records_give_an_empty_table() -> None:
    table, mismatches = to_arrow(TABLES["projects"], [], READ)
    assert (table.num_rows, table.schema, mismatches) == (
        0,
        TABLES["projects"].schema,
        0,
    )


@pytest.mark.parametrize("bad", [None, {}, 1.5, True])
def test_a_row_without_a_usable_key_raises_an_error_with_its_number(bad: Any) -> None:
    records = [{"id": "1", "projectID": "3"}, {"id": "2", "projectID": bad}]
    with pytest.raises(UnexpectedAnswer, match="events: row 2 of 2 .*'projectID'"):
        to_arrow(TABLES["events"], records, READ)


def test_every_row_has_the_time_when_it_was_read() -> None:
    records = [{"id": "1"}, {"id": "2", "readAt": "no", "read_at": "neither"}]
    table, mismatches = to_arrow(TABLES["issues"], records, READ)
    assert table.schema.names[-1] == READ_AT
    assert table[READ_AT].to_pylist() == [READ, READ]
    assert json.loads(table[EXTRA][1].as_py()) == {"readAt": "no", "read_at": "neither"}
    assert mismatches == 0


@pytest.mark.parametrize(
    ("record", "stored"),
    [
        ({"event.type": "error"}, {"type": "error"}),
        ({"type": "error"}, {"type": "error"}),
        ({"event.type": "error", "type": "error"}, {"type": "error"}),
        ({"event.type": "error", "type": None}, {"type": "error"}),
        ({"event.type": None, "type": "error"}, {"type": "error"}),
        ({"event.type": None}, {}),
        ({"event.type": 5}, {"type": "5"}),
        (
            {"event.type": "error", "type": "default"},
            {"type": "default", "extra": {"event.type": "error"}},
        ),
        ({"event.type": 1, "type": True}, {"extra": {"event.type": 1, "type": True}}),
        ({"event.type": {"a": []}}, {"extra": {"type": {"a": []}}}),
        ({"event.type": [1], "type": [1]}, {"extra": {"type": [1]}}),
        ({"event.type": [1], "type": [2]}, {"extra": {"event.type": [1], "type": [2]}}),
    ],
)
def test_a_field_and_its_alias_share_a_column_and_lose_nothing(
    record: dict[str, Any], stored: dict[str, Any]
) -> None:
    cells, _ = row("events", {"id": "1", "projectID": "3", **record})
    if "extra" in cells:
        cells["extra"] = json.loads(cells["extra"])
    assert cells == {"id": "1", "project_id": "3", **stored}


def test_a_row_without_a_usable_key_is_shown_by_its_types() -> None:
    records = [{"id": "1", "projectID": None, "user": {"email": "ada@example.com"}}]
    with pytest.raises(UnexpectedAnswer) as error:
        to_arrow(TABLES["events"], records, READ)
    assert str(error.value).endswith(
        "'projectID' (null): {id: text, projectID: null, user: object}"
    )


# Copies


def copies(*rows: Sequence[str]) -> pa.Table:
    """Return rows with a key of two columns, and a value."""
    columns = [pa.array([row[n] for row in rows], pa.string()) for n in range(3)]
    return pa.Table.from_arrays(columns, names=["a", "b", "value"])


KEY = ["a", "b"]


def test_the_last_copy_of_a_row_is_kept_in_its_place() -> None:
    rows = copies("1xA", "2xB", "1xC", "1yD", "2xE", "3xF")
    assert newest_copies(rows, KEY)["value"].to_pylist() == ["C", "D", "E", "F"]


def test_rows_without_copies_are_unchanged() -> None:
    rows = copies("2xA", "1xB", "1yC")
    assert newest_copies(rows, KEY).equals(rows)
    assert newest_copies(copies(), KEY).equals(copies())


def test_a_table_of_several_chunks_is_one_table() -> None:
    rows = pa.concat_tables([copies("1xA", "2xB"), copies("1xC"), copies("2xD")])
    assert newest_copies(rows, KEY)["value"].to_pylist() == ["C", "D"]


@SHORT
@given(st.lists(st.tuples(st.sampled_from("123"), st.sampled_from("xy")), max_size=20))
def test_each_key_is_kept_once_with_its_last_value(keys: list[tuple[str, str]]) -> None:
    rows = copies(*((a, b, str(number)) for number, (a, b) in enumerate(keys)))
    kept = newest_copies(rows, KEY).to_pylist()
    last = {key: number for number, key in enumerate(keys)}
    assert [int(row["value"]) for row in kept] == sorted(last.values())
    assert {(row["a"], row["b"]) for row in kept} == set(keys)
