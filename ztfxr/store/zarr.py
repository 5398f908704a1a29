"""Zarr stores (format 3) of labeled images, stacks, trees and light curves.

A store holds what an object is, not what can be derived from it: the sky labels travel as WCS cards and a window,
never as planes of `ra` and `dec`. Images lie as one shard per epoch with small tiles inside, so that an epoch is one
file to write and a stamp a few kilobytes to read.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Hashable, Iterable, Mapping
from datetime import date
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import numpy as np
import xarray as xr
from dask.base import compute, tokenize

from ztfxr.errors import InputError, MissingDependencyError, StoreError
from ztfxr.schema import SPECS
from ztfxr.store import icechunk
from ztfxr.store.folders import MARKERS, is_zarr, is_zip, pack, partial_folder, refuse_existing, replace
from ztfxr.store.urls import as_store, local_path, name_of, refuse_existing_at
from ztfxr.wcs import WCSIndex, WCSTransform, Window, drop_wcs

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["DTYPE_ATTR", "VERSION_ATTR", "open_zarr", "to_zarr", "tree_attrs"]

Store: TypeAlias = "str | PathLike[str] | ZarrStore | Any"
"""A path, a URL, a zarr Store, an obstore store, or an icechunk repository or session."""
Chunks = Mapping[str, int] | Literal["auto"] | None

_FORMAT = 1
_TILE = 192
_MAX_CHUNK_BYTES = 2**24
_IMAGE_DIMS = ("y", "x")
_FORMAT_ATTR, VERSION_ATTR, _OBJECT_ATTR = "ztfxr_store", "ztfxr_version", "ztfxr_object"
_NAME_ATTR, _NODES_ATTR = "ztfxr_name", "ztfxr_nodes"
_WINDOW_ATTR, _ORDER_ATTR, DTYPE_ATTR = "ztfxr_wcs_window", "ztfxr_order", "ztfxr_dtype"
_UNFINISHED_ATTR = "ztfxr_unfinished"
_ROOT_ATTRS = (_FORMAT_ATTR, VERSION_ATTR, _OBJECT_ATTR, _NAME_ATTR, _NODES_ATTR, _UNFINISHED_ATTR)
_OWN_ATTRS = (*_ROOT_ATTRS, _WINDOW_ATTR, _ORDER_ATTR)


def to_zarr(obj: xr.Dataset | xr.DataArray | xr.DataTree, store: Store, *, overwrite: bool = False) -> None:
    """Write an object into a new zarr store (format 3). Computes: every dask array in `obj`.

    Images (..., y, x) are written as one shard per epoch with tiles of at most 192 × 192 pixels inside; everything
    else as a single chunk, split only above 16 MiB. Values, dtypes and attributes are kept, numpy values in attributes
    as plain numbers and lists. Sky labels `ra`, `dec` that come from a WCS are stored as its cards, not as planes.

    A local store, folder or zip file, appears whole or not at all: it is written beside its destination under a hidden
    name (``.NAME.partial-…``) and renamed. A run that fails leaves the destination as it was. An icechunk repository
    gets one commit, or none. A store at a URL, an obstore store or a zarr Store is written in place: until all is
    written it is marked as unfinished, and `open_zarr` refuses it; with `overwrite`, what was there is gone once the
    writing starts, so that `obj` must not be lazy from it.

    Parameters
    ----------
    obj
        A Dataset, a DataTree (every node is written), or a DataArray with a name.
    store
        A folder, a ``.zip`` file, a URL of fsspec's (``memory://``, ``s3://``), an obstore store, a zarr Store, or an
        icechunk repository, named too by ``icechunk::PATH`` or ``icechunk::s3://BUCKET/PREFIX``. An icechunk session is
        written to and not committed.
    overwrite
        Replace a store that exists; a local one or a repository once the new one is whole, so that `obj` may be lazy
        from the old one. Nothing but a zarr store or an empty folder is ever replaced.

    Raises
    ------
    InputError
        A DataArray without a name, an object of another type, or no store.
    StoreError
        The destination exists, its folder is missing, it cannot be written, or a value has no place in a zarr store.
    MissingDependencyError
        The package for this kind of store is not installed.
    """
    nodes = _nodes(obj)
    if icechunk.is_icechunk(store):
        _write_icechunk(nodes, store, overwrite)
    elif (folder := local_path(store)) is not None:
        _write_local(nodes, Path(os.path.realpath(folder)), overwrite)
    else:
        _write_in_place(nodes, as_store(store, read_only=False), name_of(store), overwrite)


def open_zarr(store: Store, *, chunks: Chunks = None) -> xr.Dataset | xr.DataTree:
    """Open a zarr store lazily: metadata and coordinates of at most one dimension are read, all else is dask.

    Parameters
    ----------
    store
        A store that `to_zarr` wrote, given as it was there. Other zarr stores open too, as they are.
    chunks
        Dask chunks by dimension, or "auto". By default one chunk per epoch for images (..., y, x), and the chunks on
        disk for everything else.

    Returns
    -------
    xarray.Dataset or xarray.DataTree
        What was written: a DataTree for a DataTree (or another store with groups), else a Dataset. `ra`, `dec`
        (deg, ICRS) are the lazy labels of the WCS again, on the same window of the full frame, and
        ``attrs["wcs_header"]`` holds its cards.

    Notes
    -----
    Of an image only the tiles under a window are read, where the window is cut before the epoch is taken or with it:
    ``isel(time=3, y=rows, x=columns)``, `ztfxr.stamp`. dask does not see through ``isel(time=3)`` to a later window,
    and reads the epoch.

    Raises
    ------
    StoreError
        Nothing is there, it is no zarr store, a newer ztfxr wrote it, writing it was broken off, or its WCS does not
        fit its pixels.
    MissingDependencyError
        The package for this kind of store is not installed.
    """
    groups = _open_groups(store)
    root = groups["/"]
    _check_format(root.attrs, name_of(store))
    is_tree = root.attrs.get(_OBJECT_ATTR, "DataTree" if len(groups) > 1 else "Dataset") == "DataTree"
    name = root.attrs.get(_NAME_ATTR)
    identity = _identity(store)
    order = _in_order(groups, ["/", *("/" + path for path in root.attrs.get(_NODES_ATTR, ()))])
    nodes = {path: _decode(groups[path], chunks, (*identity, path)) for path in order}
    return xr.DataTree.from_dict(nodes, name=name) if is_tree else nodes["/"]


# ---- writing --------------------------------------------------------------------------------------------------------


def tree_attrs(nodes: Iterable[str]) -> dict[str, Any]:
    """The root's attributes by which `open_zarr` knows the store of a tree, and its nodes in their order."""
    return {_FORMAT_ATTR: _FORMAT, VERSION_ATTR: version("ztfxr"), _OBJECT_ATTR: "DataTree", _NODES_ATTR: list(nodes)}


