"""The matching kernel as data: coefficients with covariance, cut-outs, and the kernel anywhere on the image."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.basis import BASES
from ztfxr.arrays.matching.match import MatchOptions, solve_match
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.polynomials import n_terms, polynomial_terms, unit_position
from ztfxr.arrays.types import Floats
from ztfxr.dia.difference import pair_inputs
from ztfxr.errors import InputError, MatchFailedError
from ztfxr.schema import annotate_all

__all__ = ["kernel_at", "psf_match"]


def psf_match(
    science: xr.Dataset | xr.DataArray, /, reference: xr.Dataset | xr.DataArray | None = None, **options: Any
) -> xr.Dataset:
    """Solve the kernel that matches the reference to one science image. Computes.

    Parameters
    ----------
    science, reference, **options
        As for `ztfxr.difference`, whose solution this is; one epoch, not a stack.

    Returns
    -------
    xarray.Dataset
        `kernel_coeff` (kterm, ky, kx) and `background_coeff` with errors (term), for the terms 1, u, v, u², uv, v², …
        with u, v in [-1, 1] along x and y; `covariance` (parameter, parameter) of the solved parameters, which
        `parameter_term` and `parameter_component` name (-1 for the background's); per cut-out `cutout_x`, `cutout_y`
        (pixels), `cutout_chi2` (reduced) and `cutout_kept`; `kernel_sum` with its error, `chi2`, `n_pixels`,
        `condition`. The attributes say what is convolved and with which basis.

    Raises
    ------
    MatchFailedError
        Too few good pixels, or no stable solution.
    InputError, AlignmentError
        As for `ztfxr.difference`.

    Notes
    -----
    The components of the basis are those of Bramich 2008 (single pixels less the central one) or Alard & Lupton 1998;
    the covariance is the inverse of the normal matrix.
    """
    inputs, chosen = pair_inputs(science, reference, **options)
    if inputs[0].ndim != 2:
        raise InputError(f"psf_match takes one image (y, x); got {inputs[0].dims}: select an epoch, or use difference")
    sci, sci_bad, sci_var, ref, ref_bad, ref_var, excluded = (np.asarray(a.values) for a in inputs)
    try:
        solution, cutouts, swapped = solve_match(
            Image.of(sci, sci_var, sci_bad), Image.of(ref, ref_var, ref_bad), excluded, chosen
        )
    except NoSolutionError as error:
        raise MatchFailedError(
            f"no kernel: {error.status.replace('_', ' ')}; mask less, or use a smaller kernel"
        ) from error
    return _as_dataset(solution, cutouts, swapped, chosen, inputs[0])


def _as_dataset(solution: Any, cutouts: Any, swapped: bool, options: MatchOptions, image: xr.DataArray) -> xr.Dataset:
    origin = {d: float(image[d][0]) if d in image.coords else 0.0 for d in ("y", "x")}
    n_free = int(solution.free.sum())
    index = np.flatnonzero(solution.free)
    n_kernel = n_terms(solution.basis.order) * solution.basis.n_components
    term, component = np.divmod(index, solution.basis.n_components)
    of_background = index >= n_kernel
    term = np.where(of_background, index - n_kernel, term)
    variables: dict[str, Any] = {
        "kernel_coeff": (("kterm", "ky", "kx"), solution.coefficients),
        "background_coeff": ("term", solution.background),
        "background_coeff_err": ("term", solution.background_error()),
        "covariance": (("parameter", "parameter2"), solution.covariance(np.eye(n_free))),
        "cutout_chi2": ("cutout", solution.cutout_chi2),
        "cutout_kept": ("cutout", solution.kept),
        **{k: ((), v) for k, v in _scalars(solution).items()},
    }
    half = solution.basis.size // 2
    coords = {
        "ky": np.arange(-half, half + 1),
        "kx": np.arange(-half, half + 1),
        "cutout_x": ("cutout", cutouts.x + origin["x"]),
        "cutout_y": ("cutout", cutouts.y + origin["y"]),
        "parameter_term": ("parameter", term),
        "parameter_component": ("parameter", np.where(of_background, -1, component)),
    }
    out = annotate_all(xr.Dataset(variables, coords))
    out.attrs = {
        "basis": options.basis,
        "kernel_order": int(solution.basis.order),
        "scale_order": int(options.scale_order),
        "convolved": "science" if swapped else "reference",
        "frame": [origin["y"], origin["x"], float(image.sizes["y"]), float(image.sizes["x"])],
    }
    return out


def _scalars(solution: Any) -> dict[str, Any]:
    return {
        "kernel_sum": solution.scale,
        "kernel_sum_err": solution.scale_error(),
        "chi2": solution.chi2,
        "n_pixels": solution.n_pixels,
        "condition": solution.condition,
    }


def kernel_at(solution: xr.Dataset, x: ArrayLike, y: ArrayLike) -> xr.Dataset:
    """The kernel with its per-pixel errors at positions of the image.

    Parameters
    ----------
    solution
        Of `ztfxr.psf_match`.
    x, y
        Absolute 0-based pixels, scalars or 1-D.

    Returns
    -------
    xarray.Dataset
        `kernel` and `kernel_err`, (ky, kx) for scalars, else (position, ky, kx), in the convention of a convolution;
        `kernel_sum` with its error.
    """
    px, py = np.broadcast_arrays(np.asarray(x, dtype=float), np.asarray(y, dtype=float))
    if px.ndim > 1:
        raise InputError(f"positions are scalars or 1-D; got {px.ndim} dimensions")
    y0, x0, ny, nx = solution.attrs["frame"]
    v, u = unit_position(py.ravel() - y0, int(ny)), unit_position(px.ravel() - x0, int(nx))
    terms = polynomial_terms(v, u, int(solution.attrs["kernel_order"]))
    kernel = np.tensordot(terms, solution["kernel_coeff"].values, axes=1)
    variance, scale = zip(*(_variances(solution, t) for t in terms), strict=True)
    size = kernel.shape[-1]
    dims = ("position", "ky", "kx")
    out = xr.Dataset(
        {
            "kernel": (dims, kernel),
            "kernel_err": (dims, np.sqrt(np.maximum(variance, 0)).reshape(-1, size, size)),
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
