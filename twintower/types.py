"""What a client sends and what it gets back: plain values with NumPy arrays, without any wire message."""

from __future__ import annotations

import datetime
import enum
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Float32 = NDArray[np.float32]


class Origin(enum.StrEnum):
    """What a query's vector was made from."""

    KNOWN_ENTITY = "known_entity"
    """Features and history that the release holds for the entity."""
    FEATURES = "features"
    """The request's own features and history; the entity is unknown or anonymous."""
    ITEMS = "items"
    """The mean of the named items' vectors; in an item-to-item release, of their query vectors."""
    VECTOR = "vector"
    """The request's vector, as it is."""
    POPULARITY = "popularity"
    """Nothing was known of the query: the items most frequent in training."""


class FilterType(enum.Enum):
    """What a column of the items holds that can be filtered by."""

    STRING = "string"
    """One string."""
    STRINGS = "strings"
    """Several strings."""
    NUMBER = "number"
    """A number."""
    BOOL = "bool"
    """A truth value."""
    TIME = "time"
    """A date or a time."""


FilterValue = str | bool | int | float | Decimal
"""What a condition compares a column with: a string, a truth value, a number, or a time: ISO 8601 text with up to nine
decimals of a second, UTC unless it names a zone."""


@dataclass(frozen=True)
class Condition:
    """What one column of an item must hold: exactly one of `any_of`, `none_of`, or bounds.

    An item without a value in the column passes `none_of` and nothing else; one with several values passes `any_of`
    where one of them is named, and `none_of` where none is.

    Numbers are compared exactly, whatever type holds them: 2**53 + 1 is more than 2.0**53. Floats and decimals meet at
    the shortest spelling: the float 0.1 finds the decimal 0.1, and both find 0.1 in a float32 column.

    Attributes:
        field: the column.
        any_of: at least one value, of the kind that the column holds.
        none_of: as `any_of`.
        minimum: a number or a time; it passes itself.
        exclusive_minimum: only larger values pass; not together with `minimum`.
        maximum: a number or a time; it passes itself.
        exclusive_maximum: only smaller values pass; not together with `maximum`.
    """

    field: str
    any_of: tuple[FilterValue, ...] | None = None
    none_of: tuple[FilterValue, ...] | None = None
    minimum: FilterValue | None = None
    exclusive_minimum: FilterValue | None = None
    maximum: FilterValue | None = None
    exclusive_maximum: FilterValue | None = None


@dataclass(frozen=True)
class Filter:
    """Which items an answer may hold: those that meet all conditions; without any, every item passes.

    Attributes:
        all_of: the conditions.
    """

    all_of: tuple[Condition, ...] = ()


@dataclass(frozen=True)
class Diversity:
    """How alike the items of one answer may be; by default as alike as they come.

    Attributes:
        crowding_field: the column whose values are to be mixed; None for none. Items without a value do not count.
        max_per_value: most items of one value of that column in an answer: >= 1 where there is a column.
        mmr_weight: 0..1, unitless: 0 ranks by score alone, 1 by distance to the items above alone.
    """

    crowding_field: str | None = None
    max_per_value: int | None = None
    mmr_weight: float = 0.0

    @property
    def changes_nothing(self) -> bool:
        """Whether the items may be as alike as they come."""
        return self.crowding_field is None and self.max_per_value is None and self.mmr_weight == 0


MATCH_ALL = Filter()
NO_DIVERSITY = Diversity()
"""What changes nothing."""


class SearchPlan(enum.StrEnum):
    """How the items of an answer were searched."""

    INDEX = "index"
    """The index, without a condition."""
    EXACT_SUBSET = "exact_subset"
    """Every item that may be shown, exactly: there are few."""
    OVER_FETCH = "over_fetch"
    """The index, deeper than asked, without what may not be shown."""
    ESCALATED = "escalated"
    """The index found too few that may be shown, and every item that may was searched."""


class Repeats(enum.StrEnum):
    """Whether an answer holds items that the query entity has met before."""

    ALLOW = "allow"
    """They stand beside the others; where the release adds an entity's own items to the dense list, by that score."""
    ONLY = "only"
    """Nothing else."""
    EXCLUDE = "exclude"
    """None of them: the same as `Query.exclude_seen`."""


