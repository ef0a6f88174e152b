"""Settings are checked before the first request."""

import json
import traceback
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import dlt
import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.config import Config, parse_config, project_list, resolve_config
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.times import parse_time

NOON = datetime(2025, 11, 30, 12, tzinfo=UTC)
INFINITY, NAN = float("inf"), float("nan")
GIVEN: dict[str, Any] = {
    "base_url": "https://errors.example.com",
    "auth_token": "s3cret",
    "organization": "acme",
    "project": "frontend",
    "api": "v1",
    "since": None,
    "until": None,
}


def parse(**changes: Any) -> Config:
    return parse_config(**GIVEN | changes)


REFUSED: dict[str, dict[str, list[Any]]] = {
    "sweep .* write it as 12h, 7d or 2w": {
        "sweep": [
            "",
            "0d",
            "-1d",
            "7",
            "d",
            "1.5d",
            "7m",
            "always",
            "1 d",
            None,
            5,
            True,
        ]
    },
    "sweep: .* is too short": {"sweep": [timedelta(), timedelta(days=-1)]},
    "lookback .* is not a span of time": {
        "lookback": [
            -1,
            INFINITY,
            NAN,
            1e300,
            10**400,
            31_557_600_001,
            None,
            "soon",
            [],
        ]
    },
    "organization .* is not a slug": {
        "organization": [
            *(
                ".",
                "..",
                " ",
                " .. ",
                "/",
                "https://sentry.io/",
                "https://us.sentry.io",
            ),
            *("https://sentry.io/organizations/", "https://errors.example.com/.."),
            "https://[/acme",
        ]
    },
    "is not a slug": {"project": [".", "..", " ", " .. ", ["a", ".."]]},
    "since .* is not a time": {
        "since": ["yesterday", "30.11.2026", 5, True, [], "0001-01-01T00:00:00+23:00"]
    },
    "base_url": {
        "base_url": [
            *(
                "errors.example.com",
                "localhost:8000",
                "/api",
                "https://",
                "https://:443",
            ),
            *("ftp://errors.example.com", "https://[::1", "https://a.example.com?a=b"),
            *("https://user:word@a.example.com", "https://:word@a.example.com"),
            "https://a.example.com#a",
        ]
    },
    "base_url.* is not an address": {
        "base_url": ["https://host:99999", "https://host:abc", "https://exa mple.com"]
    },
    "belongs to api 'sentry' or 'glitchtip'; set": {
        "base_url": ["https://a.example.com/api/0/", "https://a.example.com/b/api/0"]
    },
    "would mask the key": {
        "redact": [["user.email", p] for p in ("id", "projectID", "*")]
    },
    "is not a path; write it as user": {
        "redact": [
            *("user.email; user.name", "users[0].email", "$.user.email", "/user/email"),
            *(
                '{"user": "email"}',
                '"user.email"',
                "user|name",
                "(user)",
                "user\\.name",
            ),
            *("user.", ".email", "user..email", "."),
        ]
    },
    "^redact ": {
        "redact": [
            *(5, 0, False, [1], ["user.email", None], "[user.email]", "[]"),
            *({}, {"user": "email"}, [["user.email"]]),
        ]
    },
    "must be text": {
        key: [5, ["acme"], b"acme"]
        for key in ("api", "base_url", "auth_token", "organization")
    },
    "must be true or false": {
        key: ["false", 1, None]
        for key in ("full_events", "full_refresh", "allow_http", "history")
    },
    "no column name of its own": {"tags": [["a.b", "a_b"], [""], ["  "]]},
    "is not a column": {
        "exclude": ["events.entrys", "event.entries", "entries", "events."]
    },
    "could not be told apart": {
        "exclude": [
            *("events.id", "events.projectID", "events.date_created"),
            *("issues.project_id", "issues.project_slug"),
        ]
    },
}


@pytest.mark.parametrize(
    ("said", "name", "value"),
    [
        (said, name, value)
        for said, settings in REFUSED.items()
        for name, values in settings.items()
        for value in values
    ],
)
def test_an_invalid_value_is_refused(said: str, name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=said) as error:
        parse(**{name: value})
    assert name in str(error.value)


@pytest.mark.parametrize("until", ["2025-11-29", "2025-11-30T12:00:00"])
def test_until_must_be_later_than_since(until: str) -> None:
    with pytest.raises(ConfigurationError, match="must be before until"):
        parse(since=NOON, until=until)


