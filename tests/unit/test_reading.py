"""Readers, from a server in memory into a warehouse in memory: what a list promises."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from analytics_pipeline import workers
from analytics_pipeline.errors import HttpError, UnexpectedAnswer
from tests.memory import (
    HOUR,
    Killed,
    Request,
    Row,
    Session,
    Warehouse,
    ago,
    event,
    events,
    issue,
    oldest_first,
    shuffled,
)

SIZE = 20
DAY = timedelta(days=1)
NOW = timedelta()
"""Of a sweep: in any case."""
API = pytest.mark.parametrize("api", ["v1", "sentry", "glitchtip"])


def serve(api: str = "v1", count: int = 200, every: float = 90) -> Session:
    """Ten pages of events, unless a test says otherwise."""
    session = Session(api, SIZE)
    session.lists["events", "web"] = events(count, every)
    return session


def loaded(session: Session, **settings: Any) -> Warehouse:
    warehouse = Warehouse(session)
    warehouse.run(**settings)
    assert warehouse.ids == warehouse.served()
    return warehouse


def fail_from(session: Session, number: int, status: int = 503) -> None:
    """Refuse the request of this number, from now on, and those behind it."""
    first = len(session.requests) + number

    def before(request: Request) -> int | None:
        return status if len(session.requests) >= first else None

    session.before = before


def mend(session: Session) -> None:
    session.before = lambda request: None


def at_request(session: Session, number: int, change: Callable[[], object]) -> None:
    """Do something before the request of this number, from now on, is answered."""
    last = len(session.requests) + number

    def before(request: Request) -> None:
        if len(session.requests) == last:
            change()

    session.before = before


def is_about(warehouse: Warehouse, rows: int, project: str = "web") -> bool:
    """So many rows were new; those where a load is resumed may count again."""
    return rows <= warehouse.sizes[project] <= rows + warehouse.loads


def spans(warehouse: Warehouse, project: str = "web") -> list[Any]:
    found: list[Any] = warehouse.bookmarks[project]["loaded"]
    return found


# What is new


@API
def test_what_is_loaded_is_not_asked_for_again(api: str) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    # Pages by time begin with the rows of the second at which the one before ended.
    assert warehouse.run() in ((10,) if api != "sentry" else (11, 12))
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes == {"web": 200}
    assert warehouse.run() == 1
    assert warehouse.sizes == {"web": 0}
    session.lists["events", "web"] += [event(1000 + n, n - 30) for n in range(25)]
    assert warehouse.run() in ((2,) if api != "sentry" else (2, 3))
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes == {"web": 25}
    assert 1 <= warehouse.reread["web"] <= SIZE


@API
def test_a_page_is_asked_for_no_earlier_than_needed(api: str) -> None:
    session = serve(api)
    warehouse = loaded(session)
    (start, end, cursor), *others = spans(warehouse)
    assert (start, datetime.fromisoformat(end), cursor) == (None, ago(0), None)
    assert not others
    assert warehouse.run(lookback=30 * HOUR) <= 2
    # 20 rows of the last 30 hours, and those of the page that are older.
    assert (warehouse.sizes["web"], SIZE < warehouse.reread["web"] <= 23) == (0, True)


@API
def test_an_empty_list_is_read_until_it_has_rows(api: str) -> None:
    session = serve(api, 0)
    warehouse = loaded(session)
    assert not warehouse.bookmarks["web"].get("loaded")
    session.lists["events", "web"] = events(50, start=10)
    warehouse.run()
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes == {"web": 50}


@API
def test_late_rows_come_within_the_lookback(api: str) -> None:
    session = serve(api)
    warehouse = loaded(session)
    session.lists["events", "web"] += [event(1000, 30), event(1001, 6000)]
    warehouse.run(lookback=HOUR)
    assert warehouse.served() - warehouse.ids == {"e1001"}
    assert warehouse.sizes["web"] == 0  # it may have been loaded
    warehouse.run(lookback=timedelta(minutes=7000))
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
@pytest.mark.parametrize("place", [10, 19, 39])
def test_a_late_row_among_new_ones_is_loaded_and_does_not_end_the_list(
    api: str, place: int
) -> None:
    session = serve(api)
    warehouse = loaded(session)
    rows = [event(1000 + n, n - 100) for n in range(50)]
    late = event(2000, 10_000, _time=rows[place]["dateCreated"])
    session.lists["events", "web"][:0] = [*rows, late]
    warehouse.run()
    assert warehouse.served() - warehouse.ids <= {"e2000"}
    # A list that has shown no order is exact: all its older rows are loaded already.
    assert place == 19 or api == "v1" or "e2000" in warehouse.ids


def test_rows_without_a_time_are_always_loaded() -> None:
    session = serve()
    session.order = lambda rows: rows
    session.lists["events", "web"][3]["dateCreated"] = None
    warehouse = Warehouse(session)
    warehouse.run(since=ago(9000), until=ago(8000))
    assert "e3" in warehouse.ids
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_the_copy_that_is_read_last_stays() -> None:
    """A row moves to the next page while the list is read, and has changed."""
    session = serve()
    rows = session.lists["events", "web"]

    def change() -> None:
        rows[19]["title"] = "changed"
        rows.append(event(1000, -1))

    at_request(session, 2, change)
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.rows["e19"]["title"] == "changed"


# `since`, `until`


@API
@pytest.mark.parametrize("later", [1000, 60, -100])
def test_a_later_since_leaves_no_gap(api: str, later: float) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    warehouse.run(since=ago(6000))
    rows = session.lists["events", "web"]
    rows[:0] = [event(1000 + n, n - 80) for n in range(80)]
    warehouse.run(since=ago(later))
    assert warehouse.ids == since_then(rows, 6000)


def since_then(rows: list[Row], minutes: float) -> set[str]:
    first = ago(minutes)
    return {r["id"] for r in rows if datetime.fromisoformat(r["dateCreated"]) >= first}


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_an_earlier_since_loads_the_part_that_is_missing(
    api: str, rows_per_load: int | None
) -> None:
    session = serve(api)
    rows = session.lists["events", "web"]
    warehouse = Warehouse(session)
    warehouse.run(since=ago(3000))
    for since in (6000, 12_000):
        before = len(warehouse.ids)
        warehouse.run(since=ago(since), rows_per_load=rows_per_load)
        assert warehouse.ids == since_then(rows, since)
        assert is_about(warehouse, len(warehouse.ids) - before)
    warehouse.run(rows_per_load=rows_per_load)
    assert warehouse.ids == warehouse.served()
    assert warehouse.run(since=ago(10)) == 1


def test_an_earlier_since_in_the_middle_of_a_first_load() -> None:
    session = serve(count=400)
    warehouse = Warehouse(session)
    fail_from(session, 14)
    warehouse.run(since=ago(30_000), rows_per_load=40)
    assert warehouse.errors
    mend(session)
    warehouse.run(rows_per_load=40)
    assert warehouse.ids == warehouse.served()


@API
def test_a_since_beyond_the_servers_clock_is_no_lasting_harm(api: str) -> None:
    session = serve(api)
    session.date = lambda: ago(0)
    warehouse = Warehouse(session)
    warehouse.run(since=ago(-60))
    assert not warehouse.ids
    warehouse.run()
    assert warehouse.ids == warehouse.served()
    session.lists["events", "web"].append(event(1000, -5))
    session.date = lambda: ago(-10)
    warehouse.run(since=ago(-60))
    assert warehouse.ids == warehouse.served()


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_reading_with_an_end_is_exact_and_keeps_no_bookmark(
    api: str, rows_per_load: int | None
) -> None:
    session = serve(api)
    rows = session.lists["events", "web"]
    warehouse = Warehouse(session)
    warehouse.run(since=ago(9000), until=ago(900), rows_per_load=rows_per_load)
    # `since` is inclusive, `until` is not.
    assert warehouse.ids == since_then(rows, 9000) - since_then(rows, 900)
    assert warehouse.bookmarks == {}
    assert (warehouse.loads > 1) is (rows_per_load is not None)
    loaded_since = loaded(session).bookmarks
    warehouse.bookmarks = {**loaded_since}
    rows[20]["title"] = "changed"
    warehouse.run(since=ago(9000), until=ago(900))
    assert warehouse.rows["e20"]["title"] == "changed"
    assert warehouse.bookmarks == loaded_since


@API
def test_a_reading_with_an_end_in_the_future_comes_to_its_end(api: str) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    warehouse.run(until=datetime.now(UTC) + DAY, rows_per_load=40, loads=20)
    assert warehouse.ids == warehouse.served()
    assert warehouse.loads < 10


def test_a_span_that_the_server_does_not_keep_is_empty() -> None:
    session = serve("sentry")
    session.kept_from = ago(9000)
    warehouse = Warehouse(session)
    warehouse.run(since=ago(20_000), until=ago(10_000))
    assert not warehouse.ids
    assert not warehouse.errors
    assert warehouse.client
    assert warehouse.client.kept_from
    warehouse.run(since=ago(20_000), until=ago(8000))
    assert len(warehouse.ids) == 12
    warehouse.run()
    assert warehouse.ids == since_then(session.lists["events", "web"], 9000)


# Pieces


@API
@pytest.mark.parametrize(("rows_per_load", "loads"), [(1, 12), (45, 5), (1000, 1)])
def test_a_list_in_pieces_asks_little_more_than_in_one(
    api: str, rows_per_load: int, loads: int
) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    whole = Warehouse(serve(api)).run()
    # Each piece asks for the top of the list, and for the page where it was left.
    again = 2 if api != "sentry" else 1
    requests = warehouse.run(rows_per_load=rows_per_load)
    assert loads / 2 <= warehouse.loads <= loads
    assert requests <= whole + again * (warehouse.loads - 1) + 1
    assert warehouse.ids == warehouse.served()
    assert is_about(warehouse, 200)
    assert warehouse.run() == 1


def let_requests_take(
    monkeypatch: pytest.MonkeyPatch, session: Session, seconds: float
) -> None:
    clock = SimpleNamespace(monotonic=lambda: seconds * len(session.requests))
    monkeypatch.setattr(workers, "time", clock)


def test_a_load_that_takes_long_ends_too(monkeypatch: pytest.MonkeyPatch) -> None:
    session = serve()
    let_requests_take(monkeypatch, session, 120)
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=10**6)
    assert 4 <= warehouse.loads <= 9
    assert warehouse.ids == warehouse.served()
    session.requests.clear()
    assert Warehouse(session).run() == 10  # in one load, if that is what is wanted


@API
def test_runs_of_one_piece_each_come_to_the_end(api: str) -> None:
    """As plain dlt has them."""
    session = serve(api, 60)
    rows = session.lists["events", "web"]
    warehouse = Warehouse(session)
    for number in range(12):
        warehouse.run(rows_per_load=20, loads=1, lookback=HOUR)
        rows.insert(0, event(1000 + number, -5 * number))
    warehouse.run(lookback=HOUR)
    assert warehouse.ids == warehouse.served()
    assert len(spans(warehouse)) == 1


@API
def test_rows_that_arrive_in_every_piece_do_not_keep_it_from_ending(api: str) -> None:
    session = serve(api)
    rows = session.lists["events", "web"]

    def grow(request: Request) -> None:
        number = len(session.requests)
        rows.extend(event(1000 + 2 * number + n, -0.5 * number) for n in range(2))

    session.before = grow
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=45) < 60
    mend(session)
    warehouse.run()
    assert len(rows) > 220
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("minutes", [90, 0.1])
def test_a_lookback_longer_than_a_piece_does_not_keep_it_from_ending(
    minutes: float,
) -> None:
    session = serve(every=minutes)
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=40, lookback=400 * DAY) <= 60
    assert warehouse.ids == warehouse.served()
    assert is_about(warehouse, 200)


# Failures and kills


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_reading_that_fails_at_any_request_is_resumed(
    api: str, rows_per_load: int | None
) -> None:
    whole = Warehouse(serve(api)).run()
    for number in range(1, whole + 1):
        session = serve(api)
        warehouse = Warehouse(session)
        fail_from(session, number)
        warehouse.run(rows_per_load=rows_per_load)
        assert isinstance(warehouse.errors["web"], HttpError)
        some = len(warehouse.ids)
        assert some == 0 if number == 1 else some > 0
        mend(session)
        session.lists["events", "web"] += [event(1000 + n, -n - 1) for n in range(25)]
        requests = warehouse.run(rows_per_load=rows_per_load)
        assert warehouse.ids == warehouse.served()
        assert is_about(warehouse, 225 - some)
        if rows_per_load is None:  # what was read is not read again
            assert some >= (number - 1) * 17
            # A first page is no place to resume; new rows shift the others.
            assert requests <= whole - (number - 1) + 2 + (3 if number != 2 else 4)


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_reading_that_is_killed_at_any_part_is_resumed_from_its_last_load(
    api: str, rows_per_load: int | None
) -> None:
    for number in range(1, 9):
        session = serve(api)
        warehouse, part = Warehouse(session), 0

        def kill(parts: int, number: int = number) -> bool:
            nonlocal part
            part += 1
            return part == number

        with pytest.raises(Killed):
            warehouse.run(rows_per_load=rows_per_load, kill=kill)
        before = len(warehouse.ids)
        assert rows_per_load or before == 0
        assert bool(warehouse.bookmarks) is bool(before)
        session.lists["events", "web"].append(event(1000, -1))
        warehouse.run(rows_per_load=rows_per_load)
        assert warehouse.ids == warehouse.served()
        assert is_about(warehouse, 201 - before)


@API
def test_a_page_that_always_fails_does_not_keep_new_rows_from_coming(api: str) -> None:
    session = serve(api)
    rows = session.lists["events", "web"]
    answer = session._answer

    def break_page(request: Request) -> Any:
        response = answer(request)
        if '"e150"' in response.text:
            response.status_code = 500
        return response

    session._answer = break_page  # type: ignore[method-assign]
    warehouse = Warehouse(session)
    for number in range(5):
        warehouse.run(lookback=HOUR, rows_per_load=(None, 60)[number % 2])
        assert warehouse.errors
        assert {f"e{1000 + n}" for n in range(number)} <= warehouse.ids
        assert {f"e{n}" for n in range(130)} <= warehouse.ids
        rows.insert(0, event(1000 + number, -number - 1))
    session._answer = answer  # type: ignore[method-assign]
    warehouse.run(lookback=HOUR)
    assert not warehouse.errors
    assert warehouse.ids == warehouse.served()


def test_a_record_that_cannot_be_read_does_not_keep_new_rows_from_coming() -> None:
    session = serve()
    rows = session.lists["events", "web"]
    del rows[130]["id"]
    warehouse = Warehouse(session)
    for number in range(4):
        warehouse.run(rows_per_load=60)
        assert isinstance(warehouse.errors["web"], UnexpectedAnswer)
        assert {f"e{n}" for n in range(120)} <= warehouse.ids
        assert {f"e{1000 + n}" for n in range(number)} <= warehouse.ids
        rows.insert(0, event(1000 + number, -number - 1))


# Page cursors that are resumed


def half(api: str = "v1") -> Warehouse:
    """Five pages are loaded, up to a failure."""
    session = serve(api)
    warehouse = Warehouse(session)
    fail_from(session, 6)
    warehouse.run()
    mend(session)
    assert 0 < len(warehouse.ids) <= 100
    assert len(spans(warehouse)) == 1
    return warehouse


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
@pytest.mark.parametrize("status", [400, 404, 410, 422, 500])
def test_a_page_cursor_that_is_refused_lets_the_list_be_read_from_its_first_page(
    api: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    warehouse = half(api)
    session, cursor = warehouse.session, spans(warehouse)[0][2]
    refused: list[Request] = []

    def refuse(request: Request) -> int | None:
        if request.params.get("cursor") != cursor or refused:
            return None
        refused.append(request)
        return status

    session.before = refuse
    # Once it has begun again, the list is not left before its end.
    assert warehouse.run(rows_per_load=1) == 1 + 1 + 10
    assert warehouse.loads == 1
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes == {"web": 100}  # what was loaded is skipped
    assert "reading the list from its first page" in caplog.text


def test_another_status_is_no_refusal_of_a_page_cursor() -> None:
    warehouse = half()
    for status in (403, 429, 503):
        fail_from(warehouse.session, 2, status)
        assert warehouse.run() == 2
        assert warehouse.errors
        assert len(warehouse.ids) == 100


def test_page_cursors_that_are_good_only_once_do_not_keep_a_load_from_ending() -> None:
    session = serve()
    used: set[str] = set()

    def refuse(request: Request) -> int | None:
        cursor = request.params.get("cursor")
        if cursor in used:
            return 400
        used.add(cursor) if cursor else used.clear()
        return None

    session.before = refuse
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=60) <= 20
    assert warehouse.ids == warehouse.served()


@API
@pytest.mark.parametrize("gone", [1, 25, 150])
def test_rows_that_are_deleted_between_two_loads_leave_no_gap(
    api: str, gone: int
) -> None:
    """They shift the page cursor, beyond rows that were not read yet."""
    warehouse = half(api)
    del warehouse.session.lists["events", "web"][:gone]
    warehouse.run(rows_per_load=40)
    assert warehouse.served() <= warehouse.ids


@API
def test_rows_of_one_time_that_are_deleted_between_two_loads_leave_no_gap(
    api: str,
) -> None:
    session = serve(api, 60, every=1)
    rows = session.lists["events", "web"]
    rows += [event(n, 100) for n in range(60, 160)]
    rows += [event(n, n) for n in range(160, 300)]
    warehouse = Warehouse(session)
    fail_from(session, 6)
    warehouse.run()
    mend(session)
    del rows[:25]
    warehouse.run(rows_per_load=40)
    assert warehouse.served() <= warehouse.ids


@API
def test_rows_that_arrived_between_two_loads_are_read_first(api: str) -> None:
    warehouse = half(api)
    session = warehouse.session
    session.lists["events", "web"] += [event(1000 + n, n - 100) for n in range(90)]
    warehouse.run(rows_per_load=40, loads=2)
    assert "e1000" in warehouse.ids
    warehouse.run()
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("number", range(2, 9))
def test_rows_that_are_deleted_while_pages_are_read_by_time_take_no_others_along(
    number: int,
) -> None:
    session = serve("sentry")
    rows = session.lists["events", "web"]

    def delete() -> None:
        del rows[5:30]

    at_request(session, number, delete)
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.served() <= warehouse.ids


@API
@pytest.mark.parametrize("rows_per_load", [None, 10])
def test_a_time_that_fills_pages_is_read_whole(
    api: str, rows_per_load: int | None
) -> None:
    session = serve(api, 30)
    rows = session.lists["events", "web"]
    rows += [event(100 + n, 2700) for n in range(70)]
    rows += [event(200 + n, 2800 + n) for n in range(30)]
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=rows_per_load)
    assert warehouse.ids == warehouse.served()
    if rows_per_load is None:  # resumed, rows of that time are not told apart
        assert warehouse.sizes == {"web": 130}


@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_server_that_ignores_the_time_is_paged_by_cursor(
    rows_per_load: int | None,
) -> None:
    session = serve("sentry")
    session.ignores_time = True
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=rows_per_load) <= 25
    assert warehouse.ids == warehouse.served()
    session.lists["events", "web"].append(event(1000, -1))
    assert warehouse.run() <= 2
    assert warehouse.ids == warehouse.served()


# Order


@pytest.mark.parametrize("order", [oldest_first, shuffled(7)])
def test_a_list_in_any_other_order_is_read_to_its_end_in_one_load(
    order: Callable[[list[Row]], list[Row]],
) -> None:
    session = serve()
    session.order = order
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=40) == 10
    assert warehouse.loads == 1
    assert warehouse.ids == warehouse.served()
    session.lists["events", "web"] += [event(1000 + n, -n) for n in range(50)]
    assert warehouse.run(lookback=HOUR) == 13
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes["web"] <= 50
    fail_from(session, 9)
    session.lists["events", "web"] += [event(2000 + n, -60 - n) for n in range(20)]
    warehouse.run()
    assert warehouse.errors
    mend(session)
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_an_oldest_first_list_that_begins_with_rows_of_one_time() -> None:
    session = serve(count=0)
    session.order = oldest_first
    rows = [event(n, 50_000) for n in range(60)] + events(100, start=100)
    session.lists["events", "web"] = rows
    warehouse = loaded(session)
    rows += [event(1000 + n, -n) for n in range(50)]
    warehouse.run()
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize(
    ("times", "ends"),
    [
        # Minutes ago of the rows of a page; what is loaded begins at 100.
        ([*range(20)], False),
        ([*range(19), 200], False),  # one old row does not end a list
        ([*range(18), 200, 300], True),
        ([*range(200, 220)], True),
        ([100] * 20, False),  # neither do rows of just that time
        ([200] * 20, False),  # equal times show no order
        ([*range(18), 300, 200], False),
        ([50, 200, 60, *range(200, 217)], True),  # one row arrived late
        ([*range(300, 280, -1)], False),
        ([None, *range(16), 200, None, 300], True),
        ([None] * 20, False),
    ],
)
def test_where_no_order_is_documented_the_page_has_to_show_it(
    times: list[float | None], ends: bool
) -> None:
    session = serve(count=0)
    session.order = lambda rows: rows
    session.lists["events", "web"] = [event(n, 100 + n) for n in range(200)]
    warehouse = loaded(session)
    page = [
        event(1000 + n, time or 0) | ({} if time is not None else {"dateCreated": None})
        for n, time in enumerate(times)
    ]
    session.page_size = len(page)
    session.lists["events", "web"][:0] = page
    requests = warehouse.run()
    assert (requests == 1) is ends
    # Of the rows that are not loaded, all are older.
    older = {f"e{1000 + n}" for n, time in enumerate(times) if time and time > 100}
    assert warehouse.served() - warehouse.ids <= older


def test_a_tenth_of_a_page_has_to_be_older() -> None:
    for older, requests in ((9, 2), (10, 1)):
        session = Session("v1", 100)
        session.lists["events", "web"] = [event(n, 100 + n) for n in range(200)]
        warehouse = loaded(session)
        new = [event(1000 + n, n / 2) for n in range(100 - older)]
        session.lists["events", "web"] += new
        # The row at the end of what is loaded is not older.
        session.lists["events", "web"].pop(0)
        assert warehouse.run() == requests


def test_a_page_of_one_row_does_not_end_a_list() -> None:
    session = serve(count=10)
    session.page_size = 1
    session.order = lambda rows: rows
    warehouse = loaded(session)
    rows = session.lists["events", "web"]
    rows[:0] = [event(100, 20_000), event(101, -1), event(102, -2)]
    warehouse.run()
    assert warehouse.served() - warehouse.ids <= {"e100"}


# Several projects


def two_projects(api: str) -> Session:
    session = serve(api)
    session.lists["events", "app"] = [
        row | {"projectID": "2"} for row in events(100, start=500)
    ]
    return session


@API
@pytest.mark.parametrize("workers", [1, 4])
def test_each_list_stands_alone(api: str, workers: int) -> None:
    session = two_projects(api)
    both = ["web", "app"]

    def refuse(request: Request) -> int | None:
        return 503 if request.project == "app" else None

    session.before = refuse
    warehouse = Warehouse(session)
    warehouse.run(both, rows_per_load=60, workers=workers)
    assert list(warehouse.errors) == ["app"]
    assert warehouse.ids == warehouse.served()
    mend(session)
    warehouse.run(both, rows_per_load=60, workers=workers)
    assert not warehouse.errors
    assert warehouse.ids == warehouse.served(*both)
    assert warehouse.sizes["web"] == 0
    assert is_about(warehouse, 100, "app")
    asked = len(session.requests)
    assert warehouse.run(["app"]) == 1
    assert warehouse.run(both, workers=workers) == 2
    assert {r.project for r in session.requests[asked:]} == {*both}


def test_a_list_that_has_come_to_its_end_is_not_asked_in_later_pieces() -> None:
    session = two_projects("v1")
    del session.lists["events", "app"][30:]
    warehouse = Warehouse(session)
    warehouse.run(["web", "app"], rows_per_load=60, workers=2)
    assert warehouse.loads > 2
    assert sum(r.project == "app" for r in session.requests) <= 4
    assert warehouse.ids == warehouse.served("web", "app")


def test_the_bookmarks_of_many_projects_are_small() -> None:
    session = Session("v1", 100)
    names = [f"p{n}" for n in range(50)]
    for number, name in enumerate(names):
        session.lists["events", name] = events(200, every=0.25, start=number * 1000)
    warehouse = Warehouse(session)
    for _ in range(2):
        warehouse.run(names, workers=4, lookback=HOUR)
    assert warehouse.ids == warehouse.served(*names)
    assert len(json.dumps(warehouse.bookmarks)) < 50 * 200


@API
@pytest.mark.parametrize("has_newer", [True, False])
def test_a_slug_that_was_given_to_another_project_is_another_list(
    api: str, has_newer: bool, caplog: pytest.LogCaptureFixture
) -> None:
    session = serve(api)
    warehouse = loaded(session)
    assert warehouse.bookmarks["web"]["project_id"] == "1"
    new = [
        event(1000 + n, 100 * n + (-1 if has_newer else 500), projectID="2")
        for n in range(50)
    ]
    session.lists["events", "web"] = new
    session.lists["project_detail", "web"] = [{"id": "2", "slug": "web"}]
    warehouse.run()
    assert warehouse.served() <= warehouse.ids
    assert warehouse.sizes == {"web": 50}
    assert warehouse.bookmarks["web"]["project_id"] == "2"
    assert "the slug now belongs to project 2 instead of 1" in caplog.text
    assert warehouse.run() <= 2


def test_a_list_without_rows_is_of_the_same_project_if_nothing_tells_otherwise() -> (
    None
):
    session = serve("sentry")
    warehouse = loaded(session)
    session.lists["events", "web"].clear()

    def refuse(request: Request) -> int | None:
        return 403 if request.table == "project_detail" else None

    session.before = refuse
    before = spans(warehouse)
    warehouse.run()
    assert not warehouse.errors
    assert spans(warehouse) == before


# Clocks


@API
@pytest.mark.parametrize("hours", [-5, 0, 5])
def test_a_span_never_ends_past_the_earlier_of_the_two_clocks(
    api: str, hours: int
) -> None:
    """To the client it looks as if the server lived hours before, or after, itself."""
    session = serve(api, 0)
    now = datetime.now(UTC)
    clock = now + timedelta(hours=hours)
    session.date = lambda: clock

    def at(number: int, minutes: float) -> Row:
        time = (clock - timedelta(minutes=minutes)).isoformat()
        return event(number, 0, dateCreated=time, dateReceived=time)

    rows = session.lists["events", "web"]
    rows += [at(n, 5 + 90 * n) for n in range(60)]
    rows.append(at(1000, -30))  # of the server's future
    warehouse = loaded(session, lookback=HOUR)
    end = datetime.fromisoformat(spans(warehouse)[0][1])
    assert min(now, clock) - HOUR <= end + max(timedelta(hours=hours), NOW)
    assert end <= min(datetime.now(UTC), clock)
    rows.append(at(1001, 50))
    warehouse.run(lookback=HOUR)
    assert warehouse.ids == warehouse.served()


def test_rows_of_the_future_are_new_once_and_hide_nothing() -> None:
    session = serve(count=30)
    rows = session.lists["events", "web"]
    rows.append(event(1000, -5 * 1440))
    warehouse = loaded(session)
    for number in range(3):
        rows.append(event(2000 + number, -number - 1))
        warehouse.run()
        assert warehouse.ids == warehouse.served()
        assert warehouse.sizes == {"web": 1}


def test_a_bookmark_of_a_clock_that_was_days_ahead_does_not_count() -> None:
    session = serve()
    warehouse = loaded(session)
    ahead = (datetime.now(UTC) + 3 * DAY).isoformat()
    warehouse.bookmarks["web"]["loaded"] = [[None, ahead, None]]
    session.lists["events", "web"] += [event(1000 + n, n - 100) for n in range(90)]
    warehouse.run()
    assert warehouse.ids == warehouse.served()
    assert datetime.fromisoformat(spans(warehouse)[0][1]) < datetime.now(UTC)


# Full refresh, releases, full scans


@API
@pytest.mark.parametrize("rows_per_load", [None, 60])
def test_a_full_refresh_is_the_same_as_an_empty_bookmark(
    api: str, rows_per_load: int | None
) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    first = warehouse.run(rows_per_load=rows_per_load)
    session.lists["events", "web"][150]["title"] = "changed"
    again = warehouse.run(full_refresh=True, rows_per_load=rows_per_load)
    assert again == first
    assert is_about(warehouse, 200)
    assert warehouse.rows["e150"]["title"] == "changed"


@API
def test_recent_releases_are_read_again(api: str) -> None:
    session = Session(api, SIZE)
    key = "version" if api == "glitchtip" else "id"
    releases: list[Row] = [
        {key: f"r{n}", "version": f"r{n}", "dateCreated": ago(1440 * n).isoformat()}
        for n in range(90)
    ]
    session.lists["releases", ""] = releases
    warehouse = Warehouse(session, "releases")
    assert warehouse.run() == 5
    for number in (12, 80):
        releases[number]["newGroups"] = 7
    assert warehouse.run() == 2
    groups = {row["version"]: row["new_groups"] for row in warehouse.rows.values()}
    assert (groups["r12"], groups["r80"]) == (7, None)
    assert warehouse.sizes == {"web": 0}


@API
def test_projects_are_read_whole_each_time(api: str) -> None:
    session = Session(api, SIZE)
    projects = [
        {"id": str(n), "slug": f"p{n}", "dateCreated": ago(60 * n).isoformat()}
        for n in range(50)
    ]
    session.lists["projects", ""] = projects
    warehouse = Warehouse(session, "projects")
    for number in range(3):
        assert warehouse.run() == 3
        assert len(warehouse.ids) == 50 + number
        assert warehouse.sizes == {"web": 1 if number else 50}
        assert warehouse.reread == {"web": 49 + number if number else 0}
        assert warehouse.bookmarks["web"].keys() == {"asked_at", "completed_at"}
        created = datetime.now(UTC).isoformat()
        projects.append({"id": f"n{number}", "slug": "n", "dateCreated": created})


# Sweeps


def serve_issues(api: str = "v1", count: int = 100) -> Session:
    """Issues on five pages, each last seen hours before the one above it."""
    session = Session(api, SIZE)
    session.lists["issues", "web"] = [issue(n, 600 * n) for n in range(count)]
    return session


def grow_old(warehouse: Warehouse, hours: float | None = 25) -> None:
    """Let the last sweep be so long ago; None: nobody knows of any."""
    for bookmark in warehouse.bookmarks.values():
        bookmark.pop("swept_at", None)
        if hours is not None:
            time = datetime.now(UTC) - timedelta(hours=hours)
            bookmark["swept_at"] = time.isoformat()


def resolve(session: Session, *places: int) -> None:
    """No event tells of it."""
    for place in places:
        session.lists["issues", "web"][place]["status"] = "resolved"


def check_issues(warehouse: Warehouse) -> None:
    """All that the server shows is loaded, as the server shows it."""
    rows = warehouse.session.lists["issues", "web"]
    loaded = {key: row["status"] for key, row in warehouse.rows.items()}
    assert {row["id"]: row["status"] for row in rows}.items() <= loaded.items()


def is_swept(warehouse: Warehouse, project: str = "web") -> bool:
    """The last complete reading began just now, and no other is under way."""
    bookmark = warehouse.bookmarks[project]
    age = datetime.now(UTC) - datetime.fromisoformat(bookmark["swept_at"])
    return abs(age) < HOUR and not bookmark.keys() & {"sweep", "sweep_began_at"}


@API
@pytest.mark.parametrize(
    ("hours", "sweep", "is_due"),
    [
        (0, DAY, False),
        (23, DAY, False),
        (25, 7 * DAY, False),
        (25, None, False),
        (25, DAY, True),
        (-25, DAY, True),  # a clock was wrong
        (None, DAY, True),  # a bookmark of an early version
        (0, NOW, True),
    ],
)
def test_a_change_without_an_event_is_found_by_a_sweep_when_it_is_due(
    api: str, hours: float | None, sweep: timedelta | None, is_due: bool
) -> None:
    session = serve_issues(api)
    warehouse = Warehouse(session, "issues")
    assert warehouse.run(sweep=sweep) == 5  # the first reading is of all
    assert is_swept(warehouse)
    grow_old(warehouse, hours)
    resolve(session, 0, 50, 99)
    requests = warehouse.run(sweep=sweep)
    # A page of what is new, and of what has moved to the top meanwhile.
    assert requests == (7 if is_due else 1)
    assert warehouse.sizes == {"web": 0}
    found = {key for key, row in warehouse.rows.items() if row["status"] == "resolved"}
    assert found == ({"i0", "i50", "i99"} if is_due else {"i0"})
    if is_due:
        assert is_swept(warehouse)
        assert warehouse.reread["web"] >= 100
        if sweep:
            assert warehouse.run(sweep=sweep) == 1


@API
@pytest.mark.parametrize("hours", [-9, 9])
def test_a_sweep_is_dated_by_our_own_clock(api: str, hours: int) -> None:
    session = serve_issues(api)
    session.date = lambda: datetime.now(UTC) + timedelta(hours=hours)
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    assert is_swept(warehouse)
    assert warehouse.run(sweep=DAY) == 1


@API
@pytest.mark.parametrize("rows_per_load", [None, 1, 45])
def test_a_sweep_in_pieces_asks_little_more_than_one_in_a_piece(
    api: str, rows_per_load: int | None
) -> None:
    session = serve_issues(api)
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    resolve(session, *range(100))
    requests = warehouse.run(sweep=NOW, rows_per_load=rows_per_load)
    assert requests <= 7 + 2 * (warehouse.loads - 1)
    assert (warehouse.loads > 1) is (rows_per_load is not None)
    check_issues(warehouse)
    assert is_swept(warehouse)


@pytest.mark.parametrize("rows_per_load", [1, 45])
def test_a_sweep_of_a_list_in_another_order_is_one_load(rows_per_load: int) -> None:
    session = serve_issues()
    session.order = oldest_first
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    resolve(session, *range(100))
    assert warehouse.run(sweep=NOW, rows_per_load=rows_per_load) <= 15
    assert warehouse.loads == 1
    check_issues(warehouse)
    assert is_swept(warehouse)


@API
@pytest.mark.parametrize("rows_per_load", [None, 20])
@pytest.mark.parametrize("is_killed", [True, False])
def test_a_sweep_that_ends_anywhere_is_resumed(
    api: str, rows_per_load: int | None, is_killed: bool
) -> None:
    for number in range(1, 8):
        session = serve_issues(api)
        warehouse = Warehouse(session, "issues")
        warehouse.run(sweep=DAY)
        grow_old(warehouse)
        resolve(session, *range(0, 100, 3))
        settings: dict[str, Any] = {"sweep": DAY, "rows_per_load": rows_per_load}
        if is_killed:
            part = 0

            def kill(parts: int, number: int = number) -> bool:
                nonlocal part
                part += 1
                return part == number

            with pytest.raises(Killed):
                warehouse.run(kill=kill, **settings)
        else:
            fail_from(session, number)
            warehouse.run(**settings)
            assert warehouse.errors
        assert not is_swept(warehouse)
        mend(session)
        session.lists["issues", "web"].append(issue(1000, -5))
        requests = warehouse.run(**settings)
        check_issues(warehouse)
        assert is_swept(warehouse)
        assert requests <= 7 + 2 * warehouse.loads
        assert warehouse.sizes["web"] == 1


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_an_issue_that_is_seen_again_while_a_sweep_reads_is_not_lost(
    api: str, rows_per_load: int | None
) -> None:
    """It jumps from a page that is still to come to one that was read."""
    for number in range(1, 9):
        session = serve_issues(api)
        warehouse = Warehouse(session, "issues")
        warehouse.run(sweep=DAY)
        row = session.lists["issues", "web"][70]

        def move(row: Row = row) -> None:
            row |= {"lastSeen": ago(-100).isoformat(), "status": "regressed"}

        at_request(session, number, move)
        warehouse.run(sweep=NOW, rows_per_load=rows_per_load)
        if number > 7 and rows_per_load is None:
            continue  # the sweep had come to its end
        check_issues(warehouse)


@API
@pytest.mark.parametrize("gone", [1, 20, 95])
def test_issues_that_are_deleted_between_two_pieces_of_a_sweep_leave_no_gap(
    api: str, gone: int
) -> None:
    session = serve_issues(api)
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    grow_old(warehouse)
    fail_from(session, 5)
    warehouse.run(sweep=DAY, rows_per_load=40)
    assert warehouse.errors
    mend(session)
    rows = session.lists["issues", "web"]
    del rows[:gone]
    resolve(session, *range(max(60 - gone, 0), len(rows)))
    warehouse.run(sweep=DAY, rows_per_load=40)
    check_issues(warehouse)
    assert is_swept(warehouse)


@API
def test_a_sweep_does_not_keep_what_is_new_from_coming(api: str) -> None:
    """It fails for ever: each run says so, and brings what is new."""
    session = serve_issues(api)
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    grow_old(warehouse)

    def refuse(request: Request) -> int | None:
        return 503 if "cursor" in request.params else None

    session.before = refuse
    for number in range(5):
        session.lists["issues", "web"].append(issue(1000 + number, -number - 1))
        warehouse.run(sweep=DAY, rows_per_load=40)
        assert warehouse.errors
        assert warehouse.ids == warehouse.served()
    mend(session)
    resolve(session, 99)
    warehouse.run(sweep=DAY, rows_per_load=40)
    check_issues(warehouse)


def test_several_projects_are_swept_each_for_itself() -> None:
    session = serve_issues()
    names = ["web", "app", "api"]
    for place, name in enumerate(names[1:], start=1):
        session.lists["issues", name] = [
            issue(1000 * place + n, 600 * n) for n in range(50)
        ]
    warehouse = Warehouse(session, "issues")
    warehouse.run(names, sweep=DAY)
    grow_old(warehouse)
    session.before = lambda request: 503 if request.project == "app" else None
    warehouse.run(names, sweep=DAY, rows_per_load=60)
    assert list(warehouse.errors) == ["app"]
    mend(session)
    assert [is_swept(warehouse, name) for name in names] == [True, False, True]
    before = len(session.requests)
    warehouse.run(names, sweep=DAY, rows_per_load=60)
    asked = [request.project for request in session.requests[before:]]
    assert (asked.count("web"), asked.count("app"), asked.count("api")) == (1, 5, 1)
    assert all(is_swept(warehouse, name) for name in names)


def test_a_full_refresh_is_a_sweep_too() -> None:
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    grow_old(warehouse)
    resolve(session, 99)
    assert warehouse.run(sweep=DAY, full_refresh=True, rows_per_load=40) <= 5 + 4
    check_issues(warehouse)
    assert is_swept(warehouse)


def test_a_sweep_that_is_asked_for_while_one_is_under_way_begins_again() -> None:
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    grow_old(warehouse)
    fail_from(session, 5)
    warehouse.run(sweep=DAY)
    mend(session)
    began = warehouse.bookmarks["web"]["sweep_began_at"]
    resolve(session, 5)  # which the sweep has read already
    warehouse.run(sweep=NOW)
    check_issues(warehouse)
    assert warehouse.bookmarks["web"]["swept_at"] > began


def test_a_first_reading_that_is_interrupted_is_a_sweep_too() -> None:
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    fail_from(session, 4)
    warehouse.run(sweep=DAY)
    assert warehouse.bookmarks["web"]["began_at"]
    mend(session)
    assert warehouse.run(sweep=DAY) == 1 + 3
    assert is_swept(warehouse)
    assert "began_at" not in warehouse.bookmarks["web"]
    # Asked for by the user, it begins once what is missing is loaded.
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    fail_from(session, 4)
    warehouse.run(sweep=DAY)
    mend(session)
    resolve(session, 50)
    warehouse.run(sweep=NOW)
    check_issues(warehouse)
    assert is_swept(warehouse)


def test_many_issues_within_the_lookback_do_not_keep_a_sweep_from_ending(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is read again at its end does not fit into one piece."""
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY, lookback=90 * DAY)
    for rows_per_load, seconds in ((40, 0), (10**6, 120)):
        let_requests_take(monkeypatch, session, seconds)
        resolve(session, 99)
        settings: dict[str, Any] = {"sweep": NOW, "rows_per_load": rows_per_load}
        assert warehouse.run(lookback=90 * DAY, **settings) < 60
        check_issues(warehouse)
        assert is_swept(warehouse)


def test_a_sweep_reads_as_far_back_as_the_list_is_loaded() -> None:
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    warehouse.run(since=ago(25_000))
    assert len(warehouse.ids) == 42
    assert warehouse.run(since=ago(25_000), sweep=NOW) <= 5
    assert len(warehouse.ids) == 42
    warehouse.run(sweep=NOW)
    check_issues(warehouse)


def test_a_bounded_reading_does_not_sweep_and_only_issues_are_swept() -> None:
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    grow_old(warehouse)
    assert warehouse.run(sweep=NOW, since=ago(3000), until=ago(0)) == 1
    assert not is_swept(warehouse)
    other = loaded(serve())
    assert other.run(sweep=NOW) == 1
    assert "swept_at" not in other.bookmarks["web"]
