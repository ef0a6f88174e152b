"""One run, and what its loads share."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from analytics_pipeline.errors import ApiError
from analytics_pipeline.reading import Extent, ListReader
from analytics_pipeline.workers import Budget


@dataclass
class Run:
    """What the loads of one run share. `runner.load` makes one; elsewhere a load is one."""

    rows_per_load: int | None = None
    """Where the source has no such setting; None: all in one load."""
    keeps_bookmarks: bool = True
    """Bookmarks are taken from dlt's state and kept there; otherwise all is read."""
    continue_on_error: bool = False
    """Further loads follow, and a list that fails is in `failures`."""
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    budget: Budget | None = None
    """Of the current load; None before its first resource is read."""
    extents: dict[str, Extent] = field(default_factory=dict)
    """Table → what is read of its lists."""
    readers: dict[tuple[str, str], ListReader] = field(default_factory=dict)
    """Table and list → the reader of its last load in this run."""
    done: set[tuple[str, str]] = field(default_factory=set)
    """Table and list: those that later loads need not read."""
    failures: dict[str, ApiError] = field(default_factory=dict)
    """List → its error."""
    refusals: dict[str, ApiError] = field(default_factory=dict)
    """List → why the server refused it; another run asks again."""
    ended: set[str] = field(default_factory=set)
    """Tables of this load that were read."""
    unkept: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Table → bookmarks that are not kept, such as those of readings with an `until`."""
    has_pages: bool = False
    """The server has given a page."""
    is_unfinished: bool = False
    """Some lists have more rows, for a further load."""

    @property
    def is_refused(self) -> bool:
        """The server gave nothing but refusals."""
        return bool(self.refusals) and not self.has_pages

    def next_load(self) -> None:
        """Begin another load."""
        self.is_unfinished = False
        self.budget = None

    @contextmanager
    def active(self) -> Iterator["Run"]:
        """Make it the run of all sources that are read inside."""
        token = active_run.set(self)
        try:
            yield self
        finally:
            active_run.reset(token)


active_run: ContextVar[Run | None] = ContextVar("analytics_pipeline_run", default=None)
