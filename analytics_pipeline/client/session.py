"""HTTP requests to one server: token, retries, redirects, complete bodies."""

import logging
import re
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Collection, Generator, Mapping
from copy import copy
from ipaddress import ip_address
from typing import Any
from urllib.parse import unquote, urlsplit

import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse
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
"""More than `workers`, because requests that wait for a retry hold one as well."""
REDIRECTS = 5
LONGEST_ANSWER = 300.0
"""Seconds for a complete answer."""
LARGEST_BODY = 256 << 20
"""Bytes of an answer, unpacked; a page of a hundred rows has a few hundred kB."""
HEADERS = {"Accept": "application/json", "User-Agent": "analytics-pipeline"}
_NO_REQUEST = (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)
_UNTRUSTED = (18, 19, 20, 21)
"""OpenSSL's codes for certificates of unknown authorities."""
_KEY = re.compile(r"[^\s;,=]{20,}=*(?![^\s;,])")
"""What looks like a key in a header: a long word, or a long value of `name=value`."""


class BearerAuth(requests.auth.AuthBase):
    """Sends the token and further headers; prevents requests from using ~/.netrc."""

    def __init__(self, token: str, headers: Mapping[str, str]) -> None:
        hide_sent(token, *_KEY.findall(" ".join(headers.values())))
        hide(*headers.values())
        self.__headers = {**headers, "Authorization": f"Bearer {token}"}

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the headers."""
        request.headers.update(self.__headers)
        return request


class Answer(HTTPResponse):
    """An answer whose body is read and parsed; urllib3 retries an incomplete one."""

    def __init__(self, response: HTTPResponse) -> None:
        body = masked_answer(_read_body(response))
        super().__init__(
            body,
            response.headers,
            response.status,
            reason=response.reason,
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
        """Connect; a server that does not answer the TLS handshake is unreachable."""
        try:
            super().connect()
        except TimeoutError as error:
            raise ConnectTimeoutError(self, "no TLS handshake") from error


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _WholeAnswers

    def urlopen(self, *args: Any, **kwargs: Any) -> urllib3.BaseHTTPResponse:
        """Send a request; release its connection when the answer is read."""
        return super().urlopen(*args, **kwargs | {"release_conn": True})


class _EncryptedPool(_Pool, urllib3.HTTPSConnectionPool):
    ConnectionCls = _WholeAnswersEncrypted


_POOLS = {"http": _Pool, "https": _EncryptedPool}


class RetryAdapter(HTTPAdapter):
    """An adapter that uses the connections above, and has other retries in each thread."""

    _of_thread = threading.local()

    @property
    def max_retries(self) -> urllib3.Retry:
        """The retries of this thread's next request."""
        retries: urllib3.Retry = self._of_thread.retries
        return retries

    @max_retries.setter
    def max_retries(self, retries: urllib3.Retry) -> None:
        self._of_thread.retries = retries

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        """Create the pools of direct connections."""
        super().init_poolmanager(*args, **kwargs)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def proxy_manager_for(self, *args: Any, **kwargs: Any) -> urllib3.ProxyManager:
        """Return the pools of a proxy."""
        manager: urllib3.ProxyManager = super().proxy_manager_for(*args, **kwargs)
        manager.pool_classes_by_scheme = _POOLS
        return manager


