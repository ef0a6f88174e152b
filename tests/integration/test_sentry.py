"""Real habits of Sentry: retention, totals, teams and limits."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline import runner
from analytics_pipeline.errors import IncompleteLoad
from analytics_pipeline.runner import Summary
from tests.conftest import ORGANIZATION, TOKEN, Clock, Warehouse
from tests.fake_server import FakeServer

Start = Callable[..., FakeServer]
DAY = timedelta(days=1)
NOW = datetime.now(UTC)
FOUR = ["a", "b", "c", "d"]


@pytest.fixture
def start(start: Start) -> Start:
    """Start Sentry servers that stop with the test."""
    return lambda **options: start("sentry", **{"page_size": 100} | options)


def load(warehouse: Warehouse, server: FakeServer, **settings: Any) -> Summary:
    """Load the events of `frontend` and `backend` by default."""
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


def test_since_before_retention_loads_all_rows(
    start: Start, warehouse: Warehouse, clock: Clock
) -> None:
    server = start(events=300)
    summary = load(warehouse, server, since=NOW - 700 * DAY)
    assert_all_are_loaded(warehouse, server)
    assert (refused(server), clock.sleeps, summary.kept_from) == ([], [], None)


@pytest.mark.parametrize("invalid_range", [False, True])
def test_a_partition_before_retention_is_empty_and_reported(
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


def test_partitions_across_the_end_of_retention_load_all_rows(
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


# Issues


def test_an_issue_has_its_totals_and_keeps_the_90_day_figures(
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


def test_four_lists_do_not_wait_with_one_concurrent_request(
    start: Start, warehouse: Warehouse, clock: Clock
) -> None:
    server = start(
        projects=FOUR, events=600, rate_limit=60, concurrent_limit=1, clock=clock.time
    )
    summary = load(warehouse, server, project=FOUR, workers=8)
    assert_all_are_loaded(warehouse, server)
    assert refused(server) == []
    assert (clock.sleeps, summary.requests) == ([], 8)


# Columns


@pytest.mark.parametrize("full_events", [False, True])
def test_every_field_of_an_event_has_a_column(
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
