"""Difference images with white noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.matching.decorrelate import decorrelated, effective_psf, noise_ratio, whitening_kernel
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits

__all__ = ["decorrelate"]


_PSF = ("psf_y", "psf_x")
_OUTPUTS: dict[str, tuple[str, ...]] = {
    "difference": IMAGE,
    "difference_variance": IMAGE,
    "mask": IMAGE,
    "decorrelation_kernel": ("phi_y", "phi_x"),
    "epoch_status": (),
}
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
        What `ztfxr.difference` returned, one epoch or a stack.
    science_variance, reference_variance
        Variance in DN² of the science image and of the reference before it was convolved: numbers, or maps (y, x) or
        (time, y, x) whose median over good pixels counts. Only their ratio matters. Where one is missing it follows
        from `difference_variance`; where both are, the ratio is measured on the correlation of the difference's own
        noise.
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
    Reiss & Lupton 2016, LSST DMTN-021; see `ztfxr.arrays.decorrelate.whitening_kernel`. A kernel that varies over the
    image is whitened by one that varies with it. Up to the varying kernel this is the proper difference image
    D / F_D of Zackay, Ofek & Gal-Yam 2016 with the science PSF taken to be reference PSF ⊗ kernel. The noise of both
    images is assumed white before the convolution; that of a resampled image is not.
    """
    _check(diff, size, psf)
    kernel = diff["kernel"].expand_dims("kterm")
    if "kernel_coeff" in diff:
        kernel = diff["kernel_coeff"]
        kernel = KernelFrame.of(diff).coefficients_of(diff, kernel) if "frame" in diff.attrs else kernel
    levels = [_bare(v) for v in (science_variance, reference_variance)]
    inputs = [diff[n] for n in _NEEDED] + [kernel, *levels, _bare(psf)]
    core = [IMAGE, IMAGE, IMAGE, (), (), ("kterm", "ky", "kx"), *(_core(v) for v in inputs[-3:])]
    outputs = _OUTPUTS if psf is None else {**_OUTPUTS, "psf_difference": _PSF}
    sizes = {"phi_y": size, "phi_x": size}
    found = apply_images(_one_epoch, *inputs, inputs=core, outputs=outputs, sizes=sizes, kwargs={"size": size})
    dims = diff["difference"].dims
    images = {k: v.transpose(*dims) if outputs[k] == IMAGE else v for k, v in found.items()}
    offset = np.arange(size) - size // 2
    kept = diff.drop_vars("model_error", errors="ignore")
    return annotate_all(kept.assign(images).assign_coords(phi_y=offset, phi_x=offset))


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


def _bare(value: xr.DataArray | float | None) -> xr.DataArray:
    """A DataArray without coordinates but time; NaN for what is not given."""
    if not isinstance(value, xr.DataArray):
        return xr.DataArray(np.nan if value is None else float(value))
    return value.drop_vars([k for k in value.coords if k != "time" or "time" not in value.dims])


def _core(array: xr.DataArray) -> tuple[str, ...]:
    """The core dimensions that an optional input has."""
    return next((dims for dims in (IMAGE, _PSF) if set(dims) <= set(array.dims)), ())


def _one_epoch(
    difference: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    science_convolved: Bools,
    status: NDArray[np.uint32],
    coefficients: Floats,
    science_variance: NDArray[Any],
    reference_variance: NDArray[Any],
    psf: NDArray[Any],
    *,
    size: int,
) -> tuple[Any, ...]:
    """Whiten one difference; arrays in, the values of `_OUTPUTS` and the effective PSF out."""
    bad = bad | ~np.isfinite(difference) | ~(variance > 0)
    if bad.all() or not np.isfinite(coefficients).all():
        return _nothing(difference.shape, size, psf, int(status))
    kernels = coefficients / coefficients[0].sum() if science_convolved else coefficients
    convolved, other = _level(reference_variance, bad), _level(science_variance, bad)
    if science_convolved:
        convolved, other = other, convolved / float(coefficients[0].sum()) ** 2
    ratio = _ratio(convolved, other, float(np.median(variance[~bad])), float((kernels[0] ** 2).sum()))
    if not np.isfinite(ratio):
        ratio = noise_ratio(difference, bad, kernels[0])
    if not np.isfinite(ratio):
        return _nothing(difference.shape, size, psf, int(status) | planes_to_bits(["too_few_pixels"], STATUS_PLANES))
    white = decorrelated(difference, variance, bad, kernels, ratio=ratio, size=size)
    center = whitening_kernel(kernels[0], ratio, size)
    acting = (center, kernels[0]) if science_convolved else (center,)
    spread = effective_psf(psf, *acting) if psf.ndim == 2 else psf
    return white.difference, white.variance, white.bad, center, np.uint32(status), spread


def _level(variance: NDArray[Any], bad: Bools) -> float:
    """The typical variance of a map over good pixels, or the number itself."""
    return float(np.nanmedian(variance[~bad])) if variance.ndim == 2 else float(variance)


def _ratio(convolved: float, other: float, total: float, square: float) -> float:
    """Variance of the convolved image over the other's; a missing one from `total`, that of the difference."""
    if np.isnan(convolved):
        convolved = (total - other) / square
    elif np.isnan(other):
        other = total - convolved * square
    return max(convolved, 0.0) / max(other, _LEAST_SHARE * total)


def _nothing(shape: tuple[int, ...], size: int, psf: NDArray[Any], status: int) -> tuple[Any, ...]:
    nan = np.full(shape, np.nan, dtype=np.float32)
    kernel, spread = np.full((size, size), np.nan), np.full(psf.shape, np.nan)
    return nan, nan, np.ones(shape, dtype=bool), kernel, np.uint32(status), spread
