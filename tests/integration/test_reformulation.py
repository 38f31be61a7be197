"""From a release to one that reformulates, by the command line: mine, train, judge; go on, and refuse what is wrong."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from click.testing import Result
from typer.testing import CliRunner

from recsys import config, pipeline, reformulation
from recsys.cli import app
from recsys.config import Run
from recsys.data.mined import Mined
from recsys.data.prepare import prepare
from recsys.errors import DataError, RefusedError, StorageError
from recsys.evaluation.cross_fitting import SHARES
from recsys.export.release import Release, derive, open_release
from recsys.retrieval import Retriever
from recsys.retrieval.reformulation import Reformulators, set_default
from recsys.types import NO_ROW, Neighbours
from tests.ranking import assert_best_first, score_tolerance
from tests.worlds import block_run, write_block_world
from twintower.errors import RequestError, SettingError, TwintowerError
from twintower.types import Query

USERS = 1200
"""More than are mined at once."""
NAMES = ("average", "first", "history", "identity", "rocchio")


def tables_of(data: Path, **changes: object) -> dict[str, object]:
    tables = {
        "name": "wide",
        "split": {"kind": "random", "validation_rate": 0.2, "test_rate": 0.2},
        "query": {"features": {"who": {"kind": "id", "width": 8}}},
        "item": {"features": {"id": {"kind": "id", "width": 8}, "taste": {"kind": "categorical", "width": 4}}},
        "training": {
            "epochs": 1, "batch_size": 512, "optimizer": "adagrad", "learning_rate": 0.1, "deterministic": True,
        },
        "evaluation": {"resamples": 100, "exclude_seen": True, "baselines": []},
        "reformulation": {
            "feedback_k": 4, "steps": 40, "batch_size": 64, "learning_rate": 0.01, "folds": 2, "explicit_rate": 0.5,
            "reformulator": {"kind": "attention", "width": 16, "heads": 2},
        },
    }  # fmt: skip
    return block_run(data, **tables | changes)


@dataclass(frozen=True)
class World:
    """A data set, a release trained on it, and where its runs leave their files."""

    data: Path
    release: Release
    work: Path
    releases: Path

    def call(self, *words: object) -> str:
        """Call the command line, which must succeed, and return what it printed."""
        done = self.asked(*words)
        assert done.exception is None, done.exception
        return done.stdout

    def asked(self, *words: object) -> Result:
        folder = ("--work", self.work) if words[:2] != ("reformulate", "eval") else ()
        return CliRunner().invoke(app, [str(word) for word in (*words, *folder)])

    def refused(self, *words: object) -> TwintowerError:
        """Call the command line, which must refuse, and return the error."""
        error = self.asked(*words).exception
        assert isinstance(error, TwintowerError), repr(error)
        return error


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    root = tmp_path_factory.mktemp("reformulation")
    data = root / "data"
    data.mkdir()
    write_block_world(data, USERS)
    run = config.from_tables(tables_of(data))
    return World(data, pipeline.train(run, root / "work", root / "releases"), root / "work", root / "releases")


@pytest.fixture(scope="module")
def validation(world) -> Path:
    printed = world.call("mine", world.release.folder)
    path = world.work / "wide" / "mined-validation.arrow"
    assert f"written: {path}" in printed
    return path


@pytest.fixture(scope="module")
def test_part(world) -> Path:
    path = world.work / "judge.arrow"
    world.call("mine", world.release.folder, "--part", "test", "--out", path, "-k", 6)
    return path


@pytest.fixture(scope="module")
def train_part(world) -> Path:
    path = world.work / "wide" / "mined-train.arrow"
    world.call("mine", world.release.folder, "--part", "train", "-k", 5, "--set", "evaluation.exclude_seen=false")
    return path


def released(printed: str) -> Release:
    (line,) = (line for line in printed.splitlines() if line.startswith("release: "))
    return open_release(Path(line.removeprefix("release: ")))


@pytest.fixture(scope="module")
def trained(world, validation) -> Release:
    return released(world.call("reformulate", "train", world.release.folder, validation, "--name", "first"))


@pytest.fixture(scope="module")
def first(trained) -> Release:
    """A release with a trained default: what the towers know of two tastes leaves feedback nothing to gain."""

    def change(folder: Path) -> dict[str, Any]:
        set_default(folder, "first")
        return {}

    return derive(trained, change)


def test_the_first_results_are_the_best_items_that_each_query_may_show(world, validation):
    mined = Mined.read(validation)
    assert len(mined) > reformulation.BLOCK
    assert len(set(mined.case_ids.to_pylist())) == len(mined)
    items = np.load(world.release.folder / "item_embeddings.npy")
    scores = mined.query_vectors @ items.T
    scores[mined.excluded.owners, mined.excluded.rows] = -np.inf
    assert mined.first.item_rows.shape == (len(mined), 20)
    tolerance = score_tolerance(mined.query_vectors, items)
    for rows, of_query in zip(mined.first.item_rows, scores, strict=True):
        assert_best_first(rows, of_query, tolerance)


def test_a_mined_query_has_what_it_met_in_its_part_to_find_and_what_it_met_before_to_leave_out(world, validation):
    mined = Mined.read(validation)
    met = pq.read_table(world.data / "interactions.parquet").to_pydict()
    ids = pq.read_table(world.release.folder / "items.parquet")["item_id"].to_pylist()
    of_user: dict[str, set[str]] = {}
    for user, item in zip(met["user_id"], met["item_id"], strict=True):
        of_user.setdefault(user, set()).add(item)
    for place, user in enumerate(mined.case_ids.to_pylist()):
        wanted, seen = ({ids[row] for row in of[place]} for of in (mined.relevant, mined.excluded))
        assert wanted
        assert not wanted & seen
        assert wanted | seen <= of_user[user]
    # 12 items each: a fifth is held out for validation, three fifths were seen before
    assert mined.relevant.sizes.mean() == pytest.approx(12 * 0.2, abs=0.5)
    assert mined.excluded.sizes.mean() == pytest.approx(12 * 0.6, abs=0.5)


def test_the_two_parts_ask_for_other_items(validation, test_part):
    parts = [Mined.read(path) for path in (validation, test_part)]
    assert parts[1].first.item_rows.shape[1] == 6
    wanted = [
        {user: set(part.relevant[place]) for place, user in enumerate(part.case_ids.to_pylist())} for part in parts
    ]
    both = wanted[0].keys() & wanted[1].keys()
    assert len(both) > 500
    assert not any(wanted[0][user] & wanted[1][user] for user in both)


def test_a_training_query_finds_none_of_its_training_items_whatever_is_shown_in_evaluation(world, train_part):
    run = config.load(world.release.folder / "run.toml")
    mined, prepared = Mined.read(train_part), prepare(run, world.work / "wide" / "prepared")
    positives = prepared.positives("train")
    assert mined.case_ids.to_pylist() == prepared.queries["query_id"].to_pylist()
    for place, found in enumerate(mined.first.item_rows):
        assert set(mined.relevant[place]) == set(positives[place])
        assert len(set(found) - {NO_ROW}) == 5
        assert not set(found) & set(positives[place])


def test_a_run_trains_with_the_hard_negatives_that_were_mined_for_it(world, train_part, tmp_path):
    section = {"kind": "sampled_softmax", "hard_negatives": {"file": str(train_part), "per_query": 2}}
    run = config.from_tables(tables_of(world.data, name="harder", objective=section))
    release = pipeline.train(run, tmp_path / "work", tmp_path / "releases")
    assert config.load(release.folder / "run.toml").objective.hard_negatives.per_query == 2
    vectors, plain = (np.load(each.folder / "item_embeddings.npy") for each in (release, world.release))
    assert np.abs(vectors - plain).max() > 0.01

    # the file decides the weights, so that a run of this name does not go on with another
    Mined.read(train_part).write(train_part)
    with pytest.raises(DataError, match="differs in the files that it reads"):
        pipeline.train(run, tmp_path / "work", tmp_path / "releases")


def stopped_at_the_end(release: Release, run: Run, asked: Mapping[str, Any]) -> Path:
    """Mine all but the last step, the one file over all parts, and return the folder of the parts."""
    out = asked["out"]
    # a folder has the name that it is written under at first
    temporary = out.with_name(f".{out.name}.{os.getpid()}")
    temporary.mkdir()
    with pytest.raises(StorageError, match="cannot write"):
        reformulation.mine(release, run, **asked)
    temporary.rmdir()
    (parts,) = out.parent.glob(f".{out.name}.*")
    return parts


def test_a_folder_in_the_place_of_the_file_is_refused_before_mining(world, tmp_path):
    with pytest.raises(SettingError, match=r"^--out: got '.*', expected a file, not a folder\. Name a file in it\.$"):
        raise world.refused("mine", world.release.folder, "--out", tmp_path)
    assert not list(tmp_path.iterdir())
    assert not list(tmp_path.parent.glob(f".{tmp_path.name}*"))


def test_mining_goes_on_after_an_interruption(world, validation, tmp_path):
    run = config.load(world.release.folder / "run.toml")
    out = tmp_path / "again.arrow"
    asked = {"part": "validation", "k": 20, "out": out, "work": world.work}
    parts = stopped_at_the_end(world.release, run, asked)
    assert sorted(path.name for path in parts.glob("*.arrow")) == ["0.arrow", "1024.arrow"]

    # the first part is known again by a mark, the second is damaged and must be searched again
    content = bytearray((parts / "1024.arrow").read_bytes())
    content[len(content) // 2] ^= 1
    (parts / "1024.arrow").write_bytes(content)
    marked = Mined.read(parts / "0.arrow")
    names = pa.array([f"marked {row}" for row in range(reformulation.BLOCK)])
    replace(marked, case_ids=names).write(parts / "0.arrow")
    mined, whole = reformulation.mine(world.release, run, **asked), Mined.read(validation)
    assert mined.case_ids.to_pylist() == names.to_pylist() + whole.case_ids.to_pylist()[reformulation.BLOCK :]
    np.testing.assert_array_equal(mined.first.item_rows, whole.first.item_rows)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["again.arrow"]


def test_parts_that_another_run_file_left_are_not_gone_on_with(world, tmp_path):
    run = config.load(world.release.folder / "run.toml")
    asked = {"part": "test", "k": 5, "out": tmp_path / "mined.arrow", "work": world.work}
    stopped_at_the_end(world.release, run, asked)
    showing_all = config.load(world.release.folder / "run.toml", ["evaluation.exclude_seen=false"])
    assert reformulation.mine(world.release, showing_all, **asked).excluded.sizes.max() == 0


def test_the_new_release_has_the_reformulator_with_all_that_the_old_one_had(world, trained):
    assert trained.manifest.parent == world.release.fingerprint
    old, new = world.release.manifest.parts, trained.manifest.parts
    kept = [name for name in old if name.split("/")[0] != "reformulators"]
    assert {name: new[name] for name in kept} == {name: old[name] for name in kept}
    assert {name.split("/")[0] for name in new.keys() - old.keys()} <= {"reformulators"}
    open_release(world.release.folder)
    retriever = Retriever.load(trained.folder)
    retriever.warm()
    assert retriever.reformulators == NAMES
    assert "first" not in Retriever.load(world.release.folder).reformulators


def test_a_release_is_shown_with_its_reformulators(first):
    shown = CliRunner().invoke(app, ["release", "show", str(first.folder)], catch_exceptions=False).stdout
    (line,) = (line for line in shown.splitlines() if "reformulators" in line)
    assert " ".join(line.split()).strip("│ ") == f"reformulators │ {', '.join(NAMES)}; default: first"


def test_a_release_says_how_its_reformulator_was_trained(first, validation):
    facts = Reformulators.load(first.folder).get("first").facts
    assert facts["validation_metric"] == "nDCG@10"
    assert len(facts["validations"]) == 21
    assert facts["validations"][0] == facts["original"]
    assert 0 <= facts["steps"] <= 40
    assert facts["share"] in SHARES
    assert (facts["queries"], facts["folds"]) == (len(Mined.read(validation)), 2)
    assert facts["mined"] == dict(Mined.read(validation).facts)
    assert facts["settings"]["reformulator"]["width"] == 16
    assert facts["seed"] == 3


def test_a_query_can_be_reformulated_by_what_was_trained(first):
    retriever = Retriever.load(first.folder)
    answer = retriever.reformulate(Query(entity_id="user 7"), 5, pseudo_k=3, guarded=False)
    assert (answer.reformulator, len(answer.answer.item_ids)) == ("first", 5)
    assert answer.drift >= 0


def test_a_release_can_hold_two_and_the_default_stays_when_asked(world, first, validation):
    words = ("--name", "second-1", "--set", "reformulation.reformulator={kind='attention', width=8, heads=2}")
    words = ("reformulate", "train", first.folder, validation, *words)
    second = released(world.call(*words, "--no-default"))
    both, held = Retriever.load(second.folder), Reformulators.load(second.folder)
    assert both.reformulators == ("average", "first", "history", "identity", "rocchio", "second-1")
    assert both.default_reformulator == "first"
    assert (held.get("first").choice.width, held.get("second-1").choice.width) == (16, 8)
    for name, values in Reformulators.load(first.folder).get("first").weights.items():
        np.testing.assert_array_equal(held.get("first").weights[name], values)


IDLE = ("--set", "reformulation.learning_rate=1e-12", "--set", "reformulation.steps=1")
"""Steps too small to change a rank."""


def test_a_training_without_a_significant_gain_is_added_but_is_never_the_default(world, first, validation):
    printed = world.call("reformulate", "train", first.folder, validation, *IDLE, "--name", "idle", "--default")
    held, queries = Reformulators.load(released(printed).folder), len(Mined.read(validation))
    facts = held.get("idle").facts
    assert (facts["steps"], facts["reached"], facts["is_significant"]) == (0, facts["original"], False)
    assert f"idle: 0 steps on {queries:,} queries" in printed
    assert "(reformulation.folds = 2)" in printed
    assert f"{queries:,} queries do not show one" in printed
    assert "a larger split.validation_rate" in printed
    assert "default: first" in printed
    assert (held.default, "idle" in held.names) == ("first", True)


def test_too_few_queries_leave_identity_as_the_default_and_their_number_is_printed(world, validation, tmp_path):
    few = tmp_path / "few.arrow"
    Mined.read(validation).take(np.arange(9)).write(few)
    printed = world.call("reformulate", "train", world.release.folder, few, "--name", "few")
    held = Reformulators.load(released(printed).folder)
    assert held.default == "identity"
    assert "few: " in printed
    assert "9 queries do not show one" in printed
    assert "a larger split.validation_rate" in printed


def test_a_training_without_a_significant_gain_does_not_replace_the_default(world, first, validation):
    words = (validation, *IDLE)
    told = r"^first: got a training on [\d,]+ queries without a significant gain, .*default of wide-.* another --nam"
    before = sorted(world.releases.iterdir())
    with pytest.raises(RefusedError, match=told):
        raise world.refused("reformulate", "train", first.folder, *words, "--name", "first", "--no-default")
    assert sorted(world.releases.iterdir()) == before


def test_the_judgement_is_printed_and_written(world, first, test_part, tmp_path):
    words = ("--depth", 1, "--depth", 4, "--metric", "nDCG@5", "--out", tmp_path / "judged")
    printed = world.call("reformulate", "eval", first.folder, test_part, *words)
    for name in NAMES:
        assert f"{name}: pairs of a case and two depths where more feedback is worse: nDCG@5 " in printed
    content = json.loads((tmp_path / "judged" / "reformulation.json").read_text())
    assert content["cases"] == len(Mined.read(test_part))
    assert content["depths"] == [0, 1, 4]
    values = {(p["reformulator"], p["depth"]): p["value"] for p in content["points"] if not p["guarded"]}
    assert {name for name, _ in values} == set(NAMES)
    assert values["identity", 4] == values["identity", 0] == values["first", 0] > 0
    assert (tmp_path / "judged" / "reformulation-nDCG@5.png").exists()


def test_only_those_that_are_named_are_judged(world, first, test_part):
    words = ("--name", "rocchio", "--name", "first", "--depth", 2)
    printed = world.call("reformulate", "eval", first.folder, test_part, *words)
    assert [line.split(":")[0] for line in printed.splitlines() if "more feedback is worse" in line] == [
        "rocchio",
        "first",
    ]


@pytest.mark.parametrize(
    ("words", "cls", "told"),
    [
        (("--name", "frist"), RequestError, r"no reformulator in this release named 'frist'\. Did you mean 'first'\?"),
        (("--metric", "foo@3"), SettingError, r"^--metric: got 'foo@3', expected one of nDCG@k"),
        (("--depth", 7), SettingError, r"^--depth: got 7, expected at most 6, .* or mine with `recsys mine -k 7`\.$"),
    ],
)
def test_what_cannot_be_judged_is_refused(words: Sequence[object], cls, told, world, first, test_part):
    with pytest.raises(cls, match=told):
        raise world.refused("reformulate", "eval", first.folder, test_part, *words)


def test_a_reformulator_is_not_judged_by_the_queries_that_it_learned_from(world, first, validation, tmp_path):
    with pytest.raises(DataError, match=r"^first: got the queries that it was trained on, .*--part test`\.$"):
        raise world.refused("reformulate", "eval", first.folder, validation)
    assert "rocchio" in world.call("reformulate", "eval", first.folder, validation, "--name", "rocchio", "--depth", 1)
    deeper = tmp_path / "deeper.arrow"
    world.call("mine", world.release.folder, "-k", 25, "--out", deeper)
    with pytest.raises(DataError, match=r"^first: got the queries that it was trained on"):
        raise world.refused("reformulate", "eval", first.folder, deeper)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--name", "a/b"), r"^--name: got 'a/b', expected 1 to 64 letters, digits, '_' and '-'\.$"),
        (("--name", ""), r"^--name: got ''"),
        (("--name", "ä"), r"^--name: got 'ä'"),
        (
            ("--set", "reformulation.reformulator={kind='rocchio'}"),
            r"^reformulation\.reformulator\.kind: got 'rocchio', expected one of attention, linear",
        ),
        (("--set", "reformulation.validation_metric='foo'"), r"^reformulation\.validation_metric: got 'foo'"),
        (
            ("--set", "reformulation.feedback_k=21"),
            r"^reformulation\.feedback_k: got 21, expected at most 20, the first results of each query\. Lower it, or",
        ),
    ],
)
def test_what_cannot_be_trained_is_refused_before_training(words, told, world, validation):
    before = sorted(world.releases.iterdir())
    with pytest.raises(SettingError, match=told):
        raise world.refused("reformulate", "train", world.release.folder, validation, *words)
    assert sorted(world.releases.iterdir()) == before


def test_feedback_of_another_release_is_refused(block_release, world, validation, test_part):
    told = r"got feedback mined with other towers or another index, expected .*Mine again with `recsys mine`\.$"
    with pytest.raises(DataError, match=told):
        raise world.refused("reformulate", "train", block_release.folder, validation)
    with pytest.raises(DataError, match=told):
        raise world.refused("reformulate", "eval", block_release.folder, test_part)


def test_damaged_feedback_is_refused(world, test_part, tmp_path):
    whole = Mined.read(test_part)
    rows = whole.first.item_rows.copy()
    rows[0, 0] = 10**6
    for damaged in (
        replace(whole, first=Neighbours(rows, whole.first.scores)),
        replace(whole, query_vectors=whole.query_vectors[:, :-1]),
        replace(whole, query_vectors=np.full_like(whole.query_vectors, np.nan)),
        whole.take(np.arange(0)),
    ):
        damaged.write(tmp_path / "damaged.arrow")
        with pytest.raises(DataError, match=r"expected feedback of this release, undamaged\. Mine again"):
            raise world.refused("reformulate", "eval", world.release.folder, tmp_path / "damaged.arrow")


def test_a_file_that_is_no_feedback_is_refused(world):
    with pytest.raises(DataError, match=r"expected a file of mined feedback\. Write it with `recsys mine`\.$"):
        raise world.refused("reformulate", "train", world.release.folder, world.data / "items.parquet")


def test_an_unknown_part_is_refused(world):
    with pytest.raises(SettingError, match=r"^--part: got 'tests', expected validation, test or train\.$"):
        raise world.refused("mine", world.release.folder, "--part", "tests")


def test_first_results_of_training_queries_teach_no_reformulator_and_judge_none(world, train_part):
    for word in ("train", "eval"):
        with pytest.raises(DataError, match=r"got first results of training queries, expected those of queries whose"):
            raise world.refused("reformulate", word, world.release.folder, train_part)


def reordered(folder: Path) -> None:
    items = pq.read_table(folder / "items.parquet")
    pq.write_table(items.take(np.arange(len(items))[::-1]), folder / "items.parquet")


def fewer_users(folder: Path) -> None:
    write_block_world(folder, 90)


def more_users(folder: Path) -> None:
    write_block_world(folder, USERS + 300)


def other_order(folder: Path) -> None:
    users = pq.read_table(folder / "users.parquet")
    pq.write_table(users.take(np.roll(np.arange(len(users)), 1)), folder / "users.parquet")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (reordered, "got another catalog, expected that of wide-"),
        (fewer_users, "got data with other codes, expected those of wide-"),
        (more_users, "got queries that the query tower cannot read, expected those of wide-"),
        (other_order, "got data with other codes, expected those of wide-"),
    ],
)
def test_data_that_the_release_was_not_trained_on_are_refused(change, told, world, tmp_path):
    shutil.copytree(world.data, tmp_path / "data")
    change(tmp_path / "data")
    run_file = tmp_path / "other.toml"
    run_file.write_text(tomli_w.dumps(tables_of(tmp_path / "data", name="other")))
    with pytest.raises(DataError, match=rf"^other: {told}.*Give the run file and the data"):
        raise world.refused("mine", world.release.folder, run_file)


def test_a_run_that_reads_other_features_is_refused(world, tmp_path):
    query = {"features": {"who": {"kind": "id", "width": 8}, "town": {"kind": "categorical", "width": 4}}}
    run_file = tmp_path / "other.toml"
    run_file.write_text(tomli_w.dumps(tables_of(world.data, name="other", query=query)))
    with pytest.raises(DataError, match=r"^other: got queries that the query tower cannot read"):
        raise world.refused("mine", world.release.folder, run_file)


@pytest.mark.parametrize("change", ["split.validation_rate=0.0", "split.test_rate=0.3", "seed=4"])
def test_a_split_of_which_the_towers_have_seen_the_answers_is_refused(change, world, tmp_path):
    words = ("--part", "test", "--set", change, "--set", "name='other'", "--out", tmp_path / "mined.arrow")
    with pytest.raises(DataError, match=r"^other: got another split, expected that of wide-.*that this release was"):
        raise world.refused("mine", world.release.folder, *words)


def test_rows_that_no_item_fills_are_padding(world, tmp_path):
    run = config.load(world.release.folder / "run.toml")
    mined = reformulation.mine(world.release, run, part="test", k=38, out=tmp_path / "mined.arrow", work=world.work)
    # 40 items less those that were seen: fewer than 38 for everybody who met more than two
    found = (mined.first.item_rows != NO_ROW).sum(axis=1)
    np.testing.assert_array_equal(found, np.minimum(38, 40 - mined.excluded.sizes))
