"""From files to a release: what comes out, and what bad files lead to."""

from __future__ import annotations

import dataclasses
import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from recsys import config, pipeline
from recsys.data.prepare import prepare, refitted
from recsys.errors import DataError
from recsys.evaluation import report
from recsys.export.release import open_release
from recsys.retrieval import Retriever
from tests.worlds import block_run, copy_of, write_block_world
from twintower.errors import TwintowerError
from twintower.types import Origin, Query


def test_the_release_holds_everything_that_serving_needs(block_release):
    parts = {name.split("/")[0] for name in block_release.manifest.parts}
    assert parts == {
        "dependence.arrow", "encoders", "evaluation.json", "evaluation_cases.parquet", "golden", "index",
        "index_certificate.json", "item_embeddings.npy", "item_tower", "items.parquet", "known_queries", "log_q.npy",
        "plain_item_tower", "plain_query_tower", "queries.parquet", "query_side", "query_tower", "reformulators",
        "run.toml", "seen",
    }  # fmt: skip


def test_the_release_knows_what_it_is(block_release):
    facts = block_release.facts
    assert (facts.query_entity, facts.dim, facts.item_count, facts.query_count) == ("user", 8, 40, 60)
    assert facts.query_columns == ("town",)
    assert facts.reads_history
    assert facts.index_recall == 1.0


def test_the_report_says_which_rows_each_recommender_was_fitted_on(block_release):
    judged = report.load(block_release.folder)
    both = ("train", "validation")
    assert set(judged.fits) == set(judged.recommenders)
    assert {fit.parts for fit in judged.fits.values()} == {both}
    assert judged.training.startswith("Training ")
    assert (block_release.facts.fitted_on, block_release.facts.judged_on) == (both, both)


def test_a_release_may_be_fitted_on_all_rows_while_its_report_stays_that_of_the_model_before(
    block_settings, block_release, tmp_path
):
    run = dataclasses.replace(block_settings, release=config.Publication(refit="all"))
    release = pipeline.train(run, tmp_path / "work", tmp_path / "releases")
    assert release.facts.fitted_on == ("train", "validation", "test")
    assert release.facts.judged_on == ("train", "validation")
    assert report.load(release.folder) == report.load(block_release.folder)
    counts = [pq.read_table(each.folder / "items.parquet")["training_count"] for each in (block_release, release)]
    # 60 users with twelve items each, of which the last is the test's
    assert [sum(each.to_pylist()) for each in counts] == [60 * 11, 60 * 12]
    Retriever.load(release.folder).warm()


def test_without_a_refit_the_model_knows_the_training_rows_alone(block_settings, tmp_path):
    training = dataclasses.replace(block_settings.training, refit="none", epochs=1)
    run = dataclasses.replace(block_settings, training=training)
    release = pipeline.train(run, tmp_path / "work", tmp_path / "releases")
    assert release.facts.fitted_on == ("train",)
    assert report.load(release.folder).fits["two_tower"].parts == ("train",)


def test_an_item_that_only_validation_has_met_gets_an_id_of_its_own_in_a_refit(block_settings, tmp_path):
    prepared = prepare(block_settings, tmp_path / "prepared")
    train, row = prepared.parts["train"], int(prepared.parts["validation"].item_row[0])
    parts = {**prepared.parts, "train": train.take(np.asarray(train.item_row) != row)}
    without = dataclasses.replace(prepared, parts=parts, fitted_on=())
    alone = refitted(block_settings, without, "train")
    both = refitted(block_settings, without, "train", "validation")
    ids = [np.asarray(each.item_codes["id"]) for each in (alone, both)]
    assert ids[0][row] == 1  # the bucket of unknown ids
    assert ids[1][row] > 1
    assert len(both.parts["validation"]) == 0
    assert both.training_digest == without.training_digest


def test_the_model_beats_popularity_where_taste_decides(block_release):
    judged = report.load(block_release.folder)
    # a user likes 20 of 40 items, and met 12 of them; popularity cannot know which half
    ours, popular = (judged.find(name, "R@10").value for name in ("two_tower", "popularity"))
    assert ours > popular


