"""Exact circular apertures, many at once, with variance and mask."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["ApertureSums", "circle_weights", "sum_apertures"]

Floats = NDArray[np.float64]

_FAR = 1e6
_BLOCK = 1 << 18


@dataclass(frozen=True)
class ApertureSums:
    """Sums over apertures, each of shape (source,)."""

    flux: Floats
    variance: Floats
    area: Floats
    total_area: Floats
    outside_area: Floats


def _corner_area(x: Floats, y: Floats, radius: float) -> Floats:
    """Area of the part of the disk of `radius` at the origin with X < x and Y < y (exact)."""
    r2 = radius * radius
    x, y = np.clip(x, -radius, radius), np.clip(y, -radius, radius)
    half_chord = np.sqrt(np.maximum(r2 - y * y, 0.0))

    def under_arc(t: Floats) -> Floats:
        """Antiderivative of sqrt(r² − t²)."""
        t = np.clip(t, -radius, radius)
        return (t * np.sqrt(np.maximum(r2 - t * t, 0.0)) + r2 * np.arcsin(t / radius)) / 2

    def column(t0: Floats, t1: Floats) -> Floats:
        """Area above the lower arc between t0 and t1, up to the upper arc."""
        return 2 * np.maximum(under_arc(t1) - under_arc(t0), 0.0)

    left, right = np.minimum(x, -half_chord), np.clip(x, -half_chord, half_chord)
    lowest = np.full_like(x, -radius)
    middle = y * (right + half_chord) + under_arc(right) - under_arc(-half_chord)
    tails = column(lowest, left) + column(half_chord, np.maximum(x, half_chord))
    return np.asarray(np.where(y >= 0, tails, 0.0) + np.maximum(middle, 0.0))


def circle_weights(dx: Floats, dy: Floats, radius: float) -> Floats:
    """Exact overlap of unit pixels with disks of `radius`.

    Parameters
    ----------
    dx, dy
        Position of the centre of each disk relative to the central pixel of its window, in [-0.5, 0.5], shape
        (source,).
    radius
        Of the disks, in pixels.

    Returns
    -------
    numpy.ndarray
        Fractions in [0, 1], shape (source, k, k) in (y, x) order with ``k = 2 * ceil(radius + 0.5) + 1``.
    """
    half = int(np.ceil(radius + 0.5))
    edges = np.arange(-half, half + 2) - 0.5
    y, x = np.broadcast_arrays(edges[None, :, None] - dy[:, None, None], edges[None, None, :] - dx[:, None, None])
    corner = _corner_area(x, y, radius)
    return np.clip(np.diff(np.diff(corner, axis=1), axis=2), 0.0, 1.0)


def sum_apertures(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: NDArray[np.bool_],
    x: Floats,
    y: Floats,
    *,
    radius: float,
) -> ApertureSums:
    """Sum one (y, x) image in disks at array positions `x`, `y`, leaving out bad pixels and those off the image.

    ``flux = Σ w I`` and ``variance = Σ w² V`` with w the exact overlap of each pixel with the disk: the variance of
    the sum for independent pixels. (photutils and sep give Σ w V, which overestimates it by the pixels on the rim.)
    `area` is the good area that was summed, `total_area` the disk's, `outside_area` the part of it off the image. A
    position that is NaN, or more than a million pixels away, gives an area of 0.
    """
    half = int(np.ceil(radius + 0.5))
    step = max(1, _BLOCK // (2 * half + 1) ** 2)
    blocks = [slice(start, start + step) for start in range(0, max(len(x), 1), step)]
    sums = [_sum_block(image, variance, bad, x[block], y[block], radius) for block in blocks]
    return ApertureSums(*(np.concatenate([getattr(s, f.name) for s in sums]) for f in fields(ApertureSums)))


def _sum_block(
    image: NDArray[Any], variance: NDArray[Any], bad: NDArray[np.bool_], x: Floats, y: Floats, radius: float
) -> ApertureSums:
    """`sum_apertures` of as many sources as fit into memory at once."""
    placed = (np.abs(x) < _FAR) & (np.abs(y) < _FAR)
    px, py = np.where(placed, x, -_FAR), np.where(placed, y, -_FAR)
    ix, iy = np.floor(px + 0.5).astype(np.int64), np.floor(py + 0.5).astype(np.int64)
    weights = circle_weights(px - ix, py - iy, radius)
    half = weights.shape[1] // 2
    offset = np.arange(-half, half + 1)
    rows, columns = iy[:, None, None] + offset[None, :, None], ix[:, None, None] + offset[None, None, :]
    ny, nx = image.shape
    inside = (rows >= 0) & (rows < ny) & (columns >= 0) & (columns < nx)
    rows, columns = np.broadcast_arrays(np.clip(rows, 0, ny - 1), np.clip(columns, 0, nx - 1))
    good = inside & ~bad[rows, columns]
    used = np.where(good, weights, 0.0)
    pixels = np.where(good, image[rows, columns], 0.0)
    noise = np.where(good, variance[rows, columns], 0.0)
    axes = (1, 2)
    return ApertureSums(
        flux=(used * pixels).sum(axes),
        variance=(used**2 * noise).sum(axes),
        area=used.sum(axes),
        total_area=weights.sum(axes),
        outside_area=np.where(inside, 0.0, weights).sum(axes),
    )
