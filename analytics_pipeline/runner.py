"""Make the pipeline and run it: the public API beside the source."""

import gc
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

import dlt
from dlt.common.destination.client import WithStateSync
from dlt.common.destination.exceptions import UnknownDestinationModule
from dlt.common.exceptions import DltException
from dlt.common.runtime.collector_base import Collector
from dlt.extract import DltSource

from analytics_pipeline.client.client import ListName
from analytics_pipeline.config import resolve_config
from analytics_pipeline.errors import ApiError, ConfigurationError, IncompleteLoad
from analytics_pipeline.loading.comparison import compare
from analytics_pipeline.loading.destinations import (
    appended_tables,
    hidden_warnings,
    is_replaced,
    without_copies,
)
from analytics_pipeline.loading.failures import (
    check_tables,
    is_interruption,
    mask_traces,
    root_error,
)
from analytics_pipeline.loading.gone import mark_gone
from analytics_pipeline.loading.history import check_history, count_new_states
from analytics_pipeline.loading.locks import (
    check_shareable,
    dataset_lock,
    pipeline_lock,
    skip_stale_rows,
)
from analytics_pipeline.loading.partitions import Partition, partitions
from analytics_pipeline.loading.second_dataset import second_pipeline
from analytics_pipeline.loading.status import Status
from analytics_pipeline.loading.status import status as loaded_status
from analytics_pipeline.loading.summary import Summary, TableSummary, summarise
from analytics_pipeline.loading.verification import Verification
from analytics_pipeline.loading.warehouse import (
    check_destination,
    check_table_format,
    unknown_destination,
)
from analytics_pipeline.run import Run
from analytics_pipeline.secrets import mask_error
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
LONGEST_NAME = 64
"""Of a pipeline: dlt makes a schema's name of it."""
DATASET = "analytics"
ROWS_PER_LOAD = 100_000
"""Rows after which what was read is loaded, before reading goes on."""


def make_pipeline(
    destination: Any = "duckdb",
    *,
    dataset: str = DATASET,
    name: str = NAME,
    pipelines_dir: str | None = None,
    progress: str | Collector | None = None,
) -> dlt.Pipeline:
    """Return a dlt pipeline as the command line makes it.

    With DuckDB the file is `<name>.duckdb` in the folder where this pipeline ran first,
    as long as its working folder is there.

    Raises:
        ConfigurationError: dlt has no such destination, or cannot use the name.
    """
    for what, value in {"dataset": dataset, "destination": destination}.items():
        if isinstance(value, str) and not value.strip():
            raise ConfigurationError(f"{what} {value!r} is empty")
    if not name.isidentifier() or len(name) > LONGEST_NAME:
        raise ConfigurationError(
            f"pipeline name {name!r}: use only letters, digits and '_', a letter first,"
            f" and at most {LONGEST_NAME} of them"
        )
    # That the pipeline had another destination before: `load` follows the one it has.
    other_destination = hidden_warnings("in state differs from|staging destination")
    try:
        with other_destination:
            return dlt.pipeline(
                name,
                pipelines_dir=pipelines_dir,  # type: ignore[arg-type]
                destination=destination,
                dataset_name=dataset,
                progress=progress,  # type: ignore[arg-type]
            )
    except UnknownDestinationModule as error:
        raise unknown_destination(str(destination)) from error


def load(
    pipeline: dlt.Pipeline,
    source: DltSource,
    tables: Sequence[str] = (),
    table_format: Any = None,
) -> Summary:
    """Load what is new, in as many loads as it takes; of some tables, if they are named.

    It goes on from what the warehouse holds: newer state in the pipeline's working
    folder, and packages that were read but not loaded, are dropped, and what they held
    is read again. So a restored backup, a deleted working folder, and datasets that
    take turns all come right. Let only one run at a time load into a dataset; for
    several at once there is `load_shared`.

    Args:
        pipeline: as `make_pipeline` or `dlt.pipeline` makes it.
        source: as `analytics_source` makes it.
        tables: names of tables; none: all.
        table_format: on the filesystem, `"delta"`, `"iceberg"` or None, plain files.

    Raises:
        IncompleteLoad: some lists could not be read, and all others are loaded; or the
            server refused all.
        AnalyticsError: no list can be read: the server is out of reach, or the token
            is rejected. What was loaded until then stays.
        ConfigurationError: the destination cannot have this table format, or no history;
            or a table in the dataset holds rows of another source.
        PipelineLocked: another process runs this pipeline.
        AnalyticsError: a table was dropped without dlt's knowledge; nothing was asked.
        PipelineStepFailed: dlt or the destination failed.
    """
    run = Run(ROWS_PER_LOAD, continue_on_error=True)
    return _load(pipeline, _selected(source, tables), run, table_format)


