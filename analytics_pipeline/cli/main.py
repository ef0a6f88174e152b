"""The command line: `python -m analytics_pipeline [run|check|verify|demo|report]`."""

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from typing import Any, NoReturn

from dlt.common.configuration.exceptions import ConfigurationException
from dlt.common.exceptions import DltException

from analytics_pipeline import runner
from analytics_pipeline.cli import commands
from analytics_pipeline.cli.output import RED, say
from analytics_pipeline.client.endpoints import APIS
from analytics_pipeline.errors import AnalyticsError, ConfigurationError
from analytics_pipeline.loading.failures import root_error, sentence
from analytics_pipeline.tables.history import HISTORY
from analytics_pipeline.tables.schema import TABLES

USAGE = 2
INTERRUPTED = 130
KEPT = (
    "interrupted; what is in the warehouse stays, and the next run goes on from there"
)
log = logging.getLogger(__name__)
EPILOG = """examples:
  python -m analytics_pipeline demo
  python -m analytics_pipeline check --api sentry --organization acme --all-projects
  python -m analytics_pipeline --base-url https://errors.example.com \\
      --organization acme --project frontend --project backend
  python -m analytics_pipeline verify --since 2026-01-01 --repair

The token is read from AUTH_TOKEN or .dlt/secrets.toml, other settings from
.dlt/config.toml or the environment, too. Exit codes: 0 all is well; 1 failed, or not
equal (verify); 2 wrong usage or missing settings; 3 loaded, but a list was skipped."""


class Parser(argparse.ArgumentParser):
    """An argument parser that guesses what a mistyped option was meant to be."""

    def check_options(self, words: Sequence[str]) -> None:
        """Refuse unknown options: argparse would take the value behind one for a command."""
        for word in words:
            option = word.partition("=")[0]
            if option.startswith("--") and option not in self._option_string_actions:
                self.error(f"there is no option '{option}'")

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and what was perhaps meant."""
        typed = re.findall("'(.*?)'", message)[:1]
        choices = [str(c) for action in self._actions for c in action.choices or ()]
        known = [*self._option_string_actions, *choices]
        close = [guess for word in typed for guess in get_close_matches(word, known, 1)]
        guess = f"; did you mean {close[0]}?" if close else ""
        say(f"error: {message}{guess} (--help shows all)", RED)
        raise SystemExit(USAGE)


def parser() -> Parser:
    """Return the parser of the command line."""
    parser = Parser(
        prog="python -m analytics_pipeline",
        usage="%(prog)s [run|check|verify|demo|report] [options]",
        description="Load what is new at an error-analytics API into a warehouse.",
        epilog=EPILOG,
        formatter_class=partial(
            argparse.RawDescriptionHelpFormatter, max_help_position=25, width=88
        ),
        allow_abbrev=False,
    )
    add = parser.add_argument
    add(
        "command",
        nargs="?",
        default="run",
        choices=["run", "check", "verify", "demo", "report"],
        metavar="COMMAND",
        help="load (run, the default), try the settings, compare the warehouse with the"
        " server, try it all on a built-in one, write a page of what is loaded",
    )
    add("--base-url", metavar="URL", help="address of the server")
    add("--api", choices=list(APIS), metavar="NAME", help=_either(APIS))
    add("--organization", metavar="ORG", help="slug")
    add("--project", metavar="SLUG", action="append", help="repeatable")
    add("--all-projects", action="store_true", help="ask the server for them")
    add(
        "--resource",
        action="append",
        choices=[*TABLES, HISTORY],
        metavar="TABLE",
        help=f"{', '.join(TABLES)}; repeatable",
    )
    add("--since", metavar="T", help="how far back to load")
    add("--until", metavar="T", help="load exactly --since to T; bookmarks stay")
    add("--rows-per-load", metavar="N", type=int, help="rows of a piece of a long load")
    add("--full-events", action="store_true", default=None, help="with stack traces")
    add("--full-refresh", action="store_true", default=None, help="read all again")
    add("--history", action="store_true", default=None, help="load issue_history, too")
    add(
        "--sweep", metavar="SPAN", help="read all issues each SPAN: 12h, 7d, now, never"
    )
    add("--repair", action="store_true", help="of verify: load again what differs")
    add("--redact", metavar="PATH", action="append", help="mask values, repeatable")
    add("--tag", dest="tags", metavar="NAME", action="append", help="gives tag_NAME")
    add("--allow-http", action="store_true", default=None, help="token over http://")
    add("--workers", metavar="N", type=int, help="requests at a time (default: 4)")
    add("--destination", metavar="NAME", default="duckdb", help="default: duckdb")
    formats = ["delta", "iceberg"]
    add("--table-format", choices=formats, metavar="NAME", help=_either(formats))
    add("--dataset", metavar="NAME", default=runner.DATASET, help="default: analytics")
    add("--pipeline-name", metavar="NAME", default=runner.NAME)
    add("--pipelines-dir", metavar="DIR", help="where dlt keeps its state")
    kinds = ["auto", "tqdm", "log", "off"]
    add(
        "--progress", choices=kinds, default="auto", metavar="KIND", help=_either(kinds)
    )
    add("--output", metavar="FILE", default="analytics_report.html", help="of report")
    add("--json", action="store_true", help="the summary as JSON on standard output")
    return parser


def _either(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; return the exit code."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    command_line = parser()
    command_line.check_options(sys.argv[1:] if argv is None else argv)
    options = command_line.parse_args(argv)
    command = getattr(commands, options.command)
    try:
        code: int = command(options)
        return code
    except KeyboardInterrupt:
        say(KEPT, RED)
        return INTERRUPTED
    except (AnalyticsError, DltException, OSError) as error:
        log.debug("what led to it:", exc_info=True)
        say(f"error: {sentence(error)}", RED)
        wrong = isinstance(
            root_error(error), ConfigurationError | ConfigurationException
        )
        return USAGE if wrong else commands.FAILED


def interrupt(*signalled: Any) -> NoReturn:
    """End at once on Ctrl-C: threads that wait for a server are not waited for.

    While dlt prepares and loads it has a handler of its own, which lets it finish the
    tables that are being written; with the second Ctrl-C comes this one.
    """
    try:
        if sys.stderr.isatty():
            print("\r\033[J", end="", file=sys.stderr)  # over the progress bars
        say(KEPT, RED)
    finally:
        os._exit(INTERRUPTED)


def program() -> int:
    """Run `main` as a process of its own, which ends at once when it has failed."""
    signal.signal(signal.SIGINT, interrupt)
    code = main()
    if code in (commands.FAILED, INTERRUPTED):
        sys.stdout.flush()
        os._exit(code)  # other lists may still be waiting for their turn
    return code
