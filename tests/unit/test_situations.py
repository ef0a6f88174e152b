"""Situations that real servers and users cause, one per test."""

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
    Row,
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
    """Return a warehouse with events of one project."""
    session = Session(api)
    session.lists["events", "web"] = events(count, every)
    warehouse = Warehouse(session)
    warehouse.run()
    return warehouse


def once(change: Callable[[], object], on: int) -> Callable[[Request], None]:
    """Call `change` after the nth request for events."""
    numbers = iter(range(1, 10_000))

    def after(request: Request) -> None:
        if request.table == "events" and next(numbers) == on:
            change()

    return after


@pytest.mark.parametrize("api", ["v1", "sentry", "glitchtip"])
def test_a_row_that_moves_to_the_next_page_is_counted_once(api: str) -> None:
    session = Session(api)
    rows = session.lists["events", "web"] = events(100, every=5)
    session.after = once(lambda: rows.insert(0, event(1000, 0)), on=2)
    warehouse = Warehouse(session)
    warehouse.run()
    assert (warehouse.sizes, len(warehouse.ids)) == ({"web": 100}, 100)


def test_a_reused_slug_with_a_broken_event_is_loaded() -> None:
    session = Session("sentry")
    session.lists["events", "web"] = [event(n, 90 * n) for n in range(30)]
    warehouse = Warehouse(session)
    warehouse.run()
    other = {"project": {"id": "2"}, "projectID": "2"}
    second = [event(1000 + n, n - 40) | other for n in range(20)]
    second[5]["_broken"] = True
    session.lists["events", "web"] = second
    session.lists["project_detail", "web"] = [{"id": "2", "slug": "web"}]
    warehouse.run()
    assert warehouse.served() - {"e1005"} <= warehouse.ids


def test_an_until_at_the_end_of_time_is_like_any_other() -> None:
    session = Session("sentry")
    session.lists["events", "web"] = events(21, every=5)
    warehouse = Warehouse(session)
    warehouse.run(until=datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC))
    assert len(warehouse.ids) == 21


# Sentry, paged by time


@pytest.mark.parametrize("hours", [-1, 1])
@pytest.mark.parametrize("place", range(15, 26))
def test_an_event_filtered_by_a_hidden_time_hides_no_others(
    hours: float, place: int
) -> None:
    """The server filters by a time an hour earlier or later than the one it shows."""
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
def test_a_load_finishes_if_every_second_answer_is_an_error(seed: int) -> None:
    dice = random.Random(seed)
    session = Session("sentry")
    session.lists["events", "web"] = events(400)
    # The reader sees only errors that persist after three retries.
    session.before = lambda request: 500 if dice.random() < 1 / 16 else None
    warehouse = Warehouse(session)
    for _ in range(200):
        warehouse.run(rows_per_load=dice.choice([None, 50]))
        if not warehouse.errors:
            break
    assert warehouse.ids == warehouse.served()


def test_an_odd_event_alone_on_a_page_hides_no_others() -> None:
    """Other events of its second were on the previous page."""
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


def test_an_added_project_takes_one_request_per_page() -> None:
    session = Session("sentry", page_size=100)
    session.lists["events", "web"] = events(50)
    warehouse = Warehouse(session)
    warehouse.run()
    session.lists["events", "app"] = events(250, start=1000)
    assert warehouse.run(["web", "app"]) == 1 + 3
    assert warehouse.ids == warehouse.served("web", "app")


def test_an_earlier_since_before_retention_is_asked_for_once() -> None:
    session = Session("sentry")
    session.lists["events", "web"] = events(50)
    session.kept_from = ago(20 * 90)
    warehouse = Warehouse(session)
    warehouse.run(since=ago(30 * 90))
    session.kept_from = NOW
    assert warehouse.run(since=ago(50 * 90)) == 1 + 11
    assert warehouse.run(since=ago(50 * 90)) == 1
    assert not warehouse.errors
    assert warehouse.client
    assert warehouse.client.kept_from


