"""Queries as messages and back; release pins; addresses."""

from __future__ import annotations

import datetime
from decimal import Decimal

import numpy as np
import pytest
from google.protobuf.struct_pb2 import Struct
from hypothesis import given
from hypothesis import strategies as st

from serving import codecs
from serving.runtime.releases import matches
from serving.settings import ServerSettings
from twintower import codecs as client_codecs
from twintower import wire
from twintower.errors import AnswerTooLargeError, RequestError
from twintower.types import Event, FeedbackItem, FeedbackKind, Query
from twintower.v1 import recommendation_service_pb2 as pb

IDS = st.lists(st.text(max_size=5), max_size=4)
FLOATS = st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=5)
VALUES = st.one_of(
    st.none(),
    st.text(max_size=5),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.lists(st.text(max_size=3), min_size=1, max_size=3),
    FLOATS,
)


def there_and_back(query: Query) -> Query:
    sent = client_codecs.query_to_proto(query).SerializeToString()
    return codecs.query_from_proto(pb.Query.FromString(sent), "query", ServerSettings())


@given(st.text(min_size=1, max_size=5), st.dictionaries(st.text(max_size=3), VALUES, max_size=3), IDS, IDS)
def test_an_entity_arrives_as_it_was_asked(entity_id, features, history, excluded):
    back = there_and_back(Query(entity_id=entity_id, features=features, history=history, excluded_ids=excluded))
    assert (back.entity_id, back.features) == (entity_id, features)
    assert (list(back.history), list(back.excluded_ids)) == (history, excluded)
    assert (list(back.item_ids), back.vector) == ([], None)


@given(FLOATS)
def test_a_vector_arrives_bit_for_bit(numbers):
    back = there_and_back(Query(vector=np.array(numbers, np.float32)))
    np.testing.assert_array_equal(back.vector, np.array(numbers, np.float32))
    assert back.vector.dtype == np.float32
    assert (back.entity_id, back.features) == (None, None)


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4))
def test_items_arrive_in_their_order(item_ids):
    assert list(there_and_back(Query(item_ids=item_ids)).item_ids) == item_ids


KINDS = st.sampled_from([kind for kind in FeedbackKind if kind is not FeedbackKind.PSEUDO])
MENTIONS = st.builds(FeedbackItem, st.text(max_size=5), KINDS, st.none() | st.integers(0, 2**31 - 1))


@given(st.lists(MENTIONS, max_size=5), st.booleans())
def test_feedback_arrives_as_it_was_said(said, pseudo):
    sent = client_codecs.feedback_to_proto(said, pseudo).SerializeToString()
    message = pb.Feedback.FromString(sent)
    back = codecs.feedback_from_proto(message, "feedback", ServerSettings())
    assert list(back) == said
    assert all(type(each.kind) is FeedbackKind for each in back)
    assert message.pseudo is pseudo


def test_a_position_of_0_is_no_unknown_position():
    said = [FeedbackItem("a", FeedbackKind.CLICKED, 0), FeedbackItem("a", FeedbackKind.CLICKED)]
    message = client_codecs.feedback_to_proto(said, pseudo=False)
    assert [item.HasField("position") for item in message.items] == [True, False]


@pytest.mark.parametrize(
    ("item", "field", "reason"),
    [
        (pb.FeedbackItem(item_id="a"), "begin.feedback.items[1].kind", "got 0, expected one of: FEEDBACK_KIND_LIKED"),
        (pb.FeedbackItem(item_id="a", kind=7), "begin.feedback.items[1].kind", "got 7"),
        (
            pb.FeedbackItem(item_id="a", kind=1, position=-2),
            "begin.feedback.items[1].position",
            "got -2, expected >= 0",
        ),
    ],
)
def test_an_item_of_feedback_that_makes_no_sense_is_named_by_its_place(item, field, reason):
    message = pb.Feedback(items=[pb.FeedbackItem(item_id="b", kind=1), item])
    with pytest.raises(RequestError) as caught:
        codecs.feedback_from_proto(message, "begin.feedback", ServerSettings())
    assert caught.value.field == field
    assert reason in caught.value.reason


def test_feedback_has_room_for_just_the_limit():
    items = [pb.FeedbackItem(item_id="a", kind=1)] * 3
    assert len(codecs.feedback_from_proto(pb.Feedback(items=items), "feedback", ServerSettings(max_feedback=3))) == 3
    with pytest.raises(RequestError, match="got 3 items, expected at most 2"):
        codecs.feedback_from_proto(pb.Feedback(items=items), "feedback", ServerSettings(max_feedback=2))


def test_an_anonymous_visitor_stays_one():
    back = there_and_back(Query(features={}))
    assert (back.entity_id, back.features, list(back.history)) == (None, {}, [])


def test_vectors_in_another_byte_order_or_layout_are_sent_right():
    reversed_halves = np.arange(8, dtype=">f8")[::2][::-1]
    assert there_and_back(Query(vector=reversed_halves)).vector.tolist() == [6, 4, 2, 0]


