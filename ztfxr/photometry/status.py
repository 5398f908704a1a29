"""What became of a measurement: from how much of it could be seen to the bits of its status."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.types import Bools, Floats, Ints
from ztfxr.schema import FIT_PLANES, SPECS, STATUS_PLANES, planes_to_bits

__all__ = ["FAILED", "NO_GOOD_PIXELS", "Coverage", "fit_flags", "fits_poorly"]

_OUTSIDE, _EDGE, _MASKED, NO_GOOD_PIXELS, FAILED = (
    planes_to_bits([name], STATUS_PLANES) for name in ("outside", "edge", "masked", "no_good_pixels", "solve_failed")
)
_SATURATED, _BLENDED, _POOR = (planes_to_bits([name], FIT_PLANES) for name in ("saturated", "blended", "poor_fit"))
_POOR_CHI2, _POOR_SIGMA = 2.0, 5.0
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


def fits_poorly(chi2: Floats, n_pixels: Ints, snr: Floats) -> Bools:
    """True where what a fit leaves is neither noise nor a small error of the model.

    Parameters
    ----------
    chi2, n_pixels
        Reduced χ² of the fit, and the pixels that it rests on.
    snr
        Signal-to-noise ratio of the flux, whose square is the light of the source in the units of χ².

    Notes
    -----
    The reduced χ² is over 2 (noise that is stated 40 % too small is no bad fit), over its scatter by five standard
    deviations, and what is left, ``(χ² - 1) n``, is more than the light of the source, ``snr²``. A PSF that is wrong by
    some per cent leaves a bright star with a large χ² and little of its light.
    """
    n = np.maximum(n_pixels, 1)
    left = (chi2 - 1.0) * n
    beyond = (chi2 > _POOR_CHI2) & (left > _POOR_SIGMA * np.sqrt(2.0 * n))
    return np.asarray(beyond & (left > snr**2))


def fit_flags(saturated: Bools, blended: Bools, poor: Bools) -> NDArray[Any]:
    """The bits of `fit_flags`."""
    bits = np.where(saturated, _SATURATED, 0) | np.where(blended, _BLENDED, 0) | np.where(poor, _POOR, 0)
    return bits.astype(SPECS["fit_flags"].dtype)
