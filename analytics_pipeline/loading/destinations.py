"""What dlt's destinations need, can do, and warn of."""

import logging
import re
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

import dlt
import pyarrow as pa
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.common.pipeline import SupportsPipeline, current_pipeline
from dlt.common.typing import TLoaderFileFormat
from dlt.extract import DltResource

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.tables.schema import TABLES

PACKAGES = {"delta": ("deltalake", "deltalake"), "iceberg": ("pyiceberg", "iceberg")}
"""Table format of files → what has to be imported, and the extra that brings it."""


def destination_kind(pipeline: SupportsPipeline) -> str:
    """Return the destination's kind in dlt's words: `duckdb`, `postgres`."""
    return pipeline.destination.destination_type.rpartition(".")[2]


def file_format_of(kind: str) -> TLoaderFileFormat | None:
    """Return the file format by which rows come into a destination; None: dlt's own."""
    # dlt would bring them as CSV files, where empty text becomes NULL.
    return "insert_values" if kind == "postgres" else None


def adapt_to_destination(name: str, batch: pa.Table) -> Any:
    """Return rows of a table as the active pipeline's destination needs them."""
    pipeline = current_pipeline()
    kind = destination_kind(pipeline) if pipeline else ""
    if file_format := file_format_of(kind):
        hints = dlt.mark.make_hints(file_format=file_format)
    elif kind == "bigquery":
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


def is_replaced(resource: DltResource) -> bool:
    """Tell whether a load empties the table first."""
    return bool(_write_hints(resource)["disposition"] == "replace")


def _write_hints(resource: DltResource) -> dict[str, Any]:
    """Return the write disposition, which may be a word alone, as dlt's longer form."""
    given: Any = resource.write_disposition
    return given if isinstance(given, dict) else {"disposition": given}


def merges_copies(resource: DltResource) -> bool:
    """Tell whether a load may hold several copies of a row, of which the newest stays.

    Delta and Iceberg tables, the strategy `upsert` and the disposition `replace` refuse
    them, or keep all.
    """
    hints = _write_hints(resource)
    if hints["disposition"] != "merge":
        return bool(hints["disposition"] == "append")
    pipeline = current_pipeline()
    if pipeline is None or pipeline.destination is None:
        return True
    # Not `compute_table_schema()`, which looks at all columns and takes 10 ms.
    table: Any = {
        "name": resource.name,
        "columns": {},
        "write_disposition": "merge",
        "table_format": resource.table_format,
    }
    if "strategy" in hints:
        table["x-merge-strategy"] = hints["strategy"]
    strategy = resolve_merge_strategy(
        {resource.name: table}, table, pipeline.destination.capabilities()
    )
    return strategy in (None, "delete-insert")


def check_table_format(pipeline: dlt.Pipeline, table_format: str | None) -> None:
    """Check it before anything is asked: dlt would find out when all is read.

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


# JSON columns come as text: there is no Arrow type for JSON that dlt knows, and every
# destination takes the text. And what `adapt_to_destination` asks for.
_EXPECTED = re.compile(
    "several column hints were different|yielded as arrow and job file format insert_"
    '|"dedup_sort" column hint'
)
_APPENDS = re.compile("Falling back to `append` on `(.+)`")
# A request may last for longer than dlt waits for it; and tracebacks of what the error
# of the run says, too.
_TOLD_OTHERWISE = re.compile(
    "Shutdown of dlt thread pool|Failed to create trace dump|^worker <class|(Transient|Terminal) exception in job"
    "|^Job for .* (retried|failed terminally) in load|^Package .* not fully loaded"
)


def hide_expected_warnings(owner: object) -> None:
    """Hide warnings of dlt that mean nothing here, for as long as `owner` lives."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return not _EXPECTED.search(record.getMessage())

    logger = logging.getLogger("dlt")
    logger.addFilter(is_wanted)
    weakref.finalize(owner, logger.removeFilter, is_wanted)


@contextmanager
def appended_tables() -> Iterator[set[str]]:
    """Collect the tables that the destination cannot merge; of each dlt warns thrice.

    What the error of the run tells is hidden, too.
    """
    tables: set[str] = set()

    def is_wanted(record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if table := _APPENDS.match(message):
            tables.add(table[1])
        return not table and not _TOLD_OTHERWISE.search(message)

    logger = logging.getLogger("dlt")
    logger.addFilter(is_wanted)
    try:
        yield tables
    finally:
        logger.removeFilter(is_wanted)
