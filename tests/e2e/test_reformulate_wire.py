"""Feedback over real gRPC: one call and sessions, on a trained release in this process, on a free port."""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent import futures
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pyarrow.parquet as pq
import pytest
from google.rpc import error_details_pb2

from recsys import registry
from recsys.export.release import Release, derive
from recsys.retrieval import Retriever, Revision
from recsys.retrieval.guard import SIGNALS, Guard
from recsys.retrieval.reformulation import NamedReformulator
from serving.server import Server
from tests.e2e.test_wire import log_lines, refusal, running, stub
from tests.worlds import copy_of
from twintower.aio import AsyncClient
from twintower.client import Client
from twintower.errors import DeadlineError, OverloadedError, ReleasePinError, RequestError, UnavailableError
from twintower.types import FeedbackItem, FeedbackKind, Origin, Query
from twintower.v1 import recommendation_service_pb2 as pb

LIKED, DISLIKED, CLICKED, SKIPPED = (
    FeedbackKind.LIKED,
    FeedbackKind.DISLIKED,
    FeedbackKind.CLICKED,
    FeedbackKind.SKIPPED,
)
K = 5


def query_vector() -> np.ndarray:
    vector = np.zeros(8, np.float32)
    vector[0] = 1
    return vector


QUERY = Query(vector=query_vector())


def likes(*rows: int) -> list[FeedbackItem]:
    return [FeedbackItem(f"item-ü{row}", LIKED) for row in rows]


def unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def with_reformulators(release: Release, root: Path) -> Release:
    """Derive, below `root`, one with a Rocchio that never moves, a doubtful one, and the trained kinds, untrained."""
    rocchio = registry.build("reformulators", {"kind": "rocchio", "beta": 12.0}, "rocchio")
    attention = registry.build("reformulators", {"kind": "attention", "width": 8, "heads": 2}, "attention")
    linear = registry.build("reformulators", {"kind": "linear_feedback"}, "linear_feedback")
    # a constant of -60 and no signal: a confidence of 1 / (1 + e^60), about 0
    doubt = Guard(min_confidence=0.5, coefficients=(-60.0,) + (0.0,) * len(SIGNALS))

    def change(folder: Path) -> dict[str, object]:
        NamedReformulator("rocchio", registry.build("reformulators", {"kind": "rocchio"}, "plain")).save(
            folder, default=False
        )
        NamedReformulator("never", rocchio, guard=Guard(max_drift=0.0)).save(folder, default=False)
        NamedReformulator("doubtful", rocchio, guard=doubt).save(folder, default=False)
        NamedReformulator("learned", attention, attention.initial(8, 0)).save(folder, default=True)
        NamedReformulator("pairs", linear, linear.initial(8, 0)).save(folder, default=False)
        return {}

    return derive(copy_of(release, root), change)


@pytest.fixture(scope="module")
def plain(block_release) -> Retriever:
    return Retriever.load(block_release.folder)


@pytest.fixture(scope="module")
def retriever(block_release, tmp_path_factory) -> Retriever:
    return Retriever.load(with_reformulators(block_release, tmp_path_factory.mktemp("reformulators")).folder)


@pytest.fixture(scope="module")
def item_vectors(block_release) -> dict[str, np.ndarray]:
    ids = pq.read_table(block_release.folder / "items.parquet")["item_id"].to_pylist()
    return dict(zip(ids, np.load(block_release.folder / "item_embeddings.npy"), strict=True))


@pytest.fixture(scope="module")
def met(block_release) -> dict[str, np.ndarray]:
    """What having met each item adds to the vector of a typical query."""
    ids = pq.read_table(block_release.folder / "items.parquet")["item_id"].to_pylist()
    return dict(zip(ids, np.load(block_release.folder / "query_side" / "vectors.npy"), strict=True))


@pytest.fixture(scope="module")
def server(retriever) -> Iterator[Server]:
    with running(retriever) as up:
        yield up


@pytest.fixture(scope="module")
def client(server) -> Iterator[Client]:
    with Client(server.address, timeout_s=20.0) as ready:
        yield ready


