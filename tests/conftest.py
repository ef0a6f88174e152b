"""Fixtures: no test sleeps, reads the user's settings, or leaves anything behind."""

import os
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import dlt
import duckdb
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.pipeline import PipelineContext

from analytics_pipeline import analytics_source, runner, secrets
from analytics_pipeline.client import retry
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.runner import Summary
from tests.fake_server import FakeServer
from tests.mariadb import MariaDB, mariadb_server
from tests.postgres import Postgres, postgres_server

TOKEN = "tok-3c1f"
ORGANIZATION = "acme"


class Clock:
    """A clock that only `sleep` moves."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0
        self.sleeps: list[float] = []

    def time(self) -> float:
        return self.now

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.sleeps.append(seconds)
        self.now += seconds


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """Replace the clock of retries and rate limits."""
    clock = Clock()
    monkeypatch.setattr(retry, "time", clock)
    monkeypatch.setattr(retry, "POLL", float("inf"))
    return clock


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Work in an empty folder, without settings from files or the environment."""
    for name in list(os.environ):
        if name.lower().endswith("_proxy") or name.startswith(
            ("SOURCES__", "DESTINATION")
        ):
            monkeypatch.delenv(name)
    for name in ("AUTH_TOKEN", "BASE_URL", "ORGANIZATION", "PROJECT", "API", "SINCE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DLT_DATA_DIR", str(tmp_path / "dlt"))
    monkeypatch.setenv("RUNTIME__DLTHUB_TELEMETRY", "false")
    monkeypatch.chdir(tmp_path)
    # dlt keeps the settings files of the folder in which it was first used.
    Container()[PluggableRunContext].reload_providers()
    return tmp_path


@pytest.fixture(autouse=True)
def no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forget the secrets of other tests, which may be ordinary words."""
    monkeypatch.setattr(secrets, "_hidden", ())
    monkeypatch.setattr(secrets, "_sent", frozenset())


@pytest.fixture(autouse=True)
def no_pipeline() -> Iterator[None]:
    """Deactivate dlt's last pipeline, which sources would otherwise use."""
    context = Container()[PipelineContext]
    context.deactivate()
    yield
    context.deactivate()


def make_source(
    server: Any,
    project: str | Sequence[str] = ("frontend", "backend"),
    api: str = "v1",
    tables: Sequence[str] = (),
    **settings: Any,
) -> Any:
    """Return a source of the server, with these tables or all of them."""
    slugs = project if isinstance(project, str) else [*project]
    source = analytics_source(server.url, TOKEN, ORGANIZATION, slugs, api, **settings)
    return source.with_resources(*tables) if tables else source


@dataclass
class Warehouse:
    """A DuckDB file in the test's folder, and its pipeline."""

    folder: Path

    def load(
        self,
        server: DemoServer,
        project: str | list[str] | None = None,
        tables: Sequence[str] = (),
        **settings: Any,
    ) -> Summary:
        source = make_source(server, project or ("frontend", "backend"), **settings)
        return runner.load(self.pipeline(), source, tables)

    def pipeline(self) -> dlt.Pipeline:
        return runner.make_pipeline(pipelines_dir=str(self.folder / "pipelines"))

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        with duckdb.connect(str(self.folder / f"{runner.NAME}.duckdb")) as connection:
            return connection.execute(sql).fetchall()

    def ids(self, table: str, key: str = "id") -> list[str]:
        return [row[0] for row in self.rows(f"select {key} from analytics.{table}")]

    def bookmarks(self) -> dict[str, dict[str, Any]]:
        """Return table → list → its bookmark, as dlt's state has it.

        Completion times and errors, which only `status` uses, are left out.
        """
        sources: dict[str, Any] = dict(self.pipeline().state.get("sources", {}))
        resources = sources.get("analytics", {}).get("resources", {})
        bookmarks: dict[str, dict[str, Any]] = {}
        for table, state in resources.items():
            for key, stored in state.get("bookmarks", {}).items():
                kept = {
                    k: v
                    for k, v in stored.items()
                    if k not in ("asked_at", "completed_at", "problem", "failed_at")
                }
                if kept:
                    bookmarks.setdefault(table, {})[key] = kept
        return bookmarks


def set_back(
    pipeline: dlt.Pipeline, ending: str, *names: str, to: str = "2026-01-01T00:00:00Z"
) -> None:
    """Change times in the stored bookmarks of lists whose keys have this ending."""
    with pipeline.managed_state(extract_state=True) as state:
        stored: Any = state
        for resource in stored["sources"]["analytics"]["resources"].values():
            for key, each in resource["bookmarks"].items():
                if key.endswith(ending):
                    assert {*names} <= each.keys()
                    each |= dict.fromkeys(names, to)
    pipeline.normalize()
    pipeline.load()


@pytest.fixture
def warehouse(elsewhere: Path) -> Warehouse:
    return Warehouse(elsewhere)


@pytest.fixture(scope="session")
def one_postgres() -> Iterator[Postgres]:
    with postgres_server() as postgres:
        yield postgres


@pytest.fixture
def postgres(one_postgres: Postgres) -> Iterator[Postgres]:
    """An empty PostgreSQL database; all tests share its server."""
    yield one_postgres
    one_postgres.clear()


@pytest.fixture(scope="session")
def one_mariadb() -> Iterator[MariaDB]:
    with mariadb_server() as mariadb:
        yield mariadb


@pytest.fixture
def mariadb(one_mariadb: MariaDB) -> Iterator[MariaDB]:
    """An empty MariaDB database; all tests share its server."""
    yield one_mariadb
    one_mariadb.clear()


class Database(NamedTuple):
    """An empty database, and a function to run queries in it."""

    destination: Any
    query: Callable[[str], list[tuple[Any, ...]]]


def _in_sqlite(sql: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("attach 'warehouse__analytics.db' as analytics")
        return connection.execute(sql).fetchall()


@pytest.fixture(params=["duckdb", "postgres", "sqlite", "mariadb"])
def database(
    request: pytest.FixtureRequest,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
) -> Database:
    """Each database whose rows a merge can replace."""
    if request.param == "duckdb":
        file = warehouse.folder / f"{runner.NAME}.duckdb"
        return Database(dlt.destinations.duckdb(str(file)), warehouse.rows)
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        return Database(dlt.destinations.postgres(postgres.uri), postgres.query)
    uri, query = "sqlite:///warehouse.db", _in_sqlite
    if request.param == "mariadb":
        mariadb: MariaDB = request.getfixturevalue("mariadb")
        uri, query = mariadb.uri, mariadb.query
    # By name, so that dlt does not know the database before it connects.
    monkeypatch.setenv("DESTINATION__SQLALCHEMY__CREDENTIALS", uri)
    return Database("sqlalchemy", query)


@pytest.fixture(params=["v1", "sentry", "glitchtip"])
def api(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def server(api: str) -> Iterator[FakeServer]:
    """3 pages of events, 2 of issues, and some of each project."""
    with small_server(api) as server:
        yield server


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


@pytest.fixture
def start() -> Iterator[Callable[..., FakeServer]]:
    """Starts servers of `small_server`, which end with the test."""
    with ExitStack() as stack:
        yield lambda *api, **options: stack.enter_context(small_server(*api, **options))


def small_server(api: str = "v1", **changes: Any) -> FakeServer:
    return FakeServer(
        api,
        **{
            "events": 60,
            "issues": 30,
            "releases": 12,
            "page_size": 20,
            "token": TOKEN,
            "organization": ORGANIZATION,
            "now": datetime.now(UTC) - timedelta(hours=2),
            **changes,
        },
    )
