"""Dagster assets of an organization, with daily partitions and a freshness check.

Copy this file and edit the settings below. It needs `analytics-pipeline[dagster]` and
loads into a separate dataset. Put addresses and secrets into the environment (BASE_URL,
AUTH_TOKEN, ORGANIZATION, PROJECT with one or more slugs,
DESTINATION__POSTGRES__CREDENTIALS) or into `.dlt/` in Dagster's working directory.
RUNTIME__DLTHUB_TELEMETRY=false switches dlt's telemetry off.

Try it with `dagster dev -f dagster_assets.py`. Concurrent loads would compete for the
server's rate limit, so all assets are in the pool `errors_api`. Limit it to one with
`dagster instance concurrency set errors_api 1`.
"""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import dagster as dg
from dagster_dlt import DagsterDltResource, DagsterDltTranslator, dlt_assets
from dagster_dlt.translator import DltResourceTranslatorData

from analytics_pipeline import analytics_source, runner

API = "sentry"
START = "2026-01-01"  # the first day to load
DESTINATION = "postgres"
DATASET = "errors"
POOL = "errors_api"
FRESH = timedelta(days=2)  # events of a day are loaded when it is over

# ------------------------- no need to change anything below -------------------------

# Dagster needs the names of the tables when it imports this file, perhaps on a machine without the
# settings. So this source has placeholders. The assets below load from sources of their own.
TABLES = analytics_source("https://errors.invalid", "none", "none", "none")
BY_DAY = ["events"]
WHOLE = ["issues", "projects", "releases", "project_detail"]


class Translator(DagsterDltTranslator):
    """Names assets after the tables, with the descriptions of dlt's schema."""

    def get_asset_spec(self, data: DltResourceTranslatorData) -> dg.AssetSpec:
        """Return the asset of a table."""
        table = data.resource.compute_table_schema()
        return (
            super()
            .get_asset_spec(data)
            .replace_attributes(
                key=dg.AssetKey([DATASET, data.resource.name]),
                description=table["description"],
                deps=[],
            )
        )


def pipeline(name: str) -> Any:
    """Return a dlt pipeline into the dataset of all assets."""
    return runner.make_pipeline(DESTINATION, dataset=DATASET, name=name)


@dlt_assets(
    dlt_source=TABLES.with_resources(*BY_DAY),
    dlt_pipeline=pipeline("errors_by_day"),
    name="errors_by_day",
    group_name="errors",
    dagster_dlt_translator=Translator(),
    partitions_def=dg.DailyPartitionsDefinition(START),
    pool=POOL,
)
def errors_by_day(
    context: dg.AssetExecutionContext, dlt: DagsterDltResource
) -> Iterator[Any]:
    """Load the events of one day, or of all days of a backfill, in one run."""
    span = context.partition_time_window
    source = analytics_source(api=API, since=span.start, until=span.end)
    yield from dlt.run(context, dlt_source=source.with_resources(*BY_DAY))


@dlt_assets(
    dlt_source=TABLES.with_resources(*WHOLE),
    dlt_pipeline=pipeline("errors_whole"),
    name="errors_whole",
    group_name="errors",
    dagster_dlt_translator=Translator(),
    pool=POOL,
)
def errors_whole(
    context: dg.AssetExecutionContext, dlt: DagsterDltResource
) -> Iterator[Any]:
    """Load projects, their settings, releases, and new and changed issues.

    Once a day all issues are read, to find those that were resolved or are gone.
    """
    source = analytics_source(api=API).with_resources(*WHOLE)
    yield from dlt.run(context, dlt_source=source)
    runner.mark_gone(pipeline("errors_whole"), source)


by_day = dg.build_schedule_from_partitioned_job(
    dg.define_asset_job("errors_each_day", dg.AssetSelection.assets(errors_by_day)),
    hour_of_day=0,
    minute_of_hour=30,  # for events that arrive late
)
whole = dg.ScheduleDefinition(
    name="errors_whole_each_day",
    target=dg.AssetSelection.assets(errors_whole),
    cron_schedule="15 0 * * *",
)


def freshness_check(name: str, loaded_by: str) -> dg.AssetChecksDefinition:
    """Return a check of a table that the pipeline `loaded_by` loads."""

    @dg.asset_check(
        asset=dg.AssetKey([DATASET, name]),
        name="is_fresh",
        description="All lists of the table were read recently.",
    )
    def is_fresh() -> dg.AssetCheckResult:
        """Check in the warehouse when each list was read.

        Partitions store no bookmarks: for them, it is when rows were last received.
        """
        status = runner.status(pipeline(loaded_by))
        is_loaded = any(each.table == name for each in status.lists)
        old = [each.project for each in status.old_lists(FRESH, [name])]
        return dg.AssetCheckResult(
            passed=is_loaded and not old, metadata={"old": ", ".join(old)}
        )

    return is_fresh


checks = [
    freshness_check("events", "errors_by_day"),
    freshness_check("issues", "errors_whole"),
]


defs = dg.Definitions(
    assets=[errors_by_day, errors_whole],
    asset_checks=checks,
    schedules=[by_day, whole],
    resources={"dlt": DagsterDltResource()},
)
