"""Arms over real gRPC: the server follows an experiment file as `recsys experiment assign` reads it."""

from __future__ import annotations

import io
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest

from recsys.experiment import plan as plans
from recsys.experiment.assignment import OUTSIDE, Assigner
from recsys.experiment.interleaving import preferences
from recsys.experiment.log import open_log
from recsys.experiment.slates import policy_of
from recsys.experiment.units import arms_of
from serving.logs import make_logger
from serving.runtime.release_folder import ReleaseFolder
from serving.runtime.releases import Releases
from serving.server import Server
from serving.settings import ServerSettings
from tests.e2e.test_releases import events as told
from tests.e2e.test_releases import promote
from tests.worlds import copy_of
from twintower.client import Client
from twintower.errors import RequestError, SettingError
from twintower.types import Diversity, Event, ExperimentUnit, FeedbackItem, FeedbackKind, Query

ASKED = Query(entity_id="user 3")
USERS = [f"user-{number}" for number in range(500)]
NONE = "experiments = {}"
TWO = """
[experiments.towers]
traffic_rate = {rate}
arms.control = {{ share = 0.5 }}
arms.new = {{ share = 0.5, release = "{release}" }}
overrides = {{ tester = "new" }}
"""

TUNED = """
[experiments.a.arms]
control.share = 0.5
b = {{ share = 0.5, settings = {{ {setting} }} }}
"""


@contextmanager
def serving(
    root: Path, plan: str, log: io.BytesIO | None = None, *, log_folder: Path | None = None, **settings: Any
) -> Iterator[tuple[Client, Server, ReleaseFolder]]:
    """A server that looks at its releases and its experiment file only when the test says so, and a client of it."""
    file = root / "plan.toml"
    file.write_text(plan)
    given = {"releases": {"watch_s": 0}, "experiments": {"file": file, "look_s": 0}, "log": {"folder": log_folder}}
    made = ServerSettings(port=0, drain_s=5.0, **{**given, **settings})
    logger = make_logger(log or io.BytesIO())
    folder = ReleaseFolder(root, Releases(), made, logger)
    server = Server(made, logger, folder)
    try:
        server.listen()
        folder.load()
        server.experiments.load()
        server.ready()
        server.experiments.start()
        with Client(server.address, timeout_s=30.0) as client:
            yield client, server, folder
    finally:
        server.stop()


@pytest.fixture
def root(block_release, other_block_release, tmp_path) -> Path:
    """A folder with both releases, the first one stable, the other under no label."""
    folder = tmp_path / "releases"
    for release in (block_release, other_block_release):
        copy_of(release, folder)
    promote(folder, stable=block_release)
    return folder


def ask(client: Client, user: str = "", session: str = "", **how: Any):
    return client.nearest_items(ASKED, 5, unit=ExperimentUnit(user, session), **how)


def follow(server: Server, root: Path, plan: str) -> None:
    (root / "plan.toml").write_text(plan)
    server.experiments.look()


def test_the_arm_s_release_answers_the_users_that_the_plan_assigns_to_it(root, block_release, other_block_release):
    plan = TWO.format(rate=0.8, release=other_block_release.name)
    with serving(root, plan) as (client, _, _):
        answers = {user: ask(client, user) for user in USERS}
        held = client.releases().releases
    arms = Assigner(plans.load(root / "plan.toml")).arms_of("towers", USERS, datetime.now(UTC))
    assert set(arms) == {"control", "new", OUTSIDE}
    for user, arm in zip(USERS, arms, strict=True):
        answer = answers[user]
        assert answer.arms == ({"towers": arm} if arm else {})
        expected = other_block_release if arm == "new" else block_release
        assert answer.release.fingerprint == expected.fingerprint
    assert [(each.name, each.labels) for each in held] == [
        (block_release.name, ("stable",)),
        (other_block_release.name, ()),
    ]


