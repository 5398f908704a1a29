"""Folders and files on this machine that appear whole or not at all."""

from __future__ import annotations

import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, is_zipfile

from ztfxr.errors import StoreError

__all__ = ["MARKERS", "is_zarr", "is_zip", "pack", "partial_folder", "refuse_existing", "replace"]

MARKERS = ("zarr.json", ".zgroup", ".zmetadata")
"""Files of which every zarr store has one."""


def is_zip(path: Path) -> bool:
    """Whether a store by this name is a zip file."""
    return path.suffix.lower() == ".zip"


def is_zarr(path: Path) -> bool:
    """Whether the folder or zip file is a zarr store."""
    if not is_zip(path):
        return any((path / marker).is_file() for marker in MARKERS)
    if not (path.is_file() and is_zipfile(path)):
        return False
    with ZipFile(path) as packed:
        return not set(MARKERS).isdisjoint(packed.namelist())


def refuse_existing(destination: Path, overwrite: bool) -> None:
    """`StoreError` where something is there, and with `overwrite` where it is no zarr store or empty folder."""
    if not destination.exists():
        return
    if not overwrite:
        raise StoreError(f"{destination} exists already; write to another path, or replace it with overwrite=True")
    # overwrite=True with a mistyped path must not delete a folder of frames.
    empty = destination.is_dir() and not any(destination.iterdir())
    if not (is_zarr(destination) or empty):
        raise StoreError(
            f"{destination} exists and is no zarr store, so overwrite=True does not replace it; remove it yourself"
        )


@contextmanager
def partial_folder(destination: Path) -> Iterator[Path]:
    """A new hidden folder beside `destination`; it is gone when the block ends, unless it was moved away."""
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
    finally:
        if partial.exists():
            _remove(partial)


def _remove(folder: Path) -> None:
    """Remove a folder for good: when one dask task fails, others may still be writing and make it anew."""
    for _ in range(40):
        shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.02)
        if not folder.exists():
            return


def replace(partial: Path, destination: Path, overwrite: bool) -> None:
    """Rename `partial` to `destination`; what was there is removed last, and put back where the rename fails."""
    refuse_existing(destination, overwrite)
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
    if had_old and old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    elif had_old:
        old.unlink(missing_ok=True)


def pack(folder: Path, packed: Path) -> None:
    """Make a zip file of a folder, each file as it stands, so that a part of one can be read where it lies."""
    try:
        with ZipFile(packed, "w", ZIP_STORED) as target:
            for path in sorted(p for p in folder.rglob("*") if p.is_file()):
                target.write(path, path.relative_to(folder).as_posix())
    except OSError as error:
        raise StoreError(f"cannot write {packed.parent} ({error.strerror}); nothing was replaced") from error
