"""`recsys data dependence` on the block world."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from recsys import config
from recsys.files import exclusive
from tests.unit.test_cli import recsys
from tests.worlds import block_run

CONTENT = ("taste", "tags", "price", "title", "vector")


@pytest.fixture
def run_file(block_world: Path, tmp_path: Path) -> Path:
    path = tmp_path / "run.toml"
    path.write_text(config.dumps(config.from_tables(block_run(block_world))), encoding="utf-8")
    return path


def test_it_prints_both_heat_maps_and_each_feature_s_partner_and_draws_a_plot(run_file, tmp_path):
    done = recsys("data", "dependence", str(run_file), "--plot", "heat.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "item features over 40 items, each counted once" in done.stdout
    # H(id) = log 40 = 3.69; two tastes, evenly: MI = log 2; 2 log 2 / (log 40 + log 2) = 0.32
    assert "1 id    │   3.69│   0.69│" in done.stdout
    assert "1 id    │   1.00│   0.32│" in done.stdout
    # Of the tags (all, tag r mod 4), the draw is 'all' or one of four that decide the taste: MI = 1/2 log 2 = 0.347.
    # H(tags) = 1/2 log 2 + 1/2 log 8 = 2 log 2; 2 * 1/2 log 2 / (2 log 2 + log 2) = 1/3
    assert "taste and tags depend most on each other: 0.347 nats, 0.333 normalised." in done.stdout
    # Next to the id, which tells all of each and is nobody's partner.
    assert "depends most on id" not in done.stdout
    sides = [line.partition(" hides ")[2] for line in done.stdout.splitlines() if line.startswith("correlated_mask")]
    assert sum(int(side.split()[-4]) for side in sides) == 5  # as many as features besides the id
    assert all(sorted(re.findall(r"taste|tags|price|title|vector", side)) == sorted(CONTENT) for side in sides)
    assert (tmp_path / "heat.png").read_bytes().startswith(b"\x89PNG")


def test_it_works_on_the_data_that_training_prepared_and_leaves_it_to_it(run_file, tmp_path):
    contents = tmp_path / "elsewhere" / "blocks" / "prepared" / "contents.json"
    words = ("data", "dependence", str(run_file), "--work", str(tmp_path / "elsewhere"))
    assert recsys(*words).returncode == 0
    before = contents.stat()
    again = recsys(*words)
    assert again.returncode == 0
    assert "read interactions" not in again.stderr
    assert contents.stat().st_mtime_ns == before.st_mtime_ns


def test_weighted_by_interactions_items_that_are_met_more_often_count_more(run_file, tmp_path):
    done = recsys("data", "dependence", str(run_file), "--weighted-by", "interactions", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "each counted as often as it is met in training" in done.stdout
    # Items are met unevenly, so the entropy of their ids is below log 40 = 3.69.
    assert "1 id    │   3.67│" in done.stdout


def test_a_run_that_another_process_works_on_is_left_alone(run_file, tmp_path):
    home = tmp_path / "work" / "blocks"
    home.mkdir(parents=True)
    with exclusive(home):
        done = recsys("data", "dependence", str(run_file), folder=tmp_path)
    assert done.returncode == 2
    assert "another process works on this run" in done.stderr
    assert not (home / "prepared").exists()


def test_the_notice_of_the_data_is_told(tmp_path):
    tables = {
        "name": "s",
        "source": {"kind": "synthetic", "users": 20, "items": 10, "interactions": 200, "groups": 2},
        "query": {"features": {"segment": {"kind": "categorical"}}},
        "item": {"features": {"category": {"kind": "categorical"}}},
    }
    (tmp_path / "run.toml").write_text(config.dumps(config.from_tables(tables)), encoding="utf-8")
    done = recsys("data", "dependence", "run.toml", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Synthetic" in done.stdout
