"""The history of issues: each state from when to when, whatever happens meanwhile."""

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import pyarrow.compute as pc
import pytest
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import (
    AnalyticsError,
    ConfigurationError,
    IncompleteLoad,
)
from analytics_pipeline.runner import Summary
from tests.children import fork
from tests.conftest import Warehouse
from tests.fake_server import FakeServer
from tests.integration.test_bookmarks import drop
from tests.integration.test_sweep import at_request, issue, issue_server, move_to_top
from tests.list_server import ListServer, Row, ago
from tests.postgres import Postgres

State = tuple[str | None, bool]
"""A status, and whether it is the one of today."""


class Store:
    """A warehouse with a history, and the server that it is loaded from."""

    def __init__(
        self,
        server: ListServer,
        folder: Path,
        query: Callable[[str], list[tuple[Any, ...]]],
        destination: Any = "duckdb",
    ) -> None:
        self.server = server
        self.query = query
        self.destination = destination
        self.folder = folder

    def pipeline(self, **options: Any) -> dlt.Pipeline:
        return runner.make_pipeline(
            self.destination, pipelines_dir=str(self.folder / "pipelines"), **options
        )

    def source(self, project: str | list[str] = "web", **settings: Any) -> Any:
        given: dict[str, Any] = {"organization": "acme", "history": True}
        given |= {"sweep": "now"} | settings
        return analytics_source(self.server.url, "token", project=project, **given)

    def load(self, *project: str, **settings: Any) -> Summary:
        """Load the issues of projects, with a sweep unless it is said otherwise."""
        source = self.source([*project] or "web", **settings)
        return runner.load(self.pipeline(), source, ["issues"])

    def issues(self, project: str = "web", organization: str = "acme") -> list[Row]:
        return self.server.lists[organization, project, "issues"]

    def change(self) -> list[Row]:
        """Delete some issues, resolve some others; return what is left."""
        rows = self.issues()
        del rows[1:4]
        for row in rows[::5]:
            row["status"] = "resolved"
        return rows

    def states(self) -> dict[str, list[State]]:
        """Issue → its states, one after the other; their spans do not overlap."""
        rows = self.query(
            "select id, status, valid_from, valid_to from analytics.issue_history"
            " order by id, valid_from"
        )
        found: dict[str, list[State]] = {}
        ends: dict[str, Any] = {}
        for id, status, begin, end in rows:
            if id in ends:
                assert ends[id] is not None, f"{id}: two states at a time"
                assert ends[id] <= begin, f"{id}: states overlap"
            assert end is None or begin < end, f"{id}: a state of no time"
            ends[id] = end
            found.setdefault(id, []).append((status, end is None))
        return found

    def open(self) -> dict[str, str | None]:
        """Issue → its status, as the history has it for today."""
        return {
            id: states[-1][0] for id, states in self.states().items() if states[-1][1]
        }

    def check(self, *projects: str) -> None:
        """The open states are those of the server's issues."""
        served = [row for name in projects or ["web"] for row in self.issues(name)]
        assert self.open() == {row["id"]: row["status"] for row in served}


@pytest.fixture
def server() -> Iterator[ListServer]:
    """45 issues on three pages."""
    with issue_server(45) as server:
        yield server


@pytest.fixture
def store(server: ListServer, warehouse: Warehouse) -> Store:
    return Store(server, warehouse.folder, warehouse.rows)


@pytest.fixture(params=["duckdb", "postgres"])
def each_store(request: pytest.FixtureRequest, store: Store) -> Store:
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        store.query = postgres.query
        store.destination = dlt.destinations.postgres(postgres.uri)
    return store


def of_project(slug: str, start: int, count: int = 25) -> list[Row]:
    project = {"id": slug, "slug": slug}
    return [issue(start + n, 600 * n, project=project) for n in range(count)]


# States begin, change and end


