"""Requests made of arguments: what no message can carry is the caller's mistake, and is told by name."""

from __future__ import annotations

import dataclasses
import functools
import types
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from reprlib import repr as shortened
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np

from twintower.errors import RequestError, TwintowerError, unknown

Given = ParamSpec("Given")
Message = TypeVar("Message")
SCALARS = frozenset({str, int, float, bool, np.ndarray})
UNIONS = (Union, types.UnionType)


def told_by_name(*further: type) -> Callable[[Callable[Given, Message]], Callable[Given, Message]]:
    """Decorator: a function that makes a request raises RequestError for arguments of which none can be made.

    Types are compared with the annotations only after it failed, so that a right call does not pay for it.

    Args:
        further: TypedDicts that say which keywords it takes besides its own.
    """

    def decorated(build: Callable[Given, Message]) -> Callable[Given, Message]:
        @functools.wraps(build)
        def built(*args: Given.args, **settings: Given.kwargs) -> Message:
            try:
                return build(*args, **settings)
            except TwintowerError:
                raise
            except (TypeError, ValueError, AttributeError) as error:
                hints = {name: hint for each in (build, *further) for name, hint in get_type_hints(each).items()}
                given = dict(zip(hints, args, strict=False)) | settings
                raise _mistake(given, hints, error) from None

        return built

    return decorated


def _mistake(given: Mapping[str, Any], hints: Mapping[str, Any], error: Exception) -> RequestError:
    for name, value in given.items():
        if name not in hints:
            return RequestError(name, unknown("argument", name, hints.keys() - {"return", "further"}))
        for wrong in _wrong(name, value, hints[name]):
            return wrong
    return RequestError("request", f"got what no request can be made of ({error}), expected values as documented")


def _wrong(path: str, value: Any, hint: Any) -> Iterator[RequestError]:
    """Yield what is not as its annotation says: the value, one of its elements, or one of its fields."""
    if not _fits(value, hint):
        yield RequestError(path, f"got {shortened(value)}, expected {_spelt(hint)}")
    elif get_origin(hint) is Sequence:
        (of_each,) = get_args(hint)
        for place, each in enumerate(() if _is_scalar(of_each) else value):
            yield from _wrong(f"{path}[{place}]", each, of_each)
    elif dataclasses.is_dataclass(value):
        for name, of_field in get_type_hints(type(value)).items():
            if not _is_scalar(of_field):
                yield from _wrong(f"{path}.{name}", getattr(value, name), of_field)


def _is_scalar(hint: Any) -> bool:
    """Tell whether it is about ids, numbers or vectors: messages take more of them than is said, and refuse the others.

    As alternatives such as `str | None` count, too.
    """
    each = get_args(hint) if get_origin(hint) in UNIONS else (hint,)
    return any((get_origin(one) or one) in SCALARS for one in each)


def _fits(value: Any, hint: Any) -> bool:
    kind = get_origin(hint) or hint
    if kind in UNIONS:
        return any(_fits(value, each) for each in get_args(hint))
    if kind is Sequence:
        return isinstance(value, Iterable) and not isinstance(value, (str, Mapping))
    return not isinstance(kind, type) or isinstance(value, kind)


def _spelt(hint: Any) -> str:
    parts = get_args(hint)
    if get_origin(hint) in UNIONS:
        return " or ".join(map(_spelt, parts))
    if get_origin(hint) is Sequence:
        return f"a list of {_spelt(parts[0])}"
    return "None" if hint is type(None) else (get_origin(hint) or hint).__name__
