"""Imports point downwards only (design §4), those inside functions counted; a toy tree tests the rules too."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import ztfxr

RANKS = {
    "errors": -1,
    "_quiet": 0,
    "arrays": 0,
    "schema": 1,
    "wcs": 2,
    "io": 3,
    "ops": 4,
    "dia": 5,
    "photometry": 5.5,
    "store": 6,
    "samples": 6,
    "testing": 6.5,
    "plot": 7,
    "viewer": 7.5,
    "pipeline": 7,
    "archive": 7.5,
    "accessor": 8,
    "recipes": 8,
    "cli": 9,
    "__main__": 10,
}
NOT_IN_ARRAYS = ("xarray", "dask", "distributed", "zarr", "astropy.io")


def module_names(root: Path) -> dict[str, Path]:
    """Dotted name to file of every module of the package in `root`."""
    found = {}
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


def imports(path: Path, name: str, known: set[str]) -> Iterator[str]:
    """Every module that a file imports, at any depth; ``from package import module`` is the module."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package.rsplit(".", node.level - 1)[0] if node.level else ""
            base = ".".join(part for part in (above, node.module) if part)
            for alias in node.names:
                yield f"{base}.{alias.name}" if f"{base}.{alias.name}" in known else base
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("__import__", "importlib.import_module"):
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def graph(root: Path) -> dict[str, set[str]]:
    """Every module of the package to all that it imports."""
    modules = module_names(root)
    return {name: set(imports(path, name, set(modules))) for name, path in modules.items()}


def violations(root: Path) -> list[str]:
    """What breaks the rules, one line each."""
    package = root.name
    found = []
    for name, targets in graph(root).items():
        layer = name.split(".")[1] if "." in name else ""
        if layer and layer not in RANKS:
            found.append(f"{name} has no rank")
        if not layer or layer not in RANKS:
            continue
        for target in sorted(targets):
            if target == package:
                found.append(f"{name} imports {package} itself")
            elif target.startswith(f"{package}."):
                other = target.split(".")[1]
                if other != layer and not RANKS.get(other, 99) < RANKS[layer]:
                    found.append(f"{name} imports {target}, which is not below it")
            elif layer == "arrays" and f"{target}.".startswith(tuple(f"{n}." for n in NOT_IN_ARRAYS)):
                found.append(f"{name} imports {target}")
    return found


def cycle(root: Path) -> list[str]:
    """One cycle of imports, empty where there is none."""
    edges = graph(root)
    inside = {name: {t for t in targets if t in edges} for name, targets in edges.items()}
    try:
        TopologicalSorter(inside).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


ROOT = Path(ztfxr.__file__).parent


def test_imports_point_downwards() -> None:
    assert violations(ROOT) == []


def test_no_import_cycle() -> None:
    assert cycle(ROOT) == []


def test_every_folder_is_a_package() -> None:
    folders = {path.parent for path in ROOT.rglob("*.py")}
    assert [f for f in folders if not (f / "__init__.py").is_file()] == []


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A tree of three layers that obeys the rules."""
    root = tmp_path / "toy"
    write(root / "__init__.py", "from toy.io.fits import read")
    write(root / "errors.py", "")
    write(root / "io" / "__init__.py", "")
    write(root / "io" / "names.py", "from ..errors import x")
    write(root / "io" / "fits.py", "from toy.io.names import x\nfrom . import names\nfrom toy import errors")
    write(root / "arrays" / "__init__.py", "")
    write(root / "arrays" / "bits.py", "import numpy\nimport xarrayish")
    return root


def write(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def test_toy_obeys(toy: Path) -> None:
    assert violations(toy) == []
    assert cycle(toy) == []


@pytest.mark.parametrize(
    ("module", "text", "message"),
    [
        ("errors.py", "from toy.io import fits", "toy.errors imports toy.io.fits, which is not below it"),
        ("errors.py", "def f():\n    from .io.fits import g", "toy.errors imports toy.io.fits, which is not below"),
        ("errors.py", "import importlib\nimportlib.import_module('toy.cli')", "toy.errors imports toy.cli"),
        ("io/names.py", "import toy", "toy.io.names imports toy itself"),
        ("io/names.py", "from toy import read", "toy.io.names imports toy itself"),
        ("plot.py", "import toy.pipeline", "toy.plot imports toy.pipeline, which is not below it"),
        ("dia.py", "import toy.photometry", "toy.dia imports toy.photometry, which is not below it"),
        ("arrays/bits.py", "import xarray as xr", "toy.arrays.bits imports xarray"),
        ("arrays/bits.py", "if 1:\n    import dask.array", "toy.arrays.bits imports dask.array"),
        ("arrays/bits.py", "from astropy.io import fits", "toy.arrays.bits imports astropy.io"),
        ("novelty.py", "", "toy.novelty has no rank"),
    ],
)
def test_toy_violations(toy: Path, module: str, text: str, message: str) -> None:
    write(toy / module, text)
    found = violations(toy)
    assert len(found) == 1
    assert found[0].startswith(message)


def test_photometry_may_import_dia(toy: Path) -> None:
    write(toy / "photometry.py", "import toy.dia")
    assert violations(toy) == []


def test_toy_cycle(toy: Path) -> None:
    write(toy / "io" / "names.py", "def f():\n    from toy.io.fits import read")
    assert set(cycle(toy)) == {"toy.io.names", "toy.io.fits"}
