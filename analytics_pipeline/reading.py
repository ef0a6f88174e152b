"""One list in one load, and the loop that reads several lists side by side.

A `ListReader` fills the gaps of one bookmark, page by page, as a generator of parts: the
rows of a page, and the bookmark that is true once they are loaded. `side_by_side` lets
some of them read in threads. Neither knows dlt; nothing that is called calls back.
"""

import logging
import math
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from analytics_pipeline.bookmarks import (
    EARLIEST,
    TICK,
    Bookmark,
    Coverage,
    Gap,
    Span,
    earlier,
    latest,
)
from analytics_pipeline.client.client import (
    SECOND,
    UNEXPECTED,
    Client,
    ListName,
    floor,
)
from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.client.page import Page, Record
from analytics_pipeline.client.retry import stop_with
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    UnexpectedAnswer,
)
from analytics_pipeline.tables.rows import RowBuilder

log = logging.getLogger(__name__)

SECONDS_PER_LOAD = 300.0
"""After so long a load ends, and another one continues."""
SECONDS_OF_SILENCE = 900.0
"""If no list gives a page for so long, those that are being read have failed. Waits for
rate limits do not count."""
MANY_THREADS = 1000
"""Those of lists that have failed so may hang for ever."""


class Extent(NamedTuple):
    """What to read of the lists of a table."""

    since: datetime | None = None
    until: datetime | None = None
    """Exclusive; with it exactly this span is read, and no bookmark is kept."""
    lookback: timedelta = timedelta()
    sweep: timedelta | None = None
    """How old the last complete reading may be; None: as old as it likes."""


class Part(NamedTuple):
    """What is wanted of a page, and what is true once it is loaded."""

    bookmark: dict[str, Any]
    """As it is to be stored then."""
    records: list[Record] | None = None
    read_at: datetime | None = None
    """When the answer was received."""
    size: int = 0
    """Records that were not known to be loaded."""
    reached: datetime | None = None
    """The oldest time of the page; None if it has none."""
    rows: pa.Table | None = None
    """Made of the records by `ListReader.build`."""


@dataclass
class ListStats:
    """What was read of a list in one load."""

    pages: int = 0
    rows: int = 0
    """Rows that were not loaded before."""
    reread: int = 0
    """Rows that were."""
    mismatches: int = 0
    """Values that did not fit their column, and went into `extra`."""
    newest: datetime | None = None
    """Time of the newest row."""
    masked: set[str] = field(default_factory=set)
    """Paths of `redact` that masked a value."""
    unmatched: set[str] = field(default_factory=set)
    """Paths of `redact` that should have."""


class _OtherProject(Exception):
    """The slug now belongs to another project, whose id this is."""


