"""Answer a query from a release: encode it, search the index, name the items; the code that serves and is evaluated."""

from __future__ import annotations

from recsys.retrieval.retriever import Answer, Encoding, Retriever
from recsys.types import Origin

__all__ = ["Answer", "Encoding", "Origin", "Retriever"]
