"""The README and the pages of `docs` are true: their code, tables, options and links."""

import inspect
import json
import os
import re
import shlex
import subprocess
import sys
from argparse import Action
from argparse import _SubParsersAction as SubParsers
from collections.abc import Callable, Iterator
from configparser import ConfigParser
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dlt
import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli.arguments import COMMANDS, parser
from analytics_pipeline.cli.main import main
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from tests.assertions import assert_kept, held
from tests.benchmarks.cases import cases
from tests.children import ROOT
from tests.conftest import TOKEN, Warehouse, small_server
from tests.examples import FOLDER
from tests.fake_server import FakeServer
from tests.postgres import Postgres

REPOSITORY = Path(__file__).parents[2]
DOCS = REPOSITORY / "analytics_pipeline/docs"
PAGES = {
    path: path.read_text("utf-8")
    for path in (
        REPOSITORY / "README.md",
        REPOSITORY / "tests/benchmarks/README.md",
        *sorted(DOCS.glob("*.md")),
    )
}
SETUP = ConfigParser(interpolation=None)
SETUP.read(REPOSITORY / "setup.cfg")
BENCHMARKS = PAGES[REPOSITORY / "tests/benchmarks/README.md"]
PROJECT = "https://github.com/analytics-pipeline/analytics_pipeline"
ELSEWHERE = ("erasure.md", "benchmarks/README.md")
"""Pages whose code other tests run."""
BLOCKS: list[tuple[str, str]] = [
    block
    for path, text in PAGES.items()
    if not str(path).endswith(ELSEWHERE)
    for block in re.findall(r"```(\w*)\n(.*?)```", text, re.DOTALL)
]
TEXT = "\n".join(PAGES.values())


def block(kind: str, holding: str) -> str:
    """Return the only block of its kind that contains this."""
    (found,) = [text for name, text in BLOCKS if name == kind and holding in text]
    return found


def test_every_block_of_code_is_run_by_a_test() -> None:
    calls = re.findall(r'block\("(\w*)", "(.*?)"\)', Path(__file__).read_text("utf-8"))
    used = {block(kind, holding) for kind, holding in calls}
    assert [text for kind, text in BLOCKS if kind != "text" and text not in used] == []


