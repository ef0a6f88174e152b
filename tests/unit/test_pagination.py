"""Lists read page by page and side by side: what is asked, and what an error says."""

import threading
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import Client, Slice
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.client.time_filter import TimeFilter
from analytics_pipeline.client.time_windows import TimeWindow
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    MissingField,
    PageCursorLoop,
    UnexpectedAnswer,
    UnknownName,
)
from tests.unit.canned import (
    NOON,
    PATH,
    THINGS,
    TOKEN,
    Forgiving,
    ListClient,
    Reader,
    Serve,
    json_answer,
    link,
    make_client,
    page,
    page_of,
    read,
    refusal,
    time,
)

EVENT_ID = {"id": "1", "dateCreated": "2026-11-30T12:00:00Z"}


# Pages of one list


def test_pages_are_read_by_their_cursors_with_the_same_parameters(serve: Serve) -> None:
    server = serve(page("1", cursor="b+w=="), page(cursor="0:2:0"), page("2", "3"))
    endpoint = replace(THINGS, params={"limit": "2"})
    records = read(server, Reader(endpoint))
    assert [record["id"] for record in records] == ["1", "2", "3"]
    assert [request.query for request in server.requests] == [
        {"limit": "2"},
        {"limit": "2", "cursor": "b+w=="},
        {"limit": "2", "cursor": "0:2:0"},
    ]
    assert {request.path for request in server.requests} == {PATH}


def test_a_link_to_another_host_is_not_followed(serve: Serve) -> None:
    other = serve(page("stolen"))
    server = serve(page("1", cursor="c", host=other.url), page("2"))
    assert read(server) == [{"id": "1"}, {"id": "2"}]
    assert (len(server.requests), other.requests) == (2, [])


def test_one_object_is_a_list_of_one_record_and_needs_no_link(serve: Serve) -> None:
    server = serve(json_answer(200, {"data": {"id": 1}}))
    assert read(server, Reader(replace(THINGS, single=True))) == [{"id": 1}]


def test_a_list_without_links_is_an_error_with_its_url(serve: Serve) -> None:
    with pytest.raises(UnexpectedAnswer, match=f"{PATH}: the answer has no link"):
        read(serve(json_answer(200, {"data": [{"id": 1}]})))


def test_more_rows_without_a_cursor_is_an_error_with_its_url(serve: Serve) -> None:
    headers = {"Link": '<>; rel="next"; results="true"'}
    with pytest.raises(UnexpectedAnswer, match=f"{PATH}: the Link header"):
        read(serve(json_answer(200, {"data": []}, headers)))


def test_a_cursor_that_comes_again_ends_the_reading(serve: Serve) -> None:
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
    client, read_ids = make_client(server.url), []
    with pytest.raises(PageCursorLoop) as error:
        for _, each in client.pages([Slice(Reader())]):
            read_ids += [record["id"] for record in each.records]
    assert "'a' for the second time, on page 3" in str(error.value)
    assert "from id '3' (dateCreated 2026-11-30) to '5' (2026-11-29)" in str(
        error.value
    )
    assert read_ids == ["1", "2"]
    assert len(server.requests) == 3


def test_the_page_that_a_cursor_came_again_with_is_given_out(serve: Serve) -> None:
    server = serve(page("1", cursor="a"), page("2", cursor="a"))
    reader = Forgiving()
    assert read(server, reader) == [{"id": "1"}, {"id": "2"}]
    assert [type(error) for error in reader.errors] == [PageCursorLoop]


def test_a_loop_of_empty_pages_is_an_error_too(serve: Serve) -> None:
    with pytest.raises(PageCursorLoop, match="never end$"):
        read(serve(page(cursor="a")))


def test_requests_and_replaced_characters_are_counted(serve: Serve) -> None:
    reader = Reader()
    bad = Response(200, link(None), rb'{"data": [{"id": "a\u0000b"}]}')
    assert read(serve(refusal(503), bad), reader) == [{"id": "a\ufffdb"}]
    assert (reader.stats.requests, reader.stats.replaced) == (2, 1)


def test_a_record_without_its_key_is_an_error_of_the_list(serve: Serve) -> None:
    answer = json_answer(200, {"data": [{"name": "x"}]}, link(None))
    with pytest.raises(MissingField, match="^things of project 'frontend': .*'id'"):
        read(serve(answer), Reader(project="frontend"))


# What is asked


