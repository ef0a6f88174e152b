"""Columns that are taken from tags, or from deep inside of a row."""

from typing import Any

import pytest

from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.derived import add_derived

EVENTS, ISSUES = TABLES["events"], TABLES["issues"]


def derived(table: Any = EVENTS, **record: Any) -> dict[str, Any]:
    """Return the fields added to a record."""
    copy = {**record}
    add_derived(table, copy)
    return {name: value for name, value in copy.items() if value != record.get(name)}


def tags(**values: Any) -> list[dict[str, Any]]:
    return [{"key": key, "value": value} for key, value in values.items()]


def test_tags_of_an_event_summary_become_columns() -> None:
    assert derived(
        tags=tags(
            level="error",
            environment="production",
            release="shop@1.2",
            handled="no",
            url="https://shop.example.test/cart",
            server_name="web-1",
            browser="Firefox",
        ),
        user={"id": "7", "email": "ada@example.test"},
    ) == {
        "level": "error",
        "environment": "production",
        "release_version": "shop@1.2",
        "handled": False,
        "url": "https://shop.example.test/cart",
        "server_name": "web-1",
        "user_id": "7",
    }


@pytest.mark.parametrize(
    "form",
    [
        [{"key": "level", "value": "fatal"}],
        [["level", "fatal"]],
        {"level": "fatal"},
        [{"key": "level", "value": "fatal"}, {"key": "level", "value": "error"}],
        [None, 7, "level", [], ["level"], {"value": "x"}, ["level", "fatal"]],
    ],
)
def test_tags_can_have_several_forms(form: Any) -> None:
    assert derived(tags=form) == {"level": "fatal"}


@pytest.mark.parametrize("form", [None, [], {}, "***", 5, [[None, "x"]]])
def test_an_event_without_tags_has_none(form: Any) -> None:
    assert derived(tags=form) == {}


def test_fields_sent_by_the_server_are_kept() -> None:
    record = {"level": "info", "environment": "staging", "handled": True}
    sent = tags(level="error", environment="production", handled="no")
    assert derived(tags=sent, **record) == {}


@pytest.mark.parametrize(
    ("release", "version"),
    [
        ({"version": "shop@2.0", "dateCreated": "2026-01-01"}, "shop@2.0"),
        ("shop@2.0", "shop@2.0"),
        (None, "shop@1.2"),
        ({}, "shop@1.2"),
    ],
)
def test_the_release_of_a_full_event_is_an_object(release: Any, version: str) -> None:
    event = {"release": release, "tags": tags(release="shop@1.2")}
    assert derived(**event) == {"release_version": version}


def exceptions(*handled: Any) -> list[dict[str, Any]]:
    values = [{"mechanism": {"handled": each}} for each in handled]
    return [{"type": "exception", "data": {"values": [{}, None, *values]}}]


@pytest.mark.parametrize(
    ("handled", "expected"),
    [
        ([True], True),
        ([False], False),
        ([True, False], False),
        ([None, True], True),
        ([None], None),
        ([], None),
    ],
)
def test_an_error_is_handled_if_its_whole_chain_is(
    handled: list[Any], expected: bool | None
) -> None:
    assert derived(entries=exceptions(*handled)).get("handled") is expected


@pytest.mark.parametrize(
    ("tag", "expected"), [("yes", True), ("no", False), ("true", True), ("***", None)]
)
def test_the_handled_tag_wins(tag: str, expected: bool | None) -> None:
    found = derived(tags=tags(handled=tag), entries=exceptions(True))
    assert found.get("handled") is expected


def test_the_url_of_a_full_event_is_that_of_its_request() -> None:
    request = {"type": "request", "data": {"url": "https://shop.example.test/cart"}}
    assert derived(entries=[None, {}, request]) == {
        "url": "https://shop.example.test/cart"
    }


@pytest.mark.parametrize(
    "event",
    [
        {"entries": "***"},
        {"entries": [{"type": "exception", "data": None}]},
        {"entries": [{"type": "exception", "data": {"values": "***"}}]},
        {"user": "***"},
        {"user": None, "release": 7},
    ],
)
def test_masked_or_malformed_values_give_no_columns(event: dict[str, Any]) -> None:
    assert derived(**event) == {}


def test_configured_tags_have_columns() -> None:
    table = EVENTS.with_tags({"tag_browser": "browser", "tag_plan": "plan"})
    sent = tags(browser="Firefox", customer="acme")
    assert derived(table, tags=sent) == {"tag_browser": "Firefox"}


def test_an_issue_has_the_id_of_its_project() -> None:
    assert derived(ISSUES, project={"id": "12"}) == {"project_id": "12"}
    assert derived(ISSUES, project="***") == {}
