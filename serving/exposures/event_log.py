"""What came of what was shown: each event is checked by itself, and on disk before it is acknowledged."""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Mapping, Sequence

from recsys.cancellation import checked
from serving.exposures import columns
from serving.exposures.columns import Outcome
from serving.exposures.reported import ReportedItems
from serving.exposures.segments import Segments
from serving.exposures.tokens import Tokens
from serving.settings import LogSettings
from twintower.errors import describe, verbatim
from twintower.types import RecordedEvents, RejectedEvent

MAX_CHARACTERS = 256
"""Of an event's id, kind and item id."""
SECOND_US = 1_000_000
DUPLICATE, RECORDED = "duplicate", "recorded"


class EventLog:
    """Takes events. Safe for calls from several threads.

    Events are written at once and not with the next flush: a call would hold one of the few threads all the while, and
    an append takes less time than the call around it.

    Args:
        tokens: knows the tokens of this log.
        segments: where rows go.
        reported: remembers the items of events that were recorded.
        settings: the limits.
    """

    def __init__(self, tokens: Tokens, segments: Segments, reported: ReportedItems, settings: LogSettings) -> None:
        self._tokens, self._segments, self._reported, self._settings = tokens, segments, reported, settings
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    @property
    def counts(self) -> Mapping[str, int]:
        """How many events were `recorded`, were a `duplicate`, or were rejected, by the reason in small letters."""
        return self._counts

    def record(self, outcomes: Sequence[Outcome]) -> RecordedEvents:
        """Write the events that keep the rules and are not known; the others come back."""
        now_us, rejected, sound = time.time_ns() // 1000, [], {}
        for place, outcome in enumerate(checked(outcomes)):
            fault = self._fault(outcome, now_us)
            if fault is None:
                sound[place] = outcome
            else:
                reason, field, got, expected = fault
                rejected.append(RejectedEvent(place, reason, describe(_at(place, field), verbatim(got), expected)))
        with self._lock:
            fresh: dict[str, int] = {}
            for place, outcome in sound.items():
                if outcome.event_id not in self._known:
                    fresh.setdefault(outcome.event_id, place)
            duplicates = len(sound) - len(fresh)
            if fresh and not self._write([sound[place] for place in fresh.values()]):
                rejected += [RejectedEvent(place, "NOT_WRITTEN", NOT_WRITTEN) for place in fresh.values()]
                fresh = {}
            self._counts.update(each.reason.lower() for each in rejected)
            self._counts.update({RECORDED: len(fresh), DUPLICATE: duplicates})
        return RecordedEvents(len(fresh), duplicates, tuple(sorted(rejected, key=lambda each: each.place)))

    def _write(self, rows: Sequence[Outcome]) -> bool:
        try:
            self._segments.write(columns.events(rows))
        except OSError:
            return False
        self._reported.add((row.token, row.kind, row.item_id) for row in rows)
        self._known.update((row.event_id, None) for row in rows)
        while len(self._known) > self._settings.max_known_events:
            self._known.popitem(last=False)
        return True

    def _fault(self, outcome: Outcome, now_us: int) -> tuple[str, str, str, str] | None:
        """Return reason, field, what it is and what it should be, of the first rule that is broken; no ids."""
        for field, text, least in (
            ("event_id", outcome.event_id, 1), ("kind", outcome.kind, 1), ("item_id", outcome.item_id, 0),
        ):  # fmt: skip
            if not least <= len(text) <= MAX_CHARACTERS:
                return "INVALID", field, f"{len(text)} characters", f"{least} to {MAX_CHARACTERS}"
        if outcome.value is not None and not math.isfinite(outcome.value):
            return "INVALID", "value", str(outcome.value), "a finite number"
        attribution = self._tokens.read(outcome.token)
        if attribution is None:
            return "UNKNOWN_TOKEN", "attribution_token", "one that no server of this log gave", "that of an answer"
        limits = self._settings
        early_s = (attribution.time_us - outcome.time_us) / SECOND_US
        if early_s > limits.max_clock_skew_s:
            told = f"{early_s:.0f} s before its list was shown"
            return "BEFORE_EXPOSURE", "event_time", told, f"at most {limits.max_clock_skew_s:g} s"
        ahead_s = (outcome.time_us - now_us) / SECOND_US
        if ahead_s > limits.max_clock_skew_s:
            return "IN_FUTURE", "event_time", f"{ahead_s:.0f} s from now", f"at most {limits.max_clock_skew_s:g} s"
        if -early_s > limits.max_event_age_s:
            told = f"{-early_s:.0f} s after its list was shown"
            return "TOO_LATE", "event_time", told, f"at most {limits.max_event_age_s:g} s"
        return None


NOT_WRITTEN = "the log has no room now. Send this event again later."


def _at(place: int, field: str) -> str:
    return f"events[{place}].{field}"
