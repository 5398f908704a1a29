"""PSF matching of two images by a delta-function kernel and a polynomial background.

The model of the science image is ``convolve(reference, kernel) + background`` (Bramich 2008, MNRAS 386, L77, eq. 1-4,
with per-pixel weights). One value per kernel pixel is free, so sub-pixel shifts need no resampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy import linalg, ndimage

__all__ = [
    "KernelSolution",
    "NormalEquations",
    "accumulate",
    "convolve",
    "footprint_mask",
    "n_terms",
    "polynomial",
    "polynomial_terms",
    "smoothing_matrix",
    "solve",
]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_BLOCK_VALUES = 4_000_000


@dataclass(frozen=True)
class NormalEquations:
    """``A p = b`` for kernel pixels followed by background terms, with ``yWy`` and the pixels counted."""

    matrix: Floats
    vector: Floats
    square: float
    n_pixels: int


@dataclass(frozen=True)
class KernelSolution:
    """A solved kernel: values, covariance and how well the equations were conditioned."""

    parameters: Floats
    covariance: Floats
    size: int
    chi2: float
    condition: float
    n_pixels: int

    @property
    def kernel(self) -> Floats:
        """The kernel in the convolution convention, (size, size)."""
        return self.parameters[: self.size**2].reshape(self.size, self.size)

    @property
    def kernel_err(self) -> Floats:
        """Standard error of each kernel pixel."""
        return np.sqrt(np.diag(self.covariance)[: self.size**2]).reshape(self.size, self.size)

    @property
    def kernel_sum(self) -> tuple[float, float]:
        """The sum of the kernel, which is the photometric scale, and its standard error."""
        block = self.covariance[: self.size**2, : self.size**2]
        return float(self.kernel.sum()), float(np.sqrt(max(block.sum(), 0.0)))

    @property
    def background(self) -> Floats:
        """Coefficients of the background polynomial."""
        return self.parameters[self.size**2 :]

    @property
    def background_err(self) -> Floats:
        """Standard errors of the background coefficients."""
        return np.asarray(np.sqrt(np.diag(self.covariance)[self.size**2 :]))


def n_terms(order: int) -> int:
    """Terms of a 2-D polynomial of total degree `order`; none for order -1."""
    return (order + 1) * (order + 2) // 2


def polynomial_terms(v: Floats, u: Floats, order: int) -> Floats:
    """``u**i * v**j`` with i + j <= order, stacked on a last axis; u, v in [-1, 1] along x and y."""
    terms = [u**i * v**j for i in range(order + 1) for j in range(order + 1 - i)]
    return np.stack(np.broadcast_arrays(*terms), axis=-1) if terms else np.empty((*np.shape(u), 0))


def _unit_axis(size: int) -> Floats:
    """Pixel positions 0 … size − 1 mapped to [-1, 1]."""
    return (2.0 * np.arange(size) - (size - 1)) / max(size - 1, 1)


def polynomial(shape: tuple[int, int], coefficients: Floats) -> Floats:
    """The background polynomial on an image of `shape`."""
    order = 0
    while n_terms(order) < len(coefficients):
        order += 1
    if len(coefficients) == 0:
        return np.zeros(shape)
    v, u = _unit_axis(shape[0]), _unit_axis(shape[1])
    image = np.zeros(shape)
    pairs = [(i, j) for i in range(order + 1) for j in range(order + 1 - i)]
    for c, (i, j) in zip(coefficients, pairs, strict=True):
        image += c * np.outer(v**j, u**i)
    return image


def footprint_mask(bad: Bools, size: int) -> Bools:
    """Where a kernel of `size` pixels touches a bad reference pixel or leaves the image."""
    grown = ndimage.maximum_filter(bad, size=size, mode="constant", cval=True)
    return np.asarray(grown, dtype=bool)


def accumulate(reference: Floats, science: Floats, weight: Floats, *, size: int, order: int) -> NormalEquations:
    """Weighted normal equations over every pixel with positive weight.

    Parameters
    ----------
    reference, science
        (y, x) images, finite everywhere that `weight` reaches with the kernel's footprint.
    weight
        (y, x) inverse variances, 0 where the pixel is not used; must be 0 within ``size // 2`` of the border.
    size
        Kernel size in pixels, odd.
    order
        Order of the background polynomial, -1 for none.

    Notes
    -----
    The design matrix is built for blocks of pixels only, and its product taken by BLAS; a pixel of zero
    weight costs nothing.
    """
    half, n_kernel = size // 2, size * size
    n_parameters = n_kernel + n_terms(order)
    upper, vector, square = np.zeros((n_parameters, n_parameters), order="F"), np.zeros(n_parameters), 0.0
    windows = sliding_window_view(reference, (size, size))
    v, u = _unit_axis(science.shape[0]), _unit_axis(science.shape[1])
    rows, columns = np.nonzero(weight > 0)
    step = max(_BLOCK_VALUES // n_parameters, 1)
    for start in range(0, len(rows), step):
        r, c = rows[start : start + step], columns[start : start + step]
        root = np.sqrt(weight[r, c])
        block = np.empty((len(r), n_parameters))
        block[:, :n_kernel] = windows[r - half, c - half].reshape(len(r), n_kernel)
        block[:, n_kernel:] = polynomial_terms(v[r], u[c], order)
        block *= root[:, None]
        data = science[r, c] * root
        upper = linalg.blas.dsyrk(1.0, block.T, beta=1.0, c=upper, overwrite_c=True)
        vector += block.T @ data
        square += float(data @ data)
    matrix = np.triu(upper) + np.triu(upper, 1).T
    flip = np.r_[np.arange(n_kernel)[::-1], np.arange(n_kernel, n_parameters)]
    return NormalEquations(matrix[np.ix_(flip, flip)], vector[flip], square, len(rows))


def smoothing_matrix(size: int) -> Floats:
    """``LᵀL`` of the discrete Laplacian on a kernel of `size` pixels (Becker et al. 2012, MNRAS 425, 1341, eq. 19)."""
    second = 2.0 * np.eye(size) - np.eye(size, k=1) - np.eye(size, k=-1)
    laplacian = np.kron(second, np.eye(size)) + np.kron(np.eye(size), second)
    return np.asarray(laplacian.T @ laplacian)


def solve(equations: NormalEquations, size: int, *, smoothing: float = 0.0) -> KernelSolution:
    """Solve the normal equations by Cholesky factorisation of the scaled matrix.

    `smoothing` is the weight of the squared Laplacian of the kernel relative to the mean diagonal of the kernel block.
    The covariance is that of the (smoothed) estimator: ``H⁻¹ A H⁻¹`` with ``H = A + λ LᵀL``.

    Raises
    ------
    numpy.linalg.LinAlgError
        The matrix is not positive definite: too few pixels, or none with signal.
    """
    n_kernel = size * size
    hessian = equations.matrix.copy()
    if smoothing > 0:
        penalty = smoothing_matrix(size)
        ratio = np.trace(hessian[:n_kernel, :n_kernel]) / np.trace(penalty)
        hessian[:n_kernel, :n_kernel] += smoothing * ratio * penalty
    diagonal = np.diag(hessian)
    if not np.all(np.isfinite(diagonal)) or np.any(diagonal <= 0):
        raise np.linalg.LinAlgError("a kernel pixel or background term is not constrained by any data")
    scale = 1.0 / np.sqrt(diagonal)
    scaled = hessian * scale[:, None] * scale[None, :]
    factor = linalg.cho_factor(scaled, lower=True, check_finite=False)
    inverse = linalg.cho_solve(factor, np.eye(len(scale)), check_finite=False)
    condition = float(np.linalg.norm(scaled, 1) * np.linalg.norm(inverse, 1))
    parameters = scale * linalg.cho_solve(factor, scale * equations.vector, check_finite=False)
    inverse *= scale[:, None] * scale[None, :]
    covariance = inverse @ equations.matrix @ inverse if smoothing > 0 else inverse
    residual = equations.square - 2.0 * parameters @ equations.vector + parameters @ equations.matrix @ parameters
    chi2 = max(float(residual), 0.0) / max(equations.n_pixels - len(parameters), 1)
    return KernelSolution(parameters, covariance, size, chi2, condition, equations.n_pixels)


def convolve(image: NDArray[Any], kernel: Floats) -> Floats:
    """``convolve(image, kernel)`` of the same shape, zero outside; direct for small images, by FFT for large."""
    from scipy import signal

    return np.asarray(signal.oaconvolve(image, kernel, mode="same"))
