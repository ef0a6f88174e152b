"""The socket side of the demo server: connections, what was asked, and faults."""

import contextlib
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple
from urllib.parse import parse_qsl, unquote_plus

import orjson


class Request(NamedTuple):
    """What a client asked; header names are in lower case.

    Values of a repeated query parameter are joined by commas.
    """

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]


@dataclass
class Response:
    """An answer that a fault may change; Content-Length is added when it is sent."""

    status: int
    headers: dict[str, str]
    body: bytes


Fault = int | Callable[[BaseHTTPRequestHandler, Response], Response | None]


@dataclass
class Plan:
    """A fault for the requests that contain `on`: `times` of them, after the first."""

    fault: Fault
    on: str
    times: int
    after: int


def json_response(
    status: int, body: Any, headers: dict[str, str] | None = None
) -> Response:
    """An answer with this body as JSON."""
    kind = {"Content-Type": "application/json; charset=utf-8"}
    return Response(status, kind | (headers or {}), orjson.dumps(body))


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1  # buffered: head and small bodies leave as one packet
    server: "HttpServer"

    def do_GET(self) -> None:
        path, _, text = self.path.partition("?")
        query: dict[str, str] = {}
        for name, value in parse_qsl(text, keep_blank_values=True):
            query[name] = f"{query[name]},{value}" if name in query else value
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.command, path, query, headers)
        self.server.requests.append(request)
        good = self.server.answer(request)
        response = self.server.spoil(f"{path}?{unquote_plus(text)}", self, good)
        self.server.statuses.append((request, response.status if response else 0))
        if response is None:
            self.close_connection = True
            return
        self.send_response(response.status)
        length = {"Content-Length": str(len(response.body))}
        for name, value in (length | response.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(response.body)

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: `DemoServer.requests` is the log."""


class HttpServer(ThreadingHTTPServer):
    """Answers GET on a free port; records the requests and spoils some of them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(
        self,
        answer: Callable[[Request], Response],
        requests: list[Request],
        statuses: list[tuple[Request, int]],
        plans: list[Plan],
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answer = answer
        self.requests = requests
        self.statuses = statuses
        self._plans = plans
        self._lock = threading.Lock()
        self._connections: set[Any] = set()

    def spoil(
        self, target: str, handler: BaseHTTPRequestHandler, good: Response
    ) -> Response | None:
        """The good answer, or what the first fault planned for the target makes of it.

        None when the fault has answered by itself.
        """
        fault = self._planned(target)
        if isinstance(fault, int):
            return json_response(fault, {"detail": HTTPStatus(fault).phrase})
        return fault(handler, good) if fault else good

    def _planned(self, target: str) -> Fault | None:
        with self._lock:
            for plan in self._plans:
                if plan.on not in target:
                    continue
                if plan.after > 0:
                    plan.after -= 1
                elif plan.times > 0:
                    plan.times -= 1
                    return plan.fault
        return None

    def process_request(self, request: Any, client_address: Any) -> None:
        self._connections.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Print the error, unless a client just hung up."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)

    def start(self) -> None:
        """Serve in a thread of its own until `stop`."""
        poll = (0.02,)  # seconds that stop() may have to wait
        threading.Thread(target=self.serve_forever, args=poll, daemon=True).start()

    def stop(self) -> None:
        """Close the port and all connections, those kept alive too."""
        self.shutdown()
        self.server_close()
        for connection in list(self._connections):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
