"""How to install what an optional part needs, wherever this package came from."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "analytics-pipeline"
FOLDER = Path(__file__).parents[1]
"""Of the package: a clone, or where packages are installed."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra: from a folder, a repository or an index."""
    url = _origin()
    return f"pip install '{NAME}[{extra}]{f' @ {url}' if url else ''}'"


def _origin() -> str:
    """Return where the package was installed from, by PEP 610; empty: from an index."""
    if (FOLDER / "setup.cfg").exists():
        return FOLDER.as_uri()
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        text = None
    origin = json.loads(text) if text else {}
    url = str(origin.get("url", ""))
    if "vcs_info" in origin:
        vcs = origin["vcs_info"]
        url = f"{vcs['vcs']}+{url}@{vcs['commit_id']}"
    return url
