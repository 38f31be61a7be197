"""The command line: one word a module, one message a mistake."""

from __future__ import annotations

import dataclasses
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import commands, config, registry
from recsys.cli import one_message
from recsys.export.release import derive, open_release
from recsys.files import write_atomically
from tests.worlds import copy_of
from twintower.errors import SettingError

MODULES = [module.name for module in pkgutil.iter_modules(commands.__path__)]
WORDS = [name for name in MODULES if not name.startswith("_")]


def recsys(*words: str, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    variables = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1", **environment}
    return subprocess.run(
        [sys.executable, "-m", "recsys.cli", *words],
        capture_output=True, text=True, env=variables, cwd=folder, check=False,
    )  # fmt: skip


def test_help_lists_every_word():
    done = recsys("--help")
    assert done.returncode == 0
    assert all(f" {word} " in done.stdout for word in WORDS)


@pytest.mark.parametrize("word", WORDS)
def test_every_word_explains_itself(word):
    done = recsys(word, "--help")
    assert done.returncode == 0
    assert "Usage" in done.stdout


@pytest.fixture(scope="module")
def choices() -> str:
    return recsys("choices").stdout


def test_choices_lists_every_kind_with_every_setting(choices):
    for family in registry.FAMILIES:
        for kind in registry.names(family):
            assert f'kind = "{kind}"' in choices
            for setting in dataclasses.fields(registry.choice(family, kind)):
                assert setting.name in choices


@pytest.mark.parametrize(
    "told",
    [
        '[source] kind = "enriched_movielens"',
        '[[item.augmentations]], [[self_supervision.augmentations]] kind = "random_mask"',
        '[item.features.<name>], [query.features.<name>] kind = "categorical"',
        '[query.features.<name>] kind = "history"',
        'in every release, without a section: kind = "rocchio"',
        '[self_supervision.objective] kind = "contrastive"',
        '[reformulation.objective] kind = "comparative"',
        "see [self_supervision.schedule]",
        "see [training.schedule]",
        "see [training]",
    ],
)
def test_choices_says_in_which_section_each_thing_stands(told, choices):
    assert told in choices


@pytest.mark.parametrize("word", ["masks", "reads"])
def test_what_the_program_alone_asks_of_a_choice_is_no_setting(word, choices):
    assert f"│ {word} " not in choices


@pytest.mark.parametrize("section", [place.removesuffix(".<name>") for place in config.PLACES])
def test_choices_of_a_section_shows_the_kinds_that_the_section_may_hold(section):
    (place,) = (place for place in config.PLACES if place.removesuffix(".<name>") == section)
    shown = recsys("choices", section).stdout
    family = config.PLACES[place]
    held = {kind for kind in registry.names(family) if f'kind = "{kind}"' in shown}
    assert held == set(config.kinds_of(place)) != set()


def test_choices_lists_metrics_and_baselines(choices):
    for word in ("nDCG@k", "Success@k"):
        assert f"│ {word} " in choices
    assert '[[evaluation.baselines]] kind = "ease"' in choices
    assert "evaluation.metrics" in recsys("choices", "metrics").stdout
    assert "item_knn" in recsys("choices", "baselines").stdout


def test_choices_of_one_family_shows_no_other():
    printed = recsys("choices", "splits").stdout
    assert "leave_last" in printed
    assert "sampled_softmax" not in printed


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "nowhere.toml"], "no such run file"),
        (["choices", "spilts"], "Did you mean 'splits'?"),
        (["release", "show", "nowhere"], "no release and no label 'stable'"),
        (["release", "list", "nowhere"], "no such folder"),
        (["serve", "nowhere"], "no release and no label 'stable'"),
        (["query", "--vector", "1,x"], "--vector: got '1,x', expected numbers"),
        (["query", "--feature", "age"], "--feature: got 'age', expected NAME=VALUE"),
        (
            ["query", "--target", "127.0.0.1:1", "--wait-s", "0.1", "--entity", "a"],
            "no server at 127.0.0.1:1; start one with: recsys serve RELEASES",
        ),
        (["query", "--entity", "a", "--depth", "3"], "--depth: got no feedback, expected some for it to act on. Add"),
        (["query", "--entity", "a", "--no-guard", "--like", ","], "--no-guard: got no feedback, expected some"),
        (["query", "--entity", "a", "--token-file", "nowhere"], "--token-file: got 'nowhere', expected a file"),
        (["query", "--entity", "a", "--ca", "nowhere"], "tls.ca: got 'nowhere', expected a file"),
        (["query", "--entity", "a", "--key", "nowhere"], "got one of certificate and key, expected both or neither"),
        (["data", "dependence", "wikispeedia", "--work", "/proc/nowhere"], "/proc/nowhere: got No such file"),
        (["auth", "new-key", "a b"], "NAME: got 'a b', expected at most 64 letters"),
        (["query", "--port-file", "nowhere", "--wait-s", "0.1", "--entity", "a"], "no such file after 0.1 s"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(words, told, tmp_path):
    done = recsys(*words, folder=tmp_path)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("use", "told"),
    [
        (lambda file: (file / "below").mkdir(), "got Not a directory, expected a place that can be made, read and"),
        (lambda _: Path("/proc/nowhere").mkdir(), "/proc/nowhere: got No such file or directory, expected a place"),
        (lambda file: os.listdir(file), "got Not a directory, expected a place"),
        (lambda file: file.with_name("a" * 300).mkdir(), "got File name too long, expected a place"),
        (lambda file: write_atomically(file / "below" / "text", ""), "cannot write (Not a directory). Nothing half-"),
    ],
    ids=["through a file", "below /proc", "a file as a folder", "a long name", "told by the storage"],
)
def test_a_place_that_cannot_be_used_is_one_message_and_exit_code_2(use, told, tmp_path, capsys):
    (tmp_path / "file").touch()
    with pytest.raises(SystemExit) as ended, one_message():
        use(tmp_path / "file")
    assert ended.value.code == 2
    printed = capsys.readouterr().err
    assert (printed.startswith("error: "), printed.count("\n")) == (True, 1)
    assert told in printed


