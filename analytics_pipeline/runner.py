"""The public functions beside the source: make a pipeline, load, status, verify."""

import gc
import logging
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import dlt
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.runtime.collector_base import Collector
from dlt.extract import DltSource

from analytics_pipeline.client.client import ListName
from analytics_pipeline.config import resolve_config
from analytics_pipeline.errors import ConfigurationError, IncompleteLoad
from analytics_pipeline.loading import destinations, locks, warehouse
from analytics_pipeline.loading.comparison import compare
from analytics_pipeline.loading.duckdb_file import open_file
from analytics_pipeline.loading.failures import plain_errors, root_error
from analytics_pipeline.loading.gone import mark_gone
from analytics_pipeline.loading.history import check_history, count_new_states
from analytics_pipeline.loading.partitions import Partition, partitions
from analytics_pipeline.loading.second_dataset import second_pipeline
from analytics_pipeline.loading.status import Status
from analytics_pipeline.loading.status import status as loaded_status
from analytics_pipeline.loading.summary import Summary, TableSummary, summarise
from analytics_pipeline.loading.verification import Verification
from analytics_pipeline.run import Run
from analytics_pipeline.source import analytics_source, make_client
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.values import infrequent_gc

__all__ = [
    "DATASET",
    "NAME",
    "ROWS_PER_LOAD",
    "Partition",
    "Status",
    "Summary",
    "Verification",
    "all_projects",
    "load",
    "load_shared",
    "make_pipeline",
    "mark_gone",
    "partitions",
    "root_error",
    "run_partition",
    "status",
    "summarise",
    "verify",
]

log = logging.getLogger(__name__)

NAME = "analytics_pipeline"
LONGEST_NAME = 64  # dlt names a schema after the pipeline
DATASET = "analytics"
ROWS_PER_LOAD = 100_000


def make_pipeline(
    destination: Any = "duckdb",
    *,
    dataset: str = DATASET,
    name: str = NAME,
    pipelines_dir: str | None = None,
    progress: str | Collector | None = None,
) -> dlt.Pipeline:
    """Return a dlt pipeline as the command line makes it.

    DuckDB's file is `<name>.duckdb` in the folder where the pipeline first ran, as long
    as its working folder exists.

    Raises:
        ConfigurationError: the destination is unknown, or the name is invalid.
    """
    for what, value in {"dataset": dataset, "destination": destination}.items():
        if isinstance(value, str) and not value.strip():
            raise ConfigurationError(f"{what} {value!r} is empty")
    if not name.isidentifier() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"pipeline name {name!r}: use at most {LONGEST_NAME} letters, digits and '_',"
            " with a letter first"
        )
    # The pipeline had another destination before; `load` uses the state in this one.
    changed = re.compile("in state differs from|staging destination")
    try:
        with destinations.filtered_log(lambda message: not changed.search(message)):
            return dlt.pipeline(
                name,
                pipelines_dir=pipelines_dir,  # type: ignore[arg-type]
                destination=destination,
                dataset_name=dataset,
                progress=progress,  # type: ignore[arg-type]
            )
    except UnknownDestinationModule as error:
        raise warehouse.unknown_destination(str(destination)) from error


def load(
    pipeline: dlt.Pipeline,
    source: DltSource,
    tables: Sequence[str] = (),
    table_format: Any = None,
) -> Summary:
    """Load new data, in as many loads as it takes.

    The state in the warehouse decides where to continue, even if the pipeline's working
    folder has a newer state or packages that are not loaded yet; those rows are read
    again. So restored backups, deleted working folders and alternating datasets work.
    For concurrent loads into one dataset, use `load_shared`.

    Args:
        pipeline: from `make_pipeline` or `dlt.pipeline`.
        source: from `analytics_source`.
        tables: names of tables to load; default: all.
        table_format: on the filesystem, `"delta"`, `"iceberg"` or None for plain files.

    Raises:
        IncompleteLoad: some lists could not be read, and all others are loaded; or the
            server refused all.
        ConfigurationError: the destination does not support the table format or the
            history; or a table in the dataset holds rows of another source.
        PipelineLocked: another process runs this pipeline.
        AnalyticsError: the server cannot be reached, or rejects the token; data loaded so
            far is kept. Or a table was dropped without dlt's knowledge.
        PipelineStepFailed: dlt or the destination failed.
    """
    started = time.perf_counter()
    source = _selected(source, tables)
    warehouse.check_destination(pipeline)
    warehouse.check_table_format(pipeline, table_format)
    if HISTORY in source.selected_resources:
        check_history(pipeline)
    run = Run(ROWS_PER_LOAD, continue_on_error=True)
    with locks.pipeline_lock(pipeline), plain_errors():
        total = _load_pieces(pipeline, source, run, table_format)
    total.seconds = time.perf_counter() - started
    _raise_failures(run, total)
    return total


