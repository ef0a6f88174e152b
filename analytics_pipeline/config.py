"""What the user configured, checked once, before anything is asked."""

import inspect
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from dlt.common.configuration import with_config
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.doc import CustomLoaderDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.typing import TSecretStrValue, TSecretValue

from analytics_pipeline.bookmarks import EARLIEST, earlier
from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.client.session import is_loopback
from analytics_pipeline.errors import (
    ConfigurationError,
    did_you_mean,
)
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import PROJECT_SLUG, Table, column_name
from analytics_pipeline.values import utc

REGIONS = ("us", "de", "www")
"""Hosts of sentry.io that are not named after an organization."""
SOURCE = "analytics"
SECTIONS = ("sources", "analytics_pipeline", SOURCE)
"""dlt looks into the innermost first, then above it, and into `sources.analytics`."""
SECTION = ".".join(SECTIONS[:2])
ROW_FORMATS = ("auto", "arrow", "python")
OWN_HEADERS = (
    *("authorization", "host", "content-length", "accept-encoding", "expect"),
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
    "transfer-encoding",
)
"""Headers of each request that the package sets, and those that are of a connection.

Not Proxy-Authorization: what comes as a header of the request goes, encrypted, to the
server, and Google's Identity-Aware Proxy takes its token from there.
"""
UNITS = {"h": "hours", "d": "days", "w": "weeks"}
_NO_PATH = re.compile(r"""[,;|=()\[\]{}"'`\\]|^[$/]""")
"""What is in lists, in other notations of paths, and in no name of a field."""
_IN_ENVIRONMENT = re.compile(
    r"(?:.+__)?SOURCES__ANALYTICS_PIPELINE__(?:ANALYTICS__)?((?:(?!__).)+)"
)
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
LONGEST = timedelta(days=365_250).total_seconds()
"""Seconds: a thousand years."""
MOST_WORKERS = 1000
if TYPE_CHECKING:
    Span = Any
else:
    Span = str
"""A span of time as text, or a number of seconds; dlt reads no union of types."""


@dataclass(frozen=True)
class Config:
    """The settings of a source, typed; nothing behind it looks at raw text again."""

    base_url: str
    auth_token: str
    headers: Mapping[str, str]
    organization: str
    projects: tuple[str, ...]
    spec: ApiSpec
    since: datetime | None
    until: datetime | None
    lookback: timedelta
    full_events: bool
    full_refresh: bool
    rows_per_load: int | None
    history: bool
    sweep: timedelta | None
    """How old the last reading of all issues may be; None: as old as it likes."""
    workers: int
    redact: tuple[str, ...]
    tables: Mapping[str, Table]
    """With the columns that the user has asked for, and without those left out."""
    row_format: str

    def __repr__(self) -> str:
        return f"Config({self.base_url}, {self.organization}, {self.projects})"

    @property
    def sweeps_now(self) -> bool:
        """All issues are to be read again, whenever that was done last."""
        return self.sweep == timedelta()

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
    lookback: Span = 3600.0,
    full_refresh: bool = False,
    rows_per_load: int | None = None,
    workers: int = 4,
    redact: str | list[str] | None = None,
    allow_http: bool = False,
    history: bool = False,
    sweep: Span = "1d",
    tags: str | list[str] | None = None,
    exclude: str | list[str] | None = None,
    row_format: str = "auto",
    headers: TSecretValue = None,
    needs_project: bool = True,
) -> Config:
    """Check the arguments of `analytics_source`, which documents them.

    Without `needs_project`, only lists of the organization can be read if no project is
    given.

    Raises:
        ConfigurationError: a setting is missing or makes no sense.
    """
    check_names()
    texts = {"api": api, "base_url": base_url, "auth_token": auth_token}
    texts["organization"] = organization
    for name, value in texts.items():
        if not isinstance(value, str | None):
            raise ConfigurationError(f"{name} must be text, not {type(value).__name__}")
    flags = {"full_events": full_events, "full_refresh": full_refresh}
    flags |= {"allow_http": allow_http, "history": history}
    for name, flag in flags.items():
        if not isinstance(flag, bool):
            raise ConfigurationError(f"{name} must be true or false, not {flag!r}")
    one_of("api", api, APIS)
    one_of("row_format", row_format, ROW_FORMATS)
    spec = APIS[api]
    start, end = parse_since(since), parse_time("until", until)
    if end and start and start >= end:
        raise ConfigurationError(f"since ({start}) must be before until ({end})")
    back = parse_lookback(lookback)
    if end and not start:
        start = EARLIEST
    elif start and not end and earlier(start, back) == EARLIEST:
        start = None  # all; dlt could not subtract the lookback from it
    url = required("base_url", base_url or spec.base_url, '"https://…"')
    token = required("auth_token", auth_token, file="secrets.toml")
    owner = organization_slug(required("organization", organization))
    projects = project_list(project) if project or needs_project else []
    check_token(token)
    return Config(
        base_url=normalize_base_url(url, allow_http, spec.prefix),
        auth_token=token,
        headers=parse_headers(headers),
        organization=owner,
        projects=tuple(slug("project", name) for name in projects),
        spec=spec,
        since=start,
        until=end,
        lookback=back,
        full_events=full_events,
        full_refresh=full_refresh,
        rows_per_load=None
        if rows_per_load is None
        else whole_number("rows_per_load", rows_per_load),
        history=history,
        sweep=parse_sweep(sweep),
        workers=whole_number("workers", workers, MOST_WORKERS),
        redact=redact_paths(redact, spec),
        tables=tables_with(tags, exclude, spec),
        row_format=row_format,
    )


