"""Secrets are in nothing that a run prints or writes."""

import gzip
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import duckdb
import pyarrow.parquet as pq
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.demo import Response
from analytics_pipeline.secrets import MASK
from tests.children import ROOT, arguments, environment
from tests.conftest import TOKEN, Warehouse, small_server
from tests.fake_server import Fault
from tests.integration.test_faults import (
    cut_short,
    elsewhere,
    html,
    json_cut_off,
    no_object,
)

# With the debug log of all libraries.
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
for name, call in [
    ("good", dlt.Pipeline.run), ("rejected", dlt.Pipeline.run), ("echo", runner.load)
]:
    pipeline = dlt.pipeline(name, destination="duckdb", dataset_name="analytics")
    source = analytics_source(url, token, "acme", name).with_resources("events")
    html = source._repr_html_() if hasattr(source, "_repr_html_") else ""
    print(source, repr(source), html)
    try:
        print(call(pipeline, source))
    except Exception as error:
        traceback.print_exc()
        print(repr(error), vars(error))
    print(pipeline.last_trace, pipeline.last_trace.asstr(9), pipeline.state)
"""


def python(code: str, *words: str, said: str = "", **variables: str) -> str:
    """Run code in a process and return its output and errors."""
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
    """Return the content of all files below the folder, unpacked."""
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


class Traces:
    """The output of a run and the files below its folder."""

    def __init__(self, printed: str, folder: Path) -> None:
        self._printed = printed.splitlines()
        self._written = [*written(folder)]

    def places(self, secret: str) -> list[str]:
        """Return where a text was found."""
        found = [name for name, content in self._written if secret.encode() in content]
        return found + [line for line in self._printed if secret in line]


def echo(handler: Any, good: Response) -> Response:
    said = {"detail": f"not good: {handler.headers['Authorization']}"}
    return Response(400, good.headers, json.dumps(said).encode())


def test_the_command_line_leaves_neither_the_token_nor_redacted_values(
    warehouse: Warehouse,
) -> None:
    with small_server() as server:
        rows = [row for row in server.rows("events") if row.get("user")]
        emails = {row["user"]["email"] for row in rows}
        assert emails
        words = arguments(server, warehouse.folder, "--progress", "log")
        for path in ("user.email", "user.ip_address", "tags.user.email"):
            words += ["--redact", path]
        printed = python(COMMAND_LINE, *words, **environment())
    traces = Traces(printed, warehouse.folder)
    assert "error: " not in printed
    for secret in {TOKEN, *emails, "203.0.113."}:
        assert traces.places(secret) == []
    found = warehouse.rows("select user from analytics.events where user is not null")
    users = [json.loads(user) for (user,) in found]
    assert len(users) == len(rows)
    assert {user["email"] for user in users} == {MASK}
    assert all(user["id"] != MASK for user in users)
    # Other values are found, so a secret would be, as well.
    assert traces.places(users[0]["id"])
    assert "GET /v1/projects/acme/frontend/events/" in printed  # urllib3's debug log


def token_in_the_cursor(handler: Any, good: Response) -> Response:
    """It would be stored with the bookmark."""
    link = f'<http://h/>; rel="next"; results="true"; cursor="0:{TOKEN}:1"'
    return Response(200, good.headers | {"Link": link}, good.body)


def token_in_a_header_name(handler: Any, good: Response) -> Response:
    return Response(400, good.headers | {f"X {TOKEN}": TOKEN, "Link": TOKEN}, b"{}")


def token_in_the_status_line(handler: Any, good: Response) -> None:
    handler.wfile.write(f"HTTP/1.1 {TOKEN}\r\n\r\n".encode())


def token_in_a_chunk_size(handler: Any, good: Response) -> None:
    head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    handler.wfile.write(f"{head}{TOKEN}\r\n".encode())


COMMON: list[Fault] = [403, 500, echo, html, json_cut_off, no_object, elsewhere]
HOSTILE: list[Fault] = [cut_short, token_in_the_cursor, token_in_a_header_name]
HOSTILE += [token_in_the_status_line, token_in_a_chunk_size]


@pytest.mark.parametrize("faults", [COMMON, HOSTILE], ids=["common", "hostile"])
def test_failures_on_the_command_line_do_not_leave_the_token(
    warehouse: Warehouse, faults: list[Fault]
) -> None:
    projects = [f"p{number}" for number in range(len(faults))]
    # Without waiting for retries.
    code = (
        "import analytics_pipeline.client.retry as p; p.pause = lambda seconds: None\n"
    )
    with small_server(projects=projects, events=160, page_size=4) as server:
        for project, fault in zip(projects, faults, strict=True):
            server.fail(fault, on=f"/{project}/events/", after=1, times=99)
        words = arguments(
            server, warehouse.folder, "--progress", "log", projects=projects
        )
        words += ["--resource", "events"]
        printed = python(code + COMMAND_LINE, *words, **environment())
    assert all(f"events of project '{project}'" in printed for project in projects)
    assert printed.count("error: ") == 1
    traces = Traces(printed, warehouse.folder)
    assert traces.places(TOKEN) == []
    assert traces.places("/p0/events/")  # so the token would be found


def test_a_token_in_rows_is_masked_before_they_are_loaded(warehouse: Warehouse) -> None:
    def echo_in_rows(handler: Any, good: Response) -> Response:
        body = json.loads(good.body)
        body["data"][0] |= {TOKEN: 1, "title": f"Bearer {TOKEN}"}
        return Response(200, good.headers, json.dumps(body).encode())

    with small_server() as server:
        server.fail(echo_in_rows, on="/frontend/events/")
        warehouse.load(server, tables=["events"])
    assert Traces("", warehouse.folder).places(TOKEN) == []
    sql = "select title, extra from analytics.events where extra is not null"
    assert warehouse.rows(sql) == [("Bearer ***", '{"***":1}')]


PASSWORD = "pa55/w0rd+"


@pytest.mark.parametrize("command", ["run", "status", "report"])
def test_a_warehouse_password_repeated_by_its_driver_is_masked(
    warehouse: Warehouse, command: str
) -> None:
    pytest.importorskip("psycopg2")
    quoted = quote(PASSWORD, safe="")
    dsn = f"postgresql+psycopg2://me:{quoted}@127.0.0.1:1/db"
    with small_server() as server:
        words = ["--destination", "postgres", "-vv"]
        words += [] if command == "report" else ["--json"]
        if command == "run":
            words += arguments(server, warehouse.folder, projects=["frontend"])
        variables = {"DESTINATION__POSTGRES__CREDENTIALS": dsn}
        printed = python(COMMAND_LINE, command, *words, **environment() | variables)
    traces = Traces(printed, warehouse.folder)
    assert "me:***@127.0.0.1" in printed
    assert traces.places("pa55") == []


def test_errors_of_a_script_do_not_contain_the_warehouse_password(
    warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg2")
    dsn = f"postgresql+psycopg2://me:{quote(PASSWORD, safe='')}@127.0.0.1:1/db"
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", dsn)
    pipeline = runner.make_pipeline("postgres", pipelines_dir="pipelines")
    source = analytics_source("http://127.0.0.1:1", TOKEN, "acme", "a")
    for call in (
        lambda: runner.load(pipeline, source),
        lambda: runner.status(pipeline),
    ):
        with pytest.raises(Exception, match="invalid dsn") as error:
            call()
        shown = "".join(traceback.format_exception(error.value))
        assert "me:***@127.0.0.1" in shown
        assert "pa55" not in shown
    assert Traces(str(pipeline.last_trace), warehouse.folder).places("pa55") == []


def test_a_script_does_not_leave_the_token(warehouse: Warehouse) -> None:
    with small_server(projects=["good", "rejected", "echo"]) as server:
        server.fail(401, on="/rejected/", times=99)
        server.fail(echo, on="/echo/", times=99)
        printed = python(IMPORTED, said=f"{server.url} {TOKEN}")
    assert "HttpError" in printed
    assert "IncompleteLoad" in printed
    assert "rejected the token" in printed
    assert "not good: Bearer ***" in printed
    traces = Traces(printed, warehouse.folder)
    assert traces.places(TOKEN) == []
    assert traces.places("analytics")
