"""What the package promises of itself."""

from pathlib import Path

import analytics_pipeline

PACKAGE = Path(analytics_pipeline.__file__).parent


def test_public_names_are_sorted_and_exist() -> None:
    names = analytics_pipeline.__all__
    assert names == sorted(names)
    assert all(hasattr(analytics_pipeline, name) for name in names)


def test_no_file_outgrows_300_lines() -> None:
    lengths = {
        path.name: len(path.read_text().splitlines())
        for path in PACKAGE.rglob("*.py")
        if "examples" not in path.parts
    }
    assert {name: count for name, count in lengths.items() if count > 300} == {}
