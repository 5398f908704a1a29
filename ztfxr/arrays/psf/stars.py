"""Stars that can teach the PSF: bright, unsaturated, alone; and the pixels around them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from scipy.spatial import cKDTree

from ztfxr.arrays.images.stars import Peaks, rank_in_cells
from ztfxr.arrays.images.windows import Cutouts
from ztfxr.arrays.types import Bools, Floats, Ints, Numbers

__all__ = ["StarWindows", "select_stars", "star_windows"]


_APART, _CORE = 3.0, 1.0
_NEIGHBOR, _CROWDED_NEIGHBOR = 0.02, 0.1
_FEW, _WING_NOISE = 30, 2.0
_MOSTLY_GOOD = 0.6


@dataclass(frozen=True)
class StarWindows:
    """Square windows around stars: central pixels, data, variance and good pixels (star, y, x)."""

    y: Ints
    x: Ints
    data: Floats
    variance: Floats
    good: Bools

    def __len__(self) -> int:
        return len(self.y)

    @property
    def half(self) -> int:
        """Pixels on each side of the central one."""
        return int(self.data.shape[1] // 2)

    def take(self, which: Ints) -> StarWindows:
        """Some of the stars."""
        return StarWindows(self.y[which], self.x[which], self.data[which], self.variance[which], self.good[which])


def select_stars(
    peaks: Peaks,
    bad: Bools,
    *,
    noise: float,
    fwhm: float,
    radius: int,
    min_snr: float,
    saturation: float,
    maximum: int,
    grid: int = 5,
) -> tuple[Ints, Ints]:
    """Rows and columns of up to `maximum` stars, the brightest of each cell of a grid over the frame; where some cells
    have too few, others give more.

    Peaks between `min_snr` times the noise and the saturation, with good pixels within one FWHM, whose window (`radius`
    pixels) lies in the image, and without a neighbor within 3 FWHM that has 2 % of their peak; where fewer than 30
    pass, 10 %.
    """
    y, x, height = peaks.y, peaks.x, peaks.height
    inside = (np.minimum(y, bad.shape[0] - 1 - y) >= radius) & (np.minimum(x, bad.shape[1] - 1 - x) >= radius)
    usable = np.flatnonzero(inside & (height >= min_snr * noise) & (height < saturation))
    usable = usable[~_near_bad(bad, y[usable], x[usable], _CORE * fwhm)]
    crowding = _crowding(peaks, usable, _APART * fwhm)
    alone = crowding < _NEIGHBOR
    if alone.sum() < _FEW:
        alone = crowding < _CROWDED_NEIGHBOR
    usable = usable[alone]
    rank = rank_in_cells(y[usable], x[usable], height[usable], bad.shape, grid)
    chosen = usable[np.sort(np.lexsort((-height[usable], rank))[:maximum])]
    return y[chosen], x[chosen]


def _near_bad(bad: Bools, y: Ints, x: Ints, distance: float) -> Bools:
    """Whether a bad pixel is within a distance of each position, which must be that far from the edge."""
    half = int(np.ceil(distance))
    offset = np.arange(-half, half + 1)
    disk = offset[:, None] ** 2 + offset[None, :] ** 2 <= distance**2
    windows = sliding_window_view(bad, (2 * half + 1, 2 * half + 1))[y - half, x - half]
    return np.asarray((windows & disk).any(axis=(1, 2)))


def _pairs(peaks: Peaks, y: Ints, x: Ints, distance: float) -> tuple[Ints, Ints]:
    """Which of some positions are near which peaks: numbers of positions and of peaks."""
    if len(peaks.y) == 0 or len(y) == 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    places = np.column_stack([y, x]).astype(np.float64)
    near = cKDTree(places).sparse_distance_matrix(cKDTree(peaks.places), distance, output_type="ndarray")
    return near["i"].astype(np.int64), near["j"].astype(np.int64)


def _crowding(peaks: Peaks, which: Ints, distance: float) -> Floats:
    """The highest peak within a distance of each of some peaks, over its own."""
    out = np.zeros(len(which))
    star, other = _pairs(peaks, peaks.y[which], peaks.x[which], distance)
    ratio = np.where(other == which[star], 0.0, peaks.height[other] / peaks.height[which[star]])
    np.maximum.at(out, star, ratio)
    return out


def star_windows(
    image: Numbers,
    variance: Numbers,
    bad: Bools,
    y: Ints,
    x: Ints,
    *,
    peaks: Peaks,
    half: int,
    noise: float,
    fwhm: float,
) -> StarWindows:
    """The pixels around stars in units of the sky's noise, their neighbors marked as not good; stars with less than
    60 % good pixels are left out.

    A neighbor takes the disk within which a Moffat profile (β = 3) of its height exceeds a third of the noise.
    """
    size = 2 * half + 1
    own = Cutouts(y, x, size)
    data, noise2 = own.windows(image), own.windows(variance)
    good = ~own.windows(bad) & np.isfinite(data) & (noise2 > 0)
    star, other = _pairs(peaks, y, x, 2.0 * half)
    dy, dx = peaks.y[other] - y[star], peaks.x[other] - x[star]
    squared, height = (dy**2 + dx**2).astype(float), image[y, x].astype(np.float64)[star]
    scale2 = fwhm**2 / (4 * (2 ** (1 / 3) - 1))
    # In the wings of a star its own noise makes peaks; they are no neighbors.
    wing = 3 * height * (1 + squared / scale2) ** -3.0
    real = (squared > 2.5) & (peaks.height[other] > wing + _WING_NOISE * noise)
    reach2 = scale2 * np.maximum((3 * peaks.height[other] / noise) ** (1 / 3) - 1, 0.0)
    _clear_disks(good, star[real], dy[real], dx[real], reach2[real])
    pixels = np.where(good, data, 0.0).astype(np.float64) / noise
    spread = np.where(good, noise2, np.inf).astype(np.float64) / noise**2
    return StarWindows(y, x, pixels, spread, good).take(np.flatnonzero(good.mean(axis=(1, 2)) >= _MOSTLY_GOOD))


@njit(nogil=True, cache=True)
def _clear_disks(good: Bools, star: Ints, dy: Ints, dx: Ints, reach2: Floats) -> None:
    half = good.shape[1] // 2
    for i in range(star.size):
        for row in range(good.shape[1]):
            for column in range(good.shape[2]):
                if (row - half - dy[i]) ** 2 + (column - half - dx[i]) ** 2 <= reach2[i]:
                    good[star[i], row, column] = False
