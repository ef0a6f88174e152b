"""Bookmarks: the loaded spans of a list, and the gaps between them.

A list is one table of one project, or of the organization. Its bookmark holds the spans
of time whose rows are loaded; a run fills the gaps between them, newest first. An
interrupted run can be resumed without further state: the rows it has read form a span,
and the rest is a gap. This module knows neither dlt nor HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EARLIEST = datetime.min.replace(tzinfo=UTC)
TICK = timedelta(microseconds=1)
CLOCK_TOLERANCE = timedelta(hours=1)
"""A span that ends further in the future was stored while a clock was wrong."""


class Span(NamedTuple):
    """A range of time whose rows are loaded."""

    start: datetime | None
    """None: from the beginning of the list."""
    end: datetime
    page_cursor: str | None = None
    """Of the page that holds `start`, where another load can resume."""


class Gap(NamedTuple):
    """A range of time to be read, both ends inclusive."""

    start: datetime | None
    """None: from the beginning of the list."""
    end: datetime | None = None
    """None: the top of the list."""
    page_cursor: str | None = None
    loaded_to: datetime | None = None
    """Older rows are loaded; they are read again only to find late ones."""

    @property
    def is_empty(self) -> bool:
        """Whether the gap contains no time."""
        return bool(self.start and self.end and self.start > self.end)


@dataclass
class Coverage:
    """Loaded spans, newest first; no two of them touch."""

    spans: list[Span] = field(default_factory=list)

    @property
    def start(self) -> datetime | None:
        """Where the oldest span starts; None: at the beginning, or there is no span."""
        return self.spans[-1].start if self.spans else None

    def gaps(
        self,
        since: datetime | None,
        until: datetime | None = None,
        lookback: timedelta = timedelta(),
    ) -> list[Gap]:
        """Return the gaps to read, newest first.

        Each gap reaches `lookback` into the span below it, to find late rows. Moving
        `since` back adds a gap at the bottom; moving it forward has no effect. With `until`, the coverage is that of one bounded run.
        """
        if not self.spans:
            return [Gap(since, until)]
        gaps = []
        above = Span(None, EARLIEST)
        for number, span in enumerate(self.spans):
            start = max(earlier(span.end, lookback), span.start or EARLIEST)
            if number or until is None:
                gaps.append(Gap(start, above.start, above.page_cursor, span.end))
            above = span
        if above.start is not None and (since is None or since < above.start):
            gaps.append(Gap(since, above.start, above.page_cursor))
        return gaps

    def add(self, span: Span) -> None:
        """Add a span and merge it with those it touches."""
        if span.start is not None and span.start > span.end:
            return
        apart = []
        for other in self.spans:
            if _touch(span, other):
                lower = other if _key(other.start) < _key(span.start) else span
                end = max(span.end, other.end)
                span = Span(lower.start, end, lower.page_cursor)
            else:
                apart.append(other)
        self.spans = sorted([*apart, span], key=lambda each: each.end, reverse=True)

    def contains(self, time: datetime) -> bool:
        """Return whether rows of this time are loaded."""
        return any(_key(span.start) <= time <= span.end for span in self.spans)


@dataclass
class Bookmark:
    """The loaded spans of a list, by the server's clock; other times are local."""

    loaded: Coverage = field(default_factory=Coverage)
    sweep: Coverage = field(default_factory=Coverage)
    """Spans that the unfinished sweep has read."""
    project_id: str | None = None
    """If the slug later belongs to another id, the bookmark does not apply."""
    began_at: datetime | None = None
    """When the first load began; None once it is complete."""
    sweep_began_at: datetime | None = None
    """When the unfinished sweep began."""
    swept_at: datetime | None = None
    """When the last complete sweep began."""
    asked_at: datetime | None = None
    """When the last run that included the list began."""
    completed_at: datetime | None = None
    """When the list was last read to its end."""
    problem: str = ""
    """Why the last run could not read the list."""
    failed_at: datetime | None = None

    @property
    def has_gaps(self) -> bool:
        """Return whether the last load of the list is known to be unfinished."""
        spans = self.loaded.spans
        return bool(spans) and (
            self.completed_at is None or len(spans) > 1 or bool(spans[-1].page_cursor)
        )

    def is_sweep_due(self, every: timedelta | None, now: datetime) -> bool:
        """Return whether a new sweep is due; never if `every` is None.

        An unfinished sweep is resumed instead.
        """
        if every is None or not self.loaded.spans or self.began_at:
            return False
        is_old = self.swept_at is None or now - self.swept_at > every
        return self.sweep_began_at is None and is_old

    def begin_sweep(self, now: datetime) -> None:
        """Start a sweep."""
        self.began_at, self.sweep_began_at = None, now
        self.sweep = Coverage()

    def end_sweep(self) -> None:
        """Record that the sweep is complete."""
        self.swept_at, self.sweep_began_at = self.sweep_began_at, None
        self.sweep = Coverage()

    @classmethod
    def parse(cls, stored: Mapping[str, Any], now: datetime) -> "Bookmark":
        """Return the bookmark stored in dlt's state, in the current or previous format.

        Spans and sweeps in the future are dropped: a clock was wrong when they were
        stored.
        """
        if stored.keys() & {"synced_to", "progress", "read", "failed"}:
            stored = _converted(stored)
        bookmark = cls(
            project_id=stored.get("project_id"), problem=stored.get("problem", "")
        )
        for name in ("loaded", "sweep"):
            spans = [_parse_span(*each) for each in stored.get(name, ())]
            kept = [span for span in spans if span.end <= now + CLOCK_TOLERANCE]
            setattr(bookmark, name, Coverage(kept))
        for name in _TIMES:
            setattr(bookmark, name, _parse(stored.get(name)))
        if max(bookmark.swept_at or now, bookmark.sweep_began_at or now) > now:
            bookmark.swept_at = bookmark.sweep_began_at = None
        return bookmark

    def as_state(self) -> dict[str, Any]:
        """Return a copy for dlt's state: times as ISO text, no empty fields."""
        state: dict[str, Any] = {
            name: [[_text(s.start), _text(s.end), s.page_cursor] for s in spans]
            for name in ("loaded", "sweep")
            if (spans := getattr(self, name).spans)
        }
        texts = {name: _text(getattr(self, name)) for name in _TIMES}
        texts |= {"project_id": self.project_id, "problem": self.problem}
        return state | {name: text for name, text in texts.items() if text}


