"""Lists read page by page and side by side, in the order that their pages show."""

import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from analytics_pipeline.client.endpoints import APIS, Endpoint
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import (
    Client,
    ListSlice,
    Order,
    Position,
    Slice,
)
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.client.time_windows import TimeWindow
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    MissingField,
    PageCursorLoop,
    UnexpectedAnswer,
)
from tests.unit.canned import (
    PATH,
    THINGS,
    TOKEN,
    ListClient,
    Reader,
    Serve,
    json_answer,
    link,
    make_client,
    page,
    read,
    refusal,
)

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
ORDERED = replace(THINGS, newest_first=True)
EVENT_ID = {"id": "1", "dateCreated": "2026-11-30T12:00:00Z"}


def at(*hours: float | None) -> list[datetime | None]:
    """Times so many hours after noon."""
    return [None if hour is None else NOON + timedelta(hours=hour) for hour in hours]


def time(hour: float) -> datetime:
    return NOON + timedelta(hours=hour)


def page_of(*hours: float | None, cursor: str | None = None) -> Page:
    """A page of rows of these times; with a cursor there is more."""
    records = [{"id": hour} for hour in hours]
    return Page(records, at(*hours), cursor, NOON, NOON)


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
        "sort": "date",
        "collapse": "stats",
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
    window = TimeWindow(Reader(), NOON + half, time(1) + half, workers=1)
    list(make_client(server.url).pages([window]))
    assert server.requests[0].query == {
        "start": "2026-11-30T12:00:00",
        "end": "2026-11-30T13:00:01",
    }


def glitchtip(url: str) -> Client:
    return Client(ApiSession(url, TOKEN, 1), APIS["glitchtip"], "acme", workers=1)


def test_an_empty_list_that_may_mean_a_wrong_name_is_checked(serve: Serve) -> None:
    server = serve(json_answer(200, [], link(None)), refusal(404))
    events = Reader(APIS["glitchtip"].endpoints["events"], "frontend")
    with pytest.raises(HttpError, match="404 .*check the names") as error:
        list(glitchtip(server.url).pages([Slice(events)]))
    assert error.value.status == 404
    assert [request.path for request in server.requests] == [
        "/api/0/projects/acme/frontend/events/",
        "/api/0/projects/acme/frontend/",
    ]


def test_an_empty_list_of_a_project_that_exists_is_empty(serve: Serve) -> None:
    server = serve(json_answer(200, [], link(None)), json_answer(200, {"id": 1}))
    events = Reader(APIS["glitchtip"].endpoints["events"], "frontend")
    pages = list(glitchtip(server.url).pages([Slice(events)]))
    assert [each.records for _, each in pages] == [[]]
    assert events.stats.requests == 2


def test_an_empty_page_behind_others_needs_no_check(serve: Serve) -> None:
    server = serve(
        json_answer(200, [EVENT_ID], link("a")), json_answer(200, [], link(None))
    )
    events = Reader(APIS["glitchtip"].endpoints["events"], "frontend")
    assert len(list(glitchtip(server.url).pages([Slice(events)]))) == 2
    assert len(server.requests) == 2


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
        (400, "frontend", "what is loaded stays; try again later"),
        (599, "frontend", "what is loaded stays; try again later"),
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


@dataclass
class Forgiving(Reader):
    """Takes errors upon itself, and reads these slices instead."""

    instead: list[Slice] = field(default_factory=list)
    errors: list[ApiError] = field(default_factory=list)

    def on_error(self, part: Slice, error: ApiError) -> Sequence[Slice]:
        self.errors.append(error)
        return self.instead


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


# The order that pages show

DOCUMENTED, UNDOCUMENTED = True, False


def noted(documented: bool, *pages: Sequence[datetime | None]) -> Order:
    order = Order(documented)
    for times in pages:
        order.note(times)
    return order


def is_past(order: Order, times: Sequence[datetime | None], start: float) -> bool:
    """Note a page, then tell whether all behind it is older than `start`."""
    order.note(times)
    return order.is_past(times, time(start))


