"""After any fault between client and server, the next good run loads all rows."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import runner
from analytics_pipeline.client import session
from analytics_pipeline.demo import Response
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    IncompleteLoad,
    OtherShape,
    UnexpectedAnswer,
    Unreachable,
)
from tests.assertions import assert_kept, held
from tests.conftest import Warehouse, make_source, small_server
from tests.fake_server import FakeServer, Fault
from tests.integration.test_conventions import assert_no_promise_beyond_the_rows

EVENTS = "/frontend/events/"
LIST = "events of project 'frontend'"
PAGE = 20


@pytest.fixture
def server() -> Iterator[FakeServer]:
    """2 of 3 pages of events are in frontend."""
    with small_server() as server:
        yield server


@pytest.fixture
def load(warehouse: Warehouse, server: FakeServer) -> Callable[[], Any]:
    return lambda: warehouse.load(server, tables=["events"])


def assert_only_read_pages(
    warehouse: Warehouse, server: FakeServer, before: Sequence[Any], pages: int
) -> None:
    """Check for the rows before, the first pages of frontend, and all of backend."""
    new = server.rows("events", "frontend")[: pages * PAGE]
    new += server.rows("events", "backend")
    expected = {row["id"] for row in [*before, *new]}
    assert sorted(warehouse.ids("events")) == sorted(expected)
    assert_no_promise_beyond_the_rows(warehouse, server)


def reset(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """Reset the connection in the middle of the body."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(good.body)))
    handler.end_headers()
    handler.wfile.write(good.body[:100])
    handler.wfile.flush()
    at_once = struct.pack("ii", 1, 0)
    handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, at_once)
    os.close(handler.connection.detach())


def cut_short(handler: BaseHTTPRequestHandler, good: Response) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(good.body)))
    handler.end_headers()
    handler.wfile.write(good.body[:-1])


