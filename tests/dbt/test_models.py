"""The models agree with counts made in Python, on DuckDB and PostgreSQL."""

import json
import os
import shutil
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import unquote, urlsplit

import dlt
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.loading.sql import Queries
from analytics_pipeline.report import facts, history
from analytics_pipeline.secrets import MASK
from analytics_pipeline.values import utc
from tests.conftest import ORGANIZATION, TOKEN, small_server
from tests.fake_server import FakeServer
from tests.postgres import Postgres

pytestmark = pytest.mark.dbt

Row = dict[str, Any]
DAY = timedelta(days=1)
MODELS = {
    "errors_daily",
    "users_affected",
    "noisy_issues",
    "release_health",
    "issues_open_daily",
    "issue_resolution",
}


USERS: list[Row | None] = [
    None,
    {"id": None, "email": "ada@example.test", "ip_address": "203.0.113.7"},
    {"id": "", "email": None, "ip_address": "203.0.113.7", "username": "ada"},
    {"username": "bo"},
    {"id": "***", "email": "cy@example.test"},
    {"id": None, "email": "***", "ip_address": "203.0.113.8"},
]
"""User ids of events; the last two are masked ones, which count as no user."""


@dataclass
class Project:
    """The dbt project and a loaded warehouse."""

    folder: Path
    pipeline: dlt.Pipeline
    server: FakeServer
    environ: Mapping[str, str]

    def load(self, **settings: Any) -> None:
        names = ["frontend", "backend"]
        source = analytics_source(
            self.server.url, TOKEN, ORGANIZATION, names, **settings
        )
        runner.load(self.pipeline, source)

    def dbt(self, *words: str) -> str:
        """Run a dbt command, which must succeed, and return its output."""
        done = subprocess.run(
            [
                *(sys.executable, "-c", "from dbt.cli.main import cli; cli()"),
                *(*words, "--profiles-dir", "."),
            ],
            cwd=self.folder,
            env={
                **os.environ,
                **self.environ,
                "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
            },
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-2000:]
        return done.stdout

    def rows(self, table: str, schema: str = "analytics") -> list[Row]:
        return self.query(f"select * from {schema}.{table}")

    def query(self, sql: str) -> list[Row]:
        with self.pipeline.sql_client() as client, client.execute_query(sql) as cursor:
            names = [column[0] for column in cursor.description]
            found = [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]
        for row in found:
            for name, value in row.items():
                if isinstance(value, datetime):
                    row[name] = utc(value)
        return found

    def execute(self, sql: str) -> None:
        with self.pipeline.sql_client() as client:
            client.execute_sql(sql)

    def model(self, name: str) -> list[Row]:
        return self.rows(name, "analytics_models")


def change(server: FakeServer, project: str, issues: slice, **fields: Any) -> None:
    for row in server.rows("issues", project)[issues]:
        row.update(fields)


@pytest.fixture(params=["duckdb", "postgres"])
def project(request: pytest.FixtureRequest, elsewhere: Path) -> Iterator[Project]:
    pytest.importorskip("dbt")
    destination: Any = "duckdb"
    environ = {
        "DBT_TARGET": request.param,
        "DBT_DUCKDB_PATH": str(elsewhere / f"{runner.NAME}.duckdb"),
    }
    if request.param == "postgres":
        postgres: Postgres = request.getfixturevalue("postgres")
        postgres.query("drop schema if exists analytics_models cascade")
        destination = dlt.destinations.postgres(postgres.uri)
        environ["PGHOST"] = unquote(urlsplit(postgres.uri).hostname or "")
    folder = elsewhere / "dbt"
    shutil.copytree(str(files("analytics_pipeline.examples") / "dbt"), folder)
    pipeline = runner.make_pipeline(destination, pipelines_dir="pipelines")
    with small_server(events=400, issues=40, page_size=100) as server:
        yield Project(folder, pipeline, server, environ)


