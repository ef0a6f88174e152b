"""The figures of an issue are those of all its time."""

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


def test_the_totals_take_the_place_of_the_figures_of_90_days() -> None:
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
def test_without_totals_an_issue_stays_as_it_is(lifetime: dict[str, Any]) -> None:
    issue = {"id": "1", **OF_90_DAYS, **lifetime}
    assert promoted(issue) == issue


@pytest.mark.parametrize("missing", FIGURES)
def test_a_total_that_is_not_sent_leaves_the_figure(missing: str) -> None:
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
def test_the_later_one_is_when_an_issue_was_last_seen(
    total: Any, recent: Any, expected: str | None
) -> None:
    issue = promoted({"lastSeen": recent, "lifetime": {"lastSeen": total}})
    assert issue["lastSeen"] == (total if expected is None else expected)
