"""One list, from its stored cursor on, as Arrow tables; and the cursor's next place."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any
from urllib.parse import urlsplit

import dlt
import pyarrow as pa

from analytics_pipeline import jsontext
from analytics_pipeline.api import Tally
from analytics_pipeline.columns import utc
from analytics_pipeline.errors import ApiError, HttpError
from analytics_pipeline.lists import BEGINNING, Lists, row_time
from analytics_pipeline.memory import Memory, Sent
from analytics_pipeline.pages import Page
from analytics_pipeline.progress import on_page
from analytics_pipeline.tables import TABLES, Record
from analytics_pipeline.windows import Windows

Cursor = dlt.sources.incremental[datetime]

CHUNK = 200
"""Rows that become Arrow at once, while the processor's cache still holds them."""
BATCH = 5_000
"""Rows of one Arrow table: fewer cost time, more cost memory."""


@dataclass(frozen=True)
class Reader:
    """What all resources of one source share."""

    lists: Lists
    lookback: timedelta = timedelta(hours=1)
    full_refresh: bool = False
    until: datetime | None = None
    """End of a span whose cursors move on to it."""
    skip_missing: bool = False
    """Report a project that the server refuses at once, and go on without it."""
    clean: Callable[[str, Record], Record] = lambda table, row: row
    """Applied to each row before anything of it is written."""

    def read(self, name: str, cursor: Cursor, project: str = "") -> Iterator[pa.Table]:
        """What is new in a list since its cursor.

        dlt's own filter is put aside (`advance`): a cursor moves when its list has
        been read to the end, not with the first and newest page, and never on to a
        row that is dated in the future.
        """
        cursor.advance(None)  # type: ignore[arg-type]
        reading = Reading(self, name, cursor, project)
        metrics = dlt.current.resource_metrics()
        try:
            with jsontext.rare_collection():
                yield from reading.tables()
        except ApiError as error:
            self.lists.explain(error, name, project)
            if not (self.skip_missing and project and reading.is_refused(error)):
                raise
            metrics["skipped"] = str(error)
        else:
            reading.commit()
        finally:
            metrics.update(reading.report())


