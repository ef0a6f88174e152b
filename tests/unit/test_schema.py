"""The columns of the five tables, for Arrow and for dlt."""

import json
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import ARROW, EXTRA, GONE_AT, LOAD_ID, READ_AT

LISTS: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "sentry-fields.json").read_text()
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
def test_each_field_of_the_vendor_has_a_column_of_its_type(
    table: str, field: str, said: str
) -> None:
    plain = said.removesuffix("?")
    kind = "json" if plain.startswith("array") else KIND_OF[plain]
    field = TABLES[table].aliases.get(field, field)
    assert TABLES[table].types[field] == SAID_DIFFERENTLY.get((table, field), kind)


@pytest.mark.parametrize("name", TABLES)
def test_no_two_fields_share_a_column(name: str) -> None:
    columns = [*TABLES[name].names.values(), EXTRA, READ_AT]
    assert len(set(columns)) == len(columns)


@pytest.mark.parametrize(
    ("table", "field", "column"),
    [
        ("events", "groupID", "group_id"),
        ("events", "eventID", "event_id"),
        ("events", "projectID", "project_id"),
        ("events", "type", "type"),
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
def test_an_alias_refers_to_a_field(name: str) -> None:
    table = TABLES[name]
    assert table.aliases.keys().isdisjoint(table.types)
    assert {*table.aliases.values()} <= table.types.keys()


@pytest.mark.parametrize("name", TABLES)
def test_all_columns_have_a_description(name: str) -> None:
    table = TABLES[name]
    columns = table.hints["columns"]
    gone = [GONE_AT] if table.has_gone_at else []
    assert [*columns] == [*table.schema.names, *gone, LOAD_ID]
    assert all(column["description"].endswith(".") for column in columns.values())
    assert table.description.endswith(".")


@pytest.mark.parametrize("name", TABLES)
def test_a_reference_points_from_a_column_to_a_key(name: str) -> None:
    for reference in TABLES[name].references:
        assert {*reference["columns"]} <= TABLES[name].columns.keys()
        assert reference["referenced_columns"] == ["id"]
        assert "id" in TABLES[reference["referenced_table"]].primary_key


def test_the_list_of_projects_has_no_project_settings() -> None:
    only_in_detail = {"avatar", "color", "isInternal", "isPublic", "organization"}
    assert only_in_detail.isdisjoint(TABLES["projects"].types)
    assert only_in_detail <= TABLES["project_detail"].types.keys()


@pytest.mark.parametrize("name", TABLES)
def test_arrow_and_dlt_have_the_same_columns(name: str) -> None:
    table = TABLES[name]
    assert table.schema.names == list(table.columns)
    for field in table.schema:
        column = table.columns[field.name]
        assert field.type == ARROW[column["data_type"] or ""]
        assert field.nullable == column["nullable"]


@pytest.mark.parametrize("name", TABLES)
def test_only_key_columns_are_not_nullable(name: str) -> None:
    table = TABLES[name]
    required = [field.name for field in table.schema if not field.nullable]
    assert required == table.primary_key


@pytest.mark.parametrize("name", TABLES)
def test_read_at_is_the_last_column_and_decides_between_copies(name: str) -> None:
    columns = TABLES[name].columns
    assert [*columns][-2:] == [EXTRA, READ_AT]
    assert columns[READ_AT]["data_type"] == "timestamp"
    sorted_by = {
        key: c["dedup_sort"] for key, c in columns.items() if "dedup_sort" in c
    }
    assert sorted_by == {READ_AT: "desc"}


@pytest.mark.parametrize("api", APIS)
@pytest.mark.parametrize("name", TABLES)
def test_key_and_cursor_of_each_api_are_columns(api: str, name: str) -> None:
    endpoint = APIS[api].endpoints[name]
    assert endpoint.table == name
    assert TABLES[name].types[endpoint.replication_key] == "timestamp"
    assert TABLES[name].types[endpoint.key] == "text"
