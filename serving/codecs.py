"""The server's codecs: request messages to values, answers to response messages."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from google.protobuf.message import Message

from recsys.cancellation import checked
from recsys.experiment.assignment import Assignment
from recsys.export.release import Release
from recsys.retrieval import Answer, ReformulatedAnswer, Retriever
from serving.settings import ServerSettings
from twintower.errors import AnswerTooLargeError, RequestError
from twintower.types import (
    MATCH_ALL,
    Condition,
    Diversity,
    Exclusions,
    ExperimentUnit,
    Explanation,
    FeedbackItem,
    Filter,
    FilterValue,
    Float32,
    Query,
    Repeats,
)
from twintower.v1 import catalog_service_pb2 as catalog_pb
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
    columns_to_proto,
    decimal_from_proto,
    vector_from_proto,
)

EXCLUSIONS = tuple(field.name for field in dataclasses.fields(Exclusions))
FEEDBACK_KIND_OF = {number: kind for kind, number in FEEDBACK_KINDS.items()}
REPEATS_OF = {number: repeats for repeats, number in REPEATS.items()}
MAX_UNIT_LETTERS = 256
"""Of the id of a user or session: it is hashed and logged with every list."""
METADATA_PART_BYTES = 2**18
"""Display columns that become messages at once, in bytes: some milliseconds of work."""
SCALARS = ("string_value", "bool_value", "int64_value", "double_value", "decimal_value")


def query_from_proto(message: pb.Query, path: str, settings: ServerSettings) -> Query:
    """Return a query.

    Args:
        message: as received.
        path: its path in the request, for errors.
        settings: the limits.

    Raises:
        RequestError: no form is set, a list is longer than its limit, the vector's bytes are no numbers, or a condition
            of the filter has no rule or values that no column holds.
    """
    form = message.WhichOneof("form")
    if form == "vector":
        query = Query(vector=vector_from_proto(message.vector, path))
    elif form == "entity":
        entity = message.entity
        query = Query(
            entity_id=entity.entity_id or None,
            features=_features_from_proto(entity, f"{path}.entity.features", settings),
            history=_ids(entity.history, path, "entity.history", settings),
            history_age_days=list(entity.history_age_days),
        )
    elif form == "items":
        query = Query(item_ids=_ids(message.items.item_ids, path, "items.item_ids", settings))
        query.similar = message.items.similar
        if not query.item_ids:
            raise RequestError(f"{path}.items.item_ids", "got none, expected at least 1")
    else:
        raise RequestError(path, "got no form, expected one of: entity, items, vector")
    query.excluded_ids = _ids(message.excluded_ids, path, "excluded_ids", settings)
    query.repeats = REPEATS_OF.get(message.repeats, Repeats.ALLOW)
    query.exclude_seen = message.exclude_seen or query.repeats is Repeats.EXCLUDE
    if message.HasField("filter"):
        query.filter = _filter_from_proto(message.filter, f"{path}.filter", settings)
    return query


def vectors_from_proto(rows: Sequence[bytes], dim: int, path: str) -> Float32:
    """Return vectors that came as bytes as `[len(rows), dim]`, float32.

    Args:
        rows: little-endian single precision numbers.
        dim: how many each has.
        path: the field, for errors.

    Raises:
        RequestError: one has another number of bytes.
    """
    size = LITTLE_ENDIAN.itemsize * dim
    for index, row in enumerate(rows):
        if len(row) != size:
            raise RequestError(
                f"{path}[{index}]", f"got {len(row)} bytes, expected {size}, 4 for each of {dim} numbers"
            )
    return np.frombuffer(b"".join(rows), LITTLE_ENDIAN).reshape(-1, dim).astype(np.float32, copy=False)


def diversity_from_proto(message: pb.Diversity) -> Diversity:
    """Return a diversity."""
    is_set = message.crowding_field != "" or message.max_per_value != 0
    most = message.max_per_value if is_set else None
    return Diversity(message.crowding_field or None, most, message.mmr_weight)


def feedback_from_proto(message: pb.Feedback, path: str, settings: ServerSettings) -> tuple[FeedbackItem, ...]:
    """Return the items of feedback.

    Args:
        message: as received.
        path: its path in the request, for errors.
        settings: the limits.

    Raises:
        RequestError: more items than the limit, one of an unknown kind, or a position below 0.
    """
    if len(message.items) > settings.max_feedback:
        got, most = len(message.items), settings.max_feedback
        raise RequestError(f"{path}.items", f"got {got} items, expected at most {most}")
    return tuple(
        _feedback_item_from_proto(item, f"{path}.items[{index}]") for index, item in enumerate(checked(message.items))
    )


def item_features_from_proto(message: catalog_pb.UpsertItem) -> dict[str, Any]:
    """Return the raw feature values of an item to upsert, by name."""
    return {name: _feature_from_proto(value) for name, value in message.features.values.items()}


def unit_from_proto(message: pb.Unit) -> ExperimentUnit:
    """Return whom experiments assign and the exposure log names.

    Raises:
        RequestError: an id that is too long to be one.
    """
    for name, value in (("user_id", message.user_id), ("session_id", message.session_id)):
        if len(value) > MAX_UNIT_LETTERS:
            raise RequestError(f"unit.{name}", f"got {len(value)} letters, expected at most {MAX_UNIT_LETTERS}")
    return ExperimentUnit(message.user_id or None, message.session_id or None)


def reformulated_to_proto(
    answer: ReformulatedAnswer, retriever: Retriever, metadata: Sequence[pb.Columns] = ()
) -> pb.ReformulateResponse:
    """Return a reformulated answer as a message.

    Args:
        answer: the neighbours and how they came about.
        retriever: that answered.
        metadata: display columns of each item, or nothing; see `metadata_to_proto`.
    """
    message = pb.ReformulateResponse(
        result=ranked_items_to_proto(answer.answer, metadata),
        drift=answer.drift,
        confidence=answer.confidence,
        fell_back=answer.fell_back,
        missing_ids=answer.missing_ids,
        reformulator=answer.reformulator,
        ignored_kinds=[IGNORED_KINDS[kind] for kind in answer.ignored_kinds],
        release=release_id_to_proto(retriever.release),
    )
    if answer.vector is not None:
        message.vector.values.values.extend(answer.vector.tolist())
    if answer.explanation is not None:
        message.explanation.CopyFrom(_explanation_to_proto(answer.explanation))
    return message


def metadata_to_proto(
    find: Callable[[Sequence[str]], Sequence[Mapping[str, Any]]],
    item_ids: Sequence[str],
    item_bytes: float,
    max_bytes: int,
) -> list[pb.Columns]:
    """Return the display columns of items, made in parts so that no step takes long and a large answer ends soon.

    Args:
        find: returns the display columns of some items.
        item_ids: of the answer.
        item_bytes: about how many bytes the columns of one item take.
        max_bytes: most bytes of the whole answer.

    Raises:
        AnswerTooLargeError: the columns alone are more.
    """
    rows = max(1, int(METADATA_PART_BYTES / max(item_bytes, 1.0)))
    found, size = [], 0
    for first in range(0, len(item_ids), rows):
        for columns in checked(find(item_ids[first : first + rows])):
            found.append(columns_to_proto(columns))
            size += found[-1].ByteSize()
            if size > max_bytes:
                raise _too_large(max_bytes)
    return found


def ranked_items_to_proto(answer: Answer, metadata: Sequence[pb.Columns] = ()) -> dict[str, Any]:
    """Return an answer as the fields of a `RankedItems` message: a response makes it of them in index, without a copy.

    Args:
        answer: the neighbours.
        metadata: display columns of each item, or nothing; see `metadata_to_proto`.
    """
    fields = {
        "item_ids": answer.item_ids,
        "scores": answer.scores.tolist(),
        "origin": ORIGINS[answer.origin],
        "plan": SEARCH_PLANS[answer.plan],
        "candidate_count": answer.candidate_count,
    }
    # What most answers leave at its default takes half of the time if it is set.
    if metadata:
        fields["metadata"] = metadata
    if answer.missing_ids:
        fields["missing_ids"] = answer.missing_ids
    if answer.exhausted:
        fields["exhausted"] = True
    if answer.degraded:
        fields["degraded"] = True
    if answer.exclusions is not None:
        fields["exclusions"] = {name: getattr(answer.exclusions, name) for name in EXCLUSIONS}
    if answer.own_scores is not None:
        fields["own_scores"] = answer.own_scores.tolist()
    return fields


def encoded(parts: Iterable[Message], max_bytes: int) -> bytes:
    """Return the encoding of a message from parts of it, each encoded by itself with a checkpoint before.

    Encodings of parts of a message, one after the other, are an encoding of the whole. So a large answer never exists
    as a message, which takes several times the memory, and no single step of it takes long.

    Args:
        parts: messages of one type; repeated fields are joined, other fields are set in one part only.
        max_bytes: most bytes of the whole.

    Raises:
        AnswerTooLargeError: there are more.
    """
    pieces, size = [], 0
    for part in checked(parts):
        pieces.append(part.SerializeToString())
        size += len(pieces[-1])
        if size > max_bytes:
            raise _too_large(max_bytes)
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)


def _too_large(max_bytes: int) -> AnswerTooLargeError:
    advice = "Request fewer items or queries at once, or no metadata."
    return AnswerTooLargeError(f"got more than max_answer_bytes = {max_bytes} bytes. {advice}")


def release_id_to_proto(release: Release) -> pb.ReleaseId:
    """Return a release's name and fingerprint; treat as immutable."""
    return _named_release_id(release.name, release.fingerprint)


