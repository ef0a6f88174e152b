"""A second dataset beside the warehouse's, and a connection to both."""

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

import dlt
from dlt.common.destination.client import WithStagingDataset
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.common.exceptions import DltException
from dlt.destinations.impl.duckdb.sql_client import WithTableScanners
from dlt.destinations.sql_client import SqlClientBase, WithSqlClient

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.loading.destinations import destination_kind
from analytics_pipeline.loading.failures import words
from analytics_pipeline.loading.sql import literal

log = logging.getLogger(__name__)

SUFFIX = "_verify"
"""Of the names of the second pipeline and its dataset."""
LIMITS = {"memory_limit": "200MB", "threads": "2"}
"""DuckDB's settings for a comparison; beyond the memory, it uses files.

Each thread needs some memory for every column, so more of them would exceed it.
"""


class StoredTable(NamedTuple):
    """A table in one of the datasets."""

    name: str
    """In SQL."""
    columns: frozenset[str]
    """Empty: there is no such table."""
    keeps_versions: bool
    """Old versions of rows stay, so only the newest of a key counts."""


@contextmanager
def second_pipeline(pipeline: dlt.Pipeline) -> Iterator[dlt.Pipeline]:
    """Yield a pipeline of the same destination with an empty dataset of its own.

    The dataset is dropped at the end, or by the next call if the process is killed.

    Raises:
        ConfigurationError: the destination has no SQL, or the dataset cannot be created.
    """
    kind, client = destination_kind(pipeline), pipeline.destination_client()
    if not isinstance(client, WithSqlClient):
        raise ConfigurationError(
            f"verify compares by SQL, which {kind} does not support; use `status` and your"
            " own queries"
        )
    name = f"{pipeline.pipeline_name}{SUFFIX}"
    folder = Path(pipeline.working_dir, name)
    rmtree(folder, ignore_errors=True)
    second = dlt.pipeline(
        name,
        pipelines_dir=pipeline.working_dir,
        destination=_same_destination(pipeline, client.config),
        staging=pipeline.staging,
        dataset_name=f"{pipeline.dataset_name}{SUFFIX}",
        progress=pipeline.collector,
    )
    second.set_local_state_val(
        "initial_cwd", pipeline.get_local_state_val("initial_cwd")
    )
    try:
        _check_name(pipeline, second)
        _drop(second)
        _create(second)
        try:
            yield second
        except BaseException:
            try:
                _drop(second)
            except Exception as error:  # the first error says more
                log.warning(
                    "cannot drop the dataset %r (%s); the next verify drops it",
                    second.dataset_name,
                    words(error),
                )
            raise
        _drop(second)
    finally:
        rmtree(folder, ignore_errors=True)
        pipeline.activate()


def _same_destination(pipeline: dlt.Pipeline, config: Any) -> Any:
    """Return the destination with the settings that dlt found by the pipeline's name."""
    destination: Any = pipeline.destination
    given = destination.config_params | destination.caps_params
    resolved = {
        name: value
        for name in ("credentials", "bucket_url")
        if (value := getattr(config, name, None))
        and isinstance(given.get(name), str | None)
    }
    return type(destination)(**given | resolved)


def _dataset(pipeline: dlt.Pipeline, *, staging: bool = False) -> str:
    """Return the name of the dataset as it is stored."""
    client: Any = pipeline.destination_client()
    names = WithStagingDataset.create_dataset_names(client.schema, client.config)
    return str(names[staging])


def _check_name(pipeline: dlt.Pipeline, second: dlt.Pipeline) -> None:
    """Raise ConfigurationError if the dataset to drop is not verify's own."""
    if _dataset(second) == _dataset(pipeline, staging=True):
        raise ConfigurationError(
            f"verify would drop the dataset {second.dataset_name!r}, which loads use for"
            " staging; change dlt's setting staging_dataset_name_layout"
        )
    try:
        with second.sql_client() as client:
            state = client.make_qualified_table_name("_dlt_pipeline_state")
            found = client.execute_sql(f"SELECT DISTINCT pipeline_name FROM {state}")
    except DestinationUndefinedEntity:
        return  # no such dataset, or nothing was loaded into it
    if any(name != second.pipeline_name for (name,) in found or ()):
        raise ConfigurationError(
            f"verify would drop the dataset {second.dataset_name!r}, which holds tables of"
            " another pipeline; load those into a dataset with another name"
        )


