"""A span read in windows holds each row of the list, for about as many requests."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_pipeline.bookmarks import Progress, Span
from analytics_pipeline.client.lists import ListSlice, Position
from analytics_pipeline.client.page import Page, Record
from analytics_pipeline.client.pagination import Slice
from analytics_pipeline.client.time_filter import TimeFilter
from analytics_pipeline.client.time_windows import (
    PAGES,
    SECOND,
    TimeWindow,
    ceil,
    floor,
)
from analytics_pipeline.errors import ApiError, ListChanged, WindowsIgnored
from tests.unit.canned import THINGS, ListClient, Reader
from tests.unit.profiles import SHORT

END = datetime(2026, 11, 1, tzinfo=UTC)
START = END - timedelta(days=9000)
SIZE = 3
"""Rows of a page."""
DENSE = [60 * n for n in range(1, 3001)]


@dataclass
class Reading:
    """A page that was read: of which slice, what it completes, and what is kept of it."""

    part: TimeWindow
    records: list[Record]
    covered: Span
    kept: list[Record]
    """Without the rows that are left for another window."""


def make_filter(is_proven: bool) -> TimeFilter:
    time_filter = TimeFilter()
    time_filter.is_proven = is_proven
    return time_filter


class TimedList:
    """Rows of a server that filters by time, so many seconds before `END`."""

    def __init__(self, ages: Sequence[float]) -> None:
        self.rows: list[Record] = [
            {"id": number, "time": END - timedelta(seconds=age)}
            for number, age in enumerate(sorted(ages))
        ]
        self.asked: list[Span] = []
        """The window of each request."""

    def fetch(self, part: Slice) -> Page:
        assert part.window is not None
        start, end = part.window
        self.asked.append(part.window)
        rows = [row for row in self.rows if start <= row["time"] < end]
        place = int(part.page_cursor or 0)
        cursor = str(place + SIZE) if place + SIZE < len(rows) else None
        rows = rows[place : place + SIZE]
        return Page(rows, [row["time"] for row in rows], cursor, END, END)

    def read(
        self,
        workers: int = 4,
        *,
        spans: list[Span] | None = None,
        pages: int | None = None,
        is_proven: bool = True,
    ) -> list[Reading]:
        """Read spans to their end; after so many pages, leave what is not begun."""
        owner = Reader()
        time_filter = make_filter(is_proven)
        waiting: list[Slice] = [
            TimeWindow(owner, start, end, workers=workers, time_filter=time_filter)
            for start, end in spans or [(START, END)]
        ]
        readings: list[Reading] = []
        while waiting:
            part = waiting.pop(0)
            assert isinstance(part, TimeWindow)
            page = self.fetch(part)
            assert part.taking(page) is part
            owner.is_full = pages is not None and len(readings) + 1 >= pages
            waiting[:0] = part.after(page)
            low = part.covered[0] if part.is_left else part.start
            kept = [record for record in page.records if record["time"] >= low]
            readings.append(Reading(part, page.records, part.covered, kept))
            if owner.is_full:
                break
        return readings


def make_window(
    owner: Reader, workers: int = 4, *, is_proven: bool = False
) -> TimeWindow:
    """A window of the whole span."""
    time_filter = make_filter(is_proven)
    return TimeWindow(owner, START, END, workers=workers, time_filter=time_filter)


def ids(readings: list[Reading]) -> list[int]:
    """Of all rows that are kept, in order."""
    return sorted(record["id"] for reading in readings for record in reading.kept)


def left_of(readings: list[Reading], spans: list[Span]) -> list[Span]:
    """What of the spans no reading covers."""
    progress = Progress(since=None, start=None, left=spans)
    for reading in readings:
        progress.cover(*reading.covered)
    assert progress.left is not None
    return progress.left


ages = st.one_of(
    st.floats(1, 10), st.floats(1, 1e4), st.floats(1, 7e8), st.just(3600.0)
)
lists = st.lists(ages, max_size=400).map(TimedList)


@SHORT
@given(lists, st.integers(1, 9), st.booleans())
def test_each_row_is_kept_once_and_the_whole_span_is_covered(
    rows: TimedList, workers: int, is_proven: bool
) -> None:
    readings = rows.read(workers, is_proven=is_proven)
    assert ids(readings) == [*range(len(rows.rows))]
    assert left_of(readings, [(START, END)]) == []


@SHORT
@given(lists, st.integers(1, 9), st.booleans())
def test_what_a_page_covers_has_been_kept_by_then(
    rows: TimedList, workers: int, is_proven: bool
) -> None:
    kept: set[int] = set()
    for reading in rows.read(workers, is_proven=is_proven):
        kept |= {record["id"] for record in reading.kept}
        low, high = reading.covered
        assert START <= low <= high <= END
        assert {row["id"] for row in rows.rows if low <= row["time"] < high} <= kept


@SHORT
@given(lists, st.integers(1, 9), st.integers(1, 60), st.booleans())
def test_a_reading_that_was_left_goes_on_with_what_is_not_covered(
    rows: TimedList, workers: int, pages: int, is_proven: bool
) -> None:
    first = rows.read(workers, pages=pages, is_proven=is_proven)
    left = left_of(first, [(START, END)])
    second = rows.read(workers, spans=left, is_proven=is_proven) if left else []
    assert {*ids(first + second)} == {*range(len(rows.rows))}
    assert left_of(first + second, [(START, END)]) == []


@SHORT
@given(lists, st.integers(1, 9), st.booleans())
def test_only_rows_of_a_second_at_the_edge_of_a_window_are_read_twice(
    rows: TimedList, workers: int, is_proven: bool
) -> None:
    readings = rows.read(workers, is_proven=is_proven)
    edges = {reading.part.end for reading in readings}
    times = {row["id"]: row["time"] for row in rows.rows}
    counts = Counter(row["id"] for reading in readings for row in reading.records)
    twice = {times[id] for id, count in counts.items() if count > 1}
    assert {floor(time) + SECOND for time in twice} <= edges


def test_a_window_that_is_not_begun_waits_for_another_load_when_one_is_full() -> None:
    owner = Reader()
    window = make_window(owner, workers=1)
    assert window.is_due()
    owner.is_full = True
    assert not window.is_due()
    owner.is_full = False
    window.after(Page([{"id": 1}], [END - SECOND], "next", END, END))
    owner.is_full = True
    assert window.is_due()


def test_a_client_asks_for_no_window_that_is_not_due() -> None:
    rows = TimedList([60.0])
    windows = [make_window(Reader(is_full=True), workers=2) for _ in range(3)]
    assert list(ListClient(rows.fetch, workers=2).pages(windows)) == []
    assert rows.asked == []


@pytest.mark.parametrize(
    ("name", "ages", "most"),
    [
        ("empty", [], 1),
        ("one page", [1, 2, 3], 1),
        ("two pages", [1, 2, 3, 4], 3),
        ("even", [60 * n for n in range(1, 3000)], 1120),
        ("a burst long ago", [1e8 + n / 100 for n in range(3000)], 1150),
        ("a burst just now", [n / 100 + 1 for n in range(3000)] + [1e8] * 3, 1150),
        ("one second", [5] * 3000, 1003),
        ("sparse", [86_400 * n for n in range(1, 300)], 130),
    ],
)
def test_windows_cost_few_requests_more_than_one_list(
    name: str, ages: list[float], most: int
) -> None:
    assert len(TimedList(ages).read()) <= most


def test_one_worker_reads_one_list() -> None:
    rows = TimedList([60 * n for n in range(1, 3000)])
    rows.read(workers=1)
    assert set(rows.asked) == {(START, END)}
    assert len(rows.asked) == 1000


def test_where_a_server_takes_one_request_at_a_time_one_list_is_read() -> None:
    rows = TimedList(DENSE)
    time_filter = make_filter(is_proven=True)
    time_filter.at_a_time = 1
    window = TimeWindow(Reader(), START, END, workers=4, time_filter=time_filter)
    assert len(list(ListClient(rows.fetch, workers=4).pages([window]))) == 1000
    assert {*rows.asked} == {(START, END)}


def test_no_window_is_paged_deeply() -> None:
    readings = TimedList([30 * n for n in range(1, 3000)]).read()
    depths = Counter(id(reading.part) for reading in readings)
    assert max(depths.values()) <= 2 * PAGES
    assert len(depths) > 3000 / SIZE / (2 * PAGES)


def test_windows_begin_and_end_on_whole_seconds() -> None:
    rows = TimedList([n / 7 for n in range(1, 900)])
    half = timedelta(seconds=0.5)
    rows.read(spans=[(START + half, END - half)])
    edges = {edge for window in rows.asked for edge in window}
    assert len(edges) > 2
    assert not any(edge.microsecond for edge in edges)
    assert (min(edges), max(edges)) == (START, END)


def test_a_span_is_widened_to_whole_seconds() -> None:
    tick = timedelta(microseconds=1)
    assert (floor(END), ceil(END)) == (END, END)
    assert (floor(END + tick), ceil(END + tick)) == (END, END + SECOND)
    assert (floor(END - tick), ceil(END - tick)) == (END - SECOND, END)


def test_rows_without_a_time_do_not_end_a_window() -> None:
    window = make_window(Reader())
    page = Page([{"id": 1}], [None], "next", END, END)
    assert window.after(page) == (window,)
    assert window.covered == (END, END)


def test_windows_read_side_by_side_bring_the_same_rows() -> None:
    rows = TimedList([30 * n for n in range(1, 1000)])
    window = make_window(Reader(), is_proven=True)
    client = ListClient(rows.fetch, workers=4)
    read = [
        record["id"] for _, page in client.pages([window]) for record in page.records
    ]
    alone = [row["id"] for reading in rows.read() for row in reading.records]
    assert Counter(read) == Counter(alone)


# Servers of which it is not known whether they filter


def test_nothing_but_one_older_window_is_cut_off_before_the_filter_is_proven() -> None:
    rows = TimedList(DENSE)
    window = make_window(Reader())
    page = rows.fetch(window)
    assert window.taking(page) is window
    (older,) = window.after(page)
    assert isinstance(older, TimeWindow)
    assert (older.start, older.end) == (START, window.covered[0])
    page = rows.fetch(older)
    assert older.taking(page) is older
    assert len(older.after(page)) > 1


def test_a_first_window_proves_nothing() -> None:
    time_filter = TimeFilter()
    window = TimeWindow(Reader(), START, END, workers=4, time_filter=time_filter)
    assert window.taking(TimedList(DENSE).fetch(window)) is window
    assert (time_filter.is_proven, time_filter.is_ignored) == (False, False)


@pytest.mark.parametrize("ages", [[], [1, 2, 3], DENSE, [5] * 300])
def test_to_prove_a_filter_costs_two_requests_at_most(ages: list[float]) -> None:
    proven, unproven = TimedList(ages), TimedList(ages)
    proven.read(is_proven=True)
    unproven.read(is_proven=False)
    assert len(unproven.asked) <= len(proven.asked) + 2


# Servers that ignore windows


class Unfiltered(TimedList):
    """Rows of a server that ignores windows."""

    def fetch(self, part: Slice) -> Page:
        place = int(part.page_cursor or 0)
        self.asked.append(part.window or (START, END))
        cursor = str(place + SIZE) if place + SIZE < len(self.rows) else None
        rows = self.rows[place : place + SIZE]
        return Page(rows, [row["time"] for row in rows], cursor, END, END)

    def read_by_client(self, workers: int, spans: list[Span]) -> tuple[list[int], bool]:
        """The ids in the order that they come, and whether the filter is ignored."""
        owner = Owner(replace(THINGS, newest_first=True))
        time_filter = TimeFilter()
        windows = [
            TimeWindow(owner, a, b, workers=workers, time_filter=time_filter)
            for a, b in spans
        ]
        pages = ListClient(self.fetch, workers).pages(windows)
        ids = [record["id"] for _, page in pages for record in page.records]
        return ids, time_filter.is_ignored


@dataclass
class Owner(Reader):
    """Goes on with the whole list where windows are ignored."""

    whole: ListSlice | None = None

    def without_windows(self, edge: datetime | None) -> Slice | None:
        if self.whole is not None:
            return None
        self.whole = ListSlice(self, None)
        if edge is not None:
            self.whole.resume(Position(None, newest_first=True, edge=edge))
        return self.whole

    def on_error(self, part: Slice, error: ApiError) -> Sequence[Slice]:
        if isinstance(error, WindowsIgnored):
            whole = self.without_windows(None)
            return [whole] if whole else []
        assert isinstance(error, ListChanged)
        assert isinstance(part, ListSlice)
        return [part.restart()]


def older_row() -> Page:
    time = START - timedelta(days=1)
    return Page([{"id": 2}], [time], "d", END, END)


def test_the_whole_list_goes_on_at_the_page_of_its_window() -> None:
    owner = Owner(THINGS)
    window = make_window(owner, workers=1)
    page = Page([{"id": 1}], [END - SECOND], "c", END, END)
    assert window.taking(page) is window
    assert window.after(page) == (window,)
    whole = window.taking(older_row())
    assert whole is owner.whole
    assert isinstance(whole, ListSlice)
    assert (whole.page_cursor, whole.pages, whole.resumed_at) == ("c", 1, None)
    assert window.taking(older_row()) is None


def test_the_whole_list_overlaps_what_was_read_before_a_window_was_cut_off() -> None:
    owner = Owner(THINGS)
    window = make_window(owner)
    page = TimedList(DENSE).fetch(window)
    (older,) = window.after(page)
    assert isinstance(older, TimeWindow)
    whole = older.taking(page)  # the first page again
    assert isinstance(whole, ListSlice)
    assert (whole.page_cursor, whole.resumed_at) == (None, older.end)
    # Rows of the last second may go on behind the page.
    overlaps = [whole.is_overlap(time) for time in page.times if time]
    assert overlaps == [True, True, False]


@pytest.mark.parametrize("workers", [2, 4, 9])
def test_a_server_that_ignores_windows_is_read_as_one_list(workers: int) -> None:
    rows = Unfiltered(DENSE)
    ids, is_ignored = rows.read_by_client(workers, [(START, END)])
    assert is_ignored
    # The first page comes again: as the one of the second window.
    assert ids == [0, 1, 2, *range(len(DENSE))]
    assert len(rows.asked) == 1 + len(DENSE) / SIZE


def test_rows_before_a_window_show_that_windows_are_ignored_and_the_list_goes_on() -> (
    None
):
    rows = Unfiltered(DENSE)
    ids, is_ignored = rows.read_by_client(1, [(END - timedelta(hours=1), END)])
    assert is_ignored
    assert ids == [*range(len(DENSE))]


@SHORT
@given(
    st.lists(ages, max_size=200).map(Unfiltered),
    st.integers(1, 9),
    st.lists(st.floats(0, 9000), max_size=3),
)
def test_no_row_is_lost_where_a_server_ignores_windows(
    rows: Unfiltered, workers: int, cuts: list[float]
) -> None:
    edges = sorted({START, END, *(floor(END - timedelta(days=cut)) for cut in cuts)})
    spans = [*pairwise(edges)][::-1]
    ids, _ = rows.read_by_client(workers, spans)
    assert {*ids} == {*range(len(rows.rows))}


def test_a_server_that_ignores_windows_only_at_times_lets_the_list_begin_anew() -> None:
    owner = Owner(THINGS)
    window = make_window(owner)
    (older,) = window.after(TimedList(DENSE).fetch(window))
    assert isinstance(older, TimeWindow)
    assert older.taking(Page([], [], None, END, END)) is older  # it honours windows
    with pytest.raises(WindowsIgnored):
        older.taking(TimedList(DENSE).fetch(window))


def test_a_page_of_rows_that_came_before_lets_the_list_begin_anew() -> None:
    owner = Owner(THINGS)
    window = make_window(owner, workers=1)
    first = TimedList(DENSE).fetch(window)
    window.after(first)
    with pytest.raises(WindowsIgnored):
        window.taking(first)
