"""How the noise of neighboring pixels hangs together."""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.images.bits import grow
from ztfxr.arrays.statistics import SAMPLE, median_and_scatter
from ztfxr.arrays.types import Bools, Floats, Numbers

__all__ = ["autocorrelation", "convolved_share"]


def autocorrelation(
    image: Numbers,
    variance: Numbers,
    bad: Bools,
    *,
    reach: int = 3,
    clip: float = 3.0,
    grown: float = 3.0,
    least: int = 1000,
) -> Floats:
    """Correlation of the noise between pixels up to `reach` apart, (2 reach + 1, 2 reach + 1), 1 in the middle.

    Measured on what is left of the image (y, x), in units of its standard deviation, once pixels beyond `clip` robust
    deviations, and those within `grown` pixels of them, are gone: sources that are fainter than that count as
    correlation. What goes of correlated noise itself lowers its correlation, by 5 % for the defaults and by nothing for
    a clip of 4 without growing. Of large images every so many rows are used. Zero for independent pixels; with fewer
    than `least` good pixels too.
    """
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    out[reach, reach] = 1.0
    usable = ~bad & np.isfinite(image) & (variance > 0)
    if usable.sum() < least:
        return out
    pull = np.where(usable, image, 0.0) / np.sqrt(np.where(usable, variance, 1.0))
    middle, spread = median_and_scatter(pull[usable])
    usable &= ~grow(usable & (np.abs(pull - middle) > clip * spread), grown)
    if usable.sum() < least:
        return out
    values = np.where(usable, pull - pull[usable].mean(), 0.0)
    square = float((values**2).sum() / usable.sum())
    step = max(values.size // SAMPLE, 1)
    for ly in range(reach + 1):
        for lx in range(-reach, reach + 1):
            if ly == 0 and lx <= 0:
                continue
            first = np.s_[: values.shape[0] - ly : step, max(0, -lx) : values.shape[1] - max(0, lx)]
            second = np.s_[ly::step, max(0, lx) : values.shape[1] + min(0, lx)]
            pairs = int((usable[first] & usable[second]).sum())
            mean = float((values[first] * values[second]).sum()) / max(pairs, 1)
            out[reach + ly, reach + lx] = out[reach - ly, reach - lx] = mean / square
    return out


def convolved_share(correlation: Floats, kernel: Numbers) -> float:
    """Variance that an image had before it was convolved and subtracted, in units of that of the difference.

    Pixels l apart have the covariance ``t² Σ K(u) K(u + l)``; t² is its least-squares fit to the measured `correlation`
    (lag_y, lag_x) of the difference, but for the lag 0. It lies between 0 and what makes up all of the variance.
    Correlation that the images had before (resampling) is taken for that of the kernel.
    """
    from scipy import signal

    reach = len(correlation) // 2
    shape = signal.correlate(np.pad(kernel, reach), kernel, mode="valid")
    total, later = float(shape[reach, reach]), np.arange(shape.size) != shape.size // 2
    strength = float((shape.ravel()[later] ** 2).sum())
    if strength <= 1e-6 * total**2:
        return 0.0
    share = float((correlation * shape).ravel()[later].sum()) / strength
    return float(np.clip(share, 0.0, 1.0 / total))
