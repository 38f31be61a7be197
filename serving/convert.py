"""Between messages and the library's types: nothing behind this file knows the wire, nothing before it the library."""

from __future__ import annotations

import dataclasses
import datetime
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from functools import lru_cache
from reprlib import repr as shortened
from typing import Any

import numpy as np
from google.protobuf.message import Message

from recsys.cancellation import checked
from recsys.data.ordered_values import MAX_DIGITS, is_number
from recsys.errors import DataError, RequestError
from recsys.experiment.assignment import Assignment
from recsys.export.release import Release
from recsys.retrieval import Answer, Explanation, ReformulatedAnswer, Retriever
from recsys.spelling import Spelling
from recsys.types import (
    EVERY_ITEM,
    NOBODY,
    Condition,
    Diversity,
    Exclusions,
    FeedbackKind,
    Filter,
    FilterType,
    FilterValue,
    Float32,
    Mention,
    Origin,
    Plan,
    Query,
    Repeats,
    Unit,
)
from serving.answers import Event, Upsert
from serving.errors import AnswerTooLargeError
from serving.settings import ServerSettings
from serving.v1 import catalogue_service_pb2 as catalogue_pb
from serving.v1 import event_service_pb2 as event_pb
from serving.v1 import recommendation_service_pb2 as pb

ORIGINS = {
    Origin.KNOWN_ENTITY: pb.ORIGIN_KNOWN_ENTITY,
    Origin.FEATURES: pb.ORIGIN_FEATURES,
    Origin.ITEMS: pb.ORIGIN_ITEMS,
    Origin.VECTOR: pb.ORIGIN_VECTOR,
    Origin.POPULARITY: pb.ORIGIN_POPULARITY,
}
ENTITIES = {
    "user": pb.QUERY_ENTITY_USER,
    "item": pb.QUERY_ENTITY_ITEM,
    "features": pb.QUERY_ENTITY_FEATURES,
}
FEEDBACK_KINDS = {
    FeedbackKind.LIKED: pb.FEEDBACK_KIND_LIKED,
    FeedbackKind.DISLIKED: pb.FEEDBACK_KIND_DISLIKED,
    FeedbackKind.CLICKED: pb.FEEDBACK_KIND_CLICKED,
    FeedbackKind.SKIPPED: pb.FEEDBACK_KIND_SKIPPED,
}
PLANS = {
    None: pb.SEARCH_PLAN_UNSPECIFIED,
    Plan.INDEX: pb.SEARCH_PLAN_INDEX,
    Plan.EXACT_SUBSET: pb.SEARCH_PLAN_EXACT_SUBSET,
    Plan.OVER_FETCH: pb.SEARCH_PLAN_OVER_FETCH,
    Plan.ESCALATED: pb.SEARCH_PLAN_ESCALATED,
}
REPEATS = {
    pb.REPEATS_ALLOW: Repeats.ALLOW,
    pb.REPEATS_ONLY: Repeats.ONLY,
    pb.REPEATS_EXCLUDE: Repeats.EXCLUDE,
}
FILTER_TYPES = {
    FilterType.STRING: pb.FILTER_TYPE_STRING,
    FilterType.STRINGS: pb.FILTER_TYPE_STRINGS,
    FilterType.NUMBER: pb.FILTER_TYPE_NUMBER,
    FilterType.BOOL: pb.FILTER_TYPE_BOOL,
    FilterType.TIME: pb.FILTER_TYPE_TIME,
}
BOUNDS = ("minimum", "exclusive_minimum", "maximum", "exclusive_maximum")
DIVERSITY = {"crowding_field": "a column's name", "max_per_value": "a whole number", "mmr_weight": "a number"}
EXCLUSIONS = tuple(field.name for field in dataclasses.fields(Exclusions))
IGNORED_KINDS = {**FEEDBACK_KINDS, FeedbackKind.PSEUDO: pb.FEEDBACK_KIND_PSEUDO}
"""All kinds: an answer may say that it ignored pseudo feedback, which a request does not name."""
SAID = {number: kind for kind, number in FEEDBACK_KINDS.items()}
LARGEST = 2**31 - 1
MAX_UNIT_LETTERS = 256
"""Of the id of a user or session who asks: it is hashed and logged with every list."""
METADATA_PART_BYTES = 2**18
"""Display columns that become messages at once, in bytes: some milliseconds of work."""
LITTLE_ENDIAN = np.dtype("<f4")
INT64 = range(-(2**63), 2**63)
DECIMAL = re.compile(rf"-?[0-9]{{1,{MAX_DIGITS}}}(\.[0-9]{{1,{MAX_DIGITS}}})?")
SCALARS = ("string_value", "bool_value", "int64_value", "double_value", "decimal_value")
SPELLING = Spelling("value")
"""How a feature's value is written where the wire has no type for it: the column that reads it is on the server."""


