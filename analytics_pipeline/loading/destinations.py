"""What dlt's destinations need and can do, and which of their warnings to hide."""

import logging
import re
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import dlt
import pyarrow as pa
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers import CustomLoaderDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.destination.capabilities import DestinationCapabilitiesContext
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.common.exceptions import TerminalValueError
from dlt.common.pipeline import SupportsPipeline, current_pipeline
from dlt.common.schema.typing import TColumnSchema
from dlt.extract import DltResource
from dlt.extract.items_transform import MapItem

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.threads import current_load_id
from analytics_pipeline.secrets import mask_record
from analytics_pipeline.tables.schema import BINARY, LOAD_ID, Table
from analytics_pipeline.values import nested_value

KEY_LENGTH = 255
"""Characters of a key in MariaDB, which cannot index longer text."""


def destination_kind(pipeline: SupportsPipeline) -> str:
    """Return the destination's kind in dlt's words: `duckdb`, `postgres`."""
    return pipeline.destination.destination_type.rpartition(".")[2]


def capabilities_of(pipeline: SupportsPipeline) -> DestinationCapabilitiesContext:
    """Return the capabilities of the destination."""
    container = Container()
    if DestinationCapabilitiesContext in container:  # set by dlt during a load
        return container[DestinationCapabilitiesContext]
    return pipeline.destination.capabilities()


def can_update(pipeline: SupportsPipeline) -> bool:
    """Return whether rows can be updated, which files do not support."""
    return "scd2" in (capabilities_of(pipeline).supported_merge_strategies or ())


class AdaptToDestination(MapItem):
    """The last step of a resource, after those of users: `adapt_to_destination`."""

    placement_affinity: ClassVar[float] = 3

    def __init__(self, table: Table, row_format: str) -> None:
        columns = table.columns
        super().__init__(lambda rows: adapt_to_destination(columns, row_format, rows))


def adapt_to_destination(
    columns: Mapping[str, TColumnSchema], row_format: str, rows: Any, **hints: Any
) -> Any:
    """Return rows in the form that the destination of the active load needs.

    Without a load, and if a step of the user's has made something other than an Arrow
    table, rows are returned as they are.

    Args:
        columns: of the table.
        row_format: `"arrow"`, `"python"`, or `"auto"`.
        rows: an Arrow table.
        hints: further hints for dlt.
    """
    if isinstance(rows, pa.Table) and current_load_id():
        rows, needed = _as_needed(columns, row_format, rows)
        hints |= needed
    return dlt.mark.with_hints(rows, dlt.mark.make_hints(**hints)) if hints else rows


def _as_needed(
    columns: Mapping[str, TColumnSchema], row_format: str, rows: pa.Table
) -> tuple[Any, dict[str, Any]]:
    """Return the rows, and hints for dlt."""
    pipeline = current_pipeline()
    assert pipeline is not None
    capabilities = capabilities_of(pipeline)
    kind = destination_kind(pipeline)
    if kind in ("lance", "lancedb"):
        raise ConfigurationError(
            f"{kind} is not supported, because dlt's merge there deletes rows that a load"
            " does not hold. Use another destination."
        )
    if row_format == "auto":
        wanted = _asked_file_format(dlt.current.resource())
        row_format = "arrow" if _loads_arrow(capabilities, wanted) else "python"
    if row_format == "python":
        keys: Any = [
            {"name": name, "data_type": "text", "precision": KEY_LENGTH, BINARY: True}
            for name, column in columns.items()
            if not column["nullable"] and column["data_type"] == "text"
        ]
        hints: dict[str, Any] = {"columns": keys}
        if kind == "sqlalchemy":
            # It imports SQLAlchemy, which only this destination needs.
            from analytics_pipeline.loading.collation import register_binary_keys

            register_binary_keys()
        return _python_rows(rows, columns), hints
    # dlt's setting for this, add_dlt_load_id, would affect other sources of the process.
    ids = pa.repeat(pa.scalar(current_load_id()), rows.num_rows).dictionary_encode()
    rows = rows.append_column(LOAD_ID, ids)
    hints = {}
    if texts := [
        {"name": name, "data_type": "text"}
        for name, column in columns.items()
        if not _takes(capabilities, column)
    ]:
        hints["columns"] = texts
    if kind == "postgres":  # dlt would use CSV files, where empty text becomes NULL
        hints["file_format"] = "insert_values"
    return rows, hints


def _asked_file_format(resource: DltResource) -> str:
    """Return the `loader_file_format` of `pipeline.run`; dlt has no public way to it."""
    return str((resource._hints or {}).get("file_format"))


def _loads_arrow(
    capabilities: DestinationCapabilitiesContext, file_format: str
) -> bool:
    """Return whether a destination loads Arrow tables with JSON in them correctly.

    It does from Parquet files, and from what dlt makes of them. With files that hold JSON
    as such, and with Python values ("typed-jsonl": SQLAlchemy, functions), text would be
    encoded twice.
    """
    if file_format in ("jsonl", "typed-jsonl", "csv"):
        return False
    return (
        "parquet" in (capabilities.supported_loader_file_formats or ())
        and capabilities.preferred_loader_file_format != "typed-jsonl"
    )