@pytest.fixture
def filled(project: Project) -> Project:
    """Issues that are resolved, ignored, reopened, gone; late events, one of 2038."""
    server = project.server
    for number, event in enumerate(server.rows("events")[::3]):
        event["user"] = USERS[number % len(USERS)]
    backend = server.rows("projects", "backend")[0]
    for release in server.rows("releases", "frontend")[:3]:
        release["projects"].append({"slug": backend["slug"], "name": "Backend"})
    settings: Row = {"history": True, "sweep": "now"}
    project.load(**settings)
    change(server, "frontend", slice(0, 12), status="resolved")
    change(server, "backend", slice(0, 5), status="ignored")
    project.load(**settings)
    change(server, "frontend", slice(3, 7), status="unresolved")
    server.grow(events=50, issues=6, releases=2)
    project.load(**settings)
    change(server, "backend", slice(0, 8), status="resolved")
    change(server, "frontend", slice(3, 5), status="resolved")
    gone = [row for row in server.rows("issues") if row["status"] == "unresolved"][:3]
    for issue in gone:
        server.remove("issues", issue["project"]["slug"], issue)
    project.load(**settings)
    ids = ", ".join(f"'{issue['id']}'" for issue in gone)
    project.execute(f"update analytics.issues set gone_at = now() where id in ({ids})")
    for table, column in (("events", "date_created"), ("releases", "date_released")):
        project.execute(
            f"update analytics.{table} set {column} = '2038-01-19'"
            f" where id = (select max(id) from analytics.{table})"
        )
    return project


def happened(event: Row) -> datetime:
    time: datetime = event["date_created"] or event["date_received"]
    return time


def nested(value: Any) -> Any:
    return json.loads(value) if isinstance(value, str) else value


def slugs(project: Project) -> dict[str, str]:
    return {row["id"]: row["slug"] for row in project.rows("projects")}


def by(rows: list[Row], *names: str) -> dict[tuple[Any, ...], list[Row]]:
    groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
    for row in rows:
        groups[tuple(row[name] for name in names)].append(row)
    return groups


def events(project: Project) -> list[Row]:
    levels = {row["id"]: row["level"] for row in project.rows("issues")}
    return [
        {
            **event,
            "happened_at": happened(event),
            "day": happened(event).date(),
            "level": event["level"] or levels.get(event["group_id"]) or "unknown",
            "environment": event["environment"] or "unknown",
            "release_version": event["release_version"] or "unknown",
            "user_key": user_key(nested(event["user"]) or {}),
        }
        for event in project.rows("events")
        if happened(event) <= datetime.now(UTC)
    ]


def user_key(user: Row) -> str | None:
    names = ("id", "email", "ip_address", "username")
    key: str | None = next((user[name] for name in names if user.get(name)), None)
    return None if key == MASK else key


def users(rows: list[Row]) -> int:
    return len({row["user_key"] for row in rows} - {None})


def released(release: Row) -> datetime:
    time: datetime = release["date_released"] or release["date_created"]
    return time


ERRORS_KEY = ("day", "project_id", "level", "environment", "release_version")


def errors_daily(project: Project) -> dict[tuple[Any, ...], tuple[int, int, int]]:
    return {
        key: (len(rows), users(rows), len({row["group_id"] for row in rows}))
        for key, rows in by(events(project), *ERRORS_KEY).items()
    }


def counted(project: Project) -> dict[tuple[Any, ...], tuple[int, int, int]]:
    return {
        tuple(row[name] for name in ERRORS_KEY): (
            row["events"],
            row["users"],
            row["issues"],
        )
        for row in project.model("errors_daily")
    }


@dataclass
class Change:
    """A state of an issue that began."""

    issue_id: str
    project_id: str
    time: datetime
    is_reopened: bool
    was_resolved: bool
    is_resolved: bool
    opened_at: datetime


def changes(project: Project) -> list[Change]:
    first_seen = {row["id"]: row["first_seen"] for row in project.rows("issues")}
    states = project.rows("issue_history")
    began: dict[str, datetime] = {}
    for state in states:
        known = began.setdefault(state["project_id"], state["valid_from"])
        began[state["project_id"]] = min(known, state["valid_from"])
    found = []
    for (issue,), rows in by(states, "id").items():
        before, opened_at = None, first_seen[issue]
        is_new = opened_at >= began[rows[0]["project_id"]]
        for row in sorted(rows, key=lambda row: row["valid_from"]):
            status = row["status"]
            is_reopened = status == "unresolved" and before not in (None, "unresolved")
            is_resolved = status == "resolved" and (
                before not in (None, "resolved") or (before is None and is_new)
            )
            opened_at = row["valid_from"] if is_reopened else opened_at
            found.append(
                Change(
                    issue,
                    row["project_id"],
                    row["valid_from"],
                    is_reopened,
                    before == "resolved",
                    is_resolved,
                    opened_at,
                )
            )
            before = status
    return found


