"""How far a run is, page by page: a bar on a terminal, plain lines elsewhere."""

import sys
import time
from collections.abc import Callable
from datetime import datetime

from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext
from dlt.common.runtime.collector import TqdmCollector
from dlt.common.runtime.collector_base import Collector

EVERY = 5.0
"""Seconds between two lines of one list."""
READ = "read: "

OnPage = Callable[[int, datetime | None], None]


class Lines(Collector):
    """A line for each list that takes longer than `EVERY`."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._told: dict[str, float] = {}

    def update(
        self,
        name: str,
        inc: int = 1,
        total: int | None = None,
        inc_total: int | None = None,
        message: str | None = None,
        label: str = "",
    ) -> None:
        if not name.startswith(READ):  # dlt's own counters tell nothing more
            return
        self._counts[name] = self._counts.get(name, 0) + inc
        if time.monotonic() - self._told.setdefault(name, time.monotonic()) >= EVERY:
            self._told[name] = time.monotonic()
            rows = f"{name.removeprefix(READ)}: {self._counts[name]:,} rows"
            print(f"{rows}, {message}", file=sys.stderr, flush=True)

    def _start(self, step: str) -> None:
        self._counts.clear()
        self._told.clear()

    def _stop(self) -> None:
        pass


def collector(kind: str) -> Collector | None:
    """For dlt, by the option `--progress`."""
    if kind == "auto":
        kind = "tqdm" if sys.stderr.isatty() and _has_tqdm() else "log"
    if kind == "tqdm":
        return TqdmCollector(file=sys.stderr, unit_scale=True)
    return Lines() if kind == "log" else None


def _has_tqdm() -> bool:
    try:
        import tqdm  # noqa: F401
    except ImportError:
        return False
    return True


def on_page(title: str) -> OnPage:
    """What to call with each page's rows and oldest time, to show them to the user.

    dlt's own counters move only when a batch of thousands is handed over.
    """
    context = Container()[PipelineContext]
    if not context.is_active():
        return lambda rows, time: None
    shown: Collector = context.pipeline().collector

    def tell(rows: int, time: datetime | None) -> None:
        reached = f"back to {time:%Y-%m-%d %H:%M}" if time else ""
        shown.update(READ + title, inc=rows, message=reached)

    return tell
