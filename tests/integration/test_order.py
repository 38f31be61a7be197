"""Releases whose query is a transformer over the history: order is learned, and served as it was trained."""

from __future__ import annotations

import numpy as np
import pytest

from recsys import config, pipeline
from recsys.data.prepare import prepare
from recsys.export.saved_model import QUERY_TOWER, GraphTower, load_tower
from recsys.forward import PlainTower
from recsys.retrieval import Retriever
from recsys.training.loop import fit
from twintower.errors import SettingError
from twintower.types import Origin, Query

POSITIONS, DIM = 12, 16
HISTORY = {
    "kind": "history",
    "pooling": "transformer",
    "width": DIM,
    "transformer": {"positions": POSITIONS, "blocks": 1, "dropout_rate": 0.0},
}


def order_run(**changes):
    """A run over a world in which the last item alone says what comes next: one item, with certainty."""
    source = {"users": 150, "items": 20, "interactions": 6_000, "order_rate": 1.0, "followers": 1}
    return {
        "name": "order",
        "source": {"kind": "synthetic", **source},
        "query": {"features": {"recent": HISTORY}},
        "item": {"features": {"id": {"kind": "id", "width": DIM}}},
        "split": {"kind": "leave_last"},
        "tower": {"kind": "sum", "dim": DIM},
        "objective": {"kind": "softmax"},
        "training": {"epochs": 12, "batch_size": 16, "optimizer": "adam", "learning_rate": 0.01},
        "evaluation": {"resamples": 100, "baselines": []},
        "index": {"kind": "brute_force"},
    } | changes


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("order")
    run = config.from_tables(order_run())
    release = pipeline.train(run, folder / "work", folder / "releases")
    return run, release, prepare(run, folder / "work" / run.name / "prepared")


def test_the_item_that_follows_the_last_one_is_found_first(trained):
    run, release, prepared = trained
    followers, item_ids = run.source.world().followers[:, 0], prepared.items["item_id"].to_pylist()
    met = prepared.until("train", "validation", "test")
    retriever, right = Retriever.load(release.folder), 0
    for user in range(prepared.query_count):
        last = met.item_row[met.query_row == user][-1]
        (answer,) = retriever.nearest([Query(entity_id=f"u{user}")], 1)
        right += answer.item_ids[0] == item_ids[followers[last]]
    # Chance finds one in twenty.
    assert right > 0.9 * prepared.query_count


def test_the_server_needs_no_tensorflow_for_it_and_gives_the_vectors_of_the_graph(trained):
    _, release, prepared = trained
    plain, graph = load_tower(release.folder, QUERY_TOWER), GraphTower(release.folder / QUERY_TOWER)
    assert isinstance(plain, PlainTower)
    histories = [[f"i{item}" for item in range(length)] for length in (0, 1, 5, POSITIONS, POSITIONS + 5)]
    codes = {"recent": prepared.query_encoders["recent"].encode_values(histories)}
    np.testing.assert_allclose(plain(codes), graph(codes), atol=1e-5)


def test_of_a_longer_history_only_the_newest_items_count(trained):
    _, release, _ = trained
    retriever = Retriever.load(release.folder)
    newest = tuple(f"i{item}" for item in range(POSITIONS))
    short, long, other = retriever.encode(
        [Query(history=newest), Query(history=("i19", "i18", *newest)), Query(history=newest[::-1])]
    ).vectors
    np.testing.assert_array_equal(short, long)
    assert not np.allclose(short, other, atol=1e-3)


def test_an_empty_history_is_answered_by_popularity(trained):
    _, release, _ = trained
    (answer,) = Retriever.load(release.folder).nearest([Query(entity_id="nobody")], 5)
    assert answer.origin is Origin.POPULARITY


def test_a_bag_beside_a_transformer_that_learns_at_all_positions_is_refused():
    bag = {"kind": "history", "pooling": "sum", "width": DIM}
    with pytest.raises(SettingError, match=r"query\.features\.bag\.pooling: got 'sum', expected 'transformer'"):
        config.from_tables(order_run(query={"features": {"recent": HISTORY, "bag": bag}}))


def test_teachers_that_know_no_order_are_refused():
    with pytest.raises(SettingError, match=r"objective\.kind: got 'distillation', expected another objective"):
        config.from_tables(order_run(objective={"kind": "distillation"}))


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"dropout_rate": 0.5}, "dropout_rate = 0"),
        ({"half_life_days": 3}, "half_life_days = 0"),
        ({"width": 15, "transformer": {"heads": 2}}, "divides"),
    ],
    ids=str,
)
def test_settings_that_a_transformer_cannot_follow_are_refused(settings, rule):
    with pytest.raises(SettingError, match=rule):
        config.from_tables(order_run(query={"features": {"recent": HISTORY | settings}}))


def test_single_interactions_train_a_transformer_too(tmp_path):
    run = config.from_tables(
        order_run(objective={"kind": "sampled_softmax"}, training={"epochs": 1, "batch_size": 512})
    )
    prepared = prepare(run, tmp_path / "prepared")
    fitted = fit(run, prepared, tmp_path / "training", validate=None)
    codes = {"recent": prepared.query_encoders["recent"].encode_values([["i3", "i4"], ["i4", "i3"]])}
    one, other = fitted.model.encode_queries(codes)
    assert np.isfinite(one).all()
    assert not np.allclose(one, other, atol=1e-4)
