"""How v1, Sentry and GlitchTip answer: the facts that the demo server goes by."""

import base64
import re
from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from itertools import takewhile
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlencode

from analytics_pipeline.demo.data import DemoData, rank, seconds
from analytics_pipeline.demo.rows import SUMMARY, Row

Query = dict[str, str]


class Refusal(Exception):
    """An answer that is an error; its `detail` says why."""

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
            if after:
                rows = rows[bisect_right(rows, key({order: after}), key=key) :]
        except (KeyError, ValueError):
            raise _unprocessable("cursor", "Value error, Invalid cursor.") from None
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


def _sentry_events(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    """The rows from `start` up to `end`."""
    if not query.keys() & {"start", "end"}:
        return rows
    try:
        start, end = seconds(query["start"]), seconds(query["end"])
    except (KeyError, ValueError):
        raise _bad_request("start or end", "both must be ISO dates") from None
    if start >= end:
        raise _bad_request("start", "it must be before end")
    key = rank("dateCreated")
    first, last = (bisect_right(rows, -bound, key=key) for bound in (end, start))
    return rows[
        first:last
    ]  # newest first: rows at `end` come before, not rows at start


def _of_projects(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    """The issues or releases of the projects whose ids are asked for; -1 is all."""
    wanted = set(query.get("project", "-1").split(","))
    if wanted == {"-1"}:
        return rows
    if not wanted <= {project["id"] for project in data.projects.values()}:
        raise Refusal(403, "You do not have permission to perform this action.")
    return [
        row
        for row in rows
        if any(
            project["id"] in wanted
            for project in row.get("projects") or [row["project"]]
        )
    ]


def _sentry_issues(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    """The rows that `query` and `project` select; a window of time is refused."""
    if query.keys() & {"start", "end"}:
        raise _bad_request("start", "it would change the counts, do not send it")
    rows = _of_projects(rows, query, data)
    text = query.get("query", "is:unresolved")
    for token in re.findall(r'(?:[^\s"]|"[^"]*")+', text):
        name, _, value = token.replace('"', "").partition(":")
        if name == "project":
            if value not in data.projects:
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


def _sentry_releases(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    rows = _of_projects(rows, query, data)
    if query.get("status") == "":
        return rows
    return [row for row in rows if row["status"] != "archived"]


def _sentry_event(row: Row, query: Query) -> Row:
    """A summary, or the whole body, which in every 50th row has no dateCreated."""
    if query.get("full") != "true":
        return {name: row[name] for name in SUMMARY}
    undated = int(row["id"][-8:], 16) % 50 == 0
    return {k: v for k, v in row.items() if not (undated and k == "dateCreated")}


def _sentry_issue(row: Row, query: Query) -> Row:
    collapsed = query.get("collapse") == "stats"
    return {k: v for k, v in row.items() if not (collapsed and k == "stats")}


def _unsorted(rows: list[Row], query: Query, data: DemoData) -> list[Row]:
    if "sort" in query:
        raise _unprocessable("sort", "Input should be '-last_seen' or '-created'")
    return rows


def _wrapped(body: Any) -> Any:
    return {"data": body}


@dataclass(frozen=True)
class Dialect:
    """What sets one server apart."""

    routes: Mapping[str, str]  # pattern of the path → table
    page: Callable[[list[Row], str | None, int, str], Page] = _by_offset
    size: Callable[[str, Query], int] = lambda table, query: 100
    select: Mapping[str, Callable[[list[Row], Query, DemoData], list[Row]]] = field(
        default_factory=dict
    )  # table → the rows that the parameters ask for
    view: Mapping[str, Callable[[Row, Query], Row]] = field(default_factory=dict)
    wrap: Callable[[Any], Any] = lambda body: body
    link: str = "{}, {}"  # the Link header, of the previous and the next page
    link_host: str | None = None  # its own address, if None
    withdrawn: Mapping[str, str] = field(default_factory=dict)  # path → its successor
    tolerant: frozenset[str] = frozenset()  # tables empty, not 404, for unknown owners
    web_page: bytes | None = None  # the answer to a path without a slash at its end


_ORGANIZATION = "(?P<organization>[^/]+)/"
_PROJECT = f"projects/{_ORGANIZATION}(?P<project>[^/]+)/"
_COMMON = {
    f"{_PROJECT}events/": "events",
    f"{_PROJECT}issues/": "issues",
    _PROJECT: "project_detail",
    f"organizations/{_ORGANIZATION}releases/": "releases",
}


def _routes(prefix: str, further: dict[str, str]) -> dict[str, str]:
    return {prefix + path: table for path, table in (_COMMON | further).items()}


DIALECTS = {
    "v1": Dialect(routes=_routes("/v1/", {"projects/": "projects"}), wrap=_wrapped),
    "sentry": Dialect(
        routes=_routes(
            "/api/0/",
            {
                f"organizations/{_ORGANIZATION}projects/": "projects",
                f"organizations/{_ORGANIZATION}issues/": "issues",
            },
        ),
        size=_sentry_size,
        select={
            "events": _sentry_events,
            "issues": _sentry_issues,
            "releases": _sentry_releases,
        },
        view={"events": _sentry_event, "issues": _sentry_issue},
        link_host="https://sentry.example.invalid",
        withdrawn={"/api/0/projects/": "/api/0/organizations/{}/projects/"},
    ),
    "glitchtip": Dialect(
        routes=_routes("/api/0/", {"projects/": "projects"}),
        page=_by_position,
        size=_glitchtip_size,
        select={"issues": _unsorted},
        link="{{'{}, {}'}}",  # the text of a Python set
        tolerant=frozenset({"events", "releases"}),
        web_page=b"<!doctype html><html><head><title>GlitchTip</title></head></html>",
    ),
}
