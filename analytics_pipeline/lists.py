"""How to ask a server for its lists, and what its refusals mean."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from urllib.parse import quote

from analytics_pipeline.api import Api, Tally
from analytics_pipeline.columns import moment
from analytics_pipeline.errors import ApiError, CursorLoop, HttpError
from analytics_pipeline.pages import Page
from analytics_pipeline.servers import Endpoint, Server
from analytics_pipeline.tables import Record

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""Where a server that wants a start is asked from, when there is none."""


@dataclass(frozen=True)
class Lists:
    """The lists of one organization; `name` is a table's name throughout."""

    api: Api
    server: Server
    organization: str
    full_events: bool = False

    def pages(
        self,
        name: str,
        project: str,
        tally: Tally,
        start: datetime | None = None,
        end: datetime | None = None,
    ) -> Iterator[Page]:
        """The pages of a list; where the server filters by time, from start to end."""
        endpoint = self.server.endpoints[name]
        pages = self.api.pages(
            self._path(endpoint, project),
            self._params(endpoint, project, start, end),
            envelope=self.server.envelope,
            key=endpoint.key,
            tally=tally,
        )
        for number, page in enumerate(pages):
            if endpoint.unknown_is_empty and not page.rows and not number:
                # The answer to a wrong name, too; project_detail is honest.
                detail = self.server.endpoints["project_detail"]
                self.api.get(self._path(detail, project), {}, tally)
            yield page

    def _path(self, endpoint: Endpoint, project: str) -> str:
        return self.server.prefix + endpoint.path.format(
            organization=quote(self.organization, safe=""),
            project=quote(project, safe=""),
        )

    def _params(
        self,
        endpoint: Endpoint,
        project: str,
        start: datetime | None,
        end: datetime | None,
    ) -> dict[str, str]:
        params = {
            name: value.replace("{project}", search_term(project))
            for name, value in endpoint.params.items()
        }
        if self.full_events:
            params |= endpoint.full
        if endpoint.filters_time:
            # Pinned, or rows would move from page to page as new ones come.
            params["start"] = api_time(start or BEGINNING)
            params["end"] = api_time(end or datetime.now(UTC), up=True)
        return params

    def explain(self, error: ApiError, name: str, project: str) -> None:
        """Say on which list it happened, and what to do next."""
        endpoint = self.server.endpoints[name]
        organization = f"organization {self.organization!r}"
        error.context = f"{name} of " + (
            f"project {project!r}" if project else organization
        )
        if isinstance(error, HttpError):
            names = (
                f"{organization} and project {project!r}" if project else organization
            )
            error.advice = {
                401: "the server rejected the token: check auth_token; it may have"
                " expired, or belong to another server",
                403: f"the token lacks the scope {endpoint.scope}, or may not see this",
                404: f"check the names of {names}, and that the token may see them",
            }.get(
                error.status, "nothing was loaded and no cursor moved; try again later"
            )
        elif isinstance(error, CursorLoop) and error.rows:
            first, last = error.rows[0], error.rows[-1]
            key, time = endpoint.key, endpoint.cursor[0]
            error.advice = (
                f"the rows from {key} {first.get(key)!r} ({time} {first.get(time)}) to"
                f" {last.get(key)!r} ({last.get(time)}) came again, and those behind"
                " them cannot be read; a server does this when more rows than fit a"
                f" page have the same {time}"
            )


def row_time(row: Record, endpoint: Endpoint) -> datetime | None:
    """When a row is from, by the first of the cursor's fields that tells."""
    for field in endpoint.cursor:
        if (time := moment(row.get(field))) is not None:
            return time
    return None


def api_time(time: datetime, up: bool = False) -> str:
    """ISO text in whole seconds without zone, rounded down or up."""
    if up and time.microsecond:
        time += timedelta(seconds=1)
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def search_term(slug: str) -> str:
    """A slug as it stands in a search query; quoted if it has unusual characters."""
    if all(letter.isalnum() or letter in "-_" for letter in slug):
        return slug
    return '"' + slug.replace("\\", "\\\\").replace('"', '\\"') + '"'
