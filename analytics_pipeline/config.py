"""The settings of a source, checked once, before the first request."""

import inspect
import json
import math
import os
import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from dlt.common.configuration import with_config
from dlt.common.configuration.container import Container
from dlt.common.configuration.providers.doc import CustomLoaderDocProvider
from dlt.common.configuration.specs.pluggable_run_context import PluggableRunContext
from dlt.common.typing import TSecretStrValue, TSecretValue

from analytics_pipeline.bookmarks import EARLIEST, earlier
from analytics_pipeline.client.addresses import (
    normalize_base_url,
    organization_slug,
    slug,
)
from analytics_pipeline.client.endpoints import APIS, ApiSpec, Endpoint
from analytics_pipeline.errors import ConfigurationError, did_you_mean
from analytics_pipeline.tables.columns import TABLES
from analytics_pipeline.tables.schema import PROJECT_SLUG, Table, column_name
from analytics_pipeline.times import (
    parse_lookback,
    parse_since,
    parse_sweep,
    parse_time,
)

SOURCE = "analytics"
SECTIONS = ("sources", "analytics_pipeline", SOURCE)
"""dlt looks into the innermost first, then into those above and `sources.analytics`."""
SECTION = ".".join(SECTIONS[:2])
ROW_FORMATS = ("auto", "arrow", "python")
OWN_HEADERS = (
    *("authorization", "host", "content-length", "accept-encoding", "expect"),
    *("connection", "keep-alive", "proxy-connection", "te", "trailer", "upgrade"),
    "transfer-encoding",
)
"""Headers that the package sets itself, and those of a connection.

Proxy-Authorization is allowed: as a request header it is sent to the server, where
Google's Identity-Aware Proxy expects its token.
"""
_NO_PATH = re.compile(r"""[,;|=()\[\]{}"'`\\]|^[$/]""")
"""Characters of lists and of other notations of paths, which no field name contains."""
_IN_ENVIRONMENT = re.compile(
    r"(?:.+__)?SOURCES__ANALYTICS_PIPELINE__(?:ANALYTICS__)?((?:(?!__).)+)"
)
_HEADER_NAME = re.compile(r"[\w!#$%&'*+.^`|~-]+", re.ASCII)
MAX_WORKERS = 1000
if TYPE_CHECKING:
    Span = Any
else:
    Span = str
"""A span of time as text, or seconds. dlt cannot parse a union of types."""


@dataclass(frozen=True)
class Config:
    """The settings of a source, checked and typed."""

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
    """Maximum age of the last sweep of issues; 0: sweep now, None: never."""
    workers: int
    redact: tuple[str, ...]
    tables: Mapping[str, Table]
    """With the columns of `tags`, and without those of `exclude`."""
    row_format: str

    def __repr__(self) -> str:
        return f"Config({self.base_url}, {self.organization}, {self.projects})"

    @property
    def server(self) -> str:
        """Address of the API, used in the keys of bookmarks."""
        return self.base_url + self.spec.prefix

    def projects_of(self, endpoint: Endpoint) -> tuple[str, ...]:
        """Return the project of each list; empty text for the organization's list."""
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
    """Return the checked arguments of `analytics_source`, which documents them.

    Without `needs_project`, for lists of the organization, `project` may be missing.

    Raises:
        ConfigurationError: a setting is missing or invalid.
    """
    check_names()
    texts = {"api": api, "base_url": base_url, "auth_token": auth_token}
    for name, value in (texts | {"organization": organization}).items():
        if not isinstance(value, str | None):
            raise ConfigurationError(f"{name} must be text, not {type(value).__name__}")
    flags = {"full_events": full_events, "full_refresh": full_refresh}
    for name, flag in (flags | {"allow_http": allow_http, "history": history}).items():
        if not isinstance(flag, bool):
            raise ConfigurationError(f"{name} must be true or false, not {flag!r}")
    for name, value, choices in (
        ("api", api, APIS),
        ("row_format", row_format, ROW_FORMATS),
    ):
        if value not in choices:
            raise ConfigurationError(
                f"{name} must be one of {', '.join(choices)}, not {value!r}"
            )
    spec = APIS[api]
    start, end = parse_since(since), parse_time("until", until)
    if end and start and start >= end:
        raise ConfigurationError(f"since ({start}) must be before until ({end})")
    back = parse_lookback(lookback)
    if end and not start:
        start = EARLIEST
    elif start and not end and earlier(start, back) == EARLIEST:
        start = None  # dlt could not subtract the lookback from it
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
        else positive("rows_per_load", rows_per_load),
        history=history,
        sweep=parse_sweep(sweep),
        workers=positive("workers", workers, MAX_WORKERS),
        redact=redact_paths(redact, spec),
        tables=tables_with(tags, exclude, spec),
        row_format=row_format,
    )


SETTINGS = frozenset(inspect.signature(parse_config).parameters) - {"needs_project"}


