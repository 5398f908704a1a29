"""The profile of a source that is alone in its image, where there are no stars to build a PSF from."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.psf.profiles import profile_basis
from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats

__all__ = ["Centroid", "LoneProfile", "lone_profile", "windowed_centroid"]

_WINDOW, _STEPS, _FARTHEST_STEP = 2.5, 12, 1.0
_NARROWEST_VARIANCE, _LEAST_CURVATURE = 0.1, 0.05
_HARMONICS = 4
_SINGULAR = 1e-6


class Centroid(NamedTuple):
    """Center (y, x) of a source and its FWHM, in pixels."""

    y: float
    x: float
    fwhm: float


class LoneProfile(NamedTuple):
    """A profile of unit sum (y, x), the relative error of its sum, and the reduced χ² of its fit."""

    psf: Floats
    profile_err: float
    profile_chi2: float


def windowed_centroid(image: Floats, offset: Floats) -> Centroid:
    """Centroid and FWHM of a lone source near zero, by a Gaussian window of 2.5 px that follows it.

    `offset` (pixel,) holds the coordinates of the rows and columns of the square image, whose background is zero.
    """
    y, x = 0.0, 0.0
    for _ in range(_STEPS):
        dy, dx = np.meshgrid(offset - y, offset - x, indexing="ij")
        weighted = image * np.exp(-0.5 * (dy**2 + dx**2) / _WINDOW**2)
        total = weighted.sum()
        # Under a window as wide as the source a step of the mean is half of what is missing.
        steps = (np.clip(2 * (weighted * d).sum() / total, -_FARTHEST_STEP, _FARTHEST_STEP) for d in (dy, dx))
        y, x = (place + float(step) for place, step in zip((y, x), steps, strict=True))
    seen = max(float((weighted * (dy**2 + dx**2)).sum() / total) / 2, _NARROWEST_VARIANCE)
    own = 1.0 / max(1.0 / seen - _WINDOW**-2.0, _LEAST_CURVATURE)
    return Centroid(y, x, float(np.sqrt(own)) / FWHM_TO_SIGMA)


def lone_profile(image: Floats, variance: Floats, radius: float) -> LoneProfile:
    """The profile of the source in the middle of a square image, out to `radius` pixels.

    Gaussians times harmonics up to the fourth about the centroid are fitted to the pixels by weighted least squares;
    the least singular directions are left out. The profile is on the central ``2 · radius + 1`` pixels of each side.

    Raises
    ------
    NoSolutionError
        Half of the pixels within `radius` are bad, as in an image that could not be differenced.
    """
    middle, half = image.shape[0] // 2, int(radius)
    offset = np.arange(image.shape[0], dtype=np.float64) - middle
    inside = np.hypot(offset[:, None], offset[None, :]) <= radius
    good = inside & np.isfinite(image) & (variance > 0)
    if good.sum() < inside.sum() / 2:
        raise NoSolutionError("too_few_pixels")
    center = windowed_centroid(np.where(good, image, 0.0), offset)
    functions = profile_basis(center.fwhm, radius, 0, harmonics=_HARMONICS).values(offset - center.y, offset - center.x)
    solved, sum_error, chi2 = _fit(functions, image, variance, good, inside)
    profile = np.where(inside, np.einsum("f,fyx->yx", solved, functions), 0.0)
    cut = slice(middle - half, middle + half + 1)
    total = float(profile.sum())
    return LoneProfile(profile[cut, cut] / total, sum_error / abs(total), chi2)


def _fit(functions: Floats, image: Floats, variance: Floats, good: Bools, inside: Bools) -> tuple[Floats, float, float]:
    """Coefficients of the functions, the error of the sum over the pixels `inside`, and the reduced χ²."""
    noise = np.sqrt(variance[good])
    design = functions[:, good].T / noise[:, None]
    size = np.sqrt((design**2).sum(axis=0))
    left, singular, right = np.linalg.svd(design / size, full_matrices=False)
    used = singular > _SINGULAR * singular[0]
    data = image[good] / noise
    solved = (left[:, used].T @ data / singular[used]) @ right[used] / size
    sums = functions[:, inside].sum(axis=1) / size
    error = np.sqrt((((right[used] @ sums) / singular[used]) ** 2).sum())
    chi2 = ((data - design @ solved) ** 2).sum() / max(good.sum() - used.sum(), 1)
    return np.asarray(solved), float(error), float(chi2)
