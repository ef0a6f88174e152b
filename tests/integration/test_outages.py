"""Outages are reported in one sentence, and no thread keeps running."""

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
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source, small_server
from tests.fake_server import FakeServer

PATIENCE = 10.0
"""Seconds that threads have to end."""


@pytest.fixture
def dead_url() -> Iterator[str]:
    """The address of a port that refuses connections."""
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        yield f"http://127.0.0.1:{reserved.getsockname()[1]}"


def workers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("analytics-pipeline")]


def test_an_unreachable_server_ends_the_run_at_once(
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


def test_the_command_line_reports_an_outage_in_one_sentence(
    dead_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = ["--base-url", dead_url, "--organization", ORGANIZATION]
    assert main([*words, "--project", "frontend"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "Connection refused" in lines[0]
    assert "Try again later." in lines[0]


def test_a_run_fails_if_all_is_refused_and_names_each_scope_once(
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
def test_a_plain_run_raises_if_all_lists_are_refused(
    server: FakeServer, api: str, warehouse: Warehouse, status: int
) -> None:
    server.fail(status, on="/", times=1000)
    source = make_source(server, "frontend", api)
    with pytest.raises(PipelineStepFailed, match=str(status)):
        warehouse.pipeline().run(source)


def test_a_plain_run_loads_the_other_lists_if_one_is_refused(
    v1: FakeServer, warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    v1.fail(403, on="/releases/", times=1000)
    source = make_source(v1, "frontend")
    warehouse.pipeline().run(source.with_resources("events", "releases"))
    assert len(warehouse.ids("events")) == len(v1.rows("events", "frontend"))
    assert "skipped: releases of organization 'acme'" in caplog.text


def test_no_thread_sends_requests_after_a_run_has_failed(warehouse: Warehouse) -> None:
    projects = [f"p{n}" for n in range(8)]
    with small_server(projects=projects, events=2000, latency=0.05) as server:
        server.fail(500, on="/p3/events/", times=100)
        source = make_source(server, projects, workers=4).with_resources("events")
        with pytest.raises(PipelineStepFailed):
            warehouse.pipeline().run(source)
        asked = len(server.requests)
        end = time.monotonic() + PATIENCE
        while workers() and time.monotonic() < end:
            time.sleep(0.01)
        assert workers() == []
        assert len(server.requests) - asked <= 4
