"""A server that gives canned answers, a client that reads one list of it, and pages."""

import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.client.page import Page, Record
from analytics_pipeline.client.pagination import Client, Slice
from analytics_pipeline.client.session import ApiSession, RequestStats
from analytics_pipeline.demo.http import Response
from analytics_pipeline.errors import ApiError
from tests.fake_server import FakeServer

TOKEN = "s3cr3t-t0ken"
PATH = "/v1/things/"
THINGS = Endpoint("things", path="/things/", scope="thing:read")
NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)

Answer = Response | Callable[[BaseHTTPRequestHandler, Response], Response | None]


class CannedServer(FakeServer):
    """Gives these answers, whatever it is asked: one after the other; the last stays."""

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
    """The Link header of a page; without a cursor it is the last one."""
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
    """A good answer; with a cursor there is more."""
    return json_answer(200, {"data": [{"id": id} for id in ids]}, link(cursor, host))


def refusal(status: int, detail: str = "no", **headers: str) -> Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return json_answer(status, {"detail": detail}, named)


def redirect(target: str, status: int = 302) -> Response:
    return Response(status, {"Location": target}, b"")


def cut_short(handler: BaseHTTPRequestHandler, good: Response) -> None:
    """An answer whose body ends too early."""
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    handler.wfile.write(b'{"data": [')


@dataclass
class Reader:
    """Wants all of a list; an error ends the reading."""

    endpoint: Endpoint = THINGS
    project: str = ""
    stats: RequestStats = field(default_factory=RequestStats)
    is_full: bool = False

    def room(self) -> float:
        return 0 if self.is_full else math.inf

    def without_windows(self, edge: datetime | None) -> Slice | None:
        return None

    def after_end(self, part: Slice) -> Sequence[Slice]:
        return ()

    def on_error(self, part: Slice, error: ApiError) -> Sequence[Slice]:
        raise error


@dataclass
class Forgiving(Reader):
    """Takes errors upon itself, and reads these slices instead."""

    instead: list[Slice] = field(default_factory=list)
    errors: list[ApiError] = field(default_factory=list)
    next: Sequence[Slice] = ()
    """Read when a list has come to its end."""

    def after_end(self, part: Slice) -> Sequence[Slice]:
        return self.next

    def on_error(self, part: Slice, error: ApiError) -> Sequence[Slice]:
        self.errors.append(error)
        return self.instead


def make_spec(envelope: str | None = "data") -> ApiSpec:
    """An API that has things, and v1's projects."""
    return ApiSpec("/v1", envelope, {**APIS["v1"].endpoints, "things": THINGS})


def make_client(
    url: str,
    *,
    envelope: str | None = "data",
    workers: int = 1,
    organization: str = "acme",
) -> Client:
    """A client of the list of things."""
    session = ApiSession(url, TOKEN, workers)
    return Client(session, make_spec(envelope), organization, workers=workers)


def read(server: CannedServer | str, reader: Reader | None = None) -> list[Record]:
    """All things of a server."""
    client = make_client(server if isinstance(server, str) else server.url)
    pages = client.pages([Slice(reader or Reader())])
    return [record for _, page in pages for record in page.records]


class ListClient(Client):
    """A client whose pages come from a function."""

    def __init__(self, fetch: Callable[[Slice], Page], workers: int) -> None:
        session = ApiSession("http://host.invalid", TOKEN, workers)
        super().__init__(session, make_spec(), "acme", workers=workers)
        self._fetch = fetch

    def fetch(self, part: Slice) -> Page:
        return self._fetch(part)


# Times and pages


def at(*hours: float | None) -> list[datetime | None]:
    """Times so many hours after noon."""
    return [None if hour is None else NOON + timedelta(hours=hour) for hour in hours]


def time(hour: float) -> datetime:
    return NOON + timedelta(hours=hour)


def page_of(*hours: float | None, cursor: str | None = None) -> Page:
    """A page of rows of these times; with a cursor there is more."""
    records = [{"id": hour} for hour in hours]
    return Page(records, at(*hours), cursor, NOON, NOON)
