"""Normal equations of a constant kernel under uniform weights, without ever building the design matrix.

Under uniform weights the element for kernel pixels u and v is the sum of ``R(x + u) R(x + v)`` over the image: a sum
of the product of R with itself at lag v − u over a window that starts at u. One pass per lag gives the elements of
that lag for all u: k² / 2 passes over the image instead of k⁴ / 2. They depend on the reference alone, so that a
stack computes them once; an epoch adds its right-hand side and takes its masked pixels away.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ztfxr.arrays.basis import exponents, n_terms
from ztfxr.arrays.cutouts import CutoutEquations, unit_position
from ztfxr.arrays.threads import in_parallel

__all__ = ["uniform_equations"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_CACHED = 4
_lock = threading.Lock()
_cache: OrderedDict[tuple[Any, ...], _ReferencePart] = OrderedDict()


@dataclass(frozen=True)
class _ReferencePart:
    """What depends on the reference alone: sums over the inner image, for plain kernel pixels and background terms."""

    kernel: Floats
    mixed: Floats
    background: Floats


def uniform_equations(
    reference: NDArray[Any], science: NDArray[Any], used: Bools, weight: float, *, size: int, background_order: int
) -> CutoutEquations:
    """Normal equations of the delta basis over the pixels `used`, each with the same `weight`, as one cut-out.

    Parameters
    ----------
    reference, science, used, weight
        (y, x), and the common weight; `used` is False within ``size // 2`` of the border.
    size, background_order
        Of the kernel in pixels, and of the background polynomial.
    """
    half = size // 2
    inner = np.s_[half : science.shape[0] - half, half : science.shape[1] - half]
    ref = np.ascontiguousarray(reference, dtype=np.float64)
    part = _reference_part(ref, size, background_order)
    data = np.where(used, science, 0.0)[inner].astype(np.float64)
    terms = _background_terms((ref.shape[0], ref.shape[1]), half, background_order)
    vector = np.concatenate([_correlate(ref, data, size).ravel(), terms @ data.ravel()])
    gone = np.flatnonzero(~used[inner].ravel())
    rows = _design_rows(ref, terms, gone, size)
    full = np.block([[part.kernel, part.mixed], [part.mixed.T, part.background]]) - rows.T @ rows
    full, vector = _zero_sum(full, vector, size * size)
    full *= weight
    n_k = size * size
    return CutoutEquations(
        kernel=full[:n_k, :n_k][np.triu_indices(n_k)][None],
        mixed=full[None, :n_k, n_k:],
        background=full[None, n_k:, n_k:],
        vector=weight * vector[None],
        square=np.array([weight * float((data**2).sum())]),
        n_pixels=np.array([data.size - len(gone)], dtype=np.int64),
    )


def _reference_part(ref: Floats, size: int, background_order: int) -> _ReferencePart:
    """Computed once per reference image, and kept for the last few."""
    key = (blake2b(ref.tobytes(), digest_size=16).digest(), ref.shape, size, background_order)
    with _lock:
        if key in _cache:
            _cache.move_to_end(key)
            return _cache[key]
    part = _compute_reference_part(ref, size, background_order)
    with _lock:
        _cache[key] = part
        while len(_cache) > _CACHED:
            _cache.popitem(last=False)
    return part


def _compute_reference_part(ref: Floats, size: int, background_order: int) -> _ReferencePart:
    terms = _background_terms((ref.shape[0], ref.shape[1]), size // 2, background_order)
    shape = (ref.shape[0] - size + 1, ref.shape[1] - size + 1)
    mixed = [_correlate(ref, term.reshape(shape), size).ravel() for term in terms]
    kernel = np.zeros((size, size, size, size))
    in_parallel(lambda dy: _lag_products(ref, kernel, dy), range(size))
    flat = kernel.reshape(size * size, size * size)
    flat = np.triu(flat) + np.triu(flat, 1).T
    # The loops run in the order of shifted copies, the kernel in that of a convolution: one is the other reversed.
    return _ReferencePart(
        np.ascontiguousarray(flat[::-1, ::-1]),
        np.array(mixed).T.reshape(size * size, len(terms)),
        terms @ terms.T,
    )


@njit(fastmath=True, nogil=True, cache=True)
def _lag_products(ref: Floats, out: NDArray[np.float64], dy: int) -> None:
    """Elements ``out[a, b, a + dy, b + dx]`` for all a, b and dx of one row lag."""
    size = out.shape[0]
    ny, nx = ref.shape[0] - size + 1, ref.shape[1] - size + 1
    column = np.empty(ref.shape[1])
    for dx in range(-(size - 1), size):
        if dy == 0 and dx < 0:
            continue
        first, last = max(0, -dx), min(ref.shape[1], ref.shape[1] - dx)
        for a in range(size - dy):
            if a == 0:
                column[:] = 0.0
                for y in range(ny):
                    for x in range(first, last):
                        column[x] += ref[y, x] * ref[y + dy, x + dx]
            else:
                for x in range(first, last):
                    column[x] += ref[a + ny - 1, x] * ref[a + ny - 1 + dy, x + dx]
                    column[x] -= ref[a - 1, x] * ref[a - 1 + dy, x + dx]
            low, high = max(0, -dx), min(size, size - dx)
            total = 0.0
            for x in range(low, low + nx):
                total += column[x]
            for b in range(low, high):
                if b > low:
                    total += column[b + nx - 1] - column[b - 1]
                out[a, b, a + dy, b + dx] = total


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


def _design_rows(ref: Floats, terms: Floats, pixels: NDArray[np.int64], size: int) -> Floats:
    """Rows of the design matrix (pixel, parameter) of a few inner pixels."""
    windows = sliding_window_view(ref, (size, size))
    y, x = np.divmod(pixels, windows.shape[1])
    return np.concatenate([windows[y, x][:, ::-1, ::-1].reshape(len(pixels), size * size), terms[:, pixels].T], axis=1)


def _zero_sum(matrix: Floats, vector: Floats, n_kernel: int) -> tuple[Floats, Floats]:
    """From plain kernel pixels to the components of `delta_basis`: every pixel less the central one."""
    centre = n_kernel // 2
    others = np.r_[0:centre, centre + 1 : n_kernel]
    matrix[others] -= matrix[centre]
    matrix[:, others] -= matrix[:, centre : centre + 1]
    vector[others] -= vector[centre]
    return matrix, vector
