"""Where the next page is: a pure function of the Link header."""

import pytest

from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.pages import next_cursor

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
    "header", [LAST_PAGE, GLITCHTIP_LAST_PAGE, GLITCHTIP_ONLY_PAGE, "", None]
)
def test_the_last_page_gives_none(header: str | None) -> None:
    assert next_cursor(header) is None


@pytest.mark.parametrize(
    "parameters",
    [
        'rel="next"; cursor="1"',
        'rel="next"; results="false"; cursor="1"',
        'rel="next"; results="1"; cursor="1"',
        'rel="next"; results=""; cursor="1"',
        'rel="previous"; results="true"; cursor="1"',
        'results="true"; cursor="1"',
    ],
)
def test_nothing_but_results_true_on_next_says_that_there_is_more(
    parameters: str,
) -> None:
    assert next_cursor(link(parameters)) is None


@pytest.mark.parametrize(
    "header",
    [
        link('cursor="1:2:0"; results="true"; rel="next"'),
        link('rel="next";results="true";cursor="1:2:0"'),
        link('rel = "next" ;  results = "true" ;  cursor = "1:2:0"'),
        link('rel="next"; results="true"; cursor="1:2:0"', url=EVENTS + "?a=1,2;b"),
        link('rel="next"; title="a, b; c"; results="true"; cursor="1:2:0"'),
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
