"""Bit planes of integer mask images."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

__all__ = ["any_bit", "combine", "disk", "grow"]


def combine(values: Iterable[int]) -> int:
    """The bitwise OR of plane values, such as ``(1, 4)`` to 5."""
    total = 0
    for value in values:
        total |= int(value)
    return total


def any_bit(flags: NDArray[np.integer], bits: int) -> NDArray[np.bool_]:
    """Where any of `bits` is set; same shape as `flags`."""
    return np.asarray(np.not_equal(np.bitwise_and(flags, flags.dtype.type(bits)), 0))


def disk(radius: float) -> NDArray[np.bool_]:
    """A boolean disk of pixels whose centres lie within `radius` of the centre."""
    half = int(np.floor(radius))
    offset = np.arange(-half, half + 1)
    return np.asarray(offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2)


def grow(bad: NDArray[np.bool_], radius: float) -> NDArray[np.bool_]:
    """Dilate the (..., y, x) mask by a disk of `radius` pixels; 0 returns it unchanged."""
    if radius <= 0:
        return bad
    footprint = disk(radius)[(None,) * (bad.ndim - 2)]
    return np.asarray(ndimage.binary_dilation(bad, structure=footprint))
