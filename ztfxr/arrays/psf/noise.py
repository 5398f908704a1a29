"""Loops over the noise around a source: sky, its variance, and the correlation between pixels."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ztfxr.arrays.statistics import MAD_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats

__all__ = ["bounds", "convolved_noise", "correlated_noise", "ring_level", "sky_variance"]

Images = NDArray[Any]


@njit(nogil=True, cache=True, error_model="numpy")
def bounds(center: int, half: int, size: int) -> tuple[int, int]:
    """First pixel, and the one after the last, of a window in an image."""
    return max(center - half, 0), min(center + half + 1, size)


@njit(nogil=True, cache=True, error_model="numpy")
def _smallest(values: Floats, n: int, rank: int) -> float:
    """The value of a rank among the first `n`, which are reordered on the way (Hoare's selection)."""
    low, high = 0, n - 1
    while low < high:
        pivot = values[(low + high) // 2]
        i, j = low, high
        while i <= j:
            while values[i] < pivot:
                i += 1
            while values[j] > pivot:
                j -= 1
            if i <= j:
                values[i], values[j] = values[j], values[i]
                i += 1
                j -= 1
        if rank <= j:
            high = j
        elif rank >= i:
            low = i
        else:
            break
    return float(values[rank])


@njit(nogil=True, cache=True, error_model="numpy")
def _median(values: Floats, n: int) -> float:
    """Median of the first `n` values, which are reordered on the way."""
    upper = _smallest(values, n, n // 2)
    return upper if n % 2 else 0.5 * (upper + _smallest(values, n, n // 2 - 1))


@njit(nogil=True, cache=True, error_model="numpy")
def ring_level(
    image: Images, variance: Images, bad: Bools, y: int, x: int, inner: float, outer: float, values: Floats
) -> tuple[float, float]:
    """Median of a ring, after those beyond three robust deviations have gone, and the variance of that median."""
    reach = int(np.ceil(outer))
    n, noise = 0, 0.0
    for row in range(max(y - reach, 0), min(y + reach + 1, image.shape[0])):
        for column in range(max(x - reach, 0), min(x + reach + 1, image.shape[1])):
            r2 = (row - y) ** 2 + (column - x) ** 2
            if inner * inner < r2 <= outer * outer and not bad[row, column]:
                values[n] = image[row, column]
                noise += variance[row, column]
                n += 1
    if n == 0:
        return np.nan, np.nan
    middle, noise = _median(values, n), noise / n
    apart = np.empty(n)
    for i in range(n):
        apart[i] = abs(values[i] - middle)
    spread, kept = MAD_TO_SIGMA * _median(apart, n), 0
    for i in range(n):
        if abs(values[i] - middle) <= 3 * spread:
            values[kept] = values[i]
            kept += 1
    return _median(values, max(kept, 1)), 0.5 * np.pi * noise / max(kept, 1)


@njit(nogil=True, cache=True, error_model="numpy")
def sky_variance(variance: Images, bad: Bools, y: int, x: int, half: int, radius: float, values: Floats) -> float:
    """Median variance of the window's corners, beyond `radius`; of the whole window where they have no good pixel."""
    for everywhere in (False, True):
        n = 0
        for row in range(max(y - half, 0), min(y + half + 1, variance.shape[0])):
            for column in range(max(x - half, 0), min(x + half + 1, variance.shape[1])):
                far = everywhere or (row - y) ** 2 + (column - x) ** 2 > radius * radius
                if far and not bad[row, column]:
                    values[n] = variance[row, column]
                    n += 1
        if n > 0:
            return _median(values, n)
    return 1.0


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
def correlated_noise(root: Floats, correlation: Floats) -> float:
    """What the correlation of neighboring pixels adds to ``Σ c² V``: twice the sum over half the lags."""
    reach_y, reach_x = correlation.shape[0] // 2, correlation.shape[1] // 2
    n, total = root.shape[0], 0.0
    for ly in range(reach_y + 1):
        for lx in range(-reach_x, reach_x + 1):
            if ly == 0 and lx <= 0:
                continue
            part = 0.0
            for row in range(n - ly):
                for column in range(max(0, -lx), min(n, n - lx)):
                    part += root[row, column] * root[row + ly, column + lx]
            total += 2.0 * correlation[reach_y + ly, reach_x + lx] * part
    return total


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
def convolved_noise(convolved: Images, kernel: Floats, canvas: Floats, y: int, x: int) -> float:
    """What the correlation of convolved noise adds: ``Σ_u V(u) ((Σ_p c_p K(p - u))² - Σ_p c_p² K(p - u)²)``."""
    half, reach, total = canvas.shape[0] // 2, kernel.shape[0] // 2, 0.0
    n = canvas.shape[0]
    top, bottom = bounds(y, half + reach, convolved.shape[0])
    left, right = bounds(x, half + reach, convolved.shape[1])
    for row in range(top, bottom):
        for column in range(left, right):
            variance = convolved[row, column]
            if not variance > 0.0:
                continue
            together, apart = 0.0, 0.0
            i0, j0 = row - y + half - reach, column - x + half - reach
            for a in range(max(0, -i0), min(kernel.shape[0], n - i0)):
                for b in range(max(0, -j0), min(kernel.shape[1], n - j0)):
                    product = canvas[i0 + a, j0 + b] * kernel[a, b]
                    together += product
                    apart += product * product
            total += variance * (together * together - apart)
    return total
