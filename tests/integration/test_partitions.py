"""Partitions of a backfill, and loading them concurrently."""

import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest

from analytics_pipeline import ConfigurationError, runner
from analytics_pipeline.errors import HttpError
from analytics_pipeline.loading.partitions import Partition, partitions
from tests import memory
from tests.children import environment, fresh
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source, small_server
from tests.fake_server import FakeServer
from tests.postgres import Postgres

PROJECTS = ["frontend", "backend"]
DAY = timedelta(days=1)


def day(text: str) -> datetime:
    return datetime.fromisoformat(f"2026-{text}T00:00:00+00:00")


def test_partitions_are_sorted_oldest_first_for_every_project() -> None:
    assert partitions(["a", "b"], "2026-01-01", "2026-01-18", "7d") == [
        Partition("a", day("01-01"), day("01-08")),
        Partition("b", day("01-01"), day("01-08")),
        Partition("a", day("01-08"), day("01-15")),
        Partition("b", day("01-08"), day("01-15")),
        Partition("a", day("01-15"), day("01-18")),
        Partition("b", day("01-15"), day("01-18")),
    ]


def test_partitions_without_an_end_are_complete_past_ones() -> None:
    since = datetime.now(UTC) - timedelta(hours=71)
    assert [p.until - since for p in partitions("a", since)] == [DAY, 2 * DAY]
    assert not partitions("a", since, every="3d")


@pytest.fixture
def sentry() -> Iterator[FakeServer]:
    """Events of 30 days."""
    with small_server("sentry", events=300, page_size=100) as server:
        yield server


def since(server: FakeServer) -> datetime:
    """Return a midnight before the oldest event."""
    oldest = min(datetime.fromisoformat(e["dateCreated"]) for e in events(server))
    return oldest.replace(hour=0, minute=0, second=0, microsecond=0)


def events(server: FakeServer, project: str | None = None) -> list[dict[str, Any]]:
    return server.rows("events", project)


def make(server: FakeServer, api: str = "sentry", **settings: Any) -> dict[str, Any]:
    """Return further arguments of `run_partition`."""
    return {
        "base_url": server.url,
        "auth_token": TOKEN,
        "organization": ORGANIZATION,
        "api": api,
        **settings,
    }


def times(server: FakeServer, project: str, field: str) -> dict[str, datetime]:
    """Return event → time."""
    rows = events(server, project)
    return {row["id"]: datetime.fromisoformat(row[field]) for row in rows}


