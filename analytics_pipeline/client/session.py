"""One server, asked over one `requests.Session`: token, retries, redirects, bodies."""

import logging
import threading
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter, Retry
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NewConnectionError,
    ProtocolError,
    ProxyError,
    SSLError,
)

from analytics_pipeline.client.page import asked_url, http_error, without_query
from analytics_pipeline.client.retry import (
    STATUSES,
    RateLimiter,
    RateLimitRetry,
    hide_log_of_retries,
    words,
)
from analytics_pipeline.errors import (
    ApiError,
    BrokenAnswer,
    UnexpectedAnswer,
    Unreachable,
)

log = logging.getLogger(__name__)

TIMEOUT = (10, 120)
"""Seconds to connect, and seconds between two bytes of an answer."""
REDIRECTS = 5
LONGEST_ANSWER = 300.0
"""Seconds for a whole answer, however slowly its bytes come."""
LARGEST_BODY = 256 << 20
"""Bytes of an answer, unpacked; a page of a hundred rows has some hundred kB."""
HEADERS = {"Accept": "application/json", "User-Agent": "analytics-pipeline"}
_NO_CONNECTION = (NewConnectionError, ConnectTimeoutError, ProxyError, SSLError)


@dataclass
class RequestStats:
    """What reading one list took; several workers may count at once."""

    requests: int = 0
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""
    _told: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, requests: int = 0, replaced: int = 0) -> None:
        """Add to the figures."""
        with self._lock:
            self.requests += requests
            self.replaced += replaced

    def new_requests(self) -> int:
        """Return how many there were since this was asked last."""
        with self._lock:
            new, self._told = self.requests - self._told, self.requests
            return new


class BearerAuth(requests.auth.AuthBase):
    """Sends the token; being set, it keeps requests from sending a login of ~/.netrc."""

    def __init__(self, token: str) -> None:
        self.__header = f"Bearer {token}"

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        """Add the header."""
        request.headers["Authorization"] = self.__header
        return request


class RetryAdapter(HTTPAdapter):
    """An adapter whose `max_retries` is what the calling thread has set.

    requests knows one for all requests. Here a request that is sent again, since its
    body broke off, has only the retries that are left to it.
    """

    def __init__(self, pool_maxsize: int) -> None:
        self._of_thread = threading.local()
        super().__init__(pool_maxsize=pool_maxsize)

    @property
    def max_retries(self) -> Retry:
        """The retries of the next request."""
        retries: Retry = self._of_thread.retries
        return retries

    @max_retries.setter
    def max_retries(self, retries: Retry) -> None:
        self._of_thread.retries = retries