SETTINGS = frozenset(inspect.signature(parse_config).parameters) - {"needs_project"}


def check_names() -> None:
    """Check that the section of this source holds nothing but settings.

    Tables inside of it, such as `extract`, are dlt's. What else is in `sources.analytics`,
    which dlt reads as well, may be for another source.

    Raises:
        ConfigurationError: a name is no setting, so that its value would have no effect.
    """
    matches = {key: _IN_ENVIRONMENT.fullmatch(key) for key in os.environ}
    found = {key: match[1].lower() for key, match in matches.items() if match}
    for provider in Container()[PluggableRunContext].providers.providers:
        if isinstance(provider, CustomLoaderDocProvider):
            for *above, last in (SECTIONS[:2], SECTIONS):
                table, place = provider.get_value(last, Any, "", *above)
                values = table.items() if isinstance(table, Mapping) else ()
                for name, value in values:
                    if not isinstance(value, Mapping):
                        found[f"{place}.{name} in {provider.name}"] = name
    for place, name in found.items():
        if name not in SETTINGS:
            text = f"{place}: there is no setting {name!r}"
            raise ConfigurationError(text + did_you_mean(name.lower(), SETTINGS))


resolve_config = with_config(parse_config, sections=SECTIONS)
"""`parse_config`, with what is not given taken from dlt's configuration."""


def normalize_base_url(base_url: str, allow_http: bool, prefix: str = "") -> str:
    """Return the address in one form: host in lower case, no slash or prefix at its end.

    Args:
        base_url: as the user gave it.
        allow_http: see `analytics_source`.
        prefix: of the API's paths, which users copy along with the address.

    Raises:
        ConfigurationError: not a URL, with the prefix of another API, or http:// to
            another machine without `allow_http`, which would send the token unencrypted.
    """
    base_url = base_url.strip()
    if "@" in base_url:
        raise ConfigurationError(
            "base_url must hold no login"
        )  # other errors would show it
    try:
        parts = urlsplit(base_url)
        host = parts.hostname or ""
        is_good = parts.port != 0 and not re.search(r"[\s,;]", parts.netloc)
    except ValueError:  # no port, no address
        is_good = False
    if not is_good or not host or parts.scheme not in ("http", "https"):
        bare = re.sub(r"^[a-z]*:?/*", "", base_url) if "/" in base_url else base_url
        example = f"did you mean https://{bare}?" if "." in bare else "give https://…"
        raise ConfigurationError(f"base_url {base_url!r} is not an address; {example}")
    if parts.query or parts.fragment:
        raise ConfigurationError("base_url must hold no query or fragment")
    if parts.scheme == "http" and not allow_http and not is_loopback(host):
        raise ConfigurationError(
            f"base_url {base_url!r} would send the token unencrypted; use https://,"
            " or set allow_http if the network is yours"
        )
    usual_port = {"http": ":80", "https": ":443"}[parts.scheme]
    host = parts.netloc.lower().removesuffix(usual_port)
    path = parts.path.rstrip("/").removesuffix(prefix).rstrip("/")
    others = [name for name, spec in APIS.items() if path.endswith(spec.prefix)]
    if prefix and others:
        raise ConfigurationError(
            f"base_url {base_url!r} is one of api {' or '.join(map(repr, others))}; set"
            " the setting api to it"
        )
    return f"{parts.scheme}://{host}{path}"


def check_token(token: str) -> None:
    """Raise ConfigurationError where a token holds what no header takes.

    Errors about headers would show it.
    """
    if not re.fullmatch("[!-~]+", token):
        raise ConfigurationError(
            "auth_token holds a space, a line break or another character that is in"
            " no token; check how it was copied"
        )


