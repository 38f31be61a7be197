"""Value dropout: each value of a bag on its own; an emptied bag counts as masked."""

from __future__ import annotations

import numpy as np
from scipy.stats import binomtest

from recsys.augmentations.random_mask import RandomMask
from recsys.augmentations.value_dropout import ValueDropout
from recsys.stack import tf
from recsys.training.self_supervision import augmented
from recsys.views import Views
from tests.unit.augmentations.draws import make_fields

FIELDS = make_fields("abc", bags="bc")
ROWS, VALUES = 400, 5
FULL = np.arange(ROWS * VALUES, dtype=np.int32).reshape(ROWS, VALUES)
CODES = {"a": tf.range(ROWS), "b": tf.constant(FULL), "c": tf.constant(FULL)}
SEED = tf.constant([3, 4])


def drop(rate: float, views: Views | None = None, seed: tf.Tensor = SEED) -> Views:
    return ValueDropout(rate=rate).augment(views or Views.of(CODES, 2), FIELDS, seed)


def dropped(views: Views, name: str) -> np.ndarray:
    """Return which values each view lost, `[views, rows, values]`."""
    return np.stack([codes.numpy() for codes in views.codes[name]]) < 0


def test_each_value_is_dropped_with_the_probability_that_was_asked_for():
    for rate in (0.1, 0.5, 0.9):
        for bag in dropped(drop(rate), "b"):
            assert binomtest(int(bag.sum()), ROWS * VALUES, rate).pvalue > 1e-4
            # each place of a bag alike
            assert all(binomtest(int(count), ROWS, rate).pvalue > 1e-4 for count in bag.sum(axis=0))


def test_what_is_kept_stays_as_it_was():
    for codes in drop(0.5).codes["b"]:
        kept = codes.numpy() >= 0
        np.testing.assert_array_equal(codes.numpy()[kept], FULL[kept])


def test_padding_stays_padding_and_counts_for_nothing():
    padded = np.where(np.arange(VALUES) < 2, FULL, -1).astype(np.int32)
    views = drop(0.5, Views.of(CODES | {"b": tf.constant(padded)}, 2))
    for codes in views.codes["b"]:
        assert (codes.numpy()[:, 2:] == -1).all()
    # a bag of two loses both with probability 1/4
    assert binomtest(int(views.masked.numpy()[0, :, 1].sum()), ROWS, 0.25).pvalue > 1e-4


def test_a_bag_that_loses_everything_counts_as_masked_and_no_other_does():
    views = drop(0.7)
    for place, name in ((1, "b"), (2, "c")):
        emptied = dropped(views, name).all(axis=2)
        assert emptied.any()
        assert not emptied.all()
        np.testing.assert_array_equal(views.masked.numpy()[:, :, place], emptied)


def test_features_with_one_value_are_left_alone():
    views = drop(0.9)
    assert len(views.codes["a"]) == 1
    np.testing.assert_array_equal(views.codes["a"][0].numpy(), np.arange(ROWS))
    assert not views.masked.numpy()[:, :, 0].any()


def test_two_views_lose_values_independently():
    first, second = dropped(drop(0.5), "b")
    # each pair of fates has a quarter of the values
    for one in (first, ~first):
        for other in (second, ~second):
            assert binomtest(int((one & other).sum()), ROWS * VALUES, 0.25).pvalue > 1e-4


def test_two_features_lose_values_independently():
    views = drop(0.5)
    both = dropped(views, "b") & dropped(views, "c")
    assert all(binomtest(int(view.sum()), ROWS * VALUES, 0.25).pvalue > 1e-4 for view in both)


def test_a_feature_that_only_one_view_can_show_is_drawn_once():
    split = RandomMask().augment(Views.of(CODES, 2), FIELDS, SEED)
    views = drop(0.5, split, SEED + 1)
    assert len(views.codes["b"]) == 1
    (bag,) = dropped(views, "b")
    assert binomtest(int(bag.sum()), ROWS * VALUES, 0.5).pvalue > 1e-4


def test_what_was_masked_before_stays_masked():
    split = RandomMask().augment(Views.of(CODES, 2), FIELDS, SEED)
    assert (drop(0.1, split, SEED + 1).masked.numpy() >= split.masked.numpy()).all()


def test_a_list_of_two_drops_what_either_drops_and_the_views_stay_independent():
    stages = (ValueDropout(rate=0.5), ValueDropout(rate=0.5))
    views = augmented(stages, FIELDS, CODES, 2, SEED)
    first, second = dropped(views, "b")
    # a value is kept with probability 1/2 * 1/2 in each view, and in both with 1/16
    for kept, probability in ((~first, 1 / 4), (~second, 1 / 4), (~first & ~second, 1 / 16)):
        assert binomtest(int(kept.sum()), ROWS * VALUES, probability).pvalue > 1e-4


def test_which_values_are_dropped_says_nothing_of_the_mask_that_is_drawn_after():
    stages = (ValueDropout(rate=0.5), RandomMask(mask_rate=0.3, per="item"))
    codes = {"b": tf.reshape(tf.range(ROWS * 3), [ROWS, 3]), "c": tf.range(ROWS), "d": tf.range(ROWS)}
    views = augmented(stages, make_fields("bcd", bags="b"), codes, 2, SEED)
    # one of three features is hidden in the first view, whatever became of any value
    for place in (1, 2):
        hidden = views.masked.numpy()[0, :, place]
        for lost in dropped(views, "b").transpose(0, 2, 1).reshape(6, ROWS):
            assert binomtest(int((lost & hidden).sum()), int(lost.sum()), 1 / 3).pvalue > 1e-4
