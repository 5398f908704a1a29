"""Forced PSF photometry at fixed positions, over stacks."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.correlation import autocorrelation
from ztfxr.arrays.psf.fit import FitOptions, SourceFits, fit_sources, position_equations
from ztfxr.arrays.psf.model import PSFModel
from ztfxr.arrays.types import Bools, Floats
from ztfxr.dia._pair import bare
from ztfxr.dia.kernel_frame import KernelFrame
from ztfxr.errors import InputError
from ztfxr.ops._apply import IMAGE, apply_images
from ztfxr.ops.background import background as sky_background
from ztfxr.ops.masks import mask as decode_mask
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.photometry._kernels import Side, convolved_noise, kernel_inputs, kernel_terms, spread_kernels
from ztfxr.photometry.aperture import image_and_noise
from ztfxr.photometry.psf import build_psf, psf_inputs, psf_model
from ztfxr.schema import FIT_PLANES, STATUS_PLANES, annotate_all, planes_to_bits

__all__ = ["forced_photometry"]

PSF: TypeAlias = xr.Dataset | xr.DataArray
Background: TypeAlias = Literal["none", "global", "annulus", "fit"]
Weights: TypeAlias = Literal["model", "variance"]

_SOURCE, _POSITION = ("source",), ("source", "equation")
_OUTPUTS = dict.fromkeys(
    (
        "flux",
        "flux_err",
        "psf_err",
        "local_background",
        "fit_chi2",
        "fit_pixels",
        "masked_fraction",
        "status",
        "fit_flags",
    ),
    _SOURCE,
)
_OUTSIDE, _EDGE, _MASKED, _NO_GOOD, _FAILED = (
    planes_to_bits([name], STATUS_PLANES) for name in ("outside", "edge", "masked", "no_good_pixels", "solve_failed")
)
_SATURATED, _BLENDED = (planes_to_bits([name], FIT_PLANES) for name in ("saturated", "blended"))
_MAX_STEP, _MAX_POSITION_ERROR = 0.5, 0.2


def forced_photometry(
    obj: xr.Dataset | xr.DataArray | xr.DataTree,
    positions: Positions,
    psf: PSF | xr.DataTree | None = None,
    *,
    reference_psf: PSF | None = None,
    background: Background | None = None,
    annulus: tuple[float, float] | None = None,
    radius: float | None = None,
    group_radius: float | None = None,
    weights: Weights = "model",
    correlation: xr.DataArray | Literal["measure"] | None = None,
    variance: xr.DataArray | None = None,
    science_variance: xr.DataArray | float | None = None,
    reference_variance: xr.DataArray | float | None = None,
    mask: xr.DataArray | Literal[False] | None = None,
    max_masked_fraction: float = 0.5,
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
        As for `ztfxr.resolve_positions`. Sky positions follow each frame's WCS.
    psf
        PSF of the (science) image: of `ztfxr.build_psf` or `ztfxr.read_psf`, for all epochs or with `time`; a stamp
        (..., psf_y, psf_x) with one value per pixel; or a DataTree with the names of the frames. In a difference image
        the matching kernel is applied to it where it acted on the science image. By default built from the image,
        which a difference does not allow.
    reference_psf
        For differences, in place of `psf`: PSF of the reference, which the kernel turns into that of each epoch.
        Positions are then places in the reference, and the kernel, which holds the small shift of each epoch against
        it, takes them along; with `psf` they are places in the science image. Light in wings that the kernel is too
        small to hold is missed: 0.2 % with the size that `ztfxr.difference` takes by default.
    background
        ``"none"``: the image has none (default for differences). ``"global"``: subtract `ztfxr.background` first
        (default for science images). ``"annulus"``: the clipped median of a ring around each source. ``"fit"``: a
        constant under each source, solved with the fluxes.
    annulus
        Inner and outer radius in pixels, by default 4 and 8 FWHM.
    radius
        Of the disk that is fitted, in pixels; by default 3 FWHM, where less than 1 % of the information is lost.
    group_radius
        Sources closer than this are solved jointly, in pixels; by default `radius` and one FWHM. Zero for none.
    weights
        ``"model"``: inverse of sky variance plus that of the sources' light, which are fitted to the variance map and
        so follow no pixel's own noise; weights that do pull bright fluxes low, by the fraction of a photoelectron per
        pixel. ``"variance"``: inverse of the map, where it is free of noise.
    correlation
        Autocorrelation of the noise (lag_y, lag_x), odd, 1 in the middle, for resampled images; ``"measure"``
        measures it on the sky of each image. By default that of the matching kernel in differences, else none.
    variance
        Variance per pixel in DN²; by default `difference_variance` or `variance` of the Dataset, else
        `ztfxr.variance`.
    science_variance, reference_variance
        For differences, the variance of the image that was convolved, before that: a number or a map. It fixes the
        covariance of the difference's pixels; by default it is measured on the correlation of its noise.
    mask
        Boolean, True where bad; by default that of the Dataset. Bad and non-finite pixels carry no weight.
    max_masked_fraction
        Sources that have lost a larger fraction of their light to bad pixels have no flux (status `no_good_pixels`).
    refine
        Steps by which positions are refined, once per source over all epochs, never per epoch: sources whose position
        all epochs together fix to 0.2 pixels and that stand alone move to where they fit best.
    psf_error
        The PSF's own error is part of `flux_err`, where it is known (`ztfxr.build_psf`). It is a factor that all fluxes
        of an image share, and all epochs where they share the PSF: False to compare such fluxes among each other. By
        default True, but False with `reference_psf`, which all epochs share.
    bound
        Add `flux_err_bound`.

    Returns
    -------
    xarray.Dataset
        On (..., source): `flux` and `flux_err` (unit of the image; the flux of the whole PSF, of unit sum), `psf_err`
        (relative to the flux; NaN where the PSF's error is not known) and, where the Dataset has `model_error` (see
        `ztfxr.difference`), `model_err`, both part of `flux_err`; `local_background`, `fit_chi2` (reduced),
        `fit_pixels`, `masked_fraction` (of the light), `status` and `fit_flags` (`saturated`, `blended`). A flux that
        could not be measured is NaN with a status that says why; an epoch's own status is passed on to its sources.
        With `bound`, `flux_err_bound`: the Cramér-Rao bound for independent pixels of that variance, over all that the
        PSF reaches. With `refine`, `x_refined` and `y_refined`.

    Raises
    ------
    InputError, MissingWCSError, ChunkError

    Notes
    -----
    ``f = Σ w P D / Σ w P²`` with P the pixel-integrated PSF at its sub-pixel place (Naylor 1998, MNRAS 296, 339);
    groups solve ``Σ w P_i (D - Σ_j f_j P_j) = 0``. ``flux_err² = Σ c² V`` with ``c = w P / Σ w P²``, and with the noise
    of a convolved image ``Σ_u V(u) (Σ c(p) K(p - u))²``: right whatever the weights; the PSF's error adds
    ``(f · psf_err)²``.
    """
    if isinstance(obj, xr.DataTree):
        options = {k: v for k, v in locals().items() if k not in ("obj", "positions", "psf")}
        return _over_frames(obj, positions, psf, options)
    _check(background, weights, refine, annulus, radius, group_radius, max_masked_fraction)
    job = _job(obj, psf, reference_psf, background, variance, mask, correlation, science_variance, reference_variance)
    where = resolve_positions(job.image, positions)
    chosen = FitOptions(
        radius,
        group_radius,
        weights == "model",
        {"global": "none"}.get(job.background, job.background),
        annulus,
        max_masked_fraction,
    )
    kwargs = {**job.kwargs, "options": chosen}
    counts = reference_psf is None if psf_error is None else psf_error
    results = {"bound": bound, "psf_error": counts, "with_modes": job.with_modes}
    x, y = (xr.DataArray(where[f"{d}_pixel"].values - job.origin[d], dims="source") for d in ("x", "y"))
    for _ in range(refine):
        x, y = _refined(job, x, y, kwargs)
    extra = {"model_err": job.with_modes, "flux_err_bound": bound}
    outputs = _OUTPUTS | {name: _SOURCE for name, wanted in extra.items() if wanted}
    found = apply_images(_fit_one, *job.inputs, y, x, inputs=job.core, outputs=outputs, kwargs=kwargs | results)
    out = xr.Dataset(found).assign_coords(where.coords)
    if refine:
        out = out.assign({f"{d}_refined": p + job.origin[d] for d, p in (("x", x), ("y", y))})
    for status in job.status:
        out["status"] = out["status"] | status.variable
    out.attrs = {"weights": weights, "background": job.background}
    return annotate_all(out)