def test_states_begin_change_and_end(each_store: Store) -> None:
    store = each_store
    rows = store.issues()
    store.load()
    store.check()
    assert set(map(len, store.states().values())) == {1}
    row, gone = rows[29], rows.pop(40)
    row["status"] = "resolved"
    rows.insert(0, issue(100, -1))
    store.load(sweep="1d")  # only what is new
    assert store.states()["i100"] == [("unresolved", True)]
    assert store.states()["i29"] == store.states()[gone["id"]] == [("unresolved", True)]
    store.load()
    store.check()
    assert store.states()["i29"] == [("unresolved", False), ("resolved", True)]
    assert store.states()[gone["id"]] == [("unresolved", False)]
    before = store.states()
    for sweep in ("now", "1d", "never"):
        store.load(sweep=sweep)
        assert store.states() == before
    row["status"] = "unresolved"  # as it was before
    rows.append(gone)  # and it is back
    store.load()
    store.check()
    words = ["unresolved", "resolved", "unresolved"]
    assert [status for status, _ in store.states()["i29"]] == words
    assert store.states()[gone["id"]] == [("unresolved", False), ("unresolved", True)]
    del rows[:]
    store.load()
    assert store.open() == {}
    assert len(store.states()) == 46


def test_all_columns_of_a_state(each_store: Store) -> None:
    each_store.issues()[:] = [
        issue(
            0,
            0,
            substatus="new",
            priority="high",
            level="fatal",
            isUnhandled=False,
            assignedTo={"type": "user", "id": "3", "email": "o'{0}%s@acme.test"},
            statusDetails={"inRelease": "1.2"},
        )
    ]
    each_store.load(redact=["assignedTo.id"])
    columns = (
        "project_id, id, status, substatus, priority, level, assigned_to, is_unhandled,"
        " release"
    )
    sql = f"select {columns} from analytics.issue_history"
    state: Any = ("web", "i0", "unresolved", "new", "high", "fatal")
    assert each_store.query(sql) == [(*state, "o'{0}%s@acme.test", False, "1.2")]
    each_store.load(redact=["assignedTo"])
    assert "acme.test" not in str(each_store.query(f"{sql} where valid_to is null"))
    each_store.check()


def test_an_event_is_no_other_state(store: Store) -> None:
    store.load()
    store.issues()[7] |= {"lastSeen": ago(-5), "count": "8"}
    store.load(sweep="1d")
    store.load()
    assert set(map(len, store.states().values())) == {1}


def test_of_two_copies_in_one_load_the_last_one_stays(each_store: Store) -> None:
    """An issue changes, and moves to the top, while a sweep reads."""
    store = each_store
    store.load()
    store.issues()[1]["status"] = "resolved"
    # The page of what is new, and that of the sweep, have been read by then.
    at_request(store.server, 3, lambda: move_to_top(store.issues(), 1, -1))
    assert store.load().loads == 1
    store.check()
    assert store.states()["i1"] == [("unresolved", False), ("regressed", True)]


def test_an_issue_that_is_there_twice_on_a_page_has_one_state(store: Store) -> None:
    rows = store.issues()
    rows.insert(1, rows[0] | {"status": "resolved"})
    store.load()
    assert store.states()["i0"] == [("resolved", True)]
    store.load()
    assert store.states()["i0"] == [("resolved", True)]


# What has ended, and what was only not looked for


def test_projects_do_not_end_each_others_states(each_store: Store) -> None:
    store = each_store
    store.issues("app")[:] = of_project("app", 1000)
    store.issues("web", "other")[:] = of_project("9", 2000)
    store.server.lists["other", "web", "project_detail"] = [{"id": "9", "slug": "web"}]
    store.load("web", "app")
    store.load("web", organization="other")
    del store.issues()[::2], store.issues("app")[::2]
    store.load("web")  # `app` is not in the settings any more
    assert len(store.open()) == len(store.issues()) + 25 + 25
    store.load("web", "app")
    assert len(store.open()) == len(store.issues()) + 12 + 25
    del store.issues("web", "other")[::2]
    store.load("web", organization="other")
    assert len(store.open()) == len(store.issues()) + 12 + 12
    store.states()


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_later_since_ends_no_state_of_an_issue_that_was_not_looked_for(
    store: Store, warehouse: Warehouse, is_dropped: bool
) -> None:
    store.load()
    if is_dropped:
        drop(warehouse, "issues")
    del store.issues()[2]
    for _ in range(2):
        store.load(since=ago(600 * 20))
    store.load()
    store.check() if not is_dropped else None
    found = store.open()
    assert "i2" not in found
    assert {row["id"] for row in store.issues()} == {*found}