def test_slugs_stay_in_their_place_of_the_path(serve: Serve) -> None:
    server = serve(page())
    session = ApiSession(server.url, TOKEN, 1)
    client = Client(session, APIS["v1"], "a/b ?#é", workers=1)
    events = Reader(APIS["v1"].endpoints["events"], "c&d/../%2F")
    assert [each.records for _, each in client.pages([Slice(events)])] == [[]]
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
    client = Client(ApiSession(server.url, TOKEN, 1), APIS["sentry"], "acme", workers=1)
    list(client.pages([Slice(Reader(APIS["sentry"].endpoints["issues"], slug))]))
    assert server.requests[0].path == "/api/0/organizations/acme/issues/"
    assert server.requests[0].query == {
        "query": query,
        "project": "-1",
        "sort": "date",
        "collapse": "filtered",
        "groupStatsPeriod": "",
        "limit": "100",
    }


@pytest.mark.parametrize(
    ("full_events", "query"), [(True, {"full": "true"}), (False, {})]
)
def test_whole_records_are_asked_for_if_wanted(
    serve: Serve, full_events: bool, query: dict[str, str]
) -> None:
    server = serve(json_answer(200, [], link(None)))
    client = Client(
        ApiSession(server.url, TOKEN, 1),
        APIS["sentry"],
        "acme",
        workers=1,
        full_events=full_events,
    )
    list(client.pages([Slice(Reader(APIS["sentry"].endpoints["events"], "frontend"))]))
    assert server.requests[0].query == query


def test_a_window_is_asked_for_in_whole_seconds_of_utc(serve: Serve) -> None:
    server = serve(page())
    half = timedelta(seconds=0.5)
    window = TimeWindow(
        Reader(), NOON + half, time(1) + half, workers=1, time_filter=TimeFilter()
    )
    list(make_client(server.url).pages([window]))
    assert server.requests[0].query == {
        "start": "2026-11-30T12:00:00",
        "end": "2026-11-30T13:00:01",
    }


def glitchtip(url: str, workers: int = 1) -> Client:
    session = ApiSession(url, TOKEN, workers)
    return Client(
        session, APIS["glitchtip"], "acme", workers=workers, projects=["frontend", "b"]
    )


def glitchtip_list(table: str, project: str = "") -> Slice:
    return Slice(Reader(APIS["glitchtip"].endpoints[table], project))


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
    server = serve(NOTHING, refusal(404), projects_of("acme"))
    with pytest.raises(HttpError, match=f"^{table} .*404 .*no project 'fr") as error:
        list(glitchtip(server.url).pages([glitchtip_list(table, "frontend")]))
    assert error.value.status == 404
    assert [request.path for request in server.requests] == [
        f"/api/0/projects/acme/frontend/{table}/",
        "/api/0/projects/acme/frontend/",
        "/api/0/projects/",
    ]


def test_an_empty_list_of_a_project_that_exists_is_empty(serve: Serve) -> None:
    events = glitchtip_list("events", "frontend")
    pages = list(glitchtip(serve(NOTHING, DETAIL).url).pages([events]))
    assert [each.records for _, each in pages] == [[]]
    assert events.owner.stats.requests == 2


def test_an_empty_list_that_its_token_may_not_look_behind_is_empty(
    serve: Serve,
) -> None:
    server = serve(NOTHING, refusal(403))
    pages = list(glitchtip(server.url).pages([glitchtip_list("events", "frontend")]))
    assert [each.records for _, each in pages] == [[]]


def test_an_empty_page_behind_others_needs_no_check(serve: Serve) -> None:
    server = serve(json_answer(200, [EVENT_ID], link("a")), NOTHING)
    events = glitchtip_list("events", "frontend")
    assert len(list(glitchtip(server.url).pages([events]))) == 2
    assert len(server.requests) == 2


def test_a_project_is_asked_for_once_in_a_run(serve: Serve) -> None:
    server = serve(NOTHING, DETAIL, NOTHING, NOTHING, NOTHING)
    client = glitchtip(server.url)
    slices = [
        glitchtip_list("events", "frontend"),
        glitchtip_list("project_detail", "frontend"),
        glitchtip_list("issues", "frontend"),
        glitchtip_list("releases"),
    ]
    rows = [each.records for _, each in client.pages(slices)]
    assert rows == [[], [{"id": 1}], [], []]
    assert [request.path for request in server.requests] == [
        "/api/0/projects/acme/frontend/events/",
        "/api/0/projects/acme/frontend/",
        "/api/0/projects/acme/frontend/issues/",
        "/api/0/organizations/acme/releases/",
    ]


