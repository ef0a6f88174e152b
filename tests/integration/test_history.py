"""The history of issues has each state and its validity, whatever happens."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import dlt
import pyarrow.compute as pc
import pytest
from dlt.destinations.sql_jobs import SqlMergeFollowupJob
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.helpers import pipeline_drop

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import AnalyticsError, ConfigurationError, IncompleteLoad
from analytics_pipeline.runner import Summary
from tests.conftest import Database, Warehouse
from tests.fake_server import FakeServer
from tests.integration.test_sweep import at_request, issue
from tests.list_server import ListServer, Row, ago

State = tuple[str | None, bool]
"""A status, and whether it is the current one."""
TABLES = ["issues", "issue_history"]


def of_project(slug: str, start: int, count: int = 25) -> list[Row]:
    project = {"id": slug, "slug": slug}
    return [issue(start + n, 600 * n, project=project) for n in range(count)]


class Store:
    """A warehouse with a history, and its server."""

    def __init__(
        self,
        server: ListServer,
        folder: Path,
        query: Callable[[str], list[tuple[Any, ...]]],
        destination: Any = "duckdb",
        history: bool = True,
    ) -> None:
        self.server = server
        self.query = query
        self.destination = destination
        self.folder = folder
        self.history = history

    def pipeline(self, **options: Any) -> dlt.Pipeline:
        return runner.make_pipeline(
            self.destination, pipelines_dir=str(self.folder / "pipelines"), **options
        )

    def source(self, project: str | list[str] = "web", **settings: Any) -> Any:
        given: dict[str, Any] = {"organization": "acme", "history": self.history}
        given |= {"sweep": "now"} | settings
        return analytics_source(self.server.url, "token", project=project, **given)

    def load(
        self, *project: str, tables: Sequence[str] = ("issues",), **settings: Any
    ) -> Summary:
        """Load the issues of projects, with a sweep by default."""
        source = self.source([*project] or "web", **settings)
        return runner.load(self.pipeline(), source, tables)

    def gone(self, table: str = "issues") -> dict[str, Any]:
        """Return id → `gone_at` of the rows that are gone."""
        sql = f"select id, gone_at from analytics.{table} where gone_at is not null"
        return {str(id): time for id, time in self.query(sql)}

    def drop(self, table: str) -> None:
        """Drop a table as the command of dlt does."""
        pipeline_drop(self.pipeline(), [table])()

    def issues(self, project: str = "web", organization: str = "acme") -> list[Row]:
        return self.server.lists[organization, project, "issues"]

    def change(self) -> list[Row]:
        """Delete some issues and resolve others; return the remaining ones."""
        rows = self.issues()
        del rows[1:4]
        for row in rows[::5]:
            row["status"] = "resolved"
        return rows

    def states(self) -> dict[str, list[State]]:
        """Return issue → its states in order, which must not overlap."""
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
        """Return issue → its current status in the history."""
        return {
            id: states[-1][0] for id, states in self.states().items() if states[-1][1]
        }

    def check(self, *projects: str) -> None:
        """Check that the open states are those of the server's issues."""
        served = [row for name in projects or ["web"] for row in self.issues(name)]
        assert self.open() == {row["id"]: row["status"] for row in served}


@pytest.fixture
def server() -> Iterator[ListServer]:
    """45 issues on three pages, ten hours apart."""
    with ListServer() as server:
        rows = [issue(n, 600 * n) for n in range(45)]
        server.lists["acme", "web", "issues"] = rows
        yield server


@pytest.fixture
def store(server: ListServer, warehouse: Warehouse) -> Store:
    return Store(server, warehouse.folder, warehouse.rows)


@pytest.fixture
def each_store(store: Store, database: Database) -> Store:
    store.destination, store.query = database
    return store


# States begin, change and end


def test_states_begin_change_and_end(store: Store) -> None:
    rows = store.issues()
    store.load()
    store.check()
    assert set(map(len, store.states().values())) == {1}

    row, gone = rows[29], rows.pop(40)
    row["status"] = "resolved"
    rows.insert(0, issue(100, -1))
    store.load(sweep="1d")  # only new rows
    assert store.states()["i100"] == [("unresolved", True)]
    assert store.states()["i29"] == store.states()[gone["id"]] == [("unresolved", True)]

    def move_to_top() -> None:
        """Move an issue of a page already read, and one of the last page."""
        for place in (2, -1):
            moved = rows.pop(place)
            moved |= {"lastSeen": ago(-5), "status": "regressed"}
            rows.insert(0, moved)

    rows[2]["status"] = "ignored"
    moving = [rows[2]["id"], rows[-1]["id"]]
    at_request(store.server, 3, move_to_top)
    assert store.load().loads == 1
    store.check()
    store.server.before = lambda request: None
    words = ["unresolved", "regressed"]
    assert [[status for status, _ in store.states()[id]] for id in moving] == [
        words
    ] * 2
    assert store.states()["i29"] == [("unresolved", False), ("resolved", True)]
    assert store.states()[gone["id"]] == [("unresolved", False)]

    before = store.states()
    store.load()
    assert store.states() == before

    row["status"] = "unresolved"  # as before
    rows.append(gone)  # it is listed again
    store.load()
    store.check()
    words = ["unresolved", "resolved", "unresolved"]
    assert [status for status, _ in store.states()["i29"]] == words
    assert store.states()[gone["id"]] == [("unresolved", False), ("unresolved", True)]

    del rows[:]
    store.load()
    assert store.open() == {}
    assert len(store.states()) == 46


