"""Records of a list become rows of its table: completed, masked and typed."""

from collections.abc import Collection, Mapping
from datetime import datetime
from typing import Any, NamedTuple

import pyarrow as pa

from analytics_pipeline.tables.arrow import newest_copies, to_arrow
from analytics_pipeline.tables.derived import add_derived
from analytics_pipeline.tables.issues import promote_totals
from analytics_pipeline.tables.redaction import Redactor
from analytics_pipeline.tables.schema import PROJECT_SLUG, Table

Record = dict[str, Any]


class BuiltRows(NamedTuple):
    """The rows of a page, and how their values were changed."""

    rows: pa.Table
    mismatches: int
    """Values that did not fit their column, and were put into `extra`."""
    masked: frozenset[str]
    """Paths of `redact` that masked a value."""
    unmatched: frozenset[str]
    """Paths of `redact` that belong to this table, but masked nothing on this page."""


class RowBuilder:
    """Turns records into rows.

    Args:
        tables: name → table.
        redactor: masks values before anything else sees them.
    """

    def __init__(self, tables: Mapping[str, Table], redactor: Redactor) -> None:
        self._tables = tables
        self._redactor = redactor

    def build(
        self,
        table_name: str,
        key: str,
        project: str,
        records: list[Record],
        read_at: datetime,
        unfilled: Collection[str] = (),
    ) -> BuiltRows:
        """Return the rows of a page.

        Args:
            table_name: of the table.
            key: API field that identifies a record within its list.
            project: slug of the list; empty for a list of the organization.
            records: of the page; they are modified.
            read_at: when the answer was received, UTC.
            unfilled: API fields in which 0 or an empty value means unknown.

        Raises:
            UnexpectedAnswer: a record has no usable key.
        """
        table = self._tables[table_name]
        for record in records:
            if PROJECT_SLUG in table.types:
                record[PROJECT_SLUG] = project
            if "projectID" in table.key and record.get("projectID") is None:
                record["projectID"] = project
            if table.name == "issues":
                promote_totals(record)
            if key != "id":
                record["id"] = record[key]
            for name in unfilled:
                if _is_blank(record.get(name)):
                    record[name] = None
        cleaned = self._redactor.clean_all(table, records)
        for record in cleaned.records:
            add_derived(table, record)
        rows, mismatches = to_arrow(table, cleaned.records, read_at)
        if len({record.get("id") for record in cleaned.records}) < rows.num_rows:
            # Copies on one page have the same `read_at`: which one counts is decided here.
            rows = newest_copies(rows, table.primary_key)
        return BuiltRows(rows, mismatches, cleaned.matched, cleaned.unmatched)


def _is_blank(value: Any) -> bool:
    """Return whether a value is 0 or empty, as `{"24h": []}` is."""
    return not (any(value.values()) if isinstance(value, dict) else value)
