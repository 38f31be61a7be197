"""What the end-to-end tests share."""

from __future__ import annotations

import gc

import hypothesis  # noqa: F401  # imported later, it does not find what refers to frozen objects, and warns
import pytest


@pytest.fixture(scope="module", autouse=True)
def _no_garbage() -> None:
    """Free what earlier tests left, before calls with deadlines share the interpreter: dead models take it seconds."""
    gc.collect()
    gc.freeze()
