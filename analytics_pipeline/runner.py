"""Make the pipeline, run it, summarise what it did."""

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import dlt
from dlt.common.runtime.collector_base import Collector
from dlt.extract import DltSource
from dlt.pipeline.exceptions import PipelineStepFailed

from analytics_pipeline.errors import AnalyticsError
from analytics_pipeline.tables import TABLES

NAME = "analytics_pipeline"
DATASET = "analytics"


@dataclass
class TableSummary:
    rows: int = 0
    """Rows loaded: new ones, and changed ones that replaced their old copy."""
    requests: int = 0
    newest: str | None = None
    """ISO time of the newest row seen."""
    misfits: int = 0
    """Values that did not fit their column and went into `extra`."""
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""

    def add(self, metrics: dict[str, Any]) -> None:
        self.rows += metrics["rows"]
        self.requests += metrics["requests"]
        self.misfits += metrics["misfits"]
        self.replaced += metrics["replaced"]
        self.newest = max(filter(None, (self.newest, metrics["newest"])), default=None)


@dataclass
class Summary:
    tables: dict[str, TableSummary] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """Project → why it could not be read."""
    seconds: float = 0.0
    waited: float = 0.0
    """Seconds of these in which a rate limit held the requests back."""

    @property
    def requests(self) -> int:
        return sum(table.requests for table in self.tables.values())

    def as_json(self) -> dict[str, Any]:
        return {
            "tables": {
                name: {key: value for key, value in vars(table).items() if value}
                | {"rows": table.rows}
                for name, table in self.tables.items()
            },
            "requests": self.requests,
            "skipped": [
                {"project": project, "reason": reason}
                for project, reason in self.skipped.items()
            ],
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 3),
        }


def make_pipeline(
    destination: Any = "duckdb",
    *,
    dataset: str = DATASET,
    name: str = NAME,
    pipelines_dir: str | None = None,
    progress: str | Collector | None = None,
) -> dlt.Pipeline:
    """A dlt pipeline as the command line makes it.

    With DuckDB the file is `<name>.duckdb` in the working folder.
    """
    return dlt.pipeline(
        name,
        pipelines_dir=pipelines_dir,  # type: ignore[arg-type]
        destination=destination,
        dataset_name=dataset,
        progress=progress,  # type: ignore[arg-type]
    )


def load(
    pipeline: dlt.Pipeline, source: DltSource, tables: Sequence[str] = ()
) -> Summary:
    """Load what is new; of some tables only, if they are named.

    What an interrupted run left behind is loaded first.

    Raises:
        AnalyticsError: the source could not be read.
        PipelineStepFailed: dlt or the destination failed. In both cases rows and
            cursors are as they were, or the next run completes what is pending.
    """
    started = time.perf_counter()
    source = only(source, tables)
    try:
        while pipeline.has_pending_data:
            pipeline.run()
        pipeline.run(source)
    except PipelineStepFailed as failure:
        raise root_error(failure) from failure
    summary = summarise(pipeline)
    summary.seconds = time.perf_counter() - started
    return summary


def only(source: DltSource, tables: Sequence[str]) -> DltSource:
    """The source with just the resources that load these tables."""
    if not tables:
        return source
    return source.with_resources(
        *(
            name
            for name, resource in source.resources.items()
            if resource.table_name in tables
        )
    )


def all_projects(source: DltSource) -> list[str]:
    """The slugs of the organization's projects, asked from the server."""
    pages = source.resources["projects"]
    return [slug for page in pages for slug in page["slug"].to_pylist() if slug]


def summarise(pipeline: dlt.Pipeline) -> Summary:
    """What the last run did, from dlt's trace."""
    summary = Summary()
    order = list(TABLES)
    for metrics in sorted(_metrics(pipeline), key=lambda m: order.index(m["table"])):
        table = summary.tables.setdefault(metrics["table"], TableSummary())
        table.add(metrics)
        if "skipped" in metrics:
            summary.skipped.setdefault(metrics["project"], metrics["skipped"])
        summary.waited = max(summary.waited, metrics["waited"])
    return summary


def _metrics(pipeline: dlt.Pipeline) -> Iterator[dict[str, Any]]:
    """The metrics that each resource reported; see `reading.Reading.report`."""
    trace = pipeline.last_trace
    for step in trace.steps if trace else ():
        if step.step != "extract" or step.step_info is None:
            continue
        for packages in step.step_info.metrics.values():
            for package in packages:
                for resource in package["resource_metrics"].values():  # type: ignore[typeddict-item]
                    if "table" in resource.custom_metrics:
                        yield resource.custom_metrics


def root_error(error: BaseException) -> BaseException:
    """The error of this package inside dlt's, or dlt's own."""
    causes: Iterable[BaseException] = _causes(error)
    return next((e for e in causes if isinstance(e, AnalyticsError)), error)


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
