"""The noise of an image from the residuals of a model: of its sky and of its signal."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numba import njit

from ztfxr.arrays.images.sky import median_sky
from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.threads import in_parallel
from ztfxr.arrays.types import Bools, Images

__all__ = ["PhotonNoise", "fit_noise", "sky_excess", "without_own_noise"]


_ROWS_PER_TASK = 128
_FEWEST = 50
_STANDS_OUT, _SMOOTHED = 3.0, 0.65
_ALIKE = 0.3


@dataclass(frozen=True)
class PhotonNoise:
    """``variance = sky + slope × max(signal − level, 0)``."""

    level: float
    sky: float
    slope: float

    def variance(self, signal: Images, bad: Bools, new: Images | None = None) -> Images:
        """The variance image for a signal without noise and what is `new` in it; without `new`, for a noisy signal.

        What is noisy is the mean of itself and of the good pixels around (weighted 1, 2, 1 along each axis), between
        the bias that a pixel's own noise would bring and that of a peak smoothed away. It counts where it stands out
        of its noise: elsewhere it would raise the variance of the sky, as noise that is negative takes nothing off.
        """
        out = np.empty(signal.shape, np.float32)
        model, noisy = (signal[:0], signal) if new is None else (signal, new)
        level, sky, slope = np.float32(self.level), np.float32(self.sky), np.float32(self.slope)
        floor = np.float32(_STANDS_OUT * _SMOOTHED * np.sqrt(self.sky))

        def rows(start: int) -> None:
            _photon_rows(model, noisy, bad, level, floor, sky, slope, start, min(start + _ROWS_PER_TASK, len(out)), out)

        in_parallel(rows, range(0, len(out), _ROWS_PER_TASK))
        return out


@njit(nogil=True, cache=True)
def _photon_rows(
    model: Images,
    noisy: Images,
    bad: Bools,
    level: np.float32,
    floor: np.float32,
    sky: np.float32,
    slope: np.float32,
    start: int,
    stop: int,
    out: Images,
) -> None:
    ny, nx = noisy.shape
    total = np.empty(nx + 2, np.float32)
    with_model = model.shape[0] > 0
    zero = np.float32(0) if with_model else level
    for y in range(start, stop):
        total[:] = np.float32(0)
        for line in range(max(y - 1, 0), min(y + 2, ny)):
            weight = np.float32(2) if line == y else np.float32(1)
            for x in range(nx):
                if not bad[line, x]:
                    total[x + 1] += weight * (noisy[line, x] - zero)
        for x in range(nx):
            signal = (total[x] + np.float32(2) * total[x + 1] + total[x + 2]) / np.float32(16)
            if not bad[y, x]:
                signal = np.float32(0.5) * (signal + noisy[y, x] - zero)
            if signal < floor:
                signal = np.float32(0)
            if with_model:
                signal += model[y, x] - level
            out[y, x] = sky + slope * max(signal, np.float32(0))


def without_own_noise(variance: Images, bad: Bools) -> Images:
    """Variances for weights: each pixel has the mean of the good pixels around, where that is within 30 % of its own.

    A variance that follows the pixel's own photons gives less weight to what fluctuates high: a fitted sky comes out
    low by half a photoelectron per pixel, and stars by more. Where the signal is steep, pixels keep their own.
    """
    out = np.empty(variance.shape, np.float32)

    def rows(start: int) -> None:
        _neighbor_rows(variance, bad, start, min(start + _ROWS_PER_TASK, len(out)), out)

    in_parallel(rows, range(0, len(out), _ROWS_PER_TASK))
    return out


@njit(nogil=True, cache=True)
def _neighbor_rows(variance: Images, bad: Bools, start: int, stop: int, out: Images) -> None:
    ny, nx = variance.shape
    total, count = np.empty(nx + 2, np.float32), np.empty(nx + 2, np.float32)
    for y in range(start, stop):
        total[:], count[:] = np.float32(0), np.float32(0)
        for line in range(max(y - 1, 0), min(y + 2, ny)):
            for x in range(nx):
                if not bad[line, x]:
                    total[x + 1] += variance[line, x]
                    count[x + 1] += np.float32(1)
        for x in range(nx):
            own = variance[y, x]
            out[y, x] = own
            n = count[x] + count[x + 1] + count[x + 2] - np.float32(1)
            if not bad[y, x] and n > 0:
                mean = (total[x] + total[x + 1] + total[x + 2] - own) / n
                if abs(own - mean) <= np.float32(_ALIKE) * mean:
                    out[y, x] = mean


def fit_noise(signal: Images, residual: Images, template: Images, bad: Bools, unused: Bools) -> PhotonNoise:
    """The noise of a target from its residuals at all levels of signal.

    Parameters
    ----------
    signal, residual
        The model without noise, and target minus model; rows of an image.
    template
        What the model's own noise adds to the variance of the residuals; it is taken off.
    bad, unused
        Pixels without a signal, and pixels whose residual does not count.
    """
    level, used, faint = _sky_of(signal, residual, bad, unused)
    r, s, t = residual[used], signal[used] - np.float32(level), template[used]
    total = mad_std(r[faint]) ** 2 if faint.any() else 0.0
    sky = max(total - float(np.median(t)), 0.05 * total)
    return PhotonNoise(level, sky, _photon_slope(r, s, t, sky))


def _sky_of(signal: Images, residual: Images, bad: Bools, unused: Bools) -> tuple[float, Bools, Bools]:
    """Level of the signal's sky, the pixels that count, and which of these are within twice its noise of the level."""
    level, noise = median_sky(signal, bad)
    used = ~unused
    limit = 2 * noise if noise > 0 else mad_std(residual[used])
    return level, used, np.abs(signal[used] - np.float32(level)) < limit


def sky_excess(signal: Images, residual: Images, stated: Images, bad: Bools, unused: Bools) -> float:
    """Variance to add to what is stated, so that the residuals of the sky are as it says; negative where it says more.

    A sky measured on the image itself takes stars that are too faint to see for noise: with 900 stars brighter than
    21.5 mag on 600 × 600 pixels by 5 %.
    """
    _, used, faint = _sky_of(signal, residual, bad, unused)
    if np.count_nonzero(faint) < _FEWEST:
        return 0.0
    r, v = residual[used], stated[used]
    ratio = mad_std(r[faint] / np.sqrt(v[faint])) ** 2
    return (max(ratio, 0.05) - 1.0) * float(np.median(v[faint]))


def _photon_slope(residual: Images, signal: Images, template: Images, sky: float) -> float:
    """Slope of the residuals' variance against signal, from robust variances in bins of signal; never negative."""
    edges = sky**0.5 * np.geomspace(2.0, 60.0, 12)
    numerator = denominator = 0.0
    for low, high in pairwise(edges):
        inside = (signal >= low) & (signal < high)
        n = int(inside.sum())
        if n < _FEWEST:
            continue
        spread = mad_std(residual[inside]) ** 2
        mean = float(signal[inside].mean())
        weight = n / max(spread, 1e-300) ** 2
        numerator += weight * mean * (spread - sky - float(template[inside].mean()))
        denominator += weight * mean**2
    return max(numerator / denominator, 0.0) if denominator > 0 else 0.0
