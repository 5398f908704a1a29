"""One real ZTF quadrant, step by step, and against astropy, sep and ztfimg.

``python -m benchmarks.image`` prints seconds, ratios and memory of the ways from two files to a clean image, and of the
sky position of every pixel. They take turns in one process; ztfimg, which needs older packages, has its own.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

import ztfxr
from benchmarks._data import quadrant_path
from benchmarks.peers.clean import METHODS, labels, labels_by_hand

ROOT, WORKER = Path(__file__).parents[1], Path(__file__).parent / "peers" / "clean.py"
CLEAN = ("by hand", "by hand, in place", "ztfxr", "ztfxr, loaded", "ztfxr, no dask")
PEERS = ("ztfimg", "ztfxr like ztfimg", "ztfxr, boxes of 192", "ztfxr, no dask", "ztfxr")
LABELS = ("labels by hand", "labels")


def sources(frame: xr.Dataset, n: int = 3000) -> xr.Dataset:
    """Ellipses all over a frame."""
    rng = np.random.default_rng(1)
    columns = {
        "x_centroid": rng.uniform(0, frame.sizes["x"], n),
        "y_centroid": rng.uniform(0, frame.sizes["y"], n),
        "semimajor_axis": rng.uniform(1, 4, n),
        "semiminor_axis": np.full(n, 1.0),
        "orientation": rng.uniform(-90, 90, n),
    }
    return xr.Dataset({name: ("source", values) for name, values in columns.items()})


STEPS: dict[str, Callable[[xr.Dataset], xr.DataArray | xr.Dataset]] = {
    "mask": ztfxr.mask,
    "mask grown by 3": lambda frame: ztfxr.mask(frame, grow=3),
    "mask_planes": ztfxr.mask_planes,
    "mask_fractions": ztfxr.mask_fractions,
    "source_mask": lambda frame: ztfxr.source_mask(frame, sources(frame)),
    "background": ztfxr.background,
    "noise": ztfxr.noise,
    "variance": ztfxr.variance,
}


class Steps:
    """One step on a frame in memory."""

    params = (list(STEPS),)
    param_names = ("step",)

    def setup(self, step: str) -> None:
        self.frame, self.run = ztfxr.open_quadrant(quadrant_path(), chunks=False).load(), STEPS[step]
        self.run(self.frame)

    def time_step(self, *_: object) -> None:
        self.run(self.frame)

    def peakmem_step(self, *_: object) -> None:
        self.run(self.frame)


class Clean:
    """From two files to a background-subtracted image, NaN where bad."""

    params = (list(CLEAN),)
    param_names = ("method",)

    def setup(self, method: str) -> None:
        self.run = METHODS[method](str(quadrant_path()))
        self.run()

    def time_clean(self, *_: object) -> None:
        self.run()

    def peakmem_clean(self, *_: object) -> None:
        self.run()


class SkyLabels:
    """The sky position of every pixel."""

    params = (list(LABELS),)
    param_names = ("method",)
    timeout = 120

    def setup(self, method: str) -> None:
        self.run = METHODS[method](str(quadrant_path()))

    def time_labels(self, *_: object) -> None:
        self.run()

    def peakmem_labels(self, *_: object) -> None:
        self.run()


class _Worker:
    """A process that runs methods when it is asked to; see `benchmarks/peers/clean.py`."""

    def __init__(self, path: Path, python: str = sys.executable) -> None:
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        self.process = subprocess.Popen([python, str(WORKER), str(path)], cwd=ROOT, **pipes)

    def ask(self, measure: str, method: str) -> float:
        """One run; `RuntimeError` where the process has failed."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(measure, method, file=self.process.stdin, flush=True)
            return float(self.process.stdout.readline())
        except (OSError, ValueError) as error:
            raise RuntimeError(f"{method} failed; its process said why above") from error

    def __enter__(self) -> _Worker:
        return self

    def __exit__(self, *_: object) -> None:
        with self.process:
            pass


def compare(
    methods: Sequence[str], path: Path, repeats: int, peers_python: str = sys.executable
) -> dict[str, dict[str, float]]:
    """Best seconds and least memory of every method, the methods taking turns."""
    found: dict[str, dict[str, float]] = {method: {} for method in methods}
    python = {method: peers_python if method == "ztfimg" else sys.executable for method in methods}
    with ExitStack() as stack:
        workers = {p: stack.enter_context(_Worker(path, p)) for p in sorted(set(python.values()))}
        for measure, times in (("time", repeats), ("memory", 2)):
            for _, method in product(range(times), methods):
                value = workers[python[method]].ask(measure, method)
                found[method][measure] = min(value, found[method].get(measure, np.inf))
    return found


def label_error(path: Path) -> float:
    """Largest distance, in pixels, between the labels and astropy's positions of all pixels."""
    (ra, dec), (ra0, dec0) = labels(str(path))(), labels_by_hand(str(path))()
    east = ((ra - ra0 + 180.0) % 360.0 - 180.0) * np.cos(np.deg2rad(dec0))
    scale = np.hypot(dec0[1, 0] - dec0[0, 0], (ra0[1, 0] - ra0[0, 0]) * np.cos(np.deg2rad(dec0[0, 0])))
    return float(np.hypot(east, dec - dec0).max() / scale)


def report(title: str, found: dict[str, dict[str, float]]) -> None:
    """Each method, and its ratio to the first."""
    first = next(iter(found.values()))
    print(title)
    for method, values in found.items():
        seconds, memory = values["time"], values["memory"]
        ratio = memory / first["memory"] if first["memory"] else np.nan
        print(f"  {method:20s} {seconds:8.4f} s {seconds / first['time']:7.3f} x  {memory:7.1f} MB {ratio:5.2f} x")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="One ZTF quadrant by ztfxr, by hand and by ztfimg.")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--peers-python", help="interpreter that has ztfimg installed; without it ztfimg is left out")
    options = parser.parse_args()
    path = quadrant_path()
    report("open, mask, background, clean", compare(CLEAN, path, options.repeats))
    if options.peers_python:
        report("against ztfimg", compare(PEERS, path, options.repeats, options.peers_python))
    report("sky position of 9.5 million pixels", compare(LABELS, path, max(options.repeats // 5, 1)))
    print(f"  the labels are off by {label_error(path):.1e} pixels at most")


if __name__ == "__main__":
    main()
