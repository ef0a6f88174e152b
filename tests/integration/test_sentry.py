"""Sentry as it really is: retention, windows that are ignored, totals, teams, limits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline import runner
from analytics_pipeline.errors import IncompleteLoad
from analytics_pipeline.runner import Summary
from tests import memory
from tests.conftest import ORGANIZATION, TOKEN, Clock, Warehouse
from tests.fake_server import FakeServer, too_many

Start = Callable[..., FakeServer]
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
FOUR = ["a", "b", "c", "d"]


@pytest.fixture
def start(start: Start) -> Start:
    """Starts Sentry servers; they end with the test."""
    return lambda **options: start("sentry", **{"page_size": 100} | options)


def load(warehouse: Warehouse, server: FakeServer, **settings: Any) -> Summary:
    """Load the events of `frontend` and `backend`, unless other settings are given."""
    tables = settings.pop("tables", ["events"])
    return warehouse.load(server, tables=tables, api="sentry", **settings)


def run_partition(
    warehouse: Warehouse,
    server: FakeServer,
    partition: runner.Partition,
    **settings: Any,
) -> Summary:
    """Load the events of a partition."""
    return runner.run_partition(
        warehouse.pipeline(),
        partition,
        ["events"],
        base_url=server.url,
        auth_token=TOKEN,
        organization=ORGANIZATION,
        api="sentry",
        **settings,
    )


def assert_all_are_loaded(warehouse: Warehouse, server: FakeServer) -> None:
    loaded = sorted(warehouse.ids("events"))
    assert loaded == sorted(row["id"] for row in server.rows("events"))


def refused(server: FakeServer) -> list[int]:
    return [status for _, status in server.statuses if status >= 400]


# Retention


def test_a_since_before_retention_is_refused_nothing_and_brings_all_rows(
    start: Start, warehouse: Warehouse, clock: Clock
) -> None:
    server = start(events=300)
    summary = load(warehouse, server, since=NOW - 700 * DAY)
    assert_all_are_loaded(warehouse, server)
    assert (refused(server), clock.sleeps, summary.kept_from) == ([], [], None)


@pytest.mark.parametrize("invalid_range", [False, True])
def test_a_partition_before_retention_is_empty_and_says_so(
    start: Start,
    warehouse: Warehouse,
    caplog: pytest.LogCaptureFixture,
    invalid_range: bool,
) -> None:
    server = start(events=300, invalid_range=invalid_range)
    partition = runner.Partition("frontend", NOW - 200 * DAY, NOW - 199 * DAY)
    summary = run_partition(warehouse, server, partition)
    assert summary.tables["events"].rows == 0
    assert caplog.text.count("the server keeps no events from before") == 1


def test_partitions_over_the_edge_of_retention_bring_all_rows(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(events=300, retention_days=20)
    kept = {
        row["id"]
        for row in server.rows("events", "frontend")
        if datetime.fromisoformat(row["dateCreated"]) > NOW - 20 * DAY
    }
    for piece in runner.partitions("frontend", NOW - 32 * DAY, NOW, "8d"):
        run_partition(warehouse, server, piece)
    assert set(warehouse.ids("events")) == kept


# Servers that ignore windows


def test_a_server_that_ignores_windows_is_read_page_by_page_and_in_pieces(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(events=900, ignores_time=True)
    first = load(warehouse, server, rows_per_load=500)
    assert_all_are_loaded(warehouse, server)
    assert (first.tables["events"].rows, first.loads >= 2) == (900, True)
    assert first.requests < 25  # a page twice in each piece
    second = load(warehouse, server)
    assert (second.tables["events"].rows, second.requests) == (0, 2)
    server.grow(events=250)
    third = load(warehouse, server)
    assert_all_are_loaded(warehouse, server)
    assert third.requests <= 6


def test_a_partition_of_a_server_that_ignores_windows_is_exactly_its_span(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(events=900, ignores_time=True)
    low, high = (NOW - days * DAY for days in (20, 10))
    load(warehouse, server, project="frontend", since=low, until=high)
    dated = {
        row["id"]: datetime.fromisoformat(row["dateCreated"])
        for row in server.rows("events", "frontend")
    }
    expected = [event for event, time in dated.items() if low <= time < high]
    assert sorted(warehouse.ids("events")) == sorted(expected)


def test_an_earlier_since_on_a_server_that_ignores_windows_adds_what_is_missing() -> (
    None
):
    session = memory.Session("sentry")
    session.ignores_time = True
    session.lists["events", "web"] = memory.events(90, every=1)
    kept = memory.Warehouse(session)
    for minutes in (30, 60):
        kept.run(since=memory.ago(minutes))
        assert len(kept.ids) == minutes + 1


# Whole events, of which some have no dateCreated


def undated(number: int, minutes: float, every: int) -> memory.Row:
    """An event that only says when it was received, if its number is a multiple."""
    row = memory.event(number, minutes, _time=memory.ago(minutes).isoformat())
    if number % every == 0:
        del row["dateCreated"]
    return row


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("ignores_time", [False, True])
def test_whole_events_without_a_date_are_all_loaded(
    every: int, ignores_time: bool
) -> None:
    session = memory.Session("sentry")
    session.ignores_time = ignores_time
    rows = session.lists["events", "web"]
    rows += [undated(number, number, every) for number in range(90)]
    kept = memory.Warehouse(session)
    kept.run()
    assert kept.ids == kept.served()
    rows += [undated(number, -number / 100, every) for number in range(100, 120)]
    kept.run(lookback=3 * memory.HOUR)
    assert kept.ids == kept.served()


def test_whole_events_without_a_date_are_in_partitions() -> None:
    session = memory.Session("sentry")
    session.lists["events", "web"] = [undated(n, n, every=2) for n in range(90)]
    kept = memory.Warehouse(session)
    for minutes in range(0, 90, 30):
        kept.run(since=memory.ago(minutes + 29.5), until=memory.ago(minutes - 0.5))
    assert kept.ids == kept.served()


# Issues


def test_the_figures_of_an_issue_are_its_totals_and_those_of_90_days_are_kept(
    start: Start, warehouse: Warehouse
) -> None:
    server = start()
    issue = server.rows("issues", "frontend")[0]
    recent = {n: issue[n] for n in ("count", "userCount", "firstSeen", "lastSeen")}
    first_seen = NOW - 700 * DAY
    server.age(issue["id"], first_seen=first_seen.isoformat(), count=440, users=9)
    load(warehouse, server, tables=["issues"])
    (row,) = warehouse.rows(
        "select count, user_count, first_seen, last_90_days.count::text,"
        " last_90_days.firstSeen::text from analytics.issues"
        f" where id = '{issue['id']}'"
    )
    assert row[:2] == (440 + int(recent["count"]), 9 + recent["userCount"])
    assert abs(row[2] - first_seen) < timedelta(seconds=1)
    assert [text.strip('"') for text in row[3:]] == [
        recent["count"],
        recent["firstSeen"],
    ]
    assert not any(
        request.query.get("collapse") == "stats" for request in server.requests
    )


def test_issues_of_projects_without_the_tokens_user_are_loaded(
    start: Start, warehouse: Warehouse
) -> None:
    server = start()  # which shows issues of teams' projects only, unless asked for all
    load(warehouse, server, tables=["issues"])
    assert len(warehouse.ids("issues")) == len(server.rows("issues"))


def test_an_empty_answer_without_a_link_is_a_failure(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(teamless=True)
    with pytest.raises(IncompleteLoad, match="not in a team") as caught:
        load(warehouse, server, tables=["events", "issues"])
    assert set(caught.value.failures) == {
        "issues of project 'frontend'",
        "issues of project 'backend'",
    }
    assert_all_are_loaded(warehouse, server)
    assert "issues" not in warehouse.bookmarks()


# Limits


def test_four_lists_at_one_request_at_a_time_wait_for_nothing(
    start: Start, warehouse: Warehouse, clock: Clock
) -> None:
    server = start(
        projects=FOUR, events=600, rate_limit=60, concurrent_limit=1, clock=clock.time
    )
    summary = load(warehouse, server, project=FOUR, workers=8)
    assert_all_are_loaded(warehouse, server)
    assert refused(server) == []
    assert (clock.sleeps, summary.requests) == ([], 8)


def test_too_many_at_once_does_not_hold_all_requests_until_the_reset(
    start: Start, warehouse: Warehouse, clock: Clock
) -> None:
    server = start()
    headers = {"Remaining": "40", "ConcurrentRemaining": "0", "ConcurrentLimit": "1"}
    headers["Reset"] = str(int(clock.now) + 55)
    named = {f"X-Sentry-Rate-Limit-{name}": value for name, value in headers.items()}
    server.fail(too_many(named), on="/frontend/events/")
    summary = load(warehouse, server)
    assert_all_are_loaded(warehouse, server)
    assert sum(clock.sleeps) < 2
    assert summary.waited == 0


def test_a_refusal_without_a_time_is_waited_for_as_long_as_a_full_window(
    start: Start, warehouse: Warehouse, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server = start()
    server.fail(too_many({"X-Sentry-Rate-Limit-Reset": "None"}), on="/events/", times=2)
    summary = load(warehouse, server)
    assert_all_are_loaded(warehouse, server)
    assert sum(clock.sleeps) >= 60
    assert summary.waited >= 60
    assert "rate limit: waiting 60 s before" in caplog.text


# Columns


@pytest.mark.parametrize("full_events", [False, True])
def test_an_event_has_columns_for_all_that_it_holds(
    start: Start, warehouse: Warehouse, full_events: bool
) -> None:
    load(warehouse, start(), full_events=full_events)
    sql = "select distinct type, coalesce(extra ->> 'event.type', '-')"
    assert warehouse.rows(f"{sql} from analytics.events") == [("error", "-")]
    if full_events:
        names = "_meta, grouping_config, measurements, breakdowns"
        assert warehouse.rows(f"select {names} from analytics.events limit 1")
        sql = "select typeof(start_timestamp), typeof(end_timestamp)"
        assert warehouse.rows(f"{sql} from analytics.events limit 1") == [
            ("DOUBLE", "DOUBLE")
        ]