def test_liked_items_move_the_query_and_the_answer_says_how(client, item_vectors, met):
    # rocchio: 0.4 q + 0.6 m, divided by 0.4: q + 1.5 m, brought to unit length
    q, m = query_vector(), met["item-ü3"]
    moved = unit(q + 1.5 * m)
    answer = client.reformulate(QUERY, K, likes(3), reformulator="rocchio", include_explanation=True)
    np.testing.assert_allclose(answer.vector, moved, rtol=1e-5)
    assert answer.vector.dtype == np.float32
    np.testing.assert_allclose(answer.drift, 1 - q @ moved, rtol=1e-4)
    assert (answer.reformulator, answer.confidence, answer.fell_back, answer.missing_ids) == ("rocchio", 1.0, False, ())
    ranked = sorted(item_vectors, key=lambda item_id: -item_vectors[item_id] @ moved)[:K]
    assert list(answer.ranking.item_ids) == ranked
    np.testing.assert_allclose(answer.ranking.scores, [item_vectors[item_id] @ moved for item_id in ranked], rtol=1e-5)
    assert answer.ranking.origin is Origin.VECTOR


def test_the_explanation_tells_the_weights_and_what_entered_and_left(client, met):
    said = [*likes(3, 5), FeedbackItem("item-ü8", DISLIKED)]
    before = client.nearest_items(QUERY, K).item_ids
    answer = client.reformulate(QUERY, K, said, reformulator="never", guarded=False, include_explanation=True)
    told = answer.explanation
    # two positive ones share 12 / 0.4 = 30 of what having met them means, and 0.008 / 0.4 = 0.02 away from the other
    assert told.item_ids == ("item-ü3", "item-ü5", "item-ü8")
    lengths = [np.linalg.norm(met[item_id]) for item_id in ("item-ü3", "item-ü5")]
    np.testing.assert_allclose(told.item_weights, [15 * lengths[0], 15 * lengths[1], -0.02], rtol=1e-5)
    assert told.entered_ids == tuple(each for each in answer.ranking.item_ids if each not in before)
    assert told.left_ids == tuple(each for each in before if each not in answer.ranking.item_ids)
    assert len(told.entered_ids) == len(told.left_ids) > 0


def test_nothing_is_explained_unless_asked_for(client):
    assert client.reformulate(QUERY, K, likes(3)).explanation is None


def test_pseudo_feedback_takes_the_first_results_as_relevant(client, met):
    first = client.nearest_items(QUERY, 3).item_ids
    answer = client.reformulate(QUERY, K, pseudo=True, depth=3, reformulator="average", include_explanation=True)
    assert answer.explanation.item_ids == first
    np.testing.assert_allclose(
        answer.vector, unit(query_vector() + sum(met[item_id] for item_id in first)), rtol=1e-4, atol=1e-6
    )


def test_what_was_said_comes_before_first_results_and_depth_counts_both(client):
    first = client.nearest_items(QUERY, 3).item_ids
    said = [FeedbackItem(first[1], DISLIKED), *likes(39)]
    answer = client.reformulate(QUERY, K, said, pseudo=True, depth=3, include_explanation=True)
    # of the first three results the second has been named already; one more has room
    assert answer.explanation.item_ids == (first[1], "item-ü39", first[0])
    answer = client.reformulate(QUERY, K, said, depth=1, include_explanation=True)
    assert answer.explanation.item_ids == (first[1],)


@pytest.mark.parametrize(
    "name", ["", "average", "doubtful", "history", "identity", "learned", "never", "pairs", "rocchio"]
)
def test_depth_0_answers_exactly_as_the_original_query(client, name):
    plain = client.nearest_items(QUERY, K, include_metadata=True)
    for said, pseudo in ((likes(3), False), ([], True), (likes(3), True)):
        answer = client.reformulate(QUERY, K, said, pseudo=pseudo, depth=0, reformulator=name, include_metadata=True)
        assert (answer.ranking.item_ids, answer.ranking.metadata) == (plain.item_ids, plain.metadata)
        np.testing.assert_array_equal(answer.ranking.scores, plain.scores)
        np.testing.assert_array_equal(answer.vector, query_vector())
        assert (answer.drift, answer.reformulator) == (0, name or "learned")


def test_an_empty_list_of_feedback_answers_as_the_original_query(client):
    plain = client.nearest_items(Query(entity_id="user 7"), K)
    answer = client.reformulate(Query(entity_id="user 7"), K, reformulator="rocchio", include_explanation=True)
    assert answer.ranking.item_ids == plain.item_ids
    np.testing.assert_array_equal(answer.ranking.scores, plain.scores)
    assert (answer.drift, answer.fell_back, answer.missing_ids) == (0, False, ())
    assert answer.explanation.item_ids == answer.explanation.entered_ids == answer.explanation.left_ids == ()


