"""`twintower.v1.RecommendationService` over the releases that a server holds."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace

import grpc

from recsys import stages
from recsys.cancellation import checked
from recsys.retrieval import Answer, Matches, ReformulatedAnswer, Retriever, Revision
from recsys.types import Float32
from serving import codecs
from serving.arms import lists
from serving.arms.experiments import Experiments
from serving.arms.lists import Shown
from serving.arms.treatment import Treatment, Way
from serving.exposures.exposure import Exposure
from serving.runtime.releases import Releases
from serving.runtime.steps import Steps, Work, alone
from serving.settings import ServerSettings
from serving.telemetry import calls
from serving.telemetry.calls import Lazy, Move, Searched
from twintower import wire
from twintower.errors import AnswerTooLargeError, RequestError
from twintower.types import ANONYMOUS, NO_DIVERSITY, Diversity, ExperimentUnit, FeedbackItem, Origin, Query, SearchPlan
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.v1 import recommendation_service_pb2_grpc as pb_grpc

Asked = (
    pb.NearestItemsRequest
    | pb.BatchNearestItemsRequest
    | pb.SearchVectorsRequest
    | pb.EncodeQueryRequest
    | pb.ReformulateRequest
    | pb.GetReleaseRequest
)
"""Requests that say which release is to answer."""
FEW = 100
"""Places, ids or items of feedback of a search that others may wait for."""
FEW_SEEN = 1000
"""Items that the entity of such a search has met: so many cost less than a tenth of a search."""
FEW_METADATA_BYTES = 65_536
"""Size of the metadata of such a search's answer."""
PART_IDS = 4096
"""Item ids of a flat list that are encoded between two checkpoints."""
Record = Callable[[Exposure, str], str]
"""Takes a list that is shown and the user it is for, returns its attribution token."""
Reported = Callable[[str], Sequence[str]]
"""Takes a user's id, returns the items that events report the user to have met."""


