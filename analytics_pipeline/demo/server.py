"""The demo server: it pages over a real socket as v1, Sentry or GlitchTip does.

Its rows are made up, the same for the same seed and time.
"""

import re
import threading
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Self
from urllib.parse import urlencode

from analytics_pipeline.demo.data import DemoData, rank
from analytics_pipeline.demo.dialects import DIALECTS, Refusal
from analytics_pipeline.demo.http import (
    HttpServer,
    Request,
    Response,
    html_response,
    json_response,
)
from analytics_pipeline.demo.rows import Row


class DemoServer:
    """A fake API server on 127.0.0.1, running inside `with DemoServer() as server:`.

    `events`, `issues` and `releases` are totals, of which the first project has most.
    The events are of the 30 days before `now`, the time of the newest one. The stack
    trace is one object for all events of an issue.
    `page_size` makes pages shorter than the server's own. `other_organizations`
    (organization → slugs) adds projects to the list of all projects.

    Only for Sentry: events older than `retention_days` are not listed, and an issue
    search without `project=-1` covers the projects in `member_of`; None is all.
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
        retention_days: int | None = 90,
        member_of: Collection[str] | None = None,
        other_organizations: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.requests = []
        self._dialect = DIALECTS[api]
        self._organization = organization
        self._page_size = page_size
        self._authorization = f"Bearer {token}"
        self._lock = threading.Lock()
        now = (now or datetime.now(UTC)).astimezone(UTC)
        kept = None if retention_days is None else timedelta(days=retention_days)
        self._data = DemoData(api, organization, seed, now, kept, member_of)
        for n, slug in enumerate(projects):
            self._data.add_project(slug, now - timedelta(days=90 - n))
        self._data.add_foreign_projects(other_organizations or {}, now)
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
        after changing the date of an event. Sentry's answers have fewer fields in some
        lists, more in whole events, and other figures of issues: see `age`.
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

    def rename(self, old: str, new: str) -> None:
        """Give a project another slug; a Sentry redirects from the old one."""
        with self._lock:
            self._data.rename(old, new)

    def age(
        self, issue_id: str, *, first_seen: str, count: int, users: int = 0
    ) -> None:
        """Let an issue be older: `count` events of `users` others, since `first_seen`.

        They add to the totals in `rows("issues")`. Sentry's list has them in `lifetime`
        only: what stands beside it is of the last 90 days.
        """
        with self._lock:
            issues = self._data.rows("issues")
            issue = next(row for row in issues if row["id"] == issue_id)
            self._data.age(issue, first_seen, count, users)

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
            if isinstance(refusal.detail, bytes):
                return html_response(refusal.status, refusal.detail)
            detail = {"detail": refusal.detail}
            return json_response(refusal.status, detail, refusal.headers)

    def _look_up(self, request: Request) -> Response:
        dialect, query, data = self._dialect, request.query, self._data
        table, names = self._route(request)
        project, unknown = names.get("project"), self._unknown(names)
        if dialect.redirects and unknown == "project" and project in data.renamed:
            return self._moved(request, project)
        if unknown and (table, unknown) not in dialect.tolerant:
            raise Refusal(404, "Not Found")
        rows = [] if unknown else data.rows(table, project)
        if table == "project_detail":
            return json_response(200, dialect.wrap(rows[0]))
        order = data.order(table)
        if table == "projects" and not names and data.foreign_projects:
            rows = sorted(rows + data.foreign_projects, key=rank(order))
        if table in dialect.select:
            selected = dialect.select[table](rows, query, data)
            if selected is None:
                return json_response(200, dialect.wrap([]))
            rows = selected
        size = min(self._page_size, dialect.size(table, query))
        page = dialect.page(rows, query.get("cursor"), size, order)
        view = dialect.view.get(table)
        body = [view(row, query, data) for row in page.rows] if view else page.rows
        link = dialect.link.format(
            self._link(request, "previous", *page.previous),
            self._link(request, "next", *page.next),
        )
        return json_response(200, dialect.wrap(body), {"Link": link})

    def _route(self, request: Request) -> tuple[str, dict[str, str]]:
        """Return the table whose list is at this path, and the slugs in the path."""
        dialect, path = self._dialect, request.path
        is_api = path.startswith(dialect.prefix) and path.endswith("/")
        if dialect.web_page and not is_api:
            raise Refusal(200, dialect.web_page)
        if request.headers.get("authorization") != self._authorization:
            raise Refusal(401, "Unauthorized")
        if path in dialect.withdrawn:
            successor = dialect.withdrawn[path].format(self._organization)
            headers = {"X-Sentry-Replacement-Endpoint": successor}
            raise Refusal(410, "This API no longer exists.", headers)
        for pattern, table in dialect.routes.items():
            if match := re.fullmatch(dialect.prefix + pattern, path):
                return table, match.groupdict()
        raise Refusal(404, dialect.not_found)

    def _unknown(self, names: dict[str, str]) -> str | None:
        """Return which of the slugs in a path is unknown, if one is."""
        if names.get("organization", self._organization) != self._organization:
            return "organization"
        known = names.get("project") in {None, *self._data.projects}
        return None if known else "project"

    def _moved(self, request: Request, slug: str) -> Response:
        """Redirect to the same path of the project's new slug."""
        new = self._data.renamed[slug]
        path = request.path.replace(
            f"/{self._organization}/{slug}/", f"/{self._organization}/{new}/"
        )
        url = f"{path}?{urlencode(request.query)}" if request.query else path
        return json_response(
            302,
            {
                "slug": new,
                "detail": {
                    "code": "resource-moved",
                    "message": "Resource has been moved",
                    "extra": {"url": url, "slug": new},
                },
            },
            {"Location": url},
        )

    def _link(self, request: Request, rel: str, more: bool, cursor: str | None) -> str:
        """One entry of the Link header; without a cursor it names the page itself."""
        query = request.query if cursor is None else request.query | {"cursor": cursor}
        text = urlencode(dict(sorted(query.items())), safe=":")
        url = f"{self._dialect.link_host or self.url}{request.path}" + "?" * bool(text)
        shown = "" if cursor is None else f'; cursor="{cursor}"'
        results = "true" if more else "false"
        return f'<{url}{text}>; rel="{rel}"; results="{results}"{shown}'
