"""Bit planes of integer mask images, and boolean masks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import sep
from numpy.typing import NDArray

from ztfxr.arrays.types import Bools, Floats, Numbers

__all__ = ["any_bit", "disk", "ellipses", "fractions", "grow"]

_BLOCK = 1 << 17
_SMALLEST_AXIS = 0.75


def any_bit(flags: NDArray[np.integer], bits: int) -> Bools:
    """Where any of `bits` is set; same shape as `flags`. Bits that the integers cannot hold are never set."""
    chosen = flags.dtype.type(bits & int(np.iinfo(flags.dtype).max))
    if not flags.flags.c_contiguous:
        return np.asarray(np.bitwise_and(flags, chosen) != 0)
    out = np.empty(flags.shape, dtype=bool)
    values, found = flags.reshape(-1), out.reshape(-1)
    # By blocks that stay in the processor's cache: the masked integers never make a whole image of their own.
    for start in range(0, values.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        np.not_equal(np.bitwise_and(values[block], chosen), 0, out=found[block])
    return out


def fractions(flags: NDArray[np.integer], values: Sequence[int]) -> Floats:
    """The fraction of pixels in which each of `values` is set, of shape (value,); NaN for an empty image."""
    pixels = np.ascontiguousarray(flags).reshape(-1)
    counts = np.zeros(len(values), dtype=np.int64)
    known = [(i, flags.dtype.type(v)) for i, v in enumerate(values) if v <= np.iinfo(flags.dtype).max]
    for start in range(0, pixels.size, _BLOCK):
        block = pixels[start : start + _BLOCK]
        for i, value in known:
            counts[i] += np.count_nonzero(block & value)
    return counts / pixels.size if pixels.size else np.full(len(values), np.nan)


def disk(radius: float) -> Bools:
    """A boolean disk of pixels whose centers lie within `radius` of the center."""
    half = int(np.floor(radius))
    offset = np.arange(-half, half + 1)
    return np.asarray(offset[:, None] ** 2 + offset[None, :] ** 2 <= radius**2)


def grow(bad: Bools, radius: float) -> Bools:
    """Dilate the (..., y, x) mask by a disk of `radius` pixels; 0 returns it unchanged.

    What a pixel inside a bad region reaches outside of it, a pixel on the region's rim reaches too: only rims are
    stamped.
    """
    if radius <= 0:
        return bad
    half = int(np.floor(radius))
    out = np.pad(bad, [(0, 0)] * (bad.ndim - 2) + [(half, half)] * 2)
    rim = np.flatnonzero(_rim(out)) if half else np.empty(0, dtype=np.intp)
    pixels = out.reshape(-1)
    for dy, dx in np.argwhere(disk(radius)) - half:
        pixels[rim + (dy * out.shape[-1] + dx)] = True
    inner = slice(half, -half or None)
    return np.ascontiguousarray(out[..., inner, inner])


def _rim(bad: Bools) -> Bools:
    """Bad pixels next to a good one, in a mask whose outermost pixels are good."""
    rim = bad.copy()
    core = (..., slice(1, -1), slice(1, -1))
    for dy, dx in ((0, 1), (2, 1), (1, 0), (1, 2)):
        ny, nx = bad.shape[-2] - 2 + dy, bad.shape[-1] - 2 + dx
        rim[core] &= bad[..., dy:ny, dx:nx]
    return bad & ~rim


def ellipses(x: Numbers, y: Numbers, a: Numbers, b: Numbers, angle: Numbers, *, shape: tuple[int, int]) -> Bools:
    """Pixels of an image of `shape` whose centers lie in any ellipse.

    Centers `x`, `y` and semi-axes `a`, `b` in pixels, `angle` in degrees from +x towards +y, each of shape (source,).
    Rows that are not finite are passed over; axes below 0.75 pixels count as that, so that a source on the image
    always has a pixel.
    """
    columns = [np.asarray(v, dtype=np.float64) for v in (x, y, a, b, angle)]
    use = np.isfinite(columns).all(axis=0)
    cx, cy, major, minor, degrees = (c[use] for c in columns)
    theta = np.deg2rad((degrees + 90.0) % 180.0 - 90.0)
    out = np.zeros(shape, dtype=bool)
    sep.mask_ellipse(out, cx, cy, np.maximum(major, _SMALLEST_AXIS), np.maximum(minor, _SMALLEST_AXIS), theta)
    return out
