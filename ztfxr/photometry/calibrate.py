"""Put fluxes on one zero point: by the zero point of each epoch, and by stars that do not change."""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from ztfxr.arrays.curves.scales import ScaleFit, ScaleRules, fit_scales
from ztfxr.arrays.photometry.magnitudes import AB_MICROJANSKY, linear_error, rescale
from ztfxr.arrays.polynomials import polynomial_terms
from ztfxr.arrays.types import Bools, Floats
from ztfxr.errors import InputError
from ztfxr.ops.mapping import aligned
from ztfxr.ops.photcal import require_quantity
from ztfxr.photometry.cuts import kept
from ztfxr.schema import annotate_all

__all__ = ["apply_scale", "calibrate_flux", "photometric_scale"]


def calibrate_flux(
    photometry: xr.Dataset,
    *,
    magzp: xr.DataArray | float | None = None,
    color: xr.DataArray | float | None = None,
    color_term: xr.DataArray | float | None = None,
    zero_point_exptime: float | None = None,
    zero_point_scatter: bool = False,
) -> xr.Dataset:
    """Add `flux_ujy` and `flux_ujy_err` by each epoch's zero point (AB magnitude of 1 DN); lazy.

    Parameters
    ----------
    photometry
        With `flux`, `flux_err` in DN.
    magzp
        By default the coordinate `magzp`.
    color
        Color of each source in magnitudes, on `source`, in the bands of the color term (PS1 g - r for ZTF's g and r,
        r - i for its i). Without it no color term is applied, and the flux is in ZTF's own band.
    color_term
        Magnitudes to add per magnitude of color; by default the variable or coordinate `color_term` (CLRCOEFF).
    zero_point_exptime
        The exposure time (s) that the zero point is for, where that is not the epoch's own: 1 for counts per second.
        ZTF's MAGZP is for the exposure as it is.
    zero_point_scatter
        Add the zero point's scatter (`magzprms`, mag) to the error of every flux. It is that of single stars about the
        fit, all epochs alike in large part: right for comparing a star with others, too much for comparing epochs. The
        formal MAGZPUNC of the headers, some 1e-5 mag, is never used.

    Returns
    -------
    xarray.Dataset
        `photometry` with ``flux_ujy = flux · 10**(−0.4 (magzp + color_term · color − 23.9))`` (Oke & Gunn 1983) and its
        error; negative fluxes stay negative.

    Raises
    ------
    InputError
    AlignmentError
        An array that was given has other labels than the photometry.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> sums = ztfxr.aperture_photometry(made.images, [(40.0, 41.0)], radius=5)
    >>> ztfxr.calibrate_flux(sums).flux_ujy.attrs["units"]
    'uJy'
    """
    require_quantity(photometry["flux"], "counts")
    zero: Any = _known(
        photometry, "magzp", magzp, "no zero point: the photometry has no coordinate 'magzp'; give magzp="
    )
    if color is not None:
        shade = aligned(color, photometry, "color") if isinstance(color, xr.DataArray) else color
        zero = zero + shade * _known(photometry, "color_term", color_term, "color= needs a color_term= with it")
    elif color_term is not None:
        raise InputError("color_term= has no effect without the color= of the sources")
    if zero_point_exptime is not None:
        exptime = _known(
            photometry, "exptime", None, "the photometry has no exptime to compare zero_point_exptime with"
        )
        zero = zero + 2.5 * np.log10(exptime / zero_point_exptime)
    flux, error = (rescale(photometry[name], zero, AB_MICROJANSKY) for name in ("flux", "flux_err"))
    if zero_point_scatter:
        scatter = _known(photometry, "magzprms", None, "the photometry has no magzprms, the scatter of the zero point")
        error = np.hypot(error, linear_error(flux, scatter))
    dims = photometry["flux"].dims
    found = {"flux_ujy": flux, "flux_ujy_err": error}
    out = photometry.assign({k: v.transpose(*dims) for k, v in found.items()})
    return annotate_all(out)


