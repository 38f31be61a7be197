"""`make bench-recommenders` in its short form, on synthetic data."""

from __future__ import annotations

import json

import tomli_w

from benchmarks.recommenders import METRICS, Bar, Plan, bench, rehearsal


def test_the_short_form_trains_models_beside_peers_and_takes_up_what_is_done(tmp_path, capsys):
    tables = {
        "name": "small",
        "source": {"kind": "synthetic", "users": 60, "items": 60, "interactions": 1500, "groups": 3},
        "query": {"features": {"segment": {"kind": "categorical", "width": 4}}},
        "item": {"features": {"item": {"kind": "id", "width": 4}}},
        "split": {"kind": "random", "test_rate": 0.2, "validation_rate": 0.1},
        "evaluation": {"exclude_seen": True},
        "index": {"kind": "brute_force"},
    }
    file = tmp_path / "small.toml"
    file.write_text(tomli_w.dumps(tables))
    plan = rehearsal(Plan(str(file), {}, {}, (), Bar(margin=0.002, above=2)))

    def run(**given) -> dict:
        bench(plan, "recommenders-small", tmp_path / "work", tmp_path / "results", **{"seeds": [1]} | given)
        return json.loads((tmp_path / "results" / "recommenders-small.json").read_text())

    content = run()
    rows = {(*row["case"].values(), row["subject"], row["metric"]): row for row in content["rows"]}
    for subject in ("two_tower_dlae", "two_tower_all_items", "popularity", "ease"):
        for metric in METRICS:
            row = rows["all", subject, metric]
            assert 0 <= row["low"] <= row["value"] <= row["high"] <= 1
    for subject in ("two_tower_dlae", "two_tower_all_items"):
        assert rows["training", subject, "train_s"]["value"] > 0
        assert {rows[peer, subject, "R@20"]["runs"] for peer in ("popularity", "ease")} == {1}
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 2
    fitted = "two_tower_dlae, seeds 1: fitted on train and validation, "  # the chosen settings follow
    assert any(note.startswith(fitted) for note in content["notes"])
    assert str(tmp_path) not in (tmp_path / "results" / "recommenders-small.json").read_text()

    capsys.readouterr()
    assert run()["rows"] == content["rows"]  # training times, too: nothing was trained again
    assert capsys.readouterr().err == ""
    again = run(seeds=[1, 2], only=["two_tower_dlae", "ease"], finished=True)
    assert {row["runs"] for row in again["rows"]} == {1}
    assert run(seeds=[2], finished=True)["notes"][0] == "two_tower_dlae was left out: no seed of it is finished."
