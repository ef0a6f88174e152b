"""The example assets, materialised by Dagster."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import runner
from analytics_pipeline.tables.columns import TABLES
from tests.conftest import Warehouse, small_server
from tests.examples import environment, imported
from tests.fake_server import FakeServer

pytestmark = [
    pytest.mark.dagster,
    # Not imported here, because the import has side effects.
    pytest.mark.skipif(not find_spec("dagster"), reason="pip install '.[dagster]'"),
    pytest.mark.filterwarnings("default"),  # Dagster's own
]
TODAY = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> Iterator[FakeServer]:
    with small_server("sentry", events=400) as server:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("DAGSTER_DISABLE_TELEMETRY", "1")
        monkeypatch.setenv("DAGSTER_HOME", str(elsewhere))
        database = f"duckdb:///{elsewhere}/{runner.NAME}.duckdb"
        monkeypatch.setenv("DESTINATION__DUCKDB__CREDENTIALS", database)
        yield server


@pytest.fixture
def assets(server: FakeServer, tmp_path: Path) -> Any:
    start = f"{TODAY - timedelta(days=5):%Y-%m-%d}"
    settings = {"DESTINATION": "'duckdb'", "DATASET": "'analytics'"}
    return imported("dagster_assets.py", tmp_path, START=repr(start), **settings)


def of_span(
    server: FakeServer, table: str, field: str, start: datetime, end: datetime
) -> set[str]:
    return {
        row["id"]
        for row in server.rows(table)
        if start <= datetime.fromisoformat(row[field]) < end
    }


def test_daily_partitions_can_be_loaded_in_any_order(
    server: FakeServer, assets: Any, warehouse: Warehouse
) -> None:
    import dagster as dg

    days = [TODAY - timedelta(days=n) for n in (2, 4, 2)]
    with dg.instance_for_test() as instance:
        for day in days:
            result = dg.materialize(
                [assets.errors_by_day],
                partition_key=f"{day:%Y-%m-%d}",
                resources={"dlt": assets.DagsterDltResource()},
                instance=instance,
            )
            assert result.success
    expected = set[str]()
    for day in days:
        span = day, day + timedelta(days=1)
        expected |= of_span(server, "events", "dateCreated", *span)
    loaded = warehouse.ids("events")
    assert len(loaded) == len(set(loaded))
    assert set(loaded) == expected
    assert expected


def test_a_backfill_loads_its_days_in_one_run(
    server: FakeServer, assets: Any, warehouse: Warehouse
) -> None:
    import dagster as dg

    defs = assets.defs
    first, last = TODAY - timedelta(days=5), TODAY - timedelta(days=1)
    with dg.instance_for_test() as instance:
        backfill = defs.resolve_implicit_global_asset_job_def().execute_in_process(
            asset_selection=[dg.AssetKey(["analytics", n]) for n in assets.BY_DAY],
            tags={
                "dagster/asset_partition_range_start": f"{first:%Y-%m-%d}",
                "dagster/asset_partition_range_end": f"{last:%Y-%m-%d}",
            },
            instance=instance,
        )
        assert backfill.success
        for _ in range(2):
            whole = dg.materialize(
                [assets.errors_whole],
                resources={"dlt": assets.DagsterDltResource()},
                instance=instance,
            )
            assert whole.success
        for days, is_fresh in ((2, True), (0, False)):
            assets.FRESH = timedelta(days=days)
            checks = dg.materialize(
                [*defs.assets, *assets.checks],
                selection=dg.AssetSelection.checks(*assets.checks),
                instance=instance,
                resources={"dlt": assets.DagsterDltResource()},
                raise_on_error=False,
            ).get_asset_check_evaluations()
            assert [check.passed for check in checks] == [is_fresh] * 2
    loaded = warehouse.ids("events")
    assert len(loaded) == len(set(loaded))
    assert set(loaded) == of_span(server, "events", "dateCreated", first, TODAY)
    assert sorted(warehouse.ids("issues")) == sorted(
        row["id"] for row in server.rows("issues")
    )
    assert set(warehouse.ids("releases")) == {
        str(row["id"]) for row in server.rows("releases")
    }
    assert len(warehouse.ids("projects")) == len(warehouse.ids("project_detail")) == 2


def test_assets_have_the_names_and_descriptions_of_the_tables(assets: Any) -> None:
    specs = {
        spec.key.path[-1]: spec
        for each in (assets.errors_by_day, assets.errors_whole)
        for spec in each.specs
    }
    assert {*specs} == {*assets.BY_DAY, *assets.WHOLE}
    for name, spec in specs.items():
        assert spec.key.path == ["analytics", name]
        assert spec.description == TABLES[name].description
        assert not [*spec.deps]


def test_the_module_can_be_imported_without_settings(
    monkeypatch: pytest.MonkeyPatch, elsewhere: Path
) -> None:
    module = imported("dagster_assets.py", elsewhere, DESTINATION="'duckdb'")
    assert len(module.defs.schedules) == 2