def test_a_ramp_is_followed_without_a_restart_and_moves_nobody(root, other_block_release):
    users = USERS[:150]
    with serving(root, TWO.format(rate=0.3, release=other_block_release.name)) as (client, server, _):
        before = {user: ask(client, user).arms for user in users}
        follow(server, root, TWO.format(rate=0.9, release=other_block_release.name))
        after = {user: ask(client, user).arms for user in users}
    inside = [user for user in users if before[user]]
    assert {user: after[user] for user in inside} == {user: before[user] for user in inside}
    assert sum(map(bool, after.values())) > 2 * len(inside)


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        ("[experiments", "not TOML"),
        (TWO.format(rate=2, release="stable"), "experiments.towers.traffic_rate: got 2, expected less than"),
        (TWO.format(rate=1, release="lost"), "towers.arms.new: no label that is served, or release named 'lost'"),
        (
            TWO.format(rate=1, release="stable").replace("share = 0.5 }", 'share = 0.5, reformulator = "rochio" }', 1),
            "experiments.towers.arms.control: no reformulator in release",
        ),
        (
            TWO.format(rate=1, release="stable") + "arms.third = { share = 0, settings = {} }",
            "experiments.towers.arms.third.share: got 0",
        ),
        (
            TUNED.format(setting="'index.leaves_to_search' = 3"),
            "experiments.a.arms.b: index.leaves_to_search: no setting of exact search named",
        ),
        (
            TUNED.format(setting="'planner.pool' = 1"),
            "experiments.a.arms.b: planner.pool: got 1, expected greater than or equal to 2",
        ),
    ],
)
def test_a_file_that_cannot_be_served_is_refused_once_and_the_old_one_goes_on(
    root, other_block_release, broken, reason
):
    log = io.BytesIO()
    good = TWO.format(rate=1, release=other_block_release.name)
    with serving(root, good, log) as (client, server, _):
        for _ in range(3):
            follow(server, root, broken)
        (line,) = told(log, "experiments refused, the old ones go on")
        assert reason in line["reason"]
        assert line["file"] == str(root / "plan.toml")
        assert ask(client, "tester").release.name == other_block_release.name
        # when: it is mended
        follow(server, root, good.replace("tester", "somebody"))
        assert ask(client, "somebody").arms == {"towers": "new"}
    assert len(told(log, "experiments accepted")) == 2


def test_a_server_does_not_start_with_a_file_that_it_cannot_serve(root):
    for plan in ("[experiments", TWO.format(rate=1, release="lost")):
        with pytest.raises(SettingError), serving(root, plan):
            pass


def test_a_release_that_comes_later_makes_the_file_good(root, other_block_release):
    shutil.move(root / other_block_release.name, root.parent / "later")
    with serving(root, NONE) as (client, server, _):
        follow(server, root, TWO.format(rate=1, release=other_block_release.name))
        assert ask(client, "tester").arms == {}
        shutil.move(root.parent / "later", root / other_block_release.name)
        server.experiments.look()
        assert ask(client, "tester").release.name == other_block_release.name


def test_a_damaged_release_is_loaded_once_and_again_only_when_it_changed(root, block_release, other_block_release):
    vectors = root / other_block_release.name / "item_embeddings.npy"
    whole = vectors.read_bytes()
    vectors.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    log = io.BytesIO()
    with serving(root, NONE, log) as (client, server, _):
        follow(server, root, TWO.format(rate=1, release=other_block_release.name))
        for _ in range(2):
            server.experiments.look()
        assert len(told(log, "release refused")) == len(told(log, "experiments refused, the old ones go on")) == 1
        assert ask(client, "tester").release.name == block_release.name
        vectors.write_bytes(whole)
        server.experiments.look()
        assert ask(client, "tester").release.name == other_block_release.name


def test_a_file_that_was_refused_is_not_tried_again_as_long_as_nothing_changes(root, other_block_release):
    plan = TWO.format(rate=1, release=other_block_release.name).replace(
        "release =", 'reformulator = "rochio", release ='
    )
    with serving(root, NONE) as (client, server, folder):
        changes = []
        folder.releases.tell(lambda before, after: changes.append(len(after.named)))
        for _ in range(3):
            follow(server, root, plan)
        assert changes == [1, 0]  # loaded once to be looked at, and let go
        follow(server, root, plan.replace("rochio", "rocchio"))
        assert ask(client, "tester").release.name == other_block_release.name


