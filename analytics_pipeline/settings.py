"""What the user configured, checked before anything is asked."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from typing import Any

from dlt.common.configuration import with_config

from analytics_pipeline.columns import utc
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.servers import SERVERS, Server
from analytics_pipeline.tables import column_name

SECTION = "sources.analytics_pipeline"


@dataclass(frozen=True)
class Settings:
    base_url: str
    auth_token: str
    organization: str
    projects: tuple[str, ...]
    many: bool
    """A list was given, though perhaps of one: resources are named by project."""
    server: Server
    since: datetime | None
    until: datetime | None

    def __repr__(self) -> str:
        return f"Settings({self.base_url}, {self.organization}, {self.projects})"

    @classmethod
    def checked(
        cls,
        base_url: str | None,
        auth_token: str | None,
        organization: str | None,
        project: Any,
        api: str,
        since: Any,
        until: Any,
    ) -> "Settings":
        """
        Raises:
            ConfigurationError: a setting is missing or makes no sense.
        """
        if api not in SERVERS:
            hint = get_close_matches(api, SERVERS)
            raise ConfigurationError(
                f"api {api!r} is not one of {', '.join(SERVERS)}"
                + (f"; did you mean {hint[0]!r}?" if hint else "")
            )
        server = SERVERS[api]
        start, end = parse_time("since", since), parse_time("until", until)
        if end and start and start >= end:
            raise ConfigurationError(f"since ({start}) must be before until ({end})")
        if end and not start:
            start = datetime.min.replace(tzinfo=UTC)
        url = required("base_url", base_url or server.base_url, '"https://…"')
        token = required("auth_token", auth_token, file="secrets.toml")
        owner = slug("organization", required("organization", organization))
        slugs = [slug("project", name) for name in project_list(project)]
        return cls(
            url,
            token,
            owner,
            tuple(slugs),
            many=is_several(project),
            server=server,
            since=start,
            until=end,
        )

    def check_commit(self, full_refresh: bool) -> None:
        """A span whose cursor moves is cut by the server, and begins at the cursor."""
        if not self.server.endpoints["events"].filters_time:
            able = [n for n, s in SERVERS.items() if s.endpoints["events"].filters_time]
            raise ConfigurationError(
                "events cannot be loaded in chunks from this server: it does not filter"
                " them by time, so each chunk would read all newer ones, too; leave out"
                f" --chunk (it is for api {', '.join(able)})"
            )
        if full_refresh:
            raise ConfigurationError(
                "full_refresh cannot be loaded in chunks: when interrupted, it would"
                " not know where to go on; load a new dataset under a new pipeline name"
            )
        if self.until is None:
            raise ConfigurationError("until is missing: the cursor would move there")

    def cursor_column(self, name: str) -> str:
        return column_name(self.server.endpoints[name].cursor[0])


@with_config(sections=("sources", "analytics_pipeline"))
def configured(
    project: str | list[str] | None = None,
    since: str | datetime | None = None,
    until: str | datetime | None = None,
    **others: Any,
) -> dict[str, Any]:
    """The three as the source would find them, when they are not given."""
    return {"project": project, "since": since, "until": until}


def required(
    name: str, value: str | None, example: str = '"…"', file: str = "config.toml"
) -> str:
    if value:
        return value
    raise ConfigurationError(
        f"{name} is missing: put `{name} = {example}` into .dlt/{file} (at the top or"
        f" under [{SECTION}]), or set the environment variable {name.upper()}"
    )


def project_list(project: Any) -> list[str]:
    """One slug, several slugs, or the JSON list that an environment variable holds."""
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


def is_several(project: Any) -> bool:
    return not isinstance(project, str) or is_list(project)


def is_list(text: str) -> bool:
    return text.lstrip().startswith("[")


def slug(setting: str, value: str) -> str:
    # Quoting keeps every other text in its place of the URL; dots are not quoted.
    if value.strip() in ("", ".", ".."):
        raise ConfigurationError(f"{setting} {value!r} is not a slug")
    return value


def parse_time(setting: str, value: Any) -> datetime | None:
    """ISO text, date or datetime → UTC; without zone it is UTC already."""
    if value in (None, ""):
        return None
    try:
        return utc(datetime.fromisoformat(str(value).strip()))
    except (ValueError, OverflowError):
        raise ConfigurationError(
            f"{setting} {value!r} is not a time; write it as 2026-11-30 or"
            " 2026-11-30T12:00:00Z"
        ) from None
