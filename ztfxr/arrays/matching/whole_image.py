"""Normal equations of a constant kernel over a whole image, without ever building its design matrix.

Under uniform weights the element for kernel pixels u and v is the sum of ``R(x + u) R(x + v)`` over the image: a sum
of the product of R with itself at lag v − u over a window that starts at u. One pass per lag gives the elements of
that lag for all u: k² / 2 passes over the image instead of k⁴ / 2. They depend on the reference alone, so that a
stack computes them once; an epoch adds its right-hand side and takes its masked pixels away.

Photon noise gives bright pixels less weight. Pixels of like signal in the reference then have like weights in every
epoch, so that one matrix per band of signal serves a whole stack: an epoch adds them up with its own weights.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import ndimage

from ztfxr.arrays.matching.cutouts import CutoutEquations
from ztfxr.arrays.polynomials import exponents, n_terms, unit_position
from ztfxr.arrays.threads import in_parallel
from ztfxr.arrays.types import Bools, Floats, Ints, Numbers

__all__ = ["whole_equations"]


_CACHED, _BANDS, _ROWS = 4, 16, 2048
_MOSTLY_USED, _EVEN, _ALIKE = 0.5, 1e-5, 0.25
_lock = threading.Lock()
_cache: OrderedDict[tuple[Any, ...], _ReferencePart] = OrderedDict()


@dataclass(frozen=True)
class _ReferencePart:
    """What depends on the reference alone: the band of each inner pixel, and the normal matrix (band, parameter,
    parameter) of each band, for plain kernel pixels and background terms.
    """

    band: NDArray[np.intp]
    matrices: Floats


def whole_equations(
    reference: Numbers,
    science: Numbers,
    weight: Numbers,
    *,
    size: int,
    background_order: int,
    noise: Numbers | None = None,
) -> CutoutEquations | None:
    """Normal equations of the delta basis over a whole image, as one cut-out.

    Parameters
    ----------
    reference, science, weight
        (y, x); the weight is 0 where a pixel is not used, and within ``size // 2`` of the border.
    size, background_order
        Of the kernel in pixels, and of the background polynomial.
    noise
        Variance of the reference.

    Returns
    -------
    CutoutEquations or None
        Exact where all weights are equal; else with the mean weight of each band of signal. None where the weights
        are no function of the reference's signal (their logarithms scatter by 0.25 about the bands'), or where fewer
        than half of the pixels are used.
    """
    half = size // 2
    inner = np.s_[half : science.shape[0] - half, half : science.shape[1] - half]
    own = weight[inner]
    used = own > 0
    if used.sum() < _MOSTLY_USED * weight.size:
        return None
    ref = np.ascontiguousarray(reference, dtype=np.float64)
    low, high = float(own[used].min()), float(own.max())
    part = _reference_part(ref, size, background_order, banded=high - low > _EVEN * high)
    mean = np.full(1, high) if len(part.matrices) == 1 else _band_weights(part.band, own, used)
    if mean is None:
        return None
    data = np.where(used, science[inner], 0.0).astype(np.float64)
    found = _added_up(ref, data, used, part, mean, background_order)
    if noise is None:
        return found
    variance = np.ascontiguousarray(noise, dtype=np.float64)
    return replace(found, noise=_correlate(variance, np.where(used, mean[part.band], 0.0), size).reshape(1, -1))


def _band_weights(band: NDArray[np.intp], weight: Numbers, used: Bools) -> Floats | None:
    """The mean weight of each band; None where the weights within bands are too unlike."""
    which = band[used]
    count = np.maximum(np.bincount(which, minlength=_BANDS), 1)
    mean = np.bincount(which, weights=weight[used], minlength=_BANDS) / count
    scatter = np.log(weight[used] / mean[which])
    return mean if float(np.mean(scatter**2)) < _ALIKE**2 else None


def _added_up(
    ref: Floats, data: Floats, used: Bools, part: _ReferencePart, mean: Floats, background_order: int
) -> CutoutEquations:
    size = ref.shape[0] - data.shape[0] + 1
    n_k = size * size
    terms = _background_terms((ref.shape[0], ref.shape[1]), size // 2, background_order)
    weight = mean[part.band]
    weighted = weight * data
    vector = np.concatenate([_correlate(ref, weighted, size).ravel(), terms @ weighted.ravel()])
    gone = np.flatnonzero(~used.ravel())
    rows = _design_rows(ref, terms, gone, size) * np.sqrt(weight.ravel()[gone])[:, None]
    full = np.tensordot(mean, part.matrices, axes=1) - rows.T @ rows
    full, vector = _zero_sum(full, vector, n_k)
    return CutoutEquations(
        kernel=full[:n_k, :n_k][np.triu_indices(n_k)][None],
        mixed=full[None, :n_k, n_k:],
        background=full[None, n_k:, n_k:],
        vector=vector[None],
        square=np.array([float((weighted * data).sum())]),
        n_pixels=np.array([data.size - len(gone)], dtype=np.int64),
        noise=np.empty((1, 0)),
    )


def _reference_part(ref: Floats, size: int, background_order: int, *, banded: bool) -> _ReferencePart:
    """Computed once per reference image, and kept for the last few."""
    key = (blake2b(ref.tobytes(), digest_size=16).digest(), ref.shape, size, background_order, banded)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    part = (_banded_part if banded else _even_part)(ref, size, background_order)
    with _lock:
        _cache[key] = part
        while len(_cache) > _CACHED:
            _cache.popitem(last=False)
    return part


def _even_part(ref: Floats, size: int, background_order: int) -> _ReferencePart:
    """One band for all pixels."""
    terms = _background_terms((ref.shape[0], ref.shape[1]), size // 2, background_order)
    mixed = _moments(ref, size, background_order)
    kernel = np.zeros((size, size, size, size))
    in_parallel(lambda dy: _lag_products(ref, kernel, dy), range(size))
    flat = kernel.reshape(size * size, size * size)
    flat = np.triu(flat) + np.triu(flat, 1).T
    # The loops run in the order of shifted copies, the kernel in that of a convolution: one is the other reversed.
    full = np.block([[flat[::-1, ::-1], mixed], [mixed.T, terms @ terms.T]])
    return _ReferencePart(np.zeros((ref.shape[0] - size + 1, ref.shape[1] - size + 1), np.intp), full[None])


def _banded_part(ref: Floats, size: int, background_order: int) -> _ReferencePart:
    """Bands of signal that widen in proportion to it, as photon noise does."""
    half = size // 2
    terms = _background_terms((ref.shape[0], ref.shape[1]), half, background_order)
    signal = ndimage.uniform_filter(ref, 3)[half : ref.shape[0] - half, half : ref.shape[1] - half]
    signal = signal - np.percentile(signal, 5)
    faint, bright = np.percentile(signal, 50), signal.max()
    edges = np.geomspace(max(faint, 1e-6 * bright), bright, _BANDS) if bright > 0 else np.empty(0)
    band = np.digitize(signal, edges[:-1])
    matrices = np.zeros((_BANDS, size * size + len(terms), size * size + len(terms)))

    def fill(number: int) -> None:
        pixels = np.flatnonzero(band == number)
        for start in range(0, len(pixels), _ROWS):
            rows = _design_rows(ref, terms, pixels[start : start + _ROWS], size)
            matrices[number] += rows.T @ rows

    in_parallel(fill, range(_BANDS))
    return _ReferencePart(band, matrices)


@njit(fastmath=True, nogil=True, cache=True)
def _lag_products(ref: Floats, out: Floats, dy: int) -> None:
    """Elements ``out[a, b, a + dy, b + dx]`` for all a, b and dx of one row lag."""
    size = out.shape[0]
    ny, nx = ref.shape[0] - size + 1, ref.shape[1] - size + 1
    sums = np.empty(ref.shape[1])
    for dx in range(-(size - 1), size):
        if dy == 0 and dx < 0:
            continue
        first, last = max(0, -dx), min(ref.shape[1], ref.shape[1] - dx)
        n = last - first
        column = sums[first:last]
        column[:] = 0.0
        for y in range(0, ny - 3, 4):
            r0, s0 = ref[y, first:last], ref[y + dy, first + dx : last + dx]
            r1, s1 = ref[y + 1, first:last], ref[y + 1 + dy, first + dx : last + dx]
            r2, s2 = ref[y + 2, first:last], ref[y + 2 + dy, first + dx : last + dx]
            r3, s3 = ref[y + 3, first:last], ref[y + 3 + dy, first + dx : last + dx]
            for i in range(n):
                column[i] += r0[i] * s0[i] + r1[i] * s1[i] + r2[i] * s2[i] + r3[i] * s3[i]
        for y in range(ny - ny % 4, ny):
            r0, s0 = ref[y, first:last], ref[y + dy, first + dx : last + dx]
            for i in range(n):
                column[i] += r0[i] * s0[i]
        low, high = max(0, -dx), min(size, size - dx)
        for a in range(size - dy):
            if a > 0:
                r0, s0 = ref[a + ny - 1, first:last], ref[a + ny - 1 + dy, first + dx : last + dx]
                r1, s1 = ref[a - 1, first:last], ref[a - 1 + dy, first + dx : last + dx]
                for i in range(n):
                    column[i] += r0[i] * s0[i] - r1[i] * s1[i]
            total = 0.0
            for x in range(low, low + nx):
                total += sums[x]
            for b in range(low, high):
                if b > low:
                    total += sums[b + nx - 1] - sums[b - 1]
                out[a, b, a + dy, b + dx] = total


def _moments(ref: Floats, size: int, order: int) -> Floats:
    """Sums of ``R(x + u) p(x)`` for every kernel pixel and background term: the terms are products of powers along y
    and x, so that the image is reduced along one axis after the other.
    """
    along = []
    for n in ref.shape:
        power = np.vander(unit_position(np.arange(size // 2, n - size // 2), n), order + 1, increasing=True)
        banded = np.zeros((order + 1, size, n))
        for a in range(size):
            banded[:, size - 1 - a, a : a + len(power)] = power.T
        along.append(banded)
    rows = np.tensordot(along[0], ref, axes=1)
    sums = np.tensordot(rows, along[1], axes=(2, 2))
    return np.array([sums[j, :, i].ravel() for i, j in exponents(order)]).T.reshape(size * size, n_terms(order))


@njit(fastmath=True, nogil=True, cache=True)
def _correlate(ref: Floats, data: Floats, size: int) -> Floats:
    """Sums of ``R(x + u) data(x)`` for every kernel pixel, in the order of a convolution kernel."""
    out = np.empty((size, size))
    for a in range(size):
        for b in range(size):
            total = 0.0
            for y in range(data.shape[0]):
                line, row = ref[y + a], data[y]
                part = 0.0
                for x in range(row.size):
                    part += line[x + b] * row[x]
                total += part
            out[size - 1 - a, size - 1 - b] = total
    return out


def _background_terms(shape: tuple[int, int], half: int, order: int) -> Floats:
    """Background polynomial on the inner pixels, (term, pixel)."""
    v = unit_position(np.arange(half, shape[0] - half), shape[0])
    u = unit_position(np.arange(half, shape[1] - half), shape[1])
    terms = [np.outer(v**j, u**i).ravel() for i, j in exponents(order)]
    return np.array(terms).reshape(n_terms(order), len(v) * len(u))


def _design_rows(ref: Floats, terms: Floats, pixels: Ints, size: int) -> Floats:
    """Rows of the design matrix (pixel, parameter) of a few inner pixels."""
    windows = sliding_window_view(ref, (size, size))
    y, x = np.divmod(pixels, windows.shape[1])
    return np.concatenate([windows[y, x][:, ::-1, ::-1].reshape(len(pixels), size * size), terms[:, pixels].T], axis=1)


def _zero_sum(matrix: Floats, vector: Floats, n_kernel: int) -> tuple[Floats, Floats]:
    """From plain kernel pixels to the components of `delta_basis`: every pixel less the central one."""
    center = n_kernel // 2
    others = np.r_[0:center, center + 1 : n_kernel]
    matrix[others] -= matrix[center]
    matrix[:, others] -= matrix[:, center : center + 1]
    vector[others] -= vector[center]
    return matrix, vector