class ListReader:
    """Reads one list in one load: what is new, then what is missing, then a sweep.

    Args:
        client: of the server.
        name: which list.
        stored: its bookmark, as dlt's state holds it.
        extent: what to read.
        builder: makes rows of records.
        is_reset: nothing of the bookmark counts.
        is_swept_now: read the whole list again in any case.
        is_continued: the run has read the top of the list in an earlier load.
    """

    def __init__(
        self,
        client: Client,
        name: ListName,
        stored: Mapping[str, Any],
        extent: Extent,
        builder: RowBuilder,
        *,
        is_reset: bool = False,
        is_swept_now: bool = False,
        is_continued: bool = False,
    ) -> None:
        self.name = name
        self.title = client.describe(name)
        self.stats = ListStats()
        self.is_resumable = False
        """Another load can continue behind the part that was yielded last."""
        self.balance = 0
        """Rows that were new minus rows that were not, of this load."""
        self.is_sweeping = False
        """What is new is loaded; the list is being read again."""
        self.parts = self.read()
        self.state = dict(stored)
        """The bookmark of the part that was yielded last."""
        self._client = client
        self._endpoint = name.endpoint
        self._extent = extent
        self._builder = builder
        self._now = datetime.now(UTC)
        self._bookmark = Bookmark.parse({} if is_reset else stored, self._now)
        self._is_swept_now = is_swept_now
        self._is_continued = is_continued

    def read(self) -> Iterator[Part]:
        """Yield the parts of the list, and at last its bookmark without rows.

        Raises:
            ApiError: a page cannot be read. What was yielded before is right.
        """
        try:
            yield from self._read()
        except _OtherProject as found:
            log.warning(
                "%s: the slug now belongs to project %s; before it was %s. The list is"
                " read from its beginning",
                self.title,
                found,
                self._bookmark.project_id,
            )
            self._bookmark = Bookmark(project_id=str(found))
            try:
                yield from self._read()
            except _OtherProject:
                raise UnexpectedAnswer(
                    f"{self.title}: the server gives rows of several projects"
                ) from None

    def _read(self) -> Iterator[Part]:
        bookmark = self._bookmark
        bookmark.problem, bookmark.failed_at = "", None
        if self._endpoint.full_scan:
            yield from self._read_whole()
        else:
            self._begin_sweep()
            gaps = self._gaps()
            if self._is_continued and not self._extent.until:
                # The top last, so that its lookback is read once a run; a sweep reads
                # it at its end.
                gaps = gaps[1:] + ([] if bookmark.sweep_began_at else gaps[:1])
            yield from self._fill(bookmark.loaded, gaps)
            if bookmark.began_at and bookmark.loaded.spans:
                bookmark.swept_at = bookmark.began_at
            bookmark.began_at = None
            if bookmark.sweep_began_at:
                yield from self._sweep()
        bookmark.completed_at = self._now
        yield Part(bookmark.as_state())

    def _gaps(self) -> list[Gap]:
        since, until, lookback, _ = self._extent
        lookback = max(lookback, self._endpoint.refresh_window)
        end = until and earlier(until, TICK)
        return self._bookmark.loaded.gaps(since, end, lookback)

    def _begin_sweep(self) -> None:
        """Begin a sweep if one is due. The first reading of a list is one, too."""
        bookmark = self._bookmark
        if not self._endpoint.is_swept or self._extent.until:
            return
        if not bookmark.loaded.spans:
            bookmark.began_at = self._now
        elif self._is_swept_now or bookmark.is_sweep_due(self._extent.sweep, self._now):
            log.info("%s: reading the whole list again", self.title)
            bookmark.begin_sweep(self._now)

    def _sweep(self) -> Iterator[Part]:
        """Read the whole list again, and then once more what has moved to its top."""
        self.is_sweeping = True
        bookmark = self._bookmark
        is_resumed = bool(bookmark.sweep.spans)
        gaps = bookmark.sweep.gaps(bookmark.loaded.start)
        yield from self._fill(bookmark.sweep, gaps[is_resumed:])
        yield from self._fill(bookmark.loaded, self._gaps()[:1])
        bookmark.end_sweep()

    def _read_whole(self) -> Iterator[Part]:
        before = self._bookmark.completed_at
        for page in self._client.pages(self.name):
            known = [before and (time is None or time <= before) for time in page.times]
            yield self._part(page, [True] * len(known), [bool(each) for each in known])

    def _fill(self, coverage: Coverage, gaps: Sequence[Gap]) -> Iterator[Part]:
        """Read gaps, and add them to the coverage page by page.

        Raises:
            ApiError: a page cannot be read; or a second, and all around it is read.
        """
        left, broken = list(gaps), list[datetime]()
        while left:
            gap = left.pop(0)
            reading = _GapReading(self._endpoint, gap)
            try:
                yield from self._read_gap(coverage, gap, reading)
            except HttpError as error:
                end = reading.span.start if reading.span else gap.end
                second = error.status == 500 and self._client.broken_second(
                    self.name, gap.start, end
                )
                if not second or second in broken:
                    raise
                broken.append(second)
                around = (
                    Gap(second + SECOND, end),
                    gap._replace(end=second - TICK, page_cursor=None),
                )
                left[:0] = [gap for gap in around if _is_gap(gap)]
        if broken:
            times = ", ".join(f"{each:%Y-%m-%d %H:%M:%S}" for each in broken)
            raise ApiError(
                f"{self.title}: the server answers with an error (500) for all rows of"
                f" {times} (UTC). All others are loaded, and the next run asks for these"
                " again."
            )

    def _read_gap(
        self, coverage: Coverage, gap: Gap, reading: "_GapReading"
    ) -> Iterator[Part]:
        start = f"{gap.start:%Y-%m-%d %H:%M:%S}" if gap.start else "the beginning"
        log.info("%s: reading back to %s", self.title, start)
        before = coverage.spans
        for page in self._client.pages(self.name, gap.start, gap.end, gap.page_cursor):
            if self.stats.pages == 0:
                self._check_project(page)
            reading.note(page)
            known = reading.known(page, Coverage(before))
            if reading.span is not None:
                coverage.add(reading.span)
            elif not reading.is_newest_first:
                coverage.spans = before
            self.is_resumable = reading.is_resumable
            wanted = reading.wanted(page, self._extent.until)
            yield self._part(page, wanted, known)
            if reading.is_last:
                break

    def _check_project(self, page: Page) -> None:
        """Compare the project that a page is of with that of the bookmark.

        Raises:
            _OtherProject: the slug was given to another project.
        """
        if not self._endpoint.by_project:
            return
        bookmark = self._bookmark
        found = [_project_id(record) for record in page.records]
        known = next((each for each in found if each), None)
        if known is None and bookmark.project_id and page.is_filtered:
            # The newest row that is loaded should have come again.
            try:
                known = self._client.project_id(self.name.project, self.name.stats)
            except HttpError as error:
                log.debug("%s: %s", self.title, error)
        if known and bookmark.project_id and known != bookmark.project_id:
            raise _OtherProject(known)
        bookmark.project_id = known or bookmark.project_id

    def _part(self, page: Page, wanted: Sequence[bool], known: Sequence[bool]) -> Part:
        stats = self.stats
        kept = [n for n, is_wanted in enumerate(wanted) if is_wanted]
        size = sum(not known[n] for n in kept)
        self.balance += 2 * size - len(kept)
        new = 0 if self.is_sweeping else size
        stats.pages += 1
        stats.rows += new
        stats.reread += len(kept) - new
        times = [page.times[n] for n in kept]
        stats.newest = latest(
            stats.newest, *(t for t in times if t and t <= page.server_time)
        )
        records = page.records
        if len(kept) < len(records):
            records = [records[n] for n in kept]
        reached = min((time for time in page.times if time), default=None)
        state = self._bookmark.as_state()
        return Part(state, records, page.read_at, size, reached)

    def build(self, part: Part) -> Part:
        """Return a part with its rows; in one thread, which is faster than in several.

        Raises:
            ApiError: a record cannot be a row.
        """
        if not part.records or part.read_at is None:
            return part
        endpoint, stats = self._endpoint, self.stats
        try:
            built = self._builder.build(
                endpoint.table,
                endpoint.key,
                self.name.project,
                part.records,
                part.read_at,
                endpoint.unfilled,
            )
        except ApiError as error:
            raise error.about(self.title) from error
        except UNEXPECTED as error:
            reason = f"{type(error).__name__} while a page was read ({error})"
            raise UnexpectedAnswer(f"{self.title}: {reason}") from error
        stats.mismatches += built.mismatches
        stats.masked |= built.masked
        stats.unmatched |= built.unmatched
        return part._replace(rows=built.rows)


