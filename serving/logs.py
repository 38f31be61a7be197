"""Log lines: one JSON object a line."""

from __future__ import annotations

import json
from typing import Any, BinaryIO

import structlog


def make_logger(file: BinaryIO) -> Any:
    """Return a logger that writes to a binary stream and needs no global configuration.

    Each line has `timestamp` (ISO 8601, UTC), `level`, `event`, the fields of the call, and what was bound with
    `structlog.contextvars` (the request id and release of the call being worked on).
    """
    return structlog.wrap_logger(
        structlog.BytesLogger(file),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _as_bytes,
        ],
        wrapper_class=structlog.make_filtering_bound_logger("info"),
        cache_logger_on_first_use=True,
    )


def _as_bytes(_logger: Any, _method: str, event: dict[str, Any]) -> bytes:
    return json.dumps(event, ensure_ascii=False, default=str).encode()
