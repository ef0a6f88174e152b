"""The command `check`."""

from argparse import Namespace
from datetime import timedelta
from typing import Any

from analytics_pipeline.cli.terminal import (
    BOLD,
    GREEN,
    RED,
    counted,
    json_line,
    say,
    short_time,
)
from analytics_pipeline.client.client import Client, ListName
from analytics_pipeline.client.page import Page
from analytics_pipeline.config import Config
from analytics_pipeline.errors import ApiError, ConfigurationError, Unreachable
from analytics_pipeline.loading.status import ListStatus, Status, ago

FRESH_BY_ROWS = ("events", "issues")
"""Tables that are expected to get new rows all the time."""


def check_lists(client: Client, config: Config, options: Namespace) -> bool:
    """Request the first page of each list; return whether all can be read."""
    tables = options.resource or list(config.spec.endpoints)
    endpoints = [config.spec.endpoints[table] for table in tables]
    scopes = sorted({endpoint.scope for endpoint in endpoints})
    say(f"required scopes: {', '.join(scopes)}")
    lists = [
        ListName(endpoint, project)
        for endpoint in endpoints
        for project in config.projects_of(endpoint)
    ]
    results: list[dict[str, Any]] = []
    for each in lists:
        name = client.describe(each)
        try:
            page = next(client.pages(each))
        except ApiError as error:
            results.append({"list": name, "problem": str(error)})
            say(f"✗ {error}", RED)
            if isinstance(error, Unreachable):
                break  # the other lists would fail as well
            continue
        count, newest = len(page.records), _newest(page)
        results.append({"list": name, "rows": count, "newest": newest})
        say(
            f"✓ {name} ({each.endpoint.scope}): {counted(count, 'row')} on the first"
            f" page, newest {short_time(newest)}",
            GREEN,
        )
    problems = sum("problem" in result for result in results)
    if options.json:
        json_line({"lists": results, "problems": problems})
    if problems:
        say(f"{problems} of {len(results)} lists cannot be read", BOLD)
    else:
        say(
            "All lists can be read. To load them, use the same options with the command run.",
            BOLD,
        )
    return not problems


def check_freshness(status: Status, longest: timedelta, options: Namespace) -> bool:
    """Return whether all lists were read within that time, and tables have new rows.

    The age of rows counts only in `FRESH_BY_ROWS`, and not with `--complete`. It is that
    of all projects together, because a small one may have no new errors.

    Raises:
        ConfigurationError: a requested table is not loaded.
    """
    loaded = [*dict.fromkeys(each.table for each in status.lists)]
    if missing := [name for name in options.resource or () if name not in loaded]:
        raise ConfigurationError(f"the table {missing[0]!r} is not loaded")
    not_read = status.old_lists(longest, options.resource or ())
    tables: list[dict[str, Any]] = []
    for name in options.resource or loaded:
        times = [each.newest for each in status.lists if each.table == name]
        newest = max(filter(None, times), default=None)
        old_lists = [each for each in not_read if each.table == name]
        has_old_rows = (
            not options.complete
            and name in FRESH_BY_ROWS
            and (newest is None or status.now - newest > longest)
        )
        is_old = has_old_rows or bool(old_lists)
        tables.append(
            {"table": name, "newest": newest and newest.isoformat(), "old": is_old}
        )
        reasons = (f"; {_not_read(each, status)}" for each in old_lists)
        line = f"{name}: newest row {ago(newest, status.now)}{''.join(reasons)}"
        say(f"{'✗' if is_old else '✓'} {line}", RED if is_old else GREEN)
    count = sum(each["old"] for each in tables)
    if options.json:
        json_line({"tables": tables, "old": count})
    if count:
        say(f"{count} of {len(tables)} tables are older than {options.freshness}", BOLD)
    return not count


def _not_read(each: ListStatus, status: Status) -> str:
    reason = each.bookmark.problem or f"last {ago(each.read, status.now)}"
    return f"{each.project or each.organization} not read: {reason}"


def _newest(page: Page) -> str | None:
    times = [time for time in page.times if time and time <= page.server_time]
    return max(times).isoformat() if times else None
