"""The session (auth, retries, rate limits, timeouts) and `pages()`, the cursor loop.

Knows nothing of dlt or of tables: paths and parameters in, JSON out.
"""

import re
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import MaxRetryError, ProtocolError

from analytics_pipeline.auth import BearerAuth, check_base_url, check_token
from analytics_pipeline.errors import (
    ApiError,
    CursorLoop,
    HttpError,
    UnexpectedAnswer,
    Unreachable,
    place,
    plain,
)
from analytics_pipeline.pages import Page, read_page
from analytics_pipeline.patience import Gate, PatientRetry

TIMEOUT = (10, 120)
"""Seconds to connect, and seconds between two bytes of an answer."""
REDIRECTS = 5
HEADERS = {"Accept": "application/json", "User-Agent": "analytics-pipeline"}


@dataclass
class Tally:
    """What reading one list took; several workers may count at once."""

    requests: int = 0
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def count(self, requests: int = 0, replaced: int = 0) -> None:
        with self._lock:
            self.requests += requests
            self.replaced += replaced


class Api:
    """A server, asked by at most `workers` requests at a time.

    Three retries (0, 4 and 8 seconds apart, or as long as the server asks) on
    429, 500, 502, 503, 504, on refused and broken connections, and on bodies cut
    short. The token goes to `base_url` only.

    Raises:
        InsecureUrl: `base_url` is http:// on another host and not allowed.
        ConfigurationError: the token cannot be one.
    """

    def __init__(
        self, base_url: str, token: str, *, workers: int = 4, allow_http: bool = False
    ) -> None:
        self.base_url = base_url.rstrip("/")
        check_base_url(self.base_url, allow_http)
        check_token(token)
        self.workers = workers
        self.gate = Gate(workers)
        self._retry = PatientRetry.of(self.gate)
        self._session = requests.Session()
        self._session.auth = BearerAuth(token)
        self._session.headers.update(HEADERS)
        # Proxies and certificates of the environment: looked up once, not each time.
        self._environment = self._session.merge_environment_settings(
            self.base_url, {}, stream=True, verify=None, cert=None
        )
        for scheme in ("http://", "https://"):
            self._session.mount(
                scheme, HTTPAdapter(pool_maxsize=workers, max_retries=self._retry)
            )

    def pages(
        self,
        path: str,
        params: Mapping[str, str],
        *,
        envelope: str | None,
        key: str,
        tally: Tally,
    ) -> Iterator[Page]:
        """The pages of a list; of a single object, one page of one row.

        Raises:
            HttpError: the server refused; its status and words are in the message.
            UnexpectedAnswer: not JSON, no rows where they belong, a row of another
                shape.
            MissingField: a row without `key`.
            CursorLoop: the server sent a cursor twice; reading would never end.
        """
        cursor: str | None = None
        known: set[str] = set()
        position = 0
        while True:
            asked = dict(params) if cursor is None else {**params, "cursor": cursor}
            response = self.get(path, asked, tally)
            page = read_page(response, envelope, key)
            tally.count(replaced=page.replaced)
            position += len(page.rows)
            yield page
            cursor = page.next_cursor
            if cursor is None:
                return
            if cursor in known:
                raise CursorLoop(
                    f"{place(response)}: the server sent the cursor {cursor!r} for the"
                    f" second time, after {position} rows; it would never end",
                    page.rows,
                )
            known.add(cursor)

    def get(
        self, path: str, params: Mapping[str, str], tally: Tally
    ) -> requests.Response:
        """One answer with a good status.

        Raises:
            HttpError: any other status, after the retries.
            Unreachable: no connection, or no whole body, after the retries.
        """
        url = self.base_url + path
        for _ in range(REDIRECTS):
            response = self._send(url, params, tally)
            if response.next is None:
                break
            url = _same_origin(response, response.next.url or "")
            params = {}  # the new location has them
        if response.status_code >= 300:
            raise HttpError.of(response)
        return response

    def _send(
        self, url: str, params: Mapping[str, str], tally: Tally
    ) -> requests.Response:
        """Also retries what urllib3 does not cover: reading the body."""
        retry = self._retry
        while True:
            tally.count(requests=1)
            try:
                with self.gate.slot():
                    request = requests.Request("GET", url, params=params)
                    response = self._session.send(
                        self._session.prepare_request(request),
                        timeout=TIMEOUT,
                        allow_redirects=False,
                        **self._environment,
                    )
                    # At once: requests by itself would take 10 kB at a time.
                    response._content = b"".join(response.iter_content(1 << 20))
            except requests.exceptions.RequestException as error:
                if _gave_up(error):
                    raise Unreachable(f"{plain(url)}: {_reason(error)}") from None
                try:
                    retry = retry.increment(
                        "GET", plain(url), error=ProtocolError(_reason(error))
                    )
                except MaxRetryError:
                    raise Unreachable(f"{plain(url)}: {_reason(error)}") from None
                retry.sleep()
            except ValueError as error:  # requests has looked at the redirect already
                raise UnexpectedAnswer(
                    f"{plain(url)} redirects to what is no address ({error})"
                ) from None
            else:
                retries = response.raw.retries
                tally.count(requests=len(retries.history) if retries else 0)
                self.gate.heed(response.headers)
                return response


def _same_origin(response: requests.Response, target: str) -> str:
    """Where a redirect leads, if that is the same server."""
    origin = "{}://{}".format(*urlsplit(target))
    if origin != "{}://{}".format(*urlsplit(response.url)):
        raise ApiError(
            f"{place(response)} redirects to {origin}, and the token is not sent"
            f" there; if that is your server, set base_url to {origin}"
        )
    return target


def _gave_up(error: Exception) -> bool:
    """Retries are used up, or would not help."""
    cause = error.args[0] if error.args else None
    return isinstance(cause, MaxRetryError) or isinstance(
        error, requests.exceptions.InvalidURL | requests.exceptions.InvalidSchema
    )


def _reason(error: Exception) -> str:
    cause: Any = error.args[0] if error.args else error
    cause = getattr(cause, "reason", None) or cause
    return re.sub(r"<[^>]*>: |\w+\(host=[^)]*\): ", "", str(cause))