def test_a_learned_reformulator_before_training_leaves_the_query(client):
    answer = client.reformulate(QUERY, K, likes(3, 4, 5), reformulator="learned")
    np.testing.assert_allclose(answer.vector, query_vector(), atol=1e-7)


def test_feedback_that_the_release_does_not_know_comes_back_and_counts_as_nothing(client):
    known = client.reformulate(QUERY, K, likes(3), reformulator="rocchio", depth=1)
    said = [
        FeedbackItem("gone", LIKED),
        *likes(3),
        FeedbackItem("never", SKIPPED),
        FeedbackItem("", LIKED),
        FeedbackItem("gone", LIKED),
    ]
    answer = client.reformulate(QUERY, K, said, reformulator="rocchio", depth=1)
    assert answer.missing_ids == ("gone", "never", "")
    assert answer.ranking.missing_ids == ()
    np.testing.assert_array_equal(answer.vector, known.vector)


def test_ids_of_the_query_and_of_the_feedback_are_missing_apart(client):
    query = Query(entity_id="nobody", features={"town": "north"})
    answer = client.reformulate(query, K, [FeedbackItem("gone", LIKED)])
    assert (answer.ranking.missing_ids, answer.missing_ids) == (("nobody",), ("gone",))


def test_ten_thousand_items_of_feedback_are_answered(client):
    said = [*likes(*range(40)), *(FeedbackItem(f"stranger {place}", CLICKED, place) for place in range(9_960))]
    answer = client.reformulate(QUERY, K, said, include_explanation=True)
    assert len(answer.missing_ids) == 9_960
    assert len(answer.explanation.item_ids) == 40
    with pytest.raises(RequestError, match="got 10001 items, expected at most 10000") as caught:
        client.reformulate(QUERY, K, [*said, *likes(1)])
    assert caught.value.field == "feedback.items"


def test_no_more_items_count_than_the_limit_of_depth(retriever):
    with running(retriever, max_depth=7) as server, Client(server.address, timeout_s=20.0) as client:
        answer = client.reformulate(QUERY, K, likes(*range(40)), include_explanation=True)
        assert answer.explanation.item_ids == tuple(f"item-ü{row}" for row in range(7))
        for depth in (8, -1):
            with pytest.raises(RequestError, match=f"got {depth}, expected 0 to 7") as caught:
                client.reformulate(QUERY, K, depth=depth)
            assert caught.value.field == "depth"


def test_an_item_named_twice_counts_once_as_it_was_named_last(client, met):
    twice = client.reformulate(
        QUERY,
        K,
        [*likes(3), FeedbackItem("item-ü3", DISLIKED), *likes(4)],
        reformulator="average",
        include_explanation=True,
    )
    assert twice.explanation.item_ids == ("item-ü3", "item-ü4")
    np.testing.assert_allclose(twice.explanation.item_weights, [0, np.linalg.norm(met["item-ü4"])], rtol=1e-5)
    same = client.reformulate(QUERY, K, likes(4, 4, 4), reformulator="average")
    np.testing.assert_array_equal(same.vector, client.reformulate(QUERY, K, likes(4), reformulator="average").vector)


@pytest.mark.parametrize("name", ["average", "history", "identity", "learned", "pairs", "rocchio"])
@pytest.mark.parametrize("kind", [DISLIKED, SKIPPED])
def test_feedback_that_only_says_no_gives_a_finite_answer(client, name, kind):
    said = [FeedbackItem(f"item-ü{row}", kind, row) for row in range(40)]
    answer = client.reformulate(QUERY, K, said, reformulator=name, include_feedback_items=True)
    assert len(answer.ranking.item_ids) == K
    assert client.reformulate(QUERY, K, said, reformulator=name).ranking.item_ids == ()
    assert np.isfinite(answer.ranking.scores).all()
    np.testing.assert_allclose(np.linalg.norm(answer.vector), 1, rtol=1e-5)


