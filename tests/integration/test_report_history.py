"""The report shows the history of issues, and the loaded range of each list."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.loading.loaded_lists import loaded_lists
from analytics_pipeline.loading.sql import Queries
from analytics_pipeline.report import charts, history, page
from analytics_pipeline.report.facts import gather
from analytics_pipeline.report.history import History
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.integration.test_report import IMAGE, Elements, table
from tests.loaded import FILE, copied, load_once
from tests.postgres import Postgres

NOW = datetime(2026, 3, 25, 12, tzinfo=UTC)  # a Wednesday
LISTS = "Loaded range of each list"
PROJECTS = ["frontend", "backend"]  # their ids are 1 and 2

# id, project, first seen, states: status, from, to; days and hours of March 2026.
ISSUES = """
known     1  02-01T00  unresolved 02T08 05T08, resolved 05T08 -
reopened  1  02-01T00  resolved 02T08 12T08, unresolved 12T08 14T08, resolved 14T08 -
new       1  03-10T00  unresolved 10T06 11T06, unresolved 11T06 13T06, resolved 13T06 -
quick     1  03-17T00  resolved 17T12 -
gone      1  02-01T00  unresolved 02T08 20T08
late      1  02-01T00  unresolved 18T08 -
unmuted   1  02-01T00  ignored 02T08 20T08, unresolved 20T08 -
earlier   2  03-10T00  unresolved 15T08 -
returned  2  02-01T00  unresolved 15T08 18T08, unresolved 21T08 -
fast      2  03-16T00  unresolved 16T06 17T00, resolved 17T00 -
"""


def fill(query: Callable[[str], Any], issues: str = ISSUES) -> None:
    """Replace the issues and their history by those above."""

    def time(text: str) -> str:
        return "null" if text == "-" else f"timestamptz '2026-03-{text}:00:00Z'"

    sql = ["delete from analytics.issues", "delete from analytics.issue_history"]
    for line in issues.strip().splitlines():
        name, project, seen, rest = line.split(maxsplit=3)
        sql.append(
            "insert into analytics.issues (id, first_seen)"
            f" values ('{name}', timestamptz '2026-{seen}:00:00Z')"
        )
        for state in rest.split(","):
            status, start, end = [*state.split(), "-"][:3]
            sql.append(
                "insert into analytics.issue_history"
                " (project_id, id, status, version, valid_from, valid_to) values"
                f" ('{project}', '{name}', '{status}', '{start}', {time(start)},"
                f" {time(end)})"
            )
    query("; ".join(sql))


def asked(dataset: dlt.Dataset, now: datetime = NOW) -> History:
    queries = Queries(dataset)
    states = history.gather(queries, gather(queries, now), now)
    assert states
    return states


@pytest.fixture(scope="module")
def loaded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_once(tmp_path_factory.mktemp("loaded"), history=True)


@pytest.fixture
def loaded(loaded_file: Path, warehouse: Warehouse) -> Warehouse:
    """A warehouse with a history of one load."""
    return copied(loaded_file, warehouse)


@pytest.fixture
def filled(loaded: Warehouse) -> Warehouse:
    """A warehouse with the history above."""
    fill(loaded.rows)
    return loaded


def without_charts(pipeline: dlt.Pipeline, now: datetime | None = None) -> str:
    """Return the page without its charts, which take more than half of its time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(charts, "_picture", lambda *_: "")
        return page(pipeline, now)


def check(states: History) -> None:
    """Check the figures of the history above."""
    assert states.began == datetime(2026, 3, 2, 8, tzinfo=UTC)
    assert (states.step, len(states.starts)) == (timedelta(days=1), 24)
    assert states.unresolved == [
        *(2, 2, 2, 1, 1, 1, 1),  # Monday, 2 March, to Sunday
        *(1, 2, 2, 3, 2, 1, 3),
        *(4, 3, 3, 3, 3, 4, 4),
        *(4, 4, 4),
    ]
    assert [week.day for week in states.weeks] == [2, 9, 16, 23]
    assert states.opened == [0, 2, 3, 0]
    assert states.resolved == [1, 2, 2, 0]
    # 12 hours, 2 days, 3 days and 6 hours, 32 days and 8 hours
    assert states.times == [("frontend", 4, 2.625 * 86_400), ("backend", 1, 86_400)]


