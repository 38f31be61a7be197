"""The wire only grows: today's descriptors against those of the last tagged version, and the comparison itself."""

from __future__ import annotations

import filecmp
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    MethodDescriptorProto,
    ServiceDescriptorProto,
)

from twintower.v1 import recommendation_service_pb2 as pb

ROOT = Path(__file__).parents[2]
TAGGED = Path(__file__).parent / "wire"
PROTO = "twintower/v1/recommendation_service.proto"


def tagged() -> FileDescriptorProto:
    """Return the service's file as the last tagged version had it.

    `wire/v<version>.binpb` is written when a version is tagged, by protoc:
    `-I proto --include_imports --descriptor_set_out=tests/architecture/wire/v<version>.binpb
    proto/twintower/v1/*.proto`
    """
    versions = {tuple(int(part) for part in path.stem[1:].split(".")): path for path in TAGGED.glob("v*.binpb")}
    files = FileDescriptorSet.FromString(versions[max(versions)].read_bytes()).file
    return next(file for file in files if file.name == PROTO)


def today() -> FileDescriptorProto:
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    return file


def breaks(old: FileDescriptorProto, new: FileDescriptorProto) -> list[str]:
    """Return what a client of the old file could no longer rely on, one line each."""
    if old.package != new.package:
        return [f"package {old.package} is now {new.package}"]
    found = [*_enum_breaks(old.enum_type, new.enum_type, "")]
    found += _message_breaks(old.message_type, new.message_type, "")
    services = {service.name: service for service in new.service}
    for service in old.service:
        if service.name not in services:
            found.append(f"service {service.name} is gone")
        else:
            found += _method_breaks(service, services[service.name])
    return found


def _message_breaks(old: list[DescriptorProto], new: list[DescriptorProto], owner: str) -> Iterator[str]:
    messages = {message.name: message for message in new}
    for message in old:
        name = owner + message.name
        if message.name not in messages:
            yield f"message {name} is gone"
            continue
        other = messages[message.name]
        yield from _message_breaks(message.nested_type, other.nested_type, f"{name}.")
        yield from _enum_breaks(message.enum_type, other.enum_type, f"{name}.")
        fields = {field.number: field for field in other.field}
        for field in message.field:
            if field.number not in fields:
                yield f"field {name}.{field.name} = {field.number} is gone"
                continue
            before, after = _promise(message, field), _promise(other, fields[field.number])
            for what, was in before.items():
                if after[what] != was:
                    yield f"field {name}.{field.name}: {what} was {was!r}, is {after[what]!r}"


def _promise(message: DescriptorProto, field: FieldDescriptorProto) -> dict[str, str]:
    return {
        "name": field.name,
        "type": FieldDescriptorProto.Type.Name(field.type) + field.type_name,
        "cardinality": FieldDescriptorProto.Label.Name(field.label) + str(field.proto3_optional),
        "oneof": message.oneof_decl[field.oneof_index].name if field.HasField("oneof_index") else "",
    }


def _enum_breaks(old: list[EnumDescriptorProto], new: list[EnumDescriptorProto], owner: str) -> Iterator[str]:
    enums = {enum.name: {value.number: value.name for value in enum.value} for enum in new}
    for enum in old:
        if enum.name not in enums:
            yield f"enum {owner}{enum.name} is gone"
            continue
        for value in enum.value:
            if enums[enum.name].get(value.number) != value.name:
                yield f"enum value {owner}{enum.name}.{value.name} = {value.number} is gone"


def _method_breaks(old: ServiceDescriptorProto, new: ServiceDescriptorProto) -> Iterator[str]:
    methods = {method.name: method for method in new.method}
    for method in old.method:
        if method.name not in methods:
            yield f"rpc {old.name}.{method.name} is gone"
        elif _signature(method) != _signature(methods[method.name]):
            yield f"rpc {old.name}.{method.name} was {_signature(method)}, is {_signature(methods[method.name])}"


def _signature(method: MethodDescriptorProto) -> tuple[str, str, bool, bool]:
    return method.input_type, method.output_type, method.client_streaming, method.server_streaming


def message(file: FileDescriptorProto, name: str) -> DescriptorProto:
    return next(message for message in file.message_type if message.name == name)


def field(file: FileDescriptorProto, path: str) -> FieldDescriptorProto:
    owner, name = path.split(".")
    return next(field for field in message(file, owner).field if field.name == name)


def enum(file: FileDescriptorProto, name: str) -> EnumDescriptorProto:
    return next(enum for enum in file.enum_type if enum.name == name)


def remove_field(file: FileDescriptorProto) -> None:
    message(file, "NearestItemsRequest").field.remove(field(file, "NearestItemsRequest.k"))


def renumber_field(file: FileDescriptorProto) -> None:
    field(file, "NearestItemsRequest.k").number = 99


def rename_field(file: FileDescriptorProto) -> None:
    field(file, "NearestItemsRequest.k").name = "count"


def retype_field(file: FileDescriptorProto) -> None:
    field(file, "NearestItemsRequest.k").type = FieldDescriptorProto.TYPE_INT64


def retype_message_field(file: FileDescriptorProto) -> None:
    field(file, "NearestItemsResponse.result").type_name = ".twintower.v1.Release"


def repeat_field(file: FileDescriptorProto) -> None:
    field(file, "NearestItemsRequest.k").label = FieldDescriptorProto.LABEL_REPEATED


def make_field_optional(file: FileDescriptorProto) -> None:
    request = message(file, "NearestItemsRequest")
    request.oneof_decl.add(name="_k")
    field(file, "NearestItemsRequest.k").proto3_optional = True
    field(file, "NearestItemsRequest.k").oneof_index = len(request.oneof_decl) - 1


def take_out_of_oneof(file: FileDescriptorProto) -> None:
    field(file, "Query.vector").ClearField("oneof_index")


def put_into_oneof(file: FileDescriptorProto) -> None:
    field(file, "Query.excluded_ids").oneof_index = 0


def remove_message(file: FileDescriptorProto) -> None:
    file.message_type.remove(message(file, "GetReleaseRequest"))


def remove_rpc(file: FileDescriptorProto) -> None:
    del file.service[0].method[0]


def stream_rpc(file: FileDescriptorProto) -> None:
    file.service[0].method[0].server_streaming = True


def answer_otherwise(file: FileDescriptorProto) -> None:
    file.service[0].method[0].output_type = ".twintower.v1.Release"


def rename_service(file: FileDescriptorProto) -> None:
    file.service[0].name = "RetrievalService"


def rename_package(file: FileDescriptorProto) -> None:
    file.package = "serving.v2"


def remove_enum(file: FileDescriptorProto) -> None:
    file.enum_type.remove(enum(file, "Origin"))


def remove_enum_value(file: FileDescriptorProto) -> None:
    del enum(file, "Origin").value[-1]


def renumber_enum_value(file: FileDescriptorProto) -> None:
    enum(file, "Origin").value[-1].number = 99


BREAKING = [
    (remove_field, "NearestItemsRequest.k"),
    (renumber_field, "NearestItemsRequest.k"),
    (rename_field, "NearestItemsRequest.k"),
    (retype_field, "NearestItemsRequest.k"),
    (retype_message_field, "NearestItemsResponse.result"),
    (repeat_field, "NearestItemsRequest.k"),
    (make_field_optional, "NearestItemsRequest.k"),
    (take_out_of_oneof, "Query.vector"),
    (put_into_oneof, "Query.excluded_ids"),
    (remove_message, "GetReleaseRequest"),
    (remove_rpc, "NearestItems"),
    (stream_rpc, "NearestItems"),
    (answer_otherwise, "NearestItems"),
    (rename_service, "RecommendationService"),
    (rename_package, "serving.v2"),
    (remove_enum, "Origin"),
    (remove_enum_value, "ORIGIN_POPULARITY"),
    (renumber_enum_value, "ORIGIN_POPULARITY"),
]


def add_field(file: FileDescriptorProto) -> None:
    message(file, "NearestItemsRequest").field.add(
        name="request_id", number=99, type=FieldDescriptorProto.TYPE_STRING, label=FieldDescriptorProto.LABEL_OPTIONAL
    )


def add_oneof_member(file: FileDescriptorProto) -> None:
    message(file, "Query").field.add(
        name="text",
        number=99,
        type=FieldDescriptorProto.TYPE_STRING,
        label=FieldDescriptorProto.LABEL_OPTIONAL,
        oneof_index=0,
    )


def add_message(file: FileDescriptorProto) -> None:
    file.message_type.add(name="Experiment")


def add_rpc(file: FileDescriptorProto) -> None:
    file.service[0].method.add(name="Explain", input_type=".twintower.v1.Query", output_type=".twintower.v1.Vector")


def add_enum_value(file: FileDescriptorProto) -> None:
    enum(file, "Origin").value.add(name="ORIGIN_TEXT", number=99)


def add_service(file: FileDescriptorProto) -> None:
    file.service.add(name="FeedbackService")


ALLOWED = [add_field, add_oneof_member, add_message, add_rpc, add_enum_value, add_service]


def test_no_client_of_the_last_tagged_version_is_broken():
    assert breaks(tagged(), today()) == []


@pytest.mark.parametrize(("change", "named"), BREAKING, ids=lambda value: getattr(value, "__name__", value))
def test_each_kind_of_breaking_change_is_caught_and_named(change: Callable[[FileDescriptorProto], None], named: str):
    changed = today()
    change(changed)
    found = breaks(today(), changed)
    assert found
    assert all(named in line for line in found)


@pytest.mark.parametrize("change", ALLOWED, ids=lambda value: value.__name__)
def test_additions_are_allowed(change: Callable[[FileDescriptorProto], None]):
    changed = today()
    change(changed)
    assert changed != today()
    assert breaks(today(), changed) == []


def test_the_generated_code_is_what_protoc_makes_of_the_proto_files(tmp_path: Path):
    # given: what `make proto` would write
    protos = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "proto").rglob("*.proto"))
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    subprocess.run([sys.executable, "-m", "grpc_tools.protoc", "-I", "proto", *outputs, *protos], cwd=ROOT, check=True)
    # when
    made = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.py*"))
    # then: nothing is missing, left over, or different
    kept = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "twintower" / "v1").glob("*_pb2*.py*"))
    assert made == kept
    assert filecmp.cmpfiles(tmp_path, ROOT, made, shallow=False) == (made, [], [])
