"""The encoder of a history: meetings with items in, weighted entries out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from recsys.features._lookup import BagEncoder
from recsys.features._vocabulary import MISSING, Ragged, pad
from recsys.forward import packed
from recsys.spelling import flat, is_list
from recsys.types import AGE_DAYS, ITEM_ID, UNKNOWN_AGE, Float32, Int32, Int64

if TYPE_CHECKING:
    from recsys.layers import FeatureLayer, Tables

MAX_HALF_LIVES = 10.0
"""Half-lives after which a meeting counts no less: a weight of 1/1024, so that no history fades to nothing."""


class Meeting(NamedTuple):
    """One item of a history.

    Attributes:
        item_id: the item.
        age_days: days since it was met, >= 0, or `UNKNOWN_AGE`.
    """

    item_id: str
    age_days: float = UNKNOWN_AGE


class Entries(NamedTuple):
    """The distinct values of several owners, each owner's in the order in which it met them last, newest first.

    Attributes:
        owner: `[entries]`, int64, ascending.
        value: `[entries]`, int32.
        weight: `[entries]`, float32, > 0.
        age_days: `[entries]`, float32, of the newest meeting.
    """

    owner: Int64
    value: Int32
    weight: Float32
    age_days: Float32


class Weighing(Protocol):
    """How much meetings count, as settings of a history or of an entity's own items say.

    Attributes:
        weights: `none`, `count` or `log_count`; see `entries_of`.
        half_life_days: days after which a meeting counts half; 0 means that its age does not matter.
        merges_repeats: whether several meetings with an item are one entry; otherwise each is one.
    """

    @property
    def weights(self) -> str: ...

    @property
    def half_life_days(self) -> float: ...

    @property
    def merges_repeats(self) -> bool: ...


def entries_of(weighing: Weighing, owner: Int64, value: Int32, age_days: Float32) -> Entries:
    """Return meetings as weighted entries.

    `none`: `decay(newest)`; `count`: `sum_m( decay(m) )`; `log_count`: `log2( 1 + sum_m( decay(m) ) )`

    over the meetings m of a value, with `decay(m) = 2^( -age_days(m) / half_life_days )`, or 1 without a half-life

    Args:
        weighing: how much they count.
        owner: `[meetings]`, int64, ascending: whose meeting it is.
        value: `[meetings]`, int32, >= 0: what was met; newest first within an owner.
        age_days: `[meetings]`, float32, >= 0, or `UNKNOWN_AGE`.
    """
    decay = np.ones(len(value))
    if weighing.half_life_days:
        decay = np.exp2(-np.clip(age_days.astype(np.float64) / weighing.half_life_days, 0, MAX_HALF_LIVES))
    if not weighing.merges_repeats or len(value) == 0:
        return Entries(owner, value, decay.astype(np.float32), age_days)
    keys = owner * (int(value.max()) + 1) + value
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=-1))
    newest = order[starts]  # the sort is stable, so that the first of equal ones is the newest
    if weighing.weights == "none":
        weight = decay[newest]
    else:
        weight = np.add.reduceat(decay[order], starts)
        if weighing.weights == "log_count":
            weight = np.log1p(weight) / np.log(2)
    arranged = np.argsort(newest)
    kept = newest[arranged]
    return Entries(owner[kept], value[kept], weight[arranged].astype(np.float32), age_days[kept])


@dataclass(frozen=True)
class HistoryEncoder(BagEncoder):
    """Codes are `[entries, 3]`, int32: code, weight and age of each entry (`recsys.forward.packed`), padded with -1.

    A value is a list of item ids, or of `Meeting`, newest first. An empty history is one 0 ('missing') of weight 1.
    """

    @property
    def shape(self) -> tuple[int | None, ...]:
        """Shape of one row's codes."""
        return (self.places or None, 3)

    def encode(self, values: pa.Array) -> Int32:
        """Return `[batch, entries, 3]`, int32."""
        return self.padded(*self._of_column(values))

    def encode_rows(self, values: pa.Array) -> Ragged:
        """Return the codes of many rows, to be indexed by them, without padding."""
        return Ragged(*self.entries(*self._of_column(values)))

    def encode_values(self, values: Sequence[Any]) -> Int32:
        """Return `[len(values), entries, 3]`, int32."""
        lengths, codes, ages = [], [], []
        for value in values:
            meetings = [each for each in value if type(each) is Meeting] if type(value) in (list, tuple) else ()
            texts = self.spelling.spell_list([each.item_id for each in meetings] if meetings else value)
            lengths.append(len(texts))
            codes += self.vocabulary.codes_of(texts)
            ages += [each.age_days for each in meetings] or [UNKNOWN_AGE] * len(texts)
        counted = np.array(lengths, np.int64)
        return self.padded(counted, np.array(codes, np.int32), np.array(ages, np.float32))

    def entries(self, lengths: Int64, codes: Int32, age_days: Float32) -> tuple[Int64, Int32]:
        """Return how many entries each history has, `[histories]`, at least 1, and all of them, `[entries, 3]`.

        Args:
            lengths: `[histories]`, int64, meetings of each.
            codes: `[sum(lengths)]`, int32, newest first.
            age_days: `[sum(lengths)]`, float32.
        """
        owner = np.repeat(np.arange(len(lengths)), lengths)
        if self.places:
            starts = np.cumsum(lengths) - lengths
            counts = np.arange(len(codes)) - starts[owner] < self.places
            owner, codes, age_days = owner[counts], codes[counts], age_days[counts]
        found = entries_of(self.settings, owner, codes, age_days)
        sizes = np.bincount(found.owner, minlength=len(lengths))
        rows = packed(found.value, found.weight, found.age_days)
        empty = np.flatnonzero(sizes == 0)
        if len(empty):
            nothing = packed(np.full(1, MISSING, np.int32), np.ones(1, np.float32), np.zeros(1, np.float32))
            rows = np.insert(rows, (np.cumsum(sizes) - sizes)[empty], nothing, axis=0)
            sizes[empty] = 1
        return sizes, rows

    def padded(self, lengths: Int64, codes: Int32, age_days: Float32) -> Int32:
        """Return `[histories, entries, 3]`, int32; arguments as for `entries`."""
        sizes, rows = self.entries(lengths, codes, age_days)
        return pad(sizes, rows, self.places or max(1, int(sizes.max(initial=0))))

    def _of_column(self, values: pa.Array) -> tuple[Int64, Int32, Float32]:
        """Return lengths, codes and ages of a column of lists of ids, or of meetings as structs."""
        array = flat(values)
        if is_list(array.type) and pa.types.is_struct(array.type.value_type):
            meetings = pc.list_flatten(array)
            lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
            ages = meetings.field(AGE_DAYS).to_numpy(zero_copy_only=False).astype(np.float32)
            return lengths, self.vocabulary.codes(self.spelling.spell_column(meetings.field(ITEM_ID))), ages
        lengths, spelled = self.spelling.spell_lists(array)
        codes = self.vocabulary.codes(spelled)
        return lengths, codes, np.full(len(codes), UNKNOWN_AGE, np.float32)

    def build(self, name: str, key: str, tables: Tables) -> FeatureLayer:
        """Return a pooled table look-up or a transformer, `[batch, entries, 3] -> [batch, width]`."""
        from recsys.layers import HistoryLookup
        from recsys.transformer import HistoryTransformer

        table = tables.get(key, self.vocabulary.size, self.settings.width, self.vocabulary.reserved)
        if self.settings.reads_order:
            made = self.settings.transformer
            return HistoryTransformer(
                table,
                blocks=made.blocks,
                heads=made.heads,
                positions=self.places,
                dropout_rate=made.dropout_rate,
                time_gaps=made.time_gaps,
                name=name,
            )
        return HistoryLookup(table, self.settings.pooling, name=name, dropout_rate=self.dropout_rate)
