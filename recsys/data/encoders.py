"""Fit, apply, save and load the features of both sides."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.feather as feather
from numpy.typing import NDArray

from recsys import registry
from recsys.config import Run
from recsys.documents import parse_json
from recsys.errors import DataError
from recsys.features import Encoder
from recsys.features._lookup import BagEncoder
from recsys.features._vocabulary import MISSING, PADDING, Ragged, widened
from recsys.forward import unpacked
from recsys.types import ITEM_ID, QUERY_ID, Float32, Int64
from twintower.errors import unknown

T = TypeVar("T")


def fit_items(run: Run, items: pa.Table, frequency: Int64) -> dict[str, Encoder]:
    """Return the fitted features of the item side.

    Args:
        run: names the features.
        items: the catalogue, raw.
        frequency: `[items]`, int64, training interactions of each item.

    Raises:
        DataError: a column is missing or of the wrong type.
    """
    return {name: _fit(feature, name, "item", items, frequency) for name, feature in run.item.features.items()}


def fit_queries(
    run: Run, queries: pa.Table, frequency: Int64, items: pa.Table, item_frequency: Int64
) -> dict[str, Encoder]:
    """Return the fitted features of the query side.

    Args:
        run: names the features.
        queries: the query entities, raw.
        frequency: `[queries]`, int64, training interactions of each query entity.
        items: the catalogue, which a history refers to.
        item_frequency: `[items]`, int64, training interactions of each item.

    Raises:
        DataError: a column is missing or of the wrong type.
    """
    fitted = {}
    for name, feature in run.query_features.items():
        if registry.kind_of(feature) == "history":
            fitted[name] = _as_wide_as_item_ids(run, feature).fit(items[ITEM_ID], item_frequency)
        else:
            fitted[name] = _fit(feature, name, "query", queries, frequency)
    return fitted


def encode(encoders: Mapping[str, Encoder], table: pa.Table, side: str) -> dict[str, np.ndarray]:
    """Return the codes of a raw table, `[rows, *shape]` each; history is left out, it depends on time."""
    return {
        name: _naming(side, name, encoder.encode, table[raw_column(encoder.settings, name, side)])
        for name, encoder in encoders.items()
        if not is_history(encoder)
    }


def shared_values(encoders: Mapping[str, Encoder], codes: Mapping[str, np.ndarray]) -> dict[str, NDArray[np.int32]]:
    """Return the codes whose values several rows can share: those of ids, which none shares, and numbers are left out.

    Args:
        encoders: of one side.
        codes: of its rows, `[rows, *shape]` each.
    """
    ids = ids_of(encoders)
    return {name: each for name, each in codes.items() if name not in ids and each.dtype != np.float32}


def encode_rows(encoder: Encoder, values: pa.Array) -> np.ndarray | Ragged:
    """Return the codes of many rows, to be indexed by them, in as little memory as the encoder can."""
    return encoder.encode_rows(values) if isinstance(encoder, BagEncoder) else encoder.encode(values)


def longest_bags(codes: Mapping[str, np.ndarray | Ragged], rows: int) -> Int64:
    """Return the length of each row's longest bag, `[rows]`, int64; bags that `encode_rows` has padded do not count."""
    lengths = [each.lengths for each in codes.values() if isinstance(each, Ragged)]
    return np.max([np.zeros(rows, np.int64), *lengths], axis=0)