def test_a_sweep_that_was_not_complete_ends_nothing(store: Store) -> None:
    store.load()
    del store.issues()[3]
    store.server.refused = {}
    # What is new, two pages of the sweep, and then no more.
    at_request(store.server, 4, lambda: store.server.refused.update({"/issues/": 500}))
    with pytest.raises(IncompleteLoad):
        store.load(sweep="now")
    assert len(store.open()) == 45
    store.server.before, store.server.refused = (lambda request: None), {}
    store.load()
    store.check()


def test_a_project_that_does_not_tell_its_id_ends_nothing(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    store.load()
    del store.issues()[3]
    at_request(store.server, 0, lambda: None)

    def refuse(request: Any) -> None:
        is_detail = request.path.endswith("/acme/web/")
        store.server.refused = {"/acme/web/": 403} if is_detail else {}

    store.server.before = refuse
    store.load()
    assert len(store.open()) == 45
    assert "project 'web' does not tell its id" in caplog.text


def test_an_issue_that_moves_while_a_sweep_reads_is_not_ended(store: Store) -> None:
    store.load()
    for number in range(1, 6):
        row = store.issues()[-1]
        at_request(
            store.server,
            number,
            lambda number=number: move_to_top(store.issues(), -1, -number),  # type: ignore[misc]
        )
        store.load()
        assert store.states()[row["id"]][-1] == ("regressed", True)
        store.check()


def test_a_sweep_in_pieces_ends_and_begins_what_one_in_a_piece_does(
    each_store: Store,
) -> None:
    store = each_store
    store.issues("app")[:] = of_project("app", 1000)
    store.load("web", "app")
    for rows_per_load in (1, 20):
        del store.issues()[1], store.issues("app")[1]
        for row in (*store.issues()[::5], *store.issues("app")[::5]):
            row["status"] = f"status {rows_per_load}"
        pieces = {"rows_per_load": rows_per_load, "workers": 1}
        assert store.load("web", "app", **pieces).loads > 1
        store.check("web", "app")


# Failures and kills


@pytest.mark.parametrize("number", range(1, 8))
def test_a_sweep_that_fails_at_any_request_is_made_good_by_the_next_run(
    store: Store, number: int
) -> None:
    server = store.server
    store.load(rows_per_load=20)
    rows = store.change()
    at_request(server, number, lambda: server.refused.update({"/acme/web/": 500}))
    with suppress(AnalyticsError):
        store.load(rows_per_load=20)
    served = {row["id"] for row in rows}
    assert served <= {*store.open()}
    server.before, server.refused = (lambda request: None), {}
    rows[0]["status"] = "ignored"
    del rows[-1]
    # It goes on, and does not show the issue that went meanwhile for gone.
    store.load(rows_per_load=20, sweep="1000d")
    store.load(rows_per_load=20)
    store.check()


STEPS = ["extract", "normalize", "load"]


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("number", [1, 2])
def test_a_run_that_ends_in_any_of_dlts_steps_is_made_good_by_the_next_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """In one of its pieces; what the warehouse holds by then is not complete."""
    store.load()
    rows = store.change()
    whole = getattr(dlt.Pipeline, step)
    calls: list[str] = []

    def stopping(pipeline: dlt.Pipeline, *args: Any, **options: Any) -> Any:
        calls.append(step)
        if step != "load" and len(calls) == number:
            raise MemoryError
        done = whole(pipeline, *args, **options)
        if len(calls) == number:
            raise MemoryError
        return done

    with monkeypatch.context() as patch:
        patch.setattr(dlt.Pipeline, step, stopping)
        with pytest.raises(MemoryError):
            store.load(rows_per_load=20)
    assert {row["id"] for row in rows} <= {*store.open()}
    store.load(rows_per_load=20)
    store.check()


@pytest.mark.parametrize("table", ["issues", "issue_history"])
def test_a_load_of_only_one_of_the_tables_is_made_good_by_the_next_one(
    store: Store, monkeypatch: pytest.MonkeyPatch, table: str
) -> None:
    store.load()
    rows = store.change()
    whole = SqlMergeFollowupJob.generate_sql.__func__  # type: ignore[attr-defined]

    def broken(job: Any, chain: Any, *args: Any, **options: Any) -> list[str]:
        wrong = ["select nothing from nowhere"] if chain[0]["name"] == table else []
        return [*whole(job, chain, *args, **options), *wrong]

    with monkeypatch.context() as patch:
        patch.setattr(SqlMergeFollowupJob, "generate_sql", classmethod(broken))
        with pytest.raises(PipelineStepFailed, match="nowhere"):
            store.load()
    assert {row["id"] for row in rows} <= {*store.open()}
    store.load()
    store.check()


def test_a_killed_sweep_neither_ends_a_state_wrongly_nor_forgets_one(
    store: Store,
) -> None:
    server = store.server
    store.load()
    words = ["--resource", "issues", "--history", "--sweep", "now"]
    words += ["--rows-per-load", "20", "--allow-http"]
    for number in (2, 3, 6):
        del store.issues()[1]
        for row in store.issues()[::5]:
            row["status"] = f"status {number}"
        started: list[Any] = []
        at_request(server, number, partial(kill, started))
        started.append(fork(server, store.folder, *words, projects=["web"]))  # type: ignore[arg-type]
        started[0].join(120)
        assert started[0].exitcode != 0
        server.before = lambda request: None
        assert {row["id"] for row in store.issues()} <= {*store.open()}
        store.load(rows_per_load=20)
        store.check()


def kill(started: list[Any]) -> None:
    """Kill a process that may be just about to be noted."""
    while not started:
        time.sleep(0.001)
    started[0].kill()


# On and off


@pytest.mark.parametrize("rows_per_load", [None, 20])
@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_history_that_is_switched_on_later_or_was_dropped_fills_up_at_once(
    store: Store, warehouse: Warehouse, is_dropped: bool, rows_per_load: int | None
) -> None:
    store.issues("app")[:] = of_project("app", 1000)
    projects = ["web", "app"]
    store.load(*projects, history=is_dropped, sweep="1d")
    if is_dropped:
        drop(warehouse, "issue_history")
    pieces = {"rows_per_load": rows_per_load, "workers": 1}
    summary = store.load(*projects, sweep="1d", **pieces)
    assert summary.loads > 1 or not rows_per_load
    store.check(*projects)
    before = len(store.server.requests)
    store.load(*projects, sweep="1d")
    assert len(store.server.requests) - before == len(projects)


def test_a_history_fills_up_without_other_sweeps(store: Store) -> None:
    store.load(history=False, sweep="never")
    store.load(sweep="never", rows_per_load=20)
    store.check()


def test_a_history_that_one_project_failed_to_fill_is_filled_by_the_next_run(
    store: Store,
) -> None:
    store.issues("app")[:] = of_project("app", 1000)
    store.load("web", "app", history=False, sweep="1d")
    store.server.refused = {"/app/": 500}
    with pytest.raises(IncompleteLoad):
        store.load("web", "app", sweep="1d")
    store.server.refused = {}
    store.load("web", "app", sweep="1d")
    store.check("web", "app")


def test_a_run_without_a_history_leaves_it_as_it_is(store: Store) -> None:
    store.load()
    before = store.states()
    store.issues()[0]["status"] = "resolved"
    store.load(history=False)
    assert store.states() == before
    store.load()
    store.check()


def test_a_history_is_loaded_with_the_issues_and_not_alone(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="select both"):
        runner.load(store.pipeline(), store.source(), ["issue_history"])
    with pytest.raises(ConfigurationError, match="needs the setting history"):
        runner.load(
            store.pipeline(), store.source(history=False), ["issues", "issue_history"]
        )
    assert not store.server.requests
    runner.load(store.pipeline(), store.source(), ["issues", "issue_history"])
    store.check()


def test_the_command_line_wants_the_setting_for_the_table(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", "token")
    words = ["--base-url", store.server.url, "--organization", "acme", "--progress"]
    words += ["off", "--project", "web", "--pipelines-dir", "pipelines"]
    assert main([*words, "--resource", "issue_history"]) == 2
    assert "issue_history needs the setting history" in capsys.readouterr().err
    assert main([*words, "--resource", "issues", "--history"]) == 0
    store.check()


@pytest.mark.parametrize("table_format", [None, "delta"])
def test_files_cannot_keep_a_history_and_nothing_is_asked(
    store: Store, table_format: Any
) -> None:
    store.destination = dlt.destinations.filesystem(str(store.folder / "files"))
    with pytest.raises(ConfigurationError, match="cannot keep issue_history"):
        runner.load(store.pipeline(), store.source(), table_format=table_format)
    with pytest.raises(Exception, match="cannot keep issue_history"):
        store.pipeline(name="plain").run(store.source(), table_format=table_format)
    assert not store.server.requests


def test_loads_that_know_nothing_of_each_other_refuse_a_history(store: Store) -> None:
    with pytest.raises(ConfigurationError, match="leave history out here"):
        runner.load_shared(store.pipeline(), store.source(), ["issues"])
    with pytest.raises(ConfigurationError, match="leave history out here"):
        runner.run_partition(
            store.pipeline(),
            runner.partitions("web", "2026-01-01", "2026-01-02")[0],
            base_url=store.server.url,
            auth_token="token",
            organization="acme",
            history=True,
        )
    assert not store.server.requests
    runner.load_shared(store.pipeline(), store.source(history=False), ["issues"])


def test_a_history_is_of_the_issues_that_the_user_lets_through(store: Store) -> None:
    def load() -> None:
        source = store.source()
        source.issues.add_map(
            lambda table: table.filter(pc.field("status") != "ignored")
        )
        runner.load(store.pipeline(), source, ["issues"])

    store.issues()[5]["status"] = "ignored"
    load()
    assert len(store.open()) == 44
    store.issues()[5]["status"] = "resolved"
    store.issues()[6]["status"] = "ignored"
    load()
    assert store.states()["i5"] == [("resolved", True)]
    assert store.states()["i6"] == [("unresolved", False)]


def test_plain_dlt_keeps_a_history_too(each_store: Store) -> None:
    store = each_store

    def run() -> None:
        store.pipeline().run(store.source().with_resources("issues", "issue_history"))

    run()
    store.check()
    store.issues()[4]["status"] = "resolved"
    del store.issues()[8]
    run()
    store.check()
    assert len(store.states()) == 45


def test_every_server_has_a_history(
    start: Callable[..., FakeServer], api: str, warehouse: Warehouse
) -> None:
    server = start(api, issues=50, events=0, page_size=20)

    def check() -> None:
        found = warehouse.rows(
            "select id, status from analytics.issue_history where valid_to is null"
        )
        assert sorted(found) == sorted(
            (row["id"], row["status"]) for row in server.rows("issues")
        )

    settings: dict[str, Any] = {"api": api, "history": True, "rows_per_load": 20}
    warehouse.load(server, **settings)
    check()
    rows = server.rows("issues")
    server.remove("issues", "frontend", server.rows("issues", "frontend")[7])
    rows[-1]["status"] = rows[-4]["status"] = "resolved in silence"
    warehouse.load(server, sweep="now", **settings)
    check()
    server.grow(issues=4)
    warehouse.load(server, **settings)
    check()
