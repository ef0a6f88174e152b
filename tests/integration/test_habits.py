"""What real servers do that a client must live with."""

import json
import logging
from collections import Counter
from http.server import BaseHTTPRequestHandler

import pytest

from analytics_pipeline.demo import Request, Response
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.errors import HttpError, IncompleteLoad
from analytics_pipeline.runner import Summary
from analytics_pipeline.secrets import MASK
from tests.conftest import Clock, Warehouse, small_server
from tests.fake_server import FakeServer

Log = pytest.LogCaptureFixture


def paths(server: FakeServer, part: str) -> list[Request]:
    return [request for request in server.requests if part in request.path]


def lists_of(project: str) -> set[str]:
    """The lists of a project, as errors name them."""
    tables = ("events", "issues", "project_detail")
    return {f"{table} of project {project!r}" for table in tables}


def test_sentry_is_asked_for_all_issues_and_releases_by_organization(
    warehouse: Warehouse,
) -> None:
    with small_server("sentry") as server:
        warehouse.load(server, tables=["issues", "releases"], api="sentry")
        issues, releases = paths(server, "/issues/"), paths(server, "/releases/")
    assert all(r.path == "/api/0/organizations/acme/issues/" for r in issues)
    assert {r.query["query"] for r in issues} == {"project:frontend", "project:backend"}
    changing = ("query", "cursor")
    rest = [{k: v for k, v in r.query.items() if k not in changing} for r in issues]
    expected = {
        "project": "-1",
        "sort": "date",
        "collapse": "filtered",
        "groupStatsPeriod": "",
        "limit": "100",
    }
    assert all(params == expected for params in rest)
    assert all((r.query["project"], r.query["status"]) == ("-1", "") for r in releases)
    statuses = warehouse.rows("select distinct status from analytics.issues order by 1")
    assert statuses == [("ignored",), ("resolved",), ("unresolved",)]


def test_whole_events_without_date_created_are_loaded(warehouse: Warehouse) -> None:
    def load() -> Summary:
        return warehouse.load(server, tables=["events"], api="sentry", full_events=True)

    with small_server("sentry", events=150) as server:
        first = load()
        server.grow(events=150)
        load()
        assert len(warehouse.ids("events")) == len(server.rows("events")) == 300
    ((undated, whole),) = warehouse.rows(
        "select count(*) filter (date_created is null), count(entries)"
        " from analytics.events where date_received is not null"
    )
    assert undated > 0
    assert whole == 300
    assert first.tables["events"].rows == 150


def test_a_young_release_is_read_again_because_it_changes(warehouse: Warehouse) -> None:
    with small_server("sentry") as server:
        warehouse.load(server, tables=["releases"], api="sentry")
        release = server.rows("releases")[0]
        release["newGroups"] = 99
        summary = warehouse.load(server, tables=["releases"], api="sentry")
    assert summary.tables["releases"].rows == 0
    sql = f"select new_groups from analytics.releases where id = '{release['id']}'"
    assert warehouse.rows(sql) == [(99,)]


def withdrawn(handler: BaseHTTPRequestHandler, good: Response) -> Response:
    successor = {"X-Sentry-Replacement-Endpoint": "/api/0/organizations/acme/teams/"}
    return json_response(410, {"detail": "This API no longer exists."}, successor)


def test_a_withdrawn_address_is_told_with_its_replacement(warehouse: Warehouse) -> None:
    with small_server("sentry") as server, pytest.raises(IncompleteLoad) as caught:
        server.fail(withdrawn, on="/acme/projects/")
        warehouse.load(server, api="sentry", tables=["projects"])
    assert "410 Gone" in str(caught.value)
    assert "for /api/0/organizations/acme/teams/" in str(caught.value)


def test_a_rate_limit_is_waited_for_and_nothing_is_refused_twice(
    warehouse: Warehouse, clock: Clock, caplog: Log
) -> None:
    caplog.set_level(logging.WARNING, "analytics_pipeline")
    with small_server(
        "sentry", events=900, page_size=10, rate_limit=20, clock=clock.time
    ) as server:
        summary = warehouse.load(server, tables=["events"], api="sentry")
        assert len(warehouse.ids("events")) == 900
        refused = Counter(
            json.dumps(request.query)
            for request, status in server.statuses
            if status == 429
        )
        assert len(server.requests) >= 90
    assert max(refused.values(), default=1) == 1
    waits = [record for record in caplog.records if "rate limit" in record.message]
    windows = len(server.requests) // 20
    assert len(waits) <= windows
    assert summary.waited > 120


def test_no_more_requests_at_a_time_than_the_server_allows(
    warehouse: Warehouse, clock: Clock
) -> None:
    slugs = [f"team-{number}" for number in range(8)]
    with small_server(
        "sentry",
        projects=slugs,
        events=400,
        latency=0.002,
        rate_limit=10_000,
        concurrent_limit=2,
        clock=clock.time,
    ) as server:
        warehouse.load(server, slugs, ["events"], api="sentry", workers=8)
        statuses = [status for _, status in server.statuses]
        assert len(warehouse.ids("events")) == 400
    # The first answer tells the limit; until then there is one request at a time.
    assert 429 not in statuses