def test_a_release_is_let_go_when_no_arm_names_it_any_more(root, block_release, other_block_release):
    with serving(root, TWO.format(rate=1, release=other_block_release.name)) as (client, server, _):
        assert len(client.releases().releases) == 2
        follow(server, root, NONE)
        assert [each.name for each in client.releases().releases] == [block_release.name]
        assert ask(client, "tester").arms == {}


def test_a_label_that_goes_leaves_its_users_outside_and_is_told_once(root, block_release, other_block_release):
    promote(root, stable=block_release, canary=other_block_release)
    log = io.BytesIO()
    with serving(root, TWO.format(rate=1, release="canary"), log, telemetry={"metrics_port": 0}) as (
        client,
        server,
        folder,
    ):
        assert ask(client, "tester").release.name == other_block_release.name
        promote(root, stable=block_release)
        folder.look()
        for _ in range(2):
            answer = ask(client, "tester")
            assert (answer.arms, answer.release.name) == ({}, block_release.name)
        shown = urlopen(f"http://{server.observation.metrics_address}/metrics").read().decode()
    assert 'recsys_experiment_requests_total{arm="new",experiment="towers"} 1.0' in shown
    assert "recsys_experiment_requests_not_treated_total 2.0" in shown
    assert 'recsys_experiment_plans_total{result="accepted"} 1.0' in shown
    (line,) = told(log, "arms not served, answered as outside of experiments")
    assert line["arms"] == {"towers": "new"}


def test_a_request_that_names_its_release_or_nobody_is_in_no_experiment(root, block_release, other_block_release):
    with serving(root, TWO.format(rate=1, release=other_block_release.name)) as (client, _, _):
        assert ask(client, "tester").arms == {"towers": "new"}
        for how in ({"release_label": "stable"}, {"release_pin": block_release.name}):
            answer = ask(client, "tester", **how)
            assert (answer.arms, answer.release.name) == ({}, block_release.name)
        assert ask(client).arms == client.nearest_items(ASKED, 5).arms == {}


def test_who_asks_has_an_id_and_not_a_book(root):
    with serving(root, NONE) as (client, _, _):
        assert ask(client, "ü" * 256).item_ids
        with pytest.raises(RequestError, match=r"unit\.user_id: got 257 letters, expected at most 256"):
            ask(client, "ü" * 257)
        with pytest.raises(RequestError, match=r"unit\.session_id: got 257 letters"):
            client.reformulate(ASKED, 5, unit=ExperimentUnit("u", "s" * 257))


def test_a_release_that_is_held_for_an_arm_stays_when_its_folder_goes(root, block_release, other_block_release):
    plan = TWO.format(rate=1, release=other_block_release.name)
    with serving(root, plan) as (client, server, _):
        shutil.rmtree(root / other_block_release.name)
        follow(server, root, "[experiments")
        follow(server, root, plan.replace("rate = 1", "rate = 0.5"))
        assert ask(client, "tester").release.name == other_block_release.name


def test_the_holdout_is_in_none_and_sessions_are_units_too(root, other_block_release):
    plan = "[holdout]\nrate = 0.5\n" + TWO.format(rate=1, release=other_block_release.name)
    plan += '[experiments.pace]\nlayer = "pace"\nunit = "session"\narms.control.share = 0.5\narms.b.share = 0.5\n'
    with serving(root, plan) as (client, _, _):
        answers = {user: ask(client, user, f"s-{user}").arms for user in USERS[:60]}
        strangers = {user: ask(client, session=f"s-{user}").arms for user in USERS[:60]}
    assigner = Assigner(plans.load(root / "plan.toml"))
    for user, arms in answers.items():
        assert ("towers" in arms) != assigner.held_out(user)
        assert ("pace" in arms) != assigner.held_out(user)
        assert "towers" not in strangers[user]
        assert ("pace" in strangers[user]) != assigner.held_out(f"s-{user}")


FEEDBACK = """
[experiments.feedback]
unit = "session"
arms.control = { share = 0.5, reformulator = "identity" }
arms.average = { share = 0.5, reformulator = "average" }
overrides = { still = "control", moved = "average" }
"""


