"""PSFs as data: evaluated anywhere, and handed to array code with the kernels of difference images."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike, NDArray

from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.psf.convolved import DifferenceKernel, Side
from ztfxr.arrays.psf.model import PSFModel, grid_offsets, psf_stamps, resample_stamp
from ztfxr.arrays.stamps import trim
from ztfxr.arrays.types import Floats
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.errors import InputError
from ztfxr.ops.mapping import map_images
from ztfxr.schema import annotate

__all__ = ["PSF", "KernelInputs", "PSFInputs", "psf_at", "psf_model"]

PSF: TypeAlias = xr.Dataset | xr.DataArray
Inputs: TypeAlias = Mapping[str, xr.DataArray | None]

_STAMP = ("psf_y", "psf_x")
_STAMP_OVERSAMPLING = 4


@dataclass(frozen=True)
class PSFInputs:
    """A PSF as inputs of a mapped function, which makes a model of them with `psf_model`.

    Parameters
    ----------
    arrays
        The arguments of `psf_model` by name.
    oversampling
        Nodes of the grid per pixel.
    reach
        Pixels from the center to the edge of the grid, rounded up.
    status
        What happened to each epoch's PSF, as bit planes; None where that is not known.
    """

    arrays: Inputs
    oversampling: int
    reach: int
    status: xr.DataArray | None

    @classmethod
    def of(cls, psf: PSF) -> PSFInputs:
        """A PSF of `build_psf` or `read_psf`, or a stamp (..., psf_y, psf_x) with one value per pixel.

        Raises `InputError` for anything else.
        """
        if isinstance(psf, xr.Dataset) and "psf_coeff" in psf:
            arrays = {name: psf.get(f"psf_{name}") for name in ("coeff", "origin", "scale", "flux_cov")}
            k, side = _oversampling(psf), max(psf.sizes["psf_dy"], psf.sizes["psf_dx"])
            return cls(arrays, k, -(-(side // 2) // k), psf.get("epoch_status"))
        if isinstance(psf, xr.DataArray) and set(_STAMP) <= set(psf.dims) and all(psf.sizes[d] % 2 for d in _STAMP):
            labels = [d for d in _STAMP if d in psf.coords]
            reach = max(psf.sizes[d] for d in _STAMP) // 2
            return cls({"stamp": psf.drop_vars(labels)}, 1, reach, psf.coords.get("epoch_status"))
        found = f"{dict(psf.sizes)}" if isinstance(psf, xr.DataArray | xr.Dataset) else type(psf).__name__
        raise InputError(
            "a PSF is a Dataset of ztfxr.build_psf or ztfxr.read_psf, or a stamp with dimensions (psf_y, psf_x) of odd "
            f"lengths; got {found}"
        )


def _oversampling(psf: xr.Dataset) -> int:
    """Nodes per pixel, from the offsets of the grid."""
    for name in ("psf_dy", "psf_dx"):
        offset = np.asarray(psf[name].values, dtype=float)
        k = round(1.0 / float(np.diff(offset).mean())) if offset.size > 1 else 0
        if k < 1 or offset.size % 2 == 0 or not np.allclose(offset, grid_offsets(offset.size, k), atol=1e-6):
            raise InputError(f"{name} must count in equal parts of a pixel, with 0 in the middle")
    return k


def psf_model(
    oversampling: int,
    *,
    coeff: NDArray[Any] | None = None,
    origin: Floats | None = None,
    scale: Floats | None = None,
    flux_cov: Floats | None = None,
    stamp: NDArray[Any] | None = None,
) -> PSFModel:
    """The model of one image from the arrays of `PSFInputs`; `NoSolutionError` where there is no PSF.

    Parameters
    ----------
    oversampling
        Nodes of the grid per pixel.
    coeff, origin, scale
        Values (term, y, x) at the nodes, and the zero and the unit (y, x) of the polynomials' coordinates.
    flux_cov
        Covariance (term, term) of the relative error of fluxes; None, or NaN, where it is not known.
    stamp
        In place of all these, a PSF (y, x) with one value per pixel.
    """
    if stamp is not None:
        oversampling, values = _STAMP_OVERSAMPLING, resample_stamp(_finite(stamp), _STAMP_OVERSAMPLING)[None]
    else:
        values = _finite(coeff)
    used = [t for t in range(len(values)) if np.any(values[t])]
    if not used:
        raise NoSolutionError("solve_failed")
    highest = next(n for n in (n_terms(order) for order in range(99)) if n > used[-1])
    values = trim(values[:highest], keep=oversampling)
    if origin is None or scale is None:
        return PSFModel.of(values, oversampling)
    model = PSFModel.of(values, oversampling, (float(origin[0]), float(origin[1])), (float(scale[0]), float(scale[1])))
    return model if flux_cov is None or not np.isfinite(flux_cov).all() else replace(model, flux_cov=flux_cov)


def _finite(values: NDArray[Any] | None) -> Floats:
    if values is None or not np.isfinite(values).all():
        raise NoSolutionError("solve_failed")
    return np.asarray(values, dtype=np.float64)


@dataclass(frozen=True)
class KernelInputs:
    """The kernel of a difference as inputs of a mapped function, which makes a `DifferenceKernel` of them.

    Parameters
    ----------
    arrays
        The arguments of `DifferenceKernel.of` by name.
    frame
        The pixels over which the kernel's polynomials run.
    """

    arrays: Inputs
    frame: KernelFrame

    @classmethod
    def of(cls, diff: xr.Dataset) -> KernelInputs:
        """The kernel of a result of `ztfxr.difference` or `ztfxr.decorrelate`; `InputError` where it is no such."""
        missing = [n for n in ("difference", "science_convolved") if n not in diff]
        if missing or not {"kernel", "kernel_coeff"} & set(diff.variables):
            raise InputError(
                f"a difference is the Dataset that ztfxr.difference returns; without {', '.join(missing) or 'kernel'}"
            )
        kernel = diff["kernel_coeff"] if "kernel_coeff" in diff else diff["kernel"].expand_dims("kterm")
        arrays = {
            "coefficients": kernel,
            "science_convolved": diff["science_convolved"],
            "whitening": diff.get("decorrelation_kernel"),
        }
        return cls(arrays, KernelFrame.of(diff))


def psf_at(
    psf: PSF,
    x: ArrayLike,
    y: ArrayLike,
    *,
    size: int | None = None,
    difference: xr.Dataset | None = None,
    of: Side = "science",
) -> xr.DataArray:
    """The PSF as stamps at positions of the image; lazy where the PSF is.

    Parameters
    ----------
    psf
        The PSF, from `ztfxr.build_psf` or `ztfxr.read_psf`, or a stamp (..., psf_y, psf_x) sampled once per pixel.
    x, y
        Positions in absolute 0-based pixels with their fractions, scalars or 1-D.
    size
        Pixels along the side, odd; by default all that the PSF reaches.
    difference
        A result of `ztfxr.difference` (or `ztfxr.decorrelate`): the PSF that a source has in it. It is the science
        image's, or what the matching kernel makes of the reference's, on whichever the kernel acts, convolved with the
        whitening kernel where there is one.
    of
        The image of the difference that `psf` belongs to.

    Returns
    -------
    xarray.DataArray
        `psf` (..., source, psf_y, psf_x): fractions of the light in the pixels around the one that the position falls
        on, ``floor(x + 0.5)``. The sum over all pixels is 1; a stamp that is smaller than the PSF holds less. For
        scalars without `source`. NaN where there is no PSF or no position.

    Raises
    ------
    InputError
    """
    px, py = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    if px.ndim > 1 or (size is not None and (size < 1 or size % 2 == 0)):
        raise InputError(f"positions are scalars or 1-D and size is odd; got {px.ndim} dimensions and size {size}")
    own = PSFInputs.of(psf)
    kernel = None if difference is None else KernelInputs.of(difference)
    side = size or 2 * (own.reach + 1) + 1
    found = map_images(
        _stamps,
        {
            "psf": {name: None if a is None else a.reset_coords(drop=True) for name, a in own.arrays.items()},
            "kernel": None if kernel is None else kernel.arrays,
            "y": xr.DataArray(py.ravel(), dims="source"),
            "x": xr.DataArray(px.ravel(), dims="source"),
        },
        {"psf": ("source", *_STAMP)},
        sizes=dict.fromkeys(_STAMP, side),
        options={
            "oversampling": own.oversampling,
            "size": side,
            "of": of,
            "frame": None if kernel is None else kernel.frame,
        },
    )["psf"]
    offset = np.arange(side) - side // 2
    out = found.assign_coords(
        psf_y=offset, psf_x=offset, x_pixel=("source", px.ravel()), y_pixel=("source", py.ravel())
    )
    out = annotate(out, "psf")
    return out if px.ndim else out.isel(source=0)


def _stamps(
    psf: Mapping[str, NDArray[Any] | None],
    kernel: Mapping[str, Any] | None,
    y: Floats,
    x: Floats,
    *,
    oversampling: int,
    size: int,
    of: Side,
    frame: KernelFrame | None,
) -> Floats:
    """Stamps of one image at some positions."""
    from scipy import signal

    model = psf_model(oversampling, **psf)
    kernels = None if kernel is None else DifferenceKernel.of(**kernel).spread(of)
    if frame is None or kernels is None:
        return psf_stamps(model, y, x, size=size)
    margin = kernels.shape[1] // 2
    plain = psf_stamps(model, y, x, size=size + 2 * margin)
    local = np.tensordot(frame.terms(y, x, len(kernels)), kernels, axes=1)
    local /= local.sum(axis=(1, 2), keepdims=True)
    return np.asarray(signal.fftconvolve(plain, local, mode="valid", axes=(1, 2)))
