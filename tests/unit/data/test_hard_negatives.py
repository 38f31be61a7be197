"""Hard negatives: only what was mined is drawn, as often as it is said, and only from a file of the run's own data."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys import config
from recsys.data.batches import TrainingBatches
from recsys.data.hard_negatives import HardNegatives
from recsys.data.prepare import prepare
from recsys.errors import DataError
from recsys.types import NO_ROW, Interactions, Neighbours
from tests.mined import mined_for_training, mined_of
from tests.worlds import block_run


@pytest.fixture(scope="module")
def prepared(block_settings, tmp_path_factory):
    return prepare(block_settings, tmp_path_factory.mktemp("prepared") / "data")


def met(prepared, *pairs):
    """Return the data with only these training interactions, pairs of query row and item row."""
    query_row, item_row = np.array(pairs, np.int32).T
    return dataclasses.replace(prepared, parts={**prepared.parts, "train": Interactions(query_row, item_row)})


def batches(prepared, run, hard=None):
    return TrainingBatches(prepared, run, uniform_negatives=5, mask_positives=True, hard_negatives=hard)


def test_the_expected_draws_by_hand(prepared):
    # query 4 has two of three interactions and found items 3 and 5; query 9 has one and found item 5 alone.
    # of 6 examples with 2 draws each, 12 * 2/3 = 8 are of query 4, 4 for each item; 12 * 1/3 = 4 are of query 9
    few = met(prepared, (4, 0), (4, 1), (9, 2))
    expected = HardNegatives(mined_of([[3, 5], [5, NO_ROW]], [[0, 1], [2]]), few, 2).expected(6)
    assert {item: count for item, count in enumerate(expected) if count} == pytest.approx({3: 4.0, 5: 4.0 + 4.0})


def test_a_query_that_found_nothing_draws_from_the_whole_catalogue(prepared):
    few = met(prepared, (4, 0), (9, 2))
    hard = HardNegatives(mined_of([[3, 5], [NO_ROW, NO_ROW]], [[0], [2]]), few, 400)
    drawn = hard.draw(np.array([9, 4], np.int32), np.random.default_rng(0))
    assert len(np.unique(drawn[:400])) == 40
    assert set(drawn[400:]) == {3, 5}
    # of 2 examples with 400 draws each one half is uniform over 40 items: 10 each
    assert hard.expected(2)[[0, 3]] == pytest.approx([10.0, 10.0 + 200.0])


def test_each_example_draws_from_the_first_results_of_its_own_query_and_never_its_training_items(
    prepared, block_settings
):
    mined, positives = mined_for_training(prepared), prepared.positives("train")
    made = batches(prepared, block_settings, HardNegatives(mined, prepared, 2))
    user_of_code = {int(code): row for row, code in enumerate(prepared.query_codes["who"])}
    for step in range(made.steps):
        batch = made.batch(step)
        users = [user_of_code[int(code)] for code in batch["query"]["who"]]
        drawn = batch["candidate_row"][made.batch_size + 5 :].reshape(made.batch_size, 2)
        for user, items in zip(users, drawn, strict=True):
            assert set(items) <= set(mined.first.item_rows[user])
            assert not set(items) & set(positives[user])
        # what is hard for one query may be right for another, which then does not take it for wrong
        right = [[item in positives[user] for item in drawn.ravel()] for user in users]
        np.testing.assert_array_equal(batch["known_positive"][:, made.batch_size + 5 :], right)


def test_items_are_drawn_as_often_as_is_expected(prepared, block_settings):
    made = batches(prepared, block_settings, HardNegatives(mined_for_training(prepared), prepared, 4))
    drawn = np.concatenate([made.batch(step)["candidate_row"][made.batch_size + 5 :] for step in range(made.steps)])
    share = np.bincount(drawn, minlength=40) / len(drawn)
    # 9216 draws: a standard deviation of about 0.002 around 1/40
    np.testing.assert_allclose(share, made.expected_hard / made.expected_hard.sum(), atol=0.01)
    assert made.expected_hard.sum() == pytest.approx(made.batch_size * 4)


def test_everything_else_of_a_batch_is_what_it_is_without(prepared, block_settings):
    plain = batches(prepared, block_settings)
    made = batches(prepared, block_settings, HardNegatives(mined_for_training(prepared), prepared, 1))
    assert plain.expected_hard is None
    for step in range(plain.steps):
        one, other = plain.batch(step), made.batch(step)
        size = len(one["candidate_row"])
        np.testing.assert_array_equal(one["candidate_row"], other["candidate_row"][:size])
        np.testing.assert_array_equal(one["known_positive"], other["known_positive"][:, :size])
        for name, codes in one["query"].items():
            np.testing.assert_array_equal(codes, other["query"][name])


def test_draws_depend_on_seed_and_step_alone(prepared, block_settings):
    hard = HardNegatives(mined_for_training(prepared), prepared, 1)
    forwards, backwards = batches(prepared, block_settings, hard), batches(prepared, block_settings, hard)
    first = [forwards.batch(step)["candidate_row"] for step in range(8)]
    again = [backwards.batch(step)["candidate_row"] for step in reversed(range(8))][::-1]
    np.testing.assert_array_equal(first, again)
    # the same examples in another epoch draw anew
    assert any((one[-64:] != first[0][-64:]).any() for one in first)


def test_a_file_for_this_data_is_read(prepared, tmp_path):
    mined_for_training(prepared).write(tmp_path / "mined.arrow")
    assert HardNegatives.read(tmp_path / "mined.arrow", prepared, 1).expected(64).sum() == pytest.approx(64)


def test_first_results_of_held_out_queries_are_refused(prepared, tmp_path):
    mined = mined_for_training(prepared)
    dataclasses.replace(mined, facts=dict(mined.facts) | {"part": "validation"}).write(tmp_path / "mined.arrow")
    told = r"mined\.arrow: got first results of validation queries, expected those of training queries\. Write it with"
    with pytest.raises(DataError, match=told):
        HardNegatives.read(tmp_path / "mined.arrow", prepared, 1)


@pytest.mark.parametrize(
    "changes", [{"split": {"kind": "leave_last", "test_count": 2}}, {"data": {"training_rate": 0.5}}]
)
def test_first_results_for_other_training_data_are_refused(changes, prepared, block_world, tmp_path):
    mined_for_training(prepared).write(tmp_path / "mined.arrow")
    other = prepare(config.from_tables(block_run(block_world, **changes)), tmp_path / "data")
    told = r"mined\.arrow: got first results for other training interactions or another catalog, expected those of"
    with pytest.raises(DataError, match=told):
        HardNegatives.read(tmp_path / "mined.arrow", other, 1)


def test_other_features_of_the_same_data_are_accepted(prepared, block_world, tmp_path):
    mined_for_training(prepared).write(tmp_path / "mined.arrow")
    query = {"features": {"who": {"kind": "id", "width": 4}}}
    other = prepare(config.from_tables(block_run(block_world, query=query)), tmp_path / "data")
    HardNegatives.read(tmp_path / "mined.arrow", other, 1)


def test_a_file_that_is_not_there_is_the_caller_s_mistake(prepared, tmp_path):
    with pytest.raises(DataError, match=r"nothing\.arrow: .*expected a file of mined feedback"):
        HardNegatives.read(tmp_path / "nothing.arrow", prepared, 1)


def test_the_queries_of_a_file_written_by_hand_are_counted(prepared, tmp_path):
    mined = mined_for_training(prepared)
    mined.take(np.arange(len(mined) - 1)).write(tmp_path / "mined.arrow")
    with pytest.raises(DataError, match="expected those of this run's data"):
        HardNegatives.read(tmp_path / "mined.arrow", prepared, 1)


def test_rows_that_the_catalogue_does_not_have_are_refused(prepared, tmp_path):
    mined = mined_for_training(prepared)
    rows = mined.first.item_rows.copy()
    rows[0, 0] = prepared.item_count
    dataclasses.replace(mined, first=Neighbours(rows, mined.first.scores)).write(tmp_path / "mined.arrow")
    with pytest.raises(DataError, match=r"mined\.arrow: got queries or rows that cannot have been mined, expected"):
        HardNegatives.read(tmp_path / "mined.arrow", prepared, 1)


def test_without_the_table_a_resolved_run_says_nothing_of_hard_negatives(block_settings):
    assert "hard_negatives" not in config.dumps(block_settings)
