"""Accuracy metrics: hand-computed values, agreement with ir-measures, and what must not change them."""

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import ShapeError
from recsys.metrics import find_hits, measure, parse
from recsys.types import RowSets
from twintower.errors import SettingError

ITEMS = 12
EVERY = [
    "nDCG@1",
    "nDCG@5",
    "AP@1",
    "AP@5",
    "R@5",
    "RR@5",
    "Success@1",
    "Success@5",
    "P@5",
    "nDCG@20",
    "AP@20",
    "RR@20",
]


def sets(*members):
    owners = np.repeat(np.arange(len(members)), [len(rows) for rows in members])
    return RowSets.from_pairs(owners, np.array([row for rows in members for row in rows], np.int64), len(members))


def ranking(*rows):
    return np.array(rows, np.int32)


def one(name, ranked, relevant):
    return measure([name], ranking(ranked), sets(relevant))[name].tolist()[0]


@st.composite
def worlds(draw):
    """Some cases with rankings of at most 8 places, padded, and relevant sets that may be empty."""
    cases = draw(st.integers(1, 4))
    ranked, relevant = np.full((cases, 8), -1, np.int32), []
    for case in range(cases):
        shown = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=8))
        ranked[case, : len(shown)] = shown
        relevant.append(draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=10)))
    return ranked, sets(*relevant)


def test_ndcg_discounts_each_hit_by_the_logarithm_of_its_place():
    # Hits at places 1 and 3 of three, three relevant items:
    # dcg = 1/log2(2) + 1/log2(4) = 1 + 0.5 = 1.5; ideal = 1 + 1/log2(3) + 1/log2(4) = 1 + 0.6309297536 + 0.5
    assert one("nDCG@3", [7, 8, 9], [7, 9, 1]) == pytest.approx(1.5 / 2.1309297535714573, abs=1e-15)


def test_the_ideal_ranking_has_no_more_hits_than_places():
    # Two places, both hit, five relevant items: nothing could be better.
    assert one("nDCG@2", [0, 1], [0, 1, 2, 3, 4]) == 1.0


def test_average_precision_divides_by_all_relevant_items_also_beyond_the_cutoff():
    # Places 1 and 2 hit: precisions 1/1 and 2/2, sum 2; four relevant items: 2 / 4. Dividing by min(4, 2) would give 1.
    assert one("AP@2", [0, 1], [0, 1, 2, 3]) == 0.5


def test_average_precision_takes_the_precision_at_each_hit():
    # Hits at places 2 and 3: (1/2 + 2/3) / 2 = 7/12
    assert one("AP@3", [5, 6, 7], [6, 7]) == pytest.approx(7 / 12, abs=1e-15)


def test_recall_is_the_share_of_the_relevant_items_that_were_found():
    assert one("R@3", [0, 5, 1], [0, 1, 2, 3]) == 0.5


def test_reciprocal_rank_looks_at_the_first_hit_only():
    assert one("RR@4", [9, 8, 1, 0], [0, 1]) == pytest.approx(1 / 3, abs=1e-15)


def test_reciprocal_rank_is_nought_when_the_first_hit_lies_beyond_the_cutoff():
    assert one("RR@2", [9, 8, 1, 0], [0, 1]) == 0.0


def test_success_is_whether_any_relevant_item_was_found():
    values = measure(["Success@2"], ranking([4, 1, 0], [4, 5, 0]), sets([1, 0], [0]))
    assert values["Success@2"].tolist() == [1.0, 0.0]


def test_precision_divides_by_the_cutoff_also_when_fewer_items_were_ranked():
    # One hit among two ranked items, five places: 1 / 5.
    assert one("P@5", [3, 4, -1, -1, -1], [3]) == pytest.approx(0.2, abs=1e-15)


@given(worlds())
@settings(max_examples=150, deadline=None)
def test_every_metric_agrees_with_ir_measures(world):
    ranked, relevant = world
    run, judgements = {}, {}
    for case in range(len(relevant)):
        shown = ranked[case][ranked[case] >= 0]
        run[str(case)] = {str(row): float(-place) for place, row in enumerate(shown)}
        # An unjudged item with relevance 0 keeps cases without relevant items among the judged ones.
        judgements[str(case)] = {"no such item": 0} | {str(row): 1 for row in relevant[case]}
    expected = ir_measures.iter_calc([ir_measures.parse_measure(name) for name in EVERY], judgements, run)

    values = measure(EVERY, ranked, relevant)

    counted = 0
    for metric in expected:
        assert values[str(metric.measure)][int(metric.query_id)] == pytest.approx(metric.value, abs=1e-12)
        counted += 1
    assert counted == len(EVERY) * len(relevant)


@given(worlds(), st.randoms(use_true_random=False))
@settings(max_examples=50, deadline=None)
def test_the_order_of_the_cases_does_not_change_their_values(world, random):
    ranked, relevant = world
    order = list(range(len(relevant)))
    random.shuffle(order)
    straight, permuted = measure(EVERY, ranked, relevant), measure(EVERY, ranked[order], relevant.take(np.array(order)))
    for name in EVERY:
        np.testing.assert_array_equal(permuted[name], straight[name][order])


@given(worlds())
@settings(max_examples=50, deadline=None)
def test_putting_a_wrong_item_on_top_never_helps(world):
    ranked, relevant = world
    wrong = np.full((len(ranked), 1), ITEMS, np.int32)
    before, after = measure(EVERY, ranked, relevant), measure(EVERY, np.hstack([wrong, ranked]), relevant)
    for name in EVERY:
        assert (after[name] <= before[name] + 1e-15).all()


def test_a_case_without_relevant_items_measures_nought():
    values = measure(EVERY, ranking([0, 1, 2]), sets([]))
    assert [values[name].tolist() for name in EVERY] == [[0.0]] * len(EVERY)


def test_padding_is_never_a_hit_not_even_beside_the_neighbouring_cases_last_row():
    # Row 2 is the highest row and relevant for case 0; the padding of case 1 must not be taken for it.
    hits = find_hits(ranking([0, -1], [-1, -1]), sets([2], [1]))
    assert not hits.any()


def test_other_spellings_of_a_metric_are_known_by_the_ir_measures_name():
    assert [parse(name).name for name in ("MAP@10", "MRR@5", "NDCG@3")] == ["AP@10", "RR@5", "nDCG@3"]


@pytest.mark.parametrize("name", ["ndgc@10", "nDCG", "nDCG@0", "AP(rel=2)@10", "Bpref", "", "R@@5", "10"])
def test_a_metric_that_cannot_be_measured_is_refused_by_its_name(name):
    with pytest.raises(SettingError, match=r"evaluation\.metrics: got .* nDCG@k") as caught:
        parse(name)
    assert repr(name) in str(caught.value)


def test_a_perfect_ranking_measures_exactly_one():
    perfect = [one("nDCG@9", list(range(count)), list(range(count))) for count in range(1, 10)]
    assert perfect == [1.0] * 9


def test_rankings_and_relevant_sets_of_different_numbers_of_cases_are_refused():
    with pytest.raises(ShapeError, match="2 cases"):
        measure(["R@1"], ranking([0]), sets([0], [1]))


def test_rankings_without_a_place_are_refused():
    with pytest.raises(ShapeError, match="k >= 1"):
        measure(["R@1"], ranking([]), sets([0]))