class Reading:
    """One reading of one list."""

    def __init__(self, reader: Reader, name: str, cursor: Cursor, project: str) -> None:
        self.reader = reader
        self.name = name
        self.project = project
        self.cursor = cursor
        self.endpoint = reader.lists.server.endpoints[name]
        self.tally = Tally()
        self.pages = self.rows = self.misfits = 0
        self.now = datetime.now(UTC)
        self.reached: datetime | None = None
        """Up to where the list is loaded, when its reader has an `until`."""
        self.newest: datetime | None = None
        """The latest time of a row that is not in the future."""
        self.tell = on_page(f"{name} {project}".strip())
        self.state = dlt.current.resource_state()
        host = urlsplit(reader.lists.api.base_url).hostname
        self.origin = f"{host}/{reader.lists.organization}/{project}"
        self.bounded = cursor.end_value is not None
        # A cursor belongs to one project of one server: another's would hide the
        # history of this one.
        self.resumes = (
            not self.bounded
            and not reader.full_refresh
            and self.state.get("origin") == self.origin
        )
        self.start, self.end = self._span()
        self.memory = Memory(self.state.get("known", "") if self.resumes else "")

    def _span(self) -> tuple[datetime | None, datetime | None]:
        if self.endpoint.whole:
            return None, None
        first = utc(self.cursor.initial_value)
        start = utc(self.cursor.start_value) if self.resumes else first
        if self.resumes and start and self.endpoint.reread:
            start = min(start, self.now - self.endpoint.reread)
            start = max(start, first) if first else start
        return start, utc(self.cursor.end_value) or self.reader.until

    def tables(self) -> Iterator[pa.Table]:
        """The rows to load, in batches; each once.

        A row that moves while pages are read comes twice, and Delta and Iceberg
        tables refuse to merge it. The first of its copies stays, or the last of a chunk.
        """
        if self.start and self.end and self.start >= self.end:
            return  # loaded by an earlier run
        rows: dict[str, Record] = {}
        chunks: list[pa.Table] = []
        sent = Sent()
        for page in self._pages():
            self.pages += 1
            times = [row_time(row, self.endpoint) for row in page.rows]
            known = [time for time in times if time is not None]
            self.tell(len(page.rows), min(known, default=None))
            self._note_newest(known)
            horizon = self._horizon()
            for row, time in zip(page.rows, times, strict=True):
                key = str(row[self.endpoint.key])
                is_wanted = key not in sent and self._is_wanted(time)
                if is_wanted and self.memory.is_new(row, time, horizon):
                    rows[key] = row
            # The first page goes at once: `add_limit(1)` is one request.
            if rows and (len(rows) >= CHUNK or self.pages == 1):
                chunks.append(self._arrow([*rows.values()]))
                sent.add(rows)
                rows = {}
            if self.pages == 1 or sum(map(len, chunks)) >= BATCH:
                yield from _joined(chunks)
                chunks = []
            if self._is_past(known):
                break
        if rows:
            chunks.append(self._arrow([*rows.values()]))
        yield from _joined(chunks)

    def _pages(self) -> Iterator[Page]:
        lists = self.reader.lists
        end = self.end or self.now
        if not self.endpoint.filters_time or lists.api.workers == 1:
            return lists.pages(self.name, self.project, self.tally, self.start, end)
        windows = Windows(
            partial(lists.pages, self.name, self.project, self.tally),
            time_of=partial(row_time, endpoint=self.endpoint),
            key_of=itemgetter(self.endpoint.key),
            workers=lists.api.workers,
        )
        return windows.pages(self.start or BEGINNING, end)

    def _is_wanted(self, time: datetime | None) -> bool:
        """Whether a row of that time belongs to the span."""
        if time is None:
            return not self.bounded or self.endpoint.whole
        return not (
            (self.start and time < self.start) or (self.end and time >= self.end)
        )

    def _note_newest(self, times: list[datetime]) -> None:
        past = [t for t in times if t <= self.now and self._is_wanted(t)]
        self.newest = max([*past, *filter(None, [self.newest])], default=None)

    def _horizon(self) -> datetime:
        """From where on the next run will see rows again."""
        if self.endpoint.whole or self.newest is None:
            return datetime.min.replace(tzinfo=UTC)
        again = self.newest - self.reader.lookback
        if self.endpoint.reread:
            again = min(again, self.now - self.endpoint.reread)
        return again

    def _is_past(self, times: list[datetime]) -> bool:
        """All further pages are older than the start.

        Lists are newest first. A page that is out of order, by more than rows may be
        late, tells nothing about the next. A server that filters by time ends its
        lists itself.
        """
        if not (self.start and times and self.endpoint.newest_first):
            return False
        if self.endpoint.filters_time:
            return False
        lateness = max((b - a for a, b in pairwise(times)), default=timedelta())
        return lateness <= self.reader.lookback and times[-1] < self.start

    def _arrow(self, batch: list[Record]) -> pa.Table:
        for row in batch:
            if self.name == "events" and row.get("projectID") is None:
                row["projectID"] = self.project
            if row.get("id") is None:
                row["id"] = row[self.endpoint.key]
        batch = [self.reader.clean(self.name, row) for row in batch]
        table, misfits = TABLES[self.name].arrow(batch)
        self.rows += len(batch)
        self.misfits += misfits
        return table

    def commit(self) -> None:
        """Move the cursor. A bounded run leaves it where it was."""
        if self.bounded:
            return
        cursors = self.state["incremental"][self.cursor.cursor_path]
        stored = utc(cursors["last_value"]) if self.resumes else None
        end = min(self.reader.until, self.now) if self.reader.until else None
        times = [time for time in (stored, self.newest, end) if time is not None]
        if times:
            self.cursor.advance(max(times))
        if end:
            self.reached = max(times)
        self.state["origin"] = self.origin
        self.state["known"] = self.memory.text(self._horizon())

    def is_refused(self, error: ApiError) -> bool:
        """The list cannot be read at all; on a later page it would be a failure."""
        return (
            isinstance(error, HttpError)
            and error.status in self.endpoint.refusals
            and self.pages == 0
        )

    def report(self) -> dict[str, Any]:
        """For dlt's trace, and for the summary of a run."""
        return {
            "table": self.name,
            "project": self.project,
            "requests": self.tally.requests,
            "rows": self.rows,
            "misfits": self.misfits,
            "replaced": self.tally.replaced,
            "newest": self.newest.isoformat() if self.newest else None,
            "reached": self.reached,
            "waited": self.reader.lists.api.gate.waited,
        }


def _joined(chunks: list[pa.Table]) -> Iterator[pa.Table]:
    """As one table, if there are any."""
    if chunks:
        yield pa.concat_tables(chunks)
