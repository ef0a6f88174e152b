"""The queries of examples/history.sql, run on a known month."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time, timedelta
from statistics import median
from typing import Any, NamedTuple

import dlt
import pytest

from analytics_pipeline import runner
from analytics_pipeline.demo.rows import ISSUE, RELEASE, Row, fill
from tests.conftest import Warehouse, make_source, small_server
from tests.examples import FOLDER
from tests.fake_server import FakeServer
from tests.postgres import Postgres

QUERIES = (FOLDER / "history.sql").read_text("utf-8")
OPEN, MEDIAN, RELEASES, PEOPLE = QUERIES.rstrip().removesuffix(";").split(";\n")

PROJECTS = {"F": "frontend", "B": "backend", "M": "mobile"}
MONTH = """
 1  open F6 B4
 1  resolve F6 B4 by ada       -- before the first load, so the time is unknown
 2  open F1 F2 F3 F4 F5 F7 B1 B2 B3
 2  assign F1 to ada
 2  open M1 M2                 -- of a project that is loaded as of day 15
 2  hide M1
 2  hide M2
 3  resolve M1 by ada          -- before the first load of its project
 3  release 1.0 of frontend
 3  resolve F1
 3  resolve F2 by bo in 1.0
 4  open B5 F8
 4  resolve B5 by cy           -- on the day on which it appeared
 5  ignore F3
 5  resolve B1 B2 by cy
 6  return F1                  -- after 1.0
 7  return B1                  -- before any release of the backend
 7  open F9 F10
 8  assign F2 to cy            -- as it is resolved, this resolves nothing
 9  resolve F1 by ada
 9  release 0.9 of backend