def stuck(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """Stop in the middle of the body for longer than the client waits."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(good.body)))
    handler.end_headers()
    handler.wfile.write(good.body[:100])
    handler.wfile.flush()
    threading.Event().wait(0.3)


@pytest.mark.parametrize(
    "fault", [503, reset, stuck], ids=lambda f: getattr(f, "__name__", f)
)
def test_a_list_fails_only_after_three_retries_and_alone(
    fault: Fault,
    server: FakeServer,
    warehouse: Warehouse,
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(session, "TIMEOUT", (1, 0.1))
    server.fail(fault, on=f"{EVENTS}?")
    server.fail(fault, on=f"{EVENTS}?cursor", times=3)
    load()
    assert_kept(warehouse, server, "events")
    before = held(warehouse, "events")
    server.grow(events=40)
    server.fail(fault, on=f"{EVENTS}?cursor", times=4)
    with pytest.raises(IncompleteLoad) as caught:
        load()
    assert [*caught.value.failures] == [LIST]
    kind = HttpError if isinstance(fault, int) else ApiError
    assert type(caught.value.failures[LIST]) is kind
    assert_only_read_pages(warehouse, server, before, pages=1)
    load()
    assert_kept(warehouse, server, "events")


def test_a_failed_plain_run_leaves_rows_and_state_unchanged(
    server: FakeServer, warehouse: Warehouse, load: Callable[[], Any]
) -> None:
    load()
    before, bookmarks = held(warehouse, "events"), warehouse.bookmarks()
    server.grow(events=40)
    server.fail(cut_short, on=f"{EVENTS}?cursor", times=4)
    projects = ["frontend", "backend"]
    source = make_source(server, projects)
    with pytest.raises(PipelineStepFailed) as caught:
        warehouse.pipeline().run(source.with_resources("events"))
    assert isinstance(runner.root_error(caught.value), ApiError)
    assert (held(warehouse, "events"), warehouse.bookmarks()) == (before, bookmarks)
    load()
    assert_kept(warehouse, server, "events")


def test_a_server_that_stops_between_two_pages_loses_no_rows(
    server: FakeServer, warehouse: Warehouse, load: Callable[[], Any]
) -> None:
    def gone(handler: Any, good: Response) -> Response:
        handler.server.socket.close()
        good.headers["Connection"] = "close"
        return good

    with small_server(events=60) as other:
        other.fail(gone, on=EVENTS)
        with pytest.raises(Unreachable, match="refused"):
            warehouse.load(other, "frontend", ["events"])
    load()
    assert_kept(warehouse, server, "events")


def html(handler: Any, good: Response) -> Response:
    return Response(200, {"Content-Type": "text/html"}, b"<title>Log in</title>")


def json_cut_off(handler: Any, good: Response) -> Response:
    return Response(200, good.headers, good.body[:-20])


def no_envelope(handler: Any, good: Response) -> Response:
    return Response(200, good.headers, good.body.replace(b'"data"', b'"rows"', 1))


def no_rows(handler: Any, good: Response) -> Response:
    return Response(200, good.headers, b'{"data": "none"}')


def no_object(handler: Any, good: Response) -> Response:
    return Response(200, good.headers, good.body[:-2] + b", 7]}")


def same_cursor(handler: Any, good: Response) -> Response:
    link = '<http://x/?cursor=a>; rel="next"; results="true"; cursor="a"'
    return Response(200, {"Link": link}, b'{"data": []}')


def elsewhere(handler: Any, good: Response) -> Response:
    return Response(302, {"Location": "http://127.0.0.1:1/v1/"}, b"")


def no_cursor(handler: Any, good: Response) -> Response:
    return Response(200, {"Link": '<>; rel="next"; results="true"'}, good.body)


def unlinked(handler: Any, good: Response) -> Response:
    """Omit the Link header, so that the next pages are not found."""
    del good.headers["Link"]
    return good


BAD: dict[Fault, type[ApiError]] = {
    html: OtherShape,
    json_cut_off: ApiError,
    no_envelope: OtherShape,
    no_rows: OtherShape,
    no_object: UnexpectedAnswer,
    no_cursor: UnexpectedAnswer,
    unlinked: UnexpectedAnswer,
    same_cursor: UnexpectedAnswer,
    elsewhere: ApiError,
    403: HttpError,
    404: HttpError,
    418: HttpError,
}


def test_an_unreadable_answer_fails_its_list_and_leaves_a_gap(
    warehouse: Warehouse,
) -> None:
    projects = [f"p{number}" for number in range(len(BAD) + 1)]
    expected = {
        f"events of project {project!r}": error
        for project, error in zip(projects, BAD.values(), strict=False)
    }
    with small_server(projects=projects, events=156, page_size=3) as server:
        for project, fault in zip(projects, BAD, strict=False):
            server.fail(fault, on=f"/{project}/events/", after=1, times=99)
        with pytest.raises(IncompleteLoad) as caught:
            warehouse.load(server, projects, ["events"])
        failures = caught.value.failures
        assert {name: type(error) for name, error in failures.items()} == expected
        for name, error in failures.items():
            assert str(error).startswith(f"{name}: ")
            assert "\n" not in str(error)
        read = [row["id"] for p in projects for row in server.rows("events", p)[:3]]
        read += [row["id"] for row in server.rows("events", projects[-1])[3:]]
        assert sorted(warehouse.ids("events")) == sorted(read)
        assert_no_promise_beyond_the_rows(warehouse, server)
        server.grow(events=30)
        server.mend()
        warehouse.load(server, projects, ["events"])
        assert_kept(warehouse, server, "events")


def test_a_rejected_token_ends_the_run_at_once(
    server: FakeServer, warehouse: Warehouse, load: Callable[[], Any]
) -> None:
    server.fail(401, on=EVENTS, after=1)
    with pytest.raises(HttpError, match=f"^{LIST}: .*rejected the token") as caught:
        load()
    assert "\n" not in str(caught.value)
    assert held(warehouse, "events") == []
    assert not any(warehouse.bookmarks().values())
    server.grow(events=10)
    load()
    assert_kept(warehouse, server, "events")
