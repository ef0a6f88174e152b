"""The table `issue_history`: one row for each state of an issue, with its validity."""

import hashlib
from typing import Any

import pyarrow as pa
from dlt.common.schema.typing import TColumnSchema

from analytics_pipeline.secrets import MASK
from analytics_pipeline.tables.arrow import newest_copies
from analytics_pipeline.tables.schema import (
    LOAD_ID_COLUMN,
    arrow_schema,
    dlt_columns,
    parse_columns,
    reference,
)
from analytics_pipeline.values import dumps, loads

HISTORY = "issue_history"
VERSION = "version"
"""Column with a hash of the state, by which dlt detects changes."""
VALIDITY = ("valid_from", "valid_to")

# The hash depends on the order.
_STATE = parse_columns(
    """
project_id    text       Project of the issue: projects.id.
id            text       Issue: issues.id.
status        text       Status: unresolved, resolved, ignored and others.
substatus     text       Detail of the status, such as new, ongoing, escalating or regressed.
priority      text       Priority: low, medium or high.
level         text       Severity: fatal, error, warning, info or debug.
assigned_to   text       Email address of a user, or name of a team.
is_unhandled  bool       Whether the newest event was not caught by the program.
release       text       Release in which the issue was resolved, if that was reported.
""",
    required=["id"],
)
_COLUMNS = _STATE | parse_columns(
    """
project_slug  text       Slug of the project when the row was read.
last_seen     timestamp  Time of the last event when the state was first seen.
read_at       timestamp  When the state was first seen.
version       text       Hash of the state.
""",
    required=[VERSION],
)
_VALIDITY = parse_columns("""
valid_from    timestamp  Time of the load that first saw the state.
valid_to      timestamp  Time of the load that saw another state; NULL while it lasts.
""")
_FROM = {*_COLUMNS, "status_details"} - {"release", VERSION}
"""Columns of issues that the states are made from."""

SCHEMA = arrow_schema(_COLUMNS.values())
COLUMNS = dlt_columns(_COLUMNS.values())
DESCRIBED_BY_SCHEMA: tuple[TColumnSchema, ...] = tuple(
    {"name": each.name, "description": each.description}
    for each in [_COLUMNS[VERSION], *_VALIDITY.values()]
)
"""Columns that dlt's scd2 adds, for which it accepts no hints."""
HINTS: dict[str, Any] = {
    "columns": COLUMNS | LOAD_ID_COLUMN,
    "merge_key": "id",
    "references": (reference("id", "issues"), reference("project_id", "projects")),
    "additional_table_hints": {
        "description": "States that issues were in, as seen by the runs."
    },
}
"""Arguments of `apply_hints`."""


def states(issues: Any) -> pa.Table:
    """Return the states of issues: rows of the table `issues`, as Arrow or as dicts.

    Of several copies of an issue only the last is used.
    """
    if isinstance(issues, pa.Table):
        # A user may have excluded some columns.
        known = [name for name in _FROM if name in issues.column_names]
        issues = newest_copies(issues, ["id"]).select(known).to_pylist()
    rows = []
    for issue in {issue["id"]: issue for issue in issues}.values():
        row = {name: issue.get(name) for name in _COLUMNS}
        row["assigned_to"] = _assignee(_parsed(row["assigned_to"]))
        row["release"] = _release(_parsed(issue.get("status_details")))
        row[VERSION] = _hash(tuple(row[name] for name in _STATE))
        rows.append(row)
    return pa.Table.from_pylist(rows, SCHEMA)


def _parsed(value: Any) -> Any:
    return loads(value.encode())[0] if isinstance(value, str) else value


def _assignee(assigned_to: Any) -> str | None:
    if not isinstance(assigned_to, dict):
        return assigned_to if isinstance(assigned_to, str) else None
    values = [assigned_to.get(name) for name in ("email", "name", "id")]
    known = [value for value in values if value not in (None, "", MASK)]
    return str(known[0]) if known else None


def _release(status_details: Any) -> str | None:
    release = isinstance(status_details, dict) and status_details.get("inRelease")
    return release if isinstance(release, str) else None


def _hash(state: tuple[Any, ...]) -> str:
    return hashlib.blake2b(dumps(state), digest_size=16).hexdigest()
