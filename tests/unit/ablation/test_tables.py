"""The numbers of an ablation on hand-made rankings: means, slices, and intervals that are paired."""

from __future__ import annotations

import dataclasses
import io
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from rich.console import Console
from scipy.sparse import csr_matrix
from scipy.stats import norm

from recsys import config
from recsys.ablation import show
from recsys.ablation.ablate import refusals, remarks
from recsys.ablation.cells import Case
from recsys.ablation.rows import BASELINE, SUBJECTS
from recsys.ablation.tables import DECILES, Ablation, Measured, Trial, measure_case, reference_row
from recsys.data.history import Met
from recsys.evaluation.cases import EvaluationCases
from recsys.evaluation.comparison import holm
from recsys.evaluation.held_out import HeldOut
from recsys.evaluation.intervals import bootstrap_means
from recsys.types import NO_ROW, RowSets
from tests.worlds import block_run

CASE = Case(1.0, "none")
Ranked = Mapping[str, Sequence[Sequence[Sequence[int]]]]


def sets(rows: Sequence[Sequence[int]]) -> RowSets:
    owners = [owner for owner, of_owner in enumerate(rows) for _ in of_owner]
    return RowSets.from_pairs(np.array(owners, int), np.array([row for of in rows for row in of], int), len(rows))


def held_out(
    relevant: Sequence[Sequence[int]], counts: Sequence[int], excluded: Sequence[Sequence[int]] | None = None
) -> HeldOut:
    """Return test cases with these relevant items, over a catalogue with these training counts."""
    cases = EvaluationCases(
        case_ids=pa.array([f"case {place}" for place in range(len(relevant))]),
        relevant=sets(relevant),
        item_ids=pa.array([f"item {row}" for row in range(len(counts))]),
        item_counts=np.array(counts, np.int64),
        activity=np.ones(len(relevant), np.int64),
        excluded=None if excluded is None else sets(excluded),
    )
    nothing = csr_matrix((len(relevant), len(counts)), dtype=np.float32)
    met = Met(np.zeros(len(relevant), np.int64), np.zeros(0, np.int32), np.zeros(0, np.float32))
    return HeldOut(
        cases, np.arange(len(relevant), dtype=np.int32), {}, nothing, nothing, met, ("train", "validation"), True
    )


def measured(
    test: HeldOut,
    ranked: Ranked,
    metrics: Sequence[str],
    resamples: int = 200,
    seed: int = 0,
    likes: Mapping[str, str] | None = None,
) -> dict[tuple[str, str, str], Measured]:
    """Return the numbers by slice, row and metric; each row's rankings stand by seed, case and place."""
    arrays = {name: [np.array(of_seed, np.int32) for of_seed in of_row] for name, of_row in ranked.items()}
    found = measure_case(CASE, test, arrays, metrics, resamples, seed, likes or {})
    return {
        (entry.slice, entry.subject, entry.metric): entry
        for entry in found
        if entry.over == (likes or {}).get(entry.subject, BASELINE)
    }


def at_ranks(ranks: Sequence[Sequence[int]], depth: int = 10) -> np.ndarray:
    """Return rankings that show the one relevant item, row 0, at these ranks by seed and case, counted from 1."""
    places = np.array(ranks)[..., None] == np.arange(1, depth + 1)
    return np.where(places, 0, np.arange(1, depth + 1)).astype(np.int32)


def reciprocal(ranks: Mapping[str, Sequence[Sequence[int]]], resamples: int = 2000, seed: int = 0) -> dict:
    """Measure RR@10 of rows whose one relevant item stands at these ranks, by seed and case; return it by row."""
    cases = len(next(iter(ranks.values()))[0])
    ranked = {name: at_ranks(of_row) for name, of_row in ranks.items()}
    found = measured(held_out([[0]] * cases, [1] * 11), ranked, ["RR@10"], resamples, seed)
    return {subject: entry for (slice, subject, _), entry in found.items() if slice == "all"}


