"""Bookmarks: the loaded spans of a list, and the gaps between them."""

import json
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from analytics_pipeline.bookmarks import (
    CLOCK_TOLERANCE,
    EARLIEST,
    Bookmark,
    Coverage,
    Gap,
    Span,
    earlier,
)
from tests.unit.profiles import EXAMPLES, SHORT

DAY = timedelta(days=1)
EPOCH = datetime(2026, 11, 1, tzinfo=UTC)
NOW = EPOCH + 20 * DAY


def day(number: float | None) -> datetime | None:
    return None if number is None else at(number)


def at(number: float) -> datetime:
    return EPOCH + number * DAY


def span(start: float | None, end: float, cursor: str | None = None) -> Span:
    return Span(day(start), at(end), cursor)


def gap(
    start: float | None,
    end: float | None = None,
    cursor: str | None = None,
    loaded: float | None = None,
) -> Gap:
    return Gap(day(start), day(end), cursor, day(loaded))


def top(start: float | None, loaded: float) -> Gap:
    """Return the gap of new rows above the loaded ones."""
    return gap(start, None, None, loaded)


def covered(*spans: Span) -> Coverage:
    coverage = Coverage()
    for each in spans:
        coverage.add(each)
    return coverage


# Gaps


@pytest.mark.parametrize(
    ("spans", "since", "lookback", "gaps"),
    [
        # The first load, and those after it.
        ([], None, 0, [gap(None)]),
        ([], 3, 1, [gap(3)]),
        ([span(None, 9)], None, 0, [top(9, 9)]),
        ([span(None, 9)], None, 1, [top(8, 9)]),
        # Moving `since` back adds a gap at the bottom; moving it forward has no effect.
        ([span(3, 9)], 3, 1, [top(8, 9)]),
        ([span(3, 9)], 5, 1, [top(8, 9)]),
        ([span(3, 9)], 99, 1, [top(8, 9)]),
        ([span(3, 9)], 1, 1, [top(8, 9), gap(1, 3)]),
        ([span(3, 9)], None, 1, [top(8, 9), gap(None, 3)]),
        ([span(None, 9)], 3, 1, [top(8, 9)]),
        # An interrupted load is resumed at its page cursor.
        ([span(5, 9, "c")], None, 1, [top(8, 9), gap(None, 5, "c")]),
        ([span(5, 9, "c")], 3, 0, [top(9, 9), gap(3, 5, "c")]),
        (
            [span(7, 9, "c"), span(2, 4, "d")],
            1,
            1,
            [top(8, 9), gap(3, 7, "c", 4), gap(1, 2, "d")],
        ),
        # A lookback ends with its span.
        ([span(7, 9), span(2, 4)], 2, 50, [top(7, 9), gap(2, 7, None, 4)]),
        ([span(None, 9)], None, 10**6, [Gap(EARLIEST, loaded_to=day(9))]),
    ],
)
def test_gaps_are_read_newest_first(
    spans: list[Span], since: float | None, lookback: float, gaps: list[Gap]
) -> None:
    found = covered(*spans).gaps(day(since), lookback=lookback * DAY)
    assert found == gaps


def test_a_bounded_run_reads_only_its_span() -> None:
    assert Coverage().gaps(at(3), at(9)) == [gap(3, 9)]
    resumed = covered(span(5, 9, "c")).gaps(at(3), at(9))
    assert resumed == [gap(3, 5, "c")]


# Spans


@pytest.mark.parametrize(
    ("spans", "merged"),
    [
        ([span(1, 3), span(5, 9)], [span(5, 9), span(1, 3)]),
        ([span(1, 3), span(3, 9)], [span(1, 9)]),
        ([span(1, 3), span(5, 9), span(2, 6)], [span(1, 9)]),
        ([span(1, 9), span(2, 3)], [span(1, 9)]),
        ([span(2, 3), span(1, 9)], [span(1, 9)]),
        ([span(3, 9), span(None, 4)], [span(None, 9)]),
        ([span(None, 4), span(None, 9)], [span(None, 9)]),
        ([span(None, 4), span(5, 9)], [span(5, 9), span(None, 4)]),
        ([span(4, 4)], [span(4, 4)]),
        ([span(5, 4)], []),  # `since` is in the future
        # The page cursor is that of the earlier start.
        ([span(5, 9, "a"), span(3, 9, "b")], [span(3, 9, "b")]),
        ([span(5, 9, "a"), span(7, 12, "b")], [span(5, 12, "a")]),
        ([span(5, 9, "a"), span(5, 9, "b")], [span(5, 9, "b")]),
        ([span(5, 9, "a"), span(3, 9)], [span(3, 9)]),
    ],
)
def test_touching_spans_are_merged(spans: list[Span], merged: list[Span]) -> None:
    assert covered(*spans).spans == merged


@pytest.mark.parametrize(
    ("time", "is_loaded"),
    [(0.9, False), (1, True), (3, True), (3.1, False), (5, True), (9.1, False)],
)
def test_a_span_includes_its_start_and_end(time: float, is_loaded: bool) -> None:
    assert covered(span(1, 3), span(5, 9)).contains(at(time)) is is_loaded


