"""Make the pictures of the README anew: `python tests/pictures.py`. Needs Chromium.

They show what `demo` and `report` make of the built-in server's rows.
"""

import shutil
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import analytics_pipeline
from analytics_pipeline import analytics_source, runner
from analytics_pipeline.demo import DemoServer
from analytics_pipeline.report import page

REPORT = Path(analytics_pipeline.__file__).parent / "examples/report.png"
WIDTH, HEIGHT = 1000, 1000
CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    None,
)


def chromium(page: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    """The page in a browser without a window, which asks nobody anything."""
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
    """The HTML page of a DuckDB in the folder, loaded from the built-in server."""
    projects = ["frontend", "backend"]
    pipeline = runner.make_pipeline(
        pipelines_dir=str(folder / "pipelines"), name="analytics_demo"
    )
    with DemoServer(projects=projects, token="demo") as server:
        runner.load(pipeline, analytics_source(server.url, "demo", "acme", projects))
    return page(pipeline)


def picture(html: str, target: Path, *words: str) -> None:
    """Of the top of the page, `WIDTH` × `HEIGHT` pixels, as PNG."""
    source = target.with_suffix(".html")
    source.write_text(html, "utf-8")
    chromium(
        source,
        *("--hide-scrollbars", f"--window-size={WIDTH},{HEIGHT}"),
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
