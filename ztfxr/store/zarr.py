"""Zarr stores (format 3) of labeled images, stacks, trees and light curves.

A store holds what an object is, not what can be derived from it: the sky labels travel as WCS cards and a window,
never as planes of `ra` and `dec`. Images lie as one shard per epoch with small tiles inside, so that an epoch is one
file to write and a stamp a few kilobytes to read.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

import xarray as xr
from dask.base import compute

from ztfxr.errors import InputError, MissingDependencyError, StoreError
from ztfxr.schema import Attrs
from ztfxr.store import icechunk
from ztfxr.store.encoding import (
    FORMAT_ATTR,
    NAME_ATTR,
    NODES_ATTR,
    OBJECT_ATTR,
    UNFINISHED_ATTR,
    VERSION_ATTR,
    Chunks,
    check_name,
    decode,
    encode,
    in_order,
)
from ztfxr.store.folders import MARKERS, is_zarr, is_zip, pack, partial_folder, refuse_existing, replace
from ztfxr.store.layout import chunk_encoding
from ztfxr.store.urls import as_store, local_path, name_of, refuse_existing_at

if TYPE_CHECKING:
    from zarr.abc.store import Store as ZarrStore

__all__ = ["open_zarr", "to_zarr", "tree_attrs"]

Store: TypeAlias = "str | PathLike[str] | ZarrStore | Any"
"""A path, a URL, a zarr Store, an obstore store, or an icechunk repository or session."""

_FORMAT = 1


def to_zarr(obj: xr.Dataset | xr.DataArray | xr.DataTree, store: Store, *, overwrite: bool = False) -> None:
    """Write an object into a new zarr store (format 3). Computes: every dask array in `obj`.

    Images (..., y, x) are written as one shard per epoch with tiles of at most 192 × 192 pixels inside; everything
    else as a single chunk, split only above 16 MiB. Values, dtypes and attributes are kept, numpy values in attributes
    as plain numbers and lists; what a store cannot hold is refused before anything is written.
    Sky labels `ra`, `dec` that come from a WCS are stored as its cards, not as planes.

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

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> ztfxr.to_zarr(made.reference, "reference.zarr")
    >>> ztfxr.open_zarr("reference.zarr").sci.dims
    ('y', 'x')
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

    Raises
    ------
    StoreError
        Nothing is there, it is no zarr store, a newer ztfxr wrote it, writing it was broken off, or its WCS does not
        fit its pixels.
    MissingDependencyError
        The package for this kind of store is not installed.

    Notes
    -----
    Of an image only the tiles under a window are read, where the window is cut before the epoch is taken or with it:
    ``isel(time=3, y=rows, x=columns)``, `ztfxr.stamp`. dask does not see through ``isel(time=3)`` to a later window,
    and reads the epoch.

    Examples
    --------
    >>> made = ztfxr.testing.make_scene((96, 96), n_epochs=2, n_stars=40)
    >>> ztfxr.to_zarr(made.reference, "reference.zarr")
    >>> ztfxr.open_zarr("reference.zarr").sci.dims
    ('y', 'x')
    """
    with _damage_is_an_error(store):
        groups = _open_groups(store)
        root = groups["/"].attrs
        _check_format(root, name_of(store))
        is_tree = root.get(OBJECT_ATTR, "DataTree" if len(groups) > 1 else "Dataset") == "DataTree"
        identity = _identity(store)
        order = in_order(groups, ["/", *("/" + path for path in root.get(NODES_ATTR, ()))])
        nodes = {path: decode(groups[path], chunks, (*identity, path)) for path in order}
        return xr.DataTree.from_dict(nodes, name=root.get(NAME_ATTR)) if is_tree else nodes["/"]


# ---- writing --------------------------------------------------------------------------------------------------------


def tree_attrs(nodes: Iterable[str]) -> dict[str, Any]:
    """The root's attributes by which `open_zarr` knows the store of a tree, and its nodes in their order."""
    return {FORMAT_ATTR: _FORMAT, VERSION_ATTR: version("ztfxr"), OBJECT_ATTR: "DataTree", NODES_ATTR: list(nodes)}


