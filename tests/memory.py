"""A server and a warehouse in memory, for fast tests of readers.

The package's own client asks the server through a session that sends nothing. What a
reader yields is stored as by dlt: rows and bookmarks together at the end of a load, or
neither.
"""

import json
import random
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import requests

from analytics_pipeline.client.client import Client, ListName
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.client.page import http_error
from analytics_pipeline.client.retry import RequestStats
from analytics_pipeline.errors import ApiError
from analytics_pipeline.reading import Extent, ListReader
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.rows import RowBuilder
from analytics_pipeline.workers import Budget, side_by_side

Row = dict[str, Any]
HOUR = timedelta(hours=1)
NOW = datetime.now(UTC).replace(microsecond=0) - 2 * HOUR
"""The time of the newest rows by default."""


def ago(minutes: float) -> datetime:
    return NOW - timedelta(minutes=minutes)


def event(number: int, minutes: float, **fields: Any) -> Row:
    """Return an event from this many minutes before `NOW`."""
    time = ago(minutes).isoformat()
    return {
        "id": f"e{number}",
        "eventID": f"e{number}",
        "projectID": "1",
        "dateCreated": time,
        "dateReceived": time,
    } | fields


def events(count: int, every: float = 90, start: int = 0) -> list[Row]:
    """Return events at an interval of `every` minutes, newest first."""
    return [event(start + n, n * every) for n in range(count)]


def issue(number: int, minutes: float, **fields: Any) -> Row:
    """Return an issue last seen this many minutes before `NOW`."""
    return {
        "id": f"i{number}",
        "project": {"id": "1", "slug": "web"},
        "status": "unresolved",
        "lastSeen": ago(minutes).isoformat(),
    } | fields


@dataclass
class Request:
    table: str
    project: str
    params: Mapping[str, str]


class Session:
    """Answers like one of the servers, from lists that a test may change.

    `lists` is (table, project) → rows, which are sent newest first or in the order that
    `order` returns. The server uses the `_time` of a row, if any, but does not send it.
    """

    def __init__(self, api: str = "v1", page_size: int = 20) -> None:
        self.limiter = SimpleNamespace(waited=0.0)
        self.lists: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self.requests: list[Request] = []
        self.page_size = page_size
        self.before: Callable[[Request], int | None] = lambda request: None
        """Called with each request; if it returns a status, the request is refused."""
        self.after: Callable[[Request], object] = lambda request: None
        """Called when an answer is ready."""
        self.order: Callable[[list[Row]], list[Row]] | None = None
        self.date: Callable[[], datetime] = lambda: datetime.now(UTC)
        self.ignores_time = False
        self.kept_from: datetime | None = None
        """Sentry refuses windows that end before this time."""
        self._spec = APIS[api]
        self._api = api

    def forget_outage(self) -> None:
        """Do nothing."""

    def client(self) -> Client:
        session: Any = self
        return Client(session, self._spec, "acme")

    def get(
        self, path: str, params: Mapping[str, str], stats: RequestStats, **options: Any
    ) -> requests.Response:
        stats.count(requests=1)
        request = Request(*self._route(path, params), params)
        self.requests.append(request)
        status = self.before(request)
        response = self._answer(request) if status is None else _refusal(status)
        response.url = f"http://memory{path}"
        response.headers["Date"] = format_datetime(self.date(), usegmt=True)
        self.after(request)
        if response.status_code >= 300:
            raise http_error(response)
        return response

    def asked(self, table: str = "events") -> int:
        return sum(request.table == table for request in self.requests)

    def _route(self, path: str, params: Mapping[str, str]) -> tuple[str, str]:
        words = path.removeprefix(self._spec.prefix).strip("/").split("/")
        if words[0] == "projects" and len(words) == 4:
            return words[3], words[2]
        if words[0] == "projects" and len(words) == 3:
            return "project_detail", words[2]
        if words[-1] == "issues" and "query" in params:
            return "issues", params["query"].removeprefix("project:")
        if words[-1] == "issues":
            slugs = [slug for table, slug in self.lists if table == "issues"]
            ids = {self._detail(slug)["id"]: slug for slug in slugs}
            return "issues", ids[params["project"]]
        return words[-1], ""

    def _answer(self, request: Request) -> requests.Response:
        table, project, params = request.table, request.project, request.params
        rows = self.lists[table, project]
        if table == "project_detail":
            return self._response(self._detail(project))
        key = self._spec.endpoints[table].replication_key

        def time(row: Row) -> datetime:
            shown = row.get("_time") or row.get(key)
            return (
                datetime.fromisoformat(shown)
                if shown
                else datetime.min.replace(tzinfo=UTC)
            )

        if self.order is not None:
            rows = self.order(rows)
        else:
            rows = sorted(rows, key=time, reverse=True)
        if "start" in params and not self.ignores_time:
            low, high = (
                datetime.fromisoformat(params[name]).replace(tzinfo=UTC)
                for name in ("start", "end")
            )
            assert low < high
            if self.kept_from:
                if high <= self.kept_from:
                    return _refusal(500)
                low = max(low, self.kept_from)
            rows = [row for row in rows if low <= time(row) < high]
        elif self._api == "sentry" and table == "events" and self.kept_from:
            rows = [row for row in rows if time(row) >= self.kept_from]
        by_position = self._api == "glitchtip" or table == "issues" != self._api
        by_position = by_position and self._api != "v1"
        first = 0
        if "cursor" in params:
            word, _, number = params["cursor"].rpartition(":")
            first = int(number)
            if word:
                last = datetime.fromisoformat(word)
                first += sum(time(row) >= last for row in rows)
        end = first + self.page_size
        page, more = rows[first:end], end < len(rows)
        cursor = str(end)
        if by_position and more:
            # Behind the last row whose time differs from the next page's first row.
            following = time(rows[end])
            above = [time(row) for row in rows[:end] if time(row) > following]
            tied = sum(time(row) == following for row in rows[:end])
            cursor = f"{min(above).isoformat() if above else ''}:{tied}"
        if any("_broken" in row for row in page):  # cannot be serialized
            return _refusal(500)
        shown = [{k: v for k, v in row.items() if k != "_time"} for row in page]
        link = '<http://memory/>; rel="next"; results="{}"; cursor="{}"'
        return self._response(shown, link.format("true" if more else "false", cursor))

    def _detail(self, project: str) -> Row:
        rows = self.lists["project_detail", project]
        return rows[0] if rows else {"id": "1", "slug": project}

    def _response(self, body: Any, link: str = "") -> requests.Response:
        envelope = self._spec.envelope
        response = requests.Response()
        response.status_code = 200
        response._content = json.dumps({envelope: body} if envelope else body).encode()
        response.headers["Content-Type"] = "application/json"
        if link:
            response.headers["Link"] = link
        return response


