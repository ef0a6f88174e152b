"""Make the pipeline and run it: all at once, or in pieces."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
from dlt.common.runtime.collector_base import Collector
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import sharing
from analytics_pipeline.destinations import appended_tables, check_table_format
from analytics_pipeline.failures import is_interruption, root_error
from analytics_pipeline.lock import exclusive
from analytics_pipeline.partitions import Partition, partitions
from analytics_pipeline.settings import configured, is_several
from analytics_pipeline.source import analytics_source
from analytics_pipeline.summary import Summary, summarise
from analytics_pipeline.tables import TABLES

__all__ = [
    "DATASET",
    "NAME",
    "Partition",
    "Summary",
    "all_projects",
    "backfill",
    "load",
    "load_shared",
    "make_pipeline",
    "only",
    "partitions",
    "root_error",
    "run_partition",
    "summarise",
]

NAME = "analytics_pipeline"
DATASET = "analytics"


def make_pipeline(
    destination: Any = "duckdb",
    *,
    dataset: str = DATASET,
    name: str = NAME,
    pipelines_dir: str | None = None,
    progress: str | Collector | None = None,
) -> dlt.Pipeline:
    """A dlt pipeline as the command line makes it.

    With DuckDB the file is `<name>.duckdb` in the working folder.
    """
    return dlt.pipeline(
        name,
        pipelines_dir=pipelines_dir,  # type: ignore[arg-type]
        destination=destination,
        dataset_name=dataset,
        progress=progress,  # type: ignore[arg-type]
    )


def load(
    pipeline: dlt.Pipeline,
    source: DltSource,
    tables: Sequence[str] = (),
    table_format: Any = None,
) -> Summary:
    """Load what is new; of some tables only, if they are named.

    On the filesystem, `table_format` is `"delta"`, `"iceberg"` or None, plain files.

    What an interrupted run left behind is loaded first.

    Raises:
        AnalyticsError: the source could not be read.
        ConfigurationError: the destination cannot have this table format.
        Busy: another process runs this pipeline.
        PipelineStepFailed: dlt or the destination failed. In both cases rows and
            cursors are as they were, or the next run completes what is pending.
    """
    started = time.perf_counter()
    check_table_format(pipeline, table_format)
    source = only(source, tables)
    with exclusive(pipeline), appended_tables() as appended, plain_errors():
        while pipeline.has_pending_data:
            pipeline.run()
        pipeline.run(source, table_format=table_format)
    summary = summarise(pipeline)
    summary.appended = appended
    summary.seconds = time.perf_counter() - started
    return summary


def load_shared(
    pipeline: dlt.Pipeline, source: DltSource, tables: Sequence[str] = ()
) -> Summary:
    """The same for a dataset that other processes load into at the same time.

    For PostgreSQL and DuckDB. Each load needs a working folder of its own, begins
    without cursors and leaves none. All that load into the dataset must do it with
    this function.

    Raises:
        ConfigurationError: the destination is another.
        AnalyticsError, PipelineStepFailed: as `load` does.
    """
    started = time.perf_counter()
    sharing.check(pipeline)
    pipeline.config.restore_from_destination = False
    source = only(source, tables)
    sharing.keep_newest(pipeline, source)
    with exclusive(pipeline), plain_errors():
        pipeline.extract(source)
        summary = summarise(pipeline)
        pipeline.normalize()
        with sharing.alone(pipeline):
            pipeline.load()
    summary.seconds = time.perf_counter() - started
    return summary


def run_partition(
    pipeline: dlt.Pipeline,
    partition: Partition,
    tables: Sequence[str] = ("events", "issues"),
    *,
    commit: bool = False,
    table_format: Any = None,
    **settings: Any,
) -> Summary:
    """Load one project from `since` to `until`, next to others that do the same.

    It may be run twice, late, out of order, or by two processes at once: each row is
    there once, in its newest version. An issue belongs to the partition in which it
    was last seen when the partition is read; one that is seen again moves on to a
    later one. So the issues of past partitions are complete together with those of
    the partitions up to now.

    With `commit`, the load is not shared (see `load_shared`): it goes on from the
    pipeline's cursor to `until`, and the cursor with it; only events. Only then may
    there be a `table_format`.

    Args:
        settings: further arguments of `analytics_source`.
    """
    span = {"since": partition.since, "until": partition.until, "commit": commit}
    source = analytics_source(**{"project": partition.project} | settings | span)
    if commit:
        return load(pipeline, source, table_format=table_format)
    return load_shared(pipeline, source, tables)


def backfill(
    pipeline: dlt.Pipeline,
    every: str | timedelta,
    tables: Sequence[str] = (),
    *,
    table_format: Any = None,
    **settings: Any,
) -> Summary:
    """Load events in chunks, oldest first, then the other tables and what is left.

    Each chunk is committed with its cursor: after an interruption, call it again, and
    it goes on from the last whole chunk. `every` is `"7d"`, `"12h"` or a timedelta.

    Args:
        settings: arguments of `analytics_source`, among them `since`.

    Raises:
        ConfigurationError: the server does not filter events by time.
    """
    given = configured(**settings)
    until = given["until"]
    check = {"until": until or datetime.now(UTC), "commit": True}
    analytics_source(**settings | check)
    project = given["project"]
    events = not tables or "events" in tables
    total = Summary()
    for piece in partitions(project, given["since"], until, every) if events else ():
        done = total.reached.get(piece.project, piece.since)
        if piece.project in total.skipped or piece.until <= done:
            continue
        own = {"project": [piece.project] if is_several(project) else project}
        own |= {"commit": True, "table_format": table_format}
        total.add(run_partition(pipeline, piece, **settings | own))
    rest = [name for name in tables or TABLES if name != "events" or not until]
    if rest:
        total.add(load(pipeline, analytics_source(**settings), rest, table_format))
    return total


@contextmanager
def plain_errors() -> Iterator[None]:
    """The error of this package, or the Ctrl-C, that dlt wrapped, instead of dlt's."""
    try:
        yield
    except PipelineStepFailed as failure:
        if is_interruption(failure):
            raise KeyboardInterrupt from failure
        if (root := root_error(failure)) is failure:
            raise  # from itself it would lose its own cause
        raise root from failure


def only(source: DltSource, tables: Sequence[str]) -> DltSource:
    """The source with just the resources that load these tables."""
    if not tables:
        return source
    return source.with_resources(
        *(
            name
            for name, resource in source.resources.items()
            if resource.table_name in tables
        )
    )


def all_projects(source: DltSource) -> list[str]:
    """The slugs of the organization's projects, asked from the server."""
    pages = source.resources["projects"]
    return [slug for page in pages for slug in page["slug"].to_pylist() if slug]
