"""What is on a page, where the next one is, and what an error says."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import requests
from requests.structures import CaseInsensitiveDict

from analytics_pipeline.client.page import (
    Page,
    error_detail,
    http_error,
    next_cursor,
    no_rows,
    of_organization,
    parse_page,
)
from analytics_pipeline.errors import (
    EmptyAnswer,
    HttpError,
    MissingField,
    MissingLink,
    OtherApi,
    UnexpectedAnswer,
)
from analytics_pipeline.secrets import hide, hide_sent
from tests.unit.canned import TOKEN
from tests.unit.canned import link as link_header

EVENTS = "https://sentry.io/api/0/projects/acme/frontend/events/"
GLITCHTIP = "http://glitchtip.example/api/0"


def link(parameters: str, url: str = EVENTS) -> str:
    return f"<{url}>; {parameters}"


FIRST_PAGE = (
    f'<{EVENTS}?&cursor=0:0:1>; rel="previous"; results="false"; cursor="0:0:1", '
    f'<{EVENTS}?&cursor=0:100:0>; rel="next"; results="true"; cursor="0:100:0"'
)
LAST_PAGE = (
    f'<{EVENTS}?&cursor=0:0:1>; rel="previous"; results="true"; cursor="0:0:1", '
    f'<{EVENTS}?&cursor=0:200:0>; rel="next"; results="false"; cursor="0:200:0"'
)
GLITCHTIP_FIRST_PAGE = (
    f"{{'<{GLITCHTIP}/projects/acme/frontend/issues/>;"
    ' rel="previous"; results="false",'
    f" <{GLITCHTIP}/projects/acme/frontend/issues/"
    "?cursor=cD0yMDI2LTExLTExKzE5JTNBMTUlM0ExMC44OTMzMDIlMkIwMCUzQTAw>;"
    ' rel="next"; results="true";'
    ' cursor="cD0yMDI2LTExLTExKzE5JTNBMTUlM0ExMC44OTMzMDIlMkIwMCUzQTAw"\'}'
)
GLITCHTIP_MIDDLE_PAGE = (
    f"{{'<{GLITCHTIP}/organizations/acme/releases/"
    "?cursor=cj0xJnA9MjAyNi0xMC0zMCsxOCUzQTE1JTNBMTAuNTYyNDM2JTJCMDAlM0EwMA%3D%3D"
    '&limit=15>; rel="previous"; results="true";'
    ' cursor="cj0xJnA9MjAyNi0xMC0zMCsxOCUzQTE1JTNBMTAuNTYyNDM2JTJCMDAlM0EwMA==",'
    f" <{GLITCHTIP}/organizations/acme/releases/"
    "?cursor=cD0yMDI2LTEwLTA5KzE4JTNBMTUlM0EyOS43NDI0MzYlMkIwMCUzQTAw&limit=15>;"
    ' rel="next"; results="true";'
    ' cursor="cD0yMDI2LTEwLTA5KzE4JTNBMTUlM0EyOS43NDI0MzYlMkIwMCUzQTAw"\'}'
)
GLITCHTIP_LAST_PAGE = (
    f"{{'<{GLITCHTIP}/projects/acme/frontend/issues/"
    "?cursor=cj0xJnA9MjAyNi0xMC0wOSsxMiUzQTAyJTNBNTEuNDg2NTQ1JTJCMDAlM0EwMA%3D%3D>;"
    ' rel="previous"; results="true";'
    ' cursor="cj0xJnA9MjAyNi0xMC0wOSsxMiUzQTAyJTNBNTEuNDg2NTQ1JTJCMDAlM0EwMA==",'
    f" <{GLITCHTIP}/projects/acme/frontend/issues/"
    "?cursor=cD0yMDI2LTEwLTA5KzEzJTNBMjklM0EzNS45OTU5NDIlMkIwMCUzQTAw>;"
    ' rel="next"; results="false"\'}'
)
GLITCHTIP_ONLY_PAGE = (
    f'{{\'<{GLITCHTIP}/projects/>; rel="previous"; results="false",'
    f' <{GLITCHTIP}/projects/>; rel="next"; results="false"\'}}'
)
GLITCHTIP_EQUALS_SIGN = (
    f"{{'<{GLITCHTIP}/organizations/globex/releases/>;"
    ' rel="previous"; results="false",'
    f" <{GLITCHTIP}/organizations/globex/releases/?cursor=bz01MA%3D%3D>;"
    ' rel="next"; results="true"; cursor="bz01MA=="\'}'
)


@pytest.mark.parametrize(
    ("header", "cursor"),
    [
        (FIRST_PAGE, "0:100:0"),
        (
            GLITCHTIP_FIRST_PAGE,
            "cD0yMDI2LTExLTExKzE5JTNBMTUlM0ExMC44OTMzMDIlMkIwMCUzQTAw",
        ),
        (
            GLITCHTIP_MIDDLE_PAGE,
            "cD0yMDI2LTEwLTA5KzE4JTNBMTUlM0EyOS43NDI0MzYlMkIwMCUzQTAw",
        ),
        (GLITCHTIP_EQUALS_SIGN, "bz01MA=="),
    ],
)
def test_a_page_with_more_behind_it_gives_the_next_cursor(
    header: str, cursor: str
) -> None:
    assert next_cursor(header) == cursor


@pytest.mark.parametrize(
    "header", [LAST_PAGE, GLITCHTIP_LAST_PAGE, GLITCHTIP_ONLY_PAGE]
)
def test_the_last_page_gives_none(header: str) -> None:
    assert next_cursor(header) is None


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "next",
        f"<{EVENTS}>",
        link('rel="previous"; results="true"; cursor="1"'),
        link('results="true"; cursor="1"'),
        link('rel=""; results="true"; cursor="1"'),
        link('rel="nextpage"; results="true"; cursor="1"'),
        'rel="next"; results="false"',
    ],
)
def test_a_list_without_a_link_to_the_next_page_is_an_error(header: str | None) -> None:
    with pytest.raises(MissingLink, match='no link with rel="next"') as error:
        next_cursor(header)
    assert repr(header) in str(error.value)


@pytest.mark.parametrize(
    "parameters",
    [
        'rel="next"; cursor="1"',
        'rel="next"; results="1"; cursor="1"',
        'rel="next"; results=""; cursor="1"',
        'rel="next"; results="yes"',
    ],
)
def test_a_link_that_does_not_say_whether_there_is_more_is_an_error(
    parameters: str,
) -> None:
    with pytest.raises(UnexpectedAnswer, match="does not say whether") as error:
        next_cursor(link(parameters))
    assert repr(link(parameters)) in str(error.value)


def test_results_false_is_the_end_whatever_the_cursor() -> None:
    assert next_cursor(link('rel="next"; results="false"; cursor="1"')) is None
    assert next_cursor(link('rel="next"; results="false"')) is None


@pytest.mark.parametrize(
    "header",
    [
        link('cursor="1:2:0"; results="true"; rel="next"'),
        link('rel="next";results="true";cursor="1:2:0"'),
        link('rel = "next" ;  results = "true" ;  cursor = "1:2:0"'),
        link('rel="next"; results="true"; cursor="1:2:0"', url=EVENTS + "?a=1,2;b"),
        link('rel="next"; title="a, b; c"; results="true"; cursor="1:2:0"'),
        link("rel=next; results=true; cursor=1:2:0"),
        link('rel=next;results=true;cursor="1:2:0"'),
        link('Rel="Next"; Results="TRUE"; Cursor="1:2:0"'),
        link('rel="last next"; results="true"; cursor="1:2:0"'),
        link("rel=previous; results=false")
        + ", "
        + link("rel=next; results=true; cursor=1:2:0"),
        '<broken, <>; rel="previous", '
        + link('rel="next"; results="true"; cursor="1:2:0"'),
    ],
)
def test_order_spaces_and_odd_neighbours_do_not_matter(header: str) -> None:
    assert next_cursor(header) == "1:2:0"


def test_a_cursor_that_stands_only_in_the_url_is_taken_from_there() -> None:
    url = EVENTS + "?limit=5&cursor=bz01MA%3D%3D"
    assert next_cursor(link('rel="next"; results="true"', url)) == "bz01MA=="


@pytest.mark.parametrize(
    "header",
    [
        link('rel="next"; results="true"'),
        link('rel="next"; results="true"; cursor=""'),
        link('rel="next"; results="true"', url=EVENTS + "?cursor="),
        link('rel="next"; results="true"', url="http://[?limit=1"),
    ],
)
def test_more_rows_without_a_cursor_is_an_error_with_the_header(header: str) -> None:
    with pytest.raises(UnexpectedAnswer, match="more rows, but gives no cursor") as it:
        next_cursor(header)
    assert repr(header) in str(it.value)


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
    *,
    envelope: str | None = "data",
    key: str = "id",
    single: bool = False,
) -> Page:
    return parse_page(
        answer(body, headers), envelope, key=key, time_field="time", single=single
    )


@pytest.mark.parametrize(
    ("body", "envelope"),
    [
        ({"data": [{"id": 1}]}, "data"),
        ([{"id": 1}], None),
    ],
)
def test_rows_stand_in_an_envelope_or_bare(body: Any, envelope: str | None) -> None:
    assert parse(body, envelope=envelope).records == [{"id": 1}]
    with pytest.raises(OtherApi, match=f"{URL}: an object is expected, but array came"):
        parse(body, envelope=envelope, single=True)


@pytest.mark.parametrize(
    ("body", "envelope"), [({"data": {"id": 1}}, "data"), ({"id": 1}, None)]
)
def test_one_object_stands_in_an_envelope_or_bare(
    body: Any, envelope: str | None
) -> None:
    assert parse(body, envelope=envelope, single=True).records == [{"id": 1}]
    with pytest.raises(OtherApi, match=f"{URL}: rows are expected, but {{id: number}}"):
        parse(body, envelope=envelope)


def test_an_empty_list_is_a_page_without_records() -> None:
    page = parse({"data": []})
    assert (page.records, page.times, page.next_cursor) == ([], [], None)


def test_a_page_gives_the_cursor_of_the_next_one() -> None:
    assert parse({"data": []}, link_header("0:100:0")).next_cursor == "0:100:0"


def test_one_object_has_no_next_page_whatever_its_headers() -> None:
    for headers in ({}, link_header("0:100:0"), {"Link": "nonsense"}):
        assert parse({"data": {"id": 1}}, headers, single=True).next_cursor is None


@pytest.mark.parametrize(
    ("headers", "words"),
    [
        ({}, "the answer has no link"),
        ({"Link": '<>; rel="next"; results="true"'}, "the Link header says"),
        ({"Link": '<>; rel="next"'}, "the link to the next page does not say"),
    ],
)
def test_an_error_of_the_link_names_the_url_without_its_query(
    headers: dict[str, str], words: str
) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"^{URL}: {words}") as error:
        parse({"data": [{"id": 1}]}, headers)
    assert "private" not in str(error.value)


def test_each_record_has_the_time_that_it_tells() -> None:
    records = [
        {"id": 1, "time": "2026-11-30T12:00:00Z"},
        {"id": 2, "time": 5},
        {"id": 3},
    ]
    noon = datetime(2026, 11, 30, 12, tzinfo=UTC)
    assert parse({"data": records}).times == [noon, None, None]


def test_a_page_knows_when_it_was_read_by_both_clocks() -> None:
    before = datetime.now(UTC)
    page = parse({"data": []}, LAST | {"Date": "Mon, 30 Nov 2026 12:00:00 GMT"})
    assert before <= page.read_at <= datetime.now(UTC)
    assert page.server_time == datetime(2026, 11, 30, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    "date",
    [
        None,
        "",
        " ",
        "soon",
        "Mon, 99 Nov 2026 12:00:00 GMT",
        "Mon, 30 Nov 99999 12:00:00 GMT",
        "Mon, 30 Nov 2026 12:00:00 +9999",
        "Fri, 31 Dec 9999 23:59:59 -0100",
    ],
)
def test_without_a_date_the_local_clock_counts(date: str | None) -> None:
    headers = LAST if date is None else LAST | {"Date": date}
    page = parse({"data": []}, headers)
    assert page.server_time == page.read_at


def test_a_date_of_another_zone_is_converted() -> None:
    headers = LAST | {"Date": "Mon, 30 Nov 2026 12:00:00 +0200"}
    server_time = parse({"data": []}, headers).server_time
    assert server_time == datetime(2026, 11, 30, 10, tzinfo=UTC)
    assert server_time.utcoffset() == timedelta()


def test_replaced_characters_are_counted() -> None:
    page = parse(rb'{"data": [{"id": "a\u0000b"}]}')
    assert (page.records, page.replaced) == ([{"id": "a\ufffdb"}], 1)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        (b"<!doctype html><title>Log in</title>", "text/html", "text/html .*'Log in'"),
        (b"<input" * 200_000, "text/html", "with text/html"),  # not by the square
        (b"", "application/json", "with application/json"),
        (b"<H1 class=a>Log\n in</H1>", "text/html", "text/html .*'Log in'; check"),
        (b"{", "application/json", "json \\(.*\\); check base_url and api"),
        (b"[" * 100_000, "application/json", "nested too deeply"),
        (b"soon", "", "with  \\(.*\\); check"),
    ],
)
def test_what_is_not_json_is_named_with_the_title_of_a_web_page(
    text: bytes, kind: str, words: str
) -> None:
    with pytest.raises(OtherApi, match=f"{URL} did not answer with JSON.*{words}"):
        parse(text, {"Content-Type": kind})


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ({"rows": []}, OtherApi, "has no 'data', but is {rows: array}"),
        ([{"id": 1}], OtherApi, "has no 'data', but is array"),
        ("text", OtherApi, "has no 'data', but is text"),
        (None, OtherApi, "has no 'data', but is null"),
        ({"data": None}, OtherApi, "rows are expected, but null came"),
        ({"data": "text"}, OtherApi, "rows are expected, but text came"),
        ({"data": [{"id": 1}, 2]}, UnexpectedAnswer, "row 2 .* object, but number"),
        ({"data": [[]]}, UnexpectedAnswer, "row 1 of the page is not an object"),
        ({"data": [None]}, UnexpectedAnswer, "row 1 .* not an object, but null"),
    ],
)
def test_an_answer_of_another_shape_is_named_by_its_types(
    body: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"{URL}: .*{words}") as error:
        parse(body)
    assert type(error.value) is kind


@pytest.mark.parametrize(
    ("record", "shown"),
    [
        ({}, "(null): {}"),
        ({"id": None}, "(null): {id: null}"),
        ({"id": ""}, "(text): {id: text}"),
        ({"id": True}, "(boolean): {id: boolean}"),
        ({"id": 1.5}, "(number): {id: number}"),
        ({"id": []}, "(array): {id: array}"),
        ({"a": "b", "id": {"c": 1}}, "({c: number}): {a: text, id: object}"),
    ],
)
def test_a_record_without_a_usable_key_is_shown_by_its_types(
    record: Any, shown: str
) -> None:
    with pytest.raises(
        MissingField, match="row 3 of the page has no usable 'id'"
    ) as it:
        parse({"data": [{"id": "1"}, {"id": 2}, record]})
    assert str(it.value).endswith(shown)


@pytest.mark.parametrize(
    "body",
    [
        {"data": [{"email": "ada@example.com"}]},
        {"data": ["ada@example.com"]},
        {"data": "ada@example.com"},
        {"rows": [{"email": "ada@example.com"}], "email": "ada@example.com"},
        [{"id": "ada@example.com"}],
        "ada@example.com",
        b'{"data": [{"email": "ada@example.com"',
        b"ada@example.com",
    ],
)
def test_no_value_of_a_row_is_in_an_error(body: Any) -> None:
    for headers in (LAST, {}):
        with pytest.raises(UnexpectedAnswer) as error:
            parse(body, headers)
        assert "ada" not in str(error.value)


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ([], EmptyAnswer, " answered with nothing, and without the link"),
        ([{"id": 1}], MissingLink, ": the answer has no link"),
    ],
)
def test_an_answer_without_links_is_told_apart_by_whether_it_has_rows(
    body: Any, kind: type[Exception], words: str
) -> None:
    with pytest.raises(MissingLink, match=f"^{URL}{words}") as error:
        parse(body, {}, envelope=None)
    assert type(error.value) is kind


def test_of_projects_those_of_other_organizations_are_left_out() -> None:
    owners: list[Any] = ["acme", "other", 5, None, ["acme"]]
    records = [
        {"id": 1},
        *(
            {"id": n, "organization": {"slug": each}}
            for n, each in enumerate(owners, 2)
        ),
        {"id": 7, "organization": "acme"},
        {"id": 8, "organization": {}},
    ]
    page = parse({"data": records}, link_header("c"))
    kept = of_organization(page, "acme")
    assert [record["id"] for record in kept.records] == [1, 2, 4, 5, 6, 7, 8]
    assert (len(kept.times), kept.next_cursor) == (7, "c")


def test_the_page_of_a_list_that_is_not_asked_for_is_its_last() -> None:
    page = no_rows()
    assert (page.records, page.times, page.next_cursor) == ([], [], None)
    assert page.read_at == page.server_time
    assert page.read_at.tzinfo is UTC


def test_another_field_may_be_the_key() -> None:
    page = parse([{"version": "1.0"}], envelope=None, key="version")
    assert page.records == [{"version": "1.0"}]


# Errors


@pytest.mark.parametrize(
    ("headers", "text", "words"),
    [
        ({}, b'{"detail": "Invalid token"}', "400 Bad Request, 'Invalid token'"),
        ({}, b'{"detail": [{"msg": "bad"}]}', """'[{"msg":"bad"}]'"""),
        ({}, b'{"error": "other"}', """'{"error":"other"}'"""),
        ({}, b'["a"]', """'["a"]'"""),
        ({}, b"", "400 Bad Request, ''"),
        (
            {},
            b"<html><h1>Server  Error</h1>\n<p>(500)</p></html>",
            "Server Error (500)",
        ),
        ({}, b"\xff\xfe\x00", "400 Bad Request"),
        (
            {"X-Sentry-Replacement-Endpoint": "/api/0/new/"},
            b"{}",
            "withdrawn this address for /api/0/new/",
        ),
    ],
)
def test_the_words_of_a_failure_are_shown(
    headers: dict[str, str], text: bytes, words: str
) -> None:
    error = http_error(answer(text, headers, 400))
    assert str(error).startswith(f"{URL}: 400 Bad Request, ")
    assert words in str(error)


def test_an_http_error_knows_its_status_and_answer() -> None:
    response = answer({"detail": "no"}, status=404)
    error = http_error(response)
    assert (error.status, error.response) == (404, response)
    assert HttpError("without an answer").status == 0


def test_an_unknown_status_is_shown_as_a_number() -> None:
    assert str(http_error(answer({"detail": "no"}, status=599))) == f"{URL}: 599, 'no'"


def test_a_long_explanation_is_shortened() -> None:
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


def test_an_error_told_by_more_keeps_what_it_is() -> None:
    error = http_error(answer({"detail": "no"}, status=404))
    more = error.about("events", "check the name")
    assert str(more) == f"events: {error}; check the name"
    assert str(error.about("events")) == f"events: {error}"
    assert (type(more), more.status, more.response) == (
        HttpError,
        404,
        error.response,
    )


def test_a_page_cursor_that_holds_the_token_is_refused() -> None:
    """It would be stored, and cannot be masked: the server must get it back unchanged."""
    header = f'<http://h/>; rel="next"; results="true"; cursor="0:{TOKEN}:1"'
    assert next_cursor(header) == f"0:{TOKEN}:1"
    hide(TOKEN)  # some other secret, such as a short password, may be there by chance
    assert next_cursor(header) == f"0:{TOKEN}:1"
    hide_sent(TOKEN)
    with pytest.raises(UnexpectedAnswer, match="holds a secret"):
        next_cursor(header)