@pytest.mark.parametrize(
    ("hours", "start", "expected"),
    [
        ([9, 8, 7], 5, False),
        ([9, 8, 5], 5, False),
        ([9, 8, 4], 5, True),
        ([4], 5, True),
        ([4, 4], 5, True),
        ([9, 4, None], 5, True),
        ([9, 4, 8], 5, False),  # the last row tells
        ([None, None], 5, False),
        ([], 5, False),
    ],
)
def test_where_an_order_is_documented_the_last_row_tells(
    hours: list[float | None], start: float, expected: bool
) -> None:
    assert is_past(Order(DOCUMENTED), at(*hours), start) is expected


@pytest.mark.parametrize("documented", [DOCUMENTED, UNDOCUMENTED])
def test_without_a_start_all_is_wanted(documented: bool) -> None:
    order = noted(documented, at(3, 2, 1))
    assert not order.is_past(at(3, 2, 1), None)


@pytest.mark.parametrize(
    ("hours", "expected"),
    [
        ([9, 8, 7], False),
        ([9, 8, 4], False),  # one old row does not end a list
        ([9, 4, 3], True),
        ([9, 8, 4, 4], True),
        ([4, 3, 2], True),
        ([9, None, 4, None, 3], True),
        ([9, 5, 5], False),
        ([3, 3, 3], False),  # equal times show no order
        ([4], False),
        ([4, 3, 9], False),
        ([4, 9, 3], False),
        ([3, 4, 9], False),
        ([], False),
        ([None], False),
    ],
)
def test_where_no_order_is_documented_the_page_has_to_show_it(
    hours: list[float | None], expected: bool
) -> None:
    assert is_past(Order(UNDOCUMENTED), at(*hours), 5) is expected


@pytest.mark.parametrize(
    ("length", "older", "expected"),
    [
        (100, 9, False),
        (100, 10, True),
        (95, 9, False),
        (95, 10, True),
        (20, 1, False),
        (20, 2, True),
        (2, 1, False),
        (2, 2, True),
    ],
)
def test_a_tenth_of_the_page_and_two_rows_have_to_be_older(
    length: int, older: int, expected: bool
) -> None:
    newer = length - older
    times = at(*(newer - number - 0.5 for number in range(length)))
    assert is_past(Order(UNDOCUMENTED), times, 0) is expected


def test_after_a_page_in_ascending_order_a_list_is_read_whole() -> None:
    order = noted(UNDOCUMENTED, at(1, 2, 3))
    assert not is_past(order, at(4, 3, 2), 9)
    assert not is_past(order, at(4, 3, 2), 9)


def test_after_a_page_without_order_a_later_one_may_end_the_list() -> None:
    order = noted(UNDOCUMENTED, at(9, 7, 8))
    assert is_past(order, at(4, 3, 2), 5)


@pytest.mark.parametrize(
    ("documented", "pages", "newest_first", "edge"),
    [
        (UNDOCUMENTED, [], None, None),
        (DOCUMENTED, [], True, None),
        (UNDOCUMENTED, [[3, 2, 1]], True, 1),
        (UNDOCUMENTED, [[3, 2], [2, 1]], True, 1),
        (UNDOCUMENTED, [[1, 2, 3]], False, 3),
        (UNDOCUMENTED, [[1, 2], [2, 5]], False, 5),
        (UNDOCUMENTED, [[2, 2]], None, None),
        (UNDOCUMENTED, [[2]], None, None),
        (UNDOCUMENTED, [[2, 2], [2, 1]], True, 1),
        (UNDOCUMENTED, [[3, 2], [1, 1]], True, 1),
        (UNDOCUMENTED, [[3, 2], [1, 2]], None, None),
        (UNDOCUMENTED, [[2, 3, 1]], None, None),
        (UNDOCUMENTED, [[3, None, 2]], True, 2),
        (UNDOCUMENTED, [[None, None]], None, None),
        (DOCUMENTED, [[2, 2]], True, 2),
        (DOCUMENTED, [[1, 2, 3]], True, 1),
        (DOCUMENTED, [[5, 4], [None], [3, 2]], True, 2),
    ],
)
def test_pages_show_a_direction_and_how_far_reading_has_come(
    documented: bool,
    pages: list[list[float | None]],
    newest_first: bool | None,
    edge: float | None,
) -> None:
    order = noted(documented, *(at(*hours) for hours in pages))
    assert order.newest_first is newest_first
    assert order.edge == (None if edge is None else time(edge))


