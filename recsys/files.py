"""Write whole files or none: temporary names, checked sizes, one error for a full disk, one writer at a time."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from recsys.errors import RefusedError, StorageError

UNWRITABLE = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EFBIG,
        errno.EROFS,
        errno.EACCES,
        errno.EPERM,
        errno.EEXIST,
        errno.EISDIR,
        errno.ENOTDIR,
        errno.ENAMETOOLONG,
        None,
    }
)
"""Numbers of OSErrors that mean 'cannot write here'; NumPy raises one without a number when a disk is full."""
WORKED_ON = "another process works on this run. Wait for it, or give this run another name or --work."
HASHED_ROWS = 65_536
UNWRITABLE_IN_TENSORFLOW = frozenset({"ResourceExhaustedError", "PermissionDeniedError", "OutOfRangeError"})


@contextmanager
def storage(where: Path) -> Iterator[None]:
    """Turn every way in which writing fails within the block into one error.

    Args:
        where: the folder that is written to, for the message.

    Raises:
        StorageError: the disk is full, or the place may not be written.
    """
    try:
        yield
    except OSError as error:
        if isinstance(error, StorageError) or error.errno not in UNWRITABLE:
            raise
        raise StorageError(_told(where, error.strerror or str(error))) from error
    except Exception as error:
        if type(error).__name__ not in UNWRITABLE_IN_TENSORFLOW:
            raise
        raise StorageError(_told(where, str(error).partition("\n")[0])) from error


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file under a temporary name, then rename it; text as UTF-8.

    Raises:
        StorageError: writing failed; the old file, if any, stands as it was.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with storage(path.parent):
        try:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)


def save_array(path: Path, array: np.ndarray) -> None:
    """Write an array as `.npy`, and look whether all of it arrived: NumPy does not.

    Raises:
        OSError: the disk is full.
    """
    np.save(path, array, allow_pickle=False)
    if path.stat().st_size < array.nbytes:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))


def sha256(array: np.ndarray) -> str:
    """Return the SHA-256 of an array's type, shape and bytes as hexadecimal digits; read in blocks of rows."""
    digest = hashlib.sha256(f"{array.dtype.str} {list(array.shape)}".encode())
    for start in range(0, len(array), HASHED_ROWS):
        digest.update(np.ascontiguousarray(array[start : start + HASHED_ROWS]))
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Wait until the names of the files in a folder are on disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(folder: Path, told: str = WORKED_ON) -> Iterator[None]:
    """Hold a folder for this process while the block runs.

    Args:
        folder: existing.
        told: what the message says of the other process, and what to do.

    Raises:
        RefusedError: another process holds it.
    """
    with open(folder / ".lock", "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RefusedError(f"{folder}: {told}") from None
        yield


@contextmanager
def file_lock(path: Path, *, wait: bool = False) -> Iterator[None]:
    """Hold a file until the block ends, or this process does.

    Args:
        path: of the file; made if needed.
        wait: for another process that holds it.

    Raises:
        BlockingIOError: another process holds it, and `wait` is off.
    """
    with open(path, "w", encoding="ascii") as file:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        yield


def files_below(root: Path) -> Iterator[Path]:
    """Yield every file below a folder, in the order of their names; links are followed.

    Names that begin with `.` or `_` are passed over with everything below them, except for folders that are Hive
    partitions (`_day=2`). A folder that a link leads to a second time is yielded itself instead of what it holds, so
    that a link back to a folder above ends.
    """
    visited, pending = {root.resolve()}, sorted(root.iterdir(), reverse=True)
    while pending:
        path = pending.pop()
        if path.name.startswith((".", "_")) and not (path.name.startswith("_") and "=" in path.name and path.is_dir()):
            continue
        if path.is_dir() and path.resolve() not in visited:
            visited.add(path.resolve())
            pending.extend(sorted(path.iterdir(), reverse=True))
        else:
            yield path


def stamp(paths: Iterable[Path]) -> str:
    """Return a digest of the names, sizes and times of change of files, and of those that `files_below` finds."""
    digest = hashlib.sha256()
    for path in paths:
        for file in files_below(path) if path.is_dir() else [path]:
            if file.is_file():
                status, name = file.stat(), file.relative_to(path) if file != path else file.name
                digest.update(f"{name}\0{status.st_size}\0{status.st_mtime_ns}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def _told(where: Path, reason: str) -> str:
    return (
        f"{where}: cannot write ({reason}). Nothing half-written was left. Make room or choose another folder, then "
        "run the same command again."
    )
