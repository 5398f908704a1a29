"""A smooth curve through a light curve, night by night, and how well its errors fit its scatter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ztfxr.arrays.types import Floats, Ints

__all__ = ["SmoothCurve", "smooth_nights"]


_SPLINE = 5
_STEPS = 10.0 ** np.arange(-9.0, 2.01, 0.25)
_FREE = 1e-6


@dataclass(frozen=True)
class SmoothCurve:
    """The curve at each epoch (NaN alone in its night, or without a measurement), its leverage, and the night."""

    value: Floats
    leverage: Floats
    night: Ints
    chi2: float
    dof: float

    def pulls(self, flux: Floats, error: Floats) -> Floats:
        """Residuals over their own standard errors, which are smaller than those of the data; NaN without freedom."""
        left = np.where(self.leverage < 1 - _FREE, 1 - self.leverage, np.nan)
        return np.asarray((flux - self.value) / error / np.sqrt(left))


def smooth_nights(time: Floats, flux: Floats, error: Floats, gap: float = 0.3) -> SmoothCurve:
    """A smooth curve through the epochs of each night.

    Parameters
    ----------
    time, flux, error
        Days in any order, fluxes and their errors, (time,); NaN where there is no usable measurement.
    gap
        Epochs further apart than this many days are of different nights, between which nothing is assumed.

    Notes
    -----
    A night of two epochs has a mean, of three or four a line, of five or more a cubic smoothing spline (Reinsch 1967,
    Numer. Math. 10, 177), weighted by the errors, whose stiffness is that with the smallest squared residuals of
    points left out one at a time (Green & Silverman 1994, §3.2). The degrees of freedom are the epochs less the trace
    of the smoother, so the reduced χ² of right errors is 1; a curve that may bend freely does not lower it.
    """
    known = np.isfinite(time) & np.isfinite(flux) & (error > 0)
    index = np.flatnonzero(known)[np.argsort(time[known], kind="stable")]
    value, leverage = np.full(len(flux), np.nan), np.full(len(flux), np.nan)
    night = np.full(len(flux), -1, dtype=np.int64)
    night[index] = np.concatenate([[0], np.cumsum(np.diff(time[index]) > gap)])[: len(index)]
    chi2 = dof = 0.0
    for number in range(night.max(initial=-1) + 1):
        rows = index[night[index] == number]
        if len(rows) < 2:
            continue
        weight = error[rows] ** -2.0
        smoother = _smoother(time[rows] - time[rows[0]], flux[rows], weight)
        value[rows], leverage[rows] = smoother @ flux[rows], np.diag(smoother)
        chi2 += float(np.sum(weight * (flux[rows] - value[rows]) ** 2))
        dof += len(rows) - float(np.trace(smoother))
    return SmoothCurve(value, leverage, night, chi2, dof)


def _smoother(time: Floats, flux: Floats, weight: Floats) -> Floats:
    """The matrix that turns the fluxes of a night into its curve."""
    if len(time) < _SPLINE or not np.all(np.diff(time) > 0):
        return _line(time, weight, slope=len(time) > 2 and bool(np.ptp(time) > 0))
    relative = weight / np.median(weight)
    roughness = _roughness(time / np.ptp(time))
    best, found = np.inf, np.empty(0)
    for stiffness in _STEPS:
        smoother = np.linalg.solve(np.diag(relative) + stiffness * roughness, np.diag(relative))
        left = np.maximum(1 - np.diag(smoother), _FREE)
        score = float(np.sum(weight * ((flux - smoother @ flux) / left) ** 2))
        if score < best:
            best, found = score, smoother
    return found


def _line(time: Floats, weight: Floats, *, slope: bool) -> Floats:
    design = np.stack([np.ones_like(time), time - time.mean()][: 1 + slope], axis=1)
    weighted = design * weight[:, None]
    return np.asarray(design @ np.linalg.solve(design.T @ weighted, weighted.T))


def _roughness(time: Floats) -> Floats:
    """``K`` with ``fᵀ K f`` the integral of the squared second derivative of the natural cubic spline through f."""
    n, h = len(time), np.diff(time)
    second, mass = np.zeros((n, n - 2)), np.zeros((n - 2, n - 2))
    j = np.arange(n - 2)
    second[j, j], second[j + 1, j], second[j + 2, j] = 1 / h[:-1], -1 / h[:-1] - 1 / h[1:], 1 / h[1:]
    mass[j, j] = (h[:-1] + h[1:]) / 3
    mass[j[:-1], j[1:]] = mass[j[1:], j[:-1]] = h[1:-1] / 6
    return np.asarray(second @ np.linalg.solve(mass, second.T))