def test_a_project_is_asked_for_anew_in_another_run(serve: Serve) -> None:
    server = serve(DETAIL, json_answer(200, {"id": 2}))
    client = glitchtip(server.url)
    found = []
    for _ in range(2):
        client.forget_answers()
        pages = client.pages([glitchtip_list("project_detail", "frontend")])
        found += [each.records for _, each in pages]
    assert found == [[{"id": 1}], [{"id": 2}]]


def test_a_project_that_is_not_there_is_told_of_each_of_its_lists(serve: Serve) -> None:
    server = serve(refusal(404), projects_of("acme"))
    client, errors = glitchtip(server.url), []
    for _ in range(2):
        with pytest.raises(HttpError) as error:
            list(client.pages([glitchtip_list("project_detail", "frontend")]))
        errors.append(str(error.value))
    assert errors[0] == errors[1]
    assert errors[0].count("project_detail of project") == 1
    paths = [request.path for request in server.requests]
    assert paths == ["/api/0/projects/acme/frontend/", "/api/0/projects/"]


@pytest.mark.parametrize(
    ("organizations", "is_unknown"),
    [(["acme"], False), (["other", "acme"], False), (["acne"], True), ([], False)],
)
def test_an_empty_list_of_an_organization_that_is_not_there_is_an_error(
    serve: Serve, organizations: list[str], is_unknown: bool
) -> None:
    names = projects_of(*organizations) if organizations else refusal(403)
    server = serve(NOTHING, refusal(404), names)
    pages = glitchtip(server.url).pages([glitchtip_list("releases")])
    if is_unknown:
        with pytest.raises(UnknownName, match="did you mean 'acne'"):
            list(pages)
    else:
        assert [each.records for _, each in pages] == [[]]


def test_projects_of_other_organizations_are_left_out(serve: Serve) -> None:
    rows = [
        {"id": 1, "organization": {"slug": "acme"}},
        {"id": 2, "organization": {"slug": "other"}},
        {"id": 3},
    ]
    server = serve(json_answer(200, {"data": rows}, link(None)))
    client = Client(ApiSession(server.url, TOKEN, 1), APIS["v1"], "acme", workers=1)
    pages = list(client.pages([Slice(Reader(APIS["v1"].endpoints["projects"]))]))
    assert [row["id"] for _, each in pages for row in each.records] == [1, 3]


# Errors


@pytest.mark.parametrize(
    ("status", "project", "advice"),
    [
        (401, "frontend", "check auth_token"),
        (403, "frontend", "the token lacks the scope thing:read, or may not see this"),
        (
            404,
            "frontend",
            "check the names of organization 'acme' and project 'frontend', and that",
        ),
        (404, "", "check the names of organization 'acme', and that the token"),
        (400, "frontend", "what is loaded stays; run it again later"),
        (599, "frontend", "what is loaded stays; run it again later"),
    ],
)
def test_a_refusal_tells_the_list_and_what_to_do(
    serve: Serve, status: int, project: str, advice: str
) -> None:
    server = serve(refusal(status, "gone fishing"))
    with pytest.raises(HttpError) as error:
        read(server, Reader(project=project))
    subject = f"project '{project}'" if project else "organization 'acme'"
    assert str(error.value).startswith(
        f"things of {subject}: {server.url}{PATH}: {status}"
    )
    assert f"'gone fishing'; {advice}" in str(error.value).replace(
        "the server rejected the token: ", ""
    )
    assert error.value.status == status


def test_what_the_owner_gives_for_an_error_is_read_instead(serve: Serve) -> None:
    server = serve(page("1", cursor="a"), refusal(404), page("2"))
    reader = Forgiving(instead=[Slice(Reader())])
    assert read(server, reader) == [{"id": "1"}, {"id": "2"}]
    (error,) = reader.errors
    assert isinstance(error, HttpError)
    assert str(error).startswith("things of organization 'acme': ")


def test_an_error_of_one_list_leaves_the_others() -> None:
    missing = Forgiving(project="missing")

    def fetch(part: Slice) -> Page:
        if part.owner is missing:
            raise ApiError("not this one")
        return page_of(1)

    client = ListClient(fetch, workers=2)
    pages = list(client.pages([Slice(missing), Slice(Reader())]))
    assert [each.records for _, each in pages] == [[{"id": 1}]]
    (error,) = missing.errors
    assert str(error) == "things of project 'missing': not this one"


# Side by side


