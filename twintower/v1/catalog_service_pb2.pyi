from twintower.v1 import recommendation_service_pb2 as _recommendation_service_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class UpsertItem(_message.Message):
    __slots__ = ("item_id", "features", "vector", "metadata")
    ITEM_ID_FIELD_NUMBER: _ClassVar[int]
    FEATURES_FIELD_NUMBER: _ClassVar[int]
    VECTOR_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    item_id: str
    features: ItemFeatures
    vector: _recommendation_service_pb2.Vector
    metadata: _recommendation_service_pb2.Columns
    def __init__(self, item_id: _Optional[str] = ..., features: _Optional[_Union[ItemFeatures, _Mapping]] = ..., vector: _Optional[_Union[_recommendation_service_pb2.Vector, _Mapping]] = ..., metadata: _Optional[_Union[_recommendation_service_pb2.Columns, _Mapping]] = ...) -> None: ...

class ItemFeatures(_message.Message):
    __slots__ = ("values",)
    class ValuesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _recommendation_service_pb2.FeatureValue
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[_recommendation_service_pb2.FeatureValue, _Mapping]] = ...) -> None: ...
    VALUES_FIELD_NUMBER: _ClassVar[int]
    values: _containers.MessageMap[str, _recommendation_service_pb2.FeatureValue]
    def __init__(self, values: _Optional[_Mapping[str, _recommendation_service_pb2.FeatureValue]] = ...) -> None: ...

class UpsertItemsRequest(_message.Message):
    __slots__ = ("items", "release_pin")
    ITEMS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_PIN_FIELD_NUMBER: _ClassVar[int]
    items: _containers.RepeatedCompositeFieldContainer[UpsertItem]
    release_pin: str
    def __init__(self, items: _Optional[_Iterable[_Union[UpsertItem, _Mapping]]] = ..., release_pin: _Optional[str] = ...) -> None: ...

class UpsertItemsResponse(_message.Message):
    __slots__ = ("sequence", "added_count", "replaced_count", "release")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ADDED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REPLACED_COUNT_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    added_count: int
    replaced_count: int
    release: _recommendation_service_pb2.ReleaseId
    def __init__(self, sequence: _Optional[int] = ..., added_count: _Optional[int] = ..., replaced_count: _Optional[int] = ..., release: _Optional[_Union[_recommendation_service_pb2.ReleaseId, _Mapping]] = ...) -> None: ...

class DeleteItemsRequest(_message.Message):
    __slots__ = ("item_ids",)
    ITEM_IDS_FIELD_NUMBER: _ClassVar[int]
    item_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, item_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class DeleteItemsResponse(_message.Message):
    __slots__ = ("sequence", "missing_ids")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    MISSING_IDS_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    missing_ids: _containers.RepeatedScalarFieldContainer[str]
    def __init__(self, sequence: _Optional[int] = ..., missing_ids: _Optional[_Iterable[str]] = ...) -> None: ...

class GetCatalogRequest(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class Catalog(_message.Message):
    __slots__ = ("sequence", "item_count", "upserted_count", "deleted_count", "refused_ids", "release")
    SEQUENCE_FIELD_NUMBER: _ClassVar[int]
    ITEM_COUNT_FIELD_NUMBER: _ClassVar[int]
    UPSERTED_COUNT_FIELD_NUMBER: _ClassVar[int]
    DELETED_COUNT_FIELD_NUMBER: _ClassVar[int]
    REFUSED_IDS_FIELD_NUMBER: _ClassVar[int]
    RELEASE_FIELD_NUMBER: _ClassVar[int]
    sequence: int
    item_count: int
    upserted_count: int
    deleted_count: int
    refused_ids: _containers.RepeatedScalarFieldContainer[str]
    release: _recommendation_service_pb2.ReleaseId
    def __init__(self, sequence: _Optional[int] = ..., item_count: _Optional[int] = ..., upserted_count: _Optional[int] = ..., deleted_count: _Optional[int] = ..., refused_ids: _Optional[_Iterable[str]] = ..., release: _Optional[_Union[_recommendation_service_pb2.ReleaseId, _Mapping]] = ...) -> None: ...
