"""What dlt extracts: the lists of a resource as batches of rows, and its bookmarks."""

import logging
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt.common.pipeline import current_pipeline

from analytics_pipeline.bookmarks import EARLIEST, Bookmark, earlier
from analytics_pipeline.client.client import Client, ListName
from analytics_pipeline.config import (
    LONGEST,
    Config,
    parse_seconds,
    parse_since,
    parse_time,
)
from analytics_pipeline.errors import (
    ApiError,
    ConfigurationError,
    HttpError,
    OtherApi,
    UnknownName,
    Unreachable,
    by_reason,
    shortened,
)
from analytics_pipeline.loading.destinations import (
    is_appended,
    is_replaced,
    merges_copies,
)
from analytics_pipeline.loading.history import check_history
from analytics_pipeline.loading.summary import forgotten
from analytics_pipeline.loading.threads import (
    ClosableBatches,
    DltContext,
    current_load_id,
)
from analytics_pipeline.reading import Budget, Extent, ListReader, Part, side_by_side
from analytics_pipeline.tables.arrow import newest_copies
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.rows import RowBuilder
from analytics_pipeline.tables.schema import column_name
from analytics_pipeline.values import infrequent_gc

log = logging.getLogger(__name__)

Incremental = dlt.sources.incremental[datetime]

ROWS_PER_BATCH = 10_000
"""Rows of one Arrow table: fewer cost time, more cost memory."""
BYTES_PER_BATCH = 50_000_000
FAILURES = 5
"""After so many lists, of which none gave a page, a run ends."""
LONGEST_PROBLEM = 300
"""Characters of an error that are kept with a bookmark."""
READ = "read: "
"""Begins the names of the counters that tell dlt's collector of pages."""
REQUESTS = "requests"
"""The name of the counter of requests."""


