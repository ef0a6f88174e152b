"""The requests for one list, and the errors of a list."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from analytics_pipeline.client import client as client_module
from analytics_pipeline.client.client import (
    BEGINNING,
    CURSOR_REFUSALS,
    WINDOW_REFUSALS,
    Client,
    ListName,
)
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import ApiError, HttpError, UnexpectedAnswer, UnknownName
from tests.memory import NOW, Request, Session, ago, event, events, issue
from tests.unit.canned import (
    PATH,
    THINGS,
    TOKEN,
    CannedServer,
    Serve,
    json_answer,
    link,
    make_client,
    page,
    read,
    refusal,
)

Log = pytest.LogCaptureFixture
SECOND = timedelta(seconds=1)
EVENTS = "/v1/projects/acme/web/events/"
EVENT = {"id": "1", "eventID": "1", "dateCreated": "2026-11-30T12:00:00Z"}


def list_of(table: str, project: str = "", api: str = "glitchtip") -> ListName:
    return ListName(APIS[api].endpoints[table], project)


def ids(pages: Sequence[Page]) -> list[Any]:
    return [record["id"] for each in pages for record in each.records]


def paths(server: CannedServer) -> list[str]:
    return [request.path for request in server.requests]


# The links of a list


def test_pages_are_read_by_their_cursors_with_the_same_parameters(serve: Serve) -> None:
    other = serve(page("stolen"))
    server = serve(
        page("1", cursor="b+w==", host=other.url), page(cursor="0:2:0"), page("2", "3")
    )
    records = read(server, ListName(replace(THINGS, params={"limit": "2"})))
    assert [record["id"] for record in records] == ["1", "2", "3"]
    assert [request.query for request in server.requests] == [
        {"limit": "2"},
        {"limit": "2", "cursor": "b+w=="},
        {"limit": "2", "cursor": "0:2:0"},
    ]
    assert {*paths(server)} == {PATH}
    assert other.requests == []
    server = serve(page("1", cursor="a"), page("2"))
    next(make_client(server).pages(ListName(THINGS)))
    assert len(server.requests) == 1  # the next one is requested when it is needed


def test_a_repeated_cursor_is_an_error_after_its_page(serve: Serve) -> None:
    rows = {"data": [{"id": "3"}, {"id": "4", "dateCreated": "2026-11-29"}]}
    last = json_answer(200, rows, link("a"))
    server = serve(page("1", cursor="a"), page("2", cursor="b"), last)
    found: list[str] = []
    with pytest.raises(
        UnexpectedAnswer,
        match="^things of organization 'acme': .*page cursor 'a' again, on page 3,"
        r" .*have the same dateCreated \(2026-11-29\)",
    ):
        for each in make_client(server).pages(ListName(THINGS)):
            found += ids([each])
    assert found == ["1", "2", "3", "4"]
    assert len(server.requests) == 3
    with pytest.raises(UnexpectedAnswer, match="the page is empty"):
        read(serve(page(cursor="a")))


def test_endless_empty_pages_are_an_error(
    serve: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "EMPTY_PAGES", 5)
    numbers = count()

    def empty(handler: Any, good: Response) -> Response:
        return page(cursor=str(next(numbers)))

    server = serve(*[empty] * 4, page("1", cursor="x"), empty)
    with pytest.raises(UnexpectedAnswer, match="^things .* 5 empty pages in a row"):
        read(server)
    assert len(server.requests) == 10


def test_requests_and_replaced_characters_are_counted(serve: Serve) -> None:
    things = ListName(THINGS)
    bad = Response(200, link(None), rb'{"data": [{"id": "a\u0000b"}]}')
    assert read(serve(refusal(503), bad), things) == [{"id": "a\ufffdb"}]
    assert (things.stats.requests, things.stats.replaced) == (2, 1)


# Requests


def test_slugs_are_quoted_in_the_path(serve: Serve) -> None:
    server = serve(page())
    client = Client(ApiSession(server.url, TOKEN, 1), APIS["v1"], "a/b ?#é")
    assert ids([*client.pages(list_of("events", "c&d/../%2F", "v1"))]) == []
    assert server.requests[0].path == (
        "/v1/projects/a%2Fb%20%3F%23%C3%A9/c%26d%2F..%2F%252F/events/"
    )
    assert server.requests[0].query == {}


@pytest.mark.parametrize(
    ("slug", "query"),
    [
        ("front-end_2", "project:front-end_2"),
        ("a b", 'project:"a b"'),
        ('a"b', 'project:"a\\"b"'),
        ("a\\b", 'project:"a\\\\b"'),
        ("a:b*", 'project:"a:b*"'),
    ],
)
def test_a_slug_is_one_term_of_the_search_query(
    serve: Serve, slug: str, query: str
) -> None:
    server = serve(json_answer(200, [], link(None)))
    list(make_client(server, "sentry").pages(list_of("issues", slug, "sentry")))
    assert server.requests[0].path == "/api/0/organizations/acme/issues/"
    assert server.requests[0].query == {
        "query": query,
        "project": "-1",
        "sort": "date",
        "collapse": "filtered",
        "groupStatsPeriod": "",
        "limit": "100",
    }


@pytest.mark.parametrize("full_events", [True, False])
def test_full_events_are_requested_if_set(serve: Serve, full_events: bool) -> None:
    server = serve(json_answer(200, [], link(None)))
    session = ApiSession(server.url, TOKEN, 1)
    client = Client(session, APIS["sentry"], "acme", full_events=full_events)
    list(client.pages(list_of("events", "frontend", "sentry")))
    assert server.requests[0].query.get("full") == ("true" if full_events else None)


# Empty lists, and names that do not exist

NOTHING = json_answer(200, [], link(None))
DETAIL = json_answer(200, {"id": 1})


def projects_of(*organizations: str) -> Response:
    """A list of one project of each organization."""
    rows = [{"id": 1, "slug": "x", "organization": {"slug": o}} for o in organizations]
    return json_answer(200, rows, link(None))


@pytest.mark.parametrize("table", ["events", "issues"])
def test_the_project_of_an_empty_list_is_checked(serve: Serve, table: str) -> None:
    answers = [NOTHING, refusal(404)][:: 1 if table == "events" else -1]
    server = serve(*answers, projects_of("acme"))
    with pytest.raises(HttpError, match=f"^{table} .*404 .*access to a project 'fr"):
        list(make_client(server, "glitchtip").pages(list_of(table, "frontend")))
    assert {*paths(server)} == {
        f"/api/0/projects/acme/frontend/{table}/",
        "/api/0/projects/acme/frontend/",
        "/api/0/projects/",
    }
    assert len(server.requests) == 3


@pytest.mark.parametrize(
    ("detail", "path", "project"),
    [
        (json_answer(200, {"id": "7"}), "organizations/acme/issues", "7"),
        (refusal(403), "projects/acme/frontend/issues", None),
        (refusal(404), "projects/acme/frontend/issues", None),
    ],
    ids=["known", "hidden", "deleted"],
)
def test_glitchtips_issues_are_requested_by_project_id(
    serve: Serve, detail: Response, path: str, project: str | None
) -> None:
    """The list of the project still shows issues that were merged away."""
    issue = json_answer(200, [{"id": "1", "lastSeen": None}], link(None))
    server = serve(detail, issue)
    wanted = list_of("issues", "frontend")
    (found,) = make_client(server, "glitchtip").pages(wanted)
    assert len(found.records) == 1
    assert paths(server) == ["/api/0/projects/acme/frontend/", f"/api/0/{path}/"]
    assert server.requests[1].query.get("project") == project


def test_a_failed_request_for_the_project_id_fails_the_list(serve: Serve) -> None:
    server = serve(refusal(500))
    with pytest.raises(HttpError, match="^issues of project 'frontend': .*500"):
        list(make_client(server, "glitchtip").pages(list_of("issues", "frontend")))


@pytest.mark.parametrize("detail", [DETAIL, refusal(403)])
def test_an_empty_list_of_an_existing_or_hidden_project_is_empty(
    serve: Serve, detail: Response
) -> None:
    wanted = list_of("events", "frontend")
    (found,) = make_client(serve(NOTHING, detail), "glitchtip").pages(wanted)
    assert found.records == []
    assert wanted.stats.requests == 2


@pytest.mark.parametrize("status", [401, 403])
def test_a_missing_login_is_reported_in_the_servers_words(
    serve: Serve, status: int
) -> None:
    detail = {"code": "sso-required", "message": "Must login via SSO"}
    server = serve(json_answer(status, {"detail": detail}))
    with pytest.raises(HttpError, match=r"'Must login via SSO \(sso-required\)'$"):
        list(make_client(server, "sentry").pages(list_of("events", "x", "sentry")))


def test_an_empty_last_page_after_others_needs_no_check(serve: Serve) -> None:
    server = serve(json_answer(200, [EVENT], link("a")), NOTHING)
    pages = make_client(server, "glitchtip").pages(list_of("events", "frontend"))
    assert len(list(pages)) == len(server.requests) == 2


def test_a_project_is_requested_once_in_a_run(serve: Serve) -> None:
    other = json_answer(200, {"id": 2})
    server = serve(NOTHING, DETAIL, NOTHING, NOTHING, other)
    client = make_client(server, "glitchtip")
    wanted = [
        list_of("events", "frontend"),
        list_of("project_detail", "frontend"),
        list_of("issues", "frontend"),
        list_of("releases"),
    ]
    assert [ids([*client.pages(each)]) for each in wanted] == [[], [1], [], []]
    assert client.project_id("frontend", wanted[0].stats) == "1"
    assert paths(server) == [
        "/api/0/projects/acme/frontend/events/",
        "/api/0/projects/acme/frontend/",
        "/api/0/organizations/acme/issues/",
        "/api/0/organizations/acme/releases/",
    ]
    client.forget_answers()
    assert client.project_id("frontend", wanted[0].stats) == "2"


def test_a_missing_project_is_an_error_of_each_of_its_lists(serve: Serve) -> None:
    server = serve(refusal(404), projects_of("acme"))
    client, errors = make_client(server, "glitchtip"), []
    for _ in range(2):
        with pytest.raises(HttpError) as error:
            list(client.pages(list_of("project_detail", "frontend")))
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert errors[0].count("project_detail of project") == 1
    assert paths(server) == ["/api/0/projects/acme/frontend/", "/api/0/projects/"]


@pytest.mark.parametrize(
    ("organizations", "is_unknown"),
    [(["acme"], False), (["other", "acme"], False), (["acne"], True), ([], False)],
)
def test_an_empty_list_of_an_unknown_organization_is_an_error(
    serve: Serve, organizations: list[str], is_unknown: bool
) -> None:
    names = projects_of(*organizations) if organizations else refusal(403)
    server = serve(NOTHING, refusal(404), names)
    pages = make_client(server, "glitchtip").pages(list_of("releases"))
    if is_unknown:
        with pytest.raises(UnknownName, match="did you mean 'acne'"):
            list(pages)
    else:
        assert ids([*pages]) == []


def test_projects_of_other_organizations_are_left_out(serve: Serve) -> None:
    rows = [
        {"id": 1, "organization": {"slug": "acme"}},
        {"id": 2, "organization": {"slug": "other"}},
        {"id": 3},
    ]
    server = serve(json_answer(200, {"data": rows}, link(None)))
    pages = make_client(server, "v1").pages(list_of("projects", api="v1"))
    assert ids([*pages]) == [1, 3]


# Errors


@pytest.mark.parametrize(
    ("status", "project", "advice"),
    [
        (403, "frontend", "The token lacks the scope thing:read, or has no access to"),
        (
            404,
            "frontend",
            "Check that project 'frontend' of organization 'acme' exists",
        ),
        (404, "", "Check that organization 'acme' exists and that the token has"),
        (599, "frontend", "Data loaded so far is kept. Try again later."),
    ],
)
def test_an_error_names_the_list_and_what_to_do(
    serve: Serve, status: int, project: str, advice: str
) -> None:
    server = serve(refusal(status, "gone fishing"))
    with pytest.raises(HttpError) as error:
        read(server, ListName(THINGS, project))
    subject = f"project '{project}'" if project else "organization 'acme'"
    assert str(error.value).startswith(
        f"things of {subject}: {server.url}{PATH}: {status}"
    )
    assert f"'gone fishing'. {advice}" in str(error.value)
    assert error.value.status == status


def test_an_absurd_header_is_an_error_of_the_list(serve: Serve) -> None:
    answer = page("1")
    answer.headers["X-Sentry-Rate-Limit-ConcurrentLimit"] = "9" * 5000
    with pytest.raises(UnexpectedAnswer, match="^things of project 'frontend': Value"):
        read(serve(answer), ListName(THINGS, "frontend"))


@pytest.mark.parametrize("error", [ValueError, KeyError, MemoryError, RecursionError])
def test_any_exception_while_reading_is_an_error_of_the_list(
    error: type[Exception],
) -> None:
    session = Session()

    def fail(request: Request) -> None:
        raise error("no")

    session.after = fail
    with pytest.raises(UnexpectedAnswer, match=f"^events of .*: {error.__name__} "):
        list(session.client().pages(list_of("events", "web", "v1")))


# Resuming at a page cursor


def resume(session: Session, end: datetime | None, cursor: str) -> list[Page]:
    wanted = list_of("events", "web", "v1")
    return list(session.client().pages(wanted, None, end, cursor))


def cursors(session: Session) -> list[str | None]:
    """Of the requests."""
    return [request.params.get("cursor") for request in session.requests]


@pytest.fixture
def v1() -> Session:
    """A list of 6 pages of 10 events, one in a minute."""
    session = Session(page_size=10)
    session.lists["events", "web"] = events(60, every=1)
    return session


@pytest.mark.parametrize(
    ("end", "is_resumed"),
    [(ago(49), True), (ago(40), False), (ago(39), False), (None, False)],
)
def test_a_list_is_resumed_at_a_page_with_a_row_above_the_gap(
    v1: Session, caplog: Log, end: datetime | None, is_resumed: bool
) -> None:
    """Otherwise rows were deleted, and rows in between may have moved past the page."""
    caplog.set_level(logging.WARNING)
    pages = resume(v1, end, "40")
    assert ids(pages) == [f"e{n}" for n in range(40 if is_resumed else 0, 60)]
    is_tried = end is not None and not is_resumed
    assert cursors(v1)[0] == (None if end is None else "40")
    assert ("rows were deleted since the last load" in caplog.text) is is_tried


@pytest.mark.parametrize("status", [*CURSOR_REFUSALS, 403])
def test_after_a_refused_cursor_the_list_is_read_from_its_first_page(
    v1: Session, caplog: Log, status: int
) -> None:
    caplog.set_level(logging.WARNING)
    v1.before = lambda request: status if len(v1.requests) == 1 else None
    if status not in CURSOR_REFUSALS:
        with pytest.raises(HttpError, match=str(status)):
            resume(v1, ago(49), "40")
        return
    assert len(ids(resume(v1, ago(49), "40"))) == 60
    (line,) = caplog.messages
    assert line.startswith(f"events of project 'web': http://memory{EVENTS}: {status}")
    assert line.endswith("; reading the list from its first page")


# Paging by time

Window = tuple[datetime, datetime, str | None]


def windows(session: Session) -> list[Window]:
    """Start, end and page cursor of each request; a later end as `TOP`."""

    def time(text: str) -> datetime:
        return min(datetime.fromisoformat(text).replace(tzinfo=UTC), TOP)

    every = [request.params for request in session.requests]
    return [(time(p["start"]), time(p["end"]), p.get("cursor")) for p in every]


TOP = NOW + timedelta(hours=3)


def sentry(*rows: dict[str, Any], page_size: int = 5) -> Session:
    session = Session("sentry", page_size)
    session.lists["events", "web"] = [*rows]
    return session


def read_span(
    session: Session,
    start: datetime | None = None,
    end: datetime | None = None,
    cursor: str | None = None,
    client: Client | None = None,
) -> list[str]:
    wanted = list_of("events", "web", "sentry")
    found = (client or session.client()).pages(wanted, start, end, cursor)
    return ids([*found])


def numbered(*numbers: int) -> list[str]:
    return [f"e{number}" for number in numbers]


def test_each_request_ends_at_the_second_of_the_oldest_rows() -> None:
    session = sentry(*events(11, every=1))
    assert read_span(session) == numbered(*range(11))
    assert windows(session) == [
        (BEGINNING, TOP, None),
        (BEGINNING, ago(3) + SECOND, None),
        (BEGINNING, ago(6) + SECOND, None),
    ]


def test_a_span_is_requested_in_whole_seconds_of_utc() -> None:
    session = sentry(*events(11, every=1))
    half = timedelta(seconds=0.5)
    assert read_span(session, ago(8) + half, ago(5) + half) == numbered(5, 6, 7, 8)
    assert windows(session) == [(ago(8), ago(5) + SECOND, None)]
    assert session.requests[0].params["start"] == f"{ago(8):%Y-%m-%dT%H:%M:%S}"


def test_rows_that_arrive_or_are_deleted_meanwhile_shift_nothing() -> None:
    session = sentry(*events(40, every=1))
    rows = session.lists["events", "web"]
    numbers = count(100)

    def change(request: Request) -> None:
        rows.insert(0, event(next(numbers), -1))
        del rows[3:5]

    session.after = change
    found = read_span(session)
    assert {row["id"] for row in rows if int(row["id"][1:]) < 100} <= {*found}
    assert not any(request.params.get("cursor") for request in session.requests)


def test_the_cursor_is_followed_within_a_second_that_fills_a_page() -> None:
    crowd = [event(number, 5) for number in range(100, 112)]
    session = sentry(*events(5, every=1), *crowd, *events(30, every=1)[6:])
    found = read_span(session)
    assert {*found} == {row["id"] for row in session.lists["events", "web"]}
    followed = [end for _, end, cursor in windows(session) if cursor]
    assert {*followed} == {ago(5) + SECOND}
    assert len(followed) == 2


def test_the_cursor_is_followed_if_rows_have_no_time() -> None:
    rows = [event(n, n, _time=ago(n).isoformat()) for n in range(12)]
    for row in rows:
        del row["dateCreated"]
    session = sentry(*rows)
    assert read_span(session) == numbered(*range(12))
    assert [cursor for _, _, cursor in windows(session)] == [None, "5", "10"]


def test_one_odd_time_does_not_stop_paging_by_time() -> None:
    odd = [
        event(number, number, _time=ago(number).isoformat(), dateCreated=shown)
        for number, shown in ((4, "9999-12-31T23:59:59Z"), (9, "0001-01-01T00:00:00Z"))
    ]
    rows = [row for row in events(15, every=1) if row["id"] not in ("e4", "e9")]
    session = sentry(*rows, *odd)
    assert {*read_span(session)} == {*numbered(*range(15))}
    assert all("start" in request.params for request in session.requests)


# Servers that ignore start and end


@pytest.mark.parametrize(
    ("span", "cursor", "asked"),
    [
        ((None, None), None, [None, None, "5", "10", "15", "20"]),
        ((ago(15), ago(10)), None, [None, "5", "10", "15", "20"]),
        ((None, ago(19)), "15", [None, "15", "20"]),
    ],
)
def test_a_server_that_ignores_windows_is_read_by_cursor(
    span: tuple[datetime | None, datetime | None],
    cursor: str | None,
    asked: list[str | None],
) -> None:
    """The page that shows it is requested again by cursor, unless it is the first."""
    session = sentry(*events(22, every=1))
    session.ignores_time = True
    client = session.client()
    found = read_span(session, *span, cursor, client)
    assert found == numbered(*range(int(cursor or 0), 22))
    assert cursors(session) == asked
    session.requests.clear()
    assert read_span(session, client=client) == numbered(*range(22))
    assert cursors(session) == [None, "5", "10", "15", "20"]
    assert not any("start" in request.params for request in session.requests)


# Windows before the oldest event that the server keeps

OLD = (ago(60 * 24 * 200), ago(60 * 24 * 100))
OLD_WINDOW = (OLD[0], OLD[1] + SECOND, None)


@pytest.mark.parametrize("status", [400, 500])
def test_a_window_before_the_oldest_event_is_empty_and_remembered(
    status: int,
) -> None:
    session = sentry(*events(3))

    def refuse(request: Request) -> int | None:
        edge = f"{ago(60 * 24 * 90):%Y-%m-%d}"
        return status if request.params["end"] < edge else None

    session.before = refuse
    client = session.client()
    assert read_span(session, *OLD, client=client) == []
    found, high = windows(session), OLD_WINDOW[1]
    confirmed = [(OLD[0], found[1][1], None), (high - SECOND, high, None)]
    assert found == [OLD_WINDOW, *confirmed * WINDOW_REFUSALS[status]]
    assert found[1][1] > NOW
    assert client.kept_from == high
    assert read_span(session, *OLD, client=client) == []
    assert len(windows(session)) == len(found)
    assert read_span(session, OLD[0], None, client=client) == numbered(0, 1, 2)


@pytest.mark.parametrize(
    ("statuses", "raised"),
    [
        ([500, 500, 500], 500),  # it answers nothing
        ([500, 500, 502], 502),
        ([500, 503], 503),
        ([500, None, None, 500], 500),  # it answers the window's last second
        ([500, *[None, 500] * 4, None, None, 500], 500),
        ([500, None, 503], 503),
        ([403], 403),
        ([503], 503),
    ],
)
def test_other_refusals_of_a_window_are_errors(
    statuses: list[int | None], raised: int
) -> None:
    session = sentry(*events(3))
    left = iter(statuses)
    session.before = lambda request: next(left)
    client = session.client()
    with pytest.raises(HttpError) as error:
        read_span(session, *OLD, client=client)
    assert (error.value.status, client.kept_from) == (raised, None)
    assert len(session.requests) == len(statuses)


def test_a_window_refused_by_chance_is_requested_again() -> None:
    session = sentry(event(0, 60 * 24 * 150))
    left = iter([500, None, 500, 500])
    session.before = lambda request: next(left, None)
    assert read_span(session, *OLD) == numbered(0)


def test_a_refused_window_up_to_now_is_an_error() -> None:
    session = sentry(*events(3))
    session.before = lambda request: 500
    with pytest.raises(ApiError, match="^events of project 'web': .*500"):
        read_span(session, OLD[0], None)
    assert len(session.requests) == 1


def test_issues_are_never_requested_by_time() -> None:
    session = Session("sentry", 5)
    session.lists["issues", "web"] = [issue(number, number) for number in range(12)]
    wanted = list_of("issues", "web", "sentry")
    found = session.client().pages(wanted, ago(4), None)
    assert ids([*found]) == [f"i{number}" for number in range(12)]
    assert not any("start" in request.params for request in session.requests)
