"""Retries, rate limits, and how many requests are under way at a time."""

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
"""Seconds; a server that asks for more is asked again after this long."""
FULL_WINDOW = 60.0
"""Seconds to wait after a 429 that does not say for how long: Sentry's longest window."""
POLL = 0.5
"""Seconds after which a waiting thread looks whether it is still wanted."""
STATUSES = (429, 500, 502, 503, 504)
LIMIT = "X-Sentry-Rate-Limit-"
NO_CONNECTION = (ConnectTimeoutError, ProxyError, SSLError)


@dataclass
class RequestStats:
    """What reading one list took; several workers may count at once."""

    requests: int = 0
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""
    _told: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, requests: int = 0, replaced: int = 0) -> None:
        """Add to the figures."""
        with self._lock:
            self.requests += requests
            self.replaced += replaced

    def new_requests(self) -> int:
        """Return how many there were since this was asked last."""
        with self._lock:
            new, self._told = self.requests - self._told, self.requests
            return new


class RateLimiter:
    """Lets `limit` requests through at a time, and none while a rate limit holds.

    All workers of a client share it: one refusal makes all of them wait, once, and then
    they resume one at a time: each answer lets one more through. An endpoint is asked
    one request at a time until its first answer has told how many it allows.
    """

    def __init__(self, limit: int) -> None:
        self.waited = 0.0
        """Seconds for which requests were held back."""
        self._limit = limit
        self._room = limit
        """Requests at a time, now; less than the limit for some answers after a pause."""
        self._allowed: dict[str, int] = {}
        """Endpoint → requests at a time."""
        self._active: Counter[str] = Counter()
        self._opens_at = -math.inf
        """By the monotonic clock, which nobody sets."""
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, endpoint: str = "") -> Iterator[None]:
        """Wait until a request to the endpoint may be sent, and count it as under way."""
        self._enter(endpoint)
        try:
            self.wait()
            yield
        finally:
            self._leave(endpoint)

    def rest(self, endpoint: str, seconds: float) -> None:
        """Leave a slot for so long, and wait until another request may be sent."""
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
        """Update the limits from an answer, and its rate-limit headers (Sentry's)."""
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
        """Send one request less at a time: the server refuses so many, with no number."""
        with self._changed:
            self._limit = max(1, self._limit - 1)
            self._room = min(self._room, self._limit)

    def pause_for(self, seconds: float, asked: float = 0.0) -> None:
        """Let no request through for so long; at most `LONGEST_WAIT`.

        Args:
            seconds: from now on.
            asked: what the server asked for, where that is more.
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
        if longer > min(1.0, seconds / 2):  # or it is the wait that was logged before
            more = f" (the server asked for {asked:,.0f} s)" if asked > seconds else ""
            log.warning(
                "rate limit: all requests wait for %.0f s%s",
                seconds,
                more,
                extra={"waits_until": time.time() + seconds},
            )

    def wait(self) -> None:
        """Wait until the rate limit opens again; end the thread if it is not wanted."""
        pause(0)
        while (seconds := self._opens_at - time.monotonic()) > 0:
            pause(seconds)


class Refusal(NamedTuple):
    """What an answer with a bad status asks for."""

    seconds: float = 0.0
    """For which no request at all is wanted."""
    is_too_many_at_once: bool = False
    """It is about this moment only."""
    is_limit: bool = False
    """It is no failure, and uses up no retry."""


class RateLimitRetry(Retry):
    """urllib3's Retry, which waits at the shared limiter and knows Sentry's reset time.

    Three retries on `STATUSES`, on refused and on broken connections; 0, 4 and 8
    seconds apart, unless the server says how long to wait. A 429 that says it, or that
    is about too many requests at once, is no failure and uses up no retry, as long as
    its request has not waited for `LONGEST_WAIT` in all.
    """

    limiter: RateLimiter
    endpoint = ""
    stats = RequestStats()
    waited = 0.0
    """Seconds for which the server has let this request wait."""
    refusal = Refusal()
    """The last answer."""

    @classmethod
    def of(cls, limiter: RateLimiter) -> "RateLimitRetry":
        """Return a retry that waits at this limiter."""
        retry = cls(
            total=3,
            backoff_factor=2,  # 0, 4, 8 seconds
            status_forcelist=STATUSES,
            allowed_methods=("GET",),
            redirect=False,
            raise_on_status=False,  # the caller shows the status and the words
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
        """Return what is left after a failed attempt; its answer is looked at.

        Raises:
            MaxRetryError: no retry is left, or the request has waited for too long.
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
        if self.refusal.is_too_many_at_once:
            if LIMIT + "ConcurrentLimit" not in (response.headers if response else {}):
                self.limiter.reduce()
            # Not all of them again at the same moment.
            seconds = min(max(1.0, self.waited), 30.0) * random.uniform(0.5, 1.5)
            self.waited += seconds
            reason = "too many requests at once"
        elif response is not None:
            reason = f"status {response.status}"
        else:
            reason = words(error) if error else "a broken answer"
        log.info("%s; asking again in %.0f s", reason, seconds)
        if isinstance(error, NO_CONNECTION):  # another request would have none, either
            pause(seconds)
        else:
            self.limiter.rest(self.endpoint, seconds)


