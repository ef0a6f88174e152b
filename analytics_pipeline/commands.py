"""The three commands: run, check, demo. Each takes the options, gives the exit code."""

import shlex
from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
from dlt.common.exceptions import DltException
from dlt.extract import DltSource

from analytics_pipeline import console, runner
from analytics_pipeline.console import BOLD, GREEN, RED, say
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import AnalyticsError
from analytics_pipeline.source import analytics_source

LOADED, FAILED, SKIPPED = 0, 1, 3


def make_source(options: Namespace, **more: Any) -> DltSource:
    """The source by the options; what is not among them, dlt finds."""
    names = (
        "base_url", "api", "organization", "since", "until", "full_events",
        "full_refresh", "workers", "redact", "allow_http",
    )  # fmt: skip
    given = {
        name: value
        for name in names
        if (value := getattr(options, name, None)) is not None
    } | more
    if options.all_projects:
        listing = analytics_source(**given | {"project": "-", "full_refresh": True})
        given["project"] = runner.all_projects(listing)
    elif options.project:
        one = len(options.project) == 1
        given["project"] = options.project[0] if one else options.project
    return analytics_source(**given)


def make_pipeline(options: Namespace) -> dlt.Pipeline:
    return runner.make_pipeline(
        options.destination,
        dataset=options.dataset,
        name=options.pipeline_name,
        pipelines_dir=options.pipelines_dir,
        progress=console.progress(options.progress),
    )


def run(options: Namespace) -> int:
    if options.workers:
        dlt.config["extract.workers"] = options.workers
    source = make_source(options)
    summary = runner.load(make_pipeline(options), source, options.resource or ())
    console.show(summary, options.json)
    return SKIPPED if summary.skipped else LOADED


def check(options: Namespace) -> int:
    """One request for each table of each project; nothing is loaded."""
    source = make_source(options, full_refresh=True)
    source = runner.only(source, options.resource or ())
    failed = 0
    for name, resource in source.resources.items():
        try:
            pages = list(resource.add_limit(1))
            problem = resource.custom_metrics.get("skipped")
        except (AnalyticsError, DltException) as error:
            problem = str(runner.root_error(error))
        if problem:
            failed += 1
            say(f"✗ {name}: {problem}", RED)
        else:
            rows = sum(len(page) for page in pages)
            say(f"✓ {name}: reachable, {rows} rows on the first page", GREEN)
    if failed:
        say(f"{failed} of {len(source.resources)} lists cannot be read", BOLD)
        return FAILED
    say("All is well. Next: " + shlex.join(_same_options(options)), BOLD)
    return LOADED


def _same_options(options: Namespace) -> list[str]:
    words = ["python", "-m", "analytics_pipeline"]
    for name in ("base_url", "api", "organization", "project", "resource"):
        value = getattr(options, name)
        for item in value if isinstance(value, list) else [value] if value else []:
            words += ["--" + name.replace("_", "-"), item]
    return [*words, "--all-projects"] if options.all_projects else words


def demo(options: Namespace) -> int:
    """Load from the built-in server, let it grow, load again."""
    name = "analytics_demo"
    pipeline = runner.make_pipeline(
        name=name,
        pipelines_dir=options.pipelines_dir,
        progress=console.progress(options.progress),
    )
    pipeline.drop()  # begin anew: the demo's own cursors and tables
    Path(f"{name}.duckdb").unlink(missing_ok=True)
    api = options.api or "v1"
    projects = ["frontend", "backend"]
    runs: dict[str, runner.Summary] = {}
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)  # so that it has time to grow
    with DemoServer(
        api, organization="acme", projects=projects, token="demo", now=an_hour_ago
    ) as server:

        def load() -> runner.Summary:
            source = analytics_source(server.url, "demo", "acme", projects, api)
            return runner.load(pipeline, source)

        runs["first run"] = load()
        runs["nothing new"] = load()
        server.grow(events=30, issues=5, releases=1)
        runs["after growth"] = load()
    if options.json:
        console.json_line({title: run.as_json() for title, run in runs.items()})
    else:
        say(_compared(runs))
        say(f"""
The tables are in {name}.duckdb, schema {runner.DATASET}. Look at them:
  SQL:     python -c "import duckdb; duckdb.connect('{name}.duckdb').sql(\
'select level, status, count(*) from {runner.DATASET}.issues group by all').show()"
  Python:  python -c "import dlt; print(dlt.pipeline('{name}',\
 destination='duckdb').dataset('{runner.DATASET}').issues.arrow())"
  dlt:     dlt pipeline {name} show""")
    return LOADED


def _compared(runs: dict[str, runner.Summary]) -> str:
    tables = next(iter(runs.values())).tables
    header = ["rows (requests)", *runs]
    rows = [
        [
            name,
            *(
                f"{run.tables[name].rows:,} ({run.tables[name].requests})"
                for run in runs.values()
            ),
        ]
        for name in tables
    ]
    seconds = ["seconds", *(f"{run.seconds:.1f}" for run in runs.values())]
    return console.table([header, *rows, seconds])
