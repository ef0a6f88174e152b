"""Waits, retries and concurrent requests, with a fake clock."""

import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from email.utils import formatdate

import pytest
from urllib3 import HTTPResponse
from urllib3.exceptions import MaxRetryError
from urllib3.util.retry import Retry

from analytics_pipeline.client import retry
from analytics_pipeline.client.retry import (
    FULL_WINDOW,
    LONGEST_WAIT,
    RateLimiter,
    RateLimitRetry,
    hide_log_of_retries,
    pause,
    stop_with,
)
from tests.conftest import Clock

LIMIT = "X-Sentry-Rate-Limit-"
GIVE_UP = 30.0
"""Seconds until a thread that waits for ever fails its test."""
YEAR = 31_536_000
TOO_CONCURRENT = b'{"detail": "above the allowed concurrency for this endpoint"}'


ENDPOINTS = ("events", "issues", "projects", "releases")


def known(limit: int, *endpoints: str) -> RateLimiter:
    """A limiter of endpoints that have answered without a limit."""
    limiter = RateLimiter(limit)
    for endpoint in endpoints or ("",):
        limiter.update({}, endpoint)
    return limiter


class Inside:
    """Counts how many threads are inside together."""

    def __init__(self) -> None:
        self.most = self._now = 0
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)

    def __exit__(self, *error: object) -> None:
        with self._lock:
            self._now -= 1


def concurrent(
    limiter: RateLimiter, expected: int, endpoints: Sequence[str] = ("",)
) -> int:
    """How many of many workers were inside together; as many as expected must be."""
    together, inside = threading.Barrier(expected, timeout=GIVE_UP), Inside()

    def work(number: int) -> None:
        with limiter.slot(endpoints[number % len(endpoints)]), inside:
            together.wait()

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(work, range(8 * expected)))
    return inside.most


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_concurrent_requests_are_limited(limit: int) -> None:
    assert concurrent(known(limit), limit) == limit


def test_an_endpoint_gets_one_request_until_its_first_answer() -> None:
    limiter = RateLimiter(4)
    assert concurrent(limiter, 1) == 1
    limiter.update({})
    assert concurrent(limiter, 4) == 4
    assert concurrent(RateLimiter(9), 4, ENDPOINTS) == 4


def test_the_limit_is_shared_by_all_endpoints() -> None:
    assert concurrent(known(4, *ENDPOINTS), 4, ENDPOINTS) == 4


def test_the_limit_of_the_server_is_for_one_endpoint() -> None:
    limiter = known(5, *ENDPOINTS)
    limiter.update({LIMIT + "ConcurrentLimit": "2"}, "events")
    limiter.update({}, "events")  # an answer without a limit changes nothing
    assert concurrent(limiter, 2, ["events"]) == 2
    assert concurrent(limiter, 5, ["issues"]) == 5


def test_a_waiting_request_is_sent_after_the_first_answer() -> None:
    limiter, is_through = RateLimiter(2), threading.Event()

    def work() -> None:
        with limiter.slot("events"):
            is_through.set()

    thread = threading.Thread(target=work)
    with limiter.slot("events"):
        thread.start()
        assert not is_through.wait(0.01)
        limiter.update({}, "events")
        assert is_through.wait(GIVE_UP)
    thread.join(GIVE_UP)


@pytest.mark.parametrize(
    ("said", "limit"),
    [("2", 2), ("0", 1), ("8", 4), ("", 4), ("-1", 4), ("²", 4)],
)
def test_the_server_may_lower_the_limit(said: str, limit: int) -> None:
    limiter = RateLimiter(4)
    limiter.update({LIMIT + "ConcurrentLimit": said})
    assert concurrent(limiter, limit) == limit


def test_a_failed_request_releases_its_slot() -> None:
    limiter = RateLimiter(1)
    with pytest.raises(ZeroDivisionError), limiter.slot():
        raise ZeroDivisionError
    assert concurrent(limiter, 1) == 1


def test_requests_wait_while_a_rate_limit_holds(clock: Clock) -> None:
    limiter = RateLimiter(4)
    opens_at = clock.now + 30
    limiter.pause_for(30)
    with limiter.slot():
        assert clock.now == opens_at
    with limiter.slot():
        assert clock.sleeps == [30]


