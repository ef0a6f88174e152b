"""The dlt source: five resources, wired together. Nothing is asked while it is made."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from functools import partial
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.typing import TSecretStrValue
from dlt.extract import DltResource

from analytics_pipeline.api import Api
from analytics_pipeline.destinations import suited
from analytics_pipeline.lists import Lists
from analytics_pipeline.privacy import cleaner
from analytics_pipeline.reading import Cursor, Reader
from analytics_pipeline.settings import Settings
from analytics_pipeline.tables import TABLES


def hints(name: str) -> dict[str, Any]:
    table = TABLES[name]
    return {
        "name": name,
        "table_name": name,
        "columns": table.columns,
        "primary_key": table.primary_key,
        "write_disposition": "merge",
    }


@dlt.resource(**hints("events"))
def events(reader: Reader, cursor: Cursor, project: str) -> Iterator[pa.Table]:
    """Error events of a project, one row each."""
    yield from reader.read("events", cursor, project)


@dlt.resource(**hints("issues"))
def issues(reader: Reader, cursor: Cursor, project: str) -> Iterator[pa.Table]:
    """Issues of a project; one that was seen again replaces its old row."""
    yield from reader.read("issues", cursor, project)


@dlt.resource(**hints("projects"))
def projects(reader: Reader, cursor: Cursor) -> Iterator[pa.Table]:
    """All projects of the organization that the token may see."""
    yield from reader.read("projects", cursor)


@dlt.resource(**hints("releases"))
def releases(reader: Reader, cursor: Cursor) -> Iterator[pa.Table]:
    """Releases of the organization, of all its projects."""
    yield from reader.read("releases", cursor)


@dlt.resource(**hints("project_detail"))
def project_detail(reader: Reader, cursor: Cursor, project: str) -> Iterator[pa.Table]:
    """Settings of a project, without its secrets."""
    yield from reader.read("project_detail", cursor, project)


# Side by side only if it is said of the source: dlt forgets it of a resource that is
# called with arguments.
@dlt.source(
    name="analytics",
    section="analytics_pipeline",
    max_table_nesting=0,
    parallelized=True,
)
def analytics_source(
    base_url: str | None = None,
    auth_token: TSecretStrValue | None = None,
    organization: str | None = None,
    project: str | list[str] | None = None,
    api: str = "v1",
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    full_events: bool = False,
    lookback: float = 3600.0,
    full_refresh: bool = False,
    workers: int = 4,
    redact: list[str] | None = None,
    allow_http: bool = False,
    commit: bool = False,
) -> Iterator[DltResource]:
    """Events, issues, projects, releases and project details of an organization.

    What is not given is taken from `.dlt/config.toml`, `.dlt/secrets.toml` or the
    environment, as with every dlt source.

    Args:
        base_url: address of the server, `https://errors.example.com`. For
            `api="sentry"` it is `https://sentry.io` unless given.
        auth_token: bearer token. Sent to `base_url` and nowhere else.
        organization: slug.
        project: slug, or a list of slugs. A list gives each project resources of
            its own (`events_<slug>`, …) and so a cursor of its own; all load the
            same five tables. A project of a list that answers 403 or 404 is
            skipped, and named in the trace.
        api: which server speaks: `"v1"`, `"sentry"` or `"glitchtip"`.
        since: ISO text or datetime, UTC without zone. How far back the first run
            reads events, issues and releases; projects are always read whole.
        until: end of a span, exclusive. Exactly `since` to `until` is loaded then,
            and the stored cursors stay as they are.
        full_events: whole events with stack traces where the server's list holds
            summaries (Sentry: ten times as many requests).
        lookback: seconds behind the cursor that are read again, for late rows.
        full_refresh: read everything again in spite of the cursors. No table is
            dropped, so rows that the server has forgotten stay.
        workers: requests at a time.
        redact: paths whose values are replaced by `***` before anything is written,
            for instance `["user.email", "user.ip_address", "tags.user.email"]`.
        allow_http: send the token over http:// to other machines, too.
        commit: for long loads in pieces, oldest first: from the cursor, or `since`,
            to `until`, and then move the cursor there. Only for lists that the
            server filters by time (events of Sentry); the others are left out.

    Returns:
        A source with the resources `events`, `issues`, `projects`, `releases` and
        `project_detail`, write disposition merge; columns in `analytics_pipeline.tables`.

    Raises:
        ConfigurationError: a setting is missing or makes no sense.
        ApiError: while reading. dlt then keeps rows and cursors as they were.
    """
    settings = Settings.checked(
        base_url, auth_token, organization, project, api, since, until
    )
    if commit:
        settings.check_commit(full_refresh)
    api_session = Api(
        settings.base_url, settings.auth_token, workers=workers, allow_http=allow_http
    )
    reader = Reader(
        Lists(api_session, settings.server, settings.organization, full_events),
        lookback=timedelta(seconds=lookback),
        full_refresh=full_refresh,
        until=settings.until if commit else None,
        skip_missing=settings.many,
        clean=cleaner(redact or []),
    )

    def cursor(name: str) -> Cursor:
        return Cursor(
            settings.cursor_column(name),
            initial_value=settings.since,
            end_value=None if commit else settings.until,
            lag=lookback,
        )

    def wired(resource: DltResource, suffix: str = "") -> DltResource:
        # When a row comes twice in one run, because it moved while pages were
        # read, the newer copy stays.
        column = settings.cursor_column(resource.name)
        resource.apply_hints(columns={column: {"name": column, "dedup_sort": "desc"}})
        resource.add_map(partial(suited, resource.name))
        return resource.with_name(resource.name + suffix) if suffix else resource

    for slug in settings.projects:
        suffix = f"_{slug}" if settings.many else ""
        yield wired(events(reader, cursor("events"), slug), suffix)
        if commit:
            continue
        yield wired(issues(reader, cursor("issues"), slug), suffix)
        yield wired(project_detail(reader, cursor("project_detail"), slug), suffix)
    if not commit:
        yield wired(projects(reader, cursor("projects")))
        yield wired(releases(reader, cursor("releases")))