def _load(
    pipeline: dlt.Pipeline, source: DltSource, run: Run, table_format: Any = None
) -> Summary:
    started = time.perf_counter()
    check_destination(pipeline)
    check_table_format(pipeline, table_format)
    if HISTORY in source.selected_resources:
        check_history(pipeline)
    with pipeline_lock(pipeline), _plain_errors():
        total = _load_pieces(pipeline, source, run, table_format)
    total.seconds = time.perf_counter() - started
    _raise_failures(run, total)
    return total


def _load_pieces(
    pipeline: dlt.Pipeline, source: DltSource, run: Run, table_format: Any = None
) -> Summary:
    """Load in as many loads as it takes, by a pipeline that nobody else runs."""
    total = Summary()
    quiet = appended_tables()
    with infrequent_gc(), without_copies(), quiet as appended, run.active():
        refresh: Any = pipeline.refresh
        _restore_state(pipeline)
        check_tables(pipeline, source)
        pipeline.refresh = None  # of the first load only: the others add to it
        try:
            info = pipeline.run(source, table_format=table_format, refresh=refresh)
            total.add(summarise(pipeline))
            load_ids = [*info.loads_ids]
            while run.is_unfinished:
                log.info("load %d is done, and there is more", total.loads)
                gc.collect()  # what dlt leaves of a load holds on to rows of it
                run.next_load()
                info = pipeline.run(_continued(source), table_format=table_format)
                total.add(summarise(pipeline))
                load_ids += info.loads_ids
        finally:
            pipeline.refresh = refresh
        mark_gone(pipeline, source)
        if HISTORY in source.selected_resources:
            states = count_new_states(pipeline, source, load_ids)
            total.tables[HISTORY] = TableSummary(states)
    total.appended = appended
    return total


def _raise_failures(run: Run, total: Summary) -> None:
    """Raise IncompleteLoad if a list failed, or all were refused."""
    failures = _failures(run)
    total.failed = {name: str(error) for name, error in failures.items()}
    if failures:
        total.skipped = {k: v for k, v in total.skipped.items() if k not in failures}
        raise IncompleteLoad(failures, total)


def _failures(run: Run) -> dict[str, ApiError]:
    """Return the lists that failed; if all were refused, these."""
    return run.failures | (run.refusals if run.is_refused else {})


def status(pipeline: dlt.Pipeline) -> Status:
    """Tell what a pipeline has loaded, by its warehouse alone: rows, bookmarks, problems.

    Raises:
        ConfigurationError: nothing was ever loaded, or the destination cannot be used.
        AnalyticsError: the destination cannot be reached, or is locked.
        DltException: a query failed.
    """
    with _plain_errors():
        return loaded_status(pipeline, datetime.now(UTC))


