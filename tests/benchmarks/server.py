"""A local server that answers as fast as it can, so that the client is measured.

    python -m tests.benchmarks.server '{"api": "v1", "projects": {"p1": {"events": 20000}}}'

With `"certificate": "file.pem"`, which also holds the key, it speaks https. It prints
its port when it is ready, and ends when its standard input does. `GET /stats` returns
the number of requests since the last time. `GET /set?latency=0.05` delays each answer
by so many seconds, and `GET /set?grow=100` adds newer rows to every list of events.
"""

import asyncio
import json
import os
import ssl
import sys
import threading
import time
from typing import Any
from urllib.parse import unquote

from tests.benchmarks.rows import PAGE, Rows

BEFOREHAND = 600_000_000
"""Bytes of pages that are rendered before the first request; others when requested."""
HEAD = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"


class Server:
    def __init__(
        self,
        api: str,
        projects: dict[str, dict[str, int]],
        full: bool = False,
        latency: float = 0.0,
        depth: float = 0.0,
        beforehand: bool = True,
    ) -> None:
        self.api = api
        self.prefix = "/v1" if api == "v1" else "/api/0"
        self.latency = latency
        self.depth = depth
        """Seconds that each earlier page of the list adds to an answer."""
        self.offset = 0
        """Of the last requested page."""
        self.requests = self.active = self.most = 0
        self.port = 0
        newest = int(time.time()) - 600
        self.lists = {
            (slug, kind): Rows(
                "full" if full and kind == "events" else kind, number, count, newest
            )
            for number, (slug, kinds) in enumerate(projects.items(), start=1)
            for kind, count in kinds.items()
        }
        self.details = [
            {
                "id": str(number),
                "slug": slug,
                "name": slug.title(),
                "dateCreated": "2024-05-01T10:00:00Z",
                "platform": "python",
            }
            for number, slug in enumerate(projects, start=1)
        ]
        self.beforehand = beforehand
        self.ready: dict[tuple[str, str, int], bytes] = {}

    def render(self) -> None:
        """Render the pages of whole lists, up to `BEFOREHAND` bytes."""
        if not self.beforehand:
            return
        size = 0
        for (slug, kind), rows in self.lists.items():
            for offset in range(0, rows.count, PAGE):
                body = self.wrap(rows.page(0, rows.count, offset))
                self.ready[slug, kind, offset] = body
                if (size := size + len(body)) > BEFOREHAND:
                    return

    def wrap(self, rows: bytes) -> bytes:
        return b'{"data":[' + rows + b"]}" if self.api == "v1" else b"[" + rows + b"]"

    def answer(self, target: str) -> bytes:
        path, _, query = target.partition("?")
        params = {
            name: unquote(value)
            for name, _, value in (part.partition("=") for part in query.split("&"))
        }
        if path in ("/stats", "/set"):
            return _whole(json.dumps(self.control(path, params)).encode())
        self.requests += 1
        *_, before, project, last = path.removesuffix("/").split("/")
        if last == "issues" and before == "organizations":
            project = params["query"].partition("project:")[2].split()[0]
        if (rows := self.lists.get((project, last))) is not None:
            return self.page(path, project, last, rows, params)
        if before == "projects" or (last == "projects" or last == "releases"):
            return self.small(last, before == "projects")
        return b"HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\n{}"

    def page(
        self, path: str, project: str, kind: str, rows: Rows, params: dict[str, str]
    ) -> bytes:
        self.offset = offset = int(params.get("cursor", "0:0:0").split(":")[1])
        low, high = 0, rows.count
        if self.api == "sentry" and kind == "events":
            low, high = rows.between(params.get("start"), params.get("end"))
        body = None
        if high - low == rows.first:
            body = self.ready.get((project, kind, offset))
        if body is None:
            body = self.wrap(rows.page(low, high, offset))
        after = offset + PAGE
        more = "true" if after < high - low else "false"
        url = f"http://127.0.0.1:{self.port}{path}?cursor="
        before = max(offset - PAGE, 0)
        link = (
            f'Link: <{url}0:{before}:1>; rel="previous"; results="false";'
            f' cursor="0:{before}:1", <{url}0:{after}:0>; rel="next";'
            f' results="{more}"; cursor="0:{after}:0"\r\n'
        )
        return _whole(body, link)

    def small(self, last: str, one: bool) -> bytes:
        """Return the projects, no releases, or one project."""
        rows: Any = [] if last == "releases" else self.details
        if one:
            rows = next(row for row in self.details if row["slug"] == last)
        link = 'Link: <http://127.0.0.1/>; rel="next"; results="false"; cursor=""\r\n'
        body = json.dumps({"data": rows} if self.api == "v1" else rows).encode()
        return _whole(body, link)

    def control(self, path: str, params: dict[str, str]) -> dict[str, int]:
        self.latency = float(params.get("latency", self.latency))
        for (_, kind), rows in self.lists.items():
            if kind == "events" and "grow" in params:
                rows.count += int(params["grow"])
        counts = {"requests": self.requests, "most": self.most}
        if path == "/stats":
            self.requests = self.most = 0
        return counts


def _whole(body: bytes, link: str = "") -> bytes:
    return f"{HEAD}{link}Content-Length: {len(body)}\r\n\r\n".encode() + body


class Connection(asyncio.Protocol):
    """Reads only the first line of a request; clients send no bodies."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.received = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.received += data
        if not self.received.endswith(b"\r\n\r\n"):
            return
        target = self.received.split(b" ", 2)[1].decode()
        self.received = b""
        server = self.server
        server.active += 1
        server.most = max(server.most, server.active)
        answer = server.answer(target)
        if latency := server.latency + server.depth * server.offset / PAGE:
            asyncio.get_running_loop().call_later(latency, self.send, answer)
        else:
            self.send(answer)

    def send(self, answer: bytes) -> None:
        self.server.active -= 1
        self.transport.write(answer)


async def main(settings: dict[str, Any]) -> None:
    context = None
    if certificate := settings.pop("certificate", None):
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(certificate)
    server = Server(**settings)
    server.render()
    loop = asyncio.get_running_loop()
    listener = await loop.create_server(
        lambda: Connection(server), "127.0.0.1", 0, ssl=context
    )
    server.port = listener.sockets[0].getsockname()[1]
    print(server.port, flush=True)
    await listener.serve_forever()


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    threading.Thread(target=_end_with_input, daemon=True).start()
    asyncio.run(main(json.loads(sys.argv[1])))
