"""Robust statistics: the scatter that outliers do not widen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.types import Numbers

__all__ = ["FWHM_TO_SIGMA", "MAD_TO_SIGMA", "SAMPLE", "mad_std", "median_and_scatter", "some_rows"]

FWHM_TO_SIGMA = 1.0 / 2.3548200450309493
"""Standard deviation of a Gaussian of unit full width at half maximum, ``1 / (2 √(2 ln 2))``."""

MAD_TO_SIGMA = 1.482602218505602
"""Standard deviation of a Gaussian of unit median absolute deviation."""

SAMPLE = 1_000_000
"""Pixels that are enough for a statistic of a whole image: it is then good to 0.1 %."""


def some_rows(image: NDArray[np.generic]) -> slice:
    """Every so many rows, for statistics that need no more than `SAMPLE` pixels."""
    return slice(None, None, max(image.size // SAMPLE, 1))


def median_and_scatter(values: Numbers) -> tuple[float, float]:
    """Median of the finite values, and the standard deviation of a Gaussian with their median absolute deviation.

    Both are NaN without a finite value.
    """
    finite = values[np.isfinite(values)]
    if not finite.size:
        return np.nan, np.nan
    middle = np.median(finite)
    return float(middle), MAD_TO_SIGMA * float(np.median(np.abs(finite - middle)))


def mad_std(values: Numbers) -> float:
    """Standard deviation of a Gaussian with the median absolute deviation of the finite `values`; NaN without any."""
    return median_and_scatter(values)[1]
