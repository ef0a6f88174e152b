"""Windows that a server refuses: since it keeps nothing so old, or by chance."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from urllib.parse import parse_qs, urlsplit

import pytest

from analytics_pipeline.client.page import Page, no_rows
from analytics_pipeline.client.pagination import Client
from analytics_pipeline.client.time_filter import (
    CONFIRMATIONS,
    RECENT,
    Span,
    TimeFilter,
)
from analytics_pipeline.client.time_windows import SECOND, TimeWindow, floor
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import ApiError, HttpError
from tests.conftest import Clock
from tests.unit.canned import (
    NOON,
    PATH,
    THINGS,
    Answer,
    CannedServer,
    Reader,
    Serve,
    make_client,
    page,
    refusal,
)

DAY = timedelta(days=1)
NOW = floor(datetime.now(UTC))
OLD = (NOW - 200 * DAY, NOW - 100 * DAY)


def forgetful(status: int, kept: timedelta = 90 * DAY) -> Answer:
    """Refuses each window that ends before what it keeps."""

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        query = parse_qs(urlsplit(handler.path).query)
        end = datetime.fromisoformat(query["end"][0]).replace(tzinfo=UTC)
        return refusal(status) if end <= NOW - kept else page("1")

    return answer


def read_windows(client: Client, *spans: Span) -> list[str]:
    """The ids of a list of each span."""
    reader = Reader(replace(THINGS, filters_time=True))
    windows = [
        TimeWindow(reader, start, end, workers=1, time_filter=client.time_filter)
        for start, end in spans
    ]
    return [row["id"] for _, each in client.pages(windows) for row in each.records]


def asked(server: CannedServer) -> list[Span]:
    """The span of each request for things, about now cut to `NOW`."""
    spans = []
    for request in server.requests:
        if request.path == PATH:
            start, end = (
                datetime.fromisoformat(request.query[name]).replace(tzinfo=UTC)
                for name in ("start", "end")
            )
            spans.append((start, NOW if end >= NOW else end))
    return spans


@pytest.mark.parametrize("status", [400, 500])
def test_a_window_before_all_that_a_server_keeps_is_empty_without_any_waiting(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(forgetful(status))
    client = make_client(server.url)
    assert read_windows(client, OLD) == []
    last_second = (OLD[1] - SECOND, OLD[1])
    requests = [OLD, (OLD[0], NOW)] + [last_second] * CONFIRMATIONS
    assert asked(server)[: len(requests)] == requests
    assert clock.sleeps == []


@pytest.mark.parametrize("days", [2, 30, 90, 99])
def test_up_to_when_a_server_has_forgotten_all_is_found_to_the_day(
    serve: Serve, days: int
) -> None:
    server = serve(forgetful(500, days * DAY))
    client = make_client(server.url)
    assert read_windows(client, OLD) == []
    assert client.time_filter.kept_from is not None
    assert -DAY < client.time_filter.kept_from - (NOW - days * DAY) <= SECOND
    assert len(server.requests) <= 2 + 2 * (CONFIRMATIONS + 1) + 7
    before = len(server.requests)
    forgotten = (OLD[0], NOW - (days + 1) * DAY)
    assert read_windows(client, forgotten) == []
    assert len(server.requests) == before


def test_later_windows_of_other_lists_that_lie_before_it_are_not_asked(
    serve: Serve,
) -> None:
    server = serve(forgetful(500))
    client = make_client(server.url)
    read_windows(client, OLD)
    before = len(server.requests)
    older, longer = (OLD[0], OLD[1] - DAY), (OLD[0], NOW - DAY)
    assert read_windows(client, OLD, older) == []
    assert len(server.requests) == before
    assert read_windows(client, longer) == ["1"]
    assert asked(server)[before:] == [longer]


@pytest.mark.parametrize("failures", range(1, 6))
@pytest.mark.parametrize("status", [400, 500])
def test_a_window_that_was_refused_by_chance_loses_nothing(
    serve: Serve, status: int, failures: int
) -> None:
    whole = page("of the whole span")
    again = [refusal(status)] * (failures - 1)
    server = serve(refusal(status), whole, *again, page("of a second"), page("1"))
    client = make_client(server.url)
    assert read_windows(client, OLD) == ["1"]
    assert (asked(server)[-1], len(server.requests)) == (OLD, failures + 3)
    assert client.time_filter.kept_from is None


@pytest.mark.parametrize("failures", [1, 2, 3, 4])
def test_a_server_that_fails_for_a_while_is_asked_with_the_usual_retries(
    serve: Serve, clock: Clock, failures: int
) -> None:
    server = serve(*[refusal(500)] * failures, page("1"))
    client = make_client(server.url)
    assert read_windows(client, OLD) == ["1"]
    assert client.time_filter.kept_from is None
    assert clock.sleeps == [[], [], [4], [4, 8]][failures - 1]


def test_a_window_that_is_asked_again_has_the_usual_retries(
    serve: Serve, clock: Clock
) -> None:
    failing = [refusal(500)] * 3
    server = serve(refusal(500), page("whole"), page("second"), *failing, page("1"))
    assert read_windows(make_client(server.url), OLD) == ["1"]
    assert clock.sleeps == [4, 8]


def test_a_server_that_answers_nothing_has_forgotten_nothing(
    serve: Serve, clock: Clock
) -> None:
    server = serve(refusal(500))
    client = make_client(server.url)
    with pytest.raises(HttpError) as error:
        read_windows(client, OLD)
    assert (error.value.status, client.time_filter.kept_from) == (500, None)
    assert asked(server) == [OLD] + [(OLD[0], NOW)] * 4
    assert clock.sleeps == [4, 8]


@pytest.mark.parametrize("status", [401, 403, 422])
@pytest.mark.parametrize("before", [[], [refusal(500), page("whole"), refusal(500)]])
def test_another_refusal_is_an_error_at_once(
    serve: Serve, status: int, before: Sequence[Response]
) -> None:
    server = serve(*before, refusal(status))
    client = make_client(server.url)
    with pytest.raises(HttpError) as error:
        read_windows(client, OLD)
    assert (error.value.status, client.time_filter.kept_from) == (status, None)
    assert len(asked(server)) == len(before) + 1


def test_a_window_that_has_just_ended_has_the_usual_retries(
    serve: Serve, clock: Clock
) -> None:
    server = serve(*[refusal(500)] * 3, page("1"))
    young = (OLD[0], NOW)
    assert read_windows(make_client(server.url), young) == ["1"]
    assert (asked(server), clock.sleeps) == ([young] * 4, [4, 8])


def test_a_young_window_that_stays_refused_is_an_error(serve: Serve) -> None:
    client = make_client(serve(refusal(500)).url)
    with pytest.raises(ApiError):
        read_windows(client, (OLD[0], NOW))
    assert client.time_filter.kept_from is None


def test_the_last_hour_is_asked_for_with_the_usual_retries() -> None:
    edge = datetime.now(UTC) - RECENT
    minute = timedelta(minutes=1)
    asked_with: list[int] = []

    def ask(window: Span, statuses: Collection[int]) -> Page:
        asked_with.append(500 in statuses)
        return no_rows()

    for end in (edge - minute, edge + minute):
        TimeFilter().first_page((edge - DAY, end), ask)
    assert asked_with == [False, True]


@pytest.mark.parametrize(("told", "at_a_time"), [("2", 2), ("9", 4), ("", 4)])
def test_how_many_windows_a_server_takes_at_a_time_is_known_from_its_answers(
    serve: Serve, told: str, at_a_time: int
) -> None:
    answer = page("1")
    answer.headers["X-Sentry-Rate-Limit-ConcurrentLimit"] = told
    client = make_client(serve(answer).url, workers=4)
    assert read_windows(client, (OLD[0], NOW)) == ["1"]
    assert client.time_filter.at_a_time == at_a_time


def test_once_it_is_asked_whether_the_server_keeps_rows_so_old() -> None:
    time_filter = TimeFilter()
    assert [time_filter.is_unsure_of(NOON) for _ in range(3)] == [True, False, False]


def test_it_is_not_asked_of_what_is_known_to_be_forgotten() -> None:
    time_filter = TimeFilter()
    time_filter.kept_from = NOON
    assert not time_filter.is_unsure_of(NOON)


@pytest.mark.parametrize("good", [0, 1])
def test_an_outage_while_it_is_looked_for_loses_nothing(
    serve: Serve, good: int
) -> None:
    refused = refusal(500)
    server = serve(
        refused,
        page("up to now"),
        *[refused] * CONFIRMATIONS,
        *[page("up to now")] * good,
        refused,
    )
    client = make_client(server.url)
    if good:  # it begins when it is clear already that the window is forgotten
        assert read_windows(client, OLD) == []
        assert client.time_filter.kept_from == OLD[1]
    else:
        with pytest.raises(HttpError, match="500"):
            read_windows(client, OLD)
        assert client.time_filter.kept_from is None
