"""Sweeps: what changes in an issue without an event is found all the same."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import AnalyticsError, IncompleteLoad
from analytics_pipeline.loading import run as run_module
from analytics_pipeline.runner import Summary
from tests.assertions import assert_kept
from tests.children import fork, run
from tests.conftest import ORGANIZATION, TOKEN, Warehouse
from tests.fake_server import FakeServer
from tests.integration.test_bookmarks import load
from tests.list_server import ListServer, Row, ago

Start = Callable[..., FakeServer]
ISSUES = ["issues"]
SOON = timedelta(hours=1)


def load_issues(
    server: DemoServer, warehouse: Warehouse, api: str = "v1", **settings: Any
) -> Summary:
    settings = {"project": "frontend"} | settings
    return warehouse.load(server, tables=ISSUES, api=api, **settings)


def resolve(server: DemoServer, count: int = 1) -> list[str]:
    """Resolve the issues that were seen longest ago; no event tells of it."""
    rows = server.rows("issues", "frontend")[-count:]
    for row in rows:
        row["status"] = "resolved in silence"
    return sorted(row["id"] for row in rows)


def resolved(warehouse: Warehouse) -> list[str]:
    found = warehouse.rows(
        "select id from analytics.issues where status = 'resolved in silence'"
    )
    return sorted(row[0] for row in found)


def bookmark(warehouse: Warehouse, project: str = "frontend") -> dict[str, Any]:
    bookmarks = warehouse.bookmarks()["issues"]
    (found,) = (v for k, v in bookmarks.items() if k.endswith(f"/{project}"))
    return dict(found)


def grow_old(warehouse: Warehouse, hours: float | None = 25) -> None:
    """Let the last sweep be so long ago; None: nobody knows of any."""
    pipeline = warehouse.pipeline()
    with pipeline.managed_state(extract_state=True) as state:
        resources = state["sources"]["analytics"]["resources"]
        for each in resources["issues"]["bookmarks"].values():
            each.pop("swept")
            if hours is not None:
                time = datetime.now(UTC) - timedelta(hours=hours)
                each["swept"] = time.isoformat().replace("+00:00", "Z")
    pipeline.normalize()
    pipeline.load()


def asked(server: Any, work: Callable[[], object]) -> int:
    """Return how many requests it takes."""
    before = len(server.requests)
    work()
    return len(server.requests) - before


@pytest.fixture
def many(start: Start, api: str) -> FakeServer:
    """Issues on five pages of one project, none of them of the last hours."""
    server = start(api, projects=["frontend"], issues=100, page_size=20, events=0)
    for row in server.rows("issues"):
        seen = datetime.fromisoformat(row["lastSeen"]) - timedelta(hours=9)
        row["lastSeen"] = seen.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return server


PAGES = 5
MOST = PAGES + 3
"""Requests of a run with a sweep: a page of what is new, and of what moved."""


# When


def test_a_change_without_an_event_is_found_by_a_sweep_and_not_before(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_issues(server, warehouse, api)
    ids = resolve(server, 3)
    load_issues(server, warehouse, api)
    assert resolved(warehouse) == []
    grow_old(warehouse, 23)
    load_issues(server, warehouse, api)
    load_issues(server, warehouse, api, sweep="7d")
    assert resolved(warehouse) == []
    grow_old(warehouse)
    load_issues(server, warehouse, api)
    assert resolved(warehouse) == ids
    count = len(server.rows("issues", "frontend"))
    assert len(warehouse.ids("issues")) == count
    if api == "v1":
        warehouse.load(server)
        assert_kept(warehouse, server)


@pytest.mark.parametrize("sweep", ["now", timedelta(hours=24), "never"])
def test_how_old_a_sweep_may_be_is_a_setting(
    many: FakeServer, api: str, warehouse: Warehouse, sweep: Any
) -> None:
    load_issues(many, warehouse, api, sweep=sweep)
    ids = resolve(many)
    grow_old(warehouse)
    requests = asked(many, lambda: load_issues(many, warehouse, api, sweep=sweep))
    if sweep == "never":
        assert (resolved(warehouse), requests) == ([], 1)
    else:
        assert resolved(warehouse) == ids
        assert requests <= MOST


def test_a_run_between_two_sweeps_asks_no_more_than_without_sweeps(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_issues(many, warehouse, api)
    for sweep in ("1d", "never", "1d"):
        work = partial(load_issues, many, warehouse, api, sweep=sweep)
        assert asked(many, work) == 1


def test_a_sweep_asks_for_each_page_and_for_the_first_one_again(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    first = asked(many, lambda: load_issues(many, warehouse, api, sweep="now"))
    assert first == PAGES  # the first reading is of all
    summaries = []

    def sweep() -> None:
        summaries.append(load_issues(many, warehouse, api, sweep="now"))

    assert asked(many, sweep) <= MOST
    (summary,) = summaries
    assert summary.loads == 1
    assert summary.tables["issues"].rows == 0
    assert summary.tables["issues"].reread >= 100
    assert len(warehouse.ids("issues")) == 100


def test_the_time_of_a_sweep_is_noted_when_it_has_come_to_its_end(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_issues(many, warehouse, api)
    grow_old(warehouse)
    before = bookmark(warehouse)
    many.fail(500, on="cursor=", after=2, times=99)
    with pytest.raises(IncompleteLoad):
        load_issues(many, warehouse, api)
    many.mend()
    failed = bookmark(warehouse)
    assert failed["swept"] == before["swept"]
    assert "page_cursor" in failed["sweep"]
    ids = resolve(many)
    load_issues(many, warehouse, api, sweep="never")
    assert bookmark(warehouse) == failed
    assert resolved(warehouse) == []
    now = datetime.now(UTC)
    load_issues(many, warehouse, api)
    assert resolved(warehouse) == ids
    after = bookmark(warehouse)
    assert after.keys() == {"since", "synced_to", "swept"}
    assert abs(datetime.fromisoformat(after["swept"]) - now) < SOON


@pytest.mark.parametrize("hours", [None, 25, -25])
def test_a_bookmark_of_an_old_version_or_a_wrong_clock_is_swept(
    many: FakeServer, api: str, warehouse: Warehouse, hours: float | None
) -> None:
    load_issues(many, warehouse, api)
    grow_old(warehouse, hours)
    ids = resolve(many)
    load_issues(many, warehouse, api)
    assert resolved(warehouse) == ids
    assert asked(many, lambda: load_issues(many, warehouse, api)) == 1


@pytest.mark.parametrize("hours", [-9, 9])
def test_a_server_whose_clock_is_wrong_is_swept_once_a_day(
    start: Start, api: str, warehouse: Warehouse, hours: float
) -> None:
    skew = timedelta(hours=hours)
    now = datetime.now(UTC) + skew
    server = start(api, issues=40, events=0, now=now, clock_skew=skew)
    load_issues(server, warehouse, api)
    ids = resolve(server)
    load_issues(server, warehouse, api)
    assert resolved(warehouse) == []
    grow_old(warehouse, 25 + 9)
    load_issues(server, warehouse, api)
    assert resolved(warehouse) == ids
    server.grow(issues=3)
    assert asked(server, lambda: load_issues(server, warehouse, api)) <= 2
    held = sorted(row["id"] for row in server.rows("issues", "frontend"))
    assert sorted(warehouse.ids("issues")) == held


def test_only_issues_are_swept(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    tables = ["events", "projects", "releases", "project_detail"]
    warehouse.load(server, api=api, tables=tables)

    def again(sweep: str) -> int:
        return asked(
            server,
            lambda: warehouse.load(server, api=api, tables=tables, sweep=sweep),
        )

    assert again("now") == again("never")


def test_a_full_refresh_sweeps_and_begins_only_once(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_issues(many, warehouse, api)
    grow_old(warehouse, 12)
    ids = resolve(many)
    before = bookmark(warehouse)
    requests = asked(
        many,
        lambda: load_issues(many, warehouse, api, full_refresh=True, rows_per_load=40),
    )
    assert resolved(warehouse) == ids
    assert requests <= MOST + 4
    assert bookmark(warehouse)["swept"] > before["swept"]


def test_a_reading_with_an_end_does_not_sweep(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_issues(many, warehouse, api)
    grow_old(warehouse)
    before = warehouse.bookmarks()
    since = datetime.now(UTC) - timedelta(hours=15)
    span: dict[str, Any] = {"since": since, "until": since + timedelta(hours=9)}
    source: dict[str, Any] = {
        "base_url": many.url,
        "auth_token": TOKEN,
        "organization": ORGANIZATION,
        "api": api,
        "sweep": "now",
    }
    runs: list[Callable[[], object]] = [
        lambda: load_issues(many, warehouse, api, sweep="now", **span),
        lambda: runner.run_partition(
            runner.make_pipeline(name="part", pipelines_dir="part"),
            runner.Partition("frontend", span["since"], span["until"]),
            ISSUES,
            **source,
        ),
    ]
    for each in runs:
        resolve(many, 90)
        assert asked(many, each) <= 2
    assert warehouse.bookmarks() == before

    def shared() -> None:
        runner.load_shared(
            runner.make_pipeline(name="shared", pipelines_dir="shared"),
            analytics_source(project="frontend", **source),
            ISSUES,
        )

    assert asked(many, shared) == PAGES


def test_a_replaced_table_is_not_swept_since_all_of_it_is_read(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    for _ in range(2):
        source = analytics_source(
            many.url, TOKEN, ORGANIZATION, "frontend", api, sweep="now"
        ).with_resources("issues")
        source.issues.apply_hints(write_disposition="replace")

        def run(source: Any = source) -> None:
            warehouse.pipeline().run(source)

        assert asked(many, run) == PAGES


# In pieces


def test_a_sweep_in_pieces_asks_little_more_than_one_in_a_piece(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    load_issues(many, warehouse, api)
    ids = resolve(many)
    summaries = []

    def sweep() -> None:
        summaries.append(
            load_issues(many, warehouse, api, sweep="now", rows_per_load=40)
        )

    # Each piece asks again for the page at which the last one was left.
    assert asked(many, sweep) <= MOST + 4
    assert 2 <= summaries[0].loads <= 5
    assert resolved(warehouse) == ids


@pytest.mark.parametrize("rows_per_load", [None, 40])
def test_plain_dlt_sweeps_too_and_goes_on_with_the_next_run(
    many: FakeServer, api: str, warehouse: Warehouse, rows_per_load: int | None
) -> None:
    def run(**settings: Any) -> None:
        source = analytics_source(
            many.url, TOKEN, ORGANIZATION, "frontend", api, **settings
        )
        warehouse.pipeline().run(source.with_resources("issues"))

    run()
    ids = resolve(many)
    run(sweep="now", rows_per_load=rows_per_load)  # at once
    assert resolved(warehouse) == ids
    ids = resolve(many, 2)
    grow_old(warehouse)
    requests = [asked(many, lambda: run(rows_per_load=rows_per_load)) for _ in range(4)]
    assert resolved(warehouse) == ids
    assert requests[-1] == 1
    assert sum(requests) <= MOST + 12
    assert (requests[0] == max(requests)) is (rows_per_load is None)
    assert "sweep" not in bookmark(warehouse)


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
def test_a_killed_sweep_goes_on_from_its_last_piece(
    start: Start, api: str, warehouse: Warehouse
) -> None:
    server = start(
        api, projects=["frontend"], issues=300, page_size=5, events=0, latency=0.01
    )
    load_issues(server, warehouse, api, lookback=0)
    ids = resolve(server)
    grow_old(warehouse)
    before = len(server.requests)
    words = ["--resource", "issues", "--api", api, "--rows-per-load", "50"]
    process = fork(server, warehouse.folder, *words, projects=["frontend"])
    while len(server.requests) < before + 40:
        assert process.exitcode is None
        time.sleep(0.002)
    process.kill()
    process.join()
    assert resolved(warehouse) == []
    load_issues(server, warehouse, api)
    assert resolved(warehouse) == ids
    assert len(server.requests) - before <= 60 + 40


def test_a_sweep_does_not_keep_what_is_new_from_coming(
    many: FakeServer, api: str, warehouse: Warehouse
) -> None:
    """It fails for ever: the run says so each time, and brings what is new."""
    load_issues(many, warehouse, api)
    grow_old(warehouse)
    many.fail(500, on="cursor=", after=1, times=10_000)
    for _ in range(5):
        many.grow(issues=1, seconds=3600)
        with pytest.raises(IncompleteLoad, match="issues of project 'frontend'"):
            load_issues(many, warehouse, api, rows_per_load=40)
        held = sorted(row["id"] for row in many.rows("issues"))
        assert sorted(warehouse.ids("issues")) == held
    many.mend()
    ids = resolve(many)
    load_issues(many, warehouse, api, rows_per_load=40)
    assert resolved(warehouse) == ids


def test_the_command_line_says_which_list_was_not_swept(
    start: Start, warehouse: Warehouse
) -> None:
    server = start(issues=60, events=0)
    words = ["--resource", "issues", "--sweep", "now"]
    assert run(server, warehouse.folder, *words)[0] == 0
    server.fail(404, on="cursor=", times=10)
    code, said = run(server, warehouse.folder, *words)
    assert code == 1
    assert "issues of project 'frontend'" in said
    code, said = run(server, warehouse.folder, "--sweep", "daily")
    assert code == 2
    assert "sweep 'daily' is not a span of time" in said


def test_many_issues_of_the_last_hour_do_not_keep_a_sweep_from_ending(
    start: Start, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is read again at its end does not fit into one piece."""
    settings: dict[str, Any] = {"lookback": 90 * 86_400, "rows_per_load": 40}
    server = start(projects=["frontend"], issues=100, page_size=20, events=0)
    load_issues(server, warehouse, **settings)
    ids = resolve(server)
    server.fail(500, on="/issues/", after=60, times=10_000)  # not for ever
    load_issues(server, warehouse, sweep="now", **settings)
    assert resolved(warehouse) == ids
    monkeypatch.setattr(run_module, "SECONDS_PER_LOAD", 0.0)
    server.mend()
    server.fail(500, on="/issues/", after=60, times=10_000)
    load_issues(server, warehouse, sweep="now", lookback=90 * 86_400)
    assert "sweep" not in bookmark(warehouse)


