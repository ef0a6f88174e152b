"""Partitions: how a backfill is divided, and what processes may load side by side."""

import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from subprocess import Popen
from typing import Any

import dlt
import pytest

from analytics_pipeline import ConfigurationError, analytics_source, runner
from analytics_pipeline.config import parse_span
from analytics_pipeline.errors import HttpError
from analytics_pipeline.loading.partitions import Partition, partitions
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer
from tests.postgres import Postgres

PROJECTS = ["frontend", "backend"]
DAY = timedelta(days=1)


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}T00:00:00+00:00")


def test_partitions_are_oldest_first_each_for_every_project() -> None:
    assert partitions(["a", "b"], "2026-01-01", "2026-01-18", "7d") == [
        Partition("a", day("01-01"), day("01-08")),
        Partition("b", day("01-01"), day("01-08")),
        Partition("a", day("01-08"), day("01-15")),
        Partition("b", day("01-08"), day("01-15")),
        Partition("a", day("01-15"), day("01-18")),
        Partition("b", day("01-15"), day("01-18")),
    ]


def test_without_an_end_partitions_are_whole_ones_of_the_past() -> None:
    since = datetime.now(UTC) - timedelta(hours=71)
    assert [p.until - since for p in partitions("a", since)] == [DAY, 2 * DAY]
    assert not partitions("a", since, every="3d")


@pytest.mark.parametrize(
    ("text", "hours"), [("12h", 12), ("1d", 24), ("7d", 168), ("2w", 336)]
)
def test_a_span_is_a_number_and_a_unit(text: str, hours: int) -> None:
    assert parse_span("every", text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "7m", "1.5d", "week"])
