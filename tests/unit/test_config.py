"""Settings are checked, in words, before anything is asked."""

import json
import traceback
from datetime import UTC, date, datetime, timedelta, timezone
from typing import Any

import dlt
import pytest

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.config import (
    Config,
    parse_config,
    project_list,
    resolve_config,
)
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.times import parse_time

NOON = datetime(2025, 11, 30, 12, tzinfo=UTC)
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


def test_what_is_not_given_has_a_default() -> None:
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
def test_a_sweep_is_a_span_or_a_word(value: Any, span: timedelta | None) -> None:
    assert parse(sweep=value).sweep == span


@pytest.mark.parametrize(
    "value", ["", "0d", "-1d", "7", "d", "1.5d", "7m", "always", "1 d", None, 5, True]
)
def test_anything_else_is_no_sweep(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="sweep .* write it as 12h, 7d or 2w"):
        parse(sweep=value)


@pytest.mark.parametrize("span", [timedelta(), timedelta(days=-1)])
def test_a_sweep_takes_time(span: timedelta) -> None:
    with pytest.raises(ConfigurationError, match="sweep: .* is too short"):
        parse(sweep=span)


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
def test_a_whole_number_is_taken(value: float) -> None:
    config = parse(workers=value, rows_per_load=value)
    assert (config.workers, config.rows_per_load) == (value, value)
    assert type(config.workers) is int


@pytest.mark.parametrize(
    "lookback",
    [-1, float("inf"), float("nan"), 1e300, 10**400, 31_557_600_001, None, "soon", []],
)
def test_an_invalid_lookback_is_refused(lookback: Any) -> None:
    with pytest.raises(ConfigurationError, match="lookback .* is not a span of time"):
        parse(lookback=lookback)


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


def test_bookmarks_are_kept_apart_by_the_address_of_the_api() -> None:
    assert parse().server == "https://errors.example.com/v1"
    config = parse(base_url="https://Errors.Example.com:443/prefix/", api="glitchtip")
    assert config.server == "https://errors.example.com/prefix/api/0"


@pytest.mark.parametrize("name", ["base_url", "auth_token", "organization", "project"])
@pytest.mark.parametrize("value", [None, ""])
def test_what_is_missing_is_named_with_where_to_put_it(
    name: str, value: str | None
) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(**{name: value})
    file = "secrets.toml" if name == "auth_token" else "config.toml"
    for words in (f"{name} is missing", f".dlt/{file}", name.upper()):
        assert words in str(error.value)


def test_sentry_has_a_base_url_of_its_own() -> None:
    assert parse(api="sentry", base_url=None).base_url == "https://sentry.io"
    assert parse(api="sentry").base_url == "https://errors.example.com"


@pytest.mark.parametrize(
    ("setting", "choices"),
    [("api", "v1, sentry, glitchtip"), ("row_format", "auto, arrow, python")],
)
def test_an_unknown_choice_is_answered_with_the_known_ones(
    setting: str, choices: str
) -> None:
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
def test_anything_else_is_no_project(project: Any) -> None:
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
def test_an_organization_is_a_slug_or_a_web_address_of_it(
    value: str, slug: str
) -> None:
    assert parse(organization=value).organization == slug


@pytest.mark.parametrize(
    "value",
    [
        "https://sentry.io/",
        "https://us.sentry.io",
        "/",
        "https://sentry.io/organizations/",
        "https://errors.example.com/..",
        "https://[/acme",
    ],
)
def test_an_address_of_no_organization_is_refused(value: str) -> None:
    with pytest.raises(ConfigurationError, match="organization .* is not a slug"):
        parse(organization=value)


@pytest.mark.parametrize("slug", [".", "..", " ", " .. "])
def test_a_slug_that_would_change_the_address_is_refused(slug: str) -> None:
    for setting in (
        {"organization": slug},
        {"project": slug},
        {"project": ["a", slug]},
    ):
        with pytest.raises(ConfigurationError, match="is not a slug"):
            parse(**setting)


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


@pytest.mark.parametrize(
    "value", ["yesterday", "30.11.2026", 5, True, [], "0001-01-01T00:00:00+23:00"]
)
def test_another_text_is_no_time(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="since .* is not a time"):
        parse(since=value)


@pytest.mark.parametrize("ahead", [timedelta(minutes=1), timedelta(days=900)])
def test_since_must_have_passed(ahead: timedelta) -> None:
    later = datetime.now(UTC) + ahead
    for since in (later, later.isoformat()):
        with pytest.raises(
            ConfigurationError, match="since .* is in the future: it is"
        ):
            parse(since=since)
    just_now = datetime.now(UTC)
    assert parse(since=just_now).since == just_now


def test_until_may_lie_in_the_future() -> None:
    later = datetime.now(UTC) + timedelta(days=900)
    assert parse(until=later).until == later


