"""Rows that break their page and odd answers do not affect the rest."""

import json
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler

import pytest

from analytics_pipeline import runner
from analytics_pipeline.demo import Response
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.errors import IncompleteLoad
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source, small_server
from tests.list_server import ListServer, newest_first

Break = Callable[[BaseHTTPRequestHandler, Response], Response]


def break_pages_with(event: str) -> Break:
    """Answer 500 for each page that holds this row."""

    def answer(handler: BaseHTTPRequestHandler, good: Response) -> Response:
        body = json.loads(good.body)
        rows = body["data"] if isinstance(body, dict) else body
        if any(row["id"] == event for row in rows):
            return json_response(500, {"detail": "Internal Error"})
        return good

    return answer


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_new_rows_are_loaded_if_an_old_row_breaks_its_page(
    api: str, warehouse: Warehouse
) -> None:
    with small_server(api, projects=["frontend"], events=150) as server:
        events = server.rows("events", "frontend")
        server.fail(break_pages_with(events[80]["id"]), on="/events/", times=10_000)
        for rows_per_load in (None, 40, None):
            with pytest.raises(IncompleteLoad, match="events of project 'frontend'"):
                warehouse.load(
                    server,
                    "frontend",
                    ["events"],
                    api=api,
                    rows_per_load=rows_per_load,
                    lookback=4 * 3600,  # the server's rows are hours old
                )
            found = warehouse.ids("events")
            assert events[0]["id"] in found
            assert len(found) == len({*found})
            server.grow(events=1, seconds=600)
            events = server.rows("events", "frontend")
        server.mend()
        warehouse.load(server, "frontend", ["events"], api=api)
        assert sorted(warehouse.ids("events")) == sorted(row["id"] for row in events)


def test_repeated_plain_runs_in_pieces_finish_all_projects(
    warehouse: Warehouse,
) -> None:
    projects = ["p0", "p1", "p2"]
    with ListServer(page_size=20) as server:
        for project in projects:  # all within the lookback
            server.lists[ORGANIZATION, project, "events"] = [
                row | {"id": f"{project}-{row['id']}", "projectID": project}
                for row in newest_first(60, every=0.5)
            ]
        for _ in range(6):
            source = make_source(server, projects, rows_per_load=40, workers=1)
            warehouse.pipeline().run(source.with_resources("events"))
        assert len(warehouse.ids("events")) == 60 * len(projects)


def test_one_answer_of_a_proxy_does_not_suggest_another_api(
    warehouse: Warehouse,
) -> None:
    with small_server("sentry") as server:
        server.fail(403, on="/acme/projects/", times=1000)
        page = Response(200, {"Content-Type": "text/html"}, b"<html>busy</html>")
        server.fail(lambda handler, good: page, on="/events/")
        with pytest.raises(IncompleteLoad) as caught:
            warehouse.load(server, tables=["events", "issues"], api="sentry")
        assert "set api" not in str(caught.value)
        assert len(warehouse.ids("issues")) == len(server.rows("issues"))


def test_a_refused_cursor_of_a_project_named_sort_does_not_suggest_another_api(
    warehouse: Warehouse,
) -> None:
    with small_server("glitchtip", projects=["sort-service"], events=100) as server:
        server.fail(500, on="cursor=", after=1, times=8)
        with pytest.raises(IncompleteLoad):
            warehouse.load(server, "sort-service", ["events"], api="glitchtip")
        server.mend()
        server.fail(422, on="cursor=", times=1)
        warehouse.load(server, "sort-service", ["events"], api="glitchtip")
        assert len(warehouse.ids("events")) == 100


def test_projects_of_the_organization_can_start_on_a_later_page() -> None:
    with ListServer(page_size=20) as server:
        server.lists["", "", "projects"] = [
            {"id": str(n), "slug": f"p{n}", "organization": {"slug": owner}}
            for n, owner in enumerate(["others"] * 50 + [ORGANIZATION] * 5)
        ]
        found = runner.all_projects(
            base_url=server.url, auth_token=TOKEN, organization=ORGANIZATION
        )
        assert found == [f"p{n}" for n in range(50, 55)]


def test_a_name_that_cannot_be_checked_is_reported(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    with small_server("glitchtip") as server:
        server.fail(403, on="/acme/nope/?", times=10)
        warehouse.load(server, ["nope", "frontend"], ["events"], api="glitchtip")
    assert (
        "events of project 'nope': the list is empty; without the scope" in caplog.text
    )
