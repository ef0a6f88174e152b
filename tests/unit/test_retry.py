"""Waits, retries and concurrent requests, with a fake clock."""

import io
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
"""Seconds until a thread that is never let through fails its test."""
YEAR = 31_536_000
TOO_CONCURRENT = b'{"detail": "above the allowed concurrency for this endpoint"}'


ENDPOINTS = ("events", "issues", "projects", "releases")


def known(limit: int, *endpoints: str) -> RateLimiter:
    """A limiter of endpoints that have answered, and told no limits."""
    limiter = RateLimiter(limit)
    for endpoint in endpoints or ("",):
        limiter.update({}, endpoint)
    return limiter


def most_at_a_time(
    limiter: RateLimiter, expected: int, endpoints: Sequence[str] = ("",)
) -> int:
    """How many of many workers were inside together; as many as expected must be."""
    together = threading.Barrier(expected, timeout=GIVE_UP)
    lock = threading.Lock()
    inside = most = 0

    def work(number: int) -> None:
        nonlocal inside, most
        with limiter.slot(endpoints[number % len(endpoints)]):
            with lock:
                inside += 1
                most = max(most, inside)
            together.wait()
            with lock:
                inside -= 1

    with ThreadPoolExecutor(40) as pool:
        list(pool.map(work, range(8 * expected)))
    return most


def messages(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records]


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_only_so_many_requests_run_at_a_time(limit: int) -> None:
    assert most_at_a_time(known(limit), limit) == limit


def test_an_endpoint_gets_one_request_at_a_time_until_it_has_answered() -> None:
    limiter = RateLimiter(4)
    assert most_at_a_time(limiter, 1) == 1
    limiter.update({})
    assert most_at_a_time(limiter, 4) == 4
    assert most_at_a_time(RateLimiter(9), 4, ENDPOINTS) == 4


def test_the_limit_is_for_all_endpoints_together() -> None:
    assert most_at_a_time(known(4, *ENDPOINTS), 4, ENDPOINTS) == 4


def test_what_the_server_allows_is_for_one_endpoint() -> None:
    limiter = known(5, *ENDPOINTS)
    limiter.update({LIMIT + "ConcurrentLimit": "2"}, "events")
    limiter.update({}, "events")  # an answer without a limit changes nothing
    assert most_at_a_time(limiter, 2, ["events"]) == 2
    assert most_at_a_time(limiter, 5, ["issues"]) == 5


def test_a_request_that_waits_for_the_first_answer_goes_on_when_it_comes() -> None:
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
    [("2", 2), ("0", 1), ("8", 4), ("", 4), ("-1", 4), ("two", 4), ("²", 4)],
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
    assert messages(caplog) == ["rate limit: waiting 30 s before the next request"]
    assert limiter.waited == 30
    clock.now += 10
    limiter.pause_for(50)
    assert limiter.waited == 60


