"""Exact circular apertures, many positions and radii at once, with variance and mask."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import ArrayLike, NDArray
from scipy import signal

from ztfxr.arrays.types import Bools, Floats, Numbers, Scalar

__all__ = ["ApertureSums", "circle_overlap", "correlation_factor", "sum_apertures"]

_LEAST_OTHER = 0.1
"""Least part of the variance of a difference that the image which was not convolved is taken to have."""


_FAR = 1e6
_REACH = 0.7071067811865476
"""Half the diagonal of a pixel: nearer to the center it is inside a disk, further off outside."""


@dataclass(frozen=True)
class ApertureSums:
    """Sums over apertures, each of shape (source, radius) but `total_area` (radius,)."""

    flux: Floats
    variance: Floats
    area: Floats
    outside_area: Floats
    total_area: Floats


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
    image: Numbers,
    variance: Numbers,
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
    image: Numbers, variance: Numbers, bad: Bools, x: Floats, y: Floats, *, radii: ArrayLike
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
    row, column = np.ascontiguousarray(y), np.ascontiguousarray(x)
    _sum_all(_plain(image), _plain(variance), _plain(bad), column, row, wanted[order], out)
    sums = np.empty_like(out)
    sums[:, :, order] = out
    total = np.pi * wanted**2
    outside = np.where(total - sums[:, 3] > 1e-9 * total, total - sums[:, 3], 0.0)
    return ApertureSums(sums[:, 0], sums[:, 1], sums[:, 2], outside, total)


def correlation_factor(kernel: Floats, share: float, radii: ArrayLike) -> Floats:
    """Variance of sums in disks over that for independent pixels, where a part of the noise was convolved; (radius,).

    Parameters
    ----------
    kernel
        (y, x), that a part of the noise was convolved with.
    share
        Variance of that part before it was convolved, over the variance of a pixel.
    radii
        Of the disks, each centered on a pixel.

    Notes
    -----
    The variance of ``Σ w(p) Σ_u K(p - u) n(u)`` is ``Σ_u V(u) (Σ_p w(p) K(p - u))²``, where independent pixels would
    give ``Σ w² Σ K² V``. Of a kernel that sharpens, the noise cancels in sums, and what is left is that of the other
    image, a small difference of large numbers: its part of the variance is taken as a tenth where it comes out less.
    """
    square = float((kernel**2).sum())
    out = []
    for radius in np.atleast_1d(np.asarray(radii, dtype=np.float64)):
        offset = np.arange(-int(np.ceil(radius)), int(np.ceil(radius)) + 1, dtype=np.float64)
        weight = circle_overlap(*np.meshgrid(offset, offset), radius)
        spread = signal.correlate(weight, kernel, mode="full")
        more = (spread**2).sum() / (weight**2).sum() - square
        out.append(1.0 + more * (share if more >= 0 else min(share, (1.0 - _LEAST_OTHER) / square)))
    return np.array(out)


def _plain(array: NDArray[Scalar]) -> NDArray[Scalar]:
    """The array contiguous and in the machine's byte order, which numba reads."""
    return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
