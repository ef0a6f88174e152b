"""The words of the command line: commands, and the options of each."""

import argparse
import re
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any, NoReturn

from rich_argparse import RawDescriptionRichHelpFormatter

from analytics_pipeline.cli.terminal import RED, json_line, say
from analytics_pipeline.client.endpoints import APIS, table_names
from analytics_pipeline.errors import did_you_mean

USAGE = 2
"""The exit code for words that make no sense, and for missing settings."""
PROGRAM = "python -m analytics_pipeline"
COMMANDS = {
    "run": "load what is new; the command that is meant where none is given",
    "check": "ask the server for each list once, and say what is wrong",
    "status": "show what the warehouse holds, and how far; asks no server",
    "verify": "compare the warehouse with the server, row by row",
    "demo": "try it all on a built-in server",
    "report": "write a page of what is loaded",
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
The token is read from AUTH_TOKEN or .dlt/secrets.toml, other settings from
.dlt/config.toml or the environment, too."""
ABOUT = f"""
{PROGRAM} COMMAND --help shows the options of a command.
Exit codes: 0 all is well; 1 failed, or not equal (verify), or too old (check);
2 wrong usage or missing settings; 3 loaded, but a list was skipped."""


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Colours for terminals; titles as they are written."""

    group_name_formatter = str


class UsageError(Exception):
    """The words of the command line make no sense."""


class Parser(argparse.ArgumentParser):
    """An argument parser that guesses what a mistyped word was meant to be."""

    def parse_known_args(self, *args: Any, **kwargs: Any) -> Any:
        """Parse; that a command's own parser meets unknown words is its own error."""
        options, unknown = super().parse_known_args(*args, **kwargs)
        if unknown:
            word = unknown[0].partition("=")[0]
            if word in COMMANDS:
                self.error(f"the command comes first: {PROGRAM} {word} …")
            if word in ("--token", "--auth-token"):
                self.error(
                    "the token is no option, which others could see: set AUTH_TOKEN"
                )
            is_option = word.startswith("-")
            self.error(f"there is no {'option' if is_option else 'argument'} '{word}'")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Raise UsageError with what is wrong, and what was perhaps meant."""
        typed = re.findall("'(.*?)'", message)[:1]
        choices = [str(c) for action in self._actions for c in action.choices or ()]
        known = [*self._option_string_actions, *choices]
        guess = "".join(did_you_mean(word, known) for word in typed)
        raise UsageError(f"{message}{guess} ({self.prog} --help shows all)")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the command and its options; `run` is meant where none is named.

    Raises:
        SystemExit: the words make no sense, or help or the version was asked for.
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
        description="Bring the errors of your software into your warehouse.",
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
        prog=PROGRAM,  # or it would be made by rich, which writes to standard output
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


def _server(command: Parser, *, has_workers: bool = True) -> None:
    group = command.add_argument_group("server")
    add, add_either = (
        group.add_argument,
        group.add_mutually_exclusive_group().add_argument,
    )
    add("--base-url", metavar="URL", help="address of the server")
    add("--api", choices=list(APIS), metavar="NAME", help=_either(APIS))
    add("--organization", metavar="ORG", help="slug")
    add_either("--project", metavar="SLUG", action="append", help="slug; repeatable")
    add_either("--all-projects", action="store_true", help="all of the organization")
    add("--allow-http", **_FLAG, help="send the token over http:// to another machine")
    if has_workers:
        add("--workers", metavar="N", type=int, help="requests at a time (default: 4)")


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
    add("--since", metavar="T", help="from when on: 2026-01-01, or 7d for 7 days ago")
    add("--until", metavar="T", help=until)


def _rows(add: Add) -> None:
    add(
        "--full-events",
        **_FLAG,
        help="events with stack traces; ten times the requests",
    )
    add("--redact", metavar="PATH", action="append", help="mask values; repeatable")
    add("--tag", dest="tags", metavar="NAME", action="append", help="gives tag_NAME")


def _warehouse(add: Add) -> None:
    add("--destination", metavar="NAME", default="duckdb", help="default: duckdb")
    add("--dataset", metavar="NAME", default="analytics", help="default: analytics")
    add("--pipeline-name", metavar="NAME", default="analytics_pipeline", help=_NAMED)
    add("--pipelines-dir", metavar="DIR", help="where dlt keeps its working folders")


_NAMED = "also of the DuckDB file; default: analytics_pipeline"
_FLAG: dict[str, Any] = {"action": "store_true", "default": None}
"""Of a setting: where it is not given, dlt looks for it in its configuration."""


def _output(add: Add, *, has_progress: bool = True) -> None:
    if has_progress:
        kinds = ["auto", "live", "log", "off"]
        add("--progress", choices=kinds, default="auto", metavar="KIND", help=_KINDS)
    add("--json", action="store_true", help="the result as JSON on standard output")
    add(
        "-v",
        dest="verbosity",
        action="count",
        default=0,
        help="say more, with time and level; -vv: each request",
    )


_KINDS = "live on a terminal, log lines elsewhere (auto), or off"


def _run(command: Parser) -> None:
    _server(command)
    what = command.add_argument_group("what to load").add_argument
    _tables(what, has_history=True)
    _span(what, "load exactly --since to T; bookmarks stay")
    what(
        "--lookback", metavar="SPAN", help="read again for late rows: 3d (default: 1h)"
    )
    what("--history", **_FLAG, help="load issue_history, too")
    what("--sweep", metavar="SPAN", help="read all issues each 12h, 7d; or now, never")
    what("--full-refresh", **_FLAG, help="read all again")
    what(
        "--rows-per-load", metavar="N", type=int, help="rows of a piece of a long load"
    )
    _rows(what)
    warehouse = command.add_argument_group("warehouse").add_argument
    _warehouse(warehouse)
    formats = ["delta", "iceberg"]
    warehouse("--table-format", choices=formats, metavar="NAME", help=_either(formats))
    _output(command.add_argument_group("output").add_argument)


def _check(command: Parser) -> None:
    _server(command, has_workers=False)
    what = command.add_argument_group("what to check").add_argument
    _tables(what)
    what(
        "--freshness",
        metavar="SPAN",
        help="ask the warehouse instead: exit code 1 if the newest row of a table is"
        " older than 2h, 1d, or a list was not read to its end for so long",
    )
    what(
        "--complete",
        action="store_true",
        help="with --freshness, only ask whether each list was read to its end; so"
        " projects without new errors are no alarm",
    )
    _warehouse(command.add_argument_group("warehouse, for --freshness").add_argument)
    _output(command.add_argument_group("output").add_argument, has_progress=False)


def _status(command: Parser) -> None:
    _warehouse(command.add_argument_group("warehouse").add_argument)
    _output(command.add_argument_group("output").add_argument, has_progress=False)


def _verify(command: Parser) -> None:
    _server(command)
    what = command.add_argument_group("what to compare").add_argument
    _tables(what)
    _span(what, "up to when (default: now)")
    what("--repair", action="store_true", help="load again what differs")
    _rows(what)
    _warehouse(command.add_argument_group("warehouse").add_argument)
    _output(command.add_argument_group("output").add_argument)


def _demo(command: Parser) -> None:
    add = command.add_argument_group("demo").add_argument
    add("--api", choices=list(APIS), default="v1", metavar="NAME", help=_either(APIS))
    add("--pipelines-dir", metavar="DIR", help="where dlt keeps its working folders")
    _output(command.add_argument_group("output").add_argument)


def _report(command: Parser) -> None:
    _warehouse(command.add_argument_group("warehouse").add_argument)
    add = command.add_argument_group("output").add_argument
    default = "analytics_report.html"
    add("--output", metavar="FILE", default=default, help=f"default: {default}")
    add("-v", dest="verbosity", action="count", default=0, help="say more")


_OPTIONS: dict[str, Callable[[Parser], None]] = {
    "run": _run,
    "check": _check,
    "status": _status,
    "verify": _verify,
    "demo": _demo,
    "report": _report,
}


def _either(names: Iterable[str]) -> str:
    *most, last = names
    return f"{', '.join(most)} or {last}"


def _version() -> str:
    try:
        return f"analytics_pipeline {version('analytics-pipeline')}"
    except PackageNotFoundError:
        return "analytics_pipeline, not installed"
