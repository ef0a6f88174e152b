"""What the user configured, checked once, before anything is asked."""

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from dlt.common.configuration import with_config
from dlt.common.typing import TSecretStrValue

from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.errors import ConfigurationError, InsecureUrl
from analytics_pipeline.tables.values import utc

SECTION = "sources.analytics_pipeline"
BEGINNING = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Config:
    """The settings of a source, typed; nothing behind it looks at raw text again."""

    base_url: str
    auth_token: str
    organization: str
    projects: tuple[str, ...]
    is_one_project: bool
    """One project was named by itself, not in a list."""
    spec: ApiSpec
    since: datetime | None
    until: datetime | None
    lookback: timedelta
    full_events: bool
    full_refresh: bool
    rows_per_load: int | None
    workers: int
    redact: tuple[str, ...]

    def __repr__(self) -> str:
        return f"Config({self.base_url}, {self.organization}, {self.projects})"

    @property
    def server(self) -> str:
        """Scheme, host, port and path, by which bookmarks are kept apart."""
        return self.base_url + self.spec.prefix

    def projects_of(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Return the projects that have a list each; the organization's list has none."""
        return self.projects if endpoint.by_project else ("",)


def parse_config(
    *,
    base_url: str | None = None,
    auth_token: TSecretStrValue | None = None,
    organization: str | None = None,
    project: Any = None,
    api: str = "v1",
    since: Any = None,
    until: Any = None,
    full_events: bool = False,
    lookback: float = 3600.0,
    full_refresh: bool = False,
    rows_per_load: int | None = None,
    workers: int = 4,
    redact: list[str] | None = None,
    allow_http: bool = False,
) -> Config:
    """Check the arguments of `analytics_source`, which documents them.

    Raises:
        ConfigurationError: a setting is missing or makes no sense.
    """
    if api not in APIS:
        hint = get_close_matches(api, APIS)
        raise ConfigurationError(
            f"api {api!r} is not one of {', '.join(APIS)}"
            + (f"; did you mean {hint[0]!r}?" if hint else "")
        )
    spec = APIS[api]
    start, end = parse_time("since", since), parse_time("until", until)
    if end and start and start >= end:
        raise ConfigurationError(f"since ({start}) must be before until ({end})")
    if end and not start:
        start = BEGINNING
    url = required("base_url", base_url or spec.base_url, '"https://…"')
    token = required("auth_token", auth_token, file="secrets.toml")
    owner = slug("organization", required("organization", organization))
    projects = project_list(project)
    check_token(token)
    return Config(
        base_url=normalize_base_url(url, allow_http),
        auth_token=token,
        organization=owner,
        projects=tuple(slug("project", name) for name in projects),
        is_one_project=isinstance(project, str) and not is_list(project),
        spec=spec,
        since=start,
        until=end,
        lookback=parse_seconds("lookback", lookback),
        full_events=full_events,
        full_refresh=full_refresh,
        rows_per_load=None
        if rows_per_load is None
        else int(at_least("rows_per_load", rows_per_load, 1)),
        workers=int(at_least("workers", workers, 1)),
        redact=tuple(redact or ()),
    )


resolve_config = with_config(parse_config, sections=("sources", "analytics_pipeline"))
"""`parse_config`, with what is not given taken from dlt's configuration."""


def normalize_base_url(base_url: str, allow_http: bool) -> str:
    """Return the address in one form: host in lower case, no slash at its end.

    Raises:
        InsecureUrl: not a URL, or http:// to another machine without `allow_http`: the
            token must not cross a network unencrypted.
    """
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
    except ValueError:
        host = ""
    if not host or parts.scheme not in ("http", "https"):
        bare = re.sub(r"^[a-z]*:?/*", "", base_url) if "/" in base_url else base_url
        example = f"did you mean https://{bare}?" if "." in bare else "give https://…"
        raise InsecureUrl(f"base_url {base_url!r} is not an address; {example}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InsecureUrl("base_url must hold no login, query or fragment")
    if parts.scheme == "http" and not allow_http and not _is_loopback(host):
        raise InsecureUrl(
            f"base_url {base_url!r} would send the token unencrypted; use https://,"
            " or set allow_http if the network is yours"
        )
    usual_port = {"http": ":80", "https": ":443"}[parts.scheme]
    host = parts.netloc.lower().removesuffix(usual_port)
    return f"{parts.scheme}://{host}{parts.path.rstrip('/')}"


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def check_token(token: str) -> None:
    """Raise ConfigurationError where a token holds what no header takes.

    Errors about headers would show it.
    """
    if not re.fullmatch("[!-~]+", token):
        raise ConfigurationError(
            "auth_token holds a space, a line break or another character that is in"
            " no token; check how it was copied"
        )


def parse_seconds(setting: str, value: float) -> timedelta:
    """Return the span of time that is so many seconds long."""
    seconds = at_least(setting, value, 0)
    try:
        return timedelta(seconds=seconds)
    except (OverflowError, ValueError):
        raise ConfigurationError(f"{setting} {value} is no number of seconds") from None


def at_least(setting: str, value: float, least: int) -> float:
    """Return the number, if it is not too small."""
    if value < least:
        raise ConfigurationError(
            f"{setting} {value} is too small: {least} is the least"
        )
    return value


def required(
    name: str, value: str | None, example: str = '"…"', file: str = "config.toml"
) -> str:
    """Return the setting, or say where it can be set."""
    if value:
        return value
    raise ConfigurationError(
        f"{name} is missing: put `{name} = {example}` into .dlt/{file} (at the top or"
        f" under [{SECTION}]), or set the environment variable {name.upper()}"
    )


def project_list(project: Any) -> list[str]:
    """Return one slug, several, or those of the JSON list in an environment variable."""
    if isinstance(project, str) and is_list(project):
        try:
            project = json.loads(project)
        except ValueError:
            raise ConfigurationError(
                f"project {project!r} is neither a slug nor a list of slugs"
            ) from None
    if isinstance(project, str | None):
        return [required("project", project)]
    names = list(project) if isinstance(project, Iterable) else []
    if not names or not all(isinstance(name, str) for name in names):
        raise ConfigurationError(
            f"project must be one slug or several, not {project!r}"
        )
    return list(dict.fromkeys(names))


def is_list(text: str) -> bool:
    """Tell whether a text is a JSON list."""
    return text.lstrip().startswith("[")


def slug(setting: str, value: str) -> str:
    """Return the slug, if it can be one."""
    # Quoting keeps every other text in its place of the URL; dots are not quoted.
    if value.strip() in ("", ".", ".."):
        raise ConfigurationError(f"{setting} {value!r} is not a slug")
    return value


def parse_time(setting: str, value: Any) -> datetime | None:
    """Return the time that ISO text, a date or a datetime says; UTC without zone."""
    if value in (None, ""):
        return None
    try:
        return utc(datetime.fromisoformat(str(value).strip()))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{setting} {value!r} is not a time; write it as 2026-11-30 or"
            " 2026-11-30T12:00:00Z"
        ) from None