def test_a_mistake_of_the_program_itself_is_not_hidden():
    with pytest.raises(ZeroDivisionError), one_message():
        1 / 0  # noqa: B018


def test_a_missing_package_is_named_with_the_line_to_run(tmp_path):
    (tmp_path / "polars.py").write_text("raise ModuleNotFoundError(\"No module named 'polars'\", name='polars')\n")
    done = recsys("data", "describe", "complete_journey", PYTHONPATH=str(tmp_path))
    assert done.returncode == 2
    needs = "`recsys data` needs the package 'polars', which is not installed"
    assert f"{needs}. Run: python -m pip install 'twintower-recsys[train]'\n" in done.stderr


@pytest.fixture(scope="module")
def releases(block_release, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copy_of(block_release, tmp_path_factory.mktemp("cli")).folder.parent


def test_a_release_is_listed_shown_verified_and_promoted(releases, block_release):
    assert block_release.name in recsys("release", "list", str(releases)).stdout
    shown = recsys("release", "show", str(releases)).stdout
    assert block_release.fingerprint in shown
    assert "nDCG@10" in shown
    verified = recsys("release", "verify", str(releases))
    assert "all checksums right; golden queries answered as written" in verified.stdout
    promoted = recsys("release", "promote", str(releases / block_release.name))
    assert "first release with the label 'stable'" in promoted.stdout
    assert "stable" in recsys("release", "list", str(releases)).stdout


def test_a_release_compared_with_itself_differs_in_nothing(releases, block_release):
    done = recsys("compare", str(releases / block_release.name), str(releases / block_release.name))
    assert done.returncode == 0, done.stderr
    assert "0.0000" in done.stdout


def test_a_port_that_is_taken_is_told_without_a_stack_trace(releases):
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        done = recsys("serve", str(releases), "--port", str(taken.getsockname()[1]))
    assert done.returncode == 2
    assert "expected an address to listen on that is free" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_feature_of_any_name_can_be_asked_for_on_the_command_line():
    from recsys.commands.query import _feature

    assert _feature("age=3") == ("age", "3")  # the column decides whether it is a number
    assert _feature("town=a=b") == ("town", "a=b")
    assert _feature('"a=b"=3') == ("a=b", "3")
    assert _feature('"quo\\"te"=x') == ('quo"te', "x")
    assert _feature('""=x') == ("", "x")


def test_a_filter_column_of_any_name_can_be_named_on_the_command_line():
    from recsys.commands.query import _filter
    from twintower.types import Condition, Filter, FilterType

    fields = {"a=b": FilterType.STRING, " year >": FilterType.NUMBER, '"': FilterType.STRING}
    assert _filter(['"a=b" != x', '" year >">3', '"\\""=y'], fields) == Filter(
        (
            Condition("a=b", none_of=("x",)),
            Condition(" year >", exclusive_minimum=3),
            Condition('"', any_of=("y",)),
        )
    )


@pytest.mark.parametrize("value", ["sNaN", "NaN", "-inf", "1e999999"])
def test_every_spelling_of_a_number_reaches_the_filter_or_is_refused(value):
    from recsys.commands.query import _filter
    from twintower.types import FilterType

    (condition,) = _filter([f"year={value}"], {"year": FilterType.NUMBER}).all_of
    assert str(condition.any_of[0]).casefold().startswith(value[:2].casefold())


def test_ids_with_commas_and_spaces_can_be_given_as_a_json_list():
    from recsys.commands.query import _ids

    assert _ids('["a, b", "c "]', "--items") == ("a, b", "c ")
    assert _ids("a, b,7", "--items") == ("a", "b", "7")
    assert _ids("7", "--items") == ("7",)
    assert _ids("", "--items") == ()
    with pytest.raises(SettingError, match=r"--items: got '\[7\]', expected a JSON list of strings"):
        _ids("[7]", "--items")


def test_a_promotion_that_names_several_releases_lists_them_and_one_that_names_none_says_so(block_release, tmp_path):
    root = copy_of(block_release, tmp_path).folder.parent
    twin = derive(open_release(root / block_release.name), lambda folder: {"notice": "twin"})
    several = recsys("release", "promote", *(str(root / name) for name in (block_release.name, twin.name)))
    assert several.returncode != 0
    assert "RELEASE: got 2 releases, expected one. Name one of these, oldest first:" in several.stderr
    for release in (block_release, twin):
        assert f"{root / release.name} (written {release.manifest.created})" in several.stderr
    none = recsys("release", "promote", str(root / "nothing-*"))
    assert none.returncode != 0
    assert "nothing-*" in none.stderr
    assert "Traceback" not in none.stderr
    # A pattern that only one release fits, and what else stands in the folder.
    done = recsys("release", "promote", str(root / f"{block_release.name[:-4]}*"))
    assert f"promoted: {block_release.name} has the label 'stable' now" in done.stdout, done.stderr
