"""Tables of every kind that users have, as a Dataset on `source`."""

from __future__ import annotations

import re
from collections.abc import Hashable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from astropy.coordinates import SkyCoord
from astropy.table import Table
from astropy.time import Time
from dask.base import is_dask_collection
from numpy.typing import NDArray

from ztfxr.arrays.photometry.magnitudes import known_errors, known_magnitudes
from ztfxr.arrays.types import Bools
from ztfxr.errors import InputError, ShapeError
from ztfxr.io.fits import open_hdus
from ztfxr.io.names import AnyPath
from ztfxr.io.remote import shown
from ztfxr.schema import SPECS, find_columns
from ztfxr.wcs.angles import degrees, degrees_in

__all__ = ["ATTRS_KEY", "Catalog", "as_catalog", "exact", "read_lco_catalog"]

Catalog: TypeAlias = xr.Dataset | Table | pd.DataFrame | SkyCoord | Mapping[str, Any] | NDArray[np.void]

ATTRS_KEY = "ztfxr"
"""Where a DataFrame's `attrs` keep the attributes of its columns."""

_CANONICAL = {"ra": "ra", "dec": "dec", "x": "x_centroid", "y": "y_centroid"}
_EXACT_FLOATS = 2**53
_MAGNITUDES = re.compile(r"mag(?!e)", re.IGNORECASE)
_ERRORS = re.compile(r"err|unc|sig|^e_", re.IGNORECASE)
_FAR_FROM_ZERO = 5.0
_LCO_COLUMNS = {"X": "x_centroid", "Y": "y_centroid", "RA": "ra", "DEC": "dec", "FLUX": "flux", "FLUXERR": "flux_err"}


def as_catalog(catalog: Catalog) -> xr.Dataset:
    """A catalog in any form as a Dataset on `source`; what is lazy stays lazy.

    Parameters
    ----------
    catalog
        A Dataset along one dimension (others, as `time`, may stand beside it); an astropy Table, a pandas DataFrame, a
        structured array, a mapping of columns, or a `SkyCoord`.

    Returns
    -------
    xarray.Dataset
        Every column on `source`. The sky position, found under the names that surveys give it (`RA_ICRS`, `RAJ2000`,
        `raMean`, `ALPHA_J2000`, ..., in any case), is the coordinates `ra`, `dec` in degrees, taken as ICRS; columns
        with a unit, or text such as "03:51:36", are converted to degrees. Pixel positions `x`, `y` or `x_pixel`,
        `y_pixel`, taken as absolute and 0-based, are `x_centroid`, `y_centroid`; `X`, `X_IMAGE` and the like, which
        count from 1, stay as they are. Units and descriptions of columns become attributes; a column of vectors becomes
        one column per component, `name_0`, `name_1`, ... Where a number is missing the column is float64 with NaN
        (whole numbers that float64 cannot hold, such as ids, become text), where a text is missing it is empty. Columns
        of magnitudes and their errors, by their name or unit, are NaN where they hold a code for a missing one (−999,
        −99, 99, 9999; 0 where all others are far from it); the attribute `n_codes` says how many, where the column is
        in memory.

    Raises
    ------
    InputError
        No dimension that could be that of the sources, columns of different length, or a position that is no angle.
    """
    if isinstance(catalog, xr.Dataset):
        return _from_dataset(catalog)
    columns = dict(_columns(catalog))
    lengths = {name: int(v.size) for name, v in columns.items()}
    if len(set(lengths.values())) > 1:
        raise InputError(f"the columns of the catalog differ in length: {lengths}")
    out = xr.Dataset(_named(columns))
    return _with_positions(out)


def _from_dataset(dataset: xr.Dataset) -> xr.Dataset:
    along = _dimension(dataset)
    columns = [str(name) for name, v in dataset.variables.items() if v.dims == (along,) and name != along]
    renamed = dataset.rename(_canonical(columns))
    return _with_positions(renamed if along == "source" else renamed.rename({along: "source"}))


def _dimension(dataset: xr.Dataset) -> Hashable:
    """The dimension of the sources: `source`, else that of the sky position, else the only one."""
    if "source" in dataset.sizes:
        return "source"
    sky = find_columns(dataset.variables).get("ra")
    dims = tuple(dataset.sizes) if sky is None else dataset[sky].dims
    if len(dims) == 1:
        return dims[0]
    if set(dims) >= {"y", "x"}:
        raise InputError("a catalog is needed, this is an image; detect its sources first, with ztfxr.sources")
    raise InputError(f"a catalog has the dimension 'source'; this Dataset has {', '.join(map(str, dims)) or 'none'}")


def _with_positions(catalog: xr.Dataset) -> xr.Dataset:
    """`catalog` with `ra`, `dec` as coordinates in degrees, and positions annotated."""
    updates = {}
    for name in ("ra", "dec"):
        if name in catalog.variables and catalog[name].dims == ("source",):
            updates[name] = _degrees(name, catalog[name].variable)
    out = catalog.assign_coords(updates)
    for name in ("x_centroid", "y_centroid"):
        if name in out.data_vars and not out[name].attrs:
            out[name] = out[name].assign_attrs(SPECS[name].attrs)
    return out.assign({name: _without_codes(name, out[name].variable) for name in map(str, out) if _is_mag(out, name)})


