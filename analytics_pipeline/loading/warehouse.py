"""Which warehouse a pipeline loads into, whether it can be used, and where it is."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import dlt
from dlt.common.configuration.exceptions import (
    ConfigFieldMissingException,
)
from dlt.common.configuration.specs import (
    BaseConfiguration,
    ConnectionStringCredentials,
)
from dlt.common.configuration.specs.base_configuration import is_secret_hint
from dlt.common.exceptions import MissingDependencyException

from analytics_pipeline.errors import (
    AnalyticsError,
    ConfigurationError,
    did_you_mean,
)
from analytics_pipeline.loading.destinations import destination_kind
from analytics_pipeline.loading.extras import install_command
from analytics_pipeline.loading.failures import causes, reason, words
from analytics_pipeline.secrets import hide
from analytics_pipeline.tables.credentials import mask_credentials

TABLE_FORMATS = {
    "delta": ("deltalake", "deltalake"),
    "iceberg": ("pyiceberg", "iceberg"),
}
"""Table format of files → what has to be imported, and the extra that brings it."""
EXTRAS = ("postgres", "sqlalchemy")
"""Destinations whose driver an extra of this package brings; of others, one of dlt's."""
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
        advice = f"; it is loaded by the destination {alias!r}"
    else:
        advice = did_you_mean(name, names) or f"; there are {', '.join(names)}"
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
    """Return which settings of the destination are missing, and where they belong."""
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
    spec = pipeline.destination.spec.get_resolvable_fields().get(field)
    if (
        inner
        and isinstance(spec, type)
        and issubclass(spec, ConnectionStringCredentials)
    ):
        whole = section.replace(".", "__").upper()
        driver = spec.drivername or "mysql+pymysql"
        text += f"; or all at once, {whole}={driver}://user:password@host/database"
    return text


def check_table_format(pipeline: dlt.Pipeline, table_format: str | None) -> None:
    """Check the table format before any request; dlt checks it only after reading.

    Raises:
        ConfigurationError: the destination has no such tables, or a package is missing.
    """
    if table_format is None:
        return
    destination = pipeline.destination
    able = destination.capabilities().supported_table_formats or ()
    if table_format not in able:
        raise ConfigurationError(
            f"table format {table_format!r} does not work with {destination.destination_name}"
            f" ({', '.join(able) if able else 'filesystem has it'})"
        )
    module, extra = TABLE_FORMATS.get(table_format, ("dlt", ""))
    is_files = destination_kind(pipeline) == "filesystem"
    if is_files and find_spec(module) is None:
        raise ConfigurationError(
            f"table format {table_format!r} needs the package {module}:"
            f" {install_command(extra)}"
        )


def check_loaded(pipeline: dlt.Pipeline) -> None:
    """Check that the warehouse can be asked; asking DuckDB would make an empty file.

    Raises:
        ConfigurationError: there is no file, so nothing was ever loaded; or as
            `check_destination` does.
        AnalyticsError: it is down, locked, or does not let us in.
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
    """Return the error for a pipeline that has not loaded anything here."""
    return ConfigurationError(
        f"the pipeline {pipeline.pipeline_name!r} has loaded nothing into the dataset"
        f" {pipeline.dataset_name!r} of {pipeline.destination.destination_name}: {reason};"
        " run it first, or give its destination, dataset and name"
    )


def duckdb_file(pipeline: dlt.Pipeline) -> Path | None:
    """Return the file that holds the tables; None for other warehouses, and in memory."""
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