def words(error: object) -> str:
    """Return the words of an error without those that name objects of a library."""
    return re.sub(r"<[^>]*>: |\w+\(host=[^)]*\): ", "", shortened(str(error), 1000))


def _is_lasting(error: object) -> bool:
    """Return whether TLS failed in a way that no retry mends."""
    reasons = "CERTIFICATE_VERIFY_FAILED|WRONG_VERSION_NUMBER"
    return isinstance(error, SSLError) and bool(re.search(reasons, str(error)))


def _refusal(response: BaseHTTPResponse | None) -> Refusal:
    if response is None:
        return Refusal()
    asked = seconds_to_retry(response.headers)
    if response.status != 429:
        return Refusal(asked or 0.0)
    if asked is None and _is_about_concurrency(response):
        return Refusal(is_too_many_at_once=True, is_limit=True)
    if asked is None:
        asked = seconds_to_reset(response.headers)
    if asked is None:
        return Refusal(FULL_WINDOW)
    return Refusal(max(1.0, asked), is_limit=True)


def _is_about_concurrency(response: BaseHTTPResponse) -> bool:
    """Return whether a 429 is for too many requests at once, while more remain."""
    remaining = response.headers.get(LIMIT + "Remaining", "")
    if remaining.isdecimal():
        return int(remaining) > 0
    return b"concurrency" in (response.data or b"")[:1000]


def hide_log_of_retries(owner: object) -> None:
    """Hide urllib3's lines on these retries and malformed headers while `owner` lives.

    They show the parts of a library, not what to do; what is final is an error. In its
    other lines, secrets are masked.
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
    """Let this thread end, at its next request or pause, once the event is set."""
    _thread.stopped = stopped


def pause(seconds: float) -> None:
    """Sleep, but end the thread when it is stopped, or the program has ended."""
    while True:
        stopped: threading.Event | None = getattr(_thread, "stopped", None)
        # The main thread is alive as long as it waits for those of a pool.
        if (stopped and stopped.is_set()) or getattr(
            threading, "_SHUTTING_DOWN", not threading.main_thread().is_alive()
        ):
            sys.exit()
        if seconds <= 0:
            return
        time.sleep(min(seconds, POLL))
        seconds -= POLL


def seconds_to_retry(headers: Mapping[str, str]) -> float | None:
    """Return what `Retry-After` says, in seconds; None where it says nothing."""
    text = headers.get("Retry-After", "")
    try:
        seconds = float(text)
    except ValueError:
        date = _timestamp(text)
        seconds = math.nan if date is None else max(0.0, date - _server_time(headers))
    return seconds if seconds >= 0 else None


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until Sentry's rate limit opens again; None where it has none.

    Its header is a Unix time, by the server's clock; `None` where the limit is of the
    database behind it.
    """
    text = headers.get(LIMIT + "Reset")
    if text == "None":
        return FULL_WINDOW
    try:
        return max(1.0, float(text or "") - _server_time(headers))
    except ValueError:
        return None


def _server_time(headers: Mapping[str, str]) -> float:
    """Return the Unix time of an answer by the server's clock, which may go wrong."""
    date = _timestamp(headers.get("Date", ""))
    return time.time() if date is None else date


def _timestamp(date: str) -> float | None:
    try:
        return parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        return None