def _takes(capabilities: DestinationCapabilitiesContext, column: TColumnSchema) -> bool:
    """Return whether a destination takes a column's type from Parquet files."""
    if capabilities.type_mapper is None or column["data_type"] != "json":
        return True
    table: Any = {"name": "", "columns": {}}
    try:
        capabilities.get_type_mapper().ensure_supported_type(column, table, "parquet")
    except TerminalValueError:
        return False  # BigQuery
    except KeyError:
        pass  # Databricks asks the table; it takes JSON
    return True


def _python_rows(
    rows: pa.Table, columns: Mapping[str, TColumnSchema]
) -> list[dict[str, Any]]:
    """Return rows as dicts, their JSON as nested values."""
    values: dict[str, list[Any]] = {}
    for name in rows.column_names:
        values[name] = rows[name].to_pylist()
        if name in columns and columns[name]["data_type"] == "json":
            values[name] = [v if v is None else nested_value(v) for v in values[name]]
    return [
        dict(zip(values, row, strict=True))
        for row in zip(*values.values(), strict=True)
    ]


def is_replaced(resource: DltResource) -> bool:
    """Return whether a load empties the table first."""
    return bool(_write_hints(resource)["disposition"] == "replace")


def is_appended(resource: DltResource) -> bool:
    """Return whether a load keeps the old copies of rows that are loaded again."""
    return bool(_write_hints(resource)["disposition"] == "append")


def _write_hints(resource: DltResource) -> dict[str, Any]:
    """Return the write disposition in dlt's longer form."""
    given: Any = resource.write_disposition
    return given if isinstance(given, dict) else {"disposition": given}


def merges_copies(resource: DltResource) -> bool:
    """Return whether dlt keeps the newest of several copies of a row in one load.

    Delta and Iceberg tables, the strategy `upsert` and the disposition `replace` refuse
    the copies or keep all. So do SQLAlchemy's databases with `create_primary_keys`, which
    dlt's staging tables keep after that is switched off.
    """
    hints = _write_hints(resource)
    if hints["disposition"] != "merge":
        return is_appended(resource)
    pipeline = current_pipeline()
    if pipeline is None or pipeline.destination is None or not current_load_id():
        return True  # iterated without a load
    if destination_kind(pipeline) == "sqlalchemy":
        return False
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
        {resource.name: table}, table, capabilities_of(pipeline)
    )
    return strategy in (None, "delete-insert")


# JSON columns are text in Arrow; every destination takes it. The second is the file format
# that `adapt_to_destination` asks for.
_EXPECTED = re.compile(
    "several column hints were different|yielded as arrow and job file format insert_"
    '|"dedup_sort" column hint'
)
_APPENDS = re.compile("Falling back to `append` on `(.+)`")
# A request may take longer than dlt waits for it. The others are tracebacks of errors that
# the run reports itself.
_TOLD_OTHERWISE = re.compile(
    "Shutdown of dlt thread pool|Failed to create trace dump|^worker <class|(Transient|Terminal) exception in job"
    "|^Job for .* (retried|failed terminally) in load|^Package .* not fully loaded"
)


def hide_expected_warnings(owner: object) -> None:
    """Hide expected warnings of dlt, and mask secrets in its log, while `owner` lives."""

    def is_wanted(record: logging.LogRecord) -> bool:
        return mask_record(record) and not _EXPECTED.search(record.getMessage())

    logger = logging.getLogger("dlt")
    logger.addFilter(is_wanted)
    weakref.finalize(owner, logger.removeFilter, is_wanted)


@contextmanager
def filtered_log(is_wanted: Callable[[str], bool]) -> Iterator[None]:
    """Show only those of dlt's log messages that are wanted."""

    def is_shown(record: logging.LogRecord) -> bool:
        return is_wanted(record.getMessage())

    logger = logging.getLogger("dlt")
    logger.addFilter(is_shown)
    try:
        yield
    finally:
        logger.removeFilter(is_shown)


@contextmanager
def without_copies() -> Iterator[None]:
    """Let loads leave no copies of rows in the staging dataset and the working folder.

    The user's settings win, because this is the last of dlt's providers.
    """
    name = "defaults of analytics_pipeline"
    value = {"truncate_staging_dataset": True, "delete_completed_jobs": True}
    providers = Container()[PluggableRunContext].providers
    providers[name] = CustomLoaderDocProvider(name, lambda: {"load": value})
    try:
        yield
    finally:
        providers.providers[:] = [
            each for each in providers.providers if each.name != name
        ]


@contextmanager
def appended_tables() -> Iterator[set[str]]:
    """Collect the tables that the destination cannot merge, instead of dlt's warnings.

    Log messages that repeat the error of the run are hidden as well.
    """
    tables: set[str] = set()

    def is_wanted(message: str) -> bool:
        if table := _APPENDS.match(message):
            tables.add(table[1])
        return not table and not _TOLD_OTHERWISE.search(message)

    with filtered_log(is_wanted):
        yield tables
