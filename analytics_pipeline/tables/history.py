"""The table `issue_history`: what state an issue was in, and from when to when."""

import hashlib
from typing import Any, cast

import pyarrow as pa
from dlt.common.data_types import TDataType
from dlt.common.schema.typing import TColumnSchema

from analytics_pipeline.secrets import MASK
from analytics_pipeline.tables import descriptions
from analytics_pipeline.tables.arrow import newest_copies
from analytics_pipeline.tables.schema import (
    ARROW,
    LOAD_ID,
    LOAD_ID_COLUMN,
    READ_AT,
    column_name,
    reference,
)
from analytics_pipeline.values import dumps, loads

HISTORY = "issue_history"
VERSION = "version"
"""Hash of the state, by which dlt tells whether it has changed."""
VALIDITY = ("valid_from", "valid_to")

_STATE = {
    "project_id": "text",
    "id": "text",
    "status": "text",
    "substatus": "text",
    "priority": "text",
    "level": "text",
    "assigned_to": "text",
    "is_unhandled": "bool",
    "release": "text",
}
_TYPES = _STATE | {
    "project_slug": "text",
    "last_seen": "timestamp",
    READ_AT: "timestamp",
    VERSION: "text",
}
_FROM = {*_TYPES, "status_details"} - {"release", VERSION}
"""Columns of issues that the states are made from."""
_REQUIRED = ("id", VERSION)
_DESCRIPTIONS = {
    "project_id": "Project of the issue: projects.id.",
    "id": "The issue: issues.id.",
    "project_slug": descriptions.PROJECT_SLUG,
    **{
        column_name(field): descriptions.COLUMNS["issues"][field]
        for field in ("status", "substatus", "priority", "level", "isUnhandled")
    },
    "assigned_to": "Email address of a user, or name of a team.",
    "release": "The release that it was resolved in, if it was said.",
    "last_seen": "Time of its last event when the state was first seen.",
    READ_AT: "When the state was first seen.",
    VERSION: "Hash of the state.",
}

SCHEMA = pa.schema(
    [
        pa.field(name, ARROW[kind], nullable=name not in _REQUIRED)
        for name, kind in _TYPES.items()
    ]
)
COLUMNS: dict[str, TColumnSchema] = {
    name: cast(
        TColumnSchema,
        {
            "name": name,
            "data_type": cast(TDataType, kind),
            "nullable": name not in _REQUIRED,
            "description": _DESCRIPTIONS[name],
        },
    )
    for name, kind in _TYPES.items()
}
DESCRIBED_BY_SCHEMA: tuple[TColumnSchema, ...] = tuple(
    {"name": name, "description": text}
    for name, text in {
        VERSION: _DESCRIPTIONS[VERSION],
        "valid_from": "Time of the load that first saw the state.",
        "valid_to": "Time of the load that saw another state; NULL while it lasts.",
    }.items()
)
"""Columns of which dlt forgets all hints, since they are those of its scd2."""
HINTS: dict[str, Any] = {
    "columns": {**COLUMNS, LOAD_ID: LOAD_ID_COLUMN},
    "merge_key": "id",
    "references": (reference("id", "issues"), reference("project_id", "projects")),
    "additional_table_hints": {"description": descriptions.TABLES[HISTORY]},
}
"""What dlt knows of the table."""


def states(issues: Any) -> pa.Table:
    """Return the states of issues: rows of the table `issues`, as Arrow or as dicts.

    Of an issue that is there several times only the last state is returned.
    """
    if isinstance(issues, pa.Table):
        # A user may have left some columns out.
        known = [name for name in _FROM if name in issues.column_names]
        issues = newest_copies(issues, ["id"]).select(known).to_pylist()
    rows = []
    for issue in {issue["id"]: issue for issue in issues}.values():
        row = {name: issue.get(name) for name in _TYPES}
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
    if not isinstance(status_details, dict):
        return None
    value = status_details.get("inRelease")
    return value if isinstance(value, str) else None


def _hash(state: tuple[Any, ...]) -> str:
    return hashlib.blake2b(dumps(state), digest_size=16).hexdigest()
