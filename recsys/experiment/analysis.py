"""From a table of units to a decision: sample ratio first, then effects, guardrails, days, slices."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.table import Table
from tea_tasting.aggr import Aggregates

from recsys.errors import RefusedError
from recsys.experiment.effects import Effect, corrected, difference, ratio_metric, sample_ratio
from recsys.experiment.plan import INTERLEAVED, MIN_UNITS, Experiment, Metric
from recsys.experiment.quantiles import QuantileDifference, quantile_difference
from recsys.experiment.units import BEFORE, Health, Moments, Units, moments_of
from twintower.errors import SettingError, describe, unknown

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
        reasons: sentences; where it is `undecided`, why.
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
        min_units: units that the control and an arm each need before a verdict.
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
    min_units: int
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
    min_units: int | None = None,
    final: bool = False,
    quantiles: Sequence[float] = (),
    despite_sample_ratio: bool = False,
) -> Analysis:
    """Compare the arms of an experiment, and decide.

    An arm stays `undecided`, with the reason, where units are too few or a metric has no interval.

    Args:
        units: from `read_units`.
        experiment: its settings; without them arms are those of the log, of equal shares.
        control: the arm to compare with; default: the experiment's, or `control`.
        confidence: level of all intervals, 0..1.
        planned_units: at which always-valid intervals are tightest, settled before looking; default: the
            experiment's, or today's number.
        min_units: units that the control and an arm each need before a verdict on the arm, >= 2; default: the
            experiment's, or `plan.MIN_UNITS`.
        final: this is the one look that was planned: fixed intervals decide.
        quantiles: of the units' sums to compare as well.
        despite_sample_ratio: show effects even though the sample ratio is broken.

    Raises:
        RefusedError: fewer than two arms, an arm that the experiment does not have, or interleaved lists.
        SettingError: no arm of the control's name, or a number out of its range.
    """
    if not 0 < confidence < 1:
        raise SettingError(describe("confidence", confidence, "a number between 0 and 1, both excluded"))
    if min_units is None:
        min_units = MIN_UNITS if experiment is None else experiment.min_units
    if min_units < 2:
        raise SettingError(describe("min_units", min_units, "at least 2"))
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
    if len(counts) < 2:
        advice = "Wait for units of another arm, or look whether the log and the experiment belong together."
        raise RefusedError(describe(f"arms of {units.experiment}", sorted(counts), "at least 2", advice))
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
    decisions = []
    for arm in comparing.arms:
        if broken:
            decisions.append(Decision(arm, "invalid", (_sample_ratio_told(counts, p_value),)))
        elif few := [f"{which} {counts[which]:,}" for which in (control, arm) if counts[which] < min_units]:
            reason = f"too few units: {', '.join(few)}; a verdict needs at least {min_units:,} in each arm (min_units)"
            decisions.append(Decision(arm, "undecided", (reason,)))
        else:
            decisions.append(_decide(arm, effects, units.metrics, confidence=confidence, final=final))
    return Analysis(
        units.experiment, control, confidence, final, min_units, counts, p_value, tuple(decisions),
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
                    if _are_comparable(by_arm, self.control, arm)
                ]
                effects += corrected(together)
        return effects

    def grouped(self, moments: Moments, size: str, *, always_ratio: bool) -> list[Effect]:
        effects = []
        for group in sorted({group for _, group in moments}, key=lambda group: (len(group), group)):
            by_arm = {arm: found for (arm, of), found in moments.items() if of == group}
            arms = [arm for arm in self.arms if _are_comparable(by_arm, self.control, arm)]
            for name in self.metrics:
                denominator = size if always_ratio or self.metrics[name].per == "exposure" else None
                effects += [self._effect(name, arm, by_arm, group=group, denominator=denominator) for arm in arms]
        return effects

    def quantiles(self, units: Units, quantiles: Sequence[float]) -> list[ArmQuantile]:
        parts = {str(arm): part for (arm,), part in units.frame.group_by("arm")}
        return [
            ArmQuantile(name, arm, self._quantile(parts, name, arm, quantile))
            for name in self.metrics
            for arm in self.arms
            for quantile in quantiles
            if arm in parts and self.control in parts
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
        past, shown = name + BEFORE, "exposures" + BEFORE
        is_ratio = self.metrics[name].per == "exposure"
        return all(
            past in found.mean_ and found.var(past) > 0 and (not is_ratio or found.mean_.get(shown, 0) > 0)
            for found in by_arm.values()
        )


def _are_comparable(by_arm: Mapping[str, Aggregates], control: str, arm: str) -> bool:
    """Return whether both arms have the two units that a variance needs."""
    return all(which in by_arm and by_arm[which].count() >= 2 for which in (control, arm))


def _decide(
    arm: str, effects: Sequence[Effect], metrics: Mapping[str, Metric], *, confidence: float, final: bool
) -> Decision:
    """Decide by the primary metrics and guardrails; the CUPED estimate counts where there is one."""
    chosen = {effect.metric: effect for effect in deciding(effects) if effect.arm == arm}
    won, lost, harmed, reasons = [], [], [], []
    for name, effect in chosen.items():
        metric = metrics[name]
        if metric.role == "secondary":
            continue
        low, high = _bounds(effect, final)
        if low is None or high is None:
            known = "guardrail " if metric.role == "guardrail" else ""
            reasons.append(f"{known}{name} is undecided: {effect.reason}")
            continue
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


def deciding(effects: Sequence[Effect]) -> list[Effect]:
    """Return one effect for each arm and metric: that of CUPED where it has an interval, else the plain one."""
    chosen: dict[tuple[str, str], Effect] = {}
    for effect in effects:
        key = (effect.arm, effect.metric)
        if key not in chosen or (effect.adjusted and not effect.reason):
            chosen[key] = effect
    return list(chosen.values())


def number(value: float | None, form: str) -> str:
    """Return a number as text, in a format of Python's; `-` where there is none."""
    return "-" if value is None else format(value, form)


def interval_of(low: float | None, high: float | None) -> str:
    """Return both bounds as text; `-` where there is no interval."""
    return "-" if low is None or high is None else f"{low:+.4g} {high:+.4g}"


def _bounds(effect: Effect, final: bool) -> tuple[float | None, float | None]:
    return (effect.low, effect.high) if final else (effect.always_low, effect.always_high)


def _told(effect: Effect, final: bool) -> str:
    low, high = (number(bound, "+.4g") for bound in _bounds(effect, final))
    name = "CUPED, " if effect.adjusted else ""
    kind = "fixed" if final else "always-valid"
    return f"{number(effect.difference, '+.4g')} [{low}, {high}] ({name}{kind} interval)"


def _sample_ratio_told(counts: Mapping[str, int], p_value: float) -> str:
    told = ", ".join(f"{arm} {count:,}" for arm, count in counts.items())
    return (
        f"sample ratio: {told}, which has a chance of {p_value:.2g} under the planned shares. Units were lost or "
        "assigned twice: find out where before reading any effect."
    )


def as_json(analysis: Analysis) -> dict[str, Any]:
    """Return an analysis as plain values."""
    return dataclasses.asdict(analysis)


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
            *([effect.group] if group else []), name, effect.arm, number(effect.control, ".4g"),
            number(effect.value, ".4g"), number(effect.relative_difference, "+.2%"),
            interval_of(effect.low, effect.high), interval_of(effect.always_low, effect.always_high),
            number(effect.p_value, ".3g"), "" if group else number(effect.corrected_p_value, ".3g"),
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
            f"{found.difference:+.4g}", interval_of(found.low, found.high),
        )  # fmt: skip
    console.print(table)
