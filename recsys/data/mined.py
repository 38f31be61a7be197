"""First results of many queries in one file: what a reformulator is trained and judged on.

The file stands between `recsys mine`, which needs an index, and training, which an index is made by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pyarrow as pa

from recsys.errors import DataError, ShapeError
from recsys.files import sha256, write_atomically
from recsys.types import NO_ROW, Float32, Int32, Int64, Neighbours, RowSets
from twintower.errors import describe, verbatim
from twintower.types import FeedbackKind

COLUMNS = ("case_id", "query_vector", "query_length", "item_rows", "scores", "relevant", "excluded")
CHECKSUM = "sha256"
"""Stands beside the facts in the file, over everything in it."""


@dataclass(frozen=True)
class Mined:
    """Queries, what a first search found for them, and what would have been right.

    Attributes:
        case_ids: `[queries]`, text.
        query_vectors: `[queries, dim]`, float32, finite.
        query_lengths: `[queries]`, float32, > 0: how much each query weighs against an item that it meets.
        first: best first, as the index gave them, without excluded items.
        relevant: item rows that answer each query; at least one each.
        excluded: item rows that may not be shown, such as those the asker has seen.
        facts: where it comes from, such as the release's fingerprint; text by name.
    """

    case_ids: pa.Array
    query_vectors: Float32
    query_lengths: Float32
    first: Neighbours
    relevant: RowSets
    excluded: RowSets
    facts: Mapping[str, str]

    def __post_init__(self) -> None:
        counts = {len(self.case_ids), len(self.query_vectors), len(self.query_lengths), len(self.first.item_rows)}
        counts |= {len(self.relevant), len(self.excluded)}
        if len(counts) > 1:
            raise ShapeError(describe("mined", sorted(counts), "as many of everything as queries"))

    def __len__(self) -> int:
        return len(self.query_vectors)

    def take(self, places: Int64) -> Mined:
        """Return some of the queries."""
        return replace(
            self,
            case_ids=self.case_ids.take(pa.array(places)),
            query_vectors=self.query_vectors[places],
            query_lengths=self.query_lengths[places],
            first=Neighbours(self.first.item_rows[places], self.first.scores[places]),
            relevant=self.relevant.take(places),
            excluded=self.excluded.take(places),
        )

    def folds(self, count: int, seed: int) -> tuple[tuple[Mined, Mined], ...]:
        """Return several ways to divide the queries: most of them to learn from, and the others to judge with.

        Each query is once among the others, in the old order.

        Args:
            count: the number of ways; at most one for each query.
            seed: of the draw.

        Raises:
            DataError: fewer than two queries.
        """
        if len(self) < 2:
            raise DataError(describe("mined", verbatim(f"{len(self)} queries"), "at least 2, to learn and to judge"))
        fold = np.random.default_rng([seed, 11]).permutation(len(self)) % min(count, len(self))
        return tuple(
            (self.take(np.flatnonzero(fold != part)), self.take(np.flatnonzero(fold == part)))
            for part in range(fold.max() + 1)
        )

    def fits(self, items: int) -> bool:
        """Return whether there are queries, all finite and with an answer, and only rows of a catalogue of `items`."""
        lowest = ((self.first.item_rows, NO_ROW), (self.relevant.rows, 0), (self.excluded.rows, 0))
        return (
            len(self) > 0
            and bool(np.isfinite(self.query_vectors).all())
            and bool((np.isfinite(self.query_lengths) & (self.query_lengths > 0)).all())
            and bool(self.relevant.sizes.all())
            and all(((rows >= low) & (rows < items)).all() for rows, low in lowest)
        )

    def likeable(self, query: int, random: np.random.Generator) -> Int32:
        """Return half of a query's relevant items, rounded down: the others are left to find."""
        relevant = self.relevant[query]
        return random.permutation(relevant)[: len(relevant) // 2]

    def explicit(
        self, query: int, likeable: Int32, most: int, disliked_rate: float, random: np.random.Generator
    ) -> tuple[Int32, Int64]:
        """Return rows and kinds of what somebody may say of a query, in random order.

        Args:
            query: its place.
            likeable: relevant items that may be liked.
            most: items, at most.
            disliked_rate: share (0..1) of them that are wrong first results, as far as there are any.
            random: of the draws.
        """
        found = self.first.item_rows[query]
        wrong = found[(found != NO_ROW) & ~np.isin(found, self.relevant[query])]
        disliked = random.permutation(wrong)[: random.binomial(min(most, len(wrong)), disliked_rate)]
        liked = random.permutation(likeable)[: most - len(disliked)]
        rows = np.concatenate([liked, disliked])
        kinds = np.repeat([FeedbackKind.LIKED, FeedbackKind.DISLIKED], [len(liked), len(disliked)])
        order = random.permutation(len(rows))
        return rows[order], kinds[order]

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all.

        Raises:
            StorageError: writing failed; nothing is left behind.
        """
        sink = pa.BufferOutputStream()
        table = self._table()
        with pa.ipc.new_file(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression="zstd")) as writer:
            writer.write_table(table)
        write_atomically(path, sink.getvalue().to_pybytes())

    @classmethod
    def read(cls, path: Path) -> Mined:
        """Read what `write` wrote.

        Raises:
            DataError: there is no such file, it holds something else, or it is damaged.
        """
        try:
            with pa.memory_map(str(path)) as source:
                table = pa.ipc.open_file(source).read_all()
            table.validate(full=True)  # offsets that lead out of their column would be followed
            columns = {name: table[name].combine_chunks() for name in COLUMNS}
            facts = {key.decode(): value.decode() for key, value in (table.schema.metadata or {}).items()}
            dim = columns["query_vector"].type.list_size
            vectors = columns["query_vector"].flatten().to_numpy().reshape(-1, dim)
            lengths = columns["query_length"].to_numpy()
            first = Neighbours(*(_matrix(columns[name]) for name in ("item_rows", "scores")))
            sets = (_sets(columns[name]) for name in ("relevant", "excluded"))
            checksum = facts.pop(CHECKSUM, "")
            mined = cls(columns["case_id"], vectors, lengths, first, *sets, facts)
            whole = mined._checksum() == checksum
        except (OSError, pa.ArrowException, KeyError, ValueError, TypeError, AttributeError) as error:
            advice = "Write it with `recsys mine`."
            raise DataError(describe(str(path), verbatim(str(error)), "a file of mined feedback", advice)) from None
        if not whole:
            got = verbatim("another checksum than its content has")
            rule = "mined feedback as it was written"
            raise DataError(describe(str(path), got, rule, "Mine again with `recsys mine`."))
        return mined

    def _table(self) -> pa.Table:
        columns = (
            self.case_ids,
            _fixed(self.query_vectors),
            pa.array(self.query_lengths),
            _fixed(self.first.item_rows),
            _fixed(self.first.scores),
            _lists(self.relevant),
            _lists(self.excluded),
        )
        told = {**self.facts, CHECKSUM: self._checksum()}
        return pa.table(dict(zip(COLUMNS, columns, strict=True))).replace_schema_metadata(told)

    def _checksum(self) -> str:
        arrays = [self.query_vectors, self.query_lengths, self.first.item_rows, self.first.scores]
        arrays += [array for sets in (self.relevant, self.excluded) for array in (sets.offsets, sets.rows)]
        content = [dict(self.facts), self.case_ids.to_pylist(), [sha256(array) for array in arrays]]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_if_whole(path: Path) -> Mined | None:
    """Return what an earlier call wrote; None where there is no such file, or one that has to be written again."""
    try:
        return Mined.read(path)
    except DataError:
        return None


def joined(parts: list[Mined]) -> Mined:
    """Return the queries of several parts, in their order.

    Args:
        parts: at least one; all with the same facts and places.
    """
    return replace(
        parts[0],
        case_ids=pa.concat_arrays([part.case_ids for part in parts]),
        query_vectors=np.concatenate([part.query_vectors for part in parts]),
        query_lengths=np.concatenate([part.query_lengths for part in parts]),
        first=Neighbours(
            np.concatenate([part.first.item_rows for part in parts]),
            np.concatenate([part.first.scores for part in parts]),
        ),
        relevant=_joined_sets([part.relevant for part in parts]),
        excluded=_joined_sets([part.excluded for part in parts]),
    )


def _fixed(matrix: np.ndarray) -> pa.FixedSizeListArray:
    return pa.FixedSizeListArray.from_arrays(pa.array(np.ascontiguousarray(matrix).ravel()), matrix.shape[1])


def _matrix(column: pa.FixedSizeListArray) -> np.ndarray:
    return column.flatten().to_numpy().reshape(-1, column.type.list_size)


def _lists(sets: RowSets) -> pa.LargeListArray:
    return pa.LargeListArray.from_arrays(pa.array(sets.offsets), pa.array(sets.rows))


def _sets(column: pa.LargeListArray) -> RowSets:
    offsets = column.offsets.to_numpy()
    return RowSets(offsets - offsets[0], column.flatten().to_numpy())


def _joined_sets(sets: list[RowSets]) -> RowSets:
    sizes = np.concatenate([each.sizes for each in sets])
    return RowSets(np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64), np.concatenate([s.rows for s in sets]))