@dataclass(slots=True)  # not frozen, which would make one take four times as long: each query of a call is one
class Query:
    """What a caller wants neighbors of, in exactly one of four forms. Treat as immutable.

    | form | made by |
    |---|---|
    | an entity that the release knows | `Query.for_entity("u1")` |
    | features of an unknown one | `Query.for_features({"age": 30}, history=["i7", "i2"])` |
    | items, such as a basket | `Query.for_items(["i7", "i2"])` |
    | a vector | `Query.for_vector(vector)` |

    Attributes:
        entity_id: a query entity (user, or item in an item-to-item release) that the release knows by name.
        features: raw values by feature name; missing ones count as unknown. Also used where `entity_id` is unknown.
        history: item ids that the entity met, oldest first, an item as often as it was met; goes with `features`.
        history_age_days: for each item of `history`, how many days ago that was, >= 0; empty where that is not known,
            which counts as now.
        item_ids: items that somebody has met, such as a basket: the answer is what goes with them.
        similar: whether the answer is instead what is similar to `item_ids`: what nearly the same vectors find, by
            exact search.
        vector: `[dim]`, float32, finite; searched as it is.
        excluded_ids: items that must not be in the answer.
        filter: conditions that the items of the answer must meet.
        exclude_seen: leave out what the entity is known to have met: all that the release stores for it, `history` and
            `reported_ids`.
        repeats: whether the answer holds items that the entity has met; `EXCLUDE` sets `exclude_seen`.
        reported_ids: items that the entity has met since the release was written, as events report. A server fills
            them in; they do not travel over the wire.
    """

    entity_id: str | None = None
    features: Mapping[str, Any] | None = None
    history: Sequence[str] = ()
    history_age_days: Sequence[float] = ()
    item_ids: Sequence[str] = ()
    similar: bool = False
    vector: Float32 | None = None
    excluded_ids: Sequence[str] = ()
    filter: Filter = MATCH_ALL
    exclude_seen: bool = False
    repeats: Repeats = Repeats.ALLOW
    reported_ids: Sequence[str] = ()

    def __post_init__(self) -> None:
        if self.repeats == Repeats.EXCLUDE:
            self.exclude_seen = True

    @classmethod
    def for_entity(
        cls,
        entity_id: str,
        *,
        features: Mapping[str, Any] | None = None,
        history: Sequence[str] = (),
        history_age_days: Sequence[float] = (),
        excluded_ids: Sequence[str] = (),
        filter: Filter = MATCH_ALL,
        exclude_seen: bool = False,
        repeats: Repeats = Repeats.ALLOW,
    ) -> Query:
        """Return the query of an entity by id: a user, or an item in an item-to-item release.

        Args:
            entity_id: its id.
            features: used where the release does not know the id, raw values by name.
            history: used where the release does not know the id, item ids, oldest first.
            history_age_days: days since each item of `history` was met.
            excluded_ids: see `Query`.
            filter: see `Query`.
            exclude_seen: see `Query`.
            repeats: see `Query`.
        """
        return cls(
            entity_id=entity_id,
            features=features,
            history=history,
            history_age_days=history_age_days,
            excluded_ids=excluded_ids,
            filter=filter,
            exclude_seen=exclude_seen,
            repeats=repeats,
        )

    @classmethod
    def for_features(
        cls,
        features: Mapping[str, Any],
        *,
        history: Sequence[str] = (),
        history_age_days: Sequence[float] = (),
        excluded_ids: Sequence[str] = (),
        filter: Filter = MATCH_ALL,
        exclude_seen: bool = False,
        repeats: Repeats = Repeats.ALLOW,
    ) -> Query:
        """Return the query of somebody whom the release does not know.

        Args:
            features: raw values by name; missing ones count as unknown.
            history: item ids, oldest first.
            history_age_days: days since each item of `history` was met.
            excluded_ids: see `Query`.
            filter: see `Query`.
            exclude_seen: see `Query`.
            repeats: see `Query`.
        """
        return cls(
            features=features,
            history=history,
            history_age_days=history_age_days,
            excluded_ids=excluded_ids,
            filter=filter,
            exclude_seen=exclude_seen,
            repeats=repeats,
        )

    @classmethod
    def for_items(
        cls,
        item_ids: Sequence[str],
        *,
        similar: bool = False,
        excluded_ids: Sequence[str] = (),
        filter: Filter = MATCH_ALL,
    ) -> Query:
        """Return the query of items, such as a basket: the answer is what goes with them.

        Args:
            item_ids: at least one.
            similar: the answer is instead what is similar to them.
            excluded_ids: see `Query`.
            filter: see `Query`.
        """
        return cls(item_ids=item_ids, similar=similar, excluded_ids=excluded_ids, filter=filter)

    @classmethod
    def for_vector(cls, vector: Float32, *, excluded_ids: Sequence[str] = (), filter: Filter = MATCH_ALL) -> Query:
        """Return the query of a vector in the space of the release.

        Args:
            vector: `[dim]`, float32, finite; searched as it is.
            excluded_ids: see `Query`.
            filter: see `Query`.
        """
        return cls(vector=vector, excluded_ids=excluded_ids, filter=filter)