@pytest.mark.parametrize(
    ("value", "kind", "back"),
    [
        ("ü", "string_value", "ü"),
        (3, "int64_value", 3),
        (2**53 + 1, "int64_value", 2**53 + 1),
        (-(2**63), "int64_value", -(2**63)),
        (2**63, "decimal_value", 2**63),
        (2.5, "double_value", 2.5),
        (True, "bool_value", True),
        (None, None, None),
        (float("inf"), None, None),
        (datetime.date(2026, 1, 2), "string_value", "2026-01-02"),
        (Decimal("1.50"), "decimal_value", Decimal("1.50")),
        (Decimal("1e3"), "decimal_value", 1000),
        (Decimal("NaN"), None, None),
        ([1.5, float("nan"), "x"], "list_value", [1.5, None, "x"]),
        ({"a": [datetime.time(1, 2)]}, "columns_value", {"a": ["01:02:00"]}),
    ],
    ids=repr,
)
def test_display_columns_keep_their_kind_and_every_digit(value, kind, back):
    (message,) = codecs.metadata_to_proto(lambda item_ids: [{"column": value}], ["a"], 8.0, 1000)
    assert message.values["column"].WhichOneof("kind") == kind
    found = wire.columns_from_proto(message, "metadata")["column"]
    assert (found, type(found)) == (back, type(back))


def test_display_columns_that_are_too_large_are_given_up_before_all_of_them_are_read():
    read: list[str] = []

    def find(item_ids):
        read.extend(item_ids)
        return [{"text": "x" * 100_000} for _ in item_ids]

    item_ids = [f"i{row}" for row in range(1000)]
    with pytest.raises(AnswerTooLargeError, match="max_answer_bytes = 1000000"):
        codecs.metadata_to_proto(find, item_ids, 100_000.0, 1_000_000)
    # ten texts of 100,000 letters, each with its name, are more than 1,000,000 bytes
    assert 10 <= len(read) <= 12


def test_metadata_of_a_catalog_log_from_before_is_read_as_it_was():
    struct = Struct()
    struct.update({"title": "ü", "price": 2.5, "new": True, "tags": ["a", "b"], "none": None, "more": {"a": 1}})
    message = pb.Columns.FromString(struct.SerializeToString())
    assert wire.columns_from_proto(message, "metadata") == {
        "title": "ü", "price": 2.5, "new": True, "tags": ["a", "b"], "none": None, "more": {"a": 1.0}
    }  # fmt: skip


def test_the_value_of_an_event_is_a_number_that_a_double_holds():
    for value, sent in ((2**53, 2.0**53), (Decimal("19.99"), 19.99), (None, 0.0)):
        assert client_codecs.event_to_proto(Event("e", "token", "buy", value=value), "event").value == sent
    with pytest.raises(RequestError, match=r"event\.value: got 9007199254740993, expected a number that a"):
        client_codecs.event_to_proto(Event("e", "token", "buy", value=2**53 + 1), "event")


FINGERPRINT = "0123456789abcdef" * 4


@pytest.mark.parametrize("pin", ["blocks-0123", FINGERPRINT, "01234567", "0123456789ABCDEF"])
def test_a_pin_may_be_the_name_the_fingerprint_or_eight_leading_digits_of_it(pin):
    assert matches(pin, "blocks-0123", FINGERPRINT)


@pytest.mark.parametrize("pin", ["blocks", "0123456", "12345678", FINGERPRINT + "0"])
def test_a_pin_that_is_shorter_or_another_does_not_match(pin):
    assert not matches(pin, "blocks-0123", FINGERPRINT)


def test_an_ipv6_host_stands_in_brackets():
    assert ServerSettings(host="::1", port=7).address == "[::1]:7"
    assert ServerSettings(host="localhost", port=7).address == "localhost:7"


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        (Query(history="b3"), "query.entity.history"),
        (Query(item_ids="b3"), "query.items.item_ids"),
        (Query(vector=np.ones(2, np.float32), excluded_ids="b3"), "query.excluded_ids"),
        (Query(entity_id=b"raw"), "query.entity.entity_id"),
        (Query(entity_id="\ud800"), "query.entity.entity_id"),
        (Query(item_ids=["a", None]), "query.items.item_ids[1]"),
        (Query(vector=np.ones((2, 2), np.float32)), "query.vector"),
        (Query(vector=["a", "b"]), "query.vector"),
        (Query(features={"age": 10**500}), "query.entity.features.age"),
        (Query(features={"age": "\ud800"}), "query.entity.features.age"),
        (Query(features={"ages": [1, b"2"]}), "query.entity.features.ages[1]"),
        (Query(features={"age": object()}), "query.entity.features.age"),
    ],
)
def test_what_the_wire_cannot_carry_is_refused_by_field_before_it_is_sent(asked, field):
    with pytest.raises(RequestError) as caught:
        client_codecs.query_to_proto(asked)
    assert caught.value.field == field


def test_whole_numbers_are_ids_by_their_spelling_as_in_training_data():
    assert client_codecs.query_to_proto(Query(entity_id=7, history=[3, "x"])) == client_codecs.query_to_proto(
        Query(entity_id="7", history=["3", "x"])
    )