class _GapReading:
    """How far the reading of one gap has come with its last page.

    Where no order is documented, a list counts as newest first as long as no page begins
    above the one before, and each descends, but for a tenth of its rows, which arrived
    late.
    """

    def __init__(self, endpoint: Endpoint, gap: Gap) -> None:
        self.is_newest_first = True
        self.is_last = False
        """Nothing older is wanted, or there is nothing older."""
        self.is_resumable = False
        """Another load can continue here, and come further than this one."""
        self.span: Span | None = None
        """What is loaded with this page; None where that is not certain."""
        self._endpoint = endpoint
        self._gap = gap
        self._top: datetime | None = None
        """Where the span ends."""
        self._clock: datetime | None = None
        """The earlier of the server's and ours, at the first page."""
        self._ascending: list[datetime] = []
        """Times of the last page from its end on, without those that arrived late."""
        self._highest: datetime | None = None
        self._is_restarted = False
        """The page cursor was refused, so those of this list are good for nothing."""
        self._is_loaded = False
        """What follows is loaded, and only read again for rows that arrived late."""
        self._is_inside = False
        """A row has come that is not above the gap."""
        self._received: set[Any] = set()
        """Keys of the page before."""
        self._is_again = False
        """It is the page where an earlier load stopped."""

    def note(self, page: Page) -> None:
        """Look at the next page."""
        gap, cursor = self._gap, page.asked_cursor
        self._is_again = cursor is not None and cursor == gap.page_cursor
        if self._clock is None:
            self._clock = min(page.server_time, page.read_at)
            self._top = gap.end and min(gap.end, page.read_at)
            self._is_restarted = cursor != gap.page_cursor and not page.is_filtered
        self._note_order(page)
        if gap.end is None and (self._top is None or not self.is_newest_first):
            self._top = latest(self._top, _newest(page, self._clock))
        reached = self._reached(page)
        is_past = reached and gap.start and reached < gap.start
        # The end of a window is that of the list.
        is_past = is_past and not page.is_filtered
        self.is_last = page.next_cursor is None or bool(is_past)
        was_loaded, self.span = self._is_loaded, None
        if self._top is not None and self.is_last:
            self.span = Span(gap.start, self._top)
        elif self._top is not None and reached is not None and not was_loaded:
            # Apart from the span below, until all late rows in it are read.
            self._is_loaded = bool(gap.loaded_to and reached <= gap.loaded_to)
            above = gap.loaded_to + TICK if gap.loaded_to else reached
            self.span = Span(max(reached, above), self._top, cursor)
        has_moved = cursor not in (None, gap.page_cursor)
        if page.is_filtered and reached:  # windows have whole seconds
            has_moved = gap.end is None or floor(reached) < floor(gap.end)
        self.is_resumable = (
            bool(reached)
            and has_moved
            and not (self.is_last or self._is_restarted or self._is_loaded)
        )

    def _note_order(self, page: Page) -> None:
        times = [each for each in page.times if each]
        self._ascending = []
        if self._endpoint.newest_first or not times:
            return
        ascending = times[-1:]
        for each in times[-2::-1]:
            if each >= ascending[-1]:
                ascending.append(each)
        late = len(times) - len(ascending)
        is_above = self._highest is not None and ascending[-1] > self._highest
        self.is_newest_first &= late <= len(times) / 10 and not is_above
        self._highest, self._ascending = ascending[-1], ascending

    def _reached(self, page: Page) -> datetime | None:
        """Return the time that the list has come down to; None if that is not certain.

        Where no order is documented, two rows and a tenth of a page have to be as old,
        and not all of one time; so a few odd rows do not end a list.
        """
        if self._endpoint.newest_first:
            return page.reached()
        times, rows = self._ascending, max(2, math.ceil(len(page.times) / 10))
        if not self.is_newest_first or len(times) < rows or times[0] == times[-1]:
            return None
        return times[rows - 1]

    def wanted(self, page: Page, until: datetime | None) -> list[bool]:
        """Return for each row whether to load it; with `until`, exactly those before it.

        Rows above the gap are loaded already, and are left out before the first row that
        is not above it. Older rows than the gap are left out only behind the last wanted
        row: one that stands among newer ones arrived late. A list in no order shows no
        such differences. Rows without a time are always loaded.
        """
        start, times = self._gap.start or EARLIEST, page.times
        if page.is_filtered:  # by whole seconds
            return [
                time is None
                or until is None
                or not (
                    until <= time < until + SECOND
                    or earlier(start, SECOND) < time < start
                )
                for time in times
            ]
        if until is not None or not self.is_newest_first:
            return [
                time is None or (time >= start and (until is None or time < until))
                for time in times
            ]
        wanted, end = [], self._gap.end
        for each in times:
            self._is_inside |= each is None or end is None or each <= end
            wanted.append(self._is_inside)
        if self.is_last:
            above = [n for n, time in enumerate(times) if time is None or time >= start]
            behind = max(above, default=-1) + 1
            wanted[behind:] = [False] * (len(times) - behind)
        return wanted

    def known(self, page: Page, coverage: Coverage) -> list[bool]:
        """Return for each row whether it came before, as far as that is known.

        Pages by time overlap by some rows. Rows of the future come again each time.
        """
        key, clock = self._endpoint.key, self._clock if coverage.spans else None
        keys = {record.get(key) for record in page.records}
        if not (self._is_again or coverage.spans or keys & self._received):
            self._received = keys
            return [False] * len(page.times)
        known = [
            self._is_again
            or record.get(key) in self._received
            or (
                time is not None
                and (coverage.contains(time) or bool(clock and time > clock))
            )
            for record, time in zip(page.records, page.times, strict=True)
        ]
        self._received = keys
        return known


