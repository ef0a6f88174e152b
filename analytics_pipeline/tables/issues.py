"""Figures of issues: Sentry sends those of 90 days, and those of all time."""

from typing import Any

from analytics_pipeline.values import parse_timestamp

FIGURES = ("count", "userCount", "firstSeen", "lastSeen")
RECENT = "last_90_days"
"""Field for the 90-day figures."""


def promote_totals(issue: dict[str, Any]) -> None:
    """Set the figures of an issue to those of all time, if the server sends them.

    Without `start` and `end`, Sentry's list and its figures cover 90 days, and the
    figures of all time are in `lifetime`. The 90-day figures are kept as `RECENT`.
    """
    lifetime = issue.get("lifetime")
    if not isinstance(lifetime, dict):
        return
    recent = {name: issue.get(name) for name in FIGURES}
    totals = {n: lifetime[n] for n in FIGURES if _is_figure(n, lifetime.get(n))}
    if totals:
        issue |= totals | {RECENT: recent}
        issue["lastSeen"] = _later(issue.get("lastSeen"), recent["lastSeen"])


def _is_figure(name: str, value: Any) -> bool:
    if name.endswith("Seen"):
        return parse_timestamp(value) is not None
    return type(value) is int or (isinstance(value, str) and value.isdecimal())


def _later(one: Any, other: Any) -> Any:
    """Return the later of two times in text; the first if neither is a time."""
    times = [(time, text) for text in (one, other) if (time := parse_timestamp(text))]
    return max(times, default=(None, one))[1]
