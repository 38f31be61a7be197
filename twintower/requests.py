"""Request messages of the client's methods: both clients make them here."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from twintower import codecs
from twintower.errors import RequestError
from twintower.filters import parse_filter
from twintower.types import Diversity, Event, ExperimentUnit, FeedbackItem, Filter, Float32, Query, Upsert
from twintower.v1 import catalog_service_pb2 as catalog_pb
from twintower.v1 import event_service_pb2 as event_pb
from twintower.v1 import operator_service_pb2 as operator_pb
from twintower.v1 import recommendation_service_pb2 as pb

FilterArgument = Filter | Mapping[str, Any]
"""Conditions that items must meet: a `Filter`, or a mapping that `parse_filter` reads."""


def nearest_items(
    query: Query,
    k: int,
    *,
    filter: FilterArgument | None,
    exclude_seen: bool,
    diversity: Diversity | None,
    unit: ExperimentUnit | None,
    include_metadata: bool,
    release_pin: str | None,
    release_label: str | None,
) -> pb.NearestItemsRequest:
    """Return the request of `nearest_items`."""
    return pb.NearestItemsRequest(
        query=codecs.query_to_proto(_constrained(query, filter, exclude_seen)),
        k=_int32("k", k),
        diversity=codecs.diversity_to_proto(diversity),
        unit=codecs.unit_to_proto(unit),
        include_metadata=include_metadata,
        release_pin=release_pin,
        release_label=release_label,
    )


def batch_nearest_items(
    queries: Sequence[Query],
    k: int,
    *,
    filter: FilterArgument | None,
    exclude_seen: bool,
    diversity: Diversity | None,
    include_metadata: bool,
    release_pin: str | None,
    release_label: str | None,
) -> pb.BatchNearestItemsRequest:
    """Return the request of `batch_nearest_items`."""
    return pb.BatchNearestItemsRequest(
        queries=[
            codecs.query_to_proto(_constrained(query, filter, exclude_seen), f"queries[{index}]")
            for index, query in enumerate(queries)
        ],
        k=_int32("k", k),
        diversity=codecs.diversity_to_proto(diversity),
        include_metadata=include_metadata,
        release_pin=release_pin,
        release_label=release_label,
    )


def search_vectors(
    vectors: Float32, k: int, *, release_pin: str | None, release_label: str | None
) -> pb.SearchVectorsRequest:
    """Return the request of `search_vectors`."""
    return pb.SearchVectorsRequest(
        vectors=codecs.vectors_to_proto(vectors, "vectors"),
        k=_int32("k", k),
        release_pin=release_pin,
        release_label=release_label,
    )


def encode_query(query: Query, *, release_pin: str | None, release_label: str | None) -> pb.EncodeQueryRequest:
    """Return the request of `encode_query`."""
    return pb.EncodeQueryRequest(
        query=codecs.query_to_proto(query), release_pin=release_pin, release_label=release_label
    )


def reformulate(
    query: Query,
    k: int,
    feedback: Sequence[FeedbackItem] = (),
    *,
    pseudo: bool = False,
    depth: int | None,
    reformulator: str | None,
    guarded: bool,
    filter: FilterArgument | None,
    exclude_seen: bool,
    diversity: Diversity | None,
    unit: ExperimentUnit | None,
    include_metadata: bool,
    include_explanation: bool,
    include_feedback_items: bool,
    release_pin: str | None,
    release_label: str | None,
) -> pb.ReformulateRequest:
    """Return the request of `reformulate`, and the first one of a session."""
    return pb.ReformulateRequest(
        query=codecs.query_to_proto(_constrained(query, filter, exclude_seen)),
        feedback=codecs.feedback_to_proto(feedback, pseudo),
        depth=None if depth is None else _int32("depth", depth),
        reformulator=reformulator,
        k=_int32("k", k),
        diversity=codecs.diversity_to_proto(diversity),
        unit=codecs.unit_to_proto(unit),
        include_metadata=include_metadata,
        include_explanation=include_explanation,
        include_feedback_items=include_feedback_items,
        ignore_guard=not guarded,
        release_pin=release_pin,
        release_label=release_label,
    )


def session_round(
    begin: pb.ReformulateRequest | None, feedback: Sequence[FeedbackItem], pseudo: bool
) -> pb.SessionRequest:
    """Return the message of one round of a session.

    Args:
        begin: the request that opens the session; None in later rounds.
        feedback: of this round.
        pseudo: whether first results count as feedback from now on.
    """
    message = codecs.feedback_to_proto(feedback, pseudo)
    if begin is None:
        return pb.SessionRequest(feedback=message)
    request = pb.SessionRequest(begin=begin)
    request.begin.feedback.CopyFrom(message)
    return request


def release(release_pin: str | None, release_label: str | None) -> pb.GetReleaseRequest:
    """Return the request of `release`."""
    return pb.GetReleaseRequest(release_pin=release_pin, release_label=release_label)


def releases() -> operator_pb.ListReleasesRequest:
    """Return the request of `releases`."""
    return operator_pb.ListReleasesRequest()


def reload_release(release: str | None, label: str | None) -> operator_pb.ReloadReleaseRequest:
    """Return the request of `reload_release`."""
    return operator_pb.ReloadReleaseRequest(release=release, label=label)


def roll_back_release(label: str | None) -> operator_pb.RollBackReleaseRequest:
    """Return the request of `roll_back_release`."""
    return operator_pb.RollBackReleaseRequest(label=label)


def upsert_items(items: Sequence[Upsert], release_pin: str | None) -> catalog_pb.UpsertItemsRequest:
    """Return the request of `upsert_items`."""
    return catalog_pb.UpsertItemsRequest(
        items=[codecs.upsert_to_proto(item, f"items[{index}]") for index, item in enumerate(items)],
        release_pin=release_pin,
    )


def delete_items(item_ids: Sequence[str]) -> catalog_pb.DeleteItemsRequest:
    """Return the request of `delete_items`."""
    return catalog_pb.DeleteItemsRequest(item_ids=codecs.ids_to_proto(item_ids, "item_ids"))


def catalog() -> catalog_pb.GetCatalogRequest:
    """Return the request of `catalog`."""
    return catalog_pb.GetCatalogRequest()


def record_events(events: Sequence[Event]) -> event_pb.RecordEventsRequest:
    """Return the request of `record_events`."""
    return event_pb.RecordEventsRequest(
        events=[codecs.event_to_proto(event, f"events[{index}]") for index, event in enumerate(events)]
    )


def _constrained(query: Query, filter: FilterArgument | None, exclude_seen: bool) -> Query:
    """Return a query with further constraints on the items."""
    if filter is None and not exclude_seen:
        return query
    further = filter if isinstance(filter, Filter) else parse_filter(filter or {})
    return dataclasses.replace(
        query,
        filter=Filter(query.filter.all_of + further.all_of),
        exclude_seen=query.exclude_seen or exclude_seen,
    )


def _int32(path: str, value: int) -> int:
    """Return an integer that the wire holds; the server has the limits.

    Raises:
        RequestError: it is none.
    """
    if not isinstance(value, (int, np.integer)) or isinstance(value, bool) or abs(value) > codecs.INT32_MAX:
        raise RequestError(path, f"got {value!r}, expected an integer")
    return int(value)
