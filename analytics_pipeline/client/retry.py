"""Retries, rate limits and the number of concurrent requests."""

import logging
import math
import random
import re
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import (
    ConnectTimeoutError,
    HeaderParsingError,
    ProxyError,
    SSLError,
)
from urllib3.util.retry import Retry

from analytics_pipeline.errors import shortened
from analytics_pipeline.secrets import mask_record

log = logging.getLogger(__name__)

LONGEST_WAIT = 600.0
"""Seconds; if a server asks for more, this is waited."""
FULL_WINDOW = 60.0
"""Seconds to wait after a 429 that does not say how long: Sentry's longest window."""
POLL = 0.5
"""Seconds between two checks whether a waiting thread should stop."""
STATUSES = (429, 500, 502, 503, 504)
LIMIT = "X-Sentry-Rate-Limit-"
NO_CONNECTION = (ConnectTimeoutError, ProxyError, SSLError)


@dataclass
class RequestStats:
    """Counts for one list; safe for threads."""

    requests: int = 0
    replaced: int = 0
    """Characters that databases reject, replaced by U+FFFD."""
    _told: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, requests: int = 0, replaced: int = 0) -> None:
        """Add to the counts."""
        with self._lock:
            self.requests += requests
            self.replaced += replaced

    def new_requests(self) -> int:
        """Return the number of requests since the last call."""
        with self._lock:
            new, self._told = self.requests - self._told, self.requests
            return new


class RateLimiter:
    """Allows `limit` concurrent requests, and none while a rate limit holds.

    Shared by all workers: after a refusal all of them wait, then resume with one
    request, and each answer allows one more. An endpoint is sent a single request until
    its first answer, which may state its limit.
    """

    def __init__(self, limit: int) -> None:
        self.waited = 0.0
        """Seconds."""
        self._limit = limit
        self._room = limit
        """Concurrent requests allowed now; below the limit after a pause."""
        self._allowed: dict[str, int] = {}
        """Concurrent requests that the server allows to an endpoint."""
        self._active: Counter[str] = Counter()
        self._opens_at = -math.inf
        """Monotonic time."""
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, endpoint: str = "") -> Iterator[None]:
        """Wait until a request to the endpoint may be sent, and count it as active."""
        self._enter(endpoint)
        try:
            self.wait()
            yield
        finally:
            self._leave(endpoint)

    def rest(self, endpoint: str, seconds: float) -> None:
        """Release the slot for some seconds, then wait for another one."""
        self._leave(endpoint)
        try:
            pause(seconds)
        finally:
            self._enter(endpoint)
        self.wait()

    def _enter(self, endpoint: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(endpoint))
            self._active[endpoint] += 1

    def _leave(self, endpoint: str) -> None:
        with self._changed:
            self._active[endpoint] -= 1
            self._changed.notify_all()

    def _has_room(self, endpoint: str) -> bool:
        allowed = self._allowed.get(endpoint, 1)
        return self._active[endpoint] < allowed and self._active.total() < self._room

    def update(self, headers: Mapping[str, str], endpoint: str = "") -> None:
        """Update the limits from the headers of an answer (Sentry's)."""
        concurrent = headers.get(LIMIT + "ConcurrentLimit", "")
        with self._changed:
            if time.monotonic() >= self._opens_at:
                self._room = min(self._room + 1, self._limit)
            if concurrent.isdecimal():
                self._allowed[endpoint] = max(1, int(concurrent))
            elif endpoint not in self._allowed:
                self._allowed[endpoint] = self._limit
            self._changed.notify_all()
        if headers.get(LIMIT + "Remaining") == "0":
            self.pause_for(seconds_to_reset(headers) or 0.0)

    def reduce(self) -> None:
        """Lower the limit by one: the server refuses so many, but states no limit."""
        with self._changed:
            self._limit = max(1, self._limit - 1)
            self._room = min(self._room, self._limit)

    def pause_for(self, seconds: float, asked: float = 0.0) -> None:
        """Hold all requests for some seconds, at most `LONGEST_WAIT`.

        `asked` is what the server asked for, if that is more.
        """
        if seconds <= 0:
            return
        asked, seconds = max(asked, seconds), min(seconds, LONGEST_WAIT)
        now = time.monotonic()
        with self._changed:
            longer = now + seconds - max(self._opens_at, now)
            self._room = 1
            if longer <= 0:
                return
            self.waited += longer
            self._opens_at = now + seconds
        if longer > min(1.0, seconds / 2):  # otherwise this wait was logged already
            more = f" (the server asked for {asked:,.0f} s)" if asked > seconds else ""
            text = f"rate limit: waiting {seconds:.0f} s before the next request{more}"
            log.warning(text, extra={"waits_until": time.time() + seconds})

    def wait(self) -> None:
        """Wait until the rate limit allows requests; end the thread if it was stopped."""
        pause(0)
        while (seconds := self._opens_at - time.monotonic()) > 0:
            pause(seconds)


class Refusal(NamedTuple):
    """What an answer with a bad status asks for."""

    seconds: float = 0.0
    """How long all requests must wait."""
    is_concurrency: bool = False
    """Too many concurrent requests, which passes in a moment."""
    is_limit: bool = False
    """Not a failure, so it uses up no retry."""


