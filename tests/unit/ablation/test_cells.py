"""The cells of an ablation: what they ask of the process that hands them out, and of the data."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from recsys import config
from recsys.ablation.cells import Case, Cell, _work
from recsys.data.prepare import version
from recsys.errors import DataError
from tests.worlds import block_run


def cell_over(block_world: Path) -> Cell:
    tables = config.plain_tables(config.from_tables(block_run(block_world)))
    return Cell(Case(1.0, "counts"), "baseline", {}, 1, "test", tables)


def test_the_process_that_hands_out_cells_does_without_tensorflow():
    asked = "import sys, recsys.ablation.ablate, recsys.ablation.show; print('tensorflow' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "False"


def test_a_cell_is_not_trained_on_other_data_than_it_was_handed_out_for(block_world, tmp_path):
    cell = cell_over(block_world)
    with pytest.raises(DataError, match="files changed while the ablation ran"):
        _work(cell, tmp_path / "cell", tmp_path / "data", "of other files")
    assert list(tmp_path.iterdir()) == []
    assert version(cell.run) != "of other files"