_TIMES = (
    "began_at",
    "sweep_began_at",
    "swept_at",
    "asked_at",
    "completed_at",
    "failed_at",
)


def earlier(time: datetime, span: timedelta) -> datetime:
    """Return `time - span`, but not a time before year 1."""
    try:
        return time - span
    except OverflowError:
        return EARLIEST


def latest(*times: datetime | None) -> datetime | None:
    """Return the latest time, or None if there is none."""
    return max((time for time in times if time), default=None)


def _converted(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Convert a bookmark of the previous version: an interval and an unfinished load.

    An unfinished load by time windows or oldest first is started again.
    """
    state: dict[str, Any] = {
        "swept_at": stored.get("swept"),
        "completed_at": stored.get("read"),
        "problem": stored.get("problem", ""),
        "failed_at": stored.get("failed"),
    }
    if stored.get("synced_to"):
        state["loaded"] = [[stored["since"], stored["synced_to"], None]]
    reading = stored.get("progress", {})
    if "loaded" not in state and reading.get("newest_first") and reading.get("edge"):
        end = reading.get("newest") or reading["edge"]
        cursor = reading.get("page_cursor")
        state["loaded"] = [[reading["edge"], end, cursor]]
        state["began_at"] = reading.get("began")
    return state


def _touch(one: Span, other: Span) -> bool:
    return _key(one.start) <= other.end and _key(other.start) <= one.end


def _key(start: datetime | None) -> datetime:
    return start or EARLIEST


def _parse_span(start: str | None, end: str, page_cursor: str | None) -> Span:
    return Span(_parse(start), datetime.fromisoformat(end), page_cursor)


def _parse(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _text(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None
