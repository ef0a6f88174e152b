"""The commands and their options."""

import argparse
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
    "run": "load new data",
    "check": "test the settings: request the first page of each list",
    "status": "rows, loaded range and last error of every list",
    "verify": "compare the warehouse with the server, row by row",
    "demo": "try the tool on a built-in server",
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
ABOUT = f"""examples:
  {PROGRAM} demo
  {PROGRAM} run --help

Exit codes: 0 success; 1 failure, including differences (verify) and old data
(check); 2 wrong usage or missing settings; 3 success, but a list was skipped."""


class HelpFormatter(RawDescriptionRichHelpFormatter):
    """Colours on terminals; group titles in lower case."""

    group_name_formatter = str


class UsageError(Exception):
    """The arguments are invalid."""


class Parser(argparse.ArgumentParser):
    """Raises UsageError instead of exiting."""

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
            if not word.startswith("-"):
                self.error(f"unknown argument '{word}'")
            guess = did_you_mean(word, self._option_string_actions)
            self.error(f"unknown option '{word}'{guess}")
        return options, unknown

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        end = "" if message.endswith("?") else "."
        raise UsageError(f"{message}{end} See {self.prog} --help.")


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the command, `run` by default, and its options.

    Raises:
        SystemExit: wrong usage, or help or the version was requested.
    """
    words = list(words)
    if not words or (words[0].startswith("-") and words[0] not in _OF_ALL):
        words.insert(0, "run")
    top = parser()
    try:
        if words[0] not in (*COMMANDS, *_OF_ALL):
            names = ", ".join(COMMANDS)
            guess = did_you_mean(words[0], COMMANDS) or f"; choose from {names}"
            top.error(f"unknown command {words[0]!r}{guess}")
        return top.parse_args(words)
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
        epilog=ABOUT,
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
        prog, about = f"{PROGRAM} {name}", COMMANDS[name]
        settings = SETTINGS if name in _REQUESTING else ""
        command = commands.add_parser(
            name,
            prog=prog,
            usage="%(prog)s [OPTIONS]",
            help=f"{about} (default)" if name == "run" else about,
            description=f"{about[0].upper()}{about[1:]}.",
            epilog=EXAMPLES[name].format(prog=prog) + settings,
            formatter_class=formatter,
            allow_abbrev=False,
        )
        add_options(command)
    return top


_REQUESTING = ("run", "check", "verify")


def _value(group: Any, name: str, metavar: str, text: str, **more: Any) -> None:
    group.add_argument(name, metavar=metavar, help=text, **more)


def _values(group: Any, name: str, metavar: str, text: str, **more: Any) -> None:
    _value(group, name, metavar, text, action="append", **more)


def _flag(group: Any, name: str, text: str) -> None:
    """Add a flag; None, the default, lets dlt look for the setting elsewhere."""
    group.add_argument(name, action="store_true", default=None, help=text)


def _one_of(names: Sequence[str]) -> Callable[[str], str]:
    """Return a type of option; argparse's `choices` would suggest no name."""

    def check(value: str) -> str:
        if value not in names:
            guess = did_you_mean(value, names) or f"; choose from {', '.join(names)}"
            raise argparse.ArgumentTypeError(f"unknown value {value!r}{guess}")
        return value

    return check


def _server(command: Parser, *, has_workers: bool = True) -> None:
    group = command.add_argument_group("server")
    _value(group, "--base-url", "URL", "address of the server")
    _api(group)
    _value(group, "--organization", "ORG", "slug of the organization")
    projects = group.add_mutually_exclusive_group()
    _values(projects, "--project", "SLUG", "slug of a project; repeatable")
    _flag(projects, "--all-projects", "all projects of the organization")
    _flag(group, "--allow-http", "allow http://; the token is sent unencrypted")
    if has_workers:
        text = "concurrent requests (default: 4)"
        _value(group, "--workers", "N", text, type=int)


def _api(group: Any, default: str | None = None) -> None:
    text = f"API of the server: {', '.join(APIS)} (default: v1)"
    _value(group, "--api", "NAME", text, type=_one_of([*APIS]), default=default)


