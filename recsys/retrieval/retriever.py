"""Open a release and answer queries from it."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from recsys import registry
from recsys.cancellation import checked, checkpoint
from recsys.data import encoders
from recsys.errors import ReleaseError
from recsys.export import known_queries, query_side
from recsys.export.known_queries import KnownQueries
from recsys.export.own_items import OWN, OwnItems, OwnWeights
from recsys.export.query_side import QuerySide
from recsys.export.release import Release, open_release, parts_of
from recsys.export.run_file import read_served
from recsys.export.saved_model import QUERY_TOWER, load_tower
from recsys.export.seen import SeenItems
from recsys.features import Encoder
from recsys.features._history_encoder import Meeting
from recsys.indexes import UNUSABLE, ExactSearcher, Searcher, first_unusable
from recsys.reformulators import unit
from recsys.retrieval.coding import coded
from recsys.retrieval.exclusion import NOTHING, NOTHING_EXCLUDED, Excluded, search_excluding
from recsys.retrieval.filtering import ITEM_BYTES, Allowed, ItemFilters
from recsys.retrieval.merging import first_kept
from recsys.retrieval.narrowed import PLANNER, Found, Narrow, NarrowedSearch, Planner, fused
from recsys.retrieval.plain_rows import plain_rows
from recsys.retrieval.reformulation import Reformulators, feedback_of
from recsys.spelling import as_python, is_missing
from recsys.stages import stage
from recsys.types import (
    HISTORY,
    ITEM_ID,
    NO_ROW,
    QUERY_ID,
    TRAINING_COUNT,
    UNKNOWN_AGE,
    Feedback,
    Float32,
    Int32,
    Int64,
    ItemRoles,
    Neighbours,
    RowSets,
    is_among,
)
from twintower.errors import RequestError, SettingError, describe, unknown, verbatim
from twintower.types import (
    NO_DIVERSITY,
    Diversity,
    Exclusions,
    Explanation,
    FeedbackItem,
    FeedbackKind,
    FilterType,
    Origin,
    Query,
    Repeats,
    SearchPlan,
)

GOLDEN_TOLERANCE = 1e-4
"""Largest accepted difference of one coordinate of a golden vector, unitless: other processors round differently."""
PART_QUERIES, MOST_QUERIES = 16, 64
PART_PLACES = 2**10
PART_FILTER_BYTES = 2**25
"""A batch is answered in parts: so many queries at least and at most, so many results, and what their filters may take.