def test_nonsense_is_no_span(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write it as 12h, 7d or 2w"):
        parse_span("every", text)


@pytest.fixture
def sentry() -> Iterator[FakeServer]:
    """Events of 30 days."""
    with small_server("sentry", events=300, page_size=100) as server:
        yield server


def since(server: FakeServer) -> datetime:
    """A midnight before the oldest event."""
    oldest = min(datetime.fromisoformat(e["dateCreated"]) for e in events(server))
    return oldest.replace(hour=0, minute=0, second=0, microsecond=0)


def events(server: FakeServer, project: str | None = None) -> list[dict[str, Any]]:
    return server.rows("events", project)


def make(server: FakeServer, api: str = "sentry", **settings: Any) -> dict[str, Any]:
    """Further arguments of `run_partition`."""
    return {
        "base_url": server.url,
        "auth_token": TOKEN,
        "organization": ORGANIZATION,
        "api": api,
        **settings,
    }


def times(server: FakeServer, project: str, field: str) -> dict[str, datetime]:
    """Event → when it is from."""
    rows = events(server, project)
    return {row["id"]: datetime.fromisoformat(row[field]) for row in rows}


def test_a_partition_is_exactly_its_project_and_span(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    dated = times(
        server, "frontend", "dateReceived" if api == "glitchtip" else "dateCreated"
    )
    start = min(dated.values()).replace(microsecond=0) + 5 * DAY
    partition = Partition("frontend", start, start + 10 * DAY)
    summary = runner.run_partition(
        warehouse.pipeline(), partition, ["events"], **make(server, api)
    )
    wanted = sorted(e for e in dated if start <= dated[e] < start + 10 * DAY)
    assert sorted(warehouse.ids("events")) == wanted
    assert summary.tables["events"].rows == len(wanted) > 5
    assert not any(warehouse.bookmarks().values())


def test_partitions_one_after_the_other_bring_all_rows_once(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    now = datetime.now(UTC)
    pieces = partitions(PROJECTS, now - 80 * DAY, now, "20d")
    assert len(pieces) == 8
    for piece in [*reversed(pieces), *pieces[:3]]:
        runner.run_partition(warehouse.pipeline(), piece, **make(server, api))
    for table in ("events", "issues"):
        held = sorted(str(row["id"]) for row in server.rows(table))
        assert sorted(warehouse.ids(table)) == held


def test_a_partition_that_fails_is_complete_when_it_is_run_again(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    now = datetime.now(UTC)
    (piece,) = partitions("frontend", now - 40 * DAY, now, "40d")
    server.fail(500, on="/frontend/events/", after=1, times=4)
    server.fail(500, on="/frontend/events/", times=4)
    with pytest.raises(HttpError, match="500"):
        runner.run_partition(warehouse.pipeline(), piece, **make(server, api))
    server.mend()
    runner.run_partition(warehouse.pipeline(), piece, **make(server, api))
    assert sorted(warehouse.ids("events")) == sorted(
        row["id"] for row in events(server, "frontend")
    )


def test_the_settings_of_a_partition_are_its_own(
    sentry: FakeServer, warehouse: Warehouse
) -> None:
    """What else is given as `since` or `until` counts for nothing."""
    (piece,) = partitions("backend", since(sentry), since(sentry) + 7 * DAY, "7d")
    settings = make(sentry, since="2020-01-01", until="2020-01-02")
    runner.run_partition(warehouse.pipeline(), piece, ["events"], **settings)
    asked = [(r.path.split("/")[-3], r.query["start"]) for r in sentry.requests]
    assert {*asked} == {("backend", f"{piece.since:%Y-%m-%dT%H:%M:%S}")}
    dated = times(sentry, "backend", "dateCreated")
    assert sorted(warehouse.ids("events")) == sorted(
        e for e in dated if dated[e] < piece.until
    )


WORKER = """
import sys, dlt
from analytics_pipeline import runner
name, kind, place, folder, url, token, organization, api, project, since, until, every = sys.argv[1:]
pipeline = runner.make_pipeline(
    getattr(dlt.destinations, kind)(place), name=name, pipelines_dir=folder
)
for piece in reversed(runner.partitions(project, since, until, every)):
    runner.run_partition(
        pipeline, piece, base_url=url, auth_token=token, organization=organization, api=api
    )
"""


class Shared:
    """A warehouse that processes of their own load into, each with its folder."""

    def __init__(self, kind: str, place: str, folder: Path) -> None:
        self.kind, self.place, self.folder = kind, place, folder
        self.count = 0

    def work(
        self,
        server: FakeServer,
        project: str = "frontend",
        api: str = "sentry",
        every: str = "30d",
    ) -> "Popen[bytes]":
        """One process that loads the last 60 days of a project, newest first."""
        self.count += 1
        folder = str(self.folder / f"worker{self.count}")
        end = datetime.now(UTC)
        words = [f"worker_{project}", self.kind, self.place, folder]
        words += [server.url, TOKEN, ORGANIZATION, api, project]
        words += [(end - 60 * DAY).isoformat(), end.isoformat(), every]
        return Popen([sys.executable, "-c", WORKER, *words])

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        destination = getattr(dlt.destinations, self.kind)(self.place)
        with runner.make_pipeline(destination).sql_client() as client:
            return [tuple(row) for row in client.execute_sql(sql) or ()]


@pytest.fixture(params=["duckdb", "postgres"])
def shared(request: pytest.FixtureRequest, elsewhere: Path) -> Shared:
    if request.param == "duckdb":
        return Shared("duckdb", str(elsewhere / "shared.duckdb"), elsewhere)
    postgres: Postgres = request.getfixturevalue("postgres")
    return Shared("postgres", postgres.uri, elsewhere)


def assert_same(shared: Shared, server: FakeServer) -> None:
    """Each row of the server is there once, as the server has it."""
    found = shared.rows("select id, group_id, date_created from analytics.events")
    assert sorted(found) == sorted(
        (e["id"], e["groupID"], datetime.fromisoformat(e["dateCreated"]))
        for e in events(server)
    )
    issues = shared.rows("select id, count, last_seen from analytics.issues")
    assert sorted(issues) == sorted(
        (i["id"], int(i["count"]), datetime.fromisoformat(i["lastSeen"]))
        for i in server.rows("issues")
    )


def test_processes_load_the_same_partitions_at_once(shared: Shared) -> None:
    with small_server(events=600, issues=60) as server:
        workers = [shared.work(server, slug, "v1") for slug in PROJECTS for _ in "ab"]
        assert [worker.wait(120) for worker in workers] == [0] * 4
        assert_same(shared, server)
        assert shared.work(server, api="v1").wait(60) == 0
        assert_same(shared, server)


def test_an_older_copy_that_is_loaded_later_replaces_nothing(
    shared: Shared, sentry: FakeServer
) -> None:
    changed, newer = threading.Event(), datetime.now(UTC) - timedelta(hours=1)

    def late(handler: Any, response: Any) -> Any:
        changed.wait(60)
        return response

    # One process holds an old copy of an issue while another loads a newer one.
    issue = sentry.rows("issues", "frontend")[0]
    sentry.fail(late, on="/frontend/events/")
    slow = shared.work(sentry, every="60d")
    while not any("issues" in request.path for request, _ in sentry.statuses):
        assert slow.poll() is None
    issue |= {"count": "4711", "lastSeen": f"{newer:%Y-%m-%dT%H:%M:%S}Z"}
    assert shared.work(sentry, every="60d").wait(60) == 0
    changed.set()
    assert slow.wait(60) == 0
    assert shared.work(sentry, "backend").wait(60) == 0
    assert_same(shared, sentry)


def test_a_killed_process_leaves_the_way_free(
    shared: Shared, sentry: FakeServer
) -> None:
    workers = [shared.work(sentry) for _ in "abc"]
    while len(sentry.requests) < 8:
        assert any(worker.poll() is None for worker in workers)
    workers[0].kill()
    workers[0].wait()
    assert [worker.wait(60) for worker in workers[1:]] == [0, 0]
    assert shared.work(sentry, "backend").wait(60) == 0
    assert_same(shared, sentry)


def test_other_destinations_are_not_shared(sentry: FakeServer, elsewhere: Path) -> None:
    pipeline = runner.make_pipeline(dlt.destinations.filesystem("lake"))
    source = analytics_source(sentry.url, TOKEN, ORGANIZATION, "frontend", "sentry")
    with pytest.raises(ConfigurationError, match="one load after the other"):
        runner.load_shared(pipeline, source, ["projects"])
    assert not sentry.requests
