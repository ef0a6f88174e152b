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
from analytics_pipeline.client.retry import RateLimiter, RequestStats
from analytics_pipeline.client.session import REDIRECTS, ApiSession, is_loopback
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
from tests.unit.test_retry import Inside

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
    url = server if isinstance(server, str) else server.url
    session = ApiSession(url, TOKEN, 4)
    answer = session.get(PATH, params or {}, stats or RequestStats())
    return [record["id"] for record in json.loads(answer.content)["data"]]


def drop_by_drop(body: Iterable[int], headers: dict[str, str] | None = None) -> Answer:
    """An answer whose bytes come one by one."""

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


def test_a_request_has_the_token_and_accepts_json(serve: Serve) -> None:
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


def test_an_answer_that_is_too_large_unpacked_is_an_error_without_retry(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LARGEST_BODY", 1 << 20)
    bomb = gzip.compress(b" " * (64 << 20))
    assert len(bomb) < 1 << 20
    server = serve(Response(200, {"Content-Encoding": "gzip"}, bomb), page("1"))
    with pytest.raises(UnexpectedAnswer, match=f"^{server.url}{PATH}: .* over 1 MB$"):
        get(server, {"query": "private"})
    assert get(server) == ["1"]
    assert (len(server.requests), clock.sleeps) == (2, [])


def test_an_endless_answer_is_an_error_without_retry(
    serve: Serve, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_module, "LONGEST_ANSWER", 0.05)
    server = serve(drop_by_drop(repeat(ord(" "))), page("1"))
    with pytest.raises(UnexpectedAnswer, match=f"^{server.url}{PATH}: .* over 0.05 s$"):
        get(server)
    assert (len(server.requests), clock.sleeps) == (1, [])


def test_workers_may_count_requests_concurrently() -> None:
    stats = RequestStats()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: stats.count(requests=1, replaced=2), range(2000)))
    assert (stats.requests, stats.replaced) == (2000, 4000)


# Retries


def test_a_429_with_a_time_uses_up_no_retry(serve: Serve, clock: Clock) -> None:
    stats = RequestStats()
    refusals = [refusal(429, Retry_After="7")] * 30
    failure = refusal(503, Retry_After="9")
    assert get(serve(*refusals, failure, page("1")), stats=stats) == ["1"]
    assert (clock.sleeps, stats.requests) == ([*[7] * 30, 9], 32)


@pytest.mark.parametrize("header", ["Retry-After", "X-Sentry-Rate-Limit-Reset"])
def test_many_lists_share_a_small_limit_with_others(
    serve: Serve, clock: Clock, header: str
) -> None:
    lock, taken, chance = threading.Lock(), Counter[int](), random.Random(1)

    def five_in_a_second(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        now = time.time() + clock.now
        with lock:
            taken[int(now)] += 1 + (chance.random() < 0.5)  # half of it is for others
            if taken[int(now)] <= 5:
                return page("1")
        later = "1" if header == "Retry-After" else str(time.time() + 1)
        return refusal(429, **{header: later})

    session = ApiSession(serve(five_in_a_second).url, TOKEN, 8)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(session.get, PATH, {}, RequestStats()) for _ in range(160)]
    assert {each.result().status_code for each in asked} == {200}
    assert session.limiter.waited > 10