@pytest.mark.parametrize("until", ["2025-11-29", "2025-11-30T12:00:00"])
def test_a_span_must_not_end_before_it_begins(until: str) -> None:
    with pytest.raises(ConfigurationError, match="must be before until"):
        parse(since=NOON, until=until)


def test_an_end_without_a_beginning_means_from_the_first_row() -> None:
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
def test_https_and_this_machine_are_safe_and_addresses_have_one_form(
    base_url: str, normalized: str
) -> None:
    assert parse(base_url=base_url).base_url == normalized
    assert parse(base_url=normalized).base_url == normalized


@pytest.mark.parametrize("path", ["", "/", "/prefix", "/prefix/"])
@pytest.mark.parametrize("api", APIS)
def test_the_prefix_of_the_apis_paths_is_taken_off(api: str, path: str) -> None:
    url = f"https://errors.example.com{path}"
    expected = url.rstrip("/")
    for end in ("", "/"):
        given = expected + APIS[api].prefix + end
        assert parse(api=api, base_url=given).base_url == expected
    assert parse(api=api, base_url=url).base_url == expected


@pytest.mark.parametrize(
    ("api", "path", "right"),
    [
        ("v1", "/api/0/", "'sentry' or 'glitchtip'"),
        ("v1", "/prefix/api/0", "'sentry' or 'glitchtip'"),
        ("sentry", "/v1", "'v1'"),
        ("glitchtip", "/v1/", "'v1'"),
    ],
)
def test_the_prefix_of_another_api_is_refused(api: str, path: str, right: str) -> None:
    with pytest.raises(ConfigurationError, match=f"belongs to api {right}; set"):
        parse(api=api, base_url=f"https://errors.example.com{path}")


def test_a_path_that_only_looks_like_a_prefix_stays() -> None:
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
def test_http_to_another_machine_has_to_be_allowed(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="use https://"):
        parse(base_url=base_url)
    config = parse(base_url=base_url, allow_http=True)
    assert config.base_url == base_url.replace("HTTP", "http")


@pytest.mark.parametrize(
    "base_url",
    [
        "errors.example.com",
        "localhost:8000",
        "/api",
        "ftp://errors.example.com",
        "https://",
        "https://:443",
        "https://[::1",
        "https://user:word@errors.example.com",
        "https://:word@errors.example.com",
        "https://errors.example.com?a=b",
        "https://errors.example.com#a",
    ],
)
def test_what_is_no_plain_address_is_refused(base_url: str) -> None:
    with pytest.raises(ConfigurationError, match="base_url"):
        parse(base_url=base_url, allow_http=True)


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
def test_an_incomplete_address_is_answered_with_a_whole_one(
    base_url: str, hint: str
) -> None:
    with pytest.raises(ConfigurationError) as error:
        parse(base_url=base_url)
    assert hint in str(error.value)


@pytest.mark.parametrize(
    "token", [" ", "s3 cr3t", "s3cr3t\n", " s3cr3t", "s3cr3t\r\nX: y", "s3cr3€t"]
)
def test_a_token_that_cannot_be_one_is_refused_without_being_shown(token: str) -> None:
    with pytest.raises(ConfigurationError, match="auth_token") as error:
        parse(auth_token=token)
    assert "s3" not in str(error.value)


def test_the_token_is_in_no_text_of_the_settings() -> None:
    config = parse()
    assert "s3cret" not in f"{config} {config!r} {[config]}"


# What is to be masked


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
def test_paths_are_one_text_or_several(
    redact: Any, paths: tuple[str, ...] | None
) -> None:
    assert parse(redact=redact).redact == (tuple(redact) if paths is None else paths)


@pytest.mark.parametrize("path", ["id", "projectID", "*"])
def test_the_key_of_a_table_cannot_be_masked(path: str) -> None:
    with pytest.raises(ConfigurationError, match="would mask the key") as error:
        parse(redact=["user.email", path])
    assert f"redact {path!r}" in str(error.value)


def test_what_is_a_key_depends_on_the_api() -> None:
    assert parse(redact="version").redact == ("version",)
    with pytest.raises(ConfigurationError, match="'version' would mask the key"):
        parse(redact="version", api="glitchtip")


@pytest.mark.parametrize(
    "path",
    [
        *("user.email; user.name", "users[0].email"),
        *(
            "$.user.email",
            "/user/email",
            '{"user": "email"}',
            '"user.email"',
        ),
        *("user|name", "(user)", "user\\.name"),
        *("user.", ".email", "user..email", "."),
    ],
)
def test_what_is_no_path_is_refused(path: str) -> None:
    with pytest.raises(ConfigurationError, match="is not a path; write it as user"):
        parse(redact=["user.email", path])


@pytest.mark.parametrize(
    "redact",
    [
        *(5, 0, False, [1], ["user.email", None], "[user.email]", "[]"),
        *({}, {"user": "email"}, [["user.email"]]),
    ],
)
def test_anything_else_is_no_path(redact: Any) -> None:
    with pytest.raises(ConfigurationError, match="^redact "):
        parse(redact=redact)


