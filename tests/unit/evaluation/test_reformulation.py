"""Depth by depth: helped and hurt, falls, guards and their thresholds, feedback that somebody gave, and noise."""

from __future__ import annotations

import numpy as np
import pytest

from recsys.errors import DataError
from recsys.evaluation.reformulation import (
    Curve,
    as_in_training,
    curve,
    first_results,
    fit_guard,
    simulated_explicit,
    with_noise,
)
from recsys.reformulators.average import Average
from recsys.reformulators.identity import Identity
from recsys.retrieval.guard import SIGNALS, Guard
from recsys.retrieval.reformulation import NamedReformulator, feedback_of
from recsys.types import NO_ROW, ItemRoles, RowSets
from tests.mined import clustered, mined_of, sets
from twintower.types import FeedbackKind

METRIC = "nDCG@10"
# Ten cases at depths 0, 1 and 3. Depth 1 helps four of them and hurts two; depth 3 helps five and hurts three.
VALUES = np.array(
    [
        [0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5],
        [0.6, 0.7, 0.8, 0.9, 0.5, 0.5, 0.5, 0.5, 0.4, 0.2],
        [0.7, 0.6, 0.8, 1.0, 0.6, 0.5, 0.5, 0.3, 0.1, 0.4],
    ]
)


def curve_of(values: np.ndarray, drift: np.ndarray | None = None, **of_signals: np.ndarray) -> Curve:
    """Return measured values with the signals of their moves, 0 where none are given."""
    of_moves = np.zeros((*values.shape, len(SIGNALS)), np.float32)
    told = of_signals if drift is None else {"drift": drift, **of_signals}
    for name, signal in told.items():
        of_moves[..., SIGNALS.index(name)] = signal
    depths = (0, 1, 3)[: len(values)]
    return Curve(depths, {METRIC: values}, np.zeros(values.shape, bool), of_moves)


def test_helped_and_hurt_are_shares_of_the_cases_against_the_original_query():
    found = curve_of(VALUES)
    np.testing.assert_allclose(found.helped_rate(METRIC), [0, 0.4, 0.5])
    np.testing.assert_allclose(found.hurt_rate(METRIC), [0, 0.2, 0.3])


def test_the_robustness_index_is_helped_minus_hurt():
    np.testing.assert_allclose(curve_of(VALUES).robustness_index(METRIC), [0, 0.2, 0.2])


def test_the_noise_of_a_sum_helps_and_hurts_nobody():
    found = curve_of(np.array([[0.3, 0.3], [0.1 + 0.2, 0.3 - 1e-12]]))
    assert 0.1 + 0.2 != 0.3
    assert found.helped_rate(METRIC).tolist() == found.hurt_rate(METRIC).tolist() == [0, 0]
    assert found.falling_rate(METRIC) == 0


def test_the_worst_decile_is_the_mean_gain_of_the_tenth_that_loses_most():
    # one case of ten: 0.2 - 0.5 and 0.1 - 0.5
    np.testing.assert_allclose(curve_of(VALUES).worst_decile(METRIC), [0, -0.3, -0.4])
    # two of twenty-nine: the two largest losses of the doubled and lengthened cases
    longer = np.concatenate([VALUES, VALUES, VALUES[:, :9]], axis=1)
    np.testing.assert_allclose(curve_of(longer).worst_decile(METRIC), [0, -0.3, -0.4])
    # fewer than ten: the worst one
    np.testing.assert_allclose(curve_of(VALUES[:, 7:9]).worst_decile(METRIC), [0, -0.1, -0.4])


def test_a_fall_is_any_pair_of_depths_with_less_at_the_deeper_one():
    # 0 to 1: cases 8 and 9; 0 to 3: 7, 8 and 9; 1 to 3: 1 (.7 to .6), 7 and 8; eight of thirty pairs
    assert curve_of(VALUES).falling_rate(METRIC) == pytest.approx(8 / 30)
    assert curve_of(VALUES[:1]).falling_rate(METRIC) == 0


def test_under_a_guard_a_move_that_goes_too_far_measures_what_the_original_query_did():
    drift = np.zeros(VALUES.shape)
    drift[1, 8:], drift[2, [3, 8]] = 0.4, 0.4
    under = curve_of(VALUES, drift).under(Guard(max_drift=0.3))
    expected = VALUES.copy()
    expected[1, 8:] = expected[2, [3, 8]] = 0.5
    np.testing.assert_array_equal(under.values[METRIC], expected)
    np.testing.assert_array_equal(under.fell_back, drift > 0.3)
    assert under.hurt_rate(METRIC)[1] == 0


