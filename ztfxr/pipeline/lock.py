"""One run at a time on a store."""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from ztfxr.errors import StoreError

__all__ = ["lock_path", "locked"]


def lock_path(store: Path) -> Path:
    """The lock file of a store: beside it, since zarr takes every file inside for its own."""
    return store.with_name(f".{store.name}.lock")


@contextmanager
def locked(store: Path) -> Iterator[None]:
    """Hold the only right to write to `store`.

    The lock is the operating system's on an open file: it ends with the process that holds it, however that dies, so
    there are no stale locks. The file says who holds it, and stays.

    Raises
    ------
    StoreError
        Another run holds it, or the folder of the store cannot be written to.
    """
    path = lock_path(store)
    try:
        file = path.open("a+")
    except OSError as error:
        raise StoreError(
            f"cannot write {store}: no lock file can be made in {path.parent} ({error.strerror}); "
            "choose a folder that exists and that you can write to"
        ) from error
    with file:
        if not _try_lock(file):
            raise StoreError(
                f"another run writes to {store} ({_holder(path)}); wait until it ends, or end it, and run again"
            )
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname()}))
        file.flush()
        yield


def _try_lock(file: IO[str]) -> bool:
    try:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    return True


def _holder(path: Path) -> str:
    try:
        who = json.loads(path.read_text())
        return f"process {int(who['pid'])} on {who['host']}"
    except (OSError, ValueError, KeyError, TypeError):
        return "an unknown process"