def numbered(pages: int) -> Callable[[Slice], Page]:
    """Lists of so many pages, whose only record tells the project and the page."""

    def fetch(part: Slice) -> Page:
        number = int(part.page_cursor or 0)
        cursor = str(number + 1) if number + 1 < pages else None
        record = {"id": f"{part.owner.project}{number}"}
        return Page([record], [None], cursor, NOON, NOON)

    return fetch


@pytest.mark.parametrize("workers", [1, 2, 5])
def test_the_pages_of_each_list_come_in_order_and_with_their_slice(
    workers: int,
) -> None:
    slices = [Slice(Reader(project=project)) for project in "abc"]
    client = ListClient(numbered(4), workers)
    found: dict[str, list[str]] = {"a": [], "b": [], "c": []}
    for part, each in client.pages(slices):
        found[part.owner.project] += [record["id"] for record in each.records]
    assert found == {name: [f"{name}{n}" for n in range(4)] for name in "abc"}
    assert [part.pages for part in slices] == [4, 4, 4]


def test_one_worker_reads_one_list_after_the_other() -> None:
    client = ListClient(numbered(2), workers=1)
    slices = [Slice(Reader(project=project)) for project in "abc"]
    ids = [each.records[0]["id"] for _, each in client.pages(slices)]
    assert ids == ["a0", "a1", "b0", "b1", "c0", "c1"]


def test_a_list_is_taken_when_there_is_a_worker_for_it() -> None:
    taken = []

    def slices() -> Iterator[Slice]:
        for project in "abcd":
            taken.append(project)
            yield Slice(Reader(project=project))

    pages = ListClient(numbered(1), workers=2).pages(slices())
    assert taken == []
    next(pages)
    assert taken == ["a", "b", "c"]
    assert len(list(pages)) == 3
    assert taken == ["a", "b", "c", "d"]


def test_as_many_requests_run_at_a_time_as_there_are_workers() -> None:
    together = threading.Barrier(3, timeout=30)

    def fetch(part: Slice) -> Page:
        together.wait()
        return page_of()

    slices = [Slice(Reader()) for _ in range(6)]
    assert len(list(ListClient(fetch, workers=3).pages(slices))) == 6


def test_the_next_page_is_asked_for_before_a_page_is_given_out() -> None:
    asked = threading.Semaphore(0)
    fetch_numbered = numbered(3)

    def fetch(part: Slice) -> Page:
        asked.release()
        return fetch_numbered(part)

    pages = ListClient(fetch, workers=1).pages([Slice(Reader())])
    for requests in (2, 1):
        next(pages)
        for _ in range(requests):
            assert asked.acquire(timeout=30)
    assert len(list(pages)) == 1
    assert not asked.acquire(blocking=False)


def test_nothing_more_is_asked_when_the_reader_leaves() -> None:
    asked = []
    fetch_numbered = numbered(100)

    def fetch(part: Slice) -> Page:
        asked.append(part.page_cursor)
        return fetch_numbered(part)

    pages = ListClient(fetch, workers=1).pages([Slice(Reader())])
    next(pages)
    assert isinstance(pages, Generator)
    pages.close()
    assert len(asked) <= 2


def test_threads_end_at_their_next_request_when_the_reader_leaves(serve: Serve) -> None:
    has_left = threading.Event()

    def failing(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        has_left.wait(30)
        return refusal(503)

    server = serve(page("1"), failing)
    pages = make_client(server.url, workers=2).pages(Slice(Reader()) for _ in range(9))
    before = {*threading.enumerate()}
    next(pages)
    assert isinstance(pages, Generator)
    pages.close()
    has_left.set()
    for thread in {*threading.enumerate()} - before:
        if thread.name.startswith("analytics-pipeline"):
            thread.join(30)
            assert not thread.is_alive()
    assert len(server.requests) <= 3


def test_a_page_is_given_out_with_the_slice_that_takes_it() -> None:
    class Replaced(Slice):
        def taking(self, page: Page) -> Slice | None:
            return other if page.records[0]["id"] == 1 else None

    other = Slice(Reader())
    slices = [Replaced(Reader(project=project)) for project in "ab"]

    def fetch(part: Slice) -> Page:
        cursor = None if part is other else "c"
        return page_of({"a": 1, "b": 2, "": 3}[part.owner.project], cursor=cursor)

    pages = ListClient(fetch, workers=1).pages(slices)
    assert [(part, each.records[0]["id"]) for part, each in pages] == [
        (other, 1),
        (other, 3),
    ]
