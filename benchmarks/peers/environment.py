"""The environments of peers that cannot share the project's own: made on first use in `.cache/peers`, then kept."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".cache" / "peers"


@dataclass(frozen=True)
class Environment:
    """One environment.

    Attributes:
        peer: its name, and of the module of `benchmarks.peers` that runs in it.
        requirements: what pip installs.
        size: what making it takes, in words.
    """

    peer: str
    requirements: tuple[str, ...]
    size: str

    @property
    def folder(self) -> Path:
        """Where it lies."""
        return PEERS / self.peer

    @property
    def is_installed(self) -> bool:
        """Whether it was made with these requirements."""
        return self._stamp.is_file() and self._stamp.read_text(encoding="utf-8") == "\n".join(self.requirements)

    def python(self) -> Path:
        """Return its interpreter; it is made on first use.

        Raises:
            subprocess.CalledProcessError: it cannot be installed; what pip said is in `stderr`.
        """
        python = self.folder / "bin" / "python"
        if not self.is_installed:
            print(f"{self.peer}: installing into {self.folder.relative_to(ROOT)} ({self.size})", flush=True)
            command = [sys.executable, "-m", "venv", "--clear", self.folder]
            subprocess.run(command, check=True, capture_output=True, text=True)
            command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *self.requirements]
            subprocess.run(command, check=True, capture_output=True, text=True)
            self._stamp.write_text("\n".join(self.requirements), encoding="utf-8")
        return python

    @property
    def _stamp(self) -> Path:
        return self.folder / "requirements"


LIBRECOMMENDER = Environment(
    "librecommender",
    (
        "LibRecommender==1.5.2",
        "tensorflow==2.20.*",
        "tf-keras==2.20.*",
        "numpy==1.26.4",
        "pandas==2.3.3",
        "scikit-learn",
        "torch==1.13.1",
    ),
    "some minutes, 6 GB",
)
"""LibRecommender is compiled against NumPy 1 and needs Keras 2; of torch it uses the data loader only."""
CHROMA = Environment("chroma", ("chromadb==1.5.9",), "a minute, 500 MB")
MILVUS_LITE = Environment("milvus_lite", ("pymilvus==3.0.2", "milvus-lite==3.2.2"), "a minute, 250 MB")
"""The extra `milvus_lite` of pymilvus, which other versions spell differently, is the second requirement."""

RECTOOLS = Environment("rectools", ("rectools[torch]==0.19.0", "torch==2.14.1"), "some minutes, 6 GB")


def variables() -> dict[str, str]:
    """Return the environment variables of a peer's process: this process's, quiet, with Keras 2."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
