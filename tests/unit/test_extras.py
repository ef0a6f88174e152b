"""The command that installs an extra is right for how this package was installed."""

import json
import shlex
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline import extras


class Installed(Distribution):
    """A package that came from somewhere."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.origin = origin

    def read_text(self, filename: str) -> str | None:
        assert filename == "direct_url.json"
        return json.dumps(self.origin) if self.origin else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package is where packages are installed."""
    monkeypatch.setattr(extras, "FOLDER", tmp_path / "site-packages")


def advice(monkeypatch: pytest.MonkeyPatch, origin: dict[str, Any] | None) -> str:
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(origin))
    return extras.install_command("report")


def test_from_an_index(monkeypatch: pytest.MonkeyPatch) -> None:
    assert advice(monkeypatch, None) == "pip install 'analytics-pipeline[report]'"


def test_from_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    clone = tmp_path / "my clone"
    clone.mkdir()
    command = advice(monkeypatch, {"url": clone.as_uri(), "dir_info": {}})
    assert shlex.split(command) == ["pip", "install", f"{clone}[report]"]


def test_from_a_folder_that_is_gone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    command = advice(monkeypatch, {"url": (tmp_path / "gone").as_uri(), "dir_info": {}})
    assert command == "pip install 'analytics-pipeline[report]'"


def test_from_a_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    origin = {
        "url": "https://git.example.com/acme/analytics_pipeline",
        "vcs_info": {"vcs": "git", "commit_id": "abc123"},
    }
    assert advice(monkeypatch, origin) == (
        "pip install 'analytics-pipeline[report] @"
        " git+https://git.example.com/acme/analytics_pipeline@abc123'"
    )


def test_from_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "https://files.example.com/analytics_pipeline-1.0.0-py3-none-any.whl"
    assert advice(monkeypatch, {"url": url, "archive_info": {}}) == (
        f"pip install 'analytics-pipeline[report] @ {url}'"
    )


def test_in_a_clone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Also where an `.egg-info` beside it says nothing of its origin."""
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "setup.cfg").touch()
    monkeypatch.setattr(extras, "FOLDER", clone)
    command = advice(monkeypatch, None)
    assert shlex.split(command) == ["pip", "install", f"{clone}[report]"]
    monkeypatch.chdir(clone)
    assert advice(monkeypatch, None) == "pip install '.[report]'"


def test_without_any_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", missing)
    command = extras.install_command("report")
    assert command == "pip install 'analytics-pipeline[report]'"