def test_every_database_keeps_all_columns_of_a_state_until_it_ends(
    each_store: Store,
) -> None:
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
        "project_id, project_slug, id, status, substatus, priority, level, assigned_to,"
        " is_unhandled, h.release"
    )
    sql = f"select {columns} from analytics.issue_history h"
    state: Any = ("web", "web", "i0", "unresolved", "new", "high", "fatal")
    assert each_store.query(sql) == [(*state, "o'{0}%s@acme.test", False, "1.2")]
    each_store.load(redact=["assignedTo"])
    assert "acme.test" not in str(each_store.query(f"{sql} where valid_to is null"))
    each_store.check()
    each_store.issues().clear()
    each_store.load()
    assert each_store.open() == {}


# States that must not end


def test_a_project_does_not_end_the_states_of_another(store: Store) -> None:
    store.issues("app")[:] = of_project("app", 1000)
    store.issues("web", "other")[:] = of_project("9", 2000)
    store.server.lists["other", "web", "project_detail"] = [{"id": "9", "slug": "web"}]
    store.load("web", "app")
    store.load("web", organization="other")
    del store.issues()[::2], store.issues("app")[::2], store.issues("web", "other")[::2]
    store.load("web")  # `app` is not in the settings any more
    assert len(store.open()) == len(store.issues()) + 25 + 25
    store.load("web", "app")
    assert len(store.open()) == len(store.issues()) + 12 + 25
    store.load("web", organization="other")
    assert len(store.open()) == len(store.issues()) + 12 + 12


def test_issues_without_their_project_are_matched_by_slug(store: Store) -> None:
    store.issues()[:] = [issue(n, n, project=None) for n in range(30)]
    store.issues("app")[:] = [issue(1000 + n, n, project=None) for n in range(5)]
    store.load("web", "app")
    del store.issues()[3], store.issues("app")[1]
    store.load("web")
    assert len(store.open()) == 29 + 5
    store.load("web", "app")
    store.check("web", "app")


@pytest.mark.parametrize("is_dropped", [False, True])
def test_a_later_since_does_not_end_the_states_of_older_issues(
    store: Store, is_dropped: bool
) -> None:
    store.load()
    if is_dropped:
        store.drop("issues")
    del store.issues()[2]
    store.load(since=ago(600 * 20))
    found = store.open()
    assert {row["id"] for row in store.issues()} == {*found}


def test_issues_gone_while_their_table_was_dropped_have_no_open_state(
    store: Store,
) -> None:
    store.load()
    store.drop("issues")
    store.change()
    store.load()
    store.check()


def test_a_run_reports_how_many_states_are_new(store: Store) -> None:
    def new_states(**settings: Any) -> int:
        return store.load(**settings).tables["issue_history"].rows

    assert new_states(rows_per_load=20) == 45
    assert new_states() == 0
    resolved = sum(row["status"] == "resolved" for row in store.change())
    assert new_states() == resolved > 0


def test_the_history_contains_only_issues_that_pass_the_filters(store: Store) -> None:
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


# Failures and kills


@pytest.mark.parametrize("number", [3, 6])
def test_the_next_run_corrects_states_after_a_failed_sweep(
    store: Store, number: int
) -> None:
    server = store.server
    store.load(rows_per_load=20)
    rows = store.change()
    at_request(server, number, lambda: server.refused.update({"/acme/web/": 500}))
    with suppress(AnalyticsError):
        store.load(rows_per_load=20)
    assert len(server.requests) > number
    assert {row["id"] for row in rows} <= {*store.open()}
    server.before, server.refused = (lambda request: None), {}
    rows[0]["status"] = "ignored"
    del rows[-1]
    # The sweep is resumed, and the issue deleted meanwhile is not gone yet.
    store.load(rows_per_load=20, sweep="1000d")
    store.load(rows_per_load=20)
    store.check()


