"""Masking of credentials, recognized by their name or their form."""

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from analytics_pipeline.secrets import MASK
from analytics_pipeline.values import dumps, loads

_NAMED_BY = ("key", "name", "id", "label", "field", "type")
_VALUES = ("value", "defaultValue", "default_value", "default")
"""Fields that hold the value of a pair, as in the fields of a form."""
_BEFORE_JSON = "\N{BYTE ORDER MARK} \t\r\n"
_Container = TypeVar("_Container", list[Any], dict[str, Any])

# By the end of the name: `securityToken`, `sentry:token`, `X-Api-Key`, `secret_keys`;
# but not `publicKey`, `project_key`, `tokenCount` or `securityTokenHeader`.
_NAME = (
    r"(?:tokens?|passwords?|passwd|pwd|passphrases?|secrets?|credentials?|authorization"
    r"|jwt|cookies?"
    r"|(?:api|private|access|auth|signing|encryption|secret|service|integration|client)"
    r"[-_ .:]?keys?)"
)
_CREDENTIAL = re.compile(
    rf"(?:{_NAME}(?:[-_ .]?(?:value|hash|pem|v?\d+))?|^auth|^pass)\s*$", re.IGNORECASE
)
# The group "keep" is kept, the rest of a match is masked.
_IN_TEXT = (
    re.compile(
        r"(?P<keep>)-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z ]{0,40}-----.*?(-----END [^-]*-----|\Z)",
        re.DOTALL,
    ),
    # https://user:password@host, also in a DSN
    re.compile(r'(?P<keep>://[^\s/?#:@"<>]*:)[^\s/?#"<>]+(?=@)'),
    # Authorization: Bearer …
    re.compile(r"(?P<keep>\bBearer\s+)[\w.~+/=-]{8,}", re.IGNORECASE),
    # Authorization: Basic …
    re.compile(
        r"(?P<keep>\bAuthorization[\"']?\s*[:=]\s*[\"']?\w+\s+)[\w.~+/=-]{4,}",
        re.IGNORECASE,
    ),
    # https://api.telegram.org/bot…/
    re.compile(r"(?P<keep>/bot)\d{5,}:[\w-]{20,}"),
    # https://host/?key=…
    re.compile(
        rf"(?P<keep>[?&;#](?:[\w.%\[\]-]*{_NAME}|key|sig|[\w-]*signature)=)[^\s&#\"'<>)`\\]+",
        re.IGNORECASE,
    ),
)
_URL = re.compile(r"://[^\s\"'<>)`\\]+")
# Part of the URL of a web hook: `hooks.slack.com`, `/api/hooks/`, `/webhookb2/`.
_HOOK = re.compile(r"[/.][\w-]*hooks?(?:b2)?(?=[/.])", re.IGNORECASE)
_KEY_SEGMENT = re.compile(
    r"(?<=/)(?:[\da-f]{32}[^/?#]*|(?=[^/?#]*\d)(?=[^/?#]*[a-z])[^/?#]{16,})",
    re.IGNORECASE,
)
_LAST_SEGMENT = re.compile(r"(?P<keep>^[^/]*/[^?#]*/)[^/?#]+")


def mask_credentials(value: Any) -> Any:
    """Return the value with `***` for every credential in it, at any depth.

    Credentials are values under a name such as `token`, also in pairs of name and value;
    and, in text, private keys in PEM form, passwords and keys in URLs, and the secret
    part of web-hook URLs. JSON inside text is searched as well, because Sentry stores
    symbol sources like that. A value without credentials is returned without copying.
    """
    if isinstance(value, str):
        masked = mask_json_text(value, mask_credentials)
        return _mask_text(value) if masked is None else masked
    changes: dict[Any, Any] = {}
    if isinstance(value, dict):
        names = [value[name] for name in _NAMED_BY if isinstance(value.get(name), str)]
        for key, item in value.items():
            if _is_credential(names if key in _VALUES else [key]):
                changes[key] = _mask_unless_empty(item)
            elif key not in ("id", "slug", "name") or not isinstance(item, str):
                changes[key] = mask_credentials(item)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            if isinstance(item, list) and _is_credential(pair_names(item)):
                changes[index] = updated(item, {1: _mask_unless_empty(item[1])})
            else:
                changes[index] = mask_credentials(item)
    return updated(value, changes)


def pair_names(item: Any) -> list[str]:
    """Return the names of a pair; none where the item is not a pair of name and value.

    Pairs are `["Accept", "*/*"]`, as request headers are sent, `{"key": …, "value": …}`,
    as tags are, and `{"name": …, "value": …}`.
    """
    names: list[Any] = []
    if isinstance(item, list) and len(item) == 2:
        names = item[:1]
    elif isinstance(item, dict) and "value" in item:
        names = [item.get("key"), item.get("name")]
    return [name for name in names if isinstance(name, str)]


def mask_json_text(text: str, mask: Callable[[Any], Any]) -> str | None:
    """Return JSON text, or lines of JSON, with masked values; None for other text.

    Text that is nested too deeply to be searched is masked as a whole.
    """
    body = text.lstrip(_BEFORE_JSON)
    if body[:1] not in ("{", "["):
        return None
    try:
        content = loads(body.encode())[0]
        masked = mask(content)
        return text if masked is content else dumps(masked).decode()
    except RecursionError:
        return MASK
    except ValueError:
        return _mask_lines(text, mask) if "\n" in text.strip() else None


def _mask_lines(text: str, mask: Callable[[Any], Any]) -> str | None:
    lines = [
        mask_json_text(line, mask) if line.strip() else line
        for line in text.split("\n")
    ]
    masked = "\n".join(line or "" for line in lines)
    return None if None in lines else text if masked == text else masked


def updated(value: _Container, changes: Mapping[Any, Any]) -> _Container:
    """Return a copy with the changed items, or the value itself if nothing changed."""
    changed = {key: item for key, item in changes.items() if item is not value[key]}
    if not changed:
        return value
    copy = value.copy()
    for key, item in changed.items():
        copy[key] = item
    return copy


def _is_credential(names: list[str]) -> bool:
    return any(_CREDENTIAL.search(name) for name in names)


def _mask_unless_empty(value: Any) -> Any:
    """Return the mask, or the value if it is empty or a boolean."""
    return value if isinstance(value, bool) or value in (None, "", [], {}) else MASK


def _mask_text(text: str) -> str:
    masked = text
    for pattern in _IN_TEXT:
        masked = pattern.sub(rf"\g<keep>{MASK}", masked)
    masked = _URL.sub(_mask_hook, masked)
    return text if masked == text else masked


def _mask_hook(match: re.Match[str]) -> str:
    """Mask segments of a web-hook URL that look like keys; on `hooks.…`, the last one."""
    url = match[0]
    hook = _HOOK.search(url)
    if not hook:
        return url
    path = _KEY_SEGMENT.sub(MASK, url[hook.end() :])
    if url.startswith("://hooks."):
        path = _LAST_SEGMENT.sub(rf"\g<keep>{MASK}", path)
    return url[: hook.end()] + path
