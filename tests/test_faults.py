"""Whatever happens on the way to the server, the next good run completes the rows."""

import os
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any
from urllib.parse import urlsplit

import pytest

from analytics_pipeline import api
from analytics_pipeline.demo import DemoServer, Fault, Response
from analytics_pipeline.errors import (
    AnalyticsError,
    ApiError,
    CursorLoop,
    HttpError,
    UnexpectedAnswer,
    Unreachable,
)
from analytics_pipeline.patience import LONGEST_WAIT
from tests.conftest import Clock, Warehouse, small_server
from tests.promise import assert_kept, held

EVENTS = "/frontend/events/"
YEAR = 31_536_000


@pytest.fixture
def server() -> Iterator[DemoServer]:
    """2 of 3 pages of events are in frontend."""
    with small_server() as server:
        yield server


@pytest.fixture
def load(warehouse: Warehouse, server: DemoServer) -> Callable[[], Any]:
    return lambda: warehouse.load(server, tables=["events"])


def reset(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """In mid-body."""
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


def silent(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """Longer than the client waits; not a byte."""
    threading.Event().wait(0.3)


def stuck(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """The same in mid-body."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(good.body)))
    handler.end_headers()
    handler.wfile.write(good.body[:100])
    handler.wfile.flush()
    silent(handler, good)


PASSING = [429, 500, 502, 503, 504, reset, cut_short, silent, stuck]


@pytest.mark.parametrize("fault", PASSING, ids=lambda f: getattr(f, "__name__", f))
def test_once_and_three_times_pass_and_four_times_leave_all_as_it_was(
    fault: Fault,
    server: DemoServer,
    warehouse: Warehouse,
    load: Callable[[], Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(api, "TIMEOUT", (1, 0.1))
    server.fail(fault, on=f"{EVENTS}?")
    server.fail(fault, on=f"{EVENTS}?cursor", times=3)
    load()
    assert_kept(warehouse, server, "events")
    before, cursors = held(warehouse, "events"), warehouse.cursors()
    server.grow(events=40)
    server.fail(fault, on=f"{EVENTS}?cursor", times=4)
    with pytest.raises((HttpError, Unreachable)):
        load()
    assert (held(warehouse, "events"), warehouse.cursors()) == (before, cursors)
    load()
    assert_kept(warehouse, server, "events")


def test_a_server_that_goes_away_between_two_pages(
    server: DemoServer, warehouse: Warehouse, load: Callable[[], Any]
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


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        (html, UnexpectedAnswer),
        (json_cut_off, UnexpectedAnswer),
        (no_envelope, UnexpectedAnswer),
        (no_rows, UnexpectedAnswer),
        (no_object, UnexpectedAnswer),
        (no_cursor, UnexpectedAnswer),
        (same_cursor, CursorLoop),
        (elsewhere, ApiError),
        (401, HttpError),
        (403, HttpError),
        (404, HttpError),
        (418, HttpError),
    ],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_answer_that_cannot_be_read_ends_the_run_and_moves_nothing(
    fault: Fault,
    error: type[AnalyticsError],
    server: DemoServer,
    warehouse: Warehouse,
    load: Callable[[], Any],
) -> None:
    server.fail(fault, on=EVENTS, after=1, times=2)
    with pytest.raises(error, match="^events of project 'frontend': ") as caught:
        load()
    assert "\n" not in str(caught.value)
    assert held(warehouse, "events") == []
    server.grow(events=10)
    server.mend()
    load()
    assert_kept(warehouse, server, "events")


def test_a_wait_of_a_year_is_cut_and_said(
    server: DemoServer,
    warehouse: Warehouse,
    load: Callable[[], Any],
    clock: Clock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def busy(handler: Any, good: Response) -> Response:
        return Response(429, {"Retry-After": str(YEAR)}, b"{}")

    server.fail(busy, on=EVENTS)
    summary = load()
    assert clock.sleeps == [LONGEST_WAIT]
    assert summary.waited == LONGEST_WAIT
    assert "the server asked for 31,536,000 s" in caplog.text
    assert_kept(warehouse, server, "events")


# Odd lists


def test_an_empty_page_in_the_middle_and_a_short_one_are_no_end(
    server: DemoServer, warehouse: Warehouse, load: Callable[[], Any]
) -> None:
    def emptied(handler: Any, good: Response) -> Response:
        cursor = '<http://x/>; rel="next"; results="true"; cursor="0:0:0"'
        return Response(200, {"Link": cursor}, b'{"data": []}')

    server.fail(emptied, on=f"{EVENTS}?")
    load()
    assert_kept(warehouse, server, "events")


def test_pages_that_repeat_rows_load_them_once_in_their_newest_version(
    server: DemoServer, warehouse: Warehouse
) -> None:
    issues = server.rows("issues", "frontend")

    def seen_again(handler: Any, good: Response) -> Response:
        """The first page is read; then an issue of it changes and moves to the top."""
        latest = issues[0]["lastSeen"]
        issues[19] |= {"lastSeen": latest.replace("Z", "9Z"), "count": "4711"}
        server.touch()
        return good

    server.fail(seen_again, on="/frontend/issues/")
    warehouse.load(server, tables=["issues"])
    warehouse.load(server, tables=["issues"])
    assert_kept(warehouse, server, "issues")


def test_a_list_that_names_another_host_as_its_next_page_is_read_here(
    server: DemoServer, warehouse: Warehouse, load: Callable[[], Any]
) -> None:
    port = urlsplit(server.url).port

    def foreign(handler: Any, good: Response) -> Response:
        link = good.headers["Link"].replace(f"127.0.0.1:{port}", "127.0.0.2:1")
        return Response(200, good.headers | {"Link": link}, good.body)

    server.fail(foreign, on=EVENTS, times=99)
    load()
    assert_kept(warehouse, server, "events")


def test_a_list_ends_with_a_page_without_links(
    server: DemoServer, warehouse: Warehouse, load: Callable[[], Any]
) -> None:
    def unlinked(handler: Any, good: Response) -> Response:
        del good.headers["Link"]
        return good

    server.fail(unlinked, on=f"{EVENTS}?cursor", times=99)
    load()
    assert_kept(warehouse, server, "events")
