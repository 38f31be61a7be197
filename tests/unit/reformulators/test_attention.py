"""What attention looks at, and what its output is made of."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys.reformulators import unit
from recsys.reformulators.attention import Attention
from recsys.registry import parse
from recsys.types import NO_ROW
from tests.unit.reformulators.by_hand import EAST, NORTH, SOUTH, asked, said
from twintower.errors import SettingError
from twintower.types import FeedbackKind

SMALL = Attention(width=8, heads=2, max_rank=4)
GIVEN = said(EAST, (NORTH, FeedbackKind.LIKED), (SOUTH, FeedbackKind.SKIPPED))


def drawn():
    random = np.random.default_rng(0)
    return {
        name: value + random.normal(0, 0.3, value.shape).astype(np.float32)
        for name, value in SMALL.initial(2, 0).items()
    }


def trained():
    return SMALL.ready(np, drawn())


def test_with_even_attention_weights_and_no_rest_it_is_the_query_and_the_items_mean():
    # the items' outputs end in a level of scale 0 and shift 1 in every place: h = (1, ..., 1); u = 0.25 in 8 places,
    # so g = 2 for each item; over n = 2 items that is a weight of 1: (1, 0) + (0, 1) + (0, -1) = (1, 0)
    weights = SMALL.initial(2, 0)
    weights["level"] = np.stack([np.zeros(8), np.ones(8)]).astype(np.float32)
    weights["item_weight"] = np.full((8, 1), 0.25, np.float32)
    result = SMALL.reformulate(asked(EAST), GIVEN, SMALL.ready(np, weights))
    np.testing.assert_allclose(result.item_weights, [[1, 1]], rtol=1e-6)
    np.testing.assert_allclose(result.vectors, [EAST], atol=1e-6)
    # the rest adds R h_0 = 8 * (0, 0.125) = (0, 1)
    weights["residual"] = np.tile(np.array([0, 0.125], np.float32), (8, 1))
    result = SMALL.reformulate(asked(EAST), GIVEN, SMALL.ready(np, weights))
    np.testing.assert_allclose(result.vectors, [[0.5**0.5, 0.5**0.5]], rtol=1e-5)


@pytest.mark.parametrize(
    "change",
    [
        {"kinds": np.array([[FeedbackKind.DISLIKED, FeedbackKind.SKIPPED]], np.int32)},
        {"ranks": np.array([[2, NO_ROW]], np.int32)},
        {"scores": np.array([[0.5, 0.0]], np.float32)},
        {"vectors": np.array([[EAST, SOUTH]], np.float32)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_kind_rank_score_and_vector_each_count(change):
    before = SMALL.reformulate(asked(EAST), GIVEN, trained())
    after = SMALL.reformulate(asked(EAST), dataclasses.replace(GIVEN, **change), trained())
    assert np.abs(after.vectors - before.vectors).max() > 1e-4
    # the items attend to each other: the second one's weight changes, too
    assert abs(after.item_weights[0, 1] - before.item_weights[0, 1]) > 1e-5


def test_ranks_beyond_the_last_one_count_alike_and_unlike_unknown_ones():
    moved = {
        rank: SMALL.reformulate(
            asked(EAST), dataclasses.replace(GIVEN, ranks=np.array([[rank, 0]], np.int32)), trained()
        ).vectors.tobytes()
        for rank in (NO_ROW, 0, 1, 2, 3, 4, 1000)
    }
    assert moved[3] == moved[4] == moved[1000]
    assert len(set(moved.values())) == 5


def test_the_length_of_the_query_does_not_matter():
    long = SMALL.reformulate(asked((3, 4)), GIVEN, trained())
    np.testing.assert_allclose(long.vectors, SMALL.reformulate(asked((0.6, 0.8)), GIVEN, trained()).vectors, rtol=1e-5)


def test_it_computes_what_the_definition_says_step_by_step():
    weights, query = drawn(), unit(asked((0.6, 0.8)))

    def level(x, name):
        scale, shift = weights[name]
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * scale + shift

    tokens = [query[0] @ weights["query_in"] + weights["role"][5]]
    for place in range(2):
        item = GIVEN.vectors[0, place] @ weights["item_in"] + GIVEN.scores[0, place] * weights["score"][0]
        tokens.append(item + weights["role"][GIVEN.kinds[0, place]] + weights["rank"][0])
    mixed = [level(token, "0/attention_level") @ weights["0/attention_in"] for token in tokens]
    attended = []
    for token in mixed:
        heads = []
        for head in range(2):
            place = slice(4 * head, 4 * head + 4)
            ask, keys, values = token[:8][place], [m[8:16][place] for m in mixed], [m[16:][place] for m in mixed]
            power = np.exp([ask @ key / 2 for key in keys])  # sqrt(4) = 2
            heads.append(sum(p * value for p, value in zip(power / power.sum(), values, strict=True)))
        attended.append(np.concatenate(heads))
    tokens = [token + a @ weights["0/attention_out"] for token, a in zip(tokens, attended, strict=True)]
    hidden = [level(t, "0/hidden_level") @ weights["0/hidden_in"] + weights["0/hidden_bias"] for t in tokens]
    tokens = [t + np.maximum(h, 0) @ weights["0/hidden_out"] for t, h in zip(tokens, hidden, strict=True)]
    tokens = [level(token, "level") for token in tokens]
    item_weights, further = SMALL.direction(np, query, GIVEN, SMALL.ready(np, weights))
    np.testing.assert_allclose(
        item_weights[0], [float((t @ weights["item_weight"])[0]) / 2 for t in tokens[1:]], rtol=1e-4, atol=1e-5
    )
    np.testing.assert_allclose(further[0], tokens[0] @ weights["residual"], rtol=1e-4, atol=1e-5)


def test_a_width_that_its_heads_do_not_divide_is_refused():
    with pytest.raises(SettingError, match="width 10 is no multiple of heads 4"):
        parse(Attention, {"width": 10}, "attention")
