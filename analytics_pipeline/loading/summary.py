"""What a run did, from dlt's trace."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dlt

from analytics_pipeline.tables.columns import TABLES


@dataclass
class TableSummary:
    """What a run loaded into one table."""

    rows: int = 0
    """New and changed rows."""
    reread: int = 0
    """Rows that were loaded before and replaced their old copies."""
    requests: int = 0
    newest: str | None = None
    """ISO time of the newest row."""
    mismatches: int = 0
    """Values that did not fit their column and went into `extra`."""
    replaced: int = 0
    """Characters that no database accepts, replaced by U+FFFD."""


@dataclass
class Summary:
    """What one run did."""

    tables: dict[str, TableSummary] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    """List → why the server refused it."""
    failed: dict[str, str] = field(default_factory=dict)
    """List → why it could not be read."""
    seconds: float = 0.0
    loads: int = 0
    """Number of loads."""
    appended: set[str] = field(default_factory=set)
    """Tables that keep old versions of rows, because the destination cannot merge."""
    waited: float = 0.0
    """Seconds spent waiting for rate limits."""
    kept_from: str | None = None
    """ISO time before which the server keeps no events, if that is known."""
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
        """Requests for all tables."""
        return sum(table.requests for table in self.tables.values())

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


def summarise(pipeline: dlt.Pipeline, summary: Summary | None = None) -> Summary:
    """Return what the last load did, from dlt's trace; added to a summary, if given."""
    summary = summary or Summary()
    summary.loads += 1
    order = [*TABLES]
    for report in sorted(_reports(pipeline), key=lambda r: order.index(r["table"])):
        table = summary.tables.setdefault(report["table"], TableSummary())
        for name in ("rows", "reread", "requests", "mismatches", "replaced"):
            setattr(table, name, getattr(table, name) + report[name])
        table.newest = _latest(table.newest, report["newest"])
        if report["refusal"]:
            summary.skipped[report["list"]] = report["refusal"]
        summary.waited = max(summary.waited, report["waited"])
        summary.kept_from = _latest(summary.kept_from, report["kept_from"])
        summary.redacted.update(report["masked"])
        summary.missed.update(report["unmatched"])
    return summary


def _latest(*times: str | None) -> str | None:
    return max(filter(None, times), default=None)


def forgotten(kept_from: datetime) -> str:
    """Return the sentence about events that the server no longer keeps."""
    return f"the server keeps no events from before {kept_from:%Y-%m-%d %H:%M} UTC"


def listed(reasons: dict[str, str]) -> list[dict[str, str]]:
    """Return reasons by list as `--json` prints them."""
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
