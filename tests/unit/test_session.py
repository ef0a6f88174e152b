"""One server over real sockets: the token, retries, redirects, whole bodies."""

import gzip
import json
import logging
import pickle
import random
import socket
import ssl
import threading
import time
import traceback
from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from itertools import permutations, repeat
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
import requests
from dlt.common.utils import get_exception_trace_chain

from analytics_pipeline.client import session as session_module
from analytics_pipeline.client.retry import LONGEST_WAIT, RateLimiter, RequestStats
from analytics_pipeline.client.session import (
    REDIRECTS,
    ApiSession,
    is_loopback,
)
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import (
    AnalyticsError,
    ApiError,
    ConfigurationError,
    HttpError,
    UnexpectedAnswer,
    Unreachable,
)
from analytics_pipeline.secrets import masked
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

OWN_CERTIFICATE = """\
-----BEGIN CERTIFICATE-----
MIIBgzCCASqgAwIBAgIUH1VDBg/fW0ifmAtlCT+HxtBJc7swCgYIKoZIzj0EAwIw
DjEMMAoGA1UEAwwDb3duMCAXDTI2MTEzMDA2MTA0MFoYDzIxMjYxMTA2MDYxMDQw
WjAOMQwwCgYDVQQDDANvd24wWTATBgcqhkjOPQIBBggqhkjOPQMBBwNCAARuNxuQ
6RwEpexVrJG3rkWDE74df/KGplbpDtxaQccfAqY0gavfeqSpbPPcPkXi6egRo/Jj
zyENcfsDv2xzikd8o2QwYjAdBgNVHQ4EFgQUxoh7+Zjj93ligWhghKPp5pdmSvIw
HwYDVR0jBBgwFoAUxoh7+Zjj93ligWhghKPp5pdmSvIwDwYDVR0TAQH/BAUwAwEB
/zAPBgNVHREECDAGhwR/AAABMAoGCCqGSM49BAMCA0cAMEQCIEj/o/ANJvhQyG1r
hSqXkjsFAf+ekDQ8LtFtWUaSOW7hAiAhLtMDCx1ELTD9zBb1RujYN1fgIX1IEqYW
RdxCm1HwJg==
-----END CERTIFICATE-----
-----BEGIN EC PRIVATE KEY-----
MHcCAQEEIANJbuIEDR2gRtf3op8LgaqGtGfaeAar5bksnVzwRGROoAoGCCqGSM49
AwEHoUQDQgAEbjcbkOkcBKXsVayRt65FgxO+HX/yhqZW6Q7cWkHHHwKmNIGr33qk
qWzz3D5F4unoEaPyY88hDXH7A79sc4pHfA==
-----END EC PRIVATE KEY-----
"""
"""Self-signed, of 127.0.0.1, with its key; for a hundred years."""
RETRIED = [500, 502, 503, 504]


def get(
    server: CannedServer | str,
    params: dict[str, str] | None = None,
    stats: RequestStats | None = None,
) -> list[Any]:
    """The ids of a page of things."""
    url = server if isinstance(server, str) else server.url
    session = ApiSession(url, TOKEN, 4)
    answer = session.get(PATH, params or {}, stats or RequestStats())
    return [record["id"] for record in json.loads(answer.content)["data"]]


def drop_by_drop(body: Iterable[int], headers: dict[str, str] | None = None) -> Answer:
    """An answer whose bytes come one by one, for as long as they are taken."""

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> None:
        handler.send_response(200)
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        with suppress(OSError):
            for byte in body:
                handler.wfile.write(bytes([byte]))
                handler.wfile.flush()

    return answer


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
    packed = {"Content-Encoding": "gzip"}
    assert get(serve(Response(200, packed, text))) == ["1"]
    assert get(serve(drop_by_drop(text, packed))) == ["1"]