def test_training_twice_from_one_seed_gives_one_release(block_settings, block_release, tmp_path):
    again = pipeline.train(block_settings, tmp_path / "work", tmp_path / "releases")
    vectors = [np.load(release.folder / "item_embeddings.npy") for release in (block_release, again)]
    np.testing.assert_array_equal(*vectors)
    losses = [
        (folder / "blocks" / "training" / "validations.jsonl").read_text()
        for folder in (block_release.folder.parents[1] / "work", tmp_path / "work")
    ]
    assert losses[0] == losses[1]
    assert len(losses[0].splitlines()) >= 1


def test_a_finished_run_does_not_train_again(block_settings, block_release):
    folder = block_release.folder.parents[1]
    before = sorted(path.name for path in (folder / "work/blocks/training/checkpoints").iterdir())
    again = pipeline.train(block_settings, folder / "work", folder / "elsewhere")
    assert sorted(path.name for path in (folder / "work/blocks/training/checkpoints").iterdir()) == before
    np.testing.assert_array_equal(
        np.load(again.folder / "item_embeddings.npy"), np.load(block_release.folder / "item_embeddings.npy")
    )


def test_other_settings_under_the_same_name_are_refused_and_named(block_settings, block_release):
    changed = dataclasses.replace(block_settings, seed=99)
    folder = block_release.folder.parents[1]
    with pytest.raises(DataError, match=r"differs in seed\. Add --restart"):
        pipeline.train(changed, folder / "work", folder / "releases")


def test_an_index_tuned_anew_is_a_release_of_its_own_that_shares_the_rest(block_release, tmp_path):
    release = copy_of(block_release, tmp_path)
    tuned, certificate = pipeline.tune_release(release, ["index.kind=scann", "index.target_recall=0.9"])
    assert tuned.manifest.parent == release.fingerprint
    assert certificate.target_recall == 0.9
    assert certificate.recall_low >= 0.9
    assert tuned.facts.index == "scann"
    assert tuned.manifest.parts["item_embeddings.npy"] == release.manifest.parts["item_embeddings.npy"]
    open_release(release.folder)


def test_an_index_is_tuned_on_as_many_known_entities_as_its_settings_say(tmp_path):
    write_block_world(tmp_path, users=1_300)
    tables = block_run(tmp_path)
    tables["training"] |= {"epochs": 1, "batch_size": 1024}
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    scann = ["index.kind=scann", "index.brute_force_below=0", "index.target_recall=0.9"]
    # one half chooses, the other certifies; 1,000 of the entities are golden queries
    for tuning_queries, certifying in ((600, 300), (1_200, 600), (2_000, 650)):
        _, certificate = pipeline.tune_release(release, [*scann, f"index.tuning_queries={tuning_queries}"])
        assert certificate.queries == certifying


def test_interactions_without_any_query_feature_can_train(tmp_path):
    # A query that says nothing is answered by popularity, so that it can be no golden query.
    rows = 60
    hours = [None, *(float(row % 24) for row in range(1, rows))]
    met = pa.table({"item_id": [f"i{row % 7}" for row in range(rows)], "hour": hours})
    pq.write_table(met, tmp_path / "met.parquet")
    pq.write_table(pa.table({"item_id": [f"i{row}" for row in range(7)]}), tmp_path / "items.parquet")
    source = {"interactions": str(tmp_path / "met.parquet"), "items": str(tmp_path / "items.parquet")}
    run = config.from_tables(
        {
            "name": "hours",
            "source": {"kind": "parquet", "query_column": "", **source},
            "query": {"entity": "features", "features": {"hour": {"kind": "numeric"}}},
            "item": {"features": {"id": {"kind": "id", "width": 4}}},
            "split": {"kind": "random"},
            "tower": {"kind": "mlp", "hidden": [4], "dim": 4},
            "objective": {"kind": "sampled_softmax"},
            "training": {"epochs": 1, "batch_size": 8},
            "index": {"kind": "brute_force"},
        }
    )

    release = pipeline.train(run, tmp_path / "work", tmp_path / "releases")

    golden = pq.read_table(release.folder / "golden" / "queries.parquet")
    assert golden["hour"].to_pylist() == hours[1:]


