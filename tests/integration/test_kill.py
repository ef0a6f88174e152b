"""A killed run loses and doubles no rows."""

import random
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.demo import DemoServer, Response
from analytics_pipeline.errors import PipelineLocked
from analytics_pipeline.loading.locks import pipeline_lock
from tests.assertions import assert_kept
from tests.children import PROJECTS, arguments, fork
from tests.conftest import TOKEN, Warehouse, make_source, small_server

TABLES = ["events", "issues"]
ONLY_THEM = ["--resource", "events", "--resource", "issues"]
STEPS = {"extract": 1.0, "normalize": 0.02, "load": 0.3}
"""Rough share of each step in a run."""


@pytest.mark.parametrize("kills", [2, pytest.param(60, marks=pytest.mark.slow)])
def test_a_killed_run_neither_loses_nor_doubles_rows(
    elsewhere: Path, kills: int
) -> None:
    """The first kills hit the first run, the others a warehouse that grows."""
    dice = random.Random(f"{kills} kills")
    with small_server(latency=0.01) as server:
        first = elsewhere / "calm"
        seconds = whole_run(server, first)
        hit: Counter[str] = Counter()
        warehouse = Warehouse(elsewhere)
        for number in range(10 * kills):
            if number % 6 == 0:
                folder = elsewhere / f"warehouse-{number}"
                folder.mkdir()
                warehouse = Warehouse(folder)
            process = fork(server, warehouse.folder, *ONLY_THEM)
            # The steps differ in length, and each must be hit.
            aim = dice.choice([*STEPS])
            while step(warehouse) != aim and process.exitcode is None:
                time.sleep(0.001)
            process.join(dice.uniform(0, seconds * STEPS[aim]))
            if process.exitcode is None:
                process.kill()
                process.join()
                hit[step(warehouse)] += 1
            whole_run(server, warehouse.folder)
            assert_kept(warehouse, server, *TABLES)
            if hit.total() == kills:
                print(dict(hit))
                break
            server.grow(events=30, issues=2)
    assert hit.total() == kills
    assert kills < 50 or hit.keys() == STEPS.keys()


def step(warehouse: Warehouse) -> str:
    """Return the step that the run was in, by the files it left."""
    folder = warehouse.folder / "pipelines" / runner.NAME
    if any(folder.glob("load/normalized/*")):
        return "load"
    return "normalize" if any(folder.glob("normalize/extracted/*")) else "extract"


def whole_run(server: DemoServer, folder: Path) -> float:
    """Run to the end; return the seconds."""
    folder.mkdir(exist_ok=True)
    started = time.perf_counter()
    process = fork(server, folder, *ONLY_THEM)
    process.join(120)
    assert process.exitcode == 0, (folder / "said").read_text()
    return time.perf_counter() - started


def test_the_next_run_reads_what_a_killed_one_had_not_loaded(
    warehouse: Warehouse,
) -> None:
    with small_server() as server:
        warehouse.load(server, tables=TABLES)
        server.grow(events=30, issues=2)
        source = make_source(server, PROJECTS)
        warehouse.pipeline().extract(source.with_resources(*TABLES))
        assert warehouse.pipeline().has_pending_data
        summary = warehouse.load(server, tables=TABLES)
        assert_kept(warehouse, server, *TABLES)
        assert summary.tables["events"].rows == 30
        assert not warehouse.pipeline().has_pending_data


def test_a_half_written_schema_file_does_not_stop_later_runs(
    warehouse: Warehouse,
) -> None:
    """dlt writes to a file with such a name, and then renames it."""
    with small_server() as server:
        warehouse.load(server, tables=TABLES)
        left = Path(warehouse.pipeline().working_dir, "schemas", "94d3fff6341d56bf")
        left.write_text("{")
        server.grow(events=30)
        warehouse.load(server, tables=TABLES)
        assert_kept(warehouse, server, *TABLES)
        assert not left.exists()


def test_a_concurrent_run_of_the_same_pipeline_is_refused(
    warehouse: Warehouse,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    is_over = threading.Event()

    def slow(handler: Any, good: Response) -> Response:
        is_over.wait(60)
        return good

    with small_server() as server:
        server.fail(slow)
        process = fork(server, warehouse.folder)
        while not server.requests:
            time.sleep(0.01)
        assert main(arguments(server, warehouse.folder)) == 1
        assert capsys.readouterr().err == (
            f"error: process {process.pid} is running the pipeline"
            f" 'analytics_pipeline' in {warehouse.folder / 'pipelines'}; wait until it"
            " ends, or use another pipeline name and another dataset\n"
        )
        process.kill()
        process.join()
        is_over.set()
        warehouse.load(server, tables=TABLES)
        assert_kept(warehouse, server, *TABLES)


def test_pipelines_with_different_names_can_run_concurrently(elsewhere: Path) -> None:
    pipelines = [
        runner.make_pipeline(name=name, pipelines_dir=str(elsewhere))
        for name in ("one", "two", "one")
    ]
    with (
        pipeline_lock(pipelines[0]),
        pipeline_lock(pipelines[1]),
        pytest.raises(PipelineLocked, match="'one'"),
        pipeline_lock(pipelines[2]),
    ):
        pass
    with pipeline_lock(pipelines[2]):
        pass
