"""Several lists read side by side in threads, up to the budget of a load."""

import math
import threading
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait

from analytics_pipeline.client.client import Client
from analytics_pipeline.client.retry import stop_with
from analytics_pipeline.errors import ApiError
from analytics_pipeline.reading import ListReader, Part

SECONDS_PER_LOAD = 300.0
"""Then the load ends, and another one continues."""
SECONDS_OF_SILENCE = 900.0
"""If no list gets a page for this long, apart from rate limits, all of them have failed."""
MAX_THREADS = 1000
"""More than `workers`, because threads of silent lists may hang for ever."""

Outcome = Part | ApiError | None
"""Of a reader: a part; why it failed; or None at its end."""


class Budget:
    """How many rows one load may read; None: any number. Shared by its tables."""

    def __init__(self, rows: int | None = None) -> None:
        self._rows: float = math.inf if rows is None else rows
        self._started = time.monotonic()
        self._lock = threading.Lock()

    def take(self, rows: int) -> None:
        """Subtract the rows of a part."""
        with self._lock:
            self._rows -= rows

    @property
    def is_spent(self) -> bool:
        """The load has enough rows, or has taken long enough."""
        seconds = time.monotonic() - self._started
        is_late = math.isfinite(self._rows) and seconds > SECONDS_PER_LOAD
        return self._rows <= 0 or is_late


def side_by_side(
    readers: Iterable[ListReader], workers: int, budget: Budget, client: Client
) -> Iterator[tuple[ListReader, Outcome]]:
    """Read up to `workers` lists in threads; yield their parts, each list's in order.

    A reader's next page is requested before its last part is yielded. Once the budget is
    spent, readers that can stop are not asked again.
    """
    waiting = iter(readers)
    running: dict[Future[Part | None], ListReader] = {}
    has_begun = False  # each load reads at least one list, or none would make progress
    stopped = threading.Event()
    pool = ThreadPoolExecutor(MAX_THREADS, "analytics-pipeline", stop_with, (stopped,))

    def request_page(reader: ListReader) -> Future[Part | None]:
        future = pool.submit(next, reader.parts, None)
        running[future] = reader
        return future

    def clock() -> float:
        return time.monotonic() - client.session.limiter.waited

    answered = clock()
    try:
        while True:
            while len(running) < workers and not (has_begun and budget.is_spent):
                reader = next(waiting, None)
                if reader is None:
                    break
                has_begun = True
                request_page(reader)
            if not running:
                return
            done, _ = wait(running, 1.0, FIRST_COMPLETED)
            for future in done:
                reader = running.pop(future)
                following: Future[Part | None] | None = None
                outcome: Outcome
                try:
                    outcome = future.result()
                    if outcome:
                        answered = clock()
                        budget.take(outcome.size)
                        if not (budget.is_spent and outcome.can_stop):
                            following = request_page(reader)
                        # Faster in this thread than in several.
                        outcome = reader.build(outcome)
                except ApiError as error:
                    outcome = error
                    if following:
                        del running[following]
                yield reader, outcome
            if clock() - answered > SECONDS_OF_SILENCE:
                for reader in running.values():
                    yield reader, _silent(reader)
                running.clear()
    finally:
        stopped.set()
        pool.shutdown(wait=False, cancel_futures=True)


def _silent(reader: ListReader) -> ApiError:
    return ApiError(
        f"{reader.title}: the server sent no complete page for"
        f" {SECONDS_OF_SILENCE / 60:.0f} minutes. Data loaded so far is kept. Try again"
        " later."
    )
