"""OpenTelemetry spans: one for the call, and one for each of its stages."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import grpc
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from recsys.stages import watch
from serving.logs import Logger
from serving.telemetry import calls

EXPORT_S = 2.0
"""Time that one export may take, also the last one at the end of the server."""
SERVERS_FAULT = ("UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS")
"""Codes of failed server spans, as OpenTelemetry's conventions have them; others are the caller's."""


class Tracing:
    """Spans of sampled calls, sent by a thread of their own.

    A caller that sends `traceparent` decides by it whether its call is traced; of other calls a share is.

    Args:
        endpoint: of an OTLP collector, such as `http://127.0.0.1:4317`; https is verified.
        rate: share of calls without `traceparent` that are traced, 0..1.
        logger: gets what OpenTelemetry has to say, such as that nobody collects.
    """

    def __init__(self, endpoint: str, rate: float, logger: Logger) -> None:
        self._complaints = _Complaints(logger)
        logging.getLogger("opentelemetry").addHandler(self._complaints)
        self._provider = TracerProvider(
            sampler=ParentBased(TraceIdRatioBased(rate)),
            resource=Resource.create({"service.name": "recsys"}),
            shutdown_on_exit=False,
        )
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=endpoint.startswith("http://"), timeout=EXPORT_S)
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("serving")
        self._propagator = TraceContextTextMapPropagator()

    @contextmanager
    def around(self, method: str, context: grpc.ServicerContext) -> Iterator[None]:
        """The block of a call: a span of it, and of the stages within."""
        sent = {key: value for key, value in context.invocation_metadata() if key in ("traceparent", "tracestate")}
        span = self._tracer.start_span(method[1:], self._propagator.extract(sent), SpanKind.SERVER)
        if not span.is_recording():
            yield
            return
        watch(self._stages_of(span))
        call = calls.current()
        call.trace_id = f"{span.get_span_context().trace_id:032x}"
        try:
            yield
        finally:
            code = calls.code_of(context)
            service, _, rpc = method[1:].rpartition("/")
            span.set_attributes(
                {
                    "rpc.system": "grpc",
                    "rpc.service": service,
                    "rpc.method": rpc,
                    "rpc.grpc.status_code": grpc.StatusCode[code].value[0],
                    "recsys.plan": call.plan,
                    "recsys.release": call.release.name if call.release is not None else "",
                    "recsys.request_id": call.request_id,
                }
            )
            if code in SERVERS_FAULT:
                span.set_status(Status(StatusCode.ERROR, code))
            span.end()

    def close(self) -> None:
        """Send what is left, for at most `EXPORT_S`."""
        self._provider.shutdown()
        logging.getLogger("opentelemetry").removeHandler(self._complaints)

    def _stages_of(self, span: Span) -> Callable[[str], AbstractContextManager[Span]]:
        parent = set_span_in_context(span)
        # Without what was raised: its text may quote the request.
        return lambda name: self._tracer.start_as_current_span(
            name, parent, record_exception=False, set_status_on_exception=False
        )


class _Complaints(logging.Handler):
    def __init__(self, logger: Logger) -> None:
        super().__init__(logging.WARNING)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        self._logger.warning("tracing", reason=record.getMessage())