def test_the_models_agree_with_counts_made_in_python(filled: Project) -> None:
    filled.dbt("build")
    for check in CHECKS:
        check(filled)


def check_errors_daily(project: Project) -> None:
    expected = errors_daily(project)
    assert counted(project) == expected
    assert sum(count for count, *_ in expected.values()) == 449


def check_users_affected(project: Project) -> None:
    found = {
        (row["day"], row["project_id"]): (
            row["users"],
            row["events"],
            row["events_without_user"],
        )
        for row in project.model("users_affected")
    }
    assert found == {
        key: (users(rows), len(rows), sum(row["user_key"] is None for row in rows))
        for key, rows in by(events(project), "day", "project_id").items()
    }


def check_noisy_issues(project: Project) -> None:
    all_events = events(project)
    newest = max(event["happened_at"] for event in all_events)
    recent = [e for e in all_events if e["happened_at"] > newest - 7 * DAY]
    counts = Counter(event["group_id"] for event in recent)
    unresolved = {
        row["id"]
        for row in project.rows("issues")
        if row["status"] == "unresolved" and row["gone_at"] is None
    }
    expected = sorted(
        ((-count, issue) for issue, count in counts.items() if issue in unresolved)
    )
    found = sorted(project.model("noisy_issues"), key=lambda row: row["rank"])
    assert [row["rank"] for row in found] == [*range(1, len(found) + 1)]
    assert [(-row["events_7d"], row["issue_id"]) for row in found] == expected
    for row in found:
        assert row["share_7d"] == pytest.approx(row["events_7d"] / len(recent))


def check_release_health(project: Project) -> None:
    ids = {slug: id for id, slug in slugs(project).items()}
    spans = defaultdict(list)
    for release in project.rows("releases"):
        time = released(release)
        for each in nested(release["projects"]) if time <= datetime.now(UTC) else []:
            spans[each["slug"]].append((time, release["id"], release["version"]))
    issues, all_changes, all_events = (
        project.rows("issues"),
        changes(project),
        events(project),
    )
    expected = {}
    for slug, releases in spans.items():
        releases.sort()
        ends = [time for time, *_ in releases[1:]] + [datetime.max.replace(tzinfo=UTC)]
        for (start, release_id, version), end in zip(releases, ends, strict=True):
            of_release = [
                event
                for event in all_events
                if event["project_id"] == ids[slug]
                and event["release_version"] == version
                and start <= event["happened_at"] < start + 7 * DAY
            ]
            first = [e for e in of_release if e["happened_at"] < start + DAY]
            expected[f"{release_id}:{slug}"] = (
                sum(
                    issue["project_id"] == ids[slug]
                    and start <= issue["first_seen"] < end
                    for issue in issues
                ),
                sum(
                    each.project_id == ids[slug]
                    and each.is_reopened
                    and each.was_resolved
                    and start <= each.time < end
                    for each in all_changes
                ),
                *(len(first), users(first), len(of_release), users(of_release)),
            )
    found = {
        row["release_key"]: tuple(
            row[name]
            for name in (
                *("new_issues", "regressed_issues", "events_24h", "users_24h"),
                *("events_7d", "users_7d"),
            )
        )
        for row in project.model("release_health")
    }
    assert found == expected
    assert sum(row[1] for row in found.values()) == 4
    assert any(row[4] for row in found.values())


def check_issues_open_daily(project: Project) -> None:
    states = project.rows("issue_history")
    expected: dict[tuple[date, str], int] = {}
    for (project_id,), rows in by(states, "project_id").items():
        day = min(row["valid_from"] for row in rows).date()
        while day <= datetime.now(UTC).date():
            end = datetime.combine(day, datetime.min.time(), UTC) + DAY
            expected[day, project_id] = sum(
                row["status"] == "unresolved"
                and row["valid_from"] < end
                and (row["valid_to"] is None or row["valid_to"] >= end)
                for row in rows
            )
            day += DAY
    found = {
        (row["day"], row["project_id"]): row["open_issues"]
        for row in project.model("issues_open_daily")
    }
    assert found.items() >= expected.items()
    assert len(found) - len(expected) in (0, 2)  # midnight has passed