@pytest.mark.parametrize(
    ("newest_first", "hours", "expected"),
    [
        (True, [6, 5, 4], True),
        (True, [5, 4], False),  # rows of just that time may be missing
        (True, [4, 3], False),  # the rows between were deleted, or moved
        (True, [None, 6], True),
        (True, [None], False),
        (True, [], False),
        (False, [4, 5, 6], True),
        (False, [5, 6], False),
        (False, [6, 7], False),
        (False, [], False),
    ],
)
def test_a_page_that_is_asked_again_has_to_reach_what_was_read(
    newest_first: bool, hours: list[float | None], expected: bool
) -> None:
    order = Order(UNDOCUMENTED)
    order.resume(newest_first, time(5))
    assert (order.newest_first, order.edge) == (newest_first, time(5))
    assert order.overlaps(at(*hours)) is expected


def test_without_an_earlier_reading_nothing_overlaps() -> None:
    assert not Order(DOCUMENTED).overlaps(at(3, 2, 1))


@pytest.mark.parametrize(
    ("newest_first", "hours", "edge"), [(True, [6, 5, 3], 3), (False, [4, 5, 8], 8)]
)
def test_a_resumed_order_goes_on_from_its_edge(
    newest_first: bool, hours: list[float], edge: float
) -> None:
    order = Order(UNDOCUMENTED)
    order.resume(newest_first, time(5))
    order.note(at(*hours))
    assert (order.newest_first, order.edge) == (newest_first, time(edge))


def test_pages_in_another_order_than_before_show_none() -> None:
    order = Order(UNDOCUMENTED)
    order.resume(True, time(5))
    order.note(at(6, 7, 8))
    assert (order.newest_first, order.edge) == (None, None)


def test_a_list_that_was_ascending_is_read_whole_after_it_was_resumed() -> None:
    order = Order(UNDOCUMENTED)
    order.resume(False, time(1))
    assert not is_past(order, at(4, 3, 2), 9)


# Lists that may be left and gone on with


def listing(endpoint: Endpoint = THINGS, start: float | None = None) -> ListSlice:
    return ListSlice(Forgiving(endpoint), None if start is None else time(start))


def test_a_list_is_read_to_its_end() -> None:
    part = listing()
    assert part.after(page_of(3, 2, cursor="a")) == (part,)
    assert (part.page_cursor, part.pages, part.ended) == ("a", 1, False)
    assert part.after(page_of(1)) == ()
    assert (part.pages, part.ended) == (2, True)


@pytest.mark.parametrize(
    ("endpoint", "hours", "ends"),
    [
        (ORDERED, [9, 8, 4], True),
        (THINGS, [9, 8, 4], False),
        (THINGS, [9, 4, 3], True),
        (THINGS, [3, 4, 9], False),
    ],
)
def test_a_list_ends_at_the_rows_before_its_start(
    endpoint: Endpoint, hours: list[float], ends: bool
) -> None:
    part = listing(endpoint, start=5)
    assert part.after(page_of(*hours, cursor="a")) == (() if ends else (part,))
    assert (part.ended, part.pages) == (ends, 1)


def test_a_list_of_pages_in_ascending_order_is_read_whole() -> None:
    part = listing(start=5)
    assert part.after(page_of(1, 2, cursor="a")) == (part,)
    assert part.after(page_of(4, 3, 2, cursor="b")) == (part,)
    assert part.after(page_of(3, 2, 1, cursor="c")) == (part,)


def test_a_cursor_that_comes_again_is_an_error() -> None:
    part = listing()
    part.after(page_of(3, cursor="a"))
    part.after(page_of(2, cursor="b"))
    with pytest.raises(PageCursorLoop):
        part.after(page_of(1, cursor="a"))


def test_a_list_cannot_be_left_at_its_first_page() -> None:
    part = listing(ORDERED)
    part.owner.is_full = True  # type: ignore[attr-defined]
    assert part.after(page_of(9, 8, cursor="a")) == (part,)
    assert part.position() is None


