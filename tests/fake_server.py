"""The demo server with what only tests need: faults, limits, latency, a wrong clock."""

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import unquote_plus

from analytics_pipeline.demo import DemoServer, Request, Response
from analytics_pipeline.demo.data import DemoData
from analytics_pipeline.demo.dialects import Dialect, Query, Refusal
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.demo.rows import Row

Fault = int | Callable[[BaseHTTPRequestHandler, Response], Response | None]
TOO_FREQUENT = "You are attempting to use this endpoint too frequently."
TOO_CONCURRENT = (
    "You are attempting to go above the allowed concurrency for this endpoint."
)


@dataclass
class Plan:
    """A fault for `times` requests that contain `on`, once `after` have passed."""

    fault: Fault
    on: str
    times: int
    after: int


class FakeServer(DemoServer):
    """A demo server that can be told to fail, and records how it answered.

    `latency` is in seconds. With `rate_limit`, so many requests for events are answered
    in each window of `rate_window` seconds of `clock`, and with `concurrent_limit` so
    many at a time. Headers tell the limits if there is a `rate_limit`, unless
    `limit_headers` is False. `clock_skew` is added to the real time in the Date header,
    except where a fault sets or sends that header itself.

    Only for Sentry: with `ignores_time`, `start` and `end` of events are ignored, as
    before August 2025; a page of whole events has `full_page_size` rows, 100 on older
    servers; with `invalid_range`, a window outside retention is a 400 and not a 500;
    to a `teamless` user every issue search is an empty list without a Link header.
    """

    statuses: list[tuple[Request, int]]  # how each was answered; 0: not at all

    def __init__(
        self,
        api: str = "v1",
        *,
        latency: float = 0.0,
        rate_limit: int | None = None,
        rate_window: float = 60.0,
        concurrent_limit: int | None = None,
        limit_headers: bool = True,
        clock: Callable[[], float] = time.time,
        clock_skew: timedelta = timedelta(),
        ignores_time: bool = False,
        full_page_size: int = 10,
        invalid_range: bool = False,
        teamless: bool = False,
        **options: Any,
    ) -> None:
        super().__init__(api, **options)
        if api == "sentry":
            self._dialect = other_sentry(
                self._dialect, ignores_time, full_page_size, invalid_range, teamless
            )
        self.statuses = []
        self._latency = latency
        self._limits = Limits(rate_limit, rate_window, concurrent_limit, clock)
        self._limit_headers = limit_headers
        self._clock_skew = clock_skew
        self._plans: list[Plan] = []
        self._plans_lock = threading.Lock()

    def fail(
        self, fault: Fault, *, on: str = "", times: int = 1, after: int = 0
    ) -> None:
        """Spoil the next requests whose path and query contain `on`.

        They are compared as `path?query`, with the query decoded. After letting `after`
        of the requests through, the next `times` get the fault: a status with the body
        `{"detail": …}`, or a function. The function is given the handler and the good
        answer, and returns another one, or None when it has dealt with the socket
        itself; the connection is then closed.
        """
        with self._plans_lock:
            self._plans.append(Plan(fault, on, times, after))

    def mend(self) -> None:
        """Forget what is left of the faults."""
        with self._plans_lock:
            self._plans.clear()

    def respond(
        self, request: Request, handler: BaseHTTPRequestHandler
    ) -> Response | None:
        """Answer within the limits, spoil that as planned, and record the status."""
        good = self._answer_within_limits(request)
        response = self._spoil(handler, good)
        self.statuses.append((request, response.status if response else 0))
        if response is None:
            return None
        now = time.time() + self._clock_skew.total_seconds()
        date = {"Date": handler.date_time_string(now)}
        # a copy: a fault may return the same response again
        return replace(response, headers=date | response.headers)

    def _answer_within_limits(self, request: Request) -> Response:
        limited = request.path.endswith("/events/")
        with self._limits.entered(limited) as (headers, refusal):
            time.sleep(self._latency)
            if refusal:
                response = json_response(429, {"detail": refusal})
            else:
                response = self.answer(request)
        if self._limit_headers:
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


def too_many(headers: Mapping[str, str], detail: str = TOO_FREQUENT) -> Fault:
    """A fault: 429 with these headers and none of the usual ones.

    The database behind Sentry sends `{"X-Sentry-Rate-Limit-Reset": "None"}`.
    """

    def fault(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        return json_response(429, {"detail": detail}, dict(headers))

    return fault


def other_sentry(
    sentry: Dialect,
    ignores_time: bool,
    full_page_size: int,
    invalid_range: bool,
    teamless: bool,
) -> Dialect:
    """The dialect of a Sentry that differs as `FakeServer` says."""

    def size(table: str, query: Query) -> int:
        if table == "events" and query.get("full") == "true":
            return full_page_size
        return sentry.size(table, query)

    def events(rows: list[Row], query: Query, data: DemoData) -> list[Row] | None:
        try:
            return sentry.select["events"](rows, {} if ignores_time else query, data)
        except Refusal as refusal:
            if invalid_range and refusal.status == 500:
                detail = "Invalid date range. Please try a more recent date range."
                raise Refusal(400, detail) from None
            raise

    def issues(rows: list[Row], query: Query, data: DemoData) -> list[Row] | None:
        return None if teamless else sentry.select["issues"](rows, query, data)

    select = {**sentry.select, "events": events, "issues": issues}
    return replace(sentry, size=size, select=select)


class Limits:
    """Counts requests for events, in each window of time and at a time.

    Only requests for events are limited; the others are told that all is free.
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
        """Yield the headers that tell the limits, and why to refuse, or nothing."""
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
