"""The command `check`: one request for each list, and what to do about a refusal."""

import shlex
from argparse import Namespace

from analytics_pipeline.cli.output import BOLD, GREEN, RED, say, short_time
from analytics_pipeline.client.lists import ListSlice, Reader
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import Client
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ApiError


def check(client: Client, config: Config, options: Namespace) -> bool:
    """Tell whether all lists can be read. Nothing is loaded, no bookmark moves."""
    tables = options.resource or list(config.spec.endpoints)
    endpoints = [config.spec.endpoints[table] for table in tables]
    scopes = sorted({endpoint.scope for endpoint in endpoints})
    say(f"The token needs the scopes {', '.join(scopes)}.")
    lists = [
        Reader(endpoint, project)
        for endpoint in endpoints
        for project in config.projects_of(endpoint)
    ]
    problems = 0
    for each in lists:
        try:
            _, page = next(client.pages([ListSlice(each, None)]))
        except ApiError as error:
            problems += 1
            say(f"✗ {error}", RED)
            continue
        say(
            f"✓ {client.describe(each)} ({each.endpoint.scope}): {len(page.records)}"
            f" rows on the first page, newest {_newest(page)}",
            GREEN,
        )
    if not problems:
        say("All is well. Next: " + shlex.join(_same_options(options)), BOLD)
        return True
    say(f"{problems} of {len(lists)} lists cannot be read", BOLD)
    return False


def _newest(page: Page) -> str:
    times = [time for time in page.times if time and time <= page.server_time]
    return short_time(max(times).isoformat() if times else None)


def _same_options(options: Namespace) -> list[str]:
    words = ["python", "-m", "analytics_pipeline"]
    for name in ("base_url", "api", "organization", "project", "resource"):
        value = getattr(options, name)
        for item in value if isinstance(value, list) else [value] if value else []:
            words += ["--" + name.replace("_", "-"), item]
    return [*words, "--all-projects"] if options.all_projects else words
