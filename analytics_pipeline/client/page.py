"""What is on a page, and where the next one is: pure functions of an answer."""

import re
from contextlib import suppress
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any, NamedTuple
from urllib.parse import parse_qs, urlsplit

import requests
from requests.structures import CaseInsensitiveDict

from analytics_pipeline.client.endpoints import ApiSpec, Endpoint
from analytics_pipeline.errors import (
    EmptyAnswer,
    HttpError,
    MissingField,
    MissingLink,
    OtherApi,
    UnexpectedAnswer,
    shortened,
)
from analytics_pipeline.secrets import masked, masked_answer
from analytics_pipeline.values import (
    describe_type,
    dumps,
    loads,
    parse_timestamp,
    utc,
)

LONGEST_TEXT = 1 << 18
"""Bytes of a web page that are looked at."""
Record = dict[str, Any]

LOGIN = (
    "something in front of the API wants people to log in, which a token cannot; use an"
    " address behind it, or let it pass requests with a token"
)
LOGIN_WORDS = re.compile(
    r"\b(login|signin|sso|saml2?|oauth2?|auth|accounts|cloudflareaccess)\b"
)
"""In addresses of login pages, such as accounts.google.com."""

# RFC 8288: <url>, then ;name="value", ;name=token or ;name.
_PAIR = r"""\s*;\s*([\w*-]+)(?:\s*=\s*("[^"]*"|[^\s"',;<>{}]+))?"""
_PARAMETER = re.compile(_PAIR)
_LINK = re.compile(rf"<([^<>]*)>((?:{_PAIR})*)")


class Page(NamedTuple):
    """The records of one answer."""

    records: list[Record]
    times: list[datetime | None]
    """When each record is from; None where it does not tell."""
    next_cursor: str | None
    """Page cursor of the next page; None on the last one."""
    read_at: datetime
    """When the answer was received, UTC."""
    server_time: datetime
    """What the server's clock said then; the local one where it said nothing."""
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""
    asked_cursor: str | None = None
    """Its own page cursor; None on the first page, and where paging is by time."""
    is_filtered: bool = False
    """The server has left out what lies outside of the span that was asked for."""

    def reached(self) -> datetime | None:
        """Return the time that a list, newest first, has come down to with this page.

        It is the later time of the last two rows, since one may show an odd time. None
        if no row tells its time, or where rows were filtered, fewer than two.
        """
        last = [time for time in self.times if time][-2:]
        return (
            max(last, default=None) if len(last) == 2 or not self.is_filtered else None
        )

    def keys(self, field: str) -> set[Any]:
        """Return the records' values of a field."""
        return {record[field] for record in self.records}

    def without(self, field: str, received: set[Any]) -> "Page":
        """Return the page without the records that were received already."""
        if not received:
            return self
        kept = [n for n, r in enumerate(self.records) if r[field] not in received]
        return self._replace(
            records=[self.records[n] for n in kept], times=[self.times[n] for n in kept]
        )

    def is_mostly_outside(self, start: datetime, end: datetime) -> bool:
        """Return whether a server that goes on behind this page ignores this window.

        A few rows may show another time than the one that the server goes by.
        """
        times = [time for time in self.times if time]
        outside = sum(not start <= time < end for time in times)
        return self.next_cursor is not None and 2 * outside > len(times)


def parse_page(
    response: requests.Response,
    envelope: str | None,
    *,
    key: str,
    time_field: str,
    single: bool,
) -> Page:
    """Return the records of an answer, and the page cursor behind them.

    Args:
        response: an answer with a good status, its body read.
        envelope: key of the body that holds the records; None: the body is the records.
        key: field that each record must have, as text or integer.
        time_field: field that says when a record is from.
        single: the answer is one object, and has no pages.

    Raises:
        OtherApi: not JSON, or no records where this API has them.
        UnexpectedAnswer: a record of another shape.
        MissingField: a record without `key`.
        MissingLink: no link that tells whether there are more.
    """
    read_at = datetime.now(UTC)
    try:
        # The session has parsed it already, to see whether it is whole.
        parsed = getattr(response.raw, "parsed", None)
        body, replaced = parsed or loads(response.content)
    except ValueError as error:
        content = response.headers.get("Content-Type", "no content type")
        if _has_login_form(response):
            raise UnexpectedAnswer(
                f"{asked_url(response)} answered with a login page{_title(response)};"
                f" {LOGIN}"
            ) from None
        raise OtherApi(
            f"{asked_url(response)} did not answer with JSON but with {content}"
            f" ({error}){_title(response)}; check base_url and api"
        ) from None
    records = _records(body, envelope, single, response)
    _check_records(records, key, response)
    cursor = None
    if not single:
        try:
            cursor = next_cursor(response.headers.get("Link"))
        except UnexpectedAnswer as error:
            if isinstance(error, MissingLink) and not records:
                raise EmptyAnswer(
                    f"{asked_url(response)} answered with nothing, and without the link"
                    " that every list has, so this is no list without rows"
                ) from None
            raise error.about(asked_url(response)) from None
    server_time = _server_time(response) or read_at
    times = [parse_timestamp(record.get(time_field)) for record in records]
    return Page(records, times, cursor, read_at, server_time, replaced)


def of_organization(page: Page, organization: str) -> Page:
    """Return a page of projects without those that say that they are of another one."""
    kept = [
        (record, time)
        for record, time in zip(page.records, page.times, strict=True)
        if owner(record) in (None, organization)
    ]
    records, times = [record for record, _ in kept], [time for _, time in kept]
    return page._replace(records=records, times=times)