All of them bound the memory of a batch and the time between two checkpoints.
"""
MET = (FeedbackKind.LIKED, FeedbackKind.CLICKED)
"""Feedback that counts as having met an item."""
TOWER_ROWS = 256
METADATA_ROWS = 256
"""Rows that go through the query tower, or become display columns, between two checkpoints."""
TOWER_ENTRIES = 2**16
"""Entries of histories, padded to the longest, that go through the query tower together: 0.8 MB of codes."""


@dataclass(frozen=True)
class Encoding:
    """Query vectors.

    Attributes:
        vectors: `[batch, dim]`, float32; zeros where the origin is `POPULARITY`.
        origins: what each was made from.
        missing_ids: for each query, the ids in it that the release does not know, in the request's order.
        lengths: `[batch]`, float32, > 0: how much each query weighs against an item that it meets, where a typical
            query has 1: a query over a long history is moved less by one more item. 1 for queries by vector.
    """

    vectors: Float32
    origins: tuple[Origin, ...]
    missing_ids: tuple[tuple[str, ...], ...]
    lengths: Float32

    def part(self, places: slice) -> Encoding:
        """Return the encoding of some of the queries."""
        return Encoding(self.vectors[places], self.origins[places], self.missing_ids[places], self.lengths[places])


@dataclass(slots=True)  # not frozen, which would make one take four times as long: each query of a call gets one
class Answer:
    """The neighbours of one query. Not to be changed.

    Attributes:
        item_ids: best first, at most k.
        scores: `[len(item_ids)]`, float32, inner products, not increasing unless by MMR; for `POPULARITY` shares (0..1)
            of the training interactions; with `own_scores`, those are added.
        origin: what the query's vector was made from.
        missing_ids: ids in the query that the release does not know.
        plan: how the items were searched; None for `POPULARITY`, which searches nothing.
        candidate_count: items that were looked at to fill the answer: results of the index, or items of the subset.
        exhausted: no further item of the catalogue may be shown.
        degraded: the search made less than its settled effort.
        exclusions: how many items were left out and where they are known from; None where the query has neither
            `exclude_seen` nor `excluded_ids`.
        own_scores: `[len(item_ids)]`, float32, >= 0: the part of each score that comes from the entity having met the
            item itself; None where the release adds nothing for own items, or the entity has none.
    """

    item_ids: tuple[str, ...]
    scores: Float32
    origin: Origin
    missing_ids: tuple[str, ...]
    plan: SearchPlan | None = SearchPlan.INDEX
    candidate_count: int = 0
    exhausted: bool = False
    degraded: bool = False
    exclusions: Exclusions | None = None
    own_scores: Float32 | None = None


@dataclass(frozen=True)
class Matches:
    """The neighbours of several vectors, in flat lists.

    Attributes:
        counts: `[batch]`, int64, how many items each vector has: k, or the whole catalogue.
        item_ids: those of the first vector, best first, then those of the second, and so on.
        scores: `[len(item_ids)]`, float32, inner products.
        degraded: the search made less than its settled effort.
    """

    counts: Int64
    item_ids: list[str]
    scores: Float32
    degraded: bool


@dataclass(frozen=True)
class Revision:
    """A query, and the feedback that may move it. An item that is mentioned twice counts once, as mentioned last.

    Attributes:
        query: one of the four forms.
        mentions: what somebody said of items, more important ones first.
        pseudo_k: that many first results of the original query are taken as relevant, after the mentions.
        depth: how many items of this feedback count, the first known ones; None means all. 0 answers as `nearest`.
    """

    query: Query
    mentions: Sequence[FeedbackItem] = ()
    pseudo_k: int = 0
    depth: int | None = None

    def check(self) -> None:
        """Refuse numbers of items below 0.

        Raises:
            RequestError: `pseudo_k` or `depth` is one.
        """
        if self.pseudo_k < 0:
            raise RequestError("pseudo_k", f"got {self.pseudo_k}, expected >= 0")
        if self.depth is not None and self.depth < 0:
            raise RequestError("depth", f"got {self.depth}, expected >= 0")

    @cached_property
    def said(self) -> Mapping[str, FeedbackItem]:
        """The mentions by item, each item at its first place with its last mention."""
        return {mention.item_id: mention for mention in self.mentions}

    @cached_property
    def disliked_ids(self) -> tuple[str, ...]:
        """The items that somebody said no to."""
        return tuple(item_id for item_id, mention in self.said.items() if mention.kind is FeedbackKind.DISLIKED)


class _Heard(NamedTuple):
    """The feedback on one query: item rows, kinds, and ranks (`NO_ROW` where unknown)."""

    rows: list[int]
    kinds: list[FeedbackKind]
    ranks: list[int]

    def add(self, row: int, kind: FeedbackKind, rank: int) -> None:
        self.rows.append(row)
        self.kinds.append(kind)
        self.ranks.append(rank)

    def first(self, depth: int | None) -> _Heard:
        return _Heard(self.rows[:depth], self.kinds[:depth], self.ranks[:depth])


_NOTHING_HEARD = _Heard([], [], [])


class _Parts(NamedTuple):
    """What a query's vector is made of.

    Attributes:
        asked: the row of a known entity, or a query that goes through the query tower; None where nothing does.
        rows: items whose vectors are added to that.
        origin: as in `Encoding`.
        missing_ids: as in `Encoding`.
    """

    asked: Query | int | None
    rows: list[int]
    origin: Origin
    missing_ids: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReformulatedAnswer:
    """The neighbours of a query that feedback moved.

    Attributes:
        answer: as for `nearest`; its `missing_ids` are those of the query.
        vector: `[dim]`, float32, what was searched with; None where the origin is `POPULARITY`, which nothing moves.
        reformulator: the name of what moved it.
        drift: 1 - cosine of original and moved query, 0..2, whether the guard let it pass or not.
        confidence: that the move does not hurt, 0..1; 1 where the guard has no opinion.
        fell_back: the guard kept the original query.
        missing_ids: feedback that the release does not know.
        explanation: None unless asked for.
        ignored_kinds: kinds of the feedback that the reformulator does not read: it moved nothing.
    """

    answer: Answer
    vector: Float32 | None
    reformulator: str
    drift: float
    confidence: float
    fell_back: bool
    missing_ids: tuple[str, ...]
    explanation: Explanation | None
    ignored_kinds: tuple[FeedbackKind, ...] = ()


class Retriever:
    """Encode queries and find their nearest items with one release. Safe for calls from several threads.

    Args:
        release: an opened release.

    Raises:
        ReleaseError: its parts do not fit each other.
    """

    def __init__(self, release: Release) -> None:
        folder = release.folder
        self.release = release
        served = read_served(folder)
        self._entity = release.facts.query_entity
        self._metadata = served.item.metadata
        # In one piece: to take rows of a column in several pieces, Arrow copies the whole column each time.
        self._items = pq.read_table(folder / "items.parquet").combine_chunks()
        self._item_ids = np.array(self._items[ITEM_ID].to_pylist(), dtype=object)
        self._row_of_item = {item_id: row for row, item_id in enumerate(self._item_ids)}
        # Still mapped, without the time that slices of `np.memmap` take.
        self._vectors = np.asarray(np.load(folder / "item_embeddings.npy", mmap_mode="r"))
        shape = (len(self._item_ids), release.facts.dim)
        if self._vectors.dtype != np.float32 or self._vectors.shape != shape:
            got = verbatim(f"{self._vectors.dtype}, {self._vectors.shape}")
            raise ReleaseError(describe(f"{folder}/item_embeddings.npy", got, f"float32, {shape}"))
        self._query_side = QuerySide.load(folder / query_side.FOLDER, *shape)
        self._roles = ItemRoles(self._vectors, self._query_side.vectors)
        self._searcher = registry.build("indexes", served.index, "index").load(folder / "index", self._vectors)
        self._filters = ItemFilters(self._items, served.item.filters or self._shown_names)
        self._planner = PLANNER
        self._tuned: dict[tuple[tuple[str, object], ...], Retriever] = {}
        self._reformulators = Reformulators.load(folder)
        self._encoders = encoders.load(folder / "encoders" / "query")
        self._query_tower = load_tower(folder, QUERY_TOWER)
        self._reads_history = release.facts.reads_history
        # In an item-to-item release a query by items is about them, and not what somebody has met.
        self._reads_items = self._reads_history and self._entity != "item"
        self._never_met: Set[int] = frozenset()
        if self._reads_history:
            is_met = encoders.in_histories(self._encoders, self._item_ids.tolist())
            self._never_met = frozenset((~is_met).nonzero()[0].tolist())
        self._row_of_query: dict[str, int] = {}
        self._seen_row: Mapping[str, int] = {}
        self._known_codes: dict[str, np.ndarray] = {}
        self._own: OwnWeights | None = None
        if self._entity != "features":
            known = pq.read_table(folder / "queries.parquet")
            self._row_of_query = {query_id: row for row, query_id in enumerate(known[QUERY_ID].to_pylist())}
            self._seen_row = self._row_of_query
            self._seen = SeenItems.load(folder / "seen", known.num_rows, len(self._item_ids))
            if (folder / OWN).is_dir():
                self._own = OwnWeights.load(folder / OWN, self._seen.pair_count)
            self._known_codes = {
                name: encoders.encode_rows(encoder, known[self._column(name)].combine_chunks())
                for name, encoder in self._encoders.items()
            }
            self._bag_lengths = encoders.longest_bags(self._known_codes, known.num_rows)
            self._known = KnownQueries.load(folder / known_queries.FOLDER, known.num_rows, release.facts.dim)

    @classmethod
    def load(cls, folder: str | Path, *, verify: bool = True, signed_by: Sequence[Path] = ()) -> Retriever:
        """Open a release folder for retrieval.

        Args:
            folder: the release.
            verify: check every part's SHA-256 first.
            signed_by: public keys of which one must have signed it; none: it needs no signature.

        Raises:
            MissingError: no release there.
            ReleaseError: it is damaged, mixed, of another format, or not signed by one of the keys.
            SettingError: a key cannot be read.
        """
        release = open_release(folder, verify=verify, signed_by=signed_by)
        with parts_of(release.folder):
            return cls(release)

    def warm(self) -> None:
        """Run every reformulator once, and replay the golden queries against the answers that the release came with.

        Raises:
            ReleaseError: a vector or an answer differs: this machine or these libraries do not serve what was trained;
                or a part is not what this version writes.
        """
        with parts_of(self.release.folder):
            self._replay_golden_queries()

    def _replay_golden_queries(self) -> None:
        folder = self.release.folder / "golden"
        asked = pq.read_table(folder / "queries.parquet")
        vectors, item_rows = np.load(folder / "vectors.npy"), np.load(folder / "item_rows.npy")
        for name in self.reformulators if len(vectors) else ():
            first = feedback_of(vectors[:1], self._roles, np.zeros((1, 1), np.int32))
            self._reformulators.get(name).move(vectors[:1], first)
        encoded = [self.encode(self._golden(asked)).vectors]
        if self._entity != "features":
            # Those are stored: the tower must still make the same of the same entities.
            rows = [self._row_of_query[query_id] for query_id in asked[QUERY_ID].to_pylist()]
            encoded.append(np.zeros_like(vectors))
            for places, again, _ in self._through_tower(list(enumerate(rows))):
                encoded[-1][places] = again
        worst = float(np.abs(np.stack(encoded) - vectors).max(initial=0))
        if not worst <= GOLDEN_TOLERANCE:  # NaN is not
            raise ReleaseError(
                f"{self.release.folder}: golden query vectors differ by up to {worst:.2g}, expected at most "
                f"{GOLDEN_TOLERANCE:g}: features or tower are not those it was written with. Run `recsys doctor`."
            )
        found = self._searcher.search(vectors, item_rows.shape[1]).item_rows
        same = float((np.sort(found, axis=1) == np.sort(item_rows, axis=1)).mean())
        if same < 0.99:
            raise ReleaseError(
                f"{self.release.folder}: only {same:.1%} of the golden answers come out as they were written, expected "
                "99 %: the index is not that of the vectors, or the ScaNN version differs. Run `recsys doctor`."
            )

    @stage("encode")
    def encode(self, queries: Sequence[Query]) -> Encoding:
        """Return the vectors of queries, through the query tower where that is what they need.

        Args:
            queries: each one of the four forms.

        Raises:
            RequestError: a query has no form or two, an id that is not text, an unknown feature, a value of the wrong
                type, a vector that is not finite or not of length dim. `field` begins with `queries[i].`.
        """
        dim = self._vectors.shape[1]
        vectors = np.zeros((len(queries), dim), np.float32)
        lengths = np.ones(len(queries), np.float32)
        origins = [Origin.POPULARITY] * len(queries)
        missing: list[tuple[str, ...]] = [()] * len(queries)
        through_tower: list[tuple[int, Query | int]] = []
        known: dict[int, int] = {}
        summed: set[int] = set()
        given = False
        for place, query in enumerate(checked(queries)):
            _check_form(query, place)
            _check_ids(query, place)
            _check_ages(query, place)
            if query.vector is not None:
                if (shape := np.shape(query.vector)) != (dim,):
                    raise RequestError(f"queries[{place}].vector", f"got shape {shape}, expected ({dim},)")
                vectors[place], origins[place], given = query.vector, Origin.VECTOR, True
                continue
            parts = self._parts(query, place)
            origins[place], missing[place] = parts.origin, parts.missing_ids
            if isinstance(parts.asked, Query):
                through_tower.append((place, parts.asked))
            elif parts.asked is not None:
                known[place] = parts.asked
            if parts.rows:
                vectors[place] = self._sum(parts.rows, found=query.similar)
            if parts.rows or query.item_ids:
                summed.add(place)
        if given and (bad := first_unusable(vectors)) is not None:
            raise RequestError(f"queries[{bad}].vector", UNUSABLE)
        if known:
            places, rows = [*known], [*known.values()]
            vectors[places], lengths[places] = self._known.vectors[rows], self._known.lengths[rows]
        for places, encoded, of_encoded in self._through_tower(through_tower):
            lengths[places] = of_encoded
            if summed:
                scales = [lengths[place] if place in summed else 1.0 for place in places]
                encoded = encoded * np.array(scales, np.float32)[:, None]
            vectors[places] += encoded
        for place in summed:
            if (length := float(np.linalg.norm(vectors[place]))) > 0:
                vectors[place], lengths[place] = vectors[place] / length, length
        # A tower that only reads a history gives zeros where there is none: a query that says nothing.
        for place in (~vectors.any(axis=1)).nonzero()[0]:
            origins[place] = Origin.POPULARITY
        return Encoding(vectors, tuple(origins), tuple(missing), lengths)

    @property
    def filter_fields(self) -> Mapping[str, FilterType]:
        """The columns that a filter or `Diversity.crowding_field` may name, and what each holds."""
        return self._filters.types

    def nearest(
        self,
        queries: Sequence[Query],
        k: int,
        diversity: Diversity = NO_DIVERSITY,
        *,
        effort: float = 1.0,
        exact: bool = False,
    ) -> list[Answer]:
        """Return the k nearest items of each query, best first.

        Items that a query names (`item_ids`, `excluded_ids`, in an item-to-item release also `entity_id`) are not in
        its answer.

        Args:
            queries: each one of the four forms.
            k: places, >= 1; the catalogue may be smaller.
            diversity: how alike the items of an answer may be.
            effort: share (0..1] of its settled effort that the index makes where nothing else narrows the search.
            exact: look at every item instead of asking the index, to see what it misses.

        Raises:
            RequestError: as `encode`, k < 1, or a filter or diversity that the release's columns do not allow.
        """
        _check_places(k)
        if exact:
            return self._exactly.nearest(queries, k, diversity)
        encoding = self.encode(queries)
        if len(queries) == 1:
            return self._searching(queries[0].similar)._nearest(queries, encoding, k, diversity, effort, 0)
        step = max(PART_QUERIES, min(PART_PLACES // k, MOST_QUERIES))
        if any(query.filter.all_of for query in queries):
            step = max(1, min(step, PART_FILTER_BYTES // (ITEM_BYTES * len(self._item_ids))))
        answers: list[Answer] = []
        for similar, places in groupby(range(len(queries)), lambda place: queries[place].similar):
            searching, (first, *rest) = self._searching(similar), places
            end = first + len(rest) + 1
            for start in range(first, end, step):
                checkpoint()
                part = slice(start, min(start + step, end))
                answers += searching._nearest(queries[part], encoding.part(part), k, diversity, effort, start)
        return answers

    def _searching(self, similar: bool) -> Retriever:
        """Return what searches for queries, `similar` or not.

        An index is built and certified for the tower's queries. An item's own vector is none of them where lengths say
        how much items are liked: on Complete Journey ScaNN finds .14 of the items that are most like one, and .91 of
        what goes with it. So items like others are found by exact search.
        """
        return self._exactly if similar else self

    def _nearest(
        self, queries: Sequence[Query], encoding: Encoding, k: int, diversity: Diversity, effort: float, first: int
    ) -> list[Answer]:
        """Return the answers to a part of a batch that begins at the query `first`."""
        excluded, own = [], []
        for place, query in enumerate(checked(queries), first):
            excluded.append(self._excluded(query))
            own.append(self._own_items(query, place))
        narrow = self._narrow(queries, excluded, own, diversity, first)
        answers = self._nearest_narrowed(encoding, k, narrow, diversity) if any(narrow) else [None] * len(queries)
        open_ = [place for place, answer in enumerate(answers) if answer is None]
        searched = [place for place in open_ if encoding.origins[place] is not Origin.POPULARITY]
        plain = [place for place in searched if not len(excluded[place].rows)]
        if plain:
            vectors = encoding.vectors if len(plain) == len(queries) else encoding.vectors[plain]
            found = self._searcher.search(vectors, min(k, len(self._item_ids)), effort=effort)
            # Ids of all answers at once; one that has too few items is gone through alone.
            ids, last = self._item_ids.take(found.item_rows).tolist(), found.item_rows[:, -1].tolist()
            exhausted, degraded = self._shown_count <= k, effort < 1
            for row, place in enumerate(plain):
                if last[row] != NO_ROW and own[place] is None:
                    origin, missing_ids = encoding.origins[place], encoding.missing_ids[place]
                    answers[place] = Answer(
                        tuple(ids[row]),
                        found.scores[row],
                        origin,
                        missing_ids,
                        SearchPlan.INDEX,
                        found.item_rows.shape[1],
                        exhausted,
                        degraded,
                    )
                else:
                    some = self._found(found.item_rows[row], found.scores[row], k)
                    some = self._with_own(some, own[place], excluded[place], encoding.vectors[place], k)
                    answers[place] = self._answer_of(some, encoding, place, degraded)
        others = [place for place in searched if len(excluded[place].rows)]
        if others:
            vectors = encoding.vectors if len(others) == len(queries) else encoding.vectors[others]
            found_each = self._search_excluding(vectors, k, [excluded[place] for place in others], effort)
            for place, some in zip(others, found_each, strict=True):
                some = self._with_own(some, own[place], excluded[place], encoding.vectors[place], k)
                answers[place] = self._answer_of(some, encoding, place, effort < 1)
        for place in open_:
            if encoding.origins[place] is Origin.POPULARITY:
                answers[place] = self._most_popular(k, excluded[place], encoding, place)
        return _with_exclusions(answers, excluded)

    def search_vectors(self, vectors: Float32, k: int, *, effort: float = 1.0) -> Matches:
        """Return the k nearest items of each vector: what `nearest` finds for it, and nothing else about it.

        Args:
            vectors: `[batch, dim]`, float32.
            k: places, >= 1; the catalogue may be smaller.
            effort: share (0..1] of its settled effort that the index makes.

        Raises:
            RequestError: k < 1, vectors of another length, or one that is not finite; `field` is `vectors[i]`.
        """
        dim = self._vectors.shape[1]
        _check_places(k)
        if vectors.ndim != 2 or vectors.shape[1] != dim:
            raise RequestError("vectors", f"got shape {vectors.shape}, expected (batch, {dim})")
        if (bad := first_unusable(vectors)) is not None:
            raise RequestError(f"vectors[{bad}]", UNUSABLE)
        counts, ids, scores = [], [], []
        for first in range(0, len(vectors), PART_QUERIES):
            checkpoint()
            part = vectors[first : first + PART_QUERIES]
            found = self._searcher.search(part, min(k, len(self._item_ids)), effort=effort)
            kept = found.item_rows != NO_ROW
            counts.append(kept.sum(axis=1))
            ids += self._item_ids.take(found.item_rows[kept]).tolist()
            scores.append(found.scores[kept])
        return Matches(np.concatenate(counts), ids, np.concatenate(scores), effort < 1)

    @property
    def reformulators(self) -> tuple[str, ...]:
        """Names that `reformulate` knows, sorted."""
        return self._reformulators.names

    @property
    def default_reformulator(self) -> str:
        """The name of the one that answers where none is named."""
        return self._reformulators.default

    def tuned(self, settings: Mapping[str, Any]) -> Retriever:
        """Return the same release searched with other settings; asked again for the same ones, the same retriever.

        Args:
            settings: by path: `index.leaves_to_search`, `index.reorder_k` as the index has them, `planner.margin`,
                `planner.pool` (see `Planner`).

        Raises:
            SettingError: there is no such setting, or not with such a value.
        """
        key = tuple(sorted(settings.items()))
        if key not in self._tuned:
            parts: dict[str, dict[str, Any]] = {"index": {}, "planner": {}}
            for path, value in settings.items():
                part, _, name = path.partition(".")
                if part not in parts:
                    raise SettingError(describe("settings", path, "index.* or planner.*"))
                parts[part][name] = value
            planner = registry.parse(Planner, parts["planner"], "planner")
            twin = self._twin(self._searcher.tuned(parts["index"]))
            twin._planner = planner
            self._tuned[key] = twin
        return self._tuned[key]

    def search_without(self, vectors: Float32, k: int, excluded: RowSets) -> Neighbours:
        """Return the k items with the largest inner products that each query may show; `NO_ROW` where there are fewer.

        Args:
            vectors: `[batch, dim]`, float32, finite.
            k: places, >= 1.
            excluded: item rows that may not be shown, one set a query.
        """
        deepest = min(k + int(excluded.sizes.max(initial=0)), len(self._item_ids))
        found = self._searcher.search(vectors, deepest)
        banned = excluded.contains(np.arange(len(vectors))[:, None], found.item_rows)
        kept = (found.item_rows != NO_ROW) & ~banned
        return first_kept(found, kept, k)

    def reformulate(
        self,
        query: Query,
        k: int,
        *,
        mentions: Sequence[FeedbackItem] = (),
        pseudo_k: int = 0,
        depth: int | None = None,
        reformulator: str = "",
        guarded: bool = True,
        explained: bool = False,
        include_feedback_items: bool = False,
        diversity: Diversity = NO_DIVERSITY,
    ) -> ReformulatedAnswer:
        """Return the k nearest items of a query after feedback has moved it: `reformulate_all` of one `Revision`."""
        revision = Revision(query, mentions, pseudo_k, depth)
        (answer,) = self.reformulate_all(
            [revision],
            k,
            reformulator=reformulator,
            guarded=guarded,
            explained=explained,
            include_feedback_items=include_feedback_items,
            diversity=diversity,
        )
        return answer

    def reformulate_all(
        self,
        revisions: Sequence[Revision],
        k: int,
        *,
        reformulator: str = "",
        guarded: bool = True,
        explained: bool = False,
        include_feedback_items: bool = False,
        diversity: Diversity = NO_DIVERSITY,
    ) -> list[ReformulatedAnswer]:
        """Return the k nearest items of each query after feedback has moved it.

        Items that a query names are left out as in `nearest`, and so are the items of its mentions.

        Args:
            revisions: the queries, each with the feedback on it.
            k: places, >= 1.
            reformulator: its name; empty means the release's default.
            guarded: let the reformulator's guard keep the original query.
            explained: also say what the feedback did; costs a search of k items.
            include_feedback_items: do not leave out the items of the mentions. A disliked one then comes after all
                other items that may be shown, whatever the reformulator makes of the dislike; with diversity it is left
                out all the same.
            diversity: how alike the items of an answer may be; pseudo feedback comes as alike as it is.

        Raises:
            RequestError: as `nearest`, an unknown reformulator, pseudo_k < 0, or depth < 0.
        """
        _check_places(k)
        for revision in revisions:
            revision.check()
        named = self._reformulators.get(reformulator)
        queries = [revision.query for revision in revisions]
        encoding = self.encode(queries)
        excluded = [self._excluded(query) for query in checked(queries)]
        own = [self._own_items(query, place) for place, query in enumerate(checked(queries))]
        narrow = self._narrow(queries, excluded, own, diversity)
        # Popularity answers where a query says nothing: nothing is searched for it, nothing moves it.
        moves = [origin is not Origin.POPULARITY for origin in encoding.origins]
        places = [k if each else 0 for each in moves]
        compared_k = k if explained and diversity.changes_nothing else 0
        first_k = [max(each.pseudo_k, compared_k) if own else 0 for each, own in zip(revisions, moves, strict=True)]
        first = [found.rows for found in self._search_each(encoding.vectors, first_k, excluded, own, narrow)]
        heard = [
            self._heard(revision, rows[: revision.pseudo_k]) if own else _NOTHING_HEARD
            for revision, rows, own in zip(revisions, first, moves, strict=True)
        ]
        feedback = self._feedback(encoding, heard)
        if named.choice.reads_extended:
            feedback = replace(feedback, extended=self._extended(queries, encoding, heard))
        move = named.move(encoding.vectors, feedback, guarded=guarded)
        before = first
        if explained and not diversity.changes_nothing:
            before = [
                found.rows for found in self._search_each(encoding.vectors, places, excluded, own, narrow, diversity)
            ]
        own = [self._own_after(*each) for each in zip(own, heard, move.item_weights, strict=True)]
        last = [self._last(*each, include_feedback_items) for each in zip(revisions, excluded, narrow, strict=True)]
        excluded = [self._excluded_after(each, include_feedback_items) for each in checked(revisions)]
        narrow = [
            each and Narrow.of(each.allowed, left_out.rows, after)
            for each, left_out, after in zip(narrow, excluded, own, strict=True)
        ]
        still = [None if own else each for each, own in zip(narrow, moves, strict=True)]
        popular = self._nearest_narrowed(encoding, k, still, diversity)
        answers = []
        for place, found in enumerate(self._search_each(move.vectors, places, excluded, own, narrow, diversity)):
            unknown_ids = self._unknown_ids(revisions[place])
            if not moves[place]:
                answer = popular[place] or self._most_popular(k, excluded[place], encoding, place)
                self._append(answer, last[place], None, k, diversity)
                nothing = Explanation((), np.zeros(0, np.float32), (), ()) if explained else None
                answers.append(ReformulatedAnswer(answer, None, named.name, 0.0, 1.0, False, unknown_ids, nothing))
                continue
            answer = self._answer_of(found, encoding, place)
            self._append(answer, last[place], move.vectors[place], k, diversity)
            rows = heard[place].rows
            weights = move.item_weights[place, : len(rows)]
            answers.append(
                ReformulatedAnswer(
                    answer=answer,
                    vector=move.vectors[place],
                    reformulator=named.name,
                    drift=float(move.drift[place]),
                    confidence=float(move.confidence[place]),
                    fell_back=bool(move.fell_back[place]),
                    missing_ids=unknown_ids,
                    explanation=self._explained(rows, weights, before[place][:k], answer) if explained else None,
                    ignored_kinds=tuple(sorted(named.ignores & set(heard[place].kinds))),
                )
            )
        _with_exclusions([each.answer for each in answers], excluded)
        return answers

    def metadata(self, item_ids: Sequence[str]) -> list[dict[str, Any]]:
        """Return the display columns of items, as `plain_rows` does; an empty dictionary for an unknown id."""
        known = [item_id for item_id in item_ids if item_id in self._row_of_item]
        found: dict[str, dict[str, Any]] = {}
        for first in range(0, len(known), METADATA_ROWS):
            checkpoint()
            part = known[first : first + METADATA_ROWS]
            shown = self._shown.take(pa.array([self._row_of_item[item_id] for item_id in part], pa.int64()))
            found.update(zip(part, plain_rows(shown), strict=True))
        return [found.get(item_id, {}) for item_id in item_ids]

    @cached_property
    def metadata_bytes(self) -> float:
        """The mean size of the display columns of an item of the release, in bytes."""
        return self._shown.nbytes / max(1, self._shown.num_rows)

    @cached_property
    def _shown(self) -> pa.Table:
        return self._items.select(list(self._shown_names))

    @property
    def _shown_names(self) -> Sequence[str]:
        return self._metadata or self._items.column_names

    @cached_property
    def _shown_count(self) -> int:
        """Items that may be found."""
        return len(self._item_ids)

    @cached_property
    def _exactly(self) -> Retriever:
        """The same with exact search in place of the index."""
        return self._twin(ExactSearcher(self._vectors))

    @cached_property
    def _narrowed(self) -> NarrowedSearch:
        return NarrowedSearch(self._searcher, self._vectors, self._filters, self._planner)

    def _twin(self, searcher: Searcher) -> Retriever:
        """Return the same with another searcher over the same items."""
        twin = copy.copy(self)
        twin._searcher, twin._tuned = searcher, {}
        for computed in ("_narrowed", "_exactly"):
            vars(twin).pop(computed, None)
        return twin

    @cached_property
    def _popular(self) -> tuple[Int64, Float32]:
        counts = self._items[TRAINING_COUNT].to_numpy()
        order = np.argsort(-counts, kind="stable")
        return order, (counts[order] / max(int(counts.sum()), 1)).astype(np.float32)

    def _most_popular(self, k: int, excluded: Excluded, encoding: Encoding, place: int) -> Answer:
        rows, shares = self._popular
        deep = k + len(excluded.rows)
        rows, shares = rows[:deep], shares[:deep]
        kept = ~is_among(rows, excluded.rows)
        found = Found(rows[kept][:k], shares[kept][:k], None, len(rows), self._shown_count - len(excluded.rows) <= k)
        return self._answer_of(found, encoding, place)

    def _found(self, rows: Int32, scores: Float32, k: int) -> Found:
        """Return the k first results of an index without exclusions."""
        looked_at = len(rows)
        if looked_at == 0 or rows[-1] == NO_ROW:
            kept = rows != NO_ROW
            rows, scores = rows[kept], scores[kept]
        return Found(rows[:k], scores[:k], SearchPlan.INDEX, looked_at, self._shown_count <= k)

    def _search_excluding(
        self, vectors: Float32, k: int, excluded: Sequence[Excluded], effort: float = 1.0
    ) -> Iterator[Found]:
        """Yield for each query its k best items that are not excluded; see `search_excluding`."""
        results = search_excluding(self._searcher, vectors, k, excluded, len(self._item_ids), effort=effort)
        for each, (rows, scores, depth) in zip(excluded, results, strict=True):
            yield Found(rows, scores, SearchPlan.OVER_FETCH, depth, self._shown_count - len(each.rows) <= k)

    def _answer_of(self, found: Found, encoding: Encoding, place: int, degraded: bool = False) -> Answer:
        return Answer(
            tuple(self._item_ids[found.rows]),
            found.scores.copy(),  # and not a view, which would keep all that was looked at
            encoding.origins[place],
            encoding.missing_ids[place],
            found.plan,
            found.candidate_count,
            found.exhausted,
            degraded,
            own_scores=found.own_scores,
        )

    def _with_own(self, found: Found, own: OwnItems | None, excluded: Excluded, vector: Float32, k: int) -> Found:
        """Return what was found for a query with the entity's own items, but for the excluded ones."""
        if own is None:
            return found
        if len(excluded.rows):
            own = own.where(~is_among(own.rows, excluded.rows))
        return fused(found, own, vector, self._vectors, k)

    def _own_items(self, query: Query, place: int) -> OwnItems | None:
        """Return the items that the query's entity has met, with what they add; None where they add nothing.

        Raises:
            RequestError: the query asks for own items only and names no entity that could have some.
        """
        is_only = query.repeats == Repeats.ONLY
        has_entity = self._entity != "item" and not query.item_ids and query.vector is None
        if is_only and (not has_entity or query.exclude_seen):
            got = "got 'only' with exclude_seen" if has_entity else "got 'only' for a query without an entity"
            rule = "expected 'only' for an entity or a history, whose own items are found"
            raise RequestError(f"queries[{place}].repeats", f"{got}, {rule}")
        if query.exclude_seen or not has_entity or (self._own is None and not is_only):
            return None
        row = None if query.entity_id is None else self._seen_row.get(query.entity_id)
        if row is not None:
            rows = self._seen.of(row)
            scores = np.zeros(len(rows), np.float32)
            own = OwnItems(rows, scores) if self._own is None else self._own.of(self._seen.pairs(row), rows)
            return self._current_own(own)
        item_rows = np.array([self._row_of_item.get(item_id, NO_ROW) for item_id in query.history], np.int32)
        is_known = item_rows != NO_ROW
        if not is_known.any() and not is_only:
            return None
        if self._own is None:
            distinct = np.unique(item_rows[is_known])
            return OwnItems(distinct, np.zeros(len(distinct), np.float32))
        ages = query.history_age_days if len(query.history_age_days) else np.full(len(item_rows), UNKNOWN_AGE)
        return self._own.fusion.own_items(item_rows[is_known], np.asarray(ages, np.float32)[is_known])

    def _narrow(
        self,
        queries: Sequence[Query],
        excluded: Sequence[Excluded],
        own: Sequence[OwnItems | None],
        diversity: Diversity,
        first: int = 0,
    ) -> list[Narrow | None]:
        """Return what each answer may hold; None where the index alone can answer.

        Args:
            queries: that are answered together.
            excluded: items that each leaves out.
            own: items that each entity has met, where they matter.
            diversity: of all answers.
            first: the place of the first query in the request.

        Raises:
            RequestError: a filter or diversity that the columns do not allow.
        """
        is_narrow = [
            bool(query.filter.all_of) or query.repeats == Repeats.ONLY or not diversity.changes_nothing
            for query in queries
        ]
        if not any(is_narrow):
            return [None] * len(queries)
        self._narrowed.check(diversity)
        return [
            Narrow.of(self._allowed(query, own[place], first + place), excluded[place].rows, own[place])
            if is_narrow[place]
            else None
            for place, query in enumerate(checked(queries))
        ]

    def _allowed(self, query: Query, own: OwnItems | None, place: int) -> Allowed:
        """Return the items that a query's filter lets pass, of the entity's own ones where it asks for them only."""
        allowed = self._filters.allowed(query.filter, f"queries[{place}].filter")
        if query.repeats != Repeats.ONLY:
            return allowed
        mask = np.zeros(len(allowed.mask), bool)
        mask[own.rows] = allowed.mask[own.rows]
        return Allowed(mask)

    def _nearest_narrowed(
        self, encoding: Encoding, k: int, narrow: Sequence[Narrow | None], diversity: Diversity
    ) -> list[Answer | None]:
        """Return the answers of queries that the index alone cannot answer; None for the others."""
        answers: list[Answer | None] = [None] * len(narrow)
        asked = {place: each for place, each in enumerate(narrow) if each is not None}
        if not asked:
            return answers
        searched = [place for place in asked if encoding.origins[place] is not Origin.POPULARITY]
        if searched:
            among = [asked[place] for place in searched]
            for place, found in zip(
                searched, self._narrowed.search(encoding.vectors[searched], k, among, diversity), strict=True
            ):
                answers[place] = self._answer_of(found, encoding, place)
        for place in asked.keys() - searched:
            found = self._narrowed.popular(*self._popular, k, asked[place], diversity)
            answers[place] = self._answer_of(found, encoding, place)
        return answers

    def _search_each(
        self,
        vectors: Float32,
        k: Sequence[int],
        excluded: Sequence[Excluded],
        own: Sequence[OwnItems | None],
        narrow: Sequence[Narrow | None],
        diversity: Diversity = NO_DIVERSITY,
    ) -> list[Found]:
        """Return the best items of each query that may be shown, so many as `k` says; none for 0."""
        found = [Found(NOTHING, np.zeros(0, np.float32), None, 0, False)] * len(k)
        open_ = [place for place, most in enumerate(k) if most and narrow[place] is None]
        plain = [place for place in open_ if not len(excluded[place].rows)]
        if plain:
            deepest = min(max(k[place] for place in plain), len(self._item_ids))
            some = self._searcher.search(vectors if len(plain) == len(k) else vectors[plain], deepest)
            for row, place in enumerate(plain):
                each = self._found(some.item_rows[row], some.scores[row], k[place])
                found[place] = self._with_own(each, own[place], excluded[place], vectors[place], k[place])
        others: dict[int, list[int]] = {}
        for place in open_:
            if len(excluded[place].rows):
                others.setdefault(k[place], []).append(place)
        for most, places in others.items():
            best = self._search_excluding(vectors[places], most, [excluded[place] for place in places])
            for place, each in zip(places, best, strict=True):
                found[place] = self._with_own(each, own[place], excluded[place], vectors[place], most)
        for place, most in enumerate(k):
            if most and (each := narrow[place]) is not None:
                (found[place],) = self._narrowed.search(vectors[place : place + 1], most, [each], diversity)
        return found

    def _unknown_ids(self, revision: Revision) -> tuple[str, ...]:
        """Return the items of the feedback that the release does not know, each once."""
        return tuple(item_id for item_id in revision.said if item_id not in self._row_of_item)

    def _heard(self, revision: Revision, pseudo_rows: np.ndarray) -> _Heard:
        """Return what was mentioned and then what was found, each item once and as many as count.

        Args:
            revision: the query, with its feedback.
            pseudo_rows: `[pseudo_k]`, the first results.
        """
        rank_of = {row: rank for rank, row in enumerate(pseudo_rows.tolist())}
        heard = _Heard([], [], [])
        for item_id, mention in revision.said.items():
            row = self._row_of_item.get(item_id)
            if row is not None:
                heard.add(row, mention.kind, rank_of.get(row, NO_ROW) if mention.position is None else mention.position)
        mentioned = set(heard.rows)
        for row, rank in rank_of.items():
            if row not in mentioned:
                heard.add(row, FeedbackKind.PSEUDO, rank)
        return heard.first(revision.depth)

    def _feedback(self, encoding: Encoding, heard: Sequence[_Heard]) -> Feedback:
        """Return as feedback what was heard of each query, `[batch, dim]`."""
        most = max(len(each.rows) for each in heard)
        rows, kinds, ranks = np.full((3, len(heard), most), NO_ROW, np.int32)
        kinds[:] = FeedbackKind.PSEUDO
        for place, each in enumerate(heard):
            count = len(each.rows)
            rows[place, :count], kinds[place, :count], ranks[place, :count] = each
        return feedback_of(
            encoding.vectors, self._roles, rows, query_lengths=encoding.lengths, kinds=kinds, ranks=ranks
        )

    def _own_after(self, own: OwnItems | None, heard: _Heard, item_weights: Float32) -> OwnItems | None:
        """Return an entity's own items after feedback that moved its query by some weights, `[k]`.

        An item that the query moves away from adds nothing any more; one that was liked or chosen counts as met once
        more.
        """
        if own is None or self._own is None:
            return own
        scores = dict(zip(own.rows.tolist(), own.scores.tolist(), strict=True))
        for row, kind, weight in zip(heard.rows, heard.kinds, item_weights.tolist(), strict=False):
            if weight < 0:
                scores.pop(row, None)
            elif weight > 0 and kind in MET:
                scores[row] = scores.get(row, 0.0) + self._own.fusion.weight
        rows = np.array(sorted(scores), np.int32)
        return OwnItems(rows, np.array([scores[row] for row in rows.tolist()], np.float32))

    def _extended(self, queries: Sequence[Query], encoding: Encoding, heard: Sequence[_Heard]) -> Float32:
        """Return each query encoded again with what was liked or chosen in its history, `[batch, dim]`, unit length.

        What the query tower has no history vector for is added by its query-side vector.
        """
        total = unit(encoding.vectors) * encoding.lengths[:, None]
        again: list[tuple[int, Query | int, Sequence[str]]] = []
        for place, each in enumerate(heard):
            rows = [row for row, kind in zip(each.rows, each.kinds, strict=True) if kind in MET]
            if not rows:
                continue
            parts = self._parts(queries[place], place)
            if parts.asked is not None and self._reads_items:
                outside = self._outside_history(rows)
                if met := [self._item_ids[row] for row in rows if row not in outside]:
                    again.append((place, parts.asked, met))
                    total[place] = self._sum(parts.rows) if parts.rows else 0
                    rows = [row for row in rows if row in outside]
            if rows:
                total[place] += self._sum(rows)
        if again:
            codes = dict(self._codes([(place, asked) for place, asked, _ in again]))
            for name, encoder in self._encoders.items():
                if encoders.is_history(encoder):
                    codes[name] = encoders.extended(encoder, codes[name], [met for _, _, met in again])
            vectors, raw = self._query_tower.encode(codes)
            longer = vectors * self._query_side.lengths(encoders.evidence(self._encoders, codes, raw))[:, None]
            total[[place for place, _, _ in again]] += longer
        moves = [any(kind in MET for kind in each.kinds) for each in heard]
        return np.where(np.array(moves)[:, None], unit(total), encoding.vectors)

    def _parts(self, query: Query, place: int) -> _Parts:
        """Return what the vector of a query that has none of its own is made of.

        Raises:
            RequestError: a feature that the release does not know.
        """
        if query.vector is not None:
            return _Parts(None, [], Origin.VECTOR)
        if query.item_ids:
            rows, missing_ids = self._known_rows(query.item_ids)
            if not rows:
                return _Parts(None, [], Origin.POPULARITY, missing_ids)
            if query.similar or not self._reads_items:
                return _Parts(None, rows, Origin.ITEMS, missing_ids)
            outside = self._outside_history(rows)
            history = [self._item_ids[row] for row in rows if row not in outside]
            asked = Query(history=history) if history else None
            return _Parts(asked, [row for row in rows if row in outside], Origin.ITEMS, missing_ids)
        missing_ids = ()
        if query.entity_id is not None:
            if query.entity_id in self._row_of_query:
                return _Parts(self._row_of_query[query.entity_id], [], Origin.KNOWN_ENTITY)
            missing_ids = (query.entity_id,)
        self._check_features(query, place)
        rows, missing_items = self._known_rows(query.history)
        if not self._reads_history:
            rows = []
        outside = self._outside_history(rows)
        added = [row for row in rows if row in outside] if outside else []
        if added:
            query = _without(query, {self._item_ids[row] for row in added})
        is_asked = len(added) < len(rows) or not all(map(is_missing, (query.features or {}).values()))
        origin = Origin.FEATURES if added or is_asked else Origin.POPULARITY
        return _Parts(query if is_asked else None, added, origin, missing_ids + missing_items)

    def _known_rows(self, item_ids: Sequence[str]) -> tuple[list[int], tuple[str, ...]]:
        """Return the rows of the known items, and the ids of the others, both in order."""
        rows = [self._row_of_item.get(item_id) for item_id in item_ids]
        if None not in rows:
            return rows, ()
        missing = tuple(item_id for item_id, row in zip(item_ids, rows, strict=True) if row is None)
        return [row for row in rows if row is not None], missing

    def _outside_history(self, rows: Sequence[int]) -> Set[int]:
        """Return the item rows of some that a history of the query tower has no vector for."""
        return self._never_met and self._never_met.intersection(rows)

    def _sum(self, rows: Sequence[int], *, found: bool = False) -> Float32:
        """Return the sum of query-side vectors, or of the vectors that items are found by, `[dim]`."""
        return (self._roles.found if found else self._roles.query_side)[rows].sum(axis=0)

    def _explained(self, rows: list[int], weights: Float32, first_rows: np.ndarray, answer: Answer) -> Explanation:
        before, after = tuple(self._item_ids[first_rows]), answer.item_ids
        old, new = set(before), set(after)
        return Explanation(
            item_ids=tuple(self._item_ids[rows]),
            item_weights=weights,
            entered_ids=tuple(item_id for item_id in after if item_id not in old),
            left_ids=tuple(item_id for item_id in before if item_id not in new),
        )

    def _excluded_after(self, revision: Revision, include_feedback_items: bool) -> Excluded:
        """Return the items that an answer after feedback leaves out, or finds for no other place than the last ones."""
        mentioned = revision.disliked_ids if include_feedback_items else revision.said
        return self._excluded(revision.query, mentioned)

    def _last(
        self, revision: Revision, excluded: Excluded, narrow: Narrow | None, include_feedback_items: bool
    ) -> Int32:
        """Return the rows of disliked items that may be shown after all others."""
        if not include_feedback_items or not revision.disliked_ids:
            return NOTHING
        rows = self._rows(revision.disliked_ids)
        return rows[~is_among(rows, excluded.rows) if narrow is None else narrow.passes(rows)]

    def _append(self, answer: Answer, rows: Int32, vector: Float32 | None, k: int, diversity: Diversity) -> None:
        """Add items to the end of an answer, as far as it has fewer than k.

        Args:
            answer: is changed.
            rows: the items, which are not in it.
            vector: `[dim]`, what was searched with; None where the most popular items answer.
            k: places.
            diversity: where it changes the answer, nothing is added: an item could be too like those before it.
        """
        if not len(rows) or not diversity.changes_nothing:
            return
        if vector is None:
            by_popularity, shares = self._popular
            is_last = np.isin(by_popularity, rows)
            rows, scores = by_popularity[is_last], shares[is_last]
        else:
            scores = self._vectors.take(rows, axis=0) @ vector
        order = np.lexsort((rows, -scores))[: k - len(answer.item_ids)]
        answer.exhausted = answer.exhausted and len(order) == len(rows)
        answer.item_ids += tuple(self._item_ids[rows[order]])
        lowest = answer.scores.min(initial=np.inf)
        answer.scores = np.concatenate([answer.scores, np.minimum(scores[order], lowest)])
        if answer.own_scores is not None:
            answer.own_scores = np.concatenate([answer.own_scores, np.zeros(len(order), np.float32)])

    def _excluded(self, query: Query, mentioned: Iterable[str] = ()) -> Excluded:
        """Return the items that the answer to a query leaves out.

        Args:
            query: names some of them.
            mentioned: ids of the feedback on it that are left out, too.
        """
        about = [*query.item_ids, *mentioned]
        if self._entity == "item" and query.entity_id is not None:
            about.append(query.entity_id)
        if not about and not query.excluded_ids and not query.exclude_seen:
            return NOTHING_EXCLUDED
        seen, events = None, NOTHING
        if query.exclude_seen:
            entities = about if self._entity == "item" else () if query.entity_id is None else (query.entity_id,)
            seen, events = self._seen_by(entities), self._rows(query.reported_ids)
            about.extend(query.history)
        return Excluded.of(
            release=seen,
            request=self._rows(about),
            events=events,
            excluded_ids=self._rows(query.excluded_ids),
            is_reported=query.exclude_seen or len(query.excluded_ids) > 0,
        )

    def seen_count(self, query: Query) -> int:
        """Return the largest number of items that `exclude_seen` leaves out of an answer, without those in the request.

        0 where the query does not ask for it.
        """
        if not query.exclude_seen:
            return 0
        entities = [*query.item_ids] if self._entity == "item" else []
        if query.entity_id is not None:
            entities.append(query.entity_id)
        known = (self._seen_row[entity_id] for entity_id in entities if entity_id in self._seen_row)
        return len(query.reported_ids) + sum(self._seen.count(row) for row in known)

    def _seen_by(self, entities: Sequence[str]) -> Int32 | None:
        """Return the rows of what known entities have met, ascending; None where the release knows none of them."""
        known = [self._seen_row[entity_id] for entity_id in entities if entity_id in self._seen_row]
        if not known:
            return None
        met = [self._seen.of(row) for row in known]
        return self._current(met[0] if len(met) == 1 else np.unique(np.concatenate(met)))

    def _current_own(self, own: OwnItems) -> OwnItems:
        """Return own items at the rows that they have now, without those that were removed."""
        return own

    def _current(self, rows: Int32) -> Int32:
        """Return the rows that items of the release have now, ascending; none for items that were removed."""
        return rows

    def _rows(self, item_ids: Sequence[str]) -> Int32:
        """Return the distinct rows of the known items."""
        if not item_ids:
            return NOTHING
        return np.array(
            list({self._row_of_item[item_id] for item_id in item_ids if item_id in self._row_of_item}), np.int32
        )

    def _through_tower(self, wanted: Sequence[tuple[int, Query | int]]) -> Iterator[tuple[list[int], Float32, Float32]]:
        """Yield places, vectors of unit length and lengths of known rows and queries by features, in parts."""
        for part in self._tower_parts(wanted):
            checkpoint()
            codes = self._codes(part)
            encoded, raw = self._query_tower.encode(codes)
            lengths = self._query_side.lengths(encoders.evidence(self._encoders, codes, raw))
            yield [place for place, _ in part], encoded, lengths

    def _tower_parts(self, wanted: Sequence[tuple[int, Query | int]]) -> Iterator[list[tuple[int, Query | int]]]:
        """Return known rows and queries by features in parts, shorter histories first.

        A part is padded to its longest history: one long history makes the other queries of a batch no larger.
        """

        def length(each: tuple[int, Query | int]) -> int:
            _, query = each
            return len(query.history) if isinstance(query, Query) else int(self._bag_lengths[query])

        part: list[tuple[int, Query | int]] = []
        for each in sorted(wanted, key=length):
            if part and (len(part) == TOWER_ROWS or (len(part) + 1) * length(each) > TOWER_ENTRIES):
                yield part
                part = []
            part.append(each)
        if part:
            yield part

    def _codes(self, wanted: Sequence[tuple[int, Query | int]]) -> Mapping[str, np.ndarray]:
        """Return the codes of known rows and of queries by features, in the order wanted."""
        asked = [(place, query) for place, query in wanted if isinstance(query, Query)]
        if not asked:
            rows = np.array([row for _, row in wanted])
            return {name: self._known_codes[name][rows] for name in self._encoders}
        known = np.array([0 if isinstance(query, Query) else query for _, query in wanted])
        fresh = np.flatnonzero([isinstance(query, Query) for _, query in wanted])
        codes = {}
        for name, encoder in self._encoders.items():
            own = self._encode_asked(name, encoder, asked)
            if len(fresh) == len(wanted):
                codes[name] = own
                continue
            codes[name] = encoders.replaced(self._known_codes[name][known], fresh, own)
        return codes

    def _encode_asked(self, name: str, encoder: Encoder, asked: Sequence[tuple[int, Query]]) -> np.ndarray:
        column = self._column(name)
        values = [self._value(query, column) for _, query in asked]
        return coded(encoder, values, [f"queries[{place}].features.{column}" for place, _ in asked])

    def _value(self, query: Query, column: str) -> Any:
        if column == HISTORY:
            return _meetings(query)
        if column == QUERY_ID:
            return query.entity_id
        return (query.features or {}).get(column)

    def _check_features(self, query: Query, place: int) -> None:
        known = self.release.facts.query_columns
        for name in query.features or {}:
            if name not in known:
                raise RequestError(f"queries[{place}].features.{name}", unknown("query feature", name, known))

    def _column(self, name: str) -> str:
        return encoders.raw_column(self._encoders[name].settings, name, "query")

    def _golden(self, asked: pa.Table) -> list[Query]:
        if self._entity == "features":
            return [Query(features=row) for row in as_python(asked)]
        return [Query(entity_id=query_id) for query_id in asked[QUERY_ID].to_pylist()]


