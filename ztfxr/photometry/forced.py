"""Forced PSF photometry at fixed positions, over stacks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.correlation import autocorrelation
from ztfxr.arrays.options import options_from
from ztfxr.arrays.psf.convolved import DifferenceKernel, Side
from ztfxr.arrays.psf.fit import (
    ConvolvedNoise,
    FitImage,
    FitOptions,
    LocalBackground,
    SourceFits,
    fit_sources,
    position_equations,
)
from ztfxr.arrays.psf.model import PSFModel
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.errors import InputError
from ztfxr.ops.exposure import Exposure, MaskChoice, gather
from ztfxr.ops.mapping import map_images
from ztfxr.ops.positions import Positions, array_positions, resolve_positions
from ztfxr.photometry.psf import PSF, KernelInputs, PSFInputs, psf_model
from ztfxr.photometry.psf_build import psf_of
from ztfxr.photometry.status import Coverage, fit_flags, fits_poorly
from ztfxr.schema import annotate_all

__all__ = ["ConvolvedVariance", "FitOptions", "check_background", "forced_photometry"]

Background: TypeAlias = Literal["none", "global", "annulus", "fit"] | tuple[float, float]
Arrays: TypeAlias = Mapping[str, Any]

_OUTPUTS = (
    "flux",
    "flux_err",
    "psf_err",
    "local_background",
    "fit_chi2",
    "fit_pixels",
    "masked_fraction",
    "status",
    "fit_flags",
)
_MAX_STEP, _MAX_POSITION_ERROR = 0.5, 0.2


@dataclass(frozen=True)
class ConvolvedVariance:
    """Variances of the images of a difference before one of them was convolved with the matching kernel.

    Parameters
    ----------
    science, reference
        Variance per pixel, a number or a map. Only that of the image that was convolved counts; it is measured on the
        correlation of the difference's noise where it is not given.
    """

    science: xr.DataArray | float | None = None
    reference: xr.DataArray | float | None = None

    def inputs(self) -> dict[str, xr.DataArray | None]:
        """Both as arrays, by the names of the images."""
        given = {"science": self.science, "reference": self.reference}
        return {k: v if v is None or isinstance(v, xr.DataArray) else xr.DataArray(float(v)) for k, v in given.items()}


Correlation: TypeAlias = xr.DataArray | Literal["measure"] | ConvolvedVariance | Mapping[str, Any] | None


def forced_photometry(
    obj: xr.Dataset | xr.DataArray | xr.DataTree,
    positions: Positions,
    psf: PSF | xr.DataTree | None = None,
    *,
    reference_psf: PSF | None = None,
    background: Background | None = None,
    fit: FitOptions | Mapping[str, Any] | None = None,
    correlation: Correlation = None,
    variance: xr.DataArray | None = None,
    mask: MaskChoice = None,
    refine: int = 0,
    psf_error: bool | None = None,
    bound: bool = False,
) -> xr.Dataset:
    """Fluxes of point sources at fixed positions, by PSF fits that are linear; lazy, one epoch a task.

    Parameters
    ----------
    obj
        An image (..., y, x); a Dataset with `difference` (of `ztfxr.difference` or `ztfxr.decorrelate`), else `sci`; or
        a DataTree of frames, each measured on its own pixels.
    positions
        Where to measure, as `ztfxr.resolve_positions` takes it. Sky positions follow each frame's WCS.
    psf
        PSF of the (science) image: from `ztfxr.build_psf` or `ztfxr.read_psf`, for all epochs or with `time`; a stamp
        (..., psf_y, psf_x) with one value per pixel; or a DataTree with the names of the frames. In a difference image
        the matching kernel is applied to it where it acted on the science image. By default built from the image,
        which a difference does not allow.
    reference_psf
        For differences, in place of `psf`: PSF of the reference, which the kernel turns into that of each epoch.
        Positions are then places in the reference, and the kernel, which holds the small shift of each epoch against
        it, takes them along; with `psf` they are places in the science image. Light in wings that the kernel is too
        small to hold is missed: 0.2 % with the size that `ztfxr.difference` takes by default.
    background
        Level under the sources. ``"none"``: the image has none (default for differences). ``"global"``: subtract
        `ztfxr.background` first (default for science images). ``"fit"``: a constant under each source, solved with the
        fluxes. A pair of radii in pixels: the clipped median of the ring between them around each source;
        ``"annulus"``: the same from 4 to 8 FWHM.
    fit
        How the PSF is fitted: radius, grouping of neighbors, weights and what is too little light; a `FitOptions`, or
        its options as a mapping.
    correlation
        What is known of the correlation between the noise of neighboring pixels. An autocorrelation (lag_y, lag_x) of
        odd lengths, 1 in the middle, for resampled images; ``"measure"`` measures it on the sky of each image. For
        differences it follows by default from the matching kernel and from the variance that the convolved image had
        before, which is measured, or stated by a `ConvolvedVariance` or a mapping of its options.
    variance
        Variance per pixel in the square of the image's unit; by default `difference_variance` or `variance` of the
        Dataset, else `ztfxr.variance`.
    mask
        Boolean, True where bad; by default that of the Dataset. Bad and non-finite pixels carry no weight.
    refine
        Steps by which positions are refined, once per source over all epochs, never per epoch: sources whose position
        all epochs together fix to 0.2 pixels and that stand alone move to where they fit best.
    psf_error
        Whether the PSF's own error, where it is known (`ztfxr.build_psf`), is part of `flux_err`. It is a factor that
        all fluxes of an image share, and all epochs where they share the PSF: False to compare such fluxes with each
        other. By default True, but False with `reference_psf`, which all epochs share.
    bound
        Whether to add `flux_err_bound`.

    Returns
    -------
    xarray.Dataset
        On (..., source): `flux` and `flux_err` (unit of the image; the flux of the whole PSF, of unit sum), `psf_err`
        (relative to the flux; NaN where the PSF's error is not known) and, where the Dataset has `model_error` (see
        `ztfxr.difference`), `model_err`, both part of `flux_err`; `local_background`, `fit_chi2` (reduced),
        `fit_pixels`, `masked_fraction` (of the light), `status` and `fit_flags` (`saturated`, `blended`, `poor_fit`). A
        flux that could not be measured is NaN with a status that says why; an epoch's own status is passed on to its
        sources.
        With `bound`, `flux_err_bound`: the Cramér-Rao bound for independent pixels of that variance, over all that the
        PSF reaches. With `refine`, `x_refined` and `y_refined`. A fit is poor where its reduced χ² is over 2 and what
        it leaves is more than the source's own light: a cosmic ray or a changed neighbor, not a PSF that is wrong by
        some per cent.

    Raises
    ------
    InputError, MissingWCSError, ChunkError, AlignmentError

    Notes
    -----
    ``f = Σ w P D / Σ w P²`` with P the pixel-integrated PSF at its sub-pixel place (Naylor 1998, MNRAS 296, 339);
    groups solve ``Σ w P_i (D - Σ_j f_j P_j) = 0``. ``flux_err² = Σ c² V`` with ``c = w P / Σ w P²``, and with the noise
    of a convolved image ``Σ_u V(u) (Σ c(p) K(p - u))²``: right whatever the weights; the PSF's error adds
    ``(f · psf_err)²``.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> phot = ztfxr.forced_photometry(ds, ztfxr.sources(ds), ztfxr.build_psf(ds))
    >>> phot.flux.dims
    ('source',)
    """
    if refine not in range(11):
        raise InputError(f"refine is a number of steps from 0 to 10; got {refine!r}")
    options = options_from(FitOptions, fit, "fit")
    check_background(background)
    counts = reference_psf is None if psf_error is None else psf_error
    if isinstance(obj, xr.DataTree):
        if refine:
            raise InputError("positions are refined on images that share a pixel grid; stack or align the frames first")
        measure = partial(
            forced_photometry,
            positions=positions,
            reference_psf=reference_psf,
            background=background,
            fit=options,
            correlation=correlation,
            variance=variance,
            mask=mask,
            psf_error=counts,
            bound=bound,
        )
        return _over_frames(obj, psf, measure)
    exposure = gather(obj, variance=variance, mask=mask)
    task = _task(exposure, _which_psf(exposure, psf, reference_psf), background, options, correlation)
    where = resolve_positions(exposure.image, positions)
    y, x = array_positions(where, exposure.origin)
    for _ in range(refine):
        y, x = _refined(task, y, x)
    extra = {"model_err": exposure.model_error is not None, "flux_err_bound": bound}
    found = map_images(
        _fluxes,
        task.inputs | {"y": y, "x": x},
        [*_OUTPUTS, *(name for name, wanted in extra.items() if wanted)],
        options={"how": task.how, "psf_error": counts, "bound": bound},
    )
    out = xr.Dataset(found).assign_coords(where.coords)
    if refine:
        out = out.assign({f"{d}_refined": p + exposure.origin[d] for d, p in (("x", x), ("y", y))})
    for status in (exposure.status, task.psf_status):
        if status is not None:
            out["status"] = out["status"] | status.variable
    out.attrs = {"weights": options.weights, "background": task.background}
    return annotate_all(out, unit=exposure.unit)


def check_background(background: Background | None) -> None:
    """Raise `InputError` where `background` is neither a choice nor a pair of radii."""
    if background is None or background in ("none", "global", "annulus", "fit"):
        return
    if isinstance(background, str):
        raise InputError(f"background is 'none', 'global', 'annulus' or 'fit'; got {background!r}")
    if len(background) != 2 or not 0 < background[0] < background[1] < np.inf:
        raise InputError(f"the annulus is an inner and a larger outer radius in pixels; got {background!r}")


# ---- what is measured -----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _How:
    """What the mapped functions know beside arrays; `origin` is the absolute pixel (y, x) of the first."""

    options: FitOptions
    background: LocalBackground
    origin: tuple[float, float]
    oversampling: int
    side: Side
    frame: KernelFrame | None
    measure_correlation: bool


@dataclass(frozen=True)
class _Task:
    """Inputs of the mapped functions but for the positions, and what the results are told."""

    inputs: dict[str, Any]
    how: _How
    background: str | list[float]
    psf_status: xr.DataArray | None


def _which_psf(exposure: Exposure, psf: PSF | xr.DataTree | None, reference_psf: PSF | None) -> tuple[PSF, Side]:
    """The PSF to fit, and the image that it belongs to."""
    difference = exposure.name == "difference"
    if isinstance(psf, xr.DataTree):
        raise InputError("a DataTree of PSFs goes with a DataTree of frames; give the PSF of this image")
    if reference_psf is not None:
        if not difference or psf is not None:
            raise InputError("reference_psf is for difference images, in place of psf")
        return reference_psf, "reference"
    if psf is not None:
        return psf, "science"
    if difference:
        raise InputError("a difference has few stars to learn from: give psf= of the science image, or reference_psf=")
    return psf_of(exposure), "science"


def _task(
    exposure: Exposure,
    psf: tuple[PSF, Side],
    background: Background | None,
    options: FitOptions,
    correlation: Correlation,
) -> _Task:
    """Collect what one image needs."""
    own = PSFInputs.of(psf[0])
    difference = exposure.name == "difference"
    kernel = KernelInputs.of(exposure.owner) if difference and isinstance(exposure.owner, xr.Dataset) else None
    is_difference = difference or exposure.image.name == "difference"
    chosen: Background = background or ("none" if is_difference else "global")
    lags, before = _correlation(correlation, kernel)
    inputs = {
        "image": exposure.image,
        "variance": exposure.variance,
        "bad": exposure.bad,
        "level": exposure.background if chosen == "global" else None,
        "saturated": exposure.saturated,
        "modes": exposure.model_error,
        "correlation": lags,
        "psf": own.arrays,
        "kernel": None if kernel is None else kernel.arrays,
        "before": None if kernel is None else before.inputs(),
    }
    how = _How(
        options,
        "none" if chosen == "global" else chosen,
        (float(exposure.origin["y"]), float(exposure.origin["x"])),
        own.oversampling,
        psf[1],
        None if kernel is None else kernel.frame,
        isinstance(correlation, str),
    )
    return _Task(inputs, how, chosen if isinstance(chosen, str) else [float(r) for r in chosen], own.status)


def _correlation(given: Correlation, kernel: KernelInputs | None) -> tuple[xr.DataArray | None, ConvolvedVariance]:
    """The autocorrelation that is stated, and the variances before the convolution."""
    if given is None or (isinstance(given, str) and given == "measure"):
        return None, ConvolvedVariance()
    if isinstance(given, ConvolvedVariance | Mapping):
        if kernel is None:
            raise InputError("variances before the convolution are for difference images; this one has no kernel")
        return None, options_from(ConvolvedVariance, given, "correlation")
    if not isinstance(given, xr.DataArray) or not {"lag_y", "lag_x"} <= set(given.dims):
        raise InputError(
            "correlation is 'measure' or a DataArray with dimensions (lag_y, lag_x), 1 in the middle, or for "
            "differences a ConvolvedVariance"
        )
    if any(given.sizes[d] % 2 == 0 for d in ("lag_y", "lag_x")):
        raise InputError(f"correlation has odd lengths, with lag 0 in the middle; got {dict(given.sizes)}")
    return given, ConvolvedVariance()


# ---- one image ------------------------------------------------------------------------------------------------------


def _observed(
    *,
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    level: NDArray[Any] | None,
    saturated: Bools | None,
    modes: NDArray[Any] | None,
    correlation: Floats | None,
    psf: Arrays,
    kernel: Arrays | None,
    before: Arrays | None,
    places: tuple[Floats, Floats],
    how: _How,
) -> tuple[FitImage, PSFModel]:
    """What is fitted to, and the PSF; `NoSolutionError` where the image has no PSF."""
    model = psf_model(how.oversampling, **psf)
    values = image if level is None else image - level
    seen = FitImage(values, variance, bad, how.origin, saturated, modes=modes)
    if kernel is not None and before is not None and how.frame is not None:
        acting = DifferenceKernel.of(**kernel)
        terms = how.frame.terms(places[0] + how.origin[0], places[1] + how.origin[1], len(acting.coefficients))
        seen = replace(seen, convolved=_convolved(acting, seen, before, terms, how.side))
    if how.measure_correlation:
        correlation = autocorrelation(values, variance, bad)
    elif correlation is not None:
        correlation = correlation / correlation[correlation.shape[0] // 2, correlation.shape[1] // 2]
    if correlation is None:
        return seen, model
    white = None if seen.convolved is None else seen.convolved.white()
    return replace(seen, convolved=white, correlation=correlation), model


def _convolved(kernel: DifferenceKernel, seen: FitImage, before: Arrays, terms: Floats, side: Side) -> ConvolvedNoise:
    """What the kernel did to the PSF and to the noise; a whitened difference has none that is correlated."""
    spread = kernel.spread(side)
    if kernel.whitening is not None:
        return ConvolvedNoise(terms, spread)
    known = before[kernel.acts_on]
    if known is None or not np.isfinite(known).any():
        known = kernel.measured_variance(seen.image, seen.variance, seen.bad)
    variance = np.broadcast_to(np.where(np.isfinite(known), known, 0.0), seen.image.shape)
    return ConvolvedNoise(terms, spread, kernel.noise_kernels(), variance)


def _fluxes(*, y: Floats, x: Floats, how: _How, psf_error: bool, bound: bool, **arrays: Any) -> dict[str, NDArray[Any]]:
    """Fluxes in one image and what belongs to them, each (source,)."""
    seen, model = _observed(**arrays, places=(y, x), how=how)
    fits = fit_sources(seen, y, x, model, how.options, how.background)
    own = model.flux_error(y + how.origin[0], x + how.origin[1])
    error = np.hypot(fits.flux_err, fits.model_err)
    if psf_error:
        error = np.hypot(error, np.nan_to_num(own) * fits.flux)
    cover = Coverage(fits.lost, fits.outside)
    found = {
        "flux": fits.flux,
        "flux_err": error,
        "model_err": fits.model_err,
        "psf_err": np.where(np.isfinite(fits.flux), own, np.nan),
        "local_background": fits.background,
        "fit_chi2": fits.chi2,
        "fit_pixels": fits.n_pixels,
        "masked_fraction": cover.masked_fraction,
        "status": _status(fits, cover, how.options.max_masked_fraction),
        "fit_flags": fit_flags(
            fits.saturated, fits.blended, fits_poorly(fits.chi2, fits.n_pixels, fits.flux / fits.flux_err)
        ),
    }
    return found | ({"flux_err_bound": _bound(seen, y, x, model, how)} if bound else {})


def _status(fits: SourceFits, cover: Coverage, limit: float) -> NDArray[Any]:
    missing = ~np.isfinite(fits.flux)
    dark = (fits.lost > limit) | (fits.n_pixels < 2)
    return cover.status(no_good=missing & dark, failed=missing & ~dark)


def _bound(seen: FitImage, y: Floats, x: Floats, model: PSFModel, how: _How) -> Floats:
    """The error of the same fit over all that the PSF reaches, each pixel weighted by its own variance."""
    white = None if seen.convolved is None else seen.convolved.white()
    radius = float(model.reach + (0 if white is None else white.margin))
    options = replace(how.options, radius=radius, weights="variance")
    plain = replace(seen, convolved=white, correlation=None, modes=None)
    return fit_sources(plain, y, x, model, options, how.background).flux_err


# ---- positions over all epochs --------------------------------------------------------------------------------------


def _refined(task: _Task, y: xr.DataArray, x: xr.DataArray) -> tuple[xr.DataArray, xr.DataArray]:
    """Array positions moved by one Gauss-Newton step that all images share."""
    found = map_images(
        _position_sums,
        task.inputs | {"y": y, "x": x},
        ["position_equations"],
        sizes={"equation": 5},
        options={"how": task.how},
    )["position_equations"]
    # An image without a PSF says nothing, and is NaN, which the sum passes over.
    sums = found.sum([d for d in found.dims if d not in ("source", "equation")], skipna=True)
    steps = map_images(_position_step, {"sums": sums.reset_coords(drop=True)}, ["y_refined", "x_refined"])
    return y + steps["y_refined"], x + steps["x_refined"]


def _position_sums(*, y: Floats, x: Floats, how: _How, **arrays: Any) -> Floats:
    seen, model = _observed(**arrays, places=(y, x), how=how)
    fits = fit_sources(seen, y, x, model, how.options, how.background)
    return position_equations(fits, seen, y, x, model, how.options)


def _position_step(sums: Floats) -> dict[str, Floats]:
    """``H⁻¹ g`` where the position is known well enough, at most half a pixel."""
    g_y, g_x, yy, yx, xx = sums.T
    determinant = yy * xx - yx**2
    known = (determinant > 0) & (np.maximum(yy, xx) < determinant * _MAX_POSITION_ERROR**2)
    scale = np.where(known, 1.0 / np.where(known, determinant, 1.0), 0.0)
    dy, dx = scale * (xx * g_y - yx * g_x), scale * (yy * g_x - yx * g_y)
    return {"y_refined": np.clip(dy, -_MAX_STEP, _MAX_STEP), "x_refined": np.clip(dx, -_MAX_STEP, _MAX_STEP)}


# ---- frames on grids of their own -----------------------------------------------------------------------------------


def _over_frames(tree: xr.DataTree, psf: PSF | xr.DataTree | None, measure: Callable[..., xr.Dataset]) -> xr.Dataset:
    """Each frame on its own pixels, one after the other along time."""
    frames = {name: node.to_dataset() for name, node in tree.children.items() if "sci" in node or "difference" in node}
    if not frames:
        raise InputError("the DataTree has no child with sci or difference")
    psfs = {name: psf[name].to_dataset() if isinstance(psf, xr.DataTree) else psf for name in frames}
    parts = [measure(frame, psf=psfs[name]) for name, frame in frames.items()]
    shared = [c for c in ("ra", "dec", "source_id") if c in parts[0].coords]
    known = {c: parts[0][c].variable for c in shared}
    rows = [p.drop_vars(shared).expand_dims("time") for p in parts]
    rows = [r.assign_coords({c: r[c].expand_dims("time") for c in r.coords if "time" not in r[c].dims}) for r in rows]
    joined = xr.concat(rows, dim="time", combine_attrs="override", coords="minimal", compat="override", join="override")
    return joined.assign_coords(known)
