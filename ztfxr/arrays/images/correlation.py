"""How the noise of neighboring pixels hangs together."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ztfxr.arrays.images.bits import grow
from ztfxr.arrays.statistics import SAMPLE, median_and_scatter
from ztfxr.arrays.types import Bools, Floats

__all__ = ["autocorrelation"]

_CLIP, _GROWN, _LEAST = 3.0, 3.0, 1000


def autocorrelation(image: NDArray[Any], variance: NDArray[Any], bad: Bools, *, reach: int = 3) -> Floats:
    """Correlation of the noise between pixels up to `reach` apart, (2 reach + 1, 2 reach + 1), 1 in the middle.

    Measured on what is left of the image (y, x), in units of its standard deviation, once pixels beyond 3 robust
    deviations, and those within 3 pixels of them, are gone: sources that are fainter than that count as correlation.
    Of large images every so many rows are used. Zero for independent pixels; with less than a thousand good pixels too.
    """
    out = np.zeros((2 * reach + 1, 2 * reach + 1))
    out[reach, reach] = 1.0
    usable = ~bad & np.isfinite(image) & (variance > 0)
    if usable.sum() < _LEAST:
        return out
    pull = np.where(usable, image, 0.0) / np.sqrt(np.where(usable, variance, 1.0))
    middle, spread = median_and_scatter(pull[usable])
    usable &= ~grow(usable & (np.abs(pull - middle) > _CLIP * spread), _GROWN)
    if usable.sum() < _LEAST:
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