def test_a_guard_without_a_limit_changes_nothing():
    under = curve_of(VALUES, np.full(VALUES.shape, 1.9)).under(Guard())
    np.testing.assert_array_equal(under.values[METRIC], VALUES)
    assert not under.fell_back.any()


def moves(random: np.random.Generator, helps: np.ndarray) -> np.ndarray:
    return np.stack([np.full(len(helps), 0.5), np.where(helps, 0.6, 0.4)])


def test_a_cap_on_drift_is_found_where_far_moves_hurt():
    # twenty near moves gain 0.1, twenty far ones lose 0.1
    near = np.arange(40) < 20
    drift = np.stack([np.zeros(40), np.where(near, 0.1, 0.6) + np.arange(40) / 1000])
    found = curve_of(moves(np.random.default_rng(0), near), drift)
    guard = fit_guard(found, METRIC)
    assert 0.119 <= guard.max_drift < 0.62 or guard.coefficients
    under = found.under(guard)
    np.testing.assert_array_equal(under.fell_back[1], ~near)
    # 20 of 40 gain 0.1, nobody loses: 0.55 instead of 0.5
    assert found.values[METRIC][1].mean() == pytest.approx(0.5)
    assert under.values[METRIC][1].mean() == pytest.approx(0.55)


def test_a_confidence_is_found_where_only_another_signal_tells():
    random = np.random.default_rng(0)
    helps = np.arange(60) % 2 == 0
    score = np.stack([np.zeros(60), np.where(helps, 0.8, 0.3) + random.uniform(-0.1, 0.1, 60)])
    found = curve_of(moves(random, helps), np.full((2, 60), 0.2), best_score=score)
    guard = fit_guard(found, METRIC)
    assert len(guard.coefficients) == len(SIGNALS) + 1
    np.testing.assert_array_equal(found.under(guard).fell_back[1], ~helps)
    confidence = guard.confidence(found.of_moves[1])
    assert confidence[helps].min() > guard.min_confidence > confidence[~helps].max()


@pytest.mark.parametrize("gain", [0.1, 0.0])
def test_there_is_no_guard_where_none_would_gain_anything(gain):
    values = np.stack([np.full(30, 0.5), np.full(30, 0.5 + gain)])
    drift = np.stack([np.zeros(30), np.linspace(0.1, 1, 30)])
    assert fit_guard(curve_of(values, drift), METRIC) == Guard()


def test_a_guard_is_judged_over_all_depths_but_the_first():
    # at depth 3 far moves lose more than they gain at depth 1: they are better let go together
    values = np.stack([np.full(20, 0.5), np.full(20, 0.6), np.full(20, 0.2)])
    drift = np.stack([np.zeros(20), np.full(20, 0.2), np.full(20, 0.7)]) + np.arange(20) / 1000
    found = curve_of(values, drift)
    under = found.under(fit_guard(found, METRIC))
    np.testing.assert_allclose(under.values[METRIC].mean(axis=1), [0.5, 0.6, 0.5])


AVERAGE = NamedReformulator("average", Average())


def test_a_curve_is_measured_by_exact_search_with_the_moved_query_of_each_depth():
    mined, items = clustered(30)
    excluded = [[row] for row in mined.first.item_rows[:, 1]]
    mined = mined_of(mined.first.item_rows, [mined.relevant[case] for case in range(30)], excluded=excluded,
                     vectors=mined.query_vectors)  # fmt: skip
    found = curve(AVERAGE, mined, items, ["R@5", "Success@1"], [4, 2, 4])
    assert found.depths == (0, 2, 4)
    for place, depth in enumerate(found.depths):
        shown = items.found[mined.first.item_rows[:, :depth]]
        vectors = AVERAGE.move(mined.query_vectors, feedback_of(mined.query_vectors, items,
                               mined.first.item_rows[:, :depth])).vectors  # fmt: skip
        assert shown.shape[1] == depth
        scores = vectors @ items.found.T
        scores[np.arange(30), mined.first.item_rows[:, 1]] = -np.inf
        best = np.argsort(-scores, axis=1)[:, :5]
        hits = np.array([np.isin(rows, mined.relevant[case]) for case, rows in enumerate(best)])
        # eight items answer each query, one of them may be excluded and counts all the same
        np.testing.assert_allclose(found.values["R@5"][place], hits.sum(axis=1) / 8)
        np.testing.assert_allclose(found.values["Success@1"][place], hits[:, 0])
    assert found.of_moves.shape == (3, 30, len(SIGNALS))
    np.testing.assert_allclose(found.of_moves[0, :, 0], 0, atol=1e-6)
    assert found.of_moves[1:, :, 0].min() > 0


