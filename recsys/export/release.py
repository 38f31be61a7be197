"""A release is a folder written once: a manifest with the SHA-256 of every part and one fingerprint over all."""

from __future__ import annotations

import datetime
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from recsys.documents import checked_json, parse_json, read_json
from recsys.errors import InstallationError, RefusedError, ReleaseError, StorageError
from recsys.export import signature
from recsys.files import storage, write_atomically
from recsys.stack import EXPECTED, installed
from twintower.errors import MissingError, SettingError, describe, unknown, verbatim

FORMAT_VERSION = 4
MANIFEST = "manifest.json"
LABELS = "labels.json"
BUILDING = ".building-"
AGAIN = "Take another release, or write it again with `recsys train`."
STRICT = ConfigDict(extra="forbid")


def _moment(text: str) -> str:
    try:
        datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)
    except OverflowError:
        raise ValueError("a time between the years 1 and 9999") from None
    return text


def _release_name(name: str) -> str:
    if name.startswith(".") or not name or set(name) & {"/", "\0"}:
        raise ValueError("the name of a release in this folder")
    return name


Count = Annotated[int, Field(ge=0, le=2**31 - 1)]
Digest = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Moment = Annotated[str, AfterValidator(_moment)]
ReleaseName = Annotated[str, AfterValidator(_release_name)]


@dataclass(frozen=True)
class Part:
    """One file of a release.

    Attributes:
        sha256: of its content, 64 hex digits.
        size_bytes: its length.
    """

    __pydantic_config__ = STRICT
    sha256: Digest
    size_bytes: Annotated[int, Field(ge=0, le=2**63 - 1)]


@dataclass(frozen=True)
class Facts:
    """What a release says of itself without opening its parts.

    Attributes:
        run: name of the run that made it.
        query_entity: `user`, `item` or `features`.
        query_columns: raw columns that a query by features may carry, history not among them.
        reads_history: whether the query tower reads a history.
        dim: length of its vectors.
        item_count: rows of the catalogue.
        query_count: query entities that it knows by id.
        index: kind of its index.
        notice: what must be said wherever its data is named.
        metrics: test metrics over all cases, by name in ir-measures spelling.
        cases_digest: SHA-256 of the test cases; metrics over other cases do not compare strictly.
        index_recall: lower confidence bound of the index's recall, 0..1.
        fitted_on: the parts of the split that its model was fitted on.
        judged_on: those that the model of its metrics was fitted on; never `test`.
    """

    __pydantic_config__ = STRICT
    run: str
    query_entity: Literal["user", "item", "features"]
    query_columns: tuple[str, ...]
    reads_history: bool
    dim: Count
    item_count: Count
    query_count: Count
    index: str
    notice: str
    metrics: Mapping[str, float]
    cases_digest: str
    index_recall: float
    fitted_on: tuple[str, ...] = ("train",)
    judged_on: tuple[str, ...] = ("train",)


@dataclass(frozen=True)
class Manifest:
    """The table of contents.

    Attributes:
        fingerprint: SHA-256 over format version, facts and parts; 64 hex digits.
        format_version: of the folder's layout.
        created: when it was written, ISO 8601 UTC; no part of the fingerprint.
        parent: fingerprint of the release that this one was derived from; empty for a first one.
        versions: of the libraries that wrote it; no part of the fingerprint.
        facts: what it is.
        parts: every file but the manifest, by path relative to the folder.
    """

    __pydantic_config__ = STRICT
    fingerprint: Digest
    format_version: int
    created: Moment
    parent: str
    versions: Mapping[str, str]
    facts: Facts
    parts: Mapping[str, Part] = field(repr=False)


@dataclass(frozen=True)
class Release:
    """An opened release.

    Attributes:
        folder: where it lies.
        manifest: its table of contents.
    """

    folder: Path
    manifest: Manifest

    @cached_property
    def name(self) -> str:
        """The folder's name: the run's name and the first digits of the fingerprint."""
        return self.folder.name

    @property
    def fingerprint(self) -> str:
        """64 hex digits over all parts."""
        return self.manifest.fingerprint

    @property
    def facts(self) -> Facts:
        """What it is."""
        return self.manifest.facts