@pytest.mark.parametrize(("status", "requests"), [(500, 1), (503, 4)])
def test_a_request_may_set_the_statuses_to_retry(
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
    together, inside = threading.Barrier(2, timeout=30), Inside()

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        with inside:
            together.wait()
        return page("1")

    first = page("1")
    first.headers["X-Sentry-Rate-Limit-ConcurrentLimit"] = "2"
    session = ApiSession(serve(first, answer).url, TOKEN, 9)

    def ask(number: int) -> None:
        session.get(PATH, {}, RequestStats(), endpoint="things")

    ask(0)
    with ThreadPoolExecutor(9) as pool:
        list(pool.map(ask, range(8)))
    assert inside.most == 2


@pytest.mark.parametrize("status", [400, 401, 403, 404, 501, 599])
def test_other_statuses_are_not_retried(
    serve: Serve, clock: Clock, status: int
) -> None:
    server = serve(refusal(status, "gone fishing"))
    with pytest.raises(HttpError, match=f"{status}.*gone fishing"):
        get(server)
    assert (len(server.requests), clock.sleeps) == (1, [])


def test_a_used_up_limit_delays_the_next_page(serve: Serve, clock: Clock) -> None:
    first = page("1", cursor="a")
    first.headers["X-Sentry-Rate-Limit-Remaining"] = "0"
    first.headers["X-Sentry-Rate-Limit-Reset"] = str(time.time() + 30)
    assert len(read(serve(first, page("2")))) == 2
    assert clock.sleeps == [pytest.approx(30, abs=2)]


def packed(cut: slice, start: bytes = b"") -> Answer:
    """A part of a compressed answer."""

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        text = start + gzip.compress(good.body)[cut]
        return Response(200, good.headers | {"Content-Encoding": "gzip"}, text)

    return answer


def hung_up(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """Close the connection without sending a byte."""


CHUNK = b"a\r\n" + b'{"data": [' + b"\r\n"
FAULTS: dict[str, Answer] = {
    **{str(status): refusal(status, "gone fishing") for status in RETRIED},
    "cut": cut_short,
    "chunks": drop_by_drop(CHUNK, {"Transfer-Encoding": "chunked"}),
    "no length": drop_by_drop(
        b'{"data": [{"id": "1", "tags": []}', {"Content-Type": "application/json"}
    ),
    "gzip": packed(slice(1, None), b"\0"),
    "end of gzip": packed(slice(-12)),
    "empty": Response(200, {"Content-Type": "text/html"}, b""),
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
def test_all_faults_share_three_retries_after_0_4_and_8_seconds(
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


def test_a_server_without_tls_is_reported(serve: Serve, clock: Clock) -> None:
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
def test_an_unreachable_server_is_tried_once_for_all_lists(
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
    assert said.startswith(f"{url}: ")
    assert said.endswith("Connection refused")
    assert "object at" not in said


def test_a_host_that_never_answers_is_reported_with_the_timeout(
    monkeypatch: pytest.MonkeyPatch, clock: Clock
) -> None:
    monkeypatch.setattr(session_module, "TIMEOUT", (0.01, 120))
    with ExitStack() as stack:
        full = stack.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):  # a full queue: later connections are not answered
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        url = f"http://127.0.0.1:{full.getsockname()[1]}"
        with pytest.raises(Unreachable) as error:
            get(url)
    assert str(error.value) == f"{url}: no connection within 0.01 s"
    assert clock.sleeps == [4, 8]


def test_the_error_says_how_to_trust_an_own_authority(
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


@pytest.mark.parametrize(
    ("url", "variable", "value", "words"),
    [
        ("https://127.0.0.1:99999", "", "", "99999"),
        ("https://a b", "", "", "a b"),
        ("https://h.invalid", "REQUESTS_CA_BUNDLE", "/no.pem", "invalid path: /no.pem"),
        pytest.param(
            "https://h.invalid",
            "https_proxy",
            "socks5://127.0.0.1:9",
            "requests.socks",
            marks=pytest.mark.skipif(bool(find_spec("socks")), reason="has SOCKS"),
        ),
    ],
)
def test_an_unusable_address_or_environment_is_reported_without_retry(
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    url: str,
    variable: str,
    value: str,
    words: str,
) -> None:
    if variable:
        monkeypatch.setenv(variable, value)
    with pytest.raises(Unreachable, match=words):
        get(url)
    assert clock.sleeps == []


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
    ("target", "words", "requests"),
    [
        ("http://[", "redirects to an invalid address", 1),
        (PATH, f"redirected {REDIRECTS} times, last", REDIRECTS),
    ],
)
def test_an_invalid_or_endless_redirect_is_an_error(
    serve: Serve, target: str, words: str, requests: int
) -> None:
    server = serve(redirect(target))
    with pytest.raises(UnexpectedAnswer, match=f"{PATH} {words}"):
        get(server)
    assert len(server.requests) == requests


LONG_HOST = ".".join(["x" * 60] * 4)


@pytest.mark.parametrize(
    ("asked", "target", "is_same"),
    [
        ("https://x.example/v1/", "https://x.example:443/v2/", True),
        ("https://x.example:443/v1/", "https://X.example/v2/", True),
        ("http://x.example/v1/", "http://x.example:80/v2/", True),
        ("https://x.example/v1/", "https://x.example/v1/projects/acme/auth/", True),
        ("https://x.example/v1/auth/", "https://eu.x.example/v1/auth/", False),
        ("https://x.example/v1/", "https://x.example:80/v1/", False),
        ("https://x.example/v1/", "http://x.example/v1/", False),
        ("https://x.example/v1/", "http://x.example:443/v1/", False),
        ("https://x.example/v1/", "https://user@x.example/v1/", False),
        ("https://x.example/v1/", "https://x.example@y.example/v1/", False),
        ("http://127.0.0.1:8000/", "http://127.0.0.1:8001/", False),
        ("http://127.0.0.1:8000/", "http://127.0.0.1/", False),
        ("http://127.0.0.1:8000/", "http://localhost:8000/", False),
        ("https://x.example/v1/", "mailto:someone", False),
        (f"https://{LONG_HOST}.a.example/", f"https://{LONG_HOST}.b.example/", False),
    ],
)
def test_another_host_scheme_or_port_is_another_server(
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
def test_a_redirect_to_a_login_page_is_reported(serve: Serve, target: str) -> None:
    server = serve(redirect(target))
    with pytest.raises(
        ApiError, match=r"redirects to a login page of http.*\. A proxy"
    ):
        get(server)
    assert len(server.requests) == 1


# Further headers


def test_further_headers_are_sent_and_masked(
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
    "password", ["pa/qj", "pa#qj", "pa?qj", "pa[qj", "p@qj", "pa qj"]
)
def test_a_proxy_login_that_is_not_quoted_is_rejected_unseen(
    monkeypatch: pytest.MonkeyPatch, password: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://mallory:{password}@proxy.invalid:8080")
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY") as error:
        get("https://errors.invalid")
    assert "qj" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize(
    "login", ["mallory:pa55w0rd", "mallory:pa%2f55w0rd", "pa55w0rd"]
)
def test_a_proxy_login_is_masked(monkeypatch: pytest.MonkeyPatch, login: str) -> None:
    monkeypatch.setenv("HTTPS_PROXY", f"http://{login}@proxy.invalid:port")
    with pytest.raises(Unreachable):
        get("https://errors.invalid")
    assert "55w0rd" not in masked(f"{login} {unquote(login)}")
    basic = b64encode(unquote(login).encode()).decode()
    assert masked(f"Basic {basic}") == "Basic ***"


@pytest.fixture
def proxy(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> CannedServer:
    """A proxy for all addresses, set in the environment."""
    server = serve(page("of the proxy"))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        for each in (name, name.upper()):
            monkeypatch.setenv(each, server.url)
    return server


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_loopback_addresses_bypass_the_proxy(
    serve: Serve, proxy: CannedServer, host: str
) -> None:
    server = serve(redirect(PATH), page("1"))
    assert get(server.url.replace("127.0.0.1", host)) == ["1"]
    assert proxy.requests == []


def test_http_addresses_bypass_the_proxy(proxy: CannedServer) -> None:
    with pytest.raises(Unreachable):
        get("http://errors.invalid")
    assert proxy.requests == []


def test_requests_through_the_proxy_are_encrypted(
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


def test_is_loopback() -> None:
    assert all(map(is_loopback, ["localhost", "a.localhost", "127.8.8.8", "::1"]))
    others = ["localhost.example.com", "10.0.0.1", "0.0.0.0", ""]
    assert not any(map(is_loopback, others))


# The log


def test_retries_are_logged_once(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    get(serve(hung_up, hung_up, page("1")))
    names = {record.name for record in caplog.records}
    assert names == {"analytics_pipeline.client.retry"}
    assert len(caplog.records) == 2


def test_a_malformed_header_is_not_logged(
    serve: Serve, caplog: pytest.LogCaptureFixture
) -> None:
    body = page("1").body.decode()
    kind, size = "Content-Type: application/json", f"Content-Length: {len(body)}"
    answer = raw("HTTP/1.1 200 OK", kind, size, "no header", "", body)
    assert get(serve(answer)) == ["1"]
    assert caplog.records == []


def raw(*lines: str) -> Answer:
    """An answer of just these lines."""

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> None:
        handler.wfile.write("\r\n".join([*lines, "", ""]).encode())

    return answer


@pytest.mark.parametrize(
    "long",
    [
        raw(f"HTTP/1.1 abc {60_000 * 'x'}"),
        json_answer(200, {"data": [{"id": 1}]}, {"Link": 60_000 * "x"}),
    ],
    ids=["status line", "link"],
)
def test_a_header_of_60_kB_makes_no_long_message(serve: Serve, long: Answer) -> None:
    with pytest.raises(ApiError) as error:
        read(serve(long))
    assert len(str(error.value)) < 1200


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


def test_the_token_is_not_in_the_text_of_any_object(serve: Serve) -> None:
    server = serve(refusal(401))
    session = ApiSession(server.url, TOKEN, 4)
    objects: list[Any] = [session, *vars(session).values()]
    objects += [x for one in objects for x in getattr(one, "__dict__", {}).values()]
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


def test_a_port_without_tls_handshake_is_unreachable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session_module, "TIMEOUT", (0.05, 0.05))
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        url = f"https://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(Unreachable, match="no connection within 0.05 s"):
            get(url)
