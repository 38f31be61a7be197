"""A step of a reformulator's training: counts, nested feedback, what is asked for, what it is told from."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from recsys import config
from recsys.config import Reformulation
from recsys.data.mined import Mined
from recsys.training.reformulation import Step, Steps
from recsys.types import NO_ROW
from tests.mined import mined_of
from twintower.types import FeedbackKind

ITEMS, K = 30, 6


def settings(**changes: object) -> Reformulation:
    table = {"feedback_k": K, "batch_size": 4, "revisions": 3, "explicit_rate": 0.0, **changes}
    tables = {"name": "any", "source": {"kind": "synthetic"}, "reformulation": table}
    tables["query"] = {"features": {"segment": {"kind": "categorical"}}}
    tables["item"] = {"features": {"category": {"kind": "categorical"}}}
    return config.from_tables(tables).reformulation


def world(queries: int = 8, relevant: int = 5) -> Mined:
    """Queries whose first results are ten items in random order; the first of their relevant items is among them."""
    random = np.random.default_rng(5)
    first = np.stack([random.permutation(ITEMS)[:10] for _ in range(queries)])
    others = [np.setdiff1d(np.arange(ITEMS), rows)[: relevant - 1] for rows in first]
    wanted = [[rows[query % 3], *more] for query, (rows, more) in enumerate(zip(first, others, strict=True))]
    return mined_of(first, wanted)


def steps(mined: Mined | None = None, *, items: int = ITEMS, seed: int = 1, **changes: object) -> Steps:
    return Steps(world() if mined is None else mined, settings(**changes), items, seed)


def many(made: Steps, count: int = 60) -> list[Step]:
    return [made.step(number) for number in range(count)]


def revised(step: Step) -> list[list[list[int]]]:
    """Return the feedback of each query and revision, without padding."""
    return [[rows[rows != NO_ROW].tolist() for rows in query] for query in step.item_rows]


def test_a_step_is_a_function_of_seed_and_number_alone():
    one, other = steps(explicit_rate=0.5, noise_rate=0.5), steps(explicit_rate=0.5, noise_rate=0.5)
    other.step(7)
    for name in Step.__dataclass_fields__:
        np.testing.assert_array_equal(getattr(one.step(3), name), getattr(other.step(3), name))


def test_another_number_and_another_seed_draw_anew():
    # one batch of all queries, so that only the draws can differ
    steps_of = [steps(batch_size=8, seed=seed).step(number) for seed, number in ((1, 3), (1, 4), (2, 3))]
    drawn = [step.item_rows.tobytes() for step in steps_of]
    assert {tuple(step.places.tolist()) for step in steps_of} == {tuple(range(8))}
    assert len(set(drawn)) == 3


def test_an_epoch_takes_every_query_once_in_an_order_of_its_own():
    made = steps()
    assert made.steps_per_epoch == 2
    epochs = [[made.step(2 * epoch + half).places.tolist() for half in (0, 1)] for epoch in range(5)]
    assert all(sorted(first + second) == list(range(8)) for first, second in epochs)
    assert len({tuple(first) for first, _ in epochs}) > 1


def test_an_incomplete_batch_is_left_out_and_a_small_set_is_one_batch():
    assert steps(batch_size=3).steps_per_epoch == 2
    assert (steps(batch_size=99).steps_per_epoch, steps(batch_size=99).batch_size) == (1, 8)


def test_the_counts_of_a_query_are_distinct_and_come_from_0_to_k():
    counts = np.concatenate([step.counts for step in many(steps())])
    assert all(len(set(of_query)) == 3 for of_query in counts.tolist())
    # 240 queries draw 3 of 0..6: each count is in three of seven draws, 103 of them, give or take 8
    seen = np.bincount(counts.ravel(), minlength=K + 1)
    assert len(seen) == K + 1
    assert (np.abs(seen - 240 * 3 / 7) < 40).all()


def test_as_many_revisions_as_counts_use_each_of_them():
    assert all(sorted(of_query) == list(range(K + 1)) for of_query in steps(revisions=K + 1).step(0).counts.tolist())


@pytest.mark.parametrize("order", ["shuffled", "ranked"])
@pytest.mark.parametrize("explicit_rate", [0.0, 1.0])
def test_less_feedback_is_the_beginning_of_more(order, explicit_rate):
    for step in many(steps(order=order, explicit_rate=explicit_rate, noise_rate=0.3), 20):
        for of_query, kinds, ranks in zip(revised(step), step.kinds, step.ranks, strict=True):
            longest = int(np.argmax([len(rows) for rows in of_query]))
            for revision, rows in enumerate(of_query):
                assert rows == of_query[longest][: len(rows)]
                for what in (kinds, ranks):
                    np.testing.assert_array_equal(what[revision, : len(rows)], what[longest, : len(rows)])


@pytest.mark.parametrize("explicit_rate", [0.0, 1.0])
def test_independent_revisions_draw_their_own(explicit_rate):
    nested = [
        set(smaller) <= set(larger)
        for step in many(steps(world(relevant=9), nested=False, explicit_rate=explicit_rate, revisions=2), 40)
        for smaller, larger in (sorted(of_query, key=len) for of_query in revised(step))
        if len(smaller) > 0
    ]
    assert 0 < np.mean(nested) < 0.8


def test_each_revision_has_as_many_items_as_its_count_says():
    for step in many(steps(), 20):
        assert [[len(rows) for rows in of_query] for of_query in revised(step)] == step.counts.tolist()
        present = step.item_rows != NO_ROW
        assert (present[..., :-1] >= present[..., 1:]).all()


def test_where_fewer_items_were_found_there_is_less_feedback():
    few = mined_of([[3, 1, NO_ROW, NO_ROW]] * 4, [[3, 5]] * 4)
    step = steps(few, revisions=K + 1).step(0)
    for counts, of_query in zip(step.counts.tolist(), revised(step), strict=True):
        assert [len(rows) for rows in of_query] == [min(count, 2) for count in counts]


def first_ranks(mined: Mined, query: int, rows: list[int]) -> list[int]:
    return [mined.first.item_rows[query].tolist().index(row) for row in rows]


@pytest.mark.parametrize("answers", ["keep", "drop", "mask"])
@pytest.mark.parametrize("order", ["shuffled", "ranked"])
def test_ranks_are_the_places_among_the_first_results(answers, order):
    mined = world()
    for step in many(steps(mined, answers=answers, order=order), 10):
        for query, of_query, ranks in zip(step.places, revised(step), step.ranks, strict=True):
            for rows, of_rows in zip(of_query, ranks.tolist(), strict=True):
                assert of_rows[: len(rows)] == first_ranks(mined, query, rows)
                assert set(of_rows[len(rows) :]) <= {NO_ROW}
        assert (step.kinds == FeedbackKind.PSEUDO).all()


def test_ranked_feedback_is_what_a_server_would_take():
    mined = world()
    for step in many(steps(mined, order="ranked"), 10):
        for query, of_query in zip(step.places, revised(step), strict=True):
            assert all(rows == mined.first.item_rows[query, : len(rows)].tolist() for rows in of_query)


def test_shuffled_feedback_is_a_part_of_the_first_k_in_any_order():
    mined, orders = world(), set()
    for step in many(steps(mined), 40):
        for query, of_query in zip(step.places, revised(step), strict=True):
            for rows in of_query:
                ranks = first_ranks(mined, query, rows)
                assert max(ranks, default=0) < K
                if len(ranks) == K:
                    orders.add(tuple(ranks))
    # a full revision is one of 720 orders; 40 steps of 4 queries with 3 of 7 counts hold about 69 of them
    assert len(orders) > 40


def asked(step: Step, row: int) -> set[int]:
    return set(step.candidates[step.relevant[row]].tolist())


def test_kept_answers_are_feedback_and_are_asked_for():
    mined, among = world(), 0
    for step in many(steps(mined), 10):
        for row, query in enumerate(step.places):
            assert asked(step, row) == set(mined.relevant[query].tolist())
            among += bool(asked(step, row) & set(step.item_rows[row].ravel().tolist()))
        assert not step.left_out.any()
    assert among > 0


def test_dropped_answers_are_no_feedback_and_are_asked_for():
    mined = world()
    for step in many(steps(mined, answers="drop"), 10):
        for row, query in enumerate(step.places):
            wanted = set(mined.relevant[query].tolist())
            assert asked(step, row) == wanted
            assert not wanted & set(step.item_rows[row].ravel().tolist())
        # ten first results hold one answer: nine others are enough for every count
        assert [[len(rows) for rows in of_query] for of_query in revised(step)] == step.counts.tolist()


def test_masked_answers_are_feedback_that_is_neither_asked_for_nor_wrong():
    mined, masked = world(), 0
    for step in many(steps(mined, answers="mask"), 20):
        for row, query in enumerate(step.places):
            wanted, used = set(mined.relevant[query].tolist()), set(step.item_rows[row].ravel().tolist())
            assert asked(step, row) == wanted - used
            assert set(step.candidates[step.left_out[row]].tolist()) == wanted & used
            masked += bool(wanted & used)
    assert masked > 20


def test_excluded_items_are_neither_right_nor_wrong():
    mined = mined_of([[3, 1, 2]] * 4, [[3, 5]] * 4, excluded=[[7, 8], [], [5, 9], [0]])
    step = steps(mined).step(0)
    left_out = [np.flatnonzero(row).tolist() for row in step.left_out]
    # item 5 answers the third query, so it is right
    assert left_out == [[7, 8], [], [9], [0]]
    assert [sorted(asked(step, row)) for row in range(4)] == [[3, 5]] * 4


def test_without_noise_all_feedback_was_found_and_with_nothing_but_noise_none_need_be():
    mined = world()
    found = {rate: [] for rate in (0.0, 0.25, 1.0)}
    for rate, shares in found.items():
        for step in many(steps(mined, noise_rate=rate, revisions=1), 40):
            for query, (rows,), ranks in zip(step.places, revised(step), step.ranks[:, 0], strict=True):
                shares += [mined.first.item_rows[query, rank] == row for row, rank in zip(rows, ranks, strict=False)]
    assert np.mean(found[0.0]) == 1
    # a random item is the right one by chance of 1 in 30: 0.75 + 0.25 / 30, and 1 / 30; about 480 items each
    assert np.mean(found[0.25]) == pytest.approx(0.758, abs=0.08)
    assert np.mean(found[1.0]) == pytest.approx(1 / 30, abs=0.04)


@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("relevant", [2, 3, 7])
def test_explicit_feedback_leaves_the_asked_for_items_and_always_one_to_find(relevant, nested):
    mined, said = world(relevant=relevant), {FeedbackKind.LIKED: 0, FeedbackKind.DISLIKED: 0}
    for step in many(steps(mined, explicit_rate=1.0, nested=nested), 30):
        present = step.item_rows != NO_ROW
        assert (step.ranks == NO_ROW).all()
        assert set(step.kinds[present].tolist()) <= {FeedbackKind.LIKED, FeedbackKind.DISLIKED}
        for row, query in enumerate(step.places):
            wanted, found = set(mined.relevant[query].tolist()), set(mined.first.item_rows[query].tolist())
            of_kind = {
                kind: set(step.item_rows[row][present[row] & (step.kinds[row] == kind)].tolist()) for kind in said
            }
            liked, disliked = of_kind[FeedbackKind.LIKED], of_kind[FeedbackKind.DISLIKED]
            assert liked <= wanted
            assert disliked <= found - wanted
            assert asked(step, row) == wanted - liked
            assert len(asked(step, row)) >= max(1, relevant / 2)
            assert set(step.candidates[step.left_out[row]].tolist()) == liked
            for kind, items in of_kind.items():
                said[kind] += len(items)
    assert min(said.values()) > 0


def test_a_query_with_a_single_relevant_item_has_pseudo_feedback():
    for step in many(steps(world(relevant=1), explicit_rate=1.0), 10):
        assert set(step.kinds[step.item_rows != NO_ROW].tolist()) == {FeedbackKind.PSEUDO}


def test_some_queries_of_a_step_can_be_explicit_and_some_pseudo():
    kinds = [
        step.kinds[row][step.item_rows[row] != NO_ROW] for step in many(steps(explicit_rate=0.5)) for row in range(4)
    ]
    pseudo = [(of_query == FeedbackKind.PSEUDO).mean() for of_query in kinds if len(of_query)]
    assert set(pseudo) == {0, 1}
    # of about 240 queries half, give or take 8
    assert np.mean(pseudo) == pytest.approx(0.5, abs=0.15)


def test_a_catalogue_that_fits_is_compared_whole():
    step = steps(exact_items=ITEMS).step(0)
    assert step.candidates.tolist() == list(range(ITEMS))
    assert (step.log_q == 0).all()


def test_sampled_candidates_hold_every_answer_and_first_result_and_each_item_once():
    mined = world()
    for step in many(steps(mined, items=400, exact_items=100, sampled_items=50), 10):
        forced = {row for query in step.places for row in mined.first.item_rows[query].tolist()}
        forced |= {row for query in step.places for row in mined.relevant[query].tolist()}
        candidates = step.candidates.tolist()
        assert len(set(candidates)) == len(candidates) <= len(forced) + 50
        assert set(candidates[: len(forced)]) == forced
        assert (step.log_q[: len(forced)] == 0).all()
        assert (step.log_q[len(forced) :] < 0).all()
        for row, query in enumerate(step.places):
            assert asked(step, row) == set(mined.relevant[query].tolist())


def test_the_expected_sampled_denominator_is_the_exact_one():
    items = 400
    powers = np.exp(np.random.default_rng(0).normal(size=items))
    made = steps(world(queries=4), items=items, exact_items=100, sampled_items=60)
    sums = [(powers[step.candidates] / np.exp(step.log_q)).sum() for step in many(made, 400)]
    # one batch of all queries: only the sample differs. Its mean lies within four standard errors of the sum over all
    error = np.std(sums) / np.sqrt(len(sums))
    assert error < 0.02 * powers.sum()
    assert np.mean(sums) == pytest.approx(powers.sum(), abs=4 * error)


def test_a_sample_that_draws_only_what_is_there_already_is_no_error():
    mined = mined_of([[0, 1, 2, 3]] * 2, [[4], [5]])
    step = steps(mined, items=6, exact_items=1, sampled_items=5, batch_size=2, feedback_k=3).step(0)
    assert step.candidates.tolist() == list(range(6))
    assert (step.log_q == 0).all()


def test_every_array_has_the_shape_and_type_that_its_place_says():
    step = steps().step(0)
    shapes = {name: getattr(step, name).shape for name in Step.__dataclass_fields__}
    assert shapes == {
        "places": (4,), "item_rows": (4, 3, K), "kinds": (4, 3, K), "ranks": (4, 3, K), "counts": (4, 3),
        "candidates": (ITEMS,), "relevant": (4, ITEMS), "left_out": (4, ITEMS), "log_q": (ITEMS,),
    }  # fmt: skip
    types = {field.name: getattr(step, field.name).dtype.name for field in dataclasses.fields(Step)}
    expected = dict.fromkeys(types, "int32") | {"relevant": "bool", "left_out": "bool", "log_q": "float32"}
    assert types == expected
