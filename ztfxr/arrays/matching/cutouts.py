"""Cut-outs that constrain a matching kernel: which ones, and the normal equations of each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ztfxr.arrays.matching.basis import KernelBasis
from ztfxr.arrays.polynomials import exponents, n_terms
from ztfxr.arrays.threads import in_parallel
from ztfxr.arrays.types import Bools, Floats

__all__ = ["CutoutEquations", "Cutouts", "equations", "star_cutouts", "tile_cutouts", "unit_position"]

Ints = NDArray[np.int64]

_BATCH_VALUES = 400_000


@dataclass(frozen=True)
class Cutouts:
    """Square windows of `size` pixels around central pixels `y`, `x` (array positions)."""

    y: Ints
    x: Ints
    size: int

    def __len__(self) -> int:
        return len(self.y)

    def windows(self, image: NDArray[Any], margin: int = 0) -> NDArray[Any]:
        """The pixels of every cut-out, with `margin` more on each side; copies, (cutout, y, x)."""
        n, half = self.size + 2 * margin, self.size // 2 + margin
        return sliding_window_view(image, (n, n))[self.y - half, self.x - half]

    def take(self, which: Ints) -> Cutouts:
        """Some of the cut-outs."""
        return Cutouts(self.y[which], self.x[which], self.size)


@dataclass(frozen=True)
class CutoutEquations:
    """``A p = b`` of each cut-out for kernel components followed by background terms.

    `kernel` (cutout, packed) holds the upper triangles of the kernel's part row by row, `mixed` (cutout, component,
    term) and `background` (cutout, term, term) the rest of A; `vector` (cutout, parameter) is b; `square` is yWy and
    `n_pixels` counts pixels with weight.
    """

    kernel: Floats
    mixed: Floats
    background: Floats
    vector: Floats
    square: Floats
    n_pixels: Ints

    @property
    def n_kernel(self) -> int:
        """Number of kernel components."""
        return int(self.mixed.shape[1])

    @property
    def n_background(self) -> int:
        """Number of background terms."""
        return int(self.mixed.shape[2])

    def chi2(self, parameters: Floats) -> Floats:
        """Reduced χ² of each cut-out for its own parameters (cutout, parameter)."""
        n = self.n_kernel
        p, q = np.ascontiguousarray(parameters[:, :n]), parameters[:, n:]
        total = self.square - 2.0 * np.einsum("ij,ij->i", parameters, self.vector)
        total += np.einsum("ij,ijk,ik->i", q, self.background, q)
        total += 2.0 * np.einsum("ij,ij->i", p, np.einsum("ijk,ik->ij", self.mixed, q))
        start = 0
        for i in range(n):
            row = self.kernel[:, start : start + n - i]
            total += p[:, i] * (2.0 * np.einsum("ij,ij->i", row, p[:, i:]) - row[:, 0] * p[:, i])
            start += n - i
        return np.asarray(np.maximum(total, 0.0) / np.maximum(self.n_pixels, 1))


def unit_position(position: NDArray[Any], size: int) -> Floats:
    """Pixel positions 0 … size − 1 mapped to [-1, 1]."""
    return (2.0 * np.asarray(position, dtype=float) - (size - 1)) / max(size - 1, 1)


def tile_cutouts(shape: tuple[int, int], margin: int, *, size: int) -> Cutouts:
    """Windows that cover an image but for `margin` pixels on each side, without overlap but at the far edges.

    Pixels that two windows share must be given to one of them: see `owned`.
    """
    centers = []
    for n in shape:
        starts = np.arange(margin, max(n - margin - size, margin) + size, size)
        starts = np.minimum(starts, max(n - margin - size, margin))
        centers.append(np.unique(starts) + size // 2)
    y, x = np.meshgrid(*centers, indexing="ij")
    return Cutouts(y.ravel(), x.ravel(), size)


def _owned(cutouts: Cutouts, weights: NDArray[Any], shape: tuple[int, int]) -> NDArray[Any]:
    """Weights of the cut-outs with pixels that an earlier cut-out has already set to zero."""
    owner = np.full(shape, -1, dtype=np.int64)
    half = cutouts.size // 2
    for c in range(len(cutouts) - 1, -1, -1):
        y0, x0 = cutouts.y[c] - half, cutouts.x[c] - half
        owner[y0 : y0 + cutouts.size, x0 : x0 + cutouts.size] = c
    return np.where(cutouts.windows(owner) == np.arange(len(cutouts))[:, None, None], weights, 0.0)


def star_cutouts(
    reference: NDArray[Any],
    bad: Bools,
    *,
    size: int,
    margin: int,
    noise: float,
    sky: float,
    maximum: int = 1000,
    grid: int = 10,
    min_snr: float = 10.0,
    saturation: float = np.inf,
) -> Cutouts:
    """Cut-outs around bright stars, evenly over the frame.

    Stars are local maxima of the reference above `min_snr` times its `noise`, below `saturation`, whose window lies
    inside the frame with its `margin` and whose center is good; the brightest ``maximum / grid**2`` of each cell of a
    grid are taken, one per `size` pixels at most.

    Parameters
    ----------
    reference, bad
        (y, x) image and mask.
    size, margin
        Pixels along a window's side, and what the kernel needs around it.
    noise, sky
        Standard deviation of a background pixel, and the background.
    maximum, grid
        Cut-outs at most, and cells along each side of the frame that share them.
    min_snr, saturation
        Limits of a star's peak: in units of the noise above the sky, and in pixel values.
    """
    y, x, peak = _peaks(reference, bad, size)
    reach = size // 2 + margin + 2
    inside = (y >= reach) & (y < reference.shape[0] - reach) & (x >= reach) & (x < reference.shape[1] - reach)
    useful = inside & (peak > sky + min_snr * noise) & (peak < saturation)
    y, x, peak = y[useful], x[useful], peak[useful]
    top = np.ones(len(y), dtype=bool)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            top &= (reference[y + dy, x + dx] <= peak) | bad[y + dy, x + dx]
    y, x, peak = y[top], x[top], peak[top]
    cell = (y * grid // reference.shape[0]) * grid + x * grid // reference.shape[1]
    order = np.lexsort((-peak, cell))
    first = np.r_[True, np.diff(cell[order]) > 0] if len(order) else np.zeros(0, bool)
    rank = np.arange(len(order)) - np.flatnonzero(first)[np.cumsum(first) - 1] if len(order) else order
    chosen = np.sort(order[rank < max(maximum // grid**2, 1)])
    return Cutouts(y[chosen].astype(np.int64), x[chosen].astype(np.int64), size)


def _peaks(image: NDArray[Any], bad: Bools, step: int) -> tuple[Ints, Ints, Floats]:
    """The brightest good pixel of each block of `step` pixels: rows, columns, values."""
    ny, nx = image.shape[0] // step, image.shape[1] // step
    crop = np.s_[: ny * step, : nx * step]
    clean = np.where(bad[crop], -np.inf, image[crop])
    blocks = clean.reshape(ny, step, nx, step).transpose(0, 2, 1, 3).reshape(ny, nx, step * step)
    best = blocks.argmax(axis=-1)
    y = np.arange(ny)[:, None] * step + best // step
    x = np.arange(nx)[None, :] * step + best % step
    return y.ravel(), x.ravel(), np.take_along_axis(blocks, best[..., None], axis=-1).ravel()


def equations(
    reference: NDArray[Any],
    science: NDArray[Any],
    weight: NDArray[Any],
    cutouts: Cutouts,
    basis: KernelBasis,
    *,
    background_order: int,
    tiles: bool = False,
) -> CutoutEquations:
    """Weighted normal equations of each cut-out (Bramich 2008, eq. 3-6, with the weights of both images).

    Parameters
    ----------
    reference, science, weight
        (y, x): finite images, and inverse variances that are 0 where a pixel must not be used.
    cutouts, basis
        Where, and what the kernel is made of.
    background_order
        Order of the background polynomial over the frame, -1 for none.
    tiles
        Give pixels that two cut-outs share to the first of them only.

    Notes
    -----
    Each cut-out is one product of a (parameter, pixel) matrix with itself, in double precision, over all cores.
    """
    weights = cutouts.windows(weight)
    if tiles:
        weights = _owned(cutouts, weights, (weight.shape[0], weight.shape[1]))
    n_k, n_b = basis.n_components, n_terms(background_order)
    out = CutoutEquations(
        kernel=np.empty((len(cutouts), n_k * (n_k + 1) // 2)),
        mixed=np.empty((len(cutouts), n_k, n_b)),
        background=np.empty((len(cutouts), n_b, n_b)),
        vector=np.empty((len(cutouts), n_k + n_b)),
        square=np.empty(len(cutouts)),
        n_pixels=np.asarray((weights > 0).sum(axis=(1, 2)), dtype=np.int64),
    )
    flat = np.ravel_multi_index(np.triu_indices(n_k), (n_k + n_b, n_k + n_b))
    step = max(1, _BATCH_VALUES // ((n_k + n_b) * cutouts.size**2))

    def batch(start: int) -> None:
        part = np.arange(start, min(start + step, len(cutouts)))
        some = cutouts.take(part)
        root = np.sqrt(weights[part].astype(np.float64))
        design = _design(reference, some, basis, background_order, root)
        data = (np.where(root > 0, some.windows(science), 0.0) * root).reshape(len(part), 1, -1)
        normal = design @ design.transpose(0, 2, 1)
        out.kernel[part] = normal.reshape(len(part), -1)[:, flat]
        out.mixed[part], out.background[part] = normal[:, :n_k, n_k:], normal[:, n_k:, n_k:]
        out.vector[part] = (design @ data.transpose(0, 2, 1))[..., 0]
        out.square[part] = (data**2).sum(axis=(1, 2))

    in_parallel(batch, range(0, len(cutouts), step))
    return out


def _design(
    reference: NDArray[Any], cutouts: Cutouts, basis: KernelBasis, background_order: int, root: Floats
) -> Floats:
    """The transposed, weighted design matrices of some cut-outs, (cutout, parameter, pixel)."""
    n, n_k = cutouts.size, basis.n_components
    design = np.empty((len(cutouts), n_k + n_terms(background_order), n * n))
    windows = cutouts.windows(reference, basis.size // 2)
    if basis.delta:
        _fill_delta(windows, root, basis.size, design)
    else:
        shifted = sliding_window_view(windows, (n, n), axis=(1, 2))[:, ::-1, ::-1]
        plain = shifted.reshape(len(cutouts), basis.size**2, n * n).astype(np.float64)
        design[:, :n_k] = (basis.matrix.T @ plain) * root.reshape(len(cutouts), 1, n * n)
    offset = np.arange(n) - n // 2
    v = unit_position(cutouts.y[:, None] + offset, reference.shape[0])
    u = unit_position(cutouts.x[:, None] + offset, reference.shape[1])
    for term, (i, j) in enumerate(exponents(background_order)):
        values = (v**j)[:, :, None] * (u**i)[:, None, :] * root
        design[:, n_k + term] = values.reshape(len(cutouts), n * n)
    return design


@njit(nogil=True, cache=True)
def _fill_delta(windows: NDArray[Any], root: Floats, size: int, design: Floats) -> None:
    """Shifted copies of the reference less the central one, the central one itself, times the root of the weight."""
    half, n = size // 2, root.shape[1]
    for c in range(windows.shape[0]):
        window, weight = windows[c], root[c]
        for a in range(size):
            for b in range(size):
                row = design[c, a * size + b]
                top, left = size - 1 - a, size - 1 - b
                central = a == half and b == half
                for y in range(n):
                    line, middle = window[y + top, left : left + n], window[y + half, half : half + n]
                    out, w = row[y * n : y * n + n], weight[y]
                    if central:
                        for x in range(n):
                            out[x] = w[x] * middle[x]
                    else:
                        for x in range(n):
                            out[x] = w[x] * (np.float64(line[x]) - np.float64(middle[x]))
