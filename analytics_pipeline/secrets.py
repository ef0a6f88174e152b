"""The secrets that this process has read, and text without them.

Servers, proxies and drivers repeat what they were sent: in answers, errors and log
lines. So whoever reads a secret hides it here, and every error and log line is masked.
"""

import html
import json
import logging
import re
import threading
from typing import Any
from urllib.parse import quote, quote_plus

MASK = "***"
SHORTEST = 4
"""Characters; a shorter secret would be found in ordinary words."""
UNMISTAKABLE = 8
"""Characters; in answers, which may hold anything, a shorter one may be something else."""

_forms: tuple[str, ...] = ()
_sent: tuple[bytes, ...] = ()
_lock = threading.Lock()


def hide(*secrets: Any) -> None:
    """Let `masked` replace these texts, however they are quoted; other values are none."""
    global _forms
    forms = {form for text in secrets for form in _quoted(text)}
    with _lock:
        if not forms <= {*_forms}:
            _forms = tuple(sorted({*_forms, *forms}, key=len, reverse=True))


def hide_sent(*secrets: str) -> None:
    """Hide what is sent to the server, in its answers as well."""
    global _sent
    hide(*secrets)
    forms = {
        each for text in secrets for each in _quoted(text) if len(text) >= UNMISTAKABLE
    }
    with _lock:
        _sent = tuple({*_sent, *(form.encode() for form in forms)})


def masked(value: Any) -> Any:
    """Return text with `***` for each secret, also inside of lists and dicts."""
    if isinstance(value, str):
        for form in _forms:
            value = re.sub(re.escape(form), MASK, value, flags=re.IGNORECASE)
        return value
    if isinstance(value, dict):
        return {masked(key): masked(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(masked, value))
    return value


def masked_answer(body: bytes) -> bytes:
    """Return the body of an answer with `***` for each secret that was sent."""
    for form in _sent:
        body = body.replace(form, MASK.encode())
    return body


def mask_error(error: BaseException | None) -> None:
    """Mask an error of a library, and what it came from."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        todo += [each.__cause__, each.__context__]
        todo += [arg for arg in each.args if isinstance(arg, BaseException)]
        each.args = masked(each.args)


def mask_record(record: logging.LogRecord) -> bool:
    """Mask a log line; as a filter, it lets all of them pass."""
    text, trace = record.getMessage(), record.exc_text
    if record.exc_info:
        trace = logging.Formatter().formatException(record.exc_info)
    if masked(text) != text:
        record.msg, record.args = masked(text), ()
    if masked(trace) != trace:
        record.exc_info, record.exc_text = None, masked(trace)
    return True


def _quoted(text: Any) -> set[str]:
    """Return a secret as it is, and as URLs, JSON, HTML and Python show it."""
    if not isinstance(text, str) or len(text) < SHORTEST:
        return set()
    in_urls = {
        quote(text),
        quote(text, safe=""),
        quote(text, safe=" +"),
        quote_plus(text),
    }
    in_json = {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1]}
    return {text, *in_urls, *in_json, html.escape(text), repr(text)[1:-1]}
