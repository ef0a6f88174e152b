"""What servers and users really do to a list, one situation a test."""

import random
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from typing import Any

import pytest

from analytics_pipeline import workers
from analytics_pipeline.errors import ApiError
from tests.memory import (
    HOUR,
    NOW,
    Request,
    Session,
    Warehouse,
    ago,
    event,
    events,
    issue,
    oldest_first,
)

DAY = timedelta(days=1)


def stored(api: str = "v1", count: int = 100, every: float = 90) -> Warehouse:
    """A warehouse that has loaded some events of one project."""
    session = Session(api)
    session.lists["events", "web"] = events(count, every)
    warehouse = Warehouse(session)
    warehouse.run()
    return warehouse


def once(change: Callable[[], object], on: int) -> Callable[[Request], None]:
    """Do something after the request for events of this number."""
    numbers = iter(range(1, 10_000))

    def after(request: Request) -> None:
        if request.table == "events" and next(numbers) == on:
            change()

    return after


# Sentry, which is paged by time


def test_events_that_are_deleted_while_pages_are_read_take_no_others_along() -> None:
    session = Session("sentry")
    rows = session.lists["events", "web"] = events(60)
    session.after = once(lambda: rows.__delitem__(slice(5, 10)), on=1)
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.served() <= warehouse.ids


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("place", range(15, 26))
def test_an_event_that_shows_another_time_hides_no_others(
    hours: float, place: int
) -> None:
    """The server goes by a time that is an hour earlier, or later."""
    session = Session("sentry")
    rows = session.lists["events", "web"] = events(103, every=5)
    rows[place]["_time"] = rows[place]["dateCreated"]
    rows[place]["dateCreated"] = ago(place * 5 - hours * 60).isoformat()
    warehouse = Warehouse(session)
    warehouse.run(since=ago(70))
    warehouse.run(rows_per_load=20, loads=2)
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_late_events_in_pages_of_ten_do_not_stop_paging_by_time() -> None:
    session = Session("sentry", page_size=10)
    rows = session.lists["events", "web"] = events(103, every=5)
    late = [event(1000 + n, 152 + n) for n in range(3)]
    session.after = once(lambda: rows.extend(late), on=2)
    warehouse = Warehouse(session)
    assert warehouse.run() <= 13
    assert warehouse.ids == warehouse.served()
    assert not any("cursor" in request.params for request in session.requests)


@pytest.mark.parametrize("seed", range(40))
def test_a_server_of_which_every_second_answer_is_an_error(seed: int) -> None:
    dice = random.Random(seed)
    session = Session("sentry")
    session.lists["events", "web"] = events(400)
    # After three retries; a reader sees only what is left of the errors.
    session.before = lambda request: 500 if dice.random() < 1 / 16 else None
    warehouse = Warehouse(session)
    for _ in range(200):
        warehouse.run(rows_per_load=dice.choice([None, 50]))
        if not warehouse.errors:
            break
    assert warehouse.ids == warehouse.served()


def test_an_event_that_is_odd_and_alone_on_a_page_hides_no_others() -> None:
    """The others of its second have come with the page before."""
    session = Session("sentry")
    rows = session.lists["events", "web"] = [event(0, 0)]
    rows += [event(1 + n, 10) for n in range(19)]
    rows.append(event(500, 60 * 24 * 30, _time=ago(10).isoformat()))
    rows += [event(1000 + n, 11 + n) for n in range(100)]
    warehouse = Warehouse(session)
    warehouse.run(since=NOW - 7 * DAY)
    assert warehouse.ids == warehouse.served()
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=21)
    assert warehouse.ids == warehouse.served()


def test_a_project_that_is_added_takes_a_request_for_each_page() -> None:
    session = Session("sentry", page_size=100)
    session.lists["events", "web"] = events(50)
    warehouse = Warehouse(session)
    warehouse.run()
    session.lists["events", "app"] = events(250, start=1000)
    assert warehouse.run(["web", "app"]) == 1 + 3
    assert warehouse.ids == warehouse.served("web", "app")


@pytest.mark.parametrize("earlier_since", [False, True])
def test_a_span_before_what_the_server_keeps_is_empty(earlier_since: bool) -> None:
    session = Session("sentry")
    session.lists["events", "web"] = events(50)
    session.kept_from = NOW - 90 * DAY
    warehouse = Warehouse(session)
    if earlier_since:
        session.kept_from = ago(20 * 90)
        warehouse.run(since=ago(30 * 90))
        session.kept_from = NOW
        assert warehouse.run(since=ago(50 * 90)) == 1 + 11
        assert warehouse.run(since=ago(50 * 90)) == 1
    else:
        since, until = NOW - 200 * DAY, NOW - 199 * DAY
        assert warehouse.run(since=since, until=until) == 11
        assert not warehouse.ids
    assert not warehouse.errors
    assert warehouse.client
    assert warehouse.client.kept_from