def parse_headers(value: Any) -> dict[str, str]:
    """Return further headers of requests; errors show their names only.

    Raises:
        ConfigurationError: they are no table, or a request cannot have one of them.
    """
    if isinstance(value, str) and value.strip():
        try:
            value = json.loads(value)
        except ValueError:
            value = 0  # the error of `json` would hold the text
    headers = value or {} if value in (None, "") or isinstance(value, Mapping) else None
    if headers is None:
        raise ConfigurationError(
            'headers must be a table in secrets.toml, or a JSON object as {"name": "value"}'
        )
    for name, text in headers.items():
        is_name = isinstance(name, str) and _HEADER_NAME.fullmatch(name)
        if not is_name:
            raise ConfigurationError("headers: a name holds what no header may have")
        if name.lower() in OWN_HEADERS:
            raise ConfigurationError(
                f"headers {name!r} cannot be set, since it is part of each request; the"
                " token belongs into auth_token"
            )
        if not isinstance(text, str) or not re.fullmatch("[!-~]([ -~]*[!-~])?", text):
            raise ConfigurationError(
                f"headers {name!r}: the value must be text of one line, in ASCII, without"
                " a space at its ends"
            )
    return dict(headers)


def parse_seconds(setting: str, value: float) -> timedelta:
    """Return the span of time that is so many seconds long: up to a thousand years."""
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if not 0 <= seconds <= LONGEST:  # nor NaN
        raise ConfigurationError(
            f"{setting} {value!r} is no number of seconds from 0 to {LONGEST:,.0f}"
        )
    return timedelta(seconds=seconds)


