"""What is shown and what comes of it, over real gRPC: tokens, rejections, kills, a full disk."""

from __future__ import annotations

import io
import math
import resource
import time
from collections.abc import Iterator
from concurrent import futures
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from recsys.experiment.log import open_log
from recsys.retrieval import Retriever
from serving.exposures.tokens import Tokens, key_in
from serving.logs import make_logger
from serving.server import Server
from serving.settings import ServerSettings
from serving.telemetry.reading import read
from tests.e2e.exact_retriever import FINGERPRINT, ExactRetriever
from tests.e2e.test_process import serving
from twintower.client import Client
from twintower.errors import AnswerTooLargeError, EventsNotKeptError, RequestError, UnavailableError
from twintower.types import Event, ExperimentUnit, FeedbackItem, FeedbackKind, Query

EAST = np.array([1, 0], np.float32)
ASKED = Query(vector=EAST)


@contextmanager
def running(
    folder: Path | None, retriever: Any = None, *, max_waiting: int = 1000, **settings: Any
) -> Iterator[tuple[Client, Server]]:
    """A server that logs into a folder ten times a second, and a client of it."""
    log = {"folder": folder, "flush_s": 0.1, "max_waiting": max_waiting, "max_events": 5, "max_event_age_s": 3600}
    server = Server(ServerSettings(port=0, drain_s=5.0, log=log, **settings), make_logger(io.BytesIO()))
    try:
        server.listen()
        server.install(retriever or ExactRetriever())
        with Client(server.address, timeout_s=30.0) as client:
            yield client, server
    finally:
        server.stop()


def click(event_id: str, token: str, **changes: Any) -> Event:
    return Event(event_id, token, "click", **changes)


def test_a_list_is_logged_with_its_token_and_what_came_of_it_comes_beside_it(tmp_path):
    with running(tmp_path) as (client, _):
        shown = client.nearest_items(ASKED, 2, unit=ExperimentUnit("Zoë", "s1"))
        asked_by_nobody = client.nearest_items(ASKED, 3)
        events = [click("e1", shown.attribution_token, item_id="c", value=2.5), click("e2", shown.attribution_token)]
        told = client.record_events(events)
    assert (told.recorded_count, told.duplicate_count, told.rejected) == (2, 0, ())
    log = open_log(tmp_path)
    first, second = log.exposures.collect().to_dicts()
    assert first["token"] == shown.attribution_token
    assert (first["user_id"], first["session_id"], first["release"]) == ("Zoë", "s1", FINGERPRINT)
    assert (tuple(first["item_ids"]), first["scores"]) == (shown.item_ids, pytest.approx(shown.scores.tolist()))
    assert (second["token"], second["user_id"], len(second["item_ids"])) == (asked_by_nobody.attribution_token, None, 3)
    e1, e2 = log.events.collect().to_dicts()
    assert (e1["event_id"], e1["token"], e1["item_id"], e1["value"]) == ("e1", shown.attribution_token, "c", 2.5)
    assert (e2["item_id"], e2["value"]) == (None, None)
    assert timedelta(0) <= e2["timestamp"] - first["timestamp"] < timedelta(seconds=30)


def test_each_event_stands_for_itself(tmp_path):
    now = datetime.now(UTC)
    with running(tmp_path) as (client, _):
        token = client.nearest_items(ASKED, 2).attribution_token
        cases = {
            "INVALID": [
                click("", token), click("x" * 257, token), Event("e", token, ""), click("e", token, value=math.nan),
                click("e", token, value=math.inf), click("e", token, item_id="x" * 257),
            ],
            "UNKNOWN_TOKEN": [
                click("e", ""), click("e", "nonsense"), click("e", token[:-1]), click("e", token.upper()),
                click("e", ("1" if token[0] == "0" else "0") + token[1:]),
            ],
            "BEFORE_EXPOSURE": [click("e", token, time=now - timedelta(seconds=302))],
            "IN_FUTURE": [click("e", token, time=now + timedelta(seconds=330))],
        }  # fmt: skip
        for reason, events in cases.items():
            for event in events:
                told = client.record_events([click("good", token), event, click("good", token)])
                (rejected,) = told.rejected
                assert (rejected.place, rejected.reason) == (1, reason), event
                assert rejected.message.startswith("events[1].")
                assert token not in rejected.message
        assert told.duplicate_count == 2
        for skew_s in (-298, 0, 298):
            told = client.record_events([click(f"{skew_s}", token, time=now + timedelta(seconds=skew_s))])
            assert told.recorded_count == 1
        with pytest.raises(RequestError, match="events: got 0, expected 1 to 5"):
            client.record_events([])
        with pytest.raises(RequestError, match="events: got 6, expected 1 to 5"):
            client.record_events([click("e", token)] * 6)
    assert sorted(open_log(tmp_path).events.collect()["event_id"]) == ["-298", "0", "298", "good"]


