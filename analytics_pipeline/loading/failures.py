"""One readable sentence for each failure of dlt."""

import json
import re
from collections.abc import Iterator
from typing import cast

import dlt
from dlt.common.destination.client import StorageSchemaInfo
from dlt.common.exceptions import DltException
from dlt.common.schema.typing import TSchemaTables
from dlt.common.schema.utils import has_table_seen_data
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.extract import DltResource, DltSource
from dlt.pipeline.exceptions import PipelineStepFailed
from dlt.pipeline.trace import save_trace

from analytics_pipeline.errors import (
    AnalyticsError,
    ConfigurationError,
    shortened,
)
from analytics_pipeline.loading.loaded_lists import table_names
from analytics_pipeline.secrets import masked

STEPS = {
    "extract": "reading",
    "normalize": "preparing rows",
    "load": "loading into the warehouse",
    "sync": "reading the state of the last run from the warehouse",
}
AGAIN = "data loaded so far is kept; fix the problem and run again"
MAY_NOT_CREATE = re.compile("permission denied for database")
"""PostgreSQL's words to a user who may not create schemas."""
KEPT = "no data is lost; fix the problem and run again"
_LOCKED = re.compile(
    r'lock on file "(.+)": Conflicting lock is held in (.+) \(PID (\d+)'
)
"""How DuckDB says that another process has the file open."""


def root_error(error: BaseException) -> BaseException:
    """Return the error of this package inside dlt's, or dlt's own."""
    return next((e for e in causes(error) if isinstance(e, AnalyticsError)), error)


def is_interruption(error: BaseException) -> bool:
    """Return whether Ctrl-C caused the failure that dlt reports."""
    return any(isinstance(cause, KeyboardInterrupt) for cause in causes(error))


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """Yield the error and, one after the other, its causes."""
    seen: set[int] = set()  # a chain may be a ring
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        hidden = error.__suppress_context__
        error = error.__cause__ or (None if hidden else error.__context__)


def sentence(error: BaseException) -> str:
    """Return the innermost reason, and what it means for what is loaded."""
    root = root_error(error)
    if isinstance(root, AnalyticsError):
        return str(root)
    steps = [cause for cause in causes(error) if isinstance(cause, PipelineStepFailed)]
    if not steps:
        return words(error) + (f"; {KEPT}" if isinstance(error, OSError) else "")
    step = steps[-1]
    text, advice = words(reason(step)), ""
    if MAY_NOT_CREATE.match(text):
        client = cast(dlt.Pipeline, step.pipeline).sql_client()
        schemas = f"{client.dataset_name} and {client.staging_dataset_name}"
        advice = f"; let an administrator create the schemas {schemas} for this user"
    return f"{STEPS.get(step.step, step.step)} failed: {text}{advice}; {AGAIN}"


def mask_traces(error: BaseException) -> None:
    """Mask secrets in what dlt has stored of failed steps, `trace.pickle`."""
    for cause in causes(error):
        if isinstance(cause, PipelineStepFailed):
            pipeline = cast(dlt.Pipeline, cause.pipeline)
            trace = pipeline.last_trace
            steps = [
                step._replace(
                    step_exception=masked(step.step_exception),
                    exception_traces=masked(step.exception_traces),
                )
                for step in (trace.steps if trace else ())
            ]
            if trace and steps != trace.steps:
                trace.steps[:] = steps
                save_trace(pipeline.working_dir, trace)


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
            known = _tables(client, source.schema.name)
            names = table_names(known)
            wanted = {*map(_table_name, source.selected_resources.values())}
            there = client.get_storage_tables({*names.values(), *wanted})
            found = {name for name, columns in there if columns}
            foreign = _foreign(client, found & wanted, known, source.schema.name)
    except Exception:
        # Nothing was ever loaded; or no connection, as some driver says it. dlt asks
        # for the state next, and the same error then comes with its step.
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


def _tables(client: SqlJobClientBase, schema_name: str) -> TSchemaTables:
    """Return the tables with rows of a schema that is stored in the dataset."""
    return _with_rows(client.get_stored_schema(schema_name))


def _with_rows(stored: StorageSchemaInfo | None) -> TSchemaTables:
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
            foreign |= found & _tables(client, other).keys()
        for name, version in versions:
            # Loads that share a dataset store only what each of them knows.
            if unknown and name == ours:
                stored = client.get_stored_schema_by_hash(version)
                unknown -= _with_rows(stored).keys()
    for name in unknown:
        counts = query.execute_sql(f"SELECT count(*) FROM {table_name(name)}")
        if counts and counts[0][0]:  # empty ones are of a run that was killed
            foreign.add(name)
    return foreign


def _table_name(resource: DltResource) -> str:
    return str(resource.table_name)


def reason(error: BaseException) -> BaseException:
    """Return what dlt's errors were raised for."""
    for cause in causes(error):
        if not isinstance(cause, DltException):
            while cause.__cause__ is not None:
                cause = cause.__cause__
            return cause
        error = cause
    return error


def words(error: BaseException) -> str:
    """Return an error's own words, on one line; the first paragraph of many.

    Without what databases add to it, which holds values of rows.
    """
    text = " ".join(masked(str(error)).strip().partition("\n\n")[0].split())
    text = re.split(r"\b(?:DETAIL|CONTEXT|LINE \d+):", text)[0].rstrip()
    if lock := _LOCKED.search(text):
        text = "the file {} is in use by process {} ({})".format(*lock.group(1, 3, 2))
    if isinstance(error, OSError) and error.strerror:
        text = error.strerror + (f": {error.filename}" if error.filename else "")
    elif not isinstance(error, DltException) and type(error).__module__ == "builtins":
        text = f"{type(error).__name__}: {text}" if text else type(error).__name__
    return shortened(text.rstrip(":.") or type(error).__name__, 400)
