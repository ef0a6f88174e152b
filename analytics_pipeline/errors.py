"""What can go wrong, in words for people.

Every error names the place, what came, and what to do next. Messages hold URLs
without their query, and never the token.
"""

import re
from http import HTTPStatus
from typing import Any

import requests

from analytics_pipeline import jsontext


class AnalyticsError(Exception):
    """Base of all errors of this package."""

    context: str = ""
    """The table and project that it happened to; set by whoever knows."""
    advice: str = ""
    """What to do next."""

    def __str__(self) -> str:
        message = super().__str__()
        if self.context:
            message = f"{self.context}: {message}"
        return f"{message}; {self.advice}" if self.advice else message


class ConfigurationError(AnalyticsError, ValueError):
    """A setting is missing or makes no sense; nothing was asked or loaded."""


class InsecureUrl(ConfigurationError):
    """`base_url` is no address, or would send the token in the clear."""


class Busy(AnalyticsError, RuntimeError):
    """Another process runs the same pipeline; nothing was asked or loaded."""


class ApiError(AnalyticsError):
    """The server did not give what was asked for."""


class Unreachable(ApiError, ConnectionError):
    """No connection, or no whole answer, after all retries."""


class UnexpectedAnswer(ApiError, ValueError):
    """The answer has another shape than the API promises."""


class MissingField(UnexpectedAnswer):
    """A row came without its key."""


class CursorLoop(ApiError, RuntimeError):
    """The server sent a cursor twice in one list; `rows` is the page it came with."""

    def __init__(self, message: str, rows: list[dict[str, Any]]) -> None:
        super().__init__(message)
        self.rows = rows


class HttpError(ApiError, requests.HTTPError):
    """The server refused; `status` and its words are in the message."""

    @classmethod
    def of(cls, response: requests.Response) -> "HttpError":
        status = response.status_code
        message = f"{place(response)}: {status_line(status)}, {said(response)!r}"
        if replacement := response.headers.get("X-Sentry-Replacement-Endpoint"):
            message += f"; the server has withdrawn this address for {replacement}"
        return cls(message, response=response)

    @property
    def status(self) -> int:
        return self.response.status_code if self.response is not None else 0


def place(response: requests.Response) -> str:
    """The URL asked, without its query."""
    return plain(response.url)


def plain(url: str) -> str:
    return url.partition("?")[0]


def describe(value: Any) -> str:
    """A value, shortened, as it stands in JSON."""
    return shortened(jsontext.dumps(value).decode(), 60)


def shortened(text: str, length: int) -> str:
    return text if len(text) <= length else text[: length - 3] + "..."


def excerpt(response: requests.Response, length: int = 120) -> str:
    """The beginning of an answer, without markup."""
    text = without_token(response.text[:4000], response)
    return " ".join(re.sub("<[^>]*>", " ", text).split())[:length]


def said(response: requests.Response) -> str:
    """The server's own words about an error."""
    try:
        body, _ = jsontext.loads(response.content)
    except ValueError:
        return excerpt(response)
    detail = body.get("detail", body) if isinstance(body, dict) else body
    text = detail if isinstance(detail, str) else jsontext.dumps(detail).decode()
    return shortened(without_token(text, response), 300)


def without_token(text: str, response: requests.Response) -> str:
    """Some servers and proxies repeat what they were sent."""
    sent = getattr(response.request, "headers", {}).get("Authorization", "")
    token = sent.removeprefix("Bearer ")
    return text.replace(token, "***") if token else text


def status_line(status: int) -> str:
    try:
        return f"{status} {HTTPStatus(status).phrase}"
    except ValueError:
        return str(status)
