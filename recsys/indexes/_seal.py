"""The file `index.json` of every index folder: what was built, over which vectors, and which files belong to it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ConfigDict

from recsys.documents import read_json
from recsys.errors import ReleaseError
from recsys.files import sha256
from recsys.types import Float32
from twintower.errors import describe, verbatim

SEAL = "index.json"


def seal(folder: Path, kind: str, vectors: Float32, parameters: Mapping[str, Any]) -> None:
    """Write `index.json` into a folder whose other files are complete.

    Args:
        folder: the index's folder.
        kind: the choice that built it.
        vectors: the item vectors that it was built over, `[items, dim]`, float32.
        parameters: what was settled on, plain values for JSON.
    """
    content = _Seal(
        kind=kind,
        items=vectors.shape[0],
        dim=vectors.shape[1],
        vectors_sha256=sha256(vectors),
        parameters=dict(parameters),
        file_bytes={file.name: file.stat().st_size for file in sorted(folder.iterdir()) if file.name != SEAL},
    )
    (folder / SEAL).write_text(json.dumps(asdict(content), indent=2) + "\n", encoding="utf-8")


def opened(folder: Path, kind: str, vectors: Float32) -> dict[str, Any]:
    """Return the parameters in a folder's `index.json` after comparing it with the folder and the vectors.

    Raises:
        ReleaseError: no readable `index.json`, another kind, a file missing, of another size or not in it, or other
            vectors.
    """
    file = folder / SEAL
    sealed = read_json(file, _Seal, _ADVICE)
    if sealed.kind != kind:
        raise ReleaseError(describe(f"{file}: kind", sealed.kind, f"{kind!r}", _ADVICE))
    present = {each.name for each in folder.iterdir() if not each.name.startswith(".")} - {SEAL}
    if foreign := sorted(present - sealed.file_bytes.keys()):
        raise ReleaseError(describe(str(folder / foreign[0]), verbatim("a file"), "no further file", _ADVICE))
    for name, size in sealed.file_bytes.items():
        part = folder / name
        got = part.stat().st_size if part.is_file() else None
        if got != size:
            raise ReleaseError(describe(str(part), verbatim(_size(got)), _size(size), _ADVICE))
    shape = (sealed.items, sealed.dim)
    if shape != vectors.shape or sealed.vectors_sha256 != sha256(vectors):
        got = verbatim(f"{sealed.vectors_sha256} {list(shape)}")
        raise ReleaseError(describe(f"{file}: vectors_sha256", got, "that of the item vectors", _ADVICE))
    return sealed.parameters


@dataclass(frozen=True)
class _Seal:
    """The content of `index.json`, by the arguments of `seal`; `file_bytes` are the sizes of the other files."""

    __pydantic_config__ = ConfigDict(extra="forbid")
    kind: str
    items: int
    dim: int
    vectors_sha256: str
    parameters: dict[str, Any]
    file_bytes: dict[str, int]


_ADVICE = "Build the index again over the vectors of this release."


def _size(count: int | None) -> str:
    return "no file" if count is None else f"a file of {count} bytes"
