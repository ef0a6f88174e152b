"""The report: a page about the data in the warehouse, which runs no scripts."""

import re
import sys
from datetime import UTC, datetime, timedelta
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import dlt
import pytest

from analytics_pipeline.cli.main import main
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.sql import Queries
from analytics_pipeline.report import page
from analytics_pipeline.report.facts import gather
from tests import pictures
from tests.conftest import Warehouse, small_server
from tests.integration.test_old_datasets import resource, rows, without
from tests.loaded import copied, load_once

Output = pytest.CaptureFixture[str]

WORST = "The 10 issues with the most events"
SCRIPT = "<script>alert(1); document.documentElement.lang = 'ran'</script>"
IMAGE = "<img src=x onerror=\"document.documentElement.lang = 'ran'\">"


def table(html: str, title: str) -> list[list[str]]:
    """Return the text of the table below this heading, the header first."""
    section = html.split(f"<h2>{title}</h2>")[1].split("</section>")[0]
    return [
        [
            " ".join(unescape(re.sub("<[^>]*>", " ", cell)).split())
            for cell in re.findall("<t[dh][^>]*>(.*?)</t[dh]>", row)
        ]
        for row in re.findall("<tr>(.*?)</tr>", section)
    ]


class Elements(HTMLParser):
    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def loaded_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return load_once(tmp_path_factory.mktemp("loaded"))


