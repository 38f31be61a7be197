"""Cut prepared data into evaluation cases: what was known before the cut, and what each query met after it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from recsys.baselines import Histories
from recsys.config import Run
from recsys.data import encoders
from recsys.data.batches import QueryCodes
from recsys.data.history import Met, Past
from recsys.data.prepare import Codes, Prepared, excludes_seen
from recsys.evaluation.cases import EvaluationCases
from recsys.splits import history_at_evaluation
from recsys.types import ITEM_ID, QUERY_ID, Int32, Interactions, RowSets

EARLIER = {"validation": ("train",), "test": ("train", "validation")}


@dataclass(frozen=True)
class Questions:
    """Queries of one part, what answers them and what may not be shown.

    Attributes:
        case_ids: `[queries]`, text.
        codes: the query side's codes, `[queries, *shape]` each.
        relevant: item rows that answer each query; at least one each.
        excluded: item rows that may not be shown.
    """

    case_ids: pa.Array
    codes: Codes
    relevant: RowSets
    excluded: RowSets


@dataclass(frozen=True)
class HeldOut:
    """One part of the split as questions.

    Attributes:
        cases: the questions.
        query_rows: `[cases]`, int32, who asks.
        codes: the query side's codes, `[cases, *shape]` each; their histories are those that `histories` counts.
        interactions: what every query entity met in the earlier parts.
        histories: what each case's entity met before it asks: all of the earlier parts, or where the split cuts in
            time, what came before its first held-out interaction.
        met: the interactions of `histories`, newest first, with their ages at the cut.
        earlier: the parts of the split that precede this one.
        has_histories: whether queries have a history; those of free features have none.
    """

    cases: EvaluationCases
    query_rows: Int32
    codes: Codes
    interactions: Histories
    histories: Histories
    met: Met
    earlier: tuple[str, ...]
    has_histories: bool


def held_out(run: Run, prepared: Prepared, part: str, max_cases: int = 0) -> HeldOut:
    """Return the cases of a part.

    Args:
        run: gives the query entity, the seed and whether seen items are excluded.
        prepared: the data; its encoders make the codes, and the parts of the split everything else.
        part: `validation` or `test`.
        max_cases: cases drawn with the run's seed when there are more; 0 means all.
    """
    encoded_by, prepared = prepared, prepared.as_split or prepared
    relevant, known = prepared.positives(part), prepared.positives(*EARLIER[part])
    rows = np.flatnonzero(relevant.sizes > 0).astype(np.int32)
    if 0 < max_cases < len(rows):
        rows = np.sort(np.random.default_rng([run.seed, 6]).choice(rows, max_cases, replace=False))
    earlier, leaves_out_seen = prepared.until(*EARLIER[part]), excludes_seen(run, prepared)
    past = _until_asked(earlier, prepared.parts[part], prepared.query_count) if run.split.cuts_in_time else earlier
    cases = EvaluationCases(
        case_ids=_ids(run, prepared, rows),
        relevant=relevant.take(rows),
        item_ids=prepared.items[ITEM_ID],
        item_counts=prepared.item_counts,
        activity=np.bincount(prepared.parts["train"].query_row, minlength=prepared.query_count)[rows].astype(np.int64),
        excluded=_excluded(run, known.take(rows), rows, seen=leaves_out_seen),
        known=known.take(rows) if run.query.entity == "user" and not leaves_out_seen else None,
        history="" if run.query.entity == "features" else history_at_evaluation(run.split),
    )
    now = None if earlier.timestamp is None else int(earlier.timestamp.max(initial=0))
    known_past = Past(past, prepared.query_count, now)
    queries, items = prepared.query_count, prepared.item_count
    return HeldOut(
        cases,
        rows,
        QueryCodes(encoded_by, known_past).now(rows),
        Histories(earlier, queries, items, encoders.shared_values(prepared.item_encoders, prepared.item_codes)),
        Histories(past, queries, items).take(rows),
        known_past.until_end(rows, 0),
        EARLIER[part],
        run.query.entity != "features",
    )


def questions(run: Run, prepared: Prepared, part: str) -> Questions:
    """Return the queries of a part that can be answered.

    Args:
        run: as for `held_out`.
        prepared: the data.
        part: `validation`, `test`, or `train`: every query entity with training items, in the order of its row and as
            it stands after all of training; none of its training items may be shown.
    """
    if part != "train":
        cases, codes = (held := held_out(run, prepared, part)).cases, held.codes
        rows = np.flatnonzero(cases.reachable.sizes > 0)
        excluded = RowSets.empty(len(rows)) if cases.excluded is None else cases.excluded.take(rows)
        codes = {name: of_case[rows] for name, of_case in codes.items()}
        return Questions(cases.case_ids.take(pa.array(rows)), codes, cases.reachable.take(rows), excluded)
    encoded_by, prepared = prepared, prepared.as_split or prepared
    positives = prepared.positives("train")
    rows = np.flatnonzero(positives.sizes > 0).astype(np.int32)
    relevant = positives.take(rows)
    codes = QueryCodes(encoded_by, Past(prepared.parts["train"], prepared.query_count)).now(rows)
    return Questions(_ids(run, prepared, rows), codes, relevant, _excluded(run, relevant, rows, seen=True))


def _until_asked(before: Interactions, asked: Interactions, queries: int) -> Interactions:
    """Return the interactions before each query entity's first held-out one: those of the same instant are not."""
    first = np.full(queries, np.iinfo(np.int64).max)
    np.minimum.at(first, asked.query_row, asked.timestamp)
    return before.take(before.timestamp < first[before.query_row])


def _ids(run: Run, prepared: Prepared, rows: Int32) -> pa.Array:
    if run.query.entity == "features":
        return pa.array(rows).cast(pa.string())
    return prepared.queries[QUERY_ID].combine_chunks().take(pa.array(rows))


def _excluded(run: Run, known: RowSets, rows: Int32, *, seen: bool) -> RowSets | None:
    """Return what may not be shown: known items where `seen` says so, and an item as its own neighbour."""
    owners, banned = [], []
    if seen:
        owners.append(known.owners)
        banned.append(known.rows)
    if run.query.entity == "item":
        owners.append(np.arange(len(rows)))
        banned.append(rows)
    if not owners:
        return None
    return RowSets.from_pairs(np.concatenate(owners), np.concatenate(banned), len(rows))
