"""A long span of time in pieces, read side by side.

Only for servers that filter by time. The first page tells how dense the rows are. The
time before it is cut into some windows of about `PAGES` pages, and all that is older,
of which again one page is read and the rest cut. A window that turns out fuller is left
after twice as many pages, and its rest cut again. So no list is paged deeply, which
grows slow on servers that count through all rows before a page, and no worker idles.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from analytics_pipeline.pages import Page
from analytics_pipeline.tables import Record

PAGES = 10
SECOND = timedelta(seconds=1)


class Window(NamedTuple):
    start: datetime
    end: datetime
    """Exclusive; both in whole seconds, since servers filter by them."""
    known: frozenset[str] = frozenset()
    """Keys of rows in the last second that were read already."""
    ahead: int = 0
    """Its length is not known: so many windows are cut off behind its first page."""


class Part(NamedTuple):
    """What was read of a window, and the windows that it left."""

    pages: list[Page]
    rest: list[Window]


@dataclass
class Windows:
    """Reads a span with several workers; pages come in no order."""

    fetch: Callable[[datetime, datetime], Iterator[Page]]
    """The pages of a window, newest first."""
    time_of: Callable[[Record], datetime | None]
    key_of: Callable[[Record], str]
    workers: int
    stopped: bool = False

    def pages(self, start: datetime, end: datetime) -> Iterator[Page]:
        # One at first: a short list is not worth many requests.
        first = self._read(Window(floor(start), ceil(end), ahead=1))
        yield from first.pages
        if not first.rest:
            return
        pool = ThreadPoolExecutor(self.workers)
        try:
            running = {pool.submit(self._read, window) for window in first.rest}
            while running:
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for part in map(Future.result, done):
                    running |= {pool.submit(self._read, rest) for rest in part.rest}
                    yield from part.pages
        finally:
            self.stopped = True
            pool.shutdown(cancel_futures=True)

    def _read(self, window: Window) -> Part:
        limit = 1 if window.ahead else 2 * PAGES
        read: list[Page] = []
        oldest, newest = window.end, window.start
        for page in self.fetch(window.start, window.end):
            times = [time for row in page.rows if (time := self.time_of(row))]
            oldest = min([oldest, *map(floor, times)])
            newest = max([newest, *times])
            fresh = [row for row in page.rows if self.key_of(row) not in window.known]
            read.append(page._replace(rows=fresh))
            # Rows of one second cannot be told apart by a window.
            is_full = len(read) >= limit and oldest + SECOND < window.end
            if page.next_cursor and (is_full or self.stopped):
                dense = max(newest - oldest, SECOND) / len(read)
                return Part(read, self._rest(window, read, oldest, dense * PAGES))
        return Part(read, [])

    def _rest(
        self, window: Window, read: list[Page], oldest: datetime, length: timedelta
    ) -> list[Window]:
        """What is older than the pages read, in windows of that length."""
        boundary = frozenset(
            self.key_of(row)
            for page in read
            for row in page.rows
            if (time := self.time_of(row)) and floor(time) == oldest
        )
        rest = Window(window.start, oldest + SECOND, boundary)
        return cut(rest, length, min(window.ahead or self.workers, self.workers))


def cut(window: Window, length: timedelta, count: int) -> list[Window]:
    """So many windows, newest first; but before them what is older than they."""
    windows: list[Window] = []
    while window.start < window.end and len(windows) < count:
        edge = max(window.start, floor(window.end - length))
        windows.append(window._replace(start=edge))
        window = Window(window.start, edge)
    older = [window._replace(ahead=2 * count)] if window.start < window.end else []
    return older + windows


def floor(time: datetime) -> datetime:
    return time.replace(microsecond=0)


def ceil(time: datetime) -> datetime:
    return floor(time) + SECOND if time.microsecond else time
