"""The sky of one image: level and scatter, by a mesh of boxes or one median.

`sky_maps` is what users ask for: the level and scatter of every pixel, the same mesh as SExtractor's. `sky_scatter` is
one number of it. `median_sky` serves array code that needs level and noise of an image at once: it is ten times faster,
and gradients drop out of its noise, but stars do not unless they are told to.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import sep
from numpy.typing import NDArray

from ztfxr.arrays.images.bits import any_bit
from ztfxr.arrays.options import require_number
from ztfxr.arrays.statistics import mad_std, some_rows
from ztfxr.arrays.types import Bools, Images, Numbers
from ztfxr.errors import InputError

__all__ = [
    "METHODS",
    "STATISTICS",
    "SkyOptions",
    "deferred_maps",
    "median_sky",
    "noise_maps",
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
_STEEP = 1.1
# sep.Background passes over a box with fewer good pixels than this.
_LEAST_GOOD = 0.5

Method: TypeAlias = Literal["sep", "median", "none"]


@dataclass(frozen=True)
class SkyOptions:
    """How the sky of an image is measured.

    Parameters
    ----------
    method
        ``"sep"``: a mesh of boxes. ``"median"``: the median of all good pixels, with the standard deviation that their
        median absolute deviation gives. ``"none"``: zero, with the same scatter, for an image that has no sky left.
    box_size, filter_size
        Boxes of the mesh and of its median filter, in pixels of the frame and in boxes: an integer or (y, x).

    Raises
    ------
    InputError
        An unknown method, or a size below 1.
    """

    method: Method = "sep"
    box_size: int | tuple[int, int] = 64
    filter_size: int | tuple[int, int] = 3

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise InputError(f"the sky is measured by method {', '.join(map(repr, METHODS))}; got {self.method!r}")
        for name in ("box_size", "filter_size"):
            size = getattr(self, name)
            for side in size if isinstance(size, tuple | list) else (size,):
                require_number(name, side, whole=True)
            if min(_pair(getattr(self, name))) < 1:
                raise InputError(f"{name} must be at least 1 pixel; got {getattr(self, name)}")


def _pair(size: int | tuple[int, int]) -> tuple[int, int]:
    return (int(size[0]), int(size[1])) if isinstance(size, tuple | list) else (int(size), int(size))


class DeferredMap:
    """A map that is made when it is called; to another process it travels made, since a mesh cannot be pickled."""

    def __init__(self, make: Callable[[], Images]) -> None:
        self._make = make

    def __call__(self) -> Images:
        """The map, a new array at each call."""
        return self._make()

    def __reduce__(self) -> tuple[Any, ...]:
        return DeferredMap, (self().copy,)


class DeferredMaps(NamedTuple):
    """Level and scatter of the sky."""

    background: DeferredMap
    background_rms: DeferredMap


def sky_maps(image: Numbers, bad: NDArray[Any], *, options: SkyOptions, planes: int = 0) -> tuple[Images, Images]:
    """Level and scatter of the sky at each pixel of a (y, x) image.

    `bad` is boolean, or integers of which the bits `planes` count. Pixels that are not finite count as bad. A mesh
    without a box that is at least half good falls back to one median. An image without a good pixel gives NaN.
    """
    level, rms = deferred_maps(image, bad, options=options, planes=planes)
    return level(), rms()


def noise_maps(image: Numbers, bad: NDArray[Any], *, options: SkyOptions, planes: int = 0) -> tuple[Images, Images]:
    """`sky_maps`, but with the scatter of neighboring pixels: a sky that is steep within a box is no noise.

    Where boxes scatter by more than pixels a few apart differ, the scatter is that of these differences.
    """
    level, rms = deferred_maps(image, bad, options=options, planes=planes)
    pixels, unusable = _prepared(image, bad, planes)
    scatter = rms()
    pixels[unusable] = 0
    noise = median_sky(pixels, unusable)[1]
    if noise > 0 and float(np.median(scatter)) > _STEEP * noise and pixels.shape[1] > 2 * _LAG:
        steps, lost = _steps(pixels, unusable)
        mesh = _mesh(steps, lost, options)
        scatter = mesh.rms(dtype=np.float32) if mesh is not None else np.full(pixels.shape, noise, dtype=np.float32)
    return level(), scatter


def _steps(pixels: Images, unusable: Bools) -> tuple[Images, Bools]:
    """Differences of pixels some columns apart, on the scale of one pixel's noise, and which of them are unusable."""
    steps = np.concatenate(
        [pixels[:, _LAG:] - pixels[:, :-_LAG], pixels[:, -_LAG:] - pixels[:, -2 * _LAG : -_LAG]], axis=1
    )
    lost = np.concatenate(
        [unusable[:, _LAG:] | unusable[:, :-_LAG], unusable[:, -_LAG:] | unusable[:, -2 * _LAG : -_LAG]], axis=1
    )
    return np.ascontiguousarray(steps / np.float32(np.sqrt(2.0))), np.ascontiguousarray(lost)


