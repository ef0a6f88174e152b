"""The Link loop: lists, and parts of lists, read page by page and side by side."""

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import pairwise
from typing import NamedTuple, Protocol
from urllib.parse import quote

from analytics_pipeline.client.endpoints import ApiSpec, Endpoint
from analytics_pipeline.client.page import Page, parse_page
from analytics_pipeline.client.session import ApiSession, RequestStats
from analytics_pipeline.errors import ApiError, HttpError, ListChanged, PageCursorLoop


class SliceOwner(Protocol):
    """Whoever wants a list: says when to stop, and what a failure means."""

    @property
    def endpoint(self) -> Endpoint:
        """Which list it is."""

    @property
    def project(self) -> str:
        """Slug of its project; empty for a list of the organization."""

    @property
    def stats(self) -> RequestStats:
        """Counts the requests for it."""

    def room(self) -> float:
        """Return how many more rows are wanted for now; none: go on another time."""

    def on_error(self, part: "Slice", error: ApiError) -> Sequence["Slice"]:
        """Return what to read instead, or raise the error."""


@dataclass(eq=False)
class Slice:
    """A list, or a part of one, read page by page."""

    owner: SliceOwner
    page_cursor: str | None = None
    """Of the page to ask for next; None is the first page."""
    pages: int = 0
    _known: set[str] = field(default_factory=set, repr=False)

    @property
    def window(self) -> tuple[datetime, datetime] | None:
        """The span of time to ask for, where the server filters by time."""
        return None

    def is_due(self) -> bool:
        """Tell whether to ask for its next page at all."""
        return True

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


class Position(NamedTuple):
    """Where a list was left."""

    page_cursor: str
    """Of the page that was read last."""
    newest_first: bool
    """The order of the pages; otherwise oldest first."""
    edge: datetime
    """The time that reading had come to."""


class ListSlice(Slice):
    """A whole list, up to its end or to the rows before `start`.

    It can be left at a page, and gone on with from there another time (`resume`), if
    its pages are in order of time.
    """

    def __init__(
        self,
        owner: SliceOwner,
        start: datetime | None,
        *,
        can_be_left: bool = True,
    ) -> None:
        super().__init__(owner)
        self.start = start
        self._can_be_left = can_be_left
        self.order = Order(owner.endpoint.newest_first)
        self.asked_cursor: str | None = None
        """Page cursor of the page that came last."""
        self.ended = False
        self.resumed_at: datetime | None = None

    def resume(self, position: Position) -> None:
        """Go on at a page that an earlier reading had come to; it is asked for again."""
        self.page_cursor = position.page_cursor
        self.order.resume(position.newest_first, position.edge)
        self.resumed_at = position.edge

    def restart(self) -> "ListSlice":
        """Return the same list from its first page on, to be read to its end at once.

        Its page cursors do not hold, so it would have to begin anew for ever.
        """
        return ListSlice(self.owner, self.start, can_be_left=False)

    def after(self, page: Page) -> Sequence[Slice]:
        """Return this slice again while there is more to read.

        Documented at `Slice.after`; a page that does not go on where the list was left
        begins the list anew.
        """
        times = page.times
        if self.resumed_at and not self.pages and not self.order.overlaps(times):
            return self.owner.on_error(
                self, ListChanged("rows were deleted since, and others would be missed")
            )
        self.asked_cursor = self.page_cursor
        self.order.note(times)
        self.ended = page.next_cursor is None or self.order.is_past(times, self.start)
        if self.ended or (self.owner.room() <= 0 and self.position()):
            self.pages += 1
            return ()
        return super().after(page)

    def is_overlap(self, time: datetime) -> bool:
        """Tell whether a row of the page that was asked again had come before."""
        if self.resumed_at is None or self.pages > 1:
            return False
        if self.order.newest_first:
            return time >= self.resumed_at
        return time <= self.resumed_at

    def position(self) -> Position | None:
        """Return where another reading can go on, if it is then further than this one."""
        newest_first, edge = self.order.newest_first, self.order.edge
        if self.asked_cursor is None or newest_first is None or edge is None:
            return None
        if edge == self.resumed_at or not self._can_be_left:
            return None
        return Position(self.asked_cursor, newest_first, edge)


class Order:
    """What the pages of a list show of its order by time.

    Where no order is documented, one odd row must not end a list.
    """

    def __init__(self, documented: bool) -> None:
        self.documented = documented
        """Newest first, says the vendor."""
        self._falling = self._rising = True
        """No page contradicts it so far."""
        self._rose = False
        self._descending = self._disordered = 0
        """Pages."""
        self._low: datetime | None = None
        self._high: datetime | None = None

    @property
    def newest_first(self) -> bool | None:
        """The direction; None where the pages have shown none."""
        if self.documented:
            return True
        return None if self._falling == self._rising else self._falling

    @property
    def edge(self) -> datetime | None:
        """The time that reading has come to; None where there is no order."""
        return {True: self._low, False: self._high, None: None}[self.newest_first]

    def resume(self, newest_first: bool, edge: datetime) -> None:
        """Take over what an earlier run had found out."""
        self._falling = newest_first
        self._rising = self._rose = not newest_first
        self._low = self._high = edge

    def overlaps(self, times: Sequence[datetime | None]) -> bool:
        """Tell whether a page begins before where the list was left.

        Rows of just that time may be the next ones, or some of them missing.
        """
        known = [time for time in times if time is not None]
        if not known or self.edge is None:
            return False
        return max(known) > self.edge if self.newest_first else min(known) < self.edge

    def note(self, times: Sequence[datetime | None]) -> None:
        """Look at the times of a page."""
        known = [time for time in times if time is not None]
        if not known:
            return
        tied = len(set(known)) == 1
        self._falling &= tied or _falls(known)
        self._rising &= tied or _rises(known)
        self._rose |= _rises(known)
        self._descending += _falls(known)
        self._disordered += not (tied or _falls(known) or _rises(known))
        self._low = min(known) if self._low is None else min(self._low, *known)
        self._high = max(known) if self._high is None else max(self._high, *known)

    def is_past(self, times: Sequence[datetime | None], start: datetime | None) -> bool:
        """Tell whether all that follows a page is older than `start`.

        Where the order is documented, the last row tells. Elsewhere the page has to be
        in descending order, as at least half of the pages were, and a tenth of it, and
        more than one row, older than `start`; after a page in ascending order a list is
        read to its end.
        """
        known = [time for time in times if time is not None]
        if start is None or not known:
            return False
        if self.documented:
            return known[-1] < start
        if self._rose or not _falls(known) or self._disordered > self._descending:
            return False
        older = sum(time < start for time in known)
        return older >= max(2, len(known) / 10)