def test_a_partition_loads_exactly_its_project_and_span(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    dated = times(v1, "frontend", "dateCreated")
    start = min(dated.values()).replace(microsecond=0) + 5 * DAY
    partition = Partition("frontend", start, start + 10 * DAY)
    summary = runner.run_partition(
        warehouse.pipeline(), partition, ["events"], **make(v1, "v1")
    )
    wanted = sorted(e for e in dated if start <= dated[e] < start + 10 * DAY)
    assert sorted(warehouse.ids("events")) == wanted
    assert summary.tables["events"].rows == len(wanted) > 5
    assert not any(warehouse.bookmarks().values())


def test_a_run_after_partitions_starts_where_they_ended(
    sentry: FakeServer, warehouse: Warehouse
) -> None:
    end = since(sentry) + 20 * DAY
    for partition in partitions("frontend", since(sentry), end, "10d"):
        runner.run_partition(
            warehouse.pipeline(), partition, ["events"], **make(sentry)
        )
    before = len(warehouse.ids("events"))
    for grown in (0, 5):
        sentry.grow(events=grown)
        summary = warehouse.load(
            sentry, "frontend", ["events"], api="sentry", since=end
        )
        loaded = warehouse.ids("events")
        assert sorted(loaded) == sorted(e["id"] for e in events(sentry, "frontend"))
        assert summary.tables["events"].rows == len(loaded) - before
        before = len(loaded)


@pytest.mark.parametrize("table", ["events", "issues"])
def test_partitions_load_all_rows_in_any_order_without_bookmarks(
    api: str, table: str
) -> None:
    session = memory.Session(api)
    session.lists["events", "web"] = memory.events(100, every=1440 / 4)
    session.lists["issues", "web"] = [memory.issue(n, n * 360) for n in range(100)]
    warehouse = memory.Warehouse(session, table)
    now = datetime.now(UTC)
    pieces = partitions("web", now - 40 * DAY, now, "8d")
    assert len(pieces) == 5
    for piece in [*reversed(pieces), *pieces[:2]]:
        before = warehouse.ids
        warehouse.run(since=piece.since, until=piece.until)
        found = {row["id"] for row in session.lists[table, "web"] if held(piece, row)}
        assert warehouse.ids == before | found
    assert warehouse.ids == warehouse.served()
    assert not warehouse.bookmarks


def held(piece: Partition, row: memory.Row) -> bool:
    time = datetime.fromisoformat(row.get("lastSeen") or row["dateCreated"])
    return piece.since <= time < piece.until


def test_a_partition_can_have_no_start(api: str) -> None:
    session = memory.Session(api)
    session.lists["events", "web"] = memory.events(50)
    warehouse = memory.Warehouse(session)
    # As the source does for `until` alone.
    warehouse.run(since=datetime.min.replace(tzinfo=UTC), until=memory.ago(1000))
    assert not warehouse.errors
    assert 0 < len(warehouse.ids) < 50


def test_a_failed_partition_is_completed_by_running_it_again(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    now = datetime.now(UTC)
    (piece,) = partitions("frontend", now - 40 * DAY, now, "40d")
    v1.fail(500, on="/frontend/events/", after=1, times=4)
    with pytest.raises(HttpError, match="500"):
        runner.run_partition(warehouse.pipeline(), piece, ["events"], **make(v1, "v1"))
    runner.run_partition(warehouse.pipeline(), piece, ["events"], **make(v1, "v1"))
    assert sorted(warehouse.ids("events")) == sorted(
        row["id"] for row in events(v1, "frontend")
    )


def test_a_partition_keeps_its_own_settings(
    sentry: FakeServer, warehouse: Warehouse
) -> None:
    """Given `since` and `until` are ignored."""
    (piece,) = partitions("backend", since(sentry), since(sentry) + 7 * DAY, "7d")
    settings = make(sentry, since="2020-01-01", until="2020-01-02")
    runner.run_partition(warehouse.pipeline(), piece, ["events"], **settings)
    asked = [(r.path.split("/")[-3], r.query["start"]) for r in sentry.requests]
    assert {*asked} == {("backend", f"{piece.since:%Y-%m-%dT%H:%M:%S}")}
    dated = times(sentry, "backend", "dateCreated")
    assert sorted(warehouse.ids("events")) == sorted(
        e for e in dated if dated[e] < piece.until
    )


def load(
    kind: str, place: str, folder: Path, settings: Mapping[str, Any], project: str
) -> None:
    """Load the last 60 days of a project in one partition."""
    destination = getattr(dlt.destinations, kind)(place)
    pipeline = runner.make_pipeline(
        destination, name=f"worker_{project}", pipelines_dir=str(folder)
    )
    end = datetime.now(UTC)
    (piece,) = partitions(project, end - 60 * DAY, end, "60d")
    runner.run_partition(pipeline, piece, **settings)


def load_in_process(environ: Mapping[str, str], folder: Path, *words: Any) -> None:
    os.environ.update(environ)
    os.chdir(folder)
    load(*words)


class Shared:
    """A warehouse into which several processes load, each with its own folder."""

    def __init__(self, kind: str, place: str, folder: Path) -> None:
        self.kind, self.place, self.folder = kind, place, folder
        self.count = 0

    def work(self, server: FakeServer, project: str = "frontend") -> Any:
        """Start a process that loads a project."""
        words = [environment(), self.folder, *self._words(server), project]
        process = fresh.Process(target=load_in_process, args=words)
        process.start()
        return process

    def load(self, server: FakeServer) -> None:
        """Load a project in this process."""
        kind, place, folder, settings = self._words(server)
        load(kind, place, folder, settings, "frontend")

    def _words(self, server: FakeServer) -> list[Any]:
        self.count += 1
        folder = self.folder / f"worker{self.count}"
        return [self.kind, self.place, folder, make(server, "v1")]

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


def exit_codes(*workers: Any) -> list[int]:
    for worker in workers:
        worker.join(120)
    return [worker.exitcode for worker in workers]


def assert_same(shared: Shared, server: FakeServer, project: str | None = None) -> None:
    """Check that each row of the server is loaded once, unchanged."""
    found = shared.rows("select id, group_id, date_created from analytics.events")
    assert sorted(found) == sorted(
        (e["id"], e["groupID"], datetime.fromisoformat(e["dateCreated"]))
        for e in events(server, project)
    )
    issues = shared.rows("select id, count, last_seen from analytics.issues")
    assert sorted(issues) == sorted(
        (i["id"], int(i["count"]), datetime.fromisoformat(i["lastSeen"]))
        for i in server.rows("issues", project)
    )


def test_processes_can_load_the_same_partitions_concurrently(
    shared: Shared, v1: FakeServer
) -> None:
    slugs = ["frontend", "frontend", "backend"]
    workers = [shared.work(v1, slug) for slug in slugs]
    assert exit_codes(*workers) == [0, 0, 0]
    assert_same(shared, v1)


def test_an_older_copy_loaded_later_does_not_replace_a_newer_one(
    shared: Shared,
) -> None:
    """A load has read an old copy of an issue when another one loads a newer copy."""
    with small_server(page_size=5) as server:
        issue = server.rows("issues", "frontend")[0]

        def load_newer(handler: Any, response: Any) -> Any:
            newer = datetime.now(UTC) - timedelta(hours=1)
            issue.update(count="4711", lastSeen=f"{newer:%Y-%m-%dT%H:%M:%S}Z")
            shared.load(server)
            return response

        server.fail(load_newer, on="/frontend/issues/", after=1)
        shared.load(server)
        assert shared.count == 2
        assert_same(shared, server, "frontend")


def test_a_killed_process_leaves_no_lock(shared: Shared, v1: FakeServer) -> None:
    killed, other = shared.work(v1), shared.work(v1)
    while len(v1.requests) < 6:
        assert killed.is_alive() or other.is_alive()
    killed.kill()
    assert exit_codes(other) == [0]
    killed.join()
    assert_same(shared, v1, "frontend")


def test_loads_cannot_share_other_destinations(
    sentry: FakeServer, elsewhere: Path
) -> None:
    pipeline = runner.make_pipeline(dlt.destinations.filesystem("lake"))
    source = make_source(sentry, "frontend", "sentry")
    with pytest.raises(ConfigurationError, match="one load after the other"):
        runner.load_shared(pipeline, source, ["projects"])
    assert not sentry.requests
