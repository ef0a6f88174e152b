"""A failing warehouse is reported in one sentence, and the next run loads all rows."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from analytics_pipeline import runner
from analytics_pipeline.cli.main import main
from tests.assertions import assert_kept, held
from tests.children import arguments, environment, run, start
from tests.conftest import TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer
from tests.postgres import Postgres


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def assert_one_sentence(said: str, *words: str) -> None:
    (line,) = said.splitlines()
    assert re.match(r"(\d{4}-\d\d-\d\d \d\d:\d\d:\d\d )?error: ", line), said
    for word in words:
        assert word in line


class Disk:
    """A file system of 64 MB, visible only to processes started in it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        place.mkdir()
        mount = 'mount -t tmpfs -o size=64m none "$0" && echo ready && exec cat'
        self._holder = subprocess.Popen(
            ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, str(place)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._holder.stdout
        self.is_there = self._holder.stdout.readline() == b"ready\n"
        # The same folder, as other processes see it.
        self.seen = Path(f"/proc/{self._holder.pid}/root{place}")

    def run(self, server: FakeServer, *words: str) -> tuple[int, str]:
        """Run the command line with its working folder and state on this disk."""
        done = subprocess.run(
            [
                *("nsenter", f"--target={self._holder.pid}", "--user", "--mount"),
                *("--preserve-credentials", "sh", "-c", 'cd "$0" && exec "$@"'),
                *(str(self.place), sys.executable, "-m", "analytics_pipeline"),
                *arguments(server, self.place, *words),
            ],
            env=environment() | {"DLT_DATA_DIR": str(self.place / "dlt")},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        return done.returncode, done.stderr

    def fill(self, rest: int) -> None:
        """Fill the disk except for `rest` bytes."""
        free = shutil.disk_usage(self.seen).free
        (self.seen / "filler").write_bytes(bytes(free - rest))

    def clear(self) -> None:
        (self.seen / "filler").unlink()

    def end(self) -> None:
        self._holder.communicate(b"")


@pytest.fixture
def disk(elsewhere: Path) -> Iterator[Disk]:
    if not shutil.which("unshare") or not shutil.which("nsenter"):
        pytest.skip("needs unshare and nsenter, which only Linux has")
    disk = Disk(elsewhere / "small")
    if not disk.is_there:
        pytest.skip("this machine does not let users mount file systems")
    yield disk
    disk.end()


def test_a_full_disk_loses_no_rows(disk: Disk, warehouse: Warehouse) -> None:
    """It fills up while rows are read, prepared or loaded."""
    tables = ["events", "issues"]

    def run() -> tuple[int, str]:
        return disk.run(large, "--resource", "events", "--resource", "issues")

    def inspected() -> Warehouse:
        shutil.copy(disk.seen / f"{runner.NAME}.duckdb", warehouse.folder)
        for wal in disk.seen.glob("*.wal"):
            shutil.copy(wal, warehouse.folder)
        return warehouse

    with small_server(page_size=200) as large:
        code, said = run()
        assert code == 0, said
        for rest in (0, 200_000, 900_000):
            before = {table: held(inspected(), table) for table in tables}
            large.grow(events=2000, issues=200)
            disk.fill(rest)
            code, said = run()
            assert code == 1
            assert_one_sentence(said)
            for table, rows in before.items():
                found = held(inspected(), table)
                assert len(found) in (len(rows), len(large.rows(table)))
            disk.clear()
        code, said = run()
        assert code == 0, said
        assert_kept(inspected(), large, *tables)


# A database that stops


def in_postgres(postgres: Postgres) -> dict[str, list[Any]]:
    columns = {
        "events": "id, title",
        "issues": "id, count::text || last_seen::text",
        "releases": "id, version",
        "projects": "id, name",
        "project_detail": "id, name",
    }
    return {
        table: sorted(postgres.query(f"select {names} from analytics.{table}"))
        for table, names in columns.items()
    }


def assert_loaded(postgres: Postgres, server: FakeServer) -> None:
    """Check that the tables equal a load into a new dataset."""
    found = in_postgres(postgres)
    for table, rows in found.items():
        ids = sorted(str(row["id"]) for row in server.rows(table))
        assert [key for key, _ in rows] == ids
    counts: dict[str, str] = dict(found["issues"])
    for issue in server.rows("issues"):
        assert counts[issue["id"]].startswith(str(issue["count"]))


Run = Callable[..., tuple[int, str]]


@pytest.fixture
def command(
    server: FakeServer,
    elsewhere: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Runs the command line in this process; returns exit code and output."""
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)

    def run(*words: str) -> tuple[int, str]:
        return main(arguments(server, elsewhere, *words)), capsys.readouterr().err

    return run


@pytest.fixture
def to_postgres(postgres: Postgres, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.uri)
    return ["--destination", "postgres"]


def test_a_database_that_stops_while_rows_are_read_loses_no_rows(
    postgres: Postgres, to_postgres: list[str], server: FakeServer, command: Run
) -> None:
    assert command(*to_postgres)[0] == 0
    before = in_postgres(postgres)
    server.grow(events=30, issues=3)

    def stop(handler: Any, good: Any) -> Any:
        postgres.stop()
        return good

    server.fail(stop, on="/backend/issues/")
    code, said = command(*to_postgres)
    postgres.start()
    assert code == 1
    assert_one_sentence(said, "loading into the warehouse failed")
    assert in_postgres(postgres) == before
    assert command(*to_postgres)[0] == 0
    assert_loaded(postgres, server)


def test_a_database_that_stops_during_a_merge_loses_no_rows(
    postgres: Postgres,
    to_postgres: list[str],
    server: FakeServer,
    command: Run,
    elsewhere: Path,
) -> None:
    import psycopg2

    assert command(*to_postgres)[0] == 0
    before = in_postgres(postgres)
    server.grow(events=30, issues=3)
    # The merge waits for this lock in vain.
    lock = psycopg2.connect(postgres.uri)
    lock.cursor().execute("lock table analytics.events in access exclusive mode")
    waiting = "select 1 from pg_locks where not granted"
    with start(server, elsewhere, *to_postgres) as process:
        while not postgres.query(waiting):
            assert process.poll() is None
            time.sleep(0.05)
        postgres.stop()
        _, said = process.communicate(timeout=120)
    postgres.start()
    assert process.returncode == 1
    assert_one_sentence(said, "loading into the warehouse failed")
    assert in_postgres(postgres)["events"] == before["events"]
    assert command(*to_postgres)[0] == 0
    assert_loaded(postgres, server)


def test_an_unreachable_database_is_reported_before_a_request(
    server: FakeServer, command: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg2")
    password = "pa55-w0rd"
    nowhere = f"postgresql://me:{password}@127.0.0.1:1/db"
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", nowhere)
    code, said = command("--destination", "postgres")
    assert code == 1
    assert_one_sentence(said, "refused")
    assert password not in said
    assert not server.requests


def test_a_duckdb_file_open_in_another_process_is_reported(
    server: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(server, tables=["events"])
    server.grow(events=30, issues=3)
    with duckdb.connect(str(warehouse.folder / f"{runner.NAME}.duckdb")):
        code, said = run(server, warehouse.folder)
    assert code == 1
    assert_one_sentence(said, "in use by process", str(os.getpid()))
    warehouse.load(server, tables=["events"])
    assert_kept(warehouse, server, "events")
