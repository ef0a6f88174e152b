"""A source that is iterated by hand, as in a notebook, gives rows and keeps nothing."""

from collections import Counter
from collections.abc import Iterable
from itertools import chain

import dlt
import pyarrow as pa
import pytest
from dlt.common.configuration.container import Container
from dlt.extract.exceptions import ResourceExtractionError

from analytics_pipeline.tables.columns import TABLES
from tests.conftest import Warehouse, make_source, small_server
from tests.fake_server import FakeServer
from tests.integration.test_conventions import ids


@pytest.fixture(params=["always", "never"])
def offers(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Set whether dlt offers state and source to its threads.

    It does while a caller waits for the next item, so a thread that is early or late finds
    nothing. "never" is the worst case, made certain.
    """
    if request.param == "never":
        monkeypatch.setattr(Container, "thread_pool_prefix", lambda: "thread-")


def read(batches: Iterable[pa.Table]) -> list[str]:
    return sorted(key for batch in batches for key in batch["id"].to_pylist())


def expected(server: FakeServer, table: str) -> list[str]:
    return ids(server, "projects" if table == "project_detail" else table)


@pytest.mark.usefixtures("offers")
@pytest.mark.parametrize(
    ("api", "history", "dlt_workers"),
    [("v1", True, "5"), ("sentry", False, "1"), ("glitchtip", True, "1")],
)
def test_iterating_a_source_yields_the_rows_of_all_tables(
    api: str, history: bool, dlt_workers: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXTRACT__WORKERS", dlt_workers)
    with small_server(api) as server:
        rows = Counter(read(make_source(server, api=api, history=history)))
        tables = [*TABLES, "issues"] if history else [*TABLES]
        wanted = Counter(chain(*(expected(server, table) for table in tables)))
    if api == "sentry":  # a page by time repeats the last events of the previous one
        assert rows.keys() == wanted.keys()
        assert rows >= wanted
    else:
        assert rows == wanted


@pytest.mark.usefixtures("offers")
def test_each_table_can_be_iterated_alone_and_repeatedly() -> None:
    with small_server() as server:
        made = make_source(server)
        for table in TABLES:
            for _ in range(2):
                assert read(made.resources[table]) == expected(server, table)


@pytest.mark.usefixtures("offers")
def test_iterating_beside_a_pipeline_ignores_its_bookmarks(
    warehouse: Warehouse,
) -> None:
    with small_server() as server:
        warehouse.load(server, tables=["events"])
        noted = warehouse.bookmarks()
        server.grow(events=30)
        pipeline = warehouse.pipeline()
        pipeline.activate()
        pipeline.sync_destination()
        assert read(make_source(server).events) == expected(server, "events")
        assert warehouse.bookmarks() == noted
        assert warehouse.load(server, tables=["events"]).tables["events"].rows == 30
        assert sorted(warehouse.ids("events")) == expected(server, "events")


@pytest.mark.usefixtures("offers")
def test_iterating_does_not_contact_the_destination_of_the_active_pipeline() -> None:
    """Files without a location, which cannot keep a history."""
    dlt.pipeline("files", destination="filesystem").activate()
    with small_server() as server:
        rows = read(make_source(server, history=True))
        tables = [*TABLES, "issues"]
        assert rows == sorted(chain(*(expected(server, table) for table in tables)))


@pytest.mark.usefixtures("offers")
def test_iterating_a_refused_table_raises() -> None:
    with small_server() as server:
        server.fail(403, times=100)
        with pytest.raises(ResourceExtractionError, match="403"):
            list(make_source(server).events)
