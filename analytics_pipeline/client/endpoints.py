"""How the three APIs differ: paths, envelope, parameters, order, cursors.

To add an API, add an entry to `APIS`. Sources: the vendors' documentation, Sentry's source code (August 2026) and the answers of a running
GlitchTip (December 2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Endpoint:
    """A path of an API, and its properties."""

    table: str
    path: str
    """Below the API's prefix; `{organization}` and `{project}` are slugs."""
    path_by_id: str = ""
    """Path that lists the same records by project id, without merged ones."""
    scope: str = "project:read"
    """Scope that the token needs; reported if the server answers 403."""
    replication_key: str = "dateCreated"
    """API field of the cursor: new records have later times."""
    key: str = "id"
    """API field that identifies a record within its list."""
    params: Mapping[str, str] = field(default_factory=dict)
    full_params: Mapping[str, str] = field(default_factory=dict)
    """Further parameters that request whole records, where lists hold summaries."""
    newest_first: bool = False
    """The order by `replication_key` is documented; otherwise each page is checked."""
    full_scan: bool = False
    """Read to its end each time: small, and changes do not move `replication_key`."""
    is_swept: bool = False
    """Changes do not move `replication_key`, but the list is too large for full scans."""
    listed_for: timedelta | None = None
    """Age by `replication_key` after which records are no longer listed."""
    filters_time: bool = False
    """Supports `start` and `end`: half open, in UTC without zone.

    Old servers ignore them, and a window before the retention period is refused.
    """
    refresh_window: timedelta = timedelta()
    """How long records change after they were created, roughly."""
    tolerated_statuses: tuple[int, ...] = (403, 404)
    """Statuses if the list does not exist, or this token cannot access it."""
    unknown_is_empty: bool = False
    """For names that do not exist, the answer is an empty list, not 404."""
    of_all_organizations: bool = False
    """The list can contain rows of other organizations."""
    unlinked: str = ""
    """What an answer without a Link header means, and what to do."""
    unfilled: tuple[str, ...] = ()
    """Fields that the server does not compute, so that 0 or empty means unknown."""
    single: bool = False
    """One object instead of a list, so there are no pages and no links."""

    @property
    def by_project(self) -> bool:
        """Each project has a list of its own; otherwise the organization has one."""
        return any("{project}" in text for text in (self.path, *self.params.values()))


@dataclass(frozen=True)
class ApiSpec:
    """The endpoints of a type of server."""

    prefix: str
    envelope: str | None
    """Key of the body that holds the records; None: the body is the records."""
    endpoints: dict[str, Endpoint]
    """Table → endpoint."""
    directory: str = "/projects/"
    """Path of the list of all projects that the token can access."""
    link: str = "<"
    """How Link headers start."""
    base_url: str | None = None
    """Address of the vendor's hosted service, if any."""


def _by_table(*endpoints: Endpoint) -> dict[str, Endpoint]:
    return {endpoint.table: endpoint for endpoint in endpoints}


_RELEASES_CHANGE = timedelta(days=30)
"""How long deploys, commits and new issues are added to a release, roughly."""
_EVENTS_PATH = "/projects/{organization}/{project}/events/"
_PROJECT_DETAIL = Endpoint(
    "project_detail",
    path="/projects/{organization}/{project}/",
    full_scan=True,
    single=True,
)

APIS: Mapping[str, ApiSpec] = {
    "v1": ApiSpec(
        prefix="/v1",
        envelope="data",
        # The order of its lists is not documented.
        endpoints=_by_table(
            Endpoint(
                "events",
                path=_EVENTS_PATH,
                scope="event:read",
            ),
            Endpoint(
                "issues",
                path="/projects/{organization}/{project}/issues/",
                scope="event:read",
                replication_key="lastSeen",
                is_swept=True,
                params={"query": ""},  # all issues, not only unresolved ones
            ),
            Endpoint(
                "projects",
                path="/projects/",
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
            _PROJECT_DETAIL,
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
                path=_EVENTS_PATH,
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
                # Without `query` only unresolved issues are listed; without project=-1
                # only those of the user's own projects. The figures cover 90 days;
                # collapse=stats would remove the totals in `lifetime`.
                params={
                    "query": "project:{project}",
                    "project": "-1",
                    "sort": "date",
                    "collapse": "filtered",
                    "groupStatsPeriod": "",
                    "limit": "100",
                },
                newest_first=True,
                listed_for=timedelta(days=89),  # 90, and a day for the run itself
                tolerated_statuses=(400, 403, 404),  # 400: no such project in `query`
                unlinked="Sentry sends this answer if the token's user is not in a team: add"
                " the user to a team, or use the token of an internal integration",
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
                # -1: of all projects; an empty status includes archived ones
                params={"per_page": "100", "project": "-1", "status": ""},
                newest_first=True,
                refresh_window=_RELEASES_CHANGE,
            ),
            _PROJECT_DETAIL,
        ),
    ),
    "glitchtip": ApiSpec(
        prefix="/api/0",
        envelope=None,
        link="{",  # the text of a Python set
        endpoints=_by_table(
            Endpoint(
                "events",
                path=_EVENTS_PATH,
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
                params={"limit": "100"},  # `sort` is refused with 422
                newest_first=True,
                unknown_is_empty=True,
                unfilled=("userCount", "stats"),
            ),
            Endpoint(
                "projects",
                path="/organizations/{organization}/projects/",
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
            _PROJECT_DETAIL,
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