@pytest.mark.parametrize(
    ("endpoint", "pages", "position"),
    [
        (THINGS, [[9, 8], [7, 6]], Position("0", True, time(6))),
        (THINGS, [[1, 2], [2, 3]], Position("0", False, time(3))),
        (ORDERED, [[9, 9], [9, 9]], Position("0", True, time(9))),
        (ORDERED, [[None], [7]], Position("0", True, time(7))),
        (THINGS, [[9, 9], [9, 9]], None),
        (THINGS, [[9, 8], [6, 7]], None),
        (THINGS, [[None], [None]], None),
    ],
)
def test_a_list_can_be_left_at_a_later_page_if_its_pages_are_in_order(
    endpoint: Endpoint, pages: list[list[float | None]], position: Position | None
) -> None:
    part = listing(endpoint)
    for number, hours in enumerate(pages):
        if number == len(pages) - 1:
            part.owner.is_full = True  # type: ignore[attr-defined]
        more = part.after(page_of(*hours, cursor=str(number)))
    assert part.position() == position
    assert more == (() if position else (part,))
    assert (part.ended, part.pages) == (False, 2)


def resumed(position: Position, endpoint: Endpoint = THINGS) -> ListSlice:
    part = listing(endpoint)
    part.resume(position)
    return part


NEWEST_FIRST = Position("p", True, time(5))
OLDEST_FIRST = Position("p", False, time(5))


@pytest.mark.parametrize(
    ("position", "hours"), [(NEWEST_FIRST, [6, 5]), (OLDEST_FIRST, [4, 5])]
)
def test_a_resumed_list_begins_with_the_page_it_was_left_at(
    position: Position, hours: list[float]
) -> None:
    part = resumed(position)
    assert (part.page_cursor, part.resumed_at) == ("p", time(5))
    assert part.after(page_of(*hours, cursor="q")) == (part,)
    assert (part.asked_cursor, part.page_cursor) == ("p", "q")


def test_a_resumed_list_can_be_left_only_when_it_is_further() -> None:
    part = resumed(NEWEST_FIRST)
    part.owner.is_full = True  # type: ignore[attr-defined]
    assert part.after(page_of(6, 5, cursor="q")) == (part,)
    assert part.position() is None
    assert part.after(page_of(5, 5, cursor="r")) == (part,)
    assert part.position() is None
    assert part.after(page_of(5, 4, cursor="s")) == ()
    assert part.position() == Position("r", True, time(4))


@pytest.mark.parametrize(
    ("position", "hours"), [(NEWEST_FIRST, [4, 3]), (OLDEST_FIRST, [6, 7])]
)
def test_a_resumed_list_with_a_gap_is_the_owners_affair(
    position: Position, hours: list[float]
) -> None:
    part = resumed(position)
    owner = part.owner
    assert isinstance(owner, Forgiving)
    owner.instead = [part.restart()]
    assert part.after(page_of(*hours, cursor="q")) == owner.instead
    (error,) = owner.errors
    assert "others would be missed" in str(error)
    assert (part.pages, part.ended) == (0, False)


def test_only_the_first_page_of_a_resumed_list_may_show_a_gap() -> None:
    part = resumed(NEWEST_FIRST)
    part.after(page_of(6, 5, cursor="q"))
    assert part.after(page_of(2, 1, cursor="r")) == (part,)


def test_a_restarted_list_begins_with_its_first_page() -> None:
    part = resumed(NEWEST_FIRST)
    part.start = time(1)
    again = part.restart()
    assert (again.page_cursor, again.resumed_at, again.start) == (None, None, time(1))
    assert again.owner is part.owner
    assert again.after(page_of(1, cursor="a")) == (again,)


@pytest.mark.parametrize(
    ("position", "before", "after"),
    [(NEWEST_FIRST, [6, 5], [4.9]), (OLDEST_FIRST, [4, 5], [5.1])],
)
def test_rows_of_the_page_that_is_asked_again_are_no_new_ones(
    position: Position, before: list[float], after: list[float]
) -> None:
    part = resumed(position)
    part.after(page_of(*before, *after, cursor="q"))
    assert all(part.is_overlap(time(hour)) for hour in before)
    assert not any(part.is_overlap(time(hour)) for hour in after)
    part.after(page_of(*after, cursor="r"))
    assert not any(part.is_overlap(time(hour)) for hour in before)


def test_a_list_from_its_beginning_asks_for_nothing_again() -> None:
    part = listing(ORDERED)
    part.after(page_of(6, 5, cursor="q"))
    assert not part.is_overlap(time(6))
