"""The client's codecs: values to request messages, response messages to values."""

from __future__ import annotations

import dataclasses
import datetime
import itertools
import math
from collections.abc import Mapping, Sequence
from reprlib import repr as shortened
from typing import Any

import numpy as np

from twintower.errors import RequestError
from twintower.spelling import MAX_COLUMN_DIGITS, is_column_number, spell
from twintower.types import (
    CatalogChanges,
    Condition,
    Deleted,
    Diversity,
    EncodedQuery,
    Event,
    Exclusions,
    ExperimentUnit,
    Explanation,
    FeedbackItem,
    FeedbackKind,
    Float32,
    LoadedRelease,
    Query,
    Ranking,
    RecordedEvents,
    Reformulation,
    RefusedRelease,
    RejectedEvent,
    ReleaseName,
    ReleaseSet,
    Repeats,
    ServedRelease,
    Upsert,
    Upserted,
    VectorMatches,
)
from twintower.v1 import catalog_service_pb2 as catalog_pb
from twintower.v1 import event_service_pb2 as event_pb
from twintower.v1 import operator_service_pb2 as operator_pb
from twintower.v1 import recommendation_service_pb2 as pb
from twintower.wire import (
    BOUNDS,
    FEEDBACK_KINDS,
    FILTER_TYPES,
    IGNORED_KINDS,
    LITTLE_ENDIAN,
    ORIGINS,
    QUERY_ENTITIES,
    REPEATS,
    SEARCH_PLANS,
    columns_from_proto,
    columns_to_proto,
    set_scalar,
    vector_from_proto,
)

DIVERSITY = {"crowding_field": "a column's name", "max_per_value": "a whole number", "mmr_weight": "a number"}
EXCLUSIONS = tuple(field.name for field in dataclasses.fields(Exclusions))
INT32_MAX = 2**31 - 1
ORIGIN_OF = {number: origin for origin, number in ORIGINS.items()}
SEARCH_PLAN_OF = {number: plan for plan, number in SEARCH_PLANS.items()}
FILTER_TYPE_OF = {number: kind for kind, number in FILTER_TYPES.items()}
QUERY_ENTITY_OF = {number: name for name, number in QUERY_ENTITIES.items()}
FEEDBACK_KIND_OF = {number: kind for kind, number in IGNORED_KINDS.items()}
REJECTION_OF = {number: name.removeprefix("EVENT_REJECTION_") for name, number in event_pb.EventRejection.items()}


def query_to_proto(query: Query, path: str = "query") -> pb.Query:
    """Return a query as a message; what the message can carry is left to the server to refuse.

    Args:
        query: at most one of the forms; a message has no room for two.
        path: its path in the request, for errors.

    Raises:
        RequestError: two forms, reported ids, or a value of a type that the wire does not carry.
    """
    by_entity = query.entity_id is not None or query.features is not None or len(query.history) > 0
    if by_entity + (len(query.item_ids) > 0) + (query.vector is not None) > 1:
        raise RequestError(path, "got several forms, expected one of: entity or features, item ids, vector")
    if query.reported_ids:
        got = f"got {len(query.reported_ids)} ids, expected none: the server has them from its events"
        raise RequestError(f"{path}.reported_ids", f"{got}. Name items in excluded_ids")
    message = pb.Query(
        excluded_ids=_id_texts(query.excluded_ids, f"{path}.excluded_ids"),
        exclude_seen=bool(query.exclude_seen),
        repeats=_repeats_to_proto(query.repeats, f"{path}.repeats"),
    )
    for index, condition in enumerate(query.filter.all_of):
        message.filter.all_of.append(_condition_to_proto(condition, f"{path}.filter.all_of[{index}]"))
    if query.vector is not None:
        message.vector.float32_le = _numbers(query.vector, f"{path}.vector").tobytes()
    elif query.item_ids:
        message.items.item_ids.extend(_id_texts(query.item_ids, f"{path}.items.item_ids"))
        message.items.similar = query.similar
    elif by_entity:
        message.entity.SetInParent()
        if query.entity_id is not None:
            message.entity.entity_id = _id_text(query.entity_id, f"{path}.entity.entity_id")
        message.entity.history.extend(_id_texts(query.history, f"{path}.entity.history"))
        message.entity.history_age_days.extend(_numbers(query.history_age_days, f"{path}.entity.history_age_days"))
        for name, value in (query.features or {}).items():
            message.entity.features[name].CopyFrom(_feature_to_proto(value, f"{path}.entity.features.{name}"))
    return message


