"""The demo server with the vendors' real habits, faults, rate limits and latency."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote_plus

from analytics_pipeline.demo import DemoServer, Request, Response
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.demo.rows import PROJECT, Row, fill
from analytics_pipeline.demo.server import Refusal
from tests.fake_apis import REAL_APIS, RealGlitchTip, RealSentry

Fault = int | Callable[[BaseHTTPRequestHandler, Response], Response | None]
TOO_FREQUENT = "You are attempting to use this endpoint too frequently."
TOO_CONCURRENT = (
    "You are attempting to go above the allowed concurrency for this endpoint."
)


@dataclass
class Plan:
    """A fault for `times` requests that contain `on`, after the first `after` of them."""

    fault: Fault
    on: str
    times: int
    after: int


class FakeServer(DemoServer):
    """A server with a vendor's habits that can be made to fail.

    Args:
        api: as of `DemoServer`.
        latency: seconds that each request takes.
        rate_limit: requests for events in each window; the headers of the limits are
            sent only if there is one.
        rate_window: seconds.
        concurrent_limit: requests for events at the same time.
        clock: returns the time of the windows.
        other_organizations: organization → slugs of projects that are also in the list
            of all projects.
        options: of `DemoServer`, or attributes of `RealSentry`.
    """

    apis = REAL_APIS
    statuses: list[tuple[Request, int]]
    """Each request and the status of its answer; 0: none."""

    def __init__(
        self,
        api: str = "v1",
        *,
        latency: float = 0.0,
        rate_limit: int | None = None,
        rate_window: float = 60.0,
        concurrent_limit: int | None = None,
        clock: Callable[[], float] = time.time,
        other_organizations: Mapping[str, Sequence[str]] | None = None,
        **options: Any,
    ) -> None:
        habits = {k: options.pop(k) for k in [*options] if hasattr(RealSentry, k)}
        super().__init__(api, **options)
        for name, value in habits.items():
            setattr(self._api, name, value)
        if isinstance(self._api, RealSentry):
            self._api.projects = self._data.projects
        self.statuses = []
        self._latency = latency
        self._limits = Limits(rate_limit, rate_window, concurrent_limit, clock)
        self._plans: list[Plan] = []
        self._plans_lock = threading.Lock()
        self._foreign = [
            self._project(organization, slug)
            for organization, slugs in (other_organizations or {}).items()
            for slug in slugs
        ]

    def _project(self, organization: str, slug: str) -> Row:
        return fill(
            PROJECT,
            **{"id": f"{organization}-{slug}", "slug": slug, "name": slug.title()},
            **{"organization": organization, "created": "2026-01-01T00:00:00Z"},
            **dict.fromkeys(("platform", "language"), "python"),
        )

    def insert(self, table: str, project: str, row: Row) -> None:
        """Add a row."""
        with self._lock:
            self._data.lists[table, project].append(row)

    def remove(self, table: str, project: str, row: Row) -> None:
        """Delete a row."""
        with self._lock:
            self._data.lists[table, project].remove(row)

    def add_project(self, slug: str) -> None:
        """Add an empty project."""
        with self._lock:
            self._data.add_project(slug, self._data.now)

    def age(self, issue_id: str, *, first_seen: str, count: int, users: int) -> None:
        """Add events older than the 90 days that Sentry's list of issues covers."""
        assert isinstance(self._api, RealSentry)
        issue = next(row for row in self.rows("issues") if row["id"] == issue_id)
        names = ("count", "userCount", "firstSeen")
        self._api.recent[issue_id] = {name: issue[name] for name in names}
        issue["count"] = str(int(issue["count"]) + count)
        issue["userCount"] += users
        issue["firstSeen"] = first_seen

    def answer(self, request: Request) -> Response:
        """As the base class, but refuse cursors that cannot be parsed."""
        try:
            return super().answer(request)
        except (ValueError, LookupError):
            status = 422 if isinstance(self._api, RealGlitchTip) else 400
            return json_response(status, {"detail": "Invalid cursor"})

    def _route(self, path: str) -> tuple[str, dict[str, str]]:
        """As the base class, but refuse with the vendor's web pages."""
        try:
            return super()._route(path)
        except Refusal:
            is_api = path.startswith(self._api.prefix) and path.endswith("/")
            if isinstance(self._api, RealGlitchTip) and not is_api:
                raise Refusal(html_response(200, "GlitchTip")) from None
            if isinstance(self._api, RealSentry):
                raise Refusal(html_response(404, "Page Not Found")) from None
            raise

    def _find(self, table: str, names: dict[str, str]) -> list[Row]:
        """As the base class, but with GlitchTip's empty lists and foreign projects."""
        try:
            rows = super()._find(table, names)
        except Refusal:
            known = names["organization"] == self._organization
            unknown = "project" if known else "organization"
            if (table, unknown) in getattr(self._api, "unknown_is_empty", ()):
                return []
            raise
        if table == "projects" and not names:
            return self._api.ordered(table, rows + self._foreign)
        return rows

    def _link(self, request: Request, rel: str, more: bool, cursor: str | None) -> str:
        """As the base class, but Sentry's links name a host that the client cannot reach."""
        link = super()._link(request, rel, more, cursor)
        if isinstance(self._api, RealSentry):
            return link.replace(self.url, "https://sentry.example.invalid")
        return link

    def fail(
        self, fault: Fault, *, on: str = "", times: int = 1, after: int = 0
    ) -> None:
        """Let requests fail whose `path?query`, decoded, contains `on`.

        Args:
            fault: a status, or a function of the handler and the good answer that returns
                another answer, or None if it has used the handler's socket itself.
            on: part of the request.
            times: how many requests fail.
            after: how many are answered before.
        """
        with self._plans_lock:
            self._plans.append(Plan(fault, on, times, after))

    def mend(self) -> None:
        """Forget the remaining faults."""
        with self._plans_lock:
            self._plans.clear()

    def respond(
        self, request: Request, handler: BaseHTTPRequestHandler
    ) -> Response | None:
        """Answer within the limits or with a planned fault, and record the status."""
        good = self._answer_within_limits(request)
        response = self._spoil(handler, good)
        self.statuses.append((request, response.status if response else 0))
        return response

    def _answer_within_limits(self, request: Request) -> Response:
        limited = request.path.endswith("/events/")
        with self._limits.entered(limited) as (headers, refusal):
            time.sleep(self._latency)
            if refusal:
                response = json_response(429, {"detail": refusal})
            else:
                response = self.answer(request)
        response.headers |= headers
        return response

    def _spoil(
        self, handler: BaseHTTPRequestHandler, good: Response
    ) -> Response | None:
        """Return the good answer, or what the first matching fault makes of it."""
        path, _, query = handler.path.partition("?")
        fault = self._next_fault(f"{path}?{unquote_plus(query)}")
        if isinstance(fault, int):
            return json_response(fault, {"detail": HTTPStatus(fault).phrase})
        return fault(handler, good) if fault else good

    def _next_fault(self, target: str) -> Fault | None:
        with self._plans_lock:
            for plan in self._plans:
                if plan.on not in target:
                    continue
                if plan.after > 0:
                    plan.after -= 1
                elif plan.times > 0:
                    plan.times -= 1
                    return plan.fault
        return None


