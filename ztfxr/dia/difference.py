"""Match a reference to science images and subtract it."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, NamedTuple, Unpack, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.image import Image
from ztfxr.arrays.matching.basis import Basis
from ztfxr.arrays.matching.exclusion import Measured, excluded_with
from ztfxr.arrays.matching.match import Convolve, Matched, MatchOptions, SolveOn, Weights, match
from ztfxr.arrays.matching.prior import NOTHING_TOLD, ExpectedKernel
from ztfxr.arrays.polynomials import n_terms
from ztfxr.arrays.stamps import pad
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.dia.kernel_options import KernelOptions, match_options
from ztfxr.dia.pair import Pair, gather_pair
from ztfxr.dia.verdict import verdict_numbers, verdict_status
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Labeled, MaskChoice
from ztfxr.ops.positions import Positions
from ztfxr.ops.trees import holds_pairs, on_each

__all__ = ["difference", "difference_for"]

_MODE_PIXELS, _LEAST_NOISE = 256 * 256, 1e-12
_RADIUS, _ALERT_RADIUS = 10.0, 7.0


class _Options(KernelOptions, total=False):
    """All options of `difference`."""

    exclude: Positions | None
    exclude_radius: float | None
    known_scale: tuple[float, float] | None
    fwhm: tuple[float, float] | None
    variance: xr.DataArray | None
    reference_variance: xr.DataArray | None
    mask: MaskChoice
    reference_mask: MaskChoice
    model_error: bool


@overload
def difference(science: Labeled, reference: Labeled | None = None, **options: Unpack[_Options]) -> xr.Dataset: ...


@overload
def difference(science: xr.DataTree, reference: None = None, **options: Unpack[_Options]) -> xr.DataTree: ...


def difference(
    science: Labeled | xr.DataTree,
    reference: Labeled | None = None,
    *,
    kernel_size: int | Literal["auto"] | None = None,
    kernel_order: int | Literal["auto"] | None = None,
    scale_order: int = 0,
    background_order: int | Literal["auto"] | None = None,
    basis: Basis = "delta",
    solve_on: SolveOn | None = None,
    convolve: Convolve | None = None,
    weights: Weights = "variance",
    smoothing: float = 0.0,
    n_cutouts: int = 1500,
    cutout_size: int | None = None,
    clip: float = 4.0,
    exclude: Positions | None = None,
    exclude_radius: float | None = None,
    known_scale: tuple[float, float] | None = None,
    fwhm: tuple[float, float] | None = None,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    reference_mask: MaskChoice = None,
    model_error: bool = False,
) -> xr.Dataset | xr.DataTree:
    """Subtract the reference, matched in PSF, flux scale and background, from an epoch or a stack; lazy.

    The model of each science image is ``convolve(reference, kernel) + polynomial``. The kernel may vary over the
    image. It is found by least squares over cut-outs, each pixel weighted by the variances of both images, and
    cut-outs that do not fit (variable stars) are rejected. Bad pixels of the science image carry no weight; those of
    the reference carry none over the footprint of the kernel.

    Some defaults depend on whether the image is a *frame* (more than 512 × 512 pixels) or a *cut-out*.

    Parameters
    ----------
    science
        An image (y, x) or stack (time, y, x), or a Dataset with `sci` and, where they exist, `flags` or `mask` and
        `variance`. A Dataset of `ztfxr.open_alerts` holds its own `reference`; of a tree of such, each is subtracted.
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
        Order of the polynomial of the background difference, 0 to 3, or ``"auto"``: the highest whose terms lower χ²
        by more than noise would. Default: 3 on frames, auto on cut-outs.
    basis
        ``"delta"``: every kernel pixel is free. ``"gaussian"``: Gaussians times polynomials, for few or faint stars.
    solve_on
        ``"stars"``: cut-outs of `cutout_size` pixels around up to `n_cutouts` bright stars, evenly over the image.
        ``"all"``: every good pixel (crowded fields, extended objects). Default: stars on frames, all on cut-outs.
    convolve
        Which image the kernel acts on; ``"auto"`` takes the sharper one. The result is on the science scale in any
        case. Default: auto on frames, reference on cut-outs.
    weights
        ``"variance"``, the better choice nearly always, weighs each pixel by its inverse variance. Where neighbors have
        like variances, their mean counts: the variance of a pixel may follow its own photons, which would make the
        background too low. For a constant kernel over all pixels, pixels of like signal in the reference share a mean
        weight, so that a stack shares the reference's part of the equations between epochs; the kernel is as precise to
        a few per cent. ``"uniform"`` weighs all good pixels the same, as plain least squares does, and rejects none.
        Bright stars then count for more than they should, which costs precision in crowded fields, and the errors of
        the kernel are those for the noise of the sky.
    smoothing
        Weight of the kernel's squared Laplacian relative to the mean diagonal of the normal matrix; 0 for none.
    n_cutouts, cutout_size
        Number of the cut-outs around stars at most, and the pixels along the side of each: by default 17, or 5.6 times
        the FWHM of the stars, where that is more.
    clip
        Cut-outs whose reduced χ² exceeds the median by this many robust standard deviations are rejected.
    exclude
        Positions of variable objects that must not shape the kernel. By default the position that an alert was raised
        for.
    exclude_radius
        Pixels around each of them that are left out of the solution (never out of the difference). Default: 7 for
        stamps of alerts, whose object may hold most of the light that fixes the kernel, else 10.
    known_scale
        Photometric scale that is known beforehand, with its error: the flux of a star in the science image over that in
        the reference. It counts where little light fixes the kernel. By default 1 ± 0.001 for stamps of alerts, else
        what the zero points `magzp` of both images say, where both have a scatter `magzprms`; else the scale is free.
        Images that know the scale to better than 0.7 % are believed against it.
    fwhm
        FWHM in pixels of the PSFs of science image and reference, known to 3 %: they say how wide the kernel is, which
        counts where little light fixes it. By default the coordinates `seeing` of both, where they have them in pixels,
        taken as known to 10 %.
    variance, reference_variance
        Variance per pixel in the square of the image's unit. By default the variables `variance` of the Datasets
        (`reference_variance` of an alert stack), else `ztfxr.variance` where the gain is known, its sky set right by
        the residuals. Where neither is known, or in epochs where the variance is nowhere finite and positive, sky
        noise and gain are measured from the residuals.
    mask, reference_mask
        Boolean, True where bad; by default the recommended planes of the Datasets' `flags`, else their `mask`. False:
        no pixel is bad but those that are not finite, which always are.
    model_error
        Add the error of kernel and background as images, which `ztfxr.forced_photometry` and
        `ztfxr.aperture_photometry` then add to the errors of fluxes. It counts on stamps, where little but a bright
        host fixes the kernel: on those of alerts it is up to twice the noise of the pixels. For images of at most 256 ×
        256 pixels and a kernel of given size and order.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        `difference` and `difference_variance` on the science flux scale, NaN where `mask` is True; `kernel` with
        `kernel_err` (ky, kx) at the image's center, in the convention of a convolution; `kernel_coeff` (kterm, ky, kx)
        and `background_coeff` with errors (term), for the terms 1, u, v, u², uv, v², … with u, v in [-1, 1] along x
        and y; `kernel_sum`, the photometric scale; reduced `chi2` of the solution, `noise_ratio` of the whole
        difference, `lost_fraction`, cut-outs used and rejected, `condition`; the numbers of the verdict
        (`kernel_sum_pull`, `kernel_shift_y`, `kernel_shift_x`, `border_light`, `light_left`, `kept_light`,
        `rejected_chi2`, `background_chi2`); and `epoch_status`, which says what is wrong with the epoch: one that
        cannot be solved is NaN, one that should not be believed keeps its pixels. With `model_error`, `model_error`
        (mode, y, x): a sum over pixels has the variance that the squares of the modes' sums add up to. The coordinates
        of `science` stay. The attribute `frame` holds the first absolute pixel (y, x) and the sizes (y, x) over which u
        and v run, also of a slice of the result.

    Raises
    ------
    InputError
        An even kernel size, an order outside 0–3, no reference, a tree of frames of one field; `model_error` for a
        frame or a kernel of any size.
    AlignmentError
        The images do not share one pixel grid.
    ChunkError
        An image is chunked along y or x.

    Notes
    -----
    Bramich 2008, MNRAS 386, L77; Alard & Lupton 1998, ApJ 503, 325; variation over the field after Alard 2000, A&AS
    144, 363, and Bramich et al. 2013, MNRAS 428, 2275; smoothing after Becker et al. 2012, MNRAS 425, 1341.
    `difference_variance` holds the variance of each pixel; the convolved image's noise is correlated between pixels.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> diff = ztfxr.difference(made.images, made.reference)
    >>> diff.difference.dims
    ('time', 'y', 'x')
    """
    given: KernelOptions = {
        "kernel_size": kernel_size,
        "kernel_order": kernel_order,
        "scale_order": scale_order,
        "background_order": background_order,
        "basis": basis,
        "solve_on": solve_on,
        "convolve": convolve,
        "weights": weights,
        "smoothing": smoothing,
        "n_cutouts": n_cutouts,
        "cutout_size": cutout_size,
        "clip": clip,
    }
    if isinstance(science, xr.DataTree):
        _refuse_for_trees(science, reference, variance, reference_variance)
        own = partial(difference, **given, exclude=exclude, exclude_radius=exclude_radius, known_scale=known_scale)
        return on_each(
            partial(own, fwhm=fwhm, mask=mask, reference_mask=reference_mask, model_error=model_error), science
        )
    pair = gather_pair(
        science,
        reference,
        variance=variance,
        reference_variance=reference_variance,
        mask=mask,
        reference_mask=reference_mask,
    )
    around = _Around(exclude, exclude_radius)
    return _differenced(pair, match_options(pair, given), around, known_scale, fwhm, model_error=model_error)


def _refuse_for_trees(tree: xr.DataTree, *of_one_image: Labeled | None) -> None:
    """`InputError` where a Dataset of the tree has no reference of its own, or where one image is given for all."""
    if any(given is not None for given in of_one_image) or not holds_pairs(tree):
        raise InputError(
            "a tree is differenced where each Dataset holds its own reference, as alerts do; give frames of one field "
            "as a stack: ztfxr.stack(tree, like=reference)"
        )


def difference_for(
    positions: Positions,
    science: Labeled,
    reference: Labeled | None = None,
    *,
    exclude: Positions | None = None,
    exclude_radius: float | None = None,
    known_scale: tuple[float, float] | None = None,
    fwhm: tuple[float, float] | None = None,
    variance: xr.DataArray | None = None,
    reference_variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    reference_mask: MaskChoice = None,
    model_error: bool = False,
    **options: Unpack[KernelOptions],
) -> xr.Dataset:
    """`difference`, but what is to be measured at `positions` does not shape the kernel.

    Pixels around them are left out of its solution, where enough light is left to find it by; see `ztfxr.lightcurve`.
    """
    pair = gather_pair(
        science,
        reference,
        variance=variance,
        reference_variance=reference_variance,
        mask=mask,
        reference_mask=reference_mask,
    )
    around = _Around(exclude, exclude_radius, positions)
    return _differenced(pair, match_options(pair, options), around, known_scale, fwhm, model_error=model_error)


@dataclass(frozen=True)
class _Around:
    """Positions whose surroundings must not shape the kernel: some always, those that are measured where it can be."""

    exclude: Positions | None
    radius: float | None
    measured: Positions | None = None

    def __post_init__(self) -> None:
        if self.radius is not None and not 0 <= self.radius < np.inf:
            raise InputError(f"exclude_radius is a number of pixels, 0 for none; got {self.radius}")

    def pixels(self, pair: Pair) -> float:
        """The radius around each that is left out at least."""
        return _excluded_radius(pair) if self.radius is None else self.radius

    def inputs(self, pair: Pair, options: MatchOptions) -> tuple[dict[str, xr.DataArray | None], Measured]:
        """What array code needs to leave them out."""
        radius = self.pixels(pair)
        distance, one_place, places = pair.around(self.measured, radius)
        constant = options.kernel_order == 0 and options.solve_on == "all"
        how = Measured(radius, self.radius is not None or pair.is_alert, one_place, constant, places)
        return {"named": pair.near(self.exclude, radius), "distance": distance}, how


def _differenced(
    pair: Pair,
    options: MatchOptions,
    around: _Around,
    known_scale: tuple[float, float] | None,
    fwhm: tuple[float, float] | None,
    *,
    model_error: bool,
) -> xr.Dataset:
    """The result of `difference` for a pair."""
    n_modes = _n_modes(options, pair.n_pixels) if model_error else 0
    excluded, measured = around.inputs(pair, options)
    found = pair.map(
        _matched,
        {**pair.inputs(), "excluded": excluded, "told": pair.told_scale(known_scale) | pair.told_widths(fwhm)},
        [name for name in _Results._fields if name != "model_error" or model_error],
        sizes=_sizes(options, n_modes),
        options={"options": options, "n_modes": n_modes, "measured": measured},
    )
    offset = np.arange(options.max_size) - options.max_size // 2
    out = pair.results(found).assign_coords(ky=offset, kx=offset)
    out.attrs |= _attrs(options) | {"exclude_radius": around.pixels(pair)}
    with suppress(InputError):
        # Binned or reversed pixels are not those of a frame: such an image has no frame to state.
        out.attrs |= KernelFrame.of_image(pair.science.image).attrs()
    return out


class _Results(NamedTuple):
    """What is found of one image, by the names of the schema."""

    difference: NDArray[np.float32]
    difference_variance: NDArray[np.float32]
    mask: Bools
    kernel: Floats
    kernel_err: Floats
    kernel_coeff: Floats
    kernel_order: int
    kernel_sum: float
    kernel_sum_err: float
    background_coeff: Floats
    background_coeff_err: Floats
    chi2: float
    noise_ratio: float
    lost_fraction: float
    convolved_share: float
    n_pixels: int
    n_cutouts: int
    n_rejected: int
    condition: float
    science_convolved: bool
    kernel_sum_pull: float
    kernel_shift_y: float
    kernel_shift_x: float
    border_light: float
    light_left: float
    kept_light: float
    rejected_chi2: float
    background_chi2: float
    epoch_status: int
    model_error: NDArray[np.float32] | None


def _matched(
    *,
    science: NDArray[Any],
    science_bad: Bools,
    science_variance: NDArray[Any] | None,
    reference: NDArray[Any],
    reference_bad: Bools,
    reference_variance: NDArray[Any] | None,
    excluded: dict[str, NDArray[Any] | None],
    told: dict[str, NDArray[Any] | None],
    options: MatchOptions,
    n_modes: int,
    measured: Measured,
) -> _Results:
    """Match and subtract one image (y, x), with `n_modes` of the model's error if any."""
    sci = Image.of(science, science_variance, science_bad)
    ref = Image.of(reference, reference_variance, reference_bad)
    _require_magnitude(sci, ref)
    unused = excluded_with(sci, ref, excluded, measured)
    matched = match(sci, ref, unused, replace(options, expected=_expected(**told)))
    solution, size = matched.solution, options.max_size
    coefficients = np.zeros((n_terms(options.max_order), size, size))
    coefficients[: len(solution.coefficients)] = pad(solution.coefficients, size)
    return _Results(
        difference=matched.difference,
        difference_variance=matched.variance,
        mask=matched.bad,
        kernel=pad(solution.at(0.0, 0.0), size),
        kernel_err=pad(solution.error_at(0.0, 0.0), size),
        kernel_coeff=coefficients,
        kernel_order=solution.order,
        kernel_sum=solution.scale,
        kernel_sum_err=solution.scale_error(),
        background_coeff=_padded(solution.background, options),
        background_coeff_err=_padded(solution.background_error(), options),
        chi2=solution.chi2,
        noise_ratio=matched.noise_ratio(),
        lost_fraction=float((matched.bad & ~sci.bad).mean()),
        convolved_share=matched.convolved_share(),
        n_pixels=solution.n_pixels,
        n_cutouts=len(solution.kept),
        n_rejected=int((~solution.kept).sum()),
        condition=solution.condition,
        science_convolved=matched.convolved == "science",
        **verdict_numbers(matched),
        epoch_status=verdict_status(matched, sci.n_blank + ref.n_blank),
        model_error=_modes(matched, n_modes) if n_modes else None,
    )


