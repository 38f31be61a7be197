"""What client and server share of the wire: enum values, vectors, and columns of any type."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from reprlib import repr as shortened
from typing import Any

import numpy as np

from twintower.errors import RequestError
from twintower.spelling import MAX_COLUMN_DIGITS
from twintower.types import FeedbackKind, FilterType, Float32, Origin, Repeats, SearchPlan
from twintower.v1 import recommendation_service_pb2 as pb

ORIGINS = {
    Origin.KNOWN_ENTITY: pb.ORIGIN_KNOWN_ENTITY,
    Origin.FEATURES: pb.ORIGIN_FEATURES,
    Origin.ITEMS: pb.ORIGIN_ITEMS,
    Origin.VECTOR: pb.ORIGIN_VECTOR,
    Origin.POPULARITY: pb.ORIGIN_POPULARITY,
}
QUERY_ENTITIES = {
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
"""The kinds that a request may name."""
IGNORED_KINDS = {**FEEDBACK_KINDS, FeedbackKind.PSEUDO: pb.FEEDBACK_KIND_PSEUDO}
"""All kinds: a response may report that pseudo feedback was ignored, which a request does not name."""
SEARCH_PLANS = {
    None: pb.SEARCH_PLAN_UNSPECIFIED,
    SearchPlan.INDEX: pb.SEARCH_PLAN_INDEX,
    SearchPlan.EXACT_SUBSET: pb.SEARCH_PLAN_EXACT_SUBSET,
    SearchPlan.OVER_FETCH: pb.SEARCH_PLAN_OVER_FETCH,
    SearchPlan.ESCALATED: pb.SEARCH_PLAN_ESCALATED,
}
REPEATS = {
    Repeats.ALLOW: pb.REPEATS_ALLOW,
    Repeats.ONLY: pb.REPEATS_ONLY,
    Repeats.EXCLUDE: pb.REPEATS_EXCLUDE,
}
FILTER_TYPES = {
    FilterType.STRING: pb.FILTER_TYPE_STRING,
    FilterType.STRINGS: pb.FILTER_TYPE_STRINGS,
    FilterType.NUMBER: pb.FILTER_TYPE_NUMBER,
    FilterType.BOOL: pb.FILTER_TYPE_BOOL,
    FilterType.TIME: pb.FILTER_TYPE_TIME,
}
BOUNDS = ("minimum", "exclusive_minimum", "maximum", "exclusive_maximum")
LITTLE_ENDIAN = np.dtype("<f4")
INT64 = range(-(2**63), 2**63)
DECIMAL = re.compile(rf"-?[0-9]{{1,{MAX_COLUMN_DIGITS}}}(\.[0-9]{{1,{MAX_COLUMN_DIGITS}}})?")


def vector_from_proto(message: pb.Vector, owner: str) -> Float32:
    """Return a vector as `[dim]`, float32.

    Args:
        message: as received.
        owner: the path of the message that has the vector in its field `vector`, for errors.

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


def columns_to_proto(columns: Mapping[str, Any]) -> pb.Columns:
    """Return values by column as a message; missing and not finite numbers have no kind."""
    message = pb.Columns()
    for name, value in columns.items():
        _set_value(message.values[name], value)
    return message


def columns_from_proto(message: pb.Columns, path: str) -> dict[str, Any]:
    """Return values by column; numbers that are not finite are missing, as are kinds that only newer peers send.

    Args:
        message: as received.
        path: its path, for errors.

    Raises:
        RequestError: a decimal that is none.
    """
    return {name: _value(value, f"{path}.{name}") for name, value in message.values.items()}


def decimal_from_proto(message: pb.ColumnValue, path: str) -> int | Decimal:
    """Return the number in `decimal_value`.

    Raises:
        RequestError: it is none.
    """
    text = message.decimal_value
    if DECIMAL.fullmatch(text) is None:
        expected = f"digits such as 19.99, at most {MAX_COLUMN_DIGITS} on either side of the point"
        raise RequestError(f"{path}.decimal_value", f"got {shortened(text)}, expected {expected}")
    return Decimal(text) if "." in text else int(text)


def set_scalar(message: pb.ColumnValue, value: str | bool | float | Decimal) -> None:
    """Set one text, truth value or finite number."""
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


def _set_value(message: pb.ColumnValue, value: Any) -> None:
    """Set what a column of any type may hold; missing and not finite numbers leave the message without a kind."""
    if isinstance(value, (str, bool, int)):
        set_scalar(message, value)
    elif isinstance(value, (float, Decimal)):
        if math.isfinite(value):
            set_scalar(message, value)
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


def _value(message: pb.ColumnValue, path: str) -> Any:
    kind = message.WhichOneof("kind")
    if kind is None:
        return None
    if kind == "list_value":
        return [_value(each, f"{path}[{index}]") for index, each in enumerate(message.list_value.values)]
    if kind == "columns_value":
        return columns_from_proto(message.columns_value, path)
    if kind == "decimal_value":
        return decimal_from_proto(message, path)
    value = getattr(message, kind)
    return None if kind == "double_value" and not math.isfinite(value) else value
