"""From a table of units to a decision: sample ratio first, then effects, guardrails, days, slices."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from tea_tasting.aggr import Aggregates

from recsys.errors import RefusedError, SettingError, describe, unknown
from recsys.experiment.effects import Effect, corrected, difference, ratio_metric, sample_ratio
from recsys.experiment.plan import INTERLEAVED, Experiment, Metric
from recsys.experiment.quantiles import QuantileDifference, quantile_difference
from recsys.experiment.units import BEFORE, Health, Moments, Units, moments_of

SAMPLE_RATIO_ALPHA = 0.001
"""Below it the counts are taken for broken; so strict because it is looked at in every experiment.

Reference:
    Fabijan et al. 2019, Diagnosing Sample Ratio Mismatch in Online Controlled Experiments, KDD.
"""


@dataclass(frozen=True)
class Decision:
    """What follows for one arm.

    Attributes:
        arm: its name.
        verdict: `invalid` (mend the experiment), `stop` (a guardrail was broken), `ship`, `do not ship`, `undecided`.
        reasons: sentences.
    """

    arm: str
    verdict: str
    reasons: tuple[str, ...]


@dataclass(frozen=True)
class ArmQuantile:
    """A quantile of one metric in one arm.

    Attributes:
        metric: its name.
        arm: compared with the control.
        found: the difference.
    """

    metric: str
    arm: str
    found: QuantileDifference


@dataclass(frozen=True)
class Analysis:
    """What an experiment found.

    Attributes:
        experiment: its name.
        control: the arm that others are compared with.
        confidence: level of all intervals, 0..1.
        final: whether the fixed intervals decide, at one look that was settled before; else the always-valid ones.
        units: by arm.
        sample_ratio_p_value: of the counts, were units assigned as planned.
        decisions: one an arm.
        effects: over all units; where there is a past, once without and once with CUPED.
        quantiles: of the units' sums.
        days: effects by day since the start: novelty wears off, or habits form.
        slices: effects by slice of the items shown, each a ratio to the items shown.
        health: what became of every row of the log.
    """

    experiment: str
    control: str
    confidence: float
    final: bool
    units: dict[str, int]
    sample_ratio_p_value: float
    decisions: tuple[Decision, ...]
    effects: tuple[Effect, ...]
    quantiles: tuple[ArmQuantile, ...]
    days: tuple[Effect, ...]
    slices: tuple[Effect, ...]
    health: Health


def analyse(
    units: Units,
    *,
    experiment: Experiment | None = None,
    control: str = "",
    confidence: float = 0.95,
    planned_units: float | None = None,
    final: bool = False,
    quantiles: Sequence[float] = (),
    despite_sample_ratio: bool = False,
) -> Analysis:
    """Compare the arms of an experiment, and say what follows.

    Args:
        units: from `read_units`.
        experiment: its settings; without them arms are those of the log, of equal shares.
        control: the arm to compare with; default: the experiment's, or `control`.
        confidence: level of all intervals, 0..1.
        planned_units: at which always-valid intervals are tightest, settled before looking; default: the
            experiment's, or today's number.
        final: this is the one look that was planned: fixed intervals decide.
        quantiles: of the units' sums to compare as well.
        despite_sample_ratio: show effects even though the sample ratio is broken.

    Raises:
        RefusedError: an arm with fewer than two units, one that the experiment does not have, or interleaved lists.
        SettingError: no arm of the control's name.
    """
    frame = units.frame
    counts = {str(arm): int(count) for arm, count in frame.group_by("arm").len().sort("arm").iter_rows()}
    if INTERLEAVED in counts:
        advice = "Ask `recsys.experiment.interleaving.preferences` which arm its units prefer."
        raise RefusedError(describe(f"arms of {units.experiment}", INTERLEAVED, "units of one arm each", advice))
    shares = {name: arm.share for name, arm in experiment.arms.items()} if experiment else dict.fromkeys(counts, 1.0)
    control = control or (experiment.control if experiment else "control")
    if planned_units is None and experiment is not None:
        planned_units = experiment.planned_units
    if control not in shares:
        raise SettingError(f"--control: {unknown('arm', control, shares)}")
    if strange := sorted(set(counts) - set(shares)):
        advice = "The log and the experiment file do not belong together."
        raise RefusedError(describe(f"arms in the log of {units.experiment}", strange, f"{sorted(shares)}", advice))
    counts = {arm: counts.get(arm, 0) for arm in shares}
    if min(counts.values()) < 2 or len(counts) < 2:
        advice = "Wait for more units, or look whether the log and the experiment belong together."
        raise RefusedError(describe(f"units of {units.experiment}", counts, "at least 2 in each of 2 arms", advice))
    p_value = sample_ratio(counts, shares, control)
    broken = p_value < SAMPLE_RATIO_ALPHA
    comparing = _Comparing(units.metrics, control, [arm for arm in counts if arm != control], confidence, planned_units)
    effects: list[Effect] = []
    found: list[ArmQuantile] = []
    days: list[Effect] = []
    slices: list[Effect] = []
    if not broken or despite_sample_ratio:
        effects = comparing.overall(units)
        days = comparing.grouped(units.daily, "exposures", always_ratio=False)
        slices = comparing.grouped(units.sliced, "shown", always_ratio=True)
        found = comparing.quantiles(units, quantiles)
    decisions = [
        _decide(arm, effects, units.metrics, confidence=confidence, final=final)
        if not broken
        else Decision(arm, "invalid", (_sample_ratio_told(counts, p_value),))
        for arm in comparing.arms
    ]
    return Analysis(
        units.experiment, control, confidence, final, counts, p_value, tuple(decisions),
        tuple(effects), tuple(found), tuple(days), tuple(slices), units.health,
    )  # fmt: skip


@dataclass(frozen=True)
class _Comparing:
    metrics: Mapping[str, Metric]
    control: str
    arms: list[str]
    confidence: float
    planned_units: float | None

    def overall(self, units: Units) -> list[Effect]:
        columns = [column for column in units.frame.columns if column not in ("unit", "arm")]
        moments = moments_of(units.frame, tuple(columns), ("arm",))
        by_arm = {arm: found for (arm,), found in moments.items()}
        effects: list[Effect] = []
        for role in ("primary", "guardrail", "secondary"):
            chosen = [name for name, metric in self.metrics.items() if metric.role == role]
            for suffix in (None, BEFORE):
                together = [
                    self._effect(name, arm, by_arm, suffix=suffix, comparisons=len(chosen) * len(self.arms))
                    for name in chosen
                    if suffix is None or self._has_past(name, by_arm)
                    for arm in self.arms
                ]
                effects += corrected(together)
        return effects

    def grouped(self, moments: Moments, size: str, *, always_ratio: bool) -> list[Effect]:
        effects = []
        for group in sorted({group for _, group in moments}, key=lambda group: (len(group), group)):
            by_arm = {arm: found for (arm, of), found in moments.items() if of == group}
            if any(arm not in by_arm or by_arm[arm].count() < 2 for arm in (self.control, *self.arms)):
                continue
            for name in self.metrics:
                denominator = size if always_ratio or self.metrics[name].per == "exposure" else None
                effects += [self._effect(name, arm, by_arm, group=group, denominator=denominator) for arm in self.arms]
        return effects

    def quantiles(self, units: Units, quantiles: Sequence[float]) -> list[ArmQuantile]:
        parts = {str(arm): part for (arm,), part in units.frame.group_by("arm")}
        return [
            ArmQuantile(name, arm, self._quantile(parts, name, arm, quantile))
            for name in self.metrics
            for arm in self.arms
            for quantile in quantiles
        ]

    def _quantile(self, parts: Mapping[str, Any], name: str, arm: str, quantile: float) -> QuantileDifference:
        control, treatment = (parts[which][name].to_numpy() for which in (self.control, arm))
        return quantile_difference(control, treatment, quantile, confidence=self.confidence)

    def _effect(
        self, name: str, arm: str, by_arm: Mapping[str, Aggregates], *, suffix: str | None = None, group: str = "",
        denominator: str | None = "", comparisons: int = 1,
    ) -> Effect:  # fmt: skip
        if denominator == "":
            denominator = "exposures" if self.metrics[name].per == "exposure" else None
        measured = ratio_metric(name, denominator, suffix=suffix, confidence=self.confidence)
        return difference(
            name, arm, by_arm[self.control], by_arm[arm], measured, group=group, planned_units=self.planned_units,
            comparisons=comparisons,
        )  # fmt: skip

    def _has_past(self, name: str, by_arm: Mapping[str, Aggregates]) -> bool:
        """Return whether every arm has a past that varies, without which CUPED is no different or divides by 0."""
        return all(
            name + BEFORE in found.mean_ and found.var(name + BEFORE) > 0 and found.mean("exposures" + BEFORE) > 0
            for found in by_arm.values()
        )


def _decide(
    arm: str, effects: Sequence[Effect], metrics: Mapping[str, Metric], *, confidence: float, final: bool
) -> Decision:
    """Decide by the primary metrics and guardrails; the CUPED estimate counts where there is one."""
    chosen = {effect.metric: effect for effect in effects if effect.arm == arm}
    won, lost, harmed, reasons = [], [], [], []
    for name, effect in chosen.items():
        metric = metrics[name]
        if metric.role == "secondary":
            continue
        low, high = (effect.low, effect.high) if final else (effect.always_low, effect.always_high)
        if metric.better == "lower":
            low, high = -high, -low
        if metric.role == "guardrail":
            margin = metric.margin_rate * abs(effect.control)
            state = "broken" if high < -margin else "safe" if low > -margin else "not yet known to be safe"
            harmed += [name] if state == "broken" else []
            reasons.append(f"guardrail {name} is {state}: {_told(effect, final)}")
            continue
        significant = not final or effect.corrected_p_value < 1 - confidence
        won += [name] if low > 0 and significant else []
        lost += [name] if high < 0 and significant else []
        state = "better" if name in won else "worse" if name in lost else "not told apart"
        reasons.append(f"{name} is {state}: {_told(effect, final)}")
    if not any(metric.role == "primary" for metric in metrics.values()):
        reasons.append("no metric is primary: name one in the experiment file")
    verdict = "stop" if harmed else "do not ship" if lost else "ship" if won else "undecided"
    return Decision(arm, verdict, tuple(reasons))


def _told(effect: Effect, final: bool) -> str:
    low, high = (effect.low, effect.high) if final else (effect.always_low, effect.always_high)
    name = "CUPED, " if effect.adjusted else ""
    return f"{effect.difference:+.4g} [{low:+.4g}, {high:+.4g}] ({name}{'fixed' if final else 'always-valid'} interval)"


def _sample_ratio_told(counts: Mapping[str, int], p_value: float) -> str:
    told = ", ".join(f"{arm} {count:,}" for arm, count in counts.items())
    return (
        f"sample ratio: {told}, which has a chance of {p_value:.2g} under the planned shares. Units were lost or "
        "assigned twice: find out where before reading any effect."
    )


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Return an analysis as plain values; numbers that do not exist are None, as JSON has no NaN."""
    return _plain(dataclasses.asdict(analysis))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _plain(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def render(analysis: Analysis, console: Console) -> None:
    """Print an analysis as tables that a person can read."""
    counts = ", ".join(f"{arm} {count:,}" for arm, count in analysis.units.items())
    console.print(f"experiment {analysis.experiment}, units: {counts}", highlight=False, soft_wrap=True)
    told = "in order" if analysis.sample_ratio_p_value >= SAMPLE_RATIO_ALPHA else "BROKEN"
    console.print(f"sample ratio {told}: p = {analysis.sample_ratio_p_value:.3g}", highlight=False)
    left_out = [
        f"{name.replace('_', ' ')} {count:,}"
        for name, count in dataclasses.asdict(analysis.health).items()
        if count or name in ("exposures", "events")
    ]
    if analysis.health != Health():
        console.print(f"log: {', '.join(left_out)}", highlight=False, soft_wrap=True)
    interval = f"{analysis.confidence:.0%} interval"
    for title, effects, group in (
        ("effects", analysis.effects, ""),
        ("by day since the start", analysis.days, "day"),
        ("by slice of the items shown", analysis.slices, "slice"),
    ):
        if effects:
            _effects_table(f"{title} against {analysis.control}", effects, group, interval, console)
    if analysis.quantiles:
        _quantiles_table(analysis.quantiles, interval, console)
    for decision in analysis.decisions:
        console.print(f"{decision.arm}: {decision.verdict}", style="bold", highlight=False)
        for reason in decision.reasons:
            console.print(f"  {reason}", highlight=False, soft_wrap=True)


def _effects_table(title: str, effects: Sequence[Effect], group: str, interval: str, console: Console) -> None:
    table = Table(title=title, title_justify="left")
    for column in (*([group] if group else []), "metric", "arm"):
        table.add_column(column)
    for column in ("control", "value", "relative", interval, "always valid", "p", "corrected p"):
        table.add_column(column, justify="right")
    for effect in effects:
        name = f"{effect.metric} (CUPED)" if effect.adjusted else effect.metric
        table.add_row(
            *([effect.group] if group else []), name, effect.arm, f"{effect.control:.4g}", f"{effect.value:.4g}",
            f"{effect.relative_difference:+.2%}", f"{effect.low:+.4g} {effect.high:+.4g}",
            f"{effect.always_low:+.4g} {effect.always_high:+.4g}", f"{effect.p_value:.3g}",
            "" if group else f"{effect.corrected_p_value:.3g}",
        )  # fmt: skip
    console.print(table)


def _quantiles_table(quantiles: Sequence[ArmQuantile], interval: str, console: Console) -> None:
    table = Table(title="quantiles of the units' sums", title_justify="left")
    for column in ("metric", "arm", "quantile"):
        table.add_column(column)
    for column in ("control", "value", "difference", interval):
        table.add_column(column, justify="right")
    for one in quantiles:
        found = one.found
        table.add_row(
            one.metric, one.arm, f"{found.quantile:g}", f"{found.control:.4g}", f"{found.value:.4g}",
            f"{found.difference:+.4g}", f"{found.low:+.4g} {found.high:+.4g}",
        )  # fmt: skip
    console.print(table)
