"""The commands, and the options of each."""

import argparse
import re
from collections.abc import Callable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from analytics_pipeline.cli.process import USAGE
from analytics_pipeline.cli.terminal import RED, json_line, say
from analytics_pipeline.client.endpoints import APIS, table_names
from analytics_pipeline.errors import did_you_mean

PROGRAM = "python -m analytics_pipeline"
COMMANDS = {
    "run": "load new data (default)",
    "check": "test the settings: request the first page of each list",
    "status": "rows, loaded range and last error of every list",
    "verify": "compare the warehouse with the server, row by row",
    "demo": "load twice from a built-in server, to try the tool",
    "report": "write an HTML report of the loaded data",
}
EXAMPLES = {
    "run": """examples:
  {prog} --organization acme --project web --project api
  {prog} --api sentry --organization acme --all-projects \\
      --since 90d
  {prog} --destination postgres --history""",
    "check": """examples:
  {prog} --api sentry --organization acme --project web
  {prog} --freshness 2h --resource events""",
    "status": """examples:
  {prog} --destination postgres
  {prog} --json | jq '.lists[] | select(.problem)'""",
    "verify": """examples:
  {prog} --since 7d
  {prog} --since 2026-01-01 --resource events --repair""",
    "demo": """examples:
  {prog}
  {prog} --api sentry""",
    "report": """examples:
  {prog} --output errors.html
  {prog} --destination postgres --dataset errors""",
}
SETTINGS = """
The token is read from AUTH_TOKEN or .dlt/secrets.toml. Other settings can also be
set in .dlt/config.toml or the environment."""
ABOUT = f"""
{PROGRAM} COMMAND --help shows the options of a command.
Exit codes: 0 success; 1 failed, or different (verify), or too old (check);
2 wrong usage or missing settings; 3 loaded, but a list was skipped."""


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Colours on terminals; group titles in lower case."""

    group_name_formatter = str


class UsageError(Exception):
    """The arguments are invalid."""


class Parser(argparse.ArgumentParser):
    """Suggests the name closest to a mistyped one."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse; unknown arguments are an error of the command's own parser."""
        options, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            word = unknown[0].partition("=")[0]
            if word in COMMANDS:
                self.error(f"the command must come first: {PROGRAM} {word} …")
            if word in ("--token", "--auth-token"):
                self.error(
                    "the token cannot be passed as an option, because other users could"
                    " see it. Set AUTH_TOKEN instead"
                )
            kind = "option" if word.startswith("-") else "argument"
            self.error(f"unknown {kind} '{word}'")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        typed = re.findall("'(.*?)'", message)[:1]
        choices = [str(c) for action in self._actions for c in action.choices or ()]
        known = [*self._option_string_actions, *choices]
        guess = "".join(did_you_mean(word, known) for word in typed)
        raise UsageError(f"{message}{guess or '.'} See {self.prog} --help.")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the command, `run` by default, and its options.

    Raises:
        SystemExit: wrong usage, or help or the version was requested.
    """
    words = list(words)
    if not words or (words[0].startswith("-") and words[0] not in _OF_ALL):
        words.insert(0, "run")
    try:
        return parser().parse_args(words)
    except UsageError as error:
        say(f"error: {error}", RED)
        if "--json" in words:
            json_line({"error": str(error)})
        raise SystemExit(USAGE) from None


_OF_ALL = ("-h", "--help", "--version")


def parser() -> Parser:
    """Return the parser of the command line."""
    formatter: Any = partial(HelpFormatter, max_help_position=24)
    top = Parser(
        prog=PROGRAM,
        usage="%(prog)s [COMMAND] [OPTIONS]",
        description="Load the data of an error tracker into a warehouse.",
        epilog=f"examples:\n  {PROGRAM} demo\n  {PROGRAM} run --help\n{ABOUT}",
        formatter_class=formatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=_version() + "\n")
    commands = top.add_subparsers(
        dest="command",
        metavar="COMMAND",
        required=True,
        title="commands",
        prog=PROGRAM,  # otherwise rich makes it, which writes to standard output
    )
    for name, add_options in _OPTIONS.items():
        prog = f"{PROGRAM} {name}"
        command = commands.add_parser(
            name,
            prog=prog,
            usage="%(prog)s [OPTIONS]",
            help=COMMANDS[name],
            description=COMMANDS[name][0].upper() + COMMANDS[name][1:] + ".",
            epilog=EXAMPLES[name].format(prog=prog) + "\n" + SETTINGS,
            formatter_class=formatter,
            allow_abbrev=False,
        )
        add_options(command)
    return top


Add = Callable[..., Any]
_FLAG: dict[str, Any] = {"action": "store_true", "default": None}
"""Of a setting: if the option is not given, dlt reads its configuration."""


def _server(command: Parser, *, has_workers: bool = True) -> None:
    group = command.add_argument_group("server")
    add = group.add_argument
    add("--base-url", metavar="URL", help="address of the server")
    add("--api", choices=list(APIS), metavar="NAME", help=_API)
    add("--organization", metavar="ORG", help="slug of the organization")
    add = group.add_mutually_exclusive_group().add_argument
    add(
        "--project",
        metavar="SLUG",
        action="append",
        help="slug of a project; repeatable",
    )
    add("--all-projects", action="store_true", help="all projects of the organization")
    add = group.add_argument
    add("--allow-http", **_FLAG, help="send the token unencrypted to another machine")
    if has_workers:
        add("--workers", metavar="N", type=int, help="concurrent requests (default: 4)")


_API = f"API of the server: {', '.join(APIS)} (default: v1)"


def _tables(add: Add, *, has_history: bool = False) -> None:
    names = table_names() + ["issue_history"] * has_history
    add(
        "--resource",
        action="append",
        choices=names,
        metavar="TABLE",
        help=f"only this table; repeatable: {', '.join(names)}",
    )


def _span(add: Add, until: str) -> None:
    add("--since", metavar="T", help="start: 2026-01-01, or 7d for 7 days ago")
    add("--until", metavar="T", help=until)


def _rows(add: Add) -> None:
    more = "events with stack traces; up to ten times the requests"
    add("--full-events", **_FLAG, help=more)
    add(
        "--redact",
        metavar="PATH",
        action="append",
        help="mask values of a field, such as user.email; repeatable",
    )
    add(
        "--tag",
        dest="tags",
        metavar="NAME",
        action="append",
        help="add the column tag_NAME to events; repeatable",
    )


def _warehouse(add: Add) -> None:
    add("--destination", metavar="NAME", default="duckdb", help="default: duckdb")
    add("--dataset", metavar="NAME", default="analytics", help="default: analytics")
    name = "analytics_pipeline"
    named = f"and of the DuckDB file; default: {name}"
    add("--pipeline-name", metavar="NAME", default=name, help=named)
    _folder(add)


def _folder(add: Add) -> None:
    add("--pipelines-dir", metavar="DIR", help="dlt's working directory")


def _output(command: Parser, *, has_progress: bool = True) -> None:
    add = command.add_argument_group("output").add_argument
    if has_progress:
        kinds = ["auto", "live", "log", "off"]
        shown = "live, log, off or auto (default: live on a terminal, else log)"
        add("--progress", choices=kinds, default="auto", metavar="KIND", help=shown)
    add("--json", action="store_true", help="print the result as JSON")
    _verbosity(add)


def _verbosity(add: Add) -> None:
    more = "more log lines; -vv: also each request"
    add("-v", dest="verbosity", action="count", default=0, help=more)


def _run(command: Parser) -> None:
    _server(command)
    add = command.add_argument_group("what to load").add_argument
    _tables(add, has_history=True)
    _span(add, "end (default: now); later runs are not affected")
    late = "reread this span, for late rows (default: 1h)"
    add("--lookback", metavar="SPAN", help=late)
    add("--history", **_FLAG, help="also load issue_history")
    sweep = "reread all issues every 12h, 7d; or now, never"
    add("--sweep", metavar="SPAN", help=sweep)
    add("--full-refresh", **_FLAG, help="load everything again")
    rows = "commit long loads in steps (default: 100000)"
    add("--rows-per-load", metavar="N", type=int, help=rows)
    _rows(add)
    add = command.add_argument_group("warehouse").add_argument
    _warehouse(add)
    formats = ["delta", "iceberg"]
    lake = "delta or iceberg, for the destination filesystem"
    add("--table-format", choices=formats, metavar="NAME", help=lake)
    _output(command)


def _check(command: Parser) -> None:
    _server(command, has_workers=False)
    add = command.add_argument_group("what to check").add_argument
    _tables(add)
    add(
        "--freshness",
        metavar="SPAN",
        help="check the warehouse instead: fail if the newest row of a table, or the"
        " last complete read of a list, is older than 2h, 1d",
    )
    add(
        "--complete",
        action="store_true",
        help="with --freshness: ignore the age of rows, so that projects without new"
        " errors do not fail",
    )
    _warehouse(command.add_argument_group("warehouse, for --freshness").add_argument)
    _output(command, has_progress=False)


def _status(command: Parser) -> None:
    _warehouse(command.add_argument_group("warehouse").add_argument)
    _output(command, has_progress=False)


def _verify(command: Parser) -> None:
    _server(command)
    add = command.add_argument_group("what to compare").add_argument
    _tables(add)
    _span(add, "end (default: now)")
    add("--repair", action="store_true", help="reload rows that differ")
    _rows(add)
    _warehouse(command.add_argument_group("warehouse").add_argument)
    _output(command)


def _demo(command: Parser) -> None:
    add = command.add_argument_group("demo").add_argument
    add("--api", choices=list(APIS), default="v1", metavar="NAME", help=_API)
    _folder(add)
    _output(command)


def _report(command: Parser) -> None:
    _warehouse(command.add_argument_group("warehouse").add_argument)
    add = command.add_argument_group("output").add_argument
    default = "analytics_report.html"
    add("--output", metavar="FILE", default=default, help=f"default: {default}")
    _verbosity(add)


_OPTIONS: dict[str, Callable[[Parser], None]] = {
    "run": _run,
    "check": _check,
    "status": _status,
    "verify": _verify,
    "demo": _demo,
    "report": _report,
}


def _version() -> str:
    try:
        return f"analytics_pipeline {version('analytics-pipeline')}"
    except PackageNotFoundError:
        return "analytics_pipeline, not installed"
