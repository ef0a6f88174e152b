"""How long to wait, and for what: retries, rate limits, requests at a time."""

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
GLANCE = 0.5
"""Seconds after which somebody who waits looks whether the program has ended."""
STATUSES = (429, 500, 502, 503, 504)


class Gate:
    """Lets `limit` requests through at a time, and none while a rate limit holds.

    Shared by all workers of a server: one refusal makes all of them wait, once.
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

    def heed(self, headers: Mapping[str, str]) -> None:
        """Take over what an answer says of limits (Sentry's headers)."""
        concurrent = headers.get("X-Sentry-Rate-Limit-ConcurrentLimit", "")
        if concurrent.isdecimal():
            with self._changed:
                self._limit = max(1, min(self._limit, int(concurrent)))
        if headers.get("X-Sentry-Rate-Limit-Remaining") == "0":
            self.hold(seconds_to_reset(headers) or 0.0)

    def hold(self, seconds: float) -> None:
        """Let nobody through for so long; longer than `LONGEST_WAIT` is cut."""
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
        while (seconds := self._opens_at - time.time()) > 0:
            pause(seconds)


class PatientRetry(Retry):
    """urllib3's Retry, which also knows Sentry's reset time and the shared gate."""

    gate: Gate

    @classmethod
    def of(cls, gate: Gate) -> "PatientRetry":
        retry = cls(
            total=3,
            backoff_factor=2,  # 0, 4, 8 seconds
            status_forcelist=STATUSES,
            allowed_methods=("GET",),
            redirect=False,
            respect_retry_after_header=True,
            retry_after_max=sys.maxsize,  # the gate cuts, and says so
            raise_on_status=False,  # the caller shows the status and the words
        )
        retry.gate = gate
        return retry

    def new(self, **changes: Any) -> "PatientRetry":
        retry = super().new(**changes)
        retry.gate = self.gate
        return retry

    def sleep(self, response: BaseHTTPResponse | None = None) -> None:
        asked = self._asked(response) if response is not None else None
        if asked:
            self.gate.hold(asked)
            self.gate.wait()
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
        """Seconds to wait by the server's word; None when it says nothing."""
        text = response.headers.get("Retry-After")
        if text is not None:
            try:
                return self.parse_retry_after(text)
            except (InvalidHeader, ValueError, OverflowError):
                return None
        return seconds_to_reset(response.headers) if response.status == 429 else None


def pause(seconds: float) -> None:
    """Sleep, but no longer than the program runs: its end waits for all threads."""
    while seconds > 0:
        time.sleep(min(seconds, GLANCE))
        seconds -= GLANCE
        # The main thread is alive as long as it waits for those of a pool.
        if getattr(threading, "_SHUTTING_DOWN", not threading.main_thread().is_alive()):
            sys.exit()


def seconds_to_reset(headers: Mapping[str, str]) -> float | None:
    """Until Sentry's rate limit opens again; its header is a Unix time."""
    try:
        reset = float(headers.get("X-Sentry-Rate-Limit-Reset", ""))
    except ValueError:
        return None
    return max(1.0, reset - time.time())
