"""Correlated feature masking: the seed and its partners on one side, all others on the other."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest, chisquare

from recsys.augmentations.correlated_mask import CorrelatedMask
from recsys.features.categorical import Categorical
from recsys.features.id import Id
from recsys.training.self_supervision import fields_of
from recsys.views import Fields
from tests.unit.augmentations.draws import draw_masks, make_fields, random_dependence, with_id

FIVE = [
    # a    b    c    d    e
    [9.0, 8.0, 1.0, 2.0, 4.0],
    [8.0, 9.0, 3.0, 1.5, 2.5],
    [1.0, 3.0, 9.0, 7.0, 0.5],
    [2.0, 1.5, 7.0, 9.0, 6.0],
    [4.0, 2.5, 0.5, 6.0, 9.0],
]
MASKED_BY_SEED = {"a": "abe", "b": "abc", "c": "bcd", "d": "cde", "e": "ade"}

any_matrix = st.integers(0, 2**32 - 1)


def names_of(masks: np.ndarray, names: str) -> list[str]:
    return ["".join(np.array(list(names))[row]) for row in masks]


def test_the_masked_sets_by_hand():
    # floor(5 / 2) = 2 partners of each seed: the two largest numbers of its row but its own
    patterns = CorrelatedMask().patterns(make_fields("abcde", dependence=FIVE))
    assert names_of(patterns, "abcde") == list(MASKED_BY_SEED.values())


@given(st.integers(3, 8), any_matrix)
def test_a_seed_and_its_most_dependent_partner_share_a_side(count, seed):
    matrix = random_dependence(count, seed)
    patterns = CorrelatedMask().patterns(make_fields("abcdefgh"[:count], dependence=matrix))
    assert len(patterns) == count
    for place, masked in enumerate(patterns):
        closest = matrix[place].argmax()
        assert masked[place]
        assert masked[closest]


@given(st.integers(3, 8), any_matrix)
def test_no_feature_that_is_shown_tells_more_of_the_seed_than_one_that_is_hidden_with_it(count, seed):
    matrix = random_dependence(count, seed)
    patterns = CorrelatedMask().patterns(make_fields("abcdefgh"[:count], dependence=matrix))
    for place, masked in enumerate(patterns):
        hidden_with_it = masked & (np.arange(count) != place)
        assert matrix[place, hidden_with_it].min() > matrix[place, ~masked].max()


# 1 + min(floor(k / 2), k - 2): half of the features and the seed, but never all
@pytest.mark.parametrize(("count", "size"), [(2, 1), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4), (8, 5)])
@settings(max_examples=20)
@given(seed=any_matrix)
def test_half_of_the_features_are_hidden_with_the_seed_but_one_stays_for_the_other_view(count, size, seed):
    fields = make_fields("abcdefgh"[:count], dependence=random_dependence(count, seed))
    assert CorrelatedMask().patterns(fields).sum(axis=1).tolist() == [size] * count


@pytest.mark.parametrize("place", [0, 2, 4])
def test_the_place_of_the_id_among_the_features_does_not_matter(place):
    content = random_dependence(4, seed=place)
    names = "abcd"[:place] + "i" + "abcd"[place:]
    patterns = CorrelatedMask().patterns(make_fields(names, ids="i", dependence=with_id(content, place)))
    alone = CorrelatedMask().patterns(make_fields("abcd", dependence=content))
    assert names_of(patterns, names) == names_of(alone, "abcd")


@pytest.mark.parametrize("item_id", ["drawn", "ranked"])
@pytest.mark.parametrize("count", [2, 3, 5])
def test_every_feature_is_shown_by_exactly_one_view(item_id, count):
    names = "abcde"[:count] + "i"
    fields = make_fields(names, ids="i", dependence=with_id(random_dependence(count, seed=count), count))
    shown = ~draw_masks(CorrelatedMask(item_id=item_id), fields, 40)
    assert (shown.sum(axis=1) == 1).all()
    assert shown[..., :count].any(axis=-1).all()


def test_the_first_view_hides_what_the_second_shows():
    masks = draw_masks(CorrelatedMask(), make_fields("abcde", dependence=FIVE), 40)[:, :, 0]
    assert set(names_of(masks[:, 0], "abcde")) == set(MASKED_BY_SEED.values())
    assert set(names_of(~masks[:, 1], "abcde")) == set(MASKED_BY_SEED.values())


def test_every_feature_is_the_seed_equally_often():
    masks = draw_masks(CorrelatedMask(), make_fields("abcde", dependence=FIVE), 500)[:, 0, 0]
    met = names_of(masks, "abcde")
    counts = [met.count(pattern) for pattern in MASKED_BY_SEED.values()]
    assert sum(counts) == 500
    assert chisquare(counts).pvalue > 1e-3


def test_a_drawn_id_is_on_either_side_in_half_of_the_batches_whatever_the_seed_feature():
    fields = make_fields("abcdei", ids="i", dependence=with_id(FIVE, 5))
    masks = draw_masks(CorrelatedMask(), fields, 600)[:, :, 0]
    assert (masks[:, 0, 5] != masks[:, 1, 5]).all()
    assert binomtest(int(masks[:, 0, 5].sum()), 600, 0.5).pvalue > 1e-4
    met = np.array(names_of(masks[:, 0, :5], "abcde"))
    for pattern in MASKED_BY_SEED.values():
        hidden = masks[met == pattern, 0, 5]
        assert binomtest(int(hidden.sum()), len(hidden), 0.5).pvalue > 1e-4


def test_a_masked_id_is_shown_by_no_view_and_the_content_is_split_as_ever():
    fields = make_fields("iabcde", ids="i", dependence=with_id(FIVE, 0))
    masks = draw_masks(CorrelatedMask(item_id="masked"), fields, 40)
    assert masks[..., 0].all()
    assert (masks[..., 1:].sum(axis=1) == 1).all()
    assert set(names_of(masks[:, 0, 0, 1:], "abcde")) == set(MASKED_BY_SEED.values())


def measured_fields(seed: int) -> Fields:
    """Return the fields of 300 items with an id and four columns of 3 to 6 values."""
    random = np.random.default_rng(seed)
    columns = {
        name: random.integers(0, kinds, 300).astype(str) for name, kinds in zip("abcd", (3, 4, 5, 6), strict=True)
    }
    columns["i"] = np.array([f"item {row}" for row in range(300)])
    encoders, codes = {}, {}
    for name, values in columns.items():
        column = pa.chunked_array([pa.array(values)])
        feature = Id(column=name) if name == "i" else Categorical(column=name)
        encoders[name] = feature.fit(column, np.ones(300, np.int64))
        codes[name] = encoders[name].encode(column)
    return fields_of(encoders, codes, np.ones(300, np.int64))


@pytest.mark.parametrize("seed", range(3))
def test_a_ranked_id_determines_every_feature_and_is_therefore_hidden_with_every_seed(seed):
    # MI(id, f) = H(f) >= MI(g, f) for every other g
    fields = measured_fields(seed)
    dependence = fields.dependence("mutual_information", "items")
    np.testing.assert_allclose(dependence[4, :4], np.diag(dependence)[:4], rtol=1e-9)
    patterns = CorrelatedMask(item_id="ranked").patterns(fields)
    assert len(patterns) == 5
    assert patterns[:, 4].all()
    # k = 5 now, so the id and one more go with each seed
    assert patterns.sum(axis=1).tolist() == [3] * 5


@pytest.mark.parametrize("weighted_by", ["items", "interactions"])
@pytest.mark.parametrize("measure", ["mutual_information", "normalised"])
def test_partners_are_those_of_the_measure_and_the_population_that_were_asked_for(measure, weighted_by):
    def dependence(*asked: str) -> np.ndarray:
        close, far = (0.9, 0.1) if asked == (measure, weighted_by) else (0.1, 0.9)
        return np.array([[1.0, close, far], [close, 1.0, 0.5], [far, 0.5, 1.0]])

    # a's one partner is b by the measure over the population that is asked for, c by any other
    fields = Fields(tuple("abc"), frozenset(), frozenset(), dependence)
    masked = CorrelatedMask(dependence=measure, weighted_by=weighted_by).patterns(fields)[0]
    assert names_of(masked[None], "abc") == ["ab"]


def test_one_mask_serves_the_batch_or_each_item_has_its_own():
    fields = make_fields("abcdei", ids="i", dependence=with_id(FIVE, 5))
    assert draw_masks(CorrelatedMask(), fields, 1, rows=300).shape == (1, 2, 1, 6)
    each = draw_masks(CorrelatedMask(per="item"), fields, 1, rows=300)[0]
    assert each.shape == (2, 300, 6)
    assert (each.sum(axis=0) == 1).all()
    # five seeds and two sides for the id, equally often: ten different masks
    _, counts = np.unique(each[0], axis=0, return_counts=True)
    assert len(counts) == 10
    assert chisquare(counts).pvalue > 1e-3