def test_a_variant_is_compared_with_the_row_that_it_starts_from_too():
    # RR: baseline 1/4, cfm 1/2, its variant 1 in every case: twice as much as cfm, whatever is drawn.
    ranked = {"baseline": at_ranks([[4, 4]]), "cfm": at_ranks([[2, 2]]), "cfm_both": at_ranks([[1, 1]])}
    found = measured(held_out([[0], [0]], [1] * 11), ranked, ["RR@10"], likes={"cfm_both": "cfm"})
    entry = found["all", "cfm_both", "RR@10"]
    assert (entry.over, entry.gain_rate, entry.gain_low, entry.gain_high) == ("cfm", 1.0, 1.0, 1.0)
    assert found["all", "cfm", "RR@10"].over == "baseline"


# The values


def test_a_number_is_the_mean_over_seeds_and_cases():
    test = held_out([[0], [1, 2]], counts=[5] * 6)
    ranked = {
        "baseline": [[[0, 3], [1, 4]], [[3, 0], [4, 1]]],
        "cfm": [[[0, 3], [1, 2]], [[0, 3], [2, 4]]],
    }
    found = measured(test, ranked, ["R@1", "R@2", "AP@2"])
    # baseline: seed 1 finds 1 of 1 and 1 of 2, both at once; seed 2 the same, both at the second place.
    # R@1 = (1 + 1/2 + 0 + 0) / 4, R@2 = (1 + 1/2 + 1 + 1/2) / 4, AP@2 = (1 + 1/2 + 1/2 + 1/4) / 4
    assert found["all", "baseline", "R@1"].value == pytest.approx(0.375)
    assert found["all", "baseline", "R@2"].value == pytest.approx(0.75)
    assert found["all", "baseline", "AP@2"].value == pytest.approx(0.5625)
    # cfm: R@1 = (1 + 1/2 + 1 + 1/2) / 4, R@2 = (1 + 1 + 1 + 1/2) / 4, AP@2 = (1 + 1 + 1 + 1/2) / 4
    assert found["all", "cfm", "R@1"].value == pytest.approx(0.75)
    assert found["all", "cfm", "R@2"].value == pytest.approx(0.875)
    assert found["all", "cfm", "AP@2"].value == pytest.approx(0.875)
    # Gains of the means, not means of the gains: 0.875 / 0.75 - 1, 0.875 / 0.5625 - 1
    assert found["all", "cfm", "R@2"].gain_rate == pytest.approx(1 / 6)
    assert found["all", "cfm", "AP@2"].gain_rate == pytest.approx(5 / 9)
    assert (found["all", "cfm", "R@1"].cases, found["all", "cfm", "R@1"].seeds) == (2, 2)
    assert found["all", "cfm", "R@1"].case == CASE


def test_a_case_whose_items_may_all_not_be_shown_is_not_asked():
    # Three cases, the second without a reachable item: rankings have two rows, those of the first and the third.
    test = held_out([[0], [1], [2, 3]], counts=[5] * 6, excluded=[[5], [1], [3]])
    found = measured(test, {"baseline": [[[0, 4], [4, 2]]]}, ["R@1", "R@2"])
    assert found["all", "baseline", "R@1"].cases == 2
    # R@1 = (1 + 0) / 2; at two places the third case finds its only reachable item, row 2.
    assert found["all", "baseline", "R@1"].value == 0.5
    assert found["all", "baseline", "R@2"].value == 1.0


def test_places_without_an_item_find_nothing():
    found = measured(held_out([[0]], counts=[1] * 3), {"baseline": [[[1, NO_ROW, NO_ROW]]]}, ["R@3", "AP@3"])
    assert (found["all", "baseline", "R@3"].value, found["all", "baseline", "AP@3"].value) == (0.0, 0.0)


# The slices


