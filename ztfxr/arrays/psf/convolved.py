"""What a matching kernel makes of the PSF and of the noise in a difference image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from scipy import signal

from ztfxr.arrays.images.correlation import autocorrelation, convolved_share
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.stamps import trim
from ztfxr.arrays.types import Bools, Floats, Numbers

__all__ = ["DifferenceKernel", "Side"]

Side: TypeAlias = Literal["science", "reference"]

_LAGS = 4


@dataclass(frozen=True)
class DifferenceKernel:
    """The kernel that one of the two images of a difference was convolved with.

    Parameters
    ----------
    coefficients
        Kernels of the polynomial terms (term, y, x), without a border of zeros.
    acts_on
        The image that was convolved.
    whitening
        The kernel that the difference itself was convolved with to whiten its noise; None where it was not.
    """

    coefficients: Floats
    acts_on: Side
    whitening: Floats | None

    @classmethod
    def of(cls, coefficients: Numbers, science_convolved: Bools, whitening: Numbers | None) -> DifferenceKernel:
        """The kernel of one epoch; `NoSolutionError` where it has none."""
        white = None if whitening is None else np.asarray(whitening, dtype=np.float64)
        if not (np.isfinite(coefficients).all() and (white is None or np.isfinite(white).all())):
            raise NoSolutionError("solve_failed")
        own = np.ascontiguousarray(trim(coefficients), dtype=np.float64)
        return cls(own, "science" if science_convolved else "reference", white)

    def spread(self, side: Side) -> Floats | None:
        """The kernels (term, y, x) that act on the PSF of one of the images; None where none does."""
        acts = self.acts_on == side
        if not acts and self.whitening is None:
            return None
        if acts:
            own = self.coefficients
        else:
            own = np.zeros((len(self.coefficients), 1, 1))
            own[0] = 1.0
        return np.ascontiguousarray(own if self.whitening is None else signal.convolve(own, self.whitening[None]))

    def noise_kernels(self) -> Floats:
        """The kernels with which the noise of the convolved image enters the difference, on the science scale."""
        if self.acts_on == "science":
            return np.asarray(self.coefficients / self.coefficients[0].sum())
        return self.coefficients

    def measured_variance(self, image: Numbers, variance: Numbers, bad: Bools) -> float:
        """Variance that the convolved image's sky had before, from the correlation of the difference's noise.

        Photon noise of sources is not in it: the difference does not say which of the two images it came from.
        """
        usable = ~bad & (variance > 0) & np.isfinite(variance)
        if not usable.any():
            return 0.0
        found = autocorrelation(image, variance, bad, reach=_LAGS)
        return convolved_share(found, self.noise_kernels()[0]) * float(np.median(variance[usable]))
