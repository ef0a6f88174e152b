"""The example flow, run by Prefect."""

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import Warehouse, small_server
from tests.examples import environment, imported
from tests.fake_server import FakeServer

pytestmark = [
    pytest.mark.prefect,
    # Not imported here, because the import has side effects.
    pytest.mark.skipif(not find_spec("prefect"), reason="pip install '.[prefect]'"),
    pytest.mark.filterwarnings("default"),  # Prefect's own
]


@pytest.fixture(scope="module", autouse=True)
def prefect_server() -> Iterator[None]:
    """One for all tests, because it takes seconds to start."""
    from prefect.testing.utilities import prefect_test_harness

    with pytest.MonkeyPatch.context() as patch, TemporaryDirectory() as folder:
        patch.setenv("PREFECT_HOME", folder)
        patch.setenv("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
        patch.setenv("DO_NOT_TRACK", "1")
        with prefect_test_harness(server_startup_timeout=600):  # on a busy machine
            yield


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, elsewhere: Path) -> Iterator[FakeServer]:
    with small_server("sentry") as server:
        for name, value in environment(server).items():
            monkeypatch.setenv(name, value)
        yield server


@pytest.fixture
def module(server: FakeServer, tmp_path: Path) -> Any:
    settings = {"DESTINATION": "'duckdb'", "RETRY_DELAYS": "[0]"}
    return imported("prefect_flow.py", tmp_path, **settings)


def test_the_flow_loads_what_is_new(
    server: FakeServer, module: Any, warehouse: Warehouse
) -> None:
    first = module.errors()
    assert first["events"] == len(server.rows("events"))
    server.grow(events=7)
    asked = len(server.requests)
    second = module.errors()
    assert second["events"] == 7
    assert len(server.requests) - asked == 8
    assert len(warehouse.ids("events")) == len(server.rows("events"))

    server.grow(events=3)
    server.fail(500, on="/backend/events/", times=4)
    module.errors()  # by its second attempt
    assert 500 in [status for _, status in server.statuses]
    assert len(warehouse.ids("events")) == len(server.rows("events"))


def test_the_flow_fails_when_a_list_cannot_be_read(
    server: FakeServer, module: Any, warehouse: Warehouse
) -> None:
    server.fail(403, on="/releases/", times=100)
    with pytest.raises(RuntimeError, match=r"releases : .*lacks the scope"):
        module.errors()
    assert len(warehouse.ids("events")) == len(server.rows("events"))
