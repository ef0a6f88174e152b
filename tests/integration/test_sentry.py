"""Sentry as it really is: retention, windows that are ignored, totals, teams, limits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

import orjson
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.demo import Response
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.errors import IncompleteLoad
from analytics_pipeline.runner import Summary
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


@pytest.mark.parametrize("status", [400, 500])
def test_a_first_load_asks_for_windows_before_retention_without_harm(
    start: Start, warehouse: Warehouse, clock: Clock, status: int
) -> None:
    projects = [f"p{n}" for n in range(6)]
    server = start(projects=projects, events=3000, invalid_range=status == 400)
    summary = load(warehouse, server, project=projects, workers=4)
    assert_all_are_loaded(warehouse, server)
    assert set(refused(server)) == {status}
    assert clock.sleeps == []
    assert not summary.failed
    # At most 30 pages, a request for each list, and what finds out the retention.
    assert summary.requests < 75
    assert summary.kept_from is not None
    assert datetime.fromisoformat(summary.kept_from) < NOW - 90 * DAY


def test_a_since_before_retention_brings_all_rows(
    start: Start, warehouse: Warehouse, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(events=1500)
    pipeline = warehouse.pipeline()
    source = analytics_source(
        server.url,
        TOKEN,
        ORGANIZATION,
        ["frontend", "backend"],
        "sentry",
        since=NOW - 700 * DAY,
    )
    pipeline.run(source.with_resources("events"))
    assert_all_are_loaded(warehouse, server)
    assert clock.sleeps == []
    assert caplog.text.count("the server keeps no events from before") == 1


def test_a_partition_before_retention_is_empty_and_says_so(
    start: Start, warehouse: Warehouse, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    server = start(events=300)
    partition = runner.Partition("frontend", NOW - 200 * DAY, NOW - 199 * DAY)
    summary = run_partition(warehouse, server, partition)
    assert summary.tables["events"].rows == 0
    assert clock.sleeps == []
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
    for piece in runner.partitions("frontend", NOW - 40 * DAY, NOW, "3d"):
        run_partition(warehouse, server, piece)
    assert set(warehouse.ids("events")) == kept


def test_what_is_not_kept_is_remembered_for_all_lists(
    start: Start, warehouse: Warehouse
) -> None:
    projects = [f"p{n}" for n in range(20)]
    server = start(projects=projects, events=2000)
    load(warehouse, server, project=projects)
    requests = server.requests.copy()
    load(warehouse, server, project=projects, since=NOW - 400 * DAY, full_refresh=True)
    spent = len(server.requests) - len(requests)
    assert spent < 20 + 20 + 2 * 20  # a page or two of each, not seven requests more
    assert_all_are_loaded(warehouse, server)


def test_a_server_that_fails_by_chance_is_not_taken_for_one_that_forgets(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(events=3000, retention_days=None)
    seen: set[str] = set()

    def first_time(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        if handler.path in seen:
            return good
        seen.add(handler.path)
        return json_response(500, {"detail": "Internal Error"})

    server.fail(first_time, on="start=20", times=10_000)
    summary = load(warehouse, server)
    assert not summary.failed
    assert summary.kept_from is None
    assert_all_are_loaded(warehouse, server)


def test_an_outage_of_old_windows_only_is_a_failure_and_loses_nothing(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(events=3000, retention_days=None)
    (old, *_) = runner.partitions("frontend", NOW - 20 * DAY, NOW, "5d")
    text = f"start={old.since:%Y-%m-%dT%H:%M:%S}&end={old.until:%Y-%m-%dT%H:%M}"
    server.fail(500, on=text, times=1000)  # its last second is answered
    source = analytics_source(
        server.url,
        TOKEN,
        ORGANIZATION,
        "frontend",
        "sentry",
        since=old.since,
        until=old.until,
    )
    with pytest.raises(IncompleteLoad, match="500"):
        runner.load(warehouse.pipeline(), source, ["events"])


# Servers that ignore windows


@pytest.mark.parametrize("workers", [1, 4, 8])
def test_a_server_that_ignores_windows_is_read_page_by_page(
    start: Start, warehouse: Warehouse, workers: int
) -> None:
    server = start(projects=["frontend"], events=3000, ignores_time=True)
    settings = {"project": "frontend", "workers": workers}
    first = load(warehouse, server, **settings)
    assert_all_are_loaded(warehouse, server)
    assert (first.tables["events"].rows, first.requests <= 31) == (3000, True)
    second = load(warehouse, server, **settings)
    assert (second.tables["events"].rows, second.requests) == (0, 1)
    server.grow(events=250)
    third = load(warehouse, server, **settings)
    assert_all_are_loaded(warehouse, server)
    assert third.requests <= 4


@pytest.mark.parametrize("rows_per_load", [300, 1000])
def test_a_server_that_ignores_windows_is_read_in_pieces_as_well(
    start: Start, warehouse: Warehouse, rows_per_load: int
) -> None:
    server = start(events=3000, ignores_time=True)
    summary = load(warehouse, server, rows_per_load=rows_per_load)
    assert_all_are_loaded(warehouse, server)
    assert summary.loads >= 3
    assert summary.requests < 60  # a page twice in each piece


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


def test_an_earlier_since_on_a_server_that_ignores_windows_adds_what_is_missing(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(events=900, ignores_time=True)
    load(warehouse, server, since=NOW - 5 * DAY)
    load(warehouse, server, since=NOW - 50 * DAY)
    assert_all_are_loaded(warehouse, server)


# Whole events, of which some have no dateCreated


def undate(server: FakeServer, every: int) -> None:
    """Let every so many-th whole event be without dateCreated, received days later."""

    def view(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        rows = orjson.loads(good.body)
        for row in rows if isinstance(rows, list) else ():
            if int(row["id"][-8:], 16) % every == 0:
                row.pop("dateCreated", None)
                row["dateReceived"] = NOW.isoformat()
        return Response(good.status, good.headers, orjson.dumps(rows))

    server.fail(view, on="/events/", times=100_000)


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("ignores_time", [False, True])
def test_whole_events_without_a_date_are_all_loaded(
    start: Start, warehouse: Warehouse, every: int, ignores_time: bool
) -> None:
    server = start(events=900, ignores_time=ignores_time, full_page_size=30)
    undate(server, every)
    load(warehouse, server, full_events=True)
    assert_all_are_loaded(warehouse, server)
    server.grow(events=20)
    load(warehouse, server, full_events=True)
    assert_all_are_loaded(warehouse, server)


def test_whole_events_without_a_date_are_in_partitions(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(projects=["frontend"], events=100)
    undate(server, 2)
    for piece in runner.partitions("frontend", NOW - 40 * DAY, NOW, "4d"):
        run_partition(warehouse, server, piece, full_events=True)
    assert_all_are_loaded(warehouse, server)


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
    server = start(member_of=())
    load(warehouse, server, tables=["issues"])
    assert len(warehouse.ids("issues")) == len(server.rows("issues"))


def test_an_empty_answer_that_is_no_answer_is_found_out(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(teamless=True)
    with pytest.raises(IncompleteLoad, match="no team") as caught:
        load(warehouse, server, tables=())
    assert set(caught.value.failures) == {
        "issues of project 'frontend'",
        "issues of project 'backend'",
    }
    assert_all_are_loaded(warehouse, server)
    assert "issues" not in warehouse.bookmarks()


# Limits


@pytest.mark.parametrize("workers", [4, 8])
def test_four_lists_at_one_request_at_a_time_wait_for_nothing(
    start: Start, warehouse: Warehouse, clock: Clock, workers: int
) -> None:
    server = start(
        projects=FOUR, events=600, rate_limit=60, concurrent_limit=1, clock=clock.time
    )
    summary = load(warehouse, server, project=FOUR, workers=workers)
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
    summary = load(warehouse, server, tables=())
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
    assert "rate limit: all requests wait for 60 s" in caplog.text


def test_a_minute_of_refusals_is_outlasted(
    start: Start, warehouse: Warehouse, clock: Clock
) -> None:
    server = start(events=900, page_size=3, rate_limit=60, clock=clock.time)
    load(warehouse, server)
    assert_all_are_loaded(warehouse, server)
    assert sum(clock.sleeps) > 60


# Columns


@pytest.mark.parametrize("full_events", [False, True])
def test_the_type_of_an_event_is_in_one_column(
    start: Start, warehouse: Warehouse, full_events: bool
) -> None:
    load(warehouse, start(), full_events=full_events)
    sql = "select distinct type, coalesce(extra ->> 'event.type', '-')"
    assert warehouse.rows(f"{sql} from analytics.events") == [("error", "-")]


def test_whole_events_have_columns_for_all_that_they_hold(
    start: Start, warehouse: Warehouse
) -> None:
    load(warehouse, start(), full_events=True)
    names = "_meta, grouping_config, measurements, breakdowns"
    assert warehouse.rows(f"select {names} from analytics.events limit 1")
    sql = "select typeof(start_timestamp), typeof(end_timestamp) from analytics.events"
    assert warehouse.rows(f"{sql} limit 1") == [("DOUBLE", "DOUBLE")]