def _require_magnitude(*images: Image) -> None:
    """Raise `InputError` where the square of an image's noise has no place in single precision."""
    for image in images:
        noise = image.sky[1]
        if noise > 0 and not _LEAST_NOISE < noise < 1.0 / _LEAST_NOISE:
            raise InputError(
                f"the noise of an image is {noise:.1e}, whose square is beyond single precision; give the image in "
                "another unit: counts, or nJy in place of erg/s/cm2/Hz"
            )


def _expected(
    *,
    scale: Floats | None,
    error: Floats | None,
    science_fwhm: Floats | None,
    reference_fwhm: Floats | None,
    fwhm_error: Floats | None,
) -> ExpectedKernel:
    """What is told of the kernel of one epoch; what is not a number, or has no error, is not told."""
    told = NOTHING_TOLD
    if science_fwhm is not None and reference_fwhm is not None and fwhm_error is not None and science_fwhm > 0:
        told = ExpectedKernel.of_psfs(float(science_fwhm), float(reference_fwhm), relative_error=float(fwhm_error))
    if scale is None or error is None or not (np.isfinite(scale) and error > 0 and np.isfinite(error)):
        return told
    return replace(told, scale=float(scale), scale_error=float(error))


def _excluded_radius(pair: Pair) -> float:
    """Pixels around a variable object that are left out: fewer in an alert's stamp, whose light there is needed."""
    return _ALERT_RADIUS if pair.is_alert else _RADIUS


