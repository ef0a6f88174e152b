"""Credentials are masked wherever they stand; what only resembles them is kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_pipeline.secrets import MASK
from analytics_pipeline.tables.credentials import mask_credentials
from tests.unit.profiles import SHORT

SECRET = "s3cret"
HEX = "cd92fd5564e9d4a2b82dd03ad2d539a1a2b83ea13e2e205507d2f8d3c513d864"


@pytest.mark.parametrize(
    "name",
    [
        *("token", "tokens", "securityToken", "sentry:token", "auth_tokens"),
        *("password", "passwords", "db_password", "PASSWD", "dbPwd", "passphrase"),
        *("secret", "clientSecret", "client-secrets", "credential", "credentials"),
        *("Authorization", "Proxy-Authorization", "x-api-key", "api_key", "apikey"),
        *("apiKey", "api_keys", "secret_key", "secretKeys", "private_key"),
        *("appconnectPrivateKey", "accessKey", "aws_secret_access_key", "auth-key"),
        *("signing_key", "encryption_keys", "service_key", "integrationKey"),
    ],
)
def test_a_credential_of_any_type_is_masked(name: str) -> None:
    for value in (SECRET, 12, 1, 0, [SECRET], {"a": SECRET}):
        assert mask_credentials({name: value}) == {name: MASK}


@pytest.mark.parametrize(
    "name",
    [
        *("sort_key", "cache_key", "grouping_key", "project_key", "publicKey"),
        *("public_key", "tokenCount", "securityTokenHeader", "key", "keys"),
        *("hasAuthProvider", "secretary", "sensitiveFields"),
    ],
)
def test_names_that_only_resemble_a_credential_are_kept(name: str) -> None:
    assert mask_credentials({name: "value"}) == {name: "value"}


@pytest.mark.parametrize("value", [None, "", [], {}, True, False])
def test_an_empty_credential_is_kept(value: Any) -> None:
    assert mask_credentials({"token": value}) == {"token": value}
    assert mask_credentials([["token", value]]) == [["token", value]]


def test_credentials_are_found_at_any_depth() -> None:
    value = {"options": [{"a": {"sentry:token": SECRET, "b": 1}}]}
    masked = {"options": [{"a": {"sentry:token": MASK, "b": 1}}]}
    assert mask_credentials(value) == masked


def test_credentials_are_found_in_text_that_holds_json() -> None:
    sources = json.dumps([{"name": "s3", "secret_key": SECRET}])
    masked = mask_credentials({"symbolSources": sources})["symbolSources"]
    assert json.loads(masked) == [{"name": "s3", "secret_key": MASK}]


@pytest.mark.parametrize(
    "form", ["\ufeff{}", " \n{}\n", "{}\n{}", '{}\r\n[{{"a": 1}}]\n\n']
)
def test_json_text_can_start_with_a_mark_or_have_lines(form: str) -> None:
    held, masked = (
        json.dumps({"token": text}, separators=(",", ":")) for text in (SECRET, MASK)
    )
    text = mask_credentials({"a": form.format(held, held)})["a"]
    assert text.split() == form.removeprefix("\ufeff").format(masked, masked).split()


@pytest.mark.parametrize(
    ("pair", "masked"),
    [
        (["Authorization", f"Bearer {SECRET}"], ["Authorization", MASK]),
        (["Accept", "*/*"], ["Accept", "*/*"]),
        ({"key": "password", "value": SECRET}, {"key": "password", "value": MASK}),
        (
            {"name": "api_key", "value": [SECRET], "label": "a"},
            {"name": "api_key", "value": MASK, "label": "a"},
        ),
        (
            {"key": "1", "name": "token", "value": SECRET},
            {"key": "1", "name": "token", "value": MASK},
        ),
        ({"name": "url", "value": "a"}, {"name": "url", "value": "a"}),
        ({"id": "api_key", "value": SECRET}, {"id": "api_key", "value": MASK}),
        ({"label": "API Key", "value": SECRET}, {"label": "API Key", "value": MASK}),
        ({"field": "api_key", "value": SECRET}, {"field": "api_key", "value": MASK}),
        (
            {"name": "api_key", "defaultValue": SECRET},
            {"name": "api_key", "defaultValue": MASK},
        ),
        (
            {"name": "a", "type": "secret", "value": SECRET, "default": SECRET},
            {"name": "a", "type": "secret", "value": MASK, "default": MASK},
        ),
        ({"id": "7", "default": "a"}, {"id": "7", "default": "a"}),
    ],
)
def test_a_pair_is_masked_by_its_name(pair: Any, masked: Any) -> None:
    assert mask_credentials({"config": [pair]}) == {"config": [masked]}


def test_a_list_of_two_names_is_not_a_pair() -> None:
    value = {"sensitiveFields": ["password", "email"]}
    assert mask_credentials(value) == value


@pytest.mark.parametrize(
    "kind", ["PRIVATE KEY", "RSA PRIVATE KEY", "PGP PRIVATE KEY BLOCK"]
)
def test_a_private_key_is_masked_in_any_text(kind: str) -> None:
    key = f"-----BEGIN {kind}-----\n{SECRET}\n-----END {kind}-----"
    assert mask_credentials(f"mine: {key}\nend") == f"mine: {MASK}\nend"
    assert mask_credentials(key.partition("\n-----END")[0]) == MASK


def test_a_certificate_is_kept() -> None:
    text = "-----BEGIN CERTIFICATE-----\nabc\n-----END CERTIFICATE-----"
    assert mask_credentials(text) == text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("see https://me:s3cret@host/x", "see https://me:***@host/x"),
        ("https://me:s3c@ret@host:80/x?a=b@c", "https://me:***@host:80/x?a=b@c"),
        ("redis://:s3cret@host", "redis://:***@host"),
        ("https://public:s3cret@host/1", "https://public:***@host/1"),
        ("a https://public@host:80/1 b", "a https://public@host:80/1 b"),
        ("http://host:80/a@b", "http://host:80/a@b"),
    ],
)
def test_the_password_in_a_url_is_masked(text: str, masked: str) -> None:
    assert mask_credentials({"text": text}) == {"text": masked}


@pytest.mark.parametrize(
    "name", ["key", "token", "api_key", "secret", "access_token", "sig"]
)
@pytest.mark.parametrize("before", ["?", "?page=1&", "?page=1&amp;", "#"])
@pytest.mark.parametrize("after", ["", "&x=1", '">link</a>', ") and"])
def test_a_key_in_a_query_is_masked(name: str, before: str, after: str) -> None:
    url = f"https://host/path{before}{name}="
    assert mask_credentials(f"a {url}{SECRET}{after}") == f"a {url}{MASK}{after}"


@pytest.mark.parametrize("path", ["release/builtin/5942472", "release/heroku/5942472"])
def test_the_secret_of_a_sentry_release_hook_is_masked(path: str) -> None:
    url = f"https://sentry.io/api/hooks/{path}/"
    doc = f'<pre class="clippy">curl {url}{HEX}/ -a NAME</pre>'
    assert mask_credentials({"doc": doc}) == {"doc": doc.replace(HEX, MASK)}


@pytest.mark.parametrize(
    "url",
    [
        "https://hooks.slack.com/services/T0/B0/{}",
        "https://hooks.slack.com/services/T0/B0/{}/",
        "https://hooks.zapier.com/hooks/catch/123/{}/?a=b",
    ],
)
def test_the_last_segment_is_masked_on_a_web_hook_host(url: str) -> None:
    assert mask_credentials(url.format("XXXX")) == url.format(MASK)


@pytest.mark.parametrize(
    "url",
    [
        "https://discord.com/api/webhooks/123456789012345678/{}",
        "https://acme.webhook.office.com/webhookb2/{0}@{0}/IncomingWebhook/{0}",
        "https://chat.example.com/hooks/{}",
    ],
)
@pytest.mark.parametrize(
    "key",
    [HEX, "0" * 32, "a" * 64, "8ej1kmcpqxot-_uwis", "3fa85f64-5717-4562-b3fc-2c96"],
)
def test_parts_of_a_hook_url_that_look_like_keys_are_masked(url: str, key: str) -> None:
    masked = url.replace("{0}@{0}", MASK).replace("{0}", MASK).replace("{}", MASK)
    assert mask_credentials(url.format(key)) == masked


@pytest.mark.parametrize(
    "text",
    [
        "https://secure.gravatar.com/avatar/0123456789abcdef0123456789abcdef?d=mm",
        "https://hooks-inc.sentry.io/avatar/0123456789abcdef0123456789abcdef/",
        f"https://acme.sentry.io/issues/5942472/events/{HEX[:32]}/",
        f"https://github.com/acme/backend/commit/{HEX[:40]}",
        "https://docs.sentry.io/integrations/webhooks/how-to-begin/",
        "https://hooks.slack.com/services/",
        "https://host/?sort_key=a&project_key=b&public_key=c&sentry_key=d",
        f"backend@{HEX}",
        *('{"a": 1}\n{not json', '\ufeff{"a": 1}', '{"a": 1}\n\n{"a": 2}'),
        *("{not json", "[", '[1,  2, {"a": 1.50}]', '{"token": ""}', "plain", ""),
    ],
)
def test_text_without_credentials_is_unchanged(text: str) -> None:
    assert mask_credentials({"text": text}) == {"text": text}


@pytest.mark.parametrize("name", ["id", "slug", "name"])
def test_ids_slugs_and_names_are_never_masked(name: str) -> None:
    row = {name: "https://a:b@host/?token=c", "team": {name: "://hooks.a/b/c"}}
    assert mask_credentials(row) == row


def test_values_without_credentials_are_not_copied() -> None:
    row = {"options": {"a": [1, {"b": "text"}]}, "features": ["a"]}
    assert mask_credentials(row) is row
    masked = mask_credentials({**row, "token": SECRET})
    assert masked["options"] is row["options"]


def test_the_original_value_is_not_modified() -> None:
    value = {"token": SECRET, "a": [["token", SECRET], {"key": "pwd", "value": SECRET}]}
    before = json.dumps(value)
    assert SECRET not in json.dumps(mask_credentials(value))
    assert json.dumps(value) == before


holders = st.sampled_from(
    [
        {"token": SECRET},
        [["Authorization", SECRET]],
        {"key": "password", "value": SECRET},
        f"https://user:{SECRET}@host",
        f"a https://host/?api_key={SECRET} b",
        f"https://hooks.slack.com/services/T0/B0/{SECRET}",
        f"-----BEGIN PRIVATE KEY-----{SECRET}",
    ]
)
nested = st.recursive(
    holders,
    lambda inner: st.one_of(
        st.builds(lambda value: ["a", value], inner),
        st.builds(lambda value: [value, 1], inner),
        st.builds(lambda value, key: {key: value}, inner, st.sampled_from("ab")),
        inner.map(lambda value: json.dumps([value])),
    ),
    max_leaves=8,
)


@SHORT
@given(nested)
def test_no_credential_is_left_at_any_depth(value: Any) -> None:
    masked = mask_credentials(value)
    assert SECRET not in json.dumps(masked)
    assert MASK in json.dumps(masked)
    assert mask_credentials(masked) == masked


@pytest.mark.parametrize(
    "name",
    [
        "clientKey",
        "token1",
        "tokenValue",
        "webhookSecretV2",
        "passwordHash",
        "auth",
        "privateKeyPem",
        "pass",
        "jwt",
        "cookie",
    ],
)
def test_more_names_of_credentials_are_known(name: str) -> None:
    assert mask_credentials({name: "abc"}) == {name: MASK}


@pytest.mark.parametrize("name", ["compass", "oauth", "tokenCount", "author"])
def test_similar_names_are_not_credentials(name: str) -> None:
    assert mask_credentials({name: "abc"}) == {name: "abc"}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("Authorization: Bearer abcdefgh123", "Authorization: Bearer ***"),
        ("a -H 'Authorization: Basic bWU6cGE='", "a -H 'Authorization: Basic ***'"),
        ("authorization: token ab12cd", "authorization: token ***"),
        (
            "https://api.telegram.org/bot12345678:AAHdqTcvCH1vGWJxfSeofSAs0K5PALDsaw/x",
            "https://api.telegram.org/bot***/x",
        ),
        (
            "https://s3.test/x?X-Amz-Signature=abc",
            "https://s3.test/x?X-Amz-Signature=***",
        ),
    ],
)
def test_more_keys_in_text_are_masked(text: str, masked: str) -> None:
    assert mask_credentials({"doc": text}) == {"doc": masked}


def test_an_unfinished_private_key_in_long_text_is_searched_quickly() -> None:
    text = "-----BEGIN " + "PRIVATE KEY" * 100_000
    assert mask_credentials({"doc": text}) == {"doc": text}
