"""Rows that the last run loaded are known again; nothing else is."""

from datetime import UTC, datetime, timedelta

import pytest

from analytics_pipeline import memory
from analytics_pipeline.memory import SIZE, Memory

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
LONG_AGO = datetime.min.replace(tzinfo=UTC)


def rows(count: int) -> list[tuple[dict[str, int], datetime]]:
    """So many rows, each a second newer than the one before."""
    return [({"id": n}, NOW + timedelta(seconds=n)) for n in range(count)]


def after_a_run(seen: list[tuple[dict[str, int], datetime]], since: datetime) -> Memory:
    first = Memory("")
    for row, time in seen:
        first.is_new(row, time, LONG_AGO)
    return Memory(first.text(since))


def test_an_empty_memory_knows_nothing() -> None:
    assert Memory("").is_new({"id": 1}, NOW, LONG_AGO)
    assert Memory("").text(LONG_AGO) == ""


def test_a_row_of_the_last_run_is_known_and_a_changed_one_is_not() -> None:
    second = after_a_run([({"id": 1, "count": 2}, NOW)], LONG_AGO)
    assert not second.is_new({"id": 1, "count": 2}, NOW, LONG_AGO)
    assert second.is_new({"id": 1, "count": 3}, NOW, LONG_AGO)
    assert second.is_new({"id": 2, "count": 2}, NOW, LONG_AGO)


def test_older_rows_than_the_next_run_will_see_are_compared_but_not_remembered() -> (
    None
):
    second = after_a_run([({"id": 1}, NOW)], LONG_AGO)
    later = NOW + timedelta(seconds=1)
    assert not second.is_new({"id": 1}, NOW, later)
    assert second.is_new({"id": 2}, NOW, later)
    assert second.text(LONG_AGO) == ""


def test_a_row_that_comes_twice_in_one_run_is_loaded_twice() -> None:
    run = Memory("")
    assert run.is_new({"id": 1}, NOW, LONG_AGO)
    assert run.is_new({"id": 1}, NOW, LONG_AGO)


def test_rows_older_than_the_next_run_will_see_are_forgotten() -> None:
    second = after_a_run(rows(10), since=NOW + timedelta(seconds=5))
    new = [row["id"] for row, time in rows(10) if second.is_new(row, time, LONG_AGO)]
    assert new == [0, 1, 2, 3, 4]


def test_a_row_without_time_is_remembered() -> None:
    first = Memory("")
    first.is_new({"id": 1}, None, NOW)
    assert not Memory(first.text(NOW)).is_new({"id": 1}, None, NOW)


def test_a_row_that_did_not_come_again_is_forgotten() -> None:
    second = after_a_run(rows(2), LONG_AGO)
    second.is_new({"id": 0}, NOW, LONG_AGO)
    third = Memory(second.text(LONG_AGO))
    assert [third.is_new({"id": n}, NOW, LONG_AGO) for n in range(2)] == [False, True]


def test_the_text_does_not_depend_on_the_order_of_rows() -> None:
    first, second = Memory(""), Memory("")
    for row, time in rows(20):
        first.is_new(row, time, LONG_AGO)
    for row, time in reversed(rows(20)):
        second.is_new(row, time, LONG_AGO)
    assert first.text(LONG_AGO) == second.text(LONG_AGO)


def test_the_text_is_small_and_ascii() -> None:
    first = Memory("")
    for row, time in rows(30):
        first.is_new(row, time, LONG_AGO)
    assert first.text(LONG_AGO).isascii()
    assert len(first.text(LONG_AGO)) == 30 * SIZE * 4 // 3


def test_beyond_its_capacity_the_newest_rows_are_remembered(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(memory, "CAPACITY", 5)
    for seen in (rows(100), rows(100)[::-1]):
        second = after_a_run(seen, LONG_AGO)
        known = [
            row["id"]
            for row, time in rows(100)
            if not second.is_new(row, time, LONG_AGO)
        ]
        assert known == [95, 96, 97, 98, 99]


def test_rows_with_odd_values_are_remembered() -> None:
    row = {"id": 1, "big": 2**70, "text": "\ufffd", "nested": {"a": [None]}}
    first = Memory("")
    first.is_new(row, NOW, LONG_AGO)
    assert not Memory(first.text(LONG_AGO)).is_new(row, NOW, LONG_AGO)
