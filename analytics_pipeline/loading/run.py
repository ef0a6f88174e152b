"""One run: the loads that bring what there is, and what they share."""

import math
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import datetime, timedelta
from typing import Any

import dlt
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable

from analytics_pipeline.client.pagination import Client
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ApiError

ROWS_PER_BATCH = 10_000
"""Rows of one Arrow table: fewer cost time, more cost memory."""
SECONDS_PER_LOAD = 300.0
"""So long after its first page a load is ended, and another one goes on."""

SAME_TIME = timedelta(seconds=2)


class Run:
    """The loads of one run: what they share, and when one of them has brought enough.

    `runner.load` makes one; elsewhere each load is a run by itself.

    Args:
        rows_per_load: where the source has no such setting; None: all in one load.
        is_whole: there is only one load, whatever the setting says.
        keeps_going: a list that fails does not end the run, but is in `failures`.
    """

    def __init__(
        self,
        rows_per_load: int | None = None,
        *,
        is_whole: bool = False,
        keeps_going: bool = False,
    ) -> None:
        self.rows_per_load = rows_per_load
        self.is_whole = is_whole
        self.keeps_going = keeps_going
        self.begun: set[tuple[str, str]] = set()
        """Table and list: readings that began in this run."""
        self.checked: set[str] = set()
        """Tables whose bookmarks were found to be true of them, or forgotten."""
        self.finished: set[tuple[str, str]] = set()
        """Table and list: what later loads of this run need not ask again."""
        self.failures: dict[str, ApiError] = {}
        """List → its error."""
        self.refusals: dict[str, ApiError] = {}
        """List → why the server does not give it; it is left for another run."""
        self.ended: set[str] = set()
        """Resources of this load that have come to their end."""
        self.bounded: dict[str, dict[str, Any]] = {}
        """Table → bookmarks of readings with an `until`, which are not kept."""
        self.rows_per_batch = ROWS_PER_BATCH
        self.spans: dict[str, tuple[datetime, datetime]] = {}
        """Table → from and up to when to read, whatever the source says."""
        self.clock_offset = timedelta()
        """How far the server's clock is ahead of ours."""
        self.client: Client | None = None
        """Of the source that is read."""
        self.config: Config | None = None
        """Its settings."""
        self.has_pages = False
        """A page has come, so the server is not out of order as a whole."""
        self._lock = threading.Lock()
        self.next_load()

    def next_load(self) -> None:
        """Begin another load."""
        self.is_unfinished = False
        """Some lists have more rows, for a further load."""
        self._rows = 0
        self._started = math.inf

    @property
    def is_refused(self) -> bool:
        """The server gave nothing but refusals."""
        return bool(self.refusals) and not self.has_pages

    def compare_clocks(self, server_time: datetime, our_time: datetime) -> None:
        """Take note of how far the server's clock, which shows seconds, is ahead."""
        offset = server_time - our_time
        self.clock_offset = offset if abs(offset) > SAME_TIME else timedelta()

    def count(self, rows: int) -> None:
        """Add the rows of a page."""
        self.has_pages = True
        with self._lock:
            self._rows += rows
            self._started = min(self._started, time.monotonic())

    def room(self, rows_per_load: int | None) -> float:
        """Return how many rows the load still takes; none when it has taken long."""
        most = rows_per_load or self.rows_per_load
        if most is None or self.is_whole:
            return math.inf
        is_late = time.monotonic() - self._started > SECONDS_PER_LOAD
        return 0 if is_late else most - self._rows

    @contextmanager
    def active(self) -> Iterator["Run"]:
        """Make it the run of all sources that are read inside."""
        token = active_run.set(self)
        try:
            yield self
        finally:
            active_run.reset(token)


active_run: ContextVar[Run | None] = ContextVar("analytics_pipeline_run", default=None)


def current_load_id() -> str | None:
    """Return dlt's id of the load that is read for; None where a resource is iterated."""
    try:
        return str(dlt.current.load_package_state()["load_id"])
    except CurrentLoadPackageStateNotAvailable:
        return None
