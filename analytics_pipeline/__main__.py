"""The command line: `python -m analytics_pipeline [run|check|demo]`."""

import argparse
import logging
from collections.abc import Sequence

from dlt.common.exceptions import DltException

from analytics_pipeline import commands, runner
from analytics_pipeline.console import RED, say
from analytics_pipeline.errors import AnalyticsError, ConfigurationError
from analytics_pipeline.servers import SERVERS
from analytics_pipeline.tables import TABLES

USAGE = 2
INTERRUPTED = 130
EPILOG = """examples:
  python -m analytics_pipeline demo
  python -m analytics_pipeline check --api sentry --organization acme --all-projects
  python -m analytics_pipeline --base-url https://errors.example.com \\
      --organization acme --project frontend --project backend
  python -m analytics_pipeline --since 2026-01-01 --destination postgres

The token is read from AUTH_TOKEN or .dlt/secrets.toml, other settings from
.dlt/config.toml or the environment, too. Exit codes: 0 all loaded; 1 failed;
2 wrong usage or missing settings; 3 loaded, but a project was skipped."""


def parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m analytics_pipeline",
        usage="%(prog)s [run|check|demo] [options]",
        description="Load what is new at an error-analytics API into a warehouse.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "command",
        nargs="?",
        default="run",
        choices=["run", "check", "demo"],
        metavar="run|check|demo",
        help="load (default), try the settings, or try it all on a built-in server",
    )
    add("--base-url", metavar="URL", help="address of the server")
    add("--api", choices=list(SERVERS), help="which server speaks (default: v1)")
    add("--organization", metavar="ORG", help="slug")
    add("--project", metavar="SLUG", action="append", help="repeatable")
    add("--all-projects", action="store_true", help="ask the server for them")
    add("--resource", action="append", choices=list(TABLES), help="repeatable")
    add("--since", metavar="T", help="how far back the first run reads")
    add("--until", metavar="T", help="load exactly --since to T; cursors stay")
    add("--full-events", action="store_true", default=None, help="with stack traces")
    add("--full-refresh", action="store_true", default=None, help="read all again")
    add("--redact", metavar="PATH", action="append", help="mask values, repeatable")
    add("--allow-http", action="store_true", default=None, help="token over http://")
    add("--workers", metavar="N", type=int, help="requests at a time (default: 4)")
    add("--destination", metavar="NAME", default="duckdb", help="default: duckdb")
    add("--dataset", metavar="NAME", default=runner.DATASET, help="default: analytics")
    add("--pipeline-name", metavar="NAME", default=runner.NAME)
    add("--pipelines-dir", metavar="DIR", help="where dlt keeps its state")
    add("--progress", choices=["auto", "tqdm", "log", "off"], default="auto")
    add("--json", action="store_true", help="the summary as JSON on standard output")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    options = parser().parse_args(argv)
    command = getattr(commands, options.command)
    try:
        code: int = command(options)
        return code
    except KeyboardInterrupt:
        say("interrupted; rows and cursors are as they were before this run", RED)
        return INTERRUPTED
    except (AnalyticsError, DltException) as error:
        cause = runner.root_error(error)
        say(f"error: {cause}", RED)
        return USAGE if isinstance(cause, ConfigurationError) else commands.FAILED


if __name__ == "__main__":
    raise SystemExit(main())