def test_issues_are_counted_by_what_the_history_says(filled: Warehouse) -> None:
    check(asked(filled.pipeline().dataset()))


def test_postgres_gives_the_same_facts_and_history(
    warehouse: Warehouse, postgres: Postgres
) -> None:
    now = datetime.now(UTC)
    pipeline = runner.make_pipeline(
        dlt.destinations.postgres(postgres.uri), name="other", pipelines_dir="others"
    )
    with small_server() as server:
        warehouse.load(server, history=True)
        source = analytics_source(
            server.url, TOKEN, ORGANIZATION, PROJECTS, history=True
        )
        runner.load(pipeline, source)
    here = gather(Queries(warehouse.pipeline().dataset()), now)
    there = gather(Queries(pipeline.dataset()), now)
    here.loaded = there.loaded = None
    assert here == there
    fill(postgres.query)
    check(asked(pipeline.dataset()))
    assert len(table(without_charts(pipeline, NOW), LISTS)) == 9


def test_the_page_shows_the_history(filled: Warehouse) -> None:
    html = page(filled.pipeline(), NOW)
    header, *days = table(html, "Unresolved issues over time")
    assert header == ["day", "unresolved"]
    assert (days[0], days[-1]) == (["2026-03-02", "2"], ["2026-03-25", "4"])
    assert table(html, "Issues opened and resolved per week") == [
        ["week from", "opened", "resolved"],
        ["2026-03-02", "0", "1"],
        ["2026-03-09", "2", "2"],
        ["2026-03-16", "3", "2"],
        ["2026-03-23", "0", "0"],
    ]
    assert table(html, "Time to resolve an issue") == [
        ["project", "resolved", "median time"],
        ["frontend", "4", "2.6 days"],
        ["backend", "1", "24.0 h"],
    ]
    assert "The history begins 2026-03-02 08:00." in html
    assert ["issue_history", "18"] in [row[:2] for row in table(html, "Tables")]
    ids = [attrs["id"] for _, attrs in Elements(html).found if "id" in attrs]
    assert len(ids) == len(set(ids))


def test_an_issue_without_first_seen_has_no_time_to_resolve(
    filled: Warehouse,
) -> None:
    filled.rows("update analytics.issues set first_seen = null where id = 'fast'")
    *_, backend = table(
        without_charts(filled.pipeline(), NOW), "Time to resolve an issue"
    )
    assert backend == ["backend", "1", "–"]


def test_a_long_history_is_shown_as_of_90_days_ago(filled: Warehouse) -> None:
    for column in ("valid_from", "valid_to"):
        filled.rows(
            f"update analytics.issue_history set {column} = {column} - interval 80 days"
            f" where {column} < timestamptz '2026-03-11'"
        )
    states = asked(filled.pipeline().dataset())
    assert states.starts[0] == datetime(2025, 12, 25, tzinfo=UTC)
    assert (states.unresolved[0], states.unresolved[-1]) == (2, 4)
    assert (sum(states.opened), sum(states.resolved)) == (5, 4)
    assert "The history begins" not in without_charts(filled.pipeline(), NOW)


def test_a_short_history_is_shown_by_the_hour(loaded: Warehouse) -> None:
    html = without_charts(loaded.pipeline())
    (unresolved,) = loaded.rows(
        "select count(*)::varchar from analytics.issues where status = 'unresolved'"
    )
    header, *hours = table(html, "Unresolved issues over time")
    assert header[0] == "hour"
    assert hours[-1][1] == unresolved[0]
    assert "No issues were opened or resolved in this period" in html
    assert "Time to resolve" not in html


