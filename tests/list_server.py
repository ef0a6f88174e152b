"""An API that serves lists in the order given by a test."""

import json
from collections import defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any, Self

from analytics_pipeline.demo.http import HttpServer, Request, Response

Row = dict[str, Any]
LINK = '<http://x/>; rel="next"; results="{more}"; cursor="{cursor}"'
NOW = datetime.now(UTC).replace(microsecond=0) - timedelta(hours=2)


def ago(minutes: float) -> str:
    """Return the ISO time this many minutes before `NOW`."""
    return (NOW - timedelta(minutes=minutes)).isoformat()


def event(number: int, minutes: float, **fields: Any) -> Row:
    """Return an event from this many minutes before `NOW`."""
    return {
        "id": f"e{number}",
        "projectID": "1",
        "dateCreated": ago(minutes),
        "title": f"event {number}",
    } | fields


def newest_first(count: int, every: float = 90, start: int = 0) -> list[Row]:
    """Return events at an interval of `every` minutes, newest first."""
    return [event(start + n, n * every) for n in range(count)]


class ListServer:
    """Serves v1 lists below `/v1`, or below a further path prefix.

    `lists` maps (organization, project, table) to rows; the project of an organization's
    lists is "", and all projects are at ("", "", "projects"). Other lists are empty.
    """

    def __init__(self, page_size: int = 20, prefix: str = "") -> None:
        self.lists: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
        self.requests: list[Request] = []
        self.page_size = page_size
        self.before: Callable[[Request], object] = lambda request: None
        """Called with each request before it is answered."""
        self.refused: dict[str, int] = {}
        """Part of a path → status with which it is refused."""
        self._prefix = prefix

    def __enter__(self) -> Self:
        self._http = HttpServer(self._respond, self.requests)
        self.url = f"http://127.0.0.1:{self._http.server_port}{self._prefix}"
        self._http.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._http.stop()

    def asked(self, part: str) -> int:
        """Return the number of requests whose path contains this."""
        return sum(part in request.path for request in self.requests)

    def _respond(self, request: Request, handler: BaseHTTPRequestHandler) -> Response:
        self.before(request)
        headers = {"Content-Type": "application/json"}
        for part, status in self.refused.items():
            if part in request.path:
                return Response(status, headers, b'{"detail": "no"}')
        words = request.path.removeprefix(f"{self._prefix}/v1/").strip("/").split("/")
        match words:
            case ["projects"]:
                rows = self.lists["", "", "projects"]
            case ["projects", organization, project, table]:
                rows = self.lists[organization, project, table]
            case ["projects", organization, project]:
                rows = self.lists[organization, project, "project_detail"]
                body = {"data": rows[0] if rows else detail(project)}
                return Response(200, headers, json.dumps(body).encode())
            case ["organizations", organization, table]:
                rows = self.lists[organization, "", table]
            case _:
                return Response(404, headers, b'{"detail": "Not Found"}')
        start = int(request.query.get("cursor", "0"))
        end = start + self.page_size
        more = "true" if end < len(rows) else "false"
        headers["Link"] = LINK.format(more=more, cursor=end)
        return Response(200, headers, json.dumps({"data": rows[start:end]}).encode())


def detail(slug: str) -> Row:
    """Return a project."""
    return {"id": slug, "slug": slug, "name": slug, "dateCreated": ago(100_000)}
