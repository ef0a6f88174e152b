"""What is found out about a server's filter by time while lists are read."""

import sys
import threading
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta

from analytics_pipeline.client.page import Page, no_rows
from analytics_pipeline.client.retry import STATUSES
from analytics_pipeline.errors import HttpError

Span = tuple[datetime, datetime]
"""From, and up to (exclusive)."""
Ask = Callable[[Span, Collection[int]], Page]
"""Asks for a window; the statuses are those after which to try again."""

RECENT = timedelta(hours=1)
"""Every server keeps what is younger."""
FORGOTTEN = (400, 500)
"""How Sentry refuses a window that lies wholly before what it keeps."""
NOT_500 = tuple(status for status in STATUSES if status != 500)
CONFIRMATIONS = 5
"""Requests that all have to be refused so, before a window is taken for empty."""


class TimeFilter:
    """Whether the server filters by time at all, and up to when it has forgotten all.

    Sentry refuses a window that lies wholly before what it keeps (90 days, 30 on some
    plans, anything on self-hosted), and before August 2025 self-hosted servers ignored
    windows. What one list shows is true of all.

    Args:
        seeks_retention: find out to the day up to when all is forgotten; otherwise it
            is known of the windows that were asked for.
    """

    def __init__(self, *, seeks_retention: bool = True) -> None:
        self.is_ignored = False
        """Rows came from outside of a window."""
        self.is_proven = False
        """Rows that are known to be there did not come, since the window excluded them."""
        self.kept_from: datetime | None = None
        """What is older than this the server does not keep any more, as far as known."""
        self.at_a_time = sys.maxsize
        """Requests for windows that the server takes at a time, as far as known."""
        self._seeks_retention = seeks_retention
        self._is_asked = False
        self._lock = threading.Lock()

    def is_unsure_of(self, time: datetime) -> bool:
        """Tell, once, that it was never asked whether the server keeps rows so old."""
        is_unsure = not (self._is_asked or self._is_forgotten((time, time)))
        self._is_asked = True
        return is_unsure

    def first_page(self, window: Span, ask: Ask) -> Page:
        """Return a window's first page: empty if the server keeps nothing so old.

        Raises:
            HttpError: the server refuses it for another reason.
        """
        if self._is_forgotten(window):
            return no_rows()
        if window[1] > datetime.now(UTC) - RECENT:
            return ask(window, STATUSES)
        try:
            return ask(window, NOT_500)
        except HttpError as error:
            if error.status not in FORGOTTEN:
                raise
        with self._lock:  # one list finds it out for all
            if self._is_before_retention(window, ask):
                return no_rows()
        return ask(window, STATUSES)

    def _is_forgotten(self, window: Span) -> bool:
        return self.kept_from is not None and window[1] <= self.kept_from

    def _is_before_retention(self, window: Span, ask: Ask) -> bool:
        """Find out whether a window was refused since the server keeps nothing so old.

        Then the same span up to now is answered, and the window's last second is not.
        """
        if not self._is_forgotten(window):
            ask((window[0], datetime.now(UTC)), STATUSES)
            if not _refuses_all(window[1], ask):
                return False
            self.kept_from = self._retention(window[1], ask)
        return True

    def _retention(self, forgotten: datetime, ask: Ask) -> datetime:
        """Return up to when the server has forgotten all: to the day, by halving."""
        low, high = forgotten, datetime.now(UTC)
        while self._seeks_retention and high - low > timedelta(days=1):
            middle = low + (high - low) / 2
            if _refuses(_second_before(middle), ask):
                low = middle
            else:
                high = middle
        is_proven = low == forgotten or _refuses_all(low, ask)
        return low if is_proven else forgotten


def _refuses_all(end: datetime, ask: Ask) -> bool:
    """Tell whether the second before a time is refused, however often it is asked for.

    By chance a server does not fail so; and one that has begun to fail refuses what
    reaches up to now as well.
    """
    second = _second_before(end)
    if not all(_refuses(second, ask) for _ in range(CONFIRMATIONS)):
        return False
    return not _refuses((second[0], datetime.now(UTC)), ask)


def _refuses(window: Span, ask: Ask) -> bool:
    try:
        ask(window, NOT_500)
    except HttpError as error:
        if error.status in FORGOTTEN:
            return True
        raise
    return False


def _second_before(end: datetime) -> Span:
    return end - timedelta(seconds=1), end
