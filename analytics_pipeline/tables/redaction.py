"""Values that must not reach the warehouse: credentials, and what the user names."""

import re
from collections.abc import Sequence
from typing import Any

from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.tables.values import deep_recursion, dumps, loads

MASK = "***"
WITH_CREDENTIALS = ("projects", "project_detail")
"""Tables whose rows hold credentials."""

# By the end of the key: `securityToken`, `sentry:token`, `db_password`, `secret_key`,
# `appconnectPrivateKey`; but not `publicKey`, `tokenCount` or `securityTokenHeader`.
_CREDENTIAL = re.compile(
    r"(token|password|passwd|passphrase|secret|credentials?)$"
    r"|(?<!public)_key$"
    r"|(secret|private|access|api|auth|signing|encryption)key$",
    re.IGNORECASE,
)


def mask_credentials(value: Any) -> Any:
    """Return the value with `***` for what stands under a credential's name, at any depth.

    Looks into text that holds JSON, too: Sentry keeps symbol sources so.
    """
    if isinstance(value, dict):
        return {
            key: MASK
            if _CREDENTIAL.search(key) and item not in (None, "", [], {}, True, False)
            else mask_credentials(item)
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [mask_credentials(item) for item in value]
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        try:
            inner, _ = loads(value.encode())
        except ValueError:
            return value
        masked = mask_credentials(inner)
        return value if masked == inner else dumps(masked).decode()
    return value


def redact(value: Any, path: Sequence[str]) -> Any:
    """Return the value with `***` for what stands at the path (`user.email`, split).

    Lists are looked into item by item, `*` stands for any key, and in a list of
    `{"key": …, "value": …}`, as tags are, the path goes on with the tag's key.
    """
    if not path:
        return value if value is None else MASK
    if isinstance(value, list):
        return [_redact_item(item, path) for item in value]
    if not isinstance(value, dict):
        return value
    result = dict(value)
    for length in range(1, len(path) + 1):  # a key may hold dots: `event.type`
        name = ".".join(path[:length])
        for key in value if name == "*" else {name} & value.keys():
            result[key] = redact(result[key], path[length:])
    return result


def _redact_item(item: Any, path: Sequence[str]) -> Any:
    if (
        isinstance(item, dict)
        and item.keys() >= {"key", "value"}
        and (item["key"] == ".".join(path) or path == ["*"])
    ):
        return {**item, "value": redact(item["value"], ())}
    return redact(item, path)


class Redactor:
    """Masks values of records before anything of them is written.

    In projects and project_detail credentials are masked by their names; in all tables
    what stands at the paths that the user named.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths = [path.split(".") for path in paths]

    def clean_all(
        self, table: str, records: list[dict[str, Any]]
    ) -> list[dict[str, Any]]:
        """Return the records, masked; see `clean`."""
        if not self._paths and table not in WITH_CREDENTIALS:
            return records
        return [self.clean(table, record) for record in records]

    def clean(self, table: str, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record, masked.

        Raises:
            UnexpectedAnswer: it is nested too deeply.
        """
        try:
            return self._clean(table, record)
        except RecursionError:
            pass
        try:
            with deep_recursion():
                return self._clean(table, record)
        except RecursionError:
            raise UnexpectedAnswer(f"{table}: a row is nested too deeply") from None

    def _clean(self, table: str, record: dict[str, Any]) -> dict[str, Any]:
        if table in WITH_CREDENTIALS:
            record = mask_credentials(record)
        for path in self._paths:
            record = redact(record, path)
        return record
