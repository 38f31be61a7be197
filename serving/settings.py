"""Where a server listens and what it allows."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from recsys import config
from recsys.experiment.plan import SKEW_TOLERANCE_S
from recsys.registry import parse, settings
from twintower.errors import SettingError, describe


@settings()
class TelemetrySettings:
    """What a server tells of itself.

    Attributes:
        access_log_rate: share of calls that ended well which are logged, 0..1; of the others every one is.
        max_log_lines: log lines that may wait for a slow reader; further ones are dropped and counted.
        metrics_host: address that `/metrics` listens on; the default is reachable from this machine only.
        metrics_port: its TCP port; 0 takes a free one, which is logged; not set: no port.
        metrics_folder: where the worker processes of one server put their figures together, so that one port shows all
            of them; empty it before they start. Not set: the environment's PROMETHEUS_MULTIPROC_DIR, or none.
        recall_rate: share of queries that are searched again exactly to measure recall, 0..1; never takes more than a
            twentieth of one core, and needs metrics.
        traces_endpoint: where spans are sent by OTLP over gRPC, such as http://127.0.0.1:4317; empty: nowhere.
        traces_rate: share of calls without `traceparent` that are traced, 0..1.
    """

    access_log_rate: float = Field(1.0, ge=0, le=1)
    max_log_lines: int = Field(10_000, ge=1)
    metrics_host: str = Field("127.0.0.1", min_length=1)
    metrics_port: int | None = Field(None, ge=0, le=65535)
    metrics_folder: Path | None = Field(default_factory=lambda: os.environ.get("PROMETHEUS_MULTIPROC_DIR") or None)
    recall_rate: float = Field(0.01, ge=0, le=1)
    traces_endpoint: str = ""
    traces_rate: float = Field(0.01, ge=0, le=1)

    @field_validator("traces_endpoint")
    @classmethod
    def _an_address(cls, endpoint: str) -> str:
        if endpoint and not endpoint.startswith(("http://", "https://")):
            raise ValueError("an address that begins with http:// or https://, or nothing")
        return endpoint


@settings()
class Tls:
    """How connections are encrypted: not at all without a certificate. Files are PEM, and read again when they change.

    Attributes:
        certificate: the server's certificate, followed by those between it and the authority.
        key: its private key, without a password.
        client_ca: certificates of the authorities whose clients may connect; without it any client may.
    """

    certificate: Path | None = None
    key: Path | None = None
    client_ca: Path | None = None

    @model_validator(mode="after")
    def _whole(self) -> Tls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key together")
        if self.client_ca is not None and self.certificate is None:
            raise ValueError("client_ca only beside certificate and key")
        return self


@settings()
class Auth:
    """Who may call: everybody without a file, and with one only those that it names.

    Attributes:
        file: TOML, see `serving.trust.callers`; read again when it changes.
    """

    file: Path | None = None


@settings()
class ReleaseSettings:
    """Which releases of a folder a server answers from.

    Attributes:
        watch_s: seconds between two looks at the folder; 0 never looks again.
        labels: labels of the folder that are served; each may take the memory of two releases, its own and the one
            before it. `stable` always is.
        orders_file: what operators ordered (ReloadRelease by name, RollBackRelease): shared by the processes of one
            server, and kept through a restart. None: for this process alone, until it ends.
    """

    watch_s: float = Field(2.0, ge=0, allow_inf_nan=False)
    labels: tuple[str, ...] = ("stable", "canary")
    orders_file: Path | None = None


@settings()
class SignatureSettings:
    """Whose releases a server loads: everybody's without a key.

    Attributes:
        keys: PEM files with Ed25519 public keys (`recsys release keygen`); a release that none of them has signed is
            refused, at the start and later. Read again for each release; one that is loaded already stays.
    """

    keys: tuple[Path, ...] = ()


@settings()
class CatalogueSettings:
    """Changes to the items between two releases.

    Attributes:
        folder: holds their log, on a local disk; shared by the processes of one server and by nothing else. None: the
            items are those of the release.
        max_upserts: most items in one UpsertItems.
        max_id_bytes: longest id of an upserted item, in bytes of UTF-8.
        max_deletes: most ids in one DeleteItems.
        compact_bytes: a log of this length is written anew with only the last change of each item, and then again
            whenever it has doubled.
        index_above: upserted items that are searched exactly; more get an index of their own.
    """

    folder: Path | None = None
    max_upserts: int = Field(1000, ge=1)
    max_id_bytes: int = Field(1024, ge=1)
    max_deletes: int = Field(10_000, ge=1)
    compact_bytes: int = Field(16 * 1024 * 1024, ge=1)
    index_above: int = Field(10_000, ge=1)


@settings()
class ExperimentSettings:
    """Which arms of which experiments answer: none without a file.

    Attributes:
        file: TOML, see `recsys.experiment.plan`; read again when it changes and rests: replace it whole, by a rename.
            One that is broken, or whose arms these releases cannot serve, is refused, and the last good one goes on.
        look_s: seconds between two looks at it; 0 never looks again.
    """

    file: Path | None = None
    look_s: float = Field(2.0, ge=0, allow_inf_nan=False)


@settings()
class LogSettings:
    """What is kept of what a server shows and of what comes of it: nothing without a folder.

    Attributes:
        folder: holds `exposures/`, `events/` and the key of the attribution tokens, on a local disk; shared by the
            processes of one server, and by servers whose clients may send events to either. None: nothing is kept.
        flush_s: seconds between two writes of exposures: what a killed process loses.
        max_waiting: lists that may wait to be written; further ones are not logged, and counted.
        segment_bytes: a segment of this length is ended; the next rows begin another.
        segment_s: a segment of this age likewise; only ended ones, and those of dead processes, can be compacted.
        max_events: most events in one RecordEvents.
        max_known_events: ids of events that a process remembers to tell repeats; others are told when the log is read.
        max_event_age_s: seconds after its list was shown in which an event is taken.
        max_clock_skew_s: seconds that a client's clock may be wrong by.
        max_reported_items: items of events that a process remembers as met by their users, for `exclude_seen`; the
            oldest are forgotten first. 0 remembers none.
        reported_kinds: kinds of events that say that the user has met the item; empty: every kind.
    """

    folder: Path | None = None
    flush_s: float = Field(1.0, gt=0, le=60)
    max_waiting: int = Field(50_000, ge=1)
    segment_bytes: int = Field(64 * 1024 * 1024, ge=1)
    segment_s: float = Field(3600.0, gt=0, allow_inf_nan=False)
    max_events: int = Field(1000, ge=1)
    max_known_events: int = Field(100_000, ge=0)
    max_event_age_s: float = Field(7 * 86_400.0, gt=0, allow_inf_nan=False)
    max_clock_skew_s: float = Field(SKEW_TOLERANCE_S, ge=0, allow_inf_nan=False)
    max_reported_items: int = Field(100_000, ge=0)
    reported_kinds: tuple[str, ...] = ()


@settings()
class QueueSettings:
    """What happens where more calls come than can be worked on.

    Attributes:
        max_waiting: calls that may wait for their turn or a thread; one more is RESOURCE_EXHAUSTED.
        hurry_above_waiting: waiting calls from which on searches make a quarter of their effort, and feedback moves
            nothing; such answers are `degraded`.
        hurry_below_s: seconds left until a call's deadline below which it hurries likewise; 0: never.
    """

    max_waiting: int = Field(1000, ge=1)
    hurry_above_waiting: int = Field(500, ge=0)
    hurry_below_s: float = Field(0.002, ge=0, allow_inf_nan=False)


@settings()
class ServerSettings:
    """Settings of one server process.

    Attributes:
        host: address to listen on; the default is reachable from this machine only.
        port: TCP port; 0 takes a free one, which is printed and written to the port file.
        processes: whole servers that share the port, one after the other in the kernel's choice, each with the release
            mapped and the threads below. More than there are cores bring nothing.
        port_is_shared: set for such a process by the one that started it.
        worker_threads: calls that work at the same time beside the short ones, which are answered together: batches,
            queries with filters, diversity, excluded or more than 100 items, with more than 64 KiB of metadata or 1,000
            seen items, requests above 8 KiB, changes of the catalogue. At most one a core, and at least two; long calls
            pause for others every few milliseconds. One more than 48 long calls at a time is RESOURCE_EXHAUSTED.
        drain_s: seconds that running calls get to end after SIGTERM or SIGINT.
        max_k: most items for each query.
        max_batch: most queries in one BatchNearestItems, or vectors in one SearchVectors.
        max_answer_items: most items in one answer, `k` times the queries or vectors; more are INVALID_ARGUMENT.
        max_answer_bytes: most bytes of one answer; a larger one is RESOURCE_EXHAUSTED. gRPC clients take 4 MiB unless
            set otherwise.
        max_ids: most ids in one list of a query (history, item ids, excluded ids).
        max_conditions: most conditions of one query's filter.
        max_filter_values: most values of one condition.
        max_feedback: most items of feedback of one query, in a session of all its rounds together.
        max_depth: most items of feedback that count; the time of learned reformulators grows with its square.
        max_connections: connections that are open at the same time; one more is closed at once.
        max_streams: calls that are open at the same time on one connection; a client waits before it opens more.
        request_s: seconds in which the request of a call must follow its headers, and the first frames of a connection
            its beginning. Until then a call has no thread and no place in the queue.
        max_sessions: sessions that are open at the same time, beside all other calls; each has a thread.
        max_sessions_per_caller: those of one caller; where there is no auth file, of one address.
        max_rounds: most rounds of one session.
        max_session_s: seconds that one session may last, waiting included.
        idle_s: seconds without a message of its caller, or with one that the caller does not take, after which a
            session or another call that stays open is ended.
        max_watches: health watches (grpc.health.v1.Health/Watch) that are open at the same time; each has a thread.
        max_watches_per_caller: those of one address.
        max_feature_bytes: most bytes of one query's feature values, as sent.
        max_message_bytes: largest request; larger ones are refused before they are read.
        queue: calls that wait.
        tls: how connections are encrypted.
        auth: who may call.
        telemetry: what it tells of itself, see [telemetry].
        releases: which releases of a folder are served.
        signature: whose releases are loaded.
        catalogue: changes to their items.
        experiments: which arms answer.
        log: what is kept of what is shown and of what comes of it.
    """

    host: str = Field("127.0.0.1", min_length=1)
    port: int = Field(50051, ge=0, le=65535)
    processes: int = Field(1, ge=1, le=256)
    port_is_shared: bool = False
    worker_threads: int = Field(4, ge=1, le=256)
    drain_s: float = Field(10.0, ge=0, allow_inf_nan=False)
    max_k: int = Field(1000, ge=1)
    max_batch: int = Field(1024, ge=1)
    max_answer_items: int = Field(100_000, ge=1)
    max_answer_bytes: int = Field(16 * 1024 * 1024, ge=1024)
    max_ids: int = Field(10_000, ge=1)
    max_conditions: int = Field(16, ge=0)
    max_filter_values: int = Field(1000, ge=1)
    max_feedback: int = Field(10_000, ge=1)
    max_depth: int = Field(1000, ge=0)
    max_connections: int = Field(10_000, ge=1, le=2**31 - 1)
    max_streams: int = Field(100, ge=1, le=2**31 - 1)
    request_s: float = Field(10.0, gt=0, allow_inf_nan=False)
    max_sessions: int = Field(64, ge=1, le=1024)
    max_sessions_per_caller: int = Field(16, ge=1)
    max_rounds: int = Field(100, ge=1)
    max_session_s: float = Field(600.0, gt=0, allow_inf_nan=False)
    idle_s: float = Field(120.0, gt=0, allow_inf_nan=False)
    max_watches: int = Field(256, ge=1, le=1024)
    max_watches_per_caller: int = Field(16, ge=1)
    max_feature_bytes: int = Field(65_536, ge=1)
    max_message_bytes: int = Field(4 * 1024 * 1024, ge=1024, le=2**31 - 1)
    queue: QueueSettings = Field(default_factory=QueueSettings)
    tls: Tls = Field(default_factory=Tls)
    auth: Auth = Field(default_factory=Auth)
    telemetry: TelemetrySettings = Field(default_factory=TelemetrySettings)
    releases: ReleaseSettings = Field(default_factory=ReleaseSettings)
    signature: SignatureSettings = Field(default_factory=SignatureSettings)
    catalogue: CatalogueSettings = Field(default_factory=CatalogueSettings)
    experiments: ExperimentSettings = Field(default_factory=ExperimentSettings)
    log: LogSettings = Field(default_factory=LogSettings)

    @property
    def address(self) -> str:
        """Host and port as gRPC writes them."""
        return address(self.host, self.port)


def load(
    path: Path | None = None, overrides: Sequence[str] = (), given: Mapping[str, Any] | None = None
) -> ServerSettings:
    """Return the settings of a server: defaults, under those of a file, under those given, under overrides.

    Args:
        path: a TOML file; None for no file.
        overrides: `key=value` or `section.key=value` strings, later ones win.
        given: settings by name.

    Raises:
        SettingError: the file is missing or not TOML, an unknown setting, or a value that breaks a rule.
    """
    if path is not None and not path.is_file():
        raise SettingError(describe("--settings", str(path), "a TOML file of server settings"))
    tables = config.tables_of(path) if path is not None else {}
    return parse(ServerSettings, config.overridden(tables | dict(given or {}), overrides), "server")


def address_taken(settings: ServerSettings) -> SettingError:
    """Return the error of an address that cannot be listened on."""
    advice = "Stop what listens there, or take another port (0 for a free one)."
    return SettingError(describe("server.port", settings.address, "an address to listen on that is free", advice))


def address(host: str, port: int) -> str:
    """Return `host:port`, an IPv6 host in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
