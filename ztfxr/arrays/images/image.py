"""An image that array code can calculate with: finite everywhere, its bad pixels known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numba import njit

from ztfxr.arrays.images.sky import median_sky
from ztfxr.arrays.types import Bools, Images, Numbers

__all__ = ["Image", "blank_pixels"]

_BLANK_SIDE, _LEAST_JUMP, _MOST_ROWS = 5, 0.2, 200
_NO_LIGHT = 1e30


@dataclass(frozen=True)
class Image:
    """An image with its variance (None: unknown) and mask; finite everywhere, bad pixels set to zero.

    `n_blank` counts the pixels that `blank_pixels` found and no mask knew of; they are bad.
    """

    pixels: Images
    variance: Images | None
    bad: Bools
    n_blank: int = 0

    @cached_property
    def sky(self) -> tuple[float, float]:
        """Median and noise of the sky."""
        return median_sky(self.pixels, self.bad)

    @classmethod
    def of(cls, pixels: Numbers, variance: Numbers | None, bad: Bools) -> Image:
        """Copies with harmless values under the mask, which takes in every pixel that cannot be used.

        A variance that is nowhere finite and positive is unknown, as it is where the gain of an epoch is unknown.
        """
        # Codes for "no value", such as the largest float, are no light.
        bad = bad | ~(np.abs(pixels) < _NO_LIGHT)
        blank = blank_pixels(pixels) & ~bad
        n_blank = int(np.count_nonzero(blank))
        if n_blank:
            bad |= blank
        noise = None
        if variance is not None:
            usable = np.isfinite(variance) & (variance > 0)
            if usable.any():
                bad |= ~usable
                noise = np.where(bad, np.float32(1), variance).astype(np.float32, copy=False)
        clean = np.where(bad, np.float32(0), pixels).astype(np.float32, copy=False)
        return cls(clean, noise, bad, n_blank)


def blank_pixels(pixels: Numbers) -> Bools:
    """True in squares of 5 × 5 pixels of one value, in an image that is noisy elsewhere: nothing was seen there.

    Parameters
    ----------
    pixels
        (y, x), of any dtype. An image of which most neighbors are equal (without noise, or of small integers) has none,
        nor have regions whose border differs from them by far less than neighbors elsewhere (the sky of a model), nor
        those of the largest value (saturated stars).
    """
    out = np.zeros(pixels.shape, dtype=bool)
    rows = pixels[:: _BLANK_SIDE - 1]
    if 2 * np.count_nonzero(rows[:, 1:] == rows[:, :-1]) >= rows.size:
        return out
    plain = np.ascontiguousarray(pixels, dtype=pixels.dtype.newbyteorder("="))
    if not _mark_squares(plain, _BLANK_SIDE, out):
        return out
    out &= plain < np.nanmax(plain)
    some = np.flatnonzero(out.any(axis=1))
    some = some[:: max(len(some) // _MOST_ROWS, 1)]
    marked, values = out[some], plain[some].astype(np.float64)
    steps = np.abs(np.diff(np.where(np.isfinite(values), values, 0.0)))
    border, both = marked[:, 1:] != marked[:, :-1], marked[:, 1:] | marked[:, :-1]
    if border.any() and np.median(steps[border]) < _LEAST_JUMP * np.median(steps[~both]):
        out[:] = False
    return out


@njit(nogil=True, cache=True)
def _mark_squares(pixels: Numbers, side: int, out: Bools) -> bool:  # pragma: no cover
    """Mark squares whose pixels all have one value; True where there are any."""
    found = False
    for y in range(pixels.shape[0] - side + 1):
        for x in range(pixels.shape[1] - side + 1):
            value = pixels[y, x]
            equal = pixels[y, x + 1] == value and pixels[y + side - 1, x + side - 1] == value
            if equal:
                for i in range(side):
                    for j in range(side):
                        equal = equal and pixels[y + i, x + j] == value
            if equal:
                found = True
                out[y : y + side, x : x + side] = True
    return found
