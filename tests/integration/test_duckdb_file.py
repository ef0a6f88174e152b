"""DuckDB's file stays open in a run, but not while the server is read."""

import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from typing import Any

import duckdb
import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import runner
from analytics_pipeline.loading import duckdb_file
from tests.conftest import Warehouse
from tests.fake_server import FakeServer


def is_open(warehouse: Warehouse) -> bool:
    """Whether the file is open; DuckDB then refuses other settings for it."""
    file = warehouse.folder / f"{runner.NAME}.duckdb"
    try:
        duckdb.connect(str(file), config={"threads": 1}).close()
    except duckdb.ConnectionException as error:
        assert "different configuration" in str(error)
        return True
    return False


def opened(
    warehouse: Warehouse, server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> dict[str, bool]:
    """Load again; return whether the file is open at each step."""
    warehouse.load(server, tables=["issues"])
    found: dict[str, bool] = {}

    def reading(handler: BaseHTTPRequestHandler, answer: Any) -> Any:
        found["reading"] = is_open(warehouse)
        return answer

    def loaded(*_: Any) -> None:
        found["loaded"] = is_open(warehouse)

    server.fail(reading, on="issues")
    monkeypatch.setattr(runner, "mark_gone", loaded)
    warehouse.load(server, tables=["issues"])
    return found | {"after": is_open(warehouse)}


def test_the_file_is_closed_while_the_server_is_read(
    warehouse: Warehouse, v1: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = {"reading": False, "loaded": True, "after": False}
    assert opened(warehouse, v1, monkeypatch) == steps


def test_the_file_is_closed_between_the_steps_of_a_large_load(
    warehouse: Warehouse, v1: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duckdb_file, "SMALL_LOAD", 0)
    steps = {"reading": False, "loaded": False, "after": False}
    assert opened(warehouse, v1, monkeypatch) == steps


def test_a_program_that_takes_the_file_while_the_server_is_read_is_named(
    warehouse: Warehouse, v1: FakeServer
) -> None:
    warehouse.load(v1, tables=["events"])
    v1.grow(events=30, issues=0)
    script = (
        f"import duckdb; c = duckdb.connect('{runner.NAME}.duckdb'); print(1); input()"
    )
    others: list[subprocess.Popen[bytes]] = []

    def taken(handler: BaseHTTPRequestHandler, answer: Any) -> Any:
        other = subprocess.Popen(
            [sys.executable, "-uc", script],
            cwd=warehouse.folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        others.append(other)
        assert other.stdout
        assert other.stdout.readline()
        return answer

    v1.fail(taken, on="events")
    with pytest.raises(PipelineStepFailed) as error:
        warehouse.load(v1, tables=["events"])
    assert error.value.step == "load"
    assert f"PID {others[0].pid}" in str(error.value)
    others[0].communicate(b"\n")
    assert warehouse.load(v1, tables=["events"]).tables["events"].rows == 30
