"""Make the pictures of the README: `python tests/pictures.py`. Needs Chromium.

They show `run` and `report` with the rows of the built-in server.
"""

import contextlib
import io
import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.terminal_theme import MONOKAI

import analytics_pipeline
from analytics_pipeline import analytics_source, runner
from analytics_pipeline.cli import output
from analytics_pipeline.cli.progress import LiveCollector
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.report import page
from tests.fake_server import FakeServer

EXAMPLES = Path(analytics_pipeline.__file__).parent / "examples"
REPORT, RUN = EXAMPLES / "report.png", EXAMPLES / "run.png"
WIDTH, HEIGHT = 1000, 1000
RUN_HEIGHT = 320
COMMAND = (
    "python -m analytics_pipeline run --api sentry --organization acme --all-projects"
)
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)


def chromium(page: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """Open the page in a headless browser that connects to no service of its own."""
    with tempfile.TemporaryDirectory() as profile:
        return subprocess.run(
            [
                str(CHROMIUM),
                *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic"),
                *("--no-first-run", "--disable-background-networking"),
                *("--disable-component-update", "--disable-sync"),
                *(f"--user-data-dir={profile}", *words, page.as_uri()),
            ],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )


def report(folder: Path) -> str:
    """Return the report on a DuckDB in the folder, loaded from the built-in server."""
    projects = ["frontend", "backend"]
    pipeline = runner.make_pipeline(
        pipelines_dir=str(folder / "pipelines"), name="analytics_demo"
    )
    with DemoServer(projects=projects, token="demo") as server:
        runner.load(pipeline, analytics_source(server.url, "demo", "acme", projects))
    return page(pipeline)


class MidPoint(LiveCollector):
    """Keeps what the terminal shows when half of the rows are read."""

    text = ""

    def update(self, name: str, *args: Any, **kwargs: Any) -> None:
        super().update(name, *args, **kwargs)
        shown = Console(width=100)
        with shown.capture() as captured:
            shown.print(self.shown())
        if 0 < self._lines.get("events", (0, ""))[0] <= 3100:
            self.text = captured.get()


def run(folder: Path) -> str:
    """Return an HTML page of a terminal, in the middle and at the end of a run."""
    projects, token = ["frontend", "backend"], "demo"
    collector = MidPoint(Console(file=io.StringIO()))
    pipeline = runner.make_pipeline(
        pipelines_dir=str(folder / "pipelines"), progress=collector
    )
    with FakeServer(
        "sentry", projects=projects, token=token, latency=0.3, events=6000
    ) as server:
        source = analytics_source(server.url, token, "acme", projects, "sentry")
        summary = runner.load(pipeline, source)
    said = io.StringIO()
    with contextlib.redirect_stderr(said):
        output.show(summary, as_json=False)
    console = Console(record=True, width=100, file=io.StringIO())
    console.print(f"$ {COMMAND}", style="bold", highlight=False)
    console.print(collector.text, style="cyan", highlight=False, end="")
    console.print("…", style="dim")
    console.print(said.getvalue(), highlight=False, end="")
    return console.export_html(inline_styles=True, theme=MONOKAI).replace(
        "<body>", "<body style='font-size: 15px; padding: 6px 14px'>"
    )


def picture(html: str, target: Path, *words: str, height: int = HEIGHT) -> None:
    """Write a PNG of the top of the page, `WIDTH` × `height` pixels."""
    source = target.with_suffix(".html")
    source.write_text(html, "utf-8")
    chromium(
        source,
        *("--hide-scrollbars", f"--window-size={WIDTH},{height}"),
        *(f"--screenshot={target}", *words),
    )
    source.unlink()


def size(png: Path) -> tuple[int, int]:
    width, height = struct.unpack(">II", png.read_bytes()[16:24])
    return width, height


if __name__ == "__main__":
    if CHROMIUM is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as name:
        target = Path(name, "report.png")
        picture(report(Path(name)), target)
        REPORT.write_bytes(target.read_bytes())
        picture(run(Path(name)), target, height=RUN_HEIGHT)
        RUN.write_bytes(target.read_bytes())