@dataclass(slots=True)  # not frozen, as `Answer`
class Exclusions:
    """How many items of the catalog an answer leaves out, and where they are known from. Treat as immutable.

    An item that is known from several sources counts in each of them, and once in `total_count`.

    Attributes:
        total_count: distinct items that are left out.
        release_count: items that the release stores for the entity.
        request_count: items that the query is about, those of the feedback on it, and with `exclude_seen` those of its
            history.
        event_count: items that events report.
        excluded_id_count: items that `excluded_ids` names.
        release_knows_entity: whether the release stores what the entity has met; without it nothing is left out that
            only the training data knows.
    """

    total_count: int
    release_count: int
    request_count: int
    event_count: int
    excluded_id_count: int
    release_knows_entity: bool


@dataclass(frozen=True)
class ExperimentUnit:
    """Whom experiments assign to an arm, and whom the exposure log names.

    Attributes:
        user_id: None where no user is known; then no experiment on users takes the request.
        session_id: None where there is none; then no experiment on sessions takes the request.
    """

    user_id: str | None = None
    session_id: str | None = None


ANONYMOUS = ExperimentUnit()


class FeedbackKind(enum.IntEnum):
    """How an item came to be feedback."""

    PSEUDO = 0
    """It stands at the top of the first search: taken as relevant without anybody's word."""
    LIKED = 1
    """Somebody said yes."""
    DISLIKED = 2
    """Somebody said no."""
    CLICKED = 3
    """It was shown and chosen."""
    SKIPPED = 4
    """It was shown and passed over."""

    @property
    def positive(self) -> bool:
        """Whether it speaks for the item."""
        return self in (FeedbackKind.PSEUDO, FeedbackKind.LIKED, FeedbackKind.CLICKED)


@dataclass(frozen=True)
class FeedbackItem:
    """One item of feedback, by its id.

    Attributes:
        item_id: as the catalog calls it.
        kind: what was said of it.
        position: place in the list that was shown, 0 = best; None where unknown.
    """

    item_id: str
    kind: FeedbackKind
    position: int | None = None


@dataclass(frozen=True)
class Explanation:
    """Why a reformulated query answers as it does.

    Attributes:
        item_ids: the feedback that was used, in its order.
        item_weights: `[len(item_ids)]`, float32, unitless: how much each item's vector was added to the query's, which
            counts 1; negative ones were moved away from.
        entered_ids: items of the answer that the original query's answer of k items does not have, best first.
        left_ids: items of the original query's answer of k items that are not in this one, best first.
    """

    item_ids: tuple[str, ...]
    item_weights: Float32
    entered_ids: tuple[str, ...]
    left_ids: tuple[str, ...]


@dataclass(frozen=True)
class ReleaseName:
    """Which release answered.

    Attributes:
        name: under which it was published.
        fingerprint: 64 hex digits over all its parts.
    """

    name: str
    fingerprint: str


class ScoredItem(NamedTuple):
    """One item of an answer.

    Attributes:
        id: the item's id.
        score: the higher, the nearer.
        metadata: its display columns by name; empty unless the call included them.
    """

    id: str
    score: float
    metadata: Mapping[str, Any]


