"""Loops over the noise around a source: the variance of its sky, and the correlation between pixels."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfxr.arrays.types import Bools, Floats, Numbers

__all__ = ["bounds", "convolved_noise", "corner_variance", "correlated_noise"]


@njit(nogil=True, cache=True, error_model="numpy")
def bounds(center: int, half: int, size: int) -> tuple[int, int]:
    """First pixel, and the one after the last, of a window in an image."""
    return max(center - half, 0), min(center + half + 1, size)


@njit(nogil=True, cache=True, error_model="numpy")
def corner_variance(variance: Numbers, bad: Bools, y: int, x: int, half: int, radius: float, values: Floats) -> float:
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
            return float(np.median(values[:n]))
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
def convolved_noise(convolved: Numbers, kernel: Floats, canvas: Floats, y: int, x: int) -> float:
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
