"""The notebook runs from top to bottom, and is stored with its output."""

import copy
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import nbformat
import pytest
from nbclient import NotebookClient

import analytics_pipeline

QUICKSTART = Path(analytics_pipeline.__file__).parent / "examples" / "quickstart.ipynb"
PLOTS = {"days-plot", "worst-plot", "new-plot"}


def outputs(notebook: Any) -> dict[str, list[list[str]]]:
    """Return cell → the types of each output; a stream or an error has its name."""
    return {
        cell.id: [sorted(o.get("data", [o.output_type])) for o in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def texts(notebook: Any) -> dict[str, list[str]]:
    """Return cell → the text of each output."""
    return {
        cell.id: [output.data["text/plain"] for output in cell.outputs]
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


@pytest.fixture
def stored() -> Any:
    return nbformat.read(QUICKSTART, as_version=4)  # type: ignore[no-untyped-call]


def test_all_cells_run_without_a_warning(
    stored: Any, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The home folder is new, and creating the font cache takes long.
    monkeypatch.setenv("MPLCONFIGDIR", mpl.get_cachedir())
    notebook = copy.deepcopy(stored)
    first = next(cell for cell in notebook.cells if cell.cell_type == "code")
    # What a cell does wrong is an error. What a library does wrong, and Python shows,
    # would be an output that is not among the stored ones.
    strict = "import warnings; warnings.filterwarnings('error', module='__main__')\n"
    first.source = strict + first.source
    folder = {"metadata": {"path": str(elsewhere)}}
    NotebookClient(notebook, timeout=300, resources=folder).execute()
    shown = outputs(notebook)
    assert shown == outputs(stored)
    assert texts(notebook) == texts(stored)
    assert {
        name for name in shown if ["image/png", "text/plain"] in shown[name]
    } == PLOTS
    counts = next(cell for cell in notebook.cells if cell.id == "counts")
    text = counts.outputs[0].data["text/plain"]
    assert re.search(r"events +3000$", text, re.MULTILINE)
    assert (elsewhere / "quickstart.duckdb").exists()


def test_the_notebook_is_stored_with_plots_and_without_local_paths(stored: Any) -> None:
    shown = outputs(stored)
    assert all(["image/png", "text/plain"] in shown[name] for name in PLOTS)
    assert not {"stream", "error"} & {
        kind for kinds in shown.values() for each in kinds for kind in each
    }
    assert [cell.metadata for cell in stored.cells] == [{}] * len(stored.cells)
    assert stored.metadata.keys() == {"kernelspec", "language_info"}
    text = re.sub('"image/png": ".*"', "", QUICKSTART.read_text("utf-8"))
    assert not re.search(r"/home/|/tmp/|/root/|\\\\Users|127\.0\.0\.1|localhost", text)
    assert QUICKSTART.stat().st_size < 300_000
