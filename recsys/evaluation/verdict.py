"""A report in sentences: ahead of which baselines, behind which, and whether the difference is significant."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from recsys.evaluation.comparison import compare, holm
from recsys.evaluation.report import OURS, EvaluationReport
from recsys.evaluation.slices import ALL, NEW_ITEMS, REPEATS

SLICES = (ALL, REPEATS, NEW_ITEMS, "tail", "cold")
LEVEL = 0.05
"""Corrected p-value below which a difference is called significant."""
ADVICE = "Try the objectives 'ease', 'dlae' and 'all_items' on whole histories, more dimensions or more steps."
WAY_OUT = (
    "A list that only counts serves better. Look for leaks and broken columns with `recsys data describe`, and try "
    "a closed form (objective.kind = 'ease'). `recsys release promote` "
    "refuses the release; --force promotes it in spite of this and records why."
)
SIMPLEST = ("popularity", "repeat")
"""Baselines that only count. A model that is not above them is not worth serving."""


def verdict(report: EvaluationReport) -> tuple[str, ...]:
    """Return one sentence for each slice that has cases, a warning where a baseline is ahead, and one on feedback.

    Each sentence compares the model with every baseline by the first metric, on the same cases, with Holm's correction
    for the number of baselines.

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
    for slice in SLICES:
        entry = report.find(OURS, metric, slice)
        if entry.value is None:
            continue
        signs = _signs(report, baselines, metric, slice)
        parts = [
            f"{words} {_listed([f'{name} ({difference:+.4f})' for name, difference in found])}"
            for words, sign in (("ahead of", 1), ("behind", -1), ("not significantly different from", 0))
            if (found := [(name, difference) for name, (of, difference) in signs.items() if of == sign])
        ]
        sentences.append(f"{slice}, {entry.cases:,} cases: {metric} {entry.value:.4f}, {'; '.join(parts)}.")
        if slice == ALL:
            ahead_of_us = [name for name, (sign, _) in signs.items() if sign < 0]
    if against := objections(report):
        sentences.append(f"Warning: do not serve this model: {'; '.join(against)}. {WAY_OUT}")
    elif ahead_of_us:
        sentences.append(f"Warning: the model is behind {_listed(ahead_of_us)}. {ADVICE}")
    return (*sentences, *left_out, *feedback)


def objections(report: EvaluationReport) -> tuple[str, ...]:
    """Return what speaks against serving the model at all: each of the simplest baselines that has a higher mean."""
    simplest = simplest_of([name for name in report.recommenders if name != OURS])
    if not simplest or OURS not in report.recommenders:
        return ()
    metric = report.metrics[0]
    return tuple(
        f"its {metric} is {'' if sign < 0 else 'not significantly '}below {name} ({difference:+.4f})"
        for name, (sign, difference) in _signs(report, simplest, metric, ALL).items()
        if difference < 0
    )


def simplest_of(baselines: Sequence[str]) -> list[str]:
    """Return the baselines that are in `SIMPLEST`; the first baseline where none of them is."""
    return [name for name in baselines if name in SIMPLEST] or list(baselines[:1])


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