def test_the_identity_helps_and_hurts_nobody_at_any_depth():
    mined, items = clustered(20)
    found = curve(NamedReformulator("identity", Identity()), mined, items, [METRIC], [1, 5])
    assert found.helped_rate(METRIC).tolist() == found.hurt_rate(METRIC).tolist() == [0, 0, 0]


def test_the_guard_of_a_reformulator_is_off_while_a_curve_is_measured():
    mined, items = clustered(20)
    shy = NamedReformulator("shy", Average(), guard=Guard(max_drift=0.0))
    free, guarded = (curve(one, mined, items, [METRIC], [3]) for one in (AVERAGE, shy))
    np.testing.assert_array_equal(free.values[METRIC], guarded.values[METRIC])
    under = guarded.under(shy.guard)
    np.testing.assert_array_equal(under.values[METRIC][1], free.values[METRIC][0])
    assert under.fell_back[1].all()


def test_an_epoch_is_chosen_by_the_mean_over_the_depths_above_0():
    mined, items = clustered(20)
    values = curve(AVERAGE, mined, items, ["AP@10"], [1, 2]).values["AP@10"]
    expected = (values[1].mean() + values[2].mean()) / 2
    assert curve(AVERAGE, mined, items, ["MAP@10"], [1, 2]).mean("AP@10") == pytest.approx(expected)


def test_on_a_world_of_clusters_the_mean_of_the_first_results_is_a_good_move():
    mined, items = clustered(200)
    found = curve(AVERAGE, mined, items, [METRIC], [5])
    assert found.values[METRIC][1].mean() > found.values[METRIC][0].mean() + 0.03
    assert found.robustness_index(METRIC)[1] > 0.2


def explicit(given: int = 6, seed: int = 0, relevant: int = 5):
    random = np.random.default_rng(3)
    first = np.stack([random.permutation(40)[:10] for _ in range(12)])
    wanted = [random.permutation(40)[: relevant if case % 3 else 1] for case in range(12)]
    mined = mined_of(first, wanted, excluded=[[39]] * 12)
    items = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    roles = ItemRoles.shared(items)
    rest, feedback = simulated_explicit(mined, roles, given=given, disliked_rate=0.4, seed=seed)
    rows = [
        [int(np.abs(items - roles.center - vector).max(axis=1).argmin()) for vector in vectors[there]]
        for vectors, there in zip(feedback.away, feedback.present, strict=True)
    ]
    return mined, rest, feedback, rows


def said(rows: list[int], feedback, case: int, kind: FeedbackKind) -> set[int]:
    return {row for place, row in enumerate(rows) if feedback.kinds[case, place] == kind}


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("given", [1, 3, 10])
def test_what_somebody_liked_is_not_asked_for_nothing_said_is_shown_and_one_item_is_left_to_find(given, seed):
    mined, rest, feedback, rows = explicit(given, seed)
    before = dict(zip(mined.case_ids.to_pylist(), range(12), strict=True))
    counts = {FeedbackKind.LIKED: 0, FeedbackKind.DISLIKED: 0}
    for case, name in enumerate(rest.case_ids.to_pylist()):
        wanted = set(mined.relevant[before[name]].tolist())
        found = set(mined.first.item_rows[before[name]].tolist())
        liked, disliked = (said(rows[case], feedback, case, kind) for kind in counts)
        assert len(rows[case]) == len(liked) + len(disliked) <= given
        assert liked <= wanted
        assert len(liked) <= len(wanted) // 2
        assert disliked <= found - wanted
        assert set(rest.relevant[case].tolist()) == wanted - liked != set()
        assert set(rest.excluded[case].tolist()) == {39} | liked | disliked
        counts[FeedbackKind.LIKED] += len(liked)
        counts[FeedbackKind.DISLIKED] += len(disliked)
    assert min(counts.values()) > 0
    assert (feedback.ranks == NO_ROW).all()


def test_cases_with_a_single_answer_are_passed_over():
    mined, rest, _, _ = explicit()
    single = {name for name, size in zip(mined.case_ids.to_pylist(), mined.relevant.sizes, strict=True) if size == 1}
    assert len(single) == 4
    assert not single & set(rest.case_ids.to_pylist())
    assert len(rest) == 8


