"""Locks: one process at a time runs a pipeline or loads into a shared dataset."""

import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dlt
from dlt.extract import DltSource

from analytics_pipeline.errors import ConfigurationError, PipelineLocked
from analytics_pipeline.loading.destinations import destination_kind
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import READ_AT

_FAR = 1 << 30
"""The byte that Windows locks: the process id must stay readable."""
DATASET_TIMEOUT = 24 * 3600.0
"""Seconds."""


@contextmanager
def pipeline_lock(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Lock the pipeline, because two runs would delete each other's working files.

    The locked file is beside the working folder, which dlt empties. The lock ends with
    the process; the file stays.

    Raises:
        PipelineLocked: another process has the lock.
    """
    path = Path(pipeline.pipelines_dir, f"{pipeline.pipeline_name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            _lock(file.fileno())
        except (BlockingIOError, PermissionError):
            file.seek(0)
            owner = f"process {pid}" if (pid := file.read(20)) else "another process"
            raise PipelineLocked(
                f"{owner} is running the pipeline {pipeline.pipeline_name!r} in"
                f" {pipeline.pipelines_dir}; wait until it ends, or use another pipeline"
                " name and another dataset"
            ) from None
        file.truncate(0)
        file.write(str(os.getpid()))
        file.flush()
        yield


@contextmanager
def dataset_lock(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Wait for the lock of the dataset, which ends with the process.

    On PostgreSQL it is a session's advisory lock, so a pooler must be in session mode.
    """
    client = pipeline.sql_client()
    if destination_kind(pipeline) == "postgres":
        with client:
            name = f"analytics_pipeline.{client.dataset_name}"
            client.execute_sql("SELECT pg_advisory_lock(hashtextextended(%s, 0))", name)
            yield
        return
    # DuckDB refuses other processes; SQLite lets them wait, on every system.
    path = f"{client.credentials.database}.lock"
    with closing(sqlite3.connect(path, DATASET_TIMEOUT, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def check_shareable(pipeline: dlt.Pipeline) -> None:
    """Raise ConfigurationError for destinations without a lock."""
    kind = destination_kind(pipeline)
    if kind not in ("postgres", "duckdb"):
        raise ConfigurationError(
            f"processes cannot share a dataset in {kind}; load into PostgreSQL or DuckDB, or"
            " run one load after the other with runner.load()"
        )


def skip_stale_rows(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Keep a load from replacing rows that were read later than its own."""
    client = pipeline.sql_client()
    for resource in source.selected_resources.values():
        name = str(resource.table_name)
        table, staging = client.get_qualified_table_names(name)
        key = TABLES[resource.name].primary_key
        columns = ", ".join([*key, READ_AT])
        in_staging = ", ".join(f"s.{column}" for column in (*key, READ_AT))
        same = " AND ".join(f"s.{column} = d.{column}" for column in key)
        stale = (
            f"SELECT {in_staging} FROM {table} d JOIN {staging} s ON {same}"
            f" WHERE s.{READ_AT} < d.{READ_AT}"
        )
        resource.apply_hints(
            write_disposition={
                "disposition": "merge",
                "strategy": "delete-insert",
                "source_filter": f"({columns}) NOT IN ({stale})",
            }
        )


if sys.platform == "win32":
    import msvcrt

    def _lock(file: int) -> None:
        os.lseek(file, _FAR, os.SEEK_SET)
        msvcrt.locking(file, msvcrt.LK_NBLCK, 1)
        os.lseek(file, 0, os.SEEK_SET)
else:
    import fcntl

    def _lock(file: int) -> None:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