@dataclass
class Run:
    """What the loads of one run share. `runner.load` makes one; elsewhere a load is one."""

    rows_per_load: int | None = None
    """Where the source has no such setting; None: all in one load."""
    single_load: bool = False
    """There is only one load, whatever the setting says."""
    keeps_bookmarks: bool = True
    """Bookmarks are taken from dlt's state and kept there; otherwise all is read."""
    continue_on_error: bool = False
    """A list that fails does not end the run, but is in `failures`."""
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    extents: dict[str, Extent] = field(default_factory=dict)
    """Table → what is read of its lists."""
    readers: dict[tuple[str, str], ListReader] = field(default_factory=dict)
    """Table and list → the reader of its last load in this run."""
    done: set[tuple[str, str]] = field(default_factory=set)
    """Table and list: those that later loads need not read."""
    checked: set[str] = field(default_factory=set)
    """Tables whose bookmarks are known to be true of them."""
    failures: dict[str, ApiError] = field(default_factory=dict)
    """List → its error."""
    refusals: dict[str, ApiError] = field(default_factory=dict)
    """List → why the server does not give it; another run asks again."""
    ended: set[str] = field(default_factory=set)
    """Tables of this load that were read."""
    bounded: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Table → bookmarks that are not kept, such as those of readings with an `until`."""
    has_pages: bool = False
    """The server has given a page."""
    is_unfinished: bool = False
    """Some lists have more rows, for a further load."""
    _budget: Budget | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def is_refused(self) -> bool:
        """The server gave nothing but refusals."""
        return bool(self.refusals) and not self.has_pages

    def budget(self, rows_per_load: int | None) -> Budget:
        """Return that of the load which is under way."""
        with self._lock:  # tables are read in threads
            if self._budget is None:
                rows = rows_per_load or self.rows_per_load
                self._budget = Budget(None if self.single_load else rows)
            return self._budget

    def next_load(self) -> None:
        """Begin another load."""
        self.is_unfinished = False
        self._budget = None

    @contextmanager
    def active(self) -> Iterator["Run"]:
        """Make it the run of all sources that are read inside."""
        token = active_run.set(self)
        try:
            yield self
        finally:
            active_run.reset(token)


active_run: ContextVar[Run | None] = ContextVar("analytics_pipeline_run", default=None)


class Api:
    """What the resources of one source share."""

    def __init__(self, config: Config, client: Client) -> None:
        self.config = config
        self.client = client
        self.builder = RowBuilder(config.tables, Redactor(config.redact))
        self._run = Run()
        self._load_id: str | None = None

    def run(self, context: DltContext) -> Run:
        """Return the run that is active, or one for this load alone.

        Raises:
            ConfigurationError: it begins, and cannot load what is asked for.
        """
        run, load_id = active_run.get(), current_load_id()
        if run is None:
            is_same = load_id is not None and load_id == self._load_id
            run = self._run if is_same else Run(self.config.rows_per_load)
        self._load_id = load_id
        if run is not self._run:
            _check_organization(self.config, context)
            _check_tags(self.config, context)
            self._run = run
            self.client.forget_answers()
        return run


def _check_organization(config: Config, context: DltContext) -> None:
    """Check that no rows of another organization would be replaced by its own.

    Raises:
        ConfigurationError: a table holds some, which may have the same keys.
    """
    for table, resource in context.source.selected_resources.items():
        endpoint = config.spec.endpoints.get(table)
        if endpoint is None or endpoint.by_project or endpoint.key == "id":
            continue
        if is_replaced(resource):
            continue
        if not context.has_rows(str(resource.table_name)):
            continue
        state = dlt.current.resource_state(table, context.source_state)
        for key, stored in state.get("bookmarks", {}).items():
            server, _, name = key.partition(" ")
            other = name.rstrip("/")
            if server != config.server or other == config.organization:
                continue
            if Bookmark.parse(stored, datetime.now(UTC)).loaded.spans:
                raise ConfigurationError(
                    f"{table}: the dataset holds those of organization {other!r}, and"
                    f" those of {config.organization!r} may have the same"
                    f" {endpoint.key}, by which this server tells them apart; load each"
                    " organization into a dataset of its own (--dataset, dataset_name)"
                )


def _check_tags(config: Config, context: DltContext) -> None:
    """Check that the destination takes the names of columns made of tags.

    Raises:
        ConfigurationError: dlt would shorten a name, and nothing would find the column.
    """
    longest = context.schema.naming.max_length
    for column, tag in config.tables["events"].tags.items():
        if longest and len(column) > longest:
            raise ConfigurationError(
                f"tags {tag!r}: the column {column!r} has {len(column)} characters, and"
                f" the destination takes {longest}; leave this tag out of the setting"
                " tags, since the column tags holds it, too"
            )


class Resource:
    """What one resource gets: the source's `Api`, and what dlt says when it calls it."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._context = DltContext.current()
        self._run = api.run(self._context)

    @contextmanager
    def reading(self, table: str, incremental: Incremental) -> Iterator["Reading"]:
        """Read the lists of a table; record at the end how far they were read."""
        reading = Reading(self._api, self._run, table, incremental, self._context)
        metrics = self._context.resource().custom_metrics
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
    """Prepare a resource for being read in a thread of dlt's."""

    @wraps(resource)
    def called(api: Api, incremental: Incremental) -> Iterator[pa.Table]:
        batches = resource(Resource(api), incremental)
        return ClosableBatches(cast(Generator[pa.Table, None, None], batches))

    return called


