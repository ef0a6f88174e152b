"""Rows that a user leaves out, and what becomes of them when the condition changes."""

from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dlt.extract import DltSource

from analytics_pipeline import runner
from tests.conftest import make_source
from tests.fake_server import FakeServer


@pytest.fixture
def pipeline(elsewhere: Path) -> dlt.Pipeline:
    return runner.make_pipeline(pipelines_dir=str(elsewhere / "pipelines"))


def only(levels: list[str], server: FakeServer, **settings: Any) -> DltSource:
    """Return a source of events of some levels, as in the README."""
    source: DltSource = make_source(server, ["frontend", "backend"], **settings)
    wanted = pc.is_in(pc.field("level"), value_set=pa.array(levels))
    source.events.add_map(lambda table: table.filter(wanted))
    return source


def levels(pipeline: dlt.Pipeline) -> dict[str, int]:
    rows = pipeline.dataset()("select level, count(*) from events group by level")
    return dict(rows.fetchall())


def at_server(server: FakeServer, *wanted: str) -> dict[str, int]:
    counts: dict[str, int] = {}
    for event in server.rows("events"):
        level = next(t["value"] for t in event["tags"] if t["key"] == "level")
        if level in wanted:
            counts[level] = counts.get(level, 0) + 1
    return counts


def test_rows_are_filtered_before_they_are_written(
    v1: FakeServer, pipeline: dlt.Pipeline
) -> None:
    """A changed filter needs a full refresh."""
    runner.load(pipeline, only(["error", "fatal"], v1), ["events"])
    assert levels(pipeline) == at_server(v1, "error", "fatal")
    v1.grow(events=10)
    runner.load(pipeline, only(["error", "fatal"], v1), ["events"])
    assert levels(pipeline) == at_server(v1, "error", "fatal")
    wider = ["error", "fatal", "warning"]
    runner.load(pipeline, only(wider, v1, full_refresh=True), ["events"])
    assert levels(pipeline) == at_server(v1, *wider)


def test_verify_finds_rows_that_a_changed_filter_accepts(
    v1: FakeServer, pipeline: dlt.Pipeline
) -> None:
    runner.load(pipeline, only(["fatal"], v1), ["events"])
    wider = ["fatal", "error"]
    found = runner.verify(pipeline, only(wider, v1), ["events"], repair=True)
    assert found.is_equal
    assert found.before
    assert found.before["events"].missing == at_server(v1, "error")["error"]
    assert levels(pipeline) == at_server(v1, *wider)