def test_the_loaded_range_starts_with_the_oldest_span() -> None:
    assert Coverage().start is None
    assert covered(span(1, 3), span(5, 9)).start == at(1)
    assert covered(span(None, 3), span(5, 9)).start is None
    assert covered(span(None, 3)).contains(EARLIEST)


def test_no_time_is_before_year_1() -> None:
    assert earlier(at(3), DAY) == at(2)
    assert earlier(EARLIEST + DAY, 2 * DAY) == EARLIEST


FIRST, LAST = -1, 31
"""Bounds of the model; a span without a start begins with the first."""
numbers = st.integers(0, 30)
starts = st.none() | numbers
given_spans = st.lists(st.tuples(starts, numbers), max_size=8)
lookbacks = st.sampled_from([0, 0, 1, 3, 100])


def days_of(start: datetime | None, end: datetime | None) -> set[int]:
    """Return the days in a span or gap."""
    return {
        number
        for number in range(FIRST, LAST + 1)
        if (start or EARLIEST) <= at(number) <= (end or at(LAST))
    }


def check_coverage(
    spans_given: list[tuple[int | None, int]], since: int | None, lookback: int
) -> None:
    coverage, loaded = Coverage(), set[int]()
    for start, end in spans_given:
        coverage.add(span(start, end, str(start)))
        loaded |= days_of(day(start), at(end))
        spans = coverage.spans
        assert {d for s in spans for d in days_of(s.start, s.end)} == loaded
        assert all(
            above.start and above.start > below.end for above, below in pairwise(spans)
        )
        assert all(s.page_cursor == _cursor(s.start) for s in spans)
        assert {n for n in range(FIRST, LAST + 1) if coverage.contains(at(n))} == loaded
    gaps = coverage.gaps(day(since), lookback=lookback * DAY)
    wanted = days_of(day(since), None)
    left = {d for g in gaps for d in days_of(g.start, g.end)}
    assert left | loaded >= wanted, "a day is never read"
    assert gaps[0].end is None, "new rows come first"
    for above, below in pairwise(gaps):
        assert above.start is not None
        assert below.end is not None
        assert above.start >= below.end, "newest first"
    for each in gaps[1:]:
        assert each.page_cursor == _cursor(each.end)
        again = days_of(each.start, each.end) & loaded
        assert len(again) <= lookback + 2
    for each in gaps:
        coverage.add(Span(each.start, each.end or at(LAST)))
    (whole,) = coverage.spans
    assert days_of(*whole[:2]) == loaded | left
    assert coverage.gaps(day(since)) == [top(LAST, LAST)]


def _cursor(start: datetime | None) -> str:
    return str(None if start is None else (start - EPOCH) // DAY)


@EXAMPLES
def test_spans_and_gaps_cover_everything(examples: settings) -> None:
    examples(given(given_spans, starts, lookbacks)(check_coverage))()


# Sweeps


def swept(at_day: float | None, **fields: Any) -> Bookmark:
    return Bookmark(covered(span(3, 9)), swept_at=day(at_day), **fields)


@pytest.mark.parametrize(
    ("bookmark", "every", "is_due"),
    [
        (swept(9), DAY, False),
        (swept(8.9), DAY, True),
        (swept(8.9), 2 * DAY, False),
        (swept(None), 1000 * DAY, True),  # as in bookmarks of earlier versions
        (swept(8, sweep_began_at=at(9)), DAY, False),  # it is resumed
        (swept(None, began_at=at(1)), DAY, False),  # the first load counts as one
        (Bookmark(), timedelta(), False),
        (swept(None), None, False),
    ],
)
def test_a_sweep_is_due_when_the_last_one_is_too_old(
    bookmark: Bookmark, every: timedelta | None, is_due: bool
) -> None:
    assert bookmark.is_sweep_due(every, now=at(10)) is is_due


def test_a_sweep_is_dated_by_its_start_and_keeps_the_loaded_spans() -> None:
    bookmark = swept(1)
    bookmark.begin_sweep(at(10))
    bookmark.sweep.add(span(5, 9, "c"))
    assert bookmark.loaded == covered(span(3, 9))
    assert bookmark.swept_at == at(1)
    bookmark = restored(bookmark)
    assert bookmark.sweep.gaps(at(3))[1:] == [gap(3, 5, "c")]
    bookmark.end_sweep()
    assert bookmark == swept(10)


@pytest.mark.parametrize(
    ("bookmark", "has_gaps"),
    [
        (Bookmark(), False),
        (swept(None), True),  # never read to its end
        (swept(None, completed_at=at(9)), False),
        (Bookmark(covered(span(3, 9), span(11, 12)), completed_at=at(9)), True),
        (Bookmark(covered(span(3, 9, "c")), completed_at=at(9)), True),
    ],
)
def test_a_bookmark_shows_whether_its_list_was_left_unfinished(
    bookmark: Bookmark, has_gaps: bool
) -> None:
    assert bookmark.has_gaps is has_gaps


# State


def restored(bookmark: Bookmark, now: datetime = NOW) -> Bookmark:
    """Return the bookmark as another process restores it."""
    return Bookmark.parse(json.loads(json.dumps(bookmark.as_state())), now)


def test_the_state_contains_only_known_values() -> None:
    assert Bookmark().as_state() == {}
    assert Bookmark.parse({}, NOW) == Bookmark()
    time = datetime(2026, 11, 3, 12, 34, 56, 123456, tzinfo=UTC)
    coverage = covered(Span(None, time), Span(at(9), at(12), "0:100:0"))
    assert Bookmark(coverage, completed_at=at(12), project_id="7").as_state() == {
        "loaded": [
            ["2026-11-10T00:00:00Z", "2026-11-13T00:00:00Z", "0:100:0"],
            [None, "2026-11-03T12:34:56.123456Z", None],
        ],
        "completed_at": "2026-11-13T00:00:00Z",
        "project_id": "7",
    }


def test_the_state_is_a_copy() -> None:
    bookmark = swept(1)
    state = bookmark.as_state()
    before = json.dumps(state)
    bookmark.loaded.add(span(11, 12))
    Bookmark.parse(state, NOW).loaded.add(span(15, 16))
    assert json.dumps(state) == before


times = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31), timezones=st.just(UTC))
some_times = st.none() | times
coverages = st.lists(
    st.builds(Span, some_times, times, st.none() | st.text(max_size=9)), max_size=4
).map(lambda spans: covered(*spans))


