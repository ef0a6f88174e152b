"""What dlt's users do with every source works with this one."""

import importlib.util
import inspect
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
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

from analytics_pipeline import analytics_source, runner
from analytics_pipeline import source as source_module
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.config import parse_config, resolve_config
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import ApiError, ConfigurationError, IncompleteLoad
from analytics_pipeline.loading import run as run_module
from analytics_pipeline.sync import Sync
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.schema import TABLES, column_name
from tests.conftest import ORGANIZATION, TOKEN, Warehouse, small_server
from tests.fake_server import FakeServer

PROJECTS = ["frontend", "backend"]
REPOSITORY = Path(__file__).parents[2]


def make(server: DemoServer, project: Any = PROJECTS, **settings: Any) -> Any:
    return analytics_source(server.url, TOKEN, ORGANIZATION, project, **settings)


@pytest.fixture
def v1() -> Iterator[FakeServer]:
    with small_server() as server:
        yield server


def ids(server: DemoServer, table: str) -> list[str]:
    return sorted(str(row.get("id", row.get("version"))) for row in server.rows(table))


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


@pytest.fixture
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each page is handed over as a batch of its own."""
    monkeypatch.setattr(run_module, "ROWS_PER_BATCH", 1)


NOTHING_NEW = 3 * len(PROJECTS) + 2
"""Requests of a run that finds nothing new: one for each list."""


@pytest.mark.parametrize("api", ["v1", "sentry", "glitchtip"])
def test_add_limit_reads_no_further_than_the_workers_have_asked(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    source = make(server, "frontend", api=api, workers=1)
    warehouse.pipeline().run(source.with_resources("events").add_limit(1))
    assert len(server.requests) <= 2
    assert len(warehouse.ids("events")) == 20


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("workers", [1, 4])
def test_after_add_limit_the_next_run_loads_the_rest(
    server: DemoServer, api: str, warehouse: Warehouse, count: int, workers: int
) -> None:
    for _ in range(2):
        source = make(server, api=api, workers=workers)
        warehouse.pipeline().run(source.add_limit(count))
        assert_no_promise_beyond_the_rows(warehouse, server)
    assert warehouse.ids("events")
    warehouse.pipeline().run(make(server, api=api))
    for table in ("events", "issues", "releases"):
        assert sorted(warehouse.ids(table)) == ids(server, table)


def assert_no_promise_beyond_the_rows(warehouse: Warehouse, server: DemoServer) -> None:
    """What a bookmark says is loaded of a project is there."""
    held = {*warehouse.ids("events")}
    bookmarks = warehouse.bookmarks().get("events", {})
    for key, bookmark in bookmarks.items():
        if bookmark.get("synced_to"):
            project = key.rpartition("/")[2]
            assert {row["id"] for row in server.rows("events", project)} <= held


@pytest.mark.usefixtures("small_batches")
def test_runner_load_takes_a_source_with_a_limit(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make(v1).with_resources("events").add_limit(1)
    assert runner.load(warehouse.pipeline(), source).loads == 1
    assert len(warehouse.ids("events")) == 20
    warehouse.load(v1)
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


def is_python(table: pa.Table) -> pa.Table:
    return table.filter(pc.field("platform") == "python")


def test_add_map_filters_rows_and_the_bookmarks_move_all_the_same(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()

    def run_filtered() -> None:
        source = make(server, api=api)
        source.events.add_map(is_python)
        pipeline.run(source)

    def intervals(bookmarks: dict[str, dict[str, Any]]) -> dict[str, list[Any]]:
        return {k: [v["since"], v["synced_to"]] for k, v in bookmarks.items()}

    run_filtered()
    filtered = intervals(warehouse.bookmarks()["events"])
    platforms = warehouse.rows("select distinct platform from analytics.events")
    assert platforms == [("python",)]
    before = len(server.requests)
    run_filtered()
    assert len(server.requests) - before == NOTHING_NEW

    whole = runner.make_pipeline(name="whole", pipelines_dir="whole")
    whole.run(make(server, api=api))
    state: Any = whole.state["sources"]["analytics"]
    assert filtered == intervals(state["resources"]["events"]["bookmarks"])


@pytest.mark.usefixtures("small_batches")
def test_add_filter_drops_whole_batches(v1: DemoServer, warehouse: Warehouse) -> None:
    dropped: list[str] = []

    def is_wanted(table: pa.Table) -> bool:
        if dropped:
            return True
        dropped.extend(table["id"].to_pylist())
        return False

    source = make(v1)
    source.events.add_filter(is_wanted)
    warehouse.pipeline().run(source)
    assert len(dropped) == 20
    assert sorted(warehouse.ids("events") + dropped) == ids(v1, "events")
    before = len(v1.requests)
    warehouse.pipeline().run(make(v1))
    assert len(v1.requests) - before == NOTHING_NEW


def test_a_filter_that_drops_every_row_does_no_lasting_harm(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    source = make(v1)
    source.events.add_filter(lambda table: False)
    warehouse.pipeline().run(source)
    warehouse.pipeline().run(make(v1))
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("is_first_run", [True, False])
def test_a_map_that_fails_at_the_second_batch_leaves_state_and_rows_as_they_were(
    server: DemoServer, api: str, warehouse: Warehouse, is_first_run: bool
) -> None:
    pipeline = warehouse.pipeline()
    if not is_first_run:
        pipeline.run(make(server, api=api))
        server.grow(events=50)
    bookmarks, state = warehouse.bookmarks(), pipeline.state.get("sources")
    batches: list[Any] = []

    def fail(table: pa.Table) -> pa.Table:
        batches.append(table)
        if len(batches) == 2:
            raise LookupError("the second batch")
        return table

    source = make(server, api=api)
    source.events.add_map(fail)
    with pytest.raises(PipelineStepFailed, match="the second batch"):
        pipeline.run(source)
    assert warehouse.bookmarks() == bookmarks
    assert pipeline.state.get("sources") == state
    if not is_first_run:
        assert len(warehouse.ids("events")) == len(server.rows("events")) - 50
    pipeline.run(make(server, api=api))
    assert sorted(warehouse.ids("events")) == ids(server, "events")


def dates(server: DemoServer, field: str = "dateCreated") -> list[str]:
    return sorted(row[field] for row in server.rows("events"))


@pytest.mark.parametrize(
    ("api", "field"),
    [("v1", "dateCreated"), ("sentry", "dateCreated"), ("glitchtip", "dateReceived")],
)
def test_an_incremental_with_both_ends_is_read_exactly_and_keeps_no_bookmark(
    server: DemoServer, api: str, field: str, warehouse: Warehouse
) -> None:
    start, end = (datetime.fromisoformat(dates(server, field)[n]) for n in (15, 40))
    start, end = (time.replace(microsecond=0) for time in (start, end))
    source = make(server, api=api)
    column = column_name(field)
    source.events.apply_hints(
        incremental=dlt.sources.incremental(column, initial_value=start, end_value=end)
    )
    warehouse.pipeline().run(source)
    wanted = [
        str(row["id"])
        for row in server.rows("events")
        if start <= datetime.fromisoformat(row[field]) < end
    ]
    assert len(wanted) > 20
    assert sorted(warehouse.ids("events")) == sorted(wanted)
    assert "events" not in warehouse.bookmarks()
    assert sorted(warehouse.ids("issues")) == ids(server, "issues")
    warehouse.pipeline().run(make(server, api=api))
    assert sorted(warehouse.ids("events")) == ids(server, "events")


def test_the_initial_value_of_an_incremental_is_a_since(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    start = dates(v1)[15]
    source = make(v1)
    source.events.apply_hints(
        incremental=dlt.sources.incremental("date_created", initial_value=start)
    )
    warehouse.pipeline().run(source)
    assert len(warehouse.ids("events")) == 45
    (since,) = {each["since"] for each in warehouse.bookmarks()["events"].values()}
    assert since == start
    assert sorted(warehouse.ids("issues")) == ids(v1, "issues")


def test_the_lag_of_an_incremental_is_the_lookback(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    warehouse.load(v1)
    for hours, reread in ((0.0, 2), (10_000.0, 60)):
        source = make(v1)
        source.events.apply_hints(
            incremental=dlt.sources.incremental("date_created", lag=hours * 3600)
        )
        events = runner.load(warehouse.pipeline(), source).tables["events"]
        assert (events.rows, events.reread) == (0, reread)


def test_an_incremental_on_another_column_is_refused(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    hint = dlt.sources.incremental[str]("title")
    source = make(v1)
    source.events.apply_hints(incremental=hint)
    with pytest.raises(PipelineStepFailed, match="'title' is not possible") as failed:
        warehouse.pipeline().run(source)
    assert isinstance(runner.root_error(failed.value), ConfigurationError)
    source = make(v1)
    source.events.apply_hints(incremental=hint)
    with pytest.raises(ConfigurationError, match="filter rows with add_map"):
        runner.load(warehouse.pipeline(), source)
    warehouse.pipeline().run(make(v1))
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


def test_a_resource_alone_and_one_source_for_two_runs(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    pipeline, source = warehouse.pipeline(), make(v1)
    pipeline.run(source.events)
    assert {request.path.split("/")[-2] for request in v1.requests} == {"events"}
    assert sorted(warehouse.ids("events")) == ids(v1, "events")
    v1.grow(events=10)
    before = len(v1.requests)
    pipeline.run(source.with_resources("events"))
    assert len(v1.requests) - before == 2
    assert sorted(warehouse.ids("events")) == ids(v1, "events")
    # without a pipeline, as dlt's documentation shows to look at a resource
    assert sum(table.num_rows for table in make(v1).events) == 70


def test_resources_that_are_read_one_after_the_other(
    v1: DemoServer, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACT__NEXT_ITEM_MODE", "fifo")
    monkeypatch.setattr(DltResource, "parallelize", lambda resource: resource)
    warehouse.pipeline().run(make(v1, workers=1))
    tables = [request.path.split("/")[-2] for request in v1.requests]
    assert tables == sorted(tables, key=tables.index)
    for table in TABLES:
        assert sorted(warehouse.ids(table)) == ids(v1, table)


def test_sources_of_two_names_keep_their_bookmarks_apart(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    for name in ("first", "second"):
        source = analytics_source.clone(name=name)
        before = len(v1.requests)
        warehouse.pipeline().run(source(v1.url, TOKEN, ORGANIZATION, PROJECTS))
        assert len(v1.requests) - before > NOTHING_NEW
    sources: Any = warehouse.pipeline().state["sources"]
    assert {*sources} == {"first", "second"}
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


def test_a_source_for_each_project_in_one_run(
    v1: DemoServer, warehouse: Warehouse
) -> None:
    def run_both() -> int:
        before = len(v1.requests)
        warehouse.pipeline().run([make(v1, slug) for slug in PROJECTS])
        return len(v1.requests) - before

    run_both()
    v1.grow(events=10)
    run_both()
    for table in TABLES:
        assert sorted(warehouse.ids(table)) == ids(v1, table)
    assert run_both() == 2 * 5


def test_replace_gives_all_rows_of_the_server_each_time(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    for _ in range(3):
        pipeline.run(make(server, api=api), write_disposition="replace")
        for table in TABLES:
            assert sorted(warehouse.ids(table)) == ids(server, table)
        server.remove("events", "frontend", server.rows("events", "frontend")[-1])
    server.grow(events=5)
    warehouse.load(server, api=api)
    assert {*ids(server, "events")} < {*warehouse.ids("events")}


@pytest.mark.parametrize("disposition", ["replace", "upsert"])
def test_a_row_that_moves_to_another_page_comes_once(
    v1: FakeServer, warehouse: Warehouse, disposition: str
) -> None:
    """dlt removes copies only where it deletes and inserts."""

    def grow(handler: Any, good: Any) -> Any:
        v1.grow(events=3)
        return good

    v1.fail(grow, on="/frontend/events/", times=1)
    source = make(v1)
    hint: Any = disposition
    if disposition == "upsert":
        hint = {"disposition": "merge", "strategy": "upsert"}
    source.events.apply_hints(write_disposition=hint)
    warehouse.pipeline().run(source)
    found = warehouse.ids("events")
    assert len(found) >= 60
    assert sorted(found) == sorted({*found})


def test_a_list_that_fails_takes_no_rows_from_a_table_that_is_replaced(
    v1: FakeServer, warehouse: Warehouse
) -> None:
    warehouse.load(v1)
    v1.fail(500, on="/backend/events/", times=4)
    source = make(v1)
    source.events.apply_hints(write_disposition="replace")
    with pytest.raises(ApiError, match="500"):
        runner.load(warehouse.pipeline(), source)
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


def test_replace_of_one_resource_by_hint_in_pieces(
    warehouse: Warehouse,
) -> None:
    with small_server(issues=300) as server:
        for _ in range(2):
            source = make(server, rows_per_load=20)
            source.events.apply_hints(write_disposition="replace")
            runner.load(warehouse.pipeline(), source)
            assert sorted(warehouse.ids("events")) == ids(server, "events")
            assert sorted(warehouse.ids("issues")) == ids(server, "issues")
            server.grow(events=5)


@pytest.mark.parametrize("run", [dlt.Pipeline.run, runner.load])
def test_dev_mode_reads_all_into_each_new_dataset(
    v1: DemoServer, elsewhere: Path, run: Callable[..., Any]
) -> None:
    counts = []
    for _ in range(2):
        pipeline = dlt.pipeline(
            "dev", destination="duckdb", pipelines_dir="dev", dev_mode=True
        )
        before = len(v1.requests)
        run(pipeline, make(v1))
        counts.append(len(v1.requests) - before)
        with pipeline.sql_client() as client:
            found = client.execute_sql("select id from events")
        assert sorted(row[0] for row in found or ()) == ids(v1, "events")
    assert counts[0] == counts[1] > NOTHING_NEW
    before = len(v1.requests)
    run(pipeline, make(v1))
    assert len(v1.requests) - before == NOTHING_NEW


@pytest.mark.parametrize("run", [dlt.Pipeline.run, runner.load])
def test_an_attached_pipeline_goes_on(
    v1: DemoServer, warehouse: Warehouse, run: Callable[..., Any]
) -> None:
    pipeline = warehouse.pipeline()
    run(pipeline, make(v1))
    v1.grow(events=5)
    before = len(v1.requests)
    attached = dlt.attach(pipeline.pipeline_name, pipelines_dir=pipeline.pipelines_dir)
    run(attached, make(v1))
    assert len(v1.requests) - before == NOTHING_NEW
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


def test_the_steps_of_a_run_one_by_one(v1: DemoServer, warehouse: Warehouse) -> None:
    pipeline = warehouse.pipeline()
    pipeline.extract(make(v1))
    pipeline.normalize()
    pipeline.load()
    assert sorted(warehouse.ids("events")) == ids(v1, "events")


def test_a_transformer_behind_a_resource(v1: DemoServer, warehouse: Warehouse) -> None:
    source = make(v1)

    @dlt.transformer(data_from=source.events, name="titles")
    def titles(table: pa.Table) -> Iterator[pa.Table]:
        yield table.select(["id", "title"])

    warehouse.pipeline().run([source.events, titles])
    assert sorted(warehouse.ids("events")) == ids(v1, "events")
    assert sorted(warehouse.ids("titles")) == ids(v1, "events")


def test_the_schema_names_the_column_of_the_incremental_and_the_trace_counts(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    info = pipeline.run(make(server, api=api))
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
    """Table → what dlt's incremental says is loaded."""
    state: Any = pipeline.state["sources"]["analytics"]["resources"]
    values = {
        table: cursor["last_value"]
        for table in state
        for cursor in state[table].get("incremental", {}).values()
    }
    return values


