"""The package, called as by a user's script: settings and report are JSON."""

import json
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

STARTED = time.perf_counter()

import dlt
import duckdb  # noqa: F401
import pyarrow  # noqa: F401

from analytics_pipeline import analytics_source, runner

IMPORTED = time.perf_counter()

DESTINATIONS: dict[str, Callable[[], Any]] = {
    "duckdb": lambda: dlt.destinations.duckdb("warehouse.duckdb"),
    "postgres": lambda: dlt.destinations.postgres(),
    "delta": lambda: dlt.destinations.filesystem("warehouse"),
}


def peak() -> float:
    """Return the peak resident memory of this process in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    base_url: str,
    api: str,
    projects: list[str],
    tables: list[str],
    workers: int = 4,
    rows_per_load: int | None = None,
    destination: str = "duckdb",
    action: str = "load",
) -> dict[str, Any]:
    """Load the tables as the command line does; or sweep, or verify them."""
    pipeline = dlt.pipeline(
        "ours",
        pipelines_dir="pipelines",
        destination=DESTINATIONS[destination](),
        dataset_name=f"analytics_{os.getpid()}" if destination == "postgres" else "a",
    )
    source = analytics_source(
        base_url,
        "token",
        "acme",
        projects,
        api=api,
        workers=workers,
        rows_per_load=rows_per_load,
        sweep="now" if action == "sweep" else "1d",
    )
    memory = {"imports": peak()}
    if action == "verify":
        totals = runner.verify(pipeline, source, tables).totals()
        memory["verify"] = peak()
        rows = sum(counts.server for counts in totals.values())
        return {"rows": rows, "memory": memory}
    table_format = "delta" if destination == "delta" else None
    summary = runner.load(pipeline, source, tables, table_format)
    memory["load"] = peak()
    trace = pipeline.last_trace
    assert trace
    phases = {"imports": IMPORTED - STARTED}
    for step in trace.steps:
        if step.step != "run" and step.finished_at:
            seconds = (step.finished_at - step.started_at).total_seconds()
            phases[step.step] = phases.get(step.step, 0.0) + seconds
    return {
        "rows": sum(
            table.rows + (table.reread if action == "sweep" else 0)
            for table in summary.tables.values()
        ),
        "memory": memory,
        "phases": phases,
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