# Further headers


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
def test_what_cannot_be_a_header_is_refused_without_its_value(headers: Any) -> None:
    with pytest.raises(ConfigurationError, match="^headers") as error:
        parse(headers=headers)
    assert "hidden-1" not in "".join(traceback.format_exception(error.value))


@pytest.mark.parametrize("name", ["api", "base_url", "auth_token", "organization"])
@pytest.mark.parametrize("value", [5, ["acme"], b"acme"])
def test_what_must_be_text_is_refused_otherwise(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be text"):
        parse(**{name: value})


@pytest.mark.parametrize(
    "name", ["full_events", "full_refresh", "allow_http", "history"]
)
@pytest.mark.parametrize("value", ["false", 1, None])
def test_flags_are_true_or_false(name: str, value: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"{name} must be true or false"):
        parse(**{name: value})


@pytest.mark.parametrize(
    "url", ["https://host:99999", "https://host:abc", "https://exa mple.com"]
)
def test_an_address_that_cannot_be_is_refused_unasked(url: str) -> None:
    with pytest.raises(ConfigurationError, match="is not an address"):
        parse(base_url=url)


def test_tags_become_columns_of_events() -> None:
    config = parse(tags=["browser", "feature.flag"])
    columns = config.tables["events"].columns
    assert columns["tag_browser"]["data_type"] == "text"
    assert config.tables["events"].tags == {
        "tag_browser": "browser",
        "tag_feature_flag": "feature.flag",
    }
    assert parse(tags='["plan"]').tables["events"].tags == {"tag_plan": "plan"}


@pytest.mark.parametrize("tags", [["a.b", "a_b"], [""], ["  "]])
def test_two_tags_do_not_share_a_column(tags: list[str]) -> None:
    with pytest.raises(ConfigurationError, match="no column name of its own"):
        parse(tags=tags)


@pytest.mark.parametrize("path", ["issues.statusDetails", "issues.status_details"])
def test_a_column_can_be_left_out_by_either_name(path: str) -> None:
    config = parse(exclude=[path, "events.entries"])
    assert "status_details" not in config.tables["issues"].columns
    assert "entries" not in config.tables["events"].columns
    assert "metadata" in config.tables["events"].columns


@pytest.mark.parametrize(
    ("path", "hint"),
    [
        ("events.entrys", "is not a column"),
        ("event.entries", "is not a column"),
        ("entries", "is not a column"),
        ("events.", "is not a column"),
        ("events.id", "could not be told apart"),
        ("events.projectID", "could not be told apart"),
        ("events.date_created", "could not be told apart"),
        ("issues.project_id", "could not be told apart"),
        ("issues.project_slug", "could not be told apart"),
    ],
)
def test_no_other_column_can_be_left_out(path: str, hint: str) -> None:
    with pytest.raises(ConfigurationError, match=hint):
        parse(exclude=path)


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
def test_settings_and_names_of_others_are_no_errors(
    monkeypatch: pytest.MonkeyPatch, name: str, is_file: bool
) -> None:
    if not is_file:
        monkeypatch.setenv(name.upper().replace(".", "__"), "5")
    with dlt.config.values({name: "5"} if is_file else {}):
        assert parse().redact == ()


def test_each_section_that_dlt_reads_for_the_source_holds_for_all_commands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOURCES__ANALYTICS__REDACT", "user.email")
    assert resolve_config(**GIVEN).redact == ("user.email",)


@pytest.mark.parametrize("value", ["3d", "259200", 259200, 259200.0])
def test_a_lookback_is_a_span_or_seconds_wherever_it_is_set(
    monkeypatch: pytest.MonkeyPatch, value: Any
) -> None:
    with dlt.config.values({"sources.analytics_pipeline.lookback": value}):
        assert resolve_config(**GIVEN).lookback == timedelta(days=3)
    monkeypatch.setenv("LOOKBACK", str(value))
    assert resolve_config(**GIVEN).lookback == timedelta(days=3)


@pytest.mark.parametrize("value", ["a,b", " a , b ", '["a", "b"]'])
def test_a_list_of_the_environment_has_commas_or_is_json(
    monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    for name in ("PROJECT", "REDACT", "TAGS"):
        monkeypatch.setenv(name, value)
    config = resolve_config(**{k: v for k, v in GIVEN.items() if k != "project"})
    assert config.projects == config.redact == ("a", "b")
    assert [*config.tables["events"].tags.values()] == ["a", "b"]


def test_texts_of_a_list_may_hold_several() -> None:
    assert parse(project=["a", "b,c", '["d", "a"]']).projects == ("a", "b", "c", "d")


def test_workers_have_a_limit() -> None:
    with pytest.raises(ConfigurationError, match="from 1 to 1000, not 1001"):
        parse(workers=1001)
    assert parse(workers=1000, rows_per_load=1001).workers == 1000