@dataclass(frozen=True)
class Ranking:
    """The nearest items of one query, best first: a sequence of `ScoredItem`.

    Attributes:
        item_ids: at most k.
        scores: `[len(item_ids)]`, float32, inner products; where the origin is `POPULARITY`, shares (0..1) of the
            training interactions. Not increasing, unless MMR or an experiment ordered the items.
        metadata: display columns of each item by name; empty unless the call included them.
        origin: what the query's vector was made from; None for an origin that this client does not know.
        missing_ids: ids in the query that the release does not know.
        release: which answered.
        plan: how the items were searched; None where nothing was, or for a plan that this client does not know.
        candidate_count: items that were looked at to fill the answer.
        exhausted: no further item of the catalog may be shown, so that fewer than k need not mean a miss.
        degraded: the search was cut short: recall is lower than promised.
        attribution_token: names this list in `Event`; None where the server keeps no log or had no room for this list,
            and in a batch.
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
    plan: SearchPlan | None
    candidate_count: int
    exhausted: bool
    degraded: bool
    attribution_token: str | None = None
    arms: Mapping[str, str] = field(default_factory=dict)
    exclusions: Exclusions | None = None
    own_scores: Float32 | None = None

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[ScoredItem]:
        metadata = self.metadata or ({},) * len(self.item_ids)
        return map(ScoredItem, self.item_ids, self.scores.tolist(), metadata)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the answer as columns of plain Python values, one value an item, for a data frame or JSON.

        The first two columns are `item_id` and `score`, then come the display columns; None where an item has no value.
        A display column of one of these two names is left out.
        """
        names = dict.fromkeys(name for columns in self.metadata for name in columns)
        columns: dict[str, list[Any]] = {"item_id": list(self.item_ids), "score": self.scores.tolist()}
        for name in names:
            if name not in columns:
                columns[name] = [each.get(name) for each in self.metadata]
        return columns


@dataclass(frozen=True)
class VectorMatches:
    """The nearest items of several vectors, each best first.

    Attributes:
        item_ids: of each vector: k of them, or the whole catalog.
        scores: of each vector, `[len(its item_ids)]`, float32, inner products; read-only.
        release: which answered.
        degraded: the search was cut short: recall is lower than promised.
    """

    item_ids: tuple[tuple[str, ...], ...]
    scores: tuple[Float32, ...]
    release: ReleaseName
    degraded: bool

    def __len__(self) -> int:
        return len(self.item_ids)

    def __iter__(self) -> Iterator[list[ScoredItem]]:
        for item_ids, scores in zip(self.item_ids, self.scores, strict=True):
            yield [ScoredItem(item_id, score, {}) for item_id, score in zip(item_ids, scores.tolist(), strict=True)]


@dataclass(frozen=True)
class Reformulation:
    """The nearest items of one query that feedback moved: a sequence of `ScoredItem`.

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

    def __len__(self) -> int:
        return len(self.ranking)

    def __iter__(self) -> Iterator[ScoredItem]:
        return iter(self.ranking)

    def to_columns(self) -> dict[str, list[Any]]:
        """Return the answer as columns, as `Ranking.to_columns`."""
        return self.ranking.to_columns()


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
        item_count: items in its catalog.
        known_entity_count: entities that it knows by id.
        query_entity: what an `entity_id` names: `user`, `item` or `features` (nothing); None for an entity that this
            client does not know.
        query_features: names that a query's features may have.
        reads_history: whether a query's history is looked at.
        index: kind of its index.
        index_recall: lower confidence bound of the index's recall, 0..1.
        metrics: quality on test data, by metric.
        versions: of the software that wrote it, by distribution.
        notice: what must be said wherever its data is named.
        reformulators: names of those that feedback may be answered with.
        default_reformulator: the one that answers where none is named.
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
    query_entity: str | None
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
class LoadedRelease:
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
class ReleaseSet:
    """What a server holds.

    Attributes:
        releases: those that answer, then those that are kept to roll back to.
        refused: the last one under each label, as long as no other was loaded under it since.
    """

    releases: tuple[LoadedRelease, ...]
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
        missing_ids: those that the catalog did not have.
    """

    sequence: int
    missing_ids: tuple[str, ...]


@dataclass(frozen=True)
class CatalogChanges:
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
        item_id: which item of the list; None where the event is about all of it.
        value: such as money or seconds; None where there is nothing to measure.
        time: when it happened, with time zone; None means now, by the server's clock.
    """

    event_id: str
    attribution_token: str
    kind: str
    item_id: str | None = None
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
