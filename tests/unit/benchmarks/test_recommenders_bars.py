"""How `make bench-recommenders` judges: paired differences over seeds, and whether a bar is met, in words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.recommenders import METRICS, PLANS, Bar, Compared, Outcome, bag, difference, run_of
from benchmarks.report import Report

CASES = 200


def outcome(mean: float, *, seed: int = 0, train_s: float = 10.0, cpu_s: float = 10.0, **means: float) -> Outcome:
    """Return values that vary from case to case in the same way for every recommender of a seed, around means."""
    noise = np.random.default_rng(seed).normal(0, 0.1, CASES)
    noise -= noise.mean()
    columns = {metric: means.get(metric, mean) + noise for metric in METRICS}
    return Outcome(
        pa.table({"case_id": [f"user {row}" for row in range(CASES)], **columns}), "as it is", train_s, cpu_s
    )


def by_seed(*outcomes: Outcome) -> dict[int, Outcome]:
    return dict(enumerate(outcomes, 1))


def sentences(ours: list[Outcome], theirs: list[Outcome], bar: Bar) -> list[str]:
    return list(Compared({"bag": by_seed(*ours)}, {"ease": by_seed(*theirs)}, bar).sentences())


def test_what_is_the_same_for_both_in_every_case_has_no_part_in_the_interval_of_their_difference():
    mean, low, high = difference({1: outcome(0.41)}, {1: outcome(0.40)})
    assert mean == pytest.approx(0.01)
    assert low == pytest.approx(0.01)
    assert high == pytest.approx(0.01)


def test_a_difference_is_the_mean_over_seeds_for_each_query_entity():
    ours = {1: outcome(0.42, seed=1), 2: outcome(0.40, seed=2)}
    mean, _, _ = difference(ours, {seed: outcome(0.40, seed=seed) for seed in (1, 2)})
    assert mean == pytest.approx(0.01)


def test_two_recommenders_are_compared_on_the_seeds_that_both_have():
    ours = {2: outcome(0.41, seed=2)}
    theirs = {seed: outcome(mean, seed=seed) for seed, mean in ((1, 0.5), (2, 0.40), (3, 0.5))}
    mean, low, high = difference(ours, theirs)
    assert [*mean, *low, *high] == pytest.approx([0.01] * 3 * len(METRICS))
    compared = Compared({"bag": ours}, {"ease": theirs, "dlae": {1: outcome(0.5, seed=1)}}, Bar(0.002, 2))
    assert list(compared.sentences()) == ["Bar met by bag.", "bag loses to no peer in any metric."]
    report = Report("recommenders-small")
    compared.add_to(report)
    assert {row.runs for row in report.rows if row.case == {"difference to": "ease"}} == {1}
    assert not [row for row in report.rows if row.case == {"difference to": "dlae"}]
    assert "ease, seeds 1, 2, 3: as it is." in report.notes


def test_a_bar_with_a_margin_is_met_when_no_metric_is_further_below_and_enough_are_above():
    bar = Bar(margin=0.002, above=2)
    below = dict.fromkeys(METRICS[2:], 0.399)
    assert sentences([outcome(0.401, **below)], [outcome(0.4)], bar)[0] == "Bar met by bag."


def test_a_metric_beyond_the_margin_is_named_with_the_peer_that_is_ahead():
    (verdict, losses) = sentences([outcome(0.41, **{"R@50": 0.395})], [outcome(0.4)], Bar(margin=0.002, above=2))
    assert verdict == "Bar MISSED by bag: R@50 0.3950 is 0.0050 below ease, 0.002 are allowed."
    assert losses == "bag loses to ease: R@50 -0.0050 [-0.0050, -0.0050]."


def test_too_few_metrics_above_every_peer_miss_a_bar():
    (verdict, _) = sentences([outcome(0.4)], [outcome(0.4)], Bar(margin=0.002, above=2))
    assert verdict == "Bar MISSED by bag: 0 of 6 metrics are above every peer, 2 are needed."


def test_a_significant_metric_needs_an_interval_above_zero():
    ours = [outcome(0.41, seed=1), outcome(0.41, seed=2)]
    bar = Bar(margin=0.0, above=6, significant=("R@20",))
    assert sentences(ours, [outcome(0.4, seed=1), outcome(0.4, seed=2)], bar)[0] == "Bar met by bag."
    # Cases that have nothing in common with ours: the difference of 0.001 drowns in their noise.
    theirs = [outcome(0.409, seed=3), outcome(0.409, seed=4)]
    (verdict, _) = sentences(ours, theirs, bar)
    assert verdict.startswith("Bar MISSED by bag: the interval of R@20 minus ease's begins at -0.0")


def test_without_a_peer_no_bar_is_met():
    (verdict, _) = Compared({"bag": {1: outcome(0.4)}}, {}, Bar(margin=0.002, above=2)).sentences()
    assert verdict == "Bar MISSED by bag: no peer was measured."


def test_training_that_takes_too_long_misses_a_bar():
    (verdict, _) = sentences([outcome(0.41, cpu_s=200)], [outcome(0.4)], Bar(margin=0.002, above=2, cpu_s=180))
    assert verdict == "Bar MISSED by bag: training takes 200 s of processor time, 180 are allowed."


def test_the_report_holds_medians_over_the_seeds_differences_and_training_times():
    report = Report("recommenders-small")
    ours = {seed: outcome(mean, seed=seed, train_s=10 * seed) for seed, mean in ((1, 0.41), (2, 0.44), (3, 0.42))}
    theirs = {seed: outcome(0.4, seed=seed) for seed in ours}
    Compared({"bag": ours}, {"ease": theirs}, Bar(0.002, 2)).add_to(report)
    values = {(*row.case.values(), row.subject, row.metric): row.value for row in report.rows}
    assert values["all", "bag", "R@20"] == pytest.approx(0.42)
    assert values["all", "ease", "R@20"] == pytest.approx(0.40)
    # (0.01 + 0.04 + 0.02) / 3
    assert values["ease", "bag", "R@20"] == pytest.approx(0.07 / 3)
    assert values["training", "bag", "train_s"] == 20


@pytest.mark.parametrize("data", PLANS)
def test_every_model_of_a_plan_makes_a_run(data):
    plan = PLANS[data]
    for tables in plan.models.values():
        run = run_of(plan, tables, 2)
        assert (run.seed, run.evaluation.metrics) == (2, METRICS)
        assert run.evaluation.exclude_seen


def test_sections_of_a_model_replace_those_of_the_run_file():
    run = run_of(PLANS["ml-1m"], bag("dlae", 64), 1)
    assert list(run.item.features) == ["id"]
    assert run.item.metadata == ("title", "genres", "year")
    assert run.tower.dim == 64
