"""How dlt loads the history of issues: which states end with a load."""

from collections.abc import Sequence
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt.common.pipeline import current_pipeline
from dlt.common.schema.typing import TScd2StrategyDict
from dlt.common.schema.utils import has_table_seen_data
from dlt.extract import DltSource

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.destinations import adapt_to_destination, can_update
from analytics_pipeline.loading.threads import current_load_id
from analytics_pipeline.tables.history import COLUMNS, HISTORY, VALIDITY, VERSION
from analytics_pipeline.tables.schema import LOAD_ID, READ_AT

ATOMIC = "/* as if to CREATE: in one transaction */"
"""dlt uses a transaction only for SQL that contains such a word. Without it, a killed
process could end a state and not begin the next.
"""


def check_history(pipeline: dlt.Pipeline) -> None:
    """Raise ConfigurationError if the destination cannot keep a history."""
    if not can_update(pipeline):
        name = pipeline.destination.destination_name
        raise ConfigurationError(
            f"{name} cannot keep {HISTORY}, because rows in files cannot be updated; load"
            " it into a database, or leave history out"
        )


def count_new_states(
    pipeline: dlt.Pipeline, source: DltSource, load_ids: Sequence[str]
) -> int:
    """Return how many states began with these loads."""
    name = str(source.resources[HISTORY].table_name)
    stored = pipeline.schemas[source.schema.name].tables.get(name)
    if not (load_ids and stored and has_table_seen_data(stored)):
        return 0
    with pipeline.sql_client(source.schema.name) as client:
        found = client.execute_sql(
            f"SELECT count(*) FROM {client.make_qualified_table_name(name)}"
            f" WHERE {LOAD_ID} IN ({', '.join(['%s'] * len(load_ids))})",
            *load_ids,
        )
    return int(found[0][0]) if found else 0


def as_history(states: pa.Table, row_format: str) -> Any:
    """Return states with hints for dlt.

    By dlt's `merge_key`, a load ends only states of issues that it holds. `mark_gone` ends
    those of issues that are gone.
    """
    pipeline = cast(dlt.Pipeline | None, current_pipeline())
    if pipeline is None or pipeline.destination is None or not current_load_id():
        return states  # iterated without a load
    table = str(dlt.current.resource().table_name)
    _, staging = pipeline.sql_client().get_qualified_table_names(table)
    last = f"SELECT id, max({READ_AT}) FROM {staging} GROUP BY id"
    disposition: TScd2StrategyDict = {
        "disposition": "merge",
        "strategy": "scd2",
        "row_version_column_name": VERSION,
        "validity_column_names": [*VALIDITY],
        "source_filter": f"(id, {READ_AT}) IN ({last}) {ATOMIC}",
    }
    return adapt_to_destination(
        COLUMNS, row_format, states, write_disposition=disposition
    )
