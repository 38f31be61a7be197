"""Raw values of a request as codes, or the path of the value that cannot be one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from recsys.cancellation import checkpoint
from recsys.data.encoders import stacked
from recsys.errors import DataError
from recsys.features import Encoder
from twintower.errors import RequestError

UNREADABLE = (DataError, UnicodeEncodeError)
CHUNK = 32
"""Values between two checkpoints."""


def coded(encoder: Encoder, values: Sequence[Any], paths: Sequence[str]) -> np.ndarray:
    """Return the codes of raw values, `[len(values), *shape]`.

    Args:
        encoder: of the feature.
        values: at least one; may be of mixed types, such as whole numbers and text.
        paths: where each value stands in the request, for messages.

    Raises:
        RequestError: a value of a type that the feature cannot read.
    """
    codes = []
    for start in range(0, len(values), CHUNK):
        checkpoint()
        chunk = values[start : start + CHUNK]
        try:
            codes.append(encoder.encode_values(chunk))
        except UNREADABLE:
            codes += [_code(encoder, value, path) for value, path in zip(chunk, paths[start:], strict=False)]
    return codes[0] if len(codes) == 1 else stacked(codes)


def _code(encoder: Encoder, value: Any, path: str) -> np.ndarray:
    try:
        return encoder.encode_values([value])
    except UNREADABLE as error:
        raise RequestError(path, str(error)) from None
