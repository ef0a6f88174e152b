"""The warehouse that a pipeline loads into: checks before the first request, and its place."""

import json
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import ConfigFieldMissingException
from dlt.common.configuration.specs import (
    BaseConfiguration,
    ConnectionStringCredentials,
)
from dlt.common.configuration.specs.base_configuration import is_secret_hint
from dlt.common.destination.client import StorageSchemaInfo, WithStateSync
from dlt.common.exceptions import MissingDependencyException
from dlt.common.schema.typing import TSchemaTables
from dlt.common.schema.utils import has_table_seen_data
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltSource

from analytics_pipeline.errors import (
    AnalyticsError,
    ConfigurationError,
    did_you_mean,
)
from analytics_pipeline.loading.destinations import destination_kind
from analytics_pipeline.loading.extras import install_command
from analytics_pipeline.loading.failures import causes, reason, words
from analytics_pipeline.loading.loaded_lists import table_names
from analytics_pipeline.secrets import hide
from analytics_pipeline.tables.credentials import mask_credentials

TABLE_FORMATS = {
    "delta": ("deltalake", "deltalake"),
    "iceberg": ("pyiceberg", "iceberg"),
}
"""Table format of files → the module to import, and the extra that installs it."""
EXTRAS = ("postgres", "sqlalchemy")
"""Destinations whose driver an extra of this package installs; others use dlt's extras."""
ALIASES = {
    **dict.fromkeys(("mysql", "mariadb", "sqlite"), "sqlalchemy"),
    **dict.fromkeys(
        ("s3", "gcs", "azure", "parquet", "delta", "iceberg"), "filesystem"
    ),
}
"""What people call a destination → dlt's name."""


def unknown_destination(name: str) -> ConfigurationError:
    """Return the error for a destination that dlt does not have."""
    names = [each for each in dlt.destinations.__all__ if each != "destination"]
    if alias := ALIASES.get(name.lower()):
        advice = f"; use the destination {alias!r}"
    else:
        advice = did_you_mean(name, names) or f"; use one of {', '.join(names)}"
    return ConfigurationError(f"dlt has no destination {name!r}{advice}")


def check_destination(pipeline: dlt.Pipeline) -> None:
    """Check before any request that the warehouse can be reached.

    Raises:
        ConfigurationError: its driver is not installed, or credentials are missing.
    """
    name, kind = pipeline.destination.destination_name, destination_kind(pipeline)
    try:
        _hide_secrets(pipeline.destination_client().config)
    except (ModuleNotFoundError, MissingDependencyException) as error:
        modules = [e.name for e in causes(error) if isinstance(e, ModuleNotFoundError)]
        command = (
            install_command(kind) if kind in EXTRAS else f"pip install 'dlt[{kind}]'"
        )
        raise ConfigurationError(
            f"destination {name!r} needs the package {modules[-1] if modules else kind}:"
            f" {command}"
        ) from error
    except ConfigFieldMissingException as error:
        raise ConfigurationError(_missing(pipeline, error)) from error
    except Exception as error:  # of whatever driver
        raise ConfigurationError(f"destination {name!r}: {words(error)}") from error


def _hide_secrets(config: BaseConfiguration) -> None:
    """Hide secrets in the destination's settings, nested ones included."""
    for name, hint in config.get_resolvable_fields().items():
        value = getattr(config, name, None)
        if isinstance(value, BaseConfiguration):
            _hide_secrets(value)
        elif isinstance(value, dict):  # as the query of a connection string
            hide(*(v for k, v in value.items() if mask_credentials({k: v}) != {k: v}))
        elif is_secret_hint(hint):
            hide(value)


def _missing(pipeline: dlt.Pipeline, error: ConfigFieldMissingException) -> str:
    """Return the message about missing settings of the destination."""
    name = pipeline.destination.destination_name
    (field, traces), *_ = error.traces.items()
    fields, section = list(error.traces), f"destination.{name}"
    inner: Any = getattr(traces[0], "traces", None) if traces else None
    if inner:  # the field is a group of settings, such as the credentials
        fields, section = list(inner), f"{section}.{field}"
    variable = f"{section}.{fields[0]}".replace(".", "__").upper()
    further = " and so on" if len(fields) > 1 else ""
    text = (
        f"destination {name!r}: {', '.join(fields)} {'are' if further else 'is'} missing;"
        f" set {variable}{further} in the environment, or [{section}] in"
        " .dlt/secrets.toml"
    )
    spec: Any = pipeline.destination.spec.get_resolvable_fields().get(field)
    is_class = inner and isinstance(spec, type)
    if is_class and issubclass(spec, ConnectionStringCredentials):
        whole = section.replace(".", "__").upper()
        driver = spec.drivername or "mysql+pymysql"
        text += f"; or set {whole}={driver}://user:password@host/database"
    return text


def check_table_format(pipeline: dlt.Pipeline, table_format: str | None) -> None:
    """Raise ConfigurationError for a table format that cannot be written.

    dlt checks it only after reading.
    """
    if table_format is None:
        return
    destination = pipeline.destination
    formats = destination.capabilities().supported_table_formats or ()
    if table_format not in formats:
        raise ConfigurationError(
            f"table format {table_format!r} does not work with"
            f" {destination.destination_name}; use"
            f" {', '.join(formats) or 'the destination filesystem'}"
        )
    module, extra = TABLE_FORMATS.get(table_format, ("dlt", ""))
    is_files = destination_kind(pipeline) == "filesystem"
    if is_files and find_spec(module) is None:
        raise ConfigurationError(
            f"table format {table_format!r} needs the package {module}:"
            f" {install_command(extra)}"
        )