def parse_lookback(value: Any) -> timedelta:
    """Return the span of time that a number of seconds says, or `"3d"`."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    is_span = isinstance(value, str) and value.strip()[-1:] in UNITS
    return (parse_span if is_span else parse_seconds)("lookback", value)


def parse_span(setting: str, value: str | timedelta) -> timedelta:
    """Return the span of time that `"12h"`, `"7d"` or `"2w"` says."""
    if isinstance(value, timedelta):
        if value < timedelta(seconds=1):
            raise ConfigurationError(f"{setting}: a span of {value} is too short")
        return value
    match = re.fullmatch(r"([1-9]\d{0,4})([hdw])", str(value).strip())
    if match is None:
        raise ConfigurationError(
            f"{setting} {value!r} is not a span of time; write it as 12h, 7d or 2w"
        )
    return timedelta(**{UNITS[match[2]]: int(match[1])})


def parse_sweep(value: str | timedelta) -> timedelta | None:
    """Return how old the last sweep may be: 0 for `"now"`, None for `"never"`."""
    words = {"now": timedelta(), "never": None}
    if isinstance(value, str) and value.strip() in words:
        return words[value.strip()]
    try:
        return parse_span("sweep", value)
    except ConfigurationError as error:
        raise ConfigurationError(f"{error}, or as now or never") from None


def whole_number(setting: str, value: Any, most: float = math.inf) -> int:
    """Return the number, if it is a whole one, not below 1 and not above the most."""
    is_whole = isinstance(value, int | float) and value == value // 1
    if not is_whole or isinstance(value, bool) or value < 1:
        raise ConfigurationError(
            f"{setting} {value!r} is no whole number: 1 is the least"
        )
    if value > most:
        raise ConfigurationError(f"{setting} {value!r} is too many: {most} is the most")
    return int(value)


def required(
    name: str, value: str | None, example: str = '"…"', file: str = "config.toml"
) -> str:
    """Return the setting, or say where it can be set."""
    if value:
        return value
    option = "" if name == "auth_token" else f", or pass --{name.replace('_', '-')}"
    raise ConfigurationError(
        f"{name} is missing: put `{name} = {example}` into .dlt/{file} (at the top or"
        f" under [{SECTION}]), or set the environment variable {name.upper()}{option}"
    )


def project_list(project: Any) -> list[str]:
    """Return one slug, several, or those of the JSON list in an environment variable."""
    return text_list("project", project or required("project", None))


def text_list(setting: str, value: Any) -> list[str]:
    """Return one text or several as a list; a text may hold several by commas or as JSON."""
    is_one = isinstance(value, str | Mapping) or not isinstance(value, Iterable)
    items = [value] if is_one else value
    texts: list[str] = []
    for item in items:
        several: Any = None
        if isinstance(item, str) and item.lstrip().startswith("["):
            with suppress(ValueError):
                several = json.loads(item)
        elif isinstance(item, str):
            several = [text.strip() for text in item.split(",")]
        if not several or not all(isinstance(text, str) for text in several):
            raise ConfigurationError(f"{setting} must be text or a list, not {value!r}")
        texts += several
    if not texts:
        raise ConfigurationError(f"{setting} must be text or a list, not {value!r}")
    return list(dict.fromkeys(texts))


def redact_paths(value: Any, spec: ApiSpec) -> tuple[str, ...]:
    """Return the paths to mask, if no row would lose its key by one of them."""
    paths = text_list("redact", value) if value not in (None, "", [], ()) else []
    keys = {endpoint.key for endpoint in spec.endpoints.values()} | {"id", "projectID"}
    for path in paths:
        if path in keys or path == "*":
            raise ConfigurationError(
                f"redact {path!r} would mask the key of a table, by which rows are told"
                " apart"
            )
        if not all(path.split(".")) or path != path.strip() or _NO_PATH.search(path):
            raise ConfigurationError(
                f"redact {path!r} is not a path; write it as user.email, and several as a"
                " list of them"
            )
    return tuple(paths)


def tables_with(tags: Any, exclude: Any, spec: ApiSpec) -> dict[str, Table]:
    """Return the tables with columns for further tags, and without what is left out.

    Raises:
        ConfigurationError: two tags would have one column; there is no such column; or
            loads need it.
    """
    columns: dict[str, str] = {}
    for tag in text_list("tags", tags) if tags else ():
        column = column_name(f"tag_{tag}") if tag.strip() else ""
        if not column or column in columns:
            other = f"{tag!r} and {columns[column]!r} have" if column else "'' has"
            raise ConfigurationError(f"tags {other} no column name of their own")
        columns[column] = tag
    tables = TABLES | {"events": TABLES["events"].with_tags(columns)}
    left_out: dict[str, list[str]] = {}
    for path in text_list("exclude", exclude) if exclude else ():
        name, _, column = path.partition(".")
        fields = {}
        if name in tables:
            names = tables[name].names
            fields = {field: field for field in names} | {
                c: f for f, c in names.items()
            }
        if column not in fields:
            known = [f"{name}.{field}" for field in fields] or [
                f"{t}.…" for t in tables
            ]
            raise ConfigurationError(
                f"exclude {path!r} is no column; write it as events.entries"
                f"{did_you_mean(path, known)}"
            )
        field = fields[column]
        endpoint = spec.endpoints[name]
        needed = {
            *tables[name].key,
            endpoint.replication_key,
            "project_id",
            PROJECT_SLUG,
        }
        if field in needed:
            raise ConfigurationError(
                f"exclude {path!r}: without this column rows could not be told apart"
            )
        left_out.setdefault(name, []).append(field)
    return tables | {name: tables[name].without(f) for name, f in left_out.items()}


def one_of(setting: str, value: str, choices: Iterable[str]) -> None:
    """Raise ConfigurationError where a value is none of the choices."""
    if value not in (names := [*choices]):
        raise ConfigurationError(
            f"{setting} {value!r} is not one of {', '.join(names)}"
            f"{did_you_mean(str(value), names)}"
        )


def organization_slug(value: str) -> str:
    """Return the slug, also from a web address of the organization."""
    if "/" not in value and not value.endswith(".sentry.io"):
        return slug("organization", value)
    try:
        parts = urlsplit(value if "://" in value else f"https://{value}")
    except ValueError:
        raise ConfigurationError(f"organization {value!r} is not a slug") from None
    words = [word for word in parts.path.split("/") if word]
    if "organizations" in words:
        words = words[words.index("organizations") + 1 :]
    elif words[:1] == ["settings"]:  # further behind it is a page of GlitchTip
        words = words[1:]
    name, _, domain = (parts.hostname or "").partition(".")
    if domain == "sentry.io" and name not in REGIONS:
        words = [name]
    return slug("organization", "".join(words[:1]))


def slug(setting: str, value: str) -> str:
    """Return the slug, if it can be one."""
    # Quoting keeps every other text in its place of the URL; dots are not quoted.
    if value.strip() in ("", ".", ".."):
        raise ConfigurationError(f"{setting} {value!r} is not a slug")
    return value


def parse_since(value: Any) -> datetime | None:
    """Return the time from which on to load; it has passed already."""
    since = parse_time("since", value)
    if since and since > (now := datetime.now(UTC)):
        raise ConfigurationError(
            f"since {value!r} is in the future: it is {now:%Y-%m-%d %H:%M} UTC now"
        )
    return since


def parse_time(setting: str, value: Any) -> datetime | None:
    """Return the time that ISO text, a date or a datetime says; UTC without zone.

    `"7d"` is the time seven days ago.
    """
    if value in (None, ""):
        return None
    if isinstance(value, str) and re.fullmatch(r"\d+[a-z]", value.strip()):
        return datetime.now(UTC) - parse_span(setting, value)
    try:
        return utc(datetime.fromisoformat(str(value).strip()))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{setting} {value!r} is not a time; write it as 2026-11-30,"
            " 2026-11-30T12:00:00Z, or 7d for seven days ago"
        ) from None