def _nodes(obj: xr.Dataset | xr.DataArray | xr.DataTree) -> dict[str, xr.Dataset]:
    """The Datasets to write by group, ready but for their encoding; parents come before children."""
    if isinstance(obj, xr.DataTree):
        # A branch of a larger tree keeps what it inherits from above.
        datasets = {path: n.to_dataset(inherit=n is obj) for path, n in obj.subtree_with_keys}
        root_attrs = tree_attrs(path for path in datasets if path != ".")
        root_attrs |= {} if obj.name is None else {NAME_ATTR: obj.name}
    else:
        datasets = {".": _as_dataset(obj)}
        root_attrs = {FORMAT_ATTR: _FORMAT, VERSION_ATTR: version("ztfxr"), OBJECT_ATTR: "Dataset"}
    for path in datasets:
        for part in path.split("/") if path != "." else ():
            check_name(part, "node")
    nodes = {path: encode(ds) for path, ds in datasets.items()}
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


def _write_icechunk(nodes: Mapping[str, xr.Dataset], store: Store, overwrite: bool) -> None:
    session, ours = icechunk.open_session(store, writable=True)
    # A session collects what is written in this process, so that its threads must write.
    _write_in_place(nodes, session.store, name_of(store), overwrite, scheduler="threads")
    if ours:
        icechunk.commit(session, f"ztfxr {version('ztfxr')}: {nodes['.'].attrs[OBJECT_ATTR]}")


def _write_in_place(nodes: Mapping[str, xr.Dataset], store: ZarrStore, name: str, overwrite: bool, **how: Any) -> None:
    """Write where the store lies, marked as unfinished until all is there."""
    import zarr

    try:
        refuse_existing_at(store, name, overwrite)
        marked = {**nodes, ".": nodes["."].assign_attrs({UNFINISHED_ATTR: True})}
        _write(marked, store, "w" if overwrite else "w-", **how)
        del zarr.open_group(store, mode="r+").attrs[UNFINISHED_ATTR]
    except StoreError:
        raise
    except OSError as error:
        # Not its text: it may hold a URL with its secrets.
        raise StoreError(f"{name} cannot be written ({type(error).__name__}); what is there is not whole") from None


def _write(nodes: Mapping[str, xr.Dataset], store: str | ZarrStore, mode: Literal["w", "w-"], **how: Any) -> None:
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
                encoding={name: chunk_encoding(var) for name, var in ds.variables.items()},
            )
        )
    compute(*delayed, **how)


# ---- reading --------------------------------------------------------------------------------------------------------


def _open_groups(store: Store) -> dict[str, xr.Dataset]:
    """Every group as it lies there: what CF says of attributes is not what it says of an object's own."""
    groups = xr.open_groups(
        _readable(store),
        engine="zarr",
        consolidated=False,
        chunks=None,
        cache=False,
        decode_times=False,
        mask_and_scale=False,
    )
    return {str(path): ds for path, ds in groups.items()}


@contextmanager
def _damage_is_an_error(store: Store) -> Iterator[None]:
    """Whatever reading a store's metadata meets with, as a `StoreError`."""
    try:
        yield
    except (StoreError, MissingDependencyError, InputError):
        raise
    except Exception as error:
        # The text of a server's error may hold a URL with its secrets.
        local = local_path(store) is not None
        what = f"{type(error).__name__}: {error}" if local else type(error).__name__
        raise StoreError(
            f"{name_of(store)} cannot be read as a zarr store ({what}); check that it is there, or write it again"
        ) from (error if local else None)


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


def _check_format(attrs: Attrs, store: str) -> None:
    if attrs.get(UNFINISHED_ATTR):
        raise StoreError(
            f"{store} was not written to its end: the run that wrote it was broken off, or is still at it; "
            "write it again with overwrite=True"
        )
    found = attrs.get(FORMAT_ATTR, _FORMAT)
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