class ApiSession:
    """Sends at most `workers` concurrent requests to one server.

    Retries three times (after 0, 4 and 8 seconds, or when the server says) on 429, 500,
    502, 503, 504, failed connections and incomplete bodies. The token and further headers
    are sent to `base_url` only, and never unencrypted through a proxy: http:// and
    loopback addresses are requested directly.
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
        found = self._session.merge_environment_settings(
            base_url, {}, stream=True, verify=None, cert=None
        )
        self._options: dict[str, Any] = {**found, "allow_redirects": False}
        parts = urlsplit(base_url)
        if parts.scheme == "http" or is_loopback(parts.hostname or ""):
            self._options["proxies"] = {}
        _hide_logins(self.base_url, self._options["proxies"])
        self._adapter = RetryAdapter(pool_maxsize=MOST_CONNECTIONS)
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
            endpoint: the server may limit the concurrent requests to each.
            statuses: to retry.

        Raises:
            HttpError: an error status after the retries.
            Unreachable: no connection, for this or another request of the run.
            ApiError: no complete answer, or a redirect to another server.
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
        try:
            request = requests.Request("GET", url, params=params)
            asked = self._session.prepare_request(request)
            with self.limiter.slot(retry.endpoint):
                if self._unreachable:
                    raise copy(self._unreachable)
                retry.stats.count(requests=1)
                self._adapter.max_retries = retry
                response = self._session.send(asked, timeout=TIMEOUT, **self._options)
        except (OSError, HTTPError, ValueError) as error:
            failure = _failure(url, error)
        else:
            for each in filter(None, (asked, response.next)):
                each.headers.clear()  # they hold the token; errors keep the request
            self.limiter.update(response.headers, retry.endpoint)
            log.debug(
                "GET %s: %d, %d bytes in %.2f s",
                masked(asked.url),
                response.status_code,
                len(response.content),
                response.elapsed.total_seconds(),
            )
            return response
        if isinstance(failure, Unreachable):
            self._unreachable = failure
        raise failure  # behind the block: dlt stores the messages of an error's causes


def _read_body(response: HTTPResponse) -> bytes:
    parts, size, deadline = [], 0, time.monotonic() + LONGEST_ANSWER
    try:
        while part := response.read1(1 << 20, decode_content=True):
            parts.append(part)
            size += len(part)
            if size > LARGEST_BODY:
                raise UnexpectedAnswer(f"the answer is over {LARGEST_BODY >> 20} MB")
            if time.monotonic() > deadline:
                raise UnexpectedAnswer(f"the answer takes over {LONGEST_ANSWER:g} s")
    except DecodeError as error:
        raise ProtocolError(words(error)) from None
    return b"".join(parts)


def _hide_logins(base_url: str, proxies: Mapping[str, str]) -> None:
    """Hide the logins in the addresses of proxies.

    Raises:
        ConfigurationError: libraries would take part of the login for the host.
    """
    for address in proxies.values():
        login = address.rpartition("@")[0]
        if login.count("://") == 1:
            login = login.partition("://")[2]
        user, _, password = login.partition(":")
        plain = unquote(login)
        hide(login, plain, password or user, unquote(password or user))
        hide(b64encode(plain.encode()).decode())  # as Proxy-Authorization has it
        is_used = address == requests.utils.select_proxy(base_url, proxies)
        if is_used and re.search(r"[/#?\[\]@\\\s]", login):
            raise ConfigurationError(
                "the proxy's login (HTTPS_PROXY or ALL_PROXY) has a special character."
                " Percent-encode it, such as %2F for / and %40 for @."
            )


def is_loopback(host: str) -> bool:
    """Return whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _same_origin(response: requests.Response, target: str) -> str:
    """Return the target of a redirect if it is on the same server."""
    is_same = _origin(target) == _origin(response.url)
    origin = shortened(_origin(target), 200)
    # Within the API's own paths, a project may be named `auth`.
    paths = {urlsplit(url).path.split("/")[:2][-1] for url in (target, response.url)}
    if is_login_page(target) and len(paths) > 1:
        reason = f"a login page of {origin}. {LOGIN}"
    elif not is_same:
        reason = (
            f"{origin}, where the token is not sent. If that is your server, set base_url"
            f" to {origin}."
        )
    else:
        return target
    raise ApiError(f"{without_query(response.url)} redirects to {reason}")


def _origin(url: str) -> str:
    """Return scheme, host and port, the latter only if it is not the default."""
    parts = urlsplit(url)
    port = {"http": ":80", "https": ":443"}.get(parts.scheme, "")
    return f"{parts.scheme}://{parts.netloc.lower().removesuffix(port)}"


def _failure(url: str, error: Exception) -> ApiError:
    """Return the error for a request without a complete answer."""
    if isinstance(error, UnexpectedAnswer):
        return error.about(without_query(url))
    if isinstance(error, Unreachable):
        return error
    if not isinstance(error, OSError | HTTPError):
        return UnexpectedAnswer(
            f"{without_query(url)} redirects to an invalid address ({error})"
        )
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
    text = words(cause).rstrip(".")
    if "WRONG_VERSION_NUMBER" in text:
        return "the port does not speak TLS. If the server uses http, write http://"
    if "SOCKS support" in text:
        return "a SOCKS proxy needs a package. Run: pip install 'requests[socks]'"
    certificate: Any = cause.args[0] if isinstance(cause, SSLError) else None
    if not isinstance(certificate, ssl.SSLCertVerificationError):
        return text
    text = f"its certificate is not valid: {certificate.verify_message}".rstrip(".")
    if certificate.verify_code in _UNTRUSTED:
        text += (
            ". If your own authority issued it, set the environment variable"
            " REQUESTS_CA_BUNDLE to the authority's certificate file"
        )
    return text
