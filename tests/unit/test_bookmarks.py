"""Bookmarks: what a list is loaded of, and from where on a run reads it."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_pipeline.bookmarks import (
    BEGINNING,
    Bookmark,
    Interval,
    Progress,
    Span,
    earliest,
    latest,
)
from tests.unit.profiles import LONG, SHORT

DAY = timedelta(days=1)
HOUR = timedelta(hours=1)
NONE = timedelta()
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)


def day(number: float) -> datetime:
    return EPOCH + number * DAY


def days(*numbers: float) -> list[datetime]:
    return [day(number) for number in numbers]


def loaded(
    since: float | None, synced_to: float | None, read: float | None = None
) -> Bookmark:
    """A bookmark of a list that was read to its end; the time of that as `read`."""
    return Bookmark(
        Interval(
            None if since is None else day(since),
            None if synced_to is None else day(synced_to),
        ),
        read=None if read is None else day(read),
    )


def span(start: float, end: float) -> Span:
    return day(start), day(end)


# The first reading


@pytest.mark.parametrize("since", [None, day(3)])
def test_a_new_list_is_read_from_since_on(since: datetime | None) -> None:
    bookmark = Bookmark()
    progress = bookmark.begin(since, HOUR)
    assert progress == Progress(since, since)
    assert bookmark.progress is progress
    assert bookmark.interval is None


@pytest.mark.parametrize("since", [None, day(3)])
def test_a_reading_that_is_complete_is_an_interval_up_to_the_newest_row(
    since: datetime | None,
) -> None:
    bookmark = Bookmark()
    progress = bookmark.begin(since, HOUR)
    progress.see(days(9, 8), server_time=day(10))
    progress.see(days(7, 6), server_time=day(11))
    bookmark.complete()
    assert bookmark == Bookmark(Interval(since, day(9)), swept=day(10), read=day(10))


def test_rows_of_the_future_do_not_move_a_bookmark() -> None:
    bookmark = Bookmark()
    progress = bookmark.begin(None, HOUR)
    progress.see(days(99, 10, 9), server_time=day(10))
    progress.see(days(10.5, 8), server_time=day(11))  # came while it was read
    bookmark.complete()
    assert bookmark.interval == Interval(None, day(10))


def test_rows_without_a_time_do_not_move_a_bookmark() -> None:
    progress = Progress(None, None)
    progress.see([None, day(3), None], server_time=day(10))
    assert (progress.began, progress.newest) == (day(10), day(3))
    progress.see([None], server_time=day(11))
    assert (progress.began, progress.newest) == (day(10), day(3))


@pytest.mark.parametrize(("since", "synced_to"), [(None, None), (day(3), day(3))])
def test_an_empty_list_is_loaded_up_to_where_it_begins(
    since: datetime | None, synced_to: datetime | None
) -> None:
    bookmark = Bookmark()
    bookmark.begin(since, HOUR).see([], server_time=day(10))
    bookmark.complete()
    assert bookmark.interval == Interval(since, synced_to)
    assert bookmark.begin(since, HOUR) == Progress(since, since)


def test_a_since_of_the_future_loads_nothing_and_is_forgotten() -> None:
    bookmark = Bookmark()
    bookmark.begin(day(20), HOUR).see(days(9, 8), server_time=day(10))
    bookmark.complete()
    assert bookmark == Bookmark()
    assert bookmark.begin(day(5), HOUR) == Progress(day(5), day(5))


def test_completing_without_a_reading_changes_nothing() -> None:
    bookmark = loaded(3, 9)
    bookmark.complete()
    assert bookmark == loaded(3, 9)
    bookmark = Bookmark()
    bookmark.complete()
    assert bookmark == Bookmark()


# Further readings


@pytest.mark.parametrize("since", [3, 4, 20])
def test_an_equal_or_later_since_changes_nothing(since: float) -> None:
    bookmark = loaded(3, 9)
    progress = bookmark.begin(day(since), HOUR)
    assert progress == Progress(day(3), day(9) - HOUR)
    progress.see(days(12), server_time=day(13))
    bookmark.complete()
    assert bookmark == loaded(3, 12, read=13)


@pytest.mark.parametrize("since", [None, day(3)])
def test_a_since_is_later_than_the_beginning(since: datetime | None) -> None:
    assert loaded(None, 9).begin(since, HOUR) == Progress(None, day(9) - HOUR)


@pytest.mark.parametrize("since", [None, day(1)])
def test_an_earlier_since_reads_from_there_on(since: datetime | None) -> None:
    bookmark = loaded(3, 9)
    progress = bookmark.begin(since, HOUR)
    assert progress == Progress(since, since)
    progress.see(days(12, 2), server_time=day(13))
    bookmark.complete()
    assert bookmark.interval == Interval(since, day(12))


def test_without_new_rows_an_interval_stays_as_it_is() -> None:
    bookmark = loaded(3, 9)
    bookmark.begin(day(3), HOUR).see([], server_time=day(13))
    bookmark.complete()
    assert bookmark == loaded(3, 9, read=13)


def test_a_bookmark_keeps_a_problem() -> None:
    bookmark = loaded(3, 9, read=10)
    bookmark.problem, bookmark.failed = "500 Internal Server Error", day(11)
    assert Bookmark.parse(bookmark.as_state()) == bookmark


def test_an_interval_does_not_shrink() -> None:
    bookmark = loaded(3, 9)
    bookmark.begin(day(3), DAY).see(days(8.5), server_time=day(13))
    bookmark.complete()
    assert bookmark == loaded(3, 9, read=13)


@pytest.mark.parametrize(
    ("lookback", "start"),
    [(NONE, 9), (DAY, 8), (6 * DAY, 3), (7 * DAY, 3), (1000 * DAY, 3)],
)
def test_a_lookback_reads_again_but_not_before_the_interval(
    lookback: timedelta, start: float
) -> None:
    assert loaded(3, 9).begin(day(3), lookback) == Progress(day(3), day(start))


@pytest.mark.parametrize(
    ("latest_start", "start"), [(12, 8), (8, 8), (5, 5), (3, 3), (1, 3)]
)
def test_rows_that_change_are_read_again_from_the_latest_start_on(
    latest_start: float, start: float
) -> None:
    progress = loaded(3, 9).begin(day(3), DAY, latest_start=day(latest_start))
    assert progress == Progress(day(3), day(start))


def test_a_latest_start_does_not_shorten_the_first_reading() -> None:
    assert Bookmark().begin(day(3), DAY, latest_start=day(7)).start == day(3)
    assert Bookmark().begin(None, DAY, latest_start=day(7)).start is None
    assert loaded(None, None).begin(None, DAY, latest_start=day(7)).start is None


@pytest.mark.parametrize("since", [3, None])
def test_a_lookback_of_thousands_of_years_reads_all_again(since: float | None) -> None:
    bookmark = loaded(since, 9)
    start = None if since is None else day(since)
    progress = bookmark.begin(start, timedelta(days=1_000_000))
    assert progress.since == start
    assert progress.start is None or progress.start <= (start or BEGINNING)


# Readings that go on


def test_a_reading_that_is_under_way_goes_on() -> None:
    bookmark = loaded(3, 9)
    progress = bookmark.begin(day(3), HOUR)
    progress.see(days(12), server_time=day(13))
    progress.page_cursor, progress.edge = "p", day(12)
    assert bookmark.begin(day(3), DAY, latest_start=day(1)) is progress
    assert bookmark.begin(day(4), HOUR) is progress
    assert progress.start == day(9) - HOUR
    progress.see(days(14, 11), server_time=day(15))
    bookmark.complete()
    assert bookmark == loaded(3, 12, read=13)


def test_an_earlier_since_begins_a_reading_anew() -> None:
    bookmark = loaded(3, 9)
    bookmark.begin(day(3), HOUR).page_cursor = "p"
    assert bookmark.begin(day(1), HOUR) == Progress(day(1), day(1))
    bookmark = Bookmark()
    bookmark.begin(day(3), HOUR).page_cursor = "p"
    assert bookmark.begin(None, HOUR) == Progress(None, None)


def test_a_later_since_does_not_give_up_what_a_reading_had_begun_with() -> None:
    bookmark = loaded(3, 9)
    progress = bookmark.begin(day(1), HOUR)
    assert bookmark.begin(day(2), HOUR) is progress
    assert bookmark.begin(day(3), HOUR) is progress


def test_a_reading_under_way_is_no_promise() -> None:
    bookmark = loaded(3, 9)
    bookmark.begin(day(1), HOUR).see(days(12), server_time=day(13))
    assert bookmark.interval == Interval(day(3), day(9))


# Where the server filters by time


@pytest.mark.parametrize(
    ("bookmark", "since", "left"),
    [
        (Bookmark(), 3, [span(3, 20)]),
        (loaded(3, 9), 3, [span(8, 20)]),
        (loaded(3, 9), 5, [span(8, 20)]),
        (loaded(3, 9), 1, [span(8, 20), span(1, 3)]),
        (loaded(3, 3), 1, [span(3, 20), span(1, 3)]),
        (loaded(None, 9), 3, [span(8, 20)]),
    ],
)
def test_what_is_left_is_the_new_part_and_what_an_earlier_since_adds(
    bookmark: Bookmark, since: float, left: list[Span]
) -> None:
    assert bookmark.begin(day(since), DAY, end=day(20)).left == left


@pytest.mark.parametrize(
    ("bookmark", "left"),
    [
        (Bookmark(), [(BEGINNING, day(20))]),
        (loaded(None, None), [(BEGINNING, day(20))]),
        (loaded(3, 9), [span(8, 20), (BEGINNING, day(3))]),
    ],
)
def test_without_a_since_all_is_left(bookmark: Bookmark, left: list[Span]) -> None:
    assert bookmark.begin(None, DAY, end=day(20)).left == left


@pytest.mark.parametrize(
    ("low", "high", "left"),
    [
        (0, 30, []),
        (1, 20, []),
        (1, 10, [(10, 20)]),
        (5, 10, [(10, 20), (1, 5)]),
        (10, 20, [(1, 5)]),
        (12, 20, [(10, 12), (1, 5)]),
        (10, 12, [(12, 20), (1, 5)]),
        (12, 13, [(10, 12), (13, 20), (1, 5)]),
        (3, 12, [(12, 20), (1, 3)]),
        (2, 3, [(10, 20), (1, 2), (3, 5)]),
        (25, 30, [(10, 20), (1, 5)]),
        (0, 1, [(10, 20), (1, 5)]),
        (12, 12, [(10, 12), (12, 20), (1, 5)]),
    ],
)
def test_what_was_read_is_taken_from_what_is_left(
    low: float, high: float, left: list[tuple[float, float]]
) -> None:
    progress = Progress(None, None, left=[span(10, 20), span(1, 5)])
    progress.cover(day(low), day(high))
    assert progress.left is not None
    assert join(progress.left) == join([span(*each) for each in left])


def join(spans: Sequence[Span]) -> list[Span]:
    """The same spans, in order, those that touch as one."""
    joined: list[Span] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(end, joined[-1][1])
        else:
            joined.append((start, end))
    return joined


minutes = st.integers(0, 40)
spans = st.tuples(minutes, minutes).map(lambda pair: (min(pair), max(pair)))


@SHORT
@given(st.lists(spans, max_size=4), st.lists(spans, max_size=6))
def test_what_is_left_and_what_was_read_make_the_whole(
    begun: list[tuple[int, int]], read: list[tuple[int, int]]
) -> None:
    def points(pairs: Sequence[Span]) -> set[int]:
        return {n for n in range(40) if any(a <= day(n) < b for a, b in pairs)}

    progress = Progress(None, None, left=[span(*each) for each in begun])
    covered = [span(*each) for each in read]
    for each in covered:
        progress.cover(*each)
    assert progress.left is not None
    assert points(progress.left) == points([span(*e) for e in begun]) - points(covered)
    assert all(start < end for start, end in progress.left) or not read


@pytest.mark.parametrize(
    ("bookmark", "since", "end"),
    [(Bookmark(), 30, 20), (loaded(3, 9), 3, 8.5), (loaded(3, 9), 3, 9)],
)
def test_no_span_ends_before_it_begins(
    bookmark: Bookmark, since: float, end: float
) -> None:
    left = bookmark.begin(day(since), NONE, end=day(end)).left
    assert left is not None
    assert all(start < stop for start, stop in left)


def test_an_empty_span_is_done_with_the_first_page() -> None:
    progress = Bookmark().begin(day(30), HOUR, end=day(20))  # a `since` of the future
    progress.cover(day(30), day(20))
    assert progress.left == []


# Rows that were loaded before


@pytest.mark.parametrize(
    ("interval", "time", "held"),
    [
        ((3, 9), 2.9, False),
        ((3, 9), 3, True),
        ((3, 9), 9, True),
        ((3, 9), 9.1, False),
        ((None, 9), -99, True),
        ((None, 9), 9.1, False),
        ((None, None), 5, False),
        ((3, 3), 3, True),
    ],
)
def test_an_interval_holds_rows_from_its_beginning_to_its_end(
    interval: tuple[float | None, float | None], time: float, held: bool
) -> None:
    found = loaded(*interval).interval
    assert found is not None
    assert found.holds(day(time)) is held


def test_of_beginnings_none_is_the_earliest() -> None:
    assert earliest(day(3), day(1), day(2)) == day(1)
    assert earliest(day(3), None) is None
    assert earliest(None) is None


def test_of_times_none_does_not_count() -> None:
    assert latest(day(1), None, day(3), day(2)) == day(3)
    assert latest(None, None) is None
    assert latest() is None


# Sweeps


def swept(at: float | None, **fields: Any) -> Bookmark:
    return Bookmark(
        Interval(day(3), day(9)), swept=None if at is None else day(at), **fields
    )


@pytest.mark.parametrize(
    ("bookmark", "every", "is_due"),
    [
        (swept(9), DAY, False),
        (swept(8.9), DAY, True),
        (swept(8.9), 2 * DAY, False),
        (swept(None), 1000 * DAY, True),  # as bookmarks of earlier versions are
        (swept(9), NONE, True),
        (swept(10.9), DAY, False),
        (swept(11.1), DAY, True),  # the clock was wrong
        (swept(9, sweep=Progress(None, None)), DAY, True),
        (swept(9, progress=Progress(None, None)), DAY, False),
        (Bookmark(), NONE, False),
        (Bookmark(progress=Progress(None, None)), NONE, False),
        (swept(None), None, False),
    ],
)
def test_a_sweep_is_due_when_the_last_one_is_too_old_or_under_way(
    bookmark: Bookmark, every: timedelta | None, is_due: bool
) -> None:
    assert bookmark.is_sweep_due(every, now=day(10)) is is_due


def test_a_sweep_reads_the_whole_interval_and_leaves_it_as_it_is() -> None:
    bookmark = swept(1)
    sweep = bookmark.begin_sweep(anew=False)
    assert sweep == Progress(day(3), day(3))
    sweep.see(days(12, 2), server_time=day(10))
    sweep.see(days(1), server_time=day(11))
    bookmark.complete_sweep()
    assert bookmark == swept(10)


def test_a_sweep_that_is_under_way_goes_on_unless_it_is_begun_anew() -> None:
    bookmark = swept(1)
    sweep = bookmark.begin_sweep(anew=False)
    sweep.page_cursor = "p"
    bookmark = restored(bookmark)
    assert bookmark.begin_sweep(anew=False) == sweep
    assert bookmark.begin_sweep(anew=True) == Progress(day(3), day(3))


def test_completing_without_a_sweep_changes_nothing() -> None:
    bookmark = swept(1)
    bookmark.complete_sweep()
    assert bookmark == swept(1)


def test_what_is_new_and_a_sweep_are_read_side_by_side() -> None:
    bookmark = swept(1)
    sweep = bookmark.begin_sweep(anew=False)
    bookmark.begin(day(3), HOUR).see(days(9.5), server_time=day(10))
    bookmark.complete()
    assert bookmark.sweep is sweep
    assert bookmark.swept == day(1)
    sweep.see([], server_time=day(11))
    progress = bookmark.begin(day(3), HOUR)
    bookmark.complete_sweep()
    assert bookmark.progress is progress
    assert bookmark.interval == Interval(day(3), day(9.5))


def test_only_a_reading_of_all_counts_as_a_sweep() -> None:
    bookmark = Bookmark()
    for since, anew, expected in (
        (day(3), False, 10),
        (day(3), False, 10),
        (day(1), False, 10),  # an earlier `since`
        (day(1), True, 13),
    ):
        progress = bookmark.begin(since, HOUR, anew=anew)
        progress.see([], server_time=day(11 if bookmark.swept else 10))
        if anew:
            progress.began = day(13)
        bookmark.complete()
        assert bookmark.swept == day(expected)


@pytest.mark.parametrize(
    ("pieces", "has_history"),
    [
        ([True], True),
        ([True, True], True),
        ([False], False),
        ([False, True], False),  # it was switched on half way
        ([True, False], False),
        ([True, False, True], False),
    ],
)
@pytest.mark.parametrize("is_sweep", [False, True])
def test_a_list_is_in_the_history_when_all_pieces_of_a_reading_were(
    pieces: list[bool], has_history: bool, is_sweep: bool
) -> None:
    bookmark = swept(1) if is_sweep else Bookmark()
    for piece in pieces:
        bookmark = restored(bookmark)
        if is_sweep:
            progress = bookmark.begin_sweep(anew=False)
        else:
            progress = bookmark.begin(day(3), HOUR)
        bookmark.note_history(progress, has_history=piece)
        progress.see(days(9), server_time=day(10))
    bookmark.complete_sweep() if is_sweep else bookmark.complete()
    assert restored(bookmark) == bookmark
    assert bookmark.has_history is has_history
    # What a later reading brings is missing, if it does not go into the history.
    bookmark.note_history(bookmark.begin_sweep(anew=False), has_history=False)
    bookmark.complete_sweep()
    assert not bookmark.has_history


# State

KEY = "https://errors.example.com:8443/prefix/api/0 some-organization/some-project"


def restored(bookmark: Bookmark) -> Bookmark:
    """The bookmark as another process finds it."""
    return Bookmark.parse(json.loads(json.dumps(bookmark.as_state())))


def test_the_state_of_a_finished_list_is_small() -> None:
    time = datetime(2026, 11, 30, 12, 34, 56, 123456, tzinfo=UTC)
    state = {KEY: Bookmark(Interval(time, time)).as_state()}
    assert state[KEY] == {
        "since": "2026-11-30T12:34:56.123456Z",
        "synced_to": "2026-11-30T12:34:56.123456Z",
    }
    assert len(json.dumps(state)) < 200


def test_a_bookmark_without_anything_is_no_state() -> None:
    assert Bookmark().as_state() == {}
    assert Bookmark.parse({}) == Bookmark()


@pytest.mark.parametrize(
    "bookmark", [loaded(3, 9), loaded(None, 9), loaded(3, 3), loaded(None, None)]
)
def test_an_interval_comes_back_from_state(bookmark: Bookmark) -> None:
    assert restored(bookmark) == bookmark
    assert bookmark.as_state().keys() == {"since", "synced_to"}


def test_state_holds_only_what_a_reading_knows() -> None:
    bookmark = Bookmark()
    bookmark.begin(day(3), HOUR).see(days(9), server_time=day(10))
    assert bookmark.as_state() == {
        "progress": {
            "since": "2026-11-04T00:00:00Z",
            "start": "2026-11-04T00:00:00Z",
            "began": "2026-11-11T00:00:00Z",
            "newest": "2026-11-10T00:00:00Z",
        }
    }
    assert restored(bookmark) == bookmark


def test_state_holds_the_sweep_beside_the_reading() -> None:
    bookmark = swept(1, progress=Progress(None, None))
    bookmark.begin_sweep(anew=False).read_from = day(10)
    state = bookmark.as_state()
    assert state["swept"] == "2026-11-02T00:00:00Z"
    assert state["progress"] == {}
    assert state["sweep"] == {
        "since": "2026-11-04T00:00:00Z",
        "start": "2026-11-04T00:00:00Z",
        "read_from": "2026-11-11T00:00:00Z",
    }
    assert restored(bookmark) == bookmark


def test_state_keeps_that_nothing_is_left_and_that_a_list_is_oldest_first() -> None:
    bookmark = Bookmark(progress=Progress(None, None, newest_first=False, left=[]))
    assert bookmark.as_state() == {"progress": {"newest_first": False, "left": []}}
    assert restored(bookmark) == bookmark


def test_state_is_a_copy() -> None:
    bookmark = Bookmark(progress=Progress(day(1), day(1), left=[span(1, 5)]))
    state = bookmark.as_state()
    before = json.dumps(state)
    assert bookmark.progress is not None
    bookmark.progress.cover(*span(1, 3))
    assert json.dumps(state) == before
    Bookmark.parse(state)
    assert json.dumps(state) == before


times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
some_times = st.none() | times
some_progress = st.none() | st.builds(
    Progress,
    since=some_times,
    start=some_times,
    began=some_times,
    newest=some_times,
    page_cursor=st.none() | st.text(max_size=20),
    newest_first=st.none() | st.booleans(),
    edge=some_times,
    left=st.none() | st.lists(st.tuples(times, times), max_size=3),
    read_from=some_times,
    has_history=st.none() | st.booleans(),
    is_rechecking=st.none() | st.booleans(),
)
bookmarks = st.builds(
    Bookmark,
    st.none() | st.builds(Interval, some_times, some_times),
    some_progress,
    some_times,
    some_progress,
    st.booleans(),
)


@SHORT
@given(bookmarks)
def test_any_bookmark_comes_back_from_state(bookmark: Bookmark) -> None:
    assert restored(bookmark) == bookmark


# Any sequence of readings


@dataclass
class Load:
    """A run of one list, in minutes of a model."""

    passed: int
    """Since the load before."""
    since: int | None
    lookback: int
    latest_start: int | None
    """So many minutes ago."""
    behind: int
    """How far the client's clock is behind the server's."""
    pages: list[tuple[int, int, list[int]]]
    """What is read: from and up to, in parts of what is left; ages of rows."""
    is_finished: bool
    """Reading comes to the end of the list; otherwise it goes on with the next load."""


loads = st.builds(
    Load,
    passed=st.integers(0, 30),
    since=st.sampled_from([None, -20, -10, 0, 5, 10, 20, 40, 150]),
    lookback=st.sampled_from([0, 1, 5, 500]),
    latest_start=st.sampled_from([None, 0, 10, 60]),
    behind=st.sampled_from([0, 0, 0, -7, 7]),
    pages=st.lists(
        st.tuples(
            st.integers(0, 3),
            st.sampled_from([0, 30, 60, 100]),
            st.lists(st.integers(-9, 90), max_size=3),
        ),
        min_size=1,
        max_size=3,
    ),
    is_finished=st.sampled_from([True, True, False]),
)
FIRST = -60
"""No row is older; a list without a start is read from here on."""


def minute(number: int) -> datetime:
    return EPOCH + timedelta(minutes=number)


def number_of(time: datetime) -> int:
    return max(FIRST, (time - EPOCH) // timedelta(minutes=1))


class Model:
    """A list and its bookmark; knows the minutes that were read, and checks promises."""

    def __init__(self, filters_time: bool) -> None:
        self.filters_time = filters_time
        self.now = 0
        self.state: dict[str, Any] = {}
        self.read: set[int] = set()

    def run(self, load: Load) -> None:
        self.now += load.passed
        bookmark = Bookmark.parse(json.loads(json.dumps(self.state)))
        before = bookmark.interval
        local = self.now - load.behind
        progress = bookmark.begin(
            None if load.since is None else minute(load.since),
            timedelta(minutes=load.lookback),
            latest_start=None
            if load.latest_start is None
            else minute(local - load.latest_start),
            end=minute(local) if self.filters_time else None,
        )
        assert bookmark.interval == before
        began = progress.began
        is_done = (self._windows if self.filters_time else self._pages)(load, progress)
        assert progress.began == (began or minute(self.now))
        assert progress.newest is None or progress.newest <= progress.began
        if is_done:
            bookmark.complete()
            assert bookmark.progress is None
        else:
            assert bookmark.interval == before
        self.state = bookmark.as_state()
        self._check(bookmark.interval, before)

    def _pages(self, load: Load, progress: Progress) -> bool:
        """Read the list page by page; rows behind the start come with the last one."""
        for _, _, ages in load.pages:
            times = [minute(self.now - age) for age in ages]
            progress.see(times, minute(self.now))
        if load.is_finished:
            assert progress.began is not None
            start = FIRST if progress.start is None else number_of(progress.start)
            # The list holds what there was when the reading began, at least.
            self.read |= {*range(start, number_of(progress.began) + 1)}
        return load.is_finished

    def _windows(self, load: Load, progress: Progress) -> bool:
        """Read parts of what is left, or all of it."""
        assert progress.left is not None
        parts: list[tuple[Span, list[int]]] = []
        for low, high, ages in load.pages:
            if not progress.left:
                break
            start, end = progress.left[low % len(progress.left)]
            middle = start + (end - start) * (high / 100)
            parts.append(((middle.replace(second=0, microsecond=0), end), ages))
        if load.is_finished:
            parts += [(each, []) for each in progress.left]
        for (start, end), ages in parts or [((minute(self.now),) * 2, [])]:
            rows = [minute(self.now - age) for age in ages]
            progress.see([row for row in rows if start <= row < end], minute(self.now))
            progress.cover(start, end)
            self.read |= {*range(number_of(start), number_of(end))}
        return not progress.left

    def _check(self, interval: Interval | None, before: Interval | None) -> None:
        if interval is None:
            assert before is None
            return
        since, synced_to = interval
        if before is not None:
            assert earliest(since, before.since) == since, "begins later than before"
            assert latest(before.synced_to, synced_to) == synced_to, "ends earlier"
        if synced_to is None:
            assert since is None
            return
        assert synced_to <= minute(self.now), "ends after the server's clock"
        # Its last minute is read again by the next load.
        start = FIRST if since is None else number_of(since)
        promised = {*range(start, number_of(synced_to))}
        assert promised <= self.read, "promises what was not read"


def check_loads(filters_time: bool, given_loads: list[Load]) -> None:
    model = Model(filters_time)
    for load in given_loads:
        model.run(load)


@SHORT
@given(st.booleans(), st.lists(loads, min_size=1, max_size=8))
def test_whatever_is_run_a_bookmark_promises_only_what_was_read(
    filters_time: bool, given_loads: list[Load]
) -> None:
    check_loads(filters_time, given_loads)


@pytest.mark.slow
@LONG
@given(st.booleans(), st.lists(loads, min_size=1, max_size=8))
def test_whatever_is_run_very_often_a_bookmark_promises_only_what_was_read(
    filters_time: bool, given_loads: list[Load]
) -> None:
    check_loads(filters_time, given_loads)
