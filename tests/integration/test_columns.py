"""Columns for analysts: what events say of themselves, what dlt's schema says of all."""

import json
from typing import Any

import pytest

from analytics_pipeline.cli.main import main
from analytics_pipeline.tables.schema import LOAD_ID, TABLES
from tests.children import arguments
from tests.conftest import TOKEN, Warehouse
from tests.fake_server import FakeServer

OWN = "level, environment, release_version, user_id, handled, url, server_name"


def events(warehouse: Warehouse, columns: str) -> list[tuple[Any, ...]]:
    return warehouse.rows(
        f'select {columns}, tags, "user" from analytics.events order by id'
    )


def test_an_event_has_its_tags_as_columns(
    api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    rows = events(warehouse, OWN)
    assert len(rows) == 60
    for level, environment, release, user_id, handled, url, name, tags, user in rows:
        named = {tag["key"]: tag["value"] for tag in json.loads(tags)}
        assert level == named["level"]
        assert environment == named["environment"]
        assert release == named["release"]
        assert user_id == json.loads(user)["id"]
        assert handled == (named["handled"] == "yes")
        assert url == named["url"]
        assert name == named["server_name"]


@pytest.mark.parametrize("path", ["user.id", "user"])
def test_the_id_of_a_user_is_masked_with_the_user(
    path: str, api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api, redact=path)
    ids = {row[0] for row in events(warehouse, "user_id")}
    assert ids <= {"***", None}


def test_a_masked_tag_is_masked_in_its_column(
    api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(
        server, api=api, redact=["tags.url", "tags.browser"], tags=["browser"]
    )
    assert {row[:2] for row in events(warehouse, "url, tag_browser")} == {("***",) * 2}


def test_further_tags_have_columns_by_setting_and_option(
    api: str, server: FakeServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = ("--api", api, "--tag", "browser", "--tag", "no.such")
    assert main(arguments(server, warehouse.folder, *words)) == 0
    for browser, nothing, tags, _ in events(warehouse, "tag_browser, tag_no_such"):
        named = {tag["key"]: tag["value"] for tag in json.loads(tags)}
        assert (browser, nothing) == (named["browser"], None)


def test_a_row_tells_which_load_brought_it(
    api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api, history=True)
    server.grow(events=5, issues=2, releases=1)
    warehouse.load(server, api=api, history=True)
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


def test_all_tables_and_columns_are_described_in_dlts_schema(
    api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api, history=True)
    schema = warehouse.pipeline().default_schema
    names = {"events", "issues", "projects", "releases", "project_detail"}
    for name in names | {"issue_history"}:
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


def test_a_column_that_is_left_out_is_nowhere(
    api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    left_out = ["events.tags", "events.user", "issues.metadata"]
    warehouse.load(server, api=api, exclude=left_out)
    for table, absent in (("events", {"tags", "user"}), ("issues", {"metadata"})):
        columns = {row[0] for row in warehouse.rows(f"describe analytics.{table}")}
        assert not absent & columns
        for (extra,) in warehouse.rows(f"select extra from analytics.{table}"):
            assert extra is None or not absent & json.loads(extra).keys()
    levels = warehouse.rows("select count(*) from analytics.events where level is null")
    assert levels == [(0,)]


def test_a_column_that_is_left_out_later_stays_empty_in_new_rows(
    api: str, server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    server.grow(events=5)
    warehouse.load(server, api=api, exclude="events.tags", lookback=0)
    counts = warehouse.rows("select count(*), count(tags) from analytics.events")
    assert counts[0][0] == 65
    assert 0 < counts[0][1] < 65
