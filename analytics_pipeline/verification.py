"""Verify: read a span from the server, and compare it with the warehouse row by row."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

import dlt
import pyarrow as pa
import pyarrow.compute as pc
from dlt.common.runtime.collector_base import Collector
from dlt.extract import DltResource, DltSource

from analytics_pipeline.bookmarks import EARLIEST
from analytics_pipeline.client.client import Client, ListName
from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ApiError, ConfigurationError
from analytics_pipeline.extraction import READ, Run
from analytics_pipeline.loading.comparison import (
    KINDS,
    Affected,
    Comparison,
    Counts,
    Example,
)
from analytics_pipeline.loading.destinations import AdaptToDestination
from analytics_pipeline.loading.stored import StoredRows, opened
from analytics_pipeline.loading.summary import listed
from analytics_pipeline.tables.schema import TABLES, column_name

ROWS_PER_BATCH = 1_000
"""Rows that are in memory at a time."""
END = datetime.max.replace(tzinfo=UTC)
"""No time is later."""


@dataclass
class Verification:
    """How far the warehouse holds what the server shows."""

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
    repairs: dict[str, "Repair"] = field(default_factory=dict)
    """Table → what to read again."""

    @property
    def is_equal(self) -> bool:
        """All that could be read is in the warehouse as it is at the server, once."""
        return not self.failed and all(
            counts.is_equal
            for lists in self.tables.values()
            for counts in lists.values()
        )

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


class Repair(NamedTuple):
    """What makes a table equal again."""

    ids: list[str] | None
    """Of the rows; None: too many to name."""
    span: tuple[datetime, datetime]
    """In which they are."""
    gone: list[str]
    """Ids of rows that are doubled, but cannot be read again."""


def _repair(name: str, affected: Affected, config: Config, began: datetime) -> Repair:
    start, end = config.since or EARLIEST, config.until or began
    if affected.span:
        start, end = affected.span[0], affected.span[1] + timedelta(seconds=1)
    if name != "events":  # the rows may have a later time by now
        end = config.until or END
    return Repair(affected.ids, (start, end), affected.gone)


def only_repaired(source: DltSource, repairs: Mapping[str, Repair]) -> DltSource:
    """Return the source, made to give just the rows that have to be repaired."""
    for name, repair in repairs.items():
        if repair.ids is not None:
            ids = pa.array(repair.ids, pa.string())
            source.resources[name].add_map(partial(_only, ids))
    return source


def _only(ids: pa.Array, rows: pa.Table) -> pa.Table:
    return rows.filter(pc.is_in(rows["id"], value_set=ids))


def stored_copies(
    pipeline: dlt.Pipeline, resource: DltResource, ids: Sequence[str]
) -> DltResource:
    """Return what the warehouse holds of some rows, to be merged with itself."""
    table, name = TABLES[resource.name], str(resource.table_name)

    def copies() -> Iterator[pa.Table]:
        with opened(pipeline, dlt.current.source_schema().name) as dataset:
            yield from StoredRows(pipeline, dataset, table, name).of_ids(ids)

    found = dlt.resource(
        copies(),
        name=resource.name,
        table_name=name,
        primary_key=table.primary_key,
        write_disposition="merge",
        columns=table.columns,
    )
    return found.add_step(AdaptToDestination(table, "auto"))


def compare(
    pipeline: dlt.Pipeline, source: DltSource, tables: Sequence[str], began: datetime
) -> Verification:
    """Compare tables of the source with those of the pipeline's dataset.

    What came to the server after `began` is left aside, and what another load brings to
    the warehouse meanwhile.

    Raises:
        ConfigurationError: there is nothing to compare.
        AnalyticsError: the server is out of reach, or rejects the token.
    """
    if not tables:
        raise ConfigurationError(
            "verify compares what servers show now: name other tables than issue_history"
        )
    run = Run(single_load=True, continue_on_error=True)
    run.rows_per_batch = ROWS_PER_BATCH
    found = Verification()
    pipeline.activate()
    pipeline.sync_destination()
    connection = opened(pipeline, source.schema.name)
    with run.active(), pipeline.collector("Verify"), connection as dataset:
        for name in tables:
            batches = _server_rows(source.resources[name], run, began)
            first = next(batches, None)  # now the run knows the source's settings
            assert run.config
            stored = str(source.resources[name].table_name)
            with _folder(pipeline) as folder:
                _compare_table(
                    found,
                    StoredRows(pipeline, dataset, run.config.tables[name], stored),
                    pipeline.collector,
                    run,
                    began,
                    chain([] if first is None else [first], batches),
                    folder,
                )
    found.skipped |= {title: str(error) for title, error in run.refusals.items()}
    failures = run.failures | (run.refusals if run.is_refused else {})
    found.failed = {title: str(error) for title, error in failures.items()}
    found.skipped = {k: v for k, v in found.skipped.items() if k not in failures}
    return found


@contextmanager
def _folder(pipeline: dlt.Pipeline) -> Iterator[Path]:
    """Give a folder for files, which the next one removes if this one is killed."""
    folder = Path(pipeline.working_dir, "verify")
    rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        rmtree(folder, ignore_errors=True)


def _server_rows(
    resource: DltResource, run: Run, began: datetime
) -> Iterator[pa.Table]:
    """Give all rows of the server, and at the end once more those seen since `began`.

    A row that is seen again while the list is read moves to its top, past the place that
    reading has come to.
    """
    name = resource.name
    yield from resource
    config = run.config
    if not config or config.until or run.failures:
        return
    if config.spec.endpoints[name].is_swept:
        run.done.clear()
        run.bounded.clear()
        run.spans[name] = (began + run.clock_offset, END)
        yield from resource


def _compare_table(
    found: Verification,
    stored: StoredRows,
    collector: Collector,
    run: Run,
    began: datetime,
    batches: Iterator[pa.Table],
    folder: Path,
) -> None:
    """Compare one table, and add to what was found."""
    assert run.config
    assert run.client
    name = stored.table.name
    endpoint = run.config.spec.endpoints[name]
    projects = _Projects(run.client, run.config, endpoint)
    comparison = Comparison(
        folder,
        stored.table,
        time=column_name(endpoint.replication_key),
        keeps_versions=stored.keeps_versions,
    )
    started = datetime.now(UTC)
    with comparison:
        for rows in batches:
            # The server's `Date` is in whole seconds.
            now = datetime.now(UTC) + timedelta(seconds=1)
            since_then = (began + run.clock_offset, now + run.clock_offset)
            comparison.add("server", rows, projects.of_server(rows), since_then)
        unread = {*run.failures, *run.refusals}
        for rows in _stored_rows(stored, comparison.time, run.config):
            known = projects.of_warehouse(rows)
            in_span = _in_span(rows[comparison.time], run.config, endpoint)
            collector.update(f"{READ}{name} in the warehouse", inc=rows.num_rows)
            since_then = (started, datetime.now(UTC))
            comparison.add("warehouse", rows, known, since_then, in_span)
        found.skipped |= projects.unknown
        lists = projects.titles(unread)
        counts = comparison.finish([*lists])
        found.tables[name] = {title: counts.get(title, Counts()) for title in lists}
        found.examples[name] = {
            kind: rows for kind in KINDS if (rows := comparison.examples(kind))
        }
        if affected := comparison.affected():
            found.repairs[name] = _repair(name, affected, run.config, began)


def _stored_rows(stored: StoredRows, time: str, config: Config) -> Iterator[pa.Table]:
    """Give what to compare; all of a table whose rows may have another time by now."""
    if stored.table.name == "events":
        return stored.between(time, config.since, config.until)
    return stored.all()


class _Projects:
    """Which rows belong to which list."""

    def __init__(self, client: Client, config: Config, endpoint: Endpoint) -> None:
        self._client = client
        self._config = config
        self._endpoint = endpoint
        self._names: dict[str | None, str] = {}
        """Project id → slug."""
        self.unknown: dict[str, str] = {}
        """List whose rows cannot be told from those of other projects → why."""
        if endpoint.by_project:
            for slug in config.projects:
                self._names[slug] = slug  # of rows that do not tell their project
                each = ListName(endpoint, slug)
                try:
                    project_id = client.project_id(slug, each.stats)
                except ApiError as error:
                    self.unknown[client.describe(each)] = str(error)
                else:
                    self._names[project_id or slug] = slug

    def of_server(self, rows: pa.Table) -> list[str | None]:
        """Return the project of each row that the server has sent."""
        for key, _ in self._named(rows):
            # Of a project that nobody has heard of: the organization's, at least.
            self._names.setdefault(key, self._config.organization)
        return self.of_warehouse(rows)

    def of_warehouse(self, rows: pa.Table) -> list[str | None]:
        """Return the project of each row; None where it is one that is not compared."""
        return [name for _, name in self._named(rows)]

    def titles(self, unread: set[str]) -> list[str]:
        """Return the projects, or the organization, whose lists can be compared."""
        organization = self._config.organization
        titles = [
            project or organization
            for project in self._config.projects_of(self._endpoint)
            if self._client.describe(ListName(self._endpoint, project))
            not in unread | self.unknown.keys()
        ]
        is_odd = organization in self._names.values() and not self.unknown
        return [*titles, organization] if is_odd else titles

    def _named(self, rows: pa.Table) -> list[tuple[str | None, str | None]]:
        if not self._endpoint.by_project:
            organization = self._config.organization
            return [(organization, organization)] * rows.num_rows
        is_detail = self._endpoint.table == "project_detail"
        keys = rows["id" if is_detail else "project_id"].to_pylist()
        return [(key, self._names.get(key)) for key in keys]


def _in_span(times: pa.ChunkedArray, config: Config, endpoint: Endpoint) -> list[bool]:
    """Return of each row of the warehouse whether the server was asked for it."""
    since, until = config.since, config.until
    if endpoint.full_scan or not (since or until):
        return [True] * len(times)
    if until and endpoint.table != "events":  # it may have another time by now
        return [False] * len(times)
    return [
        time is not None
        and (since is None or time >= since)
        and (until is None or time < until)
        for time in times.to_pylist()
    ]
