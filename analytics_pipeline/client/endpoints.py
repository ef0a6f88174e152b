"""What differs between the three APIs: paths, envelope, parameters, order, time fields.

Facts without logic, side by side. A fourth API is one more entry in `APIS`; no loop
needs to change for it. Sources: the vendors' documentation, Sentry's own source code
(August 2026) and the answers of a running GlitchTip (December 2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Endpoint:
    """One path of an API, and its habits."""

    table: str
    path: str
    """Below the API's prefix; `{organization}` and `{project}` are slugs."""
    path_by_id: str = ""
    """Lists the same where the project's id is known, as the parameter `project`; without
    what was merged away."""
    scope: str = ""
    """What the token must be allowed; named when the server answers 403."""
    replication_key: str = "dateCreated"
    """API field that dates a record: what is new is newer by it."""
    key: str = "id"
    """API field that identifies a record within its list."""
    params: Mapping[str, str] = field(default_factory=dict)
    full_params: Mapping[str, str] = field(default_factory=dict)
    """Further parameters that ask for whole records, where lists hold summaries."""
    newest_first: bool = False
    """The order by `replication_key` is documented; otherwise each page has to show it."""
    full_scan: bool = False
    """Small, and changes without trace in `replication_key`: read to its end each time."""
    is_swept: bool = False
    """Changes without trace in `replication_key`, and is too large to be read each time."""
    listed_for: timedelta | None = None
    """Lists only records of so recent a `replication_key`: of older ones nobody knows."""
    filters_time: bool = False
    """Honours `start` and `end`, half open, in UTC without zone.

    Old servers ignore them, and a window before all that a server keeps is refused.
    """
    refresh_window: timedelta = timedelta()
    """Records change for about this long after they were created."""
    tolerated_statuses: tuple[int, ...] = (403, 404)
    """How the server says that a list is not there, or not for this token."""
    unknown_is_empty: bool = False
    """Answers an empty list, not 404, for names that do not exist."""
    of_all_organizations: bool = False
    """May list rows of others than the organization that was asked for."""
    unlinked: str = ""
    """What an answer without a Link header means, and what to do."""
    unfilled: tuple[str, ...] = ()
    """Fields that the server does not compute: 0 or empty there means unknown."""
    single: bool = False
    """One object, not a list: there are no pages and no links."""

    @property
    def by_project(self) -> bool:
        """Each project has a list of its own; otherwise the organization has one."""
        return any("{project}" in text for text in (self.path, *self.params.values()))


@dataclass(frozen=True)
class ApiSpec:
    """The endpoints of one kind of server."""

    prefix: str
    envelope: str | None
    """Key of the body that holds the records; None: the body is the records."""
    endpoints: Mapping[str, Endpoint]
    """Table → endpoint."""
    directory: str = "/projects/"
    """Lists what the token may see of all organizations: tells which names there are."""
    link: str = "<"
    """How its Link headers begin."""
    base_url: str | None = None
    """Of the vendor's own service, if it has one."""


_RELEASES_CHANGE = timedelta(days=30)
"""Deploys, commits and new issues are added to a release for about so long."""


def _by_table(*endpoints: Endpoint) -> dict[str, Endpoint]:
    return {endpoint.table: endpoint for endpoint in endpoints}


