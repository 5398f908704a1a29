"""Which measurements of a light curve to keep, and why the others were cut."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.types import Bools
from ztfxr.errors import InputError
from ztfxr.schema import CUT_PLANES, FIT_PLANES, STATUS_PLANES, annotate_all, planes_to_bits

__all__ = ["PROCSTATUS", "cut_counts", "kept", "quality_cuts", "require_flux"]

_PIXEL_SCALE = 1.012
_BAD_BITS = 1 << 25

PROCSTATUS: Mapping[int, str] = MappingProxyType(
    {
        0: "no warning",
        52: "more input images than one request may have: ask for the later dates in another",
        54: "too few pixels to measure the background",
        55: "too many bad pixels",
        56: "bad pixels, NaN among them, may have spoiled the photometry",
        57: "no source in the reference catalog within 5 arcsec, so that reference_mag and its like are NaN",
        58: "no catalog of the reference image in the archive, with the same consequence",
        59: "the difference image is of an early software, and the errors are suspect",
        60: "the PSF of the difference image has an even number of samples along a side",
        61: "off the difference image, or too close to its edge",
        62: "the request began before the survey did (17 March 2018), and was set to its start",
        63: "no image of this position and these dates",
        64: "the job failed; its log says how",
        65: "the request ended before the survey began",
        255: "the service's database could not be asked",
    }
)
"""What the codes of the ZTF forced photometry service mean; a row may have several, separated by commas.

