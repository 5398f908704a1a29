"""Stars that stand out of an image: their peaks, the brightest of each part of it, how wide they look.

Three finders stay apart, since they answer different questions. `bright_stars` takes at most one star a window, in one
pass, for what a few hundred bright ones can say: a kernel, a flux scale, a width. `find_peaks` takes every source
above the noise, since a neighbor of a few per cent spoils a star that a PSF is built from. Registration
(`ztfxr.arrays.geometry.registration.find_stars`) measures centroids to hundredths of a pixel, and counts what is
saturated or blended as part of the pattern.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from scipy import ndimage

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.windows import Cutouts
from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Bools, Floats, Ints, Numbers

__all__ = [
    "Peaks",
    "above_border",
    "bright_stars",
    "find_peaks",
    "rank_in_cells",
    "saturation_level",
    "star_fwhm",
]


_DETECTION = 5.0
_WIDTH_STARS, _WIDTH_WINDOW, _WIDTH_SNR = 200, 11, 20.0


@dataclass(frozen=True)
class Peaks:
    """Pixels that are the centers of sources, and their brightness above the sky."""

    y: Ints
    x: Ints
    height: Floats

    @property
    def places(self) -> Floats:
        """(peak, 2) for trees."""
        return np.column_stack([self.y, self.x]).astype(np.float64)


def find_peaks(image: Numbers, bad: Bools, noise: float) -> Peaks:
    """The local maxima of the mean of 3 × 3 pixels that exceed five times its noise."""
    clean = np.where(bad, 0, image).astype(np.float32)
    smooth = ndimage.uniform_filter(clean, 3)
    level = _DETECTION * noise / 3.0
    none = np.empty(0, dtype=np.int64)
    n = _local_maxima(smooth, bad, level, none, none)
    y, x = np.empty(n, dtype=np.int64), np.empty(n, dtype=np.int64)
    _local_maxima(smooth, bad, level, y, x)
    return Peaks(y, x, sliding_window_view(clean, (3, 3))[y - 1, x - 1].max(axis=(1, 2)).astype(np.float64))


@njit(nogil=True, cache=True)
def _local_maxima(image: Numbers, bad: Bools, level: float, y: Ints, x: Ints) -> int:
    """Good pixels above `level` that no neighbor exceeds; how many there are, the first of them in `y`, `x`."""
    found = 0
    for row in range(1, image.shape[0] - 1):
        for column in range(1, image.shape[1] - 1):
            value = image[row, column]
            if bad[row, column] or not value > level:
                continue
            top = True
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    if (dy or dx) and not bad[row + dy, column + dx]:
                        other = image[row + dy, column + dx]
                        if other > value or (other == value and (dy < 0 or (dy == 0 and dx < 0))):
                            top = False
            if top:
                if found < y.size:
                    y[found], x[found] = row, column
                found += 1
    return int(found)


def rank_in_cells(y: Ints, x: Ints, height: Floats, shape: tuple[int, ...], grid: int) -> Ints:
    """How many brighter peaks each peak has in its cell of a grid of `grid` × `grid` over an image of `shape`."""
    cell = (y * grid // shape[0]) * grid + x * grid // shape[1]
    order = np.lexsort((-height, cell))
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order)) - np.searchsorted(cell[order], cell[order])
    return rank


def bright_stars(
    image: Numbers,
    bad: Bools,
    *,
    sky: tuple[float, float],
    size: int,
    margin: int = 0,
    maximum: int = 1000,
    grid: int = 10,
    min_snr: float = 10.0,
    saturation: float = np.inf,
    clear: bool = False,
) -> Cutouts:
    """Windows around bright stars, evenly over the frame.

    Stars are the brightest pixels of blocks of `size` pixels that no good pixel within two exceeds. They are above
    `min_snr` times the noise and below `saturation`, their center is good, and their window lies inside the frame with
    its `margin`. The brightest ``maximum / grid**2`` of each cell of a grid are taken.

    Parameters
    ----------
    image, bad
        The image (y, x), and True where a pixel is bad.
    sky
        Level of the sky and noise of one of its pixels.
    size, margin
        Pixels along a window's side, and pixels that are needed around it.
    maximum, grid
        Stars at most, and cells along each side of the frame that share them.
    min_snr, saturation
        Limits of a star's peak: above the sky in units of its noise, and in pixel values.
    clear
        Whether stars with a bad pixel in their window are left out in the end.
    """
    y, x, peak = _block_maxima(image, bad, size)
    reach = size // 2 + margin + 2
    inside = (y >= reach) & (y < image.shape[0] - reach) & (x >= reach) & (x < image.shape[1] - reach)
    useful = inside & (peak > sky[0] + min_snr * sky[1]) & (peak < saturation)
    y, x, peak = y[useful], x[useful], peak[useful]
    top = np.ones(len(y), dtype=bool)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            top &= (image[y + dy, x + dx] <= peak) | bad[y + dy, x + dx]
    y, x, peak = y[top], x[top], peak[top]
    chosen = rank_in_cells(y, x, peak, image.shape, grid) < max(maximum // grid**2, 1)
    stars = Cutouts(y[chosen], x[chosen], size)
    return stars.take(np.flatnonzero(~stars.windows(bad).any(axis=(1, 2)))) if clear and len(stars) else stars


def _block_maxima(image: Numbers, bad: Bools, step: int) -> tuple[Ints, Ints, Floats]:
    """The brightest good pixel of each block of `step` pixels: rows, columns, values."""
    ny, nx = image.shape[0] // step, image.shape[1] // step
    crop = np.s_[: ny * step, : nx * step]
    clean = np.where(bad[crop], -np.inf, image[crop])
    blocks = clean.reshape(ny, step, nx, step).transpose(0, 2, 1, 3).reshape(ny, nx, step * step)
    best = blocks.argmax(axis=-1)
    y = np.arange(ny)[:, None] * step + best // step
    x = np.arange(nx)[None, :] * step + best % step
    return y.ravel(), x.ravel(), np.take_along_axis(blocks, best[..., None], axis=-1).ravel()


def above_border(windows: Numbers) -> Floats:
    """Windows (star, y, x) less the median of the outermost pixels of each."""
    border = np.ones(windows.shape[1:], dtype=bool)
    border[1:-1, 1:-1] = False
    own = windows.astype(np.float64)
    return np.asarray(own - np.median(own[:, border], axis=1)[:, None, None])


def saturation_level(stated: Floats | float | None) -> float:
    """The level at which pixels saturate; infinite where it is not known."""
    return np.inf if stated is None or not np.isfinite(stated) else float(stated)


def star_fwhm(image: Image) -> float:
    """FWHM in pixels of the Gaussian with the peak-to-flux ratio of bright stars (median); NaN without any.

    It needs no PSF: `ztfxr.arrays.psf.model.psf_fwhm` is that of one.
    """
    noise = image.sky[1]
    if not noise > 0:
        return np.nan
    size = _WIDTH_WINDOW
    stars = bright_stars(
        image.pixels,
        image.bad,
        sky=image.sky,
        size=size,
        maximum=_WIDTH_STARS,
        grid=5,
        min_snr=_WIDTH_SNR,
        clear=True,
    )
    if not len(stars):
        return np.nan
    windows = above_border(stars.windows(image.pixels))
    flux = windows[:, 1:-1, 1:-1].sum(axis=(1, 2))
    peak = windows[:, size // 2, size // 2]
    area = np.median(np.maximum(flux, 0) / np.maximum(peak, noise))
    return float(np.sqrt(area / (2 * np.pi)) / FWHM_TO_SIGMA)
