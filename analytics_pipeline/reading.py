"""One list in one load: its gaps are filled page by page, newest first.

A `ListReader` yields parts: the rows of a page, and the bookmark that is true once they
are loaded. It knows neither dlt nor threads, and calls nothing back.
"""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pyarrow as pa

from analytics_pipeline.bookmarks import (
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
from analytics_pipeline.client.page import Page, Record
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    UnexpectedAnswer,
)
from analytics_pipeline.pages import Order, contiguous, known_rows, newest, within
from analytics_pipeline.tables.rows import RowBuilder

log = logging.getLogger(__name__)


class Extent(NamedTuple):
    """What to read of the lists of a table."""

    since: datetime | None = None
    until: datetime | None = None
    """Exclusive; with it, exactly this span is read and no bookmark is kept."""
    lookback: timedelta = timedelta()
    sweep: timedelta | None = None
    """Maximum age of the last sweep; 0: sweep now, None: never."""
    full_refresh: bool = False
    """Ignore the bookmark."""


class Part(NamedTuple):
    """The rows of a page, and the bookmark that is true once they are loaded."""

    bookmark: dict[str, Any]
    records: list[Record] | None = None
    """The wanted ones."""
    read_at: datetime | None = None
    """When the answer was received; None: no page was read."""
    size: int = 0
    """Records that were not loaded before."""
    reached: datetime | None = None
    """The oldest time of the page."""
    can_stop: bool = False
    """The load may end here, because the next one can resume."""
    rows: pa.Table | None = None
    """Built from the records by `ListReader.build`."""


@dataclass
class ListStats:
    """What was read of a list in one load."""

    pages: int = 0
    rows: int = 0
    """New rows."""
    reread: int = 0
    """Rows that were loaded before."""
    mismatches: int = 0
    """Values that did not fit their column and went into `extra`."""
    newest: datetime | None = None
    """Time of the newest row."""
    masked: set[str] = field(default_factory=set)
    """Paths of `redact` that masked a value."""
    unmatched: set[str] = field(default_factory=set)
    """Paths of `redact` that matched nothing on some page."""


class _OtherProject(Exception):
    """The slug now belongs to the project with this id."""


