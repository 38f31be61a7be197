"""Where the public benchmark sets lie: the folder that the environment variable RECSYS_DATA_DIR names."""

from __future__ import annotations

import os
from pathlib import Path

from recsys.errors import DataError
from twintower.errors import MissingError, describe

VARIABLE = "RECSYS_DATA_DIR"


def folder(name: str) -> Path:
    """Return the folder of one benchmark set.

    Raises:
        MissingError: the variable is not set; the message has the line to run.
        DataError: the folder that it names does not hold the set.
    """
    root = os.environ.get(VARIABLE, "")
    if not root:
        raise MissingError(
            f"{VARIABLE}: not set, expected the folder that holds {name}/. Run: export {VARIABLE}=/path/to/the/data"
        )
    found = Path(root) / name
    if not found.is_dir():
        raise DataError(describe(VARIABLE, root, f"a folder that holds {name}/"))
    return found