# Lists that change while they are read


def issue(number: int, minutes: float, **fields: Any) -> Row:
    """Return an issue that was last seen so many minutes ago."""
    return {
        "id": f"i{number}",
        "project": {"id": "web", "slug": "web"},
        "status": "unresolved",
        "lastSeen": ago(minutes),
    } | fields


@contextmanager
def issue_server(count: int) -> Iterator[ListServer]:
    """Serve issues of which each was last seen hours before the one above it."""
    with ListServer() as server:
        rows = [issue(n, 600 * n) for n in range(count)]
        server.lists["acme", "web", "issues"] = rows
        yield server


@pytest.fixture
def lists() -> Iterator[ListServer]:
    """100 issues on five pages."""
    with issue_server(100) as server:
        yield server


def sweep(server: ListServer, folder: Path, **settings: Any) -> Summary:
    return load(server, folder, tables=ISSUES, **{"sweep": "now"} | settings)


def at_request(server: ListServer, number: int, change: Callable[[], object]) -> None:
    """Do something before the server answers its request of this number from now on."""
    last = len(server.requests) + number

    def before(request: Any) -> None:
        if len(server.requests) == last:
            change()

    server.before = before


def move_to_top(rows: list[Row], place: int, minutes: float) -> None:
    row = rows.pop(place)
    row |= {"lastSeen": ago(minutes), "status": "regressed"}
    rows.insert(0, row)


