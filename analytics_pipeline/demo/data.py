"""The rows of the demo server, which are the same for the same seed and time."""

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Sequence
from datetime import datetime, timedelta
from operator import itemgetter

from analytics_pipeline.demo.apis import V1
from analytics_pipeline.demo.rows import (
    DETAIL,
    ENTRIES,
    ISSUE,
    PROJECT,
    RELEASE,
    Row,
    event,
    fill,
)

_ERRORS = (  # type, value, function, file
    ("TypeError", "cart.total is not a function", "renderCart", "src/cart.tsx"),
    ("KeyError", "'customer_id'", "load_customer", "shop/customers.py"),
    ("TimeoutError", "payment gateway timed out", "charge", "shop/payment.py"),
    ("RangeError", "Invalid time value", "formatDate", "src/format.ts"),
    ("ValueError", "not a valid coupon code", "apply_coupon", "shop/coupons.py"),
    ("ConnectionError", "stock service unreachable", "reserve", "shop/stock.py"),
    ("PermissionError", "order belongs to another user", "view_order", "shop/views.py"),
)
_PLATFORMS = (("javascript", "javascript-react"), ("python", "python-django"))
_SYMBOL_SOURCES = (
    '[{"id":"x","type":"s3","secret_key":"demo-secret-key",'
    '"access_key":"demo-access-key"}]'
)
_NO_ISSUE: Row = {
    "id": None,
    "title": "Error: unknown",
    "culprit": "",
    "level": "error",
    "metadata": {"type": "Error", "value": "unknown", "filename": "", "function": ""},
}


