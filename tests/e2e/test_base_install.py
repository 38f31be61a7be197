"""The base install, in an environment of its own: its size, what it imports, and a query to a real server."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.exact_retriever import ExactRetriever
from tests.e2e.test_wire import running

ROOT = Path(__file__).parents[2]
MAX_MB = 120
MAX_IMPORT_S = 0.4
HEAVY = ("pyarrow", "polars", "pydantic", "cryptography", "tensorflow")


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the base install of this tree, built from a copy so that the tree stays as it is."""
    source, made = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("base") / "venv"
    for package in ("recsys", "serving", "twintower"):
        shutil.copytree(ROOT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    uv = Path(sys.executable).with_name("uv")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, made], check=True, timeout=60)
    install = [uv, "pip", "install", "--quiet", "--python", made / "bin" / "python", source]
    subprocess.run(install, check=True, timeout=240)
    return made


def run(environment: Path, *command: str) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    return subprocess.run(
        [environment / "bin" / command[0], *command[1:]],
        capture_output=True,
        text=True,
        check=False,
        cwd=environment,
        env={**variables, "COLUMNS": "120", "NO_COLOR": "1"},
    )


def test_it_is_small(environment):
    size = sum(file.lstat().st_size for file in environment.rglob("*") if file.is_file())
    assert size <= MAX_MB * 2**20


def test_the_client_is_imported_without_what_training_and_serving_need(environment):
    code = f"""
import sys, time
import twintower
used = time.process_time()
from twintower import AsyncClient, Client, ClientTls
print([name for name in {HEAVY!r} if name in sys.modules], used <= {MAX_IMPORT_S})
"""
    done = run(environment, "python", "-c", code)
    assert done.stdout == "[] True\n", done.stderr


def test_it_asks_a_server_from_python_and_from_the_command_line(environment):
    with running(ExactRetriever()) as server:
        code = f"""
from twintower import Client, Query

with Client("{server.address}", timeout_s=10.0) as client:
    print(client.nearest_items(Query(vector=[1.0, 0.0]), 1).item_ids)
"""
        done = run(environment, "python", "-c", code)
        assert done.stdout == "('a',)\n", done.stderr
        queried = run(environment, "recsys", "query", "--target", server.address, "--vector", "1,0", "-k", "1")
        assert (queried.returncode, "│ a " in queried.stdout) == (0, True), queried.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [("serve", "serve"), ("explore", "web"), ("train", "train"), ("tune", "tune"), ("demo", "demo")],
)
def test_a_command_that_needs_more_names_the_one_extra_that_has_it(environment, command, extra):
    done = run(environment, "recsys", command, *(() if command == "demo" else ("anything",)))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert f"Run: python -m pip install 'twintower-recsys[{extra}]'\n" in done.stderr