def test_items_of_the_feedback_come_back_only_where_the_request_says_so(client):
    first = client.nearest_items(QUERY, K).item_ids
    said = [FeedbackItem(first[0], LIKED), FeedbackItem(first[1], DISLIKED)]
    answer = client.reformulate(QUERY, K, said, reformulator="identity")
    assert answer.ranking.item_ids == client.nearest_items(QUERY, K + 2).item_ids[2:]
    assert answer.ignored_kinds == (LIKED, DISLIKED)
    kept = client.reformulate(QUERY, 40, said, reformulator="identity", include_feedback_items=True)
    assert (kept.ranking.item_ids[0], kept.ranking.item_ids[-1], len(kept.ranking.item_ids)) == (*first[:2], 40)
    assert client.reformulate(QUERY, K, pseudo=True, depth=2, reformulator="history").ignored_kinds == (
        FeedbackKind.PSEUDO,
    )
    with client.session(QUERY, 40, reformulator="identity", include_feedback_items=True) as session:
        session.reformulate(said[:1])
        assert session.reformulate(said[1:]).ranking.item_ids == kept.ranking.item_ids
    with client.session(QUERY, K, reformulator="identity") as session:
        session.reformulate(said[:1])
        assert session.reformulate(said[1:]).ranking.item_ids == answer.ranking.item_ids


def test_a_query_by_items_is_a_history_and_similar_items_are_found_by_like_vectors(client, plain, item_vectors):
    basket = ["item-ü3", "item-ü4"]
    answers = [client.nearest_items(query, K) for query in (Query(item_ids=basket), Query(history=basket))]
    excluded = [item_id for item_id in answers[1].item_ids if item_id not in basket]
    assert [item_id for item_id in answers[0].item_ids if item_id in excluded] == excluded
    similar = client.nearest_items(Query(item_ids=["item-ü3"], similar=True), K)
    ranked = sorted(item_vectors, key=lambda item_id: -item_vectors[item_id] @ item_vectors["item-ü3"])
    assert list(similar.item_ids) == ranked[1 : K + 1]
    assert similar.origin is Origin.ITEMS


def test_likes_extend_the_history_and_a_dislike_makes_the_item_the_last(plain):
    with running(plain) as server, Client(server.address, timeout_s=20.0) as client:
        begun = Query(history=["item-ü1", "item-ü2"])
        answer = client.reformulate(begun, K, [FeedbackItem("item-ü9", CLICKED), *likes(7)], reformulator="history")
        (longer,) = plain.encode([Query(history=["item-ü1", "item-ü2", "item-ü7", "item-ü9"])]).vectors
        assert answer.reformulator == "history"
        np.testing.assert_allclose(answer.vector, longer, atol=1e-5)
        before = client.nearest_items(Query(entity_id="user 4"), 40).item_ids
        for item_id in before[:5]:
            said = [FeedbackItem(item_id, DISLIKED)]
            after = client.reformulate(Query(entity_id="user 4"), 40, said, include_feedback_items=True)
            assert after.ranking.item_ids[-1] == item_id


def test_positions_reach_the_reformulator(block_release, tmp_path):
    # given: attention whose weights look at nothing but the rank
    attention = registry.build("reformulators", {"kind": "attention", "width": 8, "heads": 2}, "attention")
    weights = attention.initial(8, 0)
    weights["item_weight"] = np.arange(8, dtype=np.float32)[:, None]
    ranked = NamedReformulator("ranked", attention, weights)
    release = derive(copy_of(block_release, tmp_path), lambda folder: ranked.save(folder, default=True) or {})
    with running(Retriever.load(release.folder)) as server, Client(server.address, timeout_s=20.0) as client:
        vectors = [
            client.reformulate(QUERY, K, [FeedbackItem("item-ü3", CLICKED, position)]).vector
            for position in (0, 7, None)
        ]
    assert len({vector.tobytes() for vector in vectors}) == 3


def test_the_guard_keeps_the_original_query_and_says_so(client, met):
    lengths = np.linalg.norm([met["item-ü3"], met["item-ü5"]], axis=1)
    plain = client.nearest_items(QUERY, K)
    for name, confidence in (("never", 1), ("doubtful", 0)):
        answer = client.reformulate(QUERY, K, likes(3, 5), reformulator=name, include_explanation=True)
        assert answer.fell_back
        assert answer.ranking.item_ids == plain.item_ids
        np.testing.assert_array_equal(answer.vector, query_vector())
        # drift, confidence and weights are those of the move that was not made
        assert answer.drift > 0.01
        assert answer.confidence == pytest.approx(confidence, abs=1e-6)
        np.testing.assert_allclose(answer.explanation.item_weights, 15 * lengths, rtol=1e-5)
        assert answer.explanation.entered_ids == answer.explanation.left_ids == ()


