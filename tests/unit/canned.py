"""A server that gives canned answers, and a client that reads one of its lists."""

import json
import sys
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from analytics_pipeline.client.client import Client, ListName
from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.client.page import Record
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.demo.http import Response
from tests.fake_server import FakeServer

TOKEN = "s3cr3t-t0ken"
PATH = "/v1/things/"
THINGS = Endpoint("things", path="/things/", scope="thing:read")

Answer = Response | Callable[[BaseHTTPRequestHandler, Response], Response | None]


class CannedServer(FakeServer):
    """Sends these answers in turn, and then repeats the last one."""

    def __init__(self, *answers: Answer) -> None:
        super().__init__(projects=[], events=0, issues=0, releases=0)
        self._given = list(answers)
        self.fail(self._next, times=sys.maxsize)

    def _next(self, handler: BaseHTTPRequestHandler, good: Response) -> Response | None:
        more = len(self._given) > 1
        answer = self._given.pop(0) if more else self._given[0]
        return answer(handler, good) if callable(answer) else answer


Serve = Callable[..., CannedServer]


def link(cursor: str | None, host: str = "http://host") -> dict[str, str]:
    """Return the Link header of a page; without a cursor it is the last page."""
    more = "false" if cursor is None else "true"
    url = f"{host}/?cursor={cursor or 'end'}"
    return {
        "Link": f'<{url}>; rel="next"; results="{more}"; cursor="{cursor or "end"}"'
    }


def json_answer(
    status: int, value: Any, headers: dict[str, str] | None = None
) -> Response:
    kind = {"Content-Type": "application/json"}
    return Response(status, kind | (headers or {}), json.dumps(value).encode())


def page(*ids: Any, cursor: str | None = None, host: str = "http://host") -> Response:
    """Return a page of rows with these ids; with a cursor there are more pages."""
    return json_answer(200, {"data": [{"id": id} for id in ids]}, link(cursor, host))


def refusal(status: int, detail: str = "no", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json_answer(status, {"detail": detail}, named)


def redirect(target: str, status: int = 302) -> Response:
    return Response(status, {"Location": target}, b"")


def cut_short(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """Send a body that ends before its Content-Length."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')


def make_client(server: CannedServer | str, api: str = "") -> Client:
    """Return a client of this API, or of one that has things and v1's lists."""
    url = server if isinstance(server, str) else server.url
    things = {**APIS["v1"].endpoints, "things": THINGS}
    spec = APIS[api] if api else ApiSpec("/v1", "data", things)
    return Client(ApiSession(url, TOKEN, 1), spec, "acme", projects=("frontend", "b"))


def read(server: CannedServer | str, wanted: ListName | None = None) -> list[Record]:
    """Return all records of a list, by default of things."""
    pages = make_client(server).pages(wanted or ListName(THINGS))
    return [record for page in pages for record in page.records]
