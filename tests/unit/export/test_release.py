"""A release is whole or refused."""

from __future__ import annotations

import copy
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import RefusedError, ReleaseError, StorageError
from recsys.export.release import Facts, derive, find, newest, open_release, promote, publish, read_labels
from twintower.errors import MissingError, SettingError

FACTS = Facts(
    run="toy",
    query_entity="user",
    query_columns=("town",),
    reads_history=True,
    dim=8,
    item_count=3,
    query_count=2,
    index="brute_force",
    notice="",
    metrics={"nDCG@10": 0.5},
    cases_digest="",
    index_recall=0.96,
)


def fill(folder: Path) -> Facts:
    (folder / "tower").mkdir()
    (folder / "tower" / "weights").write_bytes(b"1234")
    (folder / "items").write_text("a b c")
    return FACTS


@pytest.fixture
def release(tmp_path):
    return publish(tmp_path / "releases", fill)


def test_a_release_is_named_after_its_run_and_its_fingerprint(release):
    assert release.name == f"toy-{release.fingerprint[:12]}"
    assert open_release(release.folder) == release


def test_equal_content_is_one_release(release):
    assert publish(release.folder.parent, fill) == release
    assert len(list(release.folder.parent.iterdir())) == 1


def test_other_facts_are_another_release(release):
    other = publish(release.folder.parent, lambda folder: replace(fill(folder), item_count=4))
    assert other.fingerprint != release.fingerprint


def test_a_changed_part_is_refused_by_name(release):
    (release.folder / "items").write_text("a b d")
    with pytest.raises(ReleaseError, match="items: damaged, or from another release"):
        open_release(release.folder)


def test_a_part_of_another_release_is_refused_even_at_the_same_size(release):
    other = publish(
        release.folder.parent, lambda folder: (fill(folder), (folder / "items").write_text("x y z"), FACTS)[-1]
    )
    shutil.copy(other.folder / "items", release.folder / "items")
    with pytest.raises(ReleaseError, match="checksum differs"):
        open_release(release.folder)


def test_a_missing_part_is_refused_without_reading_the_others(release):
    (release.folder / "tower" / "weights").unlink()
    with pytest.raises(ReleaseError, match=r"1 missing part.*tower/weights"):
        open_release(release.folder, verify=False)


def test_a_foreign_file_is_refused(release):
    (release.folder / "notes.txt").write_text("hello")
    with pytest.raises(ReleaseError, match=r"no part of it: notes\.txt"):
        open_release(release.folder)


