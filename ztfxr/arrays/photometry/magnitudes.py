"""Counts, flux densities and AB magnitudes: pure formulae.

Every linear unit has a zero point, the AB magnitude of 1 of it; the conversions need nothing else. Arrays may be of any
kind that NumPy functions understand, dask's among them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.optimize import brentq

from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Floats

__all__ = [
    "AB_MICROJANSKY",
    "ZeroPointFit",
    "ab_per_wavelength",
    "fit_zero_point",
    "from_mag",
    "known_colors",
    "known_errors",
    "known_magnitudes",
    "linear_error",
    "mag_error",
    "rescale",
    "to_mag",
]


AB_MICROJANSKY = 23.9
"""AB magnitude of 1 µJy: −2.5 log10(1e-29) − 48.6 (Oke & Gunn 1983, ApJ 266, 713)."""

_AB = 48.6
_LIGHT = 2.99792458e18
_POGSON = 2.5 / np.log(10.0)
_ROUNDS = 50
_BRIGHTEST, _FAINTEST = -40.0, 60.0
_LARGEST_ERROR, _LARGEST_COLOR = 9.0, 30.0
_START_WITHIN = 5.0


def ab_per_wavelength(wavelength: Any) -> Any:
    """AB magnitude of 1 erg/s/cm²/Å at a wavelength in Å, by ``f_ν = f_λ λ² / c``."""
    return -2.5 * np.log10(wavelength**2 / _LIGHT) - _AB


def known_magnitudes(mag: Any) -> Any:
    """Magnitudes, NaN where they are none but a code for a missing one: −999, −99, 99, 9999, or exactly 0."""
    return np.where((mag > _BRIGHTEST) & (mag < _FAINTEST) & (mag != 0), mag, np.nan)


def known_errors(error: Any) -> Any:
    """Errors of magnitudes, NaN where they are negative or 9 and more: codes such as −1, −999, 9.99, 99."""
    return np.where((error >= 0) & (error < _LARGEST_ERROR), error, np.nan)


def known_colors(color: Any) -> Any:
    """Colors, NaN where no star has such a one: −99, 99, −999. A color of 0 is one."""
    return np.where(abs(color) < _LARGEST_COLOR, color, np.nan)


def to_mag(value: Any, zero_point: Any) -> Any:
    """AB magnitude of a linear value; NaN where that is not positive."""
    return zero_point - 2.5 * np.log10(np.where(value > 0, value, np.nan))


def from_mag(mag: Any, zero_point: Any) -> Any:
    """The linear value of an AB magnitude."""
    return 10.0 ** (0.4 * (zero_point - mag))


def rescale(value: Any, zero_point: Any, target: Any) -> Any:
    """A value, or its error, in the unit of another zero point; negative values stay negative."""
    return value * 10.0 ** (0.4 * (target - zero_point))


def mag_error(value: Any, error: Any) -> Any:
    """Standard error of the magnitude of a linear value, to first order; NaN where that is not positive."""
    return _POGSON * error / np.where(value > 0, value, np.nan)


def linear_error(value: Any, error: Any) -> Any:
    """Standard error of the linear value of a magnitude, to first order."""
    return value * error / _POGSON


@dataclass(frozen=True)
class ZeroPointFit:
    """A zero point and a color term with their errors, the scatter about them, and how many stars they rest on."""

    magzp: float
    magzp_err: float
    color_term: float
    color_term_err: float
    magzprms: float
    intrinsic_scatter: float
    n_stars: int
    n_used: int


def fit_zero_point(
    offset: Floats, error: Floats, color: Floats, *, n_sigma: float, with_color: bool, min_stars: int
) -> ZeroPointFit:
    """Fit ``offset = magzp + color_term · color``, weighted and clipped.

    Parameters
    ----------
    offset
        Catalog less instrumental magnitude of each star, shape (source,).
    error
        Its standard error.
    color
        Color of each star.
    n_sigma
        Stars further off than this many of their errors, the intrinsic scatter included, are clipped.
    with_color
        Whether the color term is fitted; otherwise it is 0 and exact.
    min_stars
        Fewer usable stars, or fewer left, give NaN.

    Notes
    -----
    The start is a least-absolute-deviations fit, which outliers in the offset do not move. Stars of outlying color
    would move it, whatever their offset: they have no say in it, but join where they agree with it. Then weighted least
    squares with the weights 1 / (error² + s²), where the intrinsic scatter s makes the reduced χ² of the stars kept 1
    (or is 0, where the errors suffice), until the stars kept stay the same. Rows that are not finite are left out; NaN
    errors and errors of 0 make a row unusable.
    """
    good = np.isfinite(offset) & np.isfinite(error) & (error > 0) & np.isfinite(color)
    design = np.stack([np.ones_like(offset), color], axis=-1)[good][:, : 2 if with_color else 1]
    y, sigma, need = offset[good], error[good], max(min_stars, design.shape[1] + 1)
    kept = np.ones(y.size, dtype=bool)
    if not _solvable(design, need):
        return _no_fit(y.size)
    coefficients = _start(design, y, need)
    scatter = float(np.sqrt(max(mad_std(y - design @ coefficients) ** 2 - np.median(sigma**2), 0.0)))
    for i in range(_ROUNDS):
        before, kept = kept, np.abs(y - design @ coefficients) <= n_sigma * np.hypot(sigma, scatter)
        if not _solvable(design[kept], need):
            return _no_fit(y.size)
        if i > 0 and np.array_equal(kept, before):
            break
        coefficients, covariance, scatter = _weighted(design[kept], y[kept], sigma[kept])
    rms = float(np.std((y - design @ coefficients)[kept], ddof=design.shape[1]))
    (zero, slope), (zero_err, slope_err) = (np.append(v, 0.0)[:2] for v in (coefficients, np.sqrt(np.diag(covariance))))
    terms = (float(zero), float(zero_err), float(slope), float(slope_err))
    return ZeroPointFit(*terms, rms, scatter, y.size, int(kept.sum()))


def _solvable(design: Floats, need: int) -> bool:
    """Whether there are enough stars, of more than one color where that matters."""
    return len(design) >= need and int(np.linalg.matrix_rank(design)) == design.shape[1]


def _no_fit(n_stars: int) -> ZeroPointFit:
    nan = float("nan")
    return ZeroPointFit(nan, nan, nan, nan, nan, nan, n_stars, 0)


def _start(design: Floats, y: Floats, need: int) -> Floats:
    """The fit to begin with: that of the stars of usual color, where they are enough."""
    color = design[:, -1]
    usual = abs(color - np.median(color)) <= _START_WITHIN * mad_std(color)
    return _least_absolute(design[usual], y[usual]) if _solvable(design[usual], need) else _least_absolute(design, y)


def _least_absolute(design: Floats, y: Floats) -> Floats:
    """The fit with the smallest sum of absolute residuals, by reweighted least squares."""
    weight = np.ones_like(y)
    for _ in range(_ROUNDS):
        root = np.sqrt(weight)
        coefficients: Floats = np.linalg.lstsq(design * root[:, None], y * root, rcond=None)[0].astype(np.float64)
        weight = 1.0 / np.maximum(np.abs(y - design @ coefficients), 1e-6)
    return coefficients


def _weighted(design: Floats, y: Floats, sigma: Floats) -> tuple[Floats, Floats, float]:
    """Coefficients, their covariance, and the intrinsic scatter that brings the reduced χ² to 1."""
    freedom = y.size - design.shape[1]

    def solve(scatter: float) -> tuple[Floats, Floats, float]:
        root = 1.0 / np.hypot(sigma, scatter)
        weighted = design * root[:, None]
        covariance: Floats = np.linalg.inv(weighted.T @ weighted).astype(np.float64)
        coefficients = covariance @ (weighted.T @ (y * root))
        return coefficients, covariance, float(np.sum(((y - design @ coefficients) * root) ** 2))

    scatter = 0.0
    if solve(0.0)[2] > freedom:
        largest = float(np.ptp(y)) + float(sigma.max())
        scatter = float(brentq(lambda s: solve(s)[2] - freedom, 0.0, largest, xtol=1e-7))
    coefficients, covariance, _ = solve(scatter)
    return coefficients, covariance, scatter
