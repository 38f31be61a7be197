"""A run file for some data, each choice with its reason in a comment."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import tomli_w

from recsys.config import ORDER_OBJECTIVE
from recsys.data.repeats import MIN_REPEAT_RATE, repeat_rate
from recsys.init.features import Proposal, propose_feature
from recsys.linear_models import MAX_INVERTED
from recsys.sources import ITEM_ID, QUERY_ID, TIMESTAMP, RawData
from recsys.types import Int64, Interactions

LINE = 100
QUERIES_ARE_ITEMS_RATE = 0.9
HALF_LIFE_DAYS = 60.0
ORDER_DIM = 64
"""Width of a transformer over histories, and length of the vectors that it makes."""
ORDER_TRAINING = {"optimizer": "adam", "learning_rate": 0.003, "batch_size": 32}
HISTORY_DROPOUT_RATE, UNKNOWN_RATE = 0.7, 0.2
"""For training in steps: shares of a history, and of the items' ids, that training hides."""


@dataclass(frozen=True)
class Facts:
    """What a run file follows from.

    Attributes:
        raw: the data.
        interaction_count: rows.
        query_count: distinct query entities.
        item_counts: `[items]`, int64, interactions of each item of the catalog.
        query_counts: `[rows of raw.queries]`, int64; None without such a table.
        repeat_rate: see `recsys.data.repeats.repeat_rate`.
        has_times: whether the interactions have times of which not all are equal.
        queries_are_items: whether the query entities are items.
        has_wide_features: whether the features of the items have more values than a closed form can explain items by.
    """

    raw: RawData
    interaction_count: int
    query_count: int
    item_counts: Int64
    query_counts: Int64 | None
    repeat_rate: float
    has_times: bool
    queries_are_items: bool
    has_wide_features: bool = False

    @property
    def item_count(self) -> int:
        """Items of the catalog."""
        return self.raw.items.num_rows

    @property
    def has_closed_form(self) -> bool:
        """Whether the data are small enough for a linear model in closed form."""
        return min(self.query_count, self.item_count) <= MAX_INVERTED and not self.has_wide_features


@dataclass(frozen=True)
class Section:
    """One table of a run file.

    Attributes:
        path: its heading; empty for the settings before the first heading.
        settings: its keys and values.
        reason: the comment above it; empty for none.
    """

    path: str
    settings: Mapping[str, Any]
    reason: str = ""


def facts_of(raw: RawData) -> Facts:
    """Read the interactions once and count."""
    wanted = (QUERY_ID, ITEM_ID, TIMESTAMP)
    batches = [batch.select([name for name in wanted if name in batch.schema.names]) for batch in raw.interactions()]
    met = pl.DataFrame(pa.Table.from_batches(batches))
    items = raw.items[ITEM_ID]
    return Facts(
        raw=raw,
        interaction_count=len(met),
        query_count=met[QUERY_ID].n_unique(),
        item_counts=_counts(met[ITEM_ID], items),
        query_counts=None if raw.queries is None else _counts(met[QUERY_ID], raw.queries[QUERY_ID]),
        repeat_rate=repeat_rate(_interactions(met)),
        has_times=TIMESTAMP in met.columns and met[TIMESTAMP].drop_nulls().n_unique() > 1,
        queries_are_items=raw.queries is None
        and _share_in(met[QUERY_ID].unique(), pl.Series(items)) >= QUERIES_ARE_ITEMS_RATE,
    )