def check_issue_resolution(project: Project) -> None:
    expected = {
        (each.issue_id, each.time): (each.time - each.opened_at) / DAY
        for each in changes(project)
        if each.is_resolved
    }
    found = {
        (row["issue_id"], row["resolved_at"]): float(row["days_to_resolve"])
        for row in project.model("issue_resolution")
    }
    assert found == pytest.approx(expected, abs=1e-5)
    assert len(found) > 10


def summed(rows: list[Row], number: str, *names: str) -> dict[Any, int]:
    """Return sums of a column by others, without zeros."""
    sums: dict[Any, int] = defaultdict(int)
    for row in rows:
        key = tuple(row[name] for name in names)
        sums[key[0] if len(key) == 1 else key] += row[number]
    return {key: number for key, number in sums.items() if number}


def days_to_resolve(project: Project) -> dict[str, tuple[int, float]]:
    """Return project → resolved issues, and the median days to resolve them."""
    return {
        slug: (len(rows), median(float(row["days_to_resolve"]) for row in rows))
        for (slug,), rows in by(project.model("issue_resolution"), "project").items()
    }


def check_that_the_report_agrees(project: Project) -> None:
    queries, now = Queries(project.pipeline.dataset()), datetime.now(UTC)
    shown = facts.gather(queries, now)
    states = history.gather(queries, shown, now)
    assert states
    counts = {
        (start.date(), level): number
        for level, numbers in shown.events.items()
        for start, number in zip(shown.starts, numbers, strict=True)
        if number
    }
    assert counts == summed(project.model("errors_daily"), "events", "day", "level")
    newest = max(row["happened_at"] for row in project.model("stg_events"))
    assert shown.tables["events"][1] == newest
    today = max(row["day"] for row in project.model("issues_open_daily"))
    opened = summed(project.model("issues_open_daily"), "open_issues", "day")
    assert sum(shown.ages["unresolved"]) == states.unresolved[-1] == opened[today]
    changed = project.model("stg_issue_changes")
    assert sum(states.opened) == sum(
        row["is_new"] or row["is_reopened"] for row in changed
    )
    assert sum(states.resolved) == sum(row["is_resolved"] for row in changed)
    times = {name: (total, seconds / 86_400) for name, total, seconds in states.times}
    assert times == {
        slug: pytest.approx(expected, abs=1e-5)
        for slug, expected in days_to_resolve(project).items()
    }
    noisy = {row["short_id"]: row["events"] for row in project.model("noisy_issues")}
    worst = {short_id: count for short_id, _, _, _, count, *_ in shown.worst}
    assert len(worst) == facts.ISSUES
    assert {name: noisy.get(name, count) for name, count in worst.items()} == worst
    gone = {row["short_id"] for row in project.rows("issues") if row["gone_at"]}
    assert not gone & worst.keys()
    health = by(project.model("release_health"), "version")
    assert len(shown.releases) == len(health)
    for release in shown.releases:
        rows = health[release.version,]
        assert sorted(release.projects) == sorted(row["project"] for row in rows)
        if release in shown.releases[: facts.RELEASES]:
            assert release.new_issues == sum(row["new_issues"] for row in rows)
    assert max(len(release.projects) for release in shown.releases) == 2


def check_that_the_questions_agree(project: Project) -> None:
    text = (files("analytics_pipeline.examples") / "history.sql").read_text("utf-8")
    opened, resolved, regressed, people = (
        project.query(f"set timezone = 'UTC'; {question}")
        for question in text.rstrip().removesuffix(";").split(";\n")
    )
    assert summed(opened, "open_issues", "day") == summed(
        project.model("issues_open_daily"), "open_issues", "day"
    )
    found = {row["slug"]: (row["resolved"], row["median_days"]) for row in resolved}
    assert found == {
        slug: pytest.approx(expected, abs=1e-5)
        for slug, expected in days_to_resolve(project).items()
    }
    health = project.model("release_health")
    assert summed(regressed, "regressed", "version") == summed(
        health, "regressed_issues", "version"
    )
    assert sum(row["resolved"] for row in people) == len(
        project.model("issue_resolution")
    )


