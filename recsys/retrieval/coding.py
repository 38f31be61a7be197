"""Raw values of a request as codes, or the place of the value that cannot be one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from recsys.cancellation import checkpoint
from recsys.errors import DataError, RequestError
from recsys.features import Encoder

UNREADABLE = (DataError, pa.ArrowException, ValueError, TypeError)


def coded(encoder: Encoder, values: Sequence[Any], paths: Sequence[str]) -> np.ndarray:
    """Return the codes of raw values, `[len(values), *shape]`.

    Args:
        encoder: of the feature.
        values: may be of mixed types, such as whole numbers and text.
        paths: where each value stands in the request, for messages.

    Raises:
        RequestError: a value of a type that the feature cannot read.
    """
    if len(values) == 1 and (code := encoder.code(values[0])) is not None:
        return code
    try:
        return encoder.encode(pa.array(values))
    except UNREADABLE:
        pass
    codes = []
    for value, path in zip(values, paths, strict=True):
        checkpoint()
        try:
            codes.append(encoder.encode(pa.array([value])))
        except UNREADABLE as error:
            raise RequestError(path, str(error)) from None
    return np.concatenate(codes)