@pytest.mark.parametrize(
    ("seconds", "sleeps", "logged"),
    [
        (0, [], []),
        (-5, [], []),
        (
            YEAR,
            [LONGEST_WAIT],
            [
                "rate limit: waiting 600 s before the next request"
                " (the server asked for 31,536,000 s)"
            ],
        ),
    ],
)
def test_a_wait_is_ten_minutes_at_most(
    seconds: float,
    sleeps: list[float],
    logged: list[str],
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    limiter = RateLimiter(4)
    limiter.pause_for(seconds)
    limiter.wait()
    assert (clock.sleeps, messages(caplog)) == (sleeps, logged)


@pytest.mark.parametrize(
    ("remaining", "reset", "sleeps"),
    [
        ("0", 30, [30]),
        ("0", 0, [1]),
        ("0", -3600, [1]),
        ("0", YEAR, [LONGEST_WAIT]),
        ("0", float("inf"), [LONGEST_WAIT]),
        ("0", float("nan"), [1]),
        ("0", "", []),
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
    """An answer whose body is still to be read."""
    return HTTPResponse(io.BytesIO(body), headers, status, preload_content=False)


def asked_to_wait(status: int, headers: dict[str, str]) -> None:
    """The first retry after such an answer."""
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
    asked_to_wait(status, {"Retry-After": said})
    assert sum(clock.sleeps) == max(seconds, least)


@pytest.mark.parametrize("said", ["soon", "-5", "nan", ""])
@pytest.mark.parametrize(("status", "sleeps"), [(429, [FULL_WINDOW]), (503, [])])
def test_a_retry_after_that_says_no_time_is_none(
    status: int, said: str, sleeps: list[float], clock: Clock
) -> None:
    asked_to_wait(status, {"Retry-After": said})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize("ahead", [-120, 6, 86_400])
@pytest.mark.parametrize("is_date", [False, True])
def test_waits_are_by_the_clock_of_the_server(
    clock: Clock, ahead: float, is_date: bool
) -> None:
    server = clock.now - ahead
    said = (
        {"Retry-After": formatdate(server + 10, usegmt=True)}
        if is_date
        else {LIMIT + "Reset": str(server + 10)}
    )
    asked_to_wait(429, {"Date": formatdate(server, usegmt=True)} | said)
    assert clock.sleeps == [10]


def test_a_local_clock_that_is_set_back_makes_no_wait_longer(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "time", lambda: clock.now - 3600 * len(clock.sleeps))
    monkeypatch.setattr(retry, "POLL", 0.5)
    asked_to_wait(429, {"Retry-After": "10"})
    assert sum(clock.sleeps) == 10


@pytest.mark.parametrize(("status", "sleeps"), [(429, [30]), (503, [])])
@pytest.mark.parametrize("remaining", [{}, {LIMIT + "Remaining": "0"}])
def test_a_refusal_without_retry_after_waits_for_the_reset(
    status: int, remaining: dict[str, str], sleeps: list[float], clock: Clock
) -> None:
    asked_to_wait(status, {LIMIT + "Reset": str(clock.now + 30), **remaining})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Reset": "None"},
        {"Reset": ""},
        {"Remaining": "0"},
        {"Remaining": "0", "Reset": "soon"},
        {"Remaining": "some"},
        {"Remaining": "-1"},
    ],
)
def test_a_429_that_tells_no_time_holds_all_for_a_full_window(
    headers: dict[str, str], clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    asked_to_wait(429, {LIMIT + name: said for name, said in headers.items()})
    assert clock.sleeps == [FULL_WINDOW]
    assert messages(caplog) == ["rate limit: waiting 60 s before the next request"]


@pytest.mark.parametrize(
    ("headers", "body"),
    [({"Remaining": "5", "ConcurrentRemaining": "0"}, b"no"), ({}, TOO_CONCURRENT)],
)
def test_a_429_about_this_moment_is_asked_again_soon_and_later_less_often(
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
    assert all(
        text.startswith("too many concurrent requests") for text in messages(caplog)
    )


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
def test_a_429_that_says_when_to_come_back_uses_up_no_retry_for_ten_minutes(
    headers: dict[str, str], clock: Clock
) -> None:
    assert refused_for_good(RateLimiter(4), lambda: refused(429, headers)) == {3}
    assert sum(clock.sleeps) == LONGEST_WAIT


def test_a_429_without_any_time_uses_up_a_retry(clock: Clock) -> None:
    left = refused_for_good(RateLimiter(4), lambda: refused(429, {}))
    assert (left, clock.sleeps) == ({3, 2, 1, 0}, [FULL_WINDOW] * 3)


def test_after_a_pause_requests_resume_one_at_a_time(clock: Clock) -> None:
    limiter = known(4)
    limiter.pause_for(30)
    limiter.update({})  # of a request that was sent before
    clock.now += 30
    for expected in (1, 2, 3, 4, 4):
        assert most_at_a_time(limiter, expected) == expected
        limiter.update({})


def test_requests_that_were_refused_together_are_not_sent_together_again() -> None:
    limiter, refusals = known(4), threading.Barrier(4, timeout=GIVE_UP)
    lock = threading.Lock()
    inside = most = 0

    def work(number: int) -> None:
        nonlocal inside, most
        with limiter.slot():
            refusals.wait()
            limiter.pause_for(5)
            limiter.rest("", 0)
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.001)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    assert most == 1


def test_a_failure_after_a_refusal_is_retried_as_usual(clock: Clock) -> None:
    retry = RateLimitRetry.of(RateLimiter(4))
    for response in (
        refused(429, {}, TOO_CONCURRENT),
        refused(503, {}),
        refused(503, {}),
    ):
        retry = retry.increment("GET", "/", response)
    retry.sleep(response)
    assert (retry.total, clock.sleeps) == (1, [4])


@pytest.mark.parametrize(
    ("said", "sleeps"), [("7", [7]), ("soon", [pytest.approx(1, rel=0.5)])]
)
def test_retry_after_counts_even_if_requests_remain(
    said: str, sleeps: list[float], clock: Clock
) -> None:
    asked_to_wait(429, {LIMIT + "Remaining": "5", "Retry-After": said})
    assert clock.sleeps == sleeps


@pytest.mark.parametrize(
    ("headers", "limit"), [({}, 3), ({LIMIT + "ConcurrentLimit": "2"}, 4)]
)
def test_a_429_about_concurrency_without_a_number_lets_one_request_less_through(
    headers: dict[str, str], limit: int
) -> None:
    limiter = known(4)
    response = refused(429, headers, TOO_CONCURRENT)
    RateLimitRetry.of(limiter).increment("GET", "/", response).sleep(response)
    assert most_at_a_time(limiter, limit) == limit
    for _ in range(5):
        limiter.reduce()
    assert most_at_a_time(limiter, 1) == 1


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
    assert messages(caplog) == [
        f"status 502; retrying in {seconds} s" for seconds in (0, 4, 8)
    ]


# Threads that are not wanted any more


def outcome_of(work: Callable[[], None], stopped: threading.Event) -> list[str]:
    """What a thread that may be stopped came to."""
    outcome = []

    def run() -> None:
        stop_with(stopped)
        try:
            work()
        except SystemExit:
            outcome.append("ended")
        else:
            outcome.append("went on")

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(GIVE_UP)
    return outcome


@pytest.mark.parametrize(
    ("is_stopped", "outcome"), [(True, ["ended"]), (False, ["went on"])]
)
def test_a_stopped_thread_ends_at_its_next_request_or_pause(
    is_stopped: bool, outcome: list[str]
) -> None:
    stopped = threading.Event()
    if is_stopped:
        stopped.set()
    assert outcome_of(lambda: pause(0), stopped) == outcome
    assert outcome_of(lambda: pause(60), stopped) == outcome
    limiter = RateLimiter(1)

    def ask() -> None:
        with limiter.slot():
            pass

    assert outcome_of(ask, stopped) == outcome
    assert most_at_a_time(limiter, 1) == 1


def test_a_thread_that_is_stopped_in_its_pause_ends_there(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped = threading.Event()
    monkeypatch.setattr(retry, "POLL", 0.5)
    monkeypatch.setattr(clock, "sleep", lambda seconds: stopped.set())
    assert outcome_of(lambda: pause(600), stopped) == ["ended"]


# The log of urllib3


def test_lines_about_these_retries_are_hidden_for_as_long_as_their_owner_lives(
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
        return [line.partition("(")[2][:5] or line for line in messages(caplog)]

    owner = Owner()
    hide_log_of_retries(owner)
    assert say_all() == ["Retry", "of a mapping", "plain"]
    del owner
    assert say_all() == ["RateL", "Retry", "of a mapping", "plain"]
    assert log.filters == []
