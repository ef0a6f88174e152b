"""Advice for errors: the name, or the API, that is probably meant."""

from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from analytics_pipeline.client.diagnosis import PAGES, Diagnosis
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    OtherApi,
    OtherShape,
    UnexpectedAnswer,
    UnknownName,
    Unreachable,
)
from tests.fake_server import html_response
from tests.unit.canned import (
    TOKEN,
    Answer,
    CannedServer,
    Serve,
    json_answer,
    link,
    refusal,
)
from tests.unit.test_page import answer

LATER = "Data loaded so far is kept. Try again later."


def diagnosis(
    server: CannedServer, api: str = "sentry", organization: str = "acme"
) -> Diagnosis:
    return Diagnosis(ApiSession(server.url, TOKEN, 4), APIS[api], organization)


def refused(
    status: int, detail: Any = "no", kind: str = "application/json"
) -> HttpError:
    response = answer({"detail": detail}, {"Content-Type": kind}, status)
    return HttpError(f"{status}, {detail!r}", response=response)


def projects(names: Mapping[str, list[str]], cursor: str | None = None) -> Response:
    """A page of the projects of organizations."""
    rows = [
        {"id": number, "slug": slug, "organization": {"slug": organization}}
        for organization, slugs in names.items()
        for number, slug in enumerate(slugs, 1)
    ]
    return json_answer(200, rows, link(cursor))


def advice(
    asked: Diagnosis, error: ApiError, table: str = "events", project: str = "frontend"
) -> str:
    """The advice after an error of a list."""
    endpoint = APIS["sentry"].endpoints[table]
    before = f"the list: {error}"
    text = str(asked.explained(error, endpoint, project, "the list"))
    assert text.startswith(before)
    return text.removeprefix(before).removeprefix(". ")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (refused(401), "The server rejected the token. Check auth_token: it may have"),
        (refused(403), "The token lacks the scope project:read, or has no access to"),
        (refused(400), LATER),
        (refused(503), LATER),
        (UnexpectedAnswer("the answer has no next link"), ""),
    ],
)
def test_advice_without_a_request(serve: Serve, error: ApiError, text: str) -> None:
    server = serve(projects({}))
    assert advice(diagnosis(server), error).startswith(text)
    assert server.requests == []


def test_an_unreachable_server_is_an_error_of_the_run(serve: Serve) -> None:
    error = Unreachable("http://x: refused")
    server = serve(projects({}))
    endpoint = APIS["sentry"].endpoints["events"]
    said = diagnosis(server).explained(error, endpoint, "frontend", "the list")
    assert type(said) is Unreachable
    assert str(said) == (
        f"cannot reach the server: http://x: refused. Check base_url and the network. {LATER}"
    )
    assert server.requests == []


# Names


NAMES = {"acme": ["frontend", "backend"], "globex": ["shop"]}


@pytest.mark.parametrize(
    ("organization", "project", "text"),
    [
        ("acme", "frontent", "(it has access to backend, frontend); did you mean 'fro"),
        ("acme", "x", "The token has no access to a project 'x' (it has"),
        ("acme", "2", "'2' is a project id; use the slug 'backend'."),
        ("acme", "3", "no access to a project '3' (it has"),
        ("acne", "frontend", "(it has access to acme, globex); did you mean 'ac"),
        ("acne", "", "(it has access to acme, globex); did you mean 'acme'?"),
        ("x", "frontend", "The token has no access to an organization 'x' (it"),
        (
            "acme",
            "frontend",
            "Check that project 'frontend' of organization 'acme' exi",
        ),
        ("acme", "", "Check that organization 'acme' exists and that the token"),
    ],
)
@pytest.mark.parametrize("error", [refused(404), UnknownName("no such")])
def test_an_unknown_name_gets_a_suggestion(
    serve: Serve, organization: str, project: str, text: str, error: ApiError
) -> None:
    server = serve(projects(NAMES))
    said = advice(diagnosis(server, organization=organization), error, project=project)
    assert text in said
    assert ("did you mean" in said) is ("did you mean" in text)


def test_ten_of_many_projects_are_named(serve: Serve) -> None:
    slugs = [f"web-{number:02}" for number in range(12)]
    said = advice(diagnosis(serve(projects({"acme": slugs}))), refused(404))
    assert said == (
        "The token has no access to a project 'frontend' (it has access to"
        f" {', '.join(slugs[:10])}, and 2 more)"
    )


def test_a_tolerated_400_means_an_unknown_name(serve: Serve) -> None:
    asked = diagnosis(serve(projects(NAMES)))
    assert "did you mean" in advice(asked, refused(400), "issues", "frontent")


@pytest.mark.parametrize("bad", [refusal(403), refusal(503), Response(200, {}, b"?")])
def test_advice_if_names_cannot_be_requested(serve: Serve, bad: Response) -> None:
    server = serve(bad)
    asked = diagnosis(server)
    said = advice(asked, refused(404))
    assert said.startswith("Check that project 'frontend' of organization 'acme'")
    before = len(server.requests)
    assert advice(asked, refused(404)) == said
    assert len(server.requests) == before


