"""Put the epochs of a light curve on one level, and correct their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, get_args

import numpy as np
import pandas as pd
import xarray as xr
from astropy.time import Time
from numpy.typing import NDArray

from ztfxr.arrays.curves.baseline import BaselineRules, fit_baselines
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops.mapping import aligned
from ztfxr.photometry.cuts import kept, require_flux
from ztfxr.schema import CUT_PLANES, annotate_all, planes_to_bits

__all__ = ["baseline_table", "correct_baseline", "rescale_errors"]

Rescale = Literal["scatter", "fit"]

_LAST_MJD = 146000.0
_GROUPS = ("field", "ccdid", "qid", "filter", "rfid")


def correct_baseline(
    lc: xr.Dataset,
    *,
    flux: str | None = None,
    by: Sequence[str] | None = None,
    quiet: tuple[Any, Any] | xr.DataArray | None = None,
    rescale: Rescale | None = "scatter",
    min_epochs: int = 5,
    window: float = 12.0,
    n_sigma: float = 5.0,
    padding: float = 5.0,
) -> xr.Dataset:
    """Take the level of each group of epochs off the flux, and raise the errors where they are too small. Computes.

    Parameters
    ----------
    lc
        Light curves on (time, source) with the coordinate `mjd` (or `time`); cut and flagged measurements (`cuts`,
        `status`) have no say in the level.
    flux
        The variable to correct, its error named with ``_err``; by default `flux_ujy` where it is there, else `flux`.
        On one zero point a constant offset is constant, in DN it is not.
    by
        Coordinates along time that tell groups apart; by default those of field, ccdid, qid, filter and rfid that are
        there.
    quiet
        Which epochs are free of the transient: a boolean array on time, or (time, source); or a pair of times outside
        of which they are, as MJD or dates (in UTC, unless they say their zone). By default they are found, source by
        source (see Notes).
    rescale
        ``"scatter"``: errors × √χ² of the quiet epochs about the level of their group, where that is over 1.
        ``"fit"``: × the root of the group's mean `fit_chi2`, where over 1. None: not at all.
    min_epochs
        A group with fewer quiet epochs has no level: its flux stays, and `cuts` says ``no_baseline``.
    window, n_sigma, padding
        How quiet epochs are found: deviations from the lowest lasting level of each group, all groups together, are
        summed over a running `window` (days); where a sum stands out by more than `n_sigma`, these epochs and those
        within `padding` days belong to the transient. What drifts, or scatters by more than 4 of its errors, is no
        level: a star that always varies gets none, and wants none (`ztfxr.total_flux`).

    Returns
    -------
    xarray.Dataset
        `lc` with the flux less `baseline` and the error times `error_factor`; both, with `baseline_err` (common to the
        group, and not added to the errors), `n_baseline` and the boolean `quiet` (used for the level), on (time,
        source).

    Raises
    ------
    InputError

    Notes
    -----
    The recipe of the ZTF forced photometry service (Masci et al. 2023, arXiv:2305.16279, §6), which works for any
    difference photometry: a group shares a reference, and with it an offset.
    """
    name = flux or ("flux_ujy" if "flux_ujy" in lc else "flux")
    if rescale is not None and rescale not in get_args(Rescale):
        raise InputError(f"rescale is 'scatter', 'fit' or None; got {rescale!r}")
    ordered = require_flux(lc, name).transpose("time", "source", ...)
    group = _groups(ordered, by)
    mjd = _mjd(ordered)
    good = kept(ordered, name).values & np.isfinite(mjd)[:, None]
    values = np.where(good, ordered[name].values.astype(np.float64), np.nan)
    errors = np.where(good, ordered[f"{name}_err"].values.astype(np.float64), np.nan)
    chosen = _quiet(ordered, quiet, mjd)
    rules = BaselineRules(window=window, n_sigma=n_sigma, padding=padding, min_epochs=min_epochs)
    columns = _fit(mjd, values, errors, group, chosen, rules)
    if rescale != "scatter":
        columns["error_factor"] = _fit_factor(ordered, good, group) if rescale == "fit" else np.ones(values.shape)
    return _apply(ordered, name, columns)


def _fit(
    mjd: NDArray[Any],
    values: NDArray[Any],
    errors: NDArray[Any],
    group: NDArray[np.int64],
    quiet: Bools | None,
    rules: BaselineRules,
) -> dict[str, NDArray[Any]]:
    """Levels and what belongs to them, each (time, source)."""
    names = {"baseline": "level", "baseline_err": "error", "error_factor": "factor", "n_baseline": "n"}
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in (*names, "quiet")}
    for i in range(values.shape[1]):
        known = None if quiet is None else quiet[:, i]
        found = fit_baselines(mjd, values[:, i], errors[:, i], group, known, rules)
        for name, field in names.items():
            columns[name].append(getattr(found, field)[group])
        columns["quiet"].append(found.used)
    return {name: np.stack(parts, axis=1) if parts else np.zeros(values.shape) for name, parts in columns.items()}


def _apply(lc: xr.Dataset, name: str, columns: dict[str, NDArray[Any]]) -> xr.Dataset:
    dims = ("time", "source")
    level = np.nan_to_num(columns["baseline"], nan=0.0)
    factor = np.nan_to_num(columns["error_factor"], nan=1.0)
    unit = {"units": lc[name].attrs.get("units", "")}
    found: dict[str, Any] = {k: (dims, v) for k, v in columns.items()} | {"error_factor": (dims, factor)}
    found |= {k: (dims, columns[k], unit) for k in ("baseline", "baseline_err")}
    unknown = np.isnan(columns["baseline"]) * np.uint16(planes_to_bits(["no_baseline"], CUT_PLANES))
    cuts = _cuts(lc, level.shape)
    corrected = {
        name: lc[name].copy(data=lc[name].values - level),
        f"{name}_err": lc[f"{name}_err"].copy(data=lc[f"{name}_err"].values * factor),
    }
    out = lc.assign(corrected).assign(found).assign(cuts=(dims, (cuts | unknown).astype(np.uint16)))
    return annotate_all(out)


def _cuts(lc: xr.Dataset, shape: tuple[int, ...]) -> NDArray[np.uint16]:
    """The cuts that there are, else those that any flag makes."""
    if "cuts" in lc:
        return np.asarray(lc["cuts"].values)
    if "status" not in lc:
        return np.zeros(shape, dtype=np.uint16)
    return np.where(lc["status"].values != 0, np.uint16(planes_to_bits(["status"], CUT_PLANES)), np.uint16(0))


def baseline_table(lc: xr.Dataset, *, by: Sequence[str] | None = None) -> xr.Dataset:
    """What `ztfxr.correct_baseline` found, one row for each group of epochs. Computes.

    Parameters
    ----------
    lc
        Light curves on (time, source) with `baseline`, as `ztfxr.correct_baseline` gives them, or with `error_factor`
        alone (`ztfxr.rescale_errors`).
    by
        As it was given there.

    Returns
    -------
    xarray.Dataset
        On (group, source): `baseline`, `baseline_err`, `error_factor`, `n_baseline` where they are there, `n_good`, the
        measurements that were not cut for another reason, and `n_epochs` on group; the coordinates that tell groups
        apart on group.

    Raises
    ------
    InputError
    """
    if "error_factor" not in lc:
        raise InputError("the light curve has no baselines yet: call ztfxr.correct_baseline or rescale_errors first")
    ordered = lc.transpose("time", "source", ...)
    number = _groups(ordered, by)
    _, first = np.unique(number, return_index=True)
    names = [n for n in ("baseline", "baseline_err", "error_factor", "n_baseline") if n in ordered]
    out = xr.Dataset({n: (("group", "source"), ordered[n].values[first], ordered[n].attrs) for n in names})
    shape = (len(number), lc.sizes["source"])
    good = (_cuts(ordered, shape) & ~np.uint16(planes_to_bits(["no_baseline"], CUT_PLANES))) == 0
    counts = np.zeros((len(first), shape[1]), dtype=np.int64)
    np.add.at(counts, number, good)
    out["n_good"] = (("group", "source"), counts)
    out["n_epochs"] = ("group", np.bincount(number, minlength=len(first)))
    keys = [n for n in _GROUPS if n in lc.coords] if by is None else list(by)
    along = {n: ("group", np.broadcast_to(ordered.coords[n].values, len(number))[first]) for n in keys}
    return annotate_all(out.assign_coords(along))


def _groups(lc: xr.Dataset, by: Sequence[str] | None) -> NDArray[np.int64]:
    """The number of each epoch's group."""
    names = [n for n in _GROUPS if n in lc.coords] if by is None else list(by)
    missing = [n for n in names if n not in lc.coords]
    if missing:
        raise InputError(f"no coordinate {', '.join(missing)} to group by; there are {', '.join(map(str, lc.coords))}")
    keys = [
        np.broadcast_to(lc.coords[n].values, lc.sizes["time"]) for n in names if lc.coords[n].dims in ((), ("time",))
    ]
    number = np.zeros(lc.sizes["time"], dtype=np.int64)
    for key in keys:
        _, label = np.unique(key, return_inverse=True)
        _, number = np.unique(number * (label.max(initial=0) + 1) + label, return_inverse=True)
    return number


