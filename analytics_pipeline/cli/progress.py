"""How far a run is, page by page: a bar on a terminal, plain lines elsewhere."""

import sys
import time

from dlt.common.runtime.collector import TqdmCollector
from dlt.common.runtime.collector_base import Collector

from analytics_pipeline.cli.output import say
from analytics_pipeline.sync import READ

EVERY = 5.0
"""Seconds between two lines of one list."""


class Lines(Collector):
    """Prints a line for each list that takes longer than `EVERY`."""

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
        """Count the rows of a page."""
        if not name.startswith(READ):  # dlt's own counters tell nothing more
            return
        self._counts[name] = self._counts.get(name, 0) + inc
        if time.monotonic() - self._told.setdefault(name, time.monotonic()) >= EVERY:
            self._told[name] = time.monotonic()
            rows = f"{name.removeprefix(READ)}: {self._counts[name]:,} rows"
            say(f"{rows}, {message}" if message else rows)

    def _start(self, step: str) -> None:
        self._counts.clear()
        self._told.clear()

    def _stop(self) -> None:
        pass


def collector(kind: str) -> Collector | None:
    """Return dlt's collector for the option `--progress`."""
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