def test_an_answer_that_is_too_large_unpacked_is_an_error_at_once(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LARGEST_BODY", 1 << 20)
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 1 << 20
    server = serve(Response(200, {"Content-Encoding": "gzip"}, bomb), page("1"))
    with pytest.raises(
        UnexpectedAnswer, match=f"^{server.url}{PATH}: .* 1 MB unpacked"
    ):
        get(server, {"query": "private"})
    assert get(server) == ["1"]
    assert (len(server.requests), clock.sleeps) == (2, [])


def test_an_answer_that_never_ends_is_an_error(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LONGEST_ANSWER", 0.05)
    server = serve(drop_by_drop(repeat(ord(" "))), page("1"))
    with pytest.raises(UnexpectedAnswer, match=f"^{server.url}{PATH}: .* takes longer"):
        get(server)
    assert len(server.requests) == 1
    assert clock.sleeps == []


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


def test_a_429_about_concurrency_is_asked_again_soon_and_shows_its_words_if_it_lasts(
    serve: Serve, clock: Clock
) -> None:
    words = "above the allowed concurrency for this endpoint"
    server = serve(refusal(429, words))
    with pytest.raises(HttpError, match=f"429 .*{words}"):
        get(server)
    assert len(server.requests) > 20
    assert LONGEST_WAIT <= sum(clock.sleeps) < LONGEST_WAIT + 45


def test_a_429_with_a_time_uses_up_no_retry(serve: Serve, clock: Clock) -> None:
    stats = RequestStats()
    refusals = [refusal(429, Retry_After="7")] * 30
    failure = refusal(503, Retry_After="9")
    assert get(serve(*refusals, failure, page("1")), stats=stats) == ["1"]
    assert (clock.sleeps, stats.requests) == ([*[7] * 30, 9], 32)


def test_a_request_waits_ten_minutes_at_most(serve: Serve, clock: Clock) -> None:
    server = serve(refusal(429, "slow down", Retry_After="200"))
    with pytest.raises(HttpError, match="429 .*slow down"):
        get(server)
    assert (len(server.requests), clock.sleeps) == (4, [200] * 3)


@pytest.mark.parametrize("says", ["Retry-After", "X-Sentry-Rate-Limit-Reset"])
def test_many_lists_share_a_small_limit_with_others(
    serve: Serve, clock: Clock, says: str
) -> None:
    lock, taken, chance = threading.Lock(), Counter[int](), random.Random(1)

    def five_in_a_second(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        now = time.time() + clock.now
        with lock:
            taken[int(now)] += 1 + (chance.random() < 0.5)  # half of it is for others
            if taken[int(now)] > 5:
                time_to_come = "1" if says == "Retry-After" else str(time.time() + 1)
                return refusal(429, **{says.replace("-", "_"): time_to_come})
        return page("1")

    session = ApiSession(serve(five_in_a_second).url, TOKEN, 8)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(session.get, PATH, {}, RequestStats()) for _ in range(160)]
    assert {each.result().status_code for each in asked} == {200}
    assert session.limiter.waited > 10


@pytest.mark.parametrize(("status", "requests"), [(500, 1), (503, 4)])
def test_a_request_may_have_statuses_of_its_own_to_be_tried_again(
    serve: Serve, status: int, requests: int
) -> None:
    server = serve(refusal(status))
    session = ApiSession(server.url, TOKEN, 4)
    with pytest.raises(HttpError, match=str(status)):
        session.get(PATH, {}, RequestStats(), statuses=(502, 503))
    assert len(server.requests) == requests
    with pytest.raises(HttpError, match=str(status)):
        session.get(PATH, {}, RequestStats())
    assert len(server.requests) == requests + 4


def test_the_limit_of_concurrent_requests_is_kept(serve: Serve) -> None:
    together, most = threading.Barrier(2, timeout=30), []
    lock, inside = threading.Lock(), [0]

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        with lock:
            inside[0] += 1
            most.append(inside[0])
        together.wait()
        with lock:
            inside[0] -= 1
        return page("1")

    first = page("1")
    first.headers["X-Sentry-Rate-Limit-ConcurrentLimit"] = "2"
    session = ApiSession(serve(first, answer).url, TOKEN, 9)

    def ask(number: int) -> None:
        session.get(PATH, {}, RequestStats(), endpoint="things")

    ask(0)
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(ask, range(8)))
    assert max(most) == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 422, 501, 599])
