"""What the command line tells of the warehouse, without asking a server."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import ConfigurationError
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path, warehouse: Warehouse
) -> Path:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    return elsewhere / "pipelines"


def load(server: FakeServer, folder: Path, *words: str, projects: str = "") -> int:
    named = projects.split() or ["frontend", "backend"]
    return main(
        [
            *("run", "--base-url", server.url, "--organization", ORGANIZATION),
            *(word for slug in named for word in ("--project", slug)),
            *("--pipelines-dir", str(folder), *words),
        ]
    )


def status(folder: Path, capsys: Output, *words: str) -> dict[Any, Any]:
    capsys.readouterr()
    assert main(["status", "--json", "--pipelines-dir", str(folder), *words]) == 0
    shown: dict[str, Any] = json.loads(capsys.readouterr().out)
    lists = {(each["table"], each["project"]): each for each in shown.pop("lists")}
    return shown | lists


def test_status_tells_of_each_list_and_asks_no_server(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        assert load(server, folder) == 0
        asked = len(server.requests)
        found = status(folder, capsys)
        assert len(server.requests) == asked
    assert found["location"] == "analytics_pipeline.duckdb"
    assert len(found) == 4 + 3 * 2 + 2  # three tables of each project, two of all
    for slug in ("frontend", "backend"):
        rows = server.rows("events", slug)
        events = found["events", slug]
        assert events["rows"] == len(rows)
        newest = max(datetime.fromisoformat(row["dateCreated"]) for row in rows)
        assert datetime.fromisoformat(events["newest"]) == newest
        assert datetime.fromisoformat(events["loaded_to"]) == newest
        assert events["loaded_from"] is None
        age = datetime.now(UTC) - newest
        assert abs(events["age"] - age.total_seconds()) < 60
        read = datetime.fromisoformat(events["last_complete_reading"])
        assert datetime.now(UTC) - read < timedelta(minutes=5)
        assert events["problem"] == events["under_way"] == ""
        assert found["issues", slug]["rows"] == len(server.rows("issues", slug))
        assert found["project_detail", slug]["rows"] == 1
    assert found["projects", ""]["rows"] == 2
    assert found["releases", ""]["rows"] == len(server.rows("releases"))


def test_status_is_the_same_from_another_machine(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        load(server, folder)
    here = status(folder, capsys)
    there = status(folder / "other", capsys)
    assert here["events", "frontend"]["rows"] == there["events", "frontend"]["rows"]
    assert here.keys() == there.keys()


def test_status_tells_what_was_refused_or_failed_until_it_is_read(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        server.fail(403, on="/releases/")
        server.fail(500, on="/backend/events/", times=4)
        assert load(server, folder) == 1
        found = status(folder, capsys)
        assert "lacks the scope org:read" in found["releases", ""]["problem"]
        assert found["releases", ""]["last_complete_reading"] is None
        assert "500" in found["events", "backend"]["problem"]
        assert found["events", "backend"]["rows"] == 0
        assert found["events", "frontend"]["problem"] == ""
        main(["status", "--pipelines-dir", str(folder)])
        out = capsys.readouterr().out
        asked = "^0 min ago: events of project 'backend': .*500"
        assert re.search(asked, out, re.MULTILINE)
        assert load(server, folder) == 0
    found = status(folder, capsys)
    assert not [key for key in found if len(key) == 2 and found[key]["problem"]]
    assert found["releases", ""]["last_complete_reading"]


def test_a_problem_leaves_what_was_read_of_the_list_alone(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        assert load(server, folder) == 0
        before = status(folder, capsys)["events", "backend"]
        server.grow(events=5)
        server.fail(500, on="/backend/events/", times=4)
        assert load(server, folder) == 1
        after = status(folder, capsys)["events", "backend"]
        changing = ("age", "problem", "failed")
        assert {k: v for k, v in before.items() if k not in changing} == {
            k: v for k, v in after.items() if k not in changing
        }
        asked = len(server.requests)
        assert load(server, folder) == 0
        assert len(server.requests) - asked == 8  # and none twice
        assert len(warehouse.ids("events")) == len(server.rows("events"))


def test_status_tells_what_is_under_way(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server(events=300) as server:
        server.fail(500, on="/frontend/events/", times=4, after=3)
        words = ["--rows-per-load", "20", "--resource", "events"]
        assert load(server, folder, *words) == 1
    found = status(folder, capsys)
    under_way = found["events", "frontend"]
    assert re.fullmatch(
        r"reading not at its end yet, come to 20\d\d-.*", under_way["under_way"]
    )
    assert under_way["last_complete_reading"] is None
    # No loaded table says which of the ids is whose.
    assert under_way["rows"] is None
    ids = {row["projectID"] for row in server.rows("events")}
    assert sum(found["events", i]["rows"] for i in ids) == len(warehouse.ids("events"))


def test_rows_of_two_organizations_are_not_told_apart(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    for organization in ("acme", "other"):
        with small_server(organization=organization, seed=len(organization)) as server:
            words = ["--organization", organization, "--resource", "releases"]
            assert load(server, folder, *words) == 0
    pipeline = runner.make_pipeline(pipelines_dir=str(folder))
    found = [each for each in runner.status(pipeline).lists if each.table == "releases"]
    rows = {each.organization: each.rows for each in found}
    assert rows == {"acme": None, "other": None, "": len(warehouse.ids("releases"))}


def test_rows_of_partitions_have_no_bookmark(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    with small_server() as server:
        pipeline = runner.make_pipeline(pipelines_dir=str(tmp_path / "pipelines"))
        now = datetime.now(UTC)
        part = runner.Partition("frontend", now - timedelta(days=30), now)
        runner.run_partition(
            pipeline,
            part,
            base_url=server.url,
            auth_token=TOKEN,
            organization=ORGANIZATION,
        )
        found = runner.status(pipeline)
    (events,) = [each for each in found.lists if each.table == "events"]
    assert events.rows == len(warehouse.ids("events"))
    assert events.bookmark.interval is None
    assert events.newest


@pytest.mark.parametrize("command", ["status", "report", "verify", "check"])
def test_where_nothing_was_loaded_no_file_is_made(
    command: str, folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    words = [command, "--pipelines-dir", str(folder)]
    if command == "verify":
        words += ["--base-url", "http://127.0.0.1:9", "--organization", "acme"]
        words += ["--project", "web"]
    if command == "check":
        words += ["--freshness", "2h"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "nothing is loaded by the pipeline 'analytics_pipeline'" in err
    assert "there is no file" in err
    assert not list(Path().glob("*.duckdb"))


def test_a_dataset_without_the_tables_is_named(
    folder: Path, warehouse: Warehouse
) -> None:
    with small_server() as server:
        load(server, folder)
    pipeline = runner.make_pipeline(dataset="other", pipelines_dir=str(folder))
    with pytest.raises(ConfigurationError, match="dataset 'other' of duckdb: none of"):
        runner.status(pipeline)


def freshness(folder: Path, *words: str) -> int:
    where = ("--pipelines-dir", str(folder))
    return main(["check", "--freshness", "24h", *where, *words])


def test_a_list_without_rows_is_fresh_when_it_was_read(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server(releases=0) as server:
        assert load(server, folder, "--history") == 0
    assert freshness(folder) == 0
    assert "✗" not in capsys.readouterr().err


def test_a_list_that_was_refused_is_not_fresh(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        server.fail(403, on="/backend/events/", times=9)
        assert load(server, folder) == 3
        assert freshness(folder, "--resource", "events") == 1
        assert "; backend not read: events of project" in capsys.readouterr().err
        assert freshness(folder, "--resource", "issues") == 0
        server.mend()
        assert load(server, folder) == 0
    assert freshness(folder) == 0


def test_a_project_that_is_not_asked_for_any_more_is_no_alarm(
    folder: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though it was asked for a last time after it was gone."""
    with small_server() as server:
        assert load(server, folder) == 0
        server.fail(404, on="/backend/", times=99)
        assert load(server, folder) == 3
        server.mend()
        pipeline = runner.make_pipeline(pipelines_dir=str(folder))
        with pipeline.managed_state(extract_state=True) as state:
            for table in state["sources"]["analytics"]["resources"].values():
                for key, each in table["bookmarks"].items():
                    if key.endswith("/backend"):
                        each["read"] = each["failed"] = "2026-01-01T00:00:00Z"
        pipeline.normalize()
        pipeline.load()
        assert load(server, folder, projects="frontend") == 0
    assert freshness(folder) == 0


