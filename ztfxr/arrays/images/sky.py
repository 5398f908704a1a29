"""The sky of one image: level and scatter, by a mesh of boxes or one median.

`sky_maps` is what users ask for: the level and scatter of every pixel, the same mesh as SExtractor's. `sky_scatter` is
one number of it. `median_sky` serves array code that needs level and noise of an image at once: it is ten times faster,
and gradients drop out of its noise, but stars do not unless they are told to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import sep
from numpy.typing import NDArray

from ztfxr.arrays.images.bits import any_bit
from ztfxr.arrays.statistics import mad_std, some_rows
from ztfxr.arrays.types import Bools

__all__ = [
    "METHODS",
    "STATISTICS",
    "SkyOptions",
    "deferred_maps",
    "median_sky",
    "sky_maps",
    "sky_scatter",
    "without_sky",
]

METHODS = ("sep", "median", "none")
STATISTICS = ("mad", "std", "rms")

_ROWS = 256
# Pixels this far apart share neither light of a star nor noise of a resampling.
_LAG = 5
_STAR_LEVEL = 3.0

Image = NDArray[np.float32]
Mask = Bools


@dataclass(frozen=True)
class SkyOptions:
    """How the sky is measured: a mesh (`sep`), one level (`median`), or taken as zero (`none`); sizes are (y, x).

    `planes` are the bits that count as bad where the mask is given as bit planes, not as a boolean image.
    """

    method: str = "sep"
    box: tuple[int, int] = (64, 64)
    filter_size: tuple[int, int] = (3, 3)
    planes: int = 0


class DeferredMap:
    """A map that is made when it is called; to another process it travels made, since a mesh cannot be pickled."""

    def __init__(self, make: Callable[[], Image]) -> None:
        self._make = make

    def __call__(self) -> Image:
        """The map, a new array at each call."""
        return self._make()

    def __reduce__(self) -> tuple[Any, ...]:
        return DeferredMap, (self().copy,)


def sky_maps(image: NDArray[Any], bad: NDArray[Any], *, options: SkyOptions) -> tuple[Image, Image]:
    """Level and scatter of the sky at each pixel of a (y, x) image.

    `bad` is boolean, or bit planes of which some count. Pixels that are not finite count as bad. An image without a
    good pixel gives NaN.
    """
    level, rms = deferred_maps(image, bad, options=options)
    return level(), rms()


def deferred_maps(image: NDArray[Any], bad: NDArray[Any], *, options: SkyOptions) -> tuple[DeferredMap, DeferredMap]:
    """`sky_maps`, measured but not yet spread over the pixels: a fifth of the time goes into each map."""
    pixels, unusable = _prepared(image, bad, options.planes)
    shape = pixels.shape
    if unusable.all():
        return _flat(shape, np.nan), _flat(shape, np.nan)
    if options.method == "sep":
        mesh = _mesh(pixels, unusable, options)
        return DeferredMap(partial(mesh.back, dtype=np.float32)), DeferredMap(partial(mesh.rms, dtype=np.float32))
    good = pixels[~unusable]
    return _flat(shape, _level(good, options)), _flat(shape, mad_std(good))


def _flat(shape: tuple[int, ...], value: float | np.float32) -> DeferredMap:
    return DeferredMap(partial(np.full, shape, value, dtype=np.float32))


def without_sky(image: NDArray[Any], bad: NDArray[Any], *, options: SkyOptions) -> Image:
    """A (y, x) image minus the level of its sky, NaN where it is bad or not finite."""
    pixels, unusable = _prepared(image, bad, options.planes)
    if not unusable.all():
        if options.method == "sep":
            _mesh(pixels, unusable, options).subfrom(pixels)
        elif options.method != "none":
            pixels -= _level(pixels[~unusable], options)
    np.copyto(pixels, np.nan, where=unusable)
    return pixels


def sky_scatter(image: NDArray[Any], bad: NDArray[Any], sources: Mask, *, statistic: str, options: SkyOptions) -> float:
    """One number for the noise of a (y, x) image; NaN without a good pixel.

    ``"rms"``: the median scatter of the boxes of the mesh, or the scatter of all good pixels where there is no mesh.
    ``"mad"``, ``"std"``: of `without_sky` over the pixels that are not in `sources`.
    """
    if statistic == "rms":
        pixels, unusable = _prepared(image, bad, options.planes)
        if unusable.all() or options.method != "sep":
            return mad_std(pixels[~unusable])
        return float(_mesh(pixels, unusable, options).globalrms)
    cleaned = without_sky(image, bad, options=options)
    values = cleaned[~(sources | np.isnan(cleaned))]
    if values.size == 0:
        return float(np.nan)
    return mad_std(values) if statistic == "mad" else float(np.std(values, dtype=np.float64))


def median_sky(pixels: Image, bad: Mask, *, rounds: int = 0) -> tuple[float, float]:
    """Median and noise of the sky of a finite (y, x) image, on some rows; NaN where too few pixels are good.

    The noise comes from differences of pixels 5 apart, so that gradients drop out. Stars widen it; in each of some
    `rounds`, pixels that stand out by more than 3 times the noise before are left out.
    """
    some = some_rows(pixels)
    values, good = pixels[some], ~bad[some]
    level, noise = _level_and_noise(values, good)
    for _ in range(rounds):
        if noise > 0:
            level, noise = _level_and_noise(values, good & ~(values > level + _STAR_LEVEL * noise))
    return level, noise


def _level_and_noise(values: Image, good: Mask) -> tuple[float, float]:
    pair = good[:, _LAG:] & good[:, :-_LAG]
    difference = (values[:, _LAG:] - values[:, :-_LAG])[pair]
    if difference.size < 2:
        return np.nan, np.nan
    return float(np.median(values[good])), mad_std(difference) / float(np.sqrt(2.0))


def _prepared(image: NDArray[Any], bad: NDArray[Any], planes: int) -> tuple[Image, Mask]:
    """A copy that may be written to, which is also what sep asks for, and the pixels that it must not use."""
    pixels, unusable = np.empty(image.shape, dtype=np.float32), np.empty(image.shape, dtype=bool)
    # By rows that stay in the processor's cache, since every pass over a whole image waits for memory.
    for start in range(0, image.shape[0], _ROWS):
        rows = slice(start, start + _ROWS)
        pixels[rows] = image[rows]
        np.isfinite(pixels[rows], out=unusable[rows])
        np.logical_not(unusable[rows], out=unusable[rows])
        unusable[rows] |= bad[rows] if bad.dtype == bool else any_bit(bad[rows], planes)
    return pixels, unusable


def _mesh(pixels: Image, unusable: Mask, options: SkyOptions) -> Any:
    """The mesh of Barbary (2016), after Bertin & Arnouts (1996)."""
    (bh, bw), (fh, fw) = options.box, options.filter_size
    return sep.Background(pixels, mask=unusable, bh=bh, bw=bw, fh=fh, fw=fw)


def _level(good: Image, options: SkyOptions) -> np.float32:
    return np.float32(np.median(good) if options.method == "median" else 0.0)
