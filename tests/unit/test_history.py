"""The states of issues."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_pipeline.tables.arrow import to_arrow
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.derived import add_derived
from analytics_pipeline.tables.history import COLUMNS, SCHEMA, VERSION, states
from analytics_pipeline.tables.schema import PROJECT_SLUG, READ_AT
from tests.unit.profiles import SHORT

READ = datetime(2026, 12, 1, 8, 30, 0, 123456, tzinfo=UTC)
ISSUE: dict[str, Any] = {
    "id": "4500000001",
    "title": "KeyError",
    "status": "unresolved",
    "substatus": "ongoing",
    "priority": "high",
    "level": "error",
    "isUnhandled": True,
    "count": "7",
    "lastSeen": "2026-11-30T12:00:00Z",
    "project": {"id": "12", "slug": "web"},
    "assignedTo": {"type": "user", "id": "3", "name": "Ada", "email": "ada@acme.test"},
    "statusDetails": {"inRelease": "web@1.2"},
}


def rows(*issues: dict[str, Any], read_at: datetime = READ) -> pa.Table:
    """Return rows of the table `issues`."""
    table = TABLES["issues"]
    records = [{PROJECT_SLUG: "web", **issue} for issue in issues]
    for record in records:
        add_derived(table, record)
    return to_arrow(table, records, read_at)[0]


def state(**changes: Any) -> dict[str, Any]:
    (row,) = states(rows(ISSUE | changes)).to_pylist()
    return dict(row)


def test_a_state_has_the_fields_that_people_change() -> None:
    row = state()
    version = row.pop(VERSION)
    assert row == {
        "project_id": "12",
        "id": "4500000001",
        "status": "unresolved",
        "substatus": "ongoing",
        "priority": "high",
        "level": "error",
        "assigned_to": "ada@acme.test",
        "is_unhandled": True,
        "release": "web@1.2",
        "project_slug": "web",
        "last_seen": datetime(2026, 11, 30, 12, tzinfo=UTC),
        READ_AT: READ,
    }
    assert len(version) == 32


def test_rows_have_the_columns_declared_to_dlt() -> None:
    assert list(COLUMNS) == SCHEMA.names
    assert states(rows(ISSUE)).schema == SCHEMA
    required = [field.name for field in SCHEMA if not field.nullable]
    assert required == [k for k, v in COLUMNS.items() if not v["nullable"]]
    assert required == ["id", VERSION]


@pytest.mark.parametrize(
    "change",
    [
        {"id": "4500000002"},
        {"project": {"id": "13"}},
        {"status": "resolved"},
        {"status": None},
        {"substatus": "new"},
        {"priority": "low"},
        {"level": "fatal"},
        {"isUnhandled": False},
        {"assignedTo": None},
        {"assignedTo": {"type": "team", "id": "9", "name": "Shop"}},
        {"statusDetails": {}},
        {"statusDetails": {"inRelease": "web@1.3"}},
    ],
)
def test_a_changed_state_has_another_version(change: dict[str, Any]) -> None:
    assert state(**change)[VERSION] != state()[VERSION]


@pytest.mark.parametrize(
    "change",
    [
        {"lastSeen": "2026-12-01T08:00:00Z"},
        {"lastSeen": None},
        {"count": "8", "userCount": 3, "stats": {"24h": [[0, 1]]}, "title": "other"},
        {"project": {"id": 12, "slug": "renamed"}},
        {"assignedTo": {"email": "ada@acme.test", "name": "Ada Lovelace"}},
        {"statusDetails": {"inRelease": "web@1.2", "actor": {"id": "3"}}},
    ],
)
def test_a_new_event_does_not_change_the_version(change: dict[str, Any]) -> None:
    assert state(**change)[VERSION] == state()[VERSION]


def test_the_version_does_not_depend_on_when_a_state_was_read() -> None:
    later = states(rows(ISSUE, read_at=READ + timedelta(days=1))).to_pylist()[0]
    assert later == state() | {READ_AT: READ + timedelta(days=1)}


def test_null_differs_from_the_text_null() -> None:
    assert state(status=None)[VERSION] != state(status="null")[VERSION]
    moved = state(status=None, substatus="ongoing")
    assert moved[VERSION] != state(status="ongoing", substatus=None)[VERSION]


@pytest.mark.parametrize(
    ("assigned_to", "expected"),
    [
        (None, None),
        ("user:3", "user:3"),
        ({"name": "Ada", "email": "ada@acme.test"}, "ada@acme.test"),
        ({"name": "Shop", "email": None}, "Shop"),
        ({"name": "Shop", "email": ""}, "Shop"),
        ({"name": "Ada", "email": "***", "id": "3"}, "Ada"),  # redacted
        ({"name": "***", "email": "***", "id": 3}, "3"),
        ({"name": "***"}, None),
        ({}, None),
        ([], None),
        (5, None),
        (True, None),
    ],
)
def test_an_assignee_is_an_email_address_or_a_name(
    assigned_to: Any, expected: str | None
) -> None:
    assert state(assignedTo=assigned_to)["assigned_to"] == expected


@pytest.mark.parametrize(
    ("field", "column", "values"),
    [
        ("project", "project_id", [None, "web", [], {}, {"id": None}, 5]),
        (
            "statusDetails",
            "release",
            [None, "1.2", [], {}, {"inRelease": None}, {"inRelease": {"a": 1}}],
        ),
    ],
)
def test_missing_nested_values_are_null(
    field: str, column: str, values: list[Any]
) -> None:
    for value in values:
        assert state(**{field: value})[column] is None


def test_the_last_copy_of_an_issue_wins() -> None:
    copies = [ISSUE | {"status": word} for word in ("ignored", "resolved", "reopened")]
    other = ISSUE | {"id": "5"}
    found = states(rows(copies[0], other, *copies[1:])).to_pylist()
    assert [(row["id"], row["status"]) for row in found] == [
        ("5", "unresolved"),
        ("4500000001", "reopened"),
    ]


def test_excluded_columns_are_null() -> None:
    kept = rows(ISSUE).select(["id", "status"])
    (row,) = states(kept).to_pylist()
    assert (row["id"], row["status"]) == ("4500000001", "unresolved")
    assert {row[name] for name in SCHEMA.names[3:-1]} == {None}


def test_without_issues_there_are_no_states() -> None:
    empty = states(TABLES["issues"].schema.empty_table())
    assert (empty.num_rows, empty.schema) == (0, SCHEMA)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["id", "email", "name", "inRelease", "x"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=4,
)
issues = st.fixed_dictionaries(
    {"id": st.sampled_from("123")},
    optional=dict.fromkeys([*sorted(ISSUE.keys() - {"id"}), "extra"], values),
)


@settings(SHORT, max_examples=50)
@given(st.lists(issues, max_size=5))
def test_any_issue_has_one_state_and_one_version(
    given_issues: list[dict[str, Any]],
) -> None:
    found = states(rows(*given_issues)).to_pylist()
    last = {issue["id"]: issue for issue in given_issues}
    assert sorted(row["id"] for row in found) == sorted(last)
    for row in found:
        assert states(rows(last[row["id"]])).to_pylist() == [row]
    versions: dict[str, Any] = {}
    for row in found:
        assert versions.setdefault(row[VERSION], row) is row
