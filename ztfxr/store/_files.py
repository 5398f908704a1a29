"""New files that appear whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from os import PathLike
from pathlib import Path

from ztfxr.errors import StoreError

__all__ = ["new_file"]


@contextmanager
def new_file(path: str | PathLike[str], overwrite: bool) -> Iterator[Path]:
    """A hidden path beside `path` to write to, renamed to it when the block ends well, else removed.

    Raises `StoreError` where `path` exists and is not to be overwritten, is a folder, or cannot be written.
    """
    destination = Path(os.path.realpath(path))
    _refuse(destination, overwrite)
    # The name ends as the destination does: writers compress by it.
    partial = destination.with_name(f".partial-{uuid.uuid4().hex}-{destination.name}")
    try:
        yield partial
        _refuse(destination, overwrite)
        partial.replace(destination)
    except StoreError:
        raise
    except OSError as error:
        raise StoreError(f"{destination} cannot be written ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


def _refuse(destination: Path, overwrite: bool) -> None:
    if destination.is_dir():
        raise StoreError(f"{destination} is a folder; give the name of a file")
    if destination.exists() and not overwrite:
        raise StoreError(f"{destination} exists already; write elsewhere, or replace it with overwrite=True")
