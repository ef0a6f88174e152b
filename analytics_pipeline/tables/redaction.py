"""Masking of credentials, and of the paths in the setting `redact`."""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, NamedTuple

from analytics_pipeline.secrets import MASK
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.credentials import (
    mask_credentials,
    mask_json_text,
    pair_names,
    updated,
)
from analytics_pipeline.tables.schema import Table


class Redacted(NamedTuple):
    """The masked records of a page, and which paths matched."""

    records: list[dict[str, Any]]
    matched: frozenset[str] = frozenset()
    """Paths that lead to a value, even if it is null."""
    unmatched: frozenset[str] = frozenset()
    """Paths that belong to this table, but have no value on this page."""


class Redactor:
    """Masks values of records before anything is written.

    Values at the given paths are masked in all tables, credentials in tables that have
    them.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        # Longest first, so that `user.email` finds its value before `user` masks it.
        self._paths = {
            path: path.split(".")
            for path in sorted(paths, key=lambda path: path.count("."), reverse=True)
        }

    def clean_all(self, table: Table, records: list[dict[str, Any]]) -> Redacted:
        """Return the masked records of a page; those without a match are not copied."""
        if not records:
            return Redacted(records)
        matched, unmatched = set(), set()
        for path, parts in self._paths.items():
            found: list[Any] = []
            records = [redact(record, parts, found) for record in records]
            if found:
                matched.add(path)
            elif _is_expected(table, parts):
                unmatched.add(path)
        if table.has_credentials:
            records = [mask_credentials(record) for record in records]
        return Redacted(records, frozenset(matched), frozenset(unmatched))


def redact(value: Any, path: Sequence[str], found: list[Any]) -> Any:
    """Return the value with `***` for what is at the path (`user.email`, split).

    `*` matches any key, and a key may contain dots. The path continues in the items of
    lists, in text that holds JSON, and in pairs such as `["Accept", "*/*"]` or
    `{"key": …, "value": …}` by their names. Null is kept.

    Args:
        value: not modified; only parts that contain a match are copied.
        path: names of keys.
        found: receives the values at the path.
    """
    if not path:
        found.append(value)
        return None if value is None else MASK
    if isinstance(value, str):
        masked = mask_json_text(value, lambda content: redact(content, path, found))
        return value if masked is None else masked
    changes: dict[Any, Any] = {}
    if isinstance(value, dict):
        for key, rest in _steps(value, path):
            changes[key] = redact(changes.get(key, value[key]), rest, found)
    elif isinstance(value, list):
        names_only = [*path] == ["*"]  # not "key" and "value" of a pair
        for index, item in enumerate(value):
            changes[index] = _redact_pair(item, path, found)
            if not (names_only and pair_names(item)):
                changes[index] = redact(changes[index], path, found)
    return updated(value, changes)


def _redact_pair(item: Any, path: Sequence[str], found: list[Any]) -> Any:
    """Return the item, with its value masked if it is a pair that the path names."""
    for _, rest in _steps(pair_names(item), path):
        # Sentry repeats a tag's value in its `query`, as `user.id:"5"`.
        places: Collection[Any] = (
            [1] if isinstance(item, list) else {"value", "query"} & {*item}
        )
        item = updated(item, {each: redact(item[each], rest, found) for each in places})
    return item


def _steps(
    names: Collection[str], path: Sequence[str]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield each name that the path can start with, and the rest of the path."""
    for length in range(1, len(path) + 1):  # a key may contain dots: `event.type`
        name = ".".join(path[:length])
        for each in names if name == "*" else [name] if name in names else []:
            yield each, path[length:]


def _is_expected(table: Table, path: Sequence[str]) -> bool:
    """Return whether the path starts with a field of this table, or of no table."""
    starts = {".".join(path[:length]) for length in range(1, len(path) + 1)}
    owners = [t.name for t in TABLES.values() if starts & {*t.types, *t.aliases}]
    return not owners or table.name in owners
