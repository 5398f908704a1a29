"""The effective PSF: what pixels see of a point source, on an oversampled grid, varying over the frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray
from scipy import ndimage

from ztfxr.arrays.polynomials import order_of, polynomial_terms
from ztfxr.arrays.types import Floats, Ints

__all__ = [
    "PSFModel",
    "cubic_taps",
    "gather_stamp",
    "grid_offsets",
    "psf_fwhm",
    "psf_stamps",
    "resample_stamp",
    "unit_sum",
    "window_stamps",
]


_EDGE = 4


@dataclass(frozen=True)
class PSFModel:
    """An effective PSF (Anderson & King 2000, PASP 112, 1360) as cubic B-splines on a grid finer than the pixels.

    The value at an offset (dy, dx) from the star's position is the fraction of its light that a pixel there collects:
    it includes the integration over the pixel, so a stamp is a matter of interpolation alone. Between the nodes of the
    grid it is a cubic spline, beyond them zero; over the frame each spline coefficient is a polynomial.

    Attributes
    ----------
    table
        Spline coefficients (phase_y, phase_x, term, row, column): the nodes that fall on the same part of a pixel lie
        together, so that a stamp is a sum of 16 slices a term.
    sums
        Sums of `table` over row and column.
    oversampling
        Nodes per pixel.
    reach
        Pixels from the center to the first that is always zero.
    origin, scale
        The terms are those of `basis.exponents` for ``u = (x - origin[1]) / scale[1]`` and v likewise along y, in
        absolute pixels.
    flux_cov
        Covariance (term, term) of the relative error of fluxes measured with the PSF, see `psf_error.flux_covariance`;
        None where it is not known.
    """

    table: Floats
    sums: Floats
    oversampling: int
    reach: int
    origin: tuple[float, float]
    scale: tuple[float, float]
    flux_cov: Floats | None = None

    @classmethod
    def of(
        cls,
        values: NDArray[np.floating],
        oversampling: int,
        origin: tuple[float, float] = (0.0, 0.0),
        scale: tuple[float, float] = (1.0, 1.0),
    ) -> PSFModel:
        """The model whose values at the nodes are `values` (term, y, x), of odd lengths, the center in the middle."""
        padded = np.pad(np.asarray(values, dtype=np.float64), [(0, 0), (_EDGE, _EDGE), (_EDGE, _EDGE)])
        splines = np.stack([ndimage.spline_filter(term, order=3, mode="mirror") for term in padded])
        return cls.of_splines(splines, oversampling, origin, scale)

    @classmethod
    def of_splines(
        cls, splines: Floats, oversampling: int, origin: tuple[float, float], scale: tuple[float, float]
    ) -> PSFModel:
        """The model with given coefficients of B-splines at the nodes."""
        half = max(splines.shape[1], splines.shape[2]) // 2
        reach = half // oversampling + 2
        table = _separate(_centered(splines, oversampling * (reach + 1)), oversampling)
        return cls(table, table.sum(axis=(3, 4)), oversampling, reach, origin, scale)

    @property
    def order(self) -> int:
        """Order of the polynomials."""
        return order_of(self.table.shape[2])

    def terms(self, y: Floats, x: Floats) -> Floats:
        """The polynomial terms at absolute positions, (position, term)."""
        return self._terms(y, x, self.order)

    def flux_error(self, y: Floats, x: Floats) -> Floats:
        """Relative standard error of fluxes measured with the PSF at absolute positions; NaN where not known."""
        if self.flux_cov is None:
            return np.full(np.shape(y), np.nan)
        terms = self._terms(y, x, order_of(len(self.flux_cov)))
        variance: Floats = np.einsum("pt,tr,pr->p", terms, self.flux_cov, terms)
        return np.sqrt(np.maximum(variance, 0.0))

    def _terms(self, y: Floats, x: Floats, order: int) -> Floats:
        v, u = (y - self.origin[0]) / self.scale[0], (x - self.origin[1]) / self.scale[1]
        return np.ascontiguousarray(polynomial_terms(v, u, order))


def _centered(grid: Floats, half: int) -> Floats:
    """`grid` in the middle of ``2 half + 1`` zeros along each side."""
    widths = [(half - n // 2, half - n // 2) for n in grid.shape[1:]]
    return np.pad(grid, [(0, 0), *widths])


def _separate(grid: Floats, oversampling: int) -> Floats:
    """Nodes (term, y, x) sorted by their place within a pixel: (phase_y, phase_x, term, row, column)."""
    n_t, ny, nx = grid.shape
    k = oversampling
    full = np.pad(grid, [(0, 0), (0, -ny % k), (0, -nx % k)])
    split = full.reshape(n_t, full.shape[1] // k, k, full.shape[2] // k, k)
    return np.ascontiguousarray(split.transpose(2, 4, 0, 1, 3))


def grid_offsets(n: int, oversampling: int) -> Floats:
    """Offsets of `n` nodes from the star, in pixels."""
    return (np.arange(n) - n // 2) / oversampling


@njit(nogil=True, cache=True, error_model="numpy")
def cubic_taps(
    fraction: float, oversampling: int, reach: int, half: int, phase: Ints, first: Ints, weight: Floats, slope: Floats
) -> None:
    """The four nodes that a stamp's first pixel rests on along an axis, their weights, and those of the derivative.

    `fraction` is the star's position less that of the stamp's central pixel; `phase` and `first` receive the place of
    each node in `PSFModel.table`, `slope` the weights of the derivative by the star's position.
    """
    node = oversampling * (reach + 1 - fraction)
    lower = int(np.floor(node))
    t = node - lower
    weight[0] = (1.0 - t) ** 3 / 6.0
    weight[1] = (3.0 * t**3 - 6.0 * t**2 + 4.0) / 6.0
    weight[2] = (-3.0 * t**3 + 3.0 * t**2 + 3.0 * t + 1.0) / 6.0
    weight[3] = t**3 / 6.0
    slope[0] = 0.5 * oversampling * (1.0 - t) ** 2
    slope[1] = -0.5 * oversampling * (3.0 * t**2 - 4.0 * t)
    slope[2] = -0.5 * oversampling * (-3.0 * t**2 + 2.0 * t + 1.0)
    slope[3] = -0.5 * oversampling * t**2
    for tap in range(4):
        place = lower - 1 + tap - oversampling * half
        phase[tap] = place % oversampling
        first[tap] = place // oversampling


@njit(nogil=True, fastmath=True, cache=True, error_model="numpy")
def gather_stamp(
    table: Floats,
    terms: Floats,
    phase: Ints,
    first: Ints,
    weight_y: Floats,
    weight_x: Floats,
    factor: float,
    out: Floats,
) -> None:
    """Fill `out` with `factor` times the spline of `table` for polynomial `terms`, where `cubic_taps` (rows y and x)
    says.

    All rows of a slice are taken as one strip, from the first pixel to the last, since one long loop runs three times
    as fast as many of 17 steps.
    """
    n_k, n_t, pitch = table.shape[0], table.shape[2], table.shape[4]
    flat = table.ravel()
    n_rows, n_columns = out.shape
    length = (n_rows - 1) * pitch + n_columns
    strip = np.zeros(n_rows * pitch)
    for t in range(terms.size):
        for a in range(4):
            w = weight_y[a] * terms[t]
            w0, w1, w2, w3 = w * weight_x[0], w * weight_x[1], w * weight_x[2], w * weight_x[3]
            row = phase[0, a] * n_k
            p0 = (((row + phase[1, 0]) * n_t + t) * pitch + first[0, a]) * pitch + first[1, 0]
            p1 = (((row + phase[1, 1]) * n_t + t) * pitch + first[0, a]) * pitch + first[1, 1]
            p2 = (((row + phase[1, 2]) * n_t + t) * pitch + first[0, a]) * pitch + first[1, 2]
            p3 = (((row + phase[1, 3]) * n_t + t) * pitch + first[0, a]) * pitch + first[1, 3]
            l0, l1, l2, l3 = flat[p0:], flat[p1:], flat[p2:], flat[p3:]
            for i in range(length):
                strip[i] += w0 * l0[i] + w1 * l1[i] + w2 * l2[i] + w3 * l3[i]
    for y in range(n_rows):
        for x in range(n_columns):
            out[y, x] = strip[y * pitch + x] * factor


@njit(nogil=True, cache=True, error_model="numpy")
def unit_sum(sums: Floats, terms: Floats, phase: Ints, weight_y: Floats, weight_x: Floats) -> float:
    """The sum that the stamp would have if it held all pixels."""
    total = 0.0
    for a in range(4):
        for b in range(4):
            for t in range(terms.size):
                total += weight_y[a] * weight_x[b] * terms[t] * sums[phase[0, a], phase[1, b], t]
    return total


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_stamps(
    table: Floats,
    sums: Floats,
    oversampling: int,
    reach: int,
    fraction_y: Floats,
    fraction_x: Floats,
    terms: Floats,
    derivative: int,
    out: Floats,
) -> None:
    half = out.shape[1] // 2
    phase, first = np.empty((2, 4), np.int64), np.empty((2, 4), np.int64)
    weight, slope = np.empty((2, 4)), np.empty((2, 4))
    for i in range(out.shape[0]):
        cubic_taps(fraction_y[i], oversampling, reach, half, phase[0], first[0], weight[0], slope[0])
        cubic_taps(fraction_x[i], oversampling, reach, half, phase[1], first[1], weight[1], slope[1])
        total = unit_sum(sums, terms[i], phase, weight[0], weight[1])
        along_y = slope[0] if derivative == 1 else weight[0]
        along_x = slope[1] if derivative == 2 else weight[1]
        gather_stamp(table, terms[i], phase, first, along_y, along_x, 1.0 / total, out[i])


def window_stamps(
    model: PSFModel, fraction_y: Floats, fraction_x: Floats, terms: Floats, half: int, *, derivative: int = 0
) -> Floats:
    """Stamps of unit sum in windows whose central pixels the stars need not be nearest to.

    Parameters
    ----------
    model
        The PSF.
    fraction_y, fraction_x
        Positions of the stars less those of the central pixels; with `half` at most ``model.reach - 1`` together.
    terms
        Polynomial terms of each star (star, term).
    half
        Pixels on each side of the central one.
    derivative
        1 or 2 for the derivative by the star's y or x.

    Returns
    -------
    numpy.ndarray
        (star, 2 half + 1, 2 half + 1): the sum is 1 over all pixels, those beyond the window included.
    """
    out = np.empty((len(fraction_y), 2 * half + 1, 2 * half + 1))
    _fill_stamps(
        model.table,
        model.sums,
        model.oversampling,
        model.reach,
        np.ascontiguousarray(fraction_y, dtype=np.float64),
        np.ascontiguousarray(fraction_x, dtype=np.float64),
        np.ascontiguousarray(terms, dtype=np.float64),
        derivative,
        out,
    )
    return out


def psf_stamps(model: PSFModel, y: Floats, x: Floats, *, size: int | None = None, derivative: int = 0) -> Floats:
    """Stamps of unit sum for stars at absolute positions.

    Parameters
    ----------
    model
        The PSF.
    y, x
        Positions in absolute pixels, shape (position,).
    size
        Pixels along the side, odd; by default all that the model reaches. A smaller stamp is cut from that of unit
        sum: its own sum is what falls into it.
    derivative
        1 or 2 for the derivative by the star's y or x.

    Returns
    -------
    numpy.ndarray
        (position, size, size), centered on the pixel ``floor(position + 0.5)``; NaN where a position is.
    """
    side = 2 * model.reach + 1 if size is None else size
    half = min(side // 2, model.reach)
    known = np.isfinite(y) & np.isfinite(x)
    py, px = np.where(known, y, 0.0), np.where(known, x, 0.0)
    fractions = py - np.floor(py + 0.5), px - np.floor(px + 0.5)
    out = window_stamps(model, *fractions, model.terms(py, px), half, derivative=derivative)
    out[~known] = np.nan
    margin = side // 2 - half
    return np.pad(out, [(0, 0), (margin, margin), (margin, margin)]) if margin else out


def resample_stamp(stamp: NDArray[np.floating], oversampling: int) -> Floats:
    """A PSF sampled once per pixel (..., y, x), of odd lengths, at `oversampling` nodes per pixel.

    By the Fourier series, so that moving it by fractions of a pixel is the Fourier shift. A PSF narrower than about 2.5
    pixels is undersampled and cannot be moved without error by any means that knows no more than one stamp.
    """
    values = np.asarray(stamp, dtype=np.float64)
    out = values
    for axis in (-2, -1):
        n = out.shape[axis]
        offset = grid_offsets(oversampling * (n - 1) + 1, oversampling)
        distance = offset[:, None] - (np.arange(n) - n // 2)[None, :]
        out = np.moveaxis(np.moveaxis(out, axis, -1) @ _periodic_sinc(distance, n).T, -1, axis)
    return out


def _periodic_sinc(distance: Floats, n: int) -> Floats:
    """The Dirichlet kernel of an odd number of samples."""
    lower = n * np.sin(np.pi * distance / n)
    near = np.abs(distance) < 1e-9
    return np.where(near, 1.0, np.sin(np.pi * distance) / np.where(near, 1.0, lower))


def psf_fwhm(model: PSFModel, y: float, x: float, *, kernel: Floats | None = None) -> float:
    """FWHM in pixels of the circle with the area above half the peak; NaN for a PSF without a peak.

    `kernel` is one that the PSF is convolved with before.
    """
    from scipy import signal

    fine = 8
    shifts = (np.arange(fine) + 0.5) / fine - 0.5
    dy, dx = (shift.ravel() for shift in np.meshgrid(shifts, shifts, indexing="ij"))
    terms = np.repeat(model.terms(np.array([y]), np.array([x])), len(dy), axis=0)
    fan = window_stamps(model, dy, dx, terms, model.reach)
    if kernel is not None:
        fan = signal.fftconvolve(fan, kernel[None] / kernel.sum(), mode="same", axes=(1, 2))
    peak = fan.max()
    return float(np.sqrt(4 / np.pi * (fan > peak / 2).sum()) / fine) if np.isfinite(peak) and peak > 0 else np.nan
