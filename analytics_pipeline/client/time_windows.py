"""A long span of time in windows, read side by side.

Only for servers that filter by time; whether one does, the first window that is cut off
shows, before others are asked for. The first page tells how dense the rows are. The
time before it is cut into some windows of about `PAGES` pages, and all that is older,
of which again one page is read and the rest cut. A window that turns out fuller is left
after twice as many pages, and its rest cut again. So no list is paged deeply, which
grows slow on servers that count through all rows before a page, and no worker idles.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import pairwise

from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import Slice, SliceOwner
from analytics_pipeline.client.time_filter import TimeFilter
from analytics_pipeline.errors import WindowsIgnored

PAGES = 10
SECOND = timedelta(seconds=1)


class TimeWindow(Slice):
    """The rows of a list from `start` up to `end`, newest first.

    `start` and `end` are whole seconds, since servers filter by them. With `ahead`, the
    density of the window is not known yet: so many windows are cut off behind its first
    page. With one worker a window is read as it is.
    """

    def __init__(
        self,
        owner: SliceOwner,
        start: datetime,
        end: datetime,
        *,
        workers: int,
        time_filter: TimeFilter,
        ahead: int = 1,
        is_cut_off: bool = False,
    ) -> None:
        super().__init__(owner)
        self.start, self.end = floor(start), ceil(end)
        self.workers = workers
        self.ahead = ahead
        self._filter = time_filter
        self._is_cut_off = is_cut_off
        """There are newer rows, which the window excludes."""
        self.covered = (self.end, self.end)
        """The span that the page that came last completes."""
        self.is_left = False
        """Reading ended there: rows of the page that are older are for another window."""
        self._newest = self.start

    @property
    def window(self) -> tuple[datetime, datetime]:
        """The span of time to ask for."""
        return self.start, self.end

    def is_due(self) -> bool:
        """Tell whether to ask for it now: another load can do that as well."""
        return self.pages > 0 or self.owner.room() > 0

    def taking(self, page: Page) -> Slice | None:
        """Return the whole list in its place, where the server ignores windows.

        Then this is a page of the whole list, which goes on behind it.

        Raises:
            WindowsIgnored: the server does so, but did not always: what was read of
                this list tells nothing, and it has to begin anew.
        """
        times = [time for time in page.times if time is not None]
        newer = [time for time in times if time >= self.end + SECOND]
        older = [time for time in times if time < self.start - SECOND]
        again = [time for time in times if time >= self.covered[0] + SECOND]
        # A row or two may have another time for the server than the one it shows.
        odd = len(times) // 10
        is_outside = len(newer) + len(older) > odd
        if not (is_outside or len(again) > odd or self._filter.is_ignored):
            self._filter.is_proven |= self._is_cut_off
            return self
        self._filter.is_ignored = True
        if self._filter.is_proven or not is_outside:
            raise WindowsIgnored("the server gives rows of other times than asked for")
        is_overlap = self._is_cut_off and newer
        whole = self.owner.without_windows(self.end if is_overlap else None)
        if whole is not None:
            whole.pages = self.pages
            whole.page_cursor = self.page_cursor
        return whole

    def after(self, page: Page) -> Sequence[Slice]:
        """Return the window again, or what is left of it in windows of its density."""
        high = self.covered[0]
        if page.next_cursor is None:
            self.covered = (self.start, high)
            self.pages += 1
            return ()
        times = [time for time in page.times if time is not None]
        low = high
        if times and all(a >= b for a, b in pairwise(times)):
            # Rows of the last second may go on on the next page.
            low = min(high, floor(times[-1]) + SECOND)
        self._newest = max([self._newest, *times])
        self.covered = (low, high)
        room = self.owner.room()
        is_stopped = room <= 0
        workers = min(self.workers, self._filter.at_a_time)
        # Windows that would be left at once cost more requests than they save time.
        is_worthwhile = room >= workers * PAGES * len(page.records)
        limit = 1 if self.ahead else 2 * PAGES
        is_full = workers > 1 and self.pages + 1 >= limit and is_worthwhile
        # Rows of one second cannot be told apart by a window.
        if low < self.end and (is_full or is_stopped):
            self.pages += 1
            self.is_left = True
            return () if is_stopped else self._cut(low)
        return super().after(page)

    def _cut(self, low: datetime) -> Sequence[Slice]:
        """Return what is older than the pages read, newest first, the long rest before."""
        page_span = max(self._newest - low, SECOND) / self.pages
        count = min(self.ahead or self.workers, self.workers)
        if not self._filter.is_proven:
            return [self._part(self.start, low, ahead=count)]
        windows: list[Slice] = []
        end = low
        while self.start < end and len(windows) < count:
            start = max(self.start, floor(end - page_span * PAGES))
            windows.append(self._part(start, end, ahead=0))
            end = start
        older = [self._part(self.start, end, ahead=2 * count)]
        return (older if self.start < end else []) + windows

    def _part(self, start: datetime, end: datetime, ahead: int) -> "TimeWindow":
        return TimeWindow(
            self.owner,
            start,
            end,
            workers=self.workers,
            time_filter=self._filter,
            ahead=ahead,
            is_cut_off=True,
        )


def floor(time: datetime) -> datetime:
    """Return the whole second at or before a time."""
    return time.replace(microsecond=0)


def ceil(time: datetime) -> datetime:
    """Return the whole second at or after a time."""
    return floor(time) + SECOND if time.microsecond else time
