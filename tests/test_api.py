"""The session and the cursor loop against real sockets; see also test_link.py."""

import gzip
import json
import logging
import socket
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.api import REDIRECTS, Api, Tally
from analytics_pipeline.auth import check_base_url
from analytics_pipeline.demo import DemoServer, Response
from analytics_pipeline.errors import (
    AnalyticsError,
    ApiError,
    ConfigurationError,
    CursorLoop,
    HttpError,
    InsecureUrl,
    MissingField,
    UnexpectedAnswer,
    Unreachable,
)
from analytics_pipeline.lists import Lists
from analytics_pipeline.pages import Page
from analytics_pipeline.servers import SERVERS
from tests.conftest import Clock

TOKEN = "s3cr3t-t0ken"
PATH = "/v1/things/"
RETRIED = [429, 500, 502, 503, 504]

Answer = Response | Callable[[BaseHTTPRequestHandler, Response], Response | None]


class Server(DemoServer):
    """Gives these answers, whatever it is asked: one after the other; the last stays."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(projects=[], events=0, issues=0, releases=0)
        self._given = list(answers)
        self.fail(self._next, times=sys.maxsize)

    def _next(self, handler: BaseHTTPRequestHandler, good: Response) -> Response | None:
        more = len(self._given) > 1
        answer = self._given.pop(0) if more else self._given[0]
        return answer(handler, good) if callable(answer) else answer


Serve = Callable[..., Server]


@pytest.fixture
def serve() -> Iterator[Serve]:
    with ExitStack() as stack:

        def start(*answers: Answer) -> Server:
            return stack.enter_context(Server(*answers))

        yield start


def json_response(
    status: int, value: Any, headers: dict[str, str] | None = None
) -> Response:
    kind = {"Content-Type": "application/json"}
    return Response(status, kind | (headers or {}), json.dumps(value).encode())


def page(*ids: Any, cursor: str | None = None, host: str = "http://host") -> Response:
    """A good answer; with a cursor there is more."""
    link = f'<{host}/?cursor={cursor}>; rel="next"; results="true"; cursor="{cursor}"'
    rows = [{"id": id} for id in ids]
    return json_response(200, {"data": rows}, {"Link": link} if cursor else None)


def said(status: int, words: str = "no", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json_response(status, {"detail": words}, named)


def body(text: bytes, kind: str = "application/json") -> Response:
    return Response(200, {"Content-Type": kind}, text)


def redirect(target: str, status: int = 302) -> Response:
    return Response(status, {"Location": target}, b"")


def read(
    server: Server | str,
    path: str = PATH,
    *,
    params: dict[str, str] | None = None,
    envelope: str | None = "data",
    tally: Tally | None = None,
) -> list[dict[str, Any]]:
    api = Api(server if isinstance(server, str) else server.url, TOKEN)
    pages = api.pages(
        path, params or {}, envelope=envelope, key="id", tally=tally or Tally()
    )
    return [row for page in pages for row in page.rows]


def test_a_request_carries_the_token_and_asks_for_json(serve: Serve) -> None:
    server = serve(page("1"))
    assert read(server, params={"query": "", "a": "b c"}) == [{"id": "1"}]
    (request,) = server.requests
    assert (request.method, request.path) == ("GET", PATH)
    assert request.query == {"query": "", "a": "b c"}
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    assert request.headers["accept"] == "application/json"


def test_pages_are_read_by_their_cursors_with_the_same_parameters(serve: Serve) -> None:
    server = serve(page("1", cursor="b+w=="), page(cursor="0:2:0"), page("2", "3"))
    rows = read(server, params={"limit": "2"})
    assert [row["id"] for row in rows] == ["1", "2", "3"]
    assert [request.query for request in server.requests] == [
        {"limit": "2"},
        {"limit": "2", "cursor": "b+w=="},
        {"limit": "2", "cursor": "0:2:0"},
    ]


@pytest.mark.parametrize(
    ("answer", "envelope"),
    [
        ({"data": [{"id": 1}]}, "data"),
        ({"data": {"id": 1}}, "data"),
        ([{"id": 1}], None),
        ({"id": 1}, None),
    ],
)
def test_rows_stand_in_an_envelope_or_bare_and_alone_or_in_a_list(
    serve: Serve, answer: Any, envelope: str | None
) -> None:
    server = serve(json_response(200, answer))
    assert read(server, envelope=envelope) == [{"id": 1}]


def test_a_slash_at_the_end_of_base_url_does_not_matter(serve: Serve) -> None:
    server = serve(page())
    read(server.url + "/")
    assert server.requests[0].path == PATH


def test_a_link_to_another_host_is_not_followed(serve: Serve) -> None:
    other = serve(page("stolen"))
    server = serve(page("1", cursor="c", host=other.url), page("2"))
    assert read(server) == [{"id": "1"}, {"id": "2"}]
    assert (len(server.requests), other.requests) == (2, [])


def test_a_cursor_that_comes_again_ends_the_reading(serve: Serve) -> None:
    server = serve(page("1", cursor="a"), page("2", cursor="b"), page("3", cursor="a"))
    with pytest.raises(CursorLoop, match="'a' for the second time, after 3 rows") as it:
        read(server)
    assert it.value.rows == [{"id": "3"}]
    assert len(server.requests) == 3


def test_more_rows_without_a_cursor_is_an_error_with_the_place(serve: Serve) -> None:
    answer = json_response(
        200, {"data": []}, {"Link": '<>; rel="next"; results="true"'}
    )
    with pytest.raises(UnexpectedAnswer, match=f"{PATH}: the Link header"):
        read(serve(answer))


def test_requests_and_replaced_characters_are_counted(serve: Serve) -> None:
    tally = Tally()
    bad = body(rb'{"data": [{"id": "a\u0000b"}]}')
    assert read(serve(said(503), bad), tally=tally) == [{"id": "a\ufffdb"}]
    assert (tally.requests, tally.replaced) == (2, 1)


# Retries


@pytest.mark.parametrize("status", RETRIED)
def test_a_passing_failure_is_retried_after_0_4_and_8_seconds(
    serve: Serve, clock: Clock, status: int
) -> None:
    tally = Tally()
    assert read(serve(*[said(status)] * 3, page("1")), tally=tally) == [{"id": "1"}]
    assert (clock.sleeps, tally.requests) == ([4, 8], 4)


@pytest.mark.parametrize("status", RETRIED)
def test_a_lasting_failure_shows_the_status_and_the_words(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(said(status, "gone fishing"))
    with pytest.raises(HttpError, match=f"{PATH}: {status} .*gone fishing") as it:
        read(server, params={"query": "private"})
    assert it.value.status == status
    assert "private" not in str(it.value)
    assert (len(server.requests), clock.sleeps) == (4, [4, 8])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 501, 599])
def test_any_other_failure_is_told_at_once(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(said(status, "gone fishing"))
    with pytest.raises(HttpError, match=f"{status}.*gone fishing"):
        read(server)
    assert (len(server.requests), clock.sleeps) == (1, [])


@pytest.mark.parametrize(
    ("headers", "text", "words"),
    [
        ({}, b'{"detail": "Invalid token"}', "'Invalid token'"),
        ({}, b'{"detail": [{"msg": "bad"}]}', """'[{"msg":"bad"}]'"""),
        ({}, b'{"error": "other"}', """'{"error":"other"}'"""),
        ({}, b'["a"]', """'["a"]'"""),
        ({}, b"", "400 Bad Request, ''"),
        (
            {},
            b"<html><h1>Server  Error</h1>\n<p>(500)</p></html>",
            "Server Error (500)",
        ),
        ({}, b"\xff\xfe\x00", "400 Bad Request"),
        (
            {"X-Sentry-Replacement-Endpoint": "/api/0/new/"},
            b"{}",
            "withdrawn this address for /api/0/new/",
        ),
    ],
)
def test_the_words_of_a_failure_are_shown(
    serve: Serve, headers: dict[str, str], text: bytes, words: str
) -> None:
    with pytest.raises(HttpError) as error:
        read(serve(Response(400, headers, text)))
    assert words in str(error.value)


def test_a_long_explanation_is_shortened(serve: Serve) -> None:
    with pytest.raises(HttpError) as error:
        read(serve(said(400, "x" * 100_000)))
    assert len(str(error.value)) < 500


def test_the_server_says_how_long_to_wait(serve: Serve, clock: Clock) -> None:
    read(serve(said(429, Retry_After="7"), said(503, Retry_After="9"), page()))
    assert clock.sleeps == [7, 9]


def test_a_used_up_limit_holds_the_next_page_back(serve: Serve, clock: Clock) -> None:
    first = page("1", cursor="a")
    first.headers["X-Sentry-Rate-Limit-Remaining"] = "0"
    first.headers["X-Sentry-Rate-Limit-Reset"] = str(clock.now + 30)
    assert len(read(serve(first, page("2")))) == 2
    assert clock.sleeps == [30]


def cut_short(handler: BaseHTTPRequestHandler, good: Response) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')


def cut_between_chunks(handler: BaseHTTPRequestHandler, good: Response) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"a\r\n" + b'{"data": [' + b"\r\n")


def cut_gzip(handler: BaseHTTPRequestHandler, good: Response) -> Response:
    text = gzip.compress(good.body)
    return Response(200, {"Content-Encoding": "gzip"}, b"\0" + text[1:])


def hung_up(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """Not a byte."""


BROKEN = [cut_short, cut_between_chunks, cut_gzip, hung_up]


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_answer_is_asked_for_again(
    serve: Serve, clock: Clock, broken: Answer
) -> None:
    tally = Tally()
    assert read(serve(*[broken] * 3, page("1")), tally=tally) == [{"id": "1"}]
    assert (clock.sleeps, tally.requests) == ([4, 8], 4)


@pytest.mark.parametrize("broken", BROKEN)
def test_an_answer_that_stays_broken_is_an_error(
    serve: Serve, clock: Clock, broken: Answer
) -> None:
    server = serve(broken)
    with pytest.raises(Unreachable, match=f"^{server.url}{PATH}: ") as error:
        read(server, params={"query": "private"})
    assert "private" not in str(error.value)
    assert (len(server.requests), clock.sleeps) == (4, [4, 8])


def test_a_closed_port_is_an_error_in_words(clock: Clock) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(Unreachable, match="refused") as error:
            read(f"http://127.0.0.1:{bound.getsockname()[1]}")
    assert "object at" not in str(error.value)
    assert clock.sleeps == [4, 8]


@pytest.mark.parametrize("base_url", ["https://127.0.0.1:99999", "https://a b"])
def test_an_impossible_address_is_not_retried(clock: Clock, base_url: str) -> None:
    with pytest.raises(AnalyticsError):
        read(base_url)
    assert clock.sleeps == []


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_server_is_followed(serve: Serve, status: int) -> None:
    server = serve(redirect("/v2/things/?a=b", status), page("1"))
    assert read(server) == [{"id": "1"}]
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
        read(serve(redirect(other.url + PATH, status)))
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
            read(asked)
        assert len(asked.requests) == 1
    assert server.requests == []


def test_a_redirect_to_nowhere_is_an_error_in_words(serve: Serve) -> None:
    with pytest.raises(
        UnexpectedAnswer, match=f"{PATH} redirects to what is no address"
    ):
        read(serve(redirect("http://[")))


def test_redirects_without_end_are_an_error(serve: Serve) -> None:
    server = serve(redirect(PATH))
    with pytest.raises(HttpError, match="302 Found"):
        read(server)
    assert len(server.requests) == REDIRECTS


# Answers of another shape


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (b"<!doctype html><title>Log in</title>", "text/html", "text/html .*'Log in'"),
        (b"", "application/json", "with application/json"),
        (b"{", "application/json", "'{'; check base_url and api"),
        (b"[" * 100_000, "application/json", "nested too deeply"),
    ],
)
def test_what_is_not_json_is_named_and_shown(
    serve: Serve, text: bytes, kind: str, words: str
) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"did not answer with JSON.*{words}"):
        read(serve(body(text, kind)))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ({"rows": []}, "has no 'data', but is {\"rows\":\\[\\]}"),
        ([{"id": 1}], "has no 'data'"),
        ("text", "has no 'data', but is \"text\""),
        (None, "has no 'data', but is null"),
        ({"data": None}, "rows are expected, but null came"),
        ({"data": "text"}, "rows are expected"),
        ({"data": [{"id": 1}, 2]}, "row 2 of the page is not an object, but 2"),
        ({"data": [[]]}, "row 1 of the page is not an object"),
        ({"data": [None]}, "row 1 of the page is not an object, but null"),
    ],
)
def test_an_answer_of_another_shape_is_named_and_shown(
    serve: Serve, answer: Any, words: str
) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"{PATH}: .*{words}"):
        read(serve(json_response(200, answer)))


@pytest.mark.parametrize(
    "row",
    [{}, {"id": None}, {"id": ""}, {"id": True}, {"id": 1.5}, {"id": []}, {"id": {}}],
)
def test_a_row_without_a_usable_key_is_named_and_shown(serve: Serve, row: Any) -> None:
    answer = json_response(200, {"data": [{"id": "1"}, {"id": 2}, row]})
    with pytest.raises(
        MissingField, match="row 3 of the page has no usable 'id'"
    ) as it:
        read(serve(answer))
    assert str(it.value).endswith(json.dumps(row, separators=(",", ":")))


# Addresses


def test_slugs_stay_in_their_place_of_the_path(serve: Serve) -> None:
    server = serve(page())
    lists = Lists(Api(server.url, TOKEN), SERVERS["v1"], "a/b ?#é")
    assert list(lists.pages("events", "c&d/../%2F", Tally())) == [Page([])]
    assert server.requests[0].path == (
        "/v1/projects/a%2Fb%20%3F%23%C3%A9/c%26d%2F..%2F%252F/events/"
    )
    assert server.requests[0].query == {}


@pytest.mark.parametrize(
    "base_url",
    [
        "https://errors.example.com",
        "https://errors.example.com:8443/prefix",
        "http://localhost:8000",
        "http://a.localhost",
        "http://127.0.0.1:9000",
        "http://127.8.8.8",
        "http://[::1]:9000",
    ],
)
def test_https_and_this_machine_are_safe(base_url: str) -> None:
    check_base_url(base_url, allow_http=False)


@pytest.mark.parametrize(
    "base_url",
    [
        "http://errors.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://2130706433",
        "HTTP://errors.example.com",
    ],
)
def test_http_to_another_machine_has_to_be_allowed(base_url: str) -> None:
    with pytest.raises(InsecureUrl, match="use https://"):
        Api(base_url, TOKEN)
    Api(base_url, TOKEN, allow_http=True)


@pytest.mark.parametrize(
    "base_url",
    [
        "",
        "errors.example.com",
        "localhost:8000",
        "/api",
        "ftp://errors.example.com",
        "https://",
        "https://:443",
        "https://[::1",
        "https://user:word@errors.example.com",
        "https://:word@errors.example.com",
        "https://errors.example.com?a=b",
        "https://errors.example.com#a",
    ],
)
def test_what_is_no_plain_address_is_refused(base_url: str) -> None:
    with pytest.raises(InsecureUrl, match="base_url"):
        Api(base_url, TOKEN, allow_http=True)


# The token


def test_a_login_in_netrc_is_never_used(
    serve: Serve, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = elsewhere / ".netrc"
    netrc.write_text("machine 127.0.0.1 login mallory password hunter2\n")
    monkeypatch.setenv("NETRC", str(netrc))
    server = serve(redirect(PATH), page())
    read(server)
    assert [request.headers["authorization"] for request in server.requests] == [
        f"Bearer {TOKEN}"
    ] * 2


@pytest.mark.parametrize(
    "token", ["", " ", "s3 cr3t", "s3cr3t\n", " s3cr3t", "s3cr3t\r\nX: y", "s3cr3€t"]
)
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ConfigurationError, match="auth_token") as error:
        Api("https://errors.example.com", token)
    assert "s3" not in str(error.value)


def test_the_token_is_in_no_text_of_any_object(serve: Serve) -> None:
    server = serve(said(401))
    api = Api(server.url, TOKEN)
    objects: list[Any] = [api, api.gate, *vars(api).values()]
    objects += [
        thing for one in objects for thing in getattr(one, "__dict__", {}).values()
    ]
    with pytest.raises(HttpError) as error:
        api.get(PATH, {}, Tally())
    objects += [error.value, error.value.args, error.value.response]
    assert TOKEN not in " ".join(f"{thing} {thing!r}" for thing in objects)


@pytest.mark.parametrize(
    "answer",
    [
        said(401, f"bad header: Bearer {TOKEN}"),
        json_response(400, {"request": {"Authorization": f"Bearer {TOKEN}"}}),
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