class RecommendationServicer(pb_grpc.RecommendationServiceServicer):
    """Answers from one release a call.

    Args:
        releases: those that answer at the moment of the call.
        settings: the limits.
        experiments: gives requests with a unit their arms.
        effort: returns what share (0..1] of the settled effort a call may make.
        turn: returns the block that a round of a session is worked on in.
        record: puts what is shown into the log; None where there is none.
        reported: knows what events report users to have met; None where there is no log.
    """

    def __init__(
        self,
        releases: Releases,
        settings: ServerSettings,
        experiments: Experiments,
        effort: Callable[[grpc.ServicerContext], float] = lambda context: 1.0,
        turn: Callable[[], AbstractContextManager[None]] = nullcontext,
        record: Record | None = None,
        reported: Reported | None = None,
    ) -> None:
        self._releases, self._settings, self._effort = releases, settings, effort
        self._experiments, self._record, self._reported, self._turn = experiments, record, reported, turn

    def NearestItems(self, request: pb.NearestItemsRequest, context: grpc.ServicerContext) -> Steps[bytes]:
        """Return the nearest items of one query, in steps."""
        treatment = yield from self._treated(request)
        _check_k(request.k, self._settings)
        query = codecs.query_from_proto(request.query, "query", self._settings)
        user_id = _user_id(query, treatment.retriever, treatment.unit)
        _add_reported(query, user_id, self._reported)
        with _IN_QUERY:
            diversity, effort = _diversity(request), self._effort(context)

            def find(way: Way, k: int) -> Steps[Answer]:
                return (yield _nearest(way.retriever, query, k, diversity, effort, request.include_metadata))

            made = yield from lists.shown(treatment, request.k, diversity, find)
        answer, retriever = made.answer, treatment.retriever
        _tell(Searched(retriever, [query], request.k, [answer]), diversity, as_found=made.is_as_found)
        metadata = _metadata(treatment, retriever, answer, self._settings) if request.include_metadata else ()
        response = pb.NearestItemsResponse(
            result=codecs.ranked_items_to_proto(answer, metadata),
            release=codecs.release_id_to_proto(retriever.release),
            assignments=codecs.assignments_to_proto(treatment.assignments),
        )
        encoded = codecs.encoded([response], self._settings.max_answer_bytes)
        if self._record is None:
            return encoded
        # Only now, so that a list that is too large to be sent does not count as shown.
        response.attribution_token = _recorded(self._record, treatment, made, user_id)
        return response.SerializeToString()

    def BatchNearestItems(self, request: pb.BatchNearestItemsRequest, context: grpc.ServicerContext) -> bytes:
        """Return the nearest items of several queries."""
        retriever = self._retriever(request)
        _check_batch("queries", len(request.queries), request.k, self._settings)
        queries = [
            codecs.query_from_proto(query, f"queries[{place}]", self._settings)
            for place, query in enumerate(checked(request.queries))
        ]
        for query in queries:
            _add_reported(query, _user_id(query, retriever), self._reported)
        with _IN_QUERIES:
            diversity, effort = _diversity(request), self._effort(context)
            answers = retriever.nearest(queries, request.k, diversity, effort=effort)
        _tell(Searched(retriever, queries, request.k, answers), diversity, len(queries))

        def parts() -> Iterator[pb.BatchNearestItemsResponse]:
            yield pb.BatchNearestItemsResponse(release=codecs.release_id_to_proto(retriever.release))
            for answer in answers:
                metadata = _metadata(retriever, retriever, answer, self._settings) if request.include_metadata else ()
                yield pb.BatchNearestItemsResponse(results=[codecs.ranked_items_to_proto(answer, metadata)])

        return codecs.encoded(parts(), self._settings.max_answer_bytes)

    def SearchVectors(self, request: pb.SearchVectorsRequest, context: grpc.ServicerContext) -> bytes:
        """Return the nearest items of several vectors, in flat lists."""
        retriever = self._retriever(request)
        _check_batch("vectors", len(request.vectors), request.k, self._settings)
        vectors = codecs.vectors_from_proto(request.vectors, retriever.release.facts.dim, "vectors")
        matches = retriever.search_vectors(vectors, request.k, effort=self._effort(context))
        call = calls.current()
        call.query_count, call.plan = len(vectors), SearchPlan.INDEX.value
        if not matches.degraded:
            call.searched = _searched(retriever, vectors, request.k, matches)

        def parts() -> Iterator[pb.SearchVectorsResponse]:
            yield pb.SearchVectorsResponse(
                item_counts=matches.counts.tolist(),
                scores_float32_le=matches.scores.astype(wire.LITTLE_ENDIAN, copy=False).tobytes(),
                degraded=matches.degraded,
                release=codecs.release_id_to_proto(retriever.release),
            )
            for first in range(0, len(matches.item_ids), PART_IDS):
                yield pb.SearchVectorsResponse(item_ids=matches.item_ids[first : first + PART_IDS])

        return codecs.encoded(parts(), self._settings.max_answer_bytes)

    def EncodeQuery(self, request: pb.EncodeQueryRequest, context: grpc.ServicerContext) -> pb.EncodeQueryResponse:
        """Return the vector of one query."""
        retriever = self._retriever(request)
        query = codecs.query_from_proto(request.query, "query", self._settings)
        with _IN_QUERY:
            encoding = retriever.encode([query])
        (origin,) = encoding.origins
        response = pb.EncodeQueryResponse(
            origin=wire.ORIGINS[origin],
            missing_ids=encoding.missing_ids[0],
            release=codecs.release_id_to_proto(retriever.release),
        )
        if origin is not Origin.POPULARITY:
            response.vector.values.values.extend(encoding.vectors[0].tolist())
        return response

    def Reformulate(self, request: pb.ReformulateRequest, context: grpc.ServicerContext) -> Steps[bytes]:
        """Return the nearest items of one query after feedback has moved it, in steps."""
        treatment = yield from self._treated(request)
        conversation = Conversation(request, treatment, self._settings, self._record, self._reported)
        conversation.hear(request.feedback)
        response = yield from conversation.answer(self._effort(context))
        return codecs.encoded([response], self._settings.max_answer_bytes)

    def Session(self, requests: Iterator[pb.SessionRequest], context: grpc.ServicerContext) -> Iterator[bytes]:
        """Return an answer after each round of feedback on one query."""
        conversation = None
        for place, request in enumerate(requests, 1):
            step, expected = request.WhichOneof("step"), "begin" if conversation is None else "feedback"
            if step != expected:
                raise RequestError("step", f"got {step or 'nothing'} in round {place}, expected {expected}")
            if place > self._settings.max_rounds:
                raise RequestError("step", f"got round {place}, expected at most {self._settings.max_rounds} rounds")
            with self._turn():
                if conversation is None:
                    begin = request.begin
                    with _within("begin"):
                        treatment = self._treatment(begin)
                        conversation = Conversation(begin, treatment, self._settings, self._record, self._reported)
                        conversation.hear(begin.feedback)
                        answer = alone(conversation.answer())
                else:
                    conversation.hear(request.feedback)
                    answer = alone(conversation.answer())
                response = pb.SessionResponse(answer=answer, round=place)
                encoded = codecs.encoded([response], self._settings.max_answer_bytes)
            yield encoded

    def GetRelease(self, request: pb.GetReleaseRequest, context: grpc.ServicerContext) -> pb.Release:
        """Return what is served."""
        retriever = self._retriever(request)
        return codecs.release_to_proto(retriever, self._releases.holding.labels_of(retriever.release.fingerprint))

    def _treated(self, request: pb.NearestItemsRequest | pb.ReformulateRequest) -> Steps[Treatment]:
        """Return how a request is answered; where changes of the catalogue must be read first, they hold up nobody."""
        if self._releases.are_behind(request.release_pin, request.release_label):
            return (yield Work(lambda requests: [self._treatment(each) for each in requests], request))
        return self._treatment(request)

    def _treatment(self, request: pb.NearestItemsRequest | pb.ReformulateRequest) -> Treatment:
        if not request.HasField("unit"):
            return Treatment((Way(self._retriever(request)),))
        unit = codecs.unit_from_proto(request.unit)
        if request.release_pin or request.release_label:
            return Treatment((Way(self._retriever(request)),), unit, self._experiments.held_out(unit))
        treatment = self._experiments.treatment(unit)
        calls.current().release = treatment.retriever.release
        return treatment

    def _retriever(self, request: Asked) -> Retriever:
        retriever = self._releases.retriever(request.release_pin, request.release_label)
        calls.current().release = retriever.release
        return retriever


