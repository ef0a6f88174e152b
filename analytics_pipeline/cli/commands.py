"""The commands; each takes its options and returns the exit code."""

from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt

from analytics_pipeline import runner
from analytics_pipeline.cli import check as checking
from analytics_pipeline.cli import output, progress
from analytics_pipeline.cli.process import FAILED, OK, SKIPPED
from analytics_pipeline.cli.terminal import GREEN, RED, json_line, say, table
from analytics_pipeline.config import resolve_config
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import ConfigurationError, IncompleteLoad
from analytics_pipeline.loading.extras import install_command
from analytics_pipeline.loading.warehouse import check_loaded, location
from analytics_pipeline.source import analytics_source, make_client
from analytics_pipeline.times import parse_span


def settings(options: Namespace) -> dict[str, Any]:
    """Return the source's arguments among the options; dlt resolves the others."""
    names = (
        "base_url", "api", "organization", "since", "until", "full_events",
        "full_refresh", "rows_per_load", "workers", "redact", "allow_http", "history",
        "sweep", "tags", "lookback",
    )  # fmt: skip
    given = {
        name: value
        for name in names
        if (value := getattr(options, name, None)) is not None
    }
    if options.all_projects:
        given["project"] = runner.all_projects(**given)
        if not given["project"]:
            raise ConfigurationError(
                "--all-projects: the token has access to no project of the organization"
            )
    elif options.project:
        given["project"] = options.project
    return given


def make_pipeline(options: Namespace) -> dlt.Pipeline:
    """Return the pipeline of the options."""
    return runner.make_pipeline(
        options.destination,
        dataset=options.dataset,
        name=options.pipeline_name,
        pipelines_dir=options.pipelines_dir,
        progress=progress.collector(getattr(options, "progress", "off")),
    )


def run(options: Namespace) -> int:
    """Load new data."""
    pipeline, tables = make_pipeline(options), options.resource or ()
    source = analytics_source(**settings(options))
    try:
        summary = runner.load(pipeline, source, tables, options.table_format)
    except IncompleteLoad as incomplete:
        output.show(incomplete.summary, options.json)
        say(f"error: {incomplete}", RED)
        if any(t.rows or t.reread for t in incomplete.summary.tables.values()):
            say("The other lists were loaded. Run again to load the rest.")
        return FAILED
    output.show(summary, options.json)
    say(f"The tables are in {location(pipeline)}, dataset {pipeline.dataset_name}.")
    return SKIPPED if summary.skipped else OK


def verify(options: Namespace) -> int:
    """Compare the warehouse with the server."""
    pipeline = make_pipeline(options)
    if not options.repair:  # repair can load everything
        check_loaded(pipeline)
    source = analytics_source(**settings(options))
    found = runner.verify(
        pipeline, source, options.resource or (), repair=bool(options.repair)
    )
    output.show_verification(found, options.json)
    if not found.is_equal:
        return FAILED
    return SKIPPED if found.skipped else OK


def status(options: Namespace) -> int:
    """Show rows, loaded range and last error of every list."""
    pipeline = make_pipeline(options)
    output.show_status(runner.status(pipeline), options.json)
    return OK


def check(options: Namespace) -> int:
    """Request each list once, or check the age of what is loaded."""
    if options.freshness:
        longest = parse_span("freshness", options.freshness)
        found = runner.status(make_pipeline(options))
        is_good = checking.check_freshness(found, longest, options)
    else:
        config = resolve_config(**settings(options))
        is_good = checking.check_lists(make_client(config), config, options)
    return OK if is_good else FAILED


def report(options: Namespace) -> int:
    """Write the HTML report."""
    try:
        from analytics_pipeline.report import page
    except ModuleNotFoundError as error:
        advice = install_command("report")
        text = f"report needs the package {error.name}. Install it: {advice}"
        raise ConfigurationError(text) from error
    html = page(make_pipeline(options))
    try:
        Path(options.output).write_text(html, "utf-8")
    except OSError as error:
        text = f"cannot write --output {options.output}: {error}"
        raise ConfigurationError(text) from error
    say(f"wrote {options.output}", GREEN)
    return OK


def demo(options: Namespace) -> int:
    """Load from the built-in server, which then gets new rows, and load again."""
    name = "analytics_demo"
    pipeline = runner.make_pipeline(
        name=name,
        pipelines_dir=options.pipelines_dir,
        progress=progress.collector(options.progress),
    )
    Path(f"{name}.duckdb").unlink(missing_ok=True)
    api = options.api or "v1"
    projects = ["frontend", "backend"]
    runs: dict[str, runner.Summary] = {}
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)  # new rows must not lie ahead
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
        json_line({title: run.as_json() for title, run in runs.items()})
    else:
        say(_compared(runs))
        say(f"""
The tables are in {name}.duckdb, schema {runner.DATASET}. To look at them:
  SQL:     python -c "import duckdb; duckdb.connect('{name}.duckdb').sql(\
'select level, status, count(*) from {runner.DATASET}.issues group by all').show()"
  Python:  python -c "import dlt; print(dlt.pipeline('{name}',\
 destination='duckdb').dataset('{runner.DATASET}').issues.arrow())"
  Status:  python -m analytics_pipeline status --pipeline-name {name}
  Page:    python -m analytics_pipeline report --pipeline-name {name}
  dlt:     dlt pipeline {name} info; or show, after
           {install_command("dashboard")}""")
    return OK


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
    return table([header, *rows, seconds])
