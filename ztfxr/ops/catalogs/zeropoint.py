"""Zero point and color term against a catalog."""

from __future__ import annotations

from dataclasses import asdict, fields
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.photometry import magnitudes as photcal
from ztfxr.errors import InputError
from ztfxr.io.tables import Catalog, as_catalog
from ztfxr.ops.catalogs.match import Radius, match
from ztfxr.ops.mapping import map_images
from ztfxr.schema import annotate_all

__all__ = ["zero_point"]

_FITTED = (*(f.name for f in fields(photcal.ZeroPointFit)), "n_missing")


def zero_point(
    sources: xr.Dataset,
    catalog: Catalog | None = None,
    *,
    radius: Radius = 1.0,
    flux: str = "kron_flux",
    mag: str = "mag",
    color: str | tuple[str, str] | None = None,
    n_sigma: float = 3.0,
    min_stars: int = 5,
) -> xr.Dataset:
    """Zero point and color term of fluxes against a catalog of magnitudes. Computes where it has to match.

    Parameters
    ----------
    sources
        Fluxes on `source`, or on (time, source): then every epoch is fitted.
    catalog
        Magnitudes, in any form that `ztfxr.as_catalog` takes; matched to the sources by `ztfxr.match`. Without it,
        `sources` holds the magnitudes too, in its rows, as `ztfxr.match` puts them side by side; the fit is then lazy
        where they are.
    radius
        Radius of the match: an angle, or a number of arcsec.
    flux
        Column with the fluxes in DN; their errors are in ``<flux>_err``.
    mag
        Column with the magnitudes of the catalog; their errors are in ``<mag>_err``, or are 0 without such a column.
    color
        Column of the catalog with a color, or two with the magnitudes to subtract, such as ``("mag_g", "mag_r")``.
        Without it no color term is fitted.
    n_sigma
        Stars further from the fit than this many of their errors are clipped.
    min_stars
        With fewer stars the fit is NaN.

    Returns
    -------
    xarray.Dataset
        `magzp`, `magzp_err`, `color_term`, `color_term_err`, `magzprms` (standard deviation of the stars used about the
        fit), `intrinsic_scatter` (what the stated errors do not explain of it), `n_stars`, `n_used`, `n_missing`; on
        `time` where the fluxes are. Without a fit they are NaN, and `n_used` is 0.

    Raises
    ------
    InputError
        A column is missing or holds text, or there is no catalog with positions to match.

    Notes
    -----
    ``mag = −2.5 log10(flux) + magzp + color_term · color``, which is IPAC's convention (Masci et al. 2019, PASP 131,
    018003): `magzp` belongs to color 0. Weighted least squares from a start that outliers do not move; see
    `ztfxr.arrays.photcal.fit_zero_point`. Fluxes that are not positive, and rows with a NaN, are left out.
    So are rows with a code for a missing value, which `n_missing` counts: magnitudes of exactly 0 or beyond −40 and 60
    (−999, −99, 99, 9999), errors that are negative or 9 and more, colors beyond ±30.
    """
    if not (n_sigma > 0 and min_stars >= 2):
        raise InputError(f"n_sigma is positive and min_stars at least 2; got {n_sigma} and {min_stars}")
    colors = (color,) if isinstance(color, str) else tuple(color or ())
    if len(colors) > 2:
        raise InputError(f"a color is one column, or two to subtract; got {colors}")
    options: dict[str, Any] = {"n_sigma": n_sigma, "with_color": bool(colors), "min_stars": min_stars}
    if catalog is None:
        return _fitted(sources, flux, mag, colors, options)
    if flux in sources and "time" in sources[flux].dims:
        epochs = [sources.isel(time=i) for i in range(sources.sizes["time"])]
        fits = [_against(epoch, catalog, radius, flux, mag, colors, options) for epoch in epochs]
        return xr.concat(fits, "time", coords="different", compat="equals")
    return _against(sources, catalog, radius, flux, mag, colors, options)


def _against(
    sources: xr.Dataset,
    catalog: Catalog,
    radius: Radius,
    flux: str,
    mag: str,
    colors: tuple[str, ...],
    options: dict[str, Any],
) -> xr.Dataset:
    """The fit to the pairs of sources and catalog entries that lie together."""
    table = as_catalog(catalog)
    errors = [f"{mag}_err"] if f"{mag}_err" in table.variables else []
    columns = [flux, f"{flux}_err", mag, *errors, *colors]
    pairs = match(sources, table, radius=radius, names=("sources", "catalog"), columns=columns)
    rows = pairs.assign_coords({k: v.variable for k, v in sources.coords.items() if v.ndim == 0})
    return _fitted(rows, f"sources_{flux}", f"catalog_{mag}", tuple(f"catalog_{c}" for c in colors), options)


def _fitted(rows: xr.Dataset, flux: str, mag: str, colors: tuple[str, ...], options: dict[str, Any]) -> xr.Dataset:
    """The fit to columns side by side, each leading dimension on its own."""
    counts, counts_err, catalog = (_column(rows, name) for name in (flux, f"{flux}_err", mag))
    catalog_err = _column(rows, f"{mag}_err") if f"{mag}_err" in rows else xr.zeros_like(catalog)
    shades = [_column(rows, name) for name in colors] or [xr.zeros_like(catalog)]
    if len(shades) == 2:
        first, second = (xr.apply_ufunc(photcal.known_magnitudes, s, dask="allowed") for s in shades)
        shades = [first - second]
    (shade,) = shades
    row = str(next((d for d in ("match", "source") if d in catalog.dims), catalog.dims[-1]))
    columns = {"counts": counts, "counts_err": counts_err, "mag": catalog, "mag_err": catalog_err, "color": shade}
    plain = {k: c.reset_coords(drop=True).drop_vars(row, errors="ignore") for k, c in columns.items()}
    found = map_images(
        _fit, {k: c.rename({row: "source"}) for k, c in plain.items()}, dict.fromkeys(_FITTED, ()), options=options
    )
    kept = {k: v.variable for k, v in rows.coords.items() if row not in v.dims and k not in _FITTED}
    out = xr.Dataset({k: v.variable for k, v in found.items()}, kept)
    return annotate_all(out.assign_attrs(flux=flux, mag=mag, color=" - ".join(colors), n_sigma=options["n_sigma"]))


def _column(rows: xr.Dataset, name: str) -> xr.DataArray:
    if name not in rows:
        raise InputError(f"no column {name!r}; there are {', '.join(map(str, rows.data_vars)) or 'none'}")
    if rows[name].dtype.kind not in "iuf":
        raise InputError(f"the column {name!r} holds {rows[name].dtype}, but numbers are needed")
    return rows[name]


def _fit(
    counts: NDArray[Any],
    counts_err: NDArray[Any],
    mag: NDArray[Any],
    mag_err: NDArray[Any],
    color: NDArray[Any],
    **options: Any,
) -> dict[str, Any]:
    counts_err = np.where(counts_err >= 0, counts_err, np.nan)
    columns = (photcal.known_magnitudes(mag), photcal.known_errors(mag_err), photcal.known_colors(color))
    missing = np.isfinite(counts) & (counts > 0) & ~np.all(np.isfinite(columns), axis=0)
    offset = columns[0] - photcal.to_mag(counts, 0.0)
    error = np.hypot(photcal.mag_error(counts, counts_err), columns[1])
    return asdict(photcal.fit_zero_point(offset, error, columns[2], **options)) | {"n_missing": int(missing.sum())}
