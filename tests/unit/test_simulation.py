"""A list that changes at random while it is read, hundreds of times.

Rows appear, arrive late, move to the top and disappear, between two runs and between two
requests; loads are cut into pieces, killed, refused; page cursors expire. After each run
every row that the server had, inside of a loaded span, before the reading of that span
began must be in the warehouse.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline.bookmarks import Bookmark, Coverage
from tests.memory import (
    Killed,
    Request,
    Row,
    Session,
    Warehouse,
    ago,
    event,
    issue,
    oldest_first,
    shuffled,
)

KINDS = [
    ("v1", "events", "newest first"),
    ("v1", "events", "oldest first"),
    ("v1", "events", "none"),
    ("v1", "issues", "newest first"),
    ("sentry", "events", "newest first"),
    ("sentry", "events", "ignores time"),
    ("sentry", "issues", "newest first"),
    ("glitchtip", "events", "newest first"),
    ("glitchtip", "issues", "newest first"),
]


class Life:
    """A server with one list, and the runs that load it."""

    def __init__(self, api: str, table: str, order: str, seed: int) -> None:
        self.dice = random.Random(f"{api} {table} {order} {seed}")
        # Small pages of an unordered list may look ordered.
        sizes = [5, 10] if order == "none" else [1, 2, 3, 5, 10]
        if (api, table) == ("sentry", "events"):
            sizes = [10, 20]  # more than there are rows in a second
        self.session = Session(api, page_size=self.dice.choice(sizes))
        self.warehouse = Warehouse(self.session, table)
        self.table = table
        self.rows = self.session.lists[table, "web"]
        self.number = 0
        self.minute = 5000.0
        """Age of the newest row in minutes before `NOW`."""
        self.time_field = "lastSeen" if table == "issues" else "dateCreated"
        self.lookback = timedelta(minutes=self.dice.choice([0, 30, 300]))
        if order == "oldest first":
            self.session.order = oldest_first
        if order == "none":
            self.session.order = shuffled(seed)
        self.session.ignores_time = order == "ignores time"
        # Deletions shift the offsets of pages, so rows may be missed.
        self.has_offsets = api == "v1" or order == "ignores time"
        self.is_paging = False
        self.activity = self.dice.choice([0.0, 0.1, 0.4])
        self.trouble = self.dice.choice([0.0, 0.0, 0.05, 0.3])
        self.expired = 0
        self.changed: dict[str, int] = {}
        """Key → number of requests before it appeared or changed last."""
        counts = [40, 80] if order == "none" else [0, 1, 7, 30, 80]
        for _ in range(self.dice.choice(counts)):
            self.add()
        self.session.before = self.before
        self.session.after = self.after

    # Changes at the server

    def add(self, *, late: float = 0.0) -> None:
        """Add a row, which may arrive some minutes late."""
        make = issue if self.table == "issues" else event
        self.minute -= self.dice.choice([0.0, 0.0, 0.01, 1.0, 20.0])
        row = make(self.number, self.minute + late)
        self.number += 1
        self.rows.append(row)
        self.note(row)

    def note(self, row: Row) -> None:
        self.changed[row["id"]] = len(self.session.requests)

    def move(self) -> None:
        """Let an issue be seen again."""
        row = self.choose()
        if self.table == "issues" and row:
            self.minute -= self.dice.choice([0.01, 1.0])
            row["lastSeen"] = ago(self.minute).isoformat()
            row["count"] = str(self.number)
            self.number += 1
            self.note(row)

    def remove(self) -> None:
        row = self.choose()
        if row and not (self.has_offsets and self.is_paging):
            self.rows.remove(row)

    def purge(self) -> None:
        """Delete the rows of some hours."""
        self.rows.sort(key=lambda row: str(row[self.time_field]))
        count = self.dice.randint(0, len(self.rows) // 2)
        start = self.dice.randint(0, len(self.rows) - count)
        del self.rows[start : start + count]

    def choose(self) -> Row | None:
        """Return a row; while pages are read, none that shares its time with others."""
        if not self.rows:
            return None
        row = self.dice.choice(self.rows)
        times = [each[self.time_field] for each in self.rows]
        is_tied = times.count(row[self.time_field]) > 1
        return None if is_tied and self.is_paging else row

    def happen(self) -> None:
        lives: list[Callable[[], None]] = [self.add, self.add, self.move, self.remove]
        lives.append(lambda: self.add(late=self.dice.uniform(0, 200)))
        self.dice.choice(lives)()

    def before(self, request: Request) -> int | None:
        if request.table != self.table:
            return None
        if self.dice.random() < self.trouble:
            return 503
        cursor = request.params.get("cursor", "")
        if cursor and self.expired and self.dice.random() < 0.5:
            self.expired -= 1
            return 400
        return None

    def after(self, request: Request) -> None:
        self.is_paging = True
        while self.dice.random() < self.activity and self.number < 300:
            self.happen()
        self.is_paging = False

    # Runs

    def run(self) -> None:
        """Load with random settings, while anything may happen."""
        self.expired = self.dice.choice([0, 0, 0, 0, 1])
        for _ in range(self.dice.choice([0, 0, 1, 5, 40])):
            self.happen()
        if self.dice.random() < 0.2:
            self.purge()
        settings: dict[str, Any] = {
            "rows_per_load": self.dice.choice([None, 1, 7, 30]),
            "loads": self.dice.choice([1, 2, 1000]),
        }
        if self.dice.random() < 0.2:
            settings["since"] = ago(self.dice.uniform(0, 6000))
        if self.table == "issues" and self.dice.random() < 0.3:
            settings["sweep"] = timedelta()
        if self.dice.random() < 0.05:
            settings["full_refresh"] = True
        death = self.dice.choice([0, 0, 0, 1, 3, 10])
        settings["kill"] = lambda parts: parts == death
        self.load(is_complete=settings["loads"] == 1000, **settings)

    def calm_run(self) -> None:
        """Load without disturbances, and sweep."""
        self.activity = self.trouble = 0.0
        self.expired = 0
        self.load(is_complete=True, sweep=timedelta())
        assert not self.warehouse.errors
        gaps = self.bookmark().loaded.gaps(self.bookmark().loaded.start)
        assert len(gaps) == 1
        if self.table == "issues":
            self.check_rows(lambda time: covers(self.bookmark().loaded, time))

    def load(self, *, is_complete: bool, **settings: Any) -> None:
        """Load, and check the rows that must be there."""
        before, self.began = self.bookmark().loaded, len(self.session.requests)
        try:
            self.warehouse.run(lookback=self.lookback, **settings)
        except Killed:
            is_complete = False
        after = self.bookmark().loaded
        is_complete &= not self.warehouse.errors
        latest = before.spans[0].end - self.lookback if before.spans else None
        self.check_rows(
            lambda time: (
                covers(after, time)
                and (
                    not covers(before, time)
                    or (is_complete and latest is not None and time >= latest)
                )
            )
        )

    def bookmark(self) -> Bookmark:
        stored = self.warehouse.bookmarks.get("web", {})
        return Bookmark.parse(stored, datetime.now(UTC))

    def check_rows(self, is_due: Callable[[datetime], bool]) -> None:
        """Check that all rows of these times that did not change meanwhile are loaded."""
        for row in self.rows:
            time = datetime.fromisoformat(row[self.time_field])
            if self.changed[row["id"]] > self.began or not is_due(time):
                continue
            assert row["id"] in self.warehouse.ids, row
            if self.table == "issues":
                held = self.warehouse.rows[row["id"]]
                assert (held["last_seen"], held["count"]) == (
                    time,
                    int(row["count"]) if "count" in row else None,
                )


def covers(coverage: Coverage, time: datetime) -> bool:
    """Return whether all rows of a time are loaded, which is not so at a span's start."""
    return any(
        (s.start is None or s.start < time) and time <= s.end for s in coverage.spans
    )


@pytest.mark.parametrize("seeds", [20, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("api", "table", "order"), KINDS)
def test_no_row_of_a_loaded_span_is_missing(
    api: str, table: str, order: str, seeds: int
) -> None:
    for seed in range(seeds):
        life = Life(api, table, order, seed)
        for _ in range(life.dice.randint(1, 6)):
            life.run()
        life.calm_run()
