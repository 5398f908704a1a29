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
    by, as where all stars of a field are measured, and only what does not fit is rejected.
    """
    named, distance = np.asarray(given["named"], dtype=bool), given["distance"]
    if distance is None:
        return named
    with_measured = named | (distance <= _radius(science, reference, how))
    if how.always:
        return with_measured
    light = _light(science, reference)
    left, all_light = (float(light.sum(where=~out, dtype=np.float64)) for out in (with_measured, named))
    enough = left >= _LEAST_SHARE * all_light or (how.constant_kernel and left >= _LEAST_SNR**2)
    return with_measured if enough else named


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