def restore_state(pipeline: dlt.Pipeline) -> None:
    """Replace the pipeline's state by that in the warehouse, even if that is older.

    dlt's own rule holds where the destination stores no state, with `dev_mode`, and
    without `restore_from_destination`.
    """
    has_state = issubclass(pipeline.destination.client_class, WithStateSync)
    is_restored = has_state and pipeline.config.restore_from_destination
    if is_restored and not pipeline.dev_mode:
        folder = pipeline.get_local_state_val("initial_cwd")
        refresh = pipeline.refresh
        pipeline.drop()
        pipeline.refresh = refresh
        # The next run keeps its DuckDB file there, wherever it is started.
        pipeline.set_local_state_val("initial_cwd", folder)
        # dlt writes the attribute into the state of a dataset that does not exist yet.
        pipeline.initial_cwd = folder  # type: ignore[attr-defined]
        return
    while pipeline.has_pending_data:
        pipeline.run()


def check_tables(pipeline: dlt.Pipeline, source: DltSource) -> None:
    """Check before reading that the tables in the dataset are those that dlt created.

    If one was dropped, dlt itself would fail at the end, or create it again with new rows
    only. If one belongs to another source, dlt would merge into it.

    Raises:
        AnalyticsError: a table was dropped without dlt's knowledge.
        ConfigurationError: a table holds rows of another source.
    """
    try:
        with pipeline.destination_client() as client:
            if not isinstance(client, SqlJobClientBase):
                return
            known = _with_rows(client.get_stored_schema(source.schema.name))
            names = table_names(known)
            wanted = {str(r.table_name) for r in source.selected_resources.values()}
            there = client.get_storage_tables({*names.values(), *wanted})
            found = {name for name, columns in there if columns}
            foreign = _foreign(client, found & wanted, known, source.schema.name)
    except Exception:
        # Nothing was ever loaded, or there is no connection. dlt asks for the state
        # next, and reports the same error with its step.
        return
    if foreign:
        raise ConfigurationError(
            f"{', '.join(sorted(foreign))}: the table in the dataset"
            f" {pipeline.dataset_name!r} holds rows of another source, which would be mixed"
            " with the new ones; load into another dataset (--dataset)"
        )
    gone = {table: name for table, name in names.items() if name not in found}
    if gone:
        pipeline.sync_destination()  # the command needs the state in the working folder
        raise AnalyticsError(
            f"{', '.join(gone.values())}: the table is not in the dataset"
            f" {pipeline.dataset_name!r} any more, but dlt still expects it; run"
            f" `dlt pipeline {pipeline.pipeline_name} drop {' '.join(gone)}`, and the next"
            " run loads the whole table again"
        )


def _with_rows(stored: StorageSchemaInfo | None) -> TSchemaTables:
    """Return the tables of a stored schema that have had rows."""
    tables = json.loads(stored.schema)["tables"] if stored else {}
    return {name: each for name, each in tables.items() if has_table_seen_data(each)}


def _foreign(
    client: SqlJobClientBase, found: set[str], known: TSchemaTables, ours: str
) -> set[str]:
    """Return the tables that hold rows of another loader, or of another schema of dlt's."""
    table_name, query = client.sql_client.make_qualified_table_name, client.sql_client
    foreign, unknown = set(), found - known.keys()
    if found - unknown or (unknown and known):
        table = table_name(client.schema.version_table_name)
        sql = f"SELECT schema_name, version_hash FROM {table}"
        versions = query.execute_sql(sql) or ()
        for other in {name for name, _ in versions} - {ours}:
            foreign |= found & _with_rows(client.get_stored_schema(other)).keys()
        for name, version in versions:
            # Concurrent loads each store only the tables that they know.
            if unknown and name == ours:
                stored = client.get_stored_schema_by_hash(version)
                unknown -= _with_rows(stored).keys()
    for name in unknown:
        counts = query.execute_sql(f"SELECT count(*) FROM {table_name(name)}")
        if counts and counts[0][0]:  # a run that was killed leaves an empty table
            foreign.add(name)
    return foreign


def check_loaded(pipeline: dlt.Pipeline) -> None:
    """Check that the warehouse can be queried.

    Raises:
        ConfigurationError: as `check_destination`; or DuckDB's file does not exist, which
            a query would create.
        AnalyticsError: it is down or locked, or refuses the login.
    """
    check_destination(pipeline)
    file = duckdb_file(pipeline)
    if file and not file.exists():
        raise nothing_loaded(pipeline, f"there is no file {file}")
    try:
        with pipeline.destination_client():
            pass
    except Exception as error:  # each driver has errors of its own
        raise AnalyticsError(
            f"the warehouse cannot be opened: {words(reason(error))}; fix the problem and"
            " try again"
        ) from error


def nothing_loaded(pipeline: dlt.Pipeline, reason: str) -> ConfigurationError:
    """Return the error for a pipeline that has loaded nothing here."""
    return ConfigurationError(
        f"the pipeline {pipeline.pipeline_name!r} has loaded nothing into the dataset"
        f" {pipeline.dataset_name!r} of {pipeline.destination.destination_name}: {reason};"
        " run it first, or name the destination, dataset and pipeline that you loaded"
    )


def duckdb_file(pipeline: dlt.Pipeline) -> Path | None:
    """Return DuckDB's file; None for other warehouses and for one in memory."""
    if destination_kind(pipeline) != "duckdb":
        return None
    credentials: Any = pipeline.destination_client().config.credentials
    database = str(credentials.database)
    is_file = not database.startswith(":")  # as ":memory:"
    return Path(database) if is_file and not credentials.external_conn() else None


def location(pipeline: dlt.Pipeline) -> str:
    """Return where the tables are, for people: a file, or the destination's name."""
    file = duckdb_file(pipeline)
    if file is None:
        return str(pipeline.destination.destination_name)
    return file.name if file.parent == Path.cwd() else str(file)
