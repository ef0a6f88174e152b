"""Whole lists: in what order they come, when they end early, and where they are left."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple, NoReturn

from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import Slice, SliceOwner
from analytics_pipeline.client.session import RequestStats
from analytics_pipeline.errors import ApiError, ListChanged


@dataclass
class Reader:
    """Wants a list for itself, and gives up at the first error."""

    endpoint: Endpoint
    project: str = ""
    stats: RequestStats = field(default_factory=RequestStats)

    def room(self) -> float:
        """Return that all rows are wanted."""
        return math.inf

    def without_windows(self, edge: datetime | None) -> None:
        """Return nothing: it is read without windows."""

    def after_end(self, part: Slice) -> Sequence[Slice]:
        """Return nothing: that was all."""
        return ()

    def on_error(self, part: Slice, error: ApiError) -> NoReturn:
        """Raise the error."""
        raise error


class Position(NamedTuple):
    """Where a list was left."""

    page_cursor: str | None
    """Of the page that was read last; None is the first page."""
    newest_first: bool
    """The order of the pages; otherwise oldest first."""
    edge: datetime
    """The time that reading had come to."""


class ListSlice(Slice):
    """A whole list, up to its end or to the rows before `start`.

    It can be left at a page, and gone on with from there another time (`resume`), if
    its pages are in order of time.
    """

    def __init__(
        self,
        owner: SliceOwner,
        start: datetime | None,
        *,
        can_be_left: bool = True,
    ) -> None:
        super().__init__(owner)
        self.start = start
        self._can_be_left = can_be_left
        self.order = Order(owner.endpoint.newest_first)
        self.asked_cursor: str | None = None
        """Page cursor of the page that came last."""
        self.ended = False
        self.resumed_at: datetime | None = None

    def resume(self, position: Position) -> None:
        """Go on at a page that an earlier reading had come to; it is asked for again."""
        self.page_cursor = position.page_cursor
        self.order.resume(position.newest_first, position.edge)
        self.resumed_at = position.edge

    def restart(self) -> "ListSlice":
        """Return the same list from its first page on, to be read to its end at once.

        Its page cursors do not hold, so it would have to begin anew for ever.
        """
        return ListSlice(self.owner, self.start, can_be_left=False)

    def after(self, page: Page) -> Sequence[Slice]:
        """Return this slice again while there is more to read.

        Documented at `Slice.after`; a page that does not go on where the list was left
        begins the list anew.
        """
        times = page.times
        if self.resumed_at and not self.pages and not self.order.overlaps(times):
            return self.owner.on_error(
                self, ListChanged("rows were deleted since, and others would be missed")
            )
        self.asked_cursor = self.page_cursor
        self.order.note(times)
        self.ended = page.next_cursor is None or self.order.is_past(times, self.start)
        if self.ended:
            self.pages += 1
            return self.owner.after_end(self)
        if self.owner.room() <= 0 and self.position():
            self.pages += 1
            return ()
        return super().after(page)

    def is_overlap(self, time: datetime) -> bool:
        """Tell whether a row of the page that was asked again had come before."""
        if self.resumed_at is None or self.pages > 1:
            return False
        if self.order.newest_first:
            return time >= self.resumed_at
        return time <= self.resumed_at

    def position(self) -> Position | None:
        """Return where another reading can go on, if it is then further than this one."""
        newest_first, edge = self.order.newest_first, self.order.edge
        if self.asked_cursor is None or newest_first is None or edge is None:
            return None
        if edge == self.resumed_at or not self._can_be_left:
            return None
        return Position(self.asked_cursor, newest_first, edge)


class Order:
    """What the pages of a list show of its order by time.

    Where no order is documented, one odd row must not end a list.
    """

    def __init__(self, documented: bool) -> None:
        self.documented = documented
        """Newest first, says the vendor."""
        self._falling = self._rising = True
        """No page contradicts it so far."""
        self._rose = False
        self._descending = self._disordered = 0
        """Pages."""
        self._low: datetime | None = None
        self._high: datetime | None = None

    @property
    def newest_first(self) -> bool | None:
        """The direction; None where the pages have shown none."""
        if self.documented:
            return True
        return None if self._falling == self._rising else self._falling

    @property
    def edge(self) -> datetime | None:
        """The time that reading has come to; None where there is no order."""
        return {True: self._low, False: self._high, None: None}[self.newest_first]

    def resume(self, newest_first: bool, edge: datetime) -> None:
        """Take over what an earlier run had found out."""
        self._falling = newest_first
        self._rising = self._rose = not newest_first
        self._low = self._high = edge

    def overlaps(self, times: Sequence[datetime | None]) -> bool:
        """Tell whether a page begins before where the list was left.

        Rows of just that time may be the next ones, or some of them missing.
        """
        known = [time for time in times if time is not None]
        if not known or self.edge is None:
            return False
        return max(known) > self.edge if self.newest_first else min(known) < self.edge

    def note(self, times: Sequence[datetime | None]) -> None:
        """Look at the times of a page."""
        known = [time for time in times if time is not None]
        if not known:
            return
        falls, rises = _falls(known), _rises(known)
        tied = len(set(known)) == 1
        self._falling &= tied or falls
        self._rising &= tied or rises
        self._rose |= rises
        self._descending += falls
        self._disordered += not (tied or falls or rises)
        self._low = min(known) if self._low is None else min(self._low, *known)
        self._high = max(known) if self._high is None else max(self._high, *known)

    def is_past(self, times: Sequence[datetime | None], start: datetime | None) -> bool:
        """Tell whether all that follows a page is older than `start`.

        Where the order is documented, the last row tells. Elsewhere the page has to be
        in descending order, as at least half of the pages were, and a tenth of it, and
        more than one row, older than `start`; after a page in ascending order a list is
        read to its end.
        """
        known = [time for time in times if time is not None]
        if start is None or not known:
            return False
        if self.documented:
            return known[-1] < start
        if self._rose or not _falls(known) or self._disordered > self._descending:
            return False
        older = sum(time < start for time in known)
        return older >= max(2, len(known) / 10)


def _falls(times: Sequence[datetime]) -> bool:
    """Tell whether times descend; equal ones alone show no order."""
    return times[0] > times[-1] and all(a >= b for a, b in pairwise(times))


def _rises(times: Sequence[datetime]) -> bool:
    return times[0] < times[-1] and all(a <= b for a, b in pairwise(times))
