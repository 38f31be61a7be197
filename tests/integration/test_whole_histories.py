"""Releases whose query is the sum of all that an entity has met: closed forms and the loss over the whole catalog."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config, pipeline
from recsys.data.batches import QueryCodes
from recsys.data.history import Past
from recsys.data.prepare import prepare, refitted
from recsys.evaluation import report
from recsys.evaluation.report import OURS
from recsys.forward import PlainTower
from recsys.retrieval import Retriever
from recsys.retrieval.item_encoder import ItemEncoder
from recsys.training.loop import fit
from tests.worlds import ITEMS, block_run, write_block_world
from twintower.errors import SettingError
from twintower.types import Origin, Query

DIM = 8
HISTORY = {"kind": "history", "shared": False, "pooling": "sum", "width": DIM, "dropout_rate": 0.5}
ITEM_ID = {"kind": "id", "width": DIM, "unknown_rate": 0.0}


def linear_run(folder, objective, **changes):
    return block_run(
        folder,
        query={"features": {"met": HISTORY}},
        item={"features": {"id": ITEM_ID}},
        tower={"kind": "sum", "dim": DIM},
        objective=objective,
        training={"epochs": 100, "batch_size": 20, "learning_rate": 0.01, "deterministic": True, "patience": 0},
        **changes,
    )


SOLVED = ("ease", "dlae", "ials")
OBJECTIVES = [{"kind": kind} for kind in (*SOLVED, "all_items", "softmax", "distillation")] + [
    {"kind": "cosine_contrastive", "negative_weight": 5.0}
]


@pytest.fixture(scope="module", params=OBJECTIVES, ids=lambda table: table["kind"])
def trained(request, block_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param["kind"])
    run = config.from_tables(linear_run(block_world, request.param))
    release = pipeline.train(run, folder / "work", folder / "releases")
    prepared = prepare(run, folder / "work" / run.name / "prepared")
    return run, release, refitted(run, prepared, *release.facts.fitted_on)


def test_every_user_is_shown_the_items_of_the_own_taste_first(trained):
    run, release, _ = trained
    retriever = Retriever.load(release.folder)
    # Losses at unit length push away what a user has not met, of either taste.
    depth, share = (10, 0.9) if run.objective.unit_length else (ITEMS // 2, 1.0)
    own = []
    for user in range(20):
        (answer,) = retriever.nearest([Query(entity_id=f"user {user}")], depth)
        own += [int(item_id.removeprefix("item-ü")) % 2 == user % 2 for item_id in answer.item_ids]
    assert np.mean(own) >= share


def test_a_stranger_with_the_same_history_gets_the_same_list(trained):
    _, release, prepared = trained
    retriever = Retriever.load(release.folder)
    met = prepared.until("train", "validation", "test")
    item_ids = prepared.items["item_id"].to_pylist()
    history = tuple(item_ids[row] for row in met.item_row[met.query_row == 0])
    known, stranger = retriever.nearest([Query(entity_id="user 0"), Query(entity_id="?", history=history)], 10)
    assert (known.origin, stranger.origin) == (Origin.KNOWN_ENTITY, Origin.FEATURES)
    assert known.item_ids == stranger.item_ids


def test_histories_of_different_length_in_one_batch_are_encoded_as_each_alone(trained):
    _, release, _ = trained
    retriever = Retriever.load(release.folder)
    queries = [Query(entity_id="user 3")] + [
        Query(entity_id="?", history=tuple(f"item-ü{row}" for row in range(length))) for length in (1, 5, 31, 2) * 10
    ]
    together = retriever.encode(queries).vectors
    alone = np.concatenate([retriever.encode([query]).vectors for query in queries])
    np.testing.assert_allclose(together, alone, rtol=0, atol=DIM * np.finfo(np.float32).eps * 40)


def test_nothing_met_is_answered_by_popularity(trained):
    _, release, _ = trained
    (answer,) = Retriever.load(release.folder).nearest([Query(entity_id="?", history=("no such item",))], 3)
    assert answer.origin is Origin.POPULARITY


def test_the_served_lists_are_ranked_by_the_inner_products_of_the_tables(trained):
    run, release, prepared = trained
    tower = PlainTower.load(release.folder / "plain_item_tower")
    ((found, codes),) = ((tower.tables[field.table], prepared.item_codes["id"]) for field in tower.fields.values())
    query = PlainTower.load(release.folder / "plain_query_tower")
    (history,) = query.tables.values()
    met = prepared.until("train", "validation", "test")
    own = met.item_row[met.query_row == 5]
    found = found[np.asarray(codes)]
    if run.objective.unit_length:
        found /= np.linalg.norm(found, axis=1, keepdims=True)
    scores = history[prepared.item_codes["id"][own]].sum(axis=0) @ found.T
    (answer,) = Retriever.load(release.folder).nearest([Query(entity_id="user 5")], 10)
    rows = [prepared.items["item_id"].to_pylist().index(item_id) for item_id in answer.item_ids]
    assert (np.diff(scores[rows]) <= 1e-6).all()
    assert scores[rows].min() >= np.sort(scores)[-10] - 1e-6


@pytest.mark.parametrize(
    ("section", "table", "path"),
    [
        ("query", {"features": {"met": HISTORY | {"shared": True}}}, "query.features.met.shared"),
        ("query", {"features": {"met": HISTORY | {"pooling": "mean"}}}, "query.features.met.pooling"),
        ("query", {"features": {"met": HISTORY | {"length": 5}}}, "query.features.met.length"),
        ("query", {"features": {"town": {"kind": "categorical"}}}, "query.features"),
        ("query", {"features": {"met": HISTORY, "again": HISTORY}}, "query.features"),
        ("query", {"features": {"met": HISTORY, "who": {"kind": "id"}}}, "query.features.who.kind"),
        ("item", {"features": {"taste": {"kind": "categorical"}}}, "item.features"),
        ("item", {"features": {"id": ITEM_ID, "twin": ITEM_ID}}, "item.features"),
        ("tower", {"kind": "mlp"}, "tower.kind"),
    ],
)
def test_what_a_closed_form_cannot_solve_is_refused_with_the_way_out(section, table, path, block_world):
    tables = linear_run(block_world, {"kind": "dlae"}) | {section: table}
    with pytest.raises(SettingError, match=rf"^{path}.*: got .*'all_items' trains any towers"):
        config.from_tables(tables)


def test_the_loss_over_the_catalog_trains_towers_of_any_features(block_world, tmp_path):
    tables = block_run(block_world, objective={"kind": "all_items"}, tower={"kind": "mlp", "hidden": [16], "dim": 8})
    tables["training"] = {"epochs": 60, "batch_size": 20, "optimizer": "adam", "learning_rate": 0.01, "patience": 0}
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    retriever = Retriever.load(release.folder)
    answers = retriever.nearest([Query(entity_id=f"user {user}") for user in range(20)], 10)
    own = [
        int(item_id.removeprefix("item-ü")) % 2 == user % 2
        for user, answer in enumerate(answers)
        for item_id in answer.item_ids
    ]
    assert np.mean(own) > 0.9


@pytest.mark.parametrize(
    ("objective", "changes", "path"),
    [
        ({"kind": "all_items", "start": "popularity"}, {}, "objective.start"),
        ({"kind": "softmax", "similarity": "cosine", "start": "dlae"}, {}, "objective.start"),
        ({"kind": "all_items", "start": "dlae"}, {"tower": {"kind": "mlp"}}, "tower.kind"),
        ({"kind": "all_items", "start": "dlae"}, {"query": {"features": {"who": {"kind": "id"}}}}, "query.features"),
    ],
)
def test_a_start_that_the_towers_cannot_hold_is_refused(objective, changes, path, block_world):
    with pytest.raises(SettingError, match=rf"^{path}: got "):
        config.from_tables(linear_run(block_world, objective) | changes)


FEATURES = {
    "taste": {"kind": "categorical", "width": 4},
    "tags": {"kind": "multi_categorical", "max_values": 3},
    "price": {"kind": "numeric"},
    "price_range": {"kind": "numeric", "column": "price", "transform": "quantile"},
    "title": {"kind": "text", "buckets": 50, "max_terms": 4},
    "vector": {"kind": "embedding"},
}


@pytest.fixture(scope="module", params=["ease", "dlae"])
def with_features(request, block_world, tmp_path_factory):
    folder = tmp_path_factory.mktemp(f"{request.param}_with_features")
    changes = {
        "query": {"features": {"met": HISTORY | {"min_count": 0}, "town": {"kind": "categorical"}}},
        "item": {"features": {"id": ITEM_ID} | FEATURES},
        "split": {"kind": "cold_items", "test_rate": 0.2, "validation_rate": 0.1},
        "evaluation": {"metrics": ["R@20"], "resamples": 100},
        "tower": {"kind": "sum", "dim": 4},
    }
    run = config.from_tables(linear_run(block_world, {"kind": request.param}) | changes)
    release = pipeline.train(run, folder / "work", folder / "releases")
    return release, prepare(run, folder / "work" / run.name / "prepared")


def test_items_without_interactions_are_found_by_their_features(with_features):
    release, _ = with_features
    measured = report.load(release.folder)
    assert measured.find(OURS, "R@20").value > 0.9
    assert measured.find("popularity", "R@20").value < 0.5


def test_a_new_item_has_a_place_among_those_of_its_kind_at_once(with_features):
    release, _ = with_features
    encoder = ItemEncoder(release)
    sweet, salt = ({"taste": taste, "tags": ["all"], "title": "Thing"} for taste in ("sweet", "salt"))
    vectors = encoder.encode(["new 1", "new 2"], [sweet, salt])
    queries = [Query(entity_id=f"user {user}") for user in range(20)]
    scores = Retriever.load(release.folder).encode(queries).vectors @ vectors.T
    prefers_sweet = scores[:, 0] > scores[:, 1]
    assert prefers_sweet.tolist() == [user % 2 == 1 for user in range(20)]


def test_an_item_without_interactions_means_something_in_a_history(with_features):
    release, prepared = with_features
    met = prepared.until("train", "validation").item_row  # what the released model was fitted on
    cold = np.setdiff1d(np.arange(prepared.item_count), met)
    assert len(cold)
    item_ids = prepared.items["item_id"].to_pylist()
    retriever = Retriever.load(release.folder)
    for row in cold:
        (answer,) = retriever.nearest([Query(entity_id="?", history=(item_ids[row],))], 3)
        assert answer.origin is Origin.FEATURES
        assert {int(item_id.removeprefix("item-ü")) % 2 for item_id in answer.item_ids} == {row % 2}


def test_features_leave_the_vectors_of_met_items_as_they_were_solved(block_world, tmp_path):
    scores = {}
    for name, features in (("plain", {}), ("featured", FEATURES)):
        objective = {"kind": "ease", "regularization_weight": [20.0], "cold_start": {"residual_shrinkage": [0.0]}}
        tables = linear_run(block_world, objective) | {"name": name, "item": {"features": {"id": ITEM_ID} | features}}
        run = config.from_tables(tables)
        prepared = prepare(run, tmp_path / name)
        model = fit(run, prepared, tmp_path / "training", None).model
        codes = QueryCodes(prepared, Past(prepared.parts["train"], prepared.query_count)).now(np.arange(20))
        scores[name] = model.query_tower.raw(codes).numpy() @ model.item_tower.raw(prepared.item_codes).numpy().T
    np.testing.assert_allclose(scores["featured"], scores["plain"], rtol=0, atol=1e-5)


def test_the_report_shows_the_settings_of_the_solution_that_training_starts_from(block_world, tmp_path):
    tables = linear_run(block_world, {"kind": "all_items", "start": "dlae"})
    run = config.from_tables({**tables, "training": {**tables["training"], "epochs": 1}})
    shown = report.load(pipeline.train(run, tmp_path / "work", tmp_path / "releases").folder).fits[OURS].settings
    assert (shown["objective"], shown["start.objective"]) == ("all_items", "dlae")
    assert isinstance(shown["start.dropout_rate"], float)
    assert isinstance(shown["start.regularization_weight"], float)


def started(block_world, folder, metrics):
    """Return what a training that starts from DLAE ends with, and the same solution, on training and validation rows.

    Args:
        metrics: what validation sees: the start, then five looks in training.
    """
    features = {"item": {"features": {"id": ITEM_ID} | FEATURES}}
    tables = linear_run(block_world, {"kind": "all_items", "start": "dlae"}) | features
    tables["training"] |= {"epochs": 5, "validate_every_epochs": 1}
    run, solved = config.from_tables(tables), config.from_tables(tables | {"objective": {"kind": "dlae"}})
    prepared = prepare(run, folder / "prepared")
    both = refitted(run, prepared, "train", "validation")
    looks = len(fit(solved, prepared, folder / "solved", lambda _: 0.5).validations)

    def validation():
        given = iter([0.5] * looks + metrics + [0.0])
        return lambda _: next(given)

    return fit(run, prepared, folder / "trained", validation(), both), fit(
        solved, prepared, folder, lambda _: 0.5, both
    )


def test_training_that_makes_nothing_better_ends_where_it_started(block_world, tmp_path):
    found, solved = started(block_world, tmp_path, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    assert found.validations[0].step == found.steps == 0
    assert "the start, 'dlae'" in found.choice.sentence
    # The solution is found twice, and rounding may turn its vectors; angles between them stay.
    angles, expected = (vectors @ vectors.T for vectors in (each.model.encode_items() for each in (found, solved)))
    np.testing.assert_allclose(angles, expected, atol=1e-4)


def test_training_goes_on_from_the_start(block_world, tmp_path):
    found, solved = started(block_world, tmp_path, [0.4, 0.5, 0.6, 0.7, 0.8, 0.9])
    assert found.steps > 0
    likeness = (found.model.encode_items() * solved.model.encode_items()).sum(axis=1)
    assert 0.9 < likeness.mean() < 0.9999


def test_shrinkage_turns_items_towards_their_features_and_keeps_their_lengths(block_world, tmp_path):
    vectors = {}
    for shrinkage in (0.0, 1e6):
        objective = {
            "kind": "ease",
            "regularization_weight": [20.0],
            "cold_start": {"residual_shrinkage": [shrinkage], "regularization_weight": [1.0], "length": [0.5]},
        }
        features = {"id": ITEM_ID, "taste": {"kind": "categorical"}}
        run = config.from_tables(linear_run(block_world, objective) | {"item": {"features": features}})
        prepared = prepare(run, tmp_path / "prepared")
        model = fit(run, prepared, tmp_path / "training", None).model
        vectors[shrinkage] = model.item_tower.raw(prepared.item_codes).numpy()[prepared.item_counts > 0]
    own, turned = vectors.values()
    np.testing.assert_allclose(*(np.linalg.norm(each, axis=1) for each in (own, turned)), rtol=1e-4)
    for place, row in enumerate(np.flatnonzero(prepared.item_counts > 0)):
        # Nothing of its own is left: an item points where all others of its taste do.
        like = np.flatnonzero(np.flatnonzero(prepared.item_counts > 0) % 2 == row % 2)
        cosines = turned[like] @ turned[place] / np.linalg.norm(turned[like], axis=1) / np.linalg.norm(turned[place])
        np.testing.assert_allclose(cosines, 1, atol=1e-4)
    cosines = (own * turned).sum(axis=1) / np.linalg.norm(own, axis=1) / np.linalg.norm(turned, axis=1)
    assert cosines.max() < 0.999


def test_the_length_of_vectors_is_the_shortest_that_is_nearly_the_best_on_validation_cases(tmp_path):
    source = {"kind": "synthetic", "users": 300, "items": 200, "interactions": 6000}
    objective = {"kind": "dlae", "regularization_weight": [10.0], "query_exponent": [0.5]}
    tables = linear_run(tmp_path, objective) | {"source": source, "tower": {"kind": "sum", "dim": "auto"}}
    run = config.from_tables(tables | {"split": {"kind": "random"}})
    prepared = prepare(run, tmp_path / "prepared")
    for metrics, expected in (((0.5, 0.5004), 64), ((0.5, 0.501), 128)):
        given = iter(metrics)
        assert fit(
            run, prepared, tmp_path / "training", lambda _, given=given: next(given)
        ).model.query_tower.width == (expected)


def test_an_added_item_leads_no_list_by_length_where_all_validation_items_were_met(block_world, tmp_path):
    item = {"features": {"id": ITEM_ID, "taste": {"kind": "categorical"}}}
    tables = linear_run(block_world, {"kind": "dlae"}) | {"item": item, "split": {"kind": "random"}}
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    added = ItemEncoder(release).encode(["new 1", "new 2"], [{"taste": "sweet"}, {"taste": "salt"}])
    queries = [Query(entity_id=f"user {user}") for user in range(20)]
    scores = (
        Retriever.load(release.folder).encode(queries).vectors
        @ np.vstack([added, np.load(release.folder / "item_embeddings.npy")]).T
    )
    assert (scores[:, :2].max(axis=1) < scores[:, 2:].max(axis=1)).all()


def test_the_settings_that_validation_chose_stand_in_the_release_and_in_its_report(block_world, tmp_path):
    item = {"features": {"id": ITEM_ID, "taste": {"kind": "categorical"}}}
    run = config.from_tables(linear_run(block_world, {"kind": "dlae"}) | {"item": item, "tower": {"dim": "auto"}})
    release = pipeline.train(run, tmp_path / "work", tmp_path / "releases")
    chosen = config.load(release.folder / "run.toml")
    assert release.facts.dim == chosen.tower.dim + 1  # the coordinate that holds the length
    objective = chosen.objective
    assert objective.regularization_weight[0] in run.objective.regularization_weight
    tried = [getattr(objective, name) for names in objective.own for name in names]
    tried += [getattr(objective.cold_start, name) for name in ("length", "regularization_weight", "residual_shrinkage")]
    assert {len(values) for values in tried} == {1}
    settings = report.load(release.folder).fits[OURS].settings
    assert (settings["objective"], settings["dim"]) == ("dlae", chosen.tower.dim)
    assert settings["regularization_weight"] == objective.regularization_weight[0]
    assert settings["cold_start.length"] == objective.cold_start.length[0]
    # The run file still has all settings to try: the same call gives the same release again.
    assert pipeline.train(run, tmp_path / "work", tmp_path / "releases").folder == release.folder


def test_a_query_with_features_and_no_history_is_answered_by_them(tmp_path):
    write_block_world(tmp_path)
    towns = {
        "user_id": [f"user {row}" for row in range(60)],
        "town": [("north", "south")[row % 2] for row in range(60)],
    }
    pq.write_table(pa.table(towns), tmp_path / "users.parquet")
    query = {"features": {"met": HISTORY, "town": {"kind": "categorical"}}}
    objective = {"kind": "ease", "query_feature_weight": [1.0]}
    run = config.from_tables(linear_run(tmp_path, objective, name="towns") | {"query": query})
    retriever = Retriever.load(pipeline.train(run, tmp_path / "work", tmp_path / "releases").folder)
    for parity, town in enumerate(("north", "south")):
        (answer,) = retriever.nearest([Query(features={"town": town})], 10)
        assert answer.origin is Origin.FEATURES
        assert {int(item_id.removeprefix("item-ü")) % 2 for item_id in answer.item_ids} == {parity}
