"""The level of the sky around a source: the pixels of a ring, and the number that stands for them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numba import njit

from ztfxr.arrays.statistics import MAD_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats, Ints, Numbers

__all__ = ["LEVELS", "AnnulusLevels", "inliers", "level_of", "measure_annuli", "ring_pixels"]

_MEDIAN, _MEAN, _MAD = range(3)
LEVELS: Mapping[str, int] = {"median": _MEDIAN, "mean": _MEAN, "mad": _MAD}
"""Estimators that apertures and PSF fits know, by the numbers that `level_of` knows them by.

``"median"`` and ``"mean"``: of the pixels within some standard deviations of their median, in up to ten rounds.
``"mad"``: the median of those within some robust standard deviations, in one round.
"""

_FAR = 1e6
_CLIP_ROUNDS = 10


@dataclass(frozen=True)
class AnnulusLevels:
    """Level of the good pixels of an annulus, its standard error and their number, each (source,)."""

    level: Floats
    error: Floats
    n: Ints


@njit(nogil=True, cache=True)
def ring_pixels(
    image: Numbers, bad: Bools, y: float, x: float, inner: float, outer: float, out: Floats
) -> int:  # pragma: no cover
    """Copy the good pixels whose centers lie `inner` to `outer` pixels from (y, x) to the front of `out`; their number.

    A position that is NaN, or more than a million pixels away, has none.
    """
    n, far, near = 0, outer * outer, inner * inner
    if abs(x) < _FAR and abs(y) < _FAR:
        for i in range(max(0, math.ceil(y - outer)), min(image.shape[0], math.floor(y + outer) + 1)):
            dy2 = (i - y) * (i - y)
            for j in range(max(0, math.ceil(x - outer)), min(image.shape[1], math.floor(x + outer) + 1)):
                d2 = dy2 + (j - x) * (j - x)
                if near <= d2 <= far and not bad[i, j]:
                    value = float(image[i, j])
                    if math.isfinite(value):
                        out[n] = value
                        n += 1
    return n


@njit(nogil=True, cache=True)
def inliers(values: Floats, estimator: int, n_sigma: float) -> Floats:  # pragma: no cover
    """The values that lie near their median, as one of `LEVELS` has it."""
    if len(values) < 2:
        return values
    if estimator == _MAD:
        apart = np.abs(values - np.median(values))
        near: Floats = values[apart <= n_sigma * MAD_TO_SIGMA * np.median(apart)]
        return near
    ordered = np.sort(values)
    low, high = 0, len(ordered)
    for _ in range(_CLIP_ROUNDS):
        if high - low < 2:
            break
        middle = 0.5 * (ordered[(low + high - 1) // 2] + ordered[(low + high) // 2])
        spread = np.std(ordered[low:high])
        first, last = low, high
        while first < last and ordered[first] < middle - n_sigma * spread:
            first += 1
        while last > first and ordered[last - 1] > middle + n_sigma * spread:
            last -= 1
        if first == low and last == high:
            break
        low, high = first, last
    return ordered[low:high]


@njit(nogil=True, cache=True)
def level_of(values: Floats, estimator: int) -> float:  # pragma: no cover
    """The number that stands for values without outliers, by one of `LEVELS`; NaN for none."""
    if len(values) == 0:
        return np.nan
    return float(np.mean(values) if estimator == _MEAN else np.median(values))


@njit(nogil=True, cache=True)
def _all_annuli(
    image: Numbers,
    bad: Bools,
    y: Floats,
    x: Floats,
    inner: float,
    outer: float,
    estimator: int,
    n_sigma: float,
    out: Floats,
) -> None:  # pragma: no cover
    buffer = np.empty(int((2 * outer + 2) ** 2))
    for k in range(len(x)):
        n = ring_pixels(image, bad, y[k], x[k], inner, outer, buffer)
        kept = inliers(buffer[:n], estimator, n_sigma)
        out[k, 0], out[k, 1], out[k, 2] = np.nan, np.nan, len(kept)
        if len(kept) > 1:
            error = np.std(kept) / math.sqrt(len(kept) - 1)
            out[k, 0] = level_of(kept, estimator)
            out[k, 1] = error if estimator == _MEAN else error * math.sqrt(math.pi / 2)


def measure_annuli(
    image: Numbers,
    bad: Bools,
    x: Floats,
    y: Floats,
    *,
    inner: float,
    outer: float,
    n_sigma: float = 3.0,
    statistic: str = "median",
) -> AnnulusLevels:
    """Level per pixel of one (y, x) image in annuli around array positions `x`, `y`.

    Good pixels whose center lies between `inner` and `outer` (px) are clipped at `n_sigma` about their median; the
    level is their `statistic`, one of `LEVELS`. Its standard error is s / √n, for a median × √(π/2). NaN where fewer
    than two pixels remain.
    """
    out = np.empty((len(x), 3))
    pixels = np.ascontiguousarray(image, dtype=image.dtype.newbyteorder("="))
    row, column = (np.ascontiguousarray(p, dtype=np.float64) for p in (y, x))
    unusable, estimator = np.ascontiguousarray(bad), LEVELS[statistic]
    _all_annuli(pixels, unusable, row, column, float(inner), float(outer), estimator, float(n_sigma), out)
    return AnnulusLevels(out[:, 0], out[:, 1], out[:, 2].astype(np.int64))
