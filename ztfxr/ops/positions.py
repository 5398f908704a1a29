"""Fixed positions, in whatever form users have them, as a Dataset on `source`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.io.catalogs import read_table
from ztfxr.io.tables import exact
from ztfxr.schema import SPECS, find_columns
from ztfxr.wcs import WCSIndex, degrees, has_wcs, pixel_to_sky, sky_to_pixel

__all__ = ["Positions", "array_positions", "pixel_origin", "position_columns", "resolve_positions"]

Positions: TypeAlias = (
    xr.Dataset
    | SkyCoord
    | Table
    | Mapping[str, Any]
    | str
    | PathLike[str]
    | u.Quantity
    | tuple[u.Quantity, u.Quantity]
    | Sequence[tuple[float, float] | tuple[u.Quantity, u.Quantity] | tuple[str, str] | SkyCoord | str]
    | NDArray[np.floating[Any]]
)

_SKY = ("ra", "dec")
_TABLE = re.compile(r"\.(csv|ecsv|txt|dat|tbl|fits?|vot|xml|parquet)(\.gz)?$", re.IGNORECASE)


def resolve_positions(obj: xr.Dataset | xr.DataArray, positions: Positions) -> xr.Dataset:
    """Positions on the frame of `obj`; reads no pixel.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions (..., y, x).
    positions
        A Dataset, Table, DataFrame, structured array or mapping with columns `ra`, `dec` (ICRS; in degrees, unless the
        column carries a unit or is text such as "03:51:36") or `x`, `y` (absolute 0-based FITS pixels), or the names
        that surveys give to them (`RA_ICRS`, `raMean`, `x_centroid`, ...); the path of a file with such a table (CSV,
        ECSV, FITS, VOTable, Parquet); a `SkyCoord`, or a list of them; a pair of angles (RA, Dec) as
        `astropy.units.Quantity`, two arrays of them, or pairs; text such as ``"03:51:36 +35:48:00"`` or ``"57.9
        35.8"``, or a list of it; or a sequence of (x, y) pairs. Sky columns win where both are there and the image has
        a WCS. A masked entry is NaN.

    Returns
    -------
    xarray.Dataset
        `x` and `y` as `x_pixel`, `y_pixel` on `source` (float64), and `ra`, `dec` where they are known; a name or id
        column of the input stays as the coordinate `source_id`.

    Raises
    ------
    InputError, MissingWCSError
    FileNotFoundError
        The file of a table that is named.
    """
    columns = position_columns(positions)
    if "ra" in columns and (has_wcs(obj) or "x" not in columns):
        x, y = sky_to_pixel(obj, ra=columns["ra"], dec=columns["dec"])
        sky = (columns["ra"], columns["dec"])
    else:
        x, y = columns["x"], columns["y"]
        sky = _sky(obj, x, y)
    coords: dict[str, Any] = {"x_pixel": ("source", x), "y_pixel": ("source", y)}
    for name, values in zip(("ra", "dec"), sky, strict=False):
        coords[name] = ("source", values, SPECS[name].attrs)
    if "id" in columns:
        coords["source_id"] = ("source", columns["id"])
    out = xr.Dataset(coords=coords)
    for axis in ("x", "y"):
        out[f"{axis}_pixel"].attrs = {"units": "pixel", "long_name": f"{axis} position, absolute 0-based FITS pixels"}
    return out


def array_positions(where: xr.Dataset, origin: Mapping[str, int]) -> tuple[xr.DataArray, xr.DataArray]:
    """Rows and columns (source,) in the array whose first absolute pixel is `origin`, of resolved positions."""
    y, x = (xr.DataArray(where[f"{d}_pixel"].values - origin[d], dims="source") for d in ("y", "x"))
    return y, x


def pixel_origin(obj: xr.Dataset | xr.DataArray) -> dict[str, int]:
    """The absolute pixel of the first row and column, by `y` and `x`; reads no pixel.

    Raises `InputError` where rows or columns are not consecutive (a reversed, binned or thinned image): there an
    absolute pixel is not an offset from the first.
    """
    index = obj.xindexes.get("ra")
    start = index.transform.window.start if isinstance(index, WCSIndex) else (0, 0)
    origin = dict(zip(("y", "x"), start, strict=True))
    for dim in origin:
        if dim not in obj.coords or obj.sizes[dim] == 0:
            continue
        labels = np.asarray(obj.coords[dim].values)
        if np.any(labels != np.arange(labels.size) + int(labels[0])):
            raise InputError(
                f"{dim} does not count single pixels upwards: it runs {labels[0]}, {labels[min(1, labels.size - 1)]}, "
                f"... {labels[-1]}; use the image before it was reversed, binned or thinned"
            )
        origin[dim] = int(labels[0])
    return origin


def _sky(obj: xr.Dataset | xr.DataArray, x: Floats, y: Floats) -> tuple[Any, ...]:
    if not has_wcs(obj):
        return ()
    sky = pixel_to_sky(obj, x, y)
    return (sky.ra.deg, sky.dec.deg)


def position_columns(positions: Positions) -> dict[str, NDArray[Any]]:
    """Columns `ra`, `dec` (deg, ICRS) and/or `x`, `y`, and `id`, of positions as `resolve_positions` takes them.

    1-D arrays of one length; masked entries are NaN. Raises `InputError` where there are no such columns.
    """
    positions = _as_table(positions)
    sky = _as_sky(positions)
    if sky is not None:
        raw: dict[str, Any] = {"ra": sky.icrs.ra.deg, "dec": sky.icrs.dec.deg}
    elif hasattr(positions, "keys") or hasattr(positions, "colnames"):
        raw = _named(positions)
    elif isinstance(positions, np.ndarray) and positions.dtype.names:
        record: Any = positions
        raw = _named({name: record[name] for name in record.dtype.names})
    else:
        raw = _pairs(positions)
    out = {k: np.atleast_1d(_labels(v) if k == "id" else _numbers(k, v)) for k, v in raw.items()}
    lengths = {k: v.shape for k, v in out.items()}
    if len(set(lengths.values())) > 1 or any(v.ndim != 1 for v in out.values()):
        raise InputError(f"the columns of positions differ in length: {lengths}")
    return out


def _as_table(positions: Any) -> Any:
    """The table in the file that `positions` names; what names none stays as it is."""
    if not isinstance(positions, PathLike) and not (isinstance(positions, str) and _names_a_file(positions)):
        return positions
    path = Path(positions)
    if not path.is_file():
        raise FileNotFoundError(f"no such file of positions: {path}")
    try:
        return read_table(path, guess=path.suffix != ".csv")
    except Exception as error:
        raise InputError(f"{path}: no table of positions can be read ({type(error).__name__}: {error})") from error


def _names_a_file(text: str) -> bool:
    return _TABLE.search(text.strip()) is not None or (len(text.split()) == 1 and Path(text).is_file())


def _as_sky(positions: Any) -> SkyCoord | None:
    """Positions that say themselves that they are on the sky: coordinates, text, or pairs of angles."""
    if isinstance(positions, SkyCoord):
        return positions
    if isinstance(positions, str):
        return _parsed(positions)
    if isinstance(positions, u.Quantity):
        return _paired(positions) if positions.unit.is_equivalent(u.deg) else None
    if isinstance(positions, np.ndarray) and positions.dtype.kind in "UO":
        positions = positions.tolist()
    if not isinstance(positions, list | tuple) or len(positions) == 0:
        return None
    if all(isinstance(p, SkyCoord) for p in positions):
        return _joined(positions)
    if all(isinstance(p, str) for p in positions):
        return _joined([_parsed(p) for p in positions])
    if all(isinstance(p, u.Quantity) for p in positions) and all(p.unit.is_equivalent(u.deg) for p in positions):
        # Two angles, or two columns of them, are RA and Dec; more, or pairs, are positions one by one.
        one_by_one = all(p.shape == (2,) for p in positions) and len(positions) != 2
        return _joined([_paired(p) for p in positions]) if one_by_one else _paired(positions)
    if all(isinstance(p, list | tuple) and len(p) == 2 and _is_sky(p) for p in positions):
        return _joined([_on_sky(*p) for p in positions])
    return None


def _is_sky(pair: Sequence[Any]) -> bool:
    return all(isinstance(v, str) or (isinstance(v, u.Quantity) and v.unit.is_equivalent(u.deg)) for v in pair)


def _paired(angles: Any) -> SkyCoord:
    """RA and Dec: two angles or columns of them, or an array of pairs (n, 2)."""
    if isinstance(angles, u.Quantity) and angles.ndim == 2 and angles.shape[1] == 2:
        angles = angles.T
    if len(angles) != 2:
        raise InputError(f"angles are RA and Dec, two of them or two columns, or pairs of shape (n, 2); got {angles!r}")
    return _on_sky(*angles)


def _on_sky(ra: Any, dec: Any) -> SkyCoord:
    """Angles in every form as a position or several (ICRS)."""
    try:
        return SkyCoord(degrees("ra", ra), degrees("dec", dec), unit="deg", frame="icrs")
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"RA {ra!r} and Dec {dec!r} are no position: {error}") from error


def _joined(positions: Sequence[SkyCoord]) -> SkyCoord:
    ra, dec = (np.concatenate([np.ravel(getattr(p.icrs, k).deg) for p in positions]) for k in _SKY)
    return SkyCoord(ra, dec, unit="deg", frame="icrs")


def _parsed(text: str) -> SkyCoord:
    """The position (ICRS) that a text names: two numbers of degrees, or hours and degrees in parts."""
    words = text.replace(",", " ").split()
    try:
        if len(words) == 2:
            return _on_sky(*words)
        return SkyCoord(text, unit=("hourangle", "deg"), frame="icrs")
    except ValueError as error:
        raise InputError(
            f"{text!r} is no position; write '03:51:36 +35:48:00', '03h51m36s +35d48m00s' or '57.9 35.8' (degrees), or "
            "name a table by its extension: stars.csv"
        ) from error


def _pairs(positions: Any) -> dict[str, Floats]:
    """The columns of (x, y) pairs."""
    try:
        pairs = np.asarray(positions, dtype=float)
    except (TypeError, ValueError) as error:
        raise InputError(
            "positions are (x, y) pairs, a SkyCoord, text such as '03:51:36 +35:48:00', or a table with columns ra and "
            f"dec, or x and y; got {positions!r}"
        ) from error
    if pairs.ndim == 1 and pairs.size == 2:
        pairs = pairs[None]
    if pairs.ndim != 2 or pairs.shape[1] != 2:
        raise InputError(f"positions are (x, y) pairs of shape (n, 2); got shape {pairs.shape}")
    return {"x": pairs[:, 0], "y": pairs[:, 1]}


def _named(table: Any) -> dict[str, Any]:
    keys = table.variables if isinstance(table, xr.Dataset) else getattr(table, "colnames", None) or table.keys()
    raw = {column: table[name] for column, name in find_columns(keys).items()}
    pairs = [pair for pair in (("ra", "dec"), ("x", "y")) if raw.keys() >= set(pair)]
    if not pairs:
        raise InputError(
            f"positions need columns ra and dec, or x and y; got {', '.join(map(str, sorted(keys, key=str)))}"
        )
    whole = {"id", *(name for pair in pairs for name in pair)}
    return {k: v for k, v in raw.items() if k in whole}


def _numbers(name: str, column: Any) -> Floats:
    """A column as floats: those of the sky in degrees by their unit, or as text; masked entries NaN."""
    if name in ("ra", "dec"):
        return np.atleast_1d(degrees(name, column))
    with_unit = getattr(column, "unit", None) is not None and hasattr(column, "value")
    numbers = np.ma.asarray(column.value if with_unit else getattr(column, "values", column))
    return np.asarray(np.ma.filled(_floats(name, numbers), np.nan), dtype=float)


def _floats(name: str, numbers: Any) -> Any:
    try:
        return numbers.astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f"the column {name} holds {numbers.dtype}, but numbers are needed") from error


def _labels(column: Any) -> NDArray[Any]:
    """Names or numbers of sources; Python objects as text, since objects cannot be stored without pickle.

    Where one is missing, all are text, and that one is empty.
    """
    given = exact(getattr(column, "values", column))
    labels = np.atleast_1d(np.ma.getdata(given) if isinstance(given, np.ma.MaskedArray) else np.asarray(given))
    missing = np.ma.getmaskarray(given) if isinstance(given, np.ma.MaskedArray) else np.zeros(labels.shape, dtype=bool)
    if labels.dtype.kind == "O":
        missing = missing | np.asarray(pd.isna(labels))
    if labels.dtype.kind == "O" or missing.any():
        return np.where(missing, "", labels.astype(str))
    return labels
