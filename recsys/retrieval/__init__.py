"""Answer a query from a release: encode it, search, move it by feedback; the code that serves and is evaluated."""

from __future__ import annotations

from recsys.retrieval.retriever import (
    Answer,
    Encoding,
    Explanation,
    Matches,
    ReformulatedAnswer,
    Retriever,
    Revision,
)
from recsys.retrieval.where import where
from recsys.types import Origin

__all__ = [
    "Answer",
    "Encoding",
    "Explanation",
    "Matches",
    "Origin",
    "ReformulatedAnswer",
    "Retriever",
    "Revision",
    "where",
]