def vectors_to_proto(vectors: Float32, path: str) -> list[bytes]:
    """Return the rows of a matrix as the bytes of each vector.

    Raises:
        RequestError: not `[vectors, dim]`, or no numbers.
    """
    return [row.tobytes() for row in _numbers(vectors, path, dimensions=2)]


def diversity_to_proto(diversity: Diversity | None) -> pb.Diversity | None:
    """Return a diversity as a message.

    Raises:
        RequestError: a value of a type that the wire does not carry.
    """
    if diversity is None:
        return None
    message = pb.Diversity()
    for name, kind in DIVERSITY.items():
        value = getattr(diversity, name)
        try:
            if value is not None:
                setattr(message, name, value)
        except (TypeError, ValueError):
            raise RequestError(f"diversity.{name}", f"got {value!r}, expected {kind}") from None
    return message


def upsert_to_proto(item: Upsert, path: str) -> catalog_pb.UpsertItem:
    """Return an item to upsert as a message.

    Args:
        item: with features or a vector.
        path: its path in the request, for errors.

    Raises:
        RequestError: features and a vector, a value of a type that the wire does not carry, or an id that is no text.
    """
    if item.features is not None and item.vector is not None:
        raise RequestError(path, "got features and a vector, expected one of them")
    message = catalog_pb.UpsertItem(item_id=_id_text(item.item_id, f"{path}.item_id"))
    if item.vector is not None:
        message.vector.float32_le = _numbers(item.vector, f"{path}.vector").tobytes()
    elif item.features is not None:
        message.features.SetInParent()
        for name, value in item.features.items():
            message.features.values[name].CopyFrom(_feature_to_proto(value, f"{path}.features.{name}"))
    message.metadata.CopyFrom(columns_to_proto(item.metadata))
    return message


def unit_to_proto(unit: ExperimentUnit | None) -> pb.Unit | None:
    """Return an experiment unit as a message.

    Raises:
        RequestError: an id that is no text.
    """
    if unit is None:
        return None
    return pb.Unit(
        user_id=_optional_id(unit.user_id, "unit.user_id"), session_id=_optional_id(unit.session_id, "unit.session_id")
    )


def event_to_proto(event: Event, path: str) -> event_pb.Event:
    """Return an event as a message.

    Args:
        event: what happened.
        path: its path in the request, for errors.

    Raises:
        RequestError: an id that is no text, a value that is no number, or a time without time zone.
    """
    message = event_pb.Event(
        event_id=_id_text(event.event_id, f"{path}.event_id"),
        attribution_token=_id_text(event.attribution_token, f"{path}.attribution_token"),
        kind=_id_text(event.kind, f"{path}.kind"),
        item_id=_optional_id(event.item_id, f"{path}.item_id"),
        value=None if event.value is None else _number(event.value, f"{path}.value"),
    )
    if event.time is not None:
        if event.time.tzinfo is None:
            raise RequestError(f"{path}.time", f"got {event.time.isoformat()}, expected a moment with time zone")
        message.event_time.FromDatetime(event.time)
    return message


def ids_to_proto(ids: Sequence[str], path: str) -> list[str]:
    """Return item ids as texts.

    Raises:
        RequestError: they are one text, or one of them is none.
    """
    return _id_texts(ids, path)


def feedback_to_proto(feedback: Sequence[FeedbackItem], pseudo: bool, path: str = "feedback") -> pb.Feedback:
    """Return feedback as a message.

    Args:
        feedback: items, more important ones first.
        pseudo: whether first results count, too.
        path: its path in the request, for errors.

    Raises:
        RequestError: an id that is no text, pseudo feedback by name, or a position that is no place in a list.
    """
    items = [_feedback_item_to_proto(each, f"{path}.items[{index}]") for index, each in enumerate(feedback)]
    return pb.Feedback(items=items, pseudo=pseudo)


