"""Statistics of light curves that rank variable sources; arrays are (time, source), NaN where there is no
measurement.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["consecutive_excess", "excess_variance", "reduced_chi2", "stetson_j", "von_neumann", "weighted_mean"]

Floats = NDArray[np.float64]


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


def von_neumann(flux: Floats, error: Floats) -> Floats:
    """Mean squared successive difference over the variance (von Neumann 1941); 2 for noise, small for a smooth
    change.
    """
    residual = _residuals(flux, error)
    out = np.full(flux.shape[1], np.nan)
    for source in range(flux.shape[1]):
        r = residual[:, source]
        r = r[np.isfinite(r)]
        spread = ((r - r.mean()) ** 2).sum() if len(r) > 2 else 0.0
        if spread > 0:
            out[source] = (np.diff(r) ** 2).sum() / (len(r) - 1) / (spread / len(r))
    return out


def stetson_j(flux: Floats, error: Floats) -> Floats:
    """Stetson's J (1996, PASP 108, 851, eq. 1-3) with consecutive measurements as pairs.

    A single outlier hardly moves it; a change that several epochs share does. About 0 for noise, positive for
    variables.
    """
    residual = _residuals(flux, error)
    out = np.full(flux.shape[1], np.nan)
    for source in range(flux.shape[1]):
        r = residual[:, source]
        r = r[np.isfinite(r)]
        if len(r) > 2:
            product = len(r) / (len(r) - 1) * r[1:] * r[:-1]
            out[source] = float(np.mean(np.sign(product) * np.sqrt(np.abs(product))))
    return out


def consecutive_excess(flux: Floats, error: Floats) -> Floats:
    """Mean over consecutive pairs of the smaller residual from the median, positive where both have one sign.

    Stetson's J with the larger residual of each pair cut to the smaller: a single bad measurement, however far off,
    counts for no more than its neighbour, and does not move the centre. About 0 for noise.
    """
    out = np.full(flux.shape[1], np.nan)
    for source in range(flux.shape[1]):
        good = np.isfinite(flux[:, source]) & (error[:, source] > 0)
        if good.sum() > 2:
            f = flux[good, source]
            r = (f - np.median(f)) / error[good, source]
            smaller = np.minimum(np.abs(r[1:]), np.abs(r[:-1]))
            out[source] = float(np.mean(np.sign(r[1:] * r[:-1]) * smaller))
    return out
