"""A small experiment on a real server whose truth is known: what `recsys experiment demo` leaves behind, in seconds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from recsys import config, pipeline
from recsys.experiment.simulation import Habits, People
from recsys.export.release import promote
from serving.simulation import Simulated, simulate
from tests.worlds import POOLED

USERS = 200
PLAN = """\
[metrics]
clicks = {{ event = "click", role = "primary" }}
click_rate = {{ event = "click", count = "exposures", per = "exposure" }}
revenue = {{ event = "purchase", count = "value", role = "guardrail", margin_rate = 0.5 }}

[experiments.towers]
layer = "release"
start = 2020-01-01T00:00:00Z  # passed over by a simulation
end = 2020-01-08T00:00:00Z
min_units = 50  # of 200 users in two arms
arms.control = {{ share = 0.5 }}
arms.trained = {{ share = 0.5, release = "{trained}" }}

[experiments.feedback]
layer = "feedback"
traffic_rate = 0.8
arms.control = {{ share = 0.5, reformulator = "identity" }}
arms.rocchio = {{ share = 0.5, reformulator = "rocchio" }}
"""


def run_of(name: str, **training: Any) -> config.Run:
    """Return the run of a small world in which taste decides a lot."""
    tables = {
        "name": name,
        "source": {
            "kind": "synthetic", "users": USERS, "items": 150, "interactions": 4000, "groups": 6, "sharpness": 12.0,
        },
        "query": {
            "features": {"recent": {"kind": "history", "length": 10, **POOLED}, "country": {"kind": "categorical"}},
        },
        "item": {
            "features": {"id": {"kind": "id", "width": 8}, "category": {"kind": "categorical"}},
            "metadata": ["title"],
        },
        "tower": {"kind": "mlp", "hidden": [], "dim": 8},
        "objective": {"kind": "sampled_softmax"},
        "training": {
            "batch_size": 256, "optimizer": "adagrad", "learning_rate": 0.1, "validation_cases": 100, **training,
        },
        "evaluation": {"exclude_seen": False, "resamples": 100, "baselines": []},
        "index": {"kind": "brute_force"},
    }  # fmt: skip
    return config.from_tables(tables)


def simulated_in(folder: Path) -> Simulated:
    """Let a release that was trained meet one that hardly was; write `releases/` and `simulated/`."""
    releases = folder / "releases"
    control = pipeline.train(run_of("untrained", epochs=1, learning_rate=1e-6), folder / "work", releases)
    trained = pipeline.train(run_of("trained", epochs=4), folder / "work", releases)
    promote(control, "stable", max_drop_rate=0.0, force=True)
    plan_file = folder / "plan.toml"
    plan_file.write_text(PLAN.format(trained=trained.name), encoding="utf-8")
    habits = Habits(stranger_rate=0.2, wishes=30, duplicate_rate=0.05, late_rate=0.05, early_rate=0.05)
    people = People(run_of("trained").source, habits, USERS, control.facts.query_columns)
    return simulate(people, plan_file, releases, folder / "simulated", workers=4, say=print)
