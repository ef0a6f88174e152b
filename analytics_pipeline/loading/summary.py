"""What a run did, from dlt's trace."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dlt

from analytics_pipeline.tables.columns import TABLES


@dataclass
class TableSummary:
    """What was read and loaded of one table."""

    rows: int = 0
    """New rows, and those that changed after their bookmark."""
    reread: int = 0
    """Rows that were loaded before, and replaced their old copies."""
    requests: int = 0
    newest: str | None = None
    """ISO time of the newest row seen."""
    mismatches: int = 0
    """Values that did not fit their column and went into `extra`."""
    replaced: int = 0
    """Characters that no database takes, replaced by U+FFFD."""

    def add(self, other: "TableSummary") -> None:
        """Merge the summary of another load into this one."""
        self.rows += other.rows
        self.reread += other.reread
        self.requests += other.requests
        self.mismatches += other.mismatches
        self.replaced += other.replaced
        self.newest = max(filter(None, (self.newest, other.newest)), default=None)


@dataclass
class Summary:
    """What one run did."""

    tables: dict[str, TableSummary] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """List → why the server refused it; the next run asks for it again."""
    failed: dict[str, str] = field(default_factory=dict)
    """List → why it could not be read."""
    seconds: float = 0.0
    loads: int = 0
    """How many pieces it was loaded in."""
    appended: set[str] = field(default_factory=set)
    """Tables that keep the old versions of rows, as the destination cannot merge."""
    waited: float = 0.0
    """Seconds of these in which a rate limit held the requests back."""
    kept_from: str | None = None
    """ISO time: the server keeps no older events, as a request for some has shown."""
    redacted: set[str] = field(default_factory=set)
    """Paths of `redact` that masked a value."""
    missed: set[str] = field(default_factory=set)
    """Paths of `redact` that masked nothing on some page."""

    @property
    def unmatched(self) -> set[str]:
        """Paths of `redact` that masked nothing in the whole run."""
        return self.missed - self.redacted

    @property
    def requests(self) -> int:
        """Of all tables."""
        return sum(table.requests for table in self.tables.values())

    def add(self, other: "Summary") -> None:
        """Merge the summary of another load into this one."""
        for name, table in other.tables.items():
            self.tables.setdefault(name, TableSummary()).add(table)
        self.skipped |= other.skipped
        self.failed |= other.failed
        self.appended |= other.appended
        self.seconds += other.seconds
        self.loads += other.loads
        self.waited = max(self.waited, other.waited)
        self.kept_from = max(
            filter(None, (self.kept_from, other.kept_from)), default=None
        )
        self.redacted |= other.redacted
        self.missed |= other.missed

    def as_json(self) -> dict[str, Any]:
        """Return what `--json` prints."""
        return {
            "tables": {
                name: {key: value for key, value in vars(table).items() if value}
                | {"rows": table.rows}
                for name, table in self.tables.items()
            },
            "requests": self.requests,
            "skipped": listed(self.skipped),
            "failed": listed(self.failed),
            "kept_from": self.kept_from,
            "unmatched_redact": sorted(self.unmatched),
            "seconds": round(self.seconds, 3),
            "waited": round(self.waited, 3),
        }


def summarise(pipeline: dlt.Pipeline) -> Summary:
    """Return what the last load did, from dlt's trace."""
    summary = Summary(loads=1)
    reports = sorted(
        _reports(pipeline), key=lambda each: [*TABLES].index(each["table"])
    )
    for report in reports:
        figures = {k: v for k, v in report.items() if k in TableSummary.__annotations__}
        refused = {report["list"]: report["refusal"]} if report["refusal"] else {}
        of_list = Summary(
            {report["table"]: TableSummary(**figures)},
            skipped=refused,
            waited=report["waited"],
            kept_from=report["kept_from"],
            redacted=set(report["masked"]),
            missed=set(report["unmatched"]),
        )
        summary.add(of_list)
    return summary


def forgotten(kept_from: datetime) -> str:
    """Return the sentence about events that the server does not keep any more."""
    return (
        f"the server keeps no events from before {kept_from:%Y-%m-%d %H:%M} UTC; that"
        " span is empty"
    )


def listed(reasons: dict[str, str]) -> list[dict[str, str]]:
    """Return lists and reasons for `--json`."""
    return [{"list": name, "reason": reason} for name, reason in reasons.items()]


def _reports(pipeline: dlt.Pipeline) -> Iterator[dict[str, Any]]:
    """Yield the report of each list; see `extraction.Reading.report`."""
    trace = pipeline.last_trace
    for step in trace.steps if trace else ():
        if step.step != "extract" or step.step_info is None:
            continue
        for packages in step.step_info.metrics.values():
            for package in packages:
                for resource in package["resource_metrics"].values():  # type: ignore[typeddict-item]
                    yield from resource.custom_metrics.get("lists", ())