def ranking_from_proto(response: pb.NearestItemsResponse | pb.ReformulateResponse) -> Ranking:
    """Return the answer to one query."""
    arms = {assigned.experiment: assigned.arm for assigned in response.assignments}
    return _ranked(response.result, _release_name(response.release), response.attribution_token or None, arms)


def rankings_from_proto(response: pb.BatchNearestItemsResponse) -> list[Ranking]:
    """Return the answers of a batch, in its order."""
    release = _release_name(response.release)
    return [_ranked(result, release) for result in response.results]


def reformulation_from_proto(response: pb.ReformulateResponse) -> Reformulation:
    """Return an answer after feedback."""
    explanation = response.explanation
    return Reformulation(
        ranking=ranking_from_proto(response),
        vector=vector_from_proto(response.vector, "vector") if response.HasField("vector") else None,
        reformulator=response.reformulator,
        drift=response.drift,
        confidence=response.confidence,
        fell_back=response.fell_back,
        missing_ids=tuple(response.missing_ids),
        explanation=Explanation(
            item_ids=tuple(explanation.item_ids),
            item_weights=np.array(explanation.item_weights, np.float32),
            entered_ids=tuple(explanation.entered_ids),
            left_ids=tuple(explanation.left_ids),
        )
        if response.HasField("explanation")
        else None,
        ignored_kinds=feedback_kinds_from_proto(response.ignored_kinds),
    )


def matches_from_proto(response: pb.SearchVectorsResponse) -> VectorMatches:
    """Return the nearest items of vectors."""
    item_ids = tuple(response.item_ids)
    scores = np.frombuffer(response.scores_float32_le, LITTLE_ENDIAN)
    ends = list(itertools.accumulate(response.item_counts, initial=0))
    return VectorMatches(
        item_ids=tuple(item_ids[start:end] for start, end in itertools.pairwise(ends)),
        scores=tuple(scores[start:end] for start, end in itertools.pairwise(ends)),
        release=_release_name(response.release),
        degraded=response.degraded,
    )


def encoded_query_from_proto(response: pb.EncodeQueryResponse) -> EncodedQuery:
    """Return the vector of a query."""
    return EncodedQuery(
        vector=vector_from_proto(response.vector, "vector") if response.HasField("vector") else None,
        origin=ORIGIN_OF.get(response.origin),
        missing_ids=tuple(response.missing_ids),
        release=_release_name(response.release),
    )


def release_from_proto(message: pb.Release) -> ServedRelease:
    """Return what a server serves."""
    return ServedRelease(
        name=message.name,
        fingerprint=message.fingerprint,
        created=message.create_time.ToDatetime(tzinfo=datetime.UTC),
        format_version=message.format_version,
        dim=message.dim,
        item_count=message.item_count,
        known_entity_count=message.known_entity_count,
        query_entity=QUERY_ENTITY_OF.get(message.query_entity),
        query_features=tuple(message.query_features),
        reads_history=message.reads_history,
        index=message.index,
        index_recall=message.index_recall,
        metrics=dict(message.metrics),
        versions=dict(message.versions),
        notice=message.notice,
        reformulators=tuple(message.reformulators),
        default_reformulator=message.default_reformulator,
        filter_fields={
            name: FILTER_TYPE_OF[kind] for name, kind in sorted(message.filter_fields.items()) if kind in FILTER_TYPE_OF
        },
        labels=tuple(message.labels),
    )


def release_set_from_proto(response: operator_pb.ListReleasesResponse) -> ReleaseSet:
    """Return the releases of a server."""
    return ReleaseSet(
        releases=tuple(
            LoadedRelease(
                name=each.name,
                fingerprint=each.fingerprint,
                labels=tuple(each.labels),
                loaded=each.load_time.ToDatetime(tzinfo=datetime.UTC),
                rolled_back=each.rolled_back,
            )
            for each in response.releases
        ),
        refused=tuple(
            RefusedRelease(each.name, each.label, each.reason, each.refuse_time.ToDatetime(tzinfo=datetime.UTC))
            for each in response.refused
        ),
    )