def test_a_manifest_whose_facts_were_edited_is_refused(release):
    path = release.folder / "manifest.json"
    path.write_text(path.read_text().replace('"nDCG@10": 0.5', '"nDCG@10": 0.9'))
    with pytest.raises(ReleaseError, match="fingerprint does not fit"):
        open_release(release.folder)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format_version": 4}', "null", "[" * 100_000, "1" * 10_000, "\0"])
def test_a_broken_manifest_is_refused(release, content):
    (release.folder / "manifest.json").write_text(content)
    with pytest.raises(ReleaseError, match=r"manifest\.json.*: got .*, expected "):
        open_release(release.folder)


ODD = [
    None,
    True,
    -1,
    0,
    1.5,
    10**30,
    float("nan"),
    float("inf"),
    "",
    "x",
    "../../x",
    "9" * 200,
    "\ud800",
    [],
    {},
    [[]],
]
ODD += [{"a": {}}, {"": ""}]


def places(table: object, path: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Return the path of every value in nested tables and lists."""
    entries = table.items() if isinstance(table, dict) else enumerate(table) if isinstance(table, list) else ()
    return [path, *(place for key, value in entries for place in places(value, (*path, key)))]


def put(table: object, path: tuple[object, ...], value: object, *, remove: bool) -> object:
    """Return nested tables with another value at a path, or with none."""
    if not path:
        return value
    inner = table
    for key in path[:-1]:
        inner = inner[key]
    key = str(path[-1]) if isinstance(inner, dict) else path[-1]  # JSON has no other keys
    if remove:
        del inner[key]
    else:
        inner[key] = value
    return table


@given(data=st.data(), value=st.sampled_from(ODD), remove=st.booleans(), reforged=st.booleans())
@settings(max_examples=300, deadline=None)
def test_a_manifest_with_odd_values_opens_as_its_types_say_or_is_refused(data, value, remove, reforged):
    with tempfile.TemporaryDirectory() as root:
        folder = publish(root, fill).folder
        path = folder / "manifest.json"
        table = json.loads(path.read_text())
        for place in data.draw(st.lists(st.sampled_from(places(table)), min_size=1, max_size=2)):
            with suppress(KeyError, IndexError, TypeError):
                table = put(table, place, copy.deepcopy(value), remove=remove)
        if reforged and isinstance(table, dict):
            table["fingerprint"] = fingerprint_of(table)
        path.write_text(json.dumps(table))
        try:
            opened = open_release(folder)
        except ReleaseError:
            return
        manifest, facts = opened.manifest, opened.facts
        texts = [manifest.parent, facts.run, facts.index, facts.notice, facts.cases_digest, *facts.query_columns]
        texts += [*manifest.versions, *manifest.versions.values(), *facts.metrics]
        assert all(isinstance(text, str) and text.encode() is not None for text in texts)
        assert {type(number) for number in (facts.index_recall, *facts.metrics.values())} == {float}
        assert all(type(n) is int and 0 <= n < 2**31 for n in (facts.dim, facts.item_count, facts.query_count))


def fingerprint_of(table: dict[str, object]) -> str:
    """Return the fingerprint that fits a manifest, as somebody would forge it."""
    content = {key: table.get(key) for key in ("format_version", "facts", "parts")}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def test_a_manifest_with_a_key_twice_is_refused(release):
    path = release.folder / "manifest.json"
    path.write_text(path.read_text().replace('"dim": 8,', '"dim": 8, "dim": 8,'))
    with pytest.raises(ReleaseError, match=r"manifest\.json: got the key 'dim' twice"):
        open_release(release.folder)


def test_a_value_of_the_wrong_type_is_named_by_its_path(release):
    path = release.folder / "manifest.json"
    path.write_text(path.read_text().replace('"versions": {', '"versions": {"a": {}, '))
    with pytest.raises(ReleaseError, match=r"manifest\.json: versions\.a: got \{\}, expected a valid string"):
        open_release(release.folder)


def test_another_format_is_refused_with_the_command_that_writes_it_again(release):
    path = release.folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format_version": 0}))
    with pytest.raises(ReleaseError, match=r"format_version: got 0, expected 4\. .*recsys train"):
        open_release(release.folder)


def test_no_release_there_names_those_beside(release):
    with pytest.raises(MissingError, match=release.name):
        open_release(release.folder.parent / "nothing")


def test_a_failed_fill_leaves_nothing(tmp_path):
    def fail(folder: Path) -> Facts:
        fill(folder)
        raise ValueError("training data went away")

    with pytest.raises(ValueError, match="went away"):
        publish(tmp_path / "releases", fail)
    assert list((tmp_path / "releases").iterdir()) == []


FULL_DISK = """
import resource, signal, sys
from pathlib import Path
from recsys.errors import StorageError
from recsys.export.release import publish
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    publish(sys.argv[1], lambda folder: (folder / "big").write_bytes(b"x" * 100_000))
except StorageError as error:
    print(error)
"""


def test_a_disk_that_is_full_leaves_nothing_half_written(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", FULL_DISK, str(tmp_path / "releases")], capture_output=True, text=True, check=True
    )
    assert "cannot write" in done.stdout
    assert "Nothing half-written was left" in done.stdout
    assert list((tmp_path / "releases").iterdir()) == []


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_may_not_be_written_is_named(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(StorageError, match="cannot write"):
        publish(tmp_path / "releases", fill)


def test_a_derived_release_shares_unchanged_parts_and_leaves_the_old_one_whole(release):
    def change(folder: Path) -> dict[str, object]:
        (folder / "items").unlink()
        (folder / "items").write_text("a b c d")
        return {"item_count": 4}

    derived = derive(release, change)
    assert derived.manifest.parent == release.fingerprint
    assert derived.facts.item_count == 4
    assert (derived.folder / "tower" / "weights").stat().st_ino == (release.folder / "tower" / "weights").stat().st_ino
    open_release(release.folder)
    open_release(derived.folder)


def test_find_takes_a_path_a_name_a_fingerprint_or_a_label(release):
    root = release.folder.parent
    assert find(release.folder) == find(root) == find(root, release.name) == release.folder
    assert find(root, release.fingerprint[:8]) == release.folder
    promote(release, "canary", metric="nDCG@10", max_drop_rate=0.0, force=False)
    assert find(root, "canary") == release.folder


def test_find_does_not_choose_between_releases(release):
    other = publish(release.folder.parent, lambda folder: replace(fill(folder), item_count=4))
    with pytest.raises(MissingError, match="2 releases and no label 'stable'"):
        find(release.folder.parent)
    promote(other, "stable", metric="nDCG@10", max_drop_rate=0.0, force=False)
    assert find(release.folder.parent) == other.folder


def worse(release, **facts):
    return publish(release.folder.parent, lambda folder: replace(fill(folder), **facts))


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        ({"metrics": {"nDCG@10": 0.48}}, "nDCG@10 falls from 0.5000 to 0.4800, more than 2.0%"),
        ({"index_recall": 0.90}, "index recall bound falls from 0.9600 to 0.9000"),
        ({"metrics": {"nDCG@10": float("nan")}}, "nDCG@10 is not a number in both releases"),
    ],
)
def test_a_worse_release_is_not_promoted_unless_forced_which_is_recorded(release, facts, told):
    promote(release, "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    candidate = worse(release, **facts)
    with pytest.raises(RefusedError, match=told):
        promote(candidate, "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    root = release.folder.parent
    assert read_labels(root) == {"stable": release.name}

    promote(candidate, "stable", metric="nDCG@10", max_drop_rate=0.02, force=True)
    assert read_labels(root) == {"stable": candidate.name}
    last = json.loads((root / "promotions.jsonl").read_text().splitlines()[-1])
    assert last["before"] == release.name
    assert told.split(",")[0] in last["forced_over"][0]


def test_a_metric_that_the_release_does_not_have_is_refused_even_for_the_first_release(release):
    with pytest.raises(SettingError, match=r"no metric of the release named 'nDCG@5'\. Did you mean 'nDCG@10'\?"):
        promote(release, "stable", metric="nDCG@5", max_drop_rate=0.02, force=False)


def test_a_label_on_a_release_that_is_gone_can_be_forced_over(release):
    promote(release, "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    candidate = worse(release, item_count=4)
    shutil.rmtree(release.folder)
    with pytest.raises(RefusedError, match="cannot be read"):
        promote(candidate, "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    promote(candidate, "stable", metric="nDCG@10", max_drop_rate=0.02, force=True)
    assert read_labels(candidate.folder.parent) == {"stable": candidate.name}


def test_broken_labels_are_named(release):
    for content in ("{", "[]", '{"stable": 1}', '{"a": "b", "a": "c"}', "[" * 100_000):
        (release.folder.parent / "labels.json").write_text(content)
        with pytest.raises(ReleaseError, match=r"labels\.json.*: got .*Remove it and promote again"):
            read_labels(release.folder.parent)


@pytest.mark.parametrize("name", ["../elsewhere", "/etc", "..", ".", "", "a/b", "a\0b", ".hidden"])
def test_a_label_names_a_release_in_its_folder_and_nothing_outside(release, name):
    (release.folder.parent / "labels.json").write_text(json.dumps({"stable": name}))
    with pytest.raises(ReleaseError, match=r"labels\.json: stable: got .*the name of a release in this folder"):
        read_labels(release.folder.parent)


def test_a_link_to_a_release_is_that_release_and_no_second_one(release):
    root = release.folder.parent
    (root / "current").symlink_to(release.folder.name)
    assert find(root) == find(root, "current") == find(root, release.fingerprint[:8]) == newest(root) == release.folder
    (root / "labels.json").write_text('{"stable": "current"}')
    assert find(root) == find(root, "stable") == release.folder


def test_a_release_opened_from_within_itself_is_the_same(release, monkeypatch):
    monkeypatch.chdir(release.folder)
    assert open_release(".") == release
    promote(open_release("."), "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    assert read_labels(release.folder.parent) == {"stable": release.name}
    open_release(release.folder)


def test_what_a_dead_process_left_half_written_is_no_release_and_is_swept(release):
    root = release.folder.parent
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    left = root / f".building-{dead.pid}-abc"
    shutil.copytree(release.folder, left)
    assert find(root) == release.folder
    publish(root, lambda folder: replace(fill(folder), item_count=9))
    assert not left.exists()


def test_a_release_that_falls_within_the_margin_is_promoted(release):
    promote(release, "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    candidate = worse(release, metrics={"nDCG@10": 0.495})
    promote(candidate, "stable", metric="nDCG@10", max_drop_rate=0.02, force=False)
    assert read_labels(release.folder.parent)["stable"] == candidate.name


def judged(release, **metrics):
    return worse(release, metrics={name.replace("_", "@"): value for name, value in metrics.items()})


def test_the_gate_compares_the_first_metric_of_the_run_file_that_both_releases_have(release):
    root = release.folder.parent
    first = judged(release, RR_10=0.3, AP_10=0.2, R_50=0.7)
    # The order of the run file stays, in the manifest too.
    assert list(open_release(first.folder).facts.metrics) == ["RR@10", "AP@10", "R@50"]
    said = promote(first, "stable", max_drop_rate=0.02, force=False)
    assert said == f"promoted: {first.name} has the label 'stable' now; it is the first release with the label 'stable'"
    second = judged(release, Success_10=0.1, R_50=0.8, AP_10=0.1)
    said = promote(second, "stable", max_drop_rate=0.02, force=False)
    told = f"promoted: {second.name} has the label 'stable' now; against {first.name}: R@50 0.7000 -> 0.8000, "
    assert said.startswith(told)
    assert json.loads((root / "promotions.jsonl").read_text().splitlines()[-1])["metric"] == "R@50"
    # Now by the first of the other's own.
    assert "AP@10 0.1000 -> 0.2000" in promote(first, "stable", max_drop_rate=0.02, force=False)
    with pytest.raises(RefusedError, match=rf"not promoted: {second.name} .*AP@10 falls from 0\.2000 to 0\.1000"):
        promote(second, "stable", metric="AP@10", max_drop_rate=0.02, force=False)


def test_releases_without_a_common_metric_are_compared_by_force_alone(release):
    first, second = judged(release, RR_10=0.3), judged(release, AP_10=0.2)
    promote(first, "stable", max_drop_rate=0.02, force=False)
    told = r"no test metric is known for both releases \(this one has AP@10; the other has RR@10\)"
    with pytest.raises(RefusedError, match=told):
        promote(second, "stable", max_drop_rate=0.02, force=False)
    with pytest.raises(RefusedError, match=r"AP@10 is not known for both releases"):
        promote(second, "stable", metric="AP@10", max_drop_rate=0.02, force=False)
    assert "forced in spite of: no test metric" in promote(second, "stable", max_drop_rate=0.02, force=True)


def test_a_release_that_has_the_label_already_is_not_promoted_again(release):
    promote(release, "stable", max_drop_rate=0.02, force=False)
    said = promote(release, "stable", max_drop_rate=0.02, force=False)
    assert said == f"not promoted: {release.name} has the label 'stable' already"
    assert len((release.folder.parent / "promotions.jsonl").read_text().splitlines()) == 1


def test_a_first_release_whose_metric_is_not_a_number_is_promoted_by_force_alone(release):
    candidate = judged(release, AP_10=float("nan"))
    with pytest.raises(RefusedError, match=r"not promoted: .*its AP@10 is not a number"):
        promote(candidate, "stable", max_drop_rate=0.02, force=False)
    assert read_labels(release.folder.parent) == {}
    with pytest.raises(SettingError, match="--label: got ''"):
        promote(release, "", max_drop_rate=0.02, force=False)
