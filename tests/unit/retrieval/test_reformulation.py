"""Reformulators in a release folder: written, read, replaced, and refused where they are damaged."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest

from recsys import registry
from recsys.errors import ReleaseError
from recsys.export.release import derive, open_release
from recsys.retrieval.guard import Guard
from recsys.retrieval.reformulation import (
    NamedReformulator,
    Reformulators,
    check_name,
    feedback_of,
    pseudo_feedback,
)
from recsys.types import NO_ROW, ItemRoles, Neighbours
from tests.worlds import copy_of
from twintower.errors import RequestError, SettingError
from twintower.types import FeedbackKind


def attention(name="learned", seed=0, **facts):
    choice = registry.build("reformulators", {"kind": "attention", "width": 8, "heads": 2}, "attention")
    guard = Guard(max_drift=0.5, min_confidence=0.25, coefficients=tuple(range(7)))
    return NamedReformulator(name, choice, choice.initial(4, seed), guard, facts)


def test_what_is_written_is_read(tmp_path):
    attention(depth=5).save(tmp_path, default=True)
    read = Reformulators.load(tmp_path)
    assert read.names == ("average", "history", "identity", "learned", "rocchio")
    assert read.default == "learned"
    found = read.get()
    assert (found.name, found.choice, found.guard, found.facts) == (
        "learned",
        attention().choice,
        attention().guard,
        {"depth": 5},
    )
    assert found.weights.keys() == attention().weights.keys()
    for name, value in attention().weights.items():
        np.testing.assert_array_equal(found.weights[name], value)
        assert found.weights[name].dtype == np.float32


def test_a_folder_without_any_has_the_untrained_kinds_and_identity_by_default(tmp_path):
    read = Reformulators.load(tmp_path)
    assert (read.names, read.default) == (("average", "history", "identity", "rocchio"), "identity")
    assert [registry.kind_of(read.get(name).choice) for name in read.names] == list(read.names)


def test_one_that_is_no_default_leaves_the_default_as_it_was(tmp_path):
    attention().save(tmp_path, default=False)
    assert Reformulators.load(tmp_path).default == "identity"
    attention("other").save(tmp_path, default=True)
    attention("third").save(tmp_path, default=False)
    assert Reformulators.load(tmp_path).default == "other"


def test_a_saved_one_may_take_the_name_of_an_untrained_kind(tmp_path):
    strong = registry.build("reformulators", {"kind": "rocchio", "beta": 3.0}, "rocchio")
    NamedReformulator("rocchio", strong).save(tmp_path, default=False)
    assert Reformulators.load(tmp_path).get("rocchio").choice.beta == 3.0


def test_saving_again_replaces_all_of_the_old_one(tmp_path):
    attention().save(tmp_path, default=True)
    choice = registry.build("reformulators", {"kind": "linear_feedback"}, "linear_feedback")
    NamedReformulator("learned", choice, choice.initial(4, 0)).save(tmp_path, default=True)
    found = Reformulators.load(tmp_path).get()
    assert sorted(found.weights) == ["c", "log_a", "log_b"]
    assert len(list((tmp_path / "reformulators" / "learned").iterdir())) == 2


def test_an_unknown_name_names_the_nearest_known_one(tmp_path):
    with pytest.raises(RequestError, match=r"no reformulator in this release named 'avarage'.*Did you mean 'average'"):
        Reformulators.load(tmp_path).get("avarage")


def remove_weights(folder):
    (folder / "learned" / "weights.npz").unlink()


def cut_weights(folder):
    path = folder / "learned" / "weights.npz"
    path.write_bytes(path.read_bytes()[:-200])


def flip_a_weight(folder):
    path = folder / "learned" / "weights.npz"
    content = bytearray(path.read_bytes())
    content[200] ^= 255
    path.write_bytes(content)


def leave_a_weight_out(folder):
    path = folder / "learned" / "weights.npz"
    with np.load(path) as stored:
        kept = {name: value for name, value in stored.items() if name != "residual"}
    np.savez(path, **kept)


def break_json(folder):
    (folder / "learned" / "settings.json").write_text("{")


def take_away_the_guard(folder):
    path = folder / "learned" / "settings.json"
    table = json.loads(path.read_text())
    del table["guard"]
    path.write_text(json.dumps(table))


def set_wrongly(folder):
    path = folder / "learned" / "settings.json"
    table = json.loads(path.read_text())
    table["reformulator"]["width"] = -8
    path.write_text(json.dumps(table))


def make_an_unknown_kind(folder):
    path = folder / "learned" / "settings.json"
    table = json.loads(path.read_text())
    table["reformulator"]["kind"] = "telepathy"
    path.write_text(json.dumps(table))


def break_the_default(folder):
    (folder / "default.json").write_text("learned")


def make_a_list_of_the_settings(folder):
    (folder / "learned" / "settings.json").write_text("[]")


@pytest.mark.parametrize(
    "damage",
    [
        remove_weights,
        cut_weights,
        flip_a_weight,
        leave_a_weight_out,
        break_json,
        take_away_the_guard,
        set_wrongly,
        make_an_unknown_kind,
        break_the_default,
        make_a_list_of_the_settings,
    ],
    ids=lambda damage: damage.__name__,
)
def test_a_damaged_folder_is_a_release_that_cannot_be_used(tmp_path, damage):
    attention().save(tmp_path, default=True)
    damage(tmp_path / "reformulators")
    with pytest.raises(ReleaseError, match=r"/reformulators.*: got .*, expected "):
        Reformulators.load(tmp_path)


def test_a_default_that_is_not_there_is_a_release_that_cannot_be_used(tmp_path):
    attention().save(tmp_path, default=True)
    shutil.rmtree(tmp_path / "reformulators" / "learned")
    with pytest.raises(ReleaseError, match="learned"):
        Reformulators.load(tmp_path)


def test_a_derived_release_holds_it_under_its_fingerprint_and_leaves_the_parent_as_it_was(block_release, tmp_path):
    parent = copy_of(block_release, tmp_path)
    once = derive(parent, lambda folder: attention().save(folder, default=True) or {})
    twice = derive(once, lambda folder: attention(seed=1).save(folder, default=True) or {})
    assert len({release.fingerprint for release in (parent, once, twice)}) == 3
    # every part of all three still has the checksum that its manifest gives
    for release in (parent, once, twice):
        open_release(release.folder)
    first, second = (Reformulators.load(release.folder).get("learned") for release in (once, twice))
    assert np.abs(first.weights["query_in"] - second.weights["query_in"]).max() > 0
    assert Reformulators.load(parent.folder).default == Reformulators.load(block_release.folder).default


@pytest.mark.parametrize("name", ["attention-2_b", "A", "x" * 64])
def test_a_name_of_letters_digits_and_dashes_is_one(name):
    assert check_name(name) == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a/b", "..", "a b", "é"])
def test_a_name_that_could_be_no_folder_is_refused(name):
    with pytest.raises(SettingError, match=r"^--name: got "):
        check_name(name)


VECTORS = np.array([[1, 0], [0, 1], [0.6, 0.8]], np.float32)
ITEMS = ItemRoles.shared(VECTORS)


def test_item_rows_become_pseudo_feedback_in_their_order():
    queries = np.array([[1, 0], [0, 2]], np.float32)
    given = feedback_of(queries, ITEMS, np.array([[2, 0], [1, NO_ROW]]))
    np.testing.assert_allclose(given.vectors, [[[0.6, 0.8], [1, 0]], [[0, 1], [0, 0]]])
    # <(1, 0), (0.6, 0.8)> = 0.6, <(1, 0), (1, 0)> = 1, <(0, 2) / 2, (0, 1)> = 1: training has unit length, too
    np.testing.assert_allclose(given.scores, [[0.6, 1], [1, 0]])
    assert given.present.tolist() == [[True, True], [True, False]]
    assert given.kinds.tolist() == [[FeedbackKind.PSEUDO] * 2] * 2
    assert given.ranks.tolist() == [[0, 1], [0, 1]]
    assert given.counts.tolist() == [2, 1]


def test_the_first_results_of_a_search_are_pseudo_feedback_up_to_the_depth():
    first = Neighbours(np.array([[2, 0, NO_ROW]], np.int32), np.array([[0.9, 0.1, -np.inf]], np.float32))
    assert [pseudo_feedback(VECTORS[:1], ITEMS, first, depth).counts.tolist() for depth in (0, 1, 2, 3)] == [
        [0], [1], [2], [2],
    ]  # fmt: skip


def test_less_deep_feedback_is_a_prefix():
    given = feedback_of(VECTORS[:2], ITEMS, np.array([[2, 0, 1], [1, 0, NO_ROW]]))
    for depth in range(4):
        shallow = given.first(depth)
        assert shallow.counts.tolist() == [min(depth, 3), min(depth, 2)]
        np.testing.assert_array_equal(shallow.vectors[:, :depth], given.vectors[:, :depth])
        assert not shallow.vectors[:, depth:].any()
    assert given.first(np.array([1, 0])).counts.tolist() == [1, 0]
