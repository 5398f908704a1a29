"""The matching kernel as data: coefficients with covariance, cut-outs, and the kernel anywhere on the image."""

from __future__ import annotations

from typing import Any, Unpack

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.images.windows import Cutouts
from ztfxr.arrays.matching.basis import BASES
from ztfxr.arrays.matching.match import solve_match
from ztfxr.arrays.matching.spatial import SpatialKernel
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.types import Floats
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.dia.kernel_options import KernelOptions, match_options
from ztfxr.dia.pair import gather_pair
from ztfxr.errors import InputError, MatchFailedError
from ztfxr.ops.exposure import Exposure, Labeled, MaskChoice
from ztfxr.ops.positions import Positions
from ztfxr.schema import annotate_all

__all__ = ["kernel_at", "solve_kernel"]


def solve_kernel(
    science: Labeled,
    reference: Labeled | None = None,
    *,
    exclude: Positions | None = None,
    exclude_radius: float = 10.0,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    reference_mask: MaskChoice = None,
    **options: Unpack[KernelOptions],
) -> xr.Dataset:
    """Solve the kernel that matches the reference to one science image. Computes.

    Parameters
    ----------
    science, reference
        Images as for `ztfxr.difference`, whose solution this is; one epoch, not a stack.
    exclude, exclude_radius
        Positions of variable objects, and the pixels around each that must not shape the kernel.
    variance, reference_variance, mask, reference_mask
        Noise and masks as in `ztfxr.difference`.
    **options
        The options of `ztfxr.difference` from `kernel_size` to `clip`.

    Returns
    -------
    xarray.Dataset
        `kernel_coeff` (kterm, ky, kx) and `background_coeff` with errors (term), for the terms 1, u, v, u², uv, v², …
        with u, v in [-1, 1] along x and y; `covariance` (parameter, parameter2) of the solved parameters, which
        `parameter_term` and `parameter_component` name (-1 for the background's); per cut-out `cutout_x`, `cutout_y`
        (absolute pixels), `cutout_chi2` (reduced) and `cutout_kept`; `kernel_sum` with its error, `chi2`, `n_pixels`,
        `condition`. The attributes say what is convolved and with which basis.

    Raises
    ------
    MatchFailedError
        Too few good pixels, or no stable solution.
    InputError
        A stack, an option that does not exist, or what `ztfxr.difference` refuses; pixels that are reversed or binned.
    AlignmentError
        The images do not share one pixel grid.

    Notes
    -----
    The components of the basis are those of Bramich 2008 (single pixels less the central one) or Alard & Lupton 1998;
    the covariance is the inverse of the normal matrix.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> kernel = ztfxr.solve_kernel(made.images.isel(time=0), made.reference)
    >>> bool(kernel.kernel_sum > 0)
    True
    """
    pair = gather_pair(
        science,
        reference,
        variance=variance,
        reference_variance=reference_variance,
        mask=mask,
        reference_mask=reference_mask,
    )
    image = pair.science.image
    if image.ndim != 2:
        raise InputError(f"solve_kernel takes one image (y, x); got {image.dims}: select an epoch, or use difference")
    pair.require_its_filter()
    frame, chosen = KernelFrame.of_image(image), match_options(pair, options)
    try:
        solution, cutouts, swapped = solve_match(
            _loaded(pair.science), _loaded(pair.reference), pair.near(exclude, exclude_radius).values, chosen
        )
    except NoSolutionError as error:
        raise MatchFailedError(
            f"no kernel: {error.status.replace('_', ' ')}; mask less, or use a smaller kernel"
        ) from error
    out = _as_dataset(solution, cutouts, frame)
    out.attrs = frame.attrs() | {
        "basis": chosen.basis,
        "kernel_order": solution.basis.order,
        "scale_order": chosen.scale_order,
        "convolved": "science" if swapped else "reference",
    }
    return annotate_all(out, unit=pair.science.unit)


def _loaded(exposure: Exposure) -> Image:
    """An image as array code takes it."""
    noise = exposure.variance_or_none
    return Image.of(exposure.image.values, None if noise is None else noise.values, exposure.bad.values)