class DemoData:
    """All rows of one organization.

    Attributes:
        now: time of the newest row.
        projects: slug → project.
        lists: (table, slug) → rows, oldest first.
    """

    def __init__(self, api: V1, organization: str, seed: int, now: datetime) -> None:
        self.now = now
        self.projects: dict[str, Row] = {}
        self.lists: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self._api = api
        self._organization = organization
        self._random = random.Random(seed)
        self._serial = itertools.count(1)
        self._releases: dict[str, str] = {}  # project → its newest version
        self._entries: dict[str, Row] = {}  # issue → the stack trace of all its events
        self._users: dict[str, set[int]] = defaultdict(set)  # issue → affected users

    def rows(self, table: str, project: str | None = None) -> list[Row]:
        """Return the rows of one project or all, in the order of the server's list."""
        slugs = [project] if project else self.projects
        rows = itertools.chain(*(self.lists[table, slug] for slug in slugs))
        return self._api.ordered(table, list(rows))

    def add_project(self, slug: str, created: datetime) -> None:
        """Add an empty project."""
        number = len(self.projects)
        language, platform = _PLATFORMS[number % len(_PLATFORMS)]
        project = fill(
            PROJECT,
            id=str(number + 1),
            slug=slug,
            name=slug.title(),
            platform=platform,
            language=language,
            organization=self._organization,
            created=self._stamp(created),
        )
        detail = project | fill(
            DETAIL,
            security_token=f"demo-security-token-{slug}",
            sentry_token=f"demo-sentry-token-{slug}",
            symbol_sources=_SYMBOL_SOURCES,
        )
        self.projects[slug] = project
        self._add("projects", slug, project)
        self._add("project_detail", slug, detail)

    def add_past(
        self, slugs: Sequence[str], *, events: int, issues: int, releases: int
    ) -> None:
        """Add issues and releases of the last 60 days, and events of the last 30."""
        start = self.now - timedelta(days=60)
        events_from = self.now - timedelta(days=30)
        self._advance(slugs, start, self.now, events, issues, releases, events_from)

    def grow(self, seconds: float, events: int, issues: int, releases: int) -> None:
        """Let some seconds pass, and add rows that are newer than all others."""
        start = self.now + timedelta(seconds=1)  # some dates are in whole seconds
        end = max(start, self.now + timedelta(seconds=seconds))
        slugs = list(self.projects)
        self._advance(slugs, start, end, events, issues, releases, start)

    def _advance(
        self,
        slugs: Sequence[str],
        start: datetime,
        end: datetime,
        events: int,
        issues: int,
        releases: int,
        events_from: datetime,
    ) -> None:
        """Add rows in chronological order, most of them to the first project.

        An event belongs to an issue that exists at that time, and updates it.
        """
        share = [slug for n in range(len(slugs), 0, -1) for slug in slugs[:n]]
        times = {
            self._add_release: _evenly(releases, start, end),
            self._add_issue: _evenly(issues, start, end),
            self._add_event: self._daily(events, events_from, end),
        }
        todo = [
            (time, slug, add)
            for add, moments in times.items()
            for time, slug in zip(moments, itertools.cycle(share))
        ]
        self.now = end
        for time, slug, add in sorted(todo, key=itemgetter(0)):
            add(slug, time)

    def _daily(self, count: int, start: datetime, end: datetime) -> list[datetime]:
        """Return random times, most around 16:00 UTC, fewest around 4:00, and `end`."""
        times = [end][:count]
        while len(times) < count:
            time = start + (end - start) * self._random.random()
            busy = 0.55 - 0.45 * math.cos((time.hour - 4) * math.pi / 12)
            if self._random.random() < busy:
                times.append(time)
        return sorted(times)

    def _stamp(self, time: datetime, timespec: str | None = None) -> str:
        text = time.isoformat(timespec=timespec or self._api.other_time)
        return text.replace("+00:00", "Z")

    def _hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"

    def _add(self, table: str, slug: str, row: Row) -> None:
        lacks = self._api.lacks.get(table, ())
        row = {name: value for name, value in row.items() if name not in lacks}
        self.lists[table, slug].append(row)

    def _reference(self, slug: str) -> Row:
        """Return the project as issues and releases show it."""
        names = ("id", "slug", "name", "platform")
        return {name: self.projects[slug][name] for name in names}

    def _add_release(self, slug: str, time: datetime) -> None:
        n = len(self.lists["releases", slug])
        short = f"1.{n // 3}.{n % 3}"
        row = fill(
            RELEASE,
            id=7000 + next(self._serial),
            version=f"{slug}@{short}",
            short=short,
            slug=slug,
            status="archived" if n % 7 == 3 else "open",
            ref=f"refs/heads/{slug}-{short}",
            created=self._stamp(time),
            released=None if n % 5 == 4 else self._stamp(time + timedelta(minutes=20)),
            commits=self._random.randrange(1, 30),
            commit=self._hex(40),
            deploys=n % 3,
        )
        self._releases[slug] = row["version"]
        self._add("releases", slug, row | {"projects": [self._reference(slug)]})

    def _add_issue(self, slug: str, time: datetime) -> None:
        n = len(self.lists["issues", slug])
        kind, value, function, file = _ERRORS[n % len(_ERRORS)]
        identity = str(4500000000 + next(self._serial))
        row = fill(
            ISSUE,
            id=identity,
            short=f"{slug.upper()}-{n + 1}",
            title=f"{kind}: {value} in step {n + 1}",
            type=kind,
            value=f"{value} in step {n + 1}",
            function=function,
            filename=file,
            culprit=f"{file} in {function}",
            permalink=f"https://{self._organization}.example.test/issues/{identity}/",
            level=("error", "error", "warning", "fatal", "info")[n % 5],
            status=("unresolved", "unresolved", "resolved", "ignored")[n % 4],
            platform=self.projects[slug]["platforms"][0],
            time=self._stamp(time),
            hour=int(time.timestamp()) // 3600 * 3600,
        )
        self._add("issues", slug, row | {"project": self._reference(slug)})

    def _add_event(self, slug: str, time: datetime) -> None:
        random, api = self._random, self._api
        issues = self.lists["issues", slug] or [_NO_ISSUE]
        issue = issues[int(len(issues) * random.random() ** 2)]
        user = random.randrange(1000, 1400)
        luck = random.random()
        lag = timedelta(seconds=luck * api.lag)
        received = time if lag else time + timedelta(seconds=1)
        if luck > 0.9:  # phones that were offline
            delay = timedelta(seconds=(luck - 0.9) * 10 * api.delay)
            received = max(received, min(time + delay, self.now))
        row = event(
            issue,
            user,
            self._releases.get(slug),
            trace=self._hex(32),
            id=f"{self._hex(24)}{next(self._serial):08x}",
            projectID=api.project_id(self.projects[slug]["id"]),
            platform=self.projects[slug]["platforms"][0],
            dateCreated=self._stamp(time - lag, api.event_time),
            dateReceived=self._stamp(received, api.event_time),
        )
        if issue["id"] not in self._entries:
            self._entries[issue["id"]] = fill(ENTRIES, **issue["metadata"])
        self._add("events", slug, row | self._entries[issue["id"]])
        if issue is not _NO_ISSUE:
            self._users[issue["id"]].add(user)
            issue["count"] = str(int(issue["count"]) + 1)
            issue["userCount"] = len(self._users[issue["id"]])
            issue["lastSeen"] = self._stamp(time)


def _evenly(count: int, start: datetime, end: datetime) -> list[datetime]:
    return [start + (end - start) * n / count for n in range(count)]
