"""The command `check`: can each list be read, and is what is loaded fresh enough?"""

import shlex
from argparse import Namespace
from datetime import datetime, timedelta
from typing import Any

from analytics_pipeline.cli.terminal import (
    BOLD,
    GREEN,
    RED,
    json_line,
    say,
    short_time,
)
from analytics_pipeline.client.lists import ListSlice, Reader
from analytics_pipeline.client.page import Page
from analytics_pipeline.client.pagination import Client
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ApiError, ConfigurationError
from analytics_pipeline.status import Status, ago

FRESH_BY_ROWS = ("events", "issues")
"""Tables whose newest row is new as long as the software is used. In others a row comes
seldom, but a run reads all of them, or the last month: that is what has to be fresh."""


def check_lists(client: Client, config: Config, options: Namespace) -> bool:
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
    results: list[dict[str, Any]] = []
    for each in lists:
        result: dict[str, Any] = {"list": client.describe(each)}
        results.append(result)
        try:
            _, page = next(client.pages([ListSlice(each, None)]))
        except ApiError as error:
            result["problem"] = str(error)
            say(f"✗ {error}", RED)
            continue
        newest = _newest(page)
        result |= {"rows": len(page.records), "newest": newest}
        say(
            f"✓ {client.describe(each)} ({each.endpoint.scope}): {len(page.records)}"
            f" rows on the first page, newest {short_time(newest)}",
            GREEN,
        )
    problems = sum("problem" in result for result in results)
    if options.json:
        json_line({"lists": results, "problems": problems})
    if not problems:
        say("All is well. Next: " + shlex.join(_same_options(options)), BOLD)
        return True
    say(f"{problems} of {len(lists)} lists cannot be read", BOLD)
    return False


def check_freshness(status: Status, longest: timedelta, options: Namespace) -> bool:
    """Tell whether no table is older than that, by its newest row or its last reading.

    Raises:
        ConfigurationError: a table that is asked for is not loaded.
    """
    loaded = {each.table for each in status.lists}
    if missing := [name for name in options.resource or () if name not in loaded]:
        raise ConfigurationError(f"the table {missing[0]!r} is not loaded")
    tables: list[dict[str, Any]] = []
    for name in dict.fromkeys(each.table for each in status.lists):
        if options.resource and name not in options.resource:
            continue
        lists = [each for each in status.lists if each.table == name]
        received = max((e.received for e in lists if e.received), default=None)
        newest = max((e.newest for e in lists if e.newest), default=None)
        time = newest if name in FRESH_BY_ROWS else received
        is_old = time is None or status.now - time > longest
        tables.append({"table": name, "time": time and time.isoformat(), "old": is_old})
        said = f"read {ago(received, status.now)}"
        if name in FRESH_BY_ROWS:
            said = f"newest row {_when(newest, status.now)}, {said}"
        say(f"{'✗' if is_old else '✓'} {name}: {said}", RED if is_old else GREEN)
    old = sum(each["old"] for each in tables)
    if options.json:
        json_line({"tables": tables, "old": old})
    if old:
        say(f"{old} of {len(tables)} tables are older than {options.freshness}", BOLD)
    return not old


def _when(time: datetime | None, now: datetime) -> str:
    return f"{ago(time, now)} ({short_time(time.isoformat() if time else None)})"


def _newest(page: Page) -> str | None:
    times = [time for time in page.times if time and time <= page.server_time]
    return max(times).isoformat() if times else None


def _same_options(options: Namespace) -> list[str]:
    words = ["python", "-m", "analytics_pipeline", "run"]
    for name in ("base_url", "api", "organization", "project", "resource"):
        value = getattr(options, name)
        for item in value if isinstance(value, list) else [value] if value else []:
            words += ["--" + name.replace("_", "-"), item]
    words += ["--allow-http"] if options.allow_http else []
    return [*words, "--all-projects"] if options.all_projects else words
