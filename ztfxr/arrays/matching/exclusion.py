"""Which pixels must not shape the kernel: those around objects that are to be measured, and may have changed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.stars import star_fwhm
from ztfxr.arrays.types import Bools, Floats, Numbers

__all__ = ["FARTHEST", "Measured", "distances", "excluded_with"]

FARTHEST = 60
"""Pixels beyond which a distance is not told."""

_RADIUS_PER_FWHM = 3.3
_WIDTH_SIDE = 512
_LEAST_SHARE, _LEAST_SNR = 0.5, 200.0
_BRIGHT, _LEAST_BRIGHT, _CHANGED = 10.0, 4, 5.0


@dataclass(frozen=True)
class Measured:
    """How pixels around the objects that are measured are left out of the solution.

    Parameters
    ----------
    radius
        Pixels around each that are left out; or 3.3 times the FWHM of the stars, where that is more.
    fixed
        Whether `radius` stays as it is.
    always
        Whether they are left out whatever light is left: at one place, the kernel would follow what changed there.
    constant_kernel
        Whether one kernel serves all pixels, so that its precision follows from all the light that is left.
    """

    radius: float
    fixed: bool
    always: bool
    constant_kernel: bool
    places: Floats
    """Rows and columns (place, 2) of the objects, to tell which have changed; none on large images."""


def distances(axes: tuple[Floats, Floats], y: Floats, x: Floats) -> Numbers:
    """The distance in pixels from the nearest of some places, rounded up, on a grid; 255 beyond `FARTHEST`.

    `axes` are the positions of the rows and of the columns; a place is a `y` and an `x` among them.
    """
    out = np.full(tuple(len(axis) for axis in axes), 255, dtype=np.uint8)
    for place in zip(y, x, strict=True):
        near = [np.flatnonzero(np.abs(axis - c) <= FARTHEST) for axis, c in zip(axes, place, strict=True)]
        dy, dx = (axis[n] - c for axis, n, c in zip(axes, near, place, strict=True))
        square = dy[:, None] ** 2 + dx[None, :] ** 2
        distance = np.where(square <= FARTHEST**2, np.ceil(np.sqrt(square)), 255).astype(np.uint8)
        out[np.ix_(*near)] = np.minimum(out[np.ix_(*near)], distance)
    return out


def excluded_with(science: Image, reference: Image, given: Mapping[str, Numbers | None], how: Measured) -> Bools:
    """The pixels to leave out: those that are `named`, and those at a small `distance` from what is measured.

    The latter only where enough light is left to fix the kernel: half of all (in squares of the signal over the noise),
    or, for a constant kernel, a signal of 200 times its noise. Else they hold the light that the kernel must be found
    by, as where all stars of a field are measured: then only those are left out whose flux has changed.
    """
    named, distance = np.asarray(given["named"], dtype=bool), given["distance"]
    if distance is None and not len(how.places):
        return named
    radius = _radius(science, reference, how)
    if distance is None:
        return _with_changed(science, reference, named, radius, how)
    with_measured = named | (distance <= radius)
    if how.always:
        return with_measured
    light = _light(science, reference)
    left, all_light = (float(light.sum(where=~out, dtype=np.float64)) for out in (with_measured, named))
    enough = left >= _LEAST_SHARE * all_light or (how.constant_kernel and left >= _LEAST_SNR**2)
    return with_measured if enough else _with_changed(science, reference, named, radius, how)


def _with_changed(science: Image, reference: Image, named: Bools, radius: float, how: Measured) -> Bools:
    """The pixels that are left out anyway, and those around objects whose flux has changed; not more than half."""
    changed = how.places[_has_changed(science, reference, how.places, radius)]
    axes = tuple(np.arange(n, dtype=float) for n in named.shape)
    out = named | (distances((axes[0], axes[1]), *changed.T) <= radius)
    return out if out.mean() <= _LEAST_SHARE else named


def _has_changed(science: Image, reference: Image, places: Floats, radius: float) -> Bools:
    """Whether the flux at each place differs from what most places say of the scale, by 5 errors and a tenth."""
    found = np.array([[_sum_at(image, place, radius) for image in (science, reference)] for place in places])
    (new, new_var), (old, old_var) = (found[:, k].T for k in (0, 1))
    bright = (old > _BRIGHT * np.sqrt(old_var)) & np.isfinite(new)
    if np.count_nonzero(bright) < _LEAST_BRIGHT:
        return np.zeros(len(places), dtype=bool)
    bright &= old >= np.median(old[bright])
    scale = float(np.median(new[bright] / old[bright]))
    off = np.abs(new - scale * old)
    return np.asarray((off > _CHANGED * np.sqrt(new_var + scale**2 * old_var)) & (off > 0.1 * np.abs(scale * old)))


def _sum_at(image: Image, place: Floats, radius: float) -> tuple[float, float]:
    """Flux above the surroundings within half a radius of a place, and its variance; NaN where pixels are missing."""
    start = np.rint(place - radius).astype(int)
    stop = np.rint(place + radius).astype(int) + 1
    if (start < 0).any() or (stop > image.bad.shape).any():
        return np.nan, np.nan
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    y, x = np.ogrid[box]
    inside = (y - place[0]) ** 2 + (x - place[1]) ** 2 <= (radius / 2) ** 2
    pixels, bad = image.pixels[box], image.bad[box]
    if bad[inside].any() or (bad | inside).all():
        return np.nan, np.nan
    noise = image.sky[1] ** 2 * inside.sum() if image.variance is None else image.variance[box][inside].sum()
    level = np.median(pixels[~inside & ~bad])
    return float((pixels[inside] - level).sum()), float(noise)


def _radius(science: Image, reference: Image, how: Measured) -> float:
    """Pixels around an object; for wide stars as measured, in the middle of a large image."""
    if how.fixed:
        return how.radius
    middle = tuple(slice(max((n - _WIDTH_SIDE) // 2, 0), (n + _WIDTH_SIDE) // 2) for n in science.bad.shape)
    widths = [star_fwhm(Image(i.pixels[middle], None, i.bad[middle])) for i in (science, reference)]
    width = max([w for w in widths if np.isfinite(w)], default=0.0)
    return min(max(how.radius, _RADIUS_PER_FWHM * width), float(FARTHEST))


def _light(science: Image, reference: Image) -> Numbers:
    """The square of the reference's signal over the noise of both images, less what noise alone would give."""
    level = reference.sky[0]
    noise = sum(i.sky[1] ** 2 if i.variance is None else i.variance for i in (science, reference))
    light = np.square(reference.pixels - np.float32(level)) / np.maximum(noise, np.float32(1e-30)) - 1
    light[science.bad | reference.bad] = 0
    return np.asarray(light)
