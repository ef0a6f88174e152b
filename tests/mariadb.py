"""A MariaDB server for tests, from Debian's package `mariadb-server`."""

import getpass
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

import pytest

SECONDS = 60.0
"""Seconds that it may take to start."""
# Debian has it where only root's PATH looks.
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin"])


class MariaDB:
    """A running server that accepts local connections without a password."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.uri = f"mysql+pymysql://tester@127.0.0.1:{port}/mysql?charset=utf8mb4"

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run and commit a statement; return its rows, if any."""
        import pymysql

        connection = pymysql.connect(
            host="127.0.0.1", port=self._port, user="tester", charset="utf8mb4"
        )
        with closing(connection), connection.cursor() as cursor:
            cursor.execute(sql)
            rows = [*cursor.fetchall()] if cursor.description else []
            connection.commit()
        return rows

    def clear(self) -> None:
        """Drop all objects created by a test."""
        for dataset in ("analytics", "analytics_staging"):
            self.query(f"drop database if exists {dataset}")


@contextmanager
def mariadb_server() -> Iterator[MariaDB]:
    """A new server in a temporary folder, which stops at the end."""
    pytest.importorskip("pymysql")
    server = shutil.which("mariadbd", path=PATH)
    install = shutil.which("mariadb-install-db", path=PATH)
    if not server or not install:
        pytest.skip("mariadbd is not installed (Debian: mariadb-server)")
    # Not in the folder of a test: the path of a socket has at most 107 characters.
    with tempfile.TemporaryDirectory(prefix="mariadb") as folder:
        common = [
            "--no-defaults",
            f"--datadir={folder}/data",
            f"--user={getpass.getuser()}",
            "--innodb-log-file-size=16M",
        ]
        subprocess.run(
            [install, *common, "--auth-root-authentication-method=normal"],
            check=True,
            capture_output=True,
            timeout=SECONDS,
        )
        port = _free_port()
        with open(f"{folder}/log", "wb") as log:
            process = subprocess.Popen(
                [
                    server,
                    *common,
                    "--skip-grant-tables",
                    "--skip-networking=0",  # the default without grant tables
                    "--bind-address=127.0.0.1",
                    f"--port={port}",
                    f"--socket={folder}/socket",
                    f"--pid-file={folder}/pid",
                    f"--tmpdir={folder}",
                    "--innodb-flush-log-at-trx-commit=0",
                    "--character-set-server=utf8mb4",  # as Debian configures it
                ],
                stdout=log,
                stderr=log,
            )
        try:
            _wait_for(process, port, f"{folder}/log")
            yield MariaDB(port)
        finally:
            process.terminate()
            process.wait(SECONDS)


def _free_port() -> int:
    with closing(socket.socket()) as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


def _wait_for(process: "subprocess.Popen[bytes]", port: int, log: str) -> None:
    """Return once the server takes connections."""
    end = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < end:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    with open(log) as file:
        raise AssertionError(f"mariadbd does not start: {file.read()[-2000:]}")
