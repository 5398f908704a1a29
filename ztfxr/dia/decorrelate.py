"""Difference images with white noise."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.matching.decorrelate import decorrelated, effective_psf, variance_ratio, whitening_kernel
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia.kernel_frame import local_coefficients
from ztfxr.dia.pair import number_or_array
from ztfxr.errors import InputError
from ztfxr.ops.exposure import gather
from ztfxr.ops.mapping import map_images
from ztfxr.schema import annotate_all

__all__ = ["decorrelate"]

_PSF = ("psf_y", "psf_x")
_NEEDED = ("difference", "difference_variance", "mask", "science_convolved", "epoch_status")
_LEAST_SHARE = 0.01


def decorrelate(
    diff: xr.Dataset,
    *,
    science_variance: xr.DataArray | float | None = None,
    reference_variance: xr.DataArray | float | None = None,
    psf: xr.DataArray | None = None,
    size: int = 15,
) -> xr.Dataset:
    """Whiten the noise that the matching kernel left correlated in difference images; lazy, one epoch a task.

    Parameters
    ----------
    diff
        The result of `ztfxr.difference`, one epoch or a stack.
    science_variance, reference_variance
        Variance of the science image and of the reference before it was convolved, in the square of the image's unit:
        numbers, or maps (y, x) or (time, y, x) whose median over good pixels counts. Only their ratio matters. Where
        one is missing it follows from `difference_variance`; where both are, the ratio is measured on the correlation
        of the difference's own noise.
    psf
        PSF of the science image, (psf_y, psf_x) or (time, psf_y, psf_x), odd; adds `psf_difference`.
    size
        Pixels along the side of the whitening kernel, odd. The outermost ``size // 2`` rows and columns are lost.

    Returns
    -------
    xarray.Dataset
        `diff` with `difference`, `difference_variance` and `mask` replaced, and `decorrelation_kernel` (phi_y, phi_x)
        at the image's center. The whitening kernel sums to 1: fluxes stay on the science scale, in the effective PSF
        `psf_difference`, which is the PSF convolved with it (and with the matching kernel, where `science_convolved`).
        `model_error`, which is of the difference as it was, is left out. Masked pixels enter as zero and the mask grows
        by what the kernel reaches; NaN where `mask` is True. An epoch without a difference stays as it is; one whose
        noise cannot be measured is NaN with the status ``too_few_pixels``.

    Raises
    ------
    InputError
        `diff` is no difference or has been decorrelated before; `size` or the PSF's sides are even.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Reiss & Lupton 2016, LSST DMTN-021; see `ztfxr.arrays.matching.decorrelate.whitening_kernel`. A kernel that varies
    over the image is whitened by one that varies with it. Up to the varying kernel this is the proper difference image
    D / F_D of Zackay, Ofek & Gal-Yam 2016 with the science PSF taken to be reference PSF ⊗ kernel. The noise of both
    images is assumed white before the convolution; that of a resampled image is not.
    """
    _check(diff, size, psf)
    exposure = gather(diff, name="difference")
    inputs = {
        "difference": exposure.image,
        "variance": exposure.own_variance,
        "bad": exposure.bad,
        "science_convolved": diff["science_convolved"],
        "kernel": local_coefficients(diff),
        "science_variance": number_or_array(science_variance),
        "reference_variance": number_or_array(reference_variance),
        "psf": psf,
    }
    outputs = [name for name in _Results._fields if name != "psf_difference" or psf is not None]
    found = map_images(_whitened, inputs, outputs, sizes={"phi_y": size, "phi_x": size}, options={"size": size})
    dims = exposure.image.dims
    for name in ("difference", "difference_variance", "mask"):
        found[name] = found[name].transpose(..., *dims)
    before = diff["epoch_status"]
    # An epoch that had no difference says why already.
    found["epoch_status"] = before.where(before != 0, found["epoch_status"])
    offset = np.arange(size) - size // 2
    out = (
        diff.drop_vars(["model_error", "convolved_share"], errors="ignore")
        .assign(found)
        .assign_coords(phi_y=offset, phi_x=offset)
    )
    return annotate_all(out, unit=exposure.unit)


def _check(diff: xr.Dataset, size: int, psf: xr.DataArray | None) -> None:
    missing = [n for n in _NEEDED if n not in diff] + ["kernel_coeff"] * ("kernel" not in diff)
    if missing:
        raise InputError(f"decorrelate needs the Dataset that ztfxr.difference returns; without {', '.join(missing)}")
    if "decorrelation_kernel" in diff:
        raise InputError("this difference has been decorrelated already: its noise is white")
    if size < 1 or size % 2 == 0:
        raise InputError(f"size must be odd, so that the kernel has a center; got {size}: use {size + 1}")
    if psf is not None:
        require_psf(psf)


def require_psf(psf: xr.DataArray, name: str = "psf") -> None:
    """Raise `InputError` where a PSF has not the dims psf_y and psf_x, of odd lengths."""
    if not set(_PSF) <= set(psf.dims) or any(psf.sizes[d] % 2 == 0 for d in _PSF):
        raise InputError(
            f"{name} has the dimensions (psf_y, psf_x), perhaps after time, of odd lengths; got {dict(psf.sizes)}"
        )


class _Results(NamedTuple):
    """What is found of one difference, by the names of the schema."""

    difference: NDArray[np.float32]
    difference_variance: NDArray[np.float32]
    mask: Bools
    decorrelation_kernel: Floats
    epoch_status: int
    psf_difference: Floats | None


def _whitened(
    *,
    difference: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    science_convolved: Bools,
    kernel: Floats,
    science_variance: NDArray[Any] | None,
    reference_variance: NDArray[Any] | None,
    psf: NDArray[Any] | None,
    size: int,
) -> _Results:
    """Whiten one difference (y, x); raises `NoSolutionError` where there is none, or its noise cannot be measured."""
    bad = bad | ~np.isfinite(difference) | ~(variance > 0)
    if bad.all() or not np.isfinite(kernel).all():
        raise NoSolutionError("too_few_pixels")
    scale = float(kernel[0].sum()) if science_convolved else 1.0
    kernels = kernel / scale
    convolved, other = _typical(reference_variance, bad), _typical(science_variance, bad)
    if science_convolved:
        convolved, other = other, None if convolved is None else convolved / scale**2
    if convolved is None and other is None:
        ratio = variance_ratio(difference, variance, bad, kernels[0])
    else:
        ratio = _ratio(convolved, other, float(np.median(variance[~bad])), float((kernels[0] ** 2).sum()))
    if not np.isfinite(ratio):
        raise NoSolutionError("too_few_pixels")
    white = decorrelated(difference, variance, bad, kernels, ratio=ratio, size=size)
    center = whitening_kernel(kernels[0], ratio, size)
    acting = (center, kernels[0]) if science_convolved else (center,)
    spread = None if psf is None else effective_psf(psf, *acting)
    return _Results(white.difference, white.variance, white.bad, center, 0, spread)


def _typical(variance: NDArray[Any] | None, bad: Bools) -> float | None:
    """The typical variance of a map over good pixels, or the number itself; None where it is not known."""
    if variance is None:
        return None
    value = float(np.nanmedian(variance[~bad])) if variance.ndim == 2 else float(variance)
    return value if np.isfinite(value) else None


def _ratio(convolved: float | None, other: float | None, total: float, square: float) -> float:
    """Variance of the convolved image over the other's; a missing one from `total`, that of the difference."""
    if convolved is None:
        convolved = (total - (other or 0.0)) / square
    if other is None:
        other = total - convolved * square
    return max(convolved, 0.0) / max(other, _LEAST_SHARE * total)
