"""Columns for analysts: what events say of themselves, what dlt's schema says of all."""

import json
from typing import Any

import pytest

from analytics_pipeline.cli.main import main
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import LOAD_ID
from tests.children import arguments
from tests.conftest import TOKEN, Warehouse
from tests.fake_server import FakeServer

OWN = "level, environment, release_version, user_id, handled, url, server_name"


def events(warehouse: Warehouse, columns: str) -> list[tuple[Any, ...]]:
    return warehouse.rows(
        f'select {columns}, tags, "user" from analytics.events order by id'
    )


def test_events_have_columns_for_common_and_configured_tags(
    api: str, server: FakeServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = ["--api", api, "--tag", "browser", "--tag", "no.such"]
    words += ["--resource", "events"]
    assert main(arguments(server, warehouse.folder, *words)) == 0
    rows = events(warehouse, f"{OWN}, tag_browser, tag_no_such")
    assert len(rows) == 60
    for *values, tags, user in rows:
        named = {tag["key"]: tag["value"] for tag in json.loads(tags)}
        assert values == [
            named["level"],
            named["environment"],
            named["release"],
            json.loads(user)["id"],
            named["handled"] == "yes",
            named["url"],
            named["server_name"],
            named["browser"],
            None,
        ]


def test_columns_derived_from_masked_values_are_masked(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    paths = ["user.id", "tags.url", "tags.browser"]
    settings: dict[str, Any] = {"tags": ["browser"], "api": api}
    warehouse.load(server, tables=["events"], redact=paths, **settings)
    rows = events(warehouse, "user_id, url, tag_browser")
    assert {row[:3] for row in rows} == {("***",) * 3}


@pytest.mark.parametrize("api", ["v1"])
def test_rows_have_the_id_of_their_load_and_all_columns_are_described(
    server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, history=True)
    server.grow(events=5)
    warehouse.load(server, tables=["events"])
    loads = {
        row[0] for row in warehouse.rows("select load_id from analytics._dlt_loads")
    }
    for table in (*TABLES, "issue_history"):
        found = {
            row[0] for row in warehouse.rows(f"select {LOAD_ID} from analytics.{table}")
        }
        assert found
        assert found <= loads
    by_load = warehouse.rows(f"select count(distinct {LOAD_ID}) from analytics.events")
    assert by_load == [(2,)]
    check_descriptions(warehouse)


def check_descriptions(warehouse: Warehouse) -> None:
    """Check that dlt's schema describes all tables, columns and references."""
    schema = warehouse.pipeline().default_schema
    for name in (*TABLES, "issue_history"):
        table = schema.tables[name]
        assert table["description"]
        assert all(column["description"] for column in table["columns"].values())
    targets = {
        name: {
            (*reference["columns"], reference["referenced_table"])
            for reference in schema.tables[name]["references"] or ()
        }
        for name in ("events", "issues", "releases", "issue_history")
    }
    assert targets == {
        "events": {("group_id", "issues"), ("project_id", "projects")},
        "issues": {("project_id", "projects")},
        "releases": {("projects", "projects")},
        "issue_history": {("id", "issues"), ("project_id", "projects")},
    }


@pytest.mark.parametrize("api", ["v1"])
def test_an_excluded_column_is_not_loaded(
    server: FakeServer, warehouse: Warehouse
) -> None:
    left_out = ["events.tags", "events.user", "issues.metadata"]
    warehouse.load(server, tables=["events", "issues"], exclude=left_out)
    for table, absent in (("events", {"tags", "user"}), ("issues", {"metadata"})):
        columns = {row[0] for row in warehouse.rows(f"describe analytics.{table}")}
        assert not absent & columns
        for (extra,) in warehouse.rows(f"select extra from analytics.{table}"):
            assert extra is None or not absent & json.loads(extra).keys()
    levels = warehouse.rows("select count(*) from analytics.events where level is null")
    assert levels == [(0,)]


@pytest.mark.parametrize("api", ["v1"])
def test_a_column_excluded_later_is_null_in_new_rows(
    server: FakeServer, warehouse: Warehouse
) -> None:
    tables = ["events"]
    warehouse.load(server, tables=tables)
    server.grow(events=5)
    warehouse.load(server, tables=tables, exclude="events.tags", lookback=0)
    counts = warehouse.rows("select count(*), count(tags) from analytics.events")
    assert counts[0][0] == 65
    assert 0 < counts[0][1] < 65
