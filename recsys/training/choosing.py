"""Choose the settings of an objective without training steps on the validation cases, one group after another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeVar

import numpy as np

from recsys.config import Run
from recsys.data.prepare import Prepared
from recsys.objectives._solved import Solved
from recsys.progress import task
from recsys.towers.sum import AUTO
from recsys.training.model import TwoTowerModel
from recsys.training.solutions import Solution, SolvedTables, solve

T = TypeVar("T")

DIMS = (64, 128, 256, 512, 1024)
"""Lengths of vectors that `tower.dim = "auto"` tries."""
DEFAULT_DIM = 256
"""Length of vectors where nothing can be tried, and at most while the settings of the linear model are: a solution of
1,024 dimensions takes several times as long."""
PREDICTED = 64
"""Directions of the vectors that choose how strongly the regression on item features is held back."""
ENOUGH = 0.995
"""Share of the best metric that is enough for the first of several ways to treat rare items or new ones."""
ENOUGH_OF_DIM = 0.999
"""Share of the best metric that is enough for shorter vectors."""


def choose(
    run: Run, prepared: Prepared, validate: Callable[[TwoTowerModel], float] | None
) -> tuple[Run, tuple[float, ...]]:
    """Return the run with the settings that are best on the validation cases, and the metrics of all looks at these.

    The settings of the linear model are chosen first, then the query features' weight, the length of the vectors, and
    how item features take part; each on top of what was chosen before.

    Args:
        run: its objective is solved without training steps.
        prepared: the data; only its training part is solved for.
        validate: returns the validation metric of the model, larger is better; None takes the first of all values.
            Where no validation case names an item without interactions, the cases cannot show how long the vectors of
            such items should be: they get the shortest length, which displaces others least. Where cases name items
            with and without interactions, and `validate` has a method `on_trained_items`, which returns the metric of
            the former alone, that decides the length: what new items gain must not outweigh what others lose.

    Returns:
        The run with one value for each setting that has several to try, and the tower's dim; the metrics in order.
    """
    dims, cold_start = _dims(run, prepared), run.objective.cold_start
    asked_counts = prepared.item_counts[prepared.parts["validation"].item_row]
    if validate is None or asked_counts.all():
        cold_start = replace(cold_start, length=(min(cold_start.length),))
    if validate is None:
        objective = replace(run.objective, cold_start=cold_start)
        return _with(run, objective, min(dims[-1], DEFAULT_DIM) if len(dims) > 1 else dims[-1]), ()
    model = TwoTowerModel(prepared, _with(run, run.objective, dims[-1]), steps=1)
    model.encode_items()  # makes every variable
    tables, metrics = SolvedTables(model, prepared), []
    # While the linear model is chosen, items without interactions stay away unless the cases ask for nothing else.
    provisional = None if asked_counts.any() else cold_start
    is_mixed = asked_counts.any() and not asked_counts.all()
    of_length = getattr(validate, "on_trained_items", validate) if is_mixed else validate

    with task("choose settings", unit="looks") as running:

        def best(
            candidates: Sequence[T],
            assign: Callable[[T], None],
            enough: float = 1.0,
            measured: Callable[[TwoTowerModel], float] = validate,
        ) -> T:
            if len(candidates) == 1:
                return candidates[0]
            found = []
            for candidate in candidates:
                assign(candidate)
                found.append(measured(model))
                if measured is validate:
                    metrics.append(found[-1])
                running.advance(1, f"best {run.training.validation_metric} {max(metrics, default=0.0):.4f}")
            return candidates[int(np.argmax(np.array(found) >= enough * max(found)))]

        def solved(objective: Solved, dim: int) -> Solution:
            return solve(objective, prepared, dim, run.seed, "train")

        def assign_solved(objective: Solved) -> None:
            dim = min(dims[-1], DEFAULT_DIM) if len(dims) > 1 else dims[-1]
            tables.assign(solved(objective, dim), provisional, dim)

        objective = run.objective
        for names in objective.own:
            objective = best(objective.candidates(*names), assign_solved)
        if len(prepared.query_encoders) > 1:
            objective = best(objective.candidates("query_feature_weight"), assign_solved)
        dim = dims[-1]
        if len(dims) > 1 or tables.has_item_features:
            solution = solved(objective, dims[-1])
            dim = best(dims, lambda dim: tables.assign(solution, provisional, dim), ENOUGH_OF_DIM)
        if tables.has_item_features:
            weights = cold_start.candidates("regularization_weight")
            cold_start = max(
                weights, key=lambda cold_start: tables.predictability(solution, cold_start, min(dim, PREDICTED))
            )
            for name, measured in (("length", of_length), ("residual_shrinkage", validate)):
                tried = cold_start.candidates(name)
                cold_start = best(tried, lambda cold_start: tables.assign(solution, cold_start, dim), ENOUGH, measured)
            if of_length is not validate:
                tables.assign(solution, cold_start, dim)
                metrics.append(validate(model))
        if not metrics:  # one look in any case: own items are weighed against a model that has not seen the cases
            tables.assign(solved(objective, dim), cold_start, dim)
            metrics.append(validate(model))
    return _with(run, replace(objective, cold_start=cold_start), dim), tuple(metrics)


def _dims(run: Run, prepared: Prepared) -> Sequence[int]:
    """Return the lengths of vectors to try, ascending."""
    if run.tower.dim != AUTO:
        return (run.tower.dim,)
    largest = min(prepared.query_count, prepared.item_count)
    return [dim for dim in DIMS if dim < largest] or DIMS[:1]


def _with(run: Run, objective: Solved, dim: int) -> Run:
    return replace(run, objective=objective, tower=replace(run.tower, dim=dim))
