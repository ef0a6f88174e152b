"""Real habits of Sentry and GlitchTip that the demo server simplifies.

Facts from the vendors' source code and from recordings of running servers.
"""

from base64 import b64decode, b64encode
from bisect import bisect_right
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode

from analytics_pipeline.demo.apis import V1, GlitchTip, Page, Query, Sentry, seconds
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.demo.rows import Row
from analytics_pipeline.demo.server import Refusal, refused

WHOLE: Row = {
    "_meta": {"tags": {"0": {"value": {"": {"rem": [["@ip:replace", "s", 0, 4]]}}}}},
    "groupingConfig": {"id": "newstyle:2023-01-11", "enhancements": "demo"},
    "measurements": {"lcp": {"value": 2150.5, "unit": "millisecond"}},
    "breakdowns": {"span_ops": {"ops.db": {"value": 81.25, "unit": "millisecond"}}},
}
"""Further fields of Sentry's whole events, besides startTimestamp and endTimestamp."""


class RealSentry(Sentry):
    retention_days: int | None = 90
    ignores_time = False
    """`start` and `end` have no effect, as on self-hosted servers before August 2025."""
    full_page_size = 10
    """Rows in a page of whole events; 100 on older servers."""
    invalid_range = False
    """A span before retention is answered with 400, not 500."""
    teamless = False
    """Whether the token's user is not in any team."""

    def __init__(self) -> None:
        self.projects: Collection[str] = ()
        """The slugs that exist."""
        self.recent: dict[str, Row] = {}
        """Issue → its 90-day figures, if the totals differ."""

    def select(self, table: str, rows: list[Row], query: Query) -> list[Row]:
        if table == "events":
            return self._events(rows, query)
        if table == "projects":
            return rows
        # Without project=-1 only projects of the user's teams are searched.
        if self.teamless or query.get("project") != "-1":
            raise Refusal(json_response(200, []))
        if table == "releases":
            is_all = query.get("status") == ""
            return [row for row in rows if is_all or row["status"] != "archived"]
        name, _, value = query.get("query", "is:unresolved").partition(":")
        oldest = _ago(90)
        rows = [row for row in rows if seconds(row["lastSeen"]) >= oldest]
        if name == "project" and value not in self.projects:
            raise refused(
                400,
                f"Invalid query. Project(s) {value} do not exist or are not actively"
                " selected.",
            )
        if query.keys() & {"start", "end"}:
            raise refused(400, "a window would change the counts: do not send it")
        if name == "is":
            return [row for row in rows if row["status"] == value]
        return super().select(table, rows, query) if name else rows

    def _events(self, rows: list[Row], query: Query) -> list[Row]:
        oldest = 0.0 if self.retention_days is None else _ago(self.retention_days)
        if query.keys() & {"start", "end"} and not self.ignores_time:
            try:
                start, end = (
                    datetime.fromisoformat(query[name]) for name in ("start", "end")
                )
            except (KeyError, ValueError):
                raise refused(400, "start and end must both be ISO dates") from None
            if start.tzinfo or end.tzinfo or start >= end:
                raise refused(400, "start must be before end, both without a zone")
            if end.replace(tzinfo=UTC).timestamp() <= oldest:
                if self.invalid_range:
                    detail = "Invalid date range. Please try a more recent date range."
                    raise refused(400, detail)
                raise refused(500, "Internal Error")
            rows = super().select("events", rows, query)
        return [row for row in rows if seconds(row["dateCreated"]) >= oldest]

    def size(self, table: str, query: Query) -> int:
        if table == "events":
            return self.full_page_size if query.get("full") == "true" else 100
        return min(int(query.get("limit") or query.get("per_page") or 100), 100)

    def page(self, table: str, rows: list[Row], cursor: str | None, size: int) -> Page:
        """A cursor of issues is a time in milliseconds and an offset from it."""
        if table != "issues":
            return super().page(table, rows, cursor, size)
        times = [int(seconds(row["lastSeen"]) * 1000) for row in rows]
        after, offset = map(int, (cursor or "0:0:0").split(":")[:2])
        start = offset + (sum(time > after for time in times) if after else 0)
        end = start + size

        def cursor_at(place: int) -> str:
            if place >= len(times):
                return "0:0:0"
            return f"{times[place]}:{place - times.index(times[place])}:0"

        before = (start > 0, cursor_at(max(start - size, 0)))
        return Page(rows[start:end], before, (end < len(rows), cursor_at(end)))

    def shown(self, table: str, row: Row, query: Query) -> Row:
        missing: set[str] = set()
        if table == "events":
            if query.get("full") != "true":
                return super().shown(table, row, query)
            time = seconds(row["dateCreated"])
            row = row | WHOLE | {"startTimestamp": time - 0.25, "endTimestamp": time}
            missing = {"event.type"}
            if int(row["id"][-8:], 16) % 50 == 0:  # dateCreated may be missing
                missing.add("dateCreated")
        elif table == "projects":
            missing = {"avatar", "color", "isInternal", "isPublic", "organization"}
        elif table == "issues":
            names = ("count", "userCount", "firstSeen", "lastSeen")
            row = row | {"lifetime": {name: row[name] for name in names}}
            row |= self.recent.get(row["id"], {})
            missing = {*query.get("collapse", "").split(",")}
            if "stats" in missing:
                missing |= {"lifetime", "filtered"}
            if query.get("groupStatsPeriod") == "":
                missing.add("stats")
        return {name: value for name, value in row.items() if name not in missing}