def _falls(times: Sequence[datetime]) -> bool:
    """Tell whether times descend; equal ones alone show no order."""
    return times[0] > times[-1] and all(a >= b for a, b in pairwise(times))


def _rises(times: Sequence[datetime]) -> bool:
    return times[0] < times[-1] and all(a <= b for a, b in pairwise(times))


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
        full_events: bool = False,
    ) -> None:
        self.session = session
        self.spec = spec
        self.organization = organization
        self.workers = workers
        self._full_events = full_events

    def pages(self, slices: Iterable[Slice]) -> Iterator[tuple[Slice, Page]]:
        """Read slices side by side; the pages of each come in order.

        A slice is taken from `slices` when there is a worker for it. The next page of
        a slice is asked for before the page is given out.

        Raises:
            ApiError: what the slice's owner does not take upon itself.
        """
        waiting = iter(slices)
        following: deque[Slice] = deque()
        running: dict[Future[Page], Slice] = {}
        pool = ThreadPoolExecutor(self.workers, "analytics-pipeline")

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
                    part = running.pop(future)
                    page = None
                    try:
                        page = future.result()
                        more = part.after(page)
                    except ApiError as error:
                        more = part.owner.on_error(part, self._explained(error, part))
                    following.extendleft(reversed(more))
                    submit()
                    if page is not None:
                        yield part, page
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def fetch(self, part: Slice) -> Page:
        """Return the page at which a slice stands.

        Raises:
            ApiError: as `ApiSession.get` and `parse_page` do.
        """
        owner, endpoint = part.owner, part.owner.endpoint
        params = self._params(endpoint, owner.project, part)
        path = self._path(endpoint, owner.project)
        response = self.session.get(path, params, owner.stats)
        page = parse_page(
            response,
            self.spec.envelope,
            key=endpoint.key,
            time_field=endpoint.replication_key,
            single=endpoint.single,
        )
        owner.stats.count(replaced=page.replaced)
        if endpoint.unknown_is_empty and not page.records and not part.pages:
            # The answer to a wrong name, too; project_detail is honest.
            detail = self.spec.endpoints["project_detail"]
            self.session.get(self._path(detail, owner.project), {}, owner.stats)
        return page

    def _path(self, endpoint: Endpoint, project: str) -> str:
        return self.spec.prefix + endpoint.path.format(
            organization=quote(self.organization, safe=""),
            project=quote(project, safe=""),
        )

    def _params(self, endpoint: Endpoint, project: str, part: Slice) -> dict[str, str]:
        params = {
            name: value.replace("{project}", _search_term(project))
            for name, value in endpoint.params.items()
        }
        if self._full_events:
            params |= endpoint.full_params
        if part.window:
            start, end = part.window
            params |= {"start": _api_time(start), "end": _api_time(end, up=True)}
        if part.page_cursor is not None:
            params["cursor"] = part.page_cursor
        return params

    def describe(self, owner: SliceOwner) -> str:
        """Return the list's name for people: `events of project 'frontend'`."""
        if owner.project:
            return f"{owner.endpoint.table} of project {owner.project!r}"
        return f"{owner.endpoint.table} of organization {self.organization!r}"

    def _explained(self, error: ApiError, part: Slice) -> ApiError:
        """Return the error with the list that it happened to, and what to do next."""
        advice = ""
        if isinstance(error, HttpError):
            names = f"organization {self.organization!r}"
            if part.owner.project:
                names += f" and project {part.owner.project!r}"
            advice = {
                401: "the server rejected the token: check auth_token; it may have"
                " expired, or belong to another server",
                403: f"the token lacks the scope {part.owner.endpoint.scope}, or may"
                " not see this",
                404: f"check the names of {names}, and that the token may see them",
            }.get(error.status, "what is loaded stays; try again later")
        return error.about(self.describe(part.owner), advice)


def _api_time(time: datetime, up: bool = False) -> str:
    """Return ISO text in whole seconds without zone, rounded down or up."""
    if up and time.microsecond:
        time += timedelta(seconds=1)
    return time.strftime("%Y-%m-%dT%H:%M:%S")


def _search_term(slug: str) -> str:
    """Return a slug as it stands in a search query; quoted if it has odd characters."""
    if all(letter.isalnum() or letter in "-_" for letter in slug):
        return slug
    return '"' + slug.replace("\\", "\\\\").replace('"', '\\"') + '"'
