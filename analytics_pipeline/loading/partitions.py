"""A backfill divided into partitions: one project and one span of time each."""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from analytics_pipeline.config import project_list
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.times import parse_span, parse_time


class Partition(NamedTuple):
    """What one load of a backfill loads."""

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
    """Return the partitions of a backfill for each project, oldest first.

    The last one ends at `until` and may be shorter; without `until`, it is the last whole
    one that has passed.

    Raises:
        ConfigurationError: a time or `every` is invalid, or no project is named.
    """
    start, end = parse_time("since", since), parse_time("until", until)
    step = parse_span("every", every)
    if start is None:
        raise ConfigurationError(
            "since is missing; set it to the start of the backfill"
        )
    if end is None:
        end = start + (datetime.now(UTC) - start) // step * step
    names = project_list(projects)
    count = -((start - end) // step)  # rounded up
    return [
        Partition(name, start + step * n, min(start + step * (n + 1), end))
        for n in range(count)
        for name in names
    ]
