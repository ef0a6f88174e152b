"""What a resource needs to be read in one of dlt's threads."""

import threading
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.schema import Schema
from dlt.common.schema.utils import has_table_seen_data
from dlt.common.storages.exceptions import CurrentLoadPackageStateNotAvailable
from dlt.extract import DltResource, DltSource
from dlt.extract.state import get_current_pipe


def current_load_id() -> str | None:
    """Return dlt's id of the current load; None if a resource is iterated without one."""
    try:
        return str(dlt.current.load_package_state()["load_id"])
    except CurrentLoadPackageStateNotAvailable:
        return None


@dataclass(frozen=True)
class DltContext:
    """The source that is read, and its state.

    If a source is iterated without a load, `dlt.current` has them only while the caller
    waits for the next item; a thread may begin or end in between.
    """

    source: DltSource
    schema: Schema
    source_state: dict[str, Any]

    @classmethod
    def current(cls) -> "DltContext":
        """Return the context in which dlt calls a resource, before its thread."""
        return cls(
            dlt.current.source(),
            dlt.current.source_schema(),
            dlt.current.source_state(),
        )

    def resource(self) -> DltResource:
        """Return the resource that this thread reads."""
        return self.source.resources.with_pipe(get_current_pipe())

    def resource_state(self) -> dict[str, Any]:
        """Return the state of the resource that this thread reads."""
        return dlt.current.resource_state(self.resource().name, self.source_state)

    def selects(self, resource: str) -> bool:
        """Return whether a resource is selected."""
        return resource in self.source.selected_resources

    def has_rows(self, table: str) -> bool:
        """Return whether dlt's schema has seen rows of a table."""
        tables = self.schema.tables
        return table in tables and has_table_seen_data(tables[table])


class ClosableBatches(Iterator[pa.Table]):
    """Batches of a generator that can be closed while a thread reads it.

    dlt does that for `add_limit`; a generator would raise "generator already executing".
    """

    def __init__(self, batches: Generator[pa.Table, None, None]) -> None:
        self._batches = batches
        self._is_running = threading.Lock()
        self._is_closed = False

    def __next__(self) -> pa.Table:
        with self._is_running:
            batch = next(self._batches)
        if self._is_closed:
            self.close()
        return batch

    def close(self) -> None:
        """Close the generator now, or after the batch that is being read.

        It does not wait, because Python may collect garbage in any thread.
        """
        self._is_closed = True
        if self._is_running.acquire(blocking=False):
            try:
                self._batches.close()
            finally:
                self._is_running.release()