class Batch:
    """Rows to hand over to dlt, and the bookmarks that are true once it has them."""

    def __init__(self, stored: dict[str, Any]) -> None:
        self.bytes = 0
        self.size = 0
        self._tables: list[pa.Table] = []
        self._bookmarks: dict[str, dict[str, Any]] = {}
        self._stored = stored

    def add(self, key: str, part: Part) -> None:
        """Add a page, and the bookmark of its list."""
        if part.rows is not None and part.rows.num_rows:
            self._tables.append(part.rows)
            self.size += part.rows.num_rows
            self.bytes += part.rows.nbytes
        if part.bookmark:
            self._bookmarks[key] = part.bookmark

    @property
    def rows(self) -> pa.Table:
        """All rows as one table."""
        return pa.concat_tables(self._tables)

    def unique(self, key: list[str], size: int) -> Iterator["Batch"]:
        """Yield the newest copy of each key, in batches; the last has the bookmarks."""
        rows = newest_copies(self.rows, key)
        for start in range(0, rows.num_rows, size):
            batch = Batch(self._stored)
            batch.add("", Part({}, rows=rows.slice(start, size)))
            if start + size >= rows.num_rows:
                batch._bookmarks = self._bookmarks
            yield batch

    def confirm(self) -> None:
        """Store the bookmarks: dlt has the rows."""
        self._stored.update(self._bookmarks)


