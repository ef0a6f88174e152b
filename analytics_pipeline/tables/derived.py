"""Columns that servers have no field for: taken from tags, or from deep inside of a row."""

from collections.abc import Iterator, Mapping
from typing import Any

from analytics_pipeline.tables.schema import Table

Record = dict[str, Any]

_HANDLED = {"yes": True, "no": False, "true": True, "false": False}


def add_derived(table: Table, record: Record) -> None:
    """Set the fields of a record that are not sent as such; those that are sent stay.

    Comes after masking, so what was masked where it stood is masked here.
    """
    if table.name == "events":
        derived = _of_event(record, table.tags)
    elif table.name == "issues":
        derived = {"project_id": _inside(record.get("project"), "id")}
    else:
        return
    for name, value in derived.items():
        if record.get(name) is None:
            record[name] = value


def _of_event(event: Record, columns: Mapping[str, str]) -> Record:
    tags = _tags(event.get("tags"))
    entries = event.get("entries")  # which whole events have
    release = event.get("release")
    return {
        "level": tags.get("level"),
        "environment": tags.get("environment"),
        "release_version": release
        if isinstance(release, str)
        else _inside(release, "version") or tags.get("release"),
        "user_id": _inside(event.get("user"), "id"),
        "handled": _is_handled(tags.get("handled"), entries),
        "url": tags.get("url") or (_request_url(entries) if entries else None),
        "server_name": tags.get("server_name"),
        **{field: tags.get(tag) for field, tag in columns.items()},
    }


def _tags(tags: Any) -> Record:
    """Return tags by their names: of Sentry's objects, of pairs, or of one object of all.

    Of a name that is there twice the first value counts, as on the servers' own pages.
    """
    if isinstance(tags, dict):
        return tags
    found = {}
    for tag in reversed(_list(tags)):
        if isinstance(tag, dict):
            name, value = tag.get("key"), tag.get("value")
        elif isinstance(tag, list) and len(tag) == 2:
            name, value = tag
        else:
            continue
        if isinstance(name, str):
            found[name] = value
    return found


def _is_handled(tag: Any, entries: Any) -> bool | None:
    """Tell whether the program caught the error; it did not if one of a chain was not.

    Sentry says it in a tag; in whole events each exception does, too.
    """
    if tag is not None:
        return _HANDLED.get(str(tag).lower())
    if not entries:
        return None
    values = [
        _inside(_inside(exception, "mechanism"), "handled")
        for data in _data_of(entries, "exception")
        for exception in _list(_inside(data, "values"))
    ]
    known = [value for value in values if isinstance(value, bool)]
    return all(known) if known else None


def _request_url(entries: Any) -> Any:
    urls = (_inside(data, "url") for data in _data_of(entries, "request"))
    return next((url for url in urls if url), None)


def _data_of(entries: Any, kind: str) -> Iterator[Any]:
    """Give the data of the entries of a kind."""
    for entry in _list(entries):
        if _inside(entry, "type") == kind:
            yield entry.get("data")


def _inside(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []
