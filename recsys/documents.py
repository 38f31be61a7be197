"""Read JSON and TOML files of a release: strict types, no key twice, and one error that names the file."""

from __future__ import annotations

import functools
import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

import pydantic
from pydantic import TypeAdapter

from recsys.errors import ReleaseError
from twintower.errors import describe, verbatim

T = TypeVar("T")
_adapter = functools.cache(TypeAdapter)


def parse_json(content: bytes, where: str, advice: str = "") -> Any:
    """Return what JSON text holds.

    Args:
        content: UTF-8.
        where: the file, for messages.
        advice: what to do about a broken file.

    Raises:
        ReleaseError: it is no JSON text, is nested too deeply, or an object has a key twice.
    """
    try:
        return json.loads(content.decode(), object_pairs_hook=_object)
    except RecursionError:
        raise _unreadable(where, "brackets that are nested too deeply", "JSON", advice) from None
    except ValueError as error:
        raise _unreadable(where, str(error), "JSON", advice) from None


def checked_json(content: bytes, kind: type[T], where: str, advice: str = "") -> T:
    """Return what JSON text holds as a type, without any conversion between types.

    Args:
        content: UTF-8.
        kind: such as a dataclass or `dict[str, str]`.
        where: the file, for messages.
        advice: what to do about a broken file.

    Raises:
        ReleaseError: it is no JSON text of this type.
    """
    parse_json(content, where, advice)
    try:
        return _adapter(kind).validate_json(content, strict=True)
    except pydantic.ValidationError as error:
        raise _wrong(error, where, advice) from None


def read_json(path: Path, kind: type[T], advice: str = "") -> T:
    """Return what a JSON file holds as a type; arguments and errors as for `checked_json`.

    Raises:
        ReleaseError: there is no such file, or it is no JSON text of this type.
    """
    return checked_json(_content(path, advice), kind, str(path), advice)


def read_toml(path: Path, kind: type[T], advice: str = "") -> T:
    """Return what a TOML file holds as a type; lists become tuples, other types are not converted.

    Raises:
        ReleaseError: there is no such file, or it is no TOML text of this type.
    """
    try:
        table = tomllib.loads(_content(path, advice).decode())
        # By way of JSON, in which the strict form of a tuple is a list.
        return _adapter(kind).validate_json(json.dumps(table, default=str), strict=True)
    except RecursionError:
        raise _unreadable(str(path), "brackets that are nested too deeply", "TOML", advice) from None
    except pydantic.ValidationError as error:
        raise _wrong(error, str(path), advice) from None
    except ValueError as error:
        raise _unreadable(str(path), str(error), "TOML", advice) from None


def _content(path: Path, advice: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise _unreadable(str(path), error.strerror or str(error), "a file", advice) from None


def _object(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"the key {twice!r} twice")
    return table


def _unreadable(where: str, got: str, expected: str, advice: str) -> ReleaseError:
    return ReleaseError(describe(where, verbatim(got), expected, advice))


def _wrong(error: pydantic.ValidationError, where: str, advice: str) -> ReleaseError:
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in detail["loc"])
    got = verbatim("nothing") if detail["type"] in ("missing", "missing_argument") else detail["input"]
    rule = detail["msg"].removeprefix("Input should be ").removeprefix("Value error, ")
    return ReleaseError(describe(f"{where}: {place}" if place else where, got, rule, advice))
