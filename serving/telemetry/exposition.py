"""The port that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from serving.settings import TelemetrySettings, address
from twintower.errors import SettingError, describe

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry


class Exposition(NamedTuple):
    """A port that answers `GET /metrics`.

    Attributes:
        address: host and the real port.
        close: ends it.
    """

    address: str
    close: Callable[[], None]


def expose(registry: CollectorRegistry, settings: TelemetrySettings) -> Exposition:
    """Show a registry at `metrics_host` and `metrics_port`.

    Raises:
        SettingError: the address is taken, or not one of this machine.
    """
    from prometheus_client import start_http_server

    wanted = address(settings.metrics_host, settings.metrics_port)
    try:
        server, thread = start_http_server(settings.metrics_port, settings.metrics_host, registry)
    except OSError as error:
        advice = f"The system says: {error.strerror}. Take another port (0 for a free one)."
        raise SettingError(
            describe("server.telemetry.metrics_port", wanted, "an address to listen on that is free", advice)
        ) from None

    def close() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return Exposition(address(settings.metrics_host, server.server_port), close)
