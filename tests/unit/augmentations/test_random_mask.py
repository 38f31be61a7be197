"""Random feature masking: what one view hides, the other shows."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chisquare

from recsys.augmentations.random_mask import RandomMask
from tests.unit.augmentations.draws import draw_masks, make_fields


def test_every_feature_is_shown_by_exactly_one_view():
    masks = draw_masks(RandomMask(), make_fields("aibcd", ids="i"), 60)
    assert (masks.sum(axis=1) == 1).all()


@pytest.mark.parametrize(
    # 0.4 of 5 is 2; a side that would be empty keeps one feature
    ("rate", "hidden"),
    [(0.4, 2), (0.5, 2), (0.6, 3), (0.01, 1), (0.99, 4)],
)
def test_the_first_view_hides_the_share_that_was_asked_for(rate, hidden):
    masks = draw_masks(RandomMask(mask_rate=rate), make_fields("abicde", ids="i"), 20)
    content = np.delete(masks, 2, axis=-1).sum(axis=-1)[..., 0]
    assert content.tolist() == [[hidden, 5 - hidden]] * 20


def test_two_features_are_split_one_each():
    masks = draw_masks(RandomMask(mask_rate=0.99), make_fields("ab"), 60)[:, 0, 0]
    assert masks.sum(axis=1).tolist() == [1] * 60
    assert binomtest(int(masks[:, 0].sum()), 60, 0.5).pvalue > 1e-4


def test_every_split_is_equally_likely():
    # two of four features: six splits
    masks = draw_masks(RandomMask(), make_fields("abcd"), 600)[:, 0, 0]
    _, counts = np.unique(masks, axis=0, return_counts=True)
    assert len(counts) == 6
    assert chisquare(counts).pvalue > 1e-3


def test_a_drawn_id_is_on_either_side_in_half_of_the_batches_whatever_else_is_hidden():
    masks = draw_masks(RandomMask(mask_rate=0.3), make_fields("abci", ids="i"), 600)[:, 0, 0]
    assert binomtest(int(masks[:, 3].sum()), 600, 0.5).pvalue > 1e-4
    for place in range(3):
        hidden = masks[masks[:, place], 3]
        assert binomtest(int(hidden.sum()), len(hidden), 0.5).pvalue > 1e-4


def test_a_masked_id_is_shown_by_no_view():
    masks = draw_masks(RandomMask(item_id="masked"), make_fields("abci", ids="i"), 20)
    assert masks[..., 3].all()
    assert (masks[..., :3].sum(axis=1) == 1).all()


def test_one_split_serves_the_batch_or_each_item_has_its_own():
    fields = make_fields("abcd")
    assert draw_masks(RandomMask(), fields, 1, rows=300).shape == (1, 2, 1, 4)
    each = draw_masks(RandomMask(per="item"), fields, 1, rows=300)[0]
    assert (each.sum(axis=0) == 1).all()
    assert len(np.unique(each[0], axis=0)) == 6
