"""Apache Airflow 3: load the errors of every project into the warehouse, day by day.

Copy this file into your dags folder and edit the settings at the top. It needs
`analytics-pipeline[airflow]`. Server, token and warehouse come from Airflow connections, if
you name them below. Otherwise dlt finds them in the environment (BASE_URL, AUTH_TOKEN,
ORGANIZATION, DESTINATION__POSTGRES__CREDENTIALS) or in `.dlt/` in Airflow's working
directory. RUNTIME__DLTHUB_TELEMETRY=false switches dlt's telemetry off.

A run loads the events of its day, with one task per project. It may run late, repeatedly,
or concurrently with others; no row is doubled. Issues do not belong to a day, since any
issue may be resolved or deleted at any time: the run of the latest day reads all of them.
"""

import os
import tempfile
from datetime import UTC, datetime, timedelta
from typing import Any

import dlt
from airflow.sdk import Asset, Connection, CronDataIntervalTimetable, dag, task

from analytics_pipeline import analytics_source, runner

API = "sentry"
START = datetime(2026, 1, 1, tzinfo=UTC)  # the first day to load
SCHEDULE = "@daily"
PROJECTS: list[str] = []  # slugs; empty: all that the token can read
DATASET = "analytics"
# Ids of Airflow connections. Empty: use the environment or `.dlt/`.
# The server's connection has the address as host (https://…), the token as password, and
# {"organization": "…"} as extra.
SERVER_CONNECTION = ""
WAREHOUSE_CONNECTION = ""  # PostgreSQL
# The pool limits how many tasks send requests at the same time. Create it once, with as many
# slots as the rate limit allows: airflow pools set analytics_api 2 "tasks that read errors"
POOL = "analytics_api"
RETRIES = 5
RETRY_DELAY = timedelta(minutes=1)  # then 2, 4, 8, 16 minutes
TIMEOUT = timedelta(hours=3)  # of a task
TAGS = ["errors"]
# With "true", dlt looks for each of its settings in Airflow's variables, which takes several
# hundred requests per task. Use that only if your settings are there.
os.environ.setdefault("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")

# ------------------------- no need to change anything below -------------------------


def assets(*tables: str) -> list[Asset]:
    """Return the assets that other DAGs can wait for, such as `analytics.events`."""
    return [Asset(f"{DATASET}.{table}") for table in tables]


def server() -> dict[str, Any]:
    """Return the settings that name the server."""
    if not SERVER_CONNECTION:
        return {"api": API}
    connection = Connection.get(SERVER_CONNECTION)
    return {
        "api": API,
        "base_url": connection.host,
        "auth_token": connection.password,
        "organization": connection.extra_dejson["organization"],
    }


def pipeline(name: str, folder: str) -> dlt.Pipeline:
    """Return a dlt pipeline with a separate working folder."""
    destination: Any = "postgres"
    if WAREHOUSE_CONNECTION:
        uri = Connection.get(WAREHOUSE_CONNECTION).get_uri()
        destination = dlt.destinations.postgres(uri)
    return runner.make_pipeline(
        destination, dataset=DATASET, name=name, pipelines_dir=folder
    )


def is_last(start: datetime, end: datetime) -> bool:
    """Return whether an interval is the latest that has ended."""
    return end + (end - start) > datetime.now(UTC)


@dag(
    dag_id="errors_to_warehouse",
    doc_md=__doc__,
    tags=TAGS,
    # With a bare "@daily", start and end of the interval are equal in Airflow 3.
    schedule=CronDataIntervalTimetable(SCHEDULE, timezone="UTC"),
    start_date=START,
    catchup=True,
    max_active_runs=4,
    default_args={
        "pool": POOL,
        "retries": RETRIES,
        "retry_delay": RETRY_DELAY,
        "retry_exponential_backoff": 2.0,
        "max_retry_delay": timedelta(hours=1),
        "execution_timeout": TIMEOUT,
    },
)
def errors_to_warehouse() -> None:
    """Load the events of each day, and the issues."""

    # One at a time, so that the rows that were read last win.
    @task(
        max_active_tis_per_dag=1,
        outlets=assets("projects", "releases", "project_detail"),
    )
    def organization(
        data_interval_start: datetime, data_interval_end: datetime
    ) -> list[str]:
        """Load projects and releases, and return the slugs of the projects.

        Project details take one request each and have no history, so only the runs of the
        first and of the latest interval load them.
        """
        slugs = PROJECTS or runner.all_projects(**server())
        # Releases change for about 30 days.
        since = data_interval_start - timedelta(days=30)
        source = analytics_source(project=slugs, since=since, **server())
        tables = ["projects", "releases"]
        interval = data_interval_start, data_interval_end
        if data_interval_start <= START or is_last(*interval):
            tables.append("project_detail")
        with tempfile.TemporaryDirectory() as folder:
            runner.load_shared(pipeline("analytics", folder), source, tables)
        return slugs

    @task(max_active_tis_per_dag=1, outlets=assets("issues"))
    def issues(
        slugs: list[str], data_interval_start: datetime, data_interval_end: datetime
    ) -> int:
        """Load the current issues of all projects, and return the number of rows.

        Only the run of the latest interval does this.
        """
        if not is_last(data_interval_start, data_interval_end):
            return 0
        source = analytics_source(project=slugs, **server())
        with tempfile.TemporaryDirectory() as folder:
            summary = runner.load(
                pipeline("analytics_issues", folder), source, ["issues"]
            )
        return summary.tables["issues"].rows

    @task(outlets=assets("events"))
    def project(
        slug: str, data_interval_start: datetime, data_interval_end: datetime
    ) -> dict[str, int]:
        """Load the events of one project and day, and return the number of rows."""
        partition = runner.Partition(slug, data_interval_start, data_interval_end)
        with tempfile.TemporaryDirectory() as folder:
            name = "analytics_" + slug.replace("-", "_")
            named = pipeline(name, folder)
            summary = runner.run_partition(named, partition, ["events"], **server())
        return {name: table.rows for name, table in summary.tables.items()}

    slugs = organization()
    project.expand(slug=slugs)
    issues(slugs)


errors_to_warehouse()
