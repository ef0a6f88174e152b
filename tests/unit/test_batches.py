"""When a batch is full."""

from functools import partial

import pyarrow as pa
import pytest

from analytics_pipeline.loading import batches
from analytics_pipeline.loading.batches import Batches


def table(rows: int, length: int = 1) -> pa.Table:
    return pa.table({"message": ["x" * length] * rows})


def sizes(collected: Batches, pages: list[pa.Table]) -> list[int]:
    given = [collected.add(page, lambda: None) for page in pages]
    return [batch.num_rows if batch is not None else 0 for batch in given]


def test_the_first_page_goes_at_once_and_others_when_they_are_enough() -> None:
    assert sizes(Batches(20), [table(10)] * 6) == [10, 0, 20, 0, 20, 0]


def test_few_rows_are_a_batch_when_they_are_large(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(batches, "BYTES_PER_BATCH", 50_000)
    pages = [table(10), table(10), *[table(10, length=3_000)] * 4, table(10)]
    assert sizes(Batches(1_000), pages) == [10, 0, 0, 30, 0, 20, 0]


def test_what_is_confirmed_was_handed_over() -> None:
    confirmed: list[int] = []
    collected = Batches(20)
    for number in range(4):
        collected.add(table(10), partial(confirmed.append, number))
    assert confirmed == [0, 1, 2]  # the last page waits for another
    collected.confirm_all()
    assert confirmed == [0, 1, 2, 3]