def verify(
    pipeline: dlt.Pipeline,
    source: DltSource,
    tables: Sequence[str] = (),
    *,
    repair: bool = False,
) -> Verification:
    """Compare what the server shows with what the warehouse holds, row by row.

    The span `since` to `until` of the source is loaded once more, in pieces, into the
    dataset `<dataset>_verify` of the same destination, compared there by key and by value,
    and dropped. What came after the comparison began is left out; columns that change
    with the hour (`stats`), `read_at` and dlt's own are not compared. Rows that the
    server does not show any more are counted apart.

    Args:
        pipeline: whose dataset to look at.
        source: what to read, as for `load`.
        tables: names of tables; none: all of the source but `issue_history`.
        repair: load the tables that differ once more, which replaces what is missing,
            different or doubled; then compare again. Doubled rows that the server no
            longer has stay, and are reported.

    Returns:
        Numbers of each table and project, and the first ten rows of each kind.

    Raises:
        ConfigurationError: the source has no such table, there is nothing to compare, or
            the destination cannot have the second dataset.
        AnalyticsError: the server is out of reach, or the token is rejected.
        IncompleteLoad: a list could not be read in order to be repaired.
        PipelineLocked: another process runs this pipeline.
        PipelineStepFailed: dlt or the destination failed.
    """
    started, began = time.perf_counter(), datetime.now(UTC)
    if unknown := {*tables} - source.resources.keys():
        raise ConfigurationError(
            f"the source has no table {', '.join(sorted(unknown))}"
        )
    names = [name for name in TABLES if name in (tables or source.selected_resources)]
    if not names:
        raise ConfigurationError(
            f"verify compares what servers show now: name other tables than {HISTORY}"
        )
    check_destination(pipeline)
    with pipeline_lock(pipeline), _plain_errors():
        found = _compared(pipeline, source.with_resources(*names), began)
        if repair and (unequal := found.unequal):
            before = found.totals()
            run = Run(ROWS_PER_LOAD, continue_on_error=True, keeps_bookmarks=False)
            total = _load_pieces(pipeline, _selected(source, unequal), run)
            _raise_failures(run, total)
            found = _compared(pipeline, source.with_resources(*names), began)
            found.before = before
    found.seconds = time.perf_counter() - started
    return found


def _compared(
    pipeline: dlt.Pipeline, source: DltSource, began: datetime
) -> Verification:
    run = Run(ROWS_PER_LOAD, continue_on_error=True, keeps_bookmarks=False)
    started = datetime.now(UTC)
    pipeline.sync_destination()
    stored = pipeline.schemas.get(source.schema.name)
    tables = stored.tables.values() if stored else ()
    formats = (table.get("table_format") for table in tables)
    table_format = next(filter(None, formats), None)
    # Of a source that was loaded, the schema has tables that the second dataset lacks.
    source.schema.drop_tables(source.schema.data_table_names(include_incomplete=True))
    for resource in source.selected_resources.values():
        # There is nothing to merge with.
        resource.apply_hints(write_disposition="append")
    with second_pipeline(pipeline) as second:
        _load_pieces(second, source, run, table_format)
        readers = run.readers.items()
        swept = {table for (table, _), each in readers if each.name.endpoint.is_swept}
        if swept:
            # A row that was seen again meanwhile has moved to the top of its list.
            run.done -= {each for each in run.done if each[0] in swept}
            run.next_load()
            _load_pieces(second, source.with_resources(*swept), run, table_format)
        unread = run.failures | run.refusals
        read = {k: each for k, each in run.readers.items() if each.title not in unread}
        found = compare(pipeline, second, source, read, run.extents, began, started)
    failures = _failures(run)
    found.failed = {title: str(error) for title, error in failures.items()}
    found.skipped = {k: str(e) for k, e in unread.items() if k not in failures}
    return found


def _restore_state(pipeline: dlt.Pipeline) -> None:
    """Let the state that the warehouse holds be the pipeline's, also where it is older.

    Where a destination holds none, where dlt's setting `restore_from_destination` is
    off, and with `dev_mode`, dlt's own way is kept.
    """
    has_state = issubclass(pipeline.destination.client_class, WithStateSync)
    is_restored = has_state and pipeline.config.restore_from_destination
    if is_restored and not pipeline.dev_mode:
        folder = pipeline.get_local_state_val("initial_cwd")
        pipeline.drop()
        # Or the next run, wherever it is, would make its DuckDB file in another folder.
        pipeline.set_local_state_val("initial_cwd", folder)
        # dlt writes the attribute into the state of a dataset that does not exist yet.
        pipeline.initial_cwd = folder  # type: ignore[attr-defined]
        return
    while pipeline.has_pending_data:
        pipeline.run()