class RateLimitRetry(Retry):
    """urllib3's Retry, waiting at the shared limiter.

    Three retries, after 0, 4 and 8 seconds or as long as the server says. A 429 that says
    how long, or that is about concurrent requests, uses up no retry until the request has
    waited `LONGEST_WAIT` in total.
    """

    limiter: RateLimiter
    endpoint = ""
    stats = RequestStats()
    waited = 0.0
    """Seconds that this request has waited because of a limit."""
    refusal = Refusal()
    """The last answer's."""

    @classmethod
    def of(cls, limiter: RateLimiter) -> "RateLimitRetry":
        """Return a retry with this limiter."""
        retry = cls(
            total=3,
            backoff_factor=2,  # 0, 4, 8 seconds
            status_forcelist=STATUSES,
            allowed_methods=("GET",),
            redirect=False,
            raise_on_status=False,  # the caller raises an error with the server's reason
        )
        retry.limiter = limiter
        return retry

    def new(self, **changes: Any) -> "RateLimitRetry":
        """Return a copy with changes, as urllib3 makes one for each attempt."""
        retry = super().new(**changes)
        retry.limiter, retry.endpoint = self.limiter, self.endpoint
        retry.stats, retry.waited = self.stats, self.waited
        return retry

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> "RateLimitRetry":
        """Return the retry after a failed attempt.

        Raises:
            MaxRetryError: no retry is left, or the request has waited too long.
        """
        refusal = _refusal(response)
        if refusal.is_limit and self.waited < LONGEST_WAIT:
            retry = self.new()
        else:
            is_last = refusal.is_limit or _is_lasting(kwargs.get("error"))
            before = self.new(total=0) if is_last else self
            retry = Retry.increment(before, method, url, response, *args, **kwargs)
        retry.refusal = refusal
        self.stats.count(requests=1)
        return retry

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait before the next attempt."""
        if asked := self.refusal.seconds:
            seconds = min(asked, LONGEST_WAIT - self.waited)
            self.waited += seconds
            self.limiter.pause_for(seconds, asked)
            self.limiter.rest(self.endpoint, 0)
            return
        seconds = self.get_backoff_time()
        error = self.history[-1].error if self.history else None
        if self.refusal.is_concurrency:
            if LIMIT + "ConcurrentLimit" not in (response.headers if response else {}):
                self.limiter.reduce()
            # At random, so that refused requests are not all sent again together.
            seconds = min(max(1.0, self.waited), 30.0) * random.uniform(0.5, 1.5)
            self.waited += seconds
            reason = "too many concurrent requests"
        elif response is not None:
            reason = f"status {response.status}"
        else:
            reason = words(error) if error else "incomplete answer"
        log.info("%s; retrying in %.0f s", reason, seconds)
        if isinstance(error, NO_CONNECTION):  # other requests would fail as well
            pause(seconds)
        else:
            self.limiter.rest(self.endpoint, seconds)


def words(error: object) -> str:
    """Return the message of a library's error without the text of its objects."""
    return re.sub(r"<[^>]*>: |\w+\(host=[^)]*\): ", "", shortened(str(error), 1000))


def _is_lasting(error: object) -> bool:
    """Return whether TLS failed in a way that retries cannot fix."""
    reasons = "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER"
    return isinstance(error, SSLError) and bool(re.search(reasons, str(error)))


def _refusal(response: BaseHTTPResponse | None) -> Refusal:
    if response is None:
        return Refusal()
    asked = seconds_to_retry(response.headers)
    if response.status != 429:
        return Refusal(asked or 0.0)
    if asked is None and _is_about_concurrency(response):
        return Refusal(is_concurrency=True, is_limit=True)
    if asked is None:
        asked = seconds_to_reset(response.headers)
    if asked is None:
        return Refusal(FULL_WINDOW)
    return Refusal(max(1.0, asked), is_limit=True)


def _is_about_concurrency(response: BaseHTTPResponse) -> bool:
    """Return whether a 429 is about concurrent requests."""
    remaining = response.headers.get(LIMIT + "Remaining", "")
    if remaining.isdecimal():
        return int(remaining) > 0
    return b"concurrency" in (response.data or b"")[:1000]


def hide_log_of_retries(owner: object) -> None:
    """Hide urllib3's log lines about retries and malformed headers while `owner` lives.

    In its other lines, secrets are masked.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        kinds = (RateLimitRetry, HeaderParsingError)
        is_known = any(isinstance(each, kinds) for each in arguments)
        return mask_record(record) and not is_known

    for name in ("connection", "connectionpool"):
        logger = logging.getLogger(f"urllib3.{name}")
        logger.addFilter(is_wanted)
        weakref.finalize(owner, logger.removeFilter, is_wanted)


_thread = threading.local()


def stop_with(stopped: threading.Event) -> None:
    """End this thread at its next request or pause once the event is set."""
    _thread.stopped = stopped


def pause(seconds: float) -> None:
    """Sleep; end the thread when it is stopped or the program ends."""
    while True:
        stopped: threading.Event | None = getattr(_thread, "stopped", None)
        # The main thread is alive while it waits for the threads of a pool.
        if (stopped and stopped.is_set()) or getattr(
            threading, "_SHUTTING_DOWN", not threading.main_thread().is_alive()
        ):
            sys.exit()
        if seconds <= 0:
            return
        time.sleep(min(seconds, POLL))
        seconds -= POLL


def seconds_to_retry(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until the time in `Retry-After`, if it has one."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        date = _timestamp(text)
        seconds = math.nan if date is None else max(0.0, date - _server_time(headers))
    return seconds if seconds >= 0 else None


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until Sentry's rate limit ends, if the answer says so.

    The header is a Unix time by the server's clock, or `None` if Sentry's database
    refused the request.
    """
    text = headers.get(LIMIT + "Reset")
    if text == "None":
        return FULL_WINDOW
    try:
        return max(1.0, float(text or "") - _server_time(headers))
    except ValueError:
        return None


def _server_time(headers: Mapping[str, str]) -> float:
    """Return the Unix time of an answer by the server's clock, which may be wrong."""
    date = _timestamp(headers.get("Date", ""))
    return time.time() if date is None else date


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
