"""How v1, Sentry and GlitchTip answer: the facts that the demo server goes by."""

import base64
import math
import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import takewhile
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from analytics_pipeline.demo.data import DemoData, rank, seconds
from analytics_pipeline.demo.rows import SUMMARY, WHOLE, Row

Query = dict[str, str]


class Refusal(Exception):
    """An answer without rows: its `detail` says why, or is a web page if it is bytes."""

    def __init__(
        self, status: int, detail: Any, headers: dict[str, str] | None = None
    ) -> None:
        super().__init__(detail)
        self.status, self.detail, self.headers = status, detail, headers


def _bad_request(name: str, message: str) -> Refusal:
    return Refusal(400, f"Invalid {name}: {message}")


def _unprocessable(name: str, message: str) -> Refusal:
    reason = {"type": "value_error", "loc": ["query", name], "msg": message}
    return Refusal(422, [reason])


class Page(NamedTuple):
    """Some rows, and what is before and behind them: (are there rows?, cursor)."""

    rows: list[Row]
    previous: tuple[bool, str | None]
    next: tuple[bool, str | None]


def _by_offset(rows: list[Row], cursor: str | None, size: int, order: str) -> Page:
    """v1 and Sentry: the cursor counts rows, which shift when newer ones arrive."""
    known = re.fullmatch(r"0:(\d+):[01]", cursor or "0:0:0")
    if not known:
        raise _bad_request("cursor", "not a cursor")
    start = int(known[1])
    end = start + size
    before = (start > 0, f"0:{max(start - size, 0)}:1")
    return Page(rows[start:end], before, (end < len(rows), f"0:{end}:0"))


def _by_time(rows: list[Row], cursor: str | None, size: int, order: str) -> Page:
    """Sentry's issues: the cursor is a row's time in milliseconds, and an offset.

    The offset tells rows of one millisecond apart.
    """
    known = re.fullmatch(r"(\d+):(\d+):[01]", cursor or "0:0:0")
    if not known:
        raise _bad_request("cursor", "not a cursor")
    times = [-int(seconds(row[order]) * 1000) for row in rows]
    after, offset = -int(known[1]), int(known[2])
    start = offset + (bisect_left(times, after) if after else 0)
    end = start + size

    def cursor_at(index: int) -> str:
        if index >= len(times):
            return "0:0:0"
        return f"{-times[index]}:{index - bisect_left(times, times[index])}:0"

    before = (start > 0, cursor_at(max(start - size, 0)))
    return Page(rows[start:end], before, (end < len(rows), cursor_at(end)))


def _sentry_page(rows: list[Row], cursor: str | None, size: int, order: str) -> Page:
    by = _by_time if order == "lastSeen" else _by_offset
    return by(rows, cursor, size, order)


def _by_position(rows: list[Row], cursor: str | None, size: int, order: str) -> Page:
    """GlitchTip: the cursor is the last row's sort value, and an offset behind it.

    The offset tells rows of one sort value apart, but counts to 100 only: with more
    of them the cursor repeats for ever. Cursors to the page before are not taken.
    """
    key = rank(order)
    offset, after = 0, ""
    if cursor is not None:
        try:
            parts = parse_qs(base64.b64decode(cursor, validate=True).decode("ascii"))
            offset = min(int(parts.get("o", ["0"])[0]), 100)
            after = parts["p"][0] if "o" not in parts else parts.get("p", [""])[0]
        except (KeyError, ValueError):
            raise _unprocessable("cursor", "Value error, Invalid cursor.") from None
        try:
            last = key({order: after}) if after else None
        except ValueError:  # a cursor, but of no time
            raise Refusal(500, html_page("Server Error (500)")) from None
        if after:
            rows = rows[bisect_right(rows, last, key=key) :]
    page, following = rows[offset : offset + size], rows[offset + size :]
    before = {"r": "1", "p": _position(page[0], order)} if cursor and page else {}
    behind: Query = {}
    if following:
        tie = key(following[0])
        tied = len(list(takewhile(lambda row: key(row) == tie, reversed(page))))
        if tied < len(page):
            after, offset = _position(page[-1 - tied], order), tied
        else:
            offset += size
        behind = {"o": str(offset)} if offset else {}
        behind |= {"p": after} if after else {}
    return Page(page, (bool(before), _encode(before)), (bool(behind), _encode(behind)))


def _position(row: Row, order: str) -> str:
    text: str = row[order]
    return text if order == "slug" else str(datetime.fromisoformat(text))


def _encode(parts: Query) -> str | None:
    return base64.b64encode(urlencode(parts).encode()).decode() or None


def _asked(query: Query, name: str, refuse: Callable[[str, str], Refusal]) -> int:
    """The page size that the client asks for; 100 is the most."""
    if not re.fullmatch("[1-9][0-9]*", query[name]):
        raise refuse(name, "Input should be a valid integer")
    return min(int(query[name]), 100)


