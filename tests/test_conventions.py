"""What dlt's users do with every source works with this one."""

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext

from analytics_pipeline import analytics_source
from analytics_pipeline import source as source_module
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.reading import Reader
from analytics_pipeline.servers import SERVERS
from analytics_pipeline.settings import Settings
from analytics_pipeline.tables import TABLES
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server

PROJECTS = ["frontend", "backend"]
REPOSITORY = Path(__file__).parents[1]


def make(server: DemoServer, project: Any = PROJECTS, **settings: Any) -> Any:
    return analytics_source(server.url, TOKEN, ORGANIZATION, project, **settings)


@pytest.fixture
def v1() -> Iterator[DemoServer]:
    with small_server() as server:
        yield server


def ids(server: DemoServer, table: str) -> list[str]:
    return sorted(str(row["id"]) for row in server.rows(table))


def test_with_resources_asks_only_for_these(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make(v1, "frontend").with_resources("issues", "releases")
    warehouse.pipeline().run(source)
    assert {request.path.split("/")[-2] for request in v1.requests} == {
        "issues",
        "releases",
    }
    assert sorted(warehouse.ids("releases")) == ids(v1, "releases")


@pytest.mark.parametrize("api", ["v1", "sentry"])
def test_add_limit_asks_for_one_page_and_moves_no_cursor(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    source = make(server, api=api)
    warehouse.pipeline().run(source.add_limit(1))
    assert len(server.requests) == len(source.resources)
    assert 0 < len(warehouse.ids("events")) < len(server.rows("events"))
    warehouse.load(server, api=api)
    assert sorted(warehouse.ids("events")) == ids(server, "events")
    assert sorted(warehouse.ids("issues")) == ids(server, "issues")


def test_apply_hints_goes_before_the_hints_of_the_source(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make(v1, "frontend", full_refresh=True)
    source.issues.apply_hints(table_name="tickets", columns={"title": {"x-pii": True}})
    source.events.apply_hints(write_disposition="append")
    pipeline = warehouse.pipeline()
    pipeline.run(source)
    pipeline.run(source)
    assert len(warehouse.ids("events")) == 2 * len(v1.rows("events", "frontend"))
    assert len(warehouse.ids("tickets")) == len(v1.rows("issues", "frontend"))
    assert pipeline.default_schema.tables["tickets"]["columns"]["title"]["x-pii"]  # type: ignore[typeddict-item]


@pytest.mark.parametrize(
    ("refresh", "project"),
    [
        ("drop_data", "frontend"),
        ("drop_resources", PROJECTS),
        ("drop_sources", PROJECTS),
    ],
)
def test_refresh_empties_the_tables_and_reads_all_again(
    refresh: Any, project: Any, v1: DemoServer, warehouse: Warehouse
) -> None:
    warehouse.load(v1, project)
    v1.remove("events", "frontend", v1.rows("events", "frontend")[-1])
    warehouse.pipeline().run(make(v1, project), refresh=refresh)
    for table in ("events", "issues"):
        slugs = [project] if isinstance(project, str) else project
        rows = [row["id"] for slug in slugs for row in v1.rows(table, slug)]
        assert sorted(warehouse.ids(table)) == sorted(rows)
    before = len(v1.requests)
    summary = warehouse.load(v1, project)
    assert sum(table.rows for table in summary.tables.values()) == 0
    assert summary.requests == len(v1.requests) - before


def test_a_frozen_schema_takes_new_fields_into_extra(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    frozen: Any = {"columns": "freeze", "data_type": "freeze"}
    pipeline.run(make(v1), schema_contract=frozen)
    v1.grow(events=1)
    v1.rows("events")[0] |= {"newField": 7, "size": "not a number"}
    pipeline.run(make(v1), schema_contract="freeze")
    sql = "select extra from analytics.events where extra is not null"
    found = [json.loads(row[0]) for row in warehouse.rows(sql)]
    new = {"newField": 7, "size": "not a number"}
    assert [extra for extra in found if new.items() <= extra.items()]


# What dlt asks of DuckDB, and DuckDB of pandas.
@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_a_dataset_gives_rows_arrow_tables_and_data_frames(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    warehouse.load(v1)
    dataset = warehouse.pipeline().dataset()
    assert sorted(dataset.issues.arrow()["id"].to_pylist()) == ids(v1, "issues")
    assert sorted(dataset.issues.select("id").df().squeeze()) == ids(v1, "issues")
    rows = dataset.issues.select("short_id", "title", "count").fetchall()
    assert len(rows) == len(v1.rows("issues")) and len(rows[0]) == 3


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )


def test_plain_python_prints_nothing_and_dlts_command_line_knows_the_pipeline(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    Path("load.py").write_text(
        "import dlt\n"
        "from analytics_pipeline import analytics_source\n"
        "pipeline = dlt.pipeline(\n"
        "    'analytics_pipeline', destination='duckdb', dataset_name='analytics'\n"
        ")\n"
        f"pipeline.run(analytics_source({v1.url!r}, {TOKEN!r}, 'acme', {PROJECTS}))\n"
    )
    loaded = run("-W", "error", "load.py")
    assert (loaded.returncode, loaded.stdout, loaded.stderr) == (0, "", "")
    assert sorted(warehouse.ids("events")) == ids(v1, "events")

    info = run("-m", "dlt", "pipeline", "analytics_pipeline", "info")
    assert info.returncode == 0, info.stderr
    assert "schema_names: ['analytics']" in info.stdout
    assert "releases with 1 table(s) and 3 resource state slot(s)" in info.stdout
    trace = run("-m", "dlt", "pipeline", "analytics_pipeline", "trace")
    assert trace.returncode == 0, trace.stderr
    assert f"- events: {len(v1.rows('events'))} row(s)" in trace.stdout
    if importlib.util.find_spec("dlthub") is None:
        show = run("-m", "dlt", "pipeline", "analytics_pipeline", "show")
        assert "Install dlt[hub]" in show.stdout + show.stderr


VALUES: dict[str, Any] = {
    "base_url": "http://errors.example.com",
    "allow_http": True,
    "auth_token": "s3cret",
    "organization": "acme",
    "project": ["a", "b"],
    "api": "sentry",
    "since": "2026-01-01",
    "until": "2026-02-01T12:00:00Z",
    "full_events": True,
    "lookback": 60.0,
    "full_refresh": True,
    "workers": 7,
    "redact": ["user.email", "tags.user.email"],
}


def text(value: Any) -> str:
    """As it stands in an environment variable."""
    return value if isinstance(value, str) else json.dumps(value)


def by_environment(prefix: str) -> Callable[..., None]:
    def set_all(values: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            patch.setenv(prefix + name.upper(), text(value))

    return set_all


def by_toml(table: str) -> Callable[..., None]:
    def set_all(values: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        Path(".dlt").mkdir()
        lines = {name: f"{name} = {json.dumps(v)}\n" for name, v in values.items()}
        secret = lines.pop("auth_token")
        Path(".dlt/secrets.toml").write_text(table + secret)
        Path(".dlt/config.toml").write_text(table + "".join(lines.values()))
        Container()[PluggableRunContext].reload_providers()

    return set_all


WAYS: dict[str, Callable[..., None]] = {
    "environment": by_environment(""),
    "environment of the source": by_environment("SOURCES__ANALYTICS_PIPELINE__"),
    "toml": by_toml(""),
    "toml of the source": by_toml("[sources.analytics_pipeline]\n"),
}


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """The settings and readers that sources were made with."""
    made: list[Any] = []

    def keep(thing: Any) -> Any:
        made.append(thing)
        return thing

    checked = Settings.checked
    with monkeypatch.context() as patch:
        patch.setattr(Settings, "checked", lambda *args: keep(checked(*args)))
        patch.setattr(
            source_module, "Reader", lambda *args, **kw: keep(Reader(*args, **kw))
        )
        yield made
    shutil.rmtree(".dlt", ignore_errors=True)
    Container()[PluggableRunContext].reload_providers()


@pytest.mark.parametrize("way", ["arguments", *WAYS])
def test_every_setting_comes_by_argument_environment_and_toml(
    way: str, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = VALUES if way == "arguments" else {}
    if way != "arguments":
        WAYS[way](VALUES, monkeypatch)
    source = analytics_source(**given)
    settings, reader = made
    api = reader.lists.api
    assert settings.since == datetime(2026, 1, 1, tzinfo=UTC)
    assert settings.until == datetime(2026, 2, 1, 12, tzinfo=UTC)
    assert (settings.auth_token, settings.many) == ("s3cret", True)
    assert settings.server is SERVERS["sentry"]
    assert (api.base_url, api.workers) == ("http://errors.example.com", 7)
    assert reader.lists.organization == "acme"
    assert reader.lists.full_events is reader.full_refresh is True
    assert reader.lookback == timedelta(minutes=1)
    row = {"user": {"email": "a@b.c"}, "id": "1"}
    assert reader.clean("events", row) == {"user": {"email": "***"}, "id": "1"}
    assert {"events_a", "events_b", "issues_a", "releases"} <= {*source.resources}


@pytest.mark.parametrize("way", WAYS)
def test_one_project_and_commit_come_by_environment_and_toml(
    way: str, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](
        VALUES | {"project": "a", "commit": True, "full_refresh": False}, monkeypatch
    )
    assert [*analytics_source().resources] == ["events"]


def test_an_argument_goes_before_the_environment_and_that_before_toml(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_toml("")(VALUES, monkeypatch)
    monkeypatch.setenv("WORKERS", "3")
    monkeypatch.setenv("ORGANIZATION", "environment")
    analytics_source(organization="argument")
    assert made[0].organization == "argument"
    assert made[1].lists.api.workers == 3
    assert made[0].projects == ("a", "b")


def test_a_toml_date_is_a_time(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_toml("since = 2026-01-01\nuntil = 2026-02-01T00:00:00+02:00\n")(
        {k: v for k, v in VALUES.items() if k not in ("since", "until")}, monkeypatch
    )
    Path(".dlt/secrets.toml").write_text('auth_token = "s3cret"')
    analytics_source()
    assert made[0].since == datetime(2026, 1, 1, tzinfo=UTC)
    assert made[0].until == datetime(2026, 1, 31, 22, tzinfo=UTC)


def test_a_value_of_another_type_is_refused_in_words(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    by_environment("")(VALUES | {"project": '["a", '}, monkeypatch)
    with pytest.raises(ConfigurationError, match="neither a slug nor a list"):
        analytics_source()


def test_all_five_tables_are_named_in_the_schema_of_the_source(v1: DemoServer) -> None:
    source = make(v1)
    assert {resource.table_name for resource in source.resources.values()} == {*TABLES}
    assert source.name == "analytics" and not v1.requests
    tables = source.discover_schema().data_tables()
    assert {table["name"] for table in tables} == {*TABLES}
