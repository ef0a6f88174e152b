"""How dlt is to load the history of issues: which states end with a load."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, NamedTuple, cast

import dlt
import pyarrow as pa
from dlt.common.data_writers.escape import format_datetime_literal
from dlt.common.pipeline import current_pipeline
from dlt.common.schema.typing import TScd2StrategyDict

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.destinations import (
    adapt_to_destination,
    capabilities_of,
)
from analytics_pipeline.tables.history import COLUMNS, HISTORY, VALIDITY, VERSION
from analytics_pipeline.tables.schema import READ_AT

ATOMIC = "/* as if to CREATE: in one transaction */"
"""dlt uses a transaction only for SQL in which it finds such a word.

Without it a kill could come between the end of a state and the beginning of the next.
"""


class EndedSweep(NamedTuple):
    """A sweep that has shown all issues that a project has."""

    issues_table: str
    project_id: str
    start: datetime | None
    """Issues last seen before that time were not looked for."""
    read_from: datetime
    """Issues that it has shown have a `read_at` from then on."""


def check_history(pipeline: dlt.Pipeline) -> None:
    """Check that the destination can keep a history, before anything is asked.

    Raises:
        ConfigurationError: it cannot.
    """
    strategies = capabilities_of(pipeline).supported_merge_strategies or ()
    if "scd2" not in strategies:
        name = pipeline.destination.destination_name
        raise ConfigurationError(
            f"{name} cannot keep {HISTORY}, since a row of files cannot be ended: load"
            " it into a database, or leave history out"
        )


def with_ended_states(
    states: pa.Table, sweeps: Iterable[EndedSweep], row_format: str
) -> Any:
    """Return states with what dlt needs to know of them.

    A load may end the states of those issues that it holds; and when a sweep has come to
    its end, those of issues that this has not shown, since they are gone.
    """
    pipeline = cast(dlt.Pipeline | None, current_pipeline())
    if pipeline is None or pipeline.destination is None:
        return states
    table = str(dlt.current.resource().table_name)
    disposition = _write_disposition(pipeline, table, sweeps)
    return adapt_to_destination(
        COLUMNS, row_format, states, write_disposition=disposition
    )


def _write_disposition(
    pipeline: dlt.Pipeline, table: str, sweeps: Iterable[EndedSweep]
) -> TScd2StrategyDict:
    client = pipeline.sql_client()
    _, staging = client.get_qualified_table_names(table)
    scope = [f"id IN (SELECT id FROM {staging})"]
    for sweep in sweeps:
        issues = client.make_qualified_table_name(sweep.issues_table)
        shown = (
            f"SELECT id FROM {issues}"
            f" WHERE {READ_AT} >= {_literal(pipeline, sweep.read_from)}"
        )
        project = sweep.project_id.replace("'", "''")
        gone = [f"project_id = '{project}'", f"id NOT IN ({shown})"]
        if sweep.start:
            seen = (
                f"last_seen IS NULL OR last_seen >= {_literal(pipeline, sweep.start)}"
            )
            gone.append(f"({seen} OR id IN (SELECT id FROM {issues} WHERE {seen}))")
        scope.append(f"({' AND '.join(gone)})")
    last = f"SELECT id, max({READ_AT}) FROM {staging} GROUP BY id"
    return {
        "disposition": "merge",
        "strategy": "scd2",
        "row_version_column_name": VERSION,
        "validity_column_names": [*VALIDITY],
        "destination_scope": _quoted(f"({' OR '.join(scope)}) {ATOMIC}"),
        "source_filter": _quoted(f"(id, {READ_AT}) IN ({last})"),
    }


def _literal(pipeline: dlt.Pipeline, time: datetime) -> str:
    """Return a time as the destination's SQL has it."""
    capabilities = capabilities_of(pipeline)
    form = capabilities.format_datetime_literal
    if form is None:
        form = format_datetime_literal
    is_naive = not capabilities.supports_tz_aware_datetime
    return str(form(time, capabilities.timestamp_precision, is_naive))


def _quoted(condition: str) -> str:
    """Return a condition in which dlt finds no placeholders of its own."""
    return condition.replace("{", "{{").replace("}", "}}")
