"""Cut-outs: one, or many at once, on the pixel grid of the frame or centered on their positions."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, Literal, TypeVar, get_args

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from ztfxr.arrays.images.resample import Interpolation, kernel_table
from ztfxr.arrays.images.windows import Windows, gather_shifted
from ztfxr.arrays.images.windows import gather as gather_windows
from ztfxr.arrays.types import Bools
from ztfxr.errors import InputError, OutsideFrameError
from ztfxr.ops.exposure import MaskChoice, gather
from ztfxr.ops.mapping import aligned, map_images
from ztfxr.ops.masks import ResampledPlanes, own_planes, resampled_planes, with_planes
from ztfxr.ops.positions import Positions, pixel_origin, resolve_positions
from ztfxr.schema import SPECS, STATUS_PLANES, fill_value, flag_attrs, planes_to_bits
from ztfxr.wcs import Angles, WCSIndex, assign_wcs, drop_wcs, same_grid, sky_to_pixel

__all__ = ["stamp", "stamps"]

T = TypeVar("T", xr.Dataset, xr.DataArray)

Boundary = Literal["pad", "raise", "trim"]

_AXES = ("y", "x")
_STAMP = ("source", "dy", "dx")
_LONE = "_image"


def stamp(
    obj: T,
    *,
    ra: Angles | None = None,
    dec: Angles | None = None,
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
        Sky position (ICRS) in place of pixels: degrees, a `Quantity`, or text such as ``"03:51:36"``.
    x, y
        Absolute 0-based FITS pixel position.
    size
        Pixels along each side, or (y, x). The stamp starts ``size // 2`` pixels before the central one.
    boundary
        Where the stamp reaches over the edge: ``"pad"`` with NaN (True in masks, the plane `outside` in `flags`),
        ``"raise"`` `OutsideFrameError`, or ``"trim"`` to what is there.

    Returns
    -------
    xarray.Dataset or xarray.DataArray
        The stamp, of the type of `obj`, with `x`, `y`, `ra`, `dec` of the frame. ``attrs["stamp_x"]`` and
        ``attrs["stamp_y"]`` keep the requested position, in absolute pixels.

    Raises
    ------
    InputError, MissingWCSError, OutsideFrameError

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> cut = ztfxr.stamp(ds.sci, x=710, y=730, size=21)
    >>> cut.shape
    (21, 21)
    """
    if boundary not in get_args(Boundary):
        raise InputError(f"boundary is 'pad', 'raise' or 'trim'; got {boundary!r}")
    px, py = _pixel(obj, ra, dec, x, y)
    sides = _sides(size)
    origin = pixel_origin(obj)
    start = {d: int(np.floor(p + 0.5)) - sides[d] // 2 - origin[d] for d, p in (("y", py), ("x", px))}
    cut = _cut(_labeled(obj, origin), start, sides, boundary)
    return cut.assign_attrs(stamp_x=px, stamp_y=py)


def _labeled(obj: T, origin: dict[str, int]) -> T:
    """`obj` with `x` and `y`, so that what is cut out of it knows where it came from."""
    missing = [d for d in origin if d not in obj.coords]
    return obj.assign_coords({d: xr.Variable(d, origin[d] + np.arange(obj.sizes[d]), SPECS[d].attrs) for d in missing})


def _sides(size: int | tuple[int, int]) -> dict[str, int]:
    sides = np.atleast_1d(size)
    if sides.dtype.kind not in "iu" or sides.shape not in ((1,), (2,)) or sides.min() < 1:
        raise InputError(f"size is a whole number of pixels, at least 1, or two of them (y, x); got {size!r}")
    return {"y": int(sides[0]), "x": int(sides[-1])}


def _pixel(
    obj: xr.Dataset | xr.DataArray, ra: Angles | None, dec: Angles | None, x: float | None, y: float | None
) -> tuple[float, float]:
    if ra is not None and dec is not None and x is None and y is None:
        found = sky_to_pixel(obj, ra=ra, dec=dec)
        if found[0].size != 1:
            raise InputError(f"a stamp has one position; {found[0].size} are given: cut many with ztfxr.stamps")
        px, py = float(found[0].item()), float(found[1].item())
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
    variable, fill = _with_fill(name, variable)
    options: dict[str, Any] = {
        "pad_width": [dims.get(str(d), (0, 0)) for d in variable.dims],
        "constant_values": fill,
    }
    if variable.chunks is None:
        return xr.Variable(variable.dims, np.pad(variable.values, **options), variable.attrs)
    whole = variable.chunk(dict.fromkeys(dims, -1)).data
    chunks = tuple((c[0] + sum(w),) if sum(w) else c for c, w in zip(whole.chunks, options["pad_width"], strict=True))
    padded = whole.map_blocks(np.pad, **options, chunks=chunks, dtype=whole.dtype, meta=whole._meta)
    return xr.Variable(variable.dims, padded, variable.attrs)


def _with_fill(name: str, variable: xr.Variable) -> tuple[xr.Variable, Any]:
    """`variable`, able to say where there is no pixel, and the value that says it."""
    if name != "flags":
        return variable, fill_value(name, variable.dtype)
    flags = with_planes(variable.astype(np.promote_types(variable.dtype, np.uint16)), "outside")
    return flags, planes_to_bits(["outside"], own_planes(flags))


def stamps(
    obj: T,
    positions: Positions,
    size: int | tuple[int, int] = 63,
    *,
    centered: bool = False,
    mask: MaskChoice = None,
    interpolation: Interpolation = "lanczos3",
) -> T:
    """Cut stamps around many positions at once, from one image or a stack; lazy with dask, one task an epoch.

    Parameters
    ----------
    obj
        An image or Dataset with dimensions (..., y, x).
    positions
        As for `ztfxr.resolve_positions`: Dataset, Table, DataFrame, SkyCoord, or (x, y) pairs in absolute 0-based
        pixels.
    size
        Pixels along each side, or (y, x). A stamp starts ``size // 2`` pixels before its central pixel.
    centered
        False: the central pixel is the one that contains the position, and pixels are copied. True: images are shifted
        by the rest, less than a pixel, so that the position is the middle of the central pixel.
    mask
        With `centered`: pixels not to use, as in `ztfxr.align`; by default the recommended planes of `flags`, or
        `mask`. False: only what is not finite is bad.
    interpolation
        With `centered`: ``"lanczos3"``, or ``"spline"`` (cubic), as in `ztfxr.align`.

    Returns
    -------
    Same type as `obj`, with dimensions (..., source, dy, dx) in place of (..., y, x); for a numpy array take the
    ``.values`` of an image. Coordinates:

    - `dy`, `dx`: pixels from the central one;
    - `y` (source, dy), `x` (source, dx): absolute 0-based FITS pixels; -1 where a position has no pixel;
    - `x_pixel`, `y_pixel`, and where they are known `ra`, `dec`, `source_id` (source): the positions as requested;
    - `stamp_status` (source): the planes `outside` (the position is NaN or off the image), `edge` (only some of the
      stamp is on the image).

    Beyond the edges stand NaN, True in masks, the plane `outside` in `flags`, else 0. What has neither `y` nor `x`
    stays as it is. One stamp has the pixels and labels of `ztfxr.stamp` again by
    ``cut.isel(source=i).swap_dims(dy="y", dx="x")``, and `ra`, `dec` planes by `ztfxr.assign_wcs` with
    ``cut.attrs["wcs_header"]``.

    With `centered`, images are float32 and NaN where a bad pixel or the edge has a weight beyond 0.01; `variance` (and
    `<image>_variance`) is summed with squared weights, `flags` and `mask` say what is bad as they do after
    `ztfxr.align`; `y` and `x` are not whole numbers, and there is no ``wcs_header``.

    Raises
    ------
    InputError
        An unusable size or position; `centered` for bit planes, a mask or a variance without their image.
    AlignmentError
        The mask is on another grid.
    MissingWCSError

    Notes
    -----
    A frame that dask holds or reads is read once for all its stamps, and only between the first row and the last that
    they need. An image opened from a file without dask is read now, in the same way.

    Examples
    --------
    >>> ds = ztfxr.open_quadrant(ztfxr.samples.sample_path())
    >>> ztfxr.stamps(ds, [(700.0, 720.0), (730.0, 740.0)], size=21).sci.dims
    ('source', 'dy', 'dx')
    """
    _refuse(obj)
    where = resolve_positions(obj, positions)
    origin, sides = pixel_origin(obj), _sides(size)
    windows = Windows(
        (where["y_pixel"].values, where["x_pixel"].values), (sides["y"], sides["x"]), (origin["y"], origin["x"])
    )
    dataset = drop_wcs(obj.to_dataset(name=_LONE) if isinstance(obj, xr.DataArray) else obj)
    dataset = dataset.drop_vars(_AXES, errors="ignore")
    name = str(obj.name or "") if isinstance(obj, xr.DataArray) else ""
    if centered:
        cut = _shifted(dataset, windows, name, _same_place(mask, obj), interpolation)
    else:
        cut = _gathered(dataset, windows, name)
    cut = cut.assign_coords({**where.coords, **_labels(windows, centered), "stamp_status": _status(windows, dataset)})
    out = cut if isinstance(obj, xr.Dataset) else cut[_LONE].rename(obj.name)
    index = obj.xindexes.get("ra")
    out.attrs = {k: v for k, v in obj.attrs.items() if k != "wcs_header"}
    if isinstance(index, WCSIndex) and not centered:
        out.attrs["wcs_header"] = index.transform.cards
    return out


def _refuse(obj: xr.Dataset | xr.DataArray) -> None:
    """Raise `InputError` where the dimensions or coordinates do not allow stamps."""
    if not set(_AXES) <= set(obj.dims):
        raise InputError(f"stamps are cut from images with dimensions y and x; got {tuple(map(str, obj.dims))}")
    taken = [name for name in _STAMP if name in obj.dims or name in obj.coords]
    if taken:
        raise InputError(f"the image has {', '.join(taken)} already, which its stamps need; rename it first")


def _same_place(mask: MaskChoice, obj: xr.Dataset | xr.DataArray) -> MaskChoice:
    """The mask without labels, its epochs in order; `AlignmentError` where it is on another grid."""
    if not isinstance(mask, xr.DataArray):
        return mask
    same_grid(mask, obj)
    return aligned(mask, obj, "the mask")


def _labels(windows: Windows, centered: bool) -> dict[str, xr.Variable]:
    """`dy` and `dx`, and the absolute pixels `y` and `x` of every stamp."""
    out = {}
    for axis, side, central, position in zip(_AXES, windows.sides, windows.central, windows.position, strict=True):
        offset = np.arange(side) - side // 2
        whole = np.where(windows.known[:, None], central[:, None] + offset, -1)
        attrs = {"units": "pixel", "long_name": f"pixels in {axis} from the central pixel"}
        out[f"d{axis}"] = xr.Variable(f"d{axis}", offset, attrs)
        pixels = position[:, None] + offset if centered else whole
        out[axis] = xr.Variable(("source", f"d{axis}"), pixels, SPECS[axis].attrs)
    return out


def _status(windows: Windows, dataset: xr.Dataset) -> xr.Variable:
    """`outside` where the position is off the image, `edge` where the stamp has only some of it."""
    inside, some, whole = windows.on_image((dataset.sizes["y"], dataset.sizes["x"]))
    outside, edge = (planes_to_bits([name], STATUS_PLANES) for name in ("outside", "edge"))
    bits = np.where(inside, 0, outside) | np.where(some & ~whole, edge, 0)
    attrs = {"long_name": "what is missing of the stamp; 0 is nothing", **flag_attrs(STATUS_PLANES)}
    return xr.Variable("source", bits.astype(np.uint32), attrs)


def _needed(dataset: xr.Dataset, windows: Windows, margin: int = 0) -> tuple[xr.Dataset, Windows]:
    """The part of the images that the windows and a margin rest on, and the windows seen from it."""
    part = windows.wider(margin).part((dataset.sizes["y"], dataset.sizes["x"]))
    return dataset.isel(dict(zip(_AXES, part, strict=True))), windows.within(part)


def _gathered(dataset: xr.Dataset, windows: Windows, name: str) -> xr.Dataset:
    """Every variable with rows or columns as stamps; `name` is that of a lone image."""
    part, windows = _needed(dataset, windows)
    cut = {k: _gather(v, name if k == _LONE else str(k), windows) for k, v in part.variables.items() if _spatial(v)}
    kept = part.drop_vars(list(cut))
    coords = {k: v for k, v in cut.items() if k in part.coords}
    return kept.assign({k: v for k, v in cut.items() if k not in coords}).assign_coords(coords)


def _spatial(variable: xr.Variable) -> bool:
    return bool(set(_AXES) & set(variable.dims))


def _gather(variable: xr.Variable, name: str, windows: Windows) -> xr.Variable:
    """The stamps of one variable; a task for each chunk of its other dimensions."""
    core = [axis for axis in _AXES if axis in variable.dims]
    loop = [d for d in variable.dims if d not in core]
    dims = (*loop, "source", *(f"d{axis}" for axis in core))
    pixels = variable.transpose(*loop, *core)
    pixels, fill = _with_fill(name, pixels)
    sides, starts = (dict(zip(_AXES, pair, strict=True)) for pair in (windows.sides, windows.starts))
    options: dict[str, Any] = {
        "starts": [starts[axis] for axis in core],
        "sides": [sides[axis] for axis in core],
        "fill": fill,
    }
    if pixels.chunks is None:
        return xr.Variable(dims, gather_windows(pixels.values, **options), pixels.attrs)
    import dask.array as da

    cut = da.blockwise(
        gather_windows,
        dims,
        pixels.data,
        pixels.dims,
        new_axes={"source": len(windows.known), **{f"d{axis}": sides[axis] for axis in core}},
        concatenate=True,
        dtype=pixels.dtype,
        meta=np.empty((0,) * len(dims), pixels.dtype),
        **options,
    )
    return xr.Variable(dims, cut, pixels.attrs)


def _shifted(
    dataset: xr.Dataset, windows: Windows, name: str, mask: MaskChoice, interpolation: Interpolation
) -> xr.Dataset:
    """Every image as centered stamps, with its variance; `flags` and `mask` as the science image leaves them."""
    images = _images(dataset, name)
    if isinstance(mask, xr.DataArray):
        dataset = dataset.assign({"_mask": mask})
    part, near = _needed(dataset, windows, kernel_table(interpolation).shape[1] // 2)
    shared = {k: part[k] for k in ("flags", "mask") if k in part}
    if "flags" in shared:
        part["flags"] = with_planes(part["flags"], "outside", "nan")
    bad = gather(xr.Dataset({**shared, "sci": part[images[0]]}), name="sci", mask=part.get("_mask", mask)).bad
    cut: dict[Hashable, xr.Variable] = {}
    for image in images:
        variance = part.get(_variance_of(image))
        given = {"sci": part[image], "mask": bad, "variance": variance, "flags": part.get("flags")}
        found = _centered(given, near, interpolation)
        cut[image] = found["sci"]
        if variance is not None:
            cut[_variance_of(image)] = found["variance"]
        for key in shared:
            cut.setdefault(key, found[str(key)])
    kept = part.drop_vars([k for k, v in part.variables.items() if _spatial(v)])
    return kept.assign({k: xr.Variable(v.dims, v.data, part[k].attrs) for k, v in cut.items()})


def _variance_of(image: Hashable) -> str:
    """The name that an image's variance has."""
    return {"sci": "variance", "zogy_difference": "zogy_variance"}.get(str(image), f"{image}_variance")


def _images(dataset: xr.Dataset, name: str) -> list[Hashable]:
    """The images to shift, the science image first; `InputError` where something cannot be shifted."""
    spatial = {k: v for k, v in dataset.data_vars.items() if _spatial(v.variable)}
    called = {k: name if k == _LONE else str(k) for k in spatial}
    images = [k for k, v in spatial.items() if set(_AXES) <= set(v.dims) and v.dtype.kind in "fiu"]
    images = [k for k in images if called[k] not in ("flags", "mask") and not called[k].endswith("variance")]
    carried = {"flags", "mask", *map(_variance_of, images)}
    left = [called[k] or "the array" for k in spatial if k not in images and k not in carried]
    if left or not images:
        raise InputError(
            f"{', '.join(left) or 'flags and mask'} cannot be shifted: bit planes, masks and variances go with their "
            "image, in one Dataset; drop what has none, or use centered=False"
        )
    return sorted(images, key=lambda k: k != "sci")


def _centered(
    given: dict[str, xr.DataArray | None], windows: Windows, interpolation: Interpolation
) -> dict[str, xr.Variable]:
    """Centered stamps of an image and what goes with it, by schema name; one image a task."""
    whole = {k: a if a is None or a.chunks is None else a.chunk(dict.fromkeys(_AXES, -1)) for k, a in given.items()}
    found = map_images(
        _center,
        whole,
        {k: _STAMP for k, a in given.items() if a is not None},
        sizes=dict(zip(_STAMP, (len(windows.known), *windows.sides), strict=True)),
        options={
            "windows": windows,
            "interpolation": interpolation,
            "planes": resampled_planes(given["flags"]),
        },
    )
    return {k: v.variable for k, v in found.items()}


def _center(
    sci: NDArray[Any],
    mask: Bools,
    variance: NDArray[Any] | None,
    flags: NDArray[Any] | None,
    *,
    windows: Windows,
    interpolation: Interpolation,
    planes: ResampledPlanes,
) -> dict[str, NDArray[Any]]:
    found = gather_shifted(
        sci,
        variance,
        mask,
        flags,
        windows=windows,
        interpolation=interpolation,
        spread=planes.spread,
        outside=planes.outside,
    )
    explained = planes.explained(found.flags, found.bad)
    return {"sci": found.image, "mask": found.bad, "variance": found.variance, "flags": explained}
