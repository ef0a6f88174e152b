"""Rows gone from the server are kept, with the time in `gone_at`."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.errors import IncompleteLoad
from tests.conftest import Database, Warehouse, set_back, small_server
from tests.integration.test_history import Store
from tests.integration.test_sweep import issue
from tests.list_server import ListServer, ago, detail


@pytest.fixture
def server() -> Iterator[ListServer]:
    """30 issues on two pages."""
    with ListServer() as server:
        rows = [issue(n, 600 * n) for n in range(30)]
        server.lists["acme", "web", "issues"] = rows
        yield server


@pytest.fixture
def store(server: ListServer, warehouse: Warehouse) -> Store:
    return Store(server, warehouse.folder, warehouse.rows, history=False)


@pytest.fixture
def each_store(store: Store, database: Database) -> Store:
    store.destination, store.query = database
    return store


def test_an_issue_is_marked_gone_by_a_sweep_until_it_is_read_again(
    each_store: Store,
) -> None:
    store, rows = each_store, each_store.issues()
    store.load()
    assert not store.gone()
    gone = rows.pop(7)
    store.load(sweep="1d")  # only new rows
    assert not store.gone()
    store.load()
    before = store.gone()
    assert [*before] == [gone["id"]]
    store.load()
    assert store.gone() == before  # the time does not change
    rows.append(gone)
    store.load()
    assert not store.gone()


def test_issues_of_projects_that_were_not_swept_are_not_marked_gone(
    store: Store,
) -> None:
    app = {"id": "app", "slug": "app"}
    rows = [issue(100 + n, 600 * n, project=app) for n in range(5)]
    store.issues("app")[:] = rows
    store.load("web", "app", sweep="never")
    del store.issues()[3], store.issues("app")[3]
    store.load("web", "app", sweep="never")
    assert not store.gone()
    store.server.refused = {"/app/": 500}
    with pytest.raises(IncompleteLoad):
        store.load("web", "app")
    assert [*store.gone()] == ["i3"]  # only of the list that was read
    store.server.refused = {}
    store.load("web")  # without the other project
    assert [*store.gone()] == ["i3"]
    store.load("web", "app")
    assert {*store.gone()} == {"i3", "i103"}


def test_a_later_since_does_not_mark_older_issues_gone(store: Store) -> None:
    store.load(since=ago(600 * 20 + 1))
    del store.issues()[2]
    store.issues()[-1]["lastSeen"] = ago(600 * 40)
    store.load(since=ago(600 * 20 + 1))
    assert [*store.gone()] == ["i2"]


def test_issues_not_seen_for_90_days_are_not_marked_gone_on_sentry(
    warehouse: Warehouse,
) -> None:
    with small_server("sentry") as server:
        warehouse.load(server, "frontend", ["issues"], api="sentry")
        old, deleted = server.rows("issues", "frontend")[:2]
        for row in (old, deleted):
            server.remove("issues", "frontend", row)
        warehouse.rows(
            "update analytics.issues set last_seen = last_seen - interval 100 day"
            f" where id = '{old['id']}'"
        )
        warehouse.load(server, "frontend", ["issues"], api="sentry", sweep="now")
    gone = "select id from analytics.issues where gone_at is not null"
    assert warehouse.rows(gone) == [(deleted["id"],)]


def test_a_long_sweep_does_not_mark_issues_gone_that_aged_during_it(
    warehouse: Warehouse,
) -> None:
    with small_server("sentry") as server:
        warehouse.load(server, "frontend", ["issues"], api="sentry")
        row = server.rows("issues", "frontend")[0]
        server.remove("issues", "frontend", row)
        warehouse.rows(
            "update analytics.issues set last_seen = last_seen - interval 91 day,"
            f" read_at = read_at - interval 10 day where id = '{row['id']}'"
        )
        began_at = (datetime.now(UTC) - timedelta(days=4)).isoformat()
        set_back(warehouse.pipeline(), "", "swept_at", to=began_at)
        warehouse.load(server, "frontend", ["issues"], api="sentry", sweep="never")
    assert not warehouse.rows(
        "select 1 from analytics.issues where gone_at is not null"
    )


def test_the_next_run_marks_issues_gone_if_one_was_killed_before_it_could(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.load(history=True)
    del store.issues()[5]

    def killed(*args: Any) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(runner, "mark_gone", killed)
        with pytest.raises(MemoryError):
            store.load(history=True)
    assert not store.gone()
    store.load(sweep="1d", history=True)
    assert [*store.gone()] == ["i5"]
    ended = "select id from analytics.issue_history where valid_to is not null"
    assert store.query(ended) == [("i5",)]


def test_projects_no_longer_listed_are_marked_gone(each_store: Store) -> None:
    store, lists = each_store, each_store.server.lists
    tables = ("projects", "project_detail")
    lists["", "", "projects"] = [detail("web"), detail("app")]
    store.load("web", "app", tables=tables)
    assert not store.gone("projects")
    lists["", "", "projects"] = [detail("web")]
    store.load("web", tables=tables)
    assert [*store.gone("projects")] == [*store.gone("project_detail")] == ["app"]
    lists["", "", "projects"] = [detail("web"), detail("app")]
    store.load("web", "app", tables=tables)
    assert not store.gone("projects")
    assert not store.gone("project_detail")


def test_a_table_of_an_earlier_version_is_unchanged_until_rows_are_loaded(
    store: Store,
) -> None:
    store.load()
    del store.issues()[5]
    store.load(history=True)
    store.query("alter table analytics.issues drop column gone_at")
    source = analytics_source(store.server.url, "token", "acme", "web", history=True)
    pipeline = store.pipeline()
    pipeline.sync_destination()
    runner.mark_gone(pipeline, source)
    held = "select * from analytics.issue_history where valid_to is not null"
    assert not store.query(held)


def test_plain_dlt_users_can_mark_gone_issues(store: Store) -> None:
    def run() -> None:
        selected = store.source().with_resources("issues")
        pipeline = store.pipeline()
        pipeline.run(selected)
        assert not store.gone()
        runner.mark_gone(pipeline, selected)

    run()
    del store.issues()[0]
    run()
    assert [*store.gone()] == ["i0"]
    assert store.gone()["i0"] < datetime.now(UTC)
