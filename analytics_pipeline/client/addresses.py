"""The address of a server, and slugs of organizations and projects."""

import re
from urllib.parse import urlsplit

from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.client.session import is_loopback
from analytics_pipeline.errors import ConfigurationError

REGIONS = ("us", "de", "www")
"""Hosts of sentry.io that are not named after an organization."""


def normalize_base_url(base_url: str, allow_http: bool, prefix: str = "") -> str:
    """Return the address with its host in lower case, and no slash or prefix at its end.

    `prefix` is that of the API's paths, which users copy along with the address.

    Raises:
        ConfigurationError: not an address; or it ends with the prefix of another API; or
            it would send the token unencrypted to another machine without `allow_http`.
    """
    base_url = base_url.strip()
    if "@" in base_url:  # other errors would show the login
        raise ConfigurationError("base_url must not contain a login")
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        is_good = parts.port != 0 and not re.search(r"[\s,;]", parts.netloc)
    except ValueError:  # no port, no address
        is_good = False
    if not is_good or not host or parts.scheme not in ("http", "https"):
        bare = re.sub(r"^[a-z]*:?/*", "", base_url) if "/" in base_url else base_url
        example = f"did you mean https://{bare}?" if "." in bare else "use https://…"
        raise ConfigurationError(f"base_url {base_url!r} is not an address; {example}")
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url must not contain a query or fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ConfigurationError(
            f"base_url {base_url!r} would send the token unencrypted; use https://,"
            " or set allow_http if you trust the network"
        )
    usual_port = {"http": ":80", "https": ":443"}[parts.scheme]
    host = parts.netloc.lower().removesuffix(usual_port)
    path = parts.path.rstrip("/").removesuffix(prefix).rstrip("/")
    others = [name for name, spec in APIS.items() if path.endswith(spec.prefix)]
    if prefix and others:
        raise ConfigurationError(
            f"base_url {base_url!r} belongs to api {' or '.join(map(repr, others))}; set"
            " api accordingly, or remove the path"
        )
    return f"{parts.scheme}://{host}{path}"


def organization_slug(value: str) -> str:
    """Return the slug of an organization from a slug or a web address."""
    if "/" not in value and not value.endswith(".sentry.io"):
        return slug("organization", value)
    try:
        parts = urlsplit(value if "://" in value else f"https://{value}")
    except ValueError:
        raise ConfigurationError(f"organization {value!r} is not a slug") from None
    words = [word for word in parts.path.split("/") if word]
    if "organizations" in words:
        words = words[words.index("organizations") + 1 :]
    elif words[:1] == ["settings"]:  # elsewhere it is a page of GlitchTip
        words = words[1:]
    name, _, domain = (parts.hostname or "").partition(".")
    if domain == "sentry.io" and name not in REGIONS:
        words = [name]
    return slug("organization", "".join(words[:1]))


def slug(setting: str, value: str) -> str:
    """Return the slug, checked."""
    # URL quoting makes any other text safe, but does not quote dots.
    if value.strip() in ("", ".", ".."):
        raise ConfigurationError(f"{setting} {value!r} is not a slug")
    return value
