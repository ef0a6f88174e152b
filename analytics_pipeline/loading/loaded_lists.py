"""Tables and bookmarks that are stored in the warehouse."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dlt
from dlt.common.destination.client import WithStateSync
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.schema.typing import TTableSchema
from dlt.common.schema.utils import has_table_seen_data
from dlt.pipeline.state_sync import load_pipeline_state_from_destination

from analytics_pipeline.bookmarks import Bookmark
from analytics_pipeline.client.endpoints import endpoints_of
from analytics_pipeline.config import SOURCE
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY


class LoadedList(NamedTuple):
    """A table of one project, or of the organization."""

    table: str
    server: str
    organization: str
    project: str
    """Slug; empty: the list is the organization's."""
    bookmark: Bookmark

    @property
    def name(self) -> str:
        """Organization and project, as shown to users."""
        return self.organization + (
            f"/{self.project}" if self.project else ", all projects"
        )


def is_read_whole(table: str) -> bool:
    """Return whether each run reads the table completely."""
    endpoints = endpoints_of(table)
    return bool(endpoints) and all(endpoint.full_scan for endpoint in endpoints)


def table_names(stored: Mapping[str, TTableSchema]) -> dict[str, str]:
    """Return table → its name in the dataset, which users can change with `apply_hints`.

    Tables of dlt's schema that never had rows are left out.
    """
    names: dict[str, str] = {}
    for name, table in stored.items():
        resource = str(table.get("resource", name))
        is_known = resource in TABLES or resource == HISTORY
        # After a change of name, the table with the first one may still exist.
        if is_known and has_table_seen_data(table):
            names[resource] = names.get(resource, name) if name == resource else name
    return names


def loaded_lists(pipeline: dlt.Pipeline) -> list[LoadedList]:
    """Return the lists with a bookmark in the dataset; the working folder is not used.

    Raises:
        DltException: the query failed.
    """
    resources = _stored_state(pipeline).get("sources", {}).get(SOURCE, {})
    lists = []
    for table in TABLES:
        state = resources.get("resources", {}).get(table, {})
        for key, stored in sorted(state.get("bookmarks", {}).items()):
            server, _, name = key.partition(" ")
            organization, _, project = name.partition("/")
            bookmark = Bookmark.parse(stored, datetime.now(UTC))
            lists.append(LoadedList(table, server, organization, project, bookmark))
    return lists


def _stored_state(pipeline: dlt.Pipeline) -> Mapping[str, Any]:
    with pipeline.destination_client() as client:
        if not isinstance(client, WithStateSync):
            return {}
        try:
            state: Any = load_pipeline_state_from_destination(
                pipeline.pipeline_name, client
            )
        except DestinationUndefinedEntity:
            return {}
    return state or {}
