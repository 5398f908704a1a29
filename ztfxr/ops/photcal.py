"""The photometric system: counts, flux densities and AB magnitudes, each into the others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
import xarray as xr
from astropy import units as u
from dask.base import is_dask_collection
from numpy.typing import NDArray

from ztfxr.arrays.photometry import magnitudes as photcal
from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.ops.mapping import in_order_of
from ztfxr.schema import EFFECTIVE_WAVELENGTHS, annotate

__all__ = [
    "FluxUnit",
    "Values",
    "convert_flux",
    "counts_to_flux",
    "counts_to_mag",
    "flux_to_counts",
    "flux_to_mag",
    "is_flux_unit",
    "mag_to_counts",
    "mag_to_flux",
    "require_quantity",
]

FluxUnit: TypeAlias = Literal["uJy", "erg/s/cm2/A"]
Values: TypeAlias = xr.DataArray | NDArray[Any] | float
"""Numbers, arrays or DataArrays, with numpy or dask inside."""

_FLUX_NAMES: dict[str, str] = {"uJy": "flux_ujy", "erg/s/cm2/A": "flux_lambda"}
_QUANTITY = {"DN": "counts", "mag": "mag", **dict.fromkeys(_FLUX_NAMES, "flux")}


def counts_to_mag(counts: Values, err: Values | None = None, *, magzp: Values | None = None) -> Any:
    """AB magnitudes of counts; lazy.

    Parameters
    ----------
    counts
        In DN: a number, an array or a DataArray of any shape.
    err
        Their standard error.
    magzp
        AB magnitude of 1 DN; by default the coordinate `magzp` of `counts`.

    Returns
    -------
    Magnitudes of the kind given; with `err` the pair of magnitudes and their standard errors, to first order
    (2.5 / ln 10 · err / counts). Counts that are not positive give NaN. The error of the zero point is not added.

    Raises
    ------
    InputError
        No zero point is known, or the unit of `counts` is another one.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> ztfxr.counts_to_mag(ds.sci).attrs["units"]
    'mag'
    """
    require_quantity(counts, "counts")
    return _to_mag(counts, err, _magzp(counts, magzp))


def mag_to_counts(mag: Values, err: Values | None = None, *, magzp: Values | None = None) -> Any:
    """Counts in DN of AB magnitudes; lazy.

    Parameters
    ----------
    mag
        AB magnitudes: a number, an array or a DataArray of any shape.
    err
        Their standard error.
    magzp
        AB magnitude of 1 DN; by default the coordinate `magzp` of `mag`.

    Returns
    -------
    Counts of the kind given; with `err` the pair of counts and their standard errors, to first order. NaN stays
    NaN.

    Raises
    ------
    InputError
        No zero point is known, or the unit of `mag` is another one.
    """
    require_quantity(mag, "mag")
    return _from_mag(mag, err, _magzp(mag, magzp), "counts")


def counts_to_flux(
    counts: Values,
    err: Values | None = None,
    *,
    unit: FluxUnit = "uJy",
    magzp: Values | None = None,
    wavelength: Values | str | None = None,
) -> Any:
    """Flux densities of counts; lazy.

    Parameters
    ----------
    counts
        In DN: a number, an array or a DataArray of any shape.
    err
        Their standard error.
    unit
        ``"uJy"``, per frequency; or ``"erg/s/cm2/A"``, per wavelength.
    magzp
        AB magnitude of 1 DN; by default the coordinate `magzp` of `counts`.
    wavelength
        In Å, or the name of a filter, whose effective wavelength is taken (ztfg 4813.97, ztfr 6421.81, ztfi 7883.06);
        by default by the coordinate `filter`. Only a flux density per wavelength needs it.

    Returns
    -------
    Flux densities of the kind given; with `err` the pair of them and their standard errors. Negative counts give
    negative fluxes.

    Raises
    ------
    InputError
        No zero point or wavelength is known, an unknown unit or filter, or the unit of `counts` is another one.

    Notes
    -----
    ``f_ν = 10**(−0.4 (mag + 48.6))`` erg/s/cm²/Hz (Oke & Gunn 1983, ApJ 266, 713) and ``f_λ = f_ν c / λ²``.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> ztfxr.counts_to_flux(ds.sci, unit="uJy").attrs["units"]
    'uJy'
    """
    require_quantity(counts, "counts")
    target = _flux_zero_point(counts, unit, wavelength)
    return _rescaled(counts, err, _magzp(counts, magzp), target, _FLUX_NAMES[unit])


def flux_to_counts(
    flux: Values,
    err: Values | None = None,
    *,
    unit: FluxUnit | None = None,
    magzp: Values | None = None,
    wavelength: Values | str | None = None,
) -> Any:
    """Counts in DN of flux densities; lazy.

    Parameters
    ----------
    flux
        A number, an array or a DataArray of any shape.
    err
        Its standard error.
    unit
        Unit of `flux`, as in `ztfxr.counts_to_flux`; by default what its attribute ``units`` says, else µJy.
    magzp
        AB magnitude of 1 DN; by default the coordinate `magzp` of `flux`.
    wavelength
        As in `ztfxr.counts_to_flux`.

    Returns
    -------
    Counts of the kind given; with `err` the pair of counts and their standard errors. Negative stays negative.

    Raises
    ------
    InputError
        No zero point or wavelength is known, an unknown unit or filter, or `flux` says that it is in another one.
    """
    zero_point = _flux_zero_point(flux, _unit_of(flux, unit), wavelength)
    return _rescaled(flux, err, zero_point, _magzp(flux, magzp), "counts")


def flux_to_mag(
    flux: Values, err: Values | None = None, *, unit: FluxUnit | None = None, wavelength: Values | str | None = None
) -> Any:
    """AB magnitudes of flux densities; lazy.

    Parameters
    ----------
    flux
        A number, an array or a DataArray of any shape.
    err
        Its standard error.
    unit
        Unit of `flux`, as in `ztfxr.counts_to_flux`; by default what its attribute ``units`` says, else µJy.
    wavelength
        As in `ztfxr.counts_to_flux`.

    Returns
    -------
    Magnitudes of the kind given; with `err` the pair of magnitudes and their standard errors, to first order.
    Fluxes that are not positive give NaN.

    Raises
    ------
    InputError
        No wavelength is known, an unknown unit or filter, or `flux` says that it is in another one.
    """
    return _to_mag(flux, err, _flux_zero_point(flux, _unit_of(flux, unit), wavelength))


def mag_to_flux(
    mag: Values, err: Values | None = None, *, unit: FluxUnit = "uJy", wavelength: Values | str | None = None
) -> Any:
    """Flux densities of AB magnitudes; lazy.

    Parameters
    ----------
    mag
        AB magnitudes: a number, an array or a DataArray of any shape.
    err
        Their standard error.
    unit, wavelength
        As in `ztfxr.counts_to_flux`.

    Returns
    -------
    Flux densities of the kind given; with `err` the pair of them and their standard errors, to first order. NaN
    stays NaN.

    Raises
    ------
    InputError
        No wavelength is known, an unknown unit or filter, or the unit of `mag` is another one.
    """
    require_quantity(mag, "mag")
    return _from_mag(mag, err, _flux_zero_point(mag, unit, wavelength), _FLUX_NAMES[_known_unit(unit)])


def convert_flux(
    flux: Values,
    err: Values | None = None,
    *,
    to: FluxUnit,
    unit: FluxUnit | None = None,
    wavelength: Values | str | None = None,
) -> Any:
    """Flux densities per frequency to those per wavelength, or back; lazy.

    Parameters
    ----------
    flux
        A number, an array or a DataArray of any shape.
    err
        Its standard error.
    to
        The unit of the result, as in `ztfxr.counts_to_flux`.
    unit
        Unit of `flux`; by default what its attribute ``units`` says, else µJy.
    wavelength
        As in `ztfxr.counts_to_flux`.

    Returns
    -------
    Flux densities of the kind given; with `err` the pair of them and their standard errors. Negative stays
    negative.

    Raises
    ------
    InputError
        No wavelength is known, an unknown unit or filter, or `flux` says that it is in another one.
    """
    zero_point = _flux_zero_point(flux, _unit_of(flux, unit), wavelength)
    return _rescaled(flux, err, zero_point, _flux_zero_point(flux, to, wavelength), _FLUX_NAMES[to])


def _to_mag(value: Values, err: Values | None, zero_point: Any) -> Any:
    mag = _elementwise(photcal.to_mag, "mag", value, zero_point)
    return mag if err is None else (mag, _elementwise(photcal.mag_error, "mag_err", value, err))


def _from_mag(mag: Values, err: Values | None, zero_point: Any, name: str) -> Any:
    value = _elementwise(photcal.from_mag, name, mag, zero_point)
    return value if err is None else (value, _elementwise(photcal.linear_error, f"{name}_err", value, err))


def _rescaled(value: Values, err: Values | None, zero_point: Any, target: Any, name: str) -> Any:
    out = _elementwise(photcal.rescale, name, value, zero_point, target)
    return out if err is None else (out, _elementwise(photcal.rescale, f"{name}_err", err, zero_point, target))


def _elementwise(function: Callable[..., Any], name: str, *arrays: Any) -> Any:
    """`function` over numbers, arrays and DataArrays; lazy where one of them is."""
    labeled = next((a for a in arrays if isinstance(a, xr.DataArray)), None)
    if labeled is not None:
        arrays = tuple(in_order_of(a, labeled, "what was given") if isinstance(a, xr.DataArray) else a for a in arrays)
    out = xr.apply_ufunc(function, *(_labeled(_numbers(a), labeled) for a in arrays), dask="allowed")
    # The result has another unit than what went in.
    return annotate(out.drop_attrs(deep=False), name) if isinstance(out, xr.DataArray) else out


def _labeled(values: Any, like: xr.DataArray | None) -> Any:
    """A bare array with the dimensions of the DataArray that it goes with, which it must have the shape of."""
    if like is None or np.ndim(values) == 0 or isinstance(values, xr.DataArray | xr.Variable):
        return values
    if np.shape(values) != like.shape:
        raise InputError(
            f"got an array of shape {np.shape(values)} beside a DataArray of dimensions {dict(like.sizes)}: "
            "give it as a DataArray too, whose dimensions have names"
        )
    return xr.Variable(like.dims, values)


def _numbers(values: Any) -> Any:
    """Floats in double precision; masked entries are NaN."""
    if getattr(values, "unit", None) is not None:
        raise InputError(f"numbers are wanted, without a unit; got {values.unit}: use .to_value(...), or .value")
    labeled = isinstance(values, xr.DataArray | xr.Variable) or is_dask_collection(values)
    array = values if labeled else np.ma.asarray(values)
    if array.dtype.kind in "USc":
        raise InputError(f"real numbers are wanted; got {array.dtype}: {values!r}"[:200])
    return array.astype(np.float64) if labeled else np.ma.filled(array.astype(np.float64), np.nan)[()]


def _magzp(values: Values, given: Values | None) -> Any:
    """The zero point: the one given, else the coordinate."""
    if given is not None:
        return given
    if isinstance(values, xr.DataArray) and "magzp" in values.coords:
        return values.coords["magzp"].variable
    raise InputError("no zero point is known: give magzp= (AB magnitude of 1 DN), or a coordinate 'magzp'")


def _flux_zero_point(values: Values, unit: str, wavelength: Values | str | None) -> Any:
    """AB magnitude of 1 of the unit."""
    if _known_unit(unit) == "uJy":
        return photcal.AB_MICROJANSKY
    return photcal.ab_per_wavelength(_numbers(_wavelength(values, wavelength)))


def _known_unit(unit: str) -> str:
    if unit not in get_args(FluxUnit):
        raise InputError(f"a flux is in {' or '.join(map(repr, get_args(FluxUnit)))}; got {unit!r}")
    return unit


def _wavelength(values: Values, given: Values | str | None) -> Any:
    """In Å: the one given, else that of the filter; NaN where an epoch has none."""
    if given is None and isinstance(values, xr.DataArray) and "filter" in values.coords:
        given = values.coords["filter"].variable
    if given is None:
        raise InputError("no wavelength is known: give wavelength= in Å or as a filter, or a coordinate 'filter'")
    dtype = given.dtype if hasattr(given, "dtype") else np.asarray(given).dtype
    if dtype.kind in "UOT":
        return xr.apply_ufunc(_effective_wavelength, given, dask="parallelized", output_dtypes=[np.float64])
    return given


def _effective_wavelength(names: Any) -> Floats:
    names = np.asarray(names).astype(str)
    unknown = sorted(set(names.ravel().tolist()) - set(EFFECTIVE_WAVELENGTHS) - {""})
    if unknown:
        raise InputError(
            f"no effective wavelength is known for the filter {', '.join(map(repr, unknown))}, only for "
            f"{', '.join(EFFECTIVE_WAVELENGTHS)}; give wavelength= in Å"
        )
    known = [EFFECTIVE_WAVELENGTHS.get(name, np.nan) for name in names.ravel().tolist()]
    return np.array(known, dtype=np.float64).reshape(names.shape)


def _units(values: Any) -> Any:
    return values.attrs.get("units") if isinstance(values, xr.DataArray) else None


def require_quantity(values: Any, quantity: str) -> None:
    """Refuse what says that it is something else: another quantity, or a flux in a unit without a zero point here."""
    stated = _units(values)
    if not stated:
        return
    given = _QUANTITY.get(str(stated))
    if given not in (None, quantity):
        raise InputError(
            f"{quantity} is wanted, but {values.name or 'the array'} is in {stated}: "
            f"convert it with ztfxr.{given}_to_{quantity}"
        )
    if given is None and (quantity == "flux" or is_flux_unit(str(stated))):
        wanted = "DN" if quantity == "counts" else "mag" if quantity == "mag" else " or ".join(_FLUX_NAMES)
        raise InputError(
            f"{quantity} is wanted, in {wanted}, but {values.name or 'the array'} is in {stated}: convert it, and say "
            "so in its attribute units"
        )


def is_flux_unit(text: str) -> bool:
    """Whether a unit is one of flux density, of surface brightness or of magnitudes, which need no zero point."""
    unit = u.Unit(text, parse_strict="silent")
    physical = (u.Jy, u.Jy / u.sr, u.Jy / u.beam, u.Jy / u.pix, u.erg / u.s / u.cm**2 / u.AA, u.mag)
    return (text in _QUANTITY and text != "DN") or any(unit.is_equivalent(each) for each in physical)


def _unit_of(flux: Values, given: FluxUnit | None) -> str:
    """The unit of a flux: what it says of itself, else the one given, else µJy."""
    require_quantity(flux, "flux")
    stated = _units(flux) if _units(flux) in _FLUX_NAMES else None
    if given is not None and stated is not None and _known_unit(given) != stated:
        raise InputError(f"unit={given!r}, but the attribute units of the flux says {stated!r}")
    return str(given or stated or "uJy")
