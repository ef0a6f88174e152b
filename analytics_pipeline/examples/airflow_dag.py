"""Events and issues of every project, one day at a time, by Apache Airflow 3.

Copy it into your dags folder and edit the settings at the top only. Server, token and warehouse come
from where dlt finds them: variables such as BASE_URL, AUTH_TOKEN, ORGANIZATION and
DESTINATION__POSTGRES__CREDENTIALS, or `.dlt/` in the folder that Airflow runs in.
"""

import os
import tempfile
from datetime import UTC, datetime, timedelta

import dlt
from airflow.sdk import CronDataIntervalTimetable, dag, task

from analytics_pipeline import analytics_source, runner

API = "sentry"
START = datetime(2026, 1, 1, tzinfo=UTC)  # the first day to load
SCHEDULE = "@daily"
PROJECTS: list[str] = []  # slugs; none: all that the token may see
DESTINATION = "postgres"
DATASET = "analytics"
# So many tasks ask the server at a time. Make it once, with as many slots as the rate
# limit feeds: airflow pools set analytics_api 2 "tasks that ask the errors API"
POOL = "analytics_api"
RETRIES = 5
RETRY_DELAY = timedelta(minutes=1)  # then 2, 4, 8, 16 minutes
# dlt would look for each of its settings among Airflow's variables, too: some hundred
# requests in each task. If yours are there, make it "true".
os.environ.setdefault("PROVIDERS__ENABLE_AIRFLOW_SECRETS", "false")

# ------------------------------- the rest may stay ---------------------------------


@dag(
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
    },
)
def analytics() -> None:
    """Load each day's events and issues."""

    # One at a time, so that what was read last is what stays. The first one makes the
    # tables of all.
    @task(max_active_tis_per_dag=1)
    def organization(data_interval_start: datetime) -> list[str]:
        """Load projects, releases and details; give the slugs of the projects."""
        slugs = PROJECTS or runner.all_projects(api=API)
        # Sentry's releases change for 30 days.
        since = data_interval_start - timedelta(days=30)
        source = analytics_source(project=slugs, api=API, since=since)
        tables = ["projects", "releases", "project_detail"]
        with tempfile.TemporaryDirectory() as folder:
            runner.load_shared(pipeline("analytics", folder), source, tables)
        return slugs

    @task
    def project(
        slug: str, data_interval_start: datetime, data_interval_end: datetime
    ) -> dict[str, int]:
        """Load the events and issues of one project of one day; give the rows."""
        partition = runner.Partition(slug, data_interval_start, data_interval_end)
        with tempfile.TemporaryDirectory() as folder:
            named = pipeline(f"analytics_{slug}", folder)
            summary = runner.run_partition(named, partition, api=API)
        return {name: table.rows for name, table in summary.tables.items()}

    def pipeline(name: str, folder: str) -> dlt.Pipeline:
        return runner.make_pipeline(
            DESTINATION, dataset=DATASET, name=name, pipelines_dir=folder
        )

    project.expand(slug=organization())


analytics()
