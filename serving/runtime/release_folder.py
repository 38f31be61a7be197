"""Load releases from a folder beside those that answer, and keep up with what the folder says."""

from __future__ import annotations

import threading
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from recsys.errors import ReleaseError
from recsys.export.release import LABELS, MANIFEST, find, newest, published, read_labels
from recsys.files import stamp
from recsys.retrieval import Retriever
from serving.runtime.catalogue_log import CatalogueLog
from serving.runtime.live_catalogue import LiveCatalogue
from serving.runtime.orders import Order, Orders
from serving.runtime.releases import STABLE, Held, Refused, Releases
from serving.settings import ServerSettings
from twintower.errors import MissingError, ReleaseRefusedError, RequestError, TwintowerError, describe, unknown


class ReleaseFolder:
    """A folder of releases, or one release, that a server answers from. Safe for calls from several threads.

    Which release stands under a label is what `labels.json` says, for `stable` without such a label the newest
    release; what an operator ordered goes first (see `Order`). A link to a release is that release. With
    `signature.keys`, no release is loaded that none of them has signed.

    Args:
        folder: a release, or a folder of releases.
        releases: gets what is loaded.
        settings: of the server.
        logger: a structlog logger.
        name: a label, release name or fingerprint that is served as `stable` instead.

    Raises:
        DataError: the log of changes to the catalogue is damaged.
        StorageError: it cannot be written.
    """

    def __init__(
        self, folder: Path, releases: Releases, settings: ServerSettings, logger: Any, *, name: str = ""
    ) -> None:
        self.releases = releases
        self._root, self._name = folder.resolve(), name
        self._settings, self._signed_by, self._logger = settings.releases, settings.signature.keys, logger
        self.log = CatalogueLog(settings.catalogue.folder) if settings.catalogue.folder else None
        self._index_above = settings.catalogue.index_above
        self._orders = Orders(settings.releases.orders_file)
        self._loading = threading.Lock()
        self._tried: dict[str, str] = {}
        self._complaint = ""
        self._stopping = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="watch-releases", daemon=True)

    def said(self) -> Mapping[str, Path]:
        """Return what `labelled` does of this folder."""
        return labelled(self._root, self._settings.labels, self._name)

    def load(self) -> None:
        """Load what the folder has under each label, before anything answers.

        Raises:
            MissingError: there is no release for `stable`, or not the one that was ordered or labelled.
            ReleaseError: that of `stable` is damaged, mixed, or does not answer its golden queries; one of another
                label is refused and logged.
        """
        with self._loading:
            for label, (folder, rolled_back) in self._wanted().items():
                if label == STABLE:
                    if not (folder / MANIFEST).is_file():
                        said_by = self._orders.path if label in self._orders.read() else self._root / LABELS
                        expected, advice = f"a release in {self._root}", "Put it back, or name another one there."
                        raise MissingError(describe(f"{said_by}: {label}", folder.name, expected, advice))
                    self.releases.install(self._loaded(folder), label, rolled_back=rolled_back)
                else:
                    self._follow(label, folder, rolled_back=rolled_back)

    def start(self) -> None:
        """Look at the folder again and again in the background, where there is something to see."""
        if self._settings.watch_s > 0 and not (self._root / MANIFEST).is_file():
            self._watcher.start()

    def stop(self) -> None:
        """Look no more; a release that is just being loaded is not waited for."""
        self._stopping.set()

    def look(self) -> None:
        """Follow what the folder says now: load, refuse or drop. A refused release is tried again when it changed."""
        with self._loading:
            try:
                wanted = self._wanted()
            except (TwintowerError, OSError) as error:
                if str(error) != self._complaint:
                    self._logger.warning("folder of releases unusable", reason=str(error))
                self._complaint = str(error)
                return
            self._complaint = ""
            for label, (folder, rolled_back) in wanted.items():
                self._follow(label, folder, rolled_back=rolled_back)
            for label in self.releases.holding.answering.keys() - wanted.keys():
                self.releases.drop(label)
                self._logger.info("label dropped", label=label)

    def reload(self, label: str, release: str) -> None:
        """Load a release and put it under a label.

        Args:
            label: empty means `stable`.
            release: its name or fingerprint; empty means what the folder has under the label, or its newest.

        Raises:
            RequestError: this server does not serve such a label.
            MissingError: no such release.
            ReleaseRefusedError: it is damaged; nothing changed.
        """
        label = self._served(label)
        with self._loading:
            said = self.said()
            folder = find(self._root, release) if release else said.get(label) or newest(self._root)
            self._put(label, folder)
            over = said[label].name if label in said else ""
            self._orders.write(label, None if folder.name == over else Order(folder.name, over))

    def roll_back(self, label: str) -> None:
        """Put the release that a label had before back under it, whatever the folder says until `reload`.

        Args:
            label: empty means `stable`.

        Raises:
            RequestError: this server does not serve such a label.
            MissingError: no release before is kept.
        """
        label = self._served(label)
        with self._loading:
            held = self.releases.roll_back(label)
            self._orders.write(label, Order(held.name, rolled_back=True))
        self._logger.info("release rolled back", label=label, release=held.name, fingerprint=held.fingerprint)

    def hold(self, names: Collection[str]) -> None:
        """Hold the releases of these names for the arms of experiments, and none else for them.

        Args:
            names: of releases; labels that are served, and what is neither, are passed over.

        Raises:
            ReleaseError: one is damaged; what was held before still is.
        """
        with self._loading:
            held = self.releases.holding.named
            known = self._published()
            named = {
                name: self._loaded_for_arm(known[name]) if name in known else held[name]
                for name in sorted(set(names) & (held.keys() | known.keys()))
            }
            if named != held:
                self.releases.name(named)

    def state_of(self, names: Collection[str]) -> str:
        """Return a digest that changes when one of the releases of these names comes, goes or changes."""
        return stamp(folder for name, folder in self._published().items() if name in names)

    def _published(self) -> Mapping[str, Path]:
        if (self._root / MANIFEST).is_file():
            return {self._root.name: self._root}
        return published(self._root)

    def _loaded_for_arm(self, folder: Path) -> Held:
        try:
            return self._loaded(folder)
        except Exception as error:
            raise ReleaseError(self._refused(error, release=folder.name)) from None

    def _watch(self) -> None:
        while not self._stopping.wait(self._settings.watch_s):
            try:
                self.look()
            except Exception as error:
                self._logger.error("looking at the folder of releases failed", exc_info=error)

    def _wanted(self) -> dict[str, tuple[Path, bool]]:
        """Return the folder of the release that each label should have, and whether it was rolled back to it."""
        orders = self._orders.read()  # first: what the folder says afterwards is not older than an order over it
        said = self.said()
        wanted = {label: (folder, False) for label, folder in said.items()}
        for label, order in orders.items():
            if order.holds(said[label].name if label in said else ""):
                folders = {folder.name: folder for folder in self._published().values()}
                wanted[label] = (folders.get(order.release, self._root / order.release), order.rolled_back)
            else:
                self._orders.write(label, None, over=order)
        return wanted

    def _follow(self, label: str, folder: Path, *, rolled_back: bool) -> None:
        holding = self.releases.holding
        held = holding.answering.get(label)
        if held is not None and held.name == folder.name and rolled_back == (label in holding.rolled_back):
            return
        # Taken before the attempt: what changes during it is looked at again.
        state = stamp([folder])
        if self._tried.get(label) == f"{folder.name} {state}":
            return
        self._tried[label] = f"{folder.name} {state}"
        try:
            self._put(label, folder, rolled_back=rolled_back)
        except ReleaseRefusedError:
            return
        del self._tried[label]

    def _put(self, label: str, folder: Path, *, rolled_back: bool = False) -> None:
        try:
            held = self._loaded(folder)
        except Exception as error:
            reason = self._refused(error, label=label, release=folder.name)
            self.releases.refuse(Refused(folder.name, label, reason))
            raise ReleaseRefusedError(f"{folder.name} was refused under {label!r}: {reason}", folder.name) from None
        self.releases.install(held, label, rolled_back=rolled_back)
        told = {"label": label, "release": held.name, "fingerprint": held.fingerprint, "load_s": held.load_s}
        self._logger.info("release loaded", **told)

    def _refused(self, error: Exception, **what: str) -> str:
        """Log that a release was not loaded, and return why in words for operators."""
        expected = isinstance(error, TwintowerError)
        reason = str(error) if expected else "it could not be loaded; the server's log has more."
        self._logger.warning("release refused", **what, reason=reason, **({} if expected else {"exc_info": error}))
        return reason

    def _loaded(self, folder: Path) -> Held:
        """Return the release of a folder, its golden queries answered; one that is held already as it is."""
        for held in self.releases.holding:
            if held.name == folder.name:
                return held
        started = time.perf_counter()
        retriever = Retriever.load(folder, signed_by=self._signed_by)
        retriever.warm()
        live = None if self.log is None else LiveCatalogue(retriever, self.log, self._index_above)
        return Held(retriever, live, load_s=round(time.perf_counter() - started, 3))

    def _served(self, label: str) -> str:
        label = label or STABLE
        known = {STABLE, *self._settings.labels}
        if label not in known:
            raise RequestError("label", unknown("label that this server serves", label, known))
        return label


def labelled(root: Path, labels: Sequence[str], name: str = "") -> Mapping[str, Path]:
    """Return the release's folder that a folder has under each label that is served, links followed.

    Args:
        root: a release, or a folder of releases.
        labels: that are served, besides `stable`.
        name: a label, release name or fingerprint that is served as `stable` instead.

    Raises:
        MissingError: there is no release for `stable`.
        ReleaseError: the file of labels is broken.
    """
    if (root / MANIFEST).is_file():
        return {STABLE: find(root, name)}
    known = read_labels(root)
    said = {label: (root / known[label]).resolve() for label in labels if label in known}
    if name or STABLE not in said:
        said[STABLE] = find(root, name) if name else newest(root)
    return said