class Conversation:
    """One query and all feedback on it so far.

    Args:
        asked: the query, and how it is answered.
        treatment: how it is answered besides, in every round.
        settings: the limits.
        record: puts what is shown into the log; None where there is none.
        reported: knows what events report users to have met; None where there is no log.

    Raises:
        RequestError: the request is against the limits.
    """

    def __init__(
        self,
        asked: pb.ReformulateRequest,
        treatment: Treatment,
        settings: ServerSettings,
        record: Record | None,
        reported: Reported | None,
    ) -> None:
        _check_k(asked.k, settings)
        self._asked, self._treatment, self._settings = asked, treatment, settings
        self._record, self._reported = record, reported
        self._query = codecs.query_from_proto(asked.query, "query", settings)
        self._user_id = _user_id(self._query, treatment.retriever, treatment.unit)
        self._depth = asked.depth if asked.HasField("depth") else settings.max_depth
        if not 0 <= self._depth <= settings.max_depth:
            raise RequestError("depth", f"got {self._depth}, expected 0 to {settings.max_depth}")
        self._mentions: dict[str, FeedbackItem] = {}
        self._pseudo_k = 0

    def hear(self, feedback: pb.Feedback) -> None:
        """Put feedback before what there is; what it says of an item replaces what was said before.

        Raises:
            RequestError: it is no feedback, or too much with what there is.
        """
        if feedback.pseudo and not self._asked.HasField("depth"):
            raise RequestError(
                "feedback.pseudo", "got true without depth, expected depth: how many first results count"
            )
        said = {each.item_id: each for each in codecs.feedback_from_proto(feedback, "feedback", self._settings)}
        self._mentions = said | {item_id: old for item_id, old in self._mentions.items() if item_id not in said}
        most, most_bytes = self._settings.max_feedback, self._settings.max_message_bytes
        if len(self._mentions) > most:
            got = len(self._mentions)
            raise RequestError("feedback.items", f"got {got} with those before, expected at most {most}")
        if sum(len(item_id.encode()) for item_id in self._mentions) > most_bytes:
            raise RequestError("feedback.items", f"got more than {most_bytes} bytes of ids with those before")
        if feedback.pseudo:
            self._pseudo_k = self._depth

    def answer(self, effort: float = 1.0) -> Steps[pb.ReformulateResponse]:
        """Return the answer after all feedback so far, in steps.

        Args:
            effort: share (0..1] of the settled effort; with less than all of it feedback moves nothing.

        Raises:
            RequestError: the release cannot answer the query, or has no such reformulator.
        """
        asked, treatment, diversity = self._asked, self._treatment, _diversity(self._asked)
        moved: list[ReformulatedAnswer] = []
        _add_reported(self._query, self._user_id, self._reported)

        def find(way: Way, k: int) -> Steps[Answer]:
            answer = yield _moved(
                way.retriever,
                Revision(
                    self._query,
                    tuple(self._mentions.values()),
                    self._pseudo_k if effort == 1 else 0,
                    self._depth if effort == 1 else 0,
                ),
                k,
                diversity,
                with_metadata=asked.include_metadata,
                reformulator=way.reformulator or asked.reformulator,
                guarded=not asked.ignore_guard,
                explained=asked.include_explanation,
                include_feedback_items=asked.include_feedback_items,
            )
            moved.append(answer)
            return answer.answer if effort == 1 else replace(answer.answer, degraded=True)

        with _IN_QUERY:
            made = yield from lists.shown(treatment, asked.k, diversity, find)
        answer = moved[0] if made.answer is moved[0].answer else replace(moved[0], answer=made.answer)
        call = calls.current()
        call.plan = _plan(answer.answer)
        call.moves.append(Move(min(self._depth, len(self._mentions) + self._pseudo_k), answer.fell_back))
        retriever = treatment.retriever
        metadata = _metadata(treatment, retriever, answer.answer, self._settings) if asked.include_metadata else ()
        response = codecs.reformulated_to_proto(answer, retriever, metadata)
        response.assignments.extend(codecs.assignments_to_proto(treatment.assignments))
        if self._record is not None:
            # As for NearestItems, what is too large to be sent does not count as shown.
            codecs.encoded([response], self._settings.max_answer_bytes)
            response.attribution_token = _recorded(self._record, treatment, made, self._user_id, answer.reformulator)
        return response


