"""Every kind of augmentation keeps the family's contract."""

from __future__ import annotations

import dataclasses
import typing

import numpy as np
import pytest

from recsys import registry
from recsys.stack import tf
from recsys.towers.mlp import Mlp
from recsys.views import Views
from tests.unit.augmentations.draws import draw_masks, make_fields, random_dependence, with_id
from twintower.errors import SettingError

KINDS = registry.names("augmentations")
MASKING = [kind for kind in KINDS if registry.choice("augmentations", kind).masks]
each_kind = pytest.mark.parametrize("kind", KINDS)
each_masking_kind = pytest.mark.parametrize("kind", MASKING)
each_count = pytest.mark.parametrize("count", [1, 2])

# i is the id, a and b have one value a row, t and w several
ROWS = 6
FIELDS = make_fields("iabtw", ids="i", bags="tw", dependence=with_id(random_dependence(4, 0), 0))
CODES = {
    "i": tf.range(ROWS),
    "a": tf.constant([0, 1, 2, 0, 1, 2]),
    "b": tf.constant([3, 3, 1, 1, 0, 0]),
    "t": tf.constant([[1, 2, 3], [2, -1, -1], [0, -1, -1], [4, 4, 5], [5, 1, -1], [3, 2, -1]]),
    "w": tf.constant([[1, 2], [3, 4], [5, 1], [2, 2], [0, -1], [1, -1]]),
}
SIGNATURE = [
    {name: tf.TensorSpec([None, *codes.shape[1:]], codes.dtype) for name, codes in CODES.items()},
    tf.TensorSpec([2], tf.int32),
]
SEEDS = [tf.constant([seed, 5]) for seed in range(12)]


@pytest.fixture(scope="module")
def tower():
    from recsys.layers import BagLookup, Lookup, Tables

    tables = Tables()
    layers = {name: Lookup(tables.get(name, 6, 4, 0), name=name) for name in "iab"}
    layers |= {name: BagLookup(tables.get(name, 6, 4, 0), "mean", name=name) for name in "tw"}
    built = Mlp(hidden=(8,), dim=5).build(layers, name="tower", mixed_precision="none", augmented=True)
    built(CODES)
    return built


def augment(kind, seed, count=2, codes=CODES, **settings) -> Views:
    return registry.choice("augmentations", kind)(**settings).augment(Views.of(codes, count), FIELDS, seed)


def vectors(tower, kind, seed, count=2) -> np.ndarray:
    return tower.encode_views(augment(kind, seed, count), seed).numpy()


@each_kind
@each_count
def test_views_are_a_function_of_the_seed_alone(kind, count, tower):
    tf.random.set_seed(1)
    once = [vectors(tower, kind, seed, count) for seed in SEEDS]
    tf.random.set_seed(2)
    again = [vectors(tower, kind, seed, count) for seed in reversed(SEEDS)][::-1]
    np.testing.assert_array_equal(once, again)
    assert any((one != once[0]).any() for one in once)


@each_kind
@each_count
def test_views_hide_something(kind, count, tower):
    plain = tower(CODES).numpy()
    assert any((np.abs(vectors(tower, kind, seed, count) - plain) > 1e-3).any() for seed in SEEDS)


@each_kind
def test_two_views_differ(kind, tower):
    pairs = [vectors(tower, kind, seed) for seed in SEEDS]
    # a rare draw may be the same for both
    assert np.mean([np.abs(one - other).max() > 1e-3 for one, other in pairs]) > 0.5


@each_kind
@each_count
def test_views_keep_their_number_and_the_shape_of_their_codes(kind, count, tower):
    for seed in SEEDS[:3]:
        views = augment(kind, seed, count)
        assert views.count == count
        assert views.masked.shape[2] == 5
        assert views.masked.shape[1] in (1, ROWS)
        assert views.masked.dtype == tf.bool
        for name, codes in CODES.items():
            assert len(views.codes[name]) in (1, count)
            assert all((each.shape, each.dtype) == (codes.shape, codes.dtype) for each in views.codes[name])
        assert tower.encode_views(views, seed).shape == (count, ROWS, 5)


@pytest.mark.parametrize(
    ("kind", "settings"), [(kind, {}) for kind in KINDS] + [(kind, {"per": "item"}) for kind in MASKING]
)
@each_count
def test_graph_and_eager_agree_for_any_batch(kind, settings, count, tower):
    @tf.function(input_signature=SIGNATURE)
    def graph(codes, seed):
        return tower.encode_views(augment(kind, seed, count, codes, **settings), seed)

    for codes in (CODES, {name: codes[:2] for name, codes in CODES.items()}):
        for seed in SEEDS[:3]:
            eager = tower.encode_views(augment(kind, seed, count, codes, **settings), seed)
            np.testing.assert_allclose(graph(codes, seed).numpy(), eager.numpy(), atol=1e-6)


@each_masking_kind
@pytest.mark.parametrize("per", ["batch", "item"])
@pytest.mark.parametrize("contents", [2, 3, 6])
def test_every_view_shows_some_of_the_content_and_hides_some(kind, per, contents):
    names = "abcdef"[:contents] + "i"
    fields = make_fields(names, ids="i", dependence=with_id(random_dependence(contents, 1), contents))
    cls = registry.choice("augmentations", kind)
    (item_id,) = (field for field in dataclasses.fields(cls) if field.name == "item_id")
    for treatment in typing.get_args(typing.get_type_hints(cls)[item_id.name]):
        draws = {"draws": 20} if per == "batch" else {"draws": 1, "rows": 20}
        masks = draw_masks(cls(per=per, item_id=treatment), fields, **draws)[..., :contents]
        assert masks.any(axis=-1).all(), treatment
        assert not masks.all(axis=-1).any(), treatment


@each_masking_kind
def test_what_was_hidden_before_stays_hidden(kind):
    before = tf.constant([[[True, False, False, False, False]], [[False, True, False, False, False]]])
    for seed in SEEDS[:3]:
        views = dataclasses.replace(Views.of(CODES, 2), masked=before)
        after = registry.choice("augmentations", kind)().augment(views, FIELDS, seed)
        assert (after.masked.numpy() >= before.numpy()).all()


@each_kind
def test_a_setting_out_of_its_range_is_refused_by_name(kind):
    cls = registry.choice("augmentations", kind)
    kinds = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        wrong = [-0.1, 0, 1, 1.5, float("nan")] if kinds[field.name] is float else ["of another kind"]
        for value in wrong:
            with pytest.raises(SettingError, match=rf"^self_supervision\.augmentations\.{field.name}: got "):
                registry.build("augmentations", {"kind": kind, field.name: value}, "self_supervision.augmentations")


@each_kind
def test_its_settings_survive_a_run_file(kind):
    augmentation = registry.choice("augmentations", kind)()
    assert registry.build("augmentations", registry.table_of(augmentation), "somewhere") == augmentation
