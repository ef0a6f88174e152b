"""The example DAG, run by Airflow as a user runs it."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import READ_AT
from tests.airflow.engine import Engine, wait_until
from tests.conftest import ORGANIZATION, TOKEN
from tests.examples import edited
from tests.fake_server import FakeServer
from tests.postgres import Postgres

pytestmark = [
    pytest.mark.airflow,
    # Not imported here, because the import has side effects.
    pytest.mark.skipif(not find_spec("airflow"), reason="pip install '.[airflow]'"),
]

PROJECTS = ["frontend", "backend", "mobile", "billing"]
DAYS = 14
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
START = TODAY - timedelta(days=DAYS)
Rows = list[tuple[Any, ...]]


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with FakeServer(
        "sentry",
        organization=ORGANIZATION,
        projects=PROJECTS,
        token=TOKEN,
        events=2000,
        issues=80,
    ) as server:
        yield server


@pytest.fixture
def engine(
    server: FakeServer,
    postgres: Postgres,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Engine:
    # For the queries below; the DAG sets it itself.
    monkeypatch.setenv("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")
    source = edited(
        "airflow_dag.py",
        SERVER_CONNECTION="'errors_api'",
        WAREHOUSE_CONNECTION="'warehouse'",
        START=f"datetime.fromisoformat({START.isoformat()!r})",
        RETRY_DELAY="timedelta(seconds=1)",
    )
    (tmp_path / "dags").mkdir()
    (tmp_path / "dags/airflow_dag.py").write_text(source)
    # Imported once by the scheduler, of which tasks are forks.
    (tmp_path / "config").mkdir()
    local = (
        "import dlt.destinations.impl.postgres.postgres, analytics_pipeline.runner\n"
    )
    (tmp_path / "config/airflow_local_settings.py").write_text(local)
    variables = {
        "AIRFLOW_CONN_ERRORS_API": json.dumps(
            {
                "conn_type": "http",
                "host": server.url,
                "password": TOKEN,
                "extra": {"organization": ORGANIZATION},
            }
        ),
        "AIRFLOW_CONN_WAREHOUSE": postgres.uri,
    }
    return Engine(tmp_path, variables)


def in_warehouse(postgres: Postgres, table: str, columns: str) -> Rows:
    return postgres.query(f"select {columns} from analytics.{table} t order by t::text")


def contents(postgres: Postgres) -> dict[str, Rows]:
    """Return all columns except `read_at`."""
    columns = {
        name: ", ".join(f'"{column}"' for column in table.columns if column != READ_AT)
        for name, table in TABLES.items()
        if name != "releases"
    }
    return {
        name: sorted(in_warehouse(postgres, name, names), key=repr)
        for name, names in columns.items()
    }


def in_span(rows: list[dict[str, Any]], field: str) -> list[dict[str, Any]]:
    return [row for row in rows if START <= datetime.fromisoformat(row[field]) < TODAY]


def expected(server: FakeServer) -> dict[str, Rows]:
    """Return the server's events of the 14 days, and all rows of full scans."""
    time = datetime.fromisoformat
    found: dict[str, Rows] = {
        "events": [
            (e["id"], e["groupID"], e["title"], time(e["dateCreated"]))
            for e in in_span(server.rows("events"), "dateCreated")
        ],
        "issues": [
            (i["id"], int(i["count"]), i["title"], time(i["lastSeen"]))
            for i in server.rows("issues")
        ],
        "projects": [(p["id"], p["slug"]) for p in server.rows("projects")],
        "project_detail": [(p["id"], p["slug"]) for p in server.rows("projects")],
    }
    return {table: sorted(rows) for table, rows in found.items()}


def loaded(postgres: Postgres) -> dict[str, Rows]:
    columns = {
        "events": "id, group_id, title, date_created",
        "issues": "id, count, title, last_seen",
        "projects": "id, slug",
        "project_detail": "id, slug",
    }
    return {
        table: sorted(in_warehouse(postgres, table, names))
        for table, names in columns.items()
    }


def states(engine: Engine) -> list[tuple[str, int]]:
    return engine.query("select state, count(*) from dag_run group by state")


def test_a_backfill_of_14_days_and_4_projects(
    engine: Engine, server: FakeServer, postgres: Postgres
) -> None:
    killed: list[int] = []

    def kill(handler: Any, response: Any) -> None:
        """Kill the process that waits for this answer."""
        ends = (handler.client_address, handler.connection.getsockname())
        for connection in psutil.net_connections("tcp4"):
            if (connection.laddr, connection.raddr) == ends and connection.pid:
                psutil.Process(connection.pid).kill()
                killed.append(connection.pid)

    server.fail(kill, on="/mobile/events/", after=5)
    with engine.running():
        wait_until(lambda: states(engine) == [("success", DAYS)])
        assert len(killed) == 1
        tries = "select try_number, state from task_instance where try_number > 1"
        assert engine.query(tries) == [(2, "success")]
        tasks = (
            "select task_id, count(*) from task_instance group by task_id order by 1"
        )
        assert engine.query(tasks) == [
            ("issues", DAYS),
            ("organization", DAYS),
            ("project", DAYS * len(PROJECTS)),
        ]
        at_once = """
            select count(*) from task_instance a join task_instance b
            on a.pid < b.pid and a.start_date < b.end_date and b.start_date < a.end_date
            where a.task_id = 'project' and b.task_id = 'project'
        """
        assert engine.query(at_once)[0][0] > DAYS
        assert loaded(postgres) == expected(server)
        detail = re.compile(r"/api/0/projects/acme/[^/]+/")
        details = [r.path for r in server.requests if detail.fullmatch(r.path)]
        runs_with_details = 2  # the first and the last
        assert len(details) == runs_with_details * len(PROJECTS), details
        assert {name for (name,) in engine.query("select name from asset")} == {
            f"analytics.{table}" for table in TABLES
        }
        before = contents(postgres)

        asked = len(server.requests)
        engine.run("tasks", "clear", "--yes", "errors_to_warehouse")
        wait_until(lambda: states(engine) == [("success", DAYS)])
        assert len(server.requests) - asked >= DAYS * len(PROJECTS)
        assert contents(postgres) == before
