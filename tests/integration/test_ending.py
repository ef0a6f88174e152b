"""Interrupted runs end at once, and say what is kept."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.cli.process import INTERRUPTED, KEPT
from analytics_pipeline.demo import Response
from tests.assertions import assert_kept
from tests.children import ROOT, environment, start
from tests.conftest import TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer

TABLES = ["events", "issues"]
ONLY_THEM = ["--resource", "events", "--resource", "issues"]
SOON = 60
"""Seconds; the delayed answers take ten minutes."""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def busy(handler: Any, good: Response) -> Response:
    return Response(429, {"Retry-After": "600"}, b"{}")


def test_ctrl_c_ends_a_run_that_waits_for_the_server(
    server: FakeServer, warehouse: Warehouse
) -> None:
    server.fail(busy, on="/events/")
    with start(server, warehouse.folder, *ONLY_THEM) as process:
        while not any(status == 429 for _, status in server.statuses):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SOON)
    assert process.returncode == INTERRUPTED
    assert KEPT in said.splitlines()
    assert "Traceback" not in said
    warehouse.load(server, tables=TABLES)
    assert_kept(warehouse, server, *TABLES)


@pytest.mark.parametrize(("requests", "seconds"), [(1, 0), (5, 0.1), (5, 0.3)])
def test_ctrl_c_ends_a_run_at_any_moment(
    requests: int, seconds: float, server: FakeServer, warehouse: Warehouse
) -> None:
    """While it reads, and after that."""
    with start(server, warehouse.folder, *ONLY_THEM) as process:
        while len(server.requests) < requests:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(seconds)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SOON)
    assert process.returncode in (INTERRUPTED, 0)
    if process.returncode:
        assert any(line.endswith(KEPT) for line in said.splitlines())
    assert "Traceback" not in said
    warehouse.load(server, tables=TABLES)
    assert_kept(warehouse, server, *TABLES)


def test_ctrl_c_during_imports_prints_no_traceback(tmp_path: Path) -> None:
    slow = "import time; print('importing', flush=True); time.sleep(600)"
    (tmp_path / "dlt.py").write_text(slow)
    with subprocess.Popen(
        [sys.executable, "-m", "analytics_pipeline"],
        env=environment() | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "importing\n"
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=SOON)
    assert process.returncode == INTERRUPTED
    assert said == f"{KEPT}\n"


SCRIPT = """
import sys
from analytics_pipeline import analytics_source, runner
pipeline = runner.make_pipeline(pipelines_dir="pipelines")
pipeline.run(analytics_source(*sys.argv[1:], "acme", ["frontend", "backend"]))
"""


def test_a_failed_script_does_not_wait_for_other_lists(
    server: FakeServer, warehouse: Warehouse
) -> None:
    def busy_for_one(handler: Any, good: Response) -> Response:
        """Answer when the other list has been requested, so that no more are."""
        while not any("/frontend/issues/" in r.path for r in server.requests):
            time.sleep(0.01)
        return busy(handler, good)

    def refused(handler: Any, good: Response) -> Response:
        """Answer when another list is already waiting."""
        while not any(status == 429 for _, status in server.statuses):
            time.sleep(0.01)
        return Response(401, {}, b"{}")

    server.fail(busy_for_one, on="/frontend/events/")
    server.fail(refused, on="/frontend/issues/")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, server.url, TOKEN],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=SOON,
        check=False,
    )
    assert done.returncode == 1
    assert "The server rejected the token" in done.stderr
