"""An image that array code can calculate with: finite everywhere, its bad pixels known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import ndimage

from ztfxr.arrays.images.sky import median_sky
from ztfxr.arrays.types import Bools, Images, Numbers

__all__ = ["Image", "blank_pixels"]

_BLANK_SIDE, _LEAST_JUMP = 5, 0.2


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
        bad = bad | ~np.isfinite(pixels)
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
    if min(pixels.shape) < _BLANK_SIDE or not _has_runs(pixels[:: _BLANK_SIDE - 1]):
        return out
    square = (_BLANK_SIDE, _BLANK_SIDE)
    whole = ndimage.minimum_filter(pixels, square) == ndimage.maximum_filter(pixels, square)
    inner = slice(_BLANK_SIDE // 2, -(_BLANK_SIDE // 2))
    out[inner, inner] = whole[inner, inner]
    out &= pixels < np.nanmax(pixels)
    out = np.asarray(ndimage.binary_dilation(out, np.ones(square, dtype=bool)))
    steps = np.abs(np.diff(np.where(np.isfinite(pixels), pixels, 0.0)))
    border, both = out[:, 1:] != out[:, :-1], out[:, 1:] | out[:, :-1]
    if border.any() and np.median(steps[border]) < _LEAST_JUMP * np.median(steps[~both]):
        out[:] = False
    return out


def _has_runs(rows: Numbers) -> bool:
    """Some of the rows have as many equal pixels side by side as a blank square, and most have not."""
    same = rows[:, 1:] == rows[:, :-1]
    if not 0 < np.count_nonzero(same) < 0.5 * same.size:
        return False
    return bool((ndimage.minimum_filter1d(same.astype(np.int8), _BLANK_SIDE - 1, axis=1) > 0).any())