def check_that_the_notebook_agrees(project: Project) -> None:
    if project.environ["DBT_TARGET"] != "duckdb":
        return
    notebook = files("analytics_pipeline.examples") / "quickstart.ipynb"
    cells = {
        cell["id"]: "".join(cell["source"]).split('"""')
        for cell in json.loads(notebook.read_text("utf-8"))["cells"]
    }
    worst, new = (
        project.query(f"use analytics; {cells[name][1]}") for name in ("worst", "new")
    )
    there = {
        row["short_id"]
        for row in project.rows("issues")
        if row["status"] == "unresolved" and row["gone_at"] is None
    }
    assert {row["short_id"] for row in worst} <= there
    future = {row["version"] for row in new if row["start"] > datetime.now(UTC)}
    assert len(future) == 1
    assert {
        (row["version"], row["project"]): row["new_issues"]
        for row in new
        if row["version"] not in future
    }.items() <= {
        (row["version"], row["project"]): row["new_issues"]
        for row in project.model("release_health")
    }.items()


CHECKS: tuple[Callable[[Project], None], ...] = (
    check_errors_daily,
    check_users_affected,
    check_noisy_issues,
    check_release_health,
    check_issues_open_daily,
    check_issue_resolution,
    check_that_the_report_agrees,
    check_that_the_questions_agree,
    check_that_the_notebook_agrees,
)


def test_an_incremental_run_gives_the_same_result_as_a_full_one(
    filled: Project,
) -> None:
    filled.execute(
        "update analytics.events set read_at = read_at - interval '9 days'"
        " where date_created < now() - interval '5 days'"
    )
    filled.dbt("run", "--select", "+errors_daily")
    filled.server.grow(events=40, issues=2, releases=1)
    late = filled.server.rows("events", "frontend")[-1]  # of long ago, read now
    filled.load(history=True)
    filled.execute(
        "update analytics.events set environment = 'late', read_at = now()"
        f" where id = '{late['id']}'"
    )
    filled.execute("update analytics.projects set slug = 'web' where slug = 'frontend'")
    filled.dbt("run", "--select", "+errors_daily")
    assert counted(filled) == errors_daily(filled)
    named = {
        (row["project_id"], row["project"]) for row in filled.model("errors_daily")
    }
    assert named == {*slugs(filled).items()}
    environments = [row["environment"] for row in filled.model("errors_daily")]
    assert environments.count("late") == 1


def test_the_other_models_are_built_without_a_history(project: Project) -> None:
    """The models do not need columns that a user excluded or an old version lacks."""
    project.load(exclude=["events.user"])
    project.execute("alter table analytics.issues drop column gone_at")
    project.dbt("build", "--vars", "issue_history: false")
    counts = {key: events for key, (events, *_) in counted(project).items()}
    assert sum(counts.values()) == 400
    found = {row["user_id"] for row in project.model("stg_events")}
    assert found == {row["user_key"] for row in project.model("stg_events")}
    assert len(found) > 100
    assert project.model("noisy_issues")
    health = project.model("release_health")
    assert health
    assert {row["regressed_issues"] for row in health} == {None}


def test_data_loaded_just_now_is_fresh(filled: Project) -> None:
    said = filled.dbt("source", "freshness")
    assert said.count("PASS freshness") == 4
    assert "WARN" not in said


def test_every_column_of_sources_and_models_is_described(filled: Project) -> None:
    filled.dbt("build")
    filled.dbt("docs", "generate")
    target = filled.folder / "target"
    manifest = json.loads((target / "manifest.json").read_text())
    catalog = json.loads((target / "catalog.json").read_text())
    models = {
        node["name"]: node
        for node in manifest["nodes"].values()
        if node["resource_type"] == "model"
    }
    assert models.keys() >= MODELS
    for key, node in catalog["nodes"].items():
        described = manifest["nodes"][key]
        assert described["description"]
        for column in node["columns"]:
            assert described["columns"][column]["description"], (key, column)
    for source in manifest["sources"].values():
        assert source["description"]
        assert all(column["description"] for column in source["columns"].values())
