"""Photometric scales of epochs from stars that do not change."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfxr.arrays.statistics import MAD_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats, Ints

__all__ = ["ScaleFit", "ScaleRules", "fit_scales"]


_ROUNDS = 30
_TOLERANCE = 1e-9


@dataclass(frozen=True)
class ScaleRules:
    """How scales are fitted, and which stars are taken for variable."""

    n_sigma: float = 4.0
    max_chi2: float = 4.0
    min_stars: int = 5
    intrinsic: bool = True


@dataclass(frozen=True)
class ScaleFit:
    """Coefficients (time, term), their covariance (time, term, term), scatter and stars used per epoch, and which stars
    were constant (source,) with their mean flux and intrinsic relative scatter.
    """

    coefficients: Floats
    covariance: Floats
    scatter: Floats
    n_used: Ints
    constant: Bools
    mean: Floats
    intrinsic: Floats


def fit_scales(flux: Floats, error: Floats, design: Floats, eligible: Bools, rules: ScaleRules) -> ScaleFit:
    """Scales of epochs by which constant stars keep their flux.

    Parameters
    ----------
    flux, error
        Shape (time, source), NaN where there is no measurement.
    design
        Terms of the scale's polynomial at each source (source, term); the first is 1.
    eligible
        Stars that may be constant, (source,).
    rules
        See `ScaleRules`.

    Notes
    -----
    The model is ``flux = scale(time, position) · mean(source)``. In turns, the scale of every epoch is fitted to the
    ratios flux / mean by weighted least squares, clipped, and the means to flux / scale. The relative variance of a
    ratio is that of the flux plus an intrinsic one of the star, which its own scatter over the epochs shows; stars
    whose reduced χ² is over `max_chi2` times the typical one are taken for variable, and left out. The scales are
    normalized so that the median over epochs, at the middle of the field, is 1.
    """
    good = np.isfinite(flux) & (error > 0) & eligible
    mean = _row_medians(np.where(good, flux, np.nan))
    constant = eligible & np.isfinite(mean) & (mean > 0)
    intrinsic = np.zeros(flux.shape[1])
    fit = _epochs(flux, error, design, good & constant, mean, intrinsic, rules)
    for _ in range(_ROUNDS):
        before = fit[0]
        scale = before @ design.T
        mean, chi2, intrinsic = _stars(flux, error, scale, good, rules.intrinsic)
        typical = max(float(np.median(chi2[constant])) if constant.any() else 1.0, 1.0)
        constant = eligible & (mean > 0) & (chi2 <= rules.max_chi2 * typical)
        fit = _epochs(flux, error, design, good & constant, mean, intrinsic, rules)
        middle = np.nanmedian(fit[0][:, 0]) if np.isfinite(fit[0][:, 0]).any() else 1.0
        fit = (fit[0] / middle, fit[1] / middle**2, fit[2] / middle, fit[3])
        if np.allclose(fit[0], before, rtol=0, atol=_TOLERANCE, equal_nan=True):
            break
    return ScaleFit(*fit, constant, mean, intrinsic)


def _row_medians(values: Floats) -> Floats:
    """Median over epochs of each source; NaN without a measurement."""
    out = np.full(values.shape[1], np.nan)
    known = np.isfinite(values).any(axis=0)
    out[known] = np.nanmedian(values[:, known], axis=0)
    return out


def _stars(flux: Floats, error: Floats, scale: Floats, good: Bools, with_intrinsic: bool) -> tuple[Floats, ...]:
    """Weighted mean flux of each star on the common scale, its reduced χ², and its intrinsic relative scatter."""
    usable = good & np.isfinite(scale) & (scale > 0)
    divisor = np.where(usable, scale, 1.0)
    value = np.where(usable, flux, 0.0) / divisor
    sigma = np.where(usable, error, 1.0) / divisor
    weight = np.where(usable, sigma**-2.0, 0.0)
    total, n = weight.sum(axis=0), usable.sum(axis=0)
    mean = np.where(total > 0, (weight * value).sum(axis=0) / np.where(total > 0, total, 1.0), np.nan)
    squares = np.where(usable, (value - mean) ** 2, 0.0)
    chi2 = np.where(n > 1, (weight * squares).sum(axis=0) / np.maximum(n - 1, 1), np.inf)
    excess = (squares - np.where(usable, sigma**2, 0.0)).sum(axis=0) / np.maximum(n - 1, 1)
    relative = np.sqrt(np.maximum(excess, 0.0)) / np.where(mean > 0, mean, 1.0)
    return mean, chi2, np.where(n > 2, relative, 0.0) * with_intrinsic


def _epochs(
    flux: Floats, error: Floats, design: Floats, good: Bools, mean: Floats, intrinsic: Floats, rules: ScaleRules
) -> tuple[Floats, Floats, Floats, Ints]:
    """The scale of each epoch."""
    n_time, n_terms = len(flux), design.shape[1]
    coefficients, covariance = np.full((n_time, n_terms), np.nan), np.full((n_time, n_terms, n_terms), np.nan)
    scatter, n_used = np.full(n_time, np.nan), np.zeros(n_time, dtype=np.int64)
    for t in range(n_time):
        index = np.flatnonzero(good[t])
        level = mean[index]
        ratio, sigma = flux[t, index] / level, np.hypot(error[t, index] / level, intrinsic[index])
        found = _epoch(ratio, sigma, design[index], rules)
        if found is not None:
            coefficients[t], covariance[t], scatter[t], n_used[t] = found
    return coefficients, covariance, scatter, n_used


def _epoch(ratio: Floats, sigma: Floats, design: Floats, rules: ScaleRules) -> tuple[Floats, Floats, float, int] | None:
    """Clipped weighted least squares; the covariance is raised by the reduced χ² where that is over 1."""
    kept = np.ones(len(ratio), dtype=bool)
    center, need = float(np.median(ratio)) if len(ratio) else 1.0, max(rules.min_stars, design.shape[1] + 1)
    model = np.full(len(ratio), center)
    for _ in range(_ROUNDS):
        pull = (ratio - model) / sigma
        size = max(MAD_TO_SIGMA * float(np.median(np.abs(pull[kept]))), 1.0) if kept.any() else 1.0
        fresh = np.abs(pull) <= rules.n_sigma * size
        if fresh.sum() < need:
            return None
        weighted = design[fresh] / sigma[fresh, None]
        covariance = np.linalg.pinv(weighted.T @ weighted)
        coefficients = covariance @ (weighted.T @ (ratio[fresh] / sigma[fresh]))
        model = design @ coefficients
        if np.array_equal(fresh, kept):
            break
        kept = fresh
    left = (ratio - model)[kept] / sigma[kept]
    chi2 = float(np.sum(left**2)) / max(len(left) - design.shape[1], 1)
    return coefficients, covariance * max(chi2, 1.0), float(np.std((ratio - model)[kept])), int(kept.sum())
