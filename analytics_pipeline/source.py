"""The dlt source: five resources. Nothing is asked while it is made."""

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

# Paths are those of the v1 API; `client.endpoints` has the others'. `incremental` is on
# the column that is named, but for GlitchTip's events: there it is date_received. Columns
# are those of `tables.schema` and the user's settings: `analytics_source` adds them.


@dlt.resource(
    primary_key=["project_id", "id"],  # an event id is unique in its project only
    write_disposition="merge",
)
@for_threads
def events(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Error events: GET /v1/projects/{organization}/{project}/events/ of each project."""
    with resource.reading("events", date_created) as reading:
        for batch in reading.batches():  # newest first, by the links of each list
            yield batch.rows
            batch.confirm()  # dlt has the rows: now the bookmarks may move


@dlt.resource(primary_key="id", write_disposition="merge")
@for_threads
def issues(resource: Resource, last_seen: Incremental) -> Iterator[pa.Table]:
    """Groups of like events: GET /v1/projects/{organization}/{project}/issues/ of each."""
    with resource.reading("issues", last_seen) as reading:
        for batch in reading.batches():  # newest first, by the links of each list
            yield batch.rows
            batch.confirm()  # dlt has the rows: now the bookmarks may move


@dlt.transformer(write_disposition="merge")
def issue_history(rows: Any, row_format: str) -> Any:
    """The states of issues, from when to when, as far as runs have seen them."""
    return as_history(states(rows), row_format)


@dlt.resource(primary_key="id", write_disposition="merge")
@for_threads
def projects(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """The organization's projects that the token may see: GET /v1/projects/, whole."""
    with resource.reading("projects", date_created) as reading:
        for batch in reading.batches():  # newest first, by the links of each list
            yield batch.rows
            batch.confirm()  # dlt has the rows: now the bookmarks may move


@dlt.resource(primary_key="id", write_disposition="merge")
@for_threads
def releases(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Releases of all projects: GET /v1/organizations/{organization}/releases/."""
    with resource.reading("releases", date_created) as reading:
        for batch in reading.batches():  # newest first, by the links of each list
            yield batch.rows
            batch.confirm()  # dlt has the rows: now the bookmarks may move


@dlt.resource(primary_key="id", write_disposition="merge")
@for_threads
def project_detail(resource: Resource, date_created: Incremental) -> Iterator[pa.Table]:
    """Settings, secrets masked: GET /v1/projects/{organization}/{project}/ of each."""
    with resource.reading("project_detail", date_created) as reading:
        for batch in reading.batches():  # newest first, by the links of each list
            yield batch.rows
            batch.confirm()  # dlt has the rows: now the bookmarks may move


RESOURCES: tuple[Any, ...] = (events, issues, projects, releases, project_detail)


def make_client(config: Config) -> Client:
    """Return a client of the server that is configured."""
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

    What is not given is taken from `.dlt/config.toml`, `.dlt/secrets.toml` or the
    environment, as with every dlt source.

    The resources give Arrow tables of some thousand rows, so that is what `add_map` and
    `add_filter` work on. To keep only some rows:

        import pyarrow.compute as pc
        python_only = pc.field("platform") == "python"
        source.events.add_map(lambda table: table.filter(python_only))

    Args:
        base_url: address of the server, `https://errors.example.com`, with or without
            the prefix of the API's paths. For `api="sentry"` it is `https://sentry.io`
            unless given.
        auth_token: bearer token. Sent to `base_url` and nowhere else.
        organization: slug, or a web address of the organization.
        project: slug, or a list of slugs. A list that the server refuses (403, 404) is
            skipped: a warning, the trace and the summary of `runner.load` name it.
        api: kind of server: `"v1"`, `"sentry"` or `"glitchtip"`.
        since: ISO text or datetime, UTC without zone, not in the future; or a span such
            as `"7d"`, so long ago. How far back events, issues and releases are loaded. An earlier time than before loads the
            part that is missing; a later one changes nothing. Projects are always read
            whole.
        until: end of a span, exclusive. Exactly `since` to `until` is loaded then, and
            the stored bookmarks stay as they are.
        full_events: whole events with stack traces where the server's list holds
            summaries (Sentry: ten times as many requests).
        lookback: how much is read again behind a bookmark, for late rows: seconds, a
            timedelta, or a span as `"12h"`, `"3d"`.
        full_refresh: read everything again in spite of the bookmarks. No table is
            dropped, so rows that the server has forgotten stay.
        rows_per_load: rows after which a load ends, so that a long first load can go on
            from there with the next one. `runner.load` does that by itself, after
            100,000 rows unless given. None: `pipeline.run` reads all in one load.
        workers: requests at a time.
        redact: a path, or several, whose values are replaced by `***` before anything
            is written, for instance `["user.email", "tags.user.email"]`. Names are as
            the server sends them; the summary of `runner.load` names what matched
            nothing.
        allow_http: send the token over http:// to other machines, too.
        history: load `issue_history`, too: one row for each state of an issue, from when
            to when. For databases; files cannot keep it.
        sweep: all issues are read again when that was done longer ago than this, since a
            change of status leaves no other trace: a span as `"12h"`, `"7d"` or a
            timedelta; `"now"` or `"never"`.
        tags: tags that become text columns of `events`: `["browser"]` gives
            `tag_browser`. The list in the column `tags` stays as it is.
        exclude: columns to leave out, as `["events.entries"]`: neither written nor, like
            fields that nobody knows, kept in `extra`.
        row_format: how rows come to dlt: `"arrow"` tables, `"python"` dicts, or `"auto"`:
            what the destination loads right. A resource that is iterated by hand always
            gives Arrow tables.
        headers: further headers of each request, name → value, such as those that a
            login proxy before the server wants. As secret as the token, and sent to
            `base_url` and nowhere else.

    Returns:
        A source with the resources `events`, `issues`, `projects`, `releases` and
        `project_detail`, write disposition merge; columns in
        `analytics_pipeline.tables.schema`. With `history` there is `issue_history`, too,
        which is loaded together with `issues`; columns in `tables.history`.

    Raises:
        ConfigurationError: a setting is missing or makes no sense.
        ApiError: while reading: a list failed, or the server refused all. dlt then keeps
            rows and bookmarks as they were.
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
        endpoint = config.spec.endpoints[resource.name]
        incremental: Any = dlt.sources.incremental(
            column_name(endpoint.replication_key),
            initial_value=config.since,
            end_value=config.until,
            lag=config.lookback.total_seconds(),
        )
        table = config.tables[resource.name]
        made = resource(shared, incremental)
        made.apply_hints(**table.hints)
        # The first version sorted copies by this column, which its schemas still say.
        unsorted: Any = {"name": incremental.cursor_path, "dedup_sort": None}
        made.apply_hints(columns={incremental.cursor_path: unsorted})
        made.add_step(AdaptToDestination(table, config.row_format))
        # Said here, since dlt forgets it of a resource that is called with arguments.
        made.parallelize()
        yield made
        if config.history and resource is issues:
            kept = made | issue_history(config.row_format)
            kept.apply_hints(**HISTORY_HINTS)
            dlt.current.source_schema().update_table(
                new_table(HISTORY, columns=DESCRIBED_BY_SCHEMA)
            )
            yield kept
