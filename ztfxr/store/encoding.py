"""Datasets as they lie in a zarr store, and back: nothing is lost, and nothing there means something else to a reader.

CF gives meaning to attributes such as `scale_factor` or ``units="days since …"``. An object's own attributes of that
kind are kept in one attribute of ztfxr's, so that no reader takes them for an encoding.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from dask.base import tokenize

from ztfxr.errors import StoreError
from ztfxr.schema import SPECS, Attrs, plain
from ztfxr.store.layout import IMAGE_DIMS, file_shape
from ztfxr.wcs import WCSIndex, WCSTransform, Window, drop_wcs

__all__ = [
    "DTYPE_ATTR",
    "FORMAT_ATTR",
    "NAME_ATTR",
    "NODES_ATTR",
    "OBJECT_ATTR",
    "UNFINISHED_ATTR",
    "VERSION_ATTR",
    "Chunks",
    "check_name",
    "decode",
    "encode",
    "in_order",
]

Chunks: TypeAlias = Mapping[str, int] | Literal["auto"] | None

FORMAT_ATTR, VERSION_ATTR, OBJECT_ATTR = "ztfxr_store", "ztfxr_version", "ztfxr_object"
NAME_ATTR, NODES_ATTR, UNFINISHED_ATTR = "ztfxr_name", "ztfxr_nodes", "ztfxr_unfinished"
DTYPE_ATTR = "ztfxr_dtype"
_ASIDE_ATTR, _WINDOW_ATTR = "ztfxr_attrs", "ztfxr_wcs_window"
_ORDER_ATTR, _COORDS_ATTR = "ztfxr_order", "ztfxr_coords"
_OWN_ATTRS = frozenset(
    {FORMAT_ATTR, VERSION_ATTR, OBJECT_ATTR, NAME_ATTR, NODES_ATTR, UNFINISHED_ATTR, DTYPE_ATTR}
    | {_ASIDE_ATTR, _WINDOW_ATTR, _ORDER_ATTR, _COORDS_ATTR}
)
# CF and xarray read these as instructions.
_INSTRUCTIONS = frozenset(
    {"add_offset", "ancillary_variables", "bounds", "calendar", "cell_measures", "cell_methods", "coordinates", "dtype"}
    | {"formula_terms", "grid_mapping", "missing_value", "scale_factor"}
)
_TIME_UNITS = {"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds"}
_CALENDAR = "proleptic_gregorian"
_MAX_NAME = 255
_LARGEST = {"f": 8, "c": 16}


# ---- encoding -------------------------------------------------------------------------------------------------------


def encode(ds: xr.Dataset) -> xr.Dataset:
    """`ds` as it lies on disk: no sky planes, plain attributes, times as integers, chunks that match. Lazy.

    Raises
    ------
    StoreError
        A name, a dtype or an attribute has no place in a zarr store.
    """
    own: dict[str, Any] = {}
    index = ds.xindexes.get("ra")
    if isinstance(index, WCSIndex):
        own[_WINDOW_ATTR] = _window_attr(ds, index.transform.window)
        ds = drop_wcs(ds).assign_attrs(wcs_header=index.transform.cards)
    for name in ds.variables:
        check_name(name, "variable")
    for dim in ds.dims:
        if not isinstance(dim, str):
            raise StoreError(f"the dimension {dim!r} is no text; rename it")
    own |= {_ORDER_ATTR: list(ds.variables), _COORDS_ATTR: list(ds.coords)}
    variables = {name: _encode_variable(str(name), var) for name, var in ds.variables.items()}
    # xarray lists the names of coordinates with spaces between them.
    coords = {name: variables.pop(name) for name in ds.coords if not any(c.isspace() for c in str(name))}
    out = xr.Dataset(variables, xr.Coordinates(coords, indexes={}))
    out.attrs = _encode_attrs(ds.attrs, "the object", times=False) | own
    return out


def check_name(name: Hashable, what: str) -> None:
    """Raise `StoreError` for a name of a variable or node that a store cannot hold."""
    if not isinstance(name, str):
        raise StoreError(f"the {what} {name!r} has a name that is no text; rename it to {str(name)!r}")
    encoded = plain(name, f"the name of a {what}", StoreError).encode()
    if (
        name in ("", ".", "..", "zarr.json")
        or name.startswith("__")
        or any(c in "/\\" or not c.isprintable() for c in name)
        or len(encoded) > _MAX_NAME
    ):
        raise StoreError(
            f"the {what} {name!r} cannot be named so in a zarr store, where a name is a folder: without slashes and "
            f"control characters, at most {_MAX_NAME} bytes, not beginning with '__'; rename it"
        )


def _window_attr(ds: xr.Dataset, window: Window) -> str | list[int]:
    """How the WCS window is kept: by the pixel coordinates where they tell it, so that they stay its only record."""
    if all(_is_run(ds, d, start) for d, start in zip(IMAGE_DIMS, window.start, strict=True)):
        return "coords"
    return [*window.start, *window.stop]


def _is_run(ds: xr.Dataset, dim: str, start: int) -> bool:
    """Whether the coordinate of `dim` counts pixels one by one from `start`."""
    size = ds.sizes[dim]
    return dim in ds.coords and size > 0 and np.array_equal(ds[dim].values, np.arange(start, start + size))


def _encode_variable(name: str, var: xr.Variable) -> xr.Variable:
    out = var.to_base_variable()
    # An encoding left from another file (its chunks, its time units) must not decide this one.
    out.encoding = {}
    dtype = out.dtype
    attrs = _encode_attrs(var.attrs, f"the variable {name!r}", times=dtype.kind in "mM")
    if not isinstance(dtype, np.dtype) or dtype.kind == "V" or dtype.itemsize > _LARGEST.get(dtype.kind, np.inf):
        raise StoreError(f"the variable {name!r} has the dtype {dtype}, which zarr cannot hold; convert it first")
    if dtype.kind in "USO":
        # Zarr has no stable fixed-length text type: text of any length on disk, the dtype noted to give it back.
        attrs[DTYPE_ATTR] = dtype.str
        out = _text(name, out)
    elif dtype.kind in "mM":
        attrs |= {DTYPE_ATTR: dtype.str} | _time_attrs(dtype)
        # The count that numpy holds, so that no instant is rounded or out of range.
        out = out.astype(np.int64)
    elif not dtype.isnative:
        attrs[DTYPE_ATTR] = dtype.str
        out = out.astype(dtype.newbyteorder("="))
    out.attrs = attrs
    if out.chunks is not None:
        # One dask task per file: two tasks that share a shard would overwrite each other's pixels.
        out = out.chunk(dict(zip(out.dims, file_shape(out), strict=True)))
    return out


def _time_attrs(dtype: np.dtype[Any]) -> dict[str, str]:
    """The CF attributes of times and durations kept as integers of the dtype's own unit."""
    word = _TIME_UNITS[np.datetime_data(dtype)[0]]
    return {"units": word} if dtype.kind == "m" else {"units": f"{word} since 1970-01-01", "calendar": _CALENDAR}


