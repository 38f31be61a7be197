"""`twintower.v1.EventService`: what came of the lists that were shown."""

from __future__ import annotations

import time

import grpc

from recsys.cancellation import checked
from serving.exposures.columns import Outcome
from serving.exposures.event_log import EventLog
from twintower.errors import EventsNotKeptError, RequestError
from twintower.v1 import event_service_pb2 as pb
from twintower.v1 import event_service_pb2_grpc as pb_grpc


class EventServicer(pb_grpc.EventServiceServicer):
    """Writes events to the log.

    Args:
        log: takes events; None where the server keeps none.
        max_events: most in one call.
    """

    def __init__(self, log: EventLog | None, max_events: int) -> None:
        self._log, self._max_events = log, max_events

    def RecordEvents(self, request: pb.RecordEventsRequest, context: grpc.ServicerContext) -> pb.RecordEventsResponse:
        """Record events, each by itself."""
        if self._log is None:
            raise EventsNotKeptError("this server keeps no events: it has no log.folder.")
        if not 1 <= len(request.events) <= self._max_events:
            raise RequestError("events", f"got {len(request.events)}, expected 1 to {self._max_events}")
        now_us = time.time_ns() // 1000
        recorded = self._log.record([_outcome(event, now_us) for event in checked(request.events)])
        return pb.RecordEventsResponse(
            recorded_count=recorded.recorded_count,
            duplicate_count=recorded.duplicate_count,
            rejected=[
                pb.RejectedEvent(place=each.place, reason=f"EVENT_REJECTION_{each.reason}", message=each.message)
                for each in recorded.rejected
            ],
        )


def _outcome(event: pb.Event, now_us: int) -> Outcome:
    moment = event.event_time
    return Outcome(
        event_id=event.event_id,
        token=event.attribution_token,
        kind=event.kind,
        item_id=event.item_id,
        value=event.value if event.HasField("value") else None,
        time_us=moment.seconds * 1_000_000 + moment.nanos // 1000 if event.HasField("event_time") else now_us,
    )
