"""What operators ordered of labels, over what the folder of releases says of them."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from pydantic import ConfigDict

from recsys.documents import read_json
from recsys.export.release import ReleaseName
from recsys.files import storage, write_atomically


@dataclass(frozen=True)
class Order:
    """A release that an operator wants under a label.

    Attributes:
        release: its name.
        over: the release that the folder had under the label then; empty for none.
        rolled_back: holds until the next order; others until the folder says something else.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")
    release: ReleaseName
    over: str = ""
    rolled_back: bool = False

    def holds(self, said: str) -> bool:
        """Whether it still counts where the folder says this name of the label; empty for none."""
        return self.rolled_back or self.over == said


class Orders:
    """Orders by label, in a file that all processes of a server share, or in memory.

    Args:
        path: the file; None for memory.

    Attributes:
        path: as given.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = path
        self._table: Mapping[str, Order] = {}

    def read(self) -> Mapping[str, Order]:
        """Return all orders by label.

        Raises:
            ReleaseError: the file is broken.
        """
        if self.path is None:
            return self._table
        if not self.path.is_file():
            return {}
        return read_json(self.path, dict[str, Order], "Remove it and order again.")

    def write(self, label: str, order: Order | None, *, over: Order | None = None) -> None:
        """Set the order for a label.

        Args:
            label: may be new.
            order: None removes the one there is.
            over: do nothing unless this one is still there; None for whatever is.

        Raises:
            StorageError: the file cannot be written.
        """
        with self._alone():
            table = dict(self.read())
            if over is not None and table.get(label) != over:
                return
            table.pop(label, None)
            if order is not None:
                table[label] = order
            if self.path is None:
                self._table = table
                return
            content = {name: asdict(each) for name, each in table.items()}
            write_atomically(self.path, json.dumps(content, indent=1) + "\n")

    @contextmanager
    def _alone(self) -> Iterator[None]:
        if self.path is None:
            yield
            return
        with storage(self.path.parent), open(self.path.with_name(f".{self.path.name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
