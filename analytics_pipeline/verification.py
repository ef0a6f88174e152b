"""Verify: load a span once more, into a dataset beside the warehouse's, and compare both.

The comparison is one SQL statement per table, and runs where the data is.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal, NamedTuple, cast

import dlt
from dlt.common.destination.client import WithStagingDataset
from dlt.common.destination.exceptions import DestinationUndefinedEntity
from dlt.common.destination.utils import resolve_merge_strategy
from dlt.common.exceptions import DltException
from dlt.destinations.exceptions import DatabaseException
from dlt.destinations.impl.duckdb.sql_client import WithTableScanners
from dlt.destinations.job_client_impl import SqlJobClientBase
from dlt.destinations.sql_client import SqlClientBase, WithSqlClient
from dlt.extract import DltSource

from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.extraction import Run
from analytics_pipeline.loading.destinations import destination_kind
from analytics_pipeline.loading.failures import words
from analytics_pipeline.loading.sql import literal, translated
from analytics_pipeline.loading.summary import listed
from analytics_pipeline.reading import Extent
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import (
    GONE_AT,
    LOAD_ID,
    PROJECT_SLUG,
    READ_AT,
    column_name,
)

log = logging.getLogger(__name__)

Kind = Literal["missing", "doubled", "different", "gone"]
KINDS: tuple[Kind, ...] = ("missing", "doubled", "different", "gone")
EXAMPLES = 10
"""Keys of each kind that are named."""
_OTHER = {"server": "warehouse", "warehouse": "server"}
_NO_TIME = "cast(null as timestamptz)"
HASH_JOINS = """SET @of_mariadb = 1 /*M!, join_cache_level = 8,
    join_buffer_size = 33554432, join_buffer_space_limit = 134217728 */"""
"""MariaDB joins tables without an index in loops otherwise; MySQL has no such setting."""
SUFFIX = "_verify"
"""Ends the names of the second pipeline and its dataset."""
MEMORY = "200MB"
"""What DuckDB may take for a comparison; it goes on with files. Of itself it takes most
of the machine's."""


@dataclass
class Counts:
    """Numbers of rows."""

    server: int = 0
    warehouse: int = 0
    missing: int = 0
    """At the server, and not in the warehouse."""
    doubled: int = 0
    """In the warehouse, beyond the first row of a key."""
    different: int = 0
    """On both sides, with other values."""
    gone: int = 0
    """In the warehouse, and not at the server any more: not a difference."""

    @property
    def is_equal(self) -> bool:
        """The warehouse matches the server."""
        return not (self.missing or self.doubled or self.different)

    def add(self, other: "Counts") -> None:
        """Add the numbers of another list."""
        for each in fields(self):
            total = getattr(self, each.name) + getattr(other, each.name)
            setattr(self, each.name, total)


class Example(NamedTuple):
    """A row that differs."""

    project: str
    key: str
    columns: tuple[str, ...] = ()
    """In which a different row differs."""


@dataclass
class Verification:
    """How far the warehouse matches the server."""

    tables: dict[str, dict[str, Counts]] = field(default_factory=dict)
    """Table → project, or organization → numbers."""
    examples: dict[str, dict[str, list[Example]]] = field(default_factory=dict)
    """Table → kind → the first rows of this kind."""
    skipped: dict[str, str] = field(default_factory=dict)
    """List → why the server refused it."""
    failed: dict[str, str] = field(default_factory=dict)
    """List → why it could not be read."""
    seconds: float = 0.0
    before: dict[str, Counts] | None = None
    """Table → numbers before a repair; None: nothing had to be repaired."""

    @property
    def is_equal(self) -> bool:
        """All that could be read is in the warehouse as it is at the server, once."""
        return not self.failed and not self.unequal

    @property
    def unequal(self) -> list[str]:
        """Tables in which a row is missing, doubled or different."""
        return [name for name, each in self.totals().items() if not each.is_equal]

    def totals(self) -> dict[str, Counts]:
        """Return the numbers of each table."""
        totals = {table: Counts() for table in self.tables}
        for table, lists in self.tables.items():
            for counts in lists.values():
                totals[table].add(counts)
        return totals

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "tables": {table: vars(counts) for table, counts in self.totals().items()},
            "before_repair": self.before
            and {table: vars(counts) for table, counts in self.before.items()},
            "projects": {
                table: {project: vars(counts) for project, counts in lists.items()}
                for table, lists in self.tables.items()
            },
            "examples": {
                table: {
                    kind: [each._asdict() for each in rows]
                    for kind, rows in kinds.items()
                }
                for table, kinds in self.examples.items()
            },
            "skipped": listed(self.skipped),
            "failed": listed(self.failed),
            "seconds": round(self.seconds, 3),
        }


