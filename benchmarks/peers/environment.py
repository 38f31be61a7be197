"""The environments of peers that cannot share the project's own: made on first use in `.cache/peers`, then kept."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PEERS = ROOT / ".cache" / "peers"
LIBRECOMMENDER = (
    "LibRecommender==1.5.2",
    "tensorflow==2.20.*",
    "tf-keras==2.20.*",
    "numpy==1.26.4",
    "pandas==2.3.3",
    "scikit-learn",
    "torch==1.13.1",
)
"""LibRecommender is compiled against NumPy 1 and needs Keras 2; of torch it uses the data loader only."""


_HOME = PEERS / "librecommender"
_STAMP = _HOME / "requirements"


def librecommender_is_installed() -> bool:
    """Return whether LibRecommender's environment was made with these requirements."""
    return _STAMP.is_file() and _STAMP.read_text(encoding="utf-8") == "\n".join(LIBRECOMMENDER)


def librecommender_python() -> Path:
    """Return the interpreter of LibRecommender's environment, made on first use.

    Raises:
        subprocess.CalledProcessError: it cannot be installed; what pip said is in `stderr`.
    """
    python = _HOME / "bin" / "python"
    if not librecommender_is_installed():
        print(f"LibRecommender: installing into {_HOME.relative_to(ROOT)} (some minutes, 6 GB)", flush=True)
        subprocess.run([sys.executable, "-m", "venv", "--clear", _HOME], check=True, capture_output=True, text=True)
        command = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *LIBRECOMMENDER]
        subprocess.run(command, check=True, capture_output=True, text=True)
        _STAMP.write_text("\n".join(LIBRECOMMENDER), encoding="utf-8")
    return python


def variables() -> dict[str, str]:
    """Return the environment variables of a peer's process: this process's, quiet, with Keras 2."""
    return os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": "1"}