@pytest.mark.parametrize(
    ("entity", "query", "origin"),
    [
        ("item", Query(entity_id="item-ü3"), Origin.KNOWN_ENTITY),
        ("item", Query(item_ids=["item-ü3", "item-ü5"]), Origin.ITEMS),
        ("features", Query(features={"mood": "sweet"}), Origin.FEATURES),
    ],
)
def test_the_query_side_may_be_items_or_free_features(entity, query, origin, block_world, tmp_path):
    met = pq.read_table(block_world / "interactions.parquet")
    rows = [int(item.removeprefix("item-ü")) for item in met["item_id"].to_pylist()]
    if entity == "item":
        # each item is followed by the next of its taste
        met = met.set_column(0, "user_id", pa.array([f"item-ü{(row + 2) % 40}" for row in rows]))
    else:
        met = met.append_column("mood", pa.array([("salt", "sweet")[row % 2] for row in rows])).drop_columns("user_id")
    pq.write_table(met, tmp_path / "met.parquet")
    tables = block_run(block_world, query={"entity": entity}, split={"kind": "by_time"})
    tables["source"] = {
        "kind": "parquet",
        "interactions": str(tmp_path / "met.parquet"),
        "items": str(block_world / "items.parquet"),
        "timestamp_column": "time",
    }
    if entity == "features":
        tables["source"]["query_column"] = ""
        tables["query"]["features"] = {"mood": {"kind": "categorical", "width": 4}}
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    retriever = Retriever.load(release.folder)
    retriever.warm()
    (answer,) = retriever.nearest([query], 5)
    assert answer.origin is origin
    assert len(answer.item_ids) == 5
    assert not {query.entity_id, *query.item_ids} & set(answer.item_ids)
    if entity == "features":
        assert [shown["taste"] for shown in retriever.metadata(answer.item_ids)].count("sweet") >= 4


def world_of(tmp_path, pairs, items):
    pq.write_table(
        pa.table(
            {
                "user_id": pa.array([user for user, _ in pairs], pa.string()),
                "item_id": pa.array([item for _, item in pairs], pa.string()),
            }
        ),
        tmp_path / "interactions.parquet",
    )
    pq.write_table(pa.table({"item_id": items, "taste": [None] * len(items)}), tmp_path / "items.parquet")
    return {
        "name": "odd",
        "source": {
            "kind": "parquet",
            "interactions": str(tmp_path / "interactions.parquet"),
            "items": str(tmp_path / "items.parquet"),
        },
        "query": {"features": {"who": {"kind": "id"}}},
        "item": {"features": {"id": {"kind": "id"}, "taste": {"kind": "categorical"}}},
        "split": {"kind": "random", "test_rate": 0.3, "validation_rate": 0.2},
        "tower": {"kind": "mlp", "hidden": [4], "dim": 4},
        "objective": {"kind": "sampled_softmax"},
        "training": {"epochs": 1},
        "evaluation": {"exclude_seen": False, "resamples": 100},
        "index": {"kind": "scann"},
    }


def trained(tables, tmp_path):
    return pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")


