"""How servers of v1, Sentry and GlitchTip list and write their rows."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

from analytics_pipeline.demo.rows import SUMMARY, Row

Query = Mapping[str, str]
_ORGANIZATION = "organizations/(?P<organization>[^/]+)/"
_PROJECT = "projects/(?P<organization>[^/]+)/(?P<project>[^/]+)/"
_COMMON = {
    f"{_PROJECT}events/": "events",
    f"{_PROJECT}issues/": "issues",
    _PROJECT: "project_detail",
    f"{_ORGANIZATION}releases/": "releases",
}
_ALL_PROJECTS = {"projects/": "projects"}
_OF_ORGANIZATION = {
    f"{_ORGANIZATION}projects/": "projects",
    f"{_ORGANIZATION}issues/": "issues",
}
_ORDER = {
    "events": "dateCreated",
    "issues": "lastSeen",
    "projects": "dateCreated",
    "releases": "dateCreated",
    "project_detail": "dateCreated",
}


def seconds(text: str) -> float:
    """Return the Unix time of an ISO date, which is in UTC if it names no zone."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=time.tzinfo or UTC).timestamp()


class Page(NamedTuple):
    """Rows, and for the pages before and after: whether there is one, and its cursor."""

    rows: list[Row]
    previous: tuple[bool, str | None]
    next: tuple[bool, str | None]


class V1:
    """The v1 API."""

    prefix = "/v1/"
    has_envelope = True
    """The body of a response is in `{"data": …}`."""
    paths: Mapping[str, str] = _COMMON | _ALL_PROJECTS
    """Pattern of a path, without the prefix → table."""
    order: Mapping[str, str] = _ORDER
    """Table → the field that its list is sorted by: slugs ascending, times descending."""
    lacks: Mapping[str, Sequence[str]] = {}
    """Table → fields that only other servers have."""
    event_time = other_time = "auto"
    """`timespec` of an event's dates, and of all others."""
    lag = delay = 0.0
    """Seconds until an event is received: up to `lag`, or up to `delay` for a tenth."""
    project_id: type[str] | type[int] = str
    link = "{}, {}"

    def rank(self, table: str, value: str) -> Any:
        """Return the sort key of a value of the field that the list is sorted by."""
        return value if self.order[table] == "slug" else -seconds(value)

    def ordered(self, table: str, rows: list[Row]) -> list[Row]:
        """Return the rows in the order of their list."""
        return sorted(rows, key=lambda row: self.rank(table, row[self.order[table]]))

    def select(self, table: str, rows: list[Row], query: Query) -> list[Row]:
        """Return the rows that the parameters select."""
        return rows

    def size(self, table: str, query: Query) -> int:
        """Return the number of rows of a page."""
        return 100

    def page(self, table: str, rows: list[Row], cursor: str | None, size: int) -> Page:
        """Return the page at a cursor, whose second number is an offset."""
        start = int((cursor or "0:0:0").split(":")[1])
        end = start + size
        before = (start > 0, f"0:{max(start - size, 0)}:1")
        return Page(rows[start:end], before, (end < len(rows), f"0:{end}:0"))

    def shown(self, table: str, row: Row, query: Query) -> Row:
        """Return a row as its list shows it."""
        return row


class Sentry(V1):
    """Sentry, which selects rows by the parameters of a request."""

    prefix = "/api/0/"
    has_envelope = False
    paths = _COMMON | _OF_ORGANIZATION
    order = _ORDER | {"projects": "slug"}
    event_time = "seconds"
    delay = 3 * 86_400.0

    def select(self, table: str, rows: list[Row], query: Query) -> list[Row]:
        """Return the events of a time window, or the issues of a project."""
        if table == "events" and "start" in query:
            start, end = seconds(query["start"]), seconds(query["end"])
            return [row for row in rows if start <= seconds(row["dateCreated"]) < end]
        if table == "issues":
            slug = query["query"].removeprefix("project:")
            return [row for row in rows if row["project"]["slug"] == slug]
        return rows

    def shown(self, table: str, row: Row, query: Query) -> Row:
        """Return the summary of an event."""
        return {name: row[name] for name in SUMMARY} if table == "events" else row


class GlitchTip(V1):
    """GlitchTip, which lists events by the time when they were received."""

    prefix = "/api/0/"
    has_envelope = False
    paths = _COMMON | _OF_ORGANIZATION | _ALL_PROJECTS
    order = _ORDER | {"events": "dateReceived", "projects": "slug"}
    _no_project = ("platforms", "team", "status", "environments")
    lacks: Mapping[str, Sequence[str]] = {
        "events": ("location", "release", "environment", "event.type", "crashFile"),
        "issues": ("platform", "substatus", "priority", "isUnhandled", "assignedTo"),
        "releases": (
            *("id", "status", "versionInfo", "commitCount", "newGroups"),
            *("lastCommit", "authors"),
        ),
        "projects": _no_project,
        "project_detail": (*_no_project, "options", "securityToken", "symbolSources"),
    }
    event_time = other_time = "milliseconds"
    lag = 1800.0
    project_id = int
    link = "{{'{}, {}'}}"  # the text of a Python set

    def select(self, table: str, rows: list[Row], query: Query) -> list[Row]:
        """Return the issues of the requested project."""
        if table == "issues" and "project" in query:
            return [row for row in rows if row["project"]["id"] == query["project"]]
        return rows


APIS: Mapping[str, type[V1]] = {"v1": V1, "sentry": Sentry, "glitchtip": GlitchTip}
