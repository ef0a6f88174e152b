"""How dlt is to load the history of issues: which states end with a load."""

from collections import Counter
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import dlt
import pyarrow as pa
from dlt.common.data_writers.escape import format_datetime_literal
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.pipeline import current_pipeline
from dlt.common.schema.typing import TScd2StrategyDict
from dlt.extract import DltSource

from analytics_pipeline.bookmarks import Bookmark
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.destinations import (
    adapt_to_destination,
    capabilities_of,
)
from analytics_pipeline.loading.sql import literal
from analytics_pipeline.loading.threads import current_load_id
from analytics_pipeline.tables.history import COLUMNS, HISTORY, VALIDITY, VERSION
from analytics_pipeline.tables.schema import PROJECT_SLUG, READ_AT

ATOMIC = "/* as if to CREATE: in one transaction */"
"""dlt uses a transaction only for SQL in which it finds such a word.

Without it a kill could come between the end of a state and the beginning of the next.
"""


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


def as_history(states: pa.Table, row_format: str) -> Any:
    """Return states with what dlt needs to know of them.

    A load ends only states of issues that it holds. `end_gone` ends those of issues that
    are gone.
    """
    pipeline = cast(dlt.Pipeline | None, current_pipeline())
    if pipeline is None or pipeline.destination is None or not current_load_id():
        return states  # it is iterated by hand
    table = str(dlt.current.resource().table_name)
    _, staging = pipeline.sql_client().get_qualified_table_names(table)
    last = f"SELECT id, max({READ_AT}) FROM {staging} GROUP BY id"
    disposition: TScd2StrategyDict = {
        "disposition": "merge",
        "strategy": "scd2",
        "row_version_column_name": VERSION,
        "validity_column_names": [*VALIDITY],
        "destination_scope": _quoted(f"id IN (SELECT id FROM {staging}) {ATOMIC}"),
        "source_filter": _quoted(f"(id, {READ_AT}) IN ({last})"),
    }
    return adapt_to_destination(
        COLUMNS, row_format, states, write_disposition=disposition
    )


def end_gone(
    pipeline: dlt.Pipeline,
    source: DltSource,
    bookmarks: Mapping[str, Mapping[str, Any]],
) -> None:
    """End the states of issues that the last complete reading of their list has not shown.

    It is a rule on stored data: however often it is applied, the result is the same.

    Args:
        pipeline: whose dataset holds the tables.
        source: with `issues` and `issue_history`.
        bookmarks: of the lists of issues, by key.
    """
    with pipeline.sql_client(source.schema.name) as client:
        issues, history = (
            client.make_qualified_table_name(str(source.resources[name].table_name))
            for name in ("issues", HISTORY)
        )
        time = partial(_literal, client.capabilities)
        slugs = Counter(map(_slug, bookmarks))
        for key, stored in bookmarks.items():
            bookmark = Bookmark.parse(stored, datetime.now(UTC))
            is_known = bookmark.project_id is not None or slugs[_slug(key)] == 1
            if bookmark.swept_at is None or not is_known:
                continue
            listed = [_of_list(key, bookmark.project_id)]
            shown = (
                f"SELECT id FROM {issues} WHERE {READ_AT} >= {time(bookmark.swept_at)}"
            )
            if start := bookmark.loaded.start:
                seen = f"last_seen IS NULL OR last_seen >= {time(start)}"
                seen += f" OR id IN (SELECT id FROM {issues} WHERE {seen})"
                listed.append(f"({seen})")
            client.execute_sql(
                f"UPDATE {history}"
                f" SET {VALIDITY[1]} = {time(datetime.now(UTC))}"
                f" WHERE {VALIDITY[1]} IS NULL AND {' AND '.join(listed)}"
                f" AND id NOT IN ({shown})"
            )


def _of_list(key: str, project_id: str | None) -> str:
    """Return the condition for states of the issues of a list.

    The slug alone would take a project of the same name in another organization for it,
    and older states do not hold the slug.
    """
    if project_id is None:
        return f"project_id IS NULL AND {PROJECT_SLUG} = {literal(_slug(key))}"
    return f"project_id = {literal(project_id)}"


def _slug(key: str) -> str:
    return key.rpartition("/")[2]


def _literal(capabilities: DestinationCapabilitiesContext, time: datetime) -> str:
    """Return a time as SQL has it.

    The capabilities are a client's: of `sqlalchemy` only it knows which database it is.
    """
    form = capabilities.format_datetime_literal
    if form is None:
        form = format_datetime_literal
    is_naive = not capabilities.supports_tz_aware_datetime
    return str(form(time, capabilities.timestamp_precision, is_naive))


def _quoted(condition: str) -> str:
    """Return a condition in which dlt finds no placeholders of its own."""
    return condition.replace("{", "{{").replace("}", "}}")