def _known(
    photometry: xr.Dataset, name: str, given: xr.DataArray | float | None, otherwise: str
) -> xr.DataArray | float:
    """The value given, in the order of the photometry, else the dataset's own; in double precision."""
    if given is not None:
        return aligned(given, photometry, name) if isinstance(given, xr.DataArray) else given
    if name not in photometry.variables:
        raise InputError(otherwise)
    return photometry[name].astype(np.float64).reset_coords(drop=True)


def photometric_scale(
    lc: xr.Dataset,
    *,
    flux: str = "flux",
    constant: xr.DataArray | None = None,
    order: int = 0,
    min_snr: float = 10.0,
    min_stars: int = 5,
    n_sigma: float = 4.0,
    max_chi2: float = 4.0,
) -> xr.Dataset:
    """The photometric scale of each epoch, from stars that do not change. Computes.

    Parameters
    ----------
    lc
        Fluxes of many stars on (time, source), total ones, not differences; `x_pixel`, `y_pixel` on `source` where the
        scale varies over the field.
    flux
        The variable to use, its error named with ``_err``.
    constant
        Boolean on `source`, True for stars that are known to be constant; by default all are tried, and those that vary
        are found and left out.
    order
        Order of the polynomial in position that the scale may follow over the field; 0 for one number per epoch.
    min_snr
        Stars whose median signal-to-noise ratio is lower have no say.
    min_stars
        Epochs with fewer stars have no scale (NaN).
    n_sigma
        Stars further off in an epoch than this many of their errors are clipped there.
    max_chi2
        Stars whose reduced χ² is over this many times the typical one are variable.

    Returns
    -------
    xarray.Dataset
        On `time`: `scale` (at the middle of the field, 1 at the median epoch), `scale_err`, `scale_scatter` (of stars
        about it), `n_used`; `scale_coeff` on (time, scale_term). On `source`: `constant`, `mean_flux`. For
        `ztfxr.apply_scale`.

    Raises
    ------
    InputError
        There is no such flux, or there are too few stars for any epoch.

    Notes
    -----
    ``flux = scale(time, x, y) · mean(source)``, solved in turns for scales and means, with an intrinsic scatter of each
    star; see `ztfxr.arrays.scales.fit_scales`. This is how differential photometry of crowded fields is put on one
    scale (Honeycutt 1992, PASP 104, 435).
    """
    if flux not in lc or set(lc[flux].dims) != {"time", "source"}:
        raise InputError(f"photometric_scale needs {flux} with dims (time, source); got {dict(lc.sizes)}")
    ordered = lc.transpose("time", "source", ...)
    good = kept(ordered, flux).values
    values = np.where(good, ordered[flux].values.astype(np.float64), np.nan)
    errors = np.where(good, ordered[f"{flux}_err"].values.astype(np.float64), np.nan)
    eligible = _bright(values, errors, min_snr)
    if constant is not None:
        eligible = eligible & np.asarray(aligned(constant, ordered, "constant").values, dtype=bool)
    if eligible.sum() < min_stars:
        raise InputError(
            f"{int(eligible.sum())} stars have a median signal-to-noise ratio of {min_snr:g} or more, and {min_stars} "
            "are needed; give more or brighter stars, or lower min_snr or min_stars"
        )
    x, y, place = _field_coordinates(ordered, order)
    rules = ScaleRules(n_sigma, np.inf if constant is not None else max_chi2, min_stars)
    fit = fit_scales(values, errors, polynomial_terms(y, x, order), eligible, rules)
    return annotate_all(_scale_dataset(ordered, fit).assign_attrs(order=order, flux=flux, **place))


def _bright(values: Floats, errors: Floats, min_snr: float) -> Bools:
    out = np.zeros(values.shape[1], dtype=bool)
    known = np.isfinite(values).any(axis=0)
    out[known] = np.nanmedian(values[:, known] / errors[:, known], axis=0) >= min_snr
    return out


