"""What is refused before the first request, because a load could not do it right."""

from datetime import UTC, datetime
from typing import cast

import dlt
from dlt.common.pipeline import current_pipeline

from analytics_pipeline.bookmarks import Bookmark
from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.destinations import is_replaced
from analytics_pipeline.loading.history import check_history
from analytics_pipeline.loading.threads import DltContext, current_load_id
from analytics_pipeline.tables.history import HISTORY


def check_organization(config: Config, context: DltContext) -> None:
    """Check that no rows of another organization would be replaced by its own.

    Raises:
        ConfigurationError: a table holds some, which may have the same keys.
    """
    for table, resource in context.source.selected_resources.items():
        endpoint = config.spec.endpoints.get(table)
        if endpoint is None or endpoint.by_project or endpoint.key == "id":
            continue
        if is_replaced(resource):
            continue
        if not context.has_rows(str(resource.table_name)):
            continue
        state = dlt.current.resource_state(table, context.source_state)
        for key, stored in state.get("bookmarks", {}).items():
            server, _, name = key.partition(" ")
            other = name.rstrip("/")
            if server != config.server or other == config.organization:
                continue
            if Bookmark.parse(stored, datetime.now(UTC)).loaded.spans:
                raise ConfigurationError(
                    f"{table}: the dataset holds those of organization {other!r}, and"
                    f" those of {config.organization!r} may have the same"
                    f" {endpoint.key}, by which this server tells them apart; load each"
                    " organization into a dataset of its own (--dataset, dataset_name)"
                )


def check_tags(config: Config, context: DltContext) -> None:
    """Check that the destination takes the names of columns made of tags.

    Raises:
        ConfigurationError: dlt would shorten a name, and nothing would find the column.
    """
    longest = context.schema.naming.max_length
    for column, tag in config.tables["events"].tags.items():
        if longest and len(column) > longest:
            raise ConfigurationError(
                f"tags {tag!r}: the column {column!r} has {len(column)} characters, and"
                f" the destination takes {longest}; leave this tag out of the setting"
                " tags, since the column tags holds it, too"
            )


def check_incremental(
    table: str, incremental: dlt.sources.incremental[datetime], column: str
) -> None:
    """Check that a user's incremental is on the column by which the server dates rows."""
    if incremental.cursor_path != column:
        raise ConfigurationError(
            f"{table}: an incremental on {incremental.cursor_path!r} is not possible,"
            f" because the server dates rows by {column!r}. Use that column, or filter"
            " rows with add_map"
        )


def check_history_of(
    context: DltContext, endpoint: Endpoint, is_replaced: bool
) -> None:
    """Check that the history, if it is loaded, can be kept."""
    if not context.selects(HISTORY):
        return
    if not context.selects("issues"):
        raise ConfigurationError(
            f"{HISTORY} is built from issues as they are loaded: select both tables"
        )
    if endpoint.is_swept and is_replaced:
        raise ConfigurationError(
            f"{HISTORY} cannot be kept while {endpoint.table} are replaced: merge them, or"
            " leave history out"
        )
    pipeline = cast(dlt.Pipeline | None, current_pipeline())
    if pipeline and pipeline.destination and current_load_id():
        check_history(pipeline)