def test_fifty_projects_are_asked_once_per_list(warehouse: Warehouse) -> None:
    slugs = [f"team-{number}" for number in range(50)]
    tables = ["events", "issues"]
    with small_server(projects=slugs, events=150, issues=50, page_size=100) as server:
        warehouse.load(server, slugs, tables, workers=8)
        before = len(server.requests)
        summary = warehouse.load(server, slugs, tables, workers=8)
        assert len(server.requests) - before == summary.requests == 2 * 50
        assert len(warehouse.ids("events")) == 150
    assert sum(table.rows for table in summary.tables.values()) == 0


@pytest.mark.parametrize(
    ("api", "status"), [("v1", 403), ("sentry", 404), ("glitchtip", 404)]
)
def test_a_refused_project_is_skipped_and_gets_its_history_when_it_opens(
    server: FakeServer, api: str, warehouse: Warehouse, status: int
) -> None:
    server.fail(status, on="/acme/backend/", times=99)
    server.fail(status, on="project:backend", times=99)
    summary = warehouse.load(server, api=api)
    assert {*summary.skipped} == lists_of("backend")
    assert all(str(status) in reason for reason in summary.skipped.values())
    assert len(warehouse.ids("events")) == len(server.rows("events", "frontend"))
    assert len(warehouse.ids("projects")) == 2
    server.mend()
    warehouse.load(server, tables=["events", "issues"], api=api)
    assert len(warehouse.ids("events")) == len(server.rows("events"))
    assert len(warehouse.ids("issues")) == len(server.rows("issues"))


def test_one_event_id_in_two_projects_is_two_rows(warehouse: Warehouse) -> None:
    with small_server() as server:
        twin = server.rows("events", "frontend")[0]
        server.rows("events", "backend")[0]["id"] = twin["id"]
        warehouse.load(server, tables=["events"])
        warehouse.load(server, tables=["events"], full_refresh=True)
    sql = f"select project_id from analytics.events where id = '{twin['id']}'"
    assert len(set(warehouse.rows(sql))) == len(warehouse.rows(sql)) == 2


def test_a_server_that_is_out_of_order_is_not_asked_for_every_list(
    warehouse: Warehouse,
) -> None:
    slugs = [f"team-{number}" for number in range(50)]
    with small_server(projects=slugs) as server:
        server.fail(503, times=9999)
        with pytest.raises(HttpError, match="503"):
            warehouse.load(server, slugs)
        assert len(server.requests) < 100


STRANGE = ["../x", "a/b", "ü", "a b", "%2e%2e", "a?b=c", "a#b"]


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_a_strange_slug_reaches_no_other_endpoint(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    summary = warehouse.load(server, ["frontend", *STRANGE], api=api)
    assert {*summary.skipped} == {each for slug in STRANGE for each in lists_of(slug)}
    prefix = "/v1" if api == "v1" else "/api/0"
    for request in server.requests:
        parts = request.path.removeprefix(prefix).strip("/").split("/")
        if parts[0] == "projects" and len(parts) > 2:
            assert parts[1] == "acme"
            assert parts[2] in ("frontend", "") or "%" in parts[2]
            assert parts[3:] in ([], ["events"], ["issues"])


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_secrets_of_a_project_never_reach_the_warehouse(
    api: str, warehouse: Warehouse
) -> None:
    with small_server(api) as server:
        for row in server.rows("project_detail") + server.rows("projects"):
            row["newThing"] = {
                "deep": [{"db_password": "demo-hidden", "tokenCount": 3}]
            }
            row["dsn"] = {"public": "https://k@host/1", "publicKey": "demo-open"}
        warehouse.load(server, tables=["projects", "project_detail"], api=api)
    for found in warehouse.rows("from analytics.project_detail"):
        text = str(found)
        for secret in ("demo-security-token", "demo-sentry-token", "demo-secret-key"):
            assert secret not in text
        assert "demo-hidden" not in text
        assert "demo-open" in text
        assert '"tokenCount":3' in text
    masked = "select security_token, options->>'sentry:token', extra->>'$.newThing.deep[0].db_password' from analytics.project_detail"
    assert set(warehouse.rows(masked)) == {(MASK, MASK, MASK)}
    held = b"".join(p.read_bytes() for p in warehouse.folder.rglob("*") if p.is_file())
    assert b"demo-security-token" not in held


def test_a_row_dated_in_the_future_does_not_hide_those_to_come(
    warehouse: Warehouse,
) -> None:
    with small_server() as server:
        odd = server.rows("events", "frontend")[3]
        odd["dateCreated"] = "2099-01-01T00:00:00Z"
        warehouse.load(server, tables=["events"])
        server.grow(events=10)
        summary = warehouse.load(server, tables=["events"])
        assert len(warehouse.ids("events")) == len(server.rows("events"))
    assert summary.tables["events"].rows == 10