def _text(name: str, var: xr.Variable) -> xr.Variable:
    try:
        if var.dtype.kind == "S":
            var = var.astype(f"U{max(1, var.dtype.itemsize)}")
        return var.astype(np.dtypes.StringDType(coerce=False)).astype(np.dtypes.StringDType())
    except (ValueError, TypeError) as error:
        raise StoreError(
            f"the variable {name!r} holds Python objects that are not text ({error}); "
            "give it a numeric, time or string dtype first"
        ) from error


def _encode_attrs(attrs: Attrs, owner: str, *, times: bool) -> dict[str, Any]:
    """Attributes in JSON's types, those that a reader would take for instructions set aside."""
    simple: dict[str, Any] = {}
    for key in (k for k in attrs if k not in _OWN_ATTRS):
        simple |= plain({key: attrs[key]}, f"attribute {key!r} of {owner}", StoreError)
    aside = {k: v for k, v in simple.items() if _is_instruction(k, v) or (times and k == "units")}
    out = {k: v for k, v in simple.items() if k not in aside}
    return out | ({_ASIDE_ATTR: aside} if aside else {})


def _is_instruction(key: str, value: object) -> bool:
    return key in _INSTRUCTIONS or key.startswith("_") or (key == "units" and "since" in str(value))


# ---- decoding -------------------------------------------------------------------------------------------------------


