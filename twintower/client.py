"""The client for threads. Generated from `twintower/aio.py` by `make proto`; do not edit."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self

from twintower import codecs, requests
from twintower.policies import HedgingPolicy, RetryPolicy, check_seconds
from twintower.requests import FilterArgument
from twintower.sessions import SESSION_S, Session
from twintower.tls import ClientTls
from twintower.transport import TIMEOUT_S, Token, Transport
from twintower.types import (
    CatalogChanges,
    Deleted,
    Diversity,
    EncodedQuery,
    Event,
    ExperimentUnit,
    FeedbackItem,
    Float32,
    Query,
    Ranking,
    RecordedEvents,
    Reformulation,
    ReleaseSet,
    ServedRelease,
    Upsert,
    Upserted,
    VectorMatches,
)

RELOAD_S = 600.0


class Client:
    """Calls a server from threads, any number of them; use as a context manager, or `close` it.

    Every call raises RequestError (change the query or another argument), ReleasePinError, UnavailableError (after
    retries), DeadlineError or ServerError.

    Attributes:
        target: `host:port` of the server.

    Args:
        target: `host:port` of the server.
        timeout_s: time allowed for each call with its retries, seconds; with 0 every call raises DeadlineError.
        tls: encrypts the connection; None leaves it open.
        token: an API key or a JWT, or a function that returns one for each call; None for none. Without `tls` everybody
            on the network can read it.
        retry: when a call is repeated.
        hedging: when a query is sent again because its answer takes long; None for never.

    Raises:
        SettingError: a file of `tls` is missing or wrong, `timeout_s` is no number of seconds, or `target` no address.
    """

    def __init__(
        self,
        target: str = "127.0.0.1:50051",
        *,
        timeout_s: float = TIMEOUT_S,
        tls: ClientTls | None = None,
        token: Token | None = None,
        retry: RetryPolicy = RetryPolicy(),  # noqa: B008
        hedging: HedgingPolicy | None = None,
    ) -> None:
        self.target = target
        self._transport = Transport(target, timeout_s=timeout_s, tls=tls, token=token, retry=retry, hedging=hedging)

    def nearest_items(
        self,
        query: Query,
        k: int = 10,
        *,
        filter: FilterArgument | None = None,
        exclude_seen: bool = False,
        diversity: Diversity | None = None,
        unit: ExperimentUnit | None = None,
        include_metadata: bool = False,
        release_pin: str | None = None,
        release_label: str | None = None,
    ) -> Ranking:
        """Return the nearest items of one query.

        Args:
            query: an entity, items, features or a vector.
            k: items to return, >= 1.
            filter: conditions that the items must meet in addition to the query's own: a `Filter`, or a mapping such as
                `{"genre": ["Comedy", "Drama"], "genre !=": "Horror", "year >=": 1990}`.
            exclude_seen: leave out what the entity is known to have met (release, history, events), even if the query
                does not say so; `Ranking.exclusions` reports how many items that were.
            diversity: limits on how similar the items may be; None for no limit.
            unit: whom experiments assign and the exposure log names; None for nobody. A request that names its release
                is in no experiment.
            include_metadata: also return the items' display columns.
            release_pin: the only release that may answer: its name, its fingerprint or at least 8 digits of it.
            release_label: which of several served releases answers; None for `stable`.
        """
        request = requests.nearest_items(
            query,
            k,
            filter=filter,
            exclude_seen=exclude_seen,
            diversity=diversity,
            unit=unit,
            include_metadata=include_metadata,
            release_pin=release_pin,
            release_label=release_label,
        )
        return codecs.ranking_from_proto(self._transport.read(self._transport.recommendation.NearestItems, request))

    def batch_nearest_items(
        self,
        queries: Sequence[Query],
        k: int = 10,
        *,
        filter: FilterArgument | None = None,
        exclude_seen: bool = False,
        diversity: Diversity | None = None,
        include_metadata: bool = False,
        release_pin: str | None = None,
        release_label: str | None = None,
    ) -> list[Ranking]:
        """Return the nearest items of each query, in the queries' order; arguments as in `nearest_items`."""
        request = requests.batch_nearest_items(
            queries,
            k,
            filter=filter,
            exclude_seen=exclude_seen,
            diversity=diversity,
            include_metadata=include_metadata,
            release_pin=release_pin,
            release_label=release_label,
        )
        response = self._transport.read(self._transport.recommendation.BatchNearestItems, request)
        return codecs.rankings_from_proto(response)

    def search_vectors(
        self,
        vectors: Float32,
        k: int = 10,
        *,
        release_pin: str | None = None,
        release_label: str | None = None,
    ) -> VectorMatches:
        """Return the nearest items of each vector, in half of the time of `batch_nearest_items`, which returns more.

        Args:
            vectors: `[vectors, dim]`, float32.
            k: items to return for each vector, >= 1.
            release_pin: see `nearest_items`.
            release_label: see `nearest_items`.
        """
        request = requests.search_vectors(vectors, k, release_pin=release_pin, release_label=release_label)
        response = self._transport.read(self._transport.recommendation.SearchVectors, request)
        return codecs.matches_from_proto(response)

    def encode_query(
        self, query: Query, *, release_pin: str | None = None, release_label: str | None = None
    ) -> EncodedQuery:
        """Return the vector that a query is searched with; arguments as in `nearest_items`."""
        request = requests.encode_query(query, release_pin=release_pin, release_label=release_label)
        response = self._transport.read(self._transport.recommendation.EncodeQuery, request)
        return codecs.encoded_query_from_proto(response)

    def reformulate(
        self,
        query: Query,
        k: int = 10,
        feedback: Sequence[FeedbackItem] = (),
        *,
        pseudo: bool = False,
        depth: int | None = None,
        reformulator: str | None = None,
        guarded: bool = True,
        filter: FilterArgument | None = None,
        exclude_seen: bool = False,
        diversity: Diversity | None = None,
        unit: ExperimentUnit | None = None,
        include_metadata: bool = False,
        include_explanation: bool = False,
        include_feedback_items: bool = False,
        release_pin: str | None = None,
        release_label: str | None = None,
    ) -> Reformulation:
        """Return the nearest items of one query after feedback has moved it.

        Args:
            query: an entity, items, features or a vector.
            k: items to return, >= 1.
            feedback: items with feedback, more important ones first.
            pseudo: also take the first `depth` results of the original query as relevant.
            depth: how many items of feedback count at most, the first known ones; None for the server's limit.
            reformulator: its name; None for the release's default.
            guarded: the guard may keep the original query.
            filter: see `nearest_items`.
            exclude_seen: see `nearest_items`.
            diversity: see `nearest_items`.
            unit: see `nearest_items`.
            include_metadata: also return the items' display columns.
            include_explanation: also return what the feedback did.
            include_feedback_items: do not leave out the items of the feedback; disliked ones then come last.
            release_pin: see `nearest_items`.
            release_label: see `nearest_items`.
        """
        request = requests.reformulate(
            query,
            k,
            feedback,
            pseudo=pseudo,
            depth=depth,
            reformulator=reformulator,
            guarded=guarded,
            filter=filter,
            exclude_seen=exclude_seen,
            diversity=diversity,
            unit=unit,
            include_metadata=include_metadata,
            include_explanation=include_explanation,
            include_feedback_items=include_feedback_items,
            release_pin=release_pin,
            release_label=release_label,
        )
        response = self._transport.read(self._transport.recommendation.Reformulate, request)
        return codecs.reformulation_from_proto(response)

    def session(
        self,
        query: Query,
        k: int = 10,
        *,
        session_s: float = SESSION_S,
        depth: int | None = None,
        reformulator: str | None = None,
        guarded: bool = True,
        filter: FilterArgument | None = None,
        exclude_seen: bool = False,
        diversity: Diversity | None = None,
        unit: ExperimentUnit | None = None,
        include_metadata: bool = False,
        include_explanation: bool = False,
        include_feedback_items: bool = False,
        release_pin: str | None = None,
        release_label: str | None = None,
    ) -> Session:
        """Return a session for several rounds of feedback on one query; use it as a context manager.

        Args:
            query: an entity, items, features or a vector.
            k: items to return in each round, >= 1.
            session_s: time allowed for the whole session, seconds; each round has the client's `timeout_s`.
            depth: see `reformulate`.
            reformulator: see `reformulate`.
            guarded: see `reformulate`.
            filter: see `nearest_items`.
            exclude_seen: see `nearest_items`.
            diversity: see `nearest_items`.
            unit: see `nearest_items`.
            include_metadata: see `reformulate`.
            include_explanation: see `reformulate`.
            include_feedback_items: see `reformulate`.
            release_pin: see `nearest_items`.
            release_label: see `nearest_items`.
        """
        begin = requests.reformulate(
            query,
            k,
            depth=depth,
            reformulator=reformulator,
            guarded=guarded,
            filter=filter,
            exclude_seen=exclude_seen,
            diversity=diversity,
            unit=unit,
            include_metadata=include_metadata,
            include_explanation=include_explanation,
            include_feedback_items=include_feedback_items,
            release_pin=release_pin,
            release_label=release_label,
        )
        return Session(self._transport, begin, session_s=check_seconds("session_s", session_s))

    def release(self, *, release_pin: str | None = None, release_label: str | None = None) -> ServedRelease:
        """Return what the server serves; arguments as in `nearest_items`."""
        request = requests.release(release_pin, release_label)
        return codecs.release_from_proto(self._transport.read(self._transport.recommendation.GetRelease, request))

    def releases(self) -> ReleaseSet:
        """Return every release that the server has loaded, and those that it refused."""
        response = self._transport.call(self._transport.operator.ListReleases, requests.releases())
        return codecs.release_set_from_proto(response)

    def reload_release(
        self, release: str | None = None, *, label: str | None = None, timeout_s: float = RELOAD_S
    ) -> ReleaseSet:
        """Load a release beside those that answer and put it under a label; return what the server has loaded then.

        Args:
            release: its name or fingerprint in the server's folder; None: what the folder has under the label, or its
                newest.
            label: None for `stable`.
            timeout_s: time allowed, seconds.

        Raises:
            ReleaseRefusedError: it is damaged; nothing changed.
        """
        request, allowed_s = requests.reload_release(release, label), check_seconds("timeout_s", timeout_s)
        response = self._transport.call(self._transport.operator.ReloadRelease, request, allowed_s)
        return codecs.release_set_from_proto(response)

    def roll_back_release(self, *, label: str | None = None) -> ReleaseSet:
        """Put the previous release of a label back under it until `reload_release`; return what is loaded then.

        Args:
            label: None for `stable`.
        """
        response = self._transport.call(self._transport.operator.RollBackRelease, requests.roll_back_release(label))
        return codecs.release_set_from_proto(response)

    def upsert_items(self, items: Sequence[Upsert], *, release_pin: str | None = None) -> Upserted:
        """Add or replace items, all or nothing; they can be retrieved once this returns.

        Args:
            items: each by features or by vector.
            release_pin: the release whose space the vectors are of.

        Raises:
            CatalogReadOnlyError: the server was started without `catalogue.folder`.
        """
        request = requests.upsert_items(items, release_pin)
        return codecs.upserted_from_proto(self._transport.call(self._transport.catalog.UpsertItems, request))

    def delete_items(self, item_ids: Sequence[str]) -> Deleted:
        """Remove items; none can be retrieved once this returns."""
        request = requests.delete_items(item_ids)
        return codecs.deleted_from_proto(self._transport.call(self._transport.catalog.DeleteItems, request))

    def catalog(self) -> CatalogChanges:
        """Return what was changed since the release was written."""
        response = self._transport.call(self._transport.catalog.GetCatalog, requests.catalog())
        return codecs.catalog_from_proto(response)

    def record_events(self, events: Sequence[Event]) -> RecordedEvents:
        """Record what came of lists that were shown; repeating it changes nothing more.

        Args:
            events: an event that breaks a rule comes back, all others are recorded.

        Raises:
            EventsNotKeptError: the server keeps no log.
        """
        request = requests.record_events(events)
        return codecs.recorded_from_proto(self._transport.call(self._transport.events.RecordEvents, request))

    def is_serving(self) -> bool:
        """Return whether the server can be reached and is ready."""
        return self._transport.readiness() is None

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready.

        Args:
            timeout_s: longest time to wait, seconds.

        Raises:
            UnavailableError: the server is not ready after that time.
        """
        self._transport.wait_until_ready(timeout_s)

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
