"""Habits of real servers that clients must handle."""

import json
import logging
from collections import Counter

import pytest

from analytics_pipeline.demo import Request
from analytics_pipeline.errors import HttpError
from analytics_pipeline.secrets import MASK
from tests.conftest import Clock, Warehouse, small_server
from tests.fake_server import FakeServer

Log = pytest.LogCaptureFixture


def paths(server: FakeServer, part: str) -> list[Request]:
    return [request for request in server.requests if part in request.path]


def lists_of(project: str) -> set[str]:
    """Return the lists of a project, as errors name them."""
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


def test_a_rate_limit_is_respected_after_one_refusal(
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


def test_concurrent_requests_stay_within_the_limit_of_the_server(
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
    # The first answer contains the limit; until then requests are sequential.
    assert 429 not in statuses


def test_fifty_projects_take_one_request_per_list(warehouse: Warehouse) -> None:
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
def test_a_refused_project_is_loaded_completely_once_access_is_granted(
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


def test_a_server_that_is_down_is_not_asked_for_every_list(
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
def test_a_slug_with_special_characters_reaches_no_other_endpoint(
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
def test_secrets_of_a_project_do_not_reach_the_warehouse(
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
