"""The items that the query entity has met, pooled."""

from __future__ import annotations

from typing import Annotated, Literal

import pyarrow as pa
from pydantic import Field, NonNegativeFloat, model_validator

from recsys.features._history_encoder import HistoryEncoder
from recsys.features._vocabulary import Vocabulary
from recsys.registry import settings
from recsys.search_space import Between, OneOf
from recsys.spelling import Spelling
from recsys.types import HISTORY, Int64

DROPOUT_RATE = 0.65
"""Share of a history that training hides where the run file does not say."""


@settings()
class Transformer:
    """How the pooling `transformer` reads a history.

    Attributes:
        blocks: how many stand one on the other.
        heads: of the attention; they divide the width of the history.
        positions: meetings that it reads, the newest ones; `length` may name fewer.
        time_gaps: read the time between a meeting and the one before it.
        dropout_rate: share (0..1) of its inputs, attention weights and outputs of layers that training drops.
    """

    blocks: int = Field(default=2, ge=1, le=16)
    heads: int = Field(default=1, ge=1)
    positions: int = Field(default=100, ge=1, le=10_000)
    time_gaps: bool = True
    dropout_rate: float = Field(default=0.2, ge=0, lt=1)


@settings()
class History:
    """The items met before, newest first: all of them, or those of the last `length` interactions.

    An item that was met several times is one entry, whose weight says how often and how long ago. The pooling
    `transformer` reads order instead: each meeting is an entry of its own, and the last `transformer.positions` count.
    It needs a source with times. Trained on whole histories, it learns at each position to find what was met next.

    In training on single interactions, only those strictly earlier than the example's own count, so that a basket never
    sees itself; where the source has no times, history is a random draw of the entity's other training items. Training
    on whole histories takes all training items of an entity.

    Attributes:
        length: interactions that count; 0 means all.
        pooling: how the items' vectors become one, each times its weight; `transformer`: the output of a causal
            transformer at the newest one (SASRec).
        transformer: how the pooling `transformer` reads them.
        weights: `log_count`: log2(1 + count), 1 for an item that was met once; `count`; `none`: 1 for each item.
        half_life_days: days after which a meeting counts half; 0 means that its age does not matter. An age is counted
            to the example's own time, and for known entities to the last interaction of the data.
        shared: read the item side's `id` table, so that what an item means in a history and what it is found by are
            one vector. Otherwise the history has a table of its own. Left out: only with the pooling `transformer`.
        dropout_rate: share (0..1) of a history's items that training hides. Left out: 0.65, and 0 with the pooling
            `transformer`, which has one of its own. Closed forms do not read it.
        width: length of the vector; where `shared`, that of the item side's `id` feature.
        min_count: training interactions that an item needs to get a vector of its own; with 0 all of the catalog have
            one; from there as well.
        oov_buckets: vectors that the other items share by hash; from there as well.
    """

    length: int = Field(default=0, ge=0)
    pooling: Literal["mean", "sum", "sqrt", "transformer"] = "sum"
    transformer: Transformer = Field(default_factory=Transformer)
    weights: Literal["none", "count", "log_count"] = "log_count"
    half_life_days: Annotated[NonNegativeFloat, OneOf((0.0, 7.0, 30.0, 90.0, 365.0), needs_times=True)] = 0.0
    shared: bool | None = None
    dropout_rate: Annotated[float | None, Between(0.0, 0.9, in_steps=True)] = Field(default=None, ge=0, lt=1)
    width: int = Field(default=32, ge=1)
    min_count: int = Field(default=0, ge=0)
    oov_buckets: int = Field(default=1, ge=1)

    @property
    def merges_repeats(self) -> bool:
        """Whether several meetings with an item are one entry."""
        return not self.reads_order

    @property
    def reads_order(self) -> bool:
        """Whether the order of the items counts."""
        return self.pooling == "transformer"

    @property
    def shares_table(self) -> bool:
        """Whether it reads the item side's `id` table."""
        return self.reads_order if self.shared is None else self.shared

    @property
    def hidden_rate(self) -> float:
        """Share (0..1) of a history's items that training hides."""
        return DROPOUT_RATE if self.dropout_rate is None and not self.reads_order else self.dropout_rate or 0.0

    @property
    def places(self) -> int:
        """Meetings that count, the newest ones; 0 means all."""
        if not self.reads_order:
            return self.length
        return min(self.length, self.transformer.positions) if self.length else self.transformer.positions

    @model_validator(mode="after")
    def _transformer_alone(self) -> History:
        if self.reads_order:
            for name in ("dropout_rate", "half_life_days"):
                if getattr(self, name):
                    raise ValueError(
                        f"{name} = 0 with pooling 'transformer', which has transformer.dropout_rate and ages"
                    )
            if self.width % self.transformer.heads:
                raise ValueError(f"a width ({self.width}) that transformer.heads ({self.transformer.heads}) divides")
        return self

    @property
    def column(self) -> str:
        """The name under which requests and releases carry it."""
        return HISTORY

    def fit(self, values: pa.ChunkedArray, frequency: Int64) -> HistoryEncoder:
        """Learn which items occur in at least `min_count` training interactions.

        Args:
            values: the item ids of the catalogue, `[items]`.
            frequency: `[items]`, int64, training interactions of each item.
        """
        spelling = Spelling(self.column)
        vocabulary = Vocabulary.fit(spelling.spell_column(values), frequency, self.min_count, self.oov_buckets)
        return HistoryEncoder(self, spelling, vocabulary, self.places, self.hidden_rate)

    def restore(self, state: pa.Table) -> HistoryEncoder:
        """Return the encoder that `fit` made."""
        spelling = Spelling.restore(self.column, state)
        return HistoryEncoder(
            self, spelling, Vocabulary.restore(state, self.oov_buckets), self.places, self.hidden_rate
        )
