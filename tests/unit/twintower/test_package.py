"""The package of the client: what it exports, and what importing it costs."""

from __future__ import annotations

import subprocess
import sys

import twintower


def run_fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_every_exported_name_is_there():
    assert [name for name in twintower.__all__ if getattr(twintower, name, None) is None] == []


def test_the_types_are_importable_without_grpc():
    code = "import sys; from twintower import Query; print('grpc' in sys.modules, 'google' in sys.modules)"
    assert run_fresh(code) == "False False"


def test_the_client_needs_nothing_of_the_library_or_the_server():
    heavy = ("recsys", "serving", "pyarrow", "polars", "pydantic", "cryptography", "tensorflow")
    code = f"import sys; from twintower import *; print([name for name in {heavy!r} if name in sys.modules])"
    assert run_fresh(code) == "[]"
