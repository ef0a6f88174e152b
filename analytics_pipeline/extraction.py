"""The lists of a resource as batches of rows for dlt, and their bookmarks."""

import logging
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, cast

import dlt
import pyarrow as pa

from analytics_pipeline.bookmarks import EARLIEST, Bookmark, earlier
from analytics_pipeline.client.client import Client, ListName
from analytics_pipeline.config import Config
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    OtherApi,
    UnknownName,
    Unreachable,
    by_reason,
    shortened,
)
from analytics_pipeline.loading import checks
from analytics_pipeline.loading.destinations import (
    is_appended,
    is_replaced,
    merges_copies,
)
from analytics_pipeline.loading.summary import forgotten
from analytics_pipeline.loading.threads import (
    ClosableBatches,
    DltContext,
    current_load_id,
)
from analytics_pipeline.reading import Extent, ListReader, Part
from analytics_pipeline.run import Run, active_run
from analytics_pipeline.tables.arrow import newest_copies
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.rows import RowBuilder
from analytics_pipeline.tables.schema import column_name
from analytics_pipeline.times import LONGEST, parse_lookback, parse_since, parse_time
from analytics_pipeline.values import infrequent_gc
from analytics_pipeline.workers import Budget, side_by_side

log = logging.getLogger(__name__)

Incremental = dlt.sources.incremental[datetime]

ROWS_PER_BATCH = 10_000
"""Rows of one Arrow table: fewer cost time, more cost memory."""
BYTES_PER_BATCH = 50_000_000
FAILURES = 5
"""A run ends after this many lists failed without a page."""
LONGEST_PROBLEM = 300
"""Characters of an error that are stored with a bookmark."""


class Api:
    """What the resources of one source share."""

    def __init__(self, config: Config, client: Client) -> None:
        self.config = config
        self.client = client
        self.builder = RowBuilder(config.tables, Redactor(config.redact))
        self._run = Run()
        self._load_id: str | None = None

    def run(self, context: DltContext) -> Run:
        """Return the active run, or one for this load alone.

        Raises:
            ConfigurationError: the run begins, and a check of the source fails.
        """
        run, load_id = active_run.get(), current_load_id()
        if run is None:
            is_same = load_id is not None and load_id == self._load_id
            run = self._run if is_same else Run()
        self._load_id = load_id
        if run is not self._run:
            checks.check_organization(self.config, context)
            checks.check_tags(self.config, context)
            self._run = run
            self.client.forget_answers()
        if run.budget is None:
            run.budget = Budget(self.config.rows_per_load or run.rows_per_load)
        return run


class Resource:
    """The source's `Api`, and the context in which dlt called the resource."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.context = DltContext.current()
        self.run = api.run(self.context)

    @contextmanager
    def reading(self, table: str, incremental: Incremental) -> Iterator["Reading"]:
        """Yield the lists of a table; record at the end how far they were read."""
        reading = Reading(self, table, incremental)
        metrics = self.context.resource().custom_metrics
        try:
            with infrequent_gc():
                yield reading
            reading.end()
        finally:
            metrics["lists"] = [reading.report(each) for each in reading.readers]
            reading.log_refusals()


def for_threads(
    resource: Callable[[Resource, Incremental], Iterator[pa.Table]],
) -> Callable[[Api, Incremental], Iterator[pa.Table]]:
    """Let dlt read a resource in one of its threads."""

    @wraps(resource)
    def called(api: Api, incremental: Incremental) -> Iterator[pa.Table]:
        batches = resource(Resource(api), incremental)
        return ClosableBatches(cast(Generator[pa.Table, None, None], batches))

    return called


class Batch:
    """Rows for dlt, and the bookmarks that are true once dlt has them."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.bytes = 0
        self.size = 0
        self._tables: list[pa.Table] = []
        self._bookmarks: dict[str, dict[str, Any]] = {}
        self._stored = stored

    def add(self, key: str, part: Part) -> int:
        """Add a page and its list's bookmark; return the bytes of its rows."""
        if part.bookmark:
            self._bookmarks[key] = part.bookmark
        if part.rows is None or not part.rows.num_rows:
            return 0
        self._tables.append(part.rows)
        self.size += part.rows.num_rows
        size: int = part.rows.nbytes
        self.bytes += size
        return size

    @property
    def rows(self) -> pa.Table:
        """All rows as one table."""
        return pa.concat_tables(self._tables)

    def unique(self, key: list[str]) -> Iterator["Batch"]:
        """Yield the newest copy of each key, in batches; the last has the bookmarks."""
        rows = newest_copies(self.rows, key)
        for start in range(0, rows.num_rows, ROWS_PER_BATCH):
            batch = Batch(self._stored)
            batch.add("", Part({}, rows=rows.slice(start, ROWS_PER_BATCH)))
            if start + ROWS_PER_BATCH >= rows.num_rows:
                batch._bookmarks = self._bookmarks
            yield batch

    def confirm(self) -> None:
        """Store the bookmarks: dlt has the rows."""
        self._stored.update(self._bookmarks)


