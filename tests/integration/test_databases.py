"""Databases behind SQLAlchemy, day after day: keys, times, and what they take for equal."""

from typing import Any

import dlt
import pytest

from analytics_pipeline import runner
from tests.conftest import make_source, small_server
from tests.fake_server import FakeServer

SQLITE = "sqlite:///warehouse.db"


@pytest.fixture(params=["sqlite", "mariadb"])
def uri(request: pytest.FixtureRequest) -> str:
    if request.param == "sqlite":
        return SQLITE
    return str(request.getfixturevalue("mariadb").uri)


def load(
    pipeline: dlt.Pipeline, server: FakeServer, *tables: str, **settings: Any
) -> None:
    projects = ["frontend", "backend"]
    source = make_source(server, projects, **settings)
    runner.load(pipeline, source, tables)


def selected(pipeline: dlt.Pipeline, sql: str) -> list[tuple[Any, ...]]:
    return sorted(tuple(row) for row in pipeline.dataset()(sql).fetchall())


@pytest.fixture(params=["argument", "environment"])
def destination(
    request: pytest.FixtureRequest, uri: str, monkeypatch: pytest.MonkeyPatch
) -> Any:
    """A database whose tables have primary keys, set up in one way or the other."""
    if request.param == "argument":
        return dlt.destinations.sqlalchemy(uri, create_primary_keys=True)
    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", uri)
    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREATE_PRIMARY_KEYS", "true")
    return "sqlalchemy"


def test_tables_with_primary_keys_can_be_loaded_repeatedly(destination: Any) -> None:
    """A lookback and a sweep read changed rows twice in one load."""
    with small_server(now=None) as server:
        for day in range(3):
            for row in server.rows("issues")[day::7]:
                row["status"] = f"changed on day {day}"
            server.grow(events=15, issues=4)
            pipeline = runner.make_pipeline(destination, pipelines_dir="pipelines")
            settings = {"history": True, "sweep": "now", "lookback": "2d"}
            load(pipeline, server, "events", "issues", **settings)
            served = sorted((row["id"], row["status"]) for row in server.rows("issues"))
            assert selected(pipeline, "select id, status from issues") == served
            assert selected(pipeline, "select id from events") == sorted(
                (row["id"],) for row in server.rows("events")
            )
            last = "select id, status from issue_history where valid_to is null"
            assert selected(pipeline, last) == served


@pytest.mark.parametrize("keys", [False, True])
def test_keys_that_differ_in_case_accents_or_spaces_are_different_rows(
    keys: bool, uri: str
) -> None:
    ids = ["1.0-RC1", "1.0-rc1", "1.0-rc1 ", "\xe9", "e", "e\u0301", "\xdf", "ss"]
    destination = dlt.destinations.sqlalchemy(uri, create_primary_keys=keys)
    pipeline = runner.make_pipeline(destination, pipelines_dir="pipelines")
    with small_server(releases=len(ids)) as server:
        for row, id in zip(server.rows("releases"), ids, strict=True):
            row["id"] = id
        for _ in range(2):
            load(pipeline, server, "releases")
    assert selected(pipeline, "select id from releases") == sorted((id,) for id in ids)