def load_shared(
    pipeline: dlt.Pipeline, source: DltSource, tables: Sequence[str] = ()
) -> Summary:
    """Load into a dataset that other processes load into at the same time.

    For PostgreSQL and DuckDB. Each load needs a working folder of its own, begins
    without bookmarks and leaves none. All that load into the dataset must do it with
    this function; no row replaces one that was read later.

    Raises:
        ConfigurationError: the destination is another, a table in the dataset holds rows
            of another source, or this one has a history: only loads that know of each
            other can tell which states have ended.
        AnalyticsError, PipelineStepFailed: as dlt's own `pipeline.run` does.
    """
    started = time.perf_counter()
    check_destination(pipeline)
    check_shareable(pipeline)
    source = _selected(source, tables)
    if HISTORY in source.selected_resources:
        raise ConfigurationError(
            f"{HISTORY} is not for several loads at once, nor for partitions: leave"
            " history out here, and load it with runner.load()"
        )
    skip_stale_rows(pipeline, source)
    run = Run(keeps_bookmarks=False)
    with pipeline_lock(pipeline), _plain_errors(), run.active():
        restores = pipeline.config.restore_from_destination
        pipeline.config.restore_from_destination = False
        try:
            with dataset_lock(pipeline):
                check_tables(pipeline, source)
            pipeline.extract(source)
            summary = summarise(pipeline)
            pipeline.normalize()
            with dataset_lock(pipeline), without_copies():
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
    """Load one project from `since` to `until`, next to others that do the same.

    It may be run twice, late, out of order, or by two processes at once: each row is
    there once, in the version that was read last. An issue belongs to the partition in
    which it was last seen when the partition is read; one that is seen again moves on
    to a later one. So the issues of past partitions are complete together with those
    of the partitions up to now.

    Args:
        pipeline: with a working folder of its own.
        partition: see `partitions`.
        tables: names of tables.
        settings: further arguments of `analytics_source`.
    """
    span = {"since": partition.since, "until": partition.until}
    source = analytics_source(**{"project": partition.project} | settings | span)
    return load_shared(pipeline, source, tables)


def all_projects(source: DltSource | None = None, **settings: Any) -> list[str]:
    """Return the slugs of the organization's projects, asked from the server.

    Args:
        source: a source of the organization; or
        settings: arguments of `analytics_source`, of which no project is needed; what is
            not given is taken from dlt's configuration.

    Raises:
        ConfigurationError: a setting is missing or makes no sense.
        ApiError: the server did not answer.
    """
    if source is not None:
        tables = source.resources["projects"]
        slugs = [slug for rows in tables for slug in rows["slug"].to_pylist()]
    else:
        config = resolve_config(**settings, needs_project=False)
        projects = ListName(config.spec.endpoints["projects"])
        pages = make_client(config).pages(projects)
        slugs = [record.get("slug") for page in pages for record in page.records]
    return [slug for slug in slugs if slug]


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise the error of this package, or the Ctrl-C, that dlt wrapped.

    Secrets are masked in it, and in what dlt has stored of it.
    """
    try:
        yield
    except Exception as failure:
        mask_error(failure)
        mask_traces(failure)
        if not isinstance(failure, DltException):
            raise
        if is_interruption(failure):
            raise KeyboardInterrupt from failure
        root = root_error(failure)
        if root is failure:
            raise  # from itself it would lose its own cause
        raise root from failure


def _continued(source: DltSource) -> DltSource:
    """Return the source without what the first load of a run has brought whole."""
    resources = source.selected_resources
    names = [name for name, each in resources.items() if not is_replaced(each)]
    return source.with_resources(*names)


def _selected(source: DltSource, tables: Sequence[str]) -> DltSource:
    """Return the source with these tables; the history comes along with its issues."""
    if not tables:
        return source
    if HISTORY in tables and HISTORY not in source.resources:
        raise ConfigurationError(f"{HISTORY} needs the setting history")
    along = {HISTORY} & source.resources.keys() if "issues" in tables else set()
    return source.with_resources(*{*tables, *along})
