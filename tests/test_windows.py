"""A span read in windows holds each row of the list once, for about as many requests."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_pipeline.pages import Page
from analytics_pipeline.windows import PAGES, Windows
from tests.test_properties import SHORT

END = datetime(2026, 11, 1, tzinfo=UTC)
SIZE = 3
"""Rows of a page."""


class List:
    """Rows of a server that filters by time, so many seconds before `END`."""

    def __init__(self, ages: list[float]) -> None:
        self.rows: list[dict[str, Any]] = [
            {"id": str(number), "time": END - timedelta(seconds=age)}
            for number, age in enumerate(sorted(ages))
        ]
        self.requests = 0

    def fetch(self, start: datetime, end: datetime) -> Iterator[Page]:
        rows = [row for row in self.rows if start <= row["time"] < end]
        for place in range(0, max(len(rows), 1), SIZE):
            self.requests += 1
            more = "next" if place + SIZE < len(rows) else None
            yield Page(rows[place : place + SIZE], more)

    def read(self, workers: int = 4) -> list[dict[str, Any]]:
        windows = Windows(
            self.fetch, lambda row: row["time"], lambda row: row["id"], workers
        )
        pages = windows.pages(END - timedelta(days=9000), END)
        return [row for page in pages for row in page.rows]


ages = st.one_of(
    st.floats(1, 10), st.floats(1, 1e4), st.floats(1, 7e8), st.just(3600.0)
)


@SHORT
@given(st.lists(ages, max_size=400), st.integers(1, 9))
def test_each_row_is_read_once(ages: list[float], workers: int) -> None:
    rows = List(ages)
    assert sorted(int(row["id"]) for row in rows.read(workers)) == [*range(len(ages))]


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
    rows = List(ages)
    rows.read()
    assert rows.requests <= most


def test_no_window_is_paged_deeply() -> None:
    rows = List([30 * n for n in range(1, 3000)])
    depths: list[int] = []
    fetch = rows.fetch

    def watched(start: datetime, end: datetime) -> Iterator[Page]:
        depths.append(0)
        place = len(depths) - 1
        for page in fetch(start, end):
            depths[place] += 1
            yield page

    rows.fetch = watched  # type: ignore[method-assign]
    rows.read()
    assert max(depths) <= 2 * PAGES
    assert len(depths) > 3000 / SIZE / (2 * PAGES)


def test_windows_begin_and_end_on_whole_seconds() -> None:
    rows = List([n / 7 for n in range(1, 900)])
    edges: set[datetime] = set()
    fetch = rows.fetch

    def watched(start: datetime, end: datetime) -> Iterator[Page]:
        edges.update((start, end))
        yield from fetch(start, end)

    rows.fetch = watched  # type: ignore[method-assign]
    rows.read()
    assert len(edges) > 2
    assert not any(edge.microsecond for edge in edges)
