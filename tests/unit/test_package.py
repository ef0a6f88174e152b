"""The layers of the package, what importing it does, and what its wheel contains."""

import ast
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest

import analytics_pipeline

NAME = "analytics_pipeline"
FOLDER = Path(analytics_pipeline.__file__).parent


def module_name(path: Path) -> str:
    """Return the dotted name of a file, without the package: `client.page`."""
    parts = path.relative_to(FOLDER).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


MODULES = {module_name(path): path for path in sorted(FOLDER.rglob("*.py"))}
"""Name → file; "" is the package itself."""


def imports(module: str) -> set[str]:
    """Return everything that a module imports, also inside functions."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            base = node.module or ""
            for alias in node.names:
                inner = f"{base}.{alias.name}".removeprefix(f"{NAME}.")
                is_module = base.split(".")[0] == NAME and inner in MODULES
                found.add(f"{base}.{alias.name}" if is_module else base)
    return found


def of_package(names: set[str]) -> set[str]:
    """Return the names of `MODULES` among these."""
    return {
        name.removeprefix(NAME).removeprefix(".")
        for name in names
        if name.split(".")[0] == NAME
    }


def below(package: str) -> list[str]:
    return [name for name in MODULES if name.split(".")[0] == package]


def test_public_names_are_sorted_and_exist() -> None:
    names = analytics_pipeline.__all__
    assert names == sorted(names)
    assert all(hasattr(analytics_pipeline, name) for name in names)


@pytest.mark.parametrize("module", below("client"))
def test_the_client_imports_neither_dlt_nor_arrow(module: str) -> None:
    names = imports(module)
    assert names.isdisjoint(("dlt", "pyarrow"))
    assert not [name for name in names if name.startswith(("dlt.", "pyarrow."))]
    allowed = {*below("client"), "errors", "secrets", "values"}
    assert of_package(names) <= allowed


@pytest.mark.parametrize("module", below("tables"))
def test_tables_import_only_tables_and_errors(module: str) -> None:
    allowed = {*below("tables"), "errors", "secrets", "values"}
    assert of_package(imports(module)) <= allowed


def test_errors_import_only_secrets() -> None:
    assert of_package(imports("errors")) == {"secrets"}
    assert of_package(imports("secrets")) == set()


def test_bookmarks_import_neither_dlt_nor_other_modules() -> None:
    names = imports("bookmarks")
    assert of_package(names) == set()
    assert not [name for name in names if name.split(".")[0] in ("dlt", "pyarrow")]


def test_only_the_command_line_imports_the_command_line() -> None:
    importers = {
        module
        for module in MODULES
        if any(name.split(".")[0] == "cli" for name in of_package(imports(module)))
    }
    assert importers <= {*below("cli"), "__main__"}
    assert "__main__" in importers


def test_every_imported_module_of_the_package_exists() -> None:
    for module in MODULES:
        assert of_package(imports(module)) <= MODULES.keys()


SIDE_EFFECTS = """
import logging, os, signal, threading, warnings
import dlt, pyarrow, requests

def state():
    loggers = [logging.getLogger(name) for name in ("", "dlt", "urllib3")]
    return {
        "environment": dict(os.environ),
        "filters": [list(logger.filters) for logger in loggers],
        "handlers": [
            (list(logger.handlers), [list(h.filters) for h in logger.handlers])
            for logger in loggers
        ],
        "levels": [logger.level for logger in loggers],
        "warnings": list(warnings.filters),
        "signals": [signal.getsignal(s) for s in (signal.SIGINT, signal.SIGTERM)],
        "threads": threading.active_count(),
    }

before = state()
import analytics_pipeline, analytics_pipeline.runner
after = state()
assert not any(after["filters"]), after["filters"]
changed = {name: (before[name], after[name]) for name in before if before[name] != after[name]}
assert not changed, changed
"""


def test_importing_the_package_changes_nothing_in_the_process() -> None:
    command = [sys.executable, "-W", "ignore", "-c", SIDE_EFFECTS]
    child = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout == ""


@pytest.mark.parametrize(
    "words", [["run", "--help"], ["--version"], ["--organisation"]]
)
def test_help_and_usage_errors_do_not_import_dlt(words: list[str]) -> None:
    code = f"""
import sys
from analytics_pipeline.cli.main import main
try:
    main({words})
except SystemExit:
    assert not {{"dlt", "pyarrow", "duckdb"}} & sys.modules.keys()
else:
    raise AssertionError
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_the_wheel_contains_every_file_of_the_package() -> None:
    setup = ConfigParser()
    setup.read(FOLDER.parent / "setup.cfg")
    data = setup["options.package_data"]
    matched = {
        path
        for package, patterns in data.items()
        for pattern in patterns.split()
        for path in FOLDER.parent.joinpath(*package.split(".")).glob(pattern)
        if path.is_file()
    }
    packages = {path.parent for path in FOLDER.rglob("__init__.py")}
    skipped = {"__pycache__", "target", "logs"}
    missing = {
        path
        for path in FOLDER.rglob("*")
        if path.is_file()
        and not skipped & {*path.parts}
        and not (path.suffix == ".py" and path.parent in packages)
    } - matched
    assert missing == set()
    assert FOLDER / "examples" / "crontab" in matched