def _is_mag(catalog: xr.Dataset, name: str) -> bool:
    column = catalog[name]
    named = _MAGNITUDES.search(name) is not None or column.attrs.get("units") == "mag"
    return named and column.dims == ("source",) and column.dtype.kind in "if"


def _without_codes(name: str, column: xr.Variable) -> xr.Variable:
    """A column of magnitudes or their errors with NaN in place of codes for a missing one."""
    if _ERRORS.search(name):
        known: Any = known_errors
    else:
        known = _known_or_zero if is_dask_collection(column) or not _zero_is_a_code(column.values) else known_magnitudes
    if is_dask_collection(column):
        return (
            column if column.dtype.kind == "i" else column.copy(data=column.data.map_blocks(known, dtype=column.dtype))
        )
    values = column.values
    lost = np.isnan(known(values)) & ~np.isnan(values)
    if not lost.any():
        return column
    attrs = {**column.attrs, "n_codes": int(lost.sum()) + int(column.attrs.get("n_codes", 0))}
    return xr.Variable(column.dims, np.where(lost, np.nan, values).astype(_float_like(values)), attrs)


def _known_or_zero(mag: Any) -> Any:
    return np.where(mag == 0, mag, known_magnitudes(mag))


def _zero_is_a_code(values: NDArray[Any]) -> bool:
    others = known_magnitudes(values)
    others = others[np.isfinite(others)]
    return others.size > 0 and bool(np.abs(others).min() > _FAR_FROM_ZERO)


def _float_like(values: NDArray[Any]) -> np.dtype[Any]:
    return values.dtype if values.dtype.kind == "f" else np.dtype(np.float64)


def _degrees(name: str, column: xr.Variable) -> xr.Variable:
    if column.dtype.kind in "USO" and not is_dask_collection(column):
        data = degrees(name, column.values)
    elif column.dtype.kind not in "iuf":
        raise InputError(f"{name} is {column.dtype}, but degrees are needed, or text such as '03:51:36'")
    else:
        scale = degrees_in(column.attrs.get("units"), name)
        data = column.data if scale == 1.0 else column.data * scale
    return xr.Variable(column.dims, data, {**column.attrs, **SPECS[name].attrs})


def _canonical(names: Iterable[str]) -> dict[str, str]:
    """Which columns to rename to `ra`, `dec` (their names in any case), `x_centroid` and `y_centroid`."""
    known = list(names)
    found = {new: old for key, old in find_columns(known).items() if (new := _CANONICAL.get(key)) is not None}
    return {old: new for new, old in found.items() if new not in known}


def _named(columns: dict[str, xr.Variable]) -> dict[str, xr.Variable]:
    names = _canonical(columns)
    if "source" in columns:
        if "source_id" in columns:
            raise InputError("a column cannot be named 'source', which is the dimension; rename it")
        names["source"] = "source_id"
    return {names.get(name, name): column for name, column in columns.items()}


def _columns(catalog: Any) -> Iterator[tuple[str, xr.Variable]]:
    """Name and values of every column; vectors by component."""
    for name, column in _raw_columns(catalog):
        yield from _split(str(name), _variable(str(name), column))


def _raw_columns(catalog: Any) -> Iterator[tuple[Hashable, Any]]:
    if isinstance(catalog, SkyCoord):
        yield from _sky_columns(catalog)
    elif isinstance(catalog, pd.DataFrame):
        yield from _frame_columns(catalog)
    elif isinstance(catalog, Table | Mapping):
        for name in catalog.keys():  # noqa: SIM118 - iterating a Table gives its rows
            column = catalog[name]
            yield from _sky_columns(column) if isinstance(column, SkyCoord) else [(name, column)]
    elif isinstance(catalog, np.ndarray) and catalog.dtype.names:
        for name in catalog.dtype.names:
            yield name, catalog[name]
    else:
        raise InputError(
            f"a catalog is a Dataset, Table, DataFrame, SkyCoord, structured array or mapping of columns; "
            f"got {type(catalog).__name__}"
        )


def _sky_columns(sky: SkyCoord) -> Iterator[tuple[str, Any]]:
    icrs = sky.icrs
    yield "ra", np.atleast_1d(icrs.ra.deg)
    yield "dec", np.atleast_1d(icrs.dec.deg)


def _frame_columns(frame: pd.DataFrame) -> Iterator[tuple[Hashable, Any]]:
    flat = frame if all(name is None for name in frame.index.names) else frame.reset_index()
    attrs = frame.attrs.get(ATTRS_KEY, {})
    for name in flat.columns:
        series = flat[name]
        if isinstance(series.dtype, pd.DatetimeTZDtype):
            series = series.dt.tz_convert("UTC").dt.tz_localize(None)
        yield name, xr.Variable("source", _numpy(exact(series)), attrs.get(name))


