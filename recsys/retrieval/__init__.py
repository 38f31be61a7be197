"""Answer a query from a release: encode it, search, move it by feedback; the code that serves and is evaluated."""

from __future__ import annotations

from recsys.retrieval.retriever import (
    Answer,
    Encoding,
    Matches,
    ReformulatedAnswer,
    Retriever,
    Revision,
)

__all__ = [
    "Answer",
    "Encoding",
    "Matches",
    "ReformulatedAnswer",
    "Retriever",
    "Revision",
]
