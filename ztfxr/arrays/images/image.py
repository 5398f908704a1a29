"""An image that array code can calculate with: finite everywhere, its bad pixels known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ztfxr.arrays.images.sky import median_sky
from ztfxr.arrays.types import Bools, Images, Numbers

__all__ = ["Image"]


@dataclass(frozen=True)
class Image:
    """An image with its variance (None: unknown) and mask; finite everywhere, bad pixels set to zero."""

    pixels: Images
    variance: Images | None
    bad: Bools

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
        noise = None
        if variance is not None:
            usable = np.isfinite(variance) & (variance > 0)
            if usable.any():
                bad |= ~usable
                noise = np.where(bad, np.float32(1), variance).astype(np.float32, copy=False)
        clean = np.where(bad, np.float32(0), pixels).astype(np.float32, copy=False)
        return cls(clean, noise, bad)