def _is_gap(gap: Gap) -> bool:
    return gap.end is None or gap.start is None or gap.start <= gap.end


def _newest(page: Page, clock: datetime) -> datetime | None:
    """Return the end of a span whose first page this is: its newest row.

    Never past the clock: a row of the future would hide those to come.
    """
    times = [time for time in page.times if time and time <= clock]
    return max(times, default=clock if page.records else None)


def _project_id(record: Record) -> str | None:
    """Return the id of the project that an event or an issue says it is of."""
    project = record.get("project")
    inside = project.get("id") if isinstance(project, dict) else None
    value = record.get("projectID") or inside
    return str(value) if isinstance(value, str | int) else None


class Budget:
    """How much one load may read; shared by its tables.

    Args:
        rows: after which it is spent; None: never.
    """

    def __init__(self, rows: int | None = None) -> None:
        self._rows: float = math.inf if rows is None else rows
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def take(self, rows: int) -> None:
        """Subtract the rows of a part."""
        with self._lock:
            self._rows -= rows

    @property
    def is_spent(self) -> bool:
        """The load has brought enough, or has taken long enough."""
        seconds = time.monotonic() - self._started
        return self._rows <= 0 or (
            math.isfinite(self._rows) and seconds > SECONDS_PER_LOAD
        )