def upserted_from_proto(response: catalog_pb.UpsertItemsResponse) -> Upserted:
    """Return what an upsert did."""
    release = _release_name(response.release)
    return Upserted(response.sequence, response.added_count, response.replaced_count, release)


def deleted_from_proto(response: catalog_pb.DeleteItemsResponse) -> Deleted:
    """Return what a deletion did."""
    return Deleted(response.sequence, tuple(response.missing_ids))


def recorded_from_proto(response: event_pb.RecordEventsResponse) -> RecordedEvents:
    """Return what became of events."""
    return RecordedEvents(
        recorded_count=response.recorded_count,
        duplicate_count=response.duplicate_count,
        rejected=tuple(
            RejectedEvent(each.place, REJECTION_OF.get(each.reason, str(each.reason)), each.message)
            for each in response.rejected
        ),
    )


def catalog_from_proto(message: catalog_pb.Catalog) -> CatalogChanges:
    """Return what was changed since the release was written."""
    return CatalogChanges(
        sequence=message.sequence,
        item_count=message.item_count,
        upserted_count=message.upserted_count,
        deleted_count=message.deleted_count,
        refused_ids=tuple(message.refused_ids),
        release=_release_name(message.release),
    )


def feedback_kinds_from_proto(numbers: Sequence[int]) -> tuple[FeedbackKind, ...]:
    """Return the kinds of a response; those of a newer server are passed over."""
    return tuple(FEEDBACK_KIND_OF[number] for number in numbers if number in FEEDBACK_KIND_OF)


def _repeats_to_proto(value: str, path: str) -> int:
    if value not in REPEATS:
        raise RequestError(path, f"got {value!r}, expected one of: {', '.join(REPEATS)}")
    return 0 if value == Repeats.ALLOW else REPEATS[Repeats(value)]


def _condition_to_proto(condition: Condition, path: str) -> pb.Condition:
    message = pb.Condition(field=_id_text(condition.field, f"{path}.field"))
    rules = [name for name in ("any_of", "none_of") if getattr(condition, name) is not None]
    bounds = {name: getattr(condition, name) for name in BOUNDS if getattr(condition, name) is not None}
    if len(rules) + bool(bounds) != 1:
        got = len(rules) + bool(bounds)
        raise RequestError(path, f"got {got} rules, expected one of: any_of, none_of, a range with a bound")
    for rule in rules:
        values = getattr(message, rule)
        values.SetInParent()
        for index, value in enumerate(getattr(condition, rule)):
            _set_filter_value(values.values.add(), value, f"{path}.{rule}[{index}]")
    for name, value in bounds.items():
        _set_filter_value(getattr(message.range, name), value, f"{path}.range.{name}")
    return message


def _set_filter_value(message: pb.ColumnValue, value: Any, path: str) -> None:
    if not (isinstance(value, bool) or is_column_number(value) or (isinstance(value, str) and _is_utf8(value))):
        number = f"a number of at most {MAX_COLUMN_DIGITS} digits on either side of the point"
        raise RequestError(path, f"got {shortened(value)}, expected a string, a truth value, or {number}")
    set_scalar(message, value)


def _number(value: Any, path: str) -> float:
    """Return a number as a double; whole numbers exactly."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(path, f"got {value!r}, expected a number") from None
    if isinstance(value, (int, np.integer)) and int(value) != number:
        raise RequestError(path, f"got {value!r}, expected a number that a double holds exactly")
    return number


def _feedback_item_to_proto(item: FeedbackItem, path: str) -> pb.FeedbackItem:
    if item.kind not in FEEDBACK_KINDS:
        known = ", ".join(kind.name for kind in FEEDBACK_KINDS)
        raise RequestError(f"{path}.kind", f"got {item.kind!r}, expected one of: {known}")
    whole = isinstance(item.position, (int, np.integer)) and -INT32_MAX <= item.position <= INT32_MAX
    if item.position is not None and not whole:
        raise RequestError(f"{path}.position", f"got {item.position!r}, expected a place in a list, 0 = best")
    return pb.FeedbackItem(
        item_id=_id_text(item.item_id, f"{path}.item_id"), kind=FEEDBACK_KINDS[item.kind], position=item.position
    )


def _id_texts(ids: Sequence[str], path: str) -> list[str]:
    if isinstance(ids, str):
        raise RequestError(path, f"got the text {ids!r}, expected a list of ids")
    return [_id_text(each, f"{path}[{index}]") for index, each in enumerate(ids)]


def _id_text(value: object, path: str) -> str:
    """Return an id as text; whole numbers count as their spelling, as they do in training data."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not _is_utf8(value):
        raise RequestError(path, f"got {value!r}, expected an id as UTF-8 text")
    return value


