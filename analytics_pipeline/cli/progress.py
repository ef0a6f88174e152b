"""Progress of a run: a live display on a terminal, log lines elsewhere."""

import logging
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator

from dlt.common.runtime.collector_base import Collector
from rich.console import Console
from rich.constrain import Constrain
from rich.live import Live
from rich.table import Table
from rich.text import Text

from analytics_pipeline.cli.process import at_interruption
from analytics_pipeline.cli.terminal import counted, is_terminal, say
from analytics_pipeline.client import retry
from analytics_pipeline.run import READ, REQUESTS
from analytics_pipeline.tables.columns import TABLES

EVERY = 5.0
"""Seconds between two lines about one list."""
STEPS = {"Extract": "reading", "Normalize": "preparing", "Load": "loading"}
"""dlt's name of a step → what is shown."""


class PageCollector(Collector):
    """Receives the counters of lists and ignores dlt's own."""

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,
        inc_total: int | None = None,
        message: str | None = None,
        label: str = "",
    ) -> None:
        """Pass on a counter of rows or requests."""
        if name.startswith(READ) or name == REQUESTS:
            self.count(name.removeprefix(READ), inc, message or "")

    @abstractmethod
    def count(self, name: str, number: int, message: str) -> None:
        """Count rows of a list, or requests if the name is `REQUESTS`.

        The message says how far back the list has been read.
        """


class LinesCollector(PageCollector):
    """Prints a line about each list every few seconds."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._printed_at: dict[str, float] = {}

    def count(self, name: str, number: int, message: str) -> None:
        """Count rows of a list."""
        if name == REQUESTS:
            return
        now = time.monotonic()
        self._counts[name] = self._counts.get(name, 0) + number
        if now - self._printed_at.setdefault(name, now) >= EVERY:
            self._printed_at[name] = now
            line = f"{name}: {counted(self._counts[name], 'row')}"
            say(f"{line}, {message}" if message else line)

    def _start(self, step: str) -> None:
        pass

    def _stop(self) -> None:
        pass


class LiveCollector(PageCollector):
    """Shows a line for each table, and rate limits, while dlt works.

    Log lines appear above the display, which disappears after each step.
    """

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True)
        self._live: Live | None = None
        self._lines: dict[str, tuple[int, str]] = {}  # table → rows, time reached
        self._requests = 0
        self._began = time.monotonic()
        self._step = ""
        self._waits_until = 0.0
        self._lock = threading.Lock()

    def count(self, name: str, number: int, message: str) -> None:
        """Count rows of a table, or requests."""
        with self._lock:
            if name == REQUESTS:
                self._requests += number
                return
            table = name.partition(" of ")[0]
            rows, reached = self._lines.get(table, (0, ""))
            self._lines[table] = rows + number, message or reached

    def _start(self, step: str) -> None:
        self._step = STEPS.get(step.partition(" ")[0], step)
        self._live = Live(
            # Leaves room for the "^C" that the terminal echoes.
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
        """Remove rate limits from the log; the display counts them down."""
        waits_until = getattr(record, "waits_until", None)
        if waits_until is None:
            return True
        self._waits_until = waits_until
        return False

    def shown(self) -> Table:
        """Return the display."""
        grid = Table.grid(padding=(0, 2, 0, 0))
        for _ in range(3):
            grid.add_column(no_wrap=True)
        with self._lock:
            for table in sorted(self._lines, key=[*TABLES].index):
                number, reached = self._lines[table]
                rows = Text(counted(number, "row"), justify="right")
                grid.add_row(table, rows, Text(reached))
        grid.add_row(Text(self._step, style="bold"), *map(Text, self._footer()))
        return grid

    def _footer(self) -> Iterator[str]:
        yield f"{time.monotonic() - self._began:.0f} s"
        requests = counted(self._requests, "request")
        if (waits := self._waits_until - time.time()) > 0:
            requests += f", rate limit: next request in {waits:.0f} s"
        yield requests


def collector(kind: str) -> Collector | None:
    """Return the collector for the option `--progress`."""
    if kind == "auto":
        kind = "live" if is_terminal() else "log"
    if kind == "live":
        return LiveCollector()
    return LinesCollector() if kind == "log" else None
