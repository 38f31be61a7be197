"""Progress in a log: a line now and then, or one line for a whole block of work."""

from __future__ import annotations

import re

import pytest

from recsys.progress import one_line, task


def test_work_ends_with_a_line_that_says_how_much_was_done_and_how_quickly(capsys):
    with task("train", 4, "steps") as running:
        running.advance(4, "nDCG@10 0.5")
    assert re.fullmatch(r"train: 4/4 steps \(100%\), .* steps/s, \d\.\d s, nDCG@10 0.5\n", capsys.readouterr().err)


def test_all_work_of_a_block_is_one_line(capsys):
    with one_line("read and train"):
        for name in ("read", "train"):
            with task(name, 2) as running:
                running.advance(2)
    assert re.fullmatch(r"read and train: \d\.\d s\n", capsys.readouterr().err)
    with task("train", 1) as running:
        running.advance()
    assert capsys.readouterr().err.startswith("train: 1/1")


def test_a_block_that_fails_leaves_later_work_its_own_lines(capsys):
    with pytest.raises(ZeroDivisionError), one_line("read"):
        raise ZeroDivisionError
    with task("train", 1) as running:
        running.advance()
    assert capsys.readouterr().err.startswith("train: 1/1")
