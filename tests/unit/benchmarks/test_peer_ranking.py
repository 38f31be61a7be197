"""What a peer that ranks reads and writes; and LibRecommender itself, where its environment was made."""

import numpy as np
import pytest

from benchmarks.peers import environment
from benchmarks.peers.librecommender_ranking import Columns
from benchmarks.peers.ranking import Inputs, RankingSettings, librecommender_vectors, save_vectors, training_seconds
from recsys.types import Interactions

installed = pytest.mark.skipif(
    not environment.LIBRECOMMENDER.is_installed,
    reason="LibRecommender's own environment was not made; `make bench-train` makes it",
)


def test_a_peer_reads_the_inputs_that_were_written(tmp_path):
    inputs = Inputs(
        query_row=np.array([0, 2], np.int32),
        item_row=np.array([1, 0], np.int32),
        items={"colour": np.array([3, 4], np.int32), "tags": np.array([[1, -1], [2, 5]], np.int32)},
        queries={},
        item_count=2,
        query_count=4,
        settings=RankingSettings(dim=8, hidden=(32, 16), ssl_pattern="cfm", seed=3),
    )
    inputs.save(tmp_path)
    read = Inputs.load(tmp_path)

    assert (read.settings, read.item_count, read.query_count) == (inputs.settings, 2, 4)
    assert (read.query_row.tolist(), read.item_row.tolist(), read.queries) == ([0, 2], [1, 0], {})
    assert {name: codes.tolist() for name, codes in read.items.items()} == {"colour": [3, 4], "tags": [[1, -1], [2, 5]]}


def test_new_inputs_take_the_old_vectors_away(tmp_path):
    save_vectors(tmp_path, np.ones((1, 2)), np.ones((3, 2)), seconds=1.5)
    assert training_seconds(tmp_path) == 1.5
    rows = np.array([0], np.int32)
    Inputs(rows, rows, {}, {}, 1, 1, RankingSettings()).save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"train.npz", "items.npz", "queries.npz", "settings.json"}


def test_a_feature_of_several_values_becomes_a_column_for_each_place():
    features = {"tags": np.array([[7, -1], [8, 9]], np.int32), "colour": np.array([3, 4], np.int32)}
    columns = Columns("item", features)
    assert columns.single == ["item colour"]
    assert columns.several == [["item tags 0", "item tags 1"]]
    assert columns.of(0) == {"item tags 0": 7, "item tags 1": -1, "item colour": 3}


@installed
@pytest.mark.parametrize("ssl_pattern", [None, "cfm"])
def test_librecommender_ranks_the_items_of_a_query_s_own_block_first_and_unknown_ones_last(tmp_path, ssl_pattern):
    # Given 2 blocks of 20 queries and 6 items, of which everyone met 4; and an item and a query that nobody knows.
    generator = np.random.default_rng(0)
    chosen = np.stack([generator.choice(6, 4, replace=False) + query // 20 * 6 for query in range(40)])
    train = Interactions(np.repeat(np.arange(40), 4).astype(np.int32), chosen.ravel().astype(np.int32))
    block = np.arange(13, dtype=np.int32) // 6
    tags = np.stack([block, np.full(13, -1)], axis=1).astype(np.int32)

    settings = RankingSettings(
        dim=8,
        hidden=(16,),
        width=8,
        batch_size=32,
        epochs=20,
        learning_rate=0.01,
        temperature=0.2,
        ssl_pattern=ssl_pattern,
    )
    queries, items = librecommender_vectors(
        tmp_path,
        train,
        {"block": block, "tags": tags},
        {"block": (np.arange(41) // 20).astype(np.int32)},
        settings,
    )

    ranked = np.argsort(-(queries @ items.T), axis=1)
    assert (queries.shape[0], items.shape[0]) == (41, 13)
    assert (ranked[:, -1] == 12).all()
    assert (ranked[:40, :6] // 6 == np.arange(40)[:, None] // 20).mean() > 0.95
    assert training_seconds(tmp_path) > 0