def deferred_maps(image: Numbers, bad: NDArray[Any], *, options: SkyOptions, planes: int = 0) -> DeferredMaps:
    """`sky_maps`, measured but not yet spread over the pixels: a fifth of the time goes into each map."""
    pixels, unusable = _prepared(image, bad, planes)
    shape = pixels.shape
    if unusable.all():
        return DeferredMaps(_flat(shape, np.nan), _flat(shape, np.nan))
    mesh = _mesh(pixels, unusable, options)
    if mesh is not None:
        maps = (DeferredMap(partial(call, dtype=np.float32)) for call in (mesh.back, mesh.rms))
        return DeferredMaps(*maps)
    good = pixels[~unusable]
    return DeferredMaps(_flat(shape, _level(good, options)), _flat(shape, mad_std(good)))


def _flat(shape: tuple[int, ...], value: float | np.float32) -> DeferredMap:
    return DeferredMap(partial(np.full, shape, value, dtype=np.float32))


def without_sky(image: Numbers, bad: NDArray[Any], *, options: SkyOptions, planes: int = 0) -> Images:
    """A (y, x) image minus the level of its sky, NaN where it is bad or not finite."""
    pixels, unusable = _prepared(image, bad, planes)
    if not unusable.all():
        mesh = _mesh(pixels, unusable, options)
        if mesh is not None:
            mesh.subfrom(pixels)
        elif options.method != "none":
            pixels -= _level(pixels[~unusable], options)
    np.copyto(pixels, np.nan, where=unusable)
    return pixels


def sky_scatter(
    image: Numbers,
    bad: NDArray[Any],
    sources: Bools | None = None,
    *,
    statistic: str,
    options: SkyOptions,
    planes: int = 0,
) -> float:
    """One number for the noise of a (y, x) image; NaN without a good pixel.

    ``"rms"``: the median scatter of the boxes of the mesh, or the scatter of all good pixels where there is no mesh.
    ``"mad"``, ``"std"``: that of `without_sky` over the pixels that are not in `sources`.
    """
    if statistic == "rms":
        pixels, unusable = _prepared(image, bad, planes)
        mesh = None if unusable.all() else _mesh(pixels, unusable, options)
        return mad_std(pixels[~unusable]) if mesh is None else float(mesh.globalrms)
    cleaned = without_sky(image, bad, options=options, planes=planes)
    hidden = np.isnan(cleaned) if sources is None else sources | np.isnan(cleaned)
    values = cleaned[~hidden]
    if values.size == 0:
        return float(np.nan)
    return mad_std(values) if statistic == "mad" else float(np.std(values, dtype=np.float64))


def median_sky(pixels: Images, bad: Bools, *, rounds: int = 0) -> tuple[float, float]:
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


def _level_and_noise(values: Images, good: Bools) -> tuple[float, float]:
    pair = good[:, _LAG:] & good[:, :-_LAG]
    difference = (values[:, _LAG:] - values[:, :-_LAG])[pair]
    if difference.size < 2:
        return np.nan, np.nan
    return float(np.median(values[good])), mad_std(difference) / float(np.sqrt(2.0))


def _prepared(image: Numbers, bad: NDArray[Any], planes: int) -> tuple[Images, Bools]:
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


def _mesh(pixels: Images, unusable: Bools, options: SkyOptions) -> Any:
    """The mesh of Barbary (2016), after Bertin & Arnouts (1996); None where one level stands for it."""
    (bh, bw), (fh, fw) = _pair(options.box_size), _pair(options.filter_size)
    if options.method != "sep" or not _has_good_box(unusable, bh, bw):
        return None
    return sep.Background(pixels, mask=unusable, bh=bh, bw=bw, fh=fh, fw=fw)


def _has_good_box(unusable: Bools, bh: int, bw: int) -> bool:
    """Whether sep can measure a box at all: without one it states a level of 0 and a scatter of 1."""
    if np.count_nonzero(unusable) < (1 - _LEAST_GOOD) * unusable.size:
        return True
    rows, columns = (np.arange(0, n, step) for n, step in zip(unusable.shape, (bh, bw), strict=True))
    good = np.add.reduceat(np.add.reduceat(~unusable, rows, axis=0, dtype=np.int64), columns, axis=1)
    sides = [np.diff(np.append(starts, n)) for starts, n in zip((rows, columns), unusable.shape, strict=True)]
    return bool((good >= _LEAST_GOOD * np.outer(*sides)).any())


def _level(good: Images, options: SkyOptions) -> np.float32:
    return np.float32(0.0 if options.method == "none" else np.median(good))
