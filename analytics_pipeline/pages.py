"""What a page says about its list: the order, the time reached, and the wanted rows."""

import math
from datetime import datetime

from analytics_pipeline.bookmarks import EARLIEST, Coverage, Gap
from analytics_pipeline.client.client import SECOND, floor
from analytics_pipeline.client.page import Page


class Order:
    """Whether the pages of one gap are newest first, and which time they have reached.

    Without a documented order, a list counts as newest first as long as no page begins
    above the one before, and each page descends; a tenth of its rows may be late.
    """

    def __init__(self, is_documented: bool) -> None:
        self.is_newest_first = True
        self._is_documented = is_documented
        self._highest: datetime | None = None
        """Of the page before, without late rows."""

    def reached(self, page: Page) -> datetime | None:
        """Return the time that the list has reached with its next page, if certain.

        Without a documented order, two rows and a tenth of the page must be this old, and
        of different times, so that a few odd rows do not end the list.
        """
        if self._is_documented:
            return page.reached()
        times = [each for each in page.times if each]
        if not times:
            return None
        ascending = times[-1:]
        for each in times[-2::-1]:
            if each >= ascending[-1]:
                ascending.append(each)
        late = len(times) - len(ascending)
        is_above = self._highest is not None and ascending[-1] > self._highest
        self.is_newest_first &= late <= len(times) / 10 and not is_above
        self._highest = ascending[-1]
        rows = max(2, math.ceil(len(page.times) / 10))
        is_certain = len(ascending) >= rows and ascending[0] < ascending[-1]
        return ascending[rows - 1] if self.is_newest_first and is_certain else None


def newest(page: Page, clock: datetime) -> datetime | None:
    """Return the time of the newest row, where the page's span ends.

    Not later than the clock: a row of the future would hide those that follow.
    """
    times = [time for time in page.times if time and time <= clock]
    return max(times, default=clock if page.records else None)


def within(page: Page, start: datetime | None, until: datetime | None) -> list[bool]:
    """Return for each row whether it lies in a span; rows without a time always do.

    Servers filter by whole seconds, and may show a time other than the one they filter by.
    """
    low = start or EARLIEST
    if page.is_filtered:
        return [
            not time
            or until is None
            or not (floor(low) <= time < low or until <= time < until + SECOND)
            for time in page.times
        ]
    return [
        not time or (low <= time and (until is None or time < until))
        for time in page.times
    ]


def contiguous(page: Page, gap: Gap, is_inside: bool, is_last: bool) -> list[bool]:
    """Return for each row, newest first, whether to load it.

    Rows before the first one in the gap are loaded already. Older rows are dropped only
    after the last wanted row of the last page: one among newer rows arrived late.
    """
    inside = [not time or not gap.end or time <= gap.end for time in page.times]
    first = (
        0 if is_inside else next((n for n, i in enumerate(inside) if i), len(inside))
    )
    last = len(page.times)
    if is_last:
        low = gap.start or EARLIEST
        above = [n for n, time in enumerate(page.times, 1) if not time or time >= low]
        last = max(above, default=0)
    return [first <= n < last for n in range(len(page.times))]


def known_rows(
    page: Page, before: Coverage, clock: datetime, is_again: bool
) -> list[bool]:
    """Return for each row whether it was loaded before, or is of the future."""
    if is_again or not before.spans:
        return [is_again] * len(page.times)
    return [bool(t and (before.contains(t) or t > clock)) for t in page.times]
