"""Match a reference to science images and subtract it."""

from __future__ import annotations

from contextlib import suppress
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.match import MAX_KERNEL_SIZE, Matched, MatchOptions, match
from ztfxr.arrays.no_solution import NoSolutionError
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia._pair import (
    bare,
    epoch_results,
    has_variance,
    kept_attrs,
    known_variance,
    reference_image,
    reference_noise,
)
from ztfxr.dia._pair import (
    reference_mask as own_reference_mask,
)
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import get_image, get_mask
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.schema import STATUS_PLANES, annotate_all, planes_to_bits
from ztfxr.wcs import same_grid

__all__ = ["difference", "pair_inputs"]


_OUTPUTS: dict[str, tuple[str, ...]] = {
    "difference": IMAGE,
    "difference_variance": IMAGE,
    "mask": IMAGE,
    "kernel": ("ky", "kx"),
    "kernel_err": ("ky", "kx"),
    "kernel_coeff": ("kterm", "ky", "kx"),
    "kernel_order": (),
    "kernel_sum": (),
    "kernel_sum_err": (),
    "background_coeff": ("term",),
    "background_coeff_err": ("term",),
    "chi2": (),
    "noise_ratio": (),
    "lost_fraction": (),
    "n_pixels": (),
    "n_cutouts": (),
    "n_rejected": (),
    "condition": (),
    "science_convolved": (),
    "epoch_status": (),
}
_WITH_MODES = _OUTPUTS | {"model_error": ("mode", *IMAGE)}
_FRAME_PIXELS, _MODE_PIXELS = 512 * 512, 256 * 256
_CUTOUT_KERNEL = 9


