"""The client of a twintower server.

```python
from twintower import Client, Query

with Client("127.0.0.1:50051") as client:
    for item in client.nearest_items(Query.for_entity("u1")):
        print(item.id, item.score)
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
from twintower.policies import HedgingPolicy, RetryPolicy
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
    ScoredItem,
    SearchPlan,
    ServedRelease,
    Upsert,
    Upserted,
    VectorMatches,
)

if TYPE_CHECKING:
    from twintower.aio import AsyncClient
    from twintower.client import Client
    from twintower.coalescing import CoalescingClient
    from twintower.sessions import AsyncSession, Session
    from twintower.tls import ClientTls

_LAZY = {
    "AsyncClient": "twintower.aio",
    "AsyncSession": "twintower.sessions",
    "Client": "twintower.client",
    "ClientTls": "twintower.tls",
    "CoalescingClient": "twintower.coalescing",
    "Session": "twintower.sessions",
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
    "CoalescingClient",
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
    "HedgingPolicy",
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
    "RetryPolicy",
    "ScoredItem",
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
