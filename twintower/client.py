"""Typed clients of the service, for threads and for asyncio: deadlines always, retries on UNAVAILABLE only."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import numbers
import queue
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self, TypedDict, TypeVar, Unpack

import grpc
from google.protobuf.wrappers_pb2 import Int32Value, StringValue

from twintower import codecs
from twintower.arguments import told_by_name
from twintower.coalescing import Coalescer
from twintower.errors import DeadlineError, RequestError, SettingError, UnavailableError, describe
from twintower.filters import parse_filter
from twintower.status import error_from_call
from twintower.tls import ClientTls
from twintower.types import (
    ANONYMOUS,
    MATCH_ALL,
    NO_DIVERSITY,
    CatalogChanges,
    Deleted,
    Diversity,
    EncodedQuery,
    Event,
    ExperimentUnit,
    FeedbackItem,
    Filter,
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
from twintower.v1 import catalog_service_pb2 as catalog_pb
from twintower.v1 import catalog_service_pb2_grpc as catalog_pb_grpc
from twintower.v1 import event_service_pb2 as event_pb
from twintower.v1 import event_service_pb2_grpc as event_pb_grpc
from twintower.v1 import operator_service_pb2 as operator_pb
from twintower.v1 import operator_service_pb2_grpc as operator_pb_grpc
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

T = TypeVar("T")
CATALOG = catalog_pb.DESCRIPTOR.services_by_name["CatalogService"].full_name
EVENTS = event_pb.DESCRIPTOR.services_by_name["EventService"].full_name
SERVICE = pb.DESCRIPTOR.services_by_name["RecommendationService"].full_name
Metadata = tuple[tuple[str, str], ...]
Token = str | Callable[[], str]
POLL_S = 0.1
HEALTH_S = 1.0
HEALTH_CHECK = "/grpc.health.v1.Health/Check"
SERVING = 1
"""Of `grpc.health.v1.HealthCheckResponse.ServingStatus`."""
TIMEOUT_S = 1.0
SESSION_S = 600.0
RELOAD_S = 600.0
LONGEST_S = 1e9
"""Beyond it gRPC's arithmetic ends, at some 30 years."""
RETRY_POLICY = {
    "methodConfig": [
        {
            "name": [{"service": SERVICE}, {"service": CATALOG}, {"service": EVENTS}],
            "retryPolicy": {
                "maxAttempts": 5,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.4s",
                "backoffMultiplier": 2,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ]
}
"""At most five attempts, only where the server said UNAVAILABLE or could not be reached, all within the deadline."""

OPTIONS = [
    ("grpc.service_config", json.dumps(RETRY_POLICY)),
    ("grpc.max_receive_message_length", -1),
    # gRPC would wait a second before it looks again for a server that was not there, longer than all attempts.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2000),
    # The server is reached directly, even where the environment names a proxy for the web.
    ("grpc.enable_http_proxy", 0),
]


class Narrowing(TypedDict, total=False):
    """Which items an answer may hold; everything may be left out.

    Attributes:
        where: conditions that the items must meet besides the query's own, as a `Filter` or as `parse_filter` reads
            them: `{"genre": ["Comedy", "Drama"], "genre !=": "Horror", "year >=": 1990}`.
        exclude_seen: leave out what the entity is known to have met (release, history, events), also where the query
            does not say so; `Ranking.exclusions` says how many items that were.
        diversity: how alike the items may be.
    """

    where: Mapping[str, Any] | Filter
    exclude_seen: bool
    diversity: Diversity


class How(Narrowing, total=False):
    """How a query is answered after feedback; everything may be left out.

    Attributes:
        depth: how many items of feedback count at most, the first known ones; None leaves it to the server's limit.
        reformulator: its name; empty for the release's default.
        guarded: let the guard keep the original query, as it does by default.
        release_pin: the only release that will do: its name, its fingerprint or at least 8 digits of it.
        release_label: which of several served releases answers; empty means `stable`.
        include_metadata: also return the items' display columns.
        include_explanation: also say what the feedback did.
        include_feedback_items: do not leave out the items of the feedback; disliked ones then come last.
        unit: who is asking, for experiments and the exposure log; a request that names its release is in no experiment.
    """

    depth: int | None
    reformulator: str
    guarded: bool
    release_pin: str
    release_label: str
    include_metadata: bool
    include_explanation: bool
    include_feedback_items: bool
    unit: ExperimentUnit


class Client:
    """Ask a server from a thread. Safe for calls from several threads; use as a context manager, or `close` it.

    Every call raises RequestError (change the query or another argument), ReleasePinError, UnavailableError (after
    retries), DeadlineError or ServerError.

    Attributes:
        target: where the server is.

    Args:
        target: `host:port`.
        timeout_s: time allowed for each call with its retries, seconds; with 0 every call raises DeadlineError.
        tls: encrypts the connection; None leaves it open.
        token: an API key or a JWT, or what returns one for each call; empty for none. Without `tls` whoever sees the
            network sees it.
        coalesce: `nearest_items` of threads that ask at the same time go to the server together, as one batch (see
            `twintower.coalescing`): 1.8 times the answers of 16 threads, 2.5 times of 32, no fewer of one. Not
            for servers that log what they show: in a batch nothing is logged and there is no `attribution_token`, and
            who has company is chance. Queries with a unit or with diversity go alone, as ever.

    Raises:
        SettingError: a file of `tls` is missing or wrong, `timeout_s` is no number of seconds, or `target` no address.
    """

    def __init__(
        self,
        target: str,
        *,
        timeout_s: float = TIMEOUT_S,
        tls: ClientTls | None = None,
        token: Token = "",
        coalesce: bool = False,
    ) -> None:
        self.target = _place(target)
        self._coalescer = Coalescer(self._nearest_alone, self._nearest_together) if coalesce else None
        self._timeout_s, self._token = _seconds(timeout_s), token
        if tls is None:
            self._channel = grpc.insecure_channel(target, options=OPTIONS)
        else:
            self._channel = grpc.secure_channel(target, tls.credentials(), options=OPTIONS)
        self._service = pb_grpc.RecommendationServiceStub(self._channel)
        self._catalog = catalog_pb_grpc.CatalogServiceStub(self._channel)
        self._events = event_pb_grpc.EventServiceStub(self._channel)
        self._operator = operator_pb_grpc.OperatorServiceStub(self._channel)
        self._health = _health_check(self._channel)

    def nearest_items(
        self,
        query: Query,
        k: int,
        *,
        release_pin: str = "",
        release_label: str = "",
        include_metadata: bool = False,
        unit: ExperimentUnit = ANONYMOUS,
        **narrowing: Unpack[Narrowing],
    ) -> Ranking:
        """Return the nearest items of one query.

        Args:
            query: an entity, items, or a vector.
            k: places.
            release_pin: the only release that will do: its name, its fingerprint or at least 8 digits of it.
            release_label: which of several served releases answers; empty means `stable`.
            include_metadata: also return the items' display columns.
            unit: who is asking, for experiments and the exposure log; a request that names its release is in no
                experiment.
            narrowing: see `Narrowing`.
        """
        request = _nearest(query, k, release_pin, release_label, include_metadata, unit, **narrowing)
        if self._coalescer is None or request.HasField("unit") or request.HasField("diversity"):
            return self._nearest_alone(request, self._timeout_s)
        return self._coalescer.ask((k, release_pin, release_label, include_metadata), request, self._timeout_s)

    def batch_nearest_items(
        self,
        queries: Sequence[Query],
        k: int,
        *,
        release_pin: str = "",
        release_label: str = "",
        include_metadata: bool = False,
        **narrowing: Unpack[Narrowing],
    ) -> list[Ranking]:
        """Return the nearest items of each query, in the queries' order; arguments as in `nearest_items`."""
        request = _batch(queries, k, release_pin, release_label, include_metadata, **narrowing)
        return codecs.rankings_from_proto(self._call(self._service.BatchNearestItems, request))

    def search_vectors(
        self, vectors: Float32, k: int, *, release_pin: str = "", release_label: str = ""
    ) -> VectorMatches:
        """Return the nearest items of each vector, in half of the time of `batch_nearest_items`, which says more.

        Args:
            vectors: `[vectors, dim]`, float32.
            k: places.
            release_pin: the only release that will do: its name, its fingerprint or at least 8 digits of it.
            release_label: which of several served releases answers; empty means `stable`.
        """
        request = _vectors(vectors, k, release_pin, release_label)
        return codecs.matches_from_proto(self._call(self._service.SearchVectors, request))

    def encode_query(self, query: Query, *, release_pin: str = "", release_label: str = "") -> EncodedQuery:
        """Return the vector that a query is searched with."""
        return codecs.encoded_query_from_proto(
            self._call(self._service.EncodeQuery, _encode(query, release_pin, release_label))
        )

    def reformulate(
        self, query: Query, k: int, mentions: Sequence[FeedbackItem] = (), *, pseudo: bool = False, **how: Unpack[How]
    ) -> Reformulation:
        """Return the nearest items of one query after feedback has moved it.

        Args:
            query: an entity, items, or a vector.
            k: places.
            mentions: what somebody said of items, more important ones first.
            pseudo: also take the first `depth` results of the original query as relevant.
            how: see `How`.
        """
        request = _asked(query, k, mentions, pseudo, **how)
        return codecs.reformulation_from_proto(self._call(self._service.Reformulate, request))

    def session(self, query: Query, k: int, *, session_s: float = SESSION_S, **how: Unpack[How]) -> Session:
        """Return a session for several rounds of feedback on one query; use it as a context manager.

        Args:
            query: an entity, items, or a vector.
            k: places.
            session_s: time allowed for the whole session, seconds; each round has the client's `timeout_s`.
            how: see `How`.
        """
        return Session(
            self._service,
            _asked(query, k, **how),
            timeout_s=self._timeout_s,
            session_s=_seconds(session_s, "session_s"),
            metadata=_metadata(self._token),
        )

    def release(self, *, release_pin: str = "", release_label: str = "") -> ServedRelease:
        """Return what is served."""
        return codecs.release_from_proto(self._call(self._service.GetRelease, _named(release_pin, release_label)))

    def releases(self) -> ReleaseSet:
        """Return every release that the server holds, and those that it refused."""
        return codecs.release_set_from_proto(self._call(self._operator.ListReleases, operator_pb.ListReleasesRequest()))

    def reload_release(self, release: str = "", *, label: str = "", timeout_s: float = RELOAD_S) -> ReleaseSet:
        """Let the server load a release beside those that answer, and put it under a label; return what it holds then.

        Args:
            release: its name or fingerprint in the server's folder; empty: what the folder has under the label, or
                its newest.
            label: empty means `stable`.
            timeout_s: time allowed, seconds.

        Raises:
            ReleaseRefusedError: it is damaged; nothing changed.
        """
        return codecs.release_set_from_proto(
            self._call(self._operator.ReloadRelease, _reload(release, label), _seconds(timeout_s))
        )

    def roll_back_release(self, *, label: str = "") -> ReleaseSet:
        """Put the release that a label had before back under it until `reload_release`; return what is held then."""
        return codecs.release_set_from_proto(self._call(self._operator.RollBackRelease, _roll_back(label)))

    def upsert_items(self, items: Sequence[Upsert], *, release_pin: str = "") -> Upserted:
        """Add items or replace those that there are, all or nothing; they can be retrieved once this returns.

        Args:
            items: each by features or by vector.
            release_pin: the release whose space the vectors are of.

        Raises:
            CatalogReadOnlyError: the server was started without `catalogue.folder`.
        """
        return codecs.upserted_from_proto(self._call(self._catalog.UpsertItems, _upserts(items, release_pin)))

    def delete_items(self, item_ids: Sequence[str]) -> Deleted:
        """Remove items; none can be retrieved once this returns."""
        return codecs.deleted_from_proto(self._call(self._catalog.DeleteItems, _deletes(item_ids)))

    def catalog(self) -> CatalogChanges:
        """Return what was changed since the release was written."""
        return codecs.catalog_from_proto(self._call(self._catalog.GetCatalog, catalog_pb.GetCatalogRequest()))

    def record_events(self, events: Sequence[Event]) -> RecordedEvents:
        """Record what came of lists that were shown; repeating it changes nothing more.

        Args:
            events: each stands for itself: one that breaks a rule comes back, all others are recorded.

        Raises:
            EventsNotKeptError: the server keeps no log.
        """
        return codecs.recorded_from_proto(self._call(self._events.RecordEvents, _happened(events)))

    def is_serving(self) -> bool:
        """Tell whether the server can be reached and is ready."""
        return not self._unready()

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready.

        Raises:
            UnavailableError: it is not after `timeout_s` seconds.
        """
        deadline = time.monotonic() + _seconds(timeout_s)
        while why := self._unready():
            if time.monotonic() > deadline:
                raise _not_ready(timeout_s, why)
            time.sleep(POLL_S)

    def close(self) -> None:
        """Close the connection."""
        self._channel.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _unready(self) -> str:
        """Return why the server is not ready; nothing where it is."""
        try:
            return _why(self._health(StringValue(value=SERVICE), timeout=min(self._timeout_s, HEALTH_S)))
        except grpc.RpcError as error:
            return error.details() or error.code().name

    def _nearest_alone(self, request: pb.NearestItemsRequest, timeout_s: float) -> Ranking:
        return codecs.ranking_from_proto(self._call(self._service.NearestItems, request, timeout_s))

    def _nearest_together(self, requests: Sequence[pb.NearestItemsRequest], timeout_s: float) -> list[Ranking]:
        first = requests[0]
        batch = pb.BatchNearestItemsRequest(
            queries=[request.query for request in requests],
            k=first.k,
            release_pin=first.release_pin,
            release_label=first.release_label,
            include_metadata=first.include_metadata,
        )
        return codecs.rankings_from_proto(self._call(self._service.BatchNearestItems, batch, timeout_s))

    def _call(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        try:
            allowed_s = _not_over(self._timeout_s if timeout_s is None else timeout_s)
            return method(request, timeout=allowed_s, metadata=_metadata(self._token))
        except grpc.RpcError as error:
            raise error_from_call(error) from None


class AsyncClient:
    """Ask a server from asyncio; the methods and errors of `Client`, as coroutines. Use as an async context manager.

    Args:
        target: `host:port`.
        timeout_s: time allowed for each call with its retries, seconds; with 0 every call raises DeadlineError.
        tls: encrypts the connection; None leaves it open.
        token: an API key or a JWT, or what returns one for each call; empty for none. Without `tls` whoever sees the
            network sees it.
    """

    def __init__(
        self, target: str, *, timeout_s: float = TIMEOUT_S, tls: ClientTls | None = None, token: Token = ""
    ) -> None:
        target, self._timeout_s, self._token = _place(target), _seconds(timeout_s), token
        if tls is None:
            self._channel = grpc.aio.insecure_channel(target, options=OPTIONS)
        else:
            self._channel = grpc.aio.secure_channel(target, tls.credentials(), options=OPTIONS)
        self._service = pb_grpc.RecommendationServiceStub(self._channel)
        self._catalog = catalog_pb_grpc.CatalogServiceStub(self._channel)
        self._events = event_pb_grpc.EventServiceStub(self._channel)
        self._operator = operator_pb_grpc.OperatorServiceStub(self._channel)
        self._health = _health_check(self._channel)

    async def nearest_items(
        self,
        query: Query,
        k: int,
        *,
        release_pin: str = "",
        release_label: str = "",
        include_metadata: bool = False,
        unit: ExperimentUnit = ANONYMOUS,
        **narrowing: Unpack[Narrowing],
    ) -> Ranking:
        """Return the nearest items of one query, as `Client.nearest_items`."""
        request = _nearest(query, k, release_pin, release_label, include_metadata, unit, **narrowing)
        return codecs.ranking_from_proto(await self._call(self._service.NearestItems, request))

    async def batch_nearest_items(
        self,
        queries: Sequence[Query],
        k: int,
        *,
        release_pin: str = "",
        release_label: str = "",
        include_metadata: bool = False,
        **narrowing: Unpack[Narrowing],
    ) -> list[Ranking]:
        """Return the nearest items of each query, as `Client.batch_nearest_items`."""
        request = _batch(queries, k, release_pin, release_label, include_metadata, **narrowing)
        return codecs.rankings_from_proto(await self._call(self._service.BatchNearestItems, request))

    async def search_vectors(
        self, vectors: Float32, k: int, *, release_pin: str = "", release_label: str = ""
    ) -> VectorMatches:
        """Return the nearest items of each vector, as `Client.search_vectors`."""
        request = _vectors(vectors, k, release_pin, release_label)
        return codecs.matches_from_proto(await self._call(self._service.SearchVectors, request))

    async def encode_query(self, query: Query, *, release_pin: str = "", release_label: str = "") -> EncodedQuery:
        """Return the vector that a query is searched with."""
        return codecs.encoded_query_from_proto(
            await self._call(self._service.EncodeQuery, _encode(query, release_pin, release_label))
        )

    async def reformulate(
        self, query: Query, k: int, mentions: Sequence[FeedbackItem] = (), *, pseudo: bool = False, **how: Unpack[How]
    ) -> Reformulation:
        """Return the nearest items of one query after feedback has moved it, as `Client.reformulate`."""
        request = _asked(query, k, mentions, pseudo, **how)
        return codecs.reformulation_from_proto(await self._call(self._service.Reformulate, request))

    def session(self, query: Query, k: int, *, session_s: float = SESSION_S, **how: Unpack[How]) -> AsyncSession:
        """Return a session for several rounds of feedback on one query, as `Client.session`."""
        return AsyncSession(
            self._service,
            _asked(query, k, **how),
            timeout_s=self._timeout_s,
            session_s=_seconds(session_s, "session_s"),
            metadata=_metadata(self._token),
        )

    async def release(self, *, release_pin: str = "", release_label: str = "") -> ServedRelease:
        """Return what is served."""
        return codecs.release_from_proto(await self._call(self._service.GetRelease, _named(release_pin, release_label)))

    async def releases(self) -> ReleaseSet:
        """Return every release that the server holds, and those that it refused."""
        return codecs.release_set_from_proto(
            await self._call(self._operator.ListReleases, operator_pb.ListReleasesRequest())
        )

    async def reload_release(self, release: str = "", *, label: str = "", timeout_s: float = RELOAD_S) -> ReleaseSet:
        """Let the server load a release and put it under a label, as `Client.reload_release`."""
        return codecs.release_set_from_proto(
            await self._call(self._operator.ReloadRelease, _reload(release, label), _seconds(timeout_s))
        )

    async def roll_back_release(self, *, label: str = "") -> ReleaseSet:
        """Put the release that a label had before back under it, as `Client.roll_back_release`."""
        return codecs.release_set_from_proto(await self._call(self._operator.RollBackRelease, _roll_back(label)))

    async def upsert_items(self, items: Sequence[Upsert], *, release_pin: str = "") -> Upserted:
        """Add items or replace those that there are, as `Client.upsert_items`."""
        return codecs.upserted_from_proto(await self._call(self._catalog.UpsertItems, _upserts(items, release_pin)))

    async def delete_items(self, item_ids: Sequence[str]) -> Deleted:
        """Remove items, as `Client.delete_items`."""
        return codecs.deleted_from_proto(await self._call(self._catalog.DeleteItems, _deletes(item_ids)))

    async def catalog(self) -> CatalogChanges:
        """Return what was changed since the release was written."""
        return codecs.catalog_from_proto(await self._call(self._catalog.GetCatalog, catalog_pb.GetCatalogRequest()))

    async def record_events(self, events: Sequence[Event]) -> RecordedEvents:
        """Record what came of lists that were shown, as `Client.record_events`."""
        return codecs.recorded_from_proto(await self._call(self._events.RecordEvents, _happened(events)))

    async def is_serving(self) -> bool:
        """Tell whether the server can be reached and is ready."""
        return not await self._unready()

    async def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the server is ready, as `Client.wait_until_ready`."""
        deadline = time.monotonic() + _seconds(timeout_s)
        while why := await self._unready():
            if time.monotonic() > deadline:
                raise _not_ready(timeout_s, why)
            await asyncio.sleep(POLL_S)

    async def close(self) -> None:
        """Close the connection."""
        await self._channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _unready(self) -> str:
        try:
            return _why(await self._health(StringValue(value=SERVICE), timeout=min(self._timeout_s, HEALTH_S)))
        except grpc.RpcError as error:
            return error.details() or error.code().name

    async def _call(self, method: Any, request: Any, timeout_s: float | None = None) -> Any:
        try:
            allowed_s = _not_over(self._timeout_s if timeout_s is None else timeout_s)
            return await method(request, timeout=allowed_s, metadata=_metadata(self._token))
        except grpc.RpcError as error:
            raise error_from_call(error) from None


class Session:
    """Several rounds of feedback on one query, from a thread; made by `Client.session`.

    Its answers all come from one release. An error in any round ends it, and the server keeps nothing of it.

    Args:
        service: the stub.
        begin: what every round asks.
        timeout_s: time allowed for each round, seconds.
        session_s: time allowed for all of them, seconds.
        metadata: says who asks.
    """

    def __init__(
        self,
        service: pb_grpc.RecommendationServiceStub,
        begin: pb.ReformulateRequest,
        *,
        timeout_s: float,
        session_s: float,
        metadata: Metadata = (),
    ) -> None:
        self._begin: pb.ReformulateRequest | None = begin
        self._timeout_s = timeout_s
        self._sent: queue.SimpleQueue[pb.SessionRequest | None] = queue.SimpleQueue()
        self._call = service.Session(iter(self._sent.get, None), timeout=session_s, metadata=metadata)

    def ask(self, mentions: Sequence[FeedbackItem] = (), *, pseudo: bool = False) -> Reformulation:
        """Return the answer after one more round of feedback.

        Args:
            mentions: what somebody said of items since the last round; what it says of an item replaces what was said
                before.
            pseudo: from now on also take the first `depth` results of the original query as relevant.

        Raises:
            TwintowerError: as every call of the client; the session is over.
        """
        self._sent.put(_round(self._begin, mentions, pseudo))
        self._begin = None
        with self._patience() as late:
            try:
                return _answered(next(self._call, None))
            except grpc.RpcError as error:
                raise _late(self._timeout_s) if late.is_set() else error_from_call(error) from None

    def close(self) -> None:
        """End the session."""
        self._sent.put(None)
        with self._patience():
            self._call.code()

    @contextmanager
    def _patience(self) -> Iterator[threading.Event]:
        """Cancel the session when the block takes longer than a round may; the event tells of it."""
        late = threading.Event()

        def give_up() -> None:
            late.set()
            self._call.cancel()

        timer = threading.Timer(self._timeout_s, give_up)
        timer.start()
        try:
            yield late
        finally:
            timer.cancel()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncSession:
    """Several rounds of feedback on one query, from asyncio; made by `AsyncClient.session`, as `Session`.

    Args:
        service: the stub.
        begin: what every round asks.
        timeout_s: time allowed for each round, seconds.
        session_s: time allowed for all of them, seconds.
        metadata: says who asks.
    """

    def __init__(
        self,
        service: pb_grpc.RecommendationServiceStub,
        begin: pb.ReformulateRequest,
        *,
        timeout_s: float,
        session_s: float,
        metadata: Metadata = (),
    ) -> None:
        self._begin: pb.ReformulateRequest | None = begin
        self._timeout_s = timeout_s
        self._ended: grpc.RpcError | None = None
        self._call = service.Session(timeout=session_s, metadata=metadata)
        self._call.add_done_callback(self._keep_status)

    async def ask(self, mentions: Sequence[FeedbackItem] = (), *, pseudo: bool = False) -> Reformulation:
        """Return the answer after one more round of feedback, as `Session.ask`."""
        request = _round(self._begin, mentions, pseudo)
        self._begin = None
        try:
            async with asyncio.timeout(self._timeout_s):
                if not self._call.done():
                    await self._call.write(request)
                response = await self._call.read()
            return _answered(None if response is grpc.aio.EOF else response)
        except TimeoutError:
            self._call.cancel()
            raise _late(self._timeout_s) from None
        except grpc.RpcError as error:
            raise error_from_call(self._ended or error) from None

    async def close(self) -> None:
        """End the session."""
        try:
            async with asyncio.timeout(self._timeout_s):
                await self._call.done_writing()
                await self._call.code()
        except TimeoutError:
            self._call.cancel()

    def _keep_status(self, call: grpc.aio.Call) -> None:
        """Keep the status the server ended the call with: a write that fails after it puts INTERNAL in its place."""
        self._ended = grpc.aio.AioRpcError(
            _at_once(call.code()),
            _at_once(call.initial_metadata()),
            _at_once(call.trailing_metadata()),
            _at_once(call.details()),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def _narrowed(query: Query, *, where: Mapping[str, Any] | Filter = MATCH_ALL, exclude_seen: bool = False) -> Query:
    """Return a query with further conditions on the items."""
    if where is MATCH_ALL and not exclude_seen:
        return query
    further = where if isinstance(where, Filter) else parse_filter(where)
    return dataclasses.replace(
        query,
        filter=Filter(query.filter.all_of + further.all_of),
        exclude_seen=query.exclude_seen or exclude_seen,
    )


@told_by_name(Narrowing)
def _nearest(
    query: Query,
    k: int,
    release_pin: str,
    release_label: str,
    include_metadata: bool,
    unit: ExperimentUnit,
    *,
    diversity: Diversity = NO_DIVERSITY,
    **further: Any,
) -> pb.NearestItemsRequest:
    return pb.NearestItemsRequest(
        query=codecs.query_to_proto(_narrowed(query, **further)),
        k=_places(k),
        release_pin=release_pin,
        release_label=release_label,
        include_metadata=include_metadata,
        diversity=None if diversity is NO_DIVERSITY else codecs.diversity_to_proto(diversity),
        unit=codecs.unit_to_proto(unit),
    )


@told_by_name(Narrowing)
def _batch(
    queries: Sequence[Query],
    k: int,
    release_pin: str,
    release_label: str,
    include_metadata: bool,
    *,
    diversity: Diversity = NO_DIVERSITY,
    **further: Any,
) -> pb.BatchNearestItemsRequest:
    return pb.BatchNearestItemsRequest(
        queries=[
            codecs.query_to_proto(_narrowed(query, **further), f"queries[{place}]")
            for place, query in enumerate(queries)
        ],
        k=_places(k),
        release_pin=release_pin,
        release_label=release_label,
        include_metadata=include_metadata,
        diversity=None if diversity is NO_DIVERSITY else codecs.diversity_to_proto(diversity),
    )


@told_by_name()
def _vectors(vectors: Float32, k: int, release_pin: str, release_label: str) -> pb.SearchVectorsRequest:
    return pb.SearchVectorsRequest(
        vectors=codecs.vectors_to_proto(vectors, "vectors"),
        k=_places(k),
        release_pin=release_pin,
        release_label=release_label,
    )


def _places(k: int, where: str = "k") -> int:
    if not isinstance(k, int) or not -codecs.INT32_MAX <= k <= codecs.INT32_MAX:
        raise RequestError(where, f"got {k!r}, expected a whole number of places")
    return k


@told_by_name()
def _encode(query: Query, release_pin: str, release_label: str) -> pb.EncodeQueryRequest:
    return pb.EncodeQueryRequest(
        query=codecs.query_to_proto(query), release_pin=release_pin, release_label=release_label
    )


@told_by_name(How)
def _asked(
    query: Query,
    k: int,
    mentions: Sequence[FeedbackItem] = (),
    pseudo: bool = False,
    *,
    depth: int | None = None,
    reformulator: str = "",
    guarded: bool = True,
    release_pin: str = "",
    release_label: str = "",
    include_metadata: bool = False,
    include_explanation: bool = False,
    include_feedback_items: bool = False,
    diversity: Diversity = NO_DIVERSITY,
    unit: ExperimentUnit = ANONYMOUS,
    **further: Any,
) -> pb.ReformulateRequest:
    return pb.ReformulateRequest(
        query=codecs.query_to_proto(_narrowed(query, **further)),
        feedback=codecs.feedback_to_proto(mentions, pseudo),
        depth=None if depth is None else _places(depth, "depth"),
        reformulator=reformulator,
        k=_places(k),
        release_pin=release_pin,
        release_label=release_label,
        include_metadata=include_metadata,
        include_explanation=include_explanation,
        include_feedback_items=include_feedback_items,
        ignore_guard=not guarded,
        diversity=None if diversity is NO_DIVERSITY else codecs.diversity_to_proto(diversity),
        unit=codecs.unit_to_proto(unit),
    )


@told_by_name()
def _round(begin: pb.ReformulateRequest | None, mentions: Sequence[FeedbackItem], pseudo: bool) -> pb.SessionRequest:
    feedback = codecs.feedback_to_proto(mentions, pseudo)
    if begin is None:
        return pb.SessionRequest(feedback=feedback)
    request = pb.SessionRequest(begin=begin)
    request.begin.feedback.CopyFrom(feedback)
    return request


def _answered(response: pb.SessionResponse | None) -> Reformulation:
    if response is None:
        raise RequestError("session", "got feedback after it was closed, expected none. Begin another")
    return codecs.reformulation_from_proto(response.answer)


def _late(timeout_s: float) -> DeadlineError:
    return DeadlineError(f"the round did not end within {timeout_s:g} s. Allow more time, or ask for less.")


@told_by_name()
def _named(release_pin: str, release_label: str) -> pb.GetReleaseRequest:
    return pb.GetReleaseRequest(release_pin=release_pin, release_label=release_label)


@told_by_name()
def _reload(release: str, label: str) -> operator_pb.ReloadReleaseRequest:
    return operator_pb.ReloadReleaseRequest(label=label, release=release)


@told_by_name()
def _roll_back(label: str) -> operator_pb.RollBackReleaseRequest:
    return operator_pb.RollBackReleaseRequest(label=label)


@told_by_name()
def _upserts(items: Sequence[Upsert], release_pin: str) -> catalog_pb.UpsertItemsRequest:
    return catalog_pb.UpsertItemsRequest(
        items=[codecs.upsert_to_proto(item, f"items[{place}]") for place, item in enumerate(items)],
        release_pin=release_pin,
    )


@told_by_name()
def _deletes(item_ids: Sequence[str]) -> catalog_pb.DeleteItemsRequest:
    return catalog_pb.DeleteItemsRequest(item_ids=codecs.ids_to_proto(item_ids, "item_ids"))


@told_by_name()
def _happened(events: Sequence[Event]) -> event_pb.RecordEventsRequest:
    return event_pb.RecordEventsRequest(
        events=[codecs.event_to_proto(event, f"events[{place}]") for place, event in enumerate(events)]
    )


def _place(target: str) -> str:
    if not isinstance(target, str) or not target or " " in target or not target.isprintable():
        raise SettingError(describe("target", target, "`host:port`, as a text of printable letters without spaces"))
    return target


def _seconds(value: float, where: str = "timeout_s") -> float:
    if not isinstance(value, numbers.Real) or not 0 <= value <= LONGEST_S:
        raise SettingError(describe(where, value, f"a number of seconds, 0 to {LONGEST_S:g}"))
    return float(value)


def _not_over(allowed_s: float) -> float:
    """Return a time limit that is not over yet: gRPC may still answer a call whose deadline is now."""
    if allowed_s <= 0:
        raise DeadlineError("no time was left for the call (0 s). Allow more time.")
    return allowed_s


def _metadata(token: Token) -> Metadata:
    told = token() if callable(token) else token
    if not (isinstance(told, str) and told.isascii() and told.isprintable()):
        # Not shown: it is a secret, also where it is a wrong one.
        raise SettingError("token: expected printable ASCII characters in one line.")
    return (("authorization", f"Bearer {told}"),) if told else ()


def _health_check(channel: Any) -> Any:
    """Return the method of the standard health service.

    Its request is one string and its response one enum, each field 1: the wire of `StringValue` and `Int32Value`. So no
    further package is needed for its messages.
    """
    return channel.unary_unary(
        HEALTH_CHECK, request_serializer=StringValue.SerializeToString, response_deserializer=Int32Value.FromString
    )


def _why(answer: Int32Value) -> str:
    return "" if answer.value == SERVING else "it is loading or stopping"


def _not_ready(timeout_s: float, why: str) -> UnavailableError:
    advice = "See whether it runs and what its log says."
    return UnavailableError(f"no server was ready within {timeout_s:g} s ({why}). {advice}")


def _at_once(known: Coroutine[Any, Any, T]) -> T:
    """Return the result of a coroutine that has nothing to wait for."""
    try:
        known.send(None)
    except StopIteration as end:
        return end.value
    known.close()
    raise RuntimeError("the coroutine waits for something.")
