"""Statistics of light curves that rank variable sources; arrays are (time, source), NaN where there is no
measurement.
"""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.types import Bools, Floats, Ints, Numbers

__all__ = [
    "consecutive_excess",
    "excess_variance",
    "fractional_excess",
    "grouped_mean",
    "reduced_chi2",
    "stetson_j",
    "von_neumann",
    "weighted_mean",
]


def weighted_mean(flux: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Inverse-variance mean of each source and its standard error; NaN without a measurement."""
    good = np.isfinite(flux) & (error > 0)
    weight = np.where(good, 1.0 / np.where(good, error, 1.0) ** 2, 0.0)
    total = weight.sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = np.where(total > 0, (weight * np.where(good, flux, 0.0)).sum(axis=0) / total, np.nan)
        return mean, np.where(total > 0, total**-0.5, np.nan)


def _residuals(flux: Floats, error: Floats) -> Floats:
    """Residuals from the weighted mean in units of their errors; NaN where there is no measurement."""
    mean, _ = weighted_mean(flux, error)
    return np.where(np.isfinite(flux) & (error > 0), (flux - mean) / np.where(error > 0, error, 1.0), np.nan)


def reduced_chi2(flux: Floats, error: Floats) -> Floats:
    """χ² of a constant source per degree of freedom; NaN below two measurements."""
    residual = _residuals(flux, error)
    n = np.isfinite(residual).sum(axis=0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(n > 1, np.nansum(residual**2, axis=0) / (n - 1), np.nan)


def excess_variance(flux: Floats, error: Floats) -> Floats:
    """Variance of the flux beyond its errors (Nandra et al. 1997, ApJ 476, 70), in squared flux units; may be
    negative.
    """
    mean, _ = weighted_mean(flux, error)
    good = np.isfinite(flux) & (error > 0)
    n = good.sum(axis=0)
    total = np.where(good, (flux - mean) ** 2 - error**2, 0.0).sum(axis=0)
    return np.where(n > 1, total / np.maximum(n - 1, 1), np.nan)


def fractional_excess(flux: Floats, error: Floats) -> tuple[Floats, Floats]:
    """Root of the excess variance over the mean flux, and its error (Vaughan et al. 2003, MNRAS 345, 1271, eq. 10, B2).

    Where the excess is negative the value is minus the root of its size. NaN where the mean is not positive.
    """
    mean, _ = weighted_mean(flux, error)
    excess = excess_variance(flux, error)
    good = np.isfinite(flux) & (error > 0)
    n = np.maximum(good.sum(axis=0), 1)
    mean_square = np.where(good, error**2, 0.0).sum(axis=0) / n
    with np.errstate(invalid="ignore", divide="ignore"):
        usable = np.where(mean > 0, mean, np.nan)
        value = np.sign(excess) * np.sqrt(np.abs(excess)) / usable
        noise = mean_square / usable**2
        low, high = np.sqrt(1 / (2 * n)) * noise / np.abs(value), np.sqrt(noise / n)
        return value, np.where(value == 0, high, np.hypot(low, high))


def _compact(values: Floats) -> tuple[Floats, Ints]:
    """Values (time, source) with the finite ones first, in their order, and their number."""
    known = np.isfinite(values)
    order = np.argsort(~known, axis=0, kind="stable")
    return np.take_along_axis(np.where(known, values, 0.0), order, axis=0), known.sum(axis=0)


def _pairs(values: Floats, n: Ints) -> Bools:
    """True where both of two consecutive rows hold a measurement."""
    return np.asarray(np.arange(1, len(values))[:, None] < n)


def von_neumann(flux: Floats, error: Floats) -> Floats:
    """Mean squared successive difference over the variance (von Neumann 1941); 2 for noise, small for a smooth
    change.
    """
    r, n = _compact(_residuals(flux, error))
    there = np.arange(len(r))[:, None] < n
    count = np.maximum(n, 1)
    spread = np.where(there, (r - r.sum(axis=0) / count) ** 2, 0.0).sum(axis=0) / count
    steps = np.where(_pairs(r, n), np.diff(r, axis=0) ** 2, 0.0).sum(axis=0) / np.maximum(n - 1, 1)
    return np.where((n > 2) & (spread > 0), steps / np.where(spread > 0, spread, 1.0), np.nan)


def stetson_j(flux: Floats, error: Floats) -> Floats:
    """Stetson's J (1996, PASP 108, 851, eq. 1-3) with consecutive measurements as pairs.

    A single outlier hardly moves it; a change that several epochs share does. About 0 for noise, positive for
    variables.
    """
    r, n = _compact(_residuals(flux, error))
    product = np.where(_pairs(r, n), n / np.maximum(n - 1, 1) * r[1:] * r[:-1], 0.0)
    total = (np.sign(product) * np.sqrt(np.abs(product))).sum(axis=0)
    return np.where(n > 2, total / np.maximum(n - 1, 1), np.nan)


def consecutive_excess(flux: Floats, error: Floats) -> Floats:
    """Mean over consecutive pairs of the smaller residual from the median, positive where both have one sign.

    Stetson's J with the larger residual of each pair cut to the smaller: a single bad measurement, however far off,
    counts for no more than its neighbor, and does not move the center. About 0 for noise.
    """
    good = np.isfinite(flux) & (error > 0)
    middle = np.ma.filled(np.ma.median(np.ma.masked_where(~good, flux), axis=0).astype(float), np.nan)
    r, n = _compact(np.where(good, (flux - middle) / np.where(good, error, 1.0), np.nan))
    smaller = np.minimum(np.abs(r[1:]), np.abs(r[:-1]))
    total = np.where(_pairs(r, n), np.sign(r[1:] * r[:-1]) * smaller, 0.0).sum(axis=0)
    return np.where(n > 2, total / np.maximum(n - 1, 1), np.nan)


def grouped_mean(
    flux: Numbers, error: Numbers, good: Bools, *, group: Ints, n_groups: int
) -> tuple[Floats, Floats, Floats, Ints]:
    """Inverse-variance means of groups of epochs, their errors, reduced χ² and numbers, each (group, source).

    χ² is NaN below two measurements, the rest where there is none.
    """

    def total(values: Numbers) -> Floats:
        out = np.zeros((n_groups, values.shape[1]))
        np.add.at(out, group, values)
        return out

    weight = np.where(good, np.where(good, error, 1.0).astype(np.float64) ** -2, 0.0)
    value = np.where(good, flux, 0.0).astype(np.float64)
    sum_of_weights, n = total(weight), total(good.astype(np.float64)).astype(np.int64)
    known = sum_of_weights > 0
    mean = np.where(known, total(weight * value) / np.where(known, sum_of_weights, 1.0), np.nan)
    spread = np.where(known, np.where(known, sum_of_weights, 1.0) ** -0.5, np.nan)
    squares = total(weight * np.where(good, value - np.nan_to_num(mean)[group], 0.0) ** 2)
    return mean, spread, np.where(n > 1, squares / np.maximum(n - 1, 1), np.nan), n