@pytest.mark.parametrize("rows_per_load", [None, 40])
@pytest.mark.parametrize("number", [1, 4, 7])
def test_an_issue_that_is_seen_again_while_a_sweep_reads_is_not_lost(
    lists: ListServer,
    warehouse: Warehouse,
    elsewhere: Path,
    number: int,
    rows_per_load: int | None,
) -> None:
    """It jumps from a page that is still to come to one that was read."""
    sweep(lists, elsewhere)
    rows = lists.lists["acme", "web", "issues"]
    at_request(lists, number, lambda: move_to_top(rows, 70, -100))
    sweep(lists, elsewhere, rows_per_load=rows_per_load)
    found = dict(warehouse.rows("select id, status from analytics.issues"))
    assert len(found) == 100
    assert found["i70"] == "regressed"


@pytest.mark.parametrize("is_reversed", [False, True])
@pytest.mark.parametrize("rows_per_load", [1, 45])
def test_the_smallest_pieces_of_a_sweep_come_to_an_end(
    lists: ListServer,
    warehouse: Warehouse,
    elsewhere: Path,
    rows_per_load: int,
    is_reversed: bool,
) -> None:
    rows = lists.lists["acme", "web", "issues"]
    if is_reversed:
        rows.reverse()
    sweep(lists, elsewhere)
    for row in rows:
        row["status"] = "resolved"
    at_request(lists, 60, lambda: lists.refused.update({"/issues/": 404}))
    summary = sweep(lists, elsewhere, rows_per_load=rows_per_load)
    assert not summary.skipped
    assert set(warehouse.rows("select status from analytics.issues")) == {("resolved",)}


