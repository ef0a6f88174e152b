"""One server over real sockets: the token, retries, redirects, whole bodies."""

import gzip
import json
import logging
import socket
import threading
import traceback
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.client import session as session_module
from analytics_pipeline.client.session import REDIRECTS, ApiSession, RequestStats
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import (
    AnalyticsError,
    ApiError,
    BrokenAnswer,
    HttpError,
    UnexpectedAnswer,
    Unreachable,
)
from tests.conftest import Clock
from tests.unit.canned import (
    PATH,
    TOKEN,
    Answer,
    CannedServer,
    Serve,
    cut_short,
    json_answer,
    page,
    read,
    redirect,
    refusal,
)

RETRIED = [429, 500, 502, 503, 504]


def get(
    server: CannedServer | str,
    params: dict[str, str] | None = None,
    stats: RequestStats | None = None,
) -> list[Any]:
    """The ids of a page of things."""
    url = server if isinstance(server, str) else server.url
    answer = ApiSession(url, TOKEN, 4).get(PATH, params or {}, stats or RequestStats())
    return [record["id"] for record in json.loads(answer.content)["data"]]


def test_a_request_carries_the_token_and_asks_for_json(serve: Serve) -> None:
    server = serve(page("1"))
    assert get(server, {"query": "", "a": "b c"}) == ["1"]
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", PATH)
    assert request.query == {"query": "", "a": "b c"}
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["accept"] == "application/json"


def test_a_compressed_answer_is_read(serve: Serve) -> None:
    text = gzip.compress(b'{"data": [{"id": "1"}]}')
    assert get(serve(Response(200, {"Content-Encoding": "gzip"}, text))) == ["1"]


def test_workers_may_count_their_requests_at_the_same_time() -> None:
    stats = RequestStats()

    def count() -> None:
        for _ in range(500):
            stats.count(requests=1, replaced=2)

    threads = [threading.Thread(target=count) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (stats.requests, stats.replaced) == (2000, 4000)


# Retries


@pytest.mark.parametrize("status", RETRIED)
def test_a_passing_failure_is_retried_after_0_4_and_8_seconds(
    serve: Serve, clock: Clock, status: int
) -> None:
    stats = RequestStats()
    assert get(serve(*[refusal(status)] * 3, page("1")), stats=stats) == ["1"]
    assert (clock.sleeps, stats.requests) == ([4, 8], 4)


@pytest.mark.parametrize("status", RETRIED)
def test_a_lasting_failure_shows_the_status_and_the_detail(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(refusal(status, "gone fishing"))
    with pytest.raises(HttpError, match=f"{PATH}: {status} .*gone fishing") as it:
        get(server, {"query": "private"})
    assert it.value.status == status
    assert "private" not in str(it.value)
    assert (len(server.requests), clock.sleeps) == (4, [4, 8])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 501, 599])
def test_any_other_failure_is_told_at_once(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(refusal(status, "gone fishing"))
    with pytest.raises(HttpError, match=f"{status}.*gone fishing"):
        get(server)
    assert (len(server.requests), clock.sleeps) == (1, [])


def test_the_server_says_how_long_to_wait(serve: Serve, clock: Clock) -> None:
    get(serve(refusal(429, Retry_After="7"), refusal(503, Retry_After="9"), page()))
    assert clock.sleeps == [7, 9]


def test_a_used_up_limit_holds_the_next_page_back(serve: Serve, clock: Clock) -> None:
    first = page("1", cursor="a")
    first.headers["X-Sentry-Rate-Limit-Remaining"] = "0"
    first.headers["X-Sentry-Rate-Limit-Reset"] = str(clock.now + 30)
    assert len(read(serve(first, page("2")))) == 2
    assert clock.sleeps == [30]


def cut_between_chunks(handler: BaseHTTPRequestHandler, good: Response) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"a\r\n" + b'{"data": [' + b"\r\n")


def cut_gzip(handler: BaseHTTPRequestHandler, good: Response) -> Response:
    text = gzip.compress(good.body)
    return Response(200, {"Content-Encoding": "gzip"}, b"\0" + text[1:])


def hung_up(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """The server closes the connection without sending a byte."""


BROKEN = [cut_short, cut_between_chunks, cut_gzip, hung_up]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_answer_is_asked_for_again(
    serve: Serve, clock: Clock, broken: Answer
) -> None:
    stats = RequestStats()
    assert get(serve(*[broken] * 3, page("1")), stats=stats) == ["1"]
    assert (clock.sleeps, stats.requests) == ([4, 8], 4)


@pytest.mark.parametrize("broken", BROKEN)
def test_an_answer_that_stays_broken_is_an_error(
    serve: Serve, clock: Clock, broken: Answer
) -> None:
    server = serve(broken)
    with pytest.raises(BrokenAnswer, match=f"^{server.url}{PATH}: ") as error:
        get(server, {"query": "private"})
    assert "private" not in str(error.value)
    assert "object at" not in str(error.value)
    assert (len(server.requests), clock.sleeps) == (4, [4, 8])


def test_a_server_that_falls_silent_is_an_error(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "TIMEOUT", (10, 0.01))
    is_over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler, good: Response) -> None:
        is_over.wait(30)

    try:
        with pytest.raises(BrokenAnswer, match="timed out"):
            get(serve(silent))
    finally:
        is_over.set()
    assert clock.sleeps == [4, 8]


