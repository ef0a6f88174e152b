"""What the README shows happens as it shows it."""

import inspect
import os
import re
import shlex
import subprocess
import sys
from argparse import _SubParsersAction
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dlt
import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.arguments import parser
from analytics_pipeline.cli.main import main
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from tests.assertions import assert_kept
from tests.benchmarks.cases import cases
from tests.children import ROOT
from tests.conftest import TOKEN, Warehouse, small_server
from tests.examples import FOLDER
from tests.fake_server import FakeServer
from tests.postgres import Postgres

REPOSITORY = Path(__file__).parents[2]
README = (REPOSITORY / "README.md").read_text("utf-8")
BENCHMARKS = (REPOSITORY / "tests/benchmarks/README.md").read_text("utf-8")
PROJECT = "https://github.com/analytics-pipeline/analytics_pipeline"
BLOCKS: list[tuple[str, str]] = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)


def block(kind: str, holding: str) -> str:
    """The only one of its kind that holds this."""
    (found,) = [text for name, text in BLOCKS if name == kind and holding in text]
    return found


def table(header: str, text: str = README) -> list[list[str]]:
    """The cells of the table with this header, the header left out."""
    rows = text.split(header, 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def shell(commands: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """As a user types them, `python` being the one that runs the tests."""
    folder = Path(sys.executable).parent
    return subprocess.run(
        ["bash", "-ec", commands],
        env={
            **os.environ,
            "PATH": f"{folder}:{os.environ['PATH']}",
            "PYTHONPATH": ROOT,
            **variables,
        },
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


Run = Callable[[str, FakeServer], str]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def run_python(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> Run:
    """Run Python as a user writes it, its settings in the environment; return output."""

    def run(code: str, server: FakeServer) -> str:
        for name, value in (("BASE_URL", server.url), ("ORGANIZATION", "acme")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("AUTH_TOKEN", TOKEN)
        exec(code, {})
        return capsys.readouterr().out

    return run


def command(words: str) -> int:
    """Run a command line that is written as a user types it."""
    python, flag, name, *rest = shlex.split(words)
    assert (python, flag, name) == ("python", "-m", "analytics_pipeline")
    return main(rest)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def test_the_first_command_prints_what_is_shown_and_no_warning() -> None:
    install, demo = block("sh", "demo").strip().split(" && ")
    assert install == "pip install ."
    done = shell(demo, PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    for line in block("", "rows (requests)").splitlines():
        # How many issues the new events belong to is up to chance.
        pattern = re.escape(line).replace("33", r"\d\d")
        assert re.search(f"^{pattern}$", done.stderr, re.MULTILINE), line
    commands = re.findall(r"^  (?:SQL|Python): +(.*)$", done.stderr, re.MULTILINE)
    assert commands
    for each in commands:
        done = shell(each)
        assert done.returncode == 0, done.stderr


def test_the_commands_for_a_server_load_from_it(
    server: FakeServer, warehouse: Warehouse
) -> None:
    commands = block("sh", "export AUTH_TOKEN")
    commands = commands.replace("AUTH_TOKEN=…", f"AUTH_TOKEN={TOKEN}")
    commands = commands.replace("https://errors.example.com", server.url)
    done = shell(commands)
    assert done.returncode == 0, done.stderr
    assert "All lists can be read" in done.stderr
    assert_kept(warehouse, server)


def test_the_python_code_loads_and_prints_issues(
    server: FakeServer, warehouse: Warehouse, run_python: Run
) -> None:
    code = block("python", "dlt.pipeline(")
    assert run_python(code, server).count("', ") >= len(server.rows("issues"))
    assert_kept(warehouse, server, "issues", "projects")


def test_a_filter_on_rows_keeps_only_some(
    server: FakeServer, warehouse: Warehouse, run_python: Run
) -> None:
    code = "import dlt\nfrom analytics_pipeline import analytics_source\n"
    code += block("python", "dlt.pipeline(").split("pipeline.run")[0]
    filtered = block("python", "add_map")
    assert "pipeline.run(source)" in filtered
    code += filtered.replace("(source)", '(source.with_resources("events"))')
    run_python(code, server)
    platforms = warehouse.rows("select distinct platform from analytics.events")
    assert platforms == [("python",)]


def test_the_query_for_plain_files_finds_the_newest_rows(server: FakeServer) -> None:
    lake = dlt.destinations.filesystem("lake")
    for _ in range(2):
        pipeline = runner.make_pipeline(lake, pipelines_dir="pipelines")
        source = analytics_source(server.url, TOKEN, "acme", "frontend")
        runner.load(pipeline, source, ["issues"])
        server.grow(events=20)
    found = duckdb.sql(block("sql", "parquet")).fetchall()
    assert len(found) == len(server.rows("issues", "frontend"))


def test_the_tables_are_those_of_the_source() -> None:
    rows = table("| table | one row is | key | new by |")
    assert {row[0].strip("`") for row in rows[:-1]} == {*TABLES}
    assert rows[-1][0].strip("`") == HISTORY
    for name, _, key, new in rows[:-1]:
        held = TABLES[name.strip("`")]
        assert re.findall("`(.*?)`", key) == held.primary_key
        endpoint = APIS["v1"].endpoints[held.name]
        new_by = held.names[endpoint.replication_key]
        expected = [] if endpoint.full_scan else [new_by]
        assert re.findall("`(.*?)`", new)[:1] == expected


def test_the_settings_are_those_of_the_source() -> None:
    named = {
        name
        for names, _ in table("| name | |")
        for name in re.findall("`(.*?)`", names)
    }
    signature = inspect.signature(analytics_source).parameters
    assert named == {*signature}
    assert signature["lookback"].default == 3600
    assert "; 3600 |" in README
    assert signature["workers"].default == 4
    assert "at a time; 4 |" in README


def test_every_option_and_extra_that_is_named_exists() -> None:
    (commands,) = [
        action for action in parser()._actions if isinstance(action, _SubParsersAction)
    ]
    known = {
        option
        for command in commands.choices.values()
        for option in command._option_string_actions
    }
    text = README.split("## Development")[0]
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)} <= {*known}
    config = ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg")
    extras = {
        word for e in re.findall(r"'\.\[(.*?)\]'", README) for word in e.split(",")
    }
    assert extras <= {*config["options.extras_require"]}


def test_the_test_command_is_what_is_run_for_every_change() -> None:
    install, tests = block("sh", "pytest").strip().split(" && ")
    assert install == "pip install '.[test]'"
    assert tests in (REPOSITORY / ".ci/run").read_text().splitlines()


def test_every_file_that_is_linked_is_there() -> None:
    """By addresses, as a package index shows the README without its repository."""
    titles = re.findall(r"^## (.*)", README, re.MULTILINE)
    anchors = {f"#{title.lower().replace(' ', '-')}" for title in titles}
    links = re.findall(r"\]\((.*?)\)", README)
    ours = [link for link in links if link.startswith(PROJECT)]
    assert len(ours) > 10
    for link in ours:
        path = re.sub(r"^/(?:blob|raw)/main/", "", link.removeprefix(PROJECT))
        assert (REPOSITORY / path).is_file(), link
    assert {link for link in links if ":" not in link} <= anchors


def test_the_address_of_the_project_is_one() -> None:
    config = ConfigParser(interpolation=None)
    config.read(REPOSITORY / "setup.cfg")
    assert PROJECT in config["metadata"]["project_urls"]
    assert f"git clone {PROJECT} && cd analytics_pipeline\n" in block("sh", "git clone")
    assert f"git+{PROJECT}" in (FOLDER / "github_actions.yml").read_text()


def test_the_objects_that_json_gives_are_those_that_are_told(
    server: FakeServer,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    warehouse.load(server, tables=["events", "issues"])
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    where = f" --base-url {server.url} --organization acme --project frontend"
    folders = " --pipelines-dir pipelines"
    for cell, words in table("| command | object |"):
        name = cell.strip("`")
        options = folders if name == "status" else where + folders
        options = where if name == "check" else options
        if name in ("run", "verify"):
            options += " --resource events --resource issues"
        python = "python -m analytics_pipeline"
        assert command(f"{python} {name} --json{options}") == 0
        if name == "check":
            assert command(f"{python} check --freshness 24h --json{folders}") == 0
        told = {*re.findall("`([a-z_]+)`", words)}
        found = {*re.findall(r'"([a-z_]+)": ', capsys.readouterr().out)}
        # Of what is only there where something went wrong.
        assert told - found <= {"list", "reason", "problem"}, name


def test_the_figures_are_those_that_the_benchmarks_measure() -> None:
    rows = table("| what | ours | other | ratio | to reach | ok |", BENCHMARKS)
    assert [row[0] for row in rows] == [
        figure.what for case in cases(1) for figure in case.figures
    ]
    shown = table("| what | ours | other | ratio |")
    assert len(shown) == 3
    assert all(row in [each[:4] for each in rows] for row in shown)


def test_duckdb_is_given_less_memory(elsewhere: Path) -> None:
    (elsewhere / ".dlt").mkdir()
    (elsewhere / ".dlt/secrets.toml").write_text(block("toml", "memory_limit"))
    code = """
from analytics_pipeline import runner
pipeline = runner.make_pipeline()
pipeline.run([{"x": 1}], table_name="x")
with pipeline.sql_client() as client:
    print(client.execute_sql("select current_setting('memory_limit')"))
"""
    done = shell(f"python -W error -c {shlex.quote(code)}")
    assert done.returncode == 0, done.stderr
    assert "286.1 MiB" in done.stdout


UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86_400, "years": 365 * 86_400}
SENTRY, SELF_HOSTED, ONE_PROCESS = 100, 4 / 0.05 * 100, 28_000
"""Events a second."""


@pytest.mark.parametrize("row", table("| events | sentry.io |", BENCHMARKS))
def test_the_arithmetic_of_scale(row: list[str]) -> None:
    events = 10 ** "⁰¹²³⁴⁵⁶⁷⁸⁹".index(row[0].removeprefix("10"))
    rates = [SENTRY, SENTRY / 10, SELF_HOSTED, ONE_PROCESS]
    for text, rate in zip(row[1:], rates, strict=True):
        number, unit = text.split()
        assert float(number) * UNITS[unit] == pytest.approx(events / rate, rel=0.05)


def test_the_partitions_are_loaded(
    postgres: Postgres, run_python: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = datetime.now(UTC).date() - timedelta(days=3)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.uri)
    with small_server("sentry", events=300) as server:
        run_python(
            block("python", "partitions").replace("2026-01-01", f"{since}"), server
        )
        midnight = f"{datetime.now(UTC):%Y-%m-%d}"
        days = {
            row["id"]
            for row in server.rows("events")
            if f"{since}" <= row["dateCreated"] < midnight
        }
    assert days
    assert {key for (key,) in postgres.query("select id from analytics.events")} == days


def test_the_scopes_are_those_that_each_server_wants() -> None:
    header = "| table | `v1` | `sentry` | `glitchtip` |"
    expected = [
        [f"`{name}`", *(f"`{spec.endpoints[name].scope}`" for spec in APIS.values())]
        for name in TABLES
    ]
    assert sorted(table(header)) == sorted(expected)


def test_verify_prints_a_table_like_the_one_shown(
    server: FakeServer,
    warehouse: Warehouse,
    monkeypatch: pytest.MonkeyPatch,
    capsys: Output,
) -> None:
    warehouse.load(server, tables=["events", "issues"])
    changed = "(select id from analytics.issues order by id limit 2)"
    warehouse.rows(
        f"update analytics.issues set status = '?', count = -1 where id in {changed}"
    )
    monkeypatch.setenv("AUTH_TOKEN", TOKEN)
    words = block("sh", "verify").strip()
    words += f" --base-url {server.url} --organization acme --pipelines-dir pipelines"
    words += " --project frontend --project backend"
    words += " --resource events --resource issues"
    assert command(words) == 1
    shown = block("", "the warehouse differs").splitlines()
    printed = capsys.readouterr().err.splitlines()
    assert printed[0].split() == shown[0].split()
    for line in shown[1:4]:
        assert any(row.split()[:2] == line.split()[:2] for row in printed), line
    assert any(row.startswith("issues, different: ") for row in printed)
    assert any("(status, count)" in row for row in printed)
    assert re.fullmatch(shown[-1].replace("4.6", r"[\d.]+"), printed[-1])
