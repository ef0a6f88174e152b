"""Secrets are replaced however they are quoted, and ordinary words are not."""

import html
import json
import logging
import re
from urllib.parse import quote, quote_plus

import pytest

from analytics_pipeline.errors import ApiError, Unreachable, shortened
from analytics_pipeline.secrets import (
    MASK,
    hide,
    hide_sent,
    mask_error,
    mask_record,
    masked,
    masked_answer,
)

SECRET = "a\"b<c>&d+e/f g'h%é"


@pytest.mark.parametrize(
    "quoted",
    [
        str,
        repr,
        json.dumps,
        html.escape,
        quote,
        quote_plus,
        lambda text: quote(quote(text, safe=""), safe=""),
        lambda text: json.dumps(json.dumps(text)),
        lambda text: text.replace("/", r"\/").replace("+", r"\u002B"),
        lambda text: text.replace("/", "&#x2F;").replace("+", "&#43;"),
        str.upper,
    ],
)
def test_a_secret_is_masked_in_any_quoting(quoted) -> None:  # type: ignore[no-untyped-def]
    hide(SECRET)
    text = f"before {quoted(SECRET)} behind"
    assert re.sub("""["'\\\\]""", "", masked(text)) == f"before {MASK} behind"


def test_secrets_are_masked_in_all_spellings_of_json() -> None:
    hide_sent("abc/def+ghi=")
    rows = rb'["abc\/def+ghi=", "abc/def\u002Bghi\u003d", "abc\u002fdef+ghi="]'
    assert masked_answer(rows) == b'["***", "***", "***"]'


def test_a_secret_within_a_longer_one_leaves_no_rest() -> None:
    hide("abcd-1", "abcd-1-efgh")
    assert masked("abcd-1-efgh abcd-1") == "*** ***"


@pytest.mark.parametrize("value", ["", None, 12345678, b"abcdefgh1"])
def test_only_text_is_hidden(value: object) -> None:
    hide(value)
    assert masked("abc 12345678 b'abcdefgh1'") == "abc 12345678 b'abcdefgh1'"


@pytest.mark.parametrize("word", ["postgres", "token", "abc", "x1"])
def test_a_secret_that_is_a_word_is_masked_as_a_login_only(word: str) -> None:
    hide_sent(word)
    text = f"DESTINATION__{word} ://me:{{}}@host?password={{}} {word.upper()} -{word}-"
    assert masked(text.format(word, word)) == text.format("***", "***")
    assert masked_answer(word.encode()) == word.encode()


def test_values_are_masked_at_any_depth() -> None:
    hide("hunter2")
    value = [{"a-hunter2": ("hunter2", 1)}, None]
    assert masked(value) == [{"a-***": ("***", 1)}, None]


def test_only_what_was_sent_is_masked_in_answers() -> None:
    hide("password")
    hide_sent("sent-secret", "short")
    body = b'{"a": "password", "b": "short sent-secret"}'
    assert masked_answer(body) == b'{"a": "password", "b": "short ***"}'


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("no hunter2"),
        ApiError("no").about("hunter2", "hunter2"),
    ],
)
def test_an_error_of_the_package_holds_no_secret(error: Exception) -> None:
    hide("hunter2")
    made = type(error)(str(error))
    assert "hunter2" not in f"{made} {made!r} {made.args} {shortened(str(error), 8)}"


def test_a_library_error_is_masked_with_its_causes_and_file_name() -> None:
    hide("hunter2")
    outer = ValueError("outer", OSError("hunter2"))
    outer.__cause__ = OSError(2, "no hunter2", "/hunter2/a")
    outer.__context__ = outer.__cause__.__context__ = outer
    mask_error(outer)
    assert "hunter2" not in str(outer)
    assert str(outer.__cause__) == "[Errno 2] no ***: '/***/a'"


def test_a_log_line_is_masked_with_its_traceback() -> None:
    hide("hunter2")
    try:
        raise ValueError("no hunter2")
    except ValueError as error:
        found = (type(error), error, error.__traceback__)
    record = logging.LogRecord("a", 10, "f", 1, "said %s", ("hunter2",), found)
    assert mask_record(record)
    shown = logging.Formatter().format(record)
    assert shown.startswith("said ***\n")
    assert "ValueError: no ***" in shown
    assert "hunter2" not in f"{shown} {vars(record)}"


def test_a_log_line_without_a_secret_stays_as_it_is() -> None:
    hide("hunter2")
    record = logging.LogRecord("a", 10, "f", 1, "said %s", ("it",), None)
    before = {**vars(record)}
    assert mask_record(record)
    assert vars(record) == before