def table(header: str, text: str = TEXT) -> list[list[str]]:
    """Return the cells of the only table with this header, without the header."""
    (_, rest) = text.split(f"{header}\n")
    rows = rest.split("\n\n", 1)[0].splitlines()[1:]
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def shell(commands: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run commands in a shell where `python` is the one that runs the tests."""
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


def environment(server: FakeServer) -> dict[str, str]:
    return {
        "BASE_URL": server.url,
        "AUTH_TOKEN": TOKEN,
        "ORGANIZATION": "acme",
        "PROJECT": "frontend,backend",
    }


Run = Callable[[str, FakeServer], str]
Output = pytest.CaptureFixture[str]


@pytest.fixture
def run_python(monkeypatch: pytest.MonkeyPatch, capsys: Output) -> Run:
    """Return a function that runs code with settings in the environment and returns its output."""

    def run(code: str, server: FakeServer) -> str:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        exec(code, {})
        return capsys.readouterr().out

    return run


def command(words: str) -> int:
    """Run a command line in this process, and return its exit code."""
    python, flag, name, *rest = shlex.split(words)
    assert (python, flag, name) == ("python", "-m", "analytics_pipeline")
    return main(rest)


@pytest.fixture
def server() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def test_the_first_command_prints_what_is_shown_and_no_warning() -> None:
    clone, both = block("sh", "git clone").strip().splitlines()
    assert clone == f"git clone {PROJECT} && cd analytics_pipeline"
    install, demo = both.split(" && ")
    assert install == "pip install ."
    done = shell(demo, PYTHONWARNINGS="error")
    assert done.returncode == 0, done.stderr
    assert "warning" not in done.stderr.lower()
    for line in block("", "rows (requests)").splitlines():
        # The number of issues of the new events is random.
        pattern = re.escape(line).replace("33", r"\d\d")
        assert re.search(f"^{pattern}$", done.stderr, re.MULTILINE), line
    commands = re.findall(r"^  (?:SQL|Python): +(.*)$", done.stderr, re.MULTILINE)
    assert commands
    for each in commands:
        done = shell(each)
        assert done.returncode == 0, done.stderr


def assert_each_id_once(warehouse: Warehouse, server: FakeServer, *tables: str) -> None:
    for table in tables:
        expected = sorted(str(row["id"]) for row in server.rows(table))
        assert sorted(row["id"] for row in held(warehouse, table)) == expected, table


def test_the_commands_for_a_server_load_from_it(warehouse: Warehouse) -> None:
    commands = block("sh", "export AUTH_TOKEN")
    commands = commands.replace("AUTH_TOKEN=…", f"AUTH_TOKEN={TOKEN}")
    with small_server("sentry") as server:
        done = shell(commands, BASE_URL=server.url)
        assert done.returncode == 0, done.stderr
        assert "All lists can be read" in done.stderr
        assert_each_id_once(warehouse, server, *TABLES)


def test_the_python_code_loads_and_prints_issues(
    warehouse: Warehouse, run_python: Run
) -> None:
    code = block("python", "print(pipeline.dataset()")
    with small_server("sentry") as server:
        printed = run_python(code, server)
        assert printed.count("', ") >= len(server.rows("issues"))
        assert_each_id_once(warehouse, server, "issues", "projects")


def test_a_filter_on_rows_keeps_only_some(
    server: FakeServer, warehouse: Warehouse, run_python: Run
) -> None:
    code = block("python", "add_map") + block("python", "print(table.num_rows)")
    printed = run_python(code, server)
    platforms = "select platform, count(*) from analytics.events group by all"
    ((platform, count),) = warehouse.rows(platforms)
    assert platform == "python"
    assert sum(map(int, printed.split())) == count


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
    rows = table("| table | one row is | key | cursor column |")
    assert {row[0].strip("`") for row in rows[:-1]} == {*TABLES}
    assert rows[-1][0].strip("`") == HISTORY
    for name, _, key, new in rows[:-1]:
        held = TABLES[name.strip("`")]
        assert re.findall("`(.*?)`", key) == held.primary_key
        endpoint = APIS["v1"].endpoints[held.name]
        new_by = held.names[endpoint.replication_key]
        expected = [] if endpoint.full_scan else [new_by]
        assert re.findall("`(.*?)`", new)[:1] == expected


def options(command: str) -> list[Action]:
    (commands,) = [each for each in parser()._actions if isinstance(each, SubParsers)]
    return [each for each in commands.choices[command]._actions if each.dest != "help"]


def test_the_settings_are_those_of_the_source() -> None:
    of_run = {each.dest: each.option_strings[-1] for each in options("run")}
    signature = inspect.signature(analytics_source).parameters
    header = "| name | option | environment variable | default | meaning |"
    rows = [[cell.strip("`") for cell in row] for row in table(header)]
    assert [
        (name, option, json.loads(default or "null"))
        for name, option, _, default, _ in rows
    ] == [
        (name, of_run.get(name, ""), each.default) for name, each in signature.items()
    ]
    for name, _, variable, _, _ in rows:
        assert variable.removeprefix("SOURCES__ANALYTICS_PIPELINE__") == name.upper()


def test_the_options_that_are_not_settings_are_those_of_run() -> None:
    settings = inspect.signature(analytics_source).parameters
    rows = table("| option | default | meaning |")
    assert sorted([option, default] for option, default, _ in rows) == sorted(
        [
            f"`{each.option_strings[-1]}`",
            f"`{each.default}`" if isinstance(each.default, str) else "",
        ]
        for each in options("run")
        if each.dest not in settings
    )


def test_settings_are_read_from_the_files_shown(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / ".dlt").mkdir()
    files = {
        "config": block("toml", "organization"),
        "secrets": block("toml", "auth_token"),
    }
    files["config"] += block("toml", "redact").partition("\n")[2]
    files["config"] += block("toml", "dlthub_telemetry")
    files["secrets"] += block("toml", "CF-Access")
    for name, text in files.items():
        (elsewhere / f".dlt/{name}.toml").write_text(text)
    monkeypatch.delenv("RUNTIME__DLTHUB_TELEMETRY")
    code = """
import dlt
from analytics_pipeline.config import resolve_config
config = resolve_config()
print(config.projects, config.lookback.days, config.workers, config.history)
print(config.redact[-1], *config.headers.values())
print(dlt.config["runtime.dlthub_telemetry"])
"""
    done = shell(f"python -W error -c {shlex.quote(code)}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "('frontend', 'backend') 3 8 True",
        "entries.data.headers.Authorization the id the secret",
        "False",
    ]


def test_every_option_and_extra_in_the_text_exists() -> None:
    known = {
        option
        for command in COMMANDS
        for each in options(command)
        for option in each.option_strings
    }
    text = TEXT.replace(BENCHMARKS, "")
    assert {*re.findall(r"(?<![\w-])--[a-z][a-z-]*", text)} <= {*known, "--help"}
    extras = {word for e in re.findall(r"'\.\[(.*?)\]'", TEXT) for word in e.split(",")}
    assert extras <= {*SETUP["options.extras_require"]}


def test_the_test_command_is_the_one_of_the_ci() -> None:
    install, tests = block("sh", "'.[test]'").strip().split(" && ")
    assert install == "pip install '.[test]'"
    assert tests in (REPOSITORY / ".ci/run").read_text().splitlines()


def test_one_file_of_tests_is_run() -> None:
    tests = block("sh", "-n 0").replace("-n 0", "-n 0 -p no:cacheprovider")
    done = shell(f"cd {REPOSITORY} && {tests}")
    assert done.returncode == 0, done.stdout


def test_a_test_in_memory_passes() -> None:
    exec(block("python", "tests.memory"), {})


def test_the_fake_server_is_read_in_spite_of_a_fault() -> None:
    exec(block("python", "FakeServer("), {})


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^##+ (.*)", page.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_to_a_file_and_a_heading(page: Path) -> None:
    for link in re.findall(r"\]\((.*?)\)", PAGES[page]):
        address, _, anchor = link.partition("#")
        path = re.sub(f"^{PROJECT}/(?:blob|raw)/main/", "", address)
        if path != address:
            target = REPOSITORY / path
        elif ":" in address:
            continue
        else:
            # A package index shows the README without its repository.
            assert page != REPOSITORY / "README.md" or not address, link
            target = page.parent / address if address else page
        assert target.is_file(), link
        assert not anchor or anchor in anchors(target), link


def test_the_readme_is_short_and_leads_to_every_page() -> None:
    readme = PAGES[REPOSITORY / "README.md"]
    assert len(readme.splitlines()) <= 200
    for page in PAGES.keys() - {REPOSITORY / "README.md"}:
        assert f"({PROJECT}/blob/main/{page.relative_to(REPOSITORY)})" in readme


def test_the_address_of_the_project_is_one() -> None:
    assert PROJECT in SETUP["metadata"]["project_urls"]
    assert f"git+{PROJECT}" in (FOLDER / "github_actions.yml").read_text()


def test_the_commands_that_find_settings_in_the_environment_succeed(
    server: FakeServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment(server).items():
        monkeypatch.setenv(name, value)
    commands = (
        block("sh", "--resource events --since"),
        block("sh", "analytics_pipeline status"),
        block("sh", "--freshness"),
        block("sh", "errors_eu"),
    )
    lines = "".join(commands).splitlines()
    assert [command(f"{line} --pipelines-dir pipelines") for line in lines] == [0] * 5
    assert_kept(warehouse, server, "events", "issues")
    assert Path("eu.duckdb").is_file()


def test_the_folder_of_the_examples_is_printed() -> None:
    done = shell(block("sh", "importlib.resources"))
    assert done.stdout.strip() == str(FOLDER), done.stderr


def test_postgres_is_loaded_as_shown(server: FakeServer, postgres: Postgres) -> None:
    commands = block("sh", "--destination postgres")
    address = "postgresql://user:password@host/database"
    assert address in commands
    commands = commands.replace(address, shlex.quote(postgres.uri))
    done = shell(commands, **environment(server))
    assert done.returncode == 0, done.stderr
    count = postgres.query("select count(*) from analytics.events")
    assert count == [(len(server.rows("events")),)]


def test_delta_tables_are_loaded_as_shown(
    server: FakeServer, elsewhere: Path, run_python: Run
) -> None:
    pytest.importorskip("deltalake")
    run_python(block("python", "table_format"), server)
    assert (elsewhere / "lake/analytics/issues/_delta_log").is_dir()


def test_sqlite_is_loaded_as_shown(server: FakeServer, elsewhere: Path) -> None:
    (elsewhere / ".dlt").mkdir()
    (elsewhere / ".dlt/secrets.toml").write_text(block("toml", "sqlite"))
    python = "python -m analytics_pipeline run --destination sqlalchemy"
    done = shell(f"{python} --resource issues", **environment(server))
    assert done.returncode == 0, done.stderr
    assert list(elsewhere.glob("errors*.db"))


def test_json_output_has_the_documented_keys(
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
        given = folders if name == "status" else where + folders
        given = where if name == "check" else given
        if name in ("run", "verify"):
            given += " --resource events --resource issues"
        python = "python -m analytics_pipeline"
        assert command(f"{python} {name} --json{given}") == 0
        if name == "check":
            assert command(f"{python} check --freshness 24h --json{folders}") == 0
        told = {*re.findall("`([a-z_]+)`", words)}
        found = {*re.findall(r'"([a-z_]+)": ', capsys.readouterr().out)}
        # These are only present if there is a problem.
        assert told - found <= {"list", "reason", "problem"}, name


def test_the_figures_are_those_of_the_benchmarks() -> None:
    rows = table("| what | ours | other | ratio | to reach | ok |")
    assert [row[0] for row in rows] == [
        figure.what for case in cases(1) for figure in case.figures
    ]
    shown = table("| what | ours | other | ratio |")
    assert len(shown) == 3
    assert all(row in [each[:4] for each in rows] for row in shown)


def test_the_memory_of_duckdb_is_limited(elsewhere: Path) -> None:
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


SCALE = (
    "| events | sentry.io | the same, whole | self-hosted, 4 workers, 50 ms"
    " | one process, no limit | Airflow, 4 tasks, PostgreSQL |"
)
UNITS = {"s": 1, "min": 60, "h": 3600, "days": 86_400, "years": 365 * 86_400}
SENTRY, SELF_HOSTED, ONE_PROCESS, AIRFLOW = 100, 4 / 0.05 * 100, 12_500, 5_200
"""Events per second."""


@pytest.mark.parametrize("row", table(SCALE))
def test_the_arithmetic_of_scale(row: list[str]) -> None:
    events = 10 ** "⁰¹²³⁴⁵⁶⁷⁸⁹".index(row[0].removeprefix("10"))
    rates = [SENTRY, SENTRY / 10, SELF_HOSTED, ONE_PROCESS, AIRFLOW]
    for text, rate in zip(row[1:], rates, strict=True):
        number, unit = text.split()
        assert float(number) * UNITS[unit] == pytest.approx(events / rate, rel=0.05)


def test_the_partitions_are_loaded(
    postgres: Postgres, run_python: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    since = datetime.now(UTC).date() - timedelta(days=3)
    monkeypatch.setenv("DESTINATION__POSTGRES__CREDENTIALS", postgres.uri)
    midnight = f"{datetime.now(UTC):%Y-%m-%d}"
    code = block("python", "partitions").replace("2026-01-01", f"{since}")
    with small_server("sentry", events=300) as server:
        run_python(code.replace("2026-02-01", midnight), server)
        days = {
            row["id"]
            for row in server.rows("events")
            if f"{since}" <= row["dateCreated"] < midnight
        }
    assert days
    assert {key for (key,) in postgres.query("select id from analytics.events")} == days


def test_the_scopes_are_those_of_the_endpoints() -> None:
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
    words = block("sh", "verify --since").strip()
    words += f" --base-url {server.url} --organization acme --pipelines-dir pipelines"
    words += " --project frontend --project backend"
    words += " --resource events --resource issues"
    assert command(words) == 1
    shown = block("", "the warehouse differs").splitlines()
    printed = capsys.readouterr().err.splitlines()
    assert shown[0].split() in [line.split() for line in printed]
    for line in shown[1:4]:
        assert any(row.split()[:2] == line.split()[:2] for row in printed), line
    assert any(row.startswith("issues, different: ") for row in printed)
    assert any("(status, count)" in row for row in printed)
    assert re.fullmatch(shown[-1].replace("4.6", r"[\d.]+"), printed[-1])
