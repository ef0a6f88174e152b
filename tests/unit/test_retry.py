"""Waiting: how long, how often, and how many at a time. Nobody really sleeps."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate

import pytest
from urllib3 import HTTPResponse

from analytics_pipeline.client.retry import LONGEST_WAIT, RateLimiter, RateLimitRetry
from tests.conftest import Clock

LIMIT = "X-Sentry-Rate-Limit-"
GIVE_UP = 30.0
"""Seconds until a thread that is never let through fails its test."""
YEAR = 31_536_000


def most_at_a_time(limiter: RateLimiter, expected: int) -> int:
    """How many of 40 workers were inside together; as many as expected must be."""
    together = threading.Barrier(expected, timeout=GIVE_UP)
    lock = threading.Lock()
    inside = most = 0

    def work(number: int) -> None:
        nonlocal inside, most
        with limiter.slot():
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait()
            with lock:
                inside -= 1

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(work, range(40)))
    return most


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_only_so_many_requests_run_at_a_time(limit: int) -> None:
    assert most_at_a_time(RateLimiter(limit), limit) == limit


@pytest.mark.parametrize(
    ("said", "limit"), [("2", 2), ("0", 1), ("8", 4), ("", 4), ("-1", 4), ("two", 4)]
)
def test_the_server_may_allow_fewer_at_a_time(said: str, limit: int) -> None:
    limiter = RateLimiter(4)
    limiter.update({LIMIT + "ConcurrentLimit": said})
    assert most_at_a_time(limiter, limit) == limit


def test_a_failed_request_gives_its_slot_back() -> None:
    limiter = RateLimiter(1)
    with pytest.raises(ZeroDivisionError), limiter.slot():
        raise ZeroDivisionError
    assert most_at_a_time(limiter, 1) == 1


def test_nobody_gets_through_while_a_rate_limit_holds(clock: Clock) -> None:
    limiter = RateLimiter(4)
    opens_at = clock.now + 30
    limiter.pause_for(30)
    with limiter.slot():
        assert clock.now == opens_at
    with limiter.slot():
        assert clock.sleeps == [30]


def test_a_limit_that_grows_while_somebody_waits_is_kept(
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


def test_one_wait_of_many_workers_is_logged_and_counted_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = RateLimiter(4)
    for _ in range(4):
        limiter.pause_for(30)
    assert messages(caplog) == ["rate limit: all requests wait for 30 s"]
    assert limiter.waited == 30


def test_waits_that_overlap_are_counted_once(clock: Clock) -> None:
    limiter = RateLimiter(4)
    limiter.pause_for(30)
    clock.now += 10
    limiter.pause_for(50)
    assert limiter.waited == 60


def test_a_wait_of_a_year_is_cut_and_said(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(4)
    limiter.pause_for(YEAR)
    limiter.wait()
    assert clock.sleeps == [LONGEST_WAIT]
    assert messages(caplog) == [
        "rate limit: all requests wait for 600 s (the server asked for 31,536,000 s)"
    ]


@pytest.mark.parametrize("seconds", [0, -5])
def test_no_time_is_no_wait(
    seconds: float, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    limiter = RateLimiter(4)
    limiter.pause_for(seconds)
    limiter.wait()
    assert (clock.sleeps, messages(caplog)) == ([], [])


@pytest.mark.parametrize(
    ("remaining", "reset", "sleeps"),
    [
        ("0", 30, [30]),
        ("0", 0, [1]),
        ("0", -3600, [1]),
        ("0", YEAR, [LONGEST_WAIT]),
        ("0", float("inf"), [LONGEST_WAIT]),
        ("0", float("nan"), [1]),
        ("1", 30, []),
        ("", 30, []),
    ],
)
def test_a_used_up_limit_holds_until_its_reset(
    remaining: str, reset: float, sleeps: list[float], clock: Clock
) -> None:
    limiter = RateLimiter(4)
    headers = {LIMIT + "Remaining": remaining, LIMIT + "Reset": str(clock.now + reset)}
    limiter.update(headers)
    limiter.wait()
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(
    "reset", [{}, {LIMIT + "Reset": ""}, {LIMIT + "Reset": "soon"}]
)
def test_a_used_up_limit_without_a_reset_does_not_hold(
    reset: dict[str, str], clock: Clock
) -> None:
    limiter = RateLimiter(4)
    limiter.update({LIMIT + "Remaining": "0"} | reset)
    limiter.wait()
    assert clock.sleeps == []


def asked_to_wait(status: int, headers: dict[str, str]) -> None:
    """The first retry after such an answer."""
    response = HTTPResponse(status=status, headers=headers)
    retry = RateLimitRetry.of(RateLimiter(4))
    retry.increment("GET", "/", response).sleep(response)


@pytest.mark.parametrize(
    ("said", "sleeps"),
    [
        ("7", [7]),
        (" 7 ", [7]),
        ("0", []),
        (str(YEAR), [LONGEST_WAIT]),
        ("9" * 400, [LONGEST_WAIT]),
        ("9" * 5000, []),
        (formatdate(time.time() + YEAR, usegmt=True), [LONGEST_WAIT]),
        (formatdate(0, usegmt=True), []),
        ("soon", []),
        ("-5", []),
        ("", []),
    ],
    ids=lambda value: str(value)[:12],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_seconds_or_a_date(
    status: int, said: str, sleeps: list[float], clock: Clock
) -> None:
    asked_to_wait(status, {"Retry-After": said})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(("status", "sleeps"), [(429, [30]), (503, [])])
def test_a_refusal_without_retry_after_waits_for_the_reset(
    status: int, sleeps: list[float], clock: Clock
) -> None:
    asked_to_wait(status, {LIMIT + "Reset": str(clock.now + 30)})
    assert clock.sleeps == sleeps


def test_a_wait_that_the_server_asked_for_holds_everybody(clock: Clock) -> None:
    limiter = RateLimiter(4)
    response = HTTPResponse(status=429, headers={"Retry-After": "30"})
    retry = RateLimitRetry.of(limiter).increment("GET", "/", response)
    retry.sleep(response)
    assert (limiter.waited, clock.sleeps) == (30, [30])


def test_without_a_word_from_the_server_the_delays_are_0_4_and_8_seconds(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    response = HTTPResponse(status=502)
    retry = RateLimitRetry.of(RateLimiter(4))
    for _ in range(3):
        retry = retry.increment("GET", "/", response)
        retry.sleep(response)
    assert clock.sleeps == [4, 8]
    assert messages(caplog) == [
        f"status 502; asking again in {seconds} s" for seconds in (0, 4, 8)
    ]