def test_a_refused_window_of_a_server_in_trouble_is_a_failure() -> None:
    session = Session("sentry")
    session.lists["events", "web"] = events(50)
    session.before = lambda request: 500
    warehouse = Warehouse(session)
    warehouse.run(since=ago(3000), until=ago(1000))
    assert "500" in str(warehouse.errors["web"])


@pytest.mark.parametrize("rows_per_load", [None, 20])
@pytest.mark.parametrize(
    "places", [[0], [7], [19], [20], [99], [7, 8], [5, 50, 95], [0, 99]]
)
def test_an_event_that_breaks_its_page_keeps_no_others_away(
    places: list[int], rows_per_load: int | None
) -> None:
    session = Session("sentry")
    rows = session.lists["events", "web"] = events(100)
    broken = [rows[place] for place in places]
    for row in broken:
        row["_broken"] = True
    warehouse = Warehouse(session)
    requests = warehouse.run(rows_per_load=rows_per_load, lookback=HOUR)
    assert requests < 20 + 45 * len(broken) * warehouse.loads
    assert warehouse.served() - warehouse.ids == {row["id"] for row in broken}
    for row in broken:
        time = datetime.fromisoformat(row["dateCreated"])
        assert f"{time:%Y-%m-%d %H:%M:%S}" in str(warehouse.errors["web"])

    rows[:0] = [event(1000 + n, -1 - n) for n in (2, 1, 0)]
    assert warehouse.run(lookback=HOUR) < 20 + 20 * len(broken)
    assert warehouse.served() - warehouse.ids == {row["id"] for row in broken}
    assert "500" in str(warehouse.errors["web"])

    for row in broken:
        del row["_broken"]
    warehouse.run(lookback=HOUR)
    assert (warehouse.ids, warehouse.errors) == (warehouse.served(), {})
    assert warehouse.run(lookback=HOUR) == 1


def test_an_event_that_breaks_its_page_in_a_span_with_an_end() -> None:
    session = Session("sentry")
    rows = session.lists["events", "web"] = events(100)
    rows[50]["_broken"] = True
    warehouse = Warehouse(session)
    warehouse.run(since=ago(80 * 90), until=ago(20 * 90))
    assert len(warehouse.ids) == 59
    assert "500" in str(warehouse.errors["web"])


@pytest.mark.parametrize("count", [0, 300])
def test_a_server_that_ignores_time_is_read_by_page_cursors(count: int) -> None:
    session = Session("sentry")
    session.ignores_time = True
    rows = session.lists["events", "web"] = events(count)
    warehouse = Warehouse(session)
    assert warehouse.run() <= count / 20 + 2
    rows[:0] = events(45, every=-1, start=1000)
    assert warehouse.run() <= 5
    assert warehouse.run() == 1
    assert warehouse.ids == warehouse.served()


def test_a_second_with_more_events_than_a_page_is_read_by_page_cursor() -> None:
    session = Session("sentry")
    rows = session.lists["events", "web"] = events(100)
    rows += [event(1000 + n, 60) for n in range(90)]
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=30)
    assert warehouse.ids == warehouse.served()


def test_the_pages_of_a_long_list_are_asked_by_time() -> None:
    session = Session("sentry")
    session.lists["events", "web"] = events(1000)
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.ids == warehouse.served()
    assert not any("cursor" in request.params for request in session.requests)


# Late rows, order, clocks