def test_golden_queries_by_features_of_any_type_are_asked_as_they_were_trained(block_world, tmp_path):
    # given: columns of which Python values have other spellings, such as 0.10000000149011612 for the float32 0.1
    met = pq.read_table(block_world / "interactions.parquet").select(["item_id", "time"])
    tenths = [(row % 7) / 10 for row in range(len(met))]
    typed = {
        "single": (pa.array(tenths, pa.float32()), "categorical"),
        "singles": (pa.array([[tenth, 0.3] for tenth in tenths], pa.list_(pa.float32())), "multi_categorical"),
        "price": (pa.array([Decimal(f"{tenth:.2f}") for tenth in tenths]), "categorical"),
        "moment": (pa.array(range(len(met)), pa.timestamp("ns", "Asia/Kolkata")), "categorical"),
        "spent": (pa.array(range(len(met)), pa.duration("ms")), "numeric"),
        "clock": (pa.array(range(len(met)), pa.time64("ns")), "numeric"),
        "is_new": (pa.array([tenth > 0.3 for tenth in tenths]), "categorical"),
        "vector": (pa.array([[tenth, 1.0] for tenth in tenths], pa.list_(pa.float32())), "embedding"),
    }
    for name, (column, _) in typed.items():
        met = met.append_column(name, column)
    pq.write_table(met, tmp_path / "met.parquet")
    tables = block_run(block_world, query={"entity": "features", "features": {}})
    tables["source"] = {name: value for name, value in tables["source"].items() if name != "users"}
    tables["source"] |= {"interactions": str(tmp_path / "met.parquet"), "query_column": ""}
    tables["query"]["features"] = {name: {"kind": kind} for name, (_, kind) in typed.items()}
    tables |= {"split": {"kind": "random"}, "training": {"epochs": 1, "batch_size": 64}}
    # when
    release = pipeline.train(config.from_tables(tables), tmp_path / "work", tmp_path / "releases")
    # then
    Retriever(release).warm()


def test_one_user_unicode_ids_and_an_all_null_feature_train(tmp_path):
    items = ["æ", "日本", "naïve café", "emoji 🙂"] + [f"i{row}" for row in range(16)]
    release = trained(world_of(tmp_path, [("único", item) for item in items], items), tmp_path)
    (answer,) = Retriever.load(release.folder).nearest([Query(entity_id="único")], 50)
    assert set(answer.item_ids) == set(items)


def test_one_item_trains_and_is_the_answer(tmp_path):
    release = trained(world_of(tmp_path, [(f"u{row}", "only") for row in range(30)], ["only"]), tmp_path)
    (answer,) = Retriever.load(release.folder).nearest([Query(entity_id="u1")], 3)
    assert answer.item_ids == ("only",)


@pytest.mark.parametrize(
    ("pairs", "told"),
    [
        ([], "empty|no usable interaction|at least one"),
        ([("u", "i0")], "training interactions|no test case"),
        ([(f"u{row}", "unknown") for row in range(20)], "unknown id: 20"),
    ],
)
def test_too_little_data_is_refused_with_a_reason(pairs, told, tmp_path):
    with pytest.raises(DataError, match=told):
        trained(world_of(tmp_path, pairs, ["i0", "i1"]), tmp_path)
    assert list((tmp_path / "releases").iterdir()) == []


@pytest.mark.parametrize(
    ("column", "kind", "told"),
    [
        ("tast", "categorical", "item.features.one: no column named 'tast'. Did you mean 'taste'?"),
        ("taste", "numeric", "item.features.one: taste: got string, expected numbers, truth values or times"),
        ("tags", "categorical", "item.features.one: tags: got list<.*expected one value in each row"),
        ("taste", "embedding", "item.features.one: taste: got string, expected lists of numbers"),
    ],
)
def test_a_feature_that_does_not_fit_its_column_names_both(column, kind, told, block_world, tmp_path):
    tables = block_run(block_world, item={"features": {"one": {"kind": kind, "column": column}}})
    with pytest.raises(TwintowerError, match=told):
        trained(tables, tmp_path)


def test_the_manifest_is_json_that_other_tools_can_read(block_release):
    manifest = json.loads((block_release.folder / "manifest.json").read_text())
    assert manifest["fingerprint"] == block_release.fingerprint
    assert set(manifest["versions"]) >= {"tensorflow", "scann"}


