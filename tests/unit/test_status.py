"""Which lists count as old, and where rows without a bookmark are counted."""

from datetime import UTC, datetime, timedelta

import pytest

from analytics_pipeline.bookmarks import Bookmark
from analytics_pipeline.loading.status import ListStatus, Status, lists_of

NOW = datetime(2026, 11, 30, 12, tzinfo=UTC)
HOUR, DAY = timedelta(hours=1), timedelta(days=1)


def listed(
    project: str,
    asked: timedelta | None,
    completed: timedelta | None,
    table: str = "events",
    organization: str = "acme",
) -> ListStatus:
    """Return a list that was last requested and read this long ago."""
    bookmark = Bookmark(
        asked_at=None if asked is None else NOW - asked,
        completed_at=None if completed is None else NOW - completed,
    )
    return ListStatus(table, project, organization, "https://host", bookmark)


def old(*lists: ListStatus, longest: timedelta = DAY, table: str = "") -> list[str]:
    status = Status("pipeline", "dataset", "file", NOW, NOW, [*lists])
    return [each.project for each in status.old_lists(longest, [table] * bool(table))]


def test_a_list_that_runs_never_finish_is_too_old() -> None:
    failing = listed("failing", HOUR, 3 * DAY)
    never = listed("never", HOUR, None)
    assert old(listed("a", HOUR, HOUR), failing, never) == ["failing", "never"]


@pytest.mark.parametrize("asked", [3 * DAY, None])
def test_a_list_no_longer_configured_is_not_too_old(asked: timedelta | None) -> None:
    """Bookmarks of the previous version do not say when they were requested."""
    assert old(listed("a", HOUR, HOUR), listed("dropped", asked, 3 * DAY)) == []


def test_the_lists_of_the_last_run_are_too_old_if_runs_have_stopped() -> None:
    lists = [listed(name, 3 * DAY, 3 * DAY) for name in ("a", "b")]
    assert old(*lists, listed("dropped", 5 * DAY, 5 * DAY)) == ["a", "b"]


def test_a_list_read_less_often_than_others_is_checked() -> None:
    daily = listed("daily", 20 * HOUR, 3 * DAY)
    assert old(listed("hourly", HOUR, HOUR), daily, longest=2 * DAY) == ["daily"]


def test_rows_without_a_list_or_read_at_are_not_too_old() -> None:
    """Rows of the first version that the server has deleted since."""
    rows = ListStatus("events", rows=7)
    assert old(listed("a", HOUR, HOUR), rows) == []
    assert old(rows) == [""]  # nothing else is known


def test_a_selected_table_is_compared_with_itself() -> None:
    lists = listed("a", HOUR, HOUR), listed("", 3 * DAY, 3 * DAY, "releases")
    assert old(*lists) == []
    assert old(*lists, table="releases") == [""]


def test_rows_without_bookmarks_are_as_old_as_the_newest_row() -> None:
    def partition(received: timedelta) -> ListStatus:
        return ListStatus("events", "a", received=NOW - received)

    assert old(partition(HOUR)) == []
    assert old(partition(3 * DAY)) == ["a"]
    assert old(partition(3 * DAY), listed("a", HOUR, HOUR)) == []


def counted(
    groups: dict[str, int], *bookmarks: tuple[str, str, bool]
) -> list[tuple[str, str, int | None]]:
    """Return organization, project and rows of the shown lists."""
    lists = [
        listed(project, None, HOUR if was_read else None, organization=organization)
        for organization, project, was_read in bookmarks
    ]
    found = [ListStatus("events", slug, rows=rows) for slug, rows in groups.items()]
    shown = lists_of(lists, found)
    return [(each.organization, each.project, each.rows) for each in shown]


A, B = ("acme", "a", True), ("acme", "b", True)


def test_rows_are_counted_in_the_list_of_their_project() -> None:
    assert counted({"a": 3, "c": 4}, A, B, ("acme", "d", False)) == [
        ("acme", "a", 3),
        ("acme", "b", 0),
        ("acme", "d", 0),
        ("", "c", 4),
    ]


def test_rows_of_earlier_versions_belong_to_the_only_list_or_to_none() -> None:
    refused = ("acme", "c", False)
    assert counted({"a": 3, "": 4}, A, refused) == [("acme", "a", 7), ("acme", "c", 0)]
    assert counted({"a": 3, "": 4}, A, B) == [
        ("acme", "a", 3),
        ("acme", "b", 0),
        ("", "", 4),
    ]


def test_rows_of_projects_with_the_same_name_are_counted_together() -> None:
    other = ("globex", "a", True)
    assert counted({"a": 3, "b": 1}, A, B, other) == [
        ("acme", "a", None),
        ("acme", "b", 1),
        ("globex", "a", None),
        ("", "a", 3),
    ]