def _sentry_size(table: str, query: Query) -> int:
    if table == "events":
        return 10 if query.get("full") == "true" else 100
    name = "limit" if table == "issues" else "per_page"
    return _asked(query, name, _bad_request) if name in query else 100


def _glitchtip_size(table: str, query: Query) -> int:
    return _asked(query, "limit", _unprocessable) if "limit" in query else 50


# What the parameters select; None is an empty list without a Link header.
Select = Callable[[list[Row], Query, DemoData], list[Row] | None]
View = Callable[[Row, Query, DemoData], Row]


def _sentry_events(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    """The rows from `start` up to `end`, of those that the server still keeps."""
    start, end = -math.inf, math.inf
    if query.keys() & {"start", "end"}:
        start, end = (_bound(query, name) for name in ("start", "end"))
        if start >= end:
            raise _bad_request("start", "it must be before end")
    if data.retention is not None:
        oldest = _ago(data.retention)
        if end <= oldest:
            raise Refusal(500, "Internal Error")
        start = max(start, oldest)
    key = rank("dateCreated")
    # newest first: rows at `end` come before, not rows at `start`
    first, last = (bisect_right(rows, -bound, key=key) for bound in (end, start))
    return rows[first:last]


def _bound(query: Query, name: str) -> float:
    try:
        time = datetime.fromisoformat(query[name])
    except (KeyError, ValueError):
        raise _bad_request(name, "start and end must both be ISO dates") from None
    if time.tzinfo:
        raise _bad_request(name, "it is in UTC, without a zone")
    return time.replace(tzinfo=UTC).timestamp()


def _ago(span: timedelta) -> float:
    return (datetime.now(UTC) - span).timestamp()


def _searched(query: Query, data: DemoData) -> dict[str, Row]:
    """The projects whose ids are asked for; -1 is all, without it the user's own."""
    ids = query.get("project", "").split(",")
    if ids == ["-1"] or (ids == [""] and data.member_of is None):
        return data.projects
    if ids == [""]:
        own = {data.renamed.get(slug, slug) for slug in data.member_of or ()}
        return {slug: row for slug, row in data.projects.items() if slug in own}
    found = {slug: row for slug, row in data.projects.items() if row["id"] in ids}
    if len(found) < len(set(ids)):
        raise Refusal(403, "You do not have permission to perform this action.")
    return found


def _sentry_issues(rows: list[Row], query: Query, data: DemoData) -> list[Row] | None:
    """The rows of 90 days that `query` and `project` select; a window is refused."""
    if query.keys() & {"start", "end"}:
        raise _bad_request("start", "it would change the counts, do not send it")
    projects = _searched(query, data)
    if not projects:
        return None
    oldest = _ago(timedelta(days=90))
    rows = [
        row
        for row in rows
        if row["project"]["slug"] in projects and seconds(row["lastSeen"]) >= oldest
    ]
    text = query.get("query", "is:unresolved")
    for token in re.findall(r'(?:[^\s"]|"[^"]*")+', text):
        name, _, value = token.replace('"', "").partition(":")
        if name == "project":
            if value not in projects:
                raise Refusal(
                    400,
                    f"Invalid query. Project(s) {value} do not exist or are not "
                    "actively selected.",
                )
            rows = [row for row in rows if row["project"]["slug"] == value]
        elif name == "is":
            rows = [row for row in rows if row["status"] == value]
        elif name == "lastSeen" and value.startswith(">="):
            try:
                oldest = seconds(value[2:])
            except ValueError:
                raise _bad_request("query", "not an ISO date") from None
            rows = [row for row in rows if seconds(row["lastSeen"]) >= oldest]
        else:
            raise _bad_request("query", f"cannot search for {token}")
    return rows


def _sentry_projects(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    return sorted(rows, key=lambda row: (not row["isBookmarked"], row["slug"]))


def _sentry_releases(rows: list[Row], query: Query, data: DemoData) -> list[Row] | None:
    """The rows of the projects asked for; archived ones only for `status=`, empty."""
    projects = _searched(query, data)
    if not projects:
        return None
    return [
        row
        for row in rows
        if (query.get("status") == "" or row["status"] != "archived")
        and (
            projects is data.projects
            or any(project["slug"] in projects for project in row["projects"])
        )
    ]


def _sentry_event(row: Row, query: Query, data: DemoData) -> Row:
    """A summary, or the whole body, which in every 50th row has no dateCreated."""
    if query.get("full") != "true":
        return {name: row[name] for name in SUMMARY}
    missing = {"event.type"}
    if int(row["id"][-8:], 16) % 50 == 0:
        missing.add("dateCreated")
    end = seconds(row["dateCreated"])
    whole = row | WHOLE | {"startTimestamp": end - 0.25, "endTimestamp": end}
    return {name: value for name, value in whole.items() if name not in missing}


_COLLAPSED = {
    "stats": {"stats", "lifetime", "filtered"},
    "lifetime": {"lifetime"},
    "filtered": {"filtered"},
    "unhandled": {"isUnhandled"},
}


def _sentry_issue(row: Row, query: Query, data: DemoData) -> Row:
    """The row with the figures of 90 days; `lifetime` has the totals."""
    totals = {
        name: row[name] for name in ("count", "userCount", "firstSeen", "lastSeen")
    }
    row = row | {"lifetime": totals | {"stats": {}}}
    if past := data.past.get(row["id"]):
        row |= {
            "count": str(int(row["count"]) - past.count),
            "userCount": row["userCount"] - past.users,
            "firstSeen": past.first_seen,
        }
    words = query.get("collapse", "").split(",")
    missing = set[str]().union(*(_COLLAPSED.get(word, ()) for word in words))
    if query.get("groupStatsPeriod") == "":
        missing.add("stats")
    return {name: value for name, value in row.items() if name not in missing}


def _sentry_project(row: Row, query: Query, data: DemoData) -> Row:
    """The row without what only project_detail has."""
    missing = {"avatar", "color", "isInternal", "isPublic", "organization"}
    return {name: value for name, value in row.items() if name not in missing}


def _glitchtip_issues(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    if "sort" in query:
        raise _unprocessable("sort", "Input should be '-last_seen' or '-created'")
    wanted = query.get("project")
    return [row for row in rows if wanted in (None, row["project"]["id"])]


def _glitchtip_issue(row: Row, query: Query, data: DemoData) -> Row:
    """The row without what GlitchTip does not compute."""
    return row | {"userCount": 0, "stats": {"24h": []}}


def _wrapped(body: Any) -> Any:
    return {"data": body}


def html_page(title: str) -> bytes:
    """A web page, where a client expects JSON."""
    return f"<!doctype html><html><head><title>{title}</title></head></html>".encode()


@dataclass(frozen=True)
class Dialect:
    """What sets one server apart."""

    prefix: str  # of all paths
    routes: Mapping[str, str]  # pattern of the path behind the prefix → table
    page: Callable[[list[Row], str | None, int, str], Page] = _by_offset
    size: Callable[[str, Query], int] = lambda table, query: 100
    select: Mapping[str, Select] = field(default_factory=dict)  # by table
    view: Mapping[str, View] = field(default_factory=dict)  # by table
    wrap: Callable[[Any], Any] = lambda body: body
    link: str = "{}, {}"  # the Link header, of the previous and the next page
    link_host: str | None = None  # its own address, if None
    withdrawn: Mapping[str, str] = field(default_factory=dict)  # path → its successor
    redirects: bool = False  # from the old slug of a renamed project
    not_found: str | bytes = "Not Found"  # the detail at a path that is not in `routes`
    # (table, "project" or "organization"): an unknown one is an empty list, not 404
    tolerant: frozenset[tuple[str, str]] = frozenset()
    # the answer to a path without the prefix, or without a slash at its end
    web_page: bytes | None = None


_ORGANIZATION = "(?P<organization>[^/]+)/"
_PROJECT = f"projects/{_ORGANIZATION}(?P<project>[^/]+)/"
_COMMON = {
    f"{_PROJECT}events/": "events",
    f"{_PROJECT}issues/": "issues",
    _PROJECT: "project_detail",
    f"organizations/{_ORGANIZATION}releases/": "releases",
}
_ALL_PROJECTS = {"projects/": "projects"}
_OF_ORGANIZATION = {
    f"organizations/{_ORGANIZATION}projects/": "projects",
    f"organizations/{_ORGANIZATION}issues/": "issues",
}


DIALECTS = {
    "v1": Dialect("/v1/", _COMMON | _ALL_PROJECTS, wrap=_wrapped),
    "sentry": Dialect(
        "/api/0/",
        _COMMON | _OF_ORGANIZATION,
        page=_sentry_page,
        size=_sentry_size,
        select={
            "events": _sentry_events,
            "issues": _sentry_issues,
            "projects": _sentry_projects,
            "releases": _sentry_releases,
        },
        view={
            "events": _sentry_event,
            "issues": _sentry_issue,
            "projects": _sentry_project,
        },
        link_host="https://sentry.example.invalid",
        withdrawn={"/api/0/projects/": "/api/0/organizations/{}/projects/"},
        redirects=True,
        not_found=html_page("Page Not Found"),
    ),
    "glitchtip": Dialect(
        "/api/0/",
        _COMMON | _OF_ORGANIZATION | _ALL_PROJECTS,
        page=_by_position,
        size=_glitchtip_size,
        select={"issues": _glitchtip_issues},
        view={"issues": _glitchtip_issue},
        link="{{'{}, {}'}}",  # the text of a Python set
        tolerant=frozenset(
            {
                ("events", "project"),
                ("events", "organization"),
                ("issues", "project"),
                ("projects", "organization"),
                ("releases", "organization"),
            }
        ),
        web_page=html_page("GlitchTip"),
    ),
}