class RealGlitchTip(GlitchTip):
    unknown_is_empty: Collection[tuple[str, str]] = {
        ("events", "project"),
        ("events", "organization"),
        ("issues", "project"),
        ("projects", "organization"),
        ("releases", "organization"),
    }
    """Lists that are empty, rather than 404, for an unknown name in the path."""

    def select(self, table: str, rows: list[Row], query: Query) -> list[Row]:
        if table == "issues" and "sort" in query:
            message = "Input should be '-last_seen' or '-created'"
            raise refused(422, [{"loc": ["query", "sort"], "msg": message}])
        return super().select(table, rows, query)

    def size(self, table: str, query: Query) -> int:
        return min(int(query.get("limit", "50")), 100)

    def page(self, table: str, rows: list[Row], cursor: str | None, size: int) -> Page:
        """A cursor is the last row's sort value, and an offset among equal ones.

        The offset counts to 100 only: with more equal rows the cursor repeats for ever.
        """

        def value(row: Row) -> str:
            text: str = row[self.order[table]]
            return text if self.order[table] == "slug" else _time(text)

        def rank(row: Row) -> Any:
            return self.rank(table, value(row))

        parts = dict(parse_qsl(b64decode(cursor or "", validate=True).decode("ascii")))
        offset = min(int(parts.get("o", "0")), 100)
        if "p" in parts:
            rows = rows[bisect_right(rows, self.rank(table, parts["p"]), key=rank) :]
        seen, behind = rows[: offset + size], rows[offset + size :]
        page = seen[offset:]
        before = {"r": "1", "p": value(page[0])} if cursor and page else {}
        after: dict[str, str] = {}
        if behind:
            tied = sum(rank(row) == rank(behind[0]) for row in seen)
            after = {"o": str(tied)} if tied else {}
            if tied < len(seen):
                after["p"] = value(seen[-1 - tied])
            elif "p" in parts:
                after["p"] = parts["p"]
        return Page(
            page, (bool(before), _encode(before)), (bool(after), _encode(after))
        )

    def shown(self, table: str, row: Row, query: Query) -> Row:
        """GlitchTip does not compute all figures of issues."""
        unknown = {"userCount": 0, "stats": {"24h": []}}
        return row | unknown if table == "issues" else row


def _ago(days: int) -> float:
    return (datetime.now(UTC) - timedelta(days=days)).timestamp()


def _time(text: str) -> str:
    return str(datetime.fromisoformat(text))


def _encode(parts: dict[str, str]) -> str | None:
    return b64encode(urlencode(parts).encode()).decode() or None


REAL_APIS: Mapping[str, type[V1]] = {
    "v1": V1,
    "sentry": RealSentry,
    "glitchtip": RealGlitchTip,
}
