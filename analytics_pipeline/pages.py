"""What is on a page, and where the next one is: pure functions of an answer."""

import re
from typing import Any, NamedTuple
from urllib.parse import parse_qs

import requests

from analytics_pipeline import jsontext
from analytics_pipeline.errors import (
    MissingField,
    UnexpectedAnswer,
    describe,
    excerpt,
    place,
)

_LINK = re.compile(r'<([^<>]*)>((?:\s*;\s*[\w-]+\s*=\s*"[^"]*")*)')
_PARAMETER = re.compile(r'([\w-]+)\s*=\s*"([^"]*)"')


def next_cursor(link: str | None) -> str | None:
    """Cursor of the next page; None on the last one.

    Only `results="true"` means that there is more: the last page has a
    `rel="next"` link too. GlitchTip sends the text of a Python set, so anything
    may stand around the links.

    Raises:
        UnexpectedAnswer: there is a next page, but no cursor to ask for it.
    """
    for url, parameters in _LINK.findall(link or ""):
        values = dict(_PARAMETER.findall(parameters))
        if values.get("rel") == "next" and values.get("results") == "true":
            in_url = parse_qs(url.partition("?")[2]).get("cursor", [""])
            cursor: str = values.get("cursor") or in_url[0]
            if cursor:
                return cursor
            raise UnexpectedAnswer(
                f"the Link header says that there are more rows, but gives no cursor:"
                f" {link!r}"
            )
    return None


class Page(NamedTuple):
    rows: list[dict[str, Any]]
    next_cursor: str | None = None
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""


def read_page(response: requests.Response, envelope: str | None, key: str) -> Page:
    """
    Raises:
        UnexpectedAnswer: not JSON, no rows where they belong, a row of another shape.
        MissingField: a row without `key`.
    """
    try:
        body, replaced = jsontext.loads(response.content)
    except ValueError as error:
        kind = response.headers.get("Content-Type", "no content type")
        raise UnexpectedAnswer(
            f"{place(response)} did not answer with JSON but with {kind} ({error}):"
            f" {excerpt(response)!r}; check base_url and api"
        ) from None
    if envelope is not None:
        if not isinstance(body, dict) or envelope not in body:
            raise UnexpectedAnswer(
                f"{place(response)}: the answer has no {envelope!r}, but is"
                f" {describe(body)}; check the setting api"
            )
        body = body[envelope]
    rows = [body] if isinstance(body, dict) else body
    if not isinstance(rows, list):
        raise UnexpectedAnswer(
            f"{place(response)}: rows are expected, but {describe(body)} came"
        )
    _check_rows(rows, key, response)
    try:
        return Page(rows, next_cursor(response.headers.get("Link")), replaced)
    except UnexpectedAnswer as error:
        raise UnexpectedAnswer(f"{place(response)}: {error}") from None


def _check_rows(rows: list[Any], key: str, response: requests.Response) -> None:
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict):
            raise UnexpectedAnswer(
                f"{place(response)}: row {number} of the page is not an object, but"
                f" {describe(row)}"
            )
        value = row.get(key)
        if not (isinstance(value, str) and value or type(value) is int):
            raise MissingField(
                f"{place(response)}: row {number} of the page has no usable {key!r}"
                f" ({describe(value)}): {describe(row)}"
            )