def owner(project: Record) -> str | None:
    """Return the slug of a project's organization, if it says it."""
    organization = project.get("organization")
    slug = organization.get("slug") if isinstance(organization, dict) else None
    return slug if isinstance(slug, str) else None


def parse_answer(
    response: requests.Response, spec: ApiSpec, endpoint: Endpoint
) -> Page:
    """Return the page that an answer of an endpoint is; errors as of `parse_page`."""
    return parse_page(
        response,
        spec.envelope,
        key=endpoint.key,
        time_field=endpoint.replication_key,
        single=endpoint.single,
    )


def no_rows() -> Page:
    """Return the page of a list that is known to be empty, and so was not asked for."""
    now = datetime.now(UTC)
    return Page([], [], None, now, now)


def next_cursor(link: str | None) -> str | None:
    """Return the page cursor of the next page; None on the last one.

    Only `results="true"` means that there is more: the last page has a `rel="next"`
    link, too. GlitchTip sends the text of a Python set, so anything may stand around
    the links.

    Raises:
        MissingLink: nothing tells whether there is a next page.
        UnexpectedAnswer: there is one, but no page cursor to ask for it.
    """
    for url, parameters, *_ in _LINK.findall(link or ""):
        values = {
            name.lower(): value.strip('"')
            for name, value in _PARAMETER.findall(parameters)
        }
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
        if masked_answer(cursor.encode()) != cursor.encode():
            raise UnexpectedAnswer(  # it would be stored with the bookmark
                "the page cursor of the next page holds a secret that was sent to the"
                f" server: {link!r}"
            )
        if cursor:
            return cursor
        raise UnexpectedAnswer(
            "the Link header says that there are more rows, but gives no cursor:"
            f" {link!r}"
        )
    raise MissingLink(
        'the answer has no link with rel="next", so nothing tells whether there are'
        f" more rows (Link: {link!r}); check base_url, api, and proxies that drop"
        " headers"
    )


def http_error(response: requests.Response) -> HttpError:
    """Return the error that an answer with a bad status stands for."""
    status = response.status_code
    phrase = f" {HTTPStatus(status).phrase}" if status in set(HTTPStatus) else ""
    message = f"{asked_url(response)}: {status}{phrase}, {error_detail(response)!r}"
    if replacement := response.headers.get("X-Sentry-Replacement-Endpoint"):
        message += f"; the server has withdrawn this address for {replacement}"
    # The error holds the answer, and may be stored with it.
    named = {masked(name): masked(value) for name, value in response.headers.items()}
    response.headers = CaseInsensitiveDict(named)
    response.url, response.reason = masked(response.url), masked(response.reason)
    response.cookies.clear()
    return HttpError(message, response=response)


def error_detail(response: requests.Response) -> str:
    """Return the server's own words about an error."""
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
    """Return Sentry's code of a refusal that has its own reason, such as `2fa-required`.

    It stands in `detail`, which otherwise is text.
    """
    with suppress(ValueError, LookupError, TypeError):
        return str(loads(response.content)[0]["detail"]["code"])
    return ""


def asked_url(response: requests.Response) -> str:
    """Return the URL that was asked, without its query."""
    return without_query(response.url)


def without_query(url: str) -> str:
    """Return the URL up to its query."""
    return url.partition("?")[0]


def _records(
    body: Any, envelope: str | None, single: bool, response: requests.Response
) -> list[Any]:
    if envelope is not None:
        if not isinstance(body, dict) or envelope not in body:
            raise OtherApi(
                f"{asked_url(response)}: the answer has no {envelope!r}, but is"
                f" {describe_type(body)}; check the setting api"
            )
        body = body[envelope]
    if not isinstance(body, dict if single else list):
        expected = "an object is" if single else "rows are"
        raise OtherApi(
            f"{asked_url(response)}: {expected} expected, but {describe_type(body)} came"
        )
    return [body] if isinstance(body, dict) else body


def _check_records(records: list[Any], key: str, response: requests.Response) -> None:
    for number, record in enumerate(records, start=1):
        if not isinstance(record, dict):
            raise UnexpectedAnswer(
                f"{asked_url(response)}: row {number} of the page is not an object, but"
                f" {describe_type(record)}"
            )
        value = record.get(key)
        if not ((isinstance(value, str) and value) or type(value) is int):
            raise MissingField(
                f"{asked_url(response)}: row {number} of the page has no usable {key!r}"
                f" ({describe_type(value)}): {describe_type(record)}"
            )


def _server_time(response: requests.Response) -> datetime | None:
    """Return what the `Date` header says, which has whole seconds."""
    try:
        return utc(parsedate_to_datetime(response.headers.get("Date", "")))
    except (ValueError, OverflowError):
        return None


def is_login_page(url: str) -> bool:
    """Return whether an address is one where people log in."""
    parts = urlsplit(url)
    return bool(LOGIN_WORDS.search(f"{parts.hostname}{parts.path}".lower()))


def _has_login_form(response: requests.Response) -> bool:
    is_page = "html" in response.headers.get("Content-Type", "")
    field = r"""\btype\s*=\s*["']?password"""
    return is_page and bool(re.search(field, _text(response), re.IGNORECASE))


def _title(response: requests.Response) -> str:
    """Return what a web page is called; other text may hold values of a row."""
    if "html" not in response.headers.get("Content-Type", ""):
        return ""
    text = shortened(_text(response), 4000)
    title = re.search("<(title|h1)[^>]*>([^<]*)", text, re.IGNORECASE)
    return f", {shortened(' '.join(title[2].split()), 80)!r}" if title else ""


def _text(response: requests.Response) -> str:
    """Return the beginning of an answer that is no JSON."""
    return response.content[:LONGEST_TEXT].decode(errors="replace")
