"""A small HTTP server on a free port of 127.0.0.1."""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl

import orjson


class Request(NamedTuple):
    """A request; header names are in lower case."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Response:
    """A response; its headers replace the default Server, Date and Content-Length."""

    status: int
    headers: dict[str, str]
    body: bytes


def json_response(
    status: int, body: Any, headers: dict[str, str] | None = None
) -> Response:
    """Return a response with this body as JSON."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Response(status, kind | (headers or {}), orjson.dumps(body))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered: headers and a small body leave as one packet
    server: "HttpServer"

    def do_GET(self) -> None:
        path, _, text = self.path.partition("?")
        query = dict(parse_qsl(text, keep_blank_values=True))
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers)
        self.server.requests.append(request)
        response = self.server.respond(request, self)
        if response is None:
            self.close_connection = True
            return
        usual = {
            "Server": self.version_string(),
            "Date": self.date_time_string(),
            "Content-Length": str(len(response.body)),
        }
        self.send_response_only(response.status)
        for name, value in (usual | response.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


class HttpServer(ThreadingHTTPServer):
    """Answer GET requests with `respond`, and append them to `requests`.

    If `respond` returns None, the connection is closed.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        respond: Callable[[Request, BaseHTTPRequestHandler], Response | None],
        requests: list[Request],
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.respond = respond
        self.requests = requests
        self._connections: set[Any] = set()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Remember the connection until it ends."""
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        """Forget the connection."""
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error, unless the client closed the connection."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def start(self) -> None:
        """Serve in a thread until `stop`."""
        poll = (0.02,)  # seconds that stop() may have to wait
        threading.Thread(target=self.serve_forever, args=poll, daemon=True).start()

    def stop(self) -> None:
        """Close the port and all connections, also idle ones."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
