"""Runs the command line in another process, to be killed or interrupted."""

import multiprocessing
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import analytics_pipeline
from analytics_pipeline.cli.main import main
from analytics_pipeline.demo import DemoServer
from tests.conftest import ORGANIZATION, TOKEN

ROOT = str(Path(analytics_pipeline.__file__).parents[1])
PROJECTS = ["frontend", "backend"]

# A process that has imported everything is forked for each run.
if sys.platform == "win32":
    fresh: Any = multiprocessing.get_context("spawn")
else:
    fresh = multiprocessing.get_context("forkserver")
    fresh.set_forkserver_preload(["__main__", "tests.children"])


def arguments(
    server: DemoServer, folder: Path, *words: str, projects: Sequence[str] = PROJECTS
) -> list[str]:
    named = [word for slug in projects for word in ("--project", slug)]
    return [
        *("--base-url", server.url, "--organization", ORGANIZATION, *named),
        *("--pipelines-dir", str(folder / "pipelines"), "--progress", "off", *words),
    ]


def environment() -> dict[str, str]:
    return {**os.environ, "AUTH_TOKEN": TOKEN, "PYTHONPATH": ROOT}


def start(
    server: DemoServer, folder: Path, *words: str, **options: Any
) -> subprocess.Popen[str]:
    """Start it as a user does; its output and errors are captured."""
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "analytics_pipeline",
            *arguments(server, folder, *words),
        ],
        **{
            "cwd": folder,
            "env": environment(),
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.PIPE,
            "stderr": subprocess.PIPE,
            "text": True,
            **options,
        },
    )


def run(
    server: DemoServer, folder: Path, *words: str, **options: Any
) -> tuple[int, str]:
    """Run it to its end; return exit code and standard error."""
    with start(server, folder, *words, **options) as process:
        _, said = process.communicate(timeout=120)
        return process.returncode, said


def fork(
    server: DemoServer, folder: Path, *words: str, projects: Sequence[str] = PROJECTS
) -> Any:
    """Fork it as a `multiprocessing.Process`, which is faster than `start`."""
    process = fresh.Process(
        target=_main,
        args=(
            arguments(server, folder, *words, projects=projects),
            folder,
            environment(),
        ),
    )
    process.start()
    return process


def _main(argv: list[str], folder: Path, environ: Mapping[str, str]) -> None:
    os.chdir(folder)
    os.environ.update(environ)
    with open(folder / "said", "a") as file:
        os.dup2(file.fileno(), 2)
        sys.exit(main(argv))
