"""Two mistakes that Python does not report: a zero taken for a missing number, a base class's attribute overwritten."""

from __future__ import annotations

import ast
import importlib
import inspect
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.architecture.test_architecture import ROOT, WRITTEN, name_of

OPTIONAL_NUMBERS = {"int | None", "float | None", "int | float | None"}
OWN = ("recsys", "serving", "twintower")


def optional_fields() -> set[str]:
    """Attributes that every class of the project that has them declares as a number or None."""
    declared: dict[str, set[bool]] = {}
    for path in WRITTEN:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            for statement in node.body if isinstance(node, ast.ClassDef) else ():
                if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                    declared.setdefault(statement.target.id, set()).add(_is_optional_number(statement.annotation))
    return {name for name, optional in declared.items() if optional == {True}}


def _is_optional_number(annotation: ast.expr) -> bool:
    if isinstance(annotation, ast.Subscript) and ast.unparse(annotation.value) == "Annotated":
        annotation = annotation.slice.elts[0]  # type: ignore[attr-defined]
    return ast.unparse(annotation) in OPTIONAL_NUMBERS


FIELDS = optional_fields()


def truth_tests(function: ast.AST) -> Iterator[ast.expr]:
    for node in ast.walk(function):
        if isinstance(node, (ast.If, ast.IfExp, ast.While, ast.Assert)):
            yield node.test
        elif isinstance(node, ast.BoolOp):
            yield from node.values
        elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
            yield node.operand


def zeros_taken_for_none(tree: ast.AST) -> Iterator[int]:
    """Yield the lines that test an optional number for truth, where 0 and None differ."""
    for function in ast.walk(tree):
        if not isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
            continue
        arguments = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        optional = {one.arg for one in arguments if one.annotation and _is_optional_number(one.annotation)}
        for test in truth_tests(function):
            is_argument = isinstance(test, ast.Name) and test.id in optional
            is_field = isinstance(test, ast.Attribute) and test.attr in FIELDS
            if is_argument or is_field:
                yield test.lineno


@pytest.mark.parametrize("path", WRITTEN, ids=name_of)
def test_an_optional_number_is_compared_with_none_because_0_is_a_number(path):
    lines = sorted(set(zeros_taken_for_none(ast.parse(path.read_text(encoding="utf-8")))))
    assert lines == [], f"{name_of(path)}: a number that may be None is tested for truth on these lines"


def test_the_rule_finds_a_zero_that_is_taken_for_none():
    code = "def call(timeout_s: float | None = None):\n    return timeout_s or 10.0\n"
    assert list(zeros_taken_for_none(ast.parse(code))) == [2]


def classes_of(path: Path) -> list[type]:
    module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    return [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]


def private_names(cls: type) -> set[str]:
    """Return the private names that a class sets; a method that calls its base's own only adds to it."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError, SyntaxError):  # written in C, or generated
        return {name for name in vars(cls) if _is_private(name)}
    (body,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    methods = [node for node in body.body if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))]
    names = {method.name for method in methods if f"super().{method.name}(" not in ast.unparse(method)}
    for node in ast.walk(body):
        is_own = isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "self"
        if is_own and isinstance(node.ctx, ast.Store):
            names.add(node.attr)
    for statement in body.body:
        targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
        names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if _is_private(name)}


def _is_private(name: str) -> bool:
    """Return whether a name is its class's own; `_missing_` and `__len__` are there to be defined."""
    return name.startswith("_") and not name.endswith("_")


def overwritten(cls: type) -> dict[str, str]:
    """Return the private names of foreign base classes that a class of the project sets, with the base."""
    own = private_names(cls)
    foreign = [base for base in cls.__mro__[1:] if base.__module__.partition(".")[0] not in OWN]
    return {name: base.__qualname__ for base in foreign for name in sorted(own & private_names(base))}


@pytest.mark.parametrize("path", [path for path in WRITTEN if path.stem != "__main__"], ids=name_of)
def test_no_class_overwrites_a_private_attribute_of_a_foreign_base_class(path):
    found = {cls.__qualname__: names for cls in classes_of(path) if (names := overwritten(cls))}
    assert found == {}


def test_the_rule_finds_an_overwritten_attribute():
    class Pool(ThreadPoolExecutor):
        def __init__(self) -> None:
            super().__init__(1)
            self._threads = 3

    assert overwritten(Pool) == {"_threads": "ThreadPoolExecutor"}
