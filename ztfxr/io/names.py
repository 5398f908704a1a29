"""Names of FITS files: how they end, what a frame is called, which files a path stands for, which lies beside which."""

from __future__ import annotations

import re
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import TypeAlias

from ztfxr.errors import InputError
from ztfxr.io.remote import Address, Location, exists, file_name, location, matching

__all__ = ["SUFFIXES", "AnyPath", "companion", "frame_name", "frame_paths", "suffix_of"]

AnyPath: TypeAlias = str | PathLike[str]

SUFFIXES = (".fits", ".fits.gz", ".fits.fz")
"""How names of FITS files end most often: plain, gzipped, tile-compressed."""

_SUFFIX = re.compile(r"\.(fits?|fts)(\.(gz|fz))?$", re.IGNORECASE)


def suffix_of(name: str) -> str:
    """How the name of a FITS file ends (``.fits``, ``.FITS``, ``.fit.gz``, ...); empty where it is none."""
    found = _SUFFIX.search(name)
    return "" if found is None else found[0]


def frame_name(path: AnyPath) -> str:
    """The name of a frame: its file's, without the suffix that makes it a FITS file."""
    name = file_name(path)
    return name.removesuffix(suffix_of(name))


def frame_paths(paths: AnyPath | Iterable[AnyPath], named: str = "") -> list[AnyPath]:
    """The files that `paths` stand for: themselves, one file, the matches of a pattern, or the frames in a folder.

    Parameters
    ----------
    paths
        Paths or URLs; or one of them, which may be a pattern (``night/*.fits``) or a folder.
    named
        What the names of frames in a folder contain.

    Raises
    ------
    InputError
        There are none.
    """
    found: list[AnyPath]
    if not isinstance(paths, str | PathLike | Iterable):
        raise InputError(f"frames are a path, a pattern, a folder or several paths; got {type(paths).__name__}")
    if paths == "" or not isinstance(paths, str | PathLike):
        found, what = list(paths), "the list of paths is empty"
    elif isinstance(place := location(paths), Path) and place.is_dir():
        files: list[AnyPath] = [each for each in sorted(place.iterdir()) if suffix_of(each.name) and named in each.name]
        found, what = files, f"the folder {place} holds no FITS file{f' named *{named}*' if named else ''}"
    else:
        is_file = isinstance(place, Path) and place.is_file()
        found = [paths] if is_file else list(matching(str(paths)))
        what = f"nothing matches {Address(paths)!r}"
    if not found:
        raise InputError(f"no frames to open: {what}")
    return found


def companion(path: Location, old: str, new: str) -> Location | None:
    """The file beside `path` whose name has `new` for `old`, compressed the same way or not; None where there is none.

    Of a URL the query is kept: the mask of a cut-out is the same cut-out.
    """
    name = file_name(path)
    own = suffix_of(name)
    if old not in name or not own:
        return None
    stem = name.removesuffix(own).replace(old, new)
    for suffix in dict.fromkeys((own, *SUFFIXES)):
        candidate = _beside(path, name, stem + suffix)
        if exists(candidate):
            return candidate
    return None


def _beside(path: Location, name: str, other: str) -> Location:
    if isinstance(path, Path):
        return path.with_name(other)
    address, mark, query = path.partition("?")
    return address.removesuffix(name) + other + mark + query
