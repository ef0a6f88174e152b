"""What the resources of a source share, and how a list becomes batches and a bookmark."""

import logging
import math
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial, wraps
from itertools import pairwise
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt.common.pipeline import current_pipeline

from analytics_pipeline.bookmarks import Bookmark, Progress, Span, earlier, latest
from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.client.lists import ListSlice, Position
from analytics_pipeline.client.page import Page, Record
from analytics_pipeline.client.pagination import Client, Slice
from analytics_pipeline.client.session import RequestStats
from analytics_pipeline.client.time_windows import TimeWindow
from analytics_pipeline.config import Config, parse_seconds, parse_since, parse_time
from analytics_pipeline.errors import (
    ApiError,
    ConfigurationError,
    HttpError,
    ListChanged,
    OtherApi,
    PageCursorLoop,
    UnexpectedAnswer,
    UnknownName,
    Unreachable,
    WindowsIgnored,
    shortened,
)
from analytics_pipeline.loading.batches import Batches
from analytics_pipeline.loading.destinations import is_replaced, merges_copies
from analytics_pipeline.loading.history import EndedSweep, check_history
from analytics_pipeline.loading.run import Run, active_run, current_load_id
from analytics_pipeline.loading.summary import forgotten, merged_near_misses
from analytics_pipeline.loading.threads import ClosableBatches, DltContext
from analytics_pipeline.tables.arrow import ArrowRows
from analytics_pipeline.tables.derived import add_derived
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.issues import promote_totals
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.schema import column_name
from analytics_pipeline.tables.values import infrequent_gc

log = logging.getLogger(__name__)

Incremental = dlt.sources.incremental[datetime]

FAILURES = 5
"""After so many lists, of which none gave a page, a run ends."""
LONGEST_PROBLEM = 300
"""Characters of an error that are kept with a bookmark."""
STUCK = 2
"""Runs that fail where a reading was left, before the list is begun anew."""
_NO_SUCH_PAGE = (400, 404, 410, 422, 500)
"""How servers say that they do not take a page cursor any more."""
READ = "read: "
"""Begins the names of the counters that tell dlt's collector of pages."""
REQUESTS = "requests"
"""The name of the counter of requests."""


class Sync:
    """What the five resources of one source share."""

    def __init__(self, config: Config, client: Client) -> None:
        self.config = config
        self.client = client
        self.redactor = Redactor(config.redact)
        self._lock = threading.Lock()
        self._run = Run()
        self._load_id = ""
        self.ended_sweeps: Sequence[EndedSweep] = ()
        """Of the load that is under way."""

    def run(self) -> Run:
        """Return the run that is active, or one for this load alone."""
        with self._lock:
            run = active_run.get() or self._run_of_load()
            if run is not self._run:
                self._run = run
                run.client, run.config = self.client, self.config
                self.client.forget_answers()
            return run

    def _run_of_load(self) -> Run:
        load_id = current_load_id()
        if load_id is None:
            return Run()
        if load_id == self._load_id:
            return self._run
        self._load_id = load_id
        return Run(self.config.rows_per_load)


class ResourceSync:
    """What one resource gets: that which all share, and what dlt says when it calls it."""

    def __init__(self, sync: Sync) -> None:
        self.client = sync.client
        self._sync = sync
        self._context = DltContext.current()

    @contextmanager
    def lists(self, table: str, incremental: Incremental) -> Iterator["Lists"]:
        """Give the lists of a resource, and note at the end how far they were read."""
        endpoint = self.client.spec.endpoints[table]
        lists = Lists(self._sync, endpoint, incremental, self._context)
        try:
            with infrequent_gc():
                yield lists
            lists.confirm()
        finally:
            lists.metrics["lists"] = [each.report() for each in lists.reading]


def for_threads(
    resource: Callable[[ResourceSync, Incremental], Iterator[pa.Table]],
) -> Callable[[Sync, Incremental], Iterator[pa.Table]]:
    """Prepare a resource for being read in a thread of dlt's."""

    @wraps(resource)
    def called(sync: Sync, incremental: Incremental) -> Iterator[pa.Table]:
        batches = resource(ResourceSync(sync), incremental)
        return ClosableBatches(cast(Generator[pa.Table, None, None], batches))

    return called


