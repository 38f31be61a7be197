"""Fit the baselines of a run: settings by validation cases, then everything that precedes the judged part."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from recsys import registry
from recsys.baselines import Baseline, obstacle
from recsys.evaluation.held_out import HeldOut
from recsys.evaluation.recommenders import ScoreRecommender
from recsys.evaluation.report import Fit
from recsys.metrics.ranking import measure, parse
from recsys.progress import inform, task
from recsys.types import Float32, Int64
from twintower.errors import SettingError


@dataclass(frozen=True)
class Choice:
    """A baseline with settings chosen on validation cases.

    Attributes:
        baseline: with one value for each setting.
        tried: combinations of settings that were tried; 0 where there was nothing to choose or to choose by.
        candidates: combinations that there were.
    """

    baseline: Baseline
    tried: int
    candidates: int


@dataclass(frozen=True)
class FittedBaseline:
    """A baseline that is ready to be judged.

    Attributes:
        recommender: for the cases of the judged part.
        fit: what it was fitted on and how.
    """

    recommender: ScoreRecommender
    fit: Fit


def choose(baseline: Baseline, validation: HeldOut, metric: str, search_s: float) -> Choice:
    """Return a baseline with the settings that are best on the validation cases; of equal ones the first.

    Candidates are fitted on what precedes the validation part. All are tried, unless the time does not suffice, by the
    slowest one so far; a sentence reports how many were. Those without a solution count as the worst.

    Args:
        baseline: with the settings to try.
        validation: without answerable cases the first candidate is taken.
        metric: in ir-measures spelling.
        search_s: seconds for all trials; the first is always made.

    Raises:
        SettingError: none of the candidates that were tried has a solution.
    """
    candidates = baseline.candidates()
    if len(candidates) == 1 or not validation.cases.reachable.rows.size:
        return Choice(candidates[0], 0, len(candidates))
    started, slowest = time.monotonic(), 0.0
    values: list[float] = []
    failures: list[SettingError] = []
    with task(f"choose {registry.kind_of(baseline)}", len(candidates), "settings") as running:
        for candidate in candidates:
            before = time.monotonic()
            if values and before - started + slowest > search_s:
                break
            try:
                values.append(_value(candidate, validation, metric))
            except SettingError as error:
                values.append(-np.inf)
                failures.append(error)
            slowest = max(slowest, time.monotonic() - before)
            running.advance(1, f"best {metric} {max(values):.4f}")
    if len(values) < len(candidates):
        inform(
            f"{registry.kind_of(baseline)}: {len(values)} of {len(candidates)} settings were tried in "
            f"evaluation.baseline_search_s = {search_s:g}. Raise it to try all."
        )
    if len(failures) == len(values):
        raise failures[0]
    return Choice(candidates[int(np.argmax(values))], len(values), len(candidates))


def recommender(baseline: Baseline, part: HeldOut) -> ScoreRecommender:
    """Return a baseline fitted on what precedes a part, for the part's cases.

    Raises:
        SettingError: its settings have no solution for these data.
    """
    scorer = baseline.fit(part.interactions)

    def score(case_rows: Int64) -> Float32:
        return scorer(part.histories.take(case_rows))

    return ScoreRecommender(score, part.interactions.items, part.cases.excluded)


def fit_baselines(
    baselines: Sequence[Baseline], validation: HeldOut, test: HeldOut, *, metric: str, search_s: float
) -> tuple[dict[str, FittedBaseline], dict[str, str]]:
    """Return the baselines that fit the data, ready for the test cases, and why the others were left out.

    Settings are chosen with the training rows and the validation cases alone; the baseline is then fitted on the rows
    of both.

    Args:
        baselines: of different kinds.
        validation: the cases that choose.
        test: the cases that judge.
        metric: that chooses, in ir-measures spelling.
        search_s: seconds for the choice of one baseline's settings.

    Returns:
        Fitted baselines by kind, in the order given, and reasons by kind.
    """
    fitted, left_out = {}, {}
    for baseline in baselines:
        kind, data = registry.kind_of(baseline), test.interactions
        if reason := obstacle(baseline, test.has_histories, test.cases.known is not None, data.owners, data.items):
            left_out[kind] = reason
            continue
        try:
            choice = choose(baseline, validation, metric, search_s)
            ready = recommender(choice.baseline, test)
        except SettingError as error:
            left_out[kind] = str(error)
            continue
        fit = Fit(test.earlier, _settings(choice.baseline), choice.tried, choice.candidates)
        fitted[kind] = FittedBaseline(ready, fit)
    return fitted, left_out


def _value(baseline: Baseline, validation: HeldOut, metric: str) -> float:
    reachable = validation.cases.reachable
    rows = np.flatnonzero(reachable.sizes > 0)
    ranked = recommender(baseline, validation).recommend(rows, parse(metric).cutoff).item_rows
    return float(np.mean(measure([metric], ranked, reachable.take(rows))[metric]))


def _settings(baseline: Baseline) -> dict[str, Any]:
    """Return a baseline's settings, those to try as the one value that was chosen."""
    plain = registry.plain(baseline)
    return {name: value[0] if isinstance(value, list) else value for name, value in plain.items()}