def test_a_span_refused_by_a_failing_server_is_a_failure() -> None:
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
def test_other_events_are_loaded_if_one_breaks_its_page(
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


def test_a_bounded_run_loads_other_events_if_one_breaks_its_page() -> None:
    session = Session("sentry")
    rows = session.lists["events", "web"] = events(100)
    rows[50]["_broken"] = True
    warehouse = Warehouse(session)
    warehouse.run(since=ago(80 * 90), until=ago(20 * 90))
    assert len(warehouse.ids) == 59
    assert "500" in str(warehouse.errors["web"])


def undated(number: int, minutes: float, every: int) -> Row:
    """Return an event, without `dateCreated` if its number is a multiple of `every`."""
    row = event(number, minutes, _time=ago(minutes).isoformat())
    if number % every == 0:
        del row["dateCreated"]
    return row


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("ignores_time", [False, True])
def test_full_events_without_a_date_are_all_loaded(
    every: int, ignores_time: bool
) -> None:
    session = Session("sentry")
    session.ignores_time = ignores_time
    rows = session.lists["events", "web"]
    rows += [undated(number, number, every) for number in range(90)]
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.ids == warehouse.served()
    rows += [undated(number, -number / 100, every) for number in range(100, 120)]
    warehouse.run(lookback=3 * HOUR)
    assert warehouse.ids == warehouse.served()


def test_full_events_without_a_date_are_in_partitions() -> None:
    session = Session("sentry")
    session.lists["events", "web"] = [undated(n, n, every=2) for n in range(90)]
    warehouse = Warehouse(session)
    for minutes in range(0, 90, 30):
        warehouse.run(since=ago(minutes + 29.5), until=ago(minutes - 0.5))
    assert warehouse.ids == warehouse.served()


def test_spans_are_exact_on_a_server_that_ignores_time_filters() -> None:
    session = Session("sentry")
    session.ignores_time = True
    session.lists["events", "web"] = events(90, every=1)
    warehouse = Warehouse(session)
    warehouse.run(since=ago(80), until=ago(70))
    assert len(warehouse.ids) == 10
    warehouse = Warehouse(session)
    for minutes in (30, 60):
        warehouse.run(since=ago(minutes))
        assert len(warehouse.ids) == minutes + 1


# Late rows, order, clocks


@pytest.mark.parametrize("minutes", [1, 10_000])
@pytest.mark.parametrize("place", [7, 19, 20, 45])
def test_a_late_row_among_newer_ones_is_loaded(minutes: float, place: int) -> None:
    """Older than the lookback, and also as the last row of a page."""
    warehouse = stored()
    rows = warehouse.session.lists["events", "web"]
    rows[:0] = events(60, every=-1, start=1000)[::-1]
    rows.insert(place, event(2000, minutes))
    warehouse.session.order = list
    assert warehouse.run() == 4
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("place", range(95, 105))
def test_a_row_with_a_later_time_at_the_end_of_a_load_is_loaded(place: int) -> None:
    """The list is in order of arrival."""
    session = Session()
    rows = session.lists["events", "web"] = events(200, every=30)
    rows[place]["_time"] = rows[place]["dateCreated"]
    rows[place]["dateCreated"] = ago(place * 30 - 75).isoformat()
    warehouse = Warehouse(session)
    warehouse.run(rows_per_load=20)
    assert warehouse.ids == warehouse.served()


@pytest.mark.parametrize("api", ["sentry", "glitchtip"])
def test_a_lookback_longer_than_a_load_is_read_only_a_few_times(
    api: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It covers all 60 pages, and a load has time for ten."""
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


def test_a_late_row_within_the_lookback_is_loaded_after_a_failure() -> None:
    """Its page failed, and the lookback of the next run starts later."""
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


def test_a_row_dated_in_year_1_is_loaded() -> None:
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


@pytest.mark.parametrize("order", [oldest_first, lambda rows: rows[::2] + rows[1::2]])
def test_an_unordered_list_has_no_span_before_its_end(order: Any) -> None:
    """The first pages of the second list descend, the next ones start above them."""
    session = Session()
    session.lists["events", "web"] = events(100)
    session.order = order
    session.before = lambda r: 503 if r.params.get("cursor") == "80" else None
    warehouse = Warehouse(session)
    warehouse.run()
    assert warehouse.errors
    assert "loaded" not in warehouse.bookmarks.get("web", {})
    session.before = lambda request: None
    warehouse.run()
    assert warehouse.ids == warehouse.served()


# Projects and slugs


@pytest.mark.parametrize("newest", [-1, 450])
@pytest.mark.parametrize("table", ["events", "issues"])
@pytest.mark.parametrize("api", ["v1", "sentry", "glitchtip"])
def test_a_slug_reused_by_another_project_starts_a_new_bookmark(
    api: str, table: str, newest: float, caplog: pytest.LogCaptureFixture
) -> None:
    """`web` is renamed to `web-old`, and another project to `web`."""
    session = Session(api)
    make = issue if table == "issues" else event
    project: dict[str, Any] = {"project": {"id": "2"}, "projectID": "2"}
    first = [make(n, 90 * n) for n in range(30)]
    second = [make(1000 + n, 90 * n + newest) | project for n in range(20)]
    session.lists[table, "web"] = first
    warehouse = Warehouse(session, table)
    warehouse.run()
    session.lists[table, "web"], session.lists[table, "web-old"] = second, first
    session.lists["project_detail", "web"] = [{"id": "2", "slug": "web"}]
    warehouse.run(["web", "web-old"])
    assert "the slug now belongs to project 2 instead of 1" in caplog.text
    assert warehouse.ids == warehouse.served("web", "web-old")
    assert warehouse.bookmarks["web"]["project_id"] == "2"
    assert warehouse.run(["web", "web-old"]) == 2


# Failures


def test_a_list_that_fails_at_the_same_page_does_not_repeat_its_rows() -> None:
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


def test_rows_of_several_projects_under_one_slug_fail_the_list() -> None:
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
def test_any_bad_answer_fails_only_its_list(kind: type[Exception]) -> None:
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


def test_endless_empty_pages_fail_the_list() -> None:
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


def test_a_list_without_a_page_for_long_fails_and_others_are_loaded(
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
