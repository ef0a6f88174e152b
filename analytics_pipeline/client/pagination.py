"""The Link loop: lists, and parts of lists, read page by page and side by side."""

import logging
import threading
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from copy import copy
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple, Protocol
from urllib.parse import quote

from analytics_pipeline.client.diagnosis import Diagnosis
from analytics_pipeline.client.endpoints import ApiSpec, Endpoint
from analytics_pipeline.client.page import Page, of_organization, parse_answer
from analytics_pipeline.client.retry import STATUSES, stop_with
from analytics_pipeline.client.session import ApiSession, RequestStats
from analytics_pipeline.client.time_filter import Span, TimeFilter
from analytics_pipeline.errors import ApiError, HttpError, PageCursorLoop, UnknownName

log = logging.getLogger(__name__)


class ListName(Protocol):
    """Which list is meant."""

    @property
    def endpoint(self) -> Endpoint:
        """Its kind."""

    @property
    def project(self) -> str:
        """Slug of its project; empty for a list of the organization."""

    @property
    def stats(self) -> RequestStats:
        """Counts the requests for it."""


class _Detail(NamedTuple):
    endpoint: Endpoint
    project: str
    stats: RequestStats


class SliceOwner(ListName, Protocol):
    """Whoever wants a list: says when to stop, and what a failure means."""

    def room(self) -> float:
        """Return how many more rows are wanted for now; none: go on another time."""

    def without_windows(self, edge: datetime | None) -> "Slice | None":
        """Return the list as a whole, as the server ignores windows; the first time only.

        Rows from `edge` on have been read.
        """

    def after_end(self, part: "Slice") -> Sequence["Slice"]:
        """Return what to read next, now that a whole list has come to its end."""

    def on_error(self, part: "Slice", error: ApiError) -> Sequence["Slice"]:
        """Return what to read instead, or raise the error."""


@dataclass(eq=False)
class Slice:
    """A list, or a part of one, read page by page."""

    owner: SliceOwner
    page_cursor: str | None = None
    """Of the page to ask for next; None is the first page."""
    pages: int = 0
    is_empty: bool = True
    """No row has come so far."""
    _known: set[str] = field(default_factory=set, repr=False)

    @property
    def window(self) -> tuple[datetime, datetime] | None:
        """The span of time to ask for, where the server filters by time."""
        return None

    def is_due(self) -> bool:
        """Tell whether to ask for its next page at all."""
        return True

    def taking(self, page: Page) -> "Slice | None":
        """Return the slice that a page belongs to, mostly this; None if it is of no use."""
        return self

    def after(self, page: Page) -> Sequence["Slice"]:
        """Return what to read after this page: this slice again, others, or nothing.

        Raises:
            PageCursorLoop: the server sent a page cursor for the second time.
        """
        self.pages += 1
        if page.next_cursor is None:
            return ()
        if page.next_cursor in self._known:
            raise PageCursorLoop(self._describe_loop(page))
        self._known.add(page.next_cursor)
        self.page_cursor = page.next_cursor
        return (self,)

    def _describe_loop(self, page: Page) -> str:
        message = (
            f"the server sent the page cursor {page.next_cursor!r} for the second time,"
            f" on page {self.pages}; it would never end"
        )
        if not page.records:
            return message
        key, time = self.owner.endpoint.key, self.owner.endpoint.replication_key
        first, last = page.records[0], page.records[-1]
        return (
            f"{message}; the rows from {key} {first.get(key)!r} ({time}"
            f" {first.get(time)}) to {last.get(key)!r} ({last.get(time)}) came again, and"
            " those behind them cannot be read; a server does this when more rows than"
            f" fit a page have the same {time}"
        )


