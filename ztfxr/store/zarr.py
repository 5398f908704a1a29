"""Zarr stores (format 3) of labelled images, stacks, trees and light curves.

A store holds what an object is, not what can be derived from it: the sky labels travel as WCS cards and a window,
never as planes of `ra` and `dec`. Images lie as one shard per epoch with small tiles inside, so that an epoch is one
file to write and a stamp a few kilobytes to read.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import date
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import numpy as np
import xarray as xr
from dask.base import compute, tokenize

from ztfxr.errors import InputError, StoreError
from ztfxr.schema import SPECS
from ztfxr.wcs import WCSIndex, WCSTransform, Window, drop_wcs

__all__ = ["open_zarr", "to_zarr"]

Store = str | PathLike[str]
Chunks = Mapping[str, int] | Literal["auto"] | None

_FORMAT = 1
_TILE = 256
_MAX_CHUNK_BYTES = 2**24
_MARKERS = ("zarr.json", ".zgroup", ".zmetadata")
_IMAGE_DIMS = ("y", "x")
_FORMAT_ATTR, _VERSION_ATTR, _OBJECT_ATTR = "ztfxr_store", "ztfxr_version", "ztfxr_object"
_NAME_ATTR, _NODES_ATTR = "ztfxr_name", "ztfxr_nodes"
_WINDOW_ATTR, _ORDER_ATTR, _DTYPE_ATTR = "ztfxr_wcs_window", "ztfxr_order", "ztfxr_dtype"
_ROOT_ATTRS = (_FORMAT_ATTR, _VERSION_ATTR, _OBJECT_ATTR, _NAME_ATTR, _NODES_ATTR)
_OWN_ATTRS = (*_ROOT_ATTRS, _WINDOW_ATTR, _ORDER_ATTR)


def to_zarr(obj: xr.Dataset | xr.DataArray | xr.DataTree, store: Store, *, overwrite: bool = False) -> None:
    """Write an object into a new zarr store (format 3). Computes: every dask array in `obj`.

    Images (..., y, x) are written as one shard per epoch with tiles of at most 256 × 256 pixels inside; everything
    else as a single chunk, split only above 16 MiB. Values, dtypes and attributes are kept, numpy values in attributes
    as plain numbers and lists. Sky labels `ra`, `dec` that come from a WCS are stored as its cards, not as planes.

    A local store appears whole or not at all: it is written beside its destination under a hidden name
    (``.NAME.partial-…``) and renamed. A run that fails leaves the destination as it was. A store at a URL
    (``s3://…``) is written in place, without that guarantee.

    Parameters
    ----------
    obj
        A Dataset, a DataTree (every node is written), or a DataArray with a name.
    store
        Path or URL of the store.
    overwrite
        Replace a store that exists, once the new one is whole; `obj` may be lazy from the old one. Nothing but a
        zarr store or an empty folder is ever replaced.

    Raises
    ------
    InputError
        A DataArray without a name, or an object of another type.
    StoreError
        The destination exists, its folder is missing or not writable, or a value has no place in a zarr store.
    """
    nodes = _nodes(obj)
    if _is_url(store):
        _write_url(nodes, str(store), overwrite)
        return
    destination = Path(os.path.realpath(store))
    _refuse_existing(destination, overwrite)
    with _partial(destination) as partial:
        _write(nodes, str(partial), "w-")
        _replace(partial, destination, overwrite)


def open_zarr(store: Store, *, chunks: Chunks = None) -> xr.Dataset | xr.DataTree:
    """Open a zarr store lazily: metadata and coordinates of at most one dimension are read, all else is dask.

    Parameters
    ----------
    store
        Path or URL of a store that `to_zarr` wrote. Other zarr stores open too, as they are.
    chunks
        Dask chunks by dimension, or "auto". By default one chunk per epoch for images (..., y, x), and the chunks on
        disk for everything else.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        What was written: a DataTree for a DataTree (or another store with groups), else a Dataset. `ra`, `dec`
        (deg, ICRS) are the lazy labels of the WCS again, on the same window of the full frame, and
        ``attrs["wcs_header"]`` holds its cards.

    Raises
    ------
    StoreError
        Nothing is there, it is no zarr store, a newer ztfxr wrote it, or its WCS does not fit its pixels.
    """
    groups = _open_groups(store)
    root = groups["/"]
    _check_format(root.attrs, store)
    is_tree = root.attrs.get(_OBJECT_ATTR, "DataTree" if len(groups) > 1 else "Dataset") == "DataTree"
    name = root.attrs.get(_NAME_ATTR)
    identity = _identity(store)
    order = _in_order(groups, ["/", *("/" + path for path in root.attrs.get(_NODES_ATTR, ()))])
    nodes = {path: _decode(groups[path], chunks, (*identity, path)) for path in order}
    return xr.DataTree.from_dict(nodes, name=name) if is_tree else nodes["/"]


# ---- where ----------------------------------------------------------------------------------------------------------


def _is_url(store: Store) -> bool:
    return isinstance(store, str) and "://" in store


def _is_zarr(path: Path) -> bool:
    return any((path / marker).is_file() for marker in _MARKERS)


def _refuse_existing(destination: Path, overwrite: bool) -> None:
    if not destination.exists():
        return
    if not overwrite:
        raise StoreError(f"{destination} exists already; write to another path, or replace it with overwrite=True")
    # overwrite=True with a mistyped path must not delete a folder of frames.
    if not (destination.is_dir() and (_is_zarr(destination) or not any(destination.iterdir()))):
        raise StoreError(
            f"{destination} exists and is no zarr store, so overwrite=True does not replace it; remove it yourself"
        )


@contextmanager
def _partial(destination: Path) -> Iterator[Path]:
    """A new hidden folder beside `destination`; removed when the block fails."""
    partial = destination.with_name(f".{destination.name}.partial-{uuid.uuid4().hex}")
    try:
        partial.mkdir()
    except FileNotFoundError as error:
        raise StoreError(
            f"cannot write {destination}: the folder {destination.parent} does not exist; create it first"
        ) from error
    except OSError as error:
        raise StoreError(
            f"cannot write {destination}: no folder can be made in {destination.parent} ({error.strerror}); "
            "choose a folder that you can write to"
        ) from error
    try:
        yield partial
    except BaseException:
        _remove(partial)
        raise


def _remove(folder: Path) -> None:
    """Remove a folder for good: when one dask task fails, others may still be writing and make it anew."""
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
        if not folder.exists():
            return


def _replace(partial: Path, destination: Path, overwrite: bool) -> None:
    """Rename `partial` to `destination`; what was there is removed last, and put back where the rename fails."""
    _refuse_existing(destination, overwrite)
    old = destination.with_name(f".{destination.name}.old-{uuid.uuid4().hex}")
    had_old = destination.exists()
    try:
        if had_old:
            destination.rename(old)
        partial.rename(destination)
    except OSError as error:
        if old.exists() and not destination.exists():
            old.rename(destination)
        raise StoreError(
            f"cannot move the new store to {destination} ({error.strerror}); it was not written"
        ) from error
    if had_old:
        shutil.rmtree(old, ignore_errors=True)


# ---- writing --------------------------------------------------------------------------------------------------------


def _nodes(obj: xr.Dataset | xr.DataArray | xr.DataTree) -> dict[str, xr.Dataset]:
    """The Datasets to write by group, ready but for their encoding; parents come before children."""
    root_attrs: dict[str, Any] = {_FORMAT_ATTR: _FORMAT, _VERSION_ATTR: version("ztfxr")}
    if isinstance(obj, xr.DataTree):
        # A branch of a larger tree keeps what it inherits from above.
        datasets = {path: n.to_dataset(inherit=n is obj) for path, n in obj.subtree_with_keys}
        root_attrs |= {_OBJECT_ATTR: "DataTree", _NODES_ATTR: [path for path in datasets if path != "."]}
        root_attrs |= {} if obj.name is None else {_NAME_ATTR: obj.name}
    else:
        datasets = {".": _as_dataset(obj)}
        root_attrs |= {_OBJECT_ATTR: "Dataset"}
    nodes = {path: _encode(ds) for path, ds in datasets.items()}
    nodes["."].attrs.update(root_attrs)
    return nodes


def _as_dataset(obj: object) -> xr.Dataset:
    if isinstance(obj, xr.Dataset):
        return obj
    if not isinstance(obj, xr.DataArray):
        raise InputError(f"to_zarr writes a Dataset, DataTree or DataArray; came {type(obj).__name__}")
    if obj.name is None:
        raise InputError('the DataArray has no name to store it under; give one with array.rename("flux")')
    return obj.to_dataset()


def _write(nodes: Mapping[str, xr.Dataset], store: str, mode: Literal["w", "w-"]) -> None:
    delayed = []
    for path, ds in nodes.items():
        # Metadata first and all pixels in one go, so that nodes are computed side by side and share their inputs.
        delayed.append(
            ds.to_zarr(
                store,
                group=None if path == "." else path,
                mode=mode if path == "." else "w-",
                zarr_format=3,
                consolidated=False,
                compute=False,
                encoding={name: _encoding(var) for name, var in ds.variables.items()},
            )
        )
    compute(*delayed)


def _write_url(nodes: Mapping[str, xr.Dataset], store: str, overwrite: bool) -> None:
    try:
        _write(nodes, store, "w" if overwrite else "w-")
    except FileExistsError as error:
        raise StoreError(
            f"{store} exists already; write to another place, or replace it with overwrite=True"
        ) from error


def _encode(ds: xr.Dataset) -> xr.Dataset:
    """`ds` as it lies on disk: no sky planes, plain attributes, strings of any length, chunks that match. Lazy."""
    attrs = {k: v for k, v in ds.attrs.items() if k not in _OWN_ATTRS}
    index = ds.xindexes.get("ra")
    if isinstance(index, WCSIndex):
        attrs |= {"wcs_header": index.transform.cards, _WINDOW_ATTR: _window_attr(ds, index.transform.window)}
        ds = drop_wcs(ds)
    # Encodings left from another file (its chunks, its time units) must not decide this one.
    out = ds.drop_encoding()
    attrs[_ORDER_ATTR] = [str(name) for name in out.variables]
    variables = {name: _encode_variable(str(name), var) for name, var in out.variables.items()}
    coords = {name: variables[name] for name in out.coords}
    out = xr.Dataset({name: variables[name] for name in out.data_vars}, coords=xr.Coordinates(coords, indexes={}))
    out.attrs = _plain_attrs(attrs, "the object")
    return out


def _window_attr(ds: xr.Dataset, window: Window) -> str | list[int]:
    """How the WCS window is kept: by the pixel coordinates where they tell it, so that they stay its only record."""
    if all(_is_run(ds, d, start) for d, start in zip(_IMAGE_DIMS, window.start, strict=True)):
        return "coords"
    return [*window.start, *window.stop]


def _is_run(ds: xr.Dataset, dim: str, start: int) -> bool:
    """Whether the coordinate of `dim` counts pixels one by one from `start`."""
    size = ds.sizes[dim]
    return dim in ds.coords and size > 0 and np.array_equal(ds[dim].values, np.arange(start, start + size))


def _encode_variable(name: str, var: xr.Variable) -> xr.Variable:
    out = var.to_base_variable()
    if out.dtype.kind in "USO":
        # Zarr has no stable fixed-length text type: text of any length on disk, the dtype noted to give it back.
        out = _text(name, out)
    elif out.dtype.kind in "mM":
        out.attrs = {**out.attrs, _DTYPE_ATTR: out.dtype.str}
    out.attrs = _plain_attrs(out.attrs, f"the variable {name!r}")
    if out.chunks is not None:
        # One dask task per file: two tasks that share a shard would overwrite each other's pixels.
        out = out.chunk(dict(zip(out.dims, _file_shape(out), strict=True)))
    return out


def _text(name: str, var: xr.Variable) -> xr.Variable:
    attrs = {**var.attrs, _DTYPE_ATTR: var.dtype.str}
    if var.dtype.kind == "S":
        var = var.astype(f"U{max(1, var.dtype.itemsize)}")
    try:
        strict = var.astype(np.dtypes.StringDType(coerce=False))
    except ValueError as error:
        raise StoreError(
            f"the variable {name!r} holds Python objects that are not text ({error}); "
            "give it a numeric, time or string dtype first"
        ) from error
    out = strict.astype(np.dtypes.StringDType())
    out.attrs = attrs
    return out


def _plain_attrs(attrs: Mapping[Any, Any], owner: str) -> dict[str, Any]:
    return {str(key): _plain(value, f"attribute {key!r} of {owner}") for key, value in attrs.items()}


def _plain(value: Any, what: str) -> Any:
    """`value` in JSON's types; `StoreError` where it has none."""
    if isinstance(value, np.datetime64 | np.timedelta64):
        return str(value)
    if isinstance(value, np.generic):
        return _plain(value.item(), what)
    if value is None or isinstance(value, str | bool | int | float):
        return value
    if isinstance(value, np.ndarray):
        return _plain(value.astype(str).tolist() if value.dtype.kind in "mM" else value.tolist(), what)
    if isinstance(value, list | tuple):
        return [_plain(v, what) for v in value]
    if isinstance(value, Mapping):
        return {str(k): _plain(v, what) for k, v in value.items()}
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, PathLike):
        return os.fspath(value)
    raise StoreError(
        f"{what} is of type {type(value).__name__}, which JSON cannot hold; make it text, a number or a list first"
    )


