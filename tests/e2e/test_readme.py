"""The README's worked example runs as it stands there."""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from recsys import config, pipeline, registry
from recsys.evaluation import report
from recsys.export.release import find, open_release
from recsys.retrieval import Retriever
from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def block(name: str) -> str:
    """Return the code block that follows the marker `<!-- example: name -->`."""
    found = re.search(rf"<!-- example: {re.escape(name)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert found, f"README has no example {name!r}"
    return found.group(1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("readme")


@pytest.fixture(scope="module")
def printed(folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COLUMNS": "200", "NO_COLOR": "1"}
    subprocess.run([sys.executable, "-c", block("data")], cwd=folder, check=True, timeout=60)
    script = "set -euo pipefail\n" + block("commands")
    done = subprocess.run(
        ["bash", "-c", script], cwd=folder, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def answers(printed: str) -> list[str]:
    """Return the rows of the tables of answers: a place, then a book's id."""
    return re.findall(r"^│\s+\d+ │ b\d+ .*$", printed, re.MULTILINE)


def test_the_worked_example_ends_in_answers_for_every_form_of_query(printed):
    # five queries, five places each
    assert len(answers(printed)) == 25


def test_a_reader_is_recommended_books_of_their_genre(printed):
    # reader r7 likes genres[7 % 4] = science; the first five answers are theirs
    assert sum("science" in row for row in answers(printed)[:5]) >= 4


def test_the_last_query_tells_what_its_feedback_did(printed):
    # `history`: towards liked books as far as having met them means, away from disliked ones by its weight
    told = re.findall(r"^│ (b\d+) +│ +(\S+) │$", printed, re.MULTILINE)
    assert [book for book, _ in told] == ["b3", "b7", "b4"]
    assert min(float(weight) for _, weight in told[:2]) > 0
    assert float(told[2][1]) <= 0


def test_the_example_of_feedback_runs_against_the_release(printed, folder):
    server = Server(ServerSettings(port=0), make_logger(io.BytesIO()))
    try:
        server.listen()
        server.install(Retriever.load(find(folder / "releases")))
        code = block("feedback.py").replace("127.0.0.1:50051", server.address)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    finally:
        server.stop()
    assert done.returncode == 0, done.stderr
    names, _, both = done.stdout.strip().splitlines()
    assert names == "('average', 'history', 'identity', 'rocchio')"
    shown, better = re.findall(r"\(([^()]*)\)", both)
    assert shown != better


def test_the_data_report_counts_what_was_written(printed):
    # 300 readers met 30 books each
    assert "9,000" in printed


def test_the_run_file_by_hand_trains_the_same_kind_of_model_and_its_release_says_so(printed, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "by_hand.toml").write_text(block("run.toml"), encoding="utf-8")
    run = config.load(folder / "by_hand.toml", ["evaluation.baselines=['popularity']"])
    by_hand = pipeline.train(run, folder / "work", folder / "by_hand")
    stored, proposed = (
        config.load(release.folder / "run.toml") for release in (by_hand, open_release(find(folder / "releases")))
    )
    assert (run.objective, run.evaluation.exclude_seen) == (None, None)
    assert registry.kind_of(stored.objective) == registry.kind_of(proposed.objective) == "dlae"
    assert stored.evaluation.exclude_seen is proposed.evaluation.exclude_seen is False
    judged = report.load(by_hand.folder)
    ours, popular = (judged.find(name, "nDCG@10").value for name in (report.OURS, "popularity"))
    assert ours > 1.5 * popular


def test_the_second_task_of_the_readme_fits_its_run_file(tmp_path):
    (tmp_path / "run.toml").write_text(block("run.toml") + block("self_supervision.toml"), encoding="utf-8")
    run = config.load(tmp_path / "run.toml")
    assert [registry.kind_of(stage) for stage in run.self_supervision.augmentations] == [
        "correlated_mask",
        "value_dropout",
    ]


def test_the_closed_form_of_the_readme_replaces_sections_of_its_run_file():
    tables, closed = tomllib.loads(block("run.toml")), tomllib.loads(block("closed_form.toml"))
    run = config.from_tables(tables | closed)
    assert registry.kind_of(run.objective) == "dlae"


def test_the_transformer_of_the_readme_replaces_sections_of_its_run_file():
    tables, order = tomllib.loads(block("run.toml")), tomllib.loads(block("order.toml"))
    run = config.from_tables(tables | order)
    assert run.query.features["read"].reads_order