class ListReader:
    """Reads one list in one load: new rows first, then the gaps, then a sweep.

    Args:
        client: of the server.
        name: which list.
        stored: its bookmark, as dlt's state holds it.
        extent: what to read.
        builder: makes rows of records.
        run_began_at: identifies the run, which may take several loads.
    """

    def __init__(
        self,
        client: Client,
        name: ListName,
        stored: Mapping[str, Any],
        extent: Extent,
        builder: RowBuilder,
        run_began_at: datetime,
    ) -> None:
        self.name = name
        self.title = client.describe(name)
        self.stats = ListStats()
        self.is_sweeping = False
        """New rows are loaded; the list is being read again."""
        self.parts = self.read()
        self.state = {**stored, "asked_at": run_began_at.isoformat()}
        """The bookmark of the last part."""
        self._client = client
        self._endpoint = name.endpoint
        self._extent = extent
        self._builder = builder
        self._now = datetime.now(UTC)
        self._bookmark = Bookmark.parse(stored, self._now)
        # The run has read the top of the list in an earlier load.
        self._is_continued = self._bookmark.asked_at == run_began_at
        if extent.full_refresh and not self._is_continued:
            self._bookmark = Bookmark()
        self._bookmark.asked_at = run_began_at
        self._balance = 0
        """Rows that were new minus rows that were not."""
        self._broken: list[datetime] = []
        """Seconds that the server cannot send."""

    def read(self) -> Iterator[Part]:
        """Yield the parts of the list, and finally its bookmark without rows.

        Raises:
            ApiError: a page cannot be read. The parts yielded before are valid.
        """
        try:
            yield from self._read()
        except _OtherProject as found:
            log.warning(
                "%s: the slug now belongs to project %s instead of %s. The whole list is"
                " read.",
                self.title,
                found,
                self._bookmark.project_id,
            )
            asked_at = self._bookmark.asked_at
            self._bookmark = Bookmark(project_id=str(found), asked_at=asked_at)
            self._broken = []
            try:
                yield from self._read()
            except _OtherProject:
                raise UnexpectedAnswer(
                    f"{self.title}: the server returns rows of several projects"
                ) from None

    def _read(self) -> Iterator[Part]:
        bookmark = self._bookmark
        bookmark.problem, bookmark.failed_at = "", None
        if self._endpoint.full_scan:
            yield from self._scan()
        else:
            self._begin_sweep()
            gaps = self._gaps()
            if self._is_continued and not self._extent.until:
                # The top comes last, so that its lookback is read once per run. A
                # sweep ends with it anyway.
                gaps = gaps[1:] + ([] if bookmark.sweep_began_at else gaps[:1])
            yield from self._fill(bookmark.loaded, gaps)
            if bookmark.began_at and bookmark.loaded.spans:
                bookmark.swept_at = bookmark.began_at
            bookmark.began_at = None
            if bookmark.sweep_began_at:
                yield from self._sweep()
        bookmark.completed_at = self._now
        yield Part(bookmark.as_state())

    def _scan(self) -> Iterator[Part]:
        before = self._bookmark.completed_at
        for page in self._client.pages(self.name):
            known = [bool(before and (not t or t <= before)) for t in page.times]
            yield self._part(page, [True] * len(known), known)

    def _gaps(self) -> list[Gap]:
        extent = self._extent
        lookback = max(extent.lookback, self._endpoint.refresh_window)
        end = extent.until and earlier(extent.until, TICK)
        return self._bookmark.loaded.gaps(extent.since, end, lookback)

    def _begin_sweep(self) -> None:
        """Begin a sweep if one is due; the first reading of a list counts as one."""
        bookmark, every = self._bookmark, self._extent.sweep
        if not self._endpoint.is_swept or self._extent.until:
            return
        is_wanted_now = every == timedelta() and not self._is_continued
        if not bookmark.loaded.spans:
            bookmark.began_at = self._now
        elif is_wanted_now or bookmark.is_sweep_due(every, self._now):
            log.info("%s: reading the whole list again", self.title)
            bookmark.begin_sweep(self._now)

    def _sweep(self) -> Iterator[Part]:
        """Read the whole list again, then rows that have moved to its top."""
        self.is_sweeping = True
        bookmark = self._bookmark
        is_resumed = bool(bookmark.sweep.spans)
        gaps = bookmark.sweep.gaps(bookmark.loaded.start)
        yield from self._fill(bookmark.sweep, gaps[is_resumed:])
        yield from self._fill(bookmark.loaded, self._gaps()[:1])
        bookmark.end_sweep()

    def _fill(self, coverage: Coverage, gaps: Sequence[Gap]) -> Iterator[Part]:
        """Read gaps, and add them to the coverage page by page.

        Raises:
            ApiError: a page cannot be read; or rows of some seconds, and all others are.
        """
        left = list(gaps)
        while left:
            left[:0] = yield from self._read_gap(coverage, left.pop(0))
        if self._broken:
            times = ", ".join(f"{each:%Y-%m-%d %H:%M:%S}" for each in self._broken)
            raise ApiError(
                f"{self.title}: the server returns an error (500) for all rows of {times}"
                " (UTC). All others are loaded; the next run requests these again."
            )

    def _read_gap(
        self, coverage: Coverage, gap: Gap
    ) -> Generator[Part, None, list[Gap]]:
        """Read a gap; return the gaps around a second that the server cannot send."""
        start = f"{gap.start:%Y-%m-%d %H:%M:%S}" if gap.start else "the beginning"
        log.info("%s: reading back to %s", self.title, start)
        before, until = Coverage(coverage.spans), self._extent.until
        order = Order(self._endpoint.newest_first)
        clock: datetime | None = None
        top: datetime | None = None
        span: Span | None = None
        is_restarted = is_inside = is_loaded = False
        key, received = self._endpoint.key, set[Any]()
        pages = self._client.pages(self.name, gap.start, gap.end, gap.page_cursor)
        try:
            for page in pages:
                if self.stats.pages == 0:
                    self._check_project(page)
                cursor, reached = page.asked_cursor, order.reached(page)
                if clock is None:
                    clock = min(page.server_time, page.read_at)
                    top = gap.end and min(gap.end, clock)
                    # The server refused the page cursor, so others would not help.
                    is_restarted = cursor != gap.page_cursor and not page.is_filtered
                if gap.end is None and (top is None or not order.is_newest_first):
                    top = latest(top, newest(page, clock))
                is_past = bool(reached and gap.start and reached < gap.start)
                # A list that is filtered by time ends with its last page.
                is_last = page.next_cursor is None or (is_past and not page.is_filtered)
                span = None
                if top and is_last:
                    span = Span(gap.start, top)
                elif top and reached and not is_loaded:
                    # Not joined with the span below before all late rows are read.
                    above = gap.loaded_to + TICK if gap.loaded_to else reached
                    span = Span(max(reached, above), top, cursor)
                    is_loaded = bool(gap.loaded_to and reached <= gap.loaded_to)
                if span:
                    coverage.add(span)
                elif not order.is_newest_first:
                    coverage.spans = before.spans
                if page.is_filtered or until or not order.is_newest_first:
                    wanted = within(page, gap.start, until)
                else:
                    wanted = contiguous(page, gap, is_inside, is_last)
                    is_inside |= any(wanted)
                is_again = cursor is not None and cursor == gap.page_cursor
                known = known_rows(page, before, clock, is_again)
                keys = page.keys(key)
                if keys & received:  # rows have moved to the next page
                    known = [
                        k or record[key] in received
                        for k, record in zip(known, page.records, strict=True)
                    ]
                received = keys
                has_moved = cursor is not None and not is_again
                if page.is_filtered and reached:  # windows have whole seconds
                    has_moved = gap.end is None or floor(reached) < floor(gap.end)
                is_resumable = bool(reached) and has_moved
                is_resumable &= not (is_last or is_restarted or is_loaded)
                yield self._part(page, wanted, known, is_resumable)
                if is_last:
                    break
        except HttpError as error:
            end = span.start if span else gap.end
            second = error.status == 500 and self._client.broken_second(
                self.name, gap.start, end
            )
            if not second or second in self._broken:
                raise
            self._broken.append(second)
            newer = Gap(second + SECOND, end)
            older = gap._replace(end=second - TICK, page_cursor=None)
            return [gap for gap in (newer, older) if not gap.is_empty]
        return []

    def _check_project(self, page: Page) -> None:
        """Raise _OtherProject if a page is of another project than the bookmark."""
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

    def _part(
        self,
        page: Page,
        wanted: Sequence[bool],
        known: Sequence[bool],
        is_resumable: bool = False,
    ) -> Part:
        stats = self.stats
        kept = [n for n, is_wanted in enumerate(wanted) if is_wanted]
        size = sum(not known[n] for n in kept)
        # A load of mostly known rows would be followed by another like it.
        self._balance += 2 * size - len(kept)
        new = 0 if self.is_sweeping else size
        stats.pages += 1
        stats.rows += new
        stats.reread += len(kept) - new
        times = (page.times[n] for n in kept)
        stats.newest = latest(
            stats.newest, *(t for t in times if t and t <= page.server_time)
        )
        return Part(
            self._bookmark.as_state(),
            [page.records[n] for n in kept],
            page.read_at,
            size,
            min((time for time in page.times if time), default=None),
            is_resumable and self._balance >= 0,
        )

    def build(self, part: Part) -> Part:
        """Return a part with its rows.

        Raises:
            ApiError: a record cannot be a row.
        """
        if part.records and part.read_at:
            part = part._replace(rows=self._rows(part.records, part.read_at))
        self.state = part.bookmark
        return part

    def _rows(self, records: list[Record], read_at: datetime) -> pa.Table:
        endpoint, stats, project = self._endpoint, self.stats, self.name.project
        try:
            built = self._builder.build(
                endpoint.table,
                endpoint.key,
                project,
                records,
                read_at,
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
        return built.rows


def _project_id(record: Record) -> str | None:
    """Return the id of the project that an event or an issue belongs to."""
    project = record.get("project")
    inside = project.get("id") if isinstance(project, dict) else None
    value = record.get("projectID") or inside
    return str(value) if isinstance(value, str | int) else None
