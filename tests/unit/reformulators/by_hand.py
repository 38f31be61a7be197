"""Feedback in two dimensions, for arithmetic by hand."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from recsys.types import NO_ROW, Feedback
from twintower.types import FeedbackKind

EAST, NORTH, WEST, SOUTH = (1.0, 0.0), (0.0, 1.0), (-1.0, 0.0), (0.0, -1.0)


def shared(vectors, kinds, ranks, scores, present):
    """Return feedback in a space that queries and items share: both roles of an item are one vector."""
    return Feedback(vectors, np.ones(kinds.shape, np.float32), vectors, kinds, ranks, scores, present)


def said(query, *items):
    """Return feedback on one query: pairs of vector and kind, at unknown ranks."""
    vectors = np.array([[vector for vector, _ in items]], np.float32).reshape(1, len(items), 2)
    kinds = np.array([[kind for _, kind in items]], np.int32)
    scores = (vectors @ np.array(query, np.float32)).astype(np.float32)
    return shared(vectors, kinds, np.full(kinds.shape, NO_ROW, np.int32), scores, np.ones(kinds.shape, bool))


def pseudo(query, *vectors):
    """Return pseudo feedback on one query, ranks 0, 1, ..."""
    given = said(query, *((vector, FeedbackKind.PSEUDO) for vector in vectors))
    ranks = np.arange(len(vectors), dtype=np.int32)[None]
    return replace(given, ranks=ranks)


def asked(query):
    return np.array([query], np.float32)
