"""What a run did, from dlt's trace."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dlt

from analytics_pipeline.tables import TABLES


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
    reached: dict[str, datetime] = field(default_factory=dict)
    """Project → up to where it is loaded, by a load in chunks."""
    seconds: float = 0.0
    appended: set[str] = field(default_factory=set)
    """Tables that keep the old versions of rows, as the destination cannot merge."""
    waited: float = 0.0
    """Seconds of these in which a rate limit held the requests back."""

    @property
    def requests(self) -> int:
        return sum(table.requests for table in self.tables.values())

    def add(self, other: "Summary") -> None:
        """Of several loads, one."""
        for name, table in other.tables.items():
            self.tables.setdefault(name, TableSummary()).add(vars(table))
        self.skipped |= other.skipped
        self.reached |= other.reached
        self.appended |= other.appended
        self.seconds += other.seconds
        self.waited += other.waited

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


def summarise(pipeline: dlt.Pipeline) -> Summary:
    """What the last run did, from dlt's trace."""
    summary = Summary()
    order = list(TABLES)
    for metrics in sorted(_metrics(pipeline), key=lambda m: order.index(m["table"])):
        table = summary.tables.setdefault(metrics["table"], TableSummary())
        table.add(metrics)
        if metrics["reached"]:
            summary.reached[metrics["project"]] = metrics["reached"]
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