class ApiSession:
    """A server, asked by at most `workers` requests at a time.

    Three retries in all (0, 4 and 8 seconds apart, or as long as the server asks) on
    429, 500, 502, 503, 504, on refused and broken connections, and on bodies cut
    short. The token goes to `base_url` only, and through a proxy only encrypted:
    http:// and loopback addresses are asked directly.
    """

    def __init__(self, base_url: str, token: str, workers: int) -> None:
        self.base_url = base_url
        self.limiter = RateLimiter(workers)
        self._retry = RateLimitRetry.of(self.limiter)
        self._session = requests.Session()
        self._session.auth = BearerAuth(token)
        self._session.headers.update(HEADERS)
        # Proxies and certificates of the environment: looked up once, not each time.
        self._environment = self._session.merge_environment_settings(
            self.base_url, {}, stream=True, verify=None, cert=None
        )
        parts = urlsplit(base_url)
        if parts.scheme == "http" or is_loopback(parts.hostname or ""):
            self._environment["proxies"] = {}
        self._adapter = RetryAdapter(workers)
        for scheme in ("http://", "https://"):
            self._session.mount(scheme, self._adapter)
        hide_log_of_retries(self)

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
            params: of the query.
            stats: counts the requests.
            endpoint: what the server's limit of requests at a time is for.
            statuses: to be tried again.

        Raises:
            HttpError: any other status, after the retries.
            Unreachable: no connection, after the retries.
            BrokenAnswer: no whole answer, after the retries.
            ApiError: a redirect to another server.
        """
        url = self.base_url + path
        for _ in range(REDIRECTS):
            retry = self._retry.new(status_forcelist=statuses)
            response = self._send(url, params, stats, endpoint, retry)
            if response.next is None:
                break
            url = _same_origin(response, response.next.url or "")
            params = {}  # the new location has them
        if response.status_code >= 300:
            raise http_error(response)
        return response

    def _send(
        self,
        url: str,
        params: Mapping[str, str],
        stats: RequestStats,
        endpoint: str,
        retry: Retry,
    ) -> requests.Response:
        """Also retries what urllib3 does not cover: reading the body."""
        while True:
            attempts = len(retry.history)
            stats.count(requests=1)
            try:
                request = requests.Request("GET", url, params=params)
                prepared = self._session.prepare_request(request)
                with self.limiter.slot(endpoint):
                    asked_at = time.perf_counter()
                    self._adapter.max_retries = retry
                    response = self._session.send(
                        prepared,
                        timeout=TIMEOUT,
                        allow_redirects=False,
                        **self._environment,
                    )
                    retry = response.raw.retries or retry
                    stats.count(requests=len(retry.history) - attempts)
                    response._content = _body(response)
            except (requests.exceptions.RequestException, HTTPError) as error:
                if _gave_up(error):
                    raise _connection_error(url, error) from None
                try:
                    retry = retry.increment(
                        "GET", without_query(url), error=ProtocolError(_reason(error))
                    )
                except MaxRetryError:
                    raise _connection_error(url, error) from None
                retry.sleep()
            except UnexpectedAnswer:
                raise
            except ValueError as error:  # requests has looked at the redirect already
                raise UnexpectedAnswer(
                    f"{without_query(url)} redirects to what is no address ({error})"
                ) from None
            else:
                log.debug(
                    "GET %s: %d, %d bytes in %.2f s",
                    prepared.url,
                    response.status_code,
                    len(response.content),
                    time.perf_counter() - asked_at,
                )
                self.limiter.update(response.headers, endpoint)
                return response


def _body(response: requests.Response) -> bytes:
    """Return the body of an answer; requests by itself would take 10 kB at a time.

    Raises:
        UnexpectedAnswer: it is too large, or takes too long.
    """
    parts, size, started = [], 0, time.monotonic()
    while part := response.raw.read1(1 << 20, decode_content=True):
        parts.append(part)
        size += len(part)
        problem = ""
        if size > LARGEST_BODY:
            problem = f"is larger than {LARGEST_BODY >> 20} MB unpacked"
        if time.monotonic() - started > LONGEST_ANSWER:
            problem = f"takes longer than {LONGEST_ANSWER / 60:.0f} minutes"
        if problem:
            response.close()
            raise UnexpectedAnswer(f"{asked_url(response)}: the answer {problem}")
    response.raw.release_conn()
    return b"".join(parts)


def is_loopback(host: str) -> bool:
    """Tell whether a host is this machine."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def _same_origin(response: requests.Response, target: str) -> str:
    """Return where a redirect leads, if that is the same server."""
    origin = "{}://{}".format(*urlsplit(target))
    if origin != "{}://{}".format(*urlsplit(response.url)):
        raise ApiError(
            f"{asked_url(response)} redirects to {origin}, and the token is not sent"
            f" there; if that is your server, set base_url to {origin}"
        )
    return target


def _gave_up(error: Exception) -> bool:
    """Tell whether retries are used up, or would not help."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) or isinstance(
        error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema
    )


def _connection_error(url: str, error: Exception) -> ApiError:
    """Return the error for a request that had no whole answer."""
    cause: Any = error.args[0] if error.args else error
    broken = not isinstance(getattr(cause, "reason", None), _NO_CONNECTION) and (
        not isinstance(error, requests.exceptions.InvalidURL)
    )
    kind = BrokenAnswer if broken else Unreachable
    return kind(f"{without_query(url)}: {_reason(error)}")


def _reason(error: Exception) -> str:
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    if isinstance(cause, ProxyError):
        return f"{cause.args[0]}: {_reason(cause.original_error)}"
    return words(cause)
