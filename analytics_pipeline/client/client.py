"""The lists of one organization, page by page."""

import json
import logging
import re
import threading
from collections.abc import Collection, Iterator
from contextlib import suppress
from copy import copy
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

from analytics_pipeline.client.diagnosis import Diagnosis
from analytics_pipeline.client.endpoints import ApiSpec, Endpoint
from analytics_pipeline.client.page import Page, no_rows, parse_page
from analytics_pipeline.client.retry import STATUSES, RequestStats
from analytics_pipeline.client.session import ApiSession
from analytics_pipeline.errors import ApiError, HttpError, UnexpectedAnswer, UnknownName
from analytics_pipeline.secrets import mask_error

log = logging.getLogger(__name__)

Window = tuple[datetime, datetime]
"""Start, and end (exclusive)."""
Span = tuple[datetime | None, datetime | None]
"""None: from the beginning of a list, or up to its top."""

BEGINNING = datetime(2000, 1, 1, tzinfo=UTC)
"""Start of a window without a start, which the server requires."""
SECOND = timedelta(seconds=1)
CURSOR_REFUSALS = (400, 404, 410, 422, 500)
"""Statuses for a page cursor that the server no longer knows."""
WINDOW_REFUSALS = {400: 1, 500: 5}
"""Sentry's statuses for a window before the oldest event it keeps, and how often to confirm
that: a 500 may also be a failure."""
NOT_500 = tuple(status for status in STATUSES if status != 500)
UNEXPECTED = (ValueError, LookupError, ArithmeticError, MemoryError, RecursionError)
"""Errors that a malformed answer may cause."""
EMPTY_PAGES = 100
"""In a row, after which a list is taken for endless."""


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
        """The server keeps no older events; set when it has refused a window."""
        self._ignores_time = False
        self._full_events = full_events
        self._details: dict[str, Page | HttpError] = {}
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
        """Yield the pages of a list in the server's order.

        Rows outside `start` and `end` are left out only if the server filters by time.

        Args:
            wanted: the list.
            start: of the required rows; None: the beginning of the list.
            end: of the required rows; None: the top of the list.
            page_cursor: where an earlier load stopped. Reading resumes there if that page
                has a row later than `end`, otherwise at the top of the list.

        Raises:
            ApiError: the list cannot be read.
        """
        title = self.describe(wanted)
        endpoint, project = wanted.endpoint, wanted.project
        try:
            if endpoint.single:
                yield self._project_detail(project, wanted.stats)
            elif endpoint.filters_time and not self._ignores_time:
                yield from self._pages_by_time(wanted, (start, end), page_cursor)
            else:
                page = self._resumed(wanted, (start, end), page_cursor)
                yield from self._linked(wanted, page)
        except ApiError as error:
            raise self.diagnosis.explained(error, endpoint, project, title) from error
        except UNEXPECTED as error:  # a malformed answer fails this list only
            mask_error(error)
            reason = f"{type(error).__name__} while reading an answer"
            raise UnexpectedAnswer(f"{title}: {reason} ({error})") from error

    def _linked(self, wanted: ListName, page: Page) -> Iterator[Page]:
        """Yield a page and those after it, by the Link header."""
        links, is_doubtful = _Links(wanted.endpoint), wanted.endpoint.unknown_is_empty
        while True:
            is_doubtful &= not page.records
            if is_doubtful and page.next_cursor is None:
                self._check_names(wanted)
            yield page
            page_cursor = links.next_cursor(page)
            if page_cursor is None:
                return
            page = self._page(wanted, page_cursor)

    def _resumed(self, wanted: ListName, span: Span, page_cursor: str | None) -> Page:
        """Return the page where reading stopped, or the first one.

        Unless the page has a later row than `end`, rows in between may be missing.
        """
        end = span[1]
        if page_cursor is None or end is None:
            return self._page(wanted)
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
        self, wanted: ListName, span: Span, page_cursor: str | None
    ) -> Iterator[Page]:
        """Yield pages newest first, requesting rows older than those received so far.

        Rows that arrive or are deleted meanwhile therefore shift nothing. The page cursor
        is used only within a second that fills a page, and if rows have no time.
        """
        low, high = _window(span)
        before, received, is_certain = None, set[Any](), True
        links = _Links(wanted.endpoint)
        page = self._first_page(wanted, span)
        while True:
            if page.is_mostly_outside(low, high):
                log.info("%s: the server ignores start and end", self.describe(wanted))
                self._ignores_time = True
                if before:
                    page = self._page(wanted, before.next_cursor)
                elif page_cursor is not None:
                    page = self._resumed(wanted, span, page_cursor)
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
                    # The oldest rows did not come again: they were deleted, or show
                    # another time than the server filters by. Repeat their page.
                    oldest = min(high, floor(max(filter(None, before.times))) + SECOND)
                    page = self._page(wanted, None, (low, oldest))
                high, links = oldest, _Links(wanted.endpoint)
            else:
                page = self._page(wanted, following, (low, high))
                is_certain = True

    def _first_page(self, wanted: ListName, span: Span) -> Page:
        """Return the first page of a span; an empty one if the server keeps newer rows.

        Sentry refuses a window before the oldest event it keeps. Then it answers the
        window extended to now, and refuses the window's last second.
        """
        start, end = window = _window(span)
        if self.kept_from and end <= self.kept_from:
            return no_rows()
        if span[1] is None:
            return self._page(wanted, None, window)
        try:
            return self._page(wanted, None, window, NOT_500)
        except HttpError as error:
            if error.status not in WINDOW_REFUSALS:
                raise
            confirmations = WINDOW_REFUSALS[error.status]
        whole, last = (start, floor(datetime.now(UTC)) + SECOND), (end - SECOND, end)
        for _ in range(confirmations):
            if self._refuses(wanted, whole) or not self._refuses(wanted, last):
                return self._page(wanted, None, window)
        self.kept_from = end
        return no_rows()

    def broken_second(
        self, wanted: ListName, start: datetime | None, end: datetime | None
    ) -> datetime | None:
        """Return the second of the newest event that makes the server fail, if any.

        Sentry answers 500 for each page with an event that it cannot serialize.
        """
        if self._ignores_time or not wanted.endpoint.filters_time:
            return None
        low, good = _window((start, end))
        newest = good - SECOND
        with suppress(ApiError):  # the caller raises the first error
            if self._refuses(wanted, (newest, good)):
                if low >= newest or self._refuses(wanted, (low, newest)):
                    return None  # the server refuses everything
                low = newest
            while good - low > SECOND:
                middle = floor(low + (good - low) / 2)
                if self._refuses(wanted, (middle, good)):
                    low = middle
                else:
                    good = middle
            return low if self._refuses(wanted, (low, good), STATUSES) else None
        return None

    def _refuses(
        self, wanted: ListName, window: Window, statuses: Collection[int] = NOT_500
    ) -> bool:
        try:
            self._page(wanted, None, window, statuses)
        except HttpError as error:
            if error.status not in WINDOW_REFUSALS:
                raise
            return True
        return False

    def _page(
        self,
        wanted: ListName,
        page_cursor: str | None = None,
        window: Window | None = None,
        statuses: Collection[int] = STATUSES,
    ) -> Page:
        """Return one page; retry on these statuses."""
        endpoint = wanted.endpoint
        full = endpoint.full_params if self._full_events else {}
        params = {
            name: value.replace("{project}", _search_term(wanted.project))
            for name, value in {**endpoint.params, **full}.items()
        }
        path, by_id = endpoint.path, endpoint.path_by_id
        if by_id and (number := self.project_id(wanted.project, wanted.stats)):
            path, params["project"] = by_id, number
        if window:
            times = (
                f"{time:%Y-%m-%dT%H:%M:%S}" for time in window
            )  # UTC, without zone
            params["start"], params["end"] = times
        if page_cursor is not None:
            params["cursor"] = page_cursor
        path = path.format(
            organization=quote(self.organization, safe=""),
            project=quote(wanted.project, safe=""),
        )
        response = self.session.get(
            self.spec.prefix + path,
            params,
            wanted.stats,
            endpoint=endpoint.table,
            statuses=statuses,
        )
        page = parse_page(response, self.spec, endpoint)
        self.diagnosis.is_confirmed = True
        wanted.stats.count(replaced=page.replaced)
        if endpoint.of_all_organizations:
            page = page.of_organization(self.organization)
        return page._replace(asked_cursor=None if window else page_cursor)

    def _project_detail(self, project: str, stats: RequestStats) -> Page:
        """Return a project's detail, requested once in a run.

        Empty lists need it as well, to see whether the project exists.
        """
        with self._locks.setdefault(project, threading.Lock()):
            if project not in self._details:
                detail = ListName(self.spec.endpoints["project_detail"], project, stats)
                try:
                    self._details[project] = self._page(detail)
                except HttpError as error:
                    self._details[project] = error
            known = self._details[project]
        if isinstance(known, HttpError):
            raise copy(known)
        return known

    def project_id(self, project: str, stats: RequestStats) -> str | None:
        """Return the id of a project, if the token has access to it.

        Raises:
            ApiError: its detail cannot be read.
        """
        try:
            return str(self._project_detail(project, stats).records[0]["id"])
        except HttpError as error:
            if error.status not in (403, 404):
                raise
        return None

    def _check_names(self, empty: ListName) -> None:
        """Raise an error if a list is empty because its names are wrong."""
        try:
            if project := empty.project or next(iter(self.projects), ""):
                self._project_detail(project, empty.stats)
                return
        except HttpError as error:
            if error.status == 403:
                scope = self.spec.endpoints["project_detail"].scope
                reason = f"without the scope {scope} it is unknown whether the project exists"
                log.warning("%s: the list is empty; %s", self.describe(empty), reason)
                return
            if empty.project or error.status != 404:
                raise
        names = self.diagnosis.names()
        if names and self.organization not in names:
            raise UnknownName("the list is empty")

    def describe(self, wanted: ListName) -> str:
        """Return the list's title: `events of project 'frontend'`."""
        if wanted.project:
            return f"{wanted.endpoint.table} of project {wanted.project!r}"
        return f"{wanted.endpoint.table} of organization {self.organization!r}"


