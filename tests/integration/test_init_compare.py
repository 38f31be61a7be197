"""`recsys init --compare`: validation decides whether the model reads the order of histories."""

import tomllib

import pytest

from recsys import config
from recsys.init import Named, run_file_for_files, run_file_for_source
from twintower.errors import SettingError

WORLD = {"users": 80, "items": 40, "interactions": 2_400, "order_rate": 1.0, "followers": 1}


def test_a_model_that_reads_the_order_of_histories_is_written_where_validation_prefers_it(tmp_path):
    text = run_file_for_source("synthetic", WORLD, "compared", tmp_path)
    run = config.from_tables(tomllib.loads(text))

    assert run.query_features["met"].pooling == "transformer"
    assert "Validation chose between two models" in text


def test_a_run_file_for_timed_data_says_how_to_compare():
    text = run_file_for_source("synthetic", WORLD, "timed")

    assert "recsys init --compare" in " ".join(text.replace("#", "").split())


def test_without_times_there_is_no_order_to_compare(tmp_path):
    path = tmp_path / "met.csv"
    path.write_text("user,item\n" + "".join(f"u{row % 7},i{row % 5}\n" for row in range(35)), encoding="utf-8")

    with pytest.raises(SettingError, match="--compare: got interactions without times"):
        run_file_for_files(Named(str(path)), "untimed", tmp_path)