@pytest.fixture
def loaded(loaded_file: Path, warehouse: Warehouse) -> Warehouse:
    """A warehouse with all tables of a small v1 server."""
    return copied(loaded_file, warehouse)


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
def test_the_page_counts_what_was_loaded(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    warehouse.load(server, api=api)
    html = page(warehouse.pipeline())
    rows = {name: row for name, *row in table(html, "Tables")[1:]}
    for name in ("events", "issues", "projects", "releases", "project_detail"):
        assert rows[name][0] == str(len(server.rows(name)))
    header, *numbers = table(html, "Events by level, and releases")
    levels = warehouse.rows(
        "select coalesce(i.level, 'other'), count(*) from analytics.events e"
        " left join analytics.issues i on i.id = e.group_id group by 1"
    )
    shown = {
        level: sum(int(row[place]) for row in numbers)
        for place, level in enumerate(header)
        if place
    }
    assert shown == dict(levels)
    worst = warehouse.rows(
        "select title || ' ' || short_id, level, status, count::varchar"
        " from analytics.issues order by count desc, id limit 10"
    )
    assert [tuple(row[:4]) for row in table(html, WORST)[1:]] == worst
    newest = max(server.rows("releases"), key=lambda row: row["dateReleased"] or "")
    assert newest["version"] in [row[0] for row in table(html, "Newest releases")]


def test_issues_are_counted_by_status_and_age(loaded: Warehouse) -> None:
    facts = gather(Queries(loaded.pipeline().dataset()), datetime.now(UTC))
    assert {status: sum(ages) for status, ages in facts.ages.items()} == {
        "unresolved": 16,
        "resolved": 7,
        "ignored": 7,
    }
    # One every two days; the newest is of two days and two hours ago.
    ages = [sum(counts) for counts in zip(*facts.ages.values(), strict=True)]
    assert ages == [0, 3, 11, 16, 0]


def test_few_days_are_shown_by_the_hour(warehouse: Warehouse) -> None:
    since = datetime.now(UTC) - timedelta(days=2)
    with small_server(events=600) as server:
        warehouse.load(server, tables=["events"], since=since)
    html = page(warehouse.pipeline())
    _, *numbers = table(html, "Events by level, and releases")
    assert 24 < len(numbers) <= 48
    assert all(row[0].endswith(":00") for row in numbers)
    total = sum(int(count) for row in numbers for count in row[1:])
    assert total == len(warehouse.ids("events"))


def test_rows_of_the_future_do_not_stretch_the_chart(loaded: Warehouse) -> None:
    for table, column in (("events", "date_created"), ("releases", "date_released")):
        loaded.rows(
            f"update analytics.{table} set {column} = '2999-01-01'"
            f" where id = (select max(id) from analytics.{table})"
        )
    ((version,),) = loaded.rows(
        "select version from analytics.releases order by id desc limit 1"
    )
    facts = gather(Queries(loaded.pipeline().dataset()), datetime.now(UTC))
    assert len(facts.starts) <= 31
    assert sum(map(sum, facts.events.values())) == 59
    assert version not in [release.version for release in facts.releases]


def test_issues_that_are_gone_are_left_out(loaded: Warehouse) -> None:
    (worst,) = loaded.rows(
        "select id, short_id from analytics.issues where status = 'unresolved'"
        " order by count desc, id limit 1"
    )
    before = table(page(loaded.pipeline()), WORST)
    assert f" {worst[1]}'" in str(before)
    loaded.rows(f"update analytics.issues set gone_at = now() where id = '{worst[0]}'")
    facts = gather(Queries(loaded.pipeline().dataset()), datetime.now(UTC))
    assert sum(facts.ages["unresolved"]) == 15
    assert sum(map(sum, facts.ages.values())) == 29
    after = table(page(loaded.pipeline()), WORST)
    assert f" {worst[1]}'" not in str(after)
    assert len(after) == len(before)


@pytest.mark.parametrize("api", ["v1", "glitchtip"])
def test_releases_have_their_projects_and_new_issues(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    """Including a release of two projects, one of which was renamed."""
    newest = server.rows("releases")[0]["projects"]
    others = {"frontend", "backend"} - {newest[0]["slug"]}
    newest += [
        {name: row[name] for name in newest[0]}
        for row in server.rows("projects")
        if row["slug"] in others
    ]
    if api == "glitchtip":
        for release in server.rows("releases"):
            for project in release["projects"]:
                project.pop("id")
    tables = ["releases", "issues", "projects"]
    warehouse.load(server, tables=tables, api=api)
    seen = [
        (row["project"]["slug"], datetime.fromisoformat(row["firstSeen"]))
        for row in server.rows("issues")
    ]
    expected, until = [], dict.fromkeys(("frontend", "backend"), datetime.max)
    releases = [
        (datetime.fromisoformat(row["dateReleased"] or row["dateCreated"]), row)
        for row in server.rows("releases")
    ]
    for time, row in sorted(releases, key=lambda pair: pair[0], reverse=True):
        slugs = [project["slug"] for project in row["projects"]]
        new = sum(
            slug in slugs and time <= first and first.replace(tzinfo=None) < until[slug]
            for slug, first in seen
        )
        until |= dict.fromkeys(slugs, time.replace(tzinfo=None))
        expected.append([row["version"], ", ".join(slugs), str(new)])
    if api != "glitchtip":  # whose releases name projects by their slug alone
        warehouse.rows("update analytics.projects set slug = 'web' where id = '1'")
        expected = [[v, p.replace("frontend", "web"), n] for v, p, n in expected]
    header, *rows = table(page(warehouse.pipeline()), "Newest releases")
    assert header == ["version", "projects", "released", "commits", "new issues"]
    assert [[*row[:2], row[-1]] for row in rows] == expected[:10]
    assert sum(row[2] != "0" for row in expected[:10]) > 4


@dlt.source(name="analytics", section="analytics_pipeline", max_table_nesting=0)
def earlier_version(server: DemoServer) -> Any:
    """Issues without gone_at and project_id; the only other table is releases."""
    issues = without(
        rows(server, "v1", "issues", "frontend"), ["gone_at", "project_id"]
    )
    yield resource("v1", "issues", issues, "issues", {})
    releases = rows(server, "v1", "releases", "")
    yield resource("v1", "releases", releases, "releases", {})


def test_a_dataset_of_an_earlier_version_has_a_report(warehouse: Warehouse) -> None:
    with small_server() as server:
        warehouse.pipeline().run(earlier_version(server))
        unresolved = [
            row
            for row in server.rows("issues", "frontend")
            if row["status"] == "unresolved"
        ]
    facts = gather(Queries(warehouse.pipeline().dataset()), datetime.now(UTC))
    assert sum(facts.ages["unresolved"]) == len(unresolved)
    _, *releases = table(page(warehouse.pipeline()), "Newest releases")
    assert {row[1] for row in releases} == {"frontend", "backend"}
    assert {row[-1] for row in releases} == {"–"}


@pytest.mark.parametrize("name", ["events", "issues"])
def test_a_table_that_is_not_loaded_or_has_no_rows_is_named(
    name: str, warehouse: Warehouse, elsewhere: Path
) -> None:
    with small_server() as server:
        warehouse.load(server, tables=[name])
    html = page(warehouse.pipeline())
    absent = [row[0] for row in table(html, "Tables") if row[-1] == "not loaded"]
    assert len(absent) == 4
    assert name not in absent
    assert ("No issues are loaded" in html) == (name != "issues")
    assert ("No events are loaded" in html) == (name != "events")
    warehouse.rows(f"delete from analytics.{name}")
    assert report("--output", "page.html") == 0
    assert "Nothing is loaded yet" in (elsewhere / "page.html").read_text("utf-8")


def report(*words: str) -> int:
    return main(["report", "--pipelines-dir", "pipelines", *words])


def test_a_column_that_was_left_out_is_named(warehouse: Warehouse) -> None:
    with small_server() as server:
        warehouse.load(server, tables=["issues"], exclude="issues.permalink")
    with pytest.raises(ConfigurationError, match=r"needs issues\.permalink"):
        page(warehouse.pipeline())


def test_tables_that_are_gone_give_an_error(loaded: Warehouse) -> None:
    loaded.rows("drop schema analytics cascade")
    with pytest.raises(ConfigurationError, match="none of its tables exists"):
        page(loaded.pipeline())


def test_a_missing_extra_is_named(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path, capsys: Output
) -> None:
    for name in [name for name in sys.modules if "analytics_pipeline.report" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert report() == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "needs the package matplotlib. Install it: pip install " in line
    assert "[report]" in line
    assert not (elsewhere / "analytics_report.html").exists()


@pytest.mark.usefixtures("loaded")
def test_a_file_that_cannot_be_written_ends_with_exit_code_2(capsys: Output) -> None:
    assert report("--output", "nowhere/page.html") == 2
    assert "nowhere/page.html" in capsys.readouterr().err


@pytest.fixture
def hostile(warehouse: Warehouse) -> str:
    """The report on a server that sends markup in all texts."""
    with small_server() as server:
        server.rows("issues")[0] |= {
            "title": SCRIPT,
            "shortId": IMAGE,
            "level": IMAGE,
            "status": IMAGE,
            "count": "9999",
            "permalink": "javascript:alert(2)",
        }
        server.rows("issues")[1] |= {
            "count": "9998",
            "permalink": "HTTPS://x.test/\"><script>alert(3)</script>?a=1&b='",
        }
        names = [IMAGE, "$\\frac{1}{0}$", "🐘 \u202e漢\ufffd"]
        for release, name in zip(server.rows("releases")[:3], names, strict=True):
            release |= {"version": name, "shortVersion": name}
        server.rows("releases")[3] |= {"version": None, "shortVersion": None}
        warehouse.load(server, tables=["issues", "releases"])
    return page(warehouse.pipeline())


def test_text_from_the_server_is_escaped(hostile: str) -> None:
    assert escape(SCRIPT) in hostile
    assert SCRIPT not in hostile
    assert IMAGE not in hostile
    elements = Elements(hostile).found
    assert not {"script", "img", "iframe", "object"} & {tag for tag, _ in elements}
    assert not [name for _, attrs in elements for name in attrs if name[:2] == "on"]
    links = [attrs["href"] for tag, attrs in elements if tag == "a"]
    assert links[0] == "HTTPS://x.test/\"><script>alert(3)</script>?a=1&b='"
    assert len(links) == 9
    assert "javascript:" not in hostile


def test_the_page_loads_nothing(loaded: Warehouse) -> None:
    html = page(loaded.pipeline())
    links = {row[0] for row in loaded.rows("select permalink from analytics.issues")}
    for tag, attrs in Elements(html).found:
        assert "src" not in attrs
        for name in ("href", "xlink:href"):
            if target := attrs.get(name):
                inside = target.startswith(("#", "data:,"))
                assert inside or (tag == "a" and target in links)
    assert set(re.findall(r"url\((.)", html)) <= {"#"}
    assert "@import" not in html
    ids = re.findall(' id="(.*?)"', html)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)(.*?)[")]', html)) <= set(ids)
    assert len(html) < 200_000


def browse(html: str, folder: Path) -> tuple[str, str]:
    """Return the elements that a browser shows, and its console messages."""
    path = folder / "browsed.html"
    path.write_text(html, "utf-8")
    done = pictures.chromium(path, "--enable-logging=stderr", "--dump-dom")
    return done.stdout, "\n".join(re.findall(".*CONSOLE.*", done.stderr))


in_chromium = pytest.mark.skipif(
    pictures.CHROMIUM is None, reason="no Chromium is installed"
)


@in_chromium
def test_a_browser_shows_markup_as_text_and_runs_nothing(
    hostile: str, elsewhere: Path
) -> None:
    # First, that scripts and console messages would be noticed.
    elements, complaints = browse(f"<script>console.log(1)</script>{IMAGE}", elsewhere)
    assert '<html lang="ran">' in elements
    assert complaints
    elements, complaints = browse(hostile, elsewhere)
    assert '<html lang="en">' in elements
    assert escape(SCRIPT, quote=False) in elements
    assert "<script" not in elements
    assert complaints == ""


@in_chromium
def test_the_pictures_of_the_readme_can_be_made(elsewhere: Path) -> None:
    target = elsewhere / "report.png"
    pictures.picture(pictures.report(elsewhere), target)
    assert pictures.size(target) == pictures.size(pictures.REPORT)
    assert target.stat().st_size > 30_000
    terminal = pictures.run(elsewhere)
    assert "back to 20" in terminal
    assert "6,344 new rows with" in terminal
    pictures.picture(terminal, target, height=pictures.RUN_HEIGHT)
    assert pictures.size(target) == pictures.size(pictures.RUN)
