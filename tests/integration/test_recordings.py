"""Real answers of a real server, through the same code."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import duckdb
import pytest

from analytics_pipeline import analytics_source, runner
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.errors import (
    ApiError,
    HttpError,
    IncompleteLoad,
    OtherShape,
    UnexpectedAnswer,
)
from analytics_pipeline.tables.columns import TABLES
from tests.conftest import Warehouse
from tests.replay import Recording, recorded, replay


def load(
    warehouse: Warehouse, recordings: list[Recording], *tables: str, **settings: Any
) -> runner.Summary:
    with replay(recordings) as url:
        return load_from(url, warehouse, *tables, **settings)


def load_from(
    url: str, warehouse: Warehouse, *tables: str, **settings: Any
) -> runner.Summary:
    source = analytics_source(
        url, "s3cr3t-t0ken", **{"organization": "acme", "api": "glitchtip"} | settings
    )
    return runner.load(warehouse.pipeline(), source, tables)


@contextmanager
def failing(kind: type[ApiError], match: str | None = None) -> Iterator[list[ApiError]]:
    """Catch the error of the only list, which must be of this kind."""
    errors: list[ApiError] = []
    with pytest.raises(IncompleteLoad, match=match) as caught:
        yield errors
    errors += caught.value.failures.values()
    assert [type(error) for error in errors] == [kind]


@pytest.mark.parametrize(
    ("table", "files", "count", "key"),
    [
        ("issues", ["issues_frontend"], 105, "id"),
        ("releases", ["releases"], 40, "version"),
        ("projects", ["projects_default"], 3, "id"),
        ("project_detail", ["project-2"], 1, "id"),
        ("events", ["events_tail"], 74, "id"),
    ],
)
def test_every_recorded_value_is_in_the_warehouse(
    warehouse: Warehouse, table: str, files: list[str], count: int, key: str
) -> None:
    project = "backend" if table == "events" else "frontend"
    pages = recorded(*files)
    load(warehouse, pages, table, project=project)
    found = {row[key]: row for row in as_dicts(warehouse, table)}
    sent = [
        row
        for page in pages
        for row in (page["body"] if isinstance(page["body"], list) else [page["body"]])
    ]
    assert len(sent) == len(found) == count == len(warehouse.ids(table))
    for row in sent:
        for field, value in row.items():
            assert as_json(found[row[key]], table, field) == as_sent(
                table, field, value
            )


def as_dicts(warehouse: Warehouse, table: str) -> list[dict[str, Any]]:
    path = str(warehouse.folder / f"{runner.NAME}.duckdb")
    with duckdb.connect(path) as connection:
        result = connection.sql(f"from analytics.{table}")
        return [
            dict(zip(result.columns, row, strict=True)) for row in result.fetchall()
        ]


def as_json(row: dict[str, Any], table: str, field: str) -> Any:
    """Return a value of the warehouse as the server would send it."""
    kind = TABLES[table].types.get(field)
    if kind is None:
        return json.loads(row["extra"])[field]
    value = row[TABLES[table].names[field]]
    return json.loads(value) if kind == "json" and value is not None else value


def as_sent(table: str, field: str, value: Any) -> Any:
    """Return a sent value in the type of its column."""
    kind = TABLES[table].types.get(field)
    if value is None or field in APIS["glitchtip"].endpoints[table].unfilled:
        return None
    if kind == "timestamp":
        return datetime.fromisoformat(value)
    return {"bigint": int, "text": str}.get(kind or "", lambda same: same)(value)


def test_a_second_run_over_the_recordings_finds_nothing_new(
    warehouse: Warehouse,
) -> None:
    pages = recorded("issues_frontend", "releases", "projects_default", "project-2")
    tables = ("issues", "releases", "projects", "project_detail")
    with replay(pages) as url:  # bookmarks belong to one server address
        first = load_from(url, warehouse, *tables, project="frontend")
        second = load_from(url, warehouse, *tables, project="frontend")
    assert {name: part.rows for name, part in first.tables.items()} == {
        "issues": 105,
        "releases": 40,
        "projects": 3,
        "project_detail": 1,
    }
    assert [part.rows for part in second.tables.values()] == [0, 0, 0, 0]


def test_a_repeating_cursor_names_the_time_of_its_rows(warehouse: Warehouse) -> None:
    with failing(UnexpectedAnswer) as errors:
        load(
            warehouse,
            recorded("loop_releases_ties"),
            "releases",
            organization="globex",
            project="any",
        )
    message = str(errors[0])
    assert "releases of organization 'globex'" in message
    assert "again, on page" in message
    assert "the same dateCreated (2026-11-01T00:00:00Z)" in message


@pytest.mark.parametrize(
    ("file", "table", "settings", "words"),
    [
        ("error_404_project", "project_detail", {"project": "nope"}, ["404", "'nope'"]),
        (
            "error_404_issues",
            "issues",
            {"organization": "nope"},
            ["404", "organization 'nope'"],
        ),
    ],
)
def test_a_recorded_404_says_which_name_to_check(
    warehouse: Warehouse,
    file: str,
    table: str,
    settings: dict[str, str],
    words: list[str],
) -> None:
    with failing(HttpError) as errors:
        load(warehouse, recorded(file), table, **{"project": "backend"} | settings)
    message = str(errors[0])
    assert all(word in message for word in [*words, table])


def test_a_recorded_401_ends_the_run_and_says_to_check_the_token(
    warehouse: Warehouse,
) -> None:
    with pytest.raises(HttpError, match="rejected the token") as caught:
        load(warehouse, recorded("error_401"), "projects", project="backend")
    message = str(caught.value)
    assert all(word in message for word in ["projects", "401", "Unauthorized"])


def test_a_recorded_403_skips_the_list_and_names_the_scope(
    warehouse: Warehouse,
) -> None:
    pages = recorded("error_403", "project-1")
    tables = ("events", "project_detail")
    summary = load(warehouse, pages, *tables, project="backend")
    words = ["events", "403", "Permission denied", "event:read"]
    assert [*summary.skipped] == ["events of project 'backend'"]
    (reason,) = summary.skipped.values()
    assert all(word in reason for word in words)
    assert len(warehouse.ids("project_detail")) == 1


def test_an_unknown_project_with_an_empty_list_is_reported(
    warehouse: Warehouse,
) -> None:
    pages = recorded("empty_events_unknown_project", "error_404_project")
    with failing(HttpError, match="404 Not Found"):
        load(warehouse, pages, "events", project="nope")


def test_an_html_page_is_not_an_empty_list(warehouse: Warehouse) -> None:
    (page,) = recorded("spa_200")
    page["request"]["url"] += "/"
    with failing(OtherShape, match="not answer with JSON but with text/html"):
        load(warehouse, [page], "events", project="backend")