def difference(
    science: xr.Dataset | xr.DataArray,
    reference: xr.Dataset | xr.DataArray | None = None,
    *,
    kernel_size: int | Literal["auto"] | None = None,
    kernel_order: int | Literal["auto"] | None = None,
    scale_order: int = 0,
    background_order: int | None = None,
    basis: Literal["delta", "gaussian"] = "delta",
    solve_on: Literal["all", "stars"] | None = None,
    convolve: Literal["reference", "science", "auto"] | None = None,
    weights: Literal["variance", "uniform"] = "variance",
    smoothing: float = 0.0,
    n_cutouts: int = 1500,
    cutout_size: int = 17,
    clip: float = 4.0,
    exclude: Positions | None = None,
    exclude_radius: float = 10.0,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    reference_mask: xr.DataArray | None = None,
    model_error: bool = False,
) -> xr.Dataset:
    """Subtract the reference, matched in PSF, flux scale and background, from one epoch or a stack; lazy, one epoch a
    task.

    The model of each science image is ``convolve(reference, kernel) + polynomial``. The kernel may vary over the
    image. It is found by least squares over cut-outs, each pixel weighted by the variances of both images, and
    cut-outs that do not fit (variable stars) are rejected. Bad pixels of the science image carry no weight; those of
    the reference carry none over the footprint of the kernel.

    Some defaults depend on whether the image is a *frame* (more than 512 × 512 pixels) or a *cut-out*.

    Parameters
    ----------
    science
        An image (y, x) or stack (time, y, x), or a Dataset with `sci` and, where they exist, `flags` or `mask` and
        `variance`. A Dataset of `ztfxr.open_alerts` holds its own `reference`.
    reference
        On the same pixel grid, (y, x) or (time, y, x).
    kernel_size
        Pixels along the kernel's side, odd, or ``"auto"``: from the two PSF widths, measured on stars. It must hold
        the difference of the PSFs and any shift between the images. Default: auto on frames, 9 on cut-outs. With auto,
        kernels are returned centered in 25 × 25 pixels.
    kernel_order
        Spatial order of the kernel over the image, 0 to 3, or ``"auto"``: the highest whose terms are significant.
        Default: auto on frames, 0 on cut-outs.
    scale_order
        Spatial order of the photometric scale, the kernel's sum; 0 holds it constant.
    background_order
        Order of the polynomial of the background difference, 0 to 3. Default: 3 on frames, 1 on cut-outs.
    basis
        ``"delta"``: every kernel pixel is free. ``"gaussian"``: Gaussians times polynomials, for few or faint stars.
    solve_on
        ``"stars"``: cut-outs of `cutout_size` pixels around up to `n_cutouts` bright stars, evenly over the image.
        ``"all"``: every good pixel (crowded fields, extended objects). Default: stars on frames, all on cut-outs.
    convolve
        Which image the kernel acts on; ``"auto"`` takes the sharper one. The result is on the science scale in any
        case. Default: auto on frames, reference on cut-outs.
    weights
        ``"variance"``: each pixel weighs as its noise says, by its neighbors' variance where that is alike: its own
        may follow its own photons, which would make the background too low. For a constant kernel over all pixels,
        pixels of like signal in the reference share a mean weight where their weights are alike, so that a stack shares
        the reference's part of the equations between epochs; the kernel is as precise to a few per cent.
        ``"uniform"``: all good pixels weigh the same, as in plain least squares, and none is rejected; then bright
        stars count for more than they should, which costs precision in crowded fields, and the kernel's errors are
        for the sky's noise.
    smoothing
        Weight of the kernel's squared Laplacian relative to the mean diagonal of the normal matrix; 0 for none.
    n_cutouts, cutout_size
        Of the cut-outs around stars.
    clip
        Cut-outs whose reduced χ² exceeds the median by this many robust standard deviations are rejected.
    exclude, exclude_radius
        Positions of variable objects that must not shape the kernel; pixels within `exclude_radius` pixels are left
        out of the solution (never out of the difference). By default the position that an alert was raised for.
    variance, reference_variance
        Variance per pixel in DN². By default the variables `variance` of the Datasets (`reference_variance` of an
        alert stack), else `ztfxr.variance` where the gain is known, its sky set right by the residuals; else sky noise
        and gain are measured from the residuals.
    mask, reference_mask
        Boolean, True where bad; by default the Datasets' recommended planes. Non-finite pixels are always bad.
    model_error
        Add the error of kernel and background as images, which `ztfxr.forced_photometry` and
        `ztfxr.aperture_photometry` then add to the errors of fluxes. It counts on stamps, where little but a bright
        host fixes the kernel: on those of alerts it is up to twice the noise of the pixels. For images of at most 256 ×
        256 pixels and a kernel of given size and order.

    Returns
    -------
    xarray.Dataset
        `difference` and `difference_variance` on the science flux scale, NaN where `mask` is True; `kernel` with
        `kernel_err` (ky, kx) at the image's center, in the convention of a convolution; `kernel_coeff` (kterm, ky, kx)
        and `background_coeff` with errors (term), for the terms 1, u, v, u², uv, v², … with u, v in [-1, 1] along x
        and y; `kernel_sum`, the photometric scale; reduced `chi2` of the solution, `noise_ratio` of the whole
        difference, `lost_fraction`, cut-outs used and rejected, `condition`; and `epoch_status`: an epoch that cannot
        be solved is NaN with a status that says why. With `model_error`, `model_error` (mode, y, x): a sum over pixels
        has the variance that the squares of the modes' sums add up to. The coordinates of `science` stay. The attribute
        `frame` holds the first absolute pixel (y, x) and the sizes (y, x) over which u and v run, also of a slice of
        the result.

    Raises
    ------
    InputError
        An even kernel size, an order outside 0–3, no reference; `model_error` for a frame or a kernel of any size.
    AlignmentError
        The images do not share one pixel grid.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Bramich 2008, MNRAS 386, L77; Alard & Lupton 1998, ApJ 503, 325; variation over the field after Alard 2000, A&AS
    144, 363, and Bramich et al. 2013, MNRAS 428, 2275; smoothing after Becker et al. 2012, MNRAS 425, 1341.
    `difference_variance` holds the variance of each pixel; the convolved image's noise is correlated between pixels.
    """
    inputs, options = pair_inputs(
        science,
        reference,
        exclude=exclude,
        exclude_radius=exclude_radius,
        variance=variance,
        reference_variance=reference_variance,
        mask=mask,
        reference_mask=reference_mask,
        kernel_size=kernel_size,
        kernel_order=kernel_order,
        scale_order=scale_order,
        background_order=background_order,
        basis=basis,
        solve_on=solve_on,
        convolve=convolve,
        weights=weights,
        smoothing=smoothing,
        n_cutouts=n_cutouts,
        cutout_size=cutout_size,
        clip=clip,
    )
    size = options.kernel_size or MAX_KERNEL_SIZE
    sizes = {"ky": size, "kx": size, "term": n_terms(options.background_order), "kterm": n_terms(options.max_order)}
    if model_error:
        sizes["mode"] = _n_modes(options, inputs[0].sizes["y"] * inputs[0].sizes["x"])
    core = [IMAGE if set(IMAGE) <= set(a.dims) else () for a in inputs]
    kwargs = {"options": options, "n_modes": sizes.get("mode", 0)}
    outputs = _WITH_MODES if model_error else _OUTPUTS
    found = apply_images(_one_epoch, *inputs, inputs=core, outputs=outputs, sizes=sizes, kwargs=kwargs)
    return _labeled(found, science, inputs[0], options, size, exclude_radius)