def _drop(pipeline: dlt.Pipeline) -> None:
    """Drop the dataset and its staging dataset, if they exist."""
    with pipeline.destination_client() as client:
        if client.is_storage_initialized():
            client.drop_storage()
        if isinstance(client, WithStagingDataset):
            with client.with_staging_dataset():
                if client.is_storage_initialized():
                    client.drop_storage()


def _create(pipeline: dlt.Pipeline) -> None:
    """Create the dataset before the first request."""
    try:
        with pipeline.destination_client() as client:
            client.initialize_storage()
    except (DltException, OSError) as error:
        raise ConfigurationError(
            f"verify cannot create the dataset {pipeline.dataset_name!r}, which it needs"
            f" for a moment: {words(error)}; allow the account to create datasets (schemas,"
            " databases, folders)"
        ) from error


@contextmanager
def connected(
    pipeline: dlt.Pipeline, second: dlt.Pipeline, schema: str
) -> Iterator[SqlClientBase[Any]]:
    """Yield a connection to both datasets."""
    with second.sql_client(schema) as client, ExitStack() as stack:
        if isinstance(client, WithTableScanners):  # files, as views of DuckDB
            remote: Any = pipeline.destination_client(schema)
            database: Any = client.credentials
            first: Any = type(client)(remote, _dataset(pipeline), cache_db=database)
            tables = remote.schema.data_tables(seen_data_only=True)
            names = [t["name"] for t in tables if "table_format" not in t]
            stack.enter_context(first)
            first.create_views_for_tables(dict(zip(names, names, strict=True)))
            client.execute_sql(f"SET temp_directory = {literal(second.working_dir)}")
        if destination_kind(pipeline) in ("duckdb", "filesystem"):
            for setting, limit in LIMITS.items():
                ((before,),) = (
                    client.execute_sql(f"SELECT current_setting('{setting}')") or []
                )
                client.execute_sql(f"SET {setting} = '{limit}'")
                # The setting holds for all connections of this process.
                stack.callback(client.execute_sql, f"SET {setting} = '{before}'")
        yield client


def _data_files(pipeline: dlt.Pipeline, schema: str, name: str, form: str) -> str:
    """Return DuckDB's SQL for the files of a Delta or Iceberg table's newest version.

    That needs no extension of DuckDB, and dlt's writers only replace whole files.
    """
    if form == "delta":
        from dlt.common.libs.deltalake import get_delta_tables

        files = get_delta_tables(pipeline, name, schema_name=schema)[name].file_uris()
    else:
        from dlt.common.libs.pyiceberg import get_iceberg_tables

        table = get_iceberg_tables(pipeline, name, schema_name=schema)[name]
        files = [task.file.file_path for task in table.scan().plan_files()]
    return f"read_parquet([{', '.join(map(literal, files))}], union_by_name = true)"


def stored_table(
    pipeline: dlt.Pipeline, client: SqlClientBase[Any], schema: str, name: str
) -> StoredTable:
    """Return a table of a pipeline's dataset."""
    with client.with_alternative_dataset_name(_dataset(pipeline)):
        table = client.make_qualified_table_name(name)
    stored = pipeline.schemas[schema] if schema in pipeline.schema_names else None
    if stored is None or name not in stored.tables:
        return StoredTable(table, frozenset(), False)
    with pipeline.destination_client(schema) as storage:
        if not storage.get_storage_table(name)[1]:  # type: ignore[attr-defined]
            return StoredTable(table, frozenset(), False)
    known = stored.tables[name]
    columns = frozenset(
        n for n, each in known["columns"].items() if "data_type" in each
    )
    form = known.get("table_format")
    if form and destination_kind(pipeline) == "filesystem":
        table = _data_files(pipeline, schema, name, form)
    capabilities = pipeline.destination.capabilities()
    strategy = resolve_merge_strategy(stored.tables, known, capabilities)
    return StoredTable(table, columns, strategy is None)
