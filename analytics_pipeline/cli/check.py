"""The command `check`: one request for each list, and what to do about a refusal."""

import shlex
from argparse import Namespace
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import NoReturn

from analytics_pipeline.cli.output import BOLD, GREEN, RED, say, short_time
from analytics_pipeline.client.endpoints import Endpoint
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import Client, ListSlice, Slice
from analytics_pipeline.client.session import RequestStats
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ApiError


@dataclass
class FirstPage:
    """A list of which the first page is asked for, and nothing else."""

    endpoint: Endpoint
    project: str
    stats: RequestStats = field(default_factory=RequestStats)

    def room(self) -> float:
        """Return that one page is enough."""
        return 0

    def on_error(self, part: Slice, error: ApiError) -> NoReturn:
        """Raise the error."""
        raise error


def check(client: Client, config: Config, options: Namespace) -> bool:
    """Tell whether all lists can be read. Nothing is loaded, no bookmark moves."""
    tables = options.resource or list(config.spec.endpoints)
    lists = [
        FirstPage(config.spec.endpoints[table], project)
        for table in tables
        for project in config.projects_of(config.spec.endpoints[table])
    ]
    problems, slugs = 0, list[str]()
    for each in lists:
        name = client.describe(each)
        try:
            _, page = next(client.pages([ListSlice(each, None)]))
        except ApiError as error:
            problems += 1
            say(f"✗ {error}", RED)
            continue
        if each.endpoint.table == "projects":
            slugs += [record["slug"] for record in page.records if record.get("slug")]
        say(
            f"✓ {name}: {len(page.records)} rows on the first page, newest"
            f" {_newest(page)}",
            GREEN,
        )
    if not problems:
        say("All is well. Next: " + shlex.join(_same_options(options)), BOLD)
        return True
    say(f"{problems} of {len(lists)} lists cannot be read", BOLD)
    _suggest(options.project or (), slugs)
    return False


def _newest(page: Page) -> str:
    times = [time for time in page.times if time and time <= page.server_time]
    return short_time(max(times).isoformat() if times else None)


def _suggest(projects: Sequence[str], slugs: Sequence[str]) -> None:
    for project in projects:
        close = get_close_matches(project, slugs, 1)
        if project not in slugs and close:
            say(f"there is no project {project!r}; did you mean {close[0]!r}?", BOLD)


def _same_options(options: Namespace) -> list[str]:
    words = ["python", "-m", "analytics_pipeline"]
    for name in ("base_url", "api", "organization", "project", "resource"):
        value = getattr(options, name)
        for item in value if isinstance(value, list) else [value] if value else []:
            words += ["--" + name.replace("_", "-"), item]
    return [*words, "--all-projects"] if options.all_projects else words
