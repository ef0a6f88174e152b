"""What the user names is masked in the warehouse, and what matched nothing is named."""

import json
from collections.abc import Iterator

import pytest

from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import ConfigurationError
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server(events=120) as server:
        yield server


EVENTS = ["events"]


def test_one_path_may_be_given_as_text(v1: FakeServer, warehouse: Warehouse) -> None:
    summary = warehouse.load(v1, tables=EVENTS, redact="user.email")
    users = [
        json.loads(text)
        for (text,) in warehouse.rows('select "user" from analytics.events')
    ]
    assert {user["email"] for user in users} == {"***"}
    assert all(user["username"].startswith("user") for user in users)
    assert summary.unmatched == set()


def test_headers_and_tags_are_masked_by_their_names(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    paths = ["entries.data.headers.Content-Type", "tags.server_name"]
    summary = warehouse.load(v1, tables=EVENTS, redact=paths)
    assert summary.unmatched == set()
    rows = warehouse.rows("select entries, tags from analytics.events")
    for entries, tags in rows:
        headers = json.loads(entries)[1]["data"]["headers"]
        assert headers == [["Content-Type", "***"]]
        named = {tag["key"]: tag["value"] for tag in json.loads(tags)}
        assert named["server_name"] == "***"
        assert named["environment"] != "***"


def test_a_path_that_matched_nothing_in_the_run_is_named(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    paths = ["user.email", "User.Email", "nothing.at_all"]
    summary = warehouse.load(v1, tables=EVENTS, redact=paths, rows_per_load=20)
    assert summary.loads > 1
    assert summary.unmatched == {"User.Email", "nothing.at_all"}
    assert summary.as_json()["unmatched_redact"] == ["User.Email", "nothing.at_all"]


def test_a_path_of_a_table_without_new_rows_is_not_complained_of(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    for project in ("frontend", "backend"):
        for row in v1.rows("events", project):
            v1.remove("events", project, row)
    tables = ["events", "projects"]
    summary = warehouse.load(v1, tables=tables, redact="user.email", lookback=0)
    assert summary.tables["projects"].rows == 2
    assert summary.unmatched == set()


def test_the_command_line_names_what_matched_nothing(
    v1: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = ["--base-url", v1.url, "--organization", ORGANIZATION]
    words += ["--project", "frontend", "--resource", "events"]
    assert main([*words, "--redact", "user.E-Mail"]) == 0
    said = capsys.readouterr().err
    assert "redact: 'user.E-Mail' matched nothing" in said


@pytest.mark.parametrize("path", ["id", "projectID", "*"])
def test_a_path_on_a_key_is_refused_before_anything_is_asked(
    v1: FakeServer, warehouse: Warehouse, path: str
) -> None:
    with pytest.raises(ConfigurationError, match="key of a table"):
        warehouse.load(v1, redact=["user.email", path])
    assert v1.requests == []
