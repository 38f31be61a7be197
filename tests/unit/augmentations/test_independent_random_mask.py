"""Random feature masking without complement: two views that know nothing of each other."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest, chi2_contingency, chisquare

from recsys.augmentations.independent_random_mask import IndependentRandomMask
from tests.unit.augmentations.draws import draw_masks, make_fields


@pytest.mark.parametrize(
    # 0.4 of 5 is 2; a view shows one feature and hides one at least
    ("rate", "hidden"),
    [(0.4, 2), (0.6, 3), (0.01, 1), (0.99, 4)],
)
def test_each_view_hides_the_share_that_was_asked_for(rate, hidden):
    masks = draw_masks(IndependentRandomMask(mask_rate=rate), make_fields("abicde", ids="i"), 20)
    content = np.delete(masks, 2, axis=-1).sum(axis=-1)[..., 0]
    assert content.tolist() == [[hidden, hidden]] * 20


def test_what_one_view_hides_says_nothing_of_what_the_other_hides():
    # one of three features in each view: nine pairs, equally likely
    masks = draw_masks(IndependentRandomMask(mask_rate=0.3), make_fields("abc"), 900)[:, :, 0]
    assert (masks.sum(axis=2) == 1).all()
    first, second = masks.argmax(axis=2).T
    table = np.zeros((3, 3), int)
    np.add.at(table, (first, second), 1)
    assert chisquare(table.ravel()).pvalue > 1e-3
    assert chi2_contingency(table).pvalue > 1e-3


def test_a_drawn_id_is_hidden_at_the_rate_in_each_view_on_its_own():
    hidden = draw_masks(IndependentRandomMask(mask_rate=0.3), make_fields("abi", ids="i"), 800)[:, :, 0, 2]
    for view in range(2):
        assert binomtest(int(hidden[:, view].sum()), 800, 0.3).pvalue > 1e-4
    # 0.3 * 0.3
    assert binomtest(int(hidden.all(axis=1).sum()), 800, 0.09).pvalue > 1e-4


def test_a_drawn_id_is_hidden_whatever_else_is_hidden():
    masks = draw_masks(IndependentRandomMask(mask_rate=0.3), make_fields("abi", ids="i"), 800)[:, 0, 0]
    hidden = masks[masks[:, 0], 2]
    assert binomtest(int(hidden.sum()), len(hidden), 0.3).pvalue > 1e-4


def test_a_masked_id_is_shown_by_no_view():
    masks = draw_masks(IndependentRandomMask(item_id="masked"), make_fields("abci", ids="i"), 20)
    assert masks[..., 3].all()
    assert not masks[..., :3].all(axis=-1).any()


def test_one_draw_serves_the_batch_or_each_item_has_its_own():
    fields = make_fields("abc")
    assert draw_masks(IndependentRandomMask(), fields, 1, rows=300).shape == (1, 2, 1, 3)
    each = draw_masks(IndependentRandomMask(per="item"), fields, 1, rows=300)[0]
    assert len(np.unique(each.transpose(1, 0, 2).reshape(300, 6), axis=0)) == 9
