"""The release that answers at this moment."""

from __future__ import annotations

from recsys.errors import describe
from recsys.retrieval import Retriever
from serving.errors import ReleasePinError, UnavailableError

SHORTEST_PREFIX = 8
RETRY_AFTER_S = 1.0


class CurrentRelease:
    """Nothing while a server starts, then one retriever. Safe for calls from several threads."""

    def __init__(self, retriever: Retriever | None = None) -> None:
        self._retriever = retriever

    def install(self, retriever: Retriever) -> None:
        """Answer from this retriever from now on."""
        self._retriever = retriever

    def retriever(self, pin: str = "") -> Retriever:
        """Return the retriever; one call asks once, so that all of its answer comes from one release.

        Args:
            pin: the only release that will do: its name, its fingerprint, or at least 8 leading digits of that; empty
                for any.

        Raises:
            UnavailableError: nothing is loaded yet.
            ReleasePinError: another release is served.
        """
        retriever = self._retriever
        if retriever is None:
            raise UnavailableError("the release is still being loaded.", RETRY_AFTER_S)
        if pin and not matches(pin, retriever.release.name, retriever.release.fingerprint):
            served = f"{retriever.release.name} ({retriever.release.fingerprint})"
            advice = f"{served} is served: leave the pin out, or ask a server of the other release."
            raise ReleasePinError(describe("release_pin", pin, "the release that is served", advice), pin)
        return retriever


def matches(pin: str, name: str, fingerprint: str) -> bool:
    """Return whether a pin means the release of this name and fingerprint."""
    return pin == name or (len(pin) >= SHORTEST_PREFIX and fingerprint.startswith(pin.lower()))
