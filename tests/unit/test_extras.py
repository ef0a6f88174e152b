"""The command to install an extra fits how the package was installed."""

import json
from importlib.metadata import Distribution, PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest

from analytics_pipeline.loading import extras


class Installed(Distribution):
    """An installed package and its origin."""

    def __init__(self, origin: dict[str, Any] | None) -> None:
        self.origin = origin

    def read_text(self, filename: str) -> str | None:
        assert filename == "direct_url.json"
        return json.dumps(self.origin) if self.origin else None

    def locate_file(self, path: Any) -> Any:
        raise NotImplementedError


@pytest.fixture(autouse=True)
def installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The package is installed in site-packages."""
    monkeypatch.setattr(extras, "FOLDER", tmp_path / "site-packages")


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        (None, ""),
        (
            {"url": "file:///home/ann/my%20clone", "dir_info": {}},
            " @ file:///home/ann/my%20clone",
        ),
        (
            {
                "url": "https://git.example.com/acme/analytics_pipeline",
                "vcs_info": {"vcs": "git", "commit_id": "abc123"},
            },
            " @ git+https://git.example.com/acme/analytics_pipeline@abc123",
        ),
        (
            {"url": "https://files.example.com/a.whl", "archive_info": {}},
            " @ https://files.example.com/a.whl",
        ),
    ],
)
def test_an_extra_is_installed_from_the_source_of_the_package(
    origin: dict[str, Any] | None, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extras, "distribution", lambda name: Installed(origin))
    command = f"pip install 'analytics-pipeline[report]{expected}'"
    assert extras.install_command("report") == command


def test_an_extra_of_a_clone_is_installed_from_the_clone(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Even if its `.egg-info` does not contain its origin."""
    (tmp_path / "setup.cfg").touch()
    monkeypatch.setattr(extras, "FOLDER", tmp_path)
    expected = f"pip install 'analytics-pipeline[report] @ {tmp_path.as_uri()}'"
    assert extras.install_command("report") == expected


def test_an_extra_of_a_package_that_is_not_installed_comes_from_an_index(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def missing(name: str) -> Distribution:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(extras, "distribution", missing)
    expected = "pip install 'analytics-pipeline[report]'"
    assert extras.install_command("report") == expected
