"""Long loads in pieces: what is cut, what survives an interruption, what may overlap."""

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
from analytics_pipeline.__main__ import main
from analytics_pipeline.columns import utc
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.partitions import Partition, partitions, span
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
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
def test_a_chunk_is_a_number_and_a_unit(text: str, hours: int) -> None:
    assert span(text) == timedelta(hours=hours)


@pytest.mark.parametrize("text", ["", "7", "d", "0d", "-1d", "7m", "1.5d", "week"])
def test_nonsense_is_no_chunk(text: str) -> None:
    with pytest.raises(ConfigurationError, match="write it as 12h, 7d or 2w"):
        span(text)


@pytest.fixture
def sentry() -> Iterator[DemoServer]:
    """Events of 30 days; those of a chunk fit one page."""
    with small_server("sentry", events=300, page_size=100) as server:
        yield server


def since(server: DemoServer) -> datetime:
    """A midnight before the oldest event."""
    oldest = min(datetime.fromisoformat(e["dateCreated"]) for e in events(server))
    return oldest.replace(hour=0, minute=0, second=0, microsecond=0)


def events(server: DemoServer, project: str | None = None) -> list[dict[str, Any]]:
    return server.rows("events", project)


def command(server: DemoServer, *more: str) -> list[str]:
    words = ["run", "--api", "sentry", "--base-url", server.url, "--progress", "off"]
    words += ["--organization", ORGANIZATION, "--pipelines-dir", "pipelines"]
    for slug in PROJECTS:
        words += ["--project", slug]
    return [*words, "--since", since(server).isoformat(), *more]


def asked(server: DemoServer, project: str = "frontend") -> list[datetime]:
    """From where on events were asked, in the order of the requests."""
    starts = [
        utc(datetime.fromisoformat(request.query["start"]))
        for request in server.requests
        if request.path.endswith(f"/{project}/events/")
    ]
    return [start for start in starts if start is not None]


def test_chunks_load_all_rows_once_oldest_first(
    sentry: DemoServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    assert main(command(sentry, "--chunk", "10d")) == 0
    for table in ("events", "issues", "projects", "project_detail"):
        held = sorted(str(row["id"]) for row in sentry.rows(table))
        assert sorted(warehouse.ids(table)) == held
    first = since(sentry)
    # Three chunks, and what is left; from the second run's view, an hour before.
    rest = first + 30 * DAY - timedelta(hours=1)
    starts = [first, first + 10 * DAY, first + 20 * DAY, rest]
    assert asked(sentry, "frontend") == asked(sentry, "backend") == starts
    before = len(sentry.requests)
    assert main(command(sentry, "--chunk", "10d")) == 0
    assert len(sentry.requests) - before == 2 * 3 + 2  # one of each list
    assert asked(sentry)[4:] == [asked(sentry)[4]] > [rest]


def test_an_interrupted_run_goes_on_from_the_last_whole_chunk(
    sentry: DemoServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    sentry.fail(500, on="/frontend/events/", after=2, times=4)
    assert main(command(sentry, "--chunk", "10d")) == 1
    limit = since(sentry) + 20 * DAY
    times = {e["id"]: datetime.fromisoformat(e["dateCreated"]) for e in events(sentry)}
    assert set(warehouse.ids("events")) == {e for e in times if times[e] < limit}
    sentry.requests.clear()
    assert main(command(sentry, "--chunk", "10d")) == 0
    assert asked(sentry)[0] == limit
    assert sorted(warehouse.ids("events")) == sorted(times)


def test_chunks_up_to_an_end_leave_what_is_newer(
    sentry: DemoServer, warehouse: Warehouse
) -> None:
    until = since(sentry) + 10 * DAY
    summary = runner.backfill(
        warehouse.pipeline(),
        timedelta(days=3),
        ["events"],
        base_url=sentry.url,
        auth_token=TOKEN,
        organization=ORGANIZATION,
        project="frontend",
        api="sentry",
        since=since(sentry),
        until=until,
    )
    assert summary.reached == {"frontend": until}
    loaded = warehouse.rows("select count(*), max(date_created) from analytics.events")
    times = [
        datetime.fromisoformat(e["dateCreated"]) for e in events(sentry, "frontend")
    ]
    older = [time for time in times if time < until]
    assert loaded == [(len(older), max(older))]


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
def test_servers_without_a_time_filter_refuse_chunks(
    server: DemoServer,
    api: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    assert main([*command(server), "--api", api, "--chunk", "7d"]) == 2
    assert "does not filter them by time" in capsys.readouterr().err
    assert not server.requests


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (["--chunk", "7"], "write it as 12h, 7d or 2w"),
        (["--chunk", "7d", "--since", ""], "since is missing"),
        (["--chunk", "7d", "--full-refresh"], "would not know where to go on"),
    ],
)
def test_chunks_that_make_no_sense(
    sentry: DemoServer,
    options: list[str],
    reason: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    assert main([*command(sentry), *options]) == 2
    assert reason in capsys.readouterr().err
    assert not sentry.requests


WORKER = """
import sys, dlt
from analytics_pipeline import partitions, runner
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
        server: DemoServer,
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


def assert_same(shared: Shared, server: DemoServer) -> None:
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
    shared: Shared, sentry: DemoServer
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
    shared: Shared, sentry: DemoServer
) -> None:
    workers = [shared.work(sentry) for _ in "abc"]
    while len(sentry.requests) < 8:
        assert any(worker.poll() is None for worker in workers)
    workers[0].kill()
    workers[0].wait()
    assert [worker.wait(60) for worker in workers[1:]] == [0, 0]
    assert shared.work(sentry, "backend").wait(60) == 0
    assert_same(shared, sentry)


def test_other_destinations_are_not_shared(sentry: DemoServer, elsewhere: Path) -> None:
    pipeline = runner.make_pipeline(dlt.destinations.filesystem("lake"))
    source = analytics_source(sentry.url, TOKEN, ORGANIZATION, "frontend", "sentry")
    with pytest.raises(ConfigurationError, match="one load after the other"):
        runner.load_shared(pipeline, source, ["projects"])
    assert not sentry.requests
