"""Stars and galaxies on a pixel grid, through an elliptical PSF that is integrated over each pixel."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Floats

__all__ = ["PSFShape", "add_galaxy", "add_stars", "make_stamps"]


_CORE = 2.5
_OVERSAMPLING = 2


def _nodes(degree: int) -> tuple[Floats, Floats]:
    """Nodes and weights of Gauss-Legendre quadrature, as arrays that numba reads fastest."""
    nodes, weights = np.polynomial.legendre.leggauss(degree)
    return np.ascontiguousarray(nodes), np.ascontiguousarray(weights)


_FINE, _COARSE = _nodes(5), _nodes(2)


class PSFShape(NamedTuple):
    """Shape of the PSF at each source: FWHM (px), ellipticity components, each (source,).

    ``e1 = e cos 2θ``, ``e2 = e sin 2θ``, with axis ratio ``(1 - e) / (1 + e)`` and θ from +x towards +y; the FWHM is
    the geometric mean over the axes. `beta` is the exponent of the Moffat profile, 0 for a Gaussian; the light ends
    `reach` pixels from the central pixel.
    """

    fwhm: Floats
    e1: Floats
    e2: Floats
    beta: float
    reach: int

    def of(self, index: int) -> PSFShape:
        """The shape at one source."""
        one = slice(index, index + 1)
        return self._replace(fwhm=self.fwhm[one], e1=self.e1[one], e2=self.e2[one])


@njit(nogil=True, cache=True)
def _metric(fwhm: float, e1: float, e2: float, beta: float) -> tuple[float, float, float]:  # pragma: no cover
    """The quadratic form of the elliptical radius, in units of the profile's scale."""
    e = min((e1 * e1 + e2 * e2) ** 0.5, 0.95)
    cosine, sine = (e1 / e, e2 / e) if e > 0 else (1.0, 0.0)
    scale = fwhm * FWHM_TO_SIGMA if beta == 0 else fwhm / (2.0 * (2.0 ** (1.0 / beta) - 1.0) ** 0.5)
    ratio = (1.0 - e) / (1.0 + e)
    major, minor = ratio / scale**2, 1.0 / (ratio * scale**2)
    mean, half = (major + minor) / 2, (major - minor) / 2
    return mean + half * cosine, mean - half * cosine, half * sine


@njit(nogil=True, cache=True)
def _pixel(
    dx: float, dy: float, form: tuple[float, float, float], beta: float, nodes: Floats, weights: Floats
) -> float:  # pragma: no cover
    """The profile integrated over the pixel whose center is (dx, dy) from the source."""
    total = 0.0
    for i in range(len(nodes)):
        v = dy + 0.5 * nodes[i]
        for j in range(len(nodes)):
            u = dx + 0.5 * nodes[j]
            r2 = form[0] * u * u + form[1] * v * v + 2.0 * form[2] * u * v
            value = np.exp(-0.5 * r2) if beta == 0 else (1.0 + r2) ** -beta
            total += weights[i] * weights[j] * value
    return total / 4.0


@njit(nogil=True, cache=True)
def _fill(
    stamp: Floats,
    dx: float,
    dy: float,
    shape: tuple[float, float, float, float],
    fine: tuple[Floats, Floats],
    coarse: tuple[Floats, Floats],
) -> None:  # pragma: no cover
    """A stamp of unit sum for a source at (dx, dy) from the center of the middle pixel."""
    fwhm, e1, e2, beta = shape
    form = _metric(fwhm, e1, e2, beta)
    half, core = stamp.shape[0] // 2, (_CORE * fwhm) ** 2
    total = 0.0
    for i in range(stamp.shape[0]):
        for j in range(stamp.shape[1]):
            v, u = i - half - dy, j - half - dx
            if u * u + v * v > (half + 0.5) ** 2:
                stamp[i, j] = 0.0
            elif u * u + v * v < core:
                stamp[i, j] = _pixel(u, v, form, beta, fine[0], fine[1])
            else:
                stamp[i, j] = _pixel(u, v, form, beta, coarse[0], coarse[1])
            total += stamp[i, j]
    stamp /= total


