"""Advice for errors: which name, or which API, the user probably meant."""

import threading
from collections.abc import Iterable
from contextlib import suppress
from urllib.parse import quote

import requests

from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.client.page import error_code, error_detail, owner, parse_page
from analytics_pipeline.client.retry import RequestStats
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.errors import (
    TRY_LATER,
    ApiError,
    HttpError,
    OtherApi,
    OtherShape,
    UnknownName,
    Unreachable,
    did_you_mean,
    first_lines,
)

PAGES = 20
"""Of projects, which are read to find similar names."""
NOTHING, REFUSES, ANSWERS = range(3)
"""How the server responds to a request of another API."""


class Diagnosis:
    """Adds advice to errors; requests once the names that the token has access to."""

    def __init__(self, session: ApiSession, spec: ApiSpec, organization: str) -> None:
        self._session = session
        self._spec = spec
        self._organization = organization
        self.is_confirmed = False
        """The server has sent an answer of this API."""
        self._names: dict[str, dict[str, str]] | None = None
        self._grades: dict[str, int] = {}
        self._lock = threading.Lock()

    def explained(
        self, error: ApiError, endpoint: Endpoint, project: str, title: str
    ) -> ApiError:
        """Return the error of a list with the list's title and what to do."""
        if isinstance(error, Unreachable):  # not about one list
            advice = f"Check base_url and the network. {TRY_LATER}"
            return error.about("cannot reach the server", advice)
        apis: list[str] = []
        if _refuses_sort(error, endpoint) or (
            _is_shapeless(error) and self._is_doubtful()
        ):
            apis = self._find_apis(REFUSES)
        elif _is_unknown(error, endpoint) and self._is_doubtful():
            apis = self._find_apis(ANSWERS)
        if apis:
            choice = " or ".join(map(repr, apis))
            advice = f"The server has another API: set api to {choice}."
            return OtherApi(str(error)).about(title, advice)
        return error.about(title, self._advice(error, endpoint, project))

    def _advice(self, error: ApiError, endpoint: Endpoint, project: str) -> str:
        if _is_unknown(error, endpoint):
            return self._did_you_mean(project)
        if not isinstance(error, HttpError):
            return ""
        if error.status in (401, 403) and error_code(error.response):
            return ""  # a login or second factor is missing; the server says which
        if error.status == 401:
            return (
                "The server rejected the token. Check auth_token: it may have expired or"
                " belong to another server."
            )
        if error.status == 403:
            return (
                f"The token lacks the scope {endpoint.scope}, or has no access to this"
                f" {'project' if project else 'organization'}."
            )
        return TRY_LATER

    def _is_doubtful(self) -> bool:
        """Return whether the server may have another API."""
        return not (self.is_confirmed or self.names())

    def names(self) -> dict[str, dict[str, str]]:
        """Return {organization: {slug: id}} of the projects visible to the token."""
        with self._lock:
            if self._names is None:
                self._names = {}
                with suppress(ApiError):  # the error to explain is enough
                    self._read_names(self._names)
            return self._names

    def _read_names(self, names: dict[str, dict[str, str]]) -> None:
        params = dict(self._spec.endpoints["projects"].params)
        path = self._spec.prefix + self._spec.directory
        for _ in range(PAGES):
            response = self._ask(path, params)
            page = parse_page(response, self._spec, self._spec.endpoints["projects"])
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
            text = f"The token has no access to an organization {self._organization!r}"
            return text + _known(names) + did_you_mean(self._organization, names)
        if project and known and project not in known:
            for slug, project_id in known.items():
                if project_id == project:
                    return f"{project!r} is a project id; use the slug {slug!r}."
            text = f"The token has no access to a project {project!r}"
            return text + _known(known) + did_you_mean(project, known)
        which = f"project {project!r} of " if project else ""
        return (
            f"Check that {which}organization {self._organization!r} exists and that the"
            " token has access to it."
        )

    def _find_apis(self, least: int) -> list[str]:
        """Return the other APIs that the server most likely has."""
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
            parse_page(response, spec, projects)
        except HttpError as error:
            # An API with the same prefix refuses our own requests as well.
            is_same = spec.prefix == self._spec.prefix
            return REFUSES if _is_json(error.response) and not is_same else NOTHING
        except ApiError:
            return NOTHING
        return ANSWERS if response.headers["Link"].startswith(spec.link) else NOTHING

    def _ask(self, path: str, params: dict[str, str]) -> requests.Response:
        path = path.replace("{organization}", quote(self._organization, safe=""))
        return self._session.get(path, params, RequestStats(), statuses=())


def _known(names: Iterable[str]) -> str:
    """Return the known names, as part of a sentence."""
    return f" (it has access to {', '.join(first_lines(sorted(names)))})"


def _refuses_sort(error: ApiError, endpoint: Endpoint) -> bool:
    """Return whether the server rejects `sort`, as GlitchTip does."""
    if "sort" not in endpoint.params or not isinstance(error, HttpError):
        return False
    return error.status == 422 and "sort" in error_detail(error.response)


def _is_shapeless(error: ApiError) -> bool:
    """Return whether the answer may come from another API, or a proxy."""
    if not isinstance(error, HttpError):
        return isinstance(error, OtherShape)
    return error.status == 404 and not _is_json(error.response)


def _is_unknown(error: ApiError, endpoint: Endpoint) -> bool:
    """Return whether a name is wrong; some servers use other statuses than 404."""
    if not isinstance(error, HttpError):
        return isinstance(error, UnknownName)
    return error.status in {404, *endpoint.tolerated_statuses} - {403}


def _is_json(response: requests.Response | None) -> bool:
    return response is not None and "json" in response.headers.get("Content-Type", "")
