"""Cross-fitting of reformulators: each query is judged by a training that has not seen it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from recsys.config import Reformulation
from recsys.data.mined import Mined
from recsys.evaluation.default_reformulator import DEPTHS, EXPLICIT, PSEUDO, DefaultChoice, choose_default, harms
from recsys.evaluation.reformulation import Curve, as_in_training, curve, fit_guard, simulated_explicit
from recsys.metrics.ranking import parse
from recsys.reformulators import Weights
from recsys.retrieval.reformulation import NamedReformulator
from recsys.training.reformulation import DISLIKED_RATE, looks_after, train_reformulator
from recsys.types import Feedback, ItemRoles
from twintower.types import FeedbackKind

SHARES = (1.0, 0.75, 0.5, 0.25)
"""Shares of a trained move that are tried."""
FEEDBACK_OF_KIND = {PSEUDO: {FeedbackKind.PSEUDO}, EXPLICIT: set(FeedbackKind) - {FeedbackKind.PSEUDO}}
"""The kinds of feedback that each curve judges."""


@dataclass(frozen=True)
class Cases:
    """Queries with feedback of one kind.

    Attributes:
        mined: the queries, and what would be right of each after the feedback.
        feedback: as many items for each as the deepest depth.
    """

    mined: Mined
    feedback: Feedback | None


@dataclass(frozen=True)
class CrossFitted:
    """A trained reformulator, and how it did on queries that its trainings had not seen.

    Attributes:
        named: trained on all queries.
        of_folds: trained on all but one fold, as long and shortened as much.
        held_out: the queries of each fold.
        depths: numbers of items of feedback that were looked at.
        metric: that chose, in ir-measures spelling.
        curves: by kind of feedback that is not ignored, how those of the folds do on the queries of their fold.
    """

    named: NamedReformulator
    of_folds: tuple[NamedReformulator, ...]
    held_out: tuple[Mined, ...]
    depths: tuple[int, ...]
    metric: str
    curves: Mapping[str, Curve]

    def choose_default(self, others: Sequence[NamedReformulator], roles: ItemRoles, seed: int) -> DefaultChoice:
        """Return which of this and other reformulators is the default, by the same queries.

        Args:
            others: that have not learned from these queries.
            roles: the vectors of the items.
            seed: of simulated likes and dislikes.
        """
        curves = {
            each.name: curves_by_kind([each] * len(self.held_out), self.held_out, roles, self.metric, self.depths, seed)
            for each in others
        }
        return choose_default({self.named.name: self.curves} | curves, self.metric)


def cross_fit(
    mined: Mined, roles: ItemRoles, settings: Reformulation, *, name: str, seed: int, folder: Path
) -> CrossFitted:
    """Train a reformulator on each part of the queries but one, then on all of them as long as was best.

    The queries left out of each training, pooled, choose the number of steps, then how far queries move: the share of
    the trained move with the largest mean gain of those with which no depth lies below the original query; without
    one, the smallest. They also fit the guard. A kind of feedback that harms them while another does not is ignored.

    Args:
        mined: the queries.
        roles: the vectors of the items.
        settings: the `reformulation` section of a run.
        name: of the reformulator.
        seed: of the folds, of the weights and of every draw.
        folder: holds checkpoints and TensorBoard events; made if needed.

    Raises:
        DataError: fewer than two queries, or a damaged checkpoint.
        InterruptedRun: stopped by a signal.
        SettingError: training diverged.
    """
    metric, steps = parse(settings.validation_metric).name, settings.steps_of(len(mined))
    depths = depths_up_to(settings.feedback_k)
    folds = mined.folds(settings.folds, seed)
    cases = [
        Cases(
            *as_in_training(
                held_out,
                roles,
                given=settings.feedback_k,
                explicit_rate=settings.explicit_rate,
                disliked_rate=DISLIKED_RATE,
                seed=seed,
            )
        )
        for _, held_out in folds
    ]
    trained = [
        train_reformulator(
            learn,
            roles,
            settings,
            steps=steps,
            seed=seed,
            folder=folder / f"fold-{number}",
            label=f"fold {number} of {len(folds)}",
        )
        for number, (learn, _) in enumerate(folds, start=1)
    ]

    def moving(weights: Weights, share: float) -> NamedReformulator:
        shortened = settings.reformulator.shortened(weights, share)
        return NamedReformulator(name, settings.reformulator, shortened)

    def measured(look: int, share: float) -> Curve:
        of_folds = [moving(each.weights[look], share) for each in trained]
        return joined_curve(of_folds, cases, roles, metric, depths)

    by_look = [measured(look, 1.0).mean(metric) for look in range(len(trained[0].weights))]
    look = int(np.argmax(by_look))
    by_share = {share: measured(look, share) for share in SHARES}
    harmless = [share for share, found in by_share.items() if (found.gains(metric).mean(axis=1) >= 0).all()]
    share = max(harmless or SHARES[-1:], key=lambda share: by_share[share].mean(metric))
    all_queries = train_reformulator(
        mined, roles, settings, steps=steps, seed=seed, folder=folder / "all", looks=look, label="all queries"
    )
    of_folds = tuple(moving(each.weights[look], share) for each in trained)
    held_out = tuple(judge for _, judge in folds)
    measured_by_kind = curves_by_kind(of_folds, held_out, roles, metric, depths, seed)
    curves = {kind: each for kind, each in measured_by_kind.items() if not harms(each, metric)} or measured_by_kind
    choice, found = choose_default({name: curves}, metric), by_share[share]
    facts = {
        "queries": len(mined),
        "folds": len(folds),
        "steps": int(looks_after(steps)[look]),
        "share": share,
        "validation_metric": metric,
        "validations": by_look,
        "losses": list(all_queries.losses),
        "original": float(found.values[metric][0].mean()),
        "reached": found.mean(metric),
        "ignores": [
            each.name for kind in measured_by_kind.keys() - curves.keys() for each in sorted(FEEDBACK_OF_KIND[kind])
        ],
        "is_significant": choice.name == name,
        "gains": [asdict(gain) for gain in choice.gains],
    }
    weights = settings.reformulator.shortened(all_queries.weights[look], share)
    named = NamedReformulator(name, settings.reformulator, weights, fit_guard(found, metric), facts)
    return CrossFitted(named, of_folds, held_out, depths, metric, curves)


def depths_up_to(largest: int) -> tuple[int, ...]:
    """Return the numbers of items of feedback, up to a largest one, that reformulators are judged with."""
    return tuple(sorted({depth for depth in DEPTHS if depth < largest} | {largest}))


def joined_curve(
    of_folds: Sequence[NamedReformulator],
    cases: Sequence[Cases],
    roles: ItemRoles,
    metric: str,
    depths: Sequence[int],
) -> Curve:
    """Return how the reformulator of each fold does on the cases of that fold, all cases side by side.

    Args:
        of_folds: one for each fold.
        cases: of each fold.
        roles: the vectors of the items.
        metric: in ir-measures spelling.
        depths: numbers of items of feedback.
    """
    return Curve.joined(
        [
            curve(named, each.mined, roles, [metric], depths, each.feedback)
            for named, each in zip(of_folds, cases, strict=True)
        ]
    )


def curves_by_kind(
    of_folds: Sequence[NamedReformulator],
    held_out: Sequence[Mined],
    roles: ItemRoles,
    metric: str,
    depths: Sequence[int],
    seed: int,
) -> dict[str, Curve]:
    """Return how reformulators do with first results as feedback, and with likes and dislikes where that is possible.

    Args:
        of_folds: the reformulator of each fold.
        held_out: the queries of each fold.
        roles: the vectors of the items.
        metric: in ir-measures spelling.
        depths: numbers of items of feedback.
        seed: of simulated likes and dislikes.
    """
    pseudo = [Cases(mined, None) for mined in held_out]
    explicit = []
    for named, mined in zip(of_folds, held_out, strict=True):
        if (mined.relevant.sizes >= 2).any():
            given = {"given": max(depths), "disliked_rate": DISLIKED_RATE, "seed": seed}
            explicit.append((named, Cases(*simulated_explicit(mined, roles, **given))))
    curves = {PSEUDO: joined_curve(of_folds, pseudo, roles, metric, depths)}
    if explicit:
        tellers, cases = zip(*explicit, strict=True)
        curves[EXPLICIT] = joined_curve(tellers, cases, roles, metric, depths)
    return curves