def check_names() -> None:
    """Raise ConfigurationError for unknown settings, which would have no effect.

    `sources.analytics` is not checked, because it may belong to another source.
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
            text = f"{place}: unknown setting {name!r}"
            raise ConfigurationError(text + did_you_mean(name.lower(), SETTINGS))


resolve_config = with_config(parse_config, sections=SECTIONS)
"""`parse_config`, with missing arguments taken from dlt's configuration."""


def check_token(token: str) -> None:
    """Raise ConfigurationError for a token that cannot be sent; requests would show it."""
    if not re.fullmatch("[!-~]+", token):
        raise ConfigurationError(
            "auth_token contains a space, a line break or another invalid character; copy"
            " it again"
        )


def parse_headers(value: Any) -> dict[str, str]:
    """Return additional headers; errors show their names only.

    Raises:
        ConfigurationError: it is not a table, or a header is invalid.
    """
    if isinstance(value, str) and value.strip():
        with suppress(ValueError):
            value = json.loads(value)
    if value in (None, ""):
        return {}
    if not isinstance(value, Mapping):
        raise ConfigurationError(
            'headers must be a table in secrets.toml, or a JSON object as {"name": "value"}'
        )
    for name, text in value.items():
        if not isinstance(name, str) or not _HEADER_NAME.fullmatch(name):
            raise ConfigurationError("headers: a name has an invalid character")
        if name.lower() in OWN_HEADERS:
            raise ConfigurationError(
                f"headers {name!r} cannot be set, because requests have it already; set the"
                " token as auth_token"
            )
        if not isinstance(text, str) or not re.fullmatch("[!-~]([ -~]*[!-~])?", text):
            raise ConfigurationError(
                f"headers {name!r}: the value must be one line of ASCII text without"
                " spaces at its ends"
            )
    return dict(value)


def positive(setting: str, value: Any, most: float = math.inf) -> int:
    """Return the value as an integer; it must be from 1 to `most`."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 1 <= value <= most or value % 1:
        limit = f"from 1 to {most}" if most < math.inf else "of at least 1"
        raise ConfigurationError(f"{setting} must be an integer {limit}, not {value!r}")
    return int(value)


def required(
    name: str, value: str | None, example: str = '"…"', file: str = "config.toml"
) -> str:
    """Return the value, or raise ConfigurationError that says where to set it."""
    if value:
        return value
    option = "" if name == "auth_token" else f", or pass --{name.replace('_', '-')}"
    raise ConfigurationError(
        f"{name} is missing: put `{name} = {example}` into .dlt/{file} (at the top or"
        f" under [{SECTION}]), or set the environment variable {name.upper()}{option}"
    )


def project_list(project: Any) -> list[str]:
    """Return the slugs of one project or several."""
    return text_list("project", project or required("project", None))


def text_list(setting: str, value: Any) -> list[str]:
    """Return a text or several as a list; a text may be separated by commas, or JSON."""
    is_one = isinstance(value, str | Mapping) or not isinstance(value, Iterable)
    items = [value] if is_one else [*value] or [None]
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
    return list(dict.fromkeys(texts))


def redact_paths(value: Any, spec: ApiSpec) -> tuple[str, ...]:
    """Return the paths to mask, which must not be keys of tables."""
    paths = text_list("redact", value) if value not in (None, "", [], ()) else []
    keys = {endpoint.key for endpoint in spec.endpoints.values()} | {"id", "projectID"}
    for path in paths:
        if path in keys or path == "*":
            raise ConfigurationError(f"redact {path!r} would mask the key of a table")
        if not all(path.split(".")) or path != path.strip() or _NO_PATH.search(path):
            raise ConfigurationError(
                f"redact {path!r} is not a path; write it as user.email, or several as a"
                " list"
            )
    return tuple(paths)


def tables_with(tags: Any, exclude: Any, spec: ApiSpec) -> dict[str, Table]:
    """Return the tables with columns for `tags`, and without those of `exclude`.

    Raises:
        ConfigurationError: two tags have the same column, or a column to exclude is
            unknown or needed.
    """
    columns: dict[str, str] = {}
    for tag in text_list("tags", tags) if tags else ():
        column = column_name(f"tag_{tag}") if tag.strip() else ""
        if not column or column in columns:
            raise ConfigurationError(f"tags {tag!r} has no column name of its own")
        columns[column] = tag
    tables = TABLES | {"events": TABLES["events"].with_tags(columns)}
    excluded: dict[str, list[str]] = {}
    for path in text_list("exclude", exclude) if exclude else ():
        name, _, column = path.partition(".")
        names = tables[name].names if name in tables else {}
        fields = {c: field for field, c in names.items()} | {f: f for f in names}
        if column not in fields:
            raise ConfigurationError(
                f"exclude {path!r} is not a column; write it as events.entries"
            )
        needed = {*tables[name].key, spec.endpoints[name].replication_key}
        if fields[column] in needed | {"project_id", PROJECT_SLUG}:
            raise ConfigurationError(
                f"exclude {path!r}: without this column rows could not be told apart"
            )
        excluded.setdefault(name, []).append(fields[column])
    return tables | {name: tables[name].without(f) for name, f in excluded.items()}
