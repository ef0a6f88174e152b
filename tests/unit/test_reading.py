"""Readers load lists from a server in memory into a warehouse in memory."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
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
"""The interval of a sweep that is always due."""
API = pytest.mark.parametrize("api", ["v1", "sentry", "glitchtip"])


def serve(api: str = "v1", rows: int = 200, every: float = 90) -> Session:
    """Return a server with ten pages of events by default."""
    session = Session(api, SIZE)
    session.lists["events", "web"] = events(rows, every)
    return session


def loaded(session: Session, **settings: Any) -> Warehouse:
    warehouse = Warehouse(session)
    warehouse.run(**settings)
    assert warehouse.ids == warehouse.served()
    return warehouse


def fail_from(session: Session, number: int, status: int = 503) -> None:
    """Refuse the nth request from now and all later ones."""
    first = len(session.requests) + number

    def before(request: Request) -> int | None:
        return status if len(session.requests) >= first else None

    session.before = before


def mend(session: Session) -> None:
    session.before = lambda request: None


def run_failing(warehouse: Warehouse, number: int, **settings: Any) -> None:
    """Run with a server that fails from the nth request, and repair the server."""
    fail_from(warehouse.session, number)
    warehouse.run(**settings)
    assert isinstance(warehouse.errors["web"], HttpError)
    mend(warehouse.session)


def run_killed(warehouse: Warehouse, number: int, **settings: Any) -> None:
    """Run until the nth part has been read."""
    parts = count(1)
    with pytest.raises(Killed):
        warehouse.run(kill=lambda _: next(parts) == number, **settings)


def at_request(session: Session, number: int, change: Callable[[], object]) -> None:
    """Call `change` before the nth request from now is answered."""
    last = len(session.requests) + number

    def before(request: Request) -> None:
        if len(session.requests) == last:
            change()

    session.before = before


def is_about(warehouse: Warehouse, rows: int, project: str = "web") -> bool:
    """Return whether this many rows were new, give or take one per resumed load."""
    return rows <= warehouse.sizes[project] <= rows + warehouse.loads


def spans(warehouse: Warehouse, project: str = "web") -> list[Any]:
    found: list[Any] = warehouse.bookmarks[project]["loaded"]
    return found


# New rows


@API
def test_loaded_rows_are_not_requested_again(api: str) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    # A page by time starts with rows of the last second of the previous page.
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
def test_reading_stops_at_the_first_page_that_is_loaded(api: str) -> None:
    session = serve(api)
    warehouse = loaded(session)
    (start, end, cursor), *others = spans(warehouse)
    assert (start, datetime.fromisoformat(end), cursor) == (None, ago(0), None)
    assert not others
    assert warehouse.run(lookback=30 * HOUR) <= 2
    # 20 rows of the last 30 hours, and older rows of their page.
    assert (warehouse.sizes["web"], SIZE < warehouse.reread["web"] <= 23) == (0, True)


@API
def test_an_empty_list_is_loaded_once_it_has_rows(api: str) -> None:
    session = serve(api, 0)
    warehouse = loaded(session)
    assert not warehouse.bookmarks["web"].get("loaded")
    session.lists["events", "web"] = events(50, start=10)
    warehouse.run()
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes == {"web": 50}


@API
def test_late_rows_within_the_lookback_are_loaded(api: str) -> None:
    session = serve(api)
    warehouse = loaded(session)
    session.lists["events", "web"] += [event(1000, 30), event(1001, 6000)]
    warehouse.run(lookback=HOUR)
    assert warehouse.served() - warehouse.ids == {"e1001"}
    assert warehouse.sizes["web"] == 0  # rows within the lookback do not count as new
    warehouse.run(lookback=timedelta(minutes=7000))
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
@pytest.mark.parametrize("place", [10, 19, 39])
def test_a_late_row_among_new_ones_does_not_end_the_list(api: str, place: int) -> None:
    session = serve(api)
    warehouse = loaded(session)
    rows = [event(1000 + n, n - 100) for n in range(50)]
    late = event(2000, 10_000, _time=rows[place]["dateCreated"])
    session.lists["events", "web"][:0] = [*rows, late]
    warehouse.run()
    assert warehouse.served() - warehouse.ids <= {"e2000"}
    # A list without a known order is read to the rows that are loaded.
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


def test_the_copy_read_last_wins() -> None:
    """A row changes and moves to the next page during a load."""
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
def test_an_earlier_since_loads_the_missing_part(
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


def test_since_can_be_moved_back_during_a_first_load() -> None:
    session = serve(rows=400)
    warehouse = Warehouse(session)
    run_failing(warehouse, 14, since=ago(30_000), rows_per_load=40)
    warehouse.run(rows_per_load=40)
    assert warehouse.ids == warehouse.served()


@API
def test_since_ahead_of_the_server_clock_hides_no_later_rows(api: str) -> None:
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
def test_a_bounded_run_is_exact_and_stores_no_bookmark(
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
def test_a_run_bounded_in_the_future_finishes(api: str) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    warehouse.run(until=datetime.now(UTC) + DAY, rows_per_load=40, loads=20)
    assert warehouse.ids == warehouse.served()
    assert warehouse.loads < 10


def test_a_bounded_run_before_retention_is_empty() -> None:
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
def test_loading_in_pieces_takes_few_more_requests(
    api: str, rows_per_load: int, loads: int
) -> None:
    session = serve(api)
    warehouse = Warehouse(session)
    whole = Warehouse(serve(api)).run()
    # Each piece requests the top of the list, and the page to resume at.
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


def test_a_load_ends_after_five_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    session = serve()
    let_requests_take(monkeypatch, session, 120)
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=10**6)
    assert 4 <= warehouse.loads <= 9
    assert warehouse.ids == warehouse.served()
    session.requests.clear()
    assert Warehouse(session).run() == 10  # one load without a limit


@API
def test_repeated_runs_of_one_piece_finish_the_list(api: str) -> None:
    """As with plain dlt."""
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
def test_a_load_finishes_if_rows_arrive_in_every_piece(api: str) -> None:
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
def test_a_load_finishes_if_the_lookback_is_longer_than_a_piece(minutes: float) -> None:
    session = serve(every=minutes)
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=40, lookback=400 * DAY) <= 60
    assert warehouse.ids == warehouse.served()
    assert is_about(warehouse, 200)


# Failures and kills


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_load_that_fails_at_any_request_is_resumed(
    api: str, rows_per_load: int | None
) -> None:
    whole = Warehouse(serve(api)).run()
    for number in range(1, whole + 1):
        session = serve(api)
        warehouse = Warehouse(session)
        run_failing(warehouse, number, rows_per_load=rows_per_load)
        some = len(warehouse.ids)
        assert some == 0 if number == 1 else some > 0
        session.lists["events", "web"] += [event(1000 + n, -n - 1) for n in range(25)]
        requests = warehouse.run(rows_per_load=rows_per_load)
        assert warehouse.ids == warehouse.served()
        assert is_about(warehouse, 225 - some)
        if rows_per_load is None:  # loaded pages are not requested again
            assert some >= (number - 1) * 17
            # The first page cannot be resumed, and new rows shift the others.
            assert requests <= whole - (number - 1) + 2 + (3 if number != 2 else 4)


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_load_killed_at_any_moment_is_resumed(
    api: str, rows_per_load: int | None
) -> None:
    for number in range(1, 9):
        session = serve(api)
        warehouse = Warehouse(session)
        run_killed(warehouse, number, rows_per_load=rows_per_load)
        before = len(warehouse.ids)
        assert rows_per_load or before == 0
        assert bool(warehouse.bookmarks) is bool(before)
        session.lists["events", "web"].append(event(1000, -1))
        warehouse.run(rows_per_load=rows_per_load)
        assert warehouse.ids == warehouse.served()
        assert is_about(warehouse, 201 - before)


@API
def test_new_rows_are_loaded_if_a_page_always_fails(api: str) -> None:
    session = serve(api)
    rows = session.lists["events", "web"]
    rows[150]["_broken"] = True
    broken = rows[150]
    warehouse = Warehouse(session)
    for number in range(5):
        warehouse.run(lookback=HOUR, rows_per_load=(None, 60)[number % 2])
        assert warehouse.errors
        assert {f"e{1000 + n}" for n in range(number)} <= warehouse.ids
        assert {f"e{n}" for n in range(130)} <= warehouse.ids
        rows.insert(0, event(1000 + number, -number - 1))
    del broken["_broken"]
    warehouse.run(lookback=HOUR)
    assert not warehouse.errors
    assert warehouse.ids == warehouse.served()


def test_new_rows_are_loaded_if_a_record_cannot_be_read() -> None:
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


# Resuming at a page cursor


def half(api: str = "v1") -> Warehouse:
    """Return a warehouse with five of ten pages, whose load then failed."""
    warehouse = Warehouse(serve(api))
    run_failing(warehouse, 6)
    assert 0 < len(warehouse.ids) <= 100
    assert len(spans(warehouse)) == 1
    return warehouse


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
@pytest.mark.parametrize("status", [400, 404, 410, 422, 500])
def test_a_refused_page_cursor_restarts_the_list(
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
    # A restarted list is read to its end in one load.
    assert warehouse.run(rows_per_load=1) == 1 + 1 + 10
    assert warehouse.loads == 1
    assert warehouse.ids == warehouse.served()
    assert warehouse.sizes == {"web": 100}  # loaded rows are skipped
    assert "reading the list from its first page" in caplog.text


def test_other_statuses_do_not_restart_the_list() -> None:
    warehouse = half()
    for status in (403, 429, 503):
        fail_from(warehouse.session, 2, status)
        assert warehouse.run() == 2
        assert warehouse.errors
        assert len(warehouse.ids) == 100


def test_a_load_finishes_if_page_cursors_are_valid_only_once() -> None:
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
def test_rows_deleted_between_two_loads_leave_no_gap(api: str, gone: int) -> None:
    """They move the page cursor past rows that were not read yet."""
    warehouse = half(api)
    del warehouse.session.lists["events", "web"][:gone]
    warehouse.run(rows_per_load=40)
    assert warehouse.served() <= warehouse.ids


@API
def test_rows_with_equal_times_leave_no_gap_if_others_are_deleted(api: str) -> None:
    session = serve(api, 60, every=1)
    rows = session.lists["events", "web"]
    rows += [event(n, 100) for n in range(60, 160)]
    rows += [event(n, n) for n in range(160, 300)]
    warehouse = Warehouse(session)
    run_failing(warehouse, 6)
    del rows[:25]
    warehouse.run(rows_per_load=40)
    assert warehouse.served() <= warehouse.ids


@API
def test_rows_that_arrive_between_two_loads_are_read_first(api: str) -> None:
    warehouse = half(api)
    session = warehouse.session
    session.lists["events", "web"] += [event(1000 + n, n - 100) for n in range(90)]
    warehouse.run(rows_per_load=40, loads=2)
    assert "e1000" in warehouse.ids
    warehouse.run()
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("number", range(2, 9))
def test_rows_deleted_during_a_load_by_time_hide_no_others(number: int) -> None:
    session = serve("sentry")
    rows = session.lists["events", "web"]
    at_request(session, number, lambda: rows.__delitem__(slice(5, 30)))
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.served() <= warehouse.ids


@API
@pytest.mark.parametrize("rows_per_load", [None, 10])
def test_rows_with_equal_times_that_fill_pages_are_all_loaded(
    api: str, rows_per_load: int | None
) -> None:
    session = serve(api, 30)
    rows = session.lists["events", "web"]
    rows += [event(100 + n, 2700) for n in range(70)]
    rows += [event(200 + n, 2800 + n) for n in range(30)]
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=rows_per_load)
    assert warehouse.ids == warehouse.served()
    if rows_per_load is None:  # a resumed load counts rows of that time again
        assert warehouse.sizes == {"web": 130}


@pytest.mark.parametrize("rows", [0, 200])
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_a_server_that_ignores_time_filters_is_paged_by_cursor(
    rows_per_load: int | None, rows: int
) -> None:
    session = serve("sentry", rows)
    session.ignores_time = True
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=rows_per_load) <= 25
    assert warehouse.ids == warehouse.served()
    session.lists["events", "web"].append(event(1000, -1))
    assert warehouse.run() <= 2
    assert warehouse.ids == warehouse.served()


# Order


@pytest.mark.parametrize("order", [oldest_first, shuffled(7)])
def test_a_list_in_another_order_is_read_to_its_end_in_one_load(
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
    session.lists["events", "web"] += [event(2000 + n, -60 - n) for n in range(20)]
    run_failing(warehouse, 9)
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_an_oldest_first_list_can_start_with_rows_of_equal_times() -> None:
    session = serve(rows=0)
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
        # Ages of the rows of a page in minutes; rows from 100 on are loaded.
        ([*range(20)], False),
        ([*range(19), 200], False),  # one old row does not end a list
        ([*range(18), 200, 300], True),
        ([*range(200, 220)], True),
        ([100] * 20, False),  # nor do rows of exactly that time
        ([200] * 20, False),  # equal times show no order
        ([*range(18), 300, 200], False),
        ([50, 200, 60, *range(200, 217)], True),  # one row arrived late
        ([*range(300, 280, -1)], False),
        ([None, *range(16), 200, None, 300], True),
        ([None] * 20, False),
    ],
)
def test_a_page_must_show_that_the_list_is_newest_first(
    times: list[float | None], ends: bool
) -> None:
    session = serve(rows=0)
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
    # Only older rows may be missing.
    older = {f"e{1000 + n}" for n, time in enumerate(times) if time and time > 100}
    assert warehouse.served() - warehouse.ids <= older


def test_a_tenth_of_a_page_must_be_older_to_end_a_list() -> None:
    for older, requests in ((9, 2), (10, 1)):
        session = Session("v1", 100)
        session.lists["events", "web"] = [event(n, 100 + n) for n in range(200)]
        warehouse = loaded(session)
        new = [event(1000 + n, n / 2) for n in range(100 - older)]
        session.lists["events", "web"] += new
        # The newest loaded row does not count as older.
        session.lists["events", "web"].pop(0)
        assert warehouse.run() == requests


def test_a_page_of_one_row_does_not_end_a_list() -> None:
    session = serve(rows=10)
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
def test_a_failing_list_does_not_affect_others(api: str, workers: int) -> None:
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


def test_an_empty_list_keeps_its_bookmark_if_the_project_cannot_be_read() -> None:
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
    """The clock of the server is hours behind or ahead."""
    session = serve(api, 0)
    now = datetime.now(UTC)
    clock = now + timedelta(hours=hours)
    session.date = lambda: clock

    def at(number: int, minutes: float) -> Row:
        time = (clock - timedelta(minutes=minutes)).isoformat()
        return event(number, 0, dateCreated=time, dateReceived=time)

    rows = session.lists["events", "web"]
    rows += [at(n, 5 + 90 * n) for n in range(60)]
    rows.append(at(1000, -30))  # in the future of the server
    warehouse = loaded(session, lookback=HOUR)
    end = datetime.fromisoformat(spans(warehouse)[0][1])
    assert min(now, clock) - HOUR <= end + max(timedelta(hours=hours), NOW)
    assert end <= min(datetime.now(UTC), clock)
    rows.append(at(1001, 50))
    warehouse.run(lookback=HOUR)
    assert warehouse.ids == warehouse.served()


def test_rows_dated_in_the_future_are_new_once_and_hide_no_others() -> None:
    session = serve(rows=30)
    rows = session.lists["events", "web"]
    rows.append(event(1000, -5 * 1440))
    warehouse = loaded(session)
    for number in range(3):
        rows.append(event(2000 + number, -number - 1))
        warehouse.run()
        assert warehouse.ids == warehouse.served()
        assert warehouse.sizes == {"web": 1}


def test_a_bookmark_in_the_future_is_ignored() -> None:
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
def test_a_full_refresh_reads_everything_again(
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
def test_projects_are_a_full_scan_each_time(api: str) -> None:
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
    """Return a server with five pages of issues, ten hours apart."""
    session = Session(api, SIZE)
    session.lists["issues", "web"] = [issue(n, 600 * n) for n in range(count)]
    return session


def swept(api: str = "v1", **settings: Any) -> Warehouse:
    """Return a warehouse into which all issues have been loaded."""
    warehouse = Warehouse(serve_issues(api), "issues")
    warehouse.run(sweep=DAY, **settings)
    return warehouse


def grow_old(warehouse: Warehouse, hours: float | None = 25) -> None:
    """Move the last sweep back by this time; None: there has been none."""
    for bookmark in warehouse.bookmarks.values():
        bookmark.pop("swept_at", None)
        if hours is not None:
            time = datetime.now(UTC) - timedelta(hours=hours)
            bookmark["swept_at"] = time.isoformat()


def resolve(warehouse: Warehouse, *places: int) -> None:
    """Change issues without an event."""
    for place in places:
        warehouse.session.lists["issues", "web"][place]["status"] = "resolved"


def check_issues(warehouse: Warehouse) -> None:
    """Check that all issues are loaded in their current state."""
    rows = warehouse.session.lists["issues", "web"]
    loaded = {key: row["status"] for key, row in warehouse.rows.items()}
    assert {row["id"]: row["status"] for row in rows}.items() <= loaded.items()


def is_swept(warehouse: Warehouse, project: str = "web") -> bool:
    """Return whether the last sweep was completed just now, and none is unfinished."""
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
def test_a_sweep_that_is_due_finds_changes_without_events(
    api: str, hours: float | None, sweep: timedelta | None, is_due: bool
) -> None:
    session = serve_issues(api)
    warehouse = Warehouse(session, "issues")
    assert warehouse.run(sweep=sweep) == 5  # the first load reads all issues
    assert is_swept(warehouse)
    grow_old(warehouse, hours)
    resolve(warehouse, 0, 50, 99)
    requests = warehouse.run(sweep=sweep)
    # Plus one page of new rows before and one after the sweep.
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
def test_a_sweep_is_dated_by_the_local_clock(api: str, hours: int) -> None:
    session = serve_issues(api)
    session.date = lambda: datetime.now(UTC) + timedelta(hours=hours)
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    assert is_swept(warehouse)
    assert warehouse.run(sweep=DAY) == 1


@API
@pytest.mark.parametrize("rows_per_load", [None, 1, 45])
def test_sweeping_in_pieces_takes_few_more_requests(
    api: str, rows_per_load: int | None
) -> None:
    warehouse = swept(api)
    resolve(warehouse, *range(100))
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
    resolve(warehouse, *range(100))
    assert warehouse.run(sweep=NOW, rows_per_load=rows_per_load) <= 15
    assert warehouse.loads == 1
    check_issues(warehouse)
    assert is_swept(warehouse)


@API
@pytest.mark.parametrize("rows_per_load", [None, 20])
@pytest.mark.parametrize("is_killed", [True, False])
def test_an_interrupted_sweep_is_resumed(
    api: str, rows_per_load: int | None, is_killed: bool
) -> None:
    for number in range(1, 8):
        warehouse = swept(api)
        grow_old(warehouse)
        resolve(warehouse, *range(0, 100, 3))
        settings: dict[str, Any] = {"sweep": DAY, "rows_per_load": rows_per_load}
        (run_killed if is_killed else run_failing)(warehouse, number, **settings)
        assert not is_swept(warehouse)
        warehouse.session.lists["issues", "web"].append(issue(1000, -5))
        requests = warehouse.run(**settings)
        check_issues(warehouse)
        assert is_swept(warehouse)
        assert requests <= 7 + 2 * warehouse.loads
        assert warehouse.sizes["web"] == 1


@API
@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_an_issue_seen_again_during_a_sweep_is_not_lost(
    api: str, rows_per_load: int | None
) -> None:
    """It moves from a page not read yet to one already read."""
    for number in range(1, 9):
        warehouse = swept(api)
        row = warehouse.session.lists["issues", "web"][70]

        def move(row: Row = row) -> None:
            row |= {"lastSeen": ago(-100).isoformat(), "status": "regressed"}

        at_request(warehouse.session, number, move)
        warehouse.run(sweep=NOW, rows_per_load=rows_per_load)
        if number > 7 and rows_per_load is None:
            continue  # the sweep was already finished
        check_issues(warehouse)


@API
@pytest.mark.parametrize("gone", [1, 20, 95])
def test_issues_deleted_between_two_pieces_of_a_sweep_leave_no_gap(
    api: str, gone: int
) -> None:
    warehouse = swept(api)
    grow_old(warehouse)
    run_failing(warehouse, 5, sweep=DAY, rows_per_load=40)
    rows = warehouse.session.lists["issues", "web"]
    del rows[:gone]
    resolve(warehouse, *range(max(60 - gone, 0), len(rows)))
    warehouse.run(sweep=DAY, rows_per_load=40)
    check_issues(warehouse)
    assert is_swept(warehouse)


@API
def test_a_failing_sweep_does_not_block_new_rows(api: str) -> None:
    """It fails in every run; each reports it and loads new rows."""
    warehouse = swept(api)
    session = warehouse.session
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
    resolve(warehouse, 99)
    warehouse.run(sweep=DAY, rows_per_load=40)
    check_issues(warehouse)


def test_each_project_is_swept_separately() -> None:
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


def test_a_full_refresh_counts_as_a_sweep() -> None:
    warehouse = swept()
    grow_old(warehouse)
    resolve(warehouse, 99)
    assert warehouse.run(sweep=DAY, full_refresh=True, rows_per_load=40) <= 5 + 4
    check_issues(warehouse)
    assert is_swept(warehouse)


def test_requesting_a_sweep_restarts_an_unfinished_one() -> None:
    warehouse = swept()
    grow_old(warehouse)
    run_failing(warehouse, 5, sweep=DAY)
    began = warehouse.bookmarks["web"]["sweep_began_at"]
    resolve(warehouse, 5)  # already read by the sweep
    warehouse.run(sweep=NOW)
    check_issues(warehouse)
    assert warehouse.bookmarks["web"]["swept_at"] > began


def test_an_interrupted_first_load_counts_as_a_sweep() -> None:
    warehouse = Warehouse(serve_issues(), "issues")
    run_failing(warehouse, 4, sweep=DAY)
    assert warehouse.bookmarks["web"]["began_at"]
    assert warehouse.run(sweep=DAY) == 1 + 3
    assert is_swept(warehouse)
    assert "began_at" not in warehouse.bookmarks["web"]
    # A requested sweep starts once the missing rows are loaded.
    warehouse = Warehouse(serve_issues(), "issues")
    run_failing(warehouse, 4, sweep=DAY)
    resolve(warehouse, 50)
    warehouse.run(sweep=NOW)
    check_issues(warehouse)
    assert is_swept(warehouse)


def test_a_sweep_finishes_with_many_issues_within_the_lookback(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rows to read again at its end do not fit into one piece."""
    warehouse = swept(lookback=90 * DAY)
    for rows_per_load, seconds in ((40, 0), (10**6, 120)):
        let_requests_take(monkeypatch, warehouse.session, seconds)
        resolve(warehouse, 99)
        settings: dict[str, Any] = {"sweep": NOW, "rows_per_load": rows_per_load}
        assert warehouse.run(lookback=90 * DAY, **settings) < 60
        check_issues(warehouse)
        assert is_swept(warehouse)


def test_a_sweep_covers_only_the_loaded_range() -> None:
    session = serve_issues()
    warehouse = Warehouse(session, "issues")
    warehouse.run(since=ago(25_000))
    assert len(warehouse.ids) == 42
    assert warehouse.run(since=ago(25_000), sweep=NOW) <= 5
    assert len(warehouse.ids) == 42
    warehouse.run(sweep=NOW)
    check_issues(warehouse)


def test_bounded_runs_do_not_sweep_and_only_issues_are_swept() -> None:
    warehouse = swept()
    grow_old(warehouse)
    assert warehouse.run(sweep=NOW, since=ago(3000), until=ago(0)) == 1
    assert not is_swept(warehouse)
    other = loaded(serve())
    assert other.run(sweep=NOW) == 1
    assert "swept_at" not in other.bookmarks["web"]
