"""Forced PSF fits with known positions, and PSFs from stars: ztfxr and photutils, on one image.

``python -m benchmarks.psf`` prints microseconds per source and ratios; the methods take turns in one process, on one
thread.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping

import numpy as np
import photutils
import xarray as xr
from astropy.nddata import NDData
from astropy.table import Table
from numpy.typing import NDArray
from photutils.psf import CircularGaussianPRF, EPSFBuilder, ImagePSF, PSFPhotometry, SourceGrouper, extract_stars
from scipy.special import erf
from threadpoolctl import threadpool_limits

import ztfxr
from benchmarks._scenes import GAIN, SKY_NOISE, Sources, draw

Floats = NDArray[np.float64]

SIGMA, STEP, FIT_SIZE = 1.1, 18, 17
PAIR_STEP, PAIR_SEPARATION, GROUP_RADIUS = 26, 3.9, 8.0


def _pairs(sources: int, seed: int = 0) -> tuple[Sources, tuple[int, int]]:
    """Pairs of stars 1.5 FWHM apart, and each pair far from the others."""
    first, _ = _lattice(sources // 2, seed, PAIR_STEP)
    second, shape = _lattice(sources // 2, seed + 1, PAIR_STEP)
    angle = np.random.default_rng(seed + 2).uniform(0, 2 * np.pi, len(first.x))
    x = np.r_[first.x, first.x + PAIR_SEPARATION * np.cos(angle)]
    y = np.r_[first.y, first.y + PAIR_SEPARATION * np.sin(angle)]
    return Sources(y, x, np.r_[first.flux, second.flux]), shape


def _lattice(sources: int, seed: int = 0, step: int = STEP) -> tuple[Sources, tuple[int, int]]:
    """Isolated stars on a lattice, each somewhere within its pixel."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(sources)))
    place = 20.0 + step * np.arange(side)
    y, x = (p.ravel()[:sources] + rng.uniform(-0.5, 0.5, sources) for p in np.meshgrid(place, place, indexing="ij"))
    size = 40 + step * side
    return Sources(y, x, np.exp(rng.uniform(np.log(500), np.log(5e4), sources))), (size, size)


def _observed(sources: int, *, pairs: bool = False) -> tuple[Sources, Floats, Floats]:
    stars, shape = (_pairs if pairs else _lattice)(sources)
    truth = draw(shape, stars, np.full(len(stars.x), SIGMA))
    variance = SKY_NOISE**2 + truth / GAIN
    return stars, truth + np.random.default_rng(1).normal(size=shape) * np.sqrt(variance), variance


def _table() -> tuple[Floats, Floats]:
    """Four nodes per pixel, and the true PSF on them."""
    offset = np.arange(-40, 41) / 4
    strip = 0.5 * np.diff(erf((offset[:, None] + [-0.5, 0.5]) / SIGMA / np.sqrt(2)), axis=1)[:, 0]
    return offset, np.outer(strip, strip)


def gaussian_psf(terms: int = 6) -> xr.Dataset:
    """The true PSF, with the six terms that a quadratic variation over the frame has."""
    offset, table = _table()
    values = table * np.array([1, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9])[:terms, None, None]
    coords = {"psf_dy": offset, "psf_dx": offset, "psf_origin": ("axis", [500, 500]), "psf_scale": ("axis", [500, 500])}
    return xr.Dataset({"psf_coeff": (("psf_term", "psf_dy", "psf_dx"), values)}, coords)


class ForcedPhotometry:
    """Fluxes at known positions. photutils fits each star by an optimiser; ours solves for all of them.

    The PSF of photutils is its fastest, a formula, or a table as ours; ours is constant, or varies over the frame.
    """

    params = (["ztfxr", "ztfxr, constant PSF", "photutils", "photutils, PSF table"], [100, 1000, 10_000])
    param_names = ("method", "sources")
    pairs = False

    def setup(self, method: str, sources: int) -> None:
        self.stars, self.image, self.variance = _observed(sources, pairs=self.pairs)
        if method.startswith("photutils") and sources > 1000:
            raise NotImplementedError("photutils takes a millisecond a star: 1000 of them say enough")
        self.psf = gaussian_psf(1 if method.endswith("constant PSF") else 6)
        self.table = method.endswith("table")
        self.run: Callable[[], Floats] = self.photutils if method.startswith("photutils") else self.ours
        self.run()

    def ours(self) -> Floats:
        found = ztfxr.forced_photometry(
            xr.DataArray(self.image, dims=("y", "x")),
            np.column_stack([self.stars.x, self.stars.y]),
            self.psf,
            background="none",
            fit={"radius": FIT_SIZE / 2, "group_radius": GROUP_RADIUS},
            variance=xr.DataArray(self.variance, dims=("y", "x")),
        )
        return np.asarray(found["flux"], dtype=np.float64)

    def photutils(self) -> Floats:
        psf = ImagePSF(_table()[1], oversampling=4) if self.table else CircularGaussianPRF(fwhm=2.3548200450309 * SIGMA)
        for name in {"x_0", "y_0", "fwhm"} & set(psf.param_names):
            getattr(psf, name).fixed = True
        start = Table({"x": self.stars.x, "y": self.stars.y, "flux": self.stars.flux})
        grouper = SourceGrouper(GROUP_RADIUS) if self.pairs else None
        fit = PSFPhotometry(psf, (FIT_SIZE, FIT_SIZE), finder=None, grouper=grouper)
        return np.asarray(fit(self.image, error=np.sqrt(self.variance), init_params=start)["flux_fit"])

    def time_fit(self, *_: object) -> None:
        self.run()

    def peakmem_fit(self, *_: object) -> None:
        self.run()