def test_a_closed_port_is_an_error_in_words(clock: Clock) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(Unreachable, match="refused") as error:
            get(f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert "object at" not in str(error.value)
    assert clock.sleeps == [4, 8]


def test_a_server_without_tls_is_an_error_in_words(serve: Serve, clock: Clock) -> None:
    server = serve(page("1"))
    with pytest.raises(Unreachable, match="SSL") as error:
        get(server.url.replace("http:", "https:"))
    assert "object at" not in str(error.value)
    assert server.requests == []


@pytest.mark.parametrize("base_url", ["https://127.0.0.1:99999", "https://a b"])
def test_an_impossible_address_is_not_retried(clock: Clock, base_url: str) -> None:
    with pytest.raises(Unreachable):
        get(base_url)
    assert clock.sleeps == []


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_server_is_followed(serve: Serve, status: int) -> None:
    server = serve(redirect("/v2/things/?a=b", status), page("1"))
    assert get(server) == ["1"]
    assert (server.requests[1].path, server.requests[1].query) == (
        "/v2/things/",
        {"a": "b"},
    )
    assert server.requests[1].headers["authorization"] == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_the_token_is_not_sent_where_a_redirect_leads(
    serve: Serve, status: int
) -> None:
    other = serve(page("stolen"))
    with pytest.raises(ApiError, match=f"redirects to {other.url}, and the token"):
        get(serve(redirect(other.url + PATH, status)))
    assert other.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "http://localhost:{port}/",
        "https://127.0.0.1:{port}/",
        "http://127.0.0.1/",
        "//127.0.0.1/",
        "http://user@127.0.0.1:{port}/",
        "http://127.0.0.1:{port}@localhost/",
        "ftp://127.0.0.1:{port}/",
        "mailto:somebody",
    ],
)
def test_another_host_scheme_or_port_is_another_server(
    serve: Serve, target: str
) -> None:
    server = serve(page())
    port = server.url.rpartition(":")[2]
    first = serve(redirect(target.format(port=port)))
    own = serve(redirect(target.format(port=first.url.rpartition(":")[2])))
    for asked in (first, own):
        with pytest.raises(ApiError, match="the token is not sent there"):
            get(asked)
        assert len(asked.requests) == 1
    assert server.requests == []


def test_a_redirect_to_nowhere_is_an_error_in_words(serve: Serve) -> None:
    with pytest.raises(
        UnexpectedAnswer, match=f"{PATH} redirects to what is no address"
    ):
        get(serve(redirect("http://[")))


def test_redirects_without_end_are_an_error(serve: Serve) -> None:
    server = serve(redirect(PATH))
    with pytest.raises(HttpError, match="302 Found"):
        get(server)
    assert len(server.requests) == REDIRECTS


# The token


def test_a_login_in_netrc_is_never_used(
    serve: Serve, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = elsewhere / ".netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve(redirect(PATH), page())
    get(server)
    assert [request.headers["authorization"] for request in server.requests] == [
        f"Bearer {TOKEN}"
    ] * 2


def test_the_token_is_in_no_text_of_any_object(serve: Serve) -> None:
    server = serve(refusal(401))
    session = ApiSession(server.url, TOKEN, 4)
    objects: list[Any] = [session, *vars(session).values()]
    objects += [
        thing for one in objects for thing in getattr(one, "__dict__", {}).values()
    ]
    with pytest.raises(HttpError) as error:
        session.get(PATH, {}, RequestStats())
    objects += [error.value, error.value.args, error.value.response]
    assert TOKEN not in " ".join(f"{thing} {thing!r}" for thing in objects)


@pytest.mark.parametrize(
    "answer",
    [
        refusal(401, f"bad header: Bearer {TOKEN}"),
        json_answer(400, {"request": {"Authorization": f"Bearer {TOKEN}"}}),
        Response(500, {}, f"<pre>Authorization: Bearer {TOKEN}</pre>".encode()),
        Response(200, {}, f"<pre>Authorization: Bearer {TOKEN}</pre>".encode()),
        Response(400, {}, b"<p>" + b"x" * 110 + TOKEN.encode()),
        redirect("http://127.0.0.1:1/"),
        page(""),
        cut_short,
    ],
)
def test_the_token_is_in_no_error_and_no_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AnalyticsError) as error:
        read(serve(answer))
    text = "".join(traceback.format_exception(error.value)) + caplog.text
    assert TOKEN[:6] not in text
