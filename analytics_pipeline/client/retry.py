"""Retries, rate limits, and how many requests are under way at a time."""

import logging
import random
import re
import sys
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, cast

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import HTTPError, InvalidHeader
from urllib3.util.retry import Retry

log = logging.getLogger(__name__)

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more is asked again after this long."""
FULL_WINDOW = 60.0
"""Seconds to wait after a 429 that does not say for how long: Sentry's longest window."""
POLL = 0.5
"""Seconds after which a waiting thread looks whether it is still wanted."""
STATUSES = (429, 500, 502, 503, 504)
LIMIT = "X-Sentry-Rate-Limit-"


class RateLimiter:
    """Lets `limit` requests through at a time, and none while a rate limit holds.

    All workers of a client share it: one refusal makes all of them wait, once. An
    endpoint is asked one request at a time until its first answer has told how many it
    allows.
    """

    def __init__(self, limit: int) -> None:
        self.waited = 0.0
        """Seconds for which requests were held back."""
        self._limit = limit
        self._allowed: dict[str, int] = {}
        """Endpoint → requests at a time."""
        self._active: Counter[str] = Counter()
        self._opens_at = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def slot(self, endpoint: str = "") -> Iterator[None]:
        """Wait until a request to the endpoint may be sent, and count it as under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._has_room(endpoint))
            self._active[endpoint] += 1
        try:
            self.wait()
            yield
        finally:
            with self._changed:
                self._active[endpoint] -= 1
                self._changed.notify_all()

    def _has_room(self, endpoint: str) -> bool:
        allowed = self._allowed.get(endpoint, 1)
        return self._active[endpoint] < allowed and self._active.total() < self._limit

    def update(self, headers: Mapping[str, str], endpoint: str = "") -> None:
        """Update the limits from an answer's rate-limit headers (Sentry's)."""
        concurrent = headers.get(LIMIT + "ConcurrentLimit", "")
        with self._changed:
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

    def pause_for(self, seconds: float) -> None:
        """Let no request through for so long; at most `LONGEST_WAIT`."""
        if seconds <= 0:
            return
        cut = min(seconds, LONGEST_WAIT)
        opens_at = time.time() + cut
        with self._changed:
            if opens_at <= self._opens_at + 1:
                return
            self.waited += opens_at - max(self._opens_at, time.time())
            self._opens_at = opens_at
        asked = f" (the server asked for {seconds:,.0f} s)" if seconds > cut else ""
        log.warning(
            "rate limit: all requests wait for %.0f s%s",
            cut,
            asked,
            extra={"waits_until": opens_at},
        )

    def wait(self) -> None:
        """Wait until the rate limit opens again; end the thread if it is not wanted."""
        pause(0)
        while (seconds := self._opens_at - time.time()) > 0:
            pause(seconds)


class RateLimitRetry(Retry):
    """urllib3's Retry, which waits at the shared limiter and knows Sentry's reset time.

    Three retries on `STATUSES`, on refused and on broken connections; 0, 4 and 8
    seconds apart, unless the server says how long to wait.
    """

    limiter: RateLimiter
    is_too_many_at_once = False
    """The last refusal was about this moment only."""

    @classmethod
    def of(cls, limiter: RateLimiter) -> "RateLimitRetry":
        """Return a retry that waits at this limiter."""
        retry = cls(
            total=3,
            backoff_factor=2,  # 0, 4, 8 seconds
            status_forcelist=STATUSES,
            allowed_methods=("GET",),
            redirect=False,
            respect_retry_after_header=True,
            retry_after_max=sys.maxsize,  # the limiter cuts it, and logs that
            raise_on_status=False,  # the caller shows the status and the words
        )
        retry.limiter = limiter
        return retry

    def new(self, **changes: Any) -> "RateLimitRetry":
        """Return a copy with changes, as urllib3 makes one for each attempt."""
        retry = super().new(**changes)
        retry.limiter = self.limiter
        return retry

    def increment(
        self,
        method: str | None = None,
        url: str | None = None,
        response: BaseHTTPResponse | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> "RateLimitRetry":
        """Return what is left after a failed attempt; its answer is looked at."""
        retry: Any = super().increment(method, url, response, *args, **kwargs)
        retry.is_too_many_at_once = response is not None and _is_of_moment(response)
        return cast(RateLimitRetry, retry)

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait before the next attempt."""
        asked = self._seconds_asked(response) if response is not None else None
        if asked:
            self.limiter.pause_for(asked)
            self.limiter.wait()
            return
        seconds = self.get_backoff_time()
        if self.is_too_many_at_once:
            # Not all of them again at the same moment.
            seconds = max(1.0, seconds) * random.uniform(0.5, 1.5)
            reason = "too many requests at once"
        elif response is not None:
            reason = f"status {response.status}"
        else:
            reason = (
                words(self.history[-1].error) if self.history else "a broken answer"
            )
        log.info("%s; asking again in %.0f s", reason, seconds)
        pause(seconds)

    def _seconds_asked(self, response: BaseHTTPResponse) -> float | None:
        """Return how long the server wants no request at all; None for a usual retry.

        A 429 without any time is a full window: no failure, so soon again is no use.
        """
        headers = response.headers
        if (text := headers.get("Retry-After")) is not None:
            try:
                return self.parse_retry_after(text)
            except (InvalidHeader, ValueError, OverflowError):
                pass
        if self.is_too_many_at_once:
            if LIMIT + "ConcurrentLimit" not in headers:
                self.limiter.reduce()
            return None
        if response.status != 429:
            return None
        return seconds_to_reset(headers) or FULL_WINDOW


def words(error: object) -> str:
    """Return the words of an error without those that name objects of a library."""
    return re.sub(r"<[^>]*>: |\w+\(host=[^)]*\): ", "", str(error))


def _is_of_moment(response: BaseHTTPResponse) -> bool:
    """Tell whether a 429 is for too many requests at once, while more remain."""
    if response.status != 429:
        return False
    remaining = response.headers.get(LIMIT + "Remaining", "")
    if remaining.isdecimal():
        return int(remaining) > 0
    try:
        return b"concurrency" in response.read(1000, decode_content=True)
    except (HTTPError, OSError):
        return False


def hide_log_of_retries(owner: object) -> None:
    """Hide urllib3's own lines about these retries, for as long as `owner` lives.

    They show the parts of a library, not what to do; what is final is an error.
    """

    def is_wanted(record: logging.LogRecord) -> bool:
        arguments = record.args if isinstance(record.args, tuple) else ()
        return not any(isinstance(each, RateLimitRetry) for each in arguments)

    logger = logging.getLogger("urllib3.connectionpool")
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


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until Sentry's rate limit opens again; its header is a Unix time."""
    try:
        reset = float(headers.get(LIMIT + "Reset", ""))
    except ValueError:
        return None
    return max(1.0, reset - time.time())
