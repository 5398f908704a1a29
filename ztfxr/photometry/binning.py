"""Light curves binned in flux."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.curves.variability import grouped_mean
from ztfxr.arrays.options import require_number
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.io.times import to_datetime
from ztfxr.photometry.cuts import kept
from ztfxr.schema import annotate_all

__all__ = ["bin_by_night"]

_COUNTS = ("DN", "electron", "DN/s", "electron/s")
_SAME_MAGZP = 1e-6


def bin_by_night(
    lc: xr.Dataset,
    *,
    flux: str | None = None,
    by: Sequence[str] = ("filter",),
    days: float = 1.0,
    day_starts: float = 0.0,
    flagged: bool = False,
) -> xr.Dataset:
    """Average the fluxes of each night; lazy but for the times of the epochs.

    Parameters
    ----------
    lc
        Light curves on (time, source) with the coordinate `mjd`. Counts must be on one zero point within each bin.
    flux
        The variable to average, its error named with ``_err``; by default `total_ujy`, `flux_ujy` or `flux`, the first
        that is there. Only fluxes can be averaged: magnitudes of faint detections are biased.
    by
        Coordinates along time that are not to be mixed, where they are there.
    days
        Length of a bin.
    day_starts
        Fraction of an MJD at which a bin begins; 0 suits Palomar, whose nights lie inside one UTC date.
    flagged
        Use measurements whose `status` or `cuts` is not 0, too.

    Returns
    -------
    xarray.Dataset
        On (time, source): the flux as inverse-variance mean, its error, `chi2_night` (reduced, of the measurements
        about the mean; NaN below two) and `n_binned`. `mjd` and `time` are the mean of the bin's epochs; `by`
        coordinates stay. NaN where a source has no usable measurement that night. Epochs of unknown time are passed
        over.

    Raises
    ------
    InputError
        Also where counts of different zero points (`magzp`) would be averaged.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> lc = ztfxr.lightcurve(made.images, [(40.0, 41.0)], reference=made.reference).compute()
    >>> ztfxr.bin_by_night(lc).flux_ujy.dims
    ('time', 'source')
    """
    name = flux or next((n for n in ("total_ujy", "flux_ujy", "flux") if n in lc), "flux")
    if name not in lc or set(lc[name].dims) != {"time", "source"} or "mjd" not in lc.coords:
        raise InputError(f"binning needs {name} with dims (time, source) and the coordinate mjd; got {dict(lc.sizes)}")
    require_number("days", days)
    require_number("day_starts", day_starts)
    if not days > 0:
        raise InputError(f"days must be positive; got {days}")
    lc = lc.isel(time=np.flatnonzero(_when(lc)))
    mjd = _mjd(lc)
    keys = [k for k in by if k in lc.coords and lc.coords[k].dims == ("time",)]
    group, first = _group(np.floor((mjd - day_starts) / days), [lc.coords[k].values for k in keys])
    _require_one_zero_point(lc, name, group, len(first))
    found = xr.apply_ufunc(
        grouped_mean,
        *_inputs(lc, name, flagged),
        input_core_dims=[["time", "source"]] * 3,
        output_core_dims=[["bin", "source"]] * 4,
        join="exact",
        kwargs={"group": group, "n_groups": len(first)},
        dask="parallelized",
        output_dtypes=[np.float64, np.float64, np.float64, np.int64],
        dask_gufunc_kwargs={"output_sizes": {"bin": len(first)}},
    )
    out = xr.Dataset(dict(zip((name, f"{name}_err", "chi2_night", "n_binned"), found, strict=True)))
    mean_mjd = np.bincount(group, mjd) / np.bincount(group)
    coords: dict[str, Any] = {k: ("time", lc.coords[k].values[first]) for k in keys}
    coords |= {"mjd": ("time", mean_mjd), "time": ("time", np.array([to_datetime(t) for t in mean_mjd]))}
    coords |= {str(k): v.variable for k, v in lc.coords.items() if "time" not in v.dims}
    out = out.rename(bin="time").assign_coords(coords).assign_attrs(lc.attrs)
    return annotate_all(out)


def _require_one_zero_point(lc: xr.Dataset, name: str, group: NDArray[np.int64], n_groups: int) -> None:
    """Counts of two zero points have no mean; those that are on the scale of the reference have one scale."""
    on_one_scale = lc.attrs.get("flux_scale") == "reference" or lc[name].attrs.get("units", "DN") not in _COUNTS
    if on_one_scale or "magzp" not in lc.coords or lc.coords["magzp"].dims != ("time",):
        return
    magzp = lc.coords["magzp"].values.astype(np.float64)
    low, high = np.full(n_groups, np.inf), np.full(n_groups, -np.inf)
    np.fmin.at(low, group, magzp)
    np.fmax.at(high, group, magzp)
    spread = float((high - low).max(initial=0.0))
    if spread > _SAME_MAGZP:
        raise InputError(
            f"{name} is in counts, whose zero points differ by up to {spread:.3g} mag within a bin; calibrate first "
            "(ztfxr.calibrate_flux) and bin flux_ujy"
        )


def _mjd(lc: xr.Dataset) -> Floats:
    return np.broadcast_to(lc.coords["mjd"].values.astype(np.float64), lc.sizes["time"])


def _when(lc: xr.Dataset) -> Bools:
    """Which epochs have a time."""
    return np.isfinite(_mjd(lc))


def _inputs(lc: xr.Dataset, name: str, flagged: bool) -> tuple[xr.DataArray, ...]:
    arrays = (lc[name], lc[f"{name}_err"], kept(lc, name, flagged=flagged))
    bare = (a.drop_vars(list(a.coords)).transpose("time", "source") for a in arrays)
    return tuple(a.chunk(time=-1, source=-1) if a.chunks else a for a in bare)


def _group(night: Floats, keys: list[NDArray[Any]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The number of each epoch's bin, in order of nights, and the first epoch of each bin."""
    _, number = np.unique(night, return_inverse=True)
    for key in keys:
        _, label = np.unique(key, return_inverse=True)
        number = number * (label.max(initial=0) + 1) + label
    _, first, group = np.unique(number, return_index=True, return_inverse=True)
    return group.astype(np.int64), first.astype(np.int64)
