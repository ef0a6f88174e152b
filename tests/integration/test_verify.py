"""Verify finds all differences between server and warehouse, and only those."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import dlt
import pytest
from dlt.destinations.exceptions import DatabaseTerminalException

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli import progress
from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import AnalyticsError, ApiError, ConfigurationError
from analytics_pipeline.loading import comparison, second_dataset
from analytics_pipeline.loading.sql import execute
from analytics_pipeline.loading.verification import Counts
from analytics_pipeline.runner import Verification
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import VALIDITY
from tests.conftest import ORGANIZATION, TOKEN, small_server
from tests.fake_server import FakeServer
from tests.list_server import ListServer, ago, detail, event, newest_first
from tests.postgres import Postgres

PROJECTS = ["frontend", "backend"]


class Place:
    """A warehouse and how to load, verify and change it."""

    def __init__(
        self,
        folder: Path,
        destination: Any = "duckdb",
        table_format: str | None = None,
        **options: Any,
    ) -> None:
        self._folder = folder
        self._destination = destination
        self._table_format = table_format
        self._options = options

    def pipeline(self) -> dlt.Pipeline:
        return runner.make_pipeline(
            self._destination,
            pipelines_dir=str(self._folder / "pipelines"),
            **self._options,
        )

    def load(self, server: Any, *tables: str, **settings: Any) -> None:
        made = source(server, **settings)
        runner.load(self.pipeline(), made, tables, self._table_format)

    def verify(
        self, server: Any, *tables: str, repair: bool = False, **settings: Any
    ) -> Verification:
        return runner.verify(
            self.pipeline(), source(server, **settings), tables, repair=repair
        )

    def sql(self, statement: str) -> list[tuple[Any, ...]]:
        with self.pipeline().sql_client() as client:
            rows = client.execute_sql(statement)
        return [tuple(row) for row in rows or ()]

    def content(self, *tables: str) -> dict[str, list[str]]:
        """Return the rows of tables without `read_at` and the columns of dlt."""
        dataset = self.pipeline().dataset()
        others = {"read_at", "_dlt_load_id", "_dlt_id"}
        found = {}
        for table in tables:
            ours = [name for name in dataset[table].columns if name not in others]
            rows = dataset[table].select(*ours).fetchall()
            found[table] = sorted(map(str, rows))
        return found

    def left(self) -> list[str]:
        """Return the datasets and files that verify has left."""
        schemas = "select schema_name from information_schema.schemata"
        found = [
            row[0] for row in self.sql(f"{schemas} where schema_name like '%verify%'")
        ]
        return found + [str(path) for path in self._folder.rglob("*verify*")]

    def bookmarks(self) -> bytes:
        """Return the bookmarks stored in the warehouse."""
        pipeline = self.pipeline()
        pipeline.sync_destination()
        sources: dict[str, Any] = dict(pipeline.state["sources"])
        resources = sources["analytics"]["resources"]
        kept = {name: state.get("bookmarks") for name, state in resources.items()}
        return json.dumps(kept, default=str).encode()


def source(server: Any, **settings: Any) -> Any:
    return analytics_source(
        **{
            "base_url": server.url,
            "auth_token": TOKEN,
            "organization": ORGANIZATION,
            "project": PROJECTS,
            **settings,
        }
    )


@pytest.fixture
def duck(elsewhere: Path) -> Place:
    return Place(elsewhere)


@pytest.fixture(params=["duckdb", "postgres"])
def place(request: pytest.FixtureRequest, elsewhere: Path) -> Place:
    """A place in DuckDB or PostgreSQL."""
    if request.param == "duckdb":
        return Place(elsewhere)
    uri = request.getfixturevalue("postgres").uri
    return Place(elsewhere, dlt.destinations.postgres(uri))


@pytest.fixture
def lists() -> Iterator[ListServer]:
    """50 events and 30 issues of one project, 20 events of another, one release."""
    with ListServer() as server:
        for number, slug in enumerate(PROJECTS, 1):
            row = {**detail(slug), "id": str(number)}
            server.lists["acme", slug, "project_detail"] = [row]
            server.lists["", "", "projects"].append(
                {**row, "organization": {"slug": "acme"}}
            )
        server.lists["acme", "frontend", "events"] = newest_first(50)
        server.lists["acme", "backend", "events"] = [
            event(100 + n, n, projectID="2") for n in range(20)
        ]
        server.lists["acme", "frontend", "issues"] = [issue(n) for n in range(30)]
        server.lists["acme", "", "releases"] = [
            {"id": "r", "version": "1", "dateCreated": ago(50)}
        ]
        yield server


def issue(number: int, minutes: float | None = None, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"i{number:02}",
        "title": f"issue {number}",
        "project": {"id": "1", "slug": "frontend"},
        "lastSeen": ago(number * 10 if minutes is None else minutes),
    } | fields


def differing(found: Verification, table: str) -> dict[str, set[str]]:
    """Return key → columns of the rows that differ."""
    examples = found.examples[table].get("different", [])
    return {each.key: set(each.columns) for each in examples}


def keys(found: Verification, table: str, kind: str) -> list[str]:
    return [each.key for each in found.examples[table].get(kind, [])]


# Differences and repairs


@pytest.mark.parametrize("place", ["postgres"], indirect=True)
def test_changes_made_by_hand_are_found_and_repaired(place: Place) -> None:
    tables = [*TABLES, "issue_history"]
    with small_server() as server:
        place.load(server, history=True)
        loaded, bookmarks = place.content(*tables), place.bookmarks()
        place.sql(
            "delete from events where id in (select id from events order by id limit 5)"
        )
        place.sql(
            "insert into events select * from events"
            " where id = (select max(id) from events)"
        )
        place.sql(
            "update issues set status = 'x', count = count + 1, title = NULL"
            " where id in (select id from issues order by id limit 3)"
        )
        place.sql("delete from releases where id = (select min(id) from releases)")
        place.sql("update project_detail set name = 'x'")
        changed = place.content(*tables)

        found = place.verify(server, history=True)
        totals = found.totals()
        assert place.content(*tables) == changed  # without repair nothing changes
        assert not found.is_equal
        assert totals["events"] == Counts(60, 56, missing=5, doubled=1)
        assert totals["issues"] == Counts(30, 30, different=3)
        assert totals["releases"] == Counts(12, 11, missing=1)
        assert totals["projects"] == Counts(2, 2)
        assert totals["project_detail"] == Counts(2, 2, different=2)
        assert "issue_history" not in totals
        assert set(map(frozenset, differing(found, "issues").values())) == {
            frozenset({"status", "count", "title"})
        }
        assert found.before is None

        repaired = place.verify(server, repair=True, history=True)
    assert repaired.is_equal
    assert repaired.before == totals
    assert place.content(*tables) == loaded
    assert place.bookmarks() == bookmarks
    assert all(counts.is_equal for counts in repaired.totals().values())


@pytest.mark.parametrize("api", ["sentry", "glitchtip"])
def test_verify_works_on_every_server(
    api: str, server: FakeServer, duck: Place
) -> None:
    duck.load(server, "events", "issues", api=api)
    duck.sql("delete from events where id = (select max(id) from events)")
    duck.sql("update issues set status = 'x' where id = (select max(id) from issues)")
    found = duck.verify(server, "events", "issues", repair=True, api=api)
    assert found.before == {
        "events": Counts(60, 59, missing=1),
        "issues": Counts(30, 30, different=1),
    }
    assert found.is_equal


CHANGES = {
    "e0": {"title": "'event 0 '", "type": "'odd'"},  # a space
    "e1": {"title": "''", "tags": "NULL"},
    "e2": {"title": "NULL", "size": "NULL"},
    # The event has no message.
    "e3": {"message": "''", "date_created": "'2099-01-01'"},
    "e4": {"date_created": "date_created + interval '1 microsecond'"},
    "e5": {"date_received": "NULL", '"user"': """'{"id": "2"}'"""},
    "e6": {"size": "size + 1", "extra": "NULL"},
    "e7": {
        "start_timestamp": "start_timestamp + 0.0009765625",
        "tags": """'[{"key": "b", "value": 1}, {"key": "a", "value": "1"}]'""",
    },
    "e8": {"context": """'{"a": [1, 2, {"b": null}]}'""", "extra": """'{"odd": 2}'"""},
    "e9": {"context": """'{"a": [2, 1, {"b": null}], "c": 0.1}'""", "_meta": "'null'"},
}


def test_a_change_of_any_value_is_found_with_its_column(
    lists: ListServer, place: Place
) -> None:
    lists.lists["acme", "frontend", "events"] = [
        event(
            n,
            n,
            dateReceived=ago(n),
            size=2**53 + n,
            startTimestamp=1_700_000_000.25,
            context={"a": [1, 2, {"b": False}], "c": 0.1},
            tags=[{"key": "a", "value": "1"}, {"key": "b", "value": 1}],
            type="error",
            user={"id": "1"},
            odd=1,
        )
        for n in range(10)
    ]
    lists.lists["acme", "frontend", "issues"] = [
        issue(1, hasSeen=False, isPublic=True),
        issue(2, isBookmarked=None),
    ]
    place.load(lists, "events", "issues")
    for key, changes in CHANGES.items():
        assignments = ", ".join(f"{name} = {value}" for name, value in changes.items())
        place.sql(f"update events set {assignments} where id = '{key}'")
    place.sql("update issues set has_seen = NULL, is_public = false where id = 'i01'")
    place.sql(
        "update issues set is_bookmarked = false, last_seen = '2099-01-01'"
        " where id = 'i02'"
    )
    found = place.verify(lists, "events", "issues")
    assert differing(found, "events") == {
        f"1 {key}": {name.strip('"') for name in changes}
        for key, changes in CHANGES.items()
    }
    assert differing(found, "issues") == {
        "i01": {"has_seen", "is_public"},
        "i02": {"is_bookmarked", "last_seen"},
    }
    found = place.verify(lists, "events", "issues", repair=True)
    assert found.before
    assert found.before["events"] == Counts(30, 30, different=10)
    assert found.is_equal


def test_a_loaded_row_dated_in_the_future_is_compared(
    lists: ListServer, duck: Place
) -> None:
    later = (datetime.now(UTC) + timedelta(days=2)).isoformat()
    lists.lists["acme", "frontend", "events"].insert(0, event(77, 0, dateCreated=later))
    duck.load(lists, "events")
    duck.sql("update events set title = 'x' where id = 'e77'")
    found = duck.verify(lists, "events", repair=True)
    assert found.before == {"events": Counts(71, 71, different=1)}
    assert found.is_equal


def test_hourly_figures_are_not_compared(lists: ListServer, duck: Place) -> None:
    rows = lists.lists["acme", "frontend", "issues"]
    rows[:] = [issue(1, stats={"24h": [1]}), issue(2, last_90_days={"count": "1"})]
    lists.lists["", "", "projects"][0]["stats"] = [[1, 2]]
    duck.load(lists, "issues", "projects")
    rows[0]["stats"] = {"24h": [2]}
    rows[1]["last_90_days"] = {"count": "2"}
    lists.lists["", "", "projects"][0]["stats"] = [[1, 3]]
    assert duck.verify(lists, "issues", "projects").is_equal


def test_a_key_sent_twice_is_one_row(lists: ListServer, duck: Place) -> None:
    rows = [event(1, n, title=f"variant {n}") for n in range(5)]
    lists.lists["acme", "frontend", "events"] = rows
    duck.load(lists, "events")
    found = duck.verify(lists, "events", project="frontend")
    assert found.totals()["events"] == Counts(1, 1)


def test_masked_values_are_equal(lists: ListServer, duck: Place) -> None:
    lists.lists["acme", "frontend", "events"] = [
        event(n, n, user={"email": f"{n}@x", "id": n}, message="secret")
        for n in range(10)
    ]
    redact: dict[str, Any] = {"redact": ["user.email", "message", "title"]}
    duck.load(lists, "events", **redact)
    assert duck.verify(lists, "events", **redact).is_equal
    found = duck.verify(lists, "events", project="frontend")
    assert found.totals()["events"].different == 10


DOCUMENTS: list[Any] = [
    {"zz": 1, "a": {"b": [], "aa": {}}, "é": 'ü\u2028\n\t"\\/\x7f', "": None},
    [1.0, -0.0, 0.1, 100.0, 1e22, 12345678.9e1, 1e16, 123456789012345680.0],
    [1e-7, 1e-5, 5e-324, 2.5e-8, 0.0001],
    [2**63 - 1, -(2**63), 2**64 - 1, 2**53 + 1],
    "🐘 x",
    "",
    0,
    False,
    [[[[]]], [None], {}],
    {"time": "2026-01-01T00:00:00Z", "text": '{"a": 1}'},
]
HARD_DOCUMENTS: list[Any] = [
    1e23,
    1.5e300,
    1.7976931348623157e308,
    [1e22, 1e-7],
    {"a": 1e22, "b": 0.00001},
    [2**64, 1e-7, 123456789012345680.0],
]


def test_json_is_compared_regardless_of_how_the_warehouse_writes_it(
    lists: ListServer, place: Place
) -> None:
    documents = [*DOCUMENTS, "port:1e3"]
    if place._destination != "duckdb":
        documents += HARD_DOCUMENTS
    lists.lists["acme", "frontend", "events"] = [
        event(n, n, context=document, further=document)
        for n, document in enumerate(documents)
    ]
    place.load(lists, "events")
    found = place.verify(lists, "events")
    assert differing(found, "events") == {}
    assert found.is_equal
    # This text only looks like an equal number.
    key = f"e{len(DOCUMENTS)}"
    place.sql(f"""update events set context = '"port:1000"' where id = '{key}'""")
    found = place.verify(lists, "events")
    assert differing(found, "events") == {f"1 {key}": {"context"}}


# Projects and spans


def test_rows_of_other_projects_are_left_alone_and_not_counted(
    lists: ListServer, duck: Place
) -> None:
    duck.load(lists, "events", "issues", "project_detail")
    duck.sql("update events set title = 'x' where project_id = '2'")
    duck.sql("insert into events select * from events where project_id = '2'")
    duck.sql(
        """update issues set project = '{"id": "9"}', project_id = '9',
        project_slug = 'other', title = 'x' where id = 'i29'"""
    )
    lists.lists["acme", "frontend", "issues"].pop()  # now in the other project
    before = duck.content("events", "issues")
    duck.sql("delete from events where id = 'e3'")
    tables = ["events", "issues", "project_detail"]
    found = duck.verify(lists, *tables, project="frontend", repair=True)
    assert found.before == {
        "events": Counts(50, 49, missing=1),
        "issues": Counts(29, 29),
        "project_detail": Counts(1, 1),
    }
    assert found.is_equal
    assert duck.content("events", "issues") == before


def test_equal_ids_in_two_projects_are_two_rows(lists: ListServer, duck: Place) -> None:
    lists.lists["acme", "backend", "events"] = [
        row | {"projectID": "2", "title": "other"}
        for row in lists.lists["acme", "frontend", "events"]
    ]
    duck.load(lists, "events")
    duck.sql("update events set title = 'x' where project_id = '2' and id = 'e1'")
    duck.sql("delete from events where project_id = '1' and id = 'e2'")
    found = duck.verify(lists, "events", repair=True)
    assert found.before == {"events": Counts(100, 99, missing=1, different=1)}
    assert found.is_equal


def test_only_rows_from_since_to_until_are_compared(
    lists: ListServer, duck: Place
) -> None:
    lists.lists["acme", "frontend", "events"] = newest_first(10, every=10)
    duck.load(lists, "events", "issues")
    duck.sql("delete from events where id in ('e2', 'e3', 'e5', 'e6')")
    span: dict[str, Any] = {"since": ago(50), "until": ago(20), "project": "frontend"}
    found = duck.verify(lists, "events", "issues", **span)
    assert found.totals()["events"] == Counts(3, 1, missing=2)
    assert found.totals()["issues"] == Counts(3, 3)
    assert keys(found, "events", "missing") == ["1 e3", "1 e5"]
    assert duck.verify(lists, "events", repair=True, **span).is_equal
    found = duck.verify(lists, "events", project="frontend")
    assert found.totals()["events"] == Counts(10, 8, missing=2)


def test_full_events_without_a_date_are_compared_and_repaired(duck: Place) -> None:
    def undated(handler: Any, good: Any) -> Any:
        rows = [
            {k: v for k, v in row.items() if k != "dateCreated"}
            for row in json.loads(good.body)
        ]
        good.body = json.dumps(rows).encode()
        return good

    with small_server("sentry", full_page_size=20) as server:
        server.fail(undated, on="/frontend/events/", times=999)
        settings: dict[str, Any] = {"api": "sentry", "full_events": True}
        duck.load(server, "events", **settings)
        ((dated, every),) = duck.sql("select count(date_created), count(*) from events")
        assert 0 < dated < every == 60
        duck.sql("update events set title = 'x' where date_created is null")
        half = {"until": datetime.now(UTC) - timedelta(days=5), **settings}
        some = duck.verify(server, "events", **half).totals()["events"]
        assert 0 < some.different < every - dated
        assert some.gone == 0
        found = duck.verify(server, "events", repair=True, **settings)
    assert found.before
    assert found.before["events"].different == every - dated
    assert found.is_equal


def test_an_event_whose_issue_was_merged_later_is_found_and_repaired(
    lists: ListServer, duck: Place
) -> None:
    rows = lists.lists["acme", "frontend", "events"]
    for row in rows:
        row["groupID"] = "2"
    duck.load(lists, "events")
    rows[45]["groupID"] = "1"  # far beyond the lookback
    duck.load(lists, "events")
    found = duck.verify(lists, "events", repair=True)
    assert found.before == {"events": Counts(70, 70, different=1)}
    assert found.is_equal
    assert duck.sql("select group_id from events where id = 'e45'") == [("1",)]


# Rows that change meanwhile


def test_an_issue_seen_again_meanwhile_is_neither_different_nor_gone(
    lists: ListServer, duck: Place
) -> None:
    rows = lists.lists["acme", "frontend", "issues"]
    duck.load(lists, "issues")

    def move(request: Any) -> None:
        if request.path.endswith("/frontend/issues/") and "cursor" in request.query:
            again = datetime.now(UTC).isoformat()
            for number in (29, 0):  # one not read yet, and one already read
                row = next(row for row in rows if row["id"] == f"i{number:02}")
                rows.remove(row)
                rows.insert(0, row | {"lastSeen": again, "title": "moved"})
            lists.before = lambda request: None

    lists.before = move
    found = duck.verify(lists, "issues")
    assert found.totals()["issues"] == Counts(28, 28)
    found = duck.verify(lists, "issues", repair=True)
    assert found.before == {"issues": Counts(30, 30, different=2)}
    assert found.is_equal


def test_rows_loaded_during_verify_are_not_differences(
    lists: ListServer, postgres: Postgres, elsewhere: Path
) -> None:
    """In PostgreSQL, because DuckDB admits only one process."""
    place = Place(elsewhere, dlt.destinations.postgres(postgres.uri))
    other = Place(elsewhere / "other", dlt.destinations.postgres(postgres.uri))
    place.load(lists, "events")

    def load(request: Any) -> None:
        is_read = any("/frontend/events/" in each.path for each in lists.requests)
        if not is_read or "/backend/events/" not in request.path:
            return
        lists.before = lambda request: None
        rows = lists.lists["acme", "frontend", "events"]
        rows.insert(0, event(900, 1))  # a late event
        rows[10] |= {"title": "changed"}
        other.load(lists, "events", project="frontend", full_refresh=True)

    lists.requests.clear()
    lists.before = load
    found = place.verify(lists, "events", workers=1)
    counts = found.totals()["events"]
    assert (counts.different, counts.gone, counts.doubled) == (0, 0, 0)
    assert place.sql("select count(*) from events") == [(71,)]
    assert place.verify(lists, "events").totals()["events"] == Counts(71, 71)


def test_rows_gone_from_the_server_are_counted_separately(
    lists: ListServer, duck: Place
) -> None:
    duck.load(lists, "events", "issues")
    duck.sql("insert into events select * from events where id in ('e1', 'e45')")
    del lists.lists["acme", "frontend", "events"][40:]
    del lists.lists["acme", "frontend", "issues"][:2]
    found = duck.verify(lists, "events", "issues")
    assert found.totals()["events"] == Counts(60, 72, doubled=2, gone=10)
    assert found.totals()["issues"] == Counts(28, 30, gone=2)
    found = duck.verify(lists, "events", repair=True)
    assert found.totals()["events"] == Counts(60, 71, doubled=1, gone=10)
    assert keys(found, "events", "doubled") == ["1 e45"]  # it cannot be replaced
    duck.sql("create or replace table events as select distinct * from events")
    span: dict[str, Any] = {"since": ago(90 * 44), "until": ago(90 * 42)}
    found = duck.verify(lists, "events", **span)
    assert found.totals()["events"] == Counts(0, 2, gone=2)
    assert found.is_equal


def test_issues_too_old_for_sentry_to_list_are_not_gone(
    start: Callable[..., FakeServer], duck: Place
) -> None:
    server = start("sentry")
    duck.load(server, "issues", api="sentry")
    for days, number in ((100, 1), (80, 2)):
        duck.sql(
            "insert into issues select * replace (current_timestamp - interval"
            f" {days} days as last_seen, '{number}' as id) from issues limit 1"
        )
    found = duck.verify(server, "issues", api="sentry")
    assert found.totals()["issues"] == Counts(30, 31, gone=1)
    assert keys(found, "issues", "gone") == ["2"]


# Lists that cannot be read


def test_verify_skips_a_refused_list_and_reports_a_failed_one(
    lists: ListServer, duck: Place
) -> None:
    duck.load(lists, "events", "issues")
    duck.sql("update events set title = 'x'")
    lists.refused = {"/backend/events/": 403, "/frontend/issues/": 400}
    found = duck.verify(lists, "events", "issues")
    assert [*found.skipped] == ["events of project 'backend'"]
    assert [*found.failed] == ["issues of project 'frontend'"]
    assert [*found.tables["events"]] == ["frontend"]
    assert [*found.tables["issues"]] == ["backend"]
    assert found.totals()["events"] == Counts(50, 50, different=50)
    assert len(keys(found, "events", "different")) == 10
    assert found.totals()["issues"].is_equal
    lists.refused = {"/": 403}
    found = duck.verify(lists, "events")
    assert not found.is_equal
    assert len(found.failed) == 2
    assert found.skipped == {}


# The history


def test_the_history_is_not_compared_but_updated_by_a_repair(
    lists: ListServer, duck: Place
) -> None:
    with pytest.raises(ConfigurationError, match="issue_history cannot be compared"):
        duck.verify(lists, "issue_history", history=True)
    assert not lists.requests
    duck.load(lists, "issues", history=True)
    lists.lists["acme", "frontend", "issues"][3] |= {"status": "resolved"}
    duck.sql("update issues set status = 'x' where id = 'i05'")
    duck.sql("delete from issues where id = 'i06'")
    assert duck.verify(lists, "issues", history=True, repair=True).is_equal
    rows = duck.sql(f"select id, status, {VALIDITY[1]} is null from issue_history")
    assert len(rows) == 31
    assert {row[1:] for row in rows if row[0] == "i03"} == {
        (None, False),
        ("resolved", True),
    }


def test_a_source_can_be_used_again_to_verify_some_of_its_tables(
    lists: ListServer, duck: Place
) -> None:
    made = source(lists, history=True)
    runner.load(duck.pipeline(), made, ["events", "issues", "issue_history"])
    assert runner.verify(duck.pipeline(), made, ["issues"]).is_equal


# Warehouses


def test_repair_loads_all_rows_into_an_empty_warehouse(
    lists: ListServer, duck: Place
) -> None:
    found = duck.verify(lists, "events", repair=True)
    assert found.before == {"events": Counts(70, 0, missing=70)}
    assert found.totals() == {"events": Counts(70, 70)}


def test_a_pipeline_that_loaded_another_source_first_can_be_verified(
    lists: ListServer, duck: Place
) -> None:
    duck.pipeline().run([{"x": 1}], table_name="x", schema=dlt.Schema("first"))
    duck.load(lists, "events")
    duck.sql("insert into events select * from events where id = 'e35'")
    found = duck.verify(lists, "events", repair=True)
    assert found.before == {"events": Counts(70, 71, doubled=1)}
    assert found.is_equal


def test_a_dropped_table_is_missing_and_reported_on_repair(
    lists: ListServer, duck: Place
) -> None:
    duck.load(lists, "events", "releases")
    duck.sql("drop table releases")
    found = duck.verify(lists, "events", "releases")
    assert found.totals()["releases"] == Counts(1, 0, missing=1)
    assert found.totals()["events"].is_equal
    with pytest.raises(AnalyticsError, match="releases"):
        duck.verify(lists, "releases", repair=True)


def test_a_column_added_by_an_upgrade_counts_as_null(
    lists: ListServer, duck: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    lists.lists["acme", "frontend", "events"][0]["shiny"] = "x"
    duck.load(lists, "events")
    table = TABLES["events"]
    newer = replace(table, lines=f"{table.lines}shiny text New.\n")
    monkeypatch.setitem(TABLES, "events", newer)
    found = duck.verify(lists, "events")
    assert differing(found, "events") == {"1 e0": {"shiny", "extra"}}
    assert duck.verify(lists, "events", repair=True).is_equal
    assert duck.sql("select shiny from events where id = 'e0'") == [("x",)]


def test_odd_ids_and_times_are_compared(lists: ListServer, place: Place) -> None:
    odd = [
        "it's",
        'a "b"',
        "a b",
        "%s %(x)s {y} $1 :z ? \\ \\' --",
        "ü🐘\u2028",
        "x" * 3000,
        "line\nbreak",
        " ",
        "E'\\x'",
        "/* c */;",
    ]
    times = [
        "1850-01-01T00:00:00.000001Z",
        "1969-07-20T20:17:40.123456Z",
        "0001-01-02T00:00:00Z",
        "9999-12-30T23:59:59.999999Z",
        None,
        "2500-01-01T00:00:00Z",
    ]
    lists.lists["acme", "frontend", "events"] = [
        event(0, n, id=key, dateReceived=times[n % len(times)])
        for n, key in enumerate(odd)
    ]
    lists.lists["acme", "frontend", "issues"] = [
        issue(n, id=key, firstSeen=times[n % len(times)]) for n, key in enumerate(odd)
    ]
    place.load(lists, "events", "issues")
    place.sql("update events set title = 'x' where project_id = '1'")
    place.sql("insert into issues select * from issues")
    found = place.verify(lists, "events", "issues", repair=True)
    assert found.before
    assert found.before["events"].different == 10
    assert found.before["issues"] == Counts(10, 20, doubled=10)
    assert found.is_equal


def test_the_time_zone_of_the_session_does_not_matter(
    lists: ListServer, postgres: Postgres, elsewhere: Path
) -> None:
    place = Place(elsewhere, dlt.destinations.postgres(postgres.uri))
    rows = lists.lists["acme", "frontend", "events"]
    rows[0] |= {"dateReceived": "9999-12-31T23:59:59.999999Z"}
    rows[1] |= {"dateReceived": "0001-01-01T00:00:00Z"}
    rows[2] |= {"dateReceived": "1850-01-01T00:00:00Z"}
    place.load(lists, "events")
    postgres.query("alter database postgres set timezone = 'Pacific/Kiritimati'")
    try:
        found = place.verify(lists, "events", since=ago(90 * 20), until=ago(-5))
        assert found.totals()["events"] == Counts(41, 41)
    finally:
        postgres.query("alter database postgres reset timezone")


# The second dataset


WAREHOUSES = ["duckdb", "postgres", "sqlite", "mariadb", "parquet", "delta", "iceberg"]


@pytest.fixture(params=WAREHOUSES)
def warehouse_of_any_kind(request: pytest.FixtureRequest, elsewhere: Path) -> Place:
    kind = request.param
    destination: Any = kind
    if kind == "postgres":
        destination = dlt.destinations.postgres(request.getfixturevalue(kind).uri)
    elif kind == "mariadb":
        uri = request.getfixturevalue(kind).uri
        destination = dlt.destinations.sqlalchemy(uri)
    elif kind == "sqlite":
        pytest.importorskip("sqlalchemy")
        destination = dlt.destinations.sqlalchemy("sqlite:///warehouse.db")
    elif kind != "duckdb":
        module = {"delta": "deltalake", "iceberg": "pyiceberg"}.get(kind, "pyarrow")
        pytest.importorskip(module)
        destination = dlt.destinations.filesystem("lake")
    return Place(elsewhere, destination, kind if kind in ("delta", "iceberg") else None)


@pytest.mark.filterwarnings("ignore::DeprecationWarning:pyiceberg")
def test_all_kinds_of_warehouses_are_compared_and_repaired(
    lists: ListServer, warehouse_of_any_kind: Place, elsewhere: Path
) -> None:
    place, rows = warehouse_of_any_kind, lists.lists["acme", "frontend", "events"]
    rows[2] |= {"size": 1, "user": {"id": 1}}
    place.load(lists, "events")
    before = place.bookmarks()
    rows[1]["title"] = "EVENT 1"  # equal for MariaDB, which ignores case
    rows[2] |= {"size": None, "user": {"id": 2}}
    rows.insert(5, event(900, 400))
    del rows[20]
    changed = {"1 e1": {"title"}, "1 e2": {"size", "user", "user_id"}}
    found = place.verify(lists, "events")
    assert found.tables["events"] == {
        "frontend": Counts(50, 50, missing=1, different=2, gone=1),
        "backend": Counts(20, 20),
    }
    assert differing(found, "events") == changed
    assert keys(found, "events", "missing") == ["1 e900"]
    assert keys(found, "events", "gone") == ["1 e19"]
    assert place.verify(lists, "events", repair=True).is_equal
    assert place.bookmarks() == before
    assert [*elsewhere.rglob("*verify*")] == []
    if place._destination == "duckdb":
        assert place.left() == []


def test_the_work_of_a_comparison_grows_linearly_with_the_rows(
    lists: ListServer, elsewhere: Path
) -> None:
    """In SQLite, which counts its steps."""
    alchemy = pytest.importorskip("sqlalchemy")
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    def connected(connection: Any, record: Any) -> None:
        connection.set_progress_handler(count, 1000)

    def work(rows: int) -> int:
        lists.lists["acme", "frontend", "events"] = newest_first(rows, every=1)
        sqlite = dlt.destinations.sqlalchemy(f"sqlite:///{rows}.db")
        place = Place(elsewhere / str(rows), sqlite)
        place.load(lists, "events", project="frontend")
        before = steps
        counts = place.verify(lists, "events", project="frontend").totals()
        assert counts["events"] == Counts(rows, rows)
        return steps - before

    lists.page_size = 1000
    alchemy.event.listen(alchemy.engine.Engine, "connect", connected)
    try:
        assert work(2000) < 6 * work(500)  # four times the rows
    finally:
        alchemy.event.remove(alchemy.engine.Engine, "connect", connected)


def test_a_comparison_beyond_the_memory_of_duckdb_is_made_in_parts(
    lists: ListServer, duck: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    duck.load(lists, "events")
    duck.sql("delete from events where id > 'e2' and id < 'e4'")
    duck.sql("update events set title = 'x' where id > 'e11' and id < 'e19'")
    duck.sql("insert into events select * from events where id in ('e12', 'e45')")
    duck.sql("insert into events select * replace ('x' || id as id) from events")
    whole = duck.verify(lists, "events")
    queries = []

    def executed(client: Any, sql: str, tables: Any) -> Any:
        queries.append(sql)
        if "keys_of_both" in sql and "% 64 = " not in sql:
            raise DatabaseTerminalException(ValueError("Out of Memory Error: no block"))
        return execute(client, sql, tables)

    monkeypatch.setattr(comparison, "execute", executed)
    found = duck.verify(lists, "events")
    assert replace(found, seconds=whole.seconds) == whole
    assert sorted(map(len, whole.examples["events"].values())) == [4, 10, 10, 10]
    assert len(queries) == 3 + 5 * 64 + 2  # counts and four kinds; columns that differ


def test_verify_reads_in_pieces(
    lists: ListServer,
    duck: Place,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    duck.load(lists, "events", "issues")
    duck.sql("delete from events where id in ('e1', 'e48')")
    lists.page_size = 5
    monkeypatch.setattr(runner, "ROWS_PER_LOAD", 20)
    with caplog.at_level("INFO", "analytics_pipeline"):
        found = duck.verify(lists, "events", "issues")
    assert found.totals()["events"] == Counts(70, 68, missing=2)
    assert found.totals()["issues"] == Counts(30, 30)
    assert caplog.text.count("is done, and there is more") >= 3


def test_verify_leaves_the_state_and_loads_of_the_warehouse_unchanged(
    lists: ListServer, duck: Place
) -> None:
    duck.load(lists, "events", "issues")
    of_dlt = ["_dlt_loads", "_dlt_pipeline_state", "_dlt_version"]
    before = [duck.sql(f"select * from {name} order by all") for name in of_dlt]
    state = dict(duck.pipeline().state)
    duck.verify(lists, "events", "issues")
    assert [duck.sql(f"select * from {name} order by all") for name in of_dlt] == before
    assert dict(duck.pipeline().state) == state
    assert duck.left() == []
    lists.requests.clear()
    duck.load(lists, "events", "issues")
    assert len(lists.requests) == 4  # only the top of each list


def test_an_interrupted_verify_leaves_nothing(
    lists: ListServer, duck: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    duck.load(lists, "events")
    with monkeypatch.context() as patch:
        patch.setattr(runner, "compare", Mock(side_effect=KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            duck.verify(lists, "events")
    assert duck.left() == []
    lists.refused = {"/": 401}
    with pytest.raises(ApiError, match="401"):
        duck.verify(lists, "events")
    assert duck.left() == []
    lists.refused = {}
    assert duck.verify(lists, "events").totals()["events"] == Counts(70, 70)


def test_leftovers_of_a_killed_verify_are_replaced(
    lists: ListServer, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.load(lists, "events")
    with monkeypatch.context() as patch:
        patch.setattr(second_dataset, "_drop", lambda pipeline: None)
        patch.setattr(second_dataset, "rmtree", lambda *_, **__: None)
        assert place.verify(lists, "events").is_equal
        place.sql("create schema if not exists analytics_verify_staging")
        place.sql("create table analytics_verify_staging.other (id int)")
    assert {"analytics_verify", "analytics_verify_staging"} <= {*place.left()}
    del lists.lists["acme", "frontend", "events"][0]
    assert place.verify(lists, "events").totals()["events"] == Counts(69, 70, gone=1)
    assert place.left() == []


def test_a_dataset_of_another_pipeline_is_not_dropped(
    lists: ListServer, duck: Place
) -> None:
    other = Place(duck._folder, dataset="analytics_verify")
    other.load(lists, "events", project="frontend")
    duck.load(lists, "events")
    lists.requests.clear()
    with pytest.raises(ConfigurationError, match="drop the dataset 'analytics_verify'"):
        duck.verify(lists, "events")
    assert lists.requests == []
    assert other.sql("select count(*) from analytics_verify.events") == [(50,)]


def test_a_missing_permission_names_the_dataset_of_verify(
    lists: ListServer, postgres: Postgres, elsewhere: Path
) -> None:
    Place(elsewhere, dlt.destinations.postgres(postgres.uri)).load(lists, "events")
    postgres.query("create role loader login superuser password 'unused'")
    try:
        postgres.query("alter role loader nosuperuser")
        postgres.query("grant all on schema analytics to loader")
        postgres.query("grant all on all tables in schema analytics to loader")
        uri = postgres.uri.replace("postgres:unused", "loader:unused")
        place = Place(elsewhere, dlt.destinations.postgres(uri))
        lists.requests.clear()
        with pytest.raises(ConfigurationError, match="'analytics_verify'.*permission"):
            place.verify(lists, "events")
        assert lists.requests == []
    finally:
        postgres.query("drop owned by loader; drop role loader")


def test_a_destination_without_sql_is_refused(
    lists: ListServer, elsewhere: Path
) -> None:
    @dlt.destination
    def sink(items: Any, table: Any) -> None:
        pass

    place = Place(elsewhere, sink)
    with pytest.raises(ConfigurationError, match="compares by SQL"):
        place.verify(lists, "events")
    assert lists.requests == []


# The command line


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> Callable[..., int]:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)

    def run(server: Any, *words: str) -> int:
        named = [word for slug in PROJECTS for word in ("--project", slug)]
        given = ["--base-url", server.url, "--organization", ORGANIZATION, *named]
        folder = str(elsewhere / "pipelines")
        options = [*words, *given, "--pipelines-dir", folder]
        return main([*options, "--resource", "events"])

    return run


Output = pytest.CaptureFixture[str]


def test_the_exit_code_of_verify_says_whether_rows_differ(
    run: Callable[..., int], lists: ListServer, duck: Place, capfd: Output
) -> None:
    run(lists, "run")
    assert run(lists, "verify") == 0
    out, err = capfd.readouterr()
    assert out == ""
    assert "the warehouse matches the server" in err
    duck.sql("update events set title = 'x' where id = 'e1'")
    assert run(lists, "verify") == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert re.search(r"^events +frontend +50 +50 +0 +0 +1 +0$", err, re.MULTILINE)
    assert "events, different: 1 e1 (title)" in err
    assert "Use --repair to reload what differs" in err
    assert run(lists, "verify", "--since", ago(60)) == 0
    assert run(lists, "verify", "--repair") == 0
    assert "repaired: 0 missing, 0 doubled, 1 different rows" in capfd.readouterr().err
    lists.refused = {"/backend/events/": 403}
    assert run(lists, "verify") == 3
    err = capfd.readouterr().err
    assert "skipped: events of project 'backend': " in err
    lists.refused = {"/backend/events/": 400}
    assert run(lists, "verify") == 1
    assert "not compared: events of project 'backend': " in capfd.readouterr().err
    lists.refused = {"/": 401}
    assert run(lists, "verify") == 1
    rejected = capfd.readouterr().err
    assert "401" in rejected

    class Nowhere:
        url = "http://127.0.0.1:9"

    assert run(Nowhere, "verify") == 1
    down = capfd.readouterr().err
    assert "127.0.0.1:9" in down
    for err in (rejected, down):
        assert re.search("^error: ", err, re.M)
        assert TOKEN not in err
        assert "Traceback" not in err


def test_verify_prints_only_json_to_standard_output(
    run: Callable[..., int],
    lists: ListServer,
    duck: Place,
    capfd: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(progress, "EVERY", -1.0)
    duck.load(lists, "events")
    duck.sql("delete from events where id = 'e1'")
    capfd.readouterr()
    assert run(lists, "verify", "--json", "--progress", "log") == 1
    out, err = capfd.readouterr()
    found = json.loads(out)
    assert found["tables"] == {
        "events": {
            "server": 70,
            "warehouse": 69,
            "missing": 1,
            "doubled": 0,
            "different": 0,
            "gone": 0,
        }
    }
    assert found["projects"]["events"]["backend"]["server"] == 20
    assert found["examples"]["events"]["missing"] == [
        {"project": "frontend", "key": "1 e1", "columns": []}
    ]
    assert found["before_repair"] is None
    line = r"^events of project 'frontend': 50 rows, back to"
    assert re.search(line, err, re.M)
    assert run(lists, "verify", "--json", "--repair") == 0
    found = json.loads(capfd.readouterr().out)
    assert found["before_repair"]["events"]["missing"] == 1


def test_a_pipeline_that_is_running_is_left_alone(
    run: Callable[..., int], lists: ListServer, duck: Place, capfd: Output
) -> None:
    fcntl = pytest.importorskip("fcntl")
    duck.load(lists, "events")
    capfd.readouterr()
    with open(duck._folder / "pipelines" / f"{runner.NAME}.lock", "a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(lists, "verify") == 1
    assert "is running the pipeline" in capfd.readouterr().err


def test_verify_reports_a_warehouse_that_is_down(
    run: Callable[..., int],
    lists: ListServer,
    capfd: Output,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    uri = f"postgresql://postgres:{TOKEN}@127.0.0.1:9/postgres"
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", uri)
    assert run(lists, "verify", "--destination", "postgres") == 1
    err = capfd.readouterr().err
    assert re.search("^error: ", err, re.M)
    assert "Traceback" not in err
    assert TOKEN not in err
