"""Values that must not reach the warehouse: credentials, and what the user names."""

from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.secrets import MASK
from analytics_pipeline.tables.credentials import (
    mask_credentials,
    mask_json_text,
    pair_names,
    updated,
)
from analytics_pipeline.tables.schema import TABLES
from analytics_pipeline.values import deep_recursion

__all__ = ["MASK", "Redacted", "Redactor", "mask_credentials", "redact"]

WITH_CREDENTIALS = ("projects", "project_detail")
"""Tables whose rows hold credentials."""


class Redacted(NamedTuple):
    """The masked records of a page, and what became of the user's paths there."""

    records: list[dict[str, Any]]
    matched: frozenset[str]
    """The paths that lead to a value, be it null."""
    unmatched: frozenset[str]
    """The paths that should lead to a value in this table, and do not on this page."""


class Redactor:
    """Masks values of records before anything of them is written.

    In projects and project_detail credentials are masked; in all tables what stands at
    the paths that the user named.
    """

    def __init__(self, paths: Sequence[str]) -> None:
        # Longer ones first: of `user.email` and `user` both are to find their value.
        self._paths = {
            path: path.split(".")
            for path in sorted(paths, key=lambda path: path.count("."), reverse=True)
        }

    def clean_all(self, table: str, records: list[dict[str, Any]]) -> Redacted:
        """Return the records of a page, masked; records without a match are no copies.

        Raises:
            UnexpectedAnswer: a record is nested too deeply.
        """
        if not records or not (self._paths or table in WITH_CREDENTIALS):
            return Redacted(records, frozenset(), frozenset())
        try:
            return self._clean_all(table, records)
        except RecursionError:
            pass
        try:
            with deep_recursion():
                return self._clean_all(table, records)
        except RecursionError:
            raise UnexpectedAnswer(f"{table}: a row is nested too deeply") from None

    def _clean_all(self, table: str, records: list[dict[str, Any]]) -> Redacted:
        cleaned, matched, unmatched = records, set(), set()
        for path, parts in self._paths.items():
            cleaned, found = _redact_all(cleaned, parts)
            if found:
                matched.add(path)
            elif _is_expected(table, parts):
                unmatched.add(path)
        if table in WITH_CREDENTIALS:
            cleaned = [mask_credentials(record) for record in cleaned]
        return Redacted(cleaned, frozenset(matched), frozenset(unmatched))


def redact(value: Any, path: Sequence[str]) -> Any:
    """Return the value with `***` for what stands at the path (`user.email`, split).

    `*` stands for any key, and a key may hold dots. Lists are looked into item by item,
    text that holds JSON as if it were the value. In a list of pairs, such as
    `["Accept", "*/*"]` or `{"key": …, "value": …}`, the path goes on with the pair's
    name. Null stays.
    """
    return _replace(value, path, _mask)


def _mask(value: Any) -> Any:
    return None if value is None else MASK


def _redact_all(
    records: list[dict[str, Any]], path: Sequence[str]
) -> tuple[list[dict[str, Any]], bool]:
    """Return the records, masked, and whether the path leads to a value in any."""
    found = False

    def mask(value: Any) -> Any:
        nonlocal found
        found = True
        return _mask(value)

    return [_replace(record, path, mask) for record in records], found


def _replace(value: Any, path: Sequence[str], mask: Callable[[Any], Any]) -> Any:
    """Return the value with what stands at the path masked; a copy only if it changes."""
    if not path:
        return mask(value)
    if isinstance(value, str):
        inside = mask_json_text(value, lambda content: _replace(content, path, mask))
        return value if inside is None else inside
    changes: dict[Any, Any] = {}
    if isinstance(value, dict):
        for key, rest in _steps(value, path):
            old = changes.get(key, value[key])
            new = _replace(old, rest, mask)
            if new is not old:
                changes[key] = new
        return updated(value, changes)
    if isinstance(value, list):
        names_only = [*path] == ["*"]  # not "key" and "value" of a pair
        for index, item in enumerate(value):
            new = _replace_in_pair(item, path, mask)
            if not (names_only and pair_names(item)):
                new = _replace(new, path, mask)
            if new is not item:
                changes[index] = new
        return updated(value, changes)
    return value


def _replace_in_pair(item: Any, path: Sequence[str], mask: Callable[[Any], Any]) -> Any:
    """Return the item; if it is a pair that the path names, with its value masked."""
    for _, rest in _steps(pair_names(item), path):
        # Sentry repeats a tag's value in its `query`, as `user.id:"5"`.
        for place in [1] if isinstance(item, list) else {"value", "query"} & {*item}:
            new = _replace(item[place], rest, mask)
            if new is not item[place]:
                item = updated(item, {place: new})
    return item


def _steps(
    names: Collection[str], path: Sequence[str]
) -> Iterator[tuple[str, Sequence[str]]]:
    """Yield which of the names the path may begin with, each with the path's rest."""
    for length in range(1, len(path) + 1):  # a key may hold dots: `event.type`
        name = ".".join(path[:length])
        for found in names if name == "*" else [name] if name in names else []:
            yield found, path[length:]


def _is_expected(table: str, path: Sequence[str]) -> bool:
    """Whether the path's first name is a field of this table, or of none."""
    names = [".".join(path[:length]) for length in range(len(path), 0, -1)]
    declared = {name: {*each.types, *each.aliases} for name, each in TABLES.items()}
    first = next(
        (name for name in names if name in set().union(*declared.values())), None
    )
    return first is None or first in declared[table]