def _mjd(lc: xr.Dataset) -> Floats:
    if "mjd" in lc.coords:
        return np.asarray(lc.coords["mjd"].values, dtype=np.float64)
    if "time" in lc.coords:
        return _days(lc.coords["time"].values)
    raise InputError("the light curve has neither mjd nor time, which tell when each epoch was")


def _days(dates: Any) -> Floats:
    """Dates as MJD."""
    origin = np.datetime64("1858-11-17", "ns")
    return np.asarray((np.asarray(dates, dtype="datetime64[ns]") - origin) / np.timedelta64(1, "D"), dtype=np.float64)


def _mjd_of(time: Any) -> float:
    """A moment that a user gives, as MJD: a number, a date with or without its zone, or an astropy Time."""
    try:
        if isinstance(time, Time):
            found = float(time.utc.mjd)
        elif isinstance(time, int | float | np.integer | np.floating) and not isinstance(time, bool):
            found = float(time)
        else:
            date = pd.Timestamp(time)
            found = float(
                _days((date if date.tz is None else date.tz_convert("UTC").tz_localize(None)).to_datetime64())
            )
    except (ValueError, TypeError, OverflowError) as error:
        raise InputError(f"a time is an MJD, a date or an astropy Time; got {time!r}") from error
    if not 0 < found < _LAST_MJD:
        hint = "; MJD = JD - 2400000.5" if found > _LAST_MJD else ""
        raise InputError(f"{time!r} is no MJD of an observation{hint}")
    return found


