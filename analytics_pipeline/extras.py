"""How to install what an optional part needs, wherever this package came from."""

import json
import shlex
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from urllib.parse import unquote, urlsplit

NAME = "analytics-pipeline"


def install_command(extra: str) -> str:
    """Return the command that installs an extra: from an index, a folder or a repository.

    Where the package came from is in its `direct_url.json` (PEP 610).
    """
    try:
        text = distribution(NAME).read_text("direct_url.json")
    except PackageNotFoundError:
        folder = Path(__file__).parents[1]  # not installed: it runs from a clone
        return "pip install " + shlex.quote(f"{folder}[{extra}]")
    origin = json.loads(text) if text else {}
    url = origin.get("url", "")
    folder = Path(unquote(urlsplit(url).path))
    if "dir_info" in origin and folder.exists():
        return "pip install " + shlex.quote(f"{folder}[{extra}]")
    if "vcs_info" in origin:
        commit = origin["vcs_info"]["commit_id"]
        url = f"{origin['vcs_info']['vcs']}+{url}@{commit}"
    from_url = f" @ {url}" if url and "dir_info" not in origin else ""
    return f"pip install '{NAME}[{extra}]{from_url}'"
