"""Cosmic rays and the like: pixels that stand out more sharply than the PSF allows."""

from __future__ import annotations

import numpy as np
from numba import njit

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.stars import above_border, bright_stars
from ztfxr.arrays.types import Bools, Floats, Images, Numbers

__all__ = ["find_cosmic_rays", "neighbor_ratios"]

_SHARPEST_FWHM, _MARGIN = 1.5, 0.6
_STAR_SNR, _STARS, _WINDOW, _FEWEST_STARS, _CENTERED, _POINTS = 40.0, 400, 9, 8, 20, 0.2
_GROWN_SIGMA, _ITERATIONS, _SURE = 4.0, 4, 2.5
_SKY_BOX, _SKY_STEP = 48, 2
_OVERSAMPLING = 11


def find_cosmic_rays(
    image: Image, *, fwhm: float | None = None, threshold: float = 6.0, saturation: float = np.inf
) -> Bools:
    """True where a pixel is too sharp to be part of a star.

    Parameters
    ----------
    image
        (y, x), not resampled; where its variance is unknown, that of its sky counts.
    fwhm
        Of the PSF in pixels. By default how sharp stars are is measured on bright ones, whose cores are often sharper
        than their FWHM tells; with few of them the FWHM is taken for 1.5, which is safe.
    threshold
        How many standard deviations a pixel must exceed the mean of two opposite neighbors by.
    saturation
        Pixels at this level and above are no rays.

    Notes
    -----
    After the criterion of the SDSS photometric pipeline (Lupton et al. 2001, ASP Conf. 238, 269): a star, wherever in a
    pixel its center lies, gives the mean of two opposite neighbors at least the fraction of a pixel's light that it
    gives them when it is centered there. A ray gives less in some direction. Found pixels are taken for the median of
    their neighbors, which lays the rest of a track bare; beside them a lower threshold counts.
    """
    sky, noise = image.sky
    if not noise > 0:
        return np.zeros(image.bad.shape, dtype=bool)
    sharpest = _sharpest_stars(image, saturation) if fwhm is None else neighbor_ratios(max(fwhm, _SHARPEST_FWHM))
    variance = image.variance if image.variance is not None else np.full(image.bad.shape, noise**2, np.float32)
    level = _local_sky(image, sky)
    found = np.zeros(image.bad.shape, dtype=bool)
    clean, ratios = image.pixels - level, _MARGIN * sharpest
    unusable = image.bad | (image.pixels >= saturation)
    for step in range(_ITERATIONS):
        new = np.zeros_like(found)
        lower = _GROWN_SIGMA if step else threshold
        if not _mark(clean, variance, unusable, found, ratios, (threshold, lower), new):
            break
        found |= new
        _fill(clean, found, image.bad, new)
    return found


def neighbor_ratios(fwhm: float) -> Floats:
    """Light of a centered star in the neighbors along x, along y, and along both diagonals, over its central pixel."""
    sub = (np.arange(3 * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - 1.5
    line = np.exp(-4.0 * np.log(2.0) * sub**2 / fwhm**2).reshape(3, _OVERSAMPLING).sum(axis=1)
    side = float(line[0] / line[1])
    return np.array([side, side, side**2, side**2])


def _sharpest_stars(image: Image, saturation: float) -> Floats:
    """What `neighbor_ratios` would be of the stars that are centered best: the lower fifth of bright ones."""
    safe = neighbor_ratios(_SHARPEST_FWHM)
    stars = bright_stars(
        image.pixels,
        image.bad,
        sky=image.sky,
        size=_WINDOW,
        maximum=_STARS,
        grid=5,
        min_snr=_STAR_SNR,
        saturation=saturation,
        clear=True,
    )
    if len(stars) < _FEWEST_STARS:
        return safe
    core = above_border(stars.windows(image.pixels))[:, _WINDOW // 2 - 1 :, _WINDOW // 2 - 1 :]
    peak = core[:, 1, 1]
    pairs = np.stack([core[:, 1, 0] + core[:, 1, 2], core[:, 0, 1] + core[:, 2, 1]])
    diagonals = np.stack([core[:, 0, 0] + core[:, 2, 2], core[:, 0, 2] + core[:, 2, 0]])
    ratios = 0.5 * np.concatenate([pairs, diagonals]) / peak
    spread = ratios[:, (ratios.max(axis=0) > _POINTS) & (peak > 0)]
    if spread.shape[1] < _FEWEST_STARS:
        return safe
    return np.asarray(np.percentile(spread, _CENTERED, axis=1))


def _local_sky(image: Image, sky: float) -> Images:
    """The median of boxes, on each of their pixels; that of the whole image where a box has few good ones."""
    ny, nx = image.bad.shape
    out = np.full((ny, nx), sky, dtype=np.float32)
    for y in range(0, ny, _SKY_BOX):
        for x in range(0, nx, _SKY_BOX):
            box = np.s_[y : y + _SKY_BOX, x : x + _SKY_BOX]
            some = np.s_[y : y + _SKY_BOX : _SKY_STEP, x : x + _SKY_BOX : _SKY_STEP]
            good = image.pixels[some][~image.bad[some]]
            if good.size > 50:
                out[box] = np.median(good)
    return out


@njit(nogil=True, cache=True)
def _mark(
    clean: Images,
    variance: Numbers,
    unusable: Bools,
    found: Bools,
    ratios: Floats,
    thresholds: tuple[float, float],
    new: Bools,
) -> bool:  # pragma: no cover
    """Mark rays that are not `found` yet; beside those that are, by the lower threshold. True where there are any."""
    ny, nx = clean.shape
    any_new = False
    for y in range(1, ny - 1):
        for x in range(1, nx - 1):
            value = clean[y, x]
            sigma2 = variance[y, x]
            if value * value < thresholds[1] ** 2 * sigma2 or value < 0 or unusable[y, x] or found[y, x]:
                continue
            beside = False
            for dy in range(-1, 2):
                for dx in range(-1, 2):
                    beside = beside or found[y + dy, x + dx]
            limit = thresholds[1] if beside else thresholds[0]
            sigma = np.sqrt(sigma2)
            if value < limit * sigma:
                continue
            for k in range(4):
                dy, dx = (0, 1, 1, 1)[k], (1, 0, 1, -1)[k]
                if unusable[y + dy, x + dx] or unusable[y - dy, x - dx]:
                    continue
                mean = 0.5 * (clean[y + dy, x + dx] + clean[y - dy, x - dx])
                error = 0.5 * np.sqrt(variance[y + dy, x + dx] + variance[y - dy, x - dx])
                above = value - mean > limit * np.sqrt(sigma2 + error * error)
                if above and mean + _SURE * error < ratios[k] * (value - _SURE * sigma):
                    new[y, x] = True
                    any_new = True
                    break
    return any_new


@njit(nogil=True, cache=True)
def _fill(clean: Images, found: Bools, bad: Bools, new: Bools) -> None:  # pragma: no cover
    """Set pixels that were found to the median of their neighbors that were not."""
    ny, nx = clean.shape
    values = np.empty(24)
    for y in range(ny):
        for x in range(nx):
            if not new[y, x]:
                continue
            n = 0
            for i in range(max(y - 2, 0), min(y + 3, ny)):
                for j in range(max(x - 2, 0), min(x + 3, nx)):
                    if not found[i, j] and not bad[i, j]:
                        values[n] = clean[i, j]
                        n += 1
            clean[y, x] = np.median(values[:n]) if n else 0.0