def query(message: pb.Query, where: str, settings: ServerSettings) -> Query:
    """Return a query message as the library takes it.

    Args:
        message: as received.
        where: its path in the request, for messages.
        settings: the limits.

    Raises:
        RequestError: no form is set, a list is longer than its limit, the vector's bytes are no numbers, or a condition
            of the filter has no rule or values that no column holds.
    """
    form = message.WhichOneof("form")
    if form == "vector":
        asked = Query(vector=vector(message.vector, where))
    elif form == "entity":
        entity = message.entity
        asked = Query(
            entity_id=entity.entity_id or None,
            features=_features(entity, f"{where}.entity.features", settings),
            history=_ids(entity.history, where, "entity.history", settings),
            history_age_days=list(entity.history_age_days),
        )
    elif form == "items":
        asked = Query(item_ids=_ids(message.items.item_ids, where, "items.item_ids", settings))
        asked.similar = message.items.similar
        if not asked.item_ids:
            raise RequestError(f"{where}.items.item_ids", "got none, expected at least 1")
    else:
        raise RequestError(where, "got no form, expected one of: entity, items, vector")
    asked.excluded_ids = _ids(message.excluded_ids, where, "excluded_ids", settings)
    asked.repeats = REPEATS.get(message.repeats, Repeats.ALLOW)
    asked.exclude_seen = message.exclude_seen or asked.repeats is Repeats.EXCLUDE
    if message.HasField("filter"):
        asked.filter = _filter(message.filter, f"{where}.filter", settings)
    return asked


def query_message(asked: Query, where: str = "query") -> pb.Query:
    """Return a query as a message; what the message can carry is left to the server to refuse.

    Args:
        asked: at most one of the forms; a message has no room for two.
        where: its path in the request, for messages.

    Raises:
        RequestError: two forms, reported ids, or a value of a type that the wire does not carry.
    """
    by_entity = asked.entity_id is not None or asked.features is not None or len(asked.history) > 0
    if by_entity + (len(asked.item_ids) > 0) + (asked.vector is not None) > 1:
        raise RequestError(where, "got several forms, expected one of: entity or features, item ids, vector")
    if asked.reported_ids:
        got = f"got {len(asked.reported_ids)} ids, expected none: the server has them from its events"
        raise RequestError(f"{where}.reported_ids", f"{got}. Name items in excluded_ids")
    message = pb.Query(
        excluded_ids=_id_texts(asked.excluded_ids, f"{where}.excluded_ids"),
        exclude_seen=bool(asked.exclude_seen),
        repeats=_repeats(asked.repeats, f"{where}.repeats"),
    )
    for place, condition in enumerate(asked.filter.all_of):
        message.filter.all_of.append(_condition_message(condition, f"{where}.filter.all_of[{place}]"))
    if asked.vector is not None:
        message.vector.float32_le = _numbers(asked.vector, f"{where}.vector").tobytes()
    elif asked.item_ids:
        message.items.item_ids.extend(_id_texts(asked.item_ids, f"{where}.items.item_ids"))
        message.items.similar = asked.similar
    elif by_entity:
        message.entity.SetInParent()
        if asked.entity_id is not None:
            message.entity.entity_id = _id_text(asked.entity_id, f"{where}.entity.entity_id")
        message.entity.history.extend(_id_texts(asked.history, f"{where}.entity.history"))
        message.entity.history_age_days.extend(_numbers(asked.history_age_days, f"{where}.entity.history_age_days"))
        for name, value in (asked.features or {}).items():
            message.entity.features[name].CopyFrom(_feature_message(value, f"{where}.entity.features.{name}"))
    return message


