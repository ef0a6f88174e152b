"""Checks of a source before its first request."""

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
    """Raise ConfigurationError if a table has rows of another organization.

    Its keys may be the same, so that rows would be replaced.
    """
    for table, resource in context.source.selected_resources.items():
        endpoint = config.spec.endpoints.get(table)
        if endpoint is None or endpoint.by_project or endpoint.key == "id":
            continue
        if is_replaced(resource) or not context.has_rows(str(resource.table_name)):
            continue
        state = dlt.current.resource_state(table, context.source_state)
        for key, stored in state.get("bookmarks", {}).items():
            server, _, name = key.partition(" ")
            other = name.rstrip("/")
            if server != config.server or other == config.organization:
                continue
            if Bookmark.parse(stored, datetime.now(UTC)).loaded.spans:
                raise ConfigurationError(
                    f"{table}: the dataset holds rows of organization {other!r}, and rows"
                    f" of {config.organization!r} may have the same {endpoint.key}, which"
                    " is the key; load each organization into its own dataset (--dataset,"
                    " dataset_name)"
                )


def check_tags(config: Config, context: DltContext) -> None:
    """Raise ConfigurationError if a tag's column name is too long for the destination."""
    longest = context.schema.naming.max_length
    for column, tag in config.tables["events"].tags.items():
        if longest and len(column) > longest:
            raise ConfigurationError(
                f"tags {tag!r}: the column name {column!r} has {len(column)} characters,"
                f" and the destination allows {longest}; remove this tag from the setting"
                " tags, because the column tags holds it as well"
            )


def check_incremental(
    table: str, incremental: dlt.sources.incremental[datetime], column: str
) -> None:
    """Raise ConfigurationError if a user's incremental is on another column."""
    if incremental.cursor_path != column:
        raise ConfigurationError(
            f"{table}: an incremental on {incremental.cursor_path!r} is not possible,"
            f" because the server dates rows by {column!r}. Use that column, or filter"
            " rows with add_map"
        )


def check_history_of(
    context: DltContext, endpoint: Endpoint, is_replaced: bool
) -> None:
    """Raise ConfigurationError if the history is selected and cannot be kept."""
    if not context.selects(HISTORY):
        return
    if not context.selects("issues"):
        raise ConfigurationError(f"{HISTORY} is built from issues; select both tables")
    if endpoint.is_swept and is_replaced:
        raise ConfigurationError(
            f"{HISTORY} cannot be kept while {endpoint.table} is replaced; merge it, or"
            " leave history out"
        )
    pipeline = cast(dlt.Pipeline | None, current_pipeline())
    if pipeline and pipeline.destination and current_load_id():
        check_history(pipeline)