def test_a_wait_is_extended_if_the_limit_grows(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    limiter = RateLimiter(1)
    opens_at = clock.now + 100
    sleep = clock.sleep

    def refused_again(seconds: float) -> None:
        limiter.pause_for(opens_at - clock.now)
        sleep(seconds)

    monkeypatch.setattr(clock, "sleep", refused_again)
    limiter.pause_for(10)
    limiter.wait()
    assert clock.now == opens_at


def test_waits_that_overlap_are_counted_and_logged_once(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(4)
    for _ in range(4):
        limiter.pause_for(30)
    assert caplog.messages == ["rate limit: waiting 30 s before the next request"]
    assert limiter.waited == 30
    clock.now += 10
    limiter.pause_for(50)
    assert limiter.waited == 60


@pytest.mark.parametrize("seconds", [0, -5])
def test_a_wait_of_no_time_is_none(
    seconds: float, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    RateLimiter(4).pause_for(seconds)
    assert (clock.sleeps, caplog.messages) == ([], [])


def test_a_longer_wait_than_ten_minutes_is_cut_and_logged(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(4)
    limiter.pause_for(YEAR)
    limiter.wait()
    assert clock.sleeps == [LONGEST_WAIT]
    assert caplog.messages == [
        "rate limit: waiting 600 s before the next request"
        " (the server asked for 31,536,000 s)"
    ]


@pytest.mark.parametrize(
    ("remaining", "reset", "sleeps"),
    [
        ("0", 30, [30]),
        ("0", 0, [1]),
        ("0", -3600, [1]),
        ("0", YEAR, [LONGEST_WAIT]),
        ("0", float("inf"), [LONGEST_WAIT]),
        ("0", float("nan"), [1]),
        ("0", "soon", []),
        ("0", None, []),
        ("1", 30, []),
        ("", 30, []),
    ],
)
def test_a_used_up_limit_holds_until_its_reset(
    remaining: str, reset: float | str | None, sleeps: list[float], clock: Clock
) -> None:
    limiter = RateLimiter(4)
    headers = {LIMIT + "Remaining": remaining}
    if reset is not None:
        at = reset if isinstance(reset, str) else str(clock.now + reset)
        headers[LIMIT + "Reset"] = at
    limiter.update(headers)
    limiter.wait()
    assert clock.sleeps == sleeps


def refused(
    status: int, headers: dict[str, str], body: bytes = b"too many"
) -> HTTPResponse:
    """An answer whose body is not read yet."""
    return HTTPResponse(io.BytesIO(body), headers, status, preload_content=False)


def wait_after(status: int, headers: dict[str, str]) -> None:
    """Wait for the first retry after such an answer."""
    response = refused(status, headers)
    retry = RateLimitRetry.of(RateLimiter(4))
    retry.increment("GET", "/", response).sleep(response)


@pytest.mark.parametrize(
    ("said", "seconds"),
    [
        ("7", 7),
        (" 7 ", 7),
        ("0.5", 0.5),
        ("0", 0),
        (str(YEAR), LONGEST_WAIT),
        ("9" * 5000, LONGEST_WAIT),
        (formatdate(1_800_000_000 + YEAR, usegmt=True), LONGEST_WAIT),
        (formatdate(1_800_000_020, usegmt=True), 20),
        (formatdate(0, usegmt=True), 0),
    ],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize(("status", "least"), [(429, 1), (503, 0)])
def test_retry_after_is_seconds_or_a_date(
    status: int, least: float, said: str, seconds: float, clock: Clock
) -> None:
    wait_after(status, {"Retry-After": said})
    assert sum(clock.sleeps) == max(seconds, least)


@pytest.mark.parametrize("said", ["soon", "-5", "nan", ""])
@pytest.mark.parametrize(("status", "sleeps"), [(429, [FULL_WINDOW]), (503, [])])
def test_a_retry_after_without_a_time_is_ignored(
    status: int, said: str, sleeps: list[float], clock: Clock
) -> None:
    wait_after(status, {"Retry-After": said})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize("ahead", [-120, 6, 86_400])
@pytest.mark.parametrize("is_date", [False, True])
def test_waits_follow_the_clock_of_the_server(
    clock: Clock, ahead: float, is_date: bool
) -> None:
    server = clock.now - ahead
    said = (
        {"Retry-After": formatdate(server + 10, usegmt=True)}
        if is_date
        else {LIMIT + "Reset": str(server + 10)}
    )
    wait_after(429, {"Date": formatdate(server, usegmt=True)} | said)
    assert clock.sleeps == [10]


def test_setting_back_the_local_clock_makes_no_wait_longer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "time", lambda: clock.now - 3600 * len(clock.sleeps))
    monkeypatch.setattr(retry, "POLL", 0.5)
    wait_after(429, {"Retry-After": "10"})
    assert sum(clock.sleeps) == 10


@pytest.mark.parametrize(("status", "sleeps"), [(429, [30]), (503, [])])
@pytest.mark.parametrize("remaining", [{}, {LIMIT + "Remaining": "0"}])
def test_a_refusal_without_retry_after_waits_for_the_reset(
    status: int, remaining: dict[str, str], sleeps: list[float], clock: Clock
) -> None:
    wait_after(status, {LIMIT + "Reset": str(clock.now + 30), **remaining})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Reset": "None"},
        {"Reset": ""},
        {"Remaining": "0", "Reset": "soon"},
        {"Remaining": "some"},
        {"Remaining": "-1"},
    ],
)
def test_a_429_without_a_time_holds_all_for_a_full_window(
    headers: dict[str, str], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    wait_after(429, {LIMIT + name: said for name, said in headers.items()})
    assert clock.sleeps == [FULL_WINDOW]
    assert caplog.messages == ["rate limit: waiting 60 s before the next request"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"Remaining": "5", "ConcurrentRemaining": "0"}, b"no"), ({}, TOO_CONCURRENT)],
)
def test_a_429_about_concurrency_is_retried_soon_then_less_often(
    headers: dict[str, str],
    body: bytes,
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level("INFO")
    limiter = RateLimiter(4)
    told = {LIMIT + name: said for name, said in headers.items()}
    retries = refused_for_good(limiter, lambda: refused(429, told, body))
    assert clock.sleeps[0] == pytest.approx(1, rel=0.5)
    assert max(clock.sleeps) == pytest.approx(30, rel=0.5)
    assert LONGEST_WAIT <= sum(clock.sleeps) < LONGEST_WAIT + 45
    assert (retries, limiter.waited) == ({3}, 0)
    assert {text.partition(";")[0] for text in caplog.messages} == {
        "too many concurrent requests"
    }


def refused_for_good(
    limiter: RateLimiter, refuse: Callable[[], HTTPResponse]
) -> set[int]:
    """How many retries were left at each attempt, until the request was given up."""
    retry, left = RateLimitRetry.of(limiter), set()
    with pytest.raises(MaxRetryError):
        while True:
            left.add(int(retry.total or 0))
            response = refuse()
            retry = retry.increment("GET", "/", response)
            retry.sleep(response)
    return left


@pytest.mark.parametrize(
    "headers", [{"Retry-After": "7"}, {"Retry-After": "0"}, {LIMIT + "Reset": "None"}]
)
def test_a_429_with_a_time_uses_up_no_retry_for_ten_minutes(
    headers: dict[str, str], clock: Clock
) -> None:
    assert refused_for_good(RateLimiter(4), lambda: refused(429, headers)) == {3}
    assert sum(clock.sleeps) == LONGEST_WAIT


def test_a_429_without_any_time_uses_up_a_retry(clock: Clock) -> None:
    left = refused_for_good(RateLimiter(4), lambda: refused(429, {}))
    assert (left, clock.sleeps) == ({3, 2, 1, 0}, [FULL_WINDOW] * 3)


def test_after_a_pause_requests_resume_one_by_one(clock: Clock) -> None:
    limiter = known(4)
    limiter.pause_for(30)
    limiter.update({})  # of a request that was sent before
    clock.now += 30
    for expected in (1, 2, 3, 4, 4):
        assert concurrent(limiter, expected) == expected
        limiter.update({})


def test_requests_refused_together_are_not_resent_together() -> None:
    limiter, refusals = known(4), threading.Barrier(4, timeout=GIVE_UP)
    inside = Inside()

    def work(number: int) -> None:
        with limiter.slot():
            refusals.wait()
            limiter.pause_for(5)
            limiter.rest("", 0)
            with inside:
                time.sleep(0.001)

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert inside.most == 1


def test_a_failure_after_a_refusal_is_retried_as_usual(clock: Clock) -> None:
    retry = RateLimitRetry.of(RateLimiter(4))
    failure = refused(503, {})
    for response in (refused(429, {}, TOO_CONCURRENT), failure, failure):
        retry = retry.increment("GET", "/", response)
    retry.sleep(failure)
    assert (retry.total, clock.sleeps) == (1, [4])


@pytest.mark.parametrize(
    ("said", "sleeps"), [("7", [7]), ("soon", [pytest.approx(1, rel=0.5)])]
)
def test_retry_after_counts_even_if_requests_remain(
    said: str, sleeps: list[float], clock: Clock
) -> None:
    wait_after(429, {LIMIT + "Remaining": "5", "Retry-After": said})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(
    ("headers", "limit"), [({}, 3), ({LIMIT + "ConcurrentLimit": "2"}, 4)]
)
def test_a_429_about_concurrency_without_a_number_lowers_the_limit(
    headers: dict[str, str], limit: int
) -> None:
    limiter = known(4)
    response = refused(429, headers, TOO_CONCURRENT)
    RateLimitRetry.of(limiter).increment("GET", "/", response).sleep(response)
    assert concurrent(limiter, limit) == limit
    for _ in range(5):
        limiter.reduce()
    assert concurrent(limiter, 1) == 1


def test_default_delays_are_0_4_and_8_seconds(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response = HTTPResponse(status=502)
    retry = RateLimitRetry.of(RateLimiter(4))
    for _ in range(3):
        retry = retry.increment("GET", "/", response)
        retry.sleep(response)
    assert clock.sleeps == [4, 8]
    assert caplog.messages == [
        f"status 502; retrying in {seconds} s" for seconds in (0, 4, 8)
    ]


# Stopped threads


def is_ended(work: Callable[[], None], stopped: threading.Event) -> bool:
    """Whether a thread ended because it was stopped."""
    finished = threading.Event()

    def run() -> None:
        stop_with(stopped)
        with suppress(SystemExit):
            work()
            finished.set()

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(GIVE_UP)
    return not finished.is_set()


@pytest.mark.parametrize("is_stopped", [True, False])
def test_a_stopped_thread_ends_at_its_next_request_or_pause(is_stopped: bool) -> None:
    stopped, limiter = threading.Event(), RateLimiter(1)
    if is_stopped:
        stopped.set()

    def ask() -> None:
        with limiter.slot():
            pass

    for work in (lambda: pause(0), lambda: pause(60), ask):
        assert is_ended(work, stopped) is is_stopped
    assert concurrent(limiter, 1) == 1


def test_a_thread_stopped_during_a_pause_ends_there(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    monkeypatch.setattr(retry, "POLL", 0.5)
    monkeypatch.setattr(clock, "sleep", lambda seconds: stopped.set())
    assert is_ended(lambda: pause(600), stopped)


# The log of urllib3


def test_lines_about_these_retries_are_hidden_while_their_owner_lives(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Owner:
        pass

    caplog.set_level(logging.DEBUG)
    log = logging.getLogger("urllib3.connectionpool")
    monkeypatch.setattr(log, "filters", [])  # without those of other tests' sessions

    def say_all() -> list[str]:
        caplog.clear()
        log.warning("Retrying (%r)", RateLimitRetry.of(RateLimiter(4)))
        log.warning("Retrying (%r)", Retry(3))
        log.warning("%(name)s", {"name": "of a mapping"})
        log.warning("plain")
        return [line.partition("(")[2][:5] or line for line in caplog.messages]

    owner = Owner()
    hide_log_of_retries(owner)
    assert say_all() == ["Retry", "of a mapping", "plain"]
    del owner
    assert say_all() == ["RateL", "Retry", "of a mapping", "plain"]
    assert log.filters == []
