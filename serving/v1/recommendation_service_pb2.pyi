import datetime

from google.protobuf import struct_pb2 as _struct_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Origin(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ORIGIN_UNSPECIFIED: _ClassVar[Origin]
    ORIGIN_KNOWN_ENTITY: _ClassVar[Origin]
    ORIGIN_FEATURES: _ClassVar[Origin]
    ORIGIN_ITEMS: _ClassVar[Origin]
    ORIGIN_VECTOR: _ClassVar[Origin]
    ORIGIN_POPULARITY: _ClassVar[Origin]

class FeedbackKind(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FEEDBACK_KIND_UNSPECIFIED: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_LIKED: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_DISLIKED: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_CLICKED: _ClassVar[FeedbackKind]
    FEEDBACK_KIND_SKIPPED: _ClassVar[FeedbackKind]

class QueryEntity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUERY_ENTITY_UNSPECIFIED: _ClassVar[QueryEntity]
    QUERY_ENTITY_USER: _ClassVar[QueryEntity]
    QUERY_ENTITY_ITEM: _ClassVar[QueryEntity]
    QUERY_ENTITY_FEATURES: _ClassVar[QueryEntity]
ORIGIN_UNSPECIFIED: Origin
ORIGIN_KNOWN_ENTITY: Origin
ORIGIN_FEATURES: Origin
ORIGIN_ITEMS: Origin
ORIGIN_VECTOR: Origin
ORIGIN_POPULARITY: Origin
FEEDBACK_KIND_UNSPECIFIED: FeedbackKind
FEEDBACK_KIND_LIKED: FeedbackKind
FEEDBACK_KIND_DISLIKED: FeedbackKind
FEEDBACK_KIND_CLICKED: FeedbackKind
FEEDBACK_KIND_SKIPPED: FeedbackKind
QUERY_ENTITY_UNSPECIFIED: QueryEntity
QUERY_ENTITY_USER: QueryEntity
QUERY_ENTITY_ITEM: QueryEntity
QUERY_ENTITY_FEATURES: QueryEntity

class Query(_message.Message):
    __slots__ = ("entity", "items", "vector", "excluded_ids")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_IDS_FIELD_NUMBER: _ClassVar[int]
    entity: Entity
    items: Items
    vector: Vector
    excluded_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entity: _Optional[_Union[Entity, _Mapping]] = ..., items: _Optional[_Union[Items, _Mapping]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., excluded_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("entity_id", "features", "history")
    class FeaturesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FeatureValue, _Mapping]] = ...) -> None: ...
    ENTITY_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    HISTORY_FIELD_NUMBER: _ClassVar[int]
    entity_id: str
    features: _containers.MessageMap[str, FeatureValue]
    history: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, entity_id: _Optional[str] = ..., features: _Optional[_Mapping[str, FeatureValue]] = ..., history: _Optional[_Iterable[str]] = ...) -> None: ...

class FeatureValue(_message.Message):
    __slots__ = ("string_value", "string_list", "int64_value", "double_value", "float_list")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_LIST_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    FLOAT_LIST_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    string_list: StringList
    int64_value: int
    double_value: float
    float_list: FloatList
    def __init__(self, string_value: _Optional[str] = ..., string_list: _Optional[_Union[StringList, _Mapping]] = ..., int64_value: _Optional[int] = ..., double_value: _Optional[float] = ..., float_list: _Optional[_Union[FloatList, _Mapping]] = ...) -> None: ...

class StringList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, values: _Optional[_Iterable[str]] = ...) -> None: ...

class FloatList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Items(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class Vector(_message.Message):
    __slots__ = ("values", "float32_le")
    VALUES_FIELD_NUMBER: _ClassVar[int]
    FLOAT32_LE_FIELD_NUMBER: _ClassVar[int]
    values: FloatList
    float32_le: bytes
    def __init__(self, values: _Optional[_Union[FloatList, _Mapping]] = ..., float32_le: _Optional[bytes] = ...) -> None: ...

class ReleaseId(_message.Message):
    __slots__ = ("name", "fingerprint")
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ...) -> None: ...

