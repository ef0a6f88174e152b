"""The lists of one organization, page by page."""

import logging
import threading
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from analytics_pipeline.client.diagnosis import Diagnosis
from analytics_pipeline.client.endpoints import ApiSpec, Endpoint
from analytics_pipeline.client.page import Page, no_rows, of_organization, parse_page
from analytics_pipeline.client.retry import STATUSES, RequestStats
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    UnexpectedAnswer,
    UnknownName,
)
from analytics_pipeline.secrets import mask_error

log = logging.getLogger(__name__)

Window = tuple[datetime, datetime]
"""Start, and end (exclusive)."""

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""Start of a window that has none; the server requires one."""
SECOND = timedelta(seconds=1)
DAY = timedelta(days=1)
CURSOR_REFUSALS = (400, 404, 410, 422, 500)
"""Statuses for a page cursor that the server no longer knows."""
WINDOW_REFUSALS = {400: 1, 500: 5}
"""Sentry's statuses for a window before the oldest event it keeps → how often to confirm
that, since a 500 may also be a failure."""
NOT_500 = tuple(status for status in STATUSES if status != 500)
UNEXPECTED = (ValueError, LookupError, ArithmeticError, MemoryError, RecursionError)
"""Errors that a malformed answer may cause."""
EMPTY_PAGES = 100
"""In a row; then the list is taken for endless."""


@dataclass
class ListName:
    """An endpoint of one project, or of the organization."""

    endpoint: Endpoint
    project: str = ""
    """Slug; empty for the organization."""
    stats: RequestStats = field(default_factory=RequestStats)


class Client:
    """Reads the lists of one organization of one server."""

    def __init__(
        self,
        session: ApiSession,
        spec: ApiSpec,
        organization: str,
        *,
        projects: tuple[str, ...] = (),
        full_events: bool = False,
    ) -> None:
        self.session = session
        self.spec = spec
        self.organization = organization
        self.projects = projects
        self.diagnosis = Diagnosis(session, spec, organization)
        self.kept_from: datetime | None = None
        """The server keeps no older events; known once it has refused a window."""
        self._ignores_time = False
        """The server does not filter by time."""
        self._full_events = full_events
        self._details: dict[str, Page | HttpError] = {}
        self._details_lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def forget_answers(self) -> None:
        """Request projects again, for another run."""
        self._details.clear()
        self.session.forget_outage()

    def pages(
        self,
        wanted: ListName,
        start: datetime | None = None,
        end: datetime | None = None,
        page_cursor: str | None = None,
    ) -> Iterator[Page]:
        """Yield the pages of a list, in the server's order, until the caller stops.

        Rows outside `start` and `end` are left out only if the server filters by time.

        Args:
            wanted: the list.
            start: of the rows that are needed; None: the beginning of the list.
            end: of the rows that are needed; None: the top of the list.
            page_cursor: where an earlier load stopped. It is used if its page has a row
                later than `end`; otherwise pages begin at the top of the list.

        Raises:
            ApiError: the list cannot be read.
        """
        try:
            yield from self._pages(wanted, start, end, page_cursor)
        except ApiError as error:
            title = self.describe(wanted)
            raise self.diagnosis.explained(
                error, wanted.endpoint, wanted.project, title
            ) from error
        except UNEXPECTED as error:
            # A malformed answer fails this list only.
            reason = f"{type(error).__name__} while reading an answer"
            title = self.describe(wanted)
            mask_error(error)
            raise UnexpectedAnswer(f"{title}: {reason} ({error})") from error

    def _pages(
        self,
        wanted: ListName,
        start: datetime | None,
        end: datetime | None,
        page_cursor: str | None,
    ) -> Iterator[Page]:
        if wanted.endpoint.single:
            yield self._project_detail(wanted.project, wanted.stats)
        elif wanted.endpoint.filters_time and not self._ignores_time:
            yield from self._pages_by_time(wanted, start, end, page_cursor)
        elif page_cursor is not None and end is not None:
            yield from self._linked(wanted, self._resumed(wanted, page_cursor, end))
        else:
            yield from self._linked(wanted, self._page(wanted))

    def _linked(self, wanted: ListName, page: Page) -> Iterator[Page]:
        """Yield a page and those after it, by the Link header."""
        links = _Links(wanted.endpoint)
        is_empty = True
        while True:
            is_empty &= not page.records
            is_last = page.next_cursor is None
            if wanted.endpoint.unknown_is_empty and is_empty and is_last:
                self._check_names(wanted)
            yield page
            page_cursor = links.next_cursor(page)
            if page_cursor is None:
                return
            page = self._page(wanted, page_cursor)

    def _resumed(self, wanted: ListName, page_cursor: str, end: datetime) -> Page:
        """Return the page where reading stopped, or the first one.

        The page must reach above `end`; otherwise rows in between may be missing.
        """
        try:
            page = self._page(wanted, page_cursor)
        except HttpError as error:
            if error.status not in CURSOR_REFUSALS:
                raise
            reason = str(error)
        else:
            if any(time > end for time in page.times if time):
                return page
            reason = "rows were deleted since the last load"
        title = self.describe(wanted)
        log.warning("%s: %s; reading the list from its first page", title, reason)
        return self._page(wanted)

    def _pages_by_time(
        self,
        wanted: ListName,
        start: datetime | None,
        end: datetime | None,
        page_cursor: str | None,
    ) -> Iterator[Page]:
        """Yield pages newest first, requesting rows older than those received so far.

        So rows that are deleted or arrive meanwhile shift nothing, and offsets stay
        small. The page cursor is used only within a second that fills a page, and if
        rows have no time.
        """
        low, high = _window(start, end)
        before, received, is_certain = None, set[Any](), True
        links = _Links(wanted.endpoint)
        page = self._first_of_window(wanted, (low, high), is_open=end is None)
        while True:
            if page.is_mostly_outside(low, high):
                log.info("%s: the server ignores start and end", self.describe(wanted))
                self._ignores_time = True
                if before is None and page_cursor is None:
                    yield from self._linked(wanted, page)
                elif before is None:
                    yield from self._pages(wanted, start, end, page_cursor)
                else:
                    page = self._page(wanted, before.next_cursor)
                    yield from self._linked(wanted, page)
                return
            yield page.without(wanted.endpoint.key, received)._replace(is_filtered=True)
            following = links.next_cursor(page)
            if following is None:
                return
            received = page.keys(wanted.endpoint.key)
            before, reached = page, page.reached()
            oldest = floor(min(reached, high)) + SECOND if reached else high
            if is_certain and low < oldest < high:
                page = self._page(wanted, None, (low, oldest))
                is_certain = bool(received & page.keys(wanted.endpoint.key))
                if not is_certain:
                    # None of the oldest rows came again: they were deleted, or show
                    # another time than the server filters by. Repeat from their page.
                    oldest = min(high, floor(max(filter(None, before.times))) + SECOND)
                    page = self._page(wanted, None, (low, oldest))
                high, links = oldest, _Links(wanted.endpoint)
            else:
                page = self._page(wanted, following, (low, high))
                is_certain = True

    def _first_of_window(
        self, wanted: ListName, window: Window, *, is_open: bool
    ) -> Page:
        """Return the first page of a window; an empty one if the server keeps newer rows.

        Sentry refuses a window before the oldest event it keeps. Then it answers the
        window extended to now, and refuses the window's last second.
        """
        start, end = window
        if self.kept_from and end <= self.kept_from:
            return no_rows()
        if is_open:
            return self._page(wanted, None, window)
        try:
            return self._page(wanted, None, window, NOT_500)
        except HttpError as error:
            if error.status not in WINDOW_REFUSALS:
                raise
            confirmations = WINDOW_REFUSALS[error.status]
        now = floor(datetime.now(UTC)) + SECOND
        for _ in range(confirmations):
            is_in_trouble = self._refuses(wanted, (start, now))
            if is_in_trouble or not self._refuses(wanted, (end - SECOND, end)):
                return self._page(wanted, None, window)
        self.kept_from = end
        return no_rows()

    def broken_second(
        self, wanted: ListName, start: datetime | None, end: datetime | None
    ) -> datetime | None:
        """Return the second of the event that makes the server fail, if there is one.

        Sentry answers 500 for each page with an event that it cannot serialize.
        """
        if wanted.endpoint.filters_time and not self._ignores_time:
            with suppress(ApiError):  # the caller raises the first error
                return self._broken_second(wanted, *_window(start, end))
        return None

    def _broken_second(
        self, wanted: ListName, low: datetime, high: datetime
    ) -> datetime | None:
        newest = high - SECOND
        if self._refuses(wanted, (newest, high)):
            if low >= newest or self._refuses(wanted, (low, newest)):
                return None
            low = newest
        good = high
        while good - low > SECOND:
            middle = floor(low + (good - low) / 2)
            if self._refuses(wanted, (middle, high)):
                low = middle
            else:
                good = middle
        with suppress(HttpError):
            self._page(wanted, None, (low, good))
            return None
        return low

    def _refuses(self, wanted: ListName, window: Window) -> bool:
        try:
            self._page(wanted, None, window, NOT_500)
        except HttpError as error:
            if error.status in WINDOW_REFUSALS:
                return True
            raise
        return False

    def _page(
        self,
        wanted: ListName,
        page_cursor: str | None = None,
        window: Window | None = None,
        statuses: Collection[int] = STATUSES,
    ) -> Page:
        """Return one page; retry on these statuses."""
        params = _between(window) if window else {}
        if page_cursor is not None:
            params["cursor"] = page_cursor
        page = self._ask(wanted, params, statuses)
        if window is None:
            page = page._replace(asked_cursor=page_cursor)
        if wanted.endpoint.of_all_organizations:
            page = of_organization(page, self.organization)
        return page

    def _ask(
        self,
        wanted: ListName,
        params: Mapping[str, str],
        statuses: Collection[int] = STATUSES,
    ) -> Page:
        endpoint = wanted.endpoint
        given = {
            **endpoint.params,
            **(endpoint.full_params if self._full_events else {}),
        }
        named = {
            name: value.replace("{project}", _search_term(wanted.project))
            for name, value in given.items()
        }
        path = endpoint.path
        if endpoint.path_by_id and (project_id := self._known_id(wanted)):
            path, named["project"] = endpoint.path_by_id, project_id
        response = self.session.get(
            self._path(path, wanted.project),
            {**named, **params},
            wanted.stats,
            endpoint=endpoint.table,
            statuses=statuses,
        )
        page = parse_page(response, self.spec, endpoint)
        self.diagnosis.is_confirmed = True
        wanted.stats.count(replaced=page.replaced)
        return page

    def _project_detail(self, project: str, stats: RequestStats) -> Page:
        """Return a project's detail, requested once in a run.

        Its table needs it, and so do empty lists, to see whether the project exists.
        """
        with self._details_lock:
            lock = self._locks.setdefault(project, threading.Lock())
        with lock:
            if project not in self._details:
                detail = ListName(self.spec.endpoints["project_detail"], project, stats)
                try:
                    self._details[project] = self._ask(detail, {})
                except HttpError as error:
                    self._details[project] = error
            known = self._details[project]
        if isinstance(known, HttpError):
            raise copy(known)
        return known

    def project_id(self, project: str, stats: RequestStats) -> str | None:
        """Return the id of a project, requested once in a run.

        Raises:
            ApiError: its detail cannot be read.
        """
        records = self._project_detail(project, stats).records
        value = records[0].get("id") if records else None
        return None if value is None else str(value)

    def _known_id(self, wanted: ListName) -> str | None:
        """Return the id of a list's project, if the token has access to it."""
        try:
            return self.project_id(wanted.project, wanted.stats)
        except HttpError as error:
            if error.status in (403, 404):
                return None
            raise

    def _check_names(self, empty: ListName) -> None:
        """Raise an error if a list is empty because its names are wrong."""
        try:
            if project := empty.project or next(iter(self.projects), ""):
                self._project_detail(project, empty.stats)
                return
        except HttpError as error:
            if error.status == 403:
                log.warning(
                    "%s: the list is empty; without the scope %s it is unknown whether"
                    " the project exists",
                    self.describe(empty),
                    self.spec.endpoints["project_detail"].scope,
                )
                return
            if empty.project or error.status != 404:
                raise
        names = self.diagnosis.names()
        if names and self.organization not in names:
            raise UnknownName("the list is empty")

    def _path(self, path: str, project: str) -> str:
        return self.spec.prefix + path.format(
            organization=quote(self.organization, safe=""),
            project=quote(project, safe=""),
        )

    def describe(self, wanted: ListName) -> str:
        """Return the list's title: `events of project 'frontend'`."""
        if wanted.project:
            return f"{wanted.endpoint.table} of project {wanted.project!r}"
        return f"{wanted.endpoint.table} of organization {self.organization!r}"