def _variable(name: str, column: Any) -> xr.Variable:
    if isinstance(column, xr.DataArray | xr.Variable):
        variable = column.variable if isinstance(column, xr.DataArray) else column
        if variable.ndim != 1:
            raise InputError(f"the column {name!r} has dimensions {variable.dims}; a catalog's have one")
        return xr.Variable("source", variable.data, variable.attrs)
    if isinstance(column, Time):
        return xr.Variable("source", np.atleast_1d(column.utc.datetime64))
    attrs = {}
    unit, info = getattr(column, "unit", None), getattr(column, "info", None)
    if unit is not None and str(unit):
        attrs["units"] = {"pix": "pixel"}.get(str(unit), str(unit))
    if getattr(info, "description", None):
        attrs["long_name"] = str(column.info.description)
    values = column if is_dask_collection(column) else _numpy(getattr(column, "value", column))
    dims = ("source", *(f"axis_{i}" for i in range(1, values.ndim)))
    return xr.Variable(dims, values, attrs)


def _split(name: str, column: xr.Variable) -> Iterator[tuple[str, xr.Variable]]:
    if column.ndim == 1:
        yield name, column
    elif column.ndim == 2:
        for i in range(column.shape[1]):
            yield f"{name}_{i}", column[:, i]
    else:
        raise InputError(f"the column {name!r} holds arrays of shape {column.shape[1:]}; leave it out")


def exact(values: Any) -> Any:
    """A column of pandas' own types as objects: numpy would make floats of whole numbers of which some are missing."""
    of_pandas = isinstance(getattr(values, "dtype", None), pd.api.extensions.ExtensionDtype)
    return np.asarray(values, dtype=object) if of_pandas else values


def _numpy(values: Any) -> NDArray[Any]:
    """A plain array in native byte order: text as text, missing numbers as NaN."""
    values = exact(values)
    missing = np.ma.getmaskarray(values) if isinstance(values, np.ma.MaskedArray) else None
    if hasattr(values, "unmasked"):
        values, missing = values.unmasked, np.asarray(values.mask)
    array = np.atleast_1d(np.asarray(values))
    if array.dtype.kind == "O":
        array, missing = _typed(array)
    if array.dtype.kind == "S":
        array = np.char.decode(array, "utf-8")
    if missing is not None and missing.any():
        array = _blanked(array, np.atleast_1d(missing))
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _typed(objects: NDArray[Any]) -> tuple[NDArray[Any], Bools]:
    """Python objects as numbers or text, and where they are missing."""
    missing = np.asarray(pd.isna(objects))
    present = np.array(objects[~missing].tolist())
    if present.dtype.kind not in "biufUSM" or present.ndim != 1:
        present = objects[~missing].astype(str)
    out = np.zeros(objects.shape, dtype=present.dtype)
    out[~missing] = present
    return out, missing


def _blanked(array: NDArray[Any], missing: Bools) -> NDArray[Any]:
    kind = array.dtype.kind
    if kind == "U":
        return np.where(missing, "", array)
    if kind in "mM":
        return np.where(missing, np.array("NaT", dtype=array.dtype), array)
    if kind in "iu" and np.abs(array[~missing].astype(np.float64)).max(initial=0.0) >= _EXACT_FLOATS:
        return np.where(missing, "", array.astype(str))
    out = array.astype(array.dtype if kind in "fc" else np.float64)
    out[missing] = np.nan
    return out


def read_lco_catalog(path: AnyPath) -> xr.Dataset:
    """The catalog of an LCO frame (extension ``CAT``) on `source`. Computes.

    Parameters
    ----------
    path
        A BANZAI frame, as `ztfxr.open_lco` takes it.

    Returns
    -------
    xarray.Dataset
        `x_centroid`, `y_centroid` (0-based pixels; the file counts from 1), `flux`, `flux_err`, and `ra`, `dec` (deg)
        where the file has them, brightest first.

    Raises
    ------
    ShapeError
        The file has no table named CAT, or the table no positions or fluxes.
    """
    with open_hdus(path) as hdus:
        if "CAT" not in hdus:
            raise ShapeError(f"{shown(path)}: holds no table named CAT")
        table = hdus["CAT"].data
        held = {name.upper(): name for name in table.names}
        columns = {
            new: np.asarray(table[held[old]], dtype=np.float64) for old, new in _LCO_COLUMNS.items() if old in held
        }
    missing = [old for old, new in _LCO_COLUMNS.items() if new not in columns and old in ("X", "Y", "FLUX")]
    if missing:
        raise ShapeError(f"{shown(path)}: its table CAT has no column {', '.join(missing)}")
    for axis in ("x_centroid", "y_centroid"):
        columns[axis] = columns[axis] - 1.0
    order = np.argsort(-columns["flux"], kind="stable")
    return xr.Dataset({name: ("source", values[order]) for name, values in columns.items()})