def test_a_name_that_never_was_right_is_forgotten(
    folder: Path, warehouse: Warehouse, capsys: Output, api: str
) -> None:
    with small_server(api) as server:
        words = ["--api", api]
        assert load(server, folder, *words, projects="frontend nope") == 3
        assert not [key for key in status(folder, capsys) if "nope" in key]
        assert load(server, folder, *words) == 0
    found = status(folder, capsys)
    assert found["events", "frontend"]["rows"] == len(server.rows("events", "frontend"))
    assert freshness(folder) == 0


def test_a_sweep_that_failed_is_told_though_the_list_was_read(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server(issues=100) as server:
        assert load(server, folder) == 0
        server.fail(500, on="/backend/issues/", times=4, after=1)
        assert load(server, folder, "--sweep", "now") == 1
        found = status(folder, capsys)["issues", "backend"]
        assert "500" in found["problem"]
        assert found["under_way"].startswith("sweep not at its end yet")
        assert load(server, folder) == 0
    found = status(folder, capsys)["issues", "backend"]
    assert found["problem"] == found["under_way"] == ""


def test_what_is_read_whole_has_no_span(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        for _ in range(2):
            capsys.readouterr()
            assert load(server, folder, "--since", "7d", "--json") == 0
        tables = json.loads(capsys.readouterr().out)["tables"]
        assert tables["projects"] | {"newest": ""} == {
            "rows": 0,
            "reread": 2,
            "requests": 1,
            "newest": "",
        }
    main(["status", "--pipelines-dir", str(folder)])
    out = capsys.readouterr().out
    assert re.search(r"^project_detail +backend +1 +read whole +–", out, re.MULTILINE)


def test_organizations_are_told_apart(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    for organization in ("acme", "other"):
        with small_server(organization=organization) as server:
            words = ["--organization", organization, "--resource", "events"]
            assert load(server, folder, *words) == 0
    capsys.readouterr()
    main(["status", "--pipelines-dir", str(folder)])
    out = capsys.readouterr().out
    assert re.search(r"^events +acme/backend +\? +the beginning ", out, re.MULTILINE)
    assert re.search(r"^events +other/backend +\? +the beginning ", out, re.MULTILINE)
    assert "? : no table that is loaded says whose the rows are" in out


def test_a_run_says_where_the_tables_are(
    folder: Path,
    warehouse: Warehouse,
    capsys: Output,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, other = Path.cwd(), tmp_path / "other"
    other.mkdir()
    with small_server() as server:
        load(server, folder)
        said = "The tables are in analytics_pipeline.duckdb, dataset analytics.\n"
        assert said in capsys.readouterr().err
        for place in (other, other, first):
            monkeypatch.chdir(place)
            load(server, folder)
            shown = "" if place == first else f"{first}/"
            said = f"The tables are in {shown}analytics_pipeline.duckdb,"
            assert said in capsys.readouterr().err
    assert not list(other.glob("*.duckdb"))


@pytest.mark.parametrize(
    ("span", "words", "code"),
    [
        ("24h", [], 0),
        ("1h", ["--resource", "events"], 1),
        ("1h", ["--resource", "projects", "--resource", "releases"], 0),
        ("7", [], 2),
        ("1h", ["--resource", "issues"], 2),
    ],
)
def test_freshness_goes_by_the_newest_row(
    folder: Path,
    warehouse: Warehouse,
    capsys: Output,
    span: str,
    words: list[str],
    code: int,
) -> None:
    """And by the last reading of each list."""
    five_hours_ago = datetime.now(UTC) - timedelta(hours=5)
    with small_server(now=five_hours_ago) as server:
        tables = ["events", "projects", "releases"]
        load(server, folder, *(w for t in tables for w in ("--resource", t)))
        asked = len(server.requests)
        capsys.readouterr()
        words = ["check", "--freshness", span, "--pipelines-dir", str(folder), *words]
        assert main([*words, "--json"]) == code
        assert len(server.requests) == asked
    out, err = capsys.readouterr()
    if code == 2:
        assert "freshness '7' is not a span" in err or "'issues'" in err
        assert "error: " in err
        return
    shown = json.loads(out)
    assert shown["old"] == code
    assert all(each["newest"] for each in shown["tables"])
    if code:
        assert "✗ events: newest row 5 h ago" in err
        assert "1 of 1 tables are older than 1h" in err
