import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class ListReleasesRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ReloadReleaseRequest(_message.Message):
    __slots__ = ("label", "release")
    LABEL_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    label: str
    release: str
    def __init__(self, label: _Optional[str] = ..., release: _Optional[str] = ...) -> None: ...

class RollBackReleaseRequest(_message.Message):
    __slots__ = ("label",)
    LABEL_FIELD_NUMBER: _ClassVar[int]
    label: str
    def __init__(self, label: _Optional[str] = ...) -> None: ...

class ListReleasesResponse(_message.Message):
    __slots__ = ("releases", "refused")
    RELEASES_FIELD_NUMBER: _ClassVar[int]
    REFUSED_FIELD_NUMBER: _ClassVar[int]
    releases: _containers.RepeatedCompositeFieldContainer[HeldRelease]
    refused: _containers.RepeatedCompositeFieldContainer[RefusedRelease]
    def __init__(self, releases: _Optional[_Iterable[_Union[HeldRelease, _Mapping]]] = ..., refused: _Optional[_Iterable[_Union[RefusedRelease, _Mapping]]] = ...) -> None: ...

class HeldRelease(_message.Message):
    __slots__ = ("name", "fingerprint", "labels", "load_time", "rolled_back")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
    LOAD_TIME_FIELD_NUMBER: _ClassVar[int]
    ROLLED_BACK_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    labels: _containers.RepeatedScalarFieldContainer[str]
    load_time: _timestamp_pb2.Timestamp
    rolled_back: bool
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., labels: _Optional[_Iterable[str]] = ..., load_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., rolled_back: _Optional[bool] = ...) -> None: ...

class RefusedRelease(_message.Message):
    __slots__ = ("name", "label", "reason", "refuse_time")
    NAME_FIELD_NUMBER: _ClassVar[int]
    LABEL_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    REFUSE_TIME_FIELD_NUMBER: _ClassVar[int]
    name: str
    label: str
    reason: str
    refuse_time: _timestamp_pb2.Timestamp
    def __init__(self, name: _Optional[str] = ..., label: _Optional[str] = ..., reason: _Optional[str] = ..., refuse_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...
