"""Normal equations of a reference that is noisy itself: what they say of the kernel once its noise is taken off."""

from __future__ import annotations

import numpy as np
from scipy import linalg

from ztfxr.arrays.types import Floats

__all__ = ["dilution", "undiluted"]

_SCATTER = 3.0


def undiluted(matrix: Floats, noise: Floats, vector: Floats, n_pixels: int, n_kernel: int) -> tuple[Floats, Floats]:
    """Information and right-hand side that the noise of the reference does not pull toward zero.

    Parameters
    ----------
    matrix, vector
        Of the weighted least squares, ``A p = b``.
    noise
        What the noise of the reference adds to A on average, N.
    n_pixels, n_kernel
        Pixels that A sums up, and kernel components: they say how far the sum for N scatters about its mean.

    Notes
    -----
    With ``A' = A - N``, ``b - A' p`` has zero mean and covariance A at the true p, so that ``A' A⁻¹ A'`` is the
    information on p and ``A' A⁻¹ b`` its right-hand side. In directions where the reference holds no light, A' is
    nothing but the scatter of the noise. A is a sum over lags, so that its eigenvalues are about those of a power
    spectrum of as many lags as the kernel has, and the largest of `n_kernel` lies some ``3 √(n_kernel / n_pixels)``
    off, relative to N. Such directions would still dilute the kernel, and count as no information.
    """
    edge = _SCATTER * np.sqrt(n_kernel / max(n_pixels, 1))
    regular = matrix.copy()
    diagonal = np.diag_indices_from(regular)
    regular[diagonal] *= 1.0 + 1e-12
    values, vectors = linalg.eigh(matrix - noise, regular, check_finite=False)
    values = np.where(values > edge / (1.0 + edge), np.minimum(values, 1.0), 0.0)
    own = regular @ vectors
    return (own * values**2) @ own.T, own @ (values * (vectors.T @ vector))


def dilution(matrix: Floats, noise: Floats, vector: Floats, carrier: Floats) -> tuple[float, float, float]:
    """A sum over the parameters by plain least squares, its error, and how far the reference's noise pulls it.

    `carrier` weighs the parameters in the sum.
    """
    factor = linalg.cho_factor(matrix, check_finite=False)
    parameters, row = linalg.cho_solve(factor, vector), linalg.cho_solve(factor, carrier)
    pull = float(row @ (noise @ parameters))
    return float(carrier @ parameters), float(np.sqrt(max(carrier @ row, 0.0))), pull