def _padded(terms: Floats, options: MatchOptions) -> Floats:
    """Coefficients with zeros for the terms of orders that were not chosen."""
    return np.pad(terms, (0, n_terms(options.max_background_order) - len(terms)))


def _sizes(options: MatchOptions, n_modes: int) -> dict[str, int]:
    """The sizes of dimensions that no image has."""
    return {
        "ky": options.max_size,
        "kx": options.max_size,
        "kterm": n_terms(options.max_order),
        "term": n_terms(options.max_background_order),
        "mode": n_modes,
    }


def _attrs(options: MatchOptions) -> dict[str, Any]:
    """The options that the result states."""
    return {
        "kernel_size": options.kernel_size or "auto",
        "kernel_order": "auto" if options.kernel_order is None else options.kernel_order,
        "background_order": "auto" if options.background_order is None else options.background_order,
        "solve_on": options.solve_on,
        "basis": options.basis,
    }


def _n_modes(options: MatchOptions, n_pixels: int) -> int:
    """Free parameters at most, where their modes can be held."""
    if n_pixels > _MODE_PIXELS:
        raise InputError(
            f"model_error is for stamps of at most 256 × 256 pixels; got {n_pixels} pixels: cut out what is measured "
            "before the difference, or leave it out, since the stars of a frame fix its kernel"
        )
    if options.kernel_size is None or options.kernel_order is None:
        raise InputError("model_error needs a kernel_size and a kernel_order that are numbers, not 'auto'")
    return n_terms(options.max_order) * options.kernel_size**2 + n_terms(options.max_background_order)


def _modes(matched: Matched, number: int) -> NDArray[np.float32]:
    """`Matched.model_error`, with modes of zero for parameters that were not free."""
    modes = matched.model_error()
    return np.concatenate([modes, np.zeros((number - len(modes), *modes.shape[1:]), dtype=np.float32)])