def _load_pieces(
    pipeline: dlt.Pipeline, source: DltSource, run: Run, table_format: Any = None
) -> Summary:
    """Load in as many loads as it takes."""
    total = Summary()
    with (
        infrequent_gc(),
        destinations.without_copies(),
        destinations.appended_tables() as total.appended,
        run.active(),
    ):
        warehouse.restore_state(pipeline)
        with open_file(pipeline, lambda: run.bytes):
            warehouse.check_tables(pipeline, source)
            load_ids = _run_loads(pipeline, source, run, total, table_format)
            mark_gone(pipeline, source)
            if HISTORY in source.selected_resources:
                states = count_new_states(pipeline, source, load_ids)
                total.tables[HISTORY] = TableSummary(states)
    return total


def _run_loads(
    pipeline: dlt.Pipeline,
    source: DltSource,
    run: Run,
    total: Summary,
    table_format: Any,
) -> list[str]:
    """Load until nothing is left; return the ids of the loads."""
    load_ids, refresh = list[str](), pipeline.refresh
    resources = source.selected_resources.items()
    merged = [name for name, each in resources if not destinations.is_replaced(each)]
    try:
        while True:
            load_ids += pipeline.run(source, table_format=table_format).loads_ids
            pipeline.refresh = None  # later loads add to the first one
            summarise(pipeline, total)
            if not run.is_unfinished:
                return load_ids
            log.info("load %d is done, and there is more", total.loads)
            gc.collect()  # dlt's objects of a load hold on to its rows
            run.next_load()
            source = source.with_resources(*merged)
    finally:
        pipeline.refresh = refresh


def _raise_failures(run: Run, total: Summary) -> None:
    """Raise IncompleteLoad if a list failed, or the server refused all."""
    if failed := run.failed:
        total.failed = {name: str(error) for name, error in failed.items()}
        total.skipped = {k: v for k, v in total.skipped.items() if k not in failed}
        raise IncompleteLoad(failed, total)


def status(pipeline: dlt.Pipeline) -> Status:
    """Return rows, loaded range and last error of every list, from the warehouse alone.

    Raises:
        ConfigurationError: nothing was ever loaded, or the destination cannot be used.
        AnalyticsError: the destination cannot be reached, or is locked.
        DltException: a query failed.
    """
    with plain_errors():
        return loaded_status(pipeline, datetime.now(UTC))


def verify(
    pipeline: dlt.Pipeline,
    source: DltSource,
    tables: Sequence[str] = (),
    *,
    repair: bool = False,
) -> Verification:
    """Compare the server's rows with those in the warehouse.

    `since` to `until` of the source is loaded again, into the dataset `<dataset>_verify`
    of the same destination, compared there by key and value, and dropped. Rows that came
    after the start, `read_at`, dlt's columns and those that change every hour (`stats`)
    are not compared. Rows that the server no longer shows are counted separately.

    Args:
        pipeline: its dataset is compared.
        source: what to read, as for `load`.
        tables: names of tables; default: all of the source but `issue_history`.
        repair: load the tables that differ again, which replaces missing, different and
            doubled rows; then compare again. Doubled rows that the server no longer has
            stay, and are reported.

    Returns:
        Counts of each table and project, and the first ten rows of each kind.

    Raises:
        ConfigurationError: the source has no such table, there is nothing to compare, or
            the second dataset cannot be created.
        AnalyticsError: the server cannot be reached, or rejects the token.
        IncompleteLoad: a list could not be read for the repair.
        PipelineLocked: another process runs this pipeline.
        PipelineStepFailed: dlt or the destination failed.
    """
    started, began = time.perf_counter(), datetime.now(UTC)
    if unknown := sorted({*tables} - source.resources.keys()):
        raise ConfigurationError(f"the source has no table {', '.join(unknown)}")
    names = [name for name in TABLES if name in (tables or source.selected_resources)]
    if not names:
        raise ConfigurationError(
            f"{HISTORY} cannot be compared, because servers do not keep it; name another table"
        )
    warehouse.check_destination(pipeline)
    with locks.pipeline_lock(pipeline), plain_errors():
        found = _compared(pipeline, source.with_resources(*names), began)
        if repair and (unequal := found.unequal):
            before = found.totals()
            run = Run(ROWS_PER_LOAD, continue_on_error=True, keeps_bookmarks=False)
            table_format = _table_format(pipeline, source)
            total = _load_pieces(
                pipeline, _selected(source, unequal), run, table_format
            )
            _raise_failures(run, total)
            found = _compared(pipeline, source.with_resources(*names), began)
            found.before = before
    found.seconds = time.perf_counter() - started
    return found


