"""What became of a measurement: from how much of it could be seen to the bits of its status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.types import Bools, Floats
from ztfxr.schema import FIT_PLANES, SPECS, STATUS_PLANES, planes_to_bits

__all__ = ["FAILED", "NO_GOOD_PIXELS", "Coverage", "fit_flags"]

_OUTSIDE, _EDGE, _MASKED, NO_GOOD_PIXELS, FAILED = (
    planes_to_bits([name], STATUS_PLANES) for name in ("outside", "edge", "masked", "no_good_pixels", "solve_failed")
)
_SATURATED, _BLENDED = (planes_to_bits([name], FIT_PLANES) for name in ("saturated", "blended"))
# Fractions are sums of thousands of overlaps: what is closer to 0 or 1 than this is rounding.
_ROUNDING = 1e-9


@dataclass(frozen=True)
class Coverage:
    """How much of apertures, or of the light of PSFs, could be seen.

    Parameters
    ----------
    lost
        The fraction on bad pixels or outside the image.
    outside
        The fraction outside the image alone.
    """

    lost: Floats
    outside: Floats

    @property
    def masked_fraction(self) -> Floats:
        """`lost`, zero where it is no more than rounding."""
        return np.where(self.lost < _ROUNDING, 0.0, self.lost)

    @property
    def off(self) -> Bools:
        """True where nothing is inside the image."""
        return np.asarray(self.outside > 1 - _ROUNDING)

    def status(self, *, no_good: Bools, failed: Bools | bool = False) -> NDArray[Any]:
        """The bits of `status`; where the position is inside the image, with those of what has no flux, and why.

        `no_good` is True where too few pixels were good, `failed` where the fit failed although enough were.
        """
        off = self.off
        bits = np.where(off, _OUTSIDE, 0)
        bits |= np.where(~off & (self.outside > _ROUNDING), _EDGE, 0)
        bits |= np.where(self.lost - self.outside > _ROUNDING, _MASKED, 0)
        bits |= np.where(~off & no_good, NO_GOOD_PIXELS, 0)
        bits |= np.where(~off & failed, FAILED, 0)
        return bits.astype(SPECS["status"].dtype)


def fit_flags(saturated: Bools, blended: Bools) -> NDArray[Any]:
    """The bits of `fit_flags`."""
    bits = np.where(saturated, _SATURATED, 0) | np.where(blended, _BLENDED, 0)
    return bits.astype(SPECS["fit_flags"].dtype)
