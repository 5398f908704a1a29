"""Resampling of an image, its variance and its flags onto another pixel grid."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Literal, NamedTuple, get_args

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ztfxr.arrays.geometry.transform import Transform
from ztfxr.arrays.images.convolve import footprint_mask
from ztfxr.arrays.threads import in_parallel
from ztfxr.arrays.types import Bools, Floats, Images, Numbers
from ztfxr.errors import InputError

__all__ = ["Interpolation", "Resampled", "kernel_table", "resample"]

Flags = NDArray[np.uint16]
Interpolation = Literal["lanczos3", "spline"]

SIGNIFICANT = 0.01
_STEPS = 1024
_STRIPE = 32
_SPLINE_TAPS = 14


class Resampled(NamedTuple):
    """An image on another grid: NaN where `bad`."""

    image: Images
    variance: Images
    bad: Bools
    flags: Flags


class _Source(NamedTuple):
    """The image that is resampled; zero where it is `bad`. `variance` and `flags` may be empty.

    `touched` is where a bad pixel may be among the taps around a position whose nearest pixel it is; `spread` are the
    planes that bad pixels pass on, `outside` those of what lies off the image.
    """

    image: Images
    variance: Images
    bad: Bools
    flags: Flags
    touched: Bools
    spread: int
    outside: int


class _Places(NamedTuple):
    """Where the pixels of some rows of the target lie on the source, their area there, and the first of the rows."""

    x: Floats
    y: Floats
    area: Floats
    start: int


def _lanczos(d: Floats, a: int) -> Floats:
    return np.where(np.abs(d) < a, np.sinc(d) * np.sinc(d / a), 0.0)


def _cardinal_spline(d: Floats) -> Floats:
    """The function whose integer shifts interpolate by cubic splines (Unser 1999, IEEE Signal Proc. Mag. 16, 22)."""
    pole = np.sqrt(3.0) - 2.0
    total = np.zeros_like(d)
    for k in range(-24, 25):
        u = np.abs(d - k)
        b = np.where(u < 1, 2 / 3 - u**2 + u**3 / 2, np.where(u < 2, (2 - u) ** 3 / 6, 0.0))
        total += np.sqrt(3.0) * pole ** abs(k) * b
    return total


@cache
def kernel_table(interpolation: Interpolation) -> Images:
    """Weights of the taps for 1025 sub-pixel phases 0 … 1; (phase, tap), float32.

    Tap t of a kernel of n taps stands at pixel t − n/2 + 1. Each row sums to one and has its first moment at the phase,
    which is forced by adding a multiple of (α + β d) cos²(πd/n): bare Lanczos-3, normalized, misplaces a star by up to
    0.02 pixel. Phases 0 and 1 are single pixels to the last bit, so that a shift by whole pixels copies.
    """
    if interpolation not in get_args(Interpolation):
        raise InputError(f"interpolation is one of {', '.join(get_args(Interpolation))}; got {interpolation!r}")
    taps = _SPLINE_TAPS if interpolation == "spline" else 6
    phase = np.arange(_STEPS + 1) / _STEPS
    d = np.arange(taps) - taps // 2 + 1 - phase[:, None]
    w = _cardinal_spline(d) if interpolation == "spline" else _lanczos(d, taps // 2)
    w /= w.sum(axis=1, keepdims=True)
    window = np.cos(np.pi * d / taps) ** 2
    s0, s1, s2 = ((window * d**p).sum(axis=1) for p in range(3))
    moment = (w * d).sum(axis=1)
    alpha, beta = s1 * moment / (s0 * s2 - s1**2), -s0 * moment / (s0 * s2 - s1**2)
    w += window * (alpha[:, None] + beta[:, None] * d)
    w[[0, -1]] = 0.0
    w[0, taps // 2 - 1] = w[-1, taps // 2] = 1.0
    return w.astype(np.float32)


@njit(nogil=True, cache=True, error_model="numpy")
def _around_bad(
    source: _Source, wx: Images, wy: Images, x0: int, y0: int, found: np.uint16
) -> tuple[bool, np.float32, np.float32, np.uint16]:
    """One pixel from the good ones among its taps: whether too much is missing, its value, variance and flags."""
    image, variance, flags = source.image, source.variance, source.flags
    total, noise, norm = np.float32(0.0), np.float32(0.0), np.float32(0.0)
    spoilt = False
    for b in range(wy.size):
        for a in range(wx.size):
            w = wx[a] * wy[b]
            y, x = y0 + b, x0 + a
            outside = y < 0 or x < 0 or y >= image.shape[0] or x >= image.shape[1]
            if not outside and not source.bad[y, x]:
                norm += w
                total += w * image[y, x]
                if variance.size > 0:
                    noise += w * w * variance[y, x]
            elif abs(w) > SIGNIFICANT:
                spoilt = True
                if outside:
                    found |= np.uint16(source.outside)
                elif flags.size > 0:
                    found |= flags[y, x] & np.uint16(source.spread)
    return spoilt, total / norm, noise / (norm * norm), found


@cache
def _loop(taps: int) -> Callable[..., None]:
    """The loop over pixels for one number of taps, which the compiler unrolls."""
    left = taps // 2 - 1

    @njit(nogil=True, cache=True, error_model="numpy", fastmath={"contract", "reassoc", "nsz", "arcp"})
    def rows(source: _Source, table: Images, places: _Places, out: Resampled) -> None:
        # Unpacked once: the compiler does not take arrays of tuples out of the loop.
        image, variance, _, flags, touched, _, _ = source
        xs, ys, area, start = places
        out_image, out_variance, out_bad, out_flags = out
        ny, nx = image.shape
        steps = table.shape[0] - 1
        with_variance, with_flags = variance.size > 0, flags.size > 0
        wx, wy = np.empty(taps, np.float32), np.empty(taps, np.float32)
        for r in range(xs.shape[0]):
            for c in range(xs.shape[1]):
                x, y = xs[r, c], ys[r, c]
                if not (x > -0.5 and x < nx - 0.5 and y > -0.5 and y < ny - 0.5):
                    continue
                ix, iy = int(np.floor(x)), int(np.floor(y))
                px, py = (x - ix) * steps, (y - iy) * steps
                tx, ty = min(int(px), steps - 1), min(int(py), steps - 1)
                ax, ay = np.float32(px - tx), np.float32(py - ty)
                for t in range(taps):
                    wx[t] = table[tx, t] + ax * (table[tx + 1, t] - table[tx, t])
                    wy[t] = table[ty, t] + ay * (table[ty + 1, t] - table[ty, t])
                jacobian = np.float32(area[r, c])
                x0, y0 = ix - left, iy - left
                nearest_x, nearest_y = min(int(x + 0.5), nx - 1), min(int(y + 0.5), ny - 1)
                found = flags[nearest_y, nearest_x] if with_flags else np.uint16(0)
                inside = x0 >= 0 and y0 >= 0 and x0 + taps <= nx and y0 + taps <= ny
                if inside and not touched[nearest_y, nearest_x]:
                    total, noise = np.float32(0.0), np.float32(0.0)
                    for b in range(taps):
                        line = image[y0 + b, x0 : x0 + taps]
                        part = np.float32(0.0)
                        for a in range(taps):
                            part += wx[a] * line[a]
                        total += wy[b] * part
                    if with_variance:
                        for b in range(taps):
                            line = variance[y0 + b, x0 : x0 + taps]
                            part = np.float32(0.0)
                            for a in range(taps):
                                part += wx[a] * wx[a] * line[a]
                            noise += wy[b] * wy[b] * part
                        out_variance[start + r, c] = noise * jacobian * jacobian
                    out_image[start + r, c] = total * jacobian
                    out_bad[start + r, c] = False
                    out_flags[start + r, c] = found
                    continue
                spoilt, value, noise, found = _around_bad(source, wx, wy, x0, y0, found)
                out_flags[start + r, c] = found
                if spoilt:
                    continue
                out_image[start + r, c] = value * jacobian
                if with_variance:
                    out_variance[start + r, c] = noise * jacobian * jacobian
                out_bad[start + r, c] = False

    return rows


def resample(
    image: Numbers,
    transform: Transform,
    shape: tuple[int, int],
    *,
    variance: Numbers | None = None,
    bad: Bools | None = None,
    flags: Numbers | None = None,
    spread: int = 0xFFFF,
    outside: int = 0,
    origin: tuple[int, int] = (0, 0),
    target_origin: tuple[int, int] = (0, 0),
    interpolation: Interpolation = "lanczos3",
) -> Resampled:
    """An image at the places that a transform gives for the pixels of a target grid.

    Parameters
    ----------
    image
        (y, x), any real or integer dtype.
    transform
        From absolute pixels of the target to absolute pixels of the image.
    shape
        (y, x) of the target.
    variance, bad, flags
        (y, x) of the image: the variance of its pixels, where it must not be used, its bit planes (uint16). Pixels that
        are not finite, or whose variance is not, are bad in any case.
    spread
        The bit planes that a resampled pixel takes from every bad pixel that counts in it; the others it takes from
        the nearest pixel alone.
    outside
        Flags of target pixels that lie, or reach, outside the image.
    origin, target_origin
        Absolute pixel (y, x) of the first row and column of the image and of the target.
    interpolation
        ``"lanczos3"``, or ``"spline"`` (cubic, on 14 taps: four to six times slower).

    Returns
    -------
    Resampled
        `image` (float32), `variance` (float32; empty without one), `bad`, `flags` (uint16). A pixel is bad, and its
        image and variance NaN, where a bad pixel or the outside has a weight beyond 0.01; lesser ones are left out and
        the others share their weight. No value of a bad pixel enters anything.

    Notes
    -----
    Values are multiplied by the area of the source per target pixel, so that flux is conserved, not surface brightness.
    Variances are summed with the squared weights: right for each pixel, but neighbors are now correlated, and the sum
    of the variances over an aperture falls short of the variance of its sum. Shifts by whole pixels copy.

    Measured on stars of FWHM 2 pixels: where the pixel scales agree to 1 %, both keep the flux to 0.1 % and the place
    to 0.003 pixel at any rotation (to 0.005 % and 0.0005 pixel up to 6 degrees); where they differ by 5 %, Lanczos-3
    keeps them to 0.2 % and 0.01 pixel, the spline to 0.03 % and 0.001 pixel.
    """
    table = kernel_table(interpolation)
    unusable, pixels, noise = _prepared(image, variance, bad)
    planes = np.empty((0, 0), np.uint16) if flags is None else np.ascontiguousarray(flags, dtype=np.uint16)
    # Nothing within half the taps, and one pixel more, of a bad pixel is interpolated without looking at the mask.
    touched = footprint_mask(unusable, table.shape[1] + 1)
    source = _Source(pixels, noise, unusable, planes, touched, spread, outside)
    out = Resampled(
        np.full(shape, np.nan, np.float32),
        np.full(shape if variance is not None else (0, 0), np.nan, np.float32),
        np.ones(shape, bool),
        np.full(shape, outside, np.uint16),
    )
    x = np.arange(shape[1], dtype=float) + target_origin[1]
    loop = _loop(table.shape[1])

    def stripe(start: int) -> None:
        y = np.arange(start, min(start + _STRIPE, shape[0]), dtype=float) + target_origin[0]
        xs, ys, area = transform.on_grid(x, y)
        xs, ys = xs - origin[1], ys - origin[0]
        loop(source, table, _Places(xs, ys, area, start), out)

    in_parallel(stripe, range(0, shape[0], _STRIPE))
    return out


def _prepared(image: Numbers, variance: Numbers | None, bad: Bools | None) -> tuple[Bools, Images, Images]:
    """What is bad, and image and variance as float32 with zeros there."""
    unusable = ~np.isfinite(image) if bad is None else bad | ~np.isfinite(image)
    if variance is not None:
        unusable = unusable | ~np.isfinite(variance)
    unusable = np.ascontiguousarray(unusable)
    pixels = np.ascontiguousarray(image, dtype=np.float32)
    noise = np.empty((0, 0), np.float32) if variance is None else np.ascontiguousarray(variance, dtype=np.float32)
    if unusable.any():
        pixels = np.where(unusable, np.float32(0.0), pixels)
        noise = np.where(unusable, np.float32(0.0), noise) if variance is not None else noise
    return unusable, pixels, noise