def stacked(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Return the codes of several batches as one, `[rows, *shape]`, bags padded to the widest."""
    if parts[0].ndim > 1:
        width = max(part.shape[1] for part in parts)
        parts = [widened(part, width) for part in parts]
    return np.concatenate(parts)


def replaced(codes: np.ndarray, rows: Int64, others: np.ndarray) -> np.ndarray:
    """Return codes, `[batch, *shape]`, with those of some rows replaced, bags padded to the wider of the two."""
    if codes.ndim > 1:
        width = max(codes.shape[1], others.shape[1])
        codes, others = widened(codes, width), widened(others, width)
    codes[rows] = others
    return codes


def only_histories(encoders: Mapping[str, Encoder], histories: Sequence[Sequence[str]]) -> dict[str, np.ndarray]:
    """Return the codes of queries that say nothing but what they have met, `[len(histories), *shape]` each.

    Args:
        encoders: of the query side.
        histories: item ids of each query, newest first.
    """
    return {
        name: encoder.encode_values(list(histories) if is_history(encoder) else [None] * len(histories))
        for name, encoder in encoders.items()
    }


def extended(encoder: Encoder, codes: np.ndarray, added: Sequence[Sequence[str]]) -> np.ndarray:
    """Return histories with further items, which come first, as met just now; what a history holds already is left out.

    Args:
        encoder: of the history.
        codes: of the histories, `[batch, *shape]`.
        added: item ids for each of them, newest first.
    """
    rows = []
    for own, item_ids in zip(codes, added, strict=True):
        (new,) = encoder.encode_values([list(item_ids)])
        value, of_new = (each if each.ndim == 1 else each[:, 0] for each in (own, new))
        kept = own[value > MISSING]
        rows.append(np.concatenate([new[(of_new > MISSING) & ~np.isin(of_new, value)], kept]))
    width = encoder.places or max(1, *map(len, rows))
    padded = np.full((len(rows), width, *codes.shape[2:]), PADDING, np.int32)
    for place, row in enumerate(rows):
        padded[place, : len(row)] = row[:width]
    return padded


def evidence(encoders: Mapping[str, Encoder], codes: Mapping[str, np.ndarray], raw_lengths: Float32) -> Float32:
    """Return the lengths that queries would have if their histories were sums, `[batch]`, float32.

    One more item moves a mean of n items by 1 / n of what it moves a sum: so much more the query weighs against it.

    Args:
        encoders: of the query side.
        codes: of the queries.
        raw_lengths: of the query tower's vectors before they are brought to unit length, `[batch]`.
    """
    for name in filter(lambda each: is_history(encoders[each]), encoders):
        values, weights, _ = unpacked(codes[name])
        counted = np.where(values > MISSING, weights, np.float32(0))
        pooling = encoders[name].settings.pooling
        if pooling != "sum":
            total = np.sqrt(np.square(counted).sum(axis=1)) if pooling == "sqrt" else counted.sum(axis=1)
            return raw_lengths * np.where(total > 0, total, np.float32(1))
    return raw_lengths


def in_histories(encoders: Mapping[str, Encoder], item_ids: Sequence[str]) -> NDArray[np.bool_]:
    """Return which items have a vector of their own in a history of the query side, `[items]`.

    Without Arrow, whose allocator keeps some megabytes for each thread of a server that has used it.
    """
    own = np.zeros(len(item_ids), bool)
    for encoder in filter(is_history, encoders.values()):
        codes = encoder.vocabulary.codes_of(map(encoder.spelling.spell, item_ids))
        own |= np.array(codes) >= encoder.vocabulary.reserved
    return own


def ids_of(encoders: Mapping[str, Encoder]) -> frozenset[str]:
    """Return the features that are ids."""
    return frozenset(name for name, each in encoders.items() if registry.kind_of(each.settings) == "id")


def bags_of(encoders: Mapping[str, Encoder]) -> frozenset[str]:
    """Return the features whose codes are several values a row."""
    return frozenset(name for name, each in encoders.items() if each.dtype == np.int32 and len(each.shape) == 1)


def save(encoders: Mapping[str, Encoder], folder: Path) -> None:
    """Write what each encoder learned, with its name and settings: one Arrow file a feature, no pickle.

    Files are called by the position of the feature: a column's name need not be a name that a file can have.
    """
    folder.mkdir(parents=True)
    for position, (name, encoder) in enumerate(sorted(encoders.items())):
        state = encoder.state()
        described = {b"name": name, b"settings": json.dumps(registry.table_of(encoder.settings))}
        state = state.replace_schema_metadata({**(state.schema.metadata or {}), **described})
        feather.write_feather(state, folder / f"{position:04}.arrow", compression="zstd")


def load(folder: Path) -> dict[str, Encoder]:
    """Return the encoders that `save` wrote, by name in alphabetical order."""
    loaded = {}
    for file in sorted(folder.glob("*.arrow")):
        state = feather.read_table(file, memory_map=False)
        name, table = (state.schema.metadata[key] for key in (b"name", b"settings"))
        loaded[name.decode()] = registry.build("features", parse_json(table, str(file)), name.decode()).restore(state)
    return loaded


def raw_column(feature: Any, name: str, side: str) -> str:
    """Return the name of the raw column that a feature reads."""
    if feature.column:
        return feature.column
    if registry.kind_of(feature) == "id":
        return ITEM_ID if side == "item" else QUERY_ID
    return name


def table_key(run: Run, side: str, name: str) -> str:
    """Return the name of a feature's embedding table; equal names mean a shared table.

    A history reads the item ids' table where it says so. In an item-to-item run with `training.share_tables`, a feature
    that stands on both sides with equal settings has one table, unless a closed form gives each side its own.
    """
    if side == "query":
        feature = run.query_features[name]
        if is_history_feature(feature):
            id_feature = _item_id_feature(run) if feature.shares_table else None
            return f"query/{name}" if id_feature is None else f"item/{id_feature}"
        shared = run.query.entity == "item" and run.training.share_tables
        is_solved = run.objective.reads == "matrix" or getattr(run.objective, "start", "")
        if shared and not is_solved and run.item.features.get(name) == feature:
            return f"item/{name}"
    return f"{side}/{name}"


def is_history(encoder: Encoder) -> bool:
    """Tell whether an encoder reads the query entity's past rather than a column."""
    return is_history_feature(encoder.settings)


def is_id(encoder: Encoder) -> bool:
    """Tell whether an encoder reads the id of the row itself."""
    return registry.kind_of(encoder.settings) == "id"


def is_history_feature(feature: Any) -> bool:
    """Tell whether a feature reads the query entity's past rather than a column."""
    return registry.kind_of(feature) == "history"


def reads_order(feature: Any) -> bool:
    """Tell whether a feature is a history whose order counts."""
    return is_history_feature(feature) and feature.reads_order


def _fit(feature: Any, name: str, side: str, table: pa.Table, frequency: Int64) -> Encoder:
    column = raw_column(feature, name, side)
    if column not in table.column_names:
        raise DataError(f"{side}.features.{name}: {unknown('column', column, table.column_names)}")
    settled = registry.parse(type(feature), {**registry.plain(feature), "column": column}, name)
    return _naming(side, name, settled.fit, table[column], frequency)


def _naming(side: str, name: str, work: Callable[..., T], *arguments: Any) -> T:
    try:
        return work(*arguments)
    except DataError as error:
        raise DataError(f"{side}.features.{name}: {error}") from None


def _item_id_feature(run: Run) -> str | None:
    return next((name for name, feature in run.item.features.items() if registry.kind_of(feature) == "id"), None)


def _as_wide_as_item_ids(run: Run, history: Any) -> Any:
    """Return the history with the settings of the item side's `id` feature, where it reads that one's table."""
    name = _item_id_feature(run)
    if name is None or not history.shares_table:
        return history
    shared = run.item.features[name]
    taken = {"width": shared.width, "min_count": shared.min_count, "oov_buckets": shared.oov_buckets}
    return registry.parse(type(history), {**registry.plain(history), **taken}, name)
