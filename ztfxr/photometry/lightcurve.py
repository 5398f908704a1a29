"""From frames to light curves."""

from __future__ import annotations

from typing import Any, Literal

import xarray as xr

from ztfxr.dia.difference import difference
from ztfxr.errors import InputError
from ztfxr.ops.positions import Positions
from ztfxr.ops.stack import stack
from ztfxr.photometry.aperture import Masked, aperture_photometry
from ztfxr.photometry.calibrate import calibrate_flux
from ztfxr.photometry.forced import forced_photometry
from ztfxr.schema import EPOCH_QUALITY, annotate_all, kept

__all__ = ["as_lightcurve", "calibrate_flux", "lightcurve", "on_reference_scale", "with_model_error"]

_STAMP_PIXELS = 128 * 128


def lightcurve(
    obj: xr.Dataset | xr.DataTree,
    /,
    positions: Positions,
    *,
    reference: xr.Dataset | xr.DataArray | None = None,
    radius: float | None = None,
    psf: xr.Dataset | xr.DataArray | None = None,
    masked: Masked = "correct",
    scale: Literal["science", "reference"] = "science",
    **options: Any,
) -> xr.Dataset:
    """Difference fluxes at fixed positions over all epochs; lazy.

    Parameters
    ----------
    obj
        Frames of `ztfxr.open_epochs` (they must share the reference's pixel grid), a stack (time, y, x), alerts, or
        difference images that are there already.
    positions
        As for `ztfxr.resolve_positions`.
    reference
        What to subtract; not needed for alerts and difference images.
    radius, masked
        Of the aperture, as for `ztfxr.aperture_photometry`; by default 7 px.
    psf
        The PSF of the science images (`ztfxr.build_psf`, `ztfxr.read_psf`, or stamps): fluxes are forced PSF fits then
        (`ztfxr.forced_photometry`), not sums in apertures.
    scale
        ``"science"``: `flux` is in DN of each epoch, as its zero point wants it. ``"reference"``: in DN of the
        reference, divided by the photometric scale of the kernel, so that exposure time and transparency drop out
        without a zero point; there is no `flux_ujy` then.
    **options
        Passed on to `ztfxr.difference`. Its `model_error` is True by default for stamps of at most 128 × 128 pixels and
        a constant kernel of given size.

    Returns
    -------
    xarray.Dataset
        `flux`, `flux_err` (DN on the science scale of each epoch), `model_err` (part of `flux_err`), `status`,
        `area`, `masked_fraction` on (time, source); `flux_ujy`, `flux_ujy_err` by the zero point `magzp` where it is
        known; the numbers of `ztfxr.difference` that say how good an epoch is (`kernel_sum`, `chi2`, `noise_ratio`,
        `epoch_status` and so on) on time; the coordinates of the epochs. Every epoch has a row, whatever happened to
        it.

    Raises
    ------
    InputError, AlignmentError, ChunkError, MissingWCSError, FrameError
    """
    frames = stack(obj, like=reference) if isinstance(obj, xr.DataTree) else obj
    if isinstance(frames, xr.Dataset) and "difference" in frames:
        if options or reference is not None:
            idle = [*options, *(["reference"] if reference is not None else [])]
            raise InputError(f"these are difference images already; {', '.join(idle)} would have no effect")
        diff = frames
    else:
        diff = difference(frames, reference, **with_model_error(frames, options))
    return as_lightcurve(_measure(diff, positions, radius, masked, psf), diff, scale)


def as_lightcurve(
    photometry: xr.Dataset, diff: xr.Dataset, scale: Literal["science", "reference"] = "science"
) -> xr.Dataset:
    """Fluxes measured on differences, with the numbers of their epochs and on the scale asked for; lazy."""
    spatial = [k for k, v in photometry.coords.items() if {"y", "x"} & set(v.dims)]
    out = photometry.drop_vars(spatial, errors="ignore")
    out = out.assign({k: diff[k].variable for k in EPOCH_QUALITY if k in diff})
    out.attrs |= kept(diff.attrs, "object", "solution")
    if scale == "reference":
        return annotate_all(on_reference_scale(out, diff))
    return calibrate_flux(out) if "magzp" in out.coords else annotate_all(out)


def with_model_error(frames: xr.Dataset | xr.DataArray, options: dict[str, Any]) -> dict[str, Any]:
    """Options of `difference` for light curves: on stamps, whose kernel's error can count, `model_error` by default."""
    simple = options.get("kernel_size") != "auto" and options.get("kernel_order") in (None, 0)
    small = frames.sizes["y"] * frames.sizes["x"] <= _STAMP_PIXELS
    return {"model_error": small and simple} | options


def _measure(
    diff: xr.Dataset,
    positions: Positions,
    radius: float | None,
    masked: Masked,
    psf: xr.Dataset | xr.DataArray | None,
) -> xr.Dataset:
    """Fluxes in apertures, or by the PSF where there is one."""
    if psf is None:
        return aperture_photometry(diff, positions, radius=7.0 if radius is None else radius, masked=masked)
    if radius is not None:
        raise InputError("radius is that of an aperture; with psf= it would have no effect")
    return forced_photometry(diff, positions, psf)


def on_reference_scale(photometry: xr.Dataset, diff: xr.Dataset) -> xr.Dataset:
    """Fluxes divided by science over reference, which is the kernel's sum, or its inverse where science was
    convolved.
    """
    ratio = xr.where(diff["science_convolved"], 1.0 / diff["kernel_sum"], diff["kernel_sum"])
    in_counts = [k for k in ("flux", "flux_err", "model_err") if k in photometry]
    scaled = {k: photometry[k] / ratio.reset_coords(drop=True) for k in in_counts}
    return photometry.assign(scaled).assign_attrs(flux_scale="reference")
