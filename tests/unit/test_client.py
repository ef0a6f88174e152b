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
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    UnexpectedAnswer,
    UnknownName,
)
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


def test_a_cursor_that_comes_again_ends_the_reading_after_its_page(
    serve: Serve,
) -> None:
    rows = [
        {"id": "3", "dateCreated": "2026-11-30"},
        {"id": "4"},
        {"id": "5", "dateCreated": "2026-11-29"},
    ]
    server = serve(
        page("1", cursor="a"),
        page("2", cursor="b"),
        json_answer(200, {"data": rows}, link("a")),
    )
    found: list[str] = []
    with pytest.raises(UnexpectedAnswer) as error:
        for each in make_client(server).pages(ListName(THINGS)):
            found += ids([each])
    message = str(error.value)
    assert message.startswith("things of organization 'acme': ")
    assert "page cursor 'a' again, on page 3" in message
    assert "from id '3' (dateCreated 2026-11-30) to '5' (2026-11-29)" in message
    assert found == ["1", "2", "3", "4", "5"]
    assert len(server.requests) == 3
    with pytest.raises(UnexpectedAnswer, match="would never end"):
        read(serve(page(cursor="a")))  # without rows


def test_empty_pages_without_end_are_an_error(
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


# What is asked


def test_slugs_stay_in_their_place_of_the_path(serve: Serve) -> None:
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
def test_a_slug_stands_in_a_search_as_one_term(
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
def test_whole_records_are_asked_for_if_wanted(serve: Serve, full_events: bool) -> None:
    server = serve(json_answer(200, [], link(None)))
    client = Client(
        ApiSession(server.url, TOKEN, 1),
        APIS["sentry"],
        "acme",
        full_events=full_events,
    )
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
def test_an_empty_list_that_may_mean_a_wrong_name_is_checked(
    serve: Serve, table: str
) -> None:
    answers = [NOTHING, refusal(404)][:: 1 if table == "events" else -1]
    server = serve(*answers, projects_of("acme"))
    with pytest.raises(
        HttpError, match=f"^{table} .*404 .*access to a project 'fr"
    ) as error:
        list(make_client(server, "glitchtip").pages(list_of(table, "frontend")))
    assert error.value.status == 404
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
def test_glitchtips_issues_are_asked_for_by_the_id_of_their_project(
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


def test_a_project_whose_id_the_server_fails_to_tell_is_a_failure(
    serve: Serve,
) -> None:
    server = serve(refusal(500))
    with pytest.raises(HttpError, match="^issues of project 'frontend': .*500"):
        list(make_client(server, "glitchtip").pages(list_of("issues", "frontend")))


@pytest.mark.parametrize("detail", [DETAIL, refusal(403)])
def test_an_empty_list_of_a_project_that_exists_or_is_hidden_is_empty(
    serve: Serve, detail: Response
) -> None:
    wanted = list_of("events", "frontend")
    (found,) = make_client(serve(NOTHING, detail), "glitchtip").pages(wanted)
    assert found.records == []
    assert wanted.stats.requests == 2


@pytest.mark.parametrize(
    ("status", "code", "words"),
    [
        (401, "sso-required", "Must login via SSO"),
        (403, "2fa-required", "2FA required"),
    ],
)
def test_a_missing_login_is_described_by_the_server(
    serve: Serve, status: int, code: str, words: str
) -> None:
    """It is about neither the scopes of the token nor its age."""
    detail = {"code": code, "message": words, "extra": {"loginUrl": "/auth/login/"}}
    server = serve(json_answer(status, {"detail": detail}))
    with pytest.raises(HttpError) as error:
        list(make_client(server, "sentry").pages(list_of("events", "x", "sentry")))
    assert str(error.value).endswith(f"'{words} ({code})'")


def test_an_empty_page_behind_others_needs_no_check(serve: Serve) -> None:
    server = serve(json_answer(200, [EVENT], link("a")), NOTHING)
    pages = make_client(server, "glitchtip").pages(list_of("events", "frontend"))
    assert len(list(pages)) == len(server.requests) == 2


def test_a_project_is_requested_once_in_a_run(
    serve: Serve,
) -> None:
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
def test_an_empty_list_of_an_organization_that_is_not_there_is_an_error(
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
        (401, "frontend", "The server rejected the token. Check auth_token"),
        (403, "frontend", "The token lacks the scope thing:read, or has no access to"),
        (
            404,
            "frontend",
            "Check that project 'frontend' of organization 'acme' exists",
        ),
        (404, "", "Check that organization 'acme' exists and that the token has"),
        (400, "frontend", "Data loaded so far is kept. Try again later."),
        (599, "frontend", "Data loaded so far is kept. Try again later."),
    ],
)
def test_a_refusal_tells_the_list_and_what_to_do(
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


# A list that is resumed at a page cursor


def resume(session: Session, end: datetime | None, cursor: str) -> list[Page]:
    """The pages of a list that was left at a page, below a time."""
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


def test_a_list_is_resumed_at_the_page_that_reaches_above_what_is_missing(
    v1: Session,
) -> None:
    pages = resume(v1, ago(49), "40")
    assert [each.asked_cursor for each in pages] == cursors(v1) == ["40", "50"]
    assert ids(pages) == [f"e{n}" for n in range(40, 60)]


@pytest.mark.parametrize("minutes", [39, 40])
def test_a_list_is_not_resumed_at_a_page_from_which_rows_were_shifted(
    v1: Session, caplog: Log, minutes: int
) -> None:
    """Rows of the same time as the last one read may be missing."""
    caplog.set_level(logging.WARNING)
    pages = resume(v1, ago(minutes), "40")
    assert cursors(v1) == ["40", None, "10", "20", "30", "40", "50"]
    assert ids(pages) == [f"e{n}" for n in range(60)]
    assert "rows were deleted since the last load" in caplog.text


@pytest.mark.parametrize("status", [*CURSOR_REFUSALS, 403])
def test_a_refused_cursor_lets_the_list_begin_at_its_first_page(
    v1: Session, caplog: Log, status: int
) -> None:
    caplog.set_level(logging.WARNING)
    v1.before = lambda request: status if len(v1.requests) == 1 else None
    if status not in CURSOR_REFUSALS:
        with pytest.raises(HttpError, match=str(status)):
            resume(v1, ago(49), "40")
        return
    assert len(ids(resume(v1, ago(49), "40"))) == 60
    assert (
        f"events of project 'web': http://memory/v1/projects/acme/web/events/: {status}"
        in (caplog.text)
    )
    assert "reading the list from its first page" in caplog.text


def test_the_top_of_a_list_is_always_its_first_page(v1: Session) -> None:
    assert len(ids(resume(v1, None, "40"))) == 60


# Paging by time

Window = tuple[datetime, datetime, str | None]


def windows(session: Session) -> list[Window]:
    """What each request asked for; an end that lies ahead as that of today."""
    found = []
    for request in session.requests:
        start, end = (
            datetime.fromisoformat(request.params[name]).replace(tzinfo=UTC)
            for name in ("start", "end")
        )
        found.append((start, min(end, TOP), request.params.get("cursor")))
    return found


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
    """The ids of a span of the events of a Sentry."""
    wanted = list_of("events", "web", "sentry")
    found = (client or session.client()).pages(wanted, start, end, cursor)
    return ids([*found])


def numbered(*numbers: int) -> list[str]:
    return [f"e{number}" for number in numbers]


def test_each_page_asks_for_what_is_older_than_the_rows_received() -> None:
    """To the second, and one row more, since one may show an odd time."""
    session = sentry(*events(11, every=1))
    assert read_span(session) == numbered(*range(11))
    assert windows(session) == [
        (BEGINNING, TOP, None),
        (BEGINNING, ago(3) + SECOND, None),
        (BEGINNING, ago(6) + SECOND, None),
    ]


def test_a_span_is_asked_for_in_whole_seconds_of_utc() -> None:
    session = sentry(*events(11, every=1))
    half = timedelta(seconds=0.5)
    assert read_span(session, ago(8) + half, ago(5) + half) == numbered(5, 6, 7, 8)
    assert windows(session) == [(ago(8), ago(5) + SECOND, None)]
    assert session.requests[0].params["start"] == f"{ago(8):%Y-%m-%dT%H:%M:%S}"


def test_rows_that_come_or_go_meanwhile_shift_nothing() -> None:
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


def test_only_within_a_second_that_fills_a_page_is_the_cursor_followed() -> None:
    crowd = [event(number, 5) for number in range(100, 112)]
    session = sentry(*events(5, every=1), *crowd, *events(30, every=1)[6:])
    found = read_span(session)
    assert {*found} == {row["id"] for row in session.lists["events", "web"]}
    followed = [end for _, end, cursor in windows(session) if cursor]
    assert {*followed} == {ago(5) + SECOND}
    assert len(followed) == 2


def test_where_rows_do_not_tell_their_time_the_cursor_is_followed() -> None:
    rows = [event(n, n, _time=ago(n).isoformat()) for n in range(12)]
    for row in rows:
        del row["dateCreated"]
    session = sentry(*rows)
    assert read_span(session) == numbered(*range(12))
    assert [cursor for _, _, cursor in windows(session)] == [None, "5", "10"]


def test_a_page_that_shows_one_odd_time_is_believed_all_the_same() -> None:
    odd = [
        event(number, number, _time=ago(number).isoformat(), dateCreated=shown)
        for number, shown in ((4, "9999-12-31T23:59:59Z"), (9, "0001-01-01T00:00:00Z"))
    ]
    rows = [row for row in events(15, every=1) if row["id"] not in ("e4", "e9")]
    session = sentry(*rows, *odd)
    assert {*read_span(session)} == {*numbered(*range(15))}
    assert all("start" in request.params for request in session.requests)


# Servers that ignore start and end


def test_a_server_that_ignores_windows_is_read_by_cursor_from_there_on() -> None:
    session = sentry(*events(22, every=1))
    session.ignores_time = True
    client = session.client()
    assert read_span(session, client=client) == numbered(*range(22))
    # The second request shows it; its page is asked for once more, by cursor.
    assert cursors(session) == [None, None, "5", "10", "15", "20"]
    session.requests.clear()
    assert read_span(session, client=client) == numbered(*range(22))
    assert cursors(session) == [None, "5", "10", "15", "20"]
    assert not any("start" in request.params for request in session.requests)


def test_a_first_page_of_other_times_shows_it_and_counts_as_the_first_of_the_list() -> (
    None
):
    session = sentry(*events(22, every=1))
    session.ignores_time = True
    assert read_span(session, ago(15), ago(10)) == numbered(*range(22))
    assert cursors(session) == [None, "5", "10", "15", "20"]


def test_a_gap_with_a_cursor_is_resumed_there_where_windows_are_ignored() -> None:
    session = sentry(*events(22, every=1))
    session.ignores_time = True
    found = read_span(session, None, ago(19), "15")
    assert found == numbered(*range(15, 22))
    assert cursors(session) == [None, "15", "20"]


def test_a_second_that_cannot_be_paged_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = sentry(*[event(number, 0) for number in range(12)])
    real = session.get

    def same(path: str, params: Any, stats: Any, **options: Any) -> Any:
        return real(path, {k: v for k, v in params.items() if k != "cursor"}, stats)

    monkeypatch.setattr(session, "get", same)
    with pytest.raises(UnexpectedAnswer, match="have the same dateCreated"):
        read_span(session)


# Windows before all that a server keeps

OLD = (ago(60 * 24 * 200), ago(60 * 24 * 100))
OLD_WINDOW = (OLD[0], OLD[1] + SECOND, None)


def whole_window(session: Session) -> Window:
    """From where the window starts up to now."""
    return OLD[0], windows(session)[1][1], None


@pytest.mark.parametrize("status", [400, 500])
def test_a_window_before_all_that_a_server_keeps_is_empty_and_remembered(
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
    confirmed = [whole_window(session), (high - SECOND, high, None)]
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
        ([500, *[None, 500] * 4, 500, 500], 500),
        ([500, *[None, 500] * 4, None, None, 500], 500),
        ([500, None, 503], 503),
        ([403], 403),
        ([503], 503),
    ],
)
def test_another_refusal_of_a_window_is_an_error(
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


def test_a_window_that_was_refused_by_chance_is_asked_again() -> None:
    session = sentry(event(0, 60 * 24 * 150))
    left = iter([500, None, 500, 500])
    session.before = lambda request: next(left, None)
    assert read_span(session, *OLD) == numbered(0)


def test_a_window_up_to_now_cannot_lie_before_what_is_kept() -> None:
    session = sentry(*events(3))
    session.before = lambda request: 500
    with pytest.raises(ApiError, match="^events of project 'web': .*500"):
        read_span(session, OLD[0], None)
    assert len(session.requests) == 1


def test_issues_are_never_asked_for_by_time() -> None:
    session = Session("sentry", 5)
    session.lists["issues", "web"] = [issue(number, number) for number in range(12)]
    wanted = list_of("issues", "web", "sentry")
    found = session.client().pages(wanted, ago(4), None)
    assert ids([*found]) == [f"i{number}" for number in range(12)]
    assert not any("start" in request.params for request in session.requests)
