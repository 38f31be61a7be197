"""`make bench-order` in its short form: every subject but the peer is trained and judged, and a second call resumes."""

from __future__ import annotations

import json

from benchmarks.order import bench


def test_the_short_form_of_the_order_benchmark_writes_its_table_and_resumes(tmp_path):
    tables = []
    for _ in range(2):
        bench("synthetic", tmp_path / "work", tmp_path, seeds=[0], only=[], quick=True)
        tables.append(json.loads((tmp_path / "order-synthetic-quick.json").read_text())["rows"])
    subjects = {row["subject"] for row in tables[0]}
    assert {"transformer", "bag, quadratic", "bag, softmax", "the formula itself"} <= subjects
    # A second training would differ in the last digits; resumed figures do not.
    assert tables[0] == tables[1]
