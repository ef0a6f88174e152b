"""One connection to a DuckDB file for the steps of a run."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import dlt
from dlt.destinations.exceptions import DestinationConnectionError

from analytics_pipeline.loading.destinations import destination_kind

SMALL_LOAD = 50_000_000
"""Bytes of rows. Until the file is closed, DuckDB keeps several times as many in memory."""


@contextmanager
def open_file(pipeline: dlt.Pipeline, bytes_read: Callable[[], int]) -> Iterator[None]:
    """Keep DuckDB's file open, but not while the server is read or for a large load.

    dlt opens it some 15 times in a load. Each time DuckDB reads its catalog, and at the
    end writes what has changed, the staging tables as well.
    """
    if destination_kind(pipeline) != "duckdb":
        yield
        return
    client: Any = pipeline.destination_client()
    connection, extract = client.sql_client, pipeline.extract

    def reopen() -> None:
        with suppress(DestinationConnectionError):  # dlt reports it with its step
            connection.open_connection()

    def extract_while_closed(*args: Any, **kwargs: Any) -> Any:
        connection.close_connection()  # other processes can use the file meanwhile
        info = extract(*args, **kwargs)
        if bytes_read() <= SMALL_LOAD:
            reopen()
        return info

    pipeline.extract = extract_while_closed  # type: ignore[method-assign]
    try:
        reopen()
        yield
    finally:
        del pipeline.extract
        connection.close_connection()
