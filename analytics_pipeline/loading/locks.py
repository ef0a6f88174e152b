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
"""Where Windows locks: a locked byte cannot be read, and the process id should be."""
DATASET_TIMEOUT = 24 * 3600.0
"""Seconds to wait for a turn."""


@contextmanager
def pipeline_lock(pipeline: dlt.Pipeline) -> Iterator[None]:
    """Run this pipeline alone: two runs would take each other's working files away.

    The lock is on an open file beside the working folder, because dlt empties that. It
    ends with its process; the file stays.

    Raises:
        PipelineLocked: another run has it.
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
    """Wait until no other process is in here for the same dataset.

    The lock belongs to a connection or to an open file, and ends with its process. On
    PostgreSQL it is an advisory lock of a session: behind a pooler, use session mode.
    """
    client = pipeline.sql_client()
    if destination_kind(pipeline) == "postgres":
        with client:
            name = f"analytics_pipeline.{client.dataset_name}"
            client.execute_sql("SELECT pg_advisory_lock(hashtextextended(%s, 0))", name)
            yield
        return
    # DuckDB lets one process in and sends the others away. SQLite lets them wait, on
    # every system.
    path = f"{client.credentials.database}.lock"
    with closing(sqlite3.connect(path, DATASET_TIMEOUT, isolation_level=None)) as lock:
        lock.execute("BEGIN EXCLUSIVE")
        yield


def check_shareable(pipeline: dlt.Pipeline) -> None:
    """Raise ConfigurationError where nothing keeps processes apart."""
    if destination_kind(pipeline) not in ("postgres", "duckdb"):
        raise ConfigurationError(
            f"several processes cannot share a dataset in {destination_kind(pipeline)}: load into"
            " PostgreSQL or DuckDB, or run one load after the other with runner.load()"
        )


def skip_stale_rows(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Keep a load from replacing rows that were read later than its own."""
    client = pipeline.sql_client()
    for resource in source.selected_resources.values():
        name = str(resource.table_name)
        table, staging = client.get_qualified_table_names(name)
        key = TABLES[resource.name].primary_key
        columns = ", ".join([*key, READ_AT])
        in_staging = ", ".join(f"s.{column}" for column in [*key, READ_AT])
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
