"""HTTP requests to one server: token, retries, redirects, complete bodies."""

import logging
import re
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from copy import copy
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3 import (
    BaseHTTPResponse,
    HTTPConnectionPool,
    HTTPResponse,
    HTTPSConnectionPool,
    ProxyManager,
    Retry,
)
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import (
    ConnectTimeoutError,
    DecodeError,
    HTTPError,
    ProtocolError,
    ProxyError,
    SSLError,
)

from analytics_pipeline.client.page import (
    LOGIN,
    asked_url,
    http_error,
    is_login_page,
    without_query,
)
from analytics_pipeline.client.retry import (
    NO_CONNECTION,
    STATUSES,
    RateLimiter,
    RateLimitRetry,
    RequestStats,
    hide_log_of_retries,
    words,
)
from analytics_pipeline.errors import (
    TRY_LATER,
    ApiError,
    ConfigurationError,
    UnexpectedAnswer,
    Unreachable,
    shortened,
)
from analytics_pipeline.secrets import hide, hide_sent, masked, masked_answer
from analytics_pipeline.values import loads

log = logging.getLogger(__name__)

TIMEOUT = (10, 120)
"""Seconds to connect, and seconds between two bytes of an answer."""
MOST_CONNECTIONS = 1000
"""Kept open. More than `workers`: requests that wait for a retry hold one as well."""
REDIRECTS = 5
LONGEST_ANSWER = 300.0
"""Seconds for a complete answer."""
LARGEST_BODY = 256 << 20
"""Bytes of an answer, unpacked; a page of a hundred rows has a few hundred kB."""
HEADERS = {"Accept": "application/json", "User-Agent": "analytics-pipeline"}
_NO_REQUEST = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)
_UNTRUSTED = (18, 19, 20, 21)
"""OpenSSL's codes for certificates of unknown authorities."""


class BearerAuth(requests.auth.AuthBase):
    """Sends the token and further headers; prevents requests from using ~/.netrc."""

    def __init__(self, token: str, headers: Mapping[str, str]) -> None:
        hide_sent(token, *filter(_is_long, _parts(headers.values())))
        hide(*headers.values())
        self.__headers = {**headers, "Authorization": f"Bearer {token}"}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers."""
        request.headers.update(self.__headers)
        return request


class Answer(HTTPResponse):
    """An answer whose body is read and parsed.

    Raises:
        ProtocolError: the body is incomplete; urllib3 retries.
        UnexpectedAnswer: it is too large, or takes too long.
    """

    def __init__(self, response: HTTPResponse) -> None:
        body = masked_answer(_read_body(response))
        super().__init__(
            body,
            response.headers,
            response.status,
            response.version,
            response.version_string,
            response.reason,
            decode_content=False,
            original_response=response._original_response,  # for requests' cookies
        )
        self.parsed: tuple[Any, int] | None = None
        """JSON and how many of its characters were replaced; None if it is not JSON."""
        content = self.headers.get("Content-Type", "")
        if 200 <= self.status < 300 and ("json" in content or not body.strip()):
            try:
                self.parsed = loads(body)
            except ValueError as error:
                raise ProtocolError(f"the JSON is incomplete: {error}") from None

    def stream(
        self, amt: int | None = None, decode_content: bool | None = None
    ) -> Generator[bytes]:
        """Yield the whole body."""
        yield self.data or b""


class _WholeAnswers(HTTPConnection):
    """Reads answers to their end, so that urllib3 retries incomplete ones."""

    def getresponse(self) -> HTTPResponse:  # type: ignore[override]
        """Return the next answer."""
        return Answer(super().getresponse())


class _WholeAnswersEncrypted(_WholeAnswers, HTTPSConnection):
    def connect(self) -> None:
        """Connect; a server that says nothing to TLS's first words is out of reach."""
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "silent in TLS") from error


class _Pool(HTTPConnectionPool):
    ConnectionCls = _WholeAnswers

    def urlopen(self, *args: Any, **kwargs: Any) -> BaseHTTPResponse:
        """Send a request; release its connection when the answer is read."""
        return super().urlopen(*args, **kwargs | {"release_conn": True})


class _EncryptedPool(_Pool, HTTPSConnectionPool):
    ConnectionCls = _WholeAnswersEncrypted


_POOLS = {"http": _Pool, "https": _EncryptedPool}