def test_a_share_of_what_is_said_is_no():
    mined = mined_of([list(range(20))] * 300, [list(range(20, 40))] * 300)
    items = np.random.default_rng(1).normal(size=(40, 4)).astype(np.float32)
    _, feedback = simulated_explicit(mined, ItemRoles.shared(items), given=8, disliked_rate=0.25, seed=0)
    kinds = feedback.kinds[feedback.present]
    # 2,400 items, each no with a chance of 0.25: a standard deviation of 0.009
    assert (kinds == FeedbackKind.DISLIKED).mean() == pytest.approx(0.25, abs=0.035)
    # kinds come in random order, so that less feedback holds both
    assert (feedback.kinds[:, 0] == FeedbackKind.DISLIKED).mean() == pytest.approx(0.25, abs=0.1)


def test_one_seed_gives_one_feedback_and_another_another():
    drawn = [explicit(seed=seed)[3] for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]


def test_where_nobody_has_two_answers_nothing_can_be_said():
    mined = mined_of([[1, 2]] * 3, [[0]] * 3)
    with pytest.raises(DataError, match=r"^mined: got no case with two relevant items, expected at least one"):
        simulated_explicit(mined, ItemRoles.shared(np.eye(4, dtype=np.float32)), given=3, disliked_rate=0.2, seed=0)


FIRST = np.random.default_rng(2).integers(0, 1000, (200, 5)).astype(np.int32)


def test_noise_replaces_the_share_that_it_says():
    np.testing.assert_array_equal(with_noise(FIRST, 1000, 0.0, 0), FIRST)
    # 1,000 places: a standard deviation of 0.015; a random item is the same by a chance of 1 in 1,000
    assert (with_noise(FIRST, 1000, 0.3, 0) != FIRST).mean() == pytest.approx(0.3, abs=0.06)
    assert (with_noise(FIRST, 1000, 1.0, 0) != FIRST).mean() > 0.99


def test_more_noise_keeps_the_noise_that_there_was():
    less, more = (with_noise(FIRST, 1000, rate, 0) for rate in (0.3, 0.6))
    replaced = less != FIRST
    np.testing.assert_array_equal(more[replaced], less[replaced])
    assert (more != FIRST).sum() > replaced.sum()


def test_noise_gives_no_item_where_there_was_none():
    few = FIRST.copy()
    few[:, 3:] = NO_ROW
    noisy = with_noise(few, 1000, 1.0, 0)
    assert (noisy[:, 3:] == NO_ROW).all()
    assert noisy[:, :3].min() >= 0
    assert noisy.dtype == np.int32


def test_first_results_are_the_largest_inner_products_of_what_may_be_shown():
    items = np.array([[1, 0], [0.6, 0.8], [0, 1]], np.float32)
    found = first_results(np.array([[1, 0], [0, 1]], np.float32), items, sets([0], []), 5)
    assert found.item_rows.tolist() == [[1, 2, NO_ROW], [2, 1, 0]]
    np.testing.assert_allclose(found.scores, [[0.6, 0, -np.inf], [1, 0.8, 0]])
    assert first_results(items[:0], items, RowSets.empty(0), 2).item_rows.shape == (0, 2)


def test_cases_choose_with_the_kind_of_feedback_that_training_gives():
    mined, items = clustered(40)
    single = mined.relevant.sizes < 2
    for rate, share in ((0.0, (0, 0)), (1.0, (1, 1)), (0.5, (0.2, 0.8))):
        asked, given = as_in_training(mined, items, given=4, explicit_rate=rate, disliked_rate=0.25, seed=0)
        assert sorted(asked.case_ids.to_pylist()) == sorted(mined.case_ids.to_pylist())
        assert given.vectors.shape == (40, 4, items.found.shape[1])
        pseudo = (given.kinds == FeedbackKind.PSEUDO) & given.present
        explicit = given.present.any(axis=1) & ~pseudo.any(axis=1)
        assert share[0] * (~single).sum() <= explicit.sum() <= share[1] * (~single).sum()
        # who says something asks for less than before, the others for the same
        before = dict(zip(mined.case_ids.to_pylist(), mined.relevant.sizes.tolist(), strict=True))
        for case_id, size, told in zip(asked.case_ids.to_pylist(), asked.relevant.sizes, explicit, strict=True):
            assert size < before[case_id] if told and before[case_id] > 3 else size <= before[case_id]
            assert told or size == before[case_id]


def test_where_nobody_says_anything_the_cases_stay_in_order():
    mined, items = clustered(12)
    asked, given = as_in_training(mined, items, given=3, explicit_rate=0.0, disliked_rate=0.25, seed=0)
    assert asked.case_ids.equals(mined.case_ids)
    expected = feedback_of(mined.query_vectors, items, mined.first.item_rows[:, :3])
    np.testing.assert_array_equal(given.vectors, expected.vectors)
