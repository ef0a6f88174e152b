"""What an error means and what to do next: which name, or which API, is probably meant."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote

import requests

from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.client.page import error_code, error_detail, owner, parse_answer
from analytics_pipeline.client.retry import RequestStats
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.errors import (
    LINES,
    ApiError,
    BrokenAnswer,
    EmptyAnswer,
    HttpError,
    OtherApi,
    UnknownName,
    Unreachable,
    did_you_mean,
)

PAGES = 20
"""Of the projects that names are compared with."""
NOTHING, REFUSES, ANSWERS = range(3)
"""How a server takes a request for projects of another API."""
_LATER = "what is loaded stays; run it again later"


class Diagnosis:
    """Explains errors; asks the server, once for all of them, what names it knows."""

    def __init__(self, session: ApiSession, spec: ApiSpec, organization: str) -> None:
        self._session = session
        self._spec = spec
        self._organization = organization
        self.is_confirmed = False
        """An answer had the shape of this API, so there is no other."""
        self._names: dict[str, dict[str, str]] | None = None
        self._grades: dict[str, int] = {}
        """Other APIs → how the server takes a request of theirs."""
        self._lock = threading.Lock()

    def explained(
        self, error: ApiError, endpoint: Endpoint, project: str, title: str
    ) -> ApiError:
        """Return the error of a list with the list's title and what to do next."""
        if isinstance(error, Unreachable):  # whatever the list
            advice = f"check base_url and the network; {_LATER}"
            return error.about("the server cannot be reached", advice)
        apis: list[str] = []
        if _refuses_sort(error, endpoint) or (
            _is_shapeless(error) and self._is_doubtful()
        ):
            apis = self._find_apis(REFUSES)
        elif _is_unknown(error, endpoint) and self._is_doubtful():
            apis = self._find_apis(ANSWERS)
        if apis:
            choice = " or ".join(map(repr, apis))
            advice = f"the server speaks another API: set api to {choice}"
            return OtherApi(f"{title}: {error}; {advice}", apis)
        return error.about(title, self._advice(error, endpoint, project))

    def _advice(self, error: ApiError, endpoint: Endpoint, project: str) -> str:
        if isinstance(error, EmptyAnswer):
            return endpoint.unlinked
        if _is_unknown(error, endpoint):
            return self._did_you_mean(project)
        status = error.status if isinstance(error, HttpError) else 0
        if status in (401, 403) and _has_code(error):
            return ""  # a login or a second factor is missing: the server says which
        if status == 401:
            return (
                "the server rejected the token: check auth_token; it may have expired,"
                " or belong to another server"
            )
        if status == 403:
            return f"the token lacks the scope {endpoint.scope}, or may not see this"
        return _LATER if status or isinstance(error, BrokenAnswer) else ""

    def _is_doubtful(self) -> bool:
        """Tell whether nothing has come yet as this API has it."""
        return not (self.is_confirmed or self.names())

    def names(self) -> dict[str, dict[str, str]]:
        """Return organization → slug → id of the projects that the token may see."""
        with self._lock:
            if self._names is None:
                self._names = {}
                with suppress(ApiError):  # the error to explain says enough
                    self._read_names(self._names)
            return self._names

    def _read_names(self, names: dict[str, dict[str, str]]) -> None:
        params = dict(self._spec.endpoints["projects"].params)
        path = self._spec.prefix + self._spec.directory
        for _ in range(PAGES):
            response = self._ask(path, params)
            page = parse_answer(response, self._spec, self._spec.endpoints["projects"])
            for record in page.records:
                projects = names.setdefault(owner(record) or self._organization, {})
                projects[str(record.get("slug"))] = str(record.get("id"))
            if page.next_cursor is None:
                return
            params["cursor"] = page.next_cursor

    def _did_you_mean(self, project: str) -> str:
        names = self.names()
        known = names.get(self._organization, {})
        if names and not known:
            text = f"there is no organization {self._organization!r} for this token"
            return text + _known(names) + did_you_mean(self._organization, names)
        if project and known and project not in known:
            for slug, project_id in known.items():
                if project_id == project:
                    return f"{project!r} is the id of a project: use the slug {slug!r}"
            text = f"there is no project {project!r} for this token"
            return text + _known(known) + did_you_mean(project, known)
        which = f"organization {self._organization!r}"
        which += f" and project {project!r}" if project else ""
        return f"check the names of {which}, and that the token may see them"

    def _find_apis(self, least: int) -> list[str]:
        """Return which other APIs the server may speak, by how it takes a request."""
        with self._lock:
            if not self._grades:
                others = [name for name, spec in APIS.items() if spec != self._spec]
                self._grades = {name: self._grade(APIS[name]) for name in others}
        best = max(self._grades.values())
        names = [name for name, grade in self._grades.items() if grade == best]
        return names if best >= least else []

    def _grade(self, spec: ApiSpec) -> int:
        try:
            projects = spec.endpoints["projects"]
            response = self._ask(spec.prefix + projects.path, {})
            parse_answer(response, spec, projects)
        except HttpError as error:
            is_same = spec.prefix == self._spec.prefix  # then it refuses ours as well
            return REFUSES if _is_json(error.response) and not is_same else NOTHING
        except ApiError:
            return NOTHING
        is_its_link = response.headers["Link"].startswith(spec.link)
        return ANSWERS if is_its_link else NOTHING

    def _ask(self, path: str, params: dict[str, str]) -> requests.Response:
        path = path.replace("{organization}", quote(self._organization, safe=""))
        return self._session.get(path, params, RequestStats(), statuses=())


def _known(names: Iterable[str]) -> str:
    """Return which names there are, as a part of a sentence about a token."""
    first = sorted(names)
    if len(first) > LINES:
        first[LINES:] = [f"and {len(first) - LINES} more"]
    return f", which may see {', '.join(first)}"


def _refuses_sort(error: ApiError, endpoint: Endpoint) -> bool:
    """Tell whether a server does not know `sort`: GlitchTip, asked as a Sentry."""
    if "sort" not in endpoint.params or not isinstance(error, HttpError):
        return False
    return error.status == 422 and "sort" in error_detail(error.response)


def _is_shapeless(error: ApiError) -> bool:
    """Tell whether an answer is none of this API, but perhaps of another or a proxy."""
    if not isinstance(error, HttpError):
        return isinstance(error, OtherApi)
    return error.status == 404 and not _is_json(error.response)


def _is_unknown(error: ApiError, endpoint: Endpoint) -> bool:
    """Tell whether an error says that a name is wrong; some servers do not say 404."""
    if not isinstance(error, HttpError):
        return isinstance(error, UnknownName)
    return error.status in {404, *endpoint.tolerated_statuses} - {403}


def _has_code(error: ApiError) -> bool:
    return isinstance(error, HttpError) and bool(error_code(error.response))


def _is_json(response: requests.Response | None) -> bool:
    return response is not None and "json" in response.headers.get("Content-Type", "")
