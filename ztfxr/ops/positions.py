"""Fixed positions, in whatever form users have them, as a Dataset on `source`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import xarray as xr
from astropy import units as u
from astropy.coordinates import SkyCoord
from astropy.table import Table
from numpy.typing import NDArray

from ztfxr.arrays.types import Floats
from ztfxr.errors import InputError
from ztfxr.schema import SPECS
from ztfxr.wcs import WCSIndex, has_wcs, pixel_to_sky, sky_to_pixel

__all__ = ["Positions", "pixel_origin", "position_columns", "resolve_positions"]

Positions: TypeAlias = (
    xr.Dataset | SkyCoord | Table | Mapping[str, Any] | Sequence[tuple[float, float]] | NDArray[np.floating[Any]]
)


def resolve_positions(obj: xr.Dataset | xr.DataArray, positions: Positions) -> xr.Dataset:
    """Positions on the frame of `obj`; reads no pixel.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions (..., y, x).
    positions
        A Dataset, Table, DataFrame, structured array or mapping with columns `ra`, `dec` (ICRS; in degrees, unless the
        column carries a unit) or `x`, `y` (absolute 0-based FITS pixels); a `SkyCoord`; or a sequence of (x, y) pairs.
        Sky columns win where both are there and the image has a WCS. A masked entry is NaN.

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
    if isinstance(positions, SkyCoord):
        icrs = positions.icrs
        raw: dict[str, Any] = {"ra": icrs.ra.deg, "dec": icrs.dec.deg}
    elif hasattr(positions, "keys") or hasattr(positions, "colnames"):
        raw = _named(positions)
    elif isinstance(positions, np.ndarray) and positions.dtype.names:
        record: Any = positions
        raw = _named({name: record[name] for name in record.dtype.names})
    else:
        pairs = np.asarray(positions, dtype=float)
        if pairs.ndim == 1 and pairs.size == 2:
            pairs = pairs[None]
        if pairs.ndim != 2 or pairs.shape[1] != 2:
            raise InputError(f"positions are (x, y) pairs of shape (n, 2); got shape {pairs.shape}")
        raw = {"x": pairs[:, 0], "y": pairs[:, 1]}
    out = {k: np.atleast_1d(_labels(v) if k == "id" else _numbers(k, v)) for k, v in raw.items()}
    lengths = {k: v.shape for k, v in out.items()}
    if len(set(lengths.values())) > 1 or any(v.ndim != 1 for v in out.values()):
        raise InputError(f"the columns of positions differ in length: {lengths}")
    return out


_ALIASES = {
    "ra": ("ra",),
    "dec": ("dec",),
    "x": ("x_pixel", "x_centroid", "x"),
    "y": ("y_pixel", "y_centroid", "y"),
    "id": ("source_id", "id", "name"),
}


def _named(table: Any) -> dict[str, Any]:
    keys = (
        set(table.variables) if isinstance(table, xr.Dataset) else set(getattr(table, "colnames", None) or table.keys())
    )
    raw: dict[str, Any] = {}
    for column, aliases in _ALIASES.items():
        found = next((a for a in aliases if a in keys), None)
        if found is not None:
            raw[column] = getattr(table[found], "values", table[found])
    pairs = [pair for pair in (("ra", "dec"), ("x", "y")) if raw.keys() >= set(pair)]
    if not pairs:
        raise InputError(
            f"positions need columns ra and dec, or x and y; got {', '.join(map(str, sorted(keys, key=str)))}"
        )
    whole = {"id", *(name for pair in pairs for name in pair)}
    return {k: v for k, v in raw.items() if k in whole}


def _numbers(name: str, column: Any) -> Floats:
    """A column as floats: sky columns with a unit in degrees, masked entries NaN."""
    unit = getattr(column, "unit", None)
    numbers = np.ma.asarray(getattr(column, "value", column) if unit is not None else column)
    filled = np.asarray(np.ma.filled(numbers.astype(float), np.nan), dtype=float)
    if unit is None or name not in ("ra", "dec"):
        return filled
    return np.asarray(u.Quantity(filled, unit).to_value(u.deg), dtype=float)


def _labels(column: Any) -> NDArray[Any]:
    """Names or numbers of sources; Python objects as text, since objects cannot be stored without pickle."""
    labels = np.asarray(column)
    return labels.astype(str) if labels.dtype.kind == "O" else labels
