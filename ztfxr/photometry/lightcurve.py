"""From frames to light curves."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal, get_args, overload

import xarray as xr

from ztfxr.arrays.options import option_names, options_from
from ztfxr.dia.difference import difference_for
from ztfxr.errors import InputError
from ztfxr.ops.exposure import find_image
from ztfxr.ops.mapping import aligned
from ztfxr.ops.photcal import is_flux_unit
from ztfxr.ops.positions import Positions
from ztfxr.ops.stacks.stack import stack
from ztfxr.ops.trees import holds_pairs, on_each
from ztfxr.photometry.aperture import ApertureOptions, aperture_photometry
from ztfxr.photometry.calibrate import calibrate_flux
from ztfxr.photometry.forced import FitOptions, check_background, forced_photometry
from ztfxr.photometry.psf import PSF
from ztfxr.schema import EPOCH_QUALITY, annotate_all, kept

__all__ = [
    "as_lightcurve",
    "calibrate_flux",
    "lightcurve",
    "on_reference_scale",
    "photometry_options",
    "with_model_error",
]

Method = Literal["aperture", "psf"]

_STAMP_PIXELS = 128 * 128
_RADIUS = 7.0


@overload
def lightcurve(obj: xr.Dataset, /, positions: Positions | None = None, **options: Any) -> xr.Dataset: ...


@overload
def lightcurve(obj: xr.DataTree, /, positions: Positions | None = None, **options: Any) -> xr.Dataset | xr.DataTree: ...


def lightcurve(
    obj: xr.Dataset | xr.DataTree,
    /,
    positions: Positions | None = None,
    *,
    reference: xr.Dataset | xr.DataArray | None = None,
    radius: float | None = None,
    psf: PSF | None = None,
    photometry: Mapping[str, Any] | None = None,
    scale: Literal["science", "reference"] = "science",
    **options: Any,
) -> xr.Dataset | xr.DataTree:
    """Difference fluxes at fixed positions over all epochs; lazy.

    Parameters
    ----------
    obj
        Frames of `ztfxr.open_epochs` (they must share the reference's pixel grid), a stack (time, y, x), alerts
        (stacks, one packet of each object, or a tree of them), or difference images that are there already.
    positions
        Where to measure, as `ztfxr.resolve_positions` takes it; by default the object of an alert.
    reference
        What to subtract; not needed for alerts and difference images.
    radius
        Radius of the aperture in pixels, 7 by default.
    psf
        The PSF of the science images (`ztfxr.build_psf`, `ztfxr.read_psf`, or stamps): fluxes are forced PSF fits then
        (`ztfxr.forced_photometry`), not sums in apertures.
    photometry
        Further options of `ztfxr.aperture_photometry`, or with `psf` of `ztfxr.forced_photometry`.
    scale
        Scale of the fluxes. ``"science"``: `flux` is in the counts of each epoch, which its zero point is for.
        ``"reference"``: in counts of the reference, divided by the photometric scale of the kernel, so that exposure
        time and transparency drop out without a zero point; there is no `flux_ujy` then.
    **options
        Options of `ztfxr.difference`. The positions must not shape the kernel, which would follow what changed there:
        pixels within 3.3 FWHM of them, at least 10 (in alerts: 7 pixels), are left out of its solution, beside those of
        `exclude`; ``exclude_radius`` states another radius, 0 leaves nothing out. Where all positions are at one place
        that is always so. Several are kept in, but for those whose flux has changed, where circles around them would
        take more than a quarter of the image, or hold most of the light that the kernel must be found by (more than
        half of the squared signal to noise of the reference, and, for one kernel on all pixels, so much that less than
        200 noises are left). Its `model_error` is True by default for stamps of at most 128 × 128 pixels and a constant
        kernel of given size.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        `flux`, `flux_err` (in the unit of the images, on the scale of each epoch), `model_err` (part of `flux_err`),
        `status`, `area`, `masked_fraction` on (time, source); `flux_ujy`, `flux_ujy_err` by the zero point `magzp`
        where it is known; the numbers of `ztfxr.difference` that say how good an epoch is (`kernel_sum`, `chi2`,
        `noise_ratio`, `epoch_status` and so on) on time; the coordinates of the epochs. Every epoch has a row, whatever
        happened to it. Of a tree of alerts, a tree of these.

    Raises
    ------
    InputError, AlignmentError, ChunkError, MissingWCSError, FrameError

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> lc = ztfxr.lightcurve(made.images, [(40.0, 41.0)], reference=made.reference)
    >>> lc.flux.dims
    ('time', 'source')
    """
    if isinstance(obj, xr.DataTree) and reference is None and holds_pairs(obj):
        own = partial(
            lightcurve, positions=positions, radius=radius, psf=psf, photometry=photometry, scale=scale, **options
        )
        return on_each(own, obj)
    frames = stack(obj, like=reference) if isinstance(obj, xr.DataTree) else obj
    if not isinstance(frames, xr.Dataset):
        find_image(frames)
    positions = _target(frames) if positions is None else positions
    if isinstance(frames, xr.Dataset) and "difference" in frames:
        if options or reference is not None:
            idle = [*options, *(["reference"] if reference is not None else [])]
            raise InputError(f"these are difference images already; {', '.join(idle)} would have no effect")
        diff = frames
    else:
        diff = difference_for(positions, frames, reference, **with_model_error(frames, options))
    return as_lightcurve(_measure(diff, positions, radius, psf, photometry or {}), diff, scale)


def _target(frames: xr.Dataset) -> Positions:
    """Where the object is that an alert is about."""
    if "target_x" not in frames.attrs:
        raise InputError("positions: say where to measure; only alerts have an object of their own")
    return [(float(frames.attrs["target_x"]), float(frames.attrs["target_y"]))]


def as_lightcurve(
    photometry: xr.Dataset, diff: xr.Dataset, scale: Literal["science", "reference"] = "science"
) -> xr.Dataset:
    """Fluxes measured on differences, with the numbers of their epochs and on the scale asked for; lazy."""
    spatial = [k for k, v in photometry.coords.items() if {"y", "x"} & set(v.dims)]
    out = photometry.drop_vars(spatial, errors="ignore")
    out = out.assign({k: diff[k].variable for k in EPOCH_QUALITY if k in diff})
    out.attrs |= kept(diff.attrs, "object", "solution")
    if scale == "reference":
        return on_reference_scale(out, diff)
    in_counts = not is_flux_unit(str(out["flux"].attrs.get("units", "DN")))
    return calibrate_flux(out) if in_counts and "magzp" in out.coords else annotate_all(out)


def with_model_error(frames: xr.Dataset | xr.DataArray, options: dict[str, Any]) -> dict[str, Any]:
    """Options of `difference` for light curves: on stamps, whose kernel's error can count, `model_error` by default."""
    simple = options.get("kernel_size") != "auto" and options.get("kernel_order") in (None, 0)
    small = frames.sizes["y"] * frames.sizes["x"] <= _STAMP_PIXELS
    return {"model_error": small and simple} | options


def _measure(
    diff: xr.Dataset, positions: Positions, radius: float | None, psf: PSF | None, options: Mapping[str, Any]
) -> xr.Dataset:
    """Fluxes in apertures, or by the PSF where there is one."""
    if psf is None:
        return aperture_photometry(diff, positions, **_with_radius(options, radius))
    if radius is not None:
        raise InputError("radius is that of an aperture; with psf= it would have no effect")
    return forced_photometry(diff, positions, psf, **options)


def _with_radius(options: Mapping[str, Any], radius: float | None) -> dict[str, Any]:
    if radius is not None and "radius" in options:
        raise InputError(f"two radii are given, {radius} and {options['radius']} in photometry=; give one")
    return {"radius": _RADIUS if radius is None else radius} | dict(options)


def photometry_options(method: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of a method's function from the plain options that a job file can hold.

    Parameters
    ----------
    method
        ``"aperture"`` for `ztfxr.aperture_photometry`, ``"psf"`` for `ztfxr.forced_photometry`.
    given
        Options by name, with the lists that JSON makes of tuples: the fields of `ApertureOptions`, or `background` and
        the fields of `FitOptions`.

    Returns
    -------
    dict
        The keyword arguments.

    Raises
    ------
    InputError
        There is no such method or option, or a value is out of its range.
    """
    if method not in get_args(Method):
        raise InputError(f"photometry's method is {' or '.join(map(repr, get_args(Method)))}; got {method!r}")
    psf = method == "psf"
    names = ("background", *option_names(FitOptions)) if psf else option_names(ApertureOptions)
    unknown = sorted(set(given) - set(names))
    if unknown:
        raise InputError(
            f"photometry by {method} has no option {', '.join(unknown)}; its options are {', '.join(names)}"
        )
    own = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    if not psf:
        options_from(ApertureOptions, _with_radius(own, None), "photometry")
        return own
    background = own.pop("background", None)
    check_background(background)
    return {"background": background, "fit": options_from(FitOptions, own, "photometry")}


def on_reference_scale(photometry: xr.Dataset, diff: xr.Dataset) -> xr.Dataset:
    """Fluxes over the photometric scale of science over reference, whose error is part of theirs; lazy.

    It is the kernel's sum, or its inverse where the science image was convolved. Raises `AlignmentError` where the
    epochs of the difference are others than those of the fluxes.
    """
    ratio = xr.where(diff["science_convolved"], 1.0 / diff["kernel_sum"], diff["kernel_sum"])
    ratio = aligned(ratio, photometry, "the difference")
    relative = aligned(diff["kernel_sum_err"] / abs(diff["kernel_sum"]), photometry, "the difference")
    in_counts = [k for k in ("flux", "flux_err", "model_err") if k in photometry]
    scaled = {k: (photometry[k] / ratio).transpose(*photometry[k].dims) for k in in_counts}
    error = (scaled["flux_err"] ** 2 + (scaled["flux"] * relative) ** 2) ** 0.5
    scaled["flux_err"] = error.transpose(*photometry["flux_err"].dims)
    out = photometry.assign(scaled).assign_attrs(flux_scale="reference")
    return annotate_all(out)