def test_data_that_changed_is_not_mixed_with_old_checkpoints(block_world, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(block_world, data)
    run = config.from_tables(block_run(data))
    first = pipeline.train(run, tmp_path / "work", tmp_path / "releases")
    assert pipeline.train(run, tmp_path / "work", tmp_path / "releases") == first
    met = pq.read_table(data / "interactions.parquet")
    pq.write_table(met.slice(0, 500), data / "interactions.parquet")
    with pytest.raises(DataError, match="differs in the files that it reads"):
        pipeline.train(run, tmp_path / "work", tmp_path / "releases")


def test_what_is_judged_and_indexed_may_change_without_training_again(block_settings, block_release):
    folder = block_release.folder.parents[1]
    judged = dataclasses.replace(
        block_settings, evaluation=dataclasses.replace(block_settings.evaluation, metrics=("R@5",))
    )
    again = pipeline.train(judged, folder / "work", folder / "rejudged")
    assert set(again.facts.metrics) == {"R@5"}
    np.testing.assert_array_equal(
        np.load(again.folder / "item_embeddings.npy"), np.load(block_release.folder / "item_embeddings.npy")
    )
    pipeline.train(block_settings, folder / "work", folder / "releases")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"evaluation": {"metrics": ["nDCG@10", "foo@5"]}}, "evaluation.metrics: got 'foo@5'"),
        ({"training": {"validation_metric": "bar@1"}}, "training.validation_metric: got 'bar@1'"),
    ],
)
def test_a_metric_that_does_not_exist_is_told_before_training(changes, told, block_world, tmp_path):
    with pytest.raises(TwintowerError, match=told):
        trained(block_run(block_world, **changes), tmp_path)
    assert not (tmp_path / "work").exists()


def test_metadata_that_does_not_exist_is_told_before_training(block_world, tmp_path):
    tables = block_run(block_world)
    tables["item"] = {**tables["item"], "metadata": ["titel"]}
    with pytest.raises(DataError, match=r"item\.metadata: no column named 'titel'. Did you mean 'title'\?"):
        trained(tables, tmp_path)
    assert not (tmp_path / "work/blocks/training").exists()


def test_training_that_diverges_names_the_setting(block_world, tmp_path):
    training = {"epochs": 3, "batch_size": 64, "learning_rate": 1e30, "optimizer": "sgd"}
    with pytest.raises(TwintowerError, match=r"training\.learning_rate: got 1e\+30, with which training diverged"):
        trained(block_run(block_world, training=training), tmp_path)


def test_damaged_prepared_data_is_made_again(block_settings, tmp_path):
    whole = prepare(block_settings, tmp_path / "prepared")
    before = np.array(whole.parts["train"].timestamp)
    (tmp_path / "prepared" / "train.timestamp.npy").unlink()
    (tmp_path / "prepared" / "items.arrow").write_bytes(b"")
    again = prepare(block_settings, tmp_path / "prepared")
    np.testing.assert_array_equal(again.parts["train"].timestamp, before)


def test_a_damaged_checkpoint_is_told_with_the_way_out(block_world, tmp_path):
    run = config.from_tables(block_run(block_world))
    pipeline.train(run, tmp_path / "work", tmp_path / "releases")
    (tmp_path / "work/blocks/published").unlink()
    for data in (tmp_path / "work/blocks/training/checkpoints").glob("*.data-*"):
        data.write_bytes(data.read_bytes()[:100])
    with pytest.raises(DataError, match=r"the checkpoint cannot be read.*--restart"):
        pipeline.train(run, tmp_path / "work", tmp_path / "releases")


def test_index_tune_changes_nothing_but_the_index(block_release):
    with pytest.raises(TwintowerError, match=r"--set: got 'training\.epochs=99', expected index\.key=value"):
        pipeline.tune_release(block_release, ["training.epochs=99"])


@pytest.mark.parametrize(("table", "column"), [("items", "training_count"), ("users", "history")])
def test_a_column_with_a_name_that_the_release_needs_is_told_before_training(table, column, block_world, tmp_path):
    import shutil

    data = tmp_path / "data"
    shutil.copytree(block_world, data)
    rows = pq.read_table(data / f"{table}.parquet")
    pq.write_table(rows.append_column(column, pa.array(["x"] * rows.num_rows)), data / f"{table}.parquet")
    with pytest.raises(DataError, match=f"source.{table}: got '{column}', expected no such column"):
        trained(block_run(data), tmp_path)
