"""Credentials and what the user names never reach the warehouse; the rest does."""

import json
from typing import Any

import pytest

from analytics_pipeline.errors import UnexpectedAnswer
from analytics_pipeline.tables.redaction import MASK, Redactor, mask_credentials, redact
from analytics_pipeline.tables.values import dumps, loads


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "securityToken",
        "sentry:token",
        "password",
        "db_password",
        "PASSWD",
        "passphrase",
        "clientSecret",
        "credentials",
        "secret_key",
        "appconnectPrivateKey",
        "apiKey",
        "accessKey",
    ],
)
def test_a_credential_is_masked_whatever_it_is(name: str) -> None:
    for value in ("s3cret", 12, ["s3cret"], {"a": "s3cret"}):
        assert mask_credentials({name: value}) == {name: MASK}


@pytest.mark.parametrize(
    "name", ["publicKey", "public_key", "tokenCount", "securityTokenHeader", "key"]
)
def test_names_that_only_resemble_a_credential_are_kept(name: str) -> None:
    assert mask_credentials({name: "value"}) == {name: "value"}


@pytest.mark.parametrize("value", [None, "", [], {}, True, False])
def test_the_absence_of_a_credential_is_told(value: Any) -> None:
    assert mask_credentials({"token": value}) == {"token": value}


def test_credentials_are_found_at_any_depth() -> None:
    value = {"options": [{"a": {"sentry:token": "s3cret", "b": 1}}]}
    masked = {"options": [{"a": {"sentry:token": MASK, "b": 1}}]}
    assert mask_credentials(value) == masked


def test_credentials_are_found_in_text_that_holds_json() -> None:
    sources = json.dumps([{"name": "s3", "secret_key": "s3cret"}])
    masked = mask_credentials({"symbolSources": sources})["symbolSources"]
    assert json.loads(masked) == [{"name": "s3", "secret_key": MASK}]


@pytest.mark.parametrize(
    "text", ["{not json", "[", '[1,  2, {"a": 1.50}]', '{"token": ""}', "plain", ""]
)
def test_text_without_credentials_stays_as_it_is(text: str) -> None:
    assert mask_credentials({"text": text}) == {"text": text}


def test_the_value_given_is_not_changed() -> None:
    value = {"token": "s3cret", "user": {"email": "a@b.example"}}
    mask_credentials(value)
    redact(value, ["user", "email"])
    assert value == {"token": "s3cret", "user": {"email": "a@b.example"}}


@pytest.mark.parametrize(
    ("path", "value", "redacted"),
    [
        ("message", {"message": "x", "a": 1}, {"message": MASK, "a": 1}),
        (
            "user.email",
            {"user": {"email": "x", "a": 1}},
            {"user": {"email": MASK, "a": 1}},
        ),
        ("user", {"user": {"email": "x"}}, {"user": MASK}),
        ("user.email", {"user": {"email": None}}, {"user": {"email": None}}),
        ("user.email", {"user": None}, {"user": None}),
        ("user.email", {"user": "text"}, {"user": "text"}),
        ("user.email", {"email": "other"}, {"email": "other"}),
        ("event.type", {"event.type": "x"}, {"event.type": MASK}),
        (
            "a.b.c",
            {"a.b": {"c": "x"}, "a": {"b.c": "x"}},
            {"a.b": {"c": MASK}, "a": {"b.c": MASK}},
        ),
        ("user.*", {"user": {"a": 1, "b": "x"}}, {"user": {"a": MASK, "b": MASK}}),
        (
            "*.ip",
            {"a": {"ip": 1}, "b": {"ip": 2, "c": 3}},
            {"a": {"ip": MASK}, "b": {"ip": MASK, "c": 3}},
        ),
        (
            "list.ip",
            {"list": [{"ip": 1}, {"b": 2}, 3]},
            {"list": [{"ip": MASK}, {"b": 2}, 3]},
        ),
    ],
)
def test_a_path_names_what_is_redacted(
    path: str, value: dict[str, Any], redacted: dict[str, Any]
) -> None:
    assert redact(value, path.split(".")) == redacted


@pytest.mark.parametrize(
    ("path", "first", "second"),
    [
        ("tags.user.email", MASK, "linux"),
        ("tags.os", "a@b.example", MASK),
        ("tags.*", MASK, MASK),
        ("tags.user", "a@b.example", "linux"),
    ],
)
def test_a_path_goes_on_with_the_key_of_a_tag(
    path: str, first: str, second: str
) -> None:
    tags = [
        {"key": "user.email", "value": "a@b.example"},
        {"key": "os", "value": "linux"},
    ]
    result = redact({"tags": tags}, path.split("."))["tags"]
    assert [tag["value"] for tag in result] == [first, second]
    assert [tag["key"] for tag in result] == ["user.email", "os"]


@pytest.mark.parametrize("table", ["projects", "project_detail"])
def test_projects_lose_their_credentials_without_being_asked(table: str) -> None:
    assert Redactor([]).clean(table, {"id": "1", "securityToken": "s3cret"}) == {
        "id": "1",
        "securityToken": MASK,
    }


def test_events_keep_everything_but_the_paths_named() -> None:
    row = {"id": "1", "token": "a word", "user": {"email": "a@b.example", "id": 5}}
    redactor = Redactor(["user.email", "user.ip_address"])
    assert redactor.clean("events", row) == {**row, "user": {"email": MASK, "id": 5}}


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_hides_no_credential(opening: str, closing: str) -> None:
    deep = (opening * 1500 + '{"token": "s3cret", "b": 1}' + closing * 1500).encode()
    options = loads(deep)[0]
    row = {"options": options, "text": deep.decode()}
    text = dumps(Redactor(["x.y"]).clean("projects", row))
    assert (text.count(b"s3cret"), text.count(MASK.encode())) == (0, 2)


def test_a_row_too_deep_to_be_looked_through_is_refused() -> None:
    row: dict[str, Any] = {}
    for _ in range(50_000):
        row = {"a": row}
    with pytest.raises(UnexpectedAnswer, match="projects: .* nested too deeply"):
        Redactor([]).clean("projects", row)
