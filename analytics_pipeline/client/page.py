"""Parse answers into pages."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from itertools import compress
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from analytics_pipeline.client.endpoints import ApiSpec, Endpoint
from analytics_pipeline.errors import HttpError, OtherShape, UnexpectedAnswer, shortened
from analytics_pipeline.secrets import masked, masked_answer
from analytics_pipeline.values import (
    describe_type,
    dumps,
    loads,
    parse_timestamp,
    utc,
)

LONGEST_TEXT = 1 << 18
"""Bytes of a web page that are searched for its title and a login form."""
Record = dict[str, Any]

LOGIN = (
    "A proxy in front of the API asks for a login. Use an address behind the proxy, or let"
    " it pass requests that have a token."
)
LOGIN_WORDS = re.compile(
    r"\b(login|signin|sso|saml2?|oauth2?|auth|accounts|cloudflareaccess)\b"
)
"""In addresses of login pages, such as accounts.google.com."""
_PASSWORD = re.compile(r"""\btype\s*=\s*["']?password""", re.IGNORECASE)

# RFC 8288: <url>, then ;name="value", ;name=token or ;name.
_PAIR = r"""\s*;\s*([\w*-]+)(?:\s*=\s*("[^"]*"|[^\s"',;<>{}]+))?"""
_PARAMETER = re.compile(_PAIR)
_LINK = re.compile(rf"<([^<>]*)>((?:{_PAIR})*)")


class Page(NamedTuple):
    """The records of one answer."""

    records: list[Record]
    times: list[datetime | None]
    """Of each record; None if it has no usable time."""
    next_cursor: str | None
    """Page cursor; None on the last page."""
    read_at: datetime
    """When the answer was received, UTC."""
    server_time: datetime
    """The server's `Date` of the answer, or the local time."""
    replaced: int = 0
    """Characters that databases reject, replaced by U+FFFD."""
    asked_cursor: str | None = None
    """The page's own cursor; None on the first page, and when paging by time."""
    is_filtered: bool = False
    """The server left out records outside the requested span."""

    def reached(self) -> datetime | None:
        """Return the later time of the last two rows, as one may have an odd time.

        None if no row has a time, or if rows were filtered and fewer than two have one.
        """
        last = [time for time in self.times if time][-2:]
        if self.is_filtered and len(last) < 2:
            return None
        return max(last, default=None)

    def keys(self, field: str) -> set[Any]:
        """Return the records' values of a field."""
        return {record[field] for record in self.records}

    def without(self, field: str, received: set[Any]) -> "Page":
        """Return the page without records that were received before."""
        return self._kept([record[field] not in received for record in self.records])

    def _kept(self, wanted: list[bool]) -> "Page":
        """Return the page with the wanted records only."""
        records, times = compress(self.records, wanted), compress(self.times, wanted)
        return self._replace(records=[*records], times=[*times])

    def of_organization(self, slug: str) -> "Page":
        """Return a page of projects without those of other organizations."""
        return self._kept([owner(each) in (None, slug) for each in self.records])

    def is_mostly_outside(self, start: datetime, end: datetime) -> bool:
        """Return whether the server ignores the requested window.

        A few rows may show another time than the one that the server filters by.
        """
        times = [time for time in self.times if time]
        outside = sum(not start <= time < end for time in times)
        return self.next_cursor is not None and 2 * outside > len(times)


def parse_page(response: requests.Response, spec: ApiSpec, endpoint: Endpoint) -> Page:
    """Return the records of an answer with a good status, and the next page cursor.

    Raises:
        UnexpectedAnswer: not JSON, a record without its key, no usable Link header, or
            another shape than the API has.
    """
    read_at = datetime.now(UTC)
    try:
        # The session has parsed it already, to see whether it is complete.
        parsed = getattr(response.raw, "parsed", None)
        body, replaced = parsed or loads(response.content)
    except ValueError as error:
        raise OtherShape(_describe_text(response, error)) from None
    url = without_query(response.url)
    try:
        records = _records(body, spec.envelope, endpoint.single)
        _check_records(records, endpoint.key)
        link = response.headers.get("Link")
        if not endpoint.single and not records and link is None:
            raise UnexpectedAnswer(
                "the answer is empty and has no Link header, which even an empty list"
                f" has. {endpoint.unlinked}".rstrip()
            )
        cursor = None if endpoint.single else next_cursor(link)
    except UnexpectedAnswer as error:
        raise error.about(url) from None
    server_time = _server_time(response) or read_at
    key = endpoint.replication_key
    times = [parse_timestamp(record.get(key)) for record in records]
    return Page(records, times, cursor, read_at, server_time, replaced)


def owner(project: Record) -> str | None:
    """Return the slug of a project's organization, if the record has it."""
    organization = project.get("organization")
    slug = organization.get("slug") if isinstance(organization, dict) else None
    return slug if isinstance(slug, str) else None


def no_rows() -> Page:
    """Return an empty page, without a request."""
    now = datetime.now(UTC)
    return Page([], [], None, now, now)


