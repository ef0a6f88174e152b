"""Outages: one sentence, few connections, and nothing that goes on behind the back."""

import logging
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import IncompleteLoad, Unreachable
from analytics_pipeline.tables.columns import TABLES
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer

PATIENCE = 10.0
"""Seconds until a thread that does not end fails its test."""


@pytest.fixture
def dead_url() -> Iterator[str]:
    """The address of a port that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("analytics-pipeline")]


def test_a_server_out_of_reach_ends_the_run_at_once(
    dead_url: str, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    projects = [f"p{n}" for n in range(300)]
    source = analytics_source(dead_url, TOKEN, ORGANIZATION, projects)
    with pytest.raises(Unreachable, match="Check base_url and the network") as caught:
        runner.load(warehouse.pipeline(), source)
    assert "\n" not in str(caught.value)
    assert "Retry" not in caplog.text
    assert all(each.levelno < logging.WARNING for each in caplog.records)


def test_an_outage_is_told_in_one_sentence_on_the_command_line(
    dead_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = ["--base-url", dead_url, "--organization", ORGANIZATION]
    assert main([*words, "--project", "frontend"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "Connection refused" in lines[0]
    assert "Try again later." in lines[0]


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def test_a_server_that_refuses_all_fails_and_says_each_scope_once(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    v1.fail(403, on="/", times=1000)
    with pytest.raises(IncompleteLoad, match="lacks the scope") as caught:
        warehouse.load(v1, ["frontend"])
    failures, summary = caught.value.failures, caught.value.summary
    assert len(failures) == len(TABLES)
    assert (summary.skipped, summary.failed.keys()) == ({}, failures.keys())
    v1.mend()
    warehouse.load(v1, tables=["events"])
    assert len(warehouse.ids("events")) == len(v1.rows("events"))


@pytest.mark.parametrize(
    ("api", "status"), [("v1", 403), ("sentry", 403), ("glitchtip", 404)]
)
def test_a_plain_run_of_which_all_is_refused_raises(
    server: FakeServer, api: str, warehouse: Warehouse, status: int
) -> None:
    server.fail(status, on="/", times=1000)
    source = analytics_source(server.url, TOKEN, ORGANIZATION, "frontend", api)
    with pytest.raises(PipelineStepFailed, match=str(status)):
        warehouse.pipeline().run(source)


def test_a_plain_run_of_which_one_list_is_refused_loads_the_others(
    v1: FakeServer, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    v1.fail(403, on="/releases/", times=1000)
    source = analytics_source(v1.url, TOKEN, ORGANIZATION, "frontend")
    warehouse.pipeline().run(source.with_resources("events", "releases"))
    assert len(warehouse.ids("events")) == len(v1.rows("events", "frontend"))
    assert "skipped: releases of organization 'acme'" in caplog.text


def test_no_thread_goes_on_asking_after_a_run_has_failed(warehouse: Warehouse) -> None:
    projects = [f"p{n}" for n in range(8)]
    with small_server(projects=projects, events=2000, latency=0.05) as server:
        server.fail(500, on="/p3/events/", times=100)
        source = analytics_source(
            server.url, TOKEN, ORGANIZATION, projects, workers=4
        ).with_resources("events")
        with pytest.raises(PipelineStepFailed):
            warehouse.pipeline().run(source)
        asked = len(server.requests)
        end = time.monotonic() + PATIENCE
        while workers() and time.monotonic() < end:
            time.sleep(0.01)
        assert workers() == []
        assert len(server.requests) - asked <= 4
