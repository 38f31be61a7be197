"""Write `twintower/client.py`, the client for threads, from `twintower/aio.py`, the one for asyncio.

Run by `make proto`; a test compares the file with what this makes of its source.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[1] / "twintower"
REPLACED = (
    (r"\A.*?\n\n", '"""The client for threads. Generated from `twintower/aio.py` by `make proto`; do not edit."""\n\n'),
    (r"Calls a server from asyncio; use as an async", "Calls a server from threads, any number of them; use as a"),
    (r"an async context manager", "a context manager"),
    (r"\basync def ", "def "),
    (r"\bawait ", ""),
    (r"\b__a(enter|exit)__", r"__\1__"),
    (r"\bAsync(Client|Session|Transport)\b", r"\1"),
)


def blocking(source: str) -> str:
    """Return the client for threads as source text.

    Args:
        source: that of the client for asyncio.
    """
    for pattern, text in REPLACED:
        source = re.sub(pattern, text, source, flags=re.DOTALL)
    for command in (("check", "--select", "I", "--fix", "--quiet"), ("format", "--quiet")):
        ruff = (sys.executable, "-m", "ruff", *command, "--stdin-filename", str(PACKAGE / "client.py"), "-")
        source = subprocess.run(ruff, input=source, capture_output=True, text=True, check=True).stdout
    return source


if __name__ == "__main__":
    (PACKAGE / "client.py").write_text(blocking((PACKAGE / "aio.py").read_text(encoding="utf-8")), encoding="utf-8")