def open_release(folder: str | Path, *, verify: bool = True, signed_by: Sequence[Path] = ()) -> Release:
    """Open a release, by default after reading and checking every part.

    Args:
        folder: the release.
        verify: compare the SHA-256 of every part; without it only presence and size are checked.
        signed_by: public keys (PEM files) of which one must have signed the release; none: it needs no signature.

    Raises:
        MissingError: there is no release at that place.
        ReleaseError: a part is missing, foreign or damaged, the format is another, or no key of these has signed it;
            says which and what to do.
        SettingError: a key cannot be read.
    """
    folder = Path(folder).resolve()
    path = folder / MANIFEST
    if not path.is_file():
        raise MissingError(describe(str(folder), "no manifest.json", "a release folder", _known_beside(folder)))
    with parts_of(folder):
        content = path.read_bytes()
    if signed_by:
        signature.check(folder, content, signed_by)
    with parts_of(folder):
        manifest = _manifest(content, path)
        _check(folder, manifest, verify=verify)
    return Release(folder, manifest)


def _manifest(content: bytes, path: Path) -> Manifest:
    table = parse_json(content, str(path), AGAIN)
    version = table.get("format_version") if isinstance(table, dict) else None
    if version is not None and version != FORMAT_VERSION:
        raise ReleaseError(
            describe(
                f"{path}: format_version",
                version,
                str(FORMAT_VERSION),
                "Write the release again: `recsys train` on its run.toml goes on from its work folder.",
            )
        )
    manifest = checked_json(content, Manifest, str(path), AGAIN)
    if manifest.fingerprint != _fingerprint(table):
        raise ReleaseError(f"{path}: the fingerprint does not fit its contents. {AGAIN}")
    return manifest


@contextmanager
def parts_of(folder: Path) -> Iterator[None]:
    """Turn whatever goes wrong within the block, which reads parts of a release, into one error.

    A checksum shows that a part is the one that the manifest names, not that it holds what this version writes.

    Args:
        folder: the release, for the message.

    Raises:
        ReleaseError: a part is not what this version writes.
    """
    try:
        yield
    except (ReleaseError, MissingError, InstallationError, StorageError):
        raise
    except Exception as error:
        got = verbatim(f"{type(error).__name__}: {error}")
        raise ReleaseError(describe(str(folder), got, "parts that this version can read", AGAIN)) from error


def publish(root: str | Path, fill: Callable[[Path], Facts]) -> Release:
    """Write a new release: fill a hidden folder, seal it, rename it.

    Args:
        root: the folder of releases; made if needed.
        fill: writes every part into an empty folder and returns what the release is.

    Returns:
        The release, named after run and fingerprint. One with equal content that exists already is returned as it is.

    Raises:
        StorageError: writing failed; nothing is left behind.
    """
    with _building(Path(root)) as folder:
        return _seal(folder, Path(root), fill(folder), parent="")


def derive(release: Release, changes: Callable[[Path], Mapping[str, Any]]) -> Release:
    """Write a new release that shares every unchanged part with an old one, which stays as it is.

    Args:
        release: the old one.
        changes: adds, replaces or removes parts in a folder that holds all old ones, and returns the facts that
            differ. It must replace files, never write into them: they are hard links to the old release's.

    Raises:
        StorageError: writing failed; nothing is left behind.
    """
    root = release.folder.parent
    with _building(root) as folder:
        for name in release.manifest.parts:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            _link(release.folder / name, folder / name)
        facts = replace(release.facts, **changes(folder))
        return _seal(folder, root, facts, parent=release.fingerprint)


def find(root: str | Path, name: str = "") -> Path:
    """Return the folder of a release.

    Args:
        root: a release, or a folder of releases.
        name: a label, a release's name or the start of its fingerprint (at least 6 digits); empty means the label
            `stable`, or the only release that there is.

    Raises:
        MissingError: nothing, or more than one thing, fits.
    """
    root = Path(root).resolve()
    if (root / MANIFEST).is_file() and not name:
        return root
    known, labels = published(root), read_labels(root)
    wanted = name or ("stable" if "stable" in labels else "")
    if not wanted and len(set(known.values())) == 1:
        return next(iter(known.values()))
    wanted = labels.get(wanted, wanted)
    fitting = {folder for own, folder in known.items() if own == wanted}
    if not fitting and len(wanted) >= 6:
        fitting = {folder for folder in known.values() if _said(folder, "fingerprint").startswith(wanted)}
    if len(fitting) == 1:
        return fitting.pop()
    if not wanted:
        found = f"{len(known)} releases" if known else "no release"
        raise MissingError(
            f"{root}: {found} and no label 'stable'. Name one of: {', '.join(known) or 'none'}; or write one with "
            "`recsys train`."
        )
    raise MissingError(f"{root}: {unknown('release', wanted, [*known, *labels])}")


def newest(root: Path) -> Path:
    """Return the folder of the release that was written last.

    Raises:
        MissingError: there is none that says when it was written.
    """
    written = [(created, folder) for folder in published(root).values() if (created := published_at(folder))]
    return max(written)[1] if written else find(root)


def published(root: Path) -> dict[str, Path]:
    """Return the folders of the releases in a folder by the names that they have there, sorted.

    One that is still being written is left out. A link is followed: two names may have one folder.
    """
    manifests = sorted(path for path in root.glob(f"*/{MANIFEST}") if not path.parent.name.startswith("."))
    return {path.parent.name: path.parent.resolve() for path in manifests}


def is_release(folder: Path) -> bool:
    """Return whether a folder has a manifest; whether it is sound is for `open_release` to say."""
    return (folder / MANIFEST).is_file()


def published_at(folder: Path) -> str:
    """Return the time at which a release was written, ISO 8601; empty where its manifest cannot be read."""
    return _said(folder, "created")


def read_labels(root: Path) -> dict[str, str]:
    """Return the release that each label names, by label.

    Raises:
        ReleaseError: the file of labels is broken, or names something outside the folder.
    """
    path = root / LABELS
    if not path.is_file():
        return {}
    return read_json(path, dict[str, ReleaseName], "Remove it and promote again; promotions.jsonl has the labels.")


def promote(
    release: Release,
    label: str,
    *,
    metric: str = "",
    max_drop_rate: float,
    force: bool,
    objections: Sequence[str] = (),
) -> str:
    """Give a label to a release unless it is worse than the one that has it now, or something else speaks against it.

    Every promotion is written to `promotions.jsonl` beside the releases, forced ones with what they overrode.

    Args:
        release: the candidate.
        label: such as `stable` or `canary`.
        metric: the test metric that must not fall; empty means the first of the candidate's run file that both releases
            have.
        max_drop_rate: the largest accepted relative fall (0..1) of the metric and of the index's recall bound.
        force: promote in spite of the gate.
        objections: what else speaks against the release, such as a baseline that is ahead of it.

    Returns:
        A sentence that says whether the label moved and what was compared.

    Raises:
        RefusedError: the metric or the recall bound falls by more than the margin, or cannot be compared, or there are
            objections.
        SettingError: the release has no such metric, or the label is empty.
    """
    root, metrics = release.folder.parent, release.facts.metrics
    if not label:
        raise SettingError(describe("--label", label, "a label, such as stable"))
    if metric and metric not in metrics:
        raise SettingError(f"--metric: {unknown('metric of the release', metric, metrics)}")
    labels = read_labels(root)
    before = labels.get(label, "")
    if before == release.name:
        return f"not promoted: {release.name} has the label {label!r} already"
    compared_by = metric or next(iter(metrics), "")
    compared = f"it is the first release with the label {label!r}"
    found = [f"its {compared_by} is not a number"] if not math.isfinite(metrics.get(compared_by, 0.0)) else []
    if before:
        try:
            current = open_release(root / before, verify=False)
        except (MissingError, ReleaseError) as error:
            found = [f"{before}, which has the label, cannot be read: {error}"]
            compared = f"{before} cannot be compared with"
        else:
            compared_by = metric or next((name for name in metrics if name in current.facts.metrics), "")
            found, sentence = _objections(release.facts, current.facts, compared_by, max_drop_rate)
            compared = f"against {before}: {sentence}"
    objections = [*objections, *found]
    if objections and not force:
        raise RefusedError(
            f"not promoted: {release.name} does not get the label {label!r}: {'; '.join(objections)}. "
            "Train a better release, widen --max-drop, compare another --metric, or promote with --force (which is "
            "recorded)."
        )
    record = {
        "time": _now(),
        "label": label,
        "release": release.name,
        "before": before,
        "forced_over": objections,
        "max_drop_rate": max_drop_rate,
        "metric": compared_by,
    }
    with storage(root), open(root / "promotions.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")
    write_atomically(root / LABELS, json.dumps({**labels, label: release.name}, indent=1) + "\n")
    forced = f" (forced in spite of: {'; '.join(objections)})" if objections else ""
    return f"promoted: {release.name} has the label {label!r} now; {compared}{forced}"