def _repeats(value: str, where: str) -> int:
    numbers = {kind: number for number, kind in REPEATS.items()}
    if value not in numbers:
        raise RequestError(where, f"got {value!r}, expected one of: {', '.join(numbers)}")
    return 0 if value == Repeats.ALLOW else numbers[Repeats(value)]


def vector(message: pb.Vector, owner: str) -> Float32:
    """Return a vector message as `[dim]`, float32.

    Args:
        message: as received.
        owner: the path in the request of what has it in `vector`, for messages.

    Raises:
        RequestError: no encoding is set, or the bytes are not a whole number of floats.
    """
    encoding = message.WhichOneof("encoding")
    if encoding == "float32_le":
        content = message.float32_le
        if len(content) % LITTLE_ENDIAN.itemsize:
            raise RequestError(f"{owner}.vector.float32_le", f"got {len(content)} bytes, expected 4 for each number")
        return np.frombuffer(content, LITTLE_ENDIAN).astype(np.float32, copy=False)
    if encoding == "values":
        return np.array(message.values.values, np.float32)
    raise RequestError(f"{owner}.vector", "got no encoding, expected one of: values, float32_le")


def packed_vectors(rows: Sequence[bytes], dim: int, where: str) -> Float32:
    """Return vectors that came as bytes as `[len(rows), dim]`, float32.

    Args:
        rows: little-endian single precision numbers.
        dim: how many each has.
        where: the field, for messages.

    Raises:
        RequestError: one has another number of bytes.
    """
    size = LITTLE_ENDIAN.itemsize * dim
    for place, row in enumerate(rows):
        if len(row) != size:
            raise RequestError(
                f"{where}[{place}]", f"got {len(row)} bytes, expected {size}, 4 for each of {dim} numbers"
            )
    return np.frombuffer(b"".join(rows), LITTLE_ENDIAN).reshape(-1, dim).astype(np.float32, copy=False)


def packed_rows(vectors: Float32, where: str) -> list[bytes]:
    """Return the rows of a matrix as `packed_vectors` takes them.

    Raises:
        RequestError: not `[vectors, dim]`, or no numbers.
    """
    return [row.tobytes() for row in _numbers(vectors, where, dimensions=2)]


def diversity(message: pb.Diversity) -> Diversity:
    """Return a diversity message as the library takes it."""
    return Diversity(message.crowding_field, message.max_per_value, message.mmr_weight)


def diversity_message(asked: Diversity) -> pb.Diversity:
    """Return a diversity as a message.

    Raises:
        RequestError: a value of a type that the wire does not carry.
    """
    message = pb.Diversity()
    for name, kind in DIVERSITY.items():
        try:
            setattr(message, name, getattr(asked, name))
        except (TypeError, ValueError):
            raise RequestError(f"diversity.{name}", f"got {getattr(asked, name)!r}, expected {kind}") from None
    return message


def mentions(message: pb.Feedback, where: str, settings: ServerSettings) -> tuple[Mention, ...]:
    """Return the items of a feedback message as the library takes them.

    Args:
        message: as received.
        where: its path in the request, for messages.
        settings: the limits.

    Raises:
        RequestError: more items than the limit, one of an unknown kind, or one at a place below 0.
    """
    if len(message.items) > settings.max_feedback:
        got, most = len(message.items), settings.max_feedback
        raise RequestError(f"{where}.items", f"got {got} items, expected at most {most}")
    return tuple(_mention(item, f"{where}.items[{place}]") for place, item in enumerate(checked(message.items)))


def item_features(message: catalogue_pb.UpsertItem) -> dict[str, Any]:
    """Return the raw feature values of an item to upsert, by name."""
    return {name: _feature(value) for name, value in message.features.values.items()}


def columns(message: pb.Columns, where: str) -> dict[str, Any]:
    """Return values by column; numbers that are not finite are missing, and so is what only newer servers send.

    Args:
        message: as received.
        where: its path, for messages.

    Raises:
        RequestError: a decimal that is none.
    """
    return {name: _plain(value, f"{where}.{name}") for name, value in message.values.items()}