def next_cursor(link: str | None) -> str | None:
    """Return the page cursor of the next page; None on the last page.

    Only `results="true"` means that there is more: the last page also has a `rel="next"`
    link. GlitchTip sends the text of a Python set, so other text around links is ignored.

    Raises:
        UnexpectedAnswer: no link to a next page, or no page cursor in it.
    """
    for url, parameters, *_ in _LINK.findall(link or ""):
        pairs = _PARAMETER.findall(parameters)
        values = {name.lower(): value.strip('"') for name, value in pairs}
        if "next" not in values.get("rel", "").lower().split():
            continue
        more = values.get("results", "").lower()
        if more == "false":
            return None
        if more != "true":
            raise UnexpectedAnswer(
                "the link to the next page does not say whether there are more rows"
                f' (results="true" or "false"): {link!r}'
            )
        in_url = parse_qs(url.partition("?")[2]).get("cursor", [""])
        cursor: str = values.get("cursor") or in_url[0]
        if not cursor:
            raise UnexpectedAnswer(
                f"the Link header says that there are more rows, but has no cursor: {link!r}"
            )
        if masked_answer(cursor.encode()) != cursor.encode():
            raise UnexpectedAnswer(  # it would be stored with the bookmark
                f"the page cursor of the next page holds the token or a header: {link!r}"
            )
        return cursor
    raise UnexpectedAnswer(
        f'the answer has no link with rel="next" (Link: {link!r}). Check base_url, api,'
        " and whether a proxy drops headers."
    )


def http_error(response: requests.Response) -> HttpError:
    """Return the error for an answer with a bad status."""
    status = response.status_code
    phrase = f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""
    message = (
        f"{without_query(response.url)}: {status}{phrase}, {error_detail(response)!r}"
    )
    if replacement := response.headers.get("X-Sentry-Replacement-Endpoint"):
        message += f"; the server has replaced this address by {replacement}"
    # The error holds the answer and may be stored.
    named = {masked(name): masked(value) for name, value in response.headers.items()}
    response.headers = CaseInsensitiveDict(named)
    response.url, response.reason = masked(response.url), masked(response.reason)
    response.cookies.clear()
    return HttpError(message, response=response)


def error_detail(response: requests.Response) -> str:
    """Return the reason that the server gives."""
    try:
        body, _ = loads(response.content)
    except ValueError:
        text = re.sub("<[^>]*>", " ", shortened(_text(response), 4000))
        return shortened(" ".join(text.split()), 120)
    detail = body.get("detail", body) if isinstance(body, dict) else body
    if code := error_code(response):
        detail = f"{detail.get('message', '')} ({code})"
    text = detail if isinstance(detail, str) else dumps(detail).decode()
    return shortened(text, 300)


def error_code(response: requests.Response) -> str:
    """Return Sentry's code of a special refusal, such as `2fa-required`."""
    with suppress(ValueError, LookupError, TypeError):
        return str(loads(response.content)[0]["detail"]["code"])
    return ""


def without_query(url: str) -> str:
    """Return the URL up to its query."""
    return url.partition("?")[0]


def _records(body: Any, envelope: str | None, single: bool) -> list[Any]:
    if envelope is not None:
        if not isinstance(body, dict) or envelope not in body:
            raise OtherShape(
                f"the answer has no {envelope!r}, but is {describe_type(body)}. Check the"
                " setting api."
            )
        body = body[envelope]
    if not isinstance(body, dict if single else list):
        expected = "an object" if single else "an array"
        raise OtherShape(
            f"the answer should hold {expected}, but holds {describe_type(body)}"
        )
    return [body] if isinstance(body, dict) else body


def _check_records(records: list[Any], key: str) -> None:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise UnexpectedAnswer(
                f"row {number} of the page is not an object, but {describe_type(record)}"
            )
        value = record.get(key)
        if not ((isinstance(value, str) and value) or type(value) is int):
            raise UnexpectedAnswer(
                f"row {number} of the page has no usable {key!r}"
                f" ({describe_type(value)}): {describe_type(record)}"
            )


def _server_time(response: requests.Response) -> datetime | None:
    """Return the time of the `Date` header."""
    try:
        return utc(parsedate_to_datetime(response.headers.get("Date", "")))
    except (ValueError, OverflowError):
        return None


def is_login_page(url: str) -> bool:
    """Return whether a URL looks like a login page."""
    parts = urlsplit(url)
    return bool(LOGIN_WORDS.search(f"{parts.hostname}{parts.path}".lower()))


def _describe_text(response: requests.Response, error: ValueError) -> str:
    """Return what is wrong with an answer that is not JSON.

    Web pages are named by their title; other text may hold values of a row.
    """
    url, title = without_query(response.url), ""
    content = response.headers.get("Content-Type", "no content type")
    if "html" in content:
        html = _text(response)
        found = re.search("<(title|h1)[^>]*>([^<]*)", shortened(html, 4000), re.I)
        title = f", {shortened(' '.join(found[2].split()), 80)!r}" if found else ""
        if _PASSWORD.search(html):
            return f"{url} answered with a login page{title}. {LOGIN}"
    return (
        f"{url} did not answer with JSON but with {content} ({error}){title}. Check"
        " base_url and api."
    )


def _text(response: requests.Response) -> str:
    """Return the beginning of an answer that is not JSON."""
    return response.content[:LONGEST_TEXT].decode(errors="replace")