def _nearest(
    retriever: Retriever, query: Query, k: int, diversity: Diversity, effort: float, with_metadata: bool
) -> Work:
    """Return the search for the nearest items of a query, whose answer is an `Answer`."""
    return Work(
        lambda queries: retriever.nearest(queries, k, diversity, effort=effort),
        query,
        ("nearest", retriever, k, effort, len(query.item_ids), query.exclude_seen)
        if _is_short(retriever, query, k, diversity, k if with_metadata else 0)
        else None,
    )


def _moved(
    retriever: Retriever, revision: Revision, k: int, diversity: Diversity, *, with_metadata: bool, **how: Hashable
) -> Work:
    """Return the search for the nearest items of a query with feedback, whose answer is a `ReformulatedAnswer`."""
    query, heard = revision.query, len(revision.mentions) + revision.pseudo_k
    settings = (k, *how.values(), len(query.item_ids), revision.pseudo_k, query.exclude_seen)
    return Work(
        lambda revisions: retriever.reformulate_all(revisions, k, diversity=diversity, **how),
        revision,
        ("moved", retriever, *settings)
        if _is_short(retriever, query, max(k, heard), diversity, k if with_metadata else 0)
        else None,
    )


def _is_short(retriever: Retriever, query: Query, most: int, diversity: Diversity, shown: int) -> bool:
    """Return whether a search may be made together with others, which wait for it.

    Not one for many items or by many, for much metadata, or for an entity that has met many items that are left out,
    and none with a filter, excluded ids or diversity. What somebody watches is made alone, too.

    Args:
        retriever: that searches.
        query: that is searched with.
        most: places of the answer, or items of feedback.
        diversity: as asked for.
        shown: items whose metadata the answer has.
    """
    narrowed = query.filter.all_of or query.excluded_ids or not diversity.changes_nothing
    by = max(len(query.item_ids), len(query.history))
    if narrowed or max(most, by) > FEW or stages.is_watched():
        return False
    if shown and shown * retriever.metadata_bytes > FEW_METADATA_BYTES:
        return False
    return not query.exclude_seen or retriever.seen_count(query) <= FEW_SEEN


def _user_id(query: Query, retriever: Retriever, unit: ExperimentUnit = ANONYMOUS) -> str:
    """Return whom a list is for, so that events of the list are about what this user has met; empty where unknown.

    The query's entity where entities are users, or else the user of the unit.
    """
    if query.entity_id is not None and retriever.release.facts.query_entity == "user":
        return query.entity_id
    return unit.user_id or ""


