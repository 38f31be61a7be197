"""The reformulators of a release: what they move a query to, how far, and whether their guards let it pass."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from recsys import registry
from recsys.documents import read_json
from recsys.export.release import parts_of
from recsys.files import write_atomically
from recsys.reformulators import NO_WEIGHTS, Reformulator, Weights, lengths, unit
from recsys.retrieval.guard import Guard, signals
from recsys.stages import stage
from recsys.types import NO_ROW, Bool, Feedback, Float32, ItemRoles, Neighbours, Reformulated
from twintower.errors import RequestError, SettingError, describe, unknown
from twintower.types import FeedbackKind

FOLDER = "reformulators"
SETTINGS = "settings.json"
WEIGHTS = "weights.npz"
DEFAULT = "default.json"
CHOICE = "choice.json"
UNTRAINED = ("identity", "average", "history", "rocchio")
"""Kinds that every release can use under their own names, with their default settings."""


@dataclass(frozen=True)
class Move:
    """Where a batch of queries was moved to.

    Attributes:
        vectors: `[batch, dim]`, float32: moved, or the original where the guard fell back.
        item_weights: `[batch, k]`, float32; see `Reformulated`.
        drift: `[batch]`, float32, 1 - cosine of original and moved query, whether it was let pass or not.
        confidence: `[batch]`, float32, 0..1; 1 where the guard has none.
        fell_back: `[batch]`, bool, where the guard kept the original.
    """

    vectors: Float32
    item_weights: Float32
    drift: Float32
    confidence: Float32
    fell_back: Bool


@dataclass(frozen=True)
class NamedReformulator:
    """A reformulator with all that it needs.

    Attributes:
        name: under which requests ask for it.
        choice: from `recsys.reformulators`.
        weights: of a learned one.
        guard: which moves pass; by default all.
        facts: how it was trained and judged, plain values for JSON.
    """

    name: str
    choice: Reformulator
    weights: Weights = field(default_factory=lambda: NO_WEIGHTS)
    guard: Guard = field(default_factory=Guard)
    facts: Mapping[str, Any] = field(default_factory=dict)

    @cached_property
    def ready(self) -> Weights:
        """The weights as `choice.reformulate` takes them."""
        return self.choice.ready(np, self.weights) if self.weights else NO_WEIGHTS

    @property
    def ignores(self) -> frozenset[FeedbackKind]:
        """Kinds of feedback that move no query: by its kind, or because its training did not show that they help."""
        return self.choice.ignores | {FeedbackKind[name] for name in self.facts.get("ignores", ())}

    def reformulate(self, queries: Float32, feedback: Feedback) -> Reformulated:
        """Return where the queries move, the guard off.

        Args:
            queries: `[batch, dim]`, float32, finite, not all zero.
            feedback: of the same batch and dim.
        """
        if ignored := self.facts.get("ignores"):
            kept = feedback.present & ~np.isin(feedback.kinds, [FeedbackKind[name] for name in ignored])
            feedback = replace(feedback, present=kept)
        return self.choice.reformulate(queries, feedback, self.ready)

    @stage("reformulate")
    def move(self, queries: Float32, feedback: Feedback, *, guarded: bool = True) -> Move:
        """Return the moved queries.

        Args:
            queries: `[batch, dim]`, float32, finite, not all zero.
            feedback: of the same batch and dim.
            guarded: keep the original where the guard does not let a move pass.
        """
        moved = self.reformulate(queries, feedback)
        of_moves = signals(queries, feedback, moved.vectors)
        confidence = self.guard.confidence(of_moves)
        # Without feedback nothing moves, and there is nothing to fall back from.
        fell_back = guarded & feedback.present.any(axis=1) & ~self.guard.accepts(of_moves, confidence)
        vectors = np.where(fell_back[:, None], queries, moved.vectors)
        return Move(vectors, moved.item_weights, of_moves[:, 0], confidence, fell_back)

    def save(self, home: Path, *, default: bool) -> None:
        """Write it into a release folder; one of this name that is there is replaced.

        Args:
            home: the release's folder.
            default: whether requests that name none get it from now on.
        """
        folder = home / FOLDER / self.name
        folder.mkdir(parents=True, exist_ok=True)
        for old in folder.iterdir():
            old.unlink()  # a derived release holds hard links, which must not be written into
        settings = _Settings(registry.table_of(self.choice), registry.plain(self.guard), dict(self.facts))
        np.savez(folder / WEIGHTS, **self.weights)
        write_atomically(folder / SETTINGS, json.dumps(asdict(settings), indent=1) + "\n")
        if default:
            set_default(home, self.name)


def set_default(home: Path, name: str, reasons: Mapping[str, Any] | None = None) -> None:
    """Write into a release folder which reformulator requests get that name none.

    Args:
        home: the release's folder.
        name: of one that the release holds, or of an untrained kind.
        reasons: why, plain values for JSON; None where nothing decided.
    """
    folder = home / FOLDER
    folder.mkdir(exist_ok=True)
    for path in (folder / DEFAULT, folder / CHOICE):
        path.unlink(missing_ok=True)  # a derived release holds hard links, which must not be written into
    write_atomically(folder / DEFAULT, json.dumps(name) + "\n")
    if reasons is not None:
        write_atomically(folder / CHOICE, json.dumps(reasons, indent=1) + "\n")


class Reformulators:
    """What a release can reformulate with, by name.

    Args:
        named: those that it holds; the untrained kinds come besides unless one of them has the name.
        default: what a request gets that names none.
    """

    def __init__(self, named: Iterable[NamedReformulator] = (), default: str = "identity") -> None:
        untrained = (NamedReformulator(kind, registry.build(FOLDER, {"kind": kind}, kind)) for kind in UNTRAINED)
        self._named = {one.name: one for one in (*untrained, *named)}
        self.default = default

    @classmethod
    def load(cls, home: Path) -> Reformulators:
        """Open those of a release folder; one without any has the untrained kinds.

        Raises:
            ReleaseError: a part is missing or broken.
        """
        folder = home / FOLDER
        if not folder.is_dir():
            return cls()
        with parts_of(folder):
            named = [_load(path.parent) for path in sorted(folder.glob(f"*/{SETTINGS}"))]
            default = folder / DEFAULT
            loaded = cls(named, read_json(default, str)) if default.exists() else cls(named)
            loaded.get()
            return loaded

    @property
    def names(self) -> tuple[str, ...]:
        """All names, sorted."""
        return tuple(sorted(self._named))

    def get(self, name: str = "") -> NamedReformulator:
        """Return the one of a name; empty means the default.

        Raises:
            RequestError: there is none of this name.
        """
        name = name or self.default
        if name not in self._named:
            raise RequestError("reformulator", unknown("reformulator in this release", name, self._named))
        return self._named[name]


def feedback_of(
    queries: Float32,
    roles: ItemRoles,
    item_rows: np.ndarray,
    *,
    query_lengths: Float32 | None = None,
    kinds: np.ndarray | None = None,
    ranks: np.ndarray | None = None,
) -> Feedback:
    """Return item rows as feedback on queries.

    Args:
        queries: `[batch, dim]`, float32.
        roles: the vectors of the items; may be memory maps.
        item_rows: `[batch, k]`, integers, `NO_ROW` after the last of each query.
        query_lengths: `[batch]`, float32, > 0, how much each query weighs against an item; None means 1.
        kinds: `[batch, k]`, values of `FeedbackKind`; None means pseudo feedback.
        ranks: `[batch, k]`, `NO_ROW` where unknown; None means 0, 1, ... in order.
    """
    present, rows = item_rows != NO_ROW, np.maximum(item_rows, 0)
    found, query_side = (np.asarray(each[rows], np.float32) for each in (roles.found, roles.query_side))
    raw = lengths(query_side)[..., 0]
    relative = raw if query_lengths is None else raw / query_lengths[:, None]
    found, directions = found * present[..., None], unit(query_side) * present[..., None]
    # As in training, which knows queries of unit length only; a request may bring a vector of any length.
    scores = np.vecdot(unit(queries)[:, None], found)
    if kinds is None:
        kinds = np.full(item_rows.shape, FeedbackKind.PSEUDO, np.int32)
    if ranks is None:
        ranks = np.broadcast_to(np.arange(item_rows.shape[1], dtype=np.int32), item_rows.shape)
    away = (found - roles.center) * present[..., None]
    return Feedback(directions, relative, away, kinds, ranks, scores, present)


def pseudo_feedback(
    queries: Float32, roles: ItemRoles, first: Neighbours, depth: int, query_lengths: Float32 | None = None
) -> Feedback:
    """Return the first results of a search as feedback.

    Args:
        queries: `[batch, dim]`, float32, that the search was made with.
        roles: the vectors of the items.
        first: what it found.
        depth: how many of its items count, at most.
        query_lengths: see `feedback_of`.
    """
    return feedback_of(queries, roles, first.item_rows[:, :depth], query_lengths=query_lengths)


def _load(folder: Path) -> NamedReformulator:
    settings = read_json(folder / SETTINGS, _Settings)
    choice = registry.build(FOLDER, settings.reformulator, f"{folder.name}.reformulator")
    with open(folder / WEIGHTS, "rb") as file, np.load(file, allow_pickle=False) as stored:
        weights = dict(stored)
    if choice.learned and weights.keys() != choice.initial(1, 0).keys():
        raise ValueError(f"{folder.name}: weights {', '.join(sorted(weights))} are not those of its settings")
    return NamedReformulator(
        name=folder.name,
        choice=choice,
        weights=weights,
        guard=registry.parse(Guard, settings.guard, f"{folder.name}.guard"),
        facts=settings.facts,
    )


@dataclass(frozen=True)
class _Settings:
    """The content of `settings.json`: settings with their kind, settings of the guard, facts about the training."""

    reformulator: dict[str, Any]
    guard: dict[str, Any]
    facts: dict[str, Any]


def check_name(name: str) -> str:
    """Return the name of a reformulator if it can be one: it becomes a folder's name and stands in requests.

    Raises:
        SettingError: anything but letters, digits, `_` and `-`, or more than 64 of them.
    """
    if not 0 < len(name) <= 64 or not all(letter.isascii() and (letter.isalnum() or letter in "_-") for letter in name):
        raise SettingError(describe("--name", name, "1 to 64 letters, digits, '_' and '-'"))
    return name
