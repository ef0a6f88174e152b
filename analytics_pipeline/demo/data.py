"""The data of the demo server: how it grows, the same for the same seed and time."""

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any

from analytics_pipeline.demo.rows import (
    DETAIL,
    ENTRIES,
    FLAGS,
    ISSUE,
    PROJECT,
    RELEASE,
    SHAPES,
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


def seconds(text: str) -> float:
    """Unix time of an ISO date, which is in UTC when it names no zone."""
    time = datetime.fromisoformat(text)
    return time.replace(tzinfo=time.tzinfo or UTC).timestamp()


def rank(name: str) -> Callable[[Row], Any]:
    """The sort key of a list ordered by this field: newest first, slugs from a to z."""
    if name == "slug":
        return itemgetter(name)
    return lambda row: -seconds(row[name])


@dataclass
class Past:
    """What an issue went through before the 90 days that Sentry's list covers."""

    count: int
    users: int
    first_seen: str  # when the issue's first event of the 90 days was


class DemoData:
    """All rows of one organization; they grow as time passes.

    `now` is the time of the newest row; `projects` maps slugs to project rows,
    `renamed` old slugs to those of today. `foreign_projects` are the project rows of
    other organizations. What `retention` and `member_of` mean, `DemoServer` says.
    """

    def __init__(
        self,
        api: str,
        organization: str,
        seed: int,
        now: datetime,
        retention: timedelta | None = None,
        member_of: Collection[str] | None = None,
    ) -> None:
        self.now = now
        self.retention = retention
        self.member_of = member_of
        self.projects: dict[str, Row] = {}
        self.renamed: dict[str, str] = {}
        self.foreign_projects: list[Row] = []
        self.past: dict[str, Past] = {}  # by issue; most have none
        self._organization = organization
        self._shape = SHAPES[api]
        self._random = random.Random(seed)
        self._serial = itertools.count(1)
        self._rows: dict[tuple[str, str], list[Row]] = defaultdict(list)
        self._releases: dict[str, str] = {}  # project → its newest version
        self._entries: dict[str, Row] = {}  # issue → the stack trace of all its events
        self._users: dict[str, set[int]] = defaultdict(set)  # issue → whom it hit

    def order(self, table: str) -> str:
        """The field by which the table's list is sorted."""
        return self._shape.order[table]

    def rows(self, table: str, project: str | None = None) -> list[Row]:
        """The live rows of a table in the order in which the server lists them."""
        if project and table == "events":  # too many to sort for every answer
            return self._rows[table, project]
        slugs = [project] if project else self.projects
        rows = itertools.chain(*(self._rows[table, slug] for slug in slugs))
        return sorted(rows, key=rank(self.order(table)))

    def held(self, table: str, project: str) -> list[Row]:
        """The list itself, to add to it or take from it."""
        return self._rows[table, project]

    def sort_events(self) -> None:
        """Put the events in order again, after dates of some were changed."""
        for slug in self.projects:
            self._rows["events", slug].sort(key=rank(self.order("events")))

    def add_project(self, slug: str, created: datetime) -> None:
        """Add an empty project."""
        number = len(self.projects) + 1
        project = self._project(slug, number, self._organization, created)
        detail = project | fill(
            DETAIL,
            security_token=f"demo-security-token-{slug}",
            sentry_token=f"demo-sentry-token-{slug}",
            symbol_sources=_SYMBOL_SOURCES,
        )
        self.projects[slug] = project
        self._keep("projects", slug, project)
        self._keep("project_detail", slug, detail)

    def add_foreign_projects(
        self, organizations: Mapping[str, Sequence[str]], created: datetime
    ) -> None:
        """Add the projects of other organizations: organization → slugs."""
        pairs = [
            (name, slug) for name, slugs in organizations.items() for slug in slugs
        ]
        self.foreign_projects += [
            self._shown("projects", self._project(slug, number, organization, created))
            for number, (organization, slug) in enumerate(pairs, start=9001)
        ]

    def _project(
        self, slug: str, number: int, organization: str, created: datetime
    ) -> Row:
        language, platform = _PLATFORMS[(number - 1) % len(_PLATFORMS)]
        return dict.fromkeys(FLAGS, False) | fill(
            PROJECT,
            id=str(number),
            slug=slug,
            name=slug.title(),
            platform=platform,
            language=language,
            organization=organization,
            created=self._stamp(created),
        )

    def rename(self, old: str, new: str) -> None:
        """Give a project another slug, in all rows that name it."""
        self.projects = {
            new if slug == old else slug: row for slug, row in self.projects.items()
        }
        for table in self._shape.order:
            self._rows[table, new] = self._rows.pop((table, old), [])
        if old in self._releases:
            self._releases[new] = self._releases.pop(old)
        named = [
            self.projects[new],
            *self._rows["projects", new],
            *self._rows["project_detail", new],
            *(issue["project"] for issue in self._rows["issues", new]),
            *(row for each in self._rows["releases", new] for row in each["projects"]),
        ]
        for row in named:
            row["slug"] = new if row["slug"] == old else row["slug"]
        self.renamed = {
            slug: new if target == old else target
            for slug, target in (self.renamed | {old: new}).items()
            if slug != new
        }

    def age(self, issue: Row, first_seen: str, count: int, users: int) -> None:
        """Add to the totals of an issue what happened before the 90 days."""
        past = self.past.setdefault(issue["id"], Past(0, 0, issue["firstSeen"]))
        past.count += count
        past.users += users
        known = self._users[issue["id"]]
        known.update(range(-len(known) - users, -len(known)))  # not those of events
        issue["count"] = str(int(issue["count"]) + count)
        issue["userCount"] += users
        issue["firstSeen"] = first_seen

    def settle(
        self, slugs: Sequence[str], *, events: int, issues: int, releases: int = 0
    ) -> None:
        """Give the projects a past: issues and releases of 60 days, events of 30."""
        start = self.now - timedelta(days=60)
        events_from = self.now - timedelta(days=30)
        self._advance(slugs, start, self.now, events, issues, releases, events_from)

    def grow(self, seconds: float, events: int, issues: int, releases: int) -> None:
        """Let so many seconds pass, and add rows that are newer than all present."""
        start = self.now + timedelta(seconds=1)  # some dates are in whole seconds
        end = max(start, self.now + timedelta(seconds=seconds))
        slugs = list(self.projects)
        self._advance(slugs, start, end, events, issues, releases)

    def _advance(
        self,
        slugs: Sequence[str],
        start: datetime,
        end: datetime,
        events: int,
        issues: int,
        releases: int,
        events_from: datetime | None = None,
    ) -> None:
        """Add so many rows in all from `start` to `end`, most to the first project.

        An event belongs to an issue that is there by then, and changes its count.
        """
        share = [slug for n in range(len(slugs), 0, -1) for slug in slugs[:n]]
        times = {
            self._add_release: self._evenly(releases, start, end),
            self._add_issue: self._evenly(issues, start, end),
            self._add_event: self._daily(events, events_from or start, end),
        }
        todo = [
            (time, slug, add)
            for add, moments in times.items()
            for time, slug in zip(moments, itertools.cycle(share))
        ]
        self.now = end
        for time, slug, add in sorted(todo, key=itemgetter(0)):
            add(slug, time)
        self.sort_events()

    def _evenly(self, count: int, start: datetime, end: datetime) -> list[datetime]:
        return [start + (end - start) * n / count for n in range(count)]

    def _daily(self, count: int, start: datetime, end: datetime) -> list[datetime]:
        """Random times, busiest at 16:00 UTC and rarest at 4:00; the last is `end`."""
        times = [end][:count]
        while len(times) < count:
            time = start + (end - start) * self._random.random()
            busy = 0.55 - 0.45 * math.cos((time.hour - 4) * math.pi / 12)
            if self._random.random() < busy:
                times.append(time)
        return sorted(times)

    def _stamp(self, time: datetime, timespec: str | None = None) -> str:
        text = time.isoformat(timespec=timespec or self._shape.other_time)
        return text.replace("+00:00", "Z")

    def _hex(self, digits: int) -> str:
        return f"{self._random.getrandbits(4 * digits):0{digits}x}"

    def _keep(self, table: str, slug: str, row: Row) -> None:
        self._rows[table, slug].append(self._shown(table, row))

    def _shown(self, table: str, row: Row) -> Row:
        """The fields of a row that this server has."""
        names = self._shape.fields.get(table)
        return {name: row[name] for name in names} if names else row

    def _reference(self, slug: str) -> Row:
        """The project as issues and releases mention it."""
        names = ("id", "slug", "name", "platform")
        return {name: self.projects[slug][name] for name in names}

    def _add_release(self, slug: str, time: datetime) -> None:
        n = len(self._rows["releases", slug])
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
        self._keep("releases", slug, row | {"projects": [self._reference(slug)]})

    def _add_issue(self, slug: str, time: datetime) -> None:
        n = len(self._rows["issues", slug])
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
        self._keep("issues", slug, row | {"project": self._reference(slug)})

    def _add_event(self, slug: str, time: datetime) -> None:
        random = self._random
        issues = self._rows["issues", slug] or [_NO_ISSUE]
        issue = issues[int(len(issues) * random.random() ** 2)]
        user = random.randrange(1000, 1400)
        luck = random.random()
        lag = timedelta(seconds=luck * self._shape.lag)
        received = time if lag else time + timedelta(seconds=1)
        if luck > 0.9:  # the phones that were offline
            delay = timedelta(seconds=(luck - 0.9) * 10 * self._shape.delay)
            received = max(received, min(time + delay, self.now))
        row = event(
            issue,
            user,
            self._releases.get(slug),
            trace=self._hex(32),
            id=f"{self._hex(24)}{next(self._serial):08x}",
            projectID=self._shape.project_id(self.projects[slug]["id"]),
            platform=self.projects[slug]["platforms"][0],
            dateCreated=self._stamp(time - lag, self._shape.event_time),
            dateReceived=self._stamp(received, self._shape.event_time),
        )
        if issue["id"] not in self._entries:
            self._entries[issue["id"]] = fill(ENTRIES, **issue["metadata"])
        row |= self._entries[issue["id"]]
        self._keep("events", slug, row)
        if issue is not _NO_ISSUE:
            self._users[issue["id"]].add(user)
            issue["count"] = str(int(issue["count"]) + 1)
            issue["userCount"] = len(self._users[issue["id"]])
            issue["lastSeen"] = self._stamp(time)
