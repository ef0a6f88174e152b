"""The figures of an issue: Sentry's list has those of 90 days, the totals beside them."""

from typing import Any

from analytics_pipeline.values import parse_timestamp

FIGURES = ("count", "userCount", "firstSeen", "lastSeen")
RECENT = "last_90_days"
"""Field that takes the figures of the list's own window."""


def promote_totals(issue: dict[str, Any]) -> None:
    """Let the figures of an issue be those of all its time, where the server sends them.

    Without `start` and `end` Sentry's list covers 90 days, and so do its figures; those
    of all time stand in `lifetime`. The others are kept as `RECENT`.
    """
    lifetime = issue.get("lifetime")
    if not isinstance(lifetime, dict):
        return
    recent = {name: issue.get(name) for name in FIGURES}
    totals = {n: lifetime[n] for n in FIGURES if _is_figure(n, lifetime.get(n))}
    if totals:
        issue[RECENT] = recent
        issue.update(totals)
        issue["lastSeen"] = _later(issue.get("lastSeen"), recent["lastSeen"])


def _is_figure(name: str, value: Any) -> bool:
    if name.endswith("Seen"):
        return parse_timestamp(value) is not None
    return type(value) is int or (isinstance(value, str) and value.isdecimal())


def _later(one: Any, other: Any) -> Any:
    """Return the later of two times in text; one of them if the other is no time."""
    times = [(parse_timestamp(text), text) for text in (one, other)]
    return max(((t, text) for t, text in times if t), default=(None, one))[1]