def test_the_guard_can_be_switched_off(client, met):
    free = unit(query_vector() + 15 * (met["item-ü3"] + met["item-ü5"]))
    for name in ("never", "doubtful"):
        answer = client.reformulate(QUERY, K, likes(3, 5), reformulator=name, guarded=False)
        assert not answer.fell_back
        np.testing.assert_allclose(answer.vector, free, rtol=1e-4, atol=1e-6)


def test_an_unknown_reformulator_is_the_callers_mistake_and_names_the_known_ones(client, server):
    with pytest.raises(RequestError, match="Did you mean 'rocchio'") as caught:
        client.reformulate(QUERY, K, likes(3), reformulator="rochio")
    assert caught.value.field == "reformulator"
    request = pb.ReformulateRequest(query=pb.Query(entity=pb.Entity(entity_id="user 1")), k=1, reformulator="x")
    code, details = refusal(lambda: stub(server).Reformulate(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details[error_details_pb2.BadRequest].field_violations[0].field == "reformulator"


def test_the_release_names_its_reformulators(client):
    release = client.release()
    assert release.reformulators == (
        "average",
        "doubtful",
        "history",
        "identity",
        "learned",
        "never",
        "pairs",
        "rocchio",
    )
    assert release.default_reformulator == "learned"
    assert client.reformulate(QUERY, K, likes(3)).reformulator == "learned"


@pytest.mark.parametrize(
    ("query", "field"),
    [
        (Query(vector=np.full(8, np.nan, np.float32)), "query.vector"),
        (Query(vector=np.ones(7, np.float32)), "query.vector"),
        (Query(), "query"),
        (Query(features={"colour": "red"}), "query.entity.features.colour"),
    ],
)
def test_a_query_that_cannot_be_answered_names_its_field(client, query, field):
    with pytest.raises(RequestError) as caught:
        client.reformulate(query, K, likes(3))
    assert caught.value.field == field
    with client.session(query, K) as session, pytest.raises(RequestError) as caught:
        session.reformulate()
    assert caught.value.field == f"begin.{field}"


@pytest.mark.parametrize(
    ("feedback", "field"),
    [
        (pb.Feedback(items=[pb.FeedbackItem(item_id="a", kind="FEEDBACK_KIND_LIKED"), {}]), "feedback.items[1].kind"),
        (pb.Feedback(items=[pb.FeedbackItem(item_id="a", kind=99)]), "feedback.items[0].kind"),
        (pb.Feedback(items=[pb.FeedbackItem(item_id="a", kind=1, position=-1)]), "feedback.items[0].position"),
        (pb.Feedback(pseudo=True), "feedback.pseudo"),
    ],
)
def test_feedback_that_makes_no_sense_names_its_field(server, feedback, field):
    request = pb.ReformulateRequest(query=pb.Query(entity=pb.Entity(entity_id="user 1")), k=1, feedback=feedback)
    code, details = refusal(lambda: stub(server).Reformulate(request))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details[error_details_pb2.BadRequest].field_violations[0].field == field


@pytest.mark.parametrize("k", [0, 1001])
def test_k_outside_its_limits_is_the_callers_mistake(client, k):
    with pytest.raises(RequestError, match=f"got {k}, expected 1 to 1000") as caught:
        client.reformulate(QUERY, k)
    assert caught.value.field == "k"


def test_a_pin_to_another_release_is_refused(client):
    for ask in (
        lambda: client.reformulate(QUERY, K, release_pin="f" * 64),
        lambda: client.session(QUERY, K, release_pin="f" * 64).reformulate(),
    ):
        with pytest.raises(ReleasePinError):
            ask()


def test_a_query_of_which_nothing_is_known_gets_popular_items_whatever_the_feedback(client):
    plain = client.nearest_items(Query(entity_id="nobody"), K)
    answer = client.reformulate(Query(entity_id="nobody"), K, likes(3), include_explanation=True)
    assert (answer.ranking.origin, answer.ranking.item_ids) == (Origin.POPULARITY, plain.item_ids)
    assert (answer.vector, answer.drift, answer.confidence, answer.fell_back) == (None, 0, 1, False)
    assert answer.explanation.item_ids == ()


def test_the_rounds_of_a_session_add_up(client):
    both = client.reformulate(QUERY, K, likes(5, 3), reformulator="average", include_explanation=True)
    with client.session(QUERY, K, reformulator="average", include_explanation=True) as session:
        rounds = [
            session.reformulate(),
            session.reformulate(likes(3)),
            session.reformulate(likes(5)),
            session.reformulate(),
        ]
    assert rounds[0].ranking.item_ids == client.nearest_items(QUERY, K).item_ids
    assert [answer.explanation.item_ids for answer in rounds] == [
        (),
        ("item-ü3",),
        ("item-ü5", "item-ü3"),
        ("item-ü5", "item-ü3"),
    ]
    for answer in rounds[2:]:
        np.testing.assert_array_equal(answer.vector, both.vector)


def test_in_a_session_the_last_word_on_an_item_counts_and_depth_keeps_the_newest(client, met):
    with client.session(QUERY, K, depth=2, reformulator="average", include_explanation=True) as session:
        session.reformulate(likes(3, 4))
        told = session.reformulate([FeedbackItem("item-ü4", DISLIKED), FeedbackItem("item-ü6", LIKED)]).explanation
        assert told.item_ids == ("item-ü4", "item-ü6")
        np.testing.assert_allclose(told.item_weights, [0, np.linalg.norm(met["item-ü6"])], rtol=1e-5)
        assert session.reformulate(likes(9)).explanation.item_ids == ("item-ü9", "item-ü4")


def test_pseudo_feedback_of_a_session_stays_and_comes_from_the_original_query(client):
    first = client.nearest_items(QUERY, 3).item_ids
    with client.session(QUERY, K, depth=3, reformulator="rocchio", include_explanation=True) as session:
        assert session.reformulate(pseudo=True).explanation.item_ids == first
        assert session.reformulate(likes(39)).explanation.item_ids == ("item-ü39", *first[:2])


def test_each_response_of_a_session_says_its_round(server):
    begin = pb.SessionRequest(begin=pb.ReformulateRequest(query=pb.Query(entity=pb.Entity(entity_id="user 1")), k=1))
    later = pb.SessionRequest(feedback=pb.Feedback())
    assert [response.round for response in stub(server).Session(iter([begin, later, later]))] == [1, 2, 3]


def test_a_session_stays_on_its_release_when_another_one_is_installed(plain, retriever):
    with running(plain) as server, Client(server.address, timeout_s=20.0) as client:
        with client.session(QUERY, K) as session:
            assert session.reformulate().ranking.release.fingerprint == plain.release.fingerprint
            server.install(retriever)
            assert client.release().fingerprint == retriever.release.fingerprint
            later = session.reformulate(likes(3))
            assert later.ranking.release.fingerprint == plain.release.fingerprint
            # the old release's default, where the new one has another
            assert later.reformulator == plain.default_reformulator
        with client.session(QUERY, K) as session:
            assert session.reformulate().ranking.release.fingerprint == retriever.release.fingerprint


def test_a_mistake_in_the_second_round_ends_the_session_with_its_field(retriever):
    log = io.BytesIO()
    with running(retriever, log=log, max_feedback=3) as server, Client(server.address, timeout_s=20.0) as client:
        with client.session(QUERY, K) as session:
            session.reformulate(likes(1, 2))
            with pytest.raises(RequestError, match="got 4 with those before, expected at most 3") as caught:
                session.reformulate(likes(3, 4))
            assert caught.value.field == "feedback.items"
            # it is over, and every further word meets the same end
            with pytest.raises(RequestError):
                session.reformulate()
        assert client.reformulate(QUERY, K).ranking.item_ids
        (ended, _) = log_lines(log, 2)
    assert (ended["method"], ended["code"]) == ("/twintower.v1.RecommendationService/Session", "INVALID_ARGUMENT")
    assert ended["release"] == retriever.release.name


def test_a_failure_of_the_server_in_a_session_is_logged_and_told_without_its_reason(retriever):
    class Failing:
        """Answers once."""

        release, reformulators, default_reformulator = retriever.release, (), ""

        def reformulate_all(self, revisions: Sequence[Revision], k: int, **how: Any) -> Any:
            if any(revision.mentions for revision in revisions):
                raise OSError("secret of the disk")
            return retriever.reformulate_all(revisions, k, **how)

    log = io.BytesIO()
    with running(Failing(), log=log) as server:
        vector = pb.Query(vector=pb.Vector(values=pb.FloatList(values=query_vector().tolist())))
        begin = pb.SessionRequest(begin=pb.ReformulateRequest(query=vector, k=1))
        item = pb.FeedbackItem(item_id="item-ü1", kind=pb.FEEDBACK_KIND_LIKED)
        later = pb.SessionRequest(feedback=pb.Feedback(items=[item]))
        call = stub(server).Session(iter([begin, later]), metadata=(("x-request-id", "s-1"),))
        next(call)
        code, details = refusal(lambda: next(call))
        assert code is grpc.StatusCode.INTERNAL
        assert details[error_details_pb2.ErrorInfo].metadata["request_id"] == "s-1"
        failed, ended = log_lines(log, 2)
    assert "secret of the disk" in failed["exception"]
    assert (ended["code"], ended["request_id"]) == ("INTERNAL", "s-1")


BEGIN = pb.SessionRequest(begin=pb.ReformulateRequest(query=pb.Query(entity=pb.Entity(entity_id="user 1")), k=1))
LATER = pb.SessionRequest(feedback=pb.Feedback())


@pytest.mark.parametrize(
    "messages", [[LATER], [pb.SessionRequest()], [BEGIN, BEGIN], [BEGIN, pb.SessionRequest()]], ids=range(4)
)
def test_a_session_begins_once_and_first(server, messages):
    code, details = refusal(lambda: list(stub(server).Session(iter(messages))))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert details[error_details_pb2.BadRequest].field_violations[0].field == "step"


def test_a_session_without_a_word_ends_well(server):
    assert list(stub(server).Session(iter([]))) == []


def test_a_session_has_a_limited_number_of_rounds(retriever):
    with (
        running(retriever, max_rounds=2) as server,
        Client(server.address, timeout_s=20.0) as client,
        client.session(QUERY, K) as session,
    ):
        session.reformulate()
        session.reformulate()
        with pytest.raises(RequestError, match="got round 3, expected at most 2") as caught:
            session.reformulate()
        assert caught.value.field == "step"


def test_the_ids_of_a_session_have_room_for_one_request_and_no_more(retriever):
    with (
        running(retriever, max_message_bytes=4096) as server,
        Client(server.address, timeout_s=20.0) as client,
        client.session(QUERY, K) as session,
    ):
        session.reformulate([FeedbackItem("x" * 3000, LIKED)])
        with pytest.raises(RequestError, match="more than 4096 bytes"):
            session.reformulate([FeedbackItem("y" * 3000, LIKED)])


def test_a_session_may_not_last_for_ever(retriever):
    with (
        running(retriever, max_session_s=0.5) as server,
        Client(server.address, timeout_s=20.0) as client,
        client.session(QUERY, K) as session,
    ):
        session.reformulate()
        time.sleep(1)
        with pytest.raises(DeadlineError, match=r"sessions last at most 0\.5 s"):
            session.reformulate()


def test_sessions_that_wait_hold_up_no_calls_and_one_too_many_is_refused(retriever):
    with (
        running(retriever, max_sessions=3, worker_threads=1) as server,
        Client(server.address, timeout_s=1.0) as client,
    ):
        sessions = [client.session(QUERY, K) for _ in range(3)]
        for session in sessions:
            session.reformulate()
        with client.session(QUERY, K) as late, pytest.raises(OverloadedError, match="all 3 places") as caught:
            late.reformulate()
        assert caught.value.retry_after_s > 0
        assert client.reformulate(QUERY, K).ranking.item_ids
        assert sessions[0].reformulate(likes(3)).ranking.item_ids
        # a place is free again when a session ends
        sessions[0].close()
        with client.session(QUERY, K) as another:
            assert another.reformulate().ranking.item_ids
        for session in sessions:
            session.close()


def test_a_session_that_its_caller_breaks_off_frees_its_place_and_is_no_failure(retriever):
    log = io.BytesIO()
    with running(retriever, log=log, max_sessions=1) as server:
        sent = threading.Event()
        messages = iter([BEGIN])

        def endless() -> Iterator[pb.SessionRequest]:
            yield next(messages)
            sent.wait(20)

        call = stub(server).Session(endless())
        assert next(call).round == 1
        call.cancel()
        (broken,) = log_lines(log, 1)
        # gRPC tells the server of the end of the stream or of the cancelling, whichever it sees first
        assert broken["code"] in ("OK", "CANCELLED")
        sent.set()
        assert [response.round for response in stub(server).Session(iter([BEGIN]))] == [1]
        assert {line["level"] for line in log_lines(log, 2)} == {"info"}


def test_a_session_ended_by_its_caller_is_logged_as_one_good_call(retriever):
    log = io.BytesIO()
    with running(retriever, log=log) as server, Client(server.address, timeout_s=20.0) as client:
        with client.session(QUERY, K) as session:
            session.reformulate()
            session.reformulate(likes(1))
        (line,) = log_lines(log, 1)
        with pytest.raises(RequestError, match="after it was closed"):
            session.reformulate()
    assert (line["method"], line["code"]) == ("/twintower.v1.RecommendationService/Session", "OK")
    assert line["release"] == retriever.release.name


def test_a_round_that_takes_too_long_is_given_up(retriever):
    class Slow:
        """Waits before it answers."""

        release = retriever.release
        gate = threading.Event()

        def reformulate_all(self, revisions: Sequence[Revision], k: int, **how: Any) -> Any:
            assert self.gate.wait(20)
            return retriever.reformulate_all(revisions, k, **how)

    started = time.monotonic()

    async def ask_late(address: str) -> None:
        async with AsyncClient(address, timeout_s=0.2) as client, client.session(QUERY, K) as session:
            with pytest.raises(DeadlineError, match=r"did not end within 0\.2 s"):
                await session.reformulate()

    with running(Slow()) as server, Client(server.address, timeout_s=0.2) as client:
        with client.session(QUERY, K) as session, pytest.raises(DeadlineError, match=r"did not end within 0\.2 s"):
            session.reformulate()
        asyncio.run(ask_late(server.address))
        assert time.monotonic() - started < 10
        Slow.gate.set()


def test_a_stopping_server_lets_the_running_round_end(retriever):
    with (
        running(retriever, drain_s=1.0) as server,
        Client(server.address, timeout_s=20.0) as client,
        client.session(QUERY, K) as session,
        futures.ThreadPoolExecutor(1) as pool,
    ):
        session.reformulate()
        stopped = pool.submit(server.stop)
        assert session.reformulate(likes(3)).ranking.item_ids
        stopped.result(20)
        with pytest.raises(UnavailableError):
            session.reformulate()


def test_the_asyncio_client_reformulates_as_the_synchronous_one(client, server):
    async def ask() -> tuple[Any, ...]:
        async with AsyncClient(server.address, timeout_s=20.0) as other:
            once = await other.reformulate(QUERY, K, likes(3), reformulator="rocchio", include_explanation=True)
            async with other.session(QUERY, K, reformulator="rocchio") as session:
                rounds = [await session.reformulate(), await session.reformulate(likes(3))]
            with pytest.raises(RequestError, match="after it was closed"):
                await session.reformulate()
            async with other.session(QUERY, K, reformulator="nobody") as session:
                with pytest.raises(RequestError) as refused:
                    await session.reformulate()
                with pytest.raises(RequestError):
                    await session.reformulate()
            return once, rounds, refused.value.field

    once, rounds, field = asyncio.run(ask())
    same = client.reformulate(QUERY, K, likes(3), reformulator="rocchio", include_explanation=True)
    np.testing.assert_array_equal(once.vector, same.vector)
    assert once.explanation.item_ids == same.explanation.item_ids
    assert rounds[0].ranking.item_ids == client.nearest_items(QUERY, K).item_ids
    assert rounds[1].ranking.item_ids == once.ranking.item_ids
    assert field == "begin.reformulator"


@pytest.mark.parametrize(
    ("mention", "field"),
    [
        (FeedbackItem("a", FeedbackKind.PSEUDO), "feedback.items[0].kind"),
        (FeedbackItem("a", LIKED, 2**40), "feedback.items[0].position"),
        (FeedbackItem("a", LIKED, 0.5), "feedback.items[0].position"),
        (FeedbackItem("a", LIKED, -1), "feedback.items[0].position"),
        (FeedbackItem(None, LIKED), "feedback.items[0].item_id"),
    ],
)
def test_feedback_that_cannot_be_sent_is_the_callers_mistake(client, mention, field):
    with pytest.raises(RequestError) as caught:
        client.reformulate(QUERY, K, [mention])
    assert caught.value.field == field
