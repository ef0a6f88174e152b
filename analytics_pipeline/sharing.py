"""One dataset that several processes load into at once.

They read side by side. Only the load itself, which fills and empties dlt's staging
tables and merges them, is done by one process at a time.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager

import dlt
from dlt.extract import DltSource

from analytics_pipeline.errors import ConfigurationError

PATIENCE = 24 * 3600.0
"""Seconds to wait for a turn."""


def check(pipeline: dlt.Pipeline) -> None:
    """
    Raises:
        ConfigurationError: nothing in this destination keeps processes apart.
    """
    if kind(pipeline) not in ("postgres", "duckdb"):
        raise ConfigurationError(
            f"several processes cannot share a dataset in {kind(pipeline)}: load into"
            " PostgreSQL or DuckDB, or run one load after the other with runner.load()"
        )


@contextmanager
def alone(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Waits until no other process is in here for the same dataset.

    The lock belongs to a connection, or to an open file, and goes with its process,
    however that ends. On PostgreSQL it is an advisory lock of a session: behind a
    pooler, connect the loads in its session mode.
    """
    client = pipeline.sql_client()
    if kind(pipeline) == "postgres":
        with client:
            name = f"analytics_pipeline.{client.dataset_name}"
            client.execute_sql("SELECT pg_advisory_lock(hashtextextended(%s, 0))", name)
            yield
        return
    # DuckDB lets one process in and sends the others away. SQLite lets them wait, on
    # every system.
    path = f"{client.credentials.database}.lock"
    with closing(sqlite3.connect(path, PATIENCE, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def kind(pipeline: dlt.Pipeline) -> str:
    return pipeline.destination.destination_type.rpartition(".")[2]


def keep_newest(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Let no older copy of an issue replace a newer one in the table.

    Events do not change. The other tables are read whole by one task at a time.
    """
    table, staging = pipeline.sql_client().get_qualified_table_names("issues")
    older = (
        f"SELECT s.id, s.last_seen FROM {table} d JOIN {staging} s ON s.id = d.id"
        " WHERE s.last_seen < d.last_seen"
    )
    for resource in source.selected_resources.values():
        if resource.table_name == "issues":
            resource.apply_hints(
                write_disposition={
                    "disposition": "merge",
                    "strategy": "delete-insert",
                    "source_filter": f"(id, last_seen) NOT IN ({older})",
                }
            )
