"""Errors of every project into the warehouse, one day at a time, by Apache Airflow 3.

Copy this file into your dags folder and edit the settings at the top only. Server, token
and warehouse come from Airflow's connections, if you name them below; otherwise from where
dlt finds them: variables such as BASE_URL, AUTH_TOKEN, ORGANIZATION and
DESTINATION__POSTGRES__CREDENTIALS, or `.dlt/` in the folder that Airflow runs in.
RUNTIME__DLTHUB_TELEMETRY=false there keeps dlt from telling its makers what is run.

A run loads the events of its day, each project by a task of its own. It may run late,
twice, or at once with others: each row is there once. Issues have no day, since any of them
may be resolved or deleted at any time: the run of the last day reads all of them.
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
PROJECTS: list[str] = []  # slugs; none: all that the token may see
DATASET = "analytics"
# Ids of Airflow connections; "": from the environment or `.dlt/`.
# The server's: host (https://…) and password (the token), {"organization": "…"} as extra.
SERVER_CONNECTION = ""
WAREHOUSE_CONNECTION = ""  # of a PostgreSQL
# So many tasks ask the server at a time. Make it once, with as many slots as the rate
# limit feeds: airflow pools set analytics_api 2 "tasks that ask the errors API"
POOL = "analytics_api"
RETRIES = 5
RETRY_DELAY = timedelta(minutes=1)  # then 2, 4, 8, 16 minutes
TIMEOUT = timedelta(hours=3)  # of a task
TAGS = ["errors"]
# dlt would look for each of its settings among Airflow's variables, too: some hundred
# requests in each task. If yours are there, make it "true".
os.environ.setdefault("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")

# ------------------------------- the rest may stay ---------------------------------


def assets(*tables: str) -> list[Asset]:
    """Return what other DAGs may wait for: `analytics.events` and so on."""
    return [Asset(f"{DATASET}.{table}") for table in tables]


def server() -> dict[str, Any]:
    """Return the settings of the source that say where to read."""
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
    """Return a dlt pipeline with a working folder of its own."""
    destination: Any = "postgres"
    if WAREHOUSE_CONNECTION:
        uri = Connection.get(WAREHOUSE_CONNECTION).get_uri()
        destination = dlt.destinations.postgres(uri)
    return runner.make_pipeline(
        destination, dataset=DATASET, name=name, pipelines_dir=folder
    )


def is_last(start: datetime, end: datetime) -> bool:
    """Return whether an interval is the newest that is over."""
    return end + (end - start) > datetime.now(UTC)


@dag(
    dag_id="errors_to_warehouse",
    doc_md=__doc__,
    tags=TAGS,
    # A bare "@daily" has no interval in Airflow 3: its start would be its end.
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
    """Load each day's events, and the issues."""

    # One at a time, so that what was read last is what stays. The first one makes the
    # tables of all.
    @task(
        max_active_tis_per_dag=1,
        outlets=assets("projects", "releases", "project_detail"),
    )
    def organization(
        data_interval_start: datetime, data_interval_end: datetime
    ) -> list[str]:
        """Load projects and releases; give the slugs of the projects.

        Details of projects, one request each, have no past: they are loaded by the runs
        of the first and of the last interval, and not by each one in between.
        """
        slugs = PROJECTS or runner.all_projects(**server())
        # Sentry's releases change for 30 days.
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
        """Load the issues of all projects as they are now; give the rows.

        They have no past, so this is for the run of the last interval only.
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
        """Load the events of one project of one day; give the rows."""
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
