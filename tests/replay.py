"""Recorded answers of a real GlitchTip, over loopback."""

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

RECORDINGS = Path(__file__).parent / "recordings" / "glitchtip"
ALIASES = {
    "/api/0/organizations/acme/projects/": "/api/0/projects/",
    "/api/0/organizations/acme/issues/": "/api/0/projects/acme/frontend/issues/",
}
"""Path → the one that was recorded: of one organization, both lists are the same."""
JSON = {"content-type": "application/json"}
EMPTY = {"status": 200, "headers": JSON, "body": []}
UNKNOWN = {"status": 404, "headers": JSON, "body": {"detail": "Not Found"}}

Recording = dict[str, Any]


def recorded(*names: str) -> list[Recording]:
    """Return recordings by the start of their file names, in order."""
    return [
        json.loads(path.read_text())
        for name in names
        for path in sorted(RECORDINGS.glob(f"{name}*.json"))
    ]


@contextmanager
def replay(recordings: list[Recording]) -> Iterator[str]:
    """Yields the base URL. The first recording of a list answers without cursor."""
    answers: dict[tuple[str, str], Recording] = {}
    for recording in recordings:
        path, cursor = _key(recording["request"]["url"])
        answers.setdefault((path, ""), recording)
        answers[path, cursor] = recording

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            is_detail = re.search("/projects/[^/]+/[^/]+/$", self.path)
            missing = UNKNOWN if is_detail else EMPTY
            recording = answers.get(_key(self.path), missing)
            body = recording["body"]
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(recording["status"])
            for name, value in recording["headers"].items():
                if name not in ("content-length", "date"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def _key(url: str) -> tuple[str, str]:
    parts = urlsplit(url)
    path = ALIASES.get(parts.path, parts.path)
    return path, parse_qs(parts.query).get("cursor", [""])[0]