# ---- layout on disk -------------------------------------------------------------------------------------------------


def _is_image(var: xr.Variable) -> bool:
    return var.dims[-2:] == _IMAGE_DIMS and var.dtype.kind in "biufc"


def _tile(size: int) -> int:
    """Even tiles of at most 256 pixels: 237 for a size of 3080, which pads one row where 256 would pad 248."""
    count = max(1, -(-size // _TILE))
    return max(1, -(-size // count))


def _tiles(var: xr.Variable) -> tuple[int, ...]:
    """Shape of the tiles of an image: one epoch deep."""
    return (1,) * (var.ndim - 2) + tuple(_tile(n) for n in var.shape[-2:])


def _file_shape(var: xr.Variable) -> tuple[int, ...]:
    """Shape of what one file holds: one epoch of an image, in whole tiles; else the variable, split above 16 MiB."""
    if _is_image(var):
        tiles = _tiles(var)
        return tiles[:-2] + tuple(max(1, -(-n // t)) * t for n, t in zip(var.shape[-2:], tiles[-2:], strict=True))
    shape = [max(1, n) for n in var.shape]
    while np.prod(shape, dtype=float) * var.dtype.itemsize > _MAX_CHUNK_BYTES and max(shape) > 1:
        longest = shape.index(max(shape))
        shape[longest] = -(-shape[longest] // 2)
    return tuple(shape)


def _encoding(var: xr.Variable) -> dict[str, Any]:
    """Layout and time units of a variable, in xarray's words."""
    encoding: dict[str, Any] = {}
    if var.ndim:
        encoding["chunks"] = file_shape = _file_shape(var)
        if _is_image(var) and _tiles(var) != file_shape:
            encoding |= {"chunks": _tiles(var), "shards": file_shape}
    if var.dtype.kind in "mM":
        unit = {"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds", "s": "seconds"}
        word = unit[np.datetime_data(var.dtype)[0]]
        # Integers since 1970 in the dtype's own unit: what numpy holds, so no instant is rounded.
        encoding |= {"dtype": "int64", "units": word if var.dtype.kind == "m" else f"{word} since 1970-01-01"}
    return encoding


# ---- reading --------------------------------------------------------------------------------------------------------


def _open_groups(store: Store) -> dict[str, xr.Dataset]:
    path = str(store)
    if not _is_url(store):
        local = Path(store)
        if not local.exists():
            raise StoreError(f"{path}: nothing is there; check the path, or write it first with ztfxr.to_zarr")
        if not _is_zarr(local):
            raise StoreError(
                f"{path} is no zarr store: it holds none of {', '.join(_MARKERS)}; give the store's own folder"
            )
    try:
        groups = xr.open_groups(path, engine="zarr", consolidated=False, chunks=None, cache=False)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(
            f"{path} cannot be read as a zarr store ({type(error).__name__}: {error}); check it, or write it again"
        ) from error
    return {str(name): ds for name, ds in groups.items()}


def _check_format(attrs: Mapping[Any, Any], store: Store) -> None:
    found = attrs.get(_FORMAT_ATTR, _FORMAT)
    if not isinstance(found, int) or found < 1:
        raise StoreError(
            f"{store} says it is ztfxr store format {found!r}, which does not exist; its attributes are damaged"
        )
    if found > _FORMAT:
        raise StoreError(
            f"{store} has ztfxr store format {found}, written by ztfxr {attrs.get(_VERSION_ATTR, '?')}; this ztfxr "
            f"{version('ztfxr')} reads formats up to {_FORMAT}: update ztfxr to read it"
        )


def _identity(store: Store) -> tuple[str | int, ...]:
    """What tells this store from what lay at its path before, so that dask names are equal for equal pixels only."""
    if _is_url(store):
        return (str(store), uuid.uuid4().hex)
    stat = Path(store).stat()
    return (os.path.realpath(store), stat.st_ino, stat.st_mtime_ns)


def _decode(ds: xr.Dataset, chunks: Chunks, identity: tuple[str | int, ...]) -> xr.Dataset:
    """The Dataset that `_encode` was given: chunked, with its dtypes, attributes and sky labels."""
    ds, source = ds.copy(), ds.encoding.get("source")
    order = _in_order(ds.variables, ds.attrs.get(_ORDER_ATTR, ()))
    coords = {name: _decode_coord(name, ds, chunks, identity) for name in order if name in ds.coords}
    variables = {name: _decode_variable(name, ds, chunks, identity) for name in order if name in ds.data_vars}
    out = xr.Dataset(variables, coords, {k: v for k, v in ds.attrs.items() if k not in _OWN_ATTRS})
    out.encoding = {"source": source} if source else {}
    return _decode_wcs(out, ds.attrs) if _WINDOW_ATTR in ds.attrs else out


def _in_order(found: Iterable[Hashable], wanted: Iterable[str]) -> list[str]:
    """Names in the order that was written; a file system lists them in any. Names that were added since come last."""
    rank = {name: i for i, name in enumerate(wanted)}
    return sorted(map(str, found), key=lambda name: (rank.get(name, len(rank)), name))


def _decode_coord(name: str, ds: xr.Dataset, chunks: Chunks, identity: tuple[str | int, ...]) -> xr.Variable:
    """Small coordinates are read: as dask arrays they would be computed whenever xarray compares them."""
    var = ds.variables[name]
    return _typed(var.load()) if var.ndim <= 1 else _decode_variable(name, ds, chunks, identity)


def _decode_variable(name: str, ds: xr.Dataset, chunks: Chunks, identity: tuple[str | int, ...]) -> xr.Variable:
    var = ds.variables[name]
    if var.ndim:
        sizes = _dask_chunks(var, chunks)
        var = var.chunk(sizes, name=f"open_zarr-{name}-{tokenize(identity, name, sizes)}")
    return _typed(var)


def _dask_chunks(var: xr.Variable, chunks: Chunks) -> dict[Any, Any]:
    if chunks == "auto":
        return dict.fromkeys(var.dims, "auto")
    on_disk = var.encoding.get("shards") or var.encoding.get("chunks") or var.shape
    return {d: (chunks or {}).get(str(d), min(c, n)) for d, c, n in zip(var.dims, on_disk, var.shape, strict=True)}


def _typed(var: xr.Variable) -> xr.Variable:
    """`var` with the dtype that it was written from."""
    if _DTYPE_ATTR not in var.attrs:
        return var
    dtype = np.dtype(var.attrs[_DTYPE_ATTR])
    out = var.to_base_variable().astype(dtype)
    out.attrs = {k: v for k, v in var.attrs.items() if k != _DTYPE_ATTR}
    return out


def _decode_wcs(ds: xr.Dataset, attrs: Mapping[Any, Any]) -> xr.Dataset:
    kept = attrs[_WINDOW_ATTR]
    shape = (ds.sizes["y"], ds.sizes["x"])
    if kept == "coords":
        # Built from the labels on disk, so that a store cut by other tools keeps its right place on the sky.
        start = [int(ds[d][0]) if d in ds.coords and ds.sizes[d] else 0 for d in _IMAGE_DIMS]
        fits = all(_is_run(ds, d, s) for d, s in zip(_IMAGE_DIMS, start, strict=True))
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
