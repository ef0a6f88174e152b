"""Configured paths are masked, and paths without a match are reported."""

from collections.abc import Iterator

import pytest

from analytics_pipeline.cli.main import main
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server(events=120) as server:
        yield server


EVENTS = ["events"]


def test_a_path_that_matched_nothing_is_reported(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    paths = ["user.email", "User.Email", "nothing.at_all"]
    summary = warehouse.load(v1, tables=EVENTS, redact=paths, rows_per_load=20)
    assert summary.loads > 1
    assert summary.unmatched == {"User.Email", "nothing.at_all"}
    assert summary.as_json()["unmatched_redact"] == ["User.Email", "nothing.at_all"]


def test_a_path_of_a_table_without_new_rows_is_not_reported(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    for project in ("frontend", "backend"):
        for row in v1.rows("events", project):
            v1.remove("events", project, row)
    tables = ["events", "projects"]
    summary = warehouse.load(v1, tables=tables, redact="user.email", lookback=0)
    assert summary.tables["projects"].rows == 2
    assert summary.unmatched == set()


def test_the_command_line_names_paths_that_matched_nothing(
    v1: FakeServer, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = ["--base-url", v1.url, "--organization", ORGANIZATION]
    words += ["--project", "frontend", "--resource", "events"]
    assert main([*words, "--redact", "user.E-Mail"]) == 0
    said = capsys.readouterr().err
    assert "redact: 'user.E-Mail' matched nothing" in said