@lru_cache(maxsize=16)
def _named_release_id(name: str, fingerprint: str) -> pb.ReleaseId:
    return pb.ReleaseId(name=name, fingerprint=fingerprint)


def assignments_to_proto(found: Sequence[Assignment]) -> list[pb.Assignment]:
    """Return the experiments that a request was in; treat as immutable."""
    return [_named_assignment(each.experiment, each.arm) for each in found]


@lru_cache(maxsize=256)
def _named_assignment(experiment: str, arm: str) -> pb.Assignment:
    return pb.Assignment(experiment=experiment, arm=arm)


def release_to_proto(retriever: Retriever, labels: Sequence[str] = ()) -> pb.Release:
    """Return what a retriever serves.

    Args:
        retriever: over the release.
        labels: under which it is served.
    """
    manifest, facts = retriever.release.manifest, retriever.release.facts
    message = pb.Release(
        name=retriever.release.name,
        fingerprint=retriever.release.fingerprint,
        format_version=manifest.format_version,
        dim=facts.dim,
        item_count=facts.item_count,
        known_entity_count=facts.query_count,
        query_entity=QUERY_ENTITIES[facts.query_entity],
        query_features=facts.query_columns,
        reads_history=facts.reads_history,
        index=facts.index,
        index_recall=facts.index_recall,
        metrics=facts.metrics,
        versions=manifest.versions,
        notice=facts.notice,
        reformulators=retriever.reformulators,
        default_reformulator=retriever.default_reformulator,
        filter_fields={name: FILTER_TYPES[kind] for name, kind in retriever.filter_fields.items()},
        labels=labels,
    )
    message.create_time.FromDatetime(datetime.datetime.fromisoformat(manifest.created))
    return message