def test_the_last_value_is_the_oldest_of_the_bookmarks(
    server: DemoServer, api: str, warehouse: Warehouse
) -> None:
    pipeline = warehouse.pipeline()
    for _ in range(2):
        pipeline.run(make(server, api=api))
        found = last_values(warehouse.pipeline())
        for table, bookmarks in warehouse.bookmarks().items():
            ends = [datetime.fromisoformat(b["synced_to"]) for b in bookmarks.values()]
            assert found[table] == min(ends), table
        server.grow(events=5, issues=1, releases=1)


def newest(server: DemoServer, project: str) -> datetime:
    return max(
        datetime.fromisoformat(row["dateCreated"])
        for row in server.rows("events", project)
    )


@pytest.mark.parametrize("status", [403, 500])
@pytest.mark.parametrize("project", PROJECTS)
def test_the_last_value_promises_nothing_of_a_project_that_was_not_read(
    v1: FakeServer, warehouse: Warehouse, status: int, project: str
) -> None:
    v1.fail(status, on=f"/{project}/events/", times=99)
    with nullcontext() if status == 403 else pytest.raises(IncompleteLoad):
        warehouse.load(v1)
    assert last_values(warehouse.pipeline())["events"] is None
    v1.mend()
    warehouse.load(v1)
    found = last_values(warehouse.pipeline())["events"]
    assert found == min(newest(v1, slug) for slug in PROJECTS)