class RankedItems(_message.Message):
    __slots__ = ("item_ids", "scores", "metadata", "origin", "missing_ids")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    metadata: _containers.RepeatedCompositeFieldContainer[_struct_pb2.Struct]
    origin: Origin
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., metadata: _Optional[_Iterable[_Union[_struct_pb2.Struct, _Mapping]]] = ..., origin: _Optional[_Union[Origin, str]] = ..., missing_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class NearestItemsRequest(_message.Message):
    __slots__ = ("query", "k", "release_pin", "include_metadata")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    query: Query
    k: int
    release_pin: str
    include_metadata: bool
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., include_metadata: _Optional[bool] = ...) -> None: ...

class NearestItemsResponse(_message.Message):
    __slots__ = ("result", "release")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    result: RankedItems
    release: ReleaseId
    def __init__(self, result: _Optional[_Union[RankedItems, _Mapping]] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ...) -> None: ...

class BatchNearestItemsRequest(_message.Message):
    __slots__ = ("queries", "k", "release_pin", "include_metadata")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    k: int
    release_pin: str
    include_metadata: bool
    def __init__(self, queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., include_metadata: _Optional[bool] = ...) -> None: ...

class BatchNearestItemsResponse(_message.Message):
    __slots__ = ("results", "release")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RankedItems]
    release: ReleaseId
    def __init__(self, results: _Optional[_Iterable[_Union[RankedItems, _Mapping]]] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ...) -> None: ...

class EncodeQueryRequest(_message.Message):
    __slots__ = ("query", "release_pin")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    query: Query
    release_pin: str
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., release_pin: _Optional[str] = ...) -> None: ...

class EncodeQueryResponse(_message.Message):
    __slots__ = ("vector", "origin", "missing_ids", "release")
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    vector: Vector
    origin: Origin
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    release: ReleaseId
    def __init__(self, vector: _Optional[_Union[Vector, _Mapping]] = ..., origin: _Optional[_Union[Origin, str]] = ..., missing_ids: _Optional[_Iterable[str]] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ...) -> None: ...

class FeedbackItem(_message.Message):
    __slots__ = ("item_id", "kind", "position")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    KIND_FIELD_NUMBER: _ClassVar[int]
    POSITION_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    kind: FeedbackKind
    position: int
    def __init__(self, item_id: _Optional[str] = ..., kind: _Optional[_Union[FeedbackKind, str]] = ..., position: _Optional[int] = ...) -> None: ...

class Feedback(_message.Message):
    __slots__ = ("items", "pseudo")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    PSEUDO_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[FeedbackItem]
    pseudo: bool
    def __init__(self, items: _Optional[_Iterable[_Union[FeedbackItem, _Mapping]]] = ..., pseudo: _Optional[bool] = ...) -> None: ...

class ReformulateRequest(_message.Message):
    __slots__ = ("query", "feedback", "depth", "reformulator", "k", "release_pin", "include_metadata", "include_explanation", "ignore_guard")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    REFORMULATOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    IGNORE_GUARD_FIELD_NUMBER: _ClassVar[int]
    query: Query
    feedback: Feedback
    depth: int
    reformulator: str
    k: int
    release_pin: str
    include_metadata: bool
    include_explanation: bool
    ignore_guard: bool
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ..., depth: _Optional[int] = ..., reformulator: _Optional[str] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., include_metadata: _Optional[bool] = ..., include_explanation: _Optional[bool] = ..., ignore_guard: _Optional[bool] = ...) -> None: ...

