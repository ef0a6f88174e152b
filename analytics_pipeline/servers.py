"""What differs between the servers: paths, envelope, parameters, cursor fields.

Facts without logic, side by side. A fourth server is one more entry in
`SERVERS`; no loop needs to change for it. Sources: the vendors' documentation
and the answers of running servers (GlitchTip of December 2025).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta


@dataclass(frozen=True)
class Endpoint:
    """One list (or single object) of a server, and its habits."""

    path: str
    """Below the server's prefix; `{organization}` and `{project}` are slugs."""
    scope: str
    """What the token must be allowed; named when the server answers 403."""
    cursor: tuple[str, ...] = ("dateCreated",)
    """API field by which rows are new; the next one counts where it is missing."""
    key: str = "id"
    """API field that tells rows apart."""
    params: Mapping[str, str] = field(default_factory=dict)
    full: Mapping[str, str] = field(default_factory=dict)
    """Further parameters that ask for whole rows, where lists hold summaries."""
    newest_first: bool = True
    """In order of `cursor`; reading may stop at rows that are known."""
    whole: bool = False
    """Small, and changes without trace in `cursor`: read to its end every time."""
    filters_time: bool = False
    """Honours `start` and `end`, half open, in UTC without zone."""
    reread: timedelta = timedelta()
    """Rows change for this long after they were created."""
    refusals: tuple[int, ...] = (403, 404)
    """How it says that a project is not there, or not for this token."""
    unknown_is_empty: bool = False
    """Answers an empty list, not 404, for a project that does not exist."""


@dataclass(frozen=True)
class Server:
    prefix: str
    envelope: str | None
    """Key of the body that holds the rows; None: the body is the rows."""
    endpoints: Mapping[str, Endpoint]
    base_url: str | None = None


SERVERS: Mapping[str, Server] = {
    "v1": Server(
        prefix="/v1",
        envelope="data",
        endpoints={
            "events": Endpoint(
                path="/projects/{organization}/{project}/events/",
                scope="event:read",
            ),
            "issues": Endpoint(
                path="/projects/{organization}/{project}/issues/",
                scope="event:read",
                cursor=("lastSeen",),
                params={"query": ""},  # all, not only the unresolved ones
            ),
            "projects": Endpoint(
                path="/projects/",
                scope="project:read",
                newest_first=False,  # no order is documented
                whole=True,
            ),
            "releases": Endpoint(
                path="/organizations/{organization}/releases/",
                scope="org:read",
            ),
            "project_detail": Endpoint(
                path="/projects/{organization}/{project}/",
                scope="project:read",
                whole=True,
            ),
        },
    ),
    "sentry": Server(
        prefix="/api/0",
        envelope=None,
        base_url="https://sentry.io",
        endpoints={
            "events": Endpoint(
                path="/projects/{organization}/{project}/events/",
                scope="event:read",
                cursor=("dateCreated", "dateReceived"),  # whole rows may lack one
                full={"full": "true"},
                filters_time=True,
            ),
            "issues": Endpoint(
                path="/organizations/{organization}/issues/",
                scope="event:read",
                cursor=("lastSeen",),
                # Without `query` only unresolved issues come. `start` and `end`
                # would turn count, firstSeen and lastSeen into figures of that span.
                params={
                    "query": "project:{project}",
                    "sort": "date",
                    "collapse": "stats",
                    "limit": "100",
                },
                refusals=(400, 403, 404),  # 400: no such project in `query`
            ),
            "projects": Endpoint(
                path="/organizations/{organization}/projects/",
                scope="org:read",
                params={"per_page": "100"},
                newest_first=False,  # ordered by slug
                whole=True,
            ),
            "releases": Endpoint(
                path="/organizations/{organization}/releases/",
                scope="org:read",
                # -1: of all projects; an empty status: archived ones too
                params={"per_page": "100", "project": "-1", "status": ""},
                reread=timedelta(days=30),
            ),
            "project_detail": Endpoint(
                path="/projects/{organization}/{project}/",
                scope="project:read",
                whole=True,
            ),
        },
    ),
    "glitchtip": Server(
        prefix="/api/0",
        envelope=None,
        endpoints={
            "events": Endpoint(
                path="/projects/{organization}/{project}/events/",
                scope="event:read",
                cursor=("dateReceived",),  # dateCreated is not in order
                params={"limit": "100"},
                unknown_is_empty=True,
            ),
            "issues": Endpoint(
                path="/projects/{organization}/{project}/issues/",
                scope="event:read",
                cursor=("lastSeen",),
                params={"limit": "100"},  # `sort` would give 422
            ),
            "projects": Endpoint(
                path="/projects/",
                scope="project:read",
                params={"limit": "100"},
                newest_first=False,
                whole=True,
            ),
            "releases": Endpoint(
                path="/organizations/{organization}/releases/",
                scope="project:releases",
                key="version",
                params={"limit": "100"},
            ),
            "project_detail": Endpoint(
                path="/projects/{organization}/{project}/",
                scope="project:read",
                whole=True,
            ),
        },
    ),
}