class Neighbors(ForcedPhotometry):
    """Pairs of stars 1.5 FWHM apart, each solved jointly."""

    pairs = True


class BuildPSF:
    """The PSF of an image from its stars; photutils gives one for the whole image, ours varies over it."""

    params = (["ztfxr", "photutils"], [100, 300])
    param_names = ("method", "stars")

    def setup(self, method: str, stars: int) -> None:
        self.stars, self.image, self.variance = _observed(stars)
        self.run: Callable[[], Floats] = {"ztfxr": self.ours, "photutils": self.photutils}[method]
        if method == "ztfxr":  # compiles its loops, which photutils does not have
            self.run()

    def ours(self) -> Floats:
        """Flux of the stars over the truth, by the PSF that was built."""
        image = xr.DataArray(self.image, dims=("y", "x"))
        variance = xr.DataArray(self.variance, dims=("y", "x"))
        psf = ztfxr.build_psf(image, variance=variance, background=False, max_order=2)
        places = np.column_stack([self.stars.x, self.stars.y])
        found = ztfxr.forced_photometry(image, places, psf, background="none", variance=variance)
        return np.asarray(found["flux"] / self.stars.flux)

    def photutils(self) -> Floats:
        cut = extract_stars(NDData(self.image), Table({"x": self.stars.x, "y": self.stars.y}), size=21)
        epsf, _ = EPSFBuilder(oversampling=4, maxiters=10, progress_bar=False)(cut)
        psf = ImagePSF(epsf.data, oversampling=4)
        psf.x_0.fixed = psf.y_0.fixed = True
        start = Table({"x": self.stars.x, "y": self.stars.y, "flux": self.stars.flux})
        fit = PSFPhotometry(psf, (FIT_SIZE, FIT_SIZE), finder=None)
        found = fit(self.image, error=np.sqrt(self.variance), init_params=start)
        return np.asarray(found["flux_fit"] / self.stars.flux)

    def time_build(self, *_: object) -> None:
        self.run()

    def peakmem_build(self, *_: object) -> None:
        self.run()


def compare(benchmark: type[ForcedPhotometry], sources: int, repeats: int) -> dict[str, float]:
    """Best seconds per source of every method, the methods taking turns."""
    jobs = {method: benchmark() for method in benchmark.params[0]}
    counts = {method: sources if method.startswith("ztfxr") else min(sources, 1000) for method in jobs}
    best = dict.fromkeys(jobs, np.inf)
    for method, job in jobs.items():
        job.setup(method, counts[method])
    for _ in range(repeats):
        for method, job in jobs.items():
            start = time.perf_counter()
            job.run()
            best[method] = min(best[method], (time.perf_counter() - start) / counts[method])
    return best


def report(title: str, found: Mapping[str, float]) -> None:
    """Each method, and how many times as long as ztfxr, with a PSF that varies, it takes."""
    print(title)
    for method, seconds in found.items():
        each = f"{1e6 * seconds:9.1f} us a source {1 / seconds:9.0f} fits/s"
        print(f"  {method:22s} {each} {seconds / found['ztfxr']:8.1f} x")


def main() -> None:
    """Print the comparison."""
    parser = argparse.ArgumentParser(description="Forced PSF fits by ztfxr and photutils, PSF evaluation included.")
    parser.add_argument("--sources", type=int, default=10_000, help="for ztfxr; photutils gets 1,000 at most")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    print(f"photutils {photutils.__version__}, one thread, {FIT_SIZE} x {FIT_SIZE} px a source")
    with threadpool_limits(1):
        report("isolated stars", compare(ForcedPhotometry, options.sources, options.repeats))
        report("pairs 1.5 FWHM apart, solved jointly", compare(Neighbors, options.sources, options.repeats))


if __name__ == "__main__":
    main()
