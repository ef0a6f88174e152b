"""A DuckDB file that is loaded once and copied for each test."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import runner
from tests.conftest import Warehouse, small_server

FILE = f"{runner.NAME}.duckdb"


def load_once(folder: Path, **settings: Any) -> Path:
    """Load all tables in a folder, as `Warehouse.load` does; return the file."""
    with pytest.MonkeyPatch.context() as patch, small_server() as server:
        for name in ("HOME", "DLT_DATA_DIR"):
            patch.setenv(name, str(folder))
        patch.chdir(folder)
        Warehouse(folder).load(server, **settings)
    return folder / FILE


def copied(file: Path, warehouse: Warehouse) -> Warehouse:
    """Copy the file into the warehouse's folder, where a pipeline finds it."""
    shutil.copy(file, warehouse.folder / FILE)
    warehouse.pipeline().sync_destination()
    return warehouse