def html_response(status: int, title: str) -> Response:
    """Return a web page, where a client expects JSON."""
    page = f"<!doctype html><html><head><title>{title}</title></head></html>"
    kind = {"Content-Type": "text/html; charset=utf-8"}
    return Response(status, kind, page.encode())


class Limits:
    """Counts requests for events, in each window of time and at the same time.

    Only requests for events are limited.
    """

    def __init__(
        self,
        rate_limit: int | None,
        rate_window: float,
        concurrent_limit: int | None,
        clock: Callable[[], float],
    ) -> None:
        self._rate_limit = rate_limit
        self._rate_window = rate_window
        self._concurrent_limit = concurrent_limit
        self._clock = clock
        self._window = 0  # the number of the rate window
        self._used = 0  # requests for events in it
        self._busy = 0  # requests for events being answered
        self._lock = threading.Lock()

    @contextmanager
    def entered(self, limited: bool) -> Iterator[tuple[dict[str, str], str]]:
        """Yield the headers about the limits, and the reason to refuse, or ''."""
        with self._lock:
            headers, refusal = self._count(limited)
            counted = limited and not refusal
            self._busy += counted
        try:
            yield headers, refusal
        finally:
            with self._lock:
                self._busy -= counted

    def _count(self, limited: bool) -> tuple[dict[str, str], str]:
        window = math.floor(self._clock() / self._rate_window)
        if window != self._window:
            self._window, self._used = window, 0
        self._used += limited
        used, busy = (self._used, self._busy + 1) if limited else (0, 0)
        most = self._rate_limit or used
        at_a_time = self._concurrent_limit or max(most, busy)
        refusal = ""
        if used > most:
            every = f"{self._rate_window:.0f} seconds"
            refusal = f"{TOO_FREQUENT} Limit is {most} requests in {every}"
        elif busy > at_a_time:
            refusal = f"{TOO_CONCURRENT} Concurrency limit is {at_a_time}"
        if self._rate_limit is None:
            return {}, refusal
        told = {
            "Limit": most,
            "Remaining": max(most - used, 0),
            "Reset": math.ceil((window + 1) * self._rate_window),
            "ConcurrentLimit": at_a_time,
            "ConcurrentRemaining": max(at_a_time - busy, 0),
        }
        headers = {f"X-Sentry-Rate-Limit-{k}": str(v) for k, v in told.items()}
        return headers, refusal