def upsert_message(item: Upsert, where: str) -> catalogue_pb.UpsertItem:
    """Return an item to upsert as a message.

    Args:
        item: with features or a vector.
        where: its path in the request, for messages.

    Raises:
        RequestError: features and a vector, a value of a type that the wire does not carry, or an id that is no text.
    """
    if item.features is not None and item.vector is not None:
        raise RequestError(where, "got features and a vector, expected one of them")
    message = catalogue_pb.UpsertItem(item_id=_id_text(item.item_id, f"{where}.item_id"))
    if item.vector is not None:
        message.vector.float32_le = _numbers(item.vector, f"{where}.vector").tobytes()
    elif item.features is not None:
        message.features.SetInParent()
        for name, value in item.features.items():
            message.features.values[name].CopyFrom(_feature_message(value, f"{where}.features.{name}"))
    message.metadata.CopyFrom(_columns_message(item.metadata))
    return message


def unit(message: pb.Unit) -> Unit:
    """Return who asks.

    Raises:
        RequestError: an id that is too long to be one.
    """
    for name, value in (("user_id", message.user_id), ("session_id", message.session_id)):
        if len(value) > MAX_UNIT_LETTERS:
            raise RequestError(f"unit.{name}", f"got {len(value)} letters, expected at most {MAX_UNIT_LETTERS}")
    return Unit(message.user_id, message.session_id)


def unit_message(unit: Unit) -> pb.Unit | None:
    """Return who is asking as a message; None for nobody.

    Raises:
        RequestError: an id that is no text.
    """
    if unit is NOBODY:
        return None
    return pb.Unit(
        user_id=_id_text(unit.user_id, "unit.user_id"), session_id=_id_text(unit.session_id, "unit.session_id")
    )


def event_message(event: Event, where: str) -> event_pb.Event:
    """Return an event as a message.

    Args:
        event: what happened.
        where: its path in the request, for messages.

    Raises:
        RequestError: an id that is no text, a value that is no number, or a time without time zone.
    """
    message = event_pb.Event(
        event_id=_id_text(event.event_id, f"{where}.event_id"),
        attribution_token=_id_text(event.attribution_token, f"{where}.attribution_token"),
        kind=_id_text(event.kind, f"{where}.kind"),
        item_id=_id_text(event.item_id, f"{where}.item_id"),
        value=None if event.value is None else _number(event.value, f"{where}.value"),
    )
    if event.time is not None:
        if event.time.tzinfo is None:
            raise RequestError(f"{where}.time", f"got {event.time.isoformat()}, expected a moment with time zone")
        message.event_time.FromDatetime(event.time)
    return message


def item_ids(ids: Sequence[str], where: str) -> list[str]:
    """Return item ids as texts.

    Raises:
        RequestError: they are one text, or one of them is none.
    """
    return _id_texts(ids, where)


def feedback_message(said: Sequence[Mention], pseudo: bool, where: str = "feedback") -> pb.Feedback:
    """Return feedback as a message.

    Args:
        said: of items, more important ones first.
        pseudo: whether first results count, too.
        where: its path in the request, for messages.

    Raises:
        RequestError: an id that is no text, pseudo feedback by name, or a position that is no place in a list.
    """
    items = [_item_message(each, f"{where}.items[{place}]") for place, each in enumerate(said)]
    return pb.Feedback(items=items, pseudo=pseudo)


def reformulated(
    answer: ReformulatedAnswer, retriever: Retriever, metadata: Sequence[pb.Columns] = ()
) -> pb.ReformulateResponse:
    """Return a reformulated answer as a message.

    Args:
        answer: the neighbours and how they came about.
        retriever: that answered.
        metadata: display columns of each item, or nothing; see `metadata_of`.
    """
    message = pb.ReformulateResponse(
        result=ranked_items(answer.answer, metadata),
        drift=answer.drift,
        confidence=answer.confidence,
        fell_back=answer.fell_back,
        missing_ids=answer.missing_ids,
        reformulator=answer.reformulator,
        ignored_kinds=[IGNORED_KINDS[kind] for kind in answer.ignored_kinds],
        release=release_id(retriever.release),
    )
    if answer.vector is not None:
        message.vector.values.values.extend(answer.vector.tolist())
    if answer.explanation is not None:
        message.explanation.CopyFrom(_explanation(answer.explanation))
    return message


def ignored_kinds(numbers: Sequence[int]) -> tuple[FeedbackKind, ...]:
    """Return the kinds of a response; those of a newer server are passed over."""
    kinds = {number: kind for kind, number in IGNORED_KINDS.items()}
    return tuple(kinds[number] for number in numbers if number in kinds)