class RetryAdapter(HTTPAdapter):
    """An adapter that uses the connections above.

    `max_retries` belongs to the calling thread; requests has one for all requests.
    """

    def __init__(self, pool_maxsize: int) -> None:
        self._of_thread = threading.local()
        super().__init__(pool_maxsize=pool_maxsize)

    @property
    def max_retries(self) -> Retry:
        """The retries of this thread's next request."""
        retries: Retry = self._of_thread.retries
        return retries

    @max_retries.setter
    def max_retries(self, retries: Retry) -> None:
        self._of_thread.retries = retries

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> ProxyManager:
        """Return the pools of a proxy."""
        manager: ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class ApiSession:
    """Sends at most `workers` concurrent requests to one server.

    Retries up to three times (after 0, 4 and 8 seconds, or as long as the server asks)
    on 429, 500, 502, 503, 504, failed connections and incomplete bodies. The token and
    further headers are sent to `base_url` only, and never unencrypted through a proxy:
    http:// and loopback addresses are requested directly.
    """

    def __init__(
        self,
        base_url: str,
        token: str,
        workers: int,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        self.base_url = base_url
        self.limiter = RateLimiter(workers)
        self._retry = RateLimitRetry.of(self.limiter)
        self._session = requests.Session()
        self._session.auth = BearerAuth(token, headers or {})
        self._session.headers.update(HEADERS)
        # Proxies and certificates of the environment, looked up once.
        self._environment = self._session.merge_environment_settings(
            self.base_url, {}, stream=True, verify=None, cert=None
        )
        parts = urlsplit(base_url)
        if parts.scheme == "http" or is_loopback(parts.hostname or ""):
            self._environment["proxies"] = {}
        _hide_logins(self.base_url, self._environment["proxies"])
        self._adapter = RetryAdapter(MOST_CONNECTIONS)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        hide_log_of_retries(self)
        self._unreachable: Unreachable | None = None

    def forget_outage(self) -> None:
        """Allow connections again, for another run."""
        self._unreachable = None

    def get(
        self,
        path: str,
        params: Mapping[str, str],
        stats: RequestStats,
        *,
        endpoint: str = "",
        statuses: Collection[int] = STATUSES,
    ) -> requests.Response:
        """Return an answer with a good status, its body read.

        Args:
            path: below `base_url`.
            params: query parameters.
            stats: counts the requests.
            endpoint: the server may limit concurrent requests for each.
            statuses: to retry.

        Raises:
            HttpError: an error status, after the retries.
            Unreachable: no connection after the retries, for this or another request
                of the run.
            ApiError: no complete answer after the retries, or a redirect to another
                server.
        """
        url = self.base_url + path
        for _ in range(REDIRECTS):
            retry = self._retry.new(status_forcelist=statuses)
            retry.endpoint, retry.stats = endpoint, stats
            response = self._send(url, params, retry)
            if response.next is None:
                break
            url = _same_origin(response, response.next.url or "")
            params = {}  # the new location has them
        else:
            raise UnexpectedAnswer(
                f"{without_query(self.base_url + path)} redirected {REDIRECTS} times, last"
                f" to {shortened(without_query(url), 200)}"
            )
        if response.status_code >= 300:
            raise http_error(response)
        return response

    def _send(
        self, url: str, params: Mapping[str, str], retry: RateLimitRetry
    ) -> requests.Response:
        # Raised after the block: dlt stores the messages of an error's causes.
        failure: ApiError
        try:
            prepared = self._session.prepare_request(
                requests.Request("GET", url, params=params)
            )
            with self.limiter.slot(retry.endpoint):
                if self._unreachable:
                    raise copy(self._unreachable)
                retry.stats.count(requests=1)
                asked_at = time.perf_counter()
                self._adapter.max_retries = retry
                response = self._session.send(
                    prepared,
                    timeout=TIMEOUT,
                    allow_redirects=False,
                    **self._environment,
                )
        except UnexpectedAnswer as error:
            failure = error.about(without_query(url))
        except Unreachable as error:
            failure = error
        except (OSError, HTTPError) as error:
            failure = _connection_error(url, error)
            if isinstance(failure, Unreachable):
                self._unreachable = failure
        except ValueError as error:  # requests parses the target of a redirect
            failure = UnexpectedAnswer(
                f"{without_query(url)} redirects to an invalid address ({error})"
            )
        else:
            for request in filter(None, (prepared, response.next)):
                request.headers.clear()  # they hold the token; errors keep the request
            self.limiter.update(response.headers, retry.endpoint)
            log.debug(
                "GET %s: %d, %d bytes in %.2f s",
                masked(prepared.url),
                response.status_code,
                len(response.content),
                time.perf_counter() - asked_at,
            )
            return response
        raise failure


def _read_body(response: HTTPResponse) -> bytes:
    parts, size, started = [], 0, time.monotonic()
    try:
        while part := response.read1(1 << 20, decode_content=True):
            parts.append(part)
            size += len(part)
            problem = ""
            if size > LARGEST_BODY:
                problem = f"is larger than {LARGEST_BODY >> 20} MB unpacked"
            if time.monotonic() - started > LONGEST_ANSWER:
                problem = f"takes longer than {LONGEST_ANSWER / 60:.0f} minutes"
            if problem:
                raise UnexpectedAnswer(f"the answer {problem}")
    except DecodeError as error:
        raise ProtocolError(words(error)) from None
    return b"".join(parts)


def _parts(values: Iterable[str]) -> Iterator[str]:
    """Yield the words of headers, and the values of `name=value` among them."""
    for word in re.split(r"[\s;,]+", " ".join(values)):
        yield from (word, word.partition("=")[2])


def _is_long(part: str) -> bool:
    """Return whether a part of a header looks like a key rather than a word."""
    return len(part) >= 20


def _hide_logins(base_url: str, proxies: Mapping[str, str]) -> None:
    """Hide the logins in the addresses of proxies.

    Raises:
        ConfigurationError: libraries would read part of the login as the host, and show
            it.
    """
    for address in proxies.values():
        login, _, _ = address.rpartition("@")
        login = login.rpartition("://")[2] if login.count("://") == 1 else login
        user, _, password = login.partition(":")
        plain = unquote(login)
        hide(login, plain, password or user, unquote(password or user))
        hide(b64encode(plain.encode()).decode())  # as Proxy-Authorization has it
        is_asked = address == requests.utils.select_proxy(base_url, proxies)
        if is_asked and re.search(r"[/#?\[\]@\\\s]", login):
            raise ConfigurationError(
                "the proxy's login (HTTPS_PROXY or ALL_PROXY) has a special character."
                " Percent-encode it: %2F for /, %23 for #, %3F for ?, %40 for @, %5B for [."
            )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _same_origin(response: requests.Response, target: str) -> str:
    """Return the target of a redirect if it is on the same server."""
    origin, is_same = _origin(target), _origin(target) == _origin(response.url)
    # Within the API's own paths, a project may be named `login`.
    paths = {urlsplit(url).path.split("/")[:2][-1] for url in (target, response.url)}
    if is_login_page(target) and not (is_same and len(paths) == 1):
        raise ApiError(
            f"{asked_url(response)} redirects to a login page of"
            f" {shortened(origin, 200)}. {LOGIN}"
        )
    if not is_same:
        origin = shortened(origin, 200)
        raise ApiError(
            f"{asked_url(response)} redirects to {origin}, where the token is not sent."
            f" If that is your server, set base_url to {origin}."
        )
    return target


def _origin(url: str) -> str:
    """Return scheme, host and port, the latter only if it is not the default."""
    parts = urlsplit(url)
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    host = parts.netloc.lower().removesuffix(port or " ")
    return f"{parts.scheme}://{host}"


def _connection_error(url: str, error: Exception) -> ApiError:
    """Return the error for a request without a complete answer."""
    cause: Any = error.args[0] if error.args else error
    is_unsent = isinstance(error, _NO_REQUEST) or not isinstance(
        error, requests.exceptions.RequestException | HTTPError
    )
    if is_unsent or isinstance(getattr(cause, "reason", None), NO_CONNECTION):
        return Unreachable("{}://{}: {}".format(*urlsplit(url)[:2], _reason(error)))
    return ApiError(f"{without_query(url)}: {_reason(error)}. {TRY_LATER}")


def _reason(error: Exception) -> str:
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    if isinstance(cause, ProxyError):
        return f"{cause.args[0]}: {_reason(cause.original_error)}"
    if type(cause) is ConnectTimeoutError:  # not what urllib3 derives from it
        return f"no connection within {TIMEOUT[0]:g} s"
    text = words(cause)
    certificate: Any = cause.args[0] if isinstance(cause, SSLError) else None
    if isinstance(certificate, ssl.SSLCertVerificationError):
        text = f"its certificate is not valid: {certificate.verify_message}".rstrip(".")
        if certificate.verify_code in _UNTRUSTED:
            text += (
                ". If your own authority issued it, set the environment variable"
                " REQUESTS_CA_BUNDLE to the authority's certificate file"
            )
    elif "WRONG_VERSION_NUMBER" in text:
        text = "the port does not speak TLS. If the server uses http, write http://"
    elif "SOCKS support" in text:
        text = (
            "the environment sets a SOCKS proxy, which needs a package: pip install"
            " 'requests[socks]'"
        )
    return text.rstrip(".")
