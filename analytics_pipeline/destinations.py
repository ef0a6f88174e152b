"""What dlt's destinations would do otherwise than their users expect, and say of it."""

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.pipeline import PipelineContext

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.tables import TABLES

PACKAGES = {"delta": ("deltalake", "deltalake"), "iceberg": ("pyiceberg", "iceberg")}
"""Table format of files → what has to be imported, and the extra that brings it."""


def suited(name: str, batch: pa.Table) -> Any:
    """Rows of a table as the active pipeline's destination needs them."""
    context = Container()[PipelineContext]
    destination = context.pipeline().destination if context.is_active() else None
    kind = destination.destination_type if destination else ""
    if kind == "dlt.destinations.postgres":
        # dlt would bring them as CSV files, where empty text becomes NULL.
        hints = dlt.mark.make_hints(file_format="insert_values")
    elif kind == "dlt.destinations.bigquery":
        # It loads no JSON columns from Parquet files, but the same text.
        columns = TABLES[name].columns.values()
        nested: Any = [
            {"name": column["name"], "data_type": "text"}
            for column in columns
            if column["data_type"] == "json"
        ]
        hints = dlt.mark.make_hints(columns=nested)
    else:
        return batch
    return dlt.mark.with_hints(batch, hints)


def check_table_format(pipeline: dlt.Pipeline, table_format: str | None) -> None:
    """Before anything is asked: dlt would find out when all is read, or go without.

    Raises:
        ConfigurationError: the destination has no such tables, or a package is missing.
    """
    if table_format is None:
        return
    destination = pipeline.destination
    able = destination.capabilities().supported_table_formats or ()
    if table_format not in able:
        raise ConfigurationError(
            f"table format {table_format!r} is not for {destination.destination_name}"
            f" ({', '.join(able) if able else 'filesystem has it'})"
        )
    module, extra = PACKAGES.get(table_format, ("dlt", ""))
    is_files = destination.destination_type == "dlt.destinations.filesystem"
    if is_files and find_spec(module) is None:
        raise ConfigurationError(
            f"table format {table_format!r} needs {module}: pip install '.[{extra}]'"
        )


@contextmanager
def appended_tables() -> Iterator[set[str]]:
    """The tables of which dlt warns, three times each, that it cannot merge them."""
    tables: set[str] = set()

    def is_other(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if table := re.match("Falling back to `append` on `(.+)`", message):
            tables.add(table[1])
        return not table and '"dedup_sort" column hint' not in message

    logger = logging.getLogger("dlt")
    logger.addFilter(is_other)
    try:
        yield tables
    finally:
        logger.removeFilter(is_other)


EXPECTED = re.compile(
    # JSON columns come as text. There is no Arrow type for JSON that dlt knows, and
    # every destination takes the text.
    "several column hints were different"
    # What `suited` asks for.
    "|yielded as arrow and job file format insert_values"
    # After a failure or Ctrl-C a request may last for longer than dlt waits for it.
    "|Shutdown of dlt thread pool"
    # With its traceback; the error of the run says the same.
    "|(Transient|Terminal) exception in job|^Job for .* retried in load|^Package .* not fully loaded"
)
logging.getLogger("dlt").addFilter(
    lambda record: not EXPECTED.search(record.getMessage())
)