def test_changes_between_loads_are_counted(warehouse: Warehouse) -> None:
    with small_server() as server:
        tables = ["issues", "projects"]
        warehouse.load(server, tables=tables, history=True)
        old = [row for row in server.rows("issues") if row["status"] == "unresolved"]
        old[0]["status"] = "resolved"
        server.grow(issues=3)
        warehouse.load(server, tables=tables, history=True, sweep="now")
    now = datetime.now(UTC)
    states = asked(warehouse.pipeline().dataset(), now)
    statuses = warehouse.rows("select status from analytics.issues")
    assert states.unresolved[-1] == statuses.count(("unresolved",))
    assert sum(states.resolved) == 1
    ((project, total, seconds),) = states.times
    assert (project, total) == (old[0]["project"]["slug"], 1)
    age = now - datetime.fromisoformat(old[0]["firstSeen"])
    assert seconds == pytest.approx(age.total_seconds(), abs=60)


@pytest.mark.parametrize("gone", ["projects", "issues"])
def test_the_history_is_shown_without_the_tables_beside_it(
    gone: str, filled: Warehouse
) -> None:
    filled.rows(f"drop table analytics.{gone}")
    states = asked(filled.pipeline().dataset())
    assert states.unresolved[-1] == 4
    if gone == "projects":
        assert [row[0] for row in states.times] == ["1", "2"]
    else:  # it is unknown which issues are new
        assert (sum(states.opened), sum(states.resolved)) == (2, 4)
        assert states.times == [("frontend", 3, 2 * 86_400), ("backend", 1, None)]


@pytest.mark.parametrize("how", ["delete from", "drop table"])
def test_a_history_that_is_empty_or_gone_is_not_shown(
    how: str, loaded: Warehouse
) -> None:
    loaded.rows(f"{how} analytics.issue_history")
    check_no_history(without_charts(loaded.pipeline()))


def test_without_history_the_page_does_not_mention_it(warehouse: Warehouse) -> None:
    with small_server() as server:
        warehouse.load(server, tables=["issues"])
    html = without_charts(warehouse.pipeline())
    check_no_history(html)
    assert "history" not in html.partition("<body>")[2]


def check_no_history(html: str) -> None:
    for title in ("Unresolved issues over time", "per week", "Time to resolve"):
        assert title not in html
    assert "Issues by age and status" in html


def lists(html: str) -> dict[tuple[str, str], list[str]]:
    return {(row[0], row[1]): row[2:] for row in table(html, LISTS)[1:]}


def shown(time: str) -> str:
    return f"{datetime.fromisoformat(time):%Y-%m-%d %H:%M}"


def test_each_list_is_shown_with_its_bookmark(warehouse: Warehouse) -> None:
    since = datetime.now(UTC) - timedelta(days=30)
    with small_server() as server:
        warehouse.load(server, since=since)
    rows = lists(without_charts(warehouse.pipeline()))
    bookmarks = warehouse.bookmarks()
    assert len(rows) == 8
    for name in ("events", "issues"):
        bookmark = bookmarks[name][f"{server.url}/v1 acme/frontend"]
        start, end, whole = rows[name, "acme/frontend"]
        assert start == f"{since:%Y-%m-%d %H:%M}"
        assert end == shown(bookmark["loaded"][0][1])
        swept = f"{shown(bookmark['swept_at'])} 0 min ago" if name == "issues" else "–"
        assert whole == swept
    assert rows["projects", "acme, all projects"] == ["–", "–", "each run"]
    assert rows["project_detail", "acme/backend"] == ["–", "–", "each run"]


def test_lists_come_from_the_warehouse_and_not_from_the_working_folder(
    warehouse: Warehouse,
) -> None:
    with small_server() as server:
        warehouse.load(server, "frontend", ["events"])
        stale = warehouse.pipeline()
        before = dict(stale.state)
        fresh = runner.make_pipeline(pipelines_dir="fresh")
        assert set(lists(without_charts(fresh))) == set(lists(without_charts(stale)))
        source = analytics_source(server.url, TOKEN, ORGANIZATION, "backend")
        runner.load(fresh, source, ["events"])
    assert ("events", "acme/backend") in lists(without_charts(stale))
    assert dict(warehouse.pipeline().state) == before