def pair_inputs(
    science: xr.Dataset | xr.DataArray,
    reference: xr.Dataset | xr.DataArray | None,
    *,
    exclude: Positions | None = None,
    exclude_radius: float = 10.0,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: xr.DataArray | None = None,
    reference_mask: xr.DataArray | None = None,
    **options: Any,
) -> tuple[list[xr.DataArray], MatchOptions]:
    """Image, mask and variance of both images and the excluded pixels, checked, and the options with their
    defaults.
    """
    ref = reference_image(science, reference)
    sci = get_image(science)
    same_grid(sci, ref)
    inputs = [
        sci,
        get_mask(science, mask),
        known_variance(science, variance, "variance"),
        bare(ref),
        bare(own_reference_mask(reference, ref, reference_mask)),
        bare(reference_noise(science, reference, reference_variance)),
        _excluded(science, sci, exclude, exclude_radius),
    ]
    options["measure_sky"] = not has_variance(science, variance)
    return inputs, _options(sci.sizes["y"] * sci.sizes["x"] > _FRAME_PIXELS, **options)


def _labeled(
    found: dict[str, xr.DataArray],
    science: xr.Dataset | xr.DataArray,
    sci: xr.DataArray,
    options: MatchOptions,
    size: int,
    exclude_radius: float,
) -> xr.Dataset:
    """The results with their coordinates and attributes, and the status that epochs already had."""
    out = epoch_results(found, _WITH_MODES, sci)
    offset = np.arange(size) - size // 2
    out = out.assign_coords(ky=offset, kx=offset)
    out.attrs = {
        **kept_attrs(science),
        "kernel_size": options.kernel_size or "auto",
        "kernel_order": "auto" if options.kernel_order is None else options.kernel_order,
        "background_order": options.background_order,
        "solve_on": options.solve_on,
        "basis": options.basis,
        "exclude_radius": exclude_radius,
        **_frame(sci),
    }
    return annotate_all(out)


def _frame(sci: xr.DataArray) -> dict[str, list[int]]:
    """The pixels over which the kernel's polynomials run; nothing where pixels are not those of a frame (binned)."""
    with suppress(InputError):
        first = pixel_origin(sci)
        return {"frame": [int(first["y"]), int(first["x"]), sci.sizes["y"], sci.sizes["x"]]}
    return {}


def _options(
    frame: bool,
    *,
    kernel_size: int | Literal["auto"] | None = None,
    kernel_order: int | Literal["auto"] | None = None,
    background_order: int | None = None,
    solve_on: Literal["all", "stars"] | None = None,
    convolve: Literal["reference", "science", "auto"] | None = None,
    **rest: Any,
) -> MatchOptions:
    """Options with the defaults of a frame or a cut-out, checked."""
    kernel_size = ("auto" if frame else _CUTOUT_KERNEL) if kernel_size is None else kernel_size
    kernel_order = ("auto" if frame else 0) if kernel_order is None else kernel_order
    background_order = (3 if frame else 1) if background_order is None else background_order
    return MatchOptions(
        kernel_size=None if kernel_size == "auto" else kernel_size,
        kernel_order=None if kernel_order == "auto" else kernel_order,
        background_order=background_order,
        solve_on=solve_on or ("stars" if frame else "all"),
        convolve=convolve or ("auto" if frame else "reference"),
        **rest,
    )


