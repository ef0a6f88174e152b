"""What must not leave the process is in nothing that a run prints or writes."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest

from analytics_pipeline.demo import Response
from analytics_pipeline.tables.redaction import MASK
from tests.children import ROOT, arguments, environment
from tests.conftest import TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer, Fault
from tests.integration.test_faults import (
    cut_short,
    elsewhere,
    html,
    json_cut_off,
    no_object,
)

# Everything that any library has to say is said.
COMMAND_LINE = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, format="%(message)s %(args)s %(exc_info)s")
from analytics_pipeline.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
IMPORTED = """
import logging, sys, traceback
logging.basicConfig(level=logging.DEBUG)
import dlt
from analytics_pipeline import analytics_source, runner
url, token = sys.stdin.read().split()
pipeline = dlt.pipeline("script", destination="duckdb", dataset_name="analytics")
source = analytics_source(url, token, "acme", ["frontend", "backend"])
print(source, repr(source), source._repr_html_() if hasattr(source, "_repr_html_") else "")
try:
    print(CALL)
except Exception as error:
    traceback.print_exc()
    print(repr(error), vars(error))
print(pipeline.last_trace, pipeline.last_trace.asstr(9), pipeline.state)
"""


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def python(code: str, *words: str, said: str = "", **variables: str) -> str:
    """A process that runs this; what it printed, both ways."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", code, *words],
        env={**os.environ, "PYTHONPATH": ROOT, "RUNTIME__LOG_LEVEL": "DEBUG"}
        | variables,
        input=said,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return done.stdout + done.stderr


def written(folder: Path) -> Iterator[tuple[str, bytes]]:
    """All that lies below the folder, unpacked where it is packed."""
    for path in folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes()
        yield str(path), content
        if path.suffix == ".gz":
            yield str(path), gzip.decompress(content)
        elif path.suffix == ".parquet":
            yield (
                str(path),
                json.dumps(pq.read_table(path).to_pylist(), default=str).encode(),
            )
        elif path.suffix == ".duckdb":
            with duckdb.connect(str(path)) as database:
                for schema, table in database.execute(
                    "select schema_name, table_name from duckdb_tables()"
                ).fetchall():
                    rows = database.execute(f'from "{schema}"."{table}"').fetchall()
                    yield f"{path} {table}", repr(rows).encode()


def places(secret: str, printed: str, folder: Path) -> list[str]:
    """Where it is found."""
    found = [name for name, content in written(folder) if secret.encode() in content]
    return found + [line for line in printed.splitlines() if secret in line]


def echo(handler: Any, good: Response) -> Response:
    said = {"detail": f"not good: {handler.headers['Authorization']}"}
    return Response(400, good.headers, json.dumps(said).encode())


FAULTS: list[Fault] = [401, 403, 500, echo, html, json_cut_off, no_object, elsewhere]
FAULTS += [cut_short]


@pytest.mark.parametrize(
    "fault", [None, *FAULTS], ids=lambda f: getattr(f, "__name__", f)
)
def test_the_token_is_in_nothing_that_the_command_line_leaves(
    fault: Fault | None, server: FakeServer, warehouse: Warehouse
) -> None:
    if fault:
        server.fail(fault, on="/frontend/events/", after=1, times=99)
    # Waiting for retries is not what this is about.
    code = (
        "import analytics_pipeline.client.retry as p; p.pause = lambda seconds: None\n"
    )
    words = arguments(server, warehouse.folder, "--progress", "log")
    printed = python(code + COMMAND_LINE, *words, **environment())
    assert "GET /v1/projects/acme/frontend/events/" in printed  # urllib3's debug log
    assert ("error: " in printed) == bool(fault)
    assert places(TOKEN, printed, warehouse.folder) == []
    assert places("/frontend/events/", printed, warehouse.folder)  # it would be found


@pytest.mark.parametrize(
    ("call", "fault"),
    [
        ("pipeline.run(source)", None),
        ("pipeline.run(source)", 401),
        ("runner.load(pipeline, source)", echo),
    ],
    ids=["good", "rejected", "incomplete"],
)
def test_the_token_of_a_script_is_in_nothing_that_it_leaves(
    call: str, fault: Fault | None, server: FakeServer, warehouse: Warehouse
) -> None:
    if fault:
        server.fail(fault, on="/backend/issues/", times=99)
    printed = python(IMPORTED.replace("CALL", call), said=f"{server.url} {TOKEN}")
    assert ("IncompleteLoad" in printed) == ("load" in call)
    assert ("HttpError" in printed) == bool(fault)
    assert "analytics" in printed
    assert places(TOKEN, printed, warehouse.folder) == []


def test_what_is_redacted_is_in_no_file(
    server: FakeServer, warehouse: Warehouse
) -> None:
    emails = {row["user"]["email"] for row in server.rows("events") if row.get("user")}
    assert emails
    words = arguments(server, warehouse.folder)
    for path in ("user.email", "user.ip_address", "tags.user.email"):
        words += ["--redact", path]
    printed = python(COMMAND_LINE, *words, **environment())
    for secret in {*emails, "203.0.113."}:
        assert places(secret, printed, warehouse.folder) == []
    rows = warehouse.rows("select user from analytics.events where user is not null")
    users = [json.loads(user) for (user,) in rows]
    assert len(users) == len([r for r in server.rows("events") if r.get("user")])
    assert {user["email"] for user in users} == {MASK}
    assert all(user["id"] != MASK for user in users)
    assert places(users[0]["id"], printed, warehouse.folder)
