"""Up to where each list is loaded: the rules by which a run goes on.

A list is one table of one project, or of the organization. Its bookmark is an interval:
the list is loaded from `since` up to `synced_to`. A run reads from `synced_to` minus the
lookback on, and what an earlier `since` adds; rows that come again replace their old
copies. A bookmark moves when its list has been read to the end, and never past the
server's clock.

A long reading is loaded in pieces. Until it has come to its end, the bookmark also holds
its `Progress`, from which the next piece, or the next run, goes on.

What changes in a row without a trace in its time is found by a sweep: now and then all of
the list is read again. Its `Progress` stands beside that of what is new, so neither waits
for the other.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

Span = tuple[datetime, datetime]
"""From, and up to (exclusive)."""


class Interval(NamedTuple):
    """What is loaded of a list."""

    since: datetime | None
    """None: from its beginning on."""
    synced_to: datetime | None
    """None: the list was empty."""

    def holds(self, time: datetime) -> bool:
        """Tell whether a row of that time was loaded before, unless it came late."""
        return (
            self.synced_to is not None
            and time <= self.synced_to
            and (self.since is None or time >= self.since)
        )


@dataclass
class Progress:
    """A reading that has not come to the end of its list."""

    since: datetime | None
    """Where the interval will begin when the reading is done."""
    start: datetime | None
    """Rows before this time are not wanted."""
    began: datetime | None = None
    """The server's clock at the first page; later rows are for the next reading."""
    newest: datetime | None = None
    """The latest time of a row up to then: where the interval will end."""
    page_cursor: str | None = None
    """Of the page that was read last; lists that are in order go on there."""
    newest_first: bool | None = None
    edge: datetime | None = None
    """The time that reading has come to."""
    left: list[Span] | None = None
    """What is still to be read, where the server filters by time."""
    end: datetime | None = None
    """Up to where to read, where the server filters by time."""
    stuck: int | None = None
    """Runs in a row that failed where this reading was left."""
    is_whole: bool | None = None
    """It reads all once more."""
    read_from: datetime | None = None
    """Of a sweep: all that it has shown was received then or later, by our own clock."""
    has_history: bool | None = None
    """All that it has read so far went into the history, too."""
    is_rechecking: bool | None = None
    """Of a sweep that has come to the end of the list: what was seen again meanwhile, and
    so moved to the list's top, is read once more."""

    def see_at(self, read_at: datetime) -> None:
        """Take note of when a page was received, by our own clock, which may step back."""
        if self.began is not None:
            self.read_from = min(self.read_from or read_at, read_at)

    def see(self, times: Iterable[datetime | None], server_time: datetime) -> None:
        """Take note of the times of a page."""
        if self.began is None:
            self.began = server_time
        past = [time for time in times if time is not None and time <= self.began]
        self.newest = latest(self.newest, *past)

    def extend(self, end: datetime, lookback: timedelta) -> bool:
        """Read what is new first, before what an earlier run has left.

        Return whether that was possible: where the server filters by time.
        """
        if self.left is None or self.end is None or end <= self.end:
            return False
        begin = latest(earlier(self.end, lookback), self.start) or self.end
        self.left.insert(0, (begin, end))
        self.end = end
        self.began = None  # the reading now goes up to the time of its next page
        return True

    def cover(self, low: datetime, high: datetime) -> None:
        """Take a span that has been read from what is left."""
        left = []
        for start, end in self.left or ():
            if start < min(end, low):
                left.append((start, min(end, low)))
            if max(start, high) < end:
                left.append((max(start, high), end))
        self.left = left


