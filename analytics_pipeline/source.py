"""The dlt source: one resource for each table."""

from collections.abc import Iterator
from datetime import datetime
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.schema.utils import new_table
from dlt.common.typing import TSecretStrValue, TSecretValue
from dlt.extract import DltResource

from analytics_pipeline.client.client import Client
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.config import SOURCE, Config, Span, parse_config
from analytics_pipeline.extraction import Api, Incremental, Resource, for_threads
from analytics_pipeline.loading.destinations import (
    AdaptToDestination,
    hide_expected_warnings,
)
from analytics_pipeline.loading.history import as_history
from analytics_pipeline.tables.history import DESCRIBED_BY_SCHEMA, HISTORY, states
from analytics_pipeline.tables.history import HINTS as HISTORY_HINTS
from analytics_pipeline.tables.schema import column_name

# Paths are those of the v1 API; for others see `client.endpoints`. `analytics_source`
# adds keys and columns from `tables.columns`. The incremental uses the named column,
# except for GlitchTip's events, where it is date_received.


@dlt.resource(write_disposition="merge")
@for_threads
def events(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Error events: GET /v1/projects/{organization}/{project}/events/ of each project."""
    with resource.reading("events", date_created) as reading:
        for batch in reading.batches():  # newest first, by the links of each list
            yield batch.rows
            batch.confirm()  # dlt has the rows: now the bookmarks may move


@dlt.resource(write_disposition="merge")
@for_threads
def issues(resource: Resource, last_seen: Incremental) -> Iterator[pa.Table]:
    """Issues: GET /v1/projects/{organization}/{project}/issues/ of each project."""
    with resource.reading("issues", last_seen) as reading:
        for batch in reading.batches():
            yield batch.rows
            batch.confirm()


@dlt.transformer(write_disposition="merge")
def issue_history(rows: Any, row_format: str) -> Any:
    """States of issues, each with the time from which to which it was valid."""
    return as_history(states(rows), row_format)


@dlt.resource(write_disposition="merge")
@for_threads
def projects(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Projects that the token can access: GET /v1/projects/, read completely each time."""
    with resource.reading("projects", date_created) as reading:
        for batch in reading.batches():
            yield batch.rows
            batch.confirm()


@dlt.resource(write_disposition="merge")
@for_threads
def releases(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Releases of all projects: GET /v1/organizations/{organization}/releases/."""
    with resource.reading("releases", date_created) as reading:
        for batch in reading.batches():
            yield batch.rows
            batch.confirm()


@dlt.resource(write_disposition="merge")
@for_threads
def project_detail(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Settings of each project: GET /v1/projects/{organization}/{project}/."""
    with resource.reading("project_detail", date_created) as reading:
        for batch in reading.batches():
            yield batch.rows
            batch.confirm()


RESOURCES: list[Any] = [events, issues, projects, releases, project_detail]


def make_client(config: Config) -> Client:
    """Return a client of the configured server."""
    return Client(
        ApiSession(config.base_url, config.auth_token, config.workers, config.headers),
        config.spec,
        config.organization,
        projects=config.projects,
        full_events=config.full_events,
    )


@dlt.source(name=SOURCE, section="analytics_pipeline", max_table_nesting=0)
def analytics_source(
    base_url: str | None = None,
    auth_token: TSecretStrValue | None = None,
    organization: str | None = None,
    project: str | list[str] | None = None,
    api: str = "v1",
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    full_events: bool = False,
    lookback: Span = 3600.0,
    full_refresh: bool = False,
    rows_per_load: int | None = None,
    workers: int = 4,
    redact: str | list[str] | None = None,
    allow_http: bool = False,
    history: bool = False,
    sweep: Span = "1d",
    tags: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    row_format: str = "auto",
    headers: TSecretValue = None,
) -> Iterator[DltResource]:
    """Events, issues, projects, releases and project details of an organization.

    Settings not passed as arguments are read from `.dlt/config.toml`,
    `.dlt/secrets.toml` or the environment, as for every dlt source. No request is sent
    before dlt reads the resources.

    The resources yield Arrow tables of several thousand rows, which `add_map` and
    `add_filter` receive. To keep only some rows:

        import pyarrow.compute as pc
        python_only = pc.field("platform") == "python"
        source.events.add_map(lambda table: table.filter(python_only))

    Args:
        base_url: address of the server, `https://errors.example.com`, with or without the
            prefix of the API's paths. Default for `api="sentry"`: `https://sentry.io`.
        auth_token: bearer token, sent only to `base_url`.
        organization: slug, or a web address of the organization.
        project: slug, or a list of slugs. A list that the server refuses (403, 404) is
            skipped, and reported in a warning, the trace and the summary of `runner.load`.
        api: type of server: `"v1"`, `"sentry"` or `"glitchtip"`.
        since: how far back to load events, issues and releases: ISO text or datetime (UTC
            if it has no zone), or a span such as `"7d"` for seven days ago. Moving it back
            loads the missing part; moving it forward has no effect. Projects are always
            read completely.
        until: exclusive end. Exactly `since` to `until` is loaded then, and the stored
            bookmarks do not change.
        full_events: load whole events with stack traces where the server's list holds
            summaries (Sentry: ten times as many requests).
        lookback: how much before a bookmark is read again, for late rows: seconds, a
            timedelta, or a span such as `"12h"` or `"3d"`.
        full_refresh: ignore the bookmarks and read everything again. No table is dropped,
            so rows that the server has deleted are kept.
        rows_per_load: number of rows after which a load ends, so that the next load can
            continue a long first one. `runner.load` continues automatically, and uses
            100,000 by default. None: `pipeline.run` reads everything in one load.
        workers: number of concurrent requests.
        redact: one or more paths whose values are replaced by `***` before anything is
            written, such as `["user.email", "tags.user.email"]`. Names are those that the
            server sends; the summary of `runner.load` lists paths that matched nothing.
        allow_http: send the token over http:// to other machines.
        history: load `issue_history` as well: one row for each state of an issue. Needs a
            database, because rows in files cannot be updated.
        sweep: read all issues again if the last time is longer ago than this, because a
            change of status leaves no other trace: a span such as `"12h"` or `"7d"`, a
            timedelta, `"now"` or `"never"`.
        tags: tags that become text columns of `events`: `["browser"]` adds `tag_browser`.
            The column `tags` does not change.
        exclude: columns to leave out, such as `["events.entries"]`. They are not kept in
            `extra` either.
        row_format: how rows are passed to dlt: `"arrow"` tables, `"python"` dicts, or
            `"auto"`: what the destination loads correctly. A resource that is iterated
            outside of a pipeline always yields Arrow tables.
        headers: additional headers of each request, name → value, for example for a login
            proxy. They are secret like the token, and sent only to `base_url`.

    Returns:
        A source with the resources `events`, `issues`, `projects`, `releases` and
        `project_detail`, write disposition merge; columns in
        `analytics_pipeline.tables.columns`. With `history`, also `issue_history`, which is
        loaded together with `issues`; columns in `tables.history`.

    Raises:
        ConfigurationError: a setting is missing or invalid.
        ApiError: while reading: a list failed, or the server refused all lists. dlt then
            keeps rows and bookmarks as they were.
    """
    config = parse_config(
        base_url=base_url,
        auth_token=auth_token,
        organization=organization,
        project=project,
        api=api,
        since=since,
        until=until,
        full_events=full_events,
        lookback=lookback,
        full_refresh=full_refresh,
        rows_per_load=rows_per_load,
        workers=workers,
        redact=redact,
        allow_http=allow_http,
        history=history,
        sweep=sweep,
        tags=tags,
        exclude=exclude,
        row_format=row_format,
        headers=headers,
    )
    shared = Api(config, make_client(config))
    hide_expected_warnings(shared)
    for resource in RESOURCES:
        endpoint = config.spec.endpoints.get(resource.name)
        if endpoint is None:
            continue  # this API does not have it
        incremental: Any = dlt.sources.incremental(
            column_name(endpoint.replication_key),
            initial_value=config.since,
            end_value=config.until,
            lag=config.lookback.total_seconds(),
        )
        table = config.tables[resource.name]
        made = resource(shared, incremental)
        made.apply_hints(**table.hints)
        # Schemas of the first version still sort copies by this column.
        unsorted: Any = {"name": incremental.cursor_path, "dedup_sort": None}
        made.apply_hints(columns={incremental.cursor_path: unsorted})
        made.add_step(AdaptToDestination(table, config.row_format))
        # In the decorator it would be lost when the resource is called with arguments.
        made.parallelize()
        yield made
        if config.history and resource is issues:
            kept = made | issue_history(config.row_format)
            kept.apply_hints(**HISTORY_HINTS)
            dlt.current.source_schema().update_table(
                new_table(HISTORY, columns=DESCRIBED_BY_SCHEMA)
            )
            yield kept