@pytest.mark.parametrize("step", ["normalize", "load"])
def test_the_next_run_corrects_states_after_a_failed_step_of_dlt(
    store: Store, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """In its second piece, when the warehouse is incomplete."""
    store.load()
    rows = store.change()
    whole = getattr(dlt.Pipeline, step)
    calls: list[str] = []

    def stopping(pipeline: dlt.Pipeline, *args: Any, **options: Any) -> Any:
        calls.append(step)
        if step != "load" and len(calls) == 2:
            raise MemoryError
        done = whole(pipeline, *args, **options)
        if len(calls) == 2:
            raise MemoryError
        return done

    with monkeypatch.context() as patch:
        patch.setattr(dlt.Pipeline, step, stopping)
        with pytest.raises(MemoryError):
            store.load(rows_per_load=20)
    assert {row["id"] for row in rows} <= {*store.open()}
    store.load(rows_per_load=20)
    store.check()


@pytest.mark.parametrize("table", TABLES)
def test_the_next_run_corrects_states_after_loading_only_one_of_the_tables(
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


# On and off


@pytest.mark.parametrize(
    ("is_dropped", "sweep", "rows_per_load"),
    [(False, "never", 20), (True, "1d", None)],
)
def test_a_history_switched_on_later_or_dropped_is_filled_by_the_next_run(
    store: Store, is_dropped: bool, sweep: str, rows_per_load: int | None
) -> None:
    store.issues("app")[:] = of_project("app", 1000)
    projects = ["web", "app"]
    store.load(*projects, history=is_dropped, sweep=sweep)
    if is_dropped:
        store.drop("issue_history")
    pieces: dict[str, Any] = {"rows_per_load": rows_per_load, "workers": 1}
    summary = store.load(*projects, sweep=sweep, **pieces)
    assert summary.loads > 1 or not rows_per_load
    store.check(*projects)
    before = len(store.server.requests)
    store.load(*projects, sweep=sweep)
    assert len(store.server.requests) - before == len(projects)


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


def test_a_run_without_history_leaves_the_table_unchanged(store: Store) -> None:
    store.load()
    before = store.states()
    store.issues()[0]["status"] = "resolved"
    store.load(history=False)
    assert store.states() == before
    store.load()
    store.check()


def test_an_empty_history_hides_no_refusal(store: Store) -> None:
    store.load(history=False)
    store.server.refused = {"/issues/": 403}
    with pytest.raises(IncompleteLoad, match="403"):
        store.load()
    store.server.refused = {}
    store.load()
    store.check()


def test_a_history_cannot_be_loaded_without_the_issues(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ConfigurationError, match="select both"):
        runner.load(store.pipeline(), store.source(), ["issue_history"])
    with pytest.raises(ConfigurationError, match="needs the setting history"):
        runner.load(store.pipeline(), store.source(history=False), TABLES)
    monkeypatch.setenv("AUTH_TOKEN", "token")
    words = ["--base-url", store.server.url, "--organization", "acme", "--progress"]
    words += ["off", "--project", "web", "--pipelines-dir", "pipelines"]
    assert main([*words, "--resource", "issue_history"]) == 2
    assert "issue_history needs the setting history" in capsys.readouterr().err
    assert not store.server.requests
    runner.load(store.pipeline(), store.source(), TABLES)
    store.check()


@pytest.mark.parametrize("table_format", [None, "delta"])
def test_a_history_in_files_is_refused_before_a_request(
    store: Store, table_format: Any
) -> None:
    store.destination = dlt.destinations.filesystem(str(store.folder / "files"))
    with pytest.raises(ConfigurationError, match="cannot keep issue_history"):
        runner.load(store.pipeline(), store.source(), table_format=table_format)
    with pytest.raises(Exception, match="cannot keep issue_history"):
        store.pipeline(name="plain").run(store.source(), table_format=table_format)
    assert not store.server.requests


def test_partitions_and_shared_loads_refuse_a_history(store: Store) -> None:
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


def test_plain_dlt_keeps_a_history(store: Store) -> None:
    def run() -> None:
        pipeline, source = store.pipeline(), store.source()
        pipeline.run(source.with_resources(*TABLES))
        runner.mark_gone(pipeline, source)

    run()
    store.check()
    store.issues()[4]["status"] = "resolved"
    del store.issues()[8]
    run()
    store.check()
    assert len(store.states()) == 45


@pytest.mark.parametrize("api", ["sentry", "glitchtip"])
def test_a_history_works_on_every_server(
    start: Callable[..., FakeServer], api: str, warehouse: Warehouse
) -> None:
    server = start(api, issues=50, events=0, page_size=20)

    def load(**settings: Any) -> None:
        settings |= {"api": api, "history": True, "rows_per_load": 20}
        warehouse.load(server, tables=["issues"], **settings)
        found = warehouse.rows(
            "select id, status from analytics.issue_history where valid_to is null"
        )
        assert sorted(found) == sorted(
            (row["id"], row["status"]) for row in server.rows("issues")
        )

    load()
    rows = server.rows("issues")
    server.remove("issues", "frontend", server.rows("issues", "frontend")[7])
    rows[-1]["status"] = rows[-4]["status"] = "resolved in silence"
    server.grow(issues=4)
    load(sweep="now")
