"""A PSF from the stars of the image itself: one stamp for the whole image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import fft

from ztfxr.arrays.matching.cutouts import Cutouts, star_cutouts
from ztfxr.arrays.matching.match import Image, psf_width
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.types import Bools, Floats

__all__ = ["clean_psf", "shift_stamps", "star_psf"]


_ROUNDS, _MIN_STARS = 8, 3
_MIN_SNR, _CORE_FWHM = 30.0, 1.3
_STEP, _MAX_STEP, _PIXEL_CLIP, _STAR_CLIP = 1e-4, 0.3, 3.5, 4.0
_TAPER_FROM = 0.75


def shift_stamps(stamps: Floats, dy: NDArray[Any], dx: NDArray[Any]) -> Floats:
    """Stamps (..., y, x) moved by (dy, dx) pixels to larger indices, by the Fourier shift theorem.

    Shifts broadcast over the leading dimensions. Flux is conserved exactly; the stamps are taken as periodic, so their
    borders should be at zero.
    """
    ky, kx = fft.fftfreq(stamps.shape[-2]), fft.rfftfreq(stamps.shape[-1])
    rows = np.exp(-2j * np.pi * np.asarray(dy)[..., None] * ky)
    columns = np.exp(-2j * np.pi * np.asarray(dx)[..., None] * kx)
    moved = fft.rfft2(stamps) * rows[..., :, None] * columns[..., None, :]
    return np.asarray(fft.irfft2(moved, s=stamps.shape[-2:]))


def clean_psf(psf: NDArray[Any]) -> Floats:
    """A PSF stamp in double precision with unit sum; `NoSolutionError` where it has no positive finite sum."""
    total = float(np.sum(psf, dtype=np.float64))
    if not np.all(np.isfinite(psf)) or not total > 0:
        raise NoSolutionError("solve_failed")
    return np.asarray(psf, dtype=np.float64) / total


def star_psf(
    pixels: NDArray[Any], bad: Bools, *, size: int = 25, maximum: int = 300, min_snr: float = _MIN_SNR
) -> Floats:
    """The PSF of an image, estimated from its own bright stars: one (size, size) stamp for the whole image.

    A small robust estimate, not a PSF fit: it knows nothing of variation over the field, and in crowded fields
    neighbors that cover one another in most stamps remain in the wings. Each star is fitted by the present PSF, moved
    to its sub-pixel position (flux, position, local sky); what the fits leave, moved back to the center and averaged
    over the stars with clipping, corrects the PSF; and so on. The PSF is centered (its Gaussian-weighted centroid lies
    on the middle pixel), its wings are tapered to zero over the outer quarter of the radius, and its sum is 1.

    Parameters
    ----------
    pixels, bad
        (y, x) image in DN, and True where a pixel must not be used; values under the mask must be finite.
    size
        Pixels along the stamp's side, odd.
    maximum, min_snr
        Stars at most, and the least peak over the sky in units of its noise.

    Raises
    ------
    NoSolutionError
        ``too_few_pixels``: fewer than three usable stars. ``solve_failed``: no positive PSF came out.
    """
    image = Image(np.asarray(pixels, np.float32), None, bad)
    stars = _select(image, size, maximum, min_snr)
    width = psf_width(image)
    if len(stars) < _MIN_STARS or not np.isfinite(width):
        raise NoSolutionError("too_few_pixels")
    good = ~stars.windows(bad)
    problem = _Stars(
        data=np.where(good, stars.windows(image.pixels), 0.0) - image.sky[0],
        good=good,
        radius=np.hypot(*_offsets(size)),
        core=max(_CORE_FWHM * width, 2.0),
    )
    return _iterate(problem, _gaussian(size, width / 2.3548))


@dataclass(frozen=True)
class _Stars:
    """Windows of stars above the sky, their good pixels, and the radius of each pixel and of the core."""

    data: Floats
    good: Bools
    radius: Floats
    core: float

    def __len__(self) -> int:
        return len(self.data)


@dataclass
class _Fits:
    """Flux, position and reduced residual of each star; which of them are kept."""

    flux: Floats
    y: Floats
    x: Floats
    residual: Floats
    misfit: Floats


def _select(image: Image, size: int, maximum: int, min_snr: float) -> Cutouts:
    """Bright stars with a good core and at most a tenth of their window bad."""
    level, noise = image.sky
    if not noise > 0 or min(image.pixels.shape) < size + 4:
        raise NoSolutionError("too_few_pixels")
    stars = star_cutouts(
        image.pixels, image.bad, size=size, margin=0, noise=noise, sky=level, maximum=maximum, grid=5, min_snr=min_snr
    )
    bad, middle = stars.windows(image.bad), size // 2
    core = bad[:, middle - 3 : middle + 4, middle - 3 : middle + 4].any(axis=(1, 2))
    return stars.take(np.flatnonzero(~core & (bad.mean(axis=(1, 2)) < 0.1)))


def _offsets(size: int) -> tuple[Floats, Floats]:
    offset = np.arange(size, dtype=float) - size // 2
    return offset[:, None] + np.zeros((1, size)), offset[None, :] + np.zeros((size, 1))


def _gaussian(size: int, sigma: float) -> Floats:
    y, x = _offsets(size)
    psf = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    return np.asarray(psf / psf.sum())


def _iterate(stars: _Stars, psf: Floats) -> Floats:
    """Fit and correct in turn, dropping stars that the PSF does not describe."""
    y, x = np.zeros(len(stars)), np.zeros(len(stars))
    keep = np.ones(len(stars), dtype=bool)
    for _ in range(_ROUNDS):
        fits = _fit(stars, psf, y, x)
        y, x = fits.y, fits.x
        keep = _like_the_others(fits)
        if keep.sum() < _MIN_STARS:
            raise NoSolutionError("too_few_pixels")
        psf = _finished(psf + _correction(stars, fits, keep), stars.core)
    return psf


def _fit(stars: _Stars, psf: Floats, y: Floats, x: Floats) -> _Fits:
    """One Gauss-Newton step of flux and position in the core, after the sky of the outskirts has been taken off."""
    models = shift_stamps(psf, y, x)
    core = stars.good & (stars.radius <= stars.core)
    slopes = [(shift_stamps(psf, y + dy, x + dx) - models) / _STEP for dy, dx in ((_STEP, 0.0), (0.0, _STEP))]
    design = np.stack([models, *slopes], axis=1) * core[:, None]
    ring = np.where(stars.good & (stars.radius > 0.6 * stars.radius.max()), stars.data, np.nan)
    flux = (stars.data * models * core).sum(axis=(1, 2)) / (models**2 * core).sum(axis=(1, 2))
    sky = np.nanmedian(ring - flux[:, None, None] * models, axis=(1, 2))
    data = stars.data - sky[:, None, None]
    normal = np.einsum("siyx,sjyx->sij", design, design)
    solved = np.linalg.solve(normal, np.einsum("siyx,syx->si", design, data)[..., None])[..., 0]
    flux = solved[:, 0]
    residual = np.where(stars.good, data - flux[:, None, None] * models, 0.0)
    misfit = np.sqrt((residual**2 * core).sum(axis=(1, 2)) / (data**2 * core).sum(axis=(1, 2)))
    step = np.clip(solved[:, 1:] / np.where(flux > 0, flux, np.inf)[:, None], -_MAX_STEP, _MAX_STEP)
    return _Fits(flux, y + step[:, 0], x + step[:, 1], residual, misfit)


def _like_the_others(fits: _Fits) -> Bools:
    """Stars with a positive flux, near their brightest pixel, whose core is described as well as that of others."""
    sane = (fits.flux > 0) & (np.abs(fits.y) < 1.5) & (np.abs(fits.x) < 1.5)
    if not sane.any():
        return sane
    typical = np.median(fits.misfit[sane])
    spread = 1.4826 * np.median(np.abs(fits.misfit[sane] - typical))
    return np.asarray(sane & (fits.misfit <= typical + _STAR_CLIP * spread + 1e-9))


def _correction(stars: _Stars, fits: _Fits, keep: Bools) -> Floats:
    """Clipped mean of the residuals at the center, in units of the flux; no star has more than 10 times the median's
    weight.
    """
    flux = fits.flux[keep]
    scaled = shift_stamps(fits.residual[keep], -fits.y[keep], -fits.x[keep]) / flux[:, None, None]
    weight = np.minimum(flux**2, 10 * np.median(flux**2))[:, None, None] * stars.good[keep]
    middle = np.median(scaled, axis=0)
    spread = 1.4826 * np.median(np.abs(scaled - middle), axis=0)
    noisier = np.sqrt(np.median(flux**2) / flux**2)[:, None, None]
    weight = np.where(np.abs(scaled - middle) <= _PIXEL_CLIP * spread * np.maximum(noisier, 1), weight, 0.0)
    total = weight.sum(axis=0)
    return np.asarray(np.where(total > 0, (weight * scaled).sum(axis=0) / np.maximum(total, 1e-300), 0.0))


def _finished(psf: Floats, core: float) -> Floats:
    """The PSF centered, its wings tapered, its sum 1."""
    size = len(psf)
    y, x = _offsets(size)
    window = np.exp(-(x**2 + y**2) / (2 * (core / 2) ** 2)) * psf
    centered = shift_stamps(psf, -2 * (window * y).sum() / window.sum(), -2 * (window * x).sum() / window.sum())
    reach = size // 2
    edge = np.clip((np.hypot(y, x) / reach - _TAPER_FROM) / (1 - _TAPER_FROM), 0, 1)
    return clean_psf(np.where(edge < 1, centered * np.cos(0.5 * np.pi * edge) ** 2, 0.0))
