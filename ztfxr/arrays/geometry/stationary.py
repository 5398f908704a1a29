"""Detections that do not move with the sky: hot and warm pixels, which would register two images at rest."""

from __future__ import annotations

import numpy as np
from scipy.spatial import cKDTree

from ztfxr.arrays.types import Bools, Floats, Images, Ints

__all__ = ["at_rest", "lone_pixels"]

_REST = 0.1
_LEAST_NEIGHBOR = 0.08


def lone_pixels(level: Images, y: Ints, x: Ints) -> Bools:
    """Whether the peak of a detection is one pixel without light beside it, which no star is, however sharp.

    The four neighbors of a star have at least 0.08 of its peak, down to a FWHM of 0.8 pixels.
    """
    ny, nx = level.shape
    beside = np.mean(
        [
            level[np.clip(y + dy, 0, ny - 1), np.clip(x + dx, 0, nx - 1)]
            for dy, dx in ((-1, 0), (1, 0), (0, -1), (0, 1))
        ],
        axis=0,
    )
    return np.asarray(beside < _LEAST_NEIGHBOR * level[y, x])


def at_rest(source: Floats, target: Floats) -> tuple[Bools, Bools]:
    """Which positions (star, 2) of two images lie at the same pixel, within a tenth of one.

    Where the images see the sky at other pixels these are defects of the detector, but for a few stars by chance.
    """
    if not len(source) or not len(target):
        return np.zeros(len(source), dtype=bool), np.zeros(len(target), dtype=bool)
    return tuple(
        np.isfinite(cKDTree(b).query(a, distance_upper_bound=_REST)[0]) for a, b in ((source, target), (target, source))
    )
