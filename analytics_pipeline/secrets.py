"""The secrets that this process has read, and how to mask them in text.

Servers, proxies and drivers repeat secrets in answers, errors and log lines. So code that
reads a secret calls `hide`, and every error and log line is masked.
"""

import html
import json
import logging
import re
import threading
from typing import Any, NamedTuple

MASK = "***"
SHORTEST = 6
WORD = 12
"""Characters. A secret below `SHORTEST`, or of letters alone and below `WORD`, such as the
password `postgres`, may be an ordinary word, so it is masked only in `user:password@`."""


class _Form(NamedTuple):
    """How a secret may look."""

    pattern: str
    core: str
    """The longest part that is never quoted; searching for it first is fast."""


_PLAIN = "[A-Za-z0-9._~-]"
"""Characters that are never quoted."""
_hidden: tuple[_Form, ...] = ()
_sent: frozenset[_Form] = frozenset()
_lock = threading.Lock()


def hide(*secrets: Any) -> None:
    """Let `masked` replace these texts in any quoting; values of other types are ignored."""
    global _hidden
    forms = {form for text in secrets for form in _forms(text)}
    with _lock:
        if not forms <= {*_hidden}:
            # The longest first, because it may contain another.
            _hidden = tuple(sorted({*_hidden, *forms}, key=lambda f: -len(f.pattern)))


def hide_sent(*secrets: str) -> None:
    """Hide secrets that are sent to the server, also in its answers."""
    global _sent
    hide(*secrets)
    with _lock:
        _sent = _sent.union(*map(_forms, secrets))


def masked(value: Any) -> Any:
    """Return text with `***` for each secret, also within lists and dicts."""
    if isinstance(value, str):
        lower = value.lower()
        for pattern, core in _hidden:
            if core.lower() in lower:
                value = re.sub(pattern, MASK, value, flags=re.IGNORECASE)
        return value
    if isinstance(value, dict):
        return {masked(key): masked(item) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(masked, value))
    return value


def masked_answer(body: bytes) -> bytes:
    """Return the body of an answer with `***` for each secret that was sent."""
    for pattern, core in _sent:
        if core.encode() in body:
            body = re.sub(pattern.encode(), MASK.encode(), body, flags=re.IGNORECASE)
    return body


def mask_error(error: BaseException | None) -> None:
    """Mask a library's error and its causes."""
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
        if isinstance(each, OSError) and each.strerror:  # its text has these, not args
            each.strerror, each.filename = masked([each.strerror, each.filename])


def mask_record(record: logging.LogRecord) -> bool:
    """Mask a log line; return True, as a filter that keeps all lines."""
    text, trace = record.getMessage(), record.exc_text
    if record.exc_info:
        trace = logging.Formatter().formatException(record.exc_info)
    if masked(text) != text:
        record.msg, record.args = masked(text), ()
    if masked(trace) != trace:
        record.exc_info, record.exc_text = None, masked(trace)
    return True


def _forms(text: Any) -> list[_Form]:
    """Return how a secret may look; an ordinary word only as a login."""
    if not isinstance(text, str) or not text:
        return []
    form = _form(text)
    if (text.isalpha() and len(text) < WORD) or len(text) < SHORTEST:
        login = f"(?<=:){form.pattern}(?=@)|(?<=password=){form.pattern}"
        return [form._replace(pattern=login)]
    return [form]


def _form(text: str) -> _Form:
    core = max(re.findall(f"{_PLAIN}+", text), key=len, default="")
    return _Form("".join(map(_in_all_forms, text)), core)


def _in_all_forms(sign: str) -> str:
    """Return a pattern of a character as such and as URLs, JSON, HTML and Python quote it."""
    if re.fullmatch(_PLAIN, sign):
        return re.escape(sign)
    code = ord(sign)
    forms = {sign, html.escape(sign), json.dumps(sign)[1:-1], repr(sign)[1:-1]}
    patterns = [
        *map(re.escape, forms | {"+"} if sign == " " else forms),
        "".join(f"%(?:25){{0,3}}{byte:02x}" for byte in sign.encode()),
        rf"\\u{code:04x}",
        f"&#0{{0,3}}{code};",
        f"&#x0{{0,3}}{code:x};",
    ]
    return rf"\\{{0,3}}(?:{'|'.join(patterns)})"
