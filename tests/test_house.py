"""The house stays one that strangers understand: small functions, few arguments, small rooms, full typing."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import ztfxr

ROOT = Path(ztfxr.__file__).parent
MANY_ARGUMENTS = {"difference"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


def modules() -> dict[str, str]:
    """The text of every module by its path in the package."""
    return {path.relative_to(ROOT).as_posix(): path.read_text(encoding="utf-8") for path in ROOT.rglob("*.py")}


def functions() -> Iterator[tuple[str, Function]]:
    """Every function with a name that says where it is."""
    for path, text in modules().items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, Function):
                yield f"{path}:{node.lineno} {node.name}", node


def arguments(function: Function) -> list[ast.arg]:
    given = function.args
    return [a for a in (*given.posonlyargs, *given.args, *given.kwonlyargs) if a.arg not in ("self", "cls")]


def code_lines(function: Function) -> int:
    """Lines of a function without its docstring."""
    doc = ast.get_docstring(function, clean=False)
    return (function.end_lineno or 0) - function.lineno + 1 - (doc.count("\n") + 1 if doc else 0)


def test_functions_are_small() -> None:
    lengths = {where: code_lines(function) for where, function in functions()}
    assert {where: n for where, n in lengths.items() if n > 80} == {}
    assert sorted(lengths.values())[int(0.9 * len(lengths))] <= 25


def test_functions_take_few_arguments() -> None:
    many = {where: len(arguments(f)) for where, f in functions() if f.name not in MANY_ARGUMENTS}
    assert {where: n for where, n in many.items() if n > 12} == {}


def test_functions_are_annotated() -> None:
    bare = [w for w, f in functions() if f.returns is None or any(a.annotation is None for a in arguments(f))]
    assert bare == []


def test_rooms_are_small() -> None:
    assert {path: n for path, text in modules().items() if (n := text.count("\n")) > 600} == {}
    files = Counter(Path(path).parent.as_posix() for path in modules())
    assert {folder: n for folder, n in files.items() if n > 15} == {}
