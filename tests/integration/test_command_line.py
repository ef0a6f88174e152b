"""The command line, end to end."""

import io
import json
import logging
import os
import pty
import re
import shlex
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pytest
from rich.console import Console

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli import process, progress, terminal
from analytics_pipeline.cli.arguments import COMMANDS
from analytics_pipeline.cli.main import main
from analytics_pipeline.client import retry
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import IncompleteLoad
from analytics_pipeline.run import READ, REQUESTS
from analytics_pipeline.tables.columns import TABLES
from tests.children import ROOT, arguments, environment
from tests.children import run as run_process
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> Any:
    """The command line with its settings; returns the exit code."""
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)

    def run(server: DemoServer, *words: str, projects: str = "frontend backend") -> int:
        named = [word for slug in projects.split() for word in ("--project", slug)]
        command = [words[0]] if words and words[0] in COMMANDS else []
        return main(
            [
                *command,
                *("--base-url", server.url, "--organization", ORGANIZATION),
                *("--pipelines-dir", str(elsewhere / "pipelines")),
                *named,
                *words[len(command) :],
            ]
        )

    return run


Output = pytest.CaptureFixture[str]


def only(*tables: str) -> list[str]:
    return [word for table in tables for word in ("--resource", table)]


def test_json_is_one_object_on_standard_output(run: Any, capsys: Output) -> None:
    with small_server() as server:
        assert run(server, "--json") == 0
        first = json.loads(capsys.readouterr().out)
        assert run(server, "run", "--json") == 0
        second = json.loads(capsys.readouterr().out)
        asked = len(server.requests)
    assert first["tables"]["events"]["rows"] == 60
    assert first["skipped"] == []
    assert first["requests"] + second["requests"] == asked
    assert second["requests"] == 8
    assert all(table["rows"] == 0 for table in second["tables"].values())


def test_a_summary_for_people_counts_new_and_reread_rows_separately(
    run: Any, capsys: Output
) -> None:
    words = only("events", "projects")
    with small_server() as server:
        run(server, *words)
        out, err = capsys.readouterr()
        assert out == ""
        line = r"^events +60 +0 +\d+ +20\d\d-\d\d-\d\d \d\d:"
        assert re.search(line, err, re.MULTILINE)
        assert re.search(r"^\d+ new rows with \d+ requests in ", err, re.MULTILINE)
        server.grow(events=5)
        run(server, *words)
    err = capsys.readouterr().err
    assert re.search(r"^events +5 +[1-9]\d* +2 ", err, re.MULTILINE)
    assert re.search(r"^projects +0 +2 +1 ", err, re.MULTILINE)
    assert "\n5 new rows with 3 requests in " in err