def _nodes(obj: xr.Dataset | xr.DataArray | xr.DataTree) -> dict[str, xr.Dataset]:
    """The Datasets to write by group, ready but for their encoding; parents come before children."""
    if isinstance(obj, xr.DataTree):
        # A branch of a larger tree keeps what it inherits from above.
        datasets = {path: n.to_dataset(inherit=n is obj) for path, n in obj.subtree_with_keys}
        root_attrs = tree_attrs(path for path in datasets if path != ".")
        root_attrs |= {} if obj.name is None else {_NAME_ATTR: obj.name}
    else:
        datasets = {".": _as_dataset(obj)}
        root_attrs = {_FORMAT_ATTR: _FORMAT, VERSION_ATTR: version("ztfxr"), _OBJECT_ATTR: "Dataset"}
    nodes = {path: _encode(ds) for path, ds in datasets.items()}
    nodes["."].attrs.update(root_attrs)
    return nodes


def _as_dataset(obj: object) -> xr.Dataset:
    if isinstance(obj, xr.Dataset):
        return obj
    if not isinstance(obj, xr.DataArray):
        raise InputError(f"to_zarr writes a Dataset, DataTree or DataArray; got {type(obj).__name__}")
    if obj.name is None:
        raise InputError('the DataArray has no name to store it under; give one with array.rename("flux")')
    return obj.to_dataset()


def _write_local(nodes: Mapping[str, xr.Dataset], destination: Path, overwrite: bool) -> None:
    refuse_existing(destination, overwrite)
    with partial_folder(destination) as partial:
        if not is_zip(destination):
            _write(nodes, str(partial), "w-")
            replace(partial, destination, overwrite)
            return
        _write(nodes, str(partial / "store"), "w-")
        pack(partial / "store", partial / "packed.zip")
        replace(partial / "packed.zip", destination, overwrite)


def _write_icechunk(nodes: Mapping[str, xr.Dataset], store: Any, overwrite: bool) -> None:
    session, ours = icechunk.open_session(store, writable=True)
    # A session collects what is written in this process, so that its threads must write.
    _write_in_place(nodes, session.store, name_of(store), overwrite, scheduler="threads")
    if ours:
        icechunk.commit(session, f"ztfxr {version('ztfxr')}: {nodes['.'].attrs[_OBJECT_ATTR]}")