def _field_coordinates(lc: xr.Dataset, order: int) -> tuple[Floats, Floats, dict[str, float]]:
    """Positions from -1 to 1 over the stars, and how they came about."""
    n = lc.sizes["source"]
    if order == 0:
        return np.zeros(n), np.zeros(n), {}
    if not {"x_pixel", "y_pixel"} <= set(lc.variables):
        raise InputError("a scale that varies over the field needs x_pixel and y_pixel of the stars")
    place: dict[str, float] = {}
    out = []
    for axis in ("x", "y"):
        at = lc[f"{axis}_pixel"].values.astype(np.float64)
        middle, half = (np.nanmax(at) + np.nanmin(at)) / 2, max(np.ptp(at[np.isfinite(at)]) / 2, 1.0)
        place |= {f"{axis}_middle": float(middle), f"{axis}_half": float(half)}
        out.append((at - middle) / half)
    return out[0], out[1], place


def _scale_dataset(lc: xr.Dataset, fit: ScaleFit) -> xr.Dataset:
    found = {
        "scale": ("time", fit.coefficients[:, 0]),
        "scale_err": ("time", np.sqrt(fit.covariance[:, 0, 0])),
        "scale_scatter": ("time", fit.scatter),
        "n_used": ("time", fit.n_used),
        "scale_coeff": (("time", "scale_term"), fit.coefficients),
        "constant": ("source", fit.constant),
        "mean_flux": ("source", fit.mean),
    }
    coords = {k: v for k, v in lc.coords.items() if v.dims in (("time",), ("source",))}
    return xr.Dataset(found, coords)


def apply_scale(lc: xr.Dataset, scale: xr.Dataset, *, flux: str | None = None) -> xr.Dataset:
    """Divide fluxes by the photometric scale of their epoch; lazy.

    Parameters
    ----------
    lc
        Fluxes on (time, source) of epochs that the scale knows; of other sources, or of differences, too.
    scale
        Photometric scales, from `ztfxr.photometric_scale`. Epochs are matched by their labels where both have them.
    flux
        The variable to divide, its error named with ``_err``; by default the one that the scale was found with.

    Returns
    -------
    xarray.Dataset
        `lc` with the flux and its error divided by the scale at each source; the error of the scale, times the flux, is
        added in quadrature.

    Raises
    ------
    InputError
        The flux is not there, or the numbers of epochs differ where nothing labels them.
    AlignmentError
        The scale lacks an epoch of the light curve.
    """
    if not {"scale", "scale_coeff", "scale_err"} <= set(scale.variables) or "order" not in scale.attrs:
        raise InputError(
            "the scale is what ztfxr.photometric_scale gives; this Dataset has no scale, scale_coeff, scale_err"
        )
    name = flux or str(scale.attrs.get("flux", "flux"))
    if name not in lc or f"{name}_err" not in lc:
        raise InputError(f"no {name} and {name}_err to scale; there are {', '.join(map(str, lc.data_vars))}")
    labeled = "time" in lc.xindexes and "time" in scale.xindexes
    if not labeled and lc.sizes.get("time") != scale.sizes["time"]:
        raise InputError(f"the scale is of {scale.sizes['time']} epochs, the light curve has {lc.sizes.get('time')}")
    coefficients, own, err = (aligned(scale[k], lc, "the scale") for k in ("scale_coeff", "scale", "scale_err"))
    divisor = _scale_at(lc, scale, coefficients)
    value = lc[name] / divisor
    error: Any = np.hypot(lc[f"{name}_err"] / divisor, value * (err / own))
    dims = lc[name].dims
    out = lc.assign({name: value.transpose(*dims), f"{name}_err": error.transpose(*dims)})
    return annotate_all(out)


def _scale_at(lc: xr.Dataset, scale: xr.Dataset, coefficients: xr.DataArray) -> xr.DataArray:
    """The scale on (time,) or, where it varies over the field, (time, source)."""
    order = int(scale.attrs["order"])
    if order == 0:
        return coefficients.isel(scale_term=0)
    x, y = (
        (lc[f"{axis}_pixel"].values - scale.attrs[f"{axis}_middle"]) / scale.attrs[f"{axis}_half"]
        for axis in ("x", "y")
    )
    terms = xr.DataArray(polynomial_terms(y, x, order), dims=("source", "scale_term"))
    return (coefficients * terms).sum("scale_term", skipna=False)
