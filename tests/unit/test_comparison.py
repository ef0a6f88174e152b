"""Rows of two sides, compared by key and by value."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from analytics_pipeline.loading import comparison as module
from analytics_pipeline.loading.comparison import Comparison, Counts
from analytics_pipeline.tables.arrow import to_arrow
from analytics_pipeline.tables.schema import TABLES

BEGAN = datetime(2026, 11, 30, 12, tzinfo=UTC)
EARLIER = BEGAN - timedelta(hours=1)
LATER = BEGAN + timedelta(seconds=1)
WHILE = BEGAN, BEGAN + timedelta(hours=1)
NEVER = (datetime.max.replace(tzinfo=UTC),) * 2


@pytest.fixture
def comparison(tmp_path: Path) -> Iterator[Comparison]:
    with Comparison(tmp_path, TABLES["issues"], "last_seen") as comparison:
        yield comparison


def rows(*records: dict[str, Any], read_at: datetime = EARLIER) -> pa.Table:
    dated = [{"lastSeen": EARLIER.isoformat(), **record} for record in records]
    return to_arrow(TABLES["issues"], dated, read_at).table


def compare(
    comparison: Comparison,
    server: list[dict[str, Any]],
    warehouse: list[dict[str, Any]],
    **further: Any,
) -> Counts:
    """Of one project."""
    comparison.add("server", rows(*server), ["p"] * len(server), WHILE)
    found = rows(*warehouse, **further)
    comparison.add("warehouse", found, ["p"] * len(warehouse), WHILE)
    return comparison.finish(["p"]).get("p", Counts())


def test_both_sides_may_be_empty(comparison: Comparison) -> None:
    assert compare(comparison, [], []) == Counts()
    assert comparison.affected() is None


def test_each_kind_is_counted_and_named(comparison: Comparison) -> None:
    server = [{"id": key, "title": key} for key in "abcd"]
    warehouse: list[dict[str, Any]] = [{"id": key, "title": key} for key in "bbdx"]
    warehouse.append({"id": "c", "title": "C", "count": 1})
    counts = compare(comparison, server, warehouse)
    assert counts == Counts(4, 5, missing=1, doubled=1, different=1, gone=1)
    found = {kind: comparison.examples(kind) for kind in module.KINDS}
    assert {kind: [each.key for each in found[kind]] for kind in module.KINDS} == {
        "missing": ["a"],
        "doubled": ["b"],
        "different": ["c"],
        "gone": ["x"],
    }
    assert found["different"][0].columns == ("title", "count")
    affected = comparison.affected()
    assert affected
    assert sorted(affected.ids or []) == ["a", "b", "c"]
    assert affected.span == (EARLIER, EARLIER)
    assert affected.gone == []


def test_the_first_ten_are_named_in_the_order_of_their_keys(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEYS_AT_ONCE", 3)
    compare(comparison, [{"id": f"{n:02}"} for n in reversed(range(30))], [])
    named = [each.key for each in comparison.examples("missing")]
    assert named == [f"{n:02}" for n in range(10)]


@pytest.mark.parametrize("keys_at_once", [1, 7, 1000])
def test_parts_make_no_difference(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch, keys_at_once: int
) -> None:
    monkeypatch.setattr(module, "KEYS_AT_ONCE", keys_at_once)
    server = [{"id": str(n), "title": str(n % 5)} for n in range(20)]
    warehouse = [{"id": str(n), "title": str(n % 4)} for n in range(5, 30)]
    counts = compare(comparison, server, warehouse)
    same = sum(n % 5 == n % 4 for n in range(5, 20))
    assert counts == Counts(20, 25, missing=5, different=15 - same, gone=10)


def test_what_the_server_shows_twice_may_be_any_of_it(tmp_path: Path) -> None:
    variants = [{"id": "a", "title": str(n)} for n in range(9)]
    for variant in variants:
        folder = tmp_path / variant["title"]
        folder.mkdir()
        with Comparison(folder, TABLES["issues"], "last_seen") as comparison:
            assert compare(comparison, variants, [variant]) == Counts(1, 1)


def test_only_the_newest_version_counts_where_rows_are_never_replaced(
    tmp_path: Path,
) -> None:
    with Comparison(
        tmp_path, TABLES["issues"], "last_seen", keeps_versions=True
    ) as comparison:
        old = rows({"id": "a", "title": "old"}, read_at=EARLIER - timedelta(days=1))
        comparison.add("warehouse", old, ["p"], WHILE)
        counts = compare(comparison, [{"id": "a"}], [{"id": "a"}])
        assert counts == Counts(1, 1)


def test_values_and_their_absence_are_told_apart(comparison: Comparison) -> None:
    server: list[dict[str, Any]] = [
        {"id": "text", "title": ""},
        {"id": "number", "count": 0},
        {"id": "bool", "hasSeen": False},
        {"id": "double", "seerFixabilityScore": 0.0},
        {"id": "json", "inbox": {}},
        {"id": "extra", "odd": {}},
        {"id": "same", "inbox": None},
    ]
    warehouse = [{"id": record["id"]} for record in server]
    assert compare(comparison, server, warehouse).different == 6
    columns = {each.key: each.columns for each in comparison.examples("different")}
    assert columns == {
        "text": ("title",),
        "number": ("count",),
        "bool": ("has_seen",),
        "double": ("seer_fixability_score",),
        "json": ("inbox",),
        "extra": ("extra",),
    }


def test_figures_that_change_with_the_hour_and_read_at_are_not_compared(
    comparison: Comparison,
) -> None:
    server = [{"id": "a", "stats": {"24h": [1]}, "last_90_days": {"count": 1}}]
    warehouse = [{"id": "a", "stats": {"24h": [2]}}]
    read_at = EARLIER + timedelta(minutes=1)
    assert compare(comparison, server, warehouse, read_at=read_at) == Counts(1, 1)


def test_rows_of_others_are_left_out(comparison: Comparison) -> None:
    both = rows({"id": "a"}, {"id": "b"}, {"id": "c"})
    comparison.add("server", both, ["p", "q", "p"], WHILE)
    comparison.add("warehouse", both, ["p", None, "r"], WHILE)
    assert comparison.finish(["p"]) == {"p": Counts(2, 2)}


def test_what_the_other_side_was_not_asked_for_is_not_gone(
    comparison: Comparison,
) -> None:
    found = rows({"id": "a"}, {"id": "b"})
    comparison.add("warehouse", found, ["p", "p"], WHILE, [True, False])
    assert comparison.finish(["p"]) == {"p": Counts(0, 1, gone=1)}


def test_what_came_after_the_beginning_is_left_out(comparison: Comparison) -> None:
    later = LATER.isoformat()
    server = [{"id": "moved", "lastSeen": later}, {"id": "new", "lastSeen": later}]
    assert compare(comparison, server, [{"id": "moved"}]) == Counts()
    comparison.add("warehouse", rows({"id": "x"}, read_at=LATER), ["p"], WHILE)
    assert comparison.finish(["p"]) == {}


def test_a_late_time_alone_hides_nothing(comparison: Comparison) -> None:
    later = LATER.isoformat()
    server = [{"id": "a", "lastSeen": later, "title": "a"}, {"id": "b", "title": "b"}]
    warehouse = [{"id": "a", "lastSeen": later}, {"id": "b", "lastSeen": later}]
    assert compare(comparison, server, warehouse) == Counts(2, 2, different=2)


def test_undated_rows_have_no_span(comparison: Comparison) -> None:
    compare(comparison, [{"id": "a"}, {"id": "b", "lastSeen": None}], [])
    affected = comparison.affected()
    assert affected
    assert affected.span is None


def test_too_many_rows_are_not_named(
    comparison: Comparison, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_KEYS", 3)
    compare(comparison, [{"id": str(n)} for n in range(4)], [{"id": "x"}] * 2)
    affected = comparison.affected()
    assert affected
    assert affected.ids is None
    assert affected.span == (EARLIER, EARLIER)
    assert affected.gone == ["x"]


@pytest.mark.parametrize("year", [1, 1900, 9999])
def test_any_time_can_be_the_edge_of_a_span(comparison: Comparison, year: int) -> None:
    time = datetime(year, 1, 1, tzinfo=UTC)
    server = [{"id": "a", "lastSeen": time.isoformat()}]
    comparison.add("server", rows(*server), ["p"], NEVER)
    comparison.finish(["p"])
    affected = comparison.affected()
    assert affected
    assert affected.span == (time, time)


def test_a_folder_may_have_any_name(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s; a "folder"'
    folder.mkdir()
    with Comparison(folder, TABLES["issues"], "last_seen") as comparison:
        assert compare(comparison, [{"id": "a"}], [{"id": "a"}]) == Counts(1, 1)
