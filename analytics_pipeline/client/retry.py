"""Retries, rate limits, and how many requests are under way at a time."""

import logging
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from urllib3 import BaseHTTPResponse
from urllib3.exceptions import InvalidHeader
from urllib3.util.retry import Retry

log = logging.getLogger(__name__)

LONGEST_WAIT = 600.0
"""Seconds; a server that asks for more is asked again after this long."""
POLL = 0.5
"""Seconds after which a waiting thread looks whether the program has ended."""
STATUSES = (429, 500, 502, 503, 504)


class RateLimiter:
    """Lets `limit` requests through at a time, and none while a rate limit holds.

    All workers of a client share it: one refusal makes all of them wait, once.
    """

    def __init__(self, limit: int) -> None:
        self.waited = 0.0
        """Seconds for which requests were held back."""
        self._limit = limit
        self._active = 0
        self._opens_at = 0.0
        self._changed = threading.Condition()

    @contextmanager
    def slot(self) -> Iterator[None]:
        """Wait until a request may be sent, and count it as under way."""
        with self._changed:
            self._changed.wait_for(lambda: self._active < self._limit)
            self._active += 1
        try:
            self.wait()
            yield
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify()

    def update(self, headers: Mapping[str, str]) -> None:
        """Update the limits from an answer's rate-limit headers (Sentry's)."""
        concurrent = headers.get("X-Sentry-Rate-Limit-ConcurrentLimit", "")
        if concurrent.isdecimal():
            with self._changed:
                self._limit = max(1, min(self._limit, int(concurrent)))
        if headers.get("X-Sentry-Rate-Limit-Remaining") == "0":
            self.pause_for(seconds_to_reset(headers) or 0.0)

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
        log.warning("rate limit: all requests wait for %.0f s%s", cut, asked)

    def wait(self) -> None:
        """Wait until the rate limit opens again."""
        while (seconds := self._opens_at - time.time()) > 0:
            pause(seconds)


class RateLimitRetry(Retry):
    """urllib3's Retry, which waits at the shared limiter and knows Sentry's reset time.

    Three retries on `STATUSES`, on refused and on broken connections; 0, 4 and 8
    seconds apart, unless the server says how long to wait.
    """

    limiter: RateLimiter

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

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        """Wait before the next attempt."""
        asked = self._asked(response) if response is not None else None
        if asked:
            self.limiter.pause_for(asked)
            self.limiter.wait()
            return
        seconds = self.get_backoff_time()
        if response is not None:
            reason = f"status {response.status}"
        else:
            reason = str(self.history[-1].error) if self.history else "a broken answer"
        log.info("%s; asking again in %.0f s", reason, seconds)
        if seconds:
            pause(seconds)

    def _asked(self, response: BaseHTTPResponse) -> float | None:
        """Return the seconds that the server asks to wait; None where it says nothing."""
        text = response.headers.get("Retry-After")
        if text is not None:
            try:
                return self.parse_retry_after(text)
            except (InvalidHeader, ValueError, OverflowError):
                return None
        return seconds_to_reset(response.headers) if response.status == 429 else None


def pause(seconds: float) -> None:
    """Sleep, but end the thread when the program ends, which waits for all threads."""
    while seconds > 0:
        time.sleep(min(seconds, POLL))
        seconds -= POLL
        # The main thread is alive as long as it waits for those of a pool.
        if getattr(threading, "_SHUTTING_DOWN", not threading.main_thread().is_alive()):
            sys.exit()


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Return the seconds until Sentry's rate limit opens again; its header is a Unix time."""
    try:
        reset = float(headers.get("X-Sentry-Rate-Limit-Reset", ""))
    except ValueError:
        return None
    return max(1.0, reset - time.time())