def test_the_arm_s_reformulator_wins_and_a_session_keeps_its_first_treatment(root):
    liked = [FeedbackItem("item-ü5", FeedbackKind.LIKED)]
    with serving(root, FEEDBACK) as (client, server, _):
        for session, arm, name in (("still", "control", "identity"), ("moved", "average", "average")):
            found = client.reformulate(ASKED, 5, liked, reformulator="rocchio", unit=ExperimentUnit(session_id=session))
            assert (found.reformulator, found.ranking.arms) == (name, {"feedback": arm})
        assert (
            client.reformulate(ASKED, 5, liked, reformulator="rocchio", unit=ExperimentUnit("u")).reformulator
            == "rocchio"
        )
        with client.session(ASKED, 5, unit=ExperimentUnit(session_id="moved")) as session:
            first = session.reformulate(liked)
            follow(server, root, NONE)
            second = session.reformulate(liked)
        assert first.ranking.arms == second.ranking.arms == {"feedback": "average"}
        assert first.reformulator == second.reformulator == "average"
        # NearestItems has nothing to reformulate, and is in the experiment all the same.
        follow(server, root, FEEDBACK)
        assert ask(client, session="moved").arms == {"feedback": "average"}


def test_a_release_of_another_layer_must_have_the_reformulator(root, other_block_release):
    other = FEEDBACK.replace("[experiments.feedback]", '[experiments.feedback]\nlayer = "feedback"')
    with serving(root, TWO.format(rate=1, release=other_block_release.name) + other) as (client, _, _):
        found = client.reformulate(ASKED, 5, [], unit=ExperimentUnit("tester", "moved"))
    assert found.ranking.arms == {"towers": "new", "feedback": "average"}
    assert (found.reformulator, found.ranking.release.name) == ("average", other_block_release.name)


SLATE = """
[experiments.order]
arms.control.share = 0.5
arms.drawn.share = 0.5
arms.drawn.slate = { policy = "plackett_luce", parameter = 0.3, candidates = 12 }
overrides = { best = "control", chance = "drawn" }
"""


def test_a_drawn_list_differs_from_call_to_call_and_stays_among_its_candidates(root):
    with serving(root, SLATE) as (client, _, _):
        candidates = client.nearest_items(ASKED, 12)
        score_of = dict(zip(candidates.item_ids, candidates.scores, strict=True))
        lists = [ask(client, "chance") for _ in range(20)]
        assert len({each.item_ids for each in lists}) > 10
        for each in lists:
            assert len(set(each.item_ids)) == 5
            np.testing.assert_allclose(each.scores, [score_of[item_id] for item_id in each.item_ids], rtol=1e-6)
        best = [ask(client, "best").item_ids for _ in range(2)]
        assert best == [candidates.item_ids[:5]] * 2
        # More places than candidates, the order of MMR, and the most popular items are shown as they are.
        for query, k, how in (
            (ASKED, 13, {}),
            (ASKED, 5, {"diversity": Diversity(mmr_weight=0.3)}),
            (Query(entity_id="nobody"), 5, {}),
        ):
            first, second = (client.nearest_items(query, k, unit=ExperimentUnit("chance"), **how) for _ in range(2))
            assert first.item_ids == second.item_ids


def test_interleaved_lists_take_the_best_of_both_releases_in_turns(root, block_release, other_block_release):
    plan = TWO.format(rate=1, release=other_block_release.name) + "interleave = true\n"
    with serving(root, plan) as (client, _, _):
        own, other = (
            client.nearest_items(ASKED, 6, release_pin=release.name).item_ids
            for release in (block_release, other_block_release)
        )
        answers = [client.nearest_items(ASKED, 6, unit=ExperimentUnit("somebody")) for _ in range(10)]
        moved = client.reformulate(ASKED, 6, [], unit=ExperimentUnit("somebody"), include_metadata=True)
        assert client.nearest_items(ASKED, 6, unit=ExperimentUnit("tester")).item_ids == other
    assert own != other
    for answer in [*answers, moved.ranking]:
        assert (answer.arms, answer.release.name) == ({"towers": "interleaved"}, block_release.name)
        assert len(set(answer.item_ids)) == 6
        assert {own[0], other[0]} <= set(answer.item_ids)
        assert set(answer.item_ids) <= {*own, *other}
    assert all(moved.ranking.metadata)