def test_a_list_that_is_not_loaded_to_its_end_is_incomplete(
    warehouse: Warehouse,
) -> None:
    with small_server(events=200) as server:
        source = analytics_source(
            server.url, TOKEN, ORGANIZATION, PROJECTS, rows_per_load=20
        )
        warehouse.pipeline().run(source.with_resources("events"))
    rows = lists(without_charts(warehouse.pipeline())).values()
    assert any("incomplete" in " ".join(row) for row in rows)


def test_lists_of_several_servers_show_their_addresses(warehouse: Warehouse) -> None:
    with small_server() as one, small_server() as two:
        for server in (one, two):
            warehouse.load(server, tables=["releases"])
    assert set(lists(without_charts(warehouse.pipeline()))) == {
        ("releases", f"acme, all projects {server.url}/v1") for server in (one, two)
    }


def test_lists_of_tables_that_are_gone_are_left_out(loaded: Warehouse) -> None:
    loaded.rows("drop table analytics.events")
    assert {name for name, _ in lists(without_charts(loaded.pipeline()))} == {
        "issues",
        "projects",
        "releases",
        "project_detail",
    }


@pytest.mark.parametrize("how", ["delete from", "drop table"])
def test_a_warehouse_without_state_gives_a_page_without_lists(
    how: str, loaded: Warehouse
) -> None:
    loaded.rows(f"{how} analytics._dlt_pipeline_state")
    assert LISTS not in without_charts(loaded.pipeline())


@pytest.mark.usefixtures("loaded")
def test_another_pipeline_has_no_lists_in_this_dataset() -> None:
    file = dlt.destinations.duckdb(FILE)
    html = without_charts(
        runner.make_pipeline(file, name="other", pipelines_dir="others")
    )
    assert "Newest releases" in html
    assert LISTS not in html


def test_lists_of_a_filesystem_destination_are_found(elsewhere: Path) -> None:
    pipeline = runner.make_pipeline(
        dlt.destinations.filesystem(str(elsewhere / "bucket")),
        pipelines_dir="pipelines",
    )
    assert not loaded_lists(pipeline)
    assert not (elsewhere / "bucket").exists()
    with small_server() as server:
        source = analytics_source(server.url, TOKEN, ORGANIZATION, PROJECTS)
        runner.load(pipeline, source, ["events"])
    assert len(loaded_lists(pipeline)) == 2


SCRIPT_URL = "http://x.test/<script>alert(1)</script>"


@dlt.source(name="analytics")
def source_with_bookmark(key: str) -> Any:
    """A source that stores a bookmark of another list of events."""

    @dlt.resource(name="events")
    def events() -> Iterator[Any]:
        state = dlt.current.resource_state()
        state["bookmarks"][key] = {"completed_at": "2026-03-25T12:00:00Z"}
        yield from ()

    return events


def test_names_of_the_server_are_escaped(filled: Warehouse) -> None:
    filled.rows(f"update analytics.projects set slug = {literal(IMAGE)}")
    for column in ("assigned_to", "release", "substatus"):
        filled.rows(f"update analytics.issue_history set {column} = {literal(IMAGE)}")
    filled.pipeline().run(source_with_bookmark(f"{SCRIPT_URL} acme/{IMAGE}"))
    html = page(filled.pipeline(), NOW)
    assert table(html, "Time to resolve an issue")[1][0] == IMAGE
    row = lists(html)["events", f"acme/{IMAGE} {SCRIPT_URL}"]
    assert row == ["–", "no rows", "–"]
    assert IMAGE not in html
    assert SCRIPT_URL not in html
    assert not {"script", "img"} & {tag for tag, _ in Elements(html).found}


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