def test_an_event_that_comes_too_late_is_told_so(tmp_path):
    with running(tmp_path) as (client, _):
        an_hour_ago_us = (time.time_ns() // 1000) - 3_700_000_000
        token = Tokens(key_in(tmp_path)).new(an_hour_ago_us)
        (rejected,) = client.record_events([click("e", token)]).rejected
    assert (rejected.reason, rejected.message) == (
        "TOO_LATE",
        "events[0].event_time: got 3700 s after its list was shown, expected at most 3600 s.",
    )


def test_an_event_sent_again_counts_once_in_every_process(tmp_path):
    with running(tmp_path) as (one, _), running(tmp_path) as (other, _):
        token = one.nearest_items(ASKED, 2).attribution_token
        assert one.record_events([click("e", token), click("e", token)]).recorded_count == 1
        assert one.record_events([click("e", token)]).duplicate_count == 1
        # The other process knows the token, but not the event: the reader of the log tells it.
        assert other.record_events([click("e", token)]).recorded_count == 1
    assert open_log(tmp_path).events.collect()["event_id"].to_list() == ["e", "e"]


def test_a_server_without_a_log_gives_no_tokens_and_takes_no_events():
    with running(None) as (client, _):
        assert client.nearest_items(ASKED, 2).attribution_token is None
        with pytest.raises(EventsNotKeptError, match=r"log\.folder"):
            client.record_events([click("e", "t")])


def test_every_round_of_feedback_is_a_list_of_its_own(block_release, tmp_path):
    with running(tmp_path, Retriever.load(block_release.folder)) as (client, _):
        liked = FeedbackItem("item-ü3", FeedbackKind.LIKED)
        told = client.reformulate(Query(entity_id="user 1"), 3, [liked], unit=ExperimentUnit("user 1"))
        with client.session(Query(entity_id="user 1"), 3, unit=ExperimentUnit("user 1", "s")) as session:
            rounds = [session.reformulate(), session.reformulate([liked])]
    tokens = [each.ranking.attribution_token for each in (told, *rounds)]
    rows = open_log(tmp_path).exposures.collect()
    assert rows["token"].to_list() == tokens
    assert len(set(tokens)) == len(tokens)
    assert set(rows["reformulator"]) == {told.reformulator}
    assert rows["session_id"].to_list() == [None, *["s"] * len(rounds)]


def test_a_kill_loses_the_unflushed_second_of_exposures_and_no_acknowledged_event(block_release, tmp_path):
    shown: list[tuple[float, str]] = []
    acknowledged: list[str] = []
    options = ("--set", f"log.folder={tmp_path / 'kept'}", "--set", "log.flush_s=0.5")
    with serving(block_release, tmp_path, *options) as (process, client):

        def show(caller: int) -> None:
            place = 0
            while True:
                try:
                    token = client.nearest_items(Query(entity_id="user 1"), 3).attribution_token
                    shown.append((time.monotonic(), token))
                    event_id = f"{caller}-{place}"
                    if client.record_events([click(event_id, token)]).recorded_count:
                        acknowledged.append(event_id)
                    place += 1
                except UnavailableError:
                    return

        with futures.ThreadPoolExecutor(3) as pool:
            callers = [pool.submit(show, caller) for caller in range(3)]
            time.sleep(2.5)
            process.kill()
            killed = time.monotonic()
            for caller in callers:
                caller.result()
    log = open_log(tmp_path / "kept")
    kept = set(log.exposures.collect()["token"])
    # Half a second between two flushes, and as much again for a machine that is busy.
    lost = [killed - at for at, token in shown if token not in kept]
    assert len(kept) > 50
    assert max(lost, default=0.0) < 1.0
    assert set(acknowledged) <= set(log.events.collect()["event_id"])
    assert len(acknowledged) > 50


def test_calls_go_on_while_the_disk_is_full_and_the_log_goes_on_afterwards(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with running(tmp_path, max_waiting=10, telemetry={"metrics_port": 0}) as (client, server):
        token = client.nearest_items(ASKED, 2).attribution_token
        client.record_events([click("e0", token)])
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, before[1]))
        try:
            answers = []
            while all(answers[-1:]) or len(answers) < 12:
                answers.append(client.nearest_items(ASKED, 2).attribution_token)
            told = client.record_events([click("e1", token), click("e1", token)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        assert [(each.place, each.reason) for each in told.rejected] == [(0, "NOT_WRITTEN")]
        # when there is room again: the event is taken, and lists are
        assert client.record_events([click("e1", token)]).recorded_count == 1
        while not answers[-1]:
            time.sleep(0.05)
            answers.append(client.nearest_items(ASKED, 2).attribution_token)
        while not read(server.observation.metrics_address).total("recsys_log_rows_total", outcome="dropped"):
            time.sleep(0.1)  # metrics look once a second
    log = open_log(tmp_path)
    kept = set(log.exposures.collect()["token"])
    assert kept == {token, *(given for given in answers if given)}
    assert log.events.collect()["event_id"].to_list() == ["e0", "e1"]
    assert log.torn_segments == 0
    # every list that got no token is told of
    assert log.dropped_exposures == answers.count(None)


def test_a_list_that_is_too_large_to_be_sent_does_not_count_as_shown(block_release, tmp_path):
    asked, liked = Query(entity_id="user 1"), [FeedbackItem("item-ü3", FeedbackKind.LIKED)]
    with running(tmp_path, Retriever(block_release), max_answer_bytes=1024) as (client, _):
        for ask in (client.nearest_items, lambda *how, **more: client.reformulate(*how, liked, **more)):
            with pytest.raises(AnswerTooLargeError):
                ask(asked, 40, include_metadata=True)
        sent = client.nearest_items(asked, 2)
    assert open_log(tmp_path).exposures.collect()["token"].to_list() == [sent.attribution_token]
