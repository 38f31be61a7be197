"""What a run file leaves to the data: the objective, and whether rankings leave out what an entity has met."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from recsys.config import Run, with_default_objective
from recsys.data import encoders
from recsys.data.prepare import Codes, Prepared, excludes_seen, rows_before_cut
from recsys.data.repeats import repeat_rate
from recsys.features import Encoder
from recsys.linear_models import MAX_INVERTED, expected_cost
from recsys.registry import kind_of

LONG_S = 120
"""From here on, how long a closed form takes is said before it starts."""


def decide(run: Run, prepared: Prepared) -> tuple[Run, tuple[str, ...]]:
    """Return the run with nothing left to the data, and a sentence on each decision.

    A closed form inverts a matrix of query entities, or of items and query features, whichever are fewer, and another
    one of items or item features: the objective is a closed form where neither has more than `MAX_INVERTED` rows.

    Args:
        run: as its file was read.
        prepared: its data.
    """
    sentences = []
    if run.objective is None:
        solved, regressed = _inverted_rows(prepared)
        run = with_default_objective(run, in_steps=max(solved, regressed) > MAX_INVERTED)
        size = f"{prepared.query_count:,} query entities and {prepared.item_count:,} items"
        size += ", with their features," * (regressed > MAX_INVERTED)
        reason = f"{size} are few enough for a closed form"
        if run.objective.reads != "matrix":
            reason = f"trained in steps, because {size} are too many for a closed form"
        sentences.append(f"objective: {kind_of(run.objective)!r}, {reason}.")
    if run.objective.reads == "matrix":
        rows, _ = _inverted_rows(prepared)
        solutions = 2  # for the length of the vectors, and the refit
        solutions += sum(len(run.objective.candidates(*names)) for names in run.objective.own)
        if len(prepared.query_encoders) > 1:
            solutions += len(run.objective.query_feature_weight)
        seconds, gib = expected_cost(rows, solutions)
        if rows <= MAX_INVERTED and seconds >= LONG_S:
            cost = f"about {seconds / 60:.0f} minutes on one core and {gib:.1f} GiB"
            sentences.append(f"objective: {solutions} solutions with matrices of {rows:,} rows take {cost}.")
    if run.evaluation.exclude_seen is None:
        excludes = excludes_seen(run, prepared)
        run = replace(run, evaluation=replace(run.evaluation, exclude_seen=excludes))
        if run.query.entity != "features":
            share = f"{repeat_rate(rows_before_cut(prepared)):.1%} of the training interactions repeat an earlier one"
            meaning = "rankings leave out" if excludes else "rankings may hold"
            sentences.append(
                f"evaluation.exclude_seen: {str(excludes).lower()}, {meaning} what an entity met: {share}."
            )
    return run, tuple(sentences)


def has_closed_form(prepared: Prepared) -> bool:
    """Return whether the data are few enough for a closed form; see `decide`."""
    return max(_inverted_rows(prepared)) <= MAX_INVERTED


def _inverted_rows(prepared: Prepared) -> tuple[int, int]:
    """Return the rows of the matrices that a closed form inverts: for its solution, and to explain it by features."""
    items = prepared.item_count
    of_queries = feature_width(prepared.query_encoders, prepared.query_codes)
    of_items = feature_width(prepared.item_encoders, prepared.item_codes)
    return min(prepared.query_count, items + of_queries), min(items, of_items)


def feature_width(fitted: Mapping[str, Encoder], codes: Codes) -> int:
    """Return how many numbers, or different codes, the features of a side have, ids and histories left out."""
    features = (
        np.asarray(codes[name])
        for name, encoder in fitted.items()
        if not encoders.is_history(encoder) and not encoders.is_id(encoder)
    )
    return sum(each.shape[1] if each.dtype == np.float32 else int(each.max(initial=-1)) + 1 for each in features)
