"""How the code reads: sizes and signatures of its functions, and the ways that data take through its files.

``python -m benchmarks.house`` prints both. A way is the tree of calls of one public function, each function followed
once; a *stay* is an uninterrupted visit to one file on it, *rooms* are the files it visits.
"""

from __future__ import annotations

import argparse
import ast
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import numpy as np
import xarray as xr

import ztfxr
from ztfxr import testing

ROOT = Path(ztfxr.__file__).parent


class Way:
    """Records which function of ztfxr called which, in the order of the first calls."""

    def __init__(self) -> None:
        self.calls: dict[CodeType | None, list[CodeType]] = {None: []}

    def __call__(self, frame: FrameType, event: str, _: object) -> None:
        """Note a call; what `sys.setprofile` calls."""
        if event != "call" or not _ours(frame.f_code):
            return
        caller = frame.f_back
        while caller is not None and not _ours(caller.f_code):
            caller = caller.f_back
        callees = self.calls.setdefault(None if caller is None else caller.f_code, [])
        if frame.f_code not in callees:
            callees.append(frame.f_code)

    def rooms(self) -> list[str]:
        """The files that the way visits, one entry a stay."""
        seen: set[CodeType] = set()
        files: list[str] = []
        for room in self._walk(None, seen):
            if not files or files[-1] != room:
                files.append(room)
        return files

    def _walk(self, code: CodeType | None, seen: set[CodeType]) -> Iterator[str]:
        if code is not None:
            yield code.co_filename
        for callee in self.calls.get(code, []):
            if callee not in seen:
                seen.add(callee)
                yield from self._walk(callee, seen)
                if code is not None:
                    yield code.co_filename


def _ours(code: CodeType) -> bool:
    return code.co_filename.startswith(str(ROOT)) and not code.co_name.startswith("<")


def way(function: Callable[[], Any]) -> list[str]:
    """The files on the way of one call."""
    recorder = Way()
    sys.setprofile(recorder)
    try:
        function()
    finally:
        sys.setprofile(None)
    return recorder.rooms()


def sizes() -> dict[str, float]:
    """Numbers of the whole package."""
    lengths, arguments, untyped = [], [], 0
    files: Counter[str] = Counter()
    lines = 0
    for path in ROOT.rglob("*.py"):
        text = path.read_text(encoding="utf-8")
        lines += text.count("\n")
        files[path.parent.relative_to(ROOT).as_posix()] += 1
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                doc = ast.get_docstring(node, clean=False)
                lengths.append((node.end_lineno or 0) - node.lineno + 1 - (doc.count("\n") + 1 if doc else 0))
                given = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
                arguments.append((len([a for a in given if a.arg not in ("self", "cls")]), node.name))
                given += [a for a in (node.args.vararg, node.args.kwarg) if a is not None]
                untyped += sum(_says_any(a.annotation) for a in given)
    lengths.sort()
    return {
        "lines": lines,
        "functions": len(lengths),
        "lines a function, median": statistics.median(lengths),
        "lines a function, 90 %": lengths[int(0.9 * len(lengths))],
        "lines a function, most": lengths[-1],
        "arguments, most": max(arguments)[0],
        "arguments, most but those of difference": max(a for a in arguments if a[1] != "difference")[0],
        "parameters whose type says Any": untyped,
        "files in a folder, most": max(files.values()),
    }


def _says_any(annotation: ast.expr | None) -> bool:
    return annotation is not None and any(isinstance(n, ast.Name) and n.id == "Any" for n in ast.walk(annotation))


def ways() -> dict[str, list[str]]:
    """The ways of four public functions on a small simulated stack."""
    images = testing.make_scene((96, 96), n_epochs=2, n_stars=25, n_galaxies=0, seed=1).images
    first, last = images.isel(time=0, drop=True), images.isel(time=1)
    offset = np.arange(-5, 6)
    psf = xr.DataArray(np.exp(-(offset[:, None] ** 2 + offset**2) / 2.0), dims=("psf_y", "psf_x"))
    places = [(40.0, 41.0), (60.0, 30.0)]
    found = {
        "difference": way(lambda: ztfxr.difference(last, first).compute()),
        "lightcurve": way(lambda: ztfxr.lightcurve(images, places, reference=first).compute()),
        "forced_photometry": way(lambda: ztfxr.forced_photometry(last, places, psf).compute()),
    }
    with tempfile.TemporaryDirectory() as folder:
        found["pipeline.run"] = way(lambda: _run(Path(folder)))
    return found


def _run(folder: Path) -> None:
    made = _samples().make_epochs(folder / "frames", n_epochs=2)
    position = [(float(made.truth["x"]), float(made.truth["y"]))]
    job = ztfxr.pipeline.Job(frames=list(map(str, made.paths)), positions=position, reference=str(made.reference))
    ztfxr.pipeline.run(job, folder / "lc.zarr", workers=1, progress=False)


def _samples() -> Any:
    try:
        from ztfxr import samples
    except ImportError:
        from ztfxr.testing import semireal as samples
    return samples


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    for name, value in sizes().items():
        print(f"{name:45s} {value:g}")
    print(f"\n{'way':45s} stays rooms")
    for name, files in ways().items():
        print(f"{name:45s} {len(files):5d} {len(set(files)):5d}")


if __name__ == "__main__":
    main()
