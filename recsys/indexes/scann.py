"""Approximate search with ScaNN: a partition of the items, quantised scores, and exact scores for the best of them."""

from __future__ import annotations

import copy
import dataclasses
import importlib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from recsys.cancellation import checkpoint
from recsys.errors import ReleaseError, StorageError
from recsys.export.release import parts_of
from recsys.indexes import ExactSearcher
from recsys.indexes._checks import checked_queries, checked_vectors
from recsys.indexes._seal import opened, seal
from recsys.registry import settings
from recsys.stack import scann
from recsys.stages import stage
from recsys.types import NO_ROW, Float32, Neighbours
from twintower.errors import RequestError, SettingError, describe, unknown, verbatim

CODEBOOK_ITEMS = 16
"""Codes in a block of ScaNN's quantiser; its training refuses fewer items."""
UNTUNED_LEAVES_RATE = 0.15
UNTUNED_REORDER = 10
PART_QUERIES, PART_PLACES = 16, 2**13
"""Most queries, and most results of all of them together, of one call of ScaNN: such a call takes some 10 ms and cannot
be interrupted. Larger ones are not faster (68,000 x 64)."""
ASSETS = re.compile(r'(assets \{\n  asset_type: [A-Z0-9_]+\n  asset_path: "\w+\.(npy|pb)"\n\}\n)*', re.ASCII)
DISTANCES = frozenset({"DotProductDistance", "SquaredL2Distance"})


@settings()
class Scann:
    """Anisotropic vector quantisation over a partition of the items; 0 or `auto` leaves a choice to tuning.

    An index that is built without tuning takes rules of thumb instead: sqrt(items) leaves, 15 % of them searched,
    quantised scores, and exact scores for the best 10 `target_k`.

    A build cannot be repeated bit by bit: ScaNN numbers the leaves in an order of its own each time, which can change
    the codebook (measured: two codebooks in 16 builds of 150,000 x 50, where 23 % of the top tens differ in some item
    and recall is alike). Certify the index that is served, not one built like it.

    Reference:
        Guo et al. 2020, "Accelerating Large-Scale Inference with Anisotropic Vector Quantization", arXiv:1908.10396.

    Attributes:
        leaves: parts that the items are partitioned into; capped at the number of items. 1 means no partition.
        leaves_to_search: parts that one query looks into, at most `leaves`.
        reorder_k: items with the best quantised scores that get their exact score; grows with k beyond `target_k`.
            Without quantisation every score is exact and nothing is reordered.
        quantisation: `ah` scores in 4-bit codes by table look-up (asymmetric hashing), `none` in float32.
        dimensions_per_block: dimensions that share one 4-bit code.
        anisotropic_threshold: share (0..1, unitless) of the vectors' root-mean-square length from which on an inner
            product counts as large, so that error along the vector is punished more; 0 is plain quantisation.
        target_recall: share (0..1) of the true `target_k` best items that tuning must certify.
        target_k: places at which recall is certified.
        tuning_queries: query vectors that tuning uses at most, one half to choose and one half to certify.
        brute_force_below: catalogues of fewer items are searched exactly; more than there are items forces it. At the
            default ScaNN would save some 25 of 40 microseconds a query and lose recall.
    """

    leaves: int = Field(default=0, ge=0)
    leaves_to_search: int = Field(default=0, ge=0)
    reorder_k: int = Field(default=0, ge=0)
    quantisation: Literal["auto", "ah", "none"] = "auto"
    dimensions_per_block: int = Field(default=2, ge=1, le=16)
    anisotropic_threshold: float = Field(default=0.2, ge=0, lt=1)
    target_recall: float = Field(default=0.95, gt=0, lt=1)
    target_k: int = Field(default=10, ge=1)
    tuning_queries: int = Field(default=2000, ge=2)
    brute_force_below: int = Field(default=5000, ge=0)

    def settled(self, items: int) -> Scann:
        """Return these settings with every open choice made by rule of thumb, within what so many items allow."""
        leaves = min(self.leaves or math.ceil(math.sqrt(items)), items)
        return dataclasses.replace(
            self,
            leaves=leaves,
            leaves_to_search=min(self.leaves_to_search or math.ceil(UNTUNED_LEAVES_RATE * leaves), leaves),
            reorder_k=min(self.reorder_k or UNTUNED_REORDER * self.target_k, items),
            quantisation="none" if items < CODEBOOK_ITEMS else self.quantisation.replace("auto", "ah"),
        )

    def exact(self, items: int) -> bool:
        """Whether a catalogue of so many items is searched exactly."""
        return items < self.brute_force_below

    def build(self, vectors: Float32, folder: Path) -> Mapping[str, Any]:
        """Train and write a ScaNN index, or only `index.json` where the search is exact.

        Args:
            vectors: `[items, dim]`, float32, finite; row = item_row.
            folder: an empty, existing folder; it may be moved or renamed afterwards.

        Returns:
            `search` (`exact` or `scann`) and, for ScaNN, what was settled on.

        Raises:
            ShapeError: vectors are not a finite float32 matrix with at least one row.
            StorageError: ScaNN could not write its files.
        """
        items = len(checked_vectors(vectors))
        if self.exact(items):
            parameters: dict[str, Any] = {"search": "exact"}
        else:
            chosen = self.settled(items)
            searcher = _trained(chosen, np.ascontiguousarray(vectors))
            try:
                searcher.serialize(str(folder), relative_path=True)
            except RuntimeError as error:
                advice = "Make room and run again."
                raise StorageError(describe(str(folder), verbatim(str(error)), "room to write", advice)) from None
            parameters = {"search": "scann"} | {name: getattr(chosen, name) for name in _PARAMETERS}
        seal(folder, "scann", vectors, parameters)
        return parameters

    def load(self, folder: Path, vectors: Float32) -> ScannSearcher | ExactSearcher:
        """Open what `build` wrote; the settings in the folder count, not those of this object.

        Args:
            folder: the folder that `build` filled.
            vectors: the same item vectors, `[items, dim]`, float32; may be a memory map.

        Raises:
            ReleaseError: the folder is incomplete or was built over other vectors.
        """
        parameters = opened(folder, "scann", vectors)
        if parameters["search"] == "exact":
            return ExactSearcher(vectors)
        with parts_of(folder):
            return ScannSearcher(_loaded(folder), vectors, parameters)

    def resettle(self, folder: Path, vectors: Float32) -> Mapping[str, Any]:
        """Write the search-time settings of this object over those in a folder that `build` filled; nothing is rebuilt.

        Args:
            folder: the folder that `build` filled.
            vectors: the same item vectors, `[items, dim]`, float32.

        Returns:
            The parameters that count from now on.

        Raises:
            ReleaseError: the folder is incomplete or was built over other vectors.
        """
        searched = {"leaves_to_search": self.leaves_to_search, "reorder_k": self.reorder_k}
        parameters = opened(folder, "scann", vectors) | searched
        seal(folder, "scann", vectors, parameters)
        return parameters


