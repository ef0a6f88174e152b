"""How to install what an optional part needs, wherever this package came from."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "analytics-pipeline"
FOLDER = Path(__file__).parents[1]
"""Of the package: a clone, or where packages are installed."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra: from a folder, a repository or an index.

    Where an installed package came from is in its `direct_url.json` (PEP 610).
    """
    if (FOLDER / "setup.cfg").exists():
        return _from_folder(FOLDER, extra)
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    origin = json.loads(text) if text else {}
    url = origin.get("url", "")
    if "dir_info" in origin:
        folder = Path(unquote(urlsplit(url).path))
        return _from_folder(folder, extra) if folder.exists() else _from_index(extra)
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return _from_index(extra, f" @ {url}" if url else "")


def _from_folder(folder: Path, extra: str) -> str:
    place = "." if folder == Path.cwd() else str(folder)
    return "pip install " + shlex.quote(f"{place}[{extra}]")


def _from_index(extra: str, url: str = "") -> str:
    return f"pip install '{NAME}[{extra}]{url}'"