def test_all_projects_are_those_of_the_organization(
    run: Any, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server(projects=("a", "b", "c")) as server:
        words = ["--all-projects", "--json", *only("issues")]
        assert run(server, *words, projects="") == 0
        assert len(warehouse.ids("issues")) == len(server.rows("issues"))
    assert list(json.loads(capsys.readouterr().out)["tables"]) == ["issues"]


def test_a_long_load_is_loaded_in_pieces(
    run: Any, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server(events=120) as server:
        assert run(server, "--rows-per-load", "20", *only("events")) == 0
        assert len(warehouse.ids("events")) == len(server.rows("events"))
    said = re.search(r"requests and (\d+) loads in", capsys.readouterr().err)
    assert said is not None
    loads = warehouse.rows("select count(*) from analytics._dlt_loads")
    assert loads == [(int(said[1]),)]
    assert int(said[1]) > 1


def test_a_list_that_fails_is_named_and_all_others_are_loaded(
    run: Any, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        server.fail(500, on="/backend/events/", times=4)
        assert run(server, "--json", *only("events", "issues")) == 1
        assert len(warehouse.ids("events")) == len(server.rows("events", "frontend"))
        assert len(warehouse.ids("issues")) == len(server.rows("issues"))
    out, err = capsys.readouterr()
    assert json.loads(out)["tables"]["issues"]["rows"] == 30
    assert "error: events of project 'backend': " in err
    assert "500" in err
    assert "The other lists were loaded." in err


def test_the_only_project_that_is_named_must_exist(
    run: Any, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        assert run(server, "--resource", "events", projects="frontnd") == 1
        err = capsys.readouterr().err
        assert "The token has no access to a project 'frontnd'" in err
        assert "did you mean 'frontend'?" in err
        words = ["--resource", "events", "--resource", "projects"]
        assert run(server, *words, projects="frontnd") == 3
        assert len(warehouse.ids("projects")) == 2
    assert "skipped: events of project 'frontnd': " in capsys.readouterr().err


def test_a_project_that_is_not_there_is_skipped_and_named(
    run: Any, warehouse: Warehouse, capsys: Output
) -> None:
    with small_server() as server:
        words = only("events", "issues", "project_detail")
        assert run(server, "--json", *words, projects="frontend nope") == 3
        assert len(warehouse.ids("events")) == len(server.rows("events", "frontend"))
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert [each["list"] for each in skipped] == [
        "events of project 'nope'",
        "issues of project 'nope'",
        "project_detail of project 'nope'",
    ]
    assert all("404" in each["reason"] for each in skipped)


def test_a_missing_scope_is_one_line_for_all_projects(
    run: Any,
    warehouse: Warehouse,
    capsys: Output,
    caplog: pytest.LogCaptureFixture,
) -> None:
    said = "events of 2 projects (backend, frontend): 403 Forbidden"
    words = only("events", "projects")
    with small_server() as server:
        server.fail(403, on="/events/", times=1000)
        assert run(server, *words, projects="backend frontend") == 3
        assert capsys.readouterr().err.count("403") == 1
        assert run(server, "--json", *words, projects="backend frontend") == 3
        assert len(json.loads(capsys.readouterr().out)["skipped"]) == 2
        main(["status", "--pipelines-dir", str(warehouse.folder / "pipelines")])
        shown = capsys.readouterr().out
        assert shown.count("403") == shown.count(said) == 1
        names = ["backend", "frontend"]
        source = analytics_source(server.url, TOKEN, ORGANIZATION, names)
        warehouse.pipeline().run(source.with_resources("events", "projects"))
        assert caplog.text.count("403") == caplog.text.count(said) == 1
        with pytest.raises(IncompleteLoad, match=re.escape(said)) as caught:
            runner.load(warehouse.pipeline(), source.with_resources("events"))
        assert len(caught.value.failures) == 2


@pytest.mark.parametrize(
    ("missing", "place", "variable"),
    [
        ("AUTH_TOKEN", "secrets.toml", "AUTH_TOKEN"),
        ("ORGANIZATION", "config.toml", "ORGANIZATION"),
        ("PROJECT", "config.toml", "PROJECT"),
        ("BASE_URL", "config.toml", "BASE_URL"),
    ],
)
def test_a_missing_setting_is_named_with_its_places(
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
    missing: str,
    place: str,
    variable: str,
) -> None:
    settings = {
        "AUTH_TOKEN": TOKEN,
        "ORGANIZATION": "acme",
        "PROJECT": "web",
        "BASE_URL": "https://errors.example.com",
    }
    del settings[missing]
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    assert main([]) == 2
    err = capsys.readouterr().err
    assert f"{missing.lower()} is missing" in err
    assert place in err
    assert variable in err
    assert len(err.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--since", "yesterday"], "since 'yesterday' is not a time"),
        (["--since", "2026-02-02", "--until", "2026-01-01"], "before until"),
        (["--base-url", "errors.example.com"], "is not an address"),
        (["--base-url", "http://errors.example.com"], "unencrypted"),
        (["--organization", ".."], "organization '..' is not a slug"),
        (["--project", ""], "project"),
        ([], "workers"),  # in the environment, where dlt cannot parse it
        (["--rows-per-load", "0"], "rows_per_load must be an integer"),
    ],
)
def test_wrong_settings_end_with_exit_code_2(
    monkeypatch: pytest.MonkeyPatch, capsys: Output, words: list[str], said: str
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    if not words:
        monkeypatch.setenv("SOURCES__ANALYTICS_PIPELINE__WORKERS", "abc")
    good = ["--base-url", "https://x.example", "--organization", "acme"]
    good += ["--project", "web"] if "--project" not in words else []
    assert main([*good, *words]) == 2
    assert said in capsys.readouterr().err


def test_a_rejected_token_is_an_error_also_in_json_and_not_shown(
    run: Any, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    monkeypatch.setenv("AUTH_TOKEN", "wrong-token-5aa1")
    with small_server() as server:
        assert run(server, "--json") == 1
    out, err = capsys.readouterr()
    assert "The server rejected the token" in json.loads(out)["error"]
    assert json.loads(out)["error"] in err
    assert "wrong-token-5aa1" not in out + err


def test_check_tries_each_list_once(run: Any, capsys: Output) -> None:
    with small_server() as server:
        assert run(server, "check") == 0
        assert len(server.requests) == 8
        err = capsys.readouterr().err
        assert err.count("✓") == 8
        newest = max(row["dateCreated"] for row in server.rows("events", "backend"))
        rows = len(server.rows("events", "backend"))
        assert (
            f"✓ events of project 'backend' (event:read): {rows} rows on the first"
            f" page, newest {newest[:19].replace('T', ' ')}\n"
        ) in err
        assert "required scopes: event:read, org:read, project:read" in err
        assert err.splitlines()[-1].startswith("All lists can be read.")
        server.fail(403, on="/releases/")
        assert run(server, "check") == 1
        err = capsys.readouterr().err
        words = ["check", *only("issues")]
        assert run(server, *words, projects="frontend bakend") == 1
        assert "did you mean 'backend'?" in capsys.readouterr().err
    assert "✗ releases of organization 'acme': " in err
    assert "lacks the scope org:read" in err
    assert "1 of 8 lists cannot be read" in err


def test_demo_shows_three_runs(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: Output
) -> None:
    """The tables are in the current folder, also if an earlier demo was in another."""
    words = ["demo", "--pipelines-dir", str(elsewhere / "pipelines")]
    assert main([*words, "--api", "sentry"]) == 0
    _, *lines = capsys.readouterr().err.partition("\n\n")[0].splitlines()
    names = [*TABLES, "seconds"]
    assert [line.split()[0] for line in lines] == names  # and no progress
    (elsewhere / "second").mkdir()
    monkeypatch.chdir(elsewhere / "second")
    assert main([*words, "--json"]) == 0
    runs = json.loads(capsys.readouterr().out)
    rows = {
        title: {name: table["rows"] for name, table in run["tables"].items()}
        for title, run in runs.items()
    }
    assert rows["first run"]["events"] == 3000
    assert rows["first run"]["issues"] == 300
    assert rows["first run"]["releases"] == 40
    assert sum(rows["nothing new"].values()) == 0
    assert runs["nothing new"]["requests"] == 8
    assert rows["after growth"]["events"] == 30
    with duckdb.connect("analytics_demo.duckdb", read_only=True) as connection:
        found = connection.sql("select count(*) from analytics.events").fetchall()
    assert found == [(3030,)]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--projct web", "unknown option '--projct'; did you mean '--project'? See "),
        ("--organisation=acme", "did you mean '--organization'?"),
        ("chek", "unknown command 'chek'; did you mean 'check'? See "),
        ("loade", "unknown command 'loade'; choose from run, check, "),
        ("check --freshnes 2h", "did you mean '--freshness'?"),
        ("--api sentri", "--api: unknown value 'sentri'; did you mean 'sentry'?"),
        ("--progress x", "unknown value 'x'; choose from auto, live, log, off. See "),
        ("--resource=event", "did you mean 'events'?"),
        ("--json=1", "argument --json: ignored explicit argument '1'. See "),
        (
            "--chunk 7d",
            "unknown option '--chunk'. See python -m analytics_pipeline run",
        ),
        ("run --token", "other users could see it. Set AUTH_TOKEN instead. See"),
        ("run --auth-token=x", "the token cannot be passed as an option, because"),
        ("--since 7d check", "the command must come first: python -m analytics_pip"),
        ("run web", "unknown argument 'web'"),
        ("--all-projects --project web", "not allowed with argument --all-projects"),
    ],
)
def test_wrong_usage_says_what_to_do(words: str, said: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as left:
        main(words.split())
    assert left.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        *(
            ("pipeline-name", name, f"pipeline name {name!r}: use at most 64 letters")
            for name in ("a/b", "..", "", "a b", "1a", "x" * 65)
        ),
        ("dataset", " ", "dataset ' ' is empty\n"),
        ("destination", "", "destination '' is empty\n"),
    ],
)
def test_names_are_checked(option: str, value: str, said: str, capsys: Output) -> None:
    assert main(["status", f"--{option}", value]) == 2
    assert f"error: {said}" in capsys.readouterr().err


def test_wrong_usage_is_json_too(capsys: Output) -> None:
    with pytest.raises(SystemExit) as left:
        main(["status", "--json", "--datset", "x"])
    assert left.value.code == 2
    out, err = capsys.readouterr()
    assert "did you mean '--dataset'?" in json.loads(out)["error"]
    assert json.loads(out)["error"] in err


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_a_screen(command: str, capsys: Output) -> None:
    with pytest.raises(SystemExit) as left:
        main([*command.split(), "--help"])
    assert left.value.code == 0
    help_text = capsys.readouterr().out
    assert "examples:" in help_text
    assert len(help_text.splitlines()) <= 52
    assert max(map(len, help_text.splitlines())) <= 88


def test_a_closed_pipe_is_not_an_error(run: Any, elsewhere: Path) -> None:
    with small_server() as server:
        assert run(server, *only("projects")) == 0
    command = f"{sys.executable} -m analytics_pipeline status --pipelines-dir pipelines"
    done = subprocess.run(
        ["bash", "-c", f"{command} | true"],
        cwd=elsewhere,
        env={**os.environ, "PYTHONPATH": ROOT},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""


def test_check_ends_where_the_server_is_out_of_reach(run: Any, capsys: Output) -> None:
    with small_server() as server:
        pass  # it is closed
    assert run(server, "check") == 1
    assert "1 of 1 lists cannot be read" in capsys.readouterr().err


def test_a_warning_of_dlt_is_shown_once(run: Any, capsys: Output) -> None:
    with small_server() as server:
        assert run(server, "--dataset", "my-data", *only("projects")) == 0
    assert capsys.readouterr().err.count("'my-data'") <= 1


def test_the_version_is_that_of_what_is_installed(capsys: Output) -> None:
    with pytest.raises(SystemExit) as left:
        main(["--version"])
    assert left.value.code == 0
    assert re.fullmatch(r"analytics_pipeline[ ,].+\n", capsys.readouterr().out)


def test_spans_of_time_say_how_far_back(run: Any, warehouse: Warehouse) -> None:
    def since(time: datetime) -> set[str]:
        return {
            row["id"]
            for row in server.rows("events")
            if datetime.fromisoformat(row["dateCreated"]) >= time - timedelta(days=7)
        }

    with small_server(events=300) as server:
        before = datetime.now(UTC)
        assert run(server, "--resource", "events", "--since", "7d") == 0
        loaded = set(warehouse.ids("events"))
        assert since(datetime.now(UTC)) <= loaded
        # A single older row at the end of a page may be a late one, so it is loaded.
        assert len(loaded - since(before)) <= 2
        assert 0 < len(loaded) < len(server.rows("events"))
        run(server, "--resource", "events", "--since", "7d", "--lookback", "3d")
    rows = warehouse.rows("select count(distinct read_at) from analytics.events")
    assert rows[0][0] > 1


def test_verbosity(run: Any, capsys: Output) -> None:
    words = only("events", "releases")
    with small_server() as server:
        for flags in ([], ["-v"], ["-vv"]):
            server.requests.clear()
            server.fail(500, on="/releases/")
            assert run(server, *words, *flags) == 0
            err = capsys.readouterr().err
            assert TOKEN not in err
            lines = [
                "INFO    status 500; retrying in",
                "INFO    events of project 'backend': reading back to ",
                "INFO    events of project 'backend': read to its end",
            ]
            assert all((line in err) == bool(flags) for line in lines)
            gets = len(server.requests) - 1 if flags == ["-vv"] else 0
            assert err.count(" DEBUG   GET http://127.0.0.1") == gets
    stamp = r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ DEBUG"
    assert re.search(stamp, err, re.MULTILINE)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


HOSTILE = "a\x1b]0;b\x07\rc\x9b2J\u202ed\u2066e\u2069\x00"


def test_text_of_a_server_cannot_control_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = Terminal()
    monkeypatch.setattr(sys, "stderr", shown)
    terminal.say(HOSTILE)
    terminal.say(terminal.table([["x", "y"], [HOSTILE, "1\n2"]]))
    with terminal.log_lines(0):
        logging.getLogger("analytics_pipeline").warning("%s", HOSTILE)
    text = re.sub("\033\\[3?[03]m", "", shown.getvalue())
    clean = "a�]0;b��c�2J�d�e��"
    assert text.split("\n")[0] == text.split("\n")[3] == clean
    assert text.split("\n")[2].split() == [clean, "1", "2"]
    assert not set(HOSTILE) - set("a]0;bc2Jde") & set(text)


def test_json_has_such_characters_escaped(capsys: Output) -> None:
    terminal.json_line({"error": HOSTILE})
    out = capsys.readouterr().out
    assert out.isascii()
    assert "\x1b" not in out
    assert json.loads(out) == {"error": HOSTILE}


@pytest.mark.parametrize(
    ("encoding", "shown"),
    [
        ("ascii", "ok failed - ... ? ab\n"),
        ("latin-1", "ok failed - ... é ab\n"),
        ("utf-8", "✓ ✗ – … é ab\n"),
    ],
)
def test_a_terminal_of_another_encoding_shows_what_it_can(
    encoding: str, shown: str
) -> None:
    stream = io.TextIOWrapper(io.BytesIO(), encoding)
    terminal.write("✓ ✗ – … é ab", stream=stream)
    stream.seek(0)
    assert stream.read() == shown


@pytest.mark.parametrize(
    ("end", "code"),
    [
        ("-vv 2>&1 | head -1", 0),
        ("-vv 2>&-", 0),
        ("-vv >&- 2>&- <&-", 0),
        ("-vv 2>/dev/full", 0),
        ("--json >/dev/full", 1),
    ],
)
def test_a_process_without_output_loads_everything(
    elsewhere: Path, warehouse: Warehouse, end: str, code: int
) -> None:
    with small_server() as server:
        words = arguments(server, elsewhere, *only("projects"))
        command = shlex.join([sys.executable, "-m", "analytics_pipeline", *words])
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", f"{command} {end}"],
            env=environment(),
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr
    if code:
        (line,) = done.stderr.splitlines()
        assert "the command ran, but its result could not be printed: No space" in line
    assert len(warehouse.ids("projects")) == 2


def test_a_terminal_that_is_closed_stops_no_load(
    elsewhere: Path, warehouse: Warehouse
) -> None:
    terminal, end = pty.openpty()
    with small_server() as server:
        words = arguments(server, elsewhere, *only("projects"), "--progress", "live")
        with subprocess.Popen(
            [sys.executable, "-m", "analytics_pipeline", *words],
            env=environment(),
            stdin=subprocess.DEVNULL,
            stderr=end,
        ) as process:
            os.close(end)
            os.read(terminal, 1)
            os.close(terminal)
    assert process.returncode == 0
    assert len(warehouse.ids("projects")) == 2


def test_in_a_file_each_line_of_a_run_has_its_time(elsewhere: Path) -> None:
    with small_server() as server:
        code, said = run_process(server, elsewhere, "-v", *only("projects"))
    assert code == 0
    stamp = r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d[ ,]"
    assert all(re.match(stamp, line) for line in said.splitlines())
    assert re.search(rf"^{stamp}projects +2 ", said, re.MULTILINE)


def test_a_narrow_terminal_shows_a_row_as_a_paragraph(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rows = [
        ["table", "new rows", "newest"],
        ["events", "60", "–"],
        ["issues", "5", "–"],
    ]
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "24")
    assert terminal.table(rows).splitlines()[1] == "events        60  –"
    monkeypatch.setenv("COLUMNS", "23")
    assert terminal.table(rows) == (
        "events\n  new rows  60\n  newest    –\nissues\n  new rows  5\n  newest    –"
    )


def test_counted_nouns() -> None:
    numbers = [terminal.counted(number, "row") for number in (0, 1, 2, 1000)]
    assert numbers == ["0 rows", "1 row", "2 rows", "1,000 rows"]


def test_colours_are_shown_on_terminals_unless_no_color_is_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    shown, piped, plain = Terminal(), io.StringIO(), Terminal()
    terminal.write("failed", terminal.RED, shown)
    terminal.write("failed", terminal.RED, piped)
    monkeypatch.setenv("NO_COLOR", "1")
    terminal.write("failed", terminal.RED, plain)
    assert shown.getvalue() == "\033[31mfailed\033[0m\n"
    assert piped.getvalue() == plain.getvalue() == "failed\n"


def test_a_long_list_shows_its_progress(
    monkeypatch: pytest.MonkeyPatch, run: Any, capsys: Output
) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    with small_server() as server:
        assert run(server, *only("events")) == 0
    line = next(s for s in capsys.readouterr().err.splitlines() if "events of" in s)
    shape = r"events of project 'frontend': \d+ rows, back to 20\d\d-\d\d-\d\d"
    assert re.match(shape, line.replace("backend", "frontend"))


def test_a_terminal_shows_tables_and_waits_while_it_lasts() -> None:
    shown = Terminal()
    live = progress.LiveCollector(Console(file=shown, force_terminal=True, width=100))
    with live("Extract analytics"):
        live.update(REQUESTS, inc=3)
        live.update(READ + "events of project 'web'", inc=1200, message="back to 2026")
        live.update(READ + "events of project 'api'", inc=34)
        live.update("Resources", inc=1)
        logging.getLogger(retry.__name__).warning(
            "rate limit: wait", extra={"waits_until": time.time() + 37}
        )
        for put_in_order in [*process.at_interruption]:
            put_in_order()  # as Ctrl-C does
    assert not process.at_interruption
    text = shown.getvalue()
    assert re.search(r"events +1,234 rows +back to 2026", text)
    assert "Resources" not in text
    assert "rate limit: next request in 37 s" in text
    assert text.count("\033[?25l") == text.count("\033[?25h") == 1  # the cursor is back