def _n_modes(options: MatchOptions, n_pixels: int) -> int:
    """Free parameters at most, where their modes can be held."""
    if n_pixels > _MODE_PIXELS:
        raise InputError(
            f"model_error is for stamps of at most 256 × 256 pixels; got {n_pixels} pixels: cut out what is measured "
            "before the difference, or leave it out, since the stars of a frame fix its kernel"
        )
    if options.kernel_size is None or options.kernel_order is None:
        raise InputError("model_error needs a kernel_size and a kernel_order that are numbers, not 'auto'")
    return n_terms(options.max_order) * options.kernel_size**2 + n_terms(options.background_order)


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
    options: MatchOptions,
    n_modes: int,
) -> tuple[Any, ...]:
    """Match and subtract one image; arrays (y, x) in, the values of `_OUTPUTS` out, and `n_modes` of the model's error
    if any.
    """
    sci = Image.of(science, science_variance, science_bad)
    ref = Image.of(reference, reference_variance, reference_bad)
    try:
        matched = match(sci, ref, excluded, options)
    except NoSolutionError as error:
        shape = (science.shape[0], science.shape[1])
        modes = [np.full((n_modes, *shape), np.nan, dtype=np.float32)] if n_modes else []
        return *_no_solution(shape, options, error.status), *modes
    solution, size = matched.solution, options.kernel_size or MAX_KERNEL_SIZE
    coefficients = np.zeros((n_terms(options.max_order), size, size))
    coefficients[: len(solution.coefficients)] = _centered(solution.coefficients, size)
    return (
        matched.difference,
        matched.variance,
        matched.bad,
        _centered(solution.at(0.0, 0.0), size),
        _centered(solution.error_at(0.0, 0.0), size),
        coefficients,
        np.int64(solution.order),
        np.float64(solution.scale),
        np.float64(solution.scale_error()),
        solution.background,
        solution.background_error(),
        np.float64(solution.chi2),
        np.float64(matched.noise_ratio()),
        np.float64((matched.bad & ~sci.bad).mean()),
        np.int64(solution.n_pixels),
        np.int64(len(solution.kept)),
        np.int64((~solution.kept).sum()),
        np.float64(solution.condition),
        np.bool_(matched.convolved == "science"),
        np.uint32(0),
        *([_modes(matched, n_modes)] if n_modes else []),
    )


def _modes(matched: Matched, number: int) -> NDArray[np.float32]:
    """`Matched.model_error`, with modes of zero for parameters that were not free."""
    modes = matched.model_error()
    return np.concatenate([modes, np.zeros((number - len(modes), *modes.shape[1:]), dtype=np.float32)])


def _centered(kernel: Floats, size: int) -> Floats:
    """The kernel in the middle of (size, size) pixels of zeros."""
    margin = (size - kernel.shape[-1]) // 2
    return np.pad(kernel, [(0, 0)] * (kernel.ndim - 2) + [(margin, margin)] * 2)


def _no_solution(shape: tuple[int, int], options: MatchOptions, status: str) -> tuple[Any, ...]:
    size = options.kernel_size or MAX_KERNEL_SIZE
    values: dict[str, Any] = {
        **{k: np.full(shape, np.nan, dtype=np.float32) for k in ("difference", "difference_variance")},
        "mask": np.ones(shape, dtype=bool),
        **{k: np.full((size, size), np.nan) for k in ("kernel", "kernel_err")},
        "kernel_coeff": np.full((n_terms(options.max_order), size, size), np.nan),
        **{k: np.full(n_terms(options.background_order), np.nan) for k in ("background_coeff", "background_coeff_err")},
        **dict.fromkeys(("kernel_order", "n_pixels", "n_cutouts", "n_rejected"), np.int64(0)),
        "science_convolved": np.bool_(False),
        "lost_fraction": np.float64(1.0),
        "epoch_status": np.uint32(planes_to_bits([status], STATUS_PLANES)),
    }
    return tuple(values.get(name, np.float64(np.nan)) for name in _OUTPUTS)