class Lists:
    """The lists of one resource: what to read of them, and what became of that.

    dlt's own filter is put aside, since one value cannot stand for many projects; from
    and up to when to read is still taken from its `incremental`. What was read is noted
    in dlt's state after it was handed over, so that a load that is cut short promises
    no more than it holds.
    """

    def __init__(
        self,
        sync: Sync,
        endpoint: Endpoint,
        incremental: Incremental,
        context: DltContext,
    ) -> None:
        resource = context.resource()
        self.sync = sync
        self.context = context
        self.endpoint = endpoint
        self.table = sync.config.tables[endpoint.table]
        self.run = sync.run()
        self.metrics = resource.custom_metrics
        self.reading: list[ListSync] = []
        self.ended_sweeps: list[Sweep] = []
        self._check(incremental)
        incremental.advance(None)  # type: ignore[arg-type]
        self.has_history = endpoint.is_swept and self._is_history_selected()
        if endpoint.is_swept:
            sync.ended_sweeps = ()
        self.since = parse_since(incremental.initial_value)
        self.until = parse_time("until", incremental.end_value)
        if endpoint.table in self.run.spans:
            self.since, self.until = self.run.spans[endpoint.table]
        self.lookback = sync.config.lookback
        if incremental.lag is not None:
            self.lookback = parse_seconds("lag", incremental.lag)
        self.is_replaced = is_replaced(resource)
        """The table is emptied first, so all is read again, in one load."""
        self._check_history()
        self.table_name = str(resource.table_name)
        self._state = context.resource_state()
        self.stored = self._stored(self.table_name)
        is_unique = not merges_copies(resource)
        self._batches = Batches(
            self.run.rows_per_batch,
            self.table.primary_key if is_unique else (),
        )

    def _check(self, incremental: Incremental) -> None:
        column = column_name(self.endpoint.replication_key)
        if incremental.cursor_path != column:
            raise ConfigurationError(
                f"{self.endpoint.table}: an incremental on {incremental.cursor_path!r} is"
                f" not possible, since the server dates rows by {column!r}; give that"
                " column, or filter rows with add_map"
            )

    def _is_history_selected(self) -> bool:
        is_selected = self.context.selects(HISTORY)
        if is_selected and not self.context.selects(self.endpoint.table):
            raise ConfigurationError(
                f"{HISTORY} is loaded together with {self.endpoint.table}, or these would"
                " be missed: select both"
            )
        return is_selected

    def _check_history(self) -> None:
        if not self.context.selects(HISTORY):
            return
        if self.is_replaced and self.has_history:
            raise ConfigurationError(
                f"{HISTORY} cannot be kept while {self.endpoint.table} are replaced: merge"
                " them, or leave history out"
            )
        pipeline = cast(dlt.Pipeline | None, current_pipeline())
        if pipeline and pipeline.destination:
            check_history(pipeline)

    def lacks_history(self) -> bool:
        """Tell whether the history is wanted, and has no table yet."""
        if not self.has_history:
            return False
        resource = self.context.source.resources[HISTORY]
        return not self.context.has_rows(str(resource.table_name))

    def ends_states(self) -> bool:
        """Tell whether sweeps have shown by now which issues are gone."""
        self._batches.confirm_all()
        if not self.has_history:
            return False
        ended = []
        for sweep in [*self.ended_sweeps]:
            try:
                ended.append(sweep.ended())
            except ApiError as error:
                self.ended_sweeps.remove(sweep)
                sweep.on_error(sweep.top, error)
        self.sync.ended_sweeps = [each for each in ended if each]
        return bool(self.sync.ended_sweeps) or self.lacks_history()

    def confirm(self) -> None:
        """Note what was handed over last: the resource has come to its end."""
        self._batches.confirm_all()
        for sweep in self.ended_sweeps:
            sweep.complete()
        if self.until is None:  # dlt keeps nothing of a span that has an end
            self._set_last_value()
        if any(each.is_open for each in self.reading):
            self.run.is_unfinished = True
        if not self.run.keeps_going:
            self._warn()

    def _warn(self) -> None:
        """Say what `runner.load` has in its summary; raise if all was refused."""
        run, table = self.run, self.endpoint.table
        if run.is_unfinished:
            log.warning("%s: more rows are left; run again", table)
        kept_from = self.sync.client.time_filter.kept_from
        if kept_from and self.endpoint.filters_time:
            log.warning("%s", forgotten(kept_from))
        run.ended.add(table)
        selected = {*self.context.source.selected_resources} - {HISTORY}
        if run.is_refused and run.ended >= selected:
            raise next(iter(run.refusals.values()))

    def _stored(self, table: str) -> dict[str, Any]:
        """Return the bookmarks, as far as they are true of the table."""
        is_checked = table in self.run.checked
        self.run.checked.add(table)
        if self.is_replaced or not (self.context.has_rows(table) or is_checked):
            self._state.pop("bookmarks", None)  # dropped, refreshed, or another dataset
        if self.until is not None or self.run.is_whole:
            return self.run.bounded.setdefault(self.endpoint.table, {})
        bookmarks: dict[str, Any] = self._state.setdefault("bookmarks", {})
        if self.lacks_history():  # it was switched on, or dropped
            for each in bookmarks.values():
                for part in (each, each.get("progress", {}), each.get("sweep", {})):
                    part.pop("has_history", None)
        return bookmarks

    def _set_last_value(self) -> None:
        """Let dlt's incremental promise no more than the list that is least far."""
        intervals = [Bookmark.parse(each).interval for each in self.stored.values()]
        ends = [interval.synced_to if interval else None for interval in intervals]
        if any(self.key(project) not in self.stored for project in self._projects()):
            ends.append(None)
        last = None if None in ends or not ends else min(end for end in ends if end)
        column = column_name(self.endpoint.replication_key)
        self._state["incremental"][column]["last_value"] = last or self.since

    def slices(self) -> Iterator[Slice]:
        """Give out what to read of each list, as long as the load is not full."""
        for project in sorted(self._projects(), key=self._is_complete):
            list_ = ListSync(self, project)
            is_read = list_.name in self.run.finished
            each = self.due_sweep(list_) if is_read else list_
            if each is None:
                continue
            if self.room() <= 0:
                self.run.is_unfinished = True
                return
            self.reading.append(each)
            yield from each.begin()

    def _is_complete(self, project: str) -> bool:
        """Tell whether a list was read to its end: those that were not come first."""
        stored = self.stored.get(self.key(project), {})
        return "since" in stored and "progress" not in stored

    def _projects(self) -> tuple[str, ...]:
        return self.sync.config.projects_of(self.endpoint)

    def key(self, project: str) -> str:
        """Return the key of a list's bookmark: server, organization and project."""
        config = self.sync.config
        return f"{config.server} {config.organization}/{project}"

    def room(self) -> float:
        """Return how many rows the load still takes before another one goes on."""
        # Only in `runner.load` another load can go on with such a reading.
        config = self.sync.config
        needs_run = self.until is not None or config.full_refresh or config.sweeps_now
        is_one_load = needs_run and not self.run.keeps_going
        if self.is_replaced or self.endpoint.full_scan or is_one_load:
            return math.inf
        return self.run.room(config.rows_per_load)

    def due_sweep(self, list_: "ListSync") -> "Sweep | None":
        """Return the sweep of a list, if there is one to do in this load."""
        if not self.can_sweep():
            return None
        sweep = Sweep(list_)
        return sweep if sweep.is_due() else None

    def can_sweep(self) -> bool:
        """Tell whether there are bookmarks that say when all was read."""
        is_bounded = self.until is not None or self.run.is_whole
        return self.endpoint.is_swept and not (is_bounded or self.is_replaced)

    def select(self, part: Slice, page: Page) -> list[Record]:
        """Return the records of a page that are wanted, masked and with their keys."""
        return _reader(part).select(part, page)

    def add(self, part: Slice, rows: ArrowRows) -> pa.Table | None:
        """Take the rows of a page; return those of several pages when they are enough."""
        return self._batches.add(rows.table, _reader(part).note(part, rows))

    def rest(self) -> pa.Table | None:
        """Return the rows that were taken since."""
        return self._batches.take()


