"""What never works must not keep the rest: rows that break their page, full loads."""

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.demo import Response
from analytics_pipeline.demo.http import json_response
from analytics_pipeline.errors import IncompleteLoad
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer
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


@pytest.fixture
def broken(api: str) -> Iterator[FakeServer]:
    """A server of which one old event breaks each page that holds it."""
    with small_server(api, projects=["frontend"], events=300) as server:
        events = server.rows("events", "frontend")
        server.fail(break_pages_with(events[150]["id"]), on="/events/", times=10_000)
        yield server


@pytest.mark.parametrize("rows_per_load", [None, 60])
def test_a_row_that_breaks_its_page_does_not_keep_new_rows_from_coming(
    broken: FakeServer, api: str, warehouse: Warehouse, rows_per_load: int | None
) -> None:
    new: list[str] = []
    for _ in range(5):
        with pytest.raises(IncompleteLoad, match="events of project 'frontend'"):
            warehouse.load(
                broken,
                "frontend",
                api=api,
                rows_per_load=rows_per_load,
                lookback=4 * 3600,  # the server's rows are some hours old
            )
        broken.grow(events=1, seconds=600)
        new.append(broken.rows("events", "frontend")[0]["id"])
    # In the fourth run at the latest the list was begun anew.
    assert set(new[:2]) <= {*warehouse.ids("events")}
    assert len(warehouse.ids("events")) == len({*warehouse.ids("events")})


def test_a_row_that_breaks_its_page_is_loaded_when_the_server_is_mended(
    broken: FakeServer, api: str, warehouse: Warehouse
) -> None:
    for _ in range(3):
        with pytest.raises(IncompleteLoad):
            warehouse.load(broken, "frontend", api=api)
        broken.grow(events=5)
    broken.mend()
    warehouse.load(broken, "frontend", api=api)
    warehouse.load(broken, "frontend", api=api)
    assert sorted(warehouse.ids("events")) == sorted(
        row["id"] for row in broken.rows("events", "frontend")
    )


@pytest.mark.parametrize("workers", [1, 4])
def test_plain_runs_in_pieces_come_to_an_end_with_all_projects(
    warehouse: Warehouse, workers: int
) -> None:
    projects = [f"p{n}" for n in range(6)]
    with ListServer(page_size=20) as server:
        for project in projects:  # all within the lookback
            rows = newest_first(60, every=0.5)
            server.lists[ORGANIZATION, project, "events"] = [
                row | {"id": f"{project}-{row['id']}", "projectID": project}
                for row in rows
            ]
        for _ in range(20):
            source = analytics_source(
                server.url,
                TOKEN,
                ORGANIZATION,
                projects,
                rows_per_load=40,
                workers=workers,
            )
            warehouse.pipeline().run(source.with_resources("events"))
        assert len(warehouse.ids("events")) == 60 * len(projects)


def test_a_list_that_a_proxy_answers_once_is_no_other_api(
    warehouse: Warehouse,
) -> None:
    with small_server("sentry") as server:
        server.fail(403, on="/acme/projects/", times=1000)
        page = Response(200, {"Content-Type": "text/html"}, b"<html>busy</html>")
        server.fail(lambda handler, good: page, on="/events/")
        with pytest.raises(IncompleteLoad) as caught:
            warehouse.load(server, api="sentry")
        assert "set api" not in str(caught.value)
        assert len(warehouse.ids("issues")) == len(server.rows("issues"))


def test_a_cursor_that_is_refused_for_a_project_named_sort_is_no_other_api(
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


def test_projects_of_the_organization_may_begin_on_a_later_page(
    warehouse: Warehouse,
) -> None:
    with ListServer(page_size=20) as server:
        server.lists["", "", "projects"] = [
            {"id": str(n), "slug": f"p{n}", "organization": {"slug": owner}}
            for n, owner in enumerate(["others"] * 50 + [ORGANIZATION] * 5)
        ]
        settings: dict[str, Any] = {
            "base_url": server.url,
            "auth_token": TOKEN,
            "organization": ORGANIZATION,
        }
        assert runner.all_projects(**settings) == [f"p{n}" for n in range(50, 55)]


def test_that_a_name_cannot_be_checked_is_said(
    warehouse: Warehouse, caplog: pytest.LogCaptureFixture
) -> None:
    with small_server("glitchtip") as server:
        server.fail(403, on="/acme/nope/?", times=10)
        warehouse.load(server, ["nope", "frontend"], ["events"], api="glitchtip")
    assert "events of project 'nope': no rows, and without the scope" in caplog.text
