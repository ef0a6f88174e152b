"""Batches that a thread reads can be closed at any time."""

import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from analytics_pipeline.loading.threads import ClosableBatches


def test_batches_are_closed_when_the_wanted_one_has_arrived() -> None:
    is_reading, may_end = threading.Event(), threading.Event()
    steps: list[str] = []

    def batches() -> Generator[pa.Table, None, None]:
        try:
            is_reading.set()
            assert may_end.wait(30)
            steps.append("read")
            yield pa.table({"id": ["1"]})
        finally:
            steps.append("closed")

    closable = ClosableBatches(batches())
    with ThreadPoolExecutor() as threads:
        batch = threads.submit(next, closable)
        assert is_reading.wait(30)
        closable.close()
        assert steps == []
        may_end.set()
        assert batch.result().num_rows == 1
    assert steps == ["read", "closed"]
    assert [*closable] == []


def test_unread_batches_are_closed_at_once() -> None:
    steps: list[str] = []

    def batches() -> Generator[pa.Table, None, None]:
        try:
            yield pa.table({"id": ["1"]})
            yield pa.table({"id": ["2"]})
        finally:
            steps.append("closed")

    closable = ClosableBatches(batches())
    assert next(closable).num_rows == 1
    closable.close()
    assert steps == ["closed"]
    assert [*closable] == []
