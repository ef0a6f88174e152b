"""A backfill divided into partitions: one project and one span of time each."""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from analytics_pipeline.config import parse_time, project_list
from analytics_pipeline.errors import ConfigurationError

UNITS = {"h": "hours", "d": "days", "w": "weeks"}


class Partition(NamedTuple):
    """What one load of a backfill brings."""

    project: str
    since: datetime
    until: datetime
    """Exclusive."""


def partitions(
    projects: str | Iterable[str],
    since: str | datetime,
    until: str | datetime | None = None,
    every: str | timedelta = "1d",
) -> list[Partition]:
    """Return the partitions of a backfill, oldest first, each for every project.

    With `until` they end there, the last one perhaps shorter. Without it they are
    whole ones, as many as have passed by now.

    Raises:
        ConfigurationError: a time or `every` makes no sense, or no project is named.
    """
    start, end, step = (
        parse_time("since", since),
        parse_time("until", until),
        span(every),
    )
    if start is None:
        raise ConfigurationError("since is missing: a backfill begins there")
    if end is None:
        end = start + (datetime.now(UTC) - start) // step * step
    names = project_list(projects)
    count = -((start - end) // step)  # rounded up
    return [
        Partition(name, start + step * n, min(start + step * (n + 1), end))
        for n in range(count)
        for name in names
    ]


def span(text: str | timedelta) -> timedelta:
    """Return the timedelta that `"12h"`, `"7d"` or `"2w"` says."""
    if isinstance(text, str):
        match = re.fullmatch(r"([1-9]\d{0,4})([hdw])", text.strip())
        if match is None:
            raise ConfigurationError(
                f"{text!r} is not a span of time; write it as 12h, 7d or 2w"
            )
        return timedelta(**{UNITS[match[2]]: int(match[1])})
    if text < timedelta(seconds=1):
        raise ConfigurationError(f"a span of {text} is too short")
    return text