def _optional_id(value: object, path: str) -> str | None:
    return None if value is None else _id_text(value, path)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(array: Float32, path: str, *, dimensions: int = 1) -> np.ndarray:
    try:
        numbers = np.ascontiguousarray(array, LITTLE_ENDIAN)
    except (ValueError, TypeError):
        raise RequestError(path, f"got {array!r}, expected numbers") from None
    if np.ndim(array) != dimensions:
        expected = "one dimension" if dimensions == 1 else f"{dimensions} dimensions"
        raise RequestError(path, f"got shape {np.shape(array)}, expected {expected}")
    return numbers


def _feature_to_proto(value: Any, path: str) -> pb.FeatureValue:
    """Return a feature's value as a message: what the wire has no type for goes as its spelling."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return _list_to_proto(value, path)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return pb.FeatureValue(int64_value=int(value))
    if isinstance(value, (float, np.floating)):
        return pb.FeatureValue(double_value=_exact(value, path))
    return pb.FeatureValue(string_value=_spelled(value, path))


def _list_to_proto(values: Sequence[Any] | np.ndarray, path: str) -> pb.FeatureValue:
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype in (np.float16, np.float32):
        return pb.FeatureValue(float_list=pb.FloatList(values=values.tolist()))
    paths = [f"{path}[{index}]" for index in range(len(values))]
    numbers = [_exact(value, path) for value, path in zip(values, paths, strict=True)]
    if numbers and None not in numbers:
        return pb.FeatureValue(double_list=pb.DoubleList(values=numbers))
    texts = [_spelled(value, path) for value, path in zip(values, paths, strict=True)]
    return pb.FeatureValue(string_list=pb.StringList(values=[text for text in texts if text is not None]))


def _exact(value: Any, path: str) -> float | None:
    """Return the double that is spelled as a number is; None path there is none, or path it is no number."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    text = _spelled(value, path)
    number = math.nan if text is None else float(text)
    return number if text == spell(number) else None


def _spelled(value: Any, path: str) -> str | None:
    try:
        text = spell(value)
    except ValueError as error:
        raise RequestError(path, f"got {shortened(value)}, expected {error}") from None
    if text is not None and not _is_utf8(text):
        raise RequestError(path, f"got {value!r}, expected UTF-8 text")
    return text


def _ranked(
    message: pb.RankedItems,
    release: ReleaseName,
    attribution_token: str | None = None,
    arms: Mapping[str, str] | None = None,
) -> Ranking:
    return Ranking(
        item_ids=tuple(message.item_ids),
        scores=np.fromiter(message.scores, np.float32, len(message.scores)),  # a third of the time of np.array
        metadata=tuple(columns_from_proto(each, "metadata") for each in message.metadata),
        origin=ORIGIN_OF.get(message.origin),
        missing_ids=tuple(message.missing_ids),
        release=release,
        plan=SEARCH_PLAN_OF.get(message.plan),
        candidate_count=message.candidate_count,
        exhausted=message.exhausted,
        degraded=message.degraded,
        attribution_token=attribution_token,
        arms=arms or {},
        exclusions=_exclusions(message.exclusions) if message.HasField("exclusions") else None,
        own_scores=np.fromiter(message.own_scores, np.float32) if message.own_scores else None,
    )


def _exclusions(message: pb.Exclusions) -> Exclusions:
    return Exclusions(**{name: getattr(message, name) for name in EXCLUSIONS})


def _release_name(message: pb.ReleaseId) -> ReleaseName:
    return ReleaseName(message.name, message.fingerprint)