def _quiet(lc: xr.Dataset, quiet: tuple[Any, Any] | xr.DataArray | None, mjd: Floats) -> Bools | None:
    """Which epochs the user declares quiet, (time, source)."""
    if quiet is None:
        return None
    shape = (lc.sizes["time"], lc.sizes["source"])
    if isinstance(quiet, xr.DataArray):
        if quiet.dtype != bool or "time" not in quiet.dims:
            raise InputError(f"quiet is boolean on time, or (time, source); got {quiet.dtype} on {quiet.dims}")
        given = aligned(quiet, lc, "quiet").transpose("time", ...).values
        return np.broadcast_to(given.reshape(len(given), -1), shape)
    if isinstance(quiet, str) or not isinstance(quiet, Sequence | np.ndarray) or len(quiet) != 2:
        raise InputError(f"quiet is a pair of times, or a boolean DataArray on time; got {quiet!r}"[:200])
    first, last = map(_mjd_of, quiet)
    if not first < last:
        raise InputError(f"quiet is (start, end) of the time in which the transient was seen; got {quiet}")
    return np.broadcast_to(((mjd < first) | (mjd > last))[:, None], shape)


def _fit_factor(lc: xr.Dataset, good: Bools, group: NDArray[np.int64]) -> Floats:
    """The root of each group's mean χ² of the PSF fits, at least 1."""
    if "fit_chi2" not in lc:
        raise InputError("rescale='fit' needs fit_chi2, the reduced chi-square of each PSF fit")
    chi2 = np.where(good, lc["fit_chi2"].values, np.nan)
    out = np.ones(chi2.shape)
    for g in np.unique(group):
        rows = chi2[group == g]
        count = np.isfinite(rows).sum(axis=0)
        mean = np.nansum(rows, axis=0) / np.maximum(count, 1)
        out[group == g] = np.sqrt(np.maximum(mean, 1.0))
    return out


def rescale_errors(lc: xr.Dataset, *, flux: str = "flux_ujy", by: Sequence[str] | None = None) -> xr.Dataset:
    """Errors × the root of each group's mean χ² of the PSF fits (`fit_chi2`), where that is over 1. Computes.

    For sources without a baseline; others are served by ``ztfxr.correct_baseline(rescale=...)``. `error_factor` on
    (time, source) says by how much.

    Parameters
    ----------
    lc
        Light curves on (time, source) with `fit_chi2`.
    flux
        The variable whose error is raised, itself named with ``_err``.
    by
        Coordinates along time that tell groups apart, as in `ztfxr.correct_baseline`.

    Returns
    -------
    xarray.Dataset
        `lc` with the larger errors and `error_factor`.

    Raises
    ------
    InputError
        There is no such flux, or no `fit_chi2`.
    """
    ordered = require_flux(lc, flux).transpose("time", "source", ...)
    factor = _fit_factor(ordered, kept(ordered, flux).values, _groups(ordered, by))
    error = ordered[f"{flux}_err"].copy(data=ordered[f"{flux}_err"].values * factor)
    out = ordered.assign({f"{flux}_err": error, "error_factor": (("time", "source"), factor)})
    return annotate_all(out)
