"""Configured paths and credentials are masked; everything else is kept."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from analytics_pipeline.secrets import MASK
from analytics_pipeline.tables import redaction
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.redaction import Redacted, Redactor
from analytics_pipeline.values import dumps, loads
from tests.unit.profiles import SHORT

# A path


def redact(value: Any, path: list[str]) -> Any:
    return redaction.redact(value, path, [])


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
        ("user.email", {"user": {"Email": "x"}}, {"user": {"Email": "x"}}),
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
            {"list": [{"ip": 1}, {"b": 2}, 3, [{"ip": 4}]]},
            {"list": [{"ip": MASK}, {"b": 2}, 3, [{"ip": MASK}]]},
        ),
    ],
)
def test_a_path_names_what_is_redacted(
    path: str, value: dict[str, Any], redacted: dict[str, Any]
) -> None:
    assert redact(value, path.split(".")) == redacted


@pytest.mark.parametrize("name", ["key", "name"])
@pytest.mark.parametrize(
    ("path", "first", "second"),
    [
        ("tags.user.email", MASK, "linux"),
        ("tags.os", "a@b.example", MASK),
        ("tags.*", MASK, MASK),
        ("tags.value", MASK, MASK),
        ("tags.user", "a@b.example", "linux"),
        ("tags.OS", "a@b.example", "linux"),
    ],
)
def test_a_path_can_continue_with_the_key_of_a_tag(
    name: str, path: str, first: str, second: str
) -> None:
    tags = [
        {name: "user.email", "value": "a@b.example"},
        {name: "os", "value": "linux"},
    ]
    result = redact({"tags": tags}, path.split("."))["tags"]
    assert [tag["value"] for tag in result] == [first, second]
    assert [tag[name] for tag in result] == ["user.email", "os"]


def test_a_query_that_repeats_a_masked_tag_is_masked() -> None:
    tag = {"key": "user", "value": "id:5", "query": 'user.id:"5"'}
    masked = [{"key": "user", "value": MASK, "query": MASK}]
    assert redact({"tags": [tag]}, ["tags", "user"]) == {"tags": masked}


@pytest.mark.parametrize(
    ("path", "masked"),
    [
        ("headers.Authorization", ["Authorization"]),
        ("headers.authorization", []),
        ("headers.X.Request", ["X.Request"]),
        ("headers.*", ["Authorization", "X.Request", "Host"]),
        ("headers.a.example", []),
        ("headers", None),
    ],
)
def test_a_path_can_continue_with_the_name_of_a_pair(
    path: str, masked: list[str] | None
) -> None:
    headers = [["Authorization", "Basic x"], ["X.Request", "5"], ["Host", "a.example"]]
    expected = [[name, MASK if name in (masked or ()) else v] for name, v in headers]
    result = redact({"headers": headers}, path.split("."))
    assert result == {"headers": MASK if masked is None else expected}


def test_a_header_of_a_request_is_found_in_an_events_entries() -> None:
    entries = [
        {"type": "message", "data": {"formatted": "x"}},
        {"type": "request", "data": {"headers": [["Authorization", "x"], ["A", "y"]]}},
    ]
    path = ["entries", "data", "headers", "Authorization"]
    result = redact({"entries": entries}, path)["entries"]
    assert result[0] is entries[0]
    assert result[1]["data"] == {"headers": [["Authorization", MASK], ["A", "y"]]}


@pytest.mark.parametrize(
    "pair", [["user", "VALUE"], {"key": "user", "value": "VALUE"}], ids=["list", "dict"]
)
@pytest.mark.parametrize("path", ["pairs.user.email", "pairs.*.email"])
def test_a_path_can_continue_after_the_name_of_a_pair(pair: Any, path: str) -> None:
    def pairs(value: Any) -> Any:
        text = json.dumps([pair]).replace('"VALUE"', json.dumps(value))
        return {"pairs": json.loads(text)}

    given = pairs([{"email": "x", "a": 1}, 2])
    assert redact(given, path.split(".")) == pairs([{"email": MASK, "a": 1}, 2])


def test_lists_of_two_that_are_not_pairs_are_kept() -> None:
    for value in ([[1, "x"], ["a"], ["a", "b", "c"], []], ["a", "b"]):
        assert redact({"lines": value}, ["lines", "a"]) == {"lines": value}


def test_a_path_can_continue_inside_json_text() -> None:
    inner = json.dumps({"email": "x", "deep": [["email", "y"]]})
    text = json.dumps({"user": {"email": "x", "a": 1}, "more": inner})
    result = redact({"data": text}, ["data", "user", "email"])["data"]
    assert result.startswith('{"user":{"email":"***","a":1},"more":')
    result = redact({"data": text}, ["data", "more", "deep", "email"])["data"]
    more = json.loads(json.loads(result)["more"])
    assert more == {"email": "x", "deep": [["email", MASK]]}


@pytest.mark.parametrize("text", ['{"a":  1}', "{broken", "[", '"email"', "email", ""])
def test_text_without_a_match_is_unchanged(text: str) -> None:
    assert redact({"data": text}, ["data", "email"]) == {"data": text}


def test_the_original_value_is_not_modified() -> None:
    value = {
        "user": {"email": "x"},
        "tags": [["email", "x"], {"key": "email", "value": 1}],
    }
    before = json.dumps(value)
    for path in ("user.email", "tags.email", "*.email"):
        assert redact(value, path.split(".")) != value
    assert json.dumps(value) == before


def test_values_that_do_not_match_are_not_copied() -> None:
    value = {"user": {"email": "x"}, "tags": [["a", "b"]], "text": '{"b": 1}'}
    for path in ("a.b", "user.name", "tags.b", "text.a", "*.none"):
        assert redact(value, path.split(".")) is value
    assert redact(value, ["user", "email"])["tags"] is value["tags"]


steps = st.lists(
    st.tuples(
        st.sampled_from(["key", "pair", "tag", "named"]),
        st.sampled_from(["a", "b.c", "A", "é"]),
        st.sampled_from(["plain", "text", "list", "lists"]),
    ),
    min_size=1,
    max_size=5,
)


def built(steps: list[tuple[str, str, str]], value: Any) -> Any:
    """Return a nested value with `value` at the path of the steps."""
    for kind, name, form in reversed(steps):
        match kind:
            case "pair":
                value = [["other", 1], [name, value]]
            case "tag":
                value = [{"key": name, "value": value}]
            case "named":
                value = [{"name": name, "value": value}, 5]
            case _:
                value = {"other": "x", name: value}
        match form:
            case "text":
                value = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
            case "list" | "lists":
                value = [None, value, "x"] if form == "list" else [[[value]]]
    return value


@SHORT
@given(steps, st.booleans())
def test_a_path_finds_its_value_at_any_depth(
    steps: list[tuple[str, str, str]], star: bool
) -> None:
    names = [name for _, name, _ in steps]
    path = ".".join([*names[:-1], "*" if star else names[-1]]).split(".")
    result = json.dumps(redact(built(steps, "s3cret"), path))
    assert "s3cret" not in result
    if not star:
        assert result == json.dumps(built(steps, MASK))


# A page


@pytest.mark.parametrize("table", ["projects", "project_detail"])
def test_credentials_of_projects_are_masked_by_default(table: str) -> None:
    rows = [{"id": "1", "securityToken": "s3cret"}]
    page = Redactor([]).clean_all(TABLES[table], rows)
    assert page == Redacted(
        [{"id": "1", "securityToken": MASK}], frozenset(), frozenset()
    )


@pytest.mark.parametrize("table", ["events", "issues", "releases"])
def test_other_tables_are_unchanged_without_paths(table: str) -> None:
    rows = [{"id": "1", "token": "a word"}]
    page = Redactor([]).clean_all(TABLES[table], rows)
    assert page.records is rows
    assert page == Redacted(rows, frozenset(), frozenset())


def test_only_the_named_paths_of_events_are_masked() -> None:
    row = {"id": "1", "token": "a word", "user": {"email": "a@b.example", "id": 5}}
    page = Redactor(["user.email", "user.ip_address"]).clean_all(
        TABLES["events"], [row]
    )
    assert page.records == [{**row, "user": {"email": MASK, "id": 5}}]
    assert page.matched == {"user.email"}


def test_a_path_matches_if_one_row_has_its_field_even_as_null() -> None:
    rows: list[dict[str, Any]] = [{"user": None}, {"user": {"email": None}}]
    page = Redactor(["user.email", "user.name"]).clean_all(TABLES["events"], rows)
    assert page.records == rows
    assert page.matched == {"user.email"}
    assert page.unmatched == {"user.name"}


@pytest.mark.parametrize("order", [1, -1])
def test_two_paths_match_if_one_contains_the_other(order: int) -> None:
    paths = ["user", "user.email", "*"][::order]
    page = Redactor(paths).clean_all(TABLES["events"], [{"user": {"email": "x"}}])
    assert page == Redacted([{"user": MASK}], frozenset({*paths}), frozenset())


def test_a_path_into_a_masked_credential_matches() -> None:
    rows = [{"id": "1", "options": {"credentials": {"user": "x", "b": 1}}}]
    page = Redactor(["options.credentials.user"]).clean_all(TABLES["projects"], rows)
    masked = [{"id": "1", "options": {"credentials": MASK}}]
    path = frozenset({"options.credentials.user"})
    assert page == Redacted(masked, path, frozenset())


@pytest.mark.parametrize(
    ("path", "tables"),
    [
        ("user.email", {"events"}),
        ("event.type", {"events"}),
        ("culprit", {"events", "issues"}),
        ("authors.email", {"releases"}),
        ("nothing.email", {"events", "issues", "releases", "projects"}),
        ("*.email", {"events", "issues", "releases", "projects"}),
    ],
)
def test_a_path_is_unmatched_only_in_tables_that_have_its_field(
    path: str, tables: set[str]
) -> None:
    redactor = Redactor([path])
    for table in ("events", "issues", "releases", "projects"):
        unmatched = redactor.clean_all(TABLES[table], [{"id": "1"}]).unmatched
        assert unmatched == ({path} if table in tables else set())
        assert redactor.clean_all(TABLES[table], []) == ([], frozenset(), frozenset())


def test_a_path_is_followed_in_tables_that_do_not_declare_its_field() -> None:
    page = Redactor(["user.email"]).clean_all(
        TABLES["issues"], [{"user": {"email": "x"}}]
    )
    masked = [{"user": {"email": MASK}}]
    assert page == Redacted(masked, frozenset({"user.email"}), frozenset())


# Deep rows


@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}")])
@pytest.mark.parametrize("depth", [300, 600, 2000])
def test_deeply_nested_json_text_hides_no_credential(
    opening: str, closing: str, depth: int
) -> None:
    deep = opening * depth + '{"token": "s3cret", "b": 1}' + closing * depth
    for text in (deep, f"{{}}\n{deep}"):
        row = {"options": text}
        page = Redactor(["x.y"]).clean_all(TABLES["projects"], [row])
        assert "s3cret" not in dumps(page.records).decode()
        assert MASK in page.records[0]["options"]


def test_a_path_is_followed_into_deep_lists() -> None:
    deep = loads(("[" * 300 + '{"email": "x"}' + "]" * 300).encode())[0]
    page = Redactor(["user.email"]).clean_all(TABLES["events"], [{"user": deep}])
    assert dumps(page.records).count(MASK.encode()) == 1