def _compared(
    pipeline: dlt.Pipeline, source: DltSource, began: datetime
) -> Verification:
    run = Run(ROWS_PER_LOAD, continue_on_error=True, keeps_bookmarks=False)
    pipeline.sync_destination()
    table_format = _table_format(pipeline, source)
    # After a load, the source's schema has tables that the second dataset lacks.
    source.schema.drop_tables(source.schema.data_table_names(include_incomplete=True))
    # Appending is faster, and the dataset is empty; SQLAlchemy's may have primary keys.
    if destinations.destination_kind(pipeline) != "sqlalchemy":
        for resource in source.selected_resources.values():
            resource.apply_hints(write_disposition="append")
    with second_pipeline(pipeline) as second:
        _load_pieces(second, source, run, table_format)
        readers = run.readers.items()
        swept = {table for (table, _), each in readers if each.name.endpoint.is_swept}
        if swept:
            # Rows that changed during the load have moved to the top of their list.
            run.done -= {each for each in run.done if each[0] in swept}
            run.next_load()
            _load_pieces(second, source.with_resources(*swept), run, table_format)
        return compare(pipeline, second, source, run, began)


def _table_format(pipeline: dlt.Pipeline, source: DltSource) -> Any:
    """Return the format of the tables that are loaded."""
    stored = pipeline.schemas.get(source.schema.name)
    formats = {t.get("table_format") for t in stored.tables.values()} if stored else {}
    return next(filter(None, formats), None)


def load_shared(
    pipeline: dlt.Pipeline, source: DltSource, tables: Sequence[str] = ()
) -> Summary:
    """Load into a PostgreSQL or DuckDB dataset that other processes load into concurrently.

    Every load into the dataset must use this function and its own working folder. Bookmarks
    are neither used nor stored. No row replaces one that was read later.

    Raises:
        ConfigurationError: the destination is not supported, a table in the dataset holds
            rows of another source, or `issue_history` is selected: concurrent loads cannot
            know which states have ended.
        AnalyticsError, PipelineStepFailed: as dlt's own `pipeline.run`.
    """
    started = time.perf_counter()
    warehouse.check_destination(pipeline)
    locks.check_shareable(pipeline)
    source = _selected(source, tables)
    if HISTORY in source.selected_resources:
        raise ConfigurationError(
            f"{HISTORY} cannot be loaded concurrently or in partitions; leave history out"
            " here, and load it with runner.load()"
        )
    locks.skip_stale_rows(pipeline, source)
    run = Run(keeps_bookmarks=False)
    with locks.pipeline_lock(pipeline), plain_errors(), run.active():
        restores = pipeline.config.restore_from_destination
        pipeline.config.restore_from_destination = False
        try:
            with locks.dataset_lock(pipeline):
                warehouse.check_tables(pipeline, source)
            pipeline.extract(source)
            summary = summarise(pipeline)
            pipeline.normalize()
            with locks.dataset_lock(pipeline), destinations.without_copies():
                pipeline.load()
        finally:
            pipeline.config.restore_from_destination = restores
    summary.seconds = time.perf_counter() - started
    return summary


def run_partition(
    pipeline: dlt.Pipeline,
    partition: Partition,
    tables: Sequence[str] = ("events", "issues"),
    **settings: Any,
) -> Summary:
    """Load one project from `since` to `until`; other partitions may load concurrently.

    Partitions can be loaded again, late and in any order: each row is stored once, in the
    version that was read last. An issue belongs to the partition in which it was last
    seen, and moves to a later one when it is seen again. So issues are complete only once
    all partitions up to now are loaded.

    Args:
        pipeline: with a working folder of its own.
        partition: from `partitions`.
        tables: names of tables.
        settings: further arguments of `analytics_source`.
    """
    span = {"since": partition.since, "until": partition.until}
    source = analytics_source(**{"project": partition.project} | settings | span)
    return load_shared(pipeline, source, tables)


def all_projects(source: DltSource | None = None, **settings: Any) -> list[str]:
    """Return the slugs of the organization's projects, requested from the server.

    Args:
        source: a source of the organization; or
        settings: arguments of `analytics_source`, except `project`; others are taken from
            dlt's configuration.

    Raises:
        ConfigurationError: a setting is missing or invalid.
        ApiError: the server did not answer.
    """
    if source is not None:
        tables = source.resources["projects"]
        slugs = [slug for rows in tables for slug in rows["slug"].to_pylist()]
    else:
        config = resolve_config(**settings, needs_project=False)
        pages = make_client(config).pages(ListName(config.spec.endpoints["projects"]))
        slugs = [record.get("slug") for page in pages for record in page.records]
    return [slug for slug in slugs if slug]


def _selected(source: DltSource, tables: Sequence[str]) -> DltSource:
    """Return the source with these tables; the history is loaded with its issues."""
    if not tables:
        return source
    if HISTORY in tables and HISTORY not in source.resources:
        raise ConfigurationError(f"{HISTORY} needs the setting history")
    along = {HISTORY} & source.resources.keys() if "issues" in tables else set()
    return source.with_resources(*{*tables, *along})
