"""A Prefect flow that loads new data every hour, and fails if tables are too old.

Copy this file and edit the settings at the top. It needs `analytics-pipeline[prefect]`.
Put addresses and secrets into the environment (BASE_URL, AUTH_TOKEN, ORGANIZATION, PROJECT
with one or more slugs, DESTINATION__POSTGRES__CREDENTIALS) or into `.dlt/` in the flow's
working directory. RUNTIME__DLTHUB_TELEMETRY=false switches dlt's telemetry off.

`python prefect_flow.py` serves the flow: one run every hour, never two at a time.
"""

from datetime import timedelta

from prefect import flow, get_run_logger, task
from prefect.artifacts import create_table_artifact

from analytics_pipeline import IncompleteLoad, analytics_source, runner

API = "sentry"
DESTINATION = "postgres"
DATASET = "analytics"
CRON = "7 * * * *"
FRESH = timedelta(hours=3)
RETRY_DELAYS = [60, 300, 900]  # seconds; a retry continues where the failed run stopped

# ------------------------- no need to change anything below -------------------------


@task(retries=len(RETRY_DELAYS), retry_delay_seconds=RETRY_DELAYS)
def load() -> dict[str, int]:
    """Load new data and return the number of rows of each table."""
    log = get_run_logger()
    pipeline = runner.make_pipeline(DESTINATION, dataset=DATASET)
    try:
        summary = runner.load(pipeline, analytics_source(api=API))
    except IncompleteLoad as incomplete:
        log.warning("these lists failed, the others are loaded: %s", incomplete)
        raise
    for reason in summary.skipped.values():
        log.warning("skipped: %s", reason)
    rows = [
        {"table": name, "new": table.rows, "again": table.reread}
        for name, table in summary.tables.items()
    ]
    create_table_artifact(rows, key="errors-rows", description="Rows of the last run")
    return {name: table.rows for name, table in summary.tables.items()}


@task
def check() -> None:
    """Fail if a list was not read to its end for too long."""
    status = runner.status(runner.make_pipeline(DESTINATION, dataset=DATASET))
    old = [
        f"{each.table} {each.project}: {each.problem or 'not read recently'}"
        for each in status.old_lists(FRESH)
    ]
    if old:
        raise RuntimeError(f"older than {FRESH}: " + "; ".join(old))


@flow(name="errors")
def errors() -> dict[str, int]:
    """Load new data, then check how old the tables are."""
    rows: dict[str, int] = load()
    check()
    return rows


if __name__ == "__main__":
    errors.serve(name="each hour", cron=CRON, limit=1)