def test_a_slice_counts_only_its_own_items_and_the_cases_that_have_some():
    # 20 items: head is the first 20 / 10 = 2 by count; 10 are trained on, so tail is the last (10 - 2) / 2 = 4 of them:
    # rows 6 to 9; cold are the ten without a count.
    counts = [100, 90, 50, 40, 30, 20, 9, 8, 7, 6] + [0] * 10
    test = held_out([[0, 9], [1, 15], [2, 9, 8]], counts)
    found = measured(test, {"baseline": [[[9, 0, 3], [15, 3, 4], [2, 8, 3]]]}, ["R@1", "R@3"])

    def told(slice: str) -> tuple[int, float, float]:
        entry = found[slice, "baseline", "R@1"]
        return entry.cases, entry.value, found[slice, "baseline", "R@3"].value

    # all: R@1 = (1/2 + 1/2 + 1/3) / 3; R@3 = (2/2 + 1/2 + 2/3) / 3
    assert told("all") == pytest.approx((3, 4 / 9, 13 / 18))
    # head: cases 1 and 2, items 0 and 1: found at the second place, and not at all.
    assert told("head") == (2, 0.0, 0.5)
    # tail: cases 1 and 3, items 9, and 9 and 8: R@1 = (1 + 0) / 2; R@3 = (1 + 1/2) / 2
    assert told("tail") == (2, 0.5, 0.75)
    # cold: case 2, item 15.
    assert told("cold") == (1, 1.0, 1.0)


def test_a_slice_without_a_case_has_no_number():
    found = measured(held_out([[0]], counts=[3, 2, 1]), {"baseline": [[[0, 1]]]}, ["R@1"])
    assert {slice for slice, _, _ in found} == {"all", "head", "decile 1"}