_PARAMETERS = (
    "leaves",
    "leaves_to_search",
    "reorder_k",
    "quantisation",
    "dimensions_per_block",
    "anisotropic_threshold",
    "target_k",
)


class ScannSearcher:
    """An open ScaNN index. Safe for calls from several threads; batches are faster than threads."""

    def __init__(self, searcher: Any, vectors: Float32, parameters: Mapping[str, Any]) -> None:
        """Hold ScaNN's own searcher, the item vectors, `[items, dim]`, float32, and the parameters of `Scann.build`."""
        self._searcher = searcher
        self._exact = ExactSearcher(vectors)
        self._items, self._dim = vectors.shape
        self.parameters = dict(parameters)

    @stage("search")
    def search(
        self,
        queries: Float32,
        k: int,
        *,
        effort: float = 1.0,
        effort_k: int = 0,
        leaves_to_search: int | None = None,
        reorder_k: int | None = None,
    ) -> Neighbours:
        """Return nearly the k largest inner products for each query, with exact scores.

        A query whose leaves hold fewer than k items is answered by exact search.

        Args:
            queries: `[batch, dim]`, float32, finite, C-contiguous.
            k: places, >= 1; more than there are items gives `NO_ROW` at the end.
            effort: how many times as many leaves to look into as settled on, > 0.
            effort_k: score so many items exactly as a search for `effort_k` results does; 0 means k.
            leaves_to_search: leaves to search instead of the index's own number, >= 1; fewer are faster and find less.
            reorder_k: items to score exactly instead of the index's own number, >= 1.

        Raises:
            RequestError: wrong dimension, NaN or infinity in a query, or k, `leaves_to_search` or `reorder_k` < 1.
        """
        queries = checked_queries(queries, k, self._dim)
        for name, given in (("leaves_to_search", leaves_to_search), ("reorder_k", reorder_k)):
            if given is not None and given < 1:
                raise RequestError(name, f"got {given}, expected >= 1")
        wanted = self.parameters["leaves_to_search"] if leaves_to_search is None else leaves_to_search
        leaves = min(math.ceil(effort * wanted), self.parameters["leaves"])
        found = min(k, self._items)
        reordered = self._reordered(reorder_k, found, effort_k or found)
        if len(queries) == 1:
            row, score = self._searcher.search(queries[0], found, reordered, leaves)
            if len(row) == k and math.isfinite(score[-1]):
                return Neighbours(row[None].view(np.int32), score[None])
            return self._exact.search(queries, k)
        rows = np.full((len(queries), k), NO_ROW, np.int32)
        scores = np.full((len(queries), k), -np.inf, np.float32)
        step = max(1, min(PART_QUERIES, PART_PLACES // found))
        for start in range(0, len(queries), step):
            checkpoint()
            part = slice(start, start + step)
            rows[part, :found], scores[part, :found] = self._searcher.search_batched(
                queries[part], found, reordered, leaves
            )
        short = np.flatnonzero(~np.isfinite(scores[:, found - 1]))
        if len(short):
            exact = self._exact.search(queries[short], k)
            rows[short], scores[short] = exact.item_rows, exact.scores
        return Neighbours(rows, scores)

    def tuned(self, settings: Mapping[str, Any]) -> ScannSearcher:
        """Return the same index searched with other settings.

        Args:
            settings: `leaves_to_search`, 1 to the number of leaves; with quantisation `reorder_k`, >= 1, too.

        Raises:
            SettingError: another setting or value.
        """
        most = {"leaves_to_search": self.parameters["leaves"]}
        if self.parameters["quantisation"] != "none":
            most["reorder_k"] = self._items
        for name, value in settings.items():
            if name not in most:
                raise SettingError(f"index.{name}: {unknown('setting that this index is searched with', name, most)}")
            if type(value) is not int or not 1 <= value <= most[name]:
                raise SettingError(describe(f"index.{name}", value, f"1 to {most[name]}"))
        twin = copy.copy(self)
        twin.parameters = self.parameters | dict(settings)
        return twin

    def _reordered(self, reorder_k: int | None, k: int, effort_k: int) -> int:
        if self.parameters["quantisation"] == "none":
            return -1
        wanted = self.parameters["reorder_k"] if reorder_k is None else reorder_k
        return min(max(k, math.ceil(wanted * max(1, effort_k / self.parameters["target_k"]))), self._items)


def _loaded(folder: Path) -> Any:
    """Return ScaNN's own searcher over the files of a folder, and of no other folder.

    ScaNN's `load_searcher` would also unpickle `scann_docids.pkl`, which runs whatever that file says; its description
    of the files may name any path, and its settings files to read.
    """
    path = folder / "scann_assets.pbtxt"
    assets = path.read_text(encoding="ascii")
    if not ASSETS.fullmatch(assets):
        got = verbatim("another text")
        raise ReleaseError(describe(str(path), got, "a list of files of this folder, as ScaNN writes it"))
    path = folder / "scann_config.pb"
    settings = importlib.import_module("scann.proto.scann_pb2").ScannConfig.FromString(path.read_bytes())
    for text in _texts(settings):
        if text not in DISTANCES:
            raise ReleaseError(describe(str(path), text, "no text but names of distances"))
    module = scann.scann_ops_pybind
    return module.ScannSearcher(module.scann_pybind.ScannNumpy(str(folder), assets))


def _texts(message: Any) -> Iterator[str]:
    """Yield every text in a message and in those within it."""
    for _, value in message.ListFields():
        for each in value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else (value,):
            if isinstance(each, str):
                yield each
            elif hasattr(each, "ListFields"):
                yield from _texts(each)


def _trained(chosen: Scann, vectors: Float32) -> Any:
    builder = scann.scann_ops_pybind.builder(vectors, chosen.target_k, "dot_product")
    if chosen.leaves > 1:
        builder = builder.tree(chosen.leaves, chosen.leaves_to_search)
    if chosen.quantisation == "none":
        return builder.score_brute_force().build()
    length = math.sqrt(float(np.mean(np.einsum("ij,ij->i", vectors, vectors))))
    threshold = chosen.anisotropic_threshold * length or math.nan
    quantised = builder.score_ah(chosen.dimensions_per_block, anisotropic_quantization_threshold=threshold)
    return quantised.reorder(chosen.reorder_k).build()