def _tables(group: Any, *, has_history: bool = False) -> None:
    names = table_names() + ["issue_history"] * has_history
    text = f"only this table; repeatable: {', '.join(names)}"
    _values(group, "--resource", "TABLE", text, type=_one_of(names))


def _span(group: Any, until: str) -> None:
    _value(group, "--since", "T", "start, such as 2026-01-01, or 7d for 7 days ago")
    _value(group, "--until", "T", until)


def _rows(group: Any) -> None:
    _flag(group, "--full-events", "load stack traces; up to ten times the requests")
    _values(group, "--redact", "PATH", "mask a field, such as user.email; repeatable")
    text = "add the column tag_NAME to events; repeatable"
    _values(group, "--tag", "NAME", text, dest="tags")


def _warehouse(command: Parser, title: str = "warehouse") -> Any:
    group = command.add_argument_group(title)
    for option, default, text in (
        ("--destination", "duckdb", "dlt destination"),
        ("--dataset", "analytics", "dataset, or schema"),
        ("--pipeline-name", "analytics_pipeline", "pipeline and DuckDB file"),
    ):
        _value(group, option, "NAME", f"{text} (default: {default})", default=default)
    _folder(group)
    return group


def _folder(group: Any) -> None:
    _value(group, "--pipelines-dir", "DIR", "dlt's working directory")


def _output(command: Parser, *, has_progress: bool = True) -> None:
    group = command.add_argument_group("output")
    if has_progress:
        text = "live, log, off; auto: live on a terminal, else log"
        kind = _one_of(["auto", "live", "log", "off"])
        _value(group, "--progress", "KIND", text, type=kind, default="auto")
    _flag(group, "--json", "print the result as JSON")
    _verbosity(group)


def _verbosity(group: Any) -> None:
    text = "log more; -vv: also log each request"
    group.add_argument("-v", dest="verbosity", action="count", default=0, help=text)


def _run(command: Parser) -> None:
    _server(command)
    group = command.add_argument_group("what to load")
    _tables(group, has_history=True)
    _span(group, "end (default: now); does not affect later runs")
    _value(group, "--lookback", "SPAN", "reread this span, for late rows (default: 1h)")
    _flag(group, "--history", "also load issue_history")
    sweep = "reread all issues: every 7d, now, never (default: 1d)"
    _value(group, "--sweep", "SPAN", sweep)
    _flag(group, "--full-refresh", "load everything again")
    rows = "commit after this many rows (default: 100000)"
    _value(group, "--rows-per-load", "N", rows, type=int)
    _rows(group)
    group, formats = _warehouse(command), _one_of(["delta", "iceberg"])
    lake = "delta or iceberg, for the destination filesystem"
    _value(group, "--table-format", "NAME", lake, type=formats)
    _output(command)


def _check(command: Parser) -> None:
    _server(command, has_workers=False)
    group = command.add_argument_group("what to check")
    _tables(group)
    fresh = (
        "check the warehouse instead: fail if the newest event or issue, or the last"
        " complete read of a list, is older than 2h, 1d"
    )
    _value(group, "--freshness", "SPAN", fresh)
    complete = (
        "with --freshness: check only when lists were last read, so that projects"
        " without new errors do not fail"
    )
    _flag(group, "--complete", complete)
    _warehouse(command, "warehouse, for --freshness")
    _output(command, has_progress=False)


def _status(command: Parser) -> None:
    _warehouse(command)
    _output(command, has_progress=False)


def _verify(command: Parser) -> None:
    _server(command)
    group = command.add_argument_group("what to compare")
    _tables(group)
    _span(group, "end (default: now)")
    _flag(group, "--repair", "reload rows that differ")
    _rows(group)
    _warehouse(command)
    _output(command)


def _demo(command: Parser) -> None:
    group = command.add_argument_group("demo")
    _api(group, default="v1")
    _folder(group)
    _output(command)


def _report(command: Parser) -> None:
    _warehouse(command)
    group, default = command.add_argument_group("output"), "analytics_report.html"
    _value(group, "--output", "FILE", f"default: {default}", default=default)
    _verbosity(group)


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
