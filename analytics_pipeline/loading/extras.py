"""The command that installs an extra of this package."""

import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

NAME = "analytics-pipeline"
FOLDER = Path(__file__).parents[1]
"""A clone of the repository, or site-packages."""


def install_command(extra: str) -> str:
    """Return the command that installs an extra from where this package came."""
    url = _origin()
    return f"pip install '{NAME}[{extra}]{f' @ {url}' if url else ''}'"


def _origin() -> str:
    """Return the URL that the package was installed from (PEP 610); empty: an index."""
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