def metadata_of(
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
            found.append(_columns_message(columns))
            size += found[-1].ByteSize()
            if size > max_bytes:
                raise _too_large(max_bytes)
    return found


def ranked_items(answer: Answer, metadata: Sequence[pb.Columns] = ()) -> dict[str, Any]:
    """Return an answer as the fields of a `RankedItems` message: a response makes it of them in place, without a copy.

    Args:
        answer: the neighbours.
        metadata: display columns of each item, or nothing; see `metadata_of`.
    """
    fields = {
        "item_ids": answer.item_ids,
        "scores": answer.scores.tolist(),
        "origin": ORIGINS[answer.origin],
        "plan": PLANS[answer.plan],
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
    advice = "Ask for fewer items or queries at once, or without metadata."
    return AnswerTooLargeError(f"got more than max_answer_bytes = {max_bytes} bytes. {advice}")


def release_id(release: Release) -> pb.ReleaseId:
    """Return a release's name and fingerprint; not to be changed."""
    return _release_id(release.name, release.fingerprint)


@lru_cache(maxsize=16)
def _release_id(name: str, fingerprint: str) -> pb.ReleaseId:
    return pb.ReleaseId(name=name, fingerprint=fingerprint)


def assignments(found: Sequence[Assignment]) -> list[pb.Assignment]:
    """Return the experiments that a request was in; not to be changed."""
    return [_assignment(each.experiment, each.arm) for each in found]


@lru_cache(maxsize=256)
def _assignment(experiment: str, arm: str) -> pb.Assignment:
    return pb.Assignment(experiment=experiment, arm=arm)


def release(retriever: Retriever, labels: Sequence[str] = ()) -> pb.Release:
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
        query_entity=ENTITIES[facts.query_entity],
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


def _filter(message: pb.Filter, where: str, settings: ServerSettings) -> Filter:
    if not message.all_of:
        return EVERY_ITEM
    if len(message.all_of) > settings.max_conditions:
        got, most = len(message.all_of), settings.max_conditions
        raise RequestError(f"{where}.all_of", f"got {got} conditions, expected at most {most}")
    return Filter(
        tuple(
            _condition(condition, f"{where}.all_of[{place}]", settings)
            for place, condition in enumerate(checked(message.all_of))
        )
    )


def _condition(message: pb.Condition, where: str, settings: ServerSettings) -> Condition:
    rule = message.WhichOneof("rule")
    if rule is None:
        raise RequestError(where, "got no rule, expected one of: any_of, none_of, range")
    if rule == "range":
        bounds = {name: getattr(message.range, name) for name in BOUNDS if message.range.HasField(name)}
        if not bounds:
            raise RequestError(f"{where}.range", f"got no bound, expected at least one of: {', '.join(BOUNDS)}")
        return Condition(
            message.field, **{name: _filter_value(value, f"{where}.range.{name}") for name, value in bounds.items()}
        )
    values = getattr(message, rule).values
    if len(values) > settings.max_filter_values:
        got, most = len(values), settings.max_filter_values
        raise RequestError(f"{where}.{rule}", f"got {got} values, expected at most {most}")
    return Condition(
        message.field, **{rule: tuple(_filter_value(value, f"{where}.{rule}[{at}]") for at, value in enumerate(values))}
    )


def _filter_value(message: pb.ColumnValue, where: str) -> FilterValue:
    kind = message.WhichOneof("kind")
    if kind not in SCALARS:
        raise RequestError(where, f"got {kind or 'nothing'}, expected one of: {', '.join(SCALARS)}")
    return _decimal(message, where) if kind == "decimal_value" else getattr(message, kind)


def _decimal(message: pb.ColumnValue, where: str) -> int | Decimal:
    text = message.decimal_value
    if DECIMAL.fullmatch(text) is None:
        expected = f"digits such as 19.99, at most {MAX_DIGITS} on either side of the point"
        raise RequestError(f"{where}.decimal_value", f"got {shortened(text)}, expected {expected}")
    return Decimal(text) if "." in text else int(text)


def _condition_message(asked: Condition, where: str) -> pb.Condition:
    message = pb.Condition(field=_id_text(asked.field, f"{where}.field"))
    rules = [name for name in ("any_of", "none_of") if getattr(asked, name) is not None]
    bounds = {name: getattr(asked, name) for name in BOUNDS if getattr(asked, name) is not None}
    if len(rules) + bool(bounds) != 1:
        got = len(rules) + bool(bounds)
        raise RequestError(where, f"got {got} rules, expected one of: any_of, none_of, a range with a bound")
    for rule in rules:
        values = getattr(message, rule)
        values.SetInParent()
        for place, value in enumerate(getattr(asked, rule)):
            _set_filter_value(values.values.add(), value, f"{where}.{rule}[{place}]")
    for name, value in bounds.items():
        _set_filter_value(getattr(message.range, name), value, f"{where}.range.{name}")
    return message


def _set_filter_value(message: pb.ColumnValue, value: Any, where: str) -> None:
    if not (isinstance(value, bool) or is_number(value) or (isinstance(value, str) and _is_utf8(value))):
        expected = f"a string, a truth value, or a number of at most {MAX_DIGITS} digits on either side of the point"
        raise RequestError(where, f"got {shortened(value)}, expected {expected}")
    _set_scalar(message, value)


def _set_scalar(message: pb.ColumnValue, value: str | bool | float | Decimal) -> None:
    if isinstance(value, str):
        message.string_value = value
    elif isinstance(value, bool):
        message.bool_value = value
    elif isinstance(value, float):
        message.double_value = value
    elif isinstance(value, int) and value in INT64:
        message.int64_value = value
    else:
        message.decimal_value = f"{value:f}" if isinstance(value, Decimal) else str(value)


def _number(value: Any, where: str) -> float:
    """Return a number as a double; whole numbers exactly."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise RequestError(where, f"got {value!r}, expected a number") from None
    if isinstance(value, (int, np.integer)) and int(value) != number:
        raise RequestError(where, f"got {value!r}, expected a number that a double holds exactly")
    return number


def _mention(message: pb.FeedbackItem, where: str) -> Mention:
    if message.kind not in SAID:
        known = ", ".join(pb.FeedbackKind.Name(number) for number in SAID)
        raise RequestError(f"{where}.kind", f"got {message.kind}, expected one of: {known}")
    position = message.position if message.HasField("position") else None
    if position is not None and position < 0:
        raise RequestError(f"{where}.position", f"got {position}, expected >= 0")
    return Mention(message.item_id, SAID[message.kind], position)


def _item_message(said: Mention, where: str) -> pb.FeedbackItem:
    if said.kind not in FEEDBACK_KINDS:
        known = ", ".join(kind.name for kind in FEEDBACK_KINDS)
        raise RequestError(f"{where}.kind", f"got {said.kind!r}, expected one of: {known}")
    whole = isinstance(said.position, (int, np.integer)) and -LARGEST <= said.position <= LARGEST
    if said.position is not None and not whole:
        raise RequestError(f"{where}.position", f"got {said.position!r}, expected a place in a list, 0 = best")
    return pb.FeedbackItem(
        item_id=_id_text(said.item_id, f"{where}.item_id"), kind=FEEDBACK_KINDS[said.kind], position=said.position
    )


def _explanation(told: Explanation) -> pb.Explanation:
    return pb.Explanation(
        item_ids=told.item_ids,
        item_weights=told.item_weights.tolist(),
        entered_ids=told.entered_ids,
        left_ids=told.left_ids,
    )


def _ids(ids: Sequence[str], owner: str, name: str, settings: ServerSettings) -> tuple[str, ...]:
    if len(ids) > settings.max_ids:
        raise RequestError(f"{owner}.{name}", f"got {len(ids)} ids, expected at most {settings.max_ids}")
    return tuple(ids) if ids else ()


def _id_texts(ids: Sequence[str], where: str) -> list[str]:
    if isinstance(ids, str):
        raise RequestError(where, f"got the text {ids!r}, expected a list of ids")
    return [_id_text(each, f"{where}[{place}]") for place, each in enumerate(ids)]


def _id_text(value: object, where: str) -> str:
    """Return an id as text; whole numbers count as their spelling, as they do in training data."""
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or not _is_utf8(value):
        raise RequestError(where, f"got {value!r}, expected an id as UTF-8 text")
    return value


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _numbers(array: Float32, where: str, *, dimensions: int = 1) -> np.ndarray:
    try:
        numbers = np.ascontiguousarray(array, LITTLE_ENDIAN)
    except (ValueError, TypeError):
        raise RequestError(where, f"got {array!r}, expected numbers") from None
    if np.ndim(array) != dimensions:
        expected = "one dimension" if dimensions == 1 else f"{dimensions} dimensions"
        raise RequestError(where, f"got shape {np.shape(array)}, expected {expected}")
    return numbers


def _features(entity: pb.Entity, where: str, settings: ServerSettings) -> dict[str, Any]:
    size = sum(len(name) + value.ByteSize() for name, value in entity.features.items())
    if size > settings.max_feature_bytes:
        raise RequestError(where, f"got {size} bytes, expected at most {settings.max_feature_bytes}")
    return {name: _feature(value) for name, value in entity.features.items()}


def _feature(message: pb.FeatureValue) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "float_list":
        return np.array(message.float_list.values, np.float32)
    value = getattr(message, kind)
    if kind.endswith("_list"):
        return list(value.values)
    return None if value != value else value


def _feature_message(value: Any, where: str) -> pb.FeatureValue:
    """Return a feature's value as a message: what the wire has no type for goes as its spelling."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return _list_message(value, where)
    if isinstance(value, (int, np.integer)) and not isinstance(value, bool) and -(2**63) <= value < 2**63:
        return pb.FeatureValue(int64_value=int(value))
    if isinstance(value, (float, np.floating)):
        return pb.FeatureValue(double_value=_exact(value, where))
    return pb.FeatureValue(string_value=_spelled(value, where))


def _list_message(values: Sequence[Any] | np.ndarray, where: str) -> pb.FeatureValue:
    if isinstance(values, np.ndarray) and values.ndim == 1 and values.dtype in (np.float16, np.float32):
        return pb.FeatureValue(float_list=pb.FloatList(values=values.tolist()))
    paths = [f"{where}[{place}]" for place in range(len(values))]
    numbers = [_exact(value, path) for value, path in zip(values, paths, strict=True)]
    if numbers and None not in numbers:
        return pb.FeatureValue(double_list=pb.DoubleList(values=numbers))
    texts = [_spelled(value, path) for value, path in zip(values, paths, strict=True)]
    return pb.FeatureValue(string_list=pb.StringList(values=[text for text in texts if text is not None]))


def _exact(value: Any, where: str) -> float | None:
    """Return the double that is spelled as a number is; None where there is none, or where it is no number."""
    if type(value) is float:
        return value
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    text = _spelled(value, where)
    number = math.nan if text is None else float(text)
    return number if text == SPELLING.spell(number) else None


def _spelled(value: Any, where: str) -> str | None:
    try:
        text = SPELLING.spell(value)
    except DataError as error:
        raise RequestError(where, str(error)) from None
    if text is not None and not _is_utf8(text):
        raise RequestError(where, f"got {value!r}, expected UTF-8 text")
    return text


def _columns_message(columns: Mapping[str, Any]) -> pb.Columns:
    message = pb.Columns()
    for name, value in columns.items():
        _set_value(message.values[name], value)
    return message


def _set_value(message: pb.ColumnValue, value: Any) -> None:
    """Set what a column of any type may hold; missing and not finite numbers leave the message without a kind."""
    if isinstance(value, (str, bool, int)):
        _set_scalar(message, value)
    elif isinstance(value, (float, Decimal)):
        if math.isfinite(value):
            _set_scalar(message, value)
    elif isinstance(value, (list, tuple)):
        message.list_value.SetInParent()
        for each in value:
            _set_value(message.list_value.values.add(), each)
    elif isinstance(value, Mapping):
        message.columns_value.SetInParent()
        for name, each in value.items():
            _set_value(message.columns_value.values[str(name)], each)
    elif value is not None:
        message.string_value = value.isoformat() if isinstance(value, (datetime.date, datetime.time)) else str(value)


def _plain(message: pb.ColumnValue, where: str) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "list_value":
        return [_plain(each, f"{where}[{place}]") for place, each in enumerate(message.list_value.values)]
    if kind == "columns_value":
        return columns(message.columns_value, where)
    if kind == "decimal_value":
        return _decimal(message, where)
    value = getattr(message, kind)
    return None if kind == "double_value" and not math.isfinite(value) else value
