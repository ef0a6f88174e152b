"""Which rows are gone from the server: a rule on stored data, by SQL.

No server reports that an issue or a project was deleted. But a complete reading of a list
has not shown those of its rows that were read before it. However often the rule is
applied, the result is the same, so the next run makes good for one that was killed.
"""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import dlt
from dlt.common.data_writers.escape import format_datetime_literal
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltSource

from analytics_pipeline.bookmarks import EARLIEST, Bookmark, earlier
from analytics_pipeline.loading.destinations import can_update
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY, VALIDITY
from analytics_pipeline.tables.schema import GONE_AT, PROJECT_SLUG, READ_AT


class CompleteList(NamedTuple):
    """A list of issues that was read to its end."""

    condition: str
    """What its rows in `issues` and `issue_history` fulfil, with `%s` for texts."""
    texts: list[str]
    began_at: str
    """When its last complete reading began, as SQL has it."""


def mark_gone(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Set `gone_at` of rows that are gone from the server, and end their states.

    Those that the last complete reading of their list has not shown, in the tables
    `issues`, `issue_history`, `projects` and `project_detail`. `load` does it by itself;
    after `pipeline.run` call it with the same source. In files, Delta and Iceberg tables
    `gone_at` is always NULL.
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
            name: client.sql_client.make_qualified_table_name(table)
            for name, table in names.items()
            if marked & {column.lower() for column in columns[table]}
        }
        for table, column, condition, texts in _updates(
            pipeline, source, found, client.capabilities
        ):
            now = _literal(client.capabilities, datetime.now(UTC))
            client.sql_client.execute_sql(
                f"UPDATE {table} SET {column} = {now}"
                f" WHERE {column} IS NULL AND ({condition})",
                *texts,
            )


Update = tuple[str, str, str, list[str]]
"""A table, the column to set where it is NULL, and the further condition with its texts."""


def _updates(
    pipeline: dlt.Pipeline,
    source: DltSource,
    found: dict[str, str],
    capabilities: DestinationCapabilitiesContext,
) -> Iterator[Update]:
    state: Any = pipeline.state.get("sources", {}).get(source.name, {})
    states = state.get("resources", {})
    lists = list(_complete_lists(source, states.get("issues", {}), capabilities))
    texts = [text for each in lists for text in each.texts]
    if issues := found.get("issues"):
        if lists:
            old = f"({READ_AT} IS NULL OR {READ_AT} < {{}})"
            conditions = [f"{e.condition} AND {old.format(e.began_at)}" for e in lists]
            yield issues, GONE_AT, " OR ".join(conditions), texts
        if history := found.get(HISTORY):
            condition = f"id IN (SELECT id FROM {issues} WHERE {GONE_AT} IS NOT NULL)"
            if lists:  # and of issues that a table which was dropped held
                listed = " OR ".join(each.condition for each in lists)
                condition += f" OR ({listed}) AND id NOT IN (SELECT id FROM {issues})"
            yield history, VALIDITY[1], condition, texts
    bookmarks = [*states.get("projects", {}).get("bookmarks", {}).values()]
    # Rows do not say which of several organizations they are of.
    if (projects := found.get("projects")) and len(bookmarks) == 1:
        now = datetime.now(UTC)
        if began_at := Bookmark.parse(bookmarks[0], now).completed_at:
            time = _literal(capabilities, min(began_at, now))
            yield projects, GONE_AT, f"{READ_AT} IS NULL OR {READ_AT} < {time}", []
        if detail := found.get("project_detail"):
            gone = f"SELECT id FROM {projects} WHERE {GONE_AT} IS NOT NULL"
            yield detail, GONE_AT, f"id IN ({gone})", []


def _complete_lists(
    source: DltSource, state: Any, capabilities: DestinationCapabilitiesContext
) -> Iterator[CompleteList]:
    """Yield the lists of issues of which a complete reading is known.

    An issue that was last seen before what the list goes back to is not looked for. A
    slug alone would take a project of the same name in another organization for it, and
    older rows do not hold the slug.
    """
    api: Any = source.resources["issues"].explicit_args["resource"]
    listed_for = api.config.spec.endpoints["issues"].listed_for
    bookmarks = state.get("bookmarks", {})
    slugs = Counter(key.rpartition("/")[2] for key in bookmarks)
    for key, stored in bookmarks.items():
        bookmark, slug = (
            Bookmark.parse(stored, datetime.now(UTC)),
            key.rpartition("/")[2],
        )
        condition, texts = [], []
        if bookmark.project_id is not None:
            condition, texts = ["project_id = %s"], [bookmark.project_id]
        if slugs[slug] == 1:
            condition.append(f"project_id IS NULL AND {PROJECT_SLUG} = %s")
            texts.append(slug)
        if bookmark.swept_at is None or not condition:
            continue
        since = bookmark.loaded.start or EARLIEST
        if listed_for:
            # Not from `swept_at`: a reading that was resumed may have ended days later.
            since = max(since, earlier(datetime.now(UTC), listed_for))
        listed = f"({' OR '.join(condition)})"
        if since > EARLIEST:
            time = _literal(capabilities, since)
            listed += f" AND (last_seen IS NULL OR last_seen >= {time})"
        yield CompleteList(listed, texts, _literal(capabilities, bookmark.swept_at))


def _literal(capabilities: DestinationCapabilitiesContext, time: datetime) -> str:
    """Return a time as SQL has it.

    The capabilities are a client's: of `sqlalchemy` only it knows which database it is.
    """
    form = capabilities.format_datetime_literal
    if form is None:
        form = format_datetime_literal
    is_naive = not capabilities.supports_tz_aware_datetime
    return str(form(time, capabilities.timestamp_precision, is_naive))