def test_the_log_tells_the_probability_of_each_drawn_list(root):
    with serving(root, SLATE, log_folder=root / "log") as (client, _, _):
        shown = [ask(client, "chance") for _ in range(20)]
        plain = ask(client, "best")
    rows = {row["token"]: row for row in open_log(root / "log").exposures.collect().iter_rows(named=True)}
    assert rows[plain.attribution_token]["slate_policy"] is None
    for answer in shown:
        row = rows[answer.attribution_token]
        assert row["item_ids"] == list(answer.item_ids)
        assert row["assignments"] == [{"experiment": "order", "arm": "drawn", "unit_kind": "user", "overridden": True}]
        places = np.array([row["candidate_ids"].index(item_id) for item_id in row["item_ids"]])
        scores, policy = np.array(row["candidate_scores"]), policy_of(row["slate_policy"], row["slate_parameter"])
        assert np.log(row["slate_propensity"]) == pytest.approx(policy.log_propensity(scores, places), abs=1e-12)
        # Each item's place is one of those that it can be drawn to: the places of every candidate make 1 each.
        assert policy.marginals(scores, 5).sum(axis=0) == pytest.approx(1)


def test_clicks_on_interleaved_lists_say_which_release_is_preferred(root, other_block_release):
    plan = TWO.format(rate=1, release=other_block_release.name) + "interleave = true\n"
    with serving(root, plan, log_folder=root / "log") as (client, _, _):
        chosen = set(client.nearest_items(ASKED, 6, release_pin=other_block_release.name).item_ids)
        for user in USERS[:40]:
            answer = client.nearest_items(ASKED, 6, unit=ExperimentUnit(user))
            events = [
                Event(f"{user} {item_id}", answer.attribution_token, "click", item_id)
                for item_id in answer.item_ids
                if item_id in chosen
            ]
            assert client.record_events(events).recorded_count == len(events)
    log = open_log(root / "log")
    assert arms_of(log, "towers") == ["interleaved"]
    (found,) = preferences(log, "towers", ["click"]).values()
    assert (found.first, found.second, found.first_wins) == ("control", "new", 0)
    assert found.second_wins + found.ties == 40
    assert found.p_value < 0.001


def test_the_watch_follows_the_file_by_itself_and_without_a_file_there_is_none(root, other_block_release):
    file = root / "plan.toml"
    with serving(root, NONE, experiments={"file": file, "look_s": 0.05}) as (client, _, _):
        file.write_text(TWO.format(rate=1, release=other_block_release.name))
        while not ask(client, "tester").arms:
            pass  # the test's own timeout ends it
    with serving(root, NONE, experiments={}) as (client, _, _):
        assert ask(client, "tester").arms == {}


def test_a_file_that_is_being_written_is_left_until_it_rests(root):
    file, log = root / "plan.toml", io.BytesIO()
    two = """
    [experiments.first.arms]
    control.share = 0.5
    new.share = 0.5
    [experiments.second]
    layer = "other"
    arms = { control = { share = 0.5 }, new = { share = 0.5 } }
    """
    cut = two.index("[experiments.second]")
    assert set(plans.from_content(two[:cut].encode(), file).experiments) == {"first"}
    with serving(root, two, log, experiments={"file": file, "look_s": 60}) as (_, server, _):
        # given: an editor that has written half of the changed file, a file by itself
        changed = two.replace("0.5", "0.4")
        file.write_text(changed[:cut])
        looking = threading.Thread(target=server.experiments.look)
        looking.start()
        time.sleep(0.1)
        # when: it goes on
        file.write_text(changed)
        looking.join()
        server.experiments.look()
    # then
    assert [line["running"] for line in told(log, "experiments accepted")] == [["first", "second"]] * 2
    assert told(log, "experiments refused, the old ones go on") == []
