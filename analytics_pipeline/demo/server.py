"""A server that pages over a real socket as v1, Sentry or GlitchTip does."""

import re
import threading
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, Self
from urllib.parse import urlencode

from analytics_pipeline.demo.apis import APIS, V1
from analytics_pipeline.demo.data import DemoData
from analytics_pipeline.demo.http import HttpServer, Request, Response, json_response
from analytics_pipeline.demo.rows import Row


class Refusal(Exception):
    """The request is answered with `response` instead of rows."""

    def __init__(self, response: Response) -> None:
        super().__init__(response)
        self.response = response


def refused(status: int, detail: Any) -> Refusal:
    """Return a refusal whose body gives the reason."""
    return Refusal(json_response(status, {"detail": detail}))


class DemoServer:
    """A fake API server on 127.0.0.1, which runs inside `with DemoServer() as server:`.

    Args:
        api: `v1`, `sentry` or `glitchtip`.
        organization: its slug.
        projects: their slugs.
        events: number of events, most of them in the first project, and all within the
            30 days before `now`.
        issues: number of issues.
        releases: number of releases.
        page_size: maximum number of rows of a page; the API may have a lower one.
        token: the only accepted token.
        seed: a different seed gives different rows.
        now: time of the newest event; by default the current time.
    """

    apis: Mapping[str, type[V1]] = APIS
    url: str
    """The `base_url` for a client, known once the server runs."""
    requests: list[Request]
    """All requests so far, in the order of arrival."""

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
        self._api = self.apis[api]()
        self._organization = organization
        self._page_size = page_size
        self._authorization = f"Bearer {token}"
        self._lock = threading.Lock()
        now = (now or datetime.now(UTC)).astimezone(UTC)
        self._data = DemoData(self._api, organization, seed, now)
        for n, slug in enumerate(projects):
            self._data.add_project(slug, now - timedelta(days=90 - n))
        self._data.add_past(projects, events=events, issues=issues, releases=releases)

    def __enter__(self) -> Self:
        self._http = HttpServer(self.respond, self.requests)
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        self._http.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.stop()

    def rows(self, table: str, project: str | None = None) -> list[Row]:
        """Return the rows of a table, of one project or all, in the order of the list.

        Responses show changes that are made to these rows.
        """
        with self._lock:
            return self._data.rows(table, project)

    def grow(
        self,
        *,
        events: int = 0,
        issues: int = 0,
        releases: int = 0,
        seconds: float = 60.0,
    ) -> None:
        """Let `seconds` (at least 1) pass and add rows that are newer than all others.

        The new events belong to issues, old and new, whose counts and dates change.
        """
        with self._lock:
            self._data.grow(seconds, events, issues, releases)

    def respond(
        self, request: Request, handler: BaseHTTPRequestHandler
    ) -> Response | None:
        """Return the response; subclasses may write to the handler and return None."""
        return self.answer(request)

    def answer(self, request: Request) -> Response:
        """Return a page of a list, the detail of a project, or a refusal."""
        try:
            with self._lock:
                return self._answer(request)
        except Refusal as refusal:
            return refusal.response

    def _answer(self, request: Request) -> Response:
        api, query = self._api, request.query
        if request.headers.get("authorization") != self._authorization:
            raise refused(401, "Unauthorized")
        table, names = self._route(request.path)
        rows = self._find(table, names)
        if table == "project_detail":
            return self._page(rows[0])
        rows = api.select(table, rows, query)
        size = min(self._page_size, api.size(table, query))
        page = api.page(table, rows, query.get("cursor"), size)
        link = api.link.format(
            self._link(request, "previous", *page.previous),
            self._link(request, "next", *page.next),
        )
        body = [api.shown(table, row, query) for row in page.rows]
        return self._page(body, {"Link": link})

    def _page(self, body: Any, headers: dict[str, str] | None = None) -> Response:
        body = {"data": body} if self._api.has_envelope else body
        return json_response(200, body, headers)

    def _route(self, path: str) -> tuple[str, dict[str, str]]:
        """Return the table whose list is at this path, and the slugs in the path."""
        for pattern, table in self._api.paths.items():
            if match := re.fullmatch(self._api.prefix + pattern, path):
                return table, match.groupdict()
        raise refused(404, "Not Found")

    def _find(self, table: str, names: dict[str, str]) -> list[Row]:
        """Return the rows of a project or the organization."""
        project = names.get("project")
        if names.get("organization", self._organization) != self._organization:
            raise refused(404, "Not Found")
        if project is not None and project not in self._data.projects:
            raise refused(404, "Not Found")
        return self._data.rows(table, project)

    def _link(self, request: Request, rel: str, more: bool, cursor: str | None) -> str:
        """Return an entry of the Link header; without a cursor, for the same page."""
        query = request.query | ({"cursor": cursor} if cursor else {})
        text = urlencode(dict(sorted(query.items())), safe=":")
        url = f"{self.url}{request.path}" + "?" * bool(text)
        shown = f'; cursor="{cursor}"' if cursor else ""
        return f'<{url}{text}>; rel="{rel}"; results="{str(more).lower()}"{shown}'