def _as_dataset(solution: SpatialKernel, cutouts: Cutouts, frame: KernelFrame) -> xr.Dataset:
    """The solution by the names of the schema, with its parameters and cut-outs named."""
    index = np.flatnonzero(solution.free)
    n_kernel = n_terms(solution.basis.order) * solution.basis.n_components
    of_background = index >= n_kernel
    term, component = np.divmod(index, solution.basis.n_components)
    offset = np.arange(solution.basis.size) - solution.basis.size // 2
    variables: dict[str, Any] = {
        "kernel_coeff": (("kterm", "ky", "kx"), solution.coefficients),
        "background_coeff": ("term", solution.background),
        "background_coeff_err": ("term", solution.background_error()),
        "covariance": (("parameter", "parameter2"), solution.covariance(np.eye(len(index)))),
        "cutout_chi2": ("cutout", solution.cutout_chi2),
        "cutout_kept": ("cutout", solution.kept),
        "kernel_sum": ((), solution.scale),
        "kernel_sum_err": ((), solution.scale_error()),
        "chi2": ((), solution.chi2),
        "n_pixels": ((), solution.n_pixels),
        "condition": ((), solution.condition),
    }
    coords = {
        "ky": offset,
        "kx": offset,
        "cutout_x": ("cutout", cutouts.x + float(frame.x)),
        "cutout_y": ("cutout", cutouts.y + float(frame.y)),
        "parameter_term": ("parameter", np.where(of_background, index - n_kernel, term)),
        "parameter_component": ("parameter", np.where(of_background, -1, component)),
    }
    return xr.Dataset(variables, coords)


def kernel_at(solution: xr.Dataset, x: ArrayLike, y: ArrayLike) -> xr.Dataset:
    """The kernel with its per-pixel errors at positions of the image.

    Parameters
    ----------
    solution
        The result of `ztfxr.solve_kernel`.
    x, y
        Absolute 0-based pixels, scalars or 1-D.

    Returns
    -------
    xarray.Dataset
        `kernel` and `kernel_err`, (ky, kx) for scalars, else (position, ky, kx), in the convention of a convolution;
        `kernel_sum` with its error.

    Raises
    ------
    InputError
        Positions of more than one dimension.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> kernel = ztfxr.solve_kernel(made.images.isel(time=0), made.reference)
    >>> ztfxr.kernel_at(kernel, x=48, y=48).kernel.dims
    ('ky', 'kx')
    """
    px, py = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    if px.ndim > 1:
        raise InputError(f"positions are scalars or 1-D; got {px.ndim} dimensions")
    terms = KernelFrame.of(solution).terms(py.ravel(), px.ravel(), solution.sizes["kterm"])
    kernel = np.tensordot(terms, solution["kernel_coeff"].values, axes=1)
    variance, scale = zip(*(_variances(solution, t) for t in terms), strict=True)
    dims = ("position", "ky", "kx")
    out = xr.Dataset(
        {
            "kernel": (dims, kernel),
            "kernel_err": (dims, np.sqrt(np.maximum(variance, 0)).reshape(kernel.shape)),
            "kernel_sum": ("position", kernel.sum(axis=(1, 2))),
            "kernel_sum_err": ("position", np.sqrt(np.maximum(scale, 0))),
        },
        {"ky": solution["ky"], "kx": solution["kx"], "x": ("position", px.ravel()), "y": ("position", py.ravel())},
    )
    return annotate_all(out if px.ndim else out.isel(position=0))


def _variances(solution: xr.Dataset, terms: Floats) -> tuple[Floats, float]:
    """Variance of each kernel pixel, and of the kernel's sum, where the spatial terms have these values."""
    matrix = BASES[solution.attrs["basis"]](int(solution.sizes["ky"]), 0, 0).matrix
    component = solution["parameter_component"].values
    of_kernel = component >= 0
    covariance = solution["covariance"].values[np.ix_(of_kernel, of_kernel)]
    rows = matrix[:, component[of_kernel]] * terms[solution["parameter_term"].values[of_kernel]]
    total = rows.sum(axis=0)
    return np.einsum("ij,ij->i", rows @ covariance, rows), float(total @ covariance @ total)
