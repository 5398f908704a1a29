"""Zarr stores at URLs, on obstore's stores, and zarr's own Store objects."""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, cast
from urllib.parse import urlsplit

from ztfxr.errors import InputError, MissingDependencyError, StoreError
from ztfxr.io.remote import location, shown
from ztfxr.store.folders import MARKERS

if TYPE_CHECKING:
    from zarr.abc.store import Store

__all__ = ["as_store", "local_path", "name_of", "refuse_existing_at"]

_EXTRAS = {"http": "remote", "https": "remote", "s3": "s3", "s3a": "s3"}
_OBSTORE_KINDS = frozenset({"s3", "s3a", "gs", "az", "azure", "abfs"})


def local_path(store: object) -> Path | None:
    """The path of a store on this machine; None for every other."""
    place = location(store) if isinstance(store, str | PathLike) else None
    return place if isinstance(place, Path) else None


def name_of(store: object) -> str:
    """What messages call a store; without the secrets that a URL may hold."""
    return shown(store) if isinstance(store, str | PathLike) else f"the {type(store).__name__}"


def as_store(store: object, *, read_only: bool) -> Store:
    """The zarr Store for a URL, an obstore store or a zarr Store.

    Raises
    ------
    MissingDependencyError
        The package for this kind of URL is not installed.
    InputError
        It is none of these.
    """
    from zarr.abc.store import Store
    from zarr.storage import ObjectStore

    if isinstance(store, Store):
        return store
    if isinstance(store, str):
        return _at_url(store, read_only)
    if type(store).__module__.partition(".")[0] == "obstore":
        return cast("Store", ObjectStore(store, read_only=read_only))
    raise InputError(
        "a store is a path, a URL, a zarr Store, an obstore store or an icechunk repository; "
        f"got {type(store).__name__}"
    )


def _at_url(url: str, read_only: bool) -> Store:
    from zarr.storage import FsspecStore, ObjectStore

    kind = url.split("::")[-1].split("://")[0]
    try:
        return cast("Store", FsspecStore.from_url(url, read_only=read_only))
    except ImportError:
        if kind in _OBSTORE_KINDS and find_spec("obstore") is not None:
            from obstore.store import from_url

            return cast("Store", ObjectStore(from_url(url), read_only=read_only))
        if kind in _EXTRAS:
            raise MissingDependencyError.for_extra(f"the package for {kind}://", _EXTRAS[kind]) from None
        raise MissingDependencyError(f"{shown(url)}: fsspec's package for {kind}:// is not installed") from None
    except ValueError:
        raise InputError(f"{shown(url)}: fsspec knows no {urlsplit(url).scheme}://") from None


def refuse_existing_at(store: Store, name: str, overwrite: bool) -> None:
    """`StoreError` where the store is read-only or holds something, with `overwrite` where that is no zarr store."""
    from zarr.core.sync import sync

    if store.read_only:
        raise StoreError(f"{name} is read-only; open it for writing, or write elsewhere")
    if sync(store.is_empty("")):
        return
    if not overwrite:
        raise StoreError(f"{name} exists already; write to another place, or replace it with overwrite=True")
    if not any(sync(store.exists(marker)) for marker in MARKERS):
        raise StoreError(f"{name} holds something that is no zarr store, so overwrite=True does not replace it")
