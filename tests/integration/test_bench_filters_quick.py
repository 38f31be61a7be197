"""`make bench-filters` in its short form."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_short_form_measures_every_plan_at_every_selectivity_and_judges_the_bar(tmp_path):
    command = [sys.executable, "-m", "benchmarks.filters", "--quick", "--results", str(tmp_path)]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)

    assert done.returncode == 0, done.stderr
    content = json.loads((tmp_path / "filters-quick.json").read_text())
    values = {(row["case"].get("allowed"), row["subject"], row["metric"]): row["value"] for row in content["rows"]}
    for percent in ("0.1", "1", "10", "50", "100"):
        for kind in ("by chance", "around a point", "away from the queries")[: 1 if percent == "100" else 3]:
            case = f"{percent} % {kind}"
            assert values[case, "planned", "recall"] >= 0.9
            # 10 of 0.1 or 1 % would be looked for among more than a tenth of 4,000 items
            for subject in ("planned", "exact", *(["over_fetch"] if float(percent) >= 10 else [])):
                assert values[case, subject, "query_us"] > 0
    for subject in ("compile", "compiled before", "index alone", "crowding", "mmr"):
        assert values[None, subject, "query_us"] > 0
    assert sum(note.startswith("Bar ") for note in content["notes"]) == 3