APIS: Mapping[str, ApiSpec] = {
    "v1": ApiSpec(
        prefix="/v1",
        envelope="data",
        # No order of its lists is documented.
        endpoints=_by_table(
            Endpoint(
                "events",
                path="/projects/{organization}/{project}/events/",
                scope="event:read",
            ),
            Endpoint(
                "issues",
                path="/projects/{organization}/{project}/issues/",
                scope="event:read",
                replication_key="lastSeen",
                is_swept=True,
                params={"query": ""},  # all, not only the unresolved ones
            ),
            Endpoint(
                "projects",
                path="/projects/",
                scope="project:read",
                full_scan=True,
                of_all_organizations=True,
                unknown_is_empty=True,
            ),
            Endpoint(
                "releases",
                path="/organizations/{organization}/releases/",
                scope="org:read",
                refresh_window=_RELEASES_CHANGE,
            ),
            Endpoint(
                "project_detail",
                path="/projects/{organization}/{project}/",
                scope="project:read",
                full_scan=True,
                single=True,
            ),
        ),
    ),
    "sentry": ApiSpec(
        prefix="/api/0",
        envelope=None,
        directory="/organizations/{organization}/projects/",
        base_url="https://sentry.io",
        endpoints=_by_table(
            Endpoint(
                "events",
                path="/projects/{organization}/{project}/events/",
                scope="project:read",
                full_params={"full": "true"},
                newest_first=True,
                filters_time=True,
            ),
            Endpoint(
                "issues",
                path="/organizations/{organization}/issues/",
                scope="event:read",
                replication_key="lastSeen",
                is_swept=True,
                # Without `query` only unresolved issues come; without project=-1 only
                # those of projects that the token's user is a member of. The answer
                # covers 90 days; the totals are in `lifetime`, which collapse=stats
                # would take away. No sparkline, and no figures of the query.
                params={
                    "query": "project:{project}",
                    "project": "-1",
                    "sort": "date",
                    "collapse": "filtered",
                    "groupStatsPeriod": "",
                    "limit": "100",
                },
                newest_first=True,
                listed_for=timedelta(days=89),  # 90, of which one may pass meanwhile
                tolerated_statuses=(400, 403, 404),  # 400: no such project in `query`
                unlinked="Sentry answers so to a user who is in no team: add the token's"
                " user to a team, or take the token of an internal integration",
            ),
            Endpoint(
                "projects",
                path="/organizations/{organization}/projects/",
                scope="org:read",
                params={"per_page": "100"},
                full_scan=True,  # ordered by bookmark and slug
            ),
            Endpoint(
                "releases",
                path="/organizations/{organization}/releases/",
                scope="project:read",
                # -1: of all projects; an empty status: archived ones too
                params={"per_page": "100", "project": "-1", "status": ""},
                newest_first=True,
                refresh_window=_RELEASES_CHANGE,
            ),
            Endpoint(
                "project_detail",
                path="/projects/{organization}/{project}/",
                scope="project:read",
                full_scan=True,
                single=True,
            ),
        ),
    ),
    "glitchtip": ApiSpec(
        prefix="/api/0",
        envelope=None,
        link="{",  # the text of a Python set
        endpoints=_by_table(
            Endpoint(
                "events",
                path="/projects/{organization}/{project}/events/",
                scope="event:read",
                key="eventID",  # version 6 gives older events new ids
                replication_key="dateReceived",  # dateCreated is not in order
                params={"limit": "100"},
                newest_first=True,
                unknown_is_empty=True,
            ),
            Endpoint(
                "issues",
                path="/projects/{organization}/{project}/issues/",
                path_by_id="/organizations/{organization}/issues/",
                scope="event:read",
                replication_key="lastSeen",
                is_swept=True,
                params={"limit": "100"},  # `sort` would give 422
                newest_first=True,
                unknown_is_empty=True,
                unfilled=("userCount", "stats"),
            ),
            Endpoint(
                "projects",
                path="/organizations/{organization}/projects/",
                scope="project:read",
                params={"limit": "100"},
                full_scan=True,
                unknown_is_empty=True,
            ),
            Endpoint(
                "releases",
                path="/organizations/{organization}/releases/",
                scope="project:releases",
                key="version",
                params={"limit": "100"},
                newest_first=True,
                refresh_window=_RELEASES_CHANGE,
                unknown_is_empty=True,
            ),
            Endpoint(
                "project_detail",
                path="/projects/{organization}/{project}/",
                scope="project:read",
                full_scan=True,
                single=True,
            ),
        ),
    ),
}


def table_names() -> list[str]:
    """Return the names of all tables."""
    return [*dict.fromkeys(name for spec in APIS.values() for name in spec.endpoints)]


def endpoints_of(table: str) -> list[Endpoint]:
    """Return the endpoints of a table in all APIs."""
    return [s.endpoints[table] for s in APIS.values() if table in s.endpoints]


def cursors_of(table: str) -> list[str]:
    """Return the API fields that are the cursor of a table in any API."""
    return [*dict.fromkeys(each.replication_key for each in endpoints_of(table))]
