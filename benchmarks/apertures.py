"""Exact circular apertures on one image, of one and of ten radii: ztfxr, sep and photutils.

``python -m benchmarks.apertures`` prints seconds and ratios; the methods take turns in one process, on one thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
import photutils
import sep
import xarray as xr
from numpy.typing import NDArray
from photutils.aperture import CircularAperture, aperture_photometry
from threadpoolctl import threadpool_limits

import ztfxr
from benchmarks._scenes import make_pair

Floats = NDArray[np.float64]

RADIUS, IMAGE_SIZE = 4.0, 2048
RADII = np.linspace(2.0, 11.0, 10)


class Apertures:
    """Sums with errors and mask at many positions. ztfxr and sep make up for masked area, photutils does not."""

    params = (["ztfxr", "sep", "photutils"], [100, 10_000])
    param_names = ("method", "sources")

    def setup(self, method: str, sources: int) -> None:
        pair = make_pair(512 if sources == 100 else IMAGE_SIZE)
        self.image, self.variance, self.bad = pair.science, pair.science_variance, pair.science_bad
        self.error = np.sqrt(self.variance)
        rng = np.random.default_rng(1)
        self.x, self.y = rng.uniform(20, len(self.image) - 21, (2, sources))
        methods: dict[str, Callable[[], Floats]] = {"ztfxr": self.ours, "sep": self.sep, "photutils": self.photutils}
        self.run = methods[method]
        self.run()

    def ours(self) -> Floats:
        dims = ("y", "x")
        found = ztfxr.aperture_photometry(
            xr.DataArray(self.image, dims=dims),
            np.column_stack([self.x, self.y]),
            radius=RADIUS,
            variance=xr.DataArray(self.variance, dims=dims),
            mask=xr.DataArray(self.bad, dims=dims),
        )
        return np.asarray(found["flux"], dtype=np.float64)

    def sep(self) -> Floats:
        flux, _, _ = sep.sum_circle(self.image, self.x, self.y, RADIUS, err=self.error, mask=self.bad, subpix=0)
        return np.asarray(flux)

    def photutils(self) -> Floats:
        apertures = CircularAperture(np.column_stack([self.x, self.y]), RADIUS)
        table = aperture_photometry(self.image, apertures, error=self.error, mask=self.bad)
        return np.asarray(table["aperture_sum"])

    def time_sum(self, *_: object) -> None:
        self.run()

    def peakmem_sum(self, *_: object) -> None:
        self.run()


class ManyRadii(Apertures):
    """Ten radii at every position: in one call where a program can."""

    def ours(self) -> Floats:
        dims = ("y", "x")
        found = ztfxr.aperture_photometry(
            xr.DataArray(self.image, dims=dims),
            np.column_stack([self.x, self.y]),
            radius=RADII,
            variance=xr.DataArray(self.variance, dims=dims),
            mask=xr.DataArray(self.bad, dims=dims),
        )
        return np.asarray(found["flux"], dtype=np.float64)

    def sep(self) -> Floats:
        options = {"err": self.error, "mask": self.bad, "subpix": 0}
        return np.stack([sep.sum_circle(self.image, self.x, self.y, r, **options)[0] for r in RADII], axis=-1)

    def photutils(self) -> Floats:
        apertures = [CircularAperture(np.column_stack([self.x, self.y]), r) for r in RADII]
        table = aperture_photometry(self.image, apertures, error=self.error, mask=self.bad)
        return np.stack([np.asarray(table[f"aperture_sum_{k}"]) for k in range(len(RADII))], axis=-1)


def compare(benchmark: type[Apertures], sources: int, repeats: int) -> dict[str, float]:
    """Best seconds of every method, the methods taking turns."""
    jobs = {method: benchmark() for method in benchmark.params[0]}
    best = dict.fromkeys(jobs, np.inf)
    for method, job in jobs.items():
        job.setup(method, sources)
    for _ in range(repeats):
        for method, job in jobs.items():
            start = time.perf_counter()
            job.run()
            best[method] = min(best[method], time.perf_counter() - start)
    return best


def report(title: str, found: Mapping[str, float]) -> None:
    """Each method, and ztfxr over the faster of the others."""
    fastest = min(seconds for method, seconds in found.items() if method != "ztfxr")
    print(title)
    for method, seconds in found.items():
        print(f"  {method:10s} {seconds:8.4f} s {seconds / fastest:6.2f} x")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="Exact circular apertures by ztfxr, sep and photutils.")
    parser.add_argument("--sources", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    print(f"photutils {photutils.__version__}, sep {sep.__version__}, one thread; over the faster of the two")
    with threadpool_limits(1):
        for benchmark, radii in ((ManyRadii, f"{len(RADII)} radii"), (Apertures, "one radius")):
            found = compare(benchmark, options.sources, options.repeats)
            report(f"{options.sources} apertures, {radii}, with errors and mask", found)


if __name__ == "__main__":
    main()