@dataclass
class Bookmark:
    """What is loaded of a list, and the reading that is under way."""

    interval: Interval | None = None
    """None: it was never read to its end."""
    progress: Progress | None = None
    swept: datetime | None = None
    """When the last reading of all of the list began, by the server's clock."""
    sweep: Progress | None = None
    """The sweep that is under way."""
    has_history: bool = False
    """All of the list has been read into the history, and nothing past it since."""
    read: datetime | None = None
    """When the last reading began that came to its end, by the server's clock."""
    problem: str = ""
    """Why the server did not give the list, or all of it, when it was asked last."""
    failed: datetime | None = None
    """When that was, by our own clock."""

    def begin(
        self,
        since: datetime | None,
        lookback: timedelta,
        *,
        latest_start: datetime | None = None,
        end: datetime | None = None,
        anew: bool = False,
    ) -> Progress:
        """Return the reading to do: the one that is under way, or a new one.

        Args:
            since: what the user wants now. A later time than before changes nothing; an
                earlier one adds the part that is missing.
            lookback: how much to read again, for rows that arrived late.
            latest_start: read again from here on at least, for rows that change.
            end: up to where to read, if the server filters by time.
            anew: read all again from `since` on.
        """
        kept = [each.since for each in (self.interval, self.progress) if each]
        begin = earliest(since, *kept)
        if self.progress and self.progress.since == begin and not anew:
            return self.progress
        is_extended = self.interval is not None and self.interval.since != begin
        recent = self._recent(lookback, latest_start) if self.interval else begin
        start = begin if is_extended else recent
        if anew:
            start = earliest(since, start)
        self.progress = Progress(begin, start)
        if anew:
            self.progress.is_whole = True
        if end is not None:
            # The client's clock may be behind the server's.
            end = latest(end, self.interval and self.interval.synced_to) or end
            spans = [(start, end)]
            if is_extended and self.interval and self.interval.since and not anew:
                spans = [(recent, end), (start, self.interval.since)]
            from_beginning = [(latest(a, BEGINNING) or BEGINNING, b) for a, b in spans]
            self.progress.left = [(a, b) for a, b in from_beginning if a < b]
            self.progress.end = end
        return self.progress

    def _recent(
        self, lookback: timedelta, latest_start: datetime | None
    ) -> datetime | None:
        """Return from where on to read what is new, and what may have changed."""
        assert self.interval
        if self.interval.synced_to is None:
            return self.interval.since
        recent = earlier(self.interval.synced_to, lookback)
        return latest(min(recent, latest_start or recent), self.interval.since)

    def complete(self) -> bool:
        """Extend the interval by the reading, which has come to the end of its list.

        Return False where the interval turned out to be wrong: it ends later than it is
        now, since the server's clock was. Then all of it has to be read again.
        """
        done, self.progress = self.progress, None
        if done is None or (done.since and done.began and done.since > done.began):
            return True  # a `since` of the future: nothing is loaded
        self.read = latest(self.read, done.began)
        if done.is_whole or self.interval is None:
            self._note_whole(done)
        before = self.interval.synced_to if self.interval else None
        if before and done.began and before > done.began:
            self.interval = Interval(done.since, None)
            return False
        self.interval = Interval(done.since, latest(before, done.newest, done.since))
        return True

    def is_sweep_due(self, every: timedelta | None, now: datetime) -> bool:
        """Tell whether to read all again, or to go on with that; with None, never."""
        if every is None or self.interval is None:
            return False
        is_old = self.swept is None or not every or abs(now - self.swept) > every
        return self.sweep is not None or is_old

    def note_history(self, reading: Progress, *, has_history: bool) -> None:
        """Note whether what a reading brings from here on goes into the history, too."""
        if not has_history:
            self.has_history = False
        all_so_far = reading.began is None or bool(reading.has_history)
        reading.has_history = (has_history and all_so_far) or None

    def begin_sweep(self, *, anew: bool) -> Progress:
        """Return the sweep to do: the one that is under way, or a new one."""
        assert self.interval
        if self.sweep is None or anew:
            self.sweep = Progress(self.interval.since, self.interval.since)
        return self.sweep

    def complete_sweep(self) -> None:
        """Note that the sweep has come to its end."""
        done, self.sweep = self.sweep, None
        if done:
            self._note_whole(done)

    def _note_whole(self, done: Progress) -> None:
        self.swept = done.began
        self.has_history |= bool(done.has_history)

    @classmethod
    def parse(cls, stored: Mapping[str, Any]) -> "Bookmark":
        """Return the bookmark that dlt's state holds."""
        bookmark = cls(swept=_parse(stored.get("swept")))
        bookmark.read = _parse(stored.get("read"))
        bookmark.problem = stored.get("problem", "")
        bookmark.failed = _parse(stored.get("failed"))
        bookmark.has_history = stored.get("has_history", False)
        if "since" in stored:
            since, synced_to = stored["since"], stored["synced_to"]
            bookmark.interval = Interval(_parse(since), _parse(synced_to))
        if "progress" in stored:
            bookmark.progress = _parse_progress(stored["progress"])
        if "sweep" in stored:
            bookmark.sweep = _parse_progress(stored["sweep"])
        return bookmark

    def as_state(self) -> dict[str, Any]:
        """Return it for dlt's state: times as ISO text, no empty fields."""
        state: dict[str, Any] = {}
        if self.interval:
            state = {
                name: _text(time) for name, time in self.interval._asdict().items()
            }
        if self.swept:
            state["swept"] = _text(self.swept)
        if self.read:
            state["read"] = _text(self.read)
        if self.problem:
            state["problem"] = self.problem
            state["failed"] = _text(self.failed)
        if self.has_history:
            state["has_history"] = True
        if self.progress:
            state["progress"] = _progress_as_state(self.progress)
        if self.sweep:
            state["sweep"] = _progress_as_state(self.sweep)
        return state


BEGINNING = datetime.fromisoformat("2000-01-01T00:00:00Z")
"""From where a server that wants a start is asked, when there is none."""
_TIMES = ("since", "start", "began", "newest", "edge", "end", "read_from")


def earliest(*starts: datetime | None) -> datetime | None:
    """Return the earliest of some beginnings; None is before all."""
    return None if None in starts else min(start for start in starts if start)


def latest(*times: datetime | None) -> datetime | None:
    """Return the latest of some times, if there are any."""
    return max((time for time in times if time), default=None)


def _parse_progress(stored: Mapping[str, Any]) -> Progress:
    fields = dict(stored)
    spans = fields.pop("left", None)
    times: dict[str, Any] = {name: _parse(fields.pop(name, None)) for name in _TIMES}
    progress = Progress(**times, **fields)
    if spans is not None:
        span = datetime.fromisoformat
        progress.left = [(span(a), span(b)) for a, b in spans]
    return progress


def _progress_as_state(progress: Progress) -> dict[str, Any]:
    state = {k: v for k, v in vars(progress).items() if v is not None}
    state |= {name: _text(state[name]) for name in _TIMES if name in state}
    if progress.left is not None:
        state["left"] = [[_text(a), _text(b)] for a, b in progress.left]
    return state


def earlier(time: datetime, span: timedelta) -> datetime:
    """Return the time so long before another one; the earliest of all, if it must be."""
    try:
        return time - span
    except OverflowError:
        return datetime.min.replace(tzinfo=UTC)


def _parse(text: str | None) -> datetime | None:
    return datetime.fromisoformat(text) if text else None


def _text(time: datetime | None) -> str | None:
    return time.isoformat().replace("+00:00", "Z") if time else None
