"""Which sources vary: statistics per source, and their rank."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr

from ztfxr.arrays.curves import variability as stats
from ztfxr.arrays.statistics import MAD_TO_SIGMA
from ztfxr.errors import InputError
from ztfxr.photometry.cuts import kept
from ztfxr.schema import annotate_all

__all__ = ["variability"]


def variability(lc: xr.Dataset, *, flux: str = "flux", flagged: bool = False, rescale: bool = True) -> xr.Dataset:
    """Statistics that tell variable from constant sources. Computes.

    Parameters
    ----------
    lc
        Light curves with `flux`, `flux_err` and `status`, dims (time, source).
    flux
        The variable to use; its error is named with ``_err``.
    flagged
        Use measurements whose `status` or `cuts` is not 0, too.
    rescale
        Divide each epoch's residuals by their typical size over all sources (at least 1), so that a bad night does
        not make every star a variable. Needs many more constant sources than variable ones; with fewer than 10
        sources nothing is rescaled.

    Returns
    -------
    xarray.Dataset
        On `source`: `n_good`, `mean_flux`, `mean_flux_err`, `scatter`, `median_err`, `reduced_chi2`, `excess_variance`,
        `fractional_excess` and its error, `von_neumann`, `stetson_j`, `consecutive_excess`, and `rank` by the last. NaN
        where there are too few measurements; such sources rank last. Epochs of unknown time are left out.

    Raises
    ------
    InputError
        The dataset has no such flux over (time, source).

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=5, n_stars=40)
    >>> places = [(40.0, 41.0), (60.0, 30.0)]
    >>> lc = ztfxr.lightcurve(made.images, places, reference=made.reference, scale="reference").compute()
    >>> ztfxr.variability(lc)["rank"].dims
    ('source',)
    """
    if flux not in lc or set(lc[flux].dims) != {"time", "source"}:
        raise InputError(f"variability needs {flux} with dims (time, source); got {dict(lc.sizes)}")
    ordered = lc.transpose("time", "source", ...)
    if "time" in lc.coords:
        ordered = ordered.sortby("time")
    values, errors = (ordered[k].values.astype(float) for k in (flux, f"{flux}_err"))
    values = np.where(kept(ordered, flux, flagged=flagged).values, values, np.nan)
    if "time" in lc.coords:
        values[pd.isna(ordered["time"].values)] = np.nan
    if rescale and values.shape[1] >= 10:
        errors = errors * _epoch_factor(values, errors)[:, None]
    return annotate_all(_statistics(values, errors, lc), unit=lc[flux].attrs.get("units"))


def _epoch_factor(flux: np.ndarray, error: np.ndarray) -> np.ndarray:
    """Typical size of each epoch's residuals over the sources, at least 1."""
    measured = np.ma.masked_where(~(np.isfinite(flux) & (error > 0)), flux)
    pull = np.ma.filled(np.ma.abs(measured - np.ma.median(measured, axis=0)) / np.where(error > 0, error, 1.0), np.nan)
    typical = np.ones(len(flux))
    for i, row in enumerate(pull):
        good = row[np.isfinite(row)]
        if good.size >= 10:
            typical[i] = max(MAD_TO_SIGMA * float(np.median(good)), 1.0)
    return typical


def _statistics(flux: np.ndarray, error: np.ndarray, lc: xr.Dataset) -> xr.Dataset:
    good = np.isfinite(flux) & (error > 0)
    mean, mean_err = stats.weighted_mean(flux, error)
    masked, masked_err = (np.ma.masked_where(~good, a) for a in (flux, error))
    middle = np.ma.median(masked, axis=0)
    fraction, fraction_err = stats.fractional_excess(flux, error)
    columns = {
        "n_good": good.sum(axis=0),
        "mean_flux": mean,
        "mean_flux_err": mean_err,
        "scatter": np.ma.filled(MAD_TO_SIGMA * np.ma.median(np.ma.abs(masked - middle), axis=0), np.nan),
        "median_err": np.ma.filled(np.ma.median(masked_err, axis=0), np.nan),
        "reduced_chi2": stats.reduced_chi2(flux, error),
        "excess_variance": stats.excess_variance(flux, error),
        "fractional_excess": fraction,
        "fractional_excess_err": fraction_err,
        "von_neumann": stats.von_neumann(flux, error),
        "stetson_j": stats.stetson_j(flux, error),
        "consecutive_excess": stats.consecutive_excess(flux, error),
    }
    order = np.argsort(-np.nan_to_num(columns["consecutive_excess"], nan=-np.inf), kind="stable")
    rank = np.empty(len(order), dtype=np.int64)
    rank[order] = np.arange(len(order))
    columns["rank"] = rank
    keep = {k: v for k, v in lc.coords.items() if v.dims == ("source",)}
    return xr.Dataset({k: ("source", v) for k, v in columns.items()}, keep)