def sections_of(
    facts: Facts,
    name: str,
    source: Mapping[str, Any],
    reasons: Mapping[str, str],
    *,
    reads_order: bool = False,
    found: str = "",
) -> list[Section]:
    """Return the tables of a run file for some data.

    Args:
        facts: what was counted.
        name: the run's name.
        source: the settings of the source, `kind` first.
        reasons: why those of them were chosen that nobody gave.
        reads_order: whether the model reads the order of the history, instead of a sum over it.
        found: a sentence on how that was decided; empty where nothing was compared.
    """
    table, counts = facts.raw.items, facts.item_counts
    items = {column: propose_feature(column, table[column], counts) for column in _columns(table)}
    queries: dict[str, Proposal] = {}
    if facts.raw.queries is not None:
        table = facts.raw.queries
        queries = {column: propose_feature(column, table[column], facts.query_counts) for column in _columns(table)}
    elif facts.queries_are_items:
        queries = items
    chosen = [f"{setting}: {reason}." for setting, reason in reasons.items()]
    return [
        Section("", {"name": name}, _summary(facts)),
        Section("source", source, " ".join(chosen)),
        *_query_side(facts, queries, _ordered_history() if reads_order else _history(facts), found),
        *_item_side(items, _ordered_id() if reads_order else _id(facts, items)),
        _split(facts),
        *(_ordered_model() if reads_order else _model(facts)),
        _evaluation(facts),
    ]


def render(sections: Sequence[Section]) -> str:
    """Return the run file as TOML with comments."""
    parts = []
    for section in sections:
        comment = (
            textwrap.fill(section.reason, LINE, initial_indent="# ", subsequent_indent="# ") if section.reason else ""
        )
        heading = f"[{section.path}]" if section.path else ""
        settings = tomli_w.dumps(section.settings).strip()
        parts.append("\n".join(part for part in (comment, heading, settings) if part))
    return "\n\n".join(parts) + "\n"


def _counts(ids: pl.Series, table: pa.ChunkedArray) -> Int64:
    """Return how often each id of a table occurs, `[rows of the table]`."""
    counted = ids.value_counts(name="count").rename({ids.name: "id"})
    rows = pl.DataFrame({"id": pl.Series(table)}).join(counted, on="id", how="left", maintain_order="left")
    return rows["count"].fill_null(0).to_numpy().astype(np.int64)


def _interactions(met: pl.DataFrame) -> Interactions:
    """Return interactions by the ranks of their ids, in the order of the rows."""
    query_row, item_row = (met[name].rank("dense").cast(pl.Int32).to_numpy() for name in (QUERY_ID, ITEM_ID))
    times = met[TIMESTAMP].cast(pl.Int64).to_numpy() if TIMESTAMP in met.columns else None
    return Interactions(query_row, item_row, times)


def _share_in(ids: pl.Series, known: pl.Series) -> float:
    return pl.DataFrame({"id": ids}).join(pl.DataFrame({"id": known}), on="id", how="semi").height / max(len(ids), 1)


def _columns(table: pa.Table) -> list[str]:
    return [name for name in table.column_names if name not in (ITEM_ID, QUERY_ID)]


def _summary(facts: Facts) -> str:
    queries, items = facts.query_count, facts.item_count
    text = f"{facts.interaction_count:,} interactions of {queries:,} query entities with {items:,} items"
    times = "with times" if facts.has_times else "without times"
    repeats = f"{facts.repeat_rate:.0%} of them repeat an earlier pair"
    return f"{text}, {times}; {repeats}. Written by `recsys init`: change what you know better."


def _features(side: str, proposals: Mapping[str, Proposal]) -> list[Section]:
    kept = {name: each for name, each in proposals.items() if each.settings is not None}
    return [Section(_path(side, name), each.settings or {}, f"{each.reason}.") for name, each in kept.items()]


def _left_out(proposals: Mapping[str, Proposal]) -> str:
    left = [f"{name} ({each.reason})" for name, each in proposals.items() if each.settings is None]
    return f"Left out: {'; '.join(left)}." if left else ""


def _path(side: str, name: str) -> str:
    return f"{side}.features.{name if re.fullmatch(r'[A-Za-z0-9_-]+', name) else json.dumps(name)}"


def _free_name(wanted: str, taken: Container[str]) -> str:
    numbered = (f"{wanted}_{number}" for number in count(2))
    return next(name for name in chain([wanted], numbered) if name not in taken)