def _add_reported(query: Query, user_id: str, reported: Reported | None) -> None:
    """Put the items that events report a user to have met into a query that leaves out what was seen."""
    if query.exclude_seen and reported is not None:
        query.reported_ids = reported(user_id)


def _recorded(record: Record, treatment: Treatment, made: Shown, user_id: str, reformulator: str = "") -> str:
    """Put a list into the log and return its token."""
    return record(
        Exposure(
            request_id=calls.current().request_id,
            user_id=treatment.unit.user_id or "",
            session_id=treatment.unit.session_id or "",
            held_out=treatment.held_out,
            assignments=treatment.assignments,
            release=treatment.retriever.release.fingerprint,
            reformulator=reformulator,
            item_ids=made.answer.item_ids,
            scores=made.answer.scores,
            teams=made.teams,
            randomised=made.randomised,
        ),
        user_id,
    )


def _diversity(
    request: pb.NearestItemsRequest | pb.BatchNearestItemsRequest | pb.ReformulateRequest,
) -> Diversity:
    return codecs.diversity_from_proto(request.diversity) if request.HasField("diversity") else NO_DIVERSITY


def _tell(searched: Searched, diversity: Diversity, query_count: int = 0, *, as_found: bool = True) -> None:
    """Put into the call's record how it was answered; a batch also says how many queries it has."""
    call = calls.current()
    call.query_count = query_count
    # Otherwise the best scores are not what was asked for.
    if as_found and diversity.changes_nothing and not searched.answers[0].degraded:
        call.searched = searched
    first = searched.answers[0].plan
    same = all(answer.plan is first for answer in searched.answers)
    call.plan = _plan(searched.answers[0]) if same else "mixed"


def _searched(retriever: Retriever, vectors: Float32, k: int, matches: Matches) -> Searched:
    """Return what was searched for with vectors; only what is looked at is made, and keeps no other."""

    def answer(place: int) -> Answer:
        end = int(matches.counts[: place + 1].sum())
        start = end - int(matches.counts[place])
        return Answer(tuple(matches.item_ids[start:end]), matches.scores[start:end].copy(), Origin.VECTOR, ())

    queries = Lazy(len(vectors), lambda place: Query(vector=vectors[place].copy()))
    return Searched(retriever, queries, k, Lazy(len(vectors), answer))


def _metadata(
    source: Treatment | Retriever, retriever: Retriever, answer: Answer, settings: ServerSettings
) -> list[pb.Columns]:
    """Return the display columns of an answer's items."""
    return codecs.metadata_to_proto(
        source.metadata, answer.item_ids, retriever.metadata_bytes, settings.max_answer_bytes
    )


def _plan(answer: Answer) -> str:
    return answer.plan.value if answer.plan is not None else "popularity"


def _check_k(k: int, settings: ServerSettings) -> None:
    if not 1 <= k <= settings.max_k:
        raise RequestError("k", f"got {k}, expected 1 to {settings.max_k}")


def _check_batch(name: str, count: int, k: int, settings: ServerSettings) -> None:
    _check_k(k, settings)
    if not 1 <= count <= settings.max_batch:
        raise RequestError(name, f"got {count}, expected 1 to {settings.max_batch}")
    if count * k > settings.max_answer_items:
        got, most = f"got {count} with k = {k}, {count * k} items", settings.max_answer_items
        raise RequestError(name, f"{got}, expected at most {most} items in one answer. Send fewer, or a smaller k.")


@contextmanager
def _within(part: str) -> Iterator[None]:
    """Name the field of a mistake by its path from outside of a part of the request."""
    try:
        yield
    except AnswerTooLargeError:
        raise  # about the answer, not about a field
    except RequestError as error:
        raise RequestError(f"{part}.{error.field}", error.reason) from None


class _AsInRequest:
    """Names the field of a mistake by its path in the request, where the library counts queries and knows no entity.

    A class, and not a generator as `_within`, because every call pays for it.

    Args:
        first: the path of the first query.
    """

    def __init__(self, first: str) -> None:
        self._first = first

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RequestError):
            path = error.field.replace("queries[0]", self._first, 1).replace(".features.", ".entity.features.", 1)
            raise RequestError(path, error.reason) from None


_IN_QUERY, _IN_QUERIES = _AsInRequest("query"), _AsInRequest("queries[0]")