10  open B6 B7
10  merge F10 into F9
11  return F2                  -- after 1.0
11  delete F6
12  release 1.1 of frontend
12  return F1                  -- after 1.1, of the same day
12  resolve F3 by ada          -- was ignored
12  hide B5                    -- is missing in the answers of one sweep
13  show B5
13  open F11 F12
13  ignore F1
14  resolve F1 by bo in 1.1    -- was ignored since it was reopened
15  ignore B2                  -- was resolved
15  show M1
15  show M2
16  return B2                  -- was ignored, so this is no regression
16  resolve B1
17  resolve B2                 -- from its reopening of yesterday
17  resolve M2
17  release 2.0 of frontend backend
18  return B2 F1               -- after 2.0
18  return B4                  -- after 2.0; was resolved at the first load
19  resolve F9 by ada
20  open B8 B9
20  resolve F7 F8 by dee in 2.0
21  resolve B4 by cy
21  delete B3
22  reopen F9                  -- by hand, without an event; after 2.0
23  release 2.1 of frontend
23  merge F12 into F11
24  resolve F11 by dee
25  delete F11
25  resolve B6 B7
26  resolve F9 F1 by ada
27  return F7                  -- after 2.1
28  open F13
28  assign B8 to bo
29  resolve B8 F4
29  assign F13 to dee
30  return B8                  -- after 2.0, the backend's newest
30  open B10
30  resolve B10 by bo
"""
DAYS = 30
MIDNIGHT = datetime.combine(datetime.now(UTC), time(), UTC)


def at(day: int, hour: int) -> datetime:
    """Return a time of the month, whose last day was yesterday."""
    return MIDNIGHT + timedelta(days=day - DAYS - 1, hours=hour)


def loaded(day: int) -> datetime:
    return at(day, 18)


@dataclass(frozen=True)
class Issue:
    """An issue at the end of a day."""

    project: str
    first_seen: datetime
    last_seen: datetime
    count: int = 1
    status: str = "unresolved"
    assigned_to: str | None = None
    release: str | None = None
    is_hidden: bool = False


@dataclass(frozen=True)
class Release:
    version: str
    projects: list[str]
    created: datetime


class Day(NamedTuple):
    number: int
    issues: dict[str, Issue]
    releases: list[Release]


def month() -> Iterator[Day]:
    """Yield the days, each with its state at the end."""
    issues: dict[str, Issue] = {}
    releases: list[Release] = []
    lines = [line.partition("--")[0].split() for line in MONTH.strip().splitlines()]
    for number in range(1, DAYS + 1):
        for day, *words in lines:
            if int(day) == number:
                happen(words, number, issues, releases)
        shown = {name: each for name, each in issues.items() if not each.is_hidden}
        yield Day(number, shown, list(releases))


def happen(
    words: list[str], day: int, issues: dict[str, Issue], releases: list[Release]
) -> None:
    """Apply a line of the month to the issues and releases."""

    def change(names: list[str], **changes: Any) -> None:
        for name in names:
            issues[name] = replace(issues[name], **changes)

    noon = at(day, 12)
    match words:
        case ["release", version, "of", *slugs]:
            releases.append(Release(version, slugs, at(day, 8)))
        case ["open", *names]:
            for hour, name in enumerate(names):
                seen = at(day, hour)
                issues[name] = Issue(PROJECTS[name[0]], seen, seen)
        case ["resolve", *names, "by", who, "in", version]:
            change(names, status="resolved", assigned_to=who, release=version)
        case ["resolve", *names, "by", who]:
            change(names, status="resolved", assigned_to=who)
        case ["resolve", *names]:
            change(names, status="resolved")
        case ["return", *names]:
            change(names, status="unresolved", release=None, last_seen=noon)
        case ["reopen", *names]:
            change(names, status="unresolved", release=None)
        case ["ignore", *names]:
            change(names, status="ignored", release=None)
        case ["assign", name, "to", who]:
            change([name], assigned_to=who)
        case ["hide" | "show" as verb, name]:
            change([name], is_hidden=verb == "hide")
        case ["delete", name]:
            del issues[name]
        case ["merge", name, "into", other]:
            count = issues.pop(name).count + issues[other].count
            change([other], count=count)
        case _:
            raise ValueError(words)


def show(server: FakeServer, day: Day) -> None:
    """Set the issues and releases of the server to those of a day."""
    projects = {row["slug"]: row for row in server.rows("projects")}

    def reference(slug: str) -> Row:
        return {name: projects[slug][name] for name in ("id", "slug", "name")}

    for row in server.rows("issues"):
        server.remove("issues", row["project"]["slug"], row)
    for name, issue in day.issues.items():
        row = fill(
            ISSUE,
            **dict.fromkeys(["type", "value", "function", "filename"], ""),
            **dict.fromkeys(["culprit", "permalink", "platform"], ""),
            id=name,
            short=name,
            title=f"Issue {name}",
            level="error",
            status=issue.status,
            time=issue.last_seen.isoformat(),
            hour=0,
        )
        who = issue.assigned_to
        row |= {
            "project": reference(issue.project),
            "count": str(issue.count),
            "firstSeen": issue.first_seen.isoformat(),
            "assignedTo": {"type": "user", "id": "7", "email": who} if who else None,
            "statusDetails": {"inRelease": issue.release} if issue.release else {},
        }
        server.insert("issues", issue.project, row)
    for release in day.releases[len(server.rows("releases")) :]:
        row = fill(
            RELEASE,
            **dict.fromkeys(["ref", "commit", "released"], None),
            **dict.fromkeys(["commits", "deploys"], 0),
            id=f"id of {release.version}",
            version=release.version,
            short=release.version,
            slug=release.projects[0],
            status="open",
            created=release.created.isoformat(),
        )
        row |= {"projects": [reference(slug) for slug in release.projects]}
        server.insert("releases", release.projects[0], row)


Ask = Callable[[str], list[tuple[Any, ...]]]


class Store:
    """A warehouse for the days of the month."""

    def __init__(self, destination: Any, ask: Ask, server: FakeServer) -> None:
        self.ask = ask
        self._pipeline = runner.make_pipeline(destination)
        self._server = server

    def load(self, day: Day, *tables: str) -> None:
        """Load a day at its end; a time that the load has written becomes that of the day."""
        show(self._server, day)
        source = make_source(
            self._server, [*PROJECTS.values()], history=True, sweep="now"
        )
        runner.load(self._pipeline, source, ["issues", "issue_history", *tables])
        for column in ("valid_from", "valid_to"):
            self.ask(
                f"update analytics.issue_history set {column} = '{loaded(day.number)}'"
                f" where {column} >= '{MIDNIGHT}'"
            )

    def write(self, days: list[Day]) -> None:
        """Write the rows of daily loads, after one load of the last day."""
        ids = {
            slug: id for id, slug in self.ask("select id, slug from analytics.projects")
        }
        known = {name: issue for day in days for name, issue in day.issues.items()}
        sql = ["delete from analytics.issues", "delete from analytics.issue_history"]
        for name, issue in known.items():
            first = (name, ids[issue.project], f"{issue.first_seen}")
            sql.append(
                "insert into analytics.issues (id, project_id, first_seen)"
                f" values {literals(first)}"
            )
        for name, status, who, release, start, end in states(days):
            state = (ids[known[name].project], name, status, who, release)
            row = (*state, f"{start}", f"{end}" if end else None, f"{start}")
            sql.append(
                "insert into analytics.issue_history (project_id, id, status,"
                " assigned_to, release, valid_from, valid_to, version)"
                f" values {literals(row)}"
            )
        self.ask("; ".join(sql))

    def history(self) -> list[tuple[Any, ...]]:
        """Issue, status, assigned to, release, from, to."""
        return self.ask(
            "select id, status, assigned_to, release, valid_from, valid_to"
            " from analytics.issue_history"
        )


def literals(row: tuple[str | None, ...]) -> str:
    values = ["NULL" if value is None else f"'{value}'" for value in row]
    return f"({', '.join(values)})"


@pytest.fixture
def server() -> Iterator[FakeServer]:
    names = [*PROJECTS.values()]
    with small_server(projects=names, events=0, issues=0, releases=0) as server:
        yield server


@pytest.fixture
def duck(server: FakeServer, warehouse: Warehouse) -> Store:
    return Store(
        "duckdb", lambda sql: warehouse.rows("set timezone = 'UTC'; " + sql), server
    )


@pytest.fixture(params=["duckdb", "postgres"])
def store(request: pytest.FixtureRequest, server: FakeServer) -> Store:
    if request.param == "duckdb":
        duck: Store = request.getfixturevalue("duck")
        return duck
    postgres: Postgres = request.getfixturevalue("postgres")
    return Store(
        dlt.destinations.postgres(postgres.uri),
        lambda sql: postgres.query("set timezone = 'UTC'; " + sql),
        server,
    )


class Change(NamedTuple):
    """A change of the status of an issue since it was last seen."""

    time: datetime
    name: str
    before: Issue | None
    after: Issue


def changes(days: list[Day]) -> Iterator[Change]:
    known: dict[str, Issue] = {}
    for day in days:
        for name, issue in day.issues.items():
            before = known.get(name)
            if before is None or before.status != issue.status:
                yield Change(loaded(day.number), name, before, issue)
        known |= day.issues


def is_reopening(change: Change) -> bool:
    return change.before is not None and change.after.status == "unresolved"


def is_regression(change: Change) -> bool:
    was_resolved = change.before is not None and change.before.status == "resolved"
    return was_resolved and is_reopening(change)


def resolutions(days: list[Day]) -> Iterator[Change]:
    """Yield resolutions, except of issues already resolved at the first load."""
    began: dict[str, datetime] = {}
    for change in changes(days):
        start = began.setdefault(change.after.project, change.time)
        is_known = change.before is not None or change.after.first_seen >= start
        if is_known and change.after.status == "resolved":
            yield change


def open_issues(days: list[Day]) -> list[tuple[Any, ...]]:
    counts = [
        sum(issue.status == "unresolved" for issue in day.issues.values())
        for day in days
    ]
    until_today = (datetime.now(UTC) - at(1, 0)).days + 1
    counts += counts[-1:] * (until_today - DAYS)
    return [(at(number, 0).date(), count) for number, count in enumerate(counts, 1)]


def median_days(days: list[Day]) -> list[tuple[Any, ...]]:
    reopened: dict[str, list[datetime]] = {}
    spans = defaultdict(list)
    for change in filter(is_reopening, changes(days)):
        reopened.setdefault(change.name, []).append(change.time)
    for change in resolutions(days):
        starts = [time for time in reopened.get(change.name, []) if time < change.time]
        begin = max(starts, default=change.after.first_seen)
        spans[change.after.project].append((change.time - begin) / timedelta(days=1))
    return [(slug, len(each), median(each)) for slug, each in sorted(spans.items())]


def regressed_after(days: list[Day]) -> list[tuple[Any, ...]]:
    counts = Counter[str]()
    for change in filter(is_regression, changes(days)):
        earlier = [
            release
            for release in days[-1].releases
            if change.after.project in release.projects
            and release.created < change.time
        ]
        if earlier:
            counts[max(earlier, key=lambda release: release.created).version] += 1
    return sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))


def resolved_by(days: list[Day]) -> list[tuple[Any, ...]]:
    who = Counter(each.after.assigned_to for each in resolutions(days))
    return sorted(who.items(), key=lambda pair: (-pair[1], pair[0] or "~"))


def states(days: list[Day]) -> list[tuple[Any, ...]]:
    """Return the expected rows: issue, status, assigned to, release, from, to."""
    found: list[tuple[Any, ...]] = []
    current: dict[str, tuple[Any, ...]] = {}
    last = days[-1].number
    for day in [*days, Day(last + 1, {}, [])]:
        now = {
            name: (issue.status, issue.assigned_to, issue.release)
            for name, issue in day.issues.items()
        }
        for name, (start, *state) in [*current.items()]:
            if now.get(name) != tuple(state):
                end = loaded(day.number) if day.number <= last else None
                found.append((name, *state, start, end))
                del current[name]
        for name, each in now.items():
            current.setdefault(name, (loaded(day.number), *each))
    return found


def test_daily_loads_record_the_states_of_a_month(duck: Store) -> None:
    days = [*month()][:6]
    for day in days:
        duck.load(day)
    assert sorted(duck.history(), key=repr) == sorted(states(days), key=repr)


def test_the_documented_queries_return_the_right_answers(store: Store) -> None:
    days = [*month()]
    store.load(days[-1], "projects", "releases")
    store.write(days)
    ask = store.ask
    assert len(ask("select id from analytics.issues")) > len(days[-1].issues)
    assert ask(OPEN) == open_issues(days)
    medians = [(slug, count, round(value, 9)) for slug, count, value in ask(MEDIAN)]
    assert medians == [(*row[:2], round(row[2], 9)) for row in median_days(days)]
    assert ask(RELEASES) == regressed_after(days)
    assert ask(PEOPLE) == resolved_by(days)