@pytest.mark.parametrize(
    ("api", "path"),
    [
        ("v1", "/v1/projects/"),
        ("sentry", "/api/0/organizations/a%2Fb/projects/"),
        ("glitchtip", "/api/0/projects/"),
    ],
)
def test_names_are_requested_once_page_by_page(
    serve: Serve, api: str, path: str
) -> None:
    def page(slug: str, cursor: str | None) -> Response:
        rows = [{"id": 1, "slug": slug}]
        body = rows if APIS[api].envelope is None else {"data": rows}
        return json_answer(200, body, link(cursor))

    server = serve(page("a", "c"), page("b", None))
    asked = diagnosis(server, api, "a/b")
    for _ in range(3):
        assert asked.names() == {"a/b": {"a": "1", "b": "1"}}
    assert [request.path for request in server.requests] == [path, path]
    params = dict(APIS[api].endpoints["projects"].params)
    assert [request.query for request in server.requests] == [
        params,
        params | {"cursor": "c"},
    ]


def test_only_the_first_pages_of_names_are_requested(serve: Serve) -> None:
    pages = ({"acme": [f"a{n}", f"b{n}"]} for n in range(PAGES + 5))
    server = serve(*(projects(page, f"c{n}") for n, page in enumerate(pages)))
    assert len(diagnosis(server).names()["acme"]) == 2 * PAGES
    assert len(server.requests) == PAGES


# APIs


NOT_FOUND = html_response(404, "Not Found")
GLITCHTIP_LINK = {"Link": '{\'<http://x/>; rel="next"; results="false"\'}'}
OTHER = [
    OtherShape("not JSON"),
    refused(404, kind="text/html"),
    refused(422, "sort: not allowed"),
]
V1 = {"/v1/": json_answer(200, {"data": []}, link(None))}
SENTRY = {"/api/0/organizations/": json_answer(200, [], link(None))}
GLITCHTIP = {"/api/0/": json_answer(200, [], GLITCHTIP_LINK)}
LOCKED = {"/api/0/": refusal(403)}
NAMELESS = {"/api/0/": refusal(404)}


def speaking(*answers: dict[str, Response]) -> Answer:
    """Answers by the beginning of the path; 404 elsewhere."""

    def answer_by_path(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        known = [item for each in answers for item in each.items()]
        found = [response for path, response in known if handler.path.startswith(path)]
        return found[0] if found else NOT_FOUND

    return answer_by_path


def explained(asked: Diagnosis, error: ApiError) -> ApiError:
    endpoint = APIS["sentry"].endpoints["issues"]  # asked with `sort`
    return asked.explained(error, endpoint, "frontend", "the list")


@pytest.mark.parametrize("error", OTHER)
@pytest.mark.parametrize(
    ("configured", "spoken", "right"),
    [
        ("sentry", V1, ["v1"]),
        ("sentry", V1 | NAMELESS, ["v1"]),
        ("sentry", GLITCHTIP, ["glitchtip"]),
        ("glitchtip", SENTRY, ["sentry"]),
        ("v1", SENTRY, ["sentry"]),
        ("v1", GLITCHTIP, ["glitchtip"]),
        ("v1", LOCKED, ["sentry", "glitchtip"]),
    ],
)
def test_the_api_of_the_server_is_named(
    serve: Serve,
    error: ApiError,
    configured: str,
    spoken: dict[str, Response],
    right: list[str],
) -> None:
    server = serve(speaking(spoken))
    asked = diagnosis(server, configured)
    other = explained(asked, error)
    assert isinstance(other, OtherApi)
    assert str(other).startswith(f"the list: {error}. ")
    assert str(other).endswith(f": set api to {' or '.join(map(repr, right))}.")
    before = len(server.requests)
    assert str(explained(asked, error)) == str(other)
    assert len(server.requests) == before


@pytest.mark.parametrize("error", [refused(404), UnknownName("the list is empty")])
@pytest.mark.parametrize(
    ("spoken", "right"),
    [
        (V1 | NAMELESS, ["v1"]),
        (GLITCHTIP, ["glitchtip"]),
        ({"/v1/": refusal(403)}, []),
        (NAMELESS, []),
        ({}, []),
    ],
)
def test_another_api_is_suggested_only_if_it_answers(
    serve: Serve, error: ApiError, spoken: dict[str, Response], right: list[str]
) -> None:
    other = explained(diagnosis(serve(speaking(spoken))), error)
    assert [name for name in APIS if f"set api to '{name}'" in str(other)] == right
    assert isinstance(other, OtherApi) is bool(right)
    assert ("Check that" in str(other)) is not bool(right)


@pytest.mark.parametrize(
    ("error", "text"), [*zip(OTHER, ["", "Check that", LATER], strict=True)]
)
@pytest.mark.parametrize("spoken", [{}, NAMELESS])
def test_advice_if_the_server_has_no_known_api(
    serve: Serve, error: ApiError, text: str, spoken: dict[str, Response]
) -> None:
    said = advice(diagnosis(serve(speaking(spoken))), error)
    assert said[: len(text) or None] == text


@pytest.mark.parametrize(
    "error",
    [refused(404), refused(422, "limit: too large"), UnexpectedAnswer("a proxy's")],
)
def test_no_other_api_is_suggested_if_projects_can_be_listed(
    serve: Serve, error: ApiError
) -> None:
    server = serve(speaking(V1, {"/api/0/": projects(NAMES)}))
    assert "set api" not in advice(diagnosis(server), error)
    assert not [each for each in server.requests if each.path.startswith("/v1")]


def test_an_error_keeps_its_type_and_answer(serve: Serve) -> None:
    error = refused(404)
    same = explained(diagnosis(serve(projects(NAMES))), error)
    assert isinstance(same, HttpError)
    assert (same.status, same.response) == (404, error.response)