def _refusal(status: int) -> requests.Response:
    response = requests.Response()
    response.status_code = status
    response._content = b'{"detail": "Internal Error"}'
    return response


class Killed(Exception):
    """A load ended before dlt had stored any of it."""


@dataclass
class Warehouse:
    """The rows and bookmarks of one table, loaded from a session."""

    session: Session
    table: str = "events"
    rows: dict[str, Row] = field(default_factory=dict)
    """Key → its row."""
    bookmarks: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Project → bookmark."""
    errors: dict[str, ApiError] = field(default_factory=dict)
    """Project → the error of its list in the last run."""
    loads: int = 0
    """Number of loads of the last run."""
    sizes: dict[str, int] = field(default_factory=dict)
    """Project → rows that were new, in the last run."""
    reread: dict[str, int] = field(default_factory=dict)
    """Project → rows that were known, in the last run."""
    client: Client | None = None

    def __post_init__(self) -> None:
        self.client = self.session.client()

    def run(
        self,
        projects: list[str] | None = None,
        *,
        rows_per_load: int | None = None,
        workers: int = 1,
        kill: Callable[[int], bool] = lambda parts: False,
        loads: int = 1000,
        **extent: Any,
    ) -> int:
        """Load as `runner.load` does, in as many loads as are needed.

        `kill` is called after each part and returns whether the process dies.

        Returns:
            The number of requests for the table.
        """
        assert self.client
        before = self.session.asked(self.table)
        self.errors, self.loads, self.sizes, self.reread = {}, 0, {}, {}
        client = self.client
        client.forget_answers()
        done: set[str] = set()
        began_at = datetime.now(UTC)
        bounded: dict[str, dict[str, Any]] = {}
        stored = bounded if extent.get("until") else self.bookmarks
        names = projects or ["web"]
        while self.loads < loads and done < set(names):
            self.loads += 1
            readers = [
                ListReader(
                    client,
                    ListName(client.spec.endpoints[self.table], name),
                    stored.get(name, {}),
                    Extent(**extent),
                    RowBuilder(TABLES, Redactor([])),
                    began_at,
                )
                for name in names
                if name not in done
            ]
            rows: dict[str, Row] = {}
            states: dict[str, dict[str, Any]] = {}
            parts = 0
            for reader, outcome in side_by_side(
                readers, workers, Budget(rows_per_load), client
            ):
                name = reader.name.project
                if outcome is None:
                    done.add(name)
                elif isinstance(outcome, ApiError):
                    done.add(name)
                    self.errors[name] = outcome
                else:
                    states[name] = json.loads(json.dumps(outcome.bookmark))
                    if outcome.rows is not None:
                        rows |= {row["id"]: row for row in outcome.rows.to_pylist()}
                    parts += 1
                    if kill(parts):
                        raise Killed
            for reader in readers:
                name = reader.name.project
                self.sizes[name] = self.sizes.get(name, 0) + reader.stats.rows
                self.reread[name] = self.reread.get(name, 0) + reader.stats.reread
            self.rows |= rows
            stored |= states
        return self.session.asked(self.table) - before

    @property
    def ids(self) -> set[str]:
        return set(self.rows)

    def served(self, *projects: str) -> set[str]:
        lists = [self.session.lists[self.table, name] for name in projects or ["web"]]
        return {row["id"] for rows in lists for row in rows}


def shuffled(seed: int) -> Callable[[list[Row]], list[Row]]:
    """Return a random order that is the same for each request."""

    def order(rows: list[Row]) -> list[Row]:
        return sorted(
            rows, key=lambda row: random.Random(f"{seed}{row['id']}").random()
        )

    return order


def oldest_first(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: str(row.get("lastSeen") or row["dateCreated"]))