@pytest.mark.parametrize("api", ["sentry", "glitchtip"])
def test_the_prefix_of_v1_is_refused_for_other_apis(api: str) -> None:
    with pytest.raises(ConfigurationError, match="belongs to api 'v1'; set"):
        parse(api=api, base_url="https://errors.example.com/v1/")


def test_settings_have_defaults() -> None:
    config = parse()
    assert (config.since, config.until, config.redact) == (None, None, ())
    assert (config.full_events, config.full_refresh) == (False, False)
    assert (config.lookback, config.rows_per_load) == (timedelta(hours=1), None)
    assert config.workers == 4
    assert (config.history, config.sweep) == (False, timedelta(days=1))


@pytest.mark.parametrize(
    ("value", "span"),
    [
        ("1d", timedelta(days=1)),
        (" 12h ", timedelta(hours=12)),
        ("2w", timedelta(days=14)),
        (timedelta(minutes=5), timedelta(minutes=5)),
        ("now", timedelta()),
        ("never", None),
    ],
)
def test_a_sweep_interval_is_a_span_or_a_word(
    value: Any, span: timedelta | None
) -> None:
    assert parse(sweep=value).sweep == span


@pytest.mark.parametrize("setting", ["workers", "rows_per_load"])
@pytest.mark.parametrize(
    "value", [0, -5, 0.5, 2.5, float("inf"), float("nan"), True, "4", [], {}]
)
def test_numbers_are_integers_of_at_least_1(setting: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be an integer") as error:
        parse(**{setting: value})
    assert f"{setting} must" in str(error.value)
    assert f"not {value!r}" in str(error.value)


@pytest.mark.parametrize("value", [1, 7, 7.0])
def test_an_integral_float_is_accepted(value: float) -> None:
    config = parse(workers=value, rows_per_load=value)
    assert (config.workers, config.rows_per_load) == (value, value)
    assert type(config.workers) is int


@pytest.mark.parametrize(
    ("lookback", "span"),
    [
        (0, timedelta()),
        (1.5, timedelta(seconds=1.5)),
        ("90", timedelta(seconds=90)),
        (31_557_600_000, timedelta(days=365_250)),
    ],
)
def test_a_lookback_is_in_seconds(lookback: Any, span: timedelta) -> None:
    assert parse(lookback=lookback).lookback == span


def test_bookmarks_are_separate_for_each_api_address() -> None:
    assert parse().server == "https://errors.example.com/v1"
    config = parse(base_url="https://Errors.Example.com:443/prefix/", api="glitchtip")
    assert config.server == "https://errors.example.com/prefix/api/0"


@pytest.mark.parametrize("name", ["base_url", "auth_token", "organization", "project"])
@pytest.mark.parametrize("value", [None, ""])
def test_a_missing_setting_says_where_to_put_it(name: str, value: str | None) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(**{name: value})
    file = "secrets.toml" if name == "auth_token" else "config.toml"
    for words in (f"{name} is missing", f".dlt/{file}", name.upper()):
        assert words in str(error.value)


def test_sentry_has_a_default_base_url() -> None:
    assert parse(api="sentry", base_url=None).base_url == "https://sentry.io"
    assert parse(api="sentry").base_url == "https://errors.example.com"


@pytest.mark.parametrize(
    ("setting", "choices"),
    [("api", "v1, sentry, glitchtip"), ("row_format", "auto, arrow, python")],
)
def test_an_unknown_choice_lists_the_known_ones(setting: str, choices: str) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(**{setting: "x"})
    assert str(error.value) == f"{setting} must be one of {choices}, not 'x'"


@pytest.mark.parametrize(
    ("project", "slugs"),
    [
        ("frontend", ("frontend",)),
        (["frontend"], ("frontend",)),
        (("b", "a", "b"), ("b", "a")),
        ('["frontend", "backend"]', ("frontend", "backend")),
        (' ["frontend"]', ("frontend",)),
        ("a/b?c#d", ("a/b?c#d",)),
        ((slug for slug in ("a", "b")), ("a", "b")),
        *((text, ("a", "b")) for text in ("a,b", " a , b ")),
        (["a", "b,c", '["d", "a"]'], ("a", "b", "c", "d")),
    ],
)
def test_a_project_is_a_slug_or_a_list_of_slugs(
    project: Any, slugs: tuple[str, ...]
) -> None:
    assert parse(project=project).projects == slugs


def test_lists_of_the_organization_need_no_project() -> None:
    nothing: list[Any] = [None, "", []]
    for project in nothing:
        assert parse(project=project, needs_project=False).projects == ()
    assert parse(project="a", needs_project=False).projects == ("a",)
    with pytest.raises(ConfigurationError, match="is not a slug"):
        parse(project=".", needs_project=False)


@pytest.mark.parametrize(
    "project", [[], (), [1], ["a", None], "[", "[1]", "[]", 5, 1.5, b"frontend"]
)
def test_any_other_project_is_refused(project: Any) -> None:
    with pytest.raises(ConfigurationError, match="^project "):
        project_list(project)


@pytest.mark.parametrize(
    ("value", "slug"),
    [
        ("acme", "acme"),
        ("a?c#d", "a?c#d"),
        ("settings", "settings"),
        ("https://acme.sentry.io/", "acme"),
        ("https://acme.sentry.io/issues/?project=1", "acme"),
        ("acme.sentry.io", "acme"),
        ("https://acme.sentry.io/settings/projects/", "acme"),
        ("https://sentry.io/organizations/acme/issues/", "acme"),
        ("https://us.sentry.io/organizations/acme", "acme"),
        ("https://de.sentry.io/api/0/organizations/acme/", "acme"),
        ("https://sentry.io/settings/acme/projects/", "acme"),
        ("https://sentry.io/organizations/acme/settings/members/", "acme"),
        ("https://errors.example.com/sentry/organizations/acme/", "acme"),
        ("https://app.glitchtip.com/acme/issues", "acme"),
        ("https://app.glitchtip.com/acme/settings/teams", "acme"),
        ("app.glitchtip.com/acme", "acme"),
    ],
)
def test_an_organization_is_a_slug_or_its_web_address(value: str, slug: str) -> None:
    assert parse(organization=value).organization == slug


@pytest.mark.parametrize(
    ("value", "time"),
    [
        (None, None),
        ("", None),
        ("2025-11-30", NOON.replace(hour=0)),
        (" 2025-11-30T12:00:00Z ", NOON),
        ("2025-11-30T14:00:00+02:00", NOON),
        (date(2025, 11, 30), NOON.replace(hour=0)),
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


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(days=900)])
def test_since_must_be_in_the_past(ahead: timedelta) -> None:
    later = datetime.now(UTC) + ahead
    for since in (later, later.isoformat()):
        with pytest.raises(
            ConfigurationError, match="since .* is in the future: it is"
        ):
            parse(since=since)
    just_now = datetime.now(UTC)
    assert parse(since=just_now).since == just_now


def test_until_can_be_in_the_future() -> None:
    later = datetime.now(UTC) + timedelta(days=900)
    assert parse(until=later).until == later


def test_until_without_since_starts_at_the_first_row() -> None:
    assert parse(until=NOON).since == datetime.min.replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("base_url", "normalized"),
    [
        ("https://errors.example.com", "https://errors.example.com"),
        ("https://errors.example.com/", "https://errors.example.com"),
        ("https://Errors.Example.COM/", "https://errors.example.com"),
        ("https://errors.example.com:443", "https://errors.example.com"),
        (
            "https://errors.example.com:8443/Prefix/",
            "https://errors.example.com:8443/Prefix",
        ),
        ("HTTPS://errors.example.com", "https://errors.example.com"),
        ("https://errors.example.com:80", "https://errors.example.com:80"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://localhost:80/", "http://localhost"),
        ("http://a.localhost", "http://a.localhost"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
        ("http://127.8.8.8", "http://127.8.8.8"),
        ("http://[::1]:9000", "http://[::1]:9000"),
    ],
)
def test_https_and_localhost_are_allowed_and_normalized(
    base_url: str, normalized: str
) -> None:
    assert parse(base_url=base_url).base_url == normalized
    assert parse(base_url=normalized).base_url == normalized


@pytest.mark.parametrize("path", ["", "/", "/prefix", "/prefix/"])
@pytest.mark.parametrize("api", APIS)
def test_the_path_prefix_of_the_api_is_removed(api: str, path: str) -> None:
    url = f"https://errors.example.com{path}"
    expected = url.rstrip("/")
    for end in ("", "/"):
        given = expected + APIS[api].prefix + end
        assert parse(api=api, base_url=given).base_url == expected
    assert parse(api=api, base_url=url).base_url == expected


def test_a_path_that_only_resembles_a_prefix_is_kept() -> None:
    for path in ("/apiv1", "/v1/errors", "/V1"):
        url = f"https://errors.example.com{path}"
        assert parse(base_url=url).base_url == url


@pytest.mark.parametrize(
    "base_url",
    [
        "http://errors.example.com",
        "http://10.0.0.1",
        "http://0.0.0.0",
        "http://localhost.example.com",
        "http://127.0.0.1.example.com",
        "http://2130706433",
        "HTTP://errors.example.com",
    ],
)
def test_http_to_another_machine_must_be_allowed(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="use https://"):
        parse(base_url=base_url)
    config = parse(base_url=base_url, allow_http=True)
    assert config.base_url == base_url.replace("HTTP", "http")


@pytest.mark.parametrize("login", ["me:hidden", "hidden", "me:hid den", "me:hidden/x"])
def test_a_login_in_the_address_is_not_shown(login: str) -> None:
    for url in (f"https://{login}@errors.example.com", f"{login}@errors.example.com"):
        with pytest.raises(
            ConfigurationError, match="^base_url must not contain a login$"
        ):
            parse(base_url=url)


@pytest.mark.parametrize(
    ("base_url", "hint"),
    [
        ("errors.example.com", "did you mean https://errors.example.com?"),
        ("https:/errors.example.com/a", "did you mean https://errors.example.com/a?"),
        ("errors", "use https://"),
    ],
)
def test_an_incomplete_address_suggests_a_complete_one(
    base_url: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(base_url=base_url)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    "token", [" ", "s3 cr3t", "s3cr3t\n", " s3cr3t", "s3cr3t\r\nX: y", "s3cr3€t"]
)
def test_an_invalid_token_is_refused_without_showing_it(token: str) -> None:
    with pytest.raises(ConfigurationError, match="auth_token") as error:
        parse(auth_token=token)
    assert "s3" not in str(error.value)


def test_the_settings_do_not_print_the_token() -> None:
    config = parse()
    assert "s3cret" not in f"{config} {config!r} {[config]}"


# Redacted paths, headers, columns


@pytest.mark.parametrize(
    ("redact", "paths"),
    [
        (None, ()),
        ("", ()),
        ([], ()),
        ("user.email", ("user.email",)),
        (["user.email", "culprit", "user.email"], ("user.email", "culprit")),
        ('["user.email", "culprit"]', ("user.email", "culprit")),
        (["user.id", "*.email", "id.x", "versions", "contexts.My App.id"], None),
        (" user.email, culprit", ("user.email", "culprit")),
    ],
)
def test_redact_is_one_path_or_several(
    redact: Any, paths: tuple[str, ...] | None
) -> None:
    assert parse(redact=redact).redact == (tuple(redact) if paths is None else paths)


def test_key_fields_depend_on_the_api() -> None:
    assert parse(redact="version").redact == ("version",)
    with pytest.raises(ConfigurationError, match="'version' would mask the key"):
        parse(redact="version", api="glitchtip")


@pytest.mark.parametrize(
    "headers",
    [
        {"CF-Access-Client-Id": "id.access", "CF-Access-Client-Secret": "a b"},
        '{"Proxy-Authorization": "Bearer abc"}',
        *(None, "", {}),
    ],
)
def test_headers_are_a_table_or_json(headers: Any) -> None:
    expected = json.loads(headers) if headers and isinstance(headers, str) else headers
    assert parse(headers=headers).headers == (expected or {})


@pytest.mark.parametrize(
    "headers",
    [
        *("hidden-1", '["hidden-1"]', ["hidden-1"], 5, 0, False, '{"a": "hidden-1"'),
        *({"": "hidden-1"}, {"a b": "hidden-1"}, {"a:": "hidden-1"}, {"é": "hidden-1"}),
        *({"A\n": "hidden-1"}, {5: "hidden-1"}, {"hidden-1\r\nB": "b"}),
        *({"A": "hidden-1\r\nB: c"}, {"A": "hidden-1\n"}, {"A": " hidden-1"}),
        *({"A": "hidden-1\0"}, {"A": "hidden-1é"}, {"A": ""}, {"A": 5}, {"A": None}),
        *({"Authorization": "hidden-1"}, {"HOST": "hidden-1"}, {"te": "hidden-1"}),
        *({"Connection": "hidden-1"}, {"transfer-encoding": "hidden-1"}),
    ],
)
def test_an_invalid_header_is_refused_without_showing_its_value(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="^headers") as error:
        parse(headers=headers)
    assert "hidden-1" not in "".join(traceback.format_exception(error.value))


def test_tags_become_columns_of_events() -> None:
    config = parse(tags=["browser", "feature.flag"])
    columns = config.tables["events"].columns
    assert columns["tag_browser"]["data_type"] == "text"
    assert config.tables["events"].tags == {
        "tag_browser": "browser",
        "tag_feature_flag": "feature.flag",
    }
    assert parse(tags='["plan"]').tables["events"].tags == {"tag_plan": "plan"}


@pytest.mark.parametrize("path", ["issues.statusDetails", "issues.status_details"])
def test_a_column_can_be_left_out_by_either_name(path: str) -> None:
    config = parse(exclude=[path, "events.entries"])
    assert "status_details" not in config.tables["issues"].columns
    assert "entries" not in config.tables["events"].columns
    assert "metadata" in config.tables["events"].columns


# Names


@pytest.mark.parametrize(
    ("name", "said"),
    [
        (
            "ANALYTICS_PIPELINE__REDCAT",
            "unknown setting 'redcat'; did you mean 'redact'?",
        ),
        (
            "ANALYTICS_PIPELINE__ANALYTICS__TAG",
            "unknown setting 'tag'; did you mean 'tags'",
        ),
        ("ANALYTICS_PIPELINE__COLOUR", "unknown setting 'colour'$"),
    ],
)
@pytest.mark.parametrize("is_file", [False, True])
def test_a_name_without_effect_is_an_error(
    monkeypatch: pytest.MonkeyPatch, name: str, said: str, is_file: bool
) -> None:
    values = {}
    if is_file:
        values["sources." + name.lower().replace("__", ".")] = "user.email"
    else:
        monkeypatch.setenv("SOURCES__" + name, "user.email")
    with dlt.secrets.values(values), pytest.raises(ConfigurationError, match=said):
        parse()


@pytest.mark.parametrize(
    "name",
    [
        "sources.analytics_pipeline.redact",
        "sources.analytics_pipeline.extract.workers",
        "sources.analytics.credentials",
        "resources.analytics_pipeline.cpu",
        "sources",
    ],
)
@pytest.mark.parametrize("is_file", [False, True])
def test_settings_of_other_sources_are_not_errors(
    monkeypatch: pytest.MonkeyPatch, name: str, is_file: bool
) -> None:
    if not is_file:
        monkeypatch.setenv(name.upper().replace(".", "__"), "5")
    with dlt.config.values({name: "5"} if is_file else {}):
        assert parse().redact == ()


def test_every_section_that_dlt_reads_applies_to_all_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCES__ANALYTICS__REDACT", "user.email")
    assert resolve_config(**GIVEN).redact == ("user.email",)


@pytest.mark.parametrize("value", ["3d", "259200", 259200, 259200.0])
def test_a_lookback_in_any_place_is_a_span_or_seconds(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    with dlt.config.values({"sources.analytics_pipeline.lookback": value}):
        assert resolve_config(**GIVEN).lookback == timedelta(days=3)
    monkeypatch.setenv("LOOKBACK", str(value))
    assert resolve_config(**GIVEN).lookback == timedelta(days=3)


@pytest.mark.parametrize("value", ["a,b", " a , b ", '["a", "b"]'])
def test_a_list_in_the_environment_has_commas_or_is_json(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    for name in ("PROJECT", "REDACT", "TAGS"):
        monkeypatch.setenv(name, value)
    config = resolve_config(**{k: v for k, v in GIVEN.items() if k != "project"})
    assert config.projects == config.redact == ("a", "b")
    assert [*config.tables["events"].tags.values()] == ["a", "b"]


def test_workers_have_a_limit() -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 1000, not 1001"):
        parse(workers=1001)
    assert parse(workers=1000, rows_per_load=1001).workers == 1000
