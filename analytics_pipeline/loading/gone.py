"""Mark rows that are gone from the server, by SQL.

No server reports that an issue or a project was deleted, but a full scan does not show
it. If a run is killed before it marks them, the next run does.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dlt
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltSource

from analytics_pipeline.bookmarks import EARLIEST, Bookmark, earlier
from analytics_pipeline.loading.destinations import can_update
from analytics_pipeline.loading.sql import execute, literal
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY, VALIDITY
from analytics_pipeline.tables.schema import GONE_AT, PROJECT_SLUG, READ_AT


class CompleteList(NamedTuple):
    """A list of issues that was read to its end, as SQL."""

    condition: str
    """Selects its rows in `issues` and `issue_history`."""
    began_at: str
    """When its last full scan began."""


def mark_gone(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Set `gone_at` of issues and projects that are gone, and end the states of issues.

    A row is gone if the last full scan of its list did not show it. `load` calls this
    function; after `pipeline.run`, call it with the same source. In files, Delta and
    Iceberg tables, `gone_at` is always NULL.
    """
    tables = {t.name for t in TABLES.values() if t.has_gone_at} | {HISTORY}
    if not tables & source.selected_resources.keys() or not can_update(pipeline):
        return
    names = {
        name: str(source.resources[name].table_name)
        for name in tables & source.resources.keys()
    }
    with pipeline.destination_client(source.schema.name) as client:
        if not isinstance(client, SqlJobClientBase):
            return
        columns = dict(client.get_storage_tables(names.values()))
        marked = {*VALIDITY, GONE_AT}
        found = {
            f"{name}_rows": client.sql_client.make_qualified_table_name(table)
            for name, table in names.items()
            if marked & {column.lower() for column in columns[table]}
        }
        for table, column, condition in _updates(pipeline, source, found.keys()):
            sql = (
                f"update {table} set {column} = {literal(datetime.now(UTC))}"
                f" where {column} is null and ({condition})"
            )
            execute(client.sql_client, sql, found)


def _updates(
    pipeline: dlt.Pipeline, source: DltSource, found: Collection[str]
) -> Iterator[tuple[str, str, str]]:
    """Yield tables, the column to set where it is NULL, and a condition."""
    state: Any = pipeline.state.get("sources", {}).get(source.name, {})
    states = state.get("resources", {})
    lists = list(_complete_lists(source, states.get("issues", {})))
    gone = f"select id from {{}} where {GONE_AT} is not null"
    if "issues_rows" in found and lists:
        conditions = [
            f"{each.condition} and ({READ_AT} is null or {READ_AT} < {each.began_at})"
            for each in lists
        ]
        yield "issues_rows", GONE_AT, " or ".join(conditions)
    if {"issues_rows", f"{HISTORY}_rows"} <= {*found}:
        ended = f"id in ({gone.format('issues_rows')})"
        if lists:  # and of issues in a table that was dropped
            listed = " or ".join(each.condition for each in lists)
            ended += f" or ({listed}) and id not in (select id from issues_rows)"
        yield f"{HISTORY}_rows", VALIDITY[1], ended
    bookmarks = [*states.get("projects", {}).get("bookmarks", {}).values()]
    if "projects_rows" not in found or len(bookmarks) != 1:
        return  # rows do not name their organization
    now = datetime.now(UTC)
    if began_at := Bookmark.parse(bookmarks[0], now).completed_at:
        time = literal(min(began_at, now))
        yield "projects_rows", GONE_AT, f"{READ_AT} is null or {READ_AT} < {time}"
    if "project_detail_rows" in found:
        yield "project_detail_rows", GONE_AT, f"id in ({gone.format('projects_rows')})"


def _complete_lists(source: DltSource, state: Any) -> Iterator[CompleteList]:
    """Yield the lists of issues that had a full scan, without issues older than these list.

    A slug alone would match a project of the same name in another organization, and rows
    of earlier versions have none.
    """
    api: Any = source.resources["issues"].explicit_args["resource"]
    listed_for = api.config.spec.endpoints["issues"].listed_for
    bookmarks = state.get("bookmarks", {})
    slugs = Counter(key.rpartition("/")[2] for key in bookmarks)
    now = datetime.now(UTC)
    for key, stored in bookmarks.items():
        bookmark, slug = Bookmark.parse(stored, now), key.rpartition("/")[2]
        conditions = []
        if bookmark.project_id is not None:
            conditions = [f"project_id = {literal(bookmark.project_id)}"]
        if slugs[slug] == 1:
            condition = f"project_id is null and {PROJECT_SLUG} = {literal(slug)}"
            conditions.append(condition)
        if bookmark.swept_at is None or not conditions:
            continue
        since = bookmark.loaded.start or EARLIEST
        if listed_for:
            # Not from `swept_at`: a resumed sweep may have ended days later.
            since = max(since, earlier(now, listed_for))
        listed = f"({' or '.join(conditions)})"
        if since > EARLIEST:
            listed += f" and (last_seen is null or last_seen >= {literal(since)})"
        yield CompleteList(listed, literal(bookmark.swept_at))
