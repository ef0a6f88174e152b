"""Answers as pages, the Link header, and the messages of errors."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from analytics_pipeline.client.endpoints import ApiSpec
from analytics_pipeline.client.page import (
    Page,
    error_detail,
    http_error,
    next_cursor,
    parse_page,
)
from analytics_pipeline.errors import HttpError, UnexpectedAnswer
from analytics_pipeline.secrets import hide, hide_sent
from tests.unit.canned import THINGS, TOKEN
from tests.unit.canned import link as link_header

EVENTS = "https://sentry.io/api/0/projects/acme/frontend/events/"
GLITCHTIP = "http://glitchtip.example/api/0/projects/acme/frontend/issues/"


def link(parameters: str, url: str = EVENTS) -> str:
    return f"<{url}>; {parameters}"


NEXT = 'rel="next"; results="true"; cursor="1:2:0"'
LAST_LINK = 'rel="next"; results="false"'
PREVIOUS = link('rel="previous"; results="true"')


def glitchtip(following: str) -> str:
    """The text of a Python set, as GlitchTip sends it."""
    previous = link('rel="previous"; results="true"; cursor="cj0x"', GLITCHTIP)
    return f"{{'{previous}, {link(f'rel={following}', GLITCHTIP)}'}}"


@pytest.mark.parametrize(
    ("header", "cursor"),
    [
        (f'{PREVIOUS}; cursor="0:0:1", {link(NEXT)}', "1:2:0"),
        (f'{PREVIOUS}, {link(LAST_LINK)}; cursor="0:200:0"', None),
        (glitchtip('"next"; results="true"; cursor="cD0yMDI2LTEx"'), "cD0yMDI2LTEx"),
        (glitchtip('"next"; results="true"; cursor="bz01MA=="'), "bz01MA=="),
        (glitchtip('"next"; results="false"'), None),
        (link(LAST_LINK), None),
        (link('cursor="1:2:0"; results="true"; rel="next"'), "1:2:0"),
        (link('rel="next";results="true";cursor="1:2:0"'), "1:2:0"),
        (link('rel = "next" ;  results = "true" ;  cursor = "1:2:0"'), "1:2:0"),
        (link(NEXT, url=EVENTS + "?a=1,2;b"), "1:2:0"),
        (link(f'title="a, b; c"; {NEXT}'), "1:2:0"),
        (link("rel=next; results=true; cursor=1:2:0"), "1:2:0"),
        (link('Rel="Next"; Results="TRUE"; Cursor="1:2:0"'), "1:2:0"),
        (link('rel="last next"; results="true"; cursor="1:2:0"'), "1:2:0"),
        ('<broken, <>; rel="previous", ' + link(NEXT), "1:2:0"),
        (
            link('rel="next"; results="true"', EVENTS + "?limit=5&cursor=bz01MA%3D%3D"),
            "bz01MA==",
        ),
    ],
)
def test_next_cursor_of_a_link_header(header: str, cursor: str | None) -> None:
    assert next_cursor(header) == cursor


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (None, 'no link with rel="next"'),
        ("", 'no link with rel="next"'),
        (f"<{EVENTS}>", 'no link with rel="next"'),
        (link('rel="previous"; results="true"; cursor="1"'), "no link"),
        (link('results="true"; cursor="1"'), "no link"),
        (link('rel="nextpage"; results="true"; cursor="1"'), "no link"),
        ('rel="next"; results="false"', "no link"),
        (link('rel="next"; cursor="1"'), "does not say whether"),
        (link('rel="next"; results="1"; cursor="1"'), "does not say whether"),
        (link('rel="next"; results="true"'), "has no cursor"),
        (link('rel="next"; results="true"; cursor=""'), "has no cursor"),
        (link('rel="next"; results="true"', EVENTS + "?cursor="), "has no cursor"),
        (link('rel="next"; results="true"', "http://[?limit=1"), "has no cursor"),
    ],
)
def test_an_unusable_link_header_is_shown(header: str | None, words: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=words) as error:
        next_cursor(header)
    assert repr(header) in str(error.value)


# Pages

URL = "https://errors.example.com/v1/things/"
LAST = link_header(None)


def answer(
    body: Any, headers: dict[str, str] | None = None, status: int = 200
) -> requests.Response:
    """An answer with this text, or with this value as JSON."""
    response = requests.Response()
    response.url = f"{URL}?query=private"
    response.status_code = status
    response.headers = CaseInsensitiveDict(headers or {})
    response._content = body if isinstance(body, bytes) else json.dumps(body).encode()
    asked = requests.Request("GET", URL, headers={"Authorization": f"Bearer {TOKEN}"})
    response.request = asked.prepare()
    return response


def parse(
    body: Any,
    headers: dict[str, str] = LAST,
    envelope: str | None = "data",
    **endpoint: Any,
) -> Page:
    spec = ApiSpec("/v1", envelope, {})
    return parse_page(answer(body, headers), spec, replace(THINGS, **endpoint))


@pytest.mark.parametrize("envelope", ["data", None])
def test_records_are_in_an_envelope_or_bare(envelope: str | None) -> None:
    one: Any = {"id": 1}
    several: Any = [one]
    if envelope:
        one, several = {envelope: one}, {envelope: several}
    assert parse(several, envelope=envelope).records == [{"id": 1}]
    assert parse(one, envelope=envelope, single=True).records == [{"id": 1}]
    with pytest.raises(UnexpectedAnswer, match=f"{URL}: .* an object, but holds array"):
        parse(several, envelope=envelope, single=True)
    with pytest.raises(UnexpectedAnswer, match=f"{URL}: .* an array, but holds {{id: "):
        parse(one, envelope=envelope)


def test_a_page_has_records_times_and_the_next_cursor() -> None:
    records = [
        {"version": "1", "dateCreated": "2026-11-30T12:00:00Z"},
        {"version": "2", "dateCreated": 5},
        {"version": "3"},
    ]
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    page = parse({"data": records}, link_header("0:100:0"), key="version")
    assert (page.records, page.next_cursor) == (records, "0:100:0")
    assert page.times == [noon, None, None]
    empty = parse({"data": []})
    assert (empty.records, empty.times, empty.next_cursor) == ([], [], None)


@pytest.mark.parametrize(
    "headers", [{}, link_header("0:100:0"), {"Link": "nonsense"}], ids=str
)
def test_a_single_object_has_no_next_page(headers: dict[str, str]) -> None:
    assert parse({"data": {"id": 1}}, headers, single=True).next_cursor is None


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "the answer has no link"),
        ({"Link": '<>; rel="next"; results="true"'}, "the Link header says"),
        ({"Link": '<>; rel="next"'}, "the link to the next page does not say"),
    ],
)
def test_errors_name_the_url_without_its_query(
    headers: dict[str, str], words: str
) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"^{URL}: {words}") as error:
        parse({"data": [{"id": 1}]}, headers)
    assert "private" not in str(error.value)


def test_an_empty_answer_without_a_link_has_the_advice_of_its_endpoint() -> None:
    with pytest.raises(UnexpectedAnswer, match=f"^{URL}: .* is empty .*Join a team.$"):
        parse([], {}, None, unlinked="Join a team.")


def test_a_page_has_the_time_of_both_clocks() -> None:
    before = datetime.now(UTC)
    page = parse({"data": []}, LAST | {"Date": "Mon, 30 Nov 2026 12:00:00 +0200"})
    assert before <= page.read_at <= datetime.now(UTC)
    assert page.server_time == datetime(2026, 11, 30, 10, tzinfo=UTC)
    assert page.server_time.utcoffset() == timedelta()


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        "Mon, 99 Nov 2026 12:00:00 GMT",
        "Mon, 30 Nov 2026 12:00:00 +9999",
        "Fri, 31 Dec 9999 23:59:59 -0100",
    ],
)
def test_the_local_time_is_used_without_a_valid_date(date: str | None) -> None:
    page = parse({"data": []}, LAST if date is None else LAST | {"Date": date})
    assert page.server_time == page.read_at


def test_replaced_characters_are_counted() -> None:
    page = parse(rb'{"data": [{"id": "a\u0000b"}]}')
    assert (page.records, page.replaced) == ([{"id": "a\ufffdb"}], 1)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (b"<!doctype html><title>Log in</title>", "text/html", "text/html .*'Log in'"),
        (b"<input" * 200_000, "text/html", "with text/html"),  # not by the square
        (b"<H1 class=a>Log\n in</H1>", "text/html", "text/html .*'Log in'. Check"),
        (b"{", "application/json", "json \\(.*\\). Check base_url and api."),
        (b"[" * 100_000, "application/json", "nested too deeply"),
        (b"soon", "", "with  \\(.*\\). Check"),
    ],
)
def test_text_that_is_not_json_is_described(text: bytes, kind: str, words: str) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"{URL} did not answer with .*{words}"):
        parse(text, {"Content-Type": kind})


def test_a_login_form_is_reported() -> None:
    form = b"<title>Sign in</title><form><input name=a><input type='password'></form>"
    with pytest.raises(UnexpectedAnswer, match=f"{URL} .* login page, 'Sign in'. A pr"):
        parse(form, {"Content-Type": "text/html"})


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"rows": []}, "has no 'data', but is {rows: array}"),
        ([{"id": 1}], "has no 'data', but is array"),
        (None, "has no 'data', but is null"),
        ({"data": None}, "should hold an array, but holds null"),
        ({"data": [{"id": 1}, 2]}, "row 2 of the page is not an object, but number"),
        ({"data": [[]]}, "row 1 of the page is not an object, but array"),
        ({"data": [{"id": "1"}, {}]}, "row 2 .* no usable 'id' (null): {}"),
        ({"data": [{"id": ""}]}, "(text): {id: text}"),
        ({"data": [{"id": True}]}, "(boolean): {id: boolean}"),
        ({"data": [{"id": 1.5}]}, "(number): {id: number}"),
        ({"data": [{"a": "b", "id": {"c": 1}}]}, "({c: number}): {a: text, id: obj"),
    ],
)
def test_an_answer_of_another_shape_is_described_by_its_types(
    body: Any, words: str
) -> None:
    words = words.replace("(", r"\(").replace(")", r"\)")
    with pytest.raises(UnexpectedAnswer, match=f"{URL}: .*{words}"):
        parse(body)


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"email": "ada@example.com"}]},
        {"data": ["ada@example.com"]},
        {"rows": [{"email": "ada@example.com"}], "email": "ada@example.com"},
        [{"id": "ada@example.com"}],
        b'{"data": [{"email": "ada@example.com"',
        b"ada@example.com",
    ],
)
def test_no_value_of_a_row_is_in_an_error(body: Any) -> None:
    for headers in (LAST, {}):
        with pytest.raises(UnexpectedAnswer) as error:
            parse(body, headers)
        assert "ada" not in str(error.value)


def test_projects_of_other_organizations_are_left_out() -> None:
    owners: list[Any] = ["acme", "other", 5, None, ["acme"]]
    records: list[Any] = [{"organization": {"slug": owner}} for owner in owners]
    records += [{"organization": "acme"}, {"organization": {}}, {}]
    records = [{"id": number} | each for number, each in enumerate(records)]
    kept = parse({"data": records}, link_header("c")).of_organization("acme")
    assert [record["id"] for record in kept.records] == [0, 2, 3, 4, 5, 6, 7]
    assert (len(kept.times), kept.next_cursor) == (7, "c")


# Errors


@pytest.mark.parametrize(
    ("headers", "text", "words"),
    [
        ({}, b'{"detail": "Invalid token"}', "400 Bad Request, 'Invalid token'"),
        ({}, b'{"detail": [{"msg": "bad"}]}', """'[{"msg":"bad"}]'"""),
        ({}, b'{"error": "other"}', """'{"error":"other"}'"""),
        ({}, b"", "400 Bad Request, ''"),
        ({}, b"<h1>Server  Error</h1>\n<p>(500)</p>", "Server Error (500)"),
        ({}, b"\xff\xfe\x00", "400 Bad Request"),
        (
            {"X-Sentry-Replacement-Endpoint": "/api/0/new/"},
            b"{}",
            "replaced this address by /api/0/new/",
        ),
    ],
)
def test_the_reason_of_the_server_is_shown(
    headers: dict[str, str], text: bytes, words: str
) -> None:
    error = http_error(answer(text, headers, 400))
    assert str(error).startswith(f"{URL}: 400 Bad Request, ")
    assert words in str(error)


def test_an_http_error_has_status_and_answer_and_keeps_them() -> None:
    response = answer({"detail": "no"}, status=404)
    error = http_error(response)
    more = error.about("events", "Check the name.")
    assert str(more) == f"events: {error}. Check the name."
    assert str(error.about("events")) == f"events: {error}"
    for each in (error, more):
        assert (type(each), each.status, each.response) == (HttpError, 404, response)
    assert HttpError("without an answer").status == 0
    assert str(http_error(answer({"detail": "no"}, status=599))) == f"{URL}: 599, 'no'"


def test_a_long_reason_is_shortened() -> None:
    detail = error_detail(answer({"detail": "x" * 100_000}, status=400))
    assert detail == "x" * 297 + "..."
    assert len(error_detail(answer(b"x" * 100_000, status=400))) == 120


@pytest.mark.parametrize(
    "text",
    [
        f"Bearer {TOKEN}".encode(),
        f'{{"detail": "{TOKEN}"}}'.encode(),
        b'{"detail": "' + b"x" * 290 + f'{TOKEN}"}}'.encode(),
        b"<p>" + b"x" * 110 + TOKEN.encode(),
        b"<" + b"p" * 3990 + b">" + TOKEN.encode(),
    ],
    ids=["bare", "detail", "cut detail", "cut text", "behind much markup"],
)
def test_a_token_that_the_server_repeats_is_not_shown(text: bytes) -> None:
    hide(TOKEN)
    assert TOKEN[:6] not in str(http_error(answer(text, status=400)))


def test_a_page_cursor_that_holds_the_token_is_refused() -> None:
    """It would be stored, and cannot be masked: the server must get it back unchanged."""
    header = f'<http://h/>; rel="next"; results="true"; cursor="0:{TOKEN}:1"'
    hide(TOKEN)  # another secret, such as a short password, may be there by chance
    assert next_cursor(header) == f"0:{TOKEN}:1"
    hide_sent(TOKEN)
    with pytest.raises(UnexpectedAnswer, match="holds the token"):
        next_cursor(header)
