"""The commands: run, check, demo, report. Each takes options, gives the exit code."""

from argparse import Namespace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dlt
from dlt.extract import DltSource

from analytics_pipeline import check as checking
from analytics_pipeline import console, progress, runner
from analytics_pipeline.console import GREEN, say
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.errors import ConfigurationError
from analytics_pipeline.source import analytics_source

LOADED, FAILED, SKIPPED = 0, 1, 3


def make_source(options: Namespace, **more: Any) -> DltSource:
    return analytics_source(**settings(options, **more))


def settings(options: Namespace, **more: Any) -> dict[str, Any]:
    """Of the source, by the options; what is not among them, dlt finds."""
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
    return given


def make_pipeline(options: Namespace) -> dlt.Pipeline:
    return runner.make_pipeline(
        options.destination,
        dataset=options.dataset,
        name=options.pipeline_name,
        pipelines_dir=options.pipelines_dir,
        progress=progress.collector(options.progress),
    )


def run(options: Namespace) -> int:
    if options.workers:
        dlt.config["extract.workers"] = options.workers
    pipeline, tables = make_pipeline(options), options.resource or ()
    if options.chunk:
        given = settings(options)
        given["table_format"] = options.table_format
        summary = runner.backfill(pipeline, options.chunk, tables, **given)
    else:
        source = make_source(options)
        summary = runner.load(pipeline, source, tables, options.table_format)
    console.show(summary, options.json)
    return SKIPPED if summary.skipped else LOADED


def check(options: Namespace) -> int:
    source = make_source(options, full_refresh=True)
    source = runner.only(source, options.resource or ())
    return LOADED if checking.check(source, options) else FAILED


def report(options: Namespace) -> int:
    """Write a page of what the warehouse holds."""
    try:
        from analytics_pipeline.report import page
    except ModuleNotFoundError as error:
        advice = f"pip install {error.name}, or '.[report]' for all it needs"
        raise ConfigurationError(f"report needs {error.name}: {advice}") from error
    html = page(make_pipeline(options))
    try:
        Path(options.output).write_text(html, "utf-8")
    except OSError as error:
        raise ConfigurationError(f"--output {options.output}: {error}") from error
    say(f"wrote {options.output}", GREEN)
    return LOADED


def demo(options: Namespace) -> int:
    """Load from the built-in server, let it grow, load again."""
    name = "analytics_demo"
    # Begin anew: the demo's own cursors and tables, and in the working folder, since
    # a pipeline keeps its DuckDB in the folder of its first run.
    runner.make_pipeline(name=name, pipelines_dir=options.pipelines_dir).drop()
    pipeline = runner.make_pipeline(
        name=name,
        pipelines_dir=options.pipelines_dir,
        progress=progress.collector(options.progress),
    )
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
  Page:    python -m analytics_pipeline report --pipeline-name {name}
  dlt:     dlt pipeline {name} info; or show, after pip install 'dlt[hub]'""")
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
