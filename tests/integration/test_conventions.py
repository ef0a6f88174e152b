"""What users of dlt do with any source works with this one."""

import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import dlt
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from dlt.common.configuration.container import Container
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.extract import DltResource
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline import analytics_source, extraction, runner
from analytics_pipeline import source as source_module
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.config import parse_config, resolve_config
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import ApiError, ConfigurationError, IncompleteLoad
from analytics_pipeline.extraction import Api
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.schema import column_name
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, make_source, small_server
from tests.fake_server import FakeServer

PROJECTS = ["frontend", "backend"]
REPOSITORY = Path(__file__).parents[2]


def ids(server: DemoServer, table: str) -> list[str]:
    return sorted(str(row.get("id", row.get("version"))) for row in server.rows(table))


def assert_loaded(warehouse: Warehouse, server: DemoServer, *tables: str) -> None:
    for table in tables or EVENTS:
        assert sorted(warehouse.ids(table)) == ids(server, table)


EVENTS = ["events"]


def test_with_resources_requests_only_the_selected_lists(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    warehouse.pipeline().run(make_source(v1, "frontend", tables=["issues", "releases"]))
    assert {request.path.split("/")[-2] for request in v1.requests} == {
        "issues",
        "releases",
    }
    assert_loaded(warehouse, v1, "releases")


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make each page a batch."""
    monkeypatch.setattr(extraction, "ROWS_PER_BATCH", 1)


def asked(server: DemoServer, load: Callable[[], object]) -> int:
    """Return the number of requests of a load."""
    before = len(server.requests)
    load()
    return len(server.requests) - before


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize(("api", "count", "workers"), [("v1", 3, 4), ("sentry", 1, 1)])
def test_add_limit_stops_reading_and_the_next_run_loads_the_rest(
    server: DemoServer, api: str, warehouse: Warehouse, count: int, workers: int
) -> None:
    tables = ["events", "releases"]

    def run_limited() -> None:
        source = make_source(server, tables=tables, api=api, workers=workers)
        warehouse.pipeline().run(source.add_limit(count))

    for _ in range(2):
        spent = asked(server, run_limited)
        assert workers > 1 or spent <= 3 * len(tables)
        assert_no_promise_beyond_the_rows(warehouse, server)
    assert warehouse.ids("events")
    warehouse.pipeline().run(make_source(server, tables=tables, api=api))
    assert_loaded(warehouse, server, *tables)


def assert_no_promise_beyond_the_rows(
    warehouse: Warehouse, server: DemoServer, field: str = "dateCreated"
) -> None:
    """Check that all rows within the loaded spans of bookmarks are there."""
    held = {*warehouse.ids("events")}
    for key, bookmark in warehouse.bookmarks().get("events", {}).items():
        for start, end, _ in bookmark.get("loaded", ()):
            loaded = {
                row["id"]
                for row in server.rows("events", key.rpartition("/")[2])
                if moment(start or "0001-01-01T00:00:00Z")
                <= moment(row[field])
                <= moment(end)
            }
            assert loaded <= held


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.mark.usefixtures("small_batches")
def test_runner_load_takes_a_source_with_a_limit(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make_source(v1, tables=EVENTS).add_limit(1)
    assert runner.load(warehouse.pipeline(), source).loads == 1
    assert len(warehouse.ids("events")) == 20
    warehouse.load(v1, tables=EVENTS)
    assert_loaded(warehouse, v1)


def is_python(table: pa.Table) -> pa.Table:
    return table.filter(pc.field("platform") == "python")


def test_add_map_can_filter_rows_without_affecting_bookmarks(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    def run_filtered() -> None:
        source = make_source(v1, tables=EVENTS)
        source.events.add_map(is_python)
        warehouse.pipeline().run(source)

    def spans(state: Any) -> dict[str, Any]:
        bookmarks = state["sources"]["analytics"]["resources"]["events"]["bookmarks"]
        return {key: bookmark["loaded"] for key, bookmark in bookmarks.items()}

    run_filtered()
    filtered = spans(warehouse.pipeline().state)
    platforms = warehouse.rows("select distinct platform from analytics.events")
    assert platforms == [("python",)]
    assert asked(v1, run_filtered) == 2

    whole = runner.make_pipeline(name="whole", pipelines_dir="whole")
    whole.run(make_source(v1, tables=EVENTS))
    assert filtered == spans(whole.state)


@pytest.mark.usefixtures("small_batches")
def test_add_filter_can_drop_whole_batches(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make_source(v1, tables=EVENTS)
    source.events.add_filter(lambda table: False)
    warehouse.pipeline().run(source)
    dropped: list[str] = []

    def is_wanted(table: pa.Table) -> bool:
        if dropped:
            return True
        dropped.extend(table["id"].to_pylist())
        return False

    source = make_source(v1, tables=EVENTS)
    source.events.add_filter(is_wanted)
    warehouse.pipeline().run(source)
    assert len(dropped) == 20
    assert sorted(warehouse.ids("events") + dropped) == ids(v1, "events")
    again = make_source(v1, tables=EVENTS)
    assert asked(v1, lambda: warehouse.pipeline().run(again)) == 2


@pytest.mark.usefixtures("small_batches")
def test_a_failing_map_leaves_state_and_rows_unchanged(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()

    def run_failing() -> None:
        batches: list[Any] = []

        def fail(table: pa.Table) -> pa.Table:
            batches.append(table)
            if len(batches) == 2:
                raise LookupError("the second batch")
            return table

        bookmarks, state = warehouse.bookmarks(), pipeline.state.get("sources")
        source = make_source(v1, tables=EVENTS)
        source.events.add_map(fail)
        with pytest.raises(PipelineStepFailed, match="the second batch"):
            pipeline.run(source)
        assert warehouse.bookmarks() == bookmarks
        assert pipeline.state.get("sources") == state

    run_failing()
    pipeline.run(make_source(v1, tables=EVENTS))
    before = ids(v1, "events")
    v1.grow(events=50)
    run_failing()
    assert sorted(warehouse.ids("events")) == before
    pipeline.run(make_source(v1, tables=EVENTS))
    assert_loaded(warehouse, v1)


def dates(server: DemoServer, field: str = "dateCreated") -> list[str]:
    return sorted(row[field] for row in server.rows("events"))


@pytest.mark.parametrize(("api", "field"), [("glitchtip", "dateReceived")])
def test_an_incremental_with_an_end_value_loads_exactly_its_range_without_a_bookmark(
    server: DemoServer, api: str, field: str, warehouse: Warehouse
) -> None:
    start, end = (moment(dates(server, field)[n]) for n in (15, 40))
    start, end = (time.replace(microsecond=0) for time in (start, end))
    source = make_source(server, tables=["events", "issues"], api=api)
    column = column_name(field)
    source.events.apply_hints(
        incremental=dlt.sources.incremental(column, initial_value=start, end_value=end)
    )
    warehouse.pipeline().run(source)
    wanted = [
        str(row["id"])
        for row in server.rows("events")
        if start <= moment(row[field]) < end
    ]
    assert len(wanted) > 20
    assert sorted(warehouse.ids("events")) == sorted(wanted)
    assert "events" not in warehouse.bookmarks()
    assert_loaded(warehouse, server, "issues")
    warehouse.pipeline().run(make_source(server, tables=EVENTS, api=api))
    assert_loaded(warehouse, server)


def test_an_incremental_sets_since_and_lookback(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    def load(**hint: Any) -> runner.Summary:
        source = make_source(v1, tables=EVENTS)
        source.events.apply_hints(
            incremental=dlt.sources.incremental("date_created", **hint)
        )
        return runner.load(warehouse.pipeline(), source)

    start = moment(dates(v1)[15])
    load(initial_value=start)
    assert len(warehouse.ids("events")) == 45
    bookmarks = warehouse.bookmarks()["events"].values()
    assert {moment(each["loaded"][0][0]) for each in bookmarks} == {start}
    for hours, reread in ((0.0, 2), (10_000.0, 45)):
        events = load(initial_value=start, lag=hours * 3600).tables["events"]
        assert (events.rows, events.reread) == (0, reread)


def test_an_incremental_on_another_column_is_refused(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    def misled() -> Any:
        source = make_source(v1, tables=EVENTS)
        hint = dlt.sources.incremental[str]("title")
        source.events.apply_hints(incremental=hint)
        return source

    with pytest.raises(PipelineStepFailed, match="'title' is not possible") as failed:
        warehouse.pipeline().run(misled())
    assert isinstance(runner.root_error(failed.value), ConfigurationError)
    with pytest.raises(ConfigurationError, match="filter rows with add_map"):
        runner.load(warehouse.pipeline(), misled())
    assert v1.requests == []


def test_a_single_resource_can_be_run_and_a_source_run_twice(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    pipeline, source = warehouse.pipeline(), make_source(v1)
    pipeline.run(source.events)
    assert {request.path.split("/")[-2] for request in v1.requests} == {"events"}
    assert_loaded(warehouse, v1)
    v1.grow(events=10)
    again = source.with_resources("events")
    assert asked(v1, lambda: pipeline.run(again)) == 2
    assert_loaded(warehouse, v1)
    assert sum(table.num_rows for table in make_source(v1).events) == 70


def test_resources_can_be_extracted_one_after_the_other(
    v1: DemoServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACT__NEXT_ITEM_MODE", "fifo")
    monkeypatch.setattr(DltResource, "parallelize", lambda resource: resource)
    warehouse.pipeline().run(make_source(v1, workers=1))
    tables = [request.path.split("/")[-2] for request in v1.requests]
    assert tables == sorted(tables, key=tables.index)
    assert_loaded(warehouse, v1, *TABLES)


def test_sources_with_different_names_have_separate_bookmarks(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    for name in ("first", "second"):
        made = analytics_source.clone(name=name)(v1.url, TOKEN, ORGANIZATION, PROJECTS)
        load = partial(warehouse.pipeline().run, made.with_resources("events"))
        assert asked(v1, load) == 3
    sources: Any = warehouse.pipeline().state["sources"]
    assert {*sources} == {"first", "second"}
    assert_loaded(warehouse, v1)


def test_one_run_can_have_a_source_for_each_project(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    tables = ["events", "releases"]

    def run_both() -> None:
        sources = [make_source(v1, slug, tables=tables) for slug in PROJECTS]
        warehouse.pipeline().run(sources)

    run_both()
    v1.grow(events=10, releases=1)
    run_both()
    assert_loaded(warehouse, v1, *tables)
    assert asked(v1, run_both) == 2 * 2


@pytest.mark.parametrize("api", ["sentry"])
def test_replace_loads_all_rows_each_time(
    server: FakeServer, api: str, warehouse: Warehouse
) -> None:
    tables = ["events", "issues"]
    for _ in range(2):
        source = make_source(server, tables=tables, api=api)
        warehouse.pipeline().run(source, write_disposition="replace")
        assert_loaded(warehouse, server, *tables)
        server.remove("events", "frontend", server.rows("events", "frontend")[-1])
    server.grow(events=5)
    warehouse.load(server, tables=EVENTS, api=api)
    assert {*ids(server, "events")} < {*warehouse.ids("events")}


def test_a_row_that_moves_to_another_page_is_loaded_once_by_replace(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    """dlt removes copies of rows only by merge."""

    def grow(handler: Any, good: Any) -> Any:
        v1.grow(events=3)
        return good

    v1.fail(grow, on="/frontend/events/", times=1)
    source = make_source(v1, tables=EVENTS)
    source.events.apply_hints(write_disposition="replace")
    warehouse.pipeline().run(source)
    found = warehouse.ids("events")
    assert len(found) >= 60
    assert sorted(found) == sorted({*found})


def test_a_replaced_table_is_loaded_completely_or_left_unchanged(
    warehouse: Warehouse,
) -> None:
    """Even if another table takes several loads."""
    tables = ["events", "releases"]

    def load() -> runner.Summary:
        source = make_source(server, tables=tables, rows_per_load=40)
        source.events.apply_hints(write_disposition="replace")
        return runner.load(warehouse.pipeline(), source)

    with small_server(releases=60) as server:
        assert load().loads > 1
        assert_loaded(warehouse, server, *tables)
        before = ids(server, "events")
        server.grow(events=5)
        server.fail(500, on="/backend/events/", times=4)
        with pytest.raises(ApiError, match="500"):
            load()
        assert sorted(warehouse.ids("events")) == before
        load()
        assert_loaded(warehouse, server)


@pytest.mark.parametrize("run", [dlt.Pipeline.run, runner.load])
def test_dev_mode_loads_everything_into_each_new_dataset(
    v1: DemoServer, elsewhere: Path, run: Callable[..., Any]
) -> None:
    for _ in range(2):
        pipeline = dlt.pipeline(
            "dev", destination="duckdb", pipelines_dir="dev", dev_mode=True
        )
        load = partial(run, pipeline, make_source(v1, tables=EVENTS))
        assert asked(v1, load) == 3
        with pipeline.sql_client() as client:
            found = client.execute_sql("select id from events")
        assert sorted(row[0] for row in found or ()) == ids(v1, "events")
    assert asked(v1, lambda: run(pipeline, make_source(v1, tables=EVENTS))) == 2


@pytest.mark.parametrize("run", [dlt.Pipeline.run, runner.load])
def test_an_attached_pipeline_continues_incrementally(
    v1: DemoServer, warehouse: Warehouse, run: Callable[..., Any]
) -> None:
    pipeline = warehouse.pipeline()
    run(pipeline, make_source(v1, tables=EVENTS))
    v1.grow(events=5)
    attached = dlt.attach(pipeline.pipeline_name, pipelines_dir=pipeline.pipelines_dir)
    assert asked(v1, lambda: run(attached, make_source(v1, tables=EVENTS))) == 2
    assert_loaded(warehouse, v1)


def test_extract_normalize_and_load_can_run_separately(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    pipeline.extract(make_source(v1, tables=EVENTS))
    pipeline.normalize()
    pipeline.load()
    assert_loaded(warehouse, v1)


def test_a_transformer_can_follow_a_resource(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make_source(v1)

    @dlt.transformer(data_from=source.events, name="titles")
    def titles(table: pa.Table) -> Iterator[pa.Table]:
        yield table.select(["id", "title"])

    warehouse.pipeline().run([source.events, titles])
    assert_loaded(warehouse, v1)
    assert sorted(warehouse.ids("titles")) == ids(v1, "events")


@pytest.mark.parametrize("api", ["glitchtip"])
def test_the_schema_marks_the_cursor_column_and_the_trace_counts_rows(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    info = pipeline.run(make_source(server, api=api))
    assert not info.has_failed_jobs
    schema = pipeline.default_schema
    for table, endpoint in APIS[api].endpoints.items():
        columns = schema.tables[table]["columns"].values()
        marked = [c["name"] for c in columns if c.get("incremental")]
        assert marked == [column_name(endpoint.replication_key)]
    trace: Any = pipeline.last_trace
    rows = {table: len(server.rows(table)) for table in TABLES}
    assert rows.items() <= trace.last_normalize_info.row_counts.items()
    (metrics,) = trace.last_extract_info.metrics.values()
    resources = metrics[0]["resource_metrics"]
    assert {name: resources[name].items_count for name in TABLES} == rows
    lists = resources["events"].custom_metrics["lists"]
    assert {each["project"] for each in lists} == {*PROJECTS}
    assert sum(each["rows"] for each in lists) == rows["events"]


def last_values(pipeline: dlt.Pipeline) -> dict[str, datetime | None]:
    """Return table → the last value of its incremental."""
    state: Any = pipeline.state["sources"]["analytics"]["resources"]
    return {
        table: cursor["last_value"]
        for table in state
        for cursor in state[table].get("incremental", {}).values()
    }


def test_the_last_value_is_the_oldest_end_of_the_bookmarks(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    tables = ["events", "issues", "releases"]
    for _ in range(2):
        warehouse.pipeline().run(make_source(v1, tables=tables))
        found = last_values(warehouse.pipeline())
        for table, bookmarks in warehouse.bookmarks().items():
            ends = [moment(each["loaded"][0][1]) for each in bookmarks.values()]
            assert found[table] == min(ends), table
        assert found.keys() == {*tables}
        v1.grow(events=5, issues=1, releases=1)


def newest(server: DemoServer, project: str) -> datetime:
    return max(moment(row["dateCreated"]) for row in server.rows("events", project))


@pytest.mark.parametrize(("status", "project"), [(403, "frontend"), (500, "backend")])
def test_the_last_value_is_none_while_a_project_was_not_read(
    v1: FakeServer, warehouse: Warehouse, status: int, project: str
) -> None:
    v1.fail(status, on=f"/{project}/events/", times=99)
    with nullcontext() if status == 403 else pytest.raises(IncompleteLoad):
        warehouse.load(v1, tables=EVENTS)
    assert last_values(warehouse.pipeline())["events"] is None
    v1.mend()
    warehouse.load(v1, tables=EVENTS)
    found = last_values(warehouse.pipeline())["events"]
    assert found == min(newest(v1, slug) for slug in PROJECTS)


def test_apply_hints_overrides_the_hints_of_the_source(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make_source(v1, "frontend", tables=["events", "issues"], full_refresh=True)
    source.issues.apply_hints(table_name="tickets", columns={"title": {"x-pii": True}})
    source.events.apply_hints(write_disposition="append")
    pipeline = warehouse.pipeline()
    pipeline.run(source)
    pipeline.run(source)
    assert len(warehouse.ids("events")) == 2 * len(v1.rows("events", "frontend"))
    assert len(warehouse.ids("tickets")) == len(v1.rows("issues", "frontend"))
    assert pipeline.default_schema.tables["tickets"]["columns"]["title"]["x-pii"]  # type: ignore[typeddict-item]


def test_refresh_empties_the_tables_and_loads_everything_again(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    """Other kinds of refresh are tested with several projects and with old datasets."""
    warehouse.load(v1, tables=EVENTS)
    v1.remove("events", "frontend", v1.rows("events", "frontend")[-1])
    refreshed = make_source(v1, tables=EVENTS)
    warehouse.pipeline().run(refreshed, refresh="drop_resources")
    assert_loaded(warehouse, v1)
    summary = warehouse.load(v1, tables=EVENTS)
    assert (summary.tables["events"].rows, summary.requests) == (0, 2)


def test_a_frozen_schema_stores_new_fields_in_extra(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    frozen: Any = {"columns": "freeze", "data_type": "freeze"}
    pipeline.run(make_source(v1, tables=EVENTS), schema_contract=frozen)
    v1.grow(events=1)
    v1.rows("events")[0] |= {"newField": 7, "size": "not a number"}
    pipeline.run(make_source(v1, tables=EVENTS), schema_contract="freeze")
    sql = "select extra from analytics.events where extra is not null"
    found = [json.loads(row[0]) for row in warehouse.rows(sql)]
    new = {"newField": 7, "size": "not a number"}
    assert [extra for extra in found if new.items() <= extra.items()]


# Warnings of DuckDB about calls of dlt, and of pandas about calls of DuckDB.
@pytest.mark.filterwarnings("ignore:fetch_arrow_table:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword")
def test_a_dataset_returns_rows_arrow_tables_and_data_frames(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    warehouse.load(v1, tables=["issues"])
    dataset = warehouse.pipeline().dataset()
    assert sorted(dataset.issues.arrow()["id"].to_pylist()) == ids(v1, "issues")
    assert sorted(dataset.issues.select("id").df().squeeze()) == ids(v1, "issues")
    rows = dataset.issues.select("short_id", "title", "count").fetchall()
    assert len(rows) == len(v1.rows("issues"))
    assert len(rows[0]) == 3


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


def test_a_plain_script_prints_only_warnings_and_the_dlt_command_finds_its_pipeline(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    Path("load.py").write_text(
        "import dlt\n"
        "from analytics_pipeline import analytics_source\n"
        "pipeline = dlt.pipeline(\n"
        "    'analytics_pipeline', destination='duckdb', dataset_name='analytics'\n"
        ")\n"
        f"source = analytics_source({v1.url!r}, {TOKEN!r}, 'acme', {PROJECTS})\n"
        "pipeline.run(source.with_resources('events', 'releases'))\n"
        "for disposition in ('replace', 'append'):\n"
        "    other = dlt.pipeline(disposition, destination='duckdb')\n"
        f"    source = analytics_source({v1.url!r}, {TOKEN!r}, 'acme', {PROJECTS})\n"
        "    events = source.with_resources('events')\n"
        "    other.run(events, write_disposition=disposition)\n"
    )
    loaded = run("-W", "error", "load.py")
    assert (loaded.returncode, loaded.stdout) == (0, "")
    (warning,) = loaded.stderr.splitlines()
    assert warning.startswith("events: rows that are read again")
    assert_loaded(warehouse, v1)

    info = run("-m", "dlt", "pipeline", "analytics_pipeline", "info")
    assert info.returncode == 0, info.stderr
    assert "schema_names: ['analytics']" in info.stdout
    assert "releases with 1 table(s) and 2 resource state slot(s)" in info.stdout


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
    "rows_per_load": 5000,
    "workers": 7,
    "redact": ["user.email", "tags.user.email"],
    "history": True,
    "sweep": "12h",
    "tags": ["browser", "plan"],
    "exclude": ["events.entries"],
    "row_format": "python",
    "headers": {"CF-Access-Client-Secret": "s3cret-2"},
}


def text(value: Any) -> str:
    """Return the value as an environment variable."""
    return value if isinstance(value, str) else json.dumps(value)


def by_environment(prefix: str) -> Callable[..., None]:
    def set_all(values: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        for name, value in values.items():
            patch.setenv(prefix + name.upper(), text(value))

    return set_all


def by_toml(table: str) -> Callable[..., None]:
    def set_all(values: dict[str, Any], patch: pytest.MonkeyPatch) -> None:
        Path(".dlt").mkdir()
        texts = {name: json.dumps(value) for name, value in values.items()}
        texts["headers"] = texts["headers"].replace(":", " =")
        lines = {name: f"{name} = {value}\n" for name, value in texts.items()}
        secret = lines.pop("auth_token") + lines.pop("headers")
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
    """Collects the configuration and the shared state of each source."""
    made: list[Any] = []

    def keep(thing: Any) -> Any:
        made.append(thing)
        return thing

    with monkeypatch.context() as patch:
        patch.setattr(
            source_module, "parse_config", lambda **given: keep(parse_config(**given))
        )
        patch.setattr(source_module, "Api", lambda *parts: keep(Api(*parts)))
        yield made
    shutil.rmtree(".dlt", ignore_errors=True)
    Container()[PluggableRunContext].reload_providers()


def test_the_tests_cover_all_settings() -> None:
    assert VALUES.keys() == inspect.signature(analytics_source).parameters.keys()


@pytest.mark.parametrize("way", ["arguments", *WAYS])
def test_every_setting_can_be_an_argument_a_variable_or_in_toml(
    way: str, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    given = VALUES if way == "arguments" else {}
    if way != "arguments":
        WAYS[way](VALUES, monkeypatch)
    source = analytics_source(**given)
    config, shared = made
    client = shared.client
    assert config.since == datetime(2026, 1, 1, tzinfo=UTC)
    assert config.until == datetime(2026, 2, 1, 12, tzinfo=UTC)
    assert config.auth_token == "s3cret"
    assert config.headers == {"CF-Access-Client-Secret": "s3cret-2"}
    assert config.projects == ("a", "b")
    assert client.spec is config.spec is APIS["sentry"]
    assert client.session.base_url == "http://errors.example.com"
    assert config.workers == 7
    assert client.organization == "acme"
    assert config.full_events is config.full_refresh is True
    assert config.lookback == timedelta(minutes=1)
    assert config.rows_per_load == 5000
    assert (config.history, config.sweep) == (True, timedelta(hours=12))
    assert [*config.tables["events"].tags] == ["tag_browser", "tag_plan"]
    assert config.tables["events"].excluded == {"entries"}
    assert config.row_format == "python"
    row = {"user": {"email": "a@b.c"}, "id": "1"}
    built = shared.builder.build("events", "id", "a", [row], datetime.now(UTC))
    assert json.loads(built.rows["user"][0].as_py()) == {"email": "***"}
    assert {*source.resources} == {*TABLES, HISTORY}
    # As for the command `check`.
    assert resolve_config(**given) == config


def test_arguments_override_the_environment_which_overrides_toml(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_toml("")(VALUES, monkeypatch)
    monkeypatch.setenv("WORKERS", "3")
    monkeypatch.setenv("ORGANIZATION", "environment")
    analytics_source(organization="argument")
    assert made[0].organization == "argument"
    assert made[0].workers == 3
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


def test_the_schema_of_the_source_has_all_five_tables(v1: DemoServer) -> None:
    source = make_source(v1)
    assert {resource.table_name for resource in source.resources.values()} == {*TABLES}
    assert source.name == "analytics"
    assert not v1.requests
    tables = source.discover_schema().data_tables()
    assert {table["name"] for table in tables} == {*TABLES}