class Reading:
    """The lists of one resource in one load.

    dlt's own filter is put aside, since one value cannot stand for many projects; from
    and up to when to read is still taken from its `incremental`.
    """

    def __init__(
        self,
        api: Api,
        run: Run,
        table: str,
        incremental: Incremental,
        context: DltContext,
    ) -> None:
        self.readers: list[ListReader] = []
        self._api = api
        self._config = api.config
        self._client = api.client
        self._run = run
        self._table = table
        self._endpoint = api.client.spec.endpoints[table]
        self._context = context
        self._column = column_name(self._endpoint.replication_key)
        self._projects = api.config.projects_of(self._endpoint)
        resource = context.resource()
        self._is_replaced = is_replaced(resource)
        """The table is emptied first, so all is read again, in one load."""
        self._has_history = self._endpoint.is_swept and context.selects(HISTORY)
        self._check(incremental)
        is_checked = resource.table_name in run.checked
        if run.keeps_bookmarks and is_appended(resource) and not is_checked:
            log.warning(
                "%s: rows that are read again, as by the lookback, are appended beside"
                " their old copies; write_disposition merge replaces these",
                table,
            )
        self._extent = self._get_extent(incremental)
        self._state = context.resource_state()
        self._stored = self._get_bookmarks(str(resource.table_name))
        is_unique = not merges_copies(resource)
        self._unique = self._config.tables[table].primary_key if is_unique else []

    def batches(self) -> Iterator[Batch]:
        """Yield batches of rows. Each is to be confirmed once dlt has taken it."""
        batch, is_first = Batch(self._stored), True
        for reader, outcome in side_by_side(
            self._begin_readers(),
            self._config.workers,
            self._get_budget(),
            self._client,
        ):
            if outcome is None:
                self._run.done.add((self._table, self._key(reader.name.project)))
                log.info("%s: read to its end", reader.title)
                continue
            if isinstance(outcome, ApiError):
                outcome = self._failed(reader, outcome)
            self._tell(reader, outcome)
            if outcome.bookmark:
                asked_at = self._run.began_at.isoformat()
                outcome.bookmark["asked_at"] = asked_at
            batch.add(self._key(reader.name.project), outcome)
            # The first page goes at once, for `add_limit(1)`.
            limit = 1 if is_first else ROWS_PER_BATCH
            is_full = batch.size >= limit or batch.bytes >= BYTES_PER_BATCH
            if is_full and not self._unique:
                yield batch
                batch, is_first = Batch(self._stored), False
        if batch.size and self._unique:
            yield from batch.unique(self._unique, ROWS_PER_BATCH)
        elif batch.size:
            yield batch
        else:
            batch.confirm()

    def end(self) -> None:
        """Record how far the lists were read, now that all batches are confirmed."""
        run = self._run
        if self._extent.until is None:  # dlt keeps nothing of a span that has an end
            self._set_last_value()
        names = {(self._table, self._key(project)) for project in self._projects}
        if not names <= run.done:
            run.is_unfinished = True
        if not run.continue_on_error:
            self._warn()

    def report(self, reader: ListReader) -> dict[str, Any]:
        """Return what was done with a list, for dlt's trace and the summary of a run."""
        stats, kept_from = reader.stats, self._client.kept_from
        refusal = self._run.refusals.get(reader.title)
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
            "refusal": str(refusal) if refusal else "",
            "masked": sorted(stats.masked),
            "unmatched": sorted(stats.unmatched),
            "kept_from": kept_from.isoformat() if kept_from else None,
            "waited": self._client.session.limiter.waited,
        }

    def log_refusals(self) -> None:
        """Log which lists were skipped, and why; the summary of `runner.load` has it."""
        refusals = self._run.refusals
        if not self._run.continue_on_error:
            titles = [each.title for each in self.readers if each.title in refusals]
            for line in by_reason(refusals[title] for title in titles):
                log.warning("skipped: %s", line)

    def _check(self, incremental: Incremental) -> None:
        """Check that what was asked for is possible, before a request is sent."""
        if incremental.cursor_path != self._column:
            raise ConfigurationError(
                f"{self._table}: an incremental on {incremental.cursor_path!r} is not"
                f" possible, since the server dates rows by {self._column!r}; give that"
                " column, or filter rows with add_map"
            )
        if not self._context.selects(HISTORY):
            return
        if not self._context.selects("issues"):
            raise ConfigurationError(
                f"{HISTORY} is loaded together with issues, or these would be missed:"
                " select both"
            )
        if self._endpoint.is_swept and self._is_replaced:
            raise ConfigurationError(
                f"{HISTORY} cannot be kept while {self._table} are replaced: merge them,"
                " or leave history out"
            )
        pipeline = cast(dlt.Pipeline | None, current_pipeline())
        if pipeline and pipeline.destination and current_load_id():
            check_history(pipeline)

    def _get_extent(self, incremental: Incremental) -> Extent:
        incremental.advance(None)  # type: ignore[arg-type]
        since = parse_since(incremental.initial_value)
        until = parse_time("until", incremental.end_value)
        lookback = self._config.lookback
        if incremental.lag is not None:
            lookback = parse_seconds("lag", incremental.lag)
        is_swept = self._run.keeps_bookmarks and not self._is_replaced
        sweep = self._config.sweep if is_swept else None
        extent = Extent(since, until, lookback, sweep)
        return self._run.extents.setdefault(self._table, extent)

    def _get_bookmarks(self, table_name: str) -> dict[str, Any]:
        """Return the bookmarks, as far as they are true of the table."""
        run, is_checked = self._run, table_name in self._run.checked
        run.checked.add(table_name)
        has_rows = is_checked or self._context.has_rows(table_name)
        if self._is_replaced or not has_rows:
            self._state.pop("bookmarks", None)  # dropped, refreshed, or another dataset
        if self._extent.until is not None or not run.keeps_bookmarks:
            return run.bounded.setdefault(self._table, {})
        bookmarks: dict[str, Any] = self._state.setdefault("bookmarks", {})
        if not is_checked and self._has_history and not self._has_states():
            now = datetime.now(UTC)
            for key, stored in bookmarks.items():
                bookmark = Bookmark.parse(stored, now)
                if bookmark.loaded.spans:
                    bookmark.begin_sweep(now)  # fills the history
                bookmarks[key] = bookmark.as_state()
        return bookmarks

    def _has_states(self) -> bool:
        """Return whether the history has rows; without them, all issues are read again."""
        history = self._context.source.resources[HISTORY]
        return self._context.has_rows(str(history.table_name))

    def _get_budget(self) -> Budget:
        config, run = self._config, self._run
        # Only in `runner.load` another load continues such a reading.
        needs_run = self._extent.until or config.full_refresh or config.sweeps_now
        if self._is_replaced or (needs_run and not run.continue_on_error):
            return Budget()
        return run.budget(config.rows_per_load)

    def _begin_readers(self) -> Iterator[ListReader]:
        """Yield a reader of each list that is not done; the longest incomplete first."""
        for project in sorted(self._projects, key=self._get_completion):
            key = self._key(project)
            name = (self._table, key)
            if name in self._run.done:
                continue
            is_first = name not in self._run.readers
            is_swept = is_first and self._extent.sweep == timedelta()
            reader = ListReader(
                self._client,
                ListName(self._endpoint, project),
                self._stored.get(key, {}),
                self._extent,
                self._api.builder,
                is_reset=self._config.full_refresh and is_first,
                is_swept_now=is_swept,
                is_continued=not is_first,
            )
            self.readers.append(reader)
            self._run.readers[name] = reader
            yield reader

    def _failed(self, reader: ListReader, error: ApiError) -> Part:
        """Record that a list was refused or has failed; return its bookmark with that.

        Raises:
            ApiError: the whole run is to end.
        """
        run, key = self._run, self._key(reader.name.project)
        status = error.status if isinstance(error, HttpError) else 0
        if status == 401 or isinstance(error, Unreachable | OtherApi):
            raise error
        if self._is_replaced:
            raise error  # or the rows that the table had would be lost
        is_refused = status in self._endpoint.tolerated_statuses
        is_refused = not reader.stats.pages and (
            is_refused or isinstance(error, UnknownName)
        )
        if is_refused:
            run.refusals[reader.title] = error
        elif run.continue_on_error and (run.has_pages or len(run.failures) < FAILURES):
            run.failures.setdefault(reader.title, error)
        elif reader.is_sweeping and not run.continue_on_error:
            log.warning("%s (new rows are loaded, the next run sweeps again)", error)
        else:
            raise error
        run.done.add((self._table, key))
        is_wrong_name = is_refused and status != 403
        if is_wrong_name and key not in self._stored:
            return Part({})
        now = datetime.now(UTC).replace(microsecond=0)
        problem = {
            "problem": shortened(str(error), LONGEST_PROBLEM),
            "failed_at": now.isoformat(),
        }
        return Part(reader.state | problem)

    def _tell(self, reader: ListReader, part: Part) -> None:
        """Tell dlt's collector of a page; its own counters move only with whole batches."""
        if not reader.stats.pages:
            return
        self._run.has_pages = True
        pipeline = current_pipeline()
        if pipeline is None:
            return
        message = f"back to {part.reached:%Y-%m-%d %H:%M}" if part.reached else ""
        collector, title = pipeline.collector, reader.title
        collector.update(REQUESTS, inc=reader.name.stats.new_requests())
        if part.records is not None:
            collector.update(READ + title, inc=len(part.records), message=message)

    def _key(self, project: str) -> str:
        """Return the key of a list's bookmark: server, organization and project."""
        return f"{self._config.server} {self._config.organization}/{project}"

    def _get_completion(self, project: str) -> str:
        """Return when a list was last read to its end; empty where it never was."""
        stored = self._stored.get(self._key(project), {})
        return str(stored.get("completed_at") or stored.get("read") or "")

    def _set_last_value(self) -> None:
        """Let dlt's incremental promise no more than the list that is least far.

        dlt subtracts the lag from it, however long that is by then, and fails if that
        is before the first year.
        """
        stored = self._state.get("bookmarks", {})
        bookmarks = [
            Bookmark.parse(stored.get(self._key(project), {}), datetime.now(UTC))
            for project in self._projects
        ]
        ends = [each.loaded.spans[0].end for each in bookmarks if each.loaded.spans]
        is_known = len(ends) == len(bookmarks) and bool(ends)
        last = min(ends) if is_known else self._extent.since
        if last and earlier(last, timedelta(seconds=LONGEST)) == EARLIEST:
            last = None
        self._state["incremental"][self._column]["last_value"] = last

    def _warn(self) -> None:
        """Say what `runner.load` has in its summary; raise if all was refused."""
        run, kept_from = self._run, self._client.kept_from
        if run.is_unfinished:
            log.warning("%s: more rows are left; run again", self._table)
        if kept_from and self._endpoint.filters_time:
            log.warning("%s", forgotten(kept_from))
        run.ended.add(self._table)
        selected = {*self._context.source.selected_resources} - {HISTORY}
        if run.is_refused and run.ended >= selected:
            raise next(iter(run.refusals.values()))
