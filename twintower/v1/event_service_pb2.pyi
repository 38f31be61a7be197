import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class EventRejection(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    EVENT_REJECTION_UNSPECIFIED: _ClassVar[EventRejection]
    EVENT_REJECTION_INVALID: _ClassVar[EventRejection]
    EVENT_REJECTION_UNKNOWN_TOKEN: _ClassVar[EventRejection]
    EVENT_REJECTION_BEFORE_EXPOSURE: _ClassVar[EventRejection]
    EVENT_REJECTION_TOO_LATE: _ClassVar[EventRejection]
    EVENT_REJECTION_IN_FUTURE: _ClassVar[EventRejection]
    EVENT_REJECTION_NOT_WRITTEN: _ClassVar[EventRejection]
EVENT_REJECTION_UNSPECIFIED: EventRejection
EVENT_REJECTION_INVALID: EventRejection
EVENT_REJECTION_UNKNOWN_TOKEN: EventRejection
EVENT_REJECTION_BEFORE_EXPOSURE: EventRejection
EVENT_REJECTION_TOO_LATE: EventRejection
EVENT_REJECTION_IN_FUTURE: EventRejection
EVENT_REJECTION_NOT_WRITTEN: EventRejection

class Event(_message.Message):
    __slots__ = ("event_id", "attribution_token", "kind", "item_id", "value", "event_time")
    EVENT_ID_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    VALUE_FIELD_NUMBER: _ClassVar[int]
    EVENT_TIME_FIELD_NUMBER: _ClassVar[int]
    event_id: str
    attribution_token: str
    kind: str
    item_id: str
    value: float
    event_time: _timestamp_pb2.Timestamp
    def __init__(self, event_id: _Optional[str] = ..., attribution_token: _Optional[str] = ..., kind: _Optional[str] = ..., item_id: _Optional[str] = ..., value: _Optional[float] = ..., event_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class RecordEventsRequest(_message.Message):
    __slots__ = ("events",)
    EVENTS_FIELD_NUMBER: _ClassVar[int]
    events: _containers.RepeatedCompositeFieldContainer[Event]
    def __init__(self, events: _Optional[_Iterable[_Union[Event, _Mapping]]] = ...) -> None: ...

class RejectedEvent(_message.Message):
    __slots__ = ("place", "reason", "message")
    PLACE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    MESSAGE_FIELD_NUMBER: _ClassVar[int]
    place: int
    reason: EventRejection
    message: str
    def __init__(self, place: _Optional[int] = ..., reason: _Optional[_Union[EventRejection, str]] = ..., message: _Optional[str] = ...) -> None: ...

class RecordEventsResponse(_message.Message):
    __slots__ = ("recorded_count", "duplicate_count", "rejected")
    RECORDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DUPLICATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    REJECTED_FIELD_NUMBER: _ClassVar[int]
    recorded_count: int
    duplicate_count: int
    rejected: _containers.RepeatedCompositeFieldContainer[RejectedEvent]
    def __init__(self, recorded_count: _Optional[int] = ..., duplicate_count: _Optional[int] = ..., rejected: _Optional[_Iterable[_Union[RejectedEvent, _Mapping]]] = ...) -> None: ...
