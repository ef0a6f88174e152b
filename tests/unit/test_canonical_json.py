"""Texts of one JSON value have one form; those of two values have two."""

from typing import Any

import pytest

from analytics_pipeline.tables.values import canonical_json

DEEP = 1_000
SAME = [
    ('{"b":1,"a":2}', '{"a": 2, "b": 1}'),
    ('{"x":{"b":[{"d":1,"c":2}]}}', '{ "x" : { "b" : [ {"c":2, "d":1} ] } }'),
    ('{"zz":1,"z":2,"é":3,"":4}', '{"": 4, "z": 2, "zz": 1, "é": 3}'),
    ('"é\\n\\u0022"', '"\\u00e9\\u000a\\""'),
    ('"\\ud83d\\udc18"', '"🐘"'),
    ("1e22", "10000000000000000000000"),
    ("[1e16,1.5e3]", "[10000000000000000, 1500]"),
    ('{"n":1.0}', '{"n": 1}'),
    ("-0.0", "0"),
    ("[-0.0,0.0,-0]", "[0, 0, 0]"),
    ("123456789012345680.0", "123456789012345680"),
    ("1e-7", "0.0000001"),
    ("[2.5e-8,0.1]", "[0.000000025, 0.10]"),
    ('{"a":1,"a":2}', '{"a":2}'),
    (f"{2**64}", f" {2**64} "),
    (
        "[" * DEEP + '{"b":1,"a":2}' + "]" * DEEP,
        "[ " * DEEP + '{"a":2, "b":1}' + "]" * DEEP,
    ),
]
SAME_NUMBERS = [
    ("1e23", "1" + "0" * 23),
    ("1.5e300", "15" + "0" * 299),
    ("-1.7976931348623157e308", "-17976931348623157" + "0" * 292),
    ('{"a":1e22,"b":1e-7}', '{"a": 10000000000000000000000, "b": 0.0000001}'),
    ("[1e22,0.00001]", "[10000000000000000000000, 0.00001]"),
]
DIFFERENT = [
    ("1", '"1"'),
    ("1", "true"),
    ("null", '"null"'),
    ("[]", "{}"),
    ("[1,2]", "[2,1]"),
    ("0.1", "0.10000000000000002"),
    (f"{2**53}", f"{2**53 + 1}"),
    (f"{2**64}", f"{2**64 + 1}"),
    ("0", "5e-324"),
    ('"a"', '"a "'),
    ('"é"', '"e\\u0301"'),
    ('{"a":null}', "{}"),
]
DIFFERENT_TEXTS = [
    ('"port:1e3"', '"port:1000"'),
    ('{"a":"x,1.0"}', '{"a":"x,1"}'),
    ('{"a":"[-0"}', '{"a":"[0"}'),
    ('{"k:1e3":1}', '{"k:1000":1}'),
]


@pytest.mark.parametrize(("one", "other"), SAME + SAME_NUMBERS)
def test_texts_of_one_value_become_the_same(one: str, other: str) -> None:
    assert canonical_json(one) == canonical_json(other)


@pytest.mark.parametrize(
    ("one", "other"),
    DIFFERENT + DIFFERENT_TEXTS,
)
def test_texts_of_two_values_stay_different(one: str, other: str) -> None:
    assert canonical_json(one) != canonical_json(other)


@pytest.mark.parametrize("text", [None, "no JSON", "", "{", "[" * 9_000])
def test_what_is_not_json_stays_as_it_is(text: Any) -> None:
    assert canonical_json(text) == text


@pytest.mark.parametrize("text", [text for pair in SAME + DIFFERENT for text in pair])
def test_the_canonical_form_is_its_own(text: str) -> None:
    once = canonical_json(text)
    assert canonical_json(once) == once
