"""Fixed positions, in whatever form users have them, as a Dataset on `source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
import xarray as xr
from astropy import units as u
from astropy.coordinates import Angle, SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.io.tables import degrees_in, exact
from ztfxr.schema import SPECS, find_columns
from ztfxr.wcs import WCSIndex, has_wcs, pixel_to_sky, sky_to_pixel

__all__ = ["Positions", "array_positions", "pixel_origin", "position_columns", "resolve_positions"]

Positions: TypeAlias = (
    xr.Dataset
    | SkyCoord
    | Table
    | Mapping[str, Any]
    | str
    | tuple[u.Quantity, u.Quantity]
    | Sequence[tuple[float, float] | SkyCoord | str]
    | NDArray[np.floating[Any]]
)


def resolve_positions(obj: xr.Dataset | xr.DataArray, positions: Positions) -> xr.Dataset:
    """Positions on the frame of `obj`; reads no pixel.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions (..., y, x).
    positions
        A Dataset, Table, DataFrame, structured array or mapping with columns `ra`, `dec` (ICRS; in degrees, unless the
        column carries a unit or is text such as "03:51:36") or `x`, `y` (absolute 0-based FITS pixels), or the names
        that surveys give to them (`RA_ICRS`, `raMean`, `x_centroid`, ...); a `SkyCoord`, a list of them, or a pair of
        angles (RA, Dec) as `astropy.units.Quantity`; text such as ``"03:51:36 +35:48:00"``, or a list of it; or a
        sequence of (x, y) pairs. Sky columns win where both are there and the image has a WCS. A masked entry is NaN.

    Returns
    -------
    xarray.Dataset
        `x` and `y` as `x_pixel`, `y_pixel` on `source` (float64), and `ra`, `dec` where they are known; a name or id
        column of the input stays as the coordinate `source_id`.

    Raises
    ------
    InputError, MissingWCSError
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


def _as_sky(positions: Any) -> SkyCoord | None:
    """Positions that say themselves that they are on the sky: coordinates, text, or a pair of angles."""
    if isinstance(positions, SkyCoord):
        return positions
    if isinstance(positions, str):
        return _parsed(positions)
    if not isinstance(positions, list | tuple) or len(positions) == 0:
        return None
    if all(isinstance(p, SkyCoord) for p in positions):
        return _joined(positions)
    if all(isinstance(p, str) for p in positions):
        return _joined([_parsed(p) for p in positions])
    if len(positions) == 2 and all(isinstance(p, u.Quantity) for p in positions):
        return SkyCoord(*positions, frame="icrs")
    return None


def _joined(positions: Sequence[SkyCoord]) -> SkyCoord:
    ra, dec = (np.concatenate([np.ravel(getattr(p.icrs, k).deg) for p in positions]) for k in ("ra", "dec"))
    return SkyCoord(ra, dec, unit="deg", frame="icrs")


def _parsed(text: str) -> SkyCoord:
    """The position (ICRS) that a text names: two numbers of degrees, or hours and degrees in parts."""
    try:
        ra, dec = map(float, text.replace(",", " ").split())
        return SkyCoord(ra, dec, unit="deg", frame="icrs")
    except ValueError:
        pass
    try:
        return SkyCoord(text, unit=("hourangle", "deg"), frame="icrs")
    except ValueError as error:
        raise InputError(
            f"{text!r} is no position; write '03:51:36 +35:48:00', '03h51m36s +35d48m00s' or '57.9 35.8' (degrees)"
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
    unit = getattr(column, "unit", None)
    if isinstance(column, xr.DataArray):
        unit = column.attrs.get("units")
    values = getattr(column, "value", None) if hasattr(column, "unit") and unit is not None else None
    numbers = np.ma.asarray(getattr(column, "values", column) if values is None else values)
    if name not in ("ra", "dec"):
        return np.asarray(np.ma.filled(_floats(name, numbers), np.nan), dtype=float)
    if numbers.dtype.kind in "USO":
        return _angles(name, np.atleast_1d(numbers))
    scale = degrees_in(unit, name)
    filled = np.asarray(np.ma.filled(numbers.astype(float), np.nan), dtype=float)
    return filled if scale == 1.0 else filled * scale


def _floats(name: str, numbers: Any) -> Any:
    try:
        return numbers.astype(float)
    except (TypeError, ValueError) as error:
        raise InputError(f"the column {name} holds {numbers.dtype}, but numbers are needed") from error


def _angles(name: str, column: Any) -> Floats:
    """Text as degrees: plain numbers are degrees, right ascensions in parts are hours; masked or empty entries NaN."""
    out = np.full(column.shape, np.nan)
    for i, text in enumerate(np.ma.filled(column.astype(object), None)):
        if text is None or text == "" or text != text:
            continue
        try:
            out[i] = float(text)
        except ValueError:
            out[i] = _angle(name, str(text))
    return out


def _angle(name: str, text: str) -> float:
    try:
        return float(Angle(text, unit="hourangle" if name == "ra" else "deg").deg)
    except ValueError as error:
        raise InputError(f"{name} {text!r} is no angle; write degrees, or parts such as '03:51:36'") from error


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