def _with_exclusions(answers: Sequence[Answer | None], excluded: Sequence[Excluded]) -> list[Answer]:
    """Put what was left out into the answers, one for each query, and return them."""
    for answer, each in zip(answers, excluded, strict=True):
        answer.exclusions = each.counts
    return answers


def _without(query: Query, item_ids: Set[str]) -> Query:
    """Return a query whose history leaves some items out, with the ages of the others."""
    kept = [place for place, item_id in enumerate(query.history) if item_id not in item_ids]
    ages = [query.history_age_days[place] for place in kept] if len(query.history_age_days) else ()
    return replace(query, history=[query.history[place] for place in kept], history_age_days=ages)


def _meetings(query: Query) -> list[Meeting] | list[str]:
    """Return what a query's history holds, newest first; item ids alone where ages are not known."""
    if not len(query.history_age_days):
        return list(reversed(query.history))
    return [Meeting(*met) for met in zip(reversed(query.history), reversed(query.history_age_days), strict=True)]


def _check_places(k: int) -> None:
    if k < 1:
        raise RequestError("k", f"got {k}, expected >= 1")


def _check_form(query: Query, place: int) -> None:
    by_entity = query.entity_id is not None or query.features is not None or len(query.history) > 0
    forms = by_entity + (len(query.item_ids) > 0) + (query.vector is not None)
    if forms != 1:
        where = f"queries[{place}]"
        raise RequestError(where, f"got {forms} forms, expected one of: entity or features, item ids, vector")


