"""The client of a twintower server.

```python
from twintower import Client, Query

with Client("127.0.0.1:50051") as client:
    print(client.nearest_items(Query(entity_id="u1"), 10).item_ids)
```

The clients are imported on first use, so that the types alone cost no gRPC.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from twintower.errors import (
    AnswerTooLargeError,
    CatalogReadOnlyError,
    DeadlineError,
    EventsNotKeptError,
    ForbiddenError,
    MissingError,
    OverloadedError,
    QuotaError,
    ReleasePinError,
    ReleaseRefusedError,
    RequestError,
    ServerError,
    SettingError,
    TwintowerError,
    UnauthenticatedError,
    UnavailableError,
)
from twintower.filters import parse_filter
from twintower.types import (
    ANONYMOUS,
    MATCH_ALL,
    NO_DIVERSITY,
    CatalogChanges,
    Condition,
    Deleted,
    Diversity,
    EncodedQuery,
    Event,
    Exclusions,
    ExperimentUnit,
    Explanation,
    FeedbackItem,
    FeedbackKind,
    Filter,
    FilterType,
    LoadedRelease,
    Origin,
    Query,
    Ranking,
    RecordedEvents,
    Reformulation,
    RefusedRelease,
    RejectedEvent,
    ReleaseName,
    ReleaseSet,
    Repeats,
    SearchPlan,
    ServedRelease,
    Upsert,
    Upserted,
    VectorMatches,
)

if TYPE_CHECKING:
    from twintower.client import AsyncClient, AsyncSession, Client, Session
    from twintower.tls import ClientTls

_LAZY = {
    "AsyncClient": "twintower.client",
    "AsyncSession": "twintower.client",
    "Client": "twintower.client",
    "ClientTls": "twintower.tls",
    "Session": "twintower.client",
}
__all__ = [
    "ANONYMOUS",
    "AnswerTooLargeError",
    "AsyncClient",
    "AsyncSession",
    "CatalogChanges",
    "CatalogReadOnlyError",
    "Client",
    "ClientTls",
    "Condition",
    "DeadlineError",
    "Deleted",
    "Diversity",
    "EncodedQuery",
    "Event",
    "EventsNotKeptError",
    "Exclusions",
    "ExperimentUnit",
    "Explanation",
    "FeedbackItem",
    "FeedbackKind",
    "Filter",
    "FilterType",
    "ForbiddenError",
    "LoadedRelease",
    "MATCH_ALL",
    "MissingError",
    "NO_DIVERSITY",
    "Origin",
    "OverloadedError",
    "Query",
    "QuotaError",
    "Ranking",
    "RecordedEvents",
    "Reformulation",
    "RefusedRelease",
    "RejectedEvent",
    "ReleaseName",
    "ReleasePinError",
    "ReleaseRefusedError",
    "ReleaseSet",
    "Repeats",
    "RequestError",
    "SearchPlan",
    "ServedRelease",
    "ServerError",
    "Session",
    "SettingError",
    "TwintowerError",
    "UnauthenticatedError",
    "UnavailableError",
    "Upsert",
    "Upserted",
    "VectorMatches",
    "parse_filter",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_LAZY[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