class _Links:
    """The page cursors of a list; raises an error if they never end."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._known: set[str] = set()
        self._pages = self._empty = 0

    def next_cursor(self, page: Page) -> str | None:
        """Return the page cursor of the next page; None on the last page."""
        self._pages += 1
        self._empty = 0 if page.records else self._empty + 1
        following = page.next_cursor
        if following in self._known:
            raise UnexpectedAnswer(self._describe_loop(page))
        if following is None:
            return None
        if self._empty >= EMPTY_PAGES:
            raise UnexpectedAnswer(
                f"the server sent {EMPTY_PAGES} empty pages in a row, each with a link to"
                " the next one"
            )
        self._known.add(following)
        return following

    def _describe_loop(self, page: Page) -> str:
        message = (
            f"the server sent the page cursor {page.next_cursor!r} again, on page"
            f" {self._pages}, which would never end"
        )
        if not page.records:
            return message
        key, time = self._endpoint.key, self._endpoint.replication_key
        first, last = page.records[0], page.records[-1]
        return (
            f"{message}. It repeats the rows from {key} {first.get(key)!r} ({time}"
            f" {first.get(time)}) to {last.get(key)!r} ({last.get(time)}); later rows"
            " cannot be read. Some servers do this when more rows than fit on a page have"
            f" the same {time}."
        )


def _window(start: datetime | None, end: datetime | None) -> Window:
    """Return a span extended to whole seconds."""
    low = floor(max(start, BEGINNING)) if start else BEGINNING
    return low, floor(end) + SECOND if end else floor(datetime.now(UTC)) + DAY


def floor(time: datetime) -> datetime:
    """Return the whole second at or before a time."""
    return time.replace(microsecond=0)


def _between(window: Window) -> dict[str, str]:
    """Return the query parameters of a window, UTC without zone."""
    start, end = (f"{time:%Y-%m-%dT%H:%M:%S}" for time in window)
    return {"start": start, "end": end}


def _search_term(slug: str) -> str:
    """Return a slug as a term of a search query, quoted if necessary."""
    if all(letter.isalnum() or letter in "-_" for letter in slug):
        return slug
    return '"' + slug.replace("\\", "\\\\").replace('"', '\\"') + '"'
