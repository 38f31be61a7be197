"""Which role each method needs, what of a request counts, and what of it an audit line shows: one table."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class Role(enum.IntEnum):
    """What a caller may do; each role includes those before it."""

    NOBODY = 0
    READ = 1
    WRITE = 2
    OPERATE = 3


@dataclass(frozen=True)
class Rule:
    """What is asked of the callers of one method.

    Attributes:
        role: the lowest role that will do; `NOBODY` lets everybody in, also without a token.
        counted: the field whose entries are counted, by quotas and in audit lines; empty: the call itself counts.
        audited: each call gets an audit line.
        shown: fields that stand in it; never those with ids of users or items.
    """

    role: Role
    counted: str = ""
    audited: bool = False
    shown: tuple[str, ...] = ()

    def count(self, request: Any) -> int:
        """Return how many queries or items a request is worth, at least 1."""
        return max(1, len(getattr(request, self.counted))) if self.counted else 1


OPEN = Rule(Role.NOBODY)
NEAREST_ITEMS = "/twintower.v1.RecommendationService/NearestItems"
REFORMULATE = "/twintower.v1.RecommendationService/Reformulate"
SESSION = "/twintower.v1.RecommendationService/Session"
CHECK, WATCH = "/grpc.health.v1.Health/Check", "/grpc.health.v1.Health/Watch"
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
RULES: Mapping[str, Rule] = {
    NEAREST_ITEMS: Rule(Role.READ),
    "/twintower.v1.RecommendationService/BatchNearestItems": Rule(Role.READ, counted="queries"),
    "/twintower.v1.RecommendationService/SearchVectors": Rule(Role.READ, counted="vectors"),
    "/twintower.v1.RecommendationService/EncodeQuery": Rule(Role.READ),
    REFORMULATE: Rule(Role.READ),
    SESSION: Rule(Role.READ),
    "/twintower.v1.RecommendationService/GetRelease": Rule(Role.READ),
    "/twintower.v1.CatalogService/UpsertItems": Rule(Role.WRITE, counted="items", audited=True, shown=("release_pin",)),
    "/twintower.v1.CatalogService/DeleteItems": Rule(Role.WRITE, counted="item_ids", audited=True),
    "/twintower.v1.CatalogService/GetCatalog": Rule(Role.WRITE),
    "/twintower.v1.EventService/RecordEvents": Rule(Role.READ, counted="events"),
    "/twintower.v1.OperatorService/ListReleases": Rule(Role.OPERATE),
    "/twintower.v1.OperatorService/ReloadRelease": Rule(Role.OPERATE, audited=True, shown=("label", "release")),
    "/twintower.v1.OperatorService/RollBackRelease": Rule(Role.OPERATE, audited=True, shown=("label",)),
    # Probes of orchestrators carry no token, and readiness is no secret.
    CHECK: OPEN,
    "/grpc.health.v1.Health/List": OPEN,
    WATCH: OPEN,
    REFLECTION: Rule(Role.READ),
}
"""By full name. A method that does not stand here is nobody's where there is an auth file."""
