"""Square blocks of pixels: their means and the planes set in them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ztfxr.arrays.types import Bools, Images, Numbers, Scalar

__all__ = ["block_mean", "block_or", "block_range", "combine_means"]

Means = Images
Counts = NDArray[np.int32]


def block_range(start: int, size: int, factor: int) -> tuple[int, int]:
    """The half-open range of blocks that pixels ``start ... start + size - 1`` fall in: pixel p is in p // factor."""
    return start // factor, -(-(start + size) // factor)


def block_mean(image: Numbers, bad: Bools, *, factor: int, start: tuple[int, int] = (0, 0)) -> tuple[Means, Counts]:
    """Mean and number of the good pixels of each block; NaN where there is none.

    Parameters
    ----------
    image, bad
        Pixels (y, x), and True where one is not to count. A pixel that is not finite never counts.
    factor
        Pixels along the side of a block.
    start
        Position (y, x) of the first pixel on the grid of blocks; blocks at the edges may be cut.
    """
    good = ~bad & np.isfinite(image)
    if factor == 1:
        return np.where(good, image, np.nan).astype(np.float32), good.astype(np.int32)
    sums = _reduce(np.add, np.where(good, image, 0), factor, start, np.float64)
    counts = _reduce(np.add, good, factor, start, np.int32)
    return _mean(sums, counts), counts


def block_or(bits: NDArray[Scalar], *, factor: int, start: tuple[int, int] = (0, 0)) -> NDArray[Scalar]:
    """The planes that any pixel of a block has set; booleans or integers, blocks as of `block_mean`."""
    return _reduce(np.bitwise_or, bits, factor, start, bits.dtype)


def combine_means(first: tuple[Means, Counts], second: tuple[Means, Counts]) -> tuple[Means, Counts]:
    """Means and numbers of blocks whose pixels came in two parts."""
    sums = sum(np.where(n > 0, mean, 0.0).astype(np.float64) * n for mean, n in (first, second))
    counts = first[1] + second[1]
    return _mean(np.asarray(sums), counts), counts


def _mean(sums: Means, counts: Counts) -> Means:
    means = np.full(sums.shape, np.nan)
    np.divide(sums, counts, out=means, where=counts > 0)
    return means.astype(np.float32)


def _reduce(
    operation: np.ufunc, values: NDArray[Any], factor: int, start: tuple[int, int], dtype: DTypeLike
) -> NDArray[Any]:
    """`operation` over the pixels of each block, one row and then one column of all blocks at a time.

    `ufunc.reduceat` does the same ten times slower along rows.
    """
    for axis, origin in enumerate(start):
        size = values.shape[axis]
        first, last = block_range(origin, size, factor)
        lines = np.moveaxis(values, axis, 0)
        total = np.zeros((last - first, *lines.shape[1:]), dtype=dtype)
        for line in range(min(factor, size)):
            block = (origin + line) // factor - first
            part = total[block : block + len(lines[line::factor])]
            operation(part, lines[line::factor], out=part, casting="unsafe")
        values = np.moveaxis(total, 0, axis)
    return np.ascontiguousarray(values)