def _check(
    background: str | None,
    weights: str,
    refine: int,
    annulus: tuple[float, float] | None,
    radius: float | None,
    group_radius: float | None,
    max_masked_fraction: float,
) -> None:
    if background is not None and background not in get_args(Background):
        raise InputError(f"background is 'none', 'global', 'annulus' or 'fit'; got {background!r}")
    if weights not in get_args(Weights):
        raise InputError(f"weights is 'model' or 'variance'; got {weights!r}")
    if refine not in range(11):
        raise InputError(f"refine is a number of steps from 0 to 10; got {refine!r}")
    if annulus is not None and not 0 < annulus[0] < annulus[1]:
        raise InputError(f"annulus is an inner and a larger outer radius in pixels; got {annulus!r}")
    if radius is not None and not (np.isfinite(radius) and radius >= 1):
        raise InputError(f"radius must be at least 1 pixel; got {radius}")
    if group_radius is not None and not group_radius >= 0:
        raise InputError(f"group_radius must not be negative; got {group_radius}")
    if not 0 <= max_masked_fraction < 1:
        raise InputError(f"max_masked_fraction is a fraction from 0 to below 1; got {max_masked_fraction}")


@dataclass(frozen=True)
class _Job:
    """What is measured: inputs of the mapped functions but for the positions, and their core dimensions with them."""

    image: xr.DataArray
    background: str
    origin: dict[str, int]
    inputs: list[xr.DataArray]
    core: list[tuple[str, ...]]
    status: list[xr.DataArray]
    kwargs: dict[str, Any]
    with_modes: bool


