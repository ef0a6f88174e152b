"""Pages collected to batches, and confirmed when these have been handed over."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from analytics_pipeline.tables.arrow import newest_copies


class Batches:
    """Collects pages to batches, and confirms them when they have been handed over.

    With `unique`, the columns of a key, all becomes one batch, of which each key has
    only its newest row: for destinations that cannot merge copies.
    """

    def __init__(self, size: int, unique: Sequence[str] = ()) -> None:
        self._limit = size
        self._unique = unique
        self._is_first = True
        self._tables: list[pa.Table] = []
        self._confirm: list[Callable[[], None]] = []
        """For what is in `_tables`."""
        self._handed_over: list[Callable[[], None]] = []

    def add(self, table: pa.Table, confirm: Callable[[], None]) -> pa.Table | None:
        """Take a page; that this is called says that the batch before was handed over."""
        self._confirm_batch()
        self._tables.append(table)
        self._confirm.append(confirm)
        # The first page goes at once, for `add_limit(1)`.
        if self._unique or (not self._is_first and self._size() < self._limit):
            return None
        return self.take()

    def take(self) -> pa.Table | None:
        """Return the batch."""
        self._confirm_batch()
        self._handed_over, self._confirm = self._confirm, []
        tables, self._tables = self._tables, []
        if not any(table.num_rows for table in tables):
            return None
        self._is_first = False
        batch = pa.concat_tables(tables)
        return newest_copies(batch, self._unique) if self._unique else batch

    def confirm_all(self) -> None:
        """Confirm what was handed over, and what had no rows."""
        self.take()
        self._confirm_batch()

    def _size(self) -> int:
        return sum(table.num_rows for table in self._tables)

    def _confirm_batch(self) -> None:
        confirm, self._handed_over = self._handed_over, []
        for each in confirm:
            each()
