"""Cut-outs on the integer pixel grid of the frame."""

from __future__ import annotations

from typing import Any, Literal, TypeVar, get_args

import numpy as np
import xarray as xr

from ztfxr.errors import InputError, OutsideFrameError
from ztfxr.ops.positions import pixel_origin
from ztfxr.schema import SPECS, fill_value
from ztfxr.wcs import WCSIndex, assign_wcs, drop_wcs, sky_to_pixel

__all__ = ["stamp"]

T = TypeVar("T", xr.Dataset, xr.DataArray)

Boundary = Literal["pad", "raise", "trim"]


def stamp(
    obj: T,
    *,
    ra: float | None = None,
    dec: float | None = None,
    x: float | None = None,
    y: float | None = None,
    size: int | tuple[int, int] = 63,
    boundary: Boundary = "pad",
) -> T:
    """Cut a stamp around the pixel that contains a position; pixels are copied, never resampled; lazy.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions (..., y, x).
    ra, dec
        Sky position in degrees (ICRS); or
    x, y
        absolute 0-based FITS pixel position.
    size
        Pixels along each side, or (y, x). The stamp starts ``size // 2`` pixels before the central one.
    boundary
        Where the stamp reaches over the edge: ``"pad"`` with NaN (True in masks, the plane `outside` in `flags`),
        ``"raise"`` `OutsideFrameError`, or ``"trim"`` to what is there.

    Returns
    -------
    Same type as `obj`, with `x`, `y`, `ra`, `dec` of the frame. ``attrs["stamp_x"]`` and ``attrs["stamp_y"]`` keep the
    requested position, in absolute pixels.

    Raises
    ------
    InputError, MissingWCSError, OutsideFrameError
    """
    if boundary not in get_args(Boundary):
        raise InputError(f"boundary is 'pad', 'raise' or 'trim'; came {boundary!r}")
    px, py = _pixel(obj, ra, dec, x, y)
    sides = _sides(size)
    origin = pixel_origin(obj)
    start = {d: int(np.floor(p + 0.5)) - sides[d] // 2 - origin[d] for d, p in (("y", py), ("x", px))}
    cut = _cut(_labelled(obj, origin), start, sides, boundary)
    return cut.assign_attrs(stamp_x=px, stamp_y=py)


def _labelled(obj: T, origin: dict[str, int]) -> T:
    """`obj` with `x` and `y`, so that what is cut out of it knows where it came from."""
    missing = [d for d in origin if d not in obj.coords]
    return obj.assign_coords({d: xr.Variable(d, origin[d] + np.arange(obj.sizes[d]), SPECS[d].attrs) for d in missing})


def _sides(size: int | tuple[int, int]) -> dict[str, int]:
    sides = np.atleast_1d(size)
    if sides.dtype.kind not in "iu" or sides.shape not in ((1,), (2,)) or sides.min() < 1:
        raise InputError(f"size is a whole number of pixels, at least 1, or two of them (y, x); came {size!r}")
    return {"y": int(sides[0]), "x": int(sides[-1])}


def _pixel(
    obj: xr.Dataset | xr.DataArray, ra: float | None, dec: float | None, x: float | None, y: float | None
) -> tuple[float, float]:
    if ra is not None and dec is not None and x is None and y is None:
        found = sky_to_pixel(obj, ra=ra, dec=dec)
        px, py = float(found[0]), float(found[1])
    elif x is not None and y is not None and ra is None and dec is None:
        px, py = float(x), float(y)
    else:
        raise InputError("give the position as ra= and dec= in degrees, or as x= and y= in pixels")
    if not (np.isfinite(px) and np.isfinite(py)):
        raise OutsideFrameError(
            f"the position has no pixel on this frame's projection: ra={ra}, dec={dec}, x={x}, y={y}"
        )
    return px, py


def _cut(obj: T, start: dict[str, int], size: dict[str, int], boundary: Boundary) -> T:
    window = {d: slice(max(start[d], 0), max(min(start[d] + size[d], obj.sizes[d]), max(start[d], 0))) for d in size}
    width = {d: (window[d].start - start[d], start[d] + size[d] - window[d].stop) for d in size}
    inside = {d: min(window[d].stop, obj.sizes[d]) > window[d].start for d in size}
    if all(w == (0, 0) for w in width.values()):
        return obj.isel(window)
    if boundary == "raise":
        raise OutsideFrameError(
            f"the stamp reaches over the edge: rows {start['y']} to {start['y'] + size['y']} of {obj.sizes['y']}, "
            f"columns {start['x']} to {start['x'] + size['x']} of {obj.sizes['x']}; use boundary='pad' or 'trim'"
        )
    if boundary == "trim":
        if not all(inside.values()):
            raise OutsideFrameError("the stamp does not touch the image")
        return obj.isel(window)
    if not all(inside.values()):
        window = {d: slice(0, 0) for d in size}
        width = {d: (0, size[d]) for d in size}
    return _padded(obj, window, width, start)


def _padded(obj: T, window: dict[str, slice], width: dict[str, tuple[int, int]], start: dict[str, int]) -> T:
    dataset = obj.to_dataset(name="_image") if isinstance(obj, xr.DataArray) else obj
    index = dataset.xindexes.get("ra")
    bare = drop_wcs(dataset).isel(window)
    origin = pixel_origin(obj)
    name: dict[str, str] = {"_image": str(obj.name)} if isinstance(obj, xr.DataArray) else {}
    padded = {k: _pad(v.variable, str(name.get(str(k), k)), width) for k, v in bare.data_vars.items()}
    coords = {k: v for k, v in bare.coords.items() if not set(v.dims) & set(width)}
    out = xr.Dataset(padded, coords, bare.attrs)
    for d, (before, after) in width.items():
        n = bare.sizes[d] + before + after
        out = out.assign_coords({d: xr.Variable(d, np.arange(n) + start[d] + origin[d], bare[d].attrs)})
    if isinstance(index, WCSIndex):
        out = assign_wcs(out, index.transform.cards)
    return out if isinstance(obj, xr.Dataset) else out["_image"].rename(obj.name)


def _pad(variable: xr.Variable, name: str, width: dict[str, tuple[int, int]]) -> xr.Variable:
    """`variable` with `width` pixels more before and after; one task an image, which da.pad would make nine."""
    dims = {d: w for d, w in width.items() if d in variable.dims}
    if not dims:
        return variable
    if name == "flags":
        variable = variable.astype(np.promote_types(variable.dtype, np.uint16))
    options: dict[str, Any] = {
        "pad_width": [dims.get(str(d), (0, 0)) for d in variable.dims],
        "constant_values": fill_value(name, variable.dtype),
    }
    if variable.chunks is None:
        return xr.Variable(variable.dims, np.pad(variable.values, **options), variable.attrs)
    whole = variable.chunk(dict.fromkeys(dims, -1)).data
    chunks = tuple((c[0] + sum(w),) if sum(w) else c for c, w in zip(whole.chunks, options["pad_width"], strict=True))
    padded = whole.map_blocks(np.pad, **options, chunks=chunks, dtype=whole.dtype, meta=whole._meta)
    return xr.Variable(variable.dims, padded, variable.attrs)
