"""The table `issue_history`: what state an issue was in, and from when to when."""

import hashlib
from typing import Any, cast

import pyarrow as pa
from dlt.common.data_types import TDataType
from dlt.common.schema.typing import TColumnSchema

from analytics_pipeline.tables.arrow import newest_copies
from analytics_pipeline.tables.credentials import MASK
from analytics_pipeline.tables.schema import ARROW, READ_AT
from analytics_pipeline.tables.values import dumps, loads

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
_TYPES = _STATE | {"last_seen": "timestamp", READ_AT: "timestamp", VERSION: "text"}
_REQUIRED = ("id", VERSION)
_DESCRIPTIONS = {
    "id": "The issue.",
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
        }
        | ({"description": text} if (text := _DESCRIPTIONS.get(name)) else {}),
    )
    for name, kind in _TYPES.items()
}


def states(issues: pa.Table) -> pa.Table:
    """Return the states of issues, which are rows of the table `issues`.

    Of an issue that is there several times only the last state is returned.
    """
    issues = newest_copies(issues, ["id"])
    columns = {name: _values(issues, name) for name in _TYPES}
    columns["project_id"] = project_ids(issues)
    columns["assigned_to"] = [_assignee(each) for each in _json(issues, "assigned_to")]
    columns["release"] = [_release(each) for each in _json(issues, "status_details")]
    rows = zip(*(columns[name] for name in _STATE), strict=True)
    columns[VERSION] = [_hash(row) for row in rows]
    return pa.table([columns[name] for name in _TYPES], schema=SCHEMA)


def project_ids(issues: pa.Table) -> list[str | None]:
    """Return the id of the project of each issue; None where it does not tell."""
    projects = _json(issues, "project")
    ids = [each.get("id") if isinstance(each, dict) else None for each in projects]
    return [None if value is None else str(value) for value in ids]


def _values(issues: pa.Table, column: str) -> list[Any]:
    is_there = column in issues.column_names  # or the user has left it out
    return issues[column].to_pylist() if is_there else [None] * issues.num_rows


def _json(issues: pa.Table, column: str) -> list[Any]:
    texts = _values(issues, column)
    return [None if text is None else loads(text.encode())[0] for text in texts]


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
