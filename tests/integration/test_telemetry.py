"""dlt sends telemetry only if the user has enabled it."""

import os
import socket
from pathlib import Path

import pytest

from tests.children import environment, run
from tests.conftest import Warehouse, small_server

TOML = "[runtime]\ndlthub_telemetry = true\n"


@pytest.mark.parametrize(
    ("toml", "variable", "tells"),
    [("", "", False), (TOML, "", True), ("", "true", True)],
)
def test_the_command_line_sends_no_telemetry_by_default(
    warehouse: Warehouse, toml: str, variable: str, tells: bool
) -> None:
    Path(".dlt").mkdir()
    Path(".dlt/config.toml").write_text(toml)
    with small_server() as server, socket.socket() as telemetry:
        telemetry.bind(("127.0.0.1", 0))
        telemetry.listen()
        telemetry.setblocking(False)
        address = f"http://127.0.0.1:{telemetry.getsockname()[1]}/"
        env = environment() | {
            "RUNTIME__DLTHUB_TELEMETRY_ENDPOINT": address,
            "RUNTIME__DLTHUB_TELEMETRY": variable,
            "DLT_DATA_DIR": os.environ["DLT_DATA_DIR"],
        }
        if not variable:
            del env["RUNTIME__DLTHUB_TELEMETRY"]
        words = ["--resource", "projects"]
        code, said = run(server, warehouse.folder, *words, env=env)
        assert code == 0, said
        if tells:
            telemetry.accept()[0].close()
        else:
            with pytest.raises(BlockingIOError):
                telemetry.accept()[0].close()
