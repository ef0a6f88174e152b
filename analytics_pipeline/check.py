"""The command `check`: one request for each list, and what to mend."""

import shlex
from argparse import Namespace
from difflib import get_close_matches

from dlt.common.exceptions import DltException
from dlt.extract import DltResource, DltSource

from analytics_pipeline import runner
from analytics_pipeline.console import BOLD, GREEN, RED, say, short_time
from analytics_pipeline.errors import AnalyticsError


def check(source: DltSource, options: Namespace) -> bool:
    """Whether all lists can be read. Nothing is loaded, no cursor moves."""
    problems: dict[str, str] = {}
    slugs: list[str] = []
    for name, resource in source.resources.items():
        problem = _problem(resource, slugs)
        if problem:
            problems[name] = problem
            say(f"✗ {name}: {problem}", RED)
        else:
            found = resource.custom_metrics
            newest = short_time(found["newest"])
            say(
                f"✓ {name}: {found['rows']} rows on the first page, newest {newest}",
                GREEN,
            )
    if not problems:
        say("All is well. Next: " + shlex.join(_same_options(options)), BOLD)
        return True
    say(f"{len(problems)} of {len(source.resources)} lists cannot be read", BOLD)
    for project in options.project or []:
        close = get_close_matches(project, slugs, 1)
        if project not in slugs and close:
            say(f"there is no project {project!r}; did you mean {close[0]!r}?", BOLD)
    return False


def _problem(resource: DltResource, slugs: list[str]) -> str | None:
    """Why a list cannot be read. The slugs of projects are noted on the way."""
    try:
        for page in resource.add_limit(1):
            if resource.table_name == "projects":
                slugs += filter(None, page["slug"].to_pylist())
    except (AnalyticsError, DltException) as error:
        return str(runner.root_error(error))
    return resource.custom_metrics.get("skipped")


def _same_options(options: Namespace) -> list[str]:
    words = ["python", "-m", "analytics_pipeline"]
    for name in ("base_url", "api", "organization", "project", "resource"):
        value = getattr(options, name)
        for item in value if isinstance(value, list) else [value] if value else []:
            words += ["--" + name.replace("_", "-"), item]
    return [*words, "--all-projects"] if options.all_projects else words
