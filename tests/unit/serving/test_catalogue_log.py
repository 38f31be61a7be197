"""The log: acknowledged is on disk, torn tails are cut, damage is told, compaction changes nothing."""

from __future__ import annotations

import resource
import stat
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from recsys.errors import DataError, StorageError
from serving.runtime.catalogue_log import HEADER, MAGIC, CatalogueLog


def payloads(log: CatalogueLog, position: int = 0) -> list[bytes]:
    return [record.payload for record in log.read(position)[0]]


def file_of(folder: Path) -> Path:
    (path,) = folder.glob("catalogue-*.log")
    return path


def test_what_was_appended_is_read_again_in_order_also_after_a_restart(tmp_path):
    log = CatalogueLog(tmp_path)
    assert [log.append(payload) for payload in (b"a", b"", b"c" * 100_000)] == [1, 2, 3]
    assert payloads(log) == [b"a", b"", b"c" * 100_000]
    again = CatalogueLog(tmp_path)
    assert payloads(again) == payloads(log)
    assert again.append(b"d") == 4


def test_a_reader_gets_only_what_is_new(tmp_path):
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    _, position = log.read()
    assert position == log.position
    log.append(b"b")
    assert position != log.position
    assert payloads(log, position) == [b"b"]


def test_processes_that_share_a_folder_see_each_other_at_once(tmp_path):
    first, second = CatalogueLog(tmp_path), CatalogueLog(tmp_path)
    assert first.append(b"a") == 1
    assert payloads(second) == [b"a"]
    assert second.append(b"b") == 2
    assert payloads(first) == [b"a", b"b"]


@pytest.mark.parametrize("kept", [*range(HEADER.size + 3)])
def test_a_record_that_was_not_written_to_its_end_is_cut_off(tmp_path, kept):
    log = CatalogueLog(tmp_path)
    log.append(b"whole")
    path = file_of(tmp_path)
    whole, counter = path.read_bytes(), (tmp_path / "catalogue.position").read_bytes()
    log.append(b"torn")
    torn = path.read_bytes()[: len(whole) + kept]
    # given: the writer was killed before it counted its record
    (tmp_path / "catalogue.position").write_bytes(counter)
    path.write_bytes(torn)
    again = CatalogueLog(tmp_path)
    assert payloads(again) == [b"whole"]
    assert path.read_bytes() == whole
    assert again.append(b"next") == 2
    assert payloads(again) == [b"whole", b"next"]


def test_what_a_killed_writer_left_is_cut_off_by_the_next_one_that_still_runs(tmp_path):
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    with open(file_of(tmp_path), "ab") as file:
        file.write(b"half a record")
    assert payloads(log) == [b"a"]
    log.append(b"b")
    assert payloads(log) == payloads(CatalogueLog(tmp_path)) == [b"a", b"b"]


@pytest.mark.parametrize("place", [0, len(MAGIC), len(MAGIC) + 5, len(MAGIC) + 9, len(MAGIC) + HEADER.size])
def test_damage_among_acknowledged_records_is_told_and_nothing_is_cut(tmp_path, place):
    log = CatalogueLog(tmp_path)
    for payload in (b"first", b"second"):
        log.append(payload)
    path = file_of(tmp_path)
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    with pytest.raises(DataError, match=r"catalogue-0\.log: damaged after byte"):
        CatalogueLog(tmp_path)
    assert path.read_bytes() == damaged


def test_a_log_that_has_gone_is_told(tmp_path):
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    file_of(tmp_path).unlink()
    with pytest.raises(DataError):
        CatalogueLog(tmp_path)
    with pytest.raises(DataError):
        log.read()


@pytest.mark.parametrize("counter", [bytes(24), b"\xff" * 24, b"", None])
def test_a_log_without_its_counter_is_refused_and_nothing_is_removed(tmp_path, counter):
    # given: the second file, a copy of it that an operator made, and a counter that names another or none
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    log.compact(list)
    (tmp_path / "catalogue-1-copy.log").write_bytes(b"a copy")
    before = (tmp_path / "catalogue-1.log").read_bytes()
    saved = (tmp_path / "catalogue.position").read_bytes()
    (tmp_path / "catalogue.position").unlink()
    if counter is not None:
        (tmp_path / "catalogue.position").write_bytes(counter)
    # then
    with pytest.raises(DataError, match=r"catalogue\.position: got .*catalogue-1\.log.*restore the whole folder"):
        CatalogueLog(tmp_path)
    assert (tmp_path / "catalogue-1.log").read_bytes() == before
    # when
    (tmp_path / "catalogue.position").write_bytes(saved)
    assert payloads(CatalogueLog(tmp_path)) == [b"a"]
    assert (tmp_path / "catalogue-1-copy.log").read_bytes() == b"a copy"


RECORDS = [b"first", b"", b"x" * 40, b"fourth"]
places = st.integers(0, 10_000)