def _query_side(
    facts: Facts, proposals: Mapping[str, Proposal], history: tuple[dict[str, Any], str], found: str
) -> list[Section]:
    entity = "item" if facts.queries_are_items else "user"
    what = "The query entities are items." if facts.queries_are_items else "The query entities are users or the like."
    settings, reason = history
    if facts.has_times and not found:
        found = "A model that reads their order may be better: `recsys init --compare` trains both and decides."
    return [
        Section("query", {"entity": entity}, f"{what} {_left_out(proposals)}".strip()),
        Section(_path("query", _free_name("met", proposals)), settings, f"{reason} {found}".strip()),
        *_features("query", proposals),
    ]


def _item_side(proposals: Mapping[str, Proposal], item_id: tuple[dict[str, Any], str]) -> list[Section]:
    settings, reason = item_id
    named = Section(_path("item", _free_name("id", proposals)), settings, f"{reason} {_left_out(proposals)}".strip())
    return [named, *_features("item", proposals)]


def _history(facts: Facts) -> tuple[dict[str, Any], str]:
    settings: dict[str, Any] = {"kind": "history", "shared": False, "pooling": "sum", "min_count": 0}
    if _repeats(facts) and facts.has_times:
        settings["half_life_days"] = HALF_LIFE_DAYS
    reason = "All items that the entity has met, in a table of their own."
    if not facts.has_closed_form:
        settings["dropout_rate"] = HISTORY_DROPOUT_RATE
        reason += " Training hides most of them, so that each learns to stand for the others."
    return settings, reason


def _id(facts: Facts, proposals: Mapping[str, Proposal]) -> tuple[dict[str, Any], str]:
    settings: dict[str, Any] = {"kind": "id"}
    reason = "What is particular to each item."
    if _features("item", proposals) and not facts.has_closed_form:
        settings["unknown_rate"] = UNKNOWN_RATE
        reason += " Training hides some ids, so that items that nobody has met are found by their features."
    return settings, reason


def _split(facts: Facts) -> Section:
    if facts.has_times:
        return Section("split", {"kind": "by_time"}, "There are times: the model is judged on what came last.")
    return Section("split", {"kind": "random"}, "There are no times: single pairs are held out at random.")


def _model(facts: Facts) -> list[Section]:
    size = f"{facts.query_count:,} query entities and {facts.item_count:,} items"
    if facts.has_closed_form:
        return [
            Section(
                "tower", {"kind": "sum", "dim": "auto"}, "The length of the vectors is chosen on validation cases."
            ),
            Section("objective", {"kind": "dlae"}, f"A linear model in closed form: {size} are few enough."),
        ]
    return [
        Section("tower", {"kind": "sum", "dim": 256}, "Sums of vectors, as in linear models."),
        Section("objective", {"kind": "all_items"}, f"Trained in steps: {size} are too many for a closed form."),
    ]


def _ordered_history() -> tuple[dict[str, Any], str]:
    settings = {"kind": "history", "pooling": "transformer", "shared": True, "width": ORDER_DIM}
    return settings, "The items that the entity has met, in their order, by the vectors that they are found by."


def _ordered_id() -> tuple[dict[str, Any], str]:
    return {"kind": "id", "width": ORDER_DIM}, "What is particular to each item."


def _ordered_model() -> list[Section]:
    return [
        Section("tower", {"kind": "sum", "dim": ORDER_DIM}, "As wide as the transformer."),
        Section("objective", ORDER_OBJECTIVE, "The next item against all others, at every place of a history."),
        Section("training", ORDER_TRAINING, "Small batches: a history counts as often as it has items."),
    ]


def _evaluation(facts: Facts) -> Section:
    if _repeats(facts):
        reason = "Entities come back to what they have met: repeats count, and are judged apart."
    else:
        reason = "Few interactions repeat an earlier one: what an entity has met is left out of its lists."
    return Section("evaluation", {"exclude_seen": not _repeats(facts)}, reason)


def _repeats(facts: Facts) -> bool:
    return facts.repeat_rate >= MIN_REPEAT_RATE