class ListSync:
    """One list in one load: where it begins, what came, and what is noted of it."""

    is_sweep = False
    """All of it came before: it fills a load all the same, and may fail without loss."""

    def __init__(self, lists: Lists, project: str) -> None:
        self.lists = lists
        self.endpoint = lists.endpoint
        self.project = project
        self.stats = RequestStats()
        self.key = lists.key(project)
        self.name = (self.endpoint.table, self.key)
        self.sweep_name = (self.endpoint.table, f"{self.key} sweep")
        self.bookmark = Bookmark.parse(lists.stored.get(self.key, {}))
        self.before = self.bookmark.interval
        self.description = lists.sync.client.describe(self)
        self.pages = self.rows = self.reread = self.mismatches = 0
        self._told = 0
        """Requests that dlt's collector was told of."""
        self.newest: datetime | None = None
        self.refusal = ""
        self.redacted: set[str] = set()
        """Paths of the user that masked something."""
        self.near_misses: dict[str, str] = {}
        """Paths that masked nothing → a path that was perhaps meant."""
        self.is_open = True
        """There is more to read, now or in another load."""
        self.is_resumed = False
        """The reading was begun by an earlier run."""
        self.server_time: datetime | None = None
        """The server's clock at the page that came last."""

    def begin(self) -> Sequence[Slice]:
        """Return what to read: from the bookmark on, or from where a reading was left."""
        lists, config, endpoint = self.lists, self.lists.sync.config, self.endpoint
        now = datetime.now(UTC)
        self.bookmark.problem = ""  # that of an earlier run
        is_swept = self.before is not None and lists.can_sweep()
        anew = config.full_refresh and not is_swept and self.name not in lists.run.begun
        changes = endpoint.refresh_window
        if anew or self.bookmark.progress is None:
            lists.run.begun.add(self.name)
        self.is_resumed = self.name not in lists.run.begun
        self.progress = progress = self.bookmark.begin(
            lists.since,
            lists.lookback,
            latest_start=now - changes if changes else None,
            end=(lists.until or now) if endpoint.filters_time else None,
            anew=anew,
        )
        self.bookmark.note_history(progress, has_history=lists.has_history)
        log.info("%s: reading from %s on", self.description, progress.start or "all")
        # A load by itself goes on with what is left: its next one may do the rest.
        is_extended = self.is_resumed and lists.run.keeps_going and lists.until is None
        if is_extended and progress.extend(now, lists.lookback):
            lists.run.begun.add(self.name)
        if progress.left == []:  # `since` is now
            self.is_open = False
        if lists.sync.client.time_filter.is_ignored:
            progress.left = None
        if progress.left is not None:
            return self._windows(progress.left)
        return [self._list_from(None if endpoint.full_scan else progress.start)]

    def _list_from(self, start: datetime | None) -> Slice:
        """Return the list as a whole, at the page where it was left."""
        part, progress = ListSlice(self, start), self.progress
        if progress.page_cursor and progress.edge:
            newest_first = bool(progress.newest_first)
            part.resume(Position(progress.page_cursor, newest_first, progress.edge))
        return part

    def _windows(self, spans: Sequence[Span]) -> Sequence[Slice]:
        """Return spans as windows.

        Once in a run, the first second of an explicit `since` is one by itself: it
        shows whether the server keeps rows from so long ago.
        """
        client, since = self.lists.sync.client, self.lists.since
        windows = []
        for start, end in spans:
            edges = [start, end]
            if start == since and self.lists.until is None:
                second = start + timedelta(seconds=1)
                if second < end and client.time_filter.is_unsure_of(second):
                    edges.insert(1, second)
            windows += [
                TimeWindow(
                    self, a, b, workers=client.workers, time_filter=client.time_filter
                )
                for a, b in pairwise(edges)
            ]
        return windows

    def after_end(self, part: Slice) -> Sequence[Slice]:
        """Return the sweep of the list, if it is due."""
        lists = self.lists
        sweep = lists.due_sweep(self)
        if sweep is None:
            return ()
        if lists.room() <= 0:
            lists.run.is_unfinished = True
            return ()
        lists.reading.append(sweep)
        return sweep.begin()

    def room(self) -> float:
        """Return how many rows the load still takes; of a list that failed, none."""
        return self.lists.room() if self.is_open else 0

    def without_windows(self, edge: datetime | None) -> Slice | None:
        """Return the whole list, the first time that it shows that windows are ignored."""
        if self.progress.left is None:
            return None
        self.progress.left = None
        whole = ListSlice(self, self.progress.start)
        if edge is not None:
            whole.resume(Position(None, newest_first=True, edge=edge))
        return whole

    def select(self, part: Slice, page: Page) -> list[Record]:
        """Return the records that are wanted, masked and with their keys."""
        self.pages += 1
        if page.is_answer:  # or the server's clock is not known
            self.progress.see(page.times, page.server_time)
            self.server_time = page.server_time
            self.lists.run.compare_clocks(page.server_time, page.read_at)
        if self.bookmark.sweep:
            self.bookmark.sweep.see_at(page.read_at)
        records, times = self._wanted(part, page)
        reread = self._count_reread(part, times, page.server_time)
        # In loads by themselves, what was there fills none, or the rest never comes.
        is_counted = self.lists.run.keeps_going or self.is_sweep
        known = 0 if is_counted else reread
        self.lists.run.count(len(records) - known)
        self.reread += reread
        self.rows += len(records) - reread
        past = [time for time in times if time and time <= page.server_time]
        self.newest = latest(self.newest, *past)
        for record in records:
            self._complete(record)
        self._report_progress(len(records), page.times)
        cleaned = self.lists.sync.redactor.clean_all(self.endpoint.table, records)
        self.redacted |= cleaned.matched
        self.near_misses = merged_near_misses(self.near_misses, cleaned.near_misses)
        for record in cleaned.records:
            add_derived(self.lists.table, record)
        return cleaned.records

    def _report_progress(self, rows: int, times: Sequence[datetime | None]) -> None:
        """Tell dlt's collector of a page; its own counters move only with whole batches."""
        pipeline = current_pipeline()
        if pipeline is None:
            return
        reached = min((time for time in times if time), default=None)
        message = f"back to {reached:%Y-%m-%d %H:%M}" if reached else ""
        requests, self._told = self.stats.requests - self._told, self.stats.requests
        pipeline.collector.update(REQUESTS, inc=requests)
        pipeline.collector.update(READ + self.description, inc=rows, message=message)

    def _complete(self, record: Record) -> None:
        """Add what the key needs, and let an issue's figures be its totals."""
        table = self.endpoint.table
        if table == "events" and record.get("projectID") is None:
            record["projectID"] = self.project
        if table == "issues":
            promote_totals(record)
        if record.get("id") is None:
            record["id"] = record[self.endpoint.key]

    def _wanted(
        self, part: Slice, page: Page
    ) -> tuple[list[Record], list[datetime | None]]:
        """Return the records within the bounds of the reading, and their times."""
        start, until = self.progress.start, self.lists.until
        if isinstance(part, TimeWindow) and part.is_left:
            start = part.covered[0]
        if self.endpoint.full_scan or not (start or until):
            return page.records, page.times
        # Where there is no time, the server has filtered, or nobody can.
        wanted = [
            (record, time)
            for record, time in zip(page.records, page.times, strict=True)
            if time is None or not _is_outside(time, start, until)
        ]
        return [record for record, _ in wanted], [time for _, time in wanted]

    def _count_reread(
        self, part: Slice, times: Sequence[datetime | None], now: datetime
    ) -> int:
        """Return how many rows earlier loads have brought, for all that is known.

        Rows of the future come again each time.
        """
        before = self.before
        if before and self.endpoint.full_scan:
            before = before._replace(since=None)  # which holds for other tables
        asked_again = part if isinstance(part, ListSlice) and part.resumed_at else None
        if before is None and asked_again is None:
            return 0
        return sum(
            (asked_again is not None and asked_again.is_overlap(time))
            or (before is not None and (before.holds(time) or time > now))
            for time in times
            if time is not None
        )

    def note(self, part: Slice, rows: ArrowRows) -> Callable[[], None]:
        """Return what to do when the rows of this page have been handed over."""
        self.mismatches += rows.mismatches
        if isinstance(part, TimeWindow):
            return partial(self._note_window, *part.covered)
        assert isinstance(part, ListSlice)
        return partial(self._note_page, part.position(), is_last=part.ended)

    def _note_window(self, low: datetime, high: datetime) -> None:
        if self.progress.left is None:  # the server ignores windows
            return
        self.progress.cover(low, high)
        self._save(is_done=not self.progress.left)

    def _note_page(self, position: Position | None, is_last: bool) -> None:
        self.progress.stuck = None
        if position:
            self.progress.page_cursor = position.page_cursor
            self.progress.newest_first = position.newest_first
            self.progress.edge = position.edge
        if position or is_last:
            self._save(is_done=is_last)

    def _save(self, is_done: bool) -> None:
        run = self.lists.run
        if is_done:
            is_complete = self.bookmark.complete()
            # A reading of an earlier run knows nothing of the rows since then.
            is_current = self.name in run.begun
            self.is_open = not (is_current and is_complete)
            if not self.is_open:
                run.finished.add(self.name)
                log.info("%s: read to its end", self.description)
            if self.before is None and is_current:
                run.finished.add(self.sweep_name)  # that was all of it
        self._store()

    def _store(self) -> None:
        if state := self.bookmark.as_state():
            self.lists.stored[self.key] = state
        else:
            self.lists.stored.pop(self.key, None)

    def on_error(self, part: Slice, error: ApiError) -> Sequence[Slice]:
        """Begin a list anew that cannot be gone on with; note a refusal; or raise."""
        run = self.lists.run
        status = error.status if isinstance(error, HttpError) else 0
        is_resumed = isinstance(part, ListSlice) and part.resumed_at and not part.pages
        if is_resumed and (isinstance(error, ListChanged) or status in _NO_SUCH_PAGE):
            log.warning("%s; %s is read from its beginning", error, self.description)
            self.progress.page_cursor = self.progress.edge = None
            return [cast(ListSlice, part).restart()]
        if isinstance(error, WindowsIgnored):
            whole = self.without_windows(None)
            return [whole] if whole else []
        is_hopeless = isinstance(error, Unreachable) or (
            isinstance(error, OtherApi) and error.apis
        )
        if status == 401 or is_hopeless or self.lists.is_replaced:
            raise error  # or the rows that a replaced table had would be lost
        is_unknown = isinstance(error, UnknownName)
        if not self.pages and (
            is_unknown or status in self.endpoint.tolerated_statuses
        ):
            self.refusal = str(error)
            run.refusals[self.description] = error
            if not run.keeps_going:
                log.warning("skipped: %s", error)
        elif run.keeps_going and (run.has_pages or len(run.failures) < FAILURES):
            run.failures.setdefault(self.description, error)
        elif self.is_sweep and not run.keeps_going:
            log.warning(
                "%s; what is new is loaded, and it is swept another time", error
            )
        else:
            raise error
        self._note_problem(error, is_wrong_name=bool(self.refusal) and status != 403)
        self.is_open = False
        run.finished.add(self.name)
        return ()

    def _note_problem(self, error: ApiError, *, is_wrong_name: bool) -> None:
        """Keep the error with the bookmark; of a name that never was right, nothing."""
        if is_wrong_name and self.key not in self.lists.stored:
            return
        bookmark, stored = self.bookmark, self.lists.stored
        bookmark.problem = shortened(str(error), LONGEST_PROBLEM)
        bookmark.failed = datetime.now(UTC).replace(microsecond=0)
        if self.is_resumed and self.pages <= 1:
            self._note_stuck(error)
        # Of the reading itself no more than was handed over.
        state = bookmark.as_state()
        kept = stored.setdefault(self.key, {})
        kept |= {name: state[name] for name in ("problem", "failed")}

    def _note_stuck(self, error: ApiError) -> None:
        """Let another run begin with what is new, if this came no further for good.

        An outage is over another time; the server is up if other lists gave pages.
        """
        is_lasting = isinstance(error, UnexpectedAnswer | PageCursorLoop)
        if not is_lasting and self.lists.run.has_pages:
            self.progress.stuck = (self.progress.stuck or 0) + 1
            is_lasting = self.progress.stuck >= STUCK and self.progress.left is None
        if is_lasting:
            self._forget_progress()
        self._store()

    def _forget_progress(self) -> None:
        self.bookmark.progress = None

    def report(self) -> dict[str, Any]:
        """Return what was done, for dlt's trace and the summary of a run."""
        kept_from = self.lists.sync.client.time_filter.kept_from
        return {
            "table": self.endpoint.table,
            "project": self.project,
            "rows": self.rows,
            "reread": self.reread,
            "requests": self.stats.requests,
            "mismatches": self.mismatches,
            "replaced": self.stats.replaced,
            "newest": self.newest.isoformat() if self.newest else None,
            "list": self.description,
            "refusal": self.refusal,
            "redacted": sorted(self.redacted),
            "near_misses": self.near_misses,
            "kept_from": kept_from.isoformat() if kept_from else None,
            "waited": self.lists.sync.client.session.limiter.waited,
        }