class Reading:
    """The lists of one resource in one load.

    dlt's own filter is switched off, because one value cannot stand for many projects;
    `since`, `until` and lookback still come from its `incremental`.
    """

    def __init__(
        self, resource: Resource, table: str, incremental: Incremental
    ) -> None:
        self.readers: list[ListReader] = []
        self._run, self._context = resource.run, resource.context
        self._client, self._config = resource.api.client, resource.api.config
        self._builder = resource.api.builder
        self._table = table
        self._endpoint = self._config.spec.endpoints[table]
        self._column = column_name(self._endpoint.replication_key)
        self._projects = self._config.projects_of(self._endpoint)
        self._is_first_load = table not in self._run.extents
        hints = self._context.resource()
        self._is_replaced = is_replaced(hints)  # all is read again, in one load
        checks.check_incremental(table, incremental, self._column)
        checks.check_history_of(self._context, self._endpoint, self._is_replaced)
        is_verify = self._run.continue_on_error and not self._run.keeps_bookmarks
        if is_appended(hints) and self._is_first_load and not is_verify:
            log.warning(
                "%s: rows that are read again, for example by the lookback, are appended"
                " to their old copies; write_disposition merge replaces these",
                table,
            )
        self._extent = self._get_extent(incremental)
        self._state = self._context.resource_state()
        self._stored = self._get_bookmarks(str(hints.table_name))
        # Of which a load must hold only one copy.
        key = self._config.tables[table].primary_key
        self._unique = [] if merges_copies(hints) else key

    def batches(self) -> Iterator[Batch]:
        """Yield batches of rows, to be confirmed once dlt has taken them."""
        batch, is_first = Batch(self._stored), True
        readers, workers = self._begin_readers(), self._config.workers
        budget = self._get_budget()
        for reader, outcome in side_by_side(readers, workers, budget, self._client):
            if outcome is None:
                self._run.done.add((self._table, self._key(reader.name.project)))
                log.info("%s: read to its end", reader.title)
                continue
            if isinstance(outcome, ApiError):
                outcome = self._failed(reader, outcome)
            self._run.report_progress(reader, outcome)
            self._run.bytes += batch.add(self._key(reader.name.project), outcome)
            # The first page is yielded alone, for `add_limit(1)`.
            limit = 1 if is_first else ROWS_PER_BATCH
            is_full = batch.size >= limit or batch.bytes >= BYTES_PER_BATCH
            if is_full and not self._unique:
                yield batch
                batch, is_first = Batch(self._stored), False
        if batch.size and self._unique:
            yield from batch.unique(self._unique)
        elif batch.size:
            yield batch
        else:
            batch.confirm()

    def end(self) -> None:
        """Record how far the lists were read, now that all batches are confirmed."""
        run = self._run
        if self._extent.until is None:  # otherwise dlt stores no value
            self._set_last_value()
        if not {(self._table, self._key(p)) for p in self._projects} <= run.done:
            run.is_unfinished = True  # not |=, as tables end in several threads
        if not run.continue_on_error:
            self._warn()

    def report(self, reader: ListReader) -> dict[str, Any]:
        """Return the figures of a list, for dlt's trace and the summary of a run."""
        stats, kept_from = reader.stats, self._client.kept_from
        return {
            "table": self._table,
            "project": reader.name.project,
            "rows": stats.rows,
            "reread": stats.reread,
            "requests": reader.name.stats.requests,
            "mismatches": stats.mismatches,
            "replaced": reader.name.stats.replaced,
            "newest": stats.newest.isoformat() if stats.newest else None,
            "list": reader.title,
            "refusal": str(self._run.refusals.get(reader.title, "")),
            "masked": sorted(stats.masked),
            "unmatched": sorted(stats.unmatched),
            "kept_from": kept_from.isoformat() if kept_from else None,
            "waited": self._client.session.limiter.waited,
        }

    def log_refusals(self) -> None:
        """Log why lists were skipped, unless `runner.load` reports it."""
        refusals = self._run.refusals
        if not self._run.continue_on_error:
            titles = [each.title for each in self.readers if each.title in refusals]
            for line in by_reason(refusals[title] for title in titles):
                log.warning("skipped: %s", line)

    def _get_extent(self, incremental: Incremental) -> Extent:
        incremental.advance(None)  # type: ignore[arg-type]
        since = parse_since(incremental.initial_value)
        until = parse_time("until", incremental.end_value)
        lookback = self._config.lookback
        if incremental.lag is not None:
            lookback = parse_lookback(incremental.lag)
        is_swept = self._run.keeps_bookmarks and not self._is_replaced
        sweep = self._config.sweep if is_swept else None
        extent = Extent(since, until, lookback, sweep, self._config.full_refresh)
        return self._run.extents.setdefault(self._table, extent)

    def _get_bookmarks(self, table_name: str) -> dict[str, Any]:
        """Return the stored bookmarks; none if the table is empty."""
        run, context, is_first = self._run, self._context, self._is_first_load
        if self._is_replaced or (is_first and not context.has_rows(table_name)):
            self._state.pop("bookmarks", None)  # dropped, refreshed, or another dataset
        if self._extent.until is not None or not run.keeps_bookmarks:
            return run.unkept.setdefault(self._table, {})
        bookmarks: dict[str, Any] = self._state.setdefault("bookmarks", {})
        if is_first and self._endpoint.is_swept and self._is_history_empty():
            now = datetime.now(UTC)
            for key, stored in bookmarks.items():
                bookmark = Bookmark.parse(stored, now)
                if bookmark.loaded.spans:
                    bookmark.begin_sweep(now)  # to fill the history
                bookmarks[key] = bookmark.as_state()
        return bookmarks

    def _is_history_empty(self) -> bool:
        """Return whether the history is loaded for the first time."""
        context = self._context
        history = context.source.selected_resources.get(HISTORY)
        return history is not None and not context.has_rows(str(history.table_name))

    def _get_budget(self) -> Budget:
        """Return the load's budget, without a limit if no other load could continue."""
        extent, run = self._extent, self._run
        is_kept = run.keeps_bookmarks and not (extent.until or extent.full_refresh)
        # With "now", another run would begin the sweep again.
        is_resumed = run.continue_on_error or (is_kept and extent.sweep != timedelta())
        is_limited = is_resumed and not self._is_replaced
        return run.budget if run.budget and is_limited else Budget()

    def _begin_readers(self) -> Iterator[ListReader]:
        """Yield a reader of each list that is not done, the least recently read first."""
        for project in sorted(self._projects, key=self._get_completion):
            key = self._key(project)
            if (self._table, key) in self._run.done:
                continue
            reader = ListReader(
                self._client,
                ListName(self._endpoint, project),
                self._stored.get(key, {}),
                self._extent,
                self._builder,
                self._run.began_at,
            )
            self.readers.append(reader)
            self._run.readers[self._table, key] = reader
            yield reader

    def _failed(self, reader: ListReader, error: ApiError) -> Part:
        """Record a refusal or failure; return the list's bookmark with it.

        Raises:
            ApiError: the error ends the run.
        """
        run, key = self._run, self._key(reader.name.project)
        status = error.status if isinstance(error, HttpError) else 0
        is_final = status == 401 or isinstance(error, Unreachable | OtherApi)
        if is_final or self._is_replaced:  # or the table would lose its rows
            raise error
        is_expected = status in self._endpoint.tolerated_statuses
        is_refused = is_expected or isinstance(error, UnknownName)
        is_refused &= not reader.stats.pages
        if is_refused:
            run.refusals[reader.title] = error
        elif run.continue_on_error and (run.has_pages or len(run.failures) < FAILURES):
            run.failures.setdefault(reader.title, error)
        elif reader.is_sweeping and not run.continue_on_error:
            log.warning(
                "%s (new rows are loaded; the next run continues the sweep)", error
            )
        else:
            raise error
        run.done.add((self._table, key))
        if is_refused and status != 403 and key not in self._stored:
            return Part({})  # a wrong name
        problem = shortened(str(error), LONGEST_PROBLEM)
        failed_at = datetime.now(UTC).replace(microsecond=0).isoformat()
        return Part(reader.state | {"problem": problem, "failed_at": failed_at})

    def _key(self, project: str) -> str:
        """Return the key of a list's bookmark: server, organization and project."""
        return f"{self._config.server} {self._config.organization}/{project}"

    def _get_completion(self, project: str) -> str:
        """Return when a list was last read to its end, or ""."""
        stored = self._stored.get(self._key(project), {})
        return str(stored.get("completed_at") or stored.get("read") or "")

    def _set_last_value(self) -> None:
        """Set dlt's `last_value` to the oldest end of the bookmarks.

        dlt subtracts the lag from it, and fails if the result is before the year 1.
        """
        stored = self._state.get("bookmarks", {})
        bookmarks = [
            Bookmark.parse(stored.get(self._key(project), {}), datetime.now(UTC))
            for project in self._projects
        ]
        ends = [each.loaded.spans[0].end for each in bookmarks if each.loaded.spans]
        is_known = len(ends) == len(bookmarks) and bool(ends)
        last = min(ends) if is_known else self._extent.since
        if last and earlier(last, LONGEST) == EARLIEST:
            last = None
        self._state["incremental"][self._column]["last_value"] = last

    def _warn(self) -> None:
        """Log what `runner.load` has in its summary; raise if every list was refused."""
        run, kept_from = self._run, self._client.kept_from
        if run.is_unfinished:
            log.warning("%s: more rows are left. Run again.", self._table)
        if kept_from and self._endpoint.filters_time:
            log.warning("%s", forgotten(kept_from))
        run.ended.add(self._table)
        selected = {*self._context.source.selected_resources} - {HISTORY}
        if run.is_refused and run.ended >= selected:
            raise next(iter(run.refusals.values()))
