"""Which spans of a list are loaded, and which gaps are left.

A list is one table of one project, or of the organization. Its bookmark holds the spans
of time whose rows are loaded; a run fills the gaps between them, newest first. So an
interrupted run needs no memory of its own: what it has read is a span, and the rest is
a gap. This module knows neither dlt nor HTTP.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

EARLIEST = datetime.min.replace(tzinfo=UTC)
TICK = timedelta(microseconds=1)
CLOCK_TOLERANCE = timedelta(hours=1)
"""A span that ends later than this from now was stored while a clock was wrong."""


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
    """What is older is loaded, and only read again for rows that arrived late."""

    @property
    def is_empty(self) -> bool:
        """No time is in it."""
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
        """Return what is left to read, newest first.

        Each gap reaches `lookback` into the span below it, for rows that arrived late.
        An earlier `since` than before adds a gap at the bottom; a later one changes
        nothing. With `until`, the coverage is that of one bounded run.
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
        """Add a span, merged with those that it touches."""
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
    """What is loaded of a list. Times of events are the server's, the others ours."""

    loaded: Coverage = field(default_factory=Coverage)
    sweep: Coverage = field(default_factory=Coverage)
    """What the sweep that is under way has read again."""
    project_id: str | None = None
    """Another id under the same slug is another list."""
    began_at: datetime | None = None
    """When the first reading began, until it is complete."""
    sweep_began_at: datetime | None = None
    """When the sweep that is under way began."""
    swept_at: datetime | None = None
    """When the last complete reading of the whole list began."""
    asked_at: datetime | None = None
    """When the last run began that was to read the list."""
    completed_at: datetime | None = None
    """When the list was last read to its end."""
    problem: str = ""
    """Why the list could not be read when it was last asked for."""
    failed_at: datetime | None = None

    @property
    def has_gaps(self) -> bool:
        """Return whether a reading was left before its end, as far as that shows."""
        spans = self.loaded.spans
        return bool(spans) and (
            self.completed_at is None or len(spans) > 1 or bool(spans[-1].page_cursor)
        )

    def is_sweep_due(self, every: timedelta | None, now: datetime) -> bool:
        """Return whether to read the whole list again; never if `every` is None.

        An interrupted sweep is not due, but resumed.
        """
        if every is None or not self.loaded.spans or self.began_at:
            return False
        is_old = self.swept_at is None or now - self.swept_at > every
        return self.sweep_began_at is None and is_old

    def begin_sweep(self, now: datetime) -> None:
        """Begin to read the whole list again."""
        self.began_at, self.sweep_began_at = None, now
        self.sweep = Coverage()

    def end_sweep(self) -> None:
        """Record that the whole list has been read again."""
        self.swept_at, self.sweep_began_at = self.sweep_began_at, None
        self.sweep = Coverage()

    @classmethod
    def parse(cls, stored: Mapping[str, Any], now: datetime) -> "Bookmark":
        """Return the bookmark that dlt's state holds, in its present or previous form.

        Spans and sweeps of the future are left out: a clock was wrong when they were
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
    """Return the time that much earlier, or the earliest of all."""
    try:
        return time - span
    except OverflowError:
        return EARLIEST


def latest(*times: datetime | None) -> datetime | None:
    """Return the latest of some times, if there are any."""
    return max((time for time in times if time), default=None)


def _converted(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return the previous version's bookmark, an interval and a reading, as this form.

    A reading in time windows, or oldest first, is done again.
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
