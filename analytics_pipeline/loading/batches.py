"""Pages collected to batches, and confirmed when these have been handed over."""

from collections.abc import Callable, Sequence

import pyarrow as pa

from analytics_pipeline.tables.arrow import newest_copies

BYTES_PER_BATCH = 50_000_000
"""After so many a batch is handed over, however few rows it has."""


class Batches:
    """Collects pages to batches, and confirms them when they have been handed over.

    With `unique`, the columns of a key, all becomes one batch, of which each key has
    only its newest row: for destinations that cannot merge copies.
    """

    def __init__(self, size: int, unique: Sequence[str] = ()) -> None:
        self._limit = size
        self._rows = self._bytes = 0
        """Of what is in `_tables`."""
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
        self._rows += table.num_rows
        self._bytes += table.nbytes
        is_full = self._rows >= self._limit or self._bytes >= BYTES_PER_BATCH
        # The first page goes at once, for `add_limit(1)`.
        if self._unique or not (is_full or self._is_first):
            return None
        return self.take()

    def take(self) -> pa.Table | None:
        """Return the batch."""
        self._confirm_batch()
        self._handed_over, self._confirm = self._confirm, []
        tables, self._tables = self._tables, []
        self._rows = self._bytes = 0
        if not any(table.num_rows for table in tables):
            return None
        self._is_first = False
        batch = pa.concat_tables(tables)
        return newest_copies(batch, self._unique) if self._unique else batch

    def confirm_all(self) -> None:
        """Confirm what was handed over, and what had no rows."""
        self.take()
        self._confirm_batch()

    def _confirm_batch(self) -> None:
        confirm, self._handed_over = self._handed_over, []
        for each in confirm:
            each()
