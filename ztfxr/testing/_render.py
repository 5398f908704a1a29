"""Stars and galaxies on a pixel grid, through an elliptical PSF that is integrated over each pixel."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ztfxr.arrays.statistics import FWHM_TO_SIGMA
from ztfxr.arrays.types import Floats

__all__ = ["PSFShape", "add_galaxy", "add_stars", "make_stamps"]


_CORE = 2.5
_OVERSAMPLING = 2
_BLOCK = 1000


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

    def of(self, sources: NDArray[np.integer[Any]]) -> PSFShape:
        """The shape at some sources."""
        return self._replace(fwhm=self.fwhm[sources], e1=self.e1[sources], e2=self.e2[sources])


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
    """Stamps of unit sum for sources at (dx, dy) from the center of the middle pixel."""
    half = stamps.shape[1] // 2
    for k in range(len(stamps)):
        form = _metric(fwhm[k], e1[k], e2[k], beta)
        core, total = (_CORE * fwhm[k]) ** 2, 0.0
        for i in range(stamps.shape[1]):
            for j in range(stamps.shape[2]):
                v, u = i - half - dy[k], j - half - dx[k]
                if u * u + v * v > (half + 0.5) ** 2:
                    value = 0.0
                elif u * u + v * v < core:
                    value = _pixel(u, v, form, beta, fine[0], fine[1])
                else:
                    value = _pixel(u, v, form, beta, coarse[0], coarse[1])
                stamps[k, i, j] = value
                total += value
        stamps[k] /= total


def add_stars(image: Floats, x: Floats, y: Floats, flux: Floats, shape: PSFShape) -> None:
    """Add point sources at array positions `x`, `y` to one (y, x) image, in place."""
    columns, rows = (np.floor(v + 0.5).astype(int) for v in (x, y))
    bright = np.flatnonzero(flux)
    for some in np.split(bright, range(_BLOCK, len(bright), _BLOCK)):
        stamps = make_stamps(x[some] - columns[some], y[some] - rows[some], shape.of(some))
        for k, stamp in zip(some.tolist(), stamps, strict=True):
            _paste(image, flux[k] * stamp, columns[k], rows[k])


def make_stamps(dx: Floats, dy: Floats, shape: PSFShape) -> Floats:
    """Stamps (source, y, x) of unit sum for sources at (dx, dy) from the center of the middle pixel."""
    stamps = np.empty((len(dx), *[2 * shape.reach + 1] * 2))
    _fill(stamps, dx, dy, shape.fwhm, shape.e1, shape.e2, shape.beta, _FINE, _COARSE)
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
    stamps = make_stamps(dx, dy, shape.of(np.zeros(n * n, dtype=int)))
    phases = stamps.reshape(n, n, *stamps.shape[1:])
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
