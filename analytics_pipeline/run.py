"""One run, and what its loads share."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from dlt.common.pipeline import current_pipeline

from analytics_pipeline.errors import ApiError
from analytics_pipeline.reading import Extent, ListReader, Part
from analytics_pipeline.workers import Budget

READ = "read: "
"""Prefix of a list's counter in dlt's collector."""
REQUESTS = "requests"
"""Name of the counter of requests."""


@dataclass
class Run:
    """What the loads of one `runner.load` share; without it, each load is a run."""

    rows_per_load: int | None = None
    """Used if the source has no such setting; None: all in one load."""
    keeps_bookmarks: bool = True
    """Bookmarks are taken from dlt's state and stored there; otherwise all is read."""
    continue_on_error: bool = False
    """Further loads follow; lists that fail are collected in `failures`."""
    began_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    budget: Budget | None = None
    """Of the current load; None before its first resource is read."""
    extents: dict[str, Extent] = field(default_factory=dict)
    """Table → range to read of its lists."""
    readers: dict[tuple[str, str], ListReader] = field(default_factory=dict)
    """Table and list → the last reader."""
    done: set[tuple[str, str]] = field(default_factory=set)
    """Table and list, if later loads need not read it."""
    failures: dict[str, ApiError] = field(default_factory=dict)
    """List → its error."""
    refusals: dict[str, ApiError] = field(default_factory=dict)
    """List → why the server refused it."""
    ended: set[str] = field(default_factory=set)
    """Tables whose resource has ended."""
    unkept: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Table → bookmarks that are not stored, for example with `until`."""
    bytes: int = 0
    """Of the rows of the current load."""
    has_pages: bool = False
    """The server has sent a page."""
    is_unfinished: bool = False
    """Another load is needed for the remaining rows."""

    @property
    def is_refused(self) -> bool:
        """The server refused every list."""
        return bool(self.refusals) and not self.has_pages

    @property
    def failed(self) -> dict[str, ApiError]:
        """The lists that failed; if the server refused every list, those too."""
        return self.failures | (self.refusals if self.is_refused else {})

    def next_load(self) -> None:
        """Prepare for the next load."""
        self.is_unfinished = False
        self.budget = None
        self.bytes = 0

    def report_progress(self, reader: ListReader, part: Part) -> None:
        """Count a page in dlt's collector, which itself counts whole batches."""
        if not reader.stats.pages:
            return
        self.has_pages = True
        pipeline = current_pipeline()
        if pipeline is None:
            return
        message = f"back to {part.reached:%Y-%m-%d %H:%M}" if part.reached else ""
        collector, title = pipeline.collector, reader.title
        collector.update(REQUESTS, inc=reader.name.stats.new_requests())
        if part.records is not None:
            collector.update(READ + title, inc=len(part.records), message=message)

    @contextmanager
    def active(self) -> Iterator["Run"]:
        """Use this run for all sources that are read inside."""
        token = active_run.set(self)
        try:
            yield self
        finally:
            active_run.reset(token)


active_run: ContextVar[Run | None] = ContextVar("analytics_pipeline_run", default=None)
