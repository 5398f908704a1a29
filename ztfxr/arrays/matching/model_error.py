"""What the error of a matching kernel does to the difference image."""

from __future__ import annotations

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from ztfxr.arrays.matching.spatial import SpatialKernel
from ztfxr.arrays.polynomials import polynomial_terms, unit_position
from ztfxr.arrays.types import Floats

__all__ = ["model_modes"]


def model_modes(template: NDArray[np.floating], solution: SpatialKernel) -> Floats:
    """The model's error as independent images of one standard deviation each.

    The model ``M = D p`` of a target is linear in the parameters p of kernel and background, so its covariance is
    ``D C Dᵀ = Σ_k M_k M_kᵀ``. Whatever is linear in the pixels, a sum in an aperture or a PSF fit of flux ``cᵀ M``,
    then has the variance ``Σ_k (cᵀ M_k)²``: measure the modes as the image is measured and add the squares. A variance
    per pixel could not say that, since errors of the model are alike over the size of what was convolved.

    Parameters
    ----------
    template
        The image that the kernel acts on (y, x), finite.
    solution
        The kernel and the equations it was solved from.

    Returns
    -------
    numpy.ndarray
        (mode, y, x), as many as parameters were solved for; pixels beyond the template count as zero.
    """
    ny, nx = template.shape
    design = _design(np.asarray(template, dtype=np.float64), solution).reshape(-1, ny * nx)[solution.free]
    return solution.half_covariance(design.T).reshape(-1, ny, nx)


def _design(template: Floats, solution: SpatialKernel) -> Floats:
    """The model's derivatives by all its parameters: (parameter, y, x), of the kernel (term, component) and of the
    background.
    """
    ny, nx = template.shape
    size = solution.basis.size
    shifted = sliding_window_view(np.pad(template, size // 2), (ny, nx))[::-1, ::-1].reshape(size**2, ny * nx)
    parts = (solution.basis.matrix.T @ shifted).reshape(-1, ny, nx)
    v, u = unit_position(np.arange(ny), ny)[:, None], unit_position(np.arange(nx), nx)[None, :]
    kernel_terms, background_terms = (
        np.moveaxis(polynomial_terms(v, u, order), -1, 0) for order in (solution.basis.order, solution.background_order)
    )
    kernel = kernel_terms[:, None] * parts[None]
    return np.concatenate([kernel.reshape(-1, ny, nx), background_terms])
