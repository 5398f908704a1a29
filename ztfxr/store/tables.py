"""Catalogs, matches and light curves as tables of other kinds."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from os import PathLike
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from astropy import units as u
from astropy.table import Column, Table
from astropy.time import Time

from ztfxr.errors import InputError, MissingDependencyError
from ztfxr.io.tables import ATTRS_KEY, Catalog, as_catalog
from ztfxr.schema import plain
from ztfxr.store._files import new_file

__all__ = ["to_dataframe", "to_parquet", "to_table"]


def to_table(obj: Catalog) -> Table:
    """A catalog, a match or a light curve as an `astropy.table.Table`. Computes.

    Parameters
    ----------
    obj
        A Dataset without images, or a catalog in any form that `ztfxr.as_catalog` takes.

    Returns
    -------
    astropy.table.Table
        One row per source (or match); of a light curve one row per epoch and source, epoch by epoch. Scalars come
        last, repeated in every row. Columns have units where astropy knows them, and descriptions; times are `Time`
        columns (UTC). Short attributes are in the table's `meta`.

    Raises
    ------
    InputError
        The object holds images.
    """
    columns = _rows(obj)
    attrs = obj.attrs if isinstance(obj, xr.Dataset) else {}
    table = Table(meta={str(k): v for k, v in attrs.items() if _is_short(v)})
    for name, column in columns.items():
        table[name] = _column(name, column)
    return table


def _is_short(value: object) -> bool:
    return isinstance(value, bool | int | float) or (isinstance(value, str) and len(value) < 69 and value.isprintable())


def _column(name: str, column: xr.Variable) -> Any:
    if column.dtype.kind == "M" and not np.isnat(column.values).any():
        return Time(column.values.astype("M8[ns]"), format="datetime64", scale="utc")
    values = column.values.astype(str) if column.dtype.kind in "mMO" else column.values
    unit = (
        u.Unit(str(column.attrs.get("units", "")) or None, parse_strict="silent") if "units" in column.attrs else None
    )
    known = None if isinstance(unit, u.UnrecognizedUnit) else unit
    return Column(values, name=name, unit=known, description=column.attrs.get("long_name"))


def to_dataframe(obj: Catalog) -> pd.DataFrame:
    """A catalog, a match or a light curve as a `pandas.DataFrame`. Computes.

    Rows and columns are those of `ztfxr.to_table`, with a plain index. Units and other attributes of the columns are in
    ``frame.attrs["ztfxr"]``, from which `ztfxr.as_catalog` takes them back.

    Parameters
    ----------
    obj
        A catalog, a match or a light curve.

    Returns
    -------
    pandas.DataFrame
        One row for each source, match or measurement.

    Raises
    ------
    InputError
        The object holds images.
    """
    columns = _rows(obj)
    frame = pd.DataFrame({name: column.values for name, column in columns.items()})
    frame.attrs[ATTRS_KEY] = {
        name: plain(column.attrs, f"the attributes of {name}") for name, column in columns.items() if column.attrs
    }
    return frame


def to_parquet(obj: Catalog, path: str | PathLike[str], *, overwrite: bool = False) -> None:
    """Write a catalog, a match or a light curve as a Parquet file, whole or not at all. Computes.

    Rows and columns are those of `ztfxr.to_dataframe`, units with them; `ztfxr.read_catalog` reads it back. Needs
    pyarrow: ``pip install "ztfxr[parquet]"``.

    Parameters
    ----------
    obj
        A catalog, a match or a light curve.
    path
        The file to write.
    overwrite
        Replace a file that exists.

    Raises
    ------
    InputError
        The object holds images.
    StoreError
        The file exists, or cannot be written.
    MissingDependencyError
        pyarrow is not installed.
    """
    frame = to_dataframe(obj)
    with new_file(path, overwrite) as partial:
        try:
            frame.to_parquet(partial, engine="pyarrow", index=False)
        except ImportError as error:
            raise MissingDependencyError.for_extra("pyarrow", "parquet") from error


def _rows(obj: Catalog) -> dict[str, xr.Variable]:
    """Every variable spread over all dimensions and laid out in rows."""
    dataset = obj if isinstance(obj, xr.Dataset) else as_catalog(obj)
    if {"y", "x"} & set(dataset.sizes):
        raise InputError("images have no place in a table; write them with ztfxr.to_fits or ztfxr.to_zarr")
    loaded = dataset.compute()
    sizes = _ordered(loaded)
    out: dict[str, xr.Variable] = {}
    for name in sizes:
        if len(sizes) > 1 and name not in loaded.variables:
            out[str(name)] = _spread(xr.Variable(name, np.arange(sizes[name])), sizes)
    for name in sorted((*loaded.coords, *loaded.data_vars), key=lambda name: loaded[name].ndim == 0):
        out[str(name)] = _spread(loaded[name].variable.to_base_variable(), sizes)
    return out


def _ordered(dataset: xr.Dataset) -> dict[Hashable, int]:
    """Dimensions as the variable with most of them has them, then any others."""
    longest = max((v.dims for v in dataset.variables.values()), key=len, default=())
    return {d: dataset.sizes[d] for d in dict.fromkeys((*longest, *dataset.sizes))}


def _spread(variable: xr.Variable, sizes: Mapping[Hashable, int]) -> xr.Variable:
    full = variable.set_dims({**sizes}).transpose(*sizes)
    return xr.Variable("row", full.values.reshape(-1), variable.attrs)
