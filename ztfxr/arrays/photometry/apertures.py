"""Exact circular apertures, many positions and radii at once, with variance, mask and local background."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.types import Bools, Floats

__all__ = ["AnnulusLevels", "ApertureSums", "circle_overlap", "measure_annuli", "sum_apertures"]


_FAR = 1e6
_REACH = 0.7071067811865476
"""Half the diagonal of a pixel: nearer to the center it is inside a disk, further off outside."""
_CLIP_ROUNDS = 10


@dataclass(frozen=True)
class ApertureSums:
    """Sums over apertures, each of shape (source, radius) but `total_area` (radius,)."""

    flux: Floats
    variance: Floats
    area: Floats
    outside_area: Floats
    total_area: Floats


@dataclass(frozen=True)
class AnnulusLevels:
    """Level of the good pixels of an annulus, its standard error and their number, each (source,)."""

    level: Floats
    error: Floats
    n: NDArray[np.int64]


@njit(nogil=True, cache=True)
def _corner(x0: float, x1: float, y0: float, y1: float, r2: float) -> float:  # pragma: no cover
    """Area of a rectangle with 0 <= x0 < x1 and 0 <= y0 < y1 inside the disk of squared radius r2 at the origin."""
    if x0 * x0 + y0 * y0 >= r2:
        return 0.0
    if x1 * x1 + y1 * y1 <= r2:
        return (x1 - x0) * (y1 - y0)
    full = math.sqrt(r2 - y1 * y1) if y1 * y1 < r2 else 0.0
    a, b = min(max(x0, full), x1), min(x1, math.sqrt(r2 - y0 * y0))
    area = (a - x0) * (y1 - y0)
    if b > a:
        above_a, above_b = math.sqrt(max(r2 - a * a, 0.0)), math.sqrt(max(r2 - b * b, 0.0))
        angle = math.atan2(b * above_a - a * above_b, a * b + above_a * above_b)
        area += 0.5 * (b * above_b - a * above_a + r2 * angle) - y0 * (b - a)
    return area


@njit(nogil=True, cache=True)
def _columns(x0: float, x1: float, y0: float, y1: float, r2: float) -> float:  # pragma: no cover
    """As `_corner`, for any y."""
    if y0 >= 0:
        return _corner(x0, x1, y0, y1, r2)
    if y1 <= 0:
        return _corner(x0, x1, -y1, -y0, r2)
    return _corner(x0, x1, 0.0, y1, r2) + _corner(x0, x1, 0.0, -y0, r2)


@njit(nogil=True, cache=True)
def _overlap(dx: float, dy: float, r2: float) -> float:  # pragma: no cover
    """Area of the unit pixel at (dx, dy) inside the disk of squared radius r2 at the origin."""
    x0, x1, y0, y1 = dx - 0.5, dx + 0.5, dy - 0.5, dy + 0.5
    if x0 >= 0:
        return _columns(x0, x1, y0, y1, r2)
    if x1 <= 0:
        return _columns(-x1, -x0, y0, y1, r2)
    return _columns(0.0, x1, y0, y1, r2) + _columns(0.0, -x0, y0, y1, r2)


@njit(nogil=True, cache=True)
def _overlaps(dx: Floats, dy: Floats, radius: float, out: Floats) -> None:  # pragma: no cover
    for k in range(len(out)):
        out[k] = _overlap(dx[k], dy[k], radius * radius)


def circle_overlap(dx: ArrayLike, dy: ArrayLike, radius: float) -> Floats:
    """Exact area of unit pixels inside a disk of `radius` at the origin; `dx`, `dy` are the pixels' centers."""
    x, y = np.broadcast_arrays(np.asarray(dx, dtype=np.float64), np.asarray(dy, dtype=np.float64))
    out = np.empty(x.size)
    _overlaps(np.ascontiguousarray(x).ravel(), np.ascontiguousarray(y).ravel(), float(radius), out)
    return out.reshape(x.shape)


@njit(nogil=True, cache=True)
def _add_pixel(
    sums: Floats, dx: float, dy: float, radii: Floats, value: float, noise: float, good: bool
) -> None:  # pragma: no cover
    """Add one pixel to the sums (quantity, radius): flux, variance, area, area inside the image.

    What covers the pixel whole is noted at its radius alone; `_accumulate` hands it on to the larger ones.
    """
    distance = math.sqrt(dx * dx + dy * dy)
    m, n = 0, len(radii)
    while m < n and radii[m] <= distance - _REACH:
        m += 1
    while m < n and radii[m] < distance + _REACH:
        weight = _overlap(dx, dy, radii[m] * radii[m])
        sums[7, m] += weight
        if good:
            sums[4, m] += weight * value
            sums[5, m] += weight * weight * noise
            sums[6, m] += weight
        m += 1
    if m < n:
        sums[3, m] += 1.0
        if good:
            sums[0, m] += value
            sums[1, m] += noise
            sums[2, m] += 1.0