@pytest.mark.parametrize("disposition", ["replace", "append"])
def test_another_write_disposition_brings_no_warnings(
    disposition: str, v1: DemoServer, warehouse: Warehouse
) -> None:
    Path("load.py").write_text(
        "import dlt\n"
        "from analytics_pipeline import analytics_source\n"
        "pipeline = dlt.pipeline('one', destination='duckdb')\n"
        f"source = analytics_source({v1.url!r}, {TOKEN!r}, 'acme', {PROJECTS})\n"
        f"pipeline.run(source, write_disposition={disposition!r})\n"
    )
    loaded = run("-W", "error", "load.py")
    assert (loaded.returncode, loaded.stdout, loaded.stderr) == (0, "", "")


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
    assert "releases with 1 table(s) and 2 resource state slot(s)" in info.stdout
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
    "rows_per_load": 5000,
    "workers": 7,
    "redact": ["user.email", "tags.user.email"],
    "history": True,
    "sweep": "12h",
    "tags": ["browser", "plan"],
    "exclude": ["events.entries"],
    "row_format": "python",
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
    """Of each source that is made: its configuration, and what its resources share."""
    made: list[Any] = []

    def keep(thing: Any) -> Any:
        made.append(thing)
        return thing

    with monkeypatch.context() as patch:
        patch.setattr(
            source_module, "parse_config", lambda **given: keep(parse_config(**given))
        )
        patch.setattr(source_module, "Sync", lambda *parts: keep(Sync(*parts)))
        yield made
    shutil.rmtree(".dlt", ignore_errors=True)
    Container()[PluggableRunContext].reload_providers()


