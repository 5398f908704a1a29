"""From difference fluxes to total fluxes and magnitudes."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import xarray as xr

from ztfxr.arrays.photometry.magnitudes import AB_MICROJANSKY, from_mag, linear_error
from ztfxr.errors import InputError
from ztfxr.ops.mapping import aligned
from ztfxr.ops.photcal import flux_to_mag
from ztfxr.photometry.cuts import kept, require_flux
from ztfxr.schema import annotate_all

__all__ = ["magnitudes", "total_flux"]

ReferenceNoise = Literal["add", "common", "cancel"]


def total_flux(
    lc: xr.Dataset,
    *,
    reference_mag: xr.DataArray | float | None = None,
    reference_mag_err: xr.DataArray | float | None = None,
    max_distance: float = 1.5,
    reference_error: ReferenceNoise = "add",
) -> xr.Dataset:
    """Add the flux that a variable source has in the reference to its difference flux; lazy.

    Parameters
    ----------
    lc
        Light curves with `flux_ujy`, `flux_ujy_err`.
    reference_mag, reference_mag_err
        AB magnitude of the source in the reference; by default the variables of that name, which
        `ztfxr.read_zfps` gives. They broadcast against (time, source).
    max_distance
        Where `reference_distance` (arcsec) is known and larger, the reference source is another one: NaN.
    reference_error
        How the reference's error enters: ``"add"`` adds it in quadrature to every epoch's; ``"common"`` leaves it out,
        since it shifts all epochs of a reference alike; ``"cancel"`` takes it off in quadrature where it is the
        smaller, else adds it: the noise of the reference is in the difference with the other sign.

    Returns
    -------
    xarray.Dataset
        `lc` with `total_ujy`, `total_ujy_err`, `reference_ujy`, `reference_ujy_err` on (time, source).

    Raises
    ------
    InputError
    """
    if reference_error not in get_args(ReferenceNoise):
        raise InputError(f"reference_error is 'add', 'common' or 'cancel'; got {reference_error!r}")
    lc = require_flux(lc, "flux_ujy")
    mag, err = (
        lc[name] if given is None and name in lc else _in_order(given, lc, name)
        for name, given in (("reference_mag", reference_mag), ("reference_mag_err", reference_mag_err))
    )
    if mag is None or err is None:
        raise InputError(
            "the magnitude of the source in the reference is needed: give reference_mag, reference_mag_err"
        )
    difference, noise = lc["flux_ujy"], lc["flux_ujy_err"]
    level = from_mag(mag, AB_MICROJANSKY) + 0.0 * difference
    level_err = linear_error(level, err)
    if "reference_distance" in lc:
        near = lc["reference_distance"] <= max_distance
        level, level_err = level.where(near), level_err.where(near)
    sign: xr.DataArray | float = 0.0 if reference_error == "common" else 1.0
    if reference_error == "cancel":
        sign = xr.where(level_err < noise, -1.0, 1.0)
    total_err = np.sqrt(noise**2 + sign * level_err.fillna(0.0) ** 2).where(np.isfinite(level))
    found = {
        "reference_ujy": level,
        "reference_ujy_err": level_err,
        "total_ujy": difference + level,
        "total_ujy_err": total_err,
    }
    out = lc.assign({k: v.transpose(*difference.dims) for k, v in found.items()})
    return annotate_all(out)


def _in_order(given: xr.DataArray | float | None, lc: xr.Dataset, name: str) -> xr.DataArray | float | None:
    """An array that was given in the order of the light curve."""
    return aligned(given, lc, name) if isinstance(given, xr.DataArray) else given


def magnitudes(lc: xr.Dataset, *, flux: str | None = None, snt: float = 3.0, snu: float = 5.0) -> xr.Dataset:
    """AB magnitudes of detections, and upper limits of the rest; lazy. For export: the flux itself knows more.

    Parameters
    ----------
    lc
        Light curves with a flux in µJy and its error.
    flux
        The variable to use; by default `total_ujy` where it is there, else `flux_ujy`.
    snt
        A flux of more than this many standard errors is a detection.
    snu
        The upper limit is this many standard errors.

    Returns
    -------
    xarray.Dataset
        `lc` with `mag`, `mag_err` (NaN where nothing was detected), `mag_limit` (NaN where something was), `detected`.
        Measurements that were cut or flagged have neither.

    Raises
    ------
    InputError

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> lc = ztfxr.lightcurve(made.images, [(40.0, 41.0)], reference=made.reference)
    >>> sorted(set(ztfxr.magnitudes(lc)) - set(lc))[:3]
    ['detected', 'mag', 'mag_err']
    """
    name = flux or ("total_ujy" if "total_ujy" in lc else "flux_ujy")
    lc = require_flux(lc, name)
    good = kept(lc, name)
    value, error = lc[name].where(good), lc[f"{name}_err"].where(good)
    detected = value > snt * error
    mag, mag_err = flux_to_mag(value.where(detected), error.where(detected), unit="uJy")
    limit = flux_to_mag((snu * error).where(good & ~detected).assign_attrs(units="uJy"))
    found = {"mag": mag, "mag_err": mag_err, "mag_limit": limit, "detected": detected}
    out = lc.assign({k: v.reset_coords(drop=True) for k, v in found.items()})
    return annotate_all(out.assign_attrs(snt=float(snt), snu=float(snu)))
