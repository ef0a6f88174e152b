"""The figures of an issue cover all time."""

from typing import Any

import pytest

from analytics_pipeline.tables.issues import FIGURES, RECENT, promote_totals

OF_90_DAYS = {
    "count": "7",
    "userCount": 2,
    "firstSeen": "2026-09-01T00:00:00Z",
    "lastSeen": "2026-11-01T00:00:00Z",
}
TOTALS = {
    "count": "5000",
    "userCount": 300,
    "firstSeen": "2020-01-01T00:00:00Z",
    "lastSeen": "2026-11-02T00:00:00Z",
}


def promoted(issue: dict[str, Any]) -> dict[str, Any]:
    issue = dict(issue)
    promote_totals(issue)
    return issue


def test_totals_replace_the_90_day_figures() -> None:
    issue = {"id": "1", **OF_90_DAYS, "lifetime": {**TOTALS, "stats": {}}}
    assert promoted(issue) == issue | TOTALS | {RECENT: OF_90_DAYS}


@pytest.mark.parametrize(
    "lifetime",
    [
        {},
        {"lifetime": None},
        {"lifetime": "long"},
        {"lifetime": []},
        {"lifetime": {}},
        {"lifetime": {"stats": {}}},
        {"lifetime": dict.fromkeys(FIGURES)},
    ],
)
def test_an_issue_without_totals_is_unchanged(lifetime: dict[str, Any]) -> None:
    issue = {"id": "1", **OF_90_DAYS, **lifetime}
    assert promoted(issue) == issue


@pytest.mark.parametrize("missing", FIGURES)
def test_a_missing_total_leaves_the_figure_unchanged(missing: str) -> None:
    issue = promoted({**OF_90_DAYS, "lifetime": {**TOTALS, missing: None}})
    figures = {name: issue[name] for name in FIGURES}
    assert figures == {**TOTALS, missing: OF_90_DAYS[missing]}
    assert issue[RECENT] == OF_90_DAYS


@pytest.mark.parametrize(
    ("total", "recent", "expected"),
    [
        ("2026-11-02T00:00:00Z", "2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"),
        ("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z", "2026-11-02T00:00:00Z"),
        ("2026-11-01T23:00:00-05:00", "2026-11-02T00:00:00Z", None),
        ("2026-11-01T00:00:00Z", None, None),
        ("2026-11-01T00:00:00Z", "soon", None),
        ("soon", "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
        ("soon", "later", "later"),
        (5, "2026-11-01T00:00:00Z", "2026-11-01T00:00:00Z"),
    ],
)
def test_last_seen_is_the_later_of_both_times(
    total: Any, recent: Any, expected: str | None
) -> None:
    issue = promoted({"lastSeen": recent, "lifetime": {"lastSeen": total}})
    assert issue["lastSeen"] == (total if expected is None else expected)