def _write_in_place(nodes: Mapping[str, xr.Dataset], store: ZarrStore, name: str, overwrite: bool, **how: Any) -> None:
    """Write where the store lies, marked as unfinished until all is there."""
    import zarr

    try:
        refuse_existing_at(store, name, overwrite)
        marked = {**nodes, ".": nodes["."].assign_attrs({_UNFINISHED_ATTR: True})}
        _write(marked, store, "w" if overwrite else "w-", **how)
        del zarr.open_group(store, mode="r+").attrs[_UNFINISHED_ATTR]
    except StoreError:
        raise
    except OSError as error:
        # Not its text: it may hold a URL with its secrets.
        raise StoreError(f"{name} cannot be written ({type(error).__name__}); what is there is not whole") from None


def _write(nodes: Mapping[str, xr.Dataset], store: Any, mode: Literal["w", "w-"], **how: Any) -> None:
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
    compute(*delayed, **how)


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
        out.attrs = {**out.attrs, DTYPE_ATTR: out.dtype.str}
    out.attrs = _plain_attrs(out.attrs, f"the variable {name!r}")
    if out.chunks is not None:
        # One dask task per file: two tasks that share a shard would overwrite each other's pixels.
        out = out.chunk(dict(zip(out.dims, _file_shape(out), strict=True)))
    return out


def _text(name: str, var: xr.Variable) -> xr.Variable:
    attrs = {**var.attrs, DTYPE_ATTR: var.dtype.str}
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
    """Even tiles of at most 192 pixels: 182 for a size of 3080, which pads 14 rows where 192 would pad 184.

    A stamp of 63 pixels takes some 180 kB of a quadrant's 31 MB in such tiles, 260 kB in tiles of 256, 110 kB in tiles
    of 128, which take twice as long to write.
    """
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
    name = name_of(store)
    try:
        groups = xr.open_groups(_readable(store), engine="zarr", consolidated=False, chunks=None, cache=False)
    except (StoreError, MissingDependencyError, InputError):
        raise
    except Exception as error:
        # The text of a server's error may hold a URL with its secrets.
        local = local_path(store) is not None
        what = f"{type(error).__name__}: {error}" if local else type(error).__name__
        raise StoreError(
            f"{name} cannot be read as a zarr store ({what}); check that it is there, or write it again"
        ) from (error if local else None)
    return {str(path): ds for path, ds in groups.items()}


def _readable(store: Store) -> Any:
    """What xarray opens, a store on this machine being there."""
    from ztfxr.store.zipped import ZippedStore

    if icechunk.is_icechunk(store):
        return icechunk.open_session(store, writable=False)[0].store
    path = local_path(store)
    if path is None:
        return as_store(store, read_only=True)
    if not path.exists():
        raise StoreError(f"{path}: nothing is there; check the path, or write it first with ztfxr.to_zarr")
    if not is_zarr(path):
        raise StoreError(f"{path} is no zarr store: it holds none of {', '.join(MARKERS)}; give the store's own folder")
    return ZippedStore(path) if is_zip(path) else str(path)


def _check_format(attrs: Mapping[Any, Any], store: str) -> None:
    if attrs.get(_UNFINISHED_ATTR):
        raise StoreError(
            f"{store} was not written to its end: the run that wrote it was broken off, or is still at it; "
            "write it again with overwrite=True"
        )
    found = attrs.get(_FORMAT_ATTR, _FORMAT)
    if not isinstance(found, int) or found < 1:
        raise StoreError(
            f"{store} says it is ztfxr store format {found!r}, which does not exist; its attributes are damaged"
        )
    if found > _FORMAT:
        raise StoreError(
            f"{store} has ztfxr store format {found}, written by ztfxr {attrs.get(VERSION_ATTR, '?')}; this ztfxr "
            f"{version('ztfxr')} reads formats up to {_FORMAT}: update ztfxr to read it"
        )


def _identity(store: Store) -> tuple[str | int, ...]:
    """What tells this store from what lay at its path before, so that dask names are equal for equal pixels only."""
    path = local_path(store)
    if path is None:
        return (uuid.uuid4().hex,)
    stat = path.stat()
    return (os.path.realpath(path), stat.st_ino, stat.st_mtime_ns)


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
    if DTYPE_ATTR not in var.attrs:
        return var
    dtype = np.dtype(var.attrs[DTYPE_ATTR])
    out = var.to_base_variable().astype(dtype)
    out.attrs = {k: v for k, v in var.attrs.items() if k != DTYPE_ATTR}
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
