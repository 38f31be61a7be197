"""The file `index.json` of every index folder: what was built, over which vectors, and which files belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from recsys.errors import ReleaseError, describe, verbatim
from recsys.files import sha256
from recsys.types import Float32

SEAL = "index.json"


def seal(folder: Path, kind: str, vectors: Float32, parameters: Mapping[str, Any]) -> None:
    """Write `index.json` into a folder whose other files are complete.

    Args:
        folder: the index's folder.
        kind: the choice that built it.
        vectors: the item vectors that it was built over, `[items, dim]`, float32.
        parameters: what was settled on, plain values for JSON.
    """
    content = {
        "kind": kind,
        "items": vectors.shape[0],
        "dim": vectors.shape[1],
        "vectors_sha256": sha256(vectors),
        "parameters": dict(parameters),
        "file_bytes": {file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != SEAL},
    }
    (folder / SEAL).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def opened(folder: Path, kind: str, vectors: Float32) -> dict[str, Any]:
    """Return the parameters in a folder's `index.json` after comparing it with the folder and the vectors.

    Raises:
        ReleaseError: no readable `index.json`, another kind, a file missing or of another size, or other vectors.
    """
    file = folder / SEAL
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        found = (content["kind"], content["items"], content["dim"], content["vectors_sha256"])
        file_bytes, parameters = dict(content["file_bytes"]), dict(content["parameters"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ReleaseError(describe(str(file), verbatim(f"{error!r}"), "an index description", _ADVICE)) from None
    if found[0] != kind:
        raise ReleaseError(describe(f"{file}: kind", found[0], f"{kind!r}", _ADVICE))
    for name, size in file_bytes.items():
        part = folder / name
        got = part.stat().st_size if part.is_file() else None
        if got != size:
            raise ReleaseError(describe(str(part), verbatim(_size(got)), _size(size), _ADVICE))
    if found[1:3] != vectors.shape or found[3] != sha256(vectors):
        got = verbatim(f"{found[3]} {list(found[1:3])}")
        raise ReleaseError(describe(f"{file}: vectors_sha256", got, "that of the item vectors", _ADVICE))
    return parameters


_ADVICE = "Build the index again over the vectors of this release."


def _size(count: int | None) -> str:
    return "no file" if count is None else f"a file of {count} bytes"
