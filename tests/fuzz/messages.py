"""Messages of any kind, drawn from their descriptors: nested, oneofs, maps, odd numbers and odd texts."""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from hypothesis import strategies as st

SIGNED = {FieldDescriptor.CPPTYPE_INT32: 31, FieldDescriptor.CPPTYPE_INT64: 63}
UNSIGNED = {FieldDescriptor.CPPTYPE_UINT32: 32, FieldDescriptor.CPPTYPE_UINT64: 64}
ODD_TEXTS = ("", "\0", "a\nb", "ü", "👩‍👩‍👧", "\u202e", "\ufeff", "A\u0301", "%s{0}", "x" * 300)


@dataclass(frozen=True)
class Drawn:
    """What makes drawn messages reach deep into a server.

    Attributes:
        texts: that it knows.
        dim: numbers in its vectors.
        depth: messages within messages, at most.
    """

    texts: tuple[str, ...]
    dim: int
    depth: int = 6


def messages(descriptor: Descriptor, drawn: Drawn) -> st.SearchStrategy[Message]:
    """Return a strategy for the messages of a descriptor."""
    return _messages(descriptor, drawn, drawn.depth)


@functools.cache
def _messages(descriptor: Descriptor, drawn: Drawn, depth: int) -> st.SearchStrategy[Message]:
    fields = {field.name: field for field in descriptor.fields if depth or field.message_type is None}
    chosen = {name: _field(field, drawn, depth) for name, field in fields.items()}
    kind = message_factory.GetMessageClass(descriptor)
    # Half of the messages set every field (of a oneof the last one in a drawn order counts), half any of them.
    ordered = st.permutations(sorted(fields))
    some = st.fixed_dictionaries({}, optional=chosen)
    every = st.fixed_dictionaries(chosen)
    return st.builds(lambda values, order: _made(kind, fields, values, order), st.one_of(some, every), ordered)


def _made(
    kind: Callable[[], Message], fields: dict[str, FieldDescriptor], values: dict[str, Any], order: list[str]
) -> Message:
    message = kind()
    for name in order:
        if name not in values:
            continue
        field, value = fields[name], values[name]
        if _is_map(field):
            target = getattr(message, name)
            for key, each in value.items():
                if field.message_type.fields_by_name["value"].message_type is None:
                    target[key] = each
                else:
                    target[key].CopyFrom(each)
        elif field.is_repeated:
            getattr(message, name).extend(value)
        elif field.message_type is not None:
            getattr(message, name).CopyFrom(value)
        else:
            setattr(message, name, value)
    return message


def _field(field: FieldDescriptor, drawn: Drawn, depth: int) -> st.SearchStrategy[Any]:
    if _is_map(field):
        key, value = (field.message_type.fields_by_name[name] for name in ("key", "value"))
        return st.dictionaries(_one(key, drawn, depth), _one(value, drawn, depth), max_size=3)
    one = _one(field, drawn, depth)
    if not field.is_repeated:
        return one
    sizes = st.lists(one, max_size=3)
    if field.cpp_type == FieldDescriptor.CPPTYPE_FLOAT:
        return st.one_of(st.lists(_near(), min_size=drawn.dim, max_size=drawn.dim), sizes)
    return sizes if field.message_type is not None else st.one_of(sizes, one.map(lambda each: [each] * 50))


def _one(field: FieldDescriptor, drawn: Drawn, depth: int) -> st.SearchStrategy[Any]:
    kind = field.cpp_type
    if kind == FieldDescriptor.CPPTYPE_MESSAGE:
        return st.deferred(lambda: _messages(field.message_type, drawn, max(0, depth - 1)))
    if kind in SIGNED:
        bound = 2 ** SIGNED[kind]
        return st.one_of(
            st.integers(0, 12), st.sampled_from([-bound, -1, 0, bound - 1]), st.integers(-bound, bound - 1)
        )
    if kind in UNSIGNED:
        bound = 2 ** UNSIGNED[kind]
        return st.one_of(st.integers(0, 12), st.integers(0, bound - 1))
    if kind == FieldDescriptor.CPPTYPE_DOUBLE:
        return st.one_of(st.floats(-2, 2), st.floats())
    if kind == FieldDescriptor.CPPTYPE_FLOAT:
        return st.one_of(_near(), st.floats(width=32))
    if kind == FieldDescriptor.CPPTYPE_BOOL:
        return st.booleans()
    if kind == FieldDescriptor.CPPTYPE_ENUM:
        known = [value.number for value in field.enum_type.values]
        return st.one_of(st.sampled_from(known), st.sampled_from([-1, 99, 2**31 - 1]))
    if field.type == FieldDescriptor.TYPE_BYTES:
        vectors = st.lists(_near(), min_size=drawn.dim, max_size=drawn.dim)
        return st.one_of(vectors.map(lambda each: struct.pack(f"<{len(each)}f", *each)), st.binary(max_size=64))
    # Often none: a drawn pin or name is mostly a wrong one, and hides what comes after it.
    return st.one_of(st.just(""), st.sampled_from(drawn.texts), st.sampled_from(ODD_TEXTS), st.text(max_size=20))


def _near() -> st.SearchStrategy[float]:
    return st.floats(-2, 2, width=32)


def _is_map(field: FieldDescriptor) -> bool:
    return field.message_type is not None and field.message_type.GetOptions().map_entry


def mangled(contents: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """Return a strategy for bytes that are nearly a message (cut, with changed or added bytes), or none."""

    def changed(content: bytes, places: list[tuple[int, int]], cut: int, tail: bytes) -> bytes:
        mutable = bytearray(content[: len(content) - cut % (len(content) + 1)])
        for place, value in places:
            if mutable:
                mutable[place % len(mutable)] = value
        return bytes(mutable) + tail

    place = st.tuples(st.integers(0, 2**16), st.integers(0, 255))
    places, cuts = st.lists(place, max_size=4), st.one_of(st.just(0), st.integers(0, 64))
    return st.one_of(st.builds(changed, contents, places, cuts, st.binary(max_size=8)), st.binary(max_size=200))
