"""Exact circular apertures on one image, of one and of ten radii: ztfxr, sep and photutils."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import sep
import xarray as xr
from numpy.typing import NDArray
from photutils.aperture import CircularAperture, aperture_photometry

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


def main() -> None:
    """Ratios in one run: the best of five, in turns."""
    for benchmark, sources in ((Apertures, 10_000), (ManyRadii, 10_000)):
        runs = {}
        for method in benchmark.params[0]:
            job = benchmark()
            job.setup(method, sources)
            runs[method] = job
        best = dict.fromkeys(runs, np.inf)
        for _ in range(5):
            for method, job in runs.items():
                start = time.perf_counter()
                job.run()
                best[method] = min(best[method], time.perf_counter() - start)
        fastest = min(best["sep"], best["photutils"])
        print(benchmark.__name__, {k: round(v, 4) for k, v in best.items()}, f"ratio {best['ztfxr'] / fastest:.2f}")


if __name__ == "__main__":
    main()