def _job(
    obj: xr.Dataset | xr.DataArray,
    psf: PSF | xr.DataTree | None,
    reference_psf: PSF | None,
    background: str | None,
    variance: xr.DataArray | None,
    mask: xr.DataArray | Literal[False] | None,
    correlation: xr.DataArray | str | None,
    science_variance: xr.DataArray | float | None,
    reference_variance: xr.DataArray | float | None,
) -> _Job:
    """Collect and label the inputs."""
    diff = obj if isinstance(obj, xr.Dataset) and "difference" in obj else None
    image, noise, bad = image_and_noise(obj, variance, mask)
    chosen, of = _which_psf(obj, diff, psf, reference_psf, noise, bad)
    source = psf_inputs(chosen)
    background = background or ("none" if diff is not None or image.name == "difference" else "global")
    level = sky_background(image, mask=bad)["background"] if background == "global" else xr.DataArray(np.float32(0))
    kernels, kernel_core = kernel_inputs(diff)
    levels = [
        v if isinstance(v, xr.DataArray) else xr.DataArray(np.nan if v is None else float(v))
        for v in (science_variance, reference_variance)
    ]
    modes = xr.DataArray(np.nan) if diff is None else diff.get("model_error", xr.DataArray(np.nan))
    inputs = [image, noise, bad, level, _saturated(obj, diff), *source.arrays, *kernels, *levels, _lags(correlation)]
    core = [IMAGE, *(_image_core(a) for a in inputs[1:5]), *source.core, *kernel_core]
    core += [_image_core(v) for v in levels] + [("lag_y", "lag_x") if inputs[-1].ndim else ()]
    inputs, core = [*inputs, modes], [*core, ("mode", *IMAGE) if modes.ndim else ()]
    origin = pixel_origin(image)
    kwargs = {
        "oversampling": source.oversampling,
        "origin": (float(origin["y"]), float(origin["x"])),
        "of": of,
        "frame": None if diff is None else KernelFrame.of(diff),
        "measure": isinstance(correlation, str),
    }
    status = [s for s in (_epoch_status(obj), _epoch_status(chosen)) if s is not None]
    arrays = [inputs[0], *map(bare, inputs[1:])]
    return _Job(image, background, origin, arrays, [*core, _SOURCE, _SOURCE], status, kwargs, bool(modes.ndim))