class Explanation(_message.Message):
    __slots__ = ("item_ids", "item_weights", "entered_ids", "left_ids")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    ITEM_WEIGHTS_FIELD_NUMBER: _ClassVar[int]
    ENTERED_IDS_FIELD_NUMBER: _ClassVar[int]
    LEFT_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    item_weights: _containers.RepeatedScalarFieldContainer[float]
    entered_ids: _containers.RepeatedScalarFieldContainer[str]
    left_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., item_weights: _Optional[_Iterable[float]] = ..., entered_ids: _Optional[_Iterable[str]] = ..., left_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class ReformulateResponse(_message.Message):
    __slots__ = ("result", "vector", "explanation", "drift", "confidence", "fell_back", "missing_ids", "reformulator", "release")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FELL_BACK_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    REFORMULATOR_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    result: RankedItems
    vector: Vector
    explanation: Explanation
    drift: float
    confidence: float
    fell_back: bool
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    reformulator: str
    release: ReleaseId
    def __init__(self, result: _Optional[_Union[RankedItems, _Mapping]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., drift: _Optional[float] = ..., confidence: _Optional[float] = ..., fell_back: _Optional[bool] = ..., missing_ids: _Optional[_Iterable[str]] = ..., reformulator: _Optional[str] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ...) -> None: ...

class SessionRequest(_message.Message):
    __slots__ = ("begin", "feedback")
    BEGIN_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    begin: ReformulateRequest
    feedback: Feedback
    def __init__(self, begin: _Optional[_Union[ReformulateRequest, _Mapping]] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ...) -> None: ...

class SessionResponse(_message.Message):
    __slots__ = ("answer", "round")
    ANSWER_FIELD_NUMBER: _ClassVar[int]
    ROUND_FIELD_NUMBER: _ClassVar[int]
    answer: ReformulateResponse
    round: int
    def __init__(self, answer: _Optional[_Union[ReformulateResponse, _Mapping]] = ..., round: _Optional[int] = ...) -> None: ...

class GetReleaseRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Release(_message.Message):
    __slots__ = ("name", "fingerprint", "create_time", "format_version", "dim", "item_count", "known_entity_count", "query_entity", "query_features", "reads_history", "index", "index_recall", "metrics", "versions", "notice", "reformulators", "default_reformulator")
    class MetricsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: float
        def __init__(self, key: _Optional[str] = ..., value: _Optional[float] = ...) -> None: ...
    class VersionsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    NAME_FIELD_NUMBER: _ClassVar[int]
    FINGERPRINT_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    FORMAT_VERSION_FIELD_NUMBER: _ClassVar[int]
    DIM_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    KNOWN_ENTITY_COUNT_FIELD_NUMBER: _ClassVar[int]
    QUERY_ENTITY_FIELD_NUMBER: _ClassVar[int]
    QUERY_FEATURES_FIELD_NUMBER: _ClassVar[int]
    READS_HISTORY_FIELD_NUMBER: _ClassVar[int]
    INDEX_FIELD_NUMBER: _ClassVar[int]
    INDEX_RECALL_FIELD_NUMBER: _ClassVar[int]
    METRICS_FIELD_NUMBER: _ClassVar[int]
    VERSIONS_FIELD_NUMBER: _ClassVar[int]
    NOTICE_FIELD_NUMBER: _ClassVar[int]
    REFORMULATORS_FIELD_NUMBER: _ClassVar[int]
    DEFAULT_REFORMULATOR_FIELD_NUMBER: _ClassVar[int]
    name: str
    fingerprint: str
    create_time: _timestamp_pb2.Timestamp
    format_version: int
    dim: int
    item_count: int
    known_entity_count: int
    query_entity: QueryEntity
    query_features: _containers.RepeatedScalarFieldContainer[str]
    reads_history: bool
    index: str
    index_recall: float
    metrics: _containers.ScalarMap[str, float]
    versions: _containers.ScalarMap[str, str]
    notice: str
    reformulators: _containers.RepeatedScalarFieldContainer[str]
    default_reformulator: str
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., format_version: _Optional[int] = ..., dim: _Optional[int] = ..., item_count: _Optional[int] = ..., known_entity_count: _Optional[int] = ..., query_entity: _Optional[_Union[QueryEntity, str]] = ..., query_features: _Optional[_Iterable[str]] = ..., reads_history: _Optional[bool] = ..., index: _Optional[str] = ..., index_recall: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., versions: _Optional[_Mapping[str, str]] = ..., notice: _Optional[str] = ..., reformulators: _Optional[_Iterable[str]] = ..., default_reformulator: _Optional[str] = ...) -> None: ...
