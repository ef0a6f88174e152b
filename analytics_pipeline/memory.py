"""Which rows were loaded already: by the last run, or by this one a few pages ago."""

import base64
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any

from analytics_pipeline import jsontext

CAPACITY = 10_000
"""Rows remembered; 11 bytes each in dlt's state. Others are loaded again: once
in the table all the same, by the merge."""
SIZE = 8
SENT = 15_000
"""Keys of this run that are remembered, and at times as many again."""


class Memory:
    """Digests of whole rows: one that comes again unchanged need not be loaded."""

    def __init__(self, text: str) -> None:
        raw = base64.b64decode(text)
        self._known = {raw[i : i + SIZE] for i in range(0, len(raw), SIZE)}
        self._seen: dict[bytes, datetime] = {}

    def is_new(
        self, row: dict[str, Any], time: datetime | None, horizon: datetime
    ) -> bool:
        """Whether the last run did not load this row as it is.

        From `horizon` on the next run will see rows again: they are remembered.
        """
        again = time is None or time >= horizon
        if not again and not self._known:
            return True
        digest = blake2b(jsontext.dumps(row), digest_size=SIZE).digest()
        if again:
            if len(self._seen) >= 4 * CAPACITY:
                self._seen = dict(self._newest(CAPACITY))
            self._seen[digest] = time or datetime.max.replace(tzinfo=UTC)
        return digest not in self._known

    def text(self, since: datetime) -> str:
        """The digests of rows not older than `since`, for dlt's state."""
        kept = sorted(d for d, time in self._newest(CAPACITY) if time >= since)
        return base64.b64encode(b"".join(kept)).decode()

    def _newest(self, count: int) -> Iterator[tuple[bytes, datetime]]:
        newest = sorted(self._seen.items(), key=lambda item: item[1], reverse=True)
        yield from newest[:count]


class Sent:
    """Keys of the last rows: one that moves to a later page as new ones come, comes twice."""

    def __init__(self) -> None:
        self._keys = set[str]()
        self._older = set[str]()

    def __contains__(self, key: str) -> bool:
        return key in self._keys or key in self._older

    def add(self, keys: Iterable[str]) -> None:
        self._keys.update(keys)
        if len(self._keys) >= SENT:
            self._keys, self._older = set(), self._keys