def test_these_are_all_settings() -> None:
    assert VALUES.keys() == inspect.signature(analytics_source).parameters.keys()


@pytest.mark.parametrize("way", ["arguments", *WAYS])
def test_every_setting_comes_by_argument_environment_and_toml(
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
    assert config.projects == ("a", "b")
    assert client.spec is config.spec is APIS["sentry"]
    assert client.session.base_url == "http://errors.example.com"
    assert client.workers == config.workers == 7
    assert client.organization == "acme"
    assert config.full_events is config.full_refresh is True
    assert config.lookback == timedelta(minutes=1)
    assert config.rows_per_load == 5000
    assert (config.history, config.sweep) == (True, timedelta(hours=12))
    assert [*config.tables["events"].tags] == ["tag_browser", "tag_plan"]
    assert config.tables["events"].excluded == {"entries"}
    assert config.row_format == "python"
    row = {"user": {"email": "a@b.c"}, "id": "1"}
    clean = shared.redactor.clean_all("events", [row]).records
    assert clean == [{"user": {"email": "***"}, "id": "1"}]
    assert {*source.resources} == {*TABLES, HISTORY}
    # what the command `check` takes
    assert resolve_config(**given) == config


@pytest.mark.parametrize("way", WAYS)
def test_one_project_comes_by_environment_and_toml(
    way: str, made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    WAYS[way](VALUES | {"project": "a", "full_refresh": False}, monkeypatch)
    assert {*analytics_source().resources} == {*TABLES, HISTORY}
    config, _ = made
    assert config.projects == ("a",)
    assert config.full_refresh is False


def test_an_argument_goes_before_the_environment_and_that_before_toml(
    made: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    by_toml("")(VALUES, monkeypatch)
    monkeypatch.setenv("WORKERS", "3")
    monkeypatch.setenv("ORGANIZATION", "environment")
    analytics_source(organization="argument")
    assert made[0].organization == "argument"
    assert made[1].client.workers == 3
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
    with pytest.raises(ConfigurationError, match="neither one text nor a JSON list"):
        analytics_source()


def test_all_five_tables_are_named_in_the_schema_of_the_source(v1: DemoServer) -> None:
    source = make(v1)
    assert {resource.table_name for resource in source.resources.values()} == {*TABLES}
    assert source.name == "analytics"
    assert not v1.requests
    tables = source.discover_schema().data_tables()
    assert {table["name"] for table in tables} == {*TABLES}