class Sweep(ListSync):
    """All of a list once more: what changed without a trace in the rows' time.

    A row that is seen again while the list is read moves to its top, past the place that
    reading has come to. So what was seen since the sweep began is read again at its end.
    """

    is_sweep = True

    def __init__(self, list_: ListSync) -> None:
        super().__init__(list_.lists, list_.project)
        self.name = self.sweep_name
        self.bookmark = list_.bookmark
        self._now = list_.server_time or datetime.now(UTC)
        self.top: Slice = ListSlice(self, None)
        """What is read once more at the end."""

    def is_due(self) -> bool:
        """Tell whether to begin it, or to go on with it, in this load."""
        lists, config = self.lists, self.lists.sync.config
        if self.name in lists.run.finished:
            return False
        every = timedelta() if config.full_refresh else config.sweep
        if lists.has_history and not self.bookmark.has_history:
            every = timedelta()  # the history was switched on
        return self.bookmark.is_sweep_due(every, self._now)

    def begin(self) -> Sequence[Slice]:
        """Return what to read: all, or from where the sweep was left."""
        lists, config, before = self.lists, self.lists.sync.config, self.bookmark.sweep
        lacks_history = lists.has_history and before and not before.has_history
        is_wanted = config.full_refresh or config.sweeps_now or lacks_history
        anew = bool(is_wanted) and self.name not in lists.run.begun
        if anew or before is None:
            lists.run.begun.add(self.name)
        self.is_resumed = self.name not in lists.run.begun
        self.progress = progress = self.bookmark.begin_sweep(anew=anew)
        self.bookmark.note_history(progress, has_history=lists.has_history)
        log.info("%s: reading all of it again", self.description)
        if progress.is_rechecking:
            return [self._recheck(progress)]
        # Where no order is documented, rows of any time may come on any page.
        is_ordered = self.endpoint.newest_first
        return [self._list_from(progress.start if is_ordered else None)]

    def after_end(self, part: Slice) -> Sequence[Slice]:
        """Return the top of the list after its end."""
        return () if part is self.top else [self._recheck(self.progress)]

    def _recheck(self, progress: Progress) -> Slice:
        began = progress.began or datetime.now(UTC)
        # The rows may go by another clock than the server's `Date`.
        start = earlier(min(began, progress.newest or began), self.lists.lookback)
        self.top = ListSlice(self, start, can_be_left=False)
        return self.top

    def _count_reread(
        self, part: Slice, times: Sequence[datetime | None], now: datetime
    ) -> int:
        """Return that all rows have come before, as far as anybody knows."""
        return len(times)

    def _note_page(self, position: Position | None, is_last: bool) -> None:
        if self.progress.is_rechecking:
            if is_last:
                self.lists.ended_sweeps.append(self)
        elif is_last:
            self.progress.is_rechecking = True
            self.progress.page_cursor = self.progress.edge = None
            self._store()
        else:
            super()._note_page(position, is_last)

    def ended(self) -> EndedSweep | None:
        """Return what it has shown; None where nobody knows which project that is.

        Raises:
            ApiError: the project could not be asked for its id.
        """
        project_id = None
        try:
            project_id = self.lists.sync.client.project_id(self.project, self.stats)
        except HttpError as error:
            if error.status not in (403, 404):
                raise
            log.warning("%s: %s", self.description, error)
        if project_id is None or self.progress.read_from is None:
            log.warning(
                "%s: states of issues that are gone were not ended, since project %r does"
                " not tell its id",
                HISTORY,
                self.project,
            )
            return None
        return EndedSweep(
            issues_table=self.lists.table_name,
            project_id=project_id,
            start=self.progress.start,
            read_from=self.progress.read_from,
        )

    def complete(self) -> None:
        """Note that all was handed over."""
        self.bookmark.complete_sweep()
        self.is_open = False
        self.lists.run.finished.add(self.name)
        self._store()

    def _forget_progress(self) -> None:
        self.bookmark.sweep = None


def _is_outside(time: datetime, start: datetime | None, until: datetime | None) -> bool:
    return (start is not None and time < start) or (until is not None and time >= until)


def _reader(part: Slice) -> ListSync:
    return cast(ListSync, part.owner)