Outcome = Part | ApiError | None
"""Of a reader: a part; why it failed; or None, it has come to its end."""


def side_by_side(
    readers: Iterable[ListReader], workers: int, budget: Budget, client: Client
) -> Iterator[tuple[ListReader, Outcome]]:
    """Let up to `workers` readers read in threads; yield what they yield, in their order.

    A reader's next page is asked for before its last part is yielded. Once the budget is
    spent, readers that can be resumed in another load are not asked again.
    """
    waiting = iter(readers)
    running: dict[Future[Part | None], ListReader] = {}
    has_begun = False  # or a load could bring nothing, and so all that follow
    stopped = threading.Event()
    pool = ThreadPoolExecutor(MANY_THREADS, "analytics-pipeline", stop_with, (stopped,))

    def clock() -> float:
        return time.monotonic() - client.session.limiter.waited

    answered = clock()
    try:
        while True:
            while len(running) < workers and not (has_begun and budget.is_spent):
                reader = next(waiting, None)
                if reader is None:
                    break
                has_begun = True
                running[pool.submit(next, reader.parts, None)] = reader
            if not running:
                return
            done, _ = wait(running, 1.0, FIRST_COMPLETED)
            for future in done:
                reader = running.pop(future)
                outcome = _outcome(reader, future)
                if isinstance(outcome, Part):
                    answered = clock()
                    budget.take(outcome.size)
                    # A load that mostly reads again would be followed by its like.
                    can_stop = reader.is_resumable and reader.balance >= 0
                    if not (budget.is_spent and can_stop):
                        running[pool.submit(next, reader.parts, None)] = reader
                    outcome = _built(reader, outcome)
                if isinstance(outcome, ApiError):
                    running = {f: each for f, each in running.items() if each != reader}
                yield reader, outcome
            if clock() - answered > SECONDS_OF_SILENCE:
                silent, running = [*running.values()], {}
                yield from ((reader, _silent(reader)) for reader in silent)
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _outcome(reader: ListReader, future: "Future[Part | None]") -> Outcome:
    try:
        return future.result()
    except ApiError as error:
        return error


def _built(reader: ListReader, part: Part) -> Outcome:
    try:
        part = reader.build(part)
    except ApiError as error:
        return error
    reader.state = part.bookmark
    return part


def _silent(reader: ListReader) -> ApiError:
    return ApiError(
        f"{reader.title}: the server sent no complete page for"
        f" {SECONDS_OF_SILENCE / 60:.0f} minutes. Data loaded so far is kept. Try again"
        " later."
    )
