"""Forced PSF fits with known positions, and PSFs from stars: ztfxr and photutils, on one image."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import xarray as xr
from astropy.nddata import NDData
from astropy.table import Table
from numpy.typing import NDArray
from photutils.psf import CircularGaussianPRF, EPSFBuilder, ImagePSF, PSFPhotometry, extract_stars
from scipy.special import erf

import ztfxr
from benchmarks._scenes import GAIN, SKY_NOISE, Sources, draw

Floats = NDArray[np.float64]

SIGMA, STEP, FIT_SIZE = 1.1, 18, 17


def _lattice(sources: int, seed: int = 0) -> tuple[Sources, tuple[int, int]]:
    """Isolated stars on a lattice, each somewhere within its pixel."""
    rng = np.random.default_rng(seed)
    side = int(np.ceil(np.sqrt(sources)))
    place = 20.0 + STEP * np.arange(side)
    y, x = (p.ravel()[:sources] + rng.uniform(-0.5, 0.5, sources) for p in np.meshgrid(place, place, indexing="ij"))
    size = 40 + STEP * side
    return Sources(y, x, np.exp(rng.uniform(np.log(500), np.log(5e4), sources))), (size, size)


def _observed(sources: int) -> tuple[Sources, Floats, Floats]:
    stars, shape = _lattice(sources)
    truth = draw(shape, stars, np.full(sources, SIGMA))
    variance = SKY_NOISE**2 + truth / GAIN
    return stars, truth + np.random.default_rng(1).normal(size=shape) * np.sqrt(variance), variance


def _gaussian_psf() -> xr.Dataset:
    """The true PSF on four nodes per pixel, with the six terms that a quadratic variation over the frame has."""
    offset = np.arange(-40, 41) / 4
    strip = 0.5 * np.diff(erf((offset[:, None] + [-0.5, 0.5]) / SIGMA / np.sqrt(2)), axis=1)[:, 0]
    values = np.outer(strip, strip) * np.array([1, 1e-9, 1e-9, 1e-9, 1e-9, 1e-9])[:, None, None]
    coords = {"psf_dy": offset, "psf_dx": offset, "psf_origin": ("axis", [500, 500]), "psf_scale": ("axis", [500, 500])}
    return xr.Dataset({"psf_coeff": (("psf_term", "psf_dy", "psf_dx"), values)}, coords)


class ForcedPhotometry:
    """Fluxes at known positions. photutils fits each star by an optimiser; ours solves for all of them."""

    params = (["ztfxr", "photutils"], [100, 1000, 10_000])
    param_names = ("method", "sources")

    def setup(self, method: str, sources: int) -> None:
        self.stars, self.image, self.variance = _observed(sources)
        methods: dict[str, Callable[[], Floats]] = {"ztfxr": self.ours, "photutils": self.photutils}
        if method == "photutils" and sources > 1000:
            raise NotImplementedError("photutils takes a millisecond a star: 1000 of them say enough")
        self.psf = _gaussian_psf()
        self.run = methods[method]
        self.run()

    def ours(self) -> Floats:
        found = ztfxr.forced_photometry(
            xr.DataArray(self.image, dims=("y", "x")),
            np.column_stack([self.stars.x, self.stars.y]),
            self.psf,
            background="none",
            radius=FIT_SIZE / 2,
            variance=xr.DataArray(self.variance, dims=("y", "x")),
        )
        return np.asarray(found["flux"], dtype=np.float64)

    def photutils(self) -> Floats:
        psf = CircularGaussianPRF(fwhm=2.3548200450309493 * SIGMA)
        psf.x_0.fixed = psf.y_0.fixed = psf.fwhm.fixed = True
        start = Table({"x": self.stars.x, "y": self.stars.y, "flux": self.stars.flux})
        fit = PSFPhotometry(psf, (FIT_SIZE, FIT_SIZE), finder=None)
        return np.asarray(fit(self.image, error=np.sqrt(self.variance), init_params=start)["flux_fit"])

    def time_fit(self, *_: object) -> None:
        self.run()

    def peakmem_fit(self, *_: object) -> None:
        self.run()


class BuildPSF:
    """The PSF of an image from its stars; photutils gives one for the whole image, ours varies over it."""

    params = (["ztfxr", "photutils"], [100, 300])
    param_names = ("method", "stars")

    def setup(self, method: str, stars: int) -> None:
        self.stars, self.image, self.variance = _observed(stars)
        self.run: Callable[[], Floats] = {"ztfxr": self.ours, "photutils": self.photutils}[method]
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