@pytest.mark.parametrize("minutes", [1, 10_000])
@pytest.mark.parametrize("place", [7, 19, 20, 45])
def test_a_late_row_among_newer_ones_is_loaded(minutes: float, place: int) -> None:
    """Beyond the lookback, also as the last row of a page that is not the last one."""
    warehouse = stored()
    rows = warehouse.session.lists["events", "web"]
    rows[:0] = events(60, every=-1, start=1000)[::-1]
    rows.insert(place, event(2000, minutes))
    warehouse.session.order = list
    assert warehouse.run() == 4
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("place", range(95, 105))
def test_a_row_that_shows_a_later_time_where_a_load_ends_is_loaded(place: int) -> None:
    """The list is in the order in which its rows arrived."""
    session = Session()
    rows = session.lists["events", "web"] = events(200, every=30)
    rows[place]["_time"] = rows[place]["dateCreated"]
    rows[place]["dateCreated"] = ago(place * 30 - 75).isoformat()
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=20)
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("api", ["sentry", "glitchtip"])
def test_a_lookback_that_takes_longer_than_a_load_is_read_a_few_times_only(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All rows of 60 pages lie within it, and a load has time for ten pages."""
    session = Session(api, page_size=10)
    session.lists["events", "web"] = events(600, every=0.1)
    seconds = 0.0

    def pass_time(request: Request) -> None:
        nonlocal seconds
        seconds += 30.0

    session.before = pass_time
    clock = SimpleNamespace(monotonic=lambda: seconds)
    monkeypatch.setattr(workers, "time", clock)
    warehouse = Warehouse(session)
    assert warehouse.run(rows_per_load=100_000, lookback=HOUR) < 3 * 60
    assert warehouse.ids == warehouse.served()


def test_a_late_row_within_the_lookback_is_loaded_also_after_a_failure() -> None:
    """The page that held it failed; the next run's lookback begins later."""
    warehouse = stored(every=1)
    session = warehouse.session
    rows = session.lists["events", "web"]
    rows += events(30, every=-1, start=1000)
    late = event(2000, 50)
    rows.append(late)
    session.before = lambda r: 503 if r.params.get("cursor") == "60" else None
    warehouse.run(lookback=HOUR)
    assert warehouse.errors
    assert "e2000" not in warehouse.ids
    session.before = lambda request: None
    rows += events(120, every=-1, start=3000)
    warehouse.run(lookback=HOUR)
    assert "e2000" in warehouse.ids


def test_a_clock_of_the_server_that_is_ahead_hides_no_rows() -> None:
    session = Session()
    rows = session.lists["events", "web"] = events(30)
    rows.append(event(1000, -1 * 24 * 60))
    session.date = lambda: datetime.now(UTC) + 2 * DAY
    warehouse = Warehouse(session)
    warehouse.run()
    session.date = lambda: datetime.now(UTC)
    rows += events(30, every=-2, start=2000)
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_a_bookmark_of_the_future_is_not_trusted() -> None:
    """Both clocks were wrong when it was stored."""
    warehouse = stored()
    tomorrow = (datetime.now(UTC) + DAY).isoformat()
    warehouse.bookmarks["web"]["loaded"][0][1] = tomorrow
    warehouse.session.lists["events", "web"] += events(30, every=-2, start=2000)
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_a_sweep_of_the_future_does_not_count() -> None:
    """Our clock was ahead; what was read since then would seem to be gone."""
    session = Session()
    session.lists["issues", "web"] = [issue(n, 90 * n) for n in range(40)]
    warehouse = Warehouse(session, "issues")
    warehouse.run(sweep=DAY)
    assert warehouse.run(sweep=DAY) == 1
    later = (datetime.now(UTC) + 2 * HOUR).isoformat()
    warehouse.bookmarks["web"]["swept_at"] = later
    warehouse.run(sweep=DAY)
    assert warehouse.bookmarks["web"]["swept_at"] < datetime.now(UTC).isoformat()


def test_a_row_of_the_first_year_is_a_row_like_others() -> None:
    session = Session()
    session.lists["events", "web"] = [
        event(0, 0, dateCreated="0001-01-01T00:00:00Z", dateReceived=None)
    ]
    warehouse = Warehouse(session)
    for _ in range(2):
        warehouse.run(lookback=HOUR, since=datetime.min.replace(tzinfo=UTC))
        assert not warehouse.errors
    session.lists["events", "web"] += events(30)
    warehouse.run(lookback=HOUR)
    assert warehouse.ids == warehouse.served()


def test_an_unordered_list_is_never_cut_short_and_promises_nothing_before_its_end() -> (
    None
):
    session = Session()
    session.order = oldest_first
    rows = session.lists["events", "web"] = events(100)
    session.before = lambda r: 503 if r.params.get("cursor") == "80" else None
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=20)
    assert warehouse.errors
    assert "loaded" not in warehouse.bookmarks["web"] if warehouse.bookmarks else True
    session.before = lambda request: None
    warehouse.run(rows_per_load=20)
    assert warehouse.loads == 1
    rows += events(10, every=-1, start=1000)
    warehouse.run()
    assert warehouse.ids == warehouse.served()


