"""Airflow in a folder of its own: scheduler, API and tasks as processes, on loopback."""

import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import psutil
import requests

PATIENCE = 900.0
"""Seconds to wait for anything."""


def wait_until(done: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not done():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.2)


class Engine:
    def __init__(self, folder: Path, variables: dict[str, str]) -> None:
        self.folder = folder
        with closing(socket.create_server(("127.0.0.1", 0))) as free:
            self.port = free.getsockname()[1]
        settings = {
            "CORE__LOAD_EXAMPLES": "false",
            "CORE__EXECUTOR": "LocalExecutor",
            "CORE__PARALLELISM": "4",
            "CORE__DAGS_FOLDER": str(folder / "dags"),
            "CORE__DAGS_ARE_PAUSED_AT_CREATION": "false",
            "CORE__EXECUTION_API_SERVER_URL": f"{self.url}/execution/",
            "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": "true",
            "API_AUTH__JWT_SECRET": "a secret of this test, and long enough",
            "LOGGING__WORKER_LOG_SERVER_PORT": "0",
            "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": "0.2",
            "USAGE_DATA_COLLECTION__ENABLED": "false",
        }
        self.environment = {
            **os.environ,
            **{f"AIRFLOW__{name}": value for name, value in settings.items()},
            **variables,
            "AIRFLOW_HOME": str(folder),
            "RUNTIME__DLTHUB_TELEMETRY": "false",
        }

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def run(self, *words: str) -> None:
        """Run a command of Airflow."""
        with self._log(words[0]) as log:
            subprocess.run(
                [sys.executable, "-m", "airflow", *words],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                check=True,
            )

    @contextmanager
    def running(self) -> Iterator[None]:
        """Schedule and run the DAGs in the folder `dags`."""
        self.run("db", "migrate")
        self.run("pools", "set", "analytics_api", "4", "")
        self.run("dags", "reserialize")
        api = ["api-server", "--host", "127.0.0.1", "--port", str(self.port)]
        with self._process(*api):
            wait_until(self._answers)
            with self._process("scheduler"):
                yield

    @contextmanager
    def _process(self, *words: str) -> Iterator[None]:
        with self._log(words[0]) as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "airflow", *words],
                env=self.environment,
                stdout=log,
                stderr=subprocess.STDOUT,
            )
        try:
            yield
        finally:
            parent = psutil.Process(process.pid)
            for each in [*parent.children(recursive=True), parent]:
                each.kill()
            process.wait()

    def _log(self, name: str) -> Any:
        return (self.folder / f"{name}.log").open("a")

    def _answers(self) -> bool:
        try:
            return requests.get(f"{self.url}/api/v2/version", timeout=5).ok
        except (requests.ConnectionError, requests.Timeout):
            return False

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Query the metadata database."""
        path = f"file:{self.folder / 'airflow.db'}?mode=ro"
        with closing(sqlite3.connect(path, timeout=30, uri=True)) as database:
            return database.execute(sql).fetchall()
