"""Rows that are cheap to make: rendered texts, into which ids and times are put."""

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from operator import itemgetter
from typing import Any

import orjson

PAGE = 100
SPAN = 30 * 86_400
"""Seconds over which the rows of a list are spread evenly."""
VARIANTS = 20
"""Number of rows after which texts repeat."""
_SCATTER = 0x9E3779B97F4A7C15F39CC0605CEDC835  # odd: no two products are equal
Pick = Callable[[tuple[bytes, bytes, bytes]], Sequence[bytes]]
_ID, _TIME, _NUMBER = _SLOTS = "{ID}", "{TIME}", "{NUMBER}"
_CLOCK = [
    b"T%02d:%02d:%02d" % (hour, minute, second)
    for hour in range(24)
    for minute in range(60)
    for second in range(60)
]


@dataclass
class Rows:
    """One list, newest first; row `count - 1` is the newest."""

    kind: str
    """`events`, `full` (events with stack traces) or `issues`."""
    project: int
    count: int
    newest: int
    """Unix time of the newest of the rows that were there from the beginning."""

    def __post_init__(self) -> None:
        self.first = self.count
        self.step = SPAN / max(self.first, 1)
        self.fraction = b".250000Z" if self.kind == "issues" else b"Z"

    def time(self, row: int) -> int:
        """Return the time of a row; rows added later are a second apart."""
        behind = self.first - 1 - row
        return self.newest - (math.ceil(behind * self.step) if behind > 0 else behind)

    def between(self, start: str | None, end: str | None) -> tuple[int, int]:
        """Return the range of rows from `start` (inclusive) to `end` (exclusive)."""
        low = self._first_since(start) if start else 0
        return low, max(low, self._first_since(end) if end else self.count)

    def _first_since(self, text: str) -> int:
        time = datetime.fromisoformat(text)
        moment = (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
        ahead = math.ceil(moment) - self.newest
        if ahead > 0:
            return min(self.first - 1 + ahead, self.count)
        return max(self.first - 1 - math.floor(-ahead / self.step), 0)

    def page(self, low: int, high: int, offset: int) -> bytes:
        """Return the page at `offset` of rows `low` to `high`, without brackets."""
        last = high - offset
        rows = range(last - 1, max(low, last - PAGE) - 1, -1)
        if not rows:
            return b""
        texts, pick = _template(self.kind, self.project, rows[0] % VARIANTS, len(rows))
        parts = list(texts)
        parts[1::2] = [value for row in rows for value in pick(self._values(row))]
        return b"".join(parts)

    def _values(self, row: int) -> tuple[bytes, bytes, bytes]:
        """Return the values for the slots."""
        number = row + 1 + (self.project << 40)
        day, second = divmod(self.time(row), 86_400)
        return (
            b"%032x" % (number * _SCATTER & (1 << 128) - 1),
            _date(day) + _CLOCK[second] + self.fraction,
            b"%d" % row,
        )


@lru_cache
def _date(day: int) -> bytes:
    return datetime.fromtimestamp(day * 86_400, UTC).strftime("%Y-%m-%d").encode()


@lru_cache(maxsize=512)
def _template(
    kind: str, project: int, first: int, count: int
) -> tuple[Sequence[bytes], Pick]:
    """Return the texts between the slots of rows, and a function to pick values."""
    make = _issue if kind == "issues" else _event
    rows = [
        orjson.dumps(make((first - place) % VARIANTS, project, kind == "full")).decode()
        for place in range(count)
    ]
    split = re.split("(" + "|".join(_SLOTS) + ")", ",".join(rows))
    slots = [_SLOTS.index(slot) for slot in split[1::2]]
    return [text.encode() for text in split], itemgetter(*slots[: len(slots) // count])


def _event(number: int, project: int, full: bool) -> dict[str, Any]:
    module, function = f"shop/views/page{number % 16}.py", f"handle_{number % 23}"
    kind = ("ValueError", "KeyError", "TypeError", "TimeoutError")[number % 4]
    value = f"order {_NUMBER} cannot be processed in step {number}"
    tags = {
        "level": "error",
        "environment": ("production", "staging")[number % 2],
        "browser": f"Firefox {120 + number % 9}",
        "server_name": f"web-{number % 7}",
    }
    row: dict[str, Any] = {
        "id": _ID,
        "event.type": "error",
        "groupID": str(4000 + number),
        "eventID": _ID,
        "projectID": str(project),
        "message": value,
        "title": f"{kind}: {value}",
        "location": module,
        "culprit": f"{module} in {function}",
        "user": {"id": _NUMBER, "ip_address": f"192.0.2.{number}"},
        "tags": [{"key": key, "value": tag} for key, tag in tags.items()],
        "platform": "python",
        "dateCreated": _TIME,
        "crashFile": None,
        "metadata": {"type": kind, "filename": module},
    }
    if full:
        row |= _body(number, kind, value)
    return row


def _body(number: int, kind: str, value: str) -> dict[str, Any]:
    frames = [
        {
            "filename": f"shop/layer{depth}.py",
            "absPath": f"/srv/shop/layer{depth}.py",
            "module": f"shop.layer{depth}",
            "function": f"call_{depth}",
            "lineNo": 10 * depth + number,
            "inApp": depth > 4,
            "context": [
                [line, f"    result = self.step({depth}, line={line}, retries=2)"]
                for line in range(10 * depth, 10 * depth + 5)
            ],
            "vars": {"self": f"<Layer {depth}>", "order": f"<Order {_NUMBER}>"},
        }
        for depth in range(7)
    ]
    exception = {"type": kind, "value": value, "stacktrace": {"frames": frames}}
    return {
        "dateReceived": _TIME,
        "type": "error",
        "size": 5000 + number,
        "dist": None,
        "entries": [
            {"type": "exception", "data": {"values": [exception]}},
            {
                "type": "request",
                "data": {"method": "POST", "url": "https://shop.example.test/cart"},
            },
        ],
        "contexts": {
            "browser": {"name": "Firefox", "version": "130.0", "type": "browser"},
            "trace": {"trace_id": _ID, "op": "http.server", "type": "trace"},
        },
        "sdk": {"name": "sentry.python", "version": "2.40.0"},
        "packages": {"requests": "2.32.0", "urllib3": "2.6.0"},
        "fingerprints": [_ID],
        "errors": [],
    }


def _issue(number: int, project: int, full: bool) -> dict[str, Any]:
    nothing = dict.fromkeys(
        ("shareId", "logger", "assignedTo", "subscriptionDetails", "priorityLockedAt")
    )
    flags = dict.fromkeys(
        ("isPublic", "isBookmarked", "isSubscribed", "hasSeen"), False
    )
    return {
        "id": _ID,
        "shortId": f"SHOP-{_NUMBER}",
        "title": f"ValueError: order {_NUMBER} cannot be processed",
        "culprit": f"shop/views/page{number % 16}.py in handle",
        "permalink": f"https://errors.example.test/organizations/acme/issues/{_ID}/",
        "level": "error",
        "status": ("unresolved", "resolved", "ignored")[number % 3],
        "substatus": "ongoing",
        "platform": "python",
        "project": {"id": str(project), "slug": f"p{project}", "platform": "python"},
        "type": "error",
        "issueType": "error",
        "issueCategory": "error",
        "metadata": {"type": "ValueError", "filename": f"page{number % 16}.py"},
        "numComments": number % 3,
        "annotations": [],
        "statusDetails": {},
        "isUnhandled": number % 2 == 0,
        "count": str(1 + number * 7),
        "userCount": number,
        "firstSeen": _TIME,
        "lastSeen": _TIME,
        "priority": "medium",
        "stats": {"24h": [[1_700_000_000 + 3600 * hour, hour] for hour in range(24)]},
        **nothing,
        **flags,
    }