class Client:
    """The lists of one organization of one server.

    `workers` requests at a time, in all.
    """

    def __init__(
        self,
        session: ApiSession,
        spec: ApiSpec,
        organization: str,
        *,
        workers: int,
        projects: Sequence[str] = (),
        full_events: bool = False,
        seeks_retention: bool = True,
    ) -> None:
        self.session = session
        self.spec = spec
        self.organization = organization
        self.workers = workers
        self.projects = projects
        self.time_filter = TimeFilter(seeks_retention=seeks_retention)
        self.diagnosis = Diagnosis(session, spec, organization)
        self._full_events = full_events
        self._details: dict[str, Page | HttpError] = {}
        self._details_lock = threading.Lock()
        self._locks: dict[str, threading.Lock] = {}

    def forget_answers(self) -> None:
        """Ask for projects anew: another run begins."""
        self._details.clear()

    def pages(self, slices: Iterable[Slice]) -> Iterator[tuple[Slice, Page]]:
        """Read slices side by side; the pages of each come in order.

        A slice is taken from `slices` when there is a worker for it. The next page of
        a slice is asked for before the page is given out. When the reading ends early,
        so do its threads, at their next request.

        Raises:
            ApiError: what the slice's owner does not take upon itself.
        """
        waiting = iter(slices)
        following: deque[Slice] = deque()
        running: dict[Future[Page], Slice] = {}
        stopped = threading.Event()
        pool = ThreadPoolExecutor(
            self.workers, "analytics-pipeline", stop_with, (stopped,)
        )

        def submit() -> None:
            while len(running) < self.workers:
                part = following.popleft() if following else next(waiting, None)
                if part is None:
                    return
                if part.is_due():
                    running[pool.submit(self.fetch, part)] = part

        try:
            submit()
            while running:
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    asked = running.pop(future)
                    part, page, more = self._result(asked, future)
                    following.extendleft(reversed(more))
                    submit()
                    if part is not None and page is not None:
                        yield part, page
        finally:
            stopped.set()
            pool.shutdown(wait=False, cancel_futures=True)

    def _result(
        self, asked: Slice, future: Future[Page]
    ) -> tuple[Slice | None, Page | None, Sequence[Slice]]:
        """Return a page with the slice that it belongs to, and what to read after it."""
        part: Slice | None = asked
        page = None
        try:
            page = future.result()
            part = asked.taking(page)
            return part, page, part.after(page) if part else ()
        except ApiError as error:
            return (
                part,
                page,
                asked.owner.on_error(asked, self._explained(error, asked)),
            )

    def fetch(self, part: Slice) -> Page:
        """Return the page at which a slice stands.

        Raises:
            ApiError: as `ApiSession.get` and `parse_page` do.
            UnknownName: there is no such organization.
        """
        owner = part.owner
        if owner.endpoint.single:
            return self._project_detail(owner.project, owner.stats)
        params = {"cursor": part.page_cursor} if part.page_cursor is not None else {}
        if part.window is None:
            page = self._ask(owner, params)
        elif part.pages:
            page = self._ask(owner, params | _between(part.window))
        else:
            page = self.time_filter.first_page(
                part.window,
                lambda window, statuses: self._ask(owner, _between(window), statuses),
            )
        if owner.endpoint.of_all_organizations:
            page = of_organization(page, self.organization)
        part.is_empty &= not page.records
        is_all = page.next_cursor is None
        if owner.endpoint.unknown_is_empty and part.is_empty and is_all:
            self._check_names(owner)
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
        response = self.session.get(
            self._path(endpoint, wanted.project),
            {**named, **params},
            wanted.stats,
            endpoint=endpoint.table,
            statuses=statuses,
        )
        if endpoint.filters_time:
            limiter = self.session.limiter
            self.time_filter.at_a_time = limiter.at_a_time(endpoint.table)
        page = parse_answer(response, self.spec, endpoint)
        self.diagnosis.is_confirmed = True
        wanted.stats.count(replaced=page.replaced)
        return page

    def _project_detail(self, project: str, stats: RequestStats) -> Page:
        """Return what the server says of a project; it is asked once in a run.

        The table of that name needs it, and so do lists without rows: nothing else tells
        an empty project from one that does not exist.
        """
        with self._details_lock:
            lock = self._locks.setdefault(project, threading.Lock())
        with lock:
            if project not in self._details:
                detail = _Detail(self.spec.endpoints["project_detail"], project, stats)
                try:
                    self._details[project] = self._ask(detail, {})
                except HttpError as error:
                    self._details[project] = error
            known = self._details[project]
        if isinstance(known, HttpError):
            raise copy(known)
        return known

    def project_id(self, project: str, stats: RequestStats) -> str | None:
        """Return the id of a project, which is asked for once in a run.

        Raises:
            ApiError: as `ApiSession.get` does.
        """
        records = self._project_detail(project, stats).records
        value = records[0].get("id") if records else None
        return None if value is None else str(value)

    def _check_names(self, empty: ListName) -> None:
        """Raise an error if a list is empty because its names are wrong.

        Raises:
            HttpError: 404, there is no such project.
            UnknownName: there is no such organization.
        """
        projects = [empty.project] if empty.project else self.projects[:1]
        for project in projects:
            try:
                self._project_detail(project, empty.stats)
            except HttpError as error:
                is_unknown = bool(empty.project) and error.status == 404
                if is_unknown or error.status not in (403, 404):
                    raise
                if error.status == 403:
                    log.warning(
                        "%s: no rows, and without the scope %s nothing tells whether the"
                        " name is right",
                        self.describe(empty),
                        self.spec.endpoints["project_detail"].scope,
                    )
                    return
            else:
                return
        names = {} if empty.project else self.diagnosis.names()
        if names and self.organization not in names:
            raise UnknownName("the list is empty")

    def _path(self, endpoint: Endpoint, project: str) -> str:
        return self.spec.prefix + endpoint.path.format(
            organization=quote(self.organization, safe=""),
            project=quote(project, safe=""),
        )

    def describe(self, owner: ListName) -> str:
        """Return the list's name for people: `events of project 'frontend'`."""
        if owner.project:
            return f"{owner.endpoint.table} of project {owner.project!r}"
        return f"{owner.endpoint.table} of organization {self.organization!r}"

    def _explained(self, error: ApiError, part: Slice) -> ApiError:
        """Return the error with the list that it happened to, and what to do next."""
        owner = part.owner
        title = self.describe(owner)
        return self.diagnosis.explained(error, owner.endpoint, owner.project, title)


def _between(window: Span) -> dict[str, str]:
    """Return the parameters of a window: whole seconds without zone, the end rounded up."""
    start, end = window
    if end.microsecond:
        end += timedelta(seconds=1)
    times = {"start": start, "end": end}
    return {name: f"{time:%Y-%m-%dT%H:%M:%S}" for name, time in times.items()}


def _search_term(slug: str) -> str:
    """Return a slug as it stands in a search query; quoted if it has odd characters."""
    if all(letter.isalnum() or letter in "-_" for letter in slug):
        return slug
    return '"' + slug.replace("\\", "\\\\").replace('"', '\\"') + '"'
