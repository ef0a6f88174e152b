"""The demo server: it pages over a real socket as v1, Sentry or GlitchTip does.

Its rows are made up, the same for the same seed and time.
"""

import re
import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Self
from urllib.parse import urlencode

from analytics_pipeline.demo.data import DemoData
from analytics_pipeline.demo.dialects import DIALECTS, Refusal
from analytics_pipeline.demo.http import HttpServer, Request, Response, json_response
from analytics_pipeline.demo.rows import Row


class DemoServer:
    """A fake API server on 127.0.0.1, running inside `with DemoServer() as server:`.

    `events`, `issues` and `releases` are totals, of which the first project has most.
    The events are of the 30 days before `now`, the time of the newest one. The stack
    trace is one object for all events of an issue.
    `page_size` makes pages shorter than the server's own.
    """

    url: str  # the base_url to give to a client, known once it runs
    requests: list[Request]  # all so far, in the order of arrival

    def __init__(
        self,
        api: str = "v1",
        *,
        organization: str = "acme",
        projects: Sequence[str] = ("frontend", "backend"),
        events: int = 3000,
        issues: int = 300,
        releases: int = 40,
        page_size: int = 100,
        token: str = "demo-token",
        seed: int = 7,
        now: datetime | None = None,
    ) -> None:
        self.requests = []
        self._dialect = DIALECTS[api]
        self._organization = organization
        self._page_size = page_size
        self._authorization = f"Bearer {token}"
        self._lock = threading.Lock()
        now = (now or datetime.now(UTC)).astimezone(UTC)
        self._data = DemoData(api, organization, seed, now)
        for n, slug in enumerate(projects):
            self._data.add_project(slug, now - timedelta(days=90 - n))
        self._data.settle(projects, events=events, issues=issues, releases=releases)

    def __enter__(self) -> Self:
        self._http = HttpServer(self.respond, self.requests)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._http.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.stop()

    def rows(self, table: str, project: str | None = None) -> list[Row]:
        """All rows of a table in the order of its list, of one project or of all.

        The rows are live: a change to one shows in the next answer. Call `touch`
        after changing the date of an event. Sentry's short events have fewer fields.
        """
        with self._lock:
            return list(self._data.rows(table, project))

    def insert(self, table: str, project: str, row: Row) -> None:
        """Add a row, in its place by its date."""
        with self._lock:
            self._data.held(table, project).append(row)
            self._data.sort_events()

    def remove(self, table: str, project: str, row: Row) -> None:
        """Forget a row, as servers do with old ones."""
        with self._lock:
            self._data.held(table, project).remove(row)

    def touch(self) -> None:
        """Put the events in order again, after the dates of some were changed."""
        with self._lock:
            self._data.sort_events()

    def grow(
        self,
        *,
        events: int = 0,
        issues: int = 0,
        releases: int = 0,
        seconds: float = 60.0,
    ) -> None:
        """Let `seconds` (at least 1) pass and add rows newer than all present.

        The new events belong to issues, old and new, whose counts and dates change.
        """
        with self._lock:
            self._data.grow(seconds, events, issues, releases)

    def add_project(self, slug: str, *, events: int = 0, issues: int = 0) -> None:
        """Add a project as of now, with events of the 30 days before."""
        with self._lock:
            self._data.add_project(slug, self._data.now)
            self._data.settle([slug], events=events, issues=issues)

    def respond(
        self, request: Request, handler: BaseHTTPRequestHandler
    ) -> Response | None:
        """Return what to send to the client, for subclasses to override.

        None means that the override has used the handler's socket itself; the
        connection is then closed.
        """
        return self.answer(request)

    def answer(self, request: Request) -> Response:
        """Return what the vendor's server answers, refusals included."""
        try:
            with self._lock:
                return self._look_up(request)
        except Refusal as refusal:
            detail = {"detail": refusal.detail}
            return json_response(refusal.status, detail, refusal.headers)

    def _look_up(self, request: Request) -> Response:
        dialect, query, path = self._dialect, request.query, request.path
        if request.headers.get("authorization") != self._authorization:
            raise Refusal(401, "Unauthorized")
        if dialect.web_page and not path.endswith("/"):
            return Response(200, {"Content-Type": "text/html"}, dialect.web_page)
        if path in dialect.withdrawn:
            successor = dialect.withdrawn[path].format(self._organization)
            raise Refusal(
                410,
                "This API no longer exists.",
                {"X-Sentry-Replacement-Endpoint": successor},
            )
        table, names = self._route(path)
        project = names.get("project")
        known = names.get("organization", self._organization) == self._organization
        known = known and (project is None or project in self._data.projects)
        if not known and table not in dialect.tolerant:
            raise Refusal(404, "Not Found")
        rows = self._data.rows(table, project) if known else []
        if table == "project_detail":
            return json_response(200, dialect.wrap(rows[0]))
        if table in dialect.select:
            rows = dialect.select[table](rows, query, self._data)
        size = min(self._page_size, dialect.size(table, query))
        page = dialect.page(rows, query.get("cursor"), size, self._data.order(table))
        view = dialect.view.get(table)
        body = [view(row, query) for row in page.rows] if view else page.rows
        link = dialect.link.format(
            self._link(request, "previous", *page.previous),
            self._link(request, "next", *page.next),
        )
        return json_response(200, dialect.wrap(body), {"Link": link})

    def _route(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the table whose list is at this path, and the slugs in the path."""
        for pattern, table in self._dialect.routes.items():
            if match := re.fullmatch(pattern, path):
                return table, match.groupdict()
        raise Refusal(404, "Not Found")

    def _link(self, request: Request, rel: str, more: bool, cursor: str | None) -> str:
        """One entry of the Link header; without a cursor it names the page itself."""
        query = request.query if cursor is None else request.query | {"cursor": cursor}
        text = urlencode(dict(sorted(query.items())), safe=":")
        url = f"{self._dialect.link_host or self.url}{request.path}" + "?" * bool(text)
        shown = "" if cursor is None else f'; cursor="{cursor}"'
        results = "true" if more else "false"
        return f'<{url}{text}>; rel="{rel}"; results="{results}"{shown}'
