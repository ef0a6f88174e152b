"""Example files, changed at their top as a user would, and imported."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import analytics_pipeline
from tests.conftest import ORGANIZATION, TOKEN
from tests.fake_server import FakeServer

FOLDER = Path(analytics_pipeline.__file__).parent / "examples"


def environment(server: FakeServer) -> dict[str, str]:
    """Return the settings that the examples expect in the environment."""
    return {
        "BASE_URL": server.url,
        "AUTH_TOKEN": TOKEN,
        "ORGANIZATION": ORGANIZATION,
        "PROJECT": '["frontend", "backend"]',
    }


def edited(name: str, **settings: str) -> str:
    """Return the text of an example with changed settings."""
    source = (FOLDER / name).read_text()
    for setting, value in settings.items():
        source, count = re.subn(f"(?m)^{setting} = .*", f"{setting} = {value}", source)
        assert count == 1
    return source


def imported(name: str, folder: Path, **settings: str) -> ModuleType:
    """Import a copy of the example."""
    copy = folder / name
    copy.write_text(edited(name, **settings))
    spec = importlib.util.spec_from_file_location(copy.stem, copy)
    assert spec
    assert spec.loader
    module = sys.modules[copy.stem] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
