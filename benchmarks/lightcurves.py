"""Light curves of many sources over many epochs of whole frames: time, memory and size of the graph.

``python -m benchmarks.lightcurves`` measures 10,000 sources on 50 and on 200 epochs, each in a new process, by forced
photometry on the frames and by way of stamps of 63 pixels, 159 MB an epoch. Frames are made as they are needed, each
from its own number: what is measured holds making them, computing, and writing light curves to a zarr store, in which
every epoch is a chunk.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import dask.array as da
import numpy as np
import xarray as xr
from numpy.typing import NDArray

import ztfxr
from benchmarks._scenes import GAIN, SKY_NOISE, Sources, draw
from benchmarks.psf import SIGMA, gaussian_psf
from ztfxr.pipeline.planning import _peak_memory

Images = NDArray[np.float32]

SKY, MARGIN, STAMP_SIZE, PSF_SIZE = 200.0, 40, 63, 25
FRAME_SIZE, SMALL_FRAME_SIZE = (3080, 3072), (400, 400)
_folders: list[TemporaryDirectory[str]] = []


@cache
def scene(shape: tuple[int, int], sources: int) -> tuple[Sources, Images]:
    """Stars on a jittered lattice, and their light without noise."""
    rng = np.random.default_rng(0)
    rows, columns = (int(np.ceil(np.sqrt(sources * n / m))) for n, m in (shape, shape[::-1]))
    place = np.meshgrid(*(np.linspace(MARGIN, n - 1 - MARGIN, k) for n, k in zip(shape, (rows, columns), strict=True)))
    y, x = (p.ravel()[:sources] + rng.uniform(-3, 3, sources) for p in place)
    stars = Sources(y, x, np.exp(rng.uniform(np.log(500), np.log(5e4), sources)))
    return stars, draw(shape, stars, np.full(sources, SIGMA)).astype(np.float32)


def make_epoch(number: NDArray[np.int64], *, shape: tuple[int, int], sources: int) -> Images:
    """The frame (1, y, x) of one epoch: stars, sky and noise, the same at every call."""
    rng = np.random.default_rng(int(number[0]))
    light = scene(shape, sources)[1]
    noise = rng.standard_normal(shape, dtype=np.float32)
    noise *= np.sqrt(np.float32(SKY_NOISE**2) + light / np.float32(GAIN))
    noise += light
    noise += np.float32(SKY)
    return noise[None]


def make_stack(epochs: int, shape: tuple[int, int], sources: int) -> xr.DataArray:
    """A lazy stack (time, y, x), one epoch a chunk."""
    numbers = da.arange(epochs, chunks=1)
    axes = {"new_axis": [1, 2], "chunks": ((1,) * epochs, (shape[0],), (shape[1],))}
    frames = numbers.map_blocks(make_epoch, shape=shape, sources=sources, dtype=np.float32, **axes)
    coords = {"y": np.arange(shape[0]), "x": np.arange(shape[1]), "gain": GAIN}
    return xr.DataArray(frames, coords, ("time", "y", "x"), name="sci")


def on_frames(stack: xr.DataArray, places: NDArray[np.float64]) -> xr.Dataset:
    """Forced photometry on the frames, after their background."""
    return ztfxr.forced_photometry(stack, places, gaussian_psf())


def on_stamps(stack: xr.DataArray, places: NDArray[np.float64]) -> xr.Dataset:
    """The same by hand: stamps of the frames less their background, and the optimal sum of the pixels in the middle."""
    cut = ztfxr.stamps(stack - ztfxr.background(stack)["background"], places, STAMP_SIZE)
    psf = ztfxr.psf_at(gaussian_psf(), *places.T, size=PSF_SIZE)
    psf = psf.rename(psf_y="dy", psf_x="dx").drop_vars(["x_pixel", "y_pixel"]).astype(np.float32)
    middle = slice(-(PSF_SIZE // 2), PSF_SIZE // 2)
    total = xr.dot(cut.sel(dy=middle, dx=middle), psf, dim=["dy", "dx"])
    flux = total.astype(np.float64) / (psf.astype(np.float64) ** 2).sum(["dy", "dx"])
    return xr.Dataset({"flux": flux.drop_vars(["y", "x"], errors="ignore")})


LAYOUTS: dict[str, Callable[[xr.DataArray, NDArray[np.float64]], xr.Dataset]] = {
    "frames": on_frames,
    "stamps": on_stamps,
}


def curves(layout: str, epochs: int, sources: int, shape: tuple[int, int] = FRAME_SIZE) -> xr.Dataset:
    """Lazy light curves (time, source)."""
    stars, _ = scene(shape, sources)
    return LAYOUTS[layout](make_stack(epochs, shape, sources), np.column_stack([stars.x, stars.y]))


def write(lazy: xr.Dataset, store: Path) -> None:
    """Compute light curves into a store, epoch by epoch: `ztfxr.to_zarr` would first gather those of all epochs."""
    lazy.to_zarr(store, mode="w", zarr_format=3, consolidated=False)


class LightCurves:
    """A few epochs of a small frame, from frames to a store."""

    params = (list(LAYOUTS), [100, 200])
    param_names = ("layout", "sources")

    def setup(self, layout: str, sources: int) -> None:
        self._folder = TemporaryDirectory(prefix="ztfxr-benchmark-")
        _folders.append(self._folder)
        self._lazy = curves(layout, 4, sources, SMALL_FRAME_SIZE)

    def teardown(self, *_: object) -> None:
        self._folder.cleanup()

    def time_write(self, *_: object) -> None:
        write(self._lazy, Path(self._folder.name) / "curves.zarr")

    def peakmem_write(self, *_: object) -> None:
        self.time_write()


def measure(layout: str, epochs: int, sources: int, store: Path) -> dict[str, float]:
    """Numbers of one run in this process, after two epochs that warm up."""
    write(curves(layout, 2, sources), store.with_name("warm.zarr"))
    before, start = _peak_memory(), time.perf_counter()
    lazy = curves(layout, epochs, sources)
    built, spent = time.perf_counter(), time.process_time()
    write(lazy, store)
    done, spent = time.perf_counter(), time.process_time() - spent
    made = [make_seconds(number, sources) for number in range(3)]
    return {
        "seconds_per_epoch": (done - built) / epochs,
        "cpu_seconds_per_epoch": spent / epochs,
        "of_which_making": min(made),
        "peak_mb": _peak_memory() / 1e6,
        "peak_mb_of_two": before / 1e6,
        "tasks": len(dict(lazy.__dask_graph__() or {})),
        "graph_seconds": built - start,
    }


def make_seconds(number: int, sources: int) -> float:
    """Seconds that making a frame takes."""
    start = time.perf_counter()
    make_epoch(np.array([number]), shape=FRAME_SIZE, sources=sources)
    return time.perf_counter() - start


def in_new_process(layout: str, epochs: int, sources: int) -> dict[str, float]:
    with TemporaryDirectory(prefix="ztfxr-benchmark-") as folder:
        arguments = ["--measure", layout, "--epochs", str(epochs), "--sources", str(sources), "--store", f"{folder}/c"]
        done = subprocess.run([sys.executable, "-m", "benchmarks.lightcurves", *arguments], capture_output=True)
    if done.returncode:
        raise RuntimeError(done.stderr.decode())
    return dict(json.loads(done.stdout.decode().splitlines()[-1]))


def line(epochs: int, found: dict[str, float]) -> str:
    """The numbers of one run, in words."""
    return (
        f"  {epochs:5d} epochs: {found['seconds_per_epoch']:.3f} s an epoch ({found['cpu_seconds_per_epoch']:.3f} s of "
        f"CPU, {found['of_which_making']:.3f} s of it to make a frame); peak {found['peak_mb']:.0f} MB (of two epochs "
        f"{found['peak_mb_of_two']:.0f}); {found['tasks']} tasks, {found['tasks'] / epochs:.1f} an epoch, laid out in "
        f"{found['graph_seconds']:.2f} s"
    )


def main() -> None:
    """Print the numbers of every layout and number of epochs."""
    parser = argparse.ArgumentParser(description="Light curves of many sources over many epochs of whole frames.")
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--layouts", choices=list(LAYOUTS), nargs="+", default=list(LAYOUTS))
    parser.add_argument("--measure", choices=list(LAYOUTS), help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.epochs[0], options.sources, options.store)))
        return
    for layout in options.layouts:
        print(f"{options.sources} sources, by way of {layout}")
        for epochs in options.epochs:
            print(line(epochs, in_new_process(layout, epochs, options.sources)), flush=True)


if __name__ == "__main__":
    main()