@st.composite
def damages(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change to a file: one byte flipped, a range zeroed or cut out, the end cut off, or bytes at the end."""
    kind, bits = draw(st.sampled_from(["flip", "zero", "cut", "truncate", "append"])), draw(st.integers(1, 255))
    start, length, more = draw(places), draw(st.integers(1, 200)), draw(st.binary(min_size=1, max_size=40))

    def damage(content: bytes) -> bytes:
        at = start % len(content)
        end = min(at + length, len(content))
        if kind == "flip":
            return content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :]
        if kind == "zero":
            return content[:at] + bytes(end - at) + content[end:]
        if kind == "cut":
            return content[:at] + content[end:]
        return content[:at] if kind == "truncate" else content + more

    return damage


@given(damage=damages(), hit=st.sampled_from(["log", "counter"]), counted=st.booleans(), compacted=st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_whatever_is_damaged_no_acknowledged_change_is_lost_without_a_refusal(damage, hit, counted, compacted):
    with tempfile.TemporaryDirectory() as folder:
        # given: acknowledged changes, some of them compacted, and damage to one file, with or without the counter
        home = Path(folder)
        log = CatalogueLog(home)
        for place, payload in enumerate(RECORDS):
            if compacted == place:
                log.compact(list)
            log.append(payload)
        path = file_of(home) if hit == "log" else home / "catalogue.position"
        path.write_bytes(damage(path.read_bytes()))
        if not counted:
            (home / "catalogue.position").unlink()
        before = {file.name: file.read_bytes() for file in home.iterdir()}
        # then
        refusal = ""
        try:
            again = CatalogueLog(home)
        except DataError as error:
            refusal = str(error)
        if refusal:
            assert {file.name: file.read_bytes() for file in home.iterdir()} == before
            assert "restore the whole folder from a copy" in refusal
            return
        assert payloads(again) == RECORDS
        again.append(b"next")
        assert payloads(CatalogueLog(home)) == [*RECORDS, b"next"]


def test_damage_before_whole_records_is_refused_where_the_counter_is_older_than_both(tmp_path):
    # given: a counter as a power failure leaves it, which was on disk before the records were
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    counter, path = (tmp_path / "catalogue.position").read_bytes(), file_of(tmp_path)
    place = path.stat().st_size + HEADER.size
    for payload in (b"b" * 100, b"c"):
        log.append(payload)
    damaged = bytearray(path.read_bytes())
    damaged[place] ^= 1
    path.write_bytes(damaged)
    (tmp_path / "catalogue.position").write_bytes(counter)
    # then
    with pytest.raises(DataError, match=r"damaged after byte \d+"):
        CatalogueLog(tmp_path)
    assert path.read_bytes() == damaged


def test_a_counter_that_is_damaged_itself_still_shows_that_the_last_change_is_missing(tmp_path):
    # given: the last of two records is not whole, and the counter names an earlier byte, but still counts two changes
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    counter, path = tmp_path / "catalogue.position", file_of(tmp_path)
    size = path.stat().st_size
    log.append(b"b")
    path.write_bytes(path.read_bytes()[:-1])
    words = bytearray(counter.read_bytes())
    words[:8] = size.to_bytes(8, "little")
    counter.write_bytes(words)
    before = path.read_bytes()
    # then
    with pytest.raises(DataError, match=r"counts 2 changes where .* has 1"):
        CatalogueLog(tmp_path)
    assert path.read_bytes() == before


def test_the_files_of_the_log_are_not_readable_by_other_users(tmp_path):
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    log.compact(list)
    assert {path.name: stat.S_IMODE(path.stat().st_mode) & 0o007 for path in tmp_path.iterdir()} == {
        "catalogue-1.log": 0,
        "catalogue.lock": 0,
        "catalogue.position": 0,
    }


def test_many_writers_at_once_lose_nothing_and_share_their_turns(tmp_path):
    logs = [CatalogueLog(tmp_path), CatalogueLog(tmp_path)]
    sequences: list[int] = []

    def write(writer: int) -> None:
        sequences.extend(logs[writer % 2].append(f"{writer} {place}".encode()) for place in range(25))

    threads = [threading.Thread(target=write, args=(writer,)) for writer in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(sequences) == list(range(1, 201))
    written = payloads(logs[0])
    assert sorted(written) == sorted(f"{writer} {place}".encode() for writer in range(8) for place in range(25))
    of_first = [payload for payload in written if payload.startswith(b"0 ")]
    assert of_first == [f"0 {place}".encode() for place in range(25)]
    assert payloads(CatalogueLog(tmp_path)) == written


def test_a_compacted_log_says_what_was_folded_and_goes_on_counting(tmp_path):
    log, other = CatalogueLog(tmp_path), CatalogueLog(tmp_path)
    for payload in (b"a", b"b", b"c"):
        log.append(payload)
    _, position = other.read()
    log.compact(lambda old: [b"+".join(old)])
    assert [(record.sequence, record.payload) for record in other.read(position)[0]] == [(3, b"a+b+c")]
    assert other.append(b"d") == 4
    assert payloads(log) == payloads(CatalogueLog(tmp_path)) == [b"a+b+c", b"d"]
    assert log.compacted_bytes == len(MAGIC) + HEADER.size + 5


def test_a_compaction_that_was_killed_before_it_counted_never_happened(tmp_path):
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    (tmp_path / "catalogue-1.log").write_bytes(MAGIC)
    (tmp_path / ".catalogue-1.log").write_bytes(b"RE")
    again = CatalogueLog(tmp_path)
    assert payloads(again) == [b"a"]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "catalogue-0.log",
        "catalogue.lock",
        "catalogue.position",
    ]


def test_a_full_disk_refuses_the_change_and_the_log_goes_on(tmp_path):
    log = CatalogueLog(tmp_path)
    log.append(b"a")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(StorageError):
            log.append(b"x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert log.append(b"b") == 2
    assert payloads(CatalogueLog(tmp_path)) == [b"a", b"b"]