def _check_ages(query: Query, place: int) -> None:
    """Refuse ages of a history that are not one finite number >= 0 for each of its items."""
    ages = query.history_age_days
    if not len(ages):
        return
    if len(ages) != len(query.history):
        rule = f"one number for each of the {len(query.history)} items of history, or none"
        raise RequestError(f"queries[{place}].history_age_days", f"got {len(ages)} numbers, expected {rule}")
    for number, age in enumerate(ages):
        if not 0 <= age < math.inf:
            raise RequestError(f"queries[{place}].history_age_days[{number}]", f"got {age}, expected days >= 0")


def _check_ids(query: Query, place: int) -> None:
    """Refuse ids that are not text: the id 7 would be unknown where "7" is known."""
    if query.entity_id is not None and not isinstance(query.entity_id, str):
        raise RequestError(f"queries[{place}].entity_id", f"got {query.entity_id!r}, expected an id as text")
    for name, ids in (("item_ids", query.item_ids), ("history", query.history), ("excluded_ids", query.excluded_ids)):
        if not len(ids):
            continue
        if isinstance(ids, str):
            raise RequestError(f"queries[{place}].{name}", f"got the text {ids!r}, expected a list of ids")
        for kind in set(map(type, ids)):
            if not issubclass(kind, str):
                wrong = next(each for each in ids if type(each) is kind)
                raise RequestError(f"queries[{place}].{name}", f"got {wrong!r}, expected an id as text")