def _which_psf(
    obj: xr.Dataset | xr.DataArray,
    diff: xr.Dataset | None,
    psf: PSF | xr.DataTree | None,
    reference_psf: PSF | None,
    noise: xr.DataArray,
    bad: xr.DataArray,
) -> tuple[PSF, Side]:
    if isinstance(psf, xr.DataTree):
        raise InputError("a DataTree of PSFs goes with a DataTree of frames; give the PSF of this image")
    if reference_psf is not None:
        if diff is None or psf is not None:
            raise InputError("reference_psf is for difference images, in place of psf")
        return reference_psf, "reference"
    if psf is not None:
        return psf, "science"
    if diff is not None:
        raise InputError("a difference has few stars to learn from: give psf= of the science image, or reference_psf=")
    return build_psf(obj, variance=noise, mask=bad), "science"


def _image_core(array: xr.DataArray) -> tuple[str, ...]:
    return IMAGE if set(IMAGE) <= set(array.dims) else ()


def _saturated(obj: xr.Dataset | xr.DataArray, diff: xr.Dataset | None) -> xr.DataArray:
    """Where pixels are saturated; False where that is not known."""
    if isinstance(obj, xr.Dataset) and "flags" in obj:
        return decode_mask(obj["flags"], ["saturated"])
    image = obj.get("sci") if isinstance(obj, xr.Dataset) else obj
    if diff is not None or image is None or "saturate" not in image.coords:
        return xr.DataArray(False)
    return bare(image) >= bare(image.coords["saturate"])


def _lags(correlation: xr.DataArray | str | None) -> xr.DataArray:
    if correlation is None or (isinstance(correlation, str) and correlation == "measure"):
        return xr.DataArray(np.nan)
    if not isinstance(correlation, xr.DataArray) or not {"lag_y", "lag_x"} <= set(correlation.dims):
        raise InputError("correlation is 'measure' or a DataArray with dimensions (lag_y, lag_x), 1 in the middle")
    if any(correlation.sizes[d] % 2 == 0 for d in ("lag_y", "lag_x")):
        raise InputError(f"correlation has odd lengths, with lag 0 in the middle; got {dict(correlation.sizes)}")
    return correlation.transpose(..., "lag_y", "lag_x")


def _epoch_status(obj: xr.Dataset | xr.DataArray) -> xr.DataArray | None:
    if isinstance(obj, xr.Dataset) and "epoch_status" in obj:
        return obj["epoch_status"]
    found: xr.DataArray | None = obj.coords.get("epoch_status")
    return found


# ---- one image ------------------------------------------------------------------------------------------------------


