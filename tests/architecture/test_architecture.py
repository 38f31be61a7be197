"""Rules of the layout that a machine can check."""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

from recsys import registry
from recsys.commands.choices import meanings_of

ROOT = Path(__file__).parents[2]
SOURCES = sorted(path for folder in ("recsys", "serving", "twintower") for path in (ROOT / folder).rglob("*.py"))
WRITTEN = [path for path in SOURCES if "twintower/v1/" not in path.as_posix()]
FORBIDDEN_NAMES = {"utils", "helpers", "common", "misc", "base", "manager"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def run_fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_flow_one_way():
    command = Path(sys.executable).with_name("lint-imports")
    done = subprocess.run([command, "--no-cache"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_every_module_says_what_it_is_for(path):
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))), f"{name_of(path)} has no docstring"


def test_no_module_has_a_name_that_says_nothing():
    assert [name_of(path) for path in SOURCES if path.stem in FORBIDDEN_NAMES] == []


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_every_choice_is_a_documented_frozen_dataclass_named_after_its_file(family):
    for kind in registry.names(family):
        cls = registry.choice(family, kind)
        assert cls.__dataclass_params__.frozen, f"{family}/{kind}"
        documented = meanings_of(cls)
        missing = [field.name for field in dataclasses.fields(cls) if not documented.get(field.name)]
        assert missing == [], f"{family}/{kind}: settings without a line under Attributes"


@pytest.mark.parametrize("family", registry.FAMILIES)
def test_a_family_s_contract_page_says_how_to_add_a_choice(family):
    document = inspect.getdoc(importlib.import_module(f"recsys.{family}")) or ""
    assert "To add one" in document


def test_importing_every_settings_module_does_not_import_tensorflow():
    modules = [
        f"recsys.{family}.{module.name}"
        for family in registry.FAMILIES
        for module in pkgutil.iter_modules(importlib.import_module(f"recsys.{family}").__path__)
    ]
    code = f"import importlib, sys\nfor name in {modules + ['recsys.cli']!r}: importlib.import_module(name)\n"
    assert run_fresh(code + "print('tensorflow' in sys.modules, 'scann' in sys.modules)") == "False False"


def test_what_a_server_needs_of_experiments_imports_no_statistics():
    modules = [f"recsys.experiment.{name}" for name in ("plan", "assignment", "log", "slates", "interleaving")]
    code = f"import importlib, sys\nfor name in {modules!r}: importlib.import_module(name)\n"
    assert run_fresh(code + "print([name for name in ('scipy', 'tea_tasting') if name in sys.modules])") == "[]"


def test_only_one_file_touches_scann():
    touching = re.compile(r"^\s*(import scann|from recsys\.stack import .*\bscann\b)", re.MULTILINE)
    users = [name_of(path) for path in WRITTEN if touching.search(path.read_text(encoding="utf-8"))]
    assert users == ["recsys/indexes/scann.py"]
