"""Match a reference to science images and subtract it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays import matching
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.background import variance as noise_model
from ztfxr.ops.positions import Positions, resolve_positions
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits
from ztfxr.wcs import same_grid

__all__ = ["difference"]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

_OUTPUTS: dict[str, tuple[str, ...]] = {
    "difference": IMAGE,
    "difference_variance": IMAGE,
    "mask": IMAGE,
    "kernel": ("ky", "kx"),
    "kernel_err": ("ky", "kx"),
    "kernel_sum": (),
    "kernel_sum_err": (),
    "background_coeff": ("term",),
    "background_coeff_err": ("term",),
    "chi2": (),
    "n_pixels": (),
    "condition": (),
    "epoch_status": (),
}
_TOO_FEW = planes_to_bits(["too_few_pixels"], STATUS_PLANES)
_FAILED = planes_to_bits(["solve_failed"], STATUS_PLANES)


@dataclass(frozen=True)
class _Options:
    size: int
    order: int
    smoothing: float
    iterations: int


def difference(
    science: xr.Dataset | xr.DataArray,
    reference: xr.Dataset | xr.DataArray | None = None,
    *,
    kernel_size: int = 9,
    background_order: int = 1,
    smoothing: float = 0.0,
    exclude: Positions | None = None,
    exclude_radius: float = 10.0,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    reference_mask: xr.DataArray | None = None,
    iterations: int = 2,
) -> xr.Dataset:
    """Subtract the reference, matched in PSF, flux scale and background, from one epoch or a stack; lazy, one epoch a task.

    The model of each science image is ``convolve(reference, kernel) + polynomial``, where every pixel of the kernel is free. It is
    found by least squares over all good pixels, weighted by the variances of both images; the reference's part is updated
    once the kernel is known. Pixels of the science image that are bad carry no weight; bad pixels of the reference carry
    none over the footprint of the kernel.

    Parameters
    ----------
    science
        An image (y, x) or stack (time, y, x), or a Dataset with `sci` and, where they exist, `flags` or `mask` and `variance`.
        A Dataset of `ztfxr.open_alerts` holds its own `reference`.
    reference
        On the same pixel grid, (y, x) or (time, y, x).
    kernel_size
        Pixels along the kernel's side, odd. It must hold the difference of the PSFs and any shift between the images.
    background_order
        Order of the polynomial of the background difference, 0 to 3.
    smoothing
        Weight of the kernel's squared Laplacian relative to the mean diagonal of the normal matrix; 0 for none.
    exclude
        Positions of variable objects that must not shape the kernel; pixels within `exclude_radius` pixels are left out of the solution
        (never out of the difference). By default the position that an alert was raised for, if `science` holds alerts.
    variance, reference_variance
        Variance per pixel in DN². By default the variables `variance` of the Datasets (`reference_variance` of an alert
        stack), else `ztfxr.variance`.
    mask, reference_mask
        Boolean, True where bad; by default the Datasets' recommended planes. Non-finite pixels are always bad.
    iterations
        Solutions per epoch; the second and later ones weight by the variance of the convolved reference.

    Returns
    -------
    xarray.Dataset
        `difference` and `difference_variance` on the science flux scale, NaN where `mask` is True; `kernel` with `kernel_err` (ky, kx), in
        the convention of a convolution; `kernel_sum`, the photometric scale; `background_coeff` with errors (term), for
        ``u**i * v**j`` with u, v in [-1, 1] along x and y; reduced `chi2`, `n_pixels`, `condition`; and `epoch_status`: an epoch that cannot
        be solved is NaN with a status that says why. The coordinates of `science` stay.

    Raises
    ------
    InputError
        An even kernel size, an order outside 0–3, no reference.
    AlignmentError
        The images do not share one pixel grid.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Bramich 2008, MNRAS 386, L77; smoothing after Becker et al. 2012, MNRAS 425, 1341. `difference_variance` holds the
    variance of each pixel; the convolved reference's noise is correlated between pixels.
    """
    options = _Options(*_checked(kernel_size, background_order, smoothing, iterations))
    ref = _reference_image(science, reference)
    sci = get_image(science)
    same_grid(sci, ref)
    inputs = [
        sci,
        get_mask(science, mask),
        _variance(science, variance, "variance"),
        _bare(ref),
        _bare(_reference_mask(reference, ref, reference_mask)),
        _bare(_reference_noise(science, reference, reference_variance)),
        _excluded(science, sci, exclude, exclude_radius),
    ]
    sizes = {"ky": kernel_size, "kx": kernel_size, "term": matching.n_terms(background_order)}
    found = apply_images(_one_epoch, *inputs, outputs=_OUTPUTS, sizes=sizes, kwargs={"options": options})
    images = {k: v.transpose(*sci.dims) if _OUTPUTS[k] == IMAGE else v for k, v in found.items()}
    prior = sci.coords.get("epoch_status")
    if prior is not None:
        images["epoch_status"] = images["epoch_status"].drop_vars("epoch_status") | prior.variable
    out = xr.Dataset({k: v.drop_vars("epoch_status", errors="ignore") for k, v in images.items()})
    offset = np.arange(kernel_size) - kernel_size // 2
    out = out.assign_coords(ky=offset, kx=offset)
    out.attrs = {
        **{k: v for k, v in science.attrs.items() if k in ("wcs_header", "object", "target_x", "target_y")},
        "kernel_size": kernel_size,
        "background_order": background_order,
        "exclude_radius": exclude_radius,
    }
    return annotate_all(out)


def _checked(size: int, order: int, smoothing: float, iterations: int) -> tuple[int, int, float, int]:
    if size < 1 or size % 2 == 0:
        raise InputError(f"kernel_size must be odd, so that the kernel has a centre; came {size}: use {size + 1}")
    if not 0 <= order <= 3:
        raise InputError(f"background_order must be 0, 1, 2 or 3; came {order}")
    if smoothing < 0 or iterations < 1:
        raise InputError(f"smoothing must be at least 0 and iterations at least 1; came {smoothing} and {iterations}")
    return size, order, smoothing, iterations


def _bare(array: xr.DataArray) -> xr.DataArray:
    """Without coordinates: the result's are the science image's, and a reference has another time, filter and exposure."""
    keep = {"time"} if "time" in array.dims else set()
    return array.drop_vars([k for k in array.coords if k not in keep])


def _reference_image(science: xr.Dataset | xr.DataArray, reference: xr.Dataset | xr.DataArray | None) -> xr.DataArray:
    if reference is not None:
        return get_image(reference)
    if isinstance(science, xr.Dataset) and "reference" in science:
        return science["reference"]
    raise InputError("no reference: give one, or a Dataset that holds a variable 'reference' (see ztfxr.open_alerts)")


def _variance(obj: xr.Dataset | xr.DataArray, given: xr.DataArray | None, name: str) -> xr.DataArray:
    if given is not None:
        return given
    return obj[name] if isinstance(obj, xr.Dataset) and name in obj else noise_model(obj)


def _reference_noise(
    science: xr.Dataset | xr.DataArray, reference: xr.Dataset | xr.DataArray | None, given: xr.DataArray | None
) -> xr.DataArray:
    return (
        _variance(science, given, "reference_variance")
        if reference is None
        else _variance(reference, given, "variance")
    )


def _reference_mask(
    reference: xr.Dataset | xr.DataArray | None, image: xr.DataArray, given: xr.DataArray | None
) -> xr.DataArray:
    return get_mask(image if reference is None else reference, given)


def _excluded(
    science: xr.Dataset | xr.DataArray, image: xr.DataArray, exclude: Positions | None, radius: float
) -> xr.DataArray:
    """Boolean (y, x), True where a pixel must not shape the kernel."""
    if exclude is None and "target_x" in science.attrs:
        exclude = [(float(science.attrs["target_x"]), float(science.attrs["target_y"]))]
    out = np.zeros((image.sizes["y"], image.sizes["x"]), dtype=bool)
    if exclude is not None:
        positions = resolve_positions(image, exclude)
        x, y = (np.asarray(image[d]) if d in image.coords else np.arange(image.sizes[d]) for d in ("x", "y"))
        for px, py in zip(positions["x_pixel"].values, positions["y_pixel"].values, strict=True):
            _add_disk(out, x - px, y - py, radius)
    return xr.DataArray(out, dims=IMAGE)


def _add_disk(out: Bools, dx: Floats, dy: Floats, radius: float) -> None:
    columns, rows = np.flatnonzero(np.abs(dx) <= radius), np.flatnonzero(np.abs(dy) <= radius)
    if columns.size and rows.size:
        inside = dx[columns][None, :] ** 2 + dy[rows][:, None] ** 2 <= radius**2
        out[np.ix_(rows, columns)] |= inside


def _one_epoch(
    science: NDArray[Any],
    science_bad: Bools,
    science_variance: NDArray[Any],
    reference: NDArray[Any],
    reference_bad: Bools,
    reference_variance: NDArray[Any],
    excluded: Bools,
    *,
    options: _Options,
) -> tuple[Any, ...]:
    """Solve and subtract one image; arrays (y, x) in, the values of `_OUTPUTS` out."""
    sci, vs, sci_bad = _finite(science, science_variance, science_bad)
    ref, vr, ref_bad = _finite(reference, reference_variance, reference_bad)
    bad = sci_bad | matching.footprint_mask(ref_bad, options.size)
    use = ~bad & ~excluded
    n_parameters = options.size**2 + matching.n_terms(options.order)
    if int(use.sum()) < 2 * n_parameters:
        return _no_solution(sci.shape, options, _TOO_FEW)
    variance = vs + vr
    try:
        for _ in range(options.iterations):
            weight = np.where(use, 1.0 / variance, 0.0)
            equations = matching.accumulate(ref, sci, weight, size=options.size, order=options.order)
            solution = matching.solve(equations, options.size, smoothing=options.smoothing)
            variance = vs + np.maximum(matching.convolve(vr, solution.kernel**2), 0.0)
    except np.linalg.LinAlgError:
        return _no_solution(sci.shape, options, _FAILED)
    model = matching.convolve(ref, solution.kernel) + matching.polynomial(sci.shape, solution.background)
    scale, scale_err = solution.kernel_sum
    return (
        np.where(bad, np.nan, sci - model).astype(np.float32),
        np.where(bad, np.nan, variance).astype(np.float32),
        bad,
        solution.kernel,
        solution.kernel_err,
        np.float64(scale),
        np.float64(scale_err),
        solution.background,
        solution.background_err,
        np.float64(solution.chi2),
        np.int64(solution.n_pixels),
        np.float64(solution.condition),
        np.uint16(0),
    )


def _finite(image: NDArray[Any], variance: NDArray[Any], bad: Bools) -> tuple[Floats, Floats, Bools]:
    """Double-precision copies with harmless values under the mask, and the mask with every unusable pixel."""
    bad = bad | ~np.isfinite(image) | ~(variance > 0) | ~np.isfinite(variance)
    return (
        np.where(bad, 0.0, image).astype(np.float64),
        np.where(bad, 1.0, variance).astype(np.float64),
        bad,
    )


def _no_solution(shape: tuple[int, ...], options: _Options, status: int) -> tuple[Any, ...]:
    kernel = np.full((options.size, options.size), np.nan)
    terms = np.full(matching.n_terms(options.order), np.nan)
    image, nan = np.full(shape, np.nan, dtype=np.float32), np.float64(np.nan)
    return (
        image,
        image,
        np.ones(shape, dtype=bool),
        kernel,
        kernel,
        nan,
        nan,
        terms,
        terms,
        nan,
        np.int64(0),
        nan,
        np.uint16(status),
    )