def test_other_failures_are_not_retried(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(refusal(status, "gone fishing"))
    with pytest.raises(HttpError, match=f"{status}.*gone fishing"):
        get(server)
    assert (len(server.requests), clock.sleeps) == (1, [])


def test_a_used_up_limit_holds_the_next_page_back(serve: Serve, clock: Clock) -> None:
    first = page("1", cursor="a")
    first.headers["X-Sentry-Rate-Limit-Remaining"] = "0"
    first.headers["X-Sentry-Rate-Limit-Reset"] = str(time.time() + 30)
    assert len(read(serve(first, page("2")))) == 2
    assert clock.sleeps == [pytest.approx(30, abs=2)]


def cut_between_chunks(handler: BaseHTTPRequestHandler, good: Response) -> None:
    handler.send_response(200)
    handler.send_header("Transfer-Encoding", "chunked")
    handler.end_headers()
    handler.wfile.write(b"a\r\n" + b'{"data": [' + b"\r\n")


def cut_gzip(handler: BaseHTTPRequestHandler, good: Response) -> Response:
    text = gzip.compress(good.body)
    return Response(200, {"Content-Encoding": "gzip"}, b"\0" + text[1:])


def cut_without_length(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """The only sign of what is missing is in the body itself."""
    handler.send_response(200)
    handler.send_header("Content-Type", "application/json")
    handler.end_headers()
    handler.wfile.write(b'{"data": [{"id": "1", "tags": []}')


def cut_gzip_at_its_end(handler: BaseHTTPRequestHandler, good: Response) -> Response:
    text = gzip.compress(good.body)[:-12]
    return Response(200, good.headers | {"Content-Encoding": "gzip"}, text)


def empty(handler: BaseHTTPRequestHandler, good: Response) -> Response:
    return Response(200, {"Content-Type": "text/html"}, b"")


def hung_up(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """The server closes the connection without sending a byte."""


FAULTS: dict[str, Answer] = {
    **{str(status): refusal(status, "gone fishing") for status in RETRIED},
    "cut": cut_short,
    "chunks": cut_between_chunks,
    "no length": cut_without_length,
    "gzip": cut_gzip,
    "end of gzip": cut_gzip_at_its_end,
    "empty": empty,
    "hung up": hung_up,
}


@pytest.mark.parametrize(
    "names",
    [
        *([name] * 3 for name in FAULTS),
        *permutations(["503", "cut", "hung up"]),
        ("cut", "503", "cut"),
        ("gzip", "chunks", "500"),
    ],
    ids=", ".join,
)
def test_faults_of_any_kind_share_three_retries_after_0_4_and_8_seconds(
    serve: Serve, clock: Clock, names: Sequence[str]
) -> None:
    faults = [FAULTS[name] for name in names]
    stats = RequestStats()
    server = serve(*faults, page("1"))
    assert get(server, stats=stats) == ["1"]
    assert (len(server.requests), stats.requests, clock.sleeps) == (4, 4, [4, 8])
    clock.sleeps.clear()
    server = serve(*faults, *faults)
    with pytest.raises(ApiError):
        get(server)
    assert (len(server.requests), clock.sleeps) == (4, [4, 8])


@pytest.mark.parametrize("name", FAULTS)
@pytest.mark.usefixtures("clock")
def test_a_lasting_fault_is_described(serve: Serve, name: str) -> None:
    server = serve(FAULTS[name])
    words = f"{name} .*gone fishing" if name.isdigit() else ".*Try again later.$"
    with pytest.raises(ApiError, match=f"^{server.url}{PATH}: {words}") as error:
        get(server, {"query": "private"})
    assert getattr(error.value, "status", 0) == (int(name) if name.isdigit() else 0)
    assert "private" not in str(error.value)
    assert "object at" not in str(error.value)


def test_a_server_that_falls_silent_is_an_error(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "TIMEOUT", (10, 0.01))
    is_over = threading.Event()

    def silent(handler: BaseHTTPRequestHandler, good: Response) -> None:
        is_over.wait(30)

    try:
        with pytest.raises(ApiError, match="timed out"):
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
    url = server.url.replace("http:", "https:")
    with pytest.raises(Unreachable) as error:
        get(url)
    assert str(error.value) == (
        f"{url}: the port does not speak TLS. If the server uses http, write http://"
    )
    assert server.requests == []
    assert clock.sleeps == []


@pytest.mark.parametrize("workers", [1, 4])
def test_a_server_out_of_reach_is_tried_once_for_all_lists(
    monkeypatch: pytest.MonkeyPatch, clock: Clock, workers: int
) -> None:
    def ask(number: int) -> str:
        with pytest.raises(Unreachable) as error:
            session.get(PATH, {}, RequestStats(), endpoint=str(number))
        return str(error.value)

    with socket.socket() as bound, ThreadPoolExecutor(8) as pool:
        bound.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        session = ApiSession(url, TOKEN, workers)
        # Or the next request would try to connect while this one waits.
        monkeypatch.delattr(RateLimiter, "rest")
        errors = {*pool.map(ask, range(8))}
        assert len(clock.sleeps) <= 2 * workers
        session.forget_outage()
        clock.sleeps.clear()
        errors.add(ask(0))
    assert clock.sleeps == [4, 8]
    (said,) = errors
    assert said.endswith("Connection refused")


def test_a_host_that_never_answers_is_named_with_the_time(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(session_module, "TIMEOUT", (0.01, 120))
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # until the queue is full; those behind are not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(Unreachable) as error:
            get(url)
    assert str(error.value) == f"{url}: no connection within 0.01 s"
    assert clock.sleeps == [4, 8]


def test_a_certificate_of_an_own_authority_is_said_how_to_trust(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    (elsewhere / "own.pem").write_text(OWN_CERTIFICATE)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(elsewhere / "own.pem")
    server = CannedServer(page("1"))
    with server:
        server._http.socket = context.wrap_socket(server._http.socket, server_side=True)
        url = server.url.replace("http:", "https:")
        with pytest.raises(Unreachable) as error:
            get(url)
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(elsewhere / "own.pem"))
        assert get(url) == ["1"]
        with pytest.raises(Unreachable, match="not valid for 'localhost'$"):
            get(url.replace("127.0.0.1", "localhost"))
    assert "its certificate is not valid: self-signed" in str(error.value)
    assert "set the environment variable REQUESTS_CA_BUNDLE" in str(error.value)
    assert clock.sleeps == []


def test_an_invalid_address_is_not_retried(clock: Clock) -> None:
    for base_url in ("https://127.0.0.1:99999", "https://a b"):
        with pytest.raises(Unreachable):
            get(base_url)
    assert clock.sleeps == []


def test_a_file_of_certificates_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/nowhere.pem")
    with pytest.raises(Unreachable, match=r"invalid path: /nowhere.pem$"):
        get("https://errors.invalid")


@pytest.mark.skipif(find_spec("socks") is not None, reason="the package is installed")
def test_the_package_for_a_proxy_of_socks_is_named(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("https_proxy", "socks5://127.0.0.1:9")
    with pytest.raises(Unreachable, match=r"pip install 'requests\[socks\]'$"):
        get("https://errors.invalid")


# Redirects


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_redirects_are_followed_on_the_same_server_only(
    serve: Serve, status: int
) -> None:
    server = serve(redirect("/v2/things/?a=b", status), page("1"))
    assert get(server, {"query": "once"}) == ["1"]
    request = server.requests[1]
    assert (request.path, request.query) == ("/v2/things/", {"a": "b"})
    assert request.headers["authorization"] == f"Bearer {TOKEN}"
    other = serve(page("stolen"))
    session = ApiSession(
        serve(redirect(other.url + PATH, status)).url, TOKEN, 1, {"X-Key": "abcdef"}
    )
    with pytest.raises(ApiError, match=f"redirects to {other.url}, where the token"):
        session.get(PATH, {}, RequestStats())
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
        with pytest.raises(ApiError, match="where the token is not sent"):
            get(asked)
        assert len(asked.requests) == 1
    assert server.requests == []


def test_a_redirect_to_nowhere_is_an_error_in_words(serve: Serve) -> None:
    with pytest.raises(
        UnexpectedAnswer, match=f"{PATH} redirects to an invalid address"
    ):
        get(serve(redirect("http://[")))


def test_redirects_without_end_are_an_error(serve: Serve) -> None:
    server = serve(redirect(PATH))
    with pytest.raises(
        UnexpectedAnswer, match=f"{PATH} redirected {REDIRECTS} times, last"
    ):
        get(server)
    assert len(server.requests) == REDIRECTS


LONG_HOST = ".".join(["x" * 60] * 4)


@pytest.mark.parametrize(
    ("asked", "target", "is_same"),
    [
        ("https://x.example/v1/", "https://x.example:443/v2/", True),
        ("https://x.example:443/v1/", "https://X.example/v2/", True),
        ("http://x.example/v1/", "http://x.example:80/v2/", True),
        ("https://x.example/v1/", "https://x.example:80/v1/", False),
        ("https://x.example/v1/", "http://x.example/v1/", False),
        ("https://x.example/v1/", "http://x.example:443/v1/", False),
        ("https://x.example/v1/", "https://x.example/v1/projects/acme/auth/", True),
        (f"https://{LONG_HOST}.a.example/", f"https://{LONG_HOST}.b.example/", False),
    ],
)
def test_the_port_of_a_scheme_may_be_left_out(
    asked: str, target: str, is_same: bool
) -> None:
    response = requests.Response()
    response.url = asked
    if is_same:
        assert session_module._same_origin(response, target) == target
    else:
        with pytest.raises(ApiError, match="where the token is not sent"):
            session_module._same_origin(response, target)


@pytest.mark.parametrize(
    "target",
    [
        "/login/?next=/v1/things/",
        "/auth/login/acme/",
        "https://accounts.google.com/o/x?client_id=1",
        "https://acme.cloudflareaccess.com/cdn-cgi/access/x",
        "https://id.example.com/oauth2/start",
    ],
)
def test_a_redirect_to_a_login_page_is_said_to_be_one(
    serve: Serve, target: str
) -> None:
    server = serve(redirect(target))
    with pytest.raises(
        ApiError, match="redirects to a login page of http.*\\. A proxy"
    ):
        get(server)
    assert len(server.requests) == 1


def test_a_page_with_a_login_form_is_said_to_be_one(serve: Serve) -> None:
    form = "<title>Sign in</title><form><input name=a><input type='password'></form>"
    server = serve(Response(200, {"Content-Type": "text/html"}, form.encode()))
    with pytest.raises(UnexpectedAnswer) as error:
        read(server)
    assert f"{PATH} answered with a login page, 'Sign in'. " in str(error.value)


# Further headers


def test_further_headers_are_sent_and_as_secret_as_the_token(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    key = "0123456789abcdef0123456789abcdef"
    headers = {"Cookie": f"CF_Authorization={key}; a=b", "X-Tenant": "acme-eu"}
    body = json_answer(400, {"detail": f"{key} acme-eu"})
    server = serve(page(key, "acme-eu"), redirect(PATH), body)
    session = ApiSession(server.url, TOKEN, 1, headers)
    good = session.get(PATH, {}, RequestStats())
    assert json.loads(good.content)["data"] == [{"id": "***"}, {"id": "acme-eu"}]
    with pytest.raises(HttpError, match=r"'\*\*\* \*\*\*'") as error:
        session.get(PATH, {}, RequestStats())
    for request in server.requests:
        assert request.headers["authorization"] == f"Bearer {TOKEN}"
        assert request.headers["cookie"] == headers["Cookie"]
        assert request.headers["x-tenant"] == "acme-eu"
    assert len(server.requests) == 3
    assert key not in f"{caplog.text}{pickle.dumps(error.value)!r}{vars(session)}"
    assert "acme-eu" not in f"{caplog.text}{error.value!r}{vars(session)}"


# Proxies


@pytest.mark.parametrize(
    "password", ["pa/55", "pa#55", "pa?55", "pa[55", "p@55", "pa 55"]
)
def test_a_login_that_is_not_quoted_is_refused_without_showing_it(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://mallory:{password}@proxy.invalid:8080")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as error:
        get("https://errors.invalid")
    assert "55" not in "".join(traceback.format_exception(error.value))


@pytest.mark.usefixtures("clock")
@pytest.mark.parametrize(
    "login", ["mallory:pa55w0rd", "mallory:pa%2f55w0rd", "pa55w0rd"]
)
def test_a_login_is_not_shown_where_the_proxy_repeats_it(
    monkeypatch: pytest.MonkeyPatch, login: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{login}@proxy.invalid:port")
    with pytest.raises(Unreachable):
        get("https://errors.invalid")
    assert "55w0rd" not in masked(f"{login} {unquote(login)}")
    basic = b64encode(unquote(login).encode()).decode()
    assert masked(f"Basic {basic}") == "Basic ***"


@pytest.fixture
def proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> CannedServer:
    """A proxy for all addresses, in the environment; it records what reaches it."""
    server = serve(page("of the proxy"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for each in (name, name.upper()):
            monkeypatch.setenv(each, server.url)
    return server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_asked_directly_where_there_is_a_proxy(
    serve: Serve, proxy: CannedServer, host: str
) -> None:
    server = serve(redirect(PATH), page("1"))
    assert get(server.url.replace("127.0.0.1", host)) == ["1"]
    assert server.requests[0].headers["authorization"] == f"Bearer {TOKEN}"
    assert proxy.requests == []


@pytest.mark.usefixtures("clock")
def test_the_token_goes_unencrypted_through_no_proxy(proxy: CannedServer) -> None:
    with pytest.raises(Unreachable):
        get("http://errors.invalid")
    assert proxy.requests == []


def test_another_machine_is_asked_through_the_proxy_and_encrypted(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    with socket.socket() as bound, ThreadPoolExecutor(1) as pool:
        bound.bind(("127.0.0.1", 0))
        bound.listen()
        bound.settimeout(30)
        monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{bound.getsockname()[1]}")

        def refuse() -> bytes:
            connection, _ = bound.accept()
            with connection:
                asked = connection.recv(4096)
                connection.sendall(b"HTTP/1.1 403 Forbidden\r\n\r\n")
            bound.close()
            return asked

        asked = pool.submit(refuse)
        with pytest.raises(Unreachable):
            get("https://errors.invalid")
        words = asked.result()
    assert words.startswith(b"CONNECT errors.invalid:443 ")
    assert TOKEN.encode() not in words


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("a.localhost", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("localhost.example.com", False),
        ("10.0.0.1", False),
        ("0.0.0.0", False),
        ("", False),
    ],
)
def test_loopback_addresses_are_this_machine(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


# The log


def test_retries_are_logged_in_our_words_only(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    get(serve(hung_up, hung_up, page("1")))
    names = {record.name for record in caplog.records}
    assert names == {"analytics_pipeline.client.retry"}
    assert len(caplog.records) == 2


def test_a_malformed_header_fills_no_log(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    def answer(handler: BaseHTTPRequestHandler, good: Response) -> None:
        body = page("1").body
        handler.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n")
        handler.wfile.write(b"Content-Length: %d\r\nno header\r\n\r\n" % len(body))
        handler.wfile.write(body)

    assert get(serve(answer)) == ["1"]
    assert caplog.records == []


def long_status(handler: BaseHTTPRequestHandler, good: Response) -> None:
    handler.wfile.write(b"HTTP/1.1 abc " + 60_000 * b"x" + b"\r\n\r\n")


@pytest.mark.parametrize(
    "long",
    [
        long_status,
        json_answer(200, {"data": [{"id": 1}]}, {"Link": 60_000 * "x"}),
    ],
    ids=["status line", "link"],
)
def test_a_header_of_60_kB_makes_no_long_message(serve: Serve, long: Answer) -> None:
    with pytest.raises(ApiError) as error:
        read(serve(long))
    assert len(str(error.value)) < 1200


# The token


def raw(*lines: str) -> Answer:
    """An answer of just these lines."""

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> None:
        handler.wfile.write("\r\n".join([*lines, "", ""]).encode())

    return answer


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
        json_answer(200, {TOKEN: [{TOKEN: 1}]}),
        json_answer(200, {"data": [{TOKEN: 1}]}),
        Response(200, {"Content-Type": TOKEN}, b"{"),
        Response(200, {"Link": f'<x>; rel="{TOKEN}"'}, b'{"data": []}'),
        page("1", cursor=f"0:{TOKEN}:1"),
        redirect(f"http://{TOKEN}.invalid/"),
        redirect(f"http://[{TOKEN}"),
        redirect(f"http://127.0.0.1:1/{TOKEN}"),
        refusal(410, X_Sentry_Replacement_Endpoint=f"/{TOKEN}/"),
        raw(TOKEN),
        raw(f"HTTP/1.1 {TOKEN}"),
        raw(f"HTTP/1.1 400 {TOKEN}"),
        raw(f"HTTP/{TOKEN} 200 OK"),
        raw("HTTP/1.1 200 OK", TOKEN, "A: b"),
        raw("HTTP/1.1 400 OK", f"{TOKEN}: b"),
        raw("HTTP/1.1 200 OK", f"Content-Length: {TOKEN}"),
        raw("HTTP/1.1 200 OK", f"Content-Encoding: {TOKEN}"),
        raw("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", TOKEN),
        raw("HTTP/1.1 200 OK", "Transfer-Encoding: chunked", "", f"9;{TOKEN}", "{"),
    ],
)
def test_the_token_is_in_no_error_and_no_log(
    serve: Serve, caplog: pytest.LogCaptureFixture, answer: Answer
) -> None:
    caplog.set_level(logging.DEBUG)
    with pytest.raises(AnalyticsError) as error:
        read(serve(answer))
    text = "".join(traceback.format_exception(error.value)) + caplog.text
    text += repr(get_exception_trace_chain(error.value))  # what dlt stores
    text += str(pickle.dumps(error.value))
    assert TOKEN[:6].lower() not in text.lower()


@pytest.mark.usefixtures("clock")
def test_a_port_that_takes_connections_but_speaks_no_tls_is_out_of_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "TIMEOUT", (0.05, 0.05))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no connection within 0.05 s"):
            get(url)
