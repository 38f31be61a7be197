import datetime

from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class Repeats(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    REPEATS_UNSPECIFIED: _ClassVar[Repeats]
    REPEATS_ALLOW: _ClassVar[Repeats]
    REPEATS_ONLY: _ClassVar[Repeats]
    REPEATS_EXCLUDE: _ClassVar[Repeats]

class SearchPlan(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    SEARCH_PLAN_UNSPECIFIED: _ClassVar[SearchPlan]
    SEARCH_PLAN_INDEX: _ClassVar[SearchPlan]
    SEARCH_PLAN_EXACT_SUBSET: _ClassVar[SearchPlan]
    SEARCH_PLAN_OVER_FETCH: _ClassVar[SearchPlan]
    SEARCH_PLAN_ESCALATED: _ClassVar[SearchPlan]

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
    FEEDBACK_KIND_PSEUDO: _ClassVar[FeedbackKind]

class QueryEntity(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    QUERY_ENTITY_UNSPECIFIED: _ClassVar[QueryEntity]
    QUERY_ENTITY_USER: _ClassVar[QueryEntity]
    QUERY_ENTITY_ITEM: _ClassVar[QueryEntity]
    QUERY_ENTITY_FEATURES: _ClassVar[QueryEntity]

class FilterType(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FILTER_TYPE_UNSPECIFIED: _ClassVar[FilterType]
    FILTER_TYPE_STRING: _ClassVar[FilterType]
    FILTER_TYPE_STRINGS: _ClassVar[FilterType]
    FILTER_TYPE_NUMBER: _ClassVar[FilterType]
    FILTER_TYPE_BOOL: _ClassVar[FilterType]
    FILTER_TYPE_TIME: _ClassVar[FilterType]
REPEATS_UNSPECIFIED: Repeats
REPEATS_ALLOW: Repeats
REPEATS_ONLY: Repeats
REPEATS_EXCLUDE: Repeats
SEARCH_PLAN_UNSPECIFIED: SearchPlan
SEARCH_PLAN_INDEX: SearchPlan
SEARCH_PLAN_EXACT_SUBSET: SearchPlan
SEARCH_PLAN_OVER_FETCH: SearchPlan
SEARCH_PLAN_ESCALATED: SearchPlan
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
FEEDBACK_KIND_PSEUDO: FeedbackKind
QUERY_ENTITY_UNSPECIFIED: QueryEntity
QUERY_ENTITY_USER: QueryEntity
QUERY_ENTITY_ITEM: QueryEntity
QUERY_ENTITY_FEATURES: QueryEntity
FILTER_TYPE_UNSPECIFIED: FilterType
FILTER_TYPE_STRING: FilterType
FILTER_TYPE_STRINGS: FilterType
FILTER_TYPE_NUMBER: FilterType
FILTER_TYPE_BOOL: FilterType
FILTER_TYPE_TIME: FilterType

class Query(_message.Message):
    __slots__ = ("entity", "items", "vector", "excluded_ids", "filter", "exclude_seen", "repeats")
    ENTITY_FIELD_NUMBER: _ClassVar[int]
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_IDS_FIELD_NUMBER: _ClassVar[int]
    FILTER_FIELD_NUMBER: _ClassVar[int]
    EXCLUDE_SEEN_FIELD_NUMBER: _ClassVar[int]
    REPEATS_FIELD_NUMBER: _ClassVar[int]
    entity: Entity
    items: Items
    vector: Vector
    excluded_ids: _containers.RepeatedScalarFieldContainer[str]
    filter: Filter
    exclude_seen: bool
    repeats: Repeats
    def __init__(self, entity: _Optional[_Union[Entity, _Mapping]] = ..., items: _Optional[_Union[Items, _Mapping]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., excluded_ids: _Optional[_Iterable[str]] = ..., filter: _Optional[_Union[Filter, _Mapping]] = ..., exclude_seen: _Optional[bool] = ..., repeats: _Optional[_Union[Repeats, str]] = ...) -> None: ...

class Filter(_message.Message):
    __slots__ = ("all_of",)
    ALL_OF_FIELD_NUMBER: _ClassVar[int]
    all_of: _containers.RepeatedCompositeFieldContainer[Condition]
    def __init__(self, all_of: _Optional[_Iterable[_Union[Condition, _Mapping]]] = ...) -> None: ...

class Condition(_message.Message):
    __slots__ = ("field", "any_of", "none_of", "range")
    FIELD_FIELD_NUMBER: _ClassVar[int]
    ANY_OF_FIELD_NUMBER: _ClassVar[int]
    NONE_OF_FIELD_NUMBER: _ClassVar[int]
    RANGE_FIELD_NUMBER: _ClassVar[int]
    field: str
    any_of: ColumnValueList
    none_of: ColumnValueList
    range: Range
    def __init__(self, field: _Optional[str] = ..., any_of: _Optional[_Union[ColumnValueList, _Mapping]] = ..., none_of: _Optional[_Union[ColumnValueList, _Mapping]] = ..., range: _Optional[_Union[Range, _Mapping]] = ...) -> None: ...

class Range(_message.Message):
    __slots__ = ("minimum", "exclusive_minimum", "maximum", "exclusive_maximum")
    MINIMUM_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_MINIMUM_FIELD_NUMBER: _ClassVar[int]
    MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIVE_MAXIMUM_FIELD_NUMBER: _ClassVar[int]
    minimum: ColumnValue
    exclusive_minimum: ColumnValue
    maximum: ColumnValue
    exclusive_maximum: ColumnValue
    def __init__(self, minimum: _Optional[_Union[ColumnValue, _Mapping]] = ..., exclusive_minimum: _Optional[_Union[ColumnValue, _Mapping]] = ..., maximum: _Optional[_Union[ColumnValue, _Mapping]] = ..., exclusive_maximum: _Optional[_Union[ColumnValue, _Mapping]] = ...) -> None: ...

class ColumnValue(_message.Message):
    __slots__ = ("string_value", "bool_value", "int64_value", "double_value", "decimal_value", "list_value", "columns_value")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    BOOL_VALUE_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    DECIMAL_VALUE_FIELD_NUMBER: _ClassVar[int]
    LIST_VALUE_FIELD_NUMBER: _ClassVar[int]
    COLUMNS_VALUE_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    bool_value: bool
    int64_value: int
    double_value: float
    decimal_value: str
    list_value: ColumnValueList
    columns_value: Columns
    def __init__(self, string_value: _Optional[str] = ..., bool_value: _Optional[bool] = ..., int64_value: _Optional[int] = ..., double_value: _Optional[float] = ..., decimal_value: _Optional[str] = ..., list_value: _Optional[_Union[ColumnValueList, _Mapping]] = ..., columns_value: _Optional[_Union[Columns, _Mapping]] = ...) -> None: ...

class ColumnValueList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedCompositeFieldContainer[ColumnValue]
    def __init__(self, values: _Optional[_Iterable[_Union[ColumnValue, _Mapping]]] = ...) -> None: ...

class Columns(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: ColumnValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[ColumnValue, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.MessageMap[str, ColumnValue]
    def __init__(self, values: _Optional[_Mapping[str, ColumnValue]] = ...) -> None: ...

class Diversity(_message.Message):
    __slots__ = ("crowding_field", "max_per_value", "mmr_weight")
    CROWDING_FIELD_FIELD_NUMBER: _ClassVar[int]
    MAX_PER_VALUE_FIELD_NUMBER: _ClassVar[int]
    MMR_WEIGHT_FIELD_NUMBER: _ClassVar[int]
    crowding_field: str
    max_per_value: int
    mmr_weight: float
    def __init__(self, crowding_field: _Optional[str] = ..., max_per_value: _Optional[int] = ..., mmr_weight: _Optional[float] = ...) -> None: ...

class Entity(_message.Message):
    __slots__ = ("entity_id", "features", "history", "history_age_days")
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
    HISTORY_AGE_DAYS_FIELD_NUMBER: _ClassVar[int]
    entity_id: str
    features: _containers.MessageMap[str, FeatureValue]
    history: _containers.RepeatedScalarFieldContainer[str]
    history_age_days: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, entity_id: _Optional[str] = ..., features: _Optional[_Mapping[str, FeatureValue]] = ..., history: _Optional[_Iterable[str]] = ..., history_age_days: _Optional[_Iterable[float]] = ...) -> None: ...

class FeatureValue(_message.Message):
    __slots__ = ("string_value", "string_list", "int64_value", "double_value", "float_list", "double_list")
    STRING_VALUE_FIELD_NUMBER: _ClassVar[int]
    STRING_LIST_FIELD_NUMBER: _ClassVar[int]
    INT64_VALUE_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_VALUE_FIELD_NUMBER: _ClassVar[int]
    FLOAT_LIST_FIELD_NUMBER: _ClassVar[int]
    DOUBLE_LIST_FIELD_NUMBER: _ClassVar[int]
    string_value: str
    string_list: StringList
    int64_value: int
    double_value: float
    float_list: FloatList
    double_list: DoubleList
    def __init__(self, string_value: _Optional[str] = ..., string_list: _Optional[_Union[StringList, _Mapping]] = ..., int64_value: _Optional[int] = ..., double_value: _Optional[float] = ..., float_list: _Optional[_Union[FloatList, _Mapping]] = ..., double_list: _Optional[_Union[DoubleList, _Mapping]] = ...) -> None: ...

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

class DoubleList(_message.Message):
    __slots__ = ("values",)
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, values: _Optional[_Iterable[float]] = ...) -> None: ...

class Items(_message.Message):
    __slots__ = ("item_ids", "similar")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SIMILAR_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    similar: bool
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., similar: _Optional[bool] = ...) -> None: ...

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

class Exclusions(_message.Message):
    __slots__ = ("total_count", "release_count", "request_count", "event_count", "excluded_id_count", "release_knows_entity")
    TOTAL_COUNT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_COUNT_FIELD_NUMBER: _ClassVar[int]
    REQUEST_COUNT_FIELD_NUMBER: _ClassVar[int]
    EVENT_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXCLUDED_ID_COUNT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_KNOWS_ENTITY_FIELD_NUMBER: _ClassVar[int]
    total_count: int
    release_count: int
    request_count: int
    event_count: int
    excluded_id_count: int
    release_knows_entity: bool
    def __init__(self, total_count: _Optional[int] = ..., release_count: _Optional[int] = ..., request_count: _Optional[int] = ..., event_count: _Optional[int] = ..., excluded_id_count: _Optional[int] = ..., release_knows_entity: _Optional[bool] = ...) -> None: ...

class RankedItems(_message.Message):
    __slots__ = ("item_ids", "scores", "metadata", "origin", "missing_ids", "plan", "candidate_count", "exhausted", "degraded", "exclusions", "own_scores")
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    ORIGIN_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    PLAN_FIELD_NUMBER: _ClassVar[int]
    CANDIDATE_COUNT_FIELD_NUMBER: _ClassVar[int]
    EXHAUSTED_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    EXCLUSIONS_FIELD_NUMBER: _ClassVar[int]
    OWN_SCORES_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores: _containers.RepeatedScalarFieldContainer[float]
    metadata: _containers.RepeatedCompositeFieldContainer[Columns]
    origin: Origin
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    plan: SearchPlan
    candidate_count: int
    exhausted: bool
    degraded: bool
    exclusions: Exclusions
    own_scores: _containers.RepeatedScalarFieldContainer[float]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ..., scores: _Optional[_Iterable[float]] = ..., metadata: _Optional[_Iterable[_Union[Columns, _Mapping]]] = ..., origin: _Optional[_Union[Origin, str]] = ..., missing_ids: _Optional[_Iterable[str]] = ..., plan: _Optional[_Union[SearchPlan, str]] = ..., candidate_count: _Optional[int] = ..., exhausted: _Optional[bool] = ..., degraded: _Optional[bool] = ..., exclusions: _Optional[_Union[Exclusions, _Mapping]] = ..., own_scores: _Optional[_Iterable[float]] = ...) -> None: ...

class Unit(_message.Message):
    __slots__ = ("user_id", "session_id")
    USER_ID_FIELD_NUMBER: _ClassVar[int]
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    user_id: str
    session_id: str
    def __init__(self, user_id: _Optional[str] = ..., session_id: _Optional[str] = ...) -> None: ...

class Assignment(_message.Message):
    __slots__ = ("experiment", "arm")
    EXPERIMENT_FIELD_NUMBER: _ClassVar[int]
    ARM_FIELD_NUMBER: _ClassVar[int]
    experiment: str
    arm: str
    def __init__(self, experiment: _Optional[str] = ..., arm: _Optional[str] = ...) -> None: ...

class NearestItemsRequest(_message.Message):
    __slots__ = ("query", "k", "release_pin", "include_metadata", "release_label", "diversity", "unit")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LABEL_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    query: Query
    k: int
    release_pin: str
    include_metadata: bool
    release_label: str
    diversity: Diversity
    unit: Unit
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., include_metadata: _Optional[bool] = ..., release_label: _Optional[str] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ..., unit: _Optional[_Union[Unit, _Mapping]] = ...) -> None: ...

class NearestItemsResponse(_message.Message):
    __slots__ = ("result", "release", "attribution_token", "assignments")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    result: RankedItems
    release: ReleaseId
    attribution_token: str
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    def __init__(self, result: _Optional[_Union[RankedItems, _Mapping]] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ..., attribution_token: _Optional[str] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ...) -> None: ...

class BatchNearestItemsRequest(_message.Message):
    __slots__ = ("queries", "k", "release_pin", "include_metadata", "release_label", "diversity")
    QUERIES_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LABEL_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    queries: _containers.RepeatedCompositeFieldContainer[Query]
    k: int
    release_pin: str
    include_metadata: bool
    release_label: str
    diversity: Diversity
    def __init__(self, queries: _Optional[_Iterable[_Union[Query, _Mapping]]] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., include_metadata: _Optional[bool] = ..., release_label: _Optional[str] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ...) -> None: ...

class BatchNearestItemsResponse(_message.Message):
    __slots__ = ("results", "release")
    RESULTS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    results: _containers.RepeatedCompositeFieldContainer[RankedItems]
    release: ReleaseId
    def __init__(self, results: _Optional[_Iterable[_Union[RankedItems, _Mapping]]] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ...) -> None: ...

class SearchVectorsRequest(_message.Message):
    __slots__ = ("vectors", "k", "release_pin", "release_label")
    VECTORS_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LABEL_FIELD_NUMBER: _ClassVar[int]
    vectors: _containers.RepeatedScalarFieldContainer[bytes]
    k: int
    release_pin: str
    release_label: str
    def __init__(self, vectors: _Optional[_Iterable[bytes]] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., release_label: _Optional[str] = ...) -> None: ...

class SearchVectorsResponse(_message.Message):
    __slots__ = ("item_counts", "item_ids", "scores_float32_le", "degraded", "release")
    ITEM_COUNTS_FIELD_NUMBER: _ClassVar[int]
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    SCORES_FLOAT32_LE_FIELD_NUMBER: _ClassVar[int]
    DEGRADED_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    item_counts: _containers.RepeatedScalarFieldContainer[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    scores_float32_le: bytes
    degraded: bool
    release: ReleaseId
    def __init__(self, item_counts: _Optional[_Iterable[int]] = ..., item_ids: _Optional[_Iterable[str]] = ..., scores_float32_le: _Optional[bytes] = ..., degraded: _Optional[bool] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ...) -> None: ...

class EncodeQueryRequest(_message.Message):
    __slots__ = ("query", "release_pin", "release_label")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LABEL_FIELD_NUMBER: _ClassVar[int]
    query: Query
    release_pin: str
    release_label: str
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., release_pin: _Optional[str] = ..., release_label: _Optional[str] = ...) -> None: ...

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
    __slots__ = ("query", "feedback", "depth", "reformulator", "k", "release_pin", "include_metadata", "include_explanation", "ignore_guard", "release_label", "diversity", "unit", "include_feedback_items")
    QUERY_FIELD_NUMBER: _ClassVar[int]
    FEEDBACK_FIELD_NUMBER: _ClassVar[int]
    DEPTH_FIELD_NUMBER: _ClassVar[int]
    REFORMULATOR_FIELD_NUMBER: _ClassVar[int]
    K_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_METADATA_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    IGNORE_GUARD_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LABEL_FIELD_NUMBER: _ClassVar[int]
    DIVERSITY_FIELD_NUMBER: _ClassVar[int]
    UNIT_FIELD_NUMBER: _ClassVar[int]
    INCLUDE_FEEDBACK_ITEMS_FIELD_NUMBER: _ClassVar[int]
    query: Query
    feedback: Feedback
    depth: int
    reformulator: str
    k: int
    release_pin: str
    include_metadata: bool
    include_explanation: bool
    ignore_guard: bool
    release_label: str
    diversity: Diversity
    unit: Unit
    include_feedback_items: bool
    def __init__(self, query: _Optional[_Union[Query, _Mapping]] = ..., feedback: _Optional[_Union[Feedback, _Mapping]] = ..., depth: _Optional[int] = ..., reformulator: _Optional[str] = ..., k: _Optional[int] = ..., release_pin: _Optional[str] = ..., include_metadata: _Optional[bool] = ..., include_explanation: _Optional[bool] = ..., ignore_guard: _Optional[bool] = ..., release_label: _Optional[str] = ..., diversity: _Optional[_Union[Diversity, _Mapping]] = ..., unit: _Optional[_Union[Unit, _Mapping]] = ..., include_feedback_items: _Optional[bool] = ...) -> None: ...

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
    __slots__ = ("result", "vector", "explanation", "drift", "confidence", "fell_back", "missing_ids", "reformulator", "release", "attribution_token", "assignments", "ignored_kinds")
    RESULT_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    EXPLANATION_FIELD_NUMBER: _ClassVar[int]
    DRIFT_FIELD_NUMBER: _ClassVar[int]
    CONFIDENCE_FIELD_NUMBER: _ClassVar[int]
    FELL_BACK_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    REFORMULATOR_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    ATTRIBUTION_TOKEN_FIELD_NUMBER: _ClassVar[int]
    ASSIGNMENTS_FIELD_NUMBER: _ClassVar[int]
    IGNORED_KINDS_FIELD_NUMBER: _ClassVar[int]
    result: RankedItems
    vector: Vector
    explanation: Explanation
    drift: float
    confidence: float
    fell_back: bool
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    reformulator: str
    release: ReleaseId
    attribution_token: str
    assignments: _containers.RepeatedCompositeFieldContainer[Assignment]
    ignored_kinds: _containers.RepeatedScalarFieldContainer[FeedbackKind]
    def __init__(self, result: _Optional[_Union[RankedItems, _Mapping]] = ..., vector: _Optional[_Union[Vector, _Mapping]] = ..., explanation: _Optional[_Union[Explanation, _Mapping]] = ..., drift: _Optional[float] = ..., confidence: _Optional[float] = ..., fell_back: _Optional[bool] = ..., missing_ids: _Optional[_Iterable[str]] = ..., reformulator: _Optional[str] = ..., release: _Optional[_Union[ReleaseId, _Mapping]] = ..., attribution_token: _Optional[str] = ..., assignments: _Optional[_Iterable[_Union[Assignment, _Mapping]]] = ..., ignored_kinds: _Optional[_Iterable[_Union[FeedbackKind, str]]] = ...) -> None: ...

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
    __slots__ = ("release_pin", "release_label")
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    RELEASE_LABEL_FIELD_NUMBER: _ClassVar[int]
    release_pin: str
    release_label: str
    def __init__(self, release_pin: _Optional[str] = ..., release_label: _Optional[str] = ...) -> None: ...

class Release(_message.Message):
    __slots__ = ("name", "fingerprint", "create_time", "format_version", "dim", "item_count", "known_entity_count", "query_entity", "query_features", "reads_history", "index", "index_recall", "metrics", "versions", "notice", "reformulators", "default_reformulator", "filter_fields", "labels")
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
    class FilterFieldsEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: FilterType
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[FilterType, str]] = ...) -> None: ...
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
    FILTER_FIELDS_FIELD_NUMBER: _ClassVar[int]
    LABELS_FIELD_NUMBER: _ClassVar[int]
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
    filter_fields: _containers.ScalarMap[str, FilterType]
    labels: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, name: _Optional[str] = ..., fingerprint: _Optional[str] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., format_version: _Optional[int] = ..., dim: _Optional[int] = ..., item_count: _Optional[int] = ..., known_entity_count: _Optional[int] = ..., query_entity: _Optional[_Union[QueryEntity, str]] = ..., query_features: _Optional[_Iterable[str]] = ..., reads_history: _Optional[bool] = ..., index: _Optional[str] = ..., index_recall: _Optional[float] = ..., metrics: _Optional[_Mapping[str, float]] = ..., versions: _Optional[_Mapping[str, str]] = ..., notice: _Optional[str] = ..., reformulators: _Optional[_Iterable[str]] = ..., default_reformulator: _Optional[str] = ..., filter_fields: _Optional[_Mapping[str, FilterType]] = ..., labels: _Optional[_Iterable[str]] = ...) -> None: ...
