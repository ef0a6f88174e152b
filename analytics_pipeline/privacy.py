"""Values that must not reach the warehouse: credentials, and what the user names."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from analytics_pipeline import jsontext
from analytics_pipeline.errors import UnexpectedAnswer

MASK = "***"

# By the end of the key: `securityToken`, `sentry:token`, `db_password`, `secret_key`,
# `appconnectPrivateKey`; but not `publicKey`, `tokenCount` or `securityTokenHeader`.
_CREDENTIAL = re.compile(
    r"(token|password|passwd|passphrase|secret|credentials?)$"
    r"|(?<!public)_key$"
    r"|(secret|private|access|api|auth|signing|encryption)key$",
    re.IGNORECASE,
)


def mask_credentials(value: Any) -> Any:
    """The value with `***` for what stands under a credential's name, at any depth.

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
            inner, _ = jsontext.loads(value.encode())
        except ValueError:
            return value
        masked = mask_credentials(inner)
        return value if masked == inner else jsontext.dumps(masked).decode()
    return value


def redact(value: Any, path: Sequence[str]) -> Any:
    """The value with `***` for what stands at the path (`user.email`, split at dots).

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


def cleaner(paths: Sequence[str]) -> Callable[[str, dict[str, Any]], dict[str, Any]]:
    """What to do to a row of a table before it is written.

    The function raises UnexpectedAnswer for a row that is nested too deeply.
    """
    split = [path.split(".") for path in paths]

    def clean(table: str, row: dict[str, Any]) -> dict[str, Any]:
        if table in ("projects", "project_detail"):
            row = mask_credentials(row)
        for path in split:
            row = redact(row, path)
        return row

    def clean_deep(table: str, row: dict[str, Any]) -> dict[str, Any]:
        try:
            return clean(table, row)
        except RecursionError:
            pass
        try:
            with jsontext.deep_recursion():
                return clean(table, row)
        except RecursionError:
            raise UnexpectedAnswer(f"{table}: a row is nested too deeply") from None

    return clean_deep
