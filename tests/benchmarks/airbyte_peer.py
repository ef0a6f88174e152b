"""The same load with PyAirbyte and Airbyte's source-sentry, into DuckDB.

In an environment of its own, which knows nothing of this package; the source is in
another one, since the two cannot share theirs.
"""

import json
import sys
from typing import Any

import airbyte


def main(base_url: str, executable: str, project: str, streams: list[str]) -> int:
    """Return the number of rows that were read."""
    config: dict[str, Any] = {
        "auth_token": "token",
        "hostname": base_url.removeprefix("https://"),  # the source adds the scheme
        "organization": "acme",
        "project": project,
    }
    source = airbyte.get_source(
        "source-sentry", config=config, local_executable=executable, streams=streams
    )
    cache = airbyte.caches.DuckDBCache(
        db_path="warehouse.duckdb", schema_name="analytics"
    )
    read: int = source.read(cache=cache).processed_records
    return read


if __name__ == "__main__":
    rows = main(**json.loads(sys.argv[1]))
    print()
    print(json.dumps({"rows": rows}))
