"""A lower bound for runs of dlt: a resource without rows, same destination."""

import json
from collections.abc import Iterator
from typing import Any

import dlt
import duckdb  # noqa: F401
import pyarrow  # noqa: F401


@dlt.resource(name="nothing")
def nothing() -> Iterator[Any]:
    yield from ()


if __name__ == "__main__":
    pipeline = dlt.pipeline(
        "idle",
        pipelines_dir="pipelines",
        destination=dlt.destinations.duckdb("warehouse.duckdb"),
        dataset_name="analytics",
    )
    pipeline.run(nothing())
    print(json.dumps({"rows": 0}))