@contextmanager
def second_pipeline(pipeline: dlt.Pipeline) -> Iterator[dlt.Pipeline]:
    """Yield a pipeline of the same destination with an empty dataset of its own.

    The dataset is dropped at the end, however that comes; if this process is killed, by
    the next call. The working folder is in that of the pipeline, and goes with it.

    Raises:
        ConfigurationError: the destination cannot be queried, or the dataset cannot be
            made.
    """
    kind, client = destination_kind(pipeline), pipeline.destination_client()
    if not isinstance(client, WithSqlClient):
        raise ConfigurationError(
            f"verify compares by SQL, which {kind} does not have: use `status` and queries"
            " of your own"
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
    folder_of_files = pipeline.get_local_state_val("initial_cwd")
    second.set_local_state_val("initial_cwd", folder_of_files)
    try:
        _check_name(pipeline, second)
        _drop(second)
        _create(second)
        try:
            yield second
        except BaseException:
            try:
                _drop(second)
            except Exception as error:  # what came first says more
                log.warning(
                    "the dataset %r could not be dropped (%s); the next verify drops it",
                    second.dataset_name,
                    words(error),
                )
            raise
        _drop(second)
    finally:
        rmtree(folder, ignore_errors=True)
        pipeline.activate()


def _same_destination(pipeline: dlt.Pipeline, config: Any) -> Any:
    """Return the destination with what dlt has resolved for the pipeline by its name."""
    destination: Any = pipeline.destination
    given = destination.config_params | destination.caps_params
    resolved = {
        name: value
        for name in ("credentials", "bucket_url")
        if (value := getattr(config, name, None))
        and isinstance(given.get(name), str | None)
    }
    return type(destination)(**given | resolved)


def _names(pipeline: dlt.Pipeline) -> tuple[str, str]:
    """Return the names of the dataset and of its staging dataset, as they are stored."""
    client: Any = pipeline.destination_client()
    return WithStagingDataset.create_dataset_names(client.schema, client.config)


def _check_name(pipeline: dlt.Pipeline, second: dlt.Pipeline) -> None:
    """Check that the dataset to drop holds nothing but what verify has loaded.

    Raises:
        ConfigurationError: other pipelines use it.
    """
    is_same = {*_names(pipeline)} & {*_names(second)}
    try:
        with second.sql_client() as client:
            state = client.make_qualified_table_name("_dlt_pipeline_state")
            found = client.execute_sql(f"SELECT DISTINCT pipeline_name FROM {state}")
    except DestinationUndefinedEntity:
        found = []  # there is no such dataset, or it was left before its first load
    if is_same or any(row[0] != second.pipeline_name for row in found or ()):
        raise ConfigurationError(
            f"verify needs the dataset {second.dataset_name!r} for itself and would drop"
            " it, but it holds tables of another pipeline: load these into a dataset of"
            " another name"
        )


def _drop(pipeline: dlt.Pipeline) -> None:
    """Drop the dataset and its staging dataset, if they are there."""
    with pipeline.destination_client() as client, ExitStack() as stack:
        drop = client.drop_storage
        if isinstance(client, SqlJobClientBase):
            drop = client.sql_client.drop_dataset  # just the one
        if client.is_storage_initialized():
            drop()
        if isinstance(client, WithStagingDataset):
            stack.enter_context(client.with_staging_dataset())
            if client.is_storage_initialized():
                drop()


def _create(pipeline: dlt.Pipeline) -> None:
    """Create the dataset, before anything is read that could not be loaded into it."""
    try:
        with pipeline.destination_client() as client:
            client.initialize_storage()
    except (DltException, OSError) as error:
        raise ConfigurationError(
            f"verify needs a dataset {pipeline.dataset_name!r} beside the pipeline's, and"
            f" cannot create it: {words(error)}; let the account create datasets"
            " (schemas, databases, folders)"
        ) from error


def compare(
    pipeline: dlt.Pipeline,
    second: dlt.Pipeline,
    source: DltSource,
    run: Run,
    began: datetime,
    started: datetime,
) -> Verification:
    """Compare what a run has loaded into the second dataset with the first.

    Args:
        pipeline: whose dataset is the warehouse.
        second: as `second_pipeline` yields it, loaded.
        source: what was loaded.
        run: which lists were read, and how far.
        began: what came to the server later is left out.
        started: when the run began; what came to the warehouse later is left out.
    """
    unread = run.failures | run.refusals
    failures = unread if run.is_refused else run.failures
    found = Verification(
        failed={title: str(error) for title, error in failures.items()},
        skipped={k: str(error) for k, error in unread.items() if k not in failures},
    )
    schema = source.schema.name
    with _connected(pipeline, second, schema) as client:
        for name in (name for name in TABLES if name in run.extents):
            resource = source.resources[name]
            stored = str(resource.table_name)
            readers = {
                _title(key): reader
                for (table, key), reader in run.readers.items()
                if table == name and reader.title not in unread
            }
            found.tables[name], found.examples[name] = {}, {}
            if not readers:
                continue
            comparison = _Comparison(
                client,
                next(iter(readers.values())).name.endpoint,
                [*cast(Mapping[str, Any], resource.columns)],
                _Side.of(pipeline, client, schema, stored),
                _Side.of(second, client, schema, stored),
                {
                    title: each.state.get("project_id")
                    for title, each in readers.items()
                },
                run.extents[name],
                began,
                started,
            )
            found.tables[name] = comparison.counts()
            for kind in KINDS:
                if any(getattr(each, kind) for each in found.tables[name].values()):
                    found.examples[name][kind] = comparison.examples(kind)
    return found


def _title(key: str) -> str:
    """Return the project of a bookmark's key, or its organization."""
    organization, _, project = key.partition(" ")[2].partition("/")
    return project or organization


@contextmanager
def _connected(
    pipeline: dlt.Pipeline, second: dlt.Pipeline, schema: str
) -> Iterator[SqlClientBase[Any]]:
    """Yield a connection to which both datasets are open."""
    with second.sql_client(schema) as client, ExitStack() as stack:
        if isinstance(client, WithTableScanners):  # files, of which DuckDB has views
            remote: Any = pipeline.destination_client(schema)
            database: Any = client.credentials
            first: Any = type(client)(remote, _names(pipeline)[0], cache_db=database)
            tables = remote.schema.data_tables(seen_data_only=True)
            names = [t["name"] for t in tables if "table_format" not in t]
            stack.enter_context(first)
            first.create_views_for_tables(dict(zip(names, names, strict=True)))
            client.execute_sql(f"SET temp_directory = {literal(second.working_dir)}")
        if destination_kind(pipeline) in ("duckdb", "filesystem"):
            ((before,),) = (
                client.execute_sql("SELECT current_setting('memory_limit')") or []
            )
            client.execute_sql(f"SET memory_limit = '{MEMORY}'")
            # It is a setting of all connections of this process.
            stack.callback(client.execute_sql, f"SET memory_limit = '{before}'")
        if client.capabilities.sqlglot_dialect == "mysql":
            client.execute_sql(HASH_JOINS)
        yield client


def _data_files(pipeline: dlt.Pipeline, schema: str, name: str, form: str) -> str:
    """Return the rows of a Delta or Iceberg table, without DuckDB's extensions for them.

    Their writers here replace whole files, so the files of the newest version are all.
    """
    if form == "delta":
        from dlt.common.libs.deltalake import get_delta_tables

        files = get_delta_tables(pipeline, name, schema_name=schema)[name].file_uris()
    else:
        from dlt.common.libs.pyiceberg import get_iceberg_tables

        table = get_iceberg_tables(pipeline, name, schema_name=schema)[name]
        files = [task.file.file_path for task in table.scan().plan_files()]
    return f"read_parquet([{', '.join(map(literal, files))}], union_by_name = true)"


class _Side(NamedTuple):
    """A table in one of the datasets."""

    table: str
    """Its name in SQL."""
    kinds: Mapping[str, str]
    """Column → dlt's data type; empty where there is no such table."""
    keeps_versions: bool
    """The destination cannot replace rows, so only the newest of a key counts."""

    @classmethod
    def of(
        cls, pipeline: dlt.Pipeline, client: SqlClientBase[Any], schema: str, name: str
    ) -> "_Side":
        """Return the table of this name."""
        with client.with_alternative_dataset_name(_names(pipeline)[0]):
            table = client.make_qualified_table_name(name)
        stored = pipeline.schemas[schema] if schema in pipeline.schema_names else None
        if stored is None or name not in stored.tables:
            return cls(table, {}, False)
        with pipeline.destination_client(schema) as storage:
            if not storage.get_storage_table(name)[1]:  # type: ignore[attr-defined]
                return cls(table, {}, False)
        columns = stored.tables[name]["columns"]
        kinds = {
            n: str(each["data_type"])
            for n, each in columns.items()
            if "data_type" in each
        }
        form = stored.tables[name].get("table_format")
        if form and destination_kind(pipeline) == "filesystem":
            table = _data_files(pipeline, schema, name, form)
        strategy = resolve_merge_strategy(
            stored.tables, stored.tables[name], pipeline.destination.capabilities()
        )
        return cls(table, kinds, strategy is None)


@dataclass(frozen=True)
class _Comparison:
    """One table of both datasets, compared by PostgreSQL's SQL, which is translated."""

    client: SqlClientBase[Any]
    """Connected to both."""
    endpoint: Endpoint
    declared: list[str]
    """Columns of the source's table; what else the warehouse has is not compared."""
    warehouse: _Side
    server: _Side
    """The rows that were loaded just now."""
    lists: Mapping[str, str | None]
    """Project, or organization, of those that were read → the project's id, if known."""
    extent: Extent
    """What was read of them."""
    began: datetime
    """What the server dates later is left out."""
    started: datetime
    """What came to the warehouse later is left out."""

    def counts(self) -> dict[str, Counts]:
        """Return the numbers of each list."""
        if not self.server.kinds and not self.warehouse.kinds:
            return {name: Counts() for name in self.lists}
        rows = self._execute(
            "select of_list, sum(at_server), sum(copies), sum(case when copies = 0 then 1"
            " else 0 end), sum(case when copies > 1 then copies - 1 else 0 end),"
            f" sum(differs_0), sum(1 - at_server) from ({self._keys([self._any])}) as found"
            " group by of_list"
        )
        counts = {name: Counts(*map(int, numbers)) for name, *numbers in rows}
        return {name: counts.get(name, Counts()) for name in self.lists}

    def examples(self, kind: Kind) -> list[Example]:
        """Return the first rows of a kind, by their keys."""
        condition = {
            "missing": "copies = 0",
            "doubled": "copies > 1",
            "different": "differs_0 = 1",
            "gone": "at_server = 0",
        }[kind]
        key = ", ".join(self._key)
        found = self._execute(
            f"select of_list, {key} from ({self._keys([self._any])}) as found"
            f" where {condition} order by {key} limit {EXAMPLES}"
        )
        columns: dict[tuple[Any, ...], tuple[str, ...]] = {}
        if kind == "different":  # only now by column, which takes more memory
            ids = ", ".join({literal(row[-1]) for row in found})
            flags = [self._differs(name) for name in self._columns]
            for _, *row in self._execute(
                self._keys(flags, f"{self._key[-1]} in ({ids})")
            ):
                values, marks = row[: len(self._key)], row[-len(flags) :]
                names = (
                    n for n, mark in zip(self._columns, marks, strict=True) if mark
                )
                columns[tuple(values)] = tuple(names)
        return [
            Example(row[0], " ".join(row[1:]), columns.get(tuple(row[1:]), ()))
            for row in found
        ]

    def _keys(self, flags: Sequence[str], condition: str = "1 = 1") -> str:
        """Return the statement that gives each key of either side once, with marks.

        Without full joins, which not all databases have, and without `not exists`, for
        which MariaDB reads one side for each row of the other.
        """
        server, warehouse = (
            f"(select * from {self._rows(side)} as rows_of_side where {condition})"
            for side in ("server", "warehouse")
        )
        time, first = self._time, self._key[0]
        same = " and ".join(f"s.{key} = w.{key}" for key in self._key)
        of_server, of_warehouse = (
            ", ".join(f"{side}.{name}" for name in ("of_list", *self._key))
            for side in "sw"
        )
        marks = "".join(
            f", max(case when w.{first} is not null and ({flag}) then 1 else 0 end)"
            f" as differs_{n}"
            for n, flag in enumerate(flags)
        )
        zeros = "".join(f", 0 as differs_{n}" for n in range(len(flags)))
        in_time = f"(w.came_at is null or w.came_at < {literal(self.started)})"
        return f"""
            select {of_server}, 1 as at_server, count(w.{first}) as copies{marks}
            from {server} as s left join {warehouse} as w on {same}
            where (s.{time} is null or s.{time} < {literal(self.began)} or s.{time} = w.{time})
                and s.of_list is not null and {in_time}
            group by {of_server}
            union all
            select {of_warehouse}, 0 as at_server, count(*) as copies{zeros}
            from {warehouse} as w left join {server} as s on {same}
            where s.{first} is null and w.of_list is not null and {self._is_listed}
                and {in_time}
            group by {of_warehouse}
        """

    def _rows(self, name: str) -> str:
        """Return the rows of a side, with their lists; none where there is no table."""
        end = ""
        if not getattr(self, name).kinds:
            name, end = _OTHER[name], " where 1 = 0"
        side: _Side = getattr(self, name)
        key = ", ".join(self._key)
        compared = {self._quoted(n): self._comparable(n, side) for n in self._columns}
        columns = {name: name for name in (*self._key, self._time)}
        columns |= {name: value for name, value in compared.items() if value != "null"}
        columns["came_at"] = READ_AT if READ_AT in side.kinds else _NO_TIME
        columns["of_list"] = self._list(side.kinds)
        if self._dialect == "duckdb":
            columns["content"] = f"hash({', '.join(compared.values()) or 0})"
        if side.keeps_versions:
            order = f"partition by {key} order by {READ_AT} desc"
            columns["copy_number"] = f"row_number() over ({order})"
        selected = ", ".join(f"{value} as {name}" for name, value in columns.items())
        rows = f"(select {selected} from {name}_rows{end})"
        if side.keeps_versions:
            return f"(select * from {rows} as copies where copy_number = 1)"
        return rows

    def _comparable(self, column: str, side: _Side) -> str:
        """Return the expression for a column by which it is compared."""
        kinds = {
            each.kinds.get(column)
            for each in (self.server, self.warehouse)
            if each.kinds
        }
        if column not in side.kinds:
            return "null"
        if self._dialect == "mysql":  # or upper and lower case would be the same
            return f"cast({self._quoted(column)} as binary)"
        is_same = len(kinds - {None}) == 1
        return (
            self._quoted(column) if is_same else f"cast({self._quoted(column)} as text)"
        )

    def _differs(self, column: str) -> str:
        """Return the condition for rows that differ in a column."""
        name, kinds = self._quoted(column), self.warehouse.kinds
        if kinds and column not in kinds:
            return f"s.{name} is not null"
        return f"w.{name} is distinct from s.{name}"

    @property
    def _any(self) -> str:
        """The condition for rows that differ; by hashes where joins are in memory."""
        if self._dialect == "duckdb":
            return "w.content <> s.content"
        return " or ".join(map(self._differs, self._columns)) or "1 = 0"

    def _list(self, kinds: Mapping[str, str]) -> str:
        """Return the expression for the list that a row belongs to; null: none of them."""
        if not self.endpoint.by_project:
            return literal(*self.lists)
        column = "id" if self.endpoint.single else "project_id"
        if not {column, PROJECT_SLUG} & kinds.keys():
            return "cast(null as text)"  # as an earlier version has loaded issues
        cases = []
        for title, project_id in self.lists.items():
            conditions = []
            if column in kinds:
                conditions.append(
                    f"{self._quoted(column)} = {literal(project_id or title)}"
                )
            if PROJECT_SLUG in kinds:
                condition = f"{self._quoted(PROJECT_SLUG)} = {literal(title)}"
                if column in kinds and project_id:
                    condition += f" and {self._quoted(column)} is null"
                conditions.append(condition)
            cases.append(f"when {' or '.join(conditions)} then {literal(title)}")
        return f"case {' '.join(cases)} end"

    @property
    def _is_listed(self) -> str:
        """Return the condition for rows that the server would have shown."""
        since, until, time = self.extent.since, self.extent.until, f"w.{self._time}"
        if self.endpoint.full_scan:
            since = until = None
        elif until and (self.endpoint.is_swept or self.endpoint.refresh_window):
            return "1 = 0"  # they may have changed by now
        if self.endpoint.listed_for:
            oldest = datetime.now(UTC) - self.endpoint.listed_for
            since = max(since or oldest, oldest)
        conditions = [f"{time} >= {literal(since)}"] if since else []
        conditions += [f"{time} < {literal(until)}"] if until else []
        return " and ".join(conditions) or "1 = 1"

    @property
    def _columns(self) -> list[str]:
        """The columns to compare."""
        table = TABLES[self.endpoint.table]
        ignored = {*table.primary_key, *map(column_name, table.volatile.split())}
        ignored |= {READ_AT, GONE_AT, LOAD_ID}
        return [n for n in self.declared if n in self.server.kinds and n not in ignored]

    @property
    def _key(self) -> list[str]:
        return [self._quoted(name) for name in TABLES[self.endpoint.table].primary_key]

    @property
    def _time(self) -> str:
        return self._quoted(column_name(self.endpoint.replication_key))

    @property
    def _dialect(self) -> str:
        return str(self.client.capabilities.sqlglot_dialect)

    def _quoted(self, name: str) -> str:
        return f'"{self.client.capabilities.casefold_identifier(name)}"'

    def _execute(self, sql: str) -> Sequence[Sequence[Any]]:
        sql = translated(sql, self._dialect)
        for name in ("warehouse", "server"):
            sql = sql.replace(f"{name}_rows", getattr(self, name).table)
        try:
            return self.client.execute_sql(sql) or []
        except DatabaseException as error:
            if "Out of Memory" not in str(error):
                raise
        self.client.execute_sql("RESET memory_limit")
        return self.client.execute_sql(sql) or []
