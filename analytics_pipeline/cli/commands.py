"""The commands; each takes its options and returns the exit code."""

import inspect
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
    """Return the options that are arguments of the source; dlt resolves the others."""
    names = inspect.signature(analytics_source).parameters
    given = {
        name: value
        for name, value in vars(options).items()
        if name in names and value is not None
    }
    if options.all_projects:
        given["project"] = runner.all_projects(**given)
        if not given["project"]:
            raise ConfigurationError(
                "--all-projects: the token has no access to any project of the organization"
            )
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
        summary = incomplete.summary
        output.show(summary, options.json)
        say(f"error: {incomplete}", RED)
        if any(part.rows or part.reread for part in summary.tables.values()):
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
    """Request each list once, or check how old the loaded data is."""
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
    name, projects = "analytics_demo", ["frontend", "backend"]
    file, folder = Path(f"{name}.duckdb"), options.pipelines_dir
    file.unlink(missing_ok=True)
    # Otherwise the tables would be in the folder of an earlier demo.
    runner.make_pipeline(name=name, pipelines_dir=folder).drop()
    an_hour_ago = datetime.now(UTC) - timedelta(hours=1)  # growth must not be in future
    with DemoServer(
        options.api,
        organization="acme",
        projects=projects,
        token="demo",
        now=an_hour_ago,
    ) as server:

        def load() -> runner.Summary:
            collector = progress.collector(options.progress)
            pipeline = runner.make_pipeline(
                name=name, pipelines_dir=folder, progress=collector
            )
            source = analytics_source(server.url, "demo", "acme", projects, options.api)
            return runner.load(pipeline, source)

        runs = {"first run": load(), "nothing new": load()}
        server.grow(events=30, issues=5, releases=1)
        runs["after growth"] = load()
    if options.json:
        json_line({title: run.as_json() for title, run in runs.items()})
        return OK
    say(_compared(runs))
    say(f"""
The tables are in {file}, schema {runner.DATASET}. To look at them:
  SQL:     python -c "import duckdb; duckdb.connect('{file}').sql(\
'select level, status, count(*) from {runner.DATASET}.issues group by all').show()"
  Python:  python -c "import dlt; print(dlt.pipeline('{name}',\
 destination='duckdb').dataset('{runner.DATASET}').issues.arrow())"
  Status:  python -m analytics_pipeline status --pipeline-name {name}
  Report:  python -m analytics_pipeline report --pipeline-name {name}
  dlt:     dlt pipeline {name} info""")
    return OK


def _compared(runs: dict[str, runner.Summary]) -> str:
    rows = [["rows (requests)", *runs]]
    for name in runs["first run"].tables:
        parts = [run.tables[name] for run in runs.values()]
        rows.append([name, *(f"{part.rows:,} ({part.requests})" for part in parts)])
    rows.append(["seconds", *(f"{run.seconds:.1f}" for run in runs.values())])
    return table(rows)
