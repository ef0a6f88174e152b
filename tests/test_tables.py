"""The five tables: declared columns, and records turned into rows without loss."""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.columns import ARROW
from analytics_pipeline.errors import MissingField
from analytics_pipeline.tables import EXTRA, TABLES

LISTS: dict[str, Any] = json.loads(
    Path(__file__).with_name("sentry-fields.json").read_text()
)
"""Every field of Sentry's answers with its type in the vendor's schema."""
TABLE_OF = {
    "events": "events",
    "issues_project": "issues",
    "issues_organization": "issues",
    "projects_organization": "projects",
    "releases": "releases",
    "project_detail": "project_detail",
}
KIND_OF = {
    "string": "text",
    "string(date-time)": "timestamp",
    "boolean": "bool",
    "integer": "bigint",
    "number(double)": "double",
    "any": "json",
    "object": "json",
}
SAID_DIFFERENTLY = {
    # Sentry's schema says text, and the text is a number or a time.
    ("issues", "count"): "bigint",
    ("issues", "firstSeen"): "timestamp",
    ("issues", "lastSeen"): "timestamp",
    # An integer in releases, text everywhere else.
    ("releases", "id"): "text",
}
FIELDS = [
    (TABLE_OF[name], field, about["type"])
    for name, endpoint in LISTS.items()
    for field, about in endpoint["fields"].items()
]


def test_every_list_of_the_vendor_has_a_table() -> None:
    assert LISTS.keys() == TABLE_OF.keys()
    assert set(TABLE_OF.values()) == TABLES.keys()


@pytest.mark.parametrize(("table", "field", "said"), FIELDS)
def test_a_field_of_the_vendor_has_a_column_of_its_type(
    table: str, field: str, said: str
) -> None:
    plain = said.removesuffix("?")
    kind = "json" if plain.startswith("array") else KIND_OF[plain]
    assert TABLES[table].types[field] == SAID_DIFFERENTLY.get((table, field), kind)


@pytest.mark.parametrize("name", TABLES)
def test_no_two_fields_share_a_column(name: str) -> None:
    columns = [*TABLES[name].names.values(), EXTRA]
    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize(
    ("table", "field", "column"),
    [
        ("events", "groupID", "group_id"),
        ("events", "eventID", "event_id"),
        ("events", "projectID", "project_id"),
        ("events", "event.type", "event_type"),
        ("events", "dateCreated", "date_created"),
        ("issues", "lastSeen", "last_seen"),
        ("issues", "shortId", "short_id"),
        ("project_detail", "verifySSL", "verify_ssl"),
        ("project_detail", "scrubIPAddresses", "scrub_ip_addresses"),
        ("projects", "hasInsightsMCP", "has_insights_mcp"),
    ],
)
def test_columns_are_named_as_dlt_names_them(
    table: str, field: str, column: str
) -> None:
    assert TABLES[table].names[field] == column


@pytest.mark.parametrize("name", TABLES)
def test_arrow_and_dlt_are_told_the_same_columns(name: str) -> None:
    table = TABLES[name]
    assert table.schema.names == list(table.columns)
    for field in table.schema:
        column = table.columns[field.name]
        assert field.type == ARROW[column["data_type"] or ""]
        assert field.nullable == column["nullable"]


@pytest.mark.parametrize("name", TABLES)
def test_only_the_key_may_not_be_null(name: str) -> None:
    table = TABLES[name]
    required = [field.name for field in table.schema if not field.nullable]
    assert required == table.primary_key


def row(table: str, record: dict[str, Any]) -> tuple[dict[str, Any], int]:
    """The row of one record, without nulls, and how many values did not fit."""
    arrow, misfits = TABLES[table].arrow([record])
    assert arrow.schema == TABLES[table].schema
    return {k: v for k, v in arrow.to_pylist()[0].items() if v is not None}, misfits


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
    stored, misfits = row("issues", {"id": "7", **unknown})
    assert (json.loads(stored["extra"]), misfits) == (unknown, 0)
    assert stored.keys() == {"id", "extra"}


@pytest.mark.parametrize(
    "misfit",
    [
        {"title": {"text": "no"}},
        {"count": "many"},
        {"hasSeen": "yes"},
        {"lastSeen": "yesterday"},
        {"seerFixabilityScore": "NaN"},
        {"userCount": 2**63},
    ],
)
def test_a_misfit_is_null_and_goes_to_extra_and_is_counted(
    misfit: dict[str, Any],
) -> None:
    stored, misfits = row("issues", {"id": "7", **misfit})
    assert (json.loads(stored["extra"]), misfits) == (misfit, 1)
    assert stored.keys() == {"id", "extra"}


def test_misfits_and_unknown_fields_share_extra() -> None:
    stored, misfits = row("issues", {"id": "7", "count": [], "new": 1, "title": 1.5})
    assert json.loads(stored["extra"]) == {"count": [], "new": 1, "title": 1.5}
    assert misfits == 2


def test_every_row_has_an_extra_of_its_own() -> None:
    records: list[Any] = [{"id": "1"}, {"id": "2", "new": 1}, {"id": "3", "count": {}}]
    table, misfits = TABLES["issues"].arrow(records)
    assert table[EXTRA].to_pylist() == [None, '{"new":1}', '{"count":{}}']
    assert misfits == 1


def test_records_stay_as_they_were() -> None:
    record = {"id": 7, "count": {}, "new": [1]}
    TABLES["issues"].arrow([record])
    assert record == {"id": 7, "count": {}, "new": [1]}


def test_an_id_that_is_a_number_is_stored_as_text() -> None:
    assert row("releases", {"id": 12, "version": "1.0"})[0]["id"] == "12"
    assert row("events", {"id": "1", "projectID": 3})[0]["project_id"] == "3"


def test_no_records_are_a_table_without_rows() -> None:
    table, misfits = TABLES["projects"].arrow([])
    assert (table.num_rows, table.schema, misfits) == (0, TABLES["projects"].schema, 0)


@pytest.mark.parametrize("bad", [None, {}, 1.5, True])
def test_a_row_without_a_usable_key_is_named(bad: Any) -> None:
    records = [{"id": "1", "projectID": "3"}, {"id": "2", "projectID": bad}]
    with pytest.raises(MissingField, match="events: row 2 of 2 .*'projectID'"):
        TABLES["events"].arrow(records)