def _scene(
    image: NDArray[Any],
    variance: NDArray[Any],
    bad: Bools,
    level: NDArray[Any],
    saturated: Bools,
    coefficients: NDArray[Any],
    psf_origin: Floats,
    psf_scale: Floats,
    psf_flux_cov: Floats,
    kernel: NDArray[Any],
    swapped: Bools,
    phi: NDArray[Any],
    science_variance: NDArray[Any],
    reference_variance: NDArray[Any],
    lags: NDArray[Any],
    modes: NDArray[Any],
    y: Floats,
    x: Floats,
    *,
    options: FitOptions,
    oversampling: int,
    origin: tuple[float, float],
    of: Side,
    frame: KernelFrame | None,
    measure: bool,
) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The arguments of `fit_sources` for one image; None where it has no PSF."""
    model = psf_model(coefficients, psf_origin, psf_scale, psf_flux_cov, oversampling)
    spread = spread_kernels(kernel, swapped, phi, of)
    if model is None or spread is None:
        return None
    values = image - level if np.any(level) else image
    extra: dict[str, Any] = {"options": options, "origin": origin, "convolved": None, "correlation": None}
    if frame is not None:
        terms = kernel_terms(y + origin[0], x + origin[1], frame, len(kernel))
        extra["convolved"] = convolved_noise(
            values, variance, bad, kernel, swapped, phi, science_variance, reference_variance, spread, terms
        )
    if measure:
        extra["correlation"] = autocorrelation(values, variance, bad)
    elif lags.ndim:
        extra["correlation"] = lags / lags[lags.shape[0] // 2, lags.shape[1] // 2]
    if extra["correlation"] is not None and frame is not None:
        extra["convolved"] = replace(extra["convolved"], noise=np.zeros((0, 0, 0)), variance=np.zeros((0, 0)))
    extra["saturated"] = saturated if saturated.ndim else None
    extra["modes"] = modes if modes.ndim else None
    return (values, variance, bad, y, x, model), extra


def _fit_one(*arrays: Any, bound: bool, psf_error: bool, with_modes: bool, **kwargs: Any) -> tuple[NDArray[Any], ...]:
    """Fluxes in one image: the values of `_OUTPUTS`, and the model's error and the bound where asked."""
    n = len(arrays[-1])
    scene = _scene(*arrays, **kwargs)
    if scene is None:
        nan, none = np.full(n, np.nan), np.zeros(n, dtype=np.int64)
        lost = (nan, nan, nan, nan, nan, none, nan, np.full(n, _FAILED, dtype=np.uint32), none.astype(np.uint16))
        return *lost, *[nan] * (with_modes + bound)
    inputs, extra = scene
    fits, (y, x) = fit_sources(*inputs, **extra), arrays[-2:]
    own = inputs[-1].flux_error(y + extra["origin"][0], x + extra["origin"][1])
    total = np.hypot(fits.flux_err, fits.model_err)
    if psf_error:
        total = np.hypot(total, np.nan_to_num(own) * fits.flux)
    results = _interpreted(replace(fits, flux_err=total), own, extra["options"].max_masked_fraction)
    return *results, *([fits.model_err] if with_modes else []), *([_bound(inputs, extra)] if bound else [])


def _interpreted(fits: SourceFits, psf_err: Floats, limit: float) -> tuple[NDArray[Any], ...]:
    off, edge = fits.outside > 1 - 1e-9, (fits.outside > 1e-9) & (fits.outside <= 1 - 1e-9)
    hit = fits.lost - fits.outside > 1e-9
    hopeless = ~off & ~np.isfinite(fits.flux)
    dark = hopeless & ((fits.lost > limit) | (fits.n_pixels < 2))
    status = off * _OUTSIDE + edge * _EDGE + hit * _MASKED + dark * _NO_GOOD + (hopeless & ~dark) * _FAILED
    flags = fits.saturated * _SATURATED + fits.blended * _BLENDED
    return (
        fits.flux,
        fits.flux_err,
        np.where(np.isfinite(fits.flux), psf_err, np.nan),
        fits.background,
        fits.chi2,
        fits.n_pixels,
        np.where(fits.lost < 1e-9, 0.0, fits.lost),
        status.astype(np.uint32),
        flags.astype(np.uint16),
    )