class _Links:
    """The page cursors of a list; raises an error if they never end."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._time_field = endpoint.replication_key
        self._known: set[str] = set()
        self._empty = 0

    def next_cursor(self, page: Page) -> str | None:
        """Return the page cursor of the next page; None on the last page."""
        following = page.next_cursor
        if following is None:
            return None
        if following in self._known:
            times = [record.get(self._time_field) for record in page.records]
            raise UnexpectedAnswer(
                f"the server sent the page cursor {following!r} again, on page"
                f" {len(self._known) + 1}, so later rows cannot be read. Some servers do"
                " this if more rows than fit on a page have the same"
                f" {self._time_field} ({times[-1] if times else 'the page is empty'})"
            )
        self._known.add(following)
        self._empty = 0 if page.records else self._empty + 1
        if self._empty >= EMPTY_PAGES:
            raise UnexpectedAnswer(f"received {EMPTY_PAGES} empty pages in a row")
        return following


def _window(span: Span) -> Window:
    """Return a span extended to whole seconds."""
    start, end = span
    high = floor(end) + SECOND if end else floor(datetime.now(UTC)) + timedelta(days=1)
    return floor(max(start or BEGINNING, BEGINNING)), high


def floor(time: datetime) -> datetime:
    """Return the whole second at or before a time."""
    return time.replace(microsecond=0)


def _search_term(slug: str) -> str:
    """Return a slug as a term of a search query, quoted if necessary."""
    is_plain = re.fullmatch(r"[\w-]*", slug)
    return slug if is_plain else json.dumps(slug, ensure_ascii=False)
