"""The package, as a script of a user's would call it: settings as JSON, report as JSON."""

import json
import resource
import sys
import time
from typing import Any

STARTED = time.perf_counter()

import dlt
import duckdb  # noqa: F401
import pyarrow  # noqa: F401

from analytics_pipeline import analytics_source

IMPORTED = time.perf_counter()


def peak() -> float:
    """Resident memory of this process at its highest until now, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(
    base_url: str,
    api: str,
    projects: list[str],
    tables: list[str],
    workers: int = 4,
    apart: bool = False,
) -> dict[str, Any]:
    """Load the tables; with `apart`, step by step, and tell the memory after each."""
    dlt.config["extract.workers"] = workers
    pipeline = dlt.pipeline(
        "ours",
        pipelines_dir="pipelines",
        destination=dlt.destinations.duckdb("warehouse.duckdb"),
        dataset_name="analytics",
    )
    source = analytics_source(
        base_url, "token", "acme", projects, api=api, workers=workers
    )
    if tables:
        source = source.with_resources(
            *(f"{table}_{project}" for table in tables for project in projects)
        )
    memory = {"imports": peak()}
    if apart:
        pipeline.extract(source)
        memory["extract"] = peak()
        pipeline.normalize()
        memory["normalize"] = peak()
        pipeline.load()
        memory["load"] = peak()
    else:
        pipeline.run(source)
        memory["load"] = peak()
    trace = pipeline.last_trace
    assert trace
    info = trace.last_normalize_info
    counts = info.row_counts if info else {}
    phases = {"imports": IMPORTED - STARTED}
    for step in trace.steps:
        if step.step != "run" and step.finished_at:
            seconds = (step.finished_at - step.started_at).total_seconds()
            phases[step.step] = phases.get(step.step, 0.0) + seconds
    return {
        "rows": sum(counts.get(table, 0) for table in ("events", "issues")),
        "memory": memory,
        "phases": phases,
    }


if __name__ == "__main__":
    print(json.dumps(main(**json.loads(sys.argv[1]))))
