"""A report in sentences: ahead of which baselines, behind which, and whether the difference is significant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from recsys.evaluation.comparison import compare, holm
from recsys.evaluation.report import OURS, EvaluationReport
from recsys.evaluation.slices import ALL, DEFINITIONS, NEW_ITEMS, REPEATS

SLICES = (ALL, REPEATS, NEW_ITEMS, "tail", "cold")
"""Slices with a sentence of their own; of the others, the verdict names those in which a baseline is ahead."""
LEVEL = 0.05
"""Corrected p-value below which a difference is called significant."""
SIMPLEST = ("popularity", "repeat")
"""Baselines that only count. A model that is not above them is not worth serving."""
SIMPLE = (*SIMPLEST, "item_knn")
"""Baselines that a model must not be significantly below."""
TIE_RATE = 0.02
"""Relative loss to one of the simplest baselines that still counts as a tie, where the loss is not significant."""
MIN_CASES = 20
"""Cases below which a slice is too small to judge."""
SIGNIFICANCE = (
    f"Ahead and behind: significant at the {LEVEL:.0%} level (paired randomization test, Holm's correction for the "
    "baselines of a line)."
)
REASONS = {
    NEW_ITEMS: "Here the vectors rank alone, without the items that an entity has met",
    "tail": "Rare items have few interactions to learn from; item features may make up for it",
    "cold": "Items without interactions are ranked by their features alone",
    "new": "Entities without interactions are known by their features alone",
}
"""By slice: why a model may fall short there."""
CLOSED_FORMS = ("dlae", "ease", "ials")
"""Kinds of objective that are solved without training steps."""


def verdict(report: EvaluationReport) -> tuple[str, ...]:
    """Return sentences on the slices, the test of significance, a warning where a baseline is ahead, and on feedback.

    Each sentence on a slice compares the model with every baseline by the first metric, on the same cases, with Holm's
    correction for the number of baselines. Slices with fewer than `MIN_CASES` cases are not compared.

    Args:
        report: with the case values of the model and of the baselines.
    """
    baselines = [name for name in report.recommenders if name != OURS]
    metric = report.metrics[0]
    feedback = [report.feedback] if report.feedback else []
    left_out = [f"Not compared with {name}: {reason}" for name, reason in report.left_out.items()]
    if not baselines:
        return ("Compared with nothing: evaluation.baselines is empty.", *left_out, *feedback)
    sentences, ahead_of_us = [], []
    for slice in (*SLICES, *(name for name in DEFINITIONS if name not in SLICES)):
        value, cases = _of(report, OURS, metric, slice)
        if value is None:
            continue
        start = f"{slice}, {cases:,} case{'' if cases == 1 else 's'}: {metric} {value:.4f}"
        if cases < MIN_CASES:
            if slice in SLICES:
                sentences.append(f"{start}; fewer than {MIN_CASES} cases are too few to judge.")
            continue
        signs = _signs(report, baselines, metric, slice)
        behind = [name for name, (sign, _) in signs.items() if sign < 0]
        is_all = (value, cases) == _of(report, OURS, metric, ALL)
        if slice in SLICES or (behind and not is_all):
            reason = f" {REASONS[slice]}." if (behind or not value) and slice in REASONS else ""
            sentences.append(f"{start}, {_compared(signs, slice in SLICES)}.{reason}")
        if slice == ALL:
            ahead_of_us = behind
    sentences.append(SIGNIFICANCE)
    if against := objections(report):
        sentences.append(
            f"Warning: do not serve this model: {'; '.join(against)}. Look for leaks and broken columns with "
            f"`recsys data describe`. {_advice(report)} `recsys release promote` refuses the release; --force promotes "
            "it in spite of this and records why."
        )
    elif ahead_of_us:
        sentences.append(f"Warning: the model is behind {_listed(ahead_of_us)}. {_advice(report)}")
    return (*sentences, *left_out, *feedback)


def objections(report: EvaluationReport) -> tuple[str, ...]:
    """Return what speaks against serving the model at all, each in a few words.

    A model fails if, among all cases or among new items, its first metric is significantly below a simple baseline
    (`SIMPLE`), or below 98 % of one of the simplest (`SIMPLEST`), significantly or not: with few cases nothing is
    significant, and a model that was not trained must not pass for that reason. New items count on their own because
    where entities come back to what they met, the repeats lead every list, whatever the vectors are. They are not
    judged by fewer than `MIN_CASES` cases. Of other baselines, the first stands for the simplest where there is none.
    """
    baselines = [name for name in report.recommenders if name != OURS]
    if not baselines or OURS not in report.recommenders:
        return ()
    metric, simplest = report.metrics[0], simplest_of(baselines)
    simple = [name for name in baselines if name in (*SIMPLE, *simplest)]
    found = []
    for slice, words in ((ALL, ""), (NEW_ITEMS, " among new items")):
        value, cases = _of(report, OURS, metric, slice)
        if value is None or (slice != ALL and cases < MIN_CASES):
            continue
        signs = _signs(report, simple, metric, slice)
        significant = {name: difference for name, (sign, difference) in signs.items() if sign < 0}
        others = {
            name: difference
            for name, (sign, difference) in signs.items()
            if sign >= 0 and name in simplest and value < (1 - TIE_RATE) * (value - difference)
        }
        if significant:
            found.append(f"its {metric}{words} is significantly below {_with_differences(significant)}")
        if others:
            doubt = f"by more than {TIE_RATE:.0%}, though not significantly"
            found.append(f"its {metric}{words} is below {_with_differences(others)} {doubt}")
    return tuple(found)


def simplest_of(baselines: Sequence[str]) -> list[str]:
    """Return the baselines that are in `SIMPLEST`; the first baseline where none of them is."""
    return [name for name in baselines if name in SIMPLEST] or list(baselines[:1])


def _advice(report: EvaluationReport) -> str:
    """Return what may help a model of this kind."""
    kind = report.fits[OURS].settings.get("objective") if OURS in report.fits else None
    if kind and kind not in CLOSED_FORMS:
        return "Try a closed form (objective.kind = 'dlae' or 'ease'), more dimensions or more steps."
    return "Try other settings with `recsys tune`, or further features."


def _compared(signs: Mapping[str, tuple[int, float]], in_full: bool) -> str:
    """Return the baselines by outcome; not in full, only those that the model is behind."""
    outcomes = (("ahead of", 1), ("behind", -1), ("no difference shown to", 0)) if in_full else (("behind", -1),)
    return "; ".join(
        f"{words} {_with_differences(found)}"
        for words, sign in outcomes
        if (found := {name: difference for name, (of, difference) in signs.items() if of == sign})
    )


def _of(report: EvaluationReport, recommender: str, metric: str, slice: str) -> tuple[float | None, int]:
    """Return the value and the number of cases of a slice; None and 0 where the report lacks it."""
    for entry in report.accuracy:
        if (entry.recommender, entry.metric, entry.slice) == (recommender, metric, slice):
            return entry.value, entry.cases
    return None, 0


def _with_differences(differences: Mapping[str, float]) -> str:
    """Return names with their differences; what rounds to 0 has no sign."""
    return _listed(
        [f"{name} ({each:+.4f})" if round(each, 4) else f"{name} (0.0000)" for name, each in differences.items()]
    )


def _signs(report: EvaluationReport, baselines: Sequence[str], metric: str, slice: str) -> dict[str, tuple[int, float]]:
    """Return for each baseline whether the model is significantly ahead (1) or behind (-1), and the difference."""
    ours = report.case_values_of(OURS)
    found = [
        compare(report.case_values_of(name), ours, (name, OURS), slice=slice, metrics=[metric]).differences[0]
        for name in baselines
    ]
    corrected = holm(np.array([each.p_value for each in found]))
    return {
        name: (int(np.sign(each.difference)) if p_value < LEVEL else 0, each.difference)
        for name, each, p_value in zip(baselines, found, corrected, strict=True)
    }


def _listed(words: Sequence[str]) -> str:
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