@pytest.mark.parametrize("items", [20, 23])
def test_tenths_of_the_catalogue_hold_every_item_once_the_most_popular_first(items):
    # Each case has one relevant item, the p-th most popular one at rank p: a tenth's sum of reciprocal ranks tells
    # which items it holds.
    by_popularity = np.random.default_rng(0).permutation(items)
    counts = np.zeros(items, int)
    counts[by_popularity] = np.arange(items, 0, -1)
    ranked = np.full((1, items, items), NO_ROW)
    ranked[0, by_popularity, np.arange(items)] = by_popularity
    found = measured(held_out([[row] for row in range(items)], counts), {"baseline": ranked}, [f"RR@{items}"], 1)
    tenths = [found[name, "baseline", f"RR@{items}"] for name in DECILES]
    # The first items % 10 tenths hold one item more than the others.
    sizes = [items // 10 + (tenth < items % 10) for tenth in range(10)]
    assert [entry.cases for entry in tenths] == sizes
    ranks = np.split(1 / np.arange(1, items + 1), np.cumsum(sizes)[:-1])
    assert [entry.value * entry.cases for entry in tenths] == pytest.approx([of_tenth.sum() for of_tenth in ranks])


def test_items_of_equal_count_are_in_tenths_by_their_row():
    # 20 items of one count: tenth t holds rows 2t and 2t + 1. Only the item in row 19 is found.
    found = measured(
        held_out([[row] for row in range(20)], [4] * 20), {"baseline": [[[19]] * 20]}, ["R@1"], resamples=1
    )
    assert [found[name, "baseline", "R@1"].value for name in DECILES] == [0.0] * 9 + [0.5]


# The intervals


def test_a_row_equal_to_the_baseline_gains_exactly_nothing():
    ranks = np.random.default_rng(0).integers(1, 11, (3, 50))
    entry = reciprocal({"baseline": ranks, "same": ranks})["same"]
    assert (entry.gain_rate, entry.gain_low, entry.gain_high) == (0.0, 0.0, 0.0)
    assert entry.low < entry.value < entry.high


def test_the_baseline_gains_nothing_over_itself():
    ranks = np.random.default_rng(0).integers(1, 11, (2, 30))
    entry = reciprocal({"baseline": ranks})["baseline"]
    assert (entry.gain_rate, entry.gain_low, entry.gain_high) == (0.0, 0.0, 0.0)


def test_a_row_that_is_better_in_every_case_and_seed_gains_for_sure():
    ranks = np.random.default_rng(1).integers(2, 11, (3, 40))
    better = reciprocal({"baseline": ranks, "better": ranks - 1})["better"]
    # Each reciprocal rank grows by a factor of rank / (rank - 1), from 10 / 9 to 2 / 1.
    assert 1 / 9 <= better.gain_low < better.gain_rate < better.gain_high <= 1.0
    worse = reciprocal({"baseline": ranks - 1, "worse": ranks})["worse"]
    assert -0.5 <= worse.gain_low < worse.gain_rate < worse.gain_high <= -0.1


def test_the_interval_of_a_gain_is_paired():
    # Given a row that differs from the baseline by one rank, below the fifth: nearly all that varies is common to both.
    ranks = np.random.default_rng(2).integers(1, 11, (5, 300))
    found = reciprocal({"baseline": ranks, "row": np.where(ranks > 5, ranks - 1, ranks)})
    row, baseline = found["row"], found["baseline"]
    unpaired_low, unpaired_high = row.low / baseline.high - 1, row.high / baseline.low - 1
    assert unpaired_low < 0 < row.gain_low < row.gain_rate < row.gain_high < unpaired_high
    assert row.gain_high - row.gain_low < (unpaired_high - unpaired_low) / 5


def test_an_interval_says_how_far_another_seed_would_move_the_number():
    # Two seeds, one of which finds everything first and one at rank 2: with probability 1/4 each, both draws are of
    # the same seed, so that the means are 1, 0.75 and 0.5 however cases are drawn.
    entry = reciprocal({"baseline": [[1] * 20, [2] * 20]})["baseline"]
    assert (entry.value, entry.low, entry.high) == pytest.approx((0.75, 0.5, 1.0))


def test_an_interval_says_how_far_other_cases_would_move_the_number():
    # 100 cases, half of them 1 and half 0.5, alike in every seed: the standard error is 0.25 / sqrt(100) = 0.025.
    entry = reciprocal({"baseline": [[1, 2] * 50] * 3}, resamples=4000)["baseline"]
    assert (entry.low, entry.high) == pytest.approx((0.75 - 1.96 * 0.025, 0.75 + 1.96 * 0.025), abs=0.005)


def test_a_baseline_that_finds_nothing_has_no_relative_gain():
    test = held_out([[0], [0]], counts=[1] * 4)
    found = measured(test, {"baseline": [[[1], [2]]], "cfm": [[[0], [0]]]}, ["R@1"])
    entry = found["all", "cfm", "R@1"]
    assert (entry.value, entry.low, entry.high) == (1.0, 1.0, 1.0)
    assert np.isnan([entry.gain_rate, entry.gain_low, entry.gain_high]).all()


def test_a_gain_keeps_the_bound_that_no_draw_without_a_baseline_can_move():
    # The baseline finds one of two cases: of four draws of two cases it finds 2, 1, 1 and 0. A row that finds both
    # gains 0, 1, 1 and infinitely much; one that finds the same case gains 0, 0, 0 and whatever one likes from -1 on.
    test = held_out([[0], [0]], counts=[1] * 4)
    found = measured(test, {"baseline": [[[0], [2]]], "both": [[[0], [0]]], "same": [[[0], [2]]]}, ["R@1"])
    both, same = found["all", "both", "R@1"], found["all", "same", "R@1"]
    assert (both.gain_rate, both.gain_low) == (1.0, 0.0)
    assert (same.gain_rate, same.gain_low) == (0.0, -1.0)
    assert np.isnan([both.gain_high, same.gain_high]).all()


def test_a_few_draws_without_a_baseline_move_no_bound():
    # The baseline finds three of four cases: none of them in (1/4)^4 = 0.4 % of the draws, fewer than the 2.5 % that
    # lie beyond a bound, and one in 4 (3/4) (1/4)^3 = 4.7 %, over which a row that finds all gains 4 / 1 - 1.
    test = held_out([[0]] * 4, counts=[1] * 4)
    found = measured(test, {"baseline": [[[0], [0], [0], [2]]], "cfm": [[[0]] * 4]}, ["R@1"], resamples=4000)
    entry = found["all", "cfm", "R@1"]
    assert (entry.gain_low, entry.gain_high) == pytest.approx((0.0, 3.0))


def ablation_of(*measured: Measured) -> Ablation:
    return Ablation("mine", "", ("R@1",), {CASE: {}}, (), measured, {})


def printed(ablation: Ablation, width: int = 200) -> str:
    console = Console(width=width, record=True, file=io.StringIO())
    show.render(ablation, console)
    return console.export_text()


def test_a_gain_without_a_bound_or_without_a_baseline_is_told_in_words_and_is_null_in_json():
    nan = float("nan")
    number = {"case": CASE, "slice": "all", "metric": "R@1", "cases": 4, "seeds": 2}
    number |= {"value": 0.5, "low": 0.4, "high": 0.6}
    baseline = Measured(**number, subject="baseline", gain_rate=0.0, gain_low=0.0, gain_high=0.0)
    open_above = Measured(**number, subject="cfm", gain_rate=1.0, gain_low=0.2, gain_high=nan, has_star=True)
    none = Measured(**number, subject="fd", gain_rate=nan, gain_low=nan, gain_high=nan)
    found = ablation_of(baseline, open_above, none)
    text = printed(found)
    assert "+100.0% [+20.0%, no bound] *" in text
    assert "the most confident gain is cfm with +100.0% [+20.0%, no bound] *." in text
    assert "the baseline finds nothing" in text
    assert "nan" not in text
    assert [entry["gain_high"] for entry in show.to_dict(found)["measured"]] == [0.0, None, None]


def test_in_a_narrow_terminal_the_names_of_the_rows_are_whole_and_remarks_end_the_text():
    number = {"case": CASE, "slice": "all", "cases": 4, "seeds": 2, "value": 0.5, "low": 0.4, "high": 0.6}
    number |= {"gain_rate": 0.0, "gain_low": -0.123, "gain_high": 0.234}
    metrics, names = ("AP@10", "AP@50", "R@10", "R@50"), ("baseline", "cfm_training_batch", "cfm_training_rest")
    entries = tuple(Measured(**number, subject=name, metric=metric) for name in names for metric in metrics)
    looks = tuple(Trial(CASE, "cfm_training_batch", {"a.b": value}, {}) for value in (1, 2, 3))
    chosen = {CASE: {"baseline": {}, "cfm_training_batch": {"a.b": 2}}}
    found = Ablation("mine", "", metrics, chosen, looks, entries, {}, ("so much for [that].",))
    text = printed(found, width=80)
    assert all(f"│ {name} " in text for name in names)
    assert "│ cfm_training_batch │     3 │ a.b = 2 " in text
    assert max(len(line) for line in text.splitlines() if line.startswith("│")) <= 80
    assert text.rstrip().endswith("so much for [that].")
    assert show.to_dict(found)["remarks"] == ["so much for [that]."]


def test_what_the_table_does_not_say_is_remarked():
    def remarked(tuned: bool = True, has_bags: bool = True, **changes: object) -> str:
        tables = block_run(Path("blocks"), **{"training": {"patience": 0}, **changes})
        subjects = {name: SUBJECTS[name] for name in ("baseline", "fd", "so", "cfm", "no_masking")}
        return "\n".join(remarks(config.from_tables(tables), subjects, tuned=tuned, has_bags=has_bags))

    assert remarked() == ""
    assert "the baseline was not tuned" in remarked(tuned=False)
    assert "value_dropout dropped nothing in cfm, no_masking:" in remarked(has_bags=False)
    assert "the run's own self_supervision and item.augmentations were left out" in remarked(self_supervision={})
    assert "no training stopped early" in remarked(training={"patience": 2})


@pytest.mark.parametrize(("rate", "told"), [(1.0, "100%"), (0.1, "10%"), (0.07, "7%"), (0.0025, "0.25%")])
def test_a_share_of_the_training_data_is_told_as_it_was_given(rate, told):
    assert show.titled(Case(rate, "none")) == f"{told} of the training data, plain softmax"


def test_the_same_seed_gives_the_same_numbers_and_another_seed_other_bounds():
    ranks = {"baseline": np.random.default_rng(0).integers(1, 11, (2, 30)), "row": [[1, 2, 3] * 10] * 2}
    first, again, other = (reciprocal(ranks, 200, seed)["row"] for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.gain_low) != (other.low, other.gain_low)
    assert (first.value, first.gain_rate) == (other.value, other.gain_rate)


def test_a_row_s_numbers_do_not_depend_on_which_other_rows_are_compared():
    random = np.random.default_rng(0)
    ranks = {name: random.integers(1, 11, (2, 30)) for name in ("baseline", "a", "b")}
    among_others, alone = reciprocal(ranks)["b"], reciprocal({name: ranks[name] for name in ("baseline", "b")})["b"]
    # All but the correction for the number of comparisons.
    uncorrected = {"corrected_p_value": 0.0, "has_star": False}
    assert dataclasses.replace(among_others, **uncorrected) == dataclasses.replace(alone, **uncorrected)


def test_bounds_agree_with_all_draws_of_seeds_and_cases_that_there_are():
    ranks = {"baseline": [[1, 4, 2, 10], [2, 3, 1, 5]], "row": [[1, 2, 2, 7], [1, 5, 1, 3]]}
    found = reciprocal(ranks, resamples=20_000)
    # Two seeds of two and four cases of four, with replacement: 2^2 * 4^4 = 1,024 equally likely draws.
    values = {name: 1 / np.array(of_row, float) for name, of_row in ranks.items()}
    means, gains = [], []
    for seeds in itertools.product(range(2), repeat=2):
        for cases in itertools.product(range(4), repeat=4):
            mean = {name: np.mean([of[seed, case] for seed in seeds for case in cases]) for name, of in values.items()}
            means.append(mean["row"])
            gains.append(mean["row"] / mean["baseline"] - 1)

    def agrees(low: float, high: float, everything: list[float]) -> None:
        # A share of 2.5 % that 20,000 draws estimate has a standard error of sqrt(0.025 * 0.975 / 20,000) = 0.0011;
        # four of them, and rounding to float32.
        draws = np.array(everything)
        assert (draws < low - 1e-6).mean() <= 0.025 + 0.0044
        assert (draws <= low + 1e-6).mean() >= 0.025 - 0.0044
        assert (draws > high + 1e-6).mean() <= 0.025 + 0.0044
        assert (draws >= high - 1e-6).mean() >= 0.025 - 0.0044

    agrees(found["row"].low, found["row"].high, means)
    agrees(found["row"].gain_low, found["row"].gain_high, gains)


def test_with_one_seed_bounds_agree_with_a_bootstrap_over_cases():
    ranks = np.random.default_rng(3).integers(1, 11, (1, 400))
    entry = reciprocal({"baseline": ranks}, resamples=4000)["baseline"]
    theirs = bootstrap_means(1 / ranks.T.astype(float), confidence=0.95, resamples=4000, seed=9)
    # The standard error of the mean is about 0.27 / sqrt(400) = 0.013; two bootstraps differ by a small part of it.
    assert entry.low == pytest.approx(theirs.low[0], abs=0.002)
    assert entry.high == pytest.approx(theirs.high[0], abs=0.002)


# The stars


def test_a_p_value_is_that_of_a_z_test_on_the_mean_difference_of_the_cases():
    random = np.random.default_rng(4)
    ranks = random.integers(2, 11, (1, 400))
    moved = np.clip(ranks - random.integers(-3, 4, ranks.shape), 1, 10)
    entry = reciprocal({"baseline": ranks, "row": moved}, resamples=20_000)["row"]
    differences = (1 / moved - 1 / ranks)[0]
    deviations = differences.mean() / (differences.std() / np.sqrt(400))
    assert entry.p_value == pytest.approx(2 * norm.sf(abs(deviations)), rel=0.1)


def test_a_row_equal_to_the_baseline_has_p_value_one_and_no_star():
    ranks = np.random.default_rng(0).integers(1, 11, (3, 50))
    entry = reciprocal({"baseline": ranks, "same": ranks})["same"]
    assert (entry.p_value, entry.corrected_p_value, entry.has_star) == (1.0, 1.0, False)


def test_few_cases_earn_no_star_even_if_the_row_is_better_in_all_of_them():
    # Of four cases a randomization test gives 2^(1 - 4) at best, although resampling them shows no spread.
    entry = reciprocal({"baseline": [[2] * 4], "row": [[1] * 4]})["row"]
    assert (entry.gain_low, entry.p_value, entry.has_star) == (1.0, 0.125, False)


def test_stars_are_corrected_for_every_row_metric_and_slice_of_the_tables():
    random = np.random.default_rng(5)
    ranks = {name: at_ranks(random.integers(1, 11, (2, 40))) for name in ("baseline", "a", "b")}
    test, metrics = held_out([[0]] * 40, [1] * 11), ["RR@10", "R@5"]
    found = measured(test, ranks, metrics)
    compared = [key for key in found if key[0] in ("all", "head", "tail", "cold") and key[1] != "baseline"]
    assert len(compared) == 2 * 2 * 2  # rows, metrics, and the slices all and head
    theirs = holm(np.array([found[key].p_value for key in compared]))
    assert [found[key].corrected_p_value for key in compared] == pytest.approx(theirs)
    assert all(entry.has_star == (entry.corrected_p_value < 0.05) for entry in found.values())


def test_chance_among_many_rows_earns_no_star():
    # 60 rows that are as good as the baseline: about three intervals exclude zero.
    random = np.random.default_rng(6)
    ranks = {name: random.integers(1, 11, (1, 200)) for name in ("baseline", *map(str, range(60)))}
    found = reciprocal(ranks, resamples=500)
    assert any(entry.gain_low > 0 or entry.gain_high < 0 for entry in found.values())
    assert not any(entry.has_star for entry in found.values())


@pytest.mark.parametrize("reference_rank", [1, 10])
def test_gains_over_a_baseline_below_the_simplest_reference_have_no_star_and_a_sentence(reference_rank):
    ranks = np.random.default_rng(1).integers(3, 9, (2, 60))
    arrays = {name: list(at_ranks(of_row)) for name, of_row in (("baseline", ranks), ("row", ranks - 1))}
    popularity = at_ranks([[reference_rank] * 60])[0]
    found = measure_case(
        CASE, held_out([[0]] * 60, [1] * 11), arrays, ["RR@10"], 200, 0, {}, {"popularity": popularity}
    )
    stars = {entry.subject: entry.has_star for entry in found if entry.slice == "all"}
    refused = reference_rank == 1
    assert stars == {"baseline": False, "row": not refused, "popularity (reference)": False}
    sentences = list(refusals(CASE, found, ["popularity"]))
    assert len(sentences) == refused
    if refused:
        assert "gains in RR@10 have no star, because the baseline is below popularity in RR@10 (-0." in sentences[0]
        assert "ablation.baseline_search" in sentences[0]


def test_references_stand_in_the_tables_and_are_never_called_a_gain():
    number = {"case": CASE, "slice": "all", "metric": "R@1", "cases": 4, "seeds": 2, "low": 0.4, "high": 0.6}
    rows = [("baseline", 0.5, 0.0), ("cfm", 0.6, 0.1), (reference_row("ease"), 0.9, 0.8)]
    entries = [
        Measured(**number, subject=name, value=value, gain_rate=gain, gain_low=gain, gain_high=gain)
        for name, value, gain in rows
    ]
    text = printed(dataclasses.replace(ablation_of(*entries), references=("ease",)))
    assert "│ ease (reference) " in text
    assert "no row gains significantly; the nearest is cfm" in text


def test_a_case_of_an_objective_without_logq_is_titled_by_its_share_of_the_data():
    assert show.titled(Case(0.5, "")) == "50% of the training data"