def _filter_from_proto(message: pb.Filter, path: str, settings: ServerSettings) -> Filter:
    if not message.all_of:
        return MATCH_ALL
    if len(message.all_of) > settings.max_conditions:
        got, most = len(message.all_of), settings.max_conditions
        raise RequestError(f"{path}.all_of", f"got {got} conditions, expected at most {most}")
    return Filter(
        tuple(
            _condition_from_proto(condition, f"{path}.all_of[{index}]", settings)
            for index, condition in enumerate(checked(message.all_of))
        )
    )


def _condition_from_proto(message: pb.Condition, path: str, settings: ServerSettings) -> Condition:
    rule = message.WhichOneof("rule")
    if rule is None:
        raise RequestError(path, "got no rule, expected one of: any_of, none_of, range")
    if rule == "range":
        bounds = {name: getattr(message.range, name) for name in BOUNDS if message.range.HasField(name)}
        if not bounds:
            raise RequestError(f"{path}.range", f"got no bound, expected at least one of: {', '.join(BOUNDS)}")
        return Condition(
            message.field,
            **{name: _filter_value_from_proto(value, f"{path}.range.{name}") for name, value in bounds.items()},
        )
    values = getattr(message, rule).values
    if len(values) > settings.max_filter_values:
        got, most = len(values), settings.max_filter_values
        raise RequestError(f"{path}.{rule}", f"got {got} values, expected at most {most}")
    return Condition(
        message.field,
        **{rule: tuple(_filter_value_from_proto(value, f"{path}.{rule}[{at}]") for at, value in enumerate(values))},
    )


def _filter_value_from_proto(message: pb.ColumnValue, path: str) -> FilterValue:
    kind = message.WhichOneof("kind")
    if kind not in SCALARS:
        raise RequestError(path, f"got {kind or 'nothing'}, expected one of: {', '.join(SCALARS)}")
    return decimal_from_proto(message, path) if kind == "decimal_value" else getattr(message, kind)


def _feedback_item_from_proto(message: pb.FeedbackItem, path: str) -> FeedbackItem:
    if message.kind not in FEEDBACK_KIND_OF:
        known = ", ".join(pb.FeedbackKind.Name(number) for number in FEEDBACK_KIND_OF)
        raise RequestError(f"{path}.kind", f"got {message.kind}, expected one of: {known}")
    position = message.position if message.HasField("position") else None
    if position is not None and position < 0:
        raise RequestError(f"{path}.position", f"got {position}, expected >= 0")
    return FeedbackItem(message.item_id, FEEDBACK_KIND_OF[message.kind], position)


def _explanation_to_proto(explanation: Explanation) -> pb.Explanation:
    return pb.Explanation(
        item_ids=explanation.item_ids,
        item_weights=explanation.item_weights.tolist(),
        entered_ids=explanation.entered_ids,
        left_ids=explanation.left_ids,
    )


def _ids(ids: Sequence[str], owner: str, name: str, settings: ServerSettings) -> tuple[str, ...]:
    if len(ids) > settings.max_ids:
        raise RequestError(f"{owner}.{name}", f"got {len(ids)} ids, expected at most {settings.max_ids}")
    return tuple(ids) if ids else ()


def _features_from_proto(entity: pb.Entity, path: str, settings: ServerSettings) -> dict[str, Any]:
    size = sum(len(name) + value.ByteSize() for name, value in entity.features.items())
    if size > settings.max_feature_bytes:
        raise RequestError(path, f"got {size} bytes, expected at most {settings.max_feature_bytes}")
    return {name: _feature_from_proto(value) for name, value in entity.features.items()}


def _feature_from_proto(message: pb.FeatureValue) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "float_list":
        return np.array(message.float_list.values, np.float32)
    value = getattr(message, kind)
    if kind.endswith("_list"):
        return list(value.values)
    return None if value != value else value