@SHORT
@given(
    st.builds(
        Bookmark,
        loaded=coverages,
        sweep=coverages,
        project_id=st.none() | st.text(min_size=1, max_size=9),
        began_at=some_times,
        sweep_began_at=some_times,
        swept_at=some_times,
        completed_at=some_times,
        problem=st.text(max_size=9),
        failed_at=some_times,
    )
)
def test_any_bookmark_survives_the_state(bookmark: Bookmark) -> None:
    end_of_time = datetime.max.replace(tzinfo=UTC) - DAY
    assert restored(bookmark, end_of_time) == bookmark


def test_a_span_that_ends_in_the_future_does_not_count() -> None:
    """A clock was wrong when the span was stored."""
    bookmark = Bookmark(covered(span(3, 9), span(25, 30)), covered(span(26, 27)))
    assert restored(bookmark) == Bookmark(covered(span(3, 9)))
    nearly = Bookmark(covered(Span(None, NOW + CLOCK_TOLERANCE)))
    assert restored(nearly) == nearly


# The previous format

START, END, READ = (
    "2026-11-04T00:00:00Z",
    "2026-11-10T00:00:00Z",
    "2026-11-11T00:00:00Z",
)


@pytest.mark.parametrize(
    ("stored", "bookmark"),
    [
        ({"since": START, "synced_to": END}, Bookmark(covered(span(3, 9)))),
        ({"since": None, "synced_to": END}, Bookmark(covered(span(None, 9)))),
        (
            {"since": START, "synced_to": END, "swept": START, "read": READ},
            Bookmark(covered(span(3, 9)), swept_at=at(3), completed_at=at(10)),
        ),
        (
            {"since": None, "synced_to": END, "problem": "500", "failed": READ},
            Bookmark(covered(span(None, 9)), problem="500", failed_at=at(10)),
        ),
        # Empty lists are read from their beginning.
        ({"since": None, "synced_to": None}, Bookmark()),
        ({"read": READ}, Bookmark(completed_at=at(10))),
        # An unfinished sweep is started again.
        (
            {
                "since": START,
                "synced_to": END,
                "swept": START,
                "sweep": {"since": START, "edge": READ, "newest_first": True},
            },
            Bookmark(covered(span(3, 9)), swept_at=at(3)),
        ),
        # An unfinished load beside an interval is started again.
        (
            {
                "since": START,
                "synced_to": END,
                "progress": {"start": END, "edge": READ, "newest_first": True},
            },
            Bookmark(covered(span(3, 9))),
        ),
        # An unfinished first load, newest first, is resumed.
        (
            {
                "progress": {
                    "began": READ,
                    "newest": END,
                    "edge": START,
                    "page_cursor": "c",
                    "newest_first": True,
                }
            },
            Bookmark(covered(span(3, 9, "c")), began_at=at(10)),
        ),
        # Others are started again.
        ({"progress": {"edge": END, "newest_first": False}}, Bookmark()),
        ({"progress": {"newest_first": True}}, Bookmark()),
        ({"progress": {"left": [[START, END]]}}, Bookmark()),
        ({"progress": {}}, Bookmark()),
    ],
)
def test_the_previous_form_is_converted(
    stored: dict[str, Any], bookmark: Bookmark
) -> None:
    before = json.dumps(stored)
    converted = Bookmark.parse(stored, NOW)
    assert converted == bookmark
    assert json.dumps(stored) == before
    assert restored(converted) == bookmark
    assert not converted.as_state().keys() & {"since", "synced_to", "progress", "read"}
