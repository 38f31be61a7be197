"""The run file of a release, as far as serving reads it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from recsys.documents import read_toml

RUN_FILE = "run.toml"


@dataclass(frozen=True)
class ServedColumns:
    """The section [item].

    Attributes:
        metadata: columns that are shown; none means all.
        filters: columns that can be filtered by; none means those that are shown.
    """

    metadata: tuple[str, ...] = ()
    filters: tuple[str, ...] = ()


@dataclass(frozen=True)
class ServedRun:
    """What serving reads of a run file.

    Attributes:
        item: the columns of the catalog.
        index: the settings of the index, with their kind.
    """

    item: ServedColumns
    index: Mapping[str, Any]


def read_served(folder: Path) -> ServedRun:
    """Return what serving reads of a release's run file.

    Raises:
        ReleaseError: the file is missing or broken.
    """
    return read_toml(folder / RUN_FILE, ServedRun)
