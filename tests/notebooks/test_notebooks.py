"""Every notebook runs from top to bottom, and is committed without outputs."""

from __future__ import annotations

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from recsys import config, pipeline
from tests.worlds import repeat_run, write_repeat_world

NEEDS_RELEASE = ("02_offline_quality", "03_reformulation")
NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
LONGEST_CELL_LINES = 25

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a release over data in which people come back to items."""
    folder = tmp_path_factory.mktemp("repeats")
    write_repeat_world(folder)
    pipeline.train(config.from_tables(repeat_run(folder)), folder / "work", folder / "releases")
    return folder / "releases"


@each_notebook
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_notebook_runs_from_top_to_bottom(path, request, monkeypatch):
    if path.stem == "05_ab_analysis":
        simulated = request.getfixturevalue("simulated")
        monkeypatch.setenv("RECSYS_EXPERIMENT", str(simulated.plan.parents[1]))
    if path.stem in NEEDS_RELEASE:
        monkeypatch.setenv("RECSYS_RELEASES", str(request.getfixturevalue("releases")))
    notebook = nbformat.read(path, as_version=4)
    data = Path(os.environ.get("RECSYS_DATA_DIR", "nowhere"))
    missing = [name for name in notebook.metadata.get("needs_data", []) if not (data / name).is_dir()]
    if missing:
        pytest.skip(f"RECSYS_DATA_DIR has no {' and no '.join(missing)}")
    NotebookClient(notebook, timeout=120, resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert outputs
    assert all(output.output_type != "error" for output in outputs)


@each_notebook
def test_a_notebook_is_committed_without_outputs(path):
    cells = [cell for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "code"]
    assert all(cell.outputs == [] and cell.execution_count is None for cell in cells)


@each_notebook
def test_a_notebook_has_no_long_cells(path):
    for cell in nbformat.read(path, as_version=4).cells:
        if cell.cell_type == "code":
            assert len(cell.source.splitlines()) <= LONGEST_CELL_LINES