def _bound(inputs: tuple[Any, ...], extra: dict[str, Any]) -> Floats:
    """The error of the same fit over all that the PSF reaches, each pixel weighted by its own variance."""
    model: PSFModel = inputs[-1]
    convolved = extra["convolved"]
    if convolved is not None:
        convolved = replace(convolved, noise=np.zeros((0, 0, 0)), variance=np.zeros((0, 0)))
    margin = 0 if convolved is None else convolved.spread.shape[1] // 2
    options = replace(extra["options"], radius=float(model.reach + margin), model_weights=False)
    given = {**extra, "options": options, "convolved": convolved, "correlation": None, "modes": None}
    return fit_sources(*inputs, **given).flux_err


# ---- positions over all epochs --------------------------------------------------------------------------------------


def _refined(job: _Job, x: xr.DataArray, y: xr.DataArray, kwargs: dict[str, Any]) -> tuple[xr.DataArray, xr.DataArray]:
    """Array positions moved by one Gauss-Newton step that all images share."""
    found = apply_images(
        _position_one,
        *job.inputs,
        y,
        x,
        inputs=job.core,
        outputs={"position_equations": _POSITION},
        sizes={"equation": 5},
        kwargs=kwargs,
    )["position_equations"]
    sums = found.sum([d for d in found.dims if d not in _POSITION])
    steps = apply_images(
        _position_step,
        bare(sums),
        inputs=[_POSITION],
        outputs={"y_refined": _SOURCE, "x_refined": _SOURCE},
    )
    return x + steps["x_refined"], y + steps["y_refined"]


def _position_one(*arrays: Any, **kwargs: Any) -> Floats:
    scene = _scene(*arrays, **kwargs)
    if scene is None:
        return np.zeros((len(arrays[-1]), 5))
    inputs, extra = scene
    fits = fit_sources(*inputs, **extra)
    return position_equations(fits, *inputs, **{k: extra[k] for k in ("options", "origin", "convolved")})


def _position_step(sums: Floats) -> tuple[Floats, Floats]:
    """``H⁻¹ g`` where the position is known well enough, at most half a pixel."""
    g_y, g_x, yy, yx, xx = sums.T
    determinant = yy * xx - yx**2
    known = (determinant > 0) & (np.maximum(yy, xx) < determinant * _MAX_POSITION_ERROR**2)
    scale = np.where(known, 1.0 / np.where(known, determinant, 1.0), 0.0)
    dy, dx = scale * (xx * g_y - yx * g_x), scale * (yy * g_x - yx * g_y)
    return np.clip(dy, -_MAX_STEP, _MAX_STEP), np.clip(dx, -_MAX_STEP, _MAX_STEP)


# ---- frames on grids of their own -----------------------------------------------------------------------------------


def _over_frames(
    tree: xr.DataTree, positions: Positions, psf: PSF | xr.DataTree | None, options: dict[str, Any]
) -> xr.Dataset:
    """Each frame on its own pixels, one after the other along time."""
    if options["refine"]:
        raise InputError("positions are refined on images that share a pixel grid; stack or align the frames first")
    frames = {name: node.to_dataset() for name, node in tree.children.items() if "sci" in node or "difference" in node}
    if not frames:
        raise InputError("the DataTree has no child with sci or difference")
    parts = []
    for name, frame in frames.items():
        own = psf[name].to_dataset() if isinstance(psf, xr.DataTree) else psf
        parts.append(forced_photometry(frame, positions, own, **options))
    shared = [c for c in ("ra", "dec", "source_id") if c in parts[0].coords]
    known = {c: parts[0][c].variable for c in shared}
    rows = [p.drop_vars(shared).expand_dims("time") for p in parts]
    rows = [r.assign_coords({c: r[c].expand_dims("time") for c in r.coords if "time" not in r[c].dims}) for r in rows]
    joined = xr.concat(rows, dim="time", combine_attrs="override", coords="minimal", compat="override", join="override")
    return annotate_all(joined.assign_coords(known))