@pytest.mark.parametrize("gone", [1, 20, 95])
def test_issues_that_are_deleted_between_two_pieces_leave_no_gap(
    lists: ListServer, warehouse: Warehouse, elsewhere: Path, gone: int
) -> None:
    sweep(lists, elsewhere)
    rows = lists.lists["acme", "web", "issues"]
    lists.refused = {}
    at_request(lists, 5, lambda: lists.refused.update({"/issues/": 500}))
    grow_old(warehouse)
    with pytest.raises(IncompleteLoad):
        sweep(lists, elsewhere, sweep="1d", rows_per_load=40)
    lists.before, lists.refused = (lambda request: None), {}
    del rows[:gone]
    for row in rows:
        row["status"] = "resolved"
    sweep(lists, elsewhere, sweep="1d", rows_per_load=40)
    if gone < 95:
        last = warehouse.rows(
            "select count(*) from analytics.issues where status = 'unresolved'"
            f" and id in {tuple(row['id'] for row in rows[60:])}"
        )
        assert last == [(0,)]
    assert "sweep" not in bookmark(warehouse, "web")


def test_several_projects_are_swept_each_for_itself(
    lists: ListServer, warehouse: Warehouse, elsewhere: Path
) -> None:
    projects = ["web", "app", "api"]
    for place, slug in enumerate(projects[1:], start=1):
        lists.lists["acme", slug, "issues"] = [
            issue(1000 * place + n, 600 * n) for n in range(50)
        ]
    load(lists, elsewhere, tables=ISSUES, project=projects)
    grow_old(warehouse)
    lists.refused = {"/app/": 500}
    with pytest.raises(IncompleteLoad):
        load(lists, elsewhere, tables=ISSUES, project=projects, rows_per_load=60)
    lists.refused = {}
    swept = {slug: bookmark(warehouse, slug)["swept"] for slug in projects}
    yesterday = (datetime.now(UTC) - timedelta(hours=20)).isoformat()
    assert [slug for slug in projects if swept[slug] < yesterday] == ["app"]
    before = {slug: lists.asked(f"/{slug}/") for slug in projects}
    load(lists, elsewhere, tables=ISSUES, project=projects, rows_per_load=60)
    again = {slug: lists.asked(f"/{slug}/") - before[slug] for slug in projects}
    assert (again["web"], again["api"]) == (1, 1)
    assert again["app"] > 3
    assert all(bookmark(warehouse, slug)["swept"] >= yesterday for slug in projects)


@pytest.mark.parametrize("number", [2, 4, 5, 8, 10])
def test_a_sweep_that_fails_at_any_request_comes_to_its_end_another_time(
    lists: ListServer, warehouse: Warehouse, elsewhere: Path, number: int
) -> None:
    sweep(lists, elsewhere)
    rows = lists.lists["acme", "web", "issues"]
    grow_old(warehouse)
    for row in rows[::3]:
        row["status"] = "resolved"
    lists.refused = {}
    at_request(lists, number, lambda: lists.refused.update({"/issues/": 500}))
    with suppress(AnalyticsError):
        sweep(lists, elsewhere, sweep="1d", rows_per_load=20)
    lists.before, lists.refused = (lambda request: None), {}
    sweep(lists, elsewhere, sweep="1d", rows_per_load=20)
    found = dict(warehouse.rows("select id, status from analytics.issues"))
    assert found == {row["id"]: row["status"] for row in rows}
    assert bookmark(warehouse, "web").keys() == {"since", "synced_to", "swept"}
