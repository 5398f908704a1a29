"""Cut-outs that constrain a matching kernel: which ones, and the normal equations of each."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np
from numba import njit
from numpy.lib.stride_tricks import sliding_window_view

from ztfxr.arrays.images.windows import Cutouts
from ztfxr.arrays.matching.basis import KernelBasis
from ztfxr.arrays.polynomials import exponents, n_terms, unit_position
from ztfxr.arrays.threads import in_parallel
from ztfxr.arrays.types import Floats, Ints, Numbers

__all__ = ["CutoutEquations", "equations", "tile_cutouts"]


_BATCH_VALUES = 400_000


@dataclass(frozen=True)
class CutoutEquations:
    """``A p = b`` of each cut-out for kernel components followed by background terms.

    `kernel` (cutout, packed) holds the upper triangles of the kernel's part row by row, `mixed` (cutout, component,
    term) and `background` (cutout, term, term) the rest of A; `vector` (cutout, parameter) is b; `square` is yWy and
    `n_pixels` counts pixels with weight. `noise` (cutout, kernel pixel) is what the noise of the reference adds to A,
    on the diagonal of plain kernel pixels; (cutout, 0) where it is not told.
    """

    kernel: Floats
    mixed: Floats
    background: Floats
    vector: Floats
    square: Floats
    n_pixels: Ints
    noise: Floats

    def take(self, which: Ints) -> CutoutEquations:
        """Those of some of the cut-outs."""
        return CutoutEquations(*(getattr(self, f.name)[which] for f in fields(self)))

    def limited(self, background_order: int) -> CutoutEquations:
        """The same with a background of a lower order."""
        n = n_terms(background_order)
        return replace(
            self,
            mixed=self.mixed[:, :, :n],
            background=self.background[:, :n, :n],
            vector=self.vector[:, : self.n_kernel + n],
        )

    @property
    def n_kernel(self) -> int:
        """Number of kernel components."""
        return int(self.mixed.shape[1])

    @property
    def n_background(self) -> int:
        """Number of background terms."""
        return int(self.mixed.shape[2])

    def chi2_and_light(self, parameters: Floats) -> tuple[Floats, Floats]:
        """Reduced χ² of each cut-out for its own parameters (cutout, parameter), and the light that it holds: the
        variance of the convolved reference in units of that of the noise.
        """
        n = self.n_kernel
        p, q = np.ascontiguousarray(parameters[:, :n]), parameters[:, n:]
        total = self.square - 2.0 * np.einsum("ij,ij->i", parameters, self.vector)
        total += np.einsum("ij,ijk,ik->i", q, self.background, q)
        total += 2.0 * np.einsum("ij,ij->i", p, np.einsum("ijk,ik->ij", self.mixed, q))
        square = self._kernel_square(p)
        light = square.copy()
        if q.shape[1]:
            level = np.einsum("ij,ij->i", p, self.mixed[:, :, 0])
            light -= level**2 / np.maximum(self.background[:, 0, 0], 1e-300)
        n_pixels = np.maximum(self.n_pixels, 1)
        return np.maximum(total + square, 0.0) / n_pixels, np.maximum(light, 0.0) / n_pixels

    def _kernel_square(self, parameters: Floats) -> Floats:
        """The weighted sum of the squares of the convolved reference."""
        total, start, n = np.zeros(len(parameters)), 0, self.n_kernel
        for i in range(n):
            row, first = self.kernel[:, start : start + n - i], parameters[:, i]
            total += first * (2.0 * np.einsum("ij,ij->i", row, parameters[:, i:]) - row[:, 0] * first)
            start += n - i
        return total


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


def _owned(cutouts: Cutouts, weights: Numbers, shape: tuple[int, int]) -> Numbers:
    """Weights of the cut-outs with pixels that an earlier cut-out has already set to zero."""
    owner = np.full(shape, -1, dtype=np.int64)
    half = cutouts.size // 2
    for c in range(len(cutouts) - 1, -1, -1):
        y0, x0 = cutouts.y[c] - half, cutouts.x[c] - half
        owner[y0 : y0 + cutouts.size, x0 : x0 + cutouts.size] = c
    return np.where(cutouts.windows(owner) == np.arange(len(cutouts))[:, None, None], weights, 0.0)


def equations(
    reference: Numbers,
    science: Numbers,
    weight: Numbers,
    cutouts: Cutouts,
    basis: KernelBasis,
    *,
    background_order: int,
    tiles: bool = False,
    noise: Numbers | None = None,
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
    noise
        Variance of the reference.

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
        noise=np.empty((len(cutouts), 0 if noise is None else basis.size**2)),
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
        if noise is not None:
            _noise_sums(some.windows(noise, basis.size // 2), weights[part], out.noise[part[0] : part[-1] + 1])

    in_parallel(batch, range(0, len(cutouts), step))
    return out


def _design(reference: Numbers, cutouts: Cutouts, basis: KernelBasis, background_order: int, root: Floats) -> Floats:
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
def _fill_delta(windows: Numbers, root: Floats, size: int, design: Floats) -> None:
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


@njit(nogil=True, cache=True)
def _noise_sums(variances: Numbers, weights: Numbers, out: Floats) -> None:
    """Weighted sums of the reference's variance at each kernel pixel, in the order of a convolution."""
    n = weights.shape[1]
    size = variances.shape[1] - n + 1
    for c in range(variances.shape[0]):
        variance, weight = variances[c], weights[c]
        for a in range(size):
            for b in range(size):
                total = 0.0
                for y in range(n):
                    line, row = variance[y + size - 1 - a], weight[y]
                    for x in range(n):
                        total += line[x + size - 1 - b] * row[x]
                out[c, a * size + b] = total