The meanings are the service's (Masci et al. 2023, arXiv:2305.16279, and the programs that talk to it). The real files
that the tests read bear out 0, 56 (a flux in most rows), 57 (a flux, but nothing of the reference), 61 and 57,61 (never
a flux); the others have not been met. 62 to 65 and 255 are about a whole request: files of 63 to 255 have no rows.
"""

_GOOD_PROCSTATUS = (0, 57, 58, 62)


def quality_cuts(
    lc: xr.Dataset,
    *,
    status: Iterable[str] | None = None,
    procstatus: Iterable[int] = _GOOD_PROCSTATUS,
    infobits: int = _BAD_BITS,
    max_sky_noise: float | None = None,
    max_seeing: float | None = None,
    max_magzprms: float | None = None,
    min_calibrators: int | None = None,
    max_fit_chi2: float | None = None,
) -> xr.Dataset:
    """Mark the measurements that are not to be trusted; lazy. Nothing is dropped: `ztfxr.cut_counts` says what was cut.

    Parameters
    ----------
    lc
        Light curves on (time, source), as `ztfxr.lightcurve` or `ztfxr.read_zfps` give them.
    status
        Planes of `status` that cut a measurement; by default all. What follows goes by `cuts` alone: a fit that lost a
        few pixels is kept by naming the others.
    procstatus
        Codes of the forced photometry service that are accepted, all others cut: by default those that say nothing
        against the flux. 57 and 58 only mean that the reference has no source, or no catalog, to add
        (`ztfxr.total_flux` is NaN then), 62 that the dates of the request were moved. 56 stands for bad pixels, 61 for
        a missing measurement; `ztfxr.photometry.cuts.PROCSTATUS` has them all.
    infobits
        Bits of the science image that condemn it; 33554432 is IPAC's "bad".
    max_sky_noise
        In DN, as `sky_noise` (IPAC's scisigpix).
    max_seeing
        FWHM in arcsec; a `seeing` in pixels is converted with 1.012 arcsec per pixel.
    max_magzprms, min_calibrators, max_fit_chi2
        Limits of the scatter of the zero point (mag), of the stars behind it, and of the reduced χ² of the PSF fit.

    Returns
    -------
    xarray.Dataset
        `lc` with `cuts` on (time, source): bit planes that name the reasons, 0 where the measurement is kept. Cuts that
        were there already stay. A quantity that is NaN is not held against a measurement. Fits that are `poor_fit` by
        their `fit_flags` are cut as `fit_chi2`.

    Raises
    ------
    InputError
        A limit was given for something that the light curve does not have.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> lc = ztfxr.lightcurve(made.images, [(40.0, 41.0)], reference=made.reference)
    >>> ztfxr.quality_cuts(lc).cuts.dims
    ('time', 'source')
    """
    flux, error = _flux(lc)
    unmeasured: xr.DataArray = ~((abs(flux) < np.inf) & (error > 0))
    reasons = {"no_flux": unmeasured, **_by_status(lc, status, procstatus, infobits)}
    limits = {
        "sky_noise": max_sky_noise,
        "seeing": max_seeing,
        "magzprms": max_magzprms,
        "calibrators": min_calibrators,
        "fit_chi2": max_fit_chi2,
    }
    reasons |= {name: _beyond(lc, name, limit) for name, limit in limits.items() if limit is not None}
    if "fit_flags" in lc:
        poor = (lc["fit_flags"] & planes_to_bits(["poor_fit"], FIT_PLANES)) != 0
        reasons["fit_chi2"] = reasons["fit_chi2"] | poor if "fit_chi2" in reasons else poor
    cuts = lc["cuts"] if "cuts" in lc else xr.zeros_like(flux, dtype=np.uint16)
    for name, bad in reasons.items():
        bit = np.uint16(planes_to_bits([name], CUT_PLANES))
        cuts = cuts | (bad.reset_coords(drop=True).astype(np.uint16) * bit)
    out = lc.assign(cuts=cuts.transpose(*flux.dims).astype(np.uint16))
    return annotate_all(out)


def kept(lc: xr.Dataset, flux: str, *, flagged: bool = False) -> xr.DataArray:
    """True where a `flux` is finite, its error positive, and the measurement not cut; lazy.

    `cuts` decide where there are any, since they say which planes of `status` condemn a measurement; else all do.
    """
    good: xr.DataArray = abs(lc[flux]) < np.inf
    good = good & (lc[f"{flux}_err"] > 0)
    name = "cuts" if "cuts" in lc else "status"
    if not flagged and name in lc:
        good = good & (lc[name] == 0)
    return good.reset_coords(drop=True)


def require_flux(lc: xr.Dataset, name: str) -> xr.Dataset:
    """`lc` itself; `InputError` where it has no such flux with an error on (time, source)."""
    if name not in lc or f"{name}_err" not in lc or set(lc[name].dims) != {"time", "source"}:
        raise InputError(f"{name} and {name}_err are needed with dims (time, source); got {dict(lc.sizes)}")
    return lc


def cut_counts(lc: xr.Dataset) -> xr.DataArray:
    """How many measurements were kept, and how many were cut for which reason. Computes.

    Parameters
    ----------
    lc
        A light curve with `cuts`.

    Returns
    -------
    xarray.DataArray
        On `reason`: ``"kept"``, ``"cut"``, and every plane of `cuts`; a measurement may have several reasons.
    """
    if "cuts" not in lc:
        raise InputError("the light curve has no cuts yet: call ztfxr.quality_cuts first")
    cuts = np.asarray(lc["cuts"].values)
    counts = {"kept": int((cuts == 0).sum()), "cut": int((cuts != 0).sum())}
    counts |= {p.name: int((cuts & p.value != 0).sum()) for p in CUT_PLANES}
    return xr.DataArray(list(counts.values()), {"reason": list(counts)}, "reason", name="measurements")


def _flux(lc: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    name = next((n for n in ("flux", "flux_ujy") if n in lc and f"{n}_err" in lc), None)
    if name is None:
        raise InputError(f"a light curve has flux and flux_err; got {', '.join(map(str, lc.data_vars))}")
    return lc[name].reset_coords(drop=True), lc[f"{name}_err"].reset_coords(drop=True)


def _by_status(
    lc: xr.Dataset, status: Iterable[str] | None, procstatus: Iterable[int], infobits: int
) -> dict[str, xr.DataArray]:
    found: dict[str, xr.DataArray] = {}
    names = [p.name for p in STATUS_PLANES] if status is None else list(status)
    bits = planes_to_bits(names, STATUS_PLANES)
    for name in ("status", "epoch_status"):
        if name in lc:
            bad = (lc[name] & bits) != 0
            found["status"] = found["status"] | bad if "status" in found else bad
    if "procstatus" in lc:
        good: set[int | None] = set(procstatus)
        found["procstatus"] = lc["procstatus"].copy(data=_refused(lc["procstatus"].values, good))
    if "infobits" in lc:
        found["infobits"] = (lc["infobits"] & infobits) != 0
    return found


def _refused(codes: NDArray[Any], good: set[int | None]) -> Bools:
    """Whether any of the codes, separated by commas, is not among the good ones; an unknown code is not."""
    return np.array([bool({_code(c) for c in str(entry).split(",")} - good) for entry in codes.tolist()], dtype=bool)


def _code(text: str) -> int | None:
    try:
        return int(float(text))
    except (ValueError, OverflowError):
        return None


def _beyond(lc: xr.Dataset, reason: str, limit: float) -> xr.DataArray:
    name = {"calibrators": "n_calibrators"}.get(reason, reason)
    if name not in lc.variables:
        raise InputError(f"a limit for {reason} was given, but the light curve has no {name}")
    values = lc[name]
    if reason == "seeing":
        values = values * (1.0 if values.attrs.get("units") == "arcsec" else _PIXEL_SCALE)
    return values < limit if reason == "calibrators" else values > limit
