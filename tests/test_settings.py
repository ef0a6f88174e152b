"""Settings are checked, in words, before anything is asked."""

from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import pytest

from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.servers import SERVERS
from analytics_pipeline.settings import Settings, parse_time, project_list

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC)
GIVEN: dict[str, Any] = {
    "base_url": "https://errors.example.com",
    "auth_token": "s3cret",
    "organization": "acme",
    "project": "frontend",
    "api": "v1",
    "since": None,
    "until": None,
}


def checked(**changes: Any) -> Settings:
    return Settings.checked(**GIVEN | changes)


def test_settings_are_taken_over() -> None:
    settings = checked(since="2026-11-30", until=NOON)
    assert settings.base_url == "https://errors.example.com"
    assert settings.auth_token == "s3cret"
    assert settings.organization == "acme"
    assert settings.projects == ("frontend",)
    assert settings.server is SERVERS["v1"]
    assert (settings.since, settings.until) == (NOON.replace(hour=0), NOON)


@pytest.mark.parametrize("name", ["base_url", "auth_token", "organization", "project"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_is_named_with_where_to_put_it(
    name: str, value: str | None
) -> None:
    with pytest.raises(ConfigurationError) as error:
        checked(**{name: value})
    file = "secrets.toml" if name == "auth_token" else "config.toml"
    for words in (f"{name} is missing", f".dlt/{file}", name.upper()):
        assert words in str(error.value)


def test_sentry_has_a_base_url_of_its_own() -> None:
    assert checked(api="sentry", base_url=None).base_url == "https://sentry.io"
    assert checked(api="sentry").base_url == "https://errors.example.com"


@pytest.mark.parametrize(
    ("api", "hint"),
    [("Sentry", "did you mean 'sentry'?"), ("glitch-tip", "'glitchtip'?"), ("x", "v1")],
)
def test_an_unknown_api_is_answered_with_the_known_ones(api: str, hint: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        checked(api=api)
    assert "v1, sentry, glitchtip" in str(error.value)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    ("project", "slugs", "many"),
    [
        ("frontend", ("frontend",), False),
        (["frontend"], ("frontend",), True),
        (("b", "a", "b"), ("b", "a"), True),
        ('["frontend", "backend"]', ("frontend", "backend"), True),
        ('["frontend"]', ("frontend",), True),
        ("a/b?c#d", ("a/b?c#d",), False),
    ],
)
def test_a_project_is_a_slug_or_a_list_of_slugs(
    project: Any, slugs: tuple[str, ...], many: bool
) -> None:
    settings = checked(project=project)
    assert (settings.projects, settings.many) == (slugs, many)


def test_projects_may_be_made_one_by_one() -> None:
    assert project_list(slug for slug in ("a", "b")) == ["a", "b"]


@pytest.mark.parametrize(
    "project", [[], (), [1], ["a", None], "[", "[1]", "[]", 5, 1.5, b"frontend"]
)
def test_anything_else_is_no_project(project: Any) -> None:
    with pytest.raises(ConfigurationError, match="^project "):
        project_list(project)


@pytest.mark.parametrize("slug", [".", "..", " ", " .. "])
def test_a_slug_that_would_change_the_address_is_refused(slug: str) -> None:
    for setting in (
        {"organization": slug},
        {"project": slug},
        {"project": ["a", slug]},
    ):
        with pytest.raises(ConfigurationError, match="is not a slug"):
            checked(**setting)


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (None, None),
        ("", None),
        ("2026-11-30", NOON.replace(hour=0)),
        (" 2026-11-30T12:00:00Z ", NOON),
        ("2026-11-30T14:00:00+02:00", NOON),
        (date(2026, 11, 30), NOON.replace(hour=0)),
        (NOON, NOON),
        (NOON.replace(tzinfo=None), NOON),
        (NOON.astimezone(timezone(timedelta(hours=2))), NOON),
    ],
)
def test_times_are_iso_text_dates_or_datetimes(
    value: Any, time: datetime | None
) -> None:
    result = parse_time("since", value)
    assert result == time
    assert result is None or result.tzinfo is UTC


@pytest.mark.parametrize(
    "value", ["yesterday", "30.11.2026", 5, True, [], "0001-01-01T00:00:00+23:00"]
)
def test_another_text_is_no_time(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="since .* is not a time"):
        checked(since=value)


@pytest.mark.parametrize("until", ["2026-11-29", "2026-11-30T12:00:00"])
def test_a_span_must_not_end_before_it_begins(until: str) -> None:
    with pytest.raises(ConfigurationError, match="must be before until"):
        checked(since=NOON, until=until)


def test_an_end_without_a_beginning_means_from_the_first_row() -> None:
    assert checked(until=NOON).since == datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("api", "table", "column"),
    [
        ("v1", "events", "date_created"),
        ("v1", "issues", "last_seen"),
        ("glitchtip", "events", "date_received"),
    ],
)
def test_the_cursor_is_a_column(api: str, table: str, column: str) -> None:
    assert checked(api=api).cursor_column(table) == column


def test_the_token_is_in_no_text_of_the_settings() -> None:
    settings = checked()
    assert "s3cret" not in f"{settings} {settings!r} {[settings]}"
