"""Columns derived from tags and from inside other fields."""

from collections.abc import Iterator, Mapping
from typing import Any

from analytics_pipeline.tables.schema import Table

Record = dict[str, Any]

_HANDLED = {"yes": True, "no": False, "true": True, "false": False}


def add_derived(table: Table, record: Record) -> None:
    """Set the derived fields of a record, unless the server sent them.

    This runs after masking, so values derived from masked ones are masked as well.
    """
    derived: Record = {}
    if table.name == "events":
        derived = _of_event(record, table.tags)
    elif table.name == "issues":
        derived = {"project_id": _inside(record.get("project"), "id")}
    for name, value in derived.items():
        if value is not None and record.get(name) is None:
            record[name] = value


def _of_event(event: Record, columns: Mapping[str, str]) -> Record:
    tags = _tags(event.get("tags"))
    release = event.get("release")
    if not isinstance(release, str):
        release = _inside(release, "version") or tags.get("release")
    derived = {
        "level": tags.get("level"),
        "environment": tags.get("environment"),
        "release_version": release,
        "user_id": _inside(event.get("user"), "id"),
        "url": tags.get("url"),
        "server_name": tags.get("server_name"),
    }
    for column, tag in columns.items():
        derived[column] = tags.get(tag)
    entries = _list(event.get("entries"))
    if entries or "handled" in tags:
        derived["handled"] = _is_handled(tags.get("handled"), entries)
    if entries and not derived["url"]:
        derived["url"] = _request_url(entries)
    return derived


def _tags(tags: Any) -> Record:
    """Return name → value of tags, which servers send as objects, pairs or one object.

    If a name occurs twice, the first value counts, as on the servers' own pages.
    """
    if isinstance(tags, dict):
        return tags
    found = {}
    for tag in reversed(_list(tags)):
        name = value = None
        if isinstance(tag, dict):
            name, value = tag.get("key"), tag.get("value")
        elif isinstance(tag, list) and len(tag) == 2:
            name, value = tag
        if isinstance(name, str):
            found[name] = value
    return found


def _is_handled(tag: Any, entries: list[Any]) -> bool | None:
    """Return whether the program caught the error: every exception of a chain.

    Sentry sends a tag; in full events, each exception says it as well.
    """
    if tag is not None:
        return _HANDLED.get(str(tag).lower())
    values = [
        _inside(_inside(exception, "mechanism"), "handled")
        for data in _data_of(entries, "exception")
        for exception in _list(_inside(data, "values"))
    ]
    known = [value for value in values if isinstance(value, bool)]
    return all(known) if known else None


def _request_url(entries: list[Any]) -> Any:
    urls = (_inside(data, "url") for data in _data_of(entries, "request"))
    return next(filter(None, urls), None)


def _data_of(entries: list[Any], kind: str) -> Iterator[Any]:
    """Yield the data of the entries of a kind."""
    return (each.get("data") for each in entries if _inside(each, "type") == kind)


def _inside(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
