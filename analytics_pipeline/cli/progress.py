"""How far a run is, page by page: live on a terminal, lines with times elsewhere."""

import logging
import threading
import time
from abc import abstractmethod
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from dlt.common.runtime.collector_base import Collector
from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analytics_pipeline.cli import terminal
from analytics_pipeline.cli.process import at_interruption
from analytics_pipeline.cli.terminal import counted, is_terminal, say
from analytics_pipeline.client import retry
from analytics_pipeline.extraction import READ, REQUESTS
from analytics_pipeline.tables.columns import TABLES

EVERY = 5.0
"""Seconds between two lines of one list."""
MINUTE = 60.0
STEPS = {"Extract": "reading", "Normalize": "preparing", "Load": "loading"}
"""dlt's names of what it does → for people."""


class PageCollector(Collector):
    """Takes what is read; dlt's own counters tell nothing more."""

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,
        inc_total: int | None = None,
        message: str | None = None,
        label: str = "",
    ) -> None:
        """Pass on the rows of a page, or requests."""
        if name.startswith(READ) or name == REQUESTS:
            self.count(name.removeprefix(READ), inc, message or "")

    @abstractmethod
    def count(self, name: str, number: int, message: str) -> None:
        """Count rows of a list, and the time that was reached; or `REQUESTS`."""


class LinesCollector(PageCollector):
    """Prints a line with the time for each list that takes longer than `EVERY`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._told: dict[str, float] = {}

    def count(self, name: str, number: int, message: str) -> None:
        """Count the rows of a page."""
        if name == REQUESTS:
            return
        self._counts[name] = self._counts.get(name, 0) + number
        if time.monotonic() - self._told.setdefault(name, time.monotonic()) >= EVERY:
            self._told[name] = time.monotonic()
            rows = f"{name}: {counted(self._counts[name], 'row')}"
            line = f"{rows}, {message}" if message else rows
            has_time = terminal.has_times
            say(line if has_time else f"{datetime.now():%H:%M:%S} {line}")

    def _start(self, step: str) -> None:
        pass

    def _stop(self) -> None:
        pass


@dataclass
class _Line:
    """What the display shows of a table."""

    rows: int = 0
    message: str = ""
    """The time that was reached."""


class LiveCollector(PageCollector):
    """Shows a line for each table while dlt works, and what is waited for.

    Log lines of that time stand above it; nothing is left of it at the end of a step.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._lines: dict[str, _Line] = {}
        self._requests: deque[tuple[float, int]] = deque()
        self._began = time.monotonic()
        self._step = ""
        self._waits_until = 0.0
        self._lock = threading.Lock()

    def count(self, name: str, number: int, message: str) -> None:
        """Count the rows of a page, or requests."""
        with self._lock:
            if name == REQUESTS:
                self._requests.append((time.monotonic(), number))
                return
            # of all projects together
            line = self._lines.setdefault(name.partition(" of ")[0], _Line())
            line.rows += number
            line.message = message or line.message

    def _start(self, step: str) -> None:
        self._step = STEPS.get(step.partition(" ")[0], step)
        self._live = Live(
            # "^C" beside a line as long as the terminal is wide would be another line.
            get_renderable=lambda: Constrain(self.shown(), self._console.width - 4),
            console=self._console,
            transient=True,
        )
        logging.getLogger(retry.__name__).addFilter(self._is_shown_as_line)
        at_interruption.append(self._stop)
        self._live.start()

    def _stop(self) -> None:
        live, self._live = self._live, None
        if live:
            live.stop()
            at_interruption.remove(self._stop)
            logging.getLogger(retry.__name__).removeFilter(self._is_shown_as_line)

    def _is_shown_as_line(self, record: logging.LogRecord) -> bool:
        """Take a wait for a rate limit, which is counted down, out of the log."""
        waits_until = getattr(record, "waits_until", None)
        if waits_until is None:
            return True
        self._waits_until = waits_until
        return False

    def shown(self) -> Table:
        """Return what the terminal shows now."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(3):
            grid.add_column(
                no_wrap=True
            )  # a line each, also where there is little room
        with self._lock:
            for title in sorted(self._lines, key=_place):
                line = self._lines[title]
                rows = Text(counted(line.rows, "row"), justify="right")
                grid.add_row(title, rows, Text(line.message))
        grid.add_row(Text(self._step, style="bold"), *map(Text, self._footer()))
        return grid

    def _footer(self) -> Iterator[str]:
        yield f"{time.monotonic() - self._began:.0f} s"
        rate = f"{self._requests_a_minute():,.0f} requests/min"
        if (waits := self._waits_until - time.time()) > 0:
            rate += f", rate limit: next request in {waits:.0f} s"
        yield rate

    def _requests_a_minute(self) -> float:
        now = time.monotonic()
        with self._lock:
            while self._requests and self._requests[0][0] < now - MINUTE:
                self._requests.popleft()
            count = sum(each for _, each in self._requests)
        return count * MINUTE / min(MINUTE, max(1.0, now - self._began))


def _place(title: str) -> int:
    """Return where a line stands among those of all tables."""
    return [*TABLES].index(title.partition(" ")[0])


def collector(kind: str) -> Collector | None:
    """Return dlt's collector for the option `--progress`."""
    if kind == "auto":
        kind = "live" if is_terminal() else "log"
    if kind == "live":
        return LiveCollector()
    return LinesCollector() if kind == "log" else None
