"""The command `status` describes the warehouse without requests."""

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import runner
from analytics_pipeline.cli.main import main
from analytics_pipeline.errors import AnalyticsError, ConfigurationError
from analytics_pipeline.report import page
from tests.conftest import (
    ORGANIZATION,
    TOKEN,
    Warehouse,
    make_source,
    set_back,
    small_server,
)
from tests.fake_server import FakeServer

Output = pytest.CaptureFixture[str]


@pytest.fixture
def folder(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> Path:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    return elsewhere / "pipelines"


def only(*tables: str) -> list[str]:
    return [word for table in tables for word in ("--resource", table)]


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


def test_status_describes_each_list_without_requests(
    folder: Path, capsys: Output
) -> None:
    with small_server() as server:
        assert load(server, folder) == 0
        asked = len(server.requests)
        found = status(folder, capsys)
        assert len(server.requests) == asked
    assert found["location"] == "analytics_pipeline.duckdb"
    assert len(found) == 4 + 3 * 2 + 2  # 3 tables per project, 2 of all
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
    elsewhere = status(folder / "other", capsys)  # like on another machine
    assert (
        elsewhere["events", "frontend"]["rows"] == found["events", "frontend"]["rows"]
    )
    assert elsewhere.keys() == found.keys()
    pipeline = runner.make_pipeline(dataset="other", pipelines_dir=str(folder))
    with pytest.raises(ConfigurationError, match="dataset 'other' of duckdb: none of"):
        runner.status(pipeline)


def test_status_shows_refusals_and_failures_until_the_list_is_read(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    words = only("events", "projects", "releases")
    with small_server() as server:
        server.fail(403, on="/releases/")
        server.fail(500, on="/backend/events/", times=4)
        assert load(server, folder, *words) == 1
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
        assert freshness(folder, *only("events")) == 1
        assert "; backend not read: events of project" in capsys.readouterr().err

        assert load(server, folder, *words) == 0
        found = status(folder, capsys)
        assert not [key for key in found if len(key) == 2 and found[key]["problem"]]
        assert found["releases", ""]["last_complete_reading"]
        assert freshness(folder) == 0

        server.grow(events=5)
        server.fail(500, on="/backend/events/", times=4)
        assert load(server, folder, *words) == 1
        after = status(folder, capsys)["events", "backend"]
        changing = ("age", "asked", "problem", "failed")
        before = found["events", "backend"]
        assert {k: v for k, v in before.items() if k not in changing} == {
            k: v for k, v in after.items() if k not in changing
        }
        requests = len(server.requests)
        assert load(server, folder, *words) == 0
        assert len(server.requests) - requests == 4  # and none twice
        assert len(warehouse.ids("events")) == len(server.rows("events"))


def test_status_shows_unfinished_loads(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server(events=300) as server:
        server.fail(500, on="/frontend/events/", times=4, after=3)
        assert load(server, folder, *only("events")) == 1
    found = status(folder, capsys)
    under_way = found["events", "frontend"]
    assert re.fullmatch(
        r"reading unfinished, read back to 20\d\d-.*", under_way["under_way"]
    )
    assert under_way["last_complete_reading"] is None


def test_rows_are_counted_by_organization_where_it_is_known(
    folder: Path, warehouse: Warehouse, capsys: Output
) -> None:
    for organization in ("acme", "other"):
        with small_server(organization=organization, seed=len(organization)) as server:
            words = ["--organization", organization, *only("events", "releases")]
            assert load(server, folder, *words) == 0
    pipeline = runner.make_pipeline(pipelines_dir=str(folder))
    found = [each for each in runner.status(pipeline).lists if each.table == "releases"]
    rows = {each.organization: each.rows for each in found}
    assert rows == {"acme": None, "other": None, "": len(warehouse.ids("releases"))}
    capsys.readouterr()
    main(["status", "--pipelines-dir", str(folder)])
    out = capsys.readouterr().out
    assert re.search(
        r"^events +http://\S+/v1/acme/backend +\? +the beginning ", out, re.MULTILINE
    )
    assert re.search(
        r"^events +http://\S+/v1/other/backend +\? +the beginning ", out, re.MULTILINE
    )
    assert (
        "?: several lists share this name, so their rows cannot be counted separately"
        in out
    )


def test_rows_of_partitions_have_no_bookmark(
    warehouse: Warehouse, tmp_path: Path
) -> None:
    with small_server() as server:
        pipeline = runner.make_pipeline(pipelines_dir=str(tmp_path / "pipelines"))
        now = datetime.now(UTC)
        runner.run_partition(
            pipeline,
            runner.Partition("frontend", now - timedelta(days=30), now),
            ["events"],
            base_url=server.url,
            auth_token=TOKEN,
            organization=ORGANIZATION,
        )
        found = runner.status(pipeline)
    (events,) = found.lists
    assert events.rows == len(warehouse.ids("events"))
    assert not events.bookmark.loaded.spans
    assert events.newest


@pytest.mark.parametrize("command", ["status", "report", "verify", "check"])
def test_status_creates_no_file_if_nothing_was_loaded(
    command: str, folder: Path, capsys: Output
) -> None:
    words = [command, "--pipelines-dir", str(folder)]
    if command == "verify":
        words += ["--base-url", "http://127.0.0.1:9", "--organization", "acme"]
        words += ["--project", "web"]
    if command == "check":
        words += ["--freshness", "2h"]
    assert main(words) == 2
    err = capsys.readouterr().err
    assert "the pipeline 'analytics_pipeline' has loaded nothing" in err
    assert "there is no file" in err
    assert not list(Path().glob("*.duckdb"))


def freshness(folder: Path, *words: str) -> int:
    where = ("--pipelines-dir", str(folder))
    return main(["check", "--freshness", "24h", *where, *words])


def test_a_list_without_rows_is_fresh_when_it_was_read(
    folder: Path, capsys: Output
) -> None:
    with small_server(releases=0) as server:
        words = [*only("releases", "issues"), "--history"]
        assert load(server, folder, *words) == 0
    assert freshness(folder) == 0
    assert "✗" not in capsys.readouterr().err


def test_a_list_no_longer_configured_is_shown_without_its_failure(
    folder: Path, capsys: Output
) -> None:
    words = only("events")
    with small_server() as server:
        server.fail(403, on="/backend/", times=99)
        assert load(server, folder, *words) == 3
        assert status(folder, capsys)["events", "backend"]["problem"]
        pipeline = runner.make_pipeline(pipelines_dir=str(folder))
        set_back(pipeline, "/backend", "asked_at")
        assert load(server, folder, *words, projects="frontend") == 0
    found = status(folder, capsys)
    assert not found["events", "backend"]["is_asked"]
    assert found["events", "frontend"]["is_asked"]
    assert found["events", "backend"]["problem"] == ""
    main(["status", "--pipelines-dir", str(folder)])
    said = r"events of project 'backend': last included in a run \d+ days ago"
    out = capsys.readouterr().out
    assert re.search(said, out)
    assert "403" not in out
    assert freshness(folder) == 0


def test_complete_considers_only_whether_lists_were_read(
    folder: Path, capsys: Output
) -> None:
    with small_server(now=datetime.now(UTC) - timedelta(days=3)) as server:
        assert load(server, folder, *only("events")) == 0
        assert freshness(folder) == 1
        assert freshness(folder, "--complete") == 0
        server.fail(500, on="/backend/events/", times=4)
        assert load(server, folder, *only("events")) == 1
    assert freshness(folder, "--complete") == 0  # it was read completely a moment ago


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_a_name_that_was_never_valid_is_forgotten(
    folder: Path, capsys: Output, api: str
) -> None:
    with small_server(api) as server:
        words = ["--api", api, *only("events", "issues", "project_detail")]
        assert load(server, folder, *words, projects="frontend nope") == 3
        assert not [key for key in status(folder, capsys) if "nope" in key]
    found = status(folder, capsys)
    assert found["events", "frontend"]["rows"] == len(server.rows("events", "frontend"))
    assert freshness(folder) == 0


def test_a_failed_sweep_is_shown_although_the_list_was_read(
    folder: Path, capsys: Output
) -> None:
    words = only("issues")
    with small_server(issues=100) as server:
        assert load(server, folder, *words) == 0
        server.fail(500, on="/backend/issues/", times=4, after=2)
        assert load(server, folder, *words, "--sweep", "now") == 1
        found = status(folder, capsys)["issues", "backend"]
        assert "500" in found["problem"]
        assert found["under_way"].startswith("sweep unfinished")
        assert load(server, folder, *words) == 0
    found = status(folder, capsys)["issues", "backend"]
    assert found["problem"] == found["under_way"] == ""


def test_full_scans_have_no_span(folder: Path, capsys: Output) -> None:
    with small_server() as server:
        words = [*only("projects", "project_detail"), "--since", "7d", "--json"]
        for _ in range(2):
            capsys.readouterr()
            assert load(server, folder, *words) == 0
        tables = json.loads(capsys.readouterr().out)["tables"]
        assert tables["projects"] | {"newest": ""} == {
            "rows": 0,
            "reread": 2,
            "requests": 1,
            "newest": "",
        }
    main(["status", "--pipelines-dir", str(folder)])
    out = capsys.readouterr().out
    assert re.search(r"^project_detail +backend +1 +full scan +–", out, re.MULTILINE)


def test_a_run_reports_where_the_tables_are(
    folder: Path, capsys: Output, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, other = Path.cwd(), tmp_path / "other"
    other.mkdir()
    with small_server() as server:
        load(server, folder, *only("projects"))
        said = "The tables are in analytics_pipeline.duckdb, dataset analytics.\n"
        assert said in capsys.readouterr().err
        for place, dataset in (
            (other, "analytics"),
            (other, "new"),  # no state is stored there yet
            (other, "analytics"),
            (first, "new"),
        ):
            monkeypatch.chdir(place)
            load(server, folder, *only("projects"), "--dataset", dataset)
            shown = "" if place == first else f"{first}/"
            said = f"The tables are in {shown}analytics_pipeline.duckdb,"
            assert said in capsys.readouterr().err
    assert not list(other.glob("*.duckdb"))


def test_renamed_tables_are_found(warehouse: Warehouse, capsys: Output) -> None:
    pipeline = warehouse.pipeline()
    words = ["--pipelines-dir", str(warehouse.folder / "pipelines")]
    with small_server() as server:

        def load_named() -> None:
            source = make_source(server, "frontend")
            for name, resource in source.resources.items():
                resource.apply_hints(table_name=f"my_{name}")
            runner.load(pipeline, source, ["events", "issues", "projects"])

        load_named()
        found = runner.status(pipeline)
        assert {(each.table, each.project): each.rows for each in found.lists} == {
            ("events", "frontend"): 40,
            ("issues", "frontend"): 20,
            ("projects", ""): 2,
        }
        assert main(["check", "--freshness", "1d", *words]) == 0
        assert "✓ events: newest row 2 h ago" in capsys.readouterr().err
        assert "<b>40</b>" in page(pipeline)
        warehouse.rows("drop table analytics.my_issues")
        with pytest.raises(AnalyticsError, match="^my_issues: .* drop issues`"):
            load_named()


def test_freshness_depends_on_the_newest_row_and_the_last_read(
    folder: Path, capsys: Output
) -> None:
    with small_server(now=datetime.now(UTC) - timedelta(hours=5)) as server:
        load(server, folder, *only("events", "projects", "releases"))
        asked = len(server.requests)

        def check(span: str, *tables: str) -> tuple[int, str, str]:
            capsys.readouterr()
            words = ["check", "--freshness", span, "--pipelines-dir", str(folder)]
            code = main([*words, *only(*tables), "--json"])
            return code, *capsys.readouterr()

        for span, tables in (("24h", []), ("1h", ["projects", "releases"])):
            code, out, _ = check(span, *tables)
            assert (code, json.loads(out)["old"]) == (0, 0)
            assert all(each["newest"] for each in json.loads(out)["tables"])
        code, out, err = check("1h", "events")
        assert (code, json.loads(out)["old"]) == (1, 1)
        assert "✗ events: newest row 5 h ago" in err
        assert "1 of 1 tables are older than 1h" in err
        code, _, err = check("7")
        assert code == 2
        assert "error: freshness '7' is not a span" in err
        code, _, err = check("1h", "issues")
        assert code == 2
        assert re.search("error: .*'issues'", err)
        assert len(server.requests) == asked
