"""What several test folders share: the tiny worlds, and one release trained on one of them."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from recsys import config
from recsys.config import Run
from recsys.export.release import Release
from tests.worlds import block_run, write_block_world

if TYPE_CHECKING:
    from serving.simulation import Simulated


def pytest_configure(config: pytest.Config) -> None:
    """Keep compiled modules for this session where none are written beside the sources.

    The suite starts a hundred processes, and TensorFlow alone takes 6 s of CPU to compile anew in each of them.
    """
    if sys.dont_write_bytecode:
        folder = tempfile.TemporaryDirectory(prefix="bytecode-", ignore_cleanup_errors=True)
        config.add_cleanup(folder.cleanup)
        sys.dont_write_bytecode, sys.pycache_prefix = False, folder.name
        os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
        os.environ["PYTHONPYCACHEPREFIX"] = folder.name


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let SIGINT interrupt, which a shell turns off for what it starts in the background."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def block_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the block world's Parquet files."""
    folder = tmp_path_factory.mktemp("block_world")
    write_block_world(folder)
    return folder


@pytest.fixture(scope="session")
def block_settings(block_world: Path) -> Run:
    """The run over the block world."""
    return config.from_tables(block_run(block_world))


@pytest.fixture(scope="session")
def block_release(block_settings: Run, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """A release trained on the block world by the real pipeline."""
    from recsys import pipeline

    folder = tmp_path_factory.mktemp("block_release")
    return pipeline.train(block_settings, folder / "work", folder / "releases")


@pytest.fixture(scope="session")
def other_block_release(block_world: Path, tmp_path_factory: pytest.TempPathFactory) -> Release:
    """Another release over the same items and users, with other towers."""
    from recsys import pipeline

    folder = tmp_path_factory.mktemp("other_block_release")
    tables = block_run(block_world, seed=4)
    tables["training"] |= {"epochs": 1}
    return pipeline.train(config.from_tables(tables), folder / "work", folder / "releases")


@pytest.fixture(scope="session")
def simulated(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """An experiment on a real server by users whose preferences are known."""
    from tests.simulated import simulated_in

    return simulated_in(tmp_path_factory.mktemp("simulated"))