def _objections(new: Facts, old: Facts, metric: str, max_drop_rate: float) -> tuple[list[str], str]:
    objections, compared = [], []
    pairs = [("index recall bound", new.index_recall, old.index_recall)]
    if metric in new.metrics and metric in old.metrics:
        pairs.insert(0, (metric, new.metrics[metric], old.metrics[metric]))
    else:
        ours, theirs = (", ".join(facts.metrics) or "none" for facts in (new, old))
        what = metric or "no test metric"
        known = "is not known for both releases" if metric else "is known for both releases"
        objections.append(f"{what} {known} (this one has {ours}; the other has {theirs})")
    for what, now, before in pairs:
        if not (math.isfinite(now) and math.isfinite(before)):
            objections.append(f"{what} is not a number in both releases")
            continue
        compared.append(f"{what} {before:.4f} -> {now:.4f}")
        if not now >= before * (1 - max_drop_rate):
            objections.append(f"{what} falls from {before:.4f} to {now:.4f}, more than {max_drop_rate:.1%}")
    if new.cases_digest != old.cases_digest:
        compared.append("judged on different test cases")
    return objections, ", ".join(compared)


@contextmanager
def _building(root: Path) -> Iterator[Path]:
    with storage(root):
        root.mkdir(parents=True, exist_ok=True)
        _sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=f"{BUILDING}{os.getpid()}-", dir=root))
        folder.chmod(0o755)
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _sweep(root: Path) -> None:
    """Remove what processes that no longer run left half-written."""
    for folder in root.glob(f"{BUILDING}*"):
        owner = folder.name.removeprefix(BUILDING).partition("-")[0]
        if not owner.isdigit() or not Path(f"/proc/{owner}").exists():
            shutil.rmtree(folder, ignore_errors=True)


def _seal(folder: Path, root: Path, facts: Facts, parent: str) -> Release:
    parts = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            parts[path.relative_to(folder).as_posix()] = Part(_sha256(path), path.stat().st_size)
    manifest = Manifest(
        fingerprint="",
        format_version=FORMAT_VERSION,
        created=_now(),
        parent=parent,
        versions={name: version for name in EXPECTED if (version := installed(name))},
        facts=facts,
        parts=parts,
    )
    table = asdict(manifest)
    table["fingerprint"] = _fingerprint(table)
    (folder / MANIFEST).write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")
    for path in (folder / MANIFEST, folder):
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.close(descriptor)
    target = root / f"{facts.run}-{table['fingerprint'][:12]}"
    if not (target / MANIFEST).is_file():
        os.rename(folder, target)
    return open_release(target, verify=False)


def _check(folder: Path, manifest: Manifest, *, verify: bool) -> None:
    files = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    # Files that desktops and network file systems strew about begin with a dot, and nothing reads them.
    present = {path.as_posix() for path in files if not path.name.startswith(".")} - {MANIFEST, signature.SIGNATURE}
    if missing := sorted(manifest.parts.keys() - present):
        raise ReleaseError(f"{folder}: {len(missing)} missing part(s): {', '.join(missing[:5])}. {AGAIN}")
    if foreign := sorted(present - manifest.parts.keys()):
        raise ReleaseError(
            f"{folder}: {len(foreign)} file(s) that are no part of it: {', '.join(foreign[:5])}. {AGAIN}"
        )
    for name, part in manifest.parts.items():
        path = folder / name
        if path.stat().st_size != part.size_bytes or (verify and _sha256(path) != part.sha256):
            raise ReleaseError(f"{path}: damaged, or from another release: its checksum differs. {AGAIN}")


def _fingerprint(table: Mapping[str, Any]) -> str:
    """Return the SHA-256 over what of a manifest, as a table, says what the release is."""
    content = {key: table[key] for key in ("format_version", "facts", "parts")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _said(folder: Path, key: str) -> str:
    """Return what a manifest says under a key; empty where it cannot be read."""
    try:
        return str(json.loads((folder / MANIFEST).read_text(encoding="utf-8"))[key])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return ""


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _link(source: Path, target: Path) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _known_beside(folder: Path) -> str:
    beside = folder if folder.is_dir() else folder.parent
    known = list(published(beside))
    return f"Releases there: {', '.join(known)}." if known else "Write one with `recsys train`."


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