@njit(nogil=True, cache=True)
def _sum_all(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    x: Floats,
    y: Floats,
    radii: Floats,
    out: Floats,
) -> None:  # pragma: no cover
    """Sums (source, quantity, radius) for ascending radii; sources that are NaN or far away stay 0."""
    ny, nx = image.shape
    reach = radii[-1]
    sums = np.empty((8, len(radii)))
    for k in range(len(x)):
        px, py = x[k], y[k]
        if not (abs(px) < _FAR and abs(py) < _FAR):
            continue
        sums[:] = 0.0
        limit = (reach + _REACH) ** 2
        for i in range(max(0, math.floor(py - reach + 0.5)), min(ny, math.floor(py + reach + 0.5) + 1)):
            dy = i - py
            for j in range(max(0, math.floor(px - reach + 0.5)), min(nx, math.floor(px + reach + 0.5) + 1)):
                dx = j - px
                if dx * dx + dy * dy < limit:
                    value, noise = float(image[i, j]), float(variance[i, j])
                    good = not bad[i, j] and math.isfinite(value) and math.isfinite(noise)
                    _add_pixel(sums, dx, dy, radii, value, noise, good)
        for q in range(4):
            whole = 0.0
            for m in range(len(radii)):
                whole += sums[q, m]
                out[k, q, m] = whole + sums[4 + q, m]


def sum_apertures(
    image: NDArray[Any], variance: NDArray[Any], bad: Bools, x: Floats, y: Floats, *, radii: ArrayLike
) -> ApertureSums:
    """Sum one (y, x) image in disks at array positions `x`, `y`, leaving out bad pixels and those off the image.

    ``flux = Σ w I`` and ``variance = Σ w² V`` with w the exact overlap of each pixel with the disk: the variance of
    the sum for independent pixels. (photutils and sep give Σ w V, which overestimates it by the pixels on the rim.)
    Pixels are bad where `bad` says so and where image or variance are not finite. `area` is the good area that was
    summed, `total_area` the disk's, `outside_area` the part of it off the image. A position that is NaN, or more than
    a million pixels away, gives an area of 0. Each pixel is read once for all radii.
    """
    wanted = np.atleast_1d(np.asarray(radii, dtype=np.float64))
    order = np.argsort(wanted)
    out = np.zeros((len(x), 4, len(wanted)))
    planes = (_plain(image), _plain(variance), _plain(bad))
    _sum_all(*planes, np.ascontiguousarray(x), np.ascontiguousarray(y), wanted[order], out)
    sums = np.empty_like(out)
    sums[:, :, order] = out
    total = np.pi * wanted**2
    outside = np.where(total - sums[:, 3] > 1e-9 * total, total - sums[:, 3], 0.0)
    return ApertureSums(sums[:, 0], sums[:, 1], sums[:, 2], outside, total)


def _plain(array: NDArray[Any]) -> NDArray[Any]:
    """The array contiguous and in the machine's byte order, which numba reads."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))


@njit(nogil=True, cache=True)
def _clipped(values: Floats, n_sigma: float, use_mean: bool) -> tuple[float, float, int]:  # pragma: no cover
    """Median or mean of sorted values within `n_sigma` standard deviations of their median; its error, their number."""
    low, high = 0, len(values)
    for _ in range(_CLIP_ROUNDS):
        n = high - low
        if n < 2:
            break
        middle = 0.5 * (values[low + (n - 1) // 2] + values[low + n // 2])
        spread = np.std(values[low:high])
        first, last = low, high
        while first < last and values[first] < middle - n_sigma * spread:
            first += 1
        while last > first and values[last - 1] > middle + n_sigma * spread:
            last -= 1
        if first == low and last == high:
            break
        low, high = first, last
    n = high - low
    if n < 2:
        return np.nan, np.nan, n
    error = float(np.std(values[low:high])) * math.sqrt(1.0 / (n - 1))
    if use_mean:
        return float(np.mean(values[low:high])), error, n
    return float(0.5 * (values[low + (n - 1) // 2] + values[low + n // 2])), error * math.sqrt(math.pi / 2), n


@njit(nogil=True, cache=True)
def _all_annuli(
    image: NDArray[Any],
    bad: Bools,
    x: Floats,
    y: Floats,
    inner: float,
    outer: float,
    n_sigma: float,
    use_mean: bool,
    out: Floats,
) -> None:  # pragma: no cover
    ny, nx = image.shape
    buffer = np.empty(int((2 * outer + 2) ** 2))
    for k in range(len(x)):
        px, py = x[k], y[k]
        n = 0
        if abs(px) < _FAR and abs(py) < _FAR:
            for i in range(max(0, math.ceil(py - outer)), min(ny, math.floor(py + outer) + 1)):
                for j in range(max(0, math.ceil(px - outer)), min(nx, math.floor(px + outer) + 1)):
                    d2 = (i - py) ** 2 + (j - px) ** 2
                    if inner * inner <= d2 <= outer * outer and not bad[i, j] and math.isfinite(float(image[i, j])):
                        buffer[n] = image[i, j]
                        n += 1
        level, error, used = _clipped(np.sort(buffer[:n]), n_sigma, use_mean)
        out[k, 0], out[k, 1], out[k, 2] = level, error, used


def measure_annuli(
    image: NDArray[Any],
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

    Good pixels whose center lies between `inner` and `outer` (px) are clipped at `n_sigma` standard deviations about
    their median, in at most ten rounds; the level is their ``"median"`` or ``"mean"``. Its standard error is s / √n,
    for the median × √(π/2). NaN where fewer than two pixels remain.
    """
    out = np.empty((len(x), 3))
    places = (np.ascontiguousarray(x), np.ascontiguousarray(y))
    _all_annuli(_plain(image), _plain(bad), *places, inner, outer, n_sigma, statistic == "mean", out)
    return AnnulusLevels(out[:, 0], out[:, 1], out[:, 2].astype(np.int64))
