"""Two images of one epoch compared: what one still holds of the other, and how much they scatter."""

from __future__ import annotations

import numpy as np

from ztfxr.arrays.statistics import mad_std
from ztfxr.arrays.types import Bools, Floats

__all__ = ["fraction_left", "scatter_ratio"]


def fraction_left(difference: Floats, light: Floats, where: Bools) -> float:
    """The multiple of `light` in `difference`, by least squares together with a plane over the pixels `where`.

    All are images (y, x); pixels that are not finite do not count. NaN where fewer pixels than unknowns are left.
    """
    good = where & np.isfinite(light) & np.isfinite(difference)
    y, x = np.nonzero(good)
    if len(y) < 4:
        return np.nan
    middle = (good.shape[0] - 1) / 2, (good.shape[1] - 1) / 2
    design = np.stack([light[good], np.ones(len(y)), y - middle[0], x - middle[1]], axis=1).astype(np.float64)
    return float(np.linalg.lstsq(design, difference[good].astype(np.float64), rcond=None)[0][0])


def scatter_ratio(image: Floats, other: Floats, where: Bools) -> float:
    """Robust scatter of `image` over that of `other` in the pixels `where`."""
    return mad_std(image[where]) / mad_std(other[where])