def decode(raw: xr.Dataset, chunks: Chunks, identity: tuple[str | int, ...]) -> xr.Dataset:
    """The Dataset that `encode` was given, from one that was opened without decoding times and masks.

    It is chunked, with its dtypes, attributes and sky labels. What others added to the store is decoded as CF says.
    """
    source = raw.encoding.get("source")
    ours = [name for name, var in raw.variables.items() if _is_our_time(var)]
    variables = dict(xr.decode_cf(raw.drop_vars(ours), decode_coords=False).variables)
    variables |= {name: raw.variables[name] for name in ours}
    order = in_order(variables, raw.attrs.get(_ORDER_ATTR, ()))
    labels = {*raw.coords, *raw.attrs.get(_COORDS_ATTR, ())}
    found: dict[bool, dict[str, xr.Variable]] = {True: {}, False: {}}
    for name in order:
        label = name in labels
        # As dask arrays small coordinates would be computed whenever xarray compares them.
        small = label and variables[name].ndim <= 1
        var = variables[name].load() if small else _chunked(name, variables[name], chunks, identity)
        found[label][name] = _typed(var)
    out = xr.Dataset(found[False], found[True], _decode_attrs(raw.attrs))
    out.encoding = {"source": source} if source else {}
    return _decode_wcs(out, raw.attrs) if _WINDOW_ATTR in raw.attrs else out


def _is_our_time(var: xr.Variable) -> bool:
    """Whether the variable holds times or durations as `encode` keeps them; another tool may have kept them anew."""
    dtype = np.dtype(var.attrs.get(DTYPE_ATTR, "V"))
    if dtype.kind not in "mM" or var.dtype != np.int64:
        return False
    return all(var.attrs.get(k) == v for k, v in _time_attrs(dtype).items())


def in_order(found: Iterable[Hashable], wanted: Iterable[str]) -> list[str]:
    """Names in the order that was written; a file system lists them in any. Names that were added since come last."""
    rank = {name: i for i, name in enumerate(wanted)}
    return sorted(map(str, found), key=lambda name: (rank.get(name, len(rank)), name))


def _chunked(name: str, var: xr.Variable, chunks: Chunks, identity: tuple[str | int, ...]) -> xr.Variable:
    if not var.ndim:
        return var
    sizes = _dask_chunks(var, chunks)
    return var.chunk(sizes, name=f"open_zarr-{name}-{tokenize(identity, name, sizes)}")


def _dask_chunks(var: xr.Variable, chunks: Chunks) -> dict[Hashable, Any]:
    if chunks == "auto":
        return dict.fromkeys(var.dims, "auto")
    on_disk = var.encoding.get("shards") or var.encoding.get("chunks") or var.shape
    return {d: (chunks or {}).get(str(d), min(c, n)) for d, c, n in zip(var.dims, on_disk, var.shape, strict=True)}


def _typed(var: xr.Variable) -> xr.Variable:
    """`var` with the dtype that it was written from, and its own attributes."""
    out = var.to_base_variable()
    attrs = out.attrs
    if DTYPE_ATTR in attrs:
        dtype = np.dtype(attrs[DTYPE_ATTR])
        if _is_our_time(out):
            attrs = {k: v for k, v in attrs.items() if k not in ("units", "calendar")}
        out = out.astype(dtype)
    out.attrs = _decode_attrs(attrs)
    return out


def _decode_attrs(attrs: Attrs) -> dict[Any, Any]:
    return {k: v for k, v in attrs.items() if k not in _OWN_ATTRS} | dict(attrs.get(_ASIDE_ATTR, {}))


def _decode_wcs(ds: xr.Dataset, attrs: Attrs) -> xr.Dataset:
    kept = attrs[_WINDOW_ATTR]
    shape = (ds.sizes["y"], ds.sizes["x"])
    if kept == "coords":
        # Built from the labels on disk, so that a store cut by other tools keeps its right place on the sky.
        start = [int(ds[d][0]) if d in ds.coords and ds.sizes[d] else 0 for d in IMAGE_DIMS]
        fits = all(_is_run(ds, d, s) for d, s in zip(IMAGE_DIMS, start, strict=True))
    else:
        start, fits = [int(v) for v in kept[:2]], (kept[2] - kept[0], kept[3] - kept[1]) == shape
    if not fits:
        raise StoreError(
            f"the WCS window {kept} does not fit the pixels {shape} (y, x): the store was cut by another tool; "
            "open it with xarray.open_zarr and give the WCS again with ztfxr.assign_wcs"
        )
    window = Window((start[0], start[1]), (start[0] + shape[0], start[1] + shape[1]))
    index = WCSIndex(WCSTransform(str(attrs["wcs_header"]), window))
    out = ds.assign_coords(xr.Coordinates.from_xindex(index))
    for name in ("ra", "dec"):
        out.coords[name].attrs.update(SPECS[name].attrs)
    return out