@njit(nogil=True, cache=True)
def _add_all(
    image: Floats,
    x: Floats,
    y: Floats,
    flux: Floats,
    fwhm: Floats,
    e1: Floats,
    e2: Floats,
    beta: float,
    reach: int,
    fine: tuple[Floats, Floats],
    coarse: tuple[Floats, Floats],
) -> None:  # pragma: no cover
    stamp = np.empty((2 * reach + 1, 2 * reach + 1))
    for k in range(len(x)):
        ix, iy = int(np.floor(x[k] + 0.5)), int(np.floor(y[k] + 0.5))
        _fill(stamp, x[k] - ix, y[k] - iy, (fwhm[k], e1[k], e2[k], beta), fine, coarse)
        for i in range(max(0, iy - reach), min(image.shape[0], iy + reach + 1)):
            for j in range(max(0, ix - reach), min(image.shape[1], ix + reach + 1)):
                image[i, j] += flux[k] * stamp[i - iy + reach, j - ix + reach]


@njit(nogil=True, cache=True)
def _fill_all(
    stamps: Floats,
    dx: Floats,
    dy: Floats,
    fwhm: Floats,
    e1: Floats,
    e2: Floats,
    beta: float,
    fine: tuple[Floats, Floats],
    coarse: tuple[Floats, Floats],
) -> None:  # pragma: no cover
    for k in range(len(stamps)):
        _fill(stamps[k], dx[k], dy[k], (fwhm[k], e1[k], e2[k], beta), fine, coarse)


def add_stars(image: Floats, x: Floats, y: Floats, flux: Floats, shape: PSFShape) -> None:
    """Add point sources at array positions `x`, `y` to one (y, x) image, in place."""
    kept = flux != 0
    xs, ys, light, fwhm, e1, e2 = (np.ascontiguousarray(v[kept], dtype=np.float64) for v in (x, y, flux, *shape[:3]))
    _add_all(image, xs, ys, light, fwhm, e1, e2, shape.beta, shape.reach, _FINE, _COARSE)


def make_stamps(dx: Floats, dy: Floats, shape: PSFShape) -> Floats:
    """Stamps (source, y, x) of unit sum for sources at (dx, dy) from the center of the middle pixel."""
    size = 2 * shape.reach + 1
    stamps = np.empty((len(dx), size, size))
    _fill_all(stamps, dx, dy, shape.fwhm, shape.e1, shape.e2, shape.beta, _FINE, _COARSE)
    return stamps


def add_galaxy(image: Floats, x: float, y: float, light: Floats, shape: PSFShape) -> None:
    """Add a galaxy at (x, y) to one image, in place.

    `light` (v, u) is the galaxy before the PSF, as points half a pixel apart around its center; odd by odd. What every
    epoch sees is the exact convolution of these points with its PSF, which is that at the center.
    """
    from scipy import signal

    ix, iy = int(np.floor(x + 0.5)), int(np.floor(y + 0.5))
    n = _OVERSAMPLING
    steps = np.arange(n) / n
    dx, dy = (v.ravel() for v in np.meshgrid(x - ix + steps, y - iy + steps))
    same = [np.repeat(v, n * n) for v in shape[:3]]
    phases = make_stamps(dx, dy, PSFShape(same[0], same[1], same[2], shape.beta, shape.reach)).reshape(
        n, n, 2 * shape.reach + 1, 2 * shape.reach + 1
    )
    middle = light.shape[0] // 2
    half = middle // n + 1 + shape.reach
    total = np.zeros((2 * half + 1, 2 * half + 1))
    for b in range(n):
        for a in range(n):
            total += signal.fftconvolve(_phase(light, b, a), phases[b, a])
    _paste(image, total, ix, iy)


def _phase(light: Floats, b: int, a: int) -> Floats:
    """The points that lie (b, a) half pixels beyond whole pixels from the center; odd by odd, centered."""
    n, middle = _OVERSAMPLING, light.shape[0] // 2
    whole = middle // n + 1
    out = np.zeros((2 * whole + 1, 2 * whole + 1))
    offsets = np.arange(-whole, whole + 1) * n
    rows, columns = middle + offsets + b, middle + offsets + a
    in_rows, in_columns = (rows >= 0) & (rows < len(light)), (columns >= 0) & (columns < len(light))
    out[np.ix_(in_rows, in_columns)] = light[np.ix_(rows[in_rows], columns[in_columns])]
    return out


def _paste(image: Floats, stamp: Floats, ix: int, iy: int) -> None:
    """Add a stamp around (ix, iy), whatever of it lies inside."""
    half = stamp.shape[0] // 2
    y0, y1 = max(0, iy - half), min(image.shape[0], iy + half + 1)
    x0, x1 = max(0, ix - half), min(image.shape[1], ix + half + 1)
    if y0 < y1 and x0 < x1:
        image[y0:y1, x0:x1] += stamp[y0 - iy + half : y1 - iy + half, x0 - ix + half : x1 - ix + half]
