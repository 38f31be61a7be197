"""What the client takes and returns: frozen, with NumPy arrays, and no wire messages."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from recsys.retrieval import Explanation
from recsys.types import Exclusions, FeedbackKind, FilterType, Float32, Origin, Plan


@dataclass(frozen=True)
class ReleaseName:
    """Which release answered.

    Attributes:
        name: under which it was published.
        fingerprint: 64 hex digits over all its parts.
    """

    name: str
    fingerprint: str


@dataclass(frozen=True)
class Ranking:
    """The nearest items of one query, best first.

    Attributes:
        item_ids: at most k.
        scores: `[len(item_ids)]`, float32, inner products; where the origin is `POPULARITY`, shares (0..1) of the
            training interactions. Not increasing, unless MMR or an experiment ordered the items.
        metadata: display columns of each item by name; empty unless asked for.
        origin: what the query's vector was made from; None where the server is newer than this client and says
            something else.
        missing_ids: ids in the query that the release does not know.
        release: which answered.
        plan: how the items were searched; None where nothing was, or where the server is newer or older than this
            client.
        candidate_count: items that were looked at to fill the answer.
        exhausted: no further item of the catalogue may be shown, so that fewer than k need not mean a miss.
        degraded: the search was cut short: recall is lower than promised.
        attribution_token: names this list in `Event`; empty where the server keeps no log or had no room for this
            list, and in a batch.
        arms: the arm that answered, by experiment that the request was in; `interleaved` where it was both.
        exclusions: how many items were left out and where they are known from; None where the query has neither
            `exclude_seen` nor `excluded_ids`.
        own_scores: `[len(item_ids)]`, float32, >= 0: the part of each score that comes from the entity having met the
            item itself; None where the release adds nothing for own items, or the entity has none.
    """

    item_ids: tuple[str, ...]
    scores: Float32
    metadata: tuple[dict[str, Any], ...]
    origin: Origin | None
    missing_ids: tuple[str, ...]
    release: ReleaseName
    plan: Plan | None
    candidate_count: int
    exhausted: bool
    degraded: bool
    attribution_token: str = ""
    arms: Mapping[str, str] = field(default_factory=dict)
    exclusions: Exclusions | None = None
    own_scores: Float32 | None = None


@dataclass(frozen=True)
class VectorMatches:
    """The nearest items of several vectors, each best first.

    Attributes:
        item_ids: of each vector: k of them, or the whole catalogue.
        scores: of each vector, `[len(its item_ids)]`, float32, inner products; read-only.
        release: which answered.
        degraded: the search was cut short: recall is lower than promised.
    """

    item_ids: tuple[tuple[str, ...], ...]
    scores: tuple[Float32, ...]
    release: ReleaseName
    degraded: bool


@dataclass(frozen=True)
class Reformulation:
    """The nearest items of one query that feedback moved.

    Attributes:
        ranking: the items; its `missing_ids` are those of the query.
        vector: `[dim]`, float32, what was searched with; None where the origin is `POPULARITY`, which nothing moves.
        reformulator: the name of the one that was used.
        drift: 1 - cosine of original and moved query, 0..2, whether the guard let it pass or not.
        confidence: of the guard that the move does not hurt, 0..1; 1 where it has no opinion.
        fell_back: the guard kept the original query.
        missing_ids: ids of the feedback that the release does not know.
        explanation: what the feedback did; None unless asked for.
        ignored_kinds: kinds of the feedback that the reformulator does not read: they moved nothing.
    """

    ranking: Ranking
    vector: Float32 | None
    reformulator: str
    drift: float
    confidence: float
    fell_back: bool
    missing_ids: tuple[str, ...]
    explanation: Explanation | None
    ignored_kinds: tuple[FeedbackKind, ...] = ()


@dataclass(frozen=True)
class EncodedQuery:
    """The vector of one query.

    Attributes:
        vector: `[dim]`, float32; of unit length unless the query was a vector itself; None where the origin is
            `POPULARITY`.
        origin: what it was made from; None as for a `Ranking`.
        missing_ids: ids in the query that the release does not know.
        release: which answered.
    """

    vector: Float32 | None
    origin: Origin | None
    missing_ids: tuple[str, ...]
    release: ReleaseName


@dataclass(frozen=True)
class ServedRelease:
    """What a server answers from.

    Attributes:
        name: under which it was published.
        fingerprint: 64 hex digits over all its parts.
        created: when it was written, UTC.
        format_version: of its folder.
        dim: length of its vectors.
        item_count: items in its catalogue.
        known_entity_count: entities that it knows by id.
        query_entity: what an `entity_id` names: `user`, `item` or `features` (nothing); empty where the
            server is newer than this client.
        query_features: names that a query's features may have.
        reads_history: whether a query's history is looked at.
        index: kind of its index.
        index_recall: lower confidence bound of the index's recall, 0..1.
        metrics: quality on test data, by metric.
        versions: of the software that wrote it, by distribution.
        notice: what must be said wherever its data is named.
        reformulators: names of those that feedback may be answered with.
        default_reformulator: the one that answers where none is named; empty where the server is older than this
            client.
        filter_fields: columns that `where` and `Diversity.crowding_field` may name, and what each holds; those of a
            kind that only newer clients know are left out.
        labels: under which it is served; none for one that is only kept to roll back to.
    """

    name: str
    fingerprint: str
    created: datetime.datetime
    format_version: int
    dim: int
    item_count: int
    known_entity_count: int
    query_entity: str
    query_features: tuple[str, ...]
    reads_history: bool
    index: str
    index_recall: float
    metrics: Mapping[str, float]
    versions: Mapping[str, str]
    notice: str
    reformulators: tuple[str, ...]
    default_reformulator: str
    filter_fields: Mapping[str, FilterType]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class HeldRelease:
    """A release that a server has loaded.

    Attributes:
        name: under which it was published.
        fingerprint: 64 hex digits over all its parts.
        labels: under which it answers; none for one that an arm names or that is kept to roll back to.
        loaded: when it had been loaded, UTC.
        rolled_back: a label was taken back to it and is not moved by the folder.
    """

    name: str
    fingerprint: str
    labels: tuple[str, ...]
    loaded: datetime.datetime
    rolled_back: bool


@dataclass(frozen=True)
class RefusedRelease:
    """A release that a server did not load.

    Attributes:
        name: its name.
        label: that it should have had.
        reason: why.
        time: when, UTC.
    """

    name: str
    label: str
    reason: str
    time: datetime.datetime


@dataclass(frozen=True)
class HeldReleases:
    """What a server holds.

    Attributes:
        releases: those that answer, then those that are kept to roll back to.
        refused: the last one under each label, as long as no other was loaded under it since.
    """

    releases: tuple[HeldRelease, ...]
    refused: tuple[RefusedRelease, ...]


@dataclass(frozen=True)
class Upsert:
    """An item to add or replace: by features or by a vector.

    Attributes:
        item_id: its id.
        features: raw values by name, for the item tower of the release and of every later one.
        vector: `[dim]`, float32, in the space of the release; a later one refuses it.
        metadata: display columns by name; what is not named has no value.
    """

    item_id: str
    features: Mapping[str, Any] | None = None
    vector: Float32 | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Upserted:
    """Items were added or replaced, and are on disk.

    Attributes:
        sequence: the change's place in the log.
        added_count: items that were not there before.
        replaced_count: items that were.
        release: which encoded them.
    """

    sequence: int
    added_count: int
    replaced_count: int
    release: ReleaseName


@dataclass(frozen=True)
class Deleted:
    """Items were removed, and that is on disk.

    Attributes:
        sequence: the change's place in the log.
        missing_ids: those that the catalogue did not have.
    """

    sequence: int
    missing_ids: tuple[str, ...]


@dataclass(frozen=True)
class ChangedCatalogue:
    """What was changed since the release was written.

    Attributes:
        sequence: the last change that counts.
        item_count: items that can be retrieved.
        upserted_count: items that were added or replaced.
        deleted_count: items of the release that were removed.
        refused_ids: items upserted by vector for an earlier release, which this one does not show.
        release: that they stand beside.
    """

    sequence: int
    item_count: int
    upserted_count: int
    deleted_count: int
    refused_ids: tuple[str, ...]
    release: ReleaseName


@dataclass(frozen=True)
class Event:
    """Something that happened to a list that was shown, or to one of its items.

    Attributes:
        event_id: chosen by the caller, such as a UUID; the same id again is the same event again.
        attribution_token: of the answer that it is about.
        kind: such as `click`, as the experiment file's metrics name it.
        item_id: which item of the list; empty where it is about all of it.
        value: such as money or seconds; None where there is nothing to measure.
        time: when it happened, with time zone; None means now, by the server's clock.
    """

    event_id: str
    attribution_token: str
    kind: str
    item_id: str = ""
    value: float | None = None
    time: datetime.datetime | None = None


@dataclass(frozen=True)
class RejectedEvent:
    """An event that was not recorded.

    Attributes:
        place: in what was sent, from 0.
        reason: `INVALID`, `UNKNOWN_TOKEN`, `BEFORE_EXPOSURE`, `TOO_LATE`, `IN_FUTURE`, `NOT_WRITTEN` (send this one
            again), or a number where the server is newer than this client.
        message: the same in words.
    """

    place: int
    reason: str
    message: str


@dataclass(frozen=True)
class RecordedEvents:
    """What became of events.

    Attributes:
        recorded_count: how many were new.
        duplicate_count: how many the server knew already.
        rejected: those that were not recorded, in the order in which they were sent.
    """

    recorded_count: int
    duplicate_count: int
    rejected: tuple[RejectedEvent, ...]
