"""The built-in API server of the `demo` command and of the tests.

It pages over a real socket as v1, Sentry or GlitchTip does, can be told to fail, and
records what it was asked. Its rows are made up, the same for the same seed and time.
"""

import math
import re
import threading
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Self
from urllib.parse import urlencode

from analytics_pipeline.demo.data import DemoData
from analytics_pipeline.demo.dialects import DIALECTS, Refusal
from analytics_pipeline.demo.http import (
    Fault,
    HttpServer,
    Plan,
    Request,
    Response,
    json_response,
)
from analytics_pipeline.demo.rows import Row

__all__ = ["DemoServer", "Fault", "Request", "Response"]


class DemoServer:
    """A fake API server on 127.0.0.1, running inside `with DemoServer() as server:`.

    `events`, `issues` and `releases` are totals, of which the first project has most.
    The events are of the 30 days before `now`, the time of the newest one. The stack
    trace is one object for all events of an issue.
    `page_size` makes pages shorter than the server's own; `latency` is in seconds.
    With `rate_limit`, so many requests for events are answered in each window of
    `rate_window` seconds of `clock`, and with `concurrent_limit` so many at a time.
    """

    url: str  # the base_url to give to a client, known once it runs
    requests: list[Request]  # all so far, in the order of arrival
    statuses: list[tuple[Request, int]]  # how each was answered; 0: not at all

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
        latency: float = 0.0,
        rate_limit: int | None = None,
        rate_window: float = 60.0,
        concurrent_limit: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.requests = []
        self.statuses = []
        self._plans: list[Plan] = []
        self._dialect = DIALECTS[api]
        self._organization = organization
        self._page_size = page_size
        self._authorization = f"Bearer {token}"
        self._latency = latency
        self._rate_limit = rate_limit
        self._rate_window = rate_window
        self._concurrent_limit = concurrent_limit
        self._clock = clock
        self._window = 0  # the number of the rate window
        self._used = 0  # requests for events in it
        self._busy = 0  # requests for events being answered
        self._lock = threading.Lock()
        now = (now or datetime.now(UTC)).astimezone(UTC)
        self._data = DemoData(api, organization, seed, now)
        for n, slug in enumerate(projects):
            self._data.add_project(slug, now - timedelta(days=90 - n))
        self._data.settle(projects, events=events, issues=issues, releases=releases)

    def __enter__(self) -> Self:
        self._http = HttpServer(self._answer, self.requests, self.statuses, self._plans)
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

    def fail(
        self, fault: Fault, *, on: str = "", times: int = 1, after: int = 0
    ) -> None:
        """Spoil requests whose decoded path and query, `path?query`, contain `on`.

        After letting `after` of them through, the next `times` get the fault: a status
        with the body `{"detail": …}`, or a function. The function is given the handler
        and the good answer, and returns another one, or None when it has dealt with
        the socket itself; the connection is then closed.
        """
        self._plans.append(Plan(fault, on, times, after))

    def mend(self) -> None:
        """Forget what is left of the faults."""
        self._plans.clear()

    def _answer(self, request: Request) -> Response:
        limited = request.path.endswith("/events/")
        with self._lock:
            self._busy += limited
            headers, room = self._limits(limited)
        try:
            time.sleep(self._latency)
            if not room:
                raise Refusal(429, "You are attempting to use this endpoint too often")
            with self._lock:
                response = self._look_up(request)
        except Refusal as refusal:
            response = json_response(
                refusal.status, {"detail": refusal.detail}, refusal.headers
            )
        finally:
            with self._lock:
                self._busy -= limited
        response.headers |= headers
        return response

    def _limits(self, limited: bool) -> tuple[dict[str, str], bool]:
        """The headers that tell the limits, and whether they leave room for this one.

        Only requests for events are limited; the others are told that all is free.
        """
        window = math.floor(self._clock() / self._rate_window)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += limited
        used, busy = (self._used, self._busy) if limited else (0, 0)
        most = self._rate_limit or used
        at_a_time = self._concurrent_limit or max(most, busy)
        room = used <= most and busy <= at_a_time
        if self._rate_limit is None:
            return {}, room
        told = {
            "Limit": most,
            "Remaining": max(most - used, 0),
            "Reset": math.ceil((window + 1) * self._rate_window),
            "ConcurrentLimit": at_a_time,
            "ConcurrentRemaining": max(at_a_time - busy, 0),
        }
        return {f"X-Sentry-Rate-Limit-{k}": str(v) for k, v in told.items()}, room

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
        for pattern, table in dialect.routes.items():
            if match := re.fullmatch(pattern, path):
                break
        else:
            raise Refusal(404, "Not Found")
        names = match.groupdict()
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

    def _link(self, request: Request, rel: str, more: bool, cursor: str | None) -> str:
        """One entry of the Link header; without a cursor it names the page itself."""
        query = request.query if cursor is None else request.query | {"cursor": cursor}
        text = urlencode(dict(sorted(query.items())), safe=":")
        url = f"{self._dialect.link_host or self.url}{request.path}" + "?" * bool(text)
        shown = "" if cursor is None else f'; cursor="{cursor}"'
        results = "true" if more else "false"
        return f'<{url}{text}>; rel="{rel}"; results="{results}"{shown}'