def test_a_list_that_turns_out_to_be_in_no_order_promises_nothing_before_its_end() -> (
    None
):
    """Its first pages descend, the next ones begin above them."""
    session = Session()
    session.lists["events", "web"] = events(100)
    session.order = lambda rows: rows[::2] + rows[1::2]
    session.before = lambda r: 503 if r.params.get("cursor") == "80" else None
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.errors
    assert "loaded" not in warehouse.bookmarks["web"]
    session.before = lambda request: None
    warehouse.run()
    assert warehouse.ids == warehouse.served()


# Projects and slugs


@pytest.mark.parametrize("table", ["events", "issues"])
@pytest.mark.parametrize("api", ["v1", "sentry", "glitchtip"])
def test_a_slug_that_is_given_to_another_project(api: str, table: str) -> None:
    """`web` is renamed to `web-old`, and `web2` to `web`."""
    session = Session(api)
    make = issue if table == "issues" else event
    project: dict[str, Any] = {"project": {"id": "2"}, "projectID": "2"}
    first = [make(n, 90 * n) for n in range(30)]
    second = [make(1000 + n, 90 * (n + 5)) | project for n in range(20)]
    session.lists[table, "web"] = first
    warehouse = Warehouse(session, table)
    warehouse.run()
    session.lists[table, "web"], session.lists[table, "web-old"] = second, first
    session.lists["project_detail", "web"] = [{"id": "2", "slug": "web"}]
    assert len(second) == 20
    warehouse.run(["web", "web-old"])
    assert warehouse.ids == warehouse.served("web", "web-old")
    assert warehouse.bookmarks["web"]["project_id"] == "2"
    assert warehouse.run(["web", "web-old"]) == 2


# Failures


def test_a_list_that_fails_at_the_same_page_brings_nothing_new_again() -> None:
    session = Session()
    session.lists["events", "web"] = events(400)
    session.before = lambda r: 500 if r.params.get("cursor") == "200" else None
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.sizes["web"] == 200
    for _ in range(3):
        warehouse.run()
        assert warehouse.errors
        assert warehouse.sizes["web"] == 0


def test_rows_of_several_projects_under_one_slug_are_that_lists_failure() -> None:
    session = Session()
    numbers = iter(range(100))

    def rename(request: Request) -> None:
        project = str(next(numbers))
        session.lists["events", "web"] = [event(0, 0, projectID=project)]

    session.before = rename
    warehouse = Warehouse(session)
    warehouse.run()
    warehouse.run()
    assert "rows of several projects" in str(warehouse.errors["web"])


@pytest.mark.parametrize("kind", [ValueError, MemoryError, RecursionError, KeyError])
def test_whatever_goes_wrong_with_one_answer_is_that_lists_failure(
    kind: type[Exception],
) -> None:
    session = Session()
    session.lists["events", "web"] = events(30)
    session.lists["events", "app"] = events(30, start=1000)

    def fail(request: Request) -> None:
        if request.project == "web":
            raise kind("4300 digits")

    session.before = fail
    warehouse = Warehouse(session)
    warehouse.run(["web", "app"])
    assert warehouse.ids == warehouse.served("app")
    assert isinstance(warehouse.errors["web"], ApiError)
    assert str(warehouse.errors["web"]).startswith("events of project 'web': ")


def test_empty_pages_without_an_end_are_a_failure() -> None:
    session = Session("glitchtip")
    session.lists["events", "app"] = events(30)

    def endless(request: Request) -> None:
        if request.project == "web":
            rows = session.lists["events", "web"]
            rows[:] = [event(0, 0)]

    session.before = endless
    answer = session._answer
    numbers = iter(range(10**6))

    def empty(request: Request) -> Any:
        made = answer(request)
        if request.project == "web":
            made._content = b"[]"
            made.headers["Link"] = (
                f'<x>; rel="next"; results="true"; cursor="{next(numbers)}"'
            )
        return made

    session._answer = empty  # type: ignore[method-assign]
    warehouse = Warehouse(session)
    warehouse.run(["web", "app"])
    assert "empty pages in a row" in str(warehouse.errors["web"])
    assert warehouse.ids == warehouse.served("app")


def test_a_list_that_gives_no_page_for_long_has_failed_and_others_are_loaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = Session()
    session.lists["events", "app"] = events(30)
    ended = threading.Event()

    def hang(request: Request) -> None:
        if request.project == "web":
            monkeypatch.setattr(workers, "SECONDS_OF_SILENCE", 0.0)
            ended.wait(60)

    session.before = hang
    warehouse = Warehouse(session)
    try:
        warehouse.run(["app", "web"])
    finally:
        ended.set()
    assert "no complete page" in str(warehouse.errors["web"])
    assert warehouse.ids == warehouse.served("app")
